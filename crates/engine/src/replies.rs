//! Methods of a broker on a channel, the slower way: replies, errors, deliveries that come in parts.

use warren_wire::content::write_body;
use warren_wire::frame::{FRAME_BODY, FRAME_END, HEADER_LEN, put_u64, set_channel};
use warren_wire::method::{Method, basic, channel};

use crate::api::Link;
use crate::channel::{Consumer, ConsumerState, Standing};
use crate::dial;
use crate::engine::Engine;
use crate::ids::{ChannelId, SessionId, UpChannelId};
use crate::risks::{Kind, Risk};
use crate::sources::GOT;
use crate::upstream::{Incoming, Note, Pending};

impl Engine {
    /// A method from a broker on one of its channels.
    pub(crate) fn broker_method(&mut self, up: UpChannelId, method: Method<'_>, frame: &[u8]) {
        match method {
            Method::ChannelClose(close) => self.broker_closes_channel(up, &close),
            Method::ChannelCloseOk => self.broker_closed_channel(up),
            _ if self.up_channels[up].closing && self.up_channels[up].owner.is_none() => {
                self.closing_method(up, method);
            }
            Method::BasicDeliver(_) | Method::BasicReturn(_) | Method::BasicGetOk(_)
                if self.up_channels[up].idle =>
            {
                let upstream = self.up_channels[up].upstream;
                self.abort_upstream(upstream, dial::BROKER, "it spoke on a channel that nobody uses");
            }
            Method::BasicDeliver(deliver) => self.deliver(up, &deliver, frame),
            Method::BasicReturn(_) => self.returned(up, frame),
            Method::BasicAck(ack) => self.confirmed(up, ack.delivery_tag, ack.multiple, frame),
            Method::BasicNack(nack) => self.confirmed(up, nack.delivery_tag, nack.multiple, frame),
            Method::BasicCancel(cancel) => self.broker_cancels(up, &cancel, frame),
            Method::ChannelFlow(_) => {}
            _ => self.reply(up, method, frame),
        }
    }

    /// A channel that Warren is closing and that nobody listens to still delivers until its close-ok: contents are
    /// walked over, the rest is of no interest.
    fn closing_method(&mut self, up: UpChannelId, method: Method<'_>) {
        if matches!(method, Method::BasicDeliver(_) | Method::BasicReturn(_) | Method::BasicGetOk(_)) {
            self.up_channels[up].incoming = Incoming::Header;
        }
    }

    /// A reply: to the first request that it can be the answer to.
    fn reply(&mut self, up: UpChannelId, method: Method<'_>, frame: &[u8]) {
        let state = &mut self.up_channels[up];
        if matches!(state.pending.front(), Some(Pending::Open)) && !matches!(method, Method::ChannelOpenOk) {
            // An answer to what the number's last owner asked (LavinMQ answers a barrier after channel.close).
            return;
        }
        let found = state.pending.iter().position(|p| p.is_answered_by(&method));
        let (upstream, owner) = (state.upstream, state.owner);
        let skipped = state.pending.iter().take(found.unwrap_or(0)).all(Pending::may_be_overtaken);
        let Some(pending) = found.filter(|_| skipped).and_then(|at| state.pending.remove(at)) else {
            self.abort_upstream(upstream, dial::BROKER, "it answered what was not asked");
            return;
        };
        if found != Some(0) {
            self.earlier_answers(up, found.unwrap_or(0));
        }
        match (pending, owner) {
            (Pending::Barrier, Some(channel)) => {
                self.barrier_arrived(up);
                self.barrier_back(channel, up);
                self.closing_progress(channel, up);
            }
            (Pending::Client(_, note, _), Some(channel)) => {
                self.client_reply(channel, up, &note, method, frame);
            }
            (Pending::Own(_, note, _), Some(channel)) => {
                self.noted(channel, up, &note, method);
                self.resume_answered(channel);
                self.closing_progress(channel, up);
            }
            (Pending::Barrier, None) => self.barrier_arrived(up),
            (Pending::Client(_, Note::Get { no_ack, .. }, _), None) => self.orphan_got(up, no_ack, method),
            _ => {}
        }
        self.local_answers(up);
        self.orphan_progress(up);
    }

