//! Methods: the bytes of a few, and what holds for all.

mod common;

use std::collections::BTreeSet;

use common::sample::{self, Parts};
use warren_wire::frame::get_u64;
use warren_wire::method::{self, basic, channel, connection, name, queue, split_id};
use warren_wire::{Method, MethodError, Table, reply};

fn frame(method: Method<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    method.write(0x0203, &mut out);
    out
}

/// The payload that `method` is written as.
fn payload(method: Method<'_>) -> Vec<u8> {
    let frame = frame(method);
    frame[7..frame.len() - 1].to_vec()
}

fn parts() -> Parts {
    Parts {
        short: ["one".into(), "two".into(), "three".into()],
        long: [b"first".to_vec(), b"second".to_vec()],
        table: b"\x01kt\x01".to_vec(),
        bit: [true, false, true, false, true, false],
        n16: [404, 60, 40],
        n32: [70_000, 9],
        n64: 0x1122_3344_5566_7788,
    }
}

#[test]
fn a_publish_in_octets() {
    let publish = basic::Publish { exchange: b"x", routing_key: b"key", mandatory: true, immediate: false };
    let expected = b"\x01\x02\x03\0\0\0\x0d\0\x3c\0\x28\0\0\x01x\x03key\x01\xce";
    assert_eq!(frame(Method::BasicPublish(publish)), expected);
    assert_eq!(basic::Publish::parse(&expected[7..20]), Ok(publish));
}

#[test]
fn a_declare_in_octets() {
    let declare = queue::Declare {
        queue: b"q",
        passive: false,
        durable: true,
        exclusive: false,
        auto_delete: true,
        no_wait: false,
        arguments: Table::from_encoded(b"\x01at\x01").unwrap(),
    };
    let expected = b"\x01\x02\x03\0\0\0\x11\0\x32\0\x0a\0\0\x01q\x0a\0\0\0\x04\x01at\x01\xce";
    assert_eq!(frame(Method::QueueDeclare(declare)), expected);
}

#[test]
fn methods_without_fields_in_octets() {
    assert_eq!(payload(Method::TxCommitOk), [0, 90, 0, 21]);
    assert_eq!(payload(Method::ChannelOpen), [0, 20, 0, 10, 0]);
    assert_eq!(payload(Method::ChannelOpenOk), [0, 20, 0, 11, 0, 0, 0, 0]);
    assert_eq!(payload(Method::ConnectionOpenOk), [0, 10, 0, 41, 0]);
    assert_eq!(payload(Method::BasicGetEmpty), [0, 60, 0, 72, 0]);
}

#[test]
fn every_method_has_a_number_and_a_name() {
    let parts = parts();
    let methods = sample::all(&parts);
    let ids: BTreeSet<_> = methods.iter().map(Method::id).collect();
    assert_eq!((ids.len(), methods.len()), (66, 66));
    for method in methods {
        let variant: String =
            format!("{method:?}").chars().take_while(|c| c.is_ascii_alphanumeric()).collect();
        let words = name(method.id()).unwrap().replace(['.', '-'], "");
        assert_eq!(variant.to_lowercase(), words);
    }
    let named = (0..=0xFF)
        .flat_map(|class| (0..=0xFF).map(move |m| method::id(class, m)))
        .filter(|id| name(*id).is_some());
    assert_eq!(named.count(), 66);
    assert_eq!(split_id(connection::CLOSE), (10, 50));
    assert_eq!(method::method_id(&[0, 20, 0, 40, 1]), Some(channel::CLOSE));
    assert_eq!(method::method_id(&[0, 20, 0]), None);
}

/// Neither the beginning of a method nor one with octets left over is a method.
#[test]
fn fields_must_fill_the_frame_exactly() {
    let parts = parts();
    for method in sample::all(&parts) {
        let whole = payload(method);
        assert_eq!(Method::parse(&whole), Ok(method));
        let malformed = Err(MethodError::Malformed(method.id()));
        for len in 4..whole.len() {
            assert_eq!(Method::parse(&whole[..len]), malformed, "{len} octets of {method:?}");
        }
        for len in 0..4 {
            assert_eq!(Method::parse(&whole[..len]), Err(MethodError::Truncated));
        }
        let longer = [&whole[..], &[0]].concat();
        assert_eq!(Method::parse(&longer), malformed, "{method:?} and an octet");
    }
}

