//! Clients that must feel nothing of what others do: how long their messages take, and what Warren's process holds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use warren_testkit::{Peer, Warren, Way};

/// What is measured at least, however slow the machine is.
const LEAST: usize = 50;
/// Others on the machine may spoil a measurement, and then another one counts. Who waits for another client waits in
/// all of them.
const ROUNDS: usize = 4;
/// However busy the machine is. A client that waits for another one's time-outs, or for its broker to read from a
/// connection that a flood shares (more than a second), waits longer.
const MOST: Duration = Duration::from_millis(500);

/// How fast something went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) median: Duration,
    pub(crate) p99: Duration,
}

impl Pace {
    fn of(mut all: Vec<Duration>) -> Pace {
        all.sort();
        Pace { median: all[all.len() / 2], p99: all[all.len() * 99 / 100] }
    }

    /// Whether nothing but the way through Warren and the scheduler's slices makes it slower than the other. A median is
    /// hardly touched by others' work, and both ways have met it; for the slowest of a hundred there must be room.
    fn is_like(self, past: Pace) -> bool {
        let median = past.median * 4 + Duration::from_millis(10);
        let p99 = past.p99 * 4 + Duration::from_millis(150);
        self.median <= median.min(MOST) && self.p99 <= p99
    }
}

/// Does the same through Warren and past it, in turns, so that both meet the same broker and the same noise of the
/// machine at the same time; fails when it takes longer through Warren in every round.
pub(crate) fn is_as_without_warren(
    what: &str,
    time: Duration,
    mut through: impl FnMut() -> Duration,
    mut past: impl FnMut() -> Duration,
) {
    let mut seen = Vec::new();
    for _ in 0..ROUNDS {
        let (started, mut all, mut others) = (Instant::now(), Vec::new(), Vec::new());
        while started.elapsed() < time || all.len() < LEAST {
            all.push(through());
            others.push(past());
        }
        let times = all.len();
        let (through, past) = (Pace::of(all), Pace::of(others));
        println!("{what}: {through:?}, without Warren: {past:?}, {times} times");
        if through.is_like(past) {
            return;
        }
        seen.push((through, past));
    }
    panic!("{what} takes longer through Warren (left) than past it (right): {seen:?}");
}

/// A publisher with confirms and a consumer: each message is confirmed, delivered and acknowledged before the next.
pub(crate) struct Pair {
    publisher: Peer,
    consumer: Peer,
    queue: String,
    sent: u64,
}

impl Pair {
    fn new(mut publisher: Peer, mut consumer: Peer) -> Pair {
        let queue = consumer.declare(1, "");
        consumer.qos(1, 10);
        consumer.consume(1, &queue, "", false);
        publisher.confirm_select(1);
        Pair { publisher, consumer, queue, sent: 0 }
    }

    /// One message there and back.
    fn turn(&mut self) -> Duration {
        let started = Instant::now();
        self.sent += 1;
        let body = [self.sent.to_be_bytes().as_slice(), &[7; 1000]].concat();
        self.publisher.publish(1, &self.queue, &body);
        self.publisher.expect_confirms(1, self.sent, 1);
        let message = self.consumer.delivery(1);
        assert!(message.body == body && message.tag() == self.sent, "message {} is another", self.sent);
        self.consumer.ack(1, self.sent, false);
        started.elapsed()
    }

    /// Where its messages pass.
    pub(crate) fn queue(&self) -> &str {
        &self.queue
    }

    /// A message of so many octets there and back.
    pub(crate) fn large(&mut self, octets: usize) {
        self.sent += 1;
        self.publisher.publish(1, &self.queue, &vec![3; octets]);
        self.publisher.expect_confirms(1, self.sent, 1);
        assert_eq!(self.consumer.delivery(1).body.len(), octets);
        self.consumer.ack(1, self.sent, false);
    }

    fn close(self) {
        self.publisher.close();
        self.consumer.close();
    }
}

/// A pair on the way, and one past Warren to compare it with.
pub(crate) struct Pairs {
    pub(crate) through: Pair,
    past: Pair,
}

impl Pairs {
    pub(crate) fn new(way: &Way) -> Pairs {
        let through = Pair::new(way.connect_channel(), way.connect_channel());
        Pairs { through, past: Pair::new(way.observer(), way.observer()) }
    }

    /// Goes on for a time and fails when what others do is felt.
    pub(crate) fn feel_nothing(&mut self, what: &str, time: Duration) {
        let (through, past) = (&mut self.through, &mut self.past);
        is_as_without_warren(what, time, || through.turn(), || past.turn());
    }

    pub(crate) fn close(self) {
        self.through.close();
        self.past.close();
    }
}

/// Octets of memory that Warren's process holds.
pub(crate) fn resident(warren: &Warren) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", warren.pid())).expect("it runs");
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).expect("a line of its memory");
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect("a number") * 1024
}

/// The most memory that Warren's process holds while something is done, looked at every few milliseconds.
pub(crate) fn peak_while<R>(warren: &Warren, what: impl FnOnce() -> R) -> (u64, R) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watch = scope.spawn(|| {
            let mut most = 0;
            while !done.load(Ordering::Relaxed) {
                most = most.max(resident(warren));
                std::thread::sleep(Duration::from_millis(5));
            }
            most.max(resident(warren))
        });
        // A panic in `what` must not leave the watcher waiting.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(what));
        done.store(true, Ordering::Relaxed);
        let most = watch.join().expect("it only looks");
        match result {
            Ok(result) => (most, result),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}
