//! What tests do most, in one line each.

use super::{Message, Peer};
use std::time::Duration;
use warren_wire::content::write_content;
use warren_wire::method::{basic, channel, confirm, connection, queue};
use warren_wire::{BasicProperties, Method, Table};

/// A queue.declare with nothing set; tests change what they are about.
pub const DECLARE: queue::Declare<'static> = queue::Declare {
    queue: b"",
    passive: false,
    durable: false,
    exclusive: false,
    auto_delete: false,
    no_wait: false,
    arguments: Table::EMPTY,
};

/// A basic.consume with nothing set.
pub const CONSUME: basic::Consume<'static> = basic::Consume {
    queue: b"",
    consumer_tag: b"",
    no_local: false,
    no_ack: false,
    exclusive: false,
    no_wait: false,
    arguments: Table::EMPTY,
};

/// A basic.publish to the default exchange with nothing set.
pub const PUBLISH: basic::Publish<'static> =
    basic::Publish { exchange: b"", routing_key: b"", mandatory: false, immediate: false };

impl Peer {
    /// Opens a channel.
    pub fn open_channel(&mut self, channel: u16) {
        self.call(channel, &Method::ChannelOpen, channel::OPEN_OK);
    }

    /// Closes a channel and waits for close-ok; what else arrives before it is dropped.
    pub fn close_channel(&mut self, channel: u16) {
        self.send_channel_close(channel);
        while !self.next(channel).is(channel::CLOSE_OK) {}
    }

    /// Sends channel.close.
    pub fn send_channel_close(&mut self, channel: u16) {
        let close = channel::Close { reply_code: 200, reply_text: b"bye", class_id: 0, method_id: 0 };
        self.send(channel, &Method::ChannelClose(close));
    }

    /// Closes the connection and waits for close-ok.
    pub fn close(mut self) {
        let close = connection::Close { reply_code: 200, reply_text: b"bye", class_id: 0, method_id: 0 };
        self.send(0, &Method::ConnectionClose(close));
        while !self.next(0).is(connection::CLOSE_OK) {}
    }

    /// Puts a channel in confirm mode.
    pub fn confirm_select(&mut self, channel: u16) {
        let select = Method::ConfirmSelect(confirm::Select { no_wait: false });
        self.call(channel, &select, confirm::SELECT_OK);
    }

    /// Declares a queue that lives until it is deleted or the broker stops; an empty name asks for one. Gives its name.
    pub fn declare(&mut self, channel: u16, name: &str) -> String {
        self.declare_with(channel, &queue::Declare { queue: name.as_bytes(), ..DECLARE }).0
    }

    /// Declares a queue. Gives name, messages and consumers.
    pub fn declare_with(&mut self, channel: u16, declare: &queue::Declare<'_>) -> (String, u32, u32) {
        let ok = self.call(channel, &Method::QueueDeclare(*declare), queue::DECLARE_OK);
        match ok.method() {
            Method::QueueDeclareOk(ok) => {
                (String::from_utf8_lossy(ok.queue).into_owned(), ok.message_count, ok.consumer_count)
            }
            other => panic!("expected queue.declare-ok, got {other:?}"),
        }
    }

    /// Messages ready in a queue, by a passive declare.
    pub fn ready(&mut self, channel: u16, name: &str) -> u32 {
        self.declare_with(channel, &queue::Declare { queue: name.as_bytes(), passive: true, ..DECLARE }).1
    }

    /// Sends queue.delete and waits for its answer.
    pub fn delete_queue(&mut self, channel: u16, name: &str) {
        let delete =
            queue::Delete { queue: name.as_bytes(), if_unused: false, if_empty: false, no_wait: false };
        self.call(channel, &Method::QueueDelete(delete), queue::DELETE_OK);
    }

    /// Publishes to a queue through the default exchange.
    pub fn publish(&mut self, channel: u16, queue: &str, body: &[u8]) {
        let publish = basic::Publish { routing_key: queue.as_bytes(), ..PUBLISH };
        self.publish_with(channel, &publish, &BasicProperties::default(), body);
    }

    /// Publishes, with everything said.
    pub fn publish_with(
        &mut self,
        channel: u16,
        publish: &basic::Publish<'_>,
        properties: &BasicProperties<'_>,
        body: &[u8],
    ) {
        let bytes = self.encode_publish(channel, publish, properties, body);
        self.send_bytes(&bytes);
    }

