//! The walk over encoded entries: first as a check, later as a reading of what was checked.

use super::{Array, Table, Value};
use crate::read::Reader;

/// Deepest nesting of tables and arrays that is accepted, the outermost table counting as 1.
///
/// Neither the protocol nor RabbitMQ has a limit but the frame size, which leaves room for some 25,000 levels: here
/// each costs stack. Headers in use (`x-death`, traces) have three or four.
pub const MAX_TABLE_DEPTH: usize = 64;

/// `Some` when the entries end exactly where the bytes end. `depth` is that of this table.
pub(super) fn check_table(entries: &[u8], depth: usize) -> Option<()> {
    if depth > MAX_TABLE_DEPTH {
        return None;
    }
    let mut r = Reader::new(entries);
    while !r.is_empty() {
        r.short()?;
        check_value(&mut r, depth)?;
    }
    Some(())
}

fn check_array(elements: &[u8], depth: usize) -> Option<()> {
    if depth > MAX_TABLE_DEPTH {
        return None;
    }
    let mut r = Reader::new(elements);
    while !r.is_empty() {
        check_value(&mut r, depth)?;
    }
    Some(())
}

fn check_value(r: &mut Reader<'_>, depth: usize) -> Option<()> {
    match value(r)? {
        Value::Table(inner) => check_table(inner.0, depth + 1),
        Value::Array(inner) => check_array(inner.0, depth + 1),
        // Erlang has no such numbers: RabbitMQ fails to read them, and closes the connection or the channel.
        Value::Float(number) if !number.is_finite() => None,
        _ => Some(()),
    }
}

/// One value, its type octet first. What a nested table or array holds has not been looked at.
pub(super) fn value<'a>(r: &mut Reader<'a>) -> Option<Value<'a>> {
    Some(match r.u8()? {
        b'S' => Value::Str(r.long()?),
        b't' => Value::Bool(r.u8()? != 0),
        b'b' => Value::Int(i8::from_be_bytes(r.array()?).into()),
        b'B' => Value::Int(r.u8()?.into()),
        b's' => Value::Int(i16::from_be_bytes(r.array()?).into()),
        b'u' => Value::Int(r.u16()?.into()),
        b'I' => Value::Int(i32::from_be_bytes(r.array()?).into()),
        b'i' => Value::Int(r.u32()?.into()),
        b'l' | b'L' => Value::Int(i64::from_be_bytes(r.array()?)),
        b'f' => Value::Float(f32::from_be_bytes(r.array()?).into()),
        b'd' => Value::Float(f64::from_be_bytes(r.array()?)),
        b'T' => Value::Timestamp(r.u64()?),
        b'F' => Value::Table(Table(r.long()?)),
        b'A' => Value::Array(Array(r.long()?)),
        b'D' => skip(r, 5)?,
        b'x' => r.long().map(|_| Value::Other)?,
        b'V' => Value::Other,
        _ => return None,
    })
}

fn skip<'a>(r: &mut Reader<'a>, len: usize) -> Option<Value<'a>> {
    r.take(len).map(|_| Value::Other)
}
