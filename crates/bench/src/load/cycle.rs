//! A client that comes, publishes one message and goes, again and again: every answer is awaited.

use anyhow::{Context, Result};

use crate::client::{self, CHANNEL, Client, Target};
use crate::messages::publish;

use super::{Args, Worker};

pub(super) struct Cycler {
    target: Target,
    cycles: u64,
    properties: Vec<u8>,
    publish: Vec<u8>,
}

impl Cycler {
    pub(super) fn new(args: &Args, target: Target) -> Self {
        Cycler {
            target,
            cycles: args.count,
            properties: client::properties(),
            publish: publish(CHANNEL, args.size),
        }
    }
}

impl Worker for Cycler {
    fn work(&mut self) -> Result<()> {
        let mut buffer = Vec::new();
        for cycle in 0..self.cycles {
            let client = Client::connect(&self.target, &self.properties, buffer)
                .with_context(|| format!("cycle {cycle}"))?;
            buffer = client.close(&self.publish).with_context(|| format!("cycle {cycle}"))?;
        }
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
