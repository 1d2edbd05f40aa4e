//! The memory budget of a worker: what all its buffers together may hold.
//!
//! ```text
//! 1/8  publishes that are not complete and small, or not larger than `reserve_from`
//! 3/8  publishes that have reserved what they announced: the largest message that is accepted
//! 1/2  what was accepted and waits to be written, and what is being read
//! ```
//! A publish that needs a reservation gets it in order, so that large ones cannot starve each other; until then its
//! session is not read. What waits to be written is held by the limits of each outbox, which shrink as the last part
//! fills up ([`Room`]): everybody who sends or receives much gets less, nobody loses what was accepted.

use std::collections::VecDeque;
use std::time::Duration;

use warren_wire::reply;

use crate::channel::{Claim, Content};
use crate::close;
use crate::config::Limits;
use crate::engine::Engine;
use crate::fault::Fault;
use crate::ids::{ChannelId, SessionId};
use crate::metrics::Metrics;
use crate::time::Time;
use crate::timers::TimerKey;

/// Class and method of basic.publish.
const AT: (u16, u16) = (60, 40);

const TOO_MANY: &str = "there is no memory for several large publishes of one connection at a time";

/// What one session may announce without a reservation even when memory is short: a block, which it costs anyway. So
/// publishes of the usual sizes go on while large ones wait.
const FREE_FROM_WAITING: u64 = 64 * 1024;
/// A holder that brings less than this in `stall_limit` has stalled: a client must not keep a reservation for hours by
/// sending an octet now and then.
const PROGRESS: u64 = 64 * 1024;
/// How often to look at holders, and whether memory has become free, while somebody waits.
const WATCH: Duration = Duration::from_secs(1);

/// Octets that wait for a client before an upstream that it uses alone is read no more.
const HOLD_BACK_FROM: usize = 1 << 20;
/// Octets of frames that a channel may hold while it is on its way to another binding; beyond it the session is
/// read no more until they could go on.
const HELD_LIMIT: usize = 1 << 20;

/// However short memory is: what a few messages need.
const LEAST_OUTBOX: usize = 64 * 1024;
/// However short memory is: what a broker sends after its consumer was cancelled (200 messages of some kB, and what
/// sockets hold) must find room.
const LEAST_SESSION: usize = 4 << 20;

/// Limits of single buffers, as large as memory allows now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    /// Octets that may wait for one client before its consumer is moved to an own lane.
    pub(crate) session_outbox: usize,
    /// Octets that may wait for one client before it ends.
    pub(crate) session_budget: usize,
    /// Octets that may wait for a client before an upstream that it uses alone is read no more.
    pub(crate) hold_back: usize,
    /// Octets that may wait for one upstream connection before its sessions are read no more.
    pub(crate) upstream_outbox: usize,
    /// Octets of frames that a channel may hold.
    pub(crate) held: usize,
}

impl Room {
    /// With memory to spare.
    fn plenty(limits: &Limits) -> Room {
        Room {
            session_outbox: limits.session_outbox,
            session_budget: limits.session_budget,
            hold_back: HOLD_BACK_FROM.min(limits.session_outbox),
            upstream_outbox: limits.upstream_outbox,
            held: HELD_LIMIT,
        }
    }

    /// With so many octets left: everybody may have a part of them, so that they last for more the less is left.
    fn of(limits: &Limits, left: usize) -> Room {
        let plenty = Room::plenty(limits);
        let part = |most: usize, of: usize, least: usize| most.min((left / of).max(least));
        Room {
            session_outbox: part(plenty.session_outbox, 16, LEAST_OUTBOX),
            session_budget: part(plenty.session_budget, 2, LEAST_SESSION),
            hold_back: part(plenty.hold_back, 64, LEAST_OUTBOX),
            upstream_outbox: part(plenty.upstream_outbox, 32, LEAST_OUTBOX),
            held: part(plenty.held, 64, LEAST_OUTBOX),
        }
    }
}

