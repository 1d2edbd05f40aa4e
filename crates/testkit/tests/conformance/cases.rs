//! What a case is, who commits it, and how its outcome is seen.

use crate::seen::{describe, steady, tidy_end};
use std::time::Duration;
use warren_testkit::peer::{End, PATIENCE, PUBLISH};
use warren_testkit::{Peer, unique};
use warren_wire::method::{basic, channel};
use warren_wire::{BasicProperties, Method};

/// Who sends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A client with a fresh channel.
    Plain,
    /// A client whose channel has published.
    Published,
    /// A client whose channel consumes, and holds one delivery.
    Consumes,
    /// A client that has only connected its socket.
    Raw,
}

/// The offenders that an input is tried with.
pub(crate) const EVERYBODY: &[Kind] = &[Kind::Plain, Kind::Published, Kind::Consumes];
pub(crate) const PLAIN: &[Kind] = &[Kind::Plain];
pub(crate) const RAW: &[Kind] = &[Kind::Raw];

/// What a difference between the two ways means.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Note {
    /// None is expected.
    Same,
    /// One is expected, for this reason.
    Differs(&'static str),
    /// There may be one, for this reason: what happens depends on what the broker does to the connection.
    MayDiffer(&'static str),
}

/// One input, or one feature.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    /// What the client sends, as the page has it.
    pub(crate) name: &'static str,
    /// Who sends it.
    pub(crate) kinds: &'static [Kind],
    /// Sends it, after whatever it needs.
    pub(crate) act: fn(&mut Stage),
    /// Answers to wait for before the barrier is sent, where they may come later than the barrier's.
    pub(crate) answers: usize,
    /// What a difference means.
    pub(crate) note: Note,
}

impl Case {
    /// A case that everybody tries.
    pub(crate) const fn new(name: &'static str, act: fn(&mut Stage)) -> Case {
        Case { name, kinds: EVERYBODY, act, answers: 0, note: Note::Same }
    }

    /// A case that is tried once.
    pub(crate) const fn once(name: &'static str, act: fn(&mut Stage)) -> Case {
        Case { kinds: PLAIN, ..Case::new(name, act) }
    }

    /// With answers that come in their own time.
    pub(crate) const fn answered(self, answers: usize) -> Case {
        Case { answers, ..self }
    }

    /// With a difference that stays.
    pub(crate) const fn differs(self, why: &'static str) -> Case {
        Case { note: Note::Differs(why), ..self }
    }

    /// With a difference that may be there.
    pub(crate) const fn may_differ(self, why: &'static str) -> Case {
        Case { note: Note::MayDiffer(why), ..self }
    }
}

/// A group of cases, and what stands over it on the page.
#[derive(Clone, Copy)]
pub(crate) struct Section {
    pub(crate) title: &'static str,
    pub(crate) introduction: &'static str,
    pub(crate) cases: &'static [Case],
}

/// An offender on its way to a broker.
pub(crate) struct Stage {
    pub(crate) peer: Peer,
    /// A name for this run alone.
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) vhost: String,
    /// The channel that is watched.
    pub(crate) channel: u16,
    seen: Vec<String>,
}

impl Stage {
    /// An offender that is ready.
    pub(crate) fn on(address: std::net::SocketAddr, vhost: String, kind: Kind) -> Stage {
        let name = unique("q");
        if kind == Kind::Raw {
            return Stage { peer: Peer::raw(address), name, kind, vhost, channel: 1, seen: Vec::new() };
        }
        let peer = Peer::connect_with(address, &warren_testkit::Handshake::on(&vhost));
        let mut stage = Stage { peer, name, kind, vhost, channel: 1, seen: Vec::new() };
        stage.prepare();
        stage
    }

    fn prepare(&mut self) {
        self.peer.open_channel(1);
        match self.kind {
            Kind::Plain | Kind::Raw => {}
            Kind::Published => {
                self.declare();
                self.peer.publish(1, &self.name, b"hello");
                self.flow(1);
            }
            Kind::Consumes => {
                self.declare();
                self.peer.open_channel(2);
                self.peer.publish(2, &self.name, b"hello");
                self.peer.close_channel(2);
                self.peer.consume(1, &self.name, "t", false);
                self.peer.delivery(1);
            }
        }
    }

    /// Declares the queue of this run.
    pub(crate) fn declare(&mut self) {
        let name = self.peer.declare(1, &self.name);
        assert_eq!(name, self.name);
    }

    /// The barrier, on a channel on which nothing else is due.
    pub(crate) fn flow(&mut self, channel: u16) {
        self.peer.call(channel, &flow(true), channel::FLOW_OK);
    }

    /// Sends a method on channel 1.
    pub(crate) fn send(&mut self, method: Method<'_>) {
        self.peer.send(1, &method);
    }

