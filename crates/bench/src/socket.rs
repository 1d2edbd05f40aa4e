//! A connection in two halves, for one thread that reads and one that writes: plain TCP, or TLS over it.
//!
//! Plain, a half is the socket and nothing more. With TLS the halves share the session, which is locked while octets are
//! encrypted or decrypted, and never while the socket is waited for.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustls::Connection;

/// Octets that are read from the socket, or encrypted for it, at one time: several records of 16 KiB.
const RUN: usize = 64 * 1024;

/// A connection over plain TCP.
pub(crate) fn plain(socket: TcpStream) -> (Reading, Writing) {
    halves(Shared { socket, session: None })
}

/// A connection with TLS; carries out the handshake.
pub(crate) fn with_tls(mut socket: TcpStream, mut session: Connection) -> io::Result<(Reading, Writing)> {
    while session.is_handshaking() {
        session.complete_io(&mut socket)?;
    }
    session.set_buffer_limit(None); // what is written is sent before the next is
    Ok(halves(Shared { socket, session: Some(Mutex::new(session)) }))
}

fn halves(shared: Shared) -> (Reading, Writing) {
    let shared = Arc::new(shared);
    let reading = Reading { shared: Arc::clone(&shared), records: Records::default() };
    (reading, Writing { shared, sealed: Vec::new() })
}

struct Shared {
    socket: TcpStream,
    session: Option<Mutex<Connection>>,
}

fn lock(session: &Mutex<Connection>) -> MutexGuard<'_, Connection> {
    session.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The half that is read.
pub(crate) struct Reading {
    shared: Arc<Shared>,
    records: Records,
}

impl Read for Reading {
    #[inline]
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        match &self.shared.session {
            None => (&self.shared.socket).read(space),
            Some(session) => self.records.read(&self.shared.socket, session, space),
        }
    }
}

/// What was read from the socket and is not decrypted yet.
#[derive(Default)]
struct Records {
    buf: Vec<u8>,
    at: usize,
    end: usize,
}

impl Records {
    fn read(
        &mut self,
        mut socket: &TcpStream,
        session: &Mutex<Connection>,
        space: &mut [u8],
    ) -> io::Result<usize> {
        loop {
            if let Some(n) = self.decrypt(&mut lock(session), space)? {
                return Ok(n);
            }
            self.buf.resize(RUN, 0);
            (self.at, self.end) = (0, 0);
            self.end = socket.read(&mut self.buf)?;
            if self.end == 0 {
                return Ok(0); // in AMQP it is frames that announce an end
            }
        }
    }

    /// As much as there is space for; `None` when more has to come first, 0 when nothing more will.
    fn decrypt(&mut self, session: &mut Connection, space: &mut [u8]) -> io::Result<Option<usize>> {
        let mut filled = 0;
        while filled < space.len() {
            match session.reader().read(&mut space[filled..]) {
                Ok(0) => return Ok(Some(filled)),
                Ok(n) => filled += n,
                Err(e) if e.kind() != ErrorKind::WouldBlock => return Err(e),
                Err(_) if self.at == self.end => break,
                Err(_) => {
                    self.at += session.read_tls(&mut &self.buf[self.at..self.end])?;
                    session.process_new_packets().map_err(io::Error::other)?;
                }
            }
        }
        Ok((filled > 0).then_some(filled))
    }
}

/// The half that is written. Tells the other side of its end.
pub(crate) struct Writing {
    shared: Arc<Shared>,
    /// What is encrypted and on its way to the socket.
    sealed: Vec<u8>,
}

impl Writing {
    #[inline]
    pub(crate) fn write_all(&mut self, octets: &[u8]) -> io::Result<()> {
        match &self.shared.session {
            None => (&self.shared.socket).write_all(octets),
            Some(_) => {
                octets.chunks(RUN).try_for_each(|run| self.seal(|session| session.writer().write_all(run)))
            }
        }
    }

    /// Sends what the session has to send after `change`.
    fn seal(&mut self, change: impl FnOnce(&mut Connection) -> io::Result<()>) -> io::Result<()> {
        let Some(session) = &self.shared.session else {
            return Ok(());
        };
        let mut session = lock(session);
        change(&mut session)?;
        while session.wants_write() {
            session.write_tls(&mut self.sealed)?;
        }
        drop(session);
        let sent = (&self.shared.socket).write_all(&self.sealed);
        self.sealed.clear();
        sent
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        // The other side may have gone already.
        let _ = self.seal(|session| {
            session.send_close_notify();
            Ok(())
        });
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::thread;

    use anyhow::Result;
    use rustls::{ClientConnection, ServerConnection};

    use super::*;
    use crate::tls::{self, Certificates, SERVER_NAME};

    type Halves = (Reading, Writing);

    /// Both ends of a connection over the loopback interface.
    fn connected() -> Result<(TcpStream, TcpStream)> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        Ok((client, listener.accept()?.0))
    }

    fn with_tls_at_both_ends() -> Result<(Halves, Halves)> {
        let certificates = Certificates::new();
        let (client, server) = connected()?;
        let config = tls::server(certificates.certificate(), certificates.key())?;
        let serving = thread::spawn(move || -> Result<Halves> {
            Ok(with_tls(server, ServerConnection::new(config)?.into())?)
        });
        let session = ClientConnection::new(tls::client(&certificates.ca())?, SERVER_NAME.try_into()?)?;
        let client = with_tls(client, session.into())?;
        Ok((client, serving.join().expect("no panic")?))
    }

    /// Sends more than the system buffers in both directions at once, and reads to the end.
    fn both_directions(client: Halves, server: Halves) -> Result<()> {
        let sent: Vec<u8> = (0..8_000_000_u32).map(|i| (i % 251) as u8).collect();
        let threads = [client, server].map(|(mut reading, mut writing)| {
            let octets = sent.clone();
            let writer = thread::spawn(move || writing.write_all(&octets));
            let reader = thread::spawn(move || {
                let mut received = Vec::new();
                reading.read_to_end(&mut received).map(|_| received)
            });
            (writer, reader)
        });
        for (writer, reader) in threads {
            writer.join().expect("no panic")?;
            assert!(reader.join().expect("no panic")? == sent, "what was sent is what came");
        }
        Ok(())
    }

    #[test]
    fn plain_ends_with_both_halves_of_the_other_side() -> Result<()> {
        let (client, server) = connected()?;
        let (mut reading, writing) = plain(client);
        let (_, mut other) = plain(server);
        other.write_all(b"octets")?;
        drop((writing, other));
        let mut received = Vec::new();
        reading.read_to_end(&mut received)?;
        assert_eq!(received, b"octets");
        Ok(())
    }

    #[test]
    fn tls_in_both_directions_at_once() -> Result<()> {
        let (client, server) = with_tls_at_both_ends()?;
        both_directions(client, server)
    }
}
