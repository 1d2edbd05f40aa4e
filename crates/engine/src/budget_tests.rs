use slotmap::SlotMap;

use super::*;

const MIB: u64 = 1 << 20;

/// A budget of 256 MiB: 96 MiB to reserve, 32 MiB for small ones.
fn budget() -> (Budget, Vec<ChannelId>) {
    let limits = Limits { memory: 256 << 20, ..Limits::default() };
    let mut map: SlotMap<ChannelId, ()> = SlotMap::with_key();
    (Budget::new(&limits, 1), (0..200).map(|_| map.insert(())).collect())
}

fn ask(budget: &mut Budget, id: ChannelId, octets: u64) -> Answer {
    budget.ask(id, octets, Asker::default(), 0, Time(0))
}

#[test]
fn every_worker_has_its_share() {
    let limits = Limits { memory: 256 << 20, ..Limits::default() };
    assert_eq!(Budget::new(&limits, 1).largest(), 96 * MIB);
    assert_eq!(Budget::new(&limits, 4).largest(), 24 * MIB);
}

#[test]
fn reservations_are_granted_in_order() {
    let (mut budget, ids) = budget();
    assert_eq!(ask(&mut budget, ids[0], 60 * MIB), Answer::Granted(Claim::Reserved));
    assert_eq!(ask(&mut budget, ids[1], 50 * MIB), Answer::Wait, "it does not fit");
    assert_eq!(ask(&mut budget, ids[2], 10 * MIB), Answer::Wait, "it would fit and must not overtake");
    assert_eq!(ask(&mut budget, ids[3], MIB), Answer::Granted(Claim::Small), "a small one does not wait");
    assert_eq!(budget.grant(0), None);
    budget.give_back(ids[0], 60 * MIB, Claim::Reserved);
    assert_eq!(budget.grant(0), Some(ids[1]));
    assert_eq!(budget.grant(0), Some(ids[2]));
    assert_eq!(budget.grant(0), None);
    budget.watched = true;
    budget.check(MIB, 60 * MIB, Vec::new());
}

#[test]
fn one_that_is_given_up_makes_room_for_those_behind_it() {
    let (mut budget, ids) = budget();
    ask(&mut budget, ids[0], 60 * MIB);
    ask(&mut budget, ids[1], 90 * MIB);
    ask(&mut budget, ids[2], 10 * MIB);
    budget.give_back(ids[1], 90 * MIB, Claim::Waiting);
    assert_eq!(budget.grant(0), Some(ids[2]));
}

#[test]
fn memory_that_is_in_use_elsewhere_is_not_granted() {
    let (mut budget, ids) = budget();
    let used = 200 << 20;
    assert_eq!(budget.ask(ids[0], 80 * MIB, Asker::default(), used, Time(0)), Answer::Wait);
    assert_eq!(budget.grant(used), None);
    assert_eq!(budget.grant(100 << 20), Some(ids[0]));
}

#[test]
fn a_session_that_holds_something_does_not_wait() {
    let (mut budget, ids) = budget();
    ask(&mut budget, ids[0], 90 * MIB);
    let holder = Asker { announced: 1, waits: false };
    assert_eq!(budget.ask(ids[1], 30 * MIB, holder, 0, Time(0)), Answer::Granted(Claim::Reserved));
    assert_eq!(budget.ask(ids[2], 30 * MIB, holder, 0, Time(0)), Answer::No, "not without bound");
    let waiting = Asker { announced: 1, waits: true };
    assert_eq!(budget.ask(ids[3], 30 * MIB, waiting, 0, Time(0)), Answer::Wait);
}

#[test]
fn many_small_ones_have_to_reserve_and_the_smallest_never_wait() {
    let (mut budget, ids) = budget();
    let small = (0..32).map(|n| ask(&mut budget, ids[n], MIB));
    assert!(small.into_iter().all(|answer| answer == Answer::Granted(Claim::Small)));
    let reserved = (32..128).map(|n| ask(&mut budget, ids[n], MIB));
    assert!(reserved.into_iter().all(|answer| answer == Answer::Granted(Claim::Reserved)));
    assert_eq!(ask(&mut budget, ids[128], MIB), Answer::Wait);
    assert_eq!(ask(&mut budget, ids[129], 64 << 10), Answer::Granted(Claim::Small));
}

#[test]
fn buffers_get_less_the_less_is_left() {
    let limits = Limits::default();
    let mut before = Room::plenty(&limits);
    assert_eq!(Room::of(&limits, 1 << 30), before);
    for left in [64 << 20, 16 << 20, 1 << 20, 0] {
        let room = Room::of(&limits, left);
        assert!(room.session_outbox < before.session_outbox || left == 0, "{room:?}");
        assert!(room.session_budget <= before.session_budget && room.session_outbox < room.session_budget);
        before = room;
    }
    assert_eq!((before.session_outbox, before.session_budget), (LEAST_OUTBOX, LEAST_SESSION));
}

#[test]
fn what_publishes_have_announced_takes_nothing_from_what_waits_to_be_written() {
    let (mut budget, ids) = budget();
    ask(&mut budget, ids[0], 90 * MIB);
    assert_eq!(budget.left(90 << 20), 128 << 20);
    assert_eq!(budget.left(120 << 20), 98 << 20);
    assert_eq!(budget.left(1 << 30), 0);
}
