//! Methods of a client on an open channel: what is recorded, what is answered here, what goes upstream.

use warren_wire::frame::{HEADER_LEN, set_channel};
use warren_wire::method::{Method, basic, channel, confirm, exchange, queue};
use warren_wire::table::Value;

use crate::channel::{Consumer, ConsumerState, Mode, Switch};
use crate::client::Flow;
use crate::engine::Engine;
use crate::fault::Fault;
use crate::handshake::split;
use crate::ids::{ChannelId, UpChannelId};
use crate::risks::{Risk, kind_of};
use crate::switch::Need;
use crate::upstream::{Again, Note, Pending};

/// Exchange types that every broker has; others come from plugins, and a broker that lacks one closes the whole
/// connection (BROKER-FACTS), so they are declared on an own lane.
const EXCHANGE_TYPES: [&[u8]; 4] = [b"direct", b"fanout", b"topic", b"headers"];

impl Engine {
    /// A method from a client on a channel that is open and free to go on.
    pub(crate) fn client_method(
        &mut self,
        id: ChannelId,
        method: Method<'_>,
        frame: &[u8],
    ) -> Result<Flow, Fault> {
        let at = split(method.id());
        match method {
            Method::BasicPublish(publish) => self.publish_begin(id, &publish, frame),
            Method::BasicAck(ack) => self.client_settles(id, ack.delivery_tag, ack.multiple, frame, at),
            Method::BasicNack(nack) => self.client_settles(id, nack.delivery_tag, nack.multiple, frame, at),
            Method::BasicReject(reject) => self.client_settles(id, reject.delivery_tag, false, frame, at),
            Method::BasicConsume(consume) => self.client_consumes(id, &consume),
            Method::BasicCancel(cancel) => self.client_cancels(id, &cancel),
            Method::BasicGet(get) => self.client_gets(id, &get),
            Method::BasicQos(qos) => self.client_qos(id, &qos),
            Method::BasicRecover(recover) => self.client_recovers(id, recover.requeue, true),
            Method::BasicRecoverAsync(recover) => self.client_recovers(id, recover.requeue, false),
            Method::ChannelClose(_) => {
                if self.wait_for_answers(id) {
                    return Ok(Flow::Hold);
                }
                self.client_closes_channel(id);
                Ok(Flow::Done)
            }
            Method::ChannelOpen => Err(Fault::connection(504, "second 'channel.open' seen", at)),
            Method::ChannelFlow(channel::Flow { active: true }) if self.channels[id].current.is_some() => {
                self.pass_request(id, Need::Request, frame, false, Note::Plain)
            }
            Method::ChannelFlow(channel::Flow { active: true }) => {
                self.answer(id, Method::ChannelFlowOk(channel::FlowOk { active: true }));
                Ok(Flow::Done)
            }

            Method::ChannelFlow(_) => Err(Fault::connection(540, "active=false", at)),
            Method::QueueDeclare(declare) => self.client_declares(id, declare, frame),
            Method::QueueBind(bind) => self.client_binds(id, bind),
            Method::QueueUnbind(unbind) => self.client_unbinds(id, unbind),
            Method::QueuePurge(purge) => self.client_purges(id, purge),
            Method::QueueDelete(delete) => self.client_deletes(id, delete),
            Method::ExchangeDeclare(declare) => self.client_declares_exchange(id, &declare, frame),
            Method::ExchangeDelete(exchange::Delete { no_wait, .. })
            | Method::ExchangeBind(exchange::Bind { no_wait, .. })
            | Method::ExchangeUnbind(exchange::Unbind { no_wait, .. }) => {
                self.pass_request(id, Need::Request, frame, no_wait, Note::Plain)
            }
            Method::ConfirmSelect(select) => self.client_confirms(id, select),
            Method::TxSelect => self.client_transacts(id, frame),
            Method::TxCommit | Method::TxRollback if self.channels[id].mode != Mode::Tx => {
                Err(Fault::channel(406, "channel is not transactional", at))
            }
            Method::TxCommit => self.end_transaction(id, frame, Note::Commit),
            Method::TxRollback => self.end_transaction(id, frame, Note::Rollback),
            Method::AccessRequest(_) => {
                // Tickets are history; LavinMQ closes the connection for it.
                self.answer(
                    id,
                    Method::AccessRequestOk(warren_wire::method::access::RequestOk { ticket: 1 }),
                );
                Ok(Flow::Done)
            }
            _ => Err(Fault::connection(503, "unimplemented method", at)),
        }
    }

