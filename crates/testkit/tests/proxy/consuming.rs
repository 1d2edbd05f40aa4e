//! Consuming: order, prefetch, settling, cancelling, request and reply, many channels.

use std::time::Duration;
use warren_testkit::peer::{CONSUME, PUBLISH, capabilities};
use warren_testkit::{Handshake, Peer, both_ways, both_ways_with, eventually};
use warren_wire::method::{basic, channel};
use warren_wire::{BasicProperties, Method};

/// Long enough for a message that should not come.
const A_WHILE: Duration = Duration::from_millis(400);

fn publish_numbers(peer: &mut Peer, queue: &str, numbers: std::ops::Range<u32>) {
    for n in numbers {
        peer.publish(1, queue, n.to_string().as_bytes());
    }
}

#[test]
fn prefetch_is_respected_and_acks_open_the_window() {
    both_ways(|way| {
        let mut publisher = way.connect_channel();
        let queue = publisher.declare(1, "");
        publish_numbers(&mut publisher, &queue, 0..10);
        publisher.close();
        let mut peer = way.connect_channel();
        peer.qos(1, 3);
        peer.consume(1, &queue, "", false);
        let tags: Vec<u64> = (0..3).map(|_| peer.delivery(1).tag()).collect();
        assert_eq!(tags, [1, 2, 3]);
        peer.expect_no_delivery(1, A_WHILE);
        peer.ack(1, 1, false);
        assert_eq!((peer.delivery(1).tag(), peer.ready(1, &queue)), (4, 6));
        peer.expect_no_delivery(1, A_WHILE);
        peer.ack(1, 4, true); // 2, 3 and 4
        let next: Vec<String> = (0..3).map(|_| peer.delivery(1).text()).collect();
        assert_eq!(next, ["4", "5", "6"]);
        // Refused ones come again, first in the queue and marked.
        peer.send(1, &Method::BasicNack(basic::Nack { delivery_tag: 7, multiple: true, requeue: true }));
        for expected in ["4", "5", "6"] {
            let message = peer.delivery(1);
            assert_eq!((message.text().as_str(), message.redelivered()), (expected, true));
        }
        peer.send(1, &Method::BasicReject(basic::Reject { delivery_tag: 8, requeue: false }));
        assert_eq!(peer.delivery(1).text(), "7");
        peer.close();
    });
}

#[test]
fn unsettled_messages_come_again_to_somebody_else() {
    both_ways(|way| {
        let mut observer = way.observer();
        let queue = observer.declare(1, "");
        publish_numbers(&mut observer, &queue, 0..6);
        eventually("six are there", Duration::from_secs(60), || observer.ready(1, &queue) == 6);
        // The first closes its channel, the second its connection, the third vanishes.
        for ending in 0..3 {
            let mut peer = way.connect_channel();
            peer.consume(1, &queue, "", false);
            let tags: Vec<u64> = (0..6).map(|_| peer.delivery(1).tag()).collect();
            assert_eq!(tags, [1, 2, 3, 4, 5, 6]);
            match ending {
                0 => peer.close_channel(1),
                1 => peer.close(),
                _ => drop(peer),
            }
            eventually("all six are back", Duration::from_secs(60), || observer.ready(1, &queue) == 6);
        }
        let message = observer.get(1, &queue, true).expect("the first message");
        assert_eq!((message.text().as_str(), message.redelivered()), ("0", true));
        observer.close();
    });
}

#[test]
fn what_is_got_is_numbered_from_one_on_every_channel() {
    both_ways(|way| {
        let mut observer = way.observer();
        let queue = observer.declare(1, "");
        publish_numbers(&mut observer, &queue, 0..120);
        eventually("all are there", Duration::from_secs(60), || observer.ready(1, &queue) == 120);
        // Upstream, channels are used again and go on counting; no client may notice.
        for round in 0..20_u64 {
            let mut peer = way.connect_channel();
            for tag in 1..=5 {
                let message = peer.get(1, &queue, tag % 2 == 0).expect("a message");
                let n = round * 6 + tag - 1;
                assert_eq!((message.tag(), message.text()), (tag, n.to_string()), "round {round}");
                if tag % 2 == 1 {
                    peer.ack(1, tag, false);
                }
            }
            let last = peer.get(1, &queue, false).expect("a message");
            peer.ack(1, 0, true); // zero means all
            assert_eq!(last.tag(), 6);
            assert_eq!(peer.ready(1, &queue), u32::try_from(120 - (round + 1) * 6).expect("few"));
            peer.close_channel(1);
            peer.close();
        }
        assert_eq!(observer.get(1, &queue, true), None);
        assert_eq!(way.rabbit.queue(&way.vhost, &queue).map(|q| q.unacknowledged), Some(0));
        observer.close();
    });
}

