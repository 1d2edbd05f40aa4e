//! The broker behind a socket: one thread with a runtime of its own, and on it everything there is.
//!
//! [`thread`]: accepting, what other threads ask for, the end. [`connection`]: one task for each connection, which
//! brings bytes in and out and decides when the core is stepped and pumped. [`pulse`]: heartbeats and deadlines.
//!
//! Nothing grows without bound because of a peer that does not read: see [`connection`].

mod connection;
mod pulse;
mod thread;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;
use std::thread::JoinHandle;

use tokio::runtime::Builder;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::broker::Broker;
use crate::inspect::Counters;
use crate::options::Options;

/// Something that another thread wants done with the broker.
type Request = Box<dyn FnOnce(&mut Broker) + Send>;

/// A broker that serves clients on a TCP port, **for demonstration and tests**. Dropped, it stops as by
/// [`Server::stop`].
///
/// ```no_run
/// use warren_broker::{Options, Server};
///
/// let server = Server::start(Options::default(), ([127, 0, 0, 1], 0).into())?;
/// println!("amqp://guest:guest@{}/", server.address());
/// let waiting = server.with(|broker| broker.queue("/", b"jobs").map(|queue| queue.ready));
/// # std::io::Result::Ok(())
/// ```
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    /// Dropped to have the thread end.
    requests: Option<UnboundedSender<Request>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on an address, port 0 for any that is free, and serves whoever comes.
    ///
    /// # Errors
    /// When the system does not give the port, or no thread.
    pub fn start(options: Options, address: SocketAddr) -> io::Result<Server> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let (sender, requests) = unbounded_channel();
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let thread = std::thread::Builder::new().name("broker".to_owned());
        let thread = thread.spawn(move || thread::run(&runtime, options, listener, requests))?;
        Ok(Server { address, requests: Some(sender), thread: Some(thread) })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets `act` look at the broker, or do something to it, between two steps of its connections; waits for what
    /// comes of it. Whatever that changes for clients is sent to them afterwards.
    ///
    /// # Panics
    /// When the broker's own thread has panicked.
    pub fn with<R: Send + 'static>(&self, act: impl FnOnce(&mut Broker) -> R + Send + 'static) -> R {
        let (sender, answer) = mpsc::channel();
        let request: Request = Box::new(move |broker| {
            let _ = sender.send(act(broker)); // we wait for it
        });
        if let Some(requests) = &self.requests {
            let _ = requests.send(request); // if the thread is not there, the answer does not come either
        }
        answer.recv().expect("the broker's thread has panicked")
    }

    /// What the broker has counted since it was started.
    ///
    /// # Panics
    /// As [`Server::with`].
    pub fn counters(&self) -> Counters {
        self.with(|broker| broker.counters())
    }

    /// Closes every connection with 320, as RabbitMQ does when it is stopped, and the port; returns when that is done,
    /// after a second at the latest. Whatever was in the queues is gone.
    pub fn stop(mut self) {
        self.end();
    }

    fn end(&mut self) {
        self.requests = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join(); // a panic there was reported when it happened
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.end();
    }
}
