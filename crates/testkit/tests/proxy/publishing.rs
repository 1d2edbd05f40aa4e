//! Publishing: confirms, returns, transactions, errors, and clients that go away in the middle.

use amq_protocol_types::{AMQPValue, FieldTable};
use std::time::Duration;
use warren_testkit::peer::{DECLARE, PUBLISH};
use warren_testkit::{Peer, Way, both_ways, eventually, same_both_ways, through_warren};
use warren_wire::frame::{FRAME_BODY, FRAME_END};
use warren_wire::method::{basic, channel, tx};
use warren_wire::{BasicProperties, Method};

/// Sizes around the frame sizes that are negotiated here (4,096 and 131,072).
const SIZES: [usize; 11] = [0, 1, 4_087, 4_088, 4_089, 8_176, 131_063, 131_064, 131_065, 262_128, 1_000_000];

fn ready(way: &Way, queue: &str) -> u64 {
    way.rabbit.queue(&way.vhost, queue).map_or(0, |q| q.ready)
}

fn body(size: usize) -> Vec<u8> {
    (0..=250).cycle().take(size).collect()
}

#[test]
fn bodies_of_all_sizes_arrive_whole_in_frames_of_any_size() {
    both_ways(|way| {
        let small = warren_testkit::Handshake { frame_max: 4096, ..way.handshake() };
        for handshake in [way.handshake(), small] {
            let mut peer = Peer::connect_with(way.address(), &handshake);
            peer.open_channel(1);
            let queue = peer.declare(1, "");
            peer.confirm_select(1);
            for size in SIZES {
                peer.publish(1, &queue, &body(size));
            }
            peer.expect_confirms(1, 1, SIZES.len() as u64);
            peer.consume(1, &queue, "", true);
            for size in SIZES {
                assert!(peer.delivery(1).body == body(size), "the body of {size} octets is another");
            }
            peer.close();
        }
    });
}

#[test]
fn properties_arrive_as_they_were_sent() {
    both_ways(|way| {
        let mut peer = way.connect_channel();
        let queue = peer.declare(1, "");
        let mut inner = FieldTable::default();
        inner.insert("nothing".into(), AMQPValue::Void);
        inner.insert("when".into(), AMQPValue::Timestamp(7));
        let mut headers = FieldTable::default();
        headers.insert("yes".into(), AMQPValue::Boolean(true));
        headers.insert("text".into(), AMQPValue::LongString("hi".into()));
        headers.insert("number".into(), AMQPValue::LongLongInt(-1));
        headers.insert("half".into(), AMQPValue::Double(0.5));
        headers.insert("inner".into(), AMQPValue::FieldTable(inner));
        let headers = warren_wire::table::encode_table(&headers);
        let properties = BasicProperties {
            content_type: Some(b"text/plain"),
            content_encoding: Some(b"identity"),
            headers: Some(warren_wire::Table::from_encoded(&headers).expect("a table")),
            delivery_mode: Some(2),
            priority: Some(9),
            correlation_id: Some(b"correlation"),
            reply_to: Some(b"reply"),
            expiration: Some(b"60000"),
            message_id: Some(b"id"),
            timestamp: Some(1_700_000_000),
            kind: Some(b"kind"),
            user_id: Some(b"guest"),
            app_id: Some(b"app"),
            cluster_id: Some(b"cluster"),
        };
        let publish = basic::Publish { routing_key: queue.as_bytes(), ..PUBLISH };
        peer.publish_with(1, &publish, &properties, b"x");
        eventually("the message is there", Duration::from_secs(60), || ready(way, &queue) == 1);
        let message = peer.get(1, &queue, true).expect("one message");
        assert_eq!(message.properties(), properties);
        peer.close();
    });
}

