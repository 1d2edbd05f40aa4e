//! Consuming: who gets what, and in which order things are told.

use crate::support::*;
use warren_wire::Method;
use warren_wire::method::{basic, queue};

fn delivery(tag: &str, number: u64, queue: &str, body: &str) -> String {
    format!("1 basic.deliver {tag} {number} '' '{queue}' [{}] {body}", body.len())
}

#[test]
fn in_order() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "order");
    t.consume(c, 1, "order", "t");
    for body in ["a", "b", "c"] {
        t.publish(c, 1, "", "order", body);
    }
    let expected =
        [delivery("t", 1, "order", "a"), delivery("t", 2, "order", "b"), delivery("t", 3, "order", "c")];
    t.expect(c, &expected);
}

/// `consume-ok` is before any delivery of the consumer.
#[test]
fn consume_ok_comes_first() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "filled");
    t.publish(c, 1, "", "filled", "a");
    t.send(c, 1, Method::BasicConsume(consume("filled", "t")));
    t.expect(c, &["1 basic.consume-ok t".to_owned(), delivery("t", 1, "filled", "a")]);
}

#[test]
fn no_wait() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "quiet");
    t.publish(c, 1, "", "quiet", "a");
    let m = basic::Consume { no_wait: true, ..consume("quiet", "t") };
    t.send(c, 1, Method::BasicConsume(m));
    t.expect(c, &[delivery("t", 1, "quiet", "a")]);
    t.send(c, 1, Method::BasicCancel(basic::Cancel { consumer_tag: b"t", no_wait: true }));
    t.publish(c, 1, "", "quiet", "b");
    t.expect(c, &[] as &[&str]);
}

#[test]
fn tags_made_by_the_server() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "untagged");
    let first = t.ask(c, 1, Method::BasicConsume(consume("untagged", "")));
    let second = t.ask(c, 1, Method::BasicConsume(consume("untagged", "")));
    assert!(first[0].starts_with("1 basic.consume-ok amq.ctag-"), "{first:?}");
    assert_ne!(first, second);
}

#[test]
fn tag_used_twice() {
    let mut t = Test::new();
    let c = t.channel();
    t.open(c, 2);
    t.declare(c, 1, "tagged");
    t.consume(c, 1, "tagged", "t");
    t.consume(c, 2, "tagged", "t");
    let text = "NOT_ALLOWED - attempt to reuse consumer tag 't'";
    let m = Method::BasicConsume(consume("tagged", "t"));
    t.call(c, 1, m, &format!("0 connection.close 530 {text} 60/20"));
}

#[test]
fn tag_is_free_after_cancel() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "again");
    for _ in 0..2 {
        t.consume(c, 1, "again", "t");
        t.call(c, 1, cancel("t"), "1 basic.cancel-ok t");
    }
}

#[test]
fn missing_queue() {
    let mut t = Test::new();
    let c = t.channel();
    let m = Method::BasicConsume(consume("missing", "t"));
    let text = "NOT_FOUND - no queue 'missing' in vhost '/'";
    t.call(c, 1, m, &format!("1 channel.close 404 {text} 60/20"));
}

#[test]
fn consumers_take_turns() {
    let mut t = Test::new();
    let a = t.channel();
    let b = t.channel();
    t.declare(a, 1, "shared");
    t.consume(a, 1, "shared", "a");
    t.consume(b, 1, "shared", "b");
    for body in ["1", "2", "3", "4"] {
        t.publish(a, 1, "", "shared", body);
    }
    t.expect(a, &[delivery("a", 1, "shared", "1"), delivery("a", 2, "shared", "3")]);
    t.expect(b, &[delivery("b", 1, "shared", "2"), delivery("b", 2, "shared", "4")]);
}

