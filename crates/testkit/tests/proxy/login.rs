//! Handshakes: who may come in, what those hear who may not, and heartbeats.

use std::thread::sleep;
use std::time::{Duration, Instant};
use warren_testkit::peer::{End, Refused, Stage, capabilities};
use warren_testkit::{Handshake, Peer, both_ways, both_ways_with, same_both_ways, unique};
use warren_wire::Method;
use warren_wire::Value;
use warren_wire::frame::PROTOCOL_HEADER;
use warren_wire::method::{channel, connection};

/// What a refused client saw, in words that can be compared.
pub(crate) fn refused(answer: Result<Peer, Refused>) -> String {
    match answer {
        Ok(_) => "let in".to_owned(),
        Err(Refused { stage, end: End::Closed(closed) }) => format!("{stage:?}: {closed:?}"),
        Err(Refused { stage, .. }) => format!("{stage:?}: socket closed"),
    }
}

#[test]
fn a_wrong_password_is_refused_at_start_ok() {
    same_both_ways(|way| {
        let wrong = way.handshake().by("guest", "wrong");
        let seen = refused(Peer::try_connect(way.address(), &wrong));
        assert!(
            seen.starts_with("StartOk: Closed { code: 403, text: \"ACCESS_REFUSED - Login was refused"),
            "{seen}"
        );
        // A success before it, with the right password, must not open the door for the wrong one.
        way.connect().close();
        let again = refused(Peer::try_connect(way.address(), &wrong));
        let nobody = way.handshake().by("nobody", "guest");
        vec![seen, again, refused(Peer::try_connect(way.address(), &nobody))]
    });
}

#[test]
fn a_wrong_password_closes_the_socket_of_clients_that_do_not_know_the_close() {
    both_ways(|way| {
        let properties = capabilities(&["basic.nack"]);
        let wrong = Handshake { properties, ..way.handshake().by("guest", "wrong") };
        let answer = Peer::try_connect(way.address(), &wrong).map(|_| ());
        let Err(Refused { stage: Stage::StartOk, end: End::Eof | End::Reset }) = answer else {
            panic!("expected the socket to be closed, got {answer:?}");
        };
    });
}

#[test]
fn a_virtual_host_that_is_not_there_or_not_allowed_is_refused_at_open() {
    same_both_ways(|way| {
        let user = format!("user-of-{}", way.vhost);
        way.rabbit.add_user(&user, "secret");
        let missing = Handshake::on("no-such-virtual-host");
        let missing = refused(Peer::try_connect(way.address(), &missing));
        assert!(missing.starts_with("Open: Closed { code: 530, text: \"NOT_ALLOWED"), "{missing}");
        let forbidden = way.handshake().by(&user, "secret");
        let forbidden = refused(Peer::try_connect(way.address(), &forbidden));
        assert!(forbidden.starts_with("Open: Closed { code: 530, text: \"NOT_ALLOWED"), "{forbidden}");
        way.rabbit.delete_user(&user);
        vec![missing, forbidden]
    });
}

/// RabbitMQ closes the socket without a word; Warren may say more, but lets nobody in and breaks nothing.
#[test]
fn an_unknown_mechanism_and_a_broken_response_are_refused() {
    both_ways(|way| {
        let mut bystander = way.connect_channel();
        let unknown = Handshake { mechanism: "NO-SUCH".to_owned(), ..way.handshake() };
        let broken = Handshake { response: Some(b"no separators".to_vec()), ..way.handshake() };
        for handshake in [unknown, broken] {
            let seen = refused(Peer::try_connect(way.address(), &handshake));
            assert!(seen.starts_with("StartOk: "), "{seen}");
        }
        way.connect().close();
        bystander.declare(1, "");
        bystander.close();
    });
}

