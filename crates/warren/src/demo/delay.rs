//! A TCP relay that adds latency, as a long way would, and keeps throughput.
//!
//! Whatever is read goes into a queue with the time at which it may leave, so that what follows is read meanwhile.
//! TCP's own handshake takes a round trip on a long way: nothing of a new connection is read for so long.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::thread;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until};

/// Octets read at once.
const CHUNK: usize = 16 * 1024;
/// Chunks under way in one direction. 4 MiB in a few milliseconds is more than most networks carry.
const UNDER_WAY: usize = 256;
/// After an error of accepting, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// A chunk, and when it leaves. An empty one is the end.
type Chunk = (Instant, Vec<u8>);

/// A running relay; dropped, it ends with all its connections.
pub(super) struct Delay {
    address: SocketAddr,
    end: Option<oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Delay {
    /// Listens on `listen` and relays every connection to `to`, each direction `one_way` late.
    pub(super) fn start(listen: SocketAddr, to: SocketAddr, one_way: Duration) -> io::Result<Delay> {
        let listener = StdListener::bind(listen)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (end, ended) = oneshot::channel();
        // A thread of its own, so that it is late by what it should be and not by what others do.
        let thread = thread::Builder::new().name("delay".to_owned()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    _ = accept(listener, to, one_way) => {}
                    _ = ended => {}
                }
            });
        })?;
        Ok(Delay { address, end: Some(end), thread: Some(thread) })
    }

    /// Where it listens.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Delay {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic there was reported when it happened
        }
    }
}

async fn accept(listener: StdListener, to: SocketAddr, one_way: Duration) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            // However a connection ends, both sockets see it.
            Ok((near, _)) => drop(tokio::spawn(async move { relay(near, to, one_way).await })),
            Err(_) => sleep(ACCEPT_PAUSE).await,
        }
    }
}

async fn relay(near: TcpStream, to: SocketAddr, one_way: Duration) -> io::Result<()> {
    sleep(2 * one_way).await;
    let far = TcpStream::connect(to).await?;
    near.set_nodelay(true)?;
    far.set_nodelay(true)?;
    let (from_near, to_near) = near.into_split();
    let (from_far, to_far) = far.into_split();
    tokio::try_join!(direction(from_near, to_far, one_way), direction(from_far, to_near, one_way))?;
    Ok(())
}

async fn direction(from: OwnedReadHalf, to: OwnedWriteHalf, one_way: Duration) -> io::Result<()> {
    let (sender, chunks) = mpsc::channel(UNDER_WAY);
    tokio::try_join!(read(from, sender, one_way), write(chunks, to))?;
    Ok(())
}

async fn read(mut from: OwnedReadHalf, chunks: mpsc::Sender<Chunk>, one_way: Duration) -> io::Result<()> {
    loop {
        let mut chunk = vec![0; CHUNK];
        let n = from.read(&mut chunk).await?;
        chunk.truncate(n);
        let sent = chunks.send((Instant::now() + one_way, chunk)).await;
        if n == 0 || sent.is_err() {
            return Ok(());
        }
    }
}

async fn write(mut chunks: mpsc::Receiver<Chunk>, mut to: OwnedWriteHalf) -> io::Result<()> {
    while let Some((leaves, chunk)) = chunks.recv().await {
        sleep_until(leaves).await;
        match chunk.is_empty() {
            false => to.write_all(&chunk).await?,
            true => to.shutdown().await?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Shutdown, TcpListener, TcpStream};
    use std::time::Instant;

    use super::*;

    const ONE_WAY: Duration = Duration::from_millis(20);

    fn any_port() -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 0))
    }

    /// A relay in front of somebody who sends back what comes, until it ends.
    fn echo() -> Delay {
        let listener = TcpListener::bind(any_port()).expect("loopback");
        let delay =
            Delay::start(any_port(), listener.local_addr().expect("bound"), ONE_WAY).expect("loopback");
        thread::spawn(move || {
            let (stream, _) = listener.accept().expect("the relay connects");
            std::io::copy(&mut &stream, &mut &stream).expect("an orderly end");
            stream.shutdown(Shutdown::Write).expect("still open");
        });
        delay
    }

    #[test]
    fn a_round_trip_takes_both_ways() {
        let delay = echo();
        let mut stream = TcpStream::connect(delay.address()).expect("listening");
        let start = Instant::now();
        let mut octet = [7];
        for round in 1..=3 {
            stream.write_all(&octet).expect("open");
            stream.read_exact(&mut octet).expect("an answer");
            // One more for TCP's own handshake.
            assert!(start.elapsed() >= 2 * ONE_WAY * (round + 1), "round {round}: {:?}", start.elapsed());
        }
    }

    #[test]
    fn much_at_once_is_late_once() {
        let delay = echo();
        let mut stream = TcpStream::connect(delay.address()).expect("listening");
        let sent: Vec<u8> = (0..=250).cycle().take(8 << 20).collect();
        let start = Instant::now();
        let writer = {
            let (mut stream, sent) = (stream.try_clone().expect("a descriptor"), sent.clone());
            thread::spawn(move || {
                stream.write_all(&sent).expect("open");
                stream.shutdown(Shutdown::Write).expect("open");
            })
        };
        let mut came = Vec::new();
        stream.read_to_end(&mut came).expect("an orderly end");
        writer.join().expect("no panic");
        assert!(came == sent, "{} octets came, others than were sent", came.len());
        // Late for each chunk it would take 20 s.
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }
}
