//! What a client does next.

use super::channel::{Channel, Mode, State};
use super::handshake::Stage;
use super::plan::{End, ROLES, Role};
use super::replies::Expect;
use super::{Client, Ctx};
use crate::cover::Path;

/// One kind of thing to do on a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs)]
#[repr(usize)]
pub enum Op {
    Publish,
    PublishFan,
    PublishNowhere,
    PublishOwn,
    Request,
    Reply,
    Settle,
    Get,
    GetOwn,
    Consume,
    Cancel,
    Qos,
    Recover,
    DeclareStable,
    DeclareOwn,
    InspectOwn,
    BindOwn,
    UnbindOwn,
    PurgeOwn,
    DeleteOwn,
    Exchange,
    ConfirmSelect,
    TxSelect,
    Commit,
    Rollback,
    Flow,
    Close,
    Err,
    ErrConnection,
}

/// How many there are.
pub const OPS: usize = Op::ErrConnection as usize + 1;

/// How likely each op is for a channel of a role, before the scenario has its say.
fn weights(role: Role) -> &'static [(Op, u32)] {
    use Op::*;
    match role {
        Role::Publisher => &[
            (Publish, 30),
            (PublishFan, 3),
            (PublishNowhere, 6),
            (DeclareStable, 3),
            (Exchange, 1),
            (Flow, 1),
            (Close, 2),
            (Err, 2),
        ],
        Role::Confirmer => &[
            (ConfirmSelect, 10),
            (Publish, 30),
            (PublishFan, 3),
            (PublishNowhere, 6),
            (DeclareStable, 1),
            (Close, 2),
            (Err, 2),
        ],
        Role::Transactor => &[
            (TxSelect, 10),
            (Publish, 20),
            (PublishNowhere, 3),
            (Get, 8),
            (Consume, 1),
            (Settle, 10),
            (Commit, 8),
            (Rollback, 3),
            (Close, 1),
            (Err, 1),
        ],
        Role::Consumer => &[
            (Qos, 4),
            (Consume, 8),
            (Settle, 30),
            (Cancel, 3),
            (Recover, 1),
            (DeclareStable, 2),
            (Get, 2),
            (Close, 1),
            (Err, 1),
        ],
        Role::Getter => &[(Get, 20), (Settle, 20), (DeclareStable, 3), (Recover, 1), (Close, 2), (Err, 1)],
        Role::Owner => &[
            (DeclareOwn, 20),
            (PublishOwn, 20),
            (GetOwn, 20),
            (InspectOwn, 6),
            (BindOwn, 6),
            (UnbindOwn, 3),
            (PurgeOwn, 3),
            (DeleteOwn, 3),
            (Consume, 3),
            (Settle, 10),
            (Cancel, 3),
            (ConfirmSelect, 1),
            (Close, 2),
            (Err, 1),
        ],
        Role::Requester => &[(Consume, 10), (Request, 20), (Settle, 10), (Cancel, 1), (Close, 1), (Err, 1)],
        Role::Responder => &[(Qos, 2), (Consume, 10), (Reply, 20), (Settle, 20), (Close, 1)],
        Role::Visitor => &[(DeclareStable, 10), (Exchange, 3), (Flow, 3), (Close, 10), (Err, 1)],
        Role::Mixed => &[
            (Publish, 15),
            (PublishNowhere, 3),
            (PublishOwn, 5),
            (Settle, 10),
            (Get, 5),
            (GetOwn, 5),
            (Consume, 5),
            (Cancel, 2),
            (Qos, 3),
            (Recover, 1),
            (DeclareStable, 3),
            (DeclareOwn, 3),
            (InspectOwn, 2),
            (BindOwn, 2),
            (DeleteOwn, 1),
            (ConfirmSelect, 1),
            (TxSelect, 1),
            (Commit, 3),
            (Rollback, 1),
            (Flow, 1),
            (Close, 1),
            (Err, 1),
            (ErrConnection, 2),
        ],
    }
}

impl Client {
    /// Does a few things, or writes something of what was done. `working`: new things may be begun. False when there
    /// was nothing to do.
    pub fn act(&mut self, working: bool, ctx: &mut Ctx<'_>) -> bool {
        let mut acted = false;
        for _ in 0..1 + ctx.rng.below(4) {
            if !self.act_once(working, ctx) {
                break;
            }
            acted = true;
        }
        acted
    }

