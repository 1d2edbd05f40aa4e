//! Connections to brokers and the channels on them.

use std::collections::VecDeque;

use warren_wire::method::{Method, MethodId, basic, exchange};

use crate::channel::Mode;
use crate::config::{BackendId, FarmId};
use crate::ids::{ChannelId, LoginId, SessionId, TenantId, UpChannelId, UpstreamId};
use crate::numbers::UpNumbers;
use crate::outbox::Outbox;
use crate::risks::{Kind, Risk};
use crate::session::Tune;
use crate::sources::Sources;
use crate::tags::TagSet;
use crate::time::Time;
use crate::tries::Tries;

/// What an upstream connection is for. Brokers stop reading a whole connection whose publishing is held back, so
/// publishing and consuming do not share one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Nobody has needed it yet.
    Any,
    /// Requests and plain consuming.
    Control,
    /// Publishing.
    Publish,
    /// Channels that publish and consume.
    Mixed,
    /// Requests of which nobody knows whether the broker closes the connection for them.
    Quarantine,
    /// One session's own.
    Lane,
    /// The other end of a dedicated session.
    Dedicated,
}

impl Purpose {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Purpose::Any => "any",
            Purpose::Control => "control",
            Purpose::Publish => "publish",
            Purpose::Mixed => "mixed",
            Purpose::Quarantine => "quarantine",
            Purpose::Lane => "lane",
            Purpose::Dedicated => "dedicated",
        }
    }
}

/// How far an upstream connection is.
///
/// ```text
/// Connecting -> Greeting -> Greeted -> Verifying -> Verified -> Opening -> Ready -> Closing -> Ended
/// ```
/// `Greeted` waits for credentials, `Verified` for a virtual host; both only for a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Stage {
    Connecting,
    Greeting,
    Greeted,
    Verifying,
    Verified,
    Opening,
    Ready,
    Closing,
    Ended,
}

/// A connection to a broker.
pub(crate) struct Upstream {
    pub(crate) farm: FarmId,
    pub(crate) backend: BackendId,
    pub(crate) stage: Stage,
    pub(crate) purpose: Purpose,
    /// Members that were tried before this one; `None`: it has to be this one.
    pub(crate) tries: Option<Box<Tries>>,
    /// It counts among its farm's inquiries.
    pub(crate) inquires: bool,
    /// It counts among those that are being made for pools and lanes.
    pub(crate) dialled: bool,
    /// Whose credentials it carries; `None` until it is needed for somebody.
    pub(crate) login: Option<LoginId>,
    /// Whose pools it belongs to.
    pub(crate) tenant: Option<TenantId>,
    /// Whose lane it is, or whose other end. The session may be gone already.
    pub(crate) session: Option<SessionId>,
    pub(crate) tune: Tune,
    pub(crate) numbers: UpNumbers,
    /// Clean plain channels that nobody uses, the one used last at the end.
    pub(crate) idle_plain: Vec<UpChannelId>,
    /// Clean confirm channels that nobody uses.
    pub(crate) idle_confirm: Vec<UpChannelId>,
    pub(crate) idle_since: Time,
    pub(crate) outbox: Outbox,
    pub(crate) flushing: bool,
    /// Sessions that wait for room in the outbox, in order.
    pub(crate) stalled: VecDeque<SessionId>,
    /// Channels of publishers without confirms, until they pause.
    pub(crate) watched: Vec<UpChannelId>,
    /// Since when it has had no room for more.
    pub(crate) full_since: Option<Time>,
    /// A timer will look at that.
    pub(crate) fullness_watched: bool,
    /// Set while the broker reads no publishes, with its reason.
    pub(crate) blocked: Option<Box<[u8]>>,
    /// A lane is not read while its session does not read.
    pub(crate) held_back: bool,
    /// Octets that a frame still lacks of which the beginning was passed on: only for dedicated sessions.
    pub(crate) lacks: u64,
    pub(crate) deadline: Option<Time>,
    /// When its timer will look at it.
    pub(crate) armed: Option<Time>,
    pub(crate) last_received: Time,
    pub(crate) last_sent: Time,
    /// Why it ends: index into the reasons of the metrics, and a text.
    pub(crate) ending: Option<(usize, String)>,
}

