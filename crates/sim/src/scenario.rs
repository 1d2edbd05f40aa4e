//! What one run is like, drawn from its seed before anything happens: sizes, speeds, limits, and what clients prefer.
//! Runs that differ in what they do much of find more than runs that all do a little of everything.

use std::time::Duration;

use warren_broker::{ConfirmStyle, Options, Quirks, User};
use warren_engine::config::{Config, Limits};

use crate::client::plan::ROLES;
use crate::client::work::OPS;
use crate::fault::Misfortune;
use crate::rng::Rng;

/// A direct exchange that every virtual host has; queues that stay are bound to it by their names.
pub const DIRECT: &[u8] = b"amq.direct";
/// A fanout exchange that every virtual host has; the fan queues are bound to it.
pub const FAN: &[u8] = b"amq.fanout";
/// The pseudo queue of direct reply-to.
pub const REPLY_TO: &[u8] = b"amq.rabbitmq.reply-to";

/// The worlds that a run can be in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Between {
    /// Clients speak to the model broker itself: this checks clients, record and model broker against each other.
    Nothing,
    /// Clients speak to engines, as many as there are workers.
    Warren,
}

/// How likely each kind of step is.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Clients do things.
    pub act: u32,
    /// Octets move to and from clients.
    pub client_io: u32,
    /// Octets move to and from the broker.
    pub broker_io: u32,
    /// The broker processes frames.
    pub broker: u32,
    /// Queues write to connections.
    pub pump: u32,
    /// Most octets that move at a time.
    pub piece: usize,
}

/// What one run is like.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// What stands between clients and broker.
    pub between: Between,
    /// Engines.
    pub workers: usize,
    /// Sessions at a time.
    pub clients: usize,
    /// Out of ten sessions, so many are short.
    pub short_sessions: usize,
    /// Names of virtual hosts.
    pub vhosts: Vec<String>,
    /// Names of users; the password is the name.
    pub users: Vec<String>,
    /// Queues that stay, in each virtual host.
    pub stable: usize,
    /// Out of ten consumers, so many take no acknowledgements.
    pub no_ack: usize,
    /// Weight of each role of a channel.
    pub roles: [u32; ROLES.len()],
    /// Weight of each op, times what its role makes of it.
    pub ops: [u32; OPS],
    /// Clients commit errors that cost their connection.
    pub connection_errors: bool,
    /// Speeds.
    pub pace: Pace,
    /// One step in so many is a stretch of quiet time; 0 for never.
    pub quiet_every: usize,
    /// Half of the messages are large.
    pub flood: bool,
    /// One step in so many makes a client stop reading, or go on; 0 for never.
    pub stall_every: usize,
    /// The engine's limits.
    pub limits: Limits,
    /// Caps are low enough for clients to wait for each other.
    pub tight: bool,
    /// How confirms are written.
    pub confirms: ConfirmStyle,
    /// What befalls the upstream connections, if anything does.
    pub misfortune: Option<Misfortune>,
}

impl Scenario {
    /// The scenario of a seed.
    pub fn draw(rng: &mut Rng, between: Between) -> Scenario {
        let mut ops = [0; OPS];
        for weight in &mut ops {
            *weight = *rng.pick(&[0, 1, 2, 2, 4, 8]);
        }
        let mut roles = [0; ROLES.len()];
        for weight in &mut roles {
            *weight = *rng.pick(&[0, 1, 1, 2, 6]);
        }
        let tight = rng.chance(1, 4);
        let flood = rng.chance(1, 15);
        let pace = draw_pace(rng);
        Scenario {
            between,
            workers: if rng.chance(1, 3) { 2 } else { 1 },
            clients: 1 + rng.below(6),
            short_sessions: *rng.pick(&[0, 3, 5, 9, 10]),
            vhosts: names(&["/", "two"], 1 + usize::from(rng.chance(1, 3))),
            users: names(&["alice", "bob"], 1 + usize::from(rng.chance(1, 3))),
            stable: 1 + rng.below(3),
            no_ack: *rng.pick(&[0, 0, 3, 6]),
            roles,
            ops,
            connection_errors: rng.chance(1, 4),
            pace: Pace { piece: if flood { 300_000 } else { pace.piece }, ..pace },
            quiet_every: *rng.pick(&[0, 200, 200, 400, 1000]),
            flood,
            stall_every: if flood { 50 } else { *rng.pick(&[0, 0, 50, 300]) },
            limits: draw_limits(rng, tight),
            tight,
            confirms: *rng.pick(&[ConfirmStyle::Coalesced, ConfirmStyle::Single, ConfirmStyle::Mixed]),
            misfortune: None,
        }
    }

