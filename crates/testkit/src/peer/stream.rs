//! What a peer speaks through: TCP, or TLS over it.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::sync::Arc;

use rustls::{ClientConnection, StreamOwned};

/// A connection that blocks, with the socket's time-outs.
#[derive(Debug)]
pub(super) enum Stream {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Stream {
    /// Carries out the handshake.
    pub(super) fn tls(
        socket: TcpStream,
        config: &Arc<rustls::ClientConfig>,
        name: &str,
    ) -> io::Result<Stream> {
        let name = name.to_owned().try_into().map_err(io::Error::other)?;
        let session = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
        let mut stream = StreamOwned::new(session, socket);
        while stream.conn.is_handshaking() {
            stream.conn.complete_io(&mut stream.sock)?;
        }
        Ok(Stream::Tls(Box::new(stream)))
    }

    pub(super) fn socket(&self) -> &TcpStream {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => &stream.sock,
        }
    }

    pub(super) fn into_socket(self) -> TcpStream {
        match self {
            Stream::Plain(socket) => socket,
            Stream::Tls(stream) => stream.sock,
        }
    }
}

impl Read for Stream {
    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.read(space),
            // An end that TLS was not told of is an end all the same.
            Stream::Tls(stream) => match stream.read(space) {
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => Ok(0),
                // An alert: the other side has had enough.
                Err(error) if error.kind() == ErrorKind::InvalidData => {
                    Err(ErrorKind::ConnectionReset.into())
                }
                other => other,
            },
        }
    }
}

impl Write for Stream {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        match self {
            Stream::Plain(socket) => socket.write(octets),
            // Not more than one record is kept in memory, so that what was written is sent.
            Stream::Tls(stream) => {
                let n = stream.write(octets)?;
                stream.flush()?;
                Ok(n)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Stream::Plain(socket) => socket.flush(),
            Stream::Tls(stream) => stream.flush(),
        }
    }
}
