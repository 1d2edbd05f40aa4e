//! A client: an AMQP state machine that speaks raw frames, does random things, and knows what it must be answered.
//!
//! - [`handshake`]: from protocol header to open-ok, and the end of the connection.
//! - [`channel`]: one channel: what was sent, what is due, what may not come.
//! - [`loss`]: what the loss of an upstream connection may do to it.
//! - [`replies`] and [`content`]: what comes, held against what is due.
//! - [`work`] chooses what to do next; [`publish`], [`topology`], [`consume`], [`settle`], [`select`] and [`offend`]
//!   do it.

pub mod channel;
pub mod consume;
pub mod content;
pub mod handshake;
pub mod loss;
pub mod offend;
pub mod plan;
pub mod publish;
pub mod replies;
pub mod select;
pub mod settle;
pub mod topology;
pub mod work;

use warren_wire::frame::{self, FRAME_BODY, FRAME_HEADER, FRAME_HEARTBEAT, FRAME_METHOD, HEARTBEAT_FRAME};
use warren_wire::{Frame, Method};

use crate::cover::{Cover, Path};
use crate::oracle::{Check, Oracle};
use crate::rng::Rng;
use crate::scenario::Scenario;
use crate::trace::{Trace, describe};
use channel::{Channel, State};
use handshake::Stage;
use plan::{Login, Plan};

/// What a client may touch besides itself.
pub struct Ctx<'a> {
    /// Chance.
    pub rng: &'a mut Rng,
    /// The record.
    pub oracle: &'a mut Oracle,
    /// The counters.
    pub cover: &'a mut Cover,
    /// The story.
    pub trace: &'a mut Trace,
    /// What this run is like.
    pub scenario: &'a Scenario,
    /// Milliseconds.
    pub now: u64,
}

/// What channels need to know of their client.
#[derive(Clone, Copy, Debug)]
pub struct Me {
    /// Number among all sessions of the run.
    pub session: usize,
    /// Virtual host.
    pub vhost: usize,
    /// User.
    pub user: usize,
    /// Negotiated.
    pub frame_max: u32,
    /// Announced `consumer_cancel_notify`.
    pub cancel_notify: bool,
    /// Open-ok has come.
    pub open: bool,
}

/// Milliseconds that a step of a handshake may take.
const HANDSHAKE_STEP: u64 = 10_000;

/// One session of a client.
#[derive(Debug)]
pub struct Client {
    /// What its channels need to know.
    pub me: Me,
    /// What it means to do.
    pub plan: Plan,
    /// How far the connection is.
    pub stage: Stage,
    /// By place, not by number.
    pub channels: Vec<Channel>,
    /// Received and not parsed.
    rx: Vec<u8>,
    /// Written, not yet taken by the world.
    pub tx: Vec<u8>,
    /// Octets ever written to `tx`.
    written: u64,
    last_written: u64,
    last_received: u64,
    /// When it connected.
    began: u64,
    /// It will vanish when `tx` has been taken.
    pub vanishing: bool,
    /// The error that ends the whole connection, if it committed one.
    doom: Option<(u16, u32)>,
    /// Tags and names given out so far.
    names: u32,
    /// Connections broke since all was quiet.
    unlucky: bool,
    /// A connection was lost since all was quiet.
    faced_loss: bool,
    /// Why a loss may have it closed with 320.
    excused: Option<&'static str>,
    /// It may be the one to blame for this error of a shared connection.
    suspected: Vec<u16>,
    /// The broker was away for too long.
    waited: bool,
    /// More waits for it than a session may have when memory is short.
    behind: bool,
    /// Its own connection.close has crossed another.
    crossed: bool,
}

