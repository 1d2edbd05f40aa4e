//! What the tests against amq-protocol share: random values, and the same thing in both crates' types.
#![allow(dead_code)] // each test file is a crate of its own and uses its part

pub(crate) mod sample;
pub(crate) mod theirs;

use amq_protocol::frame::{AMQPFrame, gen_frame, parse_frame};
use amq_protocol::types::{AMQPValue, DecimalValue, FieldArray, FieldTable};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use warren_wire::table::encode_table;

use sample::Parts;

/// Strings that fit a short string, some of them with characters of several octets.
pub(crate) fn short_string() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-z./#*-]{0,12}",
        1 => any::<String>().prop_map(|s| warren_wire::reply::cut(&s).to_owned()),
    ]
}

fn scalar() -> impl Strategy<Value = AMQPValue> {
    prop_oneof![
        any::<bool>().prop_map(AMQPValue::Boolean),
        any::<i8>().prop_map(AMQPValue::ShortShortInt),
        any::<u8>().prop_map(AMQPValue::ShortShortUInt),
        any::<i16>().prop_map(AMQPValue::ShortInt),
        any::<u16>().prop_map(AMQPValue::ShortUInt),
        any::<i32>().prop_map(AMQPValue::LongInt),
        any::<u32>().prop_map(AMQPValue::LongUInt),
        any::<i64>().prop_map(AMQPValue::LongLongInt),
        any::<f32>().prop_filter("finite", |f| f.is_finite()).prop_map(AMQPValue::Float),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(AMQPValue::Double),
        any::<(u8, u32)>().prop_map(|(scale, value)| AMQPValue::DecimalValue(DecimalValue { scale, value })),
        vec(any::<u8>(), 0..20).prop_map(|v| AMQPValue::LongString(v.into())),
        vec(any::<u8>(), 0..20).prop_map(|v| AMQPValue::ByteArray(v.into())),
        any::<u64>().prop_map(AMQPValue::Timestamp),
        Just(AMQPValue::Void),
    ]
}

fn entries(value: impl Strategy<Value = AMQPValue>) -> impl Strategy<Value = FieldTable> {
    btree_map(short_string().prop_map(Into::into), value, 0..6).prop_map(FieldTable::from)
}

/// Tables with every type that RabbitMQ reads, nested a few times.
pub(crate) fn field_table() -> impl Strategy<Value = FieldTable> {
    entries(scalar().prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(|v| AMQPValue::FieldArray(FieldArray::from(v))),
            entries(inner).prop_map(AMQPValue::FieldTable),
        ]
    }))
}

/// Values to fill methods from.
pub(crate) fn parts() -> impl Strategy<Value = Parts> {
    (
        [short_string(), short_string(), short_string()],
        [vec(any::<u8>(), 0..40), vec(any::<u8>(), 0..40)],
        field_table().prop_map(|t| encode_table(&t)),
        any::<[bool; 6]>(),
        any::<[u16; 3]>(),
        any::<[u32; 2]>(),
        any::<u64>(),
    )
        .prop_map(|(short, long, table, bit, n16, n32, n64)| Parts {
            short,
            long,
            table,
            bit,
            n16,
            n32,
            n64,
        })
}

/// What is done to well-formed bytes to make them doubtful.
#[derive(Clone, Debug)]
pub(crate) enum Damage {
    Set(prop::sample::Index, u8),
    Cut(prop::sample::Index),
    Insert(prop::sample::Index, u8),
    Remove(prop::sample::Index),
}

/// One to three pieces of damage; the octets set are often ones that mean something in a table.
pub(crate) fn damage() -> impl Strategy<Value = Vec<Damage>> {
    let octet =
        prop_oneof![any::<u8>(), prop::sample::select(b"tbBsuUIilLfdDSxATFV\0\x01\x02\x7F\xFF".to_vec())];
    let index = any::<prop::sample::Index>;
    vec(
        prop_oneof![
            (index(), octet.clone()).prop_map(|(at, octet)| Damage::Set(at, octet)),
            index().prop_map(Damage::Cut),
            (index(), octet).prop_map(|(at, octet)| Damage::Insert(at, octet)),
            index().prop_map(Damage::Remove),
        ],
        1..4,
    )
}

/// `bytes` with the damage done.
pub(crate) fn damaged(mut bytes: Vec<u8>, damage: &[Damage]) -> Vec<u8> {
    for one in damage {
        if bytes.is_empty() {
            break;
        }
        match one {
            Damage::Set(at, octet) => {
                let at = at.index(bytes.len());
                bytes[at] = *octet;
            }
            Damage::Cut(at) => bytes.truncate(at.index(bytes.len())),
            Damage::Insert(at, octet) => bytes.insert(at.index(bytes.len()), *octet),
            Damage::Remove(at) => {
                bytes.remove(at.index(bytes.len()));
            }
        }
    }
    bytes
}

/// The frame as amq-protocol writes it.
pub(crate) fn their_bytes(frame: &AMQPFrame) -> Vec<u8> {
    let mut buf = vec![0; 1 << 20];
    let position = gen_frame(frame)(buf.as_mut_slice().into()).expect("room enough").position;
    buf.truncate(usize::try_from(position).expect("a small frame"));
    buf
}

/// The frame as amq-protocol reads it: all of `bytes` or nothing.
pub(crate) fn their_frame(bytes: &[u8]) -> Option<AMQPFrame> {
    match parse_frame(bytes) {
        Ok(([], frame)) => Some(frame),
        _ => None,
    }
}

/// A frame around a payload, without any check.
pub(crate) fn framed(kind: u8, channel: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&u32::try_from(payload.len()).expect("a small payload").to_be_bytes());
    out.extend_from_slice(payload);
    out.push(warren_wire::frame::FRAME_END);
    out
}

/// Whether something printed holds a number that no RabbitMQ reads; a string that looks like one will do.
pub(crate) fn has_non_finite(printed: &impl std::fmt::Debug) -> bool {
    let printed = format!("{printed:?}");
    printed.contains("NaN") || printed.contains("inf")
}