#[test]
fn a_password_that_was_changed_lets_nobody_in_after_the_time_to_live() {
    both_ways_with(&["--auth-ttl", "1"], |way| {
        let user = unique("user");
        way.rabbit.add_user(&user, "old");
        way.rabbit.set_permissions(&user, &way.vhost, [".*", ".*", ".*"]);
        let old = way.handshake().by(&user, "old");
        let new = way.handshake().by(&user, "new");
        let mut before = Peer::connect_with(way.address(), &old);
        way.rabbit.change_password(&user, "new");
        Peer::connect_with(way.address(), &new).close();
        sleep(Duration::from_millis(1500));
        let refused =
            Peer::try_connect(way.address(), &old).map(|_| ()).expect_err("the old password is no good");
        assert_eq!(refused.closed().code, 403);
        Peer::connect_with(way.address(), &new).close();
        // Who is in stays in (BROKER-FACTS: "an open connection lives on and opens channels").
        before.open_channel(1);
        before.declare(1, "");
        before.close();
        way.rabbit.delete_user(&user);
    });
}

#[test]
fn the_brokers_own_properties_reach_the_client() {
    same_both_ways(|way| {
        let peer = way.connect();
        let text = |key: &[u8]| match peer.server_properties().get(key) {
            Some(Value::Str(text)) => String::from_utf8_lossy(text).into_owned(),
            other => format!("{other:?}"),
        };
        let Some(Value::Table(capabilities)) = peer.server_properties().get(b"capabilities") else {
            panic!("no capabilities");
        };
        let mut seen = vec![text(b"product"), text(b"version")];
        for name in
            ["publisher_confirms", "basic.nack", "consumer_cancel_notify", "exchange_exchange_bindings"]
        {
            seen.push(format!("{name} {:?}", capabilities.get(name.as_bytes())));
        }
        let (channel_max, _, heartbeat) = peer.tuned();
        assert!(channel_max > 0 && heartbeat > 0, "{:?}", peer.tuned());
        seen
    });
}

#[test]
fn a_handshake_in_one_write_is_taken() {
    both_ways(|way| {
        let mut peer = Peer::raw(way.address());
        let handshake = way.handshake();
        peer.send_bytes(&PROTOCOL_HEADER);
        peer.read_start().expect("the broker begins");
        // From here on nothing is waited for, as clients in a hurry do (BROKER-FACTS: pipelining).
        peer.send_start_ok(&handshake);
        peer.send_tune_ok_and_open(&handshake);
        peer.send(1, &Method::ChannelOpen);
        peer.send(1, &Method::QueueDeclare(warren_testkit::peer::DECLARE));
        peer.expect(0, connection::TUNE);
        peer.expect(0, connection::OPEN_OK);
        peer.expect(1, channel::OPEN_OK);
        peer.expect(1, warren_wire::method::queue::DECLARE_OK);
        peer.close();
    });
}

#[test]
fn heartbeats_keep_an_idle_client_and_a_silent_one_is_dropped() {
    both_ways(|way| {
        let every_two_seconds = Handshake { heartbeat: 2, ..way.handshake() };
        let mut idle = Peer::connect_with(way.address(), &every_two_seconds);
        let mut silent = Peer::connect_with(way.address(), &every_two_seconds);
        let started = Instant::now();
        while started.elapsed() < Duration::from_secs(7) {
            idle.send_heartbeat();
            assert_eq!(idle.end_within(Duration::from_millis(900)), None, "after {:?}", started.elapsed());
        }
        assert!(idle.heartbeats() >= 3, "{} heartbeats came in 7 s", idle.heartbeats());
        idle.open_channel(1);
        idle.close();
        silent.expect_end(Duration::from_secs(60));
        assert!(silent.heartbeats() >= 1, "the silent client was sent no heartbeat");
    });
}

/// RabbitMQ waits for the client to close the socket after close-ok. Who closes it at once makes clients report an
/// error that read the end of the stream together with the close-ok (lapin does).
#[test]
fn after_close_ok_the_client_closes_the_socket() {
    both_ways(|way| {
        let mut peer = way.connect_channel();
        let close = connection::Close { reply_code: 200, reply_text: b"bye", class_id: 0, method_id: 0 };
        peer.call(0, &Method::ConnectionClose(close), connection::CLOSE_OK);
        assert_eq!(peer.end_within(Duration::from_millis(500)), None);
    });
}

#[test]
fn a_client_that_wants_no_heartbeats_is_left_alone() {
    both_ways(|way| {
        let mut peer = way.connect_channel();
        peer.expect_quiet(Duration::from_secs(4));
        assert_eq!(peer.heartbeats(), 0);
        peer.close();
    });
}
