//! One channel of a client: what was sent and not answered, what it holds, and what goes out next.

use std::collections::{BTreeMap, VecDeque};

use warren_wire::Method;
use warren_wire::method::channel;

use super::content::Incoming;
use super::plan::Role;
use super::replies::{Expect, Mail};
use super::{Client, Ctx};
use crate::cover::Path;
use crate::oracle::chan::Settle;
use crate::oracle::message::MsgId;
use crate::oracle::{ChanIx, Kind, QueueIx};

/// How far a channel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The number is unused.
    Free,
    /// Open was sent; ops may follow it.
    Opening,
    /// Open-ok has come.
    Open,
    /// Close is on its way out, or its answer on its way in.
    Closing,
    /// The server has closed the channel; close-ok is on its way out. `await_ok`: our own close crossed, and its
    /// answer is still due.
    Answering {
        /// Whether close-ok will come.
        await_ok: bool,
    },
}

/// What publishes mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Nothing is told.
    Plain,
    /// Numbered and confirmed.
    Confirm,
    /// Held until commit.
    Tx,
}

/// Frames that go out together.
#[derive(Debug)]
pub struct Unit {
    /// Whole frames.
    pub bytes: Vec<u8>,
    /// What is true once they are written.
    pub mark: Mark,
}

/// What is true once a unit is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mark {
    /// Nothing to remember.
    Plain,
    /// The channel is in the middle of a content.
    ContentPart,
    /// A content is complete; `sealed` publishes and `settles` settlements can no longer be taken back.
    Seal {
        /// Publishes.
        sealed: usize,
        /// Settlements.
        settles: usize,
    },
    /// Our channel.close.
    Close,
    /// Our close-ok.
    CloseOk,
}

/// A delivery that this channel has to settle.
#[derive(Clone, Copy, Debug)]
pub struct Held {
    /// Which message.
    pub msg: MsgId,
    /// By which consumer; `None` for one that was got.
    pub consumer: Option<usize>,
    /// Whether the broker still waits for it.
    pub hold: Hold,
}

/// Whether the broker waits for what a client holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hold {
    /// It does.
    Fresh,
    /// It has taken it back at a loss, as far as can be known from outside.
    Unsure,
    /// It has taken it back at a loss: settling it must come to nothing.
    Stale,
}

/// How far a consumer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Consume was sent.
    Asked,
    /// Consume-ok has come.
    Active,
    /// Cancel was sent; deliveries may still come.
    Cancelling,
    /// Over.
    Ended,
}

/// A consumer. It keeps its place in the list when it has ended.
#[derive(Debug)]
pub struct Consumer {
    /// Empty while the server has not told the one it chose.
    pub tag: Vec<u8>,
    /// Where its deliveries come from.
    pub queue: QueueIx,
    /// Nothing to settle.
    pub no_ack: bool,
    /// Most unsettled deliveries; 0 is no limit.
    pub prefetch: u16,
    /// Unsettled deliveries.
    pub unacked: u16,
    /// How far it is.
    pub life: Life,
    /// Of the direct reply-to pseudo queue.
    pub reply: bool,
    /// Where the last delivery that was not a second one stood among all that the broker took.
    pub last: u64,
    /// Taken back by the broker while they were, perhaps, on their way here.
    pub orphans: Vec<(MsgId, u64)>,
}

impl Consumer {
    /// Whether its client has left its name to the broker and does not know it yet.
    pub fn is_unnamed(&self) -> bool {
        self.tag.is_empty() && self.life == Life::Asked
    }
}

/// A queue of this channel's own, whose content nobody else touches.
#[derive(Debug)]
pub struct Own {
    /// Which.
    pub queue: QueueIx,
    /// Its name is known here.
    pub named: bool,
    /// Key by which it is bound to the direct exchange.
    pub bound: Option<Vec<u8>>,
    /// What is in it, while nobody consumes from it: `None` when that is not known.
    pub content: Option<VecDeque<MsgId>>,
    /// Goes with its last consumer.
    pub auto_delete: bool,
}

