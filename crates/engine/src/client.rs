//! Frames from a client: the loop over a buffer, and where each frame goes. The everyday frames (complete
//! publishes, acks, bodies) are rewritten in place and leave as runs; everything else takes the slower way through
//! [`Engine::client_frame`].

use warren_wire::frame::{
    FRAME_BODY, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD, FRAME_OVERHEAD, Frame, HEADER_LEN, next_frame,
};
use warren_wire::method::{Method, MethodError, basic, channel, connection, method_id};
use warren_wire::reply;

use crate::api::Link;
use crate::channel::{ChannelFault, Content, Standing, Switch};
use crate::close;
use crate::consume::bound_settlement;
use crate::engine::Engine;
use crate::fault::Fault;
use crate::handshake::split;
use crate::ids::{ChannelId, SessionId};
use crate::refuse::is_unknown;
use crate::session::Phase;

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Flow {
    Done,
    /// It must wait, with everything after it on its channel.
    Hold,
}

impl Engine {
    /// Walks over what a client sent. Returns how many octets are dealt with.
    pub(crate) fn client_frames(&mut self, id: SessionId, buf: &mut [u8]) -> usize {
        let mut at = 0;
        while let Some(session) = self.sessions.get_mut(id) {
            match session.phase {
                // Another publish must not get memory while this one waits for it: they would wait for each other.
                Phase::Running if session.awaits_memory => return at,
                Phase::Running | Phase::Leaving if session.dedicated.is_some() => {
                    return self.relay_to_broker(id, buf, at);
                }
                Phase::CloseSent if session.lacks() > 0 => {
                    at += session.skip(buf.len() - at);
                    if session.lacks() > 0 {
                        return at;
                    }
                    continue;
                }
                Phase::Running | Phase::CloseSent => {}
                Phase::Header => {
                    let Some(header) = buf[at..].first_chunk::<8>() else {
                        return at;
                    };
                    at += 8;
                    self.client_header(id, *header);
                    continue;
                }
                phase if phase.waits() => return at,
                phase if phase.is_handshake() => {}
                _ => return buf.len(),
            }
            // A payload as long as a whole frame may be is accepted, as RabbitMQ does.
            let slack = if session.phase.is_handshake() { 0 } else { FRAME_OVERHEAD as u32 };
            let max = session.max_payload.saturating_add(slack);
            match next_frame(buf, at, max) {
                Ok(Some(frame)) => {
                    at = match self.client_run(id, buf, &frame) {
                        Some(end) => end,
                        None => {
                            self.commit(Link::Session(id), buf);
                            self.client_frame(id, &buf[frame.start..frame.end]);
                            frame.end
                        }
                    };
                }
                Ok(None) => return at,
                Err(error) => {
                    self.commit(Link::Session(id), buf);
                    self.client_frame_error(id, error, &buf[at..]);
                    return buf.len();
                }
            }
        }
        at
    }

    /// The fast way. `None`: take the slower one, nothing has been changed.
    #[inline]
    fn client_run(&mut self, id: SessionId, buf: &mut [u8], frame: &Frame) -> Option<usize> {
        let session = self.sessions.get_mut(id)?;
        if frame.channel == 0 || session.phase != Phase::Running {
            return None;
        }
        let channel = session.channel(frame.channel)?;
        self.channel_run(channel, buf, frame)
    }

    #[inline]
    fn channel_run(&mut self, id: ChannelId, buf: &mut [u8], frame: &Frame) -> Option<usize> {
        if !self.channels.get(id)?.flows() {
            return None;
        }
        match frame.kind {
            FRAME_METHOD => match method_id(frame.payload(buf))? {
                basic::PUBLISH => self.publish_run(id, buf, frame),
                basic::ACK => self.ack_run(id, buf, frame),
                _ => None,
            },
            FRAME_BODY => self.body_run(id, buf, frame),
            _ => None,
        }
    }

