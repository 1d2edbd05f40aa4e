//! A virtual host: names of queues and exchanges.

use std::collections::BTreeMap;

use crate::core::{Core, ExchangeKey, QueueKey};
use crate::exchange::{Exchange, Kind};
use crate::names::Name;

/// Place of a vhost in [`Core::vhosts`]; vhosts live as long as the broker.
pub(crate) type VhostId = usize;

#[derive(Debug)]
pub(crate) struct Vhost {
    pub(crate) name: String,
    pub(crate) queues: BTreeMap<Name, QueueKey>,
    pub(crate) exchanges: BTreeMap<Name, ExchangeKey>,
}

/// What every vhost has. The default exchange is no entry: it routes by queue name.
const PREDECLARED: [(&[u8], Kind, bool); 7] = [
    (b"amq.direct", Kind::Direct, false),
    (b"amq.fanout", Kind::Fanout, false),
    (b"amq.headers", Kind::Headers, false),
    (b"amq.match", Kind::Headers, false),
    (b"amq.rabbitmq.trace", Kind::Topic, true),
    (b"amq.topic", Kind::Topic, false),
    (b"", Kind::Direct, false),
];

impl Vhost {
    pub(crate) fn add(core: &mut Core, name: &str) -> VhostId {
        let id = core.vhosts.len();
        core.vhosts.push(Vhost {
            name: name.to_owned(),
            queues: BTreeMap::new(),
            exchanges: BTreeMap::new(),
        });
        for (exchange, kind, internal) in PREDECLARED {
            let mut exchange = Exchange::new(exchange.into(), id, kind);
            exchange.durable = true;
            exchange.internal = internal;
            core.add_exchange(exchange);
        }
        id
    }
}