    /// Answers a request here, when its turn has come.
    pub(crate) fn answer(&mut self, id: ChannelId, method: Method<'_>) {
        let channel = &self.channels[id];
        if channel.awaiting == 0 {
            self.tell_channel(id, method);
            return;
        }
        let mut frame = Vec::new();
        method.write(channel.number, &mut frame);
        let up = channel.awaiting_on;
        match self.up_channels.get_mut(up) {
            Some(state) => state.pending.push_back(Pending::Local(frame.into())),
            None => self.tell_channel(id, method),
        }
    }

    /// Whether answers to earlier requests must come first; then the channel holds its frames.
    fn wait_for_answers(&mut self, id: ChannelId) -> bool {
        let channel = &mut self.channels[id];
        if channel.awaiting > 0 {
            channel.switch = Switch::Awaiting;
        }
        channel.awaiting > 0
    }

    /// Whether a request may go to this binding now: answers come in the order of the requests, so those that are
    /// awaited from another binding come first.
    pub(crate) fn may_ask(&mut self, id: ChannelId, up: UpChannelId) -> bool {
        let channel = &mut self.channels[id];
        if channel.awaiting > 0 && channel.awaiting_on != up {
            channel.switch = Switch::Awaiting;
            return false;
        }
        true
    }

    /// Writes a request upstream; its reply goes to the client.
    pub(crate) fn ask(&mut self, id: ChannelId, up: UpChannelId, note: Note, method: Method<'_>) {
        self.expect_answer(id, up, note, &method);
        let (upstream, number) = (self.up_channels[up].upstream, self.up_channels[up].number);
        self.tell_upstream(upstream, number, method);
    }

    fn expect_answer(&mut self, id: ChannelId, up: UpChannelId, note: Note, request: &Method<'_>) {
        let channel = &mut self.channels[id];
        channel.awaiting += 1;
        channel.awaiting_on = up;
        let state = &mut self.up_channels[up];
        let again = again(request, state.pending.len());
        state.pending.push_back(Pending::Client(request.id(), note, again));
    }

    /// Whether a request that Warren has written anew fits the broker's frames.
    pub(crate) fn fits(&self, up: UpChannelId, method: &Method<'_>) -> Result<(), Fault> {
        let mut frame = Vec::new();
        method.write(0, &mut frame);
        self.fits_upstream(up, &frame)
    }

    /// Writes a request upstream; its reply stays here.
    pub(crate) fn ask_quietly(&mut self, up: UpChannelId, note: Note, method: Method<'_>) {
        let state = &mut self.up_channels[up];
        let again = again(&method, state.pending.len());
        state.pending.push_back(Pending::Own(method.id(), note, again));
        let (upstream, number) = (state.upstream, state.number);
        self.tell_upstream(upstream, number, method);
    }

    /// Passes a request as it is.
    fn pass_request(
        &mut self,
        id: ChannelId,
        need: Need,
        frame: &[u8],
        no_wait: bool,
        note: Note,
    ) -> Result<Flow, Fault> {
        let Some(up) = self.ensure(id, need) else {
            return Ok(Flow::Hold);
        };
        if !no_wait && !self.may_ask(id, up) {
            return Ok(Flow::Hold);
        }
        self.fits_upstream(up, frame)?;
        let Ok(method) = Method::parse(&frame[HEADER_LEN..frame.len() - 1]) else { return Ok(Flow::Done) };
        if no_wait {
            self.ask_quietly(up, note, with_answer(method));
        } else {
            self.pass_frame(up, frame);
            self.expect_answer(id, up, note, &method);
        }
        Ok(Flow::Done)
    }

    /// Writes a client's frame upstream under the binding's number.
    pub(crate) fn pass_frame(&mut self, up: UpChannelId, frame: &[u8]) {
        let state = &self.up_channels[up];
        let (upstream, number) = (state.upstream, state.number);
        self.send_upstream(upstream, |out| {
            let at = out.len();
            out.extend_from_slice(frame);
            set_channel(out, at, number);
        });
    }

    /// An empty queue name means the queue declared last on the channel. `None`: its name is on the way, hold.
    pub(crate) fn queue_name(
        &mut self,
        id: ChannelId,
        name: &[u8],
        at: (u16, u16),
    ) -> Result<Option<Box<[u8]>>, Fault> {
        if !name.is_empty() {
            return Ok(Some(name.into()));
        }
        let channel = &mut self.channels[id];
        if channel.naming > 0 {
            channel.switch = Switch::Awaiting;
            return Ok(None);
        }
        if channel.last_queue.is_empty() {
            return Err(Fault::channel(404, "no previously declared queue", at));
        }
        Ok(Some(channel.last_queue.clone()))
    }

