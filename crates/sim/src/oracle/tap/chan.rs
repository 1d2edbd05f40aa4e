//! One channel at the broker, as its frames tell of it.

use std::collections::{BTreeMap, VecDeque};

use warren_wire::frame::{FRAME_BODY, FRAME_HEADER};
use warren_wire::method::basic;
use warren_wire::{BasicProperties, ContentHeader, Method};

use crate::oracle::chan::Settle;
use crate::oracle::message::MsgId;
use crate::oracle::{Check, Oracle};

#[derive(Debug, Default)]
pub(super) struct TapChan {
    /// The broker has closed it; frames are ignored until close-ok.
    pub(super) closing: bool,
    publish: Option<Content>,
    writing: Option<Content>,
    tx: Option<Tx>,
    unacked: BTreeMap<u64, MsgId>,
    /// Tag, and whether without acknowledgements. They stay until cancel-ok.
    consumers: BTreeMap<Vec<u8>, bool>,
    /// Consumers whose tags the broker has not told yet, in order: whether without acknowledgements.
    unnamed: VecDeque<bool>,
    get_no_ack: bool,
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
    },
}

#[derive(Debug, Default)]
struct Tx {
    publishes: Vec<MsgId>,
    settled: Vec<(u64, MsgId, Settle)>,
}

