//! What the loss of an upstream connection may do to a client, and what it must not.
//!
//! The engine may close a session with 320 where a broker's death would have cost a client of its own something that
//! cannot be made good. [`Client::assess`] knows the reasons; a session without one must not notice.

use warren_broker::ConnId;
use warren_wire::method::{connection, exchange};

use super::channel::{Channel, Consumer, Held, Hold, Life, Mode, State};
use super::handshake::Stage;
use super::replies::{Expect, Mail};
use super::{Client, Ctx};
use crate::cover::Path;
use crate::fault::Expected;
use crate::oracle::loss::{Cut, TakenBack};
use crate::oracle::{ChanIx, Check, QueueIx};

/// Milliseconds for which a publisher may be idle before Warren must have proven what it published.
const PATIENCE: u64 = 5000;

/// The end of an upstream connection that the engine did not want.
#[derive(Clone, Debug)]
pub struct Loss {
    /// The broker's connection.
    pub conn: ConnId,
    /// The client's channel to which a content was under way and came in part.
    pub cut: Option<Cut>,
    /// One session had it for itself.
    pub lane: bool,
    /// The broker goes on with what it has received of it.
    pub lingers: bool,
    /// Consumers on it.
    pub tags: Vec<Vec<u8>>,
    /// The code of connection.close, if it is one that somebody is to blame for.
    pub blame: Option<u16>,
    /// An alarm kept barriers from being answered.
    pub alarm: bool,
    /// What the engine is to do.
    pub expected: Expected,
}

impl Client {
    /// A connection is lost, and `delivered` octets of what the client wrote have reached the engine: finds out what
    /// this may cost the client.
    pub fn assess(&mut self, loss: &Loss, delivered: u64, ctx: &mut Ctx<'_>) {
        if self.stage == Stage::Gone {
            return;
        }
        let closes = loss.expected == Expected::Closes;
        self.faced_loss = true;
        self.unlucky |= !self.me.open;
        if closes || self.doom.is_some() {
            self.excuse("the engine may close it whatever it does");
        }
        let active = self.last_written + PATIENCE >= ctx.now || self.has_outgoing() || !self.tx.is_empty();
        let busy = active || self.channels.iter().any(|c| c.state != State::Free && !c.is_settled());
        // What happens on a lane is its session's own doing, as if there were no Warren; whose it is cannot be seen here.
        if let Some(code) = loss.blame.filter(|_| busy || closes || loss.lane) {
            self.suspected.push(code);
        }
        let cancel_notify = self.me.cancel_notify;
        for place in 0..self.channels.len() {
            if self.channels[place].state == State::Free {
                continue;
            }
            if let Some(why) = self.channels[place].cost_of(loss, ctx) {
                self.excuse(why);
            }
            if self.channels[place].lose(loss, delivered, ctx) && !cancel_notify {
                self.excuse("its replay is refused and it wants no basic.cancel");
            }
        }
        self.leave_if_spared(|c| c.doomed && c.mode == Mode::Confirm, ctx);
        if loss.lane && (self.owns_something(ctx) || self.is_giving_up(ctx)) {
            self.excuse("it has what lives as long as a connection");
        }
    }

    /// Whether the error of a channel was answered with an error or with a nack is not for this client to find out: it
    /// vanishes.
    pub(super) fn leave_if_spared(&mut self, spared: impl Fn(&Channel) -> bool, ctx: &mut Ctx<'_>) {
        let spared = |c: &Channel| c.state != State::Free && spared(c);
        if self.channels.iter().any(spared) {
            self.channels.iter_mut().filter(|c| spared(c)).for_each(|c| c.become_murky(ctx));
            if !self.vanishing {
                self.break_off(ctx);
            }
        }
    }

    /// Logins may fail when connections break.
    pub(super) fn is_unlucky(&self) -> bool {
        self.unlucky && !self.me.open
    }

    /// Connections break while it logs in, or while it may vanish.
    pub fn comes_in_trouble(&mut self) {
        self.unlucky = true;
    }

