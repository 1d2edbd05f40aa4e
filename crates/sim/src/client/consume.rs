//! Consuming, cancelling, getting, and limits on deliveries.

use warren_wire::method::basic;
use warren_wire::{Method, Table};

use super::channel::{Channel, Consumer, Life, Mode};
use super::plan::Role;
use super::replies::{Expect, Mail};
use super::{Ctx, Me};
use crate::oracle::{Kind, QueueIx};
use crate::scenario::REPLY_TO;

impl Channel {
    /// Begins a consumer on a queue that stays, on its own, or for replies.
    pub fn consume(&mut self, me: Me, names: &mut u32, ctx: &mut Ctx<'_>) -> bool {
        let live = self.consumers.iter().filter(|c| c.life != Life::Ended).count();
        if live >= 3 || self.doomed {
            return false;
        }
        match self.role {
            Role::Requester => self.consume_replies(me, names, ctx),
            Role::Responder => {
                let queues: Vec<QueueIx> = ctx.oracle.queues_of(me.vhost, Kind::Stable).collect();
                self.begin_consumer(queues[0], names, me, ctx)
            }
            Role::Owner => self.consume_own(me, names, ctx),
            _ => {
                let kind = if ctx.rng.chance(1, 4) { Kind::Fan } else { Kind::Stable };
                let queues: Vec<QueueIx> = ctx.oracle.queues_of(me.vhost, kind).collect();
                let queue = *ctx.rng.pick(&queues);
                self.begin_consumer(queue, names, me, ctx)
            }
        }
    }

    fn consume_own(&mut self, me: Me, names: &mut u32, ctx: &mut Ctx<'_>) -> bool {
        let Some(own) = &self.own else { return false };
        let (queue, auto_delete) = (own.queue, own.auto_delete);
        let consumed = self.consumers.iter().any(|c| c.queue == queue && c.life != Life::Ended);
        if auto_delete && consumed || !self.begin_consumer(queue, names, me, ctx) {
            return false;
        }
        if let Some(own) = &mut self.own {
            own.content = None;
        }
        true
    }

    /// Direct reply-to, or an exclusive queue for replies.
    fn consume_replies(&mut self, me: Me, names: &mut u32, ctx: &mut Ctx<'_>) -> bool {
        let before = self.consumers.iter().any(|c| c.reply);
        if self.reply_queue.is_some() || before {
            return false;
        }
        if ctx.rng.chance(1, 3) {
            // The old way: a queue of its own, which must have a name before it can be given as an address.
            let Some(own) = self.own.as_ref().filter(|own| own.named) else {
                return self.declare_own(me, names, ctx);
            };
            let queue = own.queue;
            if ctx.oracle.queues[queue].name.is_empty() || !self.consume_own(me, names, ctx) {
                return false;
            }
            self.reply_queue = Some(queue);
            return true;
        }
        let queue = ctx.oracle.add_queue(me.vhost, b"", Kind::Reply);
        self.reply_queue = Some(queue);
        *names += 1;
        let tag = format!("tag.{}.{names}", me.session).into_bytes();
        let m = consume(REPLY_TO, &tag, true);
        self.start(m, queue, true, ctx);
        true
    }

    fn begin_consumer(&mut self, queue: QueueIx, names: &mut u32, me: Me, ctx: &mut Ctx<'_>) -> bool {
        let name = self.name_of(queue, ctx);
        if name.is_empty() && self.last_queue != Some(queue) {
            return false;
        }
        *names += 1;
        let by_server = ctx.rng.chance(1, 5);
        let tag = if by_server { String::new() } else { format!("tag.{}.{names}", me.session) };
        let no_ack = ctx.rng.chance(ctx.scenario.no_ack, 10);
        let mut m = consume(&name, tag.as_bytes(), no_ack);
        m.no_wait = !by_server && ctx.rng.chance(1, 8);
        self.start(m, queue, false, ctx);
        true
    }

    fn start(&mut self, m: basic::Consume<'_>, queue: QueueIx, reply: bool, ctx: &mut Ctx<'_>) {
        let place = self.consumers.len();
        self.consumers.push(Consumer {
            tag: m.consumer_tag.to_vec(),
            queue,
            no_ack: m.no_ack,
            prefetch: self.prefetch,
            unacked: 0,
            life: if m.no_wait { Life::Active } else { Life::Asked },
            reply,
            last: 0,
            orphans: Vec::new(),
        });
        if !m.consumer_tag.is_empty() {
            ctx.oracle.tags.insert(m.consumer_tag.to_vec(), (self.chan, queue));
        }
        self.request(&Method::BasicConsume(m), None);
        if !m.no_wait {
            self.mail.push(Mail::ConsumeOk(place));
        }
        self.cover_purpose(2, ctx);
    }

