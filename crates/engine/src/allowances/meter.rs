//! What one route, virtual host, user or address uses of what it may have.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::rate::{Bucket, Recent, Window};
use crate::config::Allowance;
use crate::time::Time;

/// What can be limited. The labels of `warren_limited_total` and `warren_alarms_total`.
pub const LIMITS: [&str; 5] = ["connections", "channels", "connection_rate", "data_rate", "message_size"];

/// What is limited: index into [`LIMITS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Connections,
    Channels,
    ConnectionRate,
    DataRate,
    MessageSize,
}

/// Which way data goes: index into a meter's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Way {
    /// From clients.
    In,
    /// To clients.
    Out,
}

/// From one line in the log about a limit to the next, in milliseconds.
const SILENCE: u64 = 1_000;

/// How often a limit was reached, of all that have the limits of one route or rule.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    limited: [AtomicU64; LIMITS.len()],
    alarms: [AtomicU64; LIMITS.len()],
    /// The earliest moment for the next line in the log.
    limits_told: [AtomicU64; LIMITS.len()],
    alarms_told: [AtomicU64; LIMITS.len()],
}

impl Notice {
    /// Whether it is about how often connections come.
    pub(crate) fn is_rate(&self) -> bool {
        self.limit == Limit::ConnectionRate
    }
}

impl Counts {
    pub(crate) fn limited(&self, limit: usize) -> u64 {
        self.limited[limit].load(Relaxed)
    }

    pub(crate) fn alarms(&self, limit: usize) -> u64 {
        self.alarms[limit].load(Relaxed)
    }

    /// Counts; says whether it is time for a line in the log.
    fn note(&self, limit: Limit, refused: bool, now: Time) -> bool {
        let (counts, told) = match refused {
            true => (&self.limited, &self.limits_told),
            false => (&self.alarms, &self.alarms_told),
        };
        counts[limit as usize].fetch_add(1, Relaxed);
        let silent = |until: u64| (now.0 >= until).then_some(now.0 + SILENCE);
        told[limit as usize].fetch_update(Relaxed, Relaxed, silent).is_ok()
    }
}

/// A limit that was reached.
#[derive(Clone, Debug)]
pub(crate) struct Notice {
    pub(crate) limit: Limit,
    /// Whether something was refused, or it is an alarm only.
    pub(crate) refused: bool,
    /// Such as `limit of 500 connections for route 'orders'`.
    pub(crate) what: String,
    /// Whether it is time for a line in the log.
    pub(crate) tell: bool,
}

/// What one route, virtual host, user or address may have, and what it has. Shared by all workers.
#[derive(Debug)]
pub(crate) struct Meter {
    /// Such as `route 'orders'`.
    whose: Box<str>,
    pub(crate) limits: Allowance,
    pub(crate) alarms: Allowance,
    counts: Arc<Counts>,
    connections: AtomicU64,
    channels: AtomicU64,
    /// Locked only when a session begins.
    arrivals: Mutex<Window>,
    buckets: Option<[Bucket; 2]>,
    octets: [Recent; 2],
}

impl Meter {
    pub(crate) fn new(whose: &str, limits: &Allowance, alarms: &Allowance, counts: &Arc<Counts>) -> Meter {
        Meter {
            whose: whose.into(),
            limits: limits.clone(),
            alarms: alarms.clone(),
            counts: Arc::clone(counts),
            connections: AtomicU64::new(0),
            channels: AtomicU64::new(0),
            arrivals: Mutex::default(),
            buckets: limits.data_rate.map(|rate| [Bucket::new(rate), Bucket::new(rate)]),
            octets: <[Recent; 2]>::default(),
        }
    }

    pub(crate) fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Whether data has to be looked at.
    pub(crate) fn measures_data(&self) -> bool {
        self.limits.data_rate.is_some() || self.alarms.data_rate.is_some()
    }

    /// One more connection or channel. `Ok`: perhaps with an alarm.
    pub(crate) fn take(&self, limit: Limit, now: Time) -> Result<Option<Notice>, Notice> {
        let (counter, most, alarm) = match limit {
            Limit::Connections => (&self.connections, self.limits.connections, self.alarms.connections),
            _ => (&self.channels, self.limits.channels, self.alarms.channels),
        };
        let more = |n: u64| most.is_none_or(|most| n < most).then_some(n + 1);
        match counter.fetch_update(Relaxed, Relaxed, more) {
            Ok(before) if alarm.is_some_and(|alarm| before >= alarm) => {
                Ok(Some(self.notice(limit, false, now)))
            }
            Ok(_) => Ok(None),
            Err(_) => Err(self.notice(limit, true, now)),
        }
    }

