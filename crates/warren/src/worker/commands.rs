//! What the engine wants done, done.

use super::tasks::spawn;
use std::io::{ErrorKind, IoSlice};
use std::rc::Rc;

use warren_engine::config::BackendId;
use warren_engine::event::Event;
use warren_engine::outbox::Outbox;
use warren_engine::time::Time;
use warren_engine::{Command, Gone, Link};

use super::Worker;
use super::links::{Conn, Wanted, Writing};
use crate::socket::Socket;

/// Segments that one system call writes. Runs are long, so that a few segments are tens of KiB; a larger array would
/// cost more to fill than it saves.
const SLICES: usize = 64;

impl Worker {
    /// Carries out one command. It may cause others, which the caller takes next.
    pub(super) fn execute(self: &Rc<Self>, now: Time, command: Command) {
        match command {
            Command::Flush(link) => {
                if let Some(conn) = self.links.get(link) {
                    self.flush(now, &conn);
                }
            }
            Command::Read(link) => self.want(link, Wanted::READ),
            Command::Close(link) => self.end(now, link, Wanted::CLOSE),
            Command::Abort(link) => self.end(now, link, Wanted::ABORT),
            Command::Connect { upstream, backend } => {
                self.links.begin(upstream);
                spawn(Rc::clone(self).connect(upstream, backend));
            }
            Command::HandOff { session, worker, hand_off } => {
                if let Some(conn) = self.links.remove(Link::Session(session)) {
                    conn.send_off(worker, hand_off);
                }
            }
            Command::Authorize { session, request } => {
                spawn(Rc::clone(self).authorize(session, request));
            }
            Command::Name { session, address } => {
                spawn(Rc::clone(self).name(session, address));
            }
            Command::Event(event) => self.log(event),
        }
    }

    fn want(&self, link: Link, what: Wanted) {
        if let Some(conn) = self.links.get(link) {
            conn.want(what);
        }
    }

    /// Ends a link: its task does it, unless it has none yet because it is still being connected.
    fn end(&self, now: Time, link: Link, how: Wanted) {
        if self.links.end(link) {
            self.engine.borrow_mut().gone(now, link, Gone::Closed);
        } else {
            self.want(link, how);
        }
    }

    /// Writes until nothing waits or the socket is full; then the connection's task goes on when there is room.
    pub(super) fn flush(&self, now: Time, conn: &Conn) {
        while conn.writing.get() != Writing::Blocked {
            let mut engine = self.engine.borrow_mut();
            let outbox = engine.outbox(conn.link);
            if outbox.is_empty() {
                drop(engine);
                return flush_socket(conn);
            }
            let most = engine.write_at_most(now, conn.link);
            if most == 0 {
                // The engine will ask again when it is this client's turn.
                drop(engine);
                return flush_socket(conn);
            }
            let outbox = engine.outbox(conn.link);
            let written = match conn.writing.get() {
                // What a broker was not sent goes to another one when the end of this one is found by reading.
                Writing::Broken if matches!(conn.link, Link::Upstream(_)) => return,
                Writing::Broken => outbox.len(),
                _ => match write(&conn.socket, outbox, most) {
                    Ok(n) => n,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        conn.writing.set(Writing::Blocked);
                        conn.wake(); // the task has to wait for room now, too
                        return;
                    }
                    Err(error) => {
                        // The end is found by reading: complete messages that came before still count.
                        tracing::debug!(link = ?conn.link, "writing failed: {error}");
                        conn.writing.set(Writing::Broken);
                        continue;
                    }
                },
            };
            engine.outbox(conn.link).advance(written);
            engine.wrote(now, conn.link, written);
        }
    }

    /// Log lines. What peers sent is quoted and escaped, so that nobody can forge a line.
    fn log(&self, event: Event) {
        let backend = |id: BackendId| self.config.backends.get(id).map_or("?", |b| b.name.as_str());
        match event {
            Event::SessionOpened { session, peer, user, vhost } => {
                tracing::debug!(?session, %peer, ?user, ?vhost, "client connected");
            }
            Event::SessionEnded { session, peer, lasted, why } => {
                tracing::debug!(?session, %peer, ?lasted, ?why, "client gone");
            }
            Event::LimitReached { session, peer, vhost, limit, refused: true } => {
                tracing::warn!(?session, %peer, ?vhost, "refused by {limit:?}");
            }
            Event::LimitReached { session, peer, vhost, limit, refused: false } => {
                tracing::warn!(?session, %peer, ?vhost, "beyond {limit:?}");
            }
            // One for each client.
            Event::UpstreamOpened { upstream, backend: id, purpose: "dedicated" } => {
                tracing::debug!(?upstream, broker = backend(id), "connected to broker for one client");
            }
            Event::UpstreamEnded { upstream, backend: id, purpose: "dedicated", why, expected: true } => {
                tracing::debug!(?upstream, broker = backend(id), ?why, "connection to broker ended");
            }
            Event::UpstreamOpened { upstream, backend: id, purpose } => {
                tracing::info!(?upstream, broker = backend(id), purpose, "connected to broker");
            }
            Event::UpstreamEnded { upstream, backend: id, why, expected: true, .. } => {
                tracing::info!(?upstream, broker = backend(id), ?why, "connection to broker ended");
            }
            Event::UpstreamEnded { upstream, backend: id, why, expected: false, .. } => {
                tracing::warn!(?upstream, broker = backend(id), ?why, "connection to broker lost");
            }
        }
    }
}

/// Has the socket hand over what it holds itself; when it cannot, the connection's task goes on as if it were full.
fn flush_socket(conn: &Conn) {
    match conn.socket.try_flush() {
        Err(error) if error.kind() == ErrorKind::WouldBlock => {
            conn.writing.set(Writing::Blocked);
            conn.wake();
        }
        Err(_) => conn.writing.set(Writing::Broken),
        Ok(()) => {}
    }
}

/// Writes the beginning of what waits, `most` octets of it at most.
fn write(socket: &Socket, outbox: &Outbox, most: usize) -> std::io::Result<usize> {
    if most < outbox.len() {
        // One piece is enough: a turn is short.
        let first = outbox.first();
        return socket.try_write(&[IoSlice::new(&first[..first.len().min(most)])]);
    }
    let mut slices = [IoSlice::new(&[]); SLICES];
    let count = outbox.io_slices(&mut slices);
    socket.try_write(&slices[..count])
}
