//! Contents that come to a channel: deliveries, messages got, and returns, whole and intact.

use warren_wire::frame::FRAME_HEADER;
use warren_wire::{BasicProperties, ContentHeader};

use super::channel::{Channel, Held, Hold};
use super::{Ctx, Me};
use crate::cover::Path;
use crate::oracle::message::{MsgId, check_body};
use crate::oracle::{Check, QueueIx};

/// A content that is coming.
#[derive(Debug)]
pub struct Incoming {
    /// What its method was.
    pub what: What,
    /// Where it comes from; `None` for a return.
    pub queue: Option<QueueIx>,
    /// As the method said.
    pub exchange: Vec<u8>,
    /// As the method said.
    pub routing_key: Vec<u8>,
    /// Once the header has come.
    pub header: Option<Header>,
    /// So far.
    pub body: Vec<u8>,
}

/// What the header said.
#[derive(Debug)]
pub struct Header {
    id: MsgId,
    size: u64,
    reply_to: Option<Vec<u8>>,
}

/// The method of a content.
#[derive(Clone, Copy, Debug)]
pub enum What {
    /// Basic.deliver to the consumer at `place`.
    Delivery {
        /// Which consumer.
        place: usize,
        /// Delivery tag.
        tag: u64,
        /// Said to be delivered again.
        redelivered: bool,
    },
    /// Basic.get-ok.
    Got {
        /// Delivery tag.
        tag: u64,
        /// Nothing to settle.
        no_ack: bool,
        /// What it must be, if that can be known.
        exactly: Option<Option<MsgId>>,
    },
    /// Basic.return.
    Return,
}

impl Channel {
    /// A header or body has come.
    pub fn content(&mut self, kind: u8, payload: &[u8], me: Me, ctx: &mut Ctx<'_>) -> Check {
        let Some(incoming) = &mut self.incoming else {
            return Err("content that no method announced".to_owned());
        };
        match (kind, &incoming.header) {
            (FRAME_HEADER, None) => {
                let header = ContentHeader::peek(payload).ok_or("a content header cut short")?;
                let properties = BasicProperties::parse(&payload[12..]).map_err(|e| e.to_string())?;
                incoming.header = Some(Header {
                    id: ctx.oracle.find(properties.message_id)?,
                    size: header.body_size,
                    reply_to: properties.reply_to.map(<[u8]>::to_vec),
                });
            }
            (FRAME_HEADER, Some(_)) => return Err("a second content header".to_owned()),
            (_, None) => return Err("a body before its header".to_owned()),
            (_, Some(_)) => incoming.body.extend_from_slice(payload),
        }
        let size = incoming.header.as_ref().map_or(0, |header| header.size);
        if (incoming.body.len() as u64) < size {
            return Ok(());
        }
        match self.incoming.take() {
            Some(incoming) => self.complete(&incoming, me, ctx),
            None => Ok(()),
        }
    }

    fn complete(&mut self, incoming: &Incoming, me: Me, ctx: &mut Ctx<'_>) -> Check {
        let Some(header) = &incoming.header else { return Ok(()) };
        let id = header.id;
        let message = &ctx.oracle.messages[id];
        check_body(id, message.size, &incoming.body)?;
        if message.exchange != incoming.exchange || message.routing_key != incoming.routing_key {
            return Err(format!(
                "message {id} comes as '{}' '{}'",
                String::from_utf8_lossy(&incoming.exchange),
                String::from_utf8_lossy(&incoming.routing_key)
            ));
        }
        match (incoming.what, incoming.queue) {
            (What::Delivery { place, tag, redelivered }, Some(queue)) => {
                self.delivered(id, place, tag, redelivered, queue, me, ctx)?;
                if self.role == super::plan::Role::Responder {
                    self.owe(id, header.reply_to.as_deref(), ctx);
                }
                Ok(())
            }
            (What::Got { tag, no_ack, exactly }, Some(queue)) => {
                ctx.cover.hit(Path::GetOk);
                if let Some(exactly) = exactly {
                    ctx.cover.hit(Path::ReadOwnWrite);
                    if exactly != Some(id) {
                        return Err(format!("message {id} was got where {exactly:?} was next"));
                    }
                }
                ctx.oracle.delivered(id, queue, no_ack)?;
                if !no_ack {
                    self.held.insert(tag, Held { msg: id, consumer: None, hold: Hold::Fresh });
                }
                Ok(())
            }
            _ => self.complete_return(id, ctx),
        }
    }

