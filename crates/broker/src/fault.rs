//! What goes wrong with a frame, and how far it reaches.

use warren_wire::MethodId;

/// How much a fault takes down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// `channel.close`; the connection lives.
    Channel,
    /// `connection.close`, and the peer may still answer it.
    Connection,
    /// `connection.close`, and nothing more is read: the stream of frames is out of step.
    Fatal,
    /// The socket is reset without a word.
    Reset,
}

/// Why a frame was refused, as RabbitMQ would say it.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) scope: Scope,
    pub(crate) code: u16,
    /// Without the name of the code, which is written before it.
    pub(crate) detail: String,
    /// The method blamed; 0 for none.
    pub(crate) method: MethodId,
}

/// What carrying out a method comes to.
pub(crate) type Outcome<T = ()> = Result<T, Fault>;

impl Fault {
    fn new(scope: Scope, code: u16, detail: impl Into<String>) -> Self {
        Fault { scope, code, detail: detail.into(), method: 0 }
    }

    pub(crate) fn channel(code: u16, detail: impl Into<String>) -> Self {
        Fault::new(Scope::Channel, code, detail)
    }

    pub(crate) fn connection(code: u16, detail: impl Into<String>) -> Self {
        Fault::new(Scope::Connection, code, detail)
    }

    pub(crate) fn fatal(code: u16, detail: impl Into<String>) -> Self {
        Fault::new(Scope::Fatal, code, detail)
    }

    pub(crate) fn reset() -> Self {
        Fault::new(Scope::Reset, 0, "")
    }

    /// 406, the most common of all.
    pub(crate) fn precondition(detail: impl Into<String>) -> Self {
        Fault::channel(406, detail)
    }

    pub(crate) fn access_refused(detail: impl Into<String>) -> Self {
        Fault::channel(403, detail)
    }

    /// 404 for an entity as [`names::entity`](crate::names::entity) shows it.
    pub(crate) fn not_found(entity: &str) -> Self {
        Fault::channel(404, format!("no {entity}"))
    }

    /// 505 with RabbitMQ's wording for content out of step.
    pub(crate) fn unexpected_frame(detail: impl Into<String>) -> Self {
        Fault::connection(505, detail)
    }

    /// Blames `method`.
    pub(crate) fn at(mut self, method: MethodId) -> Self {
        self.method = method;
        self
    }

    /// The reply text, cut as RabbitMQ cuts it.
    pub(crate) fn text(&self) -> Vec<u8> {
        reply_text(self.code, &self.detail)
    }
}

/// `NOT_FOUND - detail`, cut to what a short string holds with dots to show it. Without a detail, the name alone.
pub(crate) fn reply_text(code: u16, detail: &str) -> Vec<u8> {
    if detail.is_empty() {
        return warren_wire::reply::code_name(code).into();
    }
    let mut text = warren_wire::reply::text(code, detail).into_bytes();
    if text.len() > 255 {
        text.truncate(252);
        text.extend_from_slice(b"...");
    }
    text
}

/// Octets as Erlang prints them in RabbitMQ's texts about frames: the first 16, as text if they are printable.
pub(crate) fn snippet(payload: &[u8]) -> String {
    let (label, shown) = match payload.get(..16) {
        Some(first) if payload.len() > 16 => ("first 16", first),
        _ => ("all", payload),
    };
    let printable = |octet: &u8| matches!(octet, 32..=126 | 160..=255 | 8..=13 | 27);
    if !shown.is_empty() && shown.iter().all(printable) {
        return format!("{label} octets = <<\"{}\">>", String::from_utf8_lossy(shown));
    }
    let numbers: Vec<String> = shown.iter().map(u8::to_string).collect();
    format!("{label} octets = <<{}>>", numbers.join(","))
}
