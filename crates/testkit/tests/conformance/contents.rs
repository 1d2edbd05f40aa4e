//! Contents that are not what their method or their header promised.

use crate::cases::{Case, Section, Stage, body, encoded, frame, header};
use warren_testkit::peer::{DECLARE, PUBLISH};
use warren_wire::method::{basic, channel};
use warren_wire::{BasicProperties, Method, Table};

pub(crate) const SECTION: Section = Section {
    title: "Contents",
    introduction: "What follows `basic.publish` on its channel, where it is not what was promised.",
    cases: CASES,
};

const CASES: &[Case] = &[
    Case::new("a content header of another class", |s| publishes(s, &[&header(50, 0, 1, &[0, 0])])),
    Case::new("a content header with a weight", |s| publishes(s, &[&header(60, 1, 1, &[0, 0])])),
    Case::new("a content header of four octets", |s| publishes(s, &[&frame(2, 1, &[0, 60, 0, 0])])),
    Case::new("a content header without octets", |s| publishes(s, &[&frame(2, 1, &[])])),
    Case::new("a content header without property flags", |s| publishes(s, &[&header(60, 0, 0, &[])])),
    Case::new("properties that end early", |s| publishes(s, &[&header(60, 0, 0, &[0x80, 0, 9, b'a'])])),
    Case::new("properties that end early, and a body", |s| {
        publishes(s, &[&header(60, 0, 1, &[0x80, 0, 9, b'a']), &body(b"x")]);
    }),
    Case::new("octets behind the properties", |s| publishes(s, &[&header(60, 0, 0, &[0, 0, 1, 2, 3])])),
    Case::new("property flags that announce more flags", |s| {
        publishes(s, &[&header(60, 0, 0, &[0, 1, 0, 0])]);
    }),
    Case::new("property flags without a meaning", |s| publishes(s, &[&header(60, 0, 0, &[0, 2])]))
        .differs("class basic has no such property: Warren takes it for a malformed header"),
    Case::new("a header table with an unknown type", |s| {
        publishes(s, &[&header(60, 0, 0, &[0x20, 0, 0, 0, 0, 3, 1, b'a', b'?'])]);
    }),
    Case::new("a header table that is longer than its frame", |s| {
        publishes(s, &[&header(60, 0, 0, &[0x20, 0, 0, 0, 1, 0, 1, b'a'])]);
    }),
    Case::new("a header table with NaN", |s| {
        let nan = [0x20, 0, 0, 0, 0, 11, 1, b'a', b'd', 0x7F, 0xF8, 0, 0, 0, 0, 0, 0];
        publishes(s, &[&header(60, 0, 0, &nan)]);
    }),
    Case::new("a header table nested 20,000 times", |s| publishes(s, &[&header(60, 0, 0, &nested(20_000))]))
        .differs(DEPTH),
    Case::new("a header table nested 60 times", |s| publishes(s, &[&header(60, 0, 0, &nested(60))])),
    Case::new("a content type that is not UTF-8", |s| {
        publishes(s, &[&header(60, 0, 0, &[0x80, 0, 2, 0xFF, 0xFE])]);
    }),
    Case::new("a body where the header should be", |s| publishes(s, &[&body(b"x")])),
    Case::new("a method where the header should be", |s| {
        publishes(s, &[&encoded(Method::QueueDeclare(DECLARE))]);
    }),
    Case::new("a second publish where the header should be", |s| {
        s.begin_publish();
        s.begin_publish();
    }),
    Case::new("an unknown method where the header should be", |s| {
        publishes(s, &[&crate::cases::raw_method(99, 1, &[])]);
    }),
    Case::new("`channel.close` where the header should be", |s| publishes(s, &[&close()])),
    Case::new("a method in the middle of the body", |s| {
        let declare = encoded(Method::QueueDeclare(DECLARE));
        publishes(s, &[&header(60, 0, 5, &[0, 0]), &body(b"abc"), &declare]);
    }),
    Case::new("`channel.close` in the middle of the body", |s| {
        publishes(s, &[&header(60, 0, 5, &[0, 0]), &body(b"abc"), &close()]);
    }),
    Case::new("a second header in the middle of the body", |s| {
        publishes(s, &[&header(60, 0, 5, &[0, 0]), &header(60, 0, 5, &[0, 0])]);
    }),
    Case::new("a body longer than its header said, in one frame", |s| {
        publishes(s, &[&header(60, 0, 2, &[0, 0]), &body(b"abcdef")]);
    }),
    Case::new("a body longer than its header said, in two frames", |s| {
        publishes(s, &[&header(60, 0, 4, &[0, 0]), &body(b"abc"), &body(b"def")]);
    }),
    Case::new("a body behind a content without one", |s| {
        publishes(s, &[&header(60, 0, 0, &[0, 0]), &body(b"abc")]);
    }),
    Case::new("an empty body frame behind a content without one", |s| {
        publishes(s, &[&header(60, 0, 0, &[0, 0]), &body(b"")]);
    }),
    Case::new("empty body frames between others", |s| {
        publishes(s, &[&header(60, 0, 2, &[0, 0]), &body(b""), &body(b"a"), &body(b""), &body(b"b")]);
    }),
    Case::new("a body of 2^62 octets announced", |s| publishes(s, &[&header(60, 0, 1 << 62, &[0, 0])]))
        .differs(ANNOUNCED),
    Case::new("a body of 2^64 - 1 octets announced", |s| publishes(s, &[&header(60, 0, u64::MAX, &[0, 0])]))
        .differs(ANNOUNCED),
    Case::new("heartbeats in the middle of a content", |s| {
        let beat = frame(8, 0, &[]);
        publishes(s, &[&beat, &header(60, 0, 2, &[0, 0]), &beat, &body(b"a"), &beat, &body(b"b")]);
    }),
    Case::new("a message above the broker's max_message_size", |s| {
        s.publish(PUBLISH, BasicProperties::default(), &vec![b'x'; 3_000_000]);
    }),
    Case::new("`immediate`", |s| {
        s.publish(basic::Publish { immediate: true, ..PUBLISH }, BasicProperties::default(), b"x");
    }),
    Case::new("`mandatory` and `immediate`", |s| {
        let publish = basic::Publish { mandatory: true, immediate: true, ..PUBLISH };
        s.publish(publish, BasicProperties::default(), b"x");
    }),
    Case::new("`immediate` to an exchange that is not there", |s| {
        let publish = basic::Publish { exchange: b"nowhere", immediate: true, ..PUBLISH };
        s.publish(publish, BasicProperties::default(), b"x");
    }),
    Case::new("a routing key that is not UTF-8", |s| {
        let publish = basic::Publish { routing_key: &[0xFF, 0xFE], ..PUBLISH };
        s.publish(publish, BasicProperties::default(), b"x");
    }),
    Case::new("an exchange name that is not UTF-8", |s| {
        let publish = basic::Publish { exchange: &[0xFF, 0xFE], ..PUBLISH };
        s.publish(publish, BasicProperties::default(), b"x");
    }),
    Case::new("a `CC` header that is not a list", |s| {
        let table = table(b"\x02CCS\0\0\0\x01a");
        let properties = BasicProperties { headers: Some(table), ..BasicProperties::default() };
        s.publish(PUBLISH, properties, b"x");
    }),
    Case::new("an expiration that is not a number", |s| {
        let properties = BasicProperties { expiration: Some(b"soon"), ..BasicProperties::default() };
        s.publish(PUBLISH, properties, b"x");
    }),
    Case::new("another user's name in `user_id`", |s| {
        let properties = BasicProperties { user_id: Some(b"somebody"), ..BasicProperties::default() };
        s.publish(PUBLISH, properties, b"x");
    }),
    Case::new("the user's own name in `user_id`", |s| {
        let properties = BasicProperties { user_id: Some(b"guest"), ..BasicProperties::default() };
        s.publish(PUBLISH, properties, b"x");
    }),
    Case::new("direct reply-to without its consumer", |s| {
        let properties =
            BasicProperties { reply_to: Some(b"amq.rabbitmq.reply-to"), ..BasicProperties::default() };
        s.publish(PUBLISH, properties, b"x");
    }),
];

