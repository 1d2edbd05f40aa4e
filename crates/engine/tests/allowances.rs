//! Limits and alarms of routes and rules, and the auth service, with a clock that is moved by hand and a broker that lets
//! everybody in.

mod house;

use std::time::Duration;

use house::House;
use warren_engine::allowances::{LIMITS, Report};
use warren_engine::config::{Allowance, Config, Limits, Per, Rule};
use warren_engine::time::Time;
use warren_engine::{Allowances, Link, Replacement, Verdict};
use warren_wire::method::{Method, basic, channel};

fn config(limits: Allowance, alarms: Allowance) -> Config {
    let mut config = Config::simple("127.0.0.1", 5672, Limits::default());
    config.routes[0].name = "orders".into();
    config.routes[0].limits = limits;
    config.routes[0].alarms = alarms;
    config
}

fn rule(per: Per, limits: Allowance) -> Config {
    let mut config = config(Allowance::default(), Allowance::default());
    let everything = config.routes[0].vhost.clone();
    config.rules.push(Rule {
        per,
        vhost: everything.clone(),
        user: everything,
        addresses: vec!["10.0.0.0/8".parse().expect("a network")],
        limits,
        alarms: Allowance::default(),
    });
    config
}

fn connections(most: u64) -> Allowance {
    Allowance { connections: Some(most), ..Allowance::default() }
}

/// How often a limit of the route refused, or its alarm was passed.
fn reached(report: &Report, limit: &str) -> (u64, u64) {
    let at = LIMITS.iter().position(|name| *name == limit).expect("a limit");
    let reached = report.routes[0].reached[at];
    (reached.limited, reached.alarms)
}

#[test]
fn connections_of_a_route_are_counted_over_workers_and_given_back() {
    let config = config(connections(3), Allowance::default());
    let shared = Allowances::new(&config);
    let mut houses = [House::sharing(&config, &shared), House::sharing(&config, &shared)];
    let mut inside = Vec::new();
    for n in 0..10 {
        let house = &mut houses[n % 2];
        let id = house.connect("guest", "/");
        if house.is_inside(id) {
            inside.push((n % 2, id));
            continue;
        }
        let said = house.said(id);
        assert_eq!(
            said.last().map(String::as_str),
            Some(
                "close 506 RESOURCE_ERROR - connection refused by proxy: limit of 3 connections for route 'orders' is reached"
            )
        );
    }
    assert_eq!(inside.len(), 3);
    let report = shared.report(Time(0));
    assert_eq!((report.routes[0].used[0], reached(&report, "connections")), (3, (7, 0)));
    for (house, id) in inside.drain(..) {
        houses[house].vanish(id);
    }
    assert_eq!(shared.report(Time(0)).routes[0].used[0], 0);
    for house in &mut houses {
        let id = house.connect("guest", "/");
        assert!(house.is_inside(id));
        house.feed_method(id, 0, &Method::ConnectionClose(house::GOODBYE));
        assert_eq!(house.said(id).last().map(String::as_str), Some("close-ok"));
    }
    assert_eq!(shared.report(Time(0)).routes[0].used[0], 0, "an answered close gives the place back");
}

#[test]
fn each_has_the_limits_of_a_rule_for_itself() {
    for per in [Per::Vhost, Per::User, Per::Address] {
        let mut house = House::new(&rule(per, connections(1)));
        let came = |house: &mut House, user: &str, vhost: &str, address: [u8; 4]| {
            let id = house.connect_from(user, vhost, address);
            house.is_inside(id)
        };
        assert!(came(&mut house, "a", "x", [10, 0, 0, 1]));
        assert_eq!(came(&mut house, "b", "x", [10, 0, 0, 2]), per != Per::Vhost, "{per:?}");
        assert_eq!(came(&mut house, "a", "y", [10, 0, 0, 3]), per != Per::User, "{per:?}");
        assert_eq!(came(&mut house, "c", "z", [10, 0, 0, 1]), per != Per::Address, "{per:?}");
        assert!(came(&mut house, "a", "x", [192, 168, 0, 1]), "not of the network that is meant");
    }
}

