//! How sessions end, whoever begins it.

use std::time::Duration;

use warren_wire::frame::{FRAME_METHOD, next_frame};
use warren_wire::method::{Method, basic, connection, method_id};
use warren_wire::reply;

use crate::api::{Command, Gone, Link};
use crate::channel::{Standing, Switch};
use crate::dial;
use crate::engine::Engine;
use crate::event::Event;
use crate::ids::{ChannelId, SessionId, UpChannelId};
use crate::session::Phase;
use crate::upstream::{Purpose, UpChannel};

/// Reasons, as in [`crate::metrics::CLIENT_CLOSE_REASONS`].
pub(crate) const CLIENT: usize = 0;
pub(crate) const VANISHED: usize = 1;
pub(crate) const REFUSED: usize = 2;
pub(crate) const PROTOCOL: usize = 3;
pub(crate) const UPSTREAM: usize = 4;
pub(crate) const LIMIT: usize = 5;
pub(crate) const HEARTBEAT: usize = 6;
pub(crate) const SHUTDOWN: usize = 7;

/// How long a client may take to close its socket after close-ok.
const END_WITHIN: Duration = Duration::from_secs(2);

/// How long a client may take to answer connection.close.
pub(crate) const CLOSE_OK_WITHIN: Duration = Duration::from_secs(3);

/// How long what a client had published completely before it vanished waits for a binding. Nobody is there who could be
/// told that it is lost, and it costs no more than its octets, which count in the budget.
const LEFT_BEHIND_FOR: Duration = Duration::from_secs(600);

impl Engine {
    /// Closes a session with an error: connection.close now, the socket after close-ok or a moment.
    pub(crate) fn close_session(
        &mut self,
        id: SessionId,
        code: u16,
        text: &str,
        (class_id, method_id): (u16, u16),
        reason: usize,
    ) {
        let within = self.is_within_frame(id);
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        match session.phase {
            Phase::CloseSent | Phase::Ended => return,
            Phase::Gone => {
                // Nobody is there to be told.
                self.abandon_channels(id);
                self.forget_session(id);
                return;
            }
            _ if within => {
                self.close_after_frame(id, code, text, (class_id, method_id), reason);
                return;
            }
            _ => {}
        }
        // When the process stops, the operator says how long clients may take. A handshake has nothing to lose.
        let in_time = self.stopping.is_none() || session.phase.is_handshake();
        session.phase = Phase::CloseSent;
        session.ending.get_or_insert((reason, text.to_owned()));
        session.stalled_on = None;
        session.deadline = in_time.then(|| self.now + CLOSE_OK_WITHIN);
        if let Some(deadline) = session.deadline {
            self.arm_session(id, deadline);
        }
        let text = reply::cut(text);
        let close = connection::Close { reply_code: code, reply_text: text.as_bytes(), class_id, method_id };
        self.tell_client(id, 0, Method::ConnectionClose(close));
        self.abandon_channels(id);
        self.close_lane(id);
        if let Some(session) = self.sessions.get_mut(id) {
            session.outbox_full = false;
            session.held_full = false;
            session.awaits_memory = false;
            session.reading_waits = false;
            self.commands.push_back(Command::Read(Link::Session(id)));
        }
    }

