//! Farms with several members: who is tried when, where sessions belong, what becomes of them when a member goes.

mod members;

use std::sync::Arc;

use members::{Fate, Member, Stage, WRONG, config};
use warren_engine::balance::Balance;
use warren_engine::config::{Limits, Mode, Select};
use warren_engine::time::Time;

use Member::{Lives, Mute, Refuses, Swallows};

#[test]
fn round_robin_over_three_members_is_even() {
    let mut stage = Stage::new(&[Lives; 3]);
    for n in 0..300 {
        stage.arrive(&format!("user-{}", n % 100), "good");
    }
    assert_eq!(stage.spread(), [100, 100, 100]);
}

#[test]
fn who_is_not_let_in_takes_nobodys_turn() {
    // Every second one is refused: with turns of their own, all others would come to the same member.
    let mut stage = Stage::new(&[Lives; 2]);
    for n in 0..200 {
        stage.arrive("good", "good");
        stage.arrive(&format!("stranger-{n}"), WRONG);
        stage.wait(100);
    }
    assert_eq!(stage.spread(), [100, 100]);
}

#[test]
fn workers_share_the_turns() {
    let config = config(3, Limits::default());
    let balance = Arc::new(Balance::new(&config));
    let mut workers: Vec<Stage> =
        (0..2).map(|_| Stage::sharing(&[Lives; 3], config.clone(), &balance)).collect();
    for n in 0..150 {
        // Not by turns, so that no worker sees a regular part of them.
        workers[usize::from(n % 7 < 3)].arrive("user", "good");
    }
    let [one, two] = [workers[0].spread(), workers[1].spread()];
    let all: Vec<usize> = one.iter().zip(&two).map(|(a, b)| a + b).collect();
    assert_eq!(all, [50, 50, 50], "{one:?} and {two:?}");
}

#[test]
fn one_client_has_one_connection_however_many_members_there_are() {
    for members in 1..=3 {
        let mut stage = Stage::new(&vec![Lives; members]);
        stage.arrive("user", "good");
        assert_eq!(stage.dialled.len(), 1, "{members} members");
        assert_eq!(stage.engine.metrics().upstream_connections, 1, "{members} members");
    }
}

#[test]
fn with_one_dead_and_one_black_hole_everybody_is_let_in_soon_and_evenly() {
    let mut stage = Stage::new(&[Lives, Refuses, Swallows, Lives]);
    for n in 0..300 {
        stage.arrive(&format!("user-{n}"), "good");
    }
    stage.wait(6_000);
    let spread = stage.spread();
    assert_eq!(spread.iter().sum::<usize>(), 300, "{spread:?}");
    assert_eq!((spread[1], spread[2]), (0, 0));
    assert!(spread[0].abs_diff(spread[3]) <= 20, "{spread:?}");
    let late = stage.fates.values().filter(|f| matches!(f, Fate::At(_, at) if at.0 > 4_000)).count();
    assert_eq!(late, 0, "clients that waited for more than one black hole");
    let dead = stage.dialled.iter().filter(|b| matches!(**b, 1 | 2)).count();
    assert!(dead < 150, "{dead} tries of members that are known to be dead");
    // The log says which try it was, what came before and what comes next.
    assert!(
        stage.log.iter().any(|l| l.starts_with("try 1 of 4: ") && l.contains("is next")),
        "{:?}",
        stage.log
    );
    assert!(stage.log.iter().any(|l| l.starts_with("try 2 of 4: ") && l.contains("(after rabbit")));
}

#[test]
fn a_member_that_takes_connections_and_says_nothing_is_given_up_after_two_seconds() {
    let mut stage = Stage::new(&[Mute, Lives]);
    for n in 0..20 {
        stage.arrive(&format!("user-{n}"), "good");
    }
    stage.wait(2_500);
    assert_eq!(stage.spread(), [0, 20]);
    assert!(
        stage.log.iter().any(|l| l.contains("said nothing within 2s; rabbit2 is next")),
        "{:?}",
        stage.log
    );
}

#[test]
fn when_all_are_down_clients_hear_what_was_tried() {
    let mut stage = Stage::new(&[Refuses, Swallows, Refuses]);
    let one = stage.arrive("user", "good");
    stage.wait(40_000);
    let Some(Fate::Closed(320, text, at)) = stage.fates.get(&one) else { panic!("{:?}", stage.fates) };
    assert!(*at <= Time(35_000), "{at:?}");
    for told in ["farm orders", "rabbit1: cannot connect", "rabbit2: no answer", "rabbit3: cannot connect"] {
        assert!(text.contains(told), "{text}");
    }
    assert!(text.len() <= 255);
    // They come back, and so do clients, within a second or two.
    stage.members = vec![Lives; 3];
    stage.arrive("user", "good");
    stage.wait(1_500);
    assert_eq!(stage.spread().iter().sum::<usize>(), 1);
}

