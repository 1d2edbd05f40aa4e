//! Short runs are clean, with debug assertions on; `make simulate` does the long ones.

use warren_sim::scenario::Between;
use warren_sim::trace::Trace;
use warren_sim::world::Totals;
use warren_sim::{Settings, report, run};

fn assert_clean(between: Between, seeds: std::ops::RangeInclusive<u64>) -> Totals {
    let settings = Settings::new(between);
    let mut totals = Totals::default();
    for seed in seeds {
        match run(seed, settings, Trace::Off) {
            Ok(run) => totals.add(&run),
            Err(failure) => panic!("{}", report::failure(&failure, settings)),
        }
    }
    totals
}

/// Clients, record and model broker agree with each other.
#[test]
fn direct_runs_are_clean() {
    let totals = assert_clean(Between::Nothing, 1..=200);
    assert!(totals.accepted > 1000, "next to nothing happened: {totals:?}");
}

#[test]
fn runs_through_the_engine_are_clean() {
    let totals = assert_clean(Between::Warren, 1..=200);
    assert!(totals.accepted > 1000, "next to nothing happened: {totals:?}");
}

/// The same seed gives the same run, or a printed seed is worth nothing.
#[test]
fn runs_can_be_repeated() {
    let settings = Settings::new(Between::Warren);
    for seed in [3, 14, 15, 92, 65] {
        let [first, second] =
            [(); 2].map(|()| match run(seed, settings, Trace::Last(100_000, Default::default())) {
                Ok(totals) => format!("{totals:?}"),
                Err(failure) => format!("{failure:?}"),
            });
        assert_eq!(first, second, "seed {seed}");
    }
}
