//! One channel at the broker, as its frames tell of it.

use std::collections::{BTreeMap, VecDeque};

use warren_wire::frame::{FRAME_BODY, FRAME_HEADER};
use warren_wire::method::basic;
use warren_wire::{BasicProperties, ContentHeader, Method};

use crate::oracle::chan::Settle;
use crate::oracle::loss::{TakenBack, Taker};
use crate::oracle::message::MsgId;
use crate::oracle::{ChanIx, Check, Oracle};

#[derive(Debug, Default)]
pub(super) struct TapChan {
    /// The broker has closed it; frames are ignored until close-ok.
    pub(super) closing: bool,
    publish: Option<Content>,
    writing: Option<Content>,
    tx: Option<Tx>,
    /// What waits for an acknowledgement, and whose it is: a place in `tags`.
    unacked: BTreeMap<u64, (MsgId, Option<usize>)>,
    /// By tag. They stay until cancel-ok.
    consumers: BTreeMap<Vec<u8>, Subscriber>,
    /// Consumers whose tags the broker has not told yet, in order.
    unnamed: VecDeque<Subscriber>,
    /// Consumers without acknowledgements that have ended.
    past: Vec<Vec<u8>>,
    /// Tags that deliveries came under.
    tags: Vec<Vec<u8>>,
    get_no_ack: bool,
    /// The last basic.recover here, or what Warren made of one: what is unsettled was delivered after it.
    recover: u64,
}

/// Whose a content is.
#[derive(Debug)]
pub(super) enum Whose {
    Chan(ChanIx),
    /// A consumer's, whose client may not know its tag yet.
    Tag(Vec<u8>),
    Got,
}

/// A consumer.
#[derive(Clone, Debug)]
struct Subscriber {
    no_ack: bool,
    queue: Vec<u8>,
    /// Its place in [`TapChan::tags`], once something was delivered to it.
    place: Option<usize>,
}

/// A content, method to last body.
#[derive(Debug)]
struct Content {
    what: What,
    id: Option<MsgId>,
    left: u64,
}

#[derive(Clone, Copy, Debug)]
enum What {
    Publish,
    Return,
    /// `None`: no acknowledgement is due.
    Delivery {
        tag: Option<u64>,
        to: Option<usize>,
    },
}

#[derive(Debug, Default)]
struct Tx {
    publishes: Vec<MsgId>,
    settled: Vec<(u64, (MsgId, Option<usize>), Settle)>,
}

impl TapChan {
    pub(super) fn before(&mut self, method: &Method<'_>) {
        match method {
            Method::BasicConsume(m) => {
                let new = Subscriber { no_ack: m.no_ack, queue: m.queue.to_vec(), place: None };
                if m.consumer_tag.is_empty() {
                    self.unnamed.push_back(new);
                } else {
                    self.consumers.insert(m.consumer_tag.to_vec(), new);
                }
            }
            Method::BasicGet(m) => self.get_no_ack = m.no_ack,
            _ => {}
        }
    }

    pub(super) fn after(
        &mut self,
        kind: u8,
        payload: &[u8],
        method: Option<Method<'_>>,
        by: Taker,
        oracle: &mut Oracle,
    ) -> Check {
        match kind {
            FRAME_HEADER | FRAME_BODY => {
                if advance(&mut self.publish, kind, payload, oracle)?
                    && let Some(id) = self.publish.take().and_then(|content| content.id)
                {
                    return self.published(id, by, oracle);
                }
                Ok(())
            }
            _ => method.map_or(Ok(()), |method| self.after_method(method, by, oracle)),
        }
    }