/// One channel number of a client, over one life after the other.
#[derive(Debug)]
pub struct Channel {
    /// On the wire.
    pub number: u16,
    /// This life of it.
    pub chan: ChanIx,
    /// What it is for.
    pub role: Role,
    /// How far it is.
    pub state: State,
    /// What publishes mean.
    pub mode: Mode,
    /// Answers due, in order.
    pub expect: VecDeque<Expect>,
    /// Answers that queues give in their own time.
    pub mail: Vec<Mail>,
    /// An error was committed: nothing after it counts.
    pub doomed: bool,
    /// To be written.
    pub outgoing: VecDeque<Unit>,
    /// What was written last is part of a content.
    pub in_content: bool,
    /// Our close was written.
    pub close_written: bool,
    /// The content that is coming.
    pub incoming: Option<Incoming>,
    /// Tag of the next delivery.
    pub next_tag: u64,
    /// To be settled, by tag.
    pub held: BTreeMap<u64, Held>,
    /// In order of their beginning.
    pub consumers: Vec<Consumer>,
    /// Prefetch of consumers to come.
    pub prefetch: u16,
    /// What an empty queue name means.
    pub last_queue: Option<QueueIx>,
    /// Something was declared in this life, so that an empty name is no error for sure.
    pub named_before: bool,
    /// Its own queue.
    pub own: Option<Own>,
    /// Number of the next publish in confirm mode.
    pub confirm_next: u64,
    /// Published and not confirmed.
    pub unconfirmed: BTreeMap<u64, MsgId>,
    /// To come back, in this order.
    pub returns_due: VecDeque<MsgId>,
    /// Published in the open transaction; whether it goes nowhere and must come back.
    pub tx_publishes: Vec<(MsgId, bool)>,
    /// Settled in the open transaction.
    pub tx_settles: Vec<(u64, Held, Settle)>,
    /// Commit was sent and not answered: nothing may follow it.
    pub committing: bool,
    /// Recover was sent and not answered: nothing may be settled.
    pub recovering: bool,
    /// Recovers that the broker had carried out for anybody before that.
    pub recovers_before: u64,
    /// Replies that a responder owes: the address and where it leads.
    pub owed: VecDeque<(Vec<u8>, QueueIx)>,
    /// Where replies to this channel's requests come to.
    pub reply_queue: Option<QueueIx>,
    /// A tag that was settled, for settling it again.
    pub settled_tag: Option<u64>,
    /// A loss has taken what the channel still speaks of: errors for want of it are no surprise.
    pub murky: bool,
    /// A publish may have been ignored behind a consumer that was refused.
    pub ignored: bool,
    /// Its error was answered with a nack, perhaps.
    pub spared: bool,
    /// It has published before it turned confirms on.
    pub plain_before: bool,
    /// When it last asked for what cannot be asked for twice, without waiting for an answer.
    pub risked_at: Option<u64>,
    /// Things left to do.
    pub acts: u32,
    /// Has declared or the like, published, consumed: for coverage.
    pub did: [bool; 3],
}

impl Channel {
    /// A number that nobody has used yet.
    pub fn new(number: u16) -> Channel {
        Channel {
            number,
            chan: 0,
            role: Role::Visitor,
            state: State::Free,
            mode: Mode::Plain,
            expect: VecDeque::new(),
            mail: Vec::new(),
            doomed: false,
            outgoing: VecDeque::new(),
            in_content: false,
            close_written: false,
            incoming: None,
            next_tag: 1,
            held: BTreeMap::new(),
            consumers: Vec::new(),
            prefetch: 0,
            last_queue: None,
            named_before: false,
            own: None,
            confirm_next: 1,
            unconfirmed: BTreeMap::new(),
            returns_due: VecDeque::new(),
            tx_publishes: Vec::new(),
            tx_settles: Vec::new(),
            committing: false,
            recovering: false,
            recovers_before: 0,
            owed: VecDeque::new(),
            reply_queue: None,
            settled_tag: None,
            murky: false,
            ignored: false,
            spared: false,
            plain_before: false,
            risked_at: None,
            acts: 0,
            did: [false; 3],
        }
    }

    /// Begins a life.
    pub fn open(&mut self, session: usize, strict: bool, role: Role, acts: u32, ctx: &mut Ctx<'_>) {
        let number = self.number;
        *self = Channel::new(number);
        self.chan = ctx.oracle.add_chan(session, number, strict);
        (self.role, self.acts, self.state) = (role, acts, State::Opening);
        self.request(&Method::ChannelOpen, Some(Expect::OpenOk));
        ctx.cover.hit(Path::ChannelOpened);
    }

    /// Sends a method; `expect` is its answer unless the channel is doomed.
    pub fn request(&mut self, method: &Method<'_>, expect: Option<Expect>) {
        self.send(method, Mark::Plain);
        if !self.doomed {
            self.expect.extend(expect);
        }
    }

    /// Sends a method that commits an error.
    pub fn offend(&mut self, method: &Method<'_>, codes: &'static [u16]) {
        self.request(method, Some(Expect::Error { codes, method: method.id() }));
        self.doomed = true;
    }

    /// Puts a method in line.
    pub fn send(&mut self, method: &Method<'_>, mark: Mark) {
        let mut bytes = Vec::new();
        method.write(self.number, &mut bytes);
        self.outgoing.push_back(Unit { bytes, mark });
    }

