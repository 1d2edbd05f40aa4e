//! What time does: deadlines, heartbeats, idle connections. One wheel for all; an entry is only a hint to look, the
//! state decides.

use std::time::Duration;

use warren_wire::frame::HEARTBEAT_FRAME;
use warren_wire::reply;

use crate::api::{Command, Link};
use crate::channel::Switch;
use crate::close;
use crate::config::FarmId;
use crate::dial;
use crate::engine::Engine;
use crate::ids::{ChannelId, LoginId, SessionId, TenantId, UpChannelId, UpstreamId};
use crate::session::Phase;
use crate::time::Time;
use crate::tries::room_beside;
use crate::upstream::{Purpose, Stage};

/// What a timer looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum TimerKey {
    Session(SessionId),
    Upstream(UpstreamId),
    Channel(ChannelId),
    UpChannel(UpChannelId),
    Farm(FarmId),
    Refusal(FarmId),
    Login(LoginId),
    Tenant(TenantId),
    Watch(UpstreamId),
    /// Whoever waits for memory.
    Memory,
    /// An upstream that had no room.
    Fairness(UpstreamId),
}

impl Engine {
    pub(crate) fn run_timers(&mut self) {
        let mut expired = std::mem::take(&mut self.expired);
        self.wheel.expired(self.now, &mut expired);
        for key in expired.drain(..) {
            match key {
                TimerKey::Session(id) => self.session_timer(id),
                TimerKey::Upstream(id) => self.upstream_timer(id),
                TimerKey::Channel(id) => self.channel_timer(id),
                TimerKey::UpChannel(id) => self.up_channel_timer(id),
                TimerKey::Farm(farm) => self.farm_timer(farm),
                TimerKey::Refusal(farm) => self.refusal_timer(farm),
                TimerKey::Login(id) => {
                    self.check_login(id);
                    self.check_tenants_of(id);
                    self.login_timer(id);
                }
                TimerKey::Tenant(id) => self.tenant_timer(id),
                TimerKey::Watch(id) => self.watch_timer(id),
                TimerKey::Memory => self.watch_memory(),
                TimerKey::Fairness(id) => self.fairness_timer(id),
            }
        }
        self.expired = expired;
    }

    /// Has a session looked at by then. One entry at a time: a later one is not added.
    pub(crate) fn arm_session(&mut self, id: SessionId, at: Time) {
        if let Some(session) = self.sessions.get_mut(id)
            && session.armed.is_none_or(|armed| at < armed)
        {
            session.armed = Some(at);
            self.wheel.schedule(at, TimerKey::Session(id));
        }
    }

    /// Has an upstream looked at by then.
    pub(crate) fn arm_upstream(&mut self, id: UpstreamId, at: Time) {
        if let Some(upstream) = self.upstreams.get_mut(id)
            && upstream.armed.is_none_or(|armed| at < armed)
        {
            upstream.armed = Some(at);
            self.wheel.schedule(at, TimerKey::Upstream(id));
        }
    }

    fn session_timer(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        if session.armed.is_some_and(|at| at > self.now) {
            return;
        }
        session.armed = None;
        if session.deadline.is_some_and(|at| at <= self.now) {
            session.deadline = None;
            self.session_too_late(id);
        }
        self.session_heartbeat(id);
        let Some(session) = self.sessions.get(id) else {
            return;
        };
        let beat = half_beat(session.tune.heartbeat).filter(|_| beats(session.phase));
        let next = session.deadline.into_iter().chain(beat.map(|half| self.now + half)).min();
        if let Some(at) = next {
            self.arm_session(id, at);
        }
    }

