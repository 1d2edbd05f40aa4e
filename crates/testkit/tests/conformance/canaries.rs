//! No client can hurt another: what each input does to the neighbours of the one who sends it.

use crate::cases::{Case, Kind, Section, Stage, flow};
use crate::{contents, framing, handshakes, methods, refusals, states};
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use warren_testkit::peer::PUBLISH;
use warren_testkit::{Handshake, Peer, Through, Way, eventually, through_warren, unique};
use warren_wire::method::{basic, channel, queue};
use warren_wire::{BasicProperties, Method};

/// How often each input is sent.
const TIMES: usize = 100;
/// Quiet moments are spread between them, so that both meet the same noise of the machine.
const BLOCKS: usize = 10;
/// How long each of them lasts.
const QUIET: Duration = Duration::from_secs(1);
/// Neighbours who offend at the same time.
const OFFENDERS: usize = 3;
/// Neighbours besides the two canaries.
const OTHERS: usize = 50;

/// Everything that costs a client its channel or its connection, and the handshakes that fail.
const HOSTILE: [&Section; 6] = [
    &framing::SECTION,
    &methods::SECTION,
    &contents::SECTION,
    &refusals::SECTION,
    &states::SECTION,
    &handshakes::SECTION,
];

/// What the canaries feel, and when.
struct Canaries<'a> {
    address: SocketAddr,
    vhost: &'a str,
    hostile: &'a AtomicBool,
    done: &'a AtomicBool,
    sung: &'a AtomicUsize,
}

/// Times from a publish to its confirm and to its delivery.
#[derive(Default)]
struct Felt {
    quiet: Vec<Duration>,
    hostile: Vec<Duration>,
}

impl Canaries<'_> {
    fn connect(&self) -> Peer {
        let mut peer = Peer::connect_with(self.address, &Handshake::on(self.vhost));
        peer.open_channel(1);
        peer
    }

    /// One publishes with confirms, the other consumes what it publishes, until all is over.
    fn sing(&self) -> Felt {
        let mut publisher = self.connect();
        publisher.confirm_select(1);
        publisher.declare(1, "canary");
        let mut consumer = self.connect();
        consumer.qos(1, 10);
        consumer.consume(1, "canary", "canary", false);
        let mut felt = Felt::default();
        let mut number = 0;
        while !self.done.load(Ordering::Relaxed) {
            let before = self.hostile.load(Ordering::Relaxed);
            number += 1;
            let begun = Instant::now();
            publisher.publish(1, "canary", b"song");
            publisher.expect_confirms(1, number, 1);
            let confirmed = begun.elapsed();
            let message = consumer.delivery(1);
            let delivered = begun.elapsed();
            consumer.ack(1, message.tag(), false);
            assert_eq!((message.text().as_str(), message.redelivered()), ("song", false));
            if before == self.hostile.load(Ordering::Relaxed) {
                let felt = if before { &mut felt.hostile } else { &mut felt.quiet };
                felt.extend([confirmed, delivered]);
            }
            self.sung.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_millis(4));
        }
        publisher.close();
        consumer.close();
        felt
    }
}

/// A third of them have published, a third of them consume, a third of them have done both: what is shared for each of
/// the three is there to stay.
fn others(way: &Way) -> Vec<Peer> {
    let other = |n: usize| {
        let mut peer = way.connect_channel();
        let name = peer.declare(1, &format!("other-{n}"));
        if !n.is_multiple_of(3) {
            peer.consume(1, &name, "t", true);
        }
        if n % 3 < 2 {
            let nobody = basic::Publish { routing_key: b"nobody", ..PUBLISH };
            peer.publish_with(1, &nobody, &BasicProperties::default(), b"hello");
            peer.call(1, &flow(true), channel::FLOW_OK);
        }
        peer
    };
    (0..OTHERS).map(other).collect()
}

/// Each still has its connection and its channel.
fn are_well(others: &mut [Peer]) {
    for peer in others {
        peer.call(1, &flow(true), channel::FLOW_OK);
        assert_eq!(peer.end_within(Duration::from_micros(1)), None);
    }
}

/// An offender of this round. What it declared is deleted behind it, past Warren.
fn offend(way: &Way, case: &Case, round: usize, cleaner: &mut Peer) {
    let kind = case.kinds[round % case.kinds.len()];
    let mut stage = Stage::on(way.address(), way.vhost.clone(), kind);
    (case.act)(&mut stage);
    stage.outcome(case.answers);
    if kind != Kind::Raw {
        let name = stage.name.as_bytes();
        let delete = queue::Delete { queue: name, if_unused: false, if_empty: false, no_wait: true };
        cleaner.send(1, &Method::QueueDelete(delete));
    }
}

