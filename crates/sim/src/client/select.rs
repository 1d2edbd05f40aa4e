//! Confirm mode and transactions.

use warren_wire::Method;
use warren_wire::method::{confirm, tx};

use super::Ctx;
use super::channel::{Channel, Hold, Mark, Mode};
use super::replies::{Expect, Mail};

impl Channel {
    /// Turns confirms on; again, as often as not, when they are on.
    pub fn confirm_select(&mut self, ctx: &mut Ctx<'_>) -> bool {
        if self.mode == Mode::Tx || self.doomed {
            return false;
        }
        let no_wait = ctx.rng.chance(1, 5);
        let m = confirm::Select { no_wait };
        let expect = (!no_wait).then_some(Expect::Method(confirm::SELECT_OK));
        self.request(&Method::ConfirmSelect(m), expect);
        self.mode = Mode::Confirm;
        true
    }

    /// Turns transactions on.
    pub fn tx_select(&mut self) -> bool {
        if self.mode == Mode::Confirm || self.doomed {
            return false;
        }
        self.request(&Method::TxSelect, Some(Expect::Method(tx::SELECT_OK)));
        self.mode = Mode::Tx;
        true
    }

    /// Commits: what the transaction holds is due now.
    pub fn commit(&mut self, ctx: &mut Ctx<'_>) -> bool {
        if self.mode != Mode::Tx || self.doomed {
            return false;
        }
        let publishes = std::mem::take(&mut self.tx_publishes);
        for &(id, returns) in &publishes {
            ctx.oracle.expect_arrival(self.chan, id);
            self.returns_due.extend(returns.then_some(id));
        }
        let settles = std::mem::take(&mut self.tx_settles);
        for &(_, held, how) in &settles {
            self.uncount(held);
            if held.hold != Hold::Stale {
                ctx.oracle.settle(self.chan, held.msg, how);
            }
        }
        let counted = settles.iter().filter(|(_, held, _)| held.hold != Hold::Stale).count();
        self.send(&Method::TxCommit, Mark::Seal { sealed: publishes.len(), settles: counted });
        self.mail.push(Mail::CommitOk(publishes.into_iter().map(|(id, _)| id).collect()));
        // RabbitMQ closes the connection of a client that goes on before commit-ok.
        self.committing = true;
        true
    }

    /// Takes everything back: publishes never happened, and deliveries are to be settled again.
    pub fn rollback(&mut self, ctx: &mut Ctx<'_>) -> bool {
        if self.mode != Mode::Tx || self.doomed {
            return false;
        }
        for (id, _) in std::mem::take(&mut self.tx_publishes) {
            ctx.oracle.messages[id].fate = crate::oracle::message::Fate::Never;
        }
        self.settled_tag = None;
        let undone = std::mem::take(&mut self.tx_settles);
        self.held.extend(undone.into_iter().map(|(tag, held, _)| (tag, held)));
        self.request(&Method::TxRollback, Some(Expect::RollbackOk));
        true
    }
}
