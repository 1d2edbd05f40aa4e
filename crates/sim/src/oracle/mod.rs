//! What must be true: a record of all that clients asked for, held against what the broker did and what clients saw.
//!
//! - [`message`]: one message and both sides' counts of what happened to it.
//! - [`chan`]: what one client's channel published and settled, in order.
//! - [`tap`]: the broker's side, read off its connections.
//! - [`loss`]: what the end of an upstream connection leaves uncertain, and nothing else.
//! - [`audit`]: what must agree when nothing is under way.

pub mod audit;
pub mod chan;
pub mod loss;
pub mod message;
pub mod tap;

use std::collections::{BTreeMap, BTreeSet};

use chan::Chan;
use message::{Counts, Fate, Message, MsgId};

/// A check that failed says what is wrong.
pub type Check<T = ()> = Result<T, String>;
/// Names a queue: its place in [`Oracle::queues`].
pub type QueueIx = usize;
/// Names the life of a client's channel from open to close: its place in [`Oracle::chans`].
pub type ChanIx = usize;

/// What a queue is to the oracle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// There from the beginning to the end and never purged: nothing in it may get lost. Gets messages of its own only.
    Stable,
    /// As stable, with copies of the same messages as the other fan queues.
    Fan,
    /// Declared by a client.
    Own,
    /// Direct reply-to of one channel.
    Reply,
}

/// One queue.
#[derive(Debug)]
pub struct Queue {
    /// Its virtual host.
    pub vhost: usize,
    /// Its name; empty while the server has chosen one and nobody was told.
    pub name: Vec<u8>,
    /// What it is to the oracle.
    pub kind: Kind,
    /// Exclusive to a client (its number among all sessions) that has it now.
    pub owner: Option<usize>,
    /// A consumer without acknowledgements ended while deliveries may have been on their way to it.
    pub lossy: bool,
    /// It was declared exclusive.
    pub exclusive: bool,
    /// Its owner deleted it, or ended.
    pub deleted: bool,
    /// Somebody else deleted it, or took the right to it: its consumers must be told.
    pub taken: bool,
}

/// The record.
#[derive(Debug, Default)]
pub struct Oracle {
    /// Every message that was begun.
    pub messages: Vec<Message>,
    /// Every channel that a client opened.
    pub chans: Vec<Chan>,
    /// Every queue.
    pub queues: Vec<Queue>,
    /// Whose consumer a tag is, and of which queue: tags that clients choose are unlike all others.
    pub tags: BTreeMap<Vec<u8>, (ChanIx, QueueIx)>,
    /// Upstream connections lost so far.
    pub losses: u32,
    /// Deliveries that the broker took back because their connection was lost: to be told to those who hold them.
    pub taken_back: Vec<loss::TakenBack>,
    /// Consumers whose connection was lost.
    pub orphan_tags: BTreeSet<Vec<u8>>,
    /// Of those, how many were begun again elsewhere.
    pub resumed: u64,
    /// Codes with which the broker has closed connections for cause, and of which nobody was told yet.
    pub causes: Vec<u16>,
    /// Times that the broker was asked to deliver everything of a channel again.
    pub recovers: u64,
    /// Messages that were under way or held when a connection was lost, and went through a later one.
    pub moved: u64,
    accepted: u64,
}

impl Oracle {
    /// A new queue.
    pub fn add_queue(&mut self, vhost: usize, name: &[u8], kind: Kind) -> QueueIx {
        self.queues.push(Queue {
            vhost,
            name: name.to_vec(),
            kind,
            owner: None,
            lossy: false,
            exclusive: false,
            deleted: false,
            taken: false,
        });
        self.queues.len() - 1
    }

    /// The queues of one kind in one virtual host.
    pub fn queues_of(&self, vhost: usize, kind: Kind) -> impl Iterator<Item = QueueIx> + '_ {
        let fits = move |q: &Queue| q.vhost == vhost && q.kind == kind;
        self.queues.iter().enumerate().filter(move |(_, q)| fits(q)).map(|(ix, _)| ix)
    }

    /// A channel was opened by session number `session`.
    pub fn add_chan(&mut self, session: usize, number: u16, strict: bool) -> ChanIx {
        self.chans.push(Chan::new(session, number, strict));
        self.chans.len() - 1
    }

    /// A publish was begun.
    pub fn add_message(&mut self, chan: ChanIx, size: usize, exchange: &[u8], key: &[u8]) -> MsgId {
        self.messages.push(Message {
            chan,
            size,
            exchange: exchange.to_vec(),
            routing_key: key.to_vec(),
            targets: Vec::new(),
            reply_queue: None,
            fate: Fate::Open,
            accepted: None,
            returned: false,
            broker: Counts::default(),
            client: Counts::default(),
            unsure: 0,
            lenient: false,
            loose: None,
            slack: 0,
            taken_back: false,
        });
        self.messages.len() - 1
    }

    /// The message that a `message_id` names.
    pub fn find(&self, message_id: Option<&[u8]>) -> Check<MsgId> {
        let text = message_id.and_then(|id| std::str::from_utf8(id).ok());
        let id = text.and_then(|text| text.parse::<usize>().ok()).filter(|&id| id < self.messages.len());
        id.ok_or_else(|| format!("a message that nobody published, message_id {text:?}"))
    }

    /// The broker has taken a publish: it must be whole, the next of its channel, and come once.
    pub fn accept(&mut self, id: MsgId, by: loss::Taker) -> Check {
        let message = &mut self.messages[id];
        if message.accepted.is_some() {
            return Err(format!("message {id} was published twice"));
        }
        if message.fate == Fate::Never {
            return Err(format!("message {id} was published and never should have been"));
        }
        let (chan, loose) = (message.chan, message.loose);
        self.moved += u64::from(loose.is_some_and(|loss| by.born >= loss));
        self.chans[chan].accept(id, by, &self.messages)?;
        self.accepted += 1;
        self.messages[id].accepted = Some(self.accepted);
        Ok(())
    }

    /// A publish must have been taken by now.
    pub fn must_be_accepted(&self, id: MsgId, why: &str) -> Check {
        match self.messages[id].accepted {
            Some(_) => Ok(()),
            None => Err(format!("message {id} is not at the broker though {why}")),
        }
    }

    /// A client was told that all that the channel published was processed.
    pub fn prove(&self, chan: ChanIx, why: &str) -> Check {
        match self.chans[chan].awaited(&self.messages) {
            Some(id) => self.must_be_accepted(id, why),
            None => Ok(()),
        }
    }

    /// A client has seen a message come from `queue`.
    pub fn delivered(&mut self, id: MsgId, queue: QueueIx, no_ack: bool) -> Check {
        let message = &mut self.messages[id];
        if !message.targets.contains(&queue) {
            let name = String::from_utf8_lossy(&self.queues[queue].name);
            return Err(format!("message {id} came from queue '{name}', which it was not published to"));
        }
        message.client.deliveries += 1;
        if message.client.deliveries > message.broker.deliveries {
            return Err(format!("message {id} was delivered more often than the broker did"));
        }
        if no_ack {
            message.client.taken += 1;
        } else {
            message.client.unacked += 1;
        }
        Ok(())
    }

    /// The channel that held these deliveries does so no longer, without having settled them.
    pub fn release(&mut self, ids: impl Iterator<Item = MsgId>) {
        for id in ids {
            self.messages[id].client.unacked -= 1;
        }
    }
}
