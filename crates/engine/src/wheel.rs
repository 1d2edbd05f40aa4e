//! One timer wheel for all deadlines of a worker: heartbeats, waits, handshake steps, idle times.
//!
//! Entries are hints. They are never cancelled: when one fires, its owner looks at the deadline that it has
//! now, and schedules again if that has moved. An owner keeps one entry per deadline, not one per change.
//!
//! The wheel is hierarchical. Level 0 has a slot per tick, each further level a slot for 64 slots of the
//! level below. An entry sits on the level of the highest digit (in base 64) in which its tick differs from
//! the present one, and comes down when that digit is reached; so it is moved a few times at most, however
//! far away it is, and all that is on one level comes before all that is on the next.

use crate::time::Time;

/// Length of a tick, in milliseconds. The shortest deadlines that matter (a shared connection kept unwritable)
/// are about 100 ms, the usual ones seconds; finer ticks would only wake an idle worker more often.
pub const TICK: u64 = 100;

/// Slots per level: as many as a word has bits, so that the next used slot is found at once.
const SLOTS: usize = 64;

/// Bits of a tick that choose the slot on one level.
const DIGIT: u32 = SLOTS.trailing_zeros();

/// Enough for every tick that a `u64` of milliseconds can stand for (58 bits), so that no deadline is too far.
const LEVELS: usize = 10;

/// Entries that fire at once without leaving the scratch list larger than it began, and entries for which an
/// empty wheel keeps its memory.
const KEEP: usize = 1024;

/// End of a list of nodes.
const NIL: u32 = u32::MAX;

/// Deadlines, coarse in time and cheap in number. Keys come out in the order of (deadline, scheduling), so
/// that a simulation can be repeated.
pub struct Wheel<K: Copy> {
    levels: [Level; LEVELS],
    nodes: Vec<Node<K>>,
    /// First free node.
    free: u32,
    /// List of entries whose time had come when they were scheduled.
    due: u32,
    /// All that is due at this tick or before has been moved out of the levels.
    tick: u64,
    len: usize,
    /// How many were ever scheduled: orders entries with the same deadline.
    scheduled: u64,
    firing: Vec<Firing<K>>,
}

#[derive(Clone, Copy)]
struct Level {
    /// A bit per slot that is not empty.
    used: u64,
    heads: [u32; SLOTS],
}

struct Node<K> {
    entry: Firing<K>,
    next: u32,
}

#[derive(Clone, Copy)]
struct Firing<K> {
    at: Time,
    order: u64,
    key: K,
}

impl<K: Copy> Wheel<K> {
    /// An empty wheel that starts at `now`.
    pub fn new(now: Time) -> Wheel<K> {
        Wheel {
            levels: [Level { used: 0, heads: [NIL; SLOTS] }; LEVELS],
            nodes: Vec::new(),
            free: NIL,
            due: NIL,
            tick: now.0 / TICK,
            len: 0,
            scheduled: 0,
            firing: Vec::new(),
        }
    }

    /// Has `key` come out of [`Wheel::expired`] at the first call at or after `at`, rounded up to a tick.
    pub fn schedule(&mut self, at: Time, key: K) {
        let entry = Firing { at, order: self.scheduled, key };
        self.scheduled += 1;
        self.len += 1;
        let node = self.allocate(entry);
        self.insert(node);
    }

    /// The earliest moment at which something may fire: to be called no later than that. Nothing may fire
    /// then after all, when it is only the moment at which a far deadline comes closer. None: nothing is
    /// scheduled.
    pub fn next(&self) -> Option<Time> {
        if self.due != NIL {
            return Some(Time(self.tick * TICK));
        }
        self.next_slot().map(|(_, _, tick)| Time(tick.saturating_mul(TICK)))
    }

