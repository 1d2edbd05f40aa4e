//! Accepting clients. Every worker accepts from the same sockets; whoever is free is first.

use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::time::Duration;

use tokio::net::TcpListener;
use warren_engine::config::ListenerId;

use super::{Worker, entrance, survive};

/// First pause after an error that is not the client's, such as too many open files. Doubled each time.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
/// A second is soon enough to find out that things are better.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// How often to look whether there is room again. Clients do not notice it, and a full process has other things to do.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Accepts until it is dropped. No error ends it. While there is no room, clients wait in the system's queue.
pub(super) async fn accept(worker: Rc<Worker>, listener: TcpListener, number: ListenerId) {
    let mut pause = SHORTEST_PAUSE;
    loop {
        while let Some(why) = no_room(&worker) {
            worker.seats.complain(&why);
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        while let Some(pause) = worker.seats.pause() {
            worker.seats.complain(&worker.seats.too_fast());
            tokio::time::sleep(pause).await;
        }
        match listener.accept().await {
            Ok((stream, address)) => {
                pause = SHORTEST_PAUSE;
                while !worker.seats.admit() {
                    // Another acceptor has taken the last place of this second meanwhile.
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                survive("a new client", || entrance::enter(&worker, stream, address, number));
            }
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                worker.seats.complain(&error);
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Why no client should be accepted now, if so.
fn no_room(worker: &Rc<Worker>) -> Option<String> {
    if !worker.seats.has_room() {
        Some(worker.seats.full())
    } else if worker.is_crowded() {
        Some(
            "a worker has as many handshakes in progress as it may have, see warren_client_handshakes"
                .to_owned(),
        )
    } else {
        None
    }
}

/// Whether a client went away while it waited: nothing to pause for.
fn is_the_clients(error: &io::Error) -> bool {
    use ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