pub(crate) const DEPTH: &str = "Warren accepts tables that are nested 64 times: each level costs it stack";
const ANNOUNCED: &str = "RabbitMQ reads it all and refuses it then (the barrier of this test comes first); Warren \
                         keeps what is not complete, and so refuses it when it is announced";

/// A table that is well formed.
pub(crate) fn table(entries: &'static [u8]) -> Table<'static> {
    Table::from_encoded(entries).expect("a table")
}

fn publishes(stage: &mut Stage, rest: &[&[u8]]) {
    stage.begin_publish();
    stage.bytes(&rest.concat());
}

fn close() -> Vec<u8> {
    let close = channel::Close { reply_code: 200, reply_text: b"bye", class_id: 0, method_id: 0 };
    encoded(Method::ChannelClose(close))
}

/// Property flags and a header table that holds a table, and so on.
pub(crate) fn nested(levels: u32) -> Vec<u8> {
    let mut table = Vec::new();
    let mut size = levels * 6;
    for _ in 0..levels {
        table.extend_from_slice(b"\0F");
        size -= 6;
        table.extend_from_slice(&size.to_be_bytes());
    }
    let mut properties = vec![0x20, 0];
    properties.extend_from_slice(&u32::try_from(table.len()).expect("few").to_be_bytes());
    properties.extend_from_slice(&table);
    properties
}
