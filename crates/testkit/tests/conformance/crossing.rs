//! Closes that cross: the broker closes a channel for an error while the client closes it, with acks and requests on
//! their way. The connection never ends for it, and the number of the channel can be used again.

use crate::cases::flow;
use std::time::{Duration, Instant};
use warren_testkit::peer::{PATIENCE, PUBLISH};
use warren_testkit::{Peer, Through, Way, both_ways};
use warren_wire::method::{basic, channel, queue};
use warren_wire::{BasicProperties, Method};

const TIMES: u64 = 1_000;
/// Without Warren it is the test that is tried, not RabbitMQ.
const TIMES_DIRECT: u64 = 200;
/// Longer than an error takes to come back, so that it comes before, beside and after the client's close.
const LONGEST_DELAY: u64 = 1_500;
const SEED: u64 = 0x5EED;

/// Numbers in no order, the same each time (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

#[test]
fn an_error_that_crosses_the_clients_close_never_costs_the_connection() {
    let _alone = crate::alone();
    both_ways(|way| {
        let mut dice = Dice(SEED);
        let mut peer = way.connect();
        peer.open_channel(2);
        let mut canary = canary(way);
        let before = way.rabbit.connection_pids(&way.vhost);
        let times = if way.through == Through::Nothing { TIMES_DIRECT } else { TIMES };
        for n in 0..times {
            open_again(&mut peer, way.through);
            cross(&mut peer, &mut dice, n);
            if n.is_multiple_of(50) {
                canary.call(1, &flow(true), channel::FLOW_OK);
            }
        }
        canary.call(1, &flow(true), channel::FLOW_OK);
        let after = way.rabbit.connection_pids(&way.vhost);
        assert!(before.iter().all(|pid| after.contains(pid)), "{before:?} {after:?}");
        canary.close();
        peer.close();
    });
}

/// A neighbour that consumes; what it consumes from is there for the offender.
fn canary(way: &Way) -> Peer {
    let mut peer = way.connect_channel();
    peer.declare(1, "crossing");
    peer.declare(1, "beside");
    peer.consume(1, "beside", "t", true);
    peer
}

/// Opens the channel that was closed a moment ago. RabbitMQ may still deliver something on it, Warren may not.
fn open_again(peer: &mut Peer, through: Through) {
    peer.send(1, &Method::ChannelOpen);
    loop {
        let frame = peer.next(1);
        if frame.is(channel::OPEN_OK) {
            return;
        }
        assert_eq!(through, Through::Nothing, "behind close-ok: {frame:?}");
    }
}

/// Gives a channel something to acknowledge, sends an error with acks and requests around it, and its own
/// close after a moment.
fn cross(peer: &mut Peer, dice: &mut Dice, n: u64) {
    peer.publish(1, "crossing", b"a");
    peer.publish(1, "crossing", b"b");
    if dice.below(2) == 0 {
        peer.consume(1, "crossing", "t", false);
        peer.delivery(1);
        peer.delivery(1);
    } else {
        // In the order of the channel: what was published is there, unless the queue is slow.
        peer.get(1, "crossing", false);
    }
    for _ in 0..dice.below(3) {
        request(peer, dice.below(3));
    }
    error(peer, dice.below(4), n);
    for _ in 0..dice.below(4) {
        request(peer, dice.below(4));
    }
    wait(Duration::from_micros(dice.below(LONGEST_DELAY)));
    peer.send_channel_close(1);
    assert!(read_closes(peer), "the error comes before close-ok, however the closes cross");
    drain(peer);
}

/// Something that costs the channel.
fn error(peer: &mut Peer, which: u64, n: u64) {
    match which {
        0 => {
            let nowhere = basic::Publish { exchange: b"nowhere", ..PUBLISH };
            peer.publish_with(1, &nowhere, &BasicProperties::default(), b"x");
        }
        1 => peer.ack(1, 100_000 + n, false),
        2 => peer.send(1, &Method::QueuePurge(queue::Purge { queue: b"nowhere", no_wait: false })),
        _ => peer.send(1, &Method::BasicGet(basic::Get { queue: b"nowhere", no_ack: true })),
    }
}

/// Something that is on its way when the closes cross.
fn request(peer: &mut Peer, which: u64) {
    match which {
        0 => peer.send(1, &flow(true)),
        1 => peer.publish(1, "crossing", b"c"),
        2 => peer.send(1, &Method::BasicGet(basic::Get { queue: b"crossing", no_ack: true })),
        _ => peer.ack(1, 1, false),
    }
}

/// Until close-ok, as clients do: an error is answered, everything else is dropped.
fn read_closes(peer: &mut Peer) -> bool {
    let mut refused = false;
    loop {
        let frame = peer.next(1);
        if frame.is(channel::CLOSE) {
            refused = true;
            peer.send(1, &Method::ChannelCloseOk);
        } else if frame.is(channel::CLOSE_OK) {
            return refused;
        }
    }
}

/// The queue is empty again for the next time.
fn drain(peer: &mut Peer) {
    peer.call(2, &Method::QueuePurge(queue::Purge { queue: b"crossing", no_wait: false }), queue::PURGE_OK);
}

/// Sleeps are too coarse for this.
fn wait(time: Duration) {
    let end = Instant::now() + time;
    assert!(time < PATIENCE);
    while Instant::now() < end {
        std::thread::yield_now();
    }
}
