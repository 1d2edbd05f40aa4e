//! What one channel of a client published and settled, in the order in which it did.
//!
//! Entries are *sealed* with the place in the client's stream where their last octet was written: a client that
//! vanishes after so many octets has sent what was sealed up to there, and nothing else.

use super::loss::Taker;
use super::message::{Fate, Message, MsgId};
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
    /// The connections that its publishes came through: the last of each, and when.
    pub taken_by: Vec<(Taker, MsgId, u64)>,
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
            taken_by: Vec::new(),
        }
    }

    /// The broker took a publish: it must be the next one, those aside that a loss has left uncertain. Those come in
    /// order too, as far as they come through one connection.
    pub(super) fn accept(&mut self, id: MsgId, by: Taker, messages: &[Message]) -> Check {
        match self.taken_by.iter_mut().find(|(taker, _, _)| taker.conn == by.conn) {
            Some((_, last, _)) if *last > id => {
                return Err(format!("message {id} arrived after message {last} of the same channel"));
            }
            Some((taker, last, at)) => (*taker, *last, *at) = (by, id, by.at),
            None => self.taken_by.push((by, id, by.at)),
        }
        let loose = messages[id].loose.is_some();
        while let Some(&(next, _)) = self.order.get(self.arrived)
            && next != id
            && messages[next].loose.is_some()
            && !loose
        {
            self.arrived += 1;
        }
        let next = self.order.get(self.arrived).map(|&(id, _)| id);
        if next == Some(id) {
            self.arrived += 1;
        } else if !loose {
            return Err(format!(
                "message {id} arrived out of order: session {} channel {} has {next:?} to come next",
                self.session, self.number
            ));
        }
        Ok(())
    }

    /// The first publish that has not arrived and must.
    pub fn awaited(&self, messages: &[Message]) -> Option<MsgId> {
        self.first_due(&self.order, messages)
    }

    /// As [`Chan::awaited`], of those that were written.
    pub fn awaited_sealed(&self, messages: &[Message]) -> Option<MsgId> {
        self.first_due(&self.order[..self.sealed], messages)
    }

    fn first_due(&self, order: &[(MsgId, u64)], messages: &[Message]) -> Option<MsgId> {
        let rest = order.get(self.arrived..).unwrap_or_default();
        rest.iter().map(|&(id, _)| id).find(|&id| messages[id].loose.is_none())
    }

    /// Whether anything has not arrived yet.
    pub fn has_outstanding(&self) -> bool {
        !self.outstanding().is_empty()
    }

    /// Those that have not arrived, whether they must or not, with the place in the stream where they end.
    pub(super) fn outstanding(&self) -> &[(MsgId, u64)] {
        self.order.get(self.arrived..).unwrap_or_default()
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
            if self.messages[id].accepted.is_none() {
                self.messages[id].fate = Fate::Never;
            }
        }
        for &(id, _) in chan.outstanding() {
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
