//! A TCP relay between Warren and a broker that can swallow everything: a black hole, as a lost route makes one. It can
//! also stop reading, and reset what it does not read.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

/// A relay; it ends with the test process.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    switches: Arc<Switches>,
}

/// What it does to its connections.
#[derive(Debug, Default)]
struct Switches {
    swallows: AtomicBool,
    /// Connections with a number below this are not read from Warren's side any more.
    stalled: AtomicUsize,
    /// Of these, those below this one are reset.
    reset: AtomicUsize,
    made: AtomicUsize,
}

impl Relay {
    /// Listens at a free port, and passes everything on to `to`.
    pub fn to(to: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let switches = Arc::new(Switches::default());
        let shared = Arc::clone(&switches);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let switches = Arc::clone(&shared);
                std::thread::spawn(move || serve(client, to, &switches));
            }
        });
        Relay { address, switches }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on connections that are there get nothing through any more, and new ones neither; or all do again.
    /// Nothing is reset: neither side can tell, except by silence.
    pub fn swallow(&self, yes: bool) {
        self.switches.swallows.store(yes, Ordering::SeqCst);
    }

    /// Connections that are there are not read any more, so that Warren cannot write to them for long; new ones are.
    pub fn stall(&self) {
        let made = self.switches.made.load(Ordering::SeqCst);
        self.switches.stalled.store(made, Ordering::SeqCst);
    }

    /// Resets the connections that are stalled. What they had received and not read is lost.
    pub fn reset(&self) {
        let stalled = self.switches.stalled.load(Ordering::SeqCst);
        self.switches.reset.store(stalled, Ordering::SeqCst);
    }
}

/// How often a way looks whether it is to stop.
const LOOK: Duration = Duration::from_millis(20);

/// One way of a connection.
struct Way {
    number: usize,
    /// From Warren to the broker.
    there: bool,
    switches: Arc<Switches>,
    /// What was lost once stays lost: a connection that went through the hole is of no more use.
    lost: Arc<AtomicBool>,
}

fn serve(client: TcpStream, to: SocketAddr, switches: &Arc<Switches>) {
    let number = switches.made.fetch_add(1, Ordering::SeqCst);
    let Ok(broker) = TcpStream::connect(to) else { return };
    let (Ok(from_client), Ok(from_broker)) = (client.try_clone(), broker.try_clone()) else { return };
    let lost = Arc::new(AtomicBool::new(false));
    let way = |there| Way { number, there, switches: Arc::clone(switches), lost: Arc::clone(&lost) };
    let (there, back) = (way(true), way(false));
    let first = std::thread::spawn(move || there.copy(from_client, broker));
    // No other handle is left, so that the sockets end with the two.
    back.copy(from_broker, client);
    drop(first.join());
}

impl Way {
    fn copy(&self, mut from: TcpStream, mut into: TcpStream) {
        let _ = from.set_read_timeout(Some(LOOK));
        let mut bytes = vec![0; 64 << 10];
        while !self.is_reset() {
            if self.there && self.number < self.switches.stalled.load(Ordering::SeqCst) {
                std::thread::sleep(LOOK);
                continue;
            }
            let n = match from.read(&mut bytes) {
                Ok(n) => n,
                Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => continue,
                Err(_) => break,
            };
            if self.switches.swallows.load(Ordering::SeqCst) {
                self.lost.store(true, Ordering::SeqCst);
            }
            if n == 0 {
                break;
            }
            if !self.lost.load(Ordering::SeqCst) && into.write_all(&bytes[..n]).is_err() {
                break;
            }
        }
        if !self.lost.load(Ordering::SeqCst) && !self.is_reset() {
            let _ = into.shutdown(Shutdown::Write);
        }
    }

    fn is_reset(&self) -> bool {
        self.number < self.switches.reset.load(Ordering::SeqCst)
    }
}
