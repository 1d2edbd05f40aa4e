//! Bind and release: how a client's channel gets an upstream channel, and what becomes of that one afterwards.

use std::time::Duration;

use warren_wire::method::{Method, channel, confirm, queue, tx};
use warren_wire::table::Table;

use crate::channel::{Content, Mode, Switch};
use crate::config::BackendId;
use crate::dial;
use crate::engine::Engine;
use crate::ids::{ChannelId, TenantId, UpChannelId, UpstreamId};
use crate::sources::{GOT, Sources};
use crate::switch::RESUME;
use crate::tags::TagSet;
use crate::tenant::NodeId;
use crate::timers::TimerKey;
use crate::tries::room_beside;
use crate::upstream::{Incoming, Note, Pending, Purpose, REPLY_TO, Stage, UpChannel};

/// How long a channel that nobody uses may take to prove what was sent on it.
const ORPHAN_FOR: Duration = Duration::from_secs(30);
/// Publishing connections of one tenant grow with load up to this number: a broker reads each with one process.
const MOST_PUBLISHING: usize = 4;

/// Kinds of bind, as in [`crate::metrics::BIND_KINDS`].
const REUSED: usize = 0;
const OPENED: usize = 1;
const REBOUND: usize = 2;

impl Engine {
    /// Gives a channel a binding for its purpose, at once or when its turn comes.
    pub(crate) fn request_bind(&mut self, id: ChannelId) {
        self.leave_dead_node(id);
        let Some(node) = self.channel_node(id) else {
            return;
        };
        let queue_is_empty = self.node(node).waiting.is_empty();
        if queue_is_empty && self.try_bind(node, id) {
            return;
        }
        if self.node(node).waiting.len() >= self.config.limits.pool_waiters {
            self.give_up_binding(id, "too many channels wait for the same pool");
            return;
        }
        self.wait_in_turn(node, id);
        self.channels[id].waiting_since = self.now;
        self.wheel.schedule(self.now + self.config.limits.wait_limit, TimerKey::Channel(id));
        let purpose = self.channels[id].purpose;
        if queue_is_empty {
            self.grow(node, purpose);
            self.leave_if_paused(node);
        } else {
            self.serve_node(node);
        }
    }

    /// In order; but those who had a binding and lost it come before those who never had one.
    pub(crate) fn wait_in_turn(&mut self, node: NodeId, id: ChannelId) {
        let channels = &self.channels;
        let resumes = |c: &ChannelId| channels.get(*c).is_some_and(|c| c.moved_for == RESUME);
        let waiting = &mut self.tenants[node.tenant].nodes.entry(node.backend).or_default().waiting;
        let at = if resumes(&id) { waiting.partition_point(resumes) } else { waiting.len() };
        waiting.insert(at, id);
    }

    pub(crate) fn channel_tenant(&self, id: ChannelId) -> Option<TenantId> {
        let session = self.channels.get(id)?.session;
        self.sessions.get(session)?.tenant
    }

    /// Gives the channels of a tenant that wait what there is at their nodes.
    pub(crate) fn serve(&mut self, tenant: TenantId) {
        let Some(state) = self.tenants.get(tenant) else {
            return;
        };
        let waited_for = state.nodes.iter().filter(|(_, n)| !n.waiting.is_empty());
        let waited_for: Vec<BackendId> = waited_for.map(|(backend, _)| *backend).collect();
        for backend in waited_for {
            self.serve_node(NodeId { tenant, backend });
        }
    }

    /// Gives the channels that wait at a node, in order, whatever there is, and asks for more where it is missing.
    pub(crate) fn serve_node(&mut self, node: NodeId) {
        let Some(state) = self.tenants.get_mut(node.tenant).and_then(|t| t.nodes.get_mut(&node.backend))
        else {
            return;
        };
        let mut missing: Vec<Purpose> = Vec::new();
        for id in std::mem::take(&mut state.waiting) {
            let Some(channel) = self.channels.get(id) else {
                continue;
            };
            if !matches!(channel.switch, Switch::Binding { .. }) {
                continue;
            }
            let purpose = channel.purpose;
            if missing.contains(&purpose) || !self.try_bind(node, id) {
                self.node_mut(node).waiting.push_back(id);
                if purpose != Purpose::Lane && !missing.contains(&purpose) {
                    missing.push(purpose);
                }
            }
        }
        for purpose in missing {
            self.grow(node, purpose);
        }
        self.leave_if_paused(node);
    }

