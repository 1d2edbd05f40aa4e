//! A message, what was promised about it, and what each side says became of it.

use super::{ChanIx, Check, QueueIx};

/// Names a message: its place in [`super::Oracle::messages`], carried in its `message_id`.
pub type MsgId = usize;

/// What must become of a publish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// On its way: it may arrive at the broker, in its turn.
    Open,
    /// It must never arrive: incomplete, rolled back, or sent after an error of its channel.
    Never,
}

/// How often each thing happened to a message, as one side saw it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    /// Delivered or got.
    pub deliveries: u32,
    /// Delivered for an acknowledgement that has not come.
    pub unacked: u32,
    /// Acknowledged, or rejected for good.
    pub gone: u32,
    /// Put back by a nack or reject.
    pub requeued: u32,
    /// Delivered without acknowledgement.
    pub taken: u32,
}

/// One message.
#[derive(Debug)]
pub struct Message {
    /// The channel that published it.
    pub chan: ChanIx,
    /// Octets of body.
    pub size: usize,
    /// Where it was published to.
    pub exchange: Vec<u8>,
    /// With which key.
    pub routing_key: Vec<u8>,
    /// The queues it goes to. Empty: nowhere.
    pub targets: Vec<QueueIx>,
    /// Where an answer goes, for a request.
    pub reply_queue: Option<QueueIx>,
    /// What must become of it.
    pub fate: Fate,
    /// Whether the broker took it, and as which of all that it took.
    pub accepted: Option<u64>,
    /// Whether the client got it back.
    pub returned: bool,
    /// As the broker wrote and read it.
    pub broker: Counts,
    /// As clients read and wrote it.
    pub client: Counts,
    /// Settlements that clients sent before they vanished: each may have been carried out or not.
    pub unsure: u32,
    /// Its publisher's connection ended before the outcome was known: it may have arrived or not.
    pub lenient: bool,
    /// It may have been under way on an upstream connection that was lost, the how manieth loss that was: it may
    /// arrive or not, and out of its turn.
    pub loose: Option<u32>,
    /// Deliveries of it that the broker took back at a loss and that no client was found to hold: each may have arrived
    /// or not, or been settled in vain.
    pub slack: u32,
    /// Some delivery of it was taken back at a loss.
    pub taken_back: bool,
}

impl Message {
    /// Whether the two sides agree, once nothing is under way. `lossy`: a consumer without acknowledgements ended
    /// while deliveries may have been on their way to it.
    pub fn agree(&self, id: MsgId, lossy: bool) -> Check {
        let (broker, client) = (&self.broker, &self.client);
        if broker.unacked > client.unacked || broker.unacked + self.slack < client.unacked {
            return Err(format!(
                "message {id}: the broker waits for {} acknowledgements, clients hold {}",
                broker.unacked, client.unacked
            ));
        }
        let settled = |c: &Counts| c.gone + c.requeued;
        if settled(broker) > settled(client) || settled(broker) + self.unsure + self.slack < settled(client) {
            return Err(format!(
                "message {id}: clients settled it {} times ({} unsure), the broker saw {}",
                settled(client),
                self.unsure + self.slack,
                settled(broker)
            ));
        }
        if client.taken > broker.taken || (client.taken < broker.taken && !lossy) {
            return Err(format!(
                "message {id}: delivered without acknowledgement {} times, {} arrived",
                broker.taken, client.taken
            ));
        }
        Ok(())
    }
}

/// The octet at `place` of the body of message `id`: no two messages and no two places of a frame's size look alike.
fn octet(id: MsgId, place: usize) -> u8 {
    (id.wrapping_mul(31) ^ place.wrapping_mul(7) ^ (place >> 8).wrapping_mul(13)) as u8
}

/// The body of message `id`.
pub fn body(id: MsgId, size: usize) -> Vec<u8> {
    (0..size).map(|place| octet(id, place)).collect()
}

/// Whether `found` is the whole body of message `id`.
pub fn check_body(id: MsgId, size: usize, found: &[u8]) -> Check {
    if found.len() != size {
        return Err(format!("message {id} has {} octets of body, {size} were published", found.len()));
    }
    match found.iter().enumerate().find(|&(place, &value)| octet(id, place) != value) {
        Some((place, _)) => Err(format!("message {id}: octet {place} of its body is another one")),
        None => Ok(()),
    }
}