#[test]
fn unknown_methods_are_named_by_number() {
    for (class, number) in [(60, 99), (11, 10), (0, 0), (85, 12), (0xFFFF, 0xFFFF)] {
        let id = method::id(class, number);
        let error = Method::parse(&id.to_be_bytes()).unwrap_err();
        assert_eq!(error, MethodError::Unknown(id));
        assert_eq!(error.to_string(), format!("unknown method {number} of class {class}"));
    }
    assert_eq!(MethodError::Malformed(queue::DECLARE).to_string(), "malformed queue.declare");
}

#[test]
fn reserved_fields_may_hold_anything() {
    assert_eq!(Method::parse(b"\0\x14\0\x0a\x03abc"), Ok(Method::ChannelOpen));
    let get = basic::Get { queue: b"q", no_ack: true };
    // A ticket, and bits that mean nothing.
    assert_eq!(Method::parse(b"\0\x3c\0\x46\xAB\xCD\x01q\xFF"), Ok(Method::BasicGet(get)));
}

#[test]
fn a_malformed_table_makes_the_method_malformed() {
    let mut whole =
        payload(sample::all(&parts())[..].iter().find(|m| m.id() == queue::DECLARE).copied().unwrap());
    let tag = whole.len() - 2;
    whole[tag] = b'Z';
    assert_eq!(Method::parse(&whole), Err(MethodError::Malformed(queue::DECLARE)));
}

#[test]
fn delivery_tags_are_found_in_place() {
    let parts = parts();
    let mut with_tag = Vec::new();
    for method in sample::all(&parts) {
        let whole = payload(method);
        if let Some(at) = basic::delivery_tag_at(&whole) {
            assert_eq!(get_u64(&whole, at), parts.n64, "{method:?}");
            assert_eq!(basic::delivery_tag_at(&whole[..at + 7]), None, "{method:?} cut");
            with_tag.push(name(method.id()).unwrap());
        }
    }
    assert_eq!(with_tag, ["basic.deliver", "basic.get-ok", "basic.ack", "basic.reject", "basic.nack"]);
    assert_eq!(basic::delivery_tag_at(&basic::DELIVER.to_be_bytes()), None);
}

#[test]
fn the_shorter_ways_read_their_own_method_only() {
    let parts = parts();
    for method in sample::all(&parts) {
        let whole = payload(method);
        let ours = [basic::PUBLISH, basic::DELIVER, basic::ACK].map(|id| id == method.id());
        let read = [
            basic::Publish::parse(&whole).is_ok(),
            basic::Deliver::parse(&whole).is_ok(),
            basic::Ack::parse(&whole).is_ok(),
        ];
        assert_eq!(read, ours, "{method:?}");
    }
    assert_eq!(basic::Ack::parse(b"\0"), Err(MethodError::Truncated));
}

#[test]
fn texts_too_long_are_cut_at_a_character() {
    let text = reply::text(404, &"ä".repeat(200));
    let close = channel::Close { reply_code: 404, reply_text: text.as_bytes(), class_id: 60, method_id: 40 };
    let whole = payload(Method::ChannelClose(close));
    let Ok(Method::ChannelClose(read)) = Method::parse(&whole) else { panic!("not a close") };
    assert_eq!(read.reply_text, reply::cut(&text).as_bytes());
    assert_eq!(read.reply_text.len(), 254, "255 would cut a character in two");
}

/// RabbitMQ wants UTF-8 in all short strings of methods without content.
#[test]
fn strings_that_must_be_utf8() {
    let mut bad = Vec::new();
    for i in 0..3 {
        let parts = parts();
        for method in sample::all(&parts) {
            let mut whole = payload(method);
            let Some(at) = whole.windows(parts.short[i].len()).position(|w| w == parts.short[i].as_bytes())
            else {
                continue;
            };
            whole[at] = 0xFF;
            let content =
                [basic::PUBLISH, basic::RETURN, basic::DELIVER, basic::GET_OK].contains(&method.id());
            assert!(method.strings_are_utf8());
            assert_eq!(Method::parse(&whole).unwrap().strings_are_utf8(), content, "{method:?}");
            bad.push(method.id());
        }
    }
    assert_eq!(bad.iter().collect::<BTreeSet<_>>().len(), 26, "methods with short strings");
}
