//! Deadlines, caps and budgets of the process.

use std::time::Duration;

/// Every deadline, cap and budget, each with its reason.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Each step of a handshake, both sides. RabbitMQ's own is 10 s.
    pub handshake_timeout: Duration,
    /// Handshakes that clients may have in progress. When all are in use, no client is accepted, and those that stall
    /// make room. Ten thousand clients may come at once; at about 2 KiB each, the default is worth 32 MiB.
    pub handshakes: usize,
    /// How long a step of a handshake may take while all handshakes are in use. Honest clients need one trip to
    /// answer, but where so many come at once, Warren itself may take a second to read it.
    pub crowded_timeout: Duration,
    /// Connections to a farm that may be asking at one time whether credentials or a virtual host are good. Others
    /// wait, so that a crowd of strangers does not take a broker's time from those who work.
    pub inquiries: usize,
    /// How long a refused one of these counts on. With their number it bounds the refusals that a broker has to give:
    /// some 300 per second.
    pub refusal_pause: Duration,
    /// Connections to a farm that may be being made at one time for those who are let in: for pools and lanes. When
    /// thousands have lost theirs, a broker that has just come back opens them one after the other, as fast as it can.
    pub dials: usize,
    /// How long a large publish that has reserved memory may stand still while others wait for theirs; then 506. Clients'
    /// own time-outs are commonly 30 s and more.
    pub stall_limit: Duration,
    /// How long a publisher may keep a shared connection unwritable before it is moved to one of its own.
    pub full_for: Duration,
    /// One attempt to connect to a backend.
    pub connect_timeout: Duration,
    /// How long a session waits for an upstream connection or channel before 506. Clients' own time-outs are
    /// commonly 30 s and more.
    pub wait_limit: Duration,
    /// How long a successful login stands for another one with the same credentials, and how old a reused channel
    /// may be: the longest time that a revoked right goes on working.
    pub auth_ttl: Duration,
    /// How long an upstream connection without channels is kept.
    pub idle_timeout: Duration,
    /// How long a refused login is answered from memory, so that a client in a loop does not hammer the broker.
    pub refusal_ttl: Duration,
    /// Octets that may wait for one client before its consumer is moved to an own lane.
    pub session_outbox: usize,
    /// Octets that one session may hold altogether; beyond it 506.
    pub session_budget: usize,
    /// Octets that may wait for one upstream connection before its sessions are read no more.
    pub upstream_outbox: usize,
    /// Upstream channels per connection, besides what the broker allows.
    pub upstream_channels: u16,
    /// Upstream connections of one pool.
    pub pool_connections: usize,
    /// Clean channels kept for reuse on one upstream connection.
    pub idle_channels: usize,
    /// Sessions waiting for one pool.
    pub pool_waiters: usize,
    /// The largest frame that a client may send before it is let in. Tokens take a few KiB; RabbitMQ itself takes 4096
    /// octets, and 8192 from 4.1 on.
    pub unauthenticated_octets: usize,
    /// Octets that the buffers of all workers together may hold.
    pub memory: usize,
    /// A publish that announces more octets than this reserves them before its body is read. Smaller ones are too many to
    /// keep a list of, and many of them fit in the part of the memory that is theirs.
    pub reserve_from: u64,
    /// The largest message that is accepted, if it can be reserved for.
    pub message_size: u64,
    /// Whether users that brokers restrict to loopback (guest) may come from elsewhere.
    pub allow_remote_guest: bool,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            handshake_timeout: Duration::from_secs(10),
            handshakes: 16_384,
            crowded_timeout: Duration::from_secs(2),
            inquiries: 64,
            refusal_pause: Duration::from_millis(100),
            dials: 64,
            stall_limit: Duration::from_secs(30),
            full_for: Duration::from_millis(100),
            connect_timeout: Duration::from_secs(2),
            wait_limit: Duration::from_secs(30),
            auth_ttl: Duration::from_secs(60),
            idle_timeout: Duration::from_secs(5),
            refusal_ttl: Duration::from_secs(1),
            session_outbox: 8 << 20,
            session_budget: 32 << 20,
            upstream_outbox: 1 << 20,
            upstream_channels: u16::MAX,
            pool_connections: 64,
            idle_channels: 256,
            pool_waiters: 16_384,
            unauthenticated_octets: 16 << 10,
            memory: 1 << 30,
            reserve_from: 1 << 20,
            message_size: 512 << 20,
            allow_remote_guest: false,
        }
    }
}