#[test]
fn confirms_begin_at_one_on_every_channel_of_every_client() {
    both_ways(|way| {
        for round in 1..=20 {
            let mut peer = way.connect_channel();
            peer.declare_with(1, &warren_wire::method::queue::Declare { queue: b"confirmed", ..DECLARE });
            // Some publish before they select: those do not count (BROKER-FACTS: publish sequence).
            for _ in 0..round % 3 {
                peer.publish(1, "confirmed", b"not counted");
            }
            peer.confirm_select(1);
            for _ in 0..round {
                peer.publish(1, "confirmed", b"counted");
            }
            peer.expect_confirms(1, 1, round);
            peer.confirm_select(1); // a second one changes nothing
            peer.publish(1, "confirmed", b"counted");
            peer.expect_confirms(1, round + 1, 1);
            if round % 2 == 0 {
                peer.close_channel(1);
            }
            peer.close();
        }
        let sent: u64 = (1..=20).map(|round| round % 3 + round + 1).sum();
        eventually("all are there", Duration::from_secs(60), || ready(way, "confirmed") == sent);
    });
}

#[test]
fn a_return_comes_before_the_confirm_of_its_message() {
    both_ways(|way| {
        let mut peer = way.connect_channel();
        let queue = peer.declare(1, "");
        peer.confirm_select(1);
        for n in 0..30_u64 {
            let key = if n % 3 == 0 { "nowhere" } else { &queue };
            let publish = basic::Publish { routing_key: key.as_bytes(), mandatory: true, ..PUBLISH };
            peer.publish_with(1, &publish, &BasicProperties::default(), format!("{n}").as_bytes());
        }
        let mut returned = Vec::new();
        let mut confirmed = 0;
        while confirmed < 30 {
            let frame = peer.next(1);
            if frame.is(basic::RETURN) {
                let message = peer.content_of(frame);
                let Method::BasicReturn(r) = message.frame.method() else { unreachable!("it is a return") };
                assert_eq!(
                    (r.reply_code, r.reply_text, r.routing_key),
                    (312, &b"NO_ROUTE"[..], &b"nowhere"[..])
                );
                returned.push(message.text().parse::<u64>().expect("a number"));
                continue;
            }
            let Method::BasicAck(ack) = frame.method() else { panic!("expected a confirm, got {frame:?}") };
            confirmed = confirmed.max(ack.delivery_tag);
            let due = if ack.multiple { 1..=ack.delivery_tag } else { ack.delivery_tag..=ack.delivery_tag };
            for n in due.map(|tag| tag - 1).filter(|n| n % 3 == 0) {
                assert!(returned.contains(&n), "message {n} was confirmed before it was returned");
            }
        }
        assert_eq!(returned, (0..30).filter(|n| n % 3 == 0).collect::<Vec<_>>());
        peer.close();
    });
}

#[test]
fn a_transaction_publishes_and_settles_at_commit_only() {
    both_ways(|way| {
        let mut peer = way.connect_channel();
        let queue = peer.declare(1, "");
        let mut observer = way.observer();
        peer.call(1, &Method::TxSelect, tx::SELECT_OK);
        peer.publish(1, &queue, b"rolled back");
        peer.call(1, &Method::TxRollback, tx::ROLLBACK_OK);
        peer.publish(1, &queue, b"first");
        peer.publish(1, &queue, b"second");
        assert_eq!(observer.ready(1, &queue), 0, "nothing is published before the commit");
        peer.call(1, &Method::TxCommit, tx::COMMIT_OK);
        assert_eq!(observer.ready(1, &queue), 2);

        let first = peer.get(1, &queue, false).expect("the first message");
        assert_eq!(first.text(), "first");
        peer.ack(1, first.tag(), false);
        peer.call(1, &Method::TxRollback, tx::ROLLBACK_OK);
        peer.ack(1, first.tag(), false);
        peer.call(1, &Method::TxCommit, tx::COMMIT_OK);
        peer.close_channel(1);
        assert_eq!(observer.ready(1, &queue), 1, "the first was settled, the second never taken");
        peer.open_channel(1);
        peer.publish(1, &queue, b"third"); // a new channel of that number is in no transaction
        eventually("the third is there", Duration::from_secs(60), || observer.ready(1, &queue) == 2);
        peer.close();
        observer.close();
    });
}

#[test]
fn an_open_transaction_ends_with_its_client() {
    both_ways(|way| {
        let mut observer = way.observer();
        let queue = observer.declare(1, "");
        let mut peer = way.connect_channel();
        peer.call(1, &Method::TxSelect, tx::SELECT_OK);
        peer.publish(1, &queue, b"never committed");
        peer.close();
        let mut peer = way.connect_channel();
        peer.call(1, &Method::TxSelect, tx::SELECT_OK);
        peer.publish(1, &queue, b"never committed either");
        drop(peer);
        std::thread::sleep(Duration::from_millis(500));
        assert_eq!(observer.ready(1, &queue), 0);
        observer.close();
    });
}

