//! The protocol as it is meant to be used: each method, and its answer.

use crate::cases::{Case, Section, Stage, flow};
use crate::contents::table;
use crate::methods::{bind, exchange_declare};
use crate::refusals::{delete, exchange_delete};
use warren_testkit::peer::{CONSUME, DECLARE, PUBLISH};
use warren_wire::method::{basic, confirm, exchange, queue, tx};
use warren_wire::{BasicProperties, Method, Table};

pub(crate) const SECTION: Section = Section {
    title: "Features",
    introduction: "The protocol as it is meant to be used: each method, and what it is answered.",
    cases: CASES,
};

const CASES: &[Case] = &[
    Case::once("`channel.open`, `channel.close`", |s| s.peer.send_channel_close(1)).answered(1),
    Case::once("`channel.flow`", |s| s.send(flow(true))).answered(1),
    Case::once("`exchange.declare`: direct, fanout, topic, headers", |s| {
        let name = s.name.clone();
        for kind in ["direct", "fanout", "topic", "headers"] {
            s.send(exchange_declare(format!("{name}-{kind}").as_bytes(), kind.as_bytes()));
        }
    }),
    Case::once("`exchange.declare` again, passive, with no-wait", |s| {
        let name = s.name.clone();
        let Method::ExchangeDeclare(declare) = exchange_declare(name.as_bytes(), b"direct") else { return };
        s.send(Method::ExchangeDeclare(exchange::Declare { no_wait: true, ..declare }));
        s.send(Method::ExchangeDeclare(declare));
        s.send(Method::ExchangeDeclare(exchange::Declare { passive: true, ..declare }));
    }),
    Case::once("`exchange.declare`: durable, auto-delete, internal, alternate-exchange", |s| {
        let name = s.name.clone();
        let Method::ExchangeDeclare(declare) = exchange_declare(name.as_bytes(), b"direct") else { return };
        let arguments = table(b"\x12alternate-exchangeS\0\0\0\x0Aamq.fanout");
        let full =
            exchange::Declare { durable: true, auto_delete: true, internal: true, arguments, ..declare };
        s.send(Method::ExchangeDeclare(full));
    }),
    Case::once("`exchange.bind`, `exchange.unbind`", |s| {
        let (destination, source, routing_key) =
            (b"amq.fanout".as_slice(), b"amq.topic".as_slice(), b"a.*".as_slice());
        let arguments = Table::EMPTY;
        s.send(Method::ExchangeBind(exchange::Bind {
            destination,
            source,
            routing_key,
            no_wait: false,
            arguments,
        }));
        s.send(Method::ExchangeUnbind(exchange::Unbind {
            destination,
            source,
            routing_key,
            no_wait: false,
            arguments,
        }));
    }),
    Case::once("`exchange.delete`", |s| {
        let name = s.name.clone();
        s.send(exchange_declare(name.as_bytes(), b"direct"));
        s.send(exchange_delete(name.as_bytes(), true));
    }),
    Case::once("`queue.declare`: named", |s| s.send(declared(&s.name.clone()))),
    Case::once("`queue.declare`: named by the server", |s| s.send(Method::QueueDeclare(DECLARE))),
    Case::once("`queue.declare`: exclusive", |s| {
        let name = s.name.clone();
        let declare = queue::Declare { queue: name.as_bytes(), exclusive: true, ..DECLARE };
        s.send(Method::QueueDeclare(declare));
        s.send(Method::QueueDeclare(queue::Declare { passive: true, ..declare }));
    }),
    Case::once("`queue.declare`: auto-delete, with arguments of all kinds", |s| {
        let name = s.name.clone();
        let arguments = table(
            b"\x0Dx-message-ttlI\0\0\xEA\x60\x09x-expiresl\0\0\0\0\0\0\xEA\x60\x0Cx-max-lengthI\0\0\0\x0A\
              \x0Ax-overflowS\0\0\0\x09drop-head\x0Ex-max-priorityB\x05\
              \x19x-dead-letter-routing-keyS\0\0\0\x01k\x16x-dead-letter-exchangeS\0\0\0\x0Aamq.fanout",
        );
        let declare = queue::Declare { queue: name.as_bytes(), auto_delete: true, arguments, ..DECLARE };
        s.send(Method::QueueDeclare(declare));
    }),
    Case::once("`queue.declare`: quorum", |s| declare_type(s, table(b"\x0Cx-queue-typeS\0\0\0\x06quorum"))),
    Case::once("`queue.declare`: stream", |s| declare_type(s, table(b"\x0Cx-queue-typeS\0\0\0\x06stream"))),
    Case::once("`queue.declare`, passive", |s| {
        let name = s.name.clone();
        s.send(declared(&name));
        s.send(Method::QueueDeclare(queue::Declare { queue: name.as_bytes(), passive: true, ..DECLARE }));
    }),
    Case::once("`queue.declare`, no-wait, then by its empty name `queue.purge`", |s| {
        let name = s.name.clone();
        s.send(Method::QueueDeclare(queue::Declare { queue: name.as_bytes(), no_wait: true, ..DECLARE }));
        s.send(Method::QueuePurge(queue::Purge { queue: b"", no_wait: false }));
    }),
    Case::once("`queue.bind`, `queue.unbind`", |s| {
        let name = s.name.clone();
        s.send(declared(&name));
        s.send(bind(name.as_bytes(), b"amq.topic", b"a.#"));
        s.send(Method::QueueUnbind(queue::Unbind {
            queue: name.as_bytes(),
            exchange: b"amq.topic",
            routing_key: b"a.#",
            arguments: Table::EMPTY,
        }));
    }),
    Case::once("`queue.unbind` of what is not bound", |s| {
        let name = s.name.clone();
        s.send(declared(&name));
        s.send(Method::QueueUnbind(queue::Unbind {
            queue: name.as_bytes(),
            exchange: b"amq.topic",
            routing_key: b"a.#",
            arguments: Table::EMPTY,
        }));
    }),
    Case::once("`queue.purge`, `queue.delete`", |s| {
        one_message(s);
        let name = s.name.clone();
        s.send(Method::QueuePurge(queue::Purge { queue: name.as_bytes(), no_wait: false }));
        s.send(delete(name.as_bytes(), true, true));
    }),
    Case::once("`basic.qos`, of a consumer and of the channel", |s| {
        s.send(Method::BasicQos(basic::Qos { prefetch_size: 0, prefetch_count: 10, global: false }));
        s.send(Method::BasicQos(basic::Qos { prefetch_size: 0, prefetch_count: 10, global: true }));
    }),
    Case::once("`basic.consume` with a tag, a delivery, `basic.ack`, `basic.cancel`", |s| {
        one_message(s);
        let name = s.name.clone();
        consume(s, &name, b"tag", false);
        s.peer.expect(1, basic::CONSUME_OK);
        s.peer.delivery(1);
        s.peer.ack(1, 1, false);
        s.send(Method::BasicCancel(basic::Cancel { consumer_tag: b"tag", no_wait: false }));
    })
    .answered(1),
    Case::once("`basic.consume` without a tag", |s| {
        let name = s.name.clone();
        s.declare();
        consume(s, &name, b"", true);
    })
    .answered(1),
    Case::once("`basic.consume`: a delivery", |s| {
        one_message(s);
        let name = s.name.clone();
        consume(s, &name, b"tag", true);
    })
    .answered(2),
    Case::once("`basic.consume`, no-wait: a delivery", |s| {
        one_message(s);
        let name = s.name.clone();
        let consume = basic::Consume {
            queue: name.as_bytes(),
            consumer_tag: b"tag",
            no_wait: true,
            no_ack: true,
            ..CONSUME
        };
        s.send(Method::BasicConsume(consume));
    })
    .answered(1),
    Case::once("`queue.delete` of a queue that is consumed: `basic.cancel`", |s| {
        one_message(s);
        let name = s.name.clone();
        s.peer.consume(1, &name, "tag", true);
        s.peer.delivery(1);
        s.peer.open_channel(2);
        s.peer.delete_queue(2, &name);
    })
    .answered(1),
    Case::once("`basic.get`, and once more when the queue is empty", |s| {
        one_message(s);
        let name = s.name.clone();
        for _ in 0..2 {
            s.send(Method::BasicGet(basic::Get { queue: name.as_bytes(), no_ack: false }));
        }
    })
    .answered(2),
    Case::once("`basic.reject` with requeue, and `basic.get` again", |s| {
        held_message(s);
        s.send(Method::BasicReject(basic::Reject { delivery_tag: 1, requeue: true }));
        get_again(s);
    })
    .answered(1),
    Case::once("`basic.reject` without requeue, and `basic.get` again", |s| {
        held_message(s);
        s.send(Method::BasicReject(basic::Reject { delivery_tag: 1, requeue: false }));
        get_again(s);
    })
    .answered(1),
    Case::once("`basic.nack`, multiple, and `basic.get` again", |s| {
        held_message(s);
        s.send(Method::BasicNack(basic::Nack { delivery_tag: 1, multiple: true, requeue: true }));
        get_again(s);
    })
    .answered(1),
    Case::once("`basic.recover`, and `basic.get` again", |s| {
        held_message(s);
        s.send(Method::BasicRecover(basic::Recover { requeue: true }));
        get_again(s);
    })
    .answered(2),
    Case::once("`basic.recover-async`, and `basic.get` again", |s| {
        held_message(s);
        s.send(Method::BasicRecoverAsync(basic::RecoverAsync { requeue: true }));
        get_again(s);
    })
    .answered(1),
    Case::once("`basic.publish`, mandatory, that no queue takes: `basic.return`", |s| {
        let publish = basic::Publish { mandatory: true, routing_key: b"nobody", ..PUBLISH };
        s.publish(publish, BasicProperties::default(), b"hello");
    })
    .answered(1),
    Case::once("`confirm.select`, publish, confirm", |s| {
        s.declare();
        s.send(Method::ConfirmSelect(confirm::Select { no_wait: false }));
        let name = s.name.clone();
        s.peer.publish(1, &name, b"hello");
    })
    .answered(2),
    Case::once("`confirm.select`, no-wait; a return before its confirm", |s| {
        s.send(Method::ConfirmSelect(confirm::Select { no_wait: true }));
        let publish = basic::Publish { mandatory: true, routing_key: b"nobody", ..PUBLISH };
        s.publish(publish, BasicProperties::default(), b"hello");
    })
    .answered(2),
    Case::once("`confirm.select` twice", |s| {
        s.peer.confirm_select(1);
        s.declare();
        let name = s.name.clone();
        s.peer.publish(1, &name, b"hello");
        s.peer.expect_confirms(1, 1, 1);
        s.peer.confirm_select(1);
        s.peer.publish(1, &name, b"hello");
    })
    .answered(1),
    Case::once("`tx.select`, publish, `tx.commit`, and the message", |s| {
        s.declare();
        s.peer.call(1, &Method::TxSelect, tx::SELECT_OK);
        let name = s.name.clone();
        s.peer.publish(1, &name, b"hello");
        s.peer.call(1, &Method::TxCommit, tx::COMMIT_OK);
        get_again(s);
    })
    .answered(1),
    Case::once("`tx.select`, publish, `tx.rollback`, and no message", |s| {
        s.declare();
        s.peer.call(1, &Method::TxSelect, tx::SELECT_OK);
        let name = s.name.clone();
        s.peer.publish(1, &name, b"hello");
        s.peer.call(1, &Method::TxRollback, tx::ROLLBACK_OK);
        get_again(s);
    })
    .answered(1),
    Case::once("`tx.select` twice", |s| {
        s.send(Method::TxSelect);
        s.send(Method::TxSelect);
    }),
    Case::once("direct reply-to: an answer", |s| {
        let consume =
            basic::Consume { queue: b"amq.rabbitmq.reply-to", consumer_tag: b"tag", no_ack: true, ..CONSUME };
        s.peer.consume_with(1, &consume);
        s.declare();
        let name = s.name.clone();
        let properties =
            BasicProperties { reply_to: Some(b"amq.rabbitmq.reply-to"), ..BasicProperties::default() };
        s.publish(basic::Publish { routing_key: name.as_bytes(), ..PUBLISH }, properties, b"question");
        s.peer.open_channel(2);
        let mut question = s.peer.get(2, &name, true);
        while question.is_none() {
            question = s.peer.get(2, &name, true);
        }
        let question = question.expect("looked for until it was there");
        let to = String::from_utf8_lossy(question.properties().reply_to.expect("an address")).into_owned();
        s.peer.publish(2, &to, b"answer");
    })
    .answered(1),
];