    /// Sends octets.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        // The other side may have had enough already.
        let _ = self.peer.try_send_bytes(bytes);
    }

    /// Publishes on channel 1, with everything said.
    pub(crate) fn publish(
        &mut self,
        publish: basic::Publish<'_>,
        properties: BasicProperties<'_>,
        body: &[u8],
    ) {
        self.peer.publish_with(1, &publish, &properties, body);
    }

    /// basic.publish to nobody, without its content.
    pub(crate) fn begin_publish(&mut self) {
        self.send(Method::BasicPublish(basic::Publish { routing_key: b"nobody", ..PUBLISH }));
    }

    /// Notes an answer that comes on channel 0, in its own time.
    pub(crate) fn see_answer_on_0(&mut self) {
        if let Ok(Some(frame)) = self.peer.try_next(0, PATIENCE) {
            self.seen.push(describe(&mut self.peer, &frame));
        }
    }

    /// Waits for the end of the connection, or for as long as it may take.
    pub(crate) fn await_end(&mut self) {
        let _ = self.peer.end_within(PATIENCE);
    }

    /// What the client sees of it, in order.
    pub(crate) fn outcome(&mut self, answers: usize) -> String {
        let mut seen = std::mem::take(&mut self.seen);
        let end =
            if self.kind == Kind::Raw { self.watch_raw(&mut seen) } else { self.watch(answers, &mut seen) };
        if let Some(end) = end {
            seen.push(tidy_end(&end));
        }
        if seen.is_empty() {
            seen.push("nothing".to_owned());
        }
        steady(&seen.join("; ").replace(&self.name, "Q").replace(&self.vhost, "VHOST"))
    }

    /// Frames of the channel, until the barrier's answer, the end of the channel or of the connection.
    fn watch(&mut self, answers: usize, seen: &mut Vec<String>) -> Option<End> {
        let mut fenced = answers == 0;
        if fenced {
            self.fence();
        }
        loop {
            let frame = match self.peer.try_next(self.channel, PATIENCE) {
                Ok(Some(frame)) => frame,
                Ok(None) => panic!("neither an answer nor an end in {PATIENCE:?}; so far: {seen:?}"),
                Err(end) => return Some(end),
            };
            if frame.is(channel::FLOW_OK) && fenced {
                // What belongs to the whole connection comes on its own channel.
                self.connection_frames(seen);
                return None;
            }
            if frame.is(channel::CLOSE) {
                seen.push(describe(&mut self.peer, &frame));
                return self.lives_on();
            }
            if frame.is(channel::CLOSE_OK) {
                seen.push(describe(&mut self.peer, &frame));
                self.connection_frames(seen);
                return self.opens_again();
            }
            seen.push(describe(&mut self.peer, &frame));
            if !fenced && seen.len() >= answers {
                fenced = true;
                self.fence();
            }
        }
    }

    fn fence(&mut self) {
        let mut bytes = Vec::new();
        flow(true).write(self.channel, &mut bytes);
        self.bytes(&bytes);
    }

    fn connection_frames(&mut self, seen: &mut Vec<String>) {
        while let Ok(Some(frame)) = self.peer.try_next(0, Duration::from_millis(1)) {
            seen.push(describe(&mut self.peer, &frame));
        }
    }

    /// After channel.close: the connection goes on, and so does the number of the channel.
    fn lives_on(&mut self) -> Option<End> {
        let mut bytes = Vec::new();
        Method::ChannelCloseOk.write(self.channel, &mut bytes);
        self.bytes(&bytes);
        self.opens_again()
    }

    fn opens_again(&mut self) -> Option<End> {
        let mut bytes = Vec::new();
        Method::ChannelOpen.write(self.channel, &mut bytes);
        flow(true).write(self.channel, &mut bytes);
        self.bytes(&bytes);
        loop {
            match self.peer.try_next(self.channel, PATIENCE) {
                Ok(Some(frame)) if frame.is(channel::FLOW_OK) => return None,
                Ok(Some(_)) => {}
                Ok(None) => panic!("the channel was not opened again in {PATIENCE:?}"),
                Err(end) => return Some(end),
            }
        }
    }

    fn watch_raw(&mut self, seen: &mut Vec<String>) -> Option<End> {
        loop {
            match self.peer.try_next(0, PATIENCE) {
                Ok(Some(frame)) => seen.push(describe(&mut self.peer, &frame)),
                Ok(None) => panic!("no end in {PATIENCE:?}; so far: {seen:?}"),
                Err(end) => return Some(end),
            }
        }
    }
}

/// channel.flow.
pub(crate) fn flow(active: bool) -> Method<'static> {
    Method::ChannelFlow(channel::Flow { active })
}

/// A frame, whatever it holds.
pub(crate) fn frame(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend_from_slice(&channel.to_be_bytes());
    bytes.extend_from_slice(&u32::try_from(payload.len()).expect("a payload of this world").to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes.push(0xCE);
    bytes
}

/// A method frame on channel 1: class, method, and what follows.
pub(crate) fn raw_method(class: u16, method: u16, arguments: &[u8]) -> Vec<u8> {
    let mut payload = class.to_be_bytes().to_vec();
    payload.extend_from_slice(&method.to_be_bytes());
    payload.extend_from_slice(arguments);
    frame(1, 1, &payload)
}

/// A content header on channel 1.
pub(crate) fn header(class: u16, weight: u16, size: u64, properties: &[u8]) -> Vec<u8> {
    let mut payload = class.to_be_bytes().to_vec();
    payload.extend_from_slice(&weight.to_be_bytes());
    payload.extend_from_slice(&size.to_be_bytes());
    payload.extend_from_slice(properties);
    frame(2, 1, &payload)
}

/// A body frame on channel 1.
pub(crate) fn body(payload: &[u8]) -> Vec<u8> {
    frame(3, 1, payload)
}

/// The octets of a method on channel 1.
pub(crate) fn encoded(method: Method<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    method.write(1, &mut bytes);
    bytes
}
