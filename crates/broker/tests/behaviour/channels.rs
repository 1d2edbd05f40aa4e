//! Opening and closing channels, and what may come in between.

use crate::support::*;
use warren_broker::Options;
use warren_wire::Method;
use warren_wire::method::{access, basic};

#[test]
fn open_close_open_again() {
    let mut t = Test::new();
    let c = t.channel();
    for _ in 0..3 {
        t.call(c, 1, close_channel(), "1 channel.close-ok");
        t.open(c, 1);
    }
}

#[test]
fn second_open() {
    let mut t = Test::new();
    let c = t.channel();
    let text = "CHANNEL_ERROR - second 'channel.open' seen";
    t.call(c, 1, Method::ChannelOpen, &format!("0 connection.close 504 {text} 20/10"));
    t.send(c, 0, Method::ConnectionCloseOk);
    assert!(t.closed(c));
}

#[test]
fn method_on_a_channel_that_is_not_open() {
    let mut t = Test::new();
    let c = t.login();
    let text = "CHANNEL_ERROR - expected 'channel.open'";
    t.call(c, 1, flow(true), &format!("0 connection.close 504 {text} 20/20"));
}

#[test]
fn publish_on_a_channel_that_is_not_open() {
    let mut t = Test::new();
    let c = t.login();
    t.publish(c, 1, "", "x", "x");
    t.expect(c, &["0 connection.close 504 CHANNEL_ERROR - expected 'channel.open' 60/40"]);
}

#[test]
fn method_on_a_channel_that_was_closed() {
    let mut t = Test::new();
    let c = t.channel();
    t.call(c, 1, close_channel(), "1 channel.close-ok");
    let text = "CHANNEL_ERROR - expected 'channel.open'";
    t.call(c, 1, flow(true), &format!("0 connection.close 504 {text} 20/20"));
}

/// The number is free only when close-ok was seen.
#[test]
fn open_right_behind_close() {
    let mut t = Test::new();
    let c = t.channel();
    t.send(c, 1, close_channel());
    t.send(c, 1, Method::ChannelOpen);
    let lines = t.take(c);
    let text = "CHANNEL_ERROR - second 'channel.open' seen";
    assert_eq!(lines.last().unwrap(), &format!("0 connection.close 504 {text} 20/10"));
}

#[test]
fn closed_by_the_broker() {
    let mut t = Test::new();
    let c = t.channel();
    t.publish(c, 1, "no-such-exchange", "", "x");
    let text = "NOT_FOUND - no exchange 'no-such-exchange' in vhost '/'";
    t.expect(c, &[format!("1 channel.close 404 {text} 60/40")]);
    // All is ignored until close-ok, but the connection lives.
    t.send(c, 1, flow(true));
    t.send(c, 1, Method::QueueDeclare(declare("ignored")));
    t.publish(c, 1, "no-such-exchange", "", "x");
    t.expect(c, &[] as &[&str]);
    t.open(c, 2);
    t.send(c, 1, Method::ChannelCloseOk);
    t.open(c, 1);
    t.call(c, 1, flow(true), "1 channel.flow-ok true");
}

#[test]
fn open_while_the_broker_waits_for_close_ok() {
    let mut t = Test::new();
    let c = t.channel();
    t.publish(c, 1, "no-such-exchange", "", "x");
    t.take(c);
    let text = "CHANNEL_ERROR - second 'channel.open' seen";
    t.call(c, 1, Method::ChannelOpen, &format!("0 connection.close 504 {text} 20/10"));
}

/// Both sides close: the client's is answered, and its answer is still waited for.
#[test]
fn crossing_closes() {
    let mut t = Test::new();
    let c = t.channel();
    t.publish(c, 1, "no-such-exchange", "", "x");
    t.send(c, 1, close_channel());
    let lines = t.take(c);
    assert!(lines[0].starts_with("1 channel.close 404"), "{lines:?}");
    assert_eq!(lines[1..], ["1 channel.close-ok"]);
    t.call(c, 1, close_channel(), "1 channel.close-ok");
    t.send(c, 1, Method::ChannelCloseOk);
    t.open(c, 1);
}

#[test]
fn close_ok_that_nobody_asked_for() {
    let mut t = Test::new();
    let c = t.channel();
    let text = "COMMAND_INVALID - unimplemented method";
    t.call(c, 1, Method::ChannelCloseOk, &format!("0 connection.close 503 {text} 20/41"));
}

#[test]
fn flow_active_and_not() {
    let mut t = Test::new();
    let c = t.channel();
    t.call(c, 1, flow(true), "1 channel.flow-ok true");
    let text = "NOT_IMPLEMENTED - active=false";
    t.call(c, 1, flow(false), &format!("0 connection.close 540 {text} 20/20"));
}

