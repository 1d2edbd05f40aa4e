//! Our reading and writing of content against amq-protocol's.
//!
//! Known differences, beside those of tables: amq-protocol wants UTF-8 in short strings, and ignores the flags that
//! belong to no property (bits 0 and 1). RabbitMQ ignores them too; no client sends them, and a broker that takes
//! bit 0 at its word (further flags follow) reads something else, so we refuse them.

mod common;

use amq_protocol::frame::{AMQPContentHeader, AMQPFrame};
use amq_protocol::protocol::basic::AMQPProperties;
use common::sample::Parts;
use common::{damage, damaged, framed, has_non_finite, parts, their_bytes, their_frame};
use proptest::prelude::*;
use warren_wire::content::{CONTENT_HEADER_LEN, check_properties, write_content, write_header};
use warren_wire::frame::{FRAME_BODY, FRAME_HEADER, FRAME_OVERHEAD, next_frame};
use warren_wire::{BasicProperties, ContentHeader, Table};

/// Properties from random values, each there or not.
fn properties<'a>(p: &'a Parts, there: &[bool; 14]) -> BasicProperties<'a> {
    let short = |i: usize, n: usize| there[i].then(|| p.short[n % 3].as_bytes());
    BasicProperties {
        content_type: short(0, 0),
        content_encoding: short(1, 1),
        headers: there[2].then(|| Table::from_encoded(&p.table).expect("a well-formed table")),
        delivery_mode: there[3].then(|| p.n16[0].to_be_bytes()[0]),
        priority: there[4].then(|| p.n16[1].to_be_bytes()[0]),
        correlation_id: short(5, 2),
        reply_to: short(6, 0),
        expiration: short(7, 1),
        message_id: short(8, 2),
        timestamp: there[9].then_some(p.n64),
        kind: short(10, 0),
        user_id: short(11, 1),
        app_id: short(12, 2),
        cluster_id: short(13, 0),
    }
}

fn to_theirs(p: &BasicProperties<'_>) -> AMQPProperties {
    let mut t = AMQPProperties::default();
    let text = |s: &[u8]| std::str::from_utf8(s).expect("UTF-8").into();
    if let Some(v) = p.content_type {
        t = t.with_content_type(text(v));
    }
    if let Some(v) = p.content_encoding {
        t = t.with_content_encoding(text(v));
    }
    if let Some(v) = p.headers {
        t = t.with_headers(v.to_field_table().expect("UTF-8 keys"));
    }
    if let Some(v) = p.delivery_mode {
        t = t.with_delivery_mode(v);
    }
    if let Some(v) = p.priority {
        t = t.with_priority(v);
    }
    if let Some(v) = p.correlation_id {
        t = t.with_correlation_id(text(v));
    }
    if let Some(v) = p.reply_to {
        t = t.with_reply_to(text(v));
    }
    if let Some(v) = p.expiration {
        t = t.with_expiration(text(v));
    }
    if let Some(v) = p.message_id {
        t = t.with_message_id(text(v));
    }
    if let Some(v) = p.timestamp {
        t = t.with_timestamp(v);
    }
    if let Some(v) = p.kind {
        t = t.with_type(text(v));
    }
    if let Some(v) = p.user_id {
        t = t.with_user_id(text(v));
    }
    if let Some(v) = p.app_id {
        t = t.with_app_id(text(v));
    }
    if let Some(v) = p.cluster_id {
        t = t.with_cluster_id(text(v));
    }
    t
}

fn their_header(body_size: u64, properties: AMQPProperties) -> AMQPFrame {
    AMQPFrame::Header(3, AMQPContentHeader { class_id: 60, body_size, properties })
}

