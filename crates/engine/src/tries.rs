//! Which member of a farm a connection goes to, and what follows when it cannot be made: the next member, each once; when
//! all were tried, a pause. What belongs to a node is tried there only; when that fails, its sessions go elsewhere
//! ([`crate::nodes`]).

use std::time::Duration;

use warren_wire::reply::MAX_TEXT;

use crate::balance::For;
use crate::config::{BackendId, FarmId};
use crate::engine::Engine;
use crate::ids::{LoginId, TenantId, UpstreamId};
use crate::timers::TimerKey;
use crate::upstream::{Purpose, Stage};

/// The first pause after a failed attempt; it doubles up to [`RETRY_MOST`], so that the first attempt after a
/// broker's return comes within a second or two.
const RETRY_FIRST: u64 = 100;
/// The longest pause between attempts, in milliseconds.
const RETRY_MOST: u64 = 1_000;
/// What the name of a reply code takes of a text, at most: `CONNECTION_FORCED - `.
const CODE_NAME: usize = 20;
/// The least that is told of a failure, so that it says something.
const LEAST_TOLD: usize = 24;

/// Where a connection may go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum To {
    /// Any member, one after the other, beginning with the first if that one is as good as others.
    Any {
        /// `None`: whose turn it is.
        first: Option<BackendId>,
    },
    /// This one.
    Only(BackendId),
}

/// Members that were tried, and what came of it.
#[derive(Debug, Default)]
pub(crate) struct Tries(Vec<(BackendId, String)>);

impl Engine {
    /// Whether no attempt may be made now: the last one has failed a moment ago.
    pub(crate) fn must_wait(&self, farm: FarmId, to: To) -> bool {
        match to {
            To::Any { .. } => self.farms[farm].retry_at.is_some_and(|at| self.now < at),
            To::Only(backend) => self.is_paused(farm, backend),
        }
    }

    /// Whether a member of a farm is not tried at the moment.
    pub(crate) fn is_paused(&self, farm: FarmId, backend: BackendId) -> bool {
        let state = &self.farms[farm];
        let member = state.members.get(&backend).and_then(|m| m.retry_at);
        state.retry_at.max(member).is_some_and(|at| self.now < at)
    }

    /// The member that is tried first.
    pub(crate) fn first_member(&mut self, farm: FarmId, first: Option<BackendId>) -> BackendId {
        let best = first.filter(|backend| self.balance.is_best(farm, *backend, self.now));
        let next = |e: &mut Engine| e.balance.next(farm, For::Probe, &[], e.now, &mut e.random);
        best.or_else(|| next(self)).unwrap_or(self.config.farms[farm].backends[0])
    }

    /// Whether a farm has members that could be used instead of others.
    pub(crate) fn has_choice(&self, farm: FarmId) -> bool {
        self.config.farms[farm].backends.len() > 1
    }

    /// Whether somebody else could be tried instead.
    pub(crate) fn has_others(&self, id: UpstreamId) -> bool {
        let upstream = &self.upstreams[id];
        let tried = upstream.tries.as_ref().map_or(0, |t| t.0.len());
        tried + 1 < self.config.farms[upstream.farm].backends.len()
    }

    /// A broker that took a connection must speak soon when there are others; the last one gets more time.
    pub(crate) fn hurry_greeting(&mut self, id: UpstreamId) {
        if self.has_others(id) {
            let deadline = self.now + self.config.limits.connect_timeout;
            self.upstreams[id].deadline = Some(deadline);
            self.arm_upstream(id, deadline);
        }
    }

    /// A member has said connection.start.
    pub(crate) fn member_greets(&mut self, id: UpstreamId) {
        let (farm, backend) = (self.upstreams[id].farm, self.upstreams[id].backend);
        if let Some(member) = self.farms[farm].members.get_mut(&backend) {
            (member.failures, member.retry_at) = (0, None);
        }
    }

