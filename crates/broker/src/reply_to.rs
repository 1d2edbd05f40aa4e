//! Direct reply-to: a pseudo queue whose messages go straight to the channel that asked.

use std::sync::Arc;

use slotmap::{Key, KeyData};
use warren_wire::Method;
use warren_wire::method::basic;

use crate::call::Call;
use crate::channel::Event;
use crate::core::{ChannelKey, Core};
use crate::fault::{Fault, Outcome};
use crate::message::Message;
use crate::names::{self, Name};

/// The name that clients consume from and give as `reply_to`.
pub(crate) const PSEUDO_QUEUE: &[u8] = b"amq.rabbitmq.reply-to";

/// What an address begins with, before what finds the channel.
const ADDRESS_PREFIX: &[u8] = b"amq.rabbitmq.reply-to.";

#[derive(Debug)]
pub(crate) struct ReplyConsumer {
    pub(crate) tag: Name,
    /// The `reply_to` that requests of this channel leave with, and the routing key of its replies.
    pub(crate) address: Name,
}

/// Whether a routing key on the default exchange, or a queue name, is an address of this kind.
pub(crate) fn is_address(key: &[u8]) -> bool {
    key.starts_with(ADDRESS_PREFIX)
}

fn address_of(channel: ChannelKey, secret: u64) -> Name {
    let channel = channel.data().as_ffi();
    let mut address = ADDRESS_PREFIX.to_vec();
    address.extend_from_slice(format!("{channel:x}.{secret:016x}").as_bytes());
    address.into()
}

fn channel_of(address: &[u8]) -> Option<ChannelKey> {
    let rest = address.strip_prefix(ADDRESS_PREFIX)?;
    let digits = rest.split(|&octet| octet == b'.').next()?;
    let number = u64::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    Some(KeyData::from_ffi(number).into())
}

impl Core {
    /// The channel that now consumes replies sent to `address`.
    pub(crate) fn find_reply_consumer(&self, address: &[u8]) -> Option<ChannelKey> {
        let key = channel_of(address)?;
        let consumer = self.channels.get(key)?.reply_consumer.as_ref()?;
        (*consumer.address == *address).then_some(key)
    }

    /// Hands a reply over; it is lost when nobody consumes under its address.
    pub(crate) fn deliver_reply(&mut self, message: &Arc<Message>) {
        if let Some(key) = self.find_reply_consumer(message.routing_key())
            && let Some(channel) = self.channels.get_mut(key)
        {
            channel.post(Event::Reply(Arc::clone(message)), &mut self.ready);
        }
    }
}

impl Call<'_> {
    /// `basic.consume` of the pseudo queue. The consumer is no consumer of any queue.
    pub(crate) fn consume_replies(&mut self, m: basic::Consume<'_>) -> Outcome {
        if !m.no_ack {
            return Err(Fault::precondition("reply consumer cannot acknowledge"));
        }
        if self.channel().reply_consumer.is_some() {
            return Err(Fault::precondition("reply consumer already set"));
        }
        let tag = self.consumer_tag(m.consumer_tag);
        let address = address_of(self.key, self.core.rng.next());
        self.channel().reply_consumer = Some(ReplyConsumer { tag: tag.clone(), address });
        self.reply_unless(m.no_wait, Method::BasicConsumeOk(basic::ConsumeOk { consumer_tag: &tag }));
        Ok(())
    }

    /// `queue.declare` of a name that begins as the pseudo queue does: passive, whatever was asked.
    pub(crate) fn declare_reply_queue(&mut self, name: &[u8]) -> Outcome<(u32, u32)> {
        let exists = name == PSEUDO_QUEUE || self.core.find_reply_consumer(name).is_some();
        if exists {
            Ok((0, 1))
        } else {
            Err(Fault::not_found(&names::entity("queue", name, self.vhost_name())))
        }
    }
}
