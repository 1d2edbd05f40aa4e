//! What is asked of every message: shorter ways than [`Method::parse`](crate::Method::parse), with the same result.

use super::{ACK, Ack, DELIVER, Deliver, GET_OK, NACK, PUBLISH, Publish, REJECT};
use crate::method::{MethodError, MethodId, method_id};
use crate::read::Reader;

impl<'a> Publish<'a> {
    /// Reads the payload of a method frame that is known to be [`PUBLISH`].
    ///
    /// # Errors
    /// As [`Method::parse`](crate::Method::parse); another method is malformed.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<Self, MethodError> {
        only(PUBLISH, payload, Self::read)
    }
}

impl<'a> Deliver<'a> {
    /// Reads the payload of a method frame that is known to be [`DELIVER`].
    ///
    /// # Errors
    /// As [`Method::parse`](crate::Method::parse); another method is malformed.
    #[inline]
    pub fn parse(payload: &'a [u8]) -> Result<Self, MethodError> {
        only(DELIVER, payload, Self::read)
    }
}

impl Ack {
    /// Reads the payload of a method frame that is known to be [`ACK`].
    ///
    /// # Errors
    /// As [`Method::parse`](crate::Method::parse); another method is malformed.
    #[inline]
    pub fn parse(payload: &[u8]) -> Result<Self, MethodError> {
        only(ACK, payload, Self::read)
    }
}

#[inline]
fn only<'a, T>(
    id: MethodId,
    payload: &'a [u8],
    read: impl FnOnce(&mut Reader<'a>) -> Option<T>,
) -> Result<T, MethodError> {
    let Some((head, fields)) = payload.split_first_chunk::<4>() else {
        return Err(MethodError::Truncated);
    };
    let mut r = Reader::new(fields);
    match read(&mut r) {
        Some(method) if r.is_empty() && u32::from_be_bytes(*head) == id => Ok(method),
        _ => Err(MethodError::Malformed(id)),
    }
}

/// Where in the payload of a method frame the delivery tag lies, for rewriting in place with
/// [`crate::frame::put_u64`]: deliver, get-ok, ack, nack and reject have one. `None` for other methods, and when
/// the payload is too short to hold it.
#[inline]
pub fn delivery_tag_at(payload: &[u8]) -> Option<usize> {
    let at = match method_id(payload)? {
        ACK | NACK | REJECT | GET_OK => 4,
        DELIVER => 5 + usize::from(*payload.get(4)?),
        _ => return None,
    };
    (at + 8 <= payload.len()).then_some(at)
}
