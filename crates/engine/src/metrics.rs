//! Counters of one worker: plain integers, summed when somebody asks.

/// Why a client connection ended. The labels of `warren_client_closes_total`.
pub const CLIENT_CLOSE_REASONS: [&str; 8] =
    ["client", "vanished", "refused", "protocol", "upstream", "limit", "heartbeat", "shutdown"];
/// Why an upstream connection ended. The labels of `warren_upstream_closes_total`.
pub const UPSTREAM_CLOSE_REASONS: [&str; 6] = ["idle", "broker", "lost", "refused", "heartbeat", "shutdown"];
/// How a channel got its upstream channel. The labels of `warren_binds_total`.
pub const BIND_KINDS: [&str; 3] = ["reused", "opened", "rebound"];
/// Why a channel was bound. The labels of `warren_binds_total`.
pub const BIND_WHYS: [&str; 9] = [
    "first_use",
    "first_publish",
    "consume",
    "own_lane",
    "slow_reader",
    "transaction",
    "resume",
    "quarantine",
    "busy_publisher",
];

/// Where memory is. The labels of `warren_memory_bytes`.
pub const MEMORY_PARTS: [&str; 4] = ["to_clients", "to_brokers", "incomplete_publishes", "held_frames"];

/// Counters and gauges of one worker.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Gauge: client connections, handshakes included.
    pub client_connections: u64,
    /// Gauge: upstream connections, handshakes included.
    pub upstream_connections: u64,
    /// Gauge: upstream connections by backend, handshakes included.
    pub backend_connections: Vec<u64>,
    /// Gauge: channels that clients have open.
    pub client_channels: u64,
    /// Gauge: channels open upstream, idle ones included.
    pub upstream_channels: u64,
    /// Gauge: octets of memory that buffers hold.
    pub buffer_octets: u64,
    /// Gauge: octets that buffers may hold.
    pub memory_limit_octets: u64,
    /// Gauge: octets of memory that buffers hold, by [`MEMORY_PARTS`]. A block that two of them look at counts twice.
    pub memory_octets: [u64; MEMORY_PARTS.len()],
    /// Gauge: octets that incomplete publishes have reserved.
    pub reserved_octets: u64,
    /// Gauge: publishes that wait for a reservation.
    pub waiting_publishes: u64,
    /// Gauge: channels that wait for an upstream channel.
    pub waiting_channels: u64,
    /// Gauge: client connections that are not let in yet.
    pub client_handshakes: u64,
    /// Gauge: credentials that are remembered, good or refused.
    pub logins: u64,
    /// Gauge: pools, one for each virtual host that credentials use.
    pub tenants: u64,
    /// Octets read from clients.
    pub client_received_octets: u64,
    /// Octets written to clients.
    pub client_sent_octets: u64,
    /// Octets read from brokers.
    pub upstream_received_octets: u64,
    /// Octets written to brokers.
    pub upstream_sent_octets: u64,
    /// Complete messages published by clients and passed on.
    pub published_messages: u64,
    /// Messages delivered to clients, got ones included.
    pub delivered_messages: u64,
    /// Messages returned to clients.
    pub returned_messages: u64,
    /// Client connections accepted.
    pub client_connects: u64,
    /// Upstream connections that became ready.
    pub upstream_connects: u64,
    /// Upstream connections that could not be made.
    pub upstream_connect_failures: u64,
    /// Client connections ended, by [`CLIENT_CLOSE_REASONS`].
    pub client_closes: [u64; CLIENT_CLOSE_REASONS.len()],
    /// Upstream connections ended, by [`UPSTREAM_CLOSE_REASONS`].
    pub upstream_closes: [u64; UPSTREAM_CLOSE_REASONS.len()],
    /// Binds, by [`BIND_KINDS`] and [`BIND_WHYS`].
    pub binds: [[u64; BIND_WHYS.len()]; BIND_KINDS.len()],
    /// Channels closed with an error, as clients saw it.
    pub channel_errors: u64,
    /// Barriers sent.
    pub barriers: u64,
    /// Sessions handed to another worker.
    pub hand_offs: u64,
    /// Bindings lost with their connection, whose channels went on.
    pub resumes: u64,
    /// Sessions that went from one member of their farm to another.
    pub session_moves: u64,
    /// Publishes answered with basic.nack because their connection was lost.
    pub lost_publishes: u64,
}

impl Metrics {
    /// Adds another worker's.
    pub fn add(&mut self, o: &Metrics) {
        for (mine, theirs) in [
            (&mut self.client_connections, o.client_connections),
            (&mut self.upstream_connections, o.upstream_connections),
            (&mut self.client_channels, o.client_channels),
            (&mut self.upstream_channels, o.upstream_channels),
            (&mut self.buffer_octets, o.buffer_octets),
            (&mut self.memory_limit_octets, o.memory_limit_octets),
            (&mut self.reserved_octets, o.reserved_octets),
            (&mut self.waiting_publishes, o.waiting_publishes),
            (&mut self.waiting_channels, o.waiting_channels),
            (&mut self.client_handshakes, o.client_handshakes),
            (&mut self.logins, o.logins),
            (&mut self.tenants, o.tenants),
            (&mut self.client_received_octets, o.client_received_octets),
            (&mut self.client_sent_octets, o.client_sent_octets),
            (&mut self.upstream_received_octets, o.upstream_received_octets),
            (&mut self.upstream_sent_octets, o.upstream_sent_octets),
            (&mut self.published_messages, o.published_messages),
            (&mut self.delivered_messages, o.delivered_messages),
            (&mut self.returned_messages, o.returned_messages),
            (&mut self.client_connects, o.client_connects),
            (&mut self.upstream_connects, o.upstream_connects),
            (&mut self.upstream_connect_failures, o.upstream_connect_failures),
            (&mut self.channel_errors, o.channel_errors),
            (&mut self.barriers, o.barriers),
            (&mut self.hand_offs, o.hand_offs),
            (&mut self.resumes, o.resumes),
            (&mut self.session_moves, o.session_moves),
            (&mut self.lost_publishes, o.lost_publishes),
        ] {
            *mine += theirs;
        }
        let backends = self.backend_connections.len().max(o.backend_connections.len());
        self.backend_connections.resize(backends, 0);
        self.backend_connections.iter_mut().zip(&o.backend_connections).for_each(|(m, t)| *m += t);
        self.memory_octets.iter_mut().zip(&o.memory_octets).for_each(|(m, t)| *m += t);
        let pairs = self.client_closes.iter_mut().zip(&o.client_closes);
        pairs.chain(self.upstream_closes.iter_mut().zip(&o.upstream_closes)).for_each(|(m, t)| *m += t);
        for (mine, theirs) in self.binds.iter_mut().zip(&o.binds) {
            mine.iter_mut().zip(theirs).for_each(|(m, t)| *m += t);
        }
    }
}
