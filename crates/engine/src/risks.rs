//! Requests that a broker may answer by closing the whole connection, depending on what kind of queue they meet
//! (BROKER-FACTS, "Killers that depend on the broker's state"). Where the kind is not known they run on a connection in
//! quarantine; what went well once is safe until the queue is declared or deleted again.

use warren_wire::table::{Table, Value};

use crate::engine::Engine;
use crate::ids::{ChannelId, UpChannelId, UpstreamId};
use crate::switch::Need;
use crate::tenant::{Known, Names};
use crate::upstream::Purpose;

/// What is risky about a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Risk {
    /// basic.get: not on streams.
    Get,
    /// queue.purge: not on streams.
    Purge,
    /// basic.consume without acknowledgements: not on streams.
    NoAck,
    /// basic.consume behind a prefetch for the whole channel: not on quorum queues and streams.
    GlobalQos,
    /// queue.delete if unused or if empty: not on quorum queues.
    DeleteIf,
}

/// What is known of a queue's kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Classic,
    Stream,
    /// A quorum queue, or not known.
    Other,
}

/// All of them.
const RISKS: [Risk; 5] = [Risk::Get, Risk::Purge, Risk::NoAck, Risk::GlobalQos, Risk::DeleteIf];

impl Engine {
    /// Where a request about a queue must run, which is risky unless the queue is a classic one.
    pub(crate) fn need_for_risk(&self, id: ChannelId, queue: &[u8], risk: Risk) -> Need {
        let need = self.need_for_queue(id, queue);
        let safe = |k: &Known| k.classic.contains(queue) || k.safe.contains(&key(risk, queue));
        let known = self.known(id).is_some_and(safe);
        if need == Need::Lane || known { need } else { Need::Quarantine }
    }

    /// A risky request went well.
    pub(crate) fn is_safe(&mut self, id: ChannelId, queue: &[u8], risk: Risk) {
        if let Some(known) = self.known_mut(id).filter(|k| !k.classic.contains(queue)) {
            known.safe.insert(&key(risk, queue));
        }
    }

    /// Whether a text speaks of a queue that is consumed on a binding: the close for a nack names the queue, and
    /// nothing else tells whose it was.
    pub(crate) fn is_named(&self, up: UpChannelId, text: &[u8]) -> bool {
        let owner = self.up_channels.get(up).and_then(|s| s.owner).and_then(|o| self.channels.get(o));
        let text = String::from_utf8_lossy(text);
        let named = |queue: &[u8]| text.contains(&format!("'{}'", String::from_utf8_lossy(queue)));
        owner.is_some_and(|c| c.consumers.iter().any(|c| c.up == up && named(&c.queue)))
    }

    /// A queue was declared or deleted: what was known of one of its name counts no more.
    pub(crate) fn queue_is_new(&mut self, id: ChannelId, queue: &[u8], kind: Kind) {
        let Some(known) = self.known_mut(id) else { return };
        RISKS.iter().for_each(|risk| known.safe.remove(&key(*risk, queue)));
        for (names, of) in [(&mut known.classic, Kind::Classic), (&mut known.streams, Kind::Stream)] {
            if kind == of {
                names.insert(queue);
            } else {
                names.remove(queue);
            }
        }
    }

    /// Whether a queue is known to be a stream. What its consumers may not do shows only when they do it (nack).
    pub(crate) fn is_stream(&self, id: ChannelId, queue: &[u8]) -> bool {
        self.known(id).is_some_and(|k| k.streams.contains(queue))
    }

    /// What is known of the queues that a channel can name. A queue is the same for all users, so they share it.
    pub(crate) fn known(&self, id: ChannelId) -> Option<&Known> {
        let tenant = self.tenants.get(self.channel_tenant(id)?)?;
        self.farms[tenant.farm].known.get(&tenant.vhost)
    }

    pub(crate) fn known_mut(&mut self, id: ChannelId) -> Option<&mut Known> {
        let tenant = self.tenants.get(self.channel_tenant(id)?)?;
        Some(self.farms[tenant.farm].known.entry(tenant.vhost.clone()).or_default())
    }

    /// A broker has closed a connection for cause on which nothing was at risk, as far as was known: something that was
    /// known is known no more (a queue was declared anew past this worker), and so what is risky is tried apart again.
    pub(crate) fn doubt_what_is_safe(&mut self, id: UpstreamId) {
        let upstream = &self.upstreams[id];
        let shared = !matches!(upstream.purpose, Purpose::Lane | Purpose::Quarantine);
        if let Some(tenant) = upstream.tenant.filter(|_| shared).and_then(|t| self.tenants.get(t))
            && let Some(known) = self.farms[tenant.farm].known.get_mut(&tenant.vhost)
        {
            (known.classic, known.safe) = (Names::default(), Names::default());
        }
    }
}

/// What a declare that succeeds says about its queue's kind: a broker refuses one that names another kind than the
/// queue has. `default`: what a queue is when its declare names none; `None` where an operator may have chosen that.
pub(crate) fn kind_of(arguments: Table<'_>, default: Option<bool>) -> Kind {
    match arguments.get(b"x-queue-type") {
        Some(Value::Str(b"classic")) => Kind::Classic,
        Some(Value::Str(b"stream")) => Kind::Stream,
        None if default == Some(true) => Kind::Classic,
        _ => Kind::Other,
    }
}

fn key(risk: Risk, queue: &[u8]) -> Vec<u8> {
    let mut key = vec![risk as u8];
    key.extend_from_slice(queue);
    key
}
