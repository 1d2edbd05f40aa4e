//! Publishes: they enter a shared upstream only when they are complete, because a broker closes the whole
//! connection when a channel ends in the middle of a content.

use warren_wire::content::{CONTENT_HEADER_LEN, ContentHeader, check_properties};
use warren_wire::frame::{
    FRAME_BODY, FRAME_HEADER, FRAME_METHOD, FRAME_OVERHEAD, Frame, HEADER_LEN, next_frame, set_channel,
};
use warren_wire::method::basic;

use crate::api::Link;
use crate::channel::{Content, Mode};
use crate::client::Flow;
use crate::engine::Engine;
use crate::fault::{Fault, snippet};
use crate::flow::To;
use crate::ids::{ChannelId, UpChannelId};
use crate::outbox::Outbox;
use crate::switch::Need;
use crate::upstream::Purpose;

/// Class and method of basic.publish.
const AT: (u16, u16) = (60, 40);

impl Engine {
    /// Publishes that are complete in the buffer, one after the other: rewritten in place and passed as one run.
    #[inline]
    pub(crate) fn publish_run(&mut self, id: ChannelId, buf: &mut [u8], first: &Frame) -> Option<usize> {
        let channel = self.channels.get(id)?;
        if channel.assembly.is_some() && channel.content == Content::None {
            // The publish before this one was assembled and is complete: it goes first.
            let source = Link::Session(channel.session);
            self.commit(source, buf);
        }
        let channel = self.channels.get_mut(id)?;
        let up = channel.current?;
        let state = self.up_channels.get_mut(up)?;
        let upstream = self.upstreams.get(state.upstream)?;
        let fits = (!matches!(channel.purpose, Purpose::Control | Purpose::Quarantine) || channel.pinned)
            && (channel.mode != Mode::Confirm || state.mode == Mode::Confirm)
            && channel.content == Content::None
            && channel.assembly.is_none()
            && upstream.blocked.is_none();
        if !fits {
            return None;
        }
        let (max_payload, message_size) = (upstream.tune.max_payload(), channel.usual_message);
        let (mut end, mut count) = (first.start, 0);
        let mut next = Some(*first);
        while let Some(method) = next
            && let Some(after) = whole_publish(buf, &method, max_payload, message_size)
        {
            end = after;
            count += 1;
            next = next_frame(buf, end, max_payload).ok().flatten().filter(|f| f.channel == first.channel);
        }
        if count == 0 {
            return None;
        }
        if state.number != first.channel {
            renumber(&mut buf[first.start..end], state.number);
        }
        if channel.mode == Mode::Confirm {
            // They are neighbours on both sides.
            channel.publishes.note_run(channel.next_publish, up, state.unconfirmed.next(), count);
            channel.next_publish += count;
            (0..count).for_each(|_| _ = state.unconfirmed.push(true));
        } else {
            state.unproven = true;
            state.risky = true;
            state.busy = true;
        }
        state.has_published = true;
        let (to, watched) = (To::Upstream(state.upstream), state.watched);
        if channel.mode == Mode::Plain && !watched {
            self.watch(up);
        }
        self.metrics.published_messages += count;
        self.pass(to, first.start, end);
        Some(end)
    }

    /// basic.publish whose content is not all there: it is assembled.
    pub(crate) fn publish_begin(
        &mut self,
        id: ChannelId,
        publish: &basic::Publish<'_>,
        frame: &[u8],
    ) -> Result<Flow, Fault> {
        if publish.immediate {
            return Err(Fault::connection(540, "immediate=true", AT));
        }
        let Some(up) = self.ensure(id, Need::Publish) else {
            return Ok(Flow::Hold);
        };
        let (upstream, number) = (self.up_channels[up].upstream, self.up_channels[up].number);
        if let Some(reason) = self.upstreams[upstream].blocked.clone() {
            let session = self.channels[id].session;
            self.tell_blocked(session, &reason);
        }
        self.fits_upstream(up, frame)?;
        let mut assembly = Box::new(Outbox::new(&self.pool));
        push_numbered(&mut assembly, frame, number);
        let channel = &mut self.channels[id];
        channel.content = Content::Header;
        channel.assembled_for = number;
        channel.assembly = Some(assembly);
        Ok(Flow::Done)
    }

