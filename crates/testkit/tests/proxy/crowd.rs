//! Many clients: what sharing is for. RabbitMQ's own counters say how many connections and channels it took.

use std::sync::Barrier;
use std::time::{Duration, Instant};
use warren_testkit::{Handshake, Peer, Rabbit, Warren, eventually, rabbit, unique};

const AT_ONCE: usize = 1_000;
const ONE_AFTER_ANOTHER: usize = 10_000;
/// Threads that only wait on a socket need little.
const STACK: usize = 128 * 1024;

struct Crowd<'a> {
    rabbit: &'a Rabbit,
    warren: Warren,
    vhost: String,
    queue: String,
}

impl Crowd<'_> {
    fn new<'a>(rabbit: &'a Rabbit, arguments: &[&str]) -> Crowd<'a> {
        warren_testkit::raise_descriptor_limit();
        let vhost = unique("crowd");
        rabbit.add_vhost(&vhost);
        let mut observer = Peer::connect_with(rabbit.address(), &Handshake::on(&vhost));
        observer.open_channel(1);
        let queue = observer.declare(1, "crowd");
        observer.close();
        Crowd { rabbit, warren: Warren::start_with(rabbit.port(), arguments), vhost, queue }
    }

    fn connect(&self) -> Peer {
        let mut peer = Peer::connect_with(self.warren.address(), &Handshake::on(&self.vhost));
        peer.open_channel(1);
        peer
    }

    /// Half of the clients want confirms, as in life.
    fn publish_and_close(&self, mut peer: Peer, n: usize) {
        let confirms = n.is_multiple_of(2);
        if confirms {
            peer.confirm_select(1);
        }
        peer.publish(1, &self.queue, n.to_string().as_bytes());
        if confirms {
            peer.expect_confirms(1, 1, 1);
        }
        if n.is_multiple_of(3) {
            peer.close_channel(1);
        }
        peer.close();
    }

    fn all_at_once(&self) {
        let barrier = Barrier::new(AT_ONCE);
        std::thread::scope(|scope| {
            for n in 0..AT_ONCE {
                let thread = std::thread::Builder::new().stack_size(STACK);
                let barrier = &barrier;
                let client = move || {
                    let peer = self.connect();
                    barrier.wait(); // nobody publishes before all are connected
                    self.publish_and_close(peer, n);
                };
                thread.spawn_scoped(scope, client).expect("a thread");
            }
        });
    }

    fn ready(&self) -> usize {
        let ready = self.rabbit.queue(&self.vhost, &self.queue).map_or(0, |q| q.ready);
        usize::try_from(ready).expect("a number of messages")
    }

    fn finish(self, expected: usize) {
        eventually("no message is missing", Duration::from_secs(60), || self.ready() == expected);
        assert_eq!(self.warren.metric("warren_client_channels"), 0.0);
        self.warren.stop();
        self.rabbit.delete_vhost(&self.vhost);
    }
}

#[test]
fn a_crowd_of_clients_takes_few_connections_and_channels() {
    let rabbit = rabbit::exclusive();
    let crowd = Crowd::new(&rabbit, &["--workers", "1"]);
    let started = Instant::now();
    crowd.all_at_once();
    println!("{AT_ONCE} clients at once: {:?}", started.elapsed());
    eventually("all have arrived", Duration::from_secs(60), || crowd.ready() == AT_ONCE);

    let before = rabbit.counters();
    let started = Instant::now();
    for n in 0..ONE_AFTER_ANOTHER {
        crowd.publish_and_close(crowd.connect(), n);
    }
    println!("{ONE_AFTER_ANOTHER} clients one after another: {:?}", started.elapsed());
    let after = rabbit.counters();
    let opened = after.channels_opened - before.channels_opened;
    let connections = after.connections_opened - before.connections_opened;
    println!("{opened} channels and {connections} connections opened for them");
    assert!(opened < 200, "{opened} channels opened for {ONE_AFTER_ANOTHER} clients one after another");
    assert!(connections < 20, "{connections} connections opened for {ONE_AFTER_ANOTHER} clients");
    eventually("one publishing connection", Duration::from_secs(60), || {
        rabbit.publishing_connections(&crowd.vhost) == 1
    });
    assert_eq!(crowd.warren.metric_with("warren_client_closes_total", &[("reason", "client")]), 11_000.0);
    crowd.finish(AT_ONCE + ONE_AFTER_ANOTHER);
}

