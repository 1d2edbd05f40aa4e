//! Class queue (50).

use super::{Method, MethodId, id};
use crate::read::Reader;
use crate::table::Table;
use crate::write;

/// `queue.declare`.
pub const DECLARE: MethodId = id(50, 10);

/// `queue.declare-ok`.
pub const DECLARE_OK: MethodId = id(50, 11);

/// `queue.bind`.
pub const BIND: MethodId = id(50, 20);

/// `queue.bind-ok`.
pub const BIND_OK: MethodId = id(50, 21);

/// `queue.purge`.
pub const PURGE: MethodId = id(50, 30);

/// `queue.purge-ok`.
pub const PURGE_OK: MethodId = id(50, 31);

/// `queue.delete`.
pub const DELETE: MethodId = id(50, 40);

/// `queue.delete-ok`.
pub const DELETE_OK: MethodId = id(50, 41);

/// `queue.unbind`.
pub const UNBIND: MethodId = id(50, 50);

/// `queue.unbind-ok`.
pub const UNBIND_OK: MethodId = id(50, 51);

/// Reads the fields of method `id` of this class; `None` when malformed or not known.
pub(super) fn read<'a>(id: MethodId, r: &mut Reader<'a>) -> Option<Method<'a>> {
    Some(match id {
        DECLARE => Method::QueueDeclare(Declare::read(r)?),
        DECLARE_OK => Method::QueueDeclareOk(DeclareOk::read(r)?),
        BIND => Method::QueueBind(Bind::read(r)?),
        BIND_OK => Method::QueueBindOk,
        PURGE => Method::QueuePurge(Purge::read(r)?),
        PURGE_OK => Method::QueuePurgeOk(PurgeOk::read(r)?),
        DELETE => Method::QueueDelete(Delete::read(r)?),
        DELETE_OK => Method::QueueDeleteOk(DeleteOk::read(r)?),
        UNBIND => Method::QueueUnbind(Unbind::read(r)?),
        UNBIND_OK => Method::QueueUnbindOk,
        _ => return None,
    })
}

/// Create a queue or check that it is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Declare<'a> {
    /// Queue name; empty lets the broker choose one.
    pub queue: &'a [u8],
    /// Only check that it is there.
    pub passive: bool,
    /// Survives a restart of the broker.
    pub durable: bool,
    /// Belongs to this connection and goes with it.
    pub exclusive: bool,
    /// Deleted when its last consumer goes.
    pub auto_delete: bool,
    /// No answer is wanted.
    pub no_wait: bool,
    /// Optional arguments, meaning depends on the broker.
    pub arguments: Table<'a>,
}

impl<'a> Declare<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        r.u16()?; // reserved: the access ticket of 0-8
        let queue = r.short()?;
        let bits = r.u8()?;
        let arguments = r.table()?;
        Some(Declare {
            queue,
            passive: bits & 1 != 0,
            durable: bits & 2 != 0,
            exclusive: bits & 4 != 0,
            auto_delete: bits & 8 != 0,
            no_wait: bits & 16 != 0,
            arguments,
        })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::u16(out, 0); // reserved: the access ticket of 0-8
        write::short(out, self.queue);
        write::bits(out, &[self.passive, self.durable, self.exclusive, self.auto_delete, self.no_wait]);
        write::table(out, self.arguments);
    }
}

/// Answer to [`Declare`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeclareOk<'a> {
    /// Queue name, the chosen one if the broker was to choose.
    pub queue: &'a [u8],
    /// Messages ready in the queue.
    pub message_count: u32,
    /// Consumers on the queue.
    pub consumer_count: u32,
}

impl<'a> DeclareOk<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let queue = r.short()?;
        let message_count = r.u32()?;
        let consumer_count = r.u32()?;
        Some(DeclareOk { queue, message_count, consumer_count })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::short(out, self.queue);
        write::u32(out, self.message_count);
        write::u32(out, self.consumer_count);
    }
}

