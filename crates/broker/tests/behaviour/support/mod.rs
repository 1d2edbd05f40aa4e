//! Drives a broker with raw frames and shows what comes back as lines of text.
//!
//! The broker is the embedded one. With `WARREN_TEST_BROKER=host:port` in the environment it is whatever listens there
//! (user guest, password guest): so the same tests say whether a real RabbitMQ 3.10 behaves as they claim. Run them with
//! `--test-threads=1` then.
#![allow(dead_code)] // each test file uses its part

mod real;
mod render;

use std::collections::BTreeSet;

use warren_broker::{Broker, ConnId, Options};
use warren_wire::content::{BasicProperties, write_content};
use warren_wire::frame::PROTOCOL_HEADER;
use warren_wire::method::{basic, channel, confirm, connection, exchange, queue};
use warren_wire::table::Table;
use warren_wire::{Method, content};

use real::Real;

/// Content larger than this is split in test publishes: the frame_max that `login` negotiates.
pub(crate) const FRAME_MAX: u32 = 131_072;

/// A connection of the test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Conn(usize);

enum Side {
    Model { broker: Box<Broker>, ids: Vec<ConnId> },
    Real(Real),
}

pub(crate) struct Test {
    side: Side,
    /// Sent at the next look, in one piece.
    pending: Vec<Vec<u8>>,
    /// Received and not yet shown.
    unread: Vec<Vec<u8>>,
    declared: BTreeSet<(bool, Vec<u8>)>,
}

/// How to log in.
#[derive(Clone)]
pub(crate) struct Login<'a> {
    pub(crate) user: &'a str,
    pub(crate) password: &'a str,
    pub(crate) vhost: &'a str,
    pub(crate) capabilities: &'a [&'a str],
    pub(crate) channel_max: u16,
    pub(crate) frame_max: u32,
}

impl Default for Login<'_> {
    fn default() -> Self {
        Login {
            user: "guest",
            password: "guest",
            vhost: "/",
            capabilities: &[
                "authentication_failure_close",
                "basic.nack",
                "connection.blocked",
                "consumer_cancel_notify",
                "publisher_confirms",
            ],
            channel_max: 2047,
            frame_max: FRAME_MAX,
        }
    }
}

impl Test {
    /// On the broker that the environment names, or a new embedded one.
    pub(crate) fn new() -> Test {
        match std::env::var("WARREN_TEST_BROKER") {
            Ok(address) => Test::on(Side::Real(Real::new(address))),
            Err(_) => Test::model(Options::default()),
        }
    }

    /// On a new embedded broker, whatever the environment says: for faults, users and inspection.
    pub(crate) fn model(options: Options) -> Test {
        Test::on(Side::Model { broker: Box::new(Broker::new(options)), ids: Vec::new() })
    }

    fn on(side: Side) -> Test {
        Test { side, pending: Vec::new(), unread: Vec::new(), declared: BTreeSet::new() }
    }

    /// The embedded broker, in a test made with [`Test::model`].
    pub(crate) fn broker(&mut self) -> &mut Broker {
        match &mut self.side {
            Side::Model { broker, .. } => broker,
            Side::Real(_) => panic!("this test needs Test::model"),
        }
    }

    pub(crate) fn id(&self, c: Conn) -> ConnId {
        match &self.side {
            Side::Model { ids, .. } => ids[c.0],
            Side::Real(_) => panic!("this test needs Test::model"),
        }
    }

    /// A socket, nothing said.
    pub(crate) fn connect(&mut self) -> Conn {
        match &mut self.side {
            Side::Model { broker, ids } => ids.push(broker.connect()),
            Side::Real(real) => real.connect(),
        }
        self.pending.push(Vec::new());
        self.unread.push(Vec::new());
        Conn(self.pending.len() - 1)
    }

    pub(crate) fn raw(&mut self, c: Conn, bytes: &[u8]) {
        self.pending[c.0].extend_from_slice(bytes);
    }

    pub(crate) fn send(&mut self, c: Conn, channel: u16, method: Method<'_>) {
        match method {
            Method::QueueDeclare(m) => drop(self.declared.insert((true, m.queue.to_vec()))),
            Method::ExchangeDeclare(m) => drop(self.declared.insert((false, m.exchange.to_vec()))),
            _ => {}
        }
        method.write(channel, &mut self.pending[c.0]);
    }

