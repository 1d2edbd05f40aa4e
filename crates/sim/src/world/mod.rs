//! The world of one run: clients, what stands between, the broker, and time. Each step is one action, chosen by chance
//! among all that are possible.
//!
//! - [`broker_side`]: the model broker and its connections.
//! - [`direct`]: clients connected to the broker itself.
//! - [`warren`]: clients connected to engines, and engines to the broker: what the edge does, in steps.
//! - [`misfortune`]: when things go wrong, and when they are well again.
//! - [`quiet`]: letting everything that is under way come to its end, and what must be true then.

pub mod broker_side;
pub mod direct;
mod misfortune;
pub mod quiet;
pub mod warren;

use warren_broker::ConnId;
use warren_engine::metrics::Metrics;

use crate::Settings;
use crate::client::plan::Plan;
use crate::client::{Client, Ctx};
use crate::cover::{Cover, Path};
use crate::fault::Fault;
use crate::oracle::{Check, Oracle};
use crate::rng::Rng;
use crate::scenario::{Between, Scenario};
use crate::trace::Trace;
use broker_side::BrokerSide;
use direct::Direct;
use misfortune::Trouble;
use warren::Warren;

/// Frames and deliveries that the broker does at a time, at most.
const BROKER_BITE: usize = 6;

/// Choices in a row that may fall on clients with nothing to do.
const MOST_TRIES: u32 = 20;

/// Which connection of the world, as its middle numbers them.
pub type Place = usize;

/// One thing that can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// A client does or writes something.
    Act(Place),
    /// A new client takes the place of one that is gone.
    Arrive(Place),
    /// Octets go from a client.
    FromClient(Place),
    /// Octets go to a client.
    ToClient(Place),
    /// A client's connection ends: by itself, or because the other side wanted it.
    EndClient(Place),
    /// A session that was handed over arrives at its new worker.
    Adopt(Place),
    /// An upstream connection is made.
    Connect(Place),
    /// Octets go to the broker.
    ToBroker(Place),
    /// Octets come from the broker.
    FromBroker(Place),
    /// An upstream connection ends.
    EndUpstream(Place),
    /// The broker processes frames.
    Step(ConnId),
    /// The broker's queues write.
    Pump(ConnId),
    /// Time passes.
    Time,
}

/// Everything outside the middle: what it may touch.
pub struct Outside<'a> {
    /// The clients, by place.
    pub clients: &'a mut [Client],
    /// The broker.
    pub broker: &'a mut BrokerSide,
    /// What clients may touch.
    pub ctx: Ctx<'a>,
    /// Most octets that move.
    pub piece: usize,
}

/// What stands between clients and broker.
enum Middle {
    Direct(Direct),
    Warren(Box<Warren>),
}

/// The world.
pub struct World {
    scenario: Scenario,
    rng: Rng,
    now: u64,
    steps: u64,
    sessions: usize,
    oracle: Oracle,
    cover: Cover,
    /// The story so far.
    pub trace: Trace,
    broker: BrokerSide,
    clients: Vec<Client>,
    middle: Middle,
    possible: Vec<(Action, u32)>,
    hurry: bool,
    trouble: Trouble,
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Totals {
    /// Actions done.
    pub steps: u64,
    /// Messages begun.
    pub messages: u64,
    /// Messages that the broker took.
    pub accepted: u64,
    /// Frames that the broker processed.
    pub frames: u64,
    /// Paths taken.
    pub cover: Cover,
    /// The engines' own counters.
    pub metrics: Metrics,
}

impl Totals {
    /// Adds another run's.
    pub fn add(&mut self, other: &Totals) {
        self.steps += other.steps;
        self.messages += other.messages;
        self.accepted += other.accepted;
        self.frames += other.frames;
        self.cover.add(&other.cover);
        self.metrics.add(&other.metrics);
    }
}

impl World {
    /// The world of a seed, before anything has happened.
    pub fn new(scenario: Scenario, seed: u64, settings: Settings, trace: Trace) -> Check<World> {
        let mut rng = Rng::new(seed ^ 0xA5A5);
        let mut oracle = Oracle::default();
        let broker = BrokerSide::new(&scenario, rng.bits(), &mut oracle)?;
        let middle = match scenario.between {
            Between::Nothing => Middle::Direct(Direct::default()),
            Between::Warren => Middle::Warren(Box::new(Warren::new(&scenario, rng.bits(), settings))),
        };
        let mut world = World {
            scenario,
            rng,
            now: 0,
            steps: 0,
            sessions: 0,
            oracle,
            cover: Cover::default(),
            trace,
            broker,
            clients: Vec::new(),
            middle,
            possible: Vec::new(),
            hurry: false,
            trouble: Trouble::default(),
        };
        let limits = &world.scenario.limits;
        world.trace.line(format_args!(
            "{} workers, idle after {:?}, auth_ttl {:?}, at most {} idle channels, {} channels on each of {} upstreams",
            world.scenario.workers,
            limits.idle_timeout,
            limits.auth_ttl,
            limits.idle_channels,
            limits.upstream_channels,
            limits.pool_connections
        ));
        for place in 0..world.scenario.clients {
            world.arrive(place)?;
        }
        Ok(world)
    }

