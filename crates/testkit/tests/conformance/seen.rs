//! What a client saw, in words that are the same for every run.

use warren_testkit::Peer;
use warren_testkit::peer::{Closed, End, Incoming};
use warren_wire::Method;
use warren_wire::frame::FRAME_METHOD;
use warren_wire::reply::MAX_TEXT;

/// The end of a connection. Whether the socket is reset or only ended depends on what was still unread.
pub(crate) fn tidy_end(end: &End) -> String {
    match end {
        End::Closed(closed) => format!("connection.close {}", in_words(closed)),
        End::Eof | End::Reset => "the socket is closed without a word".to_owned(),
    }
}

fn in_words(closed: &Closed) -> String {
    let cut = if closed.text.len() > MAX_TEXT - 4 { CUT } else { "" };
    format!("{} {}{cut}, {}/{}", closed.code, closed.text, closed.class, closed.method)
}

/// Stands behind a text that did not fit.
const CUT: &str = "…";
/// Octets of it that are shown, names replaced: where exactly it was cut depends on how long they were.
const SHOWN: usize = 160;

/// What is the same for every run, of a text with its names replaced.
pub(crate) fn steady(text: &str) -> String {
    let text = without_port(text);
    match text.split_once(CUT) {
        Some((before, after)) if !before.ends_with('-') => {
            let shown: String = before.chars().take(SHOWN).collect();
            format!("{shown}{CUT}{after}")
        }
        _ => text,
    }
}

/// A frame; for a message, all of it.
pub(crate) fn describe(peer: &mut Peer, frame: &Incoming) -> String {
    if frame.kind != FRAME_METHOD {
        return format!("a frame of type {} with {} octets", frame.kind, frame.payload.len());
    }
    let name = warren_wire::method::method_id(&frame.payload).and_then(warren_wire::method::name);
    let name = name.unwrap_or("a method without a name");
    let text = |bytes: &[u8]| generated(&String::from_utf8_lossy(bytes));
    match frame.method() {
        Method::ChannelClose(_) => {
            let closed = frame.closed().expect("the method is a close");
            format!("channel.close {}", in_words(&closed))
        }
        Method::QueueDeclareOk(ok) => {
            format!(
                "{name} {}, {} messages, {} consumers",
                text(ok.queue),
                ok.message_count,
                ok.consumer_count
            )
        }
        Method::QueueDeleteOk(ok) => format!("{name}, {} messages", ok.message_count),
        Method::QueuePurgeOk(ok) => format!("{name}, {} messages", ok.message_count),
        Method::BasicConsumeOk(ok) => format!("{name} {}", text(ok.consumer_tag)),
        Method::BasicCancelOk(ok) => format!("{name} {}", text(ok.consumer_tag)),
        Method::BasicCancel(cancel) => format!("{name} {}", text(cancel.consumer_tag)),
        Method::BasicAck(ack) => format!("{name} {}", ack.delivery_tag),
        Method::BasicNack(nack) => format!("{name} {}", nack.delivery_tag),
        Method::AccessRequestOk(ok) => format!("{name} {}", ok.ticket),
        Method::ChannelFlowOk(ok) => format!("{name} {}", ok.active),
        Method::BasicReturn(returned) => {
            let said = format!("{} {}", returned.reply_code, text(returned.reply_text));
            let message = peer.content_of(frame.clone());
            format!("{name} {said}, {:?}", message.text())
        }
        Method::BasicDeliver(_) | Method::BasicGetOk(_) => {
            let message = peer.content_of(frame.clone());
            let again = if message.redelivered() { ", redelivered" } else { "" };
            format!("{name} {}, {:?}{again}", message.tag(), message.text())
        }
        _ => name.to_owned(),
    }
}

/// Names that a broker makes up are different every time.
fn generated(name: &str) -> String {
    for prefix in ["amq.gen-", "amq.ctag-"] {
        if name.starts_with(prefix) {
            return format!("{prefix}…");
        }
    }
    name.to_owned()
}

/// A text without the port of the broker, which is another one every time.
fn without_port(text: &str) -> String {
    const BROKER: &str = "127.0.0.1:";
    let Some((before, after)) = text.split_once(BROKER) else { return text.to_owned() };
    format!("{before}127.0.0.1{}", after.trim_start_matches(|c: char| c.is_ascii_digit()))
}
