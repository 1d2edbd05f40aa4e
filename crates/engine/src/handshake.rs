//! The client's side of the handshake, step by step (AMQP 0-9-1 section 2.2.4). Credentials are checked with the
//! broker before the client hears of success: 403 comes at start-ok, 530 at open, with the broker's own text.

use std::hash::{Hash, Hasher};

use rustc_hash::FxHasher;
use warren_wire::frame::PROTOCOL_HEADER;
use warren_wire::method::{Method, MethodId, connection};
use warren_wire::reply;
use warren_wire::table::{Table, Value};

use crate::api::{Command, Link, Peer};
use crate::close;
use crate::config::{CloseMode, OnLoss, RouteId};
use crate::engine::Engine;
use crate::event::Event;
use crate::external;
use crate::fault::Fault;
use crate::ids::{ChannelId, SessionId};
use crate::numbers::SessionChannels;
use crate::outbox::Outbox;
use crate::refuse;
use crate::session::{Capabilities, Credentials, HandOff, Phase, Session, Tune};
use crate::tables;
use crate::tenant::Refusal;
use crate::upstream::Stage;

impl Engine {
    fn new_session(&mut self, peer: Peer, phase: Phase) -> SessionId {
        self.handshakes += 1;
        let deadline = self.now + self.config.limits.handshake_timeout;
        let id = self.sessions.insert(Session {
            peer,
            phase,
            opened_at: self.now,
            knocks: true,
            deadline: Some(deadline),
            credentials: None,
            login: None,
            rekeying: None,
            rekeys: 0,
            tenant: None,
            turn: None,
            vhost: "".into(),
            capabilities: Capabilities::default(),
            tune: Tune { channel_max: 0, frame_max: 0, heartbeat: 0 },
            max_payload: u32::try_from(self.config.limits.unauthenticated_octets).unwrap_or(u32::MAX),
            channels: SessionChannels::default(),
            dedicated: None,
            naming: false,
            lane: None,
            exclusive: std::collections::BTreeMap::new(),
            outbox: Outbox::new(&self.pool),
            flushing: false,
            stalled_on: None,
            outbox_full: false,
            announced: 0,
            awaits_memory: false,
            recent_octets: (self.now, 0),
            holds_back: Vec::new(),
            held_full: false,
            told_blocked: false,
            last_received: self.now,
            last_sent: self.now,
            recent: (0, ChannelId::default()),
            armed: None,
            route: None,
            pass: None,
            paced: false,
            reading_waits: false,
            writing_waits: false,
            counts_own: false,
            usual_message: self.config.limits.message_size,
            recredited: false,
            connection_name: "".into(),
            close: CloseMode::Confirmed,
            on_loss: OnLoss::Nack,
            suspect_until: self.now,
            ending: None,
        });
        self.arm_session(id, deadline);
        id
    }

    pub(crate) fn begin_session(&mut self, peer: Peer) -> SessionId {
        self.new_session(peer, Phase::Header)
    }

    /// A session from another worker: everything but its virtual host is settled.
    pub(crate) fn adopt_session(&mut self, hand_off: HandOff) -> SessionId {
        let id = self.new_session(hand_off.peer, Phase::Open);
        let session = &mut self.sessions[id];
        session.outbox.push_copy(&hand_off.unsent);
        session.capabilities = hand_off.capabilities;
        session.tune = hand_off.tune;
        session.max_payload = hand_off.tune.max_payload();
        session.vhost = hand_off.vhost.as_str().into();
        session.turn = hand_off.turn;
        session.recredited = hand_off.recredited;
        if !session.outbox.is_empty() {
            self.send_client(id, |_| {});
        }
        let (farm, vhost) = self.follow_route(id, hand_off.route, &hand_off.vhost);
        if let Some(pass) = hand_off.pass {
            self.give_pass(id, pass);
        }
        self.farms[farm].tune = hand_off.farm_tune.unwrap_or(self.farms[farm].tune);
        let login = self.find_login(farm, &hand_off.credentials);
        let known = &mut self.logins[login];
        let newer = known.refused.as_ref().is_none_or(|r| Some(r.at) < hand_off.verified_at);
        if newer {
            known.verified_at = known.verified_at.max(hand_off.verified_at);
        }
        self.logins[login].sessions += 1;
        let session = &mut self.sessions[id];
        session.login = Some(login);
        session.credentials = Some(Box::new(hand_off.credentials));
        self.enter(id, &vhost);
        id
    }

