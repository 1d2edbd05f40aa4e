//! Deliveries: each connection that has consumers has a thread that sends as fast as the connection takes it.
//!
//! The consumers of a connection take turns as those of a real broker do: RabbitMQ's channels write about one TCP segment
//! each (FLUSH_THRESHOLD of rabbit_writer, 1414 octets), so that what shares a connection comes well mixed. It is sent
//! in large writes all the same, for this broker shall cost little.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::messages::Deliveries;
use crate::socket::Writing;

use super::Counts;
use super::queues::Queue;

/// The writing half of a connection: one write at a time, each of whole frames.
#[derive(Clone)]
pub(super) struct Writer(Arc<Half>);

struct Half {
    socket: Mutex<Writing>,
    /// Answers that wait for their turn. A mutex is not fair: consumers would take it again and again.
    answers: AtomicUsize,
}

impl Writer {
    pub(super) fn new(socket: Writing) -> Self {
        Writer(Arc::new(Half { socket: Mutex::new(socket), answers: AtomicUsize::new(0) }))
    }

    /// Writes answers, before any further delivery. Failures show when the connection is read.
    pub(super) fn answer(&self, frames: &[u8]) {
        self.0.answers.fetch_add(1, Ordering::SeqCst);
        let mut socket = self.lock();
        self.0.answers.fetch_sub(1, Ordering::SeqCst);
        let _ = socket.write_all(frames);
    }

    /// The socket for a batch of deliveries.
    fn turn(&self) -> MutexGuard<'_, Writing> {
        while self.0.answers.load(Ordering::SeqCst) > 0 {
            thread::yield_now();
        }
        self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, Writing> {
        self.0.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// About how many octets a consumer sends in its turn.
const TURN_OCTETS: usize = 1414;
/// About how many octets go out in one write.
const WRITE_OCTETS: usize = 256 * 1024;

/// The consumers of one connection. The thread ends when this is dropped.
pub(super) struct Consumers {
    writer: Writer,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    running: Vec<Running>,
    has_thread: bool,
    ended: bool,
}

struct Running {
    channel: u16,
    tag: Vec<u8>,
    queue: Queue,
    deliveries: Deliveries,
}

impl Consumers {
    pub(super) fn new(writer: &Writer) -> Self {
        let shared = Arc::default();
        Consumers { writer: writer.clone(), shared }
    }

    /// Begins to deliver.
    pub(super) fn start(&self, queue: Queue, channel: u16, tag: &[u8], counts: &Arc<Counts>) {
        let deliveries = Deliveries::new(channel, tag, queue.size, TURN_OCTETS);
        let mut state = self.shared.lock();
        state.running.push(Running { channel, tag: tag.to_vec(), queue, deliveries });
        self.shared.changed.notify_one();
        if !std::mem::replace(&mut state.has_thread, true) {
            let (shared, writer, counts) =
                (Arc::clone(&self.shared), self.writer.clone(), Arc::clone(counts));
            thread::spawn(move || {
                while shared.send(&writer) {}
                counts.this_thread_ends();
            });
        }
    }

    /// Ends one consumer of a channel, or all of them. An answer written afterwards comes after their last delivery.
    pub(super) fn stop(&self, channel: u16, tag: Option<&[u8]>) {
        let mut state = self.shared.lock();
        state.running.retain(|r| r.channel != channel || tag.is_some_and(|tag| r.tag != tag));
    }
}

impl Drop for Consumers {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One write, or a wait for something to write; false when there will be no more. Deliveries are taken with the
    /// socket held: who stops a consumer and then writes, writes after them.
    fn send(&self, writer: &Writer) -> bool {
        let mut socket = writer.turn();
        let mut batch = Vec::with_capacity(WRITE_OCTETS + WRITE_OCTETS / 4);
        let mut state = self.lock();
        if state.ended {
            return false;
        }
        state.fill(&mut batch);
        if !batch.is_empty() {
            drop(state);
            return socket.write_all(&batch).is_ok();
        }
        drop(socket);
        let _woken = self.changed.wait(state);
        true
    }
}

impl State {
    /// One turn after the other, until it is enough for one write or the queues are empty.
    fn fill(&mut self, batch: &mut Vec<u8>) {
        let mut more = true;
        while more && batch.len() < WRITE_OCTETS {
            more = false;
            for Running { queue, deliveries, .. } in &mut self.running {
                let messages = queue.take(deliveries.len());
                more |= messages > 0;
                batch.extend_from_slice(deliveries.next(messages));
            }
        }
    }
}
