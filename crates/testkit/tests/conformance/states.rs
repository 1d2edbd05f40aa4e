//! What depends on what the broker has: nobody can know it beforehand. Each has a virtual host of its own, since it
//! costs the connection on which Warren tries it, and others whose requests nobody knows either may be there.

use crate::cases::{Case, Section, Stage};
use crate::contents::table;
use warren_testkit::peer::{CONSUME, DECLARE};
use warren_wire::method::{basic, queue};
use warren_wire::{Method, Table};

pub(crate) const SECTION: Section = Section {
    title: "Depends on what the broker has",
    introduction: "No proxy can know these beforehand: the same method is harmless for another queue. Warren tries them on a \
                   connection in quarantine; what that costs, the offender hears as the broker says it.",
    cases: CASES,
};

const CASES: &[Case] = &[
    Case::once("`basic.get` from a stream", |s| {
        stream(s);
        let name = s.name.clone();
        s.send(Method::BasicGet(basic::Get { queue: name.as_bytes(), no_ack: true }));
    }),
    Case::once("`queue.purge` of a stream", |s| {
        stream(s);
        let name = s.name.clone();
        s.send(Method::QueuePurge(queue::Purge { queue: name.as_bytes(), no_wait: false }));
    }),
    Case::once("`basic.consume`, no-ack, from a stream", |s| {
        stream(s);
        s.peer.qos(1, 10);
        consume(s, true, Table::EMPTY);
    }),
    Case::once("`basic.consume` from a stream without a prefetch", |s| {
        stream(s);
        consume(s, false, Table::EMPTY);
    }),
    Case::once("`basic.consume` from a stream with a malformed `x-stream-offset`", |s| {
        stream(s);
        s.peer.qos(1, 10);
        consume(s, false, table(b"\x0Fx-stream-offsetS\0\0\0\x04soon"));
    }),
    Case::once("`basic.consume` from a stream with an `x-stream-offset` of the wrong type", |s| {
        stream(s);
        s.peer.qos(1, 10);
        consume(s, false, table(b"\x0Fx-stream-offsett\x01"));
    }),
    Case::once("`basic.consume` from a stream behind `basic.qos` with global=true", |s| {
        stream(s);
        s.send(Method::BasicQos(basic::Qos { prefetch_size: 0, prefetch_count: 10, global: true }));
        s.peer.expect(1, basic::QOS_OK);
        consume(s, false, Table::EMPTY);
    }),
    Case::once("`basic.nack` of what a stream delivered", |s| {
        stream(s);
        s.peer.qos(1, 10);
        let name = s.name.clone();
        s.peer.open_channel(2);
        s.peer.confirm_select(2);
        s.peer.publish(2, &name, b"hello");
        s.peer.expect_confirms(2, 1, 1);
        let consume = basic::Consume {
            queue: name.as_bytes(),
            consumer_tag: b"t",
            arguments: table(b"\x0Fx-stream-offsetS\0\0\0\x05first"),
            ..CONSUME
        };
        s.peer.consume_with(1, &consume);
        s.peer.delivery(1);
        s.send(Method::BasicNack(basic::Nack { delivery_tag: 1, multiple: false, requeue: true }));
    }),
    Case::once("`basic.consume` from a quorum queue behind `basic.qos` with global=true", |s| {
        declare(s, table(b"\x0Cx-queue-typeS\0\0\0\x06quorum"));
        s.send(Method::BasicQos(basic::Qos { prefetch_size: 0, prefetch_count: 10, global: true }));
        s.peer.expect(1, basic::QOS_OK);
        consume(s, false, Table::EMPTY);
    }),
    Case::once("`queue.delete` of a quorum queue, if unused", |s| {
        declare(s, table(b"\x0Cx-queue-typeS\0\0\0\x06quorum"));
        let name = s.name.clone();
        s.send(crate::refusals::delete(name.as_bytes(), true, false));
    }),
    Case::once("`queue.delete` of a quorum queue, if empty", |s| {
        declare(s, table(b"\x0Cx-queue-typeS\0\0\0\x06quorum"));
        let name = s.name.clone();
        s.send(crate::refusals::delete(name.as_bytes(), false, true));
    }),
];

fn stream(stage: &mut Stage) {
    declare(stage, table(b"\x0Cx-queue-typeS\0\0\0\x06stream"));
}

fn declare(stage: &mut Stage, arguments: Table<'static>) {
    let name = stage.name.clone();
    stage
        .peer
        .declare_with(1, &queue::Declare { queue: name.as_bytes(), durable: true, arguments, ..DECLARE });
}

fn consume(stage: &mut Stage, no_ack: bool, arguments: Table<'_>) {
    let name = stage.name.clone();
    let consume = basic::Consume { queue: name.as_bytes(), consumer_tag: b"t", no_ack, arguments, ..CONSUME };
    stage.send(Method::BasicConsume(consume));
}
