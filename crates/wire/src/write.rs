//! Encoding of the elementary types, and of the frame around them.

use crate::frame::{FRAME_END, HEADER_LEN};
use crate::reply;
use crate::table::Table;

pub(crate) fn u8(out: &mut Vec<u8>, v: u8) {
    out.push(v);
}

pub(crate) fn u16(out: &mut Vec<u8>, v: u16) {
    out.extend_from_slice(&v.to_be_bytes());
}

pub(crate) fn u32(out: &mut Vec<u8>, v: u32) {
    out.extend_from_slice(&v.to_be_bytes());
}

pub(crate) fn u64(out: &mut Vec<u8>, v: u64) {
    out.extend_from_slice(&v.to_be_bytes());
}

/// Bits share an octet, the first in the lowest place (AMQP 0-9-1, 4.2.5.2). At most eight.
pub(crate) fn bits(out: &mut Vec<u8>, bits: &[bool]) {
    debug_assert!(bits.len() <= 8);
    out.push(bits.iter().rev().fold(0, |octet, bit| octet << 1 | u8::from(*bit)));
}

/// A short string. What does not fit in 255 octets is cut at a character boundary: such strings are texts made
/// by Warren, names were read from a short string and fit.
pub(crate) fn short(out: &mut Vec<u8>, s: &[u8]) {
    let s = reply::cut_bytes(s);
    out.push(u8::try_from(s.len()).unwrap_or(u8::MAX));
    out.extend_from_slice(s);
}

pub(crate) fn long(out: &mut Vec<u8>, s: &[u8]) {
    // Nothing in memory here comes near 4 GiB; were it so, the string is cut rather than its length a lie.
    let len = u32::try_from(s.len()).unwrap_or(u32::MAX);
    u32(out, len);
    out.extend_from_slice(&s[..len as usize]);
}

pub(crate) fn table(out: &mut Vec<u8>, t: Table<'_>) {
    long(out, t.as_bytes());
}

/// Begins a frame whose payload is then appended to `out`; [`end_frame`] wants the value returned.
pub(crate) fn begin_frame(kind: u8, channel: u16, out: &mut Vec<u8>) -> usize {
    let start = out.len();
    let [hi, lo] = channel.to_be_bytes();
    out.extend_from_slice(&[kind, hi, lo, 0, 0, 0, 0]);
    start
}

/// Writes the size that [`begin_frame`] left open, and the end octet.
pub(crate) fn end_frame(start: usize, out: &mut Vec<u8>) {
    let size = u32::try_from(out.len() - start - HEADER_LEN).unwrap_or(u32::MAX);
    out[start + 3..start + HEADER_LEN].copy_from_slice(&size.to_be_bytes());
    out.push(FRAME_END);
}
