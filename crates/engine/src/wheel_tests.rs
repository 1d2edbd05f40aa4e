use proptest::prelude::*;

use super::*;

fn fire<K: Copy>(wheel: &mut Wheel<K>, now: u64) -> Vec<K> {
    let mut out = Vec::new();
    wheel.expired(Time(now), &mut out);
    out
}

#[test]
fn nothing_fires_early_and_all_within_a_tick() {
    for start in [0, 50, 99, 100, 6_399, 6_400, 123_456_789] {
        for ahead in [0, 1, 99, 100, 101, 6_300, 6_400, 409_600, 26_214_400, 10_000_000_000] {
            let mut wheel = Wheel::new(Time(start));
            let at = start + ahead;
            wheel.schedule(Time(at), ());
            if at > start {
                assert_eq!(fire(&mut wheel, at - 1).len(), 0, "{start} + {ahead}: early");
            }
            assert_eq!(fire(&mut wheel, at + TICK).len(), 1, "{start} + {ahead}: late");
            assert!(wheel.is_empty() && wheel.next().is_none());
        }
    }
}

#[test]
fn following_next_reaches_a_far_deadline_in_a_few_wakes() {
    let mut wheel = Wheel::new(Time(12_345));
    let at = 12_345 + 3_600_000;
    wheel.schedule(Time(at), 7);
    let mut wakes = 0;
    let mut out = Vec::new();
    let mut now = Time(0);
    while let Some(next) = wheel.next() {
        assert!(next > now || wakes == 0, "no progress");
        now = next;
        wheel.expired(now, &mut out);
        wakes += 1;
    }
    assert_eq!(out, [7]);
    assert!(now.0 >= at && now.0 <= at + TICK);
    assert!(wakes <= LEVELS, "{wakes} wakes");
}

#[test]
fn keys_come_out_by_deadline_then_by_order_of_scheduling() {
    let mut wheel = Wheel::new(Time(0));
    for (at, key) in [(7_000, 'e'), (130, 'b'), (7_000, 'f'), (110, 'a'), (130, 'c'), (900, 'd'), (0, '0')] {
        wheel.schedule(Time(at), key);
    }
    assert_eq!(wheel.len(), 7);
    assert_eq!(fire(&mut wheel, 8_000), ['0', 'a', 'b', 'c', 'd', 'e', 'f']);
}

#[test]
fn what_is_due_already_fires_at_the_next_call() {
    let mut wheel = Wheel::new(Time(1_000));
    wheel.schedule(Time(3), 1);
    assert!(wheel.next().unwrap() <= Time(1_000));
    assert_eq!(fire(&mut wheel, 1_000), [1]);
    assert_eq!(wheel.next(), None);
}

#[test]
fn a_clock_that_goes_back_fires_nothing() {
    let mut wheel = Wheel::new(Time(5_000));
    wheel.schedule(Time(5_100), 1);
    assert_eq!(fire(&mut wheel, 0), Vec::<i32>::new());
    // The wheel did not follow: this has been due for long.
    wheel.schedule(Time(100), 2);
    assert_eq!(fire(&mut wheel, 0), [2]);
    assert_eq!(fire(&mut wheel, 5_100), [1]);
}

#[test]
fn never_is_a_deadline_too() {
    let mut wheel = Wheel::new(Time(0));
    wheel.schedule(Time(u64::MAX), 1);
    wheel.schedule(Time(u64::MAX - 1), 2);
    wheel.schedule(Time(200), 3);
    assert_eq!(fire(&mut wheel, 1 << 62), [3]);
    assert!(wheel.next().is_some());
    assert_eq!(wheel.len(), 2);
}

#[test]
fn memory_is_used_again_and_given_back() {
    let mut wheel = Wheel::new(Time(0));
    for round in 0..100 {
        for key in 0..50 {
            wheel.schedule(Time(round * 1_000 + key * 17), key);
        }
        assert_eq!(fire(&mut wheel, (round + 1) * 1_000).len(), 50);
    }
    assert!(wheel.nodes.len() <= 50);
    for key in 0..100_000 {
        wheel.schedule(Time(200_000 + key % 977), key);
    }
    assert_eq!(fire(&mut wheel, 300_000).len(), 100_000);
    assert_eq!(wheel.nodes.capacity(), 0);
    assert!(wheel.firing.capacity() <= KEEP);
    wheel.schedule(Time(300_100), 1);
    assert_eq!(fire(&mut wheel, 300_100), [1]);
}

#[derive(Clone, Debug)]
enum Step {
    /// Relative to the present; negative: already past.
    Schedule(i64),
    Pass(u64),
    /// Go to the moment that `next` names.
    FollowNext,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let ahead = prop_oneof![-500i64..500, 0i64..10_000, 0i64..1_000_000, 0i64..10_000_000_000];
    let pass = prop_oneof![0u64..150, 0u64..10_000, 0u64..1_000_000, 0u64..5_000_000_000];
    let step = prop_oneof![
        4 => ahead.prop_map(Step::Schedule),
        2 => pass.prop_map(Step::Pass),
        2 => Just(Step::FollowNext),
    ];
    prop::collection::vec(step, 1..100)
}

proptest! {
    /// Against a plain list: what fires is exactly what is due by whole ticks, in order; `next` is never
    /// later than the first that fires.
    #[test]
    fn against_a_list(start in 0u64..1_000_000_000, steps in steps()) {
        let mut wheel = Wheel::new(Time(start));
        let mut model: Vec<(u64, usize)> = Vec::new();
        let mut now = start;
        for (key, step) in steps.into_iter().enumerate() {
            match step {
                Step::Schedule(ahead) => {
                    let at = now.saturating_add_signed(ahead);
                    wheel.schedule(Time(at), key);
                    model.push((at, key));
                }
                Step::Pass(millis) => now += millis,
                Step::FollowNext => now = now.max(wheel.next().map_or(now, |next| next.0)),
            }
            model.sort_unstable();
            if let Some(next) = wheel.next() {
                let first = model.first().map(|(at, _)| at.div_ceil(TICK) * TICK);
                prop_assert!(first.is_some_and(|first| next.0 <= first.max(now)));
            } else {
                prop_assert!(model.is_empty());
            }
            if !matches!(step, Step::Schedule(_)) {
                let due = model.partition_point(|(at, _)| at.div_ceil(TICK) <= now / TICK);
                let expected: Vec<usize> = model.drain(..due).map(|(_, key)| key).collect();
                prop_assert_eq!(fire(&mut wheel, now), expected);
            }
            prop_assert_eq!((wheel.len(), wheel.is_empty()), (model.len(), model.is_empty()));
        }
        while let Some(next) = wheel.next() {
            now = now.max(next.0);
            let fired = fire(&mut wheel, now);
            let expected: Vec<usize> = model.drain(..fired.len()).map(|(_, key)| key).collect();
            prop_assert_eq!(fired, expected);
        }
        prop_assert!(model.is_empty());
    }
}