    /// Ends a session without a further word: what waits is written, then the socket ends.
    pub(crate) fn end_session(&mut self, id: SessionId, reason: usize, text: &str) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        if session.phase == Phase::Ended {
            return;
        }
        session.phase = Phase::Ended;
        session.deadline = None;
        session.ending.get_or_insert((reason, text.to_owned()));
        self.leave_place(id);
        self.abandon_channels(id);
        self.close_lane(id);
        self.commands.push_back(Command::Close(Link::Session(id)));
    }

    /// Ends a session at once: its client neither reads nor answers.
    pub(crate) fn abort_session(&mut self, id: SessionId, reason: usize, text: &str) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        session.phase = Phase::Ended;
        session.deadline = None;
        session.ending.get_or_insert((reason, text.to_owned()));
        session.outbox.clear();
        self.leave_place(id);
        self.abandon_channels(id);
        self.close_lane(id);
        self.commands.push_back(Command::Abort(Link::Session(id)));
    }

    /// connection.close from the client: everything it published is proven first.
    pub(crate) fn client_close(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        session.phase = Phase::Leaving;
        session.ending.get_or_insert((CLIENT, "closed by the client".into()));
        for channel in session.channels.ids() {
            self.client_closes_channel(channel);
        }
        self.close_lane_if_unused(id);
        self.check_leaving(id);
    }

    /// Answers the client's connection.close once nothing is left to prove.
    pub(crate) fn check_leaving(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(id) else {
            return;
        };
        if session.phase != Phase::Leaving || !session.channels.is_empty() || session.dedicated.is_some() {
            return;
        }
        if session.lane.is_some_and(|lane| self.upstreams.contains_key(lane)) {
            self.close_lane_if_unused(id);
            return;
        }
        self.tell_client(id, 0, Method::ConnectionCloseOk);
        self.await_end(id);
    }

    /// After close-ok the client closes the socket. Some clients take it for an error when the other side is faster,
    /// so it gets a moment.
    pub(crate) fn await_end(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        session.phase = Phase::Ended;
        session.ending.get_or_insert((CLIENT, "closed by the client".into()));
        let deadline = self.now + END_WITHIN;
        session.deadline = Some(deadline);
        self.arm_session(id, deadline);
        self.leave_place(id);
    }

    fn close_lane_if_unused(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(id) else {
            return;
        };
        if session.channels.is_empty() {
            self.close_lane(id);
        }
    }

    /// The own lane ends with its session: the broker deletes what was exclusive to it.
    fn close_lane(&mut self, id: SessionId) {
        self.let_go(id);
        let Some(session) = self.sessions.get(id) else { return };
        let (lane, dedicated) = (session.lane, session.dedicated.is_some());
        if let Some(lane) = lane.filter(|_| dedicated) {
            self.close_own(id, lane);
        } else if let Some(lane) = lane {
            self.close_upstream(lane, dial::IDLE, "its session has ended");
        }
    }

    /// The client's socket is gone.
    pub(crate) fn session_gone(&mut self, id: SessionId, why: Gone) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        let text = match why {
            Gone::Closed => "the client closed the socket without a word".to_owned(),
            Gone::Failed(text) => text,
        };
        session.ending.get_or_insert((VANISHED, text));
        session.outbox.clear();
        self.leave_place(id);
        self.let_go(id);
        let Some(session) = self.sessions.get_mut(id) else { return };
        let keeps_on = matches!(session.phase, Phase::Running | Phase::Leaving);
        session.phase = Phase::Gone;
        for channel in session.channels.ids() {
            let state = &self.channels[channel];
            let routed = |up: UpChannelId| self.up_channels.get(up).is_none_or(UpChannel::is_routed);
            let busy = !state.held.is_empty() || !state.older.is_empty() && !state.current.is_none_or(routed);
            if keeps_on && state.standing == Standing::Open && busy {
                // What it published completely waits for a binding: it goes on without its client.
                self.client_closes_channel(channel);
            } else {
                self.abandon_channel(channel);
            }
        }
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        if session.channels.is_empty() {
            self.forget_session(id);
        } else {
            let deadline = self.now + self.config.limits.wait_limit;
            session.deadline = Some(deadline);
            self.arm_session(id, deadline);
        }
    }

    /// A client is gone for as long as a live one would have waited. What it published completely and what still waits
    /// for a binding waits on, while there is memory for it; everything else of it ends now.
    pub(crate) fn left_behind(&mut self, id: SessionId) {
        let session = &self.sessions[id];
        let waits_on = self.now.since(session.last_received) < LEFT_BEHIND_FOR && !self.is_short();
        let mut on_lane = false;
        for channel in session.channels.ids() {
            let state = &self.channels[channel];
            let waits = matches!(state.switch, Switch::Binding { .. }) && holds_publish(&state.held);
            if waits && waits_on {
                on_lane |= state.purpose == Purpose::Lane;
                self.give_up_older(channel);
            } else {
                self.abandon_channel(channel);
            }
        }
        if !on_lane {
            self.close_lane(id);
        }
        let Some(session) = self.sessions.get_mut(id) else { return };
        let deadline = self.now + self.config.limits.wait_limit;
        session.deadline = Some(deadline);
        self.arm_session(id, deadline);
    }

    /// Gives back all bindings but the one that is waited for: what they had delivered goes back to its queues, and what
    /// is still to be said of it means nothing.
    fn give_up_older(&mut self, id: ChannelId) {
        for up in std::mem::take(&mut self.channels[id].older) {
            let channel = &mut self.channels[id];
            for tag in self.up_channels[up].unacked.iter() {
                if let Some(tag) = channel.deliveries.to_client(up, tag) {
                    channel.lost.insert(tag);
                }
            }
            channel.deliveries.retain(|s| s.up != up);
            channel.publishes.retain(|s| s.up != up);
            channel.consumers.retain(|c| c.up != up);
            channel.recent_consumer = 0;
            channel.speaking = channel.speaking.filter(|s| *s != up);
            if channel.awaiting_on == up {
                (channel.awaiting, channel.naming) = (0, 0);
            }
            self.leave(up);
        }
    }

    /// Nothing is left of a session.
    pub(crate) fn forget_session(&mut self, id: SessionId) {
        self.close_lane(id);
        let Some(session) = self.sessions.remove(id) else {
            return;
        };
        self.handshakes -= usize::from(session.knocks);
        self.give_turn_back(&session);
        let (reason, why) = session.ending.unwrap_or((VANISHED, String::new()));
        self.metrics.client_closes[reason] += 1;
        let event = Event::SessionEnded {
            session: id,
            peer: session.peer.address,
            lasted: self.now.since(session.opened_at),
            why,
        };
        self.commands.push_back(Command::Event(event));
        if let Some(tenant) = session.tenant
            && let Some(tenant_state) = self.tenants.get_mut(tenant)
        {
            tenant_state.sessions -= 1;
            tenant_state.last_used = self.now;
            self.tenant_timer(tenant);
        }
        self.leave_login(session.login);
        self.leave_login(session.rekeying);
        self.close_upstreams_if_stopping();
    }

    /// Every channel of a session is given up.
    fn abandon_channels(&mut self, id: SessionId) {
        let channels = self.sessions.get(id).map(|s| s.channels.ids()).unwrap_or_default();
        for channel in channels {
            self.abandon_channel(channel);
        }
    }
}

/// Whether a publish is among these frames, complete or not.
fn holds_publish(frames: &[u8]) -> bool {
    let mut at = 0;
    while let Ok(Some(frame)) = next_frame(frames, at, u32::MAX) {
        if frame.kind == FRAME_METHOD && method_id(frame.payload(frames)) == Some(basic::PUBLISH) {
            return true;
        }
        at = frame.end;
    }
    false
}