/// The session that asks for memory.
#[derive(Clone, Copy, Debug, Default)]
struct Asker {
    /// Octets that its other publishes have announced.
    announced: u64,
    /// One of them waits already.
    waits: bool,
}

/// What a publish that asks for memory is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Granted(Claim),
    /// Its turn will come.
    Wait,
    /// It must not wait, and there is no room.
    No,
}

/// One worker's share of the budget.
#[derive(Debug)]
pub(crate) struct Budget {
    limit: usize,
    reserve_from: u64,
    /// Octets announced by publishes that hold a reservation.
    reserved: u64,
    /// Octets announced by publishes that needed none.
    unreserved: u64,
    /// Who waits for how much, since when, in order.
    waiting: VecDeque<(ChannelId, u64, Time)>,
    /// A timer will look at it.
    watched: bool,
    /// Octets of frames that channels hold.
    held: usize,
    pub(crate) room: Room,
}

impl Budget {
    pub(crate) fn new(limits: &Limits, workers: usize) -> Budget {
        Budget {
            limit: limits.memory / workers.max(1),
            reserve_from: limits.reserve_from,
            reserved: 0,
            unreserved: 0,
            waiting: VecDeque::new(),
            watched: false,
            held: 0,
            room: Room::plenty(limits),
        }
    }

    /// The largest message that can be reserved for, and all reservations together.
    pub(crate) fn largest(&self) -> u64 {
        self.limit as u64 / 8 * 3
    }

    fn small_ones(&self) -> u64 {
        self.limit as u64 / 8
    }

    /// A publish that is not complete asks for what it announced. `used`: memory that is in use.
    ///
    /// A session that waits is not read, so that its other publishes could not go on: it never waits while it holds
    /// something.
    fn ask(&mut self, id: ChannelId, octets: u64, asker: Asker, used: usize, now: Time) -> Answer {
        let short = self.unreserved + octets > self.small_ones();
        let small = octets <= self.reserve_from && (!short || asker.announced + octets <= FREE_FROM_WAITING);
        if small {
            self.unreserved += octets;
            return Answer::Granted(Claim::Small);
        }
        if asker.waits {
            self.waiting.push_back((id, octets, now));
            return Answer::Wait;
        }
        if asker.announced > 0 {
            return if self.overdraw(octets) { Answer::Granted(Claim::Reserved) } else { Answer::No };
        }
        if !self.waiting.is_empty() || !self.fits(octets, used) {
            self.waiting.push_back((id, octets, now));
            return Answer::Wait;
        }
        self.reserved += octets;
        Answer::Granted(Claim::Reserved)
    }

    /// Reserves beyond what there is for others, a little.
    fn overdraw(&mut self, octets: u64) -> bool {
        let fits = self.reserved + octets <= self.largest() + self.small_ones();
        self.reserved += if fits { octets } else { 0 };
        fits
    }

    /// What has come of those that hold a reservation is counted twice, because nobody counts it as it comes.
    fn fits(&self, octets: u64, used: usize) -> bool {
        let reserved = self.reserved + octets;
        reserved <= self.largest() && used as u64 + reserved <= self.limit as u64
    }

    /// The next one whose turn has come.
    fn grant(&mut self, used: usize) -> Option<ChannelId> {
        let (id, octets, _) = *self.waiting.front()?;
        if !self.fits(octets, used) {
            return None;
        }
        self.waiting.pop_front();
        self.reserved += octets;
        Some(id)
    }

    /// A publish is complete, or given up.
    fn give_back(&mut self, id: ChannelId, octets: u64, claim: Claim) {
        match claim {
            Claim::None => {}
            Claim::Small => self.unreserved -= octets,
            Claim::Reserved => self.reserved -= octets,
            Claim::Waiting => self.waiting.retain(|(waiting, ..)| *waiting != id),
        }
    }

    /// Octets left of the part for what waits to be written. What publishes have announced is not counted there.
    fn left(&self, used: usize) -> usize {
        let announced = usize::try_from(self.reserved + self.unreserved).unwrap_or(usize::MAX);
        (self.limit / 2).saturating_sub(used.saturating_sub(announced))
    }

