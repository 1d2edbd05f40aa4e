//! Exchanges, bindings, and where messages go.

use crate::support::*;
use warren_wire::BasicProperties;
use warren_wire::Method;
use warren_wire::method::{exchange, queue};

#[test]
fn declare_types() {
    let mut t = Test::new();
    let c = t.channel();
    for kind in ["direct", "fanout", "topic", "headers"] {
        let name = format!("a-{kind}");
        for _ in 0..2 {
            let m = declare_exchange(&name, kind);
            t.call(c, 1, Method::ExchangeDeclare(m), "1 exchange.declare-ok");
        }
    }
}

#[test]
fn unknown_type() {
    let mut t = Test::new();
    let c = t.channel();
    let m = declare_exchange("strange", "x-strange");
    let text = "COMMAND_INVALID - unknown exchange type 'x-strange'";
    t.call(c, 1, Method::ExchangeDeclare(m), &format!("0 connection.close 503 {text} 40/10"));
}

fn refused(first: exchange::Declare<'_>, second: exchange::Declare<'_>, text: &str) {
    let mut t = Test::new();
    let c = t.channel();
    t.call(c, 1, Method::ExchangeDeclare(first), "1 exchange.declare-ok");
    let text = format!("PRECONDITION_FAILED - inequivalent arg {text}");
    t.call(c, 1, Method::ExchangeDeclare(second), &format!("1 channel.close 406 {text} 40/10"));
}

#[test]
fn declare_otherwise() {
    let x = declare_exchange("other", "direct");
    let entity = "for exchange 'other' in vhost '/': received";
    let text = format!("'type' {entity} 'fanout' but current is 'direct'");
    refused(x, declare_exchange("other", "fanout"), &text);
    let text = format!("'durable' {entity} 'true' but current is 'false'");
    refused(x, exchange::Declare { durable: true, ..x }, &text);
    let text = format!("'auto_delete' {entity} 'true' but current is 'false'");
    refused(x, exchange::Declare { auto_delete: true, ..x }, &text);
    let text = format!("'internal' {entity} 'false' but current is 'true'");
    refused(exchange::Declare { internal: true, ..x }, x, &text);
    let arguments = table(&[("alternate-exchange", Field::Str("amq.fanout"))]);
    let with = exchange::Declare { arguments: encoded(&arguments), ..x };
    let value = "the value 'amq.fanout' of type 'longstr'";
    let text = format!("'alternate-exchange' {entity} none but current is {value}");
    refused(with, x, &text);
    let text = format!("'alternate-exchange' {entity} {value} but current is none");
    refused(x, with, &text);
}

#[test]
fn passive_declare() {
    let mut t = Test::new();
    let c = t.channel();
    let m = exchange::Declare { passive: true, ..declare_exchange("amq.topic", "nonsense") };
    t.call(c, 1, Method::ExchangeDeclare(m), "1 exchange.declare-ok");
    let m = exchange::Declare { passive: true, ..declare_exchange("missing", "direct") };
    let text = "NOT_FOUND - no exchange 'missing' in vhost '/'";
    t.call(c, 1, Method::ExchangeDeclare(m), &format!("1 channel.close 404 {text} 40/10"));
}

#[test]
fn reserved_names() {
    let mut t = Test::new();
    let c = t.channel();
    let m = exchange::Declare { durable: true, ..declare_exchange("amq.direct", "direct") };
    t.call(c, 1, Method::ExchangeDeclare(m), "1 exchange.declare-ok");
    let m = declare_exchange("amq.mine", "direct");
    let text = "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'";
    t.call(c, 1, Method::ExchangeDeclare(m), &format!("1 channel.close 403 {text} 40/10"));
    t.open(c, 2);
    let text = "ACCESS_REFUSED - deletion of system exchange 'amq.direct' in vhost '/' not allowed";
    let m = Method::ExchangeDelete(delete_exchange("amq.direct"));
    t.call(c, 2, m, &format!("2 channel.close 403 {text} 40/20"));
}

#[test]
fn default_exchange_is_untouchable() {
    let text = "ACCESS_REFUSED - operation not permitted on the default exchange";
    let methods = [
        (Method::ExchangeDeclare(declare_exchange("", "direct")), "40/10"),
        (Method::ExchangeDelete(delete_exchange("")), "40/20"),
        (bind("bound", "", "k"), "50/20"),
        (unbind("bound", "", "bound"), "50/50"),
        (bind_exchange("", "amq.direct", "k"), "40/30"),
        (bind_exchange("amq.direct", "", "k"), "40/30"),
    ];
    for (method, id) in methods {
        let mut t = Test::new();
        let c = t.channel();
        t.declare(c, 1, "bound");
        t.call(c, 1, method, &format!("1 channel.close 403 {text} {id}"));
    }
}

