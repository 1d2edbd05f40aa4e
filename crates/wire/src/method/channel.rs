//! Class channel (20): opening, pausing and closing a channel.

use super::{Method, MethodId, id};
use crate::read::Reader;
use crate::write;

/// `channel.open`.
pub const OPEN: MethodId = id(20, 10);

/// `channel.open-ok`.
pub const OPEN_OK: MethodId = id(20, 11);

/// `channel.flow`.
pub const FLOW: MethodId = id(20, 20);

/// `channel.flow-ok`.
pub const FLOW_OK: MethodId = id(20, 21);

/// `channel.close`.
pub const CLOSE: MethodId = id(20, 40);

/// `channel.close-ok`.
pub const CLOSE_OK: MethodId = id(20, 41);

/// Reads the fields of method `id` of this class; `None` when malformed or not known.
pub(super) fn read<'a>(id: MethodId, r: &mut Reader<'a>) -> Option<Method<'a>> {
    Some(match id {
        OPEN => {
            r.short()?; // reserved
            Method::ChannelOpen
        }
        OPEN_OK => {
            r.long()?; // reserved
            Method::ChannelOpenOk
        }
        FLOW => Method::ChannelFlow(Flow::read(r)?),
        FLOW_OK => Method::ChannelFlowOk(FlowOk::read(r)?),
        CLOSE => Method::ChannelClose(Close::read(r)?),
        CLOSE_OK => Method::ChannelCloseOk,
        _ => return None,
    })
}

/// Pause or resume deliveries. RabbitMQ accepts `active` = true only (BROKER-FACTS: the barrier).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Flow {
    /// Whether content may flow.
    pub active: bool,
}

impl Flow {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let bits = r.u8()?;
        Some(Flow { active: bits & 1 != 0 })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::bits(out, &[self.active]);
    }
}

/// Answer to [`Flow`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FlowOk {
    /// Whether content flows.
    pub active: bool,
}

impl FlowOk {
    fn read(r: &mut Reader<'_>) -> Option<Self> {
        let bits = r.u8()?;
        Some(FlowOk { active: bits & 1 != 0 })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::bits(out, &[self.active]);
    }
}

/// End of a channel, from either side.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Close<'a> {
    /// Reply code, see [`crate::reply`].
    pub reply_code: u16,
    /// Reply text for people, at most 255 octets.
    pub reply_text: &'a [u8],
    /// Class of the method that caused it, or 0.
    pub class_id: u16,
    /// Method that caused it, or 0.
    pub method_id: u16,
}

impl<'a> Close<'a> {
    fn read(r: &mut Reader<'a>) -> Option<Self> {
        let reply_code = r.u16()?;
        let reply_text = r.short()?;
        let class_id = r.u16()?;
        let method_id = r.u16()?;
        Some(Close { reply_code, reply_text, class_id, method_id })
    }

    pub(super) fn put(&self, out: &mut Vec<u8>) {
        write::u16(out, self.reply_code);
        write::short(out, self.reply_text);
        write::u16(out, self.class_id);
        write::u16(out, self.method_id);
    }
}
