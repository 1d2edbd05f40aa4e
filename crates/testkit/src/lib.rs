//! What the tests start: RabbitMQ nodes, Warren, clients.
//!
//! - [`rabbit`]: a RabbitMQ node of our own, its counters, its faults. [`rabbit::shared`] is the one that most tests
//!   use together, [`rabbit::exclusive`] the one for tests that count, stop or kill.
//! - [`warren`]: the proxy under test, as a process.
//! - [`peer`]: an AMQP client made of frames, which can do what no decent client does.
//! - [`clients`]: the real clients in other languages, with the job they all do.
//! - [`relay`]: a way to a broker that can become a black hole; [`hole`]: an address that does not answer.
//! - [`certificates`]: an authority and what it signs, for TLS.
//! - [`both_ways`]: the same test against the broker and through Warren.
//!
//! Nothing is skipped in silence: a test that needs a program that is not installed fails and names `make deps`.
//! All methods panic when something does not go as the test wants it: in a test, that is the error report.

pub mod certificates;
pub mod clients;
pub mod hole;
pub mod peer;
mod ports;
pub mod rabbit;
mod reaper;
pub mod relay;
pub mod warren;
mod ways;

pub use peer::{Handshake, Peer};
pub use ports::free as free_port;
pub use rabbit::Rabbit;
pub use warren::Warren;
pub use ways::{Through, Way, both_ways, both_ways_are_chosen, both_ways_with};
pub use ways::{eventually, same_both_ways, same_both_ways_with, through_warren, unique, ways};

use std::path::PathBuf;

/// Raises the limit of open descriptors to the hard limit, for tests with many connections.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
}

/// The folder of the whole project, where `.deps` and `tests/clients` are.
pub fn project_folder() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("the crate lies in crates/testkit of the project").to_path_buf()
}
