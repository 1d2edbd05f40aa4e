//! Errors committed on purpose: each has one channel closed, or the whole connection, and nobody else's.

use warren_wire::content::{write_body, write_content, write_header};
use warren_wire::method::{basic, channel, exchange, queue};
use warren_wire::{BasicProperties, Method, MethodId, Table};

use super::channel::{Channel, Life, Mark, Mode, Unit};
use super::publish::Publish;
use super::topology::declare;
use super::{Client, Ctx, Me};
use crate::oracle::Kind;
use crate::scenario::{DIRECT, REPLY_TO};

const MISSING: &[u8] = b"missing";

impl Channel {
    /// Commits an error that costs this channel. False when chance chose one that does not fit.
    pub fn err(&mut self, me: Me, ctx: &mut Ctx<'_>) -> bool {
        if self.doomed {
            return false;
        }
        match ctx.rng.below(16) {
            0..=4 => self.publish_missing(me, ctx),
            5 => self.publish_wrongly(me, ctx),
            6..=7 => return self.settle_unknown(ctx),
            8..=9 => self.use_missing(ctx),
            10..=11 => return self.use_nameless(ctx),
            12 => self.change_mode(),
            13 => self.declare_wrongly(me, ctx),
            _ => return self.use_locked(me, ctx),
        }
        true
    }

    fn publish_missing(&mut self, me: Me, ctx: &mut Ctx<'_>) {
        let publish = Publish { exchange: MISSING, key: b"any", offence: Some(&[404]), ..Publish::default() };
        self.publish(&publish, me, ctx);
    }

    /// In another user's name, or as a request with nobody to take the reply.
    fn publish_wrongly(&mut self, me: Me, ctx: &mut Ctx<'_>) {
        let listens = self.consumers.iter().any(|c| c.reply && c.life != Life::Ended);
        let reply = ctx.rng.chance(1, 2) && !listens;
        let publish = Publish {
            exchange: DIRECT,
            key: b"any",
            user_id: (!reply).then_some(b"somebody"),
            reply_to: reply.then_some(REPLY_TO),
            offence: Some(&[406]),
            ..Publish::default()
        };
        self.publish(&publish, me, ctx);
    }

    /// A tag that never was, or one that is settled, even as the last of many.
    fn settle_unknown(&mut self, ctx: &mut Ctx<'_>) -> bool {
        // Between recover and its answer nobody here knows which tags are known.
        if self.recovering {
            return false;
        }
        let settled = self.settled_tag.filter(|_| ctx.rng.chance(1, 2));
        let tag = settled.unwrap_or(self.next_tag + 1000 + ctx.rng.below(3) as u64);
        let multiple = ctx.rng.chance(1, 3);
        match ctx.rng.below(3) {
            0 => self.offend(&Method::BasicAck(basic::Ack { delivery_tag: tag, multiple }), &[406]),
            1 => {
                let nack = basic::Nack { delivery_tag: tag, multiple, requeue: true };
                self.offend(&Method::BasicNack(nack), &[406]);
            }
            _ => {
                let reject = basic::Reject { delivery_tag: tag, requeue: true };
                self.offend(&Method::BasicReject(reject), &[406]);
            }
        }
        true
    }

    fn use_missing(&mut self, ctx: &mut Ctx<'_>) {
        let method = match ctx.rng.below(6) {
            0 => Method::QueueDeclare(queue::Declare { passive: true, ..declare(MISSING) }),
            1 => Method::BasicGet(basic::Get { queue: MISSING, no_ack: false }),
            2 => Method::BasicConsume(consume_once(MISSING)),
            3 => Method::QueuePurge(queue::Purge { queue: MISSING, no_wait: false }),
            4 => Method::QueueBind(bind(MISSING, DIRECT)),
            _ => {
                let declare = exchange::Declare { passive: true, ..exchange_of_kind(b"direct") };
                Method::ExchangeDeclare(declare)
            }
        };
        self.offend(&method, &[404]);
    }

    /// An empty queue name where nothing was declared before.
    fn use_nameless(&mut self, ctx: &mut Ctx<'_>) -> bool {
        if self.last_queue.is_some() || self.named_before {
            return false;
        }
        let method = match ctx.rng.below(5) {
            0 => Method::BasicGet(basic::Get { queue: b"", no_ack: true }),
            1 => Method::BasicConsume(consume_once(b"")),
            2 => Method::QueuePurge(queue::Purge { queue: b"", no_wait: false }),
            3 => Method::QueueBind(bind(b"", DIRECT)),
            _ => {
                let delete = queue::Delete { queue: b"", if_unused: false, if_empty: false, no_wait: false };
                Method::QueueDelete(delete)
            }
        };
        self.offend(&method, &[404]);
        true
    }

    fn change_mode(&mut self) {
        let method = match self.mode {
            Mode::Confirm => Method::TxSelect,
            Mode::Tx => Method::ConfirmSelect(warren_wire::method::confirm::Select { no_wait: false }),
            Mode::Plain => Method::TxCommit,
        };
        self.offend(&method, &[406]);
    }

    /// A reserved name, or a queue that is there with other properties.
    fn declare_wrongly(&mut self, me: Me, ctx: &mut Ctx<'_>) {
        if ctx.rng.chance(1, 2) {
            self.offend(&Method::QueueDeclare(declare(b"amq.mine")), &[403]);
            return;
        }
        let found = ctx.oracle.queues_of(me.vhost, Kind::Stable).next();
        let name = found.map(|queue| ctx.oracle.queues[queue].name.clone()).unwrap_or_default();
        self.offend(&Method::QueueDeclare(declare(&name)), &[406]);
    }