    /// Opens another connection for this purpose unless one is on its way or the pool is full.
    fn grow(&mut self, node: NodeId, purpose: Purpose) {
        if purpose == Purpose::Lane {
            return;
        }
        let state = self.node(node);
        let opening = state.upstreams.iter().any(|u| {
            let u = &self.upstreams[*u];
            matches!(u.purpose, Purpose::Any) && !matches!(u.stage, Stage::Closing | Stage::Ended)
        });
        if opening || state.upstreams.len() >= self.config.limits.pool_connections {
            return;
        }
        self.dial_for(node);
    }

    fn try_bind(&mut self, node: NodeId, id: ChannelId) -> bool {
        let channel = &self.channels[id];
        let (purpose, session) = (channel.purpose, channel.session);
        let asks = matches!(purpose, Purpose::Control | Purpose::Quarantine);
        let mode = if asks { Mode::Plain } else { channel.mode };
        let found = if purpose == Purpose::Lane {
            self.want_lane(session).and_then(|lane| self.open_channel(lane)).map(|up| (up, OPENED))
        } else {
            let mut idle = self.reuse(node, purpose, mode);
            if asks {
                // Requests do not mind the mode.
                idle = idle.or_else(|| self.reuse(node, purpose, Mode::Confirm));
            }
            idle.map(|up| (up, REUSED)).or_else(|| {
                let upstream = self.least_loaded(node, purpose)?;
                self.open_channel(upstream).map(|up| (up, OPENED))
            })
        };
        let Some((up, kind)) = found else { return false };
        self.bound(id, up, kind);
        true
    }

    /// An idle clean channel of the same mode, young enough for its cached permissions.
    fn reuse(&mut self, node: NodeId, purpose: Purpose, mode: Mode) -> Option<UpChannelId> {
        for at in 0..self.node(node).upstreams.len() {
            let id = self.node(node).upstreams[at];
            loop {
                let upstream = &mut self.upstreams[id];
                if upstream.stage != Stage::Ready || upstream.purpose != purpose || upstream.held_back {
                    break;
                }
                let idle = match mode {
                    Mode::Plain => &mut upstream.idle_plain,
                    Mode::Confirm => &mut upstream.idle_confirm,
                    Mode::Tx => return None,
                };
                let Some(up) = idle.pop() else { break };
                self.up_channels[up].idle = false;
                if self.now.since(self.up_channels[up].opened_at) < self.config.limits.auth_ttl {
                    return Some(up);
                }
                self.close_channel(up);
            }
        }
        None
    }

    /// The connection of the right purpose with the fewest channels that has room; else an unused one.
    fn least_loaded(&mut self, node: NodeId, purpose: Purpose) -> Option<UpstreamId> {
        let limit = self.config.limits.upstream_channels;
        let mut best: Option<(usize, UpstreamId)> = None;
        let mut unused = None;
        let mut all_stalled = true;
        let mut count = 0;
        for &id in &self.node(node).upstreams {
            let upstream = &self.upstreams[id];
            if upstream.stage != Stage::Ready || upstream.held_back {
                continue;
            }
            if upstream.purpose == Purpose::Any {
                unused = unused.or(Some(id));
            }
            if upstream.purpose != purpose {
                continue;
            }
            count += 1;
            all_stalled &= !upstream.stalled.is_empty();
            if upstream.numbers.has_room(channel_limit(upstream.tune.channel_max, limit))
                && best.is_none_or(|(load, _)| upstream.numbers.len() < load)
            {
                best = Some((upstream.numbers.len(), id));
            }
        }
        let busy = purpose == Purpose::Publish && count > 0 && all_stalled && count < MOST_PUBLISHING;
        if busy && unused.is_none() {
            self.grow(node, purpose);
        }
        if let Some((_, id)) = best
            && (!busy || unused.is_none())
        {
            return Some(id);
        }
        if let Some(id) = unused {
            self.upstreams[id].purpose = purpose;
            return Some(id);
        }
        self.least_loaded_of_all(node, purpose)
    }

