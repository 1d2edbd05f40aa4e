//! An AMQP client made of frames: blocking, without opinions, able to do what no decent client does.
//!
//! Frames are kept per channel, so a test reads each channel on its own, in order. Whatever takes longer than
//! [`PATIENCE`] panics, and so does a connection that ends when the test did not ask for its end.

mod handshake;
mod message;
mod stream;
mod verbs;

pub use handshake::{Handshake, Refused, Stage, capabilities};
pub use message::{Closed, Incoming, Message};
pub use verbs::{CONSUME, DECLARE, PUBLISH};

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};
use stream::Stream;
use warren_wire::frame::{self, FRAME_HEARTBEAT, FRAME_OVERHEAD, HEARTBEAT_FRAME};
use warren_wire::method::{channel, connection};
use warren_wire::{Method, MethodId};

/// Much longer than anything takes that works, on a machine with two cores that are both busy.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How a connection ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// With connection.close; close-ok has been sent.
    Closed(Closed),
    /// End of the stream without a close method.
    Eof,
    /// Reset by the other side.
    Reset,
}

/// One connection to a broker or to Warren.
#[derive(Debug)]
pub struct Peer {
    stream: Stream,
    buffer: Vec<u8>,
    at: usize,
    kept: VecDeque<Incoming>,
    end: Option<End>,
    frame_max: u32,
    heartbeats: usize,
    out: Vec<u8>,
    server_properties: Vec<u8>,
    mechanisms: String,
    tuned: (u16, u32, u16),
}

impl Peer {
    /// Connects the socket and sends nothing.
    pub fn raw(address: SocketAddr) -> Peer {
        Peer::try_raw(address).unwrap_or_else(|e| panic!("connecting to {address}: {e}"))
    }

    /// As [`Peer::raw`], for a port that may be closed.
    pub fn try_raw(address: SocketAddr) -> std::io::Result<Peer> {
        Ok(Peer::on(Stream::Plain(socket(address)?)))
    }

    /// Connects and speaks TLS, asking for the host `name`, after saying `first` in clear. Sends nothing else.
    pub fn try_tls(
        address: SocketAddr,
        config: &Arc<rustls::ClientConfig>,
        name: &str,
        first: &[u8],
    ) -> std::io::Result<Peer> {
        let mut socket = socket(address)?;
        socket.set_read_timeout(Some(PATIENCE))?;
        socket.write_all(first)?;
        let stream = Stream::tls(socket, config, name)?;
        Ok(Peer::on(stream))
    }

    fn on(stream: Stream) -> Peer {
        Peer {
            stream,
            buffer: Vec::new(),
            at: 0,
            kept: VecDeque::new(),
            end: None,
            frame_max: 1 << 20,
            heartbeats: 0,
            out: Vec::new(),
            server_properties: Vec::new(),
            mechanisms: String::new(),
            tuned: (0, 0, 0),
        }
    }

    /// The certificate that the other side has shown, DER.
    pub fn certificate(&self) -> Option<Vec<u8>> {
        match &self.stream {
            Stream::Plain(_) => None,
            Stream::Tls(stream) => stream.conn.peer_certificates()?.first().map(|c| c.as_ref().to_vec()),
        }
    }

    /// Version and cipher suite of TLS, as rustls writes them.
    pub fn spoken(&self) -> Option<(String, String)> {
        let Stream::Tls(stream) = &self.stream else { return None };
        let (version, suite) = (stream.conn.protocol_version()?, stream.conn.negotiated_cipher_suite()?);
        Some((format!("{version:?}"), format!("{:?}", suite.suite())))
    }

    /// The address at this end.
    pub fn local_address(&self) -> SocketAddr {
        self.stream.socket().local_addr().expect("the socket is open")
    }

    /// Heartbeat frames received so far.
    pub fn heartbeats(&self) -> usize {
        self.heartbeats
    }

    /// What the other side offered in tune: channel_max, frame_max, heartbeat.
    pub fn tuned(&self) -> (u16, u32, u16) {
        self.tuned
    }

    /// frame_max as negotiated.
    pub fn frame_max(&self) -> u32 {
        self.frame_max
    }

    /// The mechanisms of connection.start.
    pub fn mechanisms(&self) -> &str {
        &self.mechanisms
    }

