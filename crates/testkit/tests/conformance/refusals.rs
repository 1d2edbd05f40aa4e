//! What costs a client its channel and no more.

use crate::cases::{Case, Kind, Section, Stage};
use crate::contents::table;
use crate::methods::{bind, exchange_declare, publish_to};
use warren_testkit::peer::{CONSUME, DECLARE};
use warren_wire::method::{basic, confirm, exchange, queue};
use warren_wire::{BasicProperties, Method, Table};

pub(crate) const SECTION: Section = Section {
    title: "Refusals",
    introduction: "What costs a client its channel, or what one could take for a mistake.",
    cases: CASES,
};

const CASES: &[Case] = &[
    Case::new("publish to an exchange that is not there", |s| {
        s.publish(publish_to(b"nowhere"), BasicProperties::default(), b"x");
    }),
    Case::new("`mandatory` to an exchange that is not there", |s| {
        let publish = basic::Publish { mandatory: true, ..publish_to(b"nowhere") };
        s.publish(publish, BasicProperties::default(), b"x");
    }),
    Case::new("publish to an internal exchange", |s| {
        let name = s.name.clone();
        let Method::ExchangeDeclare(declare) = exchange_declare(name.as_bytes(), b"direct") else { return };
        let declare = exchange::Declare { internal: true, ..declare };
        s.peer.call(1, &Method::ExchangeDeclare(declare), exchange::DECLARE_OK);
        let publish = basic::Publish { exchange: name.as_bytes(), ..publish_to(b"") };
        s.publish(publish, BasicProperties::default(), b"x");
    }),
    Case::new("`basic.ack` of an unknown tag", |s| s.peer.ack(1, 999, false)),
    Case::new("`basic.ack` of an unknown tag, multiple", |s| s.peer.ack(1, 999, true)),
    Case::new("`basic.ack` of tag 0", |s| s.peer.ack(1, 0, false)),
    Case::new("`basic.ack` of tag 0, multiple", |s| s.peer.ack(1, 0, true)),
    Case::new("`basic.ack` of 2^64 - 1", |s| s.peer.ack(1, u64::MAX, false)),
    Case::new("`basic.nack` of an unknown tag", |s| {
        s.send(Method::BasicNack(basic::Nack { delivery_tag: 999, multiple: false, requeue: true }));
    }),
    Case::new("`basic.reject` of an unknown tag", |s| {
        s.send(Method::BasicReject(basic::Reject { delivery_tag: 999, requeue: true }));
    }),
    Case {
        kinds: &[Kind::Consumes],
        ..Case::new("`basic.ack` of the same tag twice", |s| {
            s.peer.ack(1, 1, false);
            s.peer.ack(1, 1, false);
        })
    },
    Case {
        kinds: &[Kind::Consumes],
        ..Case::new("`basic.ack` of a delivery on another channel", |s| {
            s.peer.open_channel(2);
            s.peer.ack(2, 1, false);
            s.peer.send(2, &crate::cases::flow(true));
            let frame = s.peer.next(2);
            assert!(frame.is(warren_wire::method::channel::CLOSE), "{frame:?}");
        })
    },
    Case::once("`tx.commit` without `tx.select`", |s| s.send(Method::TxCommit)),
    Case::once("`tx.rollback` without `tx.select`", |s| s.send(Method::TxRollback)),
    Case::new("`tx.select` after `confirm.select`", |s| {
        s.peer.confirm_select(1);
        s.send(Method::TxSelect);
    }),
    Case::new("`confirm.select`, no-wait, after `tx.select`", |s| {
        s.send(Method::TxSelect);
        s.send(Method::ConfirmSelect(confirm::Select { no_wait: true }));
    }),
    Case::new("`queue.declare` of a name with a prefix that is reserved", |s| {
        s.send(Method::QueueDeclare(queue::Declare { queue: b"amq.mine", ..DECLARE }));
    }),
    Case::new("`queue.declare`, passive, of a queue that is not there", |s| {
        s.send(Method::QueueDeclare(queue::Declare { queue: b"nowhere", passive: true, ..DECLARE }));
    }),
    Case::once("`queue.declare`, passive, with an empty name", |s| {
        s.send(Method::QueueDeclare(queue::Declare { passive: true, ..DECLARE }));
    }),
    Case {
        kinds: &[Kind::Published],
        ..Case::new("`queue.declare`, passive, with an empty name, when one was declared before", |s| {
            s.send(Method::QueueDeclare(queue::Declare { passive: true, ..DECLARE }));
        })
    },
    Case::new("`queue.declare` with other properties", |s| {
        s.declare();
        let name = s.name.clone();
        s.send(Method::QueueDeclare(queue::Declare { queue: name.as_bytes(), durable: true, ..DECLARE }));
    }),
    Case::new("`queue.declare` with a negative `x-message-ttl`", |s| {
        declare_with(s, table(b"\x0Dx-message-ttlI\xFF\xFF\xFF\xFF"));
    }),
    Case::new("`queue.declare` with `x-expires` of the wrong type", |s| {
        declare_with(s, table(b"\x09x-expiresS\0\0\0\x01a"));
    }),
    Case::new("`queue.declare` with an unknown `x-queue-type`", |s| {
        declare_with(s, table(b"\x0Cx-queue-typeS\0\0\0\x04nope"));
    }),
    Case::new("`queue.declare` with `x-max-priority` of 1,000", |s| {
        declare_with(s, table(b"\x0Ex-max-priorityI\0\0\x03\xE8"));
    }),
    Case::new("`queue.declare` with an unknown `x-overflow`", |s| {
        declare_with(s, table(b"\x0Ax-overflowS\0\0\0\x04nope"));
    }),
    Case::new("`queue.declare` of an exclusive quorum queue", |s| {
        let declare = queue::Declare {
            queue: b"eq",
            durable: true,
            exclusive: true,
            arguments: table(b"\x0Cx-queue-typeS\0\0\0\x06quorum"),
            ..DECLARE
        };
        s.send(Method::QueueDeclare(declare));
    }),
    Case::new("`queue.declare` of a transient stream", |s| {
        declare_with(s, table(b"\x0Cx-queue-typeS\0\0\0\x06stream"));
    }),
    Case::new("`queue.delete` of a queue that is not there", |s| s.send(delete(b"nowhere", false, false))),
    Case {
        kinds: &[Kind::Published],
        ..Case::new("`queue.delete` if empty, of one that is not", |s| {
            let name = s.name.clone();
            s.send(delete(name.as_bytes(), false, true));
        })
    },
    Case {
        kinds: &[Kind::Consumes],
        ..Case::new("`queue.delete` if unused, of one that is used", |s| {
            let name = s.name.clone();
            s.send(delete(name.as_bytes(), true, false));
        })
    },
    Case::new("`queue.purge` of a queue that is not there", |s| {
        s.send(Method::QueuePurge(queue::Purge { queue: b"nowhere", no_wait: false }));
    }),
    Case::new("`queue.bind` of a queue that is not there", |s| s.send(bind(b"nowhere", b"amq.topic", b""))),
    Case::new("`queue.bind` to an exchange that is not there", |s| {
        s.declare();
        let name = s.name.clone();
        s.send(bind(name.as_bytes(), b"nowhere", b""));
    }),
    Case::new("`queue.bind` to the default exchange", |s| {
        s.declare();
        let name = s.name.clone();
        s.send(bind(name.as_bytes(), b"", b"k"));
    }),
    Case::new("`exchange.declare` of a name with a prefix that is reserved", |s| {
        s.send(exchange_declare(b"amq.mine", b"direct"));
    }),
    Case::new("`exchange.declare` of the default exchange", |s| s.send(exchange_declare(b"", b"direct"))),
    Case::new("`exchange.declare` with another type", |s| s.send(exchange_declare(b"amq.topic", b"direct"))),
    Case::new("`exchange.declare`, passive, of an exchange that is not there", |s| {
        let Method::ExchangeDeclare(declare) = exchange_declare(b"nowhere", b"direct") else { return };
        s.send(Method::ExchangeDeclare(exchange::Declare { passive: true, ..declare }));
    }),
    Case::new("`exchange.declare`, passive, with a type that is not there", |s| {
        let Method::ExchangeDeclare(declare) = exchange_declare(b"amq.topic", b"nonsense") else { return };
        s.send(Method::ExchangeDeclare(exchange::Declare { passive: true, ..declare }));
    }),
    Case::new("`exchange.delete` of `amq.topic`", |s| s.send(exchange_delete(b"amq.topic", false))),
    Case::new("`exchange.delete` of the default exchange", |s| s.send(exchange_delete(b"", false))),
    Case::new("`exchange.delete` of an exchange that is not there", |s| {
        s.send(exchange_delete(b"nowhere", false));
    }),
    Case::new("`exchange.delete` if unused, of one that is used", |s| {
        s.declare();
        let name = s.name.clone();
        s.peer.call(1, &exchange_declare(name.as_bytes(), b"fanout"), exchange::DECLARE_OK);
        s.peer.call(1, &bind(name.as_bytes(), name.as_bytes(), b""), queue::BIND_OK);
        s.send(exchange_delete(name.as_bytes(), true));
    }),
    Case::new("`exchange.bind` with an exchange that is not there", |s| {
        s.send(Method::ExchangeBind(exchange::Bind {
            destination: b"amq.topic",
            source: b"nowhere",
            routing_key: b"",
            no_wait: false,
            arguments: Table::EMPTY,
        }));
    }),
    Case::new("`basic.get` from a queue that is not there", |s| {
        s.send(Method::BasicGet(basic::Get { queue: b"nowhere", no_ack: true }));
    }),
    Case::once("`basic.get` with an empty name and no queue declared", |s| {
        s.send(Method::BasicGet(basic::Get { queue: b"", no_ack: true }));
    }),
    Case::new("`basic.consume` from a queue that is not there", |s| {
        s.send(Method::BasicConsume(basic::Consume { queue: b"nowhere", ..CONSUME }));
    }),
    Case::once("`basic.consume` with an empty name and no queue declared", |s| {
        s.send(Method::BasicConsume(CONSUME));
    }),
    Case {
        kinds: &[Kind::Consumes],
        ..Case::new("`basic.consume`, exclusive, beside another consumer", |s| {
            let name = s.name.clone();
            let consume = basic::Consume { queue: name.as_bytes(), exclusive: true, ..CONSUME };
            s.send(Method::BasicConsume(consume));
        })
    },
    Case::once("`basic.consume` with `x-priority` of the wrong type", |s| {
        s.declare();
        let name = s.name.clone();
        let arguments = table(b"\x0Ax-priorityS\0\0\0\x01a");
        s.send(Method::BasicConsume(basic::Consume { queue: name.as_bytes(), arguments, ..CONSUME }));
    }),
    Case::new("`basic.cancel` of an unknown tag", |s| {
        s.send(Method::BasicCancel(basic::Cancel { consumer_tag: b"nobody", no_wait: false }));
    })
    .answered(1),
    Case {
        kinds: &[Kind::Consumes],
        ..Case::new("`basic.cancel` of the same tag twice", |s| {
            let cancel = Method::BasicCancel(basic::Cancel { consumer_tag: b"t", no_wait: false });
            s.send(cancel);
            s.send(cancel);
        })
    }
    .answered(2),
    Case::once("direct reply-to: two consumers on one channel", |s| {
        let consume = basic::Consume { queue: b"amq.rabbitmq.reply-to", no_ack: true, ..CONSUME };
        s.peer.consume_with(1, &consume);
        s.send(Method::BasicConsume(consume));
    }),
    Case::once("direct reply-to: a consumer that wants to acknowledge", |s| {
        let consume = basic::Consume { queue: b"amq.rabbitmq.reply-to", ..CONSUME };
        s.send(Method::BasicConsume(consume));
    }),
    Case::once("`channel.flow` with active=true", |s| s.send(crate::cases::flow(true))).answered(1),
];

fn declare_with(stage: &mut Stage, arguments: Table<'static>) {
    let name = format!("{}-a", stage.name);
    stage.send(Method::QueueDeclare(queue::Declare { queue: name.as_bytes(), arguments, ..DECLARE }));
}

/// queue.delete.
pub(crate) fn delete(queue: &[u8], if_unused: bool, if_empty: bool) -> Method<'_> {
    Method::QueueDelete(queue::Delete { queue, if_unused, if_empty, no_wait: false })
}

/// exchange.delete.
pub(crate) fn exchange_delete(exchange: &[u8], if_unused: bool) -> Method<'_> {
    Method::ExchangeDelete(exchange::Delete { exchange, if_unused, no_wait: false })
}