    /// With no connection for a purpose and none to be had, sharing one with another purpose is better than none.
    /// Idle channels give way.
    fn least_loaded_of_all(&mut self, node: NodeId, purpose: Purpose) -> Option<UpstreamId> {
        let state = self.node(node);
        if state.upstreams.len() < self.config.limits.pool_connections {
            return None;
        }
        let ready = |id: &&UpstreamId| {
            let upstream = &self.upstreams[**id];
            upstream.stage == Stage::Ready && !upstream.held_back
        };
        let id = *state.upstreams.iter().filter(ready).min_by_key(|id| self.upstreams[**id].busy())?;
        let limit = self.config.limits.upstream_channels;
        let upstream = &mut self.upstreams[id];
        if upstream.busy() == 0 {
            upstream.purpose = purpose;
        }
        if upstream.numbers.has_room(channel_limit(upstream.tune.channel_max, limit)) {
            return Some(id);
        }
        let idle = upstream.idle_plain.pop().or_else(|| upstream.idle_confirm.pop())?;
        self.close_channel(idle);
        None
    }

    /// channel.open upstream; frames may follow without waiting for its answer.
    fn open_channel(&mut self, upstream: UpstreamId) -> Option<UpChannelId> {
        let limit = self.config.limits.upstream_channels;
        let state = &self.upstreams[upstream];
        let room = state.numbers.has_room(channel_limit(state.tune.channel_max, limit));
        if state.stage != Stage::Ready || !room || !self.may_open_channel(upstream) {
            return None;
        }
        let up = self.up_channels.insert(UpChannel {
            upstream,
            number: 0,
            owner: None,
            closing: false,
            idle: false,
            mode: Mode::Plain,
            opened_at: self.now,
            dirty: false,
            unproven: false,
            unproven_before_barrier: false,
            risky: false,
            risky_before_barrier: false,
            busy: false,
            watched: false,
            has_refused: false,
            has_published: false,
            unconfirmed: TagSet::default(),
            barrier_after: 0,
            sources: Sources::default(),
            unacked: TagSet::starting_at(1),
            pending: [Pending::Open].into(),
            incoming: Incoming::None,
            heading: GOT,
            applied_prefetch: None,
            applied_global: None,
            discarding: false,
            deadline: None,
        });
        let number = self.upstreams[upstream].numbers.take(up);
        self.up_channels[up].number = number;
        self.tell_upstream(upstream, number, Method::ChannelOpen);
        Some(up)
    }

    fn bound(&mut self, id: ChannelId, up: UpChannelId, kind: usize) {
        let state = &mut self.up_channels[up];
        state.owner = Some(id);
        (state.has_published, state.has_refused) = (false, false); // by this owner
        let channel = &mut self.channels[id];
        let Switch::Binding { why, rebound, .. } = channel.switch else {
            return;
        };
        channel.current = Some(up);
        channel.switch = Switch::None;
        self.metrics.binds[if rebound { REBOUND } else { kind }][why] += 1;
        let publishing = self.channels[id].content != Content::None;
        self.transact_again(id, up);
        self.send_again(id);
        if !self.channels[id].held.is_empty() {
            self.replays.push_back(id);
        }
        if publishing {
            // It moved in the middle of a publish, which ends here.
            self.sync_mode(id, up);
        }
        self.move_consumers(id);
    }

    /// A channel that has transactions and has lost its binding between two of them: the next one is told tx.select
    /// before anything else, unless the client's own is to be told again.
    fn transact_again(&mut self, id: ChannelId, up: UpChannelId) {
        let channel = &self.channels[id];
        let asked = |owed: &Pending| matches!(owed, Pending::Client(tx::SELECT, ..));
        if channel.mode == Mode::Tx && !channel.again.iter().any(asked) {
            let state = &mut self.up_channels[up];
            state.pending.push_back(Pending::Own(tx::SELECT, Note::Plain, None));
            let (upstream, number) = (state.upstream, state.number);
            self.transacts(up);
            self.tell_upstream(upstream, number, Method::TxSelect);
        }
    }

