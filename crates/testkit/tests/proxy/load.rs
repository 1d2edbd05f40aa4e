//! Clients that must feel nothing of what others do: how long their messages take, and what Warren's process holds.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use warren_testkit::{Peer, Warren, Way};

/// How fast something went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    pub(crate) per_second: f64,
    pub(crate) median: Duration,
    pub(crate) p99: Duration,
}

impl Pace {
    /// Of the durations of what was done one after the other in `within`.
    pub(crate) fn of(mut all: Vec<Duration>, within: Duration) -> Pace {
        all.sort();
        assert!(all.len() >= 20, "only {} in {within:?}", all.len());
        Pace {
            per_second: all.len() as f64 / within.as_secs_f64(),
            median: all[all.len() / 2],
            p99: all[all.len() * 99 / 100],
        }
    }

    /// Fails when this is another pace than the one before. What a busy machine does to both is let pass: others' work
    /// costs cores, and the scheduler's slices are milliseconds. Who waits for another client waits much longer.
    pub(crate) fn is_like(self, before: Pace, what: &str) {
        println!("{what}: {self:?}, before: {before:?}");
        assert!(self.per_second >= before.per_second / 5.0, "{what}: {self:?}, before: {before:?}");
        let most = (before.p99 * 4).max(Duration::from_millis(150));
        assert!(self.p99 <= most, "{what}: {self:?}, before: {before:?}");
    }
}

/// A publisher with confirms and a consumer, through Warren: each message is confirmed, delivered and acknowledged
/// before the next.
pub(crate) struct Pair {
    publisher: Peer,
    consumer: Peer,
    queue: String,
    sent: u64,
}

impl Pair {
    pub(crate) fn new(way: &Way) -> Pair {
        let (mut publisher, mut consumer) = (way.connect_channel(), way.connect_channel());
        let queue = consumer.declare(1, "");
        consumer.qos(1, 10);
        consumer.consume(1, &queue, "", false);
        publisher.confirm_select(1);
        Pair { publisher, consumer, queue, sent: 0 }
    }

    /// One message there and back.
    pub(crate) fn turn(&mut self) -> Duration {
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

    /// Goes on for a time.
    pub(crate) fn run(&mut self, time: Duration) -> Pace {
        let started = Instant::now();
        let mut all = Vec::new();
        while started.elapsed() < time {
            all.push(self.turn());
        }
        Pace::of(all, started.elapsed())
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

    pub(crate) fn close(self) {
        self.publisher.close();
        self.consumer.close();
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
