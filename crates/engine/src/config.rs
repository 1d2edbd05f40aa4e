//! The resolved model: listeners, routes, farms, backends and limits. It cannot be wrong any more: whoever
//! builds it from options or files has validated it. Workers share one immutable snapshot.

use std::time::Duration;

/// Index into [`Config::listeners`].
pub type ListenerId = usize;
/// Index into [`Config::farms`].
pub type FarmId = usize;
/// Index into [`Config::backends`].
pub type BackendId = usize;

/// One immutable snapshot of everything that is configured.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// Which sessions go to which farm, first match wins.
    pub routes: Vec<Route>,
    /// Clusters of brokers.
    pub farms: Vec<Farm>,
    /// Broker endpoints.
    pub backends: Vec<Backend>,
    /// Deadlines, caps and budgets.
    pub limits: Limits,
}

impl Config {
    /// The simple use: one listener, one route, one farm, one backend.
    pub fn simple(host: &str, port: u16, limits: Limits) -> Config {
        Config {
            listeners: vec![Listener { name: "default".into() }],
            routes: vec![Route {
                name: "default".into(),
                vhost: Pattern::new("*"),
                user: Pattern::new("*"),
                listener: None,
                farm: 0,
                upstream_vhost: None,
                close: CloseMode::Confirmed,
                on_loss: OnLoss::Nack,
            }],
            farms: vec![Farm { name: "default".into(), backends: vec![0] }],
            backends: vec![Backend { name: format!("{host}:{port}"), host: host.into(), port }],
            limits,
        }
    }

    /// The first route that matches, in file order.
    pub fn route(&self, listener: ListenerId, vhost: &str, user: &str) -> Option<&Route> {
        self.routes.iter().find(|r| {
            r.listener.is_none_or(|l| l == listener) && r.vhost.matches(vhost) && r.user.matches(user)
        })
    }

    /// The farm of every session that this listener can accept, when there is only one: then credentials can be
    /// checked before the virtual host is known.
    pub fn only_farm(&self, listener: ListenerId) -> Option<FarmId> {
        let mut farms =
            self.routes.iter().filter(|r| r.listener.is_none_or(|l| l == listener)).map(|r| r.farm);
        let first = farms.next()?;
        farms.all(|f| f == first).then_some(first)
    }
}

/// Where clients connect.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name in logs and metrics.
    pub name: String,
}

/// Which sessions go where, and how they are served.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name in logs and metrics.
    pub name: String,
    /// Virtual hosts it serves.
    pub vhost: Pattern,
    /// Users it serves.
    pub user: Pattern,
    /// The listener it serves; all when `None`.
    pub listener: Option<ListenerId>,
    /// The farm its sessions go to.
    pub farm: FarmId,
    /// The virtual host's name at the broker, when it differs.
    pub upstream_vhost: Option<String>,
    /// When a channel's close is answered.
    pub close: CloseMode,
    /// What clients are told of publishes that were under way when a broker was lost.
    pub on_loss: OnLoss,
}

/// What becomes of publishes in confirm mode whose fate is not known because their upstream connection was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLoss {
    /// They are answered with basic.nack, and their client goes on.
    Nack,
    /// Their client's connection is closed (320), for clients that overlook basic.nack.
    Close,
}

/// When `channel.close` of a publishing channel is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseMode {
    /// When its publishes are known to have been processed.
    Confirmed,
    /// At once, for channels that only published.
    Fast,
}

/// A name with `*` for any run of characters.
#[derive(Clone, Debug)]
pub struct Pattern(String);

impl Pattern {
    /// A pattern as written in the configuration.
    pub fn new(text: &str) -> Pattern {
        Pattern(text.to_owned())
    }

    /// Whether `name` fits.
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or("");
        let Some(mut rest) = name.strip_prefix(first) else {
            return false;
        };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            match rest.find(part) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        true
    }
}

/// Backends that are one cluster for a client.
#[derive(Clone, Debug)]
pub struct Farm {
    /// Its name in logs and metrics.
    pub name: String,
    /// Its members, in the order they are tried.
    pub backends: Vec<BackendId>,
}

/// One broker endpoint.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Its name in logs, metrics and errors.
    pub name: String,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_like_a_shell() {
        for (pattern, name, fits) in [
            ("*", "", true),
            ("*", "/", true),
            ("/", "/", true),
            ("/", "//", false),
            ("orders-*", "orders-eu", true),
            ("orders-*", "order", false),
            ("*-eu", "orders-eu", true),
            ("a*b*c", "a--b--c", true),
            ("a*b*c", "a--c--b", false),
            ("a*a", "a", false),
        ] {
            assert_eq!(Pattern::new(pattern).matches(name), fits, "{pattern} {name}");
        }
    }
}