fn bind_exchange<'a>(destination: &'a str, source: &'a str, key: &'a str) -> Method<'a> {
    Method::ExchangeBind(exchange::Bind {
        destination: destination.as_bytes(),
        source: source.as_bytes(),
        routing_key: key.as_bytes(),
        no_wait: false,
        arguments: encoded(&[]),
    })
}

fn unbind_exchange<'a>(destination: &'a str, source: &'a str, key: &'a str) -> Method<'a> {
    Method::ExchangeUnbind(exchange::Unbind {
        destination: destination.as_bytes(),
        source: source.as_bytes(),
        routing_key: key.as_bytes(),
        no_wait: false,
        arguments: encoded(&[]),
    })
}

#[test]
fn publish_to_a_missing_exchange() {
    let mut t = Test::new();
    let c = t.channel();
    t.publish(c, 1, "missing", "k", "x");
    let text = "NOT_FOUND - no exchange 'missing' in vhost '/'";
    t.expect(c, &[format!("1 channel.close 404 {text} 60/40")]);
}

#[test]
fn publish_to_an_internal_exchange() {
    let mut t = Test::new();
    let c = t.channel();
    let m = exchange::Declare { internal: true, ..declare_exchange("inner", "fanout") };
    t.call(c, 1, Method::ExchangeDeclare(m), "1 exchange.declare-ok");
    t.publish(c, 1, "inner", "k", "x");
    let text = "ACCESS_REFUSED - cannot publish to internal exchange 'inner' in vhost '/'";
    t.expect(c, &[format!("1 channel.close 403 {text} 60/40")]);
}

#[test]
fn delete_if_unused() {
    let mut t = Test::new();
    let c = t.channel();
    t.call(c, 1, Method::ExchangeDeclare(declare_exchange("used", "fanout")), "1 exchange.declare-ok");
    t.declare(c, 1, "bound");
    t.call(c, 1, bind("bound", "used", ""), "1 queue.bind-ok");
    let m = exchange::Delete { if_unused: true, ..delete_exchange("used") };
    let text = "PRECONDITION_FAILED - exchange 'used' in vhost '/' in use";
    t.call(c, 1, Method::ExchangeDelete(m), &format!("1 channel.close 406 {text} 40/20"));
    t.open(c, 2);
    t.call(c, 2, Method::ExchangeDelete(delete_exchange("used")), "2 exchange.delete-ok");
    t.call(c, 2, Method::ExchangeDelete(delete_exchange("used")), "2 exchange.delete-ok");
}

#[test]
fn bindings_of_what_is_missing() {
    let text = |what: &str| format!("NOT_FOUND - no {what} in vhost '/'");
    let methods = [
        (bind("nothing", "amq.direct", "k"), text("queue 'nothing'"), "50/20"),
        (bind("bound", "nothing", "k"), text("exchange 'nothing'"), "50/20"),
        (bind("nothing", "nothing", "k"), text("exchange 'nothing'"), "50/20"),
        (bind_exchange("nothing", "amq.direct", "k"), text("exchange 'nothing'"), "40/30"),
    ];
    for (method, text, id) in methods {
        let mut t = Test::new();
        let c = t.channel();
        t.declare(c, 1, "bound");
        t.call(c, 1, method, &format!("1 channel.close 404 {text} {id}"));
    }
}

#[test]
fn unbinding_what_is_missing() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "bound");
    t.call(c, 1, unbind("bound", "amq.direct", "k"), "1 queue.unbind-ok");
    t.call(c, 1, unbind("nothing", "amq.direct", "k"), "1 queue.unbind-ok");
    t.call(c, 1, unbind("bound", "nothing", "k"), "1 queue.unbind-ok");
    t.call(c, 1, unbind_exchange("nothing", "amq.direct", "k"), "1 exchange.unbind-ok");
}

/// Publishes with a key and says which of the queues got it.
fn reached(t: &mut Test, c: Conn, exchange: &str, key: &str, queues: &[&str]) -> Vec<String> {
    t.publish(c, 1, exchange, key, "x");
    t.take(c);
    let mut got = Vec::new();
    for name in queues {
        let (ready, _) = t.counts(c, 1, name);
        if ready > 0 {
            got.push(format!("{name}*{ready}"));
            t.ask(c, 1, purge(name));
        }
    }
    got
}

