//! The broker's side of the handshake: connections that learn, verify, prove, and join a pool.

use std::time::Duration;

use warren_wire::frame::{FRAME_MIN_SIZE, PROTOCOL_HEADER};
use warren_wire::method::{Method, connection};
use warren_wire::table::{Table, Value};

use crate::api::{Command, Gone, Link};
use crate::config::{BackendId, FarmId};
use crate::engine::Engine;
use crate::event::Event;
use crate::ids::{LoginId, SessionId, TenantId, UpstreamId};
use crate::numbers::UpNumbers;
use crate::outbox::Outbox;
use crate::session::{Phase, Tune};
use crate::tables;
use crate::tenant::{NodeId, Refusal};
use crate::timers::TimerKey;
use crate::tries::{To, Tries};
use crate::upstream::{Purpose, Stage, Upstream};

/// The pause after a connection was lost while the broker checked credentials.
const RETRY_LOST: Duration = Duration::from_millis(500);
/// How long a connection may wait for credentials or for a virtual host before it is given up.
const PARKED_FOR: Duration = Duration::from_secs(5);

/// Reasons, as in [`crate::metrics::UPSTREAM_CLOSE_REASONS`].
pub(crate) const IDLE: usize = 0;
pub(crate) const BROKER: usize = 1;
pub(crate) const LOST: usize = 2;
pub(crate) const REFUSED: usize = 3;
pub(crate) const HEARTBEAT: usize = 4;
pub(crate) const SHUTDOWN: usize = 5;

impl Engine {
    /// Begins a connection to a farm. `None`: not now, the farm's timer will ask again.
    pub(crate) fn dial(
        &mut self,
        farm: FarmId,
        login: Option<LoginId>,
        tenant: Option<TenantId>,
        to: To,
    ) -> Option<UpstreamId> {
        if self.must_wait(farm, to) {
            return None;
        }
        let refused = login.and_then(|l| self.logins.get(l)).and_then(|l| l.refused.as_ref());
        if self.fresh_refusal(refused).is_some() {
            return None;
        }
        let (backend, tries) = match to {
            To::Only(backend) => (backend, None),
            To::Any { first } => (self.first_member(farm, first), Some(Box::default())),
        };
        Some(self.begin_upstream((farm, backend), login, tenant, tries))
    }

    /// A connection to a member of a farm, which begins now.
    pub(crate) fn begin_upstream(
        &mut self,
        (farm, backend): (FarmId, BackendId),
        login: Option<LoginId>,
        tenant: Option<TenantId>,
        tries: Option<Box<Tries>>,
    ) -> UpstreamId {
        let limits = &self.config.limits;
        let deadline = self.now + limits.connect_timeout + limits.handshake_timeout;
        let id = self.upstreams.insert(Upstream {
            farm,
            backend,
            stage: Stage::Connecting,
            purpose: Purpose::Any,
            tries,
            inquires: false,
            dialled: false,
            login,
            tenant,
            session: None,
            tune: Tune::default(),
            numbers: UpNumbers::default(),
            idle_plain: Vec::new(),
            idle_confirm: Vec::new(),
            idle_since: self.now,
            outbox: Outbox::new(&self.pool),
            flushing: false,
            stalled: std::collections::VecDeque::new(),
            watched: Vec::new(),
            full_since: None,
            fullness_watched: false,
            blocked: None,
            held_back: false,
            lacks: 0,
            deadline: Some(deadline),
            armed: None,
            last_received: self.now,
            last_sent: self.now,
            ending: None,
        });
        if let Some(tenant) = tenant {
            self.node_mut(NodeId { tenant, backend }).upstreams.push(id);
        }
        self.arm_upstream(id, deadline);
        self.commands.push_back(Command::Connect { upstream: id, backend, client: None });
        id
    }

    /// Has a connection find out what the farm's brokers say of themselves.
    pub(crate) fn learn(&mut self, farm: FarmId) {
        if self.farms[farm].learning > 0 || self.farms[farm].curious.is_empty() {
            return;
        }
        let first = self.turn_of_curious(farm);
        if self.dial(farm, None, None, To::Any { first }).is_some() {
            self.farms[farm].learning += 1;
        } else {
            // The last attempt has failed a moment ago: the client is not kept waiting for the next.
            self.release_curious(farm);
        }
    }

