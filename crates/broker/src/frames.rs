//! The walk over a connection's input, and where each frame goes.

use warren_wire::Method;
use warren_wire::content::CONTENT_HEADER_LEN;
use warren_wire::frame::{
    FRAME_BODY, FRAME_END, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD, FRAME_OVERHEAD, Frame, FrameError,
    HEADER_LEN, announced_len, next_frame,
};
use warren_wire::method::{MethodError, channel, method_id};

use crate::call::{Call, unimplemented_method};
use crate::channel::Channel;
use crate::connection::{Connection, Life, State};
use crate::content::Content;
use crate::core::Core;
use crate::fault::{Fault, Outcome, snippet};
use crate::message::Message;

impl Connection {
    /// Processes the next frame of `input` at `self.at`; false when there is none or none may be read.
    pub(crate) fn process_next(&mut self, core: &mut Core, input: &[u8]) -> bool {
        if self.blocked || self.is_over() {
            return false;
        }
        if self.state == State::Header {
            return self.protocol_header(core, input);
        }
        // RabbitMQ lets payloads be as long as frame_max, overhead not counted (BROKER-FACTS, "Login").
        match next_frame(input, self.at, self.frame_max) {
            Ok(Some(frame)) => {
                self.at = frame.end;
                let result = self.process(core, frame, frame.payload(input));
                self.conclude(core, frame.channel, result);
                true
            }
            Ok(None) => false,
            Err(error) => self.bad_frame(core, input, error),
        }
    }

    /// Bytes that are no frame, judged in RabbitMQ's order: size, end octet, type. False when more of them are needed.
    fn bad_frame(&mut self, core: &mut Core, input: &[u8], error: FrameError) -> bool {
        let header: Option<&[u8; HEADER_LEN]> = input.get(self.at..).and_then(|rest| rest.first_chunk());
        let (Some(&[kind, c0, c1, ..]), Some(len)) = (header, announced_len(input, self.at)) else {
            return false;
        };
        let size = len - FRAME_OVERHEAD;
        let fault = if size > self.frame_max as usize {
            let max = self.frame_max as usize - FRAME_OVERHEAD;
            let detail = format!("type {kind}, all octets = <<>>: {{frame_too_large,{size},{max}}}");
            Fault::fatal(501, detail)
        } else {
            let Some((&end, payload)) =
                input.get(self.at + HEADER_LEN..self.at + len).and_then(<[u8]>::split_last)
            else {
                return false;
            };
            self.at += len;
            let shown = snippet(payload);
            match error {
                FrameError::Type(_) if end == FRAME_END => unknown_frame(kind, payload),
                _ => Fault::fatal(501, format!("type {kind}, {shown}: {{invalid_frame_end_marker,{end}}}")),
            }
        };
        self.conclude(core, u16::from_be_bytes([c0, c1]), Err(fault));
        true
    }

    fn process(&mut self, core: &mut Core, frame: Frame, payload: &[u8]) -> Outcome {
        match (frame.channel, self.state) {
            (0, State::Closed { .. }) if frame.kind == FRAME_METHOD => self.connection_method(core, payload),
            (_, State::Closed { .. }) => Ok(()),
            (0, _) => self.connection_frame(core, frame.kind, payload),
            (number, State::Running) => self.channel_frame(core, number, frame.kind, payload),
            _ => Err(unexpected_frame(frame.kind, payload)),
        }
    }

    fn connection_frame(&mut self, core: &mut Core, kind: u8, payload: &[u8]) -> Outcome {
        match kind {
            FRAME_METHOD => self.connection_method(core, payload),
            FRAME_HEARTBEAT if payload.is_empty() => Ok(()),
            FRAME_HEADER if payload.len() < CONTENT_HEADER_LEN => Err(unknown_frame(kind, payload)),
            FRAME_HEADER | FRAME_BODY => Err(unexpected_frame(kind, payload)),
            _ => Err(unknown_frame(kind, payload)),
        }
    }

    fn connection_method(&mut self, core: &mut Core, payload: &[u8]) -> Outcome {
        let method = match Method::parse(payload) {
            Ok(method) => method,
            Err(MethodError::Truncated) => return Err(unknown_frame(FRAME_METHOD, payload)),
            Err(MethodError::Unknown(_)) => return Err(Fault::reset()),
            // Decoding fails inside the reader's own handler, which answers clients that it trusts.
            Err(MethodError::Malformed(_)) if self.state == State::Running => {
                return Err(Fault::connection(541, ""));
            }
            Err(MethodError::Malformed(_)) => return Err(Fault::reset()),
        };
        check_utf8(&method)?;
        self.run_connection_method(core, &method)
            .map_err(|fault| if fault.method == 0 { fault.at(method.id()) } else { fault })
    }

