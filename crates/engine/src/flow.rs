//! How bytes leave: runs of the input as one slice, frames of Warren's own, and what happens when a peer does not
//! read. Whether a run is copied or kept by reference is decided by its size.

use warren_wire::method::Method;

use crate::allowances::Way;
use crate::api::{Command, Link};
use crate::buf::Input;
use crate::engine::Engine;
use crate::ids::{ChannelId, SessionId, UpChannelId, UpstreamId};
use crate::outbox::Outbox;
use crate::session::Phase;

/// A run at least this long is kept by reference. Very short runs are cheaper to copy; from about 1 KiB on both cost
/// the same (docs/spikes.md), and copying does not pin a whole block.
const REFERENCE_FROM: usize = 8 * 1024;

/// What a session adds to an upstream's outbox in one turn, about: as many sessions are woken as have room.
const TURN: usize = 64 * 1024;

/// In an outbox that is at least this long, a run is kept by reference only when it is most of its block: its peer
/// does not keep up, and what a reference pins would be several times what it holds.
const SPARING_FROM: usize = 256 * 1024;

/// A connection with more channels in use than this counts as shared without a look at whose they are.
const FEW: usize = 16;

/// Where a run of the input goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum To {
    Session(SessionId),
    Upstream(UpstreamId),
    /// To the publish that this channel is assembling.
    Assembly(ChannelId),
    /// Nowhere: the publish that this channel is assembling is complete.
    Complete(ChannelId),
}

/// A run of the input and where it goes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    to: To,
    start: usize,
    end: usize,
}

impl Engine {
    /// Sends a run of the input; neighbours become one.
    #[inline]
    pub(crate) fn pass(&mut self, to: To, start: usize, end: usize) {
        if let Some(last) = self.pieces.last_mut()
            && last.to == to
            && last.end == start
        {
            last.end = end;
            return;
        }
        self.pieces.push(Piece { to, start, end });
    }

    /// Brings what was passed so far into the outboxes, by copying. Needed before anything is written directly.
    #[inline]
    pub(crate) fn commit(&mut self, source: Link, buf: &[u8]) {
        for at in 0..self.pieces.len() {
            let Piece { to, start, end } = self.pieces[at];
            if let Some(outbox) = self.outbox_of(to) {
                outbox.push_copy(&buf[start..end]);
            }
            self.grew(to, source, end - start);
        }
        self.pieces.clear();
    }

    /// The end of a step: long runs are kept by reference.
    pub(crate) fn commit_input(&mut self, source: Link, input: &Input) {
        for at in 0..self.pieces.len() {
            let Piece { to, start, end } = self.pieces[at];
            if let Some(outbox) = self.outbox_of(to) {
                let run = end - start;
                let sparing = outbox.len() >= SPARING_FROM || matches!(to, To::Assembly(_));
                if run >= REFERENCE_FROM && (!sparing || run * 4 >= input.held() * 3) {
                    outbox.push_ref(input.slice(start..end));
                } else {
                    outbox.push_copy(&input.bytes()[start..end]);
                }
            }
            self.grew(to, source, end - start);
        }
        self.pieces.clear();
    }

    fn outbox_of(&mut self, to: To) -> Option<&mut Outbox> {
        match to {
            To::Session(id) => {
                let session = self.sessions.get_mut(id).filter(|s| s.phase != Phase::Gone);
                session.map(|s| &mut s.outbox)
            }
            To::Upstream(id) => self.upstreams.get_mut(id).map(|u| &mut u.outbox),
            To::Assembly(id) => self.channels.get_mut(id)?.assembly.as_deref_mut(),
            To::Complete(_) => None,
        }
    }

    /// Something was added to an outbox: have it written, and hold back whoever fills it.
    fn grew(&mut self, to: To, source: Link, octets: usize) {
        match to {
            To::Session(id) => self.session_outbox_grew(id, Some(source)),
            To::Upstream(id) => {
                self.flush_upstream(id);
                if let Link::Session(session) = source {
                    self.note_sent(session, octets);
                    self.stall_if_full(session, id);
                }
            }
            To::Assembly(_) => {}
            To::Complete(id) => self.send_assembly(id),
        }
    }

