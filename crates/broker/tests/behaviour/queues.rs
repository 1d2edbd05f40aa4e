//! Declaring, deleting and purging queues.

use crate::support::*;
use warren_wire::Method;
use warren_wire::method::queue;
use warren_wire::table::Table;

#[test]
fn declare_twice() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "twice");
    t.publish(c, 1, "", "twice", "x");
    t.settle();
    t.call(c, 1, Method::QueueDeclare(declare("twice")), "1 queue.declare-ok twice 1 0");
    t.send(c, 1, Method::BasicConsume(consume("twice", "t")));
    t.take(c);
    t.call(c, 1, Method::QueueDeclare(declare("twice")), "1 queue.declare-ok twice 0 1");
}

fn refused(declared: queue::Declare<'_>, again: queue::Declare<'_>, text: &str) {
    let mut t = Test::new();
    let c = t.channel();
    t.send(c, 1, Method::QueueDeclare(declared));
    t.take(c);
    t.call(c, 1, Method::QueueDeclare(again), &format!("1 channel.close {text} 50/10"));
}

#[test]
fn declare_otherwise() {
    let text = "406 PRECONDITION_FAILED - inequivalent arg";
    refused(
        declare("other"),
        queue::Declare { durable: true, ..declare("other") },
        &format!("{text} 'durable' for queue 'other' in vhost '/': received 'true' but current is 'false'"),
    );
    refused(
        queue::Declare { auto_delete: true, ..declare("other") },
        declare("other"),
        &format!(
            "{text} 'auto_delete' for queue 'other' in vhost '/': received 'false' but current is 'true'"
        ),
    );
    let text = "405 RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'other' in vhost '/'. It could \
                be originally declared on another connection or the exclusive property value does not match that of \
                the original declaration.";
    refused(declare("other"), queue::Declare { exclusive: true, ..declare("other") }, text);
    refused(queue::Declare { exclusive: true, ..declare("other") }, declare("other"), text);
}

fn refused_arguments(first: &[(&str, Field<'_>)], second: &[(&str, Field<'_>)], text: &str) {
    let (first, second) = (table(first), table(second));
    refused(
        queue::Declare { arguments: encoded(&first), ..declare("args") },
        queue::Declare { arguments: encoded(&second), ..declare("args") },
        &format!("406 PRECONDITION_FAILED - {text}"),
    );
}

#[test]
fn declare_with_other_arguments() {
    let what = "inequivalent arg 'x-max-length' for queue 'args' in vhost '/': received";
    refused_arguments(
        &[("x-max-length", Field::Int(5))],
        &[("x-max-length", Field::Int(6))],
        &format!("{what} '6' but current is '5'"),
    );
    refused_arguments(
        &[],
        &[("x-max-length", Field::Int(6))],
        &format!("{what} the value '6' of type 'signedint' but current is none"),
    );
    refused_arguments(
        &[("x-max-length", Field::Int(5))],
        &[],
        &format!("{what} none but current is the value '5' of type 'signedint'"),
    );
    let what = "inequivalent arg 'x-overflow' for queue 'args' in vhost '/': received";
    refused_arguments(
        &[("x-overflow", Field::Str("drop-head"))],
        &[("x-overflow", Field::Str("reject-publish"))],
        &format!("{what} 'reject-publish' but current is 'drop-head'"),
    );
}

#[test]
fn arguments_that_do_not_count() {
    let mut t = Test::new();
    let c = t.channel();
    let first = table(&[("x-queue-type", Field::Str("classic")), ("x-mine", Field::Int(1))]);
    let m = queue::Declare { arguments: encoded(&first), ..declare("args") };
    t.call(c, 1, Method::QueueDeclare(m), "1 queue.declare-ok args 0 0");
    t.declare(c, 1, "args");
}

