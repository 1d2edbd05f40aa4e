use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;

impl TagSet {
    fn check(&self) {
        assert!(self.words.iter().zip(self.words.iter().skip(1)).all(|(a, b)| a.index < b.index));
        assert_eq!(self.holes, self.words.iter().filter(|word| word.bits == 0).count());
        assert_eq!(self.count, self.words.iter().map(|word| u64::from(word.bits.count_ones())).sum::<u64>());
        assert!(self.words.front().is_none_or(|word| word.bits != 0));
        assert!(self.words.back().is_none_or(|word| word.bits != 0));
        assert!(self.highest().is_none_or(|tag| tag < self.next));
        // What is held follows from what is outstanding, not from how much went by.
        assert!(self.words.len() as u64 <= 2 * self.count + KEEP as u64);
        assert!(self.words.capacity() <= KEEP.max(4 * self.words.len()));
    }
}

#[test]
fn tags_begin_where_they_should() {
    assert_eq!(TagSet::default().push(true), 1);
    let mut set = TagSet::starting_at(1000);
    assert_eq!((set.push(false), set.push(true), set.next()), (1000, 1001, 1002));
    assert!(!set.contains(1000) && set.contains(1001) && !set.contains(1002));
}

#[test]
fn tags_that_need_no_answer_cost_nothing() {
    let mut set = TagSet::default();
    for _ in 0..100_000 {
        set.push(false);
    }
    assert_eq!((set.memory(), set.next()), (0, 100_001));
    assert!(!set.settle(5) && set.settle_through(50_000) == 0);
}

#[test]
fn in_order_traffic_stays_small() {
    let mut set = TagSet::default();
    for _ in 0..100 {
        set.push(true);
    }
    for _ in 0..1_000_000 {
        let tag = set.push(true);
        assert!(set.settle(tag - 100));
    }
    set.check();
    assert!(set.memory() <= KEEP * size_of::<Word>());
}

#[test]
fn one_tag_left_behind_does_not_grow_the_set() {
    let mut set = TagSet::default();
    let stuck = set.push(true);
    for _ in 0..1_000_000 {
        let tag = set.push(true);
        assert!(set.settle(tag));
    }
    for _ in 0..1_000_000 {
        set.push(false);
    }
    let late = set.push(true);
    set.check();
    assert!(set.memory() <= KEEP * size_of::<Word>());
    assert_eq!(set.iter().collect::<Vec<_>>(), [stuck, late]);
    assert!(set.contains(stuck) && !set.contains(500_000) && set.contains(late));
    assert!(set.settle(stuck) && !set.settle(stuck));
    assert_eq!(set.lowest(), Some(late));
}

#[test]
fn words_between_tags_left_behind_are_dropped() {
    let mut set = TagSet::default();
    set.push(true);
    for _ in 0..200 {
        set.push(true);
    }
    // A window that moves on: its words run empty in the middle of the list.
    for _ in 0..100_000 {
        let tag = set.push(true);
        assert!(set.settle(tag - 200));
        assert!(!set.contains(tag - 200) && set.contains(tag - 199));
    }
    set.check();
    assert!(set.memory() <= 2 * KEEP * size_of::<Word>(), "{}", set.memory());
    assert_eq!((set.lowest(), set.len()), (Some(1), 201));
}

#[test]
fn settled_in_reverse_order() {
    let mut set = TagSet::default();
    for _ in 0..10_000 {
        set.push(true);
    }
    for tag in (1..=10_000).rev() {
        assert_eq!(set.highest(), Some(tag));
        assert!(set.settle(tag));
    }
    set.check();
    assert!(set.is_empty() && set.memory() <= KEEP * size_of::<Word>());
}

#[test]
fn multiple_takes_word_boundaries_exactly() {
    for upto in [1, 62, 63, 64, 65, 127, 128, 129, 200, 1000] {
        let mut set = TagSet::default();
        for _ in 0..200 {
            set.push(true);
        }
        assert_eq!(set.settle_through(upto), upto.min(200), "up to {upto}");
        set.check();
        assert_eq!(set.lowest(), (upto < 200).then_some(upto + 1));
    }
}

