//! The embedded broker as clients meet it, behind its own socket and behind Warren. No broker has to be installed.
//!
//! What the broker answers is under test in its own crate, byte by byte. Here it is that real clients can use it, and
//! that its sockets are well behaved.

mod clients;
mod farms;
mod limits;
mod queues;
mod sharing;

use std::net::{Ipv4Addr, SocketAddr};
use warren_broker::{Options, Server};
use warren_testkit::Warren;

/// A broker on a free port of the loopback address.
fn start() -> Server {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Server::start(Options::default(), address).expect("a free port")
}

/// Runs a test against a broker, and then through a Warren in front of another one.
fn both_ways(test: impl Fn(SocketAddr)) {
    let broker = start();
    test(broker.address());
    broker.with(|broker| broker.check_invariants());
    drop(broker);
    let broker = start();
    let warren = Warren::start_with(broker.address().port(), &[]);
    test(warren.address());
    warren.stop();
    broker.with(|broker| broker.check_invariants());
}
