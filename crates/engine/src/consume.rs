//! Consumers and what they deliver: consume, cancel, ack, nack, reject, recover.

use warren_wire::frame::{FRAME_METHOD, Frame, HEADER_LEN, get_u64, put_u64, set_channel};
use warren_wire::method::{Method, basic, method_id};

use crate::channel::{Consumer, ConsumerState, Switch};
use crate::client::Flow;
use crate::engine::Engine;
use crate::fault::Fault;
use crate::flow::To;
use crate::handshake::split;
use crate::ids::{ChannelId, UpChannelId};
use crate::risks::Risk;
use crate::streams::Reading;
use crate::switch::Need;
use crate::upstream::Note;

/// Direct reply-to: its consumer is only a name on the channel.
const REPLY_TO: &[u8] = b"amq.rabbitmq.reply-to";
/// Where the delivery tag stands in the payload of ack, nack and reject.
const TAG_AT: usize = 4;

/// Where the bits stand in a frame of ack or nack.
const BITS_AT: usize = HEADER_LEN + TAG_AT + 8;
/// A bit that AMQP leaves unused: of a settlement that was held and means all that was written to its client, and so all
/// up to the tag that was last when it came.
const ALL_THROUGH: u8 = 0x80;

/// A settlement of all there is (ack or nack of 0, multiple) that is held must not cover what is delivered later.
pub(crate) fn bound_settlement(frame: &mut [u8], last: u64) {
    let method = method_id(frame.get(HEADER_LEN..).unwrap_or_default());
    let settles = frame.first() == Some(&FRAME_METHOD) && matches!(method, Some(basic::ACK | basic::NACK));
    if settles
        && frame.len() == BITS_AT + 2
        && frame[BITS_AT] & 1 == 1
        && get_u64(frame, HEADER_LEN + TAG_AT) == 0
    {
        put_u64(frame, HEADER_LEN + TAG_AT, last);
        frame[BITS_AT] |= ALL_THROUGH;
    }
}

impl Engine {
    pub(crate) fn client_consumes(
        &mut self,
        id: ChannelId,
        consume: &basic::Consume<'_>,
    ) -> Result<Flow, Fault> {
        let at = (60, 20);
        let Some(queue) = self.queue_name(id, consume.queue, at)? else { return Ok(Flow::Hold) };
        let named =
            if consume.consumer_tag.is_empty() { self.consumer_tag() } else { consume.consumer_tag.into() };
        let tag = &*named;
        if let Some(at_index) = self.channels[id].consumer(tag) {
            if self.channels[id].consumers[at_index].state == ConsumerState::Ending {
                // The tag is free when cancel-ok has come.
                self.channels[id].switch = Switch::Awaiting;
                return Ok(Flow::Hold);
            }
            let detail = format!("attempt to reuse consumer tag '{}'", String::from_utf8_lossy(tag));
            return Err(Fault::connection(530, detail, at));
        }
        let reply_to = *queue == *REPLY_TO;
        let session = self.channels[id].session;
        let has_lane = self.sessions.get(session).is_some_and(|s| s.lane.is_some());
        let need = if reply_to && has_lane {
            // Where exclusive queues are, so that the channel need not leave its replies behind for them.
            Need::Lane
        } else if reply_to {
            Need::ConsumeAndPublish
        } else {
            self.need_for_consumer(id, consume, &queue)
        };
        let Some(up) = self.ensure(id, need) else { return Ok(Flow::Hold) };
        // Its tag must be known, even when the client does not wait for it.
        let method = Method::BasicConsume(basic::Consume {
            queue: &queue,
            consumer_tag: tag,
            no_wait: false,
            ..*consume
        });
        self.fits(up, &method)?;
        if !consume.no_wait && !self.may_ask(id, up) {
            return Ok(Flow::Hold);
        }
        let prefetch = self.channels[id].prefetch;
        self.apply_prefetch(id, up, prefetch);
        let reading = Reading::begin(consume.arguments, self.is_stream(id, &queue));
        let stream = reading != Reading::Unknown;
        let fixed = reply_to || consume.exclusive || stream;
        let channel = &mut self.channels[id];
        channel.pinned |= reply_to;
        channel.last_source += 1;
        channel.consumers.push(Consumer {
            tag: tag.into(),
            queue: queue.clone(),
            no_local: consume.no_local,
            no_ack: consume.no_ack,
            exclusive: consume.exclusive,
            arguments: consume.arguments.as_bytes().into(),
            prefetch,
            up,
            state: ConsumerState::Starting,
            source: channel.last_source,
            settling: Vec::new(),
            settling_until: self.now,
            reply_to,
            fixed,
            reading: if reply_to { Reading::Queue } else { reading },
            watched: !reply_to,
            replayed: false,
            patience: self.now,
        });
        let state = &mut self.up_channels[up];
        state.dirty = true;
        // A refusal would come before a barrier, its consume-ok perhaps after it.
        state.unproven = true;
        let note = Note::Consume { tag: tag.into() };
        if consume.no_wait {
            self.ask_quietly(up, note, method);
        } else {
            self.ask(id, up, note, method);
        }
        Ok(Flow::Done)
    }