impl Upstream {
    /// Channels that somebody uses or that still have something to prove.
    pub(crate) fn busy(&self) -> usize {
        self.numbers.len() - self.idle_plain.len() - self.idle_confirm.len()
    }
}

/// Why a reply is awaited, and what to note when it comes.
#[derive(Debug)]
pub(crate) enum Note {
    Plain,
    /// `exclusive`: it is, and whether it goes with its last consumer.
    Declare {
        exclusive: Option<bool>,
        lasting: Option<bool>,
        kind: Option<Kind>,
    },
    /// Its success shows that it is safe.
    Risky {
        risk: Risk,
        queue: Box<[u8]>,
    },
    Delete {
        name: Box<[u8]>,
    },
    Consume {
        tag: Box<[u8]>,
    },
    Cancel {
        tag: Box<[u8]>,
    },
    Get {
        no_ack: bool,
        queue: Box<[u8]>,
    },
    Recover,
    Commit,
    Rollback,
}

/// The request to send again when its connection is lost before it was answered: its frame. `None`: it cannot be
/// known whether it was carried out, and doing it twice is not the same as doing it once.
pub(crate) type Again = Option<Box<[u8]>>;

/// What is awaited on an upstream channel, in order.
#[derive(Debug)]
pub(crate) enum Pending {
    /// channel.open-ok.
    Open,
    /// flow-ok, or declare-ok of the reply-to queue: everything before it was processed.
    Barrier,
    /// A reply for the client.
    Client(MethodId, Note, Again),
    /// A reply to Warren's own request.
    Own(MethodId, Note, Again),
    /// Frames of Warren's for the client, at their turn.
    Local(Box<[u8]>),
}

impl Pending {
    /// Whether a later request may be answered before it. RabbitMQ answers tx.commit from its queues too.
    pub(crate) fn may_be_overtaken(&self) -> bool {
        let commit = matches!(self, Pending::Client(_, Note::Commit, _) | Pending::Own(_, Note::Commit, _));
        commit || matches!(self, Pending::Local(_)) || self.is_late() && !matches!(self, Pending::Open)
    }

    /// Whether its answer says nothing of what was sent before or after it: a barrier does not wait for it.
    fn is_late(&self) -> bool {
        let note = match self {
            Pending::Open => return true,
            Pending::Client(_, note, _) | Pending::Own(_, note, _) => note,
            Pending::Barrier | Pending::Local(_) => return false,
        };
        matches!(note, Note::Consume { .. } | Note::Cancel { .. })
    }

    /// Whether this reply answers it. Replies come in the order of the requests, except those that a queue gives
    /// (consume-ok, cancel-ok, commit-ok): they may be overtaken by others, so kinds and tags are compared.
    pub(crate) fn is_answered_by(&self, reply: &Method<'_>) -> bool {
        match (self, reply) {
            (Pending::Open, Method::ChannelOpenOk) => true,
            (Pending::Barrier, Method::ChannelFlowOk(_)) => true,
            (Pending::Barrier, Method::QueueDeclareOk(ok)) => ok.queue == REPLY_TO,
            (Pending::Client(_, Note::Cancel { tag }, _) | Pending::Own(_, Note::Cancel { tag }, _), _) => {
                matches!(reply, Method::BasicCancelOk(ok) if *ok.consumer_tag == **tag)
            }
            (Pending::Client(_, Note::Consume { tag }, _) | Pending::Own(_, Note::Consume { tag }, _), _) => {
                matches!(reply, Method::BasicConsumeOk(ok) if *ok.consumer_tag == **tag)
            }
            (Pending::Client(request, ..) | Pending::Own(request, ..), _) => match (*request, reply) {
                (basic::GET, Method::BasicGetOk(_) | Method::BasicGetEmpty) => true,
                (exchange::UNBIND, Method::ExchangeUnbindOk) => true,
                (request, reply) => reply.id() == request + 1,
            },
            _ => false,
        }
    }
}