#[test]
fn a_publish_to_a_missing_exchange_is_its_own_clients_error_only() {
    both_ways(|way| {
        let mut observer = way.observer();
        let queue = observer.declare(1, "");
        let mut neighbour = way.connect_channel();
        neighbour.confirm_select(1);
        let mut plain = way.connect_channel();
        let rounds = 60;
        for round in 0..rounds {
            let mut guilty = way.connect_channel();
            if round % 4 == 3 {
                guilty.confirm_select(1);
            }
            publish_to_nowhere_and_close(&mut guilty, round);
            neighbour.publish(1, &queue, b"confirmed");
            neighbour.expect_confirms(1, round + 1, 1);
            plain.publish(1, &queue, b"plain");
            // Whoever comes next may get the upstream channel that the guilty one left.
            let mut next = way.connect_channel();
            next.publish(1, &queue, b"next");
            next.close_channel(1);
            next.close();
            // The guilty one may go on, on the same number.
            guilty.open_channel(1);
            guilty.publish(1, &queue, b"better");
            guilty.close();
        }
        plain.close();
        neighbour.close();
        eventually("all others are published", Duration::from_secs(60), || ready(way, &queue) == 4 * rounds);
        observer.close();
    });
}

/// Publish and channel.close in one write: 404 and then close-ok must come.
fn publish_to_nowhere_and_close(guilty: &mut Peer, round: u64) {
    let publish = basic::Publish { exchange: b"no-such-exchange", routing_key: b"x", ..PUBLISH };
    let mut bytes = guilty.encode_publish(1, &publish, &BasicProperties::default(), b"lost");
    let close = channel::Close { reply_code: 200, reply_text: b"", class_id: 0, method_id: 0 };
    Method::ChannelClose(close).write(1, &mut bytes);
    guilty.send_bytes(&bytes);
    let closed = guilty.expect_channel_close(1);
    assert_eq!((closed.code, closed.class, closed.method), (404, 60, 40), "round {round}: {closed:?}");
    assert!(closed.text.starts_with("NOT_FOUND - no exchange 'no-such-exchange' in vhost '"), "{closed:?}");
    guilty.expect(1, channel::CLOSE_OK);
}

#[test]
fn a_connection_closed_right_after_a_bad_publish_hurts_nobody() {
    both_ways(|way| {
        let mut observer = way.observer();
        let queue = observer.declare(1, "");
        for _ in 0..30 {
            let mut guilty = way.connect_channel();
            let publish = basic::Publish { exchange: b"no-such-exchange", ..PUBLISH };
            guilty.publish_with(1, &publish, &BasicProperties::default(), b"lost");
            guilty.close();
            let mut guilty = way.connect_channel();
            guilty.publish_with(1, &publish, &BasicProperties::default(), b"lost");
            drop(guilty);
            let mut next = way.connect_channel();
            next.publish(1, &queue, b"next");
            next.close_channel(1);
            next.close();
        }
        assert_eq!(observer.ready(1, &queue), 30);
        observer.close();
    });
}

#[test]
fn errors_of_a_channel_are_the_brokers() {
    same_both_ways(|way| {
        let mut peer = way.connect();
        let mut seen = Vec::new();
        let mut error = |name: &str, act: &dyn Fn(&mut Peer)| {
            peer.open_channel(1);
            act(&mut peer);
            let closed = peer.expect_channel_close(1);
            seen.push(format!("{name}: {closed:?}"));
        };
        error("an exchange that is not there", &|p| {
            let publish = basic::Publish { exchange: b"nowhere", ..PUBLISH };
            p.publish_with(1, &publish, &BasicProperties::default(), b"");
        });
        error("transaction after confirms", &|p| {
            p.confirm_select(1);
            p.send(1, &Method::TxSelect);
        });
        error("an ack for nothing", &|p| p.ack(1, 7, false));
        error("another user", &|p| {
            let properties = BasicProperties { user_id: Some(b"somebody"), ..BasicProperties::default() };
            p.publish_with(1, &PUBLISH, &properties, b"");
        });
        error("a reserved name", &|p| {
            p.send(
                1,
                &Method::QueueDeclare(warren_wire::method::queue::Declare { queue: b"amq.mine", ..DECLARE }),
            );
        });
        error("a queue that is not there", &|p| {
            p.send(1, &Method::BasicGet(basic::Get { queue: b"nowhere", no_ack: true }));
        });
        peer.close();
        seen
    });
}

