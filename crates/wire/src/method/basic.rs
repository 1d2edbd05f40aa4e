//! Class basic (60): publishing, consuming and acknowledging. The only class with content.

mod hot;

use super::{Method, MethodId, id};
use crate::read::Reader;
use crate::table::Table;
use crate::write;

pub use hot::delivery_tag_at;

/// `basic.qos`.
pub const QOS: MethodId = id(60, 10);

/// `basic.qos-ok`.
pub const QOS_OK: MethodId = id(60, 11);

/// `basic.consume`.
pub const CONSUME: MethodId = id(60, 20);

/// `basic.consume-ok`.
pub const CONSUME_OK: MethodId = id(60, 21);

/// `basic.cancel`.
pub const CANCEL: MethodId = id(60, 30);

/// `basic.cancel-ok`.
pub const CANCEL_OK: MethodId = id(60, 31);

/// `basic.publish`.
pub const PUBLISH: MethodId = id(60, 40);

/// `basic.return`.
pub const RETURN: MethodId = id(60, 50);

/// `basic.deliver`.
pub const DELIVER: MethodId = id(60, 60);

/// `basic.get`.
pub const GET: MethodId = id(60, 70);

/// `basic.get-ok`.
pub const GET_OK: MethodId = id(60, 71);

/// `basic.get-empty`.
pub const GET_EMPTY: MethodId = id(60, 72);

/// `basic.ack`.
pub const ACK: MethodId = id(60, 80);

/// `basic.reject`.
pub const REJECT: MethodId = id(60, 90);

/// `basic.recover-async`.
pub const RECOVER_ASYNC: MethodId = id(60, 100);

/// `basic.recover`.
pub const RECOVER: MethodId = id(60, 110);

/// `basic.recover-ok`.
pub const RECOVER_OK: MethodId = id(60, 111);

/// `basic.nack`.
pub const NACK: MethodId = id(60, 120);

/// Reads the fields of method `id` of this class; `None` when malformed or not known.
pub(super) fn read<'a>(id: MethodId, r: &mut Reader<'a>) -> Option<Method<'a>> {
    Some(match id {
        QOS => Method::BasicQos(Qos::read(r)?),
        QOS_OK => Method::BasicQosOk,
        CONSUME => Method::BasicConsume(Consume::read(r)?),
        CONSUME_OK => Method::BasicConsumeOk(ConsumeOk::read(r)?),
        CANCEL => Method::BasicCancel(Cancel::read(r)?),
        CANCEL_OK => Method::BasicCancelOk(CancelOk::read(r)?),
        PUBLISH => Method::BasicPublish(Publish::read(r)?),
        RETURN => Method::BasicReturn(Return::read(r)?),
        DELIVER => Method::BasicDeliver(Deliver::read(r)?),
        GET => Method::BasicGet(Get::read(r)?),
        GET_OK => Method::BasicGetOk(GetOk::read(r)?),
        GET_EMPTY => {
            r.short()?; // reserved
            Method::BasicGetEmpty
        }
        ACK => Method::BasicAck(Ack::read(r)?),
        REJECT => Method::BasicReject(Reject::read(r)?),
        RECOVER_ASYNC => Method::BasicRecoverAsync(RecoverAsync::read(r)?),
        RECOVER => Method::BasicRecover(Recover::read(r)?),
        RECOVER_OK => Method::BasicRecoverOk,
        NACK => Method::BasicNack(Nack::read(r)?),
        _ => return None,
    })
}

/// Prefetch limits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Qos {
    /// Octets; RabbitMQ accepts 0 only.
    pub prefetch_size: u32,
    /// Messages; 0 for no limit.
    pub prefetch_count: u16,
    /// For the channel rather than for each later consumer (RabbitMQ reading).
    pub global: bool,
}

impl Qos {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let prefetch_size = r.u32()?;
        let prefetch_count = r.u16()?;
        let bits = r.u8()?;
        Some(Qos { prefetch_size, prefetch_count, global: bits & 1 != 0 })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::u32(out, self.prefetch_size);
        write::u16(out, self.prefetch_count);
        write::bits(out, &[self.global]);
    }
}

