//! The one place that knows what a connection is made of: TCP, or TLS over it.
//!
//! Reading and writing never wait: a task asks whether a socket is ready ([`Socket::poll_read_ready`]), but
//! anyone on the worker's thread may try to write.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::{Shutdown, SocketAddr};
use std::task::{Context, Poll};

use rustls::Connection;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use crate::tls::stream::TlsStream;

/// A connected socket, registered with this worker's runtime.
pub(crate) enum Socket {
    /// Bytes as they are.
    Plain(TcpStream),
    /// Bytes in TLS records. Boxed: its state is larger than a plain connection is allowed to be.
    Tls(Box<RefCell<TlsStream>>),
}

/// A connected socket between two workers, registered with neither.
pub(crate) enum Parcel {
    /// See [`Socket::Plain`].
    Plain(std::net::TcpStream),
    /// See [`Socket::Tls`].
    Tls(std::net::TcpStream, Box<Connection>),
}

impl Socket {
    /// A plain connection. Small frames leave at once: whoever writes here has already put together what
    /// belongs together.
    pub(crate) fn plain(stream: TcpStream) -> Socket {
        // Fails only when the peer is gone already; the first read will say so.
        let _ = stream.set_nodelay(true);
        Socket::Plain(stream)
    }

    /// A connection on which TLS was established.
    pub(crate) fn tls(stream: TcpStream, session: Connection) -> Socket {
        let _ = stream.set_nodelay(true);
        Socket::Tls(Box::new(RefCell::new(TlsStream::new(stream, session))))
    }

    /// Ready when reading is worth a try. Wakes one task only: the connection's own.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Socket::Plain(stream) => stream.poll_read_ready(cx).map(|_| ()),
            Socket::Tls(tls) => match tls.borrow().holds_data() {
                true => Poll::Ready(()),
                false => tls.borrow().stream().poll_read_ready(cx).map(|_| ()),
            },
        }
    }

    /// Ready when writing is worth a try. Wakes one task only: the connection's own.
    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self {
            Socket::Plain(stream) => stream.poll_write_ready(cx).map(|_| ()),
            Socket::Tls(tls) => tls.borrow().stream().poll_write_ready(cx).map(|_| ()),
        }
    }

    /// Reads what is there; 0 is the end. Costs no system call when the socket is known to be empty. When less
    /// comes than there is space for, there is no more for now.
    pub(crate) fn try_read(&self, space: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Plain(stream) => {
                let n = stream.try_read(space)?;
                if n > 0 && n < space.len() {
                    forget_ready(stream, Interest::READABLE);
                }
                Ok(n)
            }
            Socket::Tls(tls) => tls.borrow_mut().try_read(space),
        }
    }

    /// Writes what fits. Costs no system call when the socket is known to be full.
    pub(crate) fn try_write(&self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Socket::Plain(stream) => {
                let (n, total) = match slices {
                    [one] => (stream.try_write(one)?, one.len()),
                    many => (stream.try_write_vectored(many)?, many.iter().map(|s| s.len()).sum()),
                };
                if n < total {
                    forget_ready(stream, Interest::WRITABLE);
                }
                Ok(n)
            }
            Socket::Tls(tls) => tls.borrow_mut().try_write(slices),
        }
    }

    /// Hands over what was written but is still in the socket's own buffer (TLS records that did not fit).
    /// `WouldBlock`: something is still there.
    pub(crate) fn try_flush(&self) -> io::Result<()> {
        match self {
            Socket::Plain(_) => Ok(()),
            Socket::Tls(tls) => tls.borrow_mut().try_flush(),
        }
    }

    /// Says that nothing more will be written. What was written before still arrives.
    pub(crate) fn shutdown_write(&self) {
        // Fails when the peer is gone: nothing to tell it then.
        match self {
            Socket::Plain(stream) => drop(SockRef::from(stream).shutdown(Shutdown::Write)),
            Socket::Tls(tls) => {
                let mut tls = tls.borrow_mut();
                tls.say_goodbye();
                drop(SockRef::from(tls.stream()).shutdown(Shutdown::Write));
            }
        }
    }

    /// The address of this machine's end.
    pub(crate) fn local_addr(&self) -> io::Result<SocketAddr> {
        match self {
            Socket::Plain(stream) => stream.local_addr(),
            Socket::Tls(tls) => tls.borrow().stream().local_addr(),
        }
    }

    /// Takes the socket out of this worker's runtime, to be sent to another worker.
    pub(crate) fn into_parcel(self) -> io::Result<Parcel> {
        match self {
            Socket::Plain(stream) => stream.into_std().map(Parcel::Plain),
            Socket::Tls(tls) => {
                let (stream, session) = tls.into_inner().into_parts();
                Ok(Parcel::Tls(stream.into_std()?, Box::new(session)))
            }
        }
    }
}

impl Parcel {
    /// Registers the socket with the runtime of the calling thread.
    pub(crate) fn into_socket(self) -> io::Result<Socket> {
        match self {
            Parcel::Plain(stream) => TcpStream::from_std(stream).map(Socket::Plain),
            Parcel::Tls(stream, session) => Ok(Socket::tls(TcpStream::from_std(stream)?, *session)),
        }
    }
}

/// A read or write that did not use up what it was given has emptied (filled) the socket: the next try would only
/// hear `EAGAIN`. Readiness comes back with the next edge, because readiness is edge-triggered; what is final (the
/// peer's end of file, an error) is never forgotten. Saves one system call per wake-up.
fn forget_ready(stream: &TcpStream, interest: Interest) {
    let _ = stream.try_io(interest, || Err::<(), _>(io::ErrorKind::WouldBlock.into()));
}