    /// One frame of a client, the slower way.
    fn client_frame(&mut self, id: SessionId, frame: &[u8]) {
        let number = u16::from_be_bytes([frame[1], frame[2]]);
        let payload = &frame[HEADER_LEN..frame.len() - 1];
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        let running = session.phase == Phase::Running;
        match (frame[0], number) {
            (FRAME_METHOD, 0) => self.client_connection_method(id, payload),
            (FRAME_HEARTBEAT, 0) if payload.is_empty() => {}
            _ if session.phase.is_handshake() => self.too_early(id),
            _ if !running => {}
            (FRAME_HEARTBEAT, _) | (_, 0) => self.misplaced_frame(id, frame[0], payload),
            (FRAME_METHOD, _) if payload.len() < 4 => self.unknown_frame(id, FRAME_METHOD, payload),
            (kind, _) => match session.channel(number) {
                Some(channel) => self.channel_frame(channel, frame),
                None if kind == FRAME_METHOD => self.unopened(id, number, payload),
                None => self.refuse_session(id, &Fault::unexpected_frame(Content::None)),
            },
        }
    }

    /// A method on channel 0.
    fn client_connection_method(&mut self, id: SessionId, payload: &[u8]) {
        let phase = self.sessions[id].phase;
        let method = match Method::parse(payload) {
            Ok(method) => method,
            Err(_) if phase == Phase::CloseSent => return,
            Err(error) => return self.bad_connection_method(id, error, payload),
        };
        if phase != Phase::CloseSent && !method.strings_are_utf8() {
            return self.refuse_session(id, &Fault::not_utf8(split(method.id())));
        }
        match (phase, method) {
            (Phase::CloseSent, Method::ConnectionCloseOk) => self.end_session(id, close::CLIENT, "closed"),
            (Phase::CloseSent, Method::ConnectionClose(_)) => {
                self.tell_client(id, 0, Method::ConnectionCloseOk);
            }
            (Phase::CloseSent, _) => {}
            (Phase::Running, Method::ConnectionClose(_)) => self.client_close(id),
            (Phase::Running, Method::ConnectionUpdateSecret(update)) => {
                self.client_updates_secret(id, &update);
            }
            (Phase::Running, other) => {
                let detail = "unexpected method in connection state running";
                self.refuse_session(id, &Fault::connection(504, detail, split(other.id())));
            }
            (_, method) => self.client_handshake(id, method),
        }
    }

    /// A method on a channel that is not open.
    fn unopened(&mut self, id: SessionId, number: u16, payload: &[u8]) {
        match Method::parse(payload) {
            Ok(Method::ChannelOpen) => self.open_client_channel(id, number),
            // The client's answer to a close that crossed its own.
            Ok(Method::ChannelCloseOk) => {}
            Ok(other) => {
                let fault = Fault::connection(504, "expected 'channel.open'", split(other.id()));
                self.refuse_session(id, &fault);
            }
            Err(error) => self.bad_method(id, error, payload),
        }
    }

    /// channel.open is answered at once; nothing is opened upstream until a frame needs it.
    fn open_client_channel(&mut self, id: SessionId, number: u16) {
        let session = &self.sessions[id];
        let (open, max) = (session.channels.len(), session.tune.channel_max);
        if max != 0 && open >= usize::from(max) {
            let detail =
                format!("number of channels opened ({open}) has reached the negotiated channel_max ({max})");
            self.close_session(id, 530, &reply::text(530, &detail), (0, 0), close::LIMIT);
            return;
        }
        if self.take_channel(id, number) {
            self.tell_client(id, number, Method::ChannelOpenOk);
        }
    }

