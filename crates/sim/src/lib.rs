//! A deterministic simulation of Warren's engine: clients that do random things, a model broker, and a record that knows
//! what must be true. Everything follows from a seed: the same seed gives the same run.
//!
//! In the order in which things happen:
//!
//! - [`scenario`]: what a run is like.
//! - [`world`]: the actions and who does them.
//! - [`client`]: AMQP clients, raw frames and all.
//! - [`oracle`]: the record, and the checks.
//! - [`fault`]: misfortunes, for runs that ask for them.
//! - [`cover`]: what the runs have come across.
//! - [`many`]: many seeds.
//! - [`report`]: totals and failures for people.

pub mod client;
pub mod cover;
pub mod fault;
pub mod many;
pub mod oracle;
pub mod report;
pub mod rng;
pub mod scenario;
pub mod trace;
pub mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use fault::{Expected, Misfortune};
use rng::Rng;
use scenario::{Between, Scenario};
use trace::Trace;
use warren_engine::Options;
use world::{Totals, World};

/// What all runs have in common.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// What stands between clients and broker.
    pub between: Between,
    /// Steps of each run; drawn from the seed when `None`.
    pub steps: Option<u64>,
    /// Clients at a time; drawn from the seed when `None`. Few make a failure easier to read.
    pub clients: Option<usize>,
    /// Upstream connections break, and this is what the engine is to do about it; `None`: they do not.
    pub faults: Option<Expected>,
    /// The engines check themselves after each step. Without it only what clients and broker see counts.
    pub invariants: bool,
    /// Changes each engine's options before it begins: for bugs that are put in on purpose.
    pub adjust: fn(&mut Options),
}

impl Settings {
    /// Engines as they are, runs as long as their seeds want.
    pub fn new(between: Between) -> Settings {
        Settings { between, steps: None, clients: None, faults: None, invariants: true, adjust: |_| {} }
    }
}

/// Why a run failed.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The run.
    pub seed: u64,
    /// What is wrong.
    pub what: String,
    /// When.
    pub when: String,
    /// The last that happened, oldest first, if anybody wanted to know.
    pub story: Vec<String>,
}

/// Runs one seed.
///
/// # Errors
/// When something that must be true is not.
pub fn run(seed: u64, settings: Settings, trace: Trace) -> Result<Totals, Failure> {
    let mut rng = Rng::new(seed);
    let mut scenario = Scenario::draw(&mut rng, settings.between);
    scenario.clients = settings.clients.unwrap_or(scenario.clients);
    if let Some(expected) = settings.faults {
        let mut rng = Rng::new(seed ^ 0xFA17);
        scenario = scenario.with_misfortune(Misfortune::draw(&mut rng, expected), &mut rng);
    }
    let drawn = if rng.chance(1, 20) { rng.between(5000, 20_000) } else { rng.between(500, 4000) };
    let steps = settings.steps.unwrap_or(drawn);
    let failure = |what, when| Failure { seed, what, when, story: Vec::new() };
    let mut world = World::new(scenario, seed, settings, trace)
        .map_err(|what| failure(what, "before the first step".into()))?;
    let what = match catch_unwind(AssertUnwindSafe(|| world.run(steps))) {
        Ok(Ok(())) => return Ok(world.totals()),
        Ok(Err(what)) => what,
        Err(panic) => panic_text(panic.as_ref()),
    };
    let story = world.trace.lines().map(str::to_owned).collect();
    Err(Failure { story, ..failure(what, world.place_in_time()) })
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("panic: {}", text.unwrap_or("of an unknown kind"))
}
