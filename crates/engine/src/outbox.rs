//! What waits to be written to one socket.
//!
//! An outbox is a list of segments: octets that were copied in, and runs kept by reference. Small runs are
//! better copied (they leave in one piece and pin nothing); whoever pushes decides. An outbox that is empty
//! owns no heap memory: idle sessions have one each.

use std::collections::VecDeque;
use std::fmt;
use std::io::IoSlice;

use warren_wire::frame::next_frame;

use crate::buf::{BLOCK_SIZE, Pool, Slice};

/// Free capacity that an encoder finds in [`Outbox::write_with`]: almost every method frame fits.
const ENCODE_ROOM: usize = 512;

/// Owned segments up to this size are copied when they move to another outbox: the copy costs less than one
/// more entry in a `writev` and one more vector to give back.
const MOVE_BY_COPY: usize = 4096;

/// Octets waiting for one socket, in order.
pub struct Outbox {
    pool: Pool,
    /// None of them is empty.
    segments: VecDeque<Segment>,
    len: usize,
    pinned: usize,
}

enum Segment {
    Owned {
        bytes: Vec<u8>,
        read: usize,
    },
    /// `counted`: the block is part of `Outbox::pinned` on behalf of this segment. Slices of one block come
    /// close together; only the first of them that still waits is counted.
    Ref {
        slice: Slice,
        counted: bool,
        /// Octets that were written and lie before the slice, in the same block.
        written: usize,
    },
}

impl Segment {
    #[inline]
    fn unread(&self) -> &[u8] {
        match self {
            Segment::Owned { bytes, read } => &bytes[*read..],
            Segment::Ref { slice, .. } => slice,
        }
    }
}

/// How far a reference looks back (and, when it is done, forward) for another one into the same block: past
/// one copied run between the two.
const NEIGHBOURS: usize = 2;

impl Outbox {
    /// An empty outbox that takes its vectors from `pool` and gives them back there.
    pub fn new(pool: &Pool) -> Outbox {
        Outbox { pool: pool.clone(), segments: VecDeque::new(), len: 0, pinned: 0 }
    }

    /// Octets waiting.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when nothing waits.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Memory held: capacity of what was copied, and blocks that references pin, counted whole. A block that
    /// references far apart look at may be counted more than once, never less.
    #[inline]
    pub fn pinned(&self) -> usize {
        self.pinned
    }