#[test]
fn recover_brings_back_what_is_not_settled() {
    both_ways(|way| {
        let mut peer = way.connect_channel();
        let queue = peer.declare(1, "");
        publish_numbers(&mut peer, &queue, 0..2);
        peer.consume(1, &queue, "", false);
        assert_eq!((peer.delivery(1).tag(), peer.delivery(1).tag()), (1, 2));
        peer.ack(1, 1, false);
        peer.call(1, &Method::BasicRecover(basic::Recover { requeue: true }), basic::RECOVER_OK);
        let again = peer.delivery(1);
        assert_eq!((again.text().as_str(), again.redelivered(), again.tag()), ("1", true, 3));
        peer.close();
    });
}

#[test]
fn a_consumer_hears_of_its_deleted_queue_if_it_wants_to() {
    both_ways(|way| {
        let mut peer = way.connect_channel();
        let without = Handshake { properties: capabilities(&["basic.nack"]), ..way.handshake() };
        let mut deaf = Peer::connect_with(way.address(), &without);
        deaf.open_channel(1);
        let mut owner = way.connect_channel();
        let queue = owner.declare(1, "");
        peer.consume(1, &queue, "mine", false);
        deaf.consume(1, &queue, "mine", false);
        owner.delete_queue(1, &queue);
        let cancelled = peer.expect(1, basic::CANCEL);
        let Method::BasicCancel(cancel) = cancelled.method() else { unreachable!("it is a cancel") };
        assert_eq!(cancel.consumer_tag, b"mine");
        deaf.expect_quiet(A_WHILE);
        // Both channels live on.
        for mut peer in [peer, deaf] {
            let queue = peer.declare(1, "");
            peer.consume(1, &queue, "mine", true);
            peer.publish(1, &queue, b"alive");
            assert_eq!(peer.delivery(1).text(), "alive");
            peer.close();
        }
        owner.close();
    });
}

#[test]
fn a_cancelled_consumer_gets_nothing_more_and_may_still_settle() {
    both_ways(|way| {
        let mut peer = way.connect_channel();
        let queue = peer.declare(1, "");
        publish_numbers(&mut peer, &queue, 0..2);
        let tag = peer.consume(1, &queue, "", false);
        assert!(tag.starts_with("amq.ctag-"), "{tag}");
        assert_eq!((peer.delivery(1).text(), peer.delivery(1).text()), ("0".to_owned(), "1".to_owned()));
        peer.cancel(1, &tag);
        publish_numbers(&mut peer, &queue, 2..3);
        peer.expect_no_delivery(1, A_WHILE);
        peer.ack(1, 2, true);
        assert_eq!(peer.get(1, &queue, false).expect("the third").tag(), 3);
        peer.close();
        let mut observer = way.observer();
        eventually("the third is back", Duration::from_secs(60), || observer.ready(1, &queue) == 1);
        observer.close();
    });
}

#[test]
fn several_consumers_on_a_channel_keep_their_tags_and_their_order() {
    both_ways(|way| {
        let mut peer = way.connect_channel();
        let queues: Vec<String> = (0..3).map(|_| peer.declare(1, "")).collect();
        for (n, queue) in queues.iter().enumerate() {
            peer.consume(1, queue, &format!("consumer-{n}"), true);
        }
        for n in 0..60_u32 {
            peer.publish(1, &queues[n as usize % 3], n.to_string().as_bytes());
        }
        let mut seen = [Vec::new(), Vec::new(), Vec::new()];
        for tag in 1..=60 {
            let message = peer.delivery(1);
            let Method::BasicDeliver(deliver) = message.frame.method() else {
                unreachable!("it is a deliver")
            };
            assert_eq!(deliver.delivery_tag, tag);
            let consumer = deliver.consumer_tag.last().expect("a tag") - b'0';
            seen[usize::from(consumer)].push(message.text().parse::<u32>().expect("a number"));
        }
        for (n, seen) in (0..).zip(&seen) {
            assert_eq!(*seen, (0..20).map(|i| i * 3 + n).collect::<Vec<_>>());
        }
        peer.close();
    });
}

