//! The same method in amq-protocol's types, field by field.

use amq_protocol::protocol::{self, AMQPClass};
use amq_protocol::types::{FieldTable, ShortString};
use warren_wire::{Method, Table};

fn short(s: &[u8]) -> ShortString {
    std::str::from_utf8(s).expect("UTF-8").into()
}

fn table(t: Table<'_>) -> FieldTable {
    t.to_field_table().expect("UTF-8 keys")
}

/// `method` in amq-protocol's types. It has no prefetch_size and no ticket: those are lost.
pub(crate) fn to_theirs(method: &Method<'_>) -> AMQPClass {
    None.or_else(|| connection(method).map(AMQPClass::Connection))
        .or_else(|| channel(method).map(AMQPClass::Channel))
        .or_else(|| access(method).map(AMQPClass::Access))
        .or_else(|| exchange(method).map(AMQPClass::Exchange))
        .or_else(|| queue(method).map(AMQPClass::Queue))
        .or_else(|| basic(method).map(AMQPClass::Basic))
        .or_else(|| confirm(method).map(AMQPClass::Confirm))
        .or_else(|| tx(method).map(AMQPClass::Tx))
        .expect("a method of a class that both know")
}

fn connection(method: &Method<'_>) -> Option<protocol::connection::AMQPMethod> {
    use protocol::connection::{self as t, AMQPMethod as M};
    Some(match *method {
        Method::ConnectionStart(m) => M::Start(t::Start {
            version_major: m.version_major,
            version_minor: m.version_minor,
            server_properties: table(m.server_properties),
            mechanisms: m.mechanisms.into(),
            locales: m.locales.into(),
        }),
        Method::ConnectionStartOk(m) => M::StartOk(t::StartOk {
            client_properties: table(m.client_properties),
            mechanism: short(m.mechanism),
            response: m.response.into(),
            locale: short(m.locale),
        }),
        Method::ConnectionSecure(m) => M::Secure(t::Secure { challenge: m.challenge.into() }),
        Method::ConnectionSecureOk(m) => M::SecureOk(t::SecureOk { response: m.response.into() }),
        Method::ConnectionTune(m) => {
            M::Tune(t::Tune { channel_max: m.channel_max, frame_max: m.frame_max, heartbeat: m.heartbeat })
        }
        Method::ConnectionTuneOk(m) => M::TuneOk(t::TuneOk {
            channel_max: m.channel_max,
            frame_max: m.frame_max,
            heartbeat: m.heartbeat,
        }),
        Method::ConnectionOpen(m) => M::Open(t::Open { virtual_host: short(m.virtual_host) }),
        Method::ConnectionOpenOk => M::OpenOk(t::OpenOk {}),
        Method::ConnectionClose(m) => M::Close(t::Close {
            reply_code: m.reply_code,
            reply_text: short(m.reply_text),
            class_id: m.class_id,
            method_id: m.method_id,
        }),
        Method::ConnectionCloseOk => M::CloseOk(t::CloseOk {}),
        Method::ConnectionBlocked(m) => M::Blocked(t::Blocked { reason: short(m.reason) }),
        Method::ConnectionUnblocked => M::Unblocked(t::Unblocked {}),
        Method::ConnectionUpdateSecret(m) => {
            M::UpdateSecret(t::UpdateSecret { new_secret: m.new_secret.into(), reason: short(m.reason) })
        }
        Method::ConnectionUpdateSecretOk => M::UpdateSecretOk(t::UpdateSecretOk {}),
        _ => return None,
    })
}

fn channel(method: &Method<'_>) -> Option<protocol::channel::AMQPMethod> {
    use protocol::channel::{self as t, AMQPMethod as M};
    Some(match *method {
        Method::ChannelOpen => M::Open(t::Open {}),
        Method::ChannelOpenOk => M::OpenOk(t::OpenOk {}),
        Method::ChannelFlow(m) => M::Flow(t::Flow { active: m.active }),
        Method::ChannelFlowOk(m) => M::FlowOk(t::FlowOk { active: m.active }),
        Method::ChannelClose(m) => M::Close(t::Close {
            reply_code: m.reply_code,
            reply_text: short(m.reply_text),
            class_id: m.class_id,
            method_id: m.method_id,
        }),
        Method::ChannelCloseOk => M::CloseOk(t::CloseOk {}),
        _ => return None,
    })
}