    /// Appends a copy of `bytes`.
    #[inline]
    pub fn push_copy(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.write_sized(bytes.len(), |tail| tail.extend_from_slice(bytes));
        }
    }

    /// Appends `slice` without copying it.
    pub fn push_ref(&mut self, slice: Slice) {
        if slice.is_empty() {
            return;
        }
        self.len += slice.len();
        if let Some(Segment::Ref { slice: last, .. }) = self.segments.back_mut()
            && last.join(&slice)
        {
            return;
        }
        let neighbour = self.segments.iter().rev().take(NEIGHBOURS).find_map(|segment| match segment {
            Segment::Ref { slice, .. } => Some(slice),
            Segment::Owned { .. } => None,
        });
        let counted = !neighbour.is_some_and(|earlier| earlier.same_block(&slice));
        if counted {
            self.pinned += slice.pinned();
        }
        self.segments.push_back(Segment::Ref { slice, counted, written: 0 });
    }

    /// Lets `write` append to the end: for encoders of methods. What the vector holds already must stay as it
    /// is.
    #[inline]
    pub fn write_with<R>(&mut self, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        self.write_sized(ENCODE_ROOM, write)
    }

    /// As [`Outbox::write_with`], with capacity for `want` octets. Writing more is allowed, but may leave a
    /// vector that is too large to be used again.
    pub fn write_sized<R>(&mut self, want: usize, write: impl FnOnce(&mut Vec<u8>) -> R) -> R {
        self.open_tail(want);
        let Some(Segment::Owned { bytes, read }) = self.segments.back_mut() else {
            unreachable!("open_tail leaves an owned segment at the end");
        };
        let (len, capacity) = (bytes.len(), bytes.capacity());
        let result = write(bytes);
        assert!(bytes.len() >= len, "an encoder cut off octets that were waiting");
        self.len += bytes.len() - len;
        if bytes.capacity() != capacity {
            self.pinned = self.pinned - capacity + bytes.capacity();
            self.pool.note_copied(capacity, bytes.capacity());
        }
        if bytes.len() == *read {
            self.drop_back();
        }
        result
    }

    /// Makes the last segment an owned one with capacity for `want` more octets: the one that is there, or a
    /// new one when that has the size of a block. A spare vector is not spent on a run that outgrows it.
    #[inline]
    fn open_tail(&mut self, want: usize) {
        if let Some(Segment::Owned { bytes, .. }) = self.segments.back_mut() {
            if bytes.capacity() - bytes.len() >= want {
                return;
            }
            if bytes.len() + want <= BLOCK_SIZE {
                let before = bytes.capacity();
                reserve(bytes, want);
                self.pinned += bytes.capacity() - before;
                self.pool.note_copied(before, bytes.capacity());
                return;
            }
        }
        let mut bytes = if want > BLOCK_SIZE { Vec::new() } else { self.pool.take_vec() };
        reserve(&mut bytes, want);
        self.pinned += bytes.capacity();
        self.pool.note_copied(0, bytes.capacity());
        self.segments.push_back(Segment::Owned { bytes, read: 0 });
    }

    /// Takes back a tail that was opened and not used.
    #[cold]
    fn drop_back(&mut self) {
        if let Some(Segment::Owned { bytes, .. }) = self.segments.pop_back() {
            self.pinned -= bytes.capacity();
            self.pool.note_copied(bytes.capacity(), 0);
            self.pool.give_vec(bytes);
        }
        if self.segments.is_empty() {
            self.segments = VecDeque::new();
        }
    }

    /// The segments from the first on, for a `writev`, as many as fit into `out`. Returns how many.
    pub fn io_slices<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let mut count = 0;
        for (place, segment) in out.iter_mut().zip(&self.segments) {
            *place = IoSlice::new(segment.unread());
            count += 1;
        }
        count
    }

    /// The octets that can be written with one plain write; empty when nothing waits.
    #[inline]
    pub fn first(&self) -> &[u8] {
        self.segments.front().map_or(&[], Segment::unread)
    }

    /// Says that the first `n` octets were written.
    ///
    /// # Panics
    /// When fewer were waiting.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.len, "more octets written than were waiting");
        self.len -= n;
        let mut left = n;
        while let Some(front) = self.segments.front_mut() {
            let size = front.unread().len();
            if left < size {
                match front {
                    Segment::Owned { read, .. } => *read += left,
                    Segment::Ref { slice, written, .. } => {
                        slice.advance(left);
                        *written += left;
                    }
                }
                return;
            }
            left -= size;
            self.drop_front();
        }
        // Nothing waits any more. The list is small unless the socket was slow; idle sessions keep none.
        self.segments = VecDeque::new();
    }

    /// Takes the first segment off the list and out of `pinned`; `len` is the caller's business.
    fn drop_front(&mut self) {
        match self.segments.pop_front() {
            Some(Segment::Owned { bytes, .. }) => {
                self.pinned -= bytes.capacity();
                self.pool.note_copied(bytes.capacity(), 0);
                self.pool.give_vec(bytes);
            }
            Some(Segment::Ref { slice, .. }) => self.unpin(&slice),
            None => {}
        }
    }

    /// Stops counting the block of the reference that was first, unless the next one looks at it too. The one
    /// that was first is always a counted one: it inherits the count here.
    fn unpin(&mut self, done: &Slice) {
        for segment in self.segments.iter_mut().take(NEIGHBOURS) {
            if let Segment::Ref { slice, counted, .. } = segment {
                if !*counted && slice.same_block(done) {
                    *counted = true;
                    return;
                }
                break;
            }
        }
        self.pinned -= done.pinned();
    }

    /// Drops everything that waits.
    pub fn clear(&mut self) {
        self.advance(self.len);
    }

    /// Takes everything out, in one piece: for hand-off to another worker, and for simulation.
    pub fn take_bytes(&mut self) -> Vec<u8> {
        let mut all = Vec::with_capacity(self.len);
        for segment in &self.segments {
            all.extend_from_slice(segment.unread());
        }
        self.clear();
        all
    }

    /// Takes out the frames of which nothing was written yet; what a frame that was begun still lacks stays.
    ///
    /// Every push must have been of whole frames, which holds for what goes to brokers.
    pub fn take_unbegun(&mut self) -> Vec<u8> {
        let mut all = match self.segments.front() {
            Some(Segment::Owned { bytes, read }) => bytes[..*read].to_vec(),
            Some(Segment::Ref { slice, written, .. }) => slice.before(*written).to_vec(),
            None => return Vec::new(),
        };
        let written = all.len();
        all.extend(self.take_bytes());
        let mut begun = 0;
        while begun < written {
            match next_frame(&all, begun, u32::MAX) {
                Ok(Some(frame)) => begun = frame.end,
                _ => begun = all.len(),
            }
        }
        self.push_copy(&all[written..begun]);
        all.drain(..begun);
        all
    }

    /// Appends everything to `other`, large segments without copying them, and leaves this one empty.
    pub fn move_into(&mut self, other: &mut Outbox) {
        if other.is_empty() {
            std::mem::swap(&mut self.segments, &mut other.segments);
            other.len = std::mem::take(&mut self.len);
            other.pinned = std::mem::take(&mut self.pinned);
            return;
        }
        for segment in std::mem::take(&mut self.segments) {
            match segment {
                Segment::Ref { slice, .. } => other.push_ref(slice),
                Segment::Owned { bytes, read } if bytes.len() - read <= MOVE_BY_COPY => {
                    other.push_copy(&bytes[read..]);
                    self.pool.note_copied(bytes.capacity(), 0);
                    self.pool.give_vec(bytes);
                }
                Segment::Owned { bytes, read } => {
                    other.len += bytes.len() - read;
                    other.pinned += bytes.capacity();
                    other.segments.push_back(Segment::Owned { bytes, read });
                }
            }
        }
        self.len = 0;
        self.pinned = 0;
    }
}

impl Drop for Outbox {
    fn drop(&mut self) {
        self.clear();
    }
}

/// Grows by powers of two up to [`BLOCK_SIZE`], so that the vector stays of a size that is pooled (doubling
/// from an odd size would overshoot it).
fn reserve(tail: &mut Vec<u8>, want: usize) {
    let need = tail.len() + want;
    if need > tail.capacity() {
        let capacity = if need <= BLOCK_SIZE { need.next_power_of_two() } else { need };
        tail.reserve_exact(capacity - tail.len());
    }
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox").field("len", &self.len).field("pinned", &self.pinned).finish()
    }
}

#[cfg(test)]
#[path = "outbox_tests.rs"]
mod tests;
