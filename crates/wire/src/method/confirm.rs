//! Class confirm (85): publisher confirms (RabbitMQ extension).

use super::{Method, MethodId, id};
use crate::read::Reader;
use crate::write;

/// `confirm.select`.
pub const SELECT: MethodId = id(85, 10);

/// `confirm.select-ok`.
pub const SELECT_OK: MethodId = id(85, 11);

/// Reads the fields of method `id` of this class; `None` when malformed or not known.
pub(super) fn read<'a>(id: MethodId, r: &mut Reader<'a>) -> Option<Method<'a>> {
    Some(match id {
        SELECT => Method::ConfirmSelect(Select::read(r)?),
        SELECT_OK => Method::ConfirmSelectOk,
        _ => return None,
    })
}

/// Put the channel in confirm mode.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Select {
    /// No answer is wanted.
    pub no_wait: bool,
}

impl Select {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let bits = r.u8()?;
        Some(Select { no_wait: bits & 1 != 0 })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::bits(out, &[self.no_wait]);
    }
}
