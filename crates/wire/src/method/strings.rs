//! Which short strings RabbitMQ wants in UTF-8.

use super::Method;

const NONE: &[u8] = b"";

impl<'a> Method<'a> {
    /// Whether the short strings are UTF-8 where RabbitMQ insists on it: in every method but those with content
    /// (publish, return, deliver, get-ok), which it does not check. It answers what fails with connection.close
    /// 501 "FRAME_ERROR - Malformed UTF-8 in shortstr"; LavinMQ does not check.
    ///
    /// RabbitMQ 3.10 lets encoded surrogates and numbers above U+10FFFF pass; here they fail.
    pub fn strings_are_utf8(&self) -> bool {
        self.checked_strings().iter().all(|s| std::str::from_utf8(s).is_ok())
    }

    fn checked_strings(&self) -> [&'a [u8]; 3] {
        match *self {
            Method::ConnectionStartOk(m) => [m.mechanism, m.locale, NONE],
            Method::ConnectionOpen(m) => [m.virtual_host, NONE, NONE],
            Method::ConnectionClose(m) => [m.reply_text, NONE, NONE],
            Method::ConnectionBlocked(m) => [m.reason, NONE, NONE],
            Method::ConnectionUpdateSecret(m) => [m.reason, NONE, NONE],
            Method::ChannelClose(m) => [m.reply_text, NONE, NONE],
            Method::AccessRequest(m) => [m.realm, NONE, NONE],
            Method::ExchangeDeclare(m) => [m.exchange, m.kind, NONE],
            Method::ExchangeDelete(m) => [m.exchange, NONE, NONE],
            Method::ExchangeBind(m) => [m.destination, m.source, m.routing_key],
            Method::ExchangeUnbind(m) => [m.destination, m.source, m.routing_key],
            Method::QueueDeclare(m) => [m.queue, NONE, NONE],
            Method::QueueDeclareOk(m) => [m.queue, NONE, NONE],
            Method::QueueBind(m) => [m.queue, m.exchange, m.routing_key],
            Method::QueuePurge(m) => [m.queue, NONE, NONE],
            Method::QueueDelete(m) => [m.queue, NONE, NONE],
            Method::QueueUnbind(m) => [m.queue, m.exchange, m.routing_key],
            Method::BasicConsume(m) => [m.queue, m.consumer_tag, NONE],
            Method::BasicConsumeOk(m) => [m.consumer_tag, NONE, NONE],
            Method::BasicCancel(m) => [m.consumer_tag, NONE, NONE],
            Method::BasicCancelOk(m) => [m.consumer_tag, NONE, NONE],
            Method::BasicGet(m) => [m.queue, NONE, NONE],
            _ => [NONE; 3],
        }
    }
}