    /// Ends a consumer.
    pub fn cancel(&mut self, ctx: &mut Ctx<'_>) -> bool {
        if self.doomed {
            return false;
        }
        let active: Vec<usize> = (0..self.consumers.len())
            .filter(|&at| {
                let consumer = &self.consumers[at];
                // One whose queue was deleted ends by itself.
                let there = !ctx.oracle.queues[consumer.queue].deleted;
                consumer.life == Life::Active && !consumer.tag.is_empty() && there
            })
            .collect();
        if active.is_empty() {
            return false;
        }
        let place = *ctx.rng.pick(&active);
        let consumer = &mut self.consumers[place];
        let m = basic::Cancel { consumer_tag: &consumer.tag.clone(), no_wait: false };
        consumer.life = Life::Cancelling;
        if consumer.reply {
            ctx.oracle.queues[consumer.queue].deleted = true;
            self.reply_queue = None;
        }
        let queue = consumer.queue;
        if self.own.as_ref().is_some_and(|own| own.queue == queue) {
            self.reply_queue = None;
        }
        if self.own.as_ref().is_some_and(|own| own.queue == queue && own.auto_delete) {
            ctx.oracle.queues[queue].deleted = true;
            ctx.oracle.queues[queue].owner = None;
            self.own = None;
            self.last_queue = None;
        }
        self.request(&Method::BasicCancel(m), None);
        self.mail.push(Mail::CancelOk(place));
        true
    }

    /// Sets the prefetch of consumers to come.
    pub fn qos(&mut self, ctx: &mut Ctx<'_>) {
        let prefetch_count = *ctx.rng.pick(&[0, 1, 1, 2, 3, 5, 20]);
        let m = basic::Qos { prefetch_size: 0, prefetch_count, global: false };
        self.request(&Method::BasicQos(m), Some(Expect::Method(basic::QOS_OK)));
        if !self.doomed {
            self.prefetch = prefetch_count;
        }
    }

    /// Gets one message from a queue that stays.
    pub fn get(&mut self, me: Me, ctx: &mut Ctx<'_>) -> bool {
        let kind = if ctx.rng.chance(1, 5) { Kind::Fan } else { Kind::Stable };
        let queues: Vec<QueueIx> = ctx.oracle.queues_of(me.vhost, kind).collect();
        let queue = match self.last_queue {
            Some(queue) if ctx.oracle.queues[queue].kind == Kind::Stable => queue,
            _ => *ctx.rng.pick(&queues),
        };
        self.get_from(queue, None, ctx)
    }

    /// Gets one message from its own queue, and knows which, unless somebody consumes from it.
    pub fn get_own(&mut self, ctx: &mut Ctx<'_>) -> bool {
        let Some(own) = self.own.as_mut().filter(|_| !self.doomed) else { return false };
        let queue = own.queue;
        let exactly = own.content.as_mut().map(|content| content.pop_front());
        let got = self.get_from(queue, exactly, ctx);
        if !got
            && let Some(Some(id)) = exactly
            && let Some(content) = self.own.as_mut().and_then(|own| own.content.as_mut())
        {
            content.push_front(id);
        }
        got
    }

    fn get_from(&mut self, queue: QueueIx, exactly: Option<Option<usize>>, ctx: &mut Ctx<'_>) -> bool {
        let name = self.name_of(queue, ctx);
        if name.is_empty() && self.last_queue != Some(queue) || self.recovering && self.mode == Mode::Tx {
            return false;
        }
        let no_ack = ctx.rng.chance(1, 3);
        let m = basic::Get { queue: &name, no_ack };
        self.request(&Method::BasicGet(m), Some(Expect::Get { queue, no_ack, exactly }));
        self.cover_purpose(2, ctx);
        true
    }
}

fn consume<'a>(queue: &'a [u8], consumer_tag: &'a [u8], no_ack: bool) -> basic::Consume<'a> {
    basic::Consume {
        queue,
        consumer_tag,
        no_local: false,
        no_ack,
        exclusive: false,
        no_wait: false,
        arguments: Table::EMPTY,
    }
}