    /// The same, and things go wrong in it.
    pub fn with_misfortune(mut self, misfortune: Misfortune, rng: &mut Rng) -> Scenario {
        self.misfortune = Some(misfortune);
        // What a loss may cost is known only when all is quiet again.
        self.quiet_every = *rng.pick(&[100, 200, 400]);
        self
    }

    /// Whether the broker calls itself LavinMQ.
    pub fn is_lavinmq(&self) -> bool {
        self.misfortune.is_some_and(|m| m.lavinmq)
    }

    /// The model broker of this run.
    pub fn broker(&self, seed: u64) -> Options {
        let mut options = Options::like_rabbitmq();
        if let Some(misfortune) = self.misfortune {
            (options.heartbeat, options.channel_max) = (misfortune.heartbeat, misfortune.channel_max);
        }
        if self.is_lavinmq() {
            options = Options { product: "LavinMQ".to_owned(), version: "2.9.0".to_owned(), ..options };
            (options.default_prefetch, options.quirks) = (u16::MAX, Quirks::of_lavinmq());
        }
        Options {
            users: self.users.iter().map(|name| User::new(name, name)).collect(),
            vhosts: self.vhosts.clone(),
            confirms: self.confirms,
            seed,
            ..options
        }
    }

    /// The engine's configuration.
    pub fn config(&self) -> Config {
        Config::simple("127.0.0.1", 5672, self.limits.clone())
    }
}

fn names(all: &[&str], count: usize) -> Vec<String> {
    all[..count].iter().map(|&name| name.to_owned()).collect()
}

fn draw_pace(rng: &mut Rng) -> Pace {
    let mut speed = || *rng.pick(&[1, 3, 3, 3, 10]);
    let (act, client_io, broker_io, broker, pump) = (speed(), speed(), speed(), speed(), speed());
    Pace { act, client_io, broker_io, broker, pump, piece: *rng.pick(&[40, 300, 5000, 100_000]) }
}

fn draw_limits(rng: &mut Rng, tight: bool) -> Limits {
    let mut limits = Limits {
        idle_timeout: Duration::from_millis(*rng.pick(&[200, 1000, 5000])),
        auth_ttl: Duration::from_millis(*rng.pick(&[500, 5000, 60_000])),
        idle_channels: *rng.pick(&[0, 1, 4, 256]),
        upstream_outbox: *rng.pick(&[4096, 1 << 20]),
        // A client that reads little has its consumers moved away soon.
        session_outbox: *rng.pick(&[8 << 20, 8 << 20, 20_000, 2000]),
        allow_remote_guest: true,
        ..Limits::default()
    };
    if tight {
        limits.upstream_channels = rng.between(2, 6) as u16;
        limits.pool_connections = rng.between(2, 4) as usize;
    } else {
        limits.upstream_channels = *rng.pick(&[3, 10, u16::MAX]);
    }
    // From a sequence of its own: what is drawn after it stays what it was.
    let mut rng = Rng::new(rng.clone().bits());
    if rng.chance(1, 4) {
        // Little memory, so that publishes have to wait for it: for each of two workers, just enough for the largest.
        limits.memory = *rng.pick(&[4 << 20, 16 << 20]);
        limits.reserve_from = *rng.pick(&[1000, 100_000]);
    }
    limits
}
