//! An engine between clients that do what clients do and members of a farm that do what they are told to.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use warren_engine::balance::Balance;
use warren_engine::buf::Input;
use warren_engine::config::{Backend, BackendId, Config, Farm, Limits};
use warren_engine::event::Event;
use warren_engine::ids::{SessionId, UpstreamId};
use warren_engine::time::Time;
use warren_engine::{Command, Engine, Gone, Link, Options, Peer};
use warren_wire::frame::{PROTOCOL_HEADER, next_frame};
use warren_wire::method::{Method, channel, connection, queue};
use warren_wire::table::Table;

const TUNE: connection::Tune = connection::Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 0 };
/// The password that no member likes.
pub(crate) const WRONG: &str = "wrong";

/// What a member of the farm does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Member {
    Lives,
    /// Nobody listens.
    Refuses,
    /// Nothing comes back, not even from the system.
    Swallows,
    /// It takes connections and says nothing.
    Mute,
}

/// What became of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The member that answered last, and when.
    At(BackendId, Time),
    /// connection.close.
    Closed(u16, String, Time),
}

pub(crate) struct Stage {
    pub(crate) engine: Engine,
    pub(crate) now: Time,
    pub(crate) members: Vec<Member>,
    /// Where each connection went.
    pub(crate) places: BTreeMap<UpstreamId, BackendId>,
    /// The members that were connected to, in order.
    pub(crate) dialled: Vec<BackendId>,
    /// Why connections ended, as it is logged.
    pub(crate) log: Vec<String>,
    pub(crate) fates: BTreeMap<SessionId, Fate>,
    passwords: BTreeMap<SessionId, (String, String)>,
    /// Connects that nobody answers, and when the edge gives up.
    swallowed: Vec<(Time, UpstreamId)>,
}

pub(crate) fn config(members: usize, limits: Limits) -> Config {
    let mut config = Config::simple("127.0.0.1", 5672, limits);
    config.backends = (1..=members)
        .map(|n| Backend { name: format!("rabbit{n}"), ..Backend::at("127.0.0.1", 5672) })
        .collect();
    config.farms = vec![Farm::of("orders", (0..members).collect())];
    config
}

impl Stage {
    pub(crate) fn new(members: &[Member]) -> Stage {
        Stage::with(members, config(members.len(), Limits::default()))
    }

    pub(crate) fn with(members: &[Member], config: Config) -> Stage {
        let balance = Arc::new(Balance::new(&config));
        Stage::sharing(members, config, &balance)
    }

    pub(crate) fn sharing(members: &[Member], config: Config, balance: &Arc<Balance>) -> Stage {
        let engine = Engine::with_balance(Arc::new(config), Options::single(1), Time(0), Arc::clone(balance));
        Stage {
            engine,
            now: Time(0),
            members: members.to_vec(),
            places: BTreeMap::new(),
            dialled: Vec::new(),
            log: Vec::new(),
            fates: BTreeMap::new(),
            passwords: BTreeMap::new(),
            swallowed: Vec::new(),
        }
    }

    /// A client comes; it does its part whenever something is said to it.
    pub(crate) fn arrive(&mut self, user: &str, password: &str) -> SessionId {
        let peer = Peer::plain(SocketAddr::from(([127, 0, 0, 1], 4000)));
        let id = self.engine.accepted(self.now, peer).expect("it is not stopping");
        self.passwords.insert(id, (user.to_owned(), password.to_owned()));
        self.feed(Link::Session(id), &PROTOCOL_HEADER);
        id
    }

    /// A client asks for something more, and so shows where it is.
    pub(crate) fn ask(&mut self, id: SessionId) {
        self.fates.remove(&id);
        let declare = queue::Declare {
            queue: b"q",
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: false,
            no_wait: false,
            arguments: Table::EMPTY,
        };
        self.say(Link::Session(id), 1, &Method::QueueDeclare(declare));
    }

    pub(crate) fn leave(&mut self, id: SessionId) {
        self.engine.gone(self.now, Link::Session(id), Gone::Closed);
        self.fates.remove(&id);
        self.obey();
    }

    /// A member goes: its connections break, and it does something else from now on.
    pub(crate) fn fell(&mut self, member: BackendId, into: Member) {
        self.members[member] = into;
        let gone: Vec<UpstreamId> =
            self.places.iter().filter(|(_, b)| **b == member).map(|(u, _)| *u).collect();
        for upstream in gone {
            self.places.remove(&upstream);
            self.engine.gone(self.now, Link::Upstream(upstream), Gone::Failed("reset".into()));
            self.obey();
        }
    }

    pub(crate) fn wait(&mut self, millis: u64) {
        for _ in 0..millis / 50 {
            self.now = self.now + Duration::from_millis(50);
            let (over, left) = self.swallowed.iter().partition(|(at, _)| *at <= self.now);
            self.swallowed = left;
            let over: Vec<(Time, UpstreamId)> = over;
            for (_, upstream) in over {
                let why = Gone::Failed("no answer within 2s".into());
                self.engine.gone(self.now, Link::Upstream(upstream), why);
                self.obey();
            }
            self.engine.tick(self.now);
            self.obey();
        }
    }

    /// How many clients are at each member.
    pub(crate) fn spread(&self) -> Vec<usize> {
        let mut spread = vec![0; self.members.len()];
        for fate in self.fates.values() {
            if let Fate::At(member, _) = fate {
                spread[*member] += 1;
            }
        }
        spread
    }

