//! Crowds of those who are not let in: unknown users, wrong passwords, handshakes that never end. They cost their own
//! time, and neither that of others nor memory that stays.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread::{Builder, scope, sleep};
use std::time::{Duration, Instant};

use warren_testkit::peer::{Closed, Refused, Stage};
use warren_testkit::{Handshake, Peer, Warren, Way, eventually, rabbit, through_warren, unique};
use warren_wire::frame::PROTOCOL_HEADER;
use warren_wire::method::connection;

use crate::bystander::Bystander;
use crate::raw::{expect_nothing_left, with_bystander};

const UNKNOWN_USERS: usize = 5_000;
/// How many of them come at one time.
const AT_ONCE: usize = 256;
/// Threads that only wait on a socket need little.
const STACK: usize = 256 * 1024;
/// Connections to the broker that may check credentials at one time (`Limits::inquiries`).
const INQUIRIES: f64 = 64.0;

fn refusal(peer: Result<Peer, Refused>) -> Closed {
    match peer {
        Err(refused) if refused.stage == Stage::StartOk => refused.closed().clone(),
        Err(refused) => panic!("refused at another step: {refused:?}"),
        Ok(_) => panic!("somebody unknown was let in"),
    }
}

#[test]
fn unknown_users_are_refused_and_leave_nothing_behind() {
    warren_testkit::raise_descriptor_limit();
    let rabbit = rabbit::exclusive();
    let direct = refusal(Peer::try_connect(rabbit.address(), &Handshake::default().by("nobody", "x")));
    assert_eq!(direct.code, 403);
    // A login stands for a second only, so that the bystander is checked again and again while strangers come.
    let warren = Warren::start_with(rabbit.port(), &["--auth-ttl", "1"]);
    Peer::connect(warren.address()).close();
    let bystander = Bystander::start(warren.address(), &Handshake::default());
    let before = warren.resident();
    let (next, done, most) = (AtomicUsize::new(0), AtomicBool::new(false), AtomicUsize::new(0));
    let started = Instant::now();
    scope(|scope| {
        let strangers: Vec<_> = (0..AT_ONCE)
            .map(|_| {
                let (next, warren, direct) = (&next, &warren, &direct);
                let strangers = move || {
                    while let n @ ..UNKNOWN_USERS = next.fetch_add(1, Relaxed) {
                        let stranger = Handshake::default().by(&format!("stranger-{n}"), "x");
                        assert_eq!(refusal(Peer::try_connect(warren.address(), &stranger)), *direct);
                    }
                };
                Builder::new().stack_size(STACK).spawn_scoped(scope, strangers).expect("a thread")
            })
            .collect();
        scope.spawn(|| {
            while !done.load(Relaxed) {
                most.fetch_max(warren.metric("warren_upstream_connections") as usize, Relaxed);
                sleep(Duration::from_millis(50));
            }
        });
        let ended: Vec<_> = strangers.into_iter().map(|thread| thread.join()).collect();
        done.store(true, Relaxed);
        assert!(ended.iter().all(Result::is_ok), "a stranger was not refused as by the broker");
    });
    let most = most.into_inner() as f64;
    println!("{UNKNOWN_USERS} unknown users: {:?}, {most} connections upstream", started.elapsed());
    // And those of the bystander.
    assert!(most <= INQUIRIES + 8.0, "{most} connections to the broker at one time");
    bystander.finish();
    eventually("they are forgotten", Duration::from_secs(60), || {
        warren.metric("warren_logins") <= 1.0 && warren.metric("warren_tenants") <= 1.0
    });
    eventually("their connections are closed", Duration::from_secs(60), || {
        warren.metric("warren_upstream_connections") <= 1.0
    });
    expect_nothing_left(&warren, before);
    warren.stop();
}

