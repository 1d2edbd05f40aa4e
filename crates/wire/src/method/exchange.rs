//! Class exchange (40).

use super::{Method, MethodId, id};
use crate::read::Reader;
use crate::table::Table;
use crate::write;

/// `exchange.declare`.
pub const DECLARE: MethodId = id(40, 10);

/// `exchange.declare-ok`.
pub const DECLARE_OK: MethodId = id(40, 11);

/// `exchange.delete`.
pub const DELETE: MethodId = id(40, 20);

/// `exchange.delete-ok`.
pub const DELETE_OK: MethodId = id(40, 21);

/// `exchange.bind`.
pub const BIND: MethodId = id(40, 30);

/// `exchange.bind-ok`.
pub const BIND_OK: MethodId = id(40, 31);

/// `exchange.unbind`.
pub const UNBIND: MethodId = id(40, 40);

/// `exchange.unbind-ok`.
pub const UNBIND_OK: MethodId = id(40, 51);

/// Reads the fields of method `id` of this class; `None` when malformed or not known.
pub(super) fn read<'a>(id: MethodId, r: &mut Reader<'a>) -> Option<Method<'a>> {
    Some(match id {
        DECLARE => Method::ExchangeDeclare(Declare::read(r)?),
        DECLARE_OK => Method::ExchangeDeclareOk,
        DELETE => Method::ExchangeDelete(Delete::read(r)?),
        DELETE_OK => Method::ExchangeDeleteOk,
        BIND => Method::ExchangeBind(Bind::read(r)?),
        BIND_OK => Method::ExchangeBindOk,
        UNBIND => Method::ExchangeUnbind(Unbind::read(r)?),
        UNBIND_OK => Method::ExchangeUnbindOk,
        _ => return None,
    })
}

/// Create an exchange or check that it is there.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Declare<'a> {
    /// Exchange name; empty is the default exchange.
    pub exchange: &'a [u8],
    /// Exchange type (`type` in the specification).
    pub kind: &'a [u8],
    /// Only check that it is there.
    pub passive: bool,
    /// Survives a restart of the broker.
    pub durable: bool,
    /// Deleted when its last binding goes (RabbitMQ extension).
    pub auto_delete: bool,
    /// Not for publishing from clients (RabbitMQ extension).
    pub internal: bool,
    /// No answer is wanted.
    pub no_wait: bool,
    /// Optional arguments, meaning depends on the broker.
    pub arguments: Table<'a>,
}

impl<'a> Declare<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        r.u16()?; // reserved: the access ticket of 0-8
        let exchange = r.short()?;
        let kind = r.short()?;
        let bits = r.u8()?;
        let arguments = r.table()?;
        Some(Declare {
            exchange,
            kind,
            passive: bits & 1 != 0,
            durable: bits & 2 != 0,
            auto_delete: bits & 4 != 0,
            internal: bits & 8 != 0,
            no_wait: bits & 16 != 0,
            arguments,
        })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::u16(out, 0); // reserved: the access ticket of 0-8
        write::short(out, self.exchange);
        write::short(out, self.kind);
        write::bits(out, &[self.passive, self.durable, self.auto_delete, self.internal, self.no_wait]);
        write::table(out, self.arguments);
    }
}

/// Delete an exchange.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Delete<'a> {
    /// Exchange name; empty is the default exchange.
    pub exchange: &'a [u8],
    /// Delete only if nothing uses it.
    pub if_unused: bool,
    /// No answer is wanted.
    pub no_wait: bool,
}

impl<'a> Delete<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        r.u16()?; // reserved: the access ticket of 0-8
        let exchange = r.short()?;
        let bits = r.u8()?;
        Some(Delete { exchange, if_unused: bits & 1 != 0, no_wait: bits & 2 != 0 })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::u16(out, 0); // reserved: the access ticket of 0-8
        write::short(out, self.exchange);
        write::bits(out, &[self.if_unused, self.no_wait]);
    }
}

/// Bind an exchange to an exchange (RabbitMQ extension).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bind<'a> {
    /// Exchange that messages go to.
    pub destination: &'a [u8],
    /// Exchange that messages come from.
    pub source: &'a [u8],
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
        let destination = r.short()?;
        let source = r.short()?;
        let routing_key = r.short()?;
        let bits = r.u8()?;
        let arguments = r.table()?;
        Some(Bind { destination, source, routing_key, no_wait: bits & 1 != 0, arguments })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::u16(out, 0); // reserved: the access ticket of 0-8
        write::short(out, self.destination);
        write::short(out, self.source);
        write::short(out, self.routing_key);
        write::bits(out, &[self.no_wait]);
        write::table(out, self.arguments);
    }
}

/// Remove a binding between exchanges (RabbitMQ extension).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Unbind<'a> {
    /// Exchange that messages go to.
    pub destination: &'a [u8],
    /// Exchange that messages come from.
    pub source: &'a [u8],
    /// Routing key.
    pub routing_key: &'a [u8],
    /// No answer is wanted.
    pub no_wait: bool,
    /// Optional arguments, meaning depends on the broker.
    pub arguments: Table<'a>,
}

impl<'a> Unbind<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        r.u16()?; // reserved: the access ticket of 0-8
        let destination = r.short()?;
        let source = r.short()?;
        let routing_key = r.short()?;
        let bits = r.u8()?;
        let arguments = r.table()?;
        Some(Unbind { destination, source, routing_key, no_wait: bits & 1 != 0, arguments })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::u16(out, 0); // reserved: the access ticket of 0-8
        write::short(out, self.destination);
        write::short(out, self.source);
        write::short(out, self.routing_key);
        write::bits(out, &[self.no_wait]);
        write::table(out, self.arguments);
    }
}
