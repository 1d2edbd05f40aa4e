//! Methods (AMQP 0-9-1, 1): one file per class, each parser beside its encoder.
//!
//! Everything that is read is borrowed from the buffer and `Copy`. Reserved fields are read and dropped, and
//! written as 0 or empty. Strings are bytes: whether they must be UTF-8 is for the engine to judge, since brokers
//! differ.

pub mod access;
pub mod basic;
pub mod channel;
pub mod confirm;
pub mod connection;
pub mod exchange;
mod ids;
pub mod queue;
mod strings;
pub mod tx;

use std::fmt;

use crate::frame::FRAME_METHOD;
use crate::read::Reader;
use crate::write;

pub use ids::name;

/// Class and method number in one: `class << 16 | method`.
pub type MethodId = u32;

/// The [`MethodId`] of a class and method number.
pub const fn id(class: u16, method: u16) -> MethodId {
    (class as u32) << 16 | method as u32
}

/// Class and method number of a [`MethodId`], as channel.close wants them.
pub const fn split_id(id: MethodId) -> (u16, u16) {
    ((id >> 16) as u16, (id & 0xFFFF) as u16)
}

/// The method that the payload of a method frame begins with. `None` when it has fewer than four octets.
#[inline]
pub fn method_id(payload: &[u8]) -> Option<MethodId> {
    payload.first_chunk::<4>().map(|id| u32::from_be_bytes(*id))
}