#[test]
fn higher_priority_first() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "ranked");
    t.call(c, 1, qos(1, false), "1 basic.qos-ok");
    t.consume(c, 1, "ranked", "low");
    let arguments = table(&[("x-priority", Field::Int(5))]);
    let m = basic::Consume { arguments: encoded(&arguments), ..consume("ranked", "high") };
    t.call(c, 1, Method::BasicConsume(m), "1 basic.consume-ok high");
    t.publish(c, 1, "", "ranked", "1");
    t.settle();
    t.publish(c, 1, "", "ranked", "2");
    t.publish(c, 1, "", "ranked", "3");
    t.expect(c, &[delivery("high", 1, "ranked", "1"), delivery("low", 2, "ranked", "2")]);
    t.send(c, 1, ack(1, false));
    t.expect(c, &[delivery("high", 3, "ranked", "3")]);
}

/// A prefetch holds for consumers that begin later, each for itself.
#[test]
fn prefetch_of_each_consumer() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "few");
    for body in ["1", "2", "3", "4"] {
        t.publish(c, 1, "", "few", body);
    }
    t.call(c, 1, qos(1, false), "1 basic.qos-ok");
    t.send(c, 1, Method::BasicConsume(consume("few", "a")));
    t.expect(c, &["1 basic.consume-ok a".to_owned(), delivery("a", 1, "few", "1")]);
    t.send(c, 1, Method::BasicConsume(consume("few", "b")));
    t.expect(c, &["1 basic.consume-ok b".to_owned(), delivery("b", 2, "few", "2")]);
    // Later changes do not reach them.
    t.call(c, 1, qos(10, false), "1 basic.qos-ok");
    t.send(c, 1, ack(1, false));
    t.expect(c, &[delivery("a", 3, "few", "3")]);
    t.send(c, 1, nack(2, false, false));
    t.expect(c, &[delivery("b", 4, "few", "4")]);
}

/// A limit of the channel holds for all its consumers, also those that were there.
#[test]
fn prefetch_of_the_channel() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "some");
    t.consume(c, 1, "some", "a");
    t.consume(c, 1, "some", "b");
    t.call(c, 1, qos(2, true), "1 basic.qos-ok");
    for body in ["1", "2", "3", "4", "5"] {
        t.publish(c, 1, "", "some", body);
    }
    assert_eq!(t.take(c).len(), 2);
    t.send(c, 1, ack(2, true));
    assert_eq!(t.take(c).len(), 2);
    t.call(c, 1, get("some", false), "1 basic.get-ok 5 '' 'some' 0 [1] 5");
    // A prefetch without global lifts the limit of the channel.
    t.call(c, 1, qos(1, false), "1 basic.qos-ok");
    t.publish(c, 1, "", "some", "6");
    t.publish(c, 1, "", "some", "7");
    assert_eq!(t.take(c).len(), 2);
}

#[test]
fn prefetch_size_is_not_implemented() {
    let mut t = Test::new();
    let c = t.channel();
    let m = basic::Qos { prefetch_size: 10, prefetch_count: 1, global: false };
    let text = "NOT_IMPLEMENTED - prefetch_size!=0 (10)";
    t.call(c, 1, Method::BasicQos(m), &format!("0 connection.close 540 {text} 60/10"));
}

#[test]
fn no_ack() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "gone");
    t.call(c, 1, qos(1, false), "1 basic.qos-ok");
    let m = basic::Consume { no_ack: true, ..consume("gone", "t") };
    t.call(c, 1, Method::BasicConsume(m), "1 basic.consume-ok t");
    for body in ["1", "2", "3"] {
        t.publish(c, 1, "", "gone", body);
    }
    // The prefetch means nothing, and the numbers run on.
    assert_eq!(t.take(c).len(), 3);
    let text = "PRECONDITION_FAILED - unknown delivery tag 1";
    t.call(c, 1, ack(1, false), &format!("1 channel.close 406 {text} 60/80"));
}