    fn act_once(&mut self, working: bool, ctx: &mut Ctx<'_>) -> bool {
        if self.vanishing {
            return false;
        }
        match self.stage {
            Stage::Fresh => self.greet(ctx),
            Stage::Opening if !self.plan.pipelined => return false,
            Stage::Opening | Stage::Open => {
                let writes = self.has_outgoing();
                if writes && (!working || self.doom.is_some() || ctx.rng.chance(1, 2)) {
                    self.write_some(ctx);
                } else if working && self.doom.is_none() {
                    let state = |c: &Client| (c.plan.acts, c.written, c.stage, c.vanishing);
                    let before = state(self);
                    self.begin(ctx);
                    return before != state(self) || self.has_outgoing();
                } else {
                    return false;
                }
            }
            _ => return false,
        }
        true
    }

    pub(super) fn has_outgoing(&self) -> bool {
        self.channels.iter().any(|c| c.state != State::Free && !c.outgoing.is_empty())
    }

    /// Its time is up.
    pub fn hurry(&mut self) {
        self.plan.acts = 0;
    }

    /// What it waits for, if anything.
    pub fn waits_for(&self) -> Option<String> {
        let session = self.me.session;
        match self.stage {
            Stage::Open if self.doom.is_some() => {}
            Stage::Open => {
                let waits = |c: &&Channel| {
                    c.state != State::Free
                        && (!c.is_settled()
                            || c.committing
                            || matches!(c.state, State::Closing | State::Answering { .. }))
                };
                let c = self.channels.iter().find(waits)?;
                return Some(format!(
                    "client {session} ch {} ({:?}) waits for {:?} {:?} confirms {:?} returns {:?}",
                    c.number, c.state, c.expect, c.mail, c.unconfirmed, c.returns_due
                ));
            }
            Stage::Gone => return None,
            _ => {}
        }
        Some(format!("client {session} waits while {:?}", self.stage))
    }

    fn write_some(&mut self, ctx: &mut Ctx<'_>) {
        let full: Vec<usize> = (0..self.channels.len())
            .filter(|&at| self.channels[at].state != State::Free && !self.channels[at].outgoing.is_empty())
            .collect();
        for _ in 0..1 + ctx.rng.below(4) {
            let place = *ctx.rng.pick(&full);
            self.write_unit(place, ctx);
        }
    }

    fn begin(&mut self, ctx: &mut Ctx<'_>) {
        if self.plan.acts == 0 {
            if self.stage == Stage::Open || self.plan.end == End::Vanish {
                self.wind_up(ctx);
            }
            return;
        }
        self.plan.acts -= 1;
        if self.stage == Stage::Open && self.plan.end == End::Vanish && ctx.rng.chance(1, 100) {
            self.plan.acts = 0;
        }
        let open = self.channels.iter().filter(|c| c.state != State::Free).count();
        if open == 0 || (open < self.plan.channels && ctx.rng.chance(1, 6)) {
            self.open_channel(ctx);
            return;
        }
        let patient = self.plan.patient;
        let ready: Vec<usize> =
            (0..self.channels.len()).filter(|&at| self.channels[at].is_ready(patient)).collect();
        if !ready.is_empty() {
            let place = *ctx.rng.pick(&ready);
            self.work_on(place, ctx);
        }
    }

    fn open_channel(&mut self, ctx: &mut Ctx<'_>) {
        if !self.may_open_channels() {
            return;
        }
        let number = 1 + ctx.rng.below(self.plan.numbers.into()) as u16;
        let role = ROLES[ctx.rng.weighted(ctx.scenario.roles.iter().copied()).unwrap_or(0)];
        let acts = self.plan.channel_acts;
        let place = match self.channels.iter().position(|c| c.number == number) {
            Some(place) if self.channels[place].state != State::Free => return,
            Some(place) => {
                ctx.cover.hit(Path::NumberReused);
                place
            }
            None => {
                self.channels.push(Channel::new(number));
                self.channels.len() - 1
            }
        };
        if !self.me.open {
            ctx.cover.hit(Path::PipelinedOpen);
        }
        self.channels[place].open(self.me.session, self.me.open, role, acts, ctx);
    }

    fn work_on(&mut self, place: usize, ctx: &mut Ctx<'_>) {
        let channel = &mut self.channels[place];
        if channel.acts == 0 {
            channel.close(ctx);
            return;
        }
        channel.acts -= 1;
        for _ in 0..4 {
            let list = weights(self.channels[place].role);
            let scaled = list.iter().map(|&(op, weight)| weight * ctx.scenario.ops[op as usize]);
            let Some(at) = ctx.rng.weighted(scaled) else { return };
            if self.perform(place, list[at].0, ctx) {
                return;
            }
        }
    }

