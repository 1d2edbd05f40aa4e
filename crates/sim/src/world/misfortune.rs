//! When things go wrong, and when they are well again.

use super::{Middle, World};
use crate::client::Client;
use crate::cover::Path;
use crate::fault::{CAUSES, Fault, Misfortune};
use crate::oracle::Check;

/// Milliseconds after a loss within which logins may still fail for it.
const LOGINS_RECOVER: u64 = 3000;

/// Milliseconds within which everything resumes once the broker is back.
const RESUMES_WITHIN: u64 = 5000;

/// Milliseconds without anything going wrong after which whoever waited has what it waited for.
const REST: u64 = 15_000;

/// For how long a session may wait for a broker before it is closed, less what the clock may jump at once.
const WAITS_FOR: u64 = 27_000;

/// How things stand.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Trouble {
    /// Something has gone wrong since all was quiet.
    any: bool,
    /// When something last did, and since when there was no rest in between.
    last: Option<u64>,
    since: Option<u64>,
    refusing_since: Option<u64>,
    alarm: bool,
    /// Another one comes within a few steps.
    storm: bool,
}

impl World {
    /// Lets something go wrong, if its time has come.
    pub(super) fn tempt_fate(&mut self) -> Check {
        let Some(misfortune) = self.scenario.misfortune else { return Ok(()) };
        let every = if self.trouble.storm { 15 } else { misfortune.every };
        if !self.rng.chance(1, every) {
            return Ok(());
        }
        self.trouble.storm = self.rng.chance(misfortune.storms, 10);
        if self.trouble.refusing_since.is_some() || self.trouble.alarm {
            // What lasts ends more often than something new begins.
            if self.rng.chance(2, 3) {
                return self.end_what_lasts();
            }
        }
        self.misfortune(misfortune)
    }

    fn misfortune(&mut self, misfortune: Misfortune) -> Check {
        let targets = match &self.middle {
            Middle::Direct(_) => return Ok(()),
            Middle::Warren(warren) => warren.targets(),
        };
        let kind = self.rng.weighted(misfortune.weights.iter().copied());
        let place = if targets.is_empty() { usize::MAX } else { *self.rng.pick(&targets) };
        let fault = match kind {
            None => return Ok(()),
            Some(0) => Fault::LoseUpstream { place, lingers: self.rng.chance(1, 3) },
            Some(1) => Fault::Die(place),
            Some(2) => Fault::Hang(place),
            Some(3) => Fault::Close(place, 320),
            Some(4) => Fault::Close(place, *self.rng.pick(&CAUSES)),
            Some(5) => return self.outage(&targets),
            Some(_) => Fault::Alarm(true),
        };
        self.trouble.alarm |= matches!(fault, Fault::Alarm(true));
        if self.trouble.alarm {
            self.hit(Path::Alarm);
        }
        self.befall(&fault)
    }

    fn befall(&mut self, fault: &Fault) -> Check {
        let lasts = self.trouble.refusing_since.is_some();
        let rested = !lasts && self.trouble.last.is_none_or(|last| self.now > last + REST);
        let since = self.trouble.since.filter(|_| !rested).unwrap_or(self.now);
        self.trouble.since = Some(since);
        self.clients.iter_mut().for_each(Client::comes_in_trouble);
        self.oracle.loosen_the_gone();
        (self.trouble.any, self.trouble.last) = (true, Some(self.now));
        self.inflict(fault)
    }

    /// The broker is gone: every connection breaks, and new ones are refused, for a while.
    fn outage(&mut self, targets: &[usize]) -> Check {
        self.hit(Path::Outage);
        self.trouble.refusing_since.get_or_insert(self.now);
        self.befall(&Fault::Refuse(true))?;
        for &place in targets {
            let fault = if self.rng.chance(1, 2) {
                Fault::LoseUpstream { place, lingers: false }
            } else {
                Fault::Die(place)
            };
            self.befall(&fault)?;
        }
        if self.rng.chance(1, 4) {
            // Nothing but time passes, now and then for longer than a session waits.
            self.let_all_read()?;
            self.drain()?;
            let most = *self.rng.pick(&[1000, 10_000, 25_000, 60_000]);
            let until = self.now + self.rng.between(100, most);
            self.let_time_pass(until)?;
        }
        Ok(())
    }

    /// The broker takes connections again, and there is no alarm.
    pub(super) fn end_what_lasts(&mut self) -> Check {
        self.note_waiting();
        if self.trouble.refusing_since.is_some() {
            self.befall(&Fault::Refuse(false))?;
            self.trouble.refusing_since = None;
        }
        if std::mem::take(&mut self.trouble.alarm) {
            self.befall(&Fault::Alarm(false))?;
        }
        Ok(())
    }

    /// Whether trouble has lasted for longer than sessions wait, as seen when a client is told so.
    pub(super) fn note_waiting(&mut self) {
        let lasts = self.trouble.refusing_since.is_some() || self.trouble.any;
        if lasts && self.trouble.since.is_some_and(|since| self.now >= since + WAITS_FOR) {
            self.clients.iter_mut().for_each(Client::has_waited);
        }
    }

