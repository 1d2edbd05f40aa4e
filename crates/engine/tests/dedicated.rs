//! Dedicated sessions: the handshake is replayed, and then bytes pass as they are, however they are cut. Nothing of Warren's
//! own comes into the middle of a frame, and whatever either side sends, the invariants hold.

mod relayed;

use proptest::prelude::*;
use warren_engine::time::Time;
use warren_engine::{Gone, Link};
use warren_wire::frame::{HEARTBEAT_FRAME, next_frame};
use warren_wire::method::{Method, connection};
use warren_wire::table::{Table, Value};

use relayed::{Stage, close, encoded, methods, start_ok, tune};

/// A stream of valid frames, none of which ends the connection.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let frame = (prop_oneof![Just(1_u8), Just(2), Just(3), Just(8)], 0..4_u16, 0..3000_usize).prop_map(
        |(kind, channel, size)| {
            // On channel 0 a method that is not the end of the connection.
            let payload = match (kind, channel) {
                (1, 0) => [&[0, 10, 0, 60][..], &vec![7; size]].concat(),
                _ => (0..size).map(|i| u8::try_from(i % 251).unwrap_or(0)).collect(),
            };
            let mut frame = vec![kind];
            frame.extend(channel.to_be_bytes());
            frame.extend(u32::try_from(payload.len()).expect("short").to_be_bytes());
            frame.extend(payload);
            frame.push(0xCE);
            frame
        },
    );
    proptest::collection::vec(frame, 1..12).prop_map(|frames| frames.concat())
}

/// Cuts octets where the numbers say.
fn cut<'a>(mut bytes: &'a [u8], cuts: &[usize]) -> Vec<&'a [u8]> {
    let mut parts = Vec::new();
    for size in cuts {
        let (part, rest) = bytes.split_at((*size).min(bytes.len()));
        parts.push(part);
        bytes = rest;
    }
    parts.push(bytes);
    parts
}

/// Whether these octets are whole frames.
fn are_whole(bytes: &[u8]) -> bool {
    let mut at = 0;
    while let Ok(Some(frame)) = next_frame(bytes, at, u32::MAX) {
        at = frame.end;
    }
    at == bytes.len()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn bytes_pass_as_they_are_however_they_are_cut(
        from_client in frames(),
        from_broker in frames(),
        cuts in proptest::collection::vec(1..4000_usize, 0..40),
    ) {
        let mut stage = Stage::running();
        let up = cut(&from_client, &cuts);
        let down = cut(&from_broker, &cuts);
        let mut sent = [0, 0];
        for step in 0..up.len().max(down.len()) {
            if let Some(part) = up.get(step) {
                stage.client(part);
                sent[0] += part.len();
            }
            if let Some(part) = down.get(step) {
                stage.broker(part);
                sent[1] += part.len();
            }
            // What has come is passed on at once, but for the header of a frame and a short method on channel 0.
            for (passed, sent) in [(&stage.to_broker, sent[0]), (&stage.to_client, sent[1])] {
                prop_assert!(passed.len() + 512 >= sent, "{} of {sent}", passed.len());
            }
        }
        prop_assert!(stage.to_broker == from_client);
        prop_assert!(stage.to_client == from_broker);
    }

    #[test]
    fn the_last_word_comes_between_frames(from_broker in frames(), at in 0..20_000_usize, how in 0..4_u8) {
        let mut stage = Stage::running();
        let (before, after) = from_broker.split_at(at.min(from_broker.len()));
        stage.broker(before);
        let passed = stage.to_client.len();
        let within = !are_whole(&stage.to_client);
        match how {
            0 => stage.shutdown(),
            1 => stage.client(b"not a frame at all"),
            2 => stage.lose_broker(),
            _ => stage.client(&[1, 0, 1, 0xFF, 0, 0, 0]),
        }
        prop_assert!(!within || stage.to_client.len() == passed, "something came into a frame");
        stage.broker(after);
        if within && how == 2 {
            prop_assert!(!stage.session_open, "a client with half a frame cannot be told more");
            return Ok(());
        }
        prop_assert!(are_whole(&stage.to_client));
        let told = methods(&stage.to_client);
        let last = told.last().expect("it was told");
        prop_assert_eq!(last, &(connection::CLOSE, if how % 2 == 1 { 501 } else { 320 }));
        // Its answer is understood, whatever it was saying before.
        if how == 0 {
            stage.client(&encoded(0, &Method::ConnectionCloseOk));
            prop_assert!(!stage.session_open);
        }
    }

    #[test]
    fn neither_side_can_break_it(
        parts in proptest::collection::vec(
            (any::<bool>(), prop_oneof![frames(), proptest::collection::vec(any::<u8>(), 0..30), closes()], 0..9_u8),
            1..20,
        ),
        cuts in proptest::collection::vec(1..600_usize, 0..6),
    ) {
        let mut stage = Stage::running();
        for (from_client, bytes, event) in parts {
            for part in cut(&bytes, &cuts) {
                if from_client { stage.client(part) } else { stage.broker(part) }
            }
            match event {
                0 => stage.time_passes(2_000),
                1 => stage.time_passes(40_000),
                2 if bytes.len() % 7 == 0 => stage.shutdown(),
                3 if bytes.len() % 5 == 0 => stage.lose_broker(),
                4 if bytes.len() % 5 == 0 => stage.lose_client(),
                _ => {}
            }
        }
        stage.lose_client();
        stage.time_passes(20_000);
        stage.time_passes(20_000);
        prop_assert!(stage.engine.is_idle(), "something is left");
    }
}

