//! The end of the process: SIGTERM, the two time-outs, a second signal, and the status.

use std::time::{Duration, Instant};
use warren_testkit::{Peer, Through, Warren, Way, eventually};

/// For what happens at once, on a machine that compiles at the same time. What it is told from takes 60 s.
const SOON: Duration = Duration::from_secs(20);

fn way(arguments: &[&str]) -> (Way, Warren) {
    let mut way = Way::new(Through::Warren, arguments);
    let warren = way.warren.take().expect("the way leads through Warren");
    (way, warren)
}

fn connect(way: &Way, warren: &Warren) -> Peer {
    let mut peer = Peer::connect_with(warren.address(), &way.handshake());
    peer.open_channel(1);
    peer
}

fn ready(warren: &Warren) -> u16 {
    warren.http_get("/readyz").map_or(0, |(status, _)| status)
}

#[test]
fn clients_may_finish_before_they_are_told_to_close() {
    let (way, mut warren) = way(&["--term-client-close-timeout", "60"]);
    let mut peer = connect(&way, &warren);
    let queue = peer.declare(1, "");
    peer.confirm_select(1);
    assert_eq!(ready(&warren), 200);
    warren.terminate();
    eventually("load balancers are told", SOON, || ready(&warren) == 503);
    assert_eq!(warren.http_get("/healthz").expect("HTTP is served").0, 200);
    eventually("no client is accepted", SOON, || Peer::try_raw(warren.address()).is_err());
    // Who is in goes on, new channels included.
    peer.publish(1, &queue, b"on the way out");
    peer.expect_confirms(1, 1, 1);
    peer.open_channel(2);
    peer.declare(2, "");
    peer.expect_quiet(Duration::from_millis(500));
    let started = Instant::now();
    peer.close();
    assert_eq!(warren.wait().code(), Some(0), "{}", warren.log());
    assert!(started.elapsed() < SOON, "ended {:?} after its last client", started.elapsed());
}

#[test]
fn after_the_first_time_out_clients_are_sent_close() {
    let (way, mut warren) = way(&["--term-client-close-timeout", "1"]);
    let mut peer = connect(&way, &warren);
    let started = Instant::now();
    warren.terminate();
    assert_eq!(peer.end_within(Duration::from_millis(700)), None);
    let closed = peer.expect_connection_close();
    assert_eq!(closed.code, 320, "{closed:?}");
    assert!(closed.text.contains("Warren is being stopped"), "{closed:?}");
    assert!(started.elapsed() < Duration::from_secs(1) + SOON);
    assert_eq!(warren.wait().code(), Some(0), "{}", warren.log());
}

#[test]
fn after_the_second_time_out_clients_are_cut_off() {
    let (way, mut warren) = way(&["--term-timeout", "1"]);
    let _deaf = connect(&way, &warren); // it never reads, and so never answers
    let started = Instant::now();
    warren.terminate();
    assert_eq!(warren.wait().code(), Some(1), "{}", warren.log());
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(1) && took < Duration::from_secs(1) + SOON, "{took:?}");
}

#[test]
fn without_a_second_time_out_clients_are_waited_for() {
    let (way, mut warren) = way(&[]);
    let mut slow = connect(&way, &warren);
    warren.terminate();
    // Longer than any client usually gets for its answer.
    std::thread::sleep(Duration::from_secs(5));
    assert!(!warren.has_ended(), "{}", warren.log());
    slow.expect_connection_close(); // answers it
    assert_eq!(warren.wait().code(), Some(0), "{}", warren.log());
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (way, mut warren) = way(&["--term-client-close-timeout", "60"]);
    let _peer = connect(&way, &warren);
    warren.terminate();
    eventually("the first signal is taken", SOON, || ready(&warren) == 503);
    let started = Instant::now();
    warren.terminate();
    assert_eq!(warren.wait().code(), Some(1), "{}", warren.log());
    assert!(started.elapsed() < SOON, "{:?}", started.elapsed());
}

#[test]
fn a_client_that_never_logged_in_holds_nothing_up() {
    let (_way, mut warren) = way(&["--workers", "2"]);
    let _silent = Peer::raw(warren.address());
    let mut greeted = Peer::raw(warren.address());
    greeted.send_bytes(&warren_wire::frame::PROTOCOL_HEADER);
    greeted.read_start().expect("Warren begins");
    warren.terminate();
    assert_eq!(warren.wait().code(), Some(0), "{}", warren.log());
}
