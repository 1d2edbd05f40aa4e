//! Resume after a loss: what becomes of clients when their upstream connection has died (DESIGN, "Resume after a
//! loss").
//!
//! ```text
//! publishes of confirm channels   on their way: basic.nack, each once; not begun yet: to the next binding
//! publishes without confirms      on their way: 320, as without Warren; proven before: nothing is lost
//! deliveries that are not settled come again; what the client says of the old ones is swallowed
//! requests on their way           sent again when twice is the same as once, else 320
//! consumers                       begin again with the same tag, arguments and prefetch
//! exclusive queues, open transactions  lived in the connection: 320
//! ```
//! First everybody is looked at while all is as it was; then the connection's channels go; then those who cannot go on
//! are told, and the others get another binding. Nothing is ever published twice.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use warren_wire::frame::{FRAME_BODY, FRAME_HEADER, FRAME_METHOD, HEADER_LEN, next_frame};
use warren_wire::method::{Method, basic, channel, confirm, connection, exchange, method_id, queue, tx};
use warren_wire::reply;

use crate::channel::{Channel, ConsumerState, Content, Mode, Standing, Switch};
use crate::close::UPSTREAM;
use crate::config::OnLoss;
use crate::engine::Engine;
use crate::ids::{ChannelId, SessionId, UpChannelId, UpstreamId};
use crate::quota::is_channel_limit;
use crate::session::Phase;
use crate::switch::RESUME;
use crate::timers::TimerKey;
use crate::upstream::{Incoming, Note, Pending, Purpose, Stage, UpChannel};

/// A publisher without confirms that was silent for so long has its publishes proven: then a loss does not concern it.
const PAUSE: Duration = Duration::from_millis(100);
/// Who did what cost others their connection has shown it by then.
const SUSPECT_FOR: Duration = Duration::from_secs(60);

/// A binding whose upstream channel is gone, and what was known of it.
pub(crate) struct Lost {
    up: UpChannelId,
    state: UpChannel,
    /// It was the one that its channel was using.
    current: bool,
}

/// Complete publishes of which nothing was written yet, and how many there are, by channel number. A number that was used
/// again means its last owner.
#[derive(Default)]
struct Unsent(BTreeMap<u16, (Vec<u8>, u64)>);

impl Unsent {
    /// Sorts whole frames. Contents that were begun before them, and everything but publishes, are left out: requests
    /// are known from the record, and acks of what is lost mean nothing.
    fn of(frames: &[u8]) -> Unsent {
        let mut unsent = Unsent::default();
        let mut publishing = BTreeSet::new();
        let mut at = 0;
        while let Ok(Some(frame)) = next_frame(frames, at, u32::MAX) {
            at = frame.end;
            let number = frame.channel;
            if frame.kind == FRAME_METHOD {
                let method = method_id(frame.payload(frames));
                match method == Some(basic::PUBLISH) {
                    true => _ = publishing.insert(number),
                    false => _ = publishing.remove(&number),
                }
                if method == Some(channel::OPEN) {
                    // What stands before it is another's, whose channel the broker has closed meanwhile.
                    unsent.0.remove(&number);
                }
            }
            if publishing.contains(&number) && matches!(frame.kind, FRAME_METHOD | FRAME_HEADER | FRAME_BODY)
            {
                let (bytes, count) = unsent.0.entry(number).or_default();
                bytes.extend_from_slice(&frames[frame.start..frame.end]);
                *count += u64::from(frame.kind == FRAME_METHOD);
            }
        }
        unsent
    }
}

