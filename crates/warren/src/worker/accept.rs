//! Accepting clients. Every worker accepts from the same sockets; whoever is free is first.

use std::cell::Cell;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::net::TcpListener;

use super::{Worker, survive};

/// First pause after an error that is not the client's, such as too many open files. Doubled each time.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
/// A second is soon enough to find out that things are better; and it is how often the log may say that they are not.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Accepts until it is dropped. No error ends it.
pub(super) async fn accept(worker: Rc<Worker>, listener: TcpListener) {
    let mut pause = SHORTEST_PAUSE;
    let silent_until = Cell::new(Instant::now());
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                pause = SHORTEST_PAUSE;
                survive("a new client", || worker.accepted(stream, address));
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                complain(&silent_until, &error);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Whether a client went away while it waited: nothing to pause for.
fn is_the_clients(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn complain(silent_until: &Cell<Instant>, error: &io::Error) {
    let now = Instant::now();
    if now >= silent_until.get() {
        silent_until.set(now + LONGEST_PAUSE);
        tracing::warn!("clients cannot be accepted at the moment: {error}");
    }
}