    /// The last barrier that is out has come back: everything before it was processed.
    fn barrier_arrived(&mut self, up: UpChannelId) {
        let state = &mut self.up_channels[up];
        if !state.pending.iter().any(|p| matches!(p, Pending::Barrier)) {
            state.unproven_before_barrier = false;
            state.risky_before_barrier = false;
        }
    }

    /// Answers of Warren's own to requests before the one that is answered now.
    fn earlier_answers(&mut self, up: UpChannelId, before: usize) {
        let state = &mut self.up_channels[up];
        let mut kept = std::collections::VecDeque::new();
        let mut due = Vec::new();
        for (at, pending) in std::mem::take(&mut state.pending).into_iter().enumerate() {
            match pending {
                Pending::Local(frames) if at < before => due.push(frames),
                other => kept.push_back(other),
            }
        }
        state.pending = kept;
        let Some(channel) = state.owner else { return };
        for frames in due {
            self.send_channel(channel, |out| out.extend_from_slice(&frames));
        }
    }

    /// A message got for a client that is gone: closing the channel requeues it.
    fn orphan_got(&mut self, up: UpChannelId, no_ack: bool, method: Method<'_>) {
        if let Method::BasicGetOk(_) = method {
            let state = &mut self.up_channels[up];
            state.incoming = Incoming::Header;
            state.unacked.push(!no_ack);
        }
    }

    /// Answers of Warren's own whose turn has come.
    fn local_answers(&mut self, up: UpChannelId) {
        while let Some(state) = self.up_channels.get_mut(up) {
            if !matches!(state.pending.front(), Some(Pending::Local(_))) {
                return;
            }
            let Some(Pending::Local(frames)) = state.pending.pop_front() else {
                return;
            };
            if let Some(channel) = state.owner {
                self.send_channel(channel, |out| out.extend_from_slice(&frames));
            }
        }
    }

    /// Passes a method of a binding to its client's channel, in the binding's own order and never into the middle
    /// of a content.
    fn relay(&mut self, id: ChannelId, up: UpChannelId, frame: &[u8]) {
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        let (number, session) = (channel.number, channel.session);
        let write = |out: &mut Vec<u8>| {
            let at = out.len();
            out.extend_from_slice(frame);
            set_channel(out, at, number);
        };
        if channel.speaking.is_some() {
            if !channel.silent.contains(&up) {
                channel.silent.push_back(up);
            }
            if let Some(state) = self.up_channels.get_mut(up) {
                write(&mut state.withheld);
            }
            self.bound_withheld(session, up);
        } else {
            let source = self.up_channels.get(up).map(|s| Link::Upstream(s.upstream));
            self.send_client_from(session, source, write);
        }
    }

    /// What is withheld counts as the session's memory: looked at when the step is over.
    fn bound_withheld(&mut self, session: SessionId, up: UpChannelId) {
        let withheld = self.up_channels.get(up).map_or(0, |s| s.withheld.len());
        if withheld > self.config.limits.session_outbox && !self.slow.contains(&session) {
            self.slow.push(session);
        }
    }

    /// A reply that the client awaits.
    fn client_reply(
        &mut self,
        id: ChannelId,
        up: UpChannelId,
        note: &Note,
        method: Method<'_>,
        frame: &[u8],
    ) {
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        channel.awaiting = channel.awaiting.saturating_sub(1);
        if let Method::BasicGetOk(_) = method {
            let no_ack = matches!(note, Note::Get { no_ack: true, .. });
            self.got(id, up, no_ack, frame);
            self.noted(id, up, note, method);
        } else {
            self.relay(id, up, frame);
            self.noted(id, up, note, method);
        }
        self.resume_answered(id);
        if let Some(channel) = self.channels.get(id)
            && channel.current != Some(up)
        {
            self.retire_if_done(id, up);
        }
    }

