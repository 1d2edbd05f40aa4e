//! What one client's publishing does to others: alarms that stop all publishers, and queues that hold one back.

use crate::load::{Pairs, is_as_without_warren};
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
    eventually("the queue is empty and everything is settled", Duration::from_secs(60), || {
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

/// Tells a thread to stop, however the test ends.
struct Stopping<'a>(&'a AtomicBool);

impl Drop for Stopping<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
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

/// How long a declare takes, of a client that comes and goes.
fn declare(mut peer: Peer) -> Duration {
    let declaring = Instant::now();
    let queue = peer.declare(1, "");
    let took = declaring.elapsed();
    peer.delete_queue(1, &queue);
    peer.close();
    took
}

/// RabbitMQ does not read from the flood's connection for a second at a time. A proxy that has others on the same
/// connection (as amqproxy has) makes each of their declares wait so long.
#[test]
fn a_declare_takes_milliseconds_while_another_client_floods_a_quorum_queue() {
    both_ways(|way| {
        let mut owner = way.connect_channel();
        let queue = quorum_queue(&mut owner);
        let mut others = Pairs::new(way);
        let a_while = Duration::from_secs(3);
        others.feel_nothing("a message before", Duration::from_secs(1));
        let (stop, sent) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            // It must end when something fails here, too.
            let stopping = Stopping(&stop);
            scope.spawn(|| flood(way, &queue, &stop, &sent));
            eventually("the flood is there", Duration::from_secs(60), || {
                sent.load(Ordering::Relaxed) > 20_000
            });
            let before = sent.load(Ordering::Relaxed);
            let (through, past) = (|| declare(way.connect_channel()), || declare(way.observer()));
            is_as_without_warren("a declare", a_while, through, past);
            others.feel_nothing("a message", a_while);
            assert!(sent.load(Ordering::Relaxed) > before, "the flood went on meanwhile");
            drop(stopping);
        });
        println!("{:?}: {} messages sent meanwhile", way.through, sent.load(Ordering::Relaxed));
        owner.delete_queue(1, &queue);
        others.close();
    });
}
