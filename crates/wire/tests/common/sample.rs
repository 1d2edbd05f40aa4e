//! A method of any kind from a handful of random values.

use warren_wire::method::{access, basic, channel, confirm, connection, exchange, queue};
use warren_wire::{Method, Table};

/// Random values that every method can be filled from.
#[derive(Clone, Debug)]
pub(crate) struct Parts {
    /// Short strings, UTF-8, at most 255 octets.
    pub(crate) short: [String; 3],
    /// Long strings.
    pub(crate) long: [Vec<u8>; 2],
    /// Encoded entries of a well-formed table.
    pub(crate) table: Vec<u8>,
    /// Bits.
    pub(crate) bit: [bool; 6],
    /// Octets and 16-bit numbers.
    pub(crate) n16: [u16; 3],
    /// 32-bit numbers.
    pub(crate) n32: [u32; 2],
    /// Delivery tag.
    pub(crate) n64: u64,
}

impl Parts {
    fn s(&self, i: usize) -> &[u8] {
        self.short[i].as_bytes()
    }
}

/// One method of each kind, filled from the same values.
pub(crate) fn all(p: &Parts) -> Vec<Method<'_>> {
    let table = Table::from_encoded(&p.table).expect("a well-formed table");
    [
        connection_methods(p, table),
        channel_methods(p),
        access_methods(p),
        exchange_methods(p, table),
        queue_methods(p, table),
        basic_methods(p, table),
        confirm_methods(p),
        tx_methods(),
    ]
    .concat()
}

fn connection_methods<'a>(p: &'a Parts, table: Table<'a>) -> Vec<Method<'a>> {
    vec![
        Method::ConnectionStart(connection::Start {
            version_major: p.n16[0].to_be_bytes()[1],
            version_minor: p.n16[1].to_be_bytes()[1],
            server_properties: table,
            mechanisms: &p.long[0],
            locales: &p.long[1],
        }),
        Method::ConnectionStartOk(connection::StartOk {
            client_properties: table,
            mechanism: p.s(0),
            response: &p.long[0],
            locale: p.s(1),
        }),
        Method::ConnectionSecure(connection::Secure { challenge: &p.long[0] }),
        Method::ConnectionSecureOk(connection::SecureOk { response: &p.long[0] }),
        Method::ConnectionTune(connection::Tune {
            channel_max: p.n16[0],
            frame_max: p.n32[0],
            heartbeat: p.n16[1],
        }),
        Method::ConnectionTuneOk(connection::TuneOk {
            channel_max: p.n16[0],
            frame_max: p.n32[0],
            heartbeat: p.n16[1],
        }),
        Method::ConnectionOpen(connection::Open { virtual_host: p.s(0) }),
        Method::ConnectionOpenOk,
        Method::ConnectionClose(connection::Close {
            reply_code: p.n16[0],
            reply_text: p.s(0),
            class_id: p.n16[1],
            method_id: p.n16[2],
        }),
        Method::ConnectionCloseOk,
        Method::ConnectionBlocked(connection::Blocked { reason: p.s(0) }),
        Method::ConnectionUnblocked,
        Method::ConnectionUpdateSecret(connection::UpdateSecret { new_secret: &p.long[0], reason: p.s(0) }),
        Method::ConnectionUpdateSecretOk,
    ]
}

fn channel_methods(p: &Parts) -> Vec<Method<'_>> {
    vec![
        Method::ChannelOpen,
        Method::ChannelOpenOk,
        Method::ChannelFlow(channel::Flow { active: p.bit[0] }),
        Method::ChannelFlowOk(channel::FlowOk { active: p.bit[0] }),
        Method::ChannelClose(channel::Close {
            reply_code: p.n16[0],
            reply_text: p.s(0),
            class_id: p.n16[1],
            method_id: p.n16[2],
        }),
        Method::ChannelCloseOk,
    ]
}

fn access_methods(p: &Parts) -> Vec<Method<'_>> {
    vec![
        Method::AccessRequest(access::Request {
            realm: p.s(0),
            exclusive: p.bit[0],
            passive: p.bit[1],
            active: p.bit[2],
            write: p.bit[3],
            read: p.bit[4],
        }),
        Method::AccessRequestOk(access::RequestOk { ticket: p.n16[0] }),
    ]
}

fn exchange_methods<'a>(p: &'a Parts, table: Table<'a>) -> Vec<Method<'a>> {
    vec![
        Method::ExchangeDeclare(exchange::Declare {
            exchange: p.s(0),
            kind: p.s(1),
            passive: p.bit[0],
            durable: p.bit[1],
            auto_delete: p.bit[2],
            internal: p.bit[3],
            no_wait: p.bit[4],
            arguments: table,
        }),
        Method::ExchangeDeclareOk,
        Method::ExchangeDelete(exchange::Delete { exchange: p.s(0), if_unused: p.bit[0], no_wait: p.bit[1] }),
        Method::ExchangeDeleteOk,
        Method::ExchangeBind(exchange::Bind {
            destination: p.s(0),
            source: p.s(1),
            routing_key: p.s(2),
            no_wait: p.bit[0],
            arguments: table,
        }),
        Method::ExchangeBindOk,
        Method::ExchangeUnbind(exchange::Unbind {
            destination: p.s(0),
            source: p.s(1),
            routing_key: p.s(2),
            no_wait: p.bit[0],
            arguments: table,
        }),
        Method::ExchangeUnbindOk,
    ]
}

