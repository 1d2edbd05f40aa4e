//! One record per socket, found by the engine's name for it.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use slotmap::SecondaryMap;
use warren_engine::Link;
use warren_engine::ids::{SessionId, UpstreamId};
use warren_engine::session::HandOff;

use crate::seats::Seat;
use crate::socket::Socket;

/// Something that the engine wants of a connection's task. A set of bits, since several can be asked for before
/// the task runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted(u8);

impl Wanted {
    pub(super) const NOTHING: Wanted = Wanted(0);
    /// Offer what was held back, and read again.
    pub(super) const READ: Wanted = Wanted(1);
    /// Write what waits, then end.
    pub(super) const CLOSE: Wanted = Wanted(2);
    /// End at once.
    pub(super) const ABORT: Wanted = Wanted(4);
    /// Send the session to another worker.
    pub(super) const HAND_OFF: Wanted = Wanted(8);
    /// Whatever ends the exchange of bytes.
    pub(super) const END: Wanted = Wanted(2 | 4 | 8);

    pub(super) fn any_of(self, other: Wanted) -> bool {
        self.0 & other.0 != 0
    }
}

/// Whether a socket takes more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Writing {
    /// As far as known: try.
    Open,
    /// It is full. The connection's task waits for room and writes on.
    Blocked,
    /// It broke. What there is to write to a client is thrown away; what the peer sent before may still be read.
    Broken,
}

/// One connection: its socket, and what others on this thread left for its task.
pub(super) struct Conn {
    pub(super) link: Link,
    pub(super) socket: Socket,
    pub(super) seat: Seat,
    /// A client that was not yet seen to be let in.
    pub(super) knocks: Cell<bool>,
    pub(super) writing: Cell<Writing>,
    wanted: Cell<Wanted>,
    task: Cell<Option<Waker>>,
    hand_off: Cell<Option<(usize, Box<HandOff>)>>,
}

impl Conn {
    pub(super) fn new(link: Link, socket: Socket, seat: Seat) -> Conn {
        Conn {
            link,
            socket,
            seat,
            knocks: Cell::new(matches!(link, Link::Session(_))),
            writing: Cell::new(Writing::Open),
            wanted: Cell::new(Wanted::NOTHING),
            task: Cell::new(None),
            hand_off: Cell::new(None),
        }
    }

    /// Leaves a wish for the connection's task, and wakes it.
    pub(super) fn want(&self, what: Wanted) {
        self.wanted.set(Wanted(self.wanted.get().0 | what.0));
        self.wake();
    }

    /// What was wished for and not yet taken.
    pub(super) fn wanted(&self) -> Wanted {
        self.wanted.get()
    }

    /// Takes all wishes.
    pub(super) fn take_wanted(&self) -> Wanted {
        self.wanted.replace(Wanted::NOTHING)
    }

    /// Takes one wish; says whether it was there.
    pub(super) fn take_one(&self, what: Wanted) -> bool {
        let wanted = self.wanted.get();
        self.wanted.set(Wanted(wanted.0 & !what.0));
        wanted.any_of(what)
    }

    /// Wakes the connection's task if it sleeps.
    pub(super) fn wake(&self) {
        if let Some(waker) = self.task.take() {
            waker.wake();
        }
    }

    /// Asks the task to take its session to another worker.
    pub(super) fn send_off(&self, worker: usize, hand_off: Box<HandOff>) {
        self.hand_off.set(Some((worker, hand_off)));
        self.want(Wanted::HAND_OFF);
    }

    /// What [`Conn::send_off`] left.
    pub(super) fn take_hand_off(&self) -> Option<(usize, Box<HandOff>)> {
        self.hand_off.take()
    }

    /// Waits until there is something to do: a wish, room to write while blocked, or, with `reading`, something to
    /// read. Only the connection's own task may wait. Nothing here is consumed, so that nothing is lost when the
    /// wait is given up.
    pub(super) async fn ready(&self, reading: bool) {
        poll_fn(|cx| self.poll_ready(cx, reading)).await;
    }

    fn poll_ready(&self, cx: &mut Context<'_>, reading: bool) -> Poll<()> {
        // Nobody else runs between these looks and the return: the thread is ours.
        let ready = self.wanted.get() != Wanted::NOTHING
            || (self.writing.get() == Writing::Blocked && self.socket.poll_write_ready(cx).is_ready())
            || (reading && self.socket.poll_read_ready(cx).is_ready());
        if ready {
            self.task.set(None);
            return Poll::Ready(());
        }
        self.task.set(Some(cx.waker().clone()));
        Poll::Pending
    }
}

/// All connections of a worker.
#[derive(Default)]
pub(super) struct Links {
    sessions: RefCell<SecondaryMap<SessionId, Rc<Conn>>>,
    upstreams: RefCell<SecondaryMap<UpstreamId, Rc<Conn>>>,
    /// Upstream connections that are being made, and have no socket yet.
    connecting: RefCell<SecondaryMap<UpstreamId, ()>>,
}

impl Links {
    pub(super) fn insert(&self, conn: Rc<Conn>) {
        match conn.link {
            Link::Session(id) => drop(self.sessions.borrow_mut().insert(id, conn)),
            Link::Upstream(id) => drop(self.upstreams.borrow_mut().insert(id, conn)),
        }
    }

    pub(super) fn get(&self, link: Link) -> Option<Rc<Conn>> {
        match link {
            Link::Session(id) => self.sessions.borrow().get(id).cloned(),
            Link::Upstream(id) => self.upstreams.borrow().get(id).cloned(),
        }
    }

    pub(super) fn remove(&self, link: Link) -> Option<Rc<Conn>> {
        match link {
            Link::Session(id) => self.sessions.borrow_mut().remove(id),
            Link::Upstream(id) => self.upstreams.borrow_mut().remove(id),
        }
    }

    /// A connect has begun.
    pub(super) fn begin(&self, upstream: UpstreamId) {
        self.connecting.borrow_mut().insert(upstream, ());
    }

    /// A connect has ended, or is given up. `false`: it was given up before.
    pub(super) fn end(&self, link: Link) -> bool {
        match link {
            Link::Session(_) => false,
            Link::Upstream(id) => self.connecting.borrow_mut().remove(id).is_some(),
        }
    }
}

#[cfg(test)]
#[path = "links_tests.rs"]
mod tests;
