//! A socket of an engine, as the edge knows it.

use warren_broker::ConnId;
use warren_engine::buf::{Input, Pool};
use warren_engine::ids::{SessionId, UpstreamId};
use warren_engine::session::HandOff;
use warren_engine::time::Time;
use warren_engine::{Command, Engine, Link};

use crate::client::loss::Loss;

/// Whether the engine wants the socket ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    Never,
    /// Once what waits is written.
    Flushed,
    Now,
}

/// A client's socket.
pub(super) struct Session {
    pub(super) worker: usize,
    pub(super) id: SessionId,
    pub(super) input: Input,
    /// The engine has asked for what waits to be written, and it is not all written yet.
    pub(super) flush: bool,
    /// Octets that wait.
    pub(super) pending: usize,
    /// The engine has asked for reading to go on.
    pub(super) resume: bool,
    pub(super) ending: Ending,
    /// On its way to another worker.
    pub(super) moving: Option<(usize, Box<HandOff>)>,
    /// Octets that were read, in its whole life.
    pub(super) delivered: u64,
    /// A fault: nothing is written for now.
    pub(super) stalled: bool,
    /// More has waited for it than a session may have when memory is short.
    pub(super) behind: bool,
}

impl Session {
    pub(super) fn new(worker: usize, id: SessionId, pool: &Pool) -> Session {
        Session {
            worker,
            id,
            input: Input::new(pool),
            flush: false,
            pending: 0,
            resume: false,
            ending: Ending::Never,
            moving: None,
            delivered: 0,
            stalled: false,
            behind: false,
        }
    }

    /// The session is at its new worker, and so are its unread octets.
    pub(super) fn arrived(&mut self, worker: usize, id: SessionId, pool: &Pool) {
        let mut input = Input::new(pool);
        input.extend(self.input.bytes());
        self.input = input;
        (self.worker, self.id) = (worker, id);
        (self.flush, self.resume) = (false, false);
    }
}

/// A socket to the broker.
pub(super) struct Upstream {
    pub(super) worker: usize,
    pub(super) id: UpstreamId,
    /// `None` until it is connected.
    pub(super) conn: Option<ConnId>,
    pub(super) input: Input,
    pub(super) flush: bool,
    pub(super) pending: usize,
    pub(super) resume: bool,
    pub(super) ending: Ending,
    /// A fault: nothing comes and goes any more.
    pub(super) hung: bool,
    /// A fault that the engine may not know of yet, as it was when it happened.
    pub(super) loss: Option<Loss>,
}

impl Upstream {
    pub(super) fn new(worker: usize, id: UpstreamId, pool: &Pool) -> Upstream {
        Upstream {
            worker,
            id,
            conn: None,
            input: Input::new(pool),
            flush: false,
            pending: 0,
            resume: false,
            ending: Ending::Never,
            hung: false,
            loss: None,
        }
    }
}

/// Takes up to `most` octets from an outbox, as a socket does that takes no more.
pub(super) fn write(engine: &mut Engine, link: Link, most: usize, flush: &mut bool, now: u64) -> Vec<u8> {
    let mut taken = Vec::new();
    let outbox = engine.outbox(link);
    while taken.len() < most && !outbox.is_empty() {
        let first = outbox.first();
        let piece = first.len().min(most - taken.len());
        taken.extend_from_slice(&first[..piece]);
        outbox.advance(piece);
    }
    if outbox.is_empty() {
        *flush = false;
    }
    engine.wrote(Time(now), link, taken.len());
    taken
}

/// A command for people.
pub(super) fn describe(command: &Command) -> String {
    match command {
        Command::HandOff { session, worker, .. } => format!("HandOff {session:?} to worker {worker}"),
        other => format!("{other:?}"),
    }
}

/// How a socket stands, for people: only what is not as it is when all is quiet.
pub(super) fn standing(
    id: &impl std::fmt::Debug,
    unread: usize,
    pending: usize,
    flush: bool,
    may_read: bool,
    resume: bool,
) -> String {
    let mut text = String::new();
    for (odd, what) in [
        (unread > 0, format!("{unread} octets unread")),
        (pending > 0, format!("{pending} octets to write (flush: {flush})")),
        (!may_read, "not to be read".to_owned()),
        (resume, "to be read again".to_owned()),
    ] {
        if odd {
            text += &format!("; {id:?}: {what}");
        }
    }
    text
}