fn invalid_argument(entry: (&str, Field<'_>), text: &str) {
    let mut t = Test::new();
    let c = t.channel();
    let text = format!("invalid arg '{}' for queue 'bad' in vhost '/': {text}", entry.0);
    let arguments = table(&[entry]);
    let m = queue::Declare { arguments: encoded(&arguments), ..declare("bad") };
    let expected = format!("1 channel.close 406 PRECONDITION_FAILED - {text} 50/10");
    t.call(c, 1, Method::QueueDeclare(m), &expected);
}

#[test]
fn invalid_arguments() {
    invalid_argument(("x-max-length", Field::Str("5")), "\"expected integer, got longstr\"");
    invalid_argument(("x-max-length", Field::Int(-1)), "{value_negative,-1}");
    invalid_argument(("x-expires", Field::Int(0)), "{value_zero,0}");
    invalid_argument(("x-message-ttl", Field::Int(-5)), "{value_negative,-5}");
    invalid_argument(("x-max-priority", Field::Int(256)), "{max_value_exceeded,256}");
    invalid_argument(("x-overflow", Field::Str("burst")), "invalid_overflow");
    invalid_argument(("x-queue-type", Field::Str("fast")), "\"unsupported queue type 'fast'\"");
    invalid_argument(("x-queue-mode", Field::Str("fast")), "\"unsupported queue mode 'fast'\"");
    invalid_argument(("x-single-active-consumer", Field::Int(1)), "{unacceptable_type,signedint}");
    invalid_argument(("x-dead-letter-routing-key", Field::Str("k")), "routing_key_but_no_dlx_defined");
}

#[test]
fn reserved_names() {
    let mut t = Test::new();
    let c = t.channel();
    let text = "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'";
    t.call(c, 1, Method::QueueDeclare(declare("amq.mine")), &format!("1 channel.close 403 {text} 50/10"));
}

#[test]
fn line_ends_are_dropped_from_names() {
    let mut t = Test::new();
    let c = t.channel();
    let m = declare("two\r\nlines");
    t.call(c, 1, Method::QueueDeclare(m), "1 queue.declare-ok twolines 0 0");
    t.call(c, 1, Method::QueueDelete(delete("two\nlines")), "1 queue.delete-ok 0");
}

/// Names a queue as only the server can.
fn server_named(t: &mut Test, c: Conn) -> String {
    let m = queue::Declare { exclusive: true, ..declare("") };
    let lines = t.ask(c, 1, Method::QueueDeclare(m));
    let name = lines[0].split(' ').nth(2).unwrap().to_owned();
    assert!(name.starts_with("amq.gen-"), "{name}");
    assert_eq!(name.len(), "amq.gen-".len() + 22);
    name
}

#[test]
fn server_named_queues() {
    let mut t = Test::new();
    let c = t.channel();
    let first = server_named(&mut t, c);
    let second = server_named(&mut t, c);
    assert_ne!(first, second);
    // Such a name may be given again while the queue is there, passively only.
    let m = queue::Declare { passive: true, ..declare(&first) };
    t.call(c, 1, Method::QueueDeclare(m), &format!("1 queue.declare-ok {first} 0 0"));
    let text = format!("ACCESS_REFUSED - queue name '{first}' contains reserved prefix 'amq.*'");
    let m = queue::Declare { exclusive: true, ..declare(&first) };
    t.call(c, 1, Method::QueueDeclare(m), &format!("1 channel.close 403 {text} 50/10"));
}

#[test]
fn passive_declare() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "there");
    let m = queue::Declare { passive: true, durable: true, ..declare("there") };
    t.call(c, 1, Method::QueueDeclare(m), "1 queue.declare-ok there 0 0");
    let m = queue::Declare { passive: true, ..declare("missing") };
    let text = "NOT_FOUND - no queue 'missing' in vhost '/'";
    t.call(c, 1, Method::QueueDeclare(m), &format!("1 channel.close 404 {text} 50/10"));
}

#[test]
fn passive_declare_without_a_name() {
    let mut t = Test::new();
    let c = t.channel();
    let m = queue::Declare { passive: true, ..declare("") };
    let text = "NOT_FOUND - no queue '' in vhost '/'";
    t.call(c, 1, Method::QueueDeclare(m), &format!("1 channel.close 404 {text} 50/10"));
}

#[test]
fn no_wait_is_not_answered() {
    let mut t = Test::new();
    let c = t.channel();
    t.send(c, 1, Method::QueueDeclare(queue::Declare { no_wait: true, ..declare("quiet") }));
    t.expect(c, &[] as &[&str]);
    assert_eq!(t.counts(c, 1, "quiet"), (0, 0));
    t.send(c, 1, Method::QueueDelete(queue::Delete { no_wait: true, ..delete("quiet") }));
    t.expect(c, &[] as &[&str]);
}

