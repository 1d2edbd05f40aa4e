//! What comes before what, when a client does not wait for answers.
//!
//! Inside RabbitMQ a queue is a process of its own, and what it tells a channel comes after whatever the channel already had
//! to do. So answers do not always come in the order of what they answer.

use crate::support::*;
use warren_wire::Method;

#[test]
fn consume_ok_behind_a_later_answer() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "q");
    t.send(c, 1, Method::BasicConsume(consume("q", "t")));
    t.send(c, 1, flow(true));
    t.expect(c, &["1 channel.flow-ok true", "1 basic.consume-ok t"]);
}

/// Deliveries that the queue has given out come before cancel-ok, and both behind a later answer.
#[test]
fn cancel_ok_behind_deliveries_and_a_later_answer() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "q");
    t.consume(c, 1, "q", "t");
    t.publish(c, 1, "", "q", "x");
    t.send(c, 1, cancel("t"));
    t.send(c, 1, flow(true));
    t.expect(c, &["1 channel.flow-ok true", "1 basic.deliver t 1 '' 'q' [1] x", "1 basic.cancel-ok t"]);
}

#[test]
fn confirm_behind_a_later_answer() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "q");
    t.call(c, 1, confirm_select(), "1 confirm.select-ok");
    t.publish(c, 1, "", "q", "x");
    t.send(c, 1, flow(true));
    t.expect(c, &["1 channel.flow-ok true", "1 basic.ack 1"]);
}

/// What went to no queue is confirmed at once, in front of what waits for its queue.
#[test]
fn confirms_out_of_order() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "q");
    t.call(c, 1, confirm_select(), "1 confirm.select-ok");
    t.publish(c, 1, "", "q", "x");
    t.publish(c, 1, "", "nowhere", "x");
    t.send(c, 1, flow(true));
    let lines = t.take(c);
    assert_eq!(lines[0], "1 basic.ack 2");
    assert!(lines.contains(&"1 channel.flow-ok true".to_owned()), "{lines:?}");
}

#[test]
fn broker_cancel_behind_a_later_answer() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "q");
    t.consume(c, 1, "q", "t");
    t.send(c, 1, Method::QueueDelete(delete("q")));
    t.send(c, 1, flow(true));
    t.expect(c, &["1 queue.delete-ok 0", "1 channel.flow-ok true", "1 basic.cancel t"]);
}

/// A consumer whose queue is there again by the time its end is noticed stays, and nobody is told.
#[test]
fn consumer_outlives_a_queue_that_is_declared_again() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "q");
    t.consume(c, 1, "q", "t");
    t.send(c, 1, Method::QueueDelete(delete("q")));
    t.send(c, 1, Method::QueueDeclare(declare("q")));
    t.expect(c, &["1 queue.delete-ok 0", "1 queue.declare-ok q 0 0"]);
    t.publish(c, 1, "", "q", "x");
    t.expect(c, &["1 basic.deliver t 1 '' 'q' [1] x"]);
}

/// Frames of a channel are carried out in order, whatever other channels do.
#[test]
fn publishes_of_a_channel_stay_in_order() {
    let mut t = Test::new();
    let c = t.channel();
    t.open(c, 2);
    t.declare(c, 1, "q");
    for i in 0..10 {
        t.publish(c, 1, "", "q", &format!("a{i}"));
        t.publish(c, 2, "", "q", &format!("b{i}"));
    }
    t.settle();
    let mut bodies = Vec::new();
    for _ in 0..20 {
        let lines = t.ask(c, 1, get("q", true));
        bodies.push(lines[0].split(' ').next_back().unwrap().to_owned());
    }
    for sender in ["a", "b"] {
        let sent: Vec<String> = (0..10).map(|i| format!("{sender}{i}")).collect();
        let got: Vec<String> = bodies.iter().filter(|b| b.starts_with(sender)).cloned().collect();
        assert_eq!(got, sent);
    }
}