impl Client {
    /// A client that has just connected.
    pub fn new(session: usize, plan: Plan, now: u64) -> Client {
        let me = Me {
            session,
            vhost: plan.vhost,
            user: plan.user,
            frame_max: frame::FRAME_MIN_SIZE,
            cancel_notify: plan.cancel_notify,
            open: false,
        };
        Client {
            me,
            plan,
            stage: Stage::Fresh,
            channels: Vec::new(),
            rx: Vec::new(),
            tx: Vec::new(),
            written: 0,
            last_written: now,
            last_received: now,
            began: now,
            vanishing: false,
            doom: None,
            names: 0,
            unlucky: false,
            faced_loss: false,
            excused: None,
            suspected: Vec::new(),
            waited: false,
            behind: false,
            crossed: false,
        }
    }

    /// Takes in what came from the other side.
    pub fn receive(&mut self, bytes: &[u8], ctx: &mut Ctx<'_>) -> Check {
        self.last_received = ctx.now;
        let mut rx = std::mem::take(&mut self.rx);
        rx.extend_from_slice(bytes);
        let mut at = 0;
        let most = self.me.frame_max - frame::FRAME_OVERHEAD as u32;
        while let Some(frame) = frame::next_frame(&rx, at, most).map_err(|e| e.to_string())? {
            at = frame.end;
            self.frame(frame, frame.payload(&rx), ctx)
                .map_err(|what| format!("client {} ch {}: {what}", self.me.session, frame.channel))?;
            if self.vanishing {
                break; // it reads no more
            }
        }
        rx.drain(..at);
        self.rx = rx;
        Ok(())
    }

    fn frame(&mut self, frame: Frame, payload: &[u8], ctx: &mut Ctx<'_>) -> Check {
        if ctx.trace.on() {
            let what = describe(frame.kind, payload);
            ctx.trace.line(format_args!("client {} gets ch {} {what}", self.me.session, frame.channel));
        }
        if frame.kind == FRAME_HEARTBEAT {
            ctx.cover.hit(Path::HeartbeatReceived);
            return if frame.channel == 0 { Ok(()) } else { Err("a heartbeat on a channel".to_owned()) };
        }
        if frame.channel == 0 {
            if frame.kind != FRAME_METHOD {
                return Err("content on channel 0".to_owned());
            }
            let method = Method::parse(payload).map_err(|e| format!("{e:?}"))?;
            return self.connection_method(method, ctx);
        }
        if matches!(self.stage, Stage::Done) {
            return Err("a frame after the end of the connection".to_owned());
        }
        let me = self.me;
        let channel = self.channels.iter_mut().find(|c| c.number == frame.channel && c.state != State::Free);
        let Some(channel) = channel else {
            return Err("a frame on a channel that is not open".to_owned());
        };
        match frame.kind {
            FRAME_METHOD => {
                let method = Method::parse(payload).map_err(|e| format!("{e:?}"))?;
                channel.method(method, me, ctx)?;
                self.leave_if_spared(|c| c.spared, ctx);
                Ok(())
            }
            FRAME_HEADER | FRAME_BODY => channel.content(frame.kind, payload, me, ctx),
            kind => Err(format!("a frame of type {kind}")),
        }
    }

    /// The other side has ended the connection.
    pub fn eof(&mut self, ctx: &mut Ctx<'_>) -> Check {
        let me = self.me.session;
        ctx.trace.line(format_args!("client {me} sees the end of its connection"));
        match self.stage {
            Stage::Done | Stage::Gone => {}
            Stage::Greeted | Stage::LoggingIn | Stage::Opening
                // Told or not: one that does not read what it is told is disconnected after a while.
                if self.plan.login == Login::Password && !self.plan.told_refusal
                    || self.plan.login != Login::Right && ctx.scenario.stall_every > 0 =>
            {
                ctx.cover.hit(Path::LoginRefused);
                self.give_up(ctx);
            }
            // The same goes for one that committed an error, and for one that a loss has cost its connection.
            _ if self.behind || self.is_unlucky() || self.excused.is_some() || !self.suspected.is_empty() => self.give_up(ctx),
            // And for one that there was no memory for.
            _ if ctx.scenario.stall_every > 0 && ctx.scenario.limits.memory <= handshake::LITTLE_MEMORY => {
                self.publishes_are_lost(ctx);
                self.give_up(ctx);
            }
            // A step of a handshake that takes too long.
            Stage::Fresh | Stage::Greeted | Stage::LoggingIn | Stage::Opening
                if ctx.now >= self.began + HANDSHAKE_STEP =>
            {
                self.give_up(ctx);
            }
            Stage::Open if self.doom.is_some() && ctx.scenario.stall_every > 0 => {
                for channel in self.channels.iter_mut().filter(|c| c.state != State::Free) {
                    ctx.oracle.doubt(channel.chan);
                    channel.end(ctx);
                }
                self.end_queues(ctx);
            }
            _ => return Err(format!("client {me} was disconnected without a word")),
        }
        self.stage = Stage::Gone;
        Ok(())
    }