    /// A frame of any kind with a payload of any kind.
    pub(crate) fn frame(&mut self, c: Conn, kind: u8, channel: u16, payload: &[u8]) {
        let out = &mut self.pending[c.0];
        out.push(kind);
        out.extend_from_slice(&channel.to_be_bytes());
        out.extend_from_slice(&u32::try_from(payload.len()).unwrap().to_be_bytes());
        out.extend_from_slice(payload);
        out.push(0xCE);
    }

    pub(crate) fn content(&mut self, c: Conn, channel: u16, properties: &BasicProperties<'_>, body: &[u8]) {
        write_content(channel, properties, body, FRAME_MAX, &mut self.pending[c.0]);
    }

    pub(crate) fn header(&mut self, c: Conn, channel: u16, size: u64) {
        content::write_header(channel, size, &BasicProperties::default(), &mut self.pending[c.0]);
    }

    /// A whole publish, neither mandatory nor persistent.
    pub(crate) fn publish(&mut self, c: Conn, channel: u16, exchange: &str, key: &str, body: &str) {
        self.send(c, channel, publish(exchange, key, false));
        self.content(c, channel, &BasicProperties::default(), body.as_bytes());
    }

    pub(crate) fn publish_mandatory(&mut self, c: Conn, channel: u16, exchange: &str, key: &str, body: &str) {
        self.send(c, channel, publish(exchange, key, true));
        self.content(c, channel, &BasicProperties::default(), body.as_bytes());
    }

    pub(crate) fn publish_with(
        &mut self,
        c: Conn,
        channel: u16,
        to: (&str, &str),
        properties: &BasicProperties<'_>,
        body: &str,
    ) {
        self.send(c, channel, publish(to.0, to.1, false));
        self.content(c, channel, properties, body.as_bytes());
    }

    /// Lets everything that was sent have its effect, on all connections.
    pub(crate) fn settle(&mut self) {
        match &mut self.side {
            Side::Model { broker, ids } => settle_model(broker, ids, &mut self.pending, &mut self.unread),
            Side::Real(real) => real.settle(&mut self.pending, &mut self.unread),
        }
    }

    /// What came for the connection since the last look, a line for each method; content is on the line of its method.
    pub(crate) fn take(&mut self, c: Conn) -> Vec<String> {
        self.settle();
        render::lines(&std::mem::take(&mut self.unread[c.0]))
    }

    /// The bytes that came since the last look.
    pub(crate) fn take_bytes(&mut self, c: Conn) -> Vec<u8> {
        self.settle();
        std::mem::take(&mut self.unread[c.0])
    }

    pub(crate) fn ask(&mut self, c: Conn, channel: u16, method: Method<'_>) -> Vec<String> {
        self.send(c, channel, method);
        self.take(c)
    }

    #[track_caller]
    pub(crate) fn expect<S: AsRef<str>>(&mut self, c: Conn, expected: &[S]) {
        let expected: Vec<&str> = expected.iter().map(AsRef::as_ref).collect();
        let mut lines = self.take(c);
        if let Side::Real(_) = &self.side {
            // A machine under load may be quiet for long.
            let begin = std::time::Instant::now();
            while lines.len() < expected.len() && begin.elapsed() < real::PATIENCE {
                lines.extend(self.take(c));
            }
        }
        assert_eq!(lines, expected);
    }

    /// Sends and expects one line.
    #[track_caller]
    pub(crate) fn call(&mut self, c: Conn, channel: u16, method: Method<'_>, expected: &str) {
        self.send(c, channel, method);
        self.expect(c, &[expected]);
    }

    /// Whether the broker has closed the socket, or wants to.
    pub(crate) fn closed(&mut self, c: Conn) -> bool {
        self.settle();
        match &mut self.side {
            Side::Model { broker, ids } => broker.wants_close(ids[c.0]),
            Side::Real(real) => real.closed(c.0),
        }
    }

    /// Closes the socket.
    pub(crate) fn disconnect(&mut self, c: Conn) {
        self.settle();
        match &mut self.side {
            Side::Model { broker, ids } => broker.disconnect(ids[c.0]),
            Side::Real(real) => real.disconnect(c.0),
        }
        self.settle();
    }

    pub(crate) fn login(&mut self) -> Conn {
        let c = self.connect();
        self.log_in(c, &Login::default());
        self.expect(c, &["0 connection.start", "0 connection.tune", "0 connection.open-ok"]);
        c
    }