    /// The octets of a whole publish, split as frame_max demands.
    pub fn encode_publish(
        &self,
        channel: u16,
        publish: &basic::Publish<'_>,
        properties: &BasicProperties<'_>,
        body: &[u8],
    ) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(body.len() + body.len() / 1000 + 256);
        Method::BasicPublish(*publish).write(channel, &mut bytes);
        write_content(channel, properties, body, self.frame_max(), &mut bytes);
        bytes
    }

    /// Reads confirms until `count` publishes are confirmed; anything else fails.
    pub fn expect_confirms(&mut self, channel: u16, first: u64, count: u64) {
        let mut waiting: std::collections::BTreeSet<u64> = (first..first + count).collect();
        while !waiting.is_empty() {
            let frame = self.expect(channel, basic::ACK);
            let Method::BasicAck(ack) = frame.method() else { unreachable!("the method was checked") };
            if ack.multiple {
                assert!(waiting.contains(&ack.delivery_tag), "confirm of {} again", ack.delivery_tag);
                waiting.retain(|tag| *tag > ack.delivery_tag);
            } else {
                assert!(waiting.remove(&ack.delivery_tag), "confirm of {} not asked for", ack.delivery_tag);
            }
        }
    }

    /// Starts a consumer; gives its tag.
    pub fn consume(&mut self, channel: u16, queue: &str, tag: &str, no_ack: bool) -> String {
        let (queue, consumer_tag) = (queue.as_bytes(), tag.as_bytes());
        self.consume_with(channel, &basic::Consume { queue, consumer_tag, no_ack, ..CONSUME })
    }

    /// Starts a consumer, with everything said; gives its tag.
    pub fn consume_with(&mut self, channel: u16, consume: &basic::Consume<'_>) -> String {
        let ok = self.call(channel, &Method::BasicConsume(*consume), basic::CONSUME_OK);
        match ok.method() {
            Method::BasicConsumeOk(ok) => String::from_utf8_lossy(ok.consumer_tag).into_owned(),
            other => panic!("expected basic.consume-ok, got {other:?}"),
        }
    }

    /// Sets the prefetch of later consumers of the channel.
    pub fn qos(&mut self, channel: u16, prefetch_count: u16) {
        let qos = basic::Qos { prefetch_size: 0, prefetch_count, global: false };
        self.call(channel, &Method::BasicQos(qos), basic::QOS_OK);
    }

    /// The next message of a channel: it must be a basic.deliver.
    pub fn delivery(&mut self, channel: u16) -> Message {
        let frame = self.expect(channel, basic::DELIVER);
        self.content_of(frame)
    }

    /// The next message of a channel: it must be a basic.return.
    pub fn returned(&mut self, channel: u16) -> Message {
        let frame = self.expect(channel, basic::RETURN);
        self.content_of(frame)
    }

    /// Asserts that no delivery comes for a time.
    pub fn expect_no_delivery(&mut self, channel: u16, within: Duration) {
        match self.try_next(channel, within) {
            Ok(None) => {}
            other => panic!("expected nothing on channel {channel}, got {other:?}"),
        }
    }

    /// Gets one message, if there is one.
    pub fn get(&mut self, channel: u16, queue: &str, no_ack: bool) -> Option<Message> {
        self.send(channel, &Method::BasicGet(basic::Get { queue: queue.as_bytes(), no_ack }));
        let frame = self.next(channel);
        if frame.is(basic::GET_EMPTY) {
            return None;
        }
        assert!(frame.is(basic::GET_OK), "expected an answer to basic.get, got {frame:?}");
        Some(self.content_of(frame))
    }

    /// Acknowledges.
    pub fn ack(&mut self, channel: u16, delivery_tag: u64, multiple: bool) {
        self.send(channel, &Method::BasicAck(basic::Ack { delivery_tag, multiple }));
    }

    /// Ends a consumer and waits for cancel-ok, which must come next.
    pub fn cancel(&mut self, channel: u16, tag: &str) {
        let cancel = basic::Cancel { consumer_tag: tag.as_bytes(), no_wait: false };
        self.call(channel, &Method::BasicCancel(cancel), basic::CANCEL_OK);
    }

    /// The content that follows a method frame.
    pub fn content_of(&mut self, frame: super::Incoming) -> Message {
        let channel = frame.channel;
        let header = self.next(channel);
        assert_eq!(
            header.kind,
            warren_wire::frame::FRAME_HEADER,
            "expected a content header, got {header:?}"
        );
        let size = Message::announced(&header.payload);
        let mut body = Vec::new();
        while body.len() < size {
            let part = self.next(channel);
            assert_eq!(part.kind, warren_wire::frame::FRAME_BODY, "expected a body frame, got {part:?}");
            body.extend_from_slice(&part.payload);
        }
        assert_eq!(body.len(), size, "more body than the header said");
        Message { frame, header: header.payload, body }
    }
}
