//! Dedicated sessions: each has an upstream connection of its own, on which its client's handshake is replayed and its
//! frames pass as they are. It is shared mode's path with an identity mapping: the same sockets, outboxes, timers and
//! endings. What is different is here: how such a session begins, and how it ends; how bytes pass is in `relay`.
//!
//! Where all that a client can come to is dedicated and in one farm, the broker is asked step by step with the client,
//! so that 403 comes at start-ok; elsewhere all of it at connection.open, when the route is known.

mod properties;
mod relay;

use std::time::Duration;

use warren_wire::method::{Method, connection};
use warren_wire::reply;
use warren_wire::table::Table;

use crate::api::{Command, Link};
use crate::close::{self, CLOSE_OK_WITHIN};
use crate::config::{FarmId, Mode};
use crate::dial::{BROKER, IDLE, REFUSED};
use crate::engine::Engine;
use crate::event::Event;
use crate::ids::{SessionId, UpstreamId};
use crate::session::{Phase, Tune};
use crate::tenant::{Inquiry, Refusal};
use crate::time::Time;
use crate::upstream::{Purpose, Stage};
use properties::{Journey, replayed};

pub(crate) use relay::skip;

/// Connections in a row that a broker may lose while it checks the credentials of one client. Once may be its own
/// trouble; twice is what RabbitMQ does with credentials that it cannot read.
const LOSSES: u8 = 2;

/// Octets of a start-ok besides its table: frame, method and the lengths of four fields.
const START_OK_FIXED: usize = 8 + 4 + 4 + 1 + 4 + 1;

/// What a session needs to be dedicated.
#[derive(Default)]
pub(crate) struct Dedicated {
    pub(crate) farm: FarmId,
    /// Octets that the client's frame still lacks of which the beginning was passed on.
    pub(crate) lacks: u64,
    /// The broker has sent connection.close; its client's answer is awaited.
    pub(crate) broker_closes: bool,
    /// It is among its farm's inquiries that wait.
    pub(crate) queued: bool,
    /// Until it runs: what is replayed to the broker.
    pub(crate) opening: Option<Box<Opening>>,
    /// What the client is told when the broker's frame that has begun is complete.
    pub(crate) farewell: Option<Box<Farewell>>,
}

/// What a client said of itself, until its broker knows it.
#[derive(Default)]
pub(crate) struct Opening {
    properties: Box<[u8]>,
    locale: Box<[u8]>,
    /// The virtual host as its broker calls it.
    vhost: Box<str>,
    /// Connections that the broker lost while it checked the credentials.
    losses: u8,
    /// From which port of this machine the broker is reached.
    local_port: u16,
    /// The broker waits for start-ok, which waits for the name of the client's address.
    greeted: bool,
}

/// A connection.close that waits for the end of another frame.
pub(crate) struct Farewell {
    code: u16,
    text: String,
    at: (u16, u16),
    reason: usize,
}

impl Engine {
    /// Says from which address of this machine an upstream connection was made. Before [`Engine::upstream_connected`].
    pub fn upstream_local(&mut self, upstream: UpstreamId, local: std::net::SocketAddr) {
        let session = self.upstreams.get(upstream).and_then(|u| u.session);
        if let Some(opening) = session.and_then(|id| self.opening(id)) {
            opening.local_port = local.port();
        }
    }

    /// The name of a client's address has been looked up, or has not been found in time.
    pub fn client_named(&mut self, now: Time, session: SessionId, host: Option<&str>) {
        self.now = now;
        let Some(state) = self.sessions.get_mut(session).filter(|s| s.naming) else { return };
        state.naming = false;
        state.peer.host = host.map(Into::into);
        let greeted = state.dedicated.as_ref().and_then(|d| d.opening.as_ref()).is_some_and(|o| o.greeted);
        if let Some(up) = state.lane.filter(|_| greeted) {
            self.replay_start_ok(up, session);
        }
        self.settle_step();
    }

    /// Has the name of a client's address looked up where it matters: on the way to a dedicated route, and for the auth
    /// service. The handshake goes on meanwhile.
    pub(crate) fn ask_name(&mut self, id: SessionId) {
        let session = &mut self.sessions[id];
        let config = &self.config;
        let (listener, sni) = (session.peer.listener, session.peer.sni());
        let matters = config.auth_timeout.is_some() || config.leads_to_dedicated(listener, sni);
        if config.reverse_dns && matters && session.peer.host.is_none() {
            session.naming = true;
            let address = session.peer.address.ip().to_canonical();
            self.commands.push_back(Command::Name { session: id, address });
        }
    }

