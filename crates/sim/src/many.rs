//! Many seeds, on as many threads as one likes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::trace::Trace;
use crate::world::Totals;
use crate::{Failure, Settings, run};

/// Which seeds.
#[derive(Clone, Copy, Debug)]
pub struct Many {
    /// What all have in common.
    pub settings: Settings,
    /// The first.
    pub start: u64,
    /// How many at most.
    pub seeds: u64,
    /// No more are begun once so many steps are done.
    pub total: Option<u64>,
    /// Threads.
    pub threads: usize,
    /// Goes on after a failure.
    pub keep_going: bool,
}

/// What they came to.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Seeds that were run.
    pub seeds: u64,
    /// Sums over those that were clean.
    pub totals: Totals,
    /// Those that were not, the lowest seed first.
    pub failures: Vec<Failure>,
}

/// Runs them. `on_failure` hears of each failure when it happens.
pub fn run_many(many: &Many, on_failure: impl Fn(&Failure) + Sync) -> Outcome {
    let (next, steps, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let outcome = Mutex::new(Outcome::default());
    std::thread::scope(|scope| {
        for _ in 0..many.threads {
            scope.spawn(|| {
                let mut mine = Outcome::default();
                while !stop.load(Ordering::Relaxed)
                    && many.total.is_none_or(|total| steps.load(Ordering::Relaxed) < total)
                {
                    let place = next.fetch_add(1, Ordering::Relaxed);
                    if place >= many.seeds {
                        break;
                    }
                    mine.seeds += 1;
                    match run(many.start.wrapping_add(place), many.settings, Trace::Off) {
                        Ok(totals) => {
                            steps.fetch_add(totals.steps, Ordering::Relaxed);
                            mine.totals.add(&totals);
                        }
                        Err(failure) => {
                            on_failure(&failure);
                            mine.failures.push(failure);
                            stop.fetch_or(!many.keep_going, Ordering::Relaxed);
                        }
                    }
                }
                let mut all = outcome.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                all.seeds += mine.seeds;
                all.totals.add(&mine.totals);
                all.failures.append(&mut mine.failures);
            });
        }
    });
    let mut outcome = outcome.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    outcome.failures.sort_by_key(|failure| failure.seed);
    outcome
}
