//! Records by key, in one vector: what a `SlotMap` does, except that the memory of a crowd is given back when it has
//! left.
//!
//! A key is a place and a version. Versions are counted for the whole map and not for each place, so that places can be
//! forgotten, and a key of a record that is gone never means another (before two thousand million others came).

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

use slotmap::{Key, KeyData};

/// Fewer places than this are kept: it is not worth while to give them back.
const KEEP: usize = 256;

/// Records of type `V`, each under a key of its own.
pub(crate) struct Slots<K: Key, V> {
    places: Vec<Place<V>>,
    /// Places that are free, the lowest first: so the last ones become free together. Some may be used again, or
    /// forgotten.
    free: BinaryHeap<Reverse<u32>>,
    len: usize,
    /// Of the record that came last: odd, as [`KeyData`] has them.
    version: u32,
    keys: PhantomData<K>,
}

struct Place<V> {
    version: u32,
    value: Option<V>,
}

impl<K: Key, V> Slots<K, V> {
    /// No records.
    pub(crate) fn new() -> Slots<K, V> {
        Slots { places: Vec::new(), free: BinaryHeap::new(), len: 0, version: u32::MAX, keys: PhantomData }
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Takes a record in, under a new key.
    pub(crate) fn insert(&mut self, value: V) -> K {
        self.version = self.version.wrapping_add(2);
        self.len += 1;
        let used = Place { version: self.version, value: Some(value) };
        while let Some(Reverse(index)) = self.free.pop() {
            if let Some(place) = self.places.get_mut(index as usize)
                && place.value.is_none()
            {
                *place = used;
                return key(index, self.version);
            }
        }
        // Every record belongs to a connection of one worker: far below 2^32 fit in memory.
        let index = u32::try_from(self.places.len()).expect("fewer than 2^32 records");
        self.places.push(used);
        key(index, self.version)
    }

    /// Gives the record back and forgets its key.
    pub(crate) fn remove(&mut self, key: K) -> Option<V> {
        let (index, version) = split(key);
        let place = self.places.get_mut(index as usize).filter(|place| place.version == version)?;
        let value = place.value.take()?;
        self.len -= 1;
        if index as usize + 1 == self.places.len() {
            self.forget_last();
        } else {
            self.free.push(Reverse(index));
        }
        Some(value)
    }

    /// Forgets the free places at the end, and gives memory back that is far more than what is used.
    fn forget_last(&mut self) {
        while self.places.last().is_some_and(|place| place.value.is_none()) {
            self.places.pop();
        }
        if self.places.capacity() > KEEP.max(4 * self.places.len()) {
            self.places.shrink_to(2 * self.places.len());
            let places = self.places.len();
            self.free.retain(|Reverse(index)| (*index as usize) < places);
            self.free.shrink_to_fit();
        }
    }

    #[inline]
    pub(crate) fn get(&self, key: K) -> Option<&V> {
        let (index, version) = split(key);
        let place = self.places.get(index as usize)?;
        if place.version == version { place.value.as_ref() } else { None }
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut V> {
        let (index, version) = split(key);
        let place = self.places.get_mut(index as usize)?;
        if place.version == version { place.value.as_mut() } else { None }
    }

    pub(crate) fn contains_key(&self, key: K) -> bool {
        self.get(key).is_some()
    }

    /// All records, in the order of their places.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &V)> {
        let numbered = self.places.iter().zip(0..);
        numbered.filter_map(|(place, index)| Some((key(index, place.version), place.value.as_ref()?)))
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = K> {
        self.iter().map(|(key, _)| key)
    }

    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.iter().map(|(_, value)| value)
    }
}

#[inline]
fn key<K: Key>(index: u32, version: u32) -> K {
    KeyData::from_ffi(u64::from(version) << 32 | u64::from(index)).into()
}

#[inline]
fn split<K: Key>(key: K) -> (u32, u32) {
    let data = key.data().as_ffi();
    (data as u32, (data >> 32) as u32)
}

impl<K: Key, V> Index<K> for Slots<K, V> {
    type Output = V;

    #[inline]
    fn index(&self, key: K) -> &V {
        self.get(key).expect("the key of a record that is there")
    }
}

impl<K: Key, V> IndexMut<K> for Slots<K, V> {
    #[inline]
    fn index_mut(&mut self, key: K) -> &mut V {
        self.get_mut(key).expect("the key of a record that is there")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::SessionId;
    use crate::random::Random;

    #[test]
    fn keys_of_records_that_are_gone_mean_nothing() {
        let mut slots: Slots<SessionId, u32> = Slots::new();
        let first = slots.insert(1);
        assert_eq!((slots.get(first), slots.len()), (Some(&1), 1));
        assert_eq!((slots.remove(first), slots.remove(first)), (Some(1), None));
        let second = slots.insert(2);
        assert_ne!(first, second, "the same place, another key");
        assert_eq!((slots.get(first), slots.get(second)), (None, Some(&2)));
        assert_eq!(slots.get(SessionId::default()), None);
    }

    #[test]
    fn the_lowest_places_are_used_first_and_listed_in_order() {
        let mut slots: Slots<SessionId, u32> = Slots::new();
        let keys: Vec<SessionId> = (0..5).map(|n| slots.insert(n)).collect();
        slots.remove(keys[3]);
        slots.remove(keys[1]);
        slots.insert(10);
        slots.insert(11);
        slots.insert(12);
        assert_eq!(slots.values().copied().collect::<Vec<_>>(), [0, 10, 2, 11, 4, 12]);
        assert!(slots.iter().all(|(key, value)| slots[key] == *value));
    }

    #[test]
    fn a_crowd_leaves_no_memory_behind() {
        let mut slots: Slots<SessionId, [u8; 100]> = Slots::new();
        let stays = slots.insert([7; 100]);
        for _ in 0..3 {
            let crowd: Vec<SessionId> = (0..100_000).map(|_| slots.insert([0; 100])).collect();
            for key in crowd {
                slots.remove(key);
            }
            assert!(slots.places.capacity() <= KEEP, "{} places", slots.places.capacity());
            assert!(slots.free.capacity() <= KEEP, "{} free places", slots.free.capacity());
        }
        assert_eq!((slots.len(), slots[stays]), (1, [7; 100]));
    }

    /// Against a map that cannot be wrong.
    #[test]
    fn whatever_comes_and_goes_is_found() {
        let mut random = Random::new(1);
        let mut slots: Slots<SessionId, u64> = Slots::new();
        let mut model: Vec<(SessionId, u64)> = Vec::new();
        let mut gone = Vec::new();
        for n in 0..50_000 {
            // Mostly more, then mostly fewer, again and again.
            let grows = (n / 3_000) % 2 == 0;
            if model.is_empty() || random.below(10) < if grows { 7 } else { 2 } {
                model.push((slots.insert(n), n));
            } else {
                let at = usize::try_from(random.below(model.len() as u64)).expect("an index");
                let (key, value) = model.swap_remove(at);
                assert_eq!(slots.remove(key), Some(value));
                gone.push(key);
            }
            assert_eq!(slots.len(), model.len());
        }
        assert!(model.iter().all(|(key, value)| slots.get(*key) == Some(value)));
        assert!(gone.iter().all(|key| !slots.contains_key(*key)));
        let mut listed: Vec<u64> = slots.values().copied().collect();
        let mut expected: Vec<u64> = model.iter().map(|(_, value)| *value).collect();
        listed.sort_unstable();
        expected.sort_unstable();
        assert_eq!(listed, expected);
    }
}
