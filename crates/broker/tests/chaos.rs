//! Nothing that clients send, in whatever order and pieces, makes the broker panic, contradict itself or leak.

use std::collections::{BTreeMap, BTreeSet};

use warren_broker::{Broker, ConfirmStyle, ConnId, Options};
use warren_wire::Method;
use warren_wire::content::{BasicProperties, write_content};
use warren_wire::frame::{FRAME_METHOD, PROTOCOL_HEADER, next_frame};
use warren_wire::method::{basic, channel, confirm, connection, exchange, queue};
use warren_wire::table::Table;

/// A sequence from a seed; the broker has its own.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % sides
    }

    fn coin(&mut self) -> bool {
        self.roll(2) == 0
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a [u8] {
        from[self.roll(from.len() as u64) as usize].as_bytes()
    }
}

const QUEUES: [&str; 3] = ["a", "b", "c"];
/// Mostly there.
const ANY_QUEUE: [&str; 9] = ["a", "b", "c", "a", "b", "c", "a", "", "amq.rabbitmq.reply-to"];
/// Mostly there, mostly the default one.
const ANY_EXCHANGE: [&str; 9] = ["", "", "", "", "amq.fanout", "amq.topic", "amq.direct", "x", "missing"];
const EXCHANGES: [&str; 5] = ["amq.direct", "amq.fanout", "amq.topic", "x", "missing"];
const TAGS: [&str; 3] = ["", "s", "t"];

fn log_in(out: &mut Vec<u8>) {
    out.extend_from_slice(&PROTOCOL_HEADER);
    let start_ok = connection::StartOk {
        client_properties: Table::EMPTY,
        mechanism: b"PLAIN",
        response: b"\0guest\0guest",
        locale: b"en_US",
    };
    Method::ConnectionStartOk(start_ok).write(0, out);
    let tune_ok = connection::TuneOk { channel_max: 10, frame_max: 4096, heartbeat: 0 };
    Method::ConnectionTuneOk(tune_ok).write(0, out);
    Method::ConnectionOpen(connection::Open { virtual_host: b"/" }).write(0, out);
}

/// `tag`: a delivery to settle; 0 for all.
fn method<'a>(d: &mut Dice, tag: u64) -> Method<'a> {
    match d.roll(23) {
        0 | 1 => Method::QueueDeclare(queue::Declare {
            queue: d.pick(&QUEUES),
            passive: d.roll(9) == 0,
            durable: false,
            exclusive: d.roll(50) == 0,
            auto_delete: d.roll(50) == 0,
            no_wait: d.coin(),
            arguments: Table::EMPTY,
        }),
        2 if d.roll(4) == 0 => Method::QueueDelete(queue::Delete {
            queue: d.pick(&QUEUES),
            if_unused: d.roll(4) == 0,
            if_empty: d.roll(4) == 0,
            no_wait: d.coin(),
        }),
        3 if d.roll(4) == 0 => Method::QueuePurge(queue::Purge { queue: d.pick(&QUEUES), no_wait: d.coin() }),
        4 => Method::QueueBind(queue::Bind {
            queue: d.pick(&QUEUES),
            exchange: d.pick(&EXCHANGES[..3]),
            routing_key: d.pick(&QUEUES),
            no_wait: d.coin(),
            arguments: Table::EMPTY,
        }),
        5 => Method::QueueUnbind(queue::Unbind {
            queue: d.pick(&QUEUES),
            exchange: d.pick(&EXCHANGES[..3]),
            routing_key: d.pick(&QUEUES),
            arguments: Table::EMPTY,
        }),
        6 => Method::ExchangeDeclare(exchange::Declare {
            exchange: b"x",
            kind: b"fanout",
            passive: false,
            durable: false,
            auto_delete: true,
            internal: false,
            no_wait: d.coin(),
            arguments: Table::EMPTY,
        }),
        7 => Method::ExchangeBind(exchange::Bind {
            destination: d.pick(&EXCHANGES[..4]),
            source: d.pick(&EXCHANGES[..4]),
            routing_key: b"",
            no_wait: d.coin(),
            arguments: Table::EMPTY,
        }),
        8..=10 => Method::BasicConsume(basic::Consume {
            queue: d.pick(&ANY_QUEUE),
            consumer_tag: d.pick(&["", "", "", "", "", "", "", "", "s", "t"]),
            no_local: false,
            no_ack: d.roll(3) == 0,
            exclusive: d.roll(30) == 0,
            no_wait: d.coin(),
            arguments: Table::EMPTY,
        }),
        11 => Method::BasicCancel(basic::Cancel { consumer_tag: d.pick(&TAGS), no_wait: d.coin() }),
        12 | 13 => Method::BasicGet(basic::Get { queue: d.pick(&QUEUES), no_ack: d.coin() }),
        14 | 15 => Method::BasicAck(basic::Ack { delivery_tag: tag, multiple: tag == 0 || d.coin() }),
        16 => Method::BasicNack(basic::Nack {
            delivery_tag: tag,
            multiple: tag == 0 || d.coin(),
            requeue: d.coin(),
        }),
        17 => Method::BasicQos(basic::Qos {
            prefetch_size: 0,
            prefetch_count: d.roll(4) as u16,
            global: d.coin(),
        }),
        18 if d.coin() => Method::ConfirmSelect(confirm::Select { no_wait: d.coin() }),
        20 if d.roll(5) == 0 => Method::BasicRecover(basic::Recover { requeue: true }),
        21 if d.roll(5) == 0 => [Method::TxSelect, Method::TxCommit, Method::TxRollback][d.roll(3) as usize],
        22 if d.roll(4) == 0 => Method::ChannelClose(channel::Close {
            reply_code: 200,
            reply_text: b"",
            class_id: 0,
            method_id: 0,
        }),
        _ => Method::ChannelFlow(channel::Flow { active: true }),
    }
}