/// The queue declared last on the channel stands for an empty name.
#[test]
fn last_declared_queue() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "first");
    t.declare(c, 1, "last");
    t.call(c, 1, bind("", "amq.direct", ""), "1 queue.bind-ok");
    // The key was expanded with the name.
    t.publish(c, 1, "amq.direct", "last", "x");
    t.call(c, 1, get("", true), "1 basic.get-ok 1 'amq.direct' 'last' 0 [1] x");
    t.call(c, 1, unbind("", "amq.direct", ""), "1 queue.unbind-ok");
    t.publish_mandatory(c, 1, "amq.direct", "last", "x");
    t.expect(c, &["1 basic.return 312 NO_ROUTE 'amq.direct' 'last' [1] x"]);
    t.call(c, 1, purge(""), "1 queue.purge-ok 0");
    t.consume(c, 1, "", "tag");
    t.send(c, 1, Method::QueueDelete(delete("")));
    t.expect(c, &["1 queue.delete-ok 0", "1 basic.cancel tag"]);
    t.declare(c, 1, "first");
}

/// A key that is given is kept when the name is not.
#[test]
fn last_declared_queue_with_a_key() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "keyed");
    t.call(c, 1, bind("", "amq.direct", "given-key"), "1 queue.bind-ok");
    t.publish(c, 1, "amq.direct", "given-key", "x");
    t.call(c, 1, get("keyed", true), "1 basic.get-ok 1 'amq.direct' 'given-key' 0 [1] x");
}

#[test]
fn no_queue_declared_before() {
    let methods = [
        (get("", true), "60/70"),
        (Method::BasicConsume(consume("", "t")), "60/20"),
        (bind("", "amq.direct", "k"), "50/20"),
        (unbind("", "amq.direct", "k"), "50/50"),
        (purge(""), "50/30"),
        (Method::QueueDelete(delete("")), "50/40"),
    ];
    for (method, id) in methods {
        let mut t = Test::new();
        let c = t.channel();
        let text = "NOT_FOUND - no previously declared queue";
        t.call(c, 1, method, &format!("1 channel.close 404 {text} {id}"));
    }
}

/// Each channel remembers its own.
#[test]
fn last_declared_queue_is_of_the_channel() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "here");
    t.open(c, 2);
    let text = "NOT_FOUND - no previously declared queue";
    t.call(c, 2, get("", true), &format!("2 channel.close 404 {text} 60/70"));
}

#[test]
fn delete_counts_what_was_ready() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "gone");
    for _ in 0..3 {
        t.publish(c, 1, "", "gone", "x");
    }
    t.call(c, 1, get("gone", false), "1 basic.get-ok 1 '' 'gone' 2 [1] x");
    t.call(c, 1, Method::QueueDelete(delete("gone")), "1 queue.delete-ok 2");
    // What was given out is still known to the channel.
    t.send(c, 1, ack(1, false));
    t.call(c, 1, Method::QueueDelete(delete("gone")), "1 queue.delete-ok 0");
}

#[test]
fn delete_if_empty_if_unused() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "kept");
    t.publish(c, 1, "", "kept", "x");
    let m = queue::Delete { if_empty: true, if_unused: true, ..delete("kept") };
    let text = "PRECONDITION_FAILED - queue 'kept' in vhost '/' not empty";
    t.call(c, 1, Method::QueueDelete(m), &format!("1 channel.close 406 {text} 50/40"));
    t.open(c, 2);
    t.send(c, 2, Method::BasicConsume(consume("kept", "t")));
    t.take(c);
    let text = "PRECONDITION_FAILED - queue 'kept' in vhost '/' in use";
    t.call(c, 2, Method::QueueDelete(m), &format!("2 channel.close 406 {text} 50/40"));
}

/// What is given out and not settled does not count as content.
#[test]
fn delete_if_empty_minds_ready_messages_only() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "out");
    t.publish(c, 1, "", "out", "x");
    t.call(c, 1, get("out", false), "1 basic.get-ok 1 '' 'out' 0 [1] x");
    let m = queue::Delete { if_empty: true, ..delete("out") };
    t.call(c, 1, Method::QueueDelete(m), "1 queue.delete-ok 0");
}

#[test]
fn purge_leaves_what_is_unacknowledged() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "purged");
    for _ in 0..3 {
        t.publish(c, 1, "", "purged", "x");
    }
    t.call(c, 1, get("purged", false), "1 basic.get-ok 1 '' 'purged' 2 [1] x");
    t.call(c, 1, purge("purged"), "1 queue.purge-ok 2");
    t.send(c, 1, nack(1, false, true));
    t.settle();
    assert_eq!(t.counts(c, 1, "purged"), (1, 0));
    let text = "NOT_FOUND - no queue 'missing' in vhost '/'";
    t.call(c, 1, purge("missing"), &format!("1 channel.close 404 {text} 50/30"));
}

const LOCKED: &str = "RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'mine' in vhost '/'. It could be \
                      originally declared on another connection or the exclusive property value does not match that of \
                      the original declaration.";