    /// What a consumer needs: a stream's offset may be malformed, its deliveries may not be rejected, and it cannot go on
    /// where it was when others cost it its connection. What else is risky depends on the queue.
    fn need_for_consumer(&self, id: ChannelId, consume: &basic::Consume<'_>, queue: &[u8]) -> Need {
        let need = if self.channels[id].global_prefetch.is_some() {
            self.need_for_risk(id, queue, Risk::GlobalQos)
        } else if consume.no_ack {
            self.need_for_risk(id, queue, Risk::NoAck)
        } else {
            self.need_for_queue(id, queue)
        };
        let stream = consume.arguments.get(b"x-stream-offset").is_some() || self.is_stream(id, queue);
        match need {
            _ if stream || self.is_stuck_and_shaped(id, consume, queue) => Need::Lane,
            Need::Lane => Need::Lane,
            Need::Quarantine => Need::Quarantine,
            _ => Need::Consume,
        }
    }

    /// Whether what a consumer gets is limited to a rate, and it could not be moved to a lane when more comes than that:
    /// then it begins there, where its broker can be held back.
    fn is_stuck_and_shaped(&self, id: ChannelId, consume: &basic::Consume<'_>, queue: &[u8]) -> bool {
        let session = self.sessions.get(self.channels[id].session);
        let shaped = session.and_then(|s| s.pass.as_ref()).is_some_and(|pass| pass.shapes_data());
        shaped && (consume.exclusive || !self.lasts(id, queue))
    }

    /// A name for a consumer that its client leaves to the broker: Warren must know it before the broker answers.
    fn consumer_tag(&mut self) -> Box<[u8]> {
        let (a, b) = (self.random.next(), self.random.next());
        format!("amq.ctag-{a:016x}{b:016x}").into_bytes().into()
    }

    pub(crate) fn client_cancels(
        &mut self,
        id: ChannelId,
        cancel: &basic::Cancel<'_>,
    ) -> Result<Flow, Fault> {
        let tag = cancel.consumer_tag;
        let answer = !cancel.no_wait;
        let Some(at) = self.channels[id].consumer(tag) else {
            // As RabbitMQ does for a tag that it does not know.
            if answer {
                self.answer(id, Method::BasicCancelOk(basic::CancelOk { consumer_tag: tag }));
            }
            return Ok(Flow::Done);
        };
        let (up, state) = (self.channels[id].consumers[at].up, self.channels[id].consumers[at].state);
        match state {
            ConsumerState::Settling => {
                self.channels[id].consumers.remove(at);
                if answer {
                    self.answer(id, Method::BasicCancelOk(basic::CancelOk { consumer_tag: tag }));
                }
                self.retire_if_done(id, up);
                Ok(Flow::Done)
            }
            ConsumerState::Active if Some(up) != self.channels[id].current && self.prove_first(id) => {
                Ok(Flow::Hold)
            }
            ConsumerState::Active if !answer || self.may_ask(id, up) => {
                self.channels[id].consumers[at].state = ConsumerState::Ending;
                let note = Note::Cancel { tag: tag.into() };
                let method = Method::BasicCancel(basic::Cancel { consumer_tag: tag, no_wait: false });
                if answer {
                    self.ask(id, up, note, method);
                } else {
                    self.ask_quietly(up, note, method);
                }
                Ok(Flow::Done)
            }
            _ => {
                // It is beginning, moving or ending already.
                self.channels[id].switch = Switch::Awaiting;
                Ok(Flow::Hold)
            }
        }
    }

    /// basic.ack, the everyday way: one binding, a tag that is outstanding.
    #[inline]
    pub(crate) fn ack_run(&mut self, id: ChannelId, buf: &mut [u8], frame: &Frame) -> Option<usize> {
        let channel = &self.channels[id];
        let up = channel.current?;
        if !channel.deliveries.only(up)
            || !channel.lost.is_empty()
            || channel.tx.is_some()
            || frame.payload(buf).len() != TAG_AT + 9
        {
            return None;
        }
        let at = frame.start + HEADER_LEN + TAG_AT;
        let tag = get_u64(buf, at);
        let bits = buf[at + 8];
        if tag == 0 || bits > 1 {
            return None;
        }
        let multiple = bits == 1;
        let up_tag = channel.deliveries.find(tag)?.up_number(tag);
        let state = self.up_channels.get_mut(up)?;
        if multiple {
            if !state.unacked.contains(up_tag) {
                return None;
            }
            state.unacked.settle_through(up_tag);
        } else if !state.unacked.settle(up_tag) {
            return None;
        }
        put_u64(buf, at, up_tag);
        set_channel(buf, frame.start, state.number);
        let to = To::Upstream(state.upstream);
        self.pass(to, frame.start, frame.end);
        Some(frame.end)
    }

