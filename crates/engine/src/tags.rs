//! Which numbers of a sequence are outstanding: publishes without a confirm, deliveries without an ack.
//!
//! Numbers are given out densely and mostly settled in order, so they are bits in words. Only words with a
//! bit set are kept (and a bounded share of others): one delivery that a client never acknowledges, while
//! millions come and go after it, costs one word and not a bit per delivery since.

use std::collections::VecDeque;

/// Words that an empty set may keep allocated (128 octets): a channel that goes back and forth between a few
/// outstanding tags and none should not go through the allocator each time.
const KEEP: usize = 8;

/// Bits of a word.
const BITS: u64 = u64::BITS as u64;

/// 64 neighbouring tags, of which those with a bit set are outstanding.
#[derive(Clone, Copy, Debug)]
struct Word {
    /// Tag of the first bit, divided by 64.
    index: u64,
    bits: u64,
}

/// The outstanding tags of one channel in one direction. Tags are given out by [`TagSet::push`], one after
/// the other. An unused set, and one that only saw tags that need no answer, holds no memory.
#[derive(Clone, Debug)]
pub struct TagSet {
    /// Ascending by index; the first and the last word are never without a bit.
    words: VecDeque<Word>,
    /// Words without a bit between the others.
    holes: usize,
    next: u64,
    count: u64,
}

impl Default for TagSet {
    /// A set whose first tag is 1, as delivery tags and publish sequence numbers begin.
    fn default() -> Self {
        TagSet::starting_at(1)
    }
}

impl TagSet {
    /// A set whose first tag will be `next`.
    pub fn starting_at(next: u64) -> TagSet {
        TagSet { words: VecDeque::new(), holes: 0, next, count: 0 }
    }

    /// The tag that the next push gives out.
    #[inline]
    pub fn next(&self) -> u64 {
        self.next
    }

    /// Gives out the next tag. `outstanding`: it has to be settled; else it never is in the set (a delivery
    /// without acknowledgement takes a number too).
    #[inline]
    pub fn push(&mut self, outstanding: bool) -> u64 {
        let tag = self.next;
        self.next += 1;
        if outstanding {
            self.count += 1;
            let (index, bit) = (tag / BITS, 1 << (tag % BITS));
            match self.words.back_mut() {
                Some(last) if last.index == index => last.bits |= bit,
                _ => self.words.push_back(Word { index, bits: bit }),
            }
        }
        tag
    }

    /// True when `tag` was given out as outstanding and is not settled.
    #[inline]
    pub fn contains(&self, tag: u64) -> bool {
        self.position(tag / BITS).is_some_and(|at| self.words[at].bits & (1 << (tag % BITS)) != 0)
    }

    /// Settles one tag. False: it was not outstanding.
    #[inline]
    pub fn settle(&mut self, tag: u64) -> bool {
        let Some(at) = self.position(tag / BITS) else {
            return false;
        };
        let (word, bit) = (&mut self.words[at], 1 << (tag % BITS));
        if word.bits & bit == 0 {
            return false;
        }
        word.bits &= !bit;
        self.count -= 1;
        if word.bits == 0 {
            self.holes += 1;
            self.tidy();
        }
        true
    }

    /// Settles all outstanding tags up to and including `tag` ("multiple") and says how many they were. That
    /// 0 means "all" in AMQP (basic.ack, `multiple`) is the caller's business.
    pub fn settle_through(&mut self, tag: u64) -> u64 {
        let (index, bit) = (tag / BITS, tag % BITS);
        let upto = u64::MAX >> (BITS - 1 - bit);
        let mut settled = 0;
        while let Some(word) = self.words.front_mut() {
            if word.index > index {
                break;
            }
            let gone = if word.index == index { word.bits & upto } else { word.bits };
            if gone != word.bits {
                word.bits &= !gone;
                settled += u64::from(gone.count_ones());
                break;
            }
            settled += u64::from(gone.count_ones());
            self.holes -= usize::from(gone == 0);
            self.words.pop_front();
        }
        self.count -= settled;
        self.tidy();
        settled
    }

    /// How many are outstanding.
    #[inline]
    pub fn len(&self) -> u64 {
        self.count
    }

    /// True when none is outstanding.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The lowest outstanding tag.
    #[inline]
    pub fn lowest(&self) -> Option<u64> {
        self.words.front().map(|word| word.index * BITS + u64::from(word.bits.trailing_zeros()))
    }

    /// The highest outstanding tag.
    #[inline]
    pub fn highest(&self) -> Option<u64> {
        self.words.back().map(|word| word.index * BITS + (BITS - 1) - u64::from(word.bits.leading_zeros()))
    }

    /// The outstanding tags, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> + '_ {
        self.words.iter().flat_map(|word| {
            let mut bits = word.bits;
            std::iter::from_fn(move || {
                let bit = (bits != 0).then(|| u64::from(bits.trailing_zeros()))?;
                bits &= bits - 1;
                Some(word.index * BITS + bit)
            })
        })
    }

    /// Settles all and says how many they were. The numbering goes on.
    pub fn clear(&mut self) -> u64 {
        self.words.clear();
        self.holes = 0;
        self.tidy();
        std::mem::take(&mut self.count)
    }

    /// Heap memory held, in octets.
    pub fn memory(&self) -> usize {
        self.words.capacity() * size_of::<Word>()
    }

    /// Where the word with this index is. It is where it would be if no word were missing, seen from the end
    /// or from the front, unless tags were left behind here and there.
    #[inline]
    fn position(&self, index: u64) -> Option<usize> {
        let (front, back) = (self.words.front()?.index, self.words.back()?.index);
        if index < front || index > back {
            return None;
        }
        // Both distances are below the largest sequence number; the comparison comes before the narrowing.
        let (ahead, behind) = (index - front, back - index);
        let last = self.words.len() - 1;
        if behind <= last as u64 && self.words[last - behind as usize].index == index {
            return Some(last - behind as usize);
        }
        if ahead <= last as u64 && self.words[ahead as usize].index == index {
            return Some(ahead as usize);
        }
        self.words.binary_search_by_key(&index, |word| word.index).ok()
    }

    /// Drops words without a bit: at the ends at once, in between when they are as many as the others. Gives
    /// memory back when little of it is used. All of it is paid for by the pushes that made the words.
    fn tidy(&mut self) {
        while self.words.front().is_some_and(|word| word.bits == 0) {
            self.words.pop_front();
            self.holes -= 1;
        }
        while self.words.back().is_some_and(|word| word.bits == 0) {
            self.words.pop_back();
            self.holes -= 1;
        }
        if self.holes > KEEP / 2 && self.holes * 2 > self.words.len() {
            self.words.retain(|word| word.bits != 0);
            self.holes = 0;
        }
        if self.words.capacity() > KEEP.max(4 * self.words.len()) {
            self.words.shrink_to(self.words.len() * 2);
        }
    }
}

#[cfg(test)]
#[path = "tags_tests.rs"]
mod tests;
