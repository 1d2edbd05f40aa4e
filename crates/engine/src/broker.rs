//! Frames from a broker: the loop over a buffer, and the everyday frames (complete deliveries, confirms), which are
//! rewritten in place and leave as runs.

use std::collections::BTreeSet;

use warren_wire::content::ContentHeader;
use warren_wire::frame::{
    FRAME_BODY, FRAME_HEADER, FRAME_METHOD, FRAME_OVERHEAD, Frame, HEADER_LEN, get_u64, next_frame, put_u64,
    set_channel,
};
use warren_wire::method::{Method, basic, connection, method_id};

use crate::api::Link;
use crate::channel::{Channel, Standing};
use crate::dial;
use crate::engine::Engine;
use crate::flow::To;
use crate::ids::{SessionId, TenantId, UpChannelId, UpstreamId};
use crate::publish::whole_body;
use crate::quota::is_channel_limit;
use crate::session::Session;
use crate::sources::GOT;
use crate::tenant::{NodeId, Tenant};
use crate::upstream::{Incoming, Purpose, Stage, Upstream};

/// Where the delivery tag stands in the payload of ack and nack.
const TAG_AT: usize = 4;

/// Messages up to this size are passed on whole. A block for reading holds that much with its method and header.
const WHOLE_MOST: u64 = 128 << 10;

/// How RabbitMQ ends the text with which it closes the connections of a user or a virtual host that is deleted. The
/// connections of one virtual host get the one or the other.
const GONE: [&str; 2] = [" is deleted", " is down"];

impl Engine {
    /// Walks over what a broker sent. Returns how many octets are dealt with.
    pub(crate) fn broker_frames(&mut self, id: UpstreamId, buf: &mut [u8]) -> usize {
        let mut at = 0;
        while let Some(upstream) = self.upstreams.get(id) {
            if upstream.stage == Stage::Ended {
                return buf.len();
            }
            if upstream.purpose == Purpose::Dedicated
                && matches!(upstream.stage, Stage::Ready | Stage::Closing)
            {
                match self.relay_to_client(id, buf, at) {
                    Some(end) => return end,
                    None => at += crate::dedicated::skip(&mut self.upstreams[id].lacks, buf.len() - at),
                }
            }
            let Some(upstream) = self.upstreams.get(id) else { break };
            // Before tune the broker may use frames of any size that it will offer: RabbitMQ's default.
            let max = upstream.tune.max_payload();
            match next_frame(buf, at, max) {
                Ok(Some(frame)) => {
                    at = match self.broker_run(id, buf, &frame) {
                        Some(end) => end,
                        None if self.awaits_rest(id, buf, &frame, max) => return at,
                        None => {
                            self.broker_frame(id, buf, &frame);
                            frame.end
                        }
                    };
                }
                Ok(None) => return at,
                Err(error) => {
                    self.commit(Link::Upstream(id), buf);
                    self.abort_upstream(id, dial::BROKER, &format!("it sent what is not AMQP: {error}"));
                    return buf.len();
                }
            }
        }
        buf.len()
    }

    /// Whether the rest of a message that has begun should be waited for. A client that has seen the beginning of a
    /// message cannot go on when the connection is lost before its end, so short ones are passed on whole. Brokers
    /// write a message in one piece; if another channel's frame comes between, nothing is waited for.
    fn awaits_rest(&self, id: UpstreamId, buf: &[u8], method: &Frame, max: u32) -> bool {
        let starts = matches!(
            method_id(method.payload(buf)),
            Some(basic::DELIVER | basic::RETURN | basic::GET_OK) if method.kind == FRAME_METHOD
        );
        let up = self.upstreams.get(id).and_then(|u| u.numbers.get(method.channel));
        let state = up.filter(|_| starts).and_then(|up| self.up_channels.get(up));
        if state.is_none_or(|s| s.incoming != Incoming::None || s.owner.is_none()) {
            return false;
        }
        let mut at = method.end;
        let mut missing = None;
        while missing != Some(0) {
            let Ok(next) = next_frame(buf, at, max) else { return false };
            let Some(frame) = next else { return true };
            missing = match (missing, frame.kind) {
                _ if frame.channel != method.channel => return false,
                (None, FRAME_HEADER) => ContentHeader::peek(frame.payload(buf)).map(|h| h.body_size),
                (Some(missing), FRAME_BODY) => missing.checked_sub((frame.len() - FRAME_OVERHEAD) as u64),
                _ => return false,
            };
            if missing.is_none_or(|octets| octets > WHOLE_MOST) {
                return false;
            }
            at = frame.end;
        }
        false
    }