fn closes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        Just(encoded(0, &close(320, "CONNECTION_FORCED - for the test"))),
        Just(encoded(0, &Method::ConnectionCloseOk)),
    ]
}

#[test]
fn the_handshake_is_replayed_step_by_step() {
    let mut stage = Stage::greeted();
    stage.client(&encoded(0, &start_ok(b"PLAIN", b"\0me\0secret")));
    let sent = stage.to_broker.clone();
    let frame = next_frame(&sent, 0, u32::MAX).expect("a frame").expect("whole");
    let Ok(Method::ConnectionStartOk(ok)) = Method::parse(frame.payload(&sent)) else {
        panic!("no start-ok")
    };
    assert_eq!((ok.mechanism, ok.response, ok.locale), (&b"PLAIN"[..], &b"\0me\0secret"[..], &b"de_DE"[..]));
    assert_eq!(ok.client_properties.get(b"product"), Some(Value::Str(b"an application")));
    assert_eq!(ok.client_properties.get(b"warren_client"), Some(Value::Str(b"127.0.0.1:4000")));
    assert_eq!(ok.client_properties.get(b"warren_route"), Some(Value::Str(b"default")));
    assert_eq!(ok.client_properties.get(b"amqpprox_host"), Some(Value::Str(b"(:4000) proxy1:40123")));
    assert!(stage.to_client.is_empty(), "nothing is said before the broker has agreed");

    stage.broker(&encoded(0, &tune(100, 8192, 30)));
    let Some((connection::TUNE, _)) = methods(&stage.to_client).first().copied() else { panic!("no tune") };
    stage.to_broker.clear();
    let ok = connection::TuneOk { channel_max: 50, frame_max: 8192, heartbeat: 7 };
    stage.client(&encoded(0, &Method::ConnectionTuneOk(ok)));
    stage.client(&encoded(0, &Method::ConnectionOpen(connection::Open { virtual_host: b"/" })));
    let sent = stage.to_broker.clone();
    let first = next_frame(&sent, 0, u32::MAX).expect("a frame").expect("whole");
    assert_eq!(Method::parse(first.payload(&sent)), Ok(Method::ConnectionTuneOk(ok)));
    assert_eq!(methods(&sent)[1].0, connection::OPEN);
    stage.broker(&encoded(0, &Method::ConnectionOpenOk));
    assert_eq!(methods(&stage.to_client).last().map(|m| m.0), Some(connection::OPEN_OK));
    assert_eq!(stage.engine.metrics().upstream_connects, 1);
}

#[test]
fn the_broker_hears_the_name_of_the_clients_address_once_it_is_known() {
    for host in [Some("app7.example.com"), None] {
        let mut stage = Stage::greeted_and_being_named();
        assert_eq!(stage.asked_names, [std::net::IpAddr::from([127, 0, 0, 1])]);
        stage.client(&encoded(0, &start_ok(b"PLAIN", b"\0me\0secret")));
        assert!(stage.to_broker.is_empty(), "the broker waits for the name");
        stage.named(host);
        let sent = stage.to_broker.clone();
        let frame = next_frame(&sent, 0, u32::MAX).expect("a frame").expect("whole");
        let Ok(Method::ConnectionStartOk(ok)) = Method::parse(frame.payload(&sent)) else {
            panic!("no start-ok")
        };
        let told = ok.client_properties.get(b"amqpprox_client");
        let expected = if host.is_some() { "app7.example.com:4000" } else { "127.0.0.1:4000" };
        assert_eq!(told, Some(Value::Str(expected.as_bytes())));
        let host = host.map(|host| Value::Str(host.as_bytes()));
        assert_eq!(ok.client_properties.get(b"warren_client_host"), host);
        stage.named(Some("another.example.com"));
        assert_eq!(stage.to_broker, sent, "it is said once");
    }
}

