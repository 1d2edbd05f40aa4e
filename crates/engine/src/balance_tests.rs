use proptest::prelude::*;

use super::*;
use crate::config::{Backend, Farm, Limits};

const NOW: Time = Time(1_000);

struct Shape {
    weights: Vec<u32>,
    datacenters: Vec<&'static str>,
    select: Select,
}

impl Shape {
    fn of(weights: &[u32]) -> Shape {
        Shape {
            weights: weights.to_vec(),
            datacenters: vec!["here"; weights.len()],
            select: Select::RoundRobin,
        }
    }

    fn config(&self) -> Config {
        let mut config = Config::simple("127.0.0.1", 1, Limits::default());
        config.datacenter = "here".into();
        let backend = |(weight, datacenter): (&u32, &&str)| Backend {
            weight: *weight,
            datacenter: (*datacenter).into(),
            ..Backend::at("127.0.0.1", 1)
        };
        config.backends = self.weights.iter().zip(&self.datacenters).map(backend).collect();
        config.farms = vec![Farm {
            select: self.select,
            partition: vec![Partition::DatacenterAffinity],
            ..Farm::of("farm", (0..self.weights.len()).collect())
        }];
        config
    }

    fn balance(&self) -> Balance {
        Balance::new(&self.config())
    }
}

/// How often each member comes in so many turns.
fn counts(balance: &Balance, turns: usize) -> Vec<usize> {
    let mut random = Random::new(1);
    let mut counts = vec![0; balance.backends.len()];
    for _ in 0..turns {
        let member = balance.next(0, For::Session, &[], NOW, &mut random).expect("there are members");
        counts[member] += 1;
    }
    counts
}

/// All members in the order in which they are tried.
fn order(balance: &Balance, random: &mut Random) -> Vec<BackendId> {
    let mut tried = Vec::new();
    let mut what = For::Session;
    while let Some(member) = balance.next(0, what, &tried, NOW, random) {
        tried.push(member);
        what = For::Try;
    }
    tried
}

#[test]
fn round_robin_is_exact_for_any_number_of_members() {
    for members in 1..=7 {
        let balance = Shape::of(&vec![1; members]).balance();
        assert_eq!(counts(&balance, members * 10), vec![10; members]);
    }
}

#[test]
fn three_members_come_in_turn() {
    let balance = Shape::of(&[1, 1, 1]).balance();
    let turns: Vec<_> = (0..9).map(|_| order(&balance, &mut Random::new(1))[0]).collect();
    for three in turns.chunks(3) {
        let mut three = three.to_vec();
        three.sort_unstable();
        assert_eq!(three, [0, 1, 2], "{turns:?}");
    }
}

#[test]
fn weights_are_shares() {
    assert_eq!(counts(&Shape::of(&[2, 1]).balance(), 300), [200, 100]);
    assert_eq!(counts(&Shape::of(&[200, 100]).balance(), 300), [200, 100]);
    assert_eq!(counts(&Shape::of(&[5, 1, 1]).balance(), 70), [50, 10, 10]);
    // Well mixed: not five of one and then the others.
    let balance = Shape::of(&[3, 1]).balance();
    let turns: Vec<_> = (0..8).map(|_| order(&balance, &mut Random::new(1))[0]).collect();
    assert!(!turns.windows(4).any(|w| w == [0, 0, 0, 0] || w[..2] == [1, 1]), "{turns:?}");
}

#[test]
fn round_robin_is_exact_across_threads() {
    let balance = Shape::of(&[1, 1, 1]).balance();
    let taken: Vec<Vec<usize>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..4).map(|_| scope.spawn(|| counts(&balance, 300))).collect();
        threads.into_iter().map(|t| t.join().expect("no panic")).collect()
    });
    for member in 0..3 {
        assert_eq!(taken.iter().map(|t| t[member]).sum::<usize>(), 400, "{taken:?}");
    }
}

#[test]
fn the_share_of_one_that_is_out_goes_to_all_others_alike() {
    let balance = Shape::of(&[1, 1, 1, 1]).balance();
    balance.failed(2, NOW, 3);
    assert_eq!(counts(&balance, 300), [100, 100, 0, 100]);
    // It is not known yet: who came to it goes on to the others, again alike.
    let balance = Shape::of(&[1, 1, 1, 1]).balance();
    let mut seconds = [0; 4];
    for _ in 0..1_200 {
        let order = order(&balance, &mut Random::new(1));
        if order[0] == 2 {
            seconds[order[1]] += 1;
        }
    }
    assert_eq!(seconds, [100, 100, 0, 100]);
}