#[test]
fn exclusive_consumers() {
    let text = "ACCESS_REFUSED - queue 'single' in vhost '/' in exclusive use";
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "single");
    let exclusive = Method::BasicConsume(basic::Consume { exclusive: true, ..consume("single", "e") });
    t.call(c, 1, exclusive, "1 basic.consume-ok e");
    t.open(c, 2);
    let shared = Method::BasicConsume(consume("single", "s"));
    t.call(c, 2, shared, &format!("2 channel.close 403 {text} 60/20"));
    // When the first is gone it is free, but not for one who wants it alone while another is there.
    t.call(c, 1, cancel("e"), "1 basic.cancel-ok e");
    t.call(c, 1, shared, "1 basic.consume-ok s");
    t.open(c, 3);
    t.call(c, 3, exclusive, &format!("3 channel.close 403 {text} 60/20"));
}

#[test]
fn single_active_consumer() {
    let mut t = Test::new();
    let c = t.channel();
    let arguments = table(&[("x-single-active-consumer", Field::Bool(true))]);
    let m = queue::Declare { arguments: encoded(&arguments), ..declare("sac") };
    t.call(c, 1, Method::QueueDeclare(m), "1 queue.declare-ok sac 0 0");
    t.consume(c, 1, "sac", "a");
    t.consume(c, 1, "sac", "b");
    for body in ["1", "2"] {
        t.publish(c, 1, "", "sac", body);
    }
    t.expect(c, &[delivery("a", 1, "sac", "1"), delivery("a", 2, "sac", "2")]);
    t.call(c, 1, cancel("a"), "1 basic.cancel-ok a");
    t.publish(c, 1, "", "sac", "3");
    t.expect(c, &[delivery("b", 3, "sac", "3")]);
    let m = basic::Consume { exclusive: true, ..consume("sac", "e") };
    let text = "ACCESS_REFUSED - queue 'sac' in vhost '/' in exclusive use";
    t.call(c, 1, Method::BasicConsume(m), &format!("1 channel.close 403 {text} 60/20"));
}

#[test]
fn cancel_of_what_is_not_there() {
    let mut t = Test::new();
    let c = t.channel();
    t.call(c, 1, cancel("nobody"), "1 basic.cancel-ok nobody");
    t.declare(c, 1, "left");
    t.consume(c, 1, "left", "t");
    for _ in 0..2 {
        t.call(c, 1, cancel("t"), "1 basic.cancel-ok t");
    }
}

/// What was delivered stays to be acknowledged; nothing is requeued by a cancel.
#[test]
fn unacknowledged_survives_cancel() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "kept");
    t.consume(c, 1, "kept", "t");
    t.publish(c, 1, "", "kept", "1");
    t.take(c);
    t.call(c, 1, cancel("t"), "1 basic.cancel-ok t");
    assert_eq!(t.counts(c, 1, "kept"), (0, 0));
    t.send(c, 1, nack(1, false, true));
    t.settle();
    t.call(c, 1, get("kept", true), "1 basic.get-ok 2 again '' 'kept' 0 [1] 1");
}

#[test]
fn broker_cancels_consumers() {
    let mut t = Test::new();
    let a = t.channel();
    let b = t.channel();
    let deaf = t.connect();
    t.log_in(deaf, &Login { capabilities: &[], ..Login::default() });
    t.take(deaf);
    t.open(deaf, 1);
    t.declare(a, 1, "doomed");
    t.consume(a, 1, "doomed", "a");
    t.consume(deaf, 1, "doomed", "d");
    t.publish(a, 1, "", "doomed", "1");
    t.expect(a, &[delivery("a", 1, "doomed", "1")]);
    t.call(b, 1, Method::QueueDelete(delete("doomed")), "1 queue.delete-ok 0");
    t.expect(a, &["1 basic.cancel a"]);
    t.expect(deaf, &[] as &[&str]);
    // The tag is free, and what was delivered may be settled.
    t.send(a, 1, ack(1, false));
    t.declare(a, 1, "doomed");
    t.consume(a, 1, "doomed", "a");
    t.consume(deaf, 1, "doomed", "d");
}

