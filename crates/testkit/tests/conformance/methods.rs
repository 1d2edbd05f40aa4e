//! Methods that cost a client its connection.

use crate::cases::{Case, Kind, Section, Stage, encoded, flow, raw_method};
use warren_testkit::peer::{CONSUME, DECLARE, PUBLISH};
use warren_wire::method::{access, basic, channel, confirm, exchange, queue};
use warren_wire::{Method, Table};

pub(crate) const SECTION: Section = Section {
    title: "Methods",
    introduction: "Methods whose fields cannot be read, that only a server sends, or that ask for what is not there.",
    cases: CASES,
};

const CASES: &[Case] = &[
    Case::new("`queue.declare`: a table with an unknown type", |s| declare_with(s, &[3, 1, b'a', b'?'])),
    Case::new("`queue.declare`: a table that ends early", |s| declare_with(s, &[20, 1, b'a', b'S'])),
    Case::new("`queue.declare`: a string in a table that is longer than the table", |s| {
        declare_with(s, &[7, 1, b'a', b'S', 0, 0, 1, 0]);
    }),
    Case::new("`queue.declare`: NaN in a table", |s| {
        declare_with(s, &[11, 1, b'a', b'd', 0x7F, 0xF8, 0, 0, 0, 0, 0, 0]);
    }),
    Case::new("`queue.declare`: a table nested 1,000 times", |s| {
        // Behind the property flags.
        declare_raw(s, &crate::contents::nested(1_000)[2..]);
    })
    .differs(crate::contents::DEPTH),
    Case::new("`queue.declare`: fields that end early", |s| s.bytes(&raw_method(50, 10, &[0, 0, 5, b'a']))),
    Case::new("`queue.declare`: octets over", |s| {
        s.bytes(&raw_method(50, 10, &[0, 0, 1, b'a', 0, 0, 0, 0, 0, 1, 2, 3]));
    }),
    Case::new("`queue.declare`: no fields", |s| s.bytes(&raw_method(50, 10, &[]))),
    Case::new("`basic.publish`: fields that end early", |s| s.bytes(&raw_method(60, 40, &[0, 0, 5, b'a']))),
    Case::new("`basic.publish`: octets over", |s| s.bytes(&raw_method(60, 40, &[0, 0, 0, 0, 0, 1, 2, 3]))),
    Case::new("`basic.ack`: fields that end early", |s| s.bytes(&raw_method(60, 80, &[0, 0, 0, 1]))),
    Case::new("`basic.ack`: octets over", |s| s.bytes(&raw_method(60, 80, &[0, 0, 0, 0, 0, 0, 0, 1, 0, 0]))),
    Case::new("`channel.open`: no fields", |s| s.bytes(&raw_method(20, 10, &[]))),
    Case::new("`tx.select`: octets over", |s| s.bytes(&raw_method(90, 10, &[1]))),
    Case::new("`queue.declare`: a name that is not UTF-8", |s| {
        s.send(Method::QueueDeclare(queue::Declare { queue: BAD, ..DECLARE }));
    }),
    Case::new("`queue.bind`: an exchange that is not UTF-8", |s| s.send(bind(b"x", BAD, b""))),
    Case::new("`queue.bind`: a routing key that is not UTF-8", |s| s.send(bind(b"x", b"amq.topic", BAD))),
    Case::new("`exchange.declare`: a name that is not UTF-8", |s| {
        s.send(exchange_declare(BAD, b"direct"));
    }),
    Case::new("`exchange.declare`: a type that is not UTF-8", |s| s.send(exchange_declare(b"x", BAD))),
    Case::new("`basic.consume`: a tag that is not UTF-8", |s| {
        s.send(Method::BasicConsume(basic::Consume { queue: b"x", consumer_tag: BAD, ..CONSUME }));
    }),
    Case::new("`basic.get`: a queue that is not UTF-8", |s| {
        s.send(Method::BasicGet(basic::Get { queue: BAD, no_ack: true }));
    }),
    Case::new("`basic.cancel`: a tag that is not UTF-8", |s| {
        s.send(Method::BasicCancel(basic::Cancel { consumer_tag: BAD, no_wait: false }));
    }),
    Case::new("`channel.close`: a text that is not UTF-8", |s| {
        let close = channel::Close { reply_code: 200, reply_text: BAD, class_id: 0, method_id: 0 };
        s.send(Method::ChannelClose(close));
    }),
    Case::new("`queue.declare`: a name of four octets beyond Unicode", |s| {
        s.send(Method::QueueDeclare(queue::Declare { queue: &[0xF7, 0xBF, 0xBF, 0xBF], ..DECLARE }));
    })
    .differs(UTF8),
    Case::new("`queue.declare`: a name with an encoded surrogate", |s| {
        s.send(Method::QueueDeclare(queue::Declare { queue: &[0xED, 0xA0, 0x80], ..DECLARE }));
    })
    .differs(UTF8),
    Case::new("`queue.declare`: a name with an octet 0", |s| {
        s.send(Method::QueueDeclare(queue::Declare { queue: b"a\0b", auto_delete: true, ..DECLARE }));
    }),
    Case::new("`exchange.declare` with a type that is not there", |s| {
        s.send(exchange_declare(b"x", b"nonsense"));
    }),
    Case::new("`exchange.declare` without a type", |s| s.send(exchange_declare(b"x", b""))),
    Case::new("`exchange.declare`, no-wait, with a type that is not there", |s| {
        let Method::ExchangeDeclare(declare) = exchange_declare(b"x", b"nonsense") else { return };
        s.send(Method::ExchangeDeclare(exchange::Declare { no_wait: true, ..declare }));
    }),
    Case::new("`basic.qos` with prefetch_size", |s| s.send(qos(1000))),
    Case::new("`channel.open` on an open channel", |s| s.send(Method::ChannelOpen)),
    Case::new("`channel.close-ok` without a close", |s| {
        s.send(Method::ChannelCloseOk);
        s.await_end(); // RabbitMQ may say something else of what comes next
    }),
    Case::new("`channel.flow` with active=false", |s| s.send(flow(false))),
    Case::new("`channel.flow-ok`", |s| s.send(Method::ChannelFlowOk(channel::FlowOk { active: true }))),
    Case::new("`basic.recover` with requeue=false", |s| {
        s.send(Method::BasicRecover(basic::Recover { requeue: false }));
    }),
    Case::new("`basic.recover-async` with requeue=false", |s| {
        s.send(Method::BasicRecoverAsync(basic::RecoverAsync { requeue: false }));
    }),
    Case::new("`basic.consume` with a tag that is in use", |s| {
        s.declare();
        let name = s.name.clone();
        if s.kind != Kind::Consumes {
            s.peer.consume(1, &name, "t", true);
            drain(s);
        }
        s.send(Method::BasicConsume(basic::Consume {
            queue: name.as_bytes(),
            consumer_tag: b"t",
            ..CONSUME
        }));
    }),
    Case::once("`basic.cancel` behind its consume, in one write", |s| {
        s.declare();
        let name = s.name.clone();
        let consume = Method::BasicConsume(basic::Consume {
            queue: name.as_bytes(),
            consumer_tag: b"early",
            ..CONSUME
        });
        let cancel = Method::BasicCancel(basic::Cancel { consumer_tag: b"early", no_wait: false });
        s.bytes(&[encoded(consume), encoded(cancel)].concat());
    })
    .answered(2)
    .differs("RabbitMQ fails when a consumer ends before it has begun (541); Warren lets it begin first"),
    Case::once("`queue.declare` behind `tx.commit`, in one write", |s| {
        s.send(Method::TxSelect);
        s.peer.expect(1, warren_wire::method::tx::SELECT_OK);
        s.declare();
        let name = s.name.clone();
        s.peer.publish(1, &name, b"x");
        let declare = Method::QueueDeclare(queue::Declare { queue: name.as_bytes(), ..DECLARE });
        s.bytes(&[encoded(Method::TxCommit), encoded(declare)].concat());
    })
    .answered(2)
    .differs("RabbitMQ takes no command before commit-ok (504); Warren lets the commit end first"),
    Case::new("`queue.declare-ok`", |s| {
        s.send(Method::QueueDeclareOk(queue::DeclareOk { queue: b"x", message_count: 0, consumer_count: 0 }));
    }),
    Case::new("`queue.bind-ok`", |s| s.send(Method::QueueBindOk)),
    Case::new("`queue.purge-ok`", |s| s.send(Method::QueuePurgeOk(queue::PurgeOk { message_count: 0 }))),
    Case::new("`queue.delete-ok`", |s| s.send(Method::QueueDeleteOk(queue::DeleteOk { message_count: 0 }))),
    Case::new("`exchange.declare-ok`", |s| s.send(Method::ExchangeDeclareOk)),
    Case::new("`exchange.delete-ok`", |s| s.send(Method::ExchangeDeleteOk)),
    Case::new("`channel.open-ok`", |s| s.send(Method::ChannelOpenOk)),
    Case::new("`tx.select-ok`", |s| s.send(Method::TxSelectOk)),
    Case::new("`tx.commit-ok`", |s| s.send(Method::TxCommitOk)),
    Case::new("`tx.rollback-ok`", |s| s.send(Method::TxRollbackOk)),
    Case::new("`confirm.select-ok`", |s| s.send(Method::ConfirmSelectOk)),
    Case::new("`basic.qos-ok`", |s| s.send(Method::BasicQosOk)),
    Case::new("`basic.consume-ok`", |s| {
        s.send(Method::BasicConsumeOk(basic::ConsumeOk { consumer_tag: b"x" }));
    }),
    Case::new("`basic.cancel-ok`", |s| {
        s.send(Method::BasicCancelOk(basic::CancelOk { consumer_tag: b"x" }));
    }),
    Case::new("`basic.get-empty`", |s| s.send(Method::BasicGetEmpty)),
    Case::new("`basic.recover-ok`", |s| s.send(Method::BasicRecoverOk)),
    Case::new("`access.request-ok`", |s| {
        s.send(Method::AccessRequestOk(access::RequestOk { ticket: 1 }));
    }),
    Case::new("`basic.deliver` with its content", |s| {
        let deliver = basic::Deliver {
            consumer_tag: b"t",
            delivery_tag: 1,
            redelivered: false,
            exchange: b"",
            routing_key: b"",
        };
        with_content(s, Method::BasicDeliver(deliver));
    }),
    Case::new("`basic.return` with its content", |s| {
        let returned = basic::Return { reply_code: 312, reply_text: b"no", exchange: b"", routing_key: b"" };
        with_content(s, Method::BasicReturn(returned));
    }),
    Case::new("`basic.get-ok` with its content", |s| {
        let got = basic::GetOk {
            delivery_tag: 1,
            redelivered: false,
            exchange: b"",
            routing_key: b"",
            message_count: 0,
        };
        with_content(s, Method::BasicGetOk(got));
    }),
    Case::new("`connection.update-secret`", |s| update_secret(s, b"guest")),
    Case::new("`connection.update-secret` with a secret that is not the user's", |s| {
        update_secret(s, b"not guest's");
    })
    .differs(
        "RabbitMQ's own user database takes any secret; Warren asks the broker whether it is good, since it logs in with \
         it from then on",
    ),
    Case::new("`access.request`", |s| {
        let request = access::Request {
            realm: b"/data",
            exclusive: false,
            passive: true,
            active: true,
            write: true,
            read: true,
        };
        s.send(Method::AccessRequest(request));
    }),
    Case::once("`confirm.select` after `tx.select`", |s| {
        s.send(Method::TxSelect);
        s.send(Method::ConfirmSelect(confirm::Select { no_wait: false }));
    }),
];

