//! Declaring, binding, purging and deleting: queues that stay, and a queue of the channel's own.

use std::collections::VecDeque;

use warren_wire::method::{exchange, queue};
use warren_wire::{Method, Table};

use super::channel::{Channel, Life, Mode, Own};
use super::replies::Expect;
use super::{Ctx, Me};
use crate::cover::Path;
use crate::oracle::{Kind, QueueIx};
use crate::scenario::DIRECT;

/// A declare with nothing set.
pub fn declare(queue: &[u8]) -> queue::Declare<'_> {
    queue::Declare {
        queue,
        passive: false,
        durable: false,
        exclusive: false,
        auto_delete: false,
        no_wait: false,
        arguments: Table::EMPTY,
    }
}

impl Channel {
    /// The name to use for `queue`: empty if that stands for it, now and then.
    pub fn name_of(&self, queue: QueueIx, ctx: &mut Ctx<'_>) -> Vec<u8> {
        let name = ctx.oracle.queues[queue].name.clone();
        let known = self.own.as_ref().is_none_or(|own| own.queue != queue || own.named);
        let short = self.last_queue == Some(queue) && (!known || name.is_empty() || ctx.rng.chance(1, 2));
        if short {
            ctx.cover.hit(Path::EmptyName);
            return Vec::new();
        }
        name
    }

    /// Declares a queue that is there, passively or as it is.
    pub fn declare_stable(&mut self, me: Me, ctx: &mut Ctx<'_>) {
        let queues: Vec<QueueIx> = ctx.oracle.queues_of(me.vhost, Kind::Stable).collect();
        let queue = *ctx.rng.pick(&queues);
        let name = ctx.oracle.queues[queue].name.clone();
        let passive = ctx.rng.chance(1, 2);
        let no_wait = ctx.rng.chance(1, 6);
        let m = queue::Declare { passive, durable: true, no_wait, ..declare(&name) };
        let expect = (!no_wait).then_some(Expect::DeclareOk(queue, None));
        self.request(&Method::QueueDeclare(m), expect);
        if !self.doomed {
            (self.last_queue, self.named_before) = (Some(queue), true);
        }
        self.cover_purpose(0, ctx);
    }

    /// Declares a queue of its own, once.
    pub fn declare_own(&mut self, me: Me, names: &mut u32, ctx: &mut Ctx<'_>) -> bool {
        if self.own.is_some() || self.doomed {
            return false;
        }
        *names += 1;
        let by_server = ctx.rng.chance(1, 3);
        let name = if by_server { String::new() } else { format!("own.{}.{names}", me.session) };
        let exclusive = ctx.rng.chance(1, 2);
        let no_wait = ctx.rng.chance(1, 4);
        let queue = ctx.oracle.add_queue(me.vhost, name.as_bytes(), Kind::Own);
        if exclusive {
            ctx.oracle.queues[queue].owner = Some(me.session);
            ctx.oracle.queues[queue].exclusive = true;
            ctx.cover.hit(Path::Exclusive);
        }
        if by_server && no_wait {
            ctx.cover.hit(Path::ServerNamedNoWait);
        }
        let auto_delete = ctx.rng.chance(1, 3);
        let m = queue::Declare { exclusive, auto_delete, no_wait, ..declare(name.as_bytes()) };
        let expect = (!no_wait).then_some(Expect::DeclareOk(queue, Some(0)));
        self.note_risk(no_wait && by_server, ctx);
        self.request(&Method::QueueDeclare(m), expect);
        (self.last_queue, self.named_before) = (Some(queue), true);
        self.own = Some(Own {
            queue,
            named: !(by_server && no_wait),
            bound: None,
            content: Some(VecDeque::new()),
            auto_delete,
        });
        self.cover_purpose(0, ctx);
        true
    }

    /// Whether its own queue can be named now; the answer that names it may still be on its way.
    fn own_name(&self, ctx: &mut Ctx<'_>) -> Option<(QueueIx, Vec<u8>)> {
        let own = self.own.as_ref().filter(|_| !self.doomed)?;
        let queue = own.queue;
        let name = self.name_of(queue, ctx);
        (!name.is_empty() || self.last_queue == Some(queue)).then_some((queue, name))
    }

    fn own_count(&self) -> Option<usize> {
        let own = self.own.as_ref()?;
        own.content.as_ref().map(VecDeque::len)
    }

    /// Asks how many messages its own queue has.
    pub fn inspect_own(&mut self, ctx: &mut Ctx<'_>) -> bool {
        let Some((queue, _)) = self.own_name(ctx) else { return false };
        let name = ctx.oracle.queues[queue].name.clone();
        if name.is_empty() {
            return false; // a passive declare wants a name
        }
        let m = queue::Declare { passive: true, ..declare(&name) };
        self.request(&Method::QueueDeclare(m), Some(Expect::DeclareOk(queue, self.own_count())));
        self.last_queue = Some(queue);
        true
    }

