//! Sockets that do not speak AMQP 0-9-1, or begin to and stop: what they are answered, when they are ended, and what
//! they leave behind.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};

use warren_testkit::peer::{End, Refused};
use warren_testkit::{Handshake, Peer, Through, Warren, Way, both_ways, eventually, through_warren};
use warren_wire::Method;
use warren_wire::frame::PROTOCOL_HEADER;
use warren_wire::method::connection;

use crate::bystander::Bystander;

/// "At once" on a busy machine. What must not be waited for is the end of the handshake's time, 10 s.
const AT_ONCE: Duration = Duration::from_secs(6);
/// What a flood of a few hundred sockets may leave behind: pages that the allocator keeps for the next one.
pub(crate) const LEFT_BEHIND: u64 = 4 << 20;

/// Asserts that nothing is left of clients that were there: their records, and the memory that they took.
pub(crate) fn expect_nothing_left(warren: &Warren, before: u64) {
    eventually("no handshake is left", Duration::from_secs(60), || {
        warren.metric("warren_client_handshakes") == 0.0
    });
    let mut left = 0;
    let deadline = Instant::now() + Duration::from_secs(60);
    while Instant::now() < deadline {
        left = warren.resident().saturating_sub(before);
        if left < LEFT_BEHIND {
            println!("memory: {} KiB more than before", left >> 10);
            return;
        }
        sleep(Duration::from_millis(100));
    }
    panic!("{left} octets more than before, {} in buffers", warren.metric("warren_buffer_bytes"));
}

/// Warren, a bystander on it, and how much memory it takes before the test begins.
pub(crate) fn with_bystander(way: &Way) -> (&Warren, Bystander, u64) {
    let warren = way.warren.as_ref().expect("the way leads through Warren");
    // What Warren needs once, it has after the first client.
    way.connect_channel().close();
    let bystander = Bystander::start(way.address(), &way.handshake());
    (warren, bystander, warren.resident())
}

const OTHER_PROTOCOLS: [(&str, &[u8]); 9] = [
    ("AMQP 0-8", b"AMQP\x01\x01\x08\x00"),
    ("AMQP 0-9", b"AMQP\x01\x01\x00\x09"),
    ("AMQP 0-10", b"AMQP\x01\x01\x00\x0a"),
    ("AMQP 1.0", b"AMQP\x00\x01\x00\x00"),
    ("AMQP 1.0 with SASL", b"AMQP\x03\x01\x00\x00"),
    ("AMQP 0-9-2", b"AMQP\x00\x00\x09\x02"),
    ("HTTP", b"GET / HTTP/1.1\r\nHost: here\r\n\r\n"),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    ("zeros", &[0; 64]),
];

/// RabbitMQ accepts 0-8 and 0-9, where Warren answers what it speaks: no client of today asks for them.
#[test]
fn another_protocol_is_answered_with_the_header_and_closed() {
    both_ways(|way| {
        for (name, greeting) in OTHER_PROTOCOLS {
            if way.through == Through::Nothing && ["AMQP 0-8", "AMQP 0-9"].contains(&name) {
                continue;
            }
            let started = Instant::now();
            let mut stream = TcpStream::connect(way.address()).expect("the port is open");
            stream.set_read_timeout(Some(Duration::from_secs(20))).expect("a time that is not zero");
            stream.write_all(greeting).expect("the port is open");
            let mut answer = Vec::new();
            // RabbitMQ ends it with a reset, Warren in good order; what came before counts.
            let _ = stream.read_to_end(&mut answer);
            assert_eq!(answer, PROTOCOL_HEADER, "answer to {name}");
            assert!(started.elapsed() < AT_ONCE, "{name} was ended after {:?}", started.elapsed());
        }
    });
}

#[test]
fn sockets_of_other_protocols_do_not_stay_whatever_their_clients_do() {
    through_warren(|way| {
        let (warren, bystander, before) = with_bystander(way);
        let mut streams: Vec<TcpStream> = Vec::new();
        for n in 0..400 {
            let mut stream = TcpStream::connect(way.address()).expect("the port is open");
            let (_, greeting) = OTHER_PROTOCOLS[n % OTHER_PROTOCOLS.len()];
            stream.write_all(greeting).expect("the port is open");
            streams.push(stream);
        }
        // Nobody reads and nobody closes, and half of them go on talking.
        let started = Instant::now();
        while warren.metric("warren_client_handshakes") > 0.0 {
            for stream in streams.iter_mut().step_by(2) {
                let _ = stream.write_all(b"more"); // it may be closed already
            }
            assert!(started.elapsed() < Duration::from_secs(8), "sockets stay open");
            sleep(Duration::from_millis(50));
        }
        bystander.finish();
        expect_nothing_left(warren, before);
    });
}

