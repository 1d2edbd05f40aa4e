//! Offsets between the numbers a client sees and the numbers its bindings use.
//!
//! A channel's delivery tags and publish sequence numbers are dense, whatever the channel is bound to. Each run of
//! numbers that came from (or went to) one binding with one offset is a segment; a channel that was never rebound
//! has one.

use crate::ids::UpChannelId;

/// A run of the client's numbers on one binding. Numbers between its ends that belong to none of what is outstanding
/// (deliveries that need no ack) may lie in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    /// The first number as the client sees it.
    pub(crate) first: u64,
    /// The last number as the client sees it.
    pub(crate) last: u64,
    /// The first number at the broker.
    pub(crate) first_up: u64,
    /// The binding.
    pub(crate) up: UpChannelId,
}

impl Segment {
    /// The broker's number for one of the client's within the segment.
    #[inline]
    pub(crate) fn up_number(self, client: u64) -> u64 {
        self.first_up + (client - self.first)
    }

    fn continues(self, client: u64, up: UpChannelId, up_number: u64) -> bool {
        self.up == up && client >= self.first && self.up_number(client) == up_number
    }
}

/// Segments before the next look at which of them are needed.
const LOOK_AT: usize = 64;

/// The segments of one channel, oldest first.
#[derive(Debug)]
pub(crate) struct Segments {
    list: Vec<Segment>,
    look_at: usize,
}

impl Default for Segments {
    fn default() -> Segments {
        Segments { list: Vec::new(), look_at: LOOK_AT }
    }
}

impl Segments {
    /// Whether all numbers that are known belong to `up`, with one offset: then `multiple` means the same on both
    /// sides.
    #[inline]
    pub(crate) fn only(&self, up: UpChannelId) -> bool {
        matches!(self.list.as_slice(), [s] if s.up == up)
    }

    /// Notes that the client's number `client` is `up_number` on `up`.
    #[inline]
    pub(crate) fn note(&mut self, client: u64, up: UpChannelId, up_number: u64) {
        match self.list.last_mut() {
            Some(last) if last.continues(client, up, up_number) => last.last = client,
            _ => self.list.push(Segment { first: client, last: client, first_up: up_number, up }),
        }
    }

    /// Notes a run of neighbours at once.
    #[inline]
    pub(crate) fn note_run(&mut self, client: u64, up: UpChannelId, up_number: u64, count: u64) {
        self.note(client, up, up_number);
        if let Some(last) = self.list.last_mut() {
            last.last = client + count - 1;
        }
    }

    /// The segment that holds one of the client's numbers.
    #[inline]
    pub(crate) fn find(&self, client: u64) -> Option<Segment> {
        let segment = self.list.iter().rev().find(|s| s.first <= client).copied();
        segment.filter(|s| client <= s.last)
    }

    /// The client's number for a binding's.
    #[inline]
    pub(crate) fn to_client(&self, up: UpChannelId, up_number: u64) -> Option<u64> {
        let s = self.list.iter().rev().find(|s| s.up == up && s.first_up <= up_number)?;
        Some(s.first + (up_number - s.first_up)).filter(|client| *client <= s.last)
    }

    /// All segments, oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = Segment> + '_ {
        self.list.iter().copied()
    }

    /// Forgets segments that are not needed any more.
    pub(crate) fn retain(&mut self, keep: impl FnMut(&Segment) -> bool) {
        self.list.retain(keep);
        self.look_at = (self.list.len() * 2).max(LOOK_AT);
    }

    /// Forgets the numbers from `client` on: they will be given again.
    pub(crate) fn truncate(&mut self, client: u64) {
        self.list.retain(|s| s.first < client);
        if let Some(last) = self.list.last_mut() {
            last.last = last.last.min(client - 1);
        }
    }

    /// Whether there are so many that it is worth to look which are needed. It is asked for again at twice as many
    /// as were left, so that the look costs nothing in the long run.
    pub(crate) fn has_grown(&self) -> bool {
        self.list.len() >= self.look_at
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
        segments.note_run(101, a, 142, 10);
        assert!(segments.only(a));
        assert_eq!(segments.find(7).map(|s| s.up_number(7)), Some(48));
        assert_eq!(segments.find(110).map(|s| s.up_number(110)), Some(151));
        assert!(segments.find(111).is_none(), "a number that was not given out");
        assert!(segments.find(u64::MAX).is_none());
        assert_eq!(segments.to_client(a, 48), Some(7));
        assert_eq!(segments.to_client(a, 41), None);
        assert_eq!(segments.to_client(a, 152), None);
    }

    #[test]
    fn numbers_that_alternate_between_bindings_are_found_again() {
        let (a, b) = two_bindings();
        let mut segments = Segments::default();
        for (client, up, number) in [(1, a, 1), (2, a, 2), (3, b, 1), (4, a, 3), (5, b, 2), (6, b, 3)] {
            segments.note(client, up, number);
        }
        assert_eq!(segments.iter().count(), 4);
        for (client, up, number) in [(2, a, 2), (3, b, 1), (4, a, 3), (6, b, 3)] {
            let segment = segments.find(client).unwrap();
            assert_eq!((segment.up, segment.up_number(client)), (up, number));
            assert_eq!(segments.to_client(up, number), Some(client));
        }
    }

    #[test]
    fn a_number_of_a_forgotten_segment_is_nobodys() {
        let (a, b) = two_bindings();
        let mut segments = Segments::default();
        for (client, up, number) in [(1, a, 1), (2, b, 1), (3, a, 2)] {
            segments.note(client, up, number);
        }
        segments.retain(|s| s.up == a);
        assert!(segments.find(2).is_none());
        assert_eq!(segments.find(3).map(|s| s.up_number(3)), Some(2));
    }

    #[test]
    fn the_look_at_what_is_needed_comes_at_twice_as_many() {
        let (a, b) = two_bindings();
        let mut segments = Segments::default();
        let mut looks = 0;
        for n in 1..=10_000 {
            segments.note(n, if n % 2 == 0 { a } else { b }, n);
            if segments.has_grown() {
                looks += 1;
                segments.retain(|s| s.first > n - 10);
            }
        }
        assert!((100..200).contains(&looks), "{looks}");
    }
}
