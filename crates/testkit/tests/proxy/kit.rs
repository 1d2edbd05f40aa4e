//! The kit itself: nodes, their counters, their faults.

use std::time::{Duration, Instant};
use warren_testkit::peer::End;
use warren_testkit::{Handshake, Peer, both_ways, eventually, rabbit, unique};

#[test]
fn a_node_counts_and_describes_what_it_sees() {
    let rabbit = rabbit::exclusive();
    let vhost = unique("kit");
    rabbit.add_vhost(&vhost);
    let before = rabbit.counters();
    let mut peer = Peer::connect_with(rabbit.address(), &Handshake::on(&vhost));
    peer.open_channel(1);
    peer.open_channel(2);
    let queue = peer.declare(1, "");
    peer.confirm_select(1);
    for _ in 0..3 {
        peer.publish(1, &queue, b"hello");
    }
    peer.expect_confirms(1, 1, 3);
    eventually("the node has counted two channels", Duration::from_secs(60), || {
        rabbit.counters().channels_opened == before.channels_opened + 2
    });
    let after = rabbit.counters();
    assert_eq!(after.connections_opened, before.connections_opened + 1);
    assert_eq!(after.queues_created, before.queues_created + 1);
    eventually("the node knows who publishes", Duration::from_secs(60), || {
        rabbit.publishing_connections(&vhost) == 1
    });
    assert_eq!(rabbit.publishing_connections("/"), 0);
    let connections = rabbit.connections(&vhost);
    assert_eq!(connections.len(), 1, "{connections:?}");
    assert_eq!((connections[0].user.as_str(), connections[0].channels), ("guest", 2));
    eventually("the queue holds three messages", Duration::from_secs(60), || {
        rabbit.queue(&vhost, &queue).is_some_and(|q| q.ready == 3 && q.consumers == 0)
    });
    peer.close();
    eventually("the connection is gone", Duration::from_secs(60), || rabbit.connections(&vhost).is_empty());
    rabbit.delete_vhost(&vhost);
}

#[test]
fn a_node_closes_cuts_stops_and_starts_again() {
    let rabbit = rabbit::exclusive();
    let vhost = unique("kit");
    rabbit.add_vhost(&vhost);
    let handshake = Handshake::on(&vhost);

    let mut closed = Peer::connect_with(rabbit.address(), &handshake);
    rabbit.close_connections(&vhost, "for the test");
    let close = closed.expect_connection_close();
    assert_eq!((close.code, close.text.as_str()), (320, "CONNECTION_FORCED - for the test"));

    let mut cut = Peer::connect_with(rabbit.address(), &handshake);
    rabbit.cut_connections(&vhost);
    assert!(matches!(cut.expect_end(Duration::from_secs(60)), End::Eof | End::Reset));

    let mut stopped = Peer::connect_with(rabbit.address(), &handshake);
    rabbit.stop_broker();
    assert_eq!(stopped.expect_connection_close().code, 320);
    assert!(Peer::try_raw(rabbit.address()).is_err(), "a stopped broker takes no connections");
    rabbit.start_broker();
    Peer::connect_with(rabbit.address(), &handshake).close();

    let mut killed = Peer::connect_with(rabbit.address(), &handshake);
    rabbit.kill();
    assert!(matches!(killed.expect_end(Duration::from_secs(60)), End::Eof | End::Reset));
    rabbit.restart();
    Peer::connect_with(rabbit.address(), &handshake).close();
}

#[test]
fn a_virtual_host_of_its_own_costs_a_test_little() {
    let started = Instant::now();
    both_ways(|way| way.connect().close());
    println!("both ways, start of the shared node included: {:?}", started.elapsed());
    let started = Instant::now();
    both_ways(|way| way.connect().close());
    println!("both ways: {:?}", started.elapsed());
}
