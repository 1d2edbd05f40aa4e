//! Our reading and writing of methods against amq-protocol's.
//!
//! Known differences, beside those of tables (`agree_tables.rs`): amq-protocol wants UTF-8 in every short string,
//! has no prefetch_size in basic.qos and no ticket in access.request-ok.

mod common;

use amq_protocol::frame::AMQPFrame;
use common::{damage, damaged, framed, parts, their_bytes, their_frame};
use proptest::prelude::*;
use warren_wire::frame::{FRAME_METHOD, next_frame};
use warren_wire::method::name;
use warren_wire::{Method, MethodError, MethodId, Table};

fn ours(method: &Method<'_>, channel: u16) -> Vec<u8> {
    let mut out = Vec::new();
    method.write(channel, &mut out);
    out
}

/// The payload of the one frame that `bytes` is.
fn payload(bytes: &[u8]) -> &[u8] {
    let frame = next_frame(bytes, 0, u32::MAX).expect("a frame").expect("a whole frame");
    assert_eq!((frame.start, frame.end, frame.kind), (0, bytes.len(), FRAME_METHOD));
    frame.payload(bytes)
}

/// What amq-protocol cannot hold, in the form it will have after it was there.
fn without_what_theirs_lack<'a>(method: &Method<'a>) -> Method<'a> {
    match *method {
        Method::BasicQos(mut qos) => {
            qos.prefetch_size = 0;
            Method::BasicQos(qos)
        }
        Method::AccessRequestOk(mut ok) => {
            ok.ticket = 1;
            Method::AccessRequestOk(ok)
        }
        other => other,
    }
}

proptest! {
    /// Every method written here reads there as the same method, field by field, and the other way round.
    #[test]
    fn every_method_means_the_same_to_both(parts in parts(), channel: u16) {
        for method in common::sample::all(&parts) {
            let expected = AMQPFrame::Method(channel, common::theirs::to_theirs(&method));
            let bytes = ours(&method, channel);
            prop_assert_eq!(Method::parse(payload(&bytes)), Ok(method));
            prop_assert_eq!(their_frame(&bytes), Some(expected.clone()));
            let theirs = their_bytes(&expected);
            prop_assert_eq!(Method::parse(payload(&theirs)), Ok(without_what_theirs_lack(&method)));
            let lossless = without_what_theirs_lack(&method);
            prop_assert_eq!(theirs, ours(&lossless, channel), "{:?}", method);
        }
    }

    /// What is left of a method after some damage is a method to both or to neither.
    #[test]
    fn damaged_methods_are_judged_alike(parts in parts(), which: prop::sample::Index, damage in damage()) {
        let methods = common::sample::all(&parts);
        let bytes = ours(&methods[which.index(methods.len())], 1);
        agree(&damaged(payload(&bytes).to_vec(), &damage));
    }

    /// Bytes without meaning behind the number of a method.
    #[test]
    fn random_fields_are_judged_alike(which: prop::sample::Index, fields: Vec<u8>) {
        let ids = known_ids();
        let mut payload = ids[which.index(ids.len())].to_be_bytes().to_vec();
        payload.extend(fields);
        agree(&payload);
    }

    /// Bytes without any meaning.
    #[test]
    fn random_payloads_are_judged_alike(payload: Vec<u8>) {
        agree(&payload);
    }
}

/// Both read the payload, to the same method, or neither does; the known differences aside.
fn agree(payload: &[u8]) {
    let theirs = their_frame(&framed(FRAME_METHOD, 1, payload));
    match (Method::parse(payload), theirs) {
        (Ok(method), Some(theirs)) => {
            assert_eq!(AMQPFrame::Method(1, common::theirs::to_theirs(&method)), theirs);
        }
        (Ok(method), None) => assert!(not_for_theirs(&method, payload), "only ours reads {method:?}"),
        (Err(error), Some(theirs)) => {
            assert!(matches!(error, MethodError::Malformed(_)), "{error}: {theirs:?}");
            if !common::has_non_finite(&theirs) {
                assert!(payload.contains(&b'U'), "only theirs reads {theirs:?}");
                // They write 'U' as 's': then it is a method to us too.
                Method::parse(self::payload(&their_bytes(&theirs))).expect("what they wrote again");
            }
        }
        (Err(_), None) => {}
    }
}

/// Whether something is not UTF-8 where amq-protocol wants it: a short string or the key of a table.
fn not_for_theirs(method: &Method<'_>, payload: &[u8]) -> bool {
    let utf8 = |strings: &[&[u8]]| strings.iter().all(|s| std::str::from_utf8(s).is_ok());
    let content = match method {
        Method::BasicPublish(m) => utf8(&[m.exchange, m.routing_key]),
        Method::BasicDeliver(m) => utf8(&[m.consumer_tag, m.exchange, m.routing_key]),
        Method::BasicReturn(m) => utf8(&[m.reply_text, m.exchange, m.routing_key]),
        Method::BasicGetOk(m) => utf8(&[m.exchange, m.routing_key]),
        // Reserved strings, which are dropped: there is nothing else in these.
        Method::ChannelOpen
        | Method::ConnectionOpen(_)
        | Method::ConnectionOpenOk
        | Method::BasicGetEmpty => utf8(&[&payload[4..]]),
        _ => true,
    };
    !content || !method.strings_are_utf8() || table_of(method).is_some_and(|t| t.to_field_table().is_err())
}

fn table_of<'a>(method: &Method<'a>) -> Option<Table<'a>> {
    match method {
        Method::ConnectionStart(m) => Some(m.server_properties),
        Method::ConnectionStartOk(m) => Some(m.client_properties),
        Method::ExchangeDeclare(m) => Some(m.arguments),
        Method::ExchangeBind(m) => Some(m.arguments),
        Method::ExchangeUnbind(m) => Some(m.arguments),
        Method::QueueDeclare(m) => Some(m.arguments),
        Method::QueueBind(m) => Some(m.arguments),
        Method::QueueUnbind(m) => Some(m.arguments),
        Method::BasicConsume(m) => Some(m.arguments),
        _ => None,
    }
}

fn known_ids() -> Vec<MethodId> {
    (0..=120)
        .flat_map(|class| (0..=130).map(move |method| warren_wire::method::id(class, method)))
        .filter(|id| name(*id).is_some())
        .collect()
}