#[test]
fn numbers_that_were_never_given_out() {
    let mut set = TagSet::default();
    for _ in 0..10 {
        set.push(true);
    }
    assert!(!set.contains(0) && !set.contains(11) && !set.contains(u64::MAX));
    assert!(!set.settle(0) && !set.settle(11) && !set.settle(u64::MAX));
    assert_eq!(set.settle_through(0), 0);
    assert_eq!(set.settle_through(u64::MAX), 10);
    set.check();
    assert_eq!(set.push(true), 11);
}

#[test]
fn clearing_frees_and_numbers_on() {
    let mut set = TagSet::default();
    for _ in 0..100_000 {
        set.push(true);
    }
    assert!(set.memory() >= 100_000 / 8);
    assert_eq!(set.clear(), 100_000);
    set.check();
    assert_eq!((set.memory(), set.next(), set.len()), (0, 100_001, 0));
}

#[derive(Clone, Debug)]
enum Step {
    Push {
        run: usize,
        outstanding: bool,
    },
    /// Settle the outstanding tag at this place (from the lowest, modulo their number).
    SettleAt(usize),
    SettleRun {
        from: usize,
        len: usize,
    },
    /// Settle a number relative to the next tag, outstanding or not.
    SettleBack(u64),
    SettleThroughBack(u64),
    Clear,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let run = prop_oneof![0usize..4, 0usize..200, 0usize..2000];
    let back = prop_oneof![0u64..10, 0u64..300, 0u64..20_000];
    let step = prop_oneof![
        4 => (run.clone(), any::<bool>()).prop_map(|(run, outstanding)| Step::Push { run, outstanding }),
        3 => any::<usize>().prop_map(Step::SettleAt),
        4 => (any::<usize>(), run).prop_map(|(from, len)| Step::SettleRun { from, len }),
        2 => back.clone().prop_map(Step::SettleBack),
        1 => back.prop_map(Step::SettleThroughBack),
        1 => (0u32..20).prop_map(|n| if n == 0 { Step::Clear } else { Step::SettleBack(1) }),
    ];
    prop::collection::vec(step, 1..80)
}

proptest! {
    #[test]
    fn against_a_set(start in prop_oneof![Just(1u64), 0u64..200, Just(u64::MAX / 2)], steps in steps()) {
        let mut set = TagSet::starting_at(start);
        let mut model: BTreeSet<u64> = BTreeSet::new();
        let mut next = start;
        for step in steps {
            match step {
                Step::Push { run, outstanding } => for _ in 0..run {
                    prop_assert_eq!(set.push(outstanding), next);
                    if outstanding {
                        model.insert(next);
                    }
                    next += 1;
                },
                Step::SettleAt(place) => {
                    if let Some(&tag) = model.iter().nth(place % model.len().max(1)) {
                        model.remove(&tag);
                        prop_assert!(set.settle(tag));
                        prop_assert!(!set.settle(tag));
                    }
                }
                Step::SettleRun { from, len } => {
                    let from = from % model.len().max(1);
                    let tags: Vec<u64> = model.iter().copied().skip(from).take(len).collect();
                    for tag in tags {
                        model.remove(&tag);
                        prop_assert!(set.settle(tag));
                    }
                }
                Step::SettleBack(back) => {
                    let tag = next.saturating_sub(back);
                    prop_assert_eq!(set.contains(tag), model.contains(&tag));
                    prop_assert_eq!(set.settle(tag), model.remove(&tag));
                }
                Step::SettleThroughBack(back) => {
                    let tag = next.saturating_sub(back);
                    let rest = model.split_off(&(tag + 1));
                    prop_assert_eq!(set.settle_through(tag), model.len() as u64);
                    model = rest;
                }
                Step::Clear => {
                    prop_assert_eq!(set.clear(), model.len() as u64);
                    model.clear();
                }
            }
            set.check();
            prop_assert_eq!(set.next(), next);
            prop_assert_eq!((set.len(), set.is_empty()), (model.len() as u64, model.is_empty()));
            prop_assert_eq!((set.lowest(), set.highest()), (model.first().copied(), model.last().copied()));
            prop_assert!(set.iter().eq(model.iter().copied()));
        }
    }
}
