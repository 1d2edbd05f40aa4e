//! What happened, line by line. Off unless somebody looks: a failing seed is run again with it on.

use std::collections::VecDeque;
use std::fmt;

use warren_wire::method::{name, split_id};
use warren_wire::{BasicProperties, ContentHeader, Method};

/// What becomes of lines.
#[derive(Debug, Default)]
pub enum Trace {
    /// Nothing is kept.
    #[default]
    Off,
    /// The last so many are kept.
    Last(usize, VecDeque<String>),
    /// Each is printed at once.
    Print,
}

impl Trace {
    /// Whether lines are wanted: ask before making one that costs.
    pub fn on(&self) -> bool {
        !matches!(self, Trace::Off)
    }

    /// One line.
    pub fn line(&mut self, line: fmt::Arguments<'_>) {
        match self {
            Trace::Off => {}
            Trace::Print => println!("{line}"),
            Trace::Last(most, lines) => {
                if lines.len() >= *most {
                    lines.pop_front();
                }
                lines.push_back(line.to_string());
            }
        }
    }

    /// The lines kept.
    pub fn lines(&self) -> impl Iterator<Item = &str> {
        let kept = match self {
            Trace::Last(_, lines) => Some(lines),
            _ => None,
        };
        kept.into_iter().flatten().map(String::as_str)
    }
}

/// One frame for people.
pub fn describe(kind: u8, payload: &[u8]) -> String {
    match kind {
        warren_wire::frame::FRAME_METHOD => describe_method(payload),
        warren_wire::frame::FRAME_HEADER => {
            let size = ContentHeader::peek(payload).map_or(0, |header| header.body_size);
            let id = payload.get(12..).and_then(|rest| BasicProperties::parse(rest).ok());
            let id = id.and_then(|p| p.message_id).map(String::from_utf8_lossy).unwrap_or_default();
            format!("header of message {id}, {size} octets")
        }
        warren_wire::frame::FRAME_BODY => format!("body, {} octets", payload.len()),
        _ => "heartbeat".to_owned(),
    }
}

fn describe_method(payload: &[u8]) -> String {
    let Ok(method) = Method::parse(payload) else { return "unreadable method".to_owned() };
    let id = method.id();
    let name = name(id).unwrap_or("?");
    let show = String::from_utf8_lossy;
    let detail = match method {
        Method::QueueDeclare(m) => {
            let flags = [
                (m.passive, " passive"),
                (m.exclusive, " exclusive"),
                (m.auto_delete, " auto-delete"),
                (m.no_wait, " no-wait"),
            ];
            let flags: String = flags.iter().filter(|(set, _)| *set).map(|(_, name)| *name).collect();
            format!("'{}'{flags}", show(m.queue))
        }
        Method::QueueDeclareOk(m) => format!("'{}' {} messages", show(m.queue), m.message_count),
        Method::QueueBind(m) => {
            format!("'{}' to '{}' by '{}'", show(m.queue), show(m.exchange), show(m.routing_key))
        }
        Method::QueueUnbind(m) => format!("'{}' from '{}'", show(m.queue), show(m.exchange)),
        Method::QueuePurge(m) => format!("'{}'", show(m.queue)),
        Method::QueueDelete(m) => format!("'{}'", show(m.queue)),
        Method::ExchangeDeclare(m) => format!("'{}' {}", show(m.exchange), show(m.kind)),
        Method::BasicPublish(m) => {
            let mandatory = if m.mandatory { " mandatory" } else { "" };
            format!("to '{}' by '{}'{mandatory}", show(m.exchange), show(m.routing_key))
        }
        Method::BasicReturn(m) => format!("{} '{}'", m.reply_code, show(m.routing_key)),
        Method::BasicConsume(m) => {
            let no_ack = if m.no_ack { " no-ack" } else { "" };
            format!("'{}' as '{}'{no_ack}", show(m.queue), show(m.consumer_tag))
        }
        Method::BasicConsumeOk(m) => format!("'{}'", show(m.consumer_tag)),
        Method::BasicCancel(m) => format!("'{}'", show(m.consumer_tag)),
        Method::BasicCancelOk(m) => format!("'{}'", show(m.consumer_tag)),
        Method::BasicDeliver(m) => {
            let again = if m.redelivered { " redelivered" } else { "" };
            format!("{} to '{}'{again}", m.delivery_tag, show(m.consumer_tag))
        }
        Method::BasicGet(m) => format!("'{}'{}", show(m.queue), if m.no_ack { " no-ack" } else { "" }),
        Method::BasicGetOk(m) => format!("{}", m.delivery_tag),
        Method::BasicAck(m) => format!("{}{}", m.delivery_tag, if m.multiple { " multiple" } else { "" }),
        Method::BasicNack(m) => format!("{} multiple={} requeue={}", m.delivery_tag, m.multiple, m.requeue),
        Method::BasicReject(m) => format!("{} requeue={}", m.delivery_tag, m.requeue),
        Method::BasicQos(m) => format!("{}", m.prefetch_count),
        Method::ChannelClose(m) => close_text(m.reply_code, m.reply_text, m.class_id, m.method_id),
        Method::ConnectionClose(m) => close_text(m.reply_code, m.reply_text, m.class_id, m.method_id),
        Method::ConnectionOpen(m) => format!("'{}'", show(m.virtual_host)),
        Method::ConnectionTuneOk(m) => {
            format!("channel_max {} frame_max {} heartbeat {}", m.channel_max, m.frame_max, m.heartbeat)
        }
        _ => String::new(),
    };
    if name == "?" { format!("method {:?} {detail}", split_id(id)) } else { format!("{name} {detail}") }
}

fn close_text(code: u16, text: &[u8], class: u16, method: u16) -> String {
    format!("{code} '{}' {class}/{method}", String::from_utf8_lossy(text))
}
