//! Content headers and bodies, by the octet.

use warren_wire::content::{check_properties, write_body, write_content, write_header};
use warren_wire::{BasicProperties, ContentHeader, Malformed};

/// One property of each kind with its flag: name, flags, value.
const ONE_EACH: [(&str, u16, &[u8]); 14] = [
    ("content_type", 1 << 15, b"\x01a"),
    ("content_encoding", 1 << 14, b"\x01a"),
    ("headers", 1 << 13, b"\0\0\0\x04\x01kt\x01"),
    ("delivery_mode", 1 << 12, b"\x02"),
    ("priority", 1 << 11, b"\x09"),
    ("correlation_id", 1 << 10, b"\x01a"),
    ("reply_to", 1 << 9, b"\x01a"),
    ("expiration", 1 << 8, b"\x01a"),
    ("message_id", 1 << 7, b"\x01a"),
    ("timestamp", 1 << 6, b"\0\0\0\0\0\0\0\x05"),
    ("kind", 1 << 5, b"\x01a"),
    ("user_id", 1 << 4, b"\x01a"),
    ("app_id", 1 << 3, b"\x01a"),
    ("cluster_id", 1 << 2, b"\x01a"),
];

#[test]
fn a_header_in_octets() {
    let mut out = Vec::new();
    let properties = BasicProperties { delivery_mode: Some(2), message_id: Some(b"m"), ..Default::default() };
    write_header(7, 0x0102, &properties, &mut out);
    let expected = b"\x02\0\x07\0\0\0\x11\0\x3c\0\0\0\0\0\0\0\0\x01\x02\x10\x80\x02\x01m\xce";
    assert_eq!(out, expected);
    assert_eq!(
        ContentHeader::peek(&expected[7..24]),
        Some(ContentHeader { class: 60, weight: 0, body_size: 0x0102 })
    );
    assert_eq!(ContentHeader::peek(&expected[7..18]), None);
    let odd = ContentHeader::peek(&[0, 61, 0, 1, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF]).unwrap();
    assert_eq!((odd.class, odd.weight, odd.body_size), (61, 1, u64::MAX));
}

/// Each property alone: its flag, its length, its field.
#[test]
fn each_property_has_its_flag() {
    for (name, flag, value) in ONE_EACH {
        let list = [&flag.to_be_bytes(), value].concat();
        assert_eq!(check_properties(&list), Ok(()), "{name}");
        let printed = format!("{:?}", BasicProperties::parse(&list).unwrap());
        assert_eq!(printed.matches("Some(").count(), 1, "{printed}");
        assert!(printed.contains(&format!("{name}: Some(")), "{name} in {printed}");
        let mut again = Vec::new();
        BasicProperties::parse(&list).unwrap().write(&mut again);
        assert_eq!(again, list);
    }
}

#[test]
fn the_list_must_be_as_long_as_its_flags_say() {
    let flags = ONE_EACH.iter().fold(0, |flags, (_, flag, _)| flags | flag);
    let mut list = flags.to_be_bytes().to_vec();
    for (_, _, value) in ONE_EACH {
        list.extend_from_slice(value);
    }
    assert_eq!(check_properties(&list), Ok(()));
    for len in 0..list.len() {
        assert_eq!(check_properties(&list[..len]), Err(Malformed), "{len} octets");
    }
    list.push(0);
    assert_eq!(check_properties(&list), Err(Malformed));
    assert_eq!(check_properties(&[0, 0, 0]), Err(Malformed));
    assert_eq!(check_properties(&[0x10, 0]), Err(Malformed));
    assert_eq!(check_properties(&[0x10, 0, 2, 0]), Err(Malformed));
}

#[test]
fn flags_of_no_property_are_refused() {
    assert_eq!(check_properties(&[0, 1]), Err(Malformed));
    assert_eq!(check_properties(&[0, 1, 0, 0]), Err(Malformed));
    assert_eq!(check_properties(&[0, 2]), Err(Malformed));
    assert_eq!(check_properties(&[0x10, 2, 2]), Err(Malformed));
}

#[test]
fn a_malformed_headers_table_is_refused() {
    assert_eq!(check_properties(b"\x20\0\0\0\0\x03\x01kV"), Ok(()));
    assert_eq!(check_properties(b"\x20\0\0\0\0\x03\x01kZ"), Err(Malformed));
    assert_eq!(check_properties(b"\x20\0\xFF\xFF\xFF\xFF\x01kV"), Err(Malformed));
}

#[test]
fn a_body_in_octets() {
    let mut out = Vec::new();
    write_body(0x0102, b"ab", &mut out);
    assert_eq!(out, b"\x03\x01\x02\0\0\0\x02ab\xce");
}

#[test]
fn bodies_are_split_where_they_must_be() {
    let sizes = |body: usize, frame_max: u32| {
        let mut out = Vec::new();
        write_content(1, &BasicProperties::default(), &vec![0; body], frame_max, &mut out);
        let (mut at, mut sizes) = (0, Vec::new());
        while let Some(frame) = warren_wire::frame::next_frame(&out, at, u32::MAX).unwrap() {
            sizes.push(frame.payload(&out).len());
            at = frame.end;
        }
        assert_eq!(at, out.len());
        sizes
    };
    assert_eq!(sizes(0, 4096), [14]);
    assert_eq!(sizes(4088, 4096), [14, 4088]);
    assert_eq!(sizes(4089, 4096), [14, 4088, 1]);
    assert_eq!(sizes(100_000, 0), [14, 100_000]);
}