    /// A step of the handshake, a wait or an ending has taken too long.
    fn session_too_late(&mut self, id: SessionId) {
        let session = &self.sessions[id];
        let waits = session.phase.waits();
        match session.phase {
            Phase::Greeting => self.send_start(id),
            Phase::CloseSent => self.abort_session(id, close::CLIENT, "connection.close was not answered"),
            Phase::Ended => self.commands.push_back(Command::Close(Link::Session(id))),
            Phase::Authorizing => self.auth_service_failed(id, "it did not answer in time"),
            Phase::Gone => self.left_behind(id),
            _ if waits => {
                let of_login = session.login.and_then(|l| self.logins.get(l)).map(|l| l.farm);
                let farm = session.dedicated.as_ref().map(|d| d.farm).filter(|_| of_login.is_none());
                let farm = of_login.or(farm).unwrap_or(0);
                let name = &self.config.farms[farm].name;
                let waited = self.config.limits.wait_limit.as_secs();
                let mut detail = format!("no broker of farm {name} answered within {waited} s; last error: ");
                let tried = self.what_was_tried(farm, room_beside(detail.len()));
                detail.push_str(if tried.is_empty() { "none, it is slow" } else { &tried });
                self.close_session(id, 320, &reply::text(320, &detail), (0, 0), close::UPSTREAM);
            }
            _ if session.relays() => self.relay_too_late(id),
            Phase::Running if session.rekeying.is_some() => {
                let text = reply::text(320, "no broker was there to check the new secret");
                self.close_session(id, 320, &text, (0, 0), close::UPSTREAM);
            }
            phase if phase.is_handshake() => {
                self.end_session(id, close::PROTOCOL, "the handshake took too long");
            }
            _ => {}
        }
    }

    /// Sends a heartbeat when nothing else was sent, and ends a session that is silent for two
    /// (AMQP 0-9-1 section 4.2.7). While Warren does not read a client on purpose, its silence does not count.
    fn session_heartbeat(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(id) else {
            return;
        };
        let Some(half) = half_beat(session.tune.heartbeat).filter(|_| beats(session.phase)) else {
            return;
        };
        let silent = self.now.since(session.last_received) > half * 4;
        // A dedicated client gets its broker's heartbeats.
        let quiet =
            self.now.since(session.last_sent) + Duration::from_millis(50) >= half && !session.relays();
        let (outbox_empty, may_read) = (session.outbox.is_empty(), session.may_read());
        if silent && may_read {
            let text = format!("missed heartbeats from the client, timeout: {} s", session.tune.heartbeat);
            self.abort_session(id, close::HEARTBEAT, &text);
        } else if quiet && outbox_empty && session.phase != Phase::CloseSent {
            self.send_client(id, |out| out.extend_from_slice(&HEARTBEAT_FRAME));
        }
    }

    /// Begins the heartbeats of a session that runs.
    pub(crate) fn schedule_heartbeat(&mut self, id: SessionId) {
        if let Some(half) = half_beat(self.sessions[id].tune.heartbeat) {
            self.arm_session(id, self.now + half);
        }
    }

    fn upstream_timer(&mut self, id: UpstreamId) {
        let Some(upstream) = self.upstreams.get_mut(id) else {
            return;
        };
        if upstream.armed.is_some_and(|at| at > self.now) {
            return;
        }
        upstream.armed = None;
        if upstream.deadline.is_some_and(|at| at <= self.now) {
            upstream.deadline = None;
            self.upstream_too_late(id);
        }
        self.upstream_heartbeat(id);
        self.close_if_idle(id);
        self.schedule_upstream(id);
    }

    /// Looks at an upstream again when its next deadline, heartbeat or idle time is due.
    pub(crate) fn schedule_upstream(&mut self, id: UpstreamId) {
        let Some(upstream) = self.upstreams.get(id) else {
            return;
        };
        let ready = upstream.stage == Stage::Ready;
        let beat = half_beat(upstream.tune.heartbeat).filter(|_| ready);
        let shared = !matches!(upstream.purpose, Purpose::Lane | Purpose::Dedicated);
        let idle = ready && upstream.busy() == 0 && shared;
        let idle = idle.then(|| {
            let due = upstream.idle_since + self.config.limits.idle_timeout;
            // The last one of a tenant outlives its idle time: look again later.
            if due > self.now {
                due
            } else {
                self.now + self.config.limits.idle_timeout.max(Duration::from_secs(1))
            }
        });
        let next = upstream.deadline.into_iter().chain(beat.map(|half| self.now + half)).chain(idle).min();
        if let Some(at) = next {
            self.arm_upstream(id, at);
        }
    }

