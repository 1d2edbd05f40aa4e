//! Methods of a broker on a channel, the slower way: replies, errors, deliveries that come in parts.

use warren_wire::frame::{HEADER_LEN, put_u64, set_channel};
use warren_wire::method::{Method, basic, channel};

use crate::api::Link;
use crate::channel::{Channel, Consumer, ConsumerState, Mode, Standing};
use crate::dial;
use crate::engine::Engine;
use crate::handshake::split;
use crate::ids::{ChannelId, UpChannelId};
use crate::risks::{Kind, Risk};
use crate::session::Exclusive;
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
            // What a transaction has published is lost with its binding until it is committed.
            state.risky_before_barrier &= state.mode == Mode::Tx;
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
        while let Some(state) = self.up_channels.get_mut(up)
            && matches!(state.pending.front(), Some(Pending::Local(_)))
        {
            self.local_answer(up, 0);
        }
    }

    fn local_answer(&mut self, up: UpChannelId, at: usize) {
        let state = &mut self.up_channels[up];
        if let Some(Pending::Local(frames)) = state.pending.remove(at)
            && let Some(channel) = state.owner
        {
            self.send_channel(channel, |out| out.extend_from_slice(&frames));
        }
    }

    /// The broker closes the channel for something else than a consumer: consumers that it has not answered yet were
    /// taken, and so what was asked behind them has been answered too.
    fn last_answers(&mut self, up: UpChannelId, close: &channel::Close<'_>) {
        if (close.class_id, close.method_id) == split(basic::CONSUME) {
            return;
        }
        while let Some(state) = self.up_channels.get(up) {
            let waits = |p: &Pending| matches!(p, Pending::Client(..)) && !p.may_be_overtaken();
            let in_order = state.pending.iter().position(waits).unwrap_or(state.pending.len());
            let local = |p: &Pending| matches!(p, Pending::Local(_));
            let Some(at) = state.pending.iter().take(in_order).position(local) else { return };
            self.local_answer(up, at);
        }
    }

    /// Passes a method of a binding to its client's channel, in the binding's own order and never into the middle
    /// of a content.
    pub(crate) fn relay(&mut self, id: ChannelId, up: UpChannelId, frame: &[u8]) {
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        let (number, session) = (channel.number, channel.session);
        let write = |out: &mut Vec<u8>| {
            let at = out.len();
            out.extend_from_slice(frame);
            set_channel(out, at, number);
        };
        if channel.is_held_up() {
            channel.turns.push(Some(up), write);
            let octets = channel.turns.octets();
            self.bound_waiting(session, octets);
        } else {
            let source = self.up_channels.get(up).map(|s| Link::Upstream(s.upstream));
            self.send_client_from(session, source, write);
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
                self.queue_named(id);
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
            (Note::Commit, Method::TxCommitOk) => self.committed(id, up),
            (Note::Rollback, Method::TxRollbackOk) => self.rolled_back(id, up),
            (Note::Recover, Method::BasicRecoverOk) => {
                self.up_channels[up].unacked.clear();
                self.channels[id].lost.clear();
                self.requeue_older(id);
            }
            _ => {}
        }
    }

    /// A declare is answered: empty names mean its queue from now on.
    fn queue_named(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.get_mut(id) {
            channel.naming = channel.naming.saturating_sub(1);
        }
    }

    fn queue_declared(&mut self, id: ChannelId, name: &[u8], exclusive: Option<bool>, lasting: Option<bool>) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        channel.last_queue = name.into();
        let session = channel.session;
        if let (Some(auto_delete), Some(session)) = (exclusive, self.sessions.get_mut(session)) {
            session.exclusive.entry(name.into()).or_insert(Exclusive { auto_delete, consumed: false });
        }
        match (self.known_mut(id), lasting) {
            (Some(known), Some(true)) => known.lasting.insert(name),
            (Some(known), Some(false)) => known.lasting.remove(name),
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
        if let Some(known) = self.known_mut(id) {
            known.lasting.remove(name);
        }
    }

    fn consumer_began(&mut self, id: ChannelId, tag: &[u8]) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        let Some(at) = channel.consumer(tag) else { return };
        let consumer = &mut channel.consumers[at];
        consumer.state = ConsumerState::Active;
        let (queue, no_ack) = (consumer.queue.clone(), consumer.no_ack);
        let session = self.sessions.get_mut(channel.session);
        if let Some(queue) = session.and_then(|s| s.exclusive.get_mut(&queue)) {
            queue.consumed = true;
        }
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
            let session = channel.session;
            self.forget_auto_deleted(session);
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
        self.last_answers(up, close);
        let crossed = |c: &Channel| closing && c.standing == Standing::Open;
        if let Some(id) = owner.filter(|o| !self.channels.get(*o).is_some_and(crossed))
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
                channel.turns.forget_unfinished(up);
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
        self.free_channel(up);
        self.binding_closed(owner, up);
    }

    /// A closing channel has one binding less.
    pub(crate) fn binding_closed(&mut self, owner: Option<ChannelId>, up: UpChannelId) {
        if let Some(id) = owner
            && let Some(channel) = self.channels.get_mut(id)
        {
            channel.older.retain(|o| *o != up);
            channel.consumers.retain(|c| c.up != up);
            channel.turns.forget_unfinished(up);
            self.finish_close(id);
        }
    }
}