    /// The first eight octets of a connection.
    pub(crate) fn client_header(&mut self, id: SessionId, header: [u8; 8]) {
        if header != PROTOCOL_HEADER {
            // Section 4.2.2: answer with the header that is spoken here, and close.
            self.send_client(id, |out| out.extend_from_slice(&PROTOCOL_HEADER));
            self.end_session(id, close::PROTOCOL, refuse::not_amqp(header));
            return;
        }
        self.ask_name(id);
        let farm = self.listener_farm(id);
        if self.farms[farm].properties.is_some() {
            self.send_start(id);
        } else {
            self.sessions[id].phase = Phase::Greeting;
            self.farms[farm].curious.push(id);
            self.learn(farm);
        }
    }

    /// The farm whose properties a session is shown.
    fn listener_farm(&self, id: SessionId) -> usize {
        let only = self.only_farm(id);
        only.or_else(|| self.config.routes.first().map(|r| r.farm)).unwrap_or(0)
    }

    /// See [`crate::Config::only_farm`].
    pub(crate) fn only_farm(&self, id: SessionId) -> Option<usize> {
        let peer = &self.sessions[id].peer;
        self.config.only_farm(peer.listener, peer.sni())
    }

    /// connection.start, with the broker's own server properties and Warren named beside them.
    pub(crate) fn send_start(&mut self, id: SessionId) {
        let farm = &self.farms[self.listener_farm(id)];
        let mut properties = farm.properties.clone().unwrap_or_else(tables::unknown_broker);
        tables::put_str(&mut properties, "proxy", concat!("Warren ", env!("CARGO_PKG_VERSION")));
        let server_properties = Table::from_encoded(&properties).unwrap_or(Table::EMPTY);
        let start = Method::ConnectionStart(connection::Start {
            version_major: 0,
            version_minor: 9,
            server_properties,
            mechanisms: self.mechanisms(id),
            locales: b"en_US",
        });
        self.tell_client(id, 0, start);
        self.next_phase(id, Phase::StartOk);
    }

    /// This worker's share of the handshakes that may be in progress.
    pub(crate) fn most_handshakes(&self) -> usize {
        (self.config.limits.handshakes / self.options.workers).max(1)
    }

    /// Ends handshakes that stall, when there is no room for others: those whose clients have kept Warren waiting for
    /// [`crate::config::Limits::crowded_timeout`], at once and without a word. Whoever waits for a broker stays.
    pub(crate) fn end_stalled(&mut self) {
        let limits = &self.config.limits;
        let spare = limits.handshake_timeout.saturating_sub(limits.crowded_timeout);
        let late = self.now + spare;
        let stalls = |s: &Session| {
            s.phase.is_handshake() && !s.phase.waits() && s.deadline.is_some_and(|at| at <= late)
        };
        let stalled: Vec<SessionId> =
            self.sessions.iter().filter(|(_, s)| stalls(s)).map(|(id, _)| id).collect();
        for id in stalled {
            self.abort_session(id, close::LIMIT, "its handshake stalled while others waited for room");
        }
    }

    /// Another step of the handshake begins, with a deadline of its own.
    pub(crate) fn next_phase(&mut self, id: SessionId, phase: Phase) {
        let timeout =
            if phase.waits() { self.config.limits.wait_limit } else { self.config.limits.handshake_timeout };
        let deadline = self.now + timeout;
        if let Some(session) = self.sessions.get_mut(id) {
            let waited = session.phase.waits();
            session.phase = phase;
            session.deadline = Some(deadline);
            self.arm_session(id, deadline);
            if waited {
                self.read_if_free(id);
            }
        }
    }

