//! Tables, by the octet.

use warren_wire::table::{MAX_TABLE_DEPTH, encode_table};
use warren_wire::{Malformed, Table, Value};

fn read(entries: &[u8]) -> Result<Table<'_>, Malformed> {
    Table::from_encoded(entries)
}

/// An entry with key `k`.
fn entry(tag: u8, value: &[u8]) -> Vec<u8> {
    [&[1, b'k', tag], value].concat()
}

fn with_len(bytes: &[u8]) -> Vec<u8> {
    [&u32::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

#[test]
fn every_type_has_its_length_and_value() {
    let cases: [(u8, Vec<u8>, Value<'_>); 18] = [
        (b't', vec![2], Value::Bool(true)),
        (b'b', vec![0xFF], Value::Int(-1)),
        (b'B', vec![0xFF], Value::Int(255)),
        (b's', vec![0xFF, 0xFE], Value::Int(-2)),
        (b'u', vec![0xFF, 0xFE], Value::Int(65_534)),
        (b'I', vec![0xFF; 4], Value::Int(-1)),
        (b'i', vec![0xFF; 4], Value::Int(4_294_967_295)),
        (b'l', vec![0xFF; 8], Value::Int(-1)),
        (b'L', vec![0xFF; 8], Value::Int(-1)),
        (b'f', 0.5f32.to_be_bytes().to_vec(), Value::Float(0.5)),
        (b'd', 0.1f64.to_be_bytes().to_vec(), Value::Float(0.1)),
        (b'T', vec![0xFF; 8], Value::Timestamp(u64::MAX)),
        (b'D', vec![2, 0, 0, 1, 0], Value::Other),
        (b'S', with_len(b"\xFFabc"), Value::Str(b"\xFFabc")),
        (b'x', with_len(b"abc"), Value::Other),
        (b'V', vec![], Value::Other),
        (b'F', with_len(b"\x01at\0"), Value::Table(read(b"\x01at\0").unwrap())),
        (b't', vec![0], Value::Bool(false)),
    ];
    for (tag, value, expected) in cases {
        let bytes = entry(tag, &value);
        let table = read(&bytes).unwrap();
        assert_eq!(table.get(b"k"), Some(expected), "{}", tag as char);
        for len in 1..bytes.len() {
            assert_eq!(read(&bytes[..len]), Err(Malformed), "{len} octets of {}", tag as char);
        }
    }
}

#[test]
fn arrays_hold_values_without_keys() {
    let bytes = entry(b'A', &with_len(b"t\x01VS\0\0\0\x01a"));
    let Some(Value::Array(array)) = read(&bytes).unwrap().get(b"k") else { panic!("not an array") };
    let elements: Vec<_> = array.iter().collect();
    assert_eq!(elements, [Value::Bool(true), Value::Other, Value::Str(b"a")]);
    assert_eq!(read(&entry(b'A', &with_len(b"tt"))), Ok(read(&entry(b'A', &with_len(b"tt"))).unwrap()));
    assert_eq!(read(&entry(b'A', &with_len(b"t"))), Err(Malformed));
}

#[test]
fn what_is_nested_fills_its_length_exactly() {
    // An octet too many inside, an octet too few inside, and a length that reaches past the outer end.
    assert_eq!(read(b"\x01kF\0\0\0\x05\x01at\x01\x01"), Err(Malformed));
    assert_eq!(read(b"\x01kF\0\0\0\x03\x01at\x01"), Err(Malformed));
    assert_eq!(read(b"\x01kF\0\0\0\x05\x01at\x01"), Err(Malformed));
    assert!(read(b"\x01kF\0\0\0\x04\x01at\x01").is_ok());
}

#[test]
fn types_that_rabbitmq_does_not_read_are_refused() {
    for tag in (0..=255u8).filter(|tag| !b"tbBsuIilLfdDSxATFV".contains(tag)) {
        assert_eq!(read(&entry(tag, &[0; 8])), Err(Malformed), "{tag}");
    }
}

#[test]
fn numbers_that_rabbitmq_does_not_read_are_refused() {
    for number in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
        assert_eq!(read(&entry(b'd', &number.to_be_bytes())), Err(Malformed));
        assert_eq!(
            read(&entry(b'A', &with_len(&[&b"d"[..], &number.to_be_bytes()].concat()))),
            Err(Malformed)
        );
    }
    assert_eq!(read(&entry(b'f', &f32::NAN.to_be_bytes())), Err(Malformed));
    assert!(read(&entry(b'd', &(-0.0f64).to_be_bytes())).is_ok());
    assert!(read(&entry(b'd', &f64::MAX.to_be_bytes())).is_ok());
}

#[test]
fn of_equal_keys_the_first_counts() {
    let table = read(b"\x01at\x01\x01at\0\x02abV").unwrap();
    assert_eq!(table.get(b"a"), Some(Value::Bool(true)));
    assert_eq!(table.get(b"ab"), Some(Value::Other));
    assert_eq!((table.get(b""), table.get(b"b")), (None, None));
    assert_eq!(table.iter().count(), 3);
}

#[test]
fn keys_need_not_be_utf8_until_somebody_wants_text() {
    let table = read(b"\x01\xFFV").unwrap();
    assert_eq!(table.get(b"\xFF"), Some(Value::Other));
    assert_eq!(table.to_field_table(), Err(Malformed));
}

/// `depth` tables or arrays in each other, the outermost a table.
fn nested(depth: usize, tag: u8) -> Vec<u8> {
    let key: &[u8] = if tag == b'F' { b"\x01k" } else { b"" };
    let mut inner = Vec::new();
    for level in 1..depth {
        let key = if level == depth - 1 { b"\x01k" } else { key };
        inner = [key, &[tag], &with_len(&inner)].concat();
    }
    inner
}

#[test]
fn nesting_ends_at_the_limit() {
    for tag in *b"FA" {
        assert!(read(&nested(MAX_TABLE_DEPTH, tag)).is_ok());
        assert_eq!(read(&nested(MAX_TABLE_DEPTH + 1, tag)), Err(Malformed));
    }
}

/// What a whole frame has room for, on a stack that is small.
#[test]
fn deep_nesting_does_not_use_up_the_stack() {
    let test = || {
        for tag in *b"FA" {
            assert_eq!(read(&nested(18_000, tag)), Err(Malformed));
            let deepest = nested(MAX_TABLE_DEPTH, tag);
            let owned = read(&deepest).unwrap().to_field_table().unwrap();
            assert_eq!(encode_table(&owned), deepest);
        }
    };
    std::thread::Builder::new().stack_size(512 * 1024).spawn(test).unwrap().join().unwrap();
}

#[test]
fn the_empty_table() {
    assert_eq!(read(b""), Ok(Table::EMPTY));
    assert!(Table::EMPTY.is_empty() && Table::default().is_empty());
    assert_eq!(Table::EMPTY.iter().count(), 0);
    assert_eq!(encode_table(&Table::EMPTY.to_field_table().unwrap()), b"");
}