    /// The mode that the client selected, told upstream before the first publish that needs it.
    pub(crate) fn sync_mode(&mut self, id: ChannelId, up: UpChannelId) {
        if self.channels[id].mode == Mode::Confirm && self.up_channels[up].mode == Mode::Plain {
            self.mode_selected(up);
            let (upstream, number) = (self.up_channels[up].upstream, self.up_channels[up].number);
            let select = Method::ConfirmSelect(confirm::Select { no_wait: true });
            self.tell_upstream(upstream, number, select);
        }
    }

    /// The broker counts publishes on this channel from now on; a second select does not begin again.
    pub(crate) fn mode_selected(&mut self, up: UpChannelId) {
        let state = &mut self.up_channels[up];
        if state.mode == Mode::Plain {
            state.mode = Mode::Confirm;
            state.unconfirmed = TagSet::starting_at(1);
            state.barrier_after = 0;
        }
    }

    /// Sends what is answered only when everything before it was processed.
    pub(crate) fn send_barrier(&mut self, up: UpChannelId) {
        let state = &mut self.up_channels[up];
        state.unproven_before_barrier |= std::mem::take(&mut state.unproven);
        state.risky_before_barrier |= std::mem::take(&mut state.risky);
        state.barrier_after = state.unconfirmed.next() - 1;
        state.pending.push_back(Pending::Barrier);
        let (upstream, number) = (state.upstream, state.number);
        self.metrics.barriers += 1;
        let barrier = if self.farms[self.upstreams[upstream].farm].is_rabbitmq {
            Method::ChannelFlow(channel::Flow { active: true })
        } else {
            Method::QueueDeclare(queue::Declare {
                queue: REPLY_TO,
                passive: true,
                durable: false,
                exclusive: false,
                auto_delete: false,
                no_wait: false,
                arguments: Table::EMPTY,
            })
        };
        self.tell_upstream(upstream, number, barrier);
    }

    /// A binding's client is done with it: the channel is kept if it is clean, once it is proven; closed if not.
    pub(crate) fn leave(&mut self, up: UpChannelId) {
        let Some(state) = self.up_channels.get_mut(up) else {
            return;
        };
        if let Some(channel) = state.owner.take().and_then(|o| self.channels.get_mut(o)) {
            channel.turns.forget_unfinished(up);
        }
        if state.closing {
            return;
        }
        let lane = self.upstreams[state.upstream].purpose == Purpose::Lane;
        let state = &mut self.up_channels[up];
        if lane || state.dirty || state.mode == Mode::Tx || !state.unacked.is_empty() {
            self.close_channel(up);
            return;
        }
        #[cfg(feature = "sabotage")]
        if self.options.sabotage == crate::engine::Sabotage::ReleaseInUse {
            self.make_idle(up);
            return;
        }
        if state.is_proven() {
            self.make_idle(up);
            return;
        }
        let deadline = self.now + ORPHAN_FOR;
        state.deadline = Some(deadline);
        self.wheel.schedule(deadline, TimerKey::UpChannel(up));
        if !state.is_routed() && !state.barrier_is_out() {
            self.send_barrier(up);
        }
    }

    /// A channel without owner has proven something.
    pub(crate) fn orphan_progress(&mut self, up: UpChannelId) {
        let Some(state) = self.up_channels.get(up) else {
            return;
        };
        if state.owner.is_some() || state.closing || state.idle {
            return;
        }
        // A get that was answered after its client had gone leaves a message to settle: closing requeues it.
        if !state.unacked.is_empty() {
            self.close_channel(up);
        } else if state.is_proven() && state.incoming == Incoming::None {
            self.make_idle(up);
        }
    }