#[test]
fn a_rate_of_connections_holds_for_every_second() {
    let limits = Allowance { connection_rate: Some(5), ..Allowance::default() };
    let mut house = House::new(&config(limits, Allowance::default()));
    let mut came = Vec::new();
    for _ in 0..30 {
        let id = house.connect("guest", "orders-1");
        if house.is_inside(id) {
            came.push(house.now.0);
        } else {
            let text = house.said(id).last().cloned().unwrap_or_default();
            assert!(
                text.starts_with(
                    "close 506 RESOURCE_ERROR - The connection for orders-1, is limited by proxy."
                ),
                "{text}"
            );
            assert!(text.ends_with("limit of 5 connections per second for route 'orders'"), "{text}");
        }
        house.wait(100);
    }
    assert_eq!(came.len(), 15, "{came:?}");
}

#[test]
fn a_channel_too_many_is_refused_and_its_session_goes_on() {
    let limits = Allowance { channels: Some(2), ..Allowance::default() };
    let mut house = House::new(&config(limits, Allowance::default()));
    let id = house.connect("guest", "/");
    for number in 1..=3 {
        house.feed_method(id, number, &Method::ChannelOpen);
    }
    let said = house.said(id);
    assert_eq!(
        said[said.len() - 3..],
        [
            "open-ok",
            "open-ok",
            "channel-close 506 RESOURCE_ERROR - channel refused by proxy: limit of 2 channels for route 'orders' is reached"
        ]
    );
    house.feed_method(id, 3, &Method::ChannelCloseOk);
    let close = channel::Close { reply_code: 200, reply_text: b"", class_id: 0, method_id: 0 };
    house.feed_method(id, 1, &Method::ChannelClose(close));
    house.feed_method(id, 3, &Method::ChannelOpen);
    assert_eq!(house.said(id).last().map(String::as_str), Some("open-ok"), "a place was free");
    assert_eq!(house.shared.report(house.now).routes[0].used[1], 2);
    house.vanish(id);
    assert_eq!(house.shared.report(house.now).routes[0].used[1], 0);
}

#[test]
fn alarms_count_and_refuse_nothing() {
    let alarms = Allowance {
        connections: Some(1),
        channels: Some(1),
        connection_rate: Some(1),
        data_rate: Some(10_000),
        message_size: Some(1_000),
    };
    let mut house = House::new(&config(Allowance::default(), alarms));
    let ids: Vec<_> = (0..5).map(|_| house.connect("guest", "/")).collect();
    for id in &ids {
        assert!(house.is_inside(*id));
        house.feed_method(*id, 1, &Method::ChannelOpen);
        house.publish(*id, 1, 4_000);
        assert!(house.may_read(*id));
    }
    let report = house.shared.report(house.now);
    assert_eq!(reached(&report, "connections"), (0, 4));
    assert_eq!(reached(&report, "connection_rate"), (0, 4));
    assert_eq!(reached(&report, "channels"), (0, 4));
    assert_eq!(reached(&report, "message_size"), (0, 5));
    assert_eq!(reached(&report, "data_rate"), (0, 1), "once in a second");
    let told: Vec<&String> = house.told.iter().filter(|l| l.contains("alarm of 1 connection for")).collect();
    assert_eq!(told.len(), 1, "one line in a second: {:?}", house.told);
    house.wait(1_000);
    house.connect("guest", "/");
    assert_eq!(house.told.iter().filter(|l| l.contains("alarm of 1 connection for")).count(), 2);
}

