//! An engine with one dedicated session, and what is written to both of its sockets.

use std::net::SocketAddr;
use std::sync::Arc;

use warren_engine::buf::Input;
use warren_engine::config::{Config, Limits, Mode, Pattern, Route};
use warren_engine::ids::{SessionId, UpstreamId};
use warren_engine::time::Time;
use warren_engine::{Command, Engine, Gone, Link, Options, Peer};
use warren_wire::frame::{PROTOCOL_HEADER, next_frame};
use warren_wire::method::{Method, connection};
use warren_wire::table::Table;

/// The engine, the client, and the broker that is connected now.
pub(crate) struct Stage {
    pub(crate) engine: Engine,
    pub(crate) session: SessionId,
    pub(crate) session_open: bool,
    /// Connections to brokers, the newest at the end.
    upstreams: Vec<UpstreamId>,
    pub(crate) to_client: Vec<u8>,
    pub(crate) to_broker: Vec<u8>,
    now: u64,
    /// Neither peer reads.
    pub(crate) blocked: bool,
    /// What was not understood yet.
    kept: std::collections::BTreeMap<Link, Vec<u8>>,
    /// Addresses whose names are looked up.
    pub(crate) asked_names: Vec<std::net::IpAddr>,
    /// Whether brokers can be reached.
    pub(crate) answering: bool,
}

impl Stage {
    /// The client has connection.start; the connection from which it was learned is gone.
    pub(crate) fn greeted() -> Stage {
        Stage::new(&[("default", "*", Mode::Dedicated)], false)
    }

    /// As [`Stage::greeted`], and the name of the client's address is being looked up.
    pub(crate) fn greeted_and_being_named() -> Stage {
        Stage::new(&[("default", "*", Mode::Dedicated)], true)
    }

    /// The name was found, or was not.
    pub(crate) fn named(&mut self, host: Option<&str>) {
        self.engine.client_named(Time(self.now), self.session, host);
        self.obey();
    }

    /// As [`Stage::greeted`], where only one virtual host is dedicated.
    pub(crate) fn mixed() -> Stage {
        Stage::new(&[("own", "own", Mode::Dedicated), ("others", "*", Mode::Shared)], false)
    }

    fn new(routes: &[(&str, &str, Mode)], reverse_dns: bool) -> Stage {
        let mut config = Config::simple("127.0.0.1", 5672, Limits::default());
        config.hostname = "proxy1".into();
        config.reverse_dns = reverse_dns;
        let route = |(name, vhost, mode): &(&str, &str, Mode)| Route {
            name: (*name).into(),
            vhost: Pattern::new(vhost),
            mode: *mode,
            ..Route::to(0)
        };
        config.routes = routes.iter().map(route).collect();
        let mut engine = Engine::new(Arc::new(config), Options::single(1), Time(0));
        let peer = Peer::plain(SocketAddr::from(([127, 0, 0, 1], 4000)));
        let session = engine.accepted(Time(0), peer).expect("it is not stopping");
        let mut stage = Stage {
            engine,
            session,
            session_open: true,
            upstreams: Vec::new(),
            to_client: Vec::new(),
            to_broker: Vec::new(),
            now: 0,
            blocked: false,
            answering: true,
            kept: std::collections::BTreeMap::new(),
            asked_names: Vec::new(),
        };
        stage.client(&PROTOCOL_HEADER);
        // The connection from which the broker's properties were learned is given up.
        stage.time_passes(5_000);
        assert!(stage.upstreams.is_empty());
        stage.to_client.clear();
        stage.to_broker.clear();
        stage
    }

