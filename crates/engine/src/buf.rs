//! Buffers for what comes from sockets: pooled blocks, filled by one connection and shared by reference.
//!
//! An [`Input`] borrows a block from the [`Pool`] while it has unread octets and gives it back when it has
//! none, so that an idle connection costs no buffer. A long run of frames leaves as a [`Slice`], which keeps
//! its whole block alive; [`Slice::pinned`] says how much memory that is, for the budgets.
//!
//! A block that slices look at is never written again. The connection goes on in a fresh block and takes its
//! unread tail along, which is short when runs are cut off at the end of what was read. Therefore: rewrite
//! first ([`Input::bytes_mut`]), then slice, then consume.
//!
//! Everything here belongs to one worker thread.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::ops::{Deref, Range};
use std::rc::Rc;

/// Size of a pooled block, in octets.
///
/// One read of this size fetches thousands of small messages per system call, and it is about what the
/// receive queue of a busy socket holds; larger reads gain nothing and push the level-2 cache around.
pub const BLOCK_SIZE: usize = 64 * 1024;

/// Size of the larger kind of pooled block, in octets.
///
/// Holds a frame of 128 KiB (RabbitMQ's `frame_max`, which most clients accept) with the method and header
/// frames before it. Not larger, because what is read past such a frame has to be copied when the frame
/// leaves by reference.
pub const LARGE_BLOCK_SIZE: usize = 2 * BLOCK_SIZE + 4096;

/// Size of a block while memory is short, in octets: what a small message needs, and several of them per read.
const FRUGAL_BLOCK_SIZE: usize = 8 * 1024;

/// Free blocks that are kept for the next reader: 8 MiB, as much as one session's outbox may hold by default,
/// so that a client that drains a full outbox again and again does not go through the allocator.
const MAX_FREE: usize = 128;

/// Free large blocks that are kept: 2 MiB. They serve one frame at a time each and come back soon.
const MAX_FREE_LARGE: usize = 16;

/// Spare vectors that are kept for outbox tails: 4 MiB when all of them are as large as they may be. An outbox
/// needs one per flush; only as many are out at a time as there are sockets that cannot be written.
const MAX_SPARE: usize = 64;

/// The free blocks of one worker. Clones are handles to the same pool.
#[derive(Clone)]
pub struct Pool(Rc<Shared>);

struct Shared {
    free: RefCell<Vec<Vec<u8>>>,
    free_large: RefCell<Vec<Vec<u8>>>,
    spare: RefCell<Vec<Vec<u8>>>,
    in_use: Cell<usize>,
    copied: Cell<usize>,
    frugal: Cell<bool>,
}

impl Pool {
    /// An empty pool; memory is allocated when it is first needed.
    pub fn new() -> Pool {
        Pool(Rc::new(Shared {
            free: RefCell::new(Vec::new()),
            free_large: RefCell::new(Vec::new()),
            spare: RefCell::new(Vec::new()),
            in_use: Cell::new(0),
            copied: Cell::new(0),
            frugal: Cell::new(false),
        }))
    }

    /// Octets of all blocks that inputs and slices hold now, each counted once and whole. Not in it: free
    /// blocks, and memory that [`Slice::from_vec`] brought along.
    pub fn in_use(&self) -> usize {
        self.0.in_use.get()
    }

    /// Octets of memory that is in use now: blocks, and what was copied into outboxes.
    pub fn used(&self) -> usize {
        self.0.in_use.get() + self.0.copied.get()
    }

    /// The memory of an outbox's copies has changed.
    #[inline]
    pub(crate) fn note_copied(&self, before: usize, after: usize) {
        self.0.copied.set(self.0.copied.get() + after - before);
    }

    /// Says whether memory is short. While it is, connections get no more than what they read needs.
    pub fn set_frugal(&self, frugal: bool) {
        self.0.frugal.set(frugal);
    }

    /// Whether memory is short.
    pub fn is_frugal(&self) -> bool {
        self.0.frugal.get()
    }

    /// Octets of the blocks and vectors that lie ready and are used by nobody.
    pub fn idle(&self) -> usize {
        let lists = [&self.0.free, &self.0.free_large, &self.0.spare];
        lists.iter().map(|list| list.borrow().iter().map(Vec::capacity).sum::<usize>()).sum()
    }

    /// Frees what lies ready, for a process that is short of memory.
    pub fn trim(&self) {
        for list in [&self.0.free, &self.0.free_large, &self.0.spare] {
            *list.borrow_mut() = Vec::new();
        }
    }

