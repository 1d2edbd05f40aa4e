//! How often and how much: what came within the last second, and a bucket that shapes data.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::time::Time;

/// Rates are per second.
const SECOND: u64 = 1_000;

/// What came within the last second, exactly: no second has more than the limit, wherever it begins.
#[derive(Debug, Default)]
pub struct Window {
    /// When each came, in order.
    times: VecDeque<u64>,
}

impl Window {
    /// Counts one more, unless `limit` came within the last second already. `Some`: how many came, this one included.
    pub fn take(&mut self, now: Time, limit: u64) -> Option<u64> {
        self.forget(now);
        let came = self.times.len() as u64;
        if came >= limit {
            return None;
        }
        // Workers read the clock at slightly different times.
        let at = self.times.back().map_or(now.0, |last| now.0.max(*last));
        self.times.push_back(at);
        Some(came + 1)
    }

    /// When there is room for one more.
    pub fn free_at(&mut self, now: Time, limit: u64) -> Time {
        self.forget(now);
        match self.times.front() {
            Some(first) if self.times.len() as u64 >= limit => Time(first + SECOND),
            _ => now,
        }
    }

    /// The latest one does not count after all.
    pub(crate) fn give_back(&mut self) {
        self.times.pop_back();
    }

    /// Keeps no more than the latest `most`, for those who only want to know whether there are more than one less.
    pub(crate) fn keep(&mut self, most: u64) {
        while self.times.len() as u64 > most {
            self.times.pop_front();
        }
    }

    /// How many came within the last second.
    pub(crate) fn count(&mut self, now: Time) -> u64 {
        self.forget(now);
        self.times.len() as u64
    }

    fn forget(&mut self, now: Time) {
        while self.times.front().is_some_and(|at| at + SECOND <= now.0) {
            self.times.pop_front();
        }
    }
}

const NANOS_PER_MILLI: u64 = 1_000_000;
const NANOS_PER_SECOND: u128 = 1_000_000_000;

/// How far data may run ahead of its rate: the largest burst, and how late a worker may be without loss of rate.
const TOLERANCE: u64 = 50 * NANOS_PER_MILLI;
/// What one read or write may be, as a time; shared by those who wait, so that a round of all stays short.
const TURN: u64 = 25 * NANOS_PER_MILLI;
/// However low the rate is and however many share it: less would only cost time.
const LEAST_TURN: u64 = 256;

/// A bucket for octets, shared by all sessions that have a limit together, on all workers. It is one number: until when
/// what went through has paid. Who has had a turn pays afterwards, and comes again when that is paid; so all that want
/// more than there is take turns, first come first served, and nobody is owed a turn that he does not use.
#[derive(Debug)]
pub(crate) struct Bucket {
    /// Octets per second.
    rate: u64,
    /// Nanoseconds of the workers' common clock.
    paid_until: AtomicU64,
    /// Those who wait for a turn.
    waiting: AtomicU64,
}

impl Bucket {
    pub(crate) fn new(rate: u64) -> Bucket {
        Bucket { rate: rate.max(1), paid_until: AtomicU64::new(0), waiting: AtomicU64::new(0) }
    }

    /// How many octets a turn has, for somebody whose turn it is and who is still among those who wait.
    pub(crate) fn turn(&self) -> usize {
        let share = TURN / self.waiting.load(Relaxed).max(1);
        let octets = u128::from(share) * u128::from(self.rate) / NANOS_PER_SECOND;
        let octets = u64::try_from(octets).unwrap_or(u64::MAX);
        usize::try_from(octets.max(LEAST_TURN)).unwrap_or(usize::MAX)
    }

    /// Somebody begins to wait for a turn.
    pub(crate) fn wait_begins(&self) {
        self.waiting.fetch_add(1, Relaxed);
    }

    /// Somebody waits no more.
    pub(crate) fn wait_ends(&self) {
        self.waiting.fetch_sub(1, Relaxed);
    }

    /// When somebody who comes now has his turn: at once, unless more is owed than is tolerated.
    pub(crate) fn turn_at(&self, now: Time) -> Time {
        match self.owed(now).checked_sub(TOLERANCE) {
            None | Some(0) => now,
            Some(wait) => Time(now.0 + wait.div_ceil(NANOS_PER_MILLI)),
        }
    }

    /// So many octets went through.
    pub(crate) fn charge(&self, now: Time, octets: usize) {
        let cost = octets as u128 * NANOS_PER_SECOND / u128::from(self.rate);
        let cost = u64::try_from(cost).unwrap_or(u64::MAX);
        let at = nanos(now);
        let pay = |until: u64| Some(until.max(at).saturating_add(cost));
        // It cannot fail: every value has a next one.
        let _ = self.paid_until.fetch_update(Relaxed, Relaxed, pay);
    }

    /// Whether nothing is owed.
    pub(crate) fn is_settled(&self, now: Time) -> bool {
        self.owed(now) == 0
    }

    fn owed(&self, now: Time) -> u64 {
        self.paid_until.load(Relaxed).saturating_sub(nanos(now))
    }
}

fn nanos(time: Time) -> u64 {
    time.0.saturating_mul(NANOS_PER_MILLI)
}

/// Bits of [`Recent`] that count octets: a TiB per second. The others number the second.
const OCTET_BITS: u32 = 40;
const OCTETS: u64 = (1 << OCTET_BITS) - 1;

/// Octets of the present second and of the one before it, counted by all workers.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    /// The number of the second, and octets in it.
    present: AtomicU64,
    /// The same of the last one that had some.
    last: AtomicU64,
}

