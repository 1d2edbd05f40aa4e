//! A worker: one thread with a runtime of its own, one engine, and the connections that this engine decides about.
//! Nothing here is shared with another thread; what comes from others comes as a message ([`mailbox`]).
//!
//! [`accept`] brings clients in. Each connection has a task ([`connection`]) that hands bytes to the engine and, at
//! the end, closes in good order ([`closing`]). After every call to the engine its commands are carried out
//! ([`commands`]): whoever made the call writes to whatever socket it was for, at once. [`links`] finds the sockets,
//! [`clock`] tells the time.
//!
//! Two rules keep the cells free of conflicts: nothing borrowed is held across an await, and only
//! [`Worker::settle`] takes commands, in a loop, so that a command that causes others does not nest.

mod accept;
pub(crate) mod clock;
mod closing;
mod commands;
mod connection;
mod links;
pub(crate) mod mailbox;
mod names;
pub(crate) mod tasks;

use std::cell::{Cell, RefCell};
use std::hash::{BuildHasher, RandomState};
use std::net::{SocketAddr, TcpListener as StdListener};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::thread;

use anyhow::Context;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, oneshot};
use tokio::task::{JoinHandle, LocalSet};
use warren_engine::buf::{Input, Pool};
use warren_engine::config::BackendId;
use warren_engine::ids::{SessionId, UpstreamId};
use warren_engine::time::Time;
use warren_engine::{AuthRequest, Config, Engine, Gone, Link, Options, Peer};

use crate::admission::Admission;
use crate::connect::Connector;
use crate::control::backends::Backends;
use crate::seats::{Seat, Seats};
use crate::socket::Socket;
use clock::{Clock, Timer};
use links::{Conn, Links};
use mailbox::{Adoption, Mailbox, Message, Messages};
use names::Names;
use tasks::spawn;

/// What the control thread has of a worker.
pub(crate) struct Handle {
    /// Where to write to it.
    pub(crate) mailbox: Mailbox,
    /// Completes when its thread ends: with an error if by a panic.
    pub(crate) ended: oneshot::Receiver<()>,
}

/// What a worker's thread begins with.
struct Setup {
    options: Options,
    backends: Backends,
    listeners: Vec<TcpListener>,
    seats: Arc<Seats>,
    admission: Arc<Admission>,
    /// Mailboxes of all workers, by number.
    workers: Vec<Mailbox>,
    messages: Messages,
}

/// Starts `count` workers, each of which accepts from its own duplicates of `listeners`.
pub(crate) fn start_all(
    count: usize,
    backends: &Backends,
    listeners: &[StdListener],
    seats: &Arc<Seats>,
    admission: &Arc<Admission>,
) -> anyhow::Result<Vec<Handle>> {
    let (mailboxes, inboxes): (Vec<_>, Vec<_>) = (0..count).map(|_| Mailbox::new()).unzip();
    let mut handles = Vec::with_capacity(count);
    for (number, messages) in inboxes.into_iter().enumerate() {
        let runtime = Builder::new_current_thread().enable_all().build().context("cannot start a worker")?;
        let setup = Setup {
            options: Options {
                worker: number,
                workers: count,
                ..Options::single(RandomState::new().hash_one(number))
            },
            backends: backends.clone(),
            listeners: duplicate(&runtime, listeners).context("cannot duplicate a listening socket")?,
            seats: Arc::clone(seats),
            admission: Arc::clone(admission),
            workers: mailboxes.clone(),
            messages,
        };
        let (end, ended) = oneshot::channel();
        let thread = thread::Builder::new().name(format!("worker-{number}"));
        thread.spawn(move || thread_main(runtime, setup, end)).context("cannot start a worker")?;
        handles.push(Handle { mailbox: mailboxes[number].clone(), ended });
    }
    Ok(handles)
}

/// The thread of a worker. A panic drops `end`, which the control thread notices as well.
fn thread_main(runtime: Runtime, setup: Setup, end: oneshot::Sender<()>) {
    LocalSet::new().block_on(&runtime, run(setup));
    // A name that is still being resolved must not hold up the end.
    runtime.shutdown_background();
    let _ = end.send(());
}

