//! The same test twice: against the broker, and through Warren. What the first run shows is what the second must.

use crate::peer::{Handshake, Peer};
use crate::rabbit::{self, Rabbit};
use crate::warren::Warren;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// How a test reaches its broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Through {
    /// No proxy.
    Nothing,
    /// A Warren of its own.
    Warren,
}

/// A way to the shared node, with a virtual host of its own.
#[derive(Debug)]
pub struct Way {
    /// Which way this is.
    pub through: Through,
    /// The node at the end of it.
    pub rabbit: &'static Rabbit,
    /// The Warren on the way.
    pub warren: Option<Warren>,
    /// The virtual host that only this run of this test uses.
    pub vhost: String,
}

impl Way {
    /// Prepares a way; a `Warren` gets these arguments.
    pub fn new(through: Through, arguments: &[&str]) -> Way {
        let rabbit = rabbit::shared();
        let vhost = unique("test");
        rabbit.add_vhost(&vhost);
        let warren = match through {
            Through::Nothing => None,
            Through::Warren => Some(Warren::start_with(rabbit.port(), arguments)),
        };
        Way { through, rabbit, warren, vhost }
    }

    /// Where clients connect to.
    pub fn address(&self) -> SocketAddr {
        self.warren.as_ref().map_or(self.rabbit.address(), Warren::address)
    }

    /// A handshake for the virtual host.
    pub fn handshake(&self) -> Handshake {
        Handshake::on(&self.vhost)
    }

    /// A connection to the virtual host.
    pub fn connect(&self) -> Peer {
        Peer::connect_with(self.address(), &self.handshake())
    }

    /// A connection with channel 1 open.
    pub fn connect_channel(&self) -> Peer {
        let mut peer = self.connect();
        peer.open_channel(1);
        peer
    }

    /// A connection past Warren, with channel 1 open: for looking at what arrived.
    pub fn observer(&self) -> Peer {
        let mut peer = Peer::connect_with(self.rabbit.address(), &self.handshake());
        peer.open_channel(1);
        peer
    }
}

impl Drop for Way {
    /// The node is shared and the virtual host is not needed any more. Nothing may fail here.
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("--- failed through {:?}, on virtual host {}", self.through, self.vhost);
        } else {
            self.warren = None;
            self.rabbit.delete_vhost(&self.vhost);
        }
    }
}

/// Runs a test without and then with Warren. `WARREN_TEST_WAYS=direct` or `=warren` runs one of them, for work on
/// the tests themselves.
pub fn both_ways(test: impl Fn(&Way)) {
    both_ways_with(&[], test);
}

/// As [`both_ways`], with arguments for Warren.
pub fn both_ways_with(arguments: &[&str], test: impl Fn(&Way)) {
    for through in chosen_ways() {
        test(&Way::new(*through, arguments));
    }
}

/// Whether `WARREN_TEST_WAYS` leaves both ways to be gone, so that they can be compared.
pub fn both_ways_are_chosen() -> bool {
    chosen_ways().len() == 2
}

/// The ways that [`both_ways`] goes one after the other, for tests that go them at the same time.
pub fn ways() -> Vec<Way> {
    chosen_ways().iter().map(|through| Way::new(*through, &[])).collect()
}

/// Runs a test with Warren only: for what Warren promises beyond what its broker does.
pub fn through_warren(test: impl Fn(&Way)) {
    if chosen_ways().contains(&Through::Warren) {
        test(&Way::new(Through::Warren, &[]));
    }
}

/// Runs a test without and then with Warren, and compares what it gives: for answers of the broker that Warren must
/// not change. Names of virtual hosts are replaced, since each run has its own.
pub fn same_both_ways(test: impl Fn(&Way) -> Vec<String>) {
    same_both_ways_with(&[], test);
}

/// As [`same_both_ways`], with arguments for Warren.
pub fn same_both_ways_with(arguments: &[&str], test: impl Fn(&Way) -> Vec<String>) {
    let run = |through: &Through| {
        let way = Way::new(*through, arguments);
        let seen: Vec<String> = test(&way).iter().map(|line| line.replace(&way.vhost, "VHOST")).collect();
        (*through, seen)
    };
    let runs: Vec<_> = chosen_ways().iter().map(run).collect();
    for (through, seen) in &runs {
        assert_eq!(
            seen, &runs[0].1,
            "through {through:?} (left) it is not as through {:?} (right)",
            runs[0].0
        );
    }
}

fn chosen_ways() -> &'static [Through] {
    let chosen = std::env::var("WARREN_TEST_WAYS").unwrap_or_else(|_| "both".to_owned());
    match chosen.as_str() {
        "both" => &[Through::Nothing, Through::Warren],
        "direct" => &[Through::Nothing],
        "warren" => &[Through::Warren],
        other => panic!("WARREN_TEST_WAYS is {other:?}; it can be direct, warren or both"),
    }
}

/// A name that no other test of any process uses.
pub fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Waits until something is so; fails, saying what was waited for, when it is not in time.
pub fn eventually(what: &str, within: Duration, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + within;
    while !is_so() {
        assert!(Instant::now() < deadline, "waited {within:?} in vain for: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}
