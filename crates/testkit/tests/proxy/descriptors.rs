//! A process that may open few files: clients wait outside when it is full, and those who are in do not notice.

use std::time::{Duration, Instant};

use warren_testkit::{Handshake, Peer, Through, Warren, Way, eventually};
use warren_wire::frame::PROTOCOL_HEADER;
use warren_wire::method::queue;

use crate::bystander::Bystander;
use crate::raw::expect_nothing_left;

const DESCRIPTORS: u32 = 128;
/// What Warren leaves for connections of 128 descriptors, with one worker (`limits::divide`).
const CONNECTIONS: usize = 70;
/// More than there is room for, and less than the system lets wait.
const CLIENTS: usize = 100;
/// How long a client waits before it is taken for one that waits outside.
const PATIENCE: Duration = Duration::from_secs(3);

/// Sends the protocol header; whether Warren answers in time.
fn is_served(peer: &mut Peer, within: Duration) -> bool {
    matches!(peer.try_next(0, within), Ok(Some(_)))
}

/// A client, and its queue.
fn settle(warren: &Warren, handshake: &Handshake) -> Peer {
    let mut peer = Peer::connect_with(warren.address(), handshake);
    peer.open_channel(1);
    peer
}

/// The lines that Warren wrote because it was full.
fn complaints(warren: &Warren) -> usize {
    warren.log().lines().filter(|line| line.contains("cannot be accepted")).count()
}

#[test]
fn clients_wait_outside_while_descriptors_are_short_and_others_are_served() {
    let way = Way::new(Through::Nothing, &[]);
    // A connection to the broker that ends meanwhile would make room.
    let warren = Warren::start_with_descriptors(DESCRIPTORS, way.rabbit.port(), &["-t", "20"]);
    let handshake = way.handshake();
    settle(&warren, &handshake).close();
    let bystander = Bystander::start_alone(warren.address(), &handshake);
    let before = warren.resident();
    let started = Instant::now();

    // In come as many as there is room for, one after another.
    let mut inside = Vec::new();
    let mut outside = Vec::new();
    for _ in 0..CLIENTS {
        if outside.is_empty() && inside.len() + 5 < CONNECTIONS {
            inside.push(settle(&warren, &handshake));
            continue;
        }
        let mut peer = Peer::raw(warren.address());
        peer.send_bytes(&PROTOCOL_HEADER);
        if outside.is_empty() && is_served(&mut peer, PATIENCE) {
            drop(peer); // the place is for somebody who stays
            inside.push(settle(&warren, &handshake));
        } else {
            outside.push(peer);
        }
    }
    println!(
        "{} clients inside, {} outside, {} descriptors",
        inside.len(),
        outside.len(),
        warren.descriptors()
    );
    assert!(inside.len() + outside.len() >= CLIENTS && outside.len() > 20, "{} outside", outside.len());
    assert!(inside.len() > CONNECTIONS - 10, "{} clients for {CONNECTIONS} connections", inside.len());
    assert!(!is_served(&mut outside[0], PATIENCE), "who is outside hears nothing");

    // Those inside are served, new connections to the broker can be made, and HTTP answers.
    for (n, peer) in inside.iter_mut().enumerate() {
        let name = format!("queue-{n}");
        let exclusive = n % 6 == 0; // on a connection of its own
        let declare = queue::Declare {
            queue: name.as_bytes(),
            exclusive,
            auto_delete: true,
            ..warren_testkit::peer::DECLARE
        };
        peer.declare_with(1, &declare);
        peer.confirm_select(1);
        peer.publish(1, &name, b"x");
        peer.expect_confirms(1, 1, 1);
    }
    let upstream = warren.metric("warren_upstream_connections");
    assert!(upstream >= 10.0, "{upstream} connections to the broker, one for each exclusive queue");
    assert_eq!(warren.http_get("/healthz").expect("it answers").0, 200);
    let open = warren.descriptors();
    assert!(open < DESCRIPTORS as usize, "{open} descriptors");
    let (said, most) = (complaints(&warren), started.elapsed().as_secs() as usize + 2);
    assert!((1..=most).contains(&said), "{said} lines in {:?}:\n{}", started.elapsed(), warren.log());
    assert_eq!(warren.metric("warren_upstream_connect_failures_total"), 0.0);

    // Whoever leaves makes room for who waits, in order.
    let waiting = outside.len();
    for peer in inside.drain(..) {
        peer.close();
    }
    for peer in &mut outside {
        assert!(is_served(peer, Duration::from_secs(60)), "there is room, and a client is still outside");
    }
    println!("{waiting} clients came in when others had left");
    drop(outside);
    bystander.finish();
    settle(&warren, &handshake).close();
    eventually("the connections to the broker are closed", Duration::from_secs(60), || {
        warren.metric("warren_upstream_connections") <= 2.0
    });
    expect_nothing_left(&warren, before);
    warren.stop();
}