fn publish(d: &mut Dice, channel: u16, out: &mut Vec<u8>) {
    let m = basic::Publish {
        exchange: d.pick(&ANY_EXCHANGE),
        routing_key: d.pick(&QUEUES),
        mandatory: d.roll(4) == 0,
        immediate: false,
    };
    Method::BasicPublish(m).write(channel, out);
    let properties = BasicProperties {
        reply_to: (d.roll(60) == 0).then_some(b"amq.rabbitmq.reply-to"),
        ..BasicProperties::default()
    };
    let body = vec![b'x'; d.roll(9000) as usize];
    write_content(channel, &properties, &body, 4096, out);
}

/// A client that mostly knows what it is doing.
struct Client {
    conn: ConnId,
    unread: Vec<u8>,
    /// Channels that it believes open, and those it asked to be.
    open: BTreeSet<u16>,
    asked: BTreeSet<u16>,
    /// The latest delivery of each channel that it has not settled.
    unsettled: BTreeMap<u16, u64>,
}

impl Client {
    fn connect(broker: &mut Broker, d: &mut Dice) -> Client {
        let conn = broker.connect();
        let mut out = Vec::new();
        log_in(&mut out);
        let open: BTreeSet<u16> = (1..=d.roll(4) as u16).collect();
        for number in &open {
            Method::ChannelOpen.write(*number, &mut out);
        }
        broker.receive(conn, &out);
        Client { conn, unread: Vec::new(), open, asked: BTreeSet::new(), unsettled: BTreeMap::new() }
    }

    /// A piece of what it may send. Sometimes spoilt.
    fn input(&mut self, d: &mut Dice) -> Vec<u8> {
        let mut out = Vec::new();
        let channel = 1 + d.roll(3) as u16;
        if !self.open.contains(&channel) {
            if d.roll(100) != 0 && !self.asked.insert(channel) {
                return out;
            }
            Method::ChannelOpen.write(channel, &mut out);
        } else if d.roll(3) == 0 {
            publish(d, channel, &mut out);
        } else {
            let tag = self.unsettled.get(&channel).copied().unwrap_or(0);
            let method = method(d, tag);
            if matches!(method, Method::BasicAck(_) | Method::BasicNack(_)) && d.roll(9) != 0 {
                self.unsettled.remove(&channel);
            }
            if let Method::ChannelClose(_) = method {
                self.open.remove(&channel);
                self.unsettled.remove(&channel);
                self.asked.insert(channel);
            }
            method.write(channel, &mut out);
        }
        if d.roll(150) == 0 {
            let at = d.roll(out.len() as u64) as usize;
            out[at] ^= 1 << d.roll(8);
        }
        out
    }

    /// Reads what it was sent, as far as it came.
    fn read(&mut self, broker: &mut Broker, d: &mut Dice) {
        let out = broker.output(self.conn);
        let taken = d.roll(out.len() as u64 + 1) as usize;
        self.unread.extend(out.drain(..taken));
        let unread = std::mem::take(&mut self.unread);
        let mut at = 0;
        while let Some(frame) = next_frame(&unread, at, 4096).expect("frames") {
            at = frame.end;
            if frame.kind != FRAME_METHOD {
                continue;
            }
            match Method::parse(frame.payload(&unread)).expect("methods") {
                Method::ChannelOpenOk => {
                    self.asked.remove(&frame.channel);
                    self.open.insert(frame.channel);
                }
                Method::ChannelCloseOk => drop(self.asked.remove(&frame.channel)),
                Method::BasicDeliver(basic::Deliver { delivery_tag, .. })
                | Method::BasicGetOk(basic::GetOk { delivery_tag, .. }) => {
                    self.unsettled.insert(frame.channel, delivery_tag);
                }
                Method::ChannelClose(_) => {
                    self.open.remove(&frame.channel);
                    self.unsettled.remove(&frame.channel);
                    let mut ok = Vec::new();
                    Method::ChannelCloseOk.write(frame.channel, &mut ok);
                    broker.receive(self.conn, &ok);
                }
                _ => {}
            }
        }
        self.unread = unread[at..].to_vec();
    }
}