    /// The fast way. `None`: take the slower one, nothing has been changed.
    #[inline]
    fn broker_run(&mut self, id: UpstreamId, buf: &mut [u8], frame: &Frame) -> Option<usize> {
        if frame.kind != FRAME_METHOD || frame.channel == 0 {
            return None;
        }
        let up = self.upstreams.get(id)?.numbers.get(frame.channel)?;
        match method_id(frame.payload(buf))? {
            basic::DELIVER => self.deliver_run(up, buf, frame),
            basic::ACK => self.confirm_run(up, buf, frame),
            _ => None,
        }
    }

    /// Deliveries that are complete in the buffer, one after the other on one channel.
    #[inline]
    fn deliver_run(&mut self, up: UpChannelId, buf: &mut [u8], first: &Frame) -> Option<usize> {
        let state = self.up_channels.get_mut(up)?;
        let channel = self.channels.get_mut(state.owner?)?;
        if channel.speaking.is_some()
            || state.incoming != Incoming::None
            || channel.standing != Standing::Open
        {
            return None;
        }
        let session = self.sessions.get(channel.session)?;
        let max_payload = session.max_payload;
        let (mut end, mut count) = (first.start, 0);
        let mut next = Some(*first);
        while let Some(method) = next
            && let Some((tag_at, consumer)) = delivery(channel, method.payload(buf))
            && let Some(after) = whole_delivery(buf, &method, max_payload)
        {
            let tag_at = method.start + HEADER_LEN + tag_at;
            let consumer = &mut channel.consumers[consumer];
            let (no_ack, reply_to) = (consumer.no_ack, consumer.reply_to);
            let tag = get_u64(buf, tag_at);
            if reply_to || tag != state.unacked.next() {
                break;
            }
            if consumer.watched
                && let Ok(Some(header)) = next_frame(buf, method.end, max_payload)
            {
                consumer.note_offset(header.payload(buf));
            }
            let client_tag = channel.next_delivery;
            channel.next_delivery += 1;
            if !no_ack {
                state.sources.note(tag, consumer.source, &state.unacked);
                channel.deliveries.note(client_tag, up, tag);
            }
            state.unacked.push(!no_ack);
            #[cfg(feature = "sabotage")]
            let client_tag =
                if self.options.sabotage == crate::engine::Sabotage::TagOffset { tag } else { client_tag };
            if client_tag != tag {
                put_u64(buf, tag_at, client_tag);
            }
            end = after;
            count += 1;
            next = next_frame(buf, end, max_payload).ok().flatten().filter(|f| f.channel == first.channel);
        }
        if count == 0 {
            return None;
        }
        if channel.number != first.channel {
            crate::publish::renumber(&mut buf[first.start..end], channel.number);
        }
        self.metrics.delivered_messages += count;
        let to = To::Session(channel.session);
        self.pass(to, first.start, end);
        Some(end)
    }

    /// A confirm on a channel whose publishes all went to this binding.
    #[inline]
    fn confirm_run(&mut self, up: UpChannelId, buf: &mut [u8], frame: &Frame) -> Option<usize> {
        let state = self.up_channels.get_mut(up)?;
        let channel = self.channels.get_mut(state.owner?)?;
        let simple = channel.current == Some(up)
            && channel.standing == Standing::Open
            && channel.speaking.is_none()
            && channel.publishes.only(up);
        if !simple || frame.len() != FRAME_OVERHEAD + TAG_AT + 9 {
            return None;
        }
        let at = frame.start + HEADER_LEN + TAG_AT;
        let tag = get_u64(buf, at);
        let multiple = buf[at + 8] & 1 == 1;
        let client_tag = channel.publishes.to_client(up, tag)?;
        if multiple {
            if state.unconfirmed.settle_through(tag) == 0 {
                return None;
            }
        } else if !state.unconfirmed.settle(tag) {
            return None;
        }
        put_u64(buf, at, client_tag);
        set_channel(buf, frame.start, channel.number);
        let to = To::Session(channel.session);
        self.pass(to, frame.start, frame.end);
        Some(frame.end)
    }

    /// One frame of a broker, the slower way.
    fn broker_frame(&mut self, id: UpstreamId, buf: &mut [u8], frame: &Frame) {
        if frame.channel == 0 {
            self.commit(Link::Upstream(id), buf);
            self.broker_connection_frame(id, frame.kind, frame.payload(buf));
            return;
        }
        let Some(up) = self.upstreams[id].numbers.get(frame.channel) else {
            return;
        };
        match frame.kind {
            FRAME_METHOD => {
                self.commit(Link::Upstream(id), buf);
                match Method::parse(frame.payload(buf)) {
                    Ok(method) => self.broker_method(up, method, &buf[frame.start..frame.end]),
                    Err(error) => {
                        self.abort_upstream(
                            id,
                            dial::BROKER,
                            &format!("it sent a method that is not known: {error:?}"),
                        );
                    }
                }
            }
            _ => self.broker_content(id, up, buf, frame),
        }
    }