    /// A frame on an open channel.
    fn channel_frame(&mut self, id: ChannelId, frame: &[u8]) {
        let channel = &mut self.channels[id];
        match channel.standing {
            Standing::Closing => return self.closing_frame(id, frame),
            Standing::Refused => return self.refused_frame(id, frame),
            Standing::Open => {}
        }
        let waits = channel.switch != Switch::None || !channel.held.is_empty() || channel.fault.is_some();
        let closes = frame[0] == FRAME_METHOD && method_id(&frame[HEADER_LEN..]) == Some(channel::CLOSE);
        if waits && !(closes && channel.only_waits()) {
            self.hold(id, frame);
            return;
        }
        let session = channel.session;
        let payload = &frame[HEADER_LEN..frame.len() - 1];
        if frame[0] == FRAME_METHOD && channel.content != Content::None && self.has_left(session) {
            // The end of a session in the middle of a content: what is not complete is dropped.
            self.announced_is_over(id);
            let channel = &mut self.channels[id];
            channel.content = Content::None;
            channel.assembly = None;
        }
        let result = match (frame[0], self.channels[id].content) {
            (FRAME_METHOD, Content::None) => match Method::parse(payload) {
                Ok(method) if !method.strings_are_utf8() => Err(Fault::not_utf8((0, 0))),
                Ok(method) => self.client_method(id, method, frame),
                Err(error) => return self.bad_method(session, error, payload),
            },
            (FRAME_HEADER, Content::Header) => self.publish_header(id, frame),
            (FRAME_BODY, Content::Body(missing)) => self.publish_body(id, frame, missing),
            (FRAME_METHOD, _) if is_unknown(payload) => {
                return self.bad_method(
                    session,
                    MethodError::Unknown(method_id(payload).unwrap_or(0)),
                    payload,
                );
            }
            (_, content) => Err(Fault::unexpected_frame(content)),
        };
        match result {
            Ok(Flow::Done) => {}
            Ok(Flow::Hold) => self.hold(id, frame),
            Err(fault) => self.client_fault(id, &fault, frame),
        }
    }

    /// Whether a session has closed its connection or is gone; its channels may still have work to do.
    fn has_left(&self, id: SessionId) -> bool {
        self.sessions.get(id).is_none_or(|s| matches!(s.phase, Phase::Leaving | Phase::Gone))
    }

    /// A mistake of a client reaches that client alone.
    fn client_fault(&mut self, id: ChannelId, fault: &Fault, frame: &[u8]) {
        let channel = &mut self.channels[id];
        let session = channel.session;
        if channel.awaiting > 0 || channel.speaking.is_some() {
            // Answers to earlier requests come first, and a content that is under way.
            channel.switch = Switch::Awaiting;
            self.hold(id, frame);
            return;
        }
        if self.prove_first(id) {
            // So do errors and returns of what was sent before.
            self.hold(id, frame);
            return;
        }
        if fault.closes_connection {
            self.refuse_session(session, fault);
        } else {
            let text = reply::text(fault.code, &fault.detail);
            self.channel_error(id, fault.code, text.as_bytes(), fault.at);
        }
    }

    /// Behind its own channel.close a client has nothing to say, least of all channel.open before close-ok.
    fn closing_frame(&mut self, id: ChannelId, frame: &[u8]) {
        let session = self.channels[id].session;
        let opens = frame[0] == FRAME_METHOD && method_id(&frame[HEADER_LEN..]) == Some(channel::OPEN);
        if opens && !self.has_left(session) {
            let fault = Fault::connection(504, "second 'channel.open' seen", (20, 10));
            self.refuse_session(session, &fault);
        }
    }

    /// After Warren's channel.close only the answer matters.
    fn refused_frame(&mut self, id: ChannelId, frame: &[u8]) {
        match Method::parse(&frame[HEADER_LEN..frame.len() - 1]) {
            Ok(Method::ChannelCloseOk) if frame[0] == FRAME_METHOD => self.remove_channel(id),
            Ok(Method::ChannelClose(_)) if frame[0] == FRAME_METHOD => {
                self.tell_channel(id, Method::ChannelCloseOk);
            }
            _ => {}
        }
    }