/// Any method of 0-9-1 and of RabbitMQ's extensions, in either direction.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method<'a> {
    /// `connection.start`
    ConnectionStart(connection::Start<'a>),
    /// `connection.start-ok`
    ConnectionStartOk(connection::StartOk<'a>),
    /// `connection.secure`
    ConnectionSecure(connection::Secure<'a>),
    /// `connection.secure-ok`
    ConnectionSecureOk(connection::SecureOk<'a>),
    /// `connection.tune`
    ConnectionTune(connection::Tune),
    /// `connection.tune-ok`
    ConnectionTuneOk(connection::TuneOk),
    /// `connection.open`
    ConnectionOpen(connection::Open<'a>),
    /// `connection.open-ok`
    ConnectionOpenOk,
    /// `connection.close`
    ConnectionClose(connection::Close<'a>),
    /// `connection.close-ok`
    ConnectionCloseOk,
    /// `connection.blocked`
    ConnectionBlocked(connection::Blocked<'a>),
    /// `connection.unblocked`
    ConnectionUnblocked,
    /// `connection.update-secret`
    ConnectionUpdateSecret(connection::UpdateSecret<'a>),
    /// `connection.update-secret-ok`
    ConnectionUpdateSecretOk,
    /// `channel.open`
    ChannelOpen,
    /// `channel.open-ok`
    ChannelOpenOk,
    /// `channel.flow`
    ChannelFlow(channel::Flow),
    /// `channel.flow-ok`
    ChannelFlowOk(channel::FlowOk),
    /// `channel.close`
    ChannelClose(channel::Close<'a>),
    /// `channel.close-ok`
    ChannelCloseOk,
    /// `access.request`
    AccessRequest(access::Request<'a>),
    /// `access.request-ok`
    AccessRequestOk(access::RequestOk),
    /// `exchange.declare`
    ExchangeDeclare(exchange::Declare<'a>),
    /// `exchange.declare-ok`
    ExchangeDeclareOk,
    /// `exchange.delete`
    ExchangeDelete(exchange::Delete<'a>),
    /// `exchange.delete-ok`
    ExchangeDeleteOk,
    /// `exchange.bind`
    ExchangeBind(exchange::Bind<'a>),
    /// `exchange.bind-ok`
    ExchangeBindOk,
    /// `exchange.unbind`
    ExchangeUnbind(exchange::Unbind<'a>),
    /// `exchange.unbind-ok`
    ExchangeUnbindOk,
    /// `queue.declare`
    QueueDeclare(queue::Declare<'a>),
    /// `queue.declare-ok`
    QueueDeclareOk(queue::DeclareOk<'a>),
    /// `queue.bind`
    QueueBind(queue::Bind<'a>),
    /// `queue.bind-ok`
    QueueBindOk,
    /// `queue.purge`
    QueuePurge(queue::Purge<'a>),
    /// `queue.purge-ok`
    QueuePurgeOk(queue::PurgeOk),
    /// `queue.delete`
    QueueDelete(queue::Delete<'a>),
    /// `queue.delete-ok`
    QueueDeleteOk(queue::DeleteOk),
    /// `queue.unbind`
    QueueUnbind(queue::Unbind<'a>),
    /// `queue.unbind-ok`
    QueueUnbindOk,
    /// `basic.qos`
    BasicQos(basic::Qos),
    /// `basic.qos-ok`
    BasicQosOk,
    /// `basic.consume`
    BasicConsume(basic::Consume<'a>),
    /// `basic.consume-ok`
    BasicConsumeOk(basic::ConsumeOk<'a>),
    /// `basic.cancel`
    BasicCancel(basic::Cancel<'a>),
    /// `basic.cancel-ok`
    BasicCancelOk(basic::CancelOk<'a>),
    /// `basic.publish`
    BasicPublish(basic::Publish<'a>),
    /// `basic.return`
    BasicReturn(basic::Return<'a>),
    /// `basic.deliver`
    BasicDeliver(basic::Deliver<'a>),
    /// `basic.get`
    BasicGet(basic::Get<'a>),
    /// `basic.get-ok`
    BasicGetOk(basic::GetOk<'a>),
    /// `basic.get-empty`
    BasicGetEmpty,
    /// `basic.ack`
    BasicAck(basic::Ack),
    /// `basic.reject`
    BasicReject(basic::Reject),
    /// `basic.recover-async`
    BasicRecoverAsync(basic::RecoverAsync),
    /// `basic.recover`
    BasicRecover(basic::Recover),
    /// `basic.recover-ok`
    BasicRecoverOk,
    /// `basic.nack`
    BasicNack(basic::Nack),
    /// `confirm.select`
    ConfirmSelect(confirm::Select),
    /// `confirm.select-ok`
    ConfirmSelectOk,
    /// `tx.select`
    TxSelect,
    /// `tx.select-ok`
    TxSelectOk,
    /// `tx.commit`
    TxCommit,
    /// `tx.commit-ok`
    TxCommitOk,
    /// `tx.rollback`
    TxRollback,
    /// `tx.rollback-ok`
    TxRollbackOk,
}

/// Why the payload of a method frame is not a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MethodError {
    /// No such class or method.
    Unknown(MethodId),
    /// Fields end early, leave octets over, or hold a malformed table.
    Malformed(MethodId),
    /// Fewer than the four octets of class and method.
    Truncated,
}

impl fmt::Display for MethodError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            MethodError::Unknown(id) => {
                let (class, method) = split_id(id);
                write!(f, "unknown method {method} of class {class}")
            }
            MethodError::Malformed(id) => write!(f, "malformed {}", name(id).unwrap_or("method")),
            MethodError::Truncated => f.write_str("method frame of fewer than four octets"),
        }
    }
}

impl std::error::Error for MethodError {}

impl<'a> Method<'a> {
    /// Reads the payload of a method frame, to its last octet.
    ///
    /// # Errors
    /// See [`MethodError`]. RabbitMQ drops the connection without a frame for an unknown method and for a malformed
    /// table (BROKER-FACTS); fields that end early or leave octets over are answered with connection.close 501
    /// "FRAME_ERROR - cannot decode <<...>>" (seen on 3.10).
    pub fn parse(payload: &'a [u8]) -> Result<Method<'a>, MethodError> {
        let id = method_id(payload).ok_or(MethodError::Truncated)?;
        let mut r = Reader::new(&payload[4..]);
        match Self::read(id, &mut r) {
            Some(method) if r.is_empty() => Ok(method),
            Some(_) => Err(MethodError::Malformed(id)),
            None if name(id).is_some() => Err(MethodError::Malformed(id)),
            None => Err(MethodError::Unknown(id)),
        }
    }

    fn read(id: MethodId, r: &mut Reader<'a>) -> Option<Method<'a>> {
        match split_id(id).0 {
            10 => connection::read(id, r),
            20 => channel::read(id, r),
            30 => access::read(id, r),
            40 => exchange::read(id, r),
            50 => queue::read(id, r),
            60 => basic::read(id, r),
            85 => confirm::read(id, r),
            90 => tx::read(id),
            _ => None,
        }
    }

    /// Appends one whole method frame. Short strings longer than 255 octets are cut at a character boundary.
    pub fn write(&self, channel: u16, out: &mut Vec<u8>) {
        let start = write::begin_frame(FRAME_METHOD, channel, out);
        write::u32(out, self.id());
        self.put(out);
        write::end_frame(start, out);
    }

    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Method::ConnectionStart(m) => m.put(out),
            Method::ConnectionStartOk(m) => m.put(out),
            Method::ConnectionSecure(m) => m.put(out),
            Method::ConnectionSecureOk(m) => m.put(out),
            Method::ConnectionTune(m) => m.put(out),
            Method::ConnectionTuneOk(m) => m.put(out),
            Method::ConnectionOpen(m) => m.put(out),
            Method::ConnectionOpenOk => write::short(out, b""),
            Method::ConnectionClose(m) => m.put(out),
            Method::ConnectionBlocked(m) => m.put(out),
            Method::ConnectionUpdateSecret(m) => m.put(out),
            Method::ChannelOpen => write::short(out, b""),
            Method::ChannelOpenOk => write::long(out, b""),
            Method::ChannelFlow(m) => m.put(out),
            Method::ChannelFlowOk(m) => m.put(out),
            Method::ChannelClose(m) => m.put(out),
            Method::AccessRequest(m) => m.put(out),
            Method::AccessRequestOk(m) => m.put(out),
            Method::ExchangeDeclare(m) => m.put(out),
            Method::ExchangeDelete(m) => m.put(out),
            Method::ExchangeBind(m) => m.put(out),
            Method::ExchangeUnbind(m) => m.put(out),
            Method::QueueDeclare(m) => m.put(out),
            Method::QueueDeclareOk(m) => m.put(out),
            Method::QueueBind(m) => m.put(out),
            Method::QueuePurge(m) => m.put(out),
            Method::QueuePurgeOk(m) => m.put(out),
            Method::QueueDelete(m) => m.put(out),
            Method::QueueDeleteOk(m) => m.put(out),
            Method::QueueUnbind(m) => m.put(out),
            Method::BasicQos(m) => m.put(out),
            Method::BasicConsume(m) => m.put(out),
            Method::BasicConsumeOk(m) => m.put(out),
            Method::BasicCancel(m) => m.put(out),
            Method::BasicCancelOk(m) => m.put(out),
            Method::BasicPublish(m) => m.put(out),
            Method::BasicReturn(m) => m.put(out),
            Method::BasicDeliver(m) => m.put(out),
            Method::BasicGet(m) => m.put(out),
            Method::BasicGetOk(m) => m.put(out),
            Method::BasicGetEmpty => write::short(out, b""),
            Method::BasicAck(m) => m.put(out),
            Method::BasicReject(m) => m.put(out),
            Method::BasicRecoverAsync(m) => m.put(out),
            Method::BasicRecover(m) => m.put(out),
            Method::BasicNack(m) => m.put(out),
            Method::ConfirmSelect(m) => m.put(out),
            Method::ConnectionCloseOk
            | Method::ConnectionUnblocked
            | Method::ConnectionUpdateSecretOk
            | Method::ChannelCloseOk
            | Method::ExchangeDeclareOk
            | Method::ExchangeDeleteOk
            | Method::ExchangeBindOk
            | Method::ExchangeUnbindOk
            | Method::QueueBindOk
            | Method::QueueUnbindOk
            | Method::BasicQosOk
            | Method::BasicRecoverOk
            | Method::ConfirmSelectOk
            | Method::TxSelect
            | Method::TxSelectOk
            | Method::TxCommit
            | Method::TxCommitOk
            | Method::TxRollback
            | Method::TxRollbackOk => {}
        }
    }
}
