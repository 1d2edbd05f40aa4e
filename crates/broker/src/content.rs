//! Assembly of method, content header and bodies, as RabbitMQ's reader does it: per channel number, before the channel
//! sees anything, and even while the channel is closing.
//!
//! ```text
//!           publish                header, size 0
//!   Method ---------> Header ------------------------> Method  (content complete)
//!                       |  header                        ^
//!                       +---------> Body ----------------+
//!                                         size reached
//! ```

use warren_wire::MethodId;
use warren_wire::content::ContentHeader;
use warren_wire::method::split_id;

use crate::fault::{Fault, Outcome};
use crate::message::Message;

/// Body reserved for at once; a larger one grows as it comes, so that an announced size alone costs nothing.
const MAX_RESERVE: u64 = 64 * 1024;

/// Octets of a content header before its properties.
const HEADER_LEN: usize = 12;

/// A method with the content that it carries.
#[derive(Debug)]
pub(crate) struct Content {
    pub(crate) method: MethodId,
    pub(crate) mandatory: bool,
    pub(crate) immediate: bool,
    /// Body octets announced. More than the broker takes are counted and not kept.
    pub(crate) size: u64,
    pub(crate) message: Message,
}

#[derive(Debug, Default)]
pub(crate) enum Assembler {
    #[default]
    Method,
    Header(Box<Content>),
    Body {
        content: Box<Content>,
        /// Octets to come. Negative after a body longer than announced: RabbitMQ then waits for ever.
        missing: i128,
    },
}

impl Assembler {
    /// Whether a method may come now. 505 otherwise.
    pub(crate) fn check_method(&self) -> Outcome {
        match self {
            Assembler::Method => Ok(()),
            Assembler::Header(content) => Err(no_header(content)),
            Assembler::Body { content, .. } => Err(no_body(content)),
        }
    }

    /// After a method that carries content.
    pub(crate) fn begin(&mut self, content: Content) {
        *self = Assembler::Header(Box::new(content));
    }

    /// A content header. Returns the content when it has no body.
    pub(crate) fn header(&mut self, payload: &[u8], limit: u64) -> Outcome<Option<Content>> {
        let Some(header) = ContentHeader::peek(payload) else {
            return Ok(None); // shorter payloads were refused before
        };
        let mut content = match std::mem::take(self) {
            Assembler::Method => return Err(no_method()),
            Assembler::Header(content) => content,
            Assembler::Body { content, .. } => return Err(no_body(&content)),
        };
        let (class, _) = split_id(content.method);
        if header.weight != 0 {
            return Err(no_header(&content));
        }
        if header.class != class {
            let other = header.class;
            let detail =
                format!("expected content header for class {class}, got one for class {other} instead");
            return Err(Fault::unexpected_frame(detail).at(content.method));
        }
        content.size = header.body_size;
        let reserve = if header.body_size > limit { 0 } else { header.body_size.min(MAX_RESERVE) };
        content.message.set_properties(&payload[HEADER_LEN..], reserve as usize);
        if header.body_size == 0 {
            return Ok(Some(*content));
        }
        *self = Assembler::Body { content, missing: header.body_size.into() };
        Ok(None)
    }

    /// A body frame. Returns the content when it is complete.
    pub(crate) fn body(&mut self, payload: &[u8], limit: u64) -> Outcome<Option<Content>> {
        let (content, missing) = match self {
            Assembler::Method => return Err(no_method()),
            Assembler::Header(content) => return Err(no_header(content)),
            Assembler::Body { content, missing } => (content, missing),
        };
        *missing -= payload.len() as i128;
        if *missing >= 0 && content.size <= limit {
            content.message.push_body(payload);
        }
        if *missing != 0 {
            return Ok(None);
        }
        match std::mem::take(self) {
            Assembler::Body { content, .. } => Ok(Some(*content)),
            _ => Ok(None),
        }
    }
}

fn no_method() -> Fault {
    Fault::unexpected_frame("expected method frame, got non method frame instead")
}

fn no_header(content: &Content) -> Fault {
    let (class, _) = split_id(content.method);
    let detail = format!("expected content header for class {class}, got non content header frame instead");
    Fault::unexpected_frame(detail).at(content.method)
}

fn no_body(content: &Content) -> Fault {
    let detail = "expected content body, got non content body frame instead";
    Fault::unexpected_frame(detail).at(content.method)
}
