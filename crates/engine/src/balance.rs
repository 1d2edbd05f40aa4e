//! Which member of a farm comes next. This is what all workers know together: atomics only, so that nobody waits, and no
//! clock inside. It is asked when sessions come in and when connections are made, never for a message.
//!
//! ```text
//! rank        members that work before those that do not, then the partitions in their order
//! selection   among those of the best rank: round robin, the better of two, the least loaded; weights count
//! ```
//! Every member of a farm comes once, whatever its state is: those that do not work are tried last, not never.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use crate::config::{BackendId, Config, FarmId, Partition, Select};
use crate::random::Random;
use crate::time::Time;

/// How long a member is out after a failure, at first. It doubles with each failure that follows.
const OUT_FIRST: Duration = Duration::from_secs(2);
/// How often it doubles: to about a minute.
const OUT_DOUBLES: u32 = 5;

/// What is known of backends, and whose turn it is, for all workers.
#[derive(Debug)]
pub struct Balance {
    farms: Vec<FarmState>,
    backends: Vec<BackendState>,
}

#[derive(Debug)]
struct FarmState {
    select: Select,
    members: Vec<Member>,
    /// Turns that were taken, by what they were for.
    turns: [AtomicU64; 4],
}

#[derive(Debug)]
struct Member {
    backend: BackendId,
    weight: u64,
    /// How many partition policies put it behind others.
    partition: usize,
    /// Its health checks fail.
    down: AtomicBool,
}

#[derive(Debug, Default)]
struct BackendState {
    /// Client connections that it serves.
    sessions: AtomicUsize,
    /// Failures in a row.
    failures: AtomicU32,
    /// It is tried last until then, in milliseconds of the workers' clock.
    out_until: AtomicU64,
}

/// What a turn is for. Each has turns of its own, so that none of them upsets the even spread of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum For {
    /// A session that comes in.
    Session,
    /// A connection that belongs to no session.
    Probe,
    /// A connection that could not be made with those before.
    Try,
    /// A session that has to go elsewhere.
    Move,
}

impl Balance {
    /// For this configuration: nothing is known of anybody, and it is the first one's turn.
    pub fn new(config: &Config) -> Balance {
        let partition = |backend: BackendId, policies: &[Partition]| {
            let is_behind = |policy: &&Partition| match policy {
                Partition::DatacenterAffinity => config.backends[backend].datacenter != config.datacenter,
            };
            policies.iter().filter(is_behind).count()
        };
        let farms = config.farms.iter().map(|farm| FarmState {
            select: farm.select,
            members: farm
                .backends
                .iter()
                .map(|&backend| Member {
                    backend,
                    weight: u64::from(config.backends[backend].weight.max(1)),
                    partition: partition(backend, &farm.partition),
                    down: AtomicBool::new(false),
                })
                .collect(),
            turns: [const { AtomicU64::new(0) }; 4],
        });
        let backends = config.backends.iter().map(|_| BackendState::default());
        Balance { farms: farms.collect(), backends: backends.collect() }
    }

    /// A health check of a farm has found out that one of its members works, or does not.
    pub fn set_down(&self, farm: FarmId, backend: BackendId, down: bool) {
        let members = self.farms.get(farm).map_or(&[][..], |f| &f.members);
        for member in members.iter().filter(|m| m.backend == backend) {
            member.down.store(down, Ordering::Relaxed);
        }
        if !down {
            self.worked(backend);
        }
    }

    /// Whether a backend is one that is tried before others: no check of a farm fails, nor has a connection failed
    /// lately.
    pub fn is_up(&self, backend: BackendId, now: Time) -> bool {
        let is_down = |m: &Member| m.backend == backend && m.down.load(Ordering::Relaxed);
        !self.is_ejected(backend, now) && !self.farms.iter().any(|f| f.members.iter().any(is_down))
    }

    /// Client connections that a backend serves.
    pub fn sessions(&self, backend: BackendId) -> usize {
        self.backends.get(backend).map_or(0, |b| b.sessions.load(Ordering::Relaxed))
    }

    /// A backend serves one client connection more.
    pub(crate) fn enter(&self, backend: BackendId) {
        self.backends[backend].sessions.fetch_add(1, Ordering::Relaxed);
    }

    /// A backend serves one client connection less.
    pub(crate) fn leave(&self, backend: BackendId) {
        self.backends[backend].sessions.fetch_sub(1, Ordering::Relaxed);
    }

