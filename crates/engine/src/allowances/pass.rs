//! What a session has of what others count with it. Whatever becomes of the session, it is given back once.

use std::sync::Arc;

use super::meter::{Limit, Meter, Notice, Way};
use super::rate::Bucket;
use crate::time::Time;

/// The meters of a session: its route's and those of the rules that concern it.
#[derive(Debug)]
pub(crate) struct Pass {
    meters: Box<[Arc<Meter>]>,
    /// Its connection counts.
    inside: bool,
    /// So many of its channels count.
    channels: u64,
    /// When it has its next turn to read or write, if it has to wait for one; in the past: it may take it.
    pub(crate) turns: [Option<Time>; 2],
    /// Octets that were read and are not dealt with.
    pub(crate) unread: usize,
}

impl Pass {
    pub(crate) fn new(meters: Vec<Arc<Meter>>) -> Pass {
        Pass { meters: meters.into(), inside: false, channels: 0, turns: [None; 2], unread: 0 }
    }

    /// Whether its data has to be looked at.
    pub(crate) fn measures_data(&self) -> bool {
        self.meters.iter().any(|m| m.measures_data())
    }

    /// Whether its data may have to wait.
    pub(crate) fn shapes_data(&self) -> bool {
        self.meters.iter().any(|m| m.limits.data_rate.is_some())
    }

    /// The session begins: everywhere, or nowhere. `Ok`: perhaps with alarms.
    pub(crate) fn enter(&mut self, now: Time) -> Result<Vec<Notice>, Notice> {
        if self.inside {
            return Ok(Vec::new());
        }
        let mut alarms = Vec::new();
        for (n, meter) in self.meters.iter().enumerate() {
            let taken = meter.take(Limit::Connections, now).and_then(|alarm| {
                alarms.extend(alarm);
                meter.arrive(now).inspect_err(|_| meter.give_back(Limit::Connections, 1))
            });
            match taken {
                Ok(alarm) => alarms.extend(alarm),
                Err(refused) => {
                    for before in &self.meters[..n] {
                        before.give_back(Limit::Connections, 1);
                        before.unarrive();
                    }
                    return Err(refused);
                }
            }
        }
        self.inside = true;
        Ok(alarms)
    }

    /// One more channel: everywhere, or nowhere.
    pub(crate) fn open_channel(&mut self, now: Time) -> Result<Vec<Notice>, Notice> {
        let mut alarms = Vec::new();
        for (n, meter) in self.meters.iter().enumerate() {
            match meter.take(Limit::Channels, now) {
                Ok(alarm) => alarms.extend(alarm),
                Err(refused) => {
                    self.meters[..n].iter().for_each(|before| before.give_back(Limit::Channels, 1));
                    return Err(refused);
                }
            }
        }
        self.channels += 1;
        Ok(alarms)
    }

    /// One channel less.
    pub(crate) fn close_channel(&mut self) {
        self.channels -= 1;
        self.meters.iter().for_each(|meter| meter.give_back(Limit::Channels, 1));
    }

    /// How many of its channels count.
    pub(crate) fn channels(&self) -> u64 {
        self.channels
    }

    /// Whether channels are limited or watched.
    pub(crate) fn counts_channels(&self) -> bool {
        self.meters.iter().any(|m| m.limits.channels.is_some() || m.alarms.channels.is_some())
    }

    /// Messages up to this size are refused by nobody and raise no alarm.
    pub(crate) fn usual_message(&self) -> u64 {
        let sizes = self.meters.iter().flat_map(|m| [m.limits.message_size, m.alarms.message_size]);
        sizes.flatten().min().unwrap_or(u64::MAX)
    }

    /// A message of this size is to be published.
    pub(crate) fn weigh_message(&self, size: u64, now: Time) -> Result<Vec<Notice>, (u64, Notice)> {
        let mut alarms = Vec::new();
        for meter in &self.meters {
            if let Some(most) = meter.limits.message_size.filter(|most| size > *most) {
                return Err((most, meter.too_large(true, now)));
            }
            if meter.alarms.message_size.is_some_and(|alarm| size > alarm) {
                alarms.push(meter.too_large(false, now));
            }
        }
        Ok(alarms)
    }

    /// How many octets may go one way now. 0: it has to wait until [`Pass::turns`] says.
    pub(crate) fn turn(&mut self, way: Way, now: Time) -> usize {
        let waited = self.turns[way as usize];
        if waited.is_some_and(|at| at > now) {
            return 0;
        }
        if waited.is_none() && self.wait(way, now) {
            return 0;
        }
        let octets = self.buckets(way).map(Bucket::turn).min().unwrap_or(usize::MAX);
        self.forgo(way);
        octets
    }

    /// Does not wait for a turn any more.
    pub(crate) fn forgo(&mut self, way: Way) {
        if self.turns[way as usize].take().is_some() {
            self.buckets(way).for_each(Bucket::wait_ends);
        }
    }

    fn buckets(&self, way: Way) -> impl Iterator<Item = &Bucket> {
        self.meters.iter().filter_map(move |m| m.bucket(way))
    }

    /// Octets went one way. Whether it has to wait for its next turn is in [`Pass::turns`].
    pub(crate) fn count_octets(&mut self, way: Way, octets: usize, now: Time) -> Vec<Notice> {
        let meters = self.meters.iter().filter(|m| m.measures_data());
        let alarms = meters.filter_map(|m| m.count_octets(way, octets, now)).collect();
        self.wait(way, now);
        alarms
    }

    /// Waits for its turn, if it has to.
    fn wait(&mut self, way: Way, now: Time) -> bool {
        let due = |m| Some((Meter::bucket(m, way)?.turn_at(now), m));
        let latest = self.meters.iter().map(Arc::as_ref).filter_map(due).max_by_key(|(at, _)| *at);
        let Some((at, meter)) = latest.filter(|(at, _)| *at > now) else { return false };
        meter.delayed(now);
        if self.turns[way as usize].replace(at).is_none() {
            self.buckets(way).for_each(Bucket::wait_begins);
        }
        true
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        self.forgo(Way::In);
        self.forgo(Way::Out);
        for meter in &self.meters {
            meter.give_back(Limit::Channels, self.channels);
            if self.inside {
                meter.give_back(Limit::Connections, 1);
            }
        }
    }
}
