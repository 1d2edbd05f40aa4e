//! What went wrong with amqproxy, one by one, where no other file has it:
//!
//! | case | tests |
//! |---|---|
//! | 403 comes late, a missing virtual host becomes 403 | `login` |
//! | a changed password is accepted for ever | `login` |
//! | 0 is offered as heartbeat; busy publishers get none; none go upstream | here |
//! | half-open handshakes never end | `raw`, `floods` |
//! | out of descriptors, the process ends | `descriptors`, `floods` |
//! | a frame header that announces 1.5 GB | `raw` |
//! | a pool for each of 5,000 unknown users | `floods` |
//! | tune-ok out of range | `raw` |

use std::time::{Duration, Instant};

use warren_testkit::peer::{Closed, Stage};
use warren_testkit::{Handshake, Peer, Rabbit, Warren, both_ways, eventually, rabbit, unique};
use warren_wire::Method;

/// Sets the heartbeat that a node offers from now on, in seconds.
fn offer_heartbeat(rabbit: &Rabbit, seconds: u16) {
    rabbit.eval(&format!("application:set_env(rabbit, heartbeat, {seconds})."));
}

/// A node whose offer is set back to what it was, also when the test fails.
struct Beating<'a>(&'a Rabbit);

impl<'a> Beating<'a> {
    fn every(rabbit: &'a Rabbit, seconds: u16) -> Beating<'a> {
        offer_heartbeat(rabbit, seconds);
        Beating(rabbit)
    }
}

impl Drop for Beating<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            offer_heartbeat(self.0, 60);
        }
    }
}

/// Where somebody was refused, and the close that came.
fn refused(peer: Result<Peer, warren_testkit::peer::Refused>) -> (Stage, Closed) {
    let refused = peer.map(|_| ()).expect_err("nobody is let in here");
    (refused.stage, refused.closed().clone())
}

/// Also with connections for the right password there, ready to be used.
#[test]
fn refusals_come_at_their_step_with_the_brokers_code() {
    both_ways(|way| {
        let mut inside = way.connect_channel();
        let wrong = way.handshake().by("guest", "wrong");
        let missing = Handshake::on("no-such-virtual-host");
        for _ in 0..3 {
            let (stage, closed) = refused(Peer::try_connect(way.address(), &wrong));
            assert_eq!((stage, closed.code, closed.class, closed.method), (Stage::StartOk, 403, 0, 0));
            let (stage, closed) = refused(Peer::try_connect(way.address(), &missing));
            assert_eq!((stage, closed.code, closed.class, closed.method), (Stage::Open, 530, 10, 40));
            assert!(closed.text.contains("no-such-virtual-host"), "{closed:?}");
        }
        inside.declare(1, "");
        inside.close();
    });
}

#[test]
fn the_brokers_heartbeat_is_offered() {
    let rabbit = rabbit::exclusive();
    for seconds in [7, 60] {
        let _beating = Beating::every(&rabbit, seconds);
        let warren = Warren::start(&rabbit);
        for address in [rabbit.address(), warren.address()] {
            let peer = Peer::connect(address);
            assert_eq!(peer.tuned().2, seconds, "offered by {address}");
            peer.close();
        }
    }
}

/// A publisher without confirms hears nothing else, and must not take the broker for dead.
#[test]
fn a_busy_publisher_without_confirms_gets_heartbeats() {
    both_ways(|way| {
        let every_second = Handshake { heartbeat: 1, ..way.handshake() };
        let mut publisher = Peer::connect_with(way.address(), &every_second);
        publisher.open_channel(1);
        let queue = publisher.declare(1, "");
        let before = publisher.heartbeats();
        let (started, mut published) = (Instant::now(), 0);
        while started.elapsed() < Duration::from_secs(6) {
            for _ in 0..20 {
                publisher.publish(1, &queue, &[0; 100]);
                published += 1;
            }
            assert_eq!(publisher.end_within(Duration::from_millis(5)), None, "after {published} messages");
        }
        let beats = publisher.heartbeats() - before;
        println!("{:?}: {beats} heartbeats among {published} messages", way.through);
        assert!(beats >= 4, "{beats} heartbeats in 6 s");
        eventually("all messages are there", Duration::from_secs(60), || {
            way.rabbit.queue(&way.vhost, &queue).is_some_and(|q| q.ready == published)
        });
        publisher.close();
    });
}

/// Warren only reads from such a connection. A broker that hears nothing for two heartbeats closes it.
#[test]
fn heartbeats_go_upstream_while_only_deliveries_flow() {
    let rabbit = rabbit::exclusive();
    let _beating = Beating::every(&rabbit, 1);
    let vhost = unique("peers");
    rabbit.add_vhost(&vhost);
    let warren = Warren::start(&rabbit);
    // Without heartbeats of its own, so that nothing comes from the client's side either.
    let mut consumer = Peer::connect_with(warren.address(), &Handshake::on(&vhost));
    assert_eq!(consumer.tuned().2, 1, "the broker's own");
    consumer.open_channel(1);
    let queue = consumer.declare(1, "");
    consumer.consume(1, &queue, "reader", true);
    let mut publisher = Peer::connect_with(rabbit.address(), &Handshake::on(&vhost));
    publisher.open_channel(1);
    let before = rabbit.connections(&vhost);
    let (started, mut sent) = (Instant::now(), 0);
    while started.elapsed() < Duration::from_secs(8) {
        publisher.publish(1, &queue, format!("{sent}").as_bytes());
        assert_eq!(consumer.delivery(1).text(), format!("{sent}"));
        sent += 1;
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(sent > 50, "only {sent} messages in 8 s");
    assert_eq!(rabbit.connections(&vhost), before, "the same connections as before");
    for reason in ["lost", "heartbeat", "broker"] {
        assert_eq!(
            warren.metric_with("warren_upstream_closes_total", &[("reason", reason)]),
            0.0,
            "{reason}"
        );
    }
    consumer.close();
    publisher.close();
    warren.stop();
    rabbit.delete_vhost(&vhost);
}

/// The other direction of the same: Warren hears the broker's heartbeats from an upstream that is only written to, and
/// a client that is idle but alive is kept.
#[test]
fn an_idle_client_outlives_many_heartbeats() {
    let rabbit = rabbit::exclusive();
    let _beating = Beating::every(&rabbit, 1);
    let warren = Warren::start(&rabbit);
    let every_second = Handshake { heartbeat: 1, ..Handshake::default() };
    let mut idle = Peer::connect_with(warren.address(), &every_second);
    idle.open_channel(1);
    let queue = idle.declare(1, "");
    let mut silent = Peer::connect_with(warren.address(), &every_second);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(6) {
        idle.send_heartbeat();
        assert_eq!(idle.end_within(Duration::from_millis(400)), None, "after {:?}", started.elapsed());
    }
    assert!(idle.heartbeats() >= 4, "{} heartbeats in 6 s", idle.heartbeats());
    silent.expect_end(Duration::from_secs(30)); // long ago
    assert_eq!(warren.metric_with("warren_client_closes_total", &[("reason", "heartbeat")]), 1.0);
    let get = warren_wire::method::basic::Get { queue: queue.as_bytes(), no_ack: true };
    idle.call(1, &Method::BasicGet(get), warren_wire::method::basic::GET_EMPTY);
    idle.close();
    warren.stop();
}
