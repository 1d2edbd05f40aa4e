//! The memory budget: large publishes wait their turn, those that stall end, and the others go on.

use crate::load::{Pairs, peak_while, resident};
use std::time::{Duration, Instant};
use warren_testkit::peer::{End, PUBLISH};
use warren_testkit::{Peer, Through, Warren, Way, eventually};
use warren_wire::content::write_header;
use warren_wire::frame::{FRAME_BODY, FRAME_END};
use warren_wire::method::basic;
use warren_wire::{BasicProperties, Method};

const STALLED: usize = 2_000;
const MIB: u64 = 1 << 20;
const BUDGET: u64 = 256 * MIB;
/// What each of them announces.
const ANNOUNCED: u64 = 4 * MIB;
/// A body frame as large as they may be.
const FRAME: u32 = 131_064;

/// The beginning of a publish of [`ANNOUNCED`] octets: method, header, and so many octets of body frames, of which the
/// last is not complete.
fn beginning(queue: &str, mut octets: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    let publish = basic::Publish { routing_key: queue.as_bytes(), ..PUBLISH };
    Method::BasicPublish(publish).write(1, &mut bytes);
    write_header(1, ANNOUNCED, &BasicProperties::default(), &mut bytes);
    while octets > 0 {
        bytes.extend([FRAME_BODY, 0, 1]);
        bytes.extend(FRAME.to_be_bytes());
        let part = octets.min(FRAME as usize);
        bytes.resize(bytes.len() + part, 0);
        octets -= part;
        if part == FRAME as usize {
            bytes.push(FRAME_END);
        }
    }
    bytes
}

/// Clients that stall in the middle of a publish: after the header, in the first frame, in the second, between two.
fn stall(way: &Way, queue: &str) -> Vec<Peer> {
    let begin = |n: usize| {
        let mut peer = way.connect_channel();
        let octets = [0, 60_000, 200_000, FRAME as usize][n % 4];
        peer.send_bytes(&beginning(queue, octets));
        peer
    };
    (0..STALLED).map(begin).collect()
}

fn waiting(warren: &Warren) -> f64 {
    warren.metric("warren_waiting_publishes")
}

#[test]
fn two_thousand_stalled_publishes_stay_within_the_budget_and_others_go_on() {
    warren_testkit::raise_descriptor_limit();
    let way = Way::new(Through::Warren, &["--memory", "256MiB"]);
    let warren = way.warren.as_ref().expect("the way leads through Warren");
    assert_eq!(warren.metric("warren_memory_limit_bytes"), BUDGET as f64);
    let mut others = Pairs::new(&way);
    others.feel_nothing("before", Duration::from_secs(1));
    let (queue, started) = (others.through.queue().to_owned(), Instant::now());
    let (most, mut stalled) = peak_while(warren, || {
        let stalled = stall(&way, &queue);
        println!("{STALLED} clients have stalled after {:?}", started.elapsed());
        others.feel_nothing("while others stall", Duration::from_secs(3));
        stalled
    });
    println!("{} MiB at most, {} before", most / MIB, resident(warren) / MIB);
    assert!(most < BUDGET, "{} MiB", most / MIB);
    let reserved = warren.metric("warren_reserved_bytes");
    assert!(reserved > 0.0 && reserved <= BUDGET as f64, "{reserved}");
    let (waits, holders) = (waiting(warren), reserved / ANNOUNCED as f64);
    assert_eq!(waits + holders, STALLED as f64, "each of them waits or has a reservation");
    assert!(waits > 1900.0, "{waits} wait");
    // A message that needs no reservation, but more than one read.
    others.through.large(500_000);

    // Who holds memory and stands still ends; who waits takes its place.
    let End::Closed(closed) = stalled[0].expect_end(Duration::from_secs(60)) else {
        panic!("ended without a word")
    };
    assert_eq!((closed.code, closed.class, closed.method), (506, 60, 40), "{closed:?}");
    assert!(closed.text.starts_with("RESOURCE_ERROR - a publish stood still"), "{closed:?}");
    assert!(started.elapsed() > Duration::from_secs(29), "ended after {:?}", started.elapsed());
    eventually("others have taken their place", Duration::from_secs(60), || {
        waiting(warren) < waits && warren.metric("warren_reserved_bytes") > 0.0
    });
    assert!(resident(warren) < BUDGET);

    // One that waits behind all the others is served when they are gone.
    let mut last = way.connect_channel();
    last.confirm_select(1);
    last.publish(1, &queue, &vec![7; 1 << 19]);
    last.expect_confirms(1, 1, 1);
    drop(stalled);
    last.publish(1, &queue, &vec![7; 40 << 20]);
    last.expect_confirms(1, 2, 1);
    eventually("nothing is reserved any more", Duration::from_secs(60), || {
        waiting(warren) == 0.0 && warren.metric("warren_reserved_bytes") == 0.0
    });
    last.close();
}

#[test]
fn large_publishes_pass_one_after_another_through_a_small_budget() {
    let way = Way::new(Through::Warren, &["--memory", "64MiB"]);
    let warren = way.warren.as_ref().expect("the way leads through Warren");
    let queue = way.connect_channel().declare(1, "");
    let memory = resident(warren);
    let (most, ()) = peak_while(warren, || {
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| {
                    let mut peer = way.connect_channel();
                    peer.confirm_select(1);
                    for n in 1..=3 {
                        peer.publish(1, &queue, &vec![7; 10 << 20]);
                        peer.expect_confirms(1, n, 1);
                    }
                    peer.close();
                });
            }
        });
    });
    let grown = most.saturating_sub(memory) / MIB;
    println!("480 MiB of messages of 10 MiB: {grown} MiB more than before");
    // Besides the budget: blocks that lie ready (14 MiB at most), and what the heap itself needs.
    assert!(grown <= 64 + 20, "{grown} MiB more than before");
    eventually("all have arrived", Duration::from_secs(60), || {
        way.rabbit.queue(&way.vhost, &queue).is_some_and(|q| q.ready == 48)
    });
    // What could never be reserved is refused as a broker refuses what is larger than it accepts.
    let mut peer = way.connect_channel();
    let publish = basic::Publish { routing_key: queue.as_bytes(), ..PUBLISH };
    peer.send(1, &Method::BasicPublish(publish));
    let mut header = Vec::new();
    write_header(1, 25 * MIB, &BasicProperties::default(), &mut header);
    peer.send_bytes(&header);
    let closed = peer.expect_channel_close(1);
    assert_eq!(closed.code, 406, "{closed:?}");
    let text = "PRECONDITION_FAILED - message size 26214400 is larger than configured max size 25165824";
    assert_eq!(closed.text, text);
    peer.close();
}