fn duplicate(runtime: &Runtime, listeners: &[StdListener]) -> std::io::Result<Vec<TcpListener>> {
    let _inside = runtime.enter(); // where the duplicates are registered
    listeners.iter().map(|listener| listener.try_clone().and_then(TcpListener::from_std)).collect()
}

async fn run(setup: Setup) {
    let worker = Rc::new(Worker::new(&setup));
    let acceptors = setup.listeners.into_iter().map(|l| spawn(accept::accept(Rc::clone(&worker), l)));
    let acceptors = acceptors.collect();
    // Tasks, so that this future, which is looked at on every wake-up, has next to nothing to look at.
    let time = spawn(keep_time(Rc::clone(&worker)));
    let messages = spawn(read_messages(worker, setup.messages, acceptors));
    let end = tokio::select! {
        biased;
        end = messages => end,
        end = time => end,
    };
    // Nothing works without these two: if one of them panics, the thread ends, and the process with it.
    if let Err(error) = end
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}

/// Does something on behalf of one connection. A panic there is a fault of ours, and must cost that connection only.
fn survive<R>(whose: &str, what: impl FnOnce() -> R) -> Option<R> {
    let outcome = catch_unwind(AssertUnwindSafe(what));
    if outcome.is_err() {
        tracing::error!("{whose} is given up because of an internal error; please report it");
    }
    outcome.ok()
}

/// Calls the engine whenever its time has come.
async fn keep_time(worker: Rc<Worker>) {
    loop {
        let deadline = worker.engine.borrow().next_deadline();
        worker.timer.sleep(worker.clock, deadline).await;
        let now = worker.clock.now();
        let mut engine = worker.engine.borrow_mut();
        if engine.next_deadline().is_some_and(|deadline| deadline <= now) {
            engine.tick(now);
        }
        drop(engine);
        worker.settle(now);
    }
}

/// Does what other threads ask for. Returns when the worker was told to stop and nothing is left.
async fn read_messages(worker: Rc<Worker>, mut messages: Messages, mut acceptors: Vec<JoinHandle<()>>) {
    loop {
        let message = tokio::select! {
            message = messages.recv() => message,
            () = worker.idle.notified() => return,
        };
        match message {
            Some(Message::Adopt(adoption)) => {
                survive("a session from another worker", || worker.adopt(*adoption));
            }
            Some(Message::Metrics(answer)) => {
                // Nobody waits for it any more: fine.
                let _ = answer.send(worker.engine.borrow().metrics());
            }
            Some(Message::StopAccepting) => acceptors.drain(..).for_each(|acceptor| acceptor.abort()),
            Some(Message::Stop(text)) => worker.stop(&text),
            None => return,
        }
    }
}

/// One worker's engine and everything that it decides about.
struct Worker {
    config: Arc<Config>,
    connectors: Arc<[Connector]>,
    clock: Clock,
    engine: RefCell<Engine>,
    pool: Pool,
    links: Links,
    timer: Timer,
    seats: Arc<Seats>,
    admission: Arc<Admission>,
    /// Names of clients' addresses.
    names: Rc<Names>,
    /// What it told the others last: see [`Worker::is_crowded`].
    crowded: Cell<bool>,
    workers: Vec<Mailbox>,
    stopping: Cell<bool>,
    /// Notified when the worker was told to stop and its engine has no link left.
    idle: Notify,
}

impl Worker {
    fn new(setup: &Setup) -> Worker {
        let Backends { config, balance, connectors, clock } = setup.backends.clone();
        let mut engine = Engine::with_balance(Arc::clone(&config), setup.options, clock.now(), balance);
        engine.share(setup.admission.allowances());
        Worker {
            config,
            connectors,
            clock,
            pool: engine.pool().clone(),
            engine: RefCell::new(engine),
            links: Links::default(),
            timer: Timer::new(),
            seats: Arc::clone(&setup.seats),
            admission: Arc::clone(&setup.admission),
            names: Rc::default(),
            crowded: Cell::new(false),
            workers: setup.workers.clone(),
            stopping: Cell::new(false),
            idle: Notify::new(),
        }
    }

    /// Whether so many handshakes are in progress here that no client can be accepted. When no other worker can either,
    /// those that stall make room.
    fn is_crowded(self: &Rc<Self>) -> bool {
        let crowded = self.engine.borrow().is_crowded();
        if self.crowded.replace(crowded) != crowded {
            self.seats.note_crowded(crowded);
        }
        if !crowded || self.seats.crowded() < self.workers.len() {
            return crowded;
        }
        let now = self.clock.now();
        self.engine.borrow_mut().make_room(now);
        self.settle(now);
        self.engine.borrow().is_crowded()
    }

