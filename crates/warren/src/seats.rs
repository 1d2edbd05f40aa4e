//! How many connections the process has, and whether there is room for more clients.
//!
//! Every connection takes a seat, whether it is a client's or leads to a broker; only clients wait for one. When all
//! are taken, no worker accepts: clients wait in the system's queue until others leave, as with HAProxy's `maxconn`.
//! That costs nothing, and a short crowd is served a little later instead of being turned away; whoever waits too long
//! for that has a time-out of its own. Connections to brokers go on meanwhile, out of the reserve that
//! [`crate::limits`] keeps.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use warren_engine::allowances::Window;

use crate::logging::Rarely;
use crate::worker::clock::Clock;

/// The seats of the process, shared by all workers. Counting is exact; whether there is room is asked before a client
/// comes, by each worker for itself, so that a few more than `most` may be taken: at most one per acceptor.
#[derive(Debug)]
pub(crate) struct Seats {
    most: usize,
    taken: AtomicUsize,
    /// Workers with as many handshakes in progress as each may have.
    crowded: AtomicUsize,
    /// New clients per second, and those of the last one.
    rate: Option<(u64, Mutex<Window>)>,
    clock: Clock,
    complaints: Rarely,
}

impl Seats {
    /// So many seats, none of them taken, and so many clients per second who may take one.
    pub(crate) fn new(most: usize, rate: Option<u32>, clock: Clock) -> Arc<Seats> {
        Arc::new(Seats {
            most,
            rate: rate.map(|rate| (rate.into(), Mutex::default())),
            clock,
            taken: AtomicUsize::new(0),
            crowded: AtomicUsize::new(0),
            complaints: Rarely::default(),
        })
    }

    /// Takes one, whether there is room or not: for connections that exist already.
    pub(crate) fn take(self: &Arc<Seats>) -> Seat {
        self.taken.fetch_add(1, Relaxed);
        Seat(Arc::clone(self))
    }

    /// Whether another client may be accepted.
    pub(crate) fn has_room(&self) -> bool {
        self.taken.load(Relaxed) < self.most
    }

    /// How long the next client has to wait because of those who came within the last second.
    pub(crate) fn pause(&self) -> Option<Duration> {
        let (rate, window) = self.rate.as_ref()?;
        let now = self.clock.now();
        let free_at = window.lock().unwrap_or_else(PoisonError::into_inner).free_at(now, *rate);
        (free_at > now).then(|| free_at.since(now))
    }

    /// A client was accepted. `false`: others were faster, it has to wait.
    pub(crate) fn admit(&self) -> bool {
        let Some((rate, window)) = &self.rate else { return true };
        window.lock().unwrap_or_else(PoisonError::into_inner).take(self.clock.now(), *rate).is_some()
    }

    /// Why clients wait when they come too fast, for people.
    pub(crate) fn too_fast(&self) -> String {
        format!(
            "the accept rate of {} per second is used up",
            self.rate.as_ref().map_or(0, |(rate, _)| *rate)
        )
    }

    /// A worker has become crowded, or is so no more.
    pub(crate) fn note_crowded(&self, crowded: bool) {
        if crowded {
            self.crowded.fetch_add(1, Relaxed);
        } else {
            self.crowded.fetch_sub(1, Relaxed);
        }
    }

    /// Workers that are crowded now. While others are not, these accept.
    pub(crate) fn crowded(&self) -> usize {
        self.crowded.load(Relaxed)
    }

    /// Says in the log, now and then, why clients wait.
    pub(crate) fn complain(&self, why: &dyn std::fmt::Display) {
        self.complaints.say(|| tracing::warn!("clients cannot be accepted at the moment: {why}"));
    }

    /// Why there is no room, for people.
    pub(crate) fn full(&self) -> String {
        let taken = self.taken.load(Relaxed);
        format!("{taken} connections are open and the limit of open files leaves room for {}", self.most)
    }
}

/// One connection's seat; free again when dropped.
#[derive(Debug)]
pub(crate) struct Seat(Arc<Seats>);

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seat_is_free_again_when_its_connection_is_gone() {
        let seats = Seats::new(2, None, Clock::start());
        let first = seats.take();
        let _second = seats.take();
        assert!(!seats.has_room());
        seats.note_crowded(true);
        assert_eq!(seats.crowded(), 1);
        seats.note_crowded(false);
        assert_eq!(seats.crowded(), 0);
        assert!(seats.full().starts_with("2 connections"), "{}", seats.full());
        drop(first);
        assert!(seats.has_room());
    }

    #[test]
    fn no_more_come_in_a_second_than_may() {
        let seats = Seats::new(100, Some(3), Clock::start());
        let admitted = (0..10).filter(|_| seats.admit()).count();
        assert_eq!(admitted, 3);
        let pause = seats.pause().expect("the next has to wait");
        assert!(pause <= Duration::from_secs(1), "{pause:?}");
        std::thread::sleep(pause + Duration::from_millis(1));
        assert!(seats.admit());
        let unlimited = Seats::new(1, None, Clock::start());
        assert!(unlimited.admit() && unlimited.pause().is_none());
    }
}
