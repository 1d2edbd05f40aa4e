//! What the fuzz targets call, and the replay of their corpora on stable. Each function takes any bytes and panics
//! when something that must hold for all bytes does not.

use amq_protocol_types::parsing::parse_field_table;

use crate::content::{CONTENT_HEADER_LEN, check_properties, write_content};
use crate::frame::{FRAME_OVERHEAD, Frame, FrameError, announced_len, next_frame, set_channel};
use crate::method::{self, basic, method_id, name, split_id};
use crate::read::Reader;
use crate::table::{MAX_TABLE_DEPTH, Value, encode_table};
use crate::{BasicProperties, ContentHeader, Malformed, Method, MethodError, Table};

/// A stream of frames, in any pieces: the first two octets are the largest payload, the third says where the
/// stream is cut, the rest is the stream.
pub fn frames(data: &[u8]) {
    let Some((&[hi, lo, cut], stream)) = data.split_first_chunk::<3>() else {
        return;
    };
    let max = u32::from(u16::from_be_bytes([hi, lo]));
    let (whole, end) = walk(stream, max);
    let cut = &stream[..stream.len() * usize::from(cut) / 255];
    let (first, state) = walk(cut, max);
    assert!(whole.starts_with(&first), "a cut stream has the same frames");
    if state.is_err() {
        assert_eq!(state, end, "what is refused early is refused later too");
    }
    rewrite(stream, &whole);
}

/// All whole frames, and whether the bytes after them were refused.
fn walk(stream: &[u8], max: u32) -> (Vec<Frame>, Result<(), FrameError>) {
    let (mut frames, mut at) = (Vec::new(), 0);
    loop {
        match next_frame(stream, at, max) {
            Ok(Some(frame)) => {
                assert_eq!(frame.start, at);
                assert_eq!(announced_len(stream, at), Some(frame.len()));
                assert_eq!(frame.payload(stream).len() + FRAME_OVERHEAD, frame.len());
                assert!(frame.end <= stream.len() && frame.payload(stream).len() <= max as usize);
                at = frame.end;
                frames.push(frame);
            }
            Ok(None) => {
                assert!(announced_len(stream, at).is_none_or(|len| at + len > stream.len()));
                return (frames, Ok(()));
            }
            Err(error) => return (frames, Err(error)),
        }
    }
}

/// Rewriting channel numbers changes them and nothing else.
fn rewrite(stream: &[u8], frames: &[Frame]) {
    let mut copy = stream.to_vec();
    for frame in frames {
        set_channel(&mut copy, frame.start, !frame.channel);
        let again = next_frame(&copy, frame.start, u32::MAX).expect("a frame").expect("a whole frame");
        assert_eq!(again, Frame { channel: !frame.channel, ..*frame });
        assert_eq!(again.payload(&copy), frame.payload(stream));
        set_channel(&mut copy, frame.start, frame.channel);
    }
    assert_eq!(copy, stream);
}

/// The payload of a method frame.
pub fn methods(data: &[u8]) {
    let id = method_id(data);
    match Method::parse(data) {
        Ok(method) => {
            assert_eq!(Some(method.id()), id);
            assert!(name(method.id()).is_some());
            let mut frame = Vec::new();
            method.write(7, &mut frame);
            let found = next_frame(&frame, 0, u32::MAX).expect("a frame").expect("a whole frame");
            assert_eq!((found.kind, found.channel, found.end), (crate::frame::FRAME_METHOD, 7, frame.len()));
            assert_eq!(Method::parse(found.payload(&frame)), Ok(method));
            method.strings_are_utf8();
            shortcuts(data, method);
        }
        Err(MethodError::Truncated) => assert!(data.len() < 4),
        Err(error @ MethodError::Unknown(id)) => {
            assert!(name(id).is_none());
            assert!(error.to_string().contains(&split_id(id).0.to_string()));
        }
        Err(MethodError::Malformed(bad)) => assert!(name(bad).is_some() && Some(bad) == id),
    }
    // The shorter ways accept nothing that the long way refuses.
    assert_eq!(
        basic::Publish::parse(data).is_ok(),
        matches!(Method::parse(data), Ok(Method::BasicPublish(_)))
    );
    assert_eq!(
        basic::Deliver::parse(data).is_ok(),
        matches!(Method::parse(data), Ok(Method::BasicDeliver(_)))
    );
    assert_eq!(basic::Ack::parse(data).is_ok(), matches!(Method::parse(data), Ok(Method::BasicAck(_))));
}

