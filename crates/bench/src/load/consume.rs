//! A consumer, which looks at every frame: that tags follow each other, and that no body octet is missing.

use anyhow::{Context, Result, bail};
use warren_wire::frame::{FRAME_BODY, FRAME_METHOD, FRAME_OVERHEAD, get_u64};
use warren_wire::method::{basic, method_id};

use crate::client::{self, Client, Target};
use crate::null::queue_name;

use super::{Args, Worker};

pub(super) struct Consumer {
    client: Client,
    queue: String,
    messages: u64,
    body_octets: u64,
}

impl Consumer {
    pub(super) fn new(args: &Args, target: &Target, number: usize) -> Result<Self> {
        let mut client = Client::connect(target, &client::properties(), Vec::new())?;
        let queue = queue_name(args.size, args.count, &format!("{}-{number}", args.id));
        // As most consumers do. A proxy that moves consumers has to know that the queue outlives them.
        client.declare(queue.as_bytes(), false)?;
        Ok(Consumer { client, queue, messages: args.count, body_octets: args.count * args.size as u64 })
    }
}

impl Worker for Consumer {
    fn work(&mut self) -> Result<()> {
        self.client.consume(self.queue.as_bytes())?;
        let (mut messages, mut octets) = (0, 0);
        while messages < self.messages || octets < self.body_octets {
            let frame = self.client.reader.next()?;
            match frame.kind {
                FRAME_METHOD => {
                    messages += 1;
                    let tag = delivery_tag(self.client.reader.payload(&frame))?;
                    if tag != messages {
                        bail!("delivery {messages} came with tag {tag}");
                    }
                }
                FRAME_BODY => octets += (frame.len() - FRAME_OVERHEAD) as u64,
                _ => {}
            }
        }
        if (messages, octets) != (self.messages, self.body_octets) {
            bail!(
                "{messages} messages with {octets} octets came, {} with {}",
                self.messages,
                self.body_octets
            );
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.client.close(&[]).map(drop)
    }
}

/// The delivery tag comes after class, method, and the consumer tag with its length.
fn delivery_tag(payload: &[u8]) -> Result<u64> {
    if method_id(payload) != Some(basic::DELIVER) {
        bail!("expected basic.deliver, not {:?}", warren_wire::method::Method::parse(payload));
    }
    let tag_len = payload.get(4).context("a delivery of four octets")?;
    Ok(get_u64(payload, 5 + usize::from(*tag_len)))
}
