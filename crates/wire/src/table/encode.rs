//! From owned tables to bytes.

use amq_protocol_types::{AMQPValue, FieldTable};

use crate::write;

/// The entries of `table` as [`super::Table`] wants them: encoded, without the four octets of length.
///
/// Tables made here hold what Warren put in; one nested deeper than [`super::MAX_TABLE_DEPTH`] or holding a NaN is
/// encoded all the same, and [`super::Table::from_encoded`] refuses it.
pub fn encode_table(table: &FieldTable) -> Vec<u8> {
    let mut out = Vec::new();
    put_entries(&mut out, table);
    out
}

fn put_entries(out: &mut Vec<u8>, table: &FieldTable) {
    for (key, value) in table {
        write::short(out, key.as_str().as_bytes());
        put_value(out, value);
    }
}

/// Writes what `body` appends, with its length in four octets before it.
fn with_len(out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    out.extend_from_slice(&[0; 4]);
    body(out);
    let len = u32::try_from(out.len() - at - 4).unwrap_or(u32::MAX);
    out[at..at + 4].copy_from_slice(&len.to_be_bytes());
}

fn put_value(out: &mut Vec<u8>, value: &AMQPValue) {
    match value {
        AMQPValue::Boolean(v) => out.extend_from_slice(&[b't', u8::from(*v)]),
        AMQPValue::ShortShortInt(v) => tagged(out, b'b', &v.to_be_bytes()),
        AMQPValue::ShortShortUInt(v) => tagged(out, b'B', &v.to_be_bytes()),
        AMQPValue::ShortInt(v) => tagged(out, b's', &v.to_be_bytes()),
        AMQPValue::ShortUInt(v) => tagged(out, b'u', &v.to_be_bytes()),
        AMQPValue::LongInt(v) => tagged(out, b'I', &v.to_be_bytes()),
        AMQPValue::LongUInt(v) => tagged(out, b'i', &v.to_be_bytes()),
        AMQPValue::LongLongInt(v) => tagged(out, b'l', &v.to_be_bytes()),
        AMQPValue::Float(v) => tagged(out, b'f', &v.to_be_bytes()),
        AMQPValue::Double(v) => tagged(out, b'd', &v.to_be_bytes()),
        AMQPValue::Timestamp(v) => tagged(out, b'T', &v.to_be_bytes()),
        AMQPValue::DecimalValue(v) => {
            out.extend_from_slice(&[b'D', v.scale]);
            write::u32(out, v.value);
        }
        // There are no short strings in the tables of RabbitMQ ('s' is a 16-bit integer).
        AMQPValue::ShortString(v) => tagged_long(out, b'S', v.as_str().as_bytes()),
        AMQPValue::LongString(v) => tagged_long(out, b'S', v.as_bytes()),
        AMQPValue::ByteArray(v) => tagged_long(out, b'x', v.as_slice()),
        AMQPValue::FieldTable(v) => {
            out.push(b'F');
            with_len(out, |out| put_entries(out, v));
        }
        AMQPValue::FieldArray(v) => {
            out.push(b'A');
            with_len(out, |out| {
                for element in v.as_slice() {
                    put_value(out, element);
                }
            });
        }
        AMQPValue::Void => out.push(b'V'),
    }
}

fn tagged(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    out.extend_from_slice(bytes);
}

fn tagged_long(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    out.push(tag);
    write::long(out, bytes);
}
