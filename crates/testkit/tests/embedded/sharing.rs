//! Many clients through Warren, as the embedded broker counts them.

use crate::start;
use std::time::Duration;
use warren_testkit::{Peer, Warren, eventually};

const CLIENTS: u64 = 200;

#[test]
fn short_lived_clients_share_connections_and_channels() {
    let broker = start();
    let mut observer = Peer::connect(broker.address());
    observer.open_channel(1);
    observer.declare(1, "queue");
    let warren = Warren::start_with(broker.address().port(), &["--workers", "2"]);
    let before = broker.counters();
    for n in 0..CLIENTS {
        let mut peer = Peer::connect(warren.address());
        peer.open_channel(1);
        peer.publish(1, "queue", n.to_string().as_bytes());
        peer.close_channel(1);
        peer.close();
    }
    // Closes are answered when the publishes before them are in their queues.
    assert_eq!(observer.ready(1, "queue"), u32::try_from(CLIENTS).expect("few"));
    let after = broker.counters();
    let connections = after.connections_opened - before.connections_opened;
    let channels = after.channels_opened - before.channels_opened;
    assert!((1..=4).contains(&connections), "{connections} connections for {CLIENTS} clients");
    assert!((1..=8).contains(&channels), "{channels} channels for {CLIENTS} clients");
    assert_eq!(after.publishes_accepted - before.publishes_accepted, CLIENTS);
    warren.stop();
    eventually("only the observer is left", Duration::from_secs(60), || {
        broker.with(|broker| broker.connections().count() == 1)
    });
}
