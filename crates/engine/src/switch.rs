//! Rebind by choice: from one binding to another without losing, requeueing or duplicating anything.
//!
//! ```text
//! publishing:  hold frames -> barrier on the old binding -> bind the new one -> replay the held frames;
//!              the old one stays for late confirms and for deliveries that are not settled
//! consuming:   (small prefetch: wait until the client holds nothing of it) -> cancel on the old binding ->
//!              deliver until cancel-ok -> consume on the new one with the same tag and prefetch
//! ```
//! Consumers that cannot move stay on the old binding until they end: a channel can have several.

use std::time::Duration;

use warren_wire::method::{Method, basic};
use warren_wire::reply;
use warren_wire::table::Table;

use crate::channel::{Channel, Consumer, ConsumerState, Content, Mode, Standing, Switch};
use crate::engine::Engine;
use crate::ids::{ChannelId, UpChannelId};
use crate::timers::TimerKey;
use crate::upstream::{Incoming, Note, Pending, Purpose, UpChannel};

/// Reasons to bind, as in [`crate::metrics::BIND_WHYS`].
pub(crate) const FIRST_USE: usize = 0;
pub(crate) const FIRST_PUBLISH: usize = 1;
pub(crate) const CONSUME: usize = 2;
pub(crate) const OWN_LANE: usize = 3;
pub(crate) const SLOW_READER: usize = 4;
pub(crate) const TRANSACTION: usize = 5;
pub(crate) const RESUME: usize = 6;
pub(crate) const QUARANTINE: usize = 7;
pub(crate) const BUSY_PUBLISHER: usize = 8;

/// A prefetch up to this is one that the client counts on: the new binding begins only when the old one has nothing
/// unsettled, so that the client never has more than it asked for.
const SMALL_PREFETCH: u16 = 100;

/// What a consumer with a small prefetch was still given while it was being cancelled should be settled before it
/// begins again, but not for longer than this: its client may wait for more before it settles anything.
const SETTLE_WITHIN: Duration = Duration::from_secs(1);

/// What a frame needs of the binding it goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A request: any binding will do.
    Request,
    Publish,
    Consume,
    /// A request that may cost its connection.
    Quarantine,
    /// A consumer that can only be where its channel publishes: direct reply-to.
    ConsumeAndPublish,
    /// Something exclusive to the session's own connection.
    Lane,
    Transaction,
}

impl Engine {
    /// The binding for a need. `None`: the channel is on its way to one, hold the frame.
    pub(crate) fn ensure(&mut self, id: ChannelId, need: Need) -> Option<UpChannelId> {
        let channel = &self.channels[id];
        let bound = channel.current.is_some();
        let purpose = channel.purpose;
        let consuming = !channel.consumers.is_empty();
        let stays = bound && (channel.pinned || purpose == Purpose::Lane);
        // Out of quarantine as soon as nothing is left there: others may be at their risky requests.
        let clean = |up: UpChannelId| self.up_channels.get(up).is_some_and(|s| s.unacked.is_empty());
        let leaves = purpose == Purpose::Quarantine && !consuming && channel.current.is_some_and(clean);
        let (fits, to, why) = match need {
            Need::Request => (bound && !leaves, Purpose::Control, FIRST_USE),
            Need::Publish => {
                let to = if consuming { Purpose::Mixed } else { Purpose::Publish };
                (stays || bound && matches!(purpose, Purpose::Publish | Purpose::Mixed), to, FIRST_PUBLISH)
            }
            Need::Consume => {
                let to = if bound && !leaves { Purpose::Mixed } else { Purpose::Control };
                let serves = matches!(purpose, Purpose::Control | Purpose::Mixed | Purpose::Quarantine);
                (stays || bound && serves && !leaves, to, CONSUME)
            }
            Need::Quarantine => {
                (stays || bound && purpose == Purpose::Quarantine, Purpose::Quarantine, QUARANTINE)
            }
            Need::ConsumeAndPublish => (stays || bound && purpose == Purpose::Mixed, Purpose::Mixed, CONSUME),
            Need::Lane => (bound && purpose == Purpose::Lane, Purpose::Lane, OWN_LANE),
            // A transaction stays where it began, and what is exclusive may come into it: on a lane it has both.
            Need::Transaction => (bound && purpose == Purpose::Lane, Purpose::Lane, TRANSACTION),
        };
        if !fits {
            // A session that may have cost others their connection is served apart, and so are transactions.
            let suspect = self.is_suspect(self.channels[id].session);
            let apart = suspect || self.channels[id].mode == Mode::Tx;
            self.begin_switch(id, if apart { Purpose::Lane } else { to }, why);
        }
        let channel = self.channels.get(id)?;
        let up = channel.current.filter(|_| channel.flows())?;
        if need == Need::Publish {
            self.sync_mode(id, up);
        }
        Some(up)
    }