#[test]
fn what_the_broker_refuses_is_passed_on_at_that_step() {
    let mut stage = Stage::greeted();
    stage.client(&encoded(0, &start_ok(b"PLAIN", b"\0me\0wrong")));
    stage.broker(&encoded(0, &close(403, "ACCESS_REFUSED - no")));
    assert_eq!(methods(&stage.to_client), [(connection::CLOSE, 403)]);

    let mut stage = Stage::running_until_open();
    stage.to_client.clear();
    stage.broker(&encoded(0, &close(530, "NOT_ALLOWED - vhost x not found")));
    assert_eq!(methods(&stage.to_client), [(connection::CLOSE, 530)]);
}

#[test]
fn a_broker_that_is_lost_while_it_is_asked_is_asked_again() {
    let mut stage = Stage::greeted();
    stage.client(&encoded(0, &start_ok(b"PLAIN", b"\0me\0secret")));
    for _ in 0..2 {
        stage.lose_broker();
        stage.connect();
    }
    assert_eq!(methods(&stage.to_client), [(connection::CLOSE, 403)], "twice is a refusal");

    let mut stage = Stage::greeted();
    stage.client(&encoded(0, &start_ok(b"PLAIN", b"\0me\0secret")));
    stage.broker(&encoded(0, &tune(0, 8192, 30)));
    stage.lose_broker();
    stage.to_broker.clear();
    let ok = connection::TuneOk { channel_max: 50, frame_max: 8192, heartbeat: 7 };
    stage.client(&encoded(0, &Method::ConnectionTuneOk(ok)));
    stage.client(&encoded(0, &Method::ConnectionOpen(connection::Open { virtual_host: b"/" })));
    stage.connect();
    stage.broker(&encoded(0, &tune(20, 4096, 30)));
    let sent = methods(&stage.to_broker);
    let steps: Vec<u32> = sent.iter().map(|m| m.0).collect();
    assert_eq!(steps, [connection::START_OK, connection::TUNE_OK, connection::OPEN]);
    stage.broker(&encoded(0, &Method::ConnectionOpenOk));
    assert_eq!(methods(&stage.to_client).last().map(|m| m.0), Some(connection::OPEN_OK));
    assert_eq!(stage.tuned(), (20, 4096, 7), "no more than this broker offers");
}

#[test]
fn close_and_close_ok_pass_and_both_sockets_end() {
    let mut stage = Stage::running();
    stage.client(&encoded(0, &close(200, "bye")));
    assert_eq!(methods(&stage.to_broker), [(connection::CLOSE, 200)]);
    stage.broker(&encoded(0, &Method::ConnectionCloseOk));
    assert_eq!(methods(&stage.to_client), [(connection::CLOSE_OK, 0)]);
    stage.time_passes(2_000);
    assert!(stage.engine.is_idle());

    let mut stage = Stage::running();
    stage.broker(&encoded(0, &close(320, "CONNECTION_FORCED - maintenance")));
    assert_eq!(methods(&stage.to_client), [(connection::CLOSE, 320)]);
    stage.client(&encoded(0, &Method::ConnectionCloseOk));
    assert_eq!(methods(&stage.to_broker), [(connection::CLOSE_OK, 0)]);
    assert!(stage.engine.is_idle());
}

#[test]
fn a_close_that_nobody_answers_has_a_deadline() {
    let mut stage = Stage::running();
    stage.broker(&encoded(0, &close(320, "CONNECTION_FORCED - maintenance")));
    stage.time_passes(3_000);
    assert!(!stage.session_open);
    assert_eq!(methods(&stage.to_broker), [(connection::CLOSE_OK, 0)], "the broker is answered all the same");

    let mut stage = Stage::running();
    stage.client(&encoded(0, &close(200, "bye")));
    for _ in 0..30 {
        stage.broker(&HEARTBEAT_FRAME);
        stage.client(&HEARTBEAT_FRAME);
        stage.time_passes(1_000);
    }
    assert!(!stage.session_open);
}

