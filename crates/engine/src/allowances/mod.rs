//! What sessions may have together: limits and alarms of routes, and of virtual hosts, users and addresses by rules.
//!
//! One [`Allowances`] is shared by all workers. A session has a [`Pass`]: the meters of its route and of the rules that
//! concern it. Maps are looked into when a session opens, numbers change when a session or a channel begins or ends; per
//! read and write there is something to do only where data is limited or watched.

mod meter;
mod pass;
mod rate;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::config::{Config, Per, RouteId, Rule};
use crate::time::Time;

pub use meter::LIMITS;
pub(crate) use meter::{Notice, Way};
pub(crate) use pass::Pass;
pub use rate::Window;

use meter::{Counts, Meter};

/// How often keys that nobody uses any more are looked for.
const SWEEP: Duration = Duration::from_secs(2);

/// Whose limits have been reached, for [`Report`].
pub const PER: [&str; 3] = ["vhost", "user", "address"];

/// What is counted for all sessions, on all workers.
#[derive(Debug)]
pub struct Allowances {
    /// By the number of the route.
    routes: Vec<(String, Arc<Meter>)>,
    rules: Vec<Keyed>,
}

/// A rule, and a meter for each that it has concerned lately.
#[derive(Debug)]
struct Keyed {
    rule: Rule,
    counts: Arc<Counts>,
    meters: Mutex<Meters>,
}

#[derive(Debug, Default)]
struct Meters {
    by_key: BTreeMap<Box<str>, Arc<Meter>>,
    swept_at: Time,
}

/// Who a session is, for the rules.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Who<'a> {
    /// As the client said it.
    pub(crate) vhost: &'a str,
    /// As the client said it.
    pub(crate) user: &'a str,
    pub(crate) address: IpAddr,
}

impl Allowances {
    /// Nothing is used yet.
    pub fn new(config: &Config) -> Arc<Allowances> {
        let routes = config.routes.iter().map(|route| {
            let whose = format!("route '{}'", route.name);
            let meter = Meter::new(&whose, &route.limits, &route.alarms, &Arc::default());
            (route.name.clone(), Arc::new(meter))
        });
        let keyed =
            |rule: &Rule| Keyed { rule: rule.clone(), counts: Arc::default(), meters: Mutex::default() };
        Arc::new(Allowances { routes: routes.collect(), rules: config.rules.iter().map(keyed).collect() })
    }

    /// Which limits concern a session. It is not counted yet.
    pub(crate) fn pass(&self, route: RouteId, who: Who<'_>, now: Time) -> Pass {
        let route = self.routes.get(route).map(|(_, meter)| Arc::clone(meter));
        let rules = self.rules.iter().filter(|keyed| concerns(&keyed.rule, who));
        Pass::new(route.into_iter().chain(rules.map(|keyed| keyed.meter(who, now))).collect())
    }

    /// How often each limit was reached, and what routes use.
    pub fn report(&self, now: Time) -> Report {
        let of_route = |(name, meter): &(String, Arc<Meter>)| {
            let allowance = &meter.limits;
            let most =
                [allowance.connections, allowance.channels, allowance.connection_rate, allowance.data_rate];
            RouteReport { name: name.clone(), used: meter.used(now), most, reached: reached(meter.counts()) }
        };
        let mut rules = [ReachedLimits::default(); PER.len()];
        for keyed in &self.rules {
            let sum = &mut rules[keyed.rule.per as usize];
            for (mine, theirs) in sum.iter_mut().zip(reached(&keyed.counts)) {
                mine.limited += theirs.limited;
                mine.alarms += theirs.alarms;
            }
        }
        Report { routes: self.routes.iter().map(of_route).collect(), rules }
    }
}

impl Keyed {
    fn meter(&self, who: Who<'_>, now: Time) -> Arc<Meter> {
        let mut meters = self.meters.lock().unwrap_or_else(PoisonError::into_inner);
        meters.sweep(now);
        let address;
        let (kind, key) = match self.rule.per {
            Per::Vhost => ("vhost", who.vhost),
            Per::User => ("user", who.user),
            Per::Address => {
                address = who.address.to_canonical().to_string();
                ("address", address.as_str())
            }
        };
        if let Some(meter) = meters.by_key.get(key) {
            return Arc::clone(meter);
        }
        let whose = format!("{kind} '{key}'");
        let meter = Arc::new(Meter::new(&whose, &self.rule.limits, &self.rule.alarms, &self.counts));
        meters.by_key.insert(key.into(), Arc::clone(&meter));
        meter
    }
}

impl Meters {
    /// Now and then, forgets those that nobody uses and that remember nothing.
    fn sweep(&mut self, now: Time) {
        if now.since(self.swept_at) >= SWEEP {
            self.swept_at = now;
            self.by_key.retain(|_, meter| Arc::strong_count(meter) > 1 || !meter.is_forgotten(now));
        }
    }
}

fn concerns(rule: &Rule, who: Who<'_>) -> bool {
    let address = who.address.to_canonical();
    rule.vhost.matches(who.vhost)
        && rule.user.matches(who.user)
        && (rule.addresses.is_empty() || rule.addresses.iter().any(|net| net.contains(&address)))
}

/// How often a limit was reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reached {
    /// Something was refused, or delayed.
    pub limited: u64,
    /// An alarm.
    pub alarms: u64,
}

/// As [`LIMITS`] has them.
pub type ReachedLimits = [Reached; LIMITS.len()];

fn reached(counts: &Counts) -> ReachedLimits {
    std::array::from_fn(|n| Reached { limited: counts.limited(n), alarms: counts.alarms(n) })
}

/// What the metrics say of limits.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Each route.
    pub routes: Vec<RouteReport>,
    /// Rules, summed by [`PER`].
    pub rules: [ReachedLimits; PER.len()],
}

/// What the metrics say of a route's limits.
#[derive(Clone, Debug)]
pub struct RouteReport {
    /// Its name.
    pub name: String,
    /// What its sessions use, as [`LIMITS`] has it, without the message size.
    pub used: [u64; 4],
    /// What they may use at most.
    pub most: [Option<u64>; 4],
    /// How often limits were reached.
    pub reached: ReachedLimits,
}
