//! Credentials at a farm, and the pools that belong to them.

use std::collections::{BTreeMap, VecDeque};

use crate::config::{BackendId, FarmId};
use crate::ids::{ChannelId, LoginId, SessionId, TenantId, UpstreamId};
use crate::quota::Quota;
use crate::session::{Credentials, Tune};
use crate::time::Time;

/// A refusal as the broker gave it.
#[derive(Clone, Debug)]
pub(crate) struct Refusal {
    pub(crate) code: u16,
    pub(crate) text: Vec<u8>,
    pub(crate) class: u16,
    pub(crate) method: u16,
    pub(crate) at: Time,
}

/// What is known of a farm, learned from its brokers.
#[derive(Default)]
pub(crate) struct FarmState {
    /// The encoded server properties of its brokers, once one has been seen.
    pub(crate) properties: Option<Vec<u8>>,
    /// LavinMQ and unknown products get the barrier that works everywhere.
    pub(crate) is_rabbitmq: bool,
    /// A queue whose declare names no kind is a classic one. From RabbitMQ 3.11 on an operator may have chosen another.
    pub(crate) default_is_classic: bool,
    pub(crate) tune: Tune,
    /// Connections that were greeted and wait for credentials.
    pub(crate) greeted: Vec<UpstreamId>,
    /// Sessions that wait for the server properties.
    pub(crate) curious: Vec<SessionId>,
    /// Connection attempts that learn the properties.
    pub(crate) learning: usize,
    /// Attempts in a row that have failed, with every member.
    pub(crate) failures: u32,
    /// No new attempt before this moment.
    pub(crate) retry_at: Option<Time>,
    /// What is known of its members.
    pub(crate) members: BTreeMap<BackendId, MemberState>,
    /// Turns of sessions that did not come in: others take them, so that the spread stays even.
    pub(crate) turns: Vec<BackendId>,
    /// Inquiries that are being made.
    pub(crate) inquiring: usize,
    /// Of these, refused ones, that count on for a moment.
    pub(crate) refusals: usize,
    /// Inquiries that wait until another is done, for those who were let in before; they go first.
    pub(crate) inquiries_known: VecDeque<Inquiry>,
    /// The same for strangers.
    pub(crate) inquiries: VecDeque<Inquiry>,
    /// Connections that are being made for pools and lanes.
    pub(crate) dialling: usize,
    /// Those who want one while enough others are being made.
    pub(crate) dials: VecDeque<NodeId>,
    /// What is known of queues, by virtual host.
    pub(crate) known: BTreeMap<Box<str>, Known>,
}

/// What is known of one member of a farm, beside [`crate::balance`].
#[derive(Default)]
pub(crate) struct MemberState {
    /// Connections to it that could not be made, in a row.
    pub(crate) failures: u32,
    /// No new connection to it before this moment.
    pub(crate) retry_at: Option<Time>,
    /// What became of the last one that could not be made, and when.
    pub(crate) last_error: Option<(Time, String)>,
}

/// What a broker is asked before a session may run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inquiry {
    /// Whether the credentials are good.
    Login(LoginId),
    /// Whether they may use the virtual host.
    Tenant(TenantId),
    /// Both, on a dedicated session's own connection.
    Session(SessionId),
}

/// Credentials at one farm, and whether they are good.
pub(crate) struct Login {
    pub(crate) farm: FarmId,
    pub(crate) credentials: Credentials,
    pub(crate) verified_at: Option<Time>,
    /// Connections lost in a row while the broker checked them.
    pub(crate) losses: u32,
    pub(crate) refused: Option<Refusal>,
    /// The connection that is finding out.
    pub(crate) verifying: Option<UpstreamId>,
    /// It is among the farm's inquiries that wait.
    pub(crate) queued: bool,
    /// A connection whose credentials were accepted and that has no virtual host yet.
    pub(crate) parked: Option<UpstreamId>,
    pub(crate) waiters: Vec<SessionId>,
    pub(crate) tenants: BTreeMap<Box<str>, TenantId>,
    /// Sessions that name it.
    pub(crate) sessions: usize,
    /// Channels that the broker allows this user, once it has said that there were more.
    pub(crate) quota: Option<Quota>,
}

