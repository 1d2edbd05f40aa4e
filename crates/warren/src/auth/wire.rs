//! What is said to the auth service and what it answers, as protobuf (proto3). The field numbers are amqpprox's.

use prost::Message;
use warren_engine::{AuthRequest, Replacement, Verdict};

#[derive(Clone, PartialEq, Message)]
struct Request {
    #[prost(string, tag = "1")]
    vhost_name: String,
    #[prost(message, optional, tag = "2")]
    auth_data: Option<Sasl>,
    #[prost(string, tag = "3")]
    client_hostname: String,
    #[prost(string, tag = "4")]
    connection_name: String,
}

#[derive(Clone, PartialEq, Message)]
struct Response {
    #[prost(enumeration = "Answer", tag = "1")]
    result: i32,
    #[prost(string, tag = "2")]
    reason: String,
    #[prost(message, optional, tag = "3")]
    auth_data: Option<Sasl>,
}

#[derive(Clone, PartialEq, Message)]
struct Sasl {
    #[prost(string, tag = "1")]
    auth_mechanism: String,
    #[prost(bytes = "vec", tag = "2")]
    credentials: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum Answer {
    Allow = 0,
    Deny = 1,
}

/// The body of a question. The client's host is its address, or its name where it was looked up.
pub(super) fn question(request: &AuthRequest) -> Vec<u8> {
    let sasl = Sasl {
        auth_mechanism: String::from_utf8_lossy(&request.mechanism).into_owned(),
        credentials: request.response.to_vec(),
    };
    let address = || request.peer.ip().to_canonical().to_string();
    let request = Request {
        vhost_name: request.vhost.clone(),
        auth_data: Some(sasl),
        client_hostname: request.host.as_deref().map_or_else(address, str::to_owned),
        connection_name: request.connection_name.clone(),
    };
    request.encode_to_vec()
}

/// What the body of an answer with status 200 means. ALLOW is the default value of protobuf, so that an empty body reads
/// as ALLOW: that is what a service that fails may send as well, and counts only where a setting says so.
pub(super) fn verdict(body: &[u8], allow_empty: bool) -> Verdict {
    if body.is_empty() && !allow_empty {
        return Verdict::Failed("its answer is empty".into());
    }
    let Ok(response) = Response::decode(body) else {
        return Verdict::Failed("its answer cannot be read".into());
    };
    match Answer::try_from(response.result) {
        Ok(Answer::Allow) => Verdict::Allow(response.auth_data.and_then(replacement)),
        Ok(Answer::Deny) => Verdict::Deny(response.reason),
        Err(_) => Verdict::Failed("its answer is neither ALLOW nor DENY".into()),
    }
}

/// Nothing at all replaces nothing.
fn replacement(sasl: Sasl) -> Option<Replacement> {
    let Sasl { auth_mechanism, credentials } = sasl;
    let empty = auth_mechanism.is_empty() && credentials.is_empty();
    (!empty).then(|| Replacement { mechanism: auth_mechanism.into_bytes(), response: credentials.into() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn questions_have_the_fields_of_amqpprox() {
        let request = AuthRequest {
            vhost: "v".into(),
            mechanism: b"PLAIN".to_vec(),
            response: b"\0u\0p".to_vec().into(),
            peer: ([127, 0, 0, 1], 4000).into(),
            host: None,
            connection_name: "n".into(),
        };
        let body = b"\x0a\x01v\x12\x0d\x0a\x05PLAIN\x12\x04\0u\0p\x1a\x09127.0.0.1\x22\x01n";
        assert_eq!(question(&request), body);
    }

    #[test]
    fn answers_that_are_none_let_nobody_in() {
        let is_failure = |body: &[u8]| matches!(verdict(body, false), Verdict::Failed(_));
        assert!(is_failure(b""), "empty");
        assert!(is_failure(b"\xff\xff"), "not protobuf");
        assert!(is_failure(b"<html>Internal Server Error</html>"), "not protobuf");
        assert!(is_failure(b"\x08\x07"), "neither ALLOW nor DENY");
        assert!(matches!(verdict(b"", true), Verdict::Allow(None)));
        assert!(matches!(verdict(b"\x08\x00", false), Verdict::Allow(None)));
        assert!(matches!(verdict(b"\x12\x02ok", false), Verdict::Allow(None)));
        assert!(matches!(verdict(b"\x08\x01\x12\x02no", false), Verdict::Deny(reason) if reason == "no"));
        let replaced = verdict(b"\x1a\x0d\x0a\x05PLAIN\x12\x04\0u\0p", false);
        let Verdict::Allow(Some(replacement)) = replaced else { panic!("{replaced:?}") };
        assert_eq!(
            (replacement.mechanism.as_slice(), replacement.response.as_slice()),
            (&b"PLAIN"[..], &b"\0u\0p"[..])
        );
    }
}
