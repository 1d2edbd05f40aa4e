//! A TCP relay between Warren and a broker that can swallow everything: a black hole, as a lost route makes one.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A relay; it ends with the test process.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    swallows: Arc<AtomicBool>,
}

impl Relay {
    /// Listens at a free port, and passes everything on to `to`.
    pub fn to(to: SocketAddr) -> Relay {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("bound");
        let swallows = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&swallows);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let flag = Arc::clone(&flag);
                std::thread::spawn(move || serve(&client, to, &flag));
            }
        });
        Relay { address, swallows }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// From now on connections that are there get nothing through any more, and new ones neither; or all do again.
    /// Nothing is reset: neither side can tell, except by silence.
    pub fn swallow(&self, yes: bool) {
        self.swallows.store(yes, Ordering::SeqCst);
    }
}

fn serve(client: &TcpStream, to: SocketAddr, swallows: &Arc<AtomicBool>) {
    let Ok(broker) = TcpStream::connect(to) else { return };
    let pair = |a: &TcpStream, b: &TcpStream| Some((a.try_clone().ok()?, b.try_clone().ok()?));
    let (Some(there), Some(back)) = (pair(client, &broker), pair(&broker, client)) else { return };
    // What was lost once stays lost: a connection that went through the hole is of no more use.
    let lost = Arc::new(AtomicBool::new(false));
    let ways = [there, back].map(|(from, into)| {
        let (swallows, lost) = (Arc::clone(swallows), Arc::clone(&lost));
        std::thread::spawn(move || copy(from, into, &swallows, &lost))
    });
    ways.into_iter().for_each(|way| drop(way.join()));
}

fn copy(mut from: TcpStream, mut into: TcpStream, swallows: &AtomicBool, lost: &AtomicBool) {
    let _ = from.set_read_timeout(Some(Duration::from_secs(120)));
    let mut bytes = vec![0; 64 << 10];
    while let Ok(n) = from.read(&mut bytes) {
        if swallows.load(Ordering::SeqCst) {
            lost.store(true, Ordering::SeqCst);
        }
        if n == 0 {
            break;
        }
        if !lost.load(Ordering::SeqCst) && into.write_all(&bytes[..n]).is_err() {
            break;
        }
    }
    if !lost.load(Ordering::SeqCst) {
        let _ = into.shutdown(Shutdown::Write);
    }
}
