//! Dedicated mode: a client has a connection to the broker for itself, and sees what it would see without Warren.
//! (`clients::` has what real clients see.)

use std::time::{Duration, Instant};

use tokio::runtime::Builder;
use warren_testkit::peer::{DECLARE, End, PUBLISH, Stage};
use warren_testkit::{Handshake, Peer, Rabbit, Through, Warren, Way, eventually, rabbit, unique};
use warren_wire::content::write_content;
use warren_wire::method::{basic, channel, connection, queue};
use warren_wire::{BasicProperties, Method};

/// For what happens at once, on a machine that compiles at the same time.
const SOON: Duration = Duration::from_secs(8);
const MIB: u64 = 1 << 20;

/// A Warren with one dedicated route to a broker, and more lines in its `[proxy]`.
fn start(broker_port: u16, proxy: &str) -> Warren {
    Warren::start_file(&format!(
        "[proxy]\n{proxy}\n\
         [[listener]]\nname = \"plain\"\naddress = \"127.0.0.1:0\"\n\
         [[backend]]\nname = \"rabbit1\"\nhost = \"127.0.0.1\"\nport = {broker_port}\n\
         [[farm]]\nname = \"main\"\nbackends = [\"rabbit1\"]\n\
         [[route]]\nname = \"own\"\nfarm = \"main\"\nmode = \"dedicated\"\n"
    ))
}

/// A way to the shared node through a Warren in dedicated mode.
pub(super) fn way(proxy: &str) -> Way {
    let rabbit = rabbit::shared();
    let vhost = unique("dedicated");
    rabbit.add_vhost(&vhost);
    Way { through: Through::Warren, rabbit, warren: Some(start(rabbit.port(), proxy)), vhost }
}

fn warren(way: &Way) -> &Warren {
    way.warren.as_ref().expect("the way leads through Warren")
}

/// Nothing is left of any session.
fn expect_nothing_left(warren: &Warren) {
    eventually("no connection is left", SOON, || {
        let left = ["warren_client_connections", "warren_upstream_connections", "warren_buffer_bytes"];
        left.iter().all(|name| warren.metric(name) == 0.0)
    });
}

/// What the node knows of its clients on a virtual host, as Erlang writes it.
fn properties(rabbit: &Rabbit, vhost: &str) -> String {
    rabbit.eval(&format!(
        "iolist_to_binary(io_lib:format(\"~0p\", [[proplists:get_value(client_properties, I) || \
         I <- rabbit_networking:connection_info_all([vhost, client_properties]), \
         proplists:get_value(vhost, I) =:= <<\"{vhost}\">>]]))."
    ))
}

#[test]
fn the_broker_knows_the_client_and_where_it_came_from() {
    let way = way("");
    let mut handshake = way.handshake();
    let forged = amq_protocol_types::AMQPValue::LongString("10.1.2.3:4".into());
    handshake.properties.insert("warren_client".into(), forged);
    handshake.heartbeat = 17;
    let mut peer = Peer::connect_with(way.address(), &handshake);
    peer.open_channel(5);
    let known = properties(way.rabbit, &way.vhost);
    let text = |key: &str, value: &str| format!("{{<<\"{key}\">>,longstr,<<\"{value}");
    for (key, value) in [
        ("product", "warren-testkit\""),
        ("warren_client", "127.0.0.1:"),
        ("warren_listener", "plain\""),
        ("warren_route", "own\""),
        ("amqpprox_client", "127.0.0.1:"),
        ("amqpprox_host", &format!("(:{}) ", warren(&way).port())),
    ] {
        assert!(known.contains(&text(key, value)), "{key} = {value} is not in {known}");
    }
    assert!(!known.contains("10.1.2.3"), "a client can forge what Warren says: {known}");
    let timeout = way.rabbit.eval(&format!(
        "iolist_to_binary(io_lib:format(\"~0p\", [[{{proplists:get_value(timeout, I), proplists:get_value(channels, I)}} || \
         I <- rabbit_networking:connection_info_all([vhost, timeout, channels]), \
         proplists:get_value(vhost, I) =:= <<\"{}\">>]])).",
        way.vhost
    ));
    assert_eq!(timeout, "[{17,1}]", "the heartbeat and the channels are the client's own");
    assert_eq!(warren(&way).metric("warren_client_connections"), 1.0);
    // The one from which the broker's properties were learned goes after five seconds.
    eventually("there is one connection to the broker", SOON, || {
        warren(&way).metric("warren_upstream_connections") == 1.0
    });
    peer.close();
    expect_nothing_left(warren(&way));
}

