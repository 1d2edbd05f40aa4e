//! The record of a client's channel: what the client has established, plus a binding that can change.

use std::collections::{BTreeSet, VecDeque};

use crate::ids::{SessionId, UpChannelId};
use crate::outbox::Outbox;
use crate::ranges::Ranges;
use crate::segments::Segments;
use crate::streams::Reading;
use crate::time::Time;
use crate::turns::Turns;
use crate::upstream::{Pending, Purpose};

/// Whether a channel is there for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// In use.
    Open,
    /// The client has closed it: close-ok follows when its publishes are known to have been processed.
    Closing,
    /// Warren has closed it with an error: everything but close and close-ok is ignored.
    Refused,
}

/// Publisher confirms, transactions, or neither (AMQP 0-9-1 sections 1.8.3.3 and 1.9, and RabbitMQ's confirm class).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Plain,
    Confirm,
    Tx,
}

/// What a publish still lacks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// No content is under way.
    None,
    /// The method has come, the header is next.
    Header,
    /// So many octets of body are missing.
    Body(u64),
}

/// What an incomplete publish has of the memory budget.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Claim {
    #[default]
    None,
    /// It needed no reservation.
    Small,
    /// Its reservation was granted.
    Reserved,
    /// Its turn has not come.
    Waiting,
}

impl Claim {
    /// Whether it has memory that others may wait for.
    pub(crate) fn holds(self) -> bool {
        matches!(self, Claim::Small | Claim::Reserved)
    }
}

/// A channel on its way from one binding to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Switch {
    /// Frames pass.
    None,
    /// The present binding must prove what it has before the next one is used.
    Proving { to: Purpose, why: usize },
    /// The present binding must prove what it has before the next frame: an ack for an older binding, or an error.
    ProvingFirst,
    /// A binding for this purpose is awaited.
    Binding { why: usize, rebound: bool },
    /// Replies to earlier requests are awaited, from another binding or before an error.
    Awaiting,
    /// What was given back on older bindings must be back in its queues before the next frame, which may ask for it.
    Requeueing,
}

/// A consumer and all that is needed to begin it again elsewhere.
#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) tag: Box<[u8]>,
    pub(crate) queue: Box<[u8]>,
    pub(crate) no_local: bool,
    pub(crate) no_ack: bool,
    pub(crate) exclusive: bool,
    /// The encoded argument table.
    pub(crate) arguments: Box<[u8]>,
    /// The prefetch that was in force when it began.
    pub(crate) prefetch: Option<u16>,
    pub(crate) up: UpChannelId,
    pub(crate) state: ConsumerState,
    /// Its number on the channel, from 1.
    pub(crate) source: u32,
    /// What must be settled on the old binding before it begins again.
    pub(crate) settling: Vec<u64>,
    /// But no longer than until then.
    pub(crate) settling_until: Time,
    /// Direct reply-to: its deliveries do not count, and it cannot move.
    pub(crate) reply_to: bool,
    /// It must stay where it is: exclusive, direct reply-to, or on a stream.
    pub(crate) fixed: bool,
    /// Where it reads, if its queue is a stream.
    pub(crate) reading: Reading,
    /// The headers of its messages are looked at for that.
    pub(crate) watched: bool,
    /// Warren began it again: a refusal is not the answer to a request of its client.
    pub(crate) replayed: bool,
    /// Until then an exclusive one that is refused is begun again: the broker may not have noticed that it was lost.
    pub(crate) patience: Time,
}

/// Where a consumer is on its way between two bindings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConsumerState {
    /// consume-ok is awaited.
    Starting,
    /// It delivers.
    Active,
    /// Being moved: cancel-ok of the old binding is awaited.
    Cancelling,
    /// Being moved: what the old binding delivered to it must be settled, because its prefetch is small.
    Settling,
    /// The client has cancelled it; its cancel-ok is awaited.
    Ending,
}

/// An error that closes a channel: code, text, class and method.
#[derive(Debug)]
pub(crate) struct ChannelFault {
    pub(crate) code: u16,
    pub(crate) text: Vec<u8>,
    pub(crate) at: (u16, u16),
}

/// What a transaction has settled so far. It counts only once the broker has committed it.
#[derive(Debug, Default)]
pub(crate) struct Transaction {
    /// Deliveries, by binding and its number.
    pub(crate) settled: BTreeSet<(UpChannelId, u64)>,
    /// Frames for older bindings, which know nothing of the transaction: they follow its commit.
    pub(crate) deferred: Vec<(UpChannelId, Vec<u8>)>,
    /// What was lost before it, if it has settled something of that: outstanding again after a rollback.
    pub(crate) lost: Option<Ranges>,
}

impl Transaction {
    /// Whether it has settled anything. What it has published makes its binding risky.
    pub(crate) fn has_begun(&self) -> bool {
        !self.settled.is_empty() || self.lost.is_some()
    }
}

