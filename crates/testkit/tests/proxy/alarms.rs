//! What one client's publishing does to others: alarms that stop all publishers, and queues that hold one back.

use crate::load::{Pace, Pair};
use amq_protocol_types::{AMQPValue, FieldTable};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use warren_testkit::peer::{DECLARE, PUBLISH};
use warren_testkit::{Handshake, Peer, Rabbit, Warren, Way, both_ways, eventually, rabbit, unique};
use warren_wire::method::{basic, queue};
use warren_wire::table::encode_table;
use warren_wire::{BasicProperties, Table};

const MESSAGES: u32 = 20_000;

fn connect(warren: &Warren, vhost: &str) -> Peer {
    let mut peer = Peer::connect_with(warren.address(), &Handshake::on(vhost));
    peer.open_channel(1);
    peer
}

/// Ends an alarm however the test ends.
struct Alarm<'a>(&'a Rabbit);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.0.clear_memory_alarm();
    }
}

#[test]
fn consumers_settle_and_drain_queues_while_an_alarm_blocks_all_publishers() {
    let rabbit = rabbit::exclusive();
    let vhost = unique("alarm");
    rabbit.add_vhost(&vhost);
    let warren = Warren::start(&rabbit);
    let mut publishers: Vec<Peer> = (0..4).map(|_| connect(&warren, &vhost)).collect();
    let queue = publishers[0].declare(1, "");
    for publisher in &mut publishers {
        publisher.confirm_select(1);
        for n in 0..MESSAGES / 4 {
            publisher.publish(1, &queue, &n.to_be_bytes());
        }
        publisher.expect_confirms(1, 1, u64::from(MESSAGES / 4));
    }
    let alarm = Alarm(&rabbit);
    rabbit.raise_memory_alarm();
    let last = u64::from(MESSAGES / 4) + 1;
    for publisher in &mut publishers {
        publisher.publish(1, &queue, b"blocked");
        publisher.expect(0, warren_wire::method::connection::BLOCKED);
    }
    // Half of the consumers come during the alarm; all settle in their own ways.
    let started = Instant::now();
    let mut consumers: Vec<Peer> = (0..4).map(|_| connect(&warren, &vhost)).collect();
    std::thread::scope(|scope| {
        for (n, consumer) in consumers.iter_mut().enumerate() {
            let queue = &queue;
            scope.spawn(move || {
                consumer.qos(1, [1, 10, 100, 1000][n]);
                consumer.consume(1, queue, "", false);
                // Until nothing comes any more.
                while let Ok(Some(frame)) = consumer.try_next(1, Duration::from_secs(2)) {
                    let message = consumer.content_of(frame);
                    consumer.ack(1, message.tag(), n % 2 == 1);
                }
            });
        }
    });
    println!("{MESSAGES} messages drained during an alarm in {:?}", started.elapsed());
    eventually("the queue is empty and everything is settled", Duration::from_secs(5), || {
        rabbit.queue(&vhost, &queue).is_some_and(|q| q.ready == 0 && q.unacknowledged == 0)
    });
    // The alarm is still on, and who does not publish feels nothing of it.
    for publisher in &mut publishers {
        publisher.expect_quiet(Duration::from_millis(100));
    }
    let mut other = connect(&warren, &vhost);
    other.declare(1, "");
    other.close();
    drop(alarm);
    for publisher in &mut publishers {
        publisher.expect(0, warren_wire::method::connection::UNBLOCKED);
        publisher.expect_confirms(1, last, 1);
    }
    let mut seen = 0;
    for consumer in &mut consumers {
        while let Ok(Some(frame)) = consumer.try_next(1, Duration::from_secs(1)) {
            seen += usize::from(consumer.content_of(frame).body == b"blocked");
        }
    }
    assert_eq!(seen, publishers.len(), "each of them once");
    rabbit.delete_vhost(&vhost);
}

fn quorum_queue(peer: &mut Peer) -> String {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let arguments = encode_table(&arguments);
    let arguments = Table::from_encoded(&arguments).expect("encoded a moment ago");
    let name = unique("quorum");
    peer.declare_with(1, &queue::Declare { queue: name.as_bytes(), durable: true, arguments, ..DECLARE }).0
}

/// Publishes to a queue without a pause until it is told to stop.
fn flood(way: &Way, queue: &str, stop: &AtomicBool, sent: &AtomicU64) {
    let mut peer = way.connect_channel();
    let publish = basic::Publish { routing_key: queue.as_bytes(), ..PUBLISH };
    let one = peer.encode_publish(1, &publish, &BasicProperties::default(), &[7; 1000]);
    let many = one.repeat(100);
    while !stop.load(Ordering::Relaxed) {
        if peer.try_send_bytes(&many).is_err() {
            return;
        }
        sent.fetch_add(100, Ordering::Relaxed);
    }
}

/// Declares by clients that come and go, each of which takes so long.
fn declares(way: &Way, time: Duration) -> Pace {
    let started = Instant::now();
    let mut all = Vec::new();
    while started.elapsed() < time {
        let mut peer = way.connect_channel();
        let declaring = Instant::now();
        let queue = peer.declare(1, "");
        all.push(declaring.elapsed());
        peer.delete_queue(1, &queue);
        peer.close();
    }
    Pace::of(all, started.elapsed())
}

#[test]
fn a_declare_takes_milliseconds_while_another_client_floods_a_quorum_queue() {
    both_ways(|way| {
        let mut owner = way.connect_channel();
        let queue = quorum_queue(&mut owner);
        let mut others = Pair::new(way);
        let before = (declares(way, Duration::from_secs(1)), others.run(Duration::from_secs(1)));
        let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        let during = std::thread::scope(|scope| {
            scope.spawn(|| flood(way, &queue, &stop, &sent));
            eventually("the flood is there", Duration::from_secs(10), || {
                sent.load(Ordering::Relaxed) > 20_000
            });
            let during = (declares(way, Duration::from_secs(3)), others.run(Duration::from_secs(3)));
            stop.store(true, Ordering::Relaxed);
            during
        });
        println!("{:?}: {} messages sent meanwhile", way.through, sent.load(Ordering::Relaxed));
        println!("a declare before {:?}", before.0);
        println!("a declare during {:?}", during.0);
        println!("a message before {:?}", before.1);
        println!("a message during {:?}", during.1);
        assert!(during.0.median < Duration::from_millis(20), "{during:?}");
        assert!(during.0.p99 < Duration::from_millis(300), "{during:?}");
        during.1.is_like(before.1, "another client's messages");
        owner.delete_queue(1, &queue);
        others.close();
    });
}
