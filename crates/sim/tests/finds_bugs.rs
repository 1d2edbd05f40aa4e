//! Bugs put into the engine on purpose are found by what clients and broker see, the engine's own checks left aside.
//! A seed counts when it is clean without the bug and fails with it.

use warren_engine::Options;
use warren_engine::engine::Sabotage;
use warren_sim::scenario::Between;
use warren_sim::trace::Trace;
use warren_sim::{Settings, run};

/// Seeds that each bug is given to show itself: a few hundredths of what CI runs.
const SEEDS: u64 = 300;

fn find(adjust: fn(&mut Options)) -> Option<(u64, String)> {
    let clean = Settings { invariants: false, ..Settings::new(Between::Warren) };
    let sabotaged = Settings { adjust, ..clean };
    (1..=SEEDS).find_map(|seed| {
        let failure = run(seed, sabotaged, Trace::Off).err()?;
        run(seed, clean, Trace::Off).ok()?;
        Some((seed, failure.what))
    })
}

fn assert_found(adjust: fn(&mut Options)) {
    let found = find(adjust);
    let (seed, what) = found.expect("the bug was not found");
    println!("found by seed {seed}: {what}");
}

#[test]
fn a_delivery_tag_offset() {
    assert_found(|options| options.sabotage = Sabotage::TagOffset);
}

#[test]
fn a_released_channel_still_in_use() {
    assert_found(|options| options.sabotage = Sabotage::ReleaseInUse);
}

#[test]
fn a_barrier_skipped() {
    assert_found(|options| options.sabotage = Sabotage::SkipBarrier);
}
