//! An engine between clients that are moved by hand and a broker that lets everybody in, and confirms that it lives.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use warren_engine::buf::Input;
use warren_engine::config::Config;
use warren_engine::event::Event;
use warren_engine::ids::SessionId;
use warren_engine::session::HandOff;
use warren_engine::time::Time;
use warren_engine::{Allowances, AuthRequest, Command, Engine, Gone, Link, Options, Peer, Verdict};
use warren_wire::BasicProperties;
use warren_wire::frame::{PROTOCOL_HEADER, next_frame};
use warren_wire::method::{Method, basic, channel, connection};
use warren_wire::table::Table;

const TUNE: connection::Tune = connection::Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 0 };

/// What a client says at the end.
pub(crate) const GOODBYE: connection::Close<'static> =
    connection::Close { reply_code: 200, reply_text: b"bye", class_id: 0, method_id: 0 };

pub(crate) struct House {
    pub(crate) engine: Engine,
    pub(crate) now: Time,
    pub(crate) shared: Arc<Allowances>,
    /// What each client was told, in words.
    said: BTreeMap<SessionId, Vec<String>>,
    /// Users that the broker was asked about.
    pub(crate) users_asked: Vec<String>,
    /// What the auth service was asked.
    pub(crate) questions: Vec<(SessionId, AuthRequest)>,
    /// Lines for the log about limits.
    pub(crate) told: Vec<String>,
    /// Sessions that belong to another worker, with what they had not read.
    pub(crate) moved: Vec<(Box<HandOff>, Vec<u8>)>,
    /// The test writes by itself.
    pub(crate) hold_writes: bool,
    /// What clients have sent and was not dealt with.
    inputs: BTreeMap<SessionId, Vec<u8>>,
}

impl House {
    pub(crate) fn new(config: &Config) -> House {
        House::of_worker(config, None, 0, 1)
    }

    pub(crate) fn sharing(config: &Config, shared: &Arc<Allowances>) -> House {
        House::of_worker(config, Some(shared), 0, 1)
    }

    pub(crate) fn of_worker(
        config: &Config,
        shared: Option<&Arc<Allowances>>,
        worker: usize,
        workers: usize,
    ) -> House {
        let config = Arc::new(config.clone());
        let options = Options { worker, workers, ..Options::single(1) };
        let mut engine = Engine::new(Arc::clone(&config), options, Time(0));
        let shared = shared.map_or_else(|| Allowances::new(&config), Arc::clone);
        engine.share(&shared);
        House {
            engine,
            now: Time(0),
            shared,
            said: BTreeMap::new(),
            users_asked: Vec::new(),
            questions: Vec::new(),
            told: Vec::new(),
            moved: Vec::new(),
            hold_writes: false,
            inputs: BTreeMap::new(),
        }
    }

    /// A whole handshake, as far as it comes.
    pub(crate) fn connect(&mut self, user: &str, vhost: &str) -> SessionId {
        self.connect_from(user, vhost, [127, 0, 0, 1])
    }