    /// Another client's exclusive queue. It may be gone by then.
    fn use_locked(&mut self, me: Me, ctx: &mut Ctx<'_>) -> bool {
        let other = |q: &&crate::oracle::Queue| {
            q.vhost == me.vhost && q.owner.is_some_and(|owner| owner != me.session) && !q.name.is_empty()
        };
        let names: Vec<&Vec<u8>> = ctx.oracle.queues.iter().filter(other).map(|q| &q.name).collect();
        if names.is_empty() {
            return false;
        }
        let name = ctx.rng.pick(&names).as_slice();
        let method = match ctx.rng.below(5) {
            0 => Method::QueueDeclare(queue::Declare { passive: true, ..declare(name) }),
            1 => Method::BasicGet(basic::Get { queue: name, no_ack: false }),
            2 => Method::BasicConsume(consume_once(name)),
            3 => Method::QueuePurge(queue::Purge { queue: name, no_wait: false }),
            _ => Method::QueueBind(bind(name, DIRECT)),
        };
        self.offend(&method, &[404, 405]);
        true
    }
}

fn consume_once(queue: &[u8]) -> basic::Consume<'_> {
    basic::Consume {
        queue,
        consumer_tag: b"once",
        no_local: false,
        no_ack: false,
        exclusive: false,
        no_wait: false,
        arguments: Table::EMPTY,
    }
}

fn bind<'a>(queue: &'a [u8], exchange: &'a [u8]) -> queue::Bind<'a> {
    queue::Bind { queue, exchange, routing_key: b"any", no_wait: false, arguments: Table::EMPTY }
}

impl Client {
    /// Commits an error that costs the connection. False when it does not fit.
    pub(super) fn err(&mut self, place: usize, ctx: &mut Ctx<'_>) -> bool {
        let channel = &mut self.channels[place];
        // The channel must be one that the broker still listens to, and hear nothing else first.
        if channel.doomed || !channel.is_usable() {
            return false;
        }
        let Some((code, method)) = channel.err_fatally(ctx) else { return false };
        channel.doomed = true;
        while self.write_unit(place, ctx) {}
        self.doom = Some((code, method));
        true
    }
}

impl Channel {
    /// Sends what no shared connection would survive. Returns the code and the method to blame.
    fn err_fatally(&mut self, ctx: &mut Ctx<'_>) -> Option<(u16, MethodId)> {
        let twice = self.consumers.iter().find(|c| c.life == Life::Active && !c.reply && !c.tag.is_empty());
        let twice = twice.map(|c| (c.tag.clone(), c.queue));
        let (code, method) = match ctx.rng.below(10) {
            0 => {
                let qos = basic::Qos { prefetch_size: 7, prefetch_count: 1, global: false };
                (540, Method::BasicQos(qos))
            }
            1 => (540, Method::ChannelFlow(channel::Flow { active: false })),
            2 => (540, Method::BasicRecover(basic::Recover { requeue: false })),
            3 => (504, Method::ChannelOpen),
            5 => (503, Method::ExchangeDeclare(exchange_of_kind(b"no-such-kind"))),
            4 => (503, Method::QueueBindOk),
            6 | 7 => {
                let (tag, queue) = twice?;
                let name = ctx.oracle.queues[queue].name.clone();
                let again = basic::Consume { consumer_tag: &tag, ..consume_once(&name) };
                self.send(&Method::BasicConsume(again), Mark::Plain);
                return Some((530, basic::CONSUME));
            }
            8 => return Some((540, self.publish_immediately())),
            _ => return Some((505, self.break_content(ctx))),
        };
        self.send(&method, Mark::Plain);
        Some((code, method.id()))
    }

    fn publish_immediately(&mut self) -> MethodId {
        let publish =
            basic::Publish { exchange: DIRECT, routing_key: b"any", mandatory: false, immediate: true };
        let mut bytes = Vec::new();
        Method::BasicPublish(publish).write(self.number, &mut bytes);
        write_content(self.number, &BasicProperties::default(), b"now", 4096, &mut bytes);
        self.outgoing.push_back(Unit { bytes, mark: Mark::Plain });
        basic::PUBLISH
    }

    /// A method where a header or a body is due, or a header where none is.
    fn break_content(&mut self, ctx: &mut Ctx<'_>) -> MethodId {
        let publish =
            basic::Publish { exchange: DIRECT, routing_key: b"any", mandatory: false, immediate: false };
        let mut bytes = Vec::new();
        let blamed = match ctx.rng.below(3) {
            0 => {
                write_header(self.number, 10, &BasicProperties::default(), &mut bytes);
                0
            }
            1 => {
                Method::BasicPublish(publish).write(self.number, &mut bytes);
                basic::PUBLISH
            }
            _ => {
                Method::BasicPublish(publish).write(self.number, &mut bytes);
                write_header(self.number, 10, &BasicProperties::default(), &mut bytes);
                write_body(self.number, b"half", &mut bytes);
                basic::PUBLISH
            }
        };
        if blamed != 0 {
            Method::TxSelect.write(self.number, &mut bytes);
        }
        self.outgoing.push_back(Unit { bytes, mark: Mark::Plain });
        blamed
    }
}

fn exchange_of_kind(kind: &[u8]) -> exchange::Declare<'_> {
    exchange::Declare {
        exchange: MISSING,
        kind,
        passive: false,
        durable: false,
        auto_delete: false,
        internal: false,
        no_wait: false,
        arguments: Table::EMPTY,
    }
}