/// Start a consumer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Consume<'a> {
    /// Queue name; empty means the queue declared last on the channel.
    pub queue: &'a [u8],
    /// Consumer tag; empty lets the broker choose one.
    pub consumer_tag: &'a [u8],
    /// Not implemented by brokers.
    pub no_local: bool,
    /// Deliveries count as acknowledged when sent.
    pub no_ack: bool,
    /// No other consumer on the queue.
    pub exclusive: bool,
    /// No answer is wanted.
    pub no_wait: bool,
    /// Optional arguments, meaning depends on the broker.
    pub arguments: Table<'a>,
}

impl<'a> Consume<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        r.u16()?; // reserved: the access ticket of 0-8
        let queue = r.short()?;
        let consumer_tag = r.short()?;
        let bits = r.u8()?;
        let arguments = r.table()?;
        Some(Consume {
            queue,
            consumer_tag,
            no_local: bits & 1 != 0,
            no_ack: bits & 2 != 0,
            exclusive: bits & 4 != 0,
            no_wait: bits & 8 != 0,
            arguments,
        })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::u16(out, 0); // reserved: the access ticket of 0-8
        write::short(out, self.queue);
        write::short(out, self.consumer_tag);
        write::bits(out, &[self.no_local, self.no_ack, self.exclusive, self.no_wait]);
        write::table(out, self.arguments);
    }
}

/// Answer to [`Consume`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ConsumeOk<'a> {
    /// Consumer tag, unique on its channel.
    pub consumer_tag: &'a [u8],
}

impl<'a> ConsumeOk<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let consumer_tag = r.short()?;
        Some(ConsumeOk { consumer_tag })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::short(out, self.consumer_tag);
    }
}

/// End of a consumer; from a broker too, to those that announced `consumer_cancel_notify`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cancel<'a> {
    /// Consumer tag, unique on its channel.
    pub consumer_tag: &'a [u8],
    /// No answer is wanted.
    pub no_wait: bool,
}

impl<'a> Cancel<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let consumer_tag = r.short()?;
        let bits = r.u8()?;
        Some(Cancel { consumer_tag, no_wait: bits & 1 != 0 })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::short(out, self.consumer_tag);
        write::bits(out, &[self.no_wait]);
    }
}

/// Answer to [`Cancel`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CancelOk<'a> {
    /// Consumer tag, unique on its channel.
    pub consumer_tag: &'a [u8],
}

impl<'a> CancelOk<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let consumer_tag = r.short()?;
        Some(CancelOk { consumer_tag })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::short(out, self.consumer_tag);
    }
}

/// Publish the content that follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Publish<'a> {
    /// Exchange name; empty is the default exchange.
    pub exchange: &'a [u8],
    /// Routing key.
    pub routing_key: &'a [u8],
    /// Return it if it cannot be routed.
    pub mandatory: bool,
    /// Not implemented by RabbitMQ: 540.
    pub immediate: bool,
}

impl<'a> Publish<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        r.u16()?; // reserved: the access ticket of 0-8
        let exchange = r.short()?;
        let routing_key = r.short()?;
        let bits = r.u8()?;
        Some(Publish { exchange, routing_key, mandatory: bits & 1 != 0, immediate: bits & 2 != 0 })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::u16(out, 0); // reserved: the access ticket of 0-8
        write::short(out, self.exchange);
        write::short(out, self.routing_key);
        write::bits(out, &[self.mandatory, self.immediate]);
    }
}

/// A mandatory message that could not be routed; content follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Return<'a> {
    /// Reply code, see [`crate::reply`].
    pub reply_code: u16,
    /// Reply text for people, at most 255 octets.
    pub reply_text: &'a [u8],
    /// Exchange name; empty is the default exchange.
    pub exchange: &'a [u8],
    /// Routing key.
    pub routing_key: &'a [u8],
}

impl<'a> Return<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let reply_code = r.u16()?;
        let reply_text = r.short()?;
        let exchange = r.short()?;
        let routing_key = r.short()?;
        Some(Return { reply_code, reply_text, exchange, routing_key })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::u16(out, self.reply_code);
        write::short(out, self.reply_text);
        write::short(out, self.exchange);
        write::short(out, self.routing_key);
    }
}

/// A message for a consumer; content follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Deliver<'a> {
    /// Consumer tag, unique on its channel.
    pub consumer_tag: &'a [u8],
    /// Delivery tag, numbered per channel from 1.
    pub delivery_tag: u64,
    /// The message was delivered before.
    pub redelivered: bool,
    /// Exchange name; empty is the default exchange.
    pub exchange: &'a [u8],
    /// Routing key.
    pub routing_key: &'a [u8],
}

