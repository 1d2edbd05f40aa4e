//! Reply codes and texts.

use warren_wire::reply::{MAX_TEXT, code_name, cut, cut_bytes, text};

#[test]
fn texts_read_as_those_of_brokers() {
    assert_eq!(text(404, "no exchange 'x' in vhost '/'"), "NOT_FOUND - no exchange 'x' in vhost '/'");
    assert_eq!(code_name(320), "CONNECTION_FORCED");
    assert_eq!(code_name(501), "FRAME_ERROR");
    assert_eq!(code_name(999), "UNKNOWN_CODE");
}

#[test]
fn a_cut_text_fits_and_stays_text() {
    assert_eq!(cut(&"a".repeat(255)).len(), MAX_TEXT);
    assert_eq!(cut(&"a".repeat(256)).len(), MAX_TEXT);
    for (character, before) in
        [("ä", 0), ("ä", 1), ("€", 0), ("€", 1), ("€", 2), ("🐇", 0), ("🐇", 1), ("🐇", 2), ("🐇", 3)]
    {
        let long = "x".repeat(before) + &character.repeat(200);
        let short = cut(&long);
        assert!(long.starts_with(short) && short.len() <= MAX_TEXT);
        assert!(short.len() + character.len() > MAX_TEXT, "as much as fits of {character} after {before}");
    }
}

#[test]
fn bytes_that_are_no_text_are_cut_too() {
    assert_eq!(cut_bytes(&[0x80; 300]).len(), MAX_TEXT);
    assert_eq!(cut_bytes(&[0xFF; 300]).len(), MAX_TEXT);
    assert_eq!(cut_bytes(b"").len(), 0);
}