    /// A method on channel 0 before the session runs.
    pub(crate) fn client_handshake(&mut self, id: SessionId, method: Method<'_>) {
        let phase = self.sessions[id].phase;
        match (phase, method) {
            (Phase::StartOk, Method::ConnectionStartOk(ok)) => self.client_start_ok(id, &ok),
            (Phase::TuneOk, Method::ConnectionTuneOk(ok)) => self.client_tune_ok(id, ok),
            (Phase::Open, Method::ConnectionOpen(open)) => self.client_open(id, &open),
            (_, Method::ConnectionClose(_)) => {
                self.tell_client(id, 0, Method::ConnectionCloseOk);
                self.await_end(id);
            }
            (Phase::Open, other) => {
                let detail = "unexpected method in connection state opening";
                self.refuse_session(id, &Fault::connection(504, detail, split(other.id())));
            }
            (_, other) => {
                let detail = "unexpected method in the handshake";
                self.refuse_session(id, &Fault::connection(503, detail, split(other.id())));
            }
        }
    }

    fn client_start_ok(&mut self, id: SessionId, ok: &connection::StartOk<'_>) {
        if ok.mechanism == external::NAME && self.offers_external(id) {
            self.sessions[id].capabilities = capabilities(ok.client_properties);
            return match self.identity_of(id) {
                Ok(credentials) => self.let_in(id, ok, credentials),
                Err(detail) => self.refuse_login(id, &external::refusal(&detail, self.now)),
            };
        }
        let Some(credentials) = credentials(ok) else {
            let detail =
                format!("unknown authentication mechanism '{}'", String::from_utf8_lossy(ok.mechanism));
            self.close_session(id, 503, &reply::text(503, &detail), (10, 11), close::PROTOCOL);
            return;
        };
        self.sessions[id].capabilities = capabilities(ok.client_properties);
        self.let_in(id, ok, credentials);
    }

    /// Credentials are known. Whether they are good is asked of the farm, now or when it is known which one.
    fn let_in(&mut self, id: SessionId, ok: &connection::StartOk<'_>, credentials: Credentials) {
        if self.config.auth_timeout.is_some() {
            // The service may give it other credentials: the broker is asked about those.
            self.sessions[id].connection_name = connection_name(ok.client_properties);
            self.note_introduction(id, ok, &credentials.user);
            self.sessions[id].credentials = Some(Box::new(credentials));
            self.send_tune(id);
            return;
        }
        if credentials.user.is_empty() {
            // RabbitMQ closes the socket without a word for credentials that it cannot read.
            self.refuse_login(id, &login_refused(&credentials.mechanism, self.now));
            return;
        }
        self.note_introduction(id, ok, &credentials.user);
        let alone = self.only_dedicated(id, &credentials.user);
        self.sessions[id].credentials = Some(Box::new(credentials));
        if !self.may_come_from_there(id) {
            return;
        }
        match (alone, self.only_farm(id)) {
            (Some(farm), _) => self.introduce(id, farm),
            (None, Some(farm)) => self.verify(id, farm),
            (None, None) => self.send_tune(id),
        }
    }

    /// Whether the user may come from where it is; if not, it is refused.
    pub(crate) fn may_come_from_there(&mut self, id: SessionId) -> bool {
        let Some(session) = self.sessions.get(id) else { return false };
        let Some(credentials) = session.credentials.as_deref() else { return false };
        let remote = !session.peer.address.ip().to_canonical().is_loopback();
        if !remote || credentials.user != "guest" || self.config.limits.allow_remote_guest {
            return true;
        }
        // Beside a broker, Warren makes remote clients look local: what the broker restricts stays restricted.
        let refusal = login_refused(&credentials.mechanism, self.now);
        self.refuse_login(id, &refusal);
        false
    }

    /// Checks credentials with the farm: from memory, together with others, or by a connection of their own.
    fn verify(&mut self, id: SessionId, farm: usize) {
        let Some(credentials) = self.sessions[id].credentials.clone() else {
            return;
        };
        self.take_turn(id, farm);
        let login = self.find_login(farm, &credentials);
        self.sessions[id].login = Some(login);
        self.logins[login].sessions += 1;
        if self.login_is_fresh(login) {
            self.send_tune(id);
        } else if let Some(refusal) = self.fresh_refusal(self.logins[login].refused.as_ref()) {
            self.refuse_login(id, &refusal);
        } else {
            self.logins[login].waiters.push(id);
            self.next_phase(id, Phase::Verifying);
            self.check_login(login);
        }
    }

