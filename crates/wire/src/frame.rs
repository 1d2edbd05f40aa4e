//! The walk over frames in a buffer, in place (AMQP 0-9-1, 2.3.5 and 4.2.3).
//!
//! A frame is a header of 7 octets (type, channel, payload size), the payload, and the end octet 0xCE. The walk
//! runs for every frame that passes, so it looks at the header and the end octet and at nothing else.

use std::fmt;

/// Frame type: method.
pub const FRAME_METHOD: u8 = 1;
/// Frame type: content header.
pub const FRAME_HEADER: u8 = 2;
/// Frame type: content body.
pub const FRAME_BODY: u8 = 3;
/// Frame type: heartbeat.
pub const FRAME_HEARTBEAT: u8 = 8;
/// Last octet of every frame.
pub const FRAME_END: u8 = 0xCE;
/// Octets of a frame before its payload.
pub const HEADER_LEN: usize = 7;
/// Octets of a frame that are not payload: the header and the end octet.
pub const FRAME_OVERHEAD: usize = HEADER_LEN + 1;
/// Smallest frame_max that may be negotiated (AMQP 0-9-1, 4.9), and what holds before tune.
pub const FRAME_MIN_SIZE: u32 = 4096;
/// What a client sends first.
pub const PROTOCOL_HEADER: [u8; 8] = *b"AMQP\0\0\x09\x01";
/// A whole heartbeat frame. Always on channel 0.
pub const HEARTBEAT_FRAME: [u8; 8] = [FRAME_HEARTBEAT, 0, 0, 0, 0, 0, 0, FRAME_END];

/// Where a whole frame lies in the buffer it was found in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frame {
    /// One of [`FRAME_METHOD`], [`FRAME_HEADER`], [`FRAME_BODY`], [`FRAME_HEARTBEAT`].
    pub kind: u8,
    /// Channel number.
    pub channel: u16,
    /// Index of the first octet of the frame header.
    pub start: usize,
    /// Index past the end octet; the next frame begins here.
    pub end: usize,
}

impl Frame {
    /// The payload, given the buffer the frame was found in. Empty for a buffer that is too short.
    #[inline]
    pub fn payload<'a>(&self, buf: &'a [u8]) -> &'a [u8] {
        buf.get(self.start + HEADER_LEN..self.end - 1).unwrap_or_default()
    }

    /// Octets of the whole frame, overhead included. Never less than [`FRAME_OVERHEAD`].
    #[inline]
    #[allow(clippy::len_without_is_empty)] // no frame is empty
    pub fn len(&self) -> usize {
        self.end - self.start
    }
}

/// Why the bytes cannot be a frame. After it nothing in the stream can be trusted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    /// No such frame type.
    Type(u8),
    /// The payload announced is larger than what was negotiated.
    TooLarge {
        /// Frame type.
        kind: u8,
        /// Payload octets announced.
        size: u32,
        /// Payload octets allowed.
        max: u32,
    },
    /// The octet where the end octet should be.
    End(u8),
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Type(kind) => write!(f, "unknown frame type {kind}"),
            FrameError::TooLarge { kind, size, max } => {
                write!(f, "frame of type {kind} with {size} octets of payload, {max} allowed")
            }
            FrameError::End(octet) => write!(f, "frame ends in 0x{octet:02X}, not 0xCE"),
        }
    }
}

impl std::error::Error for FrameError {}

#[inline]
fn known(kind: u8) -> bool {
    matches!(kind, FRAME_METHOD | FRAME_HEADER | FRAME_BODY | FRAME_HEARTBEAT)
}

/// The whole frame that begins at `at`, or `None` when more octets are needed.
///
/// `max_payload` is the frame_max negotiated less [`FRAME_OVERHEAD`]; a larger payload is refused as soon as the
/// header is there, so that no buffer grows for it. An unknown type is refused at its first octet.
#[inline]
pub fn next_frame(buf: &[u8], at: usize, max_payload: u32) -> Result<Option<Frame>, FrameError> {
    let Some(rest) = buf.get(at..) else {
        return Ok(None);
    };
    let Some(&[kind, c0, c1, s0, s1, s2, s3]) = rest.first_chunk::<HEADER_LEN>() else {
        return match rest.first() {
            Some(&kind) if !known(kind) => Err(FrameError::Type(kind)),
            _ => Ok(None),
        };
    };
    if !known(kind) {
        return Err(FrameError::Type(kind));
    }
    let size = u32::from_be_bytes([s0, s1, s2, s3]);
    if size > max_payload {
        return Err(FrameError::TooLarge { kind, size, max: max_payload });
    }
    let last = (size as usize).saturating_add(HEADER_LEN);
    match rest.get(last) {
        Some(&FRAME_END) => {
            let channel = u16::from_be_bytes([c0, c1]);
            Ok(Some(Frame { kind, channel, start: at, end: at + last + 1 }))
        }
        Some(&octet) => Err(FrameError::End(octet)),
        None => Ok(None),
    }
}

/// Octets that the frame beginning at `at` will have in all, once its header is there. Nothing is checked:
/// [`next_frame`] has refused what is too large.
pub fn announced_len(buf: &[u8], at: usize) -> Option<usize> {
    let header = buf.get(at..)?.first_chunk::<HEADER_LEN>()?;
    let size = u32::from_be_bytes([header[3], header[4], header[5], header[6]]);
    Some((size as usize).saturating_add(FRAME_OVERHEAD))
}

/// Rewrites the channel number of the frame that begins at `frame_start`. Out of range: nothing happens.
#[inline]
pub fn set_channel(buf: &mut [u8], frame_start: usize, channel: u16) {
    if let Some(field) = buf.get_mut(frame_start + 1..frame_start + 3) {
        field.copy_from_slice(&channel.to_be_bytes());
    }
}

/// Overwrites eight octets at `at`, as for a delivery tag. Out of range: nothing happens.
#[inline]
pub fn put_u64(buf: &mut [u8], at: usize, v: u64) {
    if let Some(field) = buf.get_mut(at..).and_then(|rest| rest.first_chunk_mut::<8>()) {
        *field = v.to_be_bytes();
    }
}

/// Eight octets at `at`, as of a delivery tag. Out of range: 0, which is no delivery tag.
#[inline]
pub fn get_u64(buf: &[u8], at: usize) -> u64 {
    buf.get(at..).and_then(|rest| rest.first_chunk::<8>()).map_or(0, |field| u64::from_be_bytes(*field))
}
