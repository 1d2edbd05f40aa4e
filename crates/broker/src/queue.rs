//! Queues: what is ready, who consumes, and who gets what.

use std::collections::VecDeque;
use std::sync::Arc;

use slotmap::SlotMap;

use crate::args::QueueKind;
use crate::broker::ConnId;
use crate::channel::{Channel, Delivery, Event, Subscription};
use crate::core::{ChannelKey, Core, QueueKey};
use crate::exchange::Target;
use crate::message::Message;
use crate::names::Name;
use crate::vhost::VhostId;

/// Deliveries that a queue has waiting in one consumer's mailbox before it gives that consumer no more: what RabbitMQ
/// allows to be unsent.
pub(crate) const UNSENT_LIMIT: u32 = 200;

/// A message in its place in a queue.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    /// Where it stands; kept when it is given out, so that requeueing puts it back there.
    pub(crate) position: u64,
    pub(crate) message: Arc<Message>,
    pub(crate) redelivered: bool,
}

/// A consumer as its queue sees it. Numbers are never used again.
pub(crate) type ConsumerId = u64;

#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) id: ConsumerId,
    pub(crate) channel: ChannelKey,
    pub(crate) tag: Name,
    pub(crate) no_ack: bool,
    pub(crate) exclusive: bool,
    pub(crate) priority: i64,
    /// Most unacknowledged deliveries; 0 is no limit. Means nothing with `no_ack`.
    pub(crate) prefetch: u32,
    pub(crate) unacked: u32,
    /// Given out and not yet written to the connection.
    pub(crate) unsent: u32,
}

/// What happens to a publish when the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overflow {
    DropHead,
    RejectPublish,
}

#[derive(Debug)]
pub(crate) struct Queue {
    pub(crate) name: Name,
    pub(crate) vhost: VhostId,
    pub(crate) durable: bool,
    pub(crate) auto_delete: bool,
    /// The connection that alone may use the queue, and with which it goes.
    pub(crate) owner: Option<ConnId>,
    /// As declared, for the equivalence of later declares.
    pub(crate) arguments: Arc<[u8]>,
    pub(crate) kind: QueueKind,
    pub(crate) max_length: Option<u64>,
    pub(crate) overflow: Overflow,
    /// Only the first consumer gets messages; the next takes over when it goes.
    pub(crate) single_active: bool,
    /// In order of position.
    pub(crate) ready: VecDeque<Entry>,
    pub(crate) next_position: u64,
    pub(crate) unacked: usize,
    /// Highest priority first; within a priority, whose turn it is first.
    pub(crate) consumers: VecDeque<Consumer>,
    pub(crate) active: Option<ConsumerId>,
    pub(crate) had_consumers: bool,
    /// Nobody can take more; saves looking again at each publish.
    pub(crate) stalled: bool,
}

impl Queue {
    pub(crate) fn new(name: Name, vhost: VhostId) -> Self {
        Queue {
            name,
            vhost,
            durable: false,
            auto_delete: false,
            owner: None,
            arguments: Arc::from([]),
            kind: QueueKind::Classic,
            max_length: None,
            overflow: Overflow::DropHead,
            single_active: false,
            ready: VecDeque::new(),
            next_position: 0,
            unacked: 0,
            consumers: VecDeque::new(),
            active: None,
            had_consumers: false,
            stalled: false,
        }
    }

    /// The front message, given out.
    pub(crate) fn take(&mut self, ack_required: bool) -> Option<Entry> {
        let entry = self.ready.pop_front()?;
        if ack_required {
            self.unacked += 1;
        }
        Some(entry)
    }

    /// Puts a message back where it stood, marked as delivered before.
    pub(crate) fn put_back(&mut self, mut entry: Entry) {
        entry.redelivered = true;
        let place = self.ready.partition_point(|other| other.position < entry.position);
        self.ready.insert(place, entry);
    }

    pub(crate) fn consumer_mut(&mut self, id: ConsumerId) -> Option<&mut Consumer> {
        self.consumers.iter_mut().find(|c| c.id == id)
    }

    /// Whether another consumer may join those that are there.
    pub(crate) fn admits(&self, other: &Subscription) -> bool {
        let taken = self.consumers.iter().any(|c| c.exclusive);
        let wants_all = other.exclusive && (!self.consumers.is_empty() || self.single_active);
        !taken && !wants_all
    }

    pub(crate) fn add_consumer(&mut self, consumer: Consumer) {
        if self.single_active && self.active.is_none() {
            self.active = Some(consumer.id);
        }
        self.had_consumers = true;
        self.stalled = false;
        self.enlist(consumer);
    }

    /// Behind the last of its priority.
    fn enlist(&mut self, consumer: Consumer) {
        let place = self.consumers.partition_point(|c| c.priority >= consumer.priority);
        self.consumers.insert(place, consumer);
    }