    /// The broker is being asked about the virtual host.
    pub(crate) fn running_until_open() -> Stage {
        let mut stage = Stage::greeted();
        stage.client(&encoded(0, &start_ok(b"PLAIN", b"\0me\0secret")));
        stage.broker(&encoded(0, &tune(2047, 8192, 10)));
        let ok = connection::TuneOk { channel_max: 2047, frame_max: 8192, heartbeat: 10 };
        stage.client(&encoded(0, &Method::ConnectionTuneOk(ok)));
        stage.client(&encoded(0, &Method::ConnectionOpen(connection::Open { virtual_host: b"/" })));
        stage
    }

    /// The session runs.
    pub(crate) fn running() -> Stage {
        let mut stage = Stage::running_until_open();
        stage.broker(&encoded(0, &Method::ConnectionOpenOk));
        assert_eq!(methods(&stage.to_client).last().map(|m| m.0), Some(connection::OPEN_OK));
        stage.to_client.clear();
        stage.to_broker.clear();
        stage
    }

    /// The connection to the broker.
    pub(crate) fn upstream(&self) -> UpstreamId {
        *self.upstreams.last().expect("connected")
    }

    /// What was said in the last tune-ok.
    pub(crate) fn tuned(&self) -> (u16, u32, u16) {
        let mut at = 0;
        let mut tuned = (0, 0, 0);
        while let Ok(Some(frame)) = next_frame(&self.to_broker, at, u32::MAX) {
            at = frame.end;
            if let Ok(Method::ConnectionTuneOk(ok)) = Method::parse(frame.payload(&self.to_broker)) {
                tuned = (ok.channel_max, ok.frame_max, ok.heartbeat);
            }
        }
        tuned
    }

    pub(crate) fn client(&mut self, bytes: &[u8]) {
        if self.session_open {
            self.feed(Link::Session(self.session), bytes);
        }
    }

    pub(crate) fn broker(&mut self, bytes: &[u8]) {
        if let Some(id) = self.upstreams.last() {
            self.feed(Link::Upstream(*id), bytes);
        }
    }

    /// What a link must hold back is offered again, as sockets do.
    fn feed(&mut self, link: Link, bytes: &[u8]) {
        let mut input = self.unread(link);
        input.extend(bytes);
        self.engine.input(Time(self.now), link, &mut input);
        self.keep(link, &input);
        self.obey();
    }

    fn unread(&mut self, link: Link) -> Input {
        let mut input = Input::new(self.engine.pool());
        input.extend(&self.kept.remove(&link).unwrap_or_default());
        input
    }

    fn keep(&mut self, link: Link, input: &Input) {
        self.kept.insert(link, input.bytes().to_vec());
    }

    fn obey(&mut self) {
        while let Some(command) = self.engine.next_command() {
            match command {
                Command::Connect { upstream, .. } if self.answering => {
                    self.upstreams.push(upstream);
                    self.engine.upstream_local(upstream, SocketAddr::from(([127, 0, 0, 1], 40_123)));
                    self.engine.upstream_connected(Time(self.now), upstream);
                    self.greet(upstream);
                }
                Command::Connect { upstream, .. } => {
                    let why = Gone::Failed("nobody listens".into());
                    self.engine.gone(Time(self.now), Link::Upstream(upstream), why);
                }
                Command::Flush(link) => self.flush(link),
                Command::Close(link) | Command::Abort(link) => {
                    let blocked = std::mem::take(&mut self.blocked);
                    self.flush(link);
                    self.blocked = blocked;
                    self.end(link);
                }
                Command::Read(_) | Command::Event(_) => {}
                Command::HandOff { .. } => panic!("there is only one worker"),
                Command::Authorize { .. } => panic!("there is no auth service"),
                Command::Name { address, .. } => self.asked_names.push(address),
            }
        }
        self.engine.check_invariants();
    }

    /// A broker answers the protocol header at once.
    fn greet(&mut self, upstream: UpstreamId) {
        self.flush(Link::Upstream(upstream));
        self.to_broker.clear();
        let mut input = Input::new(self.engine.pool());
        input.extend(&start());
        self.engine.input(Time(self.now), Link::Upstream(upstream), &mut input);
    }