    /// A connection to this backend could not be made: for some seconds it comes last. Those that failed together count
    /// once. `jitter`: any number.
    pub(crate) fn failed(&self, backend: BackendId, now: Time, jitter: u64) {
        let state = &self.backends[backend];
        let until = state.out_until.load(Ordering::Relaxed);
        if now.0 < until {
            return;
        }
        let doubles = state.failures.load(Ordering::Relaxed).min(OUT_DOUBLES);
        let pause = u64::try_from(OUT_FIRST.as_millis()).unwrap_or(u64::MAX) << doubles;
        let out_until = now.0 + pause / 2 + jitter % pause;
        let swap = state.out_until.compare_exchange(until, out_until, Ordering::Relaxed, Ordering::Relaxed);
        if swap.is_ok() {
            state.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// A backend has let somebody in, or has said why not: what was before counts no more.
    pub(crate) fn worked(&self, backend: BackendId) {
        if let Some(state) = self.backends.get(backend)
            && state.failures.load(Ordering::Relaxed) > 0
        {
            state.failures.store(0, Ordering::Relaxed);
            state.out_until.store(0, Ordering::Relaxed);
        }
    }

    fn is_ejected(&self, backend: BackendId, now: Time) -> bool {
        self.backends.get(backend).is_some_and(|b| now.0 < b.out_until.load(Ordering::Relaxed))
    }

    /// Whether a member of this farm is tried last.
    pub(crate) fn is_out(&self, farm: FarmId, backend: BackendId, now: Time) -> bool {
        let member = self.farms[farm].members.iter().find(|m| m.backend == backend);
        member.is_some_and(|m| self.rank(m, now).0)
    }

    /// Members come by their rank, lowest first.
    fn rank(&self, member: &Member, now: Time) -> (bool, usize) {
        let out = member.down.load(Ordering::Relaxed) || self.is_ejected(member.backend, now);
        (out, member.partition)
    }

    /// Whether no member of the farm ranks before this one.
    pub(crate) fn is_best(&self, farm: FarmId, backend: BackendId, now: Time) -> bool {
        let best = self.best(farm, now, &[]);
        best.iter().any(|m| m.backend == backend)
    }

    /// The members of the best rank, without some.
    fn best(&self, farm: FarmId, now: Time, but: &[BackendId]) -> Vec<&Member> {
        let rest = || self.farms[farm].members.iter().filter(|m| !but.contains(&m.backend));
        let Some(best) = rest().map(|m| self.rank(m, now)).min() else { return Vec::new() };
        rest().filter(|m| self.rank(m, now) == best).collect()
    }

    /// The member whose turn it is, without some (that were tried, or cannot be had). `None`: there is no other.
    pub(crate) fn next(
        &self,
        farm: FarmId,
        what: For,
        but: &[BackendId],
        now: Time,
        random: &mut Random,
    ) -> Option<BackendId> {
        let members = self.best(farm, now, but);
        let [first, _, ..] = members.as_slice() else { return members.first().map(|m| m.backend) };
        let state = &self.farms[farm];
        let turn = || state.turns[what as usize].fetch_add(1, Ordering::Relaxed);
        let found = match state.select {
            Select::RoundRobin => in_turn(&members, turn()),
            Select::Random => self.better_of_two(&members, random),
            Select::LeastConnections => self.least_loaded(&members, turn()),
        };
        Some(found.unwrap_or(first).backend)
    }

    /// The better of two members drawn by their weights.
    fn better_of_two<'a>(&self, members: &[&'a Member], random: &mut Random) -> Option<&'a Member> {
        let draw = |members: &[&'a Member], random: &mut Random| {
            at(members, random.below(members.iter().map(|m| m.weight).sum()))
        };
        let one = draw(members, random)?;
        let others: Vec<&Member> = members.iter().filter(|m| m.backend != one.backend).copied().collect();
        let two = draw(&others, random)?;
        Some(if self.is_less(two, one) { two } else { one })
    }

    /// The least loaded member; those that are equal come in turn.
    fn least_loaded<'a>(&self, members: &[&'a Member], turn: u64) -> Option<&'a Member> {
        let begin = usize::try_from(turn % members.len() as u64).unwrap_or(0);
        let (before, from) = members.split_at(begin);
        from.iter().chain(before).copied().reduce(|best, m| if self.is_less(m, best) { m } else { best })
    }

    /// Whether a member would have fewer sessions for its weight, with one more, than another.
    fn is_less(&self, a: &Member, b: &Member) -> bool {
        let load = |m: &Member| self.sessions(m.backend) as u128 + 1;
        load(a) * u128::from(b.weight) < load(b) * u128::from(a.weight)
    }
}

/// Round robin with weights: in as many turns as all weights together come to, each member has as many as its weight,
/// well mixed: turns walk over all of them in steps near the golden section.
fn in_turn<'a>(members: &[&'a Member], turn: u64) -> Option<&'a Member> {
    let all: u64 = members.iter().map(|m| m.weight).sum();
    let divisor = members.iter().map(|m| m.weight).fold(0, greatest_common_divisor);
    let (all, divisor) = (all.checked_div(divisor)?, divisor);
    let place = u128::from(turn % all) * u128::from(step(all)) % u128::from(all);
    at(members, u64::try_from(place).ok()? * divisor)
}

/// The member at this place, where each has as many places as its weight.
fn at<'a>(members: &[&'a Member], mut place: u64) -> Option<&'a Member> {
    for member in members {
        match place.checked_sub(member.weight) {
            Some(rest) => place = rest,
            None => return Some(member),
        }
    }
    None
}

/// A step that visits each of `all` places once before it comes to one again, and leaves no part of them out for long.
fn step(all: u64) -> u64 {
    let golden = u64::try_from(u128::from(all) * 618 / 1000).unwrap_or(all);
    let is_free = |step: &u64| greatest_common_divisor(*step, all) == 1;
    (golden.max(1)..=all).find(is_free).unwrap_or(1)
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