    /// Begins to move a channel to a binding for another purpose. Frames are held until it is there.
    pub(crate) fn begin_switch(&mut self, id: ChannelId, to: Purpose, why: usize) {
        let current = self.channels[id].current;
        match current {
            Some(up) if !self.up_channels[up].is_routed() => {
                self.channels[id].switch = Switch::Proving { to, why };
                if !self.up_channels[up].barrier_is_out() {
                    self.send_barrier(up);
                }
            }
            _ => self.switch_now(id, to, why),
        }
    }

    /// The old binding has proven what it had: on to the next.
    pub(crate) fn switch_now(&mut self, id: ChannelId, to: Purpose, why: usize) {
        let channel = &mut self.channels[id];
        let old = channel.current.take();
        channel.purpose = to;
        channel.switch = Switch::Binding { why, rebound: old.is_some() };
        channel.moved_for = why;
        if let Some(old) = old {
            channel.older.push(old);
            self.retire_if_done(id, old);
        }
        self.request_bind(id);
    }

    /// Lets an older binding go once nothing is left on it.
    pub(crate) fn retire_if_done(&mut self, id: ChannelId, up: UpChannelId) {
        let Some(channel) = self.channels.get(id) else { return };
        if channel.current == Some(up) || channel.standing != Standing::Open {
            return;
        }
        self.move_consumers(id);
        let (Some(channel), Some(state)) = (self.channels.get_mut(id), self.up_channels.get(up)) else {
            return;
        };
        let done = state.unacked.is_empty()
            && state.incoming == Incoming::None
            && state.unconfirmed.is_empty()
            && !channel.consumes_on(up)
            && !state.pending.iter().any(|p| matches!(p, Pending::Client(..) | Pending::Local(_)))
            && channel.speaking != Some(up)
            && !channel.turns.has(up)
            && channel.switch != Switch::Requeueing;
        if done && channel.older.contains(&up) {
            channel.older.retain(|o| *o != up);
            let older = channel.older.clone();
            let current = channel.current;
            let known = |u: UpChannelId| Some(u) == current || older.contains(&u);
            channel.deliveries.retain(|s| known(s.up));
            channel.publishes.retain(|s| known(s.up));
            self.leave(up);
        }
    }

    /// A barrier has come back on a channel's binding.
    pub(crate) fn barrier_back(&mut self, id: ChannelId, up: UpChannelId) {
        let channel = &mut self.channels[id];
        if self.up_channels[up].pending.iter().any(|p| matches!(p, Pending::Barrier)) {
            return; // this one proved less: it was sent when the publisher paused
        }
        match channel.switch {
            Switch::Proving { to, why } if channel.current == Some(up) => self.switch_now(id, to, why),
            Switch::ProvingFirst if channel.current == Some(up) => {
                channel.switch = Switch::None;
                self.replays.push_back(id);
            }
            _ => self.requeued(id),
        }
    }

    /// A message was given back on an older binding: what comes next may ask for it, and must not overtake that.
    pub(crate) fn requeue_first(&mut self, id: ChannelId, up: UpChannelId) {
        let channel = &mut self.channels[id];
        let free = matches!(channel.switch, Switch::None | Switch::Awaiting | Switch::Requeueing);
        if channel.current == Some(up) || !channel.older.contains(&up) || !free {
            return;
        }
        channel.switch = Switch::Requeueing;
        self.send_barrier(up);
    }

    /// Goes on once all that was given back on older bindings is back in its queues.
    pub(crate) fn requeued(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(id).filter(|c| c.switch == Switch::Requeueing) else {
            return;
        };
        let proves = |s: &UpChannel| s.pending.iter().any(|p| matches!(p, Pending::Barrier));
        if channel.older.iter().any(|up| self.up_channels.get(*up).is_some_and(proves)) {
            return;
        }
        channel.switch = Switch::Awaiting;
        for up in channel.older.clone() {
            self.retire_if_done(id, up);
        }
        self.resume_answered(id);
    }

