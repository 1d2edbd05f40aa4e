//! Those who are not let in yet: how many may be, what is asked about them, and what is left of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use warren_engine::buf::Input;
use warren_engine::config::{Config, Limits};
use warren_engine::ids::{SessionId, UpstreamId};
use warren_engine::time::Time;
use warren_engine::{Command, Engine, Gone, Link, Options, Peer};
use warren_wire::frame::{PROTOCOL_HEADER, next_frame};
use warren_wire::method::{Method, connection};
use warren_wire::table::Table;

const TUNE: connection::Tune = connection::Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 };

/// An engine between clients that are moved by hand and a broker that knows one user.
struct Door {
    engine: Engine,
    now: Time,
    /// Connections to the broker, and the user that each one asks for; asked by start-ok, not answered yet.
    asking: BTreeMap<UpstreamId, String>,
    upstreams: usize,
    most_upstreams: usize,
    /// What each client got, as method names or codes.
    got: BTreeMap<SessionId, Vec<String>>,
}

impl Door {
    fn new(limits: Limits) -> Door {
        let config = Arc::new(Config::simple("127.0.0.1", 5672, limits));
        let engine = Engine::new(config, Options::single(1), Time(0));
        let (asking, got) = (BTreeMap::new(), BTreeMap::new());
        Door { engine, now: Time(0), asking, upstreams: 0, most_upstreams: 0, got }
    }

    fn arrive(&mut self) -> SessionId {
        let peer = Peer::plain(SocketAddr::from(([127, 0, 0, 1], 4000)));
        let id = self.engine.accepted(self.now, peer).expect("it is not stopping");
        self.got.insert(id, Vec::new());
        self.obey();
        id
    }

    /// The protocol header, then credentials.
    fn knock(&mut self, user: &str) -> SessionId {
        let id = self.arrive();
        self.feed(Link::Session(id), &PROTOCOL_HEADER);
        let response = format!("\0{user}\0secret");
        let ok = connection::StartOk {
            client_properties: Table::EMPTY,
            mechanism: b"PLAIN",
            response: response.as_bytes(),
            locale: b"en_US",
        };
        self.method(Link::Session(id), &Method::ConnectionStartOk(ok));
        id
    }

    /// The broker answers everybody who has asked.
    fn answer(&mut self) {
        for (upstream, user) in std::mem::take(&mut self.asking) {
            let refused = connection::Close {
                reply_code: 403,
                reply_text: b"ACCESS_REFUSED - nobody knows you",
                class_id: 0,
                method_id: 0,
            };
            let answer =
                if user == "known" { Method::ConnectionTune(TUNE) } else { Method::ConnectionClose(refused) };
            self.method(Link::Upstream(upstream), &answer);
        }
    }

    fn method(&mut self, link: Link, method: &Method<'_>) {
        let mut bytes = Vec::new();
        method.write(0, &mut bytes);
        self.feed(link, &bytes);
    }

    fn feed(&mut self, link: Link, bytes: &[u8]) {
        let mut input = Input::new(self.engine.pool());
        input.extend(bytes);
        self.engine.input(self.now, link, &mut input);
        self.obey();
    }

    fn obey(&mut self) {
        while let Some(command) = self.engine.next_command() {
            match command {
                Command::Connect { upstream, .. } => {
                    self.upstreams += 1;
                    self.most_upstreams = self.most_upstreams.max(self.upstreams);
                    self.engine.upstream_connected(self.now, upstream);
                }
                Command::Flush(link) => self.written(link),
                Command::Close(link) | Command::Abort(link) => {
                    self.upstreams -= usize::from(matches!(link, Link::Upstream(_)));
                    self.engine.gone(self.now, link, Gone::Closed);
                }
                Command::Read(_) | Command::Event(_) => {}
                Command::HandOff { .. } => panic!("there is only one worker"),
                Command::Authorize { .. } => panic!("there is no auth service"),
                Command::Name { .. } => panic!("no names are looked up"),
            }
        }
        self.engine.check_invariants();
    }