#[test]
fn a_message_beyond_the_limit_costs_its_channel() {
    let limits = Allowance { message_size: Some(1_000), ..Allowance::default() };
    let mut house = House::new(&config(limits, Allowance::default()));
    let id = house.connect("guest", "/");
    house.feed_method(id, 1, &Method::ChannelOpen);
    house.publish(id, 1, 1_000);
    house.publish(id, 1, 1_001);
    // What went before is proven first.
    house.wait(100);
    assert_eq!(
        house.said(id).last().map(String::as_str),
        Some(
            "channel-close 406 PRECONDITION_FAILED - message size 1001 is larger than configured max size 1000 (limit of 1000 \
             octets per message for route 'orders')"
        )
    );
    assert!(house.is_inside(id));
}

#[test]
fn data_is_read_at_its_rate_from_the_first_second_on_and_shared_fairly() {
    let limits = Allowance { data_rate: Some(1_000_000), ..Allowance::default() };
    let mut house = House::new(&config(limits, Allowance::default()));
    let ids = [house.connect("guest", "/"), house.connect("guest", "/")];
    for id in ids {
        house.feed_method(id, 1, &Method::ChannelOpen);
    }
    let mut got = [0, 0];
    for second in 1..=3 {
        let before: usize = got.iter().sum();
        for _ in 0..1_000 {
            for (id, got) in ids.iter().zip(&mut got) {
                while house.may_read(*id) {
                    let most = house.engine.read_at_most(house.now, Link::Session(*id));
                    if most == 0 {
                        break;
                    }
                    assert!(most <= 50_000, "a turn of {most} octets");
                    *got += most;
                    house.feed_noise(*id, most);
                }
            }
            house.wait(1);
        }
        let octets: usize = got.iter().sum::<usize>() - before;
        assert!((900_000..=1_100_000).contains(&octets), "{octets} octets in second {second}");
    }
    assert!(got[0].abs_diff(got[1]) < 150_000, "{got:?}");
    let report = house.shared.report(house.now);
    assert!((900_000..=1_100_000).contains(&report.routes[0].used[3]), "{:?}", report.routes[0].used);
}

#[test]
fn data_is_written_at_its_rate_and_others_do_not_wait() {
    let mut config = rule(Per::User, Allowance { data_rate: Some(100_000), ..Allowance::default() });
    config.rules[0].addresses.clear();
    config.rules[0].user = warren_engine::config::Pattern::new("slow");
    let mut house = House::new(&config);
    let (slow, quick) = (house.connect("slow", "/"), house.connect("quick", "/"));
    house.hold_writes = true;
    for id in [slow, quick] {
        // Each wrong request is answered.
        house.feed_method(id, 1, &Method::ChannelOpen);
        house.engine.outbox(Link::Session(id)).push_copy(&vec![0; 1_000_000]);
    }
    assert_eq!(house.engine.write_at_most(house.now, Link::Session(quick)), usize::MAX);
    for second in 1..=2 {
        let mut written = 0;
        for _ in 0..1_000 {
            loop {
                let most = house.engine.write_at_most(house.now, Link::Session(slow));
                if most == 0 {
                    break;
                }
                let most = most.min(house.engine.outbox(Link::Session(slow)).len());
                house.engine.outbox(Link::Session(slow)).advance(most);
                house.engine.wrote(house.now, Link::Session(slow), most);
                written += most;
            }
            house.wait(1);
        }
        assert!((90_000..=110_000).contains(&written), "{written} octets in second {second}");
    }
    house.vanish(slow);
    house.vanish(quick);
}

fn guarded() -> Config {
    let mut config = config(Allowance::default(), Allowance::default());
    config.auth_timeout = Some(Duration::from_secs(30));
    config
}

#[test]
fn the_auth_service_is_asked_once_and_before_the_broker() {
    let mut house = House::new(&guarded());
    let id = house.connect("guest", "/");
    assert!(!house.is_inside(id));
    assert!(house.users_asked.is_empty(), "the broker was asked: {:?}", house.users_asked);
    let (asked, request) = house.questions.pop().expect("a question");
    assert!(asked == id && house.questions.is_empty());
    assert_eq!((request.vhost.as_str(), request.mechanism.as_slice()), ("/", &b"PLAIN"[..]));
    assert_eq!(request.response.as_slice(), b"\0guest\0secret");
    assert!(!format!("{request:?}").contains("secret"));
    house.answer(id, Verdict::Allow(None));
    assert!(house.is_inside(id));
    assert_eq!(house.users_asked, ["guest"]);
}