fn queue_methods<'a>(p: &'a Parts, table: Table<'a>) -> Vec<Method<'a>> {
    vec![
        Method::QueueDeclare(queue::Declare {
            queue: p.s(0),
            passive: p.bit[0],
            durable: p.bit[1],
            exclusive: p.bit[2],
            auto_delete: p.bit[3],
            no_wait: p.bit[4],
            arguments: table,
        }),
        Method::QueueDeclareOk(queue::DeclareOk {
            queue: p.s(0),
            message_count: p.n32[0],
            consumer_count: p.n32[1],
        }),
        Method::QueueBind(queue::Bind {
            queue: p.s(0),
            exchange: p.s(1),
            routing_key: p.s(2),
            no_wait: p.bit[0],
            arguments: table,
        }),
        Method::QueueBindOk,
        Method::QueuePurge(queue::Purge { queue: p.s(0), no_wait: p.bit[0] }),
        Method::QueuePurgeOk(queue::PurgeOk { message_count: p.n32[0] }),
        Method::QueueDelete(queue::Delete {
            queue: p.s(0),
            if_unused: p.bit[0],
            if_empty: p.bit[1],
            no_wait: p.bit[2],
        }),
        Method::QueueDeleteOk(queue::DeleteOk { message_count: p.n32[0] }),
        Method::QueueUnbind(queue::Unbind {
            queue: p.s(0),
            exchange: p.s(1),
            routing_key: p.s(2),
            arguments: table,
        }),
        Method::QueueUnbindOk,
    ]
}

fn basic_methods<'a>(p: &'a Parts, table: Table<'a>) -> Vec<Method<'a>> {
    vec![
        Method::BasicQos(basic::Qos { prefetch_size: p.n32[0], prefetch_count: p.n16[0], global: p.bit[0] }),
        Method::BasicQosOk,
        Method::BasicConsume(basic::Consume {
            queue: p.s(0),
            consumer_tag: p.s(1),
            no_local: p.bit[0],
            no_ack: p.bit[1],
            exclusive: p.bit[2],
            no_wait: p.bit[3],
            arguments: table,
        }),
        Method::BasicConsumeOk(basic::ConsumeOk { consumer_tag: p.s(0) }),
        Method::BasicCancel(basic::Cancel { consumer_tag: p.s(0), no_wait: p.bit[0] }),
        Method::BasicCancelOk(basic::CancelOk { consumer_tag: p.s(0) }),
        Method::BasicPublish(basic::Publish {
            exchange: p.s(0),
            routing_key: p.s(1),
            mandatory: p.bit[0],
            immediate: p.bit[1],
        }),
        Method::BasicReturn(basic::Return {
            reply_code: p.n16[0],
            reply_text: p.s(0),
            exchange: p.s(1),
            routing_key: p.s(2),
        }),
        Method::BasicDeliver(basic::Deliver {
            consumer_tag: p.s(0),
            delivery_tag: p.n64,
            redelivered: p.bit[0],
            exchange: p.s(1),
            routing_key: p.s(2),
        }),
        Method::BasicGet(basic::Get { queue: p.s(0), no_ack: p.bit[0] }),
        Method::BasicGetOk(basic::GetOk {
            delivery_tag: p.n64,
            redelivered: p.bit[0],
            exchange: p.s(0),
            routing_key: p.s(1),
            message_count: p.n32[0],
        }),
        Method::BasicGetEmpty,
        Method::BasicAck(basic::Ack { delivery_tag: p.n64, multiple: p.bit[0] }),
        Method::BasicReject(basic::Reject { delivery_tag: p.n64, requeue: p.bit[0] }),
        Method::BasicRecoverAsync(basic::RecoverAsync { requeue: p.bit[0] }),
        Method::BasicRecover(basic::Recover { requeue: p.bit[0] }),
        Method::BasicRecoverOk,
        Method::BasicNack(basic::Nack { delivery_tag: p.n64, multiple: p.bit[0], requeue: p.bit[1] }),
    ]
}

fn confirm_methods(p: &Parts) -> Vec<Method<'_>> {
    vec![Method::ConfirmSelect(confirm::Select { no_wait: p.bit[0] }), Method::ConfirmSelectOk]
}

fn tx_methods() -> Vec<Method<'static>> {
    vec![
        Method::TxSelect,
        Method::TxSelectOk,
        Method::TxCommit,
        Method::TxCommitOk,
        Method::TxRollback,
        Method::TxRollbackOk,
    ]
}