#[test]
fn exclusive_queues_are_locked() {
    let mut t = Test::new();
    let c = t.channel();
    let m = queue::Declare { exclusive: true, ..declare("mine") };
    t.call(c, 1, Method::QueueDeclare(m), "1 queue.declare-ok mine 0 0");
    let other = t.login();
    let methods = [
        (Method::QueueDeclare(m), "50/10"),
        (Method::QueueDeclare(queue::Declare { passive: true, ..m }), "50/10"),
        (bind("mine", "amq.direct", "k"), "50/20"),
        (purge("mine"), "50/30"),
        (Method::QueueDelete(delete("mine")), "50/40"),
        (Method::BasicConsume(consume("mine", "t")), "60/20"),
        (get("mine", true), "60/70"),
    ];
    for ((method, id), number) in methods.into_iter().zip(1..) {
        t.open(other, number);
        t.call(other, number, method, &format!("{number} channel.close 405 {LOCKED} {id}"));
    }
    // Publishing to it works from anywhere, and a binding that is not there is removed by anyone.
    t.open(other, 100);
    t.publish(other, 100, "", "mine", "x");
    t.call(other, 100, unbind("mine", "amq.direct", "k"), "100 queue.unbind-ok");
    t.call(c, 1, get("mine", true), "1 basic.get-ok 1 '' 'mine' 0 [1] x");
}

#[test]
fn exclusive_queues_serve_all_channels_of_their_connection() {
    let mut t = Test::new();
    let c = t.channel();
    t.open(c, 2);
    let m = queue::Declare { exclusive: true, durable: true, ..declare("mine") };
    t.call(c, 1, Method::QueueDeclare(m), "1 queue.declare-ok mine 0 0");
    t.call(c, 1, close_channel(), "1 channel.close-ok");
    t.consume(c, 2, "mine", "t");
    // Durable means nothing here.
    t.call(c, 2, Method::QueueDeclare(queue::Declare { durable: false, ..m }), "2 queue.declare-ok mine 0 1");
}

#[test]
fn exclusive_queues_go_with_a_lost_connection() {
    let mut t = Test::new();
    let c = t.channel();
    let other = t.channel();
    let m = queue::Declare { exclusive: true, ..declare("mine") };
    t.call(c, 1, Method::QueueDeclare(m), "1 queue.declare-ok mine 0 0");
    t.disconnect(c);
    let text = "NOT_FOUND - no queue 'mine' in vhost '/'";
    t.call(other, 1, get("mine", true), &format!("1 channel.close 404 {text} 60/70"));
}

#[test]
fn auto_delete_goes_with_its_last_consumer() {
    let mut t = Test::new();
    let c = t.channel();
    t.open(c, 2);
    let m = queue::Declare { auto_delete: true, ..declare("brief") };
    t.call(c, 1, Method::QueueDeclare(m), "1 queue.declare-ok brief 0 0");
    t.call(c, 1, get("brief", true), "1 basic.get-empty");
    t.consume(c, 1, "brief", "one");
    t.consume(c, 2, "brief", "two");
    t.call(c, 1, cancel("one"), "1 basic.cancel-ok one");
    assert_eq!(t.counts(c, 1, "brief"), (0, 1));
    t.call(c, 2, close_channel(), "2 channel.close-ok");
    let text = "NOT_FOUND - no queue 'brief' in vhost '/'";
    t.call(c, 1, get("brief", true), &format!("1 channel.close 404 {text} 60/70"));
}

#[test]
fn auto_delete_stays_without_consumers_ever() {
    let mut t = Test::new();
    let c = t.channel();
    let other = t.channel();
    let m = queue::Declare { auto_delete: true, arguments: Table::EMPTY, ..declare("unused") };
    t.call(c, 1, Method::QueueDeclare(m), "1 queue.declare-ok unused 0 0");
    t.disconnect(c);
    assert_eq!(t.counts(other, 1, "unused"), (0, 0));
}

#[test]
fn longest_queue_drops_its_head() {
    let mut t = Test::new();
    let c = t.channel();
    let arguments = table(&[("x-max-length", Field::Int(2))]);
    let m = queue::Declare { arguments: encoded(&arguments), ..declare("short") };
    t.call(c, 1, Method::QueueDeclare(m), "1 queue.declare-ok short 0 0");
    for body in ["1", "2", "3"] {
        t.publish(c, 1, "", "short", body);
    }
    t.call(c, 1, get("short", true), "1 basic.get-ok 1 '' 'short' 1 [1] 2");
    t.call(c, 1, get("short", true), "1 basic.get-ok 2 '' 'short' 0 [1] 3");
}