impl Engine {
    /// A connection that was ready is lost, with everything that was on it. `close`: the broker's own close.
    pub(crate) fn lose_upstream(
        &mut self,
        id: UpstreamId,
        reason: usize,
        text: &str,
        close: Option<&connection::Close<'_>>,
    ) {
        let Some(upstream) = self.upstreams.get_mut(id) else {
            return;
        };
        if upstream.purpose == Purpose::Dedicated {
            return self.lose_own(id, reason, text);
        }
        upstream.ending.get_or_insert((reason, text.to_owned()));
        upstream.stage = Stage::Ended;
        let mut unsent = Unsent::of(&upstream.outbox.take_unbegun());
        let stalled: Vec<SessionId> = upstream.stalled.drain(..).collect();
        let lane_of = upstream.session.filter(|_| upstream.purpose == Purpose::Lane);
        let name = &self.config.backends[upstream.backend].name;
        let told = reply::text(320, &format!("the connection to broker {name} was lost: {text}"));

        let owned = self.owned(id);
        let mut doomed: BTreeSet<SessionId> = owned
            .iter()
            .filter(|(c, up)| self.is_doomed(*c, *up))
            .map(|(c, _)| self.channels[*c].session)
            .collect();
        doomed.extend(lane_of.filter(|s| self.loses_exclusive(*s)));
        let suspects = close.map(|close| self.suspects(&owned, close)).unwrap_or_default();

        let lost = self.take_bindings(id);
        self.detach_upstream(id);
        let guilty = suspects.first_key_value().filter(|(_, asked)| suspects.len() == 1 && **asked);
        if let (Some(close), Some((guilty, _))) = (close, guilty) {
            let text = String::from_utf8_lossy(close.reply_text).into_owned();
            self.close_session(*guilty, close.reply_code, &text, (close.class_id, close.method_id), UPSTREAM);
        }
        for session in suspects.keys() {
            if let Some(session) = self.sessions.get_mut(*session) {
                session.suspect_until = self.now + SUSPECT_FOR;
            }
        }
        for session in doomed {
            self.close_session(session, 320, &told, (0, 0), UPSTREAM);
        }
        let mut channels = BTreeSet::new();
        for (channel, lost) in lost {
            let unsent = unsent.0.remove(&lost.state.number).unwrap_or_default();
            self.resume(channel, lost, unsent);
            channels.insert(channel);
        }
        for channel in channels {
            self.rebind(channel);
        }
        if let Some(session) = lane_of {
            self.check_leaving(session);
        }
        for session in stalled {
            self.unstall(session, id);
        }
    }

    /// The channels of clients on a connection, with their bindings there.
    fn owned(&self, id: UpstreamId) -> Vec<(ChannelId, UpChannelId)> {
        let owner = |up: UpChannelId| {
            let owner = self.up_channels.get(up)?.owner?;
            self.channels.contains_key(owner).then_some((owner, up))
        };
        self.upstreams[id].numbers.all().into_iter().filter_map(owner).collect()
    }

    /// Whether what was on this binding cannot be had again: then the client is told what it would have been told
    /// without Warren.
    pub(crate) fn is_doomed(&self, id: ChannelId, up: UpChannelId) -> bool {
        let (channel, state) = (&self.channels[id], &self.up_channels[up]);
        let Some(session) = self.sessions.get(channel.session) else { return true };
        let half_told = state.incoming != Incoming::None && !state.discarding;
        let unknown = state.risky || state.risky_before_barrier;
        let may_nack = session.capabilities.basic_nack && session.on_loss == OnLoss::Nack;
        let unrepeatable = |p: &Pending| match p {
            Pending::Client(_, _, None) => true,
            // Those that are not sent again are known from the record.
            Pending::Own(request, _, None) => {
                !matches!(*request, basic::QOS | basic::CONSUME | basic::CANCEL | tx::SELECT)
            }
            _ => false,
        };
        let bound_to_it = channel
            .consumers
            .iter()
            .filter(|c| c.up == up)
            .any(|c| c.reply_to && state.has_published || c.has_lost_its_place());
        half_told
            || unknown
            || channel.tx.as_ref().is_some_and(|tx| tx.has_begun())
            || !state.unconfirmed.is_empty() && !may_nack
            || state.pending.iter().any(unrepeatable)
            || bound_to_it
    }

