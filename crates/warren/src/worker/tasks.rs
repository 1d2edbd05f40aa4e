//! Tasks of the workers, counted: one that never ends would be a leak that no other figure shows.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::task::{JoinHandle, spawn_local};

/// Of all workers. Touched when a connection begins or ends, not for messages.
static ALIVE: AtomicUsize = AtomicUsize::new(0);

/// Counts while it exists, whether its task was ever run or not.
struct Alive;

impl Alive {
    fn new() -> Alive {
        ALIVE.fetch_add(1, Relaxed);
        Alive
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        ALIVE.fetch_sub(1, Relaxed);
    }
}

/// Begins a task on this worker.
pub(crate) fn spawn<F: Future + 'static>(future: F) -> JoinHandle<F::Output>
where
    F::Output: 'static,
{
    let alive = Alive::new();
    spawn_local(async move {
        let _alive = alive;
        future.await
    })
}

/// Tasks that have not ended, in the whole process.
pub(crate) fn alive() -> usize {
    ALIVE.load(Relaxed)
}