    fn complete_return(&mut self, id: MsgId, ctx: &mut Ctx<'_>) -> Check {
        // A loss may have taken the returns of those before, or of queues that others would have gone to.
        let place = self.returns_due.iter().position(|&due| due == id);
        let before = self.returns_due.iter().take(place.unwrap_or(0));
        if !self.murky && (place.is_none() || { before }.any(|&due| ctx.oracle.messages[due].loose.is_none()))
        {
            return Err(format!("message {id} was returned, due was {:?}", self.returns_due.front()));
        }
        self.returns_due.retain(|&due| due != id);
        ctx.oracle.messages[id].returned = true;
        ctx.cover.hit(Path::Returned);
        ctx.oracle.must_be_accepted(id, "it was returned")
    }

    #[allow(clippy::too_many_arguments)] // what a delivery consists of
    fn delivered(
        &mut self,
        id: MsgId,
        place: usize,
        tag: u64,
        redelivered: bool,
        queue: QueueIx,
        me: Me,
        ctx: &mut Ctx<'_>,
    ) -> Check {
        ctx.cover.hit(if redelivered { Path::Redelivered } else { Path::Deliver });
        let consumer = &mut self.consumers[place];
        ctx.oracle.delivered(id, queue, consumer.no_ack)?;
        let mut in_vain = self.held.values().filter(|held| held.hold == Hold::Stale);
        if !redelivered && ctx.oracle.messages[id].targets.len() == 1 && in_vain.any(|held| held.msg == id) {
            return Err(format!("message {id} came again after a loss and is not said to be redelivered"));
        }
        let stood = ctx.oracle.messages[id].accepted.unwrap_or(0);
        if !redelivered {
            if stood <= consumer.last {
                return Err(format!("message {id} came after one that was published later to its queue"));
            }
            consumer.last = stood;
        }
        if consumer.reply {
            ctx.cover.hit(Path::Reply);
        }
        if consumer.no_ack {
            return Ok(());
        }
        // What comes before recover-ok is not what the broker delivered after it.
        let (recovering, before) = (self.recovering, self.recovers_before);
        let here = |recover: u64| !recovering || recover <= before;
        if let Some(orphan) =
            consumer.orphans.iter().position(|&(orphan, recover)| orphan == id && here(recover))
        {
            consumer.orphans.swap_remove(orphan);
            self.held.insert(tag, Held { msg: id, consumer: Some(place), hold: Hold::Unsure });
            return Ok(());
        }
        consumer.unacked += 1;
        // A consumer that Warren has moved may begin again while its client holds what came before, so that a
        // client which settles in batches goes on: once more its prefetch, never more.
        if consumer.prefetch > 0 && consumer.unacked > 2 * consumer.prefetch {
            return Err(format!(
                "session {}: {} deliveries wait for acknowledgement, prefetch is {}",
                me.session, consumer.unacked, consumer.prefetch
            ));
        }
        if consumer.prefetch > 0 && consumer.unacked == consumer.prefetch {
            ctx.cover.hit(Path::PrefetchHeld);
        }
        self.held.insert(tag, Held { msg: id, consumer: Some(place), hold: Hold::Fresh });
        Ok(())
    }

    /// A request wants a reply.
    fn owe(&mut self, id: MsgId, reply_to: Option<&[u8]>, ctx: &Ctx<'_>) {
        if let (Some(address), Some(queue)) = (reply_to, ctx.oracle.messages[id].reply_queue) {
            self.owed.push_back((address.to_vec(), queue));
        }
    }
}
