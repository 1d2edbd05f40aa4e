//! The engine of one worker: what goes in, what comes out. The decisions are in the modules beside it, each an
//! `impl Engine` of its own: frames from clients, frames from brokers, binding, logins, timers.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::slots::Slots;

use crate::allowances::{Allowances, Way};
use crate::api::{Command, Gone, Link, Peer};
use crate::balance::Balance;
use crate::budget::Budget;
use crate::buf::{Input, Pool};
use crate::channel::Channel;
use crate::config::{BackendId, Config, FarmId};
use crate::flow::Piece;
use crate::ids::{ChannelId, LoginId, SessionId, TenantId, UpChannelId, UpstreamId};
use crate::metrics::Metrics;
use crate::outbox::Outbox;
use crate::random::Random;
use crate::session::{HandOff, Phase, Session};
use crate::tenant::{FarmState, Login, Tenant};
use crate::time::Time;
use crate::timers::TimerKey;
use crate::upstream::{Stage, UpChannel, Upstream};
use crate::wheel::Wheel;

/// How often it is worth while to look for handshakes that stall.
pub const MAKE_ROOM_EVERY: Duration = Duration::from_millis(100);

/// Which worker this engine is.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// This worker's number, from 0.
    pub worker: usize,
    /// How many there are.
    pub workers: usize,
    /// For jitter: the same seed gives the same run.
    pub seed: u64,
    /// A bug to put in on purpose, so that tests can show that they find it.
    #[cfg(feature = "sabotage")]
    pub sabotage: Sabotage,
}

impl Options {
    /// A single worker.
    pub fn single(seed: u64) -> Options {
        Options {
            worker: 0,
            workers: 1,
            seed,
            #[cfg(feature = "sabotage")]
            sabotage: Sabotage::None,
        }
    }
}

/// Bugs put in on purpose.
#[cfg(feature = "sabotage")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// No bug.
    None,
    /// Delivery tags of reused channels are passed without their offset.
    TagOffset,
    /// A channel is given to the next client while the last one's publishes are still to be proven.
    ReleaseInUse,
    /// close-ok is sent without waiting for the barrier.
    SkipBarrier,
}

/// Everything that one worker decides. Bytes, commands and time go through it, nothing else.
pub struct Engine {
    pub(crate) config: Arc<Config>,
    pub(crate) balance: Arc<Balance>,
    pub(crate) options: Options,
    pub(crate) now: Time,
    pub(crate) pool: Pool,
    pub(crate) budget: Budget,
    pub(crate) random: Random,
    pub(crate) sessions: Slots<SessionId, Session>,
    pub(crate) channels: Slots<ChannelId, Channel>,
    pub(crate) upstreams: Slots<UpstreamId, Upstream>,
    pub(crate) up_channels: Slots<UpChannelId, UpChannel>,
    pub(crate) logins: Slots<LoginId, Login>,
    pub(crate) login_names: BTreeMap<(FarmId, String), Vec<LoginId>>,
    pub(crate) tenants: Slots<TenantId, Tenant>,
    /// Sessions that knock: their handshake is in progress.
    pub(crate) handshakes: usize,
    /// When stalled handshakes were looked for.
    pub(crate) made_room_at: Time,
    pub(crate) farms: Vec<FarmState>,
    pub(crate) wheel: Wheel<TimerKey>,
    pub(crate) commands: VecDeque<Command>,
    /// Runs of the input that are on their way, in order.
    pub(crate) pieces: Vec<Piece>,
    /// Sessions whose outbox has become too long in this step.
    pub(crate) slow: Vec<SessionId>,
    /// Channels whose held frames can go on.
    pub(crate) replays: VecDeque<ChannelId>,
    pub(crate) expired: Vec<TimerKey>,
    /// Farms that may be asked something more.
    pub(crate) freed: Vec<FarmId>,
    /// Members of farms that sessions should leave.
    pub(crate) deserted: Vec<(FarmId, BackendId)>,
    pub(crate) metrics: Metrics,
    /// Set once by `shutdown`, with the text that clients are told.
    pub(crate) stopping: Option<String>,
    /// What routes and rules allow, counted with all other workers.
    pub(crate) allowances: Arc<Allowances>,
    /// Who waits for a turn to read or write, by time.
    pub(crate) turns: BinaryHeap<Reverse<(Time, u64, SessionId, Way)>>,
    /// How many turns were ever waited for: orders those of the same time.
    pub(crate) turns_asked: u64,
    /// What `outbox` lends out for links that are gone.
    pub(crate) nothing: Outbox,
}

impl Engine {
    /// An engine with nothing in it. It is not `Send`: create it on its worker's thread.
    pub fn new(config: Arc<Config>, options: Options, now: Time) -> Engine {
        let balance = Arc::new(Balance::new(&config));
        Engine::with_balance(config, options, now, balance)
    }

