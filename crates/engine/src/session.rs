//! A session: one client connection, from accept to close.

use std::collections::BTreeMap;

use zeroize::Zeroizing;

use crate::allowances::Pass;
use crate::api::Peer;
use crate::config::{BackendId, CloseMode, FarmId, OnLoss};
use crate::dedicated::Dedicated;
use crate::ids::{ChannelId, LoginId, TenantId, UpstreamId};
use crate::numbers::SessionChannels;
use crate::outbox::Outbox;
use crate::tenant::NodeId;
use crate::time::Time;

/// What a session is doing. Handshake, then [`Phase::Running`], then one of the endings.
///
/// ```text
/// Header -> Greeting -> StartOk -> Verifying -> TuneOk -> Open -> Authorizing -> Entering -> Running
///   any of them -> CloseSent -> Ended          (Warren closed it)
///   Running -> Leaving -> Ended                (the client closed it: channels and lanes first)
///   Running -> Gone                            (the socket broke: complete publishes go on)
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// The protocol header is awaited.
    Header,
    /// The broker's server properties are awaited; then start is sent.
    Greeting,
    /// connection.start-ok is awaited.
    StartOk,
    /// The broker checks the credentials.
    Verifying,
    /// connection.tune-ok is awaited.
    TuneOk,
    /// connection.open is awaited.
    Open,
    /// The auth service is asked.
    Authorizing,
    /// The broker checks the virtual host.
    Entering,
    /// The client works.
    Running,
    /// The client sent connection.close; what it published is being proven.
    Leaving,
    /// Warren sent connection.close; close-ok is awaited, everything else is ignored.
    CloseSent,
    /// The client's socket is gone; what it had published completely is still on its way.
    Gone,
    /// Nothing is read or written any more, what waits is flushed.
    Ended,
}

impl Phase {
    /// Whether the client's frames must wait for the broker.
    pub(crate) fn waits(self) -> bool {
        matches!(self, Phase::Greeting | Phase::Verifying | Phase::Authorizing | Phase::Entering)
    }

    /// Whether the handshake is still going on.
    pub(crate) fn is_handshake(self) -> bool {
        !matches!(self, Phase::Running | Phase::Leaving | Phase::CloseSent | Phase::Gone | Phase::Ended)
    }
}

/// What a client announced in its properties.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Capabilities {
    pub(crate) consumer_cancel_notify: bool,
    pub(crate) connection_blocked: bool,
    pub(crate) authentication_failure_close: bool,
    pub(crate) basic_nack: bool,
}

/// What was negotiated on a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Tune {
    /// 0: no limit.
    pub(crate) channel_max: u16,
    /// 0: no limit.
    pub(crate) frame_max: u32,
    /// Seconds; 0: none.
    pub(crate) heartbeat: u16,
}

impl Default for Tune {
    /// RabbitMQ's defaults (BROKER-FACTS, "Timing").
    fn default() -> Tune {
        Tune { channel_max: 2047, frame_max: 131_072, heartbeat: 60 }
    }
}

impl Tune {
    /// The largest payload of one frame.
    pub(crate) fn max_payload(self) -> u32 {
        match self.frame_max {
            0 => u32::MAX - 8,
            max => max - 8,
        }
    }
}

/// Who a client says it is. Kept only until the session has its tenant, or travels in a [`HandOff`].
#[derive(Clone, Default)]
pub(crate) struct Credentials {
    pub(crate) mechanism: Vec<u8>,
    pub(crate) response: Zeroizing<Vec<u8>>,
    pub(crate) user: String,
}

impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Credentials({})", self.user)
    }
}

/// What another worker needs to know of a session that moves to it.
#[derive(Debug)]
pub struct HandOff {
    /// Octets that were not yet written to the client: the first in the new outbox.
    pub unsent: Vec<u8>,
    pub(crate) peer: Peer,
    pub(crate) credentials: Credentials,
    /// The member of a farm whose turn it was when it came.
    pub(crate) turn: Option<(FarmId, BackendId)>,
    /// When the broker accepted the credentials.
    pub(crate) verified_at: Option<Time>,
    pub(crate) capabilities: Capabilities,
    pub(crate) tune: Tune,
    /// What the farm offers, which the other worker may not have learned yet.
    pub(crate) farm_tune: Option<Tune>,
    pub(crate) vhost: String,
    pub(crate) route: crate::config::RouteId,
    /// The limits that concern it.
    pub(crate) pass: Option<Box<Pass>>,
    /// The auth service gave it other credentials than its client's.
    pub(crate) recredited: bool,
}

/// What is known of an exclusive queue.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Exclusive {
    /// It goes with its last consumer.
    pub(crate) auto_delete: bool,
    /// It has had one.
    pub(crate) consumed: bool,
}