    fn opening(&mut self, id: SessionId) -> Option<&mut Opening> {
        self.sessions.get_mut(id)?.dedicated.as_mut()?.opening.as_deref_mut()
    }

    /// Keeps what a client says of itself if it may come to a dedicated route.
    pub(crate) fn note_introduction(&mut self, id: SessionId, ok: &connection::StartOk<'_>, user: &str) {
        let session = &mut self.sessions[id];
        if !self.config.may_be_dedicated(session.peer.listener, session.peer.sni(), user) {
            return;
        }
        let opening = Opening {
            properties: ok.client_properties.as_bytes().into(),
            locale: ok.locale.into(),
            ..Opening::default()
        };
        session.dedicated =
            Some(Box::new(Dedicated { opening: Some(Box::new(opening)), ..Dedicated::default() }));
    }

    /// See [`crate::Config::only_dedicated`].
    pub(crate) fn only_dedicated(&self, id: SessionId, user: &str) -> Option<FarmId> {
        let peer = &self.sessions[id].peer;
        self.config.only_dedicated(peer.listener, peer.sni(), user)
    }

    /// Whether the route that was found for a session is a dedicated one.
    pub(crate) fn is_dedicated(&self, id: SessionId) -> bool {
        let session = &self.sessions[id];
        session.dedicated.is_some()
            && session.route.is_some_and(|route| self.config.routes[route].mode == Mode::Dedicated)
    }

    /// The broker of this farm is asked about the credentials while the client waits.
    pub(crate) fn introduce(&mut self, id: SessionId, farm: FarmId) {
        if let Some(dedicated) = &mut self.sessions[id].dedicated {
            dedicated.farm = farm;
        }
        self.next_phase(id, Phase::Verifying);
        self.want_own(id);
    }

    /// The virtual host is known: the broker is asked about it, and about all else if it was not yet.
    pub(crate) fn enter_own(&mut self, id: SessionId, farm: FarmId, vhost: &str) {
        let session = &mut self.sessions[id];
        let login = session.login.take();
        if let Some(dedicated) = &mut session.dedicated {
            dedicated.farm = farm;
        }
        if let Some(opening) = self.opening(id) {
            opening.vhost = vhost.into();
        }
        self.leave_login(login);
        self.next_phase(id, Phase::Entering);
        match self.sessions[id].lane.filter(|up| self.upstreams[*up].stage == Stage::Verified) {
            Some(up) => self.open_own(up, id),
            None => self.want_own(id),
        }
    }

    /// Whether a session waits for a connection and has none.
    fn lacks_own(&self, id: SessionId) -> Option<FarmId> {
        let session = self.sessions.get(id)?;
        let dedicated = session.dedicated.as_ref().filter(|d| !d.queued)?;
        let waits = matches!(session.phase, Phase::Verifying | Phase::Entering) && session.lane.is_none();
        (waits && session.login.is_none()).then_some(dedicated.farm)
    }

    /// The note that a session is among its farm's inquiries that wait.
    pub(crate) fn own_queued(&mut self, id: SessionId) -> Option<&mut bool> {
        self.sessions.get_mut(id)?.dedicated.as_mut().map(|d| &mut d.queued)
    }

    /// Begins a session's connection to its broker, or notes that it is wanted.
    pub(crate) fn want_own(&mut self, id: SessionId) {
        let Some(farm) = self.lacks_own(id) else { return };
        if let Some(up) = self.inquire(farm, Inquiry::Session(id)) {
            let upstream = &mut self.upstreams[up];
            upstream.purpose = Purpose::Dedicated;
            upstream.session = Some(id);
            self.sessions[id].lane = Some(up);
        }
    }

    /// A farm may be tried again: so do those who wait for it.
    pub(crate) fn dial_for_own(&mut self, farm: FarmId) {
        let waits = |id: &SessionId| self.lacks_own(*id) == Some(farm);
        let waiting: Vec<SessionId> = self.sessions.keys().filter(waits).collect();
        for id in waiting {
            self.want_own(id);
        }
    }

