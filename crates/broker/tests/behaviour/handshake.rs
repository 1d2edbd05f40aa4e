//! From the protocol header to an open connection.

use crate::support::*;
use warren_broker::{Options, User};
use warren_wire::Method;
use warren_wire::frame::PROTOCOL_HEADER;
use warren_wire::method::connection;
use warren_wire::table::Value;

#[test]
fn everything_in_one_write() {
    let mut t = Test::new();
    let c = t.connect();
    t.log_in(c, &Login::default());
    t.send(c, 1, Method::ChannelOpen);
    t.publish_mandatory(c, 1, "", "no-such-queue", "x");
    t.expect(
        c,
        &[
            "0 connection.start",
            "0 connection.tune",
            "0 connection.open-ok",
            "1 channel.open-ok",
            "1 basic.return 312 NO_ROUTE '' 'no-such-queue' [1] x",
        ],
    );
}

#[test]
fn start_says_what_it_is() {
    let mut t = Test::model(Options::default());
    let c = t.connect();
    t.raw(c, &PROTOCOL_HEADER);
    let bytes = t.take_bytes(c);
    let Ok(Method::ConnectionStart(start)) = Method::parse(&bytes[7..bytes.len() - 1]) else {
        panic!("no connection.start");
    };
    assert_eq!(start.mechanisms, b"PLAIN AMQPLAIN");
    let product = start.server_properties.get(b"product");
    assert_eq!(product, Some(Value::Str(b"Warren embedded broker")));
    let Some(Value::Table(capabilities)) = start.server_properties.get(b"capabilities") else {
        panic!("no capabilities");
    };
    assert_eq!(capabilities.get(b"basic.nack"), Some(Value::Bool(true)));
}

#[test]
fn like_rabbitmq_says_so() {
    let mut t = Test::model(Options::like_rabbitmq());
    let c = t.connect();
    t.raw(c, &PROTOCOL_HEADER);
    let bytes = t.take_bytes(c);
    let Ok(Method::ConnectionStart(start)) = Method::parse(&bytes[7..bytes.len() - 1]) else {
        panic!("no connection.start");
    };
    let get = |key: &[u8]| start.server_properties.get(key);
    assert_eq!(get(b"product"), Some(Value::Str(b"RabbitMQ")));
    assert_eq!(get(b"version"), Some(Value::Str(b"3.10.8")));
}

#[test]
fn amqplain() {
    let mut t = Test::new();
    let c = t.connect();
    t.raw(c, &PROTOCOL_HEADER);
    let response = table(&[("LOGIN", Field::Str("guest")), ("PASSWORD", Field::Str("guest"))]);
    t.start_ok(c, "AMQPLAIN", &response, &[]);
    t.expect(c, &["0 connection.start", "0 connection.tune"]);
}

#[test]
fn another_protocol_is_told_ours() {
    let mut t = Test::new();
    let c = t.connect();
    t.raw(c, b"GET / HTTP/1.1\r\n\r\n");
    t.expect(c, &["header [0, 0, 9, 1]"]);
    assert!(t.closed(c));
}

#[test]
fn protocol_0_9_is_taken() {
    let mut t = Test::new();
    let c = t.connect();
    t.raw(c, b"AMQP\x01\x01\x00\x09");
    t.expect(c, &["0 connection.start"]);
}

#[test]
fn wrong_password_with_capability() {
    let mut t = Test::new();
    let c = t.connect();
    t.raw(c, &PROTOCOL_HEADER);
    t.start_ok(c, "PLAIN", b"\0guest\0wrong", &["authentication_failure_close"]);
    t.expect(
        c,
        &[
            "0 connection.start",
            "0 connection.close 403 ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN. \
             For details see the broker logfile. 0/0",
        ],
    );
}

#[test]
fn wrong_password_without_capability() {
    let mut t = Test::new();
    let c = t.connect();
    t.raw(c, &PROTOCOL_HEADER);
    t.start_ok(c, "PLAIN", b"\0guest\0wrong", &[]);
    t.expect(c, &["0 connection.start"]);
}

#[test]
fn refused_logins_end() {
    for response in [&b"\0guest\0wrong"[..], b"guest", b"\0guest", b"\0guest\0guest\0"] {
        let mut t = Test::model(Options::default());
        let c = t.connect();
        t.raw(c, &PROTOCOL_HEADER);
        t.start_ok(c, "PLAIN", response, &[]);
        assert!(t.closed(c), "{response:?}");
        let id = t.id(c);
        assert!(t.broker().was_reset(id));
    }
}