    /// The content header of a publish that is being assembled.
    pub(crate) fn publish_header(&mut self, id: ChannelId, frame: &[u8]) -> Result<Flow, Fault> {
        let payload = &frame[HEADER_LEN..frame.len() - 1];
        let Some(header) = ContentHeader::peek(payload) else {
            let detail = format!("type {FRAME_HEADER}, {}: unknown_frame", snippet(payload));
            return Err(Fault::connection(501, detail, (0, 0)));
        };
        if header.class != 60 {
            let detail =
                format!("expected content header for class 60, got one for class {} instead", header.class);
            return Err(Fault::connection(505, detail, AT));
        }
        if header.weight != 0 {
            return Err(Fault::unexpected_frame(Content::Header));
        }
        if check_properties(&payload[CONTENT_HEADER_LEN..]).is_err() {
            return Err(Fault::connection(541, "", (0, 0)));
        }
        let most = self.config.limits.message_size.min(self.budget.largest());
        if header.body_size > most {
            let detail =
                format!("message size {} is larger than configured max size {most}", header.body_size);
            return Err(Fault::channel(406, detail, AT));
        }
        self.weigh_message(id, header.body_size, AT)?;
        if let Some(up) = self.channels[id].current {
            self.fits_upstream(up, frame)?;
        }
        self.announce(id, header.body_size)?;
        let channel = &mut self.channels[id];
        let number = channel.assembled_for;
        if let Some(assembly) = channel.assembly.as_deref_mut() {
            push_numbered(assembly, frame, number);
        }
        channel.content = Content::Body(header.body_size);
        if header.body_size == 0 {
            self.publish_complete(id);
        }
        Ok(Flow::Done)
    }

    /// A body frame of a publish that is being assembled, passed as a run.
    #[inline]
    pub(crate) fn body_run(&mut self, id: ChannelId, buf: &mut [u8], frame: &Frame) -> Option<usize> {
        let channel = self.channels.get_mut(id)?;
        let Content::Body(missing) = channel.content else {
            return None;
        };
        let up = self.up_channels.get(channel.current?)?;
        let size = frame.len() - FRAME_OVERHEAD;
        let most = self.upstreams.get(up.upstream)?.tune.max_payload();
        let ours = up.number == channel.assembled_for && channel.assembly.is_some();
        if !ours || size as u64 > missing || size > most as usize || size == 0 {
            return None;
        }
        channel.content = Content::Body(missing - size as u64);
        set_channel(buf, frame.start, up.number);
        let complete = missing == size as u64;
        self.pass(To::Assembly(id), frame.start, frame.end);
        if complete {
            self.count_publish(id);
            self.pass(To::Complete(id), frame.end, frame.end);
        }
        Some(frame.end)
    }

    /// A body frame, the slower way: too large for the upstream, or for a channel that is on its way.
    pub(crate) fn publish_body(&mut self, id: ChannelId, frame: &[u8], missing: u64) -> Result<Flow, Fault> {
        let payload = &frame[HEADER_LEN..frame.len() - 1];
        let size = payload.len() as u64;
        if size > missing {
            // RabbitMQ waits for the rest for ever, and says this of whatever comes next.
            return Err(Fault::unexpected_frame(Content::Body(missing)));
        }
        let most = match self.channels[id].current.and_then(|up| self.up_channels.get(up)) {
            Some(up) => self.upstreams[up.upstream].tune.max_payload() as usize,
            None => payload.len().max(1),
        };
        let channel = &mut self.channels[id];
        let number = channel.assembled_for;
        if let Some(assembly) = channel.assembly.as_deref_mut() {
            for part in payload.chunks(most) {
                assembly.write_with(|out| warren_wire::content::write_body(number, part, out));
            }
        }
        channel.content = Content::Body(missing - size);
        if size == missing {
            self.publish_complete(id);
        }
        Ok(Flow::Done)
    }

    fn publish_complete(&mut self, id: ChannelId) {
        if self.channels[id].flows() {
            self.count_publish(id);
        }
        self.send_assembly(id);
    }

    /// A complete publish gets its number.
    fn count_publish(&mut self, id: ChannelId) {
        let channel = &mut self.channels[id];
        channel.content = Content::None;
        let Some(up) = channel.current else { return };
        let state = &mut self.up_channels[up];
        if channel.mode == Mode::Confirm {
            let number = state.unconfirmed.push(true);
            channel.publishes.note(channel.next_publish, up, number);
            channel.next_publish += 1;
        } else {
            state.unproven = true;
            state.risky = true;
            state.busy = true;
        }
        state.has_published = true;
        let watch = channel.mode == Mode::Plain && !state.watched;
        self.metrics.published_messages += 1;
        if watch {
            self.watch(up);
        }
    }