    fn say(&mut self, link: Link, channel: u16, method: &Method<'_>) {
        let mut bytes = Vec::new();
        method.write(channel, &mut bytes);
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
                Command::Connect { upstream, backend, .. } => self.connect(upstream, backend),
                Command::Flush(link) => self.written(link),
                Command::Close(link) | Command::Abort(link) => {
                    if let Link::Upstream(upstream) = link {
                        self.places.remove(&upstream);
                        self.swallowed.retain(|(_, u)| *u != upstream);
                    }
                    self.engine.gone(self.now, link, Gone::Closed);
                }
                Command::Event(Event::UpstreamEnded { why, .. }) => self.log.push(why),
                Command::Read(_) | Command::Event(_) => {}
                Command::HandOff { .. } => panic!("there is only one worker"),
                Command::Authorize { .. } | Command::Name { .. } => panic!("nobody configured that"),
            }
        }
        self.engine.check_invariants();
    }

    fn connect(&mut self, upstream: UpstreamId, backend: BackendId) {
        self.dialled.push(backend);
        match self.members[backend] {
            Member::Lives | Member::Mute => {
                self.places.insert(upstream, backend);
                self.engine.upstream_connected(self.now, upstream);
            }
            Member::Refuses => {
                let why = Gone::Failed("cannot connect to 127.0.0.1:1: Connection refused".into());
                self.engine.gone(self.now, Link::Upstream(upstream), why);
            }
            Member::Swallows => self.swallowed.push((self.now + Duration::from_secs(2), upstream)),
        }
    }

    fn written(&mut self, link: Link) {
        let bytes = self.engine.outbox(link).take_bytes();
        self.engine.wrote(self.now, link, bytes.len());
        if let Link::Upstream(id) = link
            && self.places.get(&id).is_none_or(|b| self.members[*b] == Member::Mute)
        {
            return;
        }
        let mut at = 0;
        if bytes.starts_with(&PROTOCOL_HEADER) {
            at = PROTOCOL_HEADER.len();
            let start = connection::Start {
                version_major: 0,
                version_minor: 9,
                server_properties: Table::EMPTY,
                mechanisms: b"PLAIN",
                locales: b"en_US",
            };
            self.say(link, 0, &Method::ConnectionStart(start));
        }
        while let Ok(Some(frame)) = next_frame(&bytes, at, 131_064) {
            at = frame.end;
            let method = Method::parse(frame.payload(&bytes)).expect("our own method");
            match link {
                Link::Upstream(id) => self.broker(id, frame.channel, method),
                Link::Session(id) => self.client(id, method),
            }
        }
    }

    fn broker(&mut self, id: UpstreamId, number: u16, method: Method<'_>) {
        let link = Link::Upstream(id);
        match method {
            Method::ConnectionStartOk(ok) if ok.response.ends_with(WRONG.as_bytes()) => {
                let close = connection::Close {
                    reply_code: 403,
                    reply_text: b"ACCESS_REFUSED - nobody knows you",
                    class_id: 0,
                    method_id: 0,
                };
                self.say(link, 0, &Method::ConnectionClose(close));
            }
            Method::ConnectionStartOk(_) => self.say(link, 0, &Method::ConnectionTune(TUNE)),
            Method::ConnectionOpen(_) => self.say(link, 0, &Method::ConnectionOpenOk),
            Method::ConnectionClose(_) => self.say(link, 0, &Method::ConnectionCloseOk),
            Method::ChannelOpen => self.say(link, number, &Method::ChannelOpenOk),
            Method::ChannelClose(_) => self.say(link, number, &Method::ChannelCloseOk),
            Method::QueueDeclare(declare) => {
                let ok = queue::DeclareOk {
                    queue: declare.queue,
                    message_count: u32::try_from(self.places[&id]).expect("few"),
                    consumer_count: 0,
                };
                self.say(link, number, &Method::QueueDeclareOk(ok));
            }
            Method::ChannelFlow(flow) => {
                let ok = channel::FlowOk { active: flow.active };
                self.say(link, number, &Method::ChannelFlowOk(ok));
            }
            _ => {}
        }
    }

    fn client(&mut self, id: SessionId, method: Method<'_>) {
        let link = Link::Session(id);
        match method {
            Method::ConnectionStart(_) => {
                let (user, password) = &self.passwords[&id];
                let response = format!("\0{user}\0{password}");
                let ok = connection::StartOk {
                    client_properties: Table::EMPTY,
                    mechanism: b"PLAIN",
                    response: response.as_bytes(),
                    locale: b"en_US",
                };
                self.say(link, 0, &Method::ConnectionStartOk(ok));
            }
            Method::ConnectionTune(tune) => {
                let ok =
                    connection::TuneOk { channel_max: tune.channel_max, frame_max: 131_072, heartbeat: 0 };
                self.say(link, 0, &Method::ConnectionTuneOk(ok));
                self.say(link, 0, &Method::ConnectionOpen(connection::Open { virtual_host: b"/" }));
            }
            Method::ConnectionOpenOk => {
                self.say(link, 1, &Method::ChannelOpen);
                self.ask(id);
            }
            Method::QueueDeclareOk(ok) => {
                let member = usize::try_from(ok.message_count).expect("few");
                self.fates.insert(id, Fate::At(member, self.now));
            }
            Method::ConnectionClose(close) => {
                let text = String::from_utf8_lossy(close.reply_text).into_owned();
                self.fates.insert(id, Fate::Closed(close.reply_code, text, self.now));
                self.say(link, 0, &Method::ConnectionCloseOk);
            }
            _ => {}
        }
    }
}