    /// As [`Engine::new`], with what the workers know together of the members of farms.
    pub fn with_balance(config: Arc<Config>, options: Options, now: Time, balance: Arc<Balance>) -> Engine {
        let pool = Pool::new();
        let farms = config.farms.iter().map(|_| FarmState::default()).collect();
        Engine {
            allowances: Allowances::new(&config),
            turns: BinaryHeap::new(),
            turns_asked: 0,
            nothing: Outbox::new(&pool),
            budget: Budget::new(&config.limits, options.workers),
            random: Random::new(options.seed),
            wheel: Wheel::new(now),
            config,
            balance,
            options,
            now,
            pool,
            farms,
            sessions: Slots::new(),
            channels: Slots::new(),
            upstreams: Slots::new(),
            up_channels: Slots::new(),
            logins: Slots::new(),
            login_names: BTreeMap::new(),
            tenants: Slots::new(),
            handshakes: 0,
            made_room_at: now,
            commands: VecDeque::new(),
            pieces: Vec::new(),
            slow: Vec::new(),
            replays: VecDeque::new(),
            expired: Vec::new(),
            freed: Vec::new(),
            deserted: Vec::new(),
            metrics: Metrics::default(),
            stopping: None,
        }
    }

    /// Counts together with other workers. To be called before there are sessions.
    pub fn share(&mut self, allowances: &Arc<Allowances>) {
        self.allowances = Arc::clone(allowances);
    }

    /// The buffers of this worker: give it to [`Input::new`].
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Whether so many handshakes are in progress that no client should be accepted.
    pub fn is_crowded(&self) -> bool {
        self.handshakes >= self.most_handshakes()
    }

    /// Lets handshakes go that stall, when [`Engine::is_crowded`]. Costs a look at every session, so it is not done more
    /// often than [`MAKE_ROOM_EVERY`].
    pub fn make_room(&mut self, now: Time) {
        self.now = now;
        if self.is_crowded() && self.now.since(self.made_room_at) >= MAKE_ROOM_EVERY {
            self.made_room_at = self.now;
            self.end_stalled();
            self.settle_step();
        }
    }

    /// A client was accepted. `None`: refused, close the socket without a word.
    pub fn accepted(&mut self, now: Time, peer: Peer) -> Option<SessionId> {
        self.now = now;
        if self.stopping.is_some() {
            return None;
        }
        self.metrics.client_connects += 1;
        Some(self.begin_session(peer))
    }

    /// A session comes from another worker; its unread bytes follow as [`Engine::input`].
    pub fn adopted(&mut self, now: Time, hand_off: Box<HandOff>) -> SessionId {
        self.now = now;
        self.adopt_session(*hand_off)
    }

    /// A [`Command::Connect`] has succeeded.
    pub fn upstream_connected(&mut self, now: Time, upstream: UpstreamId) {
        self.now = now;
        self.greet_upstream(upstream);
    }

    /// Bytes were read. What is left in `input` is the beginning of a frame (or all of it, when the link must wait:
    /// see [`Engine::may_read`]; then call again with it after [`Command::Read`]).
    pub fn input(&mut self, now: Time, link: Link, input: &mut Input) {
        self.now = now;
        self.pieces.clear();
        self.note_received(link);
        let before = input.len();
        let consumed = match link {
            Link::Session(id) => self.client_frames(id, input.bytes_mut()),
            Link::Upstream(id) => self.broker_frames(id, input.bytes_mut()),
        };
        debug_assert!(consumed <= before);
        self.commit_input(link, input);
        input.consume(consumed);
        match link {
            Link::Session(id) => {
                self.metrics.client_received_octets += consumed as u64;
                self.pace_input(id, before, input.len());
            }
            Link::Upstream(_) => self.metrics.upstream_received_octets += consumed as u64,
        }
        self.settle_step();
    }

    /// Whether this link's socket may be read now. `false`: a [`Command::Read`] will follow.
    pub fn may_read(&self, link: Link) -> bool {
        match link {
            Link::Session(id) => self.sessions.get(id).is_none_or(Session::may_read),
            Link::Upstream(id) => self.upstreams.get(id).is_none_or(|u| !u.held_back),
        }
    }

    /// Whether this is a client that is not let in yet: it may cost little.
    pub fn knocks(&self, link: Link) -> bool {
        matches!(link, Link::Session(id) if self.sessions.get(id).is_some_and(|s| s.knocks))
    }

    /// What waits to be written to a link. The caller writes and advances it, then calls [`Engine::wrote`].
    pub fn outbox(&mut self, link: Link) -> &mut Outbox {
        let outbox = match link {
            Link::Session(id) => self.sessions.get_mut(id).map(|s| &mut s.outbox),
            Link::Upstream(id) => self.upstreams.get_mut(id).map(|u| &mut u.outbox),
        };
        outbox.unwrap_or(&mut self.nothing)
    }

