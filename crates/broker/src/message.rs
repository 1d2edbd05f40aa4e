//! A message: one buffer, shared by every queue that holds it.

use warren_wire::frame::{FRAME_END, FRAME_HEADER, FRAME_OVERHEAD};

/// Exchange, routing key, properties and body behind one another in one buffer, so that a message costs two allocations
/// however many queues it goes to.
#[derive(Debug)]
pub(crate) struct Message {
    data: Vec<u8>,
    exchange_end: usize,
    key_end: usize,
    properties_end: usize,
    /// `delivery_mode` 2: survives a restart in a durable queue.
    pub(crate) persistent: bool,
}

impl Message {
    /// A message that so far has its address.
    pub(crate) fn begin(exchange: &[u8], routing_key: &[u8]) -> Self {
        // Enough for the address and the properties of most messages; the body is reserved for when its size is known.
        let mut data = Vec::with_capacity(exchange.len() + routing_key.len() + 64);
        data.extend_from_slice(exchange);
        data.extend_from_slice(routing_key);
        let key_end = data.len();
        Message { data, exchange_end: exchange.len(), key_end, properties_end: key_end, persistent: false }
    }

    /// Properties come before any body. `expected` is how much body may be reserved for at once.
    pub(crate) fn set_properties(&mut self, properties: &[u8], expected: usize) {
        self.data.truncate(self.key_end);
        self.data.reserve(properties.len() + expected);
        self.data.extend_from_slice(properties);
        self.properties_end = self.data.len();
    }

    /// Exchanges the properties for others, the body kept.
    pub(crate) fn replace_properties(&mut self, properties: &[u8]) {
        self.data.splice(self.key_end..self.properties_end, properties.iter().copied());
        self.properties_end = self.key_end + properties.len();
    }

    pub(crate) fn push_body(&mut self, part: &[u8]) {
        self.data.extend_from_slice(part);
    }

    pub(crate) fn exchange(&self) -> &[u8] {
        &self.data[..self.exchange_end]
    }

    pub(crate) fn routing_key(&self) -> &[u8] {
        &self.data[self.exchange_end..self.key_end]
    }

    pub(crate) fn properties(&self) -> &[u8] {
        &self.data[self.key_end..self.properties_end]
    }

    pub(crate) fn body(&self) -> &[u8] {
        &self.data[self.properties_end..]
    }

    /// Appends content header and bodies, bodies split to `frame_max`.
    pub(crate) fn write_content(&self, channel: u16, frame_max: u32, out: &mut Vec<u8>) {
        let properties = self.properties();
        let body = self.body();
        let size = u32::try_from(properties.len() + 12).unwrap_or(u32::MAX);
        out.reserve(properties.len() + body.len() + 12 + 2 * FRAME_OVERHEAD);
        out.push(FRAME_HEADER);
        out.extend_from_slice(&channel.to_be_bytes());
        out.extend_from_slice(&size.to_be_bytes());
        out.extend_from_slice(&[0, 60, 0, 0]);
        out.extend_from_slice(&(body.len() as u64).to_be_bytes());
        out.extend_from_slice(properties);
        out.push(FRAME_END);
        for part in body.chunks(frame_max as usize - FRAME_OVERHEAD) {
            warren_wire::content::write_body(channel, part, out);
        }
    }
}
