use std::io::{IoSlice, Read, Write};
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::task::{JoinHandle, LocalSet, spawn_local};
use tokio::time::{sleep, timeout};

use super::*;
use crate::seats::Seats;
use crate::worker::clock::Clock;

/// A connection and its other end, on a worker's kind of runtime.
fn connected<F: Future<Output = ()>>(test: impl FnOnce(Rc<Conn>, std::net::TcpStream) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let near = std::net::TcpStream::connect(listener.local_addr().expect("bound")).expect("listening");
    let (far, _) = listener.accept().expect("connecting");
    near.set_nonblocking(true).expect("a socket");
    LocalSet::new().block_on(&runtime, async {
        let socket = Socket::plain(TcpStream::from_std(near).expect("registered"));
        let seat = Seats::new(1, None, Clock::start()).take();
        test(Rc::new(Conn::new(Link::Session(SessionId::default()), socket, seat)), far).await;
    });
}

fn waiting(conn: &Rc<Conn>, reading: bool) -> JoinHandle<()> {
    let conn = Rc::clone(conn);
    spawn_local(async move { conn.ready(reading).await })
}

async fn woken(task: JoinHandle<()>) {
    timeout(Duration::from_secs(10), task).await.expect("it was woken").expect("no panic");
}

/// Fills the socket until it takes no more.
fn fill(conn: &Conn) {
    let octets = vec![0; 1 << 20];
    while conn.socket.try_write(&[IoSlice::new(&octets)]).is_ok() {}
    conn.writing.set(Writing::Blocked);
}

/// Time for every event that is on its way to arrive, before a test says that none did.
const SETTLED: Duration = Duration::from_millis(30);

#[test]
fn a_wish_wakes_before_and_during_the_wait() {
    connected(|conn, _far| async move {
        conn.want(Wanted::READ);
        woken(waiting(&conn, false)).await;
        assert_eq!(conn.take_wanted(), Wanted::READ);
        let task = waiting(&conn, false);
        sleep(SETTLED).await;
        assert!(!task.is_finished());
        conn.want(Wanted::CLOSE);
        woken(task).await;
    });
}

#[test]
fn octets_wake_only_who_reads() {
    connected(|conn, mut far| async move {
        let held = waiting(&conn, false);
        far.write_all(b"octets").expect("open");
        sleep(SETTLED).await;
        assert!(!held.is_finished());
        held.abort();
        timeout(Duration::from_secs(10), conn.ready(true)).await.expect("woken");
        let mut space = [0; 100];
        assert_eq!(conn.socket.try_read(&mut space).expect("there"), 6);
        // The socket was emptied, and is known to be: then new octets must still be noticed.
        let task = waiting(&conn, true);
        sleep(SETTLED).await;
        assert!(!task.is_finished());
        far.write_all(b"more").expect("open");
        woken(task).await;
    });
}

#[test]
fn the_end_is_seen_after_a_read_that_emptied_the_socket() {
    connected(|conn, mut far| async move {
        far.write_all(b"last words").expect("open");
        drop(far);
        sleep(SETTLED).await;
        timeout(Duration::from_secs(10), conn.ready(true)).await.expect("woken");
        let mut space = [0; 100];
        assert_eq!(conn.socket.try_read(&mut space).expect("there"), 10);
        timeout(Duration::from_secs(10), conn.ready(true)).await.expect("woken");
        assert_eq!(conn.socket.try_read(&mut space).expect("the end"), 0);
    });
}

#[test]
fn a_socket_that_fills_up_during_the_wait_wakes_when_there_is_room() {
    connected(|conn, mut far| async move {
        let task = waiting(&conn, false);
        sleep(SETTLED).await;
        // What another connection's task does when it finds this socket full.
        fill(&conn);
        conn.wake();
        sleep(SETTLED).await;
        // The task itself waits only for what it found when it was last polled: it was polled again.
        assert!(!task.is_finished(), "woken without room");
        let reader = std::thread::spawn(move || {
            let mut space = vec![0; 1 << 20];
            let mut total = 0;
            while total < 1 << 20 {
                total += far.read(&mut space).expect("open");
            }
            far
        });
        woken(task).await;
        drop(reader.join().expect("no panic"));
    });
}

#[test]
fn wishes_add_up() {
    connected(|conn, _far| async move {
        conn.want(Wanted::READ);
        conn.want(Wanted::ABORT);
        assert!(conn.take_one(Wanted::READ) && !conn.take_one(Wanted::READ));
        assert_eq!(conn.take_wanted(), Wanted::ABORT);
        assert_eq!(conn.wanted(), Wanted::NOTHING);
    });
}

#[test]
fn a_connect_ends_once() {
    let links = Links::default();
    let id = UpstreamId::from(slotmap::KeyData::from_ffi(1 << 32 | 1));
    links.begin(id);
    assert!(links.end(Link::Upstream(id)) && !links.end(Link::Upstream(id)));
    assert!(!links.end(Link::Session(SessionId::default())));
}
