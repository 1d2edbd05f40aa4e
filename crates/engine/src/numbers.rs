//! Channel numbers: which are in use on a session, and which are free on an upstream connection.

use crate::ids::{ChannelId, UpChannelId};

/// A session's channels by number. Most sessions have one or two, so a sorted list beats a map.
#[derive(Debug, Default)]
pub(crate) struct SessionChannels(Vec<(u16, ChannelId)>);

impl SessionChannels {
    /// The channel with this number.
    #[inline]
    pub(crate) fn get(&self, number: u16) -> Option<ChannelId> {
        if let [(n, id)] = self.0.as_slice() {
            return (*n == number).then_some(*id);
        }
        self.0.binary_search_by_key(&number, |c| c.0).ok().map(|at| self.0[at].1)
    }

    /// Adds a channel. The number must be free.
    pub(crate) fn insert(&mut self, number: u16, id: ChannelId) {
        if let Err(at) = self.0.binary_search_by_key(&number, |c| c.0) {
            self.0.insert(at, (number, id));
        }
    }

    /// Frees a number.
    pub(crate) fn remove(&mut self, number: u16) {
        if let Ok(at) = self.0.binary_search_by_key(&number, |c| c.0) {
            self.0.remove(at);
        }
        if self.0.is_empty() {
            self.0 = Vec::new();
        }
    }

    /// All of them, in order of number.
    pub(crate) fn ids(&self) -> Vec<ChannelId> {
        self.0.iter().map(|c| c.1).collect()
    }

    /// How many.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// The channel numbers of one upstream connection.
#[derive(Debug, Default)]
pub(crate) struct UpNumbers {
    /// Index: number - 1.
    used: Vec<Option<UpChannelId>>,
    free: Vec<u16>,
}

impl UpNumbers {
    /// Who has this number.
    #[inline]
    pub(crate) fn get(&self, number: u16) -> Option<UpChannelId> {
        *self.used.get(usize::from(number).wrapping_sub(1))?
    }

    /// Whether a number below or equal to `max` is free.
    pub(crate) fn has_room(&self, max: u16) -> bool {
        !self.free.is_empty() || self.used.len() < usize::from(max)
    }

    /// A free number, for `id`. Call only with room.
    pub(crate) fn take(&mut self, id: UpChannelId) -> u16 {
        if let Some(number) = self.free.pop() {
            self.used[usize::from(number) - 1] = Some(id);
            return number;
        }
        self.used.push(Some(id));
        u16::try_from(self.used.len()).unwrap_or(u16::MAX)
    }

    /// Both sides have finished with this number.
    pub(crate) fn release(&mut self, number: u16) {
        if let Some(slot) = self.used.get_mut(usize::from(number).wrapping_sub(1))
            && slot.take().is_some()
        {
            self.free.push(number);
        }
    }

    /// How many are in use.
    pub(crate) fn len(&self) -> usize {
        self.used.len() - self.free.len()
    }

    /// Everybody, in order of number.
    pub(crate) fn all(&self) -> Vec<UpChannelId> {
        self.used.iter().flatten().copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use slotmap::SlotMap;

    #[test]
    fn upstream_numbers_begin_at_one_and_are_used_again() {
        let mut map: SlotMap<UpChannelId, ()> = SlotMap::with_key();
        let (a, b, c) = (map.insert(()), map.insert(()), map.insert(()));
        let mut numbers = UpNumbers::default();
        assert_eq!((numbers.take(a), numbers.take(b)), (1, 2));
        assert!(!numbers.has_room(2) && numbers.has_room(3));
        numbers.release(1);
        numbers.release(1);
        assert_eq!(numbers.len(), 1);
        assert_eq!(numbers.get(1), None);
        assert_eq!(numbers.take(c), 1);
        assert_eq!(numbers.all(), [c, b]);
        assert_eq!(numbers.get(0), None);
        assert_eq!(numbers.get(3), None);
    }

    #[test]
    fn session_channels_are_found_by_number() {
        let mut map: SlotMap<ChannelId, ()> = SlotMap::with_key();
        let mut channels = SessionChannels::default();
        let ids: Vec<ChannelId> = (0..5).map(|_| map.insert(())).collect();
        for (number, id) in [5, 1, 2047, 3, 2].into_iter().zip(&ids) {
            channels.insert(number, *id);
        }
        assert_eq!(channels.get(2047), Some(ids[2]));
        assert_eq!(channels.get(4), None);
        channels.remove(2047);
        assert_eq!(channels.get(2047), None);
        assert_eq!(channels.len(), 4);
        assert_eq!(channels.ids()[0], ids[1]);
    }
}
