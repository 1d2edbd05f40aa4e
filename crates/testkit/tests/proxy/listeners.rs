//! TLS towards clients: who gets in, by what name, how it ends for whom it does not fit, and what a crowd that stalls costs.

use crate::edge::{NAME, Papers, ROUTE, base, enter, listener, logs, try_enter};
use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};
use warren_testkit::certificates::client;
use warren_testkit::clients::pika_over_tls;
use warren_testkit::peer::End;
use warren_testkit::{Handshake, Peer, Warren, eventually, rabbit, unique};
use warren_wire::frame::PROTOCOL_HEADER;

fn messages(peer: &mut Peer) {
    peer.open_channel(1);
    let queue = peer.declare(1, "");
    peer.confirm_select(1);
    let large: Vec<u8> = (0..3_u32 << 20).map(|i| (i % 251) as u8).collect();
    for n in 0..100_u32 {
        peer.publish(1, &queue, &n.to_be_bytes());
    }
    peer.publish(1, &queue, &large);
    peer.expect_confirms(1, 1, 101);
    peer.consume(1, &queue, "", true);
    for n in 0..100_u32 {
        assert_eq!(peer.delivery(1).body, n.to_be_bytes());
    }
    assert!(peer.delivery(1).body == large, "3 MiB arrive as they were");
}

#[test]
fn both_versions_of_tls_are_spoken_whichever_worker_serves() {
    let papers = Papers::new();
    let tls = format!("tls = {}", papers.table(""));
    let rabbit = rabbit::shared();
    let text = base(rabbit.port(), "").replace("workers = 1", "workers = 2");
    let warren = Warren::start_file(&format!("{text}{}{ROUTE}", listener("secure", &tls)));
    let mut peers = Vec::new();
    let vhosts: Vec<String> = (0..3).map(|_| unique("secure")).collect();
    vhosts.iter().for_each(|vhost| rabbit.add_vhost(vhost));
    for (version, name) in [(&rustls::version::TLS12, "TLSv1_2"), (&rustls::version::TLS13, "TLSv1_3")] {
        let config = client(&papers.authority, None, &[version]);
        for vhost in vhosts.iter().chain(&vhosts) {
            let mut peer = enter(&warren, &config, &Handshake::on(vhost));
            assert_eq!(peer.spoken().map(|(version, _)| version).as_deref(), Some(name));
            messages(&mut peer);
            peers.push(peer);
        }
    }
    // Each of twelve clients came to either worker, and three virtual hosts belong to one worker each.
    assert!(warren.metric("warren_hand_offs_total") > 0.0, "no session went from one worker to another");
    peers.iter_mut().for_each(messages_again);
    peers.into_iter().for_each(Peer::close);
    warren.stop();
    vhosts.iter().for_each(|vhost| rabbit.delete_vhost(vhost));
}

fn messages_again(peer: &mut Peer) {
    peer.open_channel(2);
    let queue = peer.declare(2, "");
    peer.publish(2, &queue, b"again");
    peer.consume(2, &queue, "", true);
    assert_eq!(peer.delivery(2).body, b"again");
}

#[test]
fn pika_works_over_tls() {
    let papers = Papers::new();
    let tls = format!("tls = {}", papers.table(""));
    let text = base(rabbit::shared().port(), "");
    let warren = Warren::start_file(&format!("{text}{}{ROUTE}", listener("secure", &tls)));
    assert_eq!(pika_over_tls(warren.listener(0), "/", &papers.authority.file(), None), "0123456789");
    warren.stop();
}

#[test]
fn versions_and_ciphers_can_be_chosen() {
    let papers = Papers::new();
    let old = format!(
        "tls = {}",
        papers.table("versions = [\"1.2\"], ciphers = [\"ECDHE-ECDSA-AES128-GCM-SHA256\"]")
    );
    let new = format!(
        "tls = {}",
        papers.table("versions = [\"1.3\"], ciphers = [\"tls_chacha20_poly1305_sha256\"]")
    );
    let text = base(rabbit::shared().port(), "");
    let listeners = listener("old", &old) + &listener("new", &new);
    let warren = Warren::start_file(&format!("{text}{listeners}{ROUTE}"));
    let spoken = |number: usize, config| {
        let peer = try_enter(&warren, number, config, &Handshake::default())?;
        Ok::<_, String>(peer.spoken().expect("TLS").1)
    };
    let (only_12, only_13) = (
        client(&papers.authority, None, &[&rustls::version::TLS12]),
        client(&papers.authority, None, &[&rustls::version::TLS13]),
    );
    let any = papers.client();
    assert_eq!(spoken(0, &any).as_deref(), Ok("TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"));
    assert_eq!(spoken(1, &any).as_deref(), Ok("TLS13_CHACHA20_POLY1305_SHA256"));
    assert!(spoken(0, &only_13).is_err_and(|e| e.contains("ProtocolVersion")));
    assert!(spoken(1, &only_12).is_err_and(|e| e.contains("ProtocolVersion")));
    logs(&warren, &["client refused", "TLS handshake failed", "127.0.0.1"]);
    warren.stop();
}

