//! Requests that cost their connection, depending on what kind of queue they meet: only the one who sends them feels it,
//! as it would without Warren, and an ordinary neighbour's connections are never closed.

use amq_protocol_types::{AMQPValue, FieldTable};
use std::time::{Duration, Instant};
use warren_testkit::peer::{CONSUME, Closed, DECLARE, End};
use warren_testkit::{Peer, Through, Way, through_warren, unique};
use warren_wire::method::{basic, queue};
use warren_wire::table::encode_table;
use warren_wire::{Method, Table};

/// A request, and the kind of queue that it must not meet.
struct Offence {
    name: &'static str,
    kind: &'static str,
    commit: fn(&mut Peer, &str),
}

const OFFENCES: [Offence; 10] = [
    Offence {
        name: "get from a stream",
        kind: "stream",
        commit: |peer, queue| {
            peer.send(1, &Method::BasicGet(basic::Get { queue: queue.as_bytes(), no_ack: true }));
        },
    },
    Offence {
        name: "purge of a stream",
        kind: "stream",
        commit: |peer, queue| {
            peer.send(1, &Method::QueuePurge(queue::Purge { queue: queue.as_bytes(), no_wait: false }));
        },
    },
    Offence {
        name: "purge of a stream, without waiting",
        kind: "stream",
        commit: |peer, queue| {
            peer.send(1, &Method::QueuePurge(queue::Purge { queue: queue.as_bytes(), no_wait: true }));
        },
    },
    Offence {
        name: "consume from a stream without acknowledgements",
        kind: "stream",
        commit: |peer, queue| {
            peer.qos(1, 10);
            consume(peer, queue, true, &FieldTable::default());
        },
    },
    Offence {
        name: "consume from a stream from an offset that is none",
        kind: "stream",
        commit: |peer, queue| {
            peer.qos(1, 10);
            consume(peer, queue, false, &offset(AMQPValue::LongString("soon".into())));
        },
    },
    Offence {
        name: "consume from a stream from an offset of the wrong type",
        kind: "stream",
        commit: |peer, queue| {
            peer.qos(1, 10);
            consume(peer, queue, false, &offset(AMQPValue::Boolean(true)));
        },
    },
    Offence {
        name: "nack of what a stream has delivered",
        kind: "stream",
        commit: |peer, queue| {
            peer.qos(1, 10);
            peer.open_channel(2);
            peer.confirm_select(2);
            peer.publish(2, queue, b"hello");
            peer.expect_confirms(2, 1, 1);
            peer.close_channel(2);
            consume(peer, queue, false, &offset(AMQPValue::LongString("first".into())));
            peer.expect(1, basic::CONSUME_OK);
            let tag = peer.delivery(1).tag();
            peer.send(
                1,
                &Method::BasicNack(basic::Nack { delivery_tag: tag, multiple: false, requeue: true }),
            );
        },
    },
    Offence {
        name: "consume from a quorum queue behind a prefetch for the whole channel",
        kind: "quorum",
        commit: |peer, queue| {
            let qos = basic::Qos { prefetch_size: 0, prefetch_count: 10, global: true };
            peer.call(1, &Method::BasicQos(qos), basic::QOS_OK);
            consume(peer, queue, false, &FieldTable::default());
        },
    },
    Offence {
        name: "delete of a quorum queue, if unused",
        kind: "quorum",
        commit: |peer, queue| delete(peer, queue, true, false),
    },
    Offence {
        name: "delete of a quorum queue, if empty",
        kind: "quorum",
        commit: |peer, queue| delete(peer, queue, false, true),
    },
];

fn consume(peer: &mut Peer, queue: &str, no_ack: bool, arguments: &FieldTable) {
    let arguments = encode_table(arguments);
    let arguments = Table::from_encoded(&arguments).expect("encoded a moment ago");
    let consume =
        basic::Consume { queue: queue.as_bytes(), consumer_tag: b"t", no_ack, arguments, ..CONSUME };
    peer.send(1, &Method::BasicConsume(consume));
}