    /// The sessions that waited for the server properties go on, with what is known.
    pub(crate) fn release_curious(&mut self, farm: FarmId) {
        for id in std::mem::take(&mut self.farms[farm].curious) {
            if self.sessions.get(id).is_some_and(|s| s.phase == Phase::Greeting) {
                self.send_start(id);
            }
        }
    }

    pub(crate) fn greet_upstream(&mut self, id: UpstreamId) {
        if let Some(upstream) = self.upstreams.get_mut(id)
            && upstream.stage == Stage::Connecting
        {
            upstream.stage = Stage::Greeting;
            upstream.last_received = self.now;
            self.hurry_greeting(id);
            self.send_upstream(id, |out| out.extend_from_slice(&PROTOCOL_HEADER));
        }
    }

    /// A method on channel 0 before the connection is ready.
    pub(crate) fn broker_handshake(&mut self, id: UpstreamId, method: Method<'_>) {
        if self.upstreams[id].purpose == Purpose::Dedicated {
            return self.own_handshake(id, method);
        }
        let stage = self.upstreams[id].stage;
        match (stage, method) {
            (Stage::Greeting, Method::ConnectionStart(start)) => self.broker_start(id, &start),
            (Stage::Verifying, Method::ConnectionTune(tune)) => self.broker_tune(id, tune),
            (Stage::Opening, Method::ConnectionOpenOk) => self.upstream_ready(id),
            (_, Method::ConnectionClose(close)) => self.broker_refuses(id, &close),
            (_, other) => {
                let text = format!("unexpected method {:#x} in the handshake", other.id());
                self.abort_upstream(id, BROKER, &text);
            }
        }
    }

    fn broker_start(&mut self, id: UpstreamId, start: &connection::Start<'_>) {
        let farm = self.upstreams[id].farm;
        self.note_start(farm, start);
        self.member_greets(id);
        if self.upstreams[id].login.is_some() {
            self.send_start_ok(id);
            self.release_curious(farm);
            return;
        }
        self.farms[farm].learning = self.farms[farm].learning.saturating_sub(1);
        self.upstreams[id].stage = Stage::Greeted;
        self.park(id);
        self.farms[farm].greeted.push(id);
        self.release_curious(farm);
    }

    /// What a farm's broker says of itself; and it is there.
    pub(crate) fn note_start(&mut self, farm: FarmId, start: &connection::Start<'_>) {
        let state = &mut self.farms[farm];
        state.properties = Some(start.server_properties.as_bytes().to_vec());
        state.is_rabbitmq = start.server_properties.get(b"product") == Some(Value::Str(b"RabbitMQ"));
        state.default_is_classic = default_is_classic(start.server_properties);
        state.failures = 0;
        state.retry_at = None;
    }

    /// A connection that waits for its next use, for a moment.
    fn park(&mut self, id: UpstreamId) {
        let deadline = self.now + PARKED_FOR;
        self.upstreams[id].deadline = Some(deadline);
        self.arm_upstream(id, deadline);
    }

    /// connection.start-ok with the client's own credentials.
    pub(crate) fn send_start_ok(&mut self, id: UpstreamId) {
        let Some(login) = self.upstreams[id].login else { return };
        self.next_stage(id, Stage::Verifying);
        let Some(credentials) = self.logins.get(login).map(|l| l.credentials.clone()) else {
            return;
        };
        let properties = tables::client_properties(&format!("Warren worker {}", self.options.worker));
        let method = Method::ConnectionStartOk(connection::StartOk {
            client_properties: Table::from_encoded(&properties).unwrap_or(Table::EMPTY),
            mechanism: &credentials.mechanism,
            response: &credentials.response,
            locale: b"en_US",
        });
        self.tell_upstream(id, 0, method);
    }

    /// Another step of the broker's side of the handshake, with a deadline of its own.
    pub(crate) fn next_stage(&mut self, id: UpstreamId, stage: Stage) {
        let deadline = self.now + self.config.limits.handshake_timeout;
        let upstream = &mut self.upstreams[id];
        upstream.stage = stage;
        upstream.deadline = Some(deadline);
        self.arm_upstream(id, deadline);
    }

    /// The broker has accepted the credentials and offers these limits. `false`: they are of no use.
    pub(crate) fn note_tune(&mut self, id: UpstreamId, tune: connection::Tune) -> bool {
        if tune.frame_max != 0 && tune.frame_max < FRAME_MIN_SIZE {
            self.abort_upstream(id, BROKER, "it offers frames smaller than AMQP allows");
            return false;
        }
        let tune =
            Tune { channel_max: tune.channel_max, frame_max: tune.frame_max, heartbeat: tune.heartbeat };
        let upstream = &mut self.upstreams[id];
        self.balance.worked(upstream.backend);
        upstream.tune = tune;
        self.farms[upstream.farm].tune = tune;
        true
    }