    /// A frame on channel 0.
    fn broker_connection_frame(&mut self, id: UpstreamId, kind: u8, payload: &[u8]) {
        if kind != FRAME_METHOD {
            return;
        }
        let stage = self.upstreams[id].stage;
        let Ok(method) = Method::parse(payload) else {
            self.abort_upstream(id, dial::BROKER, "it sent a method that is not known");
            return;
        };
        match (stage, method) {
            (Stage::Ready, Method::ConnectionClose(close)) => self.broker_closes(id, &close),
            (Stage::Ready, Method::ConnectionBlocked(blocked)) => self.broker_blocks(id, blocked.reason),
            (_, Method::ConnectionUnblocked) => {
                self.upstreams[id].blocked = None;
                self.tell_unblocked();
            }
            (Stage::Closing, Method::ConnectionCloseOk) => self.broker_closed(id),
            (Stage::Closing, Method::ConnectionClose(_)) => {
                self.tell_upstream(id, 0, Method::ConnectionCloseOk);
                self.broker_closed(id);
            }
            (Stage::Ready | Stage::Closing, _) => {}
            (_, method) => self.broker_handshake(id, method),
        }
    }

    /// connection.close from the broker. A lane's goes to its session as it is; a shared one's sessions are told
    /// that their broker has gone.
    fn broker_closes(&mut self, id: UpstreamId, close: &connection::Close<'_>) {
        let text = String::from_utf8_lossy(close.reply_text).into_owned();
        let upstream = &self.upstreams[id];
        let lane_of =
            upstream.session.filter(|_| upstream.purpose == Purpose::Lane && close.reply_code != 320);
        if let Some(session) = lane_of {
            let at = (close.class_id, close.method_id);
            self.close_session(session, close.reply_code, &text, at, crate::close::UPSTREAM);
        }
        if close.reply_code == 320 && GONE.iter().any(|gone| text.ends_with(gone)) {
            self.tenants_deleted(id, &text);
        }
        if close.reply_code != 320 && !is_channel_limit(close) {
            self.doubt_what_is_safe(id);
        }
        self.learn_channel_limit(id, close);
        let why = format!("the broker closed it: {} {text}", close.reply_code);
        self.lose_upstream(id, dial::BROKER, &why, Some(close));
        self.tell_upstream(id, 0, Method::ConnectionCloseOk);
        self.commands.push_back(crate::api::Command::Close(Link::Upstream(id)));
    }

    /// The virtual host or the user of a connection was deleted: all sessions of it would have been told, whatever
    /// their secret is, and whether they have anything upstream or not.
    fn tenants_deleted(&mut self, id: UpstreamId, text: &str) {
        let Some(gone) = self.upstreams[id].tenant.and_then(|t| self.tenants.get(t)) else { return };
        let of_user = text.contains("user '");
        let (farm, vhost) = (gone.farm, gone.vhost.clone());
        let user = self.logins[gone.login].credentials.user.clone();
        let concerned = |t: &Tenant| {
            let same = if of_user { self.logins[t.login].credentials.user == user } else { t.vhost == vhost };
            t.farm == farm && same
        };
        let tenants: BTreeSet<TenantId> =
            self.tenants.iter().filter(|(_, t)| concerned(t)).map(|t| t.0).collect();
        for tenant in &tenants {
            self.tenants[*tenant].proven_at = None;
            let login = self.tenants[*tenant].login;
            if of_user {
                self.logins[login].verified_at = None;
            }
        }
        let belongs = |s: &Session| s.tenant.is_some_and(|t| tenants.contains(&t));
        let told: Vec<SessionId> = self.sessions.iter().filter(|(_, s)| belongs(s)).map(|s| s.0).collect();
        for session in told {
            self.close_session(session, 320, text, (0, 0), crate::close::UPSTREAM);
        }
    }

    /// close-ok for Warren's own connection.close.
    fn broker_closed(&mut self, id: UpstreamId) {
        for up in self.upstreams[id].numbers.all() {
            let owner = self.up_channels.remove(up).and_then(|u| u.owner);
            if let Some(channel) = owner {
                self.closing_progress(channel, up);
            }
        }
        let session = self.upstreams[id].session;
        self.detach_upstream(id);
        self.end_upstream(id, dial::IDLE, "closed");
        if let Some(session) = session {
            self.check_leaving(session);
        }
    }

