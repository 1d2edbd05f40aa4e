//! The handshake, for both sides: the part that waits. Afterwards nothing does ([`super::stream`]).

use std::io::{self, ErrorKind, Read, Write};

use rustls::Connection;
use tokio::net::TcpStream;

/// Octets that a peer may send before the handshake is done: chains of certificates take a few KiB. What is not complete
/// stays in memory until it is.
const MOST: usize = 32 << 10;

/// Carries a handshake out. Give it a deadline. The error says what the other side, or its certificate, lacks.
pub(crate) async fn complete(stream: &TcpStream, session: &mut Connection) -> io::Result<()> {
    let mut received = 0;
    loop {
        while session.wants_write() {
            match session.write_tls(&mut Nonblocking(stream)) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => stream.writable().await?,
                Err(error) => return Err(error),
            }
        }
        if !session.is_handshaking() {
            return Ok(());
        }
        stream.readable().await?;
        match session.read_tls(&mut Nonblocking(stream)) {
            Ok(0) => return Err(io::Error::new(ErrorKind::UnexpectedEof, "it ended in the middle")),
            Ok(n) => received += n,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        if let Err(error) = session.process_new_packets() {
            // The alert that tells the other side.
            let _ = session.write_tls(&mut Nonblocking(stream));
            return Err(io::Error::new(ErrorKind::InvalidData, error));
        }
        if received > MOST && session.is_handshaking() {
            return Err(io::Error::new(ErrorKind::InvalidData, format!("it takes more than {MOST} octets")));
        }
    }
}

/// The socket as the TLS library wants to see it.
pub(super) struct Nonblocking<'a>(pub(super) &'a TcpStream);

impl Read for Nonblocking<'_> {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(space)
    }
}

impl Write for Nonblocking<'_> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        self.0.try_write(octets)
    }

    fn write_vectored(&mut self, slices: &[io::IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
