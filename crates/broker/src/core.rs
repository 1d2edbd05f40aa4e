//! What all connections share: vhosts, exchanges, queues, channels. Keys notice when what they named is gone.

use slotmap::SlotMap;

use crate::channel::{Channel, Ready};
use crate::exchange::Exchange;
use crate::inspect::Counters;
use crate::options::Options;
use crate::queue::{ConsumerId, Queue};
use crate::rng::Rng;
use crate::vhost::Vhost;

slotmap::new_key_type! {
    pub(crate) struct QueueKey;
    pub(crate) struct ExchangeKey;
    pub(crate) struct ChannelKey;
}

#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) options: Options,
    pub(crate) vhosts: Vec<Vhost>,
    pub(crate) exchanges: SlotMap<ExchangeKey, Exchange>,
    pub(crate) queues: SlotMap<QueueKey, Queue>,
    pub(crate) channels: SlotMap<ChannelKey, Channel>,
    pub(crate) ready: Ready,
    pub(crate) counters: Counters,
    pub(crate) rng: Rng,
    /// A resource alarm is on: connections that publish are read no further.
    pub(crate) alarm: bool,
    next_consumer: ConsumerId,
    /// Queues of the publish at hand; kept for its capacity.
    pub(crate) routes: Vec<QueueKey>,
}

impl Core {
    pub(crate) fn new(options: Options) -> Self {
        let names = options.vhosts.clone();
        let mut core = Core {
            vhosts: Vec::with_capacity(names.len()),
            exchanges: SlotMap::with_key(),
            queues: SlotMap::with_key(),
            channels: SlotMap::with_key(),
            ready: Ready::new(),
            counters: Counters::default(),
            rng: Rng::new(options.seed),
            alarm: false,
            next_consumer: 0,
            routes: Vec::new(),
            options,
        };
        for name in names {
            Vhost::add(&mut core, &name);
        }
        core
    }

    pub(crate) fn new_consumer_id(&mut self) -> ConsumerId {
        self.next_consumer += 1;
        self.next_consumer
    }
}
