//! How bytes pass in a dedicated session: as they are, at once, in runs as long as what was read. The walk looks at the
//! seven octets of each frame's header, so that Warren knows where frames begin and end (nothing of its own may come into
//! one), and it stops at connection.close and its answer, so that both sockets end well. What of a frame has come is passed
//! on without waiting for the rest.

use warren_wire::frame::{
    FRAME_END, FRAME_METHOD, FRAME_OVERHEAD, Frame, FrameError, announced_len, next_frame,
};
use warren_wire::method::{Method, connection, method_id};

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
}

/// Of `octets`, those that a frame still lacks are its own. Returns how many.
pub(crate) fn skip(lacks: &mut u64, octets: usize) -> usize {
    let taken = (*lacks).min(octets as u64);
    *lacks -= taken;
    taken as usize
}

/// Walks from `at` on. Returns up to where the octets may be passed on. `lacks`: what the frame that was begun before
/// still lacks, and afterwards the last one.
fn walk(buf: &[u8], mut at: usize, lacks: &mut u64, max: u32) -> (usize, Stop) {
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
                let waits = |len: &usize| *len > CLOSE_MOST || buf[at..at + 3] != [FRAME_METHOD, 0, 0];
                if let Some(len) = whole.filter(waits) {
                    *lacks = (len - (buf.len() - at)) as u64;
                    at = buf.len();
                }
                return (at, Stop::Short);
            }
            Err(error) => return (at, Stop::Error(error)),
        }
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
            let (end, stop) = walk(buf, at, &mut dedicated.lacks, max);
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
                walk(buf, at, &mut upstream.lacks, upstream.tune.max_payload())
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