    pub(crate) fn connect_from(&mut self, user: &str, vhost: &str, address: [u8; 4]) -> SessionId {
        let peer = Peer::plain(SocketAddr::from((IpAddr::from(address), 4000)));
        let id = self.engine.accepted(self.now, peer).expect("it is not stopping");
        self.obey();
        self.feed(Link::Session(id), &PROTOCOL_HEADER);
        let response = format!("\0{user}\0secret");
        let ok = connection::StartOk {
            client_properties: Table::EMPTY,
            mechanism: b"PLAIN",
            response: response.as_bytes(),
            locale: b"en_US",
        };
        self.feed_method(id, 0, &Method::ConnectionStartOk(ok));
        let tune = connection::TuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 0 };
        self.feed_method(id, 0, &Method::ConnectionTuneOk(tune));
        let open = connection::Open { virtual_host: vhost.as_bytes() };
        self.feed_method(id, 0, &Method::ConnectionOpen(open));
        id
    }

    pub(crate) fn adopt(&mut self, hand_off: Box<HandOff>, unread: &[u8]) -> SessionId {
        let id = self.engine.adopted(self.now, hand_off);
        self.obey();
        self.feed(Link::Session(id), unread);
        id
    }

    pub(crate) fn is_inside(&self, id: SessionId) -> bool {
        let said = self.said.get(&id).map(Vec::as_slice).unwrap_or_default();
        said.iter().any(|s| s == "in") && !said.iter().any(|s| s.starts_with("close "))
    }

    pub(crate) fn said(&self, id: SessionId) -> Vec<String> {
        self.said.get(&id).cloned().unwrap_or_default()
    }

    pub(crate) fn answer(&mut self, id: SessionId, verdict: Verdict) {
        self.engine.authorized(self.now, id, verdict);
        self.obey();
    }

    pub(crate) fn may_read(&self, id: SessionId) -> bool {
        self.engine.may_read(Link::Session(id))
    }

    /// The client's socket is gone.
    pub(crate) fn vanish(&mut self, id: SessionId) {
        self.engine.gone(self.now, Link::Session(id), Gone::Closed);
        self.obey();
    }

    /// A message to nowhere.
    pub(crate) fn publish(&mut self, id: SessionId, number: u16, size: usize) {
        let publish =
            basic::Publish { exchange: b"", routing_key: b"nowhere", mandatory: false, immediate: false };
        let mut bytes = Vec::new();
        Method::BasicPublish(publish).write(number, &mut bytes);
        let body = vec![7; size];
        warren_wire::content::write_content(number, &BasicProperties::default(), &body, 131_072, &mut bytes);
        self.feed(Link::Session(id), &bytes);
    }

    /// So many octets of heartbeats, cut wherever they end.
    pub(crate) fn feed_noise(&mut self, id: SessionId, octets: usize) {
        let beat = warren_wire::frame::HEARTBEAT_FRAME;
        let begun = self.inputs.get(&id).map_or(0, Vec::len);
        let bytes: Vec<u8> = beat.iter().cycle().skip(begun).take(octets).copied().collect();
        self.feed(Link::Session(id), &bytes);
    }

    pub(crate) fn feed_method(&mut self, id: SessionId, number: u16, method: &Method<'_>) {
        let mut bytes = Vec::new();
        method.write(number, &mut bytes);
        self.feed(Link::Session(id), &bytes);
    }

    pub(crate) fn wait(&mut self, millis: u64) {
        self.now = self.now + Duration::from_millis(millis);
        self.engine.tick(self.now);
        self.obey();
    }

    fn feed(&mut self, link: Link, bytes: &[u8]) {
        let mut input = Input::new(self.engine.pool());
        if let Link::Session(id) = link {
            input.extend(&self.inputs.remove(&id).unwrap_or_default());
        }
        input.extend(bytes);
        self.engine.input(self.now, link, &mut input);
        if let Link::Session(id) = link
            && !input.is_empty()
        {
            self.inputs.insert(id, input.bytes().to_vec());
        }
        drop(input);
        self.obey();
    }

    fn obey(&mut self) {
        while let Some(command) = self.engine.next_command() {
            match command {
                Command::Connect { upstream, .. } => self.engine.upstream_connected(self.now, upstream),
                Command::Flush(Link::Session(_)) if self.hold_writes => {}
                Command::Flush(link) => self.written(link),
                Command::Close(link) | Command::Abort(link) => {
                    self.written(link);
                    self.engine.gone(self.now, link, Gone::Closed);
                }
                Command::Read(Link::Session(id)) => {
                    if self.engine.may_read(Link::Session(id)) && self.inputs.contains_key(&id) {
                        self.feed(Link::Session(id), &[]);
                    }
                }
                Command::Read(_) => {}
                Command::Event(Event::LimitReached { limit, .. }) => self.told.push(limit),
                Command::Event(_) => {}
                Command::HandOff { session, hand_off, .. } => {
                    let unread = self.inputs.remove(&session).unwrap_or_default();
                    self.moved.push((hand_off, unread));
                }
                Command::Authorize { session, request } => self.questions.push((session, *request)),
                Command::Name { .. } => panic!("no names are looked up"),
            }
        }
        self.engine.check_invariants();
    }

    fn written(&mut self, link: Link) {
        let bytes = self.engine.outbox(link).take_bytes();
        self.engine.wrote(self.now, link, bytes.len());
        if bytes == PROTOCOL_HEADER {
            let start = connection::Start {
                version_major: 0,
                version_minor: 9,
                server_properties: Table::EMPTY,
                mechanisms: b"PLAIN",
                locales: b"en_US",
            };
            let mut answer = Vec::new();
            Method::ConnectionStart(start).write(0, &mut answer);
            return self.feed(link, &answer);
        }
        let mut at = 0;
        let mut answers = Vec::new();
        while let Ok(Some(frame)) = next_frame(&bytes, at, 131_064) {
            at = frame.end;
            let Ok(method) = Method::parse(frame.payload(&bytes)) else { continue };
            match link {
                Link::Upstream(_) => self.broker(frame.channel, &method, &mut answers),
                Link::Session(id) => self.said.entry(id).or_default().extend(words(&method)),
            }
        }
        if !answers.is_empty() {
            self.feed(link, &answers);
        }
    }

    /// What the broker says to a method.
    fn broker(&mut self, number: u16, method: &Method<'_>, out: &mut Vec<u8>) {
        let answer = match method {
            Method::ConnectionStartOk(ok) => {
                let user = ok.response.split(|b| *b == 0).nth(1).unwrap_or_default();
                self.users_asked.push(String::from_utf8_lossy(user).into_owned());
                Method::ConnectionTune(TUNE)
            }
            Method::ConnectionOpen(_) => Method::ConnectionOpenOk,
            Method::ConnectionClose(_) => Method::ConnectionCloseOk,
            Method::ChannelOpen => Method::ChannelOpenOk,
            Method::ChannelClose(_) => Method::ChannelCloseOk,
            Method::ChannelFlow(flow) => Method::ChannelFlowOk(channel::FlowOk { active: flow.active }),
            Method::QueueDeclare(declare) => Method::QueueDeclareOk(warren_wire::method::queue::DeclareOk {
                queue: declare.queue,
                message_count: 0,
                consumer_count: 0,
            }),
            _ => return,
        };
        answer.write(number, out);
    }
}

/// What a client is told, as far as it matters here.
fn words(method: &Method<'_>) -> Option<String> {
    let text = |text: &[u8]| String::from_utf8_lossy(text).into_owned();
    match method {
        Method::ConnectionOpenOk => Some("in".into()),
        Method::ConnectionClose(c) => Some(format!("close {} {}", c.reply_code, text(c.reply_text))),
        Method::ConnectionCloseOk => Some("close-ok".into()),
        Method::ChannelOpenOk => Some("open-ok".into()),
        Method::ChannelClose(c) => Some(format!("channel-close {} {}", c.reply_code, text(c.reply_text))),
        _ => None,
    }
}