    /// A client has connected.
    fn accepted(self: &Rc<Self>, stream: TcpStream, address: SocketAddr) {
        let now = self.clock.now();
        let mut peer = Peer::plain(address);
        peer.local = stream.local_addr().unwrap_or(address);
        let session = self.engine.borrow_mut().accepted(now, peer);
        if let Some(session) = session {
            let seat = self.seats.take();
            self.serve(Link::Session(session), Socket::plain(stream), seat, Input::new(&self.pool));
        }
        self.settle(now);
    }

    /// A session comes from another worker.
    fn adopt(self: &Rc<Self>, adoption: Adoption) {
        // It had no answer to its connection.open yet, so that ending without one is in order.
        if self.stopping.get() {
            return;
        }
        let socket = match adoption.socket.into_socket() {
            Ok(socket) => socket,
            Err(error) => return tracing::warn!("a session cannot be taken over and is dropped: {error}"),
        };
        let now = self.clock.now();
        let session = self.engine.borrow_mut().adopted(now, adoption.hand_off);
        let mut input = Input::new(&self.pool);
        input.extend(&adoption.unread);
        self.serve(Link::Session(session), socket, adoption.seat, input);
        self.settle(now);
    }

    /// Makes a connection to a broker, and serves it.
    async fn connect(self: Rc<Self>, upstream: UpstreamId, backend: BackendId) {
        let outcome = match self.connectors.get(backend) {
            Some(connector) => connector.connect().await,
            None => Err(format!("there is no backend number {backend}")),
        };
        let link = Link::Upstream(upstream);
        if !self.links.end(link) {
            return; // given up meanwhile; the engine knows
        }
        let now = self.clock.now();
        match outcome {
            Ok(socket) => {
                let seat = self.seats.take();
                let local = socket.local_addr();
                self.serve(link, socket, seat, Input::new(&self.pool));
                let mut engine = self.engine.borrow_mut();
                if let Ok(local) = local {
                    engine.upstream_local(upstream, local);
                }
                engine.upstream_connected(now, upstream);
            }
            Err(text) => self.engine.borrow_mut().gone(now, link, Gone::Failed(text)),
        }
        self.settle(now);
    }

    /// Has the auth service asked about a client.
    async fn authorize(self: Rc<Self>, session: SessionId, request: Box<AuthRequest>) {
        let verdict = self.admission.ask(&request).await;
        let now = self.clock.now();
        self.engine.borrow_mut().authorized(now, session, verdict);
        self.settle(now);
    }

    fn serve(self: &Rc<Self>, link: Link, socket: Socket, seat: Seat, input: Input) {
        let conn = Rc::new(Conn::new(link, socket, seat));
        self.links.insert(Rc::clone(&conn));
        spawn(connection::serve(Rc::clone(self), conn, input));
    }

    /// A socket is gone.
    fn gone(self: &Rc<Self>, link: Link, why: Gone) {
        let now = self.clock.now();
        self.links.remove(link);
        self.engine.borrow_mut().gone(now, link, why);
        self.settle(now);
    }

    fn send(&self, worker: usize, message: Message) {
        match self.workers.get(worker) {
            Some(mailbox) => mailbox.send(message),
            None => tracing::error!("there is no worker number {worker}; a session for it is dropped"),
        }
    }

    fn stop(self: &Rc<Self>, text: &str) {
        let now = self.clock.now();
        self.stopping.set(true);
        self.engine.borrow_mut().shutdown(now, text);
        self.settle(now);
    }

    /// Carries out what the engine wants, until it wants nothing. To be called after every call that may change
    /// something, with no cell borrowed.
    fn settle(self: &Rc<Self>, now: Time) {
        loop {
            let command = self.engine.borrow_mut().next_command();
            let Some(command) = command else { break };
            self.execute(now, command);
        }
        let engine = self.engine.borrow();
        self.timer.arm(engine.next_deadline());
        if self.stopping.get() && engine.is_idle() {
            self.idle.notify_one();
        }
    }
}