const UTF8: &str = "RabbitMQ 3.10 takes for UTF-8 what is not quite; Warren does not";

const BAD: &[u8] = &[0xFF, 0xFE];

/// queue.declare of `x` with these octets as the table; the first says how long it is.
fn declare_with(stage: &mut Stage, table: &[u8]) {
    declare_raw(stage, &[&[0, 0, 0], table].concat());
}

/// queue.declare of `x` with these octets behind its flags.
fn declare_raw(stage: &mut Stage, rest: &[u8]) {
    stage.bytes(&raw_method(50, 10, &[&[0, 0, 1, b'x', 0], rest].concat()));
}

/// queue.bind.
pub(crate) fn bind<'a>(queue: &'a [u8], exchange: &'a [u8], routing_key: &'a [u8]) -> Method<'a> {
    Method::QueueBind(queue::Bind { queue, exchange, routing_key, no_wait: false, arguments: Table::EMPTY })
}

/// exchange.declare with nothing set.
pub(crate) fn exchange_declare<'a>(exchange: &'a [u8], kind: &'a [u8]) -> Method<'a> {
    Method::ExchangeDeclare(exchange::Declare {
        exchange,
        kind,
        passive: false,
        durable: false,
        auto_delete: false,
        internal: false,
        no_wait: false,
        arguments: Table::EMPTY,
    })
}

/// basic.qos.
pub(crate) fn qos(prefetch_size: u32) -> Method<'static> {
    Method::BasicQos(basic::Qos { prefetch_size, prefetch_count: 1, global: false })
}

/// What a consumer is given of the one message that an offender has published.
fn drain(stage: &mut Stage) {
    if stage.kind == Kind::Published {
        stage.peer.delivery(1);
    }
}

fn with_content(stage: &mut Stage, method: Method<'_>) {
    let mut bytes = encoded(method);
    bytes.extend_from_slice(&crate::cases::header(60, 0, 1, &[0, 0]));
    bytes.extend_from_slice(&crate::cases::body(b"x"));
    stage.bytes(&bytes);
}

/// A publish that is as it should be.
pub(crate) fn publish_to(exchange: &'static [u8]) -> basic::Publish<'static> {
    basic::Publish { exchange, ..PUBLISH }
}

fn update_secret(stage: &mut Stage, new_secret: &[u8]) {
    let update = warren_wire::method::connection::UpdateSecret { new_secret, reason: b"a test" };
    stage.peer.send(0, &Method::ConnectionUpdateSecret(update));
    stage.see_answer_on_0();
}