    /// connection.tune-ok and connection.open in one write.
    pub(crate) fn send_open(&mut self, id: UpstreamId, tune: Tune, vhost: &str) {
        self.next_stage(id, Stage::Opening);
        let ok = connection::TuneOk {
            channel_max: tune.channel_max,
            frame_max: tune.frame_max,
            heartbeat: tune.heartbeat,
        };
        self.tell_upstream(id, 0, Method::ConnectionTuneOk(ok));
        let open = connection::Open { virtual_host: vhost.as_bytes() };
        self.tell_upstream(id, 0, Method::ConnectionOpen(open));
    }

    fn broker_tune(&mut self, id: UpstreamId, tune: connection::Tune) {
        if !self.note_tune(id, tune) {
            return;
        }
        let upstream = &mut self.upstreams[id];
        let Some(login) = upstream.login else { return };
        if upstream.tenant.is_some() {
            self.open_vhost(id);
        } else {
            upstream.stage = Stage::Verified;
            self.end_inquiry(id);
            self.park(id);
            if let Some(state) = self.logins.get_mut(login) {
                state.parked = Some(id);
            }
        }
        if let Some(state) = self.logins.get_mut(login) {
            state.verifying = state.verifying.filter(|u| *u != id);
        }
        self.login_verified(login);
    }

    /// The virtual host that a pool is for is asked for.
    pub(crate) fn open_vhost(&mut self, id: UpstreamId) {
        let upstream = &self.upstreams[id];
        let Some(tenant) = upstream.tenant else { return };
        let tune = upstream.tune;
        let vhost = self.tenants.get(tenant).map(|t| t.vhost.clone()).unwrap_or_default();
        self.send_open(id, tune, &vhost);
    }

    fn upstream_ready(&mut self, id: UpstreamId) {
        let now = self.now;
        let upstream = &mut self.upstreams[id];
        upstream.stage = Stage::Ready;
        upstream.deadline = None;
        upstream.tries = None;
        upstream.idle_since = now;
        self.end_inquiry(id);
        self.end_dial(id);
        let upstream = &mut self.upstreams[id];
        let Some(tenant) = upstream.tenant else { return };
        self.metrics.upstream_connects += 1;
        let event = Event::UpstreamOpened {
            upstream: id,
            backend: upstream.backend,
            purpose: upstream.purpose.name(),
        };
        let farm = upstream.farm;
        self.commands.push_back(Command::Event(event));
        self.schedule_upstream(id);
        self.farms[farm].failures = 0;
        if let Some(state) = self.tenants.get_mut(tenant) {
            state.proving = state.proving.filter(|u| *u != id);
        }
        self.tenant_proven(tenant);
        match self.upstreams[id].session {
            Some(session) => self.lane_ready(id, session),
            None => self.serve(tenant),
        }
    }

    /// connection.close during the handshake: wrong credentials, no such virtual host, a limit.
    fn broker_refuses(&mut self, id: UpstreamId, close: &connection::Close<'_>) {
        let upstream = &self.upstreams[id];
        let refusal = Refusal {
            code: close.reply_code,
            text: close.reply_text.to_vec(),
            class: close.class_id,
            method: close.method_id,
            at: self.now,
        };
        self.balance.worked(upstream.backend); // it has answered
        let (stage, login, tenant) = (upstream.stage, upstream.login, upstream.tenant);
        let proving = tenant.and_then(|t| self.tenants.get(t)).is_some_and(|t| t.proving == Some(id));
        self.tell_upstream(id, 0, Method::ConnectionCloseOk);
        let text = String::from_utf8_lossy(close.reply_text).into_owned();
        // A limit may be lifted, or others may leave. What else is refused stays refused: a virtual host that is gone, a
        // right that was taken.
        let limited = stage == Stage::Opening && text.contains("limit") && !proving;
        if limited {
            // One connection more was refused (a limit, perhaps): those who wait for it ask again after a pause.
            self.attempt_failed(id, &text);
        }
        self.detach_upstream(id);
        self.end_upstream(id, REFUSED, &text);
        self.inquiry_refused(id);
        // Brokers may be slow to end the socket, and there may be many of them.
        let deadline = self.now + self.config.limits.refusal_pause;
        self.upstreams[id].deadline = Some(deadline);
        self.arm_upstream(id, deadline);
        match (stage, login, tenant) {
            (Stage::Verifying, Some(login), _) => self.login_refused(login, &refusal),
            (_, _, Some(tenant)) if !limited => self.tenant_refused(tenant, &refusal),
            _ => {}
        }
    }

