//! `basic.consume`, `basic.cancel` and `basic.get`.

use warren_wire::Method;
use warren_wire::method::basic;

use crate::args::{self, QueueKind};
use crate::call::{Call, Right};
use crate::channel::{Event, Subscription, Unacked};
use crate::core::{ChannelKey, Core, QueueKey};
use crate::fault::{Fault, Outcome};
use crate::names::{self, Name};
use crate::queue::Consumer;
use crate::reply_to::PSEUDO_QUEUE;

impl Call<'_> {
    pub(crate) fn basic_consume(&mut self, m: basic::Consume<'_>) -> Outcome {
        let name = self.expand_queue(m.queue)?;
        if self.channel().consumers.contains_key(m.consumer_tag) {
            let tag = names::show(m.consumer_tag);
            let detail = format!("attempt to reuse consumer tag '{tag}'");
            return Err(Fault::connection(530, detail));
        }
        if *name == *PSEUDO_QUEUE {
            return self.consume_replies(m);
        }
        self.check_queue(Right::Read, &name)?;
        let queue = self.usable_queue(&name)?;
        let q = &self.core.queues[queue];
        let priority = args::check_consume_arguments(m.arguments, &self.queue_text(&name), q.kind)?;
        if q.kind == QueueKind::Quorum && self.core.channels[self.key].limit != 0 {
            let detail = format!("{} does not support global qos", self.queue_text(&name));
            return Err(Fault::connection(540, detail));
        }
        let subscription = Subscription {
            id: self.core.new_consumer_id(),
            queue,
            queue_name: name,
            no_ack: m.no_ack,
            exclusive: m.exclusive,
            prefetch: self.channel().prefetch,
            priority,
        };
        if !self.core.queues[queue].admits(&subscription) {
            let detail = format!("{} in exclusive use", self.queue_text(&subscription.queue_name));
            return Err(Fault::access_refused(detail));
        }
        let tag = self.consumer_tag(m.consumer_tag);
        if !m.no_wait {
            // The queue answers, so that no delivery can come before it.
            self.post(Event::ConsumeOk(tag.clone()));
        }
        self.core.subscribe(self.key, tag, subscription);
        Ok(())
    }

    /// The tag asked for, or one that the server makes.
    pub(crate) fn consumer_tag(&mut self, asked: &[u8]) -> Name {
        if asked.is_empty() { names::generate("amq.ctag", &mut self.core.rng) } else { asked.into() }
    }

    /// A queue that exists and is not exclusive to another connection.
    pub(crate) fn usable_queue(&self, name: &[u8]) -> Outcome<QueueKey> {
        let Some(key) = self.core.find_queue(self.vhost, name) else {
            return Err(Fault::not_found(&self.queue_text(name)));
        };
        self.check_owner(key)?;
        Ok(key)
    }

    /// 405 for a queue that is exclusive to another connection.
    pub(crate) fn check_owner(&self, key: QueueKey) -> Outcome {
        let queue = &self.core.queues[key];
        match queue.owner {
            Some(owner) if owner != self.conn => Err(self.locked(&queue.name)),
            _ => Ok(()),
        }
    }

    pub(crate) fn locked(&self, name: &[u8]) -> Fault {
        let detail = format!(
            "cannot obtain exclusive access to locked {}. It could be originally declared on another connection or \
             the exclusive property value does not match that of the original declaration.",
            self.queue_text(name)
        );
        Fault::channel(405, detail)
    }

    /// Deliveries that the queue has already given out come before `cancel-ok`; it passes through the same mailbox.
    pub(crate) fn basic_cancel(&mut self, m: basic::Cancel<'_>) -> Outcome {
        let cancel_ok = Method::BasicCancelOk(basic::CancelOk { consumer_tag: m.consumer_tag });
        let channel = self.channel();
        if channel.reply_consumer.take_if(|consumer| *consumer.tag == *m.consumer_tag).is_some() {
            self.reply_unless(m.no_wait, cancel_ok);
            return Ok(());
        }
        let Some((tag, subscription)) = channel.consumers.remove_entry(m.consumer_tag) else {
            // An unknown tag is no error.
            self.reply_unless(m.no_wait, cancel_ok);
            return Ok(());
        };
        if !self.core.queues.contains_key(subscription.queue) {
            self.reply_unless(m.no_wait, cancel_ok);
            return Ok(());
        }
        if !m.no_wait {
            self.post(Event::CancelOk(tag));
        }
        self.core.remove_consumer(subscription.queue, subscription.id);
        self.core.run_queue(subscription.queue);
        Ok(())
    }

    pub(crate) fn basic_get(&mut self, m: basic::Get<'_>) -> Outcome {
        let name = self.expand_queue(m.queue)?;
        self.check_queue(Right::Read, &name)?;
        let key = self.usable_queue(&name)?;
        let queue = &mut self.core.queues[key];
        let Some(entry) = queue.take(!m.no_ack) else {
            self.reply(Method::BasicGetEmpty);
            return Ok(());
        };
        let message_count = count(queue.ready.len());
        let message = entry.message.clone();
        let redelivered = entry.redelivered;
        let channel = self.channel();
        let tag = channel.take_tag();
        if !m.no_ack {
            channel.unacked.push_back(Unacked { tag, queue: key, consumer: None, entry });
        }
        self.reply(Method::BasicGetOk(basic::GetOk {
            delivery_tag: tag,
            redelivered,
            exchange: message.exchange(),
            routing_key: message.routing_key(),
            message_count,
        }));
        message.write_content(self.number, self.frame_max, self.out);
        self.core.counters.deliveries += 1;
        Ok(())
    }
}

impl Core {
    /// Begins a consumer that the queue admits.
    pub(crate) fn subscribe(&mut self, key: ChannelKey, tag: Name, subscription: Subscription) {
        let queue = subscription.queue;
        let consumer = Consumer {
            id: subscription.id,
            channel: key,
            tag: tag.clone(),
            no_ack: subscription.no_ack,
            exclusive: subscription.exclusive,
            priority: subscription.priority,
            prefetch: subscription.prefetch,
            unacked: 0,
            unsent: 0,
        };
        self.channels[key].consumers.insert(tag, subscription);
        self.queues[queue].add_consumer(consumer);
        self.run_queue(queue);
    }
}

/// A count as methods carry it.
pub(crate) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