    /// Binds its own queue to the direct exchange by a key of its own.
    pub fn bind_own(&mut self, me: Me, names: &mut u32, ctx: &mut Ctx<'_>) -> bool {
        let Some((_, name)) = self.own_name(ctx) else { return false };
        if self.own.as_ref().is_some_and(|own| own.bound.is_some()) {
            return false;
        }
        *names += 1;
        let key = format!("key.{}.{names}", me.session).into_bytes();
        let no_wait = ctx.rng.chance(1, 5);
        let m = queue::Bind {
            queue: &name,
            exchange: DIRECT,
            routing_key: &key,
            no_wait,
            arguments: Table::EMPTY,
        };
        let expect = (!no_wait).then_some(Expect::Method(queue::BIND_OK));
        self.request(&Method::QueueBind(m), expect);
        if let Some(own) = &mut self.own {
            own.bound = Some(key);
        }
        true
    }

    /// Takes the binding back.
    pub fn unbind_own(&mut self, ctx: &mut Ctx<'_>) -> bool {
        let Some((_, name)) = self.own_name(ctx) else { return false };
        let Some(key) = self.own.as_mut().and_then(|own| own.bound.take()) else { return false };
        let m = queue::Unbind { queue: &name, exchange: DIRECT, routing_key: &key, arguments: Table::EMPTY };
        self.request(&Method::QueueUnbind(m), Some(Expect::Method(queue::UNBIND_OK)));
        true
    }

    /// Purges its own queue.
    pub fn purge_own(&mut self, ctx: &mut Ctx<'_>) -> bool {
        let Some((_, name)) = self.own_name(ctx) else { return false };
        let count = self.own_count();
        let no_wait = ctx.rng.chance(1, 5);
        let m = queue::Purge { queue: &name, no_wait };
        self.note_risk(no_wait, ctx);
        self.request(&Method::QueuePurge(m), (!no_wait).then_some(Expect::PurgeOk(count)));
        if let Some(content) = self.own.as_mut().and_then(|own| own.content.as_mut()) {
            content.clear();
        }
        true
    }

    /// Deletes its own queue. Not while it holds deliveries of it or consumes from it, unless the latter is told.
    pub fn delete_own(&mut self, me: Me, ctx: &mut Ctx<'_>) -> bool {
        let Some((queue, name)) = self.own_name(ctx) else { return false };
        let getting = |e: &Expect| matches!(*e, Expect::Get { queue: from, .. } if from == queue);
        let cancelling = |life| matches!(life, Life::Asked | Life::Cancelling);
        let busy = self.consumers.iter().any(|c| {
            c.queue == queue && (cancelling(c.life) || (c.life == Life::Active && !me.cancel_notify))
        });
        if busy || self.expect.iter().any(getting) || self.mode == Mode::Tx {
            return false;
        }
        let no_wait = ctx.rng.chance(1, 5);
        let m = queue::Delete { queue: &name, if_unused: false, if_empty: false, no_wait };
        let expect = (!no_wait).then_some(Expect::DeleteOk(self.own_count()));
        self.note_risk(no_wait, ctx);
        self.request(&Method::QueueDelete(m), expect);
        ctx.oracle.queues[queue].deleted = true;
        ctx.oracle.queues[queue].owner = None;
        self.own = None;
        self.last_queue = None;
        true
    }

    /// Declares an exchange and deletes it again.
    pub fn exchange_pair(&mut self, me: Me, names: &mut u32, ctx: &mut Ctx<'_>) {
        *names += 1;
        let name = format!("exchange.{}.{names}", me.session);
        let m = exchange::Declare {
            exchange: name.as_bytes(),
            kind: b"topic",
            passive: false,
            durable: false,
            auto_delete: false,
            internal: false,
            no_wait: false,
            arguments: Table::EMPTY,
        };
        self.request(&Method::ExchangeDeclare(m), Some(Expect::Method(exchange::DECLARE_OK)));
        let m = exchange::Delete { exchange: name.as_bytes(), if_unused: false, no_wait: false };
        self.request(&Method::ExchangeDelete(m), Some(Expect::Method(exchange::DELETE_OK)));
        self.cover_purpose(0, ctx);
    }

    /// Remembers a request whose answer nobody will see here.
    fn note_risk(&mut self, no_wait: bool, ctx: &Ctx<'_>) {
        if no_wait {
            self.risked_at = Some(ctx.now);
        }
    }
}