#[test]
fn unknown_mechanism_ends_in_silence() {
    let mut t = Test::model(Options::default());
    let c = t.connect();
    t.raw(c, &PROTOCOL_HEADER);
    t.start_ok(c, "SCRAM", b"", &["authentication_failure_close"]);
    t.expect(c, &["0 connection.start"]);
    assert!(t.closed(c));
}

#[test]
fn missing_vhost() {
    let mut t = Test::new();
    let c = t.connect();
    let login = Login { vhost: "nowhere", ..Login::default() };
    t.log_in(c, &login);
    let lines = t.take(c);
    assert_eq!(lines[2], "0 connection.close 530 NOT_ALLOWED - vhost nowhere not found 10/40");
    t.send(c, 0, Method::ConnectionCloseOk);
    assert!(t.closed(c));
}

#[test]
fn vhost_without_rights() {
    let mut options = Options::default();
    options.vhosts.push("other".to_owned());
    options.users[0].vhosts = vec!["/".to_owned()];
    options.users.push(User::new("bob", "secret"));
    let mut t = Test::model(options);
    let c = t.connect();
    t.log_in(c, &Login { vhost: "other", ..Login::default() });
    let text = "NOT_ALLOWED - access to vhost 'other' refused for user 'guest'";
    assert_eq!(t.take(c)[2], format!("0 connection.close 530 {text} 10/40"));
    let c = t.connect();
    let bob = Login { user: "bob", password: "secret", vhost: "other", ..Login::default() };
    t.log_in(c, &bob);
    assert_eq!(t.take(c)[2], "0 connection.open-ok");
}

fn tune(channel_max: u16, frame_max: u32, expected: &[&str]) {
    let mut t = Test::new();
    let c = t.connect();
    let login = Login { channel_max, frame_max, ..Login::default() };
    t.log_in(c, &login);
    assert_eq!(t.take(c)[2..], *expected);
}

/// RabbitMQ means to say 530, but does not get to it.
#[test]
fn tune_out_of_range_ends_in_silence() {
    tune(2047, 4095, &[]);
    tune(2047, 131_073, &[]);
    tune(2047, 0, &[]);
    tune(0, 131_072, &[]);
    tune(2048, 131_072, &[]);
    tune(1, 4096, &["0 connection.open-ok"]);
}

#[test]
fn channel_frame_before_open() {
    let mut t = Test::model(Options::default());
    let c = t.connect();
    t.raw(c, &PROTOCOL_HEADER);
    t.send(c, 1, Method::ChannelOpen);
    t.expect(c, &["0 connection.start"]);
    assert!(t.closed(c));
}

#[test]
fn start_ok_larger_than_the_smallest_frame() {
    let mut t = Test::model(Options::default());
    let c = t.connect();
    t.raw(c, &PROTOCOL_HEADER);
    let long = "x".repeat(5000);
    t.start_ok(c, "PLAIN", b"\0guest\0guest", &[&long[..200]]);
    t.expect(c, &["0 connection.start", "0 connection.tune"]);
    let c = t.connect();
    t.raw(c, &PROTOCOL_HEADER);
    let response = format!("\0guest\0{long}");
    t.start_ok(c, "PLAIN", response.as_bytes(), &[]);
    t.expect(c, &["0 connection.start"]);
    assert!(t.closed(c));
}

#[test]
fn second_open_and_late_tune_ok() {
    let text = "CHANNEL_ERROR - unexpected method in connection state running";
    let mut t = Test::new();
    let c = t.login();
    let open = connection::Open { virtual_host: b"/" };
    t.call(c, 0, Method::ConnectionOpen(open), &format!("0 connection.close 504 {text} 10/40"));
    let c = t.login();
    let tune_ok = connection::TuneOk { channel_max: 1, frame_max: 4096, heartbeat: 0 };
    t.call(c, 0, Method::ConnectionTuneOk(tune_ok), &format!("0 connection.close 504 {text} 10/31"));
}

#[test]
fn update_secret() {
    let mut t = Test::new();
    let c = t.login();
    let m = connection::UpdateSecret { new_secret: b"x", reason: b"y" };
    t.call(c, 0, Method::ConnectionUpdateSecret(m), "0 connection.update-secret-ok");
}

#[test]
fn close_by_the_client() {
    let mut t = Test::new();
    let c = t.channel();
    t.call(c, 0, close_connection(), "0 connection.close-ok");
}

#[test]
fn heartbeats_are_ignored() {
    let mut t = Test::new();
    let c = t.channel();
    t.raw(c, &warren_wire::frame::HEARTBEAT_FRAME);
    t.expect(c, &[] as &[&str]);
}
