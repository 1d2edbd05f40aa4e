//! What a [`super::Peer`] receives.

use warren_wire::frame::FRAME_METHOD;
use warren_wire::method::{self, Method, MethodId};
use warren_wire::{BasicProperties, ContentHeader};

/// A frame as it came.
#[derive(Clone, PartialEq, Eq)]
pub struct Incoming {
    /// Frame type.
    pub kind: u8,
    /// Channel number.
    pub channel: u16,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Incoming {
    /// Whether it is this method.
    pub fn is(&self, id: MethodId) -> bool {
        self.kind == FRAME_METHOD && method::method_id(&self.payload) == Some(id)
    }

    /// The method, which it must be.
    pub fn method(&self) -> Method<'_> {
        assert_eq!(self.kind, FRAME_METHOD, "expected a method frame, got {self:?}");
        Method::parse(&self.payload)
            .unwrap_or_else(|e| panic!("a method that cannot be read: {e:?} in {self:?}"))
    }

    /// What a channel.close or connection.close says.
    pub fn closed(&self) -> Option<Closed> {
        let closed = |code: u16, text: &[u8], class: u16, method: u16| Closed {
            code,
            text: String::from_utf8_lossy(text).into_owned(),
            class,
            method,
        };
        match self.method() {
            Method::ConnectionClose(c) => Some(closed(c.reply_code, c.reply_text, c.class_id, c.method_id)),
            Method::ChannelClose(c) => Some(closed(c.reply_code, c.reply_text, c.class_id, c.method_id)),
            _ => None,
        }
    }
}

impl std::fmt::Debug for Incoming {
    /// The method by name and fields; of content only the size.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "channel {} ", self.channel)?;
        match (self.kind, Method::parse(&self.payload)) {
            (FRAME_METHOD, Ok(Method::ChannelClose(_) | Method::ConnectionClose(_))) => {
                write!(f, "{:?}", self.closed())
            }
            (FRAME_METHOD, Ok(method)) => write!(f, "{method:?}"),
            (kind, _) => write!(f, "frame of type {kind}, {} octets", self.payload.len()),
        }
    }
}

/// A channel or a connection closed by the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Closed {
    /// Reply code.
    pub code: u16,
    /// Reply text.
    pub text: String,
    /// Class of the method that caused it, or 0.
    pub class: u16,
    /// Method that caused it, or 0.
    pub method: u16,
}

/// A message that was delivered, got or returned.
#[derive(Clone, PartialEq, Eq)]
pub struct Message {
    /// basic.deliver, basic.get-ok or basic.return.
    pub frame: Incoming,
    /// Payload of the header frame.
    pub header: Vec<u8>,
    /// Body, put together.
    pub body: Vec<u8>,
}

impl Message {
    /// Delivery tag; 0 for a returned message.
    pub fn tag(&self) -> u64 {
        match self.frame.method() {
            Method::BasicDeliver(d) => d.delivery_tag,
            Method::BasicGetOk(g) => g.delivery_tag,
            _ => 0,
        }
    }

    /// Whether it was delivered before.
    pub fn redelivered(&self) -> bool {
        match self.frame.method() {
            Method::BasicDeliver(d) => d.redelivered,
            Method::BasicGetOk(g) => g.redelivered,
            _ => false,
        }
    }

    /// Properties.
    pub fn properties(&self) -> BasicProperties<'_> {
        let rest = self.header.get(warren_wire::content::CONTENT_HEADER_LEN..).unwrap_or_default();
        BasicProperties::parse(rest).expect("properties that are well formed")
    }

    /// Body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(super) fn announced(header: &[u8]) -> usize {
        let header = ContentHeader::peek(header).expect("a header frame");
        usize::try_from(header.body_size).expect("a size that fits in memory")
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} with {} octets", self.frame, self.body.len())
    }
}