#[test]
fn the_broker_knows_what_the_clients_address_is_called() {
    let way = way("reverse_dns = true");
    let mut peer = way.connect_channel();
    let known = properties(way.rabbit, &way.vhost);
    let host = known
        .split("{<<\"warren_client_host\">>,longstr,<<\"")
        .nth(1)
        .and_then(|rest| rest.split('"').next());
    let host = host.unwrap_or_else(|| panic!("nothing of a host in {known}"));
    assert!(host.contains("localhost"), "{host}");
    assert!(known.contains(&format!("{{<<\"amqpprox_client\">>,longstr,<<\"{host}:")), "{known}");
    peer.declare(1, "");
    peer.close();
}

#[test]
fn what_the_broker_refuses_is_told_at_once_and_in_its_words() {
    let way = way("");
    let refused = |address, handshake: &Handshake| {
        let started = Instant::now();
        let refused = Peer::try_connect(address, handshake).expect_err("it is refused");
        assert!(started.elapsed() < SOON, "it took {:?}", started.elapsed());
        refused
    };
    for (stage, code, handshake) in [
        (Stage::StartOk, 403, way.handshake().by("guest", "wrong")),
        (Stage::Open, 530, Handshake::on(&format!("{}-missing", way.vhost))),
    ] {
        let direct = refused(way.rabbit.address(), &handshake);
        assert_eq!((direct.stage, direct.closed().code), (stage, code));
        assert_eq!(refused(way.address(), &handshake), direct);
    }
    // Who does not announce that it understands a refusal gets none.
    let mut silent = way.handshake().by("guest", "wrong");
    silent.properties = warren_testkit::peer::capabilities(&[]);
    let refused = Peer::try_connect(way.address(), &silent).expect_err("it is refused");
    assert_eq!(refused.stage, Stage::StartOk);
    assert!(matches!(refused.end, End::Eof | End::Reset), "{refused:?}");
    expect_nothing_left(warren(&way));
}

#[test]
fn without_a_broker_the_client_is_told_what_was_tried() {
    let port = warren_testkit::free_port();
    let warren = start(port, "wait_limit = \"2s\"");
    let started = Instant::now();
    let refused = Peer::try_connect(warren.address(), &Handshake::default()).expect_err("nobody is there");
    assert!(started.elapsed() < SOON, "it took {:?}", started.elapsed());
    let told = refused.closed();
    assert!(matches!(told.code, 320 | 506), "{told:?}");
    assert!(told.text.contains(&format!("127.0.0.1:{port}")) && told.text.contains("main"), "{told:?}");
    expect_nothing_left(&warren);
}

#[test]
fn a_message_of_fifty_megabytes_passes_both_ways() {
    let way = way("");
    let mut peer = way.connect_channel();
    let queue = peer.declare(1, "");
    let body: Vec<u8> = (0..=250).cycle().take(50_000_000).collect();
    peer.confirm_select(1);
    peer.publish(1, &queue, &body);
    peer.expect_confirms(1, 1, 1);
    let got = peer.get(1, &queue, true).expect("it is there");
    assert!(got.body == body, "it came out as another message");
    peer.close();
    expect_nothing_left(warren(&way));
}

/// Publishes so many messages of a size past Warren.
fn fill(way: &Way, queue: &str, count: u32, size: usize) {
    let mut observer = way.observer();
    let mut body = vec![1; size];
    for n in 0..count {
        body[..4].copy_from_slice(&n.to_be_bytes());
        observer.publish(1, queue, &body);
    }
    eventually("the backlog is there", Duration::from_secs(60), || {
        way.rabbit.queue(&way.vhost, queue).is_some_and(|q| q.ready == u64::from(count))
    });
    observer.close();
}

#[test]
fn a_client_that_does_not_read_costs_little_and_loses_nothing() {
    const COUNT: u32 = 10_000;
    let way = way("");
    let mut peer = way.connect_channel();
    let (queue, ..) = peer.declare_with(1, &queue::Declare { queue: b"backlog", ..DECLARE });
    fill(&way, &queue, COUNT, 10_000);
    let before = warren(&way).resident();
    peer.consume(1, &queue, "", true);
    let until = Instant::now() + Duration::from_secs(3);
    let mut most = 0;
    while Instant::now() < until {
        most = most.max(warren(&way).resident());
        std::thread::sleep(Duration::from_millis(50));
    }
    let grown = most.saturating_sub(before) / MIB;
    assert!(grown < 16, "{grown} MiB more than before");
    // It can say something all the same: what it sends goes on while nothing is read.
    peer.publish(1, "nowhere", b"x");
    for n in 0..COUNT {
        let message = peer.delivery(1);
        assert_eq!(message.body[..4], n.to_be_bytes(), "delivery {n} is another message");
    }
    peer.close();
}