    /// Appends the keys whose time has come to `out`, in order. A `now` that lies before an earlier one
    /// counts as that.
    pub fn expired(&mut self, now: Time, out: &mut Vec<K>) {
        let target = (now.0 / TICK).max(self.tick);
        if self.due == NIL && self.next_slot().is_none_or(|(_, _, tick)| tick > target) {
            self.tick = target;
            return;
        }
        let due = std::mem::replace(&mut self.due, NIL);
        self.fire(due);
        while let Some((level, slot, tick)) = self.next_slot()
            && tick <= target
        {
            self.tick = tick;
            let head = self.levels[level].take(slot);
            if level == 0 {
                self.fire(head);
            } else {
                self.bring_down(head);
            }
        }
        self.tick = target;
        self.firing.sort_unstable_by_key(|entry| (entry.at, entry.order));
        out.extend(self.firing.drain(..).map(|entry| entry.key));
        self.release();
    }

    /// Entries scheduled and not fired.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True when nothing is scheduled.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first used slot and the tick at which it begins. Levels are in order of time, and so are the slots
    /// of a level: all that are used lie ahead of the present one.
    fn next_slot(&self) -> Option<(usize, usize, u64)> {
        let (number, level) = self.levels.iter().enumerate().find(|(_, level)| level.used != 0)?;
        let slot = level.used.trailing_zeros();
        let shift = DIGIT * number as u32;
        let above = (self.tick >> shift) & !(SLOTS as u64 - 1);
        Some((number, slot as usize, (above | u64::from(slot)) << shift))
    }

    /// Puts a node where its deadline belongs, seen from the present tick.
    fn insert(&mut self, node: u32) {
        let tick = self.nodes[node as usize].entry.at.0.div_ceil(TICK);
        let list = if tick <= self.tick {
            &mut self.due
        } else {
            let level = ((tick ^ self.tick).ilog2() / DIGIT) as usize;
            let slot = (tick >> (DIGIT * level as u32)) as usize % SLOTS;
            self.levels[level].used |= 1 << slot;
            &mut self.levels[level].heads[slot]
        };
        self.nodes[node as usize].next = std::mem::replace(list, node);
    }

    /// Spreads a list from a higher level over the lower ones; what is due at this very tick fires.
    fn bring_down(&mut self, mut head: u32) {
        while head != NIL {
            let node = head;
            head = self.nodes[node as usize].next;
            self.insert(node);
        }
        let due = std::mem::replace(&mut self.due, NIL);
        self.fire(due);
    }

    /// Moves a list of nodes to what fires now.
    fn fire(&mut self, mut head: u32) {
        while head != NIL {
            let node = &mut self.nodes[head as usize];
            self.firing.push(node.entry);
            let next = std::mem::replace(&mut node.next, self.free);
            self.free = head;
            head = next;
            self.len -= 1;
        }
    }

    fn allocate(&mut self, entry: Firing<K>) -> u32 {
        if self.free != NIL {
            let node = self.free;
            self.free = self.nodes[node as usize].next;
            self.nodes[node as usize] = Node { entry, next: NIL };
            return node;
        }
        // Every entry belongs to a session, a channel or a connection of one worker: far below 2^32 fit in
        // memory.
        let node = u32::try_from(self.nodes.len()).ok().filter(|node| *node != NIL);
        self.nodes.push(Node { entry, next: NIL });
        node.expect("fewer than 2^32 - 1 entries")
    }

    /// Gives memory back after a crowd has gone.
    fn release(&mut self) {
        self.firing.shrink_to(KEEP);
        if self.len == 0 && self.nodes.len() > KEEP {
            self.nodes = Vec::new();
            self.free = NIL;
        }
    }
}

impl Level {
    /// Empties a slot and returns its list.
    fn take(&mut self, slot: usize) -> u32 {
        self.used &= !(1 << slot);
        std::mem::replace(&mut self.heads[slot], NIL)
    }
}

#[cfg(test)]
#[path = "wheel_tests.rs"]
mod tests;
