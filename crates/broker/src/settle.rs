//! Acknowledging, rejecting and recovering deliveries.

use warren_wire::method::basic;

use crate::call::Call;
use crate::channel::{Channel, Mode, Unacked};
use crate::core::{ChannelKey, Core, QueueKey};
use crate::fault::{Fault, Outcome};

/// What becomes of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Acknowledged, or rejected for good: there is no dead-lettering, so the queue does not tell them apart.
    Gone,
    /// Back to where it stood.
    Requeue,
}

impl Core {
    /// Settles deliveries of one channel and lets the queues give out what that made possible. `channel` is `None` when
    /// the channel itself has ended.
    pub(crate) fn settle(&mut self, channel: Option<ChannelKey>, list: Vec<Unacked>, fate: Fate) {
        let mut touched: Vec<QueueKey> = Vec::new();
        let mut consumed = 0;
        for unacked in list {
            consumed += u32::from(unacked.consumer.is_some());
            let Some(queue) = self.queues.get_mut(unacked.queue) else {
                continue;
            };
            queue.unacked -= 1;
            if let Some(consumer) = unacked.consumer.and_then(|id| queue.consumer_mut(id)) {
                consumer.unacked -= 1;
            }
            if fate == Fate::Requeue {
                queue.put_back(unacked.entry);
            }
            if !touched.contains(&unacked.queue) {
                touched.push(unacked.queue);
            }
        }
        if let Some(channel) = channel.and_then(|key| self.channels.get_mut(key)) {
            let was_limited = channel.is_limited();
            channel.in_flight -= consumed;
            if was_limited {
                touched.extend(channel.queues_consumed());
            }
        }
        for queue in touched {
            self.run_queue(queue);
        }
    }
}

impl Channel {
    /// Takes out what an acknowledgement names. A tag that is not outstanding is refused even when `multiple` would
    /// cover others (BROKER-FACTS, "Channel state that outlives what a client meant").
    fn collect(&mut self, tag: u64, multiple: bool) -> Outcome<Vec<Unacked>> {
        if multiple && tag == 0 {
            return Ok(self.unacked.drain(..).collect());
        }
        let Ok(place) = self.unacked.binary_search_by_key(&tag, |u| u.tag) else {
            return Err(Fault::precondition(format!("unknown delivery tag {tag}")));
        };
        if multiple {
            Ok(self.unacked.drain(..=place).collect())
        } else {
            Ok(self.unacked.remove(place).into_iter().collect())
        }
    }
}

impl Call<'_> {
    pub(crate) fn basic_ack(&mut self, m: basic::Ack) -> Outcome {
        self.settle(m.delivery_tag, m.multiple, Fate::Gone)
    }

    pub(crate) fn basic_nack(&mut self, m: basic::Nack) -> Outcome {
        self.settle(m.delivery_tag, m.multiple, fate_of(m.requeue))
    }

    pub(crate) fn basic_reject(&mut self, m: basic::Reject) -> Outcome {
        self.settle(m.delivery_tag, false, fate_of(m.requeue))
    }

    fn settle(&mut self, tag: u64, multiple: bool, fate: Fate) -> Outcome {
        let channel = self.channel();
        let list = channel.collect(tag, multiple)?;
        if let Mode::Tx(tx) = &mut channel.mode {
            tx.hold(list, fate);
        } else {
            self.core.settle(Some(self.key), list, fate);
        }
        Ok(())
    }

    /// `basic.recover-async`: everything unacknowledged goes back and may come again, redelivered.
    pub(crate) fn basic_recover(&mut self, requeue: bool) -> Outcome {
        if !requeue {
            return Err(Fault::connection(540, "requeue=false"));
        }
        let list = self.channel().unacked.drain(..).collect();
        self.core.settle(Some(self.key), list, Fate::Requeue);
        Ok(())
    }
}

fn fate_of(requeue: bool) -> Fate {
    if requeue { Fate::Requeue } else { Fate::Gone }
}