    fn channel_frame(&mut self, core: &mut Core, number: u16, kind: u8, payload: &[u8]) -> Outcome {
        match kind {
            FRAME_METHOD if payload.len() < 4 => return Err(unknown_frame(kind, payload)),
            FRAME_HEADER if payload.len() < CONTENT_HEADER_LEN => return Err(unknown_frame(kind, payload)),
            FRAME_HEARTBEAT if payload.is_empty() => return Err(unexpected_frame(kind, payload)),
            FRAME_METHOD | FRAME_HEADER | FRAME_BODY => {}
            _ => return Err(unknown_frame(kind, payload)),
        }
        self.claim_number(number)?;
        if kind == FRAME_METHOD {
            return self.channel_method(core, number, payload);
        }
        let limit = core.options.max_message_size;
        let Some(slot) = self.slot_mut(number) else {
            return Ok(());
        };
        let complete = if kind == FRAME_HEADER {
            slot.assembler.header(payload, limit)
        } else {
            slot.assembler.body(payload, limit)
        };
        let complete = complete?;
        self.note_content(core);
        match complete {
            Some(content) => self.run_content(core, number, content),
            None => Ok(()),
        }
    }

    /// Makes sure that the number has a slot. One that was released is free once the client can know.
    fn claim_number(&mut self, number: u16) -> Outcome {
        if let Some(Life::Released { at }) = self.slot_mut(number).map(|slot| slot.life)
            && self.is_taken(at)
        {
            self.drop_slot(number);
        }
        if self.slot_mut(number).is_some() {
            return Ok(());
        }
        if self.channel_max != 0 && self.in_use >= usize::from(self.channel_max) {
            return Err(Fault::connection(
                530,
                format!(
                    "number of channels opened ({}) has reached the negotiated channel_max ({})",
                    self.in_use, self.channel_max
                ),
            ));
        }
        self.add_slot(number);
        Ok(())
    }

    fn channel_method(&mut self, core: &mut Core, number: u16, payload: &[u8]) -> Outcome {
        let parsed = Method::parse(payload);
        if let Err(MethodError::Unknown(_)) = parsed {
            return Err(Fault::reset());
        }
        let Some(slot) = self.slot_mut(number) else {
            return Ok(());
        };
        slot.assembler.check_method()?;
        let Ok(method) = parsed else {
            return Err(malformed(payload));
        };
        if let Some(content) = begin_content(&method) {
            slot.assembler.begin(content);
            return Ok(());
        }
        check_utf8(&method)?;
        match (slot.life, &method) {
            (Life::Starting, Method::ChannelOpen) => self.open_channel(core, number),
            (Life::Starting, _) => Err(not_open(&method)),
            (Life::Open(key), Method::ChannelClose(_)) => {
                core.close_channel(key);
                self.release(number);
                Ok(())
            }
            (Life::Open(_), Method::ChannelCloseOk) => Err(unimplemented_method().at(method.id())),
            (Life::Open(key), _) => {
                let frame_max = self.frame_max;
                match Call::new(core, &mut self.output, key, frame_max) {
                    Some(mut call) => call.run(&method),
                    None => Ok(()),
                }
            }
            (Life::Closing, Method::ChannelCloseOk) => {
                self.drop_slot(number);
                Ok(())
            }
            (Life::Closing, Method::ChannelFlow(m)) if core.options.quirks.flow_outlives_channel => {
                let ok = channel::FlowOk { active: m.active };
                Method::ChannelFlowOk(ok).write(number, &mut self.output);
                Ok(())
            }
            // Both sides closed at once: answer, and still wait for the answer to our own.
            (Life::Closing, Method::ChannelClose(_)) => {
                Method::ChannelCloseOk.write(number, &mut self.output);
                Ok(())
            }
            (Life::Closing | Life::Released { .. }, Method::ChannelOpen) => {
                Err(Fault::connection(504, "second 'channel.open' seen").at(method.id()))
            }
            (Life::Closing | Life::Released { .. }, _) => Ok(()),
        }
    }

    fn open_channel(&mut self, core: &mut Core, number: u16) -> Outcome {
        let mut channel = Channel::new(self.id, number, self.vhost, self.user);
        channel.cancel_notify = self.capabilities.consumer_cancel_notify;
        channel.prefetch = core.options.default_prefetch.into();
        let key = core.channels.insert(channel);
        if let Some(slot) = self.slot_mut(number) {
            slot.life = Life::Open(key);
        }
        core.counters.channels_opened += 1;
        Method::ChannelOpenOk.write(number, &mut self.output);
        Ok(())
    }

    /// Answers the client's `channel.close`.
    fn release(&mut self, number: u16) {
        Method::ChannelCloseOk.write(number, &mut self.output);
        let at = self.output_end();
        if let Some(slot) = self.slot_mut(number) {
            slot.life = Life::Released { at };
            self.in_use -= 1;
        }
    }