#[test]
fn requests_are_answered_through_direct_reply_to() {
    both_ways(|way| {
        let mut server = way.connect_channel();
        let service = server.declare(1, "");
        server.consume(1, &service, "", true);
        let mut clients: Vec<Peer> = (0..3).map(|_| way.connect_channel()).collect();
        for client in &mut clients {
            client.consume(1, "amq.rabbitmq.reply-to", "", true);
        }
        for round in 0..20 {
            for (n, client) in clients.iter_mut().enumerate() {
                let body = format!("request {round} of {n}");
                let reply_to = Some(&b"amq.rabbitmq.reply-to"[..]);
                let properties = BasicProperties { reply_to, ..BasicProperties::default() };
                let publish = basic::Publish { routing_key: service.as_bytes(), ..PUBLISH };
                client.publish_with(1, &publish, &properties, body.as_bytes());
            }
            for _ in 0..clients.len() {
                let request = server.delivery(1);
                let reply_to = request.properties().reply_to.expect("a reply address").to_vec();
                assert!(
                    reply_to.starts_with(b"amq.rabbitmq.reply-to."),
                    "{}",
                    String::from_utf8_lossy(&reply_to)
                );
                let publish = basic::Publish { routing_key: &reply_to, ..PUBLISH };
                let body = format!("answer to {}", request.text());
                server.publish_with(1, &publish, &BasicProperties::default(), body.as_bytes());
            }
            for (n, client) in clients.iter_mut().enumerate() {
                assert_eq!(client.delivery(1).text(), format!("answer to request {round} of {n}"));
            }
        }
        clients.into_iter().for_each(Peer::close);
        server.close();
    });
}

#[test]
fn twenty_channels_of_a_connection_keep_apart() {
    both_ways_with(&["--workers", "2"], |way| {
        let mut peer = way.connect();
        let channels: Vec<u16> = (1..=20).map(|n| n * 100).collect();
        let mut queues = Vec::new();
        for &number in &channels {
            peer.open_channel(number);
            queues.push(peer.declare(number, ""));
            peer.confirm_select(number);
            peer.qos(number, 7);
            peer.consume(number, queues.last().expect("one"), "same tag everywhere", false);
        }
        for n in 0..50 {
            for (&number, queue) in channels.iter().zip(&queues) {
                peer.publish(number, queue, format!("{number}:{n}").as_bytes());
            }
        }
        for &number in &channels {
            let (mut confirmed, mut next) = (0, 0_u64);
            while confirmed < 50 || next < 50 {
                let frame = peer.next(number);
                if let Method::BasicAck(ack) = frame.method() {
                    confirmed = confirmed.max(ack.delivery_tag);
                    continue;
                }
                let message = peer.content_of(frame);
                assert_eq!((message.tag(), message.text()), (next + 1, format!("{number}:{next}")));
                peer.ack(number, message.tag(), false);
                next += 1;
            }
        }
        for &number in &channels[..10] {
            peer.close_channel(number);
        }
        peer.open_channel(channels[0]); // a number may be used again
        peer.declare(channels[0], "");
        peer.close();
    });
}

#[test]
fn a_channel_number_can_be_used_again_and_again() {
    both_ways(|way| {
        let mut peer = way.connect();
        let mut observer = way.observer();
        let queue = observer.declare(1, "");
        for n in 1..=100_u32 {
            peer.open_channel(5);
            if n % 3 == 0 {
                peer.consume(5, "amq.rabbitmq.reply-to", "", true);
            }
            peer.publish(5, &queue, b"x");
            peer.send_channel_close(5);
            peer.expect(5, channel::CLOSE_OK);
        }
        assert_eq!(observer.ready(1, &queue), 100, "a publish is done when its channel is closed");
        peer.close();
        observer.close();
    });
}

#[test]
fn messages_for_one_client_never_reach_another() {
    both_ways(|way| {
        let mut peers: Vec<(Peer, String)> = Vec::new();
        for _ in 0..30 {
            let mut peer = way.connect_channel();
            let queue = peer.declare(1, "");
            peer.consume_with(
                1,
                &basic::Consume { queue: queue.as_bytes(), consumer_tag: b"c", no_ack: true, ..CONSUME },
            );
            peers.push((peer, queue));
        }
        let queues: Vec<String> = peers.iter().map(|(_, queue)| queue.clone()).collect();
        for n in 0..20 {
            // Everybody publishes to everybody's neighbour.
            for (i, (peer, _)) in peers.iter_mut().enumerate() {
                let to = (i + n + 1) % queues.len();
                peer.publish(1, &queues[to], format!("for {to}").as_bytes());
            }
        }
        for (i, (peer, _)) in peers.iter_mut().enumerate() {
            for tag in 1..=20 {
                let message = peer.delivery(1);
                assert_eq!((message.tag(), message.text()), (tag, format!("for {i}")));
            }
        }
        peers.into_iter().for_each(|(peer, _)| peer.close());
    });
}
