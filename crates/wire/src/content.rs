//! Content: the header frame with its properties, and the body frames (AMQP 0-9-1, 2.3.5.2).

mod properties;

use crate::Malformed;
use crate::frame::{FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_OVERHEAD};
use crate::write;

pub use properties::BasicProperties;

/// Octets of a header frame's payload before its properties.
pub const CONTENT_HEADER_LEN: usize = 12;

/// The fixed part of a content header.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ContentHeader {
    /// Class of the method that the content belongs to: 60.
    pub class: u16,
    /// Must be 0; RabbitMQ closes the connection with 505 otherwise (BROKER-FACTS).
    pub weight: u16,
    /// Octets of body that follow, in as many body frames as the sender likes.
    pub body_size: u64,
}

impl ContentHeader {
    /// The fixed part, given the payload of a header frame. `None` when it is shorter than
    /// [`CONTENT_HEADER_LEN`]; the properties after it are not looked at ([`check_properties`]).
    #[inline]
    pub fn peek(payload: &[u8]) -> Option<ContentHeader> {
        let &[c0, c1, w0, w1, ref size @ ..] = payload.first_chunk::<CONTENT_HEADER_LEN>()?;
        Some(ContentHeader {
            class: u16::from_be_bytes([c0, c1]),
            weight: u16::from_be_bytes([w0, w1]),
            body_size: u64::from_be_bytes(*size),
        })
    }
}

/// Whether the property flags and the property list that follow the fixed part are well formed, to the last octet.
/// Allocates nothing. A header that fails makes RabbitMQ close the connection with 541 (BROKER-FACTS).
#[inline]
pub fn check_properties(payload_after_12: &[u8]) -> Result<(), Malformed> {
    match payload_after_12 {
        [0, 0] => Ok(()),
        // Only delivery_mode: what publishers of small messages send.
        [0x10, 0, _] => Ok(()),
        _ => properties::check(payload_after_12).ok_or(Malformed),
    }
}

/// Appends a whole header frame of class basic.
pub fn write_header(channel: u16, body_size: u64, properties: &BasicProperties<'_>, out: &mut Vec<u8>) {
    let start = write::begin_frame(FRAME_HEADER, channel, out);
    write::u16(out, 60);
    write::u16(out, 0);
    write::u64(out, body_size);
    properties.write(out);
    write::end_frame(start, out);
}

/// Appends one whole body frame. The caller has seen to it that the payload fits frame_max.
pub fn write_body(channel: u16, payload: &[u8], out: &mut Vec<u8>) {
    let start = write::begin_frame(FRAME_BODY, channel, out);
    out.extend_from_slice(payload);
    write::end_frame(start, out);
}

/// Appends a header frame and the body, split so that no body frame is larger than `frame_max` octets (overhead
/// included; 0 means no limit). An empty body has no body frame. The header frame is not split: properties that do
/// not fit `frame_max` are for the caller to refuse.
pub fn write_content(
    channel: u16,
    properties: &BasicProperties<'_>,
    body: &[u8],
    frame_max: u32,
    out: &mut Vec<u8>,
) {
    write_header(channel, body.len() as u64, properties, out);
    let frame_max = if frame_max == 0 { u32::MAX as usize } else { frame_max as usize };
    for part in body.chunks(frame_max.saturating_sub(FRAME_OVERHEAD).max(1)) {
        write_body(channel, part, out);
    }
    debug_assert_eq!(out.last(), Some(&FRAME_END));
}
