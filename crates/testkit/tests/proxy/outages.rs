//! The broker goes away, comes late, raises an alarm; Warren is stopped.

use std::time::{Duration, Instant};
use warren_testkit::{Handshake, Peer, Through, Warren, Way, eventually, rabbit};
use warren_wire::method::connection;

fn consumer(address: std::net::SocketAddr, vhost: &str) -> Peer {
    let mut peer = Peer::connect_with(address, &Handshake::on(vhost));
    peer.open_channel(1);
    let queue = peer.declare(1, "");
    peer.consume(1, &queue, "", false);
    peer
}

fn publisher(address: std::net::SocketAddr, vhost: &str) -> (Peer, String) {
    let mut peer = Peer::connect_with(address, &Handshake::on(vhost));
    peer.open_channel(1);
    let queue = peer.declare(1, "");
    peer.confirm_select(1);
    peer.publish(1, &queue, b"x");
    peer.expect_confirms(1, 1, 1);
    (peer, queue)
}

#[test]
fn a_broker_that_stops_and_comes_back_is_used_again() {
    let rabbit = rabbit::exclusive();
    let warren = Warren::start(&rabbit);
    for kill in [false, true] {
        let (peer, _) = publisher(warren.address(), "/");
        peer.close();
        if kill {
            rabbit.kill();
        } else {
            rabbit.stop_broker();
        }
        assert!(warren.http_get("/healthz").is_ok(), "Warren answers while its broker is away");
        if kill {
            rabbit.restart();
        } else {
            rabbit.start_broker();
        }
        eventually("clients are let in again", Duration::from_secs(60), || {
            Peer::try_connect(warren.address(), &Handshake::default()).is_ok()
        });
        let (peer, _) = publisher(warren.address(), "/");
        peer.close();
    }
    warren.stop();
}

#[test]
fn warren_starts_before_its_broker() {
    let rabbit = rabbit::exclusive();
    rabbit.stop_broker();
    let warren = Warren::start(&rabbit); // its ports are open when this returns
    assert!(warren.http_get("/metrics").is_ok_and(|(status, _)| status == 200));
    rabbit.start_broker();
    eventually("clients are let in", Duration::from_secs(60), || {
        Peer::try_connect(warren.address(), &Handshake::default()).is_ok()
    });
    let (peer, _) = publisher(warren.address(), "/");
    peer.close();
    warren.stop();
}

#[test]
fn a_client_that_comes_while_the_broker_is_away_gets_an_answer() {
    let rabbit = rabbit::exclusive();
    rabbit.stop_broker();
    let warren = Warren::start(&rabbit);
    let mut peer = Peer::raw(warren.address());
    let answer = std::thread::scope(|scope| {
        let client = scope.spawn(|| peer.shake_hands(&Handshake::default()).is_ok());
        std::thread::sleep(Duration::from_secs(2));
        rabbit.start_broker();
        client.join()
    });
    // Served when it could wait, refused when not; but never left without an answer.
    assert!(answer.is_ok());
    drop(peer); // it would have to answer connection.close, and nobody said for how long at most
    warren.stop();
}

#[test]
fn a_graceful_stop_tells_the_clients_and_ends_well() {
    let way = Way::new(Through::Warren, &["--workers", "2"]);
    let mut consumer = consumer(way.address(), &way.vhost);
    let (mut publisher, queue) = publisher(way.address(), &way.vhost);
    let mut idle = way.connect();
    publisher.publish(1, &queue, b"just before");
    publisher.expect_confirms(1, 2, 1);
    let Way { warren: Some(warren), .. } = &way else { unreachable!("the way leads through Warren") };
    let address = warren.address();
    warren.terminate();
    for peer in [&mut consumer, &mut publisher, &mut idle] {
        let closed = peer.expect_connection_close();
        assert_eq!(closed.code, 320, "{closed:?}");
    }
    let mut way = way;
    let mut warren = way.warren.take().expect("checked above");
    let status = warren.wait();
    assert!(status.success(), "Warren ended with {status}:\n{}", warren.log());
    assert!(Peer::try_raw(address).is_err(), "its port is closed");
    eventually("its connections are gone", Duration::from_secs(60), || {
        way.rabbit.connections(&way.vhost).is_empty()
    });
    assert_eq!(way.rabbit.queue(&way.vhost, &queue).map(|q| q.ready), Some(2));
}

#[test]
fn a_stop_without_clients_is_quick() {
    let way = Way::new(Through::Warren, &[]);
    way.connect_channel().close();
    let mut way = way;
    let started = Instant::now();
    way.warren.take().expect("the way leads through Warren").stop();
    assert!(started.elapsed() < Duration::from_secs(20), "it took {:?}", started.elapsed());
}

#[test]
fn publishers_hear_of_an_alarm_and_others_do_not() {
    let rabbit = rabbit::exclusive();
    let mut warren = None;
    for through in [Through::Nothing, Through::Warren] {
        if through == Through::Warren {
            warren = Some(Warren::start(&rabbit));
        }
        let address = warren.as_ref().map_or(rabbit.address(), Warren::address);
        let (mut publisher, queue) = publisher(address, "/");
        let mut reader = consumer(address, "/");
        rabbit.raise_memory_alarm();
        publisher.publish(1, &queue, b"held back");
        publisher.expect(0, connection::BLOCKED);
        // Acks and declares of those who do not publish go on.
        reader.declare(1, "");
        reader.expect_quiet(Duration::from_millis(300));
        rabbit.clear_memory_alarm();
        publisher.expect(0, connection::UNBLOCKED);
        publisher.expect_confirms(1, 2, 1);
        publisher.close();
        reader.close();
    }
}
