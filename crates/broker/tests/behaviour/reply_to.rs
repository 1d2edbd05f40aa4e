//! Direct reply-to.

use crate::support::*;
use warren_wire::BasicProperties;
use warren_wire::Method;
use warren_wire::content::CONTENT_HEADER_LEN;
use warren_wire::frame::next_frame;
use warren_wire::method::{basic, queue};

const PSEUDO: &str = "amq.rabbitmq.reply-to";

fn consume_replies(tag: &str) -> Method<'_> {
    Method::BasicConsume(basic::Consume { no_ack: true, ..consume(PSEUDO, tag) })
}

fn request() -> BasicProperties<'static> {
    BasicProperties { reply_to: Some(PSEUDO.as_bytes()), ..BasicProperties::default() }
}

/// Fetches a request and returns the address that it asks to be answered at.
fn address(t: &mut Test, server: Conn, name: &str) -> String {
    t.send(server, 1, get(name, true));
    let bytes = t.take_bytes(server);
    let method = next_frame(&bytes, 0, 1000).unwrap().unwrap();
    let header = next_frame(&bytes, method.end, 1000).unwrap().unwrap();
    let properties = BasicProperties::parse(&header.payload(&bytes)[CONTENT_HEADER_LEN..]).unwrap();
    let address = String::from_utf8(properties.reply_to.unwrap().to_vec()).unwrap();
    assert!(address.starts_with("amq.rabbitmq.reply-to."), "{address}");
    address
}

#[test]
fn replies_go_straight_to_the_channel() {
    let mut t = Test::new();
    let client = t.channel();
    let server = t.channel();
    t.declare(server, 1, "rpc");
    t.call(client, 1, consume_replies("r"), "1 basic.consume-ok r");
    t.publish_with(client, 1, ("", "rpc"), &request(), "ask");
    let to = address(&mut t, server, "rpc");
    t.publish(server, 1, "", &to, "answer");
    t.publish(server, 1, "", &to, "another");
    // Their number repeats the next one and does not count.
    t.expect(
        client,
        &[
            format!("1 basic.deliver r 1 '' '{to}' [6] answer"),
            format!("1 basic.deliver r 1 '' '{to}' [7] another"),
        ],
    );
    t.publish(client, 1, "", "rpc", "x");
    t.call(client, 1, get("rpc", true), "1 basic.get-ok 1 '' 'rpc' 0 [1] x");
    t.publish(server, 1, "", &to, "third");
    t.expect(client, &[format!("1 basic.deliver r 2 '' '{to}' [5] third")]);
    // A reply is in no queue, so a mandatory one comes back as well.
    t.publish_mandatory(server, 1, "", &to, "fourth");
    t.expect(server, &[format!("1 basic.return 312 NO_ROUTE '' '{to}' [6] fourth")]);
    t.expect(client, &[format!("1 basic.deliver r 2 '' '{to}' [6] fourth")]);
}

#[test]
fn the_address_dies_with_its_consumer() {
    let mut t = Test::new();
    let client = t.channel();
    let server = t.channel();
    t.declare(server, 1, "rpc");
    t.call(client, 1, consume_replies("r"), "1 basic.consume-ok r");
    t.publish_with(client, 1, ("", "rpc"), &request(), "ask");
    let to = address(&mut t, server, "rpc");
    let m = Method::QueueDeclare(queue::Declare { passive: true, ..declare(&to) });
    t.call(server, 1, m, &format!("1 queue.declare-ok {to} 0 1"));
    t.call(client, 1, cancel("r"), "1 basic.cancel-ok r");
    t.publish(server, 1, "", &to, "late");
    t.expect(client, &[] as &[&str]);
    let text = format!("NOT_FOUND - no queue '{to}' in vhost '/'");
    t.call(server, 1, m, &format!("1 channel.close 404 {text} 50/10"));
}

#[test]
fn request_without_a_consumer() {
    let mut t = Test::new();
    let c = t.channel();
    t.publish_with(c, 1, ("", "rpc"), &request(), "ask");
    let text = "PRECONDITION_FAILED - fast reply consumer does not exist";
    t.expect(c, &[format!("1 channel.close 406 {text} 60/40")]);
}

#[test]
fn consumer_must_not_acknowledge() {
    let mut t = Test::new();
    let c = t.channel();
    let text = "PRECONDITION_FAILED - reply consumer cannot acknowledge";
    t.call(c, 1, Method::BasicConsume(consume(PSEUDO, "r")), &format!("1 channel.close 406 {text} 60/20"));
}

#[test]
fn one_consumer_for_each_channel() {
    let mut t = Test::new();
    let c = t.channel();
    t.call(c, 1, consume_replies("r"), "1 basic.consume-ok r");
    let text = "PRECONDITION_FAILED - reply consumer already set";
    t.call(c, 1, consume_replies("s"), &format!("1 channel.close 406 {text} 60/20"));
}

/// The barrier that works on every broker, for users without rights.
#[test]
fn passive_declare_always_works() {
    let mut t = Test::new();
    let c = t.channel();
    for passive in [true, false] {
        let m = Method::QueueDeclare(queue::Declare { passive, ..declare(PSEUDO) });
        t.call(c, 1, m, "1 queue.declare-ok amq.rabbitmq.reply-to 0 1");
    }
    let m = Method::QueueDeclare(queue::Declare { passive: true, ..declare("amq.rabbitmq.reply-to.x") });
    let text = "NOT_FOUND - no queue 'amq.rabbitmq.reply-to.x' in vhost '/'";
    t.call(c, 1, m, &format!("1 channel.close 404 {text} 50/10"));
}

/// It does count as the queue declared last.
#[test]
fn declared_last() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "real");
    let m = Method::QueueDeclare(queue::Declare { passive: true, ..declare(PSEUDO) });
    t.call(c, 1, m, "1 queue.declare-ok amq.rabbitmq.reply-to 0 1");
    let text = "NOT_FOUND - no queue 'amq.rabbitmq.reply-to' in vhost '/'";
    t.call(c, 1, get("", true), &format!("1 channel.close 404 {text} 60/70"));
}
