//! The broker as its driver sees it.

use std::collections::BTreeMap;
use std::ops::Bound;

use crate::connection::{Connection, State};
use crate::core::Core;
use crate::options::Options;

/// A connection of one broker. Never used again for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub(crate) u64);

/// The broker: connections and all that they share. See the crate's documentation for how it is driven.
///
/// Calls with a [`ConnId`] that was disconnected do nothing, unless they say otherwise.
#[derive(Debug)]
pub struct Broker {
    pub(crate) core: Core,
    pub(crate) conns: BTreeMap<ConnId, Box<Connection>>,
    next_conn: u64,
    /// What [`Broker::output`] lends for a connection that is not there.
    nowhere: Vec<u8>,
}

impl Broker {
    /// A broker without connections, and with what every vhost has.
    pub fn new(options: Options) -> Broker {
        Broker { core: Core::new(options), conns: BTreeMap::new(), next_conn: 0, nowhere: Vec::new() }
    }

    /// A peer's socket was accepted.
    pub fn connect(&mut self) -> ConnId {
        let id = ConnId(self.next_conn);
        self.next_conn += 1;
        self.conns.insert(id, Box::new(Connection::new(id)));
        id
    }

    /// Appends bytes from the peer. Nothing is processed yet.
    pub fn receive(&mut self, conn: ConnId, bytes: &[u8]) {
        if let Some(c) = self.conns.get_mut(&conn)
            && !c.is_over()
        {
            c.input.extend_from_slice(bytes);
        }
    }

    /// Processes up to `max_frames` whole frames that were received, the protocol header counting as one; returns how many
    /// it were. None are while an alarm holds the connection back.
    pub fn step(&mut self, conn: ConnId, max_frames: usize) -> usize {
        let Some(c) = self.conns.get_mut(&conn) else {
            return 0;
        };
        c.begin_work();
        let mut input = std::mem::take(&mut c.input);
        let mut count = 0;
        while count < max_frames && c.process_next(&mut self.core, &input) {
            count += 1;
        }
        if c.is_over() || c.at == input.len() {
            input.clear();
            c.at = 0;
        } else if c.at > input.len() / 2 {
            input.drain(..c.at);
            c.at = 0;
        }
        c.input = input;
        c.end_work();
        count
    }

    /// Writes what queues have for the channels of the connection, up to `max_deliveries` messages, and confirms that are
    /// due. Whatever is asynchronous in RabbitMQ happens here; see the crate's documentation.
    pub fn pump(&mut self, conn: ConnId, max_deliveries: usize) {
        if let Some(c) = self.conns.get_mut(&conn) {
            c.begin_work();
            c.pump(&mut self.core, max_deliveries);
            c.end_work();
        }
    }

    /// Whether [`Broker::pump`] has something to do for the connection.
    pub fn has_news(&self, conn: ConnId) -> bool {
        let range = (conn, 0)..=(conn, u16::MAX);
        self.core.ready.range(range).next().is_some()
    }

    /// The connections for which [`Broker::has_news`] holds, in the order in which they came.
    pub fn connections_with_news(&self) -> impl Iterator<Item = ConnId> + '_ {
        let next = |after: Bound<(ConnId, u16)>| {
            let mut rest = self.core.ready.range((after, Bound::Unbounded));
            rest.next().map(|(conn, _)| *conn)
        };
        std::iter::successors(next(Bound::Unbounded), move |conn| next(Bound::Excluded((*conn, u16::MAX))))
    }

    /// Bytes for the peer. The driver takes any prefix; it must not append. Empty for a connection that was disconnected.
    pub fn output(&mut self, conn: ConnId) -> &mut Vec<u8> {
        match self.conns.get_mut(&conn) {
            Some(c) => &mut c.output,
            None => {
                self.nowhere.clear();
                &mut self.nowhere
            }
        }
    }

    /// The peer's socket is gone: its channels end, its exclusive queues go, the connection is forgotten.
    pub fn disconnect(&mut self, conn: ConnId) {
        if let Some(mut c) = self.conns.remove(&conn) {
            c.end_channels(&mut self.core);
        }
    }

    /// Whether an alarm holds the connection back. A driver should then leave what the peer sends in its socket.
    pub fn is_blocked(&self, conn: ConnId) -> bool {
        self.conns.get(&conn).is_some_and(|c| c.blocked)
    }

    /// Whether the broker wants the socket closed once the output is written: it has answered a close, got the answer to
    /// its own, or given the peer up. Also for a connection that was disconnected.
    pub fn wants_close(&self, conn: ConnId) -> bool {
        self.conns
            .get(&conn)
            .is_none_or(|c| matches!(c.state, State::Closed { answered: true } | State::Gone { .. }))
    }

    /// Whether the broker dropped the connection without a word, as RabbitMQ does for frames that it cannot make sense of
    /// and for refused logins.
    pub fn was_reset(&self, conn: ConnId) -> bool {
        self.conns.get(&conn).is_some_and(|c| c.state == State::Gone { reset: true })
    }
}