#[test]
fn the_auth_service_may_refuse_and_replace() {
    let mut house = House::new(&guarded());
    let id = house.connect("guest", "/");
    house.answer(id, Verdict::Deny("not on Sundays".into()));
    assert_eq!(house.said(id).last().map(String::as_str), Some("close 403 ACCESS_REFUSED - not on Sundays"));
    let id = house.connect("guest", "/");
    house.answer(id, Verdict::Failed("it answered with status 500".into()));
    assert_eq!(
        house.said(id).last().map(String::as_str),
        Some("close 403 ACCESS_REFUSED - the auth service failed: it answered with status 500")
    );
    assert!(house.users_asked.is_empty());
    let id = house.connect("guest", "/");
    let other = Replacement { mechanism: b"PLAIN".to_vec(), response: b"\0other\0word".to_vec().into() };
    house.answer(id, Verdict::Allow(Some(other)));
    assert!(house.is_inside(id));
    assert_eq!(house.users_asked, ["other"], "the broker sees what the service gave");
}

#[test]
fn who_waits_for_the_auth_service_has_a_deadline_and_may_leave() {
    let mut house = House::new(&guarded());
    let (late, gone) = (house.connect("guest", "/"), house.connect("guest", "/"));
    house.vanish(gone);
    house.answer(gone, Verdict::Allow(None));
    assert_eq!(house.engine.metrics().client_handshakes, 1);
    house.wait(30_000);
    assert_eq!(house.engine.metrics().client_handshakes, 1, "the edge answers at this moment");
    house.wait(1_200);
    let said = house.said(late).last().cloned().unwrap_or_default();
    assert_eq!(said, "close 403 ACCESS_REFUSED - the auth service failed: it did not answer in time");
    house.answer(late, Verdict::Allow(None));
    assert!(!house.is_inside(late), "too late");
}

#[test]
fn a_session_keeps_its_limits_when_it_changes_workers() {
    let config = config(connections(2), Allowance::default());
    let shared = Allowances::new(&config);
    let mut houses: Vec<House> =
        (0..2).map(|worker| House::of_worker(&config, Some(&shared), worker, 2)).collect();
    let mut inside = 0;
    for n in 0..12 {
        let user = format!("user-{n}");
        let id = houses[0].connect(&user, "/");
        let moved = std::mem::take(&mut houses[0].moved);
        for (hand_off, unread) in moved {
            let id = houses[1].adopt(hand_off, &unread);
            inside += usize::from(houses[1].is_inside(id));
        }
        inside += usize::from(houses[0].is_inside(id));
    }
    assert_eq!(inside, 2);
    assert!(houses[0].engine.metrics().hand_offs > 0, "some moved");
    assert_eq!(shared.report(Time(0)).routes[0].used[0], 2);
}

#[test]
fn a_wrong_method_does_not_matter_to_limits() {
    // A session that ends with an error gives everything back.
    let limits = Allowance { connections: Some(1), channels: Some(1), ..Allowance::default() };
    let mut house = House::new(&config(limits, Allowance::default()));
    for _ in 0..3 {
        let id = house.connect("guest", "/");
        assert!(house.is_inside(id));
        house.feed_method(id, 1, &Method::ChannelOpen);
        house.feed_method(
            id,
            1,
            &Method::BasicQos(basic::Qos { prefetch_size: 1, prefetch_count: 0, global: false }),
        );
        assert!(house.said(id).last().is_some_and(|said| said.starts_with("close 540")));
        house.feed_method(id, 0, &Method::ConnectionCloseOk);
    }
}
