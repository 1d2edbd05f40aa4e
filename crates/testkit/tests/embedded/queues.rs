//! Queues that live as long as something else, prefetch, and refusals: what a client made of frames can see best.

use crate::{both_ways, start};
use std::time::Duration;
use warren_testkit::peer::{CONSUME, DECLARE};
use warren_testkit::{Handshake, Peer, eventually};
use warren_wire::Method;
use warren_wire::method::{basic, queue};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn exclusive_queues_are_locked_and_end_with_their_connection() {
    both_ways(|address| {
        let mut owner = Peer::connect(address);
        owner.open_channel(1);
        owner.declare_with(1, &queue::Declare { queue: b"mine", exclusive: true, ..DECLARE });
        let mut other = Peer::connect(address);
        other.open_channel(1);
        other.send(1, &Method::QueueDeclare(queue::Declare { queue: b"mine", passive: true, ..DECLARE }));
        assert_eq!(other.expect_channel_close(1).code, 405);
        owner.close();
        other.open_channel(2);
        other.send(2, &Method::QueueDeclare(queue::Declare { queue: b"mine", passive: true, ..DECLARE }));
        assert_eq!(other.expect_channel_close(2).code, 404);
        other.close();
    });
}

#[test]
fn auto_delete_queues_end_with_their_last_consumer() {
    both_ways(|address| {
        let mut peer = Peer::connect(address);
        peer.open_channel(1);
        peer.declare_with(1, &queue::Declare { queue: b"brief", auto_delete: true, ..DECLARE });
        let tag = peer.consume(1, "brief", "", true);
        assert_eq!(peer.ready(1, "brief"), 0);
        peer.cancel(1, &tag);
        peer.send(1, &Method::QueueDeclare(queue::Declare { queue: b"brief", passive: true, ..DECLARE }));
        assert_eq!(peer.expect_channel_close(1).code, 404);
        peer.close();
    });
}

#[test]
fn no_more_is_delivered_than_the_prefetch_allows() {
    both_ways(|address| {
        let mut publisher = Peer::connect(address);
        publisher.open_channel(1);
        publisher.declare(1, "work");
        publisher.confirm_select(1);
        (0..5).for_each(|n: u32| publisher.publish(1, "work", n.to_string().as_bytes()));
        publisher.expect_confirms(1, 1, 5);
        let mut consumer = Peer::connect(address);
        consumer.open_channel(1);
        consumer.qos(1, 2);
        consumer.consume(1, "work", "", false);
        let (first, second) = (consumer.delivery(1), consumer.delivery(1));
        assert_eq!((first.text().as_str(), second.text().as_str()), ("0", "1"));
        consumer.expect_no_delivery(1, Duration::from_millis(200));
        consumer.ack(1, second.tag(), true);
        assert_eq!((consumer.delivery(1).text(), consumer.delivery(1).text()), ("2".into(), "3".into()));
        // What a connection held goes back when it dies, and comes first.
        consumer.reset();
        eventually("three messages are back", SOON, || publisher.ready(1, "work") == 3);
        let again = publisher.get(1, "work", true).expect("a message");
        assert_eq!((again.text().as_str(), again.redelivered()), ("2", true));
        publisher.close();
    });
}

#[test]
fn a_consumer_hears_that_its_queue_is_gone() {
    both_ways(|address| {
        let mut consumer = Peer::connect(address);
        consumer.open_channel(1);
        consumer.declare(1, "gone");
        let (queue, consumer_tag) = (&b"gone"[..], &b"me"[..]);
        consumer.consume_with(1, &basic::Consume { queue, consumer_tag, ..CONSUME });
        let mut other = Peer::connect(address);
        other.open_channel(1);
        other.delete_queue(1, "gone");
        consumer.expect(1, basic::CANCEL);
        consumer.close();
    });
}

#[test]
fn wrong_credentials_and_wrong_vhosts_are_refused() {
    both_ways(|address| {
        let wrong = Handshake::default().by("guest", "wrong");
        let refused = Peer::try_connect(address, &wrong).expect_err("a wrong password");
        assert_eq!(refused.closed().code, 403);
        let refused = Peer::try_connect(address, &Handshake::on("nowhere")).expect_err("a wrong vhost");
        assert_eq!(refused.closed().code, 530);
    });
}

#[test]
fn it_says_what_it_is() {
    let broker = start();
    let peer = Peer::connect(broker.address());
    let said = peer.server_properties().get(b"information");
    let Some(warren_wire::Value::Str(said)) = said else { panic!("{said:?}") };
    assert!(String::from_utf8_lossy(said).contains("for demonstration"), "{said:?}");
    peer.close();
}
