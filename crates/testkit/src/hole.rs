//! An address that does not answer: connects to it end in nothing, as with a machine that has lost its power.

use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{AddressFamily, SocketType, bind, getsockname, listen, socket};

/// A port of the loopback address whose connects time out, as long as this lives.
#[derive(Debug)]
pub struct Hole {
    port: u16,
    _listener: OwnedFd,
    _waiting: Vec<TcpStream>,
}

impl Hole {
    /// A listener that never accepts and whose queue is full: the system drops what comes.
    pub fn new() -> Hole {
        let listener = socket(AddressFamily::INET, SocketType::STREAM, None).expect("a socket");
        bind(&listener, &SocketAddr::from(([127, 0, 0, 1], 0))).expect("a free port");
        listen(&listener, 0).expect("it is bound");
        let address = SocketAddr::try_from(getsockname(&listener).expect("bound")).expect("an IP address");
        let mut waiting = Vec::new();
        // The queue takes one or two, depending on the kernel.
        while let Ok(stream) = TcpStream::connect_timeout(&address, Duration::from_millis(500)) {
            waiting.push(stream);
            assert!(waiting.len() < 16, "the system queues connects without end");
        }
        Hole { port: address.port(), _listener: listener, _waiting: waiting }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl Default for Hole {
    fn default() -> Hole {
        Hole::new()
    }
}
