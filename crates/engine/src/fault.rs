//! What a client did wrong, as its broker would have told it.

use warren_wire::reply;

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

    /// A short string that is not UTF-8, where RabbitMQ insists on it.
    pub(crate) fn not_utf8(at: (u16, u16)) -> Fault {
        Fault::connection(501, "Malformed UTF-8 in shortstr", at)
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

/// Octets as RabbitMQ prints them: `<<"text">>` or `<<1,2,3>>`. A reply text has room for a part only.
pub(crate) fn octets(payload: &[u8]) -> String {
    let printable = |octet: &u8| matches!(octet, 32..=126 | 160..=255 | 8..=13 | 27);
    let shown = &payload[..payload.len().min(reply::MAX_TEXT)];
    if !shown.is_empty() && shown.iter().all(printable) {
        return format!("<<\"{}\">>", String::from_utf8_lossy(shown));
    }
    let numbers: Vec<String> = shown.iter().map(u8::to_string).collect();
    format!("<<{}>>", numbers.join(","))
}

/// The beginning of a payload, as RabbitMQ prints it.
pub(crate) fn snippet(payload: &[u8]) -> String {
    match payload.get(..16) {
        Some(first) if payload.len() > 16 => format!("first 16 octets = {}", octets(first)),
        _ => format!("all octets = {}", octets(payload)),
    }
}
