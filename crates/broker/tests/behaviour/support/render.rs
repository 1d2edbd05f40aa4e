//! Frames from a broker as lines.

use warren_wire::Method;
use warren_wire::content::ContentHeader;
use warren_wire::frame::{FRAME_BODY, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD, next_frame};
use warren_wire::method::name;

/// One line for each method, content appended; heartbeats are left out.
pub(crate) fn lines(bytes: &[u8]) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut at = 0;
    if bytes.starts_with(b"AMQP") {
        lines.push(format!("header {:?}", &bytes[4..8]));
        at = 8;
    }
    while let Some(frame) = next_frame(bytes, at, u32::MAX).expect("frames") {
        at = frame.end;
        let payload = frame.payload(bytes);
        match frame.kind {
            FRAME_METHOD => {
                let method = Method::parse(payload).expect("a method");
                lines.push(format!("{} {}", frame.channel, line(&method)));
            }
            FRAME_HEADER => {
                let header = ContentHeader::peek(payload).expect("a header");
                assert_eq!((header.class, header.weight), (60, 0));
                let last = lines.last_mut().expect("a method before content");
                last.push_str(&format!(" [{}]", header.body_size));
            }
            FRAME_BODY => {
                let last = lines.last_mut().expect("a method before content");
                let shown = if payload.len() > 40 { &b"..."[..] } else { payload };
                last.push_str(&format!(" {}", String::from_utf8_lossy(shown)));
            }
            FRAME_HEARTBEAT => {}
            other => panic!("frame type {other}"),
        }
    }
    assert_eq!(at, bytes.len(), "bytes behind the last whole frame");
    lines
}

fn line(method: &Method<'_>) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let fields = match method {
        Method::ConnectionClose(m) => {
            let text = text(m.reply_text);
            format!("{} {} {}/{}", m.reply_code, text, m.class_id, m.method_id)
        }
        Method::ChannelClose(m) => {
            let text = text(m.reply_text);
            format!("{} {} {}/{}", m.reply_code, text, m.class_id, m.method_id)
        }
        Method::ConnectionBlocked(m) => text(m.reason),
        Method::ChannelFlowOk(m) => m.active.to_string(),
        Method::AccessRequestOk(m) => m.ticket.to_string(),
        Method::QueueDeclareOk(m) => {
            format!("{} {} {}", text(m.queue), m.message_count, m.consumer_count)
        }
        Method::QueuePurgeOk(m) => m.message_count.to_string(),
        Method::QueueDeleteOk(m) => m.message_count.to_string(),
        Method::BasicConsumeOk(m) => text(m.consumer_tag),
        Method::BasicCancelOk(m) => text(m.consumer_tag),
        Method::BasicCancel(m) => text(m.consumer_tag),
        Method::BasicReturn(m) => {
            let to = format!("'{}' '{}'", text(m.exchange), text(m.routing_key));
            format!("{} {} {to}", m.reply_code, text(m.reply_text))
        }
        Method::BasicDeliver(m) => {
            let again = if m.redelivered { " again" } else { "" };
            let to = format!("'{}' '{}'", text(m.exchange), text(m.routing_key));
            format!("{} {}{again} {to}", text(m.consumer_tag), m.delivery_tag)
        }
        Method::BasicGetOk(m) => {
            let again = if m.redelivered { " again" } else { "" };
            let to = format!("'{}' '{}'", text(m.exchange), text(m.routing_key));
            format!("{}{again} {to} {}", m.delivery_tag, m.message_count)
        }
        Method::BasicAck(m) => tagged(m.delivery_tag, m.multiple),
        Method::BasicNack(m) => tagged(m.delivery_tag, m.multiple),
        _ => String::new(),
    };
    let name = name(method.id()).unwrap_or("?");
    format!("{name} {fields}").trim_end().to_owned()
}

fn tagged(tag: u64, multiple: bool) -> String {
    if multiple { format!("{tag} multiple") } else { tag.to_string() }
}