    /// Runs `steps` steps, then lets everything end.
    pub fn run(&mut self, steps: u64) -> Check {
        while self.steps < steps {
            self.step()?;
            self.tempt_fate()?;
            let stall = self.scenario.stall_every;
            if stall > 0 && self.rng.chance(1, stall) {
                let place = self.rng.below(self.clients.len());
                let stalled = self.rng.chance(2, 3);
                self.inflict(&Fault::Stall(place, stalled))?;
            }
            let quiet = self.scenario.quiet_every;
            if quiet > 0 && self.rng.chance(1, quiet) {
                self.quiet_time()?;
                self.disturb_the_quiet()?;
            }
        }
        self.finish(steps)
    }

    /// What the run came to.
    pub fn totals(&self) -> Totals {
        let metrics = match &self.middle {
            Middle::Direct(_) => Metrics::default(),
            Middle::Warren(warren) => warren.metrics(),
        };
        let mut cover = self.cover.clone();
        cover.hits(Path::MovedUnsent, self.oracle.moved);
        cover.hits(Path::ConsumerResumed, self.oracle.resumed);
        Totals {
            steps: self.steps,
            messages: self.oracle.messages.len() as u64,
            accepted: self.oracle.messages.iter().filter(|m| m.accepted.is_some()).count() as u64,
            frames: self.broker.tap.frames,
            cover,
            metrics,
        }
    }

    /// How far the run is, for reports of failures.
    pub fn place_in_time(&self) -> String {
        format!("step {}, {} ms", self.steps, self.now)
    }

    /// Does one thing.
    fn step(&mut self) -> Check {
        self.list_possible();
        for _ in 0..MOST_TRIES {
            if self.try_step()? {
                break;
            }
        }
        Ok(())
    }

    /// False when chance chose a client that had nothing to do.
    fn try_step(&mut self) -> Check<bool> {
        let at = self.rng.weighted(self.possible.iter().map(|&(_, weight)| weight)).unwrap_or(0);
        let (action, _) = self.possible[at];
        let piece = match self.rng.below(8) {
            0 => 1,
            1 => 1 + self.rng.below(9),
            _ => 1 + self.rng.below(self.scenario.pace.piece),
        };
        self.perform(action, piece)
    }

    fn list_possible(&mut self) {
        let pace = self.scenario.pace;
        let possible = &mut self.possible;
        possible.clear();
        possible.push((Action::Time, 2));
        for (place, client) in self.clients.iter().enumerate() {
            match client.stage {
                crate::client::handshake::Stage::Gone if self.hurry => {}
                crate::client::handshake::Stage::Gone => possible.push((Action::Arrive(place), 1)),
                _ => possible.push((Action::Act(place), pace.act)),
            }
        }
        for (conn, busy, news) in self.broker.work() {
            if busy {
                possible.push((Action::Step(conn), pace.broker));
            }
            if news {
                possible.push((Action::Pump(conn), pace.pump));
            }
        }
        match &self.middle {
            Middle::Direct(direct) => direct.list(&self.clients, &self.broker, pace, possible),
            Middle::Warren(warren) => warren.list(&self.clients, &self.broker, pace, possible),
        }
    }