    /// A method of the broker before the session runs.
    pub(crate) fn own_handshake(&mut self, up: UpstreamId, method: Method<'_>) {
        let Some(id) = self.upstreams[up].session.filter(|id| self.sessions.contains_key(*id)) else {
            return self.close_upstream(up, IDLE, "its session has ended");
        };
        match (self.upstreams[up].stage, method) {
            (Stage::Greeting, Method::ConnectionStart(start)) => {
                let farm = self.upstreams[up].farm;
                self.note_start(farm, &start);
                self.member_greets(up);
                match self.sessions[id].naming {
                    true => self.wait_for_name(up, id),
                    false => self.replay_start_ok(up, id),
                }
                self.release_curious(farm);
            }
            (Stage::Verifying, Method::ConnectionTune(tune)) => self.own_tune(up, id, tune),
            (Stage::Opening, Method::ConnectionOpenOk) => self.own_runs(up, id),
            (_, Method::ConnectionClose(close)) => self.own_refused(up, id, &close),
            (_, other) => {
                let text = format!("unexpected method {:#x} in the handshake", other.id());
                self.abort_upstream(up, BROKER, &text);
            }
        }
    }

    /// The broker is to hear what the client's address is called: that is known in a moment.
    fn wait_for_name(&mut self, up: UpstreamId, id: SessionId) {
        // Its broker has said what it had to say.
        self.upstreams[up].deadline = Some(self.now + self.config.limits.handshake_timeout);
        if let Some(opening) = self.opening(id) {
            opening.greeted = true;
        }
    }

    /// connection.start-ok as the client sent it, and where it came from.
    fn replay_start_ok(&mut self, up: UpstreamId, id: SessionId) {
        self.next_stage(up, Stage::Verifying);
        if let Some(opening) = self.opening(id) {
            opening.greeted = false;
        }
        let session = &self.sessions[id];
        let opening = session.dedicated.as_ref().and_then(|d| d.opening.as_ref());
        let (Some(opening), Some(credentials)) = (opening, session.credentials.clone()) else { return };
        let peer = &session.peer;
        let route = match session.route {
            Some(route) => self.config.routes.get(route),
            None => self.config.only_route(peer.listener, peer.sni(), &credentials.user),
        };
        let journey = Journey {
            peer,
            listener: self.config.listeners.get(peer.listener).map_or("", |l| &l.name),
            route: route.map(|r| r.name.as_str()),
            hostname: &self.config.hostname,
            local_port: opening.local_port,
        };
        let others = credentials.mechanism.len() + credentials.response.len() + opening.locale.len();
        let properties = replayed(&opening.properties, START_OK_FIXED + others, &journey);
        let locale = opening.locale.clone();
        let method = Method::ConnectionStartOk(connection::StartOk {
            client_properties: Table::from_encoded(&properties).unwrap_or(Table::EMPTY),
            mechanism: &credentials.mechanism,
            response: &credentials.response,
            locale: &locale,
        });
        self.tell_upstream(up, 0, method);
    }

    /// The broker has accepted the credentials.
    fn own_tune(&mut self, up: UpstreamId, id: SessionId, tune: connection::Tune) {
        if !self.note_tune(up, tune) {
            return;
        }
        let upstream = &mut self.upstreams[up];
        upstream.stage = Stage::Verified;
        // From here on the client's deadlines hold.
        upstream.deadline = None;
        self.end_inquiry(up);
        match self.sessions[id].phase {
            Phase::Verifying => self.send_tune(id),
            _ => self.open_own(up, id),
        }
    }

    /// The client's tune-ok, but no more than this broker offers, and connection.open, in one write.
    fn open_own(&mut self, up: UpstreamId, id: SessionId) {
        let chosen = self.sessions[id].tune;
        let offered = self.upstreams[up].tune;
        let tune = Tune {
            channel_max: lower(chosen.channel_max.into(), offered.channel_max.into())
                .try_into()
                .unwrap_or(u16::MAX),
            frame_max: lower(chosen.frame_max, offered.frame_max),
            heartbeat: chosen.heartbeat,
        };
        self.upstreams[up].tune = tune;
        let session = &mut self.sessions[id];
        session.tune = tune;
        session.max_payload = tune.max_payload();
        let vhost = self.opening(id).map(|o| o.vhost.clone()).unwrap_or_default();
        self.send_open(up, tune, &vhost);
    }

