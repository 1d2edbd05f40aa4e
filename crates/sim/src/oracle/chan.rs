//! What one channel of a client published and settled, in the order in which it did.
//!
//! Entries are *sealed* with the place in the client's stream where their last octet was written: a client that
//! vanishes after so many octets has sent what was sealed up to there, and nothing else.

use super::message::{Fate, MsgId};
use super::{ChanIx, Check, Oracle};

/// Not written yet.
const UNSEALED: u64 = u64::MAX;

/// How a client settled a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settle {
    /// Acknowledged, or rejected for good.
    Gone,
    /// Put back.
    Requeue,
}

/// The life of one channel of a client.
#[derive(Debug)]
pub struct Chan {
    /// The client's number among all sessions.
    pub session: usize,
    /// The channel's number.
    pub number: u16,
    /// Opened when the client was logged in: what it publishes completely must arrive even when it vanishes.
    pub strict: bool,
    /// Not closed yet by the client's reckoning.
    pub alive: bool,
    /// What was written completely must arrive when all is quiet.
    pub due: bool,
    /// To arrive at the broker, in this order.
    order: Vec<(MsgId, u64)>,
    /// How many did.
    arrived: usize,
    /// How many are sealed.
    sealed: usize,
    settles: Vec<(MsgId, Settle, u64)>,
    settles_sealed: usize,
}

impl Chan {
    pub(super) fn new(session: usize, number: u16, strict: bool) -> Chan {
        Chan {
            session,
            number,
            strict,
            alive: true,
            due: true,
            order: Vec::new(),
            arrived: 0,
            sealed: 0,
            settles: Vec::new(),
            settles_sealed: 0,
        }
    }

    /// The broker took a publish: it must be the next one.
    pub(super) fn accept(&mut self, id: MsgId) -> Check {
        let next = self.order.get(self.arrived).map(|&(id, _)| id);
        if next != Some(id) {
            return Err(format!(
                "message {id} arrived out of order: session {} channel {} has {next:?} to come next",
                self.session, self.number
            ));
        }
        self.arrived += 1;
        Ok(())
    }

    /// The first publish that has not arrived.
    pub fn awaited(&self) -> Option<MsgId> {
        self.order.get(self.arrived).map(|&(id, _)| id)
    }

    /// As [`Chan::awaited`], of those that were written.
    pub fn awaited_sealed(&self) -> Option<MsgId> {
        self.order[..self.sealed].get(self.arrived).map(|&(id, _)| id)
    }

    /// The next `count` publishes were written up to `end`.
    pub fn seal(&mut self, count: usize, end: u64) {
        for entry in &mut self.order[self.sealed..self.sealed + count] {
            entry.1 = end;
        }
        self.sealed += count;
    }

    /// The next `count` settlements were written up to `end`.
    pub fn seal_settles(&mut self, count: usize, end: u64) {
        for entry in &mut self.settles[self.settles_sealed..self.settles_sealed + count] {
            entry.2 = end;
        }
        self.settles_sealed += count;
    }
}

impl Oracle {
    /// A publish is to arrive after those before it.
    pub fn expect_arrival(&mut self, chan: ChanIx, id: MsgId) {
        self.chans[chan].order.push((id, UNSEALED));
    }

    /// A delivery was settled.
    pub fn settle(&mut self, chan: ChanIx, id: MsgId, how: Settle) {
        let counts = &mut self.messages[id].client;
        counts.unacked -= 1;
        match how {
            Settle::Gone => counts.gone += 1,
            Settle::Requeue => counts.requeued += 1,
        }
        self.chans[chan].settles.push((id, how, UNSEALED));
    }

    /// Takes back what the channel had not written: it never will be.
    pub fn drop_unsealed(&mut self, chan: ChanIx) {
        self.cut(chan, UNSEALED - 1, false);
    }

    /// The client has vanished after `end` octets: what was not complete must not arrive; whether what it settled
    /// arrived is not known.
    pub fn vanish(&mut self, chan: ChanIx, end: u64) {
        self.cut(chan, end, true);
        self.doubt(chan);
        let chan = &mut self.chans[chan];
        chan.alive = false;
        chan.due = chan.strict;
    }

    /// The channel was closed, and what had to be proved was.
    pub fn end_chan(&mut self, chan: ChanIx) {
        self.drop_unsealed(chan);
        let chan = &mut self.chans[chan];
        chan.alive = false;
        chan.due = false;
    }

    /// The connection was closed with an error: what other channels had under way may have been carried out or not.
    pub fn doubt(&mut self, chan: ChanIx) {
        for &(id, _, _) in &self.chans[chan].settles {
            self.messages[id].unsure += 1;
        }
    }

    fn cut(&mut self, chan: ChanIx, end: u64, unsure: bool) {
        let chan = &mut self.chans[chan];
        let lenient = !chan.strict;
        let kept = chan.order.iter().take_while(|&&(_, at)| at <= end).count().max(chan.arrived);
        for (id, _) in chan.order.drain(kept..) {
            self.messages[id].fate = Fate::Never;
        }
        for &(id, _) in &chan.order[chan.arrived..] {
            self.messages[id].lenient |= lenient && unsure;
        }
        chan.sealed = chan.sealed.min(kept);
        let kept = chan.settles.iter().take_while(|&&(_, _, at)| at <= end).count();
        for (id, how, _) in chan.settles.drain(kept..) {
            let counts = &mut self.messages[id].client;
            match how {
                Settle::Gone => counts.gone -= 1,
                Settle::Requeue => counts.requeued -= 1,
            }
        }
        chan.settles_sealed = chan.settles_sealed.min(kept);
    }
}