    /// Begins to move what can be moved to the current binding.
    pub(crate) fn move_consumers(&mut self, id: ChannelId) {
        self.resume_settled(id);
        let Some(channel) = self.channels.get(id) else { return };
        let Some(current) = channel.current else { return };
        // A slow reader's consumers go at once: what they hold is what the client does not read.
        let urgent = channel.moved_for == SLOW_READER;
        let moves: Vec<usize> = (0..channel.consumers.len())
            .filter(|at| {
                let c = &channel.consumers[*at];
                c.up != current
                    && self.up_channels.contains_key(c.up)
                    && c.state == ConsumerState::Active
                    && self.is_movable(id, c)
                    && (urgent || self.may_leave(c))
                    && !self.is_held_elsewhere(channel, c)
            })
            .collect();
        for at in moves {
            let consumer = &mut self.channels[id].consumers[at];
            consumer.state = ConsumerState::Cancelling;
            let (tag, up) = (consumer.tag.clone(), consumer.up);
            let state = &mut self.up_channels[up];
            state.pending.push_back(Pending::Own(basic::CANCEL, Note::Cancel { tag: tag.clone() }, None));
            let (upstream, number) = (state.upstream, state.number);
            let cancel = basic::Cancel { consumer_tag: &tag, no_wait: false };
            self.tell_upstream(upstream, number, Method::BasicCancel(cancel));
        }
    }

    /// Whether a consumer may go now. One with a small prefetch goes when its client holds nothing of it: a client
    /// that waits for more before it settles what it holds must get more.
    fn may_leave(&self, consumer: &Consumer) -> bool {
        let small = consumer.prefetch.is_some_and(|p| p > 0 && p <= SMALL_PREFETCH);
        let held = |s: &UpChannel| !s.sources.outstanding(consumer.source, &s.unacked).is_empty();
        !small || consumer.no_ack || !self.up_channels.get(consumer.up).is_some_and(held)
    }

    /// Whether a client still holds what a consumer with a small prefetch has delivered before it moved last. Then it
    /// stays: with each move its client could come to hold as much again.
    fn is_held_elsewhere(&self, channel: &Channel, consumer: &Consumer) -> bool {
        let small = consumer.prefetch.is_some_and(|p| p > 0 && p <= SMALL_PREFETCH);
        let held = |up: &UpChannelId| {
            let state = self.up_channels.get(*up).filter(|_| *up != consumer.up);
            state.is_some_and(|s| !s.sources.outstanding(consumer.source, &s.unacked).is_empty())
        };
        small && !consumer.no_ack && channel.older.iter().any(held)
    }

    /// Whether a consumer can be cancelled and begun again: its queue is known to outlive its last consumer.
    fn is_movable(&self, id: ChannelId, consumer: &Consumer) -> bool {
        !consumer.fixed && self.lasts(id, &consumer.queue)
    }

    /// Whether a queue is known to outlive its last consumer.
    pub(crate) fn lasts(&self, id: ChannelId, queue: &[u8]) -> bool {
        self.known(id).is_some_and(|k| k.lasting.contains(queue))
    }

    /// cancel-ok for a consumer that is being moved: it begins again on the current binding.
    pub(crate) fn consumer_cancelled(&mut self, id: ChannelId, up: UpChannelId, at: usize) {
        let consumer = &mut self.channels[id].consumers[at];
        let small = consumer.prefetch.is_some_and(|p| p > 0 && p <= SMALL_PREFETCH);
        consumer.state = ConsumerState::Settling;
        consumer.settling_until = self.now;
        if small && !consumer.no_ack {
            let state = &self.up_channels[up];
            consumer.settling = state.sources.outstanding(consumer.source, &state.unacked);
        }
        if !consumer.settling.is_empty() {
            consumer.settling_until = self.now + SETTLE_WITHIN;
            self.wheel.schedule(self.now + SETTLE_WITHIN, TimerKey::Channel(id));
        }
        self.retire_if_done(id, up);
    }

    /// Consumers that waited until what their old binding had delivered was settled begin again.
    pub(crate) fn resume_settled(&mut self, id: ChannelId) {
        let mut left = Vec::new();
        loop {
            // Nothing may be sent between tx.commit and its answer.
            let free = |c: &&Channel| c.current.is_some() && (c.tx.is_none() || c.awaiting == 0);
            let Some(channel) = self.channels.get(id).filter(free) else { return };
            let settled = |c: &Consumer| {
                let open = |tag: &u64| self.up_channels.get(c.up).is_some_and(|s| s.unacked.contains(*tag));
                let done = !c.settling.is_empty() && !c.settling.iter().any(open);
                c.state == ConsumerState::Settling && (c.settling_until <= self.now || done)
            };
            let Some(at) = channel.consumers.iter().position(settled) else { break };
            left.push(channel.consumers[at].up);
            self.begin_consumer(id, at);
        }
        for up in left {
            self.retire_if_done(id, up);
        }
    }