    /// The broker has let the client in.
    fn own_runs(&mut self, up: UpstreamId, id: SessionId) {
        let upstream = &mut self.upstreams[up];
        upstream.stage = Stage::Ready;
        upstream.deadline = None;
        upstream.tries = None;
        let (farm, backend) = (upstream.farm, upstream.backend);
        self.belongs_to(id, farm, backend);
        self.farms[farm].failures = 0;
        self.metrics.upstream_connects += 1;
        let purpose = self.upstreams[up].purpose.name();
        let event = Event::UpstreamOpened { upstream: up, backend, purpose };
        self.commands.push_back(Command::Event(event));
        if let Some(dedicated) = &mut self.sessions[id].dedicated {
            dedicated.opening = None;
        }
        self.schedule_upstream(up);
        self.session_runs(id);
    }

    /// connection.close during the handshake goes to the client as it is.
    fn own_refused(&mut self, up: UpstreamId, id: SessionId, close: &connection::Close<'_>) {
        let text = String::from_utf8_lossy(close.reply_text).into_owned();
        let refusal = Refusal {
            code: close.reply_code,
            text: close.reply_text.to_vec(),
            class: close.class_id,
            method: close.method_id,
            at: self.now,
        };
        self.balance.worked(self.upstreams[up].backend); // it has answered
        self.tell_upstream(up, 0, Method::ConnectionCloseOk);
        self.detach_upstream(up);
        self.end_upstream(up, REFUSED, &text);
        self.inquiry_refused(up);
        // Brokers may be slow to end the socket, and there may be many of them.
        let deadline = self.now + self.config.limits.refusal_pause;
        self.upstreams[up].deadline = Some(deadline);
        self.arm_upstream(up, deadline);
        if self.sessions[id].phase.waits() {
            self.refuse_login(id, &refusal);
        }
    }

    /// A connection was lost before its session ran. The client need not know as long as there may be another.
    pub(crate) fn lose_own_attempt(&mut self, up: UpstreamId, reason: usize, text: &str) {
        let (stage, session) = (self.upstreams[up].stage, self.upstreams[up].session);
        let mut text = match stage {
            Stage::Verifying => format!("{text} while it checked the credentials"),
            _ => text.to_owned(),
        };
        // Whoever is too slow for its broker, or is not let in, says nothing of the farm.
        if !matches!(stage, Stage::Verifying | Stage::Verified) {
            text = self.try_failed(up, &text);
        }
        self.detach_upstream(up);
        self.end_inquiry(up);
        if let Some(opening) = session.and_then(|id| self.opening(id)) {
            opening.greeted = false;
        }
        let upstream = &mut self.upstreams[up];
        upstream.ending.get_or_insert((reason, text.clone()));
        upstream.stage = Stage::Ended;
        let Some(id) = session.filter(|id| self.sessions.get(*id).is_some_and(|s| s.phase.waits())) else {
            return;
        };
        if stage == Stage::Verifying && self.is_refused_in_silence(id) {
            return self.end_session(id, close::REFUSED, &text);
        }
        let losses = self.opening(id).map_or(0, |o| o.losses);
        if losses >= LOSSES {
            let text = "ACCESS_REFUSED - the broker closed the connection while it checked the credentials";
            return self.close_session(id, 403, text, (0, 0), close::REFUSED);
        }
        self.want_own(id);
    }

    /// A broker went away while it checked credentials. That is how it refuses clients who did not announce that they
    /// understand more; of others it is counted.
    fn is_refused_in_silence(&mut self, id: SessionId) -> bool {
        if let Some(opening) = self.opening(id) {
            opening.losses += 1;
        }
        !self.sessions[id].capabilities.authentication_failure_close
    }