/// The shorter ways give what the long way gives.
fn shortcuts(data: &[u8], method: Method<'_>) {
    let tag = match method {
        Method::BasicPublish(publish) => {
            assert_eq!(basic::Publish::parse(data), Ok(publish));
            None
        }
        Method::BasicDeliver(deliver) => {
            assert_eq!(basic::Deliver::parse(data), Ok(deliver));
            Some(deliver.delivery_tag)
        }
        Method::BasicAck(ack) => {
            assert_eq!(basic::Ack::parse(data), Ok(ack));
            Some(ack.delivery_tag)
        }
        Method::BasicNack(nack) => Some(nack.delivery_tag),
        Method::BasicReject(reject) => Some(reject.delivery_tag),
        Method::BasicGetOk(get) => Some(get.delivery_tag),
        _ => None,
    };
    assert_eq!(basic::delivery_tag_at(data).map(|at| crate::frame::get_u64(data, at)), tag);
    assert_eq!(method::id(split_id(method.id()).0, split_id(method.id()).1), method.id());
}

/// The encoded entries of a table, held against amq-protocol-types.
pub fn tables(data: &[u8]) {
    // Their parser has no limit on nesting: what is longer could use up the stack, theirs, not ours.
    if data.len() > 4096 {
        let _ = Table::from_encoded(data);
        return;
    }
    let mut with_len = Vec::new();
    crate::write::long(&mut with_len, data);
    let theirs = match parse_field_table(&with_len[..]) {
        Ok(([], table)) => Some(table),
        _ => None,
    };
    match Table::from_encoded(data) {
        Ok(table) => {
            let utf8 = look_through(&table);
            assert_eq!(table.as_bytes(), data);
            assert_eq!(table.to_field_table(), theirs.clone().ok_or(Malformed));
            assert_eq!(utf8, theirs.is_some(), "they read every table with keys in UTF-8");
            if let Some(theirs) = theirs {
                let again = encode_table(&theirs);
                assert_eq!(Table::from_encoded(&again).expect("what we wrote").to_field_table(), Ok(theirs));
            }
        }
        Err(Malformed) if theirs.is_some() => {
            assert_eq!(
                only_theirs(data, false, 1),
                Some(true),
                "nothing explains why they read it and we do not"
            );
        }
        Err(Malformed) => {}
    }
}

/// Visits every value; says whether all keys are UTF-8.
fn look_through(table: &Table<'_>) -> bool {
    let mut utf8 = true;
    for (key, value) in table {
        utf8 &= std::str::from_utf8(key).is_ok() & look_into(&value);
        assert!(table.get(key).is_some());
    }
    utf8
}

fn look_into(value: &Value<'_>) -> bool {
    match value {
        Value::Table(inner) => look_through(inner),
        Value::Array(inner) => inner.iter().fold(true, |utf8, element| utf8 & look_into(&element)),
        Value::Float(number) => {
            assert!(number.is_finite());
            true
        }
        _ => true,
    }
}

/// Whether something in it is read by amq-protocol alone: type `U`, NaN, an infinity, or deep nesting. It walks
/// from scratch, to the first such thing, and takes well-formed entries for granted.
fn only_theirs(encoded: &[u8], array: bool, depth: usize) -> Option<bool> {
    if depth > MAX_TABLE_DEPTH {
        return Some(true);
    }
    let mut r = Reader::new(encoded);
    while !r.is_empty() {
        if !array {
            r.short()?;
        }
        let found = match r.u8()? {
            b'U' => true,
            b'd' => !f64::from_be_bytes(r.array()?).is_finite(),
            b'f' => !f32::from_be_bytes(r.array()?).is_finite(),
            b'F' => only_theirs(r.long()?, false, depth + 1)?,
            b'A' => only_theirs(r.long()?, true, depth + 1)?,
            b'S' | b'x' => r.long().map(|_| false)?,
            b't' | b'b' | b'B' => r.take(1).map(|_| false)?,
            b's' | b'u' => r.take(2).map(|_| false)?,
            b'I' | b'i' => r.take(4).map(|_| false)?,
            b'D' => r.take(5).map(|_| false)?,
            b'l' | b'L' | b'T' => r.take(8).map(|_| false)?,
            _ => false,
        };
        if found {
            return Some(true);
        }
    }
    Some(false)
}

/// The payload of a content header frame.
pub fn content(data: &[u8]) {
    let Some(header) = ContentHeader::peek(data) else {
        assert!(data.len() < CONTENT_HEADER_LEN);
        return;
    };
    assert_eq!(header.class.to_be_bytes(), data[..2]);
    let list = &data[CONTENT_HEADER_LEN..];
    let properties = BasicProperties::parse(list);
    assert_eq!(check_properties(list), properties.map(|_| ()));
    let Ok(properties) = properties else { return };
    let mut again = Vec::new();
    properties.write(&mut again);
    assert_eq!(again, list, "there is one way to write properties");
    let (mut out, frame_max) = (Vec::new(), 8 + u32::from(data[11]));
    write_content(1, &properties, data, frame_max, &mut out);
    let (frames, end) = walk(&out, u32::MAX);
    assert_eq!(end, Ok(()));
    assert_eq!(frames.last().map(|frame| frame.end), Some(out.len()));
    let body: Vec<u8> = frames[1..].iter().flat_map(|frame| frame.payload(&out)).copied().collect();
    assert_eq!(body, data);
}