    /// Whoever counted on a connection that is not ready yet counts on it no more.
    pub(crate) fn detach_upstream(&mut self, id: UpstreamId) {
        let upstream = &self.upstreams[id];
        let (farm, backend) = (upstream.farm, upstream.backend);
        let (login, tenant, session) = (upstream.login, upstream.tenant, upstream.session);
        let learns = login.is_none() && upstream.purpose != Purpose::Dedicated;
        if learns && matches!(upstream.stage, Stage::Connecting | Stage::Greeting) {
            self.farms[farm].learning = self.farms[farm].learning.saturating_sub(1);
        }
        self.farms[farm].greeted.retain(|u| *u != id);
        if let Some(login) = login.and_then(|l| self.logins.get_mut(l)) {
            login.verifying = login.verifying.filter(|u| *u != id);
            login.parked = login.parked.filter(|u| *u != id);
        }
        if let Some(tenant) = tenant.and_then(|t| self.tenants.get_mut(t)) {
            tenant.proving = tenant.proving.filter(|u| *u != id);
            if let Some(node) = tenant.nodes.get_mut(&backend) {
                node.upstreams.retain(|u| *u != id);
            }
        }
        if let Some(session) = session.and_then(|s| self.sessions.get_mut(s))
            && session.lane == Some(id)
        {
            session.lane = None;
        }
    }

    /// A broker's socket is gone.
    pub(crate) fn upstream_gone(&mut self, id: UpstreamId, why: Gone) {
        let Some(upstream) = self.upstreams.get(id) else {
            return;
        };
        let text = match why {
            Gone::Closed => "the broker closed the socket".to_owned(),
            Gone::Failed(text) => text,
        };
        let stage = upstream.stage;
        match stage {
            Stage::Ended => {}
            Stage::Closing | Stage::Ready => self.lose_upstream(id, LOST, &text, None),
            _ if upstream.purpose == Purpose::Dedicated => self.lose_own_attempt(id, LOST, &text),
            _ => {
                let text = if stage == Stage::Verifying {
                    format!("{text} while it checked the credentials")
                } else {
                    text
                };
                let asks = |l: &LoginId| {
                    let asked = self.logins.get(*l).is_some_and(|l| l.verifying == Some(id));
                    stage == Stage::Verifying && asked && !self.login_is_fresh(*l)
                };
                let login = self.upstreams[id].login.filter(asks);
                let text = if login.is_none() { self.try_failed(id, &text) } else { text };
                self.detach_upstream(id);
                self.upstreams[id].ending.get_or_insert((LOST, text));
                if let Some(login) = login {
                    self.login_lost(login);
                    self.wheel.schedule(self.now + RETRY_LOST, TimerKey::Login(login));
                }
            }
        }
        self.remove_upstream(id);
    }

    fn remove_upstream(&mut self, id: UpstreamId) {
        self.end_inquiry(id);
        self.end_dial(id);
        let Some(upstream) = self.upstreams.remove(id) else {
            return;
        };
        let (reason, why) = upstream.ending.unwrap_or((LOST, "ended".into()));
        self.metrics.upstream_closes[reason] += 1;
        let expected = matches!(reason, IDLE | SHUTDOWN | REFUSED);
        let (backend, purpose) = (upstream.backend, upstream.purpose.name());
        let event = Event::UpstreamEnded { upstream: id, backend, purpose, why, expected };
        self.commands.push_back(Command::Event(event));
        self.tell_unblocked();
        if let Some(session) = upstream.session {
            self.check_leaving(session);
        }
        if let Some(tenant) = upstream.tenant {
            self.serve(tenant);
            self.tenant_timer(tenant);
        }
        // A session that has got another secret meanwhile waits elsewhere.
        let moved = upstream.session.and_then(|s| self.sessions.get(s)).and_then(|s| s.tenant);
        if let Some(tenant) = moved.filter(|_| moved != upstream.tenant) {
            self.serve(tenant);
        }
        if let Some(login) = upstream.login {
            self.login_timer(login);
        }
    }