    /// connection.blocked: whoever has something on the way to this broker is told now, others at their first publish.
    fn broker_blocks(&mut self, id: UpstreamId, reason: &[u8]) {
        self.upstreams[id].blocked = Some(reason.into());
        for up in self.upstreams[id].numbers.all() {
            let state = &self.up_channels[up];
            let publishing = state.unproven || !state.unconfirmed.is_empty();
            let owner = state.owner.filter(|_| publishing).and_then(|o| self.channels.get(o));
            if let Some(session) = owner.map(|c| c.session) {
                self.tell_blocked(session, reason);
            }
        }
    }

    /// connection.unblocked for those who were told of an alarm that none of their connections has any more.
    pub(crate) fn tell_unblocked(&mut self) {
        let place = |u: &Upstream| u.tenant.map(|tenant| NodeId { tenant, backend: u.backend });
        let blocked: BTreeSet<NodeId> =
            self.upstreams.values().filter(|u| u.blocked.is_some()).filter_map(place).collect();
        let freed = |s: &Session| s.told_blocked && s.place().is_none_or(|node| !blocked.contains(&node));
        let told: Vec<SessionId> = self.sessions.iter().filter(|(_, s)| freed(s)).map(|s| s.0).collect();
        for session in told {
            self.sessions[session].told_blocked = false;
            self.tell_client(session, 0, Method::ConnectionUnblocked);
        }
    }

    /// A frame of a content that is on its way to a client.
    fn broker_content(&mut self, id: UpstreamId, up: UpChannelId, buf: &mut [u8], frame: &Frame) {
        let size = (frame.len() - FRAME_OVERHEAD) as u64;
        let state = &mut self.up_channels[up];
        let next = match (state.incoming, frame.kind) {
            (Incoming::Header, FRAME_HEADER) => ContentHeader::peek(frame.payload(buf)).map(|h| h.body_size),
            (Incoming::Body(missing), FRAME_BODY) => missing.checked_sub(size),
            _ => None,
        };
        let Some(missing) = next else {
            self.commit(Link::Upstream(id), buf);
            self.abort_upstream(id, dial::BROKER, "it sent a content frame that does not belong there");
            return;
        };
        state.incoming = if missing == 0 { Incoming::None } else { Incoming::Body(missing) };
        let heading = std::mem::take(&mut state.heading);
        if heading != GOT {
            self.note_heading(up, heading, frame.payload(buf));
        }
        let state = &mut self.up_channels[up];

        if state.discarding {
            state.discarding = missing > 0;
            let owner = state.owner;
            if missing == 0
                && let Some(channel) = owner
            {
                self.commit(Link::Upstream(id), buf);
                self.closing_progress(channel, up);
            }
            return;
        }
        let Some(channel) = state.owner else {
            return self.orphan_progress(up);
        };
        let Some(owner) = self.channels.get(channel) else {
            return;
        };
        let (number, session) = (owner.number, owner.session);
        let max_payload = self.sessions.get(session).map_or(u32::MAX, |s| s.max_payload);
        if owner.speaking == Some(up) && size <= u64::from(max_payload) {
            set_channel(buf, frame.start, number);
            self.pass(To::Session(session), frame.start, frame.end);
        } else {
            self.commit(Link::Upstream(id), buf);
            self.content_part(channel, up, frame.kind, frame.payload(buf), max_payload);
        }
        if missing == 0 {
            self.commit(Link::Upstream(id), buf);
            self.content_done(channel, up);
        }
    }
}

/// Where the delivery tag stands in a basic.deliver, and whose it is; `None` for any other method.
#[inline]
fn delivery(channel: &mut Channel, payload: &[u8]) -> Option<(usize, usize)> {
    if payload.get(..4)? != basic::DELIVER.to_be_bytes() {
        return None;
    }
    let tag_at = 5 + usize::from(*payload.get(4)?);
    if payload.len() < tag_at + 9 {
        return None;
    }
    Some((tag_at, channel.consumer(&payload[5..tag_at])?))
}

/// The end of a delivery whose content is all in the buffer, with frames that the client accepts.
#[inline]
fn whole_delivery(buf: &[u8], method: &Frame, max_payload: u32) -> Option<usize> {
    let header = next_frame(buf, method.end, max_payload).ok()??;
    if method.kind != FRAME_METHOD || header.kind != FRAME_HEADER || header.channel != method.channel {
        return None;
    }
    let size = ContentHeader::peek(header.payload(buf))?.body_size;
    whole_body(buf, &header, size, max_payload)
}
