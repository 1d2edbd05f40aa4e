//! What tests and a demonstration want to see.

use crate::broker::{Broker, ConnId};
use crate::channel::Mode;
use crate::connection::{Connection, Life, State};
use crate::core::Core;
use crate::queue::Queue;

/// Counts since the broker was made; a restart does not reset them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that reached `connection.open-ok`.
    pub connections_opened: u64,
    /// `channel.open-ok` sent.
    pub channels_opened: u64,
    /// Publishes that were complete and not refused, whether they were routed or not; in transactions, committed or not.
    pub publishes_accepted: u64,
    /// Messages written to clients: deliveries, direct replies and `basic.get-ok`.
    pub deliveries: u64,
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before `connection.open-ok`.
    Opening,
    /// Open.
    Open,
    /// `connection.close` was sent or answered.
    Closing,
    /// The broker has given it up, or it was disconnected.
    Over,
}

/// One queue at a moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueInfo {
    /// Messages ready for delivery.
    pub ready: usize,
    /// Messages given out and not settled, those on their way to a consumer included.
    pub unacked: usize,
    /// Consumers on all channels.
    pub consumers: usize,
    /// The connection that the queue is exclusive to.
    pub owner: Option<ConnId>,
}

impl Broker {
    /// Counts since the beginning.
    pub fn counters(&self) -> Counters {
        self.core.counters
    }

    /// Connections that are known, in the order in which they came; one that the broker has closed is known until
    /// [`Broker::disconnect`].
    pub fn connections(&self) -> impl Iterator<Item = ConnId> + '_ {
        self.conns.keys().copied()
    }

    /// Connections between `connection.open-ok` and the first close.
    pub fn connections_open(&self) -> usize {
        self.conns.values().filter(|c| c.state == State::Running).count()
    }

    /// How far a connection has come.
    pub fn phase(&self, conn: ConnId) -> Phase {
        match self.conns.get(&conn).map(|c| c.state) {
            Some(State::Header | State::Starting | State::Tuning | State::Opening) => Phase::Opening,
            Some(State::Running) => Phase::Open,
            Some(State::Closed { .. }) => Phase::Closing,
            Some(State::Gone { .. }) | None => Phase::Over,
        }
    }

    /// The heartbeat interval that the client asked for in `connection.tune-ok`, seconds; 0 for none, or not yet known.
    pub fn heartbeat(&self, conn: ConnId) -> u16 {
        self.conns.get(&conn).map_or(0, |c| c.heartbeat)
    }

    /// Open channels of a connection, by number.
    pub fn channels(&self, conn: ConnId) -> Vec<u16> {
        let Some(c) = self.conns.get(&conn) else {
            return Vec::new();
        };
        open_numbers(c).collect()
    }

    /// Open channels of all connections.
    pub fn channels_open(&self) -> usize {
        self.core.channels.len()
    }

    /// Confirms that a channel has not written yet. 0 for one that is not in confirm mode.
    pub fn confirms_due(&self, conn: ConnId, channel: u16) -> usize {
        let key = self.conns.get(&conn).and_then(|c| c.channel_key(channel));
        match key.and_then(|key| self.core.channels.get(key)).map(|c| &c.mode) {
            Some(Mode::Confirm(confirms)) => confirms.outstanding(),
            _ => 0,
        }
    }

    /// Deliveries written to a channel and not settled.
    pub fn unacked(&self, conn: ConnId, channel: u16) -> usize {
        let key = self.conns.get(&conn).and_then(|c| c.channel_key(channel));
        key.and_then(|key| self.core.channels.get(key)).map_or(0, |c| c.unacked.len())
    }

    /// Names of the queues of a vhost, in order.
    pub fn queue_names<'a>(&'a self, vhost: &str) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let vhost = self.core.vhosts.iter().find(|v| v.name == vhost);
        vhost.into_iter().flat_map(|v| v.queues.keys().map(|name| &**name))
    }

    /// One queue, `None` when there is none of the name.
    pub fn queue(&self, vhost: &str, name: &[u8]) -> Option<QueueInfo> {
        let queue = find(&self.core, vhost, name)?;
        Some(QueueInfo {
            ready: queue.ready.len(),
            unacked: queue.unacked,
            consumers: queue.consumers.len(),
            owner: queue.owner,
        })
    }

    /// Bodies of the messages that are ready in a queue, front first. Empty for a queue that is not there.
    pub fn messages<'a>(&'a self, vhost: &str, name: &[u8]) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let queue = find(&self.core, vhost, name);
        queue.into_iter().flat_map(|q| q.ready.iter().map(|entry| entry.message.body()))
    }

    /// Whether there is an exchange of the name.
    pub fn has_exchange(&self, vhost: &str, name: &[u8]) -> bool {
        let vhost = self.core.vhosts.iter().find(|v| v.name == vhost);
        vhost.is_some_and(|v| v.exchanges.contains_key(name))
    }
}

fn find<'a>(core: &'a Core, vhost: &str, name: &[u8]) -> Option<&'a Queue> {
    let vhost = core.vhosts.iter().find(|v| v.name == vhost)?;
    core.queues.get(*vhost.queues.get(name)?)
}

fn open_numbers(c: &Connection) -> impl Iterator<Item = u16> {
    let open = |slot: &Option<Box<crate::connection::Slot>>| {
        slot.as_ref().is_some_and(|s| matches!(s.life, Life::Open(_)))
    };
    (0..=u16::MAX).zip(&c.slots).filter(move |(_, slot)| open(slot)).map(|(number, _)| number)
}
