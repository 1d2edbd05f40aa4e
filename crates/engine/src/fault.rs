//! What a client did wrong, as its broker would have told it.

use crate::channel::Content;

/// A mistake of a client: reply code, text without the code's name, class and method, and how much it costs.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) code: u16,
    pub(crate) detail: String,
    pub(crate) at: (u16, u16),
    pub(crate) closes_connection: bool,
}

impl Fault {
    /// Closes the channel.
    pub(crate) fn channel(code: u16, detail: impl Into<String>, at: (u16, u16)) -> Fault {
        Fault { code, detail: detail.into(), at, closes_connection: false }
    }

    /// Closes the connection.
    pub(crate) fn connection(code: u16, detail: impl Into<String>, at: (u16, u16)) -> Fault {
        Fault { code, detail: detail.into(), at, closes_connection: true }
    }

    /// A frame that does not belong where it came (BROKER-FACTS, "Frames that close the whole connection").
    pub(crate) fn unexpected_frame(content: Content) -> Fault {
        match content {
            Content::None => {
                Fault::connection(505, "expected method frame, got non method frame instead", (0, 0))
            }
            Content::Header => {
                let detail = "expected content header for class 60, got non content header frame instead";
                Fault::connection(505, detail, (60, 40))
            }
            Content::Body(_) => {
                Fault::connection(505, "expected content body, got non content body frame instead", (60, 40))
            }
        }
    }
}
