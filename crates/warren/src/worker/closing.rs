//! The end of a connection in good order: what waits is written, the peer hears that nothing follows, and what it
//! still sends is read and thrown away for a moment. Without the last step the system would answer it with a reset,
//! and a reset can overtake the last frames: the peer would never see why it was closed.

use std::io::ErrorKind;
use std::time::Duration;

use std::rc::Rc;

use tokio::time::{Instant, timeout, timeout_at};

use super::Worker;
use super::links::{Conn, Wanted, Writing};

/// How long a peer may take to read what waits for it.
const WRITE_LIMIT: Duration = Duration::from_secs(10);
/// How long a peer may take to end its side.
const LINGER: Duration = Duration::from_secs(2);
/// Reads before other tasks have their turn.
const READS_PER_TURN: usize = 4;

/// Closes; returns when the socket may be dropped, at the latest after [`WRITE_LIMIT`] and [`LINGER`].
pub(super) async fn close(worker: &Rc<Worker>, conn: &Conn) {
    if write_rest(worker, conn).await {
        conn.socket.shutdown_write();
        let _ = timeout(LINGER, read_rest(conn)).await;
    }
}

/// Whether everything was written.
async fn write_rest(worker: &Rc<Worker>, conn: &Conn) -> bool {
    let deadline = Instant::now() + WRITE_LIMIT;
    loop {
        if conn.writing.get() == Writing::Blocked {
            conn.writing.set(Writing::Open);
        }
        let now = worker.clock.now();
        worker.flush(now, conn);
        worker.settle(now);
        if conn.writing.get() == Writing::Broken || conn.take_wanted().any_of(Wanted::ABORT) {
            return false;
        }
        let written = conn.writing.get() != Writing::Blocked;
        if written && worker.engine.borrow_mut().outbox(conn.link).is_empty() {
            return true;
        }
        if timeout_at(deadline, conn.ready(false)).await.is_err() {
            return false;
        }
    }
}

/// Reads until the peer's end.
async fn read_rest(conn: &Conn) {
    while !conn.take_wanted().any_of(Wanted::ABORT) {
        match discard(conn) {
            Discarded::End => return,
            Discarded::Much => tokio::task::yield_now().await,
            Discarded::All => conn.ready(true).await,
        }
    }
}

enum Discarded {
    /// The peer has ended.
    End,
    /// There is nothing more for now.
    All,
    /// There may be more.
    Much,
}

fn discard(conn: &Conn) -> Discarded {
    let mut scratch = [0; 8192];
    for _ in 0..READS_PER_TURN {
        match conn.socket.try_read(&mut scratch) {
            Ok(0) => return Discarded::End,
            Ok(_) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return Discarded::All,
            Err(_) => return Discarded::End,
        }
    }
    Discarded::Much
}