#[test]
fn a_client_killed_in_a_publish_of_50_mb_disturbs_nobody_and_publishes_nothing() {
    both_ways(|way| {
        let mut neighbour = way.connect_channel();
        let queue = neighbour.declare(1, "");
        let quiet = neighbour.declare(1, "");
        neighbour.confirm_select(1);
        neighbour.publish(1, &queue, b"before");
        neighbour.expect_confirms(1, 1, 1);

        let mut victim = way.connect_channel();
        victim.publish(1, &quiet, b"whole");
        send_half_of_50_mb(&mut victim, &quiet);
        let mut process = victim.into_process();
        neighbour.publish(1, &queue, b"during");
        neighbour.expect_confirms(1, 2, 1);
        process.kill().expect("our own process");
        process.wait().expect("our own process");

        for n in 3..103 {
            neighbour.publish(1, &queue, b"after");
            neighbour.expect_confirms(1, n, 1);
        }
        eventually("what was whole is there", Duration::from_secs(60), || ready(way, &quiet) == 1);
        assert_eq!(neighbour.get(1, &quiet, true).expect("one message").text(), "whole");
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(neighbour.ready(1, &quiet), 0, "half a message was published");
        assert_eq!(neighbour.ready(1, &queue), 102);
        neighbour.close();
    });
}

fn send_half_of_50_mb(victim: &mut Peer, queue: &str) {
    let publish = basic::Publish { routing_key: queue.as_bytes(), ..PUBLISH };
    let size = 50_000_000;
    let mut bytes = Vec::new();
    Method::BasicPublish(publish).write(1, &mut bytes);
    warren_wire::content::write_header(1, size, &BasicProperties::default(), &mut bytes);
    victim.send_bytes(&bytes);
    let part = vec![7; 100_000];
    let mut frame = Vec::new();
    warren_wire::content::write_body(1, &part, &mut frame);
    assert_eq!((frame[0], frame.last()), (FRAME_BODY, Some(&FRAME_END)));
    for _ in 0..250 {
        victim.send_bytes(&frame);
    }
    victim.send_bytes(&frame[..50_000]); // and a frame that does not end
}

/// Through Warren only: RabbitMQ itself drops what it has read but not processed when the socket of a client closes
/// without a connection.close.
#[test]
fn a_client_that_publishes_and_vanishes_has_published() {
    through_warren(|way| {
        let mut observer = way.observer();
        let queue = observer.declare(1, "");
        for round in 1..=10 {
            let mut peer = way.connect_channel();
            if round % 2 == 0 {
                peer.confirm_select(1); // the confirms will never be read
            }
            let publish = basic::Publish { routing_key: queue.as_bytes(), ..PUBLISH };
            let one = peer.encode_publish(1, &publish, &BasicProperties::default(), &[b'x'; 200]);
            let mut bytes = one.repeat(100);
            bytes.extend_from_slice(&one[..one.len() - 1]); // one that lacks its last octet is not published
            peer.send_bytes(&bytes);
            drop(peer);
            eventually("a hundred more are there", Duration::from_secs(60), || {
                ready(way, &queue) == 100 * round
            });
        }
        std::thread::sleep(Duration::from_millis(300));
        assert_eq!(observer.ready(1, &queue), 1000);
        observer.close();
    });
}

#[test]
fn a_client_that_says_that_it_will_write_no_more_has_published() {
    through_warren(|way| {
        let mut observer = way.observer();
        let queue = observer.declare(1, "");
        let mut peer = way.connect_channel();
        for _ in 0..100 {
            peer.publish(1, &queue, &[b'x'; 20_000]);
        }
        peer.finish_writing();
        peer.expect_end(Duration::from_secs(60));
        eventually("all are there", Duration::from_secs(60), || observer.ready(1, &queue) == 100);
        observer.close();
    });
}