fn offset(value: AMQPValue) -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-stream-offset".into(), value);
    arguments
}

fn delete(peer: &mut Peer, queue: &str, if_unused: bool, if_empty: bool) {
    let delete = queue::Delete { queue: queue.as_bytes(), if_unused, if_empty, no_wait: false };
    peer.send(1, &Method::QueueDelete(delete));
}

fn declare(peer: &mut Peer, kind: &str) -> String {
    let name = unique(kind);
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString(kind.into()));
    let arguments = encode_table(&arguments);
    let arguments = Table::from_encoded(&arguments).expect("encoded a moment ago");
    peer.declare_with(1, &queue::Declare { queue: name.as_bytes(), durable: true, arguments, ..DECLARE }).0
}

/// What the offender is told, its queue's name left out.
fn offend(mut peer: Peer, queue: &str, offence: &Offence) -> Closed {
    (offence.commit)(&mut peer, queue);
    match peer.expect_end(Duration::from_secs(60)) {
        End::Closed(closed) => Closed { text: closed.text.replace(queue, "QUEUE"), ..closed },
        end => panic!("{}: {end:?}", offence.name),
    }
}

/// Ordinary clients: one publishes, one consumes, one does both, one declares.
struct Neighbours {
    peers: Vec<Peer>,
    queue: String,
    published: u64,
}

impl Neighbours {
    fn new(way: &Way) -> Neighbours {
        let mut peers: Vec<Peer> = (0..4).map(|_| way.connect_channel()).collect();
        let queue = peers[0].declare(1, &unique("ordinary"));
        peers[0].confirm_select(1);
        peers[1].qos(1, 10);
        peers[1].consume(1, &queue, "t", false);
        peers[2].confirm_select(1);
        let own = peers[2].declare(1, "");
        peers[2].consume(1, &own, "own", true);
        let mut neighbours = Neighbours { peers, queue, published: 0 };
        neighbours.work();
        neighbours
    }

    /// Each does what it does, and nothing comes twice.
    fn work(&mut self) {
        self.published += 1;
        let [publisher, consumer, both, declares] = &mut self.peers[..] else { unreachable!("four") };
        publisher.publish(1, &self.queue, b"one");
        publisher.expect_confirms(1, self.published, 1);
        let message = consumer.delivery(1);
        assert_eq!((message.tag(), message.redelivered()), (self.published, false));
        consumer.ack(1, message.tag(), false);
        both.publish(1, "nobody", b"two");
        both.expect_confirms(1, self.published, 1);
        declares.ready(1, &self.queue);
    }
}

#[test]
fn only_the_offender_feels_an_offence() {
    through_warren(|way| {
        assert_eq!(way.through, Through::Warren);
        let mut neighbours = Neighbours::new(way);
        let pids = way.rabbit.connection_pids(&way.vhost);
        assert!(pids.len() >= 3, "for who publishes, who consumes, who does both: {pids:?}");
        let mut owner = way.observer();
        for offence in &OFFENCES {
            let begun = Instant::now();
            let queue = declare(&mut owner, offence.kind);
            let direct = offend(way.observer(), &queue, offence);
            // Declared past Warren, which knows nothing of it; and declared by the offender.
            let mut knowing = way.connect_channel();
            let own = declare(&mut knowing, offence.kind);
            for (peer, queue) in [(way.connect_channel(), &queue), (knowing, &own)] {
                assert_eq!(offend(peer, queue, offence), direct, "{}", offence.name);
                neighbours.work();
                let now = way.rabbit.connection_pids(&way.vhost);
                assert!(pids.iter().all(|p| now.contains(p)), "{}: {pids:?}, now {now:?}", offence.name);
            }
            println!("{}: {direct:?}, in {:?}", offence.name, begun.elapsed());
            owner.delete_queue(1, &queue);
            owner.delete_queue(1, &own);
        }
        neighbours.peers.into_iter().for_each(Peer::close);
    });
}

