//! Our walk over tables against amq-protocol's parser.
//!
//! Known differences, all of them RabbitMQ's reading (3.10, its own parser asked) but the depth:
//! - amq-protocol wants UTF-8 in keys; RabbitMQ and we do not.
//! - amq-protocol reads type `U`; RabbitMQ and we do not.
//! - amq-protocol reads NaN and infinities; RabbitMQ and we do not.
//! - amq-protocol has no limit on nesting, nor has RabbitMQ; we have.
//! - Of equal keys amq-protocol keeps the last; RabbitMQ looks up the first, and so do we.

mod common;

use amq_protocol::types::parsing::parse_field_table;
use amq_protocol::types::{AMQPValue, FieldTable, generation::gen_field_table};
use common::{damage, damaged, field_table, has_non_finite};
use proptest::prelude::*;
use warren_wire::table::{Array, Table, Value, encode_table};

/// The encoded entries, as amq-protocol reads them.
fn theirs(entries: &[u8]) -> Option<FieldTable> {
    let mut bytes = u32::try_from(entries.len()).expect("a small table").to_be_bytes().to_vec();
    bytes.extend_from_slice(entries);
    match parse_field_table(&bytes[..]) {
        Ok(([], table)) => Some(table),
        _ => None,
    }
}

/// The encoded entries, as amq-protocol writes them.
fn their_entries(table: &FieldTable) -> Vec<u8> {
    let mut buf = vec![0; 1 << 20];
    let position = gen_field_table(table)(buf.as_mut_slice().into()).expect("room enough").position;
    buf[4..usize::try_from(position).expect("a small table")].to_vec()
}

fn utf8_keys(table: &Table<'_>) -> bool {
    table.iter().all(|(key, value)| std::str::from_utf8(key).is_ok() && utf8_keys_within(&value))
}

fn utf8_keys_within(value: &Value<'_>) -> bool {
    match value {
        Value::Table(inner) => utf8_keys(inner),
        Value::Array(inner) => inner.iter().all(|element| utf8_keys_within(&element)),
        _ => true,
    }
}

fn same_table(ours: &Table<'_>, theirs: &FieldTable) -> bool {
    ours.iter().count() == theirs.inner().len()
        && ours.iter().all(|(key, value)| {
            let key = std::str::from_utf8(key).expect("UTF-8");
            ours.get(key.as_bytes()) == Some(value) && same_value(&value, &theirs.inner()[key])
        })
}

fn same_array(ours: &Array<'_>, theirs: &[AMQPValue]) -> bool {
    ours.iter().count() == theirs.len() && ours.iter().zip(theirs).all(|(a, b)| same_value(&a, b))
}

fn same_value(ours: &Value<'_>, theirs: &AMQPValue) -> bool {
    match theirs {
        AMQPValue::Boolean(v) => *ours == Value::Bool(*v),
        AMQPValue::ShortShortInt(v) => *ours == Value::Int((*v).into()),
        AMQPValue::ShortShortUInt(v) => *ours == Value::Int((*v).into()),
        AMQPValue::ShortInt(v) => *ours == Value::Int((*v).into()),
        AMQPValue::ShortUInt(v) => *ours == Value::Int((*v).into()),
        AMQPValue::LongInt(v) => *ours == Value::Int((*v).into()),
        AMQPValue::LongUInt(v) => *ours == Value::Int((*v).into()),
        AMQPValue::LongLongInt(v) => *ours == Value::Int(*v),
        AMQPValue::Float(v) => *ours == Value::Float((*v).into()),
        AMQPValue::Double(v) => *ours == Value::Float(*v),
        AMQPValue::Timestamp(v) => *ours == Value::Timestamp(*v),
        AMQPValue::LongString(v) => *ours == Value::Str(v.as_bytes()),
        AMQPValue::FieldTable(v) => matches!(ours, Value::Table(t) if same_table(t, v)),
        AMQPValue::FieldArray(v) => matches!(ours, Value::Array(a) if same_array(a, v.as_slice())),
        AMQPValue::DecimalValue(_) | AMQPValue::ByteArray(_) | AMQPValue::Void => *ours == Value::Other,
        AMQPValue::ShortString(_) => false,
    }
}

/// Both read the entries, to the same values, or neither does; the known differences aside.
fn agree(entries: &[u8]) {
    match (Table::from_encoded(entries), theirs(entries)) {
        (Ok(table), Some(theirs)) => {
            assert_eq!(table.to_field_table().as_ref(), Ok(&theirs));
            // Of equal keys theirs has lost one.
            assert!(
                same_table(&table, &theirs) || table.iter().count() > theirs.inner().len() || nested(&table)
            );
        }
        (Ok(table), None) => assert!(!utf8_keys(&table), "only ours reads {table:?}"),
        (Err(_), Some(theirs)) if !has_non_finite(&theirs) => {
            assert!(entries.contains(&b'U'), "only theirs reads {theirs:?}");
            Table::from_encoded(&encode_table(&theirs)).expect("'U' written as 's'");
        }
        (Err(_), _) => {}
    }
}

/// Whether there are tables within, in which keys may be equal too.
fn nested(table: &Table<'_>) -> bool {
    table.iter().any(|(_, value)| matches!(value, Value::Table(_) | Value::Array(_)))
}

proptest! {
    #[test]
    fn tables_are_written_and_read_alike(table in field_table()) {
        let entries = encode_table(&table);
        prop_assert_eq!(&entries, &their_entries(&table));
        let ours = Table::from_encoded(&entries).expect("a well-formed table");
        prop_assert_eq!(ours.as_bytes(), &entries[..]);
        prop_assert!(same_table(&ours, &table), "{:?}", ours);
        prop_assert_eq!(ours.to_field_table(), Ok(table));
    }

    #[test]
    fn damaged_tables_are_judged_alike(table in field_table(), damage in damage()) {
        agree(&damaged(encode_table(&table), &damage));
    }

    #[test]
    fn random_bytes_are_judged_alike(entries: Vec<u8>) {
        agree(&entries);
    }

    /// Short runs of the octets that mean something are tables more often than random ones.
    #[test]
    fn likely_bytes_are_judged_alike(
        entries in prop::collection::vec(
            prop::sample::select(b"tbBsuUIilLfdDSxATFV\0\0\0\0\x01\x02\x03\x05\xFF".to_vec()), 0..24)
    ) {
        agree(&entries);
    }
}
