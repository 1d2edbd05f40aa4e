//! What the broker remembers of an open channel.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::broker::ConnId;
use crate::confirm::Confirms;
use crate::core::{ChannelKey, Core, QueueKey};
use crate::message::Message;
use crate::names::Name;
use crate::queue::{ConsumerId, Entry};
use crate::reply_to::ReplyConsumer;
use crate::settle::Fate;
use crate::tx::Tx;
use crate::vhost::VhostId;

/// Channels that have something to be pumped, by connection and number.
pub(crate) type Ready = BTreeSet<(ConnId, u16)>;

#[derive(Debug)]
pub(crate) struct Channel {
    pub(crate) conn: ConnId,
    pub(crate) number: u16,
    pub(crate) vhost: VhostId,
    /// Place in [`Options::users`](crate::Options::users).
    pub(crate) user: usize,
    /// Whether the client announced `consumer_cancel_notify`.
    pub(crate) cancel_notify: bool,
    pub(crate) mode: Mode,
    /// What an empty queue name stands for.
    pub(crate) last_queue: Option<Name>,
    /// Prefetch of consumers that begin from now on.
    pub(crate) prefetch: u32,
    /// `basic.qos` with global: most unacknowledged deliveries of all consumers together; 0 is none.
    pub(crate) limit: u32,
    /// Deliveries to consumers that are not settled, those in the mailbox included.
    pub(crate) in_flight: u32,
    pub(crate) next_tag: u64,
    /// In order of delivery tag.
    pub(crate) unacked: VecDeque<Unacked>,
    pub(crate) consumers: BTreeMap<Name, Subscription>,
    pub(crate) reply_consumer: Option<ReplyConsumer>,
    mailbox: VecDeque<Event>,
}

#[derive(Debug)]
pub(crate) enum Mode {
    Plain,
    Confirm(Confirms),
    Tx(Tx),
}

/// A consumer as its channel sees it, with what it takes to begin it again.
#[derive(Clone, Debug)]
pub(crate) struct Subscription {
    pub(crate) id: ConsumerId,
    pub(crate) queue: QueueKey,
    pub(crate) queue_name: Name,
    pub(crate) no_ack: bool,
    pub(crate) exclusive: bool,
    pub(crate) prefetch: u32,
    pub(crate) priority: i64,
}

/// A delivery that waits for its acknowledgement.
#[derive(Debug)]
pub(crate) struct Unacked {
    pub(crate) tag: u64,
    pub(crate) queue: QueueKey,
    /// `None` when it was fetched with `basic.get`.
    pub(crate) consumer: Option<ConsumerId>,
    pub(crate) entry: Entry,
}

/// What a queue tells a channel; done when the channel is pumped.
#[derive(Debug)]
pub(crate) enum Event {
    Deliver(Delivery),
    /// A reply to the channel's direct reply-to consumer.
    Reply(Arc<Message>),
    ConsumeOk(Name),
    CancelOk(Name),
    /// The queue was deleted: its consumers on this channel end.
    QueueGone(QueueKey),
    CommitOk,
}

/// A message on its way to a consumer. The tag is here too because the consumer may be cancelled before it is written.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub(crate) queue: QueueKey,
    pub(crate) consumer: ConsumerId,
    pub(crate) tag: Name,
    pub(crate) no_ack: bool,
    pub(crate) entry: Entry,
}

impl Delivery {
    /// What waits for an acknowledgement under `tag` once this is written; nothing with `no_ack`.
    pub(crate) fn into_unacked(self, tag: u64) -> Option<Unacked> {
        (!self.no_ack).then_some(Unacked {
            tag,
            queue: self.queue,
            consumer: Some(self.consumer),
            entry: self.entry,
        })
    }
}

impl Channel {
    pub(crate) fn new(conn: ConnId, number: u16, vhost: VhostId, user: usize) -> Self {
        Channel {
            conn,
            number,
            vhost,
            user,
            cancel_notify: false,
            mode: Mode::Plain,
            last_queue: None,
            prefetch: 0,
            limit: 0,
            in_flight: 0,
            next_tag: 1,
            unacked: VecDeque::new(),
            consumers: BTreeMap::new(),
            reply_consumer: None,
            mailbox: VecDeque::new(),
        }
    }

    /// Whether the channel's own limit keeps its consumers from getting more.
    pub(crate) fn is_limited(&self) -> bool {
        self.limit != 0 && self.in_flight >= self.limit
    }

    pub(crate) fn post(&mut self, event: Event, ready: &mut Ready) {
        if self.mailbox.is_empty() {
            ready.insert((self.conn, self.number));
        }
        self.mailbox.push_back(event);
    }

    pub(crate) fn next_event(&mut self) -> Option<Event> {
        self.mailbox.pop_front()
    }

    pub(crate) fn next_is_delivery(&self) -> bool {
        matches!(self.mailbox.front(), Some(Event::Deliver(_) | Event::Reply(_)))
    }

    pub(crate) fn deliveries_waiting(&self) -> impl Iterator<Item = &Delivery> {
        self.mailbox.iter().filter_map(|event| match event {
            Event::Deliver(delivery) => Some(delivery),
            _ => None,
        })
    }

    /// Whether a pump would write something.
    pub(crate) fn has_news(&self) -> bool {
        !self.mailbox.is_empty() || matches!(&self.mode, Mode::Confirm(confirms) if confirms.is_due())
    }

    /// The next delivery tag, used up.
    pub(crate) fn take_tag(&mut self) -> u64 {
        let tag = self.next_tag;
        self.next_tag += 1;
        tag
    }

    pub(crate) fn queues_consumed(&self) -> Vec<QueueKey> {
        let mut queues: Vec<QueueKey> = self.consumers.values().map(|s| s.queue).collect();
        queues.sort_unstable();
        queues.dedup();
        queues
    }
}

impl Core {
    /// Ends a channel, whichever side wanted it: its consumers go first, then all that it had not settled returns to the
    /// queues, those that were only on their way to it too. Nothing that waited to be written is written any more.
    pub(crate) fn close_channel(&mut self, key: ChannelKey) {
        let Some(channel) = self.channels.remove(key) else {
            return;
        };
        self.ready.remove(&(channel.conn, channel.number));
        let queues = channel.queues_consumed();
        for subscription in channel.consumers.values() {
            self.remove_consumer(subscription.queue, subscription.id);
        }
        let mut back: Vec<Unacked> = channel.unacked.into();
        if let Mode::Tx(tx) = channel.mode {
            back.extend(tx.into_unsettled());
        }
        back.extend(channel.mailbox.into_iter().filter_map(|event| match event {
            Event::Deliver(delivery) => delivery.into_unacked(0),
            _ => None,
        }));
        self.settle(None, back, Fate::Requeue);
        for queue in queues {
            self.run_queue(queue);
        }
    }
}