#[test]
fn two_workers_serve_a_crowd_with_one_publishing_connection_each_at_most() {
    let rabbit = rabbit::exclusive();
    let crowd = Crowd::new(&rabbit, &["--workers", "2"]);
    let before = rabbit.counters();
    for n in 0..500 {
        crowd.publish_and_close(crowd.connect(), n);
    }
    let opened = rabbit.counters().channels_opened - before.channels_opened;
    assert!(opened < 50, "{opened} channels opened for 500 clients one after another");
    eventually("a publishing connection", Duration::from_secs(60), || {
        rabbit.publishing_connections(&crowd.vhost) > 0
    });
    assert!(rabbit.publishing_connections(&crowd.vhost) <= 2);
    crowd.finish(500);
}

/// The last one of a tenant is kept for as long as it proves the tenant's login (ARCHITECTURE.md), so both times are
/// short here.
#[test]
fn upstream_connections_that_nobody_uses_are_closed() {
    let rabbit = rabbit::exclusive();
    let crowd = Crowd::new(&rabbit, &["-t", "1", "--auth-ttl", "1"]);
    for n in 0..10 {
        crowd.publish_and_close(crowd.connect(), n);
    }
    assert!(!rabbit.connections(&crowd.vhost).is_empty(), "they are kept for a moment");
    eventually("they are closed", Duration::from_secs(60), || rabbit.connections(&crowd.vhost).is_empty());
    assert_eq!(crowd.warren.metric("warren_upstream_connections"), 0.0);
    crowd.publish_and_close(crowd.connect(), 10);
    crowd.finish(11);
}

#[test]
fn upstream_connections_carry_no_more_channels_than_they_may() {
    let rabbit = rabbit::exclusive();
    let crowd = Crowd::new(&rabbit, &["--max-upstream-channels", "3"]);
    let mut peers: Vec<Peer> = (0..10).map(|_| crowd.connect()).collect();
    for peer in &mut peers {
        peer.consume(1, &crowd.queue, "", true);
    }
    let connections = rabbit.connections(&crowd.vhost);
    assert!(connections.iter().all(|c| c.channels <= 3), "{connections:?}");
    assert!(connections.len() >= 4, "{connections:?}");
    peers.into_iter().for_each(Peer::close);
    crowd.finish(0);
}

#[test]
fn the_metrics_follow_what_happens() {
    let rabbit = rabbit::exclusive();
    let crowd = Crowd::new(&rabbit, &[]);
    let metric = |name: &str| crowd.warren.metric(name);
    let peers: Vec<Peer> = (0..5).map(|_| crowd.connect()).collect();
    assert_eq!(metric("warren_client_connections"), 5.0);
    assert_eq!(metric("warren_client_channels"), 5.0);
    for (n, peer) in peers.into_iter().enumerate() {
        crowd.publish_and_close(peer, n);
    }
    eventually("all clients are gone", Duration::from_secs(60), || {
        metric("warren_client_connections") == 0.0
    });
    assert!(metric("warren_upstream_connections") >= 1.0);
    assert!(metric("warren_upstream_channels") >= 1.0);
    let connections = rabbit.connections(&crowd.vhost);
    assert_eq!(connections.len() as f64, metric("warren_upstream_connections"), "{connections:?}");
    let channels: u32 = connections.iter().map(|c| c.channels).sum();
    assert_eq!(f64::from(channels), metric("warren_upstream_channels"), "{connections:?}");
    assert!(connections.iter().all(|c| c.name.to_lowercase().contains("warren")), "{connections:?}");
    crowd.finish(5);
}