    /// ack, nack and reject, whatever they refer to.
    pub(crate) fn client_settles(
        &mut self,
        id: ChannelId,
        tag: u64,
        multiple: bool,
        frame: &[u8],
        at: (u16, u16),
    ) -> Result<Flow, Fault> {
        let channel = &self.channels[id];
        let bounded = frame.get(BITS_AT).is_some_and(|bits| bits & ALL_THROUGH != 0);
        let through = if bounded {
            // All that was written to the client when it said so.
            self.outstanding_through(id, tag)
        } else if tag == 0 && multiple {
            self.outstanding_through(id, channel.next_delivery - 1)
        } else {
            let known = channel.deliveries.find(tag).filter(|_| tag > 0);
            let known =
                known.map(|s| (s.up, s.up_number(tag))).filter(|(up, t)| self.is_outstanding(id, *up, *t));
            if known.is_none() && !channel.lost.contains(tag) {
                return Err(Fault::channel(406, format!("unknown delivery tag {tag}"), at));
            }
            if multiple { self.outstanding_through(id, tag) } else { known.into_iter().collect() }
        };
        if self.prove_before_ack(id, &through) {
            return Ok(Flow::Hold);
        }
        self.settle_lost(id, tag, multiple);
        for (up, up_tag) in through {
            let mut copy = frame.to_vec();
            put_u64(&mut copy, HEADER_LEN + TAG_AT, up_tag);
            copy[BITS_AT] &= !ALL_THROUGH;
            if self.channels[id].tx.is_some() {
                self.settle_in_transaction(id, up, up_tag, multiple, copy);
                continue;
            }
            let state = &mut self.up_channels[up];
            let settled = if multiple {
                state.unacked.settle_through(up_tag) > 0
            } else {
                state.unacked.settle(up_tag)
            };
            let gives_back = at != split(basic::ACK);
            state.has_refused |= gives_back;
            if settled {
                self.pass_frame(up, &copy);
            }
            if settled && gives_back {
                self.requeue_first(id, up);
            }
            self.retire_if_done(id, up);
        }
        self.forget_settled(id);
        Ok(Flow::Done)
    }

    /// Drops segments of which nothing is outstanding, once there are many.
    fn forget_settled(&mut self, id: ChannelId) {
        if !self.channels[id].deliveries.has_grown() {
            return;
        }
        let up_channels = &self.up_channels;
        self.channels[id].deliveries.retain(|segment| {
            let last = segment.up_number(segment.last);
            let Some(state) = up_channels.get(segment.up) else { return false };
            state
                .unacked
                .iter()
                .skip_while(|t| *t < segment.first_up)
                .take_while(|t| *t <= last)
                .next()
                .is_some()
        });
    }

    /// Whether a delivery is the client's to settle.
    fn is_outstanding(&self, id: ChannelId, up: UpChannelId, up_tag: u64) -> bool {
        let known = self.up_channels.get(up).is_some_and(|s| s.unacked.contains(up_tag));
        known && self.channels[id].tx.as_ref().is_none_or(|tx| !tx.settled.contains(&(up, up_tag)))
    }

    /// For each binding, the highest outstanding tag among the client's tags up to `tag`.
    fn outstanding_through(&self, id: ChannelId, tag: u64) -> Vec<(UpChannelId, u64)> {
        let mut through: Vec<(UpChannelId, u64)> = Vec::new();
        for segment in self.channels[id].deliveries.iter() {
            if segment.first > tag {
                break;
            }
            let Some(state) = self.up_channels.get(segment.up) else { continue };
            let limit = segment.up_number(segment.last.min(tag));
            let outstanding = state.unacked.iter().take_while(|t| *t <= limit);
            let Some(highest) = outstanding.filter(|t| self.is_outstanding(id, segment.up, *t)).last() else {
                continue;
            };
            match through.iter_mut().find(|(up, _)| *up == segment.up) {
                Some(entry) => entry.1 = highest,
                None => through.push((segment.up, highest)),
            }
        }
        through
    }

    /// In a transaction nothing is settled before the commit. Bindings that know nothing of it hear of it then.
    fn settle_in_transaction(
        &mut self,
        id: ChannelId,
        up: UpChannelId,
        up_tag: u64,
        multiple: bool,
        frame: Vec<u8>,
    ) {
        let tags: Vec<u64> = if multiple {
            self.up_channels[up].unacked.iter().take_while(|t| *t <= up_tag).collect()
        } else {
            vec![up_tag]
        };
        let channel = &mut self.channels[id];
        let current = channel.current == Some(up);
        let Some(tx) = channel.tx.as_deref_mut() else { return };
        tx.settled.extend(tags.into_iter().map(|t| (up, t)));
        if current {
            self.pass_frame(up, &frame);
        } else {
            tx.deferred.push((up, frame));
        }
    }