    /// Sends everything that a login takes, in one piece.
    pub(crate) fn log_in(&mut self, c: Conn, login: &Login<'_>) {
        self.raw(c, &PROTOCOL_HEADER);
        let response = format!("\0{}\0{}", login.user, login.password);
        self.start_ok(c, "PLAIN", response.as_bytes(), login.capabilities);
        let tune =
            connection::TuneOk { channel_max: login.channel_max, frame_max: login.frame_max, heartbeat: 0 };
        self.send(c, 0, Method::ConnectionTuneOk(tune));
        let virtual_host = login.vhost.as_bytes();
        self.send(c, 0, Method::ConnectionOpen(connection::Open { virtual_host }));
    }

    pub(crate) fn start_ok(&mut self, c: Conn, mechanism: &str, response: &[u8], capabilities: &[&str]) {
        let properties = client_properties(capabilities);
        let start_ok = connection::StartOk {
            client_properties: Table::from_encoded(&properties).unwrap(),
            mechanism: mechanism.as_bytes(),
            response,
            locale: b"en_US",
        };
        self.send(c, 0, Method::ConnectionStartOk(start_ok));
    }

    /// Logs in and opens channel 1.
    pub(crate) fn channel(&mut self) -> Conn {
        let c = self.login();
        self.open(c, 1);
        c
    }

    pub(crate) fn open(&mut self, c: Conn, channel: u16) {
        self.call(c, channel, Method::ChannelOpen, &format!("{channel} channel.open-ok"));
    }

    /// A queue that is neither durable nor anything else.
    pub(crate) fn declare(&mut self, c: Conn, channel: u16, name: &str) {
        self.call(
            c,
            channel,
            Method::QueueDeclare(declare(name)),
            &format!("{channel} queue.declare-ok {name} 0 0"),
        );
    }

    /// A consumer that acknowledges, with the tag given.
    pub(crate) fn consume(&mut self, c: Conn, channel: u16, name: &str, tag: &str) {
        self.call(
            c,
            channel,
            Method::BasicConsume(consume(name, tag)),
            &format!("{channel} basic.consume-ok {tag}"),
        );
    }

    /// What `queue.declare` says of the queue: messages ready and consumers.
    pub(crate) fn counts(&mut self, c: Conn, channel: u16, name: &str) -> (u32, u32) {
        let m = queue::Declare { passive: true, ..declare(name) };
        let lines = self.ask(c, channel, Method::QueueDeclare(m));
        let words: Vec<&str> = lines[0].split(' ').collect();
        assert_eq!(words[1], "queue.declare-ok", "{lines:?}");
        (words[3].parse().unwrap(), words[4].parse().unwrap())
    }
}

impl Drop for Test {
    fn drop(&mut self) {
        if let Side::Real(real) = &mut self.side {
            real.clean_up(&self.declared);
        }
    }
}

fn settle_model(broker: &mut Broker, ids: &[ConnId], pending: &mut [Vec<u8>], unread: &mut [Vec<u8>]) {
    for (id, bytes) in ids.iter().zip(pending) {
        broker.receive(*id, &std::mem::take(bytes));
    }
    loop {
        let mut work = 0;
        for (id, unread) in ids.iter().zip(&mut *unread) {
            work += broker.step(*id, usize::MAX);
            broker.pump(*id, usize::MAX);
            let out = broker.output(*id);
            work += out.len();
            unread.append(out);
            broker.check_invariants();
        }
        if work == 0 {
            break;
        }
    }
}

fn client_properties(capabilities: &[&str]) -> Vec<u8> {
    let mut inner = Vec::new();
    for name in capabilities {
        inner.push(u8::try_from(name.len()).unwrap());
        inner.extend_from_slice(name.as_bytes());
        inner.extend_from_slice(b"t\x01");
    }
    let mut table = b"\x0ccapabilitiesF".to_vec();
    table.extend_from_slice(&u32::try_from(inner.len()).unwrap().to_be_bytes());
    table.extend_from_slice(&inner);
    table
}

/// Encoded entries of a table: strings (`S`), numbers (`I`), flags (`t`).
pub(crate) fn table(entries: &[(&str, Field<'_>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, field) in entries {
        out.push(u8::try_from(key.len()).unwrap());
        out.extend_from_slice(key.as_bytes());
        match field {
            Field::Str(s) => {
                out.push(b'S');
                out.extend_from_slice(&u32::try_from(s.len()).unwrap().to_be_bytes());
                out.extend_from_slice(s.as_bytes());
            }
            Field::Int(i) => {
                out.push(b'I');
                out.extend_from_slice(&i.to_be_bytes());
            }
            Field::Bool(b) => out.extend_from_slice(&[b't', u8::from(*b)]),
        }
    }
    out
}

pub(crate) enum Field<'a> {
    Str(&'a str),
    Int(i32),
    Bool(bool),
}

pub(crate) fn encoded(entries: &[u8]) -> Table<'_> {
    Table::from_encoded(entries).unwrap()
}

