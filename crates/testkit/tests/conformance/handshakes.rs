//! The beginning of a connection, done wrong.

use crate::cases::{Case, RAW, Section, Stage, frame};
use warren_testkit::Handshake;
use warren_testkit::peer::{DECLARE, capabilities};
use warren_wire::Method;
use warren_wire::frame::PROTOCOL_HEADER;
use warren_wire::method::connection;

pub(crate) const SECTION: Section =
    Section { title: "Handshake", introduction: "The beginning of a connection, done wrong.", cases: CASES };

const fn raw(name: &'static str, act: fn(&mut Stage)) -> Case {
    Case { kinds: RAW, ..Case::new(name, act) }
}

const REFUSED: &str =
    "RabbitMQ closes the socket without a word for it, Warren refuses it as a wrong password";
const RANGE: &str = "RabbitMQ closes the socket without a word for it; Warren says what is out of range";

const CASES: &[Case] = &[
    raw("a wrong password", |s| login(s, |h| h.password = "wrong".to_owned())),
    raw("a wrong password, from a client that did not announce authentication_failure_close", |s| {
        login(s, |h| {
            h.password = "wrong".to_owned();
            h.properties = capabilities(&[]);
        });
    }),
    raw("an unknown user", |s| login(s, |h| h.user = "nobody".to_owned())),
    raw("an unknown mechanism", |s| login(s, |h| h.mechanism = "NONSENSE".to_owned())),
    raw("a PLAIN response that cannot be read", |s| login(s, |h| h.response = Some(b"nonsense".to_vec())))
        .differs(REFUSED),
    raw("an empty response", |s| login(s, |h| h.response = Some(Vec::new()))).differs(REFUSED),
    raw("a virtual host that is not there", |s| {
        start(s, |_| {});
        tune_ok(s, 2047, 131_072);
        open(s, b"nowhere");
    }),
    raw("a virtual host that is not UTF-8", |s| {
        start(s, |_| {});
        tune_ok(s, 2047, 131_072);
        open(s, &[0xFF, 0xFE]);
    }),
    raw("tune-ok with a frame_max above the broker's", |s| {
        start(s, |_| {});
        tune_ok(s, 2047, 1 << 30);
    })
    .differs(RANGE),
    raw("tune-ok with a frame_max below 4096", |s| {
        start(s, |_| {});
        tune_ok(s, 2047, 100);
    })
    .differs(RANGE),
    raw("tune-ok with a channel_max above the broker's", |s| {
        start(s, |_| {});
        tune_ok(s, 65535, 131_072);
    })
    .differs(RANGE),
    raw("start-ok with a malformed table", |s| {
        s.peer.send_bytes(&PROTOCOL_HEADER);
        s.peer.read_start().expect("a start");
        s.bytes(&frame(1, 0, &[0, 10, 0, 11, 0, 0, 0, 3, 1, b'a', b'?', 5, b'P', b'L', b'A', b'I', b'N']));
    }),
    raw("an unknown method instead of start-ok", |s| {
        s.peer.send_bytes(&PROTOCOL_HEADER);
        s.peer.read_start().expect("a start");
        s.bytes(&frame(1, 0, &[0, 99, 0, 11]));
    }),
    raw("open instead of start-ok", |s| {
        s.peer.send_bytes(&PROTOCOL_HEADER);
        s.peer.read_start().expect("a start");
        open(s, b"/");
    }),
    raw("`queue.declare` instead of start-ok", |s| {
        s.peer.send_bytes(&PROTOCOL_HEADER);
        s.peer.read_start().expect("a start");
        s.peer.send(1, &Method::QueueDeclare(DECLARE));
    }),
    raw("a body instead of start-ok", |s| {
        s.peer.send_bytes(&PROTOCOL_HEADER);
        s.peer.read_start().expect("a start");
        s.bytes(&frame(3, 1, b"x"));
    }),
    raw("a frame of 1 MB instead of start-ok", |s| {
        s.peer.send_bytes(&PROTOCOL_HEADER);
        s.peer.read_start().expect("a start");
        s.bytes(&frame(1, 0, &vec![0; 1_000_000]));
    }),
    raw("`channel.open` before open", |s| {
        start(s, |_| {});
        s.peer.send(1, &Method::ChannelOpen);
    }),
    raw("tune-ok twice", |s| {
        start(s, |_| {});
        tune_ok(s, 2047, 131_072);
        tune_ok(s, 2047, 131_072);
    }),
    raw("close instead of start-ok", |s| {
        s.peer.send_bytes(&PROTOCOL_HEADER);
        s.peer.read_start().expect("a start");
        let close = connection::Close { reply_code: 200, reply_text: b"bye", class_id: 0, method_id: 0 };
        s.peer.send(0, &Method::ConnectionClose(close));
        s.peer.finish_writing();
    })
    .differs("Warren answers a close at any time"),
];

fn start(stage: &mut Stage, change: fn(&mut Handshake)) {
    let mut handshake = Handshake::on(&stage.vhost);
    change(&mut handshake);
    stage.peer.send_bytes(&PROTOCOL_HEADER);
    stage.peer.read_start().expect("a start");
    stage.peer.send_start_ok(&handshake);
    stage.peer.expect(0, connection::TUNE);
}

fn login(stage: &mut Stage, change: fn(&mut Handshake)) {
    let mut handshake = Handshake::on(&stage.vhost);
    change(&mut handshake);
    stage.peer.send_bytes(&PROTOCOL_HEADER);
    stage.peer.read_start().expect("a start");
    stage.peer.send_start_ok(&handshake);
}

fn tune_ok(stage: &mut Stage, channel_max: u16, frame_max: u32) {
    let tune = connection::TuneOk { channel_max, frame_max, heartbeat: 0 };
    stage.peer.send(0, &Method::ConnectionTuneOk(tune));
}

fn open(stage: &mut Stage, virtual_host: &[u8]) {
    stage.peer.send(0, &Method::ConnectionOpen(connection::Open { virtual_host }));
}