fn declared(name: &str) -> Method<'_> {
    Method::QueueDeclare(queue::Declare { queue: name.as_bytes(), ..DECLARE })
}

fn declare_type(stage: &mut Stage, arguments: Table<'static>) {
    let name = stage.name.clone();
    let declare = queue::Declare { queue: name.as_bytes(), durable: true, arguments, ..DECLARE };
    stage.send(Method::QueueDeclare(declare));
}

/// A queue that holds a message.
pub(crate) fn one_message(stage: &mut Stage) {
    stage.declare();
    let name = stage.name.clone();
    stage.peer.confirm_select(1);
    stage.peer.publish(1, &name, b"hello");
    stage.peer.expect_confirms(1, 1, 1);
}

/// A message that the client has and has not settled.
fn held_message(stage: &mut Stage) {
    one_message(stage);
    let name = stage.name.clone();
    let message = stage.peer.get(1, &name, false).expect("the message was confirmed");
    assert_eq!(message.tag(), 1);
}

fn get_again(stage: &mut Stage) {
    let name = stage.name.clone();
    stage.send(Method::BasicGet(basic::Get { queue: name.as_bytes(), no_ack: true }));
}

fn consume(stage: &mut Stage, queue: &str, consumer_tag: &[u8], no_ack: bool) {
    let consume = basic::Consume { queue: queue.as_bytes(), consumer_tag, no_ack, ..CONSUME };
    stage.send(Method::BasicConsume(consume));
}
