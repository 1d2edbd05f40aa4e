//! Slow readers: they cost nobody else anything, and Warren little.

use crate::load::{Pairs, peak_while, resident};
use amq_protocol_types::{AMQPValue, FieldTable};
use std::time::Duration;
use warren_testkit::peer::{DECLARE, PUBLISH};
use warren_testkit::{Peer, Through, Way, eventually};
use warren_wire::method::{basic, queue};
use warren_wire::table::encode_table;
use warren_wire::{BasicProperties, Table};

const DELIVERIES: u32 = 100_000;
const SIZE: usize = 10_000;
const MIB: u64 = 1 << 20;
/// How long others are watched.
const A_WHILE: Duration = Duration::from_secs(4);

/// What a consumer asks for: no_ack, and a prefetch.
type Kind = (&'static str, bool, u16);
const KINDS: [Kind; 3] = [("prefetch", false, 2000), ("manual", false, 0), ("no_ack", true, 0)];

/// Declares the queue through Warren, as its consumer would, with its messages on disk: the broker must not run out of
/// memory because of this test.
fn declare(way: &Way) -> String {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-mode".into(), AMQPValue::LongString("lazy".into()));
    let arguments = encode_table(&arguments);
    let arguments = Table::from_encoded(&arguments).expect("encoded a moment ago");
    let mut peer = way.connect_channel();
    let (name, ..) = peer.declare_with(1, &queue::Declare { queue: b"backlog", arguments, ..DECLARE });
    peer.close();
    name
}

/// Fills the queue past Warren with bodies that begin with their number.
fn fill(way: &Way, queue: &str) {
    let mut peer = way.observer();
    let publish = basic::Publish { routing_key: queue.as_bytes(), ..PUBLISH };
    let mut body = vec![1; SIZE];
    for n in 0..DELIVERIES {
        body[..4].copy_from_slice(&n.to_be_bytes());
        let bytes = peer.encode_publish(1, &publish, &BasicProperties::default(), &body);
        peer.send_bytes(&bytes);
    }
    eventually("the backlog is there", Duration::from_secs(60), || {
        way.rabbit.queue(&way.vhost, queue).is_some_and(|q| q.ready == u64::from(DELIVERIES))
    });
    peer.close();
}

/// What the slow one gets once it reads: everything, in order. Some of it is enough to see that; it is more than what
/// waited in Warren and in sockets. Nothing is settled, so that the next one finds all of it again.
fn reads_again(peer: &mut Peer) {
    for n in 0..3000_u32 {
        let message = peer.delivery(1);
        assert_eq!(message.tag(), u64::from(n) + 1);
        assert_eq!(message.body[..4], n.to_be_bytes(), "delivery {n} is another message");
        assert_eq!(message.body.len(), SIZE);
    }
}

#[test]
fn a_consumer_that_stops_reading_leaves_others_alone_and_costs_little_memory() {
    let way = Way::new(Through::Warren, &[]);
    let warren = way.warren.as_ref().expect("the way leads through Warren");
    let queue = declare(&way);
    fill(&way, &queue);
    let mut others = Pairs::new(&way);
    for (kind, no_ack, prefetch) in KINDS {
        let memory = resident(warren);
        let mut slow = way.connect_channel();
        if prefetch > 0 {
            slow.qos(1, prefetch);
        }
        let moved = warren.metric_with("warren_binds_total", &[("why", "slow_reader")]);
        slow.consume(1, &queue, "", no_ack);
        let (most, ()) = peak_while(warren, || others.feel_nothing(kind, A_WHILE));
        let grown = most.saturating_sub(memory) / MIB;
        println!("{kind}: {grown} MiB more than before");
        assert!(grown < 64, "{kind}: {grown} MiB more than before");
        // When so much has come that it can be told.
        let moves = || warren.metric_with("warren_binds_total", &[("why", "slow_reader")]) - moved;
        eventually("it gets a connection of its own", Duration::from_secs(60), || moves() > 0.0);
        assert_eq!(moves(), 1.0, "{kind}: it gets one connection of its own");
        if prefetch == 0 {
            reads_again(&mut slow);
        }
        drop(slow);
        eventually("everything is back", Duration::from_secs(60), || {
            let queue = way.rabbit.queue(&way.vhost, &queue);
            queue.is_some_and(|q| no_ack || q.ready == u64::from(DELIVERIES))
        });
    }
    others.close();
}