    /// Whether a session loses exclusive queues with its lane. One that is leaving gives them up anyway.
    fn loses_exclusive(&self, id: SessionId) -> bool {
        self.sessions.get(id).is_some_and(|s| s.phase != Phase::Leaving && !s.exclusive.is_empty())
    }

    /// Who may have made the broker close a connection: those with something on the way that its close can mean. A close
    /// names class and method, but no channel; sometimes not even these. With it: whether its client has asked for that,
    /// and not Warren in its stead.
    fn suspects(
        &self,
        owned: &[(ChannelId, UpChannelId)],
        close: &connection::Close<'_>,
    ) -> BTreeMap<SessionId, bool> {
        let mut suspects = BTreeMap::new();
        // CONNECTION_FORCED: an operator, or the end of the broker. Channels are Warren's own to count.
        if close.reply_code == 320 || is_channel_limit(close) {
            return suspects;
        }
        let meant = (u32::from(close.class_id) << 16) | u32::from(close.method_id);
        for (channel, up) in owned {
            let state = &self.up_channels[*up];
            let publishes = state.risky || state.risky_before_barrier || !state.unconfirmed.is_empty();
            let settles = matches!(meant, basic::NACK | basic::REJECT)
                && state.has_refused
                && self.is_named(*up, close.reply_text);
            let mut concerned = matches!(meant, 0 | basic::PUBLISH) && publishes || settles;
            let mut asked = concerned;
            for pending in &state.pending {
                let (request, by_client) = match pending {
                    Pending::Client(request, ..) => (*request, true),
                    // Its client did not wait for the answer; or it is one of those that Warren makes up itself.
                    Pending::Own(request, _, again) => {
                        let own = matches!(*request, basic::QOS | basic::CONSUME | basic::CANCEL);
                        (*request, again.is_some() || !own)
                    }
                    _ => continue,
                };
                concerned |= meant == 0 || request == meant;
                asked |= by_client && (meant == 0 || request == meant);
            }
            if concerned {
                *suspects.entry(self.channels[*channel].session).or_default() |= asked;
            }
        }
        suspects
    }

    /// Takes all channels of a connection away from those who use them.
    fn take_bindings(&mut self, id: UpstreamId) -> Vec<(ChannelId, Lost)> {
        let mut lost = Vec::new();
        for up in self.upstreams[id].numbers.all() {
            let owner = self.up_channels.get(up).and_then(|s| s.owner);
            let Some(state) = self.up_channels.remove(up) else { continue };
            if let Some(owner) = owner.filter(|o| self.channels.contains_key(*o)) {
                lost.push((owner, self.forget_binding(owner, up, state)));
            }
        }
        lost
    }

    pub(crate) fn forget_binding(&mut self, id: ChannelId, up: UpChannelId, state: UpChannel) -> Lost {
        let channel = &mut self.channels[id];
        let current = channel.current == Some(up);
        channel.older.retain(|o| *o != up);
        channel.current = channel.current.filter(|c| *c != up);
        channel.turns.forget_unfinished(up);
        Lost { up, state, current }
    }

