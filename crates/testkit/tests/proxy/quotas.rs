//! How many channels a user may have (RabbitMQ's `max-channels`): learned, and never fatal to anybody.

use std::time::{Duration, Instant};
use warren_testkit::peer::CONSUME;
use warren_testkit::{Handshake, Peer, Through, Way, eventually, unique};
use warren_wire::Method;
use warren_wire::method::basic;

const LIMIT: usize = 5;
const CLIENTS: usize = 12;
const SOON: Duration = Duration::from_secs(60);

fn limited_user(way: &Way) -> (String, Handshake) {
    let name = unique("user");
    way.rabbit.add_user(&name, "secret");
    way.rabbit.set_permissions(&name, &way.vhost, [".*", ".*", ".*"]);
    way.rabbit.limit_channels(&name, u32::try_from(LIMIT).expect("few"));
    let handshake = way.handshake().by(&name, "secret");
    (name, handshake)
}

/// What the limit is, without Warren: it costs the client that exceeds it all its channels.
#[test]
fn the_broker_closes_the_connection_of_who_exceeds_the_limit() {
    let way = Way::new(Through::Nothing, &[]);
    let (name, handshake) = limited_user(&way);
    let mut peer = Peer::connect_with(way.address(), &handshake);
    let closed = (1..100).find_map(|channel| {
        peer.send(channel, &Method::ChannelOpen);
        // The node counts with some delay.
        peer.try_next(channel, Duration::from_secs(10)).err()
    });
    println!("{closed:?}");
    let closed = format!("{closed:?}");
    assert!(closed.contains("code: 530") && closed.contains("class: 0, method: 0"), "{closed}");
    way.rabbit.delete_user(&name);
}

fn begin(peer: &mut Peer, queue: &str) {
    let consume = basic::Consume { queue: queue.as_bytes(), consumer_tag: b"t", ..CONSUME };
    peer.send(1, &Method::BasicConsume(consume));
}

/// Consumers whose turn has come.
fn served(way: &Way, queue: &str) -> usize {
    way.rabbit.queue(&way.vhost, queue).map_or(0, |q| q.consumers as usize)
}

#[test]
fn who_is_beyond_the_limit_waits_and_nobody_is_disconnected() {
    let way = Way::new(Through::Warren, &[]);
    let (name, handshake) = limited_user(&way);
    let mut owner = way.observer();
    let queue = owner.declare(1, "everybody's");
    let mut neighbour = way.connect_channel();
    neighbour.consume(1, &queue, "neighbour", false);
    let mut peers: Vec<Peer> = (0..CLIENTS)
        .map(|_| {
            let mut peer = Peer::connect_with(way.address(), &handshake);
            peer.open_channel(1);
            begin(&mut peer, &queue);
            peer
        })
        .collect();
    eventually("as many as may are served", SOON, || served(&way, &queue) > LIMIT);
    let closes = || {
        let warren = way.warren.as_ref().expect("the way leads through Warren");
        warren.metric_with("warren_upstream_closes_total", &[("reason", "broker")])
    };
    std::thread::sleep(Duration::from_millis(500));
    println!(
        "{} are served, {} connections of the user, {} were closed",
        served(&way, &queue) - 1,
        way.rabbit.connections(&way.vhost).iter().filter(|c| c.user == name).count(),
        closes()
    );
    assert_eq!(served(&way, &queue), LIMIT + 1, "with the neighbour");
    let learned = closes();
    for peer in &mut peers {
        assert_eq!(peer.end_within(Duration::from_millis(1)), None);
    }

    // Those who are served make room one by one.
    let started = Instant::now();
    let mut left = peers;
    while !left.is_empty() {
        let mut waiting = Vec::new();
        let before = left.len();
        for mut peer in left {
            match peer.try_next(1, Duration::from_millis(20)) {
                Ok(Some(frame)) if frame.is(basic::CONSUME_OK) => {
                    peer.close_channel(1);
                    peer.close();
                }
                Ok(None) => waiting.push(peer),
                other => panic!("expected consume-ok or nothing, got {other:?}"),
            }
        }
        left = waiting;
        assert!(started.elapsed() < SOON, "{} of {before} wait in vain", left.len());
    }
    println!("all were served within {:?}", started.elapsed());
    assert!(closes() <= learned + 1.0, "the limit is known: {} closes, then {}", learned, closes());
    neighbour.cancel(1, "neighbour");
    neighbour.close();
    way.rabbit.delete_user(&name);
}
