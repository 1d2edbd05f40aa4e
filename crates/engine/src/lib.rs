//! The decisions of Warren: sessions, channels, pools, routing and limits, sans-I/O.

pub mod api;
pub mod buf;
pub mod config;
pub mod engine;
pub mod event;
pub mod ids;
pub mod metrics;
pub mod outbox;
pub mod session;
pub mod tags;
pub mod time;
pub mod wheel;

pub use api::{Command, Gone, Link, Peer};
pub use config::Config;
pub use engine::{Engine, Options};