    fn after_method(&mut self, method: Method<'_>, by: Taker, oracle: &mut Oracle) -> Check {
        match method {
            Method::BasicPublish(_) => {
                self.publish = Some(Content { what: What::Publish, id: None, left: 0 });
                Ok(())
            }
            Method::BasicAck(m) => self.settle(m.delivery_tag, m.multiple, Settle::Gone, oracle),
            Method::BasicNack(m) => self.settle(m.delivery_tag, m.multiple, fate(m.requeue), oracle),
            Method::BasicReject(m) => self.settle(m.delivery_tag, false, fate(m.requeue), oracle),
            Method::BasicRecover(_) | Method::BasicRecoverAsync(_) => {
                for (_, (id, _)) in std::mem::take(&mut self.unacked) {
                    oracle.messages[id].broker.unacked -= 1;
                }
                self.recovers(oracle);
                Ok(())
            }
            Method::TxSelect => {
                self.tx.get_or_insert_default();
                Ok(())
            }
            Method::TxCommit => {
                let tx = self.tx.replace(Tx::default()).unwrap_or_default();
                tx.publishes.iter().try_for_each(|&id| oracle.accept(id, by))?;
                tx.settled.iter().try_for_each(|&(_, (id, _), how)| settled(id, how, oracle).map(|_| ()))
            }
            Method::TxRollback => {
                let tx = self.tx.replace(Tx::default()).unwrap_or_default();
                self.unacked.extend(tx.settled.into_iter().map(|(tag, held, _)| (tag, held)));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn published(&mut self, id: MsgId, by: Taker, oracle: &mut Oracle) -> Check {
        match &mut self.tx {
            Some(tx) => {
                tx.publishes.push(id);
                Ok(())
            }
            None => oracle.accept(id, by),
        }
    }

    fn settle(&mut self, tag: u64, multiple: bool, how: Settle, oracle: &mut Oracle) -> Check {
        let covered: Vec<(u64, (MsgId, Option<usize>))> = match (multiple, tag) {
            (true, 0) => std::mem::take(&mut self.unacked).into_iter().collect(),
            (true, _) => {
                let rest = self.unacked.split_off(&(tag + 1));
                std::mem::replace(&mut self.unacked, rest).into_iter().collect()
            }
            (false, _) => self.unacked.remove(&tag).map(|held| (tag, held)).into_iter().collect(),
        };
        for (tag, held) in covered {
            match &mut self.tx {
                Some(tx) => tx.settled.push((tag, held, how)),
                None if settled(held.0, how, oracle)? => {}
                None => self.recovers(oracle),
            }
        }
        Ok(())
    }

    fn recovers(&mut self, oracle: &mut Oracle) {
        oracle.recovers += 1;
        self.recover = oracle.recovers;
    }

    /// The channel writes a frame. Tells whose content is complete with it.
    pub(super) fn output(
        &mut self,
        kind: u8,
        payload: &[u8],
        method: Option<Method<'_>>,
        oracle: &mut Oracle,
    ) -> Check<Option<Whose>> {
        if matches!(kind, FRAME_HEADER | FRAME_BODY) {
            if advance(&mut self.writing, kind, payload, oracle)?
                && let Some(Content { what, id: Some(id), .. }) = self.writing.take()
            {
                self.written(what, id, oracle);
                return Ok(match what {
                    What::Delivery { to: Some(to), .. } => Some(Whose::Tag(self.tags[to].clone())),
                    What::Return => Some(Whose::Chan(oracle.messages[id].chan)),
                    What::Delivery { to: None, .. } => Some(Whose::Got),
                    What::Publish => None,
                });
            }
            return Ok(None);
        }
        let Some(method) = method else { return Ok(None) };
        let what = match method {
            Method::BasicReturn(_) => What::Return,
            Method::BasicDeliver(m) => {
                let consumer = self.consumers.get_mut(m.consumer_tag);
                let consumer = consumer.ok_or("a delivery to a consumer that is not there")?;
                let place = *consumer.place.get_or_insert_with(|| {
                    self.tags.push(m.consumer_tag.to_vec());
                    self.tags.len() - 1
                });
                What::Delivery { tag: (!consumer.no_ack).then_some(m.delivery_tag), to: Some(place) }
            }
            Method::BasicGetOk(m) => {
                What::Delivery { tag: (!self.get_no_ack).then_some(m.delivery_tag), to: None }
            }
            other => return self.told(other).map(|()| None),
        };
        self.writing = Some(Content { what, id: None, left: 0 });
        Ok(None)
    }

    fn told(&mut self, method: Method<'_>) -> Check {
        match method {
            Method::BasicConsumeOk(m) if !self.consumers.contains_key(m.consumer_tag) => {
                let new = self.unnamed.pop_front().ok_or("a consume-ok that nobody asked for")?;
                self.consumers.insert(m.consumer_tag.to_vec(), new);
            }
            Method::BasicCancelOk(basic::CancelOk { consumer_tag })
            | Method::BasicCancel(basic::Cancel { consumer_tag, .. }) => {
                let ended = self.consumers.remove(consumer_tag).filter(|c| c.no_ack);
                self.past.extend(ended.map(|_| consumer_tag.to_vec()));
            }
            _ => {}
        }
        Ok(())
    }

    fn written(&mut self, what: What, id: MsgId, oracle: &mut Oracle) {
        let What::Delivery { tag, to } = what else { return };
        let counts = &mut oracle.messages[id].broker;
        counts.deliveries += 1;
        match tag {
            Some(tag) => {
                counts.unacked += 1;
                self.unacked.insert(tag, (id, to));
            }
            None => counts.taken += 1,
        }
    }

    /// The channel ends, and what it had not settled goes back to the queues. What waited for a consumer without
    /// acknowledgements is lost, and was never written. `lost`: with its connection, so that clients may hold it still.
    pub(super) fn end(&mut self, lost: bool, oracle: &mut Oracle) {
        let held = self.tx.take().unwrap_or_default();
        let held = held.settled.into_iter().map(|(_, held, _)| held);
        for (id, to) in held.chain(std::mem::take(&mut self.unacked).into_values()) {
            oracle.messages[id].broker.unacked -= 1;
            if lost {
                let tag = to.map(|place| self.tags[place].clone());
                oracle.taken_back.push(TakenBack { id, tag, recover: self.recover });
            }
        }
        for (tag, consumer) in std::mem::take(&mut self.consumers) {
            match oracle.tags.get(&tag) {
                _ if !consumer.no_ack => {}
                Some(&(_, queue)) => oracle.queues[queue].lossy = true,
                // Its client does not know the tag yet.
                None => oracle.make_lossy(&consumer.queue),
            }
        }
        for tag in self.past.drain(..).filter(|_| lost) {
            // What was delivered before its end may not have been read.
            if let Some(&(_, queue)) = oracle.tags.get(&tag) {
                oracle.queues[queue].lossy = true;
            }
        }
        self.publish = None;
        self.writing = None;
    }

    /// Consumers that are here.
    pub(super) fn consumer_tags(&self) -> impl Iterator<Item = &[u8]> {
        self.consumers.keys().map(Vec::as_slice)
    }
}

/// Goes on with a content; true when it is complete.
fn advance(content: &mut Option<Content>, kind: u8, payload: &[u8], oracle: &Oracle) -> Check<bool> {
    let Some(content) = content else { return Ok(false) };
    if kind == FRAME_HEADER {
        let header = ContentHeader::peek(payload).ok_or("a content header that is cut short")?;
        let properties = payload.get(12..).and_then(|rest| BasicProperties::parse(rest).ok());
        content.left = header.body_size;
        // Clients leave the id out only where the broker will refuse the message.
        let id = properties.and_then(|p| p.message_id);
        content.id = id.map(|id| oracle.find(Some(id))).transpose()?;
    } else {
        let size = payload.len() as u64;
        content.left = content.left.checked_sub(size).ok_or("more body than announced")?;
    }
    Ok(content.left == 0)
}

/// False when no client can be seen to have done it.
fn settled(id: MsgId, how: Settle, oracle: &mut Oracle) -> Check<bool> {
    let message = &mut oracle.messages[id];
    let (mine, theirs, what) = match how {
        Settle::Gone => (&mut message.broker.gone, message.client.gone, "acknowledged"),
        Settle::Requeue => (&mut message.broker.requeued, message.client.requeued, "requeued"),
    };
    message.broker.unacked -= 1;
    if matches!(how, Settle::Requeue) && *mine >= theirs {
        // Warren requeues what an older binding had delivered before its client's recover. Were it wrong, the
        // client would hold what the broker does not wait for, which is checked at the end.
        return Ok(false);
    }
    *mine += 1;
    if *mine > theirs {
        return Err(format!("message {id} was {what}, and no client did that"));
    }
    Ok(true)
}

fn fate(requeue: bool) -> Settle {
    if requeue { Settle::Requeue } else { Settle::Gone }
}