fn access(method: &Method<'_>) -> Option<protocol::access::AMQPMethod> {
    use protocol::access::{self as t, AMQPMethod as M};
    Some(match *method {
        Method::AccessRequest(m) => M::Request(t::Request {
            realm: short(m.realm),
            exclusive: m.exclusive,
            passive: m.passive,
            active: m.active,
            write: m.write,
            read: m.read,
        }),
        Method::AccessRequestOk(_) => M::RequestOk(t::RequestOk {}),
        _ => return None,
    })
}

fn exchange(method: &Method<'_>) -> Option<protocol::exchange::AMQPMethod> {
    use protocol::exchange::{self as t, AMQPMethod as M};
    Some(match *method {
        Method::ExchangeDeclare(m) => M::Declare(t::Declare {
            exchange: short(m.exchange),
            kind: short(m.kind),
            passive: m.passive,
            durable: m.durable,
            auto_delete: m.auto_delete,
            internal: m.internal,
            nowait: m.no_wait,
            arguments: table(m.arguments),
        }),
        Method::ExchangeDeclareOk => M::DeclareOk(t::DeclareOk {}),
        Method::ExchangeDelete(m) => {
            M::Delete(t::Delete { exchange: short(m.exchange), if_unused: m.if_unused, nowait: m.no_wait })
        }
        Method::ExchangeDeleteOk => M::DeleteOk(t::DeleteOk {}),
        Method::ExchangeBind(m) => M::Bind(t::Bind {
            destination: short(m.destination),
            source: short(m.source),
            routing_key: short(m.routing_key),
            nowait: m.no_wait,
            arguments: table(m.arguments),
        }),
        Method::ExchangeBindOk => M::BindOk(t::BindOk {}),
        Method::ExchangeUnbind(m) => M::Unbind(t::Unbind {
            destination: short(m.destination),
            source: short(m.source),
            routing_key: short(m.routing_key),
            nowait: m.no_wait,
            arguments: table(m.arguments),
        }),
        Method::ExchangeUnbindOk => M::UnbindOk(t::UnbindOk {}),
        _ => return None,
    })
}

fn queue(method: &Method<'_>) -> Option<protocol::queue::AMQPMethod> {
    use protocol::queue::{self as t, AMQPMethod as M};
    Some(match *method {
        Method::QueueDeclare(m) => M::Declare(t::Declare {
            queue: short(m.queue),
            passive: m.passive,
            durable: m.durable,
            exclusive: m.exclusive,
            auto_delete: m.auto_delete,
            nowait: m.no_wait,
            arguments: table(m.arguments),
        }),
        Method::QueueDeclareOk(m) => M::DeclareOk(t::DeclareOk {
            queue: short(m.queue),
            message_count: m.message_count,
            consumer_count: m.consumer_count,
        }),
        Method::QueueBind(m) => M::Bind(t::Bind {
            queue: short(m.queue),
            exchange: short(m.exchange),
            routing_key: short(m.routing_key),
            nowait: m.no_wait,
            arguments: table(m.arguments),
        }),
        Method::QueueBindOk => M::BindOk(t::BindOk {}),
        Method::QueuePurge(m) => M::Purge(t::Purge { queue: short(m.queue), nowait: m.no_wait }),
        Method::QueuePurgeOk(m) => M::PurgeOk(t::PurgeOk { message_count: m.message_count }),
        Method::QueueDelete(m) => M::Delete(t::Delete {
            queue: short(m.queue),
            if_unused: m.if_unused,
            if_empty: m.if_empty,
            nowait: m.no_wait,
        }),
        Method::QueueDeleteOk(m) => M::DeleteOk(t::DeleteOk { message_count: m.message_count }),
        Method::QueueUnbind(m) => M::Unbind(t::Unbind {
            queue: short(m.queue),
            exchange: short(m.exchange),
            routing_key: short(m.routing_key),
            arguments: table(m.arguments),
        }),
        Method::QueueUnbindOk => M::UnbindOk(t::UnbindOk {}),
        _ => return None,
    })
}

