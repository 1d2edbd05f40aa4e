//! Runs in which connections to the broker break, hang and are closed. `make simulate FAULTS=--resumes` does the long
//! ones.

use warren_sim::cover::Path;
use warren_sim::fault::{ENGINE, Expected};
use warren_sim::many::{Many, run_many};
use warren_sim::scenario::Between;
use warren_sim::world::Totals;
use warren_sim::{Settings, report};

/// Enough for every kind of misfortune to have come many times.
const SEEDS: u64 = 150;

fn assert_clean(expected: Expected, seeds: u64) -> Totals {
    let settings = Settings { faults: Some(expected), ..Settings::new(Between::Warren) };
    let many = Many { settings, start: 1, seeds, total: None, threads: 2, keep_going: false };
    let outcome = run_many(&many, |_| {});
    if let Some(failure) = outcome.failures.first() {
        panic!("{}", report::failure(failure, settings));
    }
    outcome.totals
}

fn assert_taken(totals: &Totals, paths: &[Path]) {
    for &path in paths {
        let name = warren_sim::cover::NAMES[path as usize];
        assert!(totals.cover.count(path) > 0, "never came across: {name}");
    }
}

#[test]
fn runs_with_faults_are_clean() {
    let totals = assert_clean(ENGINE, SEEDS);
    assert!(totals.accepted > 1000, "next to nothing happened: {totals:?}");
    assert_taken(
        &totals,
        &[
            Path::Lost,
            Path::LostWhenQuiet,
            Path::LostAgain,
            Path::Hung,
            Path::BrokerClosed,
            Path::BrokerClosedForCause,
            Path::Outage,
            Path::Alarm,
            Path::ClosedByLoss,
        ],
    );
    if ENGINE == Expected::Resumes {
        let done = [Path::KeptThroughLoss, Path::MovedUnsent, Path::ConsumerResumed, Path::AckSwallowed];
        assert_taken(&totals, &done);
    }
}
