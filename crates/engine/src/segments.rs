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
    pub(crate) fn up_number(self, client: u64) -> u64 {
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
            && last.up_number(client) == up_number
        {
            return;
        }
        self.0.push(Segment { first: client, first_up: up_number, up });
    }

    /// The segment that holds one of the client's numbers.
    #[inline]
    pub(crate) fn find(&self, client: u64) -> Option<Segment> {
        self.0.iter().rev().find(|s| s.first <= client).copied()
    }

    /// The client's number for a binding's.
    #[inline]
    pub(crate) fn to_client(&self, up: UpChannelId, up_number: u64) -> Option<u64> {
        let s = self.0.iter().rev().find(|s| s.up == up && s.first_up <= up_number)?;
        Some(s.first + (up_number - s.first_up))
    }

    /// All segments with the client's last number in each (`u64::MAX` for the newest), oldest first.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (Segment, u64)> + '_ {
        let ends = self.0.iter().skip(1).map(|s| s.first - 1).chain(std::iter::once(u64::MAX));
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

    #[cfg(test)]
    fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmap::SlotMap;

    fn two_bindings() -> (UpChannelId, UpChannelId) {
        let mut map: SlotMap<UpChannelId, ()> = SlotMap::with_key();
        (map.insert(()), map.insert(()))
    }

    #[test]
    fn one_binding_with_an_offset_is_one_segment() {
        let (a, _) = two_bindings();
        let mut segments = Segments::default();
        for n in 1..=100 {
            segments.note(n, a, n + 41);
        }
        assert_eq!(segments.len(), 1);
        assert!(segments.only(a));
        assert_eq!(segments.find(7).map(|s| s.up_number(7)), Some(48));
        assert_eq!(segments.to_client(a, 48), Some(7));
        assert_eq!(segments.to_client(a, 41), None);
    }

    #[test]
    fn numbers_that_alternate_between_bindings_are_found_again() {
        let (a, b) = two_bindings();
        let mut segments = Segments::default();
        for (client, up, number) in [(1, a, 1), (2, a, 2), (3, b, 1), (4, a, 3), (5, b, 2), (6, b, 3)] {
            segments.note(client, up, number);
        }
        assert_eq!(segments.len(), 4);
        for (client, up, number) in [(2, a, 2), (3, b, 1), (4, a, 3), (6, b, 3)] {
            let segment = segments.find(client).unwrap();
            assert_eq!((segment.up, segment.up_number(client)), (up, number));
            assert_eq!(segments.to_client(up, number), Some(client));
        }
        let ends: Vec<u64> = segments.ranges().map(|r| r.1).collect();
        assert_eq!(ends, [2, 3, 4, u64::MAX]);
    }

    #[test]
    fn what_is_done_is_forgotten_except_the_newest() {
        let (a, b) = two_bindings();
        let mut segments = Segments::default();
        segments.note(1, a, 1);
        segments.note(2, b, 1);
        segments.retain(|up| up == b);
        assert!(segments.only(b));
        segments.retain(|_| false);
        assert_eq!(segments.len(), 1);
    }
}
