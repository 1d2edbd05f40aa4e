//! A publisher.

use anyhow::Result;

use crate::client::{self, CHANNEL, Client, Target};
use crate::messages::Batch;

use super::{Args, Worker};

pub(super) struct Publisher {
    client: Client,
    batch: Batch,
    left: u64,
}

impl Publisher {
    pub(super) fn new(args: &Args, target: &Target) -> Result<Self> {
        let client = Client::connect(target, &client::properties(), Vec::new())?;
        Ok(Publisher { client, batch: Batch::publishes(CHANNEL, args.size), left: args.count })
    }
}

impl Worker for Publisher {
    fn work(&mut self) -> Result<()> {
        while self.left > 0 {
            let messages = (self.batch.len() as u64).min(self.left);
            self.client.send_bytes(self.batch.first(messages as usize))?;
            self.left -= messages;
        }
        self.client.prove()
    }

    fn finish(self: Box<Self>) -> Result<()> {
        self.client.close(&[]).map(drop)
    }
}