    /// Frames were added to what channels hold, or were taken away.
    pub(crate) fn note_held(&mut self, more: usize, less: usize) {
        self.held = (self.held + more).saturating_sub(less);
    }

    /// Octets of frames that channels hold.
    pub(crate) fn held(&self) -> usize {
        self.held
    }

    /// Asserts that what is counted is what channels have.
    pub(crate) fn check(&self, small: u64, reserved: u64, mut waiting: Vec<ChannelId>) {
        assert_eq!((self.unreserved, self.reserved), (small, reserved), "memory that nobody claims");
        let mut counted: Vec<ChannelId> = self.waiting.iter().map(|w| w.0).collect();
        counted.sort();
        waiting.sort();
        assert_eq!(counted, waiting, "those who wait for memory");
        assert!(waiting.is_empty() || self.watched, "nobody looks at those who wait for memory");
    }
}

impl Engine {
    /// Memory that buffers hold now.
    pub(crate) fn used(&self) -> usize {
        self.pool.used() + self.budget.held
    }

    /// Whether so much memory is in use that nothing can be kept for long.
    pub(crate) fn is_short(&self) -> bool {
        self.used() > self.budget.limit / 2
    }

    /// Where memory is, for the metrics: a walk over everything, when somebody asks.
    pub(crate) fn measure_memory(&self, metrics: &mut Metrics) {
        let assembled = self.channels.values().filter_map(|c| Some(c.assembly.as_ref()?.pinned()));
        metrics.buffer_octets = self.used() as u64;
        metrics.memory_limit_octets = self.budget.limit as u64;
        metrics.memory_octets = [
            self.sessions.values().map(|s| s.outbox.pinned()).sum::<usize>() as u64,
            self.upstreams.values().map(|u| u.outbox.pinned()).sum::<usize>() as u64,
            assembled.sum::<usize>() as u64,
            self.budget.held as u64,
        ];
        metrics.reserved_octets = self.budget.reserved;
        metrics.waiting_publishes = self.budget.waiting.len() as u64;
    }

    /// Once per step: gives buffers as much room as there is, and memory to those who wait for it.
    pub(crate) fn weigh(&mut self) {
        let used = self.used();
        let frugal = used > self.budget.limit / 4;
        if frugal || self.pool.is_frugal() {
            self.pool.set_frugal(frugal);
            let left = self.budget.left(used);
            let limits = &self.config.limits;
            self.budget.room = if frugal { Room::of(limits, left) } else { Room::plenty(limits) };
        }
        if !self.budget.waiting.is_empty() {
            self.grant_memory();
        }
    }

    fn grant_memory(&mut self) {
        while let Some(id) = self.budget.grant(self.used()) {
            self.granted(id);
            let Some(session) = self.channels.get(id).map(|c| c.session) else { continue };
            for other in self.waiting_publishes(session) {
                let octets = self.channels[other].announced;
                if !self.budget.overdraw(octets) {
                    let text = reply::text(506, TOO_MANY);
                    self.close_session(session, 506, &text, AT, close::LIMIT);
                    break;
                }
                self.budget.waiting.retain(|w| w.0 != other);
                self.granted(other);
            }
            self.go_on_with_memory(session);
        }
    }

    fn granted(&mut self, id: ChannelId) {
        if let Some(channel) = self.channels.get_mut(id) {
            channel.claim = Claim::Reserved;
            channel.progress = (self.now, u64::MAX);
        }
    }

    fn waiting_publishes(&self, id: SessionId) -> Vec<ChannelId> {
        let channels = self.sessions.get(id).map(|s| s.channels.ids()).unwrap_or_default();
        channels.into_iter().filter(|c| self.channels[*c].claim == Claim::Waiting).collect()
    }

    /// Reads a session again once none of its publishes waits for memory.
    fn go_on_with_memory(&mut self, id: SessionId) {
        let waits = !self.waiting_publishes(id).is_empty();
        if let Some(session) = self.sessions.get_mut(id).filter(|s| s.awaits_memory && !waits) {
            session.awaits_memory = false;
            self.read_if_free(id);
        }
    }