#[test]
fn direct() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "d1");
    t.declare(c, 1, "d2");
    for (name, key) in [("d1", "a"), ("d1", "b"), ("d1", "a"), ("d2", "b")] {
        t.call(c, 1, bind(name, "amq.direct", key), "1 queue.bind-ok");
    }
    let queues = ["d1", "d2"];
    assert_eq!(reached(&mut t, c, "amq.direct", "a", &queues), ["d1*1"]);
    assert_eq!(reached(&mut t, c, "amq.direct", "b", &queues), ["d1*1", "d2*1"]);
    assert!(reached(&mut t, c, "amq.direct", "c", &queues).is_empty());
    t.call(c, 1, unbind("d1", "amq.direct", "b"), "1 queue.unbind-ok");
    assert_eq!(reached(&mut t, c, "amq.direct", "b", &queues), ["d2*1"]);
}

/// A queue gets a message once, however many bindings lead to it.
#[test]
fn topic_and_fanout() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "t1");
    t.declare(c, 1, "t2");
    for (name, key) in [("t1", "a.*"), ("t1", "a.#"), ("t2", "#.z")] {
        t.call(c, 1, bind(name, "amq.topic", key), "1 queue.bind-ok");
    }
    let queues = ["t1", "t2"];
    assert_eq!(reached(&mut t, c, "amq.topic", "a.b", &queues), ["t1*1"]);
    assert_eq!(reached(&mut t, c, "amq.topic", "a.y.z", &queues), ["t1*1", "t2*1"]);
    assert_eq!(reached(&mut t, c, "amq.topic", "z", &queues), ["t2*1"]);
    assert_eq!(reached(&mut t, c, "amq.topic", "a", &queues), ["t1*1"]);
    assert!(reached(&mut t, c, "amq.topic", "b.c", &queues).is_empty());
    t.call(c, 1, bind("t1", "amq.fanout", "whatever"), "1 queue.bind-ok");
    t.call(c, 1, bind("t1", "amq.fanout", "else"), "1 queue.bind-ok");
    assert_eq!(reached(&mut t, c, "amq.fanout", "", &queues), ["t1*1"]);
}

#[test]
fn empty_topic_keys() {
    let mut t = Test::new();
    let c = t.channel();
    for (name, key) in [("e0", ""), ("e1", "*"), ("e2", "#"), ("e3", "a..b"), ("e4", "a.*.b")] {
        t.declare(c, 1, name);
        t.call(
            c,
            1,
            Method::QueueBind(queue::Bind {
                queue: name.as_bytes(),
                exchange: b"amq.topic",
                routing_key: key.as_bytes(),
                no_wait: false,
                arguments: encoded(&[]),
            }),
            "1 queue.bind-ok",
        );
    }
    let queues = ["e0", "e1", "e2", "e3", "e4"];
    assert_eq!(reached(&mut t, c, "amq.topic", "", &queues), ["e0*1", "e2*1"]);
    assert_eq!(reached(&mut t, c, "amq.topic", "a..b", &queues), ["e2*1", "e3*1", "e4*1"]);
}

#[test]
fn headers() {
    let mut t = Test::new();
    let c = t.channel();
    let all = table(&[("x-match", Field::Str("all")), ("a", Field::Int(1)), ("b", Field::Str("2"))]);
    let any = table(&[("x-match", Field::Str("any")), ("a", Field::Int(1)), ("b", Field::Str("2"))]);
    let with_x = table(&[("x-match", Field::Str("all-with-x")), ("x-a", Field::Int(1))]);
    for (name, arguments) in [("all", &all), ("any", &any), ("with-x", &with_x)] {
        t.declare(c, 1, name);
        t.call(
            c,
            1,
            Method::QueueBind(queue::Bind {
                queue: name.as_bytes(),
                exchange: b"amq.headers",
                routing_key: b"",
                no_wait: false,
                arguments: encoded(arguments),
            }),
            "1 queue.bind-ok",
        );
    }
    let mut reached = |headers: &[(&str, Field<'_>)]| {
        let headers = table(headers);
        let properties = BasicProperties { headers: Some(encoded(&headers)), ..BasicProperties::default() };
        t.publish_with(c, 1, ("amq.headers", ""), &properties, "x");
        t.take(c);
        ["all", "any", "with-x"].map(|name| {
            let (ready, _) = t.counts(c, 1, name);
            t.ask(c, 1, purge(name));
            ready
        })
    };
    assert_eq!(reached(&[("a", Field::Int(1)), ("b", Field::Str("2"))]), [1, 1, 0]);
    assert_eq!(reached(&[("a", Field::Int(1))]), [0, 1, 0]);
    assert_eq!(reached(&[("a", Field::Int(2)), ("x-a", Field::Int(1))]), [0, 0, 1]);
    assert_eq!(reached(&[]), [0, 0, 0]);
}

#[test]
fn headers_binding_with_a_bad_match() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "h");
    let arguments = table(&[("x-match", Field::Str("most"))]);
    let m = Method::QueueBind(queue::Bind {
        queue: b"h",
        exchange: b"amq.headers",
        routing_key: b"",
        no_wait: false,
        arguments: encoded(&arguments),
    });
    let text = "PRECONDITION_FAILED - Invalid x-match field value <<\"most\">>; expected all, any, all-with-x, or \
                any-with-x";
    t.call(c, 1, m, &format!("1 channel.close 406 {text} 50/20"));
}