    fn perform(&mut self, place: usize, op: Op, ctx: &mut Ctx<'_>) -> bool {
        let me = self.me;
        let channel = &mut self.channels[place];
        let names = &mut self.names;
        match op {
            Op::Publish => channel.publish_stable(me, ctx),
            Op::PublishFan => channel.publish_fan(me, ctx),
            Op::PublishNowhere => channel.publish_nowhere(me, ctx),
            Op::PublishOwn => return channel.publish_own(me, ctx),
            Op::Request => return channel.request_reply(me, ctx),
            Op::Reply => return channel.reply(me, ctx),
            Op::Settle => return channel.settle(ctx),
            Op::Get => return channel.get(me, ctx),
            Op::GetOwn => return channel.get_own(ctx),
            Op::Consume => return channel.consume(me, names, ctx),
            Op::Cancel => return channel.cancel(ctx),
            Op::Qos => channel.qos(ctx),
            Op::Recover => return channel.recover(ctx),
            Op::DeclareStable => channel.declare_stable(me, ctx),
            Op::DeclareOwn => return channel.declare_own(me, names, ctx),
            Op::InspectOwn => return channel.inspect_own(ctx),
            Op::BindOwn => return channel.bind_own(me, names, ctx),
            Op::UnbindOwn => return channel.unbind_own(ctx),
            Op::PurgeOwn => return channel.purge_own(ctx),
            Op::DeleteOwn => return channel.delete_own(me, ctx),
            Op::Exchange => channel.exchange_pair(me, names, ctx),
            Op::ConfirmSelect => return channel.confirm_select(ctx),
            Op::TxSelect => return channel.tx_select(),
            Op::Commit => return channel.commit(ctx),
            Op::Rollback => return channel.rollback(ctx),
            Op::Flow => channel.flow(),
            Op::Close => channel.close(ctx),
            Op::Err => return channel.err(me, ctx),
            Op::ErrConnection => return ctx.scenario.connection_errors && self.err(place, ctx),
        }
        true
    }

    /// Ends the session as planned.
    fn wind_up(&mut self, ctx: &mut Ctx<'_>) {
        match self.plan.end {
            End::Tidy => self.tidy_up(ctx),
            End::Close => self.close(ctx),
            End::Vanish => self.break_off(ctx),
        }
    }

    /// Lets what is due come, channel by channel, and closes when there is nothing left.
    fn tidy_up(&mut self, ctx: &mut Ctx<'_>) {
        let mut left = false;
        for channel in self.channels.iter_mut().filter(|c| c.state != State::Free) {
            left = true;
            if channel.is_usable() && !channel.doomed {
                channel.tidy_up(ctx);
            }
        }
        if !left {
            self.close(ctx);
        }
    }

    /// The socket breaks: of what was not taken yet, some arrives.
    pub(super) fn break_off(&mut self, ctx: &mut Ctx<'_>) {
        while self.has_outgoing() && ctx.rng.chance(3, 4) {
            self.write_some(ctx);
        }
        let kept = ctx.rng.below(self.tx.len() + 1);
        if kept < self.tx.len() && kept > 0 {
            ctx.cover.hit(Path::VanishedInFrame);
        }
        self.tx.truncate(kept);
        self.vanishing = true;
    }
}

impl Channel {
    /// Whether something new may be begun: now, or with patience when all is answered.
    fn is_ready(&self, patient: bool) -> bool {
        let waits = patient && !self.doomed && !self.is_settled();
        self.is_usable() && !waits && self.expect.len() <= 8 && self.outgoing.len() < 12
    }

    fn flow(&mut self) {
        let flow = warren_wire::method::channel::Flow { active: true };
        let ok = warren_wire::method::channel::FLOW_OK;
        self.request(&warren_wire::Method::ChannelFlow(flow), Some(Expect::Method(ok)));
    }

    /// One step towards an end that leaves nothing behind: cancel, settle, commit, wait, close.
    fn tidy_up(&mut self, ctx: &mut Ctx<'_>) {
        if self.cancel(ctx) {
            // Its answer comes first.
        } else if !self.is_settled() {
            // Waits.
        } else if let (Some((&tag, _)), false) = (self.held.last_key_value(), self.recovering) {
            self.ack(tag, true, ctx);
        } else if self.mode == Mode::Tx && !(self.tx_publishes.is_empty() && self.tx_settles.is_empty()) {
            self.commit(ctx);
        } else {
            self.close(ctx);
        }
    }
}