    /// Whether connection.close is what a loss may have brought about.
    pub(super) fn is_loss(&mut self, close: &connection::Close<'_>, ctx: &mut Ctx<'_>) -> bool {
        let code = close.reply_code;
        self.crossed = self.stage == Stage::Closing;
        if self.is_unlucky() && matches!(code, 320 | 403 | 506 | 530) {
            return true;
        }
        let text = String::from_utf8_lossy(close.reply_text);
        let behind = self.channels.iter().any(|c| c.state != State::Free && c.ignored);
        if behind && code == 320 && text.contains("could not be begun again") {
            self.excuse("what it published behind a consumer that is refused is lost");
        }
        let waited = text.contains("none became free within") || text.contains("answered within");
        if self.excused.is_some() && code == 320 || self.waited && matches!(code, 320 | 506) && waited {
            let why = self.excused.unwrap_or_default();
            ctx.trace.line(format_args!("client {} is closed by a loss: {why}", self.me.session));
            ctx.cover.hit(Path::ClosedByLoss);
            return true;
        }
        if self.behind && code == 506 && text.contains("does not read fast enough") {
            return true;
        }
        if self.suspected.contains(&code) && ctx.oracle.blame(code) {
            ctx.cover.hit(Path::SuspectTold);
            return true;
        }
        false
    }

    /// It has read too little: the engine may end it.
    pub fn is_behind(&mut self) {
        self.behind = true;
    }

    /// What it published may have come to the engine and not to the broker.
    pub(super) fn publishes_are_lost(&mut self, ctx: &mut Ctx<'_>) {
        for channel in self.channels.iter().filter(|c| c.state != State::Free) {
            ctx.oracle.loosen(channel.chan, u64::MAX - 1);
        }
    }

    /// The connection is over, and what was under way may have been carried out or not.
    pub(super) fn give_up(&mut self, ctx: &mut Ctx<'_>) {
        for channel in self.channels.iter().filter(|c| c.state != State::Free) {
            ctx.oracle.doubt(channel.chan);
            ctx.oracle.loosen(channel.chan, u64::MAX - 1);
        }
        self.finish(ctx);
    }

    fn owns_something(&self, ctx: &Ctx<'_>) -> bool {
        ctx.oracle.queues.iter().rev().any(|q| q.owner == Some(self.me.session))
    }

    /// Whether an exclusive queue goes with a consumer that it has cancelled, as far as it knows.
    fn is_giving_up(&self, ctx: &Ctx<'_>) -> bool {
        let of = |c: &Channel, mail: &Mail| match *mail {
            Mail::CancelOk(place) => ctx.oracle.queues[c.consumers[place].queue].exclusive,
            _ => false,
        };
        let mut live = self.channels.iter().filter(|c| c.state != State::Free);
        live.any(|c| c.mail.iter().any(|mail| of(c, mail)))
    }

    /// The broker was away for longer than a session waits.
    pub fn has_waited(&mut self) {
        self.waited = true;
    }

    /// The engine may close this session with 320.
    pub fn excuse(&mut self, why: &'static str) {
        self.excused.get_or_insert(why);
    }

    /// Whether a connection was lost since all was quiet.
    pub fn has_faced_loss(&self) -> bool {
        self.faced_loss
    }

    /// All that a loss has brought about is over. Counts those who got through it. `may_wait`: upstream connections are
    /// few, and so a consumer that is to hear of its end may have to wait for one.
    ///
    /// # Errors
    /// When a consumer that could not begin again was not told so.
    pub fn is_settled_again(&mut self, may_wait: bool, ctx: &mut Ctx<'_>) -> Check {
        if may_wait && self.untold(ctx).is_some() {
            return Ok(());
        }
        if !std::mem::take(&mut self.suspected).is_empty() && self.stage == Stage::Open {
            ctx.cover.hit(Path::SuspectSpared);
        }
        (self.unlucky, self.waited) = (false, false);
        let faced_loss = std::mem::take(&mut self.faced_loss);
        if self.excused.take().is_none() && faced_loss && self.stage == Stage::Open {
            ctx.cover.hit(Path::KeptThroughLoss);
        }
        match self.untold(ctx) {
            Some(consumer) => {
                let tag = String::from_utf8_lossy(&consumer.tag);
                Err(format!("client {}: the end of consumer '{tag}' was not told", self.me.session))
            }
            None => Ok(()),
        }
    }