#[test]
fn bindings_between_exchanges() {
    let mut t = Test::new();
    let c = t.channel();
    for name in ["e1", "e2", "e3"] {
        t.call(c, 1, Method::ExchangeDeclare(declare_exchange(name, "fanout")), "1 exchange.declare-ok");
    }
    t.declare(c, 1, "end");
    // A circle is no trouble, and the queue gets one.
    for (destination, source) in [("e2", "e1"), ("e3", "e2"), ("e1", "e3")] {
        t.call(c, 1, bind_exchange(destination, source, ""), "1 exchange.bind-ok");
    }
    t.call(c, 1, bind("end", "e3", ""), "1 queue.bind-ok");
    t.call(c, 1, bind("end", "e2", ""), "1 queue.bind-ok");
    assert_eq!(reached(&mut t, c, "e1", "k", &["end"]), ["end*1"]);
    t.call(c, 1, unbind_exchange("e2", "e1", ""), "1 exchange.unbind-ok");
    assert!(reached(&mut t, c, "e1", "k", &["end"]).is_empty());
}

#[test]
fn alternate_exchange() {
    let mut t = Test::new();
    let c = t.channel();
    t.call(c, 1, Method::ExchangeDeclare(declare_exchange("rest", "fanout")), "1 exchange.declare-ok");
    let arguments = table(&[("alternate-exchange", Field::Str("rest"))]);
    let m = exchange::Declare { arguments: encoded(&arguments), ..declare_exchange("first", "direct") };
    t.call(c, 1, Method::ExchangeDeclare(m), "1 exchange.declare-ok");
    t.declare(c, 1, "wanted");
    t.declare(c, 1, "unwanted");
    t.call(c, 1, bind("wanted", "first", "k"), "1 queue.bind-ok");
    t.call(c, 1, bind("unwanted", "rest", ""), "1 queue.bind-ok");
    let queues = ["wanted", "unwanted"];
    assert_eq!(reached(&mut t, c, "first", "k", &queues), ["wanted*1"]);
    assert_eq!(reached(&mut t, c, "first", "other", &queues), ["unwanted*1"]);
}

#[test]
fn auto_delete_exchange_goes_with_its_last_binding() {
    let mut t = Test::new();
    let c = t.channel();
    let m = exchange::Declare { auto_delete: true, ..declare_exchange("brief", "fanout") };
    t.call(c, 1, Method::ExchangeDeclare(m), "1 exchange.declare-ok");
    t.declare(c, 1, "b1");
    t.declare(c, 1, "b2");
    t.call(c, 1, bind("b1", "brief", ""), "1 queue.bind-ok");
    t.call(c, 1, bind("b2", "brief", ""), "1 queue.bind-ok");
    t.call(c, 1, unbind("b1", "brief", ""), "1 queue.unbind-ok");
    let passive = exchange::Declare { passive: true, ..m };
    t.call(c, 1, Method::ExchangeDeclare(passive), "1 exchange.declare-ok");
    t.call(c, 1, Method::QueueDelete(delete("b2")), "1 queue.delete-ok 0");
    let text = "NOT_FOUND - no exchange 'brief' in vhost '/'";
    t.call(c, 1, Method::ExchangeDeclare(passive), &format!("1 channel.close 404 {text} 40/10"));
}

/// A queue of the same name does not inherit the bindings.
#[test]
fn bindings_go_with_their_queue() {
    let mut t = Test::new();
    let c = t.channel();
    t.declare(c, 1, "phoenix");
    t.call(c, 1, bind("phoenix", "amq.direct", "k"), "1 queue.bind-ok");
    t.call(c, 1, Method::QueueDelete(delete("phoenix")), "1 queue.delete-ok 0");
    t.declare(c, 1, "phoenix");
    assert!(reached(&mut t, c, "amq.direct", "k", &["phoenix"]).is_empty());
}
