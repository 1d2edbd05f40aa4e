//! Offsets between the numbers a client sees and the numbers its bindings use.
//!
//! A channel's delivery tags and publish sequence numbers are dense, whatever the channel is bound to. Each run of
//! numbers that came from (or went to) one binding with one offset is a segment; a channel that was never rebound
//! has one.

use crate::ids::UpChannelId;

/// A run of the client's numbers on one binding.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    /// The first number as the client sees it.
    pub(crate) first: u64,
    /// The same number at the broker.
    pub(crate) first_up: u64,
    /// The binding.
    pub(crate) up: UpChannelId,
}

impl Segment {
    /// The broker's number for one of the client's.
    #[inline]
    pub(crate) fn to_up(&self, client: u64) -> u64 {
        self.first_up + (client - self.first)
    }
}

/// The segments of one channel, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Segments(Vec<Segment>);

impl Segments {
    /// Whether all numbers ever used belong to `up` alone: then `multiple` means the same on both sides.
    #[inline]
    pub(crate) fn only(&self, up: UpChannelId) -> bool {
        matches!(self.0.as_slice(), [s] if s.up == up)
    }

    /// Notes that the client's number `client` is `up_number` on `up`.
    #[inline]
    pub(crate) fn note(&mut self, client: u64, up: UpChannelId, up_number: u64) {
        if let Some(last) = self.0.last()
            && last.up == up
            && last.to_up(client) == up_number
        {
            return;
        }
        self.0.push(Segment {
            first: client,
            first_up: up_number,
            up,
        });
    }

    /// The segment that holds one of the client's numbers.
    #[inline]
    pub(crate) fn find(&self, client: u64) -> Option<Segment> {
        self.0.iter().rev().find(|s| s.first <= client).copied()
    }

    /// The client's number for a binding's.
    #[inline]
    pub(crate) fn to_client(&self, up: UpChannelId, up_number: u64) -> Option<u64> {
        let s = self
            .0
            .iter()
            .rev()
            .find(|s| s.up == up && s.first_up <= up_number)?;
        Some(s.first + (up_number - s.first_up))
    }

    /// All segments with the client's last number in each (`u64::MAX` for the newest), oldest first.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (Segment, u64)> + '_ {
        let ends = self
            .0
            .iter()
            .skip(1)
            .map(|s| s.first - 1)
            .chain(std::iter::once(u64::MAX));
        self.0.iter().copied().zip(ends)
    }

    /// Forgets segments of bindings that have nothing outstanding any more, except the newest.
    pub(crate) fn retain(&mut self, keep: impl Fn(UpChannelId) -> bool) {
        let newest = self.0.len().saturating_sub(1);
        let mut at = 0;
        self.0.retain(|s| {
            at += 1;
            at > newest || keep(s.up)
        });
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}