    /// Counts what an incomplete publish will hold. A session has room for one message of the largest size and for its
    /// budget beside it (506, RESOURCE_ERROR).
    pub(crate) fn announce(&mut self, id: ChannelId, octets: u64) -> Result<(), Fault> {
        let limits = &self.config.limits;
        let most = limits.message_size + limits.session_budget as u64;
        let used = self.used();
        let channel = &mut self.channels[id];
        let Some(session) = self.sessions.get_mut(channel.session) else { return Ok(()) };
        let others = session.announced;
        if others + octets > most {
            let detail = format!("publishes under way would hold more than {most} octets");
            return Err(Fault::connection(506, detail, AT));
        }
        let asker = Asker { announced: others, waits: session.awaits_memory };
        let claim = match self.budget.ask(id, octets, asker, used, self.now) {
            Answer::Granted(claim) => claim,
            Answer::Wait => {
                session.awaits_memory = true;
                Claim::Waiting
            }
            Answer::No => {
                return Err(Fault::connection(506, TOO_MANY, AT));
            }
        };
        session.announced += octets;
        channel.announced = octets;
        channel.claim = claim;
        channel.progress = (self.now, u64::MAX);
        if claim == Claim::Waiting && !self.budget.watched {
            self.budget.watched = true;
            self.wheel.schedule(self.now + WATCH, TimerKey::Memory);
        }
        Ok(())
    }

    /// A publish is complete, or is given up.
    pub(crate) fn announced_is_over(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get_mut(id) else { return };
        let (octets, claim) = (std::mem::take(&mut channel.announced), std::mem::take(&mut channel.claim));
        let session = channel.session;
        self.budget.give_back(id, octets, claim);
        if let Some(session) = self.sessions.get_mut(session) {
            session.announced -= octets;
        }
        if claim == Claim::Waiting {
            self.go_on_with_memory(session);
        }
    }

    /// While somebody waits for memory: ends those who hold some and do not go on.
    pub(crate) fn watch_memory(&mut self) {
        self.grant_memory();
        self.budget.watched = !self.budget.waiting.is_empty();
        if !self.budget.watched {
            return;
        }
        self.wheel.schedule(self.now + WATCH, TimerKey::Memory);
        let holders: Vec<ChannelId> =
            self.channels.iter().filter(|(_, c)| c.claim.holds()).map(|(id, _)| id).collect();
        for id in holders {
            if let Some(session) = self.stalled_holder(id) {
                self.end_for_memory(session, "a publish stood still while others waited for its memory");
            }
        }
        // Without holders, what waits to be written has all of it, and may have it for long.
        if self.budget.reserved == 0
            && let Some((id, _, since)) = self.budget.waiting.front().copied()
            && self.now.since(since) >= self.config.limits.stall_limit.max(self.config.limits.wait_limit)
            && let Some(session) = self.channels.get(id).map(|c| c.session)
        {
            self.end_for_memory(session, "no memory became free for a publish");
        }
    }

    /// The session of a holder that has brought too little for too long, unless Warren does not read it.
    fn stalled_holder(&mut self, id: ChannelId) -> Option<SessionId> {
        let now = self.now;
        let channel = self.channels.get_mut(id)?;
        let Content::Body(missing) = channel.content else { return None };
        let session = self.sessions.get(channel.session)?;
        let waits = session.stalled_on.is_some() || session.held_full || session.awaits_memory;
        let (since, before) = channel.progress;
        if waits || before - missing.min(before) >= PROGRESS {
            channel.progress = (now, missing);
            return None;
        }
        (now.since(since) >= self.config.limits.stall_limit).then_some(channel.session)
    }

    fn end_for_memory(&mut self, id: SessionId, why: &str) {
        let detail = format!("{why} for {} s", self.config.limits.stall_limit.as_secs());
        self.close_session(id, 506, &reply::text(506, &detail), AT, close::LIMIT);
    }
}

#[cfg(test)]
#[path = "budget_tests.rs"]
mod tests;
