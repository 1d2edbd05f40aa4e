//! What must hold between calls, said twice: once kept up to date, once counted.

use std::collections::BTreeMap;

use crate::broker::Broker;
use crate::channel::{Channel, Mode};
use crate::connection::{Life, State};
use crate::core::{ChannelKey, QueueKey};
use crate::exchange::Target;
use crate::queue::ConsumerId;

/// Counted over all channels.
#[derive(Default)]
struct Counted {
    unacked_of_queue: BTreeMap<QueueKey, usize>,
    unacked_of_consumer: BTreeMap<ConsumerId, u32>,
    unsent_of_consumer: BTreeMap<ConsumerId, u32>,
}

impl Broker {
    /// Panics when the broker contradicts itself. It looks at everything, so it is for tests and simulations, now and
    /// then.
    ///
    /// # Panics
    /// See above.
    pub fn check_invariants(&self) {
        let mut counted = Counted::default();
        for (key, channel) in &self.core.channels {
            self.check_channel(key, channel, &mut counted);
        }
        self.check_queues(&counted);
        self.check_bindings();
        self.check_connections();
    }

    fn check_channel(&self, key: ChannelKey, channel: &Channel, counted: &mut Counted) {
        let conn = &self.conns[&channel.conn];
        assert_eq!(conn.channel_key(channel.number), Some(key), "channel known to its connection");
        let listed = self.core.ready.contains(&(channel.conn, channel.number));
        assert!(listed || !channel.has_news(), "channels with news are listed");
        assert!(channel.unacked.iter().is_sorted_by(|a, b| a.tag < b.tag), "tags in order");
        assert!(channel.unacked.back().is_none_or(|last| last.tag < channel.next_tag));

        let mut in_flight = 0;
        let held: &[_] = match &channel.mode {
            Mode::Tx(tx) => &tx.settled,
            _ => &[],
        };
        let held = held.iter().flat_map(|(list, _)| list);
        for unacked in channel.unacked.iter().chain(held) {
            *counted.unacked_of_queue.entry(unacked.queue).or_default() += 1;
            if let Some(consumer) = unacked.consumer {
                *counted.unacked_of_consumer.entry(consumer).or_default() += 1;
                in_flight += 1;
            }
        }
        for delivery in channel.deliveries_waiting() {
            *counted.unsent_of_consumer.entry(delivery.consumer).or_default() += 1;
            if !delivery.no_ack {
                *counted.unacked_of_queue.entry(delivery.queue).or_default() += 1;
                *counted.unacked_of_consumer.entry(delivery.consumer).or_default() += 1;
                in_flight += 1;
            }
        }
        assert_eq!(channel.in_flight, in_flight, "deliveries in flight");
        for (tag, subscription) in &channel.consumers {
            if let Some(queue) = self.core.queues.get(subscription.queue) {
                let known = queue.consumers.iter().any(|c| c.id == subscription.id && c.tag == *tag);
                assert!(known, "consumer known to its queue");
            }
        }
    }

    fn check_queues(&self, counted: &Counted) {
        for (key, queue) in &self.core.queues {
            assert_eq!(self.core.find_queue(queue.vhost, &queue.name), Some(key), "queue by name");
            let unacked = counted.unacked_of_queue.get(&key).copied().unwrap_or(0);
            assert_eq!(queue.unacked, unacked, "unacknowledged of a queue");
            assert!(queue.ready.iter().is_sorted_by(|a, b| a.position < b.position), "in order");
            assert!(!queue.is_abandoned(), "auto-delete queue without consumers");
            assert!(queue.owner.is_none_or(|owner| self.conns.contains_key(&owner)), "owner");
            for consumer in &queue.consumers {
                let of = |map: &BTreeMap<_, _>| map.get(&consumer.id).copied().unwrap_or(0);
                assert_eq!(consumer.unacked, of(&counted.unacked_of_consumer));
                assert_eq!(consumer.unsent, of(&counted.unsent_of_consumer));
                let channel = self.core.channels.get(consumer.channel);
                let known = channel.and_then(|c| c.consumers.get(&consumer.tag)).map(|s| s.id);
                assert_eq!(known, Some(consumer.id), "consumer known to its channel");
            }
            let idle = queue.consumers.iter().find(|c| self.core.can_take(queue, c));
            assert!(queue.ready.is_empty() || idle.is_none(), "a message waits for nothing");
        }
    }

    fn check_bindings(&self) {
        for (key, exchange) in &self.core.exchanges {
            assert_eq!(self.core.find_exchange(exchange.vhost, &exchange.name), Some(key));
            for binding in exchange.bindings.values().flatten() {
                assert!(
                    match binding.target {
                        Target::Queue(queue) => self.core.queues.contains_key(queue),
                        Target::Exchange(other) => self.core.exchanges.contains_key(other),
                    },
                    "binding to what is gone"
                );
            }
        }
    }

    fn check_connections(&self) {
        let mut open = 0;
        for conn in self.conns.values() {
            let slots = conn.slots.iter().flatten();
            let used = slots.clone().filter(|s| !matches!(s.life, Life::Released { .. }));
            assert_eq!(conn.in_use, used.count(), "numbers in use");
            let here = slots.filter(|s| matches!(s.life, Life::Open(_))).count();
            assert!(here == 0 || conn.state == State::Running, "channels of a closed connection");
            open += here;
        }
        assert_eq!(open, self.core.channels.len(), "channels without a connection");
        for (conn, number) in &self.core.ready {
            let known = self.conns[conn].channel_key(*number).is_some();
            assert!(known, "news of a channel that is gone");
        }
    }
}