    /// Whether logins may fail for what has happened.
    pub(super) fn is_troubled(&self) -> bool {
        let lately = |last: u64| self.now <= last + LOGINS_RECOVER;
        self.trouble.refusing_since.is_some() || self.trouble.last.is_some_and(lately)
    }

    /// All that is wrong ends, and the engine finds out about what has deceived it.
    pub(super) fn end_misfortunes(&mut self) -> Check {
        self.trouble.storm = false;
        self.end_what_lasts()?;
        let Some(misfortune) = self.scenario.misfortune.filter(|_| self.trouble.any) else { return Ok(()) };
        let until = self.now + u64::from(misfortune.heartbeat) * 3000 + 15_000;
        self.drain()?;
        while self.is_deceived() {
            if self.now >= until {
                return Err("the engine does not notice that a broker is silent".to_owned());
            }
            let next = self.next_deadline().unwrap_or(u64::MAX).clamp(self.now + 1, self.now + 2500);
            self.let_time_pass(next)?;
        }
        Ok(())
    }

    fn is_deceived(&self) -> bool {
        match &self.middle {
            Middle::Direct(_) => false,
            Middle::Warren(warren) => warren.is_deceived(),
        }
    }

    /// What resumes has resumed: from now on nothing is excused any more.
    pub(super) fn recover(&mut self) -> Check {
        if !std::mem::take(&mut self.trouble.any) {
            return Ok(());
        }
        self.let_time_pass(self.now + RESUMES_WITHIN)?;
        let waits = self.may_wait() && self.waits_for().is_some();
        let (mut outside, _) = self.outside(1);
        for client in outside.clients.iter_mut() {
            client.is_settled_again(waits, &mut outside.ctx)?;
        }
        outside.ctx.oracle.causes.clear();
        Ok(())
    }

    /// Something goes wrong while all is quiet: whoever has nothing under way must not notice.
    pub(super) fn disturb_the_quiet(&mut self) -> Check {
        let Some(misfortune) = self.scenario.misfortune else { return Ok(()) };
        for _ in 0..self.rng.below(4) {
            self.hit(Path::LostWhenQuiet);
            if !self.take_a_queue_away()? {
                self.misfortune(misfortune)?;
            }
            if self.rng.chance(1, 2) {
                self.settle()?;
                self.audit()?;
            }
        }
        Ok(())
    }

    /// A connection is lost, and before its consumers are back somebody deletes the queue of one, or takes the right to
    /// read from it. False when there is none to do this to.
    fn take_a_queue_away(&mut self) -> Check<bool> {
        let mut found = None;
        let (outside, middle) = self.outside(1);
        for (place, client) in outside.clients.iter().enumerate() {
            if let (Some((channel, queue, tag)), Middle::Warren(warren)) =
                (client.could_lose(&outside.ctx), &*middle)
            {
                let upstream = warren.consumes_on(&tag, &outside.broker.tap);
                found = upstream.map(|upstream| (place, channel, queue, upstream)).or(found);
            }
        }
        let Some((place, channel, queue, upstream)) = found else { return Ok(false) };
        self.befall(&Fault::LoseUpstream { place: upstream, lingers: false })?;
        let gone = self.rng.chance(1, 2);
        let (outside, _) = self.outside(1);
        // The model broker denies one queue at a time: while somebody is to be told of one, another is deleted.
        let gone = gone || outside.clients.iter().any(|client| client.awaits_its_end(&outside.ctx));
        let vhost = &outside.ctx.scenario.vhosts[outside.ctx.oracle.queues[queue].vhost];
        let name = outside.ctx.oracle.queues[queue].name.clone();
        if gone {
            outside.broker.broker.delete_queue(vhost, &name);
        } else {
            outside.broker.broker.deny_reading(&name);
        }
        let mut ctx = outside.ctx;
        outside.clients[place].loses_queue(channel, &mut ctx);
        Ok(true)
    }

    /// Tells clients that the broker has taken back what they hold.
    pub(super) fn tell_taken_back(&mut self) {
        if self.oracle.taken_back.is_empty() {
            return;
        }
        let backs = std::mem::take(&mut self.oracle.taken_back);
        let (mut outside, _) = self.outside(1);
        for back in backs {
            let chan = back.tag.as_ref().and_then(|tag| outside.ctx.oracle.tags.get(tag)).map(|t| t.0);
            let message = &mut outside.ctx.oracle.messages[back.id];
            message.taken_back = true;
            // One that was got may be any copy of those that went to several queues, or be on its way still.
            let single = message.targets.len() == 1;
            let gets = outside.clients.iter().any(Client::is_getting);
            let unnamed = back.tag.is_some() && chan.is_none();
            let certain = chan.is_some() || unnamed || back.tag.is_none() && single && !gets;
            let mut clients = outside.clients.iter_mut();
            if !certain || !clients.any(|client| client.take_back(&back, chan, &mut outside.ctx)) {
                outside.ctx.oracle.messages[back.id].slack += 1;
            }
        }
    }
}
