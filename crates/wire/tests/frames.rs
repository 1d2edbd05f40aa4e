//! The walk over frames.

use warren_wire::FrameError;
use warren_wire::frame::{
    FRAME_BODY, FRAME_HEARTBEAT, FRAME_METHOD, Frame, HEARTBEAT_FRAME, announced_len, get_u64, next_frame,
    put_u64, set_channel,
};

const BODY: &[u8] = &[3, 1, 2, 0, 0, 0, 3, b'a', b'b', b'c', 0xCE];

#[test]
fn a_whole_frame_is_found_where_it_lies() {
    let mut buf = HEARTBEAT_FRAME.to_vec();
    buf.extend_from_slice(BODY);
    let first = next_frame(&buf, 0, 100).unwrap().unwrap();
    assert_eq!(first, Frame { kind: FRAME_HEARTBEAT, channel: 0, start: 0, end: 8 });
    assert_eq!(first.payload(&buf), b"");
    let second = next_frame(&buf, first.end, 100).unwrap().unwrap();
    assert_eq!(second, Frame { kind: FRAME_BODY, channel: 0x0102, start: 8, end: 19 });
    assert_eq!((second.payload(&buf), second.len()), (&b"abc"[..], 11));
    assert_eq!(next_frame(&buf, second.end, 100), Ok(None));
    assert_eq!(next_frame(&buf, second.end + 1, 100), Ok(None));
}

#[test]
fn every_beginning_of_a_frame_waits_for_more() {
    for len in 0..BODY.len() {
        assert_eq!(next_frame(&BODY[..len], 0, 100), Ok(None), "{len} octets");
        assert_eq!(announced_len(&BODY[..len], 0), (len >= 7).then_some(11), "{len} octets");
    }
}

#[test]
fn a_payload_may_be_as_large_as_agreed_and_no_larger() {
    assert!(next_frame(BODY, 0, 3).unwrap().is_some());
    let refused = Err(FrameError::TooLarge { kind: FRAME_BODY, size: 3, max: 2 });
    assert_eq!(next_frame(BODY, 0, 2), refused);
    assert_eq!(next_frame(&BODY[..7], 0, 2), refused, "the header is enough");
    assert_eq!(next_frame(&BODY[..6], 0, 2), Ok(None));
}

#[test]
fn the_largest_size_there_is_overflows_nothing() {
    let header = [FRAME_METHOD, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF, 0];
    assert_eq!(next_frame(&header, 0, u32::MAX), Ok(None));
    assert_eq!(announced_len(&header, 0), Some(u32::MAX as usize + 8));
    assert_eq!(next_frame(&header, usize::MAX, u32::MAX), Ok(None));
}

#[test]
fn another_end_octet_is_refused() {
    let mut buf = BODY.to_vec();
    *buf.last_mut().unwrap() = 0xCD;
    assert_eq!(next_frame(&buf, 0, 100), Err(FrameError::End(0xCD)));
}

#[test]
fn other_types_are_refused_at_their_first_octet() {
    for kind in (0..=255).filter(|kind| ![1, 2, 3, 8].contains(kind)) {
        let mut buf = BODY.to_vec();
        buf[0] = kind;
        assert_eq!(next_frame(&buf, 0, 100), Err(FrameError::Type(kind)));
        assert_eq!(next_frame(&buf[..1], 0, 100), Err(FrameError::Type(kind)));
    }
}

#[test]
fn rewriting_touches_its_field_only() {
    let mut buf = [0u8; 20];
    set_channel(&mut buf, 4, 0xABCD);
    assert_eq!(buf[4..8], [0, 0xAB, 0xCD, 0]);
    let mut buf = [0xEE; 12];
    put_u64(&mut buf, 2, 0x0102_0304_0506_0708);
    assert_eq!(buf, [0xEE, 0xEE, 1, 2, 3, 4, 5, 6, 7, 8, 0xEE, 0xEE]);
    assert_eq!(get_u64(&buf, 2), 0x0102_0304_0506_0708);
}

#[test]
fn rewriting_past_the_end_does_nothing() {
    let mut buf = [1u8; 8];
    set_channel(&mut buf, 6, 9);
    put_u64(&mut buf, 1, 9);
    put_u64(&mut buf, 100, 9);
    assert_eq!((buf, get_u64(&buf, 1), get_u64(&buf, 100)), ([1; 8], 0, 0));
}

#[test]
fn errors_speak_to_people() {
    let error = FrameError::TooLarge { kind: 3, size: 200_000, max: 131_064 };
    assert_eq!(error.to_string(), "frame of type 3 with 200000 octets of payload, 131064 allowed");
    assert_eq!(FrameError::End(0).to_string(), "frame ends in 0x00, not 0xCE");
    assert_eq!(FrameError::Type(65).to_string(), "unknown frame type 65");
}