    /// Frames that waited for answers go on once all of them have come and no content is under way.
    pub(crate) fn resume_answered(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        if channel.switch == Switch::Awaiting && channel.is_quiet() {
            channel.switch = Switch::None;
            self.replays.push_back(id);
        }
        self.move_consumers(id);
    }

    /// Where a request about this queue must run: exclusive queues live on the session's own lane.
    pub(crate) fn need_for_queue(&self, id: ChannelId, name: &[u8]) -> Need {
        let session = &self.sessions.get(self.channels[id].session);
        if session.is_some_and(|s| s.exclusive.contains_key(name)) { Need::Lane } else { Need::Request }
    }

    fn client_declares(
        &mut self,
        id: ChannelId,
        declare: queue::Declare<'_>,
        frame: &[u8],
    ) -> Result<Flow, Fault> {
        let need = if declare.exclusive && !declare.passive {
            Need::Lane
        } else {
            self.need_for_queue(id, declare.queue)
        };
        let Some(up) = self.ensure(id, need) else {
            return Ok(Flow::Hold);
        };
        self.fits_upstream(up, frame)?;
        // Queues that go with their last consumer, hand over to the next one, or deliver from an offset are not
        // left even for a moment.
        let special = declare.auto_delete
            || [b"x-single-active-consumer".as_slice(), b"x-expires"]
                .iter()
                .any(|k| declare.arguments.get(k).is_some())
            || declare.arguments.get(b"x-queue-type") == Some(Value::Str(b"stream"));
        let exclusive = declare.exclusive && !declare.passive;
        let lasting = (!declare.passive).then_some(!exclusive && !special);
        let farm = self.channel_tenant(id).map(|t| self.tenants[t].farm);
        let default = farm.map(|farm| self.farms[farm].default_is_classic);
        let kind = (!declare.passive).then(|| kind_of(declare.arguments, default));
        let exclusive = exclusive.then_some(declare.auto_delete);
        let note = Note::Declare { exclusive, lasting, kind };
        // Its name must be known, even when the client does not wait for it.
        let method = Method::QueueDeclare(queue::Declare { no_wait: false, ..declare });
        if declare.no_wait {
            self.ask_quietly(up, note, method);
        } else if self.may_ask(id, up) {
            self.ask(id, up, note, method);
        } else {
            return Ok(Flow::Hold);
        }
        self.channels[id].naming += 1;
        Ok(Flow::Done)
    }

    fn client_binds(&mut self, id: ChannelId, bind: queue::Bind<'_>) -> Result<Flow, Fault> {
        let Some(name) = self.queue_name(id, bind.queue, (50, 20))? else { return Ok(Flow::Hold) };
        // RabbitMQ: with both names empty, the routing key is the queue's name.
        let both = bind.queue.is_empty() && bind.routing_key.is_empty();
        let routing_key = if both { &*name } else { bind.routing_key };
        let method = Method::QueueBind(queue::Bind { queue: &name, routing_key, ..bind });
        let need = self.need_for_queue(id, &name);
        self.queue_request(id, need, Note::Plain, method, bind.no_wait)
    }

    fn client_unbinds(&mut self, id: ChannelId, unbind: queue::Unbind<'_>) -> Result<Flow, Fault> {
        let Some(name) = self.queue_name(id, unbind.queue, (50, 50))? else { return Ok(Flow::Hold) };
        let both = unbind.queue.is_empty() && unbind.routing_key.is_empty();
        let routing_key = if both { &*name } else { unbind.routing_key };
        let method = Method::QueueUnbind(queue::Unbind { queue: &name, routing_key, ..unbind });
        let need = self.need_for_queue(id, &name);
        self.queue_request(id, need, Note::Plain, method, false)
    }

    fn client_purges(&mut self, id: ChannelId, purge: queue::Purge<'_>) -> Result<Flow, Fault> {
        let Some(name) = self.queue_name(id, purge.queue, (50, 30))? else { return Ok(Flow::Hold) };
        let method = Method::QueuePurge(queue::Purge { queue: &name, ..purge });
        let need = self.need_for_risk(id, &name, Risk::Purge);
        let note = Note::Risky { risk: Risk::Purge, queue: name.clone() };
        self.queue_request(id, need, note, method, purge.no_wait)
    }