    /// A connection could not be made, or was lost before it was ready. Gives the text for the log: where there are
    /// several members, it says which try that was, what came before it and what comes next.
    pub(crate) fn try_failed(&mut self, id: UpstreamId, text: &str) -> String {
        let upstream = &self.upstreams[id];
        let (farm, backend, stage) = (upstream.farm, upstream.backend, upstream.stage);
        // Later failures may be the fault of those who ask: they must not put a member behind others.
        if matches!(stage, Stage::Connecting | Stage::Greeting) {
            let jitter = if self.has_choice(farm) { self.random.next() } else { 0 };
            self.balance.failed(backend, self.now, jitter);
        }
        if !self.has_choice(farm) {
            self.attempt_failed(id, text);
            return text.to_owned();
        }
        let parked = matches!(stage, Stage::Greeted | Stage::Verified);
        let Some(mut tries) = self.upstreams[id].tries.take().filter(|_| !parked) else {
            self.attempt_failed(id, text);
            // Of a node: see the module.
            let then = if parked { "" } else { "; who waits for it goes to another member" };
            return format!("{text}{then}");
        };
        let before = self.tries_in_words(&tries);
        tries.0.push((backend, text.to_owned()));
        let (number, members) = (tries.0.len(), self.config.farms[farm].backends.len());
        let tried: Vec<BackendId> = tries.0.iter().map(|t| t.0).collect();
        let next = self.balance.next(farm, For::Try, &tried, self.now, &mut self.random);
        let mut told = format!("try {number} of {members}: {text}");
        if !before.is_empty() {
            told.push_str(&format!(" (after {before})"));
        }
        match next {
            Some(next) => {
                told.push_str(&format!("; {} is next", self.config.backends[next].name));
                self.try_next(id, next, tries);
            }
            None => {
                told.push_str("; all were tried");
                self.upstreams[id].tries = Some(tries);
                self.attempt_failed(id, text);
            }
        }
        told
    }

    fn tries_in_words(&self, tries: &Tries) -> String {
        let told = tries.0.iter().map(|(b, text)| format!("{}: {text}", self.config.backends[*b].name));
        told.collect::<Vec<_>>().join("; ")
    }

    /// Another member instead: whoever counted on the connection that failed counts on the new one.
    fn try_next(&mut self, id: UpstreamId, next: BackendId, tries: Box<Tries>) {
        let upstream = &mut self.upstreams[id];
        let (farm, backend, login, tenant) =
            (upstream.farm, upstream.backend, upstream.login, upstream.tenant);
        let (purpose, session) = (upstream.purpose, upstream.session);
        let inquires = std::mem::take(&mut upstream.inquires);
        if let Some((_, text)) = tries.0.last() {
            let error = text.clone();
            self.note_error(farm, backend, error);
        }
        self.metrics.upstream_connect_failures += 1;
        let new = self.begin_upstream((farm, next), login, tenant, Some(tries));
        let upstream = &mut self.upstreams[new];
        (upstream.inquires, upstream.purpose, upstream.session) = (inquires, purpose, session);
        if login.is_none() && purpose != Purpose::Dedicated {
            self.farms[farm].learning += 1;
        }
        let follows = |counted: &mut Option<UpstreamId>| {
            if *counted == Some(id) {
                *counted = Some(new);
            }
        };
        if let Some(login) = login.and_then(|l| self.logins.get_mut(l)) {
            follows(&mut login.verifying);
        }
        if let Some(tenant) = tenant.and_then(|t| self.tenants.get_mut(t)) {
            follows(&mut tenant.proving);
        }
        if let Some(session) = session.and_then(|s| self.sessions.get_mut(s)) {
            follows(&mut session.lane);
        }
    }

    fn note_error(&mut self, farm: FarmId, backend: BackendId, text: String) {
        self.farms[farm].members.entry(backend).or_default().last_error = Some((self.now, text));
    }

    /// An attempt has failed: nobody tries again before a pause, those who wait are asked again after it. Where there
    /// are other members, a pause for one of them concerns that one only.
    pub(crate) fn attempt_failed(&mut self, id: UpstreamId, text: &str) {
        let upstream = &self.upstreams[id];
        let (farm, backend) = (upstream.farm, upstream.backend);
        let one_of_many = upstream.tries.is_none() && self.has_choice(farm);
        self.note_error(farm, backend, text.to_owned());
        self.metrics.upstream_connect_failures += 1;
        let state = &mut self.farms[farm];
        let failures = match one_of_many {
            true => &mut state.members.entry(backend).or_default().failures,
            false => &mut state.failures,
        };
        *failures = failures.saturating_add(1);
        let pause = (RETRY_FIRST << (*failures).min(4)).min(RETRY_MOST);
        let jitter = self.random.below(pause / 2 + 1);
        let retry_at = self.now + Duration::from_millis(pause / 2 + jitter);
        let state = &mut self.farms[farm];
        if one_of_many {
            state.members.entry(backend).or_default().retry_at = Some(retry_at);
            self.deserted.push((farm, backend));
        } else {
            state.retry_at = Some(retry_at);
            self.release_curious(farm);
        }
        self.wheel.schedule(retry_at, TimerKey::Farm(farm));
    }