fn declare_and_bind(name: &str, exchange: &str, out: &mut Vec<u8>) {
    Method::QueueDeclare(queue::Declare {
        queue: name.as_bytes(),
        passive: false,
        durable: false,
        exclusive: false,
        auto_delete: false,
        no_wait: true,
        arguments: Table::EMPTY,
    })
    .write(9, out);
    Method::QueueBind(queue::Bind {
        queue: name.as_bytes(),
        exchange: exchange.as_bytes(),
        routing_key: name.as_bytes(),
        no_wait: true,
        arguments: Table::EMPTY,
    })
    .write(9, out);
}

fn run(seed: u64) -> u64 {
    let mut d = Dice(seed | 1);
    let mut broker = Broker::new(Options { confirms: ConfirmStyle::Mixed, seed, ..Options::default() });
    let setup = Client::connect(&mut broker, &mut d).conn;
    let mut out = Vec::new();
    Method::ChannelOpen.write(9, &mut out);
    for name in QUEUES {
        for exchange in ["amq.direct", "amq.fanout", "amq.topic"] {
            declare_and_bind(name, exchange, &mut out);
        }
    }
    broker.receive(setup, &out);
    broker.step(setup, usize::MAX);
    broker.disconnect(setup);

    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(&mut broker, &mut d)).collect();
    for _ in 0..400 {
        let client = &mut clients[d.roll(3) as usize];
        let conn = client.conn;
        match d.roll(40) {
            0..=15 => {
                // In pieces, so that frames are seen incomplete.
                let bytes = client.input(&mut d);
                let cut = d.roll(bytes.len() as u64 + 1) as usize;
                broker.receive(conn, &bytes[..cut]);
                broker.step(conn, d.roll(3) as usize);
                broker.receive(conn, &bytes[cut..]);
            }
            16..=25 => drop(broker.step(conn, d.roll(8) as usize)),
            26..=31 => broker.pump(conn, d.roll(8) as usize),
            32..=36 => client.read(&mut broker, &mut d),
            37 => broker.set_blocked(d.roll(3) == 0),
            38 if d.roll(20) == 0 => broker.restart(),
            39 if d.roll(5) == 0 => broker.disconnect(conn),
            _ => {}
        }
        broker.check_invariants();
        if broker.wants_close(conn) {
            broker.disconnect(conn);
            *client = Client::connect(&mut broker, &mut d);
        }
    }
    broker.set_blocked(false);
    for client in clients {
        broker.disconnect(client.conn);
        broker.check_invariants();
    }
    assert_eq!(broker.channels_open(), 0);
    assert_eq!(broker.connections().count(), 0);
    let names: Vec<Vec<u8>> = broker.queue_names("/").map(<[u8]>::to_vec).collect();
    for name in names {
        let info = broker.queue("/", &name).unwrap();
        assert_eq!((info.unacked, info.consumers, info.owner), (0, 0, None));
    }
    broker.counters().deliveries
}

#[test]
fn any_interleaving() {
    let mut deliveries = 0;
    for seed in 1..600_u64 {
        deliveries += run(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15));
    }
    // Else the dice never get past the errors.
    assert!(deliveries > 2_000, "{deliveries}");
}

#[test]
fn any_bytes() {
    for seed in 1..3_000_u64 {
        let mut d = Dice(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut broker = Broker::new(Options::default());
        let client = Client::connect(&mut broker, &mut d).conn;
        for _ in 0..d.roll(20) {
            let mut bytes: Vec<u8> = (0..d.roll(30)).map(|_| d.roll(256) as u8).collect();
            if d.coin() {
                // A frame that is whole, of nonsense.
                let mut frame = vec![1 + d.roll(3) as u8, 0, d.roll(3) as u8];
                frame.extend_from_slice(&(bytes.len() as u32 + 4).to_be_bytes());
                frame.extend_from_slice(&[0, [10, 20, 50, 60][d.roll(4) as usize], 0, 10 * d.roll(13) as u8]);
                frame.append(&mut bytes);
                frame.push(0xCE);
                bytes = frame;
            }
            broker.receive(client, &bytes);
            broker.step(client, usize::MAX);
            broker.pump(client, usize::MAX);
        }
        broker.check_invariants();
    }
}