#[test]
fn the_name_of_the_handshake_chooses_the_farm() {
    let papers = Papers::new();
    let rabbit = rabbit::shared();
    let (one, other) = (unique("sni"), unique("sni"));
    for vhost in [&one, &other] {
        rabbit.add_vhost(vhost);
    }
    let tls = format!("tls = {}", papers.table(""));
    let text = base(rabbit.port(), "")
        + "[[farm]]\nname = \"second\"\nbackends = [\"node\"]\n"
        + &listener("secure", &tls)
        + &format!("[[route]]\nsni = \"a.*\"\nfarm = \"main\"\nupstream_vhost = {one:?}\n")
        + &format!("[[route]]\nsni = \"B.example\"\nfarm = \"second\"\nupstream_vhost = {other:?}\n");
    let warren = Warren::start_file(&text);
    let enter = |name: &str| {
        let mut peer = Peer::try_tls(warren.listener(0), &papers.client(), name, b"").expect("TLS");
        peer.shake_hands(&Handshake::default()).map(|()| peer)
    };
    let a = enter("a.example").expect("a route");
    eventually("the first farm has it", Duration::from_secs(10), || rabbit.connections(&one).len() == 1);
    assert!(rabbit.connections(&other).is_empty());
    let b = enter("b.example").expect("a route");
    eventually("the second farm has it", Duration::from_secs(10), || rabbit.connections(&other).len() == 1);
    assert_eq!(rabbit.connections(&one).len(), 1);
    for nameless in [NAME, "127.0.0.1"] {
        let refused = enter(nameless).expect_err("no route");
        assert_eq!(refused.closed().code, 506, "{refused:?}");
        assert!(refused.closed().text.contains("No known broker mapping for vhost /"), "{refused:?}");
    }
    a.close();
    b.close();
    warren.stop();
    for vhost in [&one, &other] {
        rabbit.delete_vhost(vhost);
    }
}

#[test]
fn who_speaks_something_else_is_told_or_ended_at_once() {
    let papers = Papers::new();
    let tls = format!("tls = {}", papers.table(""));
    let text = base(rabbit::shared().port(), "") + &listener("secure", &tls) + &listener("plain", "") + ROUTE;
    let warren = Warren::start_file(&text);
    let started = Instant::now();
    let mut plain = Peer::raw(warren.listener(0));
    plain.send_bytes(&PROTOCOL_HEADER);
    let mut answer = Vec::new();
    let mut socket = TcpStream::connect(warren.listener(0)).expect("it listens");
    std::io::Write::write_all(&mut socket, &PROTOCOL_HEADER).expect("it is open");
    // An alert, which is no AMQP, and the end.
    let _ = socket.read_to_end(&mut answer);
    assert!(answer.is_empty() || answer[0] == 21, "{answer:?}");
    logs(&warren, &["client refused: TLS handshake failed"]);
    let refused = Peer::try_tls(warren.listener(1), &papers.client(), NAME, b"").expect_err("no TLS there");
    assert!(
        !matches!(refused.kind(), std::io::ErrorKind::TimedOut | std::io::ErrorKind::WouldBlock),
        "{refused}"
    );
    logs(&warren, &["client gone", "TLS, where plain AMQP is spoken"]);
    assert!(started.elapsed() < Duration::from_secs(9), "not at once, but when time was over");
    // The end in the middle of a handshake.
    drop(TcpStream::connect(warren.listener(0)).expect("it listens"));
    logs(&warren, &["client refused: TLS handshake failed", "it ended in the middle"]);
    warren.stop();
}

#[test]
fn one_listener_for_both_kinds_of_addresses() {
    let papers = Papers::new();
    let tls = format!("[[listener]]\naddress = \"[::]:0\"\ntls = {}\n", papers.table(""));
    let warren = Warren::start_file(&(base(rabbit::shared().port(), "") + &tls + ROUTE));
    let port = warren.listener(0).port();
    assert!(warren.listener(0).is_ipv6());
    for host in ["127.0.0.1", "::1"] {
        let address = SocketAddr::new(host.parse().expect("an address"), port);
        let mut peer = Peer::try_tls(address, &papers.client(), NAME, b"").expect("TLS");
        peer.shake_hands(&Handshake::default()).expect("let in");
        let own = peer.local_address().to_string();
        assert!(own.starts_with(if host == "::1" { "[::1]:" } else { "127.0.0.1:" }), "{own}");
        logs(&warren, &["client connected", &format!("peer={own}")]);
    }
    warren.stop();
}