#[test]
fn a_silent_peer_is_given_up_after_two_heartbeats() {
    let mut stage = Stage::running();
    for _ in 0..5 {
        stage.time_passes(7_000);
        stage.broker(&HEARTBEAT_FRAME);
    }
    assert!(!stage.session_open, "a client that is silent");
    assert!(stage.to_client.chunks(8).all(|f| f == HEARTBEAT_FRAME), "heartbeats are the broker's own");

    let mut stage = Stage::running();
    for _ in 0..5 {
        stage.time_passes(7_000);
        stage.client(&HEARTBEAT_FRAME);
    }
    let told = methods(&stage.to_client);
    assert_eq!(told, [(connection::CLOSE, 320)], "a broker that is silent");
}

#[test]
fn a_client_that_vanishes_takes_its_connection_along() {
    let mut stage = Stage::running();
    stage.lose_client();
    assert_eq!(methods(&stage.to_broker), [(connection::CLOSE, 200)]);
    stage.broker(&encoded(0, &Method::ConnectionCloseOk));
    assert!(stage.engine.is_idle());

    let mut stage = Stage::running();
    stage.client(&[3, 0, 1, 0, 0, 4, 0, 1, 2, 3]);
    stage.lose_client();
    assert_eq!(stage.to_broker.len(), 10, "nothing may follow a part of a frame");
    assert!(stage.engine.is_idle());
}

#[test]
fn a_peer_that_does_not_read_holds_the_other_back() {
    let mut stage = Stage::running();
    stage.blocked = true;
    let body = [&[3, 0, 1, 0, 0, 0x1F, 0xF8][..], &[7; 8184], &[0xCE]].concat();
    let session = Link::Session(stage.session);
    let broker = Link::Upstream(stage.upstream());
    for _ in 0..400 {
        if stage.engine.may_read(broker) {
            stage.broker(&body);
        }
        if stage.engine.may_read(session) {
            stage.client(&body);
        }
    }
    assert!(!stage.engine.may_read(session) && !stage.engine.may_read(broker));
    assert!(stage.engine.outbox(session).len() < 2 << 20, "what waits for the client is bounded");
    assert!(stage.engine.outbox(broker).len() < 2 << 20, "what waits for the broker is bounded");
    stage.unblock();
    assert!(stage.engine.may_read(session) && stage.engine.may_read(broker));
}

#[test]
fn where_modes_are_mixed_the_broker_is_asked_at_open() {
    let mut stage = Stage::mixed();
    stage.client(&encoded(0, &start_ok(b"PLAIN", b"\0me\0secret")));
    stage.broker(&encoded(0, &tune(0, 8192, 30)));
    let ok = connection::TuneOk { channel_max: 50, frame_max: 8192, heartbeat: 7 };
    stage.client(&encoded(0, &Method::ConnectionTuneOk(ok)));
    stage.to_broker.clear();
    stage.client(&encoded(0, &Method::ConnectionOpen(connection::Open { virtual_host: b"own" })));
    stage.connect();
    stage.broker(&encoded(0, &tune(0, 8192, 30)));
    stage.broker(&encoded(0, &Method::ConnectionOpenOk));
    let steps: Vec<u32> = methods(&stage.to_broker).iter().map(|m| m.0).collect();
    assert_eq!(steps, [connection::START_OK, connection::TUNE_OK, connection::OPEN]);
    let sent = stage.to_broker.clone();
    let frame = next_frame(&sent, 0, u32::MAX).expect("a frame").expect("whole");
    let Ok(Method::ConnectionStartOk(ok)) = Method::parse(frame.payload(&sent)) else {
        panic!("no start-ok")
    };
    assert_eq!(ok.client_properties.get(b"warren_route"), Some(Value::Str(b"own")));
    assert!(Table::from_encoded(ok.client_properties.as_bytes()).is_ok());
    stage.to_broker.clear();
    stage.client(&HEARTBEAT_FRAME);
    assert_eq!(stage.to_broker, HEARTBEAT_FRAME);
}

#[test]
fn a_failed_connect_is_tried_again_until_the_wait_is_over() {
    let mut stage = Stage::greeted();
    stage.answering = false;
    stage.client(&encoded(0, &start_ok(b"PLAIN", b"\0me\0secret")));
    for _ in 0..31 {
        stage.time_passes(1_000);
    }
    assert_eq!(methods(&stage.to_client), [(connection::CLOSE, 320)]);
    let text = String::from_utf8_lossy(&stage.to_client).into_owned();
    assert!(text.contains("nobody listens"), "{text}");
    stage.engine.gone(Time(40_000), Link::Session(stage.session), Gone::Closed);
}