/// A refusal is remembered for a second: the broker hears of a client in a loop once a second.
#[test]
fn a_client_in_a_loop_with_a_wrong_password_does_not_hammer_the_broker() {
    through_warren(|way| {
        let warren = way.warren.as_ref().expect("the way leads through Warren");
        let wrong = way.handshake().by("guest", "wrong");
        let started = Instant::now();
        for _ in 0..300 {
            assert_eq!(refusal(Peer::try_connect(way.address(), &wrong)).code, 403);
        }
        let asked = warren.metric_with("warren_upstream_closes_total", &[("reason", "refused")]);
        let most = started.elapsed().as_secs_f64() + 2.0;
        println!("300 attempts in {:?}: the broker was asked {asked} times", started.elapsed());
        assert!((1.0..=most).contains(&asked), "the broker was asked {asked} times, not 1 to {most}");
        way.connect().close();
    });
}

/// Leaves a handshake at one of four steps.
fn half_open(way: &Way, n: usize) -> Peer {
    let mut peer = Peer::raw(way.address());
    match n % 4 {
        0 => return peer,
        1 => peer.send_bytes(&PROTOCOL_HEADER[..5]),
        _ => peer.send_bytes(&PROTOCOL_HEADER),
    }
    if n % 4 == 3 {
        peer.read_start().expect("it begins");
        peer.send_start_ok(&way.handshake());
        peer.expect(0, connection::TUNE);
    }
    peer
}

#[test]
fn half_open_handshakes_do_not_hinder_others_and_end() {
    warren_testkit::raise_descriptor_limit();
    through_warren(|way| {
        let (warren, bystander, before) = with_bystander(way);
        for crowd in [200, 2_000] {
            let started = Instant::now();
            let peers: Vec<Peer> = (0..crowd).map(|n| half_open(way, n)).collect();
            let opened = started.elapsed();
            eventually("all are seen", Duration::from_secs(60), || {
                warren.metric("warren_client_handshakes") >= crowd as f64
            });
            let each = warren.resident().saturating_sub(before) / crowd as u64;
            println!("{crowd} half-open handshakes, opened in {opened:?}: {each} octets each");
            assert!(each < 16 * 1024, "{each} octets for each of {crowd} half-open handshakes");
            // Their clients wait; Warren does not.
            eventually("their time is over", Duration::from_secs(40) + opened, || {
                warren.metric("warren_client_handshakes") < 5.0 // the bystander's newcomers
            });
            assert!(started.elapsed() > Duration::from_secs(9), "ended after {:?}", started.elapsed());
            let (first, last) = (warren.metric("warren_client_connections"), peers.len());
            assert!(first < 10.0, "{first} of {last} sockets are still there");
        }
        bystander.finish();
        expect_nothing_left(warren, before);
    });
}

/// Of the 70 connections that 128 descriptors leave, 53 may be handshakes: those who are in keep a quarter. When they
/// are used up, the next client comes in within seconds, and not when ten are over.
#[test]
fn handshakes_cannot_take_all_descriptors() {
    let way = Way::new(warren_testkit::Through::Nothing, &[]);
    let rabbit = way.rabbit;
    let warren = Warren::start_with_descriptors(128, rabbit.port(), &[]);
    let settled = Bystander::start_alone(warren.address(), &Handshake::default());
    let crowd: Vec<Peer> = (0..60).map(|_| Peer::raw(warren.address())).collect();
    eventually("the crowd has all it can have", Duration::from_secs(60), || {
        warren.metric("warren_client_handshakes") >= 53.0
    });
    assert!(warren.metric("warren_client_handshakes") <= 54.0, "no more than that");
    let started = Instant::now();
    let mut newcomer = Peer::connect(warren.address());
    println!("a newcomer behind {} stalled handshakes: {:?}", crowd.len(), started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(8), "let in after {:?}", started.elapsed());
    newcomer.open_channel(1);
    let queue = newcomer.declare(1, &unique("floods"));
    newcomer.delete_queue(1, &queue);
    newcomer.close();
    assert!(warren.log().contains("as many handshakes in progress as it may have"), "{}", warren.log());
    settled.finish();
    warren.stop();
}
