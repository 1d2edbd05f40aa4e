//! Whatever a client or a broker sends, the engine neither panics nor breaks its invariants.

use std::net::SocketAddr;
use std::sync::Arc;

use proptest::prelude::*;
use warren_engine::buf::Input;
use warren_engine::config::{Config, Limits};
use warren_engine::ids::{SessionId, UpstreamId};
use warren_engine::time::Time;
use warren_engine::{Command, Engine, Gone, Link, Options, Peer};
use warren_wire::content::{BasicProperties, write_body, write_header};
use warren_wire::frame::PROTOCOL_HEADER;
use warren_wire::method::{Method, basic, channel, confirm, connection, queue};
use warren_wire::table::Table;

/// An engine with one session that runs, and the upstream connections it has asked for.
struct Stage {
    engine: Engine,
    session: SessionId,
    upstreams: Vec<UpstreamId>,
    now: u64,
    session_open: bool,
}

impl Stage {
    fn new() -> Stage {
        let limits = Limits { auth_ttl: std::time::Duration::from_secs(60), ..Limits::default() };
        let config = Arc::new(Config::simple("127.0.0.1", 5672, limits));
        let mut engine = Engine::new(config, Options::single(1), Time(0));
        let peer = Peer::plain(SocketAddr::from(([127, 0, 0, 1], 4000)));
        let session = engine.accepted(Time(0), peer).expect("it is not stopping");
        let mut stage = Stage { engine, session, upstreams: Vec::new(), now: 0, session_open: true };
        stage.client_bytes(&PROTOCOL_HEADER);
        stage.broker(0, 0, &start());
        stage.client(0, &start_ok());
        let tune = connection::Tune { channel_max: 2047, frame_max: 8192, heartbeat: 60 };
        stage.broker(0, 0, &Method::ConnectionTune(tune));
        let ok = connection::TuneOk { channel_max: 2047, frame_max: 8192, heartbeat: 60 };
        stage.client(0, &Method::ConnectionTuneOk(ok));
        stage.client(0, &Method::ConnectionOpen(connection::Open { virtual_host: b"/" }));
        stage.broker(0, 0, &Method::ConnectionOpenOk);
        assert_eq!(stage.engine.metrics().client_connections, 1);
        stage
    }

    fn client(&mut self, channel: u16, method: &Method<'_>) {
        let mut bytes = Vec::new();
        method.write(channel, &mut bytes);
        self.client_bytes(&bytes);
    }

    fn broker(&mut self, upstream: usize, channel: u16, method: &Method<'_>) {
        let mut bytes = Vec::new();
        method.write(channel, &mut bytes);
        self.broker_bytes(upstream, &bytes);
    }

    fn client_bytes(&mut self, bytes: &[u8]) {
        if self.session_open {
            self.feed(Link::Session(self.session), bytes);
        }
    }

    fn broker_bytes(&mut self, upstream: usize, bytes: &[u8]) {
        if let Some(id) = self.upstreams.get(upstream % self.upstreams.len().max(1)) {
            self.feed(Link::Upstream(*id), bytes);
        }
    }

    fn feed(&mut self, link: Link, bytes: &[u8]) {
        let mut input = Input::new(self.engine.pool());
        input.extend(bytes);
        self.engine.input(Time(self.now), link, &mut input);
        self.obey();
    }

    /// Sockets that take everything at once.
    fn obey(&mut self) {
        while let Some(command) = self.engine.next_command() {
            match command {
                Command::Connect { upstream, .. } => {
                    self.upstreams.push(upstream);
                    self.engine.upstream_connected(Time(self.now), upstream);
                }
                Command::Flush(link) => {
                    let written = self.engine.outbox(link).take_bytes().len();
                    self.engine.wrote(Time(self.now), link, written);
                }
                Command::Close(link) | Command::Abort(link) => self.end(link),
                Command::Read(_) | Command::Event(_) => {}
                Command::HandOff { .. } => panic!("there is only one worker"),
                Command::Authorize { .. } => panic!("there is no auth service"),
                Command::Name { .. } => panic!("no names are looked up"),
            }
        }
        self.engine.check_invariants();
    }

    fn end(&mut self, link: Link) {
        match link {
            Link::Session(_) => self.session_open = false,
            Link::Upstream(id) => self.upstreams.retain(|u| *u != id),
        }
        self.engine.gone(Time(self.now), link, Gone::Closed);
    }

    fn time_passes(&mut self, millis: u64) {
        self.now += millis;
        self.engine.tick(Time(self.now));
        self.obey();
    }
}

fn start() -> Method<'static> {
    Method::ConnectionStart(connection::Start {
        version_major: 0,
        version_minor: 9,
        server_properties: Table::EMPTY,
        mechanisms: b"PLAIN",
        locales: b"en_US",
    })
}

fn start_ok() -> Method<'static> {
    Method::ConnectionStartOk(connection::StartOk {
        client_properties: Table::EMPTY,
        mechanism: b"PLAIN",
        response: b"\0guest\0guest",
        locale: b"en_US",
    })
}

