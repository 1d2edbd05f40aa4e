//! Letting what is under way come to its end, holding both sides against each other, and the end of a run.

use super::{Action, Middle, World};
use crate::client::handshake::Stage;
use crate::cover::Path;
use crate::fault::Fault;
use crate::oracle::{Check, audit};

/// Most actions that may follow from what is under way at one moment, before it counts as endless.
const MOST_ACTIONS: u32 = 200_000;

/// Milliseconds for which a client may wait while nothing else happens: some things wait for a timer by design.
const PATIENCE: u64 = 3000;

/// As [`PATIENCE`] where upstream connections are few: who waits is refused after 30 s.
const PATIENCE_WHEN_TIGHT: u64 = 35_000;

/// Most milliseconds that pass at once: clients and broker must get to send their heartbeats.
const MOST_AT_ONCE: u64 = 2500;

/// Rounds in which all clients end their sessions.
const MOST_ROUNDS: u32 = 3000;

impl World {
    /// A stretch in which nothing new begins: afterwards, and after hours of nothing, both sides must agree.
    pub(super) fn quiet_time(&mut self) -> Check {
        self.settle()?;
        self.audit()?;
        // Who waits for another client is refused in the end, and rightly.
        let waits = self.may_wait() && self.waits_for().is_some();
        if waits {
            self.hit(Path::Waited);
        }
        if self.rng.chance(1, 2) && !waits {
            let until = self.now + self.rng.between(100, 100_000);
            self.let_time_pass(until)?;
            self.hit(Path::Quiet);
            self.audit()?;
        }
        Ok(())
    }

    /// Nothing new begins, and everything under way comes to its end. Then no client may wait for anything.
    pub(super) fn settle(&mut self) -> Check {
        let patience = if self.scenario.tight { PATIENCE_WHEN_TIGHT } else { PATIENCE };
        let deadline = self.now + patience;
        self.let_all_read()?;
        self.end_misfortunes()?;
        let mut deadline = deadline.max(self.now + patience);
        let mut last = None;
        self.drain()?;
        while let Some(waits) = self.waits_for().filter(|_| !self.may_wait()) {
            if last.as_ref() != Some(&waits) && self.scenario.tight {
                // When one is refused, another goes on and may come to wait in its turn.
                deadline = deadline.max(self.now + patience);
                last = Some(waits.clone());
            }
            let next = self.next_deadline().unwrap_or(u64::MAX);
            if next > deadline && self.is_crowded() && !self.clients.iter().any(|c| c.waits_for().is_some()) {
                break; // what a client has left behind may wait until those who are there have left
            }
            if next > deadline {
                return Err(format!("stuck: {waits}{}", self.describe_middle()));
            }
            self.hit(Path::Waited);
            self.now = next.clamp(self.now, self.now + MOST_AT_ONCE);
            self.broker.heartbeat();
            self.tick()?;
            self.drain()?;
        }
        self.recover()?;
        self.hit(Path::Settled);
        Ok(())
    }

    /// Clients that had stopped reading go on.
    pub(super) fn let_all_read(&mut self) -> Check {
        (0..self.clients.len()).try_for_each(|place| self.inflict(&Fault::Stall(place, false)))
    }

    /// Moves octets and lets the broker work until nothing is left to do without a client's or the clock's doing.
    pub(super) fn drain(&mut self) -> Check {
        for _ in 0..MOST_ACTIONS {
            if !self.drain_one()? {
                return Ok(());
            }
        }
        Err("no end of octets that follow from octets".to_owned())
    }

    fn drain_one(&mut self) -> Check<bool> {
        self.list_possible();
        self.possible
            .retain(|(action, _)| !matches!(action, Action::Time | Action::Arrive(_) | Action::Act(_)));
        if !self.possible.is_empty() {
            let at = self.rng.below(self.possible.len());
            let (action, _) = self.possible[at];
            let piece = if self.rng.chance(1, 4) { 1 + self.rng.below(100) } else { 100_000 };
            self.perform(action, piece)?;
            return Ok(true);
        }
        let (mut outside, _) = self.outside(1);
        let mut acted = false;
        for client in outside.clients.iter_mut() {
            acted |= client.act(false, &mut outside.ctx);
        }
        Ok(acted)
    }

