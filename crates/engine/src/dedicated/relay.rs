//! How bytes pass in a dedicated session: as they are, at once, in runs as long as what was read. The walk looks at the
//! seven octets of each frame's header, so that Warren knows where frames begin and end (nothing of its own may come into
//! one), and it stops at connection.close and its answer, so that both sockets end well. What of a frame has come is passed
//! on without waiting for the rest.

use warren_wire::content::ContentHeader;
use warren_wire::frame::{
    FRAME_END, FRAME_HEADER, FRAME_METHOD, FRAME_OVERHEAD, Frame, FrameError, announced_len, next_frame,
};
use warren_wire::method::{Method, channel, connection, method_id};

use crate::api::Link;
use crate::close::{self, CLOSE_OK_WITHIN};
use crate::dial::{BROKER, IDLE};
use crate::engine::Engine;
use crate::fault::Fault;
use crate::flow::To;
use crate::ids::{SessionId, UpstreamId};
use crate::session::Phase;
use crate::upstream::Stage;

/// connection.close is not longer: a text of 255 octets, four numbers, and the frame around them. A method on channel 0
/// that is no longer is waited for, since it may be one.
const CLOSE_MOST: usize = 512;

/// Why a walk has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    /// There is no more for now.
    Short,
    /// After connection.close.
    Close(Frame),
    /// After connection.close-ok.
    CloseOk,
    /// Before what is no frame.
    Error(FrameError),
    /// Before channel.open.
    ChannelOpen(Frame),
    /// After the answer to channel.close.
    ChannelEnd,
    /// Before the header of a message that is larger than usual: its size.
    Message(Frame, u64),
}

/// Of `octets`, those that a frame still lacks are its own. Returns how many.
pub(crate) fn skip(lacks: &mut u64, octets: usize) -> usize {
    let taken = (*lacks).min(octets as u64);
    *lacks -= taken;
    taken as usize
}

/// Walks from `at` on. Returns up to where the octets may be passed on. `lacks`: what the frame that was begun before
/// still lacks, and afterwards the last one. `usual`: channels and larger messages than that count.
fn walk(buf: &[u8], mut at: usize, lacks: &mut u64, max: u32, usual: Option<u64>) -> (usize, Stop) {
    if *lacks > 0 {
        let last = usize::try_from(*lacks - 1).ok().and_then(|last| buf.get(at + last));
        if let Some(&octet) = last.filter(|octet| **octet != FRAME_END) {
            at += skip(lacks, usize::try_from(*lacks - 1).unwrap_or(usize::MAX));
            *lacks = 1;
            return (at, Stop::Error(FrameError::End(octet)));
        }
        at += skip(lacks, buf.len() - at);
    }
    loop {
        match next_frame(buf, at, max) {
            Ok(Some(frame)) => {
                if let Some(usual) = usual
                    && let Some(stop) = limited(buf, &frame, usual)
                {
                    return (if stop == Stop::ChannelEnd { frame.end } else { at }, stop);
                }
                at = frame.end;
                if frame.kind != FRAME_METHOD || frame.channel != 0 {
                    continue;
                }
                match method_id(frame.payload(buf)) {
                    Some(connection::CLOSE) => return (at, Stop::Close(frame)),
                    Some(connection::CLOSE_OK) => return (at, Stop::CloseOk),
                    _ => {}
                }
            }
            Ok(None) => {
                let whole = announced_len(buf, at);
                let passes = |len: &usize| match buf[at] {
                    FRAME_METHOD => *len > CLOSE_MOST || usual.is_none() && buf[at + 1..at + 3] != [0, 0],
                    FRAME_HEADER => usual.is_none(),
                    _ => true,
                };
                if let Some(len) = whole.filter(passes) {
                    *lacks = (len - (buf.len() - at)) as u64;
                    at = buf.len();
                }
                return (at, Stop::Short);
            }
            Err(error) => return (at, Stop::Error(error)),
        }
    }
}

/// What of a frame counts where channels and messages are limited.
fn limited(buf: &[u8], frame: &Frame, usual: u64) -> Option<Stop> {
    let payload = frame.payload(buf);
    match frame.kind {
        _ if frame.channel == 0 => None,
        FRAME_HEADER => {
            let size = ContentHeader::peek(payload)?.body_size;
            (size > usual).then_some(Stop::Message(*frame, size))
        }
        FRAME_METHOD => match method_id(payload)? {
            channel::OPEN => Some(Stop::ChannelOpen(*frame)),
            channel::CLOSE_OK => Some(Stop::ChannelEnd),
            _ => None,
        },
        _ => None,
    }
}