#[test]
fn a_client_that_is_gone_leaves_nothing_behind() {
    let way = way("");
    let at_once = || {
        eventually("the broker has no connection any more", SOON, || {
            way.rabbit.connections(&way.vhost).is_empty()
        });
        expect_nothing_left(warren(&way));
    };
    // What it had sent completely is there.
    let mut peer = way.connect_channel();
    let (queue, ..) = peer.declare_with(1, &queue::Declare { queue: b"kept", ..DECLARE });
    let mut process = peer.into_process();
    process.kill().expect("it runs");
    process.wait().expect("our own process");
    at_once();
    for part in [0, 3, 40, 5000] {
        let mut peer = way.connect_channel();
        peer.publish(1, &queue, b"complete");
        let mut bytes = Vec::new();
        let publish = basic::Publish { routing_key: queue.as_bytes(), ..PUBLISH };
        Method::BasicPublish(publish).write(1, &mut bytes);
        write_content(1, &BasicProperties::default(), &[1; 100_000], 131_072, &mut bytes);
        peer.send_bytes(&bytes[..part]);
        // The end of its stream, and then nobody.
        peer.finish_writing();
        peer.expect_socket_closed();
        at_once();
    }
    eventually("its complete messages are there", SOON, || {
        way.rabbit.queue(&way.vhost, &queue).is_some_and(|q| q.ready == 4)
    });
}

#[test]
fn a_broker_that_is_gone_is_told_and_one_that_is_back_is_used() {
    let rabbit = rabbit::exclusive();
    let warren = start(rabbit.port(), "");
    let mut peers: Vec<Peer> = (0..10).map(|_| Peer::connect(warren.address())).collect();
    rabbit.kill();
    for peer in &mut peers {
        let told = peer.expect_connection_close();
        assert_eq!(told.code, 320, "{told:?}");
        assert!(told.text.contains("rabbit1"), "{told:?}");
    }
    drop(peers);
    rabbit.restart();
    eventually("clients are let in again", Duration::from_secs(20), || {
        Peer::try_connect(warren.address(), &Handshake::default()).is_ok()
    });
    // The broker's own word is passed on.
    let mut peer = Peer::connect(warren.address());
    rabbit.close_connections("/", "for the test");
    let told = peer.expect_connection_close();
    assert_eq!((told.code, told.text.as_str()), (320, "CONNECTION_FORCED - for the test"));
    expect_nothing_left(&warren);
}

#[test]
fn a_broker_that_is_silent_is_noticed_by_heartbeats() {
    let rabbit = rabbit::exclusive();
    let warren = start(rabbit.port(), "");
    let handshake = Handshake { heartbeat: 1, ..Handshake::default() };
    let mut peer = Peer::connect_with(warren.address(), &handshake);
    let alive = Instant::now();
    while alive.elapsed() < Duration::from_secs(4) {
        peer.send_heartbeat();
        peer.expect_quiet(Duration::from_millis(400));
    }
    assert!(peer.heartbeats() >= 3, "the broker's heartbeats are passed on");
    rabbit.freeze();
    let frozen = Instant::now();
    let told = loop {
        peer.send_heartbeat();
        match peer.try_next(0, Duration::from_millis(300)) {
            Ok(None) if frozen.elapsed() < SOON => {}
            Err(End::Closed(told)) => break told,
            other => panic!("{other:?} after {:?}", frozen.elapsed()),
        }
    };
    rabbit.thaw();
    assert_eq!(told.code, 320, "{told:?}");
    assert!(told.text.contains("heartbeat"), "{told:?}");
    // And a client that is silent takes its connection along.
    let _silent = Peer::connect_with(warren.address(), &handshake);
    expect_nothing_left(&warren);
}

