//! Routes to several nodes of RabbitMQ, and farms of which some members do not work.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use warren_testkit::hole::Hole;
use warren_testkit::peer::DECLARE;
use warren_testkit::{Handshake, Peer, Rabbit, Warren, eventually, free_port, rabbit, unique};
use warren_wire::method::queue;

fn backend(name: &str, port: u16) -> String {
    format!("[[backend]]\nname = \"{name}\"\nhost = \"127.0.0.1\"\nport = {port}\n")
}

fn farm(name: &str, backends: &[&str], more: &str) -> String {
    format!("[[farm]]\nname = \"{name}\"\nbackends = {backends:?}\n{more}\n")
}

fn route(vhost: &str, farm: &str) -> String {
    format!("[[route]]\nvhost = \"{vhost}\"\nfarm = \"{farm}\"\n")
}

const LISTENER: &str = "[[listener]]\naddress = \"127.0.0.1:0\"\n";

/// A client with a queue of its own on a virtual host, and the time that took.
fn client(address: SocketAddr, vhost: &str) -> (Peer, Duration) {
    let begun = Instant::now();
    let mut peer = Peer::connect_with(address, &Handshake::on(vhost));
    peer.open_channel(1);
    peer.declare_with(1, &queue::Declare { exclusive: true, ..DECLARE });
    (peer, begun.elapsed())
}

fn queues(rabbit: &Rabbit, vhost: &str) -> usize {
    rabbit.queues(vhost).len()
}

#[test]
fn three_hundred_clients_of_three_virtual_hosts_find_the_nodes_that_live() {
    warren_testkit::raise_descriptor_limit();
    let (one, two, hole, dead) = (rabbit::shared(), rabbit::exclusive(), Hole::new(), free_port());
    let [first, second, third] = ["first", "second", "third"].map(unique);
    one.add_vhost(&first);
    two.add_vhost(&second);
    two.add_vhost(&third);
    let warren = Warren::start_file(&format!(
        "[proxy]\nworkers = 2\n{LISTENER}{}{}{}{}{}{}{}{}{}{}",
        backend("one", one.port()),
        backend("two", two.port()),
        backend("dead", dead),
        backend("hole", hole.port()),
        farm("of-one", &["one"], ""),
        farm("of-two", &["two"], ""),
        farm("of-three", &["dead", "hole", "two"], ""),
        route(&first, "of-one"),
        route(&second, "of-two"),
        route(&third, "of-three"),
    ));
    let address = warren.listener(0);
    let clients: Vec<_> = std::thread::scope(|scope| {
        let vhosts = [&first, &second, &third].into_iter().cycle().take(300);
        let threads: Vec<_> = vhosts.map(|vhost| scope.spawn(move || client(address, vhost))).collect();
        threads.into_iter().map(|t| t.join().expect("every client is let in")).collect()
    });
    let slowest = clients.iter().map(|(_, took)| *took).max().expect("300 of them");
    assert!(slowest < Duration::from_secs(6), "the slowest took {slowest:?}");
    assert_eq!((queues(one, &first), queues(&two, &second), queues(&two, &third)), (100, 100, 100));
    let log = warren.log();
    for told in ["try 1 of 3: ", "try 2 of 3: ", "; two is next"] {
        assert!(log.contains(told), "{told} is not in the log");
    }
    // A virtual host that nobody serves.
    let refused = Peer::try_connect(address, &Handshake::on("fourth")).expect_err("no route");
    let closed = refused.closed();
    assert_eq!(
        (closed.code, closed.text.as_str()),
        (506, "RESOURCE_ERROR - No known broker mapping for vhost fourth")
    );
    clients.into_iter().for_each(|(peer, _)| peer.close());
    warren.stop();
    one.delete_vhost(&first);
    two.delete_vhost(&second);
    two.delete_vhost(&third);
}

#[test]
fn when_one_node_of_two_goes_its_sessions_go_on_with_the_other() {
    let (stays, goes) = (rabbit::shared(), rabbit::exclusive());
    let vhost = unique("farm");
    for node in [stays, &*goes] {
        node.add_vhost(&vhost);
    }
    let warren = Warren::start_file(&format!(
        "[proxy]\nworkers = 2\n{LISTENER}{}{}{}{}",
        backend("stays", stays.port()),
        backend("goes", goes.port()),
        farm("both", &["stays", "goes"], "health_check = { interval = \"1s\" }"),
        route(&vhost, "both"),
    ));
    let durable = queue::Declare { queue: b"work", durable: true, ..DECLARE };
    let mut clients: Vec<Peer> = (0..10)
        .map(|_| {
            let mut peer = Peer::connect_with(warren.listener(0), &Handshake::on(&vhost));
            peer.open_channel(1);
            peer.declare_with(1, &durable);
            peer.confirm_select(1);
            peer
        })
        .collect();
    let sessions = |name: &str| warren.metric_with("warren_backend_sessions", &[("backend", name)]);
    assert_eq!((sessions("stays"), sessions("goes")), (5.0, 5.0));
    let mut sent = 0;
    for round in 1..=20 {
        for peer in &mut clients {
            peer.publish(1, "work", b"x");
        }
        for peer in &mut clients {
            peer.expect_confirms(1, round, 1);
        }
        sent += clients.len();
        if round == 5 {
            goes.kill();
            eventually("its connections are lost", Duration::from_secs(10), || {
                warren.metric_with("warren_backend_connections", &[("backend", "goes")]) == 0.0
            });
        }
    }
    assert_eq!((sessions("stays"), sessions("goes")), (10.0, 0.0));
    // Five rounds of half of them went to the node that is gone.
    let there = u64::try_from(sent - 5 * 5).expect("few");
    eventually("all are there", Duration::from_secs(10), || {
        stays.queue(&vhost, "work").is_some_and(|q| q.ready == there)
    });
    clients.into_iter().for_each(Peer::close);
    goes.restart();
    eventually("new clients come to it again", Duration::from_secs(90), || {
        let (peer, _) = client(warren.listener(0), &vhost);
        let there = sessions("goes") > 0.0;
        peer.close();
        there
    });
    warren.stop();
    stays.delete_vhost(&vhost);
    goes.delete_vhost(&vhost);
}

#[test]
fn checks_leave_nothing_behind_at_rabbitmq() {
    let node = rabbit::exclusive();
    let warren = Warren::start_file(&format!(
        "{LISTENER}{}{}[[route]]\nfarm = \"one\"\n",
        backend("node", node.port()),
        farm("one", &["node"], "health_check = { interval = \"100ms\", timeout = \"5s\" }"),
    ));
    let before = node.counters();
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(warren.metric_with("warren_backend_up", &[("backend", "node")]), 1.0);
    let readers = || node.eval("length(rabbit_networking:connections()).");
    warren.stop();
    eventually("no connection is left", Duration::from_secs(5), || readers() == "0");
    assert_eq!(node.counters().connections_opened, before.connections_opened, "none of them came so far");
    let log = node.log();
    println!("{log}");
}
