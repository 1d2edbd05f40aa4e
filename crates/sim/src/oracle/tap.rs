//! The broker's side of the story, read off its connections: what it took, delivered and settled, frame by frame.
//!
//! The tap sees each frame when the broker processes it, together with what the broker wrote because of it. It
//! decides nothing that the broker decides; it translates delivery tags to messages, and counts.

mod chan;

use std::collections::{BTreeMap, VecDeque};

use warren_broker::ConnId;
use warren_wire::frame::{self, FRAME_HEARTBEAT, FRAME_METHOD};
use warren_wire::{Frame, Method};

use super::loss::{Cut, Taker};
use super::{Check, Oracle};
use crate::trace::{Trace, describe};
use chan::{TapChan, Whose};

/// All connections of the broker.
#[derive(Debug)]
pub struct Tap {
    conns: BTreeMap<ConnId, TapConn>,
    /// Whether Warren is on the other side: then no connection may be closed with an error.
    shared: bool,
    /// Frames processed.
    pub frames: u64,
    /// Milliseconds.
    pub now: u64,
}

#[derive(Debug)]
struct TapConn {
    id: ConnId,
    /// Losses before it began.
    born: u32,
    /// A fault has ended it, or will: its clients may hold what the broker takes back.
    broken: bool,
    /// Octets that the broker has written, and where in them contents lie that the other side has not read to their end.
    written: u64,
    contents: VecDeque<Written>,
    /// Given to the broker and not processed yet, from `at` on.
    input: Vec<u8>,
    at: usize,
    begun: bool,
    open: bool,
    /// One session's own: what its client does may close it.
    lane: bool,
    /// Connection.close was seen, from either side: frames mean nothing any more.
    closing: bool,
    chans: BTreeMap<u16, TapChan>,
}

/// A content that the broker has written.
#[derive(Debug)]
struct Written {
    start: u64,
    end: u64,
    whose: Whose,
}

impl Tap {
    /// `shared`: an engine multiplexes clients on these connections.
    pub fn new(shared: bool) -> Tap {
        Tap { conns: BTreeMap::new(), shared, frames: 0, now: 0 }
    }

    /// A connection begins.
    pub fn connected(&mut self, conn: ConnId, born: u32) {
        self.conns.insert(conn, TapConn::new(conn, born));
    }

    /// A fault ends this connection: what it holds is taken back, now or when the broker notices.
    pub fn breaks(&mut self, conn: ConnId) {
        if let Some(c) = self.conns.get_mut(&conn) {
            c.broken = true;
        }
    }

    /// Whether a fault has ended this connection, or will.
    pub fn is_broken(&self, conn: ConnId) -> bool {
        self.conns.get(&conn).is_none_or(|c| c.broken)
    }

    /// Whether one session has this connection for itself.
    pub fn is_lane(&self, conn: ConnId) -> bool {
        self.conns.get(&conn).is_some_and(|c| c.lane)
    }

    /// Tags of the consumers on a connection.
    pub fn consumer_tags(&self, conn: ConnId) -> Vec<Vec<u8>> {
        let chans = self.conns.get(&conn).into_iter().flat_map(|c| c.chans.values());
        chans.flat_map(TapChan::consumer_tags).map(<[u8]>::to_vec).collect()
    }

    /// The client's channel whose content was read up to its middle and no further, with `unread` octets left.
    pub fn cut(&self, conn: ConnId, unread: usize, oracle: &Oracle) -> Option<Cut> {
        let c = self.conns.get(&conn)?;
        let read = c.written.saturating_sub(unread as u64);
        match &c.contents.iter().find(|content| content.start < read && read < content.end)?.whose {
            Whose::Chan(chan) => Some(Cut::Of(*chan)),
            Whose::Tag(tag) => Some(oracle.tags.get(tag).map_or(Cut::Unnamed, |&(chan, _)| Cut::Of(chan))),
            Whose::Got => Some(Cut::Got),
        }
    }