    fn upstream_too_late(&mut self, id: UpstreamId) {
        let upstream = &self.upstreams[id];
        match upstream.stage {
            Stage::Greeted | Stage::Verified => self.close_upstream(id, dial::IDLE, "nobody needed it"),
            Stage::Ended => self.commands.push_back(Command::Abort(Link::Upstream(id))),
            Stage::Ready => {}
            stage => {
                let limit = self.config.limits.connect_timeout;
                let doing = match stage {
                    Stage::Connecting => "it was not connected in time".to_owned(),
                    Stage::Closing => "connection.close was not answered".to_owned(),
                    Stage::Greeting if self.has_others(id) => {
                        format!("it took the connection, and said nothing within {limit:?}")
                    }
                    _ => "the broker did not answer the handshake in time".to_owned(),
                };
                self.abort_upstream(id, dial::LOST, &doing);
            }
        }
    }

    /// A dead upstream is one that sends nothing for two heartbeats, never one that cannot be written.
    fn upstream_heartbeat(&mut self, id: UpstreamId) {
        let Some(upstream) = self.upstreams.get(id) else {
            return;
        };
        if upstream.stage != Stage::Ready {
            return;
        }
        let Some(half) = half_beat(upstream.tune.heartbeat) else {
            return;
        };
        let silent = self.now.since(upstream.last_received) > half * 4;
        let quiet = self.now.since(upstream.last_sent) + Duration::from_millis(50) >= half
            && upstream.purpose != Purpose::Dedicated;
        if silent && !upstream.held_back {
            self.abort_upstream(id, dial::HEARTBEAT, "nothing was heard from it for two heartbeats");
        } else if quiet && upstream.outbox.is_empty() {
            self.send_upstream(id, |out| out.extend_from_slice(&HEARTBEAT_FRAME));
        }
    }

    /// Closes a shared connection that nobody uses. The last one of a tenant stays while it has sessions, or had
    /// some within `auth_ttl`: the next short-lived client finds it.
    fn close_if_idle(&mut self, id: UpstreamId) {
        let Some(upstream) = self.upstreams.get(id) else {
            return;
        };
        let limits = &self.config.limits;
        let idle = upstream.stage == Stage::Ready
            && !matches!(upstream.purpose, Purpose::Lane | Purpose::Dedicated)
            && upstream.busy() == 0
            && self.now.since(upstream.idle_since) >= limits.idle_timeout;
        if !idle {
            return;
        }
        if let Some(tenant) = upstream.tenant.and_then(|t| self.tenants.get(t)) {
            let Some(node) = tenant.nodes.get(&upstream.backend) else { return };
            let used = node.sessions > 0 || self.now.since(node.last_used) < limits.auth_ttl;
            let others = node.upstreams.iter().any(|u| *u != id && self.upstreams[*u].stage == Stage::Ready);
            let waited_for = !node.waiting.is_empty() || !tenant.entering.is_empty();
            if waited_for || used && !others {
                return;
            }
        }
        self.close_upstream(id, dial::IDLE, "idle");
    }

    fn channel_timer(&mut self, id: ChannelId) {
        self.resume_settled(id);
        let Some(channel) = self.channels.get(id) else {
            return;
        };
        let waits = matches!(channel.switch, Switch::Binding { .. });
        if !waits || self.now.since(channel.waiting_since) < self.config.limits.wait_limit {
            return;
        }
        // What a client has left behind waits as long as its session says.
        if self.sessions.get(channel.session).is_none_or(|s| s.phase != Phase::Gone) {
            let waited = self.config.limits.wait_limit.as_secs();
            self.give_up_binding(id, &format!("none became free within {waited} s"));
        }
    }

    fn up_channel_timer(&mut self, id: UpChannelId) {
        let Some(state) = self.up_channels.get(id) else {
            return;
        };
        let late = state.owner.is_none() && !state.idle && state.deadline.is_some_and(|at| at <= self.now);
        if late {
            self.close_channel(id);
        }
    }
}

fn half_beat(seconds: u16) -> Option<Duration> {
    (seconds > 0).then(|| Duration::from_millis(u64::from(seconds) * 500))
}

/// Whether heartbeats go on in this phase.
fn beats(phase: Phase) -> bool {
    matches!(
        phase,
        Phase::Running
            | Phase::Leaving
            | Phase::Authorizing
            | Phase::Entering
            | Phase::Open
            | Phase::CloseSent
    )
}