impl TapChan {
    pub(super) fn before(&mut self, method: &Method<'_>) {
        match method {
            Method::BasicConsume(m) => {
                if m.consumer_tag.is_empty() {
                    self.unnamed.push_back(m.no_ack);
                } else {
                    self.consumers.insert(m.consumer_tag.to_vec(), m.no_ack);
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
        oracle: &mut Oracle,
    ) -> Check {
        match kind {
            FRAME_HEADER | FRAME_BODY => {
                if advance(&mut self.publish, kind, payload, oracle)?
                    && let Some(id) = self.publish.take().and_then(|content| content.id)
                {
                    return self.published(id, oracle);
                }
                Ok(())
            }
            _ => method.map_or(Ok(()), |method| self.after_method(method, oracle)),
        }
    }

    fn after_method(&mut self, method: Method<'_>, oracle: &mut Oracle) -> Check {
        match method {
            Method::BasicPublish(_) => {
                self.publish = Some(Content { what: What::Publish, id: None, left: 0 });
                Ok(())
            }
            Method::BasicAck(m) => self.settle(m.delivery_tag, m.multiple, Settle::Gone, oracle),
            Method::BasicNack(m) => self.settle(m.delivery_tag, m.multiple, fate(m.requeue), oracle),
            Method::BasicReject(m) => self.settle(m.delivery_tag, false, fate(m.requeue), oracle),
            Method::BasicRecover(_) | Method::BasicRecoverAsync(_) => {
                for (_, id) in std::mem::take(&mut self.unacked) {
                    oracle.messages[id].broker.unacked -= 1;
                }
                Ok(())
            }
            Method::TxSelect => {
                self.tx.get_or_insert_default();
                Ok(())
            }
            Method::TxCommit => {
                let tx = self.tx.replace(Tx::default()).unwrap_or_default();
                tx.publishes.iter().try_for_each(|&id| oracle.accept(id))?;
                tx.settled.iter().try_for_each(|&(_, id, how)| settled(id, how, oracle))
            }
            Method::TxRollback => {
                let tx = self.tx.replace(Tx::default()).unwrap_or_default();
                self.unacked.extend(tx.settled.into_iter().map(|(tag, id, _)| (tag, id)));
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn published(&mut self, id: MsgId, oracle: &mut Oracle) -> Check {
        match &mut self.tx {
            Some(tx) => {
                tx.publishes.push(id);
                Ok(())
            }
            None => oracle.accept(id),
        }
    }

    fn settle(&mut self, tag: u64, multiple: bool, how: Settle, oracle: &mut Oracle) -> Check {
        let covered: Vec<(u64, MsgId)> = match (multiple, tag) {
            (true, 0) => std::mem::take(&mut self.unacked).into_iter().collect(),
            (true, _) => {
                let rest = self.unacked.split_off(&(tag + 1));
                std::mem::replace(&mut self.unacked, rest).into_iter().collect()
            }
            (false, _) => self.unacked.remove(&tag).map(|id| (tag, id)).into_iter().collect(),
        };
        for (tag, id) in covered {
            match &mut self.tx {
                Some(tx) => tx.settled.push((tag, id, how)),
                None => settled(id, how, oracle)?,
            }
        }
        Ok(())
    }

    pub(super) fn output(
        &mut self,
        kind: u8,
        payload: &[u8],
        method: Option<Method<'_>>,
        oracle: &mut Oracle,
    ) -> Check {
        if matches!(kind, FRAME_HEADER | FRAME_BODY) {
            if advance(&mut self.writing, kind, payload, oracle)?
                && let Some(Content { what, id: Some(id), .. }) = self.writing.take()
            {
                self.written(what, id, oracle);
            }
            return Ok(());
        }
        let Some(method) = method else { return Ok(()) };
        let what = match method {
            Method::BasicReturn(_) => What::Return,
            Method::BasicDeliver(m) => {
                let consumer = self.consumers.get(m.consumer_tag);
                let no_ack = *consumer.ok_or("a delivery to a consumer that is not there")?;
                What::Delivery { tag: (!no_ack).then_some(m.delivery_tag) }
            }
            Method::BasicGetOk(m) => What::Delivery { tag: (!self.get_no_ack).then_some(m.delivery_tag) },
            other => return self.told(other),
        };
        self.writing = Some(Content { what, id: None, left: 0 });
        Ok(())
    }

    fn told(&mut self, method: Method<'_>) -> Check {
        match method {
            Method::BasicConsumeOk(m) if !self.consumers.contains_key(m.consumer_tag) => {
                let no_ack = self.unnamed.pop_front().ok_or("a consume-ok that nobody asked for")?;
                self.consumers.insert(m.consumer_tag.to_vec(), no_ack);
            }
            Method::BasicCancelOk(basic::CancelOk { consumer_tag })
            | Method::BasicCancel(basic::Cancel { consumer_tag, .. }) => {
                self.consumers.remove(consumer_tag);
            }
            _ => {}
        }
        Ok(())
    }

    fn written(&mut self, what: What, id: MsgId, oracle: &mut Oracle) {
        let What::Delivery { tag } = what else { return };
        let counts = &mut oracle.messages[id].broker;
        counts.deliveries += 1;
        match tag {
            Some(tag) => {
                counts.unacked += 1;
                self.unacked.insert(tag, id);
            }
            None => counts.taken += 1,
        }
    }

    /// The channel ends, and what it had not settled goes back to the queues. What waited for a consumer without
    /// acknowledgements is lost, and was never written.
    pub(super) fn end(&mut self, oracle: &mut Oracle) {
        let held = self.tx.take().unwrap_or_default();
        let ids = held.settled.iter().map(|&(_, id, _)| id);
        for id in ids.chain(std::mem::take(&mut self.unacked).into_values()) {
            oracle.messages[id].broker.unacked -= 1;
        }
        for (tag, no_ack) in std::mem::take(&mut self.consumers) {
            if no_ack && let Some(&(_, queue)) = oracle.tags.get(&tag) {
                oracle.queues[queue].lossy = true;
            }
        }
        self.publish = None;
        self.writing = None;
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

fn settled(id: MsgId, how: Settle, oracle: &mut Oracle) -> Check {
    let message = &mut oracle.messages[id];
    let (mine, theirs, what) = match how {
        Settle::Gone => (&mut message.broker.gone, message.client.gone, "acknowledged"),
        Settle::Requeue => (&mut message.broker.requeued, message.client.requeued, "requeued"),
    };
    message.broker.unacked -= 1;
    if matches!(how, Settle::Requeue) && *mine >= theirs {
        // Warren requeues what an older binding had delivered before its client's recover. Were it wrong, the
        // client would hold what the broker does not wait for, which is checked at the end.
        return Ok(());
    }
    *mine += 1;
    if *mine > theirs {
        return Err(format!("message {id} was {what}, and no client did that"));
    }
    Ok(())
}

fn fate(requeue: bool) -> Settle {
    if requeue { Settle::Requeue } else { Settle::Gone }
}
