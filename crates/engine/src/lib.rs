//! The decisions of Warren: sessions, channels, pools, routing and limits. Sans-I/O: bytes and `now` go in, bytes and
//! commands come out, through reused lists; no runtime, no sockets, no clock, no randomness but a seed.
//!
//! The modules in the order in which data flows: [`engine`] (the interface), `client` (frames from clients),
//! `handshake`, `logins`, `inquiries`, `requests`, `publish`, `consume`; `bind`, `switch` and `release` (a channel and its
//! bindings); `dial`, `tries` and `nodes` (connections to brokers; [`balance`]: to which), `broker` and `replies` (frames
//! from brokers); `flow` (outboxes), `close`, `timers`; `dedicated` (sessions with an upstream connection of their own). The
//! records: `session`, `channel`, `upstream`, `tenant`.

pub mod allowances;
pub mod api;
mod authorize;
pub mod balance;
mod bind;
mod broker;
mod budget;
pub mod buf;
mod channel;
mod client;
mod close;
pub mod config;
mod consume;
mod dedicated;
mod deliver;
mod dial;
pub mod engine;
pub mod event;
mod fairness;
mod fault;
mod flow;
mod handshake;
pub mod ids;
mod inquiries;
mod invariants;
mod logins;
pub mod metrics;
mod nodes;
mod numbers;
pub mod outbox;
mod pacing;
mod places;
mod publish;
mod quota;
mod random;
mod ranges;
mod refuse;
mod release;
mod replay;
mod replies;
mod requests;
mod resume;
mod risks;
mod secrets;
mod segments;
pub mod session;
mod slots;
mod sources;
mod streams;
mod switch;
mod tables;
pub mod tags;
mod tenant;
pub mod time;
mod timers;
mod tries;
mod turns;
mod upstream;
pub mod wheel;

pub use allowances::Allowances;
pub use api::{ClientTls, Command, Gone, Link, Peer};
pub use authorize::{AuthRequest, Replacement, Verdict};
pub use config::Config;
#[cfg(feature = "sabotage")]
pub use engine::Sabotage;
pub use engine::{Engine, Options};
