//! Class access (30): removed from 0-9-1, still sent by old clients and answered by RabbitMQ.

use super::{Method, MethodId, id};
use crate::read::Reader;
use crate::write;

/// `access.request`.
pub const REQUEST: MethodId = id(30, 10);

/// `access.request-ok`.
pub const REQUEST_OK: MethodId = id(30, 11);

/// Reads the fields of method `id` of this class; `None` when malformed or not known.
pub(super) fn read<'a>(id: MethodId, r: &mut Reader<'a>) -> Option<Method<'a>> {
    Some(match id {
        REQUEST => Method::AccessRequest(Request::read(r)?),
        REQUEST_OK => Method::AccessRequestOk(RequestOk::read(r)?),
        _ => return None,
    })
}

/// Ask for a ticket. Means nothing to a broker today.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Request<'a> {
    /// Realm name.
    pub realm: &'a [u8],
    /// Ask for exclusive access.
    pub exclusive: bool,
    /// Ask for passive access.
    pub passive: bool,
    /// Ask for active access.
    pub active: bool,
    /// Ask for write access.
    pub write: bool,
    /// Ask for read access.
    pub read: bool,
}

impl<'a> Request<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let realm = r.short()?;
        let bits = r.u8()?;
        Some(Request {
            realm,
            exclusive: bits & 1 != 0,
            passive: bits & 2 != 0,
            active: bits & 4 != 0,
            write: bits & 8 != 0,
            read: bits & 16 != 0,
        })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::short(out, self.realm);
        write::bits(out, &[self.exclusive, self.passive, self.active, self.write, self.read]);
    }
}

/// Answer to [`Request`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RequestOk {
    /// A number without meaning; RabbitMQ says 1.
    pub ticket: u16,
}

impl RequestOk {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let ticket = r.u16()?;
        Some(RequestOk { ticket })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::u16(out, self.ticket);
    }
}