/// Bind a queue to an exchange.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bind<'a> {
    /// Queue name; empty means the queue declared last on the channel.
    pub queue: &'a [u8],
    /// Exchange name; empty is the default exchange.
    pub exchange: &'a [u8],
    /// Routing key.
    pub routing_key: &'a [u8],
    /// No answer is wanted.
    pub no_wait: bool,
    /// Optional arguments, meaning depends on the broker.
    pub arguments: Table<'a>,
}

impl<'a> Bind<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        r.u16()?; // reserved: the access ticket of 0-8
        let queue = r.short()?;
        let exchange = r.short()?;
        let routing_key = r.short()?;
        let bits = r.u8()?;
        let arguments = r.table()?;
        Some(Bind { queue, exchange, routing_key, no_wait: bits & 1 != 0, arguments })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::u16(out, 0); // reserved: the access ticket of 0-8
        write::short(out, self.queue);
        write::short(out, self.exchange);
        write::short(out, self.routing_key);
        write::bits(out, &[self.no_wait]);
        write::table(out, self.arguments);
    }
}

/// Drop the ready messages of a queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Purge<'a> {
    /// Queue name; empty means the queue declared last on the channel.
    pub queue: &'a [u8],
    /// No answer is wanted.
    pub no_wait: bool,
}

impl<'a> Purge<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        r.u16()?; // reserved: the access ticket of 0-8
        let queue = r.short()?;
        let bits = r.u8()?;
        Some(Purge { queue, no_wait: bits & 1 != 0 })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::u16(out, 0); // reserved: the access ticket of 0-8
        write::short(out, self.queue);
        write::bits(out, &[self.no_wait]);
    }
}

/// Answer to [`Purge`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct PurgeOk {
    /// Messages dropped.
    pub message_count: u32,
}

impl PurgeOk {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let message_count = r.u32()?;
        Some(PurgeOk { message_count })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::u32(out, self.message_count);
    }
}

/// Delete a queue.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delete<'a> {
    /// Queue name; empty means the queue declared last on the channel.
    pub queue: &'a [u8],
    /// Delete only if it has no consumers.
    pub if_unused: bool,
    /// Delete only if it has no messages.
    pub if_empty: bool,
    /// No answer is wanted.
    pub no_wait: bool,
}

impl<'a> Delete<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        r.u16()?; // reserved: the access ticket of 0-8
        let queue = r.short()?;
        let bits = r.u8()?;
        Some(Delete { queue, if_unused: bits & 1 != 0, if_empty: bits & 2 != 0, no_wait: bits & 4 != 0 })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::u16(out, 0); // reserved: the access ticket of 0-8
        write::short(out, self.queue);
        write::bits(out, &[self.if_unused, self.if_empty, self.no_wait]);
    }
}

/// Answer to [`Delete`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct DeleteOk {
    /// Messages dropped.
    pub message_count: u32,
}

impl DeleteOk {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let message_count = r.u32()?;
        Some(DeleteOk { message_count })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::u32(out, self.message_count);
    }
}

/// Remove the binding of a queue. Has no no-wait.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unbind<'a> {
    /// Queue name; empty means the queue declared last on the channel.
    pub queue: &'a [u8],
    /// Exchange name; empty is the default exchange.
    pub exchange: &'a [u8],
    /// Routing key.
    pub routing_key: &'a [u8],
    /// Optional arguments, meaning depends on the broker.
    pub arguments: Table<'a>,
}

impl<'a> Unbind<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        r.u16()?; // reserved: the access ticket of 0-8
        let queue = r.short()?;
        let exchange = r.short()?;
        let routing_key = r.short()?;
        let arguments = r.table()?;
        Some(Unbind { queue, exchange, routing_key, arguments })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::u16(out, 0); // reserved: the access ticket of 0-8
        write::short(out, self.queue);
        write::short(out, self.exchange);
        write::short(out, self.routing_key);
        write::table(out, self.arguments);
    }
}
