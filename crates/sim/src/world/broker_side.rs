//! The model broker with its connections, watched by the tap.

use std::collections::BTreeMap;

use warren_broker::{Broker, ConnId};
use warren_wire::frame::{HEARTBEAT_FRAME, PROTOCOL_HEADER};
use warren_wire::method::{connection, queue};
use warren_wire::{Method, Table};

use crate::client::topology::declare;
use crate::oracle::loss::Cut;
use crate::oracle::tap::Tap;
use crate::oracle::{Check, Kind, Oracle};
use crate::scenario::{Between, DIRECT, FAN, Scenario};
use crate::trace::Trace;

/// The broker's half of the world.
#[derive(Debug)]
pub struct BrokerSide {
    /// The model.
    pub broker: Broker,
    /// What it does, as the record wants to know.
    pub tap: Tap,
    wires: BTreeMap<ConnId, Wire>,
    /// An alarm is on, or was until then, in milliseconds.
    alarm: Option<u64>,
}

/// One connection of the broker.
#[derive(Debug, Default)]
struct Wire {
    /// Written by the broker, not yet taken.
    out: Vec<u8>,
    /// There may be whole frames to process.
    busy: bool,
    /// The peer has ended the connection; what it sent is still processed.
    ended: bool,
}

impl BrokerSide {
    /// A broker in which every queue that stays is there.
    pub fn new(scenario: &Scenario, seed: u64, oracle: &mut Oracle) -> Check<BrokerSide> {
        let mut broker = Broker::new(scenario.broker(seed));
        for (vhost, name) in scenario.vhosts.iter().enumerate() {
            furnish(&mut broker, scenario, vhost, name, oracle)?;
        }
        let tap = Tap::new(scenario.between == Between::Warren);
        Ok(BrokerSide { broker, tap, wires: BTreeMap::new(), alarm: None })
    }

    /// A connection from outside.
    pub fn connect(&mut self, losses: u32) -> ConnId {
        let conn = self.broker.connect();
        self.tap.connected(conn, losses);
        self.wires.insert(conn, Wire::default());
        conn
    }

    /// Octets arrive.
    pub fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        if let Some(wire) = self.wires.get_mut(&conn) {
            self.broker.receive(conn, bytes);
            self.tap.received(conn, bytes);
            wire.busy = true;
        }
    }

    /// Connections with frames to process, and those whose queues have something to write.
    pub fn work(&self) -> impl Iterator<Item = (ConnId, bool, bool)> + '_ {
        let news = |conn| self.broker.has_news(conn);
        self.wires.iter().map(move |(&conn, wire)| (conn, wire.busy, news(conn)))
    }

    /// Processes up to `most` frames.
    pub fn step(&mut self, conn: ConnId, most: usize, oracle: &mut Oracle, trace: &mut Trace) -> Check {
        for _ in 0..most {
            if self.broker.step(conn, 1) == 0 {
                return self.exhausted(conn, oracle);
            }
            let new = std::mem::take(self.broker.output(conn));
            self.tap.stepped(conn, &new, oracle, trace)?;
            if let Some(wire) = self.wires.get_mut(&conn) {
                wire.out.extend_from_slice(&new);
            }
        }
        Ok(())
    }

    fn exhausted(&mut self, conn: ConnId, oracle: &mut Oracle) -> Check {
        let Some(wire) = self.wires.get_mut(&conn) else { return Ok(()) };
        wire.busy = false;
        if wire.ended {
            self.forget(conn, oracle);
        }
        Ok(())
    }

    /// Lets queues write.
    pub fn pump(&mut self, conn: ConnId, most: usize, oracle: &mut Oracle, trace: &mut Trace) -> Check {
        self.broker.pump(conn, most);
        self.collect(conn, oracle, trace)
    }

    /// Octets to be taken.
    pub fn available(&self, conn: ConnId) -> usize {
        self.wires.get(&conn).map_or(0, |wire| wire.out.len())
    }

    /// Takes up to `most` octets.
    pub fn take(&mut self, conn: ConnId, most: usize) -> Vec<u8> {
        let Some(wire) = self.wires.get_mut(&conn) else { return Vec::new() };
        let most = most.min(wire.out.len());
        let taken = wire.out.drain(..most).collect();
        self.tap.was_read(conn, wire.out.len());
        taken
    }

    /// Whether the broker has ended the connection and everything that it wrote was taken.
    pub fn has_ended(&self, conn: ConnId) -> bool {
        self.available(conn) == 0 && self.broker.wants_close(conn)
    }

    /// The peer ends the connection. What it sent before is processed first.
    pub fn end(&mut self, conn: ConnId, oracle: &mut Oracle) {
        match self.wires.get_mut(&conn) {
            Some(wire) if wire.busy => wire.ended = true,
            _ => self.forget(conn, oracle),
        }
    }

    /// The broker's end of a connection is gone, with all that was received and not carried out. `unread`: what it wrote is
    /// lost as well.
    pub fn cut(&mut self, conn: ConnId, unread: bool, oracle: &mut Oracle) {
        self.tap.gone(conn, oracle);
        self.broker.disconnect(conn);
        if unread {
            self.wires.remove(&conn);
        }
    }

    /// The broker closes a connection of its own accord.
    pub fn close(&mut self, conn: ConnId, code: u16, oracle: &mut Oracle, trace: &mut Trace) -> Check {
        let detail = if code == 320 { "broker forced connection closure with reason 'shutdown'" } else { "" };
        self.broker.force_close(conn, code, detail);
        self.collect(conn, oracle, trace)
    }

    /// A resource alarm begins or ends.
    pub fn alarm(&mut self, on: bool, oracle: &mut Oracle, trace: &mut Trace) -> Check {
        self.broker.set_blocked(on);
        self.alarm = Some(if on { u64::MAX } else { self.tap.now });
        if on {
            return Ok(());
        }
        self.wires.values_mut().for_each(|wire| wire.busy = true);
        let conns: Vec<ConnId> = self.wires.keys().copied().collect();
        conns.into_iter().try_for_each(|conn| self.collect(conn, oracle, trace))
    }

    /// Whether an alarm has kept publishers from being heard not long ago.
    pub fn alarmed_at(&self, now: u64) -> bool {
        self.alarm.is_some_and(|until| now <= until.saturating_add(5000))
    }

    /// The client's channel of which a content was read in part.
    pub fn cut_content(&self, conn: ConnId, oracle: &Oracle) -> Option<Cut> {
        self.tap.cut(conn, self.available(conn), oracle)
    }

    /// What the broker has written.
    fn collect(&mut self, conn: ConnId, oracle: &mut Oracle, trace: &mut Trace) -> Check {
        let new = std::mem::take(self.broker.output(conn));
        self.tap.wrote(conn, &new, oracle, trace)?;
        if let Some(wire) = self.wires.get_mut(&conn) {
            wire.out.extend_from_slice(&new);
        }
        Ok(())
    }

    fn forget(&mut self, conn: ConnId, oracle: &mut Oracle) {
        self.wires.remove(&conn);
        self.tap.gone(conn, oracle);
        self.broker.disconnect(conn);
    }

    /// A heartbeat on every connection that is past its handshake.
    pub fn heartbeat(&mut self) {
        for (&conn, wire) in &mut self.wires {
            if !self.broker.wants_close(conn) && self.tap.is_open(conn) {
                wire.out.extend_from_slice(&HEARTBEAT_FRAME);
            }
        }
    }

    /// Whether no connection is left.
    pub fn is_empty(&self) -> bool {
        self.wires.is_empty() && self.tap.is_empty()
    }
}

