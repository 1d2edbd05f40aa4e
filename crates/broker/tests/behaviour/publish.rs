//! Publishing, apart from confirms and transactions.

use crate::support::*;
use warren_broker::{Access, Options, User};
use warren_wire::BasicProperties;
use warren_wire::Method;
use warren_wire::content::ContentHeader;
use warren_wire::frame::next_frame;
use warren_wire::method::{basic, queue};

#[test]
fn mandatory_is_returned() {
    let mut t = Test::new();
    let c = t.channel();
    t.publish(c, 1, "amq.fanout", "k", "dropped");
    t.publish_mandatory(c, 1, "amq.fanout", "k", "returned");
    t.send(c, 1, flow(true));
    // The return comes before what was asked later.
    t.expect(c, &["1 basic.return 312 NO_ROUTE 'amq.fanout' 'k' [8] returned", "1 channel.flow-ok true"]);
}

#[test]
fn immediate_is_not_implemented() {
    let mut t = Test::new();
    let c = t.channel();
    let m = basic::Publish { exchange: b"", routing_key: b"k", mandatory: false, immediate: true };
    t.send(c, 1, Method::BasicPublish(m));
    t.expect(c, &[] as &[&str]);
    t.content(c, 1, &BasicProperties::default(), b"x");
    t.expect(c, &["0 connection.close 540 NOT_IMPLEMENTED - immediate=true 60/40"]);
}

#[test]
fn user_id() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "signed");
    let mine = BasicProperties { user_id: Some(b"guest"), ..BasicProperties::default() };
    t.publish_with(c, 1, ("", "signed"), &mine, "x");
    t.call(c, 1, get("signed", true), "1 basic.get-ok 1 '' 'signed' 0 [1] x");
    let other = BasicProperties { user_id: Some(b"bob"), ..BasicProperties::default() };
    t.publish_with(c, 1, ("", "signed"), &other, "x");
    let text = "PRECONDITION_FAILED - user_id property set to 'bob' but authenticated user was 'guest'";
    t.expect(c, &[format!("1 channel.close 406 {text} 60/40")]);
}

#[test]
fn expiration() {
    let cases = [
        ("abc", "no_integer"),
        ("10x", "{leftover_string,\"x\"}"),
        ("-1", "{value_negative,-1}"),
        ("315360000001", "{value_too_large,315360000001}"),
        ("", "no_integer"),
    ];
    for (value, problem) in cases {
        let mut t = Test::new();
        let c = t.channel();
        let p = BasicProperties { expiration: Some(value.as_bytes()), ..BasicProperties::default() };
        t.publish_with(c, 1, ("", "nowhere"), &p, "x");
        let text = format!("PRECONDITION_FAILED - invalid expiration '{value}': {problem}");
        t.expect(c, &[format!("1 channel.close 406 {text} 60/40")]);
    }
    let mut t = Test::new();
    let c = t.channel();
    for value in ["1000", "+1000", "315360000000"] {
        let p = BasicProperties { expiration: Some(value.as_bytes()), ..BasicProperties::default() };
        t.publish_with(c, 1, ("", "nowhere"), &p, "x");
    }
    t.expect(c, &[] as &[&str]);
}

/// Octet for octet, whatever order or emptiness the client's encoder had.
#[test]
fn properties_pass_unchanged() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "props");
    let headers = table(&[("a", Field::Int(-5)), ("b", Field::Str("text")), ("c", Field::Bool(true))]);
    let properties = BasicProperties {
        content_type: Some(b"text/plain"),
        content_encoding: Some(b""),
        headers: Some(encoded(&headers)),
        delivery_mode: Some(1),
        priority: Some(200),
        correlation_id: Some(b"\xff\x00"),
        reply_to: Some(b"somewhere"),
        expiration: Some(b"60000"),
        message_id: Some(b"id"),
        timestamp: Some(u64::MAX),
        kind: Some(b"kind"),
        user_id: Some(b"guest"),
        app_id: Some(b"app"),
        cluster_id: Some(b"cluster"),
    };
    t.publish_with(c, 1, ("", "props"), &properties, "x");
    t.send(c, 1, get("props", true));
    let bytes = t.take_bytes(c);
    let method = next_frame(&bytes, 0, 1000).unwrap().unwrap();
    let header = next_frame(&bytes, method.end, 1000).unwrap().unwrap();
    let payload = header.payload(&bytes);
    assert_eq!(ContentHeader::peek(payload).unwrap().body_size, 1);
    let mut expected = Vec::new();
    properties.write(&mut expected);
    assert_eq!(payload[12..], expected);
}

