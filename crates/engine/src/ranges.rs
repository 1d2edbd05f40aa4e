//! A set of numbers that come in runs.

/// Numbers, as runs in ascending order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    /// Whether there are none.
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a number is in the set.
    pub(crate) fn contains(&self, number: u64) -> bool {
        self.at(number).is_ok()
    }

    /// Adds a number.
    pub(crate) fn insert(&mut self, number: u64) {
        let Err(at) = self.at(number) else { return };
        let joins_next = self.0.get(at).is_some_and(|r| r.0 == number + 1);
        let joins_last = at > 0 && self.0[at - 1].1 + 1 == number;
        match (joins_last, joins_next) {
            (true, true) => {
                let (_, last) = self.0.remove(at);
                self.0[at - 1].1 = last;
            }
            (true, false) => self.0[at - 1].1 = number,
            (false, true) => self.0[at].0 = number,
            (false, false) => self.0.insert(at, (number, number)),
        }
    }

    /// Takes out what an ack, nack or reject covers: one number, all up to it, or with 0 and `multiple` all.
    pub(crate) fn settle(&mut self, number: u64, multiple: bool) {
        if self.0.is_empty() {
        } else if multiple && number == 0 {
            self.clear();
        } else if multiple {
            self.0.retain(|r| r.1 > number);
            if let Some(first) = self.0.first_mut() {
                first.0 = first.0.max(number + 1);
            }
        } else if let Ok(at) = self.at(number) {
            let (first, last) = self.0[at];
            let left = [(first, number.wrapping_sub(1)), (number + 1, last)];
            let left = left.into_iter().filter(|r| r.0 <= r.1 && r.1 != u64::MAX);
            self.0.splice(at..=at, left);
        }
    }

    /// Takes out everything.
    pub(crate) fn clear(&mut self) {
        self.0 = Vec::new();
    }

    /// The run that a number is in, or where one with it would be.
    fn at(&self, number: u64) -> Result<usize, usize> {
        use std::cmp::Ordering::{Equal, Greater, Less};
        self.0.binary_search_by(|(first, last)| match (number < *first, number > *last) {
            (true, _) => Greater,
            (_, true) => Less,
            _ => Equal,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn is_as_a_plain_set(steps in proptest::collection::vec((0..4_u8, 0..40_u64), 0..200)) {
            let (mut ranges, mut plain) = (Ranges::default(), BTreeSet::new());
            for (kind, number) in steps {
                match kind {
                    0 | 1 => {
                        ranges.insert(number + 1);
                        plain.insert(number + 1);
                    }
                    2 => {
                        ranges.settle(number, false);
                        plain.remove(&number);
                    }
                    _ => {
                        ranges.settle(number, true);
                        plain.retain(|n| number != 0 && *n > number);
                    }
                }
                for n in 0..45 {
                    prop_assert_eq!(ranges.contains(n), plain.contains(&n));
                }
                prop_assert_eq!(ranges.is_empty(), plain.is_empty());
                prop_assert!(ranges.0.windows(2).all(|w| w[0].1 + 1 < w[1].0), "{:?}", ranges);
            }
        }
    }
}