#[test]
fn what_a_broker_refuses_is_not_tried_elsewhere() {
    let mut stage = Stage::new(&[Lives; 3]);
    stage.arrive("user", WRONG);
    assert_eq!(stage.dialled.len(), 1);
    stage.wait(3_000);
    assert_eq!(stage.dialled.len(), 1);
}

#[test]
fn sessions_of_a_member_that_goes_resume_on_the_others() {
    for into in [Refuses, Swallows, Mute] {
        let mut stage = Stage::new(&[Lives; 3]);
        let clients: Vec<_> = (0..30).map(|n| stage.arrive(&format!("user-{}", n % 3), "good")).collect();
        assert_eq!(stage.spread(), [10, 10, 10]);
        stage.fell(1, into);
        for client in &clients {
            stage.ask(*client);
        }
        stage.wait(4_000);
        let spread = stage.spread();
        assert_eq!(spread[1], 0, "{into:?}");
        assert!(spread[0].abs_diff(spread[2]) <= 2 && spread[0] + spread[2] == 30, "{into:?}: {spread:?}");
        assert_eq!(stage.engine.metrics().session_moves, 10);
        // It is back: new ones come to it, those who are elsewhere stay.
        stage.members[1] = Lives;
        stage.wait(70_000);
        for n in 0..30 {
            stage.arrive(&format!("user-{}", n % 3), "good");
        }
        assert_eq!(stage.spread()[1], 10, "{into:?}");
    }
}

#[test]
fn a_session_stays_where_something_of_it_still_works() {
    let mut stage = Stage::new(&[Lives; 2]);
    let client = stage.arrive("user", "good");
    let Some(Fate::At(home, _)) = stage.fates.get(&client).cloned() else { panic!("{:?}", stage.fates) };
    // New connections fail; the one that it has does not.
    stage.members[home] = Refuses;
    for _ in 0..5 {
        stage.arrive("user", "good");
        stage.wait(500);
        stage.ask(client);
        assert!(
            matches!(stage.fates.get(&client), Some(Fate::At(at, _)) if *at == home),
            "{:?}",
            stage.fates
        );
    }
}

#[test]
fn dedicated_sessions_try_every_member_too() {
    let mut config = config(4, Limits::default());
    config.routes[0].mode = Mode::Dedicated;
    let mut stage = Stage::with(&[Lives, Refuses, Mute, Lives], config);
    for n in 0..40 {
        stage.arrive(&format!("user-{n}"), "good");
    }
    stage.wait(3_000);
    let spread = stage.spread();
    assert_eq!(spread.iter().sum::<usize>(), 40, "{spread:?}");
    assert!(spread[0].abs_diff(spread[3]) <= 4, "{spread:?}");
    stage.wait(5_000); // the one that asked what the brokers say of themselves is gone
    assert_eq!(stage.engine.metrics().upstream_connections, 40, "each has its own");
    assert!(
        stage.log.iter().any(|l| l.contains("try 1 of 4: ") && l.contains(" is next")),
        "{:?}",
        stage.log
    );
}

#[test]
fn dedicated_sessions_are_spread_evenly() {
    let mut config = config(3, Limits::default());
    config.routes[0].mode = Mode::Dedicated;
    let mut stage = Stage::with(&[Lives; 3], config);
    for n in 0..60 {
        let password = if n % 2 == 0 { "good" } else { WRONG };
        stage.arrive("user", password);
        stage.wait(200);
    }
    assert_eq!(stage.spread(), [10, 10, 10]);
}

#[test]
fn the_least_loaded_member_gets_the_next_one() {
    let mut config = config(3, Limits::default());
    config.farms[0].select = Select::LeastConnections;
    let mut stage = Stage::with(&[Lives; 3], config);
    let clients: Vec<_> = (0..30).map(|_| stage.arrive("user", "good")).collect();
    assert_eq!(stage.spread(), [10, 10, 10]);
    let of_first = |stage: &Stage, id| matches!(stage.fates.get(&id), Some(Fate::At(0, _)));
    for client in clients.into_iter().filter(|id| of_first(&stage, *id)).collect::<Vec<_>>() {
        stage.leave(client);
    }
    assert_eq!(stage.spread(), [0, 10, 10]);
    stage.wait(3_000);
    for _ in 0..10 {
        stage.arrive("user", "good");
    }
    assert_eq!(stage.spread(), [10, 10, 10]);
}