    fn perform(&mut self, action: Action, piece: usize) -> Check<bool> {
        self.steps += 1;
        let (now, step) = (self.now, self.steps);
        self.broker.tap.now = now;
        if !matches!(action, Action::Act(_) | Action::Time) {
            self.trace.line(format_args!("[{step} {now} ms] {action:?}"));
        }
        match action {
            Action::Time => {
                self.now += self.rng.between(0, 3);
                self.tick()?;
            }
            Action::Arrive(place) => self.arrive(place)?,
            Action::Act(place) => {
                let hurry = self.hurry;
                let (mut outside, _) = self.outside(piece);
                let client = &mut outside.clients[place];
                if hurry {
                    client.hurry();
                }
                if !client.act(true, &mut outside.ctx) {
                    self.steps -= 1;
                    return Ok(false);
                }
            }
            Action::Step(conn) => {
                let most = 1 + self.rng.below(BROKER_BITE);
                self.broker.step(conn, most, &mut self.oracle, &mut self.trace)?;
            }
            Action::Pump(conn) => {
                let most = 1 + self.rng.below(BROKER_BITE);
                self.broker.pump(conn, most, &mut self.oracle, &mut self.trace)?;
            }
            other => {
                let (mut outside, middle) = self.outside(piece);
                match middle {
                    Middle::Direct(direct) => direct.perform(other, &mut outside)?,
                    Middle::Warren(warren) => warren.perform(other, &mut outside)?,
                }
            }
        }
        if let Middle::Warren(warren) = &self.middle {
            warren.check();
        }
        self.tell_taken_back();
        Ok(true)
    }

    /// The parts that a client or the middle may touch, and the middle.
    fn outside(&mut self, piece: usize) -> (Outside<'_>, &mut Middle) {
        let ctx = Ctx {
            rng: &mut self.rng,
            oracle: &mut self.oracle,
            cover: &mut self.cover,
            trace: &mut self.trace,
            scenario: &self.scenario,
            now: self.now,
        };
        let outside = Outside { clients: &mut self.clients, broker: &mut self.broker, ctx, piece };
        (outside, &mut self.middle)
    }

    /// A new client at a place that is free.
    fn arrive(&mut self, place: Place) -> Check {
        let plan = Plan::draw(&mut self.rng, &self.scenario);
        let mut client = Client::new(self.sessions, plan, self.now);
        if self.is_troubled() {
            client.comes_in_trouble();
        }
        self.sessions += 1;
        if place < self.clients.len() {
            self.clients[place] = client;
        } else {
            self.clients.push(client);
        }
        let (mut outside, middle) = self.outside(1);
        match middle {
            Middle::Direct(direct) => direct.arrive(place, &mut outside),
            Middle::Warren(warren) => warren.arrive(place, &mut outside),
        }
    }

    /// Time has passed: heartbeats, and whatever the engines do by the clock.
    fn tick(&mut self) -> Check {
        self.note_waiting();
        let (mut outside, middle) = self.outside(1);
        for client in outside.clients.iter_mut() {
            client.tick(&mut outside.ctx);
        }
        match middle {
            Middle::Direct(_) => Ok(()),
            Middle::Warren(warren) => warren.tick(&mut outside),
        }
    }

    /// Does something to the world that no client asked for.
    pub fn inflict(&mut self, fault: &Fault) -> Check {
        self.trace.line(format_args!("[{} {} ms] {fault:?}", self.steps, self.now));
        let (mut outside, middle) = self.outside(1);
        match middle {
            Middle::Direct(_) => Ok(()),
            Middle::Warren(warren) => warren.inflict(fault, &mut outside),
        }?;
        self.tell_taken_back();
        Ok(())
    }

    fn hit(&mut self, path: Path) {
        self.cover.hit(path);
    }
}