    fn run_content(&mut self, core: &mut Core, number: u16, content: Content) -> Outcome {
        let Some(slot) = self.slot_mut(number) else {
            return Ok(());
        };
        match slot.life {
            Life::Open(key) => {
                let frame_max = self.frame_max;
                match Call::new(core, &mut self.output, key, frame_max) {
                    Some(mut call) => call.run_content(content),
                    None => Ok(()),
                }
            }
            Life::Starting => Err(Fault::connection(504, "expected 'channel.open'").at(content.method)),
            Life::Closing | Life::Released { .. } => Ok(()),
        }
    }
}

fn not_open(method: &Method<'_>) -> Fault {
    Fault::connection(504, "expected 'channel.open'").at(method.id())
}

fn unknown_frame(kind: u8, payload: &[u8]) -> Fault {
    Fault::connection(501, format!("type {kind}, {}: unknown_frame", snippet(payload)))
}

fn unexpected_frame(kind: u8, payload: &[u8]) -> Fault {
    Fault::unexpected_frame(format!("type {kind}, {}", snippet(payload)))
}

/// A method whose fields do not fit is refused in words. A table that is malformed inside crashes RabbitMQ's reader instead,
/// and the socket with it. The methods of channels have their table last: with it emptied, the rest must make sense.
fn malformed(payload: &[u8]) -> Fault {
    let (id, fields) = payload.split_at(payload.len().min(4));
    let table_alone_is_wrong = (4..payload.len().saturating_sub(3)).any(|at| {
        let size = payload.len() - at - 4;
        let announced = payload[at..].first_chunk().map(|size| u32::from_be_bytes(*size) as usize);
        announced == Some(size) && Method::parse(&[&payload[..at], &[0; 4]].concat()).is_ok()
    });
    if table_alone_is_wrong {
        return Fault::reset();
    }
    // The text holds 255 octets: there is no use in more numbers than that.
    let shown: Vec<String> = fields.iter().take(255).map(u8::to_string).collect();
    Fault::connection(501, format!("cannot decode <<{}>>", shown.join(","))).at(method_id(id).unwrap_or(0))
}

/// For methods that carry content, in whichever direction: what is assembled.
fn begin_content(method: &Method<'_>) -> Option<Content> {
    let (exchange, routing_key, mandatory, immediate) = match method {
        Method::BasicPublish(m) => (m.exchange, m.routing_key, m.mandatory, m.immediate),
        // Only a server sends these; they are refused when they are complete.
        Method::BasicReturn(_) | Method::BasicDeliver(_) | Method::BasicGetOk(_) => {
            (&b""[..], &b""[..], false, false)
        }
        _ => return None,
    };
    Some(Content {
        method: method.id(),
        mandatory,
        immediate,
        size: 0,
        message: Message::begin(exchange, routing_key),
    })
}

/// RabbitMQ wants short strings to be UTF-8, except in methods that carry content.
fn check_utf8(method: &Method<'_>) -> Outcome {
    let strings: [&[u8]; 3] = match method {
        Method::ConnectionStartOk(m) => [m.mechanism, m.locale, b""],
        Method::ConnectionOpen(m) => [m.virtual_host, b"", b""],
        Method::ConnectionClose(m) => [m.reply_text, b"", b""],
        Method::ConnectionUpdateSecret(m) => [m.reason, b"", b""],
        Method::ChannelClose(m) => [m.reply_text, b"", b""],
        Method::AccessRequest(m) => [m.realm, b"", b""],
        Method::ExchangeDeclare(m) => [m.exchange, m.kind, b""],
        Method::ExchangeDelete(m) => [m.exchange, b"", b""],
        Method::ExchangeBind(m) => [m.destination, m.source, m.routing_key],
        Method::ExchangeUnbind(m) => [m.destination, m.source, m.routing_key],
        Method::QueueDeclare(m) => [m.queue, b"", b""],
        Method::QueueBind(m) => [m.queue, m.exchange, m.routing_key],
        Method::QueueUnbind(m) => [m.queue, m.exchange, m.routing_key],
        Method::QueuePurge(m) => [m.queue, b"", b""],
        Method::QueueDelete(m) => [m.queue, b"", b""],
        Method::BasicConsume(m) => [m.queue, m.consumer_tag, b""],
        Method::BasicCancel(m) => [m.consumer_tag, b"", b""],
        Method::BasicGet(m) => [m.queue, b"", b""],
        _ => return Ok(()),
    };
    if strings.iter().all(|s| std::str::from_utf8(s).is_ok()) {
        Ok(())
    } else {
        Err(Fault::connection(501, "Malformed UTF-8 in shortstr"))
    }
}