impl Engine {
    /// Passes on what a dedicated client sent, from `at` on. Returns how many octets of the buffer are dealt with.
    pub(crate) fn relay_to_broker(&mut self, id: SessionId, buf: &[u8], mut at: usize) -> usize {
        loop {
            let Some(session) = self.sessions.get_mut(id).filter(|s| s.relays()) else { return buf.len() };
            // A payload as long as a whole frame may be is accepted, as RabbitMQ does.
            let max = session.max_payload.saturating_add(FRAME_OVERHEAD as u32);
            let (Some(dedicated), Some(up)) = (&mut session.dedicated, session.lane) else {
                return buf.len();
            };
            let usual = session.counts_own.then_some(session.usual_message);
            let (end, stop) = walk(buf, at, &mut dedicated.lacks, max, usual);
            if end > at {
                self.pass(To::Upstream(up), at, end);
            }
            at = end;
            match stop {
                Stop::Short => return at,
                Stop::Close(_) => self.client_closes_own(id),
                Stop::CloseOk if self.sessions[id].dedicated.as_ref().is_some_and(|d| d.broker_closes) => {
                    self.commit(Link::Session(id), buf);
                    self.detach_upstream(up);
                    self.end_upstream(up, BROKER, "the broker closed it");
                    self.end_session(id, close::UPSTREAM, "closed by the broker");
                    return buf.len();
                }
                Stop::CloseOk => {}
                Stop::ChannelOpen(frame) | Stop::Message(frame, _) => {
                    let outcome = match stop {
                        Stop::Message(_, size) => self.weigh_own_message(id, size),
                        _ => self.take_own_channel(id),
                    };
                    if let Err(fault) = outcome {
                        self.commit(Link::Session(id), buf);
                        self.refuse_session(id, &fault);
                        return buf.len();
                    }
                    self.pass(To::Upstream(up), frame.start, frame.end);
                    at = frame.end;
                }
                Stop::ChannelEnd => self.leave_own_channel(id),
                Stop::Error(error) => {
                    self.commit(Link::Session(id), buf);
                    self.client_is_lost(id, error, &buf[at..]);
                    return buf.len();
                }
            }
        }
    }

    /// What a client sends is no frame: it is told where that can be, and nothing of it reaches the broker any more.
    fn client_is_lost(&mut self, id: SessionId, error: FrameError, rest: &[u8]) {
        if self.sessions[id].dedicated.as_ref().is_some_and(|d| d.farewell.is_some()) {
            return;
        }
        if self.sessions[id].lacks() == 0 {
            return self.client_frame_error(id, error, rest);
        }
        let detail = match error {
            FrameError::End(octet) => format!("{{invalid_frame_end_marker,{octet}}}"),
            other => other.to_string(),
        };
        self.refuse_session(id, &Fault::connection(501, detail, (0, 0)));
    }

    /// connection.close from the client is on its way to the broker, which has the time of any wait to answer it.
    fn client_closes_own(&mut self, id: SessionId) {
        let deadline = self.now + self.config.limits.wait_limit;
        let session = &mut self.sessions[id];
        if session.phase == Phase::Running {
            session.phase = Phase::Leaving;
            session.ending.get_or_insert((close::CLIENT, "closed by the client".into()));
            session.deadline = Some(deadline);
            self.arm_session(id, deadline);
        }
    }

    /// Passes on what the broker of a dedicated session sent, from `at` on. Returns how many octets of the buffer are
    /// dealt with; `None`: the session is over, they are for nobody.
    pub(crate) fn relay_to_client(&mut self, up: UpstreamId, buf: &[u8], mut at: usize) -> Option<usize> {
        loop {
            let upstream = self.upstreams.get_mut(up)?;
            let id = upstream.session.filter(|_| upstream.stage == Stage::Ready)?;
            let session = self.sessions.get(id).filter(|s| s.relays())?;
            let parting = session.dedicated.as_ref().is_some_and(|d| d.farewell.is_some());
            let (end, stop) = if parting {
                (at + skip(&mut upstream.lacks, buf.len() - at), Stop::Short)
            } else {
                // Of what a broker sends, only the ends of channels count.
                let usual = session.counts_own.then_some(u64::MAX);
                walk(buf, at, &mut upstream.lacks, upstream.tune.max_payload(), usual)
            };
            let complete = upstream.lacks == 0;
            if end > at {
                self.pass(To::Session(id), at, end);
            }
            at = end;
            if parting && complete {
                self.commit(Link::Upstream(up), buf);
                self.say_farewell(id);
                return None;
            }
            match stop {
                Stop::Short => return Some(at),
                Stop::Close(frame) => self.broker_closes_own(up, id, frame.payload(buf)),
                Stop::CloseOk if self.sessions[id].phase == Phase::Leaving => {
                    self.commit(Link::Upstream(up), buf);
                    self.detach_upstream(up);
                    self.end_upstream(up, IDLE, "closed by its client");
                    self.await_end(id);
                    return Some(buf.len());
                }
                Stop::CloseOk => {}
                Stop::ChannelEnd => self.leave_own_channel(id),
                // A broker opens no channels, and its messages are not limited.
                Stop::ChannelOpen(frame) | Stop::Message(frame, _) => {
                    self.pass(To::Session(id), frame.start, frame.end);
                    at = frame.end;
                }
                Stop::Error(error) => {
                    self.commit(Link::Upstream(up), buf);
                    self.abort_upstream(up, BROKER, &format!("it sent what is not AMQP: {error}"));
                    return Some(buf.len());
                }
            }
        }
    }

    /// connection.close from the broker is on its way to the client, which has a moment to answer it.
    fn broker_closes_own(&mut self, up: UpstreamId, id: SessionId, payload: &[u8]) {
        let why = match Method::parse(payload) {
            Ok(Method::ConnectionClose(close)) => {
                let text = String::from_utf8_lossy(close.reply_text);
                format!("the broker closed it: {} {text}", close.reply_code)
            }
            _ => "the broker closed it".to_owned(),
        };
        self.upstreams[up].ending.get_or_insert((BROKER, why.clone()));
        let deadline = self.now + CLOSE_OK_WITHIN;
        let session = &mut self.sessions[id];
        if let Some(dedicated) = &mut session.dedicated {
            dedicated.broker_closes = true;
        }
        session.phase = Phase::Leaving;
        session.ending.get_or_insert((close::UPSTREAM, why));
        session.deadline = Some(deadline);
        self.arm_session(id, deadline);
    }
}