    /// Notes what a channel has lost with a binding, and answers what can be answered now.
    pub(crate) fn resume(&mut self, id: ChannelId, lost: Lost, (bytes, count): (Vec<u8>, u64)) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        channel.speaking = channel.speaking.filter(|s| *s != lost.up);
        if channel.standing != Standing::Open {
            self.nack_lost(id, &lost, 0);
            // Its client is closing it: nothing is left to prove there.
            return self.binding_closed(Some(id), lost.up);
        }
        // What was published before an unbind must not come after it, and the unbind is sent again first.
        let unbinds = |p: &Pending| {
            let is = |request: &u32| matches!(*request, queue::UNBIND | exchange::UNBIND);
            matches!(p, Pending::Client(request, ..) | Pending::Own(request, ..) if is(request))
        };
        let kept = lost.current && channel.mode == Mode::Confirm && !lost.state.pending.iter().any(unbinds);
        let unsent = if kept { count } else { 0 };
        self.nack_lost(id, &lost, unsent);
        self.keep_lost(id, &lost);
        if lost.current {
            self.hold_begun(id, if unsent > 0 { bytes } else { Vec::new() }, unsent);
        }
        self.channels[id].publishes.retain(|s| s.up != lost.up);
        self.lose_consumers(id, &lost);
        self.keep_requests(id, lost.state.pending);
        self.metrics.resumes += 1;
    }

    /// basic.nack for publishes whose fate nobody knows; the last `unsent` of them have not been begun.
    fn nack_lost(&mut self, id: ChannelId, lost: &Lost, unsent: u64) {
        let begun = lost.state.unconfirmed.next() - unsent;
        self.nack(id, lost.up, lost.state.unconfirmed.iter().take_while(|t| *t < begun));
    }

    pub(crate) fn nack(&mut self, id: ChannelId, up: UpChannelId, tags: impl IntoIterator<Item = u64>) {
        for tag in tags {
            let Some(tag) = self.channels[id].publishes.to_client(up, tag) else { continue };
            self.metrics.lost_publishes += 1;
            let nack = basic::Nack { delivery_tag: tag, multiple: false, requeue: false };
            self.tell_channel(id, Method::BasicNack(nack));
        }
    }

    /// Deliveries that were not settled come again: what the client says of the old ones is swallowed.
    fn keep_lost(&mut self, id: ChannelId, lost: &Lost) {
        let channel = &mut self.channels[id];
        for tag in lost.state.unacked.iter() {
            if let Some(tag) = channel.deliveries.to_client(lost.up, tag) {
                channel.lost.insert(tag);
            }
        }
        channel.deliveries.retain(|s| s.up != lost.up);
    }

    /// Publishes that were not begun, and one that is not complete, join the frames that wait for the next binding. They
    /// are counted again when they go.
    fn hold_begun(&mut self, id: ChannelId, mut frames: Vec<u8>, unsent: u64) {
        let channel = &mut self.channels[id];
        channel.next_publish -= unsent;
        channel.publishes.truncate(channel.next_publish);
        self.metrics.published_messages -= unsent;
        if let Some(mut assembly) = channel.assembly.take() {
            frames.extend(assembly.take_bytes());
        }
        channel.content = Content::None;
        self.budget.note_held(frames.len(), 0);
        frames.append(&mut channel.held);
        channel.held = frames;
        self.announced_is_over(id);
    }

    fn lose_consumers(&mut self, id: ChannelId, lost: &Lost) {
        let asked = |tag: &[u8]| {
            let is_it =
                |p: &Pending| matches!(p, Pending::Client(_, Note::Consume { tag: t }, _) if **t == *tag);
            lost.state.pending.iter().any(is_it)
        };
        let patience = self.now + self.config.limits.wait_limit;
        let now = self.now;
        let channel = &mut self.channels[id];
        channel.consumers.retain(|c| c.up != lost.up || c.state != ConsumerState::Ending);
        for consumer in channel.consumers.iter_mut().filter(|c| c.up == lost.up) {
            if consumer.state == ConsumerState::Starting && asked(&consumer.tag) {
                continue; // its request is sent again
            }
            consumer.state = ConsumerState::Settling;
            consumer.settling = Vec::new();
            consumer.settling_until = now;
            consumer.patience = patience;
        }
        channel.recent_consumer = 0;
    }

    /// What the binding still owed: answered when the answer is known and nothing before it is open, else asked again.
    fn keep_requests(&mut self, id: ChannelId, pending: impl IntoIterator<Item = Pending>) {
        for owed in pending {
            let channel = &mut self.channels[id];
            let in_order = |p: &Pending| matches!(p, Pending::Client(..) | Pending::Local(_));
            let answer = match &owed {
                Pending::Open | Pending::Barrier => continue,
                // Known from the record, and done when they are needed.
                Pending::Own(_, Note::Consume { .. } | Note::Cancel { .. }, _)
                | Pending::Own(basic::QOS | tx::SELECT, ..) => {
                    continue;
                }
                Pending::Local(_) if channel.again.iter().any(in_order) => None,
                Pending::Local(frame) => {
                    let frame = frame.clone();
                    self.send_channel(id, |out| out.extend_from_slice(&frame));
                    continue;
                }
                _ if channel.again.iter().any(in_order) => None,
                Pending::Client(basic::QOS, ..) => Some(Method::BasicQosOk),
                Pending::Client(confirm::SELECT, ..) => Some(Method::ConfirmSelectOk),
                Pending::Client(channel::FLOW, ..) => {
                    Some(Method::ChannelFlowOk(channel::FlowOk { active: true }))
                }
                Pending::Client(_, Note::Cancel { tag }, _) => {
                    Some(Method::BasicCancelOk(basic::CancelOk { consumer_tag: tag }))
                }
                _ => None,
            };
            match answer {
                Some(answer) => {
                    channel.awaiting -= 1;
                    self.tell_channel(id, answer);
                }
                None => channel.again.push_back(owed),
            }
        }
    }

    /// Gives a channel that has lost a binding another one, if it needs one now.
    pub(crate) fn rebind(&mut self, id: ChannelId) {
        self.let_others_speak(id);
        let Some(channel) = self.channels.get_mut(id).filter(|c| c.standing == Standing::Open) else {
            return;
        };
        if channel.current.is_some() {
            self.send_again(id);
            self.requeued(id);
            self.resume_answered(id);
            return;
        }
        let (to, why) = match channel.switch {
            Switch::Binding { .. } => return,
            Switch::Proving { to, why } => (to, why),
            _ => (channel.purpose, RESUME),
        };
        let needs = channel.needs_binding() || matches!(channel.switch, Switch::Proving { .. });
        channel.switch = Switch::None;
        if needs {
            let consumes = to == Purpose::Publish && !channel.consumers.is_empty();
            self.bind_again(id, if consumes { Purpose::Mixed } else { to }, why);
        }
    }

    fn bind_again(&mut self, id: ChannelId, to: Purpose, why: usize) {
        let channel = &mut self.channels[id];
        let session = channel.session;
        let suspect = self.is_suspect(session);
        let channel = &mut self.channels[id];
        channel.purpose = if suspect { Purpose::Lane } else { to };
        channel.switch = Switch::Binding { why, rebound: true };
        channel.moved_for = why;
        self.request_bind(id);
    }

    /// On a new binding: what the lost one owed is asked again, in order.
    pub(crate) fn send_again(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        let Some(up) = channel.current.filter(|_| !channel.again.is_empty()) else { return };
        let again = std::mem::take(&mut channel.again);
        if again.iter().any(|owed| matches!(owed, Pending::Client(..))) {
            channel.awaiting_on = up;
        }
        for owed in again {
            if let Pending::Client(_, Note::Consume { tag }, _) = &owed {
                self.consumes_again(id, up, tag);
            }
            match owed {
                Pending::Client(confirm::SELECT, ..) => self.mode_selected(up),
                Pending::Client(tx::SELECT, ..) => self.transacts(up),
                _ => {}
            }
            let state = &mut self.up_channels[up];
            let frame = match &owed {
                Pending::Client(_, _, Some(frame)) | Pending::Own(_, _, Some(frame)) => frame.clone(),
                _ => {
                    state.pending.push_back(owed);
                    continue;
                }
            };
            state.pending.push_back(owed);
            self.qos_again(up, &frame);
            self.pass_frame(up, &frame);
        }
    }

    /// A prefetch that is told again is in force on this binding from here on.
    fn qos_again(&mut self, up: UpChannelId, frame: &[u8]) {
        let payload = frame.get(HEADER_LEN..frame.len().saturating_sub(1)).unwrap_or_default();
        let Ok(Method::BasicQos(qos)) = Method::parse(payload) else { return };
        let state = &mut self.up_channels[up];
        let applied = if qos.global { &mut state.applied_global } else { &mut state.applied_prefetch };
        *applied = Some(qos.prefetch_count);
        state.dirty = true;
    }

    fn consumes_again(&mut self, id: ChannelId, up: UpChannelId, tag: &[u8]) {
        let Some(at) = self.channels[id].consumer(tag) else { return };
        let consumer = &mut self.channels[id].consumers[at];
        consumer.up = up;
        let prefetch = consumer.prefetch;
        self.apply_prefetch(id, up, prefetch);
        let state = &mut self.up_channels[up];
        state.dirty = true;
        state.unproven = true;
    }

    /// Whether a session is served apart from others.
    pub(crate) fn is_suspect(&self, id: SessionId) -> bool {
        self.sessions.get(id).is_some_and(|s| self.now < s.suspect_until)
    }

    /// Has somebody look whether a publisher without confirms pauses.
    #[cold]
    pub(crate) fn watch(&mut self, up: UpChannelId) {
        let state = &mut self.up_channels[up];
        state.watched = true;
        let id = state.upstream;
        let Some(upstream) = self.upstreams.get_mut(id) else { return };
        upstream.watched.push(up);
        if upstream.watched.len() == 1 {
            self.wheel.schedule(self.now + PAUSE, TimerKey::Watch(id));
        }
    }

    /// Publishers that pause have what they published proven.
    pub(crate) fn watch_timer(&mut self, id: UpstreamId) {
        let Some(upstream) = self.upstreams.get_mut(id).filter(|u| u.stage == Stage::Ready) else { return };
        let mut watched = std::mem::take(&mut upstream.watched);
        watched.retain(|up| {
            let Some(state) = self.up_channels.get_mut(*up) else { return false };
            let goes_on = state.owner.is_some() && state.risky && std::mem::take(&mut state.busy);
            state.watched = goes_on;
            // Not in a transaction: RabbitMQ closes the connection for what comes before commit-ok.
            let provable = state.owner.is_some() && state.risky && !state.closing && state.mode != Mode::Tx;
            let pauses = !goes_on && provable;
            if pauses && !state.barrier_is_out() {
                self.send_barrier(*up);
            }
            goes_on
        });
        if !watched.is_empty() {
            self.wheel.schedule(self.now + PAUSE, TimerKey::Watch(id));
        }
        if let Some(upstream) = self.upstreams.get_mut(id) {
            upstream.watched = watched;
        }
    }
}