/// The pools of one farm, virtual host and credentials. What it knows holds for all nodes of the farm.
pub(crate) struct Tenant {
    pub(crate) login: LoginId,
    pub(crate) farm: FarmId,
    pub(crate) vhost: Box<str>,
    pub(crate) proven_at: Option<Time>,
    pub(crate) refused: Option<Refusal>,
    /// The connection that proves the virtual host.
    pub(crate) proving: Option<UpstreamId>,
    /// It is among the farm's inquiries that wait.
    pub(crate) queued: bool,
    /// Sessions that wait for it.
    pub(crate) entering: Vec<SessionId>,
    /// What it has at each member of the farm that it has used.
    pub(crate) nodes: BTreeMap<BackendId, Node>,
    pub(crate) sessions: usize,
    pub(crate) last_used: Time,
}

/// What is known of the queues of a virtual host, whoever has declared them.
#[derive(Default)]
pub(crate) struct Known {
    /// Queues known to outlive their last consumer, by name.
    pub(crate) lasting: Names,
    /// Queues known to be classic ones, by name.
    pub(crate) classic: Names,
    /// Queues known to be streams, by name.
    pub(crate) streams: Names,
    /// Risks that were taken and went well, with the queue's name.
    pub(crate) safe: Names,
}

impl Tenant {
    /// Whether channels wait anywhere.
    pub(crate) fn has_waiting(&self) -> bool {
        self.nodes.values().any(|n| !n.waiting.is_empty())
    }

    /// Shared connections to all nodes.
    pub(crate) fn upstreams(&self) -> impl Iterator<Item = UpstreamId> {
        self.nodes.values().flat_map(|n| n.upstreams.iter().copied())
    }
}

/// A tenant at one member of its farm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NodeId {
    pub(crate) tenant: TenantId,
    pub(crate) backend: BackendId,
}

/// What a tenant has at one member of its farm. All bindings of a session are at the same one.
#[derive(Default)]
pub(crate) struct Node {
    /// Shared connections, opening ones included, oldest first.
    pub(crate) upstreams: Vec<UpstreamId>,
    /// Channels that wait for a binding, in order.
    pub(crate) waiting: VecDeque<ChannelId>,
    /// Sessions that belong here.
    pub(crate) sessions: usize,
    pub(crate) last_used: Time,
    /// It is among those who want a connection while enough others are being made.
    pub(crate) dials: bool,
}

impl Node {
    pub(crate) const fn new() -> Node {
        Node {
            upstreams: Vec::new(),
            waiting: VecDeque::new(),
            sessions: 0,
            last_used: Time(0),
            dials: false,
        }
    }
}

/// A bounded set of names; the oldest is forgotten first.
#[derive(Default)]
pub(crate) struct Names {
    order: VecDeque<Box<[u8]>>,
    set: std::collections::BTreeSet<Box<[u8]>>,
}

/// Names remembered per virtual host: enough for any sensible number of queues, about 1 MB at worst.
const MAX_NAMES: usize = 4096;

impl Names {
    pub(crate) fn insert(&mut self, name: &[u8]) {
        if self.set.insert(name.into()) {
            self.order.push_back(name.into());
            if self.order.len() > MAX_NAMES
                && let Some(oldest) = self.order.pop_front()
            {
                self.set.remove(&oldest);
            }
        }
    }

    pub(crate) fn remove(&mut self, name: &[u8]) {
        if self.set.remove(name) {
            self.order.retain(|n| **n != *name);
        }
    }

    pub(crate) fn contains(&self, name: &[u8]) -> bool {
        self.set.contains(name)
    }
}