/// The queue that everybody may declare passively (direct reply-to): a barrier that works on every broker.
pub(crate) const REPLY_TO: &[u8] = b"amq.rabbitmq.reply-to";

/// A content on its way from the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    None,
    Header,
    Body(u64),
}

/// A channel on an upstream connection.
pub(crate) struct UpChannel {
    pub(crate) upstream: UpstreamId,
    pub(crate) number: u16,
    /// Who uses it.
    pub(crate) owner: Option<ChannelId>,
    /// Warren has sent channel.close; close-ok is awaited.
    pub(crate) closing: bool,
    pub(crate) idle: bool,
    pub(crate) mode: Mode,
    pub(crate) opened_at: Time,
    /// It saw something that outlives its client (a consumer, qos, tx): it is not used again.
    pub(crate) dirty: bool,
    /// It published without confirms, or sent requests without a reply, since the last barrier.
    pub(crate) unproven: bool,
    /// Something of that kind is covered by a barrier that has not come back.
    pub(crate) unproven_before_barrier: bool,
    /// It published without confirms since the last barrier: what became of it is known when the next is back.
    pub(crate) risky: bool,
    /// Something of that kind is covered by a barrier that has not come back.
    pub(crate) risky_before_barrier: bool,
    /// It published since a look was taken whether its publisher pauses.
    pub(crate) busy: bool,
    /// It waits for that look.
    pub(crate) watched: bool,
    /// Its owner has given a delivery back, by nack or reject.
    pub(crate) has_refused: bool,
    /// Its owner has published at all.
    pub(crate) has_published: bool,
    /// Publish numbers whose confirm is awaited.
    pub(crate) unconfirmed: TagSet,
    /// The last of them that a barrier has been sent after.
    pub(crate) barrier_after: u64,
    /// Whose the unsettled deliveries are.
    pub(crate) sources: Sources,
    /// Delivery tags that are not settled.
    pub(crate) unacked: TagSet,
    pub(crate) pending: VecDeque<Pending>,
    pub(crate) incoming: Incoming,
    /// The consumer whose message's header comes next and is to be looked at.
    pub(crate) heading: u32,
    /// The prefetch that was told to it last, for consumers and for the channel.
    pub(crate) applied_prefetch: Option<u16>,
    pub(crate) applied_global: Option<u16>,
    /// The content that is under way interests nobody.
    pub(crate) discarding: bool,
    /// When a channel without owner is given up.
    pub(crate) deadline: Option<Time>,
}

impl UpChannel {
    /// channel.open-ok is awaited.
    pub(crate) fn is_opening(&self) -> bool {
        self.pending.iter().any(|p| matches!(p, Pending::Open))
    }

    /// Everything that was sent on it has been processed, and nothing is under way; only confirms may follow.
    pub(crate) fn is_routed(&self) -> bool {
        !self.unproven
            && self.incoming == Incoming::None
            && self.pending.iter().all(Pending::is_late)
            && self.unconfirmed.highest().is_none_or(|last| last <= self.barrier_after)
    }

    /// Nothing that was sent on it is open.
    pub(crate) fn is_proven(&self) -> bool {
        self.is_routed() && self.unconfirmed.is_empty()
    }

    /// Every publish was confirmed and nothing else is open: as good as a barrier that has come back.
    pub(crate) fn is_settled(&self) -> bool {
        !self.unproven
            && !self.unproven_before_barrier
            && self.incoming == Incoming::None
            && self.unconfirmed.is_empty()
            && self.pending.iter().all(|p| matches!(p, Pending::Open | Pending::Barrier))
    }

    /// Whether a barrier is on its way that covers everything sent so far.
    pub(crate) fn barrier_is_out(&self) -> bool {
        matches!(self.pending.back(), Some(Pending::Barrier))
            && !self.unproven
            && self.unconfirmed.highest().is_none_or(|last| last <= self.barrier_after)
    }
}