    /// The connection of a session that runs is lost: the client is told, unless it has a part of a frame.
    pub(crate) fn lose_own(&mut self, up: UpstreamId, reason: usize, text: &str) {
        let upstream = &mut self.upstreams[up];
        upstream.ending.get_or_insert((reason, text.to_owned()));
        upstream.stage = Stage::Ended;
        upstream.stalled.clear();
        let (within, session) = (upstream.lacks > 0, upstream.session);
        let name = &self.config.backends[upstream.backend].name;
        let told = reply::text(320, &format!("the connection to broker {name} was lost: {text}"));
        self.detach_upstream(up);
        let Some(id) = session else { return };
        self.let_go(id);
        let Some(session) = self.sessions.get_mut(id) else { return };
        session.stalled_on = session.stalled_on.filter(|stalled| *stalled != up);
        let closes = session.dedicated.as_ref().is_some_and(|d| d.broker_closes);
        match session.phase {
            Phase::Leaving if closes => {
                // It was told why, and its answer is all that is awaited.
                session.phase = Phase::CloseSent;
                self.commands.push_back(Command::Read(Link::Session(id)));
            }
            Phase::Running if !within => self.close_session(id, 320, &told, (0, 0), close::UPSTREAM),
            Phase::Running | Phase::Leaving => self.end_session(id, close::UPSTREAM, &told),
            _ => {}
        }
    }

    /// Whether a client has a part of a frame: nothing may be put into it.
    pub(crate) fn is_within_frame(&self, id: SessionId) -> bool {
        let session = self.sessions.get(id).filter(|s| s.relays());
        session.and_then(|s| s.lane).and_then(|up| self.upstreams.get(up)).is_some_and(|up| up.lacks > 0)
    }

    /// Closes a session when the frame that has begun is complete, or in a moment without a word.
    pub(crate) fn close_after_frame(
        &mut self,
        id: SessionId,
        code: u16,
        text: &str,
        at: (u16, u16),
        reason: usize,
    ) {
        let deadline = self.now + CLOSE_OK_WITHIN;
        let Some(session) = self.sessions.get_mut(id) else { return };
        let Some(dedicated) = session.dedicated.as_mut().filter(|d| d.farewell.is_none()) else { return };
        dedicated.farewell = Some(Box::new(Farewell { code, text: text.to_owned(), at, reason }));
        session.deadline = Some(deadline);
        self.arm_session(id, deadline);
        self.let_go(id);
    }

    /// The frame is complete: now the client is told.
    fn say_farewell(&mut self, id: SessionId) {
        let session = self.sessions.get_mut(id);
        let farewell = session.and_then(|s| s.dedicated.as_mut()).and_then(|d| d.farewell.take());
        if let Some(farewell) = farewell {
            self.close_session(id, farewell.code, &farewell.text, farewell.at, farewell.reason);
        }
    }

    /// A session that runs has not done in time what it had to.
    pub(crate) fn relay_too_late(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(id) else { return };
        let Some(dedicated) = &session.dedicated else { return };
        if let Some(farewell) = &dedicated.farewell {
            let (reason, text) = (farewell.reason, farewell.text.clone());
            self.end_session(id, reason, &text);
        } else if dedicated.broker_closes {
            self.abort_session(id, close::UPSTREAM, "connection.close was not answered");
        } else if session.phase == Phase::Leaving {
            self.end_session(id, close::UPSTREAM, "the broker did not answer connection.close");
        }
    }

    /// A session's own connection ends with it, in good order where that is possible: connection.close cannot stand in
    /// the middle of a frame.
    pub(crate) fn close_own(&mut self, id: SessionId, up: UpstreamId) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        session.stalled_on = session.stalled_on.filter(|stalled| *stalled != up);
        let Some(dedicated) = &session.dedicated else { return };
        let (within, closes) = (dedicated.lacks > 0, dedicated.broker_closes);
        let Some(upstream) = self.upstreams.get_mut(up) else { return };
        upstream.stalled.clear();
        if upstream.stage == Stage::Ready && (within || closes) {
            if !within {
                self.tell_upstream(up, 0, Method::ConnectionCloseOk);
            }
            self.detach_upstream(up);
            self.end_upstream(up, if closes { BROKER } else { IDLE }, "its session has ended");
            self.end_in(up, self.config.limits.handshake_timeout);
        } else {
            self.close_upstream(up, IDLE, "its session has ended");
        }
    }

    /// A connection that ends must be gone by then.
    fn end_in(&mut self, up: UpstreamId, time: Duration) {
        let deadline = self.now + time;
        if let Some(upstream) = self.upstreams.get_mut(up) {
            upstream.deadline = Some(deadline);
            self.arm_upstream(up, deadline);
        }
    }
}

/// The lower of two numbers of which 0 means that there is no limit.
fn lower(a: u32, b: u32) -> u32 {
    if a == 0 || b == 0 { a.max(b) } else { a.min(b) }
}