#[test]
fn empty_bodies() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "empty");
    t.publish(c, 1, "", "empty", "");
    t.call(c, 1, get("empty", true), "1 basic.get-ok 1 '' 'empty' 0 [0]");
}

fn with_rights(configure: Access, write: Access, read: Access) -> (Test, Conn) {
    let mut options = Options::default();
    let user = User { configure, write, read, ..User::new("bob", "pw") };
    options.users.push(user);
    let mut t = Test::model(options);
    let guest = t.channel();
    t.declare(guest, 1, "q");
    let c = t.connect();
    t.log_in(c, &Login { user: "bob", password: "pw", ..Login::default() });
    t.take(c);
    (t, c)
}

/// A user without any right may still open channels, send barriers and declare the reply queue passively.
#[test]
fn without_rights() {
    let (mut t, c) = with_rights(Access::Nothing, Access::Nothing, Access::Nothing);
    let text = |what: &str| format!("ACCESS_REFUSED - access to {what} in vhost '/' refused for user 'bob'");
    let q = text("queue 'q'");
    let methods = [
        (Method::QueueDeclare(declare("q")), q.clone(), "50/10"),
        (Method::QueueDelete(delete("q")), q.clone(), "50/40"),
        (purge("q"), q.clone(), "50/30"),
        (get("q", true), q.clone(), "60/70"),
        (Method::BasicConsume(consume("q", "t")), q.clone(), "60/20"),
        (bind("q", "amq.direct", "k"), q.clone(), "50/20"),
        (Method::ExchangeDeclare(declare_exchange("x", "direct")), text("exchange 'x'"), "40/10"),
    ];
    for ((method, text, id), number) in methods.into_iter().zip(1..) {
        t.open(c, number);
        t.call(c, number, method, &format!("{number} channel.close 403 {text} {id}"));
    }
    t.open(c, 100);
    t.publish(c, 100, "", "q", "x");
    let refusal = text("exchange 'amq.default'");
    t.expect(c, &[format!("100 channel.close 403 {refusal} 60/40")]);
    t.open(c, 101);
    t.call(c, 101, flow(true), "101 channel.flow-ok true");
    let m = queue::Declare { passive: true, ..declare("amq.rabbitmq.reply-to") };
    t.call(c, 101, Method::QueueDeclare(m), "101 queue.declare-ok amq.rabbitmq.reply-to 0 1");
    let m = queue::Declare { passive: true, ..declare("q") };
    t.call(c, 101, Method::QueueDeclare(m), "101 queue.declare-ok q 0 0");
}

#[test]
fn rights_by_prefix() {
    let mine = || Access::Prefix("bob-".to_owned());
    let (mut t, c) = with_rights(mine(), Access::Prefix("amq.default".to_owned()), mine());
    t.open(c, 1);
    t.declare(c, 1, "bob-q");
    t.publish(c, 1, "", "bob-q", "x");
    t.call(c, 1, get("bob-q", true), "1 basic.get-ok 1 '' 'bob-q' 0 [1] x");
    let text = "ACCESS_REFUSED - access to queue 'alice-q' in vhost '/' refused for user 'bob'";
    t.call(c, 1, Method::QueueDeclare(declare("alice-q")), &format!("1 channel.close 403 {text} 50/10"));
}

#[test]
fn counters() {
    let mut t = Test::model(Options::default());
    let c = t.channel();
    t.open(c, 2);
    t.declare(c, 1, "q");
    t.publish(c, 1, "", "q", "x");
    t.publish(c, 2, "", "nowhere", "x");
    t.publish(c, 2, "missing", "", "x");
    assert!(t.take(c)[0].starts_with("2 channel.close 404"));
    t.call(c, 1, get("q", true), "1 basic.get-ok 1 '' 'q' 0 [1] x");
    let counters = t.broker().counters();
    assert_eq!(counters.connections_opened, 1);
    assert_eq!(counters.channels_opened, 2);
    assert_eq!(counters.publishes_accepted, 2);
    assert_eq!(counters.deliveries, 1);
    let id = t.id(c);
    assert_eq!(t.broker().channels(id), [1]);
    assert_eq!(t.broker().connections_open(), 1);
}