    /// The other side has read all but the last `unread` octets.
    pub fn was_read(&mut self, conn: ConnId, unread: usize) {
        if let Some(c) = self.conns.get_mut(&conn) {
            let read = c.written.saturating_sub(unread as u64);
            while c.contents.front().is_some_and(|content| content.end <= read) {
                c.contents.pop_front();
            }
        }
    }

    /// One session has this connection for itself.
    pub fn own_lane(&mut self, conn: ConnId) {
        if let Some(c) = self.conns.get_mut(&conn) {
            c.lane = true;
        }
    }

    /// Octets were handed to the broker.
    pub fn received(&mut self, conn: ConnId, bytes: &[u8]) {
        if let Some(c) = self.conns.get_mut(&conn) {
            c.input.drain(..c.at);
            c.at = 0;
            c.input.extend_from_slice(bytes);
        }
    }

    /// The broker has processed one frame and written `output` to the same connection.
    pub fn stepped(&mut self, conn: ConnId, output: &[u8], oracle: &mut Oracle, trace: &mut Trace) -> Check {
        let Some(c) = self.conns.get_mut(&conn) else { return Ok(()) };
        self.frames += 1;
        let Some((frame, bytes)) = c.next_frame()? else {
            return self.wrote(conn, output, oracle, trace);
        };
        let payload = frame.payload(&bytes).to_vec();
        if trace.on() && frame.kind != FRAME_HEARTBEAT {
            let what = describe(frame.kind, &payload);
            trace.line(format_args!("    broker {conn:?} takes ch {} {what}", frame.channel));
        }
        if !c.closing {
            c.before(frame, &payload, oracle);
        }
        self.wrote(conn, output, oracle, trace)?;
        match self.conns.get_mut(&conn) {
            Some(c) if !c.closing => c.after(frame, &payload, self.now, oracle),
            _ => Ok(()),
        }
        .map_err(|what| format!("broker {conn:?} ch {}: {what}", frame.channel))
    }

    /// The broker has written `output`.
    pub fn wrote(&mut self, conn: ConnId, output: &[u8], oracle: &mut Oracle, trace: &mut Trace) -> Check {
        let Some(c) = self.conns.get_mut(&conn) else { return Ok(()) };
        let (mut at, begin) = (0, c.written);
        c.written += output.len() as u64;
        let mut content = None;
        while let Some(frame) = frame::next_frame(output, at, u32::MAX).map_err(|e| e.to_string())? {
            let payload = frame.payload(output);
            if trace.on() && frame.kind != FRAME_HEARTBEAT {
                let what = describe(frame.kind, payload);
                trace.line(format_args!("    broker {conn:?} says ch {} {what}", frame.channel));
            }
            at = frame.end;
            let whose = c
                .output(frame, payload, oracle, self.shared)
                .map_err(|what| format!("broker {conn:?} ch {}: {what}", frame.channel))?;
            // The model broker writes a content in one go.
            if frame.kind == FRAME_METHOD {
                content = Some(frame.start);
            } else if let (Some(start), Some(whose)) = (content, whose) {
                let place = |at: usize| begin + at as u64;
                c.contents.push_back(Written { start: place(start), end: place(at), whose });
            }
        }
        if at < output.len() {
            return Err("the model broker wrote part of a frame".to_owned());
        }
        Ok(())
    }

    /// The connection has ended: what it had not settled is back in the queues.
    pub fn gone(&mut self, conn: ConnId, oracle: &mut Oracle) {
        if let Some(mut c) = self.conns.remove(&conn) {
            c.end_all(oracle);
        }
    }

    /// Whether a connection is past its handshake and before its close.
    pub fn is_open(&self, conn: ConnId) -> bool {
        self.conns.get(&conn).is_some_and(|c| c.open && !c.closing)
    }

    /// Whether no connection is left.
    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }
}

impl TapConn {
    fn new(id: ConnId, born: u32) -> TapConn {
        TapConn {
            id,
            born,
            broken: false,
            written: 0,
            contents: VecDeque::new(),
            input: Vec::new(),
            at: 0,
            begun: false,
            open: false,
            lane: false,
            closing: false,
            chans: BTreeMap::new(),
        }
    }