    /// A consumer whose queue was taken away and that was not told so.
    fn untold(&self, ctx: &Ctx<'_>) -> Option<&Consumer> {
        let mut open = self.channels.iter().filter(|c| c.state == State::Open && self.stage == Stage::Open);
        let waits = |c: &&Consumer| c.life == Life::Active && ctx.oracle.queues[c.queue].taken;
        open.find_map(|c| c.consumers.iter().find(waits))
    }

    /// Whether the end of a consumer is to be told to it.
    pub fn awaits_its_end(&self, ctx: &Ctx<'_>) -> bool {
        self.untold(ctx).is_some()
    }

    /// Whether what it holds may not be all that it got.
    pub fn is_getting(&self) -> bool {
        let getting = |c: &Channel| {
            c.recovering || c.incoming.is_some() || c.expect.iter().any(|e| matches!(e, Expect::Get { .. }))
        };
        self.channels.iter().any(|c| c.state != State::Free && getting(c))
    }

    /// A consumer on a queue of the client's own that it could lose without having done anything: the channel's place, the
    /// queue, and the consumer's tag.
    pub fn could_lose(&self, ctx: &Ctx<'_>) -> Option<(usize, QueueIx, Vec<u8>)> {
        if self.stage != Stage::Open || self.vanishing || self.doom.is_some() || !self.tx.is_empty() {
            return None;
        }
        self.channels.iter().enumerate().find_map(|(place, c)| {
            let own = c.own.as_ref().filter(|own| own.named && !own.auto_delete)?;
            let idle = c.state == State::Open && c.is_settled() && c.outgoing.is_empty() && !c.doomed;
            let queue = &ctx.oracle.queues[own.queue];
            let fits = idle && c.mode != Mode::Tx && !queue.exclusive && !queue.name.is_empty();
            let live = |consumer: &&Consumer| consumer.queue == own.queue && consumer.life == Life::Active;
            let consumer = c.consumers.iter().find(live).filter(|_| fits)?;
            Some((place, own.queue, consumer.tag.clone()))
        })
    }

    /// The queue of the channel at `place` was taken away.
    pub fn loses_queue(&mut self, place: usize, ctx: &mut Ctx<'_>) {
        if let Some(own) = &self.channels[place].own {
            ctx.oracle.queues[own.queue].taken = true;
        }
        self.channels[place].queue_is_gone(ctx);
        if !self.me.cancel_notify {
            self.excuse("its replay is refused and it wants no basic.cancel");
        }
    }

    /// The broker took back a delivery at a loss. If this client holds it, it holds it in vain from now on. False when it
    /// does not.
    pub fn take_back(&mut self, back: &TakenBack, chan: Option<ChanIx>, ctx: &mut Ctx<'_>) -> bool {
        let mut channels = self.channels.iter_mut().filter(|c| c.state != State::Free);
        match chan {
            Some(chan) => channels.find(|c| c.chan == chan).is_some_and(|c| c.take_back(back, ctx)),
            None => channels.any(|c| c.take_back(back, ctx)),
        }
    }
}

