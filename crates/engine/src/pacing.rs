//! Sessions whose data is limited or watched: they read and write in turns, and what goes through is counted.
//!
//! Only sessions with such a limit come here (`Session::paced`). Where a bucket has nothing left, a session waits for its
//! turn: its socket is not read, or what waits for it is not written, until its time has come. What a client does not get
//! in time backs up as with any client that reads slowly: an upstream that it uses alone is not read meanwhile, one that
//! it shares is left for a lane.

use std::cmp::Reverse;

use crate::allowances::Way;
use crate::api::{Command, Link};
use crate::engine::Engine;
use crate::ids::SessionId;
use crate::session::{Phase, Session};
use crate::time::Time;

impl Engine {
    /// How many octets may be read from a link now, at most. 0: none, and [`Command::Read`] will follow.
    pub fn read_at_most(&mut self, now: Time, link: Link) -> usize {
        match link {
            Link::Session(id) => self.turn(now, id, Way::In),
            Link::Upstream(_) => usize::MAX,
        }
    }

    /// How many octets may be written to a link now, at most. 0: none, and [`Command::Flush`] will follow.
    pub fn write_at_most(&mut self, now: Time, link: Link) -> usize {
        match link {
            Link::Session(id) => self.turn(now, id, Way::Out),
            Link::Upstream(_) => usize::MAX,
        }
    }

    #[inline]
    fn turn(&mut self, now: Time, id: SessionId, way: Way) -> usize {
        match self.sessions.get(id) {
            Some(session) if session.is_paced() => self.paced_turn(now, id, way),
            _ => usize::MAX,
        }
    }

    fn paced_turn(&mut self, now: Time, id: SessionId, way: Way) -> usize {
        self.now = now;
        let Some(pass) = self.sessions.get_mut(id).and_then(|s| s.pass.as_mut()) else { return usize::MAX };
        let octets = pass.turn(way, now);
        if octets == 0 {
            self.await_turn(id, way);
        }
        octets
    }

    /// A session that is paced has `before` octets of input. What is left of them does not count again.
    pub(crate) fn pace_input(&mut self, id: SessionId, before: usize, left: usize) {
        let Some(session) = self.sessions.get_mut(id).filter(|s| s.is_paced()) else { return };
        let Some(pass) = session.pass.as_mut() else { return };
        let octets = before.saturating_sub(pass.unread);
        pass.unread = left;
        self.pace(id, Way::In, octets);
    }

    /// Octets went one way: the session may have to wait for its next turn.
    pub(crate) fn pace(&mut self, id: SessionId, way: Way, octets: usize) {
        let now = self.now;
        let Some(pass) = self.sessions.get_mut(id).and_then(|s| s.pass.as_mut()) else { return };
        let alarms = pass.count_octets(way, octets, now);
        self.await_turn(id, way);
        self.tell_notices(id, alarms);
    }

    fn await_turn(&mut self, id: SessionId, way: Way) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(id) else { return };
        let Some(at) = session.pass.as_ref().and_then(|p| p.turns[way as usize]).filter(|at| *at > now)
        else {
            return;
        };
        let waits = match way {
            Way::In => &mut session.reading_waits,
            Way::Out => &mut session.writing_waits,
        };
        if !std::mem::replace(waits, true) {
            self.turns_asked += 1;
            self.turns.push(Reverse((at, self.turns_asked, id, way)));
        }
    }

    /// When the next turn begins that somebody waits for.
    pub(crate) fn next_turn(&self) -> Option<Time> {
        self.turns.peek().map(|Reverse((at, ..))| *at)
    }

    /// Turns that have come.
    pub(crate) fn run_turns(&mut self) {
        while self.next_turn().is_some_and(|at| at <= self.now) {
            let Some(Reverse((_, _, id, way))) = self.turns.pop() else { return };
            let Some(session) = self.sessions.get_mut(id) else { continue };
            let waits = match way {
                Way::In => &mut session.reading_waits,
                Way::Out => &mut session.writing_waits,
            };
            if !std::mem::take(waits) {
                continue;
            }
            let uses_it = match way {
                Way::In => session.may_read(),
                Way::Out => !session.outbox.is_empty(),
            };
            match way {
                _ if !uses_it => session.pass.iter_mut().for_each(|pass| pass.forgo(way)),
                Way::In => self.read_if_free(id),
                Way::Out if session.flushing => {}
                Way::Out => {
                    session.flushing = true;
                    self.commands.push_back(Command::Flush(Link::Session(id)));
                }
            }
        }
    }
}

impl Session {
    /// Whether its data is counted. The last words of a session are not held up.
    #[inline]
    pub(crate) fn is_paced(&self) -> bool {
        self.paced && self.phase == Phase::Running
    }
}
