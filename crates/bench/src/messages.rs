//! Buffers of messages that are ready to be sent, so that making them costs nothing while it is measured.

use warren_wire::content::{BasicProperties, write_content};
use warren_wire::frame::{HEADER_LEN, put_u64};
use warren_wire::method::{Method, basic};

use crate::frames::FRAME_MAX;

/// About how much one write sends.
const BATCH_BYTES: usize = 256 * 1024;
/// Queue and routing key of everything that is published.
pub(crate) const QUEUE: &[u8] = b"bench-publish";

/// Messages of one kind, one after another.
pub(crate) struct Batch {
    bytes: Vec<u8>,
    message_len: usize,
}

impl Batch {
    /// As many copies of `message` as fit into `octets`, at least one.
    fn of(message: &[u8], octets: usize) -> Self {
        let bytes = message.repeat((octets / message.len()).max(1));
        Batch { bytes, message_len: message.len() }
    }

    /// Publishes of `size` octets to the default exchange, transient, with no other property.
    pub(crate) fn publishes(channel: u16, size: usize) -> Self {
        Batch::of(&publish(channel, size), BATCH_BYTES)
    }

    /// Messages in the batch.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len() / self.message_len
    }

    /// The first `messages` of them.
    pub(crate) fn first(&self, messages: usize) -> &[u8] {
        &self.bytes[..(messages * self.message_len).min(self.bytes.len())]
    }
}

/// One publish.
pub(crate) fn publish(channel: u16, size: usize) -> Vec<u8> {
    let method = basic::Publish { exchange: b"", routing_key: QUEUE, mandatory: false, immediate: false };
    let mut out = Vec::new();
    Method::BasicPublish(method).write(channel, &mut out);
    content(channel, size, &mut out);
    out
}

/// Deliveries of one consumer, whose tags are written just before they are sent.
pub(crate) struct Deliveries {
    batch: Batch,
    tag_at: usize,
    next_tag: u64,
}

impl Deliveries {
    /// Batches of about `octets`, of at least one message.
    pub(crate) fn new(channel: u16, consumer_tag: &[u8], size: usize, octets: usize) -> Self {
        let method = basic::Deliver {
            consumer_tag,
            delivery_tag: 0,
            redelivered: false,
            exchange: b"",
            routing_key: QUEUE,
        };
        let mut message = Vec::new();
        Method::BasicDeliver(method).write(channel, &mut message);
        content(channel, size, &mut message);
        // Class and method, the consumer tag with its length, then the delivery tag.
        let tag_at = HEADER_LEN + 4 + 1 + consumer_tag.len();
        Deliveries { batch: Batch::of(&message, octets), tag_at, next_tag: 1 }
    }

    /// Messages in a batch.
    pub(crate) fn len(&self) -> usize {
        self.batch.len()
    }

    /// The next `messages` deliveries, numbered.
    pub(crate) fn next(&mut self, messages: usize) -> &[u8] {
        for i in 0..messages {
            put_u64(&mut self.batch.bytes, i * self.batch.message_len + self.tag_at, self.next_tag);
            self.next_tag += 1;
        }
        self.batch.first(messages)
    }
}

fn content(channel: u16, size: usize, out: &mut Vec<u8>) {
    // As few properties as clients send: the more of a message is body, the less a look at its frames weighs.
    let properties = BasicProperties { delivery_mode: Some(1), ..BasicProperties::default() };
    write_content(channel, &properties, &vec![b'x'; size], FRAME_MAX, out);
}
