//! How a client's channel ends: by its own close, by an error, or with its session.

use warren_wire::method::{Method, channel};

use crate::channel::{Content, Mode, Standing, Switch};
use crate::config::CloseMode;
use crate::engine::Engine;
use crate::ids::{ChannelId, SessionId, UpChannelId};
use crate::session::Phase;
use crate::turns::Turns;
use crate::upstream::{Incoming, Purpose};

impl Engine {
    /// channel.close from the client, or connection.close: close-ok follows when what it published is known to
    /// have been processed.
    pub(crate) fn client_closes_channel(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        match channel.standing {
            Standing::Closing => return,
            Standing::Refused => return self.remove_channel(id),
            Standing::Open => {}
        }
        if channel.only_waits() {
            // It has lost its binding, and nothing that it has asked for is left to do on another.
            channel.switch = Switch::None;
        }
        let waits = channel.switch != Switch::None || !channel.held.is_empty() || channel.fault.is_some();
        // Closing an older binding can delete what a publish on the present one is meant for.
        if waits || !channel.older.is_empty() && self.prove_first(id) {
            // Frames that are held may complete a publish that has begun.
            self.close_later(id);
            return;
        }
        let Some(channel) = self.channels.get_mut(id) else { return };
        channel.content = Content::None;
        channel.assembly = None;
        channel.standing = Standing::Closing;
        channel.older = channel.bindings();
        channel.current = None;
        let fast = self.closes_fast(id);
        for up in self.channels[id].older.clone() {
            if fast {
                self.drop_binding(id, up);
                self.leave(up);
            } else {
                self.close_binding(id, up);
            }
        }
        self.finish_close(id);
    }

    /// What the channel sent before is on its way: its close waits its turn.
    fn close_later(&mut self, id: ChannelId) {
        let channel = &mut self.channels[id];
        let close = channel::Close { reply_code: 200, reply_text: b"", class_id: 0, method_id: 0 };
        let before = channel.held.len();
        Method::ChannelClose(close).write(channel.number, &mut channel.held);
        self.budget.note_held(channel.held.len() - before, 0);
    }

    /// Whether the route wants closes of channels that only published to be answered at once.
    fn closes_fast(&self, id: ChannelId) -> bool {
        let channel = &self.channels[id];
        let route_is_fast = self.sessions.get(channel.session).is_some_and(|s| s.close == CloseMode::Fast);
        #[cfg(feature = "sabotage")]
        let route_is_fast = route_is_fast || self.options.sabotage == crate::engine::Sabotage::SkipBarrier;
        let silent = |up: &UpChannelId| self.up_channels[*up].incoming == Incoming::None;
        route_is_fast
            && channel.older.iter().all(silent)
            && channel.consumers.is_empty()
            && channel.purpose == Purpose::Publish
            && channel.awaiting == 0
    }

    /// Gives a binding of a closing channel back, or has it prove what it has first.
    fn close_binding(&mut self, id: ChannelId, up: UpChannelId) {
        let state = &self.up_channels[up];
        let lane = self.upstreams[state.upstream].purpose == Purpose::Lane;
        if lane || state.dirty || state.mode == Mode::Tx || !state.unacked.is_empty() {
            // The close itself is the proof.
            self.close_channel(up);
        } else if state.is_routed() {
            self.drop_binding(id, up);
            self.leave(up);
        } else if !state.is_routed() && !state.barrier_is_out() {
            self.send_barrier(up);
        }
    }

    fn drop_binding(&mut self, id: ChannelId, up: UpChannelId) {
        if let Some(channel) = self.channels.get_mut(id) {
            channel.older.retain(|o| *o != up);
        }
    }

    /// A binding of a closing channel has proven what it had, by a barrier or by its confirms, or is closed.
    pub(crate) fn closing_progress(&mut self, id: ChannelId, up: UpChannelId) {
        let Some(channel) = self.channels.get(id) else {
            return;
        };
        if channel.standing != Standing::Closing {
            return;
        }
        let proven = match self.up_channels.get(up) {
            None => true,
            Some(state) if state.closing => return,
            Some(state) => state.is_routed() || state.mode == Mode::Confirm && state.is_settled(),
        };
        if proven {
            self.drop_binding(id, up);
            self.leave(up);
            self.finish_close(id);
        }
    }

    /// Answers the client's close once nothing is left of the channel.
    pub(crate) fn finish_close(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get(id) else {
            return;
        };
        if channel.standing != Standing::Closing || !channel.older.is_empty() {
            return;
        }
        self.let_others_speak(id);
        let Some(channel) = self.channels.get(id) else { return };
        let session = channel.session;
        if self.sessions.get(session).is_some_and(|s| s.phase == Phase::Running) {
            self.tell_channel(id, Method::ChannelCloseOk);
        }
        self.remove_channel(id);
    }

    /// Every binding of a channel is given back.
    pub(crate) fn leave_all(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        let bindings = channel.bindings();
        channel.older = Vec::new();
        channel.current = None;
        channel.speaking = None;
        channel.turns = Turns::default();
        for up in bindings {
            self.leave(up);
        }
    }

    /// A channel whose session has ended. What it published completely goes upstream all the same.
    pub(crate) fn abandon_channel(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        channel.standing = Standing::Closing;
        self.leave_all(id);
        self.remove_channel(id);
    }

    /// Exclusive queues that went with their last consumer are forgotten.
    pub(crate) fn forget_auto_deleted(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id).filter(|s| !s.exclusive.is_empty()) else { return };
        let channels = &self.channels;
        let open = session.channels.ids();
        session.exclusive.retain(|name, queue| {
            let consumed = |c: &ChannelId| {
                channels.get(*c).is_some_and(|c| c.consumers.iter().any(|c| *c.queue == **name))
            };
            !(queue.auto_delete && queue.consumed) || open.iter().any(consumed)
        });
    }

    /// Forgets a channel. Its number is free for the client.
    pub(crate) fn remove_channel(&mut self, id: ChannelId) {
        self.announced_is_over(id);
        let Some(channel) = self.channels.remove(id) else {
            return;
        };
        self.budget.note_held(0, channel.held.len());
        self.leave_channel(channel.session, channel.counts);
        if let Some(session) = self.sessions.get_mut(channel.session) {
            session.forget_channel(channel.number);
            if !channel.consumers.is_empty() {
                self.forget_auto_deleted(channel.session);
            }
            let Some(session) = self.sessions.get(channel.session) else { return };
            let empty = session.channels.is_empty();
            self.unhold(channel.session);
            let Some(session) = self.sessions.get(channel.session) else {
                return;
            };
            match session.phase {
                Phase::Leaving => self.check_leaving(channel.session),
                Phase::Gone if empty => self.forget_session(channel.session),
                _ => {}
            }
        }
    }
}