/// Both read the property list, to the same properties, or neither does; the known differences aside.
fn agree(list: &[u8]) {
    let mut payload = vec![0, 60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 7];
    payload.extend_from_slice(list);
    let theirs = their_frame(&framed(FRAME_HEADER, 3, &payload));
    let ours = BasicProperties::parse(list);
    assert_eq!(check_properties(list).is_ok(), ours.is_ok());
    match (ours, theirs) {
        (Ok(ours), Some(theirs)) => assert_eq!(their_header(7, to_theirs(&ours)), theirs),
        (Ok(ours), None) => assert!(!utf8(&ours), "only ours reads {ours:?}"),
        (Err(_), Some(theirs)) if list[1] & 3 == 0 && !has_non_finite(&theirs) => {
            assert!(list.contains(&b'U'), "only theirs reads {theirs:?}");
            let again = their_bytes(&theirs);
            let payload = &again[FRAME_OVERHEAD - 1..again.len() - 1];
            check_properties(&payload[CONTENT_HEADER_LEN..]).expect("what they wrote again");
        }
        (Err(_), _) => {}
    }
}

fn utf8(p: &BasicProperties<'_>) -> bool {
    let strings = [
        p.content_type,
        p.content_encoding,
        p.correlation_id,
        p.reply_to,
        p.expiration,
        p.message_id,
        p.kind,
        p.user_id,
        p.app_id,
        p.cluster_id,
    ];
    strings.iter().flatten().all(|s| std::str::from_utf8(s).is_ok())
        && p.headers.is_none_or(|t| t.to_field_table().is_ok())
}

proptest! {
    #[test]
    fn headers_are_written_and_read_alike(parts in parts(), there: [bool; 14], body_size: u64) {
        let properties = properties(&parts, &there);
        let mut bytes = Vec::new();
        write_header(3, body_size, &properties, &mut bytes);
        let theirs = their_header(body_size, to_theirs(&properties));
        prop_assert_eq!(&bytes, &their_bytes(&theirs));
        prop_assert_eq!(their_frame(&bytes), Some(theirs));
        let frame = next_frame(&bytes, 0, u32::MAX).unwrap().unwrap();
        prop_assert_eq!((frame.kind, frame.channel, frame.end), (FRAME_HEADER, 3, bytes.len()));
        let payload = frame.payload(&bytes);
        prop_assert_eq!(ContentHeader::peek(payload), Some(ContentHeader { class: 60, weight: 0, body_size }));
        prop_assert_eq!(check_properties(&payload[CONTENT_HEADER_LEN..]), Ok(()));
        prop_assert_eq!(BasicProperties::parse(&payload[CONTENT_HEADER_LEN..]), Ok(properties));
    }

    #[test]
    fn damaged_properties_are_judged_alike(parts in parts(), there: [bool; 14], damage in damage()) {
        let mut list = Vec::new();
        properties(&parts, &there).write(&mut list);
        agree(&damaged(list, &damage));
    }

    #[test]
    fn random_bytes_are_judged_alike(list: Vec<u8>) {
        agree(&list);
    }

    /// The body arrives whole, in frames that fit, none of them empty.
    #[test]
    fn bodies_are_split_to_frame_max(body in prop::collection::vec(any::<u8>(), 0..500), frame_max in 9u32..200) {
        let mut bytes = Vec::new();
        write_content(9, &BasicProperties::default(), &body, frame_max, &mut bytes);
        let (mut at, mut again, mut sizes) = (0, Vec::new(), Vec::new());
        while let Some(frame) = next_frame(&bytes, at, u32::MAX).unwrap() {
            if frame.start > 0 {
                prop_assert_eq!((frame.kind, frame.channel), (FRAME_BODY, 9));
                prop_assert!(frame.len() <= frame_max as usize && frame.len() > FRAME_OVERHEAD);
                sizes.push(frame.len());
                again.extend_from_slice(frame.payload(&bytes));
            }
            at = frame.end;
        }
        prop_assert_eq!((at, again), (bytes.len(), body));
        sizes.pop();
        prop_assert!(sizes.iter().all(|size| *size == frame_max as usize));
    }
}