#[test]
fn a_graceful_stop_comes_between_frames() {
    for round in 0..5 {
        let mut way = way("");
        let mut peer = way.connect_channel();
        let (queue, ..) = peer.declare_with(1, &queue::Declare { queue: b"backlog", ..DECLARE });
        fill(&way, &queue, 40, 1_000_000);
        peer.consume(1, &queue, "", true);
        let mut sender = way.connect_channel();
        let mut warren = way.warren.take().expect("the way leads through Warren");
        let mut body = Vec::new();
        let publish = basic::Publish { routing_key: b"nowhere", ..PUBLISH };
        Method::BasicPublish(publish).write(1, &mut body);
        write_content(1, &BasicProperties::default(), &vec![1; 1_000_000], 131_072, &mut body);
        let stopped_at = 3 + round * 7;
        let mut frames = 0;
        let told = loop {
            if frames == stopped_at {
                sender.send_bytes(&body[..300_000]);
                warren.terminate();
            }
            frames += 1;
            match peer.try_next(1, SOON) {
                Ok(Some(_)) => {} // a whole frame, or it could not have been read
                Ok(None) => panic!("nothing comes after {frames} frames"),
                Err(end) => break end,
            }
        };
        let End::Closed(told) = told else { panic!("round {round}: {told:?} after {frames} frames") };
        assert_eq!(told.code, 320, "{told:?}");
        assert!(frames > stopped_at, "it ended by itself");
        assert_eq!(sender.expect_connection_close().code, 320);
        drop((peer, sender));
        assert_eq!(warren.wait().code(), Some(0), "{}", warren.log());
    }
}

#[test]
fn a_handshake_that_stalls_is_ended_on_both_sides() {
    let way = way("handshake_timeout = \"1s\"");
    for steps in 0..4 {
        let mut peer = Peer::raw(way.address());
        if steps > 0 {
            peer.send_bytes(&warren_wire::frame::PROTOCOL_HEADER);
            peer.read_start().expect("it is greeted");
        }
        if steps > 1 {
            peer.send_start_ok(&way.handshake());
            peer.expect(0, connection::TUNE);
            assert!(warren(&way).metric("warren_upstream_connections") >= 1.0, "its broker waits for it");
        }
        if steps > 2 {
            let ok = connection::TuneOk { channel_max: 2047, frame_max: 131_072, heartbeat: 0 };
            peer.send(0, &Method::ConnectionTuneOk(ok));
        }
        assert!(peer.end_within(SOON).is_some(), "it may stall for ever after {steps} steps");
        expect_nothing_left(warren(&way));
    }
}

#[test]
fn garbage_and_frames_that_are_too_large_are_refused() {
    let way = way("");
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &[1, 0, 1, 0xFF, 0, 0, 0]] {
        let mut peer = way.connect_channel();
        peer.send_bytes(bytes);
        assert_eq!(peer.expect_connection_close().code, 501);
        expect_nothing_left(warren(&way));
    }
    // What is wrong inside of frames is the broker's to say.
    let mut peer = way.connect_channel();
    peer.send(1, &Method::ChannelOpen);
    let told = peer.expect_connection_close();
    assert_eq!((told.code, told.class, told.method), (504, 20, 10));
    assert!(told.text.contains("second 'channel.open' seen"), "{told:?}");
    // As are errors that concern a channel only.
    let mut peer = way.connect_channel();
    peer.publish(1, "x", b"fine");
    let publish = basic::Publish { exchange: b"nowhere", ..PUBLISH };
    let bytes = peer.encode_publish(1, &publish, &BasicProperties::default(), b"x");
    peer.send_bytes(&bytes);
    assert_eq!(peer.expect_channel_close(1).code, 404);
    peer.call(2, &Method::ChannelOpen, channel::OPEN_OK);
    peer.close();
}

#[test]
fn two_thousand_idle_sessions_take_little_memory() {
    const SESSIONS: usize = 2_000;
    warren_testkit::raise_descriptor_limit();
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let broker =
        warren_broker::Server::start(warren_broker::Options::default(), address).expect("a free port");
    let warren = start(broker.address().port(), "workers = 2");
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    // What the first session needs, all have: it is no part of what each of them takes.
    Peer::connect(warren.address()).close();
    expect_nothing_left(&warren);
    let before = warren.resident();
    let clients = super::many::connect_many(&runtime, SESSIONS, warren.address(), "/");
    assert_eq!(warren.metric("warren_client_connections"), SESSIONS as f64);
    eventually("each has a connection to the broker", SOON, || {
        warren.metric("warren_upstream_connections") == SESSIONS as f64
    });
    let each = || warren.resident().saturating_sub(before) / SESSIONS as u64;
    // Buffers go back; what is given back to the system follows in a moment.
    eventually("each takes 6 KiB at most", Duration::from_secs(30), || each() <= 6 * 1024);
    println!("{SESSIONS} idle dedicated sessions: {} octets each", each());
    drop(clients);
    expect_nothing_left(&warren);
}
