//! Farms of embedded brokers: several that live, one that is dead, one that does not answer.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use warren_broker::{Options, Server};
use warren_testkit::hole::Hole;
use warren_testkit::peer::DECLARE;
use warren_testkit::{Handshake, Peer, Warren, eventually, free_port};
use warren_wire::method::queue;

/// One farm for everything. `farm`: more lines for it; `proxy`: lines for `[proxy]`.
fn one_farm(ports: &[u16], proxy: &str, farm: &str) -> Warren {
    let names: Vec<String> = (1..=ports.len()).map(|n| format!("\"rabbit{n}\"")).collect();
    let backend = |(name, port): (&String, &u16)| {
        format!("[[backend]]\nname = {name}\nhost = \"127.0.0.1\"\nport = {port}\n")
    };
    let backends: String = names.iter().zip(ports).map(backend).collect();
    Warren::start_file(&format!(
        "[proxy]\n{proxy}\n[[listener]]\naddress = \"127.0.0.1:0\"\n{backends}\
         [[farm]]\nname = \"orders\"\nbackends = [{}]\n{farm}\n[[route]]\nfarm = \"orders\"\n",
        names.join(", ")
    ))
}

/// So many clients at once. Gives them with the time that each took until it could work.
fn crowd(address: SocketAddr, clients: usize) -> Vec<(Peer, Duration)> {
    warren_testkit::raise_descriptor_limit();
    let connect = move || {
        let begun = Instant::now();
        let mut peer = Peer::connect(address);
        // On a lane of its own, so that its broker sees it.
        peer.open_channel(1);
        peer.declare_with(1, &queue::Declare { exclusive: true, ..DECLARE });
        (peer, begun.elapsed())
    };
    let threads: Vec<_> = (0..clients).map(|_| std::thread::spawn(connect)).collect();
    threads.into_iter().map(|t| t.join().expect("every client is let in")).collect()
}

fn sessions(warren: &Warren, backends: usize) -> Vec<f64> {
    let of = |n| warren.metric_with("warren_backend_sessions", &[("backend", &format!("rabbit{n}"))]);
    (1..=backends).map(of).collect()
}

#[test]
fn of_a_farm_with_one_dead_and_one_black_hole_everybody_gets_an_even_share() {
    let (one, two, hole) = (super::start(), super::start(), Hole::new());
    let ports = [one.address().port(), free_port(), hole.port(), two.address().port()];
    let warren = one_farm(&ports, "workers = 2", "");
    let clients = crowd(warren.listener(0), 300);
    let slowest = clients.iter().map(|(_, took)| *took).max().expect("300 of them");
    assert!(slowest < Duration::from_secs(6), "the slowest took {slowest:?}");
    let spread = sessions(&warren, 4);
    assert_eq!((spread[0] + spread[3], spread[1], spread[2]), (300.0, 0.0, 0.0), "{spread:?}");
    assert!((spread[0] - spread[3]).abs() <= 30.0, "{spread:?}");
    // The brokers see the same.
    let seen = [&one, &two].map(|b| b.counters().connections_opened);
    assert!(seen.iter().all(|seen| (130..=190).contains(seen)), "{seen:?}");
    let log = warren.log();
    // Those who have a node already, and need a connection there, are not tried elsewhere but go elsewhere.
    let tried = log.contains("try 1 of 4: ") && log.contains(" is next");
    assert!(tried || log.contains("; who waits for it goes to another member"), "the sequence is in the log");
    for told in ["Connection refused", "no answer within 2"] {
        assert!(log.contains(told), "{told} is not in the log");
    }
    assert_eq!(warren.metric_with("warren_backend_up", &[("backend", "rabbit3")]), 0.0);
    assert_eq!(warren.metric_with("warren_backend_up", &[("backend", "rabbit1")]), 1.0);
    drop(clients);
    warren.stop();
}

#[test]
fn three_members_get_a_third_each() {
    let brokers = [super::start(), super::start(), super::start()];
    let ports: Vec<u16> = brokers.iter().map(|b| b.address().port()).collect();
    let warren = one_farm(&ports, "workers = 2", "");
    let clients = crowd(warren.listener(0), 90);
    assert_eq!(sessions(&warren, 3), [30.0; 3]);
    drop(clients);
    eventually("nobody is left", Duration::from_secs(10), || sessions(&warren, 3) == [0.0; 3]);
    warren.stop();
}

