//! A TCP connection on which TLS was established: records in and out, with nothing that waits.

use std::io::{self, ErrorKind, IoSlice, Read, Write};

use rustls::Connection;
use tokio::net::TcpStream;

use super::handshake::Nonblocking;

/// Octets that may be encrypted and not yet taken by the socket. Less would cut long runs into small writes; more
/// would only hide from the outbox, which is what counts, how slow a peer is.
const UNSENT_MOST: usize = 64 << 10;

/// See the module.
pub(crate) struct TlsStream {
    stream: TcpStream,
    session: Connection,
    /// Plain octets wait inside `session`: the socket's readiness does not tell of them.
    holds_data: bool,
}

impl TlsStream {
    /// For a session whose handshake is done.
    pub(crate) fn new(stream: TcpStream, mut session: Connection) -> TlsStream {
        session.set_buffer_limit(Some(UNSENT_MOST));
        // What came together with the end of the handshake may be inside already; one look will tell.
        TlsStream { stream, session, holds_data: true }
    }

    /// The TCP connection underneath.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Whether a read finds something without asking the socket.
    pub(crate) fn holds_data(&self) -> bool {
        self.holds_data
    }

    /// Both parts, to be put together again on another thread.
    pub(crate) fn into_parts(self) -> (TcpStream, Connection) {
        (self.stream, self.session)
    }

    /// Fills the space, as far as there is something; 0 is the end, whether the peer announced it or not: in AMQP
    /// the end of a connection is announced by frames.
    pub(crate) fn try_read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        self.holds_data = true;
        while filled < space.len() {
            match self.session.reader().read(&mut space[filled..]) {
                Ok(0) => return Ok(filled),
                Ok(n) => filled += n,
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => return Ok(filled),
                Err(error) if error.kind() != ErrorKind::WouldBlock => return Err(error),
                Err(_) => match self.read_records() {
                    Ok(()) => {}
                    Err(error) if error.kind() == ErrorKind::WouldBlock => {
                        self.holds_data = false;
                        return if filled > 0 { Ok(filled) } else { Err(error) };
                    }
                    // What came before the failure is delivered; the next read hears of it again.
                    Err(_) if filled > 0 => return Ok(filled),
                    Err(error) => return Err(error),
                },
            }
        }
        Ok(filled)
    }

    /// Reads from the socket once, and decrypts.
    fn read_records(&mut self) -> io::Result<()> {
        self.session.read_tls(&mut Nonblocking(&self.stream))?;
        let state = self.session.process_new_packets();
        // An alert, or the answer to a key update. If the socket is full it goes with the next write.
        let _ = self.try_flush();
        state.map(|_| ()).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))
    }

    /// Takes what fits into its own buffer, and gives the socket what that takes.
    pub(crate) fn try_write(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.try_flush()?;
        let taken = self.session.writer().write_vectored(slices)?;
        match self.try_flush() {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error),
            _ => Ok(taken),
        }
    }

    /// Gives the socket what waits in the buffer.
    pub(crate) fn try_flush(&mut self) -> io::Result<()> {
        while self.session.wants_write() {
            self.session.write_tls(&mut Nonblocking(&self.stream))?;
        }
        Ok(())
    }

    /// Tells the peer that nothing follows, if the socket takes it now.
    pub(crate) fn say_goodbye(&mut self) {
        self.session.send_close_notify();
        let _ = self.try_flush();
    }
}
