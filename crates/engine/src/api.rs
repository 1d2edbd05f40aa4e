//! What goes into the engine and what comes out, besides bytes.

use std::net::{IpAddr, SocketAddr};

use crate::authorize::AuthRequest;
use crate::config::{BackendId, ListenerId};
use crate::event::Event;
use crate::ids::{SessionId, UpstreamId};
use crate::session::HandOff;

/// One socket, as the engine names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Link {
    /// A client's connection.
    Session(SessionId),
    /// A connection to a broker.
    Upstream(UpstreamId),
}

/// Who connected, and where.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's address; where a trusted PROXY protocol header said it, that one.
    pub address: SocketAddr,
    /// The address that it connected to.
    pub local: SocketAddr,
    /// The listener that accepted it.
    pub listener: ListenerId,
    /// The name of its address, where somebody was to look it up and found one.
    pub host: Option<Box<str>>,
    /// What its TLS handshake said; `None`: it speaks plain TCP. Boxed: most sessions need no room for it.
    pub tls: Option<Box<ClientTls>>,
}

impl Peer {
    /// A client without TLS at the only listener.
    pub fn plain(address: SocketAddr) -> Peer {
        Peer { address, local: address, listener: 0, host: None, tls: None }
    }

    /// The server name of its TLS handshake.
    pub fn sni(&self) -> Option<&str> {
        self.tls.as_ref()?.sni.as_deref()
    }
}

/// What a client's TLS handshake said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTls {
    /// The name it asked for (SNI).
    pub sni: Option<String>,
    /// Such as `TLSv1.3`.
    pub version: String,
    /// Such as `TLS13_AES_128_GCM_SHA256`.
    pub cipher: String,
    /// The common name of its certificate, which was verified; `None`: it showed none.
    pub certificate_cn: Option<String>,
}

/// Why a socket is gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Gone {
    /// The peer closed it, or the engine asked for it and what waited was written.
    Closed,
    /// It could not be connected, or broke; the text is for people.
    Failed(String),
}

/// What the engine wants done. The caller takes commands after every call until there is none left.
#[derive(Debug)]
pub enum Command {
    /// Connect to this backend; answer with `upstream_connected` or `gone`.
    Connect {
        /// The new link's name.
        upstream: UpstreamId,
        /// Where to.
        backend: BackendId,
        /// On whose behalf alone; `None`: many clients will share it, or nobody in particular asked for it.
        client: Option<Box<Peer>>,
    },
    /// There is something to write: write until the outbox is empty or the socket is full, then `wrote`.
    Flush(Link),
    /// A link that `may_read` had held back may be read again.
    Read(Link),
    /// Write what waits (it will not become more), end the socket, then `gone`.
    Close(Link),
    /// End the socket at once, then `gone`.
    Abort(Link),
    /// The session belongs to another worker. This engine has forgotten it; its socket and unread bytes go with it
    /// (octets not yet written are inside).
    HandOff {
        /// The name it had here.
        session: SessionId,
        /// The worker's number.
        worker: usize,
        /// What the other engine needs to know.
        hand_off: Box<HandOff>,
    },
    /// Ask the auth service; answer with `authorized`.
    Authorize {
        /// Whom it is about.
        session: SessionId,
        /// What to ask.
        request: Box<AuthRequest>,
    },
    /// Find out what a client's address is called; answer with `client_named`, soon and in any case.
    Name {
        /// Whose.
        session: SessionId,
        /// The address.
        address: IpAddr,
    },
    /// Something worth a log line or a count.
    Event(Event),
}