    /// What is left in the outbox is written, then the socket ends.
    pub(crate) fn end_upstream(&mut self, id: UpstreamId, reason: usize, text: &str) {
        if let Some(upstream) = self.upstreams.get_mut(id)
            && upstream.stage != Stage::Ended
        {
            upstream.stage = Stage::Ended;
            upstream.deadline = None;
            upstream.ending.get_or_insert((reason, text.to_owned()));
            self.commands.push_back(Command::Close(Link::Upstream(id)));
        }
    }

    /// The connection broke a rule or a deadline: it ends at once, as if it had been lost.
    pub(crate) fn abort_upstream(&mut self, id: UpstreamId, reason: usize, text: &str) {
        let Some(upstream) = self.upstreams.get_mut(id) else {
            return;
        };
        let stage = upstream.stage;
        if stage == Stage::Ended {
            return;
        }
        if matches!(stage, Stage::Ready | Stage::Closing) {
            upstream.ending.get_or_insert((reason, text.to_owned()));
            self.lose_upstream(id, reason, text, None);
        } else if upstream.purpose == Purpose::Dedicated {
            self.lose_own_attempt(id, reason, text);
        } else {
            let text = self.try_failed(id, text);
            self.upstreams[id].ending.get_or_insert((reason, text));
            self.detach_upstream(id);
        }
        if let Some(upstream) = self.upstreams.get_mut(id) {
            upstream.stage = Stage::Ended;
            self.commands.push_back(Command::Abort(Link::Upstream(id)));
        }
    }

    /// connection.close towards a broker, when nothing uses the connection any more.
    pub(crate) fn close_upstream(&mut self, id: UpstreamId, reason: usize, text: &str) {
        let Some(upstream) = self.upstreams.get_mut(id) else {
            return;
        };
        match upstream.stage {
            Stage::Ready => {
                upstream.stage = Stage::Closing;
                upstream.ending.get_or_insert((reason, text.to_owned()));
                let deadline = self.now + self.config.limits.handshake_timeout;
                upstream.deadline = Some(deadline);
                self.arm_upstream(id, deadline);
                let close = connection::Close {
                    reply_code: 200,
                    reply_text: text.as_bytes(),
                    class_id: 0,
                    method_id: 0,
                };
                self.tell_upstream(id, 0, Method::ConnectionClose(close));
            }
            Stage::Closing | Stage::Ended => {}
            _ => {
                upstream.ending.get_or_insert((reason, text.to_owned()));
                self.detach_upstream(id);
                self.upstreams[id].stage = Stage::Ended;
                self.commands.push_back(Command::Abort(Link::Upstream(id)));
            }
        }
    }

    /// Once stopping, every upstream without work is closed.
    pub(crate) fn close_upstreams_if_stopping(&mut self) {
        if self.stopping.is_none() || !self.sessions.is_empty() {
            return;
        }
        let all: Vec<UpstreamId> = self.upstreams.keys().collect();
        for id in all {
            if self.upstreams[id].busy() == 0 {
                self.close_upstream(id, SHUTDOWN, "Warren is stopping");
            }
        }
    }

    /// An own lane for this session, or the one it has.
    pub(crate) fn want_lane(&mut self, session: SessionId) -> Option<UpstreamId> {
        let lane = self.sessions[session].lane;
        if let Some(id) = lane {
            return Some(id).filter(|id| self.upstreams[*id].stage == Stage::Ready);
        }
        let node = self.sessions[session].place()?;
        let id = self.dial_for(node)?;
        self.node_mut(node).upstreams.retain(|u| *u != id);
        self.upstreams[id].purpose = Purpose::Lane;
        self.upstreams[id].session = Some(session);
        self.sessions[session].lane = Some(id);
        None
    }
}

/// Whether a queue whose declare names no kind is a classic one: RabbitMQ before 3.11, and LavinMQ.
fn default_is_classic(properties: Table<'_>) -> bool {
    match (properties.get(b"product"), properties.get(b"version")) {
        (Some(Value::Str(b"RabbitMQ")), Some(Value::Str(version))) => {
            let version = String::from_utf8_lossy(version);
            let mut parts = version.split('.').map(|part| part.parse().unwrap_or(u32::MAX));
            (parts.next().unwrap_or(u32::MAX), parts.next().unwrap_or(u32::MAX)) < (3, 11)
        }
        (Some(Value::Str(b"LavinMQ")), _) => true,
        _ => false,
    }
}