    /// Writes frames of Warren's own to a client.
    pub(crate) fn send_client(&mut self, id: SessionId, write: impl FnOnce(&mut Vec<u8>)) {
        self.send_client_from(id, None, write);
    }

    /// Writes frames to a client that come from an upstream, the slower way.
    pub(crate) fn send_client_from(
        &mut self,
        id: SessionId,
        source: Option<Link>,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        if let Some(session) = self.sessions.get_mut(id).filter(|s| s.phase != Phase::Gone) {
            session.outbox.write_with(write);
            self.session_outbox_grew(id, source);
        }
    }

    /// Writes one method to a client.
    pub(crate) fn tell_client(&mut self, id: SessionId, channel: u16, method: Method<'_>) {
        self.send_client(id, |out| method.write(channel, out));
    }

    /// Writes frames on a client's channel: at once, or when the content that is under way there is complete.
    pub(crate) fn send_channel(&mut self, id: ChannelId, write: impl FnOnce(&mut Vec<u8>)) {
        let Some(channel) = self.channels.get_mut(id) else {
            return;
        };
        if channel.is_held_up() {
            channel.turns.push(None, write);
        } else {
            let session = channel.session;
            self.send_client(session, write);
        }
    }

    /// Writes one method on a client's channel.
    pub(crate) fn tell_channel(&mut self, id: ChannelId, method: Method<'_>) {
        let Some(channel) = self.channels.get(id) else {
            return;
        };
        let number = channel.number;
        self.send_channel(id, |out| method.write(number, out));
    }

    /// Writes frames of Warren's own to a broker.
    pub(crate) fn send_upstream(&mut self, id: UpstreamId, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(upstream) = self.upstreams.get_mut(id) {
            upstream.outbox.write_with(write);
            self.flush_upstream(id);
        }
    }

    /// Writes one method to a broker.
    pub(crate) fn tell_upstream(&mut self, id: UpstreamId, channel: u16, method: Method<'_>) {
        self.send_upstream(id, |out| method.write(channel, out));
    }

    pub(crate) fn flush_upstream(&mut self, id: UpstreamId) {
        if let Some(upstream) = self.upstreams.get_mut(id)
            && !upstream.flushing
        {
            upstream.flushing = true;
            self.commands.push_back(Command::Flush(Link::Upstream(id)));
        }
    }

    fn session_outbox_grew(&mut self, id: SessionId, source: Option<Link>) {
        let session = self.sessions.get_mut(id).filter(|s| s.phase != Phase::Gone);
        let Some(session) = session else { return };
        if !session.flushing {
            session.flushing = true;
            self.commands.push_back(Command::Flush(Link::Session(id)));
        }
        let waiting = session.outbox.len();
        if waiting <= self.budget.room.hold_back {
            return;
        }
        // A dedicated client is read whether it reads or not, as a broker would.
        let shared = session.dedicated.is_none();
        let full = shared && waiting > self.budget.room.session_outbox;
        session.outbox_full |= full;
        // Whoever is written to at a limited rate need not buffer as much first.
        if (full || shared && session.writing_waits) && !self.slow.contains(&id) {
            self.slow.push(id);
        }
        if let Some(Link::Upstream(up)) = source {
            self.hold_back(up, id);
        }
    }

    /// An upstream that nobody else uses is not read while its session does not read: TCP holds the broker back.
    fn hold_back(&mut self, up: UpstreamId, id: SessionId) {
        let Some(upstream) = self.upstreams.get(up) else { return };
        // What a frame still lacks before the last word is not waited for with less than all haste.
        let parting = self.sessions[id].dedicated.as_ref().is_some_and(|d| d.farewell.is_some());
        if upstream.held_back || parting || !self.uses_alone(up, id) {
            return;
        }
        self.upstreams[up].held_back = true;
        self.sessions[id].holds_back.push(up);
    }