pub(crate) fn declare(name: &str) -> queue::Declare<'_> {
    queue::Declare {
        queue: name.as_bytes(),
        passive: false,
        durable: false,
        exclusive: false,
        auto_delete: false,
        no_wait: false,
        arguments: Table::EMPTY,
    }
}

pub(crate) fn declare_exchange<'a>(name: &'a str, kind: &'a str) -> exchange::Declare<'a> {
    exchange::Declare {
        exchange: name.as_bytes(),
        kind: kind.as_bytes(),
        passive: false,
        durable: false,
        auto_delete: false,
        internal: false,
        no_wait: false,
        arguments: Table::EMPTY,
    }
}

pub(crate) fn bind<'a>(queue: &'a str, exchange: &'a str, key: &'a str) -> Method<'a> {
    Method::QueueBind(queue::Bind {
        queue: queue.as_bytes(),
        exchange: exchange.as_bytes(),
        routing_key: key.as_bytes(),
        no_wait: false,
        arguments: Table::EMPTY,
    })
}

pub(crate) fn unbind<'a>(queue: &'a str, exchange: &'a str, key: &'a str) -> Method<'a> {
    Method::QueueUnbind(queue::Unbind {
        queue: queue.as_bytes(),
        exchange: exchange.as_bytes(),
        routing_key: key.as_bytes(),
        arguments: Table::EMPTY,
    })
}

pub(crate) fn delete(name: &str) -> queue::Delete<'_> {
    queue::Delete { queue: name.as_bytes(), if_unused: false, if_empty: false, no_wait: false }
}

pub(crate) fn delete_exchange(name: &str) -> exchange::Delete<'_> {
    exchange::Delete { exchange: name.as_bytes(), if_unused: false, no_wait: false }
}

pub(crate) fn purge(name: &str) -> Method<'_> {
    Method::QueuePurge(queue::Purge { queue: name.as_bytes(), no_wait: false })
}

pub(crate) fn publish<'a>(exchange: &'a str, key: &'a str, mandatory: bool) -> Method<'a> {
    Method::BasicPublish(basic::Publish {
        exchange: exchange.as_bytes(),
        routing_key: key.as_bytes(),
        mandatory,
        immediate: false,
    })
}

pub(crate) fn consume<'a>(name: &'a str, tag: &'a str) -> basic::Consume<'a> {
    basic::Consume {
        queue: name.as_bytes(),
        consumer_tag: tag.as_bytes(),
        no_local: false,
        no_ack: false,
        exclusive: false,
        no_wait: false,
        arguments: Table::EMPTY,
    }
}

pub(crate) fn cancel(tag: &str) -> Method<'_> {
    Method::BasicCancel(basic::Cancel { consumer_tag: tag.as_bytes(), no_wait: false })
}

pub(crate) fn get(name: &str, no_ack: bool) -> Method<'_> {
    Method::BasicGet(basic::Get { queue: name.as_bytes(), no_ack })
}

pub(crate) fn ack(delivery_tag: u64, multiple: bool) -> Method<'static> {
    Method::BasicAck(basic::Ack { delivery_tag, multiple })
}

pub(crate) fn nack(delivery_tag: u64, multiple: bool, requeue: bool) -> Method<'static> {
    Method::BasicNack(basic::Nack { delivery_tag, multiple, requeue })
}

pub(crate) fn reject(delivery_tag: u64, requeue: bool) -> Method<'static> {
    Method::BasicReject(basic::Reject { delivery_tag, requeue })
}

pub(crate) fn qos(prefetch_count: u16, global: bool) -> Method<'static> {
    Method::BasicQos(basic::Qos { prefetch_size: 0, prefetch_count, global })
}

pub(crate) fn flow(active: bool) -> Method<'static> {
    Method::ChannelFlow(channel::Flow { active })
}

pub(crate) fn confirm_select() -> Method<'static> {
    Method::ConfirmSelect(confirm::Select { no_wait: false })
}

pub(crate) fn close_channel() -> Method<'static> {
    Method::ChannelClose(channel::Close { reply_code: 200, reply_text: b"bye", class_id: 0, method_id: 0 })
}

pub(crate) fn close_connection() -> Method<'static> {
    Method::ConnectionClose(connection::Close {
        reply_code: 200,
        reply_text: b"bye",
        class_id: 0,
        method_id: 0,
    })
}