    /// So many connections or channels less.
    pub(crate) fn give_back(&self, limit: Limit, count: u64) {
        let counter = if limit == Limit::Connections { &self.connections } else { &self.channels };
        counter.fetch_sub(count, Relaxed);
    }

    /// A session begins.
    pub(crate) fn arrive(&self, now: Time) -> Result<Option<Notice>, Notice> {
        let (most, alarm) = (self.limits.connection_rate, self.alarms.connection_rate);
        if most.is_none() && alarm.is_none() {
            return Ok(None);
        }
        let mut arrivals = self.arrivals();
        let Some(came) = arrivals.take(now, most.unwrap_or(u64::MAX)) else {
            return Err(self.notice(Limit::ConnectionRate, true, now));
        };
        arrivals.keep(most.unwrap_or(0).max(alarm.map_or(0, |alarm| alarm + 1)));
        let beyond = alarm.is_some_and(|alarm| came > alarm);
        Ok(beyond.then(|| self.notice(Limit::ConnectionRate, false, now)))
    }

    /// The session that arrived last does not begin after all.
    pub(crate) fn unarrive(&self) {
        if self.limits.connection_rate.is_some() || self.alarms.connection_rate.is_some() {
            self.arrivals().give_back();
        }
    }

    pub(crate) fn bucket(&self, way: Way) -> Option<&Bucket> {
        self.buckets.as_ref().map(|both| &both[way as usize])
    }

    /// Octets went one way.
    pub(crate) fn count_octets(&self, way: Way, octets: usize, now: Time) -> Option<Notice> {
        if let Some(bucket) = self.bucket(way) {
            bucket.charge(now, octets);
        }
        let second = self.octets[way as usize].count(now, octets);
        let alarm = self.alarms.data_rate?;
        let before = second.saturating_sub(octets as u64);
        // Counted once in a second.
        (second > alarm && before <= alarm).then(|| self.notice(Limit::DataRate, false, now))
    }

    /// Somebody has to wait for his turn.
    pub(crate) fn delayed(&self, now: Time) {
        self.counts.note(Limit::DataRate, true, now);
    }

    /// A message is larger than a limit or an alarm.
    pub(crate) fn too_large(&self, refused: bool, now: Time) -> Notice {
        self.notice(Limit::MessageSize, refused, now)
    }

    /// Whether it is the same as a new one, unless somebody uses it.
    pub(crate) fn is_forgotten(&self, now: Time) -> bool {
        let settled = |b: &[Bucket; 2]| b.iter().all(|bucket| bucket.is_settled(now));
        self.arrivals().count(now) == 0 && self.buckets.as_ref().is_none_or(settled)
    }

    /// What is used now, as [`LIMITS`] has it: connections, channels, connections within the last second, and octets of
    /// the last whole second, in the fuller direction.
    pub(crate) fn used(&self, now: Time) -> [u64; 4] {
        let octets = self.octets.iter().map(|o| o.last_second(now)).max().unwrap_or(0);
        [self.connections.load(Relaxed), self.channels.load(Relaxed), self.arrivals().count(now), octets]
    }

    fn arrivals(&self) -> MutexGuard<'_, Window> {
        self.arrivals.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts that a limit was reached, and puts it in words.
    fn notice(&self, limit: Limit, refused: bool, now: Time) -> Notice {
        let (kind, allowance) = if refused { ("limit", &self.limits) } else { ("alarm", &self.alarms) };
        let what = match limit {
            Limit::Connections => number(allowance.connections, "connection"),
            Limit::Channels => number(allowance.channels, "channel"),
            Limit::ConnectionRate => number(allowance.connection_rate, "connection") + " per second",
            Limit::DataRate => number(allowance.data_rate, "octet") + " per second",
            Limit::MessageSize => number(allowance.message_size, "octet") + " per message",
        };
        let what = format!("{kind} of {what} for {}", self.whose);
        Notice { limit, refused, what, tell: self.counts.note(limit, refused, now) }
    }
}

fn number(value: Option<u64>, what: &str) -> String {
    let value = value.unwrap_or(0);
    format!("{value} {what}{}", if value == 1 { "" } else { "s" })
}