impl<'a> Deliver<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let consumer_tag = r.short()?;
        let delivery_tag = r.u64()?;
        let bits = r.u8()?;
        let exchange = r.short()?;
        let routing_key = r.short()?;
        Some(Deliver { consumer_tag, delivery_tag, redelivered: bits & 1 != 0, exchange, routing_key })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::short(out, self.consumer_tag);
        write::u64(out, self.delivery_tag);
        write::bits(out, &[self.redelivered]);
        write::short(out, self.exchange);
        write::short(out, self.routing_key);
    }
}

/// Ask for one message.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Get<'a> {
    /// Queue name; empty means the queue declared last on the channel.
    pub queue: &'a [u8],
    /// The message counts as acknowledged when sent.
    pub no_ack: bool,
}

impl<'a> Get<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        r.u16()?; // reserved: the access ticket of 0-8
        let queue = r.short()?;
        let bits = r.u8()?;
        Some(Get { queue, no_ack: bits & 1 != 0 })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::u16(out, 0); // reserved: the access ticket of 0-8
        write::short(out, self.queue);
        write::bits(out, &[self.no_ack]);
    }
}

/// Answer to [`Get`]: a message; content follows.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct GetOk<'a> {
    /// Delivery tag, numbered per channel from 1.
    pub delivery_tag: u64,
    /// The message was delivered before.
    pub redelivered: bool,
    /// Exchange name; empty is the default exchange.
    pub exchange: &'a [u8],
    /// Routing key.
    pub routing_key: &'a [u8],
    /// Messages left in the queue.
    pub message_count: u32,
}

impl<'a> GetOk<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let delivery_tag = r.u64()?;
        let bits = r.u8()?;
        let exchange = r.short()?;
        let routing_key = r.short()?;
        let message_count = r.u32()?;
        Some(GetOk { delivery_tag, redelivered: bits & 1 != 0, exchange, routing_key, message_count })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::u64(out, self.delivery_tag);
        write::bits(out, &[self.redelivered]);
        write::short(out, self.exchange);
        write::short(out, self.routing_key);
        write::u32(out, self.message_count);
    }
}

/// Acknowledge deliveries (client) or confirm publishes (broker).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ack {
    /// Delivery tag, or publish sequence number in a confirm.
    pub delivery_tag: u64,
    /// All outstanding tags up to and including this one.
    pub multiple: bool,
}

impl Ack {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let delivery_tag = r.u64()?;
        let bits = r.u8()?;
        Some(Ack { delivery_tag, multiple: bits & 1 != 0 })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::u64(out, self.delivery_tag);
        write::bits(out, &[self.multiple]);
    }
}

/// Refuse one delivery.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Reject {
    /// Delivery tag, numbered per channel from 1.
    pub delivery_tag: u64,
    /// Put back into the queue rather than drop.
    pub requeue: bool,
}

impl Reject {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let delivery_tag = r.u64()?;
        let bits = r.u8()?;
        Some(Reject { delivery_tag, requeue: bits & 1 != 0 })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::u64(out, self.delivery_tag);
        write::bits(out, &[self.requeue]);
    }
}

/// Redeliver what is unacknowledged, without an answer (deprecated).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RecoverAsync {
    /// To any consumer rather than to this one; RabbitMQ accepts true only.
    pub requeue: bool,
}

impl RecoverAsync {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let bits = r.u8()?;
        Some(RecoverAsync { requeue: bits & 1 != 0 })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::bits(out, &[self.requeue]);
    }
}

/// Redeliver what is unacknowledged.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recover {
    /// To any consumer rather than to this one; RabbitMQ accepts true only.
    pub requeue: bool,
}

impl Recover {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let bits = r.u8()?;
        Some(Recover { requeue: bits & 1 != 0 })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::bits(out, &[self.requeue]);
    }
}

/// Refuse deliveries (client) or publishes (broker); RabbitMQ extension.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Nack {
    /// Delivery tag, or publish sequence number in a confirm.
    pub delivery_tag: u64,
    /// All outstanding tags up to and including this one.
    pub multiple: bool,
    /// Put back into the queue rather than drop.
    pub requeue: bool,
}

impl Nack {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let delivery_tag = r.u64()?;
        let bits = r.u8()?;
        Some(Nack { delivery_tag, multiple: bits & 1 != 0, requeue: bits & 2 != 0 })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::u64(out, self.delivery_tag);
        write::bits(out, &[self.multiple, self.requeue]);
    }
}
