//! Messages of a broker on a channel, the slower way: those that come in parts, and those whose channel is busy.

use warren_wire::content::write_body;
use warren_wire::frame::{FRAME_BODY, FRAME_END, HEADER_LEN, put_u64};
use warren_wire::method::basic;

use crate::api::Link;
use crate::channel::Standing;
use crate::engine::Engine;
use crate::ids::{ChannelId, SessionId, UpChannelId};
use crate::sources::GOT;
use crate::upstream::Incoming;

impl Engine {
    /// basic.deliver whose content is not all in the buffer, or whose channel is busy.
    pub(crate) fn deliver(&mut self, up: UpChannelId, deliver: &basic::Deliver<'_>, frame: &[u8]) {
        let state = &mut self.up_channels[up];
        state.incoming = Incoming::Header;
        let Some(id) = state.owner else {
            state.unacked.push(true);
            return;
        };
        if self.channels.get(id).is_none_or(|c| c.standing != Standing::Open) {
            // Its client has closed the channel: the message goes back to its queue.
            state.unacked.push(true);
            state.discarding = true;
            return;
        }
        let channel = &mut self.channels[id];
        let consumer = channel.consumer(deliver.consumer_tag).map(|at| &channel.consumers[at]);
        let heading = consumer.filter(|c| c.watched).map_or(GOT, |c| c.source);
        self.up_channels[up].heading = heading;
        let channel = &mut self.channels[id];
        let consumer = channel.consumer(deliver.consumer_tag).map(|at| &channel.consumers[at]);
        let (no_ack, reply_to) = consumer.map_or((false, false), |c| (c.no_ack, c.reply_to));
        let source = consumer.map_or(GOT, |c| c.source);
        let client_tag = if reply_to {
            // Direct reply-to deliveries repeat the next number and do not count.
            channel.next_delivery
        } else {
            self.number_delivery(id, up, deliver.delivery_tag, source, no_ack)
        };
        let at = HEADER_LEN + 5 + deliver.consumer_tag.len();
        let mut copy = frame.to_vec();
        put_u64(&mut copy, at, client_tag);
        self.metrics.delivered_messages += 1;
        self.content_begins(id, up, &copy);
    }

    /// The header of a message has come whose consumer's messages are looked at.
    pub(crate) fn note_heading(&mut self, up: UpChannelId, source: u32, header: &[u8]) {
        let owner = self.up_channels[up].owner.and_then(|o| self.channels.get_mut(o));
        let consumer = owner.and_then(|c| c.consumers.iter_mut().find(|c| c.source == source));
        if let Some(consumer) = consumer {
            consumer.note_offset(header);
        }
    }

    pub(crate) fn got(&mut self, id: ChannelId, up: UpChannelId, no_ack: bool, frame: &[u8]) {
        let tag = warren_wire::frame::get_u64(frame, HEADER_LEN + 4);
        self.up_channels[up].incoming = Incoming::Header;
        let client_tag = self.number_delivery(id, up, tag, GOT, no_ack);
        let mut copy = frame.to_vec();
        put_u64(&mut copy, HEADER_LEN + 4, client_tag);
        self.metrics.delivered_messages += 1;
        self.content_begins(id, up, &copy);
    }

    /// Gives a delivery its number for the client.
    fn number_delivery(
        &mut self,
        id: ChannelId,
        up: UpChannelId,
        tag: u64,
        source: u32,
        no_ack: bool,
    ) -> u64 {
        let state = &mut self.up_channels[up];
        while state.unacked.next() < tag && tag - state.unacked.next() < 1 << 16 {
            state.unacked.push(false);
        }
        if !no_ack {
            state.sources.note(tag, source, &state.unacked);
        }
        state.unacked.push(!no_ack);
        let channel = &mut self.channels[id];
        let client_tag = channel.next_delivery;
        channel.next_delivery += 1;
        if !no_ack {
            channel.deliveries.note(client_tag, up, tag);
        }
        #[cfg(feature = "sabotage")]
        let client_tag =
            if self.options.sabotage == crate::engine::Sabotage::TagOffset { tag } else { client_tag };
        client_tag
    }

    pub(crate) fn returned(&mut self, up: UpChannelId, frame: &[u8]) {
        let state = &mut self.up_channels[up];
        state.incoming = Incoming::Header;
        if let Some(id) = state.owner {
            self.metrics.returned_messages += 1;
            self.content_begins(id, up, frame);
        }
    }

    /// The method of a content: from here to its end the client's channel hears this binding alone.
    fn content_begins(&mut self, id: ChannelId, up: UpChannelId, frame: &[u8]) {
        self.relay(id, up, frame);
        let Some(channel) = self.channels.get_mut(id) else { return };
        if channel.is_held_up() {
            channel.turns.begin_content();
        } else {
            channel.speaking = Some(up);
        }
    }

    /// A header or body that is not passed as it stands: withheld, or split to what the client accepts.
    pub(crate) fn content_part(
        &mut self,
        id: ChannelId,
        up: UpChannelId,
        kind: u8,
        payload: &[u8],
        max: u32,
    ) {
        let channel = &mut self.channels[id];
        let (number, session) = (channel.number, channel.session);
        let write = |out: &mut Vec<u8>| {
            if kind == FRAME_BODY {
                payload.chunks(max as usize).for_each(|part| write_body(number, part, out));
            } else {
                put_frame(out, kind, number, payload);
            }
        };
        if channel.speaking == Some(up) {
            let source = Link::Upstream(self.up_channels[up].upstream);
            self.send_client_from(session, Some(source), write);
        } else {
            channel.turns.go_on(up, write);
            let octets = channel.turns.octets();
            self.bound_waiting(session, octets);
        }
    }

    /// A content is complete: others on the same client's channel may speak.
    pub(crate) fn content_done(&mut self, id: ChannelId, up: UpChannelId) {
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        if channel.speaking != Some(up) {
            return channel.turns.end_content(up);
        }
        channel.speaking = None;
        self.let_others_speak(id);
        self.retire_if_done(id, up);
        self.closing_progress(id, up);
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        if channel.speaking.is_some() {
            return;
        }
        if let Some(fault) = channel.fault.take() {
            self.channel_error(id, fault.code, &fault.text, fault.at);
        } else {
            self.resume_answered(id);
        }
    }

    /// What waited for the end of a content is sent, up to the next one that is not complete.
    pub(crate) fn let_others_speak(&mut self, id: ChannelId) {
        let mut heard = Vec::new();
        while let Some(channel) = self.channels.get_mut(id).filter(|c| c.speaking.is_none())
            && let Some(next) = channel.turns.next()
        {
            channel.speaking = next.from.filter(|_| next.unfinished);
            let session = channel.session;
            self.send_client(session, |out| out.extend_from_slice(&next.frames));
            heard.extend(next.from.filter(|_| !next.unfinished));
        }
        for up in heard {
            self.retire_if_done(id, up);
        }
    }

    /// What waits counts as the session's memory: looked at when the step is over.
    pub(crate) fn bound_waiting(&mut self, session: SessionId, octets: usize) {
        if octets > self.config.limits.session_outbox && !self.slow.contains(&session) {
            self.slow.push(session);
        }
    }
}

fn put_frame(out: &mut Vec<u8>, kind: u8, channel: u16, payload: &[u8]) {
    out.push(kind);
    out.extend_from_slice(&channel.to_be_bytes());
    out.extend_from_slice(&u32::try_from(payload.len()).unwrap_or(u32::MAX).to_be_bytes());
    out.extend_from_slice(payload);
    out.push(FRAME_END);
}