/// One neighbour's part of the inputs, as often as a block has them.
fn offend_all(way: &Way, first: usize, block: usize, cleaner: &mut Peer) {
    for round in 0..TIMES / BLOCKS {
        cases().skip(first).step_by(OFFENDERS).for_each(|case| offend(way, case, block + round, cleaner));
    }
    cleaner.call(1, &flow(true), channel::FLOW_OK);
}

fn cases() -> impl Iterator<Item = &'static Case> {
    HOSTILE.into_iter().flat_map(|section| section.cases)
}

#[test]
fn no_input_of_a_neighbour_is_felt() {
    let _alone = crate::alone();
    crate::lower_message_size();
    through_warren(|way| {
        assert_eq!(way.through, Through::Warren);
        let mut others = others(way);
        let (hostile, done, sung) = (AtomicBool::new(false), AtomicBool::new(false), AtomicUsize::new(0));
        let canaries = Canaries {
            address: way.address(),
            vhost: &way.vhost,
            hostile: &hostile,
            done: &done,
            sung: &sung,
        };
        // The same past Warren, on a virtual host of its own: what of it is the machine's and the broker's.
        let elsewhere = unique("canaries");
        way.rabbit.add_vhost(&elsewhere);
        let past = Canaries {
            address: way.rabbit.address(),
            vhost: &elsewhere,
            sung: &AtomicUsize::new(0),
            ..canaries
        };
        let (felt, past) = std::thread::scope(|scope| {
            let felt = scope.spawn(|| canaries.sing());
            let past = scope.spawn(|| past.sing());
            let shared = shared_connections(way, &sung);
            let mut cleaners = [(); OFFENDERS].map(|()| way.observer());
            for block in 0..BLOCKS {
                std::thread::sleep(QUIET);
                hostile.store(true, Ordering::Relaxed);
                std::thread::scope(|scope| {
                    for (first, cleaner) in cleaners.iter_mut().enumerate() {
                        scope.spawn(move || offend_all(way, first, block, cleaner));
                    }
                });
                hostile.store(false, Ordering::Relaxed);
                are_well(&mut others);
                let now = way.rabbit.connection_pids(&way.vhost);
                assert!(shared.iter().all(|pid| now.contains(pid)), "closed: {shared:?}, now {now:?}");
                assert!(!felt.is_finished(), "a canary has fallen silent");
                // What the offenders had for themselves is gone; for the rest they used what was there.
                eventually("nothing but the shared connections is left", Duration::from_secs(60), || {
                    way.rabbit.connection_pids(&way.vhost).len() == shared.len() + OFFENDERS
                });
            }
            done.store(true, Ordering::Relaxed);
            let alive = "two canaries that are alive";
            (felt.join().expect(alive), past.join().expect(alive))
        });
        way.rabbit.delete_vhost(&elsewhere);
        compare(felt, past);
        others.into_iter().for_each(Peer::close);
    });
}

/// The upstream connections, as soon as the canaries use them.
fn shared_connections(way: &Way, sung: &AtomicUsize) -> Vec<String> {
    eventually("the canaries sing", Duration::from_secs(60), || sung.load(Ordering::Relaxed) > 100);
    let shared = way.rabbit.connection_pids(&way.vhost);
    assert_eq!(shared.len(), 3, "one each for who publishes, who consumes, who does both: {shared:?}");
    shared
}

/// The bound: at most twice the quiet time, and 5 ms. Where it takes longer beside the offenders past Warren too, by this
/// factor longer: they cost the machine and the broker time, whoever is between.
fn compare(mut felt: Felt, mut past: Felt) {
    let (quiet, hostile) = (p99(&mut felt.quiet), p99(&mut felt.hostile));
    let (past_quiet, past_hostile) = (p99(&mut past.quiet), p99(&mut past.hostile));
    println!(
        "p99: {quiet:?} of {} in quiet, {hostile:?} of {} beside {} hostile inputs",
        felt.quiet.len(),
        felt.hostile.len(),
        cases().count() * TIMES
    );
    println!("p99 past Warren: {past_quiet:?} in quiet, {past_hostile:?} beside them");
    assert!(felt.quiet.len() >= 1000 && felt.hostile.len() >= 1000, "too few to compare");
    let noise = (past_hostile.as_secs_f64() / past_quiet.as_secs_f64()).max(1.0);
    let most = quiet.mul_f64(2.0 * noise) + Duration::from_millis(5);
    assert!(hostile <= most, "{hostile:?} instead of {quiet:?}, {most:?} at most");
}

fn p99(felt: &mut [Duration]) -> Duration {
    felt.sort_unstable();
    felt[felt.len() * 99 / 100]
}
