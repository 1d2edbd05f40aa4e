//! One thread for each consumer, which sends as fast as its connection takes it.

use std::io::Write;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use crate::messages::Deliveries;

use super::Counts;
use super::queues::Queue;

/// The writing half of a connection: one write at a time, each of whole frames.
#[derive(Clone)]
pub(super) struct Writer(Arc<Half>);

struct Half {
    socket: Mutex<TcpStream>,
    /// Answers that wait for their turn. A mutex is not fair: consumers would take it again and again.
    answers: AtomicUsize,
}

impl Writer {
    pub(super) fn new(socket: TcpStream) -> Self {
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
    fn turn(&self) -> MutexGuard<'_, TcpStream> {
        while self.0.answers.load(Ordering::SeqCst) > 0 {
            thread::yield_now();
        }
        self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, TcpStream> {
        self.0.socket.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running consumer; it ends when dropped, though a write may be under way.
pub(super) struct Consumer {
    pub(super) tag: Vec<u8>,
    stop: Arc<AtomicBool>,
}

impl Consumer {
    pub(super) fn start(
        writer: &Writer,
        queue: Queue,
        channel: u16,
        tag: &[u8],
        counts: &Arc<Counts>,
    ) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, writer) = (Arc::clone(&stop), writer.clone());
        let counts = Arc::clone(counts);
        let mut deliveries = Deliveries::new(channel, tag, queue.size);
        thread::spawn(move || {
            while send(&mut deliveries, &queue, &stopped, &writer) {}
            counts.this_thread_ends();
        });
        Consumer { tag: tag.to_vec(), stop }
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}

/// One batch; false when there will be no more. The flag is looked at with the writer held: once someone else has
/// written after setting it (cancel-ok, close-ok), nothing follows, and nothing was taken out of the queue in vain.
fn send(deliveries: &mut Deliveries, queue: &Queue, stopped: &AtomicBool, writer: &Writer) -> bool {
    let mut socket = writer.turn();
    if stopped.load(Ordering::SeqCst) {
        return false;
    }
    let messages = queue.take(deliveries.len());
    messages > 0 && socket.write_all(deliveries.next(messages)).is_ok()
}