    /// An assembled publish goes upstream, or joins the frames that its channel holds.
    pub(crate) fn send_assembly(&mut self, id: ChannelId) {
        self.announced_is_over(id);
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        let Some(mut assembly) = channel.assembly.take() else {
            return;
        };
        channel.content = Content::None;
        let session = channel.session;
        if !channel.flows() {
            let bytes = assembly.take_bytes();
            self.hold(id, &bytes);
            return;
        }
        let Some(up) = channel.current else { return };
        let (upstream, number) = (self.up_channels[up].upstream, self.up_channels[up].number);
        let in_order = number == channel.assembled_for;
        self.note_sent(session, assembly.len());
        let outbox = &mut self.upstreams[upstream].outbox;
        if in_order {
            assembly.move_into(outbox);
        } else {
            let mut bytes = assembly.take_bytes();
            renumber(&mut bytes, number);
            outbox.push_copy(&bytes);
        }
        self.flush_upstream(upstream);
        self.stall_if_full(session, upstream);
    }

    /// Method and header frames cannot be split: what does not fit upstream is refused (501, FRAME_ERROR).
    pub(crate) fn fits_upstream(&self, up: UpChannelId, frame: &[u8]) -> Result<(), Fault> {
        let most = self.upstreams[self.up_channels[up].upstream].tune.max_payload() as usize;
        let size = frame.len() - FRAME_OVERHEAD;
        if size <= most {
            return Ok(());
        }
        Err(Fault::connection(
            501,
            format!("a frame of {size} octets does not fit the broker's frames ({most})"),
            (0, 0),
        ))
    }
}

/// The end of a publish, when all of it is in the buffer and nothing is odd about it.
#[inline]
fn whole_publish(buf: &[u8], method: &Frame, max_payload: u32, message_size: u64) -> Option<usize> {
    if method.kind != FRAME_METHOD || !is_plain_publish(method.payload(buf)) {
        return None;
    }
    let header = next_frame(buf, method.end, max_payload).ok()??;
    if header.kind != FRAME_HEADER || header.channel != method.channel {
        return None;
    }
    let payload = header.payload(buf);
    let content = ContentHeader::peek(payload)?;
    if content.class != 60 || content.weight != 0 || content.body_size > message_size {
        return None;
    }
    check_properties(&payload[CONTENT_HEADER_LEN..]).ok()?;
    whole_body(buf, &header, content.body_size, max_payload)
}

/// Whether a method is basic.publish, its arguments are whole, and it asks for nothing special: ticket, exchange,
/// routing key and bits, of which immediate is the second (AMQP 0-9-1 section 1.8.3.7).
#[inline]
fn is_plain_publish(payload: &[u8]) -> bool {
    let Some(&exchange) = payload.get(6) else { return false };
    let Some(&key) = payload.get(7 + usize::from(exchange)) else { return false };
    let bits = 8 + usize::from(exchange) + usize::from(key);
    payload.len() == bits + 1 && payload[bits] & 2 == 0 && payload[..4] == basic::PUBLISH.to_be_bytes()
}

/// The end of the body that follows a content header, when all of it is in the buffer.
#[inline]
pub(crate) fn whole_body(buf: &[u8], header: &Frame, size: u64, max_payload: u32) -> Option<usize> {
    let (mut end, mut missing) = (header.end, size);
    while missing > 0 {
        let body = next_frame(buf, end, max_payload).ok()??;
        let size = (body.len() - FRAME_OVERHEAD) as u64;
        if body.kind != FRAME_BODY || body.channel != header.channel || size > missing {
            return None;
        }
        missing -= size;
        end = body.end;
    }
    Some(end)
}

/// Gives every frame of a run another channel number.
#[inline]
pub(crate) fn renumber(run: &mut [u8], number: u16) {
    let mut at = 0;
    while let Ok(Some(frame)) = next_frame(run, at, u32::MAX) {
        set_channel(run, at, number);
        at = frame.end;
    }
}

fn push_numbered(outbox: &mut Outbox, frame: &[u8], number: u16) {
    outbox.write_with(|out| {
        let at = out.len();
        out.extend_from_slice(frame);
        set_channel(out, at, number);
    });
}