    /// Whether ops may be begun.
    pub fn is_usable(&self) -> bool {
        matches!(self.state, State::Opening | State::Open) && !self.committing
    }

    /// Whether nothing is due to this channel.
    pub fn is_settled(&self) -> bool {
        self.expect.is_empty()
            && self.mail.is_empty()
            && self.unconfirmed.is_empty()
            && self.returns_due.is_empty()
    }

    /// Asks for the end of the channel. What is on its way to consumers without acknowledgements is lost from now on, as
    /// the client has said that it wants nothing more.
    pub fn close(&mut self, ctx: &mut Ctx<'_>) {
        self.give_up_deliveries(ctx);
        let close = channel::Close { reply_code: 200, reply_text: b"done", class_id: 0, method_id: 0 };
        self.send(&Method::ChannelClose(close), Mark::Close);
        self.expect.push_back(Expect::CloseOk);
        self.state = State::Closing;
        if self.doomed {
            ctx.cover.hit(Path::CrossingClose);
        }
    }

    /// The life is over, and everything it held goes back.
    pub fn end(&mut self, ctx: &mut Ctx<'_>) {
        self.release(ctx);
        ctx.oracle.end_chan(self.chan);
        self.forget_queues(ctx);
        self.state = State::Free;
    }

    /// The client has vanished.
    pub fn abandon(&mut self, delivered: u64, ctx: &mut Ctx<'_>) {
        if self.in_content {
            ctx.cover.hit(Path::VanishedInContent);
        }
        ctx.oracle.vanish(self.chan, delivered);
        self.release(ctx);
        self.forget_queues(ctx);
        self.state = State::Free;
    }

    /// What was delivered and not settled is no longer held; what a transaction held never was.
    pub fn release(&mut self, ctx: &mut Ctx<'_>) {
        let held = std::mem::take(&mut self.held).into_values();
        let undone = std::mem::take(&mut self.tx_settles).into_iter().map(|(_, held, _)| held);
        let counted = held.chain(undone).filter(|held| held.hold != Hold::Stale);
        ctx.oracle.release(counted.map(|held| held.msg));
        for (id, _) in std::mem::take(&mut self.tx_publishes) {
            ctx.oracle.messages[id].fate = crate::oracle::message::Fate::Never;
        }
    }

    /// What is on its way to consumers without acknowledgements may be lost.
    pub(super) fn give_up_deliveries(&self, ctx: &mut Ctx<'_>) {
        let open = |c: &&Consumer| c.no_ack && c.life != Life::Ended;
        for consumer in self.consumers.iter().filter(open) {
            ctx.oracle.queues[consumer.queue].lossy = true;
        }
    }

    /// As [`Channel::give_up_deliveries`], and what was got as well; replies are lost.
    pub(super) fn forget_queues(&mut self, ctx: &mut Ctx<'_>) {
        self.give_up_deliveries(ctx);
        for expect in &self.expect {
            if let Expect::Get { queue, no_ack: true, .. } = *expect {
                ctx.oracle.queues[queue].lossy = true;
            }
        }
        if let Some(Incoming { queue: Some(queue), .. }) = self.incoming {
            ctx.oracle.queues[queue].lossy = true;
        }
        if let Some(queue) = self.reply_queue
            && ctx.oracle.queues[queue].kind == Kind::Reply
        {
            ctx.oracle.queues[queue].deleted = true;
        }
    }
}

impl Client {
    /// Writes the next unit of the channel at `place`. False when it has none.
    pub(super) fn write_unit(&mut self, place: usize, ctx: &mut Ctx<'_>) -> bool {
        let Some(unit) = self.channels[place].outgoing.pop_front() else { return false };
        let others_in_content = self
            .channels
            .iter()
            .enumerate()
            .any(|(at, c)| at != place && c.in_content && c.state != State::Free);
        if unit.mark == Mark::ContentPart && others_in_content {
            ctx.cover.hit(Path::Interleaved);
        }
        self.note(&unit.bytes, ctx);
        self.put(&unit.bytes, ctx.now);
        let end = self.written;
        let channel = &mut self.channels[place];
        channel.in_content = unit.mark == Mark::ContentPart;
        match unit.mark {
            Mark::Plain | Mark::ContentPart => {}
            Mark::Seal { sealed, settles } => {
                ctx.oracle.chans[channel.chan].seal(sealed, end);
                ctx.oracle.chans[channel.chan].seal_settles(settles, end);
            }
            Mark::Close => channel.close_written = true,
            Mark::CloseOk => match channel.state {
                State::Answering { await_ok: true } => channel.state = State::Closing,
                _ => channel.end(ctx),
            },
        }
        true
    }
}