    fn make_idle(&mut self, up: UpChannelId) {
        let now = self.now;
        let state = &mut self.up_channels[up];
        let id = state.upstream;
        let old = now.since(state.opened_at) >= self.config.limits.auth_ttl;
        let upstream = &mut self.upstreams[id];
        let idle = match state.mode {
            Mode::Confirm => &mut upstream.idle_confirm,
            _ => &mut upstream.idle_plain,
        };
        if old || upstream.stage != Stage::Ready || idle.len() >= self.config.limits.idle_channels {
            self.close_channel(up);
            return;
        }
        idle.push(up);
        state.idle = true;
        state.deadline = None;
        let tenant = upstream.tenant;
        self.note_idle(id);
        if let Some(tenant) = tenant {
            self.serve(tenant);
        }
    }

    /// An upstream that nobody uses any more is closed after a time.
    fn note_idle(&mut self, id: UpstreamId) {
        let upstream = &mut self.upstreams[id];
        if upstream.busy() == 0 {
            upstream.idle_since = self.now;
            if upstream.purpose != Purpose::Lane {
                self.arm_upstream(id, self.now + self.config.limits.idle_timeout);
            }
            self.close_upstreams_if_stopping();
        }
    }

    /// channel.close upstream. Its number is free again when close-ok has come.
    pub(crate) fn close_channel(&mut self, up: UpChannelId) {
        let state = &mut self.up_channels[up];
        if state.closing {
            return;
        }
        state.closing = true;
        state.idle = false;
        let (upstream, number) = (state.upstream, state.number);
        let close = channel::Close { reply_code: 200, reply_text: b"", class_id: 0, method_id: 0 };
        self.tell_upstream(upstream, number, Method::ChannelClose(close));
    }

    /// Both sides have finished with an upstream channel.
    pub(crate) fn free_channel(&mut self, up: UpChannelId) -> Option<UpChannel> {
        let state = self.up_channels.remove(up)?;
        let Some(upstream) = self.upstreams.get_mut(state.upstream) else {
            return Some(state);
        };
        upstream.numbers.release(state.number);
        if state.idle {
            upstream.idle_plain.retain(|u| *u != up);
            upstream.idle_confirm.retain(|u| *u != up);
        }
        let (tenant, login) = (upstream.tenant, upstream.login);
        self.channels_freed(login, 1);
        self.note_idle(state.upstream);
        if let Some(tenant) = tenant {
            self.serve(tenant);
        }
        Some(state)
    }

    /// A channel waited too long for a binding: 506 (RESOURCE_ERROR, AMQP section 1.2) when there is a connection but
    /// no room on it, 320 when there is none.
    pub(crate) fn give_up_binding(&mut self, id: ChannelId, why: &str) {
        let Some(channel) = self.channels.get(id) else {
            return;
        };
        let session = channel.session;
        let tenant = self.sessions.get(session).and_then(|s| s.tenant);
        let mut detail = format!("no upstream channel for channel {}: {why}", channel.number);
        let intro = "; last error: ";
        let room = room_beside(detail.len() + intro.len());
        let last = tenant.map(|t| self.what_was_tried(self.tenants[t].farm, room)).unwrap_or_default();
        if !last.is_empty() {
            detail.push_str(intro);
            detail.push_str(&last);
        }
        let ready = |u: &UpstreamId| self.upstreams[*u].stage == Stage::Ready;
        let connected = tenant.is_some_and(|t| self.tenants[t].upstreams().any(|u| ready(&u)));
        let (code, reason) =
            if connected { (506, crate::close::LIMIT) } else { (320, crate::close::UPSTREAM) };
        let text = warren_wire::reply::text(code, &detail);
        self.close_session(session, code, &text, (0, 0), reason);
    }

    /// An own lane is ready for the channels that wait for it.
    pub(crate) fn lane_ready(&mut self, lane: UpstreamId, session: crate::ids::SessionId) {
        if !self.sessions.contains_key(session) {
            self.close_upstream(lane, dial::IDLE, "its session has ended");
            return;
        }
        if let Some(tenant) = self.sessions[session].tenant {
            self.serve(tenant);
        }
    }
}

/// Channels that may be open on a connection: the broker's limit (0: none) or ours.
fn channel_limit(broker: u16, ours: u16) -> u16 {
    if broker == 0 { ours } else { broker.min(ours) }
}