/// The barrier: no flow-ok comes after a publish that failed.
#[test]
fn flow_behind_a_publish_that_fails() {
    let mut t = Test::new();
    let c = t.channel();
    t.publish(c, 1, "no-such-exchange", "", "x");
    t.send(c, 1, flow(true));
    let lines = t.take(c);
    assert_eq!(lines.len(), 1, "{lines:?}");
}

#[test]
fn channel_max_counts_channels() {
    let mut t = Test::new();
    let c = t.connect();
    t.log_in(c, &Login { channel_max: 2, ..Login::default() });
    t.take(c);
    t.open(c, 1);
    t.open(c, 1000);
    let text = "NOT_ALLOWED - number of channels opened (2) has reached the negotiated channel_max (2)";
    t.call(c, 3, Method::ChannelOpen, &format!("0 connection.close 530 {text} 0/0"));
}

#[test]
fn channels_count_again_when_closed() {
    let mut t = Test::new();
    let c = t.connect();
    t.log_in(c, &Login { channel_max: 1, ..Login::default() });
    t.take(c);
    for number in 1..5 {
        t.open(c, number);
        t.call(c, number, close_channel(), &format!("{number} channel.close-ok"));
    }
}

#[test]
fn access_request_is_granted() {
    let mut t = Test::new();
    let c = t.channel();
    let m = access::Request {
        realm: b"/data",
        exclusive: false,
        passive: false,
        active: true,
        write: true,
        read: true,
    };
    t.call(c, 1, Method::AccessRequest(m), "1 access.request-ok 1");
}

#[test]
fn methods_of_a_server() {
    let text = "COMMAND_INVALID - unimplemented method";
    let methods = [
        (Method::QueueBindOk, "50/21"),
        (Method::TxCommitOk, "90/21"),
        (Method::ChannelOpenOk, "20/11"),
        (Method::BasicGetEmpty, "60/72"),
        (Method::ConnectionOpenOk, "10/41"),
    ];
    for (method, id) in methods {
        let mut t = Test::new();
        let c = t.channel();
        t.call(c, 1, method, &format!("0 connection.close 503 {text} {id}"));
    }
}

#[test]
fn methods_of_a_server_with_content() {
    let mut t = Test::new();
    let c = t.channel();
    let m = basic::Return { reply_code: 312, reply_text: b"", exchange: b"", routing_key: b"" };
    t.send(c, 1, Method::BasicReturn(m));
    t.content(c, 1, &warren_wire::BasicProperties::default(), b"x");
    t.expect(c, &["0 connection.close 503 COMMAND_INVALID - unimplemented method 60/50"]);
}

#[test]
fn class_connection_on_a_channel() {
    let mut t = Test::new();
    let c = t.channel();
    let text = "COMMAND_INVALID - unimplemented method";
    t.call(c, 1, close_connection(), &format!("0 connection.close 503 {text} 10/50"));
}

#[test]
fn other_classes_on_channel_0() {
    let mut t = Test::new();
    let c = t.channel();
    let text = "CHANNEL_ERROR - unexpected method in connection state running";
    t.call(c, 0, Method::TxSelect, &format!("0 connection.close 504 {text} 90/10"));
}

/// Exclusive queues are gone, and auto-delete ones, when close-ok comes.
#[test]
fn connection_close_takes_its_queues() {
    let mut t = Test::new();
    let c = t.channel();
    let other = t.channel();
    let exclusive = warren_wire::method::queue::Declare { exclusive: true, ..declare("mine") };
    t.call(c, 1, Method::QueueDeclare(exclusive), "1 queue.declare-ok mine 0 0");
    t.call(c, 0, close_connection(), "0 connection.close-ok");
    t.declare(other, 1, "mine");
}

#[test]
fn nothing_counts_after_connection_close() {
    let mut t = Test::new();
    let c = t.channel();
    t.send(c, 1, Method::ChannelOpen);
    t.send(c, 1, Method::QueueDeclare(declare("too-late")));
    let lines = t.take(c);
    assert_eq!(lines.len(), 1, "{lines:?}");
    // The client's own close is answered, as is customary.
    t.call(c, 0, close_connection(), "0 connection.close-ok");
}

#[test]
fn forced_closes() {
    let mut t = Test::model(Options::default());
    let c = t.channel();
    let id = t.id(c);
    t.broker().close_channel(id, 1, 406, "so it is");
    t.expect(c, &["1 channel.close 406 PRECONDITION_FAILED - so it is 0/0"]);
    t.send(c, 1, Method::ChannelCloseOk);
    t.open(c, 1);
    t.broker().force_close(id, 320, "shutdown");
    t.expect(c, &["0 connection.close 320 CONNECTION_FORCED - shutdown 0/0"]);
    assert!(!t.closed(c));
    t.send(c, 0, Method::ConnectionCloseOk);
    assert!(t.closed(c));
    let c = t.channel();
    let id = t.id(c);
    t.broker().reset(id);
    assert!(t.closed(c));
    assert_eq!(t.broker().channels_open(), 0);
}