impl Channel {
    /// Why a loss may cost this channel's session its life.
    fn cost_of(&self, loss: &Loss, ctx: &Ctx<'_>) -> Option<&'static str> {
        let conn_may_have = |patience| ctx.oracle.published_lately(self.chan, loss.conn, ctx.now, patience);
        let patience = if loss.alarm { u64::MAX / 2 } else { PATIENCE };
        let publishes = conn_may_have(patience) || ctx.oracle.chans[self.chan].has_outstanding();
        let risky = |expect: &Expect| match *expect {
            Expect::Get { .. } | Expect::PurgeOk(_) | Expect::DeleteOk(_) | Expect::RollbackOk => true,
            Expect::RecoverOk => true,
            Expect::Method(id) => id == exchange::DELETE_OK,
            Expect::DeclareOk(queue, _) => ctx.oracle.queues[queue].name.is_empty(),
            _ => false,
        };
        let in_tx = !(self.tx_publishes.is_empty() && self.tx_settles.is_empty()) || self.committing;
        let replies = |c: &Consumer| c.reply && c.life != Life::Ended;
        Some(match () {
            () if (self.mode != Mode::Confirm || self.plain_before) && publishes => {
                "a plain publish may be lost"
            }
            () if self.risked_at.is_some_and(|at| at + PATIENCE >= ctx.now) => "a request may be lost",
            () if self.doomed => "an error may be lost",
            () if self.expect.iter().any(risky) => "a request that cannot be repeated may be lost",
            () if self.mail.iter().any(|m| matches!(m, Mail::CommitOk(_))) => "a commit may be lost",
            () if self.mode == Mode::Tx && in_tx => "its transaction is lost",
            () if self.did[1] && self.consumers.iter().any(replies) => "its reply address is lost",
            () if loss.cut == Some(Cut::Of(self.chan)) => "a content was cut",
            () if loss.cut == Some(Cut::Got) && self.incoming.is_some() => "a content was cut",
            () if loss.cut == Some(Cut::Unnamed) && self.consumers.iter().any(Consumer::is_unnamed) => {
                "a content was cut"
            }
            () if self.murky => "it lost what it speaks of",
            () => return None,
        })
    }

    /// Notes what is uncertain from now on. True when a consumer's queue is gone for good.
    fn lose(&mut self, loss: &Loss, delivered: u64, ctx: &mut Ctx<'_>) -> bool {
        ctx.oracle.loosen(self.chan, delivered);
        ctx.oracle.loosen_accepted(self.unconfirmed.values().copied());
        self.settled_tag = None;
        for expect in &mut self.expect {
            // What is in a queue of its own is not known any more.
            match expect {
                Expect::DeclareOk(_, count) | Expect::PurgeOk(count) | Expect::DeleteOk(count) => {
                    *count = None;
                }
                Expect::Get { exactly, .. } => *exactly = None,
                _ => {}
            }
        }
        // The queue of a consumer that it has cancelled may go before what was asked of it earlier is asked again.
        let ends = |c: &Consumer| c.life != Life::Ended && loss.tags.contains(&c.tag);
        let mut ending = self.consumers.iter().filter(|c| ends(c));
        if ending.any(|c| ctx.oracle.queues[c.queue].deleted) {
            // It may begin again before its cancel, or the end of its queue, goes on its way, and is refused.
            ctx.oracle.loosen(self.chan, u64::MAX);
            self.murky = true;
        }
        let Some(own) = &mut self.own else { return false };
        own.content = None;
        let (queue, auto_delete) = (own.queue, own.auto_delete);
        let here = |c: &Consumer| c.life == Life::Asked || loss.tags.contains(&c.tag);
        let consumed = self.consumers.iter().any(|c| c.queue == queue && c.life != Life::Ended && here(c));
        // A consumer that is refused when it begins again costs the channel the binding that it comes to, and with it the
        // queue that goes with its last consumer there, if that has come there.
        let refused = |c: &Consumer| {
            let lost = c.queue != queue && c.life != Life::Ended && loss.tags.contains(&c.tag);
            lost && ctx.oracle.queues[c.queue].deleted
        };
        let consumes = |c: &Consumer| c.queue == queue && c.life != Life::Ended;
        let any = |f: &dyn Fn(&Consumer) -> bool| self.consumers.iter().any(f);
        self.murky |= auto_delete && any(&consumes) && any(&refused);
        if ctx.oracle.queues[queue].exclusive {
            // Its session is closed for it.
            self.murky |= loss.lane;
            return false;
        }
        // A consumer may begin after its connection was lost, and end with it.
        let may_begin = loss.lingers && self.consumers.iter().any(consumes);
        self.murky |= auto_delete && may_begin;
        if auto_delete && consumed {
            self.queue_is_gone(ctx);
        }
        auto_delete && consumed
    }

    /// Its own queue is gone, and nobody has told it.
    pub fn queue_is_gone(&mut self, ctx: &mut Ctx<'_>) {
        let Some(own) = self.own.take() else { return };
        // What it publishes until it hears of it may come behind a consumer that is refused.
        ctx.oracle.loosen(self.chan, u64::MAX);
        ctx.oracle.queues[own.queue].deleted = true;
        if self.last_queue == Some(own.queue) {
            self.last_queue = None;
        }
        if self.reply_queue == Some(own.queue) {
            self.reply_queue = None;
        }
        self.murky = true;
    }

    /// Whether what it publishes may come behind a consumer that is refused when it begins again: it has lost the queue
    /// of one and was not told yet.
    pub(super) fn may_be_ignored(&self, ctx: &Ctx<'_>) -> bool {
        let lost = |c: &Consumer| c.life != Life::Ended && ctx.oracle.queues[c.queue].deleted;
        self.murky && self.consumers.iter().any(lost)
    }

    fn become_murky(&mut self, ctx: &mut Ctx<'_>) {
        self.murky = true;
        ctx.oracle.spare(self.chan);
    }

    fn take_back(&mut self, back: &TakenBack, ctx: &mut Ctx<'_>) -> bool {
        let of_tag = |consumers: &[Consumer], held: &Held| match (&back.tag, held.consumer) {
            (None, None) => true,
            (Some(tag), Some(place)) => consumers[place].tag == *tag,
            _ => false,
        };
        let consumers = &self.consumers;
        // What was delivered after a recover that is not answered here is on its way still.
        let here = !self.recovering || back.recover <= self.recovers_before;
        let held = self
            .held
            .values_mut()
            .filter(|_| here)
            .chain(self.tx_settles.iter_mut().map(|(_, held, _)| held));
        let fits =
            |held: &&mut Held| held.msg == back.id && held.hold != Hold::Stale && of_tag(consumers, held);
        let Some(held) = held.filter(fits).min_by_key(|held| held.hold != Hold::Fresh) else {
            let tag = back.tag.as_ref();
            let targets = &ctx.oracle.messages[back.id].targets;
            let named = |c: &&mut Consumer| Some(&c.tag) == tag && c.life != Life::Ended;
            let unnamed = |c: &Consumer| tag.is_some() && c.is_unnamed() && targets.contains(&c.queue);
            if let Some(consumer) = self.consumers.iter_mut().find(named) {
                consumer.orphans.push((back.id, back.recover));
            } else {
                let unnamed = self.consumers.iter_mut().filter(|c| unnamed(c));
                unnamed.for_each(|consumer| consumer.orphans.push((back.id, back.recover)));
            }
            return false;
        };
        let was = *held;
        held.hold = Hold::Stale;
        self.uncount(was);
        ctx.oracle.messages[back.id].client.unacked -= 1;
        true
    }

    /// What was held counts no more against its consumer's prefetch.
    pub(super) fn uncount(&mut self, held: Held) {
        if let (Some(consumer), Hold::Fresh) = (held.consumer, held.hold) {
            self.consumers[consumer].unacked -= 1;
        }
    }

    /// The first return that must come.
    pub(super) fn return_due(&self, ctx: &Ctx<'_>) -> Option<usize> {
        let due = |&&id: &&usize| ctx.oracle.messages[id].loose.is_none() && !self.murky;
        self.returns_due.iter().find(due).copied()
    }

    /// Basic.nack: what a loss may have cost, and nothing else.
    pub(super) fn refused(&mut self, tag: u64, multiple: bool, ctx: &mut Ctx<'_>) -> Check {
        if self.mode != Mode::Confirm {
            return Err("a nack on a channel that is not in confirm mode".to_owned());
        }
        for id in self.take_unconfirmed(tag, multiple)? {
            if ctx.oracle.messages[id].loose.is_none() {
                return Err(format!(
                    "message {id} was nacked, and no connection was lost that may have had it"
                ));
            }
            ctx.cover.hit(Path::NackedAtLoss);
            self.returns_due.retain(|&due| due != id);
        }
        // A nack may be the answer to its error: which it is cannot be told from here.
        self.spared |= self.doomed;
        Ok(())
    }
}
