//! Method, header and bodies: what closes a connection and what does not.

use crate::support::*;
use warren_broker::Options;
use warren_wire::BasicProperties;
use warren_wire::Method;
use warren_wire::method::{basic, queue};

const NO_METHOD: &str = "UNEXPECTED_FRAME - expected method frame, got non method frame instead";
const NO_HEADER: &str =
    "UNEXPECTED_FRAME - expected content header for class 60, got non content header frame instead";
const NO_BODY: &str = "UNEXPECTED_FRAME - expected content body, got non content body frame instead";

#[test]
fn header_without_publish() {
    let mut t = Test::new();
    let c = t.channel();
    t.header(c, 1, 0);
    t.expect(c, &[format!("0 connection.close 505 {NO_METHOD} 0/0")]);
}

#[test]
fn body_without_publish() {
    let mut t = Test::new();
    let c = t.channel();
    t.frame(c, 3, 1, b"x");
    t.expect(c, &[format!("0 connection.close 505 {NO_METHOD} 0/0")]);
}

#[test]
fn method_instead_of_header() {
    let mut t = Test::new();
    let c = t.channel();
    t.send(c, 1, publish("", "x", false));
    t.send(c, 1, flow(true));
    t.expect(c, &[format!("0 connection.close 505 {NO_HEADER} 60/40")]);
}

#[test]
fn body_instead_of_header() {
    let mut t = Test::new();
    let c = t.channel();
    t.send(c, 1, publish("", "x", false));
    t.frame(c, 3, 1, b"x");
    t.expect(c, &[format!("0 connection.close 505 {NO_HEADER} 60/40")]);
}

#[test]
fn close_instead_of_body() {
    let mut t = Test::new();
    let c = t.channel();
    t.send(c, 1, publish("", "x", false));
    t.header(c, 1, 3);
    t.frame(c, 3, 1, b"xy");
    t.send(c, 1, close_channel());
    t.expect(c, &[format!("0 connection.close 505 {NO_BODY} 60/40")]);
}

#[test]
fn header_instead_of_body() {
    let mut t = Test::new();
    let c = t.channel();
    t.send(c, 1, publish("", "x", false));
    t.header(c, 1, 3);
    t.header(c, 1, 3);
    t.expect(c, &[format!("0 connection.close 505 {NO_BODY} 60/40")]);
}