/// One client's channel.
pub(crate) struct Channel {
    pub(crate) session: SessionId,
    pub(crate) number: u16,
    /// It counts among the channels of its session's limits.
    pub(crate) counts: bool,
    /// Messages up to this size need no look at limits.
    pub(crate) usual_message: u64,
    pub(crate) standing: Standing,
    pub(crate) mode: Mode,
    pub(crate) purpose: Purpose,
    pub(crate) current: Option<UpChannelId>,
    /// Older bindings with something left on them: confirms, deliveries to settle, consumers that cannot move.
    pub(crate) older: Vec<UpChannelId>,
    pub(crate) switch: Switch,
    /// Why it has its current binding.
    pub(crate) moved_for: usize,
    /// It must stay where it is: an open transaction, or direct reply-to.
    pub(crate) pinned: bool,
    pub(crate) waiting_since: Time,
    /// Frames that wait until the switch is over.
    pub(crate) held: Vec<u8>,
    pub(crate) content: Content,
    /// A publish that is not complete yet, its frames numbered for `assembled_for`.
    pub(crate) assembly: Option<Box<Outbox>>,
    pub(crate) assembled_for: u16,
    /// Octets of body that it announced.
    pub(crate) announced: u64,
    pub(crate) claim: Claim,
    /// When it was last seen to go on, and what it lacked then.
    pub(crate) progress: (Time, u64),
    /// The queue declared last: what an empty name means.
    pub(crate) last_queue: Box<[u8]>,
    /// Prefetch for consumers begun from now on; `None`: never set.
    pub(crate) prefetch: Option<u16>,
    pub(crate) global_prefetch: Option<u16>,
    pub(crate) consumers: Vec<Consumer>,
    /// The number of the consumer begun last.
    pub(crate) last_source: u32,
    /// The consumer of the last delivery, to spare a search.
    pub(crate) recent_consumer: usize,
    /// The client's next publish number (confirm mode), from 1.
    pub(crate) next_publish: u64,
    pub(crate) publishes: Segments,
    /// The client's next delivery tag, from 1.
    pub(crate) next_delivery: u64,
    pub(crate) deliveries: Segments,
    /// Replies that the client awaits, and the binding they come from.
    pub(crate) awaiting: u32,
    pub(crate) awaiting_on: UpChannelId,
    /// Declares on their way: until they are answered, an empty queue name means nothing yet.
    pub(crate) naming: u32,
    /// The binding that is in the middle of a content towards the client.
    pub(crate) speaking: Option<UpChannelId>,
    /// What waits for the end of its content, in the order in which it came.
    pub(crate) turns: Turns,
    /// What a lost binding still owed, in order: sent again on the next one.
    pub(crate) again: VecDeque<Pending>,
    /// Deliveries that a lost binding had made and that were not settled, under the client's numbers: they come again,
    /// and what the client says of these is of no more interest.
    pub(crate) lost: Ranges,
    /// An open transaction.
    pub(crate) tx: Option<Box<Transaction>>,
    /// An error that waits for the content that is under way towards the client.
    pub(crate) fault: Option<Box<ChannelFault>>,
}

impl Channel {
    pub(crate) fn new(session: SessionId, number: u16, usual_message: u64) -> Channel {
        Channel {
            session,
            number,
            counts: false,
            usual_message,
            standing: Standing::Open,
            mode: Mode::Plain,
            purpose: Purpose::Control,
            current: None,
            older: Vec::new(),
            switch: Switch::None,
            moved_for: 0,
            pinned: false,
            waiting_since: Time::default(),
            held: Vec::new(),
            content: Content::None,
            assembly: None,
            assembled_for: 0,
            announced: 0,
            claim: Claim::None,
            progress: (Time::default(), u64::MAX),
            last_queue: Box::default(),
            prefetch: None,
            global_prefetch: None,
            consumers: Vec::new(),
            last_source: 0,
            recent_consumer: 0,
            next_publish: 1,
            publishes: Segments::default(),
            next_delivery: 1,
            deliveries: Segments::default(),
            awaiting: 0,
            awaiting_on: UpChannelId::default(),
            naming: 0,
            speaking: None,
            turns: Turns::default(),
            again: VecDeque::new(),
            lost: Ranges::default(),
            tx: None,
            fault: None,
        }
    }

    /// Frames pass to the current binding without further thought.
    #[inline]
    pub(crate) fn flows(&self) -> bool {
        self.standing == Standing::Open
            && self.switch == Switch::None
            && self.fault.is_none()
            && self.held.is_empty()
            && self.current.is_some()
    }

    /// It waits for a binding only to have one: nothing that its client has sent is left to be done there.
    pub(crate) fn only_waits(&self) -> bool {
        matches!(self.switch, Switch::Binding { .. })
            && self.content == Content::None
            && self.held.is_empty()
            && self.again.is_empty()
            && self.older.is_empty()
            && self.fault.is_none()
    }

    /// All bindings, the current one last.
    pub(crate) fn bindings(&self) -> Vec<UpChannelId> {
        self.older.iter().copied().chain(self.current).collect()
    }

    /// The consumer with this tag.
    #[inline]
    pub(crate) fn consumer(&mut self, tag: &[u8]) -> Option<usize> {
        if self.consumers.get(self.recent_consumer).is_some_and(|c| *c.tag == *tag) {
            return Some(self.recent_consumer);
        }
        let at = self.consumers.iter().position(|c| *c.tag == *tag)?;
        self.recent_consumer = at;
        Some(at)
    }

    /// Nothing is on its way that the order of answers depends on: replies, names, contents, consumers that begin
    /// or end (RabbitMQ closes the connection for a cancel before its consume-ok).
    pub(crate) fn is_quiet(&self) -> bool {
        let between = |c: &Consumer| {
            matches!(c.state, ConsumerState::Starting | ConsumerState::Cancelling | ConsumerState::Ending)
        };
        self.awaiting == 0
            && self.naming == 0
            && self.speaking.is_none()
            && !self.consumers.iter().any(between)
    }

    /// Whether nothing may be written to the client now but the content that is under way.
    pub(crate) fn is_held_up(&self) -> bool {
        self.speaking.is_some() || !self.turns.is_empty()
    }

    /// Whether anything of it lives on this binding besides numbers.
    pub(crate) fn consumes_on(&self, up: UpChannelId) -> bool {
        self.consumers.iter().any(|c| c.up == up)
    }
}