/// A place in the handshake where a client stops: the step, and what it could send next.
type Stop = (&'static str, fn(&mut Peer, &Handshake) -> Instant, usize);

/// Reaches a step later than the one before, so that a deadline of the whole handshake could be told from one of the
/// step.
fn dawdle() {
    sleep(Duration::from_secs(2));
}

fn greeted(peer: &mut Peer) -> Instant {
    peer.send_bytes(&PROTOCOL_HEADER);
    let began = Instant::now();
    peer.read_start().expect("it begins");
    began
}

fn logged_in(peer: &mut Peer, handshake: &Handshake) -> Instant {
    greeted(peer);
    dawdle();
    peer.send_start_ok(handshake);
    let began = Instant::now();
    peer.expect(0, connection::TUNE);
    began
}

fn tuned(peer: &mut Peer, handshake: &Handshake) -> Instant {
    logged_in(peer, handshake);
    dawdle();
    let Handshake { channel_max, frame_max, heartbeat, .. } = *handshake;
    peer.send(0, &Method::ConnectionTuneOk(connection::TuneOk { channel_max, frame_max, heartbeat }));
    Instant::now()
}

/// Where clients stop, and how many octets of what comes next they send before.
const STOPS: [Stop; 9] = [
    ("the header", |_, _| Instant::now(), 0),
    ("the header, half of it sent", |_, _| Instant::now(), 4),
    ("start-ok", |peer, _| greeted(peer), 0),
    ("start-ok, a part of its frame header sent", |peer, _| greeted(peer), 5),
    ("start-ok, half of it sent", |peer, _| greeted(peer), 60),
    ("tune-ok", logged_in, 0),
    ("tune-ok, half of it sent", logged_in, 10),
    ("open", tuned, 0),
    ("open, half of it sent", tuned, 10),
];

/// What a client sends from a step on, in octets.
fn rest(step: &str, handshake: &Handshake) -> Vec<u8> {
    let mut frames = Vec::new();
    if step.starts_with("the header") {
        return PROTOCOL_HEADER.to_vec();
    }
    if step.starts_with("start-ok") {
        // Long enough that it is not complete in time, however it trickles.
        let response = format!("\0{}\0{}", handshake.user, handshake.password);
        let ok = connection::StartOk {
            client_properties: warren_wire::Table::EMPTY,
            mechanism: b"PLAIN",
            response: response.as_bytes(),
            locale: &[b'x'; 100],
        };
        Method::ConnectionStartOk(ok).write(0, &mut frames);
    } else if step.starts_with("tune-ok") {
        let Handshake { channel_max, frame_max, heartbeat, .. } = *handshake;
        let ok = connection::TuneOk { channel_max, frame_max, heartbeat };
        Method::ConnectionTuneOk(ok).write(0, &mut frames);
    } else {
        let open = connection::Open { virtual_host: handshake.vhost.as_bytes() };
        Method::ConnectionOpen(open).write(0, &mut frames);
    }
    frames
}

/// Stops there; with `trickle` it goes on, an octet at a time and too slowly. How long it lasted since it connected and
/// since the step began, and how it ended.
fn stop_at(
    address: SocketAddr,
    handshake: &Handshake,
    stop: &Stop,
    trickle: bool,
) -> (Duration, Duration, End) {
    let (step, reach, sent) = stop;
    let connected = Instant::now();
    let mut peer = Peer::raw(address);
    let began = reach(&mut peer, handshake);
    let rest = rest(step, handshake);
    let (first, mut slow) = rest.split_at(*sent);
    peer.send_bytes(first);
    let end = loop {
        // The last octet is never sent: the step is not complete.
        let pause = Duration::from_millis(if trickle && slow.len() > 1 { 1_000 } else { 25_000 });
        if let Some(end) = peer.end_within(pause) {
            break end;
        }
        assert!(connected.elapsed() < Duration::from_secs(30), "{step} (trickle: {trickle}) never ended");
        let _ = peer.try_send_bytes(&slow[..1]); // it may just have ended
        slow = &slow[1..];
    };
    (connected.elapsed(), began.elapsed(), end)
}

/// Ten seconds for each step with Warren, and for the whole handshake with RabbitMQ. An octet per second makes it no
/// longer with either.
#[test]
fn a_handshake_that_stalls_at_any_step_is_ended() {
    both_ways(|way| {
        let beside = (way.through == Through::Warren).then(|| with_bystander(way));
        let handshake = way.handshake();
        scope(|scope| {
            for stop in &STOPS {
                for trickle in [false, true] {
                    let handshake = &handshake;
                    scope.spawn(move || {
                        let (total, step, end) = stop_at(way.address(), handshake, stop, trickle);
                        let what = format!("{} ({end:?}; trickle: {trickle}): {step:?} of {total:?}", stop.0);
                        println!("{:?}: {what}", way.through);
                        assert!(matches!(end, End::Eof | End::Reset), "{what}");
                        let lasted = if way.through == Through::Warren { step } else { total };
                        assert!(lasted > Duration::from_millis(9_500), "too early: {what}");
                        assert!(lasted < Duration::from_secs(10) + AT_ONCE, "too late: {what}");
                    });
                }
            }
        });
        if let Some((warren, bystander, before)) = beside {
            bystander.finish();
            expect_nothing_left(warren, before);
        }
    });
}

/// channel_max and frame_max that were not offered, with what is wrong with them.
const OUT_OF_RANGE: [(u16, u32, &str); 9] = [
    (0, 131_072, "channel_max = 0 (no limit) is higher than the maximum allowed value (2047)"),
    (2048, 131_072, "channel_max = 2048 is higher than the maximum allowed value (2047)"),
    (65_535, 131_072, "channel_max = 65535 is higher than the maximum allowed value (2047)"),
    (2047, 0, "frame_max = 0 is higher than the maximum allowed value (131072)"),
    (2047, 1, "frame_max = 1 is lower than the minimum allowed value (4096)"),
    (2047, 8, "frame_max = 8 is lower than the minimum allowed value (4096)"),
    (2047, 4095, "frame_max = 4095 is lower than the minimum allowed value (4096)"),
    (2047, 131_073, "frame_max = 131073 is higher than the maximum allowed value (131072)"),
    (2047, u32::MAX, "frame_max = 4294967295 is higher than the maximum allowed value (131072)"),
];

/// Sends a tune-ok and an open, and gives how that ended.
fn tune_to(way: &Way, channel_max: u16, frame_max: u32) -> Option<End> {
    let handshake = Handshake { channel_max, frame_max, ..way.handshake() };
    let mut peer = Peer::raw(way.address());
    peer.send_bytes(&PROTOCOL_HEADER);
    peer.read_start().expect("it begins");
    peer.send_start_ok(&handshake);
    peer.expect(0, connection::TUNE);
    peer.send_tune_ok_and_open(&handshake);
    match peer.try_next(0, Duration::from_secs(60)) {
        Ok(Some(frame)) if frame.is(connection::OPEN_OK) => None,
        Ok(other) => panic!("tune-ok with {channel_max}, {frame_max}: {other:?}"),
        Err(end) => Some(end),
    }
}

/// RabbitMQ resets the connection after 3 s, without a word to the client (its log has the text). Warren says what is
/// wrong, in RabbitMQ's words, and at once.
#[test]
fn a_tune_ok_out_of_range_is_refused() {
    both_ways(|way| {
        assert_eq!((way.connect().tuned().0, way.connect().tuned().1), (2047, 131_072), "what is offered");
        let beside = (way.through == Through::Warren).then(|| with_bystander(way));
        let started = Instant::now();
        scope(|scope| {
            for (channel_max, frame_max, problem) in OUT_OF_RANGE {
                scope.spawn(move || {
                    let end = tune_to(way, channel_max, frame_max).expect("it is refused");
                    match (way.through, end) {
                        (Through::Nothing, End::Eof | End::Reset) => {}
                        (Through::Warren, End::Closed(closed)) => {
                            assert_eq!(closed.code, 530);
                            assert_eq!(closed.text, format!("NOT_ALLOWED - negotiated {problem}"));
                            assert!(started.elapsed() < AT_ONCE, "after {:?}", started.elapsed());
                        }
                        (through, end) => panic!("{problem}: through {through:?} it ended with {end:?}"),
                    }
                });
            }
        });
        for (channel_max, frame_max) in [(1, 4096), (2046, 131_071), (2047, 131_072)] {
            assert_eq!(tune_to(way, channel_max, frame_max), None, "{channel_max} {frame_max}");
        }
        if let Some((warren, bystander, before)) = beside {
            // A loop or an allocation would show in a crowd of them.
            for n in 0..300 {
                let (channel_max, frame_max, _) = OUT_OF_RANGE[n % OUT_OF_RANGE.len()];
                assert!(tune_to(way, channel_max, frame_max).is_some());
            }
            bystander.finish();
            expect_nothing_left(warren, before);
        }
    });
}

/// A frame header that announces so much, and a little of what it announces.
fn announcing(kind: u8, channel: u16, size: u32) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(channel.to_be_bytes());
    bytes.extend(size.to_be_bytes());
    bytes.extend([0, 10, 0, 11]);
    bytes
}

