//! The places of sessions and channels within the limits of routes and rules ([`crate::allowances`]).
//!
//! A session takes its place when the broker has let it in, before open-ok, so that strangers cannot use up what others
//! may have; where a connection to the broker is made for each session, before that is made. It gives it back when it
//! ends, however it ends.

use warren_wire::method::{Method, channel};
use warren_wire::reply;

use crate::allowances::{Notice, Pass, Who};
use crate::channel::{Channel, Standing};
use crate::close;
use crate::config::RouteId;
use crate::engine::Engine;
use crate::event::Event;
use crate::fault::Fault;
use crate::ids::{ChannelId, SessionId};

impl Engine {
    /// The route of a session is known: finds out which limits concern it.
    pub(crate) fn find_place(&mut self, id: SessionId, route: RouteId, vhost: &str, user: &str) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        let who = Who { vhost, user, address: session.peer.address.ip() };
        let pass = self.allowances.pass(route, who, self.now);
        self.give_pass(id, Box::new(pass));
    }

    /// A session gets what was found out here or by another worker.
    pub(crate) fn give_pass(&mut self, id: SessionId, pass: Box<Pass>) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        session.usual_message = self.config.limits.message_size.min(pass.usual_message());
        session.pass = Some(pass);
    }

    /// Takes the place of a session. `false`: there is none, and the client was told.
    pub(crate) fn take_place(&mut self, id: SessionId) -> bool {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(id) else { return false };
        let Some(pass) = session.pass.as_mut() else { return true };
        let outcome = pass.enter(now);
        session.paced = outcome.is_ok() && pass.measures_data();
        session.counts_own = pass.counts_channels() || pass.usual_message() < u64::MAX;
        match outcome {
            Ok(alarms) => {
                self.tell_notices(id, alarms);
                true
            }
            Err(notice) => {
                let detail = match notice.is_rate() {
                    // As amqpprox says it, and then what it was.
                    true => {
                        format!("The connection for {}, is limited by proxy. {}", session.vhost, notice.what)
                    }
                    false => format!("connection refused by proxy: {} is reached", notice.what),
                };
                let text = reply::text(506, &detail);
                self.tell_notices(id, [notice]);
                self.close_session(id, 506, &text, (10, 40), close::LIMIT);
                false
            }
        }
    }

    /// A session has ended, whatever is still to be done for it.
    pub(crate) fn leave_place(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(id) {
            session.pass = None;
            session.paced = false;
            session.reading_waits = false;
            session.writing_waits = false;
        }
    }

    /// Makes the record of a channel that a client opens. `false`: the limit of channels is reached, and the client was told
    /// by channel.close, so that its other channels go on.
    pub(crate) fn take_channel(&mut self, id: SessionId, number: u16) -> bool {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(id) else { return false };
        let mut record = Channel::new(id, number, session.usual_message);
        let outcome = match session.pass.as_mut() {
            Some(pass) => pass.open_channel(now).inspect(|_| record.counts = true),
            None => Ok(Vec::new()),
        };
        if outcome.is_err() {
            record.standing = Standing::Refused;
        }
        let channel = self.channels.insert(record);
        self.sessions[id].channels.insert(number, channel);
        match outcome {
            Ok(alarms) => {
                self.tell_notices(id, alarms);
                true
            }
            Err(notice) => {
                let detail = format!("channel refused by proxy: {} is reached", notice.what);
                let text = reply::text(506, &detail);
                let reply_text = reply::cut(&text).as_bytes();
                let close = channel::Close { reply_code: 506, reply_text, class_id: 20, method_id: 10 };
                self.metrics.channel_errors += 1;
                self.tell_client(id, number, Method::ChannelClose(close));
                self.tell_notices(id, [notice]);
                false
            }
        }
    }

    /// A channel's record is gone.
    pub(crate) fn leave_channel(&mut self, session: SessionId, counted: bool) {
        if counted && let Some(pass) = self.sessions.get_mut(session).and_then(|s| s.pass.as_mut()) {
            pass.close_channel();
        }
    }

    /// A dedicated client opens a channel. Its frames pass as they are, so that nobody could answer for its broker: beyond
    /// the limit its connection ends, as brokers do it.
    pub(crate) fn take_own_channel(&mut self, id: SessionId) -> Result<(), Fault> {
        let now = self.now;
        let Some(pass) = self.sessions.get_mut(id).and_then(|s| s.pass.as_mut()) else { return Ok(()) };
        match pass.open_channel(now) {
            Ok(alarms) => self.tell_notices(id, alarms),
            Err(notice) => {
                let detail = format!("channel refused by proxy: {} is reached", notice.what);
                self.tell_notices(id, [notice]);
                return Err(Fault::connection(506, detail, (20, 10)));
            }
        }
        Ok(())
    }

    /// A channel of a dedicated client is closed.
    pub(crate) fn leave_own_channel(&mut self, id: SessionId) {
        let pass = self.sessions.get_mut(id).and_then(|s| s.pass.as_mut());
        if let Some(pass) = pass.filter(|pass| pass.channels() > 0) {
            pass.close_channel();
        }
    }

    /// A message of a dedicated client is larger than usual. Its broker has seen the beginning of it: beyond the limit its
    /// connection ends.
    pub(crate) fn weigh_own_message(&mut self, id: SessionId, size: u64) -> Result<(), Fault> {
        let Some(pass) = self.sessions.get(id).and_then(|s| s.pass.as_ref()) else { return Ok(()) };
        match pass.weigh_message(size, self.now) {
            Ok(alarms) => self.tell_notices(id, alarms),
            Err((most, notice)) => {
                let detail = too_large(size, most, &notice);
                self.tell_notices(id, [notice]);
                return Err(Fault::connection(506, detail, (60, 40)));
            }
        }
        Ok(())
    }

    /// A message is larger than what goes without a look: refused (406, as a broker would), or an alarm.
    pub(crate) fn weigh_message(&mut self, id: ChannelId, size: u64, at: (u16, u16)) -> Result<(), Fault> {
        let Some(channel) = self.channels.get(id).filter(|c| size > c.usual_message) else { return Ok(()) };
        let session = channel.session;
        let Some(pass) = self.sessions.get(session).and_then(|s| s.pass.as_ref()) else { return Ok(()) };
        match pass.weigh_message(size, self.now) {
            Ok(alarms) => self.tell_notices(session, alarms),
            Err((most, notice)) => {
                let detail = too_large(size, most, &notice);
                self.tell_notices(session, [notice]);
                return Err(Fault::channel(406, detail, at));
            }
        }
        Ok(())
    }

    /// Puts into the log what limits were reached, when it is time for a line.
    pub(crate) fn tell_notices(&mut self, id: SessionId, notices: impl IntoIterator<Item = Notice>) {
        let Some(session) = self.sessions.get(id) else { return };
        for notice in notices.into_iter().filter(|n| n.tell) {
            let event = Event::LimitReached {
                session: id,
                peer: session.peer.address,
                vhost: session.vhost.to_string(),
                limit: notice.what,
                refused: notice.refused,
            };
            self.commands.push_back(crate::api::Command::Event(event));
        }
    }
}

/// As brokers say it, and whose limit it is.
fn too_large(size: u64, most: u64, notice: &Notice) -> String {
    format!("message size {size} is larger than configured max size {most} ({})", notice.what)
}
