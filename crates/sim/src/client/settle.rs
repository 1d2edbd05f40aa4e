//! Settling deliveries: ack, nack, reject, one or many, and recover.

use warren_wire::Method;
use warren_wire::method::basic;

use super::Ctx;
use super::channel::{Channel, Consumer, Held, Hold, Life, Mark, Mode};
use super::replies::Expect;
use crate::cover::Path;
use crate::oracle::chan::Settle;

impl Channel {
    /// Settles something that it holds. False when there is nothing, or nothing may be settled now.
    pub fn settle(&mut self, ctx: &mut Ctx<'_>) -> bool {
        if self.held.is_empty() || self.recovering || self.doomed {
            return false;
        }
        let tags: Vec<u64> = self.held.keys().copied().collect();
        let tag = if ctx.rng.chance(1, 2) { tags[0] } else { *ctx.rng.pick(&tags) };
        match ctx.rng.below(12) {
            0..=4 => self.ack(tag, false, ctx),
            5..=6 => self.ack(tag, true, ctx),
            7 if self.knows_all_deliveries() => self.ack(0, true, ctx),
            8 => {
                let multiple = ctx.rng.chance(1, 2);
                let requeue = ctx.rng.chance(1, 2);
                let nack = basic::Nack { delivery_tag: tag, multiple, requeue };
                self.settle_with(&Method::BasicNack(nack), tag, multiple, how(requeue), ctx);
            }
            9 => {
                let requeue = ctx.rng.chance(1, 2);
                let reject = basic::Reject { delivery_tag: tag, requeue };
                self.settle_with(&Method::BasicReject(reject), tag, false, how(requeue), ctx);
            }
            _ => self.ack(tag, false, ctx),
        }
        true
    }

    /// Acknowledges all it holds, one after the other: so that a tidy end leaves nothing behind.
    pub fn ack(&mut self, tag: u64, multiple: bool, ctx: &mut Ctx<'_>) {
        ctx.cover.hit(match (tag, multiple) {
            (0, _) => Path::AckAll,
            (_, true) => Path::AckMultiple,
            (_, false) => Path::AckOne,
        });
        let ack = basic::Ack { delivery_tag: tag, multiple };
        self.settle_with(&Method::BasicAck(ack), tag, multiple, Settle::Gone, ctx);
    }

    /// Whether no delivery can be on its way: ack of 0 covers what the broker has written, seen here or not.
    fn knows_all_deliveries(&self) -> bool {
        // One that Warren has moved may be given as much again as its prefetch.
        let full = |c: &Consumer| c.prefetch > 0 && c.unacked >= 2 * c.prefetch;
        let may_come = |c: &Consumer| c.life != Life::Ended && !c.no_ack && !full(c);
        let getting = self.expect.iter().any(|e| matches!(e, Expect::Get { .. }));
        !getting && self.incoming.is_none() && !self.consumers.iter().any(may_come)
    }

    fn settle_with(&mut self, method: &Method<'_>, tag: u64, multiple: bool, how: Settle, ctx: &mut Ctx<'_>) {
        match how {
            Settle::Requeue => ctx.cover.hit(Path::Requeued),
            Settle::Gone if matches!(method, Method::BasicAck(_)) => {}
            Settle::Gone => ctx.cover.hit(Path::Rejected),
        }
        let covered: Vec<(u64, Held)> = match (multiple, tag) {
            (true, 0) => std::mem::take(&mut self.held).into_iter().collect(),
            (true, _) => {
                let rest = self.held.split_off(&(tag + 1));
                std::mem::replace(&mut self.held, rest).into_iter().collect()
            }
            (false, _) => self.held.remove(&tag).map(|held| (tag, held)).into_iter().collect(),
        };
        let counts = |(_, held): &&(u64, Held)| self.mode != Mode::Tx && held.hold != Hold::Stale;
        let counted = covered.iter().filter(counts).count();
        let last = covered.last().filter(|(_, held)| held.hold == Hold::Fresh);
        self.settled_tag = last.map(|&(tag, _)| tag);
        for (tag, held) in covered {
            self.settled(tag, held, how, ctx);
        }
        self.send(method, Mark::Seal { sealed: 0, settles: counted });
    }

    fn settled(&mut self, tag: u64, held: Held, how: Settle, ctx: &mut Ctx<'_>) {
        if self.mode == Mode::Tx {
            self.tx_settles.push((tag, held, how));
            if let (Some(own), Settle::Requeue) = (&mut self.own, how) {
                own.content = None;
            }
            return;
        }
        self.uncount(held);
        match held.hold {
            Hold::Stale => return ctx.cover.hit(Path::AckSwallowed),
            Hold::Fresh if ctx.oracle.messages[held.msg].taken_back => ctx.cover.hit(Path::SettledAgain),
            _ => {}
        }
        ctx.oracle.settle(self.chan, held.msg, how);
        if how == Settle::Requeue {
            self.back_to_own(held, ctx);
        }
    }

    /// A message of its own queue goes back to where it stood.
    fn back_to_own(&mut self, held: Held, ctx: &Ctx<'_>) {
        let Some(own) = &mut self.own else { return };
        if let Some(content) = &mut own.content
            && ctx.oracle.messages[held.msg].targets == [own.queue]
        {
            let place = content.partition_point(|&id| id < held.msg);
            content.insert(place, held.msg);
        }
    }

    /// Asks for all that it holds to be delivered again.
    pub fn recover(&mut self, ctx: &Ctx<'_>) -> bool {
        if self.doomed || self.recovering || self.mode == Mode::Tx {
            return false;
        }
        self.request(&Method::BasicRecover(basic::Recover { requeue: true }), Some(Expect::RecoverOk));
        self.recovering = true;
        self.recovers_before = ctx.oracle.recovers;
        if let Some(own) = &mut self.own {
            own.content = None;
        }
        true
    }
}

fn how(requeue: bool) -> Settle {
    if requeue { Settle::Requeue } else { Settle::Gone }
}