/// RabbitMQ ends such a connection without a frame, after 3 s; Warren ends it at once. Memory is never taken for it.
#[test]
fn a_frame_header_that_announces_much_before_login_takes_no_memory() {
    both_ways(|way| {
        let beside = (way.through == Through::Warren).then(|| with_bystander(way));
        let within = if beside.is_some() { AT_ONCE } else { Duration::from_secs(15) };
        let mut peers = Vec::new();
        for (kind, channel, size) in [
            (1, 0, 1_500_000_000),
            (1, 0, u32::MAX),
            (2, 1, 1_500_000_000),
            (3, 1, 1_500_000_000),
            (8, 0, 1 << 30),
        ] {
            let crowd = if beside.is_some() { 40 } else { 1 };
            for at_tune_ok in [false, true] {
                for _ in 0..crowd {
                    let mut peer = Peer::raw(way.address());
                    peer.send_bytes(&PROTOCOL_HEADER);
                    peer.read_start().expect("it begins");
                    if at_tune_ok {
                        peer.send_start_ok(&way.handshake());
                        peer.expect(0, connection::TUNE);
                    }
                    let _ = peer.try_send_bytes(&announcing(kind, channel, size));
                    let _ = peer.try_send_bytes(&[0; 16 * 1024]); // the beginning of it
                    peers.push(peer);
                }
            }
        }
        if let Some((warren, _, before)) = &beside {
            assert!(warren.resident() < before + LEFT_BEHIND, "{} after {before}", warren.resident());
        }
        let started = Instant::now();
        for peer in &mut peers {
            let end = peer.expect_end(Duration::from_secs(60));
            assert!(matches!(end, End::Eof | End::Reset), "{end:?}");
        }
        assert!(started.elapsed() < within, "ended after {:?}", started.elapsed());
        if let Some((warren, bystander, before)) = beside {
            bystander.finish();
            expect_nothing_left(warren, before);
        }
    });
}

