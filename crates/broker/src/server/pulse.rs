//! The time of one connection: heartbeats in both directions, and how long each stage of its life may take.

use std::time::Duration;

use tokio::time::Instant;

use crate::inspect::Phase;

/// From the connection of the socket to `connection.open`; what RabbitMQ has.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);
/// From `connection.close` to its answer; what RabbitMQ has.
const CLOSING_LIMIT: Duration = Duration::from_secs(30);

/// When something was last heard and said, and when the present phase began.
#[derive(Debug)]
pub(super) struct Pulse {
    phase: Phase,
    since: Instant,
    /// When something was last read, or could have been and was not wanted.
    heard: Instant,
    /// When something was last written.
    said: Instant,
    /// `None` when none was negotiated.
    interval: Option<Duration>,
}

impl Pulse {
    pub(super) fn new(now: Instant) -> Pulse {
        Pulse { phase: Phase::Opening, since: now, heard: now, said: now, interval: None }
    }

    /// How far the connection has come. `seconds`: the interval as negotiated.
    pub(super) fn note_phase(&mut self, now: Instant, phase: Phase, seconds: u16) {
        self.interval = (seconds > 0).then(|| Duration::from_secs(seconds.into()));
        if phase != self.phase {
            self.phase = phase;
            self.since = now;
        }
    }

    pub(super) fn note_heard(&mut self, now: Instant) {
        self.heard = now;
    }

    pub(super) fn note_said(&mut self, now: Instant) {
        self.said = now;
    }

    /// When a heartbeat is due, unless something else is said before.
    pub(super) fn say_at(&self) -> Option<Instant> {
        (self.phase == Phase::Open).then_some(self.said + self.interval? / 2)
    }

    /// When the peer is given up, unless it goes on.
    pub(super) fn give_up_at(&self) -> Option<Instant> {
        match self.phase {
            Phase::Opening => Some(self.since + HANDSHAKE_LIMIT),
            Phase::Open => Some(self.heard + self.interval? * 2),
            Phase::Closing | Phase::Over => Some(self.since + CLOSING_LIMIT),
        }
    }
}
