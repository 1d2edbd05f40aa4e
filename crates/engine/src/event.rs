//! What is worth a log line. Counting happens in [`crate::metrics`], beside the event.

use std::net::SocketAddr;
use std::time::Duration;

use crate::config::BackendId;
use crate::ids::{SessionId, UpstreamId};

/// Something that happened, for logs.
#[derive(Clone, Debug)]
pub enum Event {
    /// A client finished its handshake.
    SessionOpened {
        /// Its name here.
        session: SessionId,
        /// Its address.
        peer: SocketAddr,
        /// Its user.
        user: String,
        /// Its virtual host.
        vhost: String,
    },
    /// A session ended.
    SessionEnded {
        /// Its name here.
        session: SessionId,
        /// Its address.
        peer: SocketAddr,
        /// How long it lasted.
        lasted: Duration,
        /// Why, for people.
        why: String,
    },
    /// A limit or an alarm was reached. Not more often than once in a second for each.
    LimitReached {
        /// Whose session it was.
        session: SessionId,
        /// Its address.
        peer: SocketAddr,
        /// Its virtual host.
        vhost: String,
        /// Such as `limit of 500 connections for route 'orders'`.
        limit: String,
        /// Whether something was refused.
        refused: bool,
    },
    /// A connection to a broker is ready.
    UpstreamOpened {
        /// Its name here.
        upstream: UpstreamId,
        /// Where to.
        backend: BackendId,
        /// What it is for.
        purpose: &'static str,
    },
    /// A connection to a broker ended or could not be made.
    UpstreamEnded {
        /// Its name here.
        upstream: UpstreamId,
        /// Where to.
        backend: BackendId,
        /// What it was for.
        purpose: &'static str,
        /// Why, for people.
        why: String,
        /// Whether it is no fault of the broker's: idle, shutdown, or a login that it refused.
        expected: bool,
    },
}