/// One client connection.
pub(crate) struct Session {
    pub(crate) peer: Peer,
    pub(crate) phase: Phase,
    pub(crate) opened_at: Time,
    /// Its handshake counts among those in progress.
    pub(crate) knocks: bool,
    /// When the present step of the handshake, a wait or an ending is over at the latest.
    pub(crate) deadline: Option<Time>,
    pub(crate) credentials: Option<Box<Credentials>>,
    pub(crate) login: Option<LoginId>,
    /// Credentials with a new secret, which the broker is being asked about.
    pub(crate) rekeying: Option<LoginId>,
    /// Answers that are owed for that: a client may say several before it hears of the first.
    pub(crate) rekeys: u32,
    pub(crate) tenant: Option<TenantId>,
    /// The member of a farm whose turn it was when it came; once it is let in, the node that it belongs to.
    pub(crate) turn: Option<(FarmId, BackendId)>,
    pub(crate) vhost: Box<str>,
    pub(crate) capabilities: Capabilities,
    pub(crate) tune: Tune,
    /// What the client may send now, in octets of payload.
    pub(crate) max_payload: u32,
    pub(crate) channels: SessionChannels,
    /// What it needs to be dedicated; before its virtual host is known: to become it.
    pub(crate) dedicated: Option<Box<Dedicated>>,
    /// The name of its address is being looked up.
    pub(crate) naming: bool,
    /// The own lane: an upstream connection that this session has for itself. A dedicated session has nothing else.
    pub(crate) lane: Option<UpstreamId>,
    /// Exclusive queues, which live on the lane.
    pub(crate) exclusive: BTreeMap<Box<[u8]>, Exclusive>,
    pub(crate) outbox: Outbox,
    /// A flush command is on its way.
    pub(crate) flushing: bool,
    /// The upstream that has no room for this session's frames.
    pub(crate) stalled_on: Option<UpstreamId>,
    /// The client does not read what it asked for.
    pub(crate) outbox_full: bool,
    /// Octets announced by publishes that are not complete.
    pub(crate) announced: u64,
    /// A publish has not got the memory that it needs.
    pub(crate) awaits_memory: bool,
    /// What it sent to brokers lately, and since when.
    pub(crate) recent_octets: (Time, u64),
    /// Upstreams that it uses alone and that are not read because it does not read.
    pub(crate) holds_back: Vec<UpstreamId>,
    /// A channel holds so many frames that the session must wait.
    pub(crate) held_full: bool,
    pub(crate) told_blocked: bool,
    pub(crate) last_received: Time,
    pub(crate) last_sent: Time,
    /// The channel used last, to spare a look-up.
    pub(crate) recent: (u16, ChannelId),
    /// When its timer will look at it.
    pub(crate) armed: Option<Time>,
    pub(crate) close: CloseMode,
    pub(crate) on_loss: OnLoss,
    /// The limits that concern it, and what it has of them. `None`: not known yet, or it has ended.
    pub(crate) pass: Option<Box<Pass>>,
    /// Its data is limited or watched.
    pub(crate) paced: bool,
    /// It waits for its turn to be read.
    pub(crate) reading_waits: bool,
    /// What waits for it waits for its turn to be written.
    pub(crate) writing_waits: bool,
    /// Its channels and messages are limited or watched: where frames pass as they are, they are looked at.
    pub(crate) counts_own: bool,
    /// Messages up to this size need no look at limits.
    pub(crate) usual_message: u64,
    /// Known once its virtual host is.
    pub(crate) route: Option<crate::config::RouteId>,
    /// The auth service gave it other credentials than its client's.
    pub(crate) recredited: bool,
    /// The name that the client gave its connection, until the auth service was asked.
    pub(crate) connection_name: Box<str>,
    /// It may have made a broker close a connection that others used: it gets its own.
    pub(crate) suspect_until: Time,
    /// Why it ends: index into the reasons of the metrics, and a text.
    pub(crate) ending: Option<(usize, String)>,
}

impl Session {
    /// Whether it waits for what the broker says of these credentials.
    pub(crate) fn asks_about(&self, login: LoginId) -> bool {
        self.phase == Phase::Verifying || self.phase == Phase::Running && self.rekeying == Some(login)
    }

    /// The node that it belongs to, once it is let in.
    pub(crate) fn node(&self) -> Option<BackendId> {
        self.turn.filter(|_| self.tenant.is_some()).map(|(_, backend)| backend)
    }

    /// The same with its tenant.
    pub(crate) fn place(&self) -> Option<NodeId> {
        self.tenant.zip(self.node()).map(|(tenant, backend)| NodeId { tenant, backend })
    }

    /// Whether frames pass as they are between it and an upstream connection of its own.
    #[inline]
    pub(crate) fn relays(&self) -> bool {
        self.dedicated.is_some() && matches!(self.phase, Phase::Running | Phase::Leaving)
    }

    /// Octets that the client's frame still lacks of which the beginning was passed on.
    pub(crate) fn lacks(&self) -> u64 {
        self.dedicated.as_ref().map_or(0, |d| d.lacks)
    }

    /// Of `octets` of the client, those that still belong to that frame are passed over. Returns how many.
    pub(crate) fn skip(&mut self, octets: usize) -> usize {
        self.dedicated.as_mut().map_or(0, |d| crate::dedicated::skip(&mut d.lacks, octets))
    }

    /// Whether its socket may be read.
    pub(crate) fn may_read(&self) -> bool {
        !self.phase.waits()
            && self.stalled_on.is_none()
            && !self.outbox_full
            && !self.held_full
            && !self.awaits_memory
            && !self.reading_waits
    }

    /// The channel with this number.
    #[inline]
    pub(crate) fn channel(&mut self, number: u16) -> Option<ChannelId> {
        if self.recent.0 == number && number != 0 {
            return Some(self.recent.1);
        }
        let id = self.channels.get(number)?;
        self.recent = (number, id);
        Some(id)
    }

    /// A number is free again.
    pub(crate) fn forget_channel(&mut self, number: u16) {
        self.channels.remove(number);
        self.recent = (0, ChannelId::default());
    }
}
