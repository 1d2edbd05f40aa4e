//! The end of an upstream connection: what nobody can know afterwards. All else must be as if nothing had happened.

use warren_broker::ConnId;

use super::message::{Fate, MsgId};
use super::{ChanIx, Oracle};

/// Messages among which those of one channel are looked for.
const LATEST: usize = 500;

/// The connection through which something came to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taker {
    /// Which.
    pub conn: ConnId,
    /// Losses before it began.
    pub born: u32,
    /// When it came, in milliseconds.
    pub at: u64,
}

/// A delivery that the broker took back because its connection was lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakenBack {
    /// Of which message.
    pub id: MsgId,
    /// The consumer that had it; `None` for one that was got.
    pub tag: Option<Vec<u8>>,
    /// The basic.recover after which it was delivered, counted over all channels; 0 for none.
    pub recover: u64,
}

/// A content that was read in part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// Of this client's channel.
    Of(ChanIx),
    /// Of one that has asked for it.
    Got,
    /// Of one whose client does not know its consumer's name yet.
    Unnamed,
}

impl Oracle {
    /// A connection is lost. What the channel published up to octet `delivered` of its client's stream may have been
    /// under way in it.
    pub fn loosen(&mut self, chan: ChanIx, delivered: u64) {
        for &(id, end) in self.chans[chan].outstanding() {
            if end <= delivered {
                self.messages[id].loose.get_or_insert(self.losses);
            }
        }
    }

    /// The publish that would have closed a confirm channel may be nacked instead: then those after it arrive.
    pub fn spare(&mut self, chan: ChanIx) {
        let losses = self.losses;
        let latest = self.messages.iter_mut().rev().take(LATEST);
        for message in latest.filter(|m| m.chan == chan && m.fate == Fate::Never) {
            message.fate = Fate::Open;
            message.loose.get_or_insert(losses);
        }
    }

    /// The confirms of these may have been under way in a connection that is lost.
    pub fn loosen_accepted(&mut self, ids: impl Iterator<Item = MsgId>) {
        for id in ids {
            let message = &mut self.messages[id];
            if message.accepted.is_some() {
                message.loose.get_or_insert(self.losses);
            }
        }
    }

    /// A connection is lost: those who are gone will not hear what became of their publishes.
    pub fn loosen_the_gone(&mut self) {
        for chan in 0..self.chans.len() {
            if !self.chans[chan].alive && self.chans[chan].has_outstanding() {
                self.loosen(chan, u64::MAX - 1);
            }
            if !self.chans[chan].alive && std::mem::take(&mut self.chans[chan].may_be_spared) {
                self.spare(chan);
            }
        }
    }

    /// Whether a publish of the channel that the broker took through `conn` may be unproven at `now`, with so much
    /// patience for the barrier of a publisher that went idle.
    pub fn published_lately(&self, chan: ChanIx, conn: ConnId, now: u64, patience: u64) -> bool {
        let mut takers = self.chans[chan].taken_by.iter();
        takers.any(|(taker, _, at)| taker.conn == conn && at + patience >= now)
    }

    /// What is delivered without acknowledgement from the queues of this name may be lost.
    pub fn make_lossy(&mut self, name: &[u8]) {
        self.queues.iter_mut().filter(|q| q.name == name).for_each(|q| q.lossy = true);
    }

    /// Whether somebody is to be blamed for `code` still: each time that a broker closes a connection for cause, one
    /// client at most may hear of it.
    pub fn blame(&mut self, code: u16) -> bool {
        let place = self.causes.iter().position(|&cause| cause == code);
        place.map(|place| self.causes.swap_remove(place)).is_some()
    }
}