/// Login is no way around it: then what was negotiated counts, and the answer is RabbitMQ's.
#[test]
fn a_frame_header_that_announces_much_after_login_is_refused_by_size() {
    both_ways(|way| {
        let mut peer = way.connect();
        peer.send_bytes(&announcing(1, 0, 1_500_000_000));
        let closed = peer.expect_connection_close();
        let text = "FRAME_ERROR - type 1, all octets = <<>>: {frame_too_large,1500000000,131064}";
        assert_eq!((closed.code, closed.text.as_str()), (501, text));
    });
}

/// A start-ok may be as large as sensible ones are (tokens take a few KiB), and no larger. RabbitMQ 3.10 takes 4096
/// octets altogether.
#[test]
fn a_start_ok_has_a_largest_size() {
    through_warren(|way| {
        for (octets, is_taken) in [(3_000, true), (15_000, true), (17_000, false)] {
            let mut handshake = way.handshake();
            let text = amq_protocol_types::AMQPValue::LongString("x".repeat(octets).into());
            handshake.properties.insert("text".into(), text);
            let answer = Peer::try_connect(way.address(), &handshake).map(|_| ());
            match (is_taken, answer) {
                (true, Ok(())) | (false, Err(Refused { end: End::Eof | End::Reset, .. })) => {}
                (_, answer) => panic!("{octets} octets: {answer:?}"),
            }
        }
    });
}
