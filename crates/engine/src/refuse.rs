//! What a client of RabbitMQ is told of frames and methods that cannot be read. Where RabbitMQ resets the socket
//! without a word, the client gets 502 (fields that cannot be read) or 503 (no such method).

use warren_wire::content::CONTENT_HEADER_LEN;
use warren_wire::frame::{
    FRAME_END, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD, FRAME_OVERHEAD, FrameError, HEADER_LEN,
    announced_len,
};
use warren_wire::method::{Method, MethodError};
use warren_wire::reply;

use crate::close;
use crate::engine::Engine;
use crate::fault::{Fault, octets, snippet};
use crate::handshake::split;
use crate::ids::SessionId;

impl Engine {
    /// Closes a session with what its client did wrong.
    pub(crate) fn refuse_session(&mut self, id: SessionId, fault: &Fault) {
        let text = reply::text(fault.code, &fault.detail);
        self.close_session(id, fault.code, &text, fault.at, close::PROTOCOL);
    }

    /// A method that cannot be read.
    pub(crate) fn bad_method(&mut self, id: SessionId, error: MethodError, payload: &[u8]) {
        let fault = match error {
            MethodError::Unknown(method) => Fault::connection(503, "unknown method", split(method)),
            MethodError::Malformed(method) if only_its_table_is_wrong(payload) => {
                Fault::connection(502, "malformed table", split(method))
            }
            MethodError::Malformed(method) => {
                let fields = payload.get(4..).unwrap_or_default();
                Fault::connection(501, format!("cannot decode {}", octets(fields)), split(method))
            }
            MethodError::Truncated => return self.unknown_frame(id, FRAME_METHOD, payload),
        };
        self.refuse_session(id, &fault);
    }

    /// As [`Engine::bad_method`], on channel 0: there RabbitMQ fails to say which method it was.
    pub(crate) fn bad_connection_method(&mut self, id: SessionId, error: MethodError, payload: &[u8]) {
        let handshake = self.sessions.get(id).is_some_and(|s| s.phase.is_handshake());
        match error {
            MethodError::Malformed(method) if handshake => {
                self.refuse_session(id, &Fault::connection(502, "malformed method", split(method)));
            }
            MethodError::Malformed(_) => self.refuse_session(id, &Fault::connection(541, "", (0, 0))),
            _ => self.bad_method(id, error, payload),
        }
    }

    /// Octets that are no frame, judged in RabbitMQ's order: size, end octet, type. What has not come yet is not shown.
    pub(crate) fn client_frame_error(&mut self, id: SessionId, error: FrameError, rest: &[u8]) {
        let Some(session) = self.sessions.get(id) else { return };
        if session.phase.is_handshake() {
            self.end_session(id, close::PROTOCOL, &error.to_string());
            return;
        }
        let max = session.max_payload as usize;
        let kind = rest.first().copied().unwrap_or_default();
        let size = announced_len(rest, 0).map_or(0, |len| len - FRAME_OVERHEAD);
        let end = HEADER_LEN + size;
        let detail = match (error, rest.get(end)) {
            (FrameError::TooLarge { size, .. }, _) => too_large(kind, size as usize, max),
            _ if size > max => too_large(kind, size, max),
            (_, Some(&octet)) if octet != FRAME_END => {
                let shown = snippet(&rest[HEADER_LEN..end]);
                format!("type {kind}, {shown}: {{invalid_frame_end_marker,{octet}}}")
            }
            _ => return self.unknown_frame(id, kind, rest.get(HEADER_LEN..end).unwrap_or_default()),
        };
        self.refuse_session(id, &Fault::connection(501, detail, (0, 0)));
    }

    /// A frame that means nothing whatever the state.
    pub(crate) fn unknown_frame(&mut self, id: SessionId, kind: u8, payload: &[u8]) {
        let detail = format!("type {kind}, {}: unknown_frame", snippet(payload));
        self.refuse_session(id, &Fault::connection(501, detail, (0, 0)));
    }

    /// A heartbeat off channel 0, or content on it.
    pub(crate) fn misplaced_frame(&mut self, id: SessionId, kind: u8, payload: &[u8]) {
        if is_unknown_frame(kind, payload) {
            return self.unknown_frame(id, kind, payload);
        }
        let detail = format!("type {kind}, {}", snippet(payload));
        self.refuse_session(id, &Fault::connection(505, detail, (0, 0)));
    }

    /// A frame that has no place in a handshake. RabbitMQ closes the socket for it.
    pub(crate) fn too_early(&mut self, id: SessionId) {
        self.refuse_session(id, &Fault::connection(503, "unexpected frame in the handshake", (0, 0)));
    }
}

fn too_large(kind: u8, size: usize, max: usize) -> String {
    format!("type {kind}, all octets = <<>>: {{frame_too_large,{size},{max}}}")
}

/// Whether RabbitMQ finds no sense in a frame of this type, whatever the state.
fn is_unknown_frame(kind: u8, payload: &[u8]) -> bool {
    kind == FRAME_HEARTBEAT && !payload.is_empty()
        || kind == FRAME_HEADER && payload.len() < CONTENT_HEADER_LEN
}

/// Whether the payload of a method frame names a method that does not exist.
pub(crate) fn is_unknown(payload: &[u8]) -> bool {
    matches!(Method::parse(payload), Err(MethodError::Unknown(_)))
}

/// Whether a method could be read if its table were empty. RabbitMQ refuses fields that do not fit in words; a table
/// that is malformed inside crashes its reader, and the socket with it. Channels' methods have their table last.
fn only_its_table_is_wrong(payload: &[u8]) -> bool {
    (4..payload.len().saturating_sub(3)).any(|at| {
        let announced = payload[at..].first_chunk().map(|size| u32::from_be_bytes(*size) as usize);
        announced == Some(payload.len() - at - 4)
            && Method::parse(&[&payload[..at], &[0; 4]].concat()).is_ok()
    })
}

/// What a client speaks that has begun with other octets than AMQP's, for people.
pub(crate) fn not_amqp(header: [u8; 8]) -> &'static str {
    match header {
        [b'A', b'M', b'Q', b'P', ..] => "another protocol version",
        [0x16, 3, ..] => "TLS, where plain AMQP is spoken",
        [b'P', b'R', b'O', b'X', b'Y', b' ', ..] | [b'\r', b'\n', b'\r', b'\n', 0, ..] => {
            "a header of the PROXY protocol from an address that is not trusted"
        }
        _ => "not AMQP",
    }
}
