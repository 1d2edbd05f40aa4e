//! Exclusive queues belong to one client: they are refused to others and go with it, however it goes.
//! What their owner may do is in `proxy/queues.rs`.

use std::time::Duration;
use warren_testkit::peer::DECLARE;
use warren_testkit::{Peer, Way, both_ways, eventually};
use warren_wire::Method;
use warren_wire::method::queue;

/// How an owner goes.
type Leave = fn(Peer);

/// Says goodbye; vanishes; is reset; is killed.
const WAYS_TO_GO: [(&str, Leave); 4] = [
    ("closes its connection", Peer::close),
    ("drops its socket", drop),
    ("resets its socket", Peer::reset),
    ("is killed", |peer| {
        let mut process = peer.into_process();
        std::thread::sleep(Duration::from_millis(50));
        process.kill().expect("our own process");
        process.wait().expect("our own process");
    }),
];

#[test]
fn an_exclusive_queue_is_gone_however_its_owner_goes() {
    let _alone = crate::alone();
    both_ways(|way| {
        for (how, leave) in WAYS_TO_GO {
            for name in ["mine", ""] {
                owned_and_left(way, how, leave, name);
            }
        }
    });
}

fn owned_and_left(way: &Way, how: &str, leave: Leave, name: &str) {
    let mut owner = way.connect_channel();
    let declare = queue::Declare { queue: name.as_bytes(), exclusive: true, ..DECLARE };
    let (name, _, _) = owner.declare_with(1, &declare);
    owner.open_channel(2);
    owner.open_channel(3);
    owner.publish(2, &name, b"from the owner");
    owner.consume(3, &name, "t", true);
    assert_eq!(owner.delivery(3).text(), "from the owner");
    let mut other = way.connect_channel();
    other.send(1, &Method::QueueDeclare(queue::Declare { queue: name.as_bytes(), passive: true, ..DECLARE }));
    let closed = other.expect_channel_close(1);
    assert_eq!((closed.code, closed.class, closed.method), (405, 50, 10), "{closed:?}");
    assert!(closed.text.starts_with("RESOURCE_LOCKED - cannot obtain exclusive access to locked queue"));
    leave(owner);
    eventually(&format!("{name} is gone when its owner {how}"), Duration::from_secs(60), || {
        way.rabbit.queue(&way.vhost, &name).is_none()
    });
    if !name.starts_with("amq.") {
        other.open_channel(1);
        other.declare_with(1, &queue::Declare { queue: name.as_bytes(), exclusive: true, ..DECLARE });
    }
    other.close();
}