    /// connection.tune: what the farm itself offers.
    pub(crate) fn send_tune(&mut self, id: SessionId) {
        let tune = self.offered_tune(id);
        let method = Method::ConnectionTune(connection::Tune {
            channel_max: tune.channel_max,
            frame_max: tune.frame_max,
            heartbeat: tune.heartbeat,
        });
        self.tell_client(id, 0, method);
        self.next_phase(id, Phase::TuneOk);
    }

    /// What a client may choose from: what its own broker offers, where it has one already, else what its farm does.
    fn offered_tune(&self, id: SessionId) -> Tune {
        let own = self.sessions[id].lane.and_then(|up| self.upstreams.get(up));
        let known = own.filter(|up| up.stage == Stage::Verified);
        known.map_or_else(|| self.farms[self.listener_farm(id)].tune, |up| up.tune)
    }

    fn client_tune_ok(&mut self, id: SessionId, ok: connection::TuneOk) {
        let offered = self.offered_tune(id);
        let bad = out_of_range("channel_max", u32::from(ok.channel_max), 1, u32::from(offered.channel_max))
            .or_else(|| out_of_range("frame_max", ok.frame_max, 4096, offered.frame_max));
        if let Some(detail) = bad {
            self.close_session(id, 530, &reply::text(530, &detail), (10, 30), close::PROTOCOL);
            return;
        }
        let session = &mut self.sessions[id];
        session.tune = Tune { channel_max: ok.channel_max, frame_max: ok.frame_max, heartbeat: ok.heartbeat };
        session.max_payload = session.tune.max_payload();
        self.next_phase(id, Phase::Open);
    }

    fn client_open(&mut self, id: SessionId, open: &connection::Open<'_>) {
        let vhost = String::from_utf8_lossy(open.virtual_host).into_owned();
        let session = &mut self.sessions[id];
        session.vhost = vhost.as_str().into();
        let Some(credentials) = session.credentials.clone() else {
            return;
        };
        let Some(route) = self.take_route(id, &vhost, &credentials.user) else {
            return;
        };
        self.find_place(id, route, &vhost, &credentials.user);
        if !self.ask_auth_service(id) {
            self.open_route(id);
        }
    }

    /// All is known of a session that its route's farm must know: it goes where its pools are, and enters.
    pub(crate) fn open_route(&mut self, id: SessionId) {
        let session = &self.sessions[id];
        let (Some(route), Some(credentials)) = (session.route, session.credentials.clone()) else { return };
        let vhost = session.vhost.to_string();
        let (farm, name) = self.follow_route(id, route, &vhost);
        if self.is_dedicated(id) {
            // Before a connection is made for it, unless the broker has seen its credentials on one already.
            if self.take_place(id) {
                self.enter_own(id, farm, &name);
            }
            return;
        }
        self.sessions[id].dedicated = None;
        let owner = self.owner(farm, &name, &credentials);
        if owner != self.options.worker {
            self.hand_off(id, owner, *credentials);
            return;
        }
        if self.sessions[id].login.is_none() {
            let login = self.find_login(farm, &credentials);
            self.sessions[id].login = Some(login);
            self.logins[login].sessions += 1;
        }
        self.enter(id, &name);
    }

    /// Finds the route of a session. `None`: there is none, and the client was told.
    fn take_route(&mut self, id: SessionId, vhost: &str, user: &str) -> Option<RouteId> {
        let session = &self.sessions[id];
        let found = self.config.route(session.peer.listener, session.peer.sni(), vhost, user);
        let Some((number, _)) = found else {
            self.refuse_route(id, vhost);
            return None;
        };
        self.follow_route(id, number, vhost);
        Some(number)
    }