/// Consuming from a stream from its default offset, which needs no argument: nothing shows beforehand that it is one.
const NACK: Offence = Offence {
    name: "nack of what a stream has delivered from its default offset",
    kind: "stream",
    commit: |peer, queue| {
        peer.qos(1, 10);
        consume(peer, queue, false, &FieldTable::default());
        peer.expect(1, basic::CONSUME_OK);
        peer.open_channel(2);
        peer.publish(2, queue, b"hello");
        let tag = peer.delivery(1).tag();
        peer.send(1, &Method::BasicNack(basic::Nack { delivery_tag: tag, multiple: false, requeue: true }));
    },
};

/// Where the stream was declared past Warren, the connection that it is consumed on is one that is shared: the neighbours
/// on it go on, on another.
#[test]
fn a_nack_of_what_an_unknown_stream_delivered_is_the_offenders_alone() {
    through_warren(|way| {
        let mut neighbours = Neighbours::new(way);
        let mut owner = way.observer();
        let queue = declare(&mut owner, "stream");
        let direct = offend(way.observer(), &queue, &NACK);
        assert_eq!(direct.code, 540, "{direct:?}");
        for _ in 0..3 {
            assert_eq!(offend(way.connect_channel(), &queue, &NACK), direct);
            neighbours.work();
        }
        neighbours.peers.into_iter().for_each(Peer::close);
    });
}

/// Where it was declared through Warren, no neighbour's connection is closed.
#[test]
fn a_nack_of_what_a_known_stream_delivered_closes_no_neighbours_connection() {
    through_warren(|way| {
        let mut neighbours = Neighbours::new(way);
        let pids = way.rabbit.connection_pids(&way.vhost);
        let queue = declare(&mut way.connect_channel(), "stream");
        let direct = offend(way.observer(), &queue, &NACK);
        for _ in 0..3 {
            assert_eq!(offend(way.connect_channel(), &queue, &NACK), direct);
            neighbours.work();
            let now = way.rabbit.connection_pids(&way.vhost);
            assert!(pids.iter().all(|p| now.contains(p)), "{pids:?}, now {now:?}");
        }
        neighbours.peers.into_iter().for_each(Peer::close);
    });
}

/// What went well once needs no quarantine the next time, and in quarantine a client is served as elsewhere.
#[test]
fn ordinary_queues_are_used_as_ever() {
    through_warren(|way| {
        let mut owner = way.observer();
        owner.confirm_select(1);
        let queue = owner.declare(1, &unique("classic"));
        for n in 1..=6 {
            owner.publish(1, &queue, b"x");
            owner.expect_confirms(1, n, 1);
        }
        let mut peer = way.connect_channel();
        for n in 1..=3 {
            assert_eq!(peer.get(1, &queue, true).map(|m| m.tag()), Some(n));
        }
        peer.confirm_select(1);
        peer.publish(1, &queue, b"y");
        peer.expect_confirms(1, 1, 1);
        peer.consume(1, &queue, "t", true);
        let bodies: Vec<String> = (0..4).map(|_| peer.delivery(1).text()).collect();
        assert_eq!(bodies, ["x", "x", "x", "y"]);
        let quarantined = || {
            let warren = way.warren.as_ref().expect("the way leads through Warren");
            warren.metric_with("warren_binds_total", &[("why", "quarantine")])
        };
        let before = quarantined();
        assert!(before > 0.0, "the queue was not known");
        let mut second = way.connect_channel();
        assert!(second.get(1, &queue, true).is_none());
        second.consume(1, &queue, "t", true);
        let delete =
            queue::Delete { queue: queue.as_bytes(), if_unused: false, if_empty: false, no_wait: false };
        assert_eq!(quarantined(), before, "now it is");
        peer.call(1, &Method::QueueDelete(delete), queue::DELETE_OK);
        peer.close();
        second.close();
    });
}