    /// What a reply changes in the record.
    fn noted(&mut self, id: ChannelId, up: UpChannelId, note: &Note, method: Method<'_>) {
        match (note, method) {
            (Note::Declare { exclusive, lasting, kind }, Method::QueueDeclareOk(ok)) => {
                self.named(id);
                self.queue_declared(id, ok.queue, *exclusive, *lasting);
                if let Some(kind) = kind {
                    self.queue_is_new(id, ok.queue, *kind);
                }
            }
            (Note::Risky { risk, queue }, _) => self.is_safe(id, queue, *risk),
            (Note::Get { queue, .. }, _) => self.is_safe(id, queue, Risk::Get),
            (Note::Delete { name }, Method::QueueDeleteOk(_)) => self.queue_deleted(id, name),
            (Note::Consume { tag }, Method::BasicConsumeOk(_)) => self.consumer_began(id, tag),
            (Note::Cancel { tag }, Method::BasicCancelOk(_)) => self.consumer_ended(id, up, tag),
            (Note::Commit, Method::TxCommitOk) => self.committed(id),
            (Note::Rollback, Method::TxRollbackOk) => self.rolled_back(id),
            (Note::Recover, Method::BasicRecoverOk) => {
                self.up_channels[up].unacked.clear();
                self.channels[id].lost.clear();
                self.requeue_older(id);
            }
            _ => {}
        }
    }

    /// A declare is answered: empty names mean its queue from now on.
    fn named(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.get_mut(id) {
            channel.naming = channel.naming.saturating_sub(1);
        }
    }