    fn written(&mut self, link: Link) {
        let bytes = self.engine.outbox(link).take_bytes();
        self.engine.wrote(self.now, link, bytes.len());
        if bytes == PROTOCOL_HEADER {
            let properties = Table::EMPTY;
            let start = connection::Start {
                version_major: 0,
                version_minor: 9,
                server_properties: properties,
                mechanisms: b"PLAIN",
                locales: b"en_US",
            };
            return self.method(link, &Method::ConnectionStart(start));
        }
        let mut at = 0;
        while let Ok(Some(frame)) = next_frame(&bytes, at, 131_064) {
            at = frame.end;
            match (link, Method::parse(frame.payload(&bytes)).expect("our own method")) {
                (Link::Upstream(id), Method::ConnectionStartOk(ok)) => {
                    let user =
                        String::from_utf8_lossy(ok.response.split(|b| *b == 0).nth(1).expect("a user"));
                    self.asking.insert(id, user.into_owned());
                }
                (Link::Session(id), Method::ConnectionClose(close)) => {
                    self.got.entry(id).or_default().push(close.reply_code.to_string());
                }
                (Link::Session(id), Method::ConnectionTune(_)) => {
                    self.got.entry(id).or_default().push("tune".to_owned());
                }
                _ => {}
            }
        }
    }

    fn wait(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
        self.engine.tick(self.now);
        self.obey();
    }

    fn leave(&mut self, id: SessionId) {
        self.engine.gone(self.now, Link::Session(id), Gone::Closed);
        self.obey();
    }
}

#[test]
fn strangers_ask_a_few_at_a_time_and_are_forgotten() {
    let mut door = Door::new(Limits { inquiries: 8, ..Limits::default() });
    let strangers: Vec<SessionId> = (0..100).map(|n| door.knock(&format!("stranger-{n}"))).collect();
    assert_eq!(door.asking.len(), 6, "a quarter is for those who were here before");
    for _ in 0..100 {
        door.answer();
        door.wait(100);
    }
    // Clients that do not announce the capability are ended without a frame.
    assert_eq!(door.engine.metrics().client_connections, 0, "nobody waits any more");
    assert!(door.most_upstreams <= 8, "{} connections at one time", door.most_upstreams);
    assert!(strangers.iter().all(|id| !door.got[id].contains(&"tune".to_owned())), "nobody is let in");
    door.wait(2_000);
    let metrics = door.engine.metrics();
    assert_eq!((metrics.logins, metrics.tenants, metrics.client_handshakes), (0, 0, 0));
}

#[test]
fn who_was_let_in_before_does_not_wait_behind_strangers() {
    let limits = Limits { inquiries: 8, auth_ttl: Duration::from_secs(1), ..Limits::default() };
    let mut door = Door::new(limits);
    let first = door.knock("known");
    door.answer();
    assert_eq!(door.got[&first], ["tune"]);
    door.wait(1_500); // its proof is too old, and it is still there
    for n in 0..100 {
        door.knock(&format!("stranger-{n}"));
    }
    let second = door.knock("known");
    assert!(door.asking.values().any(|user| user == "known"), "{:?}", door.asking);
    door.answer();
    assert_eq!(door.got[&second], ["tune"]);
    // Somebody new waits for its turn, and gets it.
    for _ in 0..100 {
        door.answer();
        door.wait(100);
    }
    assert!(door.asking.is_empty());
}

#[test]
fn handshakes_that_stall_make_room_when_there_is_none() {
    let mut door = Door::new(Limits { handshakes: 4, ..Limits::default() });
    let stalled: Vec<SessionId> = (0..3).map(|_| door.arrive()).collect();
    door.wait(1_000);
    assert!(!door.engine.is_crowded());
    let late = door.arrive();
    assert!(door.engine.is_crowded());
    door.engine.make_room(door.now);
    door.obey();
    assert!(door.engine.is_crowded(), "nobody has had two seconds");
    door.wait(1_000);
    door.engine.make_room(door.now);
    door.obey();
    assert_eq!(door.engine.metrics().client_handshakes, 1, "the three who came first are ended");
    assert!(!door.engine.is_crowded());
    door.leave(late);
    assert_eq!(door.engine.metrics().client_connections, 0, "{stalled:?}");
}

#[test]
fn a_handshake_has_ten_seconds_while_there_is_room() {
    let mut door = Door::new(Limits::default());
    door.arrive();
    door.wait(9_900);
    assert_eq!(door.engine.metrics().client_handshakes, 1);
    door.wait(200);
    assert_eq!(door.engine.metrics().client_handshakes, 0);
}
