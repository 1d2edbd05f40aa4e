//! The engine of one worker (stub while it is being written: the signatures are final).

use std::sync::Arc;

use crate::api::{Command, Gone, Link, Peer};
use crate::buf::{Input, Pool};
use crate::config::Config;
use crate::ids::{SessionId, UpstreamId};
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::session::HandOff;
use crate::time::Time;

/// Which worker this engine is.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// This worker's number, from 0.
    pub worker: usize,
    /// How many there are.
    pub workers: usize,
    /// For tags and jitter: the same seed gives the same run.
    pub seed: u64,
}

/// Everything that one worker decides.
pub struct Engine {
    pool: Pool,
    outbox: Outbox,
}

impl Engine {
    /// An engine with nothing in it. It is not `Send`: create it on its worker's thread.
    pub fn new(_config: Arc<Config>, _options: Options, _now: Time) -> Engine {
        let pool = Pool::new();
        Engine { outbox: Outbox::new(&pool), pool }
    }

    /// The buffers of this worker: give it to [`Input::new`].
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// A client was accepted. `None`: refused, close the socket without a word.
    pub fn accepted(&mut self, _now: Time, _peer: Peer) -> Option<SessionId> {
        None
    }

    /// A session comes from another worker; its unread bytes follow as [`Engine::input`].
    pub fn adopted(&mut self, _now: Time, _hand_off: Box<HandOff>) -> SessionId {
        SessionId::default()
    }

    /// A [`Command::Connect`] has succeeded.
    pub fn upstream_connected(&mut self, _now: Time, _upstream: UpstreamId) {}

    /// Bytes were read. What is left in `input` is the beginning of a frame (or all of it, when the link must wait:
    /// see [`Engine::may_read`]; then call again with it after [`Command::Read`]).
    pub fn input(&mut self, _now: Time, _link: Link, _input: &mut Input) {}

    /// Whether this link's socket may be read now. `false`: a [`Command::Read`] will follow.
    pub fn may_read(&self, _link: Link) -> bool {
        true
    }

    /// What waits to be written to a link. The caller writes and advances it, then calls [`Engine::wrote`].
    pub fn outbox(&mut self, _link: Link) -> &mut Outbox {
        &mut self.outbox
    }

    /// `octets` of the outbox went to the socket.
    pub fn wrote(&mut self, _now: Time, _link: Link, _octets: usize) {}

    /// A socket is gone: after [`Command::Close`] or [`Command::Abort`], by itself, or a connect failed.
    pub fn gone(&mut self, _now: Time, _link: Link, _why: Gone) {}

    /// Next thing to do, in order.
    pub fn next_command(&mut self) -> Option<Command> {
        None
    }

    /// When [`Engine::tick`] wants to be called at the latest.
    pub fn next_deadline(&self) -> Option<Time> {
        None
    }

    /// Time has passed.
    pub fn tick(&mut self, _now: Time) {}

    /// Begin to stop: every client is told (320), then every upstream connection is closed.
    pub fn shutdown(&mut self, _now: Time, _text: &str) {}

    /// Whether no link is left.
    pub fn is_idle(&self) -> bool {
        true
    }

    /// Counters and gauges as they are now.
    pub fn metrics(&self) -> Metrics {
        Metrics::default()
    }

    /// Asserts everything that must always hold. Called by tests and by the simulation after every step.
    pub fn check_invariants(&self) {}
}