    pub(crate) fn uses_alone(&self, up: UpstreamId, id: SessionId) -> bool {
        let upstream = &self.upstreams[up];
        if upstream.session.is_none() && upstream.busy() > FEW {
            return false;
        }
        let session_of = |c: UpChannelId| {
            let owner = self.up_channels.get(c)?.owner?;
            Some(self.channels.get(owner)?.session)
        };
        let others = |c: &UpChannelId| !self.up_channels[*c].idle && session_of(*c) != Some(id);
        upstream.session == Some(id) || !upstream.numbers.all().iter().any(others)
    }

    /// The upstreams that a session holds back are read again.
    pub(crate) fn let_go(&mut self, id: SessionId) {
        let Some(session) = self.sessions.get_mut(id) else { return };
        for up in std::mem::take(&mut session.holds_back) {
            if let Some(upstream) = self.upstreams.get_mut(up) {
                upstream.held_back = false;
                upstream.last_received = self.now;
                self.commands.push_back(Command::Read(Link::Upstream(up)));
            }
        }
    }

    /// Reads a session no more while the upstream that it writes to has no room.
    pub(crate) fn stall_if_full(&mut self, id: SessionId, up: UpstreamId) {
        let (Some(session), Some(upstream)) = (self.sessions.get_mut(id), self.upstreams.get_mut(up)) else {
            return;
        };
        if session.stalled_on.is_none() && upstream.outbox.len() > self.budget.room.upstream_outbox {
            session.stalled_on = Some(up);
            upstream.stalled.push_back(id);
            self.upstream_is_full(up);
        }
    }

    pub(crate) fn wrote_upstream(&mut self, id: UpstreamId, octets: usize) {
        self.metrics.upstream_sent_octets += octets as u64;
        let Some(upstream) = self.upstreams.get_mut(id) else {
            return;
        };
        upstream.last_sent = self.now;
        let limit = self.budget.room.upstream_outbox;
        let waiting = upstream.outbox.len();
        if waiting > limit / 2 {
            return;
        }
        upstream.full_since = None;
        if upstream.stalled.is_empty() {
            return;
        }
        // Sessions take turns: as many go on as there is room for, the others keep their place.
        let turns = if waiting == 0 { usize::MAX } else { (limit - waiting).div_ceil(TURN) };
        for _ in 0..turns {
            let Some(upstream) = self.upstreams.get_mut(id) else {
                return;
            };
            let Some(session) = upstream.stalled.pop_front() else {
                return;
            };
            self.unstall(session, id);
        }
    }

    /// A session that waited for room on this upstream goes on.
    pub(crate) fn unstall(&mut self, id: SessionId, up: UpstreamId) {
        if let Some(session) = self.sessions.get_mut(id)
            && session.stalled_on == Some(up)
        {
            session.stalled_on = None;
            self.read_if_free(id);
        }
    }

    /// Asks for more input once nothing holds the session back.
    pub(crate) fn read_if_free(&mut self, id: SessionId) {
        if let Some(session) = self.sessions.get_mut(id)
            && session.may_read()
        {
            // The client could not send while it was not read: its silence does not count.
            session.last_received = self.now;
            self.commands.push_back(Command::Read(Link::Session(id)));
        }
    }

    pub(crate) fn wrote_to_client(&mut self, id: SessionId, octets: usize) {
        self.metrics.client_sent_octets += octets as u64;
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        session.last_sent = self.now;
        if session.is_paced() {
            self.pace(id, Way::Out, octets);
        }
        let Some(session) = self.sessions.get_mut(id) else {
            return;
        };
        let waiting = session.outbox.len();
        if session.outbox_full && waiting <= self.budget.room.session_outbox / 2 {
            session.outbox_full = false;
            self.read_if_free(id);
        }
        if waiting <= self.budget.room.hold_back / 2 {
            self.let_go(id);
        }
    }
}