    /// tx.commit-ok: what the transaction settled is settled.
    pub(crate) fn committed(&mut self, id: ChannelId, up: UpChannelId) {
        self.transaction_ended(up);
        let Some(tx) = self.channels.get_mut(id).and_then(|c| c.tx.as_deref_mut()) else { return };
        let tx = std::mem::take(tx);
        for (up, frame) in tx.deferred {
            if self.up_channels.get(up).is_some_and(|s| s.owner == Some(id) && !s.closing) {
                self.pass_frame(up, &frame);
                self.requeue_first(id, up);
            }
        }
        for (up, tag) in tx.settled {
            if let Some(state) = self.up_channels.get_mut(up) {
                state.unacked.settle(tag);
            }
            self.retire_if_done(id, up);
        }
    }

    /// tx.rollback-ok: what the transaction settled is outstanding again.
    pub(crate) fn rolled_back(&mut self, id: ChannelId, up: UpChannelId) {
        self.transaction_ended(up);
        let Some(channel) = self.channels.get_mut(id) else { return };
        if let Some(tx) = channel.tx.as_deref_mut() {
            let tx = std::mem::take(tx);
            channel.lost = tx.lost.unwrap_or(std::mem::take(&mut channel.lost));
        }
    }

    /// What was published before commit-ok or rollback-ok has been carried out, or is undone: until the next transaction
    /// begins, a loss costs nothing.
    fn transaction_ended(&mut self, up: UpChannelId) {
        if let Some(state) = self.up_channels.get_mut(up) {
            (state.risky, state.risky_before_barrier) = (false, false);
        }
    }

    /// What a client says of deliveries that were lost is swallowed.
    fn settle_lost(&mut self, id: ChannelId, tag: u64, multiple: bool) {
        let channel = &mut self.channels[id];
        if channel.lost.is_empty() {
            return;
        }
        if let Some(tx) = channel.tx.as_deref_mut() {
            tx.lost.get_or_insert_with(|| channel.lost.clone());
        }
        channel.lost.settle(tag, multiple);
    }

    /// An ack that goes to another binding than the publishes before it must not overtake them: the message that
    /// it settles may be the reason for a publish that is not routed yet.
    fn prove_before_ack(&mut self, id: ChannelId, through: &[(UpChannelId, u64)]) -> bool {
        let current = self.channels[id].current;
        let elsewhere = through.iter().any(|(up, _)| Some(*up) != current);
        elsewhere && self.channels[id].tx.is_none() && self.prove_first(id)
    }

    /// Has the present binding prove what it has before the channel goes on. `false`: nothing is left to prove.
    pub(crate) fn prove_first(&mut self, id: ChannelId) -> bool {
        let Some(up) = self.channels[id].current else { return false };
        if self.up_channels[up].is_routed() {
            return false;
        }
        self.channels[id].switch = Switch::ProvingFirst;
        if !self.up_channels[up].barrier_is_out() {
            self.send_barrier(up);
        }
        true
    }

    pub(crate) fn client_recovers(
        &mut self,
        id: ChannelId,
        requeue: bool,
        answer: bool,
    ) -> Result<Flow, Fault> {
        let at = (60, if answer { 110 } else { 100 });
        if !requeue {
            return Err(Fault::connection(540, "requeue=false", at));
        }
        let current = self.channels[id].current;
        if let Some(up) = current
            && answer
            && !self.may_ask(id, up)
        {
            return Ok(Flow::Hold);
        }
        let method = Method::BasicRecover(basic::Recover { requeue: true });
        match current {
            Some(up) if answer => self.ask(id, up, Note::Recover, method),
            Some(up) => self.ask_quietly(up, Note::Recover, method),
            None => {
                if answer {
                    self.answer(id, Method::BasicRecoverOk);
                }
                self.channels[id].lost.clear();
                self.requeue_older(id);
            }
        }
        Ok(Flow::Done)
    }

    /// recover-ok is on its way to the client: what older bindings have delivered up to here is requeued too.
    pub(crate) fn requeue_older(&mut self, id: ChannelId) {
        for up in self.channels[id].older.clone() {
            let state = &mut self.up_channels[up];
            if let Some(last) = state.unacked.highest() {
                state.unacked.clear();
                let (upstream, number) = (state.upstream, state.number);
                let nack = basic::Nack { delivery_tag: last, multiple: true, requeue: true };
                self.tell_upstream(upstream, number, Method::BasicNack(nack));
                self.requeue_first(id, up);
            }
            self.retire_if_done(id, up);
        }
    }
}