    /// basic.consume on the current binding for a consumer that the client has already.
    fn begin_consumer(&mut self, id: ChannelId, at: usize) {
        let channel = &mut self.channels[id];
        let Some(up) = channel.current else { return };
        let prefetch = channel.consumers[at].prefetch;
        self.apply_prefetch(id, up, prefetch);
        let consumer = &mut self.channels[id].consumers[at];
        consumer.up = up;
        consumer.state = ConsumerState::Starting;
        consumer.replayed = true;
        let state = &mut self.up_channels[up];
        state.dirty = true;
        state.unproven = true;
        let note = Note::Consume { tag: consumer.tag.clone() };
        let arguments = consumer.arguments_again();
        state.pending.push_back(Pending::Own(basic::CONSUME, note, None));
        let method = Method::BasicConsume(basic::Consume {
            queue: &consumer.queue,
            consumer_tag: &consumer.tag,
            no_local: consumer.no_local,
            no_ack: consumer.no_ack,
            exclusive: consumer.exclusive,
            no_wait: false,
            arguments: Table::from_encoded(&arguments).unwrap_or(Table::EMPTY),
        });
        let (upstream, number) = (state.upstream, state.number);
        if let Some(upstream) = self.upstreams.get_mut(upstream) {
            upstream.outbox.write_with(|out| method.write(number, out));
        }
        self.flush_upstream(upstream);
    }

    /// basic.qos before a consumer, when the binding does not have that prefetch already (BROKER-FACTS: it applies
    /// to later consumers only, and a fresh channel does not always have 0).
    pub(crate) fn apply_prefetch(&mut self, id: ChannelId, up: UpChannelId, prefetch: Option<u16>) {
        let global = self.channels[id].global_prefetch;
        let state = &mut self.up_channels[up];
        let (upstream, number) = (state.upstream, state.number);
        let mut wanted = Vec::new();
        if let Some(count) = global
            && state.applied_global != global
        {
            state.applied_global = global;
            wanted.push((count, true));
        }
        // A consumer from before any basic.qos has no limit, whatever the binding was told since.
        let prefetch = prefetch.or(state.applied_prefetch.map(|_| 0));
        if let Some(count) = prefetch
            && state.applied_prefetch != prefetch
        {
            state.applied_prefetch = prefetch;
            wanted.push((count, false));
        }
        for (prefetch_count, global) in wanted {
            let state = &mut self.up_channels[up];
            state.dirty = true;
            state.pending.push_back(Pending::Own(basic::QOS, Note::Plain, None));
            let qos = basic::Qos { prefetch_size: 0, prefetch_count, global };
            self.tell_upstream(upstream, number, Method::BasicQos(qos));
        }
    }

    /// Octets for a channel that wait until another binding has finished its content.
    fn withheld(&self, id: ChannelId) -> usize {
        let Some(channel) = self.channels.get(id) else { return 0 };
        channel.turns.octets()
    }

    /// A session that does not read: what it consumes on shared connections moves to an own lane, where TCP holds
    /// the broker back. Beyond the session's budget it ends.
    pub(crate) fn slow_reader(&mut self, id: crate::ids::SessionId) {
        let Some(session) = self.sessions.get(id) else {
            return;
        };
        let withheld: usize = session.channels.ids().iter().map(|c| self.withheld(*c)).sum();
        let waiting = session.outbox.len() + withheld;
        if waiting > self.budget.room.session_budget {
            let detail = format!("{waiting} octets wait for a client that does not read fast enough");
            let text = reply::text(506, &detail);
            self.close_session(id, 506, &text, (0, 0), crate::close::LIMIT);
            return;
        }
        for channel in session.channels.ids() {
            let Some(state) = self.channels.get(channel) else { continue };
            let active = |c: &Consumer| c.state == ConsumerState::Active && self.is_movable(channel, c);
            let movable = state.consumers.iter().any(active);
            let free = state.flows() && !state.pinned && state.content == Content::None;
            if movable && free && state.purpose != Purpose::Lane {
                self.begin_switch(channel, Purpose::Lane, SLOW_READER);
            }
        }
    }
}