    fn client_deletes(&mut self, id: ChannelId, delete: queue::Delete<'_>) -> Result<Flow, Fault> {
        let Some(name) = self.queue_name(id, delete.queue, (50, 40))? else { return Ok(Flow::Hold) };
        let need = match delete.if_unused || delete.if_empty {
            true => self.need_for_risk(id, &name, Risk::DeleteIf),
            false => self.need_for_queue(id, &name),
        };
        let Some(up) = self.ensure(id, need) else {
            return Ok(Flow::Hold);
        };
        let moving = |c: &Consumer| {
            c.queue == name && c.state != ConsumerState::Settling && c.state != ConsumerState::Active
        };
        if self.channels[id].consumers.iter().any(moving) {
            // A consumer of it is between two bindings: where it arrives, the queue must be there.
            self.channels[id].switch = Switch::Awaiting;
            return Ok(Flow::Hold);
        }
        let note = Note::Delete { name: name.clone() };
        let method = Method::QueueDelete(queue::Delete { queue: &name, no_wait: false, ..delete });
        self.fits(up, &method)?;
        if delete.no_wait {
            self.ask_quietly(up, note, method);
        } else if self.may_ask(id, up) {
            self.ask(id, up, note, method);
        } else {
            return Ok(Flow::Hold);
        }
        Ok(Flow::Done)
    }

    /// A request about a queue, its name expanded.
    fn queue_request(
        &mut self,
        id: ChannelId,
        need: Need,
        note: Note,
        method: Method<'_>,
        no_wait: bool,
    ) -> Result<Flow, Fault> {
        let Some(up) = self.ensure(id, need) else {
            return Ok(Flow::Hold);
        };
        if !no_wait && !self.may_ask(id, up) {
            return Ok(Flow::Hold);
        }
        self.fits(up, &method)?;
        if no_wait {
            self.ask_quietly(up, note, with_answer(method));
        } else {
            self.ask(id, up, note, method);
        }
        Ok(Flow::Done)
    }

    fn client_declares_exchange(
        &mut self,
        id: ChannelId,
        declare: &exchange::Declare<'_>,
        frame: &[u8],
    ) -> Result<Flow, Fault> {
        let known = declare.passive || EXCHANGE_TYPES.contains(&declare.kind);
        let need = if known { Need::Request } else { Need::Lane };
        self.pass_request(id, need, frame, declare.no_wait, Note::Plain)
    }

    /// confirm.select. On a channel without binding it is answered at once, and told upstream before the first
    /// publish.
    fn client_confirms(&mut self, id: ChannelId, select: confirm::Select) -> Result<Flow, Fault> {
        if self.channels[id].mode == Mode::Tx {
            return Err(Fault::channel(406, "cannot switch from tx to confirm mode", (85, 10)));
        }
        if let Some(up) = self.channels[id].current.filter(|_| !select.no_wait) {
            if !self.may_ask(id, up) {
                return Ok(Flow::Hold);
            }
            self.channels[id].mode = Mode::Confirm;
            self.mode_selected(up);
            self.ask(id, up, Note::Plain, Method::ConfirmSelect(select));
            return Ok(Flow::Done);
        }
        self.channels[id].mode = Mode::Confirm;
        if !select.no_wait {
            self.answer(id, Method::ConfirmSelectOk);
        }
        Ok(Flow::Done)
    }

    /// tx.select: on an own lane, from where a transaction never has to move.
    fn client_transacts(&mut self, id: ChannelId, frame: &[u8]) -> Result<Flow, Fault> {
        if self.channels[id].mode == Mode::Confirm {
            return Err(Fault::channel(406, "cannot switch from confirm to tx mode", (90, 10)));
        }
        let risky = |up: UpChannelId| self.up_channels[up].risky && self.up_channels[up].mode == Mode::Plain;
        if self.channels[id].current.is_some_and(risky) && self.prove_first(id) {
            // Else what was published before would count as the transaction's.
            return Ok(Flow::Hold);
        }
        let flow = self.pass_request(id, Need::Transaction, frame, false, Note::Plain)?;
        if flow == Flow::Done {
            let channel = &mut self.channels[id];
            channel.mode = Mode::Tx;
            channel.pinned = true;
            channel.tx.get_or_insert_default();
            if let Some(up) = channel.current {
                self.transacts(up);
            }
        }
        Ok(flow)
    }

    /// A binding has been told tx.select.
    pub(crate) fn transacts(&mut self, up: UpChannelId) {
        if let Some(state) = self.up_channels.get_mut(up) {
            state.mode = Mode::Tx;
            state.dirty = true;
        }
    }

