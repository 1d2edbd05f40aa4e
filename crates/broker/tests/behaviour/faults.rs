//! Alarms and restarts.

use crate::support::*;
use warren_broker::Options;
use warren_wire::BasicProperties;
use warren_wire::Method;
use warren_wire::method::{exchange, queue};

#[test]
fn alarm_blocks_publishers_only() {
    let mut t = Test::model(Options::default());
    let publisher = t.channel();
    let consumer = t.channel();
    t.declare(consumer, 1, "q");
    t.consume(consumer, 1, "q", "t");
    t.broker().set_blocked(true);
    t.expect(publisher, &[] as &[&str]);
    t.publish(publisher, 1, "", "q", "1");
    t.publish(publisher, 1, "", "q", "2");
    // Told at the first content header; not even its body is read.
    t.expect(publisher, &["0 connection.blocked low on memory"]);
    t.expect(consumer, &[] as &[&str]);
    t.call(consumer, 1, flow(true), "1 channel.flow-ok true");
    t.send(publisher, 1, flow(true));
    t.expect(publisher, &[] as &[&str]);
    t.broker().set_blocked(false);
    t.expect(publisher, &["0 connection.unblocked", "1 channel.flow-ok true"]);
    t.expect(consumer, &["1 basic.deliver t 1 '' 'q' [1] 1", "1 basic.deliver t 2 '' 'q' [1] 2"]);
}

#[test]
fn alarm_is_told_to_those_who_asked() {
    let mut t = Test::model(Options::default());
    t.broker().set_blocked(true);
    let c = t.connect();
    t.log_in(c, &Login { capabilities: &[], ..Login::default() });
    t.take(c);
    t.open(c, 1);
    t.publish_mandatory(c, 1, "", "nowhere", "x");
    t.send(c, 1, flow(true));
    t.expect(c, &[] as &[&str]);
    t.broker().set_blocked(false);
    t.expect(c, &["1 basic.return 312 NO_ROUTE '' 'nowhere' [1] x", "1 channel.flow-ok true"]);
}

/// The header alone is enough to be blocked.
#[test]
fn alarm_in_the_middle_of_a_content() {
    let mut t = Test::model(Options::default());
    let c = t.channel();
    t.send(c, 1, publish("", "q", true));
    t.expect(c, &[] as &[&str]);
    t.broker().set_blocked(true);
    t.header(c, 1, 1);
    t.frame(c, 3, 1, b"x");
    t.expect(c, &["0 connection.blocked low on memory"]);
    t.broker().set_blocked(false);
    t.expect(c, &["0 connection.unblocked", "1 basic.return 312 NO_ROUTE '' 'q' [1] x"]);
}

#[test]
fn restart_keeps_what_is_durable() {
    let mut t = Test::model(Options::default());
    let c = t.channel();
    let lasting = queue::Declare { durable: true, ..declare("lasting") };
    t.call(c, 1, Method::QueueDeclare(lasting), "1 queue.declare-ok lasting 0 0");
    t.declare(c, 1, "transient");
    let x = exchange::Declare { durable: true, ..declare_exchange("lasting", "fanout") };
    t.call(c, 1, Method::ExchangeDeclare(x), "1 exchange.declare-ok");
    let x = declare_exchange("transient", "fanout");
    t.call(c, 1, Method::ExchangeDeclare(x), "1 exchange.declare-ok");
    t.call(c, 1, bind("lasting", "lasting", ""), "1 queue.bind-ok");
    let persistent = BasicProperties { delivery_mode: Some(2), ..BasicProperties::default() };
    t.publish_with(c, 1, ("", "lasting"), &persistent, "p1");
    t.publish(c, 1, "", "lasting", "t1");
    t.publish_with(c, 1, ("", "lasting"), &persistent, "p2");
    t.call(c, 1, get("lasting", false), "1 basic.get-ok 1 '' 'lasting' 2 [2] p1");

    t.broker().restart();
    assert!(t.closed(c));
    let names: Vec<&[u8]> = t.broker().queue_names("/").collect();
    assert_eq!(names, [b"lasting"]);
    assert!(t.broker().has_exchange("/", b"lasting"));
    assert!(!t.broker().has_exchange("/", b"transient"));
    let c = t.channel();
    t.publish_with(c, 1, ("lasting", ""), &persistent, "p3");
    t.call(c, 1, get("lasting", true), "1 basic.get-ok 1 again '' 'lasting' 2 [2] p1");
    t.call(c, 1, get("lasting", true), "1 basic.get-ok 2 '' 'lasting' 1 [2] p2");
    t.call(c, 1, get("lasting", true), "1 basic.get-ok 3 'lasting' '' 0 [2] p3");
}

/// Nothing of a connection is left when it is gone, however it went.
#[test]
fn nothing_leaks() {
    let mut t = Test::model(Options::default());
    for way in 0..3 {
        let c = t.channel();
        t.open(c, 7);
        t.send(c, 1, Method::QueueDeclare(queue::Declare { exclusive: true, ..declare("") }));
        t.send(c, 1, Method::QueueDeclare(queue::Declare { auto_delete: true, ..declare("auto") }));
        t.send(c, 1, Method::BasicConsume(consume("auto", "t")));
        t.send(c, 7, confirm_select());
        t.publish(c, 7, "", "auto", "x");
        t.send(c, 7, publish("", "auto", false));
        match way {
            0 => t.disconnect(c),
            1 => {
                let id = t.id(c);
                t.settle();
                t.broker().reset(id);
            }
            _ => {
                t.send(c, 0, close_connection());
                t.settle();
            }
        }
        let broker = t.broker();
        assert_eq!(broker.channels_open(), 0);
        assert_eq!(broker.connections_open(), 0);
        assert_eq!(broker.queue_names("/").count(), 0);
    }
}