fn basic(method: &Method<'_>) -> Option<protocol::basic::AMQPMethod> {
    use protocol::basic::{self as t, AMQPMethod as M};
    Some(match *method {
        Method::BasicQos(m) => M::Qos(t::Qos { prefetch_count: m.prefetch_count, global: m.global }),
        Method::BasicQosOk => M::QosOk(t::QosOk {}),
        Method::BasicConsume(m) => M::Consume(t::Consume {
            queue: short(m.queue),
            consumer_tag: short(m.consumer_tag),
            no_local: m.no_local,
            no_ack: m.no_ack,
            exclusive: m.exclusive,
            nowait: m.no_wait,
            arguments: table(m.arguments),
        }),
        Method::BasicConsumeOk(m) => M::ConsumeOk(t::ConsumeOk { consumer_tag: short(m.consumer_tag) }),
        Method::BasicCancel(m) => {
            M::Cancel(t::Cancel { consumer_tag: short(m.consumer_tag), nowait: m.no_wait })
        }
        Method::BasicCancelOk(m) => M::CancelOk(t::CancelOk { consumer_tag: short(m.consumer_tag) }),
        Method::BasicPublish(m) => M::Publish(t::Publish {
            exchange: short(m.exchange),
            routing_key: short(m.routing_key),
            mandatory: m.mandatory,
            immediate: m.immediate,
        }),
        Method::BasicReturn(m) => M::Return(t::Return {
            reply_code: m.reply_code,
            reply_text: short(m.reply_text),
            exchange: short(m.exchange),
            routing_key: short(m.routing_key),
        }),
        Method::BasicDeliver(m) => M::Deliver(t::Deliver {
            consumer_tag: short(m.consumer_tag),
            delivery_tag: m.delivery_tag,
            redelivered: m.redelivered,
            exchange: short(m.exchange),
            routing_key: short(m.routing_key),
        }),
        Method::BasicGet(m) => M::Get(t::Get { queue: short(m.queue), no_ack: m.no_ack }),
        Method::BasicGetOk(m) => M::GetOk(t::GetOk {
            delivery_tag: m.delivery_tag,
            redelivered: m.redelivered,
            exchange: short(m.exchange),
            routing_key: short(m.routing_key),
            message_count: m.message_count,
        }),
        Method::BasicGetEmpty => M::GetEmpty(t::GetEmpty {}),
        Method::BasicAck(m) => M::Ack(t::Ack { delivery_tag: m.delivery_tag, multiple: m.multiple }),
        Method::BasicReject(m) => M::Reject(t::Reject { delivery_tag: m.delivery_tag, requeue: m.requeue }),
        Method::BasicRecoverAsync(m) => M::RecoverAsync(t::RecoverAsync { requeue: m.requeue }),
        Method::BasicRecover(m) => M::Recover(t::Recover { requeue: m.requeue }),
        Method::BasicRecoverOk => M::RecoverOk(t::RecoverOk {}),
        Method::BasicNack(m) => {
            M::Nack(t::Nack { delivery_tag: m.delivery_tag, multiple: m.multiple, requeue: m.requeue })
        }
        _ => return None,
    })
}

fn confirm(method: &Method<'_>) -> Option<protocol::confirm::AMQPMethod> {
    use protocol::confirm::{self as t, AMQPMethod as M};
    Some(match *method {
        Method::ConfirmSelect(m) => M::Select(t::Select { nowait: m.no_wait }),
        Method::ConfirmSelectOk => M::SelectOk(t::SelectOk {}),
        _ => return None,
    })
}

fn tx(method: &Method<'_>) -> Option<protocol::tx::AMQPMethod> {
    use protocol::tx::{self as t, AMQPMethod as M};
    Some(match *method {
        Method::TxSelect => M::Select(t::Select {}),
        Method::TxSelectOk => M::SelectOk(t::SelectOk {}),
        Method::TxCommit => M::Commit(t::Commit {}),
        Method::TxCommitOk => M::CommitOk(t::CommitOk {}),
        Method::TxRollback => M::Rollback(t::Rollback {}),
        Method::TxRollbackOk => M::RollbackOk(t::RollbackOk {}),
        _ => return None,
    })
}
