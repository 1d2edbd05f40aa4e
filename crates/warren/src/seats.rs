//! How many connections the process has, and whether there is room for more clients.
//!
//! Every connection takes a seat, whether it is a client's or leads to a broker; only clients wait for one. When all
//! are taken, no worker accepts: clients wait in the system's queue until others leave, as with HAProxy's `maxconn`.
//! That costs nothing, and a short crowd is served a little later instead of being turned away; whoever waits too long
//! for that has a time-out of its own. Connections to brokers go on meanwhile, out of the reserve that
//! [`crate::limits`] keeps.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often the log may say that there is no room.
const SILENCE: Duration = Duration::from_secs(1);

/// The seats of the process, shared by all workers. Counting is exact; whether there is room is asked before a client
/// comes, by each worker for itself, so that a few more than `most` may be taken: at most one per acceptor.
#[derive(Debug)]
pub(crate) struct Seats {
    most: usize,
    taken: AtomicUsize,
    /// Workers with as many handshakes in progress as each may have.
    crowded: AtomicUsize,
    silent_until: Mutex<Option<Instant>>,
}

impl Seats {
    /// So many seats, none of them taken.
    pub(crate) fn new(most: usize) -> Arc<Seats> {
        Arc::new(Seats {
            most,
            taken: AtomicUsize::new(0),
            crowded: AtomicUsize::new(0),
            silent_until: Mutex::new(None),
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
        let now = Instant::now();
        let mut silent_until = self.silent_until.lock().unwrap_or_else(PoisonError::into_inner);
        if silent_until.is_none_or(|until| now >= until) {
            *silent_until = Some(now + SILENCE);
            tracing::warn!("clients cannot be accepted at the moment: {why}");
        }
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
        let seats = Seats::new(2);
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
}