    /// What a route says of a session: its farm, and what the virtual host is called there.
    fn follow_route(&mut self, id: SessionId, number: RouteId, vhost: &str) -> (usize, String) {
        let route = &self.config.routes[number];
        let session = &mut self.sessions[id];
        (session.route, session.close, session.on_loss) = (Some(number), route.close, route.on_loss);
        (route.farm, upstream_vhost(route, vhost))
    }

    /// The worker that owns the pools of these credentials on this virtual host.
    fn owner(&self, farm: usize, vhost: &str, credentials: &Credentials) -> usize {
        let mut hasher = FxHasher::default();
        (farm, vhost, &credentials.user).hash(&mut hasher);
        // The upper bits: the lower ones of this hash are weak.
        let spread = (hasher.finish() >> 32) * self.options.workers as u64;
        usize::try_from(spread >> 32).unwrap_or(0).min(self.options.workers - 1)
    }

    fn hand_off(&mut self, id: SessionId, worker: usize, credentials: Credentials) {
        let Some(mut session) = self.sessions.remove(id) else {
            return;
        };
        let login = session.login.and_then(|login| self.logins.get(login));
        let verified_at = login.and_then(|l| l.verified_at);
        let farm_tune = login.map(|l| self.farms[l.farm].tune);
        self.handshakes -= usize::from(session.knocks);
        self.leave_login(session.login);
        self.metrics.hand_offs += 1;
        let hand_off = Box::new(HandOff {
            unsent: session.outbox.take_bytes(),
            peer: session.peer,
            credentials,
            turn: session.turn,
            verified_at,
            capabilities: session.capabilities,
            tune: session.tune,
            farm_tune,
            vhost: session.vhost.into(),
            route: session.route.unwrap_or_default(),
            pass: session.pass,
            recredited: session.recredited,
        });
        self.commands.retain(
            |c| !matches!(c, Command::Flush(Link::Session(s)) | Command::Read(Link::Session(s)) if *s == id),
        );
        self.commands.push_back(Command::HandOff { session: id, worker, hand_off });
    }

    /// The virtual host is known: the session enters its tenant when the broker agrees.
    fn enter(&mut self, id: SessionId, vhost: &str) {
        let Some(login) = self.sessions[id].login else {
            return;
        };
        self.take_turn(id, self.logins[login].farm);
        let tenant = self.find_tenant(login, vhost);
        let ttl = self.config.limits.auth_ttl;
        if self.tenants[tenant].proven_at.is_some_and(|at| self.now.since(at) < ttl) {
            self.enter_ok(id, tenant);
        } else if let Some(refusal) = self.fresh_refusal(self.tenants[tenant].refused.as_ref()) {
            self.refuse_login(id, &refusal);
        } else {
            self.tenants[tenant].entering.push(id);
            self.next_phase(id, Phase::Entering);
            self.check_tenant(tenant);
        }
    }

    /// connection.open-ok: the session runs.
    pub(crate) fn enter_ok(&mut self, id: SessionId, tenant: crate::ids::TenantId) {
        if !self.take_place(id) {
            return;
        }
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        session.tenant = Some(tenant);
        self.tenants[tenant].sessions += 1;
        self.tenants[tenant].last_used = self.now;
        self.settle_down(id, tenant);
        self.session_runs(id);
    }

    /// connection.open-ok, and what goes with it.
    pub(crate) fn session_runs(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        let user = session.credentials.take().map(|c| c.user.clone()).unwrap_or_default();
        session.phase = Phase::Running;
        self.handshakes -= usize::from(std::mem::take(&mut session.knocks));
        session.deadline = None;
        let event = Event::SessionOpened {
            session: id,
            peer: session.peer.address,
            user,
            vhost: session.vhost.to_string(),
        };
        self.commands.push_back(Command::Event(event));
        self.tell_client(id, 0, Method::ConnectionOpenOk);
        self.schedule_heartbeat(id);
        self.read_if_free(id);
    }

    /// A login or virtual host that the broker refused.
    pub(crate) fn refuse_login(&mut self, id: SessionId, refusal: &Refusal) {
        let Some(session) = self.sessions.get(id) else {
            return;
        };
        let text = String::from_utf8_lossy(&refusal.text).into_owned();
        if refusal.code == 403 && !session.capabilities.authentication_failure_close {
            // Clients that did not announce the capability are closed without a frame, as the broker does.
            self.end_session(id, close::REFUSED, &text);
        } else {
            self.close_session(id, refusal.code, &text, (refusal.class, refusal.method), close::REFUSED);
        }
    }

