//! Mailboxes written out: what queues have told the channels of a connection.

use warren_wire::Method;
use warren_wire::method::basic;

use crate::channel::{Delivery, Event, Mode, Subscription};
use crate::connection::Connection;
use crate::core::{ChannelKey, Core, QueueKey};
use crate::message::Message;
use crate::names::Name;
use crate::queue::UNSENT_LIMIT;

/// Deliveries that a channel may write before it is another's turn.
const TURN: usize = 16;

/// Where a channel's bytes go.
struct Target<'a> {
    number: u16,
    frame_max: u32,
    out: &'a mut Vec<u8>,
}

impl Connection {
    /// Channels take turns, [`TURN`] deliveries each, until all is written or `max_deliveries` are; then confirms.
    pub(crate) fn pump(&mut self, core: &mut Core, max_deliveries: usize) {
        let mut left = max_deliveries;
        loop {
            let before = left;
            for number in self.ready_channels(&core.ready) {
                let Some(key) = self.channel_key(number) else {
                    continue;
                };
                let mut target = Target { number, frame_max: self.frame_max, out: &mut self.output };
                let turn = left.min(TURN);
                let mut done = 0;
                while core.pump_channel(key, done < turn, &mut target) {
                    done += 1;
                }
                if done > 0 {
                    left -= done;
                    self.pump_from = number.wrapping_add(1);
                }
            }
            if left == before {
                break;
            }
        }
        for number in self.ready_channels(&core.ready) {
            if let Some(key) = self.channel_key(number) {
                core.flush_confirms(key, &mut self.output);
            }
        }
    }
}

impl Core {
    /// Does what waits in the mailbox up to and with the first delivery, which is written if `deliver`. Whether one was.
    fn pump_channel(&mut self, key: ChannelKey, deliver: bool, target: &mut Target<'_>) -> bool {
        loop {
            let Some(channel) = self.channels.get_mut(key) else {
                return false;
            };
            if channel.next_is_delivery() && !deliver {
                return false;
            }
            let Some(event) = channel.next_event() else {
                if !channel.has_news() {
                    let place = (channel.conn, channel.number);
                    self.ready.remove(&place);
                }
                return false;
            };
            match event {
                Event::Deliver(delivery) => {
                    self.write_delivery(key, delivery, target);
                    return true;
                }
                Event::Reply(message) => {
                    self.write_reply(key, &message, target);
                    return true;
                }
                Event::ConsumeOk(tag) => {
                    let ok = basic::ConsumeOk { consumer_tag: &tag };
                    Method::BasicConsumeOk(ok).write(target.number, target.out);
                }
                Event::CancelOk(tag) => {
                    let ok = basic::CancelOk { consumer_tag: &tag };
                    Method::BasicCancelOk(ok).write(target.number, target.out);
                }
                Event::QueueGone(queue) => self.end_consumers(key, queue, target),
                Event::CommitOk => {
                    if let Mode::Tx(tx) = &mut channel.mode {
                        tx.committing = false;
                    }
                    Method::TxCommitOk.write(target.number, target.out);
                }
            }
        }
    }

    fn write_delivery(&mut self, key: ChannelKey, delivery: Delivery, target: &mut Target<'_>) {
        let tag = self.channels[key].take_tag();
        let message = delivery.entry.message.clone();
        let deliver = basic::Deliver {
            consumer_tag: &delivery.tag,
            delivery_tag: tag,
            redelivered: delivery.entry.redelivered,
            exchange: message.exchange(),
            routing_key: message.routing_key(),
        };
        write_message(deliver, &message, target);
        self.counters.deliveries += 1;
        let (queue, consumer) = (delivery.queue, delivery.consumer);
        if let Some(unacked) = delivery.into_unacked(tag) {
            self.channels[key].unacked.push_back(unacked);
        }
        let Some(queue_now) = self.queues.get_mut(queue) else {
            return;
        };
        if let Some(consumer) = queue_now.consumer_mut(consumer) {
            consumer.unsent -= 1;
            if consumer.unsent + 1 == UNSENT_LIMIT {
                self.run_queue(queue);
            }
        }
    }

    /// A direct reply carries the number that the next delivery will have, and does not use it up.
    fn write_reply(&mut self, key: ChannelKey, message: &Message, target: &mut Target<'_>) {
        let channel = &self.channels[key];
        let Some(consumer) = &channel.reply_consumer else {
            return;
        };
        let deliver = basic::Deliver {
            consumer_tag: &consumer.tag,
            delivery_tag: if self.options.quirks.replies_are_first { 1 } else { channel.next_tag },
            redelivered: false,
            exchange: message.exchange(),
            routing_key: message.routing_key(),
        };
        write_message(deliver, message, target);
        self.counters.deliveries += 1;
    }

    /// The queue is gone, and its consumers with it; the client is told if it wants to know. But where a queue of the same
    /// name is there by now they go on with that one, and nobody is told (probed on RabbitMQ 3.10.8: delete and declare sent
    /// in one write keep the consumer).
    fn end_consumers(&mut self, key: ChannelKey, queue: QueueKey, target: &mut Target<'_>) {
        let channel = &mut self.channels[key];
        let notify = channel.cancel_notify;
        let ended = channel.consumers.iter().filter(|(_, s)| s.queue == queue);
        let ended: Vec<Name> = ended.map(|(tag, _)| tag.clone()).collect();
        for tag in ended {
            let Some(mut subscription) = self.channels[key].consumers.remove(&tag) else {
                continue;
            };
            if let Some(queue) = self.successor(key, &subscription) {
                subscription.queue = queue;
                subscription.id = self.new_consumer_id();
                self.subscribe(key, tag, subscription);
            } else if notify {
                let cancel = basic::Cancel { consumer_tag: &tag, no_wait: true };
                Method::BasicCancel(cancel).write(target.number, target.out);
            }
        }
    }

    fn successor(&self, key: ChannelKey, subscription: &Subscription) -> Option<QueueKey> {
        let channel = &self.channels[key];
        let successor = self.find_queue(channel.vhost, &subscription.queue_name)?;
        let queue = &self.queues[successor];
        let usable = queue.owner.is_none_or(|owner| owner == channel.conn);
        (usable && queue.admits(subscription)).then_some(successor)
    }

    fn flush_confirms(&mut self, key: ChannelKey, out: &mut Vec<u8>) {
        let style = self.options.confirms;
        let channel = &mut self.channels[key];
        let number = channel.number;
        if let Mode::Confirm(confirms) = &mut channel.mode {
            confirms.flush(style, &mut self.rng, number, out);
        }
        if !channel.has_news() {
            self.ready.remove(&(channel.conn, number));
        }
    }
}

fn write_message(deliver: basic::Deliver<'_>, message: &Message, target: &mut Target<'_>) {
    Method::BasicDeliver(deliver).write(target.number, target.out);
    message.write_content(target.number, target.frame_max, target.out);
}