    /// An empty vector, with capacity if a spare one is at hand.
    pub fn take_vec(&self) -> Vec<u8> {
        self.0.spare.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes a vector back for a later [`Pool::take_vec`]. Its content is forgotten. It is dropped when it is
    /// larger than [`BLOCK_SIZE`] or when enough spare ones are there.
    pub fn give_vec(&self, mut vec: Vec<u8>) {
        if vec.capacity() == 0 || vec.capacity() > BLOCK_SIZE {
            return;
        }
        let mut spare = self.0.spare.borrow_mut();
        if spare.len() < MAX_SPARE {
            vec.clear();
            spare.push(vec);
        }
    }

    /// A block of at least `size` octets, of a pooled size when one is large enough.
    fn block(&self, size: usize) -> Rc<Block> {
        let (reused, size) = if self.is_frugal() && size < BLOCK_SIZE {
            (None, size.max(FRUGAL_BLOCK_SIZE))
        } else if size <= BLOCK_SIZE {
            (self.0.free.borrow_mut().pop(), BLOCK_SIZE)
        } else if size <= LARGE_BLOCK_SIZE {
            (self.0.free_large.borrow_mut().pop(), LARGE_BLOCK_SIZE)
        } else {
            (None, size)
        };
        self.0.in_use.set(self.0.in_use.get() + size);
        let bytes = reused.unwrap_or_else(|| vec![0; size]);
        Rc::new(Block { bytes, home: Some(self.clone()) })
    }

    fn take_back(&self, bytes: Vec<u8>) {
        self.0.in_use.set(self.0.in_use.get() - bytes.len());
        let (list, limit) = match bytes.len() {
            BLOCK_SIZE => (&self.0.free, MAX_FREE),
            LARGE_BLOCK_SIZE => (&self.0.free_large, MAX_FREE_LARGE),
            _ => return,
        };
        if self.is_frugal() {
            return; // what nobody uses is memory, too
        }
        let mut list = list.borrow_mut();
        if list.len() < limit {
            list.push(bytes);
        }
    }
}

impl Default for Pool {
    fn default() -> Self {
        Pool::new()
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pool").field("in_use", &self.in_use()).field("idle", &self.idle()).finish()
    }
}

/// Memory that goes back where it came from when nobody looks at it any more.
struct Block {
    /// A block from the pool has its full length at all times; what lies past the filled part is stale.
    bytes: Vec<u8>,
    home: Option<Pool>,
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(pool) = self.home.take() {
            pool.take_back(std::mem::take(&mut self.bytes));
        }
    }
}

/// The unread octets of one connection. Holds no block before the first octet and, once
/// [`Input::release_if_empty`] was called, none after the last.
pub struct Input {
    pool: Pool,
    block: Option<Rc<Block>>,
    start: usize,
    end: usize,
}

impl Input {
    /// An empty input without a block.
    pub fn new(pool: &Pool) -> Input {
        Input { pool: pool.clone(), block: None, start: 0, end: 0 }
    }

    /// True when nothing is unread.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Unread octets.
    #[inline]
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Memory that this input holds: its block, whole, even when slices hold it too.
    pub fn held(&self) -> usize {
        self.block.as_ref().map_or(0, |block| block.bytes.len())
    }

    /// All writable space after the unread octets: at least `min` octets, and at least one.
    ///
    /// Octets that are already there stay where they are while the space suffices. Otherwise they move to the
    /// front, or to another block when this one is too small or slices look at it. Ask for what the frame at
    /// hand still lacks (or a few KiB when that is unknown), so that the move is paid once per frame.
    pub fn space(&mut self, min: usize) -> &mut [u8] {
        self.make_room(min.max(1));
        let end = self.end;
        let block = self.block.as_mut().and_then(Rc::get_mut).expect("make_room leaves a block of our own");
        &mut block.bytes[end..]
    }

    fn make_room(&mut self, min: usize) {
        let len = self.len();
        let Some(block) = &mut self.block else {
            return self.relocate(min);
        };
        match Rc::get_mut(block) {
            Some(own) if own.bytes.len() - self.end >= min => {}
            Some(own) if own.bytes.len() - len >= min => {
                own.bytes.copy_within(self.start..self.end, 0);
                (self.start, self.end) = (0, len);
            }
            // Half as large again at least: a caller that asks for little at a time must not copy each time.
            Some(own) => {
                let grown = own.bytes.len() + own.bytes.len() / 2;
                self.relocate(grown.max(len + min));
            }
            None => self.relocate(len + min),
        }
    }

    /// Continues in a fresh block of at least `size` octets, with the unread ones at its front.
    fn relocate(&mut self, size: usize) {
        let mut fresh = self.pool.block(size);
        let len = self.len();
        if len > 0 {
            let own = Rc::get_mut(&mut fresh).expect("a fresh block is not shared");
            own.bytes[..len].copy_from_slice(self.bytes());
        }
        self.block = Some(fresh);
        (self.start, self.end) = (0, len);
    }

    /// Says that the first `n` octets of [`Input::space`] were written.
    ///
    /// # Panics
    /// When `n` exceeds the space.
    #[inline]
    pub fn filled(&mut self, n: usize) {
        assert!(n <= self.held() - self.end, "more octets than there was space for");
        self.end += n;
    }