    pub(crate) fn remove_consumer(&mut self, id: ConsumerId) {
        self.consumers.retain(|c| c.id != id);
        if self.active == Some(id) {
            self.active = self.consumers.front().map(|c| c.id);
            self.stalled = false;
        }
    }

    /// Whether it goes now that its last consumer has.
    pub(crate) fn is_abandoned(&self) -> bool {
        self.auto_delete && self.had_consumers && self.consumers.is_empty()
    }

    /// Whether a publish must be refused because the queue is full.
    fn refuses(&self) -> bool {
        self.overflow == Overflow::RejectPublish
            && self.max_length.is_some_and(|max| self.ready.len() as u64 + 1 > max)
    }

    fn drop_excess(&mut self) {
        if let Some(max) = self.max_length {
            while self.ready.len() as u64 > max {
                self.ready.pop_front();
            }
        }
    }
}

type Channels = SlotMap<ChannelKey, Channel>;

/// Whether the consumer may be given a message now.
fn can_take(channels: &Channels, queue: &Queue, c: &Consumer) -> bool {
    queue.active.is_none_or(|active| active == c.id)
        && c.unsent < UNSENT_LIMIT
        && (c.no_ack || c.prefetch == 0 || c.unacked < c.prefetch)
        && channels.get(c.channel).is_some_and(|channel| !channel.is_limited())
}

impl Core {
    pub(crate) fn can_take(&self, queue: &Queue, consumer: &Consumer) -> bool {
        can_take(&self.channels, queue, consumer)
    }

    pub(crate) fn add_queue(&mut self, queue: Queue) -> QueueKey {
        let (vhost, name) = (queue.vhost, queue.name.clone());
        let key = self.queues.insert(queue);
        self.vhosts[vhost].queues.insert(name, key);
        key
    }

    pub(crate) fn find_queue(&self, vhost: VhostId, name: &[u8]) -> Option<QueueKey> {
        self.vhosts[vhost].queues.get(name).copied()
    }

    /// Appends a message and lets the queue deliver. False when the queue refuses it for want of room.
    pub(crate) fn enqueue(&mut self, key: QueueKey, message: &Arc<Message>) -> bool {
        let Some(queue) = self.queues.get_mut(key) else {
            return true; // deleted while a transaction held the message: dropped, as by RabbitMQ
        };
        if queue.refuses() {
            return false;
        }
        let position = queue.next_position;
        queue.next_position += 1;
        queue.ready.push_back(Entry { position, message: Arc::clone(message), redelivered: false });
        if !queue.stalled && !queue.consumers.is_empty() {
            self.run_queue(key);
        }
        if let Some(queue) = self.queues.get_mut(key) {
            queue.drop_excess();
        }
        true
    }

    /// Gives out ready messages to the mailboxes of consumers that can take them, in turn.
    pub(crate) fn run_queue(&mut self, key: QueueKey) {
        let Some(queue) = self.queues.get_mut(key) else {
            return;
        };
        queue.stalled = false;
        while !queue.ready.is_empty() {
            let channels = &self.channels;
            let Some(place) = queue.consumers.iter().position(|c| can_take(channels, queue, c)) else {
                queue.stalled = true;
                return;
            };
            let Some(mut consumer) = queue.consumers.remove(place) else {
                return;
            };
            let Some(entry) = queue.take(!consumer.no_ack) else {
                return;
            };
            consumer.unsent += 1;
            consumer.unacked += u32::from(!consumer.no_ack);
            if let Some(channel) = self.channels.get_mut(consumer.channel) {
                channel.in_flight += u32::from(!consumer.no_ack);
                let delivery = Delivery {
                    queue: key,
                    consumer: consumer.id,
                    tag: consumer.tag.clone(),
                    no_ack: consumer.no_ack,
                    entry,
                };
                channel.post(Event::Deliver(delivery), &mut self.ready);
            }
            queue.enlist(consumer);
        }
    }

    /// Deletes the queue and its bindings, and tells the channels that consume from it. Returns the messages it had ready.
    pub(crate) fn delete_queue(&mut self, key: QueueKey) -> usize {
        let Some(queue) = self.queues.remove(key) else {
            return 0;
        };
        self.vhosts[queue.vhost].queues.remove(&queue.name);
        self.forget_target(queue.vhost, Target::Queue(key));
        let mut told: Vec<ChannelKey> = queue.consumers.iter().map(|c| c.channel).collect();
        told.sort_unstable();
        told.dedup();
        for channel in told {
            if let Some(channel) = self.channels.get_mut(channel) {
                channel.post(Event::QueueGone(key), &mut self.ready);
            }
        }
        queue.ready.len()
    }

    /// Takes a consumer off its queue, which may end with it. The caller runs the queue afterwards: another consumer may
    /// have become the active one.
    pub(crate) fn remove_consumer(&mut self, queue: QueueKey, consumer: ConsumerId) {
        if let Some(q) = self.queues.get_mut(queue) {
            q.remove_consumer(consumer);
            if q.is_abandoned() {
                self.delete_queue(queue);
            }
        }
    }
}
