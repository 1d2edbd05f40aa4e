//! Queues: exclusive ones, names that the broker chooses, names left empty.

use std::time::Duration;
use warren_testkit::peer::{CONSUME, DECLARE};
use warren_testkit::{Peer, both_ways, eventually, same_both_ways};
use warren_wire::method::{basic, exchange, queue};
use warren_wire::{Method, Table};

fn exclusive(name: &[u8]) -> queue::Declare<'_> {
    queue::Declare { queue: name, exclusive: true, ..DECLARE }
}

#[test]
fn an_exclusive_queue_is_locked_for_others_and_goes_with_its_owner() {
    both_ways(|way| {
        let mut owner = way.connect_channel();
        owner.declare_with(1, &exclusive(b"mine"));
        let mut other = way.connect();
        for method in forbidden() {
            other.open_channel(1);
            other.send(1, &method);
            let closed = other.expect_channel_close(1);
            assert_eq!(closed.code, 405, "{method:?}: {closed:?}");
            assert!(
                closed
                    .text
                    .starts_with("RESOURCE_LOCKED - cannot obtain exclusive access to locked queue 'mine'")
            );
        }
        other.open_channel(1);
        other.publish(1, "mine", b"from another"); // publishing is open to all (BROKER-FACTS: exclusive queues)
        owner.consume(1, "mine", "", true);
        assert_eq!(owner.delivery(1).text(), "from another");
        owner.open_channel(2);
        owner.publish(2, "mine", b"from the owner");
        assert_eq!(owner.delivery(1).text(), "from the owner");
        owner.close();
        assert_eq!(way.rabbit.queue(&way.vhost, "mine"), None, "gone when close-ok comes");
        other.declare_with(1, &exclusive(b"mine"));
        drop(other);
        eventually("the queue of a client that vanished is gone", Duration::from_secs(60), || {
            way.rabbit.queue(&way.vhost, "mine").is_none()
        });
    });
}

/// What only the owner of `mine` may do.
fn forbidden() -> Vec<Method<'static>> {
    let delete = queue::Delete { queue: b"mine", if_unused: false, if_empty: false, no_wait: false };
    let bind = queue::Bind {
        queue: b"mine",
        exchange: b"amq.fanout",
        routing_key: b"",
        no_wait: false,
        arguments: Table::EMPTY,
    };
    vec![
        Method::QueueDeclare(exclusive(b"mine")),
        Method::QueueDeclare(queue::Declare { queue: b"mine", passive: true, ..DECLARE }),
        Method::QueueBind(bind),
        Method::BasicConsume(basic::Consume { queue: b"mine", ..CONSUME }),
        Method::BasicGet(basic::Get { queue: b"mine", no_ack: true }),
        Method::QueuePurge(queue::Purge { queue: b"mine", no_wait: false }),
        Method::QueueDelete(delete),
    ]
}

#[test]
fn an_owner_uses_its_exclusive_queue_from_any_channel() {
    both_ways(|way| {
        let mut owner = way.connect();
        for number in 1..=3 {
            owner.open_channel(number);
        }
        // Channel 1 has published before: what it declares now must still be the owner's.
        let before = owner.declare(1, "");
        owner.publish(1, &before, b"x");
        owner.declare_with(1, &exclusive(b"mine"));
        let bind = queue::Bind {
            queue: b"mine",
            exchange: b"amq.fanout",
            routing_key: b"",
            no_wait: false,
            arguments: Table::EMPTY,
        };
        owner.call(2, &Method::QueueBind(bind), queue::BIND_OK);
        owner.consume(3, "mine", "", false);
        let fanout = basic::Publish { exchange: b"amq.fanout", ..warren_testkit::peer::PUBLISH };
        owner.publish_with(2, &fanout, &warren_wire::BasicProperties::default(), b"hello");
        let message = owner.delivery(3);
        owner.ack(3, message.tag(), false);
        owner.cancel(3, &consumer_tag(&message));
        assert_eq!(owner.ready(1, "mine"), 0);
        owner.call(2, &Method::QueuePurge(queue::Purge { queue: b"mine", no_wait: false }), queue::PURGE_OK);
        owner.delete_queue(1, "mine");
        assert_eq!(owner.get(1, &before, true).map(|m| m.text()).as_deref(), Some("x"));
        owner.close();
    });
}

fn consumer_tag(message: &warren_testkit::peer::Message) -> String {
    let Method::BasicDeliver(deliver) = message.frame.method() else { panic!("not a deliver: {message:?}") };
    String::from_utf8_lossy(deliver.consumer_tag).into_owned()
}

#[test]
fn many_owners_of_exclusive_queues_do_not_share_them() {
    both_ways(|way| {
        let mut owners: Vec<(Peer, String)> = Vec::new();
        for _ in 0..10 {
            let mut owner = way.connect_channel();
            let (name, _, _) = owner.declare_with(1, &exclusive(b""));
            owner.consume(1, &name, "", true);
            owners.push((owner, name));
        }
        let first = owners[0].1.clone();
        for (owner, name) in &mut owners[1..] {
            owner.publish(1, name, b"for myself");
            owner.publish(1, &first, b"for the first");
            assert_eq!(owner.delivery(1).text(), "for myself");
        }
        for _ in 1..10 {
            assert_eq!(owners[0].0.delivery(1).text(), "for the first");
        }
        assert_eq!(way.rabbit.queues(&way.vhost).len(), 10);
        owners.into_iter().for_each(|(owner, _)| owner.close());
        assert_eq!(way.rabbit.queues(&way.vhost).len(), 0);
    });
}