/// Methods of both sides, with fields that meet each other often.
fn method(which: u8, n: u8) -> Method<'static> {
    let name: &[u8] = [b"".as_slice(), b"q1", b"q2", b"amq.rabbitmq.reply-to"][usize::from(n) % 4];
    let tag: &[u8] = [b"t1".as_slice(), b"t2"][usize::from(n) % 2];
    let (number, flag) = (u64::from(n) % 5, n.is_multiple_of(2));
    let arguments = Table::EMPTY;
    match which % 28 {
        0 => Method::ChannelOpen,
        1 => Method::ChannelOpenOk,
        2 => Method::ChannelClose(channel::Close {
            reply_code: 404,
            reply_text: b"x",
            class_id: 0,
            method_id: 0,
        }),
        3 => Method::ChannelCloseOk,
        4 => Method::ChannelFlow(channel::Flow { active: !n.is_multiple_of(8) }),
        5 => Method::ChannelFlowOk(channel::FlowOk { active: true }),
        6 | 7 => Method::BasicConsume(basic::Consume {
            queue: name,
            consumer_tag: tag,
            no_local: false,
            no_ack: flag,
            exclusive: n > 200,
            no_wait: n > 128,
            arguments,
        }),
        8 => Method::BasicConsumeOk(basic::ConsumeOk { consumer_tag: tag }),
        9 => Method::BasicCancel(basic::Cancel { consumer_tag: tag, no_wait: n > 128 }),
        10 => Method::BasicCancelOk(basic::CancelOk { consumer_tag: tag }),
        11 | 12 => Method::BasicPublish(basic::Publish {
            exchange: b"",
            routing_key: name,
            mandatory: flag,
            immediate: n == 255,
        }),
        13 => Method::BasicDeliver(basic::Deliver {
            consumer_tag: tag,
            delivery_tag: number,
            redelivered: flag,
            exchange: b"",
            routing_key: name,
        }),
        14 => Method::BasicAck(basic::Ack { delivery_tag: number, multiple: flag }),
        15 => {
            Method::BasicNack(basic::Nack { delivery_tag: u64::MAX - number, multiple: flag, requeue: true })
        }
        16 => Method::BasicGet(basic::Get { queue: name, no_ack: flag }),
        17 => Method::BasicGetEmpty,
        18 => Method::BasicGetOk(basic::GetOk {
            delivery_tag: number,
            redelivered: flag,
            exchange: b"",
            routing_key: name,
            message_count: 0,
        }),
        19 | 20 => Method::QueueDeclare(queue::Declare {
            queue: name,
            passive: n.is_multiple_of(7),
            durable: false,
            exclusive: n.is_multiple_of(3),
            auto_delete: flag,
            no_wait: n > 128,
            arguments,
        }),
        21 => Method::QueueDeclareOk(queue::DeclareOk { queue: name, message_count: 0, consumer_count: 0 }),
        22 => Method::ConfirmSelect(confirm::Select { no_wait: flag }),
        23 => Method::TxSelect,
        24 => Method::TxCommit,
        25 => Method::TxCommitOk,
        26 => Method::BasicRecover(basic::Recover { requeue: flag }),
        _ => Method::ConnectionClose(connection::Close {
            reply_code: 320,
            reply_text: b"",
            class_id: 0,
            method_id: 0,
        }),
    }
}

#[derive(Clone, Debug)]
enum Step {
    Method { from_client: bool, channel: u16, which: u8, n: u8 },
    Content { from_client: bool, channel: u16, size: u16, sent: u16 },
    Bytes { from_client: bool, bytes: Vec<u8> },
    Greet,
    Time(u64),
    Gone(bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        20 => (any::<bool>(), 0..4_u16, any::<u8>(), any::<u8>())
            .prop_map(|(from_client, channel, which, n)| Step::Method { from_client, channel, which, n }),
        6 => (any::<bool>(), 1..3_u16, 0..20_000_u16, 0..20_000_u16)
            .prop_map(|(from_client, channel, size, sent)| Step::Content { from_client, channel, size, sent }),
        1 => (any::<bool>(), proptest::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(from_client, bytes)| Step::Bytes { from_client, bytes }),
        3 => Just(Step::Greet),
        1 => (0..40_000_u64).prop_map(Step::Time),
        1 => (0..40_u8).prop_map(|n| Step::Gone(n == 0)),
    ];
    proptest::collection::vec(step, 1..60)
}

fn play(stage: &mut Stage, step: &Step, at: usize) {
    match step {
        Step::Method { from_client: true, channel, which, n } => stage.client(*channel, &method(*which, *n)),
        Step::Method { channel, which, n, .. } => stage.broker(at, *channel, &method(*which, *n)),
        Step::Content { from_client, channel, size, sent } => {
            let mut bytes = Vec::new();
            write_header(*channel, u64::from(*size), &BasicProperties::default(), &mut bytes);
            for part in vec![7; usize::from(*sent)].chunks(8184) {
                write_body(*channel, part, &mut bytes);
            }
            if *from_client { stage.client_bytes(&bytes) } else { stage.broker_bytes(at, &bytes) }
        }
        Step::Bytes { from_client: true, bytes } => stage.client_bytes(bytes),
        Step::Bytes { bytes, .. } => stage.broker_bytes(at, bytes),
        Step::Greet => greet(stage),
        Step::Time(millis) => stage.time_passes(*millis),
        Step::Gone(true) if stage.session_open => {
            stage.end(Link::Session(stage.session));
            stage.obey();
        }
        Step::Gone(_) => {}
    }
}

/// Every connection goes one step further in its handshake, as a broker would take it.
fn greet(stage: &mut Stage) {
    let tune = connection::Tune { channel_max: 2047, frame_max: 8192, heartbeat: 60 };
    for (at, id) in stage.upstreams.clone().into_iter().enumerate().skip(1) {
        for method in [start(), Method::ConnectionTune(tune), Method::ConnectionOpenOk] {
            if stage.upstreams.get(at) == Some(&id) {
                stage.broker(at, 0, &method);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn neither_side_can_break_the_engine(steps in steps()) {
        let mut stage = Stage::new();
        stage.client(1, &Method::ChannelOpen);
        stage.client(2, &Method::ChannelOpen);
        for (at, step) in steps.iter().enumerate() {
            play(&mut stage, step, at);
        }
        stage.engine.shutdown(Time(stage.now), "the test is over");
        stage.obey();
    }
}