    /// Keeps a frame until its channel is bound again.
    pub(crate) fn hold(&mut self, id: ChannelId, frame: &[u8]) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        let at = channel.held.len();
        channel.held.extend_from_slice(frame);
        bound_settlement(&mut channel.held[at..], channel.next_delivery - 1);
        self.budget.note_held(frame.len(), 0);
        if channel.held.len() > self.budget.room.held
            && let Some(session) = self.sessions.get_mut(channel.session)
        {
            session.held_full = true;
        }
    }

    /// Frames that were held go on, unless their channel has to wait again.
    pub(crate) fn replay(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        if channel.switch != Switch::None || channel.held.is_empty() {
            return;
        }
        let mut held = std::mem::take(&mut channel.held);
        self.budget.note_held(0, held.len());
        let session = channel.session;
        let mut at = 0;
        while let Ok(Some(frame)) = next_frame(&held, at, u32::MAX) {
            let Some(channel) = self.channels.get_mut(id) else { break };
            if !channel.held.is_empty() {
                // It waits again: the rest joins what it holds, in one move.
                channel.held.extend_from_slice(&held[at..]);
                self.budget.note_held(held.len() - at, 0);
                break;
            }
            at = match self.channel_run(id, &mut held, &frame) {
                Some(end) => end,
                None => {
                    self.commit(Link::Session(session), &held);
                    self.channel_frame(id, &held[frame.start..frame.end]);
                    frame.end
                }
            };
        }
        self.commit(Link::Session(session), &held);
        self.unhold(session);
    }

    /// Reads a session again once no channel of it holds too much.
    pub(crate) fn unhold(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get(id).filter(|s| s.held_full) else {
            return;
        };
        let most = self.budget.room.held;
        let holds = |id: &ChannelId| self.channels.get(*id).is_some_and(|c| c.held.len() > most);
        if !session.channels.ids().iter().any(holds) {
            self.sessions[id].held_full = false;
            self.read_if_free(id);
        }
    }

    /// The channel closes with an error; what it had upstream is given up.
    pub(crate) fn channel_error(
        &mut self,
        id: ChannelId,
        code: u16,
        text: &[u8],
        (class_id, method_id): (u16, u16),
    ) {
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        let closing = channel.standing == Standing::Closing;
        let session = channel.session;
        if channel.speaking.is_some() {
            let fault = ChannelFault { code, text: text.to_vec(), at: (class_id, method_id) };
            channel.fault.get_or_insert(Box::new(fault));
            return;
        }
        self.let_others_speak(id);
        self.metrics.channel_errors += 1;
        if self.sessions.get(session).is_some_and(|s| s.phase == Phase::Running) {
            let text = reply::cut_bytes(text);
            let close = channel::Close { reply_code: code, reply_text: text, class_id, method_id };
            self.tell_channel(id, Method::ChannelClose(close));
        }
        self.announced_is_over(id);
        self.leave_all(id);
        if closing {
            self.finish_close(id);
            return;
        }
        let channel = &mut self.channels[id];
        channel.standing = Standing::Refused;
        channel.switch = Switch::None;
        let held = std::mem::take(&mut channel.held);
        self.budget.note_held(0, held.len());
        let closed_already = ends_with_close(&held);
        channel.content = Content::None;
        channel.assembly = None;
        channel.consumers = Vec::new();
        channel.awaiting = 0;
        channel.naming = 0;
        self.unhold(session);
        let running = self.sessions.get(session).is_some_and(|s| s.phase == Phase::Running);
        if closed_already && running {
            // Its close had come and waited its turn: both closes cross.
            self.tell_channel(id, Method::ChannelCloseOk);
        }
        if closed_already || !running {
            self.remove_channel(id);
        }
    }

    /// Tells a client that its broker is blocked, at its own first publish during the alarm.
    pub(crate) fn tell_blocked(&mut self, id: SessionId, reason: &[u8]) {
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        if session.told_blocked || !session.capabilities.connection_blocked {
            return;
        }
        session.told_blocked = true;
        self.tell_client(id, 0, Method::ConnectionBlocked(connection::Blocked { reason }));
    }
}

/// Whether the last of these frames is channel.close.
fn ends_with_close(frames: &[u8]) -> bool {
    let mut at = 0;
    let mut close = false;
    while let Ok(Some(frame)) = next_frame(frames, at, u32::MAX) {
        close = frame.kind == FRAME_METHOD && method_id(frame.payload(frames)) == Some(channel::CLOSE);
        at = frame.end;
    }
    close
}