    fn refuse_route(&mut self, id: SessionId, vhost: &str) {
        let text = reply::text(506, &format!("No known broker mapping for vhost {vhost}"));
        self.close_session(id, 506, &text, (10, 40), close::REFUSED);
    }
}

/// Class and method of an id, as close methods carry them.
pub(crate) fn split(id: MethodId) -> (u16, u16) {
    ((id >> 16) as u16, (id & 0xFFFF) as u16)
}

fn upstream_vhost(route: &crate::config::Route, vhost: &str) -> String {
    route.upstream_vhost.clone().unwrap_or_else(|| vhost.to_owned())
}

/// RabbitMQ's text for a refused login.
fn login_refused(mechanism: &[u8], at: crate::time::Time) -> Refusal {
    let detail = format!(
        "Login was refused using authentication mechanism {}. For details see the broker logfile.",
        String::from_utf8_lossy(mechanism)
    );
    Refusal { code: 403, text: reply::text(403, &detail).into_bytes(), class: 0, method: 0, at }
}

/// What RabbitMQ says of a tune-ok out of range; `None` when it is in range.
fn out_of_range(field: &str, value: u32, min: u32, max: u32) -> Option<String> {
    let detail = if field == "channel_max" && value == 0 { " (no limit)" } else { "" };
    if value != 0 && value < min {
        Some(format!("negotiated {field} = {value}{detail} is lower than the minimum allowed value ({min})"))
    } else if max != 0 && (value == 0 || value > max) {
        Some(format!("negotiated {field} = {value}{detail} is higher than the maximum allowed value ({max})"))
    } else {
        None
    }
}

fn capabilities(properties: Table<'_>) -> Capabilities {
    let Some(Value::Table(table)) = properties.get(b"capabilities") else {
        return Capabilities::default();
    };
    let has = |key: &[u8]| matches!(table.get(key), Some(Value::Bool(true)));
    Capabilities {
        consumer_cancel_notify: has(b"consumer_cancel_notify"),
        connection_blocked: has(b"connection.blocked"),
        authentication_failure_close: has(b"authentication_failure_close"),
        basic_nack: has(b"basic.nack"),
    }
}

/// The name that a client gave its connection.
fn connection_name(properties: Table<'_>) -> Box<str> {
    match properties.get(b"connection_name") {
        Some(Value::Str(name)) => String::from_utf8_lossy(name).into(),
        _ => "".into(),
    }
}

/// What a start-ok says; `None` for mechanisms that are not offered.
fn credentials(ok: &connection::StartOk<'_>) -> Option<Credentials> {
    let user = user(ok.mechanism, ok.response)?;
    Some(Credentials { mechanism: ok.mechanism.to_vec(), response: ok.response.to_vec().into(), user })
}

/// The user behind a response, empty where it cannot be read; `None` for mechanisms that are not offered.
pub(crate) fn user(mechanism: &[u8], response: &[u8]) -> Option<String> {
    let user = match mechanism {
        b"PLAIN" => plain_user(response).unwrap_or_default(),
        b"AMQPLAIN" => match Table::from_encoded(response).ok().and_then(|t| t.get(b"LOGIN")) {
            Some(Value::Str(user)) => user.to_vec(),
            _ => Vec::new(),
        },
        _ => return None,
    };
    Some(String::from_utf8_lossy(&user).into_owned())
}

/// The user in a response of PLAIN: NUL, user, NUL, password, and nothing else (no broker supports another
/// authorization identity, and some overlook it).
fn plain_user(response: &[u8]) -> Option<Vec<u8>> {
    let mut parts = response.split(|b| *b == 0);
    let (empty, user, password) = (parts.next()?, parts.next()?, parts.next()?);
    (empty.is_empty() && !password.is_empty() && parts.next().is_none()).then(|| user.to_vec())
}