    /// The unread octets.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], |block| &block.bytes[self.start..self.end])
    }

    /// The unread octets, for rewriting in place. Copies them to a fresh block when slices look at the
    /// present one: rewrite first, slice afterwards.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        if self.is_empty() {
            return &mut [];
        }
        if self.block.as_mut().is_some_and(|block| Rc::get_mut(block).is_none()) {
            self.relocate(self.len());
        }
        let range = self.start..self.end;
        let block = self.block.as_mut().and_then(Rc::get_mut).expect("the block is our own by now");
        &mut block.bytes[range]
    }

    /// Part of the unread octets, by reference. The range is relative to [`Input::bytes`]; the octets stay
    /// unread until they are consumed.
    ///
    /// # Panics
    /// When the range reaches past the unread octets.
    pub fn slice(&self, range: Range<usize>) -> Slice {
        assert!(range.start <= range.end && range.end <= self.len(), "a slice of octets that are not there");
        match &self.block {
            Some(block) => Slice {
                block: Rc::clone(block),
                start: self.start + range.start,
                end: self.start + range.end,
            },
            None => Slice::from_vec(Vec::new()),
        }
    }

    /// Drops `n` octets from the front.
    ///
    /// # Panics
    /// When fewer than `n` are unread.
    #[inline]
    pub fn consume(&mut self, n: usize) {
        assert!(n <= self.len(), "more octets consumed than were there");
        self.start += n;
        if self.start == self.end {
            (self.start, self.end) = (0, 0);
        }
    }

    /// Gives the block back if nothing is unread. To be called when a socket has nothing more to read.
    #[inline]
    pub fn release_if_empty(&mut self) {
        if self.is_empty() {
            self.block = None;
            (self.start, self.end) = (0, 0);
        }
    }

    /// Gives the block back whatever is unread: that moves to memory of its own, no larger than it is. For peers that
    /// may keep a frame unfinished for long and are not worth a block; the next read takes one again.
    pub fn shrink(&mut self) {
        if self.is_empty() {
            return self.release_if_empty();
        }
        if self.held() > self.len() {
            self.block = Some(Rc::new(Block { bytes: self.bytes().to_vec(), home: None }));
            (self.start, self.end) = (0, self.end - self.start);
        }
    }

    /// Gives back what is not needed while the connection waits: the whole block if nothing is unread; and, when memory
    /// is short, all but the unread octets of a block that is mostly empty.
    pub fn rest(&mut self) {
        self.release_if_empty();
        let (held, needed) = (self.held(), self.len().max(FRUGAL_BLOCK_SIZE));
        if self.pool.is_frugal() && held > needed + needed / 2 {
            self.relocate(self.len());
        }
    }

    /// Appends octets that did not come from a read: hand-off from another worker, simulation, tests.
    pub fn extend(&mut self, bytes: &[u8]) {
        if !bytes.is_empty() {
            self.space(bytes.len())[..bytes.len()].copy_from_slice(bytes);
            self.end += bytes.len();
        }
    }
}

impl fmt::Debug for Input {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input").field("len", &self.len()).field("held", &self.held()).finish()
    }
}

/// Octets that are looked at, not owned: a range of a block that lives as long as anyone looks at it.
#[derive(Clone)]
pub struct Slice {
    block: Rc<Block>,
    start: usize,
    end: usize,
}

impl Slice {
    /// A slice of octets that were put together elsewhere, such as an assembled content. They are freed, not
    /// pooled, at the end.
    pub fn from_vec(vec: Vec<u8>) -> Slice {
        let end = vec.len();
        Slice { block: Rc::new(Block { bytes: vec, home: None }), start: 0, end }
    }

    /// Octets of memory that stay allocated because of this slice: its whole block.
    #[inline]
    pub fn pinned(&self) -> usize {
        self.block.bytes.capacity()
    }

    /// Drops `n` octets from the front.
    ///
    /// # Panics
    /// When the slice is shorter.
    #[inline]
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.len(), "advanced past the end of a slice");
        self.start += n;
    }

    /// The `n` octets of the block before this slice, which were part of it before it advanced.
    ///
    /// # Panics
    /// When there are fewer.
    pub fn before(&self, n: usize) -> &[u8] {
        &self.block.bytes[self.start - n..self.start]
    }

    /// Part of this slice, by reference: a body that has to be split into smaller frames.
    ///
    /// # Panics
    /// When the range reaches past the end.
    pub fn slice(&self, range: Range<usize>) -> Slice {
        assert!(range.start <= range.end && range.end <= self.len(), "a slice of octets that are not there");
        Slice { block: Rc::clone(&self.block), start: self.start + range.start, end: self.start + range.end }
    }

    /// True when both keep the same block alive.
    #[inline]
    pub fn same_block(&self, other: &Slice) -> bool {
        Rc::ptr_eq(&self.block, &other.block)
    }

    /// Takes in `next` if it begins where this one ends, in the same block; says whether it did.
    #[inline]
    pub fn join(&mut self, next: &Slice) -> bool {
        let adjoins = self.end == next.start && self.same_block(next);
        if adjoins {
            self.end = next.end;
        }
        adjoins
    }
}

impl Deref for Slice {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.block.bytes[self.start..self.end]
    }
}

impl fmt::Debug for Slice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slice").field("len", &self.len()).field("pinned", &self.pinned()).finish()
    }
}

#[cfg(test)]
#[path = "buf_tests.rs"]
mod tests;