impl Channel {
    /// Whether something waits for a binding.
    fn needs_binding(&self) -> bool {
        !self.again.is_empty() || !self.held.is_empty() || !self.consumers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use warren_wire::content::{BasicProperties, write_content};

    fn publish(channel: u16, body: &[u8], out: &mut Vec<u8>) {
        let method = basic::Publish { exchange: b"", routing_key: b"q", mandatory: false, immediate: false };
        Method::BasicPublish(method).write(channel, out);
        write_content(channel, &BasicProperties::default(), body, 4096, out);
    }

    #[test]
    fn what_was_not_sent_is_its_owners() {
        let mut frames = Vec::new();
        // The rest of a content, whose beginning was written.
        warren_wire::content::write_body(1, b"rest", &mut frames);
        publish(1, b"another's", &mut frames);
        publish(2, b"kept", &mut frames);
        Method::ChannelCloseOk.write(1, &mut frames);
        Method::ChannelOpen.write(1, &mut frames);
        let mut own = Vec::new();
        publish(1, b"own", &mut own);
        publish(1, b"own", &mut own);
        frames.extend_from_slice(&own);
        let unsent = Unsent::of(&frames);
        assert_eq!(unsent.0.get(&1), Some(&(own, 2)));
        assert_eq!(unsent.0.get(&2).map(|u| u.1), Some(1));
    }
}
