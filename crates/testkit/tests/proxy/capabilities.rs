//! Clients hear only what they announced that they understand: basic.cancel and connection.blocked.

use std::time::Duration;
use warren_testkit::peer::capabilities;
use warren_testkit::{Handshake, Peer, Rabbit, Through, Warren, both_ways, rabbit};
use warren_wire::method::{basic, connection};

const QUIET: Duration = Duration::from_millis(300);

#[test]
fn basic_cancel_is_for_those_who_announced_it() {
    both_ways(|way| {
        let consumer = |names: &[&str]| {
            let handshake = Handshake { properties: capabilities(names), ..way.handshake() };
            let mut peer = Peer::connect_with(way.address(), &handshake);
            peer.open_channel(1);
            peer
        };
        let mut told = consumer(&["consumer_cancel_notify"]);
        let mut silent = consumer(&["basic.nack", "connection.blocked"]);
        let queue = told.declare(1, "");
        told.consume(1, &queue, "t", false);
        silent.consume(1, &queue, "t", false);
        way.observer().delete_queue(1, &queue);
        told.expect(1, basic::CANCEL);
        silent.expect_quiet(QUIET);
        // The tag is free again for both, as the channel is.
        for peer in [&mut told, &mut silent] {
            let queue = peer.declare(1, "");
            peer.publish(1, &queue, b"goes on");
            peer.consume(1, &queue, "u", true);
            assert_eq!(peer.delivery(1).text(), "goes on");
        }
        told.close();
        silent.close();
    });
}

/// Ends an alarm however the test ends.
struct Alarm<'a>(&'a Rabbit);

impl<'a> Alarm<'a> {
    fn raise(rabbit: &'a Rabbit) -> Alarm<'a> {
        rabbit.raise_memory_alarm();
        Alarm(rabbit)
    }
}

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        self.0.clear_memory_alarm();
    }
}

#[test]
fn connection_blocked_is_for_those_who_announced_it_at_their_own_first_publish() {
    let rabbit = rabbit::exclusive();
    let warren = Warren::start(&rabbit);
    for (through, address) in [(Through::Nothing, rabbit.address()), (Through::Warren, warren.address())] {
        println!("{through:?}");
        let publisher = |names: &[&str]| {
            let handshake = Handshake { properties: capabilities(names), ..Handshake::default() };
            let mut peer = Peer::connect_with(address, &handshake);
            peer.open_channel(1);
            peer.confirm_select(1);
            peer
        };
        let mut told = publisher(&["connection.blocked"]);
        let mut silent = publisher(&["basic.nack", "consumer_cancel_notify"]);
        let mut idle = publisher(&["connection.blocked"]);
        let queue = told.declare(1, "");
        for peer in [&mut told, &mut silent, &mut idle] {
            peer.publish(1, &queue, b"before");
            peer.expect_confirms(1, 1, 1);
        }
        let alarm = Alarm::raise(&rabbit);
        // Nobody hears of it who does not publish, not even those who have.
        for peer in [&mut told, &mut silent, &mut idle] {
            peer.expect_quiet(QUIET);
        }
        let mut late = publisher(&["connection.blocked"]);
        for peer in [&mut told, &mut silent, &mut late] {
            peer.publish(1, &queue, b"during");
        }
        told.expect(0, connection::BLOCKED);
        late.expect(0, connection::BLOCKED);
        silent.expect_quiet(QUIET);
        told.publish(1, &queue, b"during"); // told once
        told.expect_quiet(QUIET);
        idle.expect_quiet(QUIET);
        drop(alarm);
        told.expect(0, connection::UNBLOCKED);
        late.expect(0, connection::UNBLOCKED);
        told.expect_confirms(1, 2, 2);
        silent.expect_confirms(1, 2, 1);
        late.expect_confirms(1, 1, 1);
        idle.publish(1, &queue, b"after");
        idle.expect_confirms(1, 2, 1);
        for mut peer in [told, silent, idle, late] {
            peer.expect_quiet(Duration::from_millis(50));
            peer.close();
        }
    }
    warren.stop();
}
