//! The broker's sockets: heartbeats, deadlines, peers that do not read, the end.

use crate::start;
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};
use warren_broker::{Options, Server};
use warren_testkit::peer::{End, PUBLISH};
use warren_testkit::{Handshake, Peer, eventually};
use warren_wire::BasicProperties;
use warren_wire::method::{basic, connection};

const SOON: Duration = Duration::from_secs(60);
const MEGABYTE: usize = 1 << 20;
/// Much more than the system keeps for a connection of the loopback device.
const MESSAGES: u32 = 64;

fn channel(broker: &Server, heartbeat: u16) -> Peer {
    let mut peer = Peer::connect_with(broker.address(), &Handshake { heartbeat, ..Handshake::default() });
    peer.open_channel(1);
    peer
}

/// Waits until a count stands still for a while, and gives it.
fn settled(mut count: impl FnMut() -> u64) -> u64 {
    let (mut last, mut since) = (count(), Instant::now());
    while since.elapsed() < Duration::from_millis(700) {
        std::thread::sleep(Duration::from_millis(20));
        let now = count();
        if now != last {
            (last, since) = (now, Instant::now());
        }
    }
    last
}

#[test]
fn heartbeats_are_sent_and_wanted() {
    let broker = start();
    let started = Instant::now();
    let mut silent = channel(&broker, 1);
    let end = silent.expect_end(SOON);
    assert!(matches!(end, End::Eof | End::Reset), "{end:?}");
    let took = started.elapsed();
    assert!(took >= Duration::from_secs(2), "given up after {took:?}");
    assert!(silent.heartbeats() >= 2, "{} heartbeats came", silent.heartbeats());

    let mut alive = channel(&broker, 1);
    for _ in 0..12 {
        alive.send_heartbeat();
        assert_eq!(alive.end_within(Duration::from_millis(300)), None, "a living peer is kept");
    }
    let mut without = channel(&broker, 0);
    assert_eq!(without.end_within(Duration::from_millis(100)), None);
    alive.close();
}

#[test]
fn who_does_not_log_in_is_dropped() {
    let broker = start();
    let started = Instant::now();
    let mut peer = Peer::raw(broker.address());
    let end = peer.expect_end(Duration::from_secs(20));
    assert!(matches!(end, End::Eof | End::Reset), "{end:?}");
    assert!(started.elapsed() >= Duration::from_secs(9), "after {:?}", started.elapsed());
}

#[test]
fn a_consumer_that_does_not_read_holds_up_nobody_and_loses_nothing() {
    let broker = start();
    let mut slow = channel(&broker, 1);
    slow.declare(1, "slow");
    slow.consume(1, "slow", "", true);
    let mut publisher = channel(&broker, 0);
    publisher.confirm_select(1);
    let body = vec![7; MEGABYTE];
    for n in 1..=MESSAGES {
        publisher.publish(1, "slow", &body);
        publisher.expect_confirms(1, n.into(), 1);
    }
    let written = settled(|| broker.counters().deliveries);
    assert!(written > 0 && written < MESSAGES.into(), "{written} messages written to who reads none");
    // It cannot be asked for heartbeats while it is not read: that it is still there after two is no mistake.
    std::thread::sleep(Duration::from_secs(3));
    for _ in 0..MESSAGES {
        assert_eq!(slow.delivery(1).body.len(), MEGABYTE);
    }
    assert_eq!(broker.counters().deliveries, u64::from(MESSAGES));
    publisher.close();
}

#[test]
fn a_publisher_that_does_not_read_is_not_read_either() {
    let broker = start();
    let mut publisher = channel(&broker, 0);
    let publish = basic::Publish { routing_key: b"nowhere", mandatory: true, ..PUBLISH };
    let octets = publisher.encode_publish(1, &publish, &BasicProperties::default(), &vec![7; MEGABYTE]);
    let writer = std::thread::spawn(move || {
        // Ends with an error when the broker goes.
        (0..MESSAGES).take_while(|_| publisher.try_send_bytes(&octets).is_ok()).count()
    });
    eventually("some publishes come", SOON, || broker.counters().publishes_accepted > 0);
    let accepted = settled(|| broker.counters().publishes_accepted);
    assert!(accepted < MESSAGES.into(), "{accepted} messages accepted that had to be returned");
    channel(&broker, 0).close(); // others are served
    broker.stop();
    let sent = writer.join().expect("no panic");
    assert!(sent < MESSAGES as usize, "everything was taken from a peer that does not read");
}

#[test]
fn faults_reach_clients() {
    let broker = start();
    let mut peer = channel(&broker, 0);
    peer.declare(1, "queue");
    broker.with(|broker| broker.set_blocked(true));
    peer.publish(1, "queue", b"held back");
    peer.expect(0, connection::BLOCKED);
    assert_eq!(broker.counters().publishes_accepted, 0);
    broker.with(|broker| broker.set_blocked(false));
    peer.expect(0, connection::UNBLOCKED);
    eventually("the message is there", SOON, || {
        broker.with(|broker| broker.queue("/", b"queue").is_some_and(|q| q.ready == 1))
    });

    let mut closed = channel(&broker, 0);
    broker.with(|broker| {
        let conns: Vec<_> = broker.connections().collect();
        broker.force_close(conns[1], 320, "for the test");
    });
    let close = closed.expect_connection_close();
    assert_eq!((close.code, close.text.as_str()), (320, "CONNECTION_FORCED - for the test"));
    closed.expect_socket_closed();

    broker.with(|broker| broker.restart());
    assert_eq!(peer.expect_end(SOON), End::Reset);
    channel(&broker, 0).close();
}

#[test]
fn nonsense_is_answered_as_the_protocol_says() {
    let broker = start();
    let mut stranger = TcpStream::connect(broker.address()).expect("listening");
    std::io::Write::write_all(&mut stranger, b"GET / HTTP/1.1\r\n\r\n").expect("connected");
    stranger.set_read_timeout(Some(SOON)).expect("a time");
    let mut answer = Vec::new();
    std::io::Read::read_to_end(&mut stranger, &mut answer).expect("an orderly end");
    assert_eq!(answer, b"AMQP\0\0\x09\x01");

    let mut peer = channel(&broker, 0);
    peer.send_bytes(&[99; 64]);
    assert_eq!(peer.expect_connection_close().code, 501);
}

#[test]
fn stopping_tells_clients_and_frees_the_port() {
    let broker = start();
    let address = broker.address();
    let mut peer = channel(&broker, 0);
    let stopping = std::thread::spawn(move || broker.stop());
    let close = peer.expect_connection_close();
    assert_eq!(close.code, 320);
    stopping.join().expect("no panic");
    assert!(Peer::try_raw(address).is_err(), "nobody listens any more");
    let again = Server::start(Options::default(), (Ipv4Addr::LOCALHOST, address.port()).into());
    channel(&again.expect("the port is free"), 0).close();
}