#[test]
fn with_all_members_down_clients_hear_what_was_tried() {
    let hole = Hole::new();
    let ports = [free_port(), hole.port(), free_port()];
    let warren = one_farm(&ports, "wait_limit = \"5s\"", "");
    let begun = Instant::now();
    let refused = Peer::try_connect(warren.listener(0), &Handshake::default()).expect_err("nobody is there");
    let took = begun.elapsed();
    let closed = refused.closed();
    assert_eq!(closed.code, 320, "{closed:?}");
    for told in ["rabbit1: cannot connect to 127.0.0.1:", "rabbit2: cannot", "rabbit3: cannot connect"] {
        assert!(closed.text.contains(told), "{closed:?}");
    }
    assert!(took < Duration::from_secs(15), "it took {took:?}");
    drop(hole);
    warren.stop();
}

#[test]
fn a_member_that_says_nothing_is_given_up() {
    // The system takes its connections, and nothing else happens.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let lives = super::start();
    let ports = [mute.local_addr().expect("bound").port(), lives.address().port()];
    let warren = one_farm(&ports, "", "");
    let clients = crowd(warren.listener(0), 10);
    let slowest = clients.iter().map(|(_, took)| *took).max().expect("ten of them");
    assert!(slowest < Duration::from_secs(6), "the slowest took {slowest:?}");
    assert!(warren.log().contains("said nothing within 2s; rabbit2 is next"), "{}", warren.log());
    drop(clients);
    warren.stop();
}

#[test]
fn sessions_of_a_broker_that_goes_resume_on_another() {
    let (stays, goes) = (super::start(), super::start());
    let ports = [stays.address().port(), goes.address().port()];
    let warren = one_farm(&ports, "", "");
    let mut clients: Vec<Peer> = (0..10).map(|_| Peer::connect(warren.listener(0))).collect();
    // What a cluster would share: the same queue on both.
    for peer in &mut clients {
        peer.open_channel(1);
        peer.declare_with(1, &queue::Declare { queue: b"shared", durable: true, ..DECLARE });
        peer.confirm_select(1);
        peer.publish(1, "shared", b"before");
        peer.expect_confirms(1, 1, 1);
    }
    assert_eq!(sessions(&warren, 2), [5.0, 5.0]);
    goes.stop();
    for peer in &mut clients {
        peer.publish(1, "shared", b"after");
        peer.expect_confirms(1, 2, 1);
    }
    assert_eq!(sessions(&warren, 2), [10.0, 0.0]);
    assert_eq!(warren.metric("warren_session_moves_total"), 5.0);
    let ready = stays.with(|broker| broker.queue("/", b"shared").map(|q| q.ready));
    assert_eq!(ready, Some(15), "five before, ten after");
    clients.into_iter().for_each(Peer::close);
    warren.stop();
}

#[test]
fn checks_find_a_member_that_is_down_and_one_that_is_back() {
    let (lives, other) = (super::start(), super::start());
    let address = other.address();
    let ports = [lives.address().port(), address.port()];
    let check = "health_check = { interval = \"100ms\", timeout = \"1s\", fall = 3, rise = 2 }";
    let warren = one_farm(&ports, "", check);
    let up = |warren: &Warren| warren.metric_with("warren_backend_up", &[("backend", "rabbit2")]);
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(up(&warren), 1.0);
    other.stop();
    eventually("it is found to be down", Duration::from_secs(10), || up(&warren) == 0.0);
    let clients: Vec<Peer> = (0..4).map(|_| Peer::connect(warren.listener(0))).collect();
    assert_eq!(sessions(&warren, 2), [4.0, 0.0], "nobody is sent to it");
    let other = Server::start(Options::default(), address).expect("the port is free again");
    eventually("it is found to be back", Duration::from_secs(10), || up(&warren) == 1.0);
    let log = warren.log();
    assert_eq!(log.matches("backend rabbit2 is down: cannot connect to ").count(), 1, "{log}");
    assert_eq!(log.matches("backend rabbit2 is up again").count(), 1, "{log}");
    let more: Vec<Peer> = (0..4).map(|_| Peer::connect(warren.listener(0))).collect();
    assert_eq!(sessions(&warren, 2), [6.0, 2.0]);
    // Checks leave nothing behind: only those are there that clients use.
    eventually("no check is left", Duration::from_secs(5), || {
        warren.metric_with("warren_backend_connections", &[("backend", "rabbit2")]) <= 1.0
    });
    // Some ten checks a second; a client needs a connection at most.
    assert!(other.counters().connections_opened <= 1, "a check never opens a virtual host");
    clients.into_iter().chain(more).for_each(Peer::close);
    warren.stop();
}
