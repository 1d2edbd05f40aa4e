//! Frames that are wrong before anybody looks into a method.

use crate::cases::{Case, PLAIN, Section, Stage, body, encoded, frame, header, raw_method};
use warren_testkit::peer::DECLARE;
use warren_wire::Method;
use warren_wire::method::{channel, queue};

pub(crate) const SECTION: Section = Section {
    title: "Frames",
    introduction: "What is wrong before anybody looks into a method.",
    cases: CASES,
};

const FRAME_TEXT: &str =
    "RabbitMQ prints the octets that it could not read, Warren says what is wrong with them";

const CASES: &[Case] = &[
    Case::new("an unknown class", |s| s.bytes(&raw_method(99, 10, &[]))),
    Case::new("an unknown method of a known class", |s| s.bytes(&raw_method(60, 250, &[]))),
    Case::new("a method frame without octets", |s| s.bytes(&frame(1, 1, &[]))),
    Case::new("a method frame of two octets", |s| s.bytes(&frame(1, 1, &[0, 60]))),
    Case::new("a frame of type 0", |s| s.bytes(&frame(0, 1, b"x"))),
    Case::new("a frame of type 4", |s| s.bytes(&frame(4, 1, b"x"))),
    Case::new("a frame of type 9", |s| s.bytes(&frame(9, 1, &[]))),
    Case::new("a frame end other than 0xCE", |s| {
        let mut bytes = encoded(Method::QueueDeclare(DECLARE));
        *bytes.last_mut().expect("a frame has an end") = 0;
        s.bytes(&bytes);
    })
    .differs(FRAME_TEXT),
    Case::new("a body frame larger than frame_max", |s| {
        s.begin_publish();
        s.bytes(&header(60, 0, 200_000, &[0, 0]));
        s.bytes(&body(&[b'x'; 200_000]));
    }),
    Case::new("a method frame larger than frame_max", |s| s.bytes(&large_declare())),
    Case::new("a header frame larger than frame_max", |s| {
        s.begin_publish();
        s.bytes(&frame(2, 1, &[0; 200_000]));
    }),
    Case::new("a frame that announces 4 GiB", |s| s.bytes(&[3, 0, 1, 255, 255, 255, 255, 1, 2])),
    Case::new("a payload 8 octets above what frame_max leaves", |s| {
        s.begin_publish();
        s.bytes(&header(60, 0, 131_072, &[0, 0]));
        s.bytes(&body(&[b'x'; 131_072]));
    }),
    Case::new("the protocol header again", |s| s.bytes(b"AMQP\0\0\x09\x01")),
    Case::new("octets of another protocol", |s| s.bytes(b"GET / HTTP/1.1\r\n\r\n")),
    Case::new("a heartbeat on channel 1", |s| s.bytes(&frame(8, 1, &[]))),
    Case::new("a heartbeat with a payload", |s| s.bytes(&frame(8, 0, b"hello"))),
    Case::new("a heartbeat on a channel that is not open", |s| s.bytes(&frame(8, 77, &[]))),
    Case::new("a content header on channel 0", |s| s.bytes(&on_channel(0, header(60, 0, 1, &[0, 0])))),
    Case::new("a body on channel 0", |s| s.bytes(&on_channel(0, body(b"x")))),
    Case::new("`queue.declare` on channel 0", |s| s.peer.send(0, &Method::QueueDeclare(DECLARE))),
    Case::new("`channel.open` on channel 0", |s| s.peer.send(0, &Method::ChannelOpen)),
    Case::new("an unknown method on channel 0", |s| s.bytes(&on_channel(0, raw_method(99, 10, &[])))),
    Case::new("`queue.declare` on a channel that is not open", |s| {
        on(s, 9, encoded(Method::QueueDeclare(DECLARE)));
    }),
    Case::new("an unknown method on a channel that is not open", |s| on(s, 9, raw_method(99, 10, &[]))),
    Case::new("a content header on a channel that is not open", |s| on(s, 9, header(60, 0, 1, &[0, 0]))),
    Case::new("a body on a channel that is not open", |s| on(s, 9, body(b"x"))),
    Case::new("`channel.close` of a channel that is not open", |s| on(s, 9, encoded(CLOSE))),
    Case::new("`channel.close-ok` on a channel that is not open", |s| {
        on(s, 9, encoded(Method::ChannelCloseOk));
    })
    .may_differ(CLOSE_OK),
    Case::new("`channel.open` with a number above channel_max", |s| {
        on(s, 2048, encoded(Method::ChannelOpen));
    })
    .answered(1),
    Case::new("`channel.open` with number 65535", |s| on(s, 65535, encoded(Method::ChannelOpen))).answered(1),
    Case {
        kinds: PLAIN,
        ..Case::new("more channels than channel_max", |s| {
            let mut bytes = Vec::new();
            for channel in 2..=2048 {
                Method::ChannelOpen.write(channel, &mut bytes);
            }
            s.bytes(&bytes);
        })
    },
    Case::new("a content header before any publish", |s| s.bytes(&header(60, 0, 1, &[0, 0]))),
    Case::new("a body before any publish", |s| s.bytes(&body(b"x"))),
    Case::new("`connection.open` again", |s| {
        let vhost = s.vhost.clone();
        let open = warren_wire::method::connection::Open { virtual_host: vhost.as_bytes() };
        s.peer.send(0, &Method::ConnectionOpen(open));
    }),
    Case::new("`connection.tune-ok` again", |s| {
        let tune = warren_wire::method::connection::TuneOk { channel_max: 10, frame_max: 4096, heartbeat: 1 };
        s.peer.send(0, &Method::ConnectionTuneOk(tune));
    }),
    Case::new("`connection.start-ok` again", |s| {
        s.peer.send_start_ok(&warren_testkit::Handshake::default());
    }),
    Case::new("`connection.open-ok`", |s| s.peer.send(0, &Method::ConnectionOpenOk)),
    Case::new("`connection.close-ok` without a close", |s| s.peer.send(0, &Method::ConnectionCloseOk)),
    Case::new("`connection.blocked`", |s| {
        let blocked = warren_wire::method::connection::Blocked { reason: b"no reason" };
        s.peer.send(0, &Method::ConnectionBlocked(blocked));
    }),
    Case::new("`connection.close` on channel 1", |s| {
        let close = warren_wire::method::connection::Close {
            reply_code: 200,
            reply_text: b"bye",
            class_id: 0,
            method_id: 0,
        };
        s.send(Method::ConnectionClose(close));
    }),
    Case::new("`connection.tune-ok` on channel 1", |s| {
        let tune = warren_wire::method::connection::TuneOk { channel_max: 10, frame_max: 4096, heartbeat: 1 };
        s.send(Method::ConnectionTuneOk(tune));
    }),
    Case::new("`connection.close`: no fields", |s| s.bytes(&on_channel(0, raw_method(10, 50, &[])))),
    Case::new("`connection.close` with a text that is not UTF-8", |s| {
        s.bytes(&on_channel(0, raw_method(10, 50, &[0, 200, 2, 0xFF, 0xFE, 0, 0, 0, 0])));
    }),
];

const CLOSE: Method<'static> =
    Method::ChannelClose(channel::Close { reply_code: 200, reply_text: b"bye", class_id: 0, method_id: 0 });

const CLOSE_OK: &str = "It may be the answer to a close that crossed the client's own";

/// A frame for another channel, which is watched then.
fn on(stage: &mut Stage, channel: u16, frame: Vec<u8>) {
    stage.channel = channel;
    stage.bytes(&on_channel(channel, frame));
}

/// A frame moved to another channel.
pub(crate) fn on_channel(channel: u16, mut frame: Vec<u8>) -> Vec<u8> {
    frame[1..3].copy_from_slice(&channel.to_be_bytes());
    frame
}

/// queue.declare with 200 kB of arguments.
fn large_declare() -> Vec<u8> {
    let mut entries = b"\x05x-bigS".to_vec();
    entries.extend_from_slice(&200_000_u32.to_be_bytes());
    entries.resize(entries.len() + 200_000, b'x');
    let arguments = warren_wire::Table::from_encoded(&entries).expect("a table");
    encoded(Method::QueueDeclare(queue::Declare { queue: b"big", arguments, ..DECLARE }))
}