/// Declares and binds what stays, by a connection of its own.
fn furnish(
    broker: &mut Broker,
    scenario: &Scenario,
    vhost: usize,
    vhost_name: &str,
    oracle: &mut Oracle,
) -> Check {
    let user = &scenario.users[0];
    let response = format!("\0{user}\0{user}");
    let mut bytes = PROTOCOL_HEADER.to_vec();
    let start_ok = connection::StartOk {
        client_properties: Table::EMPTY,
        mechanism: b"PLAIN",
        response: response.as_bytes(),
        locale: b"en_US",
    };
    Method::ConnectionStartOk(start_ok).write(0, &mut bytes);
    let tune_ok = connection::TuneOk { channel_max: 1, frame_max: 131_072, heartbeat: 0 };
    Method::ConnectionTuneOk(tune_ok).write(0, &mut bytes);
    Method::ConnectionOpen(connection::Open { virtual_host: vhost_name.as_bytes() }).write(0, &mut bytes);
    Method::ChannelOpen.write(1, &mut bytes);
    let mut add = |name: String, kind, exchange: &[u8]| {
        let m = queue::Declare { durable: true, ..declare(name.as_bytes()) };
        Method::QueueDeclare(m).write(1, &mut bytes);
        let bind = queue::Bind {
            queue: name.as_bytes(),
            exchange,
            routing_key: name.as_bytes(),
            no_wait: false,
            arguments: Table::EMPTY,
        };
        Method::QueueBind(bind).write(1, &mut bytes);
        oracle.add_queue(vhost, name.as_bytes(), kind);
    };
    for number in 0..scenario.stable {
        add(format!("stable{number}"), Kind::Stable, DIRECT);
    }
    for number in 0..2 {
        add(format!("fan{number}"), Kind::Fan, FAN);
    }
    let conn = broker.connect();
    broker.receive(conn, &bytes);
    while broker.step(conn, usize::MAX) > 0 {}
    broker.disconnect(conn);
    let queues = oracle.queues.iter().filter(|q| q.vhost == vhost);
    for queue in queues {
        broker.queue(vhost_name, &queue.name).ok_or("the model broker did not declare what was asked")?;
    }
    Ok(())
}