    /// What is waited for, by a client or on behalf of one that is gone.
    pub(super) fn waits_for(&self) -> Option<String> {
        let client = self.clients.iter().find_map(|client| client.waits_for());
        client.or_else(|| match &self.middle {
            Middle::Warren(warren) if warren.metrics().waiting_channels > 0 => {
                Some("a channel waits for a client that is gone".to_owned())
            }
            _ => None,
        })
    }

    fn is_crowded(&self) -> bool {
        self.scenario.tight && self.clients.iter().any(|client| client.stage != Stage::Gone)
    }

    /// Whether clients may wait for each other now: caps are low, and nobody is on the way out.
    pub(super) fn may_wait(&self) -> bool {
        self.scenario.tight && !self.hurry
    }

    pub(super) fn audit(&mut self) -> Check {
        if (self.may_wait() || self.is_crowded()) && self.waits_for().is_some() {
            return Ok(());
        }
        audit::quiet(&self.oracle, &self.broker.broker, &self.scenario, &self.clients)
    }

    pub(super) fn next_deadline(&self) -> Option<u64> {
        match &self.middle {
            Middle::Direct(_) => None,
            Middle::Warren(warren) => warren.next_deadline(),
        }
    }

    fn describe_middle(&self) -> String {
        match &self.middle {
            Middle::Direct(_) => String::new(),
            Middle::Warren(warren) => warren.describe(),
        }
    }

    /// Nothing but the clock and its heartbeats, until `until`.
    pub(super) fn let_time_pass(&mut self, until: u64) -> Check {
        while self.now < until {
            let own = self.next_deadline().unwrap_or(u64::MAX).max(self.now + 1);
            self.now = own.min(self.now + MOST_AT_ONCE).min(until);
            self.broker.heartbeat();
            self.tick()?;
            self.drain()?;
            self.clients.iter().try_for_each(|client| client.check_heartbeat(self.now))?;
        }
        Ok(())
    }

    /// Every client ends its session, then the engines stop: nothing may be left.
    pub(super) fn finish(&mut self, steps: u64) -> Check {
        self.hurry = true;
        self.let_all_read()?;
        // Some of it as it would happen, one thing among others; the rest until all is done.
        while self.steps < steps + steps / 4 && self.clients.iter().any(|c| c.stage != Stage::Gone) {
            self.step()?;
        }
        for _ in 0..MOST_ROUNDS {
            self.drain()?;
            if self.clients.iter().all(|client| client.stage == Stage::Gone) {
                return self.close_down();
            }
            let (mut outside, _) = self.outside(1);
            let mut acted = false;
            for client in outside.clients.iter_mut() {
                client.hurry();
                acted |= client.act(true, &mut outside.ctx);
            }
            if !acted {
                self.settle()?;
            }
        }
        Err("clients do not come to an end".to_owned())
    }

    fn close_down(&mut self) -> Check {
        self.settle()?;
        self.audit()?;
        if let Middle::Warren(warren) = &self.middle {
            warren.check_no_sessions()?;
        }
        let (mut outside, middle) = self.outside(1);
        if let Middle::Warren(warren) = middle {
            warren.shut_down(&mut outside)?;
        }
        self.drain()?;
        let mut patience = 100;
        while !self.is_over() {
            let Some(next) = self.next_deadline().filter(|_| patience > 0) else {
                return Err(format!("stuck in shutdown{}", self.describe_middle()));
            };
            patience -= 1;
            self.now = next.max(self.now + 1);
            self.tick()?;
            self.drain()?;
        }
        self.audit()?;
        match &self.middle {
            Middle::Warren(warren) => warren.check_nothing_left()?,
            Middle::Direct(_) => {}
        }
        let left = self.broker.broker.channels_open();
        if left > 0 || !self.broker.is_empty() {
            return Err(format!("{left} channels are left at the broker"));
        }
        Ok(())
    }

    fn is_over(&self) -> bool {
        match &self.middle {
            Middle::Direct(_) => true,
            Middle::Warren(warren) => warren.is_idle() && self.broker.is_empty(),
        }
    }
}