    /// The frame at the front, with the octets it lies in; `None` for the protocol header.
    fn next_frame(&mut self) -> Check<Option<(Frame, Vec<u8>)>> {
        if !self.begun {
            self.begun = true;
            self.at += frame::PROTOCOL_HEADER.len();
            return Ok(None);
        }
        let found = frame::next_frame(&self.input, self.at, u32::MAX).map_err(|e| e.to_string())?;
        let Some(mut frame) = found else {
            return Err("the model broker processed a frame that is not whole".to_owned());
        };
        let bytes = self.input[frame.start..frame.end].to_vec();
        self.at = frame.end;
        frame.end -= frame.start;
        frame.start = 0;
        Ok(Some((frame, bytes)))
    }

    /// What must be known before the broker's answer is read.
    fn before(&mut self, frame: Frame, payload: &[u8], oracle: &mut Oracle) {
        if frame.kind != FRAME_METHOD {
            return;
        }
        match Method::parse(payload) {
            Ok(Method::ChannelOpen) => {
                self.chans.entry(frame.channel).or_default();
            }
            Ok(method) => {
                if let Some(chan) = self.chans.get_mut(&frame.channel) {
                    chan.before(&method);
                    if let Method::BasicConsume(m) = &method
                        && !oracle.orphan_tags.is_empty()
                    {
                        oracle.resumed += u64::from(oracle.orphan_tags.remove(m.consumer_tag));
                    }
                }
            }
            Err(_) => {}
        }
    }

    /// What the frame has done, unless the broker answered that it has not.
    fn after(&mut self, frame: Frame, payload: &[u8], now: u64, oracle: &mut Oracle) -> Check {
        let by = Taker { conn: self.id, born: self.born, at: now };
        let method = (frame.kind == FRAME_METHOD).then(|| Method::parse(payload).ok()).flatten();
        match method {
            Some(Method::ConnectionClose(_)) => {
                self.end_all(oracle);
                self.closing = true;
                return Ok(());
            }
            Some(Method::ChannelCloseOk) => {
                self.chans.remove(&frame.channel);
                return Ok(());
            }
            Some(Method::ChannelClose(_)) => {
                // One that the broker is closing itself stays until its own close is answered.
                if self.chans.get(&frame.channel).is_some_and(|chan| !chan.closing)
                    && let Some(mut chan) = self.chans.remove(&frame.channel)
                {
                    chan.end(false, oracle);
                }
                return Ok(());
            }
            _ => {}
        }
        match self.chans.get_mut(&frame.channel) {
            Some(chan) if !chan.closing => chan.after(frame.kind, payload, method, by, oracle),
            _ => Ok(()),
        }
    }

    fn output(
        &mut self,
        frame: Frame,
        payload: &[u8],
        oracle: &mut Oracle,
        shared: bool,
    ) -> Check<Option<Whose>> {
        let method = (frame.kind == FRAME_METHOD).then(|| Method::parse(payload).ok()).flatten();
        if let Some(Method::ConnectionClose(close)) = method {
            self.end_all(oracle);
            self.closing = true;
            let login =
                matches!(close.reply_code, 403 | 530) && (close.class_id, close.method_id) != (60, 20);
            if shared && !self.lane && !login && !self.broken {
                return Err(format!(
                    "closed the shared connection: {} {}",
                    close.reply_code,
                    String::from_utf8_lossy(close.reply_text)
                ));
            }
            return Ok(None);
        }
        self.open |= method == Some(Method::ConnectionOpenOk);
        let Some(chan) = self.chans.get_mut(&frame.channel) else { return Ok(None) };
        match method {
            Some(Method::ChannelClose(m)) => {
                // A consumer that began again may be refused, and its client's channel lives on.
                let replay = oracle.losses > 0 && (m.class_id, m.method_id) == (60, 20);
                chan.end(replay, oracle);
                chan.closing = true;
                Ok(None)
            }
            _ => chan.output(frame.kind, payload, method, oracle),
        }
    }

    fn end_all(&mut self, oracle: &mut Oracle) {
        for (_, mut chan) in std::mem::take(&mut self.chans) {
            chan.end(self.broken, oracle);
        }
    }
}
