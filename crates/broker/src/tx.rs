//! Transactions: publishes and acknowledgements held until commit.

use std::sync::Arc;

use warren_wire::Method;

use crate::call::Call;
use crate::channel::{Event, Mode, Unacked};
use crate::core::QueueKey;
use crate::fault::{Fault, Outcome};
use crate::message::Message;
use crate::settle::Fate;

/// The open transaction of a channel.
#[derive(Debug, Default)]
pub(crate) struct Tx {
    publishes: Vec<HeldPublish>,
    pub(crate) settled: Vec<(Vec<Unacked>, Fate)>,
    /// `tx.commit-ok` waits for the queues. Any method but a close is an error meanwhile.
    pub(crate) committing: bool,
}

#[derive(Debug)]
pub(crate) struct HeldPublish {
    pub(crate) message: Arc<Message>,
    /// Routed when it was published, not at commit.
    pub(crate) routes: Vec<QueueKey>,
    pub(crate) mandatory: bool,
}

impl Tx {
    pub(crate) fn hold(&mut self, list: Vec<Unacked>, fate: Fate) {
        self.settled.push((list, fate));
    }

    pub(crate) fn hold_publish(&mut self, publish: HeldPublish) {
        self.publishes.push(publish);
    }

    /// Deliveries whose settlement was never committed.
    pub(crate) fn into_unsettled(self) -> impl Iterator<Item = Unacked> {
        self.settled.into_iter().flat_map(|(list, _)| list)
    }
}

impl Call<'_> {
    pub(crate) fn tx_select(&mut self) -> Outcome {
        let channel = self.channel();
        match channel.mode {
            Mode::Confirm(_) => return Err(Fault::precondition("cannot switch from confirm to tx mode")),
            Mode::Plain => channel.mode = Mode::Tx(Tx::default()),
            Mode::Tx(_) => {}
        }
        self.reply(Method::TxSelectOk);
        Ok(())
    }

    pub(crate) fn tx_commit(&mut self) -> Outcome {
        let tx = self.take_tx()?;
        let mut routed = false;
        let mut refused = false;
        for held in tx.publishes {
            let accepted = self.deliver_to_queues(&held.message, &held.routes, held.mandatory);
            routed |= !held.routes.is_empty();
            refused |= !accepted;
        }
        for (list, fate) in tx.settled {
            self.core.settle(Some(self.key), list, fate);
        }
        if refused {
            return Err(Fault::precondition("partial tx completion"));
        }
        if routed {
            // The queues answer first, as confirms would come; the answer then passes through the mailbox.
            if let Mode::Tx(tx) = &mut self.channel().mode {
                tx.committing = true;
            }
            self.post(Event::CommitOk);
        } else {
            self.reply(Method::TxCommitOk);
        }
        Ok(())
    }

    pub(crate) fn tx_rollback(&mut self) -> Outcome {
        let tx = self.take_tx()?;
        let channel = self.channel();
        channel.unacked.extend(tx.into_unsettled());
        channel.unacked.make_contiguous().sort_unstable_by_key(|u| u.tag);
        self.reply(Method::TxRollbackOk);
        Ok(())
    }

    /// What the transaction holds; a new one begins.
    fn take_tx(&mut self) -> Outcome<Tx> {
        match &mut self.channel().mode {
            Mode::Tx(tx) => Ok(std::mem::take(tx)),
            _ => Err(Fault::precondition("channel is not transactional")),
        }
    }

    /// RabbitMQ closes the connection of a client that goes on before commit-ok.
    pub(crate) fn check_not_committing(&mut self) -> Outcome {
        match &self.channel().mode {
            Mode::Tx(tx) if tx.committing => {
                Err(Fault::connection(504, "unexpected command while processing 'tx.commit'"))
            }
            _ => Ok(()),
        }
    }
}