    /// `octets` of the outbox went to the socket.
    pub fn wrote(&mut self, now: Time, link: Link, octets: usize) {
        self.now = now;
        match link {
            Link::Session(id) => self.wrote_to_client(id, octets),
            Link::Upstream(id) => self.wrote_upstream(id, octets),
        }
    }

    /// A socket is gone: after [`Command::Close`] or [`Command::Abort`], by itself, or a connect failed.
    pub fn gone(&mut self, now: Time, link: Link, why: Gone) {
        self.now = now;
        match link {
            Link::Session(id) => self.session_gone(id, why),
            Link::Upstream(id) => self.upstream_gone(id, why),
        }
        self.settle_step();
    }

    /// Next thing to do, in order.
    pub fn next_command(&mut self) -> Option<Command> {
        let command = self.commands.pop_front()?;
        match command {
            Command::Flush(Link::Session(id)) => {
                if let Some(session) = self.sessions.get_mut(id) {
                    session.flushing = false;
                }
            }
            Command::Flush(Link::Upstream(id)) => {
                if let Some(upstream) = self.upstreams.get_mut(id) {
                    upstream.flushing = false;
                }
            }
            _ => {}
        }
        Some(command)
    }

    /// When [`Engine::tick`] wants to be called at the latest.
    pub fn next_deadline(&self) -> Option<Time> {
        let (deadline, turn) = (self.wheel.next(), self.next_turn());
        deadline.into_iter().chain(turn).min()
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Time) {
        self.now = now;
        self.run_turns();
        self.run_timers();
        self.settle_step();
    }

    /// Begin to stop: every client is told (320), then every upstream connection is closed.
    pub fn shutdown(&mut self, now: Time, text: &str) {
        self.now = now;
        self.stop(text);
        self.settle_step();
    }

    /// Whether no link is left.
    pub fn is_idle(&self) -> bool {
        self.sessions.is_empty() && self.upstreams.is_empty()
    }

    /// Counters and gauges as they are now.
    pub fn metrics(&self) -> Metrics {
        let mut metrics = self.metrics.clone();
        metrics.client_connections = self.sessions.len() as u64;
        metrics.upstream_connections =
            self.upstreams.values().filter(|u| u.stage != Stage::Connecting).count() as u64;
        metrics.client_handshakes = self.handshakes as u64;
        metrics.logins = self.logins.len() as u64;
        metrics.tenants = self.tenants.len() as u64;
        metrics.client_channels = self.channels.len() as u64;
        metrics.upstream_channels = self.up_channels.len() as u64;
        self.measure_memory(&mut metrics);
        let nodes = self.tenants.values().flat_map(|t| t.nodes.values());
        metrics.waiting_channels = nodes.map(|n| n.waiting.len() as u64).sum();
        metrics.backend_connections = vec![0; self.config.backends.len()];
        for upstream in self.upstreams.values().filter(|u| u.stage != Stage::Connecting) {
            metrics.backend_connections[upstream.backend] += 1;
        }
        metrics
    }

    /// What must be done after each call, when no buffer is borrowed: frames that were held back, slow readers.
    pub(crate) fn settle_step(&mut self) {
        loop {
            if let Some(channel) = self.replays.pop_front() {
                self.replay(channel);
            } else if let Some(session) = self.slow.pop() {
                self.slow_reader(session);
            } else if let Some(farm) = self.freed.pop() {
                self.inquire_next(farm);
            } else if let Some((farm, backend)) = self.deserted.pop() {
                self.desert(farm, backend);
            } else {
                break;
            }
        }
        self.weigh();
    }

    fn note_received(&mut self, link: Link) {
        match link {
            Link::Session(id) => {
                if let Some(session) = self.sessions.get_mut(id) {
                    session.last_received = self.now;
                }
            }
            Link::Upstream(id) => {
                if let Some(upstream) = self.upstreams.get_mut(id) {
                    upstream.last_received = self.now;
                }
            }
        }
    }

    /// Begins to stop: tells every client, lets every idle upstream go.
    fn stop(&mut self, text: &str) {
        self.stopping = Some(text.to_owned());
        let sessions: Vec<SessionId> = self.sessions.keys().collect();
        for id in sessions {
            match self.sessions[id].phase {
                Phase::Header | Phase::Greeting => self.end_session(id, crate::close::SHUTDOWN, text),
                Phase::Running => self.close_session(id, 320, text, (0, 0), crate::close::SHUTDOWN),
                phase if phase.is_handshake() => {
                    self.close_session(id, 320, text, (0, 0), crate::close::SHUTDOWN);
                }
                _ => {}
            }
        }
        self.close_upstreams_if_stopping();
    }
}