    /// The client's connection ends where it is: `delivered` octets of what it wrote have arrived, and `unread` of what
    /// came for it was not read.
    pub fn vanish(&mut self, delivered: u64, unread: &[u8], ctx: &mut Ctx<'_>) {
        ctx.trace.line(format_args!("client {} vanishes after {delivered} octets", self.me.session));
        ctx.cover.hit(Path::Vanished);
        if self.faced_loss || self.unlucky || self.was_refused(unread, ctx) {
            self.publishes_are_lost(ctx);
        }
        for channel in &mut self.channels {
            if channel.state != State::Free {
                channel.abandon(delivered, ctx);
            }
        }
        self.end_queues(ctx);
        self.stage = Stage::Gone;
    }

    /// Says when something must be written lest the other side think it dead, and does so.
    pub fn tick(&mut self, ctx: &mut Ctx<'_>) {
        let interval = u64::from(self.plan.heartbeat) * 500;
        let live = self.me.open && !self.vanishing && !matches!(self.stage, Stage::Gone);
        if live && interval > 0 && ctx.now >= self.last_written + interval {
            ctx.cover.hit(Path::HeartbeatSent);
            self.put(&HEARTBEAT_FRAME, ctx.now);
        }
    }

    /// Whether the other side has been silent for longer than heartbeats allow.
    pub fn check_heartbeat(&self, now: u64) -> Check {
        let limit = u64::from(self.plan.heartbeat) * 2000 + 1000;
        let silent = now.saturating_sub(self.last_received);
        if self.me.open && self.plan.heartbeat > 0 && silent > limit && self.stage == Stage::Open {
            return Err(format!("client {} has heard nothing for {silent} ms", self.me.session));
        }
        Ok(())
    }

    /// Appends whole frames to the stream.
    fn put(&mut self, bytes: &[u8], now: u64) {
        self.tx.extend_from_slice(bytes);
        self.written += bytes.len() as u64;
        self.last_written = now;
    }

    fn put_method(&mut self, channel: u16, method: Method<'_>, ctx: &mut Ctx<'_>) {
        let mut bytes = Vec::new();
        method.write(channel, &mut bytes);
        self.note(&bytes, ctx);
        self.put(&bytes, ctx.now);
    }

    /// Tells the story of frames that are written.
    fn note(&self, bytes: &[u8], ctx: &mut Ctx<'_>) {
        let mut at = 0;
        while ctx.trace.on()
            && let Ok(Some(frame)) = frame::next_frame(bytes, at, u32::MAX)
        {
            let what = describe(frame.kind, frame.payload(bytes));
            ctx.trace.line(format_args!("client {} puts ch {} {what}", self.me.session, frame.channel));
            at = frame.end;
        }
    }

    /// Exclusive queues go with their connection.
    fn end_queues(&mut self, ctx: &mut Ctx<'_>) {
        for queue in &mut ctx.oracle.queues {
            if queue.owner == Some(self.me.session) {
                queue.owner = None;
                queue.deleted = true;
            }
        }
    }
}