    /// The server properties of connection.start, encoded.
    pub fn server_properties(&self) -> warren_wire::Table<'_> {
        warren_wire::Table::from_encoded(&self.server_properties).expect("checked when it was read")
    }

    /// Writes octets as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.try_send_bytes(bytes).expect("writing to the connection");
    }

    /// Writes octets to a connection that the other side may have ended.
    pub fn try_send_bytes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends one method.
    pub fn send(&mut self, channel: u16, method: &Method<'_>) {
        self.out.clear();
        method.write(channel, &mut self.out);
        self.stream.write_all(&self.out).expect("writing to the connection");
    }

    /// Sends a heartbeat.
    pub fn send_heartbeat(&mut self) {
        self.send_bytes(&HEARTBEAT_FRAME);
    }

    /// The next frame of a channel, heartbeats left out; `None` when none comes in time. The end of the connection
    /// is an error on every channel, given after the frames that came before it.
    pub fn try_next(&mut self, channel: u16, within: Duration) -> Result<Option<Incoming>, End> {
        let deadline = Instant::now() + within;
        loop {
            if let Some(i) = self.kept.iter().position(|f| f.channel == channel) {
                return Ok(self.kept.remove(i));
            }
            if let Some(end) = &self.end {
                return Err(end.clone());
            }
            if !self.read_more(deadline) {
                return Ok(None);
            }
        }
    }

    /// The next frame of a channel.
    pub fn next(&mut self, channel: u16) -> Incoming {
        match self.try_next(channel, PATIENCE) {
            Ok(Some(frame)) => frame,
            Ok(None) => {
                panic!("nothing came on channel {channel} in {PATIENCE:?}; elsewhere: {:?}", self.kept)
            }
            Err(end) => panic!("the connection ended while channel {channel} waited for a frame: {end:?}"),
        }
    }

    /// The next frame of a channel, which must be this method.
    pub fn expect(&mut self, channel: u16, id: MethodId) -> Incoming {
        let frame = self.next(channel);
        let name = warren_wire::method::name(id).unwrap_or("a method without a name");
        assert!(frame.is(id), "expected {name} on channel {channel}, got {frame:?}");
        frame
    }

    /// Sends a method and waits for its answer.
    pub fn call(&mut self, channel: u16, method: &Method<'_>, answer: MethodId) -> Incoming {
        self.send(channel, method);
        self.expect(channel, answer)
    }

    /// The next frame of a channel, which must be channel.close; answered with close-ok.
    pub fn expect_channel_close(&mut self, channel: u16) -> Closed {
        let frame = self.expect(channel, channel::CLOSE);
        let closed = frame.closed().expect("the method is a close");
        self.send(channel, &Method::ChannelCloseOk);
        closed
    }

    /// The end of the connection, which must be a connection.close; frames that came before it are dropped.
    pub fn expect_connection_close(&mut self) -> Closed {
        match self.expect_end(PATIENCE) {
            End::Closed(closed) => closed,
            end => panic!("expected connection.close, got {end:?}"),
        }
    }

    /// How the connection ends, within a time.
    pub fn expect_end(&mut self, within: Duration) -> End {
        let end = self.end_within(within);
        end.unwrap_or_else(|| panic!("the connection did not end within {within:?}; got {:?}", self.kept))
    }

    /// How the connection ended, if it did within a time. Frames are kept.
    pub fn end_within(&mut self, within: Duration) -> Option<End> {
        let deadline = Instant::now() + within;
        while self.end.is_none() && self.read_more(deadline) {}
        self.end.clone()
    }

    /// Asserts that nothing but heartbeats comes on any channel for a time.
    pub fn expect_quiet(&mut self, within: Duration) {
        let deadline = Instant::now() + within;
        while self.end.is_none() && self.kept.is_empty() && self.read_more(deadline) {}
        assert!(
            self.end.is_none() && self.kept.is_empty(),
            "expected nothing, got {:?} {:?}",
            self.kept,
            self.end
        );
    }

    /// After connection.close: waits for the other side to close the socket as well.
    pub fn expect_socket_closed(&mut self) {
        self.stream.socket().set_read_timeout(Some(PATIENCE)).expect("a time that is not zero");
        let mut rest = [0; 4096];
        loop {
            match self.stream.read(&mut rest) {
                Ok(0) => return,
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::ConnectionReset => return,
                Err(e) => panic!("the socket was not closed: {e}"),
            }
        }
    }

    /// The same socket, for somebody else who writes while this one reads; without TLS.
    pub fn writer(&self) -> TcpStream {
        self.stream.socket().try_clone().expect("the socket is open")
    }

    /// Says that nothing more will be sent, and keeps reading.
    pub fn finish_writing(&mut self) {
        self.stream.socket().shutdown(std::net::Shutdown::Write).expect("the socket is open");
    }

    /// Ends the connection with a reset instead of an orderly end of the stream.
    pub fn reset(self) {
        rustix::net::sockopt::set_socket_linger(self.stream.socket(), Some(Duration::ZERO))
            .expect("a TCP socket");
    }

    /// Gives the connection to another process, which does nothing with it until it is killed. What a client leaves
    /// behind when it dies is then left behind by the kernel, as it was.
    pub fn into_process(self) -> std::process::Child {
        let mut command = std::process::Command::new("sleep");
        command.arg("600").stdin(std::os::fd::OwnedFd::from(self.stream.into_socket()));
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        command.spawn().expect("sleep starts")
    }

    /// Reads once, until the deadline at most, and sorts the frames. `false` when the time is over.
    fn read_more(&mut self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        self.stream.socket().set_read_timeout(Some(left)).expect("a time that is not zero");
        self.buffer.drain(..self.at);
        self.at = 0;
        let old = self.buffer.len();
        self.buffer.resize(old + 64 * 1024, 0);
        let read = self.stream.read(&mut self.buffer[old..]);
        self.buffer.truncate(old + read.as_ref().map_or(0, |n| *n));
        match read {
            Ok(0) => self.end = Some(End::Eof),
            Ok(_) => self.sort_frames(),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => return false,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(e) if matches!(e.kind(), ErrorKind::ConnectionReset | ErrorKind::BrokenPipe) => {
                self.end = Some(End::Reset);
            }
            Err(e) => panic!("reading from the connection: {e}"),
        }
        true
    }

    fn sort_frames(&mut self) {
        let limit = self.frame_max - u32::try_from(FRAME_OVERHEAD).expect("8");
        while let Some(frame) =
            frame::next_frame(&self.buffer, self.at, limit).expect("the other side sends frames")
        {
            self.at = frame.end;
            if frame.kind == FRAME_HEARTBEAT {
                self.heartbeats += 1;
                continue;
            }
            let payload = frame.payload(&self.buffer).to_vec();
            let frame = Incoming { kind: frame.kind, channel: frame.channel, payload };
            if frame.channel == 0 && frame.is(connection::CLOSE) {
                let closed = frame.closed().expect("the method is a close");
                self.end = Some(End::Closed(closed));
                self.out.clear();
                Method::ConnectionCloseOk.write(0, &mut self.out);
                let _ = self.stream.write_all(&self.out); // the other side may be gone already
                return;
            }
            self.kept.push_back(frame);
        }
    }
}

fn socket(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}