#[test]
fn an_empty_name_means_the_queue_declared_last_on_the_channel() {
    both_ways(|way| {
        let mut peer = way.connect();
        peer.open_channel(1);
        peer.open_channel(2);
        let first = peer.declare(1, "");
        let second = peer.declare(2, "");
        assert!(first.starts_with("amq.gen-") && second.starts_with("amq.gen-") && first != second);
        peer.publish(1, &first, b"first");
        peer.publish(1, &second, b"second");
        eventually("both are there", Duration::from_secs(60), || {
            peer.ready(1, &first) == 1 && peer.ready(2, &second) == 1
        });
        assert_eq!(peer.get(2, "", true).expect("a message").text(), "second");
        let bind = queue::Bind {
            queue: b"",
            exchange: b"amq.topic",
            routing_key: b"",
            no_wait: false,
            arguments: Table::EMPTY,
        };
        peer.call(1, &Method::QueueBind(bind), queue::BIND_OK);
        // With both the queue's name and the routing key left empty, the key is the queue's name as well.
        let topic = basic::Publish {
            exchange: b"amq.topic",
            routing_key: first.as_bytes(),
            ..warren_testkit::peer::PUBLISH
        };
        peer.publish_with(2, &topic, &warren_wire::BasicProperties::default(), b"bound");
        peer.consume(1, "", "", true);
        assert_eq!(
            (peer.delivery(1).text(), peer.delivery(1).text()),
            ("first".to_owned(), "bound".to_owned())
        );
        let third = peer.declare(1, "named");
        assert_eq!(third, "named");
        peer.publish(2, "named", b"third");
        eventually("it is there", Duration::from_secs(60), || peer.ready(2, "named") == 1);
        assert_eq!(peer.get(1, "", true).expect("a message").text(), "third");
        peer.close();
    });
}

#[test]
fn an_empty_name_without_a_queue_is_refused() {
    same_both_ways(|way| {
        let mut peer = way.connect();
        let mut seen = Vec::new();
        let get = Method::BasicGet(basic::Get { queue: b"", no_ack: true });
        let consume = Method::BasicConsume(CONSUME);
        let purge = Method::QueuePurge(queue::Purge { queue: b"", no_wait: false });
        for method in [get, consume, purge] {
            peer.open_channel(1);
            peer.send(1, &method);
            seen.push(format!("{:?}", peer.expect_channel_close(1)));
        }
        // A channel of a later client knows no queue of an earlier one.
        let mut first = way.connect_channel();
        first.declare(1, "");
        first.close_channel(1);
        first.close();
        peer.open_channel(1);
        peer.send(1, &get);
        seen.push(format!("{:?}", peer.expect_channel_close(1)));
        peer.close();
        seen
    });
}

#[test]
fn declares_without_an_answer_take_effect_in_order() {
    both_ways(|way| {
        let mut peer = way.connect_channel();
        let declare = queue::Declare { queue: b"quiet", no_wait: true, ..DECLARE };
        peer.send(1, &Method::QueueDeclare(declare));
        peer.publish(1, "quiet", b"x");
        peer.send(1, &Method::QueueDeclare(queue::Declare { no_wait: true, ..DECLARE }));
        let bind = queue::Bind {
            queue: b"",
            exchange: b"amq.fanout",
            routing_key: b"",
            no_wait: true,
            arguments: Table::EMPTY,
        };
        peer.send(1, &Method::QueueBind(bind));
        let fanout = basic::Publish { exchange: b"amq.fanout", ..warren_testkit::peer::PUBLISH };
        peer.publish_with(1, &fanout, &warren_wire::BasicProperties::default(), b"bound");
        assert_eq!(peer.get(1, "", true).expect("what came by the binding").text(), "bound");
        assert_eq!(peer.get(1, "quiet", true).expect("what was sent there").text(), "x");
        peer.close();
    });
}

#[test]
fn exchanges_are_declared_bound_and_deleted() {
    both_ways(|way| {
        let mut peer = way.connect_channel();
        let declare = exchange::Declare {
            exchange: b"source",
            kind: b"topic",
            passive: false,
            durable: false,
            auto_delete: false,
            internal: false,
            no_wait: false,
            arguments: Table::EMPTY,
        };
        peer.call(1, &Method::ExchangeDeclare(declare), exchange::DECLARE_OK);
        let passive = exchange::Declare { passive: true, ..declare };
        peer.call(1, &Method::ExchangeDeclare(passive), exchange::DECLARE_OK);
        let bind = exchange::Bind {
            destination: b"amq.fanout",
            source: b"source",
            routing_key: b"a.*",
            no_wait: false,
            arguments: Table::EMPTY,
        };
        peer.call(1, &Method::ExchangeBind(bind), exchange::BIND_OK);
        let name = peer.declare(1, "");
        let to_queue = queue::Bind {
            queue: name.as_bytes(),
            exchange: b"amq.fanout",
            routing_key: b"",
            no_wait: false,
            arguments: Table::EMPTY,
        };
        peer.call(1, &Method::QueueBind(to_queue), queue::BIND_OK);
        let publish =
            basic::Publish { exchange: b"source", routing_key: b"a.b", ..warren_testkit::peer::PUBLISH };
        peer.publish_with(1, &publish, &warren_wire::BasicProperties::default(), b"through two");
        eventually("it is there", Duration::from_secs(60), || peer.ready(1, &name) == 1);
        let unbind = exchange::Unbind {
            destination: b"amq.fanout",
            source: b"source",
            routing_key: b"a.*",
            no_wait: false,
            arguments: Table::EMPTY,
        };
        peer.call(1, &Method::ExchangeUnbind(unbind), exchange::UNBIND_OK);
        let delete = exchange::Delete { exchange: b"source", if_unused: false, no_wait: false };
        peer.call(1, &Method::ExchangeDelete(delete), exchange::DELETE_OK);
        peer.close();
    });
}
