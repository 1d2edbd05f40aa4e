//! The broker's thread: accepting, what other threads ask for, and the end.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::net::TcpListener as StdListener;
use std::rc::Rc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::{JoinError, JoinSet, LocalSet};
use tokio::time::timeout;

use super::{Request, connection};
use crate::broker::{Broker, ConnId};
use crate::options::Options;

/// After an error of accepting that is not one client's, such as too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// How long clients have to answer when the broker stops.
const STOP_LIMIT: Duration = Duration::from_secs(1);
/// What they are told then, by RabbitMQ's words.
const STOPPING: &str = "broker forced connection closure with reason 'shutdown'";

/// What a connection's task has to do with others.
#[derive(Default)]
pub(super) struct Seat {
    /// Something may have happened that concerns the connection.
    pub(super) news: Notify,
    /// Its peer does not read, so that deliveries are no news to it. The task looks for them when that has changed.
    pub(super) congested: Cell<bool>,
}

/// What all tasks share. Nothing borrowed is held across an await.
pub(super) struct Shared {
    pub(super) broker: RefCell<Broker>,
    seats: RefCell<BTreeMap<ConnId, Rc<Seat>>>,
}

impl Shared {
    /// Wakes the tasks of connections to which queues have something to say, but for the one that asks.
    pub(super) fn wake_for_news(&self, but: ConnId) {
        let seats = self.seats.borrow();
        for conn in self.broker.borrow().connections_with_news().filter(|conn| *conn != but) {
            if let Some(seat) = seats.get(&conn)
                && !seat.congested.get()
            {
                seat.news.notify_one();
            }
        }
    }

    /// Forgets a connection, whose messages then may go to others.
    pub(super) fn disconnect(&self, conn: ConnId) {
        self.seats.borrow_mut().remove(&conn);
        self.broker.borrow_mut().disconnect(conn);
        self.wake_for_news(conn);
    }

    fn connect(&self) -> (ConnId, Rc<Seat>) {
        let conn = self.broker.borrow_mut().connect();
        let seat = Rc::new(Seat::default());
        self.seats.borrow_mut().insert(conn, Rc::clone(&seat));
        (conn, seat)
    }

    /// Does something to the broker that may concern anybody.
    fn act(&self, request: Request) {
        request(&mut self.broker.borrow_mut());
        self.seats.borrow().values().for_each(|seat| seat.news.notify_one());
    }
}

/// All that the thread does.
pub(super) fn run(
    runtime: &Runtime,
    options: Options,
    listener: StdListener,
    requests: UnboundedReceiver<Request>,
) {
    let broker = RefCell::new(Broker::new(options));
    let shared = Rc::new(Shared { broker, seats: RefCell::default() });
    LocalSet::new().block_on(runtime, async move {
        // Fails only without a runtime, and there is one.
        if let Ok(listener) = TcpListener::from_std(listener) {
            serve(shared, listener, requests).await;
        }
    });
}

async fn serve(shared: Rc<Shared>, listener: TcpListener, mut requests: UnboundedReceiver<Request>) {
    let mut tasks = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => begin(&shared, &mut tasks, stream),
                Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
            },
            request = requests.recv() => match request {
                Some(request) => shared.act(request),
                None => break,
            },
            Some(ended) = tasks.join_next() => fail_with(ended),
        }
    }
    drop(listener);
    shared.act(Box::new(|broker| {
        let conns: Vec<ConnId> = broker.connections().collect();
        conns.into_iter().for_each(|conn| broker.force_close(conn, 320, STOPPING));
    }));
    let all = async {
        while let Some(ended) = tasks.join_next().await {
            fail_with(ended);
        }
    };
    let _ = timeout(STOP_LIMIT, all).await; // whoever is left is cut off
}

fn begin(shared: &Rc<Shared>, tasks: &mut JoinSet<()>, stream: TcpStream) {
    let (conn, seat) = shared.connect();
    tasks.spawn_local(connection::serve(Rc::clone(shared), conn, seat, stream));
}

/// A panic on behalf of one connection may have left the broker in any state: it ends, rather than go on with that.
fn fail_with(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && error.is_panic()
    {
        std::panic::resume_unwind(error.into_panic());
    }
}