    /// tx.commit or tx.rollback. What follows waits for the answer: it belongs to the next transaction, and RabbitMQ
    /// closes the connection for what comes before commit-ok.
    fn end_transaction(&mut self, id: ChannelId, frame: &[u8], note: Note) -> Result<Flow, Fault> {
        let flow = self.pass_request(id, Need::Transaction, frame, false, note)?;
        if flow == Flow::Done {
            self.channels[id].switch = Switch::Awaiting;
        }
        Ok(flow)
    }

    fn client_gets(&mut self, id: ChannelId, get: &basic::Get<'_>) -> Result<Flow, Fault> {
        let Some(name) = self.queue_name(id, get.queue, (60, 70))? else { return Ok(Flow::Hold) };
        let need = self.need_for_risk(id, &name, Risk::Get);
        let Some(up) = self.ensure(id, need) else {
            return Ok(Flow::Hold);
        };
        if !self.may_ask(id, up) {
            return Ok(Flow::Hold);
        }
        let method = Method::BasicGet(basic::Get { queue: &name, ..*get });
        self.fits(up, &method)?;
        self.ask(id, up, Note::Get { no_ack: get.no_ack, queue: name.clone() }, method);
        Ok(Flow::Done)
    }

    /// Kept for consumers that begin later. On a channel without binding it is answered at once, and told upstream
    /// before the first consumer.
    fn client_qos(&mut self, id: ChannelId, qos: &basic::Qos) -> Result<Flow, Fault> {
        if qos.prefetch_size != 0 {
            let detail = format!("prefetch_size!=0 ({})", qos.prefetch_size);
            return Err(Fault::connection(540, detail, (60, 10)));
        }
        let current = self.channels[id].current;
        if let Some(up) = current
            && !self.may_ask(id, up)
        {
            return Ok(Flow::Hold);
        }
        let channel = &mut self.channels[id];
        let count = Some(qos.prefetch_count);
        let known = if qos.global { &mut channel.global_prefetch } else { &mut channel.prefetch };
        *known = count;
        let Some(up) = current else {
            self.answer(id, Method::BasicQosOk);
            return Ok(Flow::Done);
        };
        let state = &mut self.up_channels[up];
        let applied = if qos.global { &mut state.applied_global } else { &mut state.applied_prefetch };
        *applied = count;
        state.dirty = true;
        self.ask(id, up, Note::Plain, Method::BasicQos(*qos));
        Ok(Flow::Done)
    }
}

/// Requests of one channel that are kept to be sent again, and octets of each: beyond that a client that asks without
/// waiting for answers would hold memory, and is told of a loss like without Warren.
const MOST_KEPT: usize = 256;
const LARGEST_KEPT: usize = 4096;

/// The request itself, if it may be sent again: twice is the same as once, or it is known from the record what it did.
fn again(request: &Method<'_>, pending: usize) -> Again {
    let harmless = match request {
        Method::QueueDeclare(declare) => !declare.queue.is_empty(),
        Method::QueueBind(_)
        | Method::QueueUnbind(_)
        | Method::ExchangeDeclare(_)
        | Method::ExchangeBind(_)
        | Method::ExchangeUnbind(_)
        | Method::BasicConsume(_)
        | Method::BasicCancel(_)
        | Method::BasicQos(_)
        | Method::BasicRecover(_)
        | Method::ConfirmSelect(_)
        | Method::TxSelect
        | Method::ChannelFlow(_) => true,
        _ => false,
    };
    let mut frame = Vec::new();
    if harmless && pending < MOST_KEPT {
        request.write(0, &mut frame);
    }
    (!frame.is_empty() && frame.len() <= LARGEST_KEPT).then(|| frame.into())
}

/// A request that its client wants no answer to, with one: Warren must know what became of it.
fn with_answer(request: Method<'_>) -> Method<'_> {
    match request {
        Method::ExchangeDeclare(m) => Method::ExchangeDeclare(exchange::Declare { no_wait: false, ..m }),
        Method::ExchangeDelete(m) => Method::ExchangeDelete(exchange::Delete { no_wait: false, ..m }),
        Method::ExchangeBind(m) => Method::ExchangeBind(exchange::Bind { no_wait: false, ..m }),
        Method::ExchangeUnbind(m) => Method::ExchangeUnbind(exchange::Unbind { no_wait: false, ..m }),
        Method::QueueBind(m) => Method::QueueBind(queue::Bind { no_wait: false, ..m }),
        Method::QueuePurge(m) => Method::QueuePurge(queue::Purge { no_wait: false, ..m }),
        other => other,
    }
}