const STALLED: usize = 1_000;

#[test]
fn handshakes_that_stall_cost_little_and_end() {
    warren_testkit::raise_descriptor_limit();
    let papers = Papers::new();
    let tls = format!("tls = {}", papers.table(""));
    let text = base(rabbit::shared().port(), "").replace("[proxy]", "[proxy]\nhandshake_timeout = \"8s\"");
    let warren = Warren::start_file(&(text + &listener("secure", &tls) + ROUTE));
    let config = papers.client();
    let mut inside = enter(&warren, &config, &Handshake::default());
    let (memory, descriptors) = (warren.resident(), warren.descriptors());
    // Half of them say nothing; the others announce 16,000 octets and send a few.
    let begun = Instant::now();
    let mut stalled: Vec<TcpStream> = (0..STALLED)
        .map(|n| {
            let mut stream = TcpStream::connect(warren.listener(0)).expect("it listens");
            if n % 2 == 0 {
                let begin = [&[0x16, 3, 1, 0x3E, 0x80, 1, 0, 0x3E, 0x7C, 3, 3][..], &[7; 300]].concat();
                std::io::Write::write_all(&mut stream, &begin).expect("it is open");
            }
            stream
        })
        .collect();
    let most = || warren.metric("warren_client_handshakes");
    eventually("all are counted, if none has ended yet", Duration::from_secs(10), || {
        most() >= STALLED as f64 || begun.elapsed() > Duration::from_secs(8)
    });
    let each = warren.resident().saturating_sub(memory) / STALLED as u64;
    println!("{each} octets of resident memory for each handshake that stalls");
    assert!(each < 10 * 1024, "{each} octets for each");
    // Others work and come in meanwhile.
    messages(&mut inside);
    enter(&warren, &config, &Handshake::default()).close();
    eventually("they are ended", Duration::from_secs(30), || most() == 0.0);
    for stream in &mut stalled {
        stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a socket");
        assert!(matches!(stream.read(&mut [0; 100]), Ok(0) | Err(_)), "an answer");
    }
    eventually("their descriptors are closed", Duration::from_secs(10), || {
        warren.descriptors() <= descriptors + 2
    });
    logs(&warren, &["client refused: TLS was not established within 8s"]);
    inside.close();
    warren.stop();
}

#[test]
fn handshakes_that_stall_make_room_for_others() {
    let papers = Papers::new();
    let tls = format!("tls = {}", papers.table(""));
    let limits = "[proxy]\nhandshakes = 20\ncrowded_timeout = \"1s\"\nhandshake_timeout = \"60s\"";
    let text = base(rabbit::shared().port(), "").replace("[proxy]", limits);
    let warren = Warren::start_file(&(text + &listener("secure", &tls) + ROUTE));
    let _stalled: Vec<TcpStream> =
        (0..60).map(|_| TcpStream::connect(warren.listener(0)).expect("it listens")).collect();
    let started = Instant::now();
    enter(&warren, &papers.client(), &Handshake::default()).close();
    println!("let in after {:?}", started.elapsed());
    assert!(started.elapsed() < Duration::from_secs(30), "{:?}", started.elapsed());
    assert!(warren.metric("warren_client_handshakes") <= 20.0);
    warren.terminate();
    assert!(warren.log().contains("as many handshakes in progress as it may have"), "{}", warren.log());
}

#[test]
fn the_end_of_the_process_does_not_wait_for_handshakes() {
    let papers = Papers::new();
    let tls = format!("tls = {}", papers.table(""));
    let limits = "[proxy]\nhandshake_timeout = \"60s\"";
    let text = base(rabbit::shared().port(), "").replace("[proxy]", limits);
    let warren = Warren::start_file(&(text + &listener("secure", &tls) + ROUTE));
    let mut stalled = Peer::raw(warren.listener(0));
    eventually("it is counted", Duration::from_secs(10), || {
        warren.metric("warren_client_handshakes") >= 1.0 && warren.metric("warren_client_connections") >= 1.0
    });
    let started = Instant::now();
    warren.stop();
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
    assert!(matches!(stalled.expect_end(Duration::from_secs(5)), End::Eof | End::Reset));
}
