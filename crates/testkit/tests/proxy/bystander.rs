//! A client that does nothing wrong, beside those that do: it is served all the time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread::{JoinHandle, sleep, spawn};
use std::time::{Duration, Instant};
use warren_testkit::{Handshake, Peer};

/// Between two requests: the bystander is no load.
const PAUSE: Duration = Duration::from_millis(10);
/// Requests that are made at least.
const LEAST_REQUESTS: usize = 50;
/// Requests for each connection that is made beside the lasting one.
const REQUESTS_PER_NEWCOMER: usize = 10;
/// A request takes a millisecond. This is for a machine with two cores that test and compile other things; a client
/// that waits for somebody else's time-out waits longer.
const NEARLY_ALWAYS: Duration = Duration::from_secs(1);
/// For the longest of all: less than the ten seconds that a handshake may take.
const ALWAYS: Duration = Duration::from_secs(8);

/// The client: one connection that lasts, and now and then a new one.
#[derive(Debug)]
pub(crate) struct Bystander {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Waits>,
    newcomers: bool,
}

#[derive(Debug, Default)]
struct Waits {
    requests: Vec<Duration>,
    newcomers: Vec<Duration>,
}

impl Bystander {
    /// Begins to ask; the first answers have come when this returns.
    pub(crate) fn start(address: SocketAddr, handshake: &Handshake) -> Bystander {
        Bystander::begin(address, handshake, true)
    }

    /// As [`Bystander::start`], without new connections: for a Warren that is full.
    pub(crate) fn start_alone(address: SocketAddr, handshake: &Handshake) -> Bystander {
        Bystander::begin(address, handshake, false)
    }

    fn begin(address: SocketAddr, handshake: &Handshake, newcomers: bool) -> Bystander {
        let stop = Arc::new(AtomicBool::new(false));
        let (ended, handshake) = (Arc::clone(&stop), handshake.clone());
        let mut peer = Peer::connect_with(address, &handshake);
        peer.open_channel(1);
        let queue = peer.declare(1, "");
        peer.confirm_select(1);
        let thread = spawn(move || {
            let mut waits = Waits::default();
            let mut published = 0;
            // However short the test is, something is measured.
            while !ended.load(Relaxed) || waits.requests.len() < LEAST_REQUESTS {
                waits.requests.push(timed(|| {
                    published += 1;
                    peer.publish(1, &queue, b"still here");
                    peer.expect_confirms(1, published, 1);
                }));
                if newcomers && waits.requests.len().is_multiple_of(REQUESTS_PER_NEWCOMER) {
                    waits.newcomers.push(timed(|| {
                        let mut newcomer = Peer::connect_with(address, &handshake);
                        newcomer.open_channel(1);
                        newcomer.ready(1, &queue);
                        newcomer.close();
                    }));
                }
                sleep(PAUSE);
            }
            peer.delete_queue(1, &queue);
            peer.close();
            waits
        });
        Bystander { stop, thread, newcomers }
    }

    /// Ends, and asserts that all requests were answered in time.
    pub(crate) fn finish(self) {
        self.stop.store(true, Relaxed);
        let waits = self.thread.join().expect("the bystander is served");
        let mut measured = vec![("requests", waits.requests)];
        if self.newcomers {
            measured.push(("newcomers", waits.newcomers));
        }
        for (what, mut waits) in measured {
            assert!(!waits.is_empty(), "no {what} were measured");
            waits.sort_unstable();
            let (p99, worst) = (waits[waits.len() * 99 / 100], waits[waits.len() - 1]);
            println!("bystander: {} {what}, 99 of 100 within {p99:?}, all within {worst:?}", waits.len());
            // Of few, the slowest one is the 99th of 100.
            assert!(waits.len() < 200 || p99 < NEARLY_ALWAYS, "one of 100 {what} took more than {p99:?}");
            assert!(worst < ALWAYS, "one of the {what} took {worst:?}");
        }
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let started = Instant::now();
    work();
    started.elapsed()
}