#[test]
fn one_that_failed_is_last_for_some_seconds_and_longer_each_time() {
    let balance = Shape::of(&[1, 1]).balance();
    let mut random = Random::new(1);
    let (mut now, mut last) = (NOW, 0);
    for failures in 0..8 {
        balance.failed(0, now, random.next());
        let until = balance.backends[0].out_until.load(Ordering::Relaxed);
        let pause = until - now.0;
        let most = 3_000 << u32::min(failures, OUT_DOUBLES);
        assert!((most / 3..=most).contains(&pause), "{pause} ms after {failures} failures");
        balance.failed(0, now, random.next());
        assert_eq!(
            balance.backends[0].out_until.load(Ordering::Relaxed),
            until,
            "the same failure counts once"
        );
        assert!(balance.is_out(0, 0, now) && !balance.is_out(0, 0, Time(until)));
        assert!(!balance.is_up(0, now) && balance.is_up(1, now));
        (now, last) = (Time(until), pause);
    }
    assert!(last > 30_000);
    balance.failed(0, now, random.next());
    balance.worked(0);
    assert!(balance.is_up(0, now), "success counts at once");
    balance.failed(0, now, random.next());
    assert!(balance.backends[0].out_until.load(Ordering::Relaxed) - now.0 <= 3_000, "and begins anew");
}

#[test]
fn members_of_the_same_datacenter_come_first() {
    let shape = Shape { datacenters: vec!["there", "here", "there", "here"], ..Shape::of(&[1; 4]) };
    let balance = shape.balance();
    assert_eq!(counts(&balance, 100), [0, 50, 0, 50]);
    // Those that are out come last of all, even those from here.
    balance.failed(1, NOW, 1);
    let order = order(&balance, &mut Random::new(1));
    assert_eq!((order[0], order[3]), (3, 1), "{order:?}");
    balance.set_down(0, 3, true);
    assert_eq!(counts(&balance, 100), [50, 0, 50, 0]);
    balance.set_down(0, 3, false);
    assert_eq!(counts(&balance, 100), [0, 0, 0, 100]);
}

#[test]
fn the_least_loaded_is_taken() {
    let balance = Shape { select: Select::LeastConnections, ..Shape::of(&[1, 1, 2]) }.balance();
    let mut random = Random::new(1);
    for _ in 0..400 {
        let member = balance.next(0, For::Session, &[], NOW, &mut random).expect("members");
        balance.enter(member);
    }
    let loads: Vec<usize> = (0..3).map(|b| balance.sessions(b)).collect();
    assert_eq!(loads, [100, 100, 200]);
    for _ in 0..50 {
        balance.leave(1);
    }
    for _ in 0..50 {
        let member = balance.next(0, For::Session, &[], NOW, &mut random).expect("members");
        assert_eq!(member, 1);
        balance.enter(member);
    }
}

#[test]
fn the_better_of_two_drawn_keeps_loads_near_each_other() {
    let balance = Shape { select: Select::Random, ..Shape::of(&[1, 1, 1, 1]) }.balance();
    let mut random = Random::new(7);
    for _ in 0..4_000 {
        let member = balance.next(0, For::Session, &[], NOW, &mut random).expect("members");
        balance.enter(member);
    }
    let loads: Vec<usize> = (0..4).map(|b| balance.sessions(b)).collect();
    assert!(loads.iter().all(|l| (980..=1020).contains(l)), "{loads:?}");
}

proptest! {
    #[test]
    fn every_member_comes_once(
        weights in proptest::collection::vec(1_u32..100, 1..8),
        out in proptest::collection::vec(any::<(bool, bool, bool)>(), 8),
        select in prop_oneof![
            Just(Select::RoundRobin), Just(Select::Random), Just(Select::LeastConnections)
        ],
        seed in any::<u64>(),
    ) {
        let datacenters = out.iter().map(|o| if o.0 { "here" } else { "there" });
        let shape = Shape { datacenters: datacenters.take(weights.len()).collect(), select, ..Shape::of(&weights) };
        let balance = shape.balance();
        let mut random = Random::new(seed);
        for (backend, (_, failed, down)) in out.iter().enumerate().take(weights.len()) {
            if *failed {
                balance.failed(backend, NOW, random.next());
            }
            balance.set_down(0, backend, *down && !failed);
            if *failed {
                balance.failed(backend, NOW, random.next());
            }
        }
        let order = order(&balance, &mut random);
        let mut sorted = order.clone();
        sorted.sort_unstable();
        prop_assert_eq!(sorted, (0..weights.len()).collect::<Vec<_>>());
        let ranks: Vec<_> = order.iter().map(|b| balance.rank(&balance.farms[0].members[*b], NOW)).collect();
        prop_assert!(ranks.is_sorted(), "{:?}", ranks);
    }

    #[test]
    fn shares_are_exact(weights in proptest::collection::vec(1_u32..40, 1..6)) {
        let balance = Shape::of(&weights).balance();
        let all: usize = weights.iter().map(|w| *w as usize).sum();
        let wanted: Vec<usize> = weights.iter().map(|w| *w as usize * 2).collect();
        prop_assert_eq!(counts(&balance, all * 2), wanted);
    }
}
