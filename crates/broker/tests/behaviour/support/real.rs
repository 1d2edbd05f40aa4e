//! A broker behind a socket.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use warren_wire::Method;
use warren_wire::method::{connection, exchange, queue};
use warren_wire::table::Table;

/// Nothing for so long: nothing more will come.
const QUIET: Duration = Duration::from_millis(150);

/// How long to wait for what a test expects.
pub(crate) const PATIENCE: Duration = Duration::from_secs(3);

pub(crate) struct Real {
    address: String,
    sockets: Vec<Option<TcpStream>>,
    closed: Vec<bool>,
}

impl Real {
    pub(crate) fn new(address: String) -> Real {
        Real { address, sockets: Vec::new(), closed: Vec::new() }
    }

    pub(crate) fn connect(&mut self) {
        let socket = TcpStream::connect(&self.address).expect("the broker named by WARREN_TEST_BROKER");
        socket.set_nodelay(true).unwrap();
        socket.set_nonblocking(true).unwrap();
        self.sockets.push(Some(socket));
        self.closed.push(false);
    }

    pub(crate) fn closed(&mut self, c: usize) -> bool {
        self.closed[c]
    }

    pub(crate) fn disconnect(&mut self, c: usize) {
        self.sockets[c] = None;
        std::thread::sleep(QUIET);
    }

    pub(crate) fn settle(&mut self, pending: &mut [Vec<u8>], unread: &mut [Vec<u8>]) {
        for (socket, bytes) in self.sockets.iter_mut().zip(pending) {
            let bytes = std::mem::take(bytes);
            if let Some(socket) = socket {
                socket.set_nonblocking(false).unwrap();
                let _ = socket.write_all(&bytes); // a socket that was reset is seen below
                socket.set_nonblocking(true).unwrap();
            }
        }
        let mut last = Instant::now();
        while last.elapsed() < QUIET {
            if self.read(unread) {
                last = Instant::now();
            } else {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }

    fn read(&mut self, unread: &mut [Vec<u8>]) -> bool {
        let mut any = false;
        for (c, unread) in unread.iter_mut().enumerate() {
            let Some(socket) = &mut self.sockets[c] else {
                continue;
            };
            let mut buf = vec![0; 65_536];
            match socket.read(&mut buf) {
                Ok(0) => self.closed[c] = true,
                Ok(n) => {
                    unread.extend_from_slice(&buf[..n]);
                    any = true;
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(_) => self.closed[c] = true,
            }
        }
        any
    }

    /// Deletes what a test declared, so that the next one finds nothing.
    pub(crate) fn clean_up(&mut self, declared: &BTreeSet<(bool, Vec<u8>)>) {
        self.sockets.clear();
        std::thread::sleep(QUIET);
        let mut socket = TcpStream::connect(&self.address).unwrap();
        let mut out = warren_wire::frame::PROTOCOL_HEADER.to_vec();
        let start_ok = connection::StartOk {
            client_properties: Table::EMPTY,
            mechanism: b"PLAIN",
            response: b"\0guest\0guest",
            locale: b"en_US",
        };
        Method::ConnectionStartOk(start_ok).write(0, &mut out);
        let tune_ok = connection::TuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 0 };
        Method::ConnectionTuneOk(tune_ok).write(0, &mut out);
        Method::ConnectionOpen(connection::Open { virtual_host: b"/" }).write(0, &mut out);
        for (number, (is_queue, name)) in (1..).zip(declared.iter().filter(|d| !d.1.starts_with(b"amq."))) {
            Method::ChannelOpen.write(number, &mut out);
            if *is_queue {
                let delete = queue::Delete { queue: name, if_unused: false, if_empty: false, no_wait: false };
                Method::QueueDelete(delete).write(number, &mut out);
            } else {
                let delete = exchange::Delete { exchange: name, if_unused: false, no_wait: false };
                Method::ExchangeDelete(delete).write(number, &mut out);
            }
        }
        let _ = socket.write_all(&out);
        std::thread::sleep(QUIET);
    }
}