#[test]
fn get_and_deliver_share_numbers() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "one");
    t.declare(c, 1, "two");
    t.publish(c, 1, "", "one", "a");
    t.call(c, 1, get("one", true), "1 basic.get-ok 1 '' 'one' 0 [1] a");
    t.consume(c, 1, "two", "t");
    t.publish(c, 1, "", "two", "b");
    t.expect(c, &[delivery("t", 2, "two", "b")]);
    t.publish(c, 1, "", "one", "c");
    t.call(c, 1, get("one", false), "1 basic.get-ok 3 '' 'one' 0 [1] c");
    t.call(c, 1, get("one", false), "1 basic.get-empty");
}

/// Bounded pumps serve channels in turn.
#[test]
fn pumps_are_bounded_and_fair() {
    let mut t = Test::model(warren_broker::Options::default());
    let c = t.channel();
    t.open(c, 2);
    for number in [1, 2] {
        let name = format!("q{number}");
        t.declare(c, number, &name);
        t.consume(c, number, &name, "t");
    }
    let id = t.id(c);
    let (broker, mut bytes) = (t.broker(), Vec::new());
    for number in [1, 2] {
        for _ in 0..5 {
            publish("", &format!("q{number}"), false).write(number, &mut bytes);
            warren_wire::content::write_header(number, 0, &Default::default(), &mut bytes);
        }
    }
    broker.receive(id, &bytes);
    assert_eq!(broker.step(id, 3), 3);
    assert_eq!(broker.step(id, usize::MAX), 17);
    assert_eq!(broker.step(id, usize::MAX), 0);
    assert!(broker.has_news(id));
    broker.pump(id, 0);
    assert!(broker.output(id).is_empty());
    let mut seen = Vec::new();
    while broker.has_news(id) {
        broker.pump(id, 1);
        let out = broker.output(id);
        seen.push(out[2]);
        out.clear();
    }
    assert_eq!(seen, [1, 2, 1, 2, 1, 2, 1, 2, 1, 2]);
}

/// A queue gives a consumer that is not pumped no more than a bounded number of messages.
#[test]
fn mailboxes_are_bounded() {
    let mut t = Test::model(warren_broker::Options::default());
    let c = t.channel();
    t.declare(c, 1, "many");
    t.consume(c, 1, "many", "t");
    let id = t.id(c);
    let mut bytes = Vec::new();
    for _ in 0..500 {
        publish("", "many", false).write(1, &mut bytes);
        warren_wire::content::write_header(1, 0, &Default::default(), &mut bytes);
    }
    let broker = t.broker();
    broker.receive(id, &bytes);
    broker.step(id, usize::MAX);
    let info = broker.queue("/", b"many").unwrap();
    assert_eq!((info.ready, info.unacked, info.consumers), (300, 200, 1));
    broker.pump(id, 1);
    assert_eq!(broker.queue("/", b"many").unwrap().ready, 299);
    assert_eq!(t.take(c).len(), 500);
}

#[test]
fn arguments_of_consumers() {
    let bad = |entry: (&str, Field<'_>), text: &str| {
        let mut t = Test::new();
        let c = t.channel();
        t.declare(c, 1, "q");
        let text = format!("invalid arg '{}' for queue 'q' in vhost '/'{text}", entry.0);
        let arguments = table(&[entry]);
        let m = basic::Consume { arguments: encoded(&arguments), ..consume("q", "t") };
        let expected = format!("1 channel.close 406 PRECONDITION_FAILED - {text} 60/20");
        t.call(c, 1, Method::BasicConsume(m), &expected);
    };
    bad(("x-priority", Field::Bool(true)), ": \"expected integer, got bool\"");
    bad(("x-cancel-on-ha-failover", Field::Int(1)), ": {unacceptable_type,signedint}");
    bad(("x-stream-offset", Field::Str("first")), " of queue type rabbit_classic_queue");
}