    fn queue_declared(&mut self, id: ChannelId, name: &[u8], exclusive: bool, lasting: Option<bool>) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        channel.last_queue = name.into();
        let session = channel.session;
        if exclusive && let Some(session) = self.sessions.get_mut(session) {
            session.exclusive.insert(name.into());
        }
        let tenant = self.channel_tenant(id).and_then(|t| self.tenants.get_mut(t));
        match (tenant, lasting) {
            (Some(tenant), Some(true)) => tenant.lasting.insert(name),
            (Some(tenant), Some(false)) => tenant.lasting.remove(name),
            _ => {}
        }
    }

    /// A queue is gone whose consumer was about to begin again elsewhere: the client hears what the broker would have
    /// told it.
    fn cancel_settling(&mut self, id: ChannelId, queue: &[u8]) {
        while let Some(channel) = self.channels.get_mut(id) {
            let gone = |c: &Consumer| *c.queue == *queue && c.state == ConsumerState::Settling;
            let Some(at) = channel.consumers.iter().position(gone) else { return };
            let consumer = channel.consumers.remove(at);
            let session = channel.session;
            if self.sessions.get(session).is_some_and(|s| s.capabilities.consumer_cancel_notify) {
                let cancel = basic::Cancel { consumer_tag: &consumer.tag, no_wait: true };
                self.tell_channel(id, Method::BasicCancel(cancel));
            }
            self.retire_if_done(id, consumer.up);
        }
    }

    fn queue_deleted(&mut self, id: ChannelId, name: &[u8]) {
        self.cancel_settling(id, name);
        let Some(session) = self.channels.get(id).map(|c| c.session) else {
            return;
        };
        if let Some(session) = self.sessions.get_mut(session) {
            session.exclusive.remove(name);
        }
        self.queue_is_new(id, name, Kind::Other);
        if let Some(tenant) = self.channel_tenant(id) {
            self.tenants[tenant].lasting.remove(name);
        }
    }

    fn consumer_began(&mut self, id: ChannelId, tag: &[u8]) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        let Some(at) = channel.consumer(tag) else { return };
        let consumer = &mut channel.consumers[at];
        consumer.state = ConsumerState::Active;
        let (queue, no_ack) = (consumer.queue.clone(), consumer.no_ack);
        if channel.global_prefetch.is_some() {
            self.is_safe(id, &queue, Risk::GlobalQos);
        } else if no_ack {
            self.is_safe(id, &queue, Risk::NoAck);
        }
        self.move_consumers(id);
    }

    /// cancel-ok: the client's, or one of a consumer that is being moved.
    fn consumer_ended(&mut self, id: ChannelId, up: UpChannelId, tag: &[u8]) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        let Some(at) = channel.consumer(tag) else { return };
        if channel.consumers[at].state == ConsumerState::Cancelling {
            self.consumer_cancelled(id, up, at);
        } else {
            channel.consumers.remove(at);
            self.retire_if_done(id, up);
        }
    }

    /// The broker has cancelled a consumer: its queue is gone.
    fn broker_cancels(&mut self, up: UpChannelId, cancel: &basic::Cancel<'_>, frame: &[u8]) {
        let Some(id) = self.up_channels[up].owner else {
            return;
        };
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        let Some(at) = channel.consumer(cancel.consumer_tag) else {
            return;
        };
        channel.consumers.remove(at);
        let session = channel.session;
        if self.sessions.get(session).is_some_and(|s| s.capabilities.consumer_cancel_notify) {
            self.relay(id, up, frame);
        }
        self.retire_if_done(id, up);
    }

    /// Confirms that need translation, or that concern a channel which is closing or gone.
    fn confirmed(&mut self, up: UpChannelId, tag: u64, multiple: bool, frame: &[u8]) {
        let state = &mut self.up_channels[up];
        let tags: Vec<u64> =
            if multiple { state.unconfirmed.iter().take_while(|t| *t <= tag).collect() } else { vec![tag] };
        let settled: Vec<u64> = tags.into_iter().filter(|t| state.unconfirmed.settle(*t)).collect();
        let Some(id) = state.owner else {
            return self.orphan_progress(up);
        };
        if self.channels.get(id).is_some_and(|c| c.standing != Standing::Refused) {
            self.tell_confirms(id, up, &settled, frame);
        }
        self.closing_progress(id, up);
        self.retire_if_done(id, up);
    }

    /// Confirms one by one, under the client's numbers: `multiple` would cover what other bindings still owe.
    fn tell_confirms(&mut self, id: ChannelId, up: UpChannelId, settled: &[u64], frame: &[u8]) {
        for tag in settled {
            let Some(channel) = self.channels.get(id) else { return };
            let Some(client_tag) = channel.publishes.to_client(up, *tag) else {
                continue;
            };
            let mut copy = frame.to_vec();
            put_u64(&mut copy, HEADER_LEN + 4, client_tag);
            copy[HEADER_LEN + 12] &= !1;
            self.relay(id, up, &copy);
        }
    }

    /// channel.close from the broker: the one client behind it gets it as it is.
    fn broker_closes_channel(&mut self, up: UpChannelId, close: &channel::Close<'_>) {
        let state = &self.up_channels[up];
        let (upstream, number, owner, closing) = (state.upstream, state.number, state.owner, state.closing);
        self.tell_upstream(upstream, number, Method::ChannelCloseOk);
        // Its answers come before its close.
        self.release_withheld(owner, up);
        if let Some(id) = owner.filter(|_| !closing)
            && self.replay_refused(id, up, close)
        {
            return;
        }
        if !closing {
            self.free_channel(up);
        }
        // When both closes cross, the broker answers Warren's too, and only then is the number free.
        if let Some(id) = owner {
            if let Some(channel) = self.channels.get_mut(id) {
                channel.older.retain(|o| *o != up);
                channel.current = channel.current.filter(|c| *c != up);
                channel.speaking = channel.speaking.filter(|s| *s != up);
                channel.consumers.retain(|c| c.up != up);
            }
            if let Some(state) = self.up_channels.get_mut(up) {
                state.owner = None;
            }
            let at = (close.class_id, close.method_id);
            self.channel_error(id, close.reply_code, close.reply_text, at);
            self.finish_close(id);
        }
    }

    /// close-ok for Warren's channel.close.
    fn broker_closed_channel(&mut self, up: UpChannelId) {
        let state = &self.up_channels[up];
        let (owner, upstream) = (state.owner, state.upstream);
        if !state.closing {
            self.abort_upstream(upstream, dial::BROKER, "it closed a channel that was not being closed");
            return;
        }
        self.release_withheld(owner, up);
        self.free_channel(up);
        self.binding_closed(owner, up);
    }

    /// What a binding has to say and could not while another was speaking is not lost with the binding.
    pub(crate) fn release_withheld(&mut self, owner: Option<ChannelId>, up: UpChannelId) {
        let Some(state) = self.up_channels.get_mut(up) else { return };
        let withheld = std::mem::take(&mut state.withheld);
        if let Some(channel) = owner.and_then(|o| self.channels.get_mut(o)) {
            channel.silent.retain(|s| *s != up);
            channel.afterwards.extend_from_slice(&withheld);
        }
    }

    /// What waited for the end of a content is sent.
    pub(crate) fn flush_afterwards(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.get_mut(id)
            && channel.speaking.is_none()
            && !channel.afterwards.is_empty()
        {
            let afterwards = std::mem::take(&mut channel.afterwards);
            let session = channel.session;
            self.send_client(session, |out| out.extend_from_slice(&afterwards));
        }
    }

    /// A closing channel has one binding less.
    pub(crate) fn binding_closed(&mut self, owner: Option<ChannelId>, up: UpChannelId) {
        if let Some(id) = owner
            && let Some(channel) = self.channels.get_mut(id)
        {
            channel.older.retain(|o| *o != up);
            channel.consumers.retain(|c| c.up != up);
            self.finish_close(id);
        }
    }

    /// basic.deliver whose content is not all in the buffer, or whose channel is busy.
    fn deliver(&mut self, up: UpChannelId, deliver: &basic::Deliver<'_>, frame: &[u8]) {
        let state = &mut self.up_channels[up];
        state.incoming = Incoming::Header;
        let Some(id) = state.owner else {
            state.unacked.push(true);
            return;
        };
        if self.channels.get(id).is_none_or(|c| c.standing != Standing::Open) {
            // Its client has closed the channel: the message goes back to its queue.
            state.unacked.push(true);
            state.discarding = true;
            return;
        }
        let channel = &mut self.channels[id];
        let consumer = channel.consumer(deliver.consumer_tag).map(|at| &channel.consumers[at]);
        let (no_ack, reply_to) = consumer.map_or((false, false), |c| (c.no_ack, c.reply_to));
        let source = consumer.map_or(GOT, |c| c.source);
        let client_tag = if reply_to {
            // Direct reply-to deliveries repeat the next number and do not count.
            channel.next_delivery
        } else {
            self.number_delivery(id, up, deliver.delivery_tag, source, no_ack)
        };
        let at = HEADER_LEN + 5 + deliver.consumer_tag.len();
        let mut copy = frame.to_vec();
        put_u64(&mut copy, at, client_tag);
        self.metrics.delivered_messages += 1;
        self.content_begins(id, up, &copy);
    }

    fn got(&mut self, id: ChannelId, up: UpChannelId, no_ack: bool, frame: &[u8]) {
        let tag = warren_wire::frame::get_u64(frame, HEADER_LEN + 4);
        self.up_channels[up].incoming = Incoming::Header;
        let client_tag = self.number_delivery(id, up, tag, GOT, no_ack);
        let mut copy = frame.to_vec();
        put_u64(&mut copy, HEADER_LEN + 4, client_tag);
        self.metrics.delivered_messages += 1;
        self.content_begins(id, up, &copy);
    }

    /// Gives a delivery its number for the client.
    fn number_delivery(
        &mut self,
        id: ChannelId,
        up: UpChannelId,
        tag: u64,
        source: u32,
        no_ack: bool,
    ) -> u64 {
        let state = &mut self.up_channels[up];
        while state.unacked.next() < tag && tag - state.unacked.next() < 1 << 16 {
            state.unacked.push(false);
        }
        if !no_ack {
            state.sources.note(tag, source, &state.unacked);
        }
        state.unacked.push(!no_ack);
        let channel = &mut self.channels[id];
        let client_tag = channel.next_delivery;
        channel.next_delivery += 1;
        if !no_ack {
            channel.deliveries.note(client_tag, up, tag);
        }
        #[cfg(feature = "sabotage")]
        let client_tag =
            if self.options.sabotage == crate::engine::Sabotage::TagOffset { tag } else { client_tag };
        client_tag
    }

    fn returned(&mut self, up: UpChannelId, frame: &[u8]) {
        let state = &mut self.up_channels[up];
        state.incoming = Incoming::Header;
        if let Some(id) = state.owner {
            self.metrics.returned_messages += 1;
            self.content_begins(id, up, frame);
        }
    }

    /// The method of a content: from here to its end the client's channel hears this binding alone.
    fn content_begins(&mut self, id: ChannelId, up: UpChannelId, frame: &[u8]) {
        self.relay(id, up, frame);
        if let Some(channel) = self.channels.get_mut(id) {
            channel.speaking.get_or_insert(up);
        }
    }

    /// A header or body that is not passed as it stands: withheld, or split to what the client accepts.
    pub(crate) fn content_part(
        &mut self,
        id: ChannelId,
        up: UpChannelId,
        kind: u8,
        payload: &[u8],
        max: u32,
    ) {
        let channel = &self.channels[id];
        let number = channel.number;
        let write = |out: &mut Vec<u8>| {
            if kind == FRAME_BODY {
                payload.chunks(max as usize).for_each(|part| write_body(number, part, out));
            } else {
                put_frame(out, kind, number, payload);
            }
        };
        if channel.speaking == Some(up) {
            let session = channel.session;
            let source = Link::Upstream(self.up_channels[up].upstream);
            self.send_client_from(session, Some(source), write);
        } else {
            let session = channel.session;
            write(&mut self.up_channels[up].withheld);
            self.bound_withheld(session, up);
        }
    }

    /// A content is complete: others on the same client's channel may speak.
    pub(crate) fn content_done(&mut self, id: ChannelId, up: UpChannelId) {
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        if channel.speaking != Some(up) {
            return;
        }
        channel.speaking = None;
        let session = channel.session;

        while let Some(channel) = self.channels.get_mut(id) {
            let Some(next) = channel.silent.pop_front() else {
                break;
            };
            let Some(state) = self.up_channels.get_mut(next) else {
                continue;
            };
            let withheld = std::mem::take(&mut state.withheld);
            let unfinished = state.incoming != Incoming::None && !state.discarding;
            self.send_client(session, |out| out.extend_from_slice(&withheld));
            if unfinished {
                self.channels[id].speaking = Some(next);
                break;
            }
            self.retire_if_done(id, next);
        }
        self.flush_afterwards(id);
        self.retire_if_done(id, up);
        self.closing_progress(id, up);
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        if channel.speaking.is_some() {
            return;
        }
        if let Some(fault) = channel.fault.take() {
            self.channel_error(id, fault.code, &fault.text, fault.at);
        } else {
            self.resume_answered(id);
        }
    }
}

fn put_frame(out: &mut Vec<u8>, kind: u8, channel: u16, payload: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(payload);
    out.push(FRAME_END);
}
