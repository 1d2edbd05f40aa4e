//! Fairness among publishers: whoever keeps a shared connection unwritable gets one of its own.
//!
//! Sessions on one upstream take turns by bytes ([`crate::flow`]), so that a connection that is merely busy is shared
//! evenly. But a broker may hold a connection back because of what one client publishes (to a quorum queue, say), and
//! then all others on it wait as well.

use std::time::Duration;

use crate::channel::Channel;
use crate::engine::Engine;
use crate::ids::{ChannelId, SessionId, UpstreamId};
use crate::switch::BUSY_PUBLISHER;
use crate::timers::TimerKey;
use crate::upstream::{Purpose, Stage};

/// What a session sent this long ago says nothing about why a connection is full.
const LATELY: Duration = Duration::from_millis(200);

impl Engine {
    /// Counts what a session has sent to an upstream. Once per run.
    pub(crate) fn note_sent(&mut self, id: SessionId, octets: usize) {
        if let Some(session) = self.sessions.get_mut(id) {
            let (since, sent) = &mut session.recent_octets;
            if self.now.since(*since) > LATELY {
                (*since, *sent) = (self.now, 0);
            }
            *sent += octets as u64;
        }
    }

    /// An upstream has no room any more: it is looked at when that has lasted.
    pub(crate) fn upstream_is_full(&mut self, id: UpstreamId) {
        let now = self.now;
        let Some(upstream) = self.upstreams.get_mut(id) else { return };
        let since = *upstream.full_since.get_or_insert(now);
        if !upstream.fullness_watched {
            upstream.fullness_watched = true;
            self.wheel.schedule(since + self.config.limits.full_for, TimerKey::Fairness(id));
        }
    }

    pub(crate) fn fairness_timer(&mut self, id: UpstreamId) {
        let now = self.now;
        let Some(upstream) = self.upstreams.get_mut(id) else { return };
        upstream.fullness_watched = false;
        let Some(since) = upstream.full_since.filter(|_| upstream.stage == Stage::Ready) else { return };
        upstream.fullness_watched = true;
        if since + self.config.limits.full_for > now {
            self.wheel.schedule(since + self.config.limits.full_for, TimerKey::Fairness(id));
            return;
        }
        upstream.full_since = Some(now);
        self.wheel.schedule(now + self.config.limits.full_for, TimerKey::Fairness(id));
        if let Some(session) = self.who_fills(id) {
            self.give_lane(session, id);
        }
    }

    /// The session that sent most of what fills a connection. Nobody, when many do so alike: a lane for each of them
    /// would be a connection for each of them; when nobody else is on it; or when an alarm is the reason, which
    /// lanes do not change.
    fn who_fills(&self, id: UpstreamId) -> Option<SessionId> {
        let upstream = &self.upstreams[id];
        if upstream.blocked.is_some() || matches!(upstream.purpose, Purpose::Lane | Purpose::Dedicated) {
            return None;
        }
        let sent = |id: &SessionId| Some((self.sessions.get(*id)?.recent_octets.1, *id));
        let all: Vec<(u64, SessionId)> = upstream.stalled.iter().filter_map(sent).collect();
        let total: u64 = all.iter().map(|s| s.0).sum();
        let (most, session) = all.into_iter().max()?;
        (most >= total / 2 && !self.uses_alone(id, session)).then_some(session)
    }

    /// Moves the publishing channels of a session from a shared connection to its lane.
    fn give_lane(&mut self, session: SessionId, from: UpstreamId) {
        let Some(state) = self.sessions.get(session) else { return };
        let on = |c: &Channel| {
            c.current.and_then(|up| self.up_channels.get(up)).is_some_and(|state| state.upstream == from)
        };
        let movable = |id: &ChannelId| {
            self.channels
                .get(*id)
                .is_some_and(|c| c.flows() && !c.pinned && c.purpose == Purpose::Publish && on(c))
        };
        let channels: Vec<ChannelId> = state.channels.ids().into_iter().filter(movable).collect();
        for channel in channels {
            self.begin_switch(channel, Purpose::Lane, BUSY_PUBLISHER);
        }
    }
}