impl Recent {
    /// Counts; gives how many there were in the present second.
    pub(crate) fn count(&self, now: Time, octets: usize) -> u64 {
        let second = number(now);
        let add = |before: u64| {
            let so_far = if before >> OCTET_BITS == second { before & OCTETS } else { 0 };
            Some(second << OCTET_BITS | (so_far.saturating_add(octets as u64)).min(OCTETS))
        };
        let before = self.present.fetch_update(Relaxed, Relaxed, add).unwrap_or_default();
        if before >> OCTET_BITS != second {
            self.last.store(before, Relaxed);
        }
        add(before).unwrap_or_default() & OCTETS
    }

    /// Octets of the last whole second.
    pub(crate) fn last_second(&self, now: Time) -> u64 {
        let before = number(now).wrapping_sub(1) & (u64::MAX >> OCTET_BITS);
        let all = [self.present.load(Relaxed), self.last.load(Relaxed)];
        all.into_iter().find(|c| c >> OCTET_BITS == before).map_or(0, |c| c & OCTETS)
    }
}

/// The number of a second, as far as there are bits for it.
fn number(now: Time) -> u64 {
    (now.0 / SECOND) & (u64::MAX >> OCTET_BITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_second_has_more_than_the_limit() {
        let mut window = Window::default();
        let came: Vec<u64> = (0..5_000).filter(|ms| window.take(Time(*ms), 10).is_some()).collect();
        assert_eq!(came.len(), 50);
        for (n, at) in came.iter().enumerate() {
            let within = came[n..].iter().filter(|later| **later < at + SECOND).count();
            assert!(within <= 10, "{within} within a second from {at}");
        }
        assert_eq!(window.free_at(Time(4_500), 10), Time(5_000));
        assert_eq!(window.free_at(Time(5_000), 10), Time(5_000), "the first of them came a second ago");
    }

    #[test]
    fn what_is_given_back_may_come_again() {
        let mut window = Window::default();
        assert_eq!(window.take(Time(1), 1), Some(1));
        assert_eq!(window.take(Time(2), 1), None);
        window.give_back();
        assert_eq!(window.take(Time(2), 1), Some(1));
        assert_eq!(window.take(Time(1), 9), Some(2), "another worker's clock is a little behind");
        assert_eq!(window.count(Time(1_001)), 2);
        assert_eq!(window.count(Time(1_002)), 0);
    }

    /// Octets that users who all want more get out of a bucket in a time, each with its number of turns; looks every
    /// `step` milliseconds. Nobody waits before or afterwards.
    fn drain(bucket: &Bucket, users: usize, from: u64, to: u64, step: u64) -> Vec<u64> {
        let mut got = vec![0; users];
        let mut due: Vec<Option<Time>> = vec![None; users];
        bucket.waiting.store(0, Relaxed);
        for ms in (from..to).step_by(usize::try_from(step).expect("small")) {
            let now = Time(ms);
            for (got, due) in got.iter_mut().zip(&mut due) {
                while due.is_none_or(|at| at <= now) {
                    let waited = due.is_some();
                    let octets = bucket.turn();
                    if waited {
                        *due = None;
                        bucket.wait_ends();
                    }
                    if waited || bucket.turn_at(now) <= now {
                        bucket.charge(now, octets);
                        *got += octets as u64;
                    }
                    let at = bucket.turn_at(now);
                    if at > now {
                        *due = Some(at);
                        bucket.wait_begins();
                    }
                }
            }
        }
        got
    }

    #[test]
    fn the_first_second_is_like_any_other() {
        for rate in [10_000, 1_000_000, 20_000_000, 1_000_000_000] {
            // A hundred at 10 kB/s: a least turn for each takes more than two seconds.
            for users in [1, 10, if rate > 10_000 { 100 } else { 10 }] {
                let bucket = Bucket::new(rate);
                for second in 0..3 {
                    let got: u64 = drain(&bucket, users, second * 1000, second * 1000 + 1000, 1).iter().sum();
                    let slack = LEAST_TURN * users as u64;
                    assert!(
                        (rate * 9 / 10..=rate * 11 / 10 + slack).contains(&got),
                        "{got} octets in second {second} at {rate}, {users} users"
                    );
                }
            }
        }
    }

    #[test]
    fn those_who_want_more_get_the_same() {
        let bucket = Bucket::new(1_000_000);
        let got = drain(&bucket, 7, 0, 10_000, 1);
        let (least, most) = (got.iter().min().expect("some"), got.iter().max().expect("some"));
        assert!(most - least < 1_000_000 * 10 / 7 / 10, "{got:?}");
    }

    #[test]
    fn a_worker_that_is_late_loses_nothing() {
        let bucket = Bucket::new(1_000_000);
        let got: u64 = drain(&bucket, 1, 0, 10_000, 40).iter().sum();
        assert!((9_500_000..=10_500_000).contains(&got), "{got}");
    }

    #[test]
    fn octets_are_counted_by_seconds() {
        let recent = Recent::default();
        assert_eq!(recent.count(Time(100), 5), 5);
        assert_eq!(recent.count(Time(999), 5), 10);
        assert_eq!(recent.last_second(Time(999)), 0);
        assert_eq!(recent.count(Time(1000), 1), 1);
        assert_eq!(recent.last_second(Time(1500)), 10);
        assert_eq!(recent.last_second(Time(2500)), 1, "nothing came since");
        assert_eq!(recent.last_second(Time(3500)), 0);
    }
}