#[test]
fn longest_queue_refuses() {
    let mut t = Test::new();
    let c = t.channel();
    t.call(c, 1, confirm_select(), "1 confirm.select-ok");
    let arguments = table(&[("x-max-length", Field::Int(1)), ("x-overflow", Field::Str("reject-publish"))]);
    let m = queue::Declare { arguments: encoded(&arguments), ..declare("full") };
    t.call(c, 1, Method::QueueDeclare(m), "1 queue.declare-ok full 0 0");
    t.publish(c, 1, "", "full", "1");
    t.expect(c, &["1 basic.ack 1"]);
    t.publish(c, 1, "", "full", "2");
    t.expect(c, &["1 basic.nack 2 multiple"]);
    t.call(c, 1, get("full", true), "1 basic.get-ok 1 '' 'full' 0 [1] 1");
    t.publish(c, 1, "", "full", "3");
    t.expect(c, &["1 basic.ack 3"]);
}

#[test]
fn arguments_of_other_queue_types() {
    let text = "of queue type rabbit_classic_queue 50/10";
    for key in ["x-max-age", "x-delivery-limit", "x-queue-leader-locator"] {
        let mut t = Test::new();
        let c = t.channel();
        let arguments = table(&[("x-unknown", Field::Int(1)), (key, Field::Int(5))]);
        let m = queue::Declare { arguments: encoded(&arguments), ..declare("bad") };
        let what = format!("PRECONDITION_FAILED - invalid arg '{key}' for queue 'bad' in vhost '/'");
        t.call(c, 1, Method::QueueDeclare(m), &format!("1 channel.close 406 {what} {text}"));
    }
}

fn quorum(arguments: &[u8]) -> queue::Declare<'_> {
    queue::Declare { durable: true, arguments: encoded(arguments), ..declare("quorum") }
}

#[test]
fn quorum_queues_are_durable_and_shared() {
    let arguments = table(&[("x-queue-type", Field::Str("quorum"))]);
    let q = quorum(&arguments);
    let refused = |m: queue::Declare<'_>, text: &str| {
        let mut t = Test::new();
        let c = t.channel();
        let text = format!("1 channel.close 406 PRECONDITION_FAILED - {text} 50/10");
        t.call(c, 1, Method::QueueDeclare(m), &text);
    };
    let property = |name: &str| format!("invalid property '{name}' for queue 'quorum' in vhost '/'");
    refused(queue::Declare { durable: false, ..q }, &property("non-durable"));
    refused(queue::Declare { exclusive: true, ..q }, &property("exclusive-owner"));
    refused(queue::Declare { auto_delete: true, ..q }, &property("auto-delete"));
    let text = "Cannot declare a server-named queue for type rabbit_quorum_queue";
    refused(queue::Declare { queue: b"", ..q }, text);
    let lazy = [("x-queue-type", Field::Str("quorum")), ("x-queue-mode", Field::Str("lazy"))];
    let lazy = table(&lazy);
    let text = "invalid arg 'x-queue-mode' for queue 'quorum' in vhost '/' of queue type rabbit_quorum_queue";
    refused(quorum(&lazy), text);
}

#[test]
fn quorum_queues_refuse_what_they_cannot_do() {
    let arguments = table(&[("x-queue-type", Field::Str("quorum"))]);
    let q = quorum(&arguments);
    let mut t = Test::new();
    let c = t.channel();
    t.call(c, 1, Method::QueueDeclare(q), "1 queue.declare-ok quorum 0 0");
    let m = queue::Delete { if_unused: true, ..delete("quorum") };
    let text = "NOT_IMPLEMENTED - cannot delete queue 'quorum' in vhost '/'. queue.delete operations with if-unused \
                flag set are not supported by quorum queues";
    t.call(c, 1, Method::QueueDelete(m), &format!("0 connection.close 540 {text} 50/40"));
    let c = t.channel();
    t.call(c, 1, qos(5, true), "1 basic.qos-ok");
    let m = Method::BasicConsume(consume("quorum", "t"));
    let text = "NOT_IMPLEMENTED - queue 'quorum' in vhost '/' does not support global qos";
    t.call(c, 1, m, &format!("0 connection.close 540 {text} 60/20"));
    let c = t.channel();
    t.call(c, 1, Method::QueueDelete(delete("quorum")), "1 queue.delete-ok 0");
}
