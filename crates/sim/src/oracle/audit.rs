//! What must agree when nothing is under way: no octet on any wire, no frame unprocessed, no mailbox with news.

use warren_broker::Broker;

use super::{Check, Kind, Oracle, QueueIx};
use crate::client::Client;
use crate::client::channel::{Life, State};
use crate::scenario::Scenario;

/// Holds all that is recorded against the broker and the clients.
pub fn quiet(oracle: &Oracle, broker: &Broker, scenario: &Scenario, clients: &[Client]) -> Check {
    arrivals(oracle)?;
    for (id, message) in oracle.messages.iter().enumerate() {
        let lossy = |&queue: &QueueIx| {
            let queue = &oracle.queues[queue];
            queue.lossy || queue.kind == Kind::Reply && queue.deleted
        };
        message.agree(id, message.targets.iter().any(lossy))?;
    }
    for (ix, queue) in oracle.queues.iter().enumerate() {
        let vhost = &scenario.vhosts[queue.vhost];
        match queue.kind {
            Kind::Stable => stable(ix, oracle, broker, vhost)?,
            Kind::Own if queue.exclusive && queue.deleted && broker.queue(vhost, &queue.name).is_some() => {
                let name = String::from_utf8_lossy(&queue.name);
                return Err(format!("the exclusive queue '{name}' has outlived its connection"));
            }
            _ => {}
        }
        if matches!(queue.kind, Kind::Stable | Kind::Fan) {
            consumers(ix, oracle, broker, vhost, clients)?;
        }
    }
    Ok(())
}

/// What was published completely has arrived.
fn arrivals(oracle: &Oracle) -> Check {
    for chan in &oracle.chans {
        let awaited =
            if chan.alive { chan.awaited_sealed(&oracle.messages) } else { chan.awaited(&oracle.messages) };
        if let (Some(id), true) = (awaited, chan.due)
            && !oracle.messages[id].lenient
        {
            return Err(format!(
                "message {id} was published completely and is not at the broker (session {}, channel {})",
                chan.session, chan.number
            ));
        }
    }
    Ok(())
}

/// Nothing in a queue that stays got lost, and nothing came from nowhere.
fn stable(ix: QueueIx, oracle: &Oracle, broker: &Broker, vhost: &str) -> Check {
    let queue = &oracle.queues[ix];
    let name = String::from_utf8_lossy(&queue.name);
    let info = broker.queue(vhost, &queue.name).ok_or_else(|| format!("queue '{name}' is gone"))?;
    let here = oracle.messages.iter().filter(|m| m.accepted.is_some() && m.targets == [ix]);
    let (mut ready, mut unacked) = (0, 0);
    for message in here {
        let counts = &message.broker;
        unacked += counts.unacked as usize;
        ready += 1_usize.saturating_sub((counts.gone + counts.taken + counts.unacked) as usize);
    }
    if info.unacked != unacked || (info.ready != ready && !queue.lossy) {
        return Err(format!(
            "queue '{name}' has {} messages ready and {} to be acknowledged; {ready} and {unacked} are due",
            info.ready, info.unacked
        ));
    }
    Ok(())
}

/// As many consumers at the broker as clients have, and none that waits while it could have something.
fn consumers(ix: QueueIx, oracle: &Oracle, broker: &Broker, vhost: &str, clients: &[Client]) -> Check {
    let queue = &oracle.queues[ix];
    let name = String::from_utf8_lossy(&queue.name);
    let Some(info) = broker.queue(vhost, &queue.name) else { return Ok(()) };
    let (mut live, mut moving) = (0, 0);
    for client in clients {
        for channel in client.channels.iter().filter(|c| c.state != State::Free) {
            for consumer in channel.consumers.iter().filter(|c| c.queue == ix && c.life != Life::Ended) {
                live += 1;
                if consumer.prefetch > 0 && consumer.unacked > 0 {
                    // Warren may be moving it: with a small prefetch it begins again when its client has settled
                    // what it holds, so that it never holds more than it asked for.
                    moving += 1;
                    continue;
                }
                let room = consumer.no_ack || consumer.prefetch == 0 || consumer.unacked < consumer.prefetch;
                if room && info.ready > 0 && channel.tx_settles.is_empty() {
                    return Err(format!(
                        "queue '{name}' has {} messages ready and a consumer with room, '{}'",
                        info.ready,
                        String::from_utf8_lossy(&consumer.tag)
                    ));
                }
            }
        }
    }
    if info.consumers > live || info.consumers + moving < live {
        return Err(format!("queue '{name}' has {} consumers, clients have {live}", info.consumers));
    }
    Ok(())
}
