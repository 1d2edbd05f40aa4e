//! Which consumer each outstanding delivery of a binding belongs to. Only asked when a consumer moves, and only kept
//! when a binding has more than one source of deliveries: most have one, and then all is its own.

use std::collections::VecDeque;

use crate::tags::TagSet;

/// What basic.get counts as.
pub(crate) const GOT: u32 = 0;

/// The sources of the outstanding deliveries of one binding.
#[derive(Debug, Default)]
pub(crate) struct Sources {
    /// The only one so far.
    sole: Option<u32>,
    /// Tag and source, ascending by tag, once there are several; settled ones are dropped now and then.
    log: VecDeque<(u64, u32)>,
    mixed: bool,
}

impl Sources {
    /// Notes a delivery that must be settled. `unacked` are those before it.
    #[inline]
    pub(crate) fn note(&mut self, tag: u64, source: u32, unacked: &TagSet) {
        if !self.mixed && self.sole.is_none_or(|sole| sole == source) {
            self.sole = Some(source);
            return;
        }
        self.note_mixed(tag, source, unacked);
    }

    fn note_mixed(&mut self, tag: u64, source: u32, unacked: &TagSet) {
        if !self.mixed {
            self.mixed = true;
            let sole = self.sole.unwrap_or(GOT);
            self.log = unacked.iter().map(|t| (t, sole)).collect();
        }
        self.log.push_back((tag, source));
        if self.log.len() as u64 > 2 * unacked.len() + 64 {
            self.log.retain(|(t, _)| *t == tag || unacked.contains(*t));
        }
    }

    /// The outstanding deliveries of one source.
    pub(crate) fn outstanding(&self, source: u32, unacked: &TagSet) -> Vec<u64> {
        if self.mixed {
            self.log.iter().filter(|(t, s)| *s == source && unacked.contains(*t)).map(|(t, _)| *t).collect()
        } else if self.sole == Some(source) {
            unacked.iter().collect()
        } else {
            Vec::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deliver(sources: &mut Sources, unacked: &mut TagSet, source: u32) -> u64 {
        sources.note(unacked.next(), source, unacked);
        unacked.push(true)
    }

    #[test]
    fn all_belongs_to_the_only_source() {
        let (mut sources, mut unacked) = (Sources::default(), TagSet::starting_at(1));
        for _ in 0..100 {
            deliver(&mut sources, &mut unacked, 7);
        }
        unacked.settle_through(98);
        assert_eq!(sources.outstanding(7, &unacked), [99, 100]);
        assert!(sources.outstanding(8, &unacked).is_empty());
        assert!(sources.log.is_empty(), "one source costs nothing");
    }

    #[test]
    fn several_sources_are_told_apart_and_settled_ones_are_dropped() {
        let (mut sources, mut unacked) = (Sources::default(), TagSet::starting_at(1));
        let first = deliver(&mut sources, &mut unacked, 1);
        for n in 0..10_000 {
            let tag = deliver(&mut sources, &mut unacked, 2 + n % 2);
            if n < 9_990 {
                unacked.settle(tag);
            }
        }
        assert_eq!(sources.outstanding(1, &unacked), [first]);
        assert_eq!(sources.outstanding(2, &unacked).len(), 5);
        assert!(sources.log.len() < 200, "{}", sources.log.len());
    }
}
