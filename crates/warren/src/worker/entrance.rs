//! What happens to a client's socket before its engine hears of it: who is behind it (PROXY protocol), and TLS. Both wait
//! for the client, so that they count as handshakes in progress, and those that stall make room for others.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use ipnet::IpNet;
use slotmap::{DefaultKey, SlotMap};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio::time::timeout;
use warren_engine::Peer;
use warren_engine::config::ListenerId;
use warren_engine::time::Time;

use super::tasks::spawn;
use super::{Worker, survive};
use crate::proxy_protocol::{self, plain};
use crate::seats::Seat;
use crate::setup::Listening;
use crate::socket::Socket;
use crate::tls::Server;

/// What is spoken at a listener before AMQP.
pub(crate) struct Entrance {
    /// `None`: plain TCP.
    pub(crate) tls: Option<Server>,
    /// Who has to say on whose behalf it connects.
    trusted: Vec<IpNet>,
}

impl Entrance {
    /// For the listener of this name. Reads the files of TLS; the error is a text for people.
    pub(crate) fn new(name: &str, listening: &Listening) -> Result<Entrance, String> {
        let tls = listening.tls.as_ref().map(|tls| Server::new(name, tls)).transpose()?;
        Ok(Entrance { tls, trusted: listening.proxy_protocol.clone() })
    }

    fn trusts(&self, address: SocketAddr) -> bool {
        self.trusted.iter().any(|network| network.contains(&address.ip()))
    }
}

/// Sockets that are not yet the engine's.
#[derive(Default)]
pub(super) struct Waiting(RefCell<SlotMap<DefaultKey, (Time, Option<AbortHandle>)>>);

impl Waiting {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.0.borrow().len()
    }

    /// Ends those that have been there for so long.
    pub(super) fn end_stalled(&self, now: Time, limit: Duration) {
        self.end(|since| now.since(since) >= limit);
    }

    /// Ends all.
    pub(super) fn end_all(&self) {
        self.end(|_| true);
    }

    fn end(&self, which: impl Fn(Time) -> bool) {
        // A list of its own, since ending one takes it out of the other.
        let waiting = self.0.borrow();
        let ended = waiting.values().filter(|(since, _)| which(*since)).filter_map(|(_, task)| task.clone());
        let ended: Vec<AbortHandle> = ended.collect();
        drop(waiting);
        ended.iter().for_each(AbortHandle::abort);
    }
}

/// One of them; it counts until it is dropped.
struct Ticket {
    worker: Rc<Worker>,
    key: DefaultKey,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.worker.waiting.0.borrow_mut().remove(self.key);
    }
}

/// A client has connected at a listener.
pub(super) fn enter(worker: &Rc<Worker>, stream: TcpStream, address: SocketAddr, listener: ListenerId) {
    let address = plain(address);
    let local = stream.local_addr().map_or(address, plain);
    let peer = Peer { address, local, listener, host: None, tls: None };
    let Some(entrance) = worker.edge.entrances.get(listener) else { return };
    if entrance.tls.is_none() && !entrance.trusts(address) {
        worker.accepted(Socket::plain(stream), peer, worker.seats.take());
        return;
    }
    let entry = (worker.clock.now(), None);
    let key = worker.waiting.0.borrow_mut().insert(entry);
    let ticket = Ticket { worker: Rc::clone(worker), key };
    let seat = worker.seats.take();
    // Boxed: who waits here pays for what it does, and no more.
    let task = spawn(Box::pin(prepare(ticket, stream, peer, seat)));
    if let Some((_, abort)) = worker.waiting.0.borrow_mut().get_mut(key) {
        *abort = Some(task.abort_handle());
    }
}

/// Finds out who is there, speaks TLS, and tells the engine.
async fn prepare(ticket: Ticket, stream: TcpStream, peer: Peer, seat: Seat) {
    let address = peer.address;
    let prepared = negotiate(&ticket.worker, stream, peer).await;
    let worker = Rc::clone(&ticket.worker);
    drop(ticket);
    match prepared {
        Ok((socket, peer)) => drop(survive("a new client", || worker.accepted(socket, peer, seat))),
        Err(why) => tracing::debug!(%address, "client refused: {why}"),
    }
}

/// The error is a text for people.
async fn negotiate(worker: &Worker, mut stream: TcpStream, mut peer: Peer) -> Result<(Socket, Peer), String> {
    let limit = worker.config.limits.handshake_timeout;
    let Some(entrance) = worker.edge.entrances.get(peer.listener) else {
        return Err("there is no such listener".to_owned());
    };
    if entrance.trusts(peer.address) {
        let said = timeout(limit, proxy_protocol::read(&mut stream)).await;
        let said = said.map_err(|_| format!("no header of the PROXY protocol came within {limit:?}"))?;
        let said = said.map_err(|error| format!("bad header of the PROXY protocol: {error}"))?;
        if let Some((client, local)) = said.addresses {
            (peer.address, peer.local) = (client, local);
        }
        peer.tls = said.tls;
    }
    let Some(server) = &entrance.tls else {
        return Ok((Socket::plain(stream), peer));
    };
    match timeout(limit, server.handshake(&stream)).await {
        Ok(Ok((session, said))) => {
            peer.tls = Some(Box::new(said));
            Ok((Socket::tls(stream, session), peer))
        }
        Ok(Err(error)) => Err(format!("TLS handshake failed: {error}")),
        Err(_) => Err(format!("TLS was not established within {limit:?}")),
    }
}
