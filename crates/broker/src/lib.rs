//! A small AMQP 0-9-1 broker in memory, **for demonstration and tests**: it keeps nothing on disk and promises
//! nothing about its limits.
//!
//! It is a sans-I/O core: bytes of each connection go in, bytes come out, and the caller decides when each
//! connection is read ([`Broker::step`]) and when queues get to write to it ([`Broker::pump`]). There is no clock and
//! no randomness except from [`Options::seed`], and no order is taken from a hash map: the same calls give the same
//! bytes. So it serves as the model broker of a simulation, where the interleaving of connections is the point.
//!
//! It behaves as RabbitMQ 3.10 does, down to reply texts; where that is asynchronous inside RabbitMQ it is here too.
//! What a queue tells a channel (deliveries, `consume-ok`, `cancel-ok`, `tx.commit-ok`, confirms, `basic.cancel`) waits
//! in the channel's mailbox until [`Broker::pump`], and so may come after the answer to a later request.
//! The tests of this crate can be run against a real RabbitMQ instead: `WARREN_TEST_BROKER=host:port cargo test -p
//! warren-broker --test behaviour -- --test-threads=1` shows where the two differ.
//!
//! In the order in which data flows:
//!
//! - [`Broker`]: the connections, and what a driver calls.
//! - `connection`, `handshake`, `frames`, `closing`: one connection, from protocol header to close-ok.
//! - `content`: method, header and bodies assembled to a message.
//! - `call` and one file per subject (`publish`, `consume`, `settle`, `declare`, `bind`, `tx`, `confirm` …): methods
//!   of a channel.
//! - `core`, `queue`, `exchange`, `routing`, `channel`: what the broker remembers.
//! - `pump`: mailboxes written out.
//! - `server` (feature `server`): sockets and time around all this, for clients that are real. The core knows neither.
//!
//! # What it does not do
//!
//! Nothing expires (`x-expires`, `x-message-ttl` and `expiration` are checked and then ignored: there is no clock);
//! no dead-lettering; no `x-max-length-bytes`; no message priorities; no CC and BCC headers; no policies; quorum queues
//! are classic queues that refuse what quorum queues refuse, and streams are refused; no EXTERNAL login; tables nested
//! deeper than `warren-wire` reads them count as malformed.

mod args;
mod auth;
mod bind;
mod broker;
mod call;
mod channel;
mod closing;
mod confirm;
mod connection;
mod consume;
mod content;
mod core;
mod declare;
mod delete;
mod exchange;
mod fault;
mod faults;
mod frames;
mod handshake;
mod inspect;
mod invariants;
mod message;
mod names;
mod options;
mod publish;
mod pump;
mod qos;
mod queue;
mod reply_to;
mod rng;
mod routing;
#[cfg(feature = "server")]
mod server;
mod settle;
mod tx;
mod vhost;

pub use broker::{Broker, ConnId};
pub use inspect::{Counters, Phase, QueueInfo};
pub use options::{Access, ConfirmStyle, Options, Quirks, User};
#[cfg(feature = "server")]
pub use server::Server;