    /// Everybody who waits for a connection to this farm asks again.
    pub(crate) fn farm_timer(&mut self, farm: FarmId) {
        let (now, state) = (self.now, &mut self.farms[farm]);
        if state.retry_at.is_some_and(|at| now < at) {
            return;
        }
        state.retry_at = None;
        for member in state.members.values_mut() {
            member.retry_at.take_if(|at| *at <= now);
        }
        let logins: Vec<LoginId> = self
            .logins
            .iter()
            .filter(|(_, l)| l.farm == farm && !l.waiters.is_empty())
            .map(|l| l.0)
            .collect();
        for login in logins {
            self.check_login(login);
        }
        let tenants: Vec<TenantId> = self
            .tenants
            .iter()
            .filter(|(_, t)| t.farm == farm && (t.has_waiting() || !t.entering.is_empty()))
            .map(|t| t.0)
            .collect();
        for tenant in tenants {
            self.check_tenant(tenant);
        }
        self.dial_for_own(farm);
        self.learn(farm);
    }

    /// What came of the last tries, for people: of every member that failed within the time that somebody may wait. All
    /// of them are named, so each may have to be told more shortly than it was: `room` octets are for all.
    pub(crate) fn what_was_tried(&self, farm: FarmId, room: usize) -> String {
        let lately = self.config.limits.wait_limit;
        let alone = !self.has_choice(farm);
        let told = self.config.farms[farm].backends.iter().filter_map(|backend| {
            let (at, text) = self.farms[farm].members.get(backend)?.last_error.as_ref()?;
            let counts = alone || self.now.since(*at) <= lately;
            counts.then(|| (self.config.backends[*backend].name.as_str(), text.as_str()))
        });
        shorten(&told.collect::<Vec<_>>(), room)
    }
}

/// Octets that are left in a reply text beside these.
pub(crate) fn room_beside(octets: usize) -> usize {
    MAX_TEXT.saturating_sub(CODE_NAME + octets)
}

/// `name: text; name: text`, with texts cut where not all can be told.
fn shorten(told: &[(&str, &str)], room: usize) -> String {
    let whole: Vec<String> = told.iter().map(|(name, text)| format!("{name}: {text}")).collect();
    let joined = whole.join("; ");
    if joined.len() <= room || told.len() < 2 {
        return joined;
    }
    // What short ones leave is for the others.
    let mut lengths: Vec<usize> = whole.iter().map(String::len).collect();
    lengths.sort_unstable();
    let mut left = room.saturating_sub(2 * (told.len() - 1));
    let mut share = 0;
    for (n, length) in lengths.iter().enumerate() {
        share = (left / (lengths.len() - n)).max(LEAST_TOLD);
        left = left.saturating_sub((*length).min(share));
        if *length > share {
            break;
        }
    }
    let cut = |text: &String| {
        if text.len() <= share {
            return text.clone();
        }
        let end = (0..=share - 3).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0);
        format!("{}...", &text[..end])
    };
    whole.iter().map(cut).collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::shorten;

    #[test]
    fn everybody_who_was_tried_is_named() {
        let told = [("rabbit1", "refused"), ("rabbit2", "no answer within 2s")];
        assert_eq!(shorten(&told, 100), "rabbit1: refused; rabbit2: no answer within 2s");
        let long = "x".repeat(300);
        let told = [("rabbit1", "refused"), ("rabbit2", long.as_str()), ("rabbit3", long.as_str())];
        let text = shorten(&told, 150);
        assert!(text.len() <= 150 && text.len() > 140, "{} octets: {text}", text.len());
        assert!(text.starts_with("rabbit1: refused; rabbit2: xxx"), "{text}");
        assert!(text.contains("...; rabbit3: xxx") && text.ends_with("..."), "{text}");
        assert_eq!(shorten(&[("only", &long)], 10).len(), 306, "one is cut by whoever sends it");
        assert_eq!(shorten(&[], 10), "");
    }
}