#[test]
fn header_of_another_class() {
    let mut t = Test::new();
    let c = t.channel();
    t.send(c, 1, publish("", "x", false));
    t.frame(c, 2, 1, &[0, 50, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    let text = "UNEXPECTED_FRAME - expected content header for class 60, got one for class 50 instead";
    t.expect(c, &[format!("0 connection.close 505 {text} 60/40")]);
}

#[test]
fn header_with_weight() {
    let mut t = Test::new();
    let c = t.channel();
    t.send(c, 1, publish("", "x", false));
    t.frame(c, 2, 1, &[0, 60, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    t.expect(c, &[format!("0 connection.close 505 {NO_HEADER} 60/40")]);
}

/// The reader assembles content for a channel that is closing too, and minds what it reads.
#[test]
fn content_out_of_step_on_a_closing_channel() {
    let mut t = Test::new();
    let c = t.channel();
    t.publish(c, 1, "no-such-exchange", "", "x");
    t.take(c);
    t.frame(c, 3, 1, b"x");
    t.expect(c, &[format!("0 connection.close 505 {NO_METHOD} 0/0")]);
}

fn malformed_properties(properties: &[u8]) {
    let mut t = Test::new();
    let c = t.channel();
    t.send(c, 1, publish("", "x", false));
    let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    payload.extend_from_slice(properties);
    t.frame(c, 2, 1, &payload);
    t.expect(c, &["0 connection.close 541 INTERNAL_ERROR 0/0"]);
}

#[test]
fn malformed_headers() {
    malformed_properties(&[0x80, 0, 10, b'x']);
    malformed_properties(&[]);
    malformed_properties(&[0x20, 0, 0, 0, 0, 3, 1, b'x', b'?']);
}

#[test]
fn properties_are_not_looked_at_when_the_exchange_is_missing() {
    let mut t = Test::new();
    let c = t.channel();
    t.send(c, 1, publish("no-such-exchange", "x", false));
    t.frame(c, 2, 1, &[0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 0, 10]);
    let lines = t.take(c);
    assert!(lines[0].starts_with("1 channel.close 404"), "{lines:?}");
}

#[test]
fn bodies_in_many_frames() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "parts");
    t.send(c, 1, publish("", "parts", false));
    t.header(c, 1, 5);
    for part in [&b"ab"[..], b"", b"cd", b"e"] {
        t.frame(c, 3, 1, part);
    }
    t.call(c, 1, get("parts", true), "1 basic.get-ok 1 '' 'parts' 0 [5] abcde");
}

/// RabbitMQ then waits for a body that never ends; any other frame closes the connection.
#[test]
fn body_longer_than_announced() {
    let mut t = Test::new();
    let c = t.channel();
    t.send(c, 1, publish("", "x", true));
    t.header(c, 1, 1);
    t.frame(c, 3, 1, b"xy");
    t.frame(c, 3, 1, b"z");
    t.expect(c, &[] as &[&str]);
    t.send(c, 1, flow(true));
    t.expect(c, &[format!("0 connection.close 505 {NO_BODY} 60/40")]);
}

#[test]
fn large_messages_are_split_to_frame_max() {
    let mut t = Test::new();
    let c = t.connect();
    t.log_in(c, &Login { frame_max: 4096, ..Login::default() });
    t.take(c);
    t.open(c, 1);
    t.declare(c, 1, "large");
    t.send(c, 1, publish("", "large", false));
    t.header(c, 1, 5000);
    t.frame(c, 3, 1, &[b'x'; 4088]);
    t.frame(c, 3, 1, &[b'x'; 912]);
    t.call(c, 1, get("large", true), "1 basic.get-ok 1 '' 'large' 0 [5000] ... ...");
}

/// Eight octets above frame_max pass: clients forget the overhead.
#[test]
fn payload_as_long_as_frame_max() {
    let mut t = Test::new();
    let c = t.connect();
    t.log_in(c, &Login { frame_max: 4096, ..Login::default() });
    t.take(c);
    t.open(c, 1);
    t.send(c, 1, publish("", "nowhere", true));
    t.header(c, 1, 4096);
    t.frame(c, 3, 1, &[b'x'; 4096]);
    let lines = t.take(c);
    assert!(lines[0].starts_with("1 basic.return 312"), "{lines:?}");
}

#[test]
fn frame_too_large() {
    let mut t = Test::new();
    let c = t.channel();
    t.frame(c, 1, 1, &vec![0; 200_000]);
    let text = "FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large,200000,131064}";
    t.expect(c, &[format!("0 connection.close 501 {text} 0/0")]);
}

#[test]
fn frame_with_a_wrong_end() {
    let mut t = Test::new();
    let c = t.channel();
    t.raw(c, &[1, 0, 1, 0, 0, 0, 4, 0, 20, 0, 10, 0]);
    let text = "FRAME_ERROR - type 1, all octets = <<0,20,0,10>>: {invalid_frame_end_marker,0}";
    t.expect(c, &[format!("0 connection.close 501 {text} 0/0")]);
}

#[test]
fn frame_of_unknown_type() {
    let mut t = Test::new();
    let c = t.channel();
    t.frame(c, 7, 1, b"hello");
    let text = "FRAME_ERROR - type 7, all octets = <<\"hello\">>: unknown_frame";
    t.expect(c, &[format!("0 connection.close 501 {text} 0/0")]);
}

#[test]
fn frames_too_short_for_their_type() {
    let mut t = Test::new();
    let c = t.channel();
    t.frame(c, 1, 1, &[0, 20]);
    let text = "FRAME_ERROR - type 1, all octets = <<0,20>>: unknown_frame";
    t.expect(c, &[format!("0 connection.close 501 {text} 0/0")]);
    let c = t.channel();
    t.frame(c, 2, 1, &[0, 60, 0, 0]);
    let text = "FRAME_ERROR - type 2, all octets = <<0,60,0,0>>: unknown_frame";
    t.expect(c, &[format!("0 connection.close 501 {text} 0/0")]);
}

#[test]
fn heartbeat_on_a_channel() {
    let mut t = Test::new();
    let c = t.channel();
    t.frame(c, 8, 1, b"");
    let text = "UNEXPECTED_FRAME - type 8, all octets = <<>>";
    t.expect(c, &[format!("0 connection.close 505 {text} 0/0")]);
}

#[test]
fn content_on_channel_0() {
    let mut t = Test::new();
    let c = t.channel();
    t.header(c, 0, 5);
    let text = "UNEXPECTED_FRAME - type 2, all octets = <<0,60,0,0,0,0,0,0,0,0,0,5,0,0>>";
    t.expect(c, &[format!("0 connection.close 505 {text} 0/0")]);
}

#[test]
fn long_snippets_are_cut() {
    let mut t = Test::new();
    let c = t.channel();
    t.frame(c, 3, 0, b"0123456789abcdefg");
    let text = "UNEXPECTED_FRAME - type 3, first 16 octets = <<\"0123456789abcdef\">>";
    t.expect(c, &[format!("0 connection.close 505 {text} 0/0")]);
}

#[test]
fn unknown_method_resets() {
    let mut t = Test::new();
    let c = t.channel();
    t.frame(c, 1, 1, &[0, 99, 0, 1]);
    t.expect(c, &[] as &[&str]);
    assert!(t.closed(c));
}

#[test]
fn malformed_table_resets() {
    let mut t = Test::new();
    let c = t.channel();
    t.frame(c, 1, 1, &[0, 50, 0, 10, 0, 0, 1, b'q', 0, 0, 0, 0, 3, 1, b'x', b'?']);
    t.expect(c, &[] as &[&str]);
    assert!(t.closed(c));
}

#[test]
fn methods_that_do_not_fit() {
    let mut t = Test::new();
    let c = t.channel();
    t.frame(c, 1, 1, &[0, 50, 0, 10, 0, 0, 9, b'q']);
    let text = "FRAME_ERROR - cannot decode <<0,0,9,113>>";
    t.expect(c, &[format!("0 connection.close 501 {text} 50/10")]);
    let c = t.channel();
    t.frame(c, 1, 1, &[0, 90, 0, 10, 0]);
    t.expect(c, &["0 connection.close 501 FRAME_ERROR - cannot decode <<0>> 90/10"]);
}

#[test]
fn names_must_be_utf8() {
    let mut t = Test::new();
    let text = "FRAME_ERROR - Malformed UTF-8 in shortstr";
    let c = t.channel();
    let m = queue::Declare { queue: b"\xff\xfe", ..declare("") };
    t.call(c, 1, Method::QueueDeclare(m), &format!("0 connection.close 501 {text} 0/0"));
    let c = t.channel();
    let m = basic::Cancel { consumer_tag: b"\xff", no_wait: false };
    t.call(c, 1, Method::BasicCancel(m), &format!("0 connection.close 501 {text} 0/0"));
}

/// Not so in methods that carry content.
#[test]
fn routing_keys_of_publishes_need_not_be_utf8() {
    let mut t = Test::new();
    let c = t.channel();
    let m = basic::Publish { exchange: b"", routing_key: b"\xff", mandatory: true, immediate: false };
    t.send(c, 1, Method::BasicPublish(m));
    t.content(c, 1, &BasicProperties::default(), b"x");
    let lines = t.take(c);
    assert!(lines[0].starts_with("1 basic.return 312"), "{lines:?}");
}

#[test]
fn channels_interleave() {
    let mut t = Test::new();
    let c = t.channel();
    t.open(c, 2);
    t.declare(c, 1, "woven");
    t.send(c, 1, publish("", "woven", false));
    t.send(c, 2, publish("", "woven", false));
    t.header(c, 2, 1);
    t.header(c, 1, 1);
    t.frame(c, 3, 1, b"1");
    t.send(c, 3, Method::ChannelOpen);
    t.frame(c, 3, 2, b"2");
    t.expect(c, &["3 channel.open-ok"]);
    t.call(c, 1, get("woven", true), "1 basic.get-ok 1 '' 'woven' 1 [1] 1");
    t.call(c, 1, get("woven", true), "1 basic.get-ok 2 '' 'woven' 0 [1] 2");
}

#[test]
fn message_above_the_limit() {
    let mut t = Test::model(Options { max_message_size: 10, ..Options::default() });
    let c = t.channel();
    t.declare(c, 1, "small");
    t.publish(c, 1, "", "small", "0123456789");
    t.publish(c, 1, "", "small", "0123456789a");
    let text = "PRECONDITION_FAILED - message size 11 is larger than max size 10";
    t.expect(c, &[format!("1 channel.close 406 {text} 60/40")]);
    let bodies: Vec<&[u8]> = t.broker().messages("/", b"small").collect();
    assert_eq!(bodies, [b"0123456789"]);
}

/// An announced size reserves no memory: this would need 16 exabytes.
#[test]
fn announced_sizes_cost_nothing() {
    let mut t = Test::model(Options::default());
    let c = t.channel();
    t.send(c, 1, publish("", "x", false));
    t.header(c, 1, u64::MAX);
    t.frame(c, 3, 1, b"x");
    t.expect(c, &[] as &[&str]);
    t.disconnect(c);
}

/// A half-sent publish is forgotten with its connection; a whole one is not.
#[test]
fn publishes_of_a_vanished_client() {
    let mut t = Test::new();
    let c = t.channel();
    let other = t.channel();
    t.declare(other, 1, "rest");
    t.publish(c, 1, "", "rest", "whole");
    t.send(c, 1, publish("", "rest", false));
    t.header(c, 1, 10);
    t.frame(c, 3, 1, b"half");
    t.disconnect(c);
    assert_eq!(t.counts(other, 1, "rest"), (1, 0));
}
