//! Acknowledging, rejecting, requeueing, recovering.

use crate::support::*;
use warren_wire::Method;
use warren_wire::method::basic;

/// A queue with messages `1` to `n`, fetched one by one and unacknowledged.
fn fetched(t: &mut Test, n: usize) -> Conn {
    let c = t.channel();
    t.declare(c, 1, "q");
    for i in 1..=n {
        t.publish(c, 1, "", "q", &i.to_string());
    }
    for i in 1..=n {
        t.call(c, 1, get("q", false), &format!("1 basic.get-ok {i} '' 'q' {} [1] {i}", n - i));
    }
    c
}

/// What is ready in the queue, fetched for good: numbers of deliveries are not looked at.
fn drain(t: &mut Test, c: Conn) -> Vec<String> {
    t.settle();
    let mut bodies = Vec::new();
    loop {
        let line = t.ask(c, 1, get("q", true)).remove(0);
        if line.ends_with("get-empty") {
            return bodies;
        }
        let again = if line.contains(" again ") { "again " } else { "" };
        bodies.push(format!("{again}{}", line.split(' ').next_back().unwrap()));
    }
}

#[test]
fn ack_one() {
    let mut t = Test::new();
    let c = fetched(&mut t, 3);
    t.send(c, 1, ack(2, false));
    t.call(c, 1, close_channel(), "1 channel.close-ok");
    t.open(c, 1);
    assert_eq!(drain(&mut t, c), ["again 1", "again 3"]);
}

#[test]
fn ack_multiple() {
    let mut t = Test::new();
    let c = fetched(&mut t, 4);
    t.send(c, 1, ack(2, false));
    t.send(c, 1, ack(3, true));
    t.call(c, 1, close_channel(), "1 channel.close-ok");
    t.open(c, 1);
    assert_eq!(drain(&mut t, c), ["again 4"]);
}

#[test]
fn ack_0_multiple_is_all() {
    let mut t = Test::new();
    let c = fetched(&mut t, 3);
    t.send(c, 1, ack(0, true));
    t.send(c, 1, ack(0, true));
    t.call(c, 1, close_channel(), "1 channel.close-ok");
    t.open(c, 1);
    assert!(drain(&mut t, c).is_empty());
}

fn unknown(methods: &[Method<'_>], tag: u64, id: &str) {
    let mut t = Test::new();
    let c = fetched(&mut t, 3);
    for method in methods {
        t.send(c, 1, *method);
    }
    let text = format!("PRECONDITION_FAILED - unknown delivery tag {tag}");
    t.expect(c, &[format!("1 channel.close 406 {text} {id}")]);
}

/// `multiple` for a tag that is not outstanding is refused, even when there are lower ones.
#[test]
fn unknown_delivery_tags() {
    unknown(&[ack(4, false)], 4, "60/80");
    unknown(&[ack(4, true)], 4, "60/80");
    unknown(&[ack(0, false)], 0, "60/80");
    unknown(&[ack(2, false), ack(2, false)], 2, "60/80");
    unknown(&[ack(2, false), ack(2, true)], 2, "60/80");
    unknown(&[nack(9, true, true)], 9, "60/120");
    unknown(&[reject(9, true)], 9, "60/90");
}

#[test]
fn rejected_for_good() {
    let mut t = Test::new();
    let c = fetched(&mut t, 3);
    t.send(c, 1, reject(1, false));
    t.send(c, 1, nack(3, true, false));
    assert!(drain(&mut t, c).is_empty());
}

/// Messages return to where they stood, not to the end.
#[test]
fn requeued_in_place() {
    let mut t = Test::new();
    let c = fetched(&mut t, 3);
    t.publish(c, 1, "", "q", "4");
    t.send(c, 1, nack(3, false, true));
    t.settle();
    t.send(c, 1, reject(1, true));
    assert_eq!(drain(&mut t, c), ["again 1", "again 3", "4"]);
}

#[test]
fn nack_multiple_requeues() {
    let mut t = Test::new();
    let c = fetched(&mut t, 3);
    t.send(c, 1, nack(2, true, true));
    assert_eq!(drain(&mut t, c), ["again 1", "again 2"]);
    t.send(c, 1, nack(0, true, true));
    assert_eq!(drain(&mut t, c), ["again 3"]);
}

#[test]
fn requeued_to_a_consumer_with_a_new_number() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "q");
    t.consume(c, 1, "q", "t");
    t.publish(c, 1, "", "q", "1");
    t.expect(c, &["1 basic.deliver t 1 '' 'q' [1] 1"]);
    t.send(c, 1, nack(1, false, true));
    t.expect(c, &["1 basic.deliver t 2 again '' 'q' [1] 1"]);
}

#[test]
fn recover() {
    let mut t = Test::new();
    let c = fetched(&mut t, 2);
    let recover = Method::BasicRecover(basic::Recover { requeue: true });
    t.call(c, 1, recover, "1 basic.recover-ok");
    assert_eq!(drain(&mut t, c), ["again 1", "again 2"]);
    // The old numbers are gone.
    let text = "PRECONDITION_FAILED - unknown delivery tag 1";
    t.call(c, 1, ack(1, false), &format!("1 channel.close 406 {text} 60/80"));
}

#[test]
fn recover_async_is_not_answered() {
    let mut t = Test::new();
    let c = fetched(&mut t, 1);
    t.send(c, 1, Method::BasicRecoverAsync(basic::RecoverAsync { requeue: true }));
    t.expect(c, &[] as &[&str]);
    assert_eq!(drain(&mut t, c), ["again 1"]);
}

#[test]
fn recover_without_requeue() {
    let text = "NOT_IMPLEMENTED - requeue=false";
    let mut t = Test::new();
    let c = t.channel();
    let m = Method::BasicRecover(basic::Recover { requeue: false });
    t.call(c, 1, m, &format!("0 connection.close 540 {text} 60/110"));
    let c = t.channel();
    let m = Method::BasicRecoverAsync(basic::RecoverAsync { requeue: false });
    t.call(c, 1, m, &format!("0 connection.close 540 {text} 60/100"));
}

/// Whatever ends the channel, what it held comes back before what was never given out.
#[test]
fn lost_connection_requeues() {
    let mut t = Test::new();
    let c = t.channel();
    let other = t.channel();
    t.declare(c, 1, "q");
    t.consume(c, 1, "q", "t");
    for body in ["1", "2", "3"] {
        t.publish(other, 1, "", "q", body);
    }
    t.settle();
    t.send(c, 1, ack(2, false));
    t.disconnect(c);
    t.publish(other, 1, "", "q", "4");
    assert_eq!(drain(&mut t, other), ["again 1", "again 3", "4"]);
}

#[test]
fn error_on_the_channel_requeues_at_once() {
    let mut t = Test::new();
    let c = t.channel();
    let other = t.channel();
    t.declare(c, 1, "q");
    t.consume(c, 1, "q", "t");
    t.publish(other, 1, "", "q", "1");
    t.settle();
    t.take(c);
    t.publish(c, 1, "missing", "", "x");
    assert!(t.take(c)[0].starts_with("1 channel.close 404"));
    // close-ok has not been sent yet.
    assert_eq!(drain(&mut t, other), ["again 1"]);
}