    fn flush(&mut self, link: Link) {
        if self.blocked {
            return;
        }
        let written = self.engine.outbox(link).take_bytes();
        match link {
            Link::Session(_) => self.to_client.extend(&written),
            Link::Upstream(_) => self.to_broker.extend(&written),
        }
        self.engine.wrote(Time(self.now), link, written.len());
    }

    /// Both peers read again.
    pub(crate) fn unblock(&mut self) {
        self.blocked = false;
        self.flush(Link::Session(self.session));
        self.flush(Link::Upstream(self.upstream()));
        self.obey();
    }

    fn end(&mut self, link: Link) {
        match link {
            Link::Session(_) => self.session_open = false,
            Link::Upstream(id) => self.upstreams.retain(|u| *u != id),
        }
        self.engine.gone(Time(self.now), link, Gone::Closed);
    }

    /// The broker's socket breaks.
    pub(crate) fn lose_broker(&mut self) {
        if let Some(id) = self.upstreams.last().copied() {
            self.end(Link::Upstream(id));
            self.obey();
        }
    }

    /// The client's socket breaks.
    pub(crate) fn lose_client(&mut self) {
        if self.session_open {
            self.end(Link::Session(self.session));
            self.obey();
        }
    }

    /// Waits until there is a connection to a broker.
    pub(crate) fn connect(&mut self) {
        for _ in 0..20 {
            if self.upstreams.is_empty() {
                self.time_passes(100);
            }
        }
    }

    pub(crate) fn time_passes(&mut self, millis: u64) {
        self.now += millis;
        self.engine.tick(Time(self.now));
        self.obey();
    }

    pub(crate) fn shutdown(&mut self) {
        self.engine.shutdown(Time(self.now), "the test is over");
        self.obey();
    }
}

/// One frame.
pub(crate) fn encoded(channel: u16, method: &Method<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    method.write(channel, &mut bytes);
    bytes
}

/// The methods among these frames, and the code of those that close a connection.
pub(crate) fn methods(bytes: &[u8]) -> Vec<(u32, u16)> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Ok(Some(frame)) = next_frame(bytes, at, u32::MAX) {
        at = frame.end;
        match Method::parse(frame.payload(bytes)) {
            Ok(Method::ConnectionClose(close)) if frame.kind == 1 => {
                found.push((connection::CLOSE, close.reply_code));
            }
            Ok(method) if frame.kind == 1 => found.push((method.id(), 0)),
            _ => {}
        }
    }
    found
}

fn start() -> Vec<u8> {
    let start = connection::Start {
        version_major: 0,
        version_minor: 9,
        server_properties: Table::EMPTY,
        mechanisms: b"PLAIN",
        locales: b"en_US",
    };
    encoded(0, &Method::ConnectionStart(start))
}

/// A client's start-ok: it understands refusals.
pub(crate) fn start_ok(mechanism: &'static [u8], response: &'static [u8]) -> Method<'static> {
    const PROPERTIES: &[u8] = b"\x07productS\0\0\0\x0ean application\x0ccapabilitiesF\0\0\0\x1f\
        \x1cauthentication_failure_closet\x01";
    let client_properties = Table::from_encoded(PROPERTIES).expect("well-formed");
    Method::ConnectionStartOk(connection::StartOk {
        client_properties,
        mechanism,
        response,
        locale: b"de_DE",
    })
}

/// A broker's offer.
pub(crate) fn tune(channel_max: u16, frame_max: u32, heartbeat: u16) -> Method<'static> {
    Method::ConnectionTune(connection::Tune { channel_max, frame_max, heartbeat })
}

/// connection.close.
pub(crate) fn close(reply_code: u16, text: &'static str) -> Method<'static> {
    let reply_text = text.as_bytes();
    Method::ConnectionClose(connection::Close { reply_code, reply_text, class_id: 0, method_id: 0 })
}
