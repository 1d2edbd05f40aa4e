//! Consumers and what they deliver: consume, cancel, ack, nack, reject, recover.

use warren_wire::frame::{Frame, HEADER_LEN, get_u64, put_u64, set_channel};
use warren_wire::method::{Method, basic};

use crate::channel::{Consumer, ConsumerState, Switch};
use crate::client::Flow;
use crate::engine::Engine;
use crate::fault::Fault;
use crate::flow::To;
use crate::ids::{ChannelId, UpChannelId};
use crate::requests::encoded;
use crate::switch::Need;
use crate::upstream::Note;

/// Direct reply-to: its consumer is only a name on the channel.
const REPLY_TO: &[u8] = b"amq.rabbitmq.reply-to";
/// Where the delivery tag stands in the payload of ack, nack and reject.
const TAG_AT: usize = 4;

impl Engine {
    pub(crate) fn client_consumes(
        &mut self,
        id: ChannelId,
        consume: &basic::Consume<'_>,
        frame: &[u8],
    ) -> Result<Flow, Fault> {
        let at = (60, 20);
        let Some(queue) = self.queue_name(id, consume.queue, at)? else { return Ok(Flow::Hold) };
        let tag = consume.consumer_tag;
        let known = self.channels[id].consumer(tag).map(|at| self.channels[id].consumers[at].state);
        let in_use = known.is_some_and(|state| !matches!(state, ConsumerState::Ending { .. }));
        if !tag.is_empty() && in_use {
            let detail = format!("attempt to reuse consumer tag '{}'", String::from_utf8_lossy(tag));
            return Err(Fault::connection(530, detail, at));
        }
        let reply_to = *queue == *REPLY_TO;
        let need = if reply_to {
            Need::ConsumeAndPublish
        } else {
            match self.need_for_queue(id, &queue) {
                Need::Lane => Need::Lane,
                _ => Need::Consume,
            }
        };
        let Some(up) = self.ensure(id, need) else {
            return Ok(Flow::Hold);
        };
        self.fits_upstream(up, frame)?;
        if !consume.no_wait && !self.may_ask(id, up) {
            return Ok(Flow::Hold);
        }
        let prefetch = self.channels[id].prefetch;
        self.apply_prefetch(id, up, prefetch);
        let movable = !reply_to && !consume.exclusive && self.survives_its_consumers(id, &queue);
        let channel = &mut self.channels[id];
        channel.pinned |= reply_to;
        channel.consumers.push(Consumer {
            tag: tag.into(),
            queue: queue.clone(),
            no_local: consume.no_local,
            no_ack: consume.no_ack,
            exclusive: consume.exclusive,
            arguments: encoded(consume.arguments),
            prefetch,
            up,
            state: ConsumerState::Starting,
            reply_to,
            movable,
        });
        self.up_channels[up].dirty = true;
        let note = Note::Consume { tag: tag.into() };
        // Its tag must be known, even when the client does not wait for it.
        let method = Method::BasicConsume(basic::Consume { queue: &queue, no_wait: false, ..*consume });
        if consume.no_wait {
            self.ask_quietly(up, note, method);
        } else {
            self.ask(id, up, note, method);
        }
        Ok(Flow::Done)
    }

    /// Whether a queue is known to outlive its last consumer, so that a consumer can be moved.
    fn survives_its_consumers(&self, id: ChannelId, queue: &[u8]) -> bool {
        self.channel_tenant(id).is_some_and(|t| self.tenants[t].durable_names.contains(queue))
    }

    pub(crate) fn client_cancels(
        &mut self,
        id: ChannelId,
        cancel: &basic::Cancel<'_>,
    ) -> Result<Flow, Fault> {
        let tag = cancel.consumer_tag;
        let answer = !cancel.no_wait;
        let Some(at) = self.channels[id].consumer(tag) else {
            // As RabbitMQ does for a tag that it does not know.
            if answer {
                self.answer(id, Method::BasicCancelOk(basic::CancelOk { consumer_tag: tag }));
            }
            return Ok(Flow::Done);
        };
        let consumer = &mut self.channels[id].consumers[at];
        let up = consumer.up;
        match consumer.state {
            ConsumerState::Cancelling => consumer.state = ConsumerState::Ending { answer },
            ConsumerState::Settling => {
                self.channels[id].consumers.remove(at);
                if answer {
                    self.answer(id, Method::BasicCancelOk(basic::CancelOk { consumer_tag: tag }));
                }
                self.retire_if_done(id, up);
            }
            ConsumerState::Starting | ConsumerState::Active => {
                if answer && !self.may_ask(id, up) {
                    return Ok(Flow::Hold);
                }
                self.channels[id].consumers[at].state = ConsumerState::Ending { answer: false };
                let note = Note::Cancel { tag: tag.into() };
                let method = Method::BasicCancel(basic::Cancel { consumer_tag: tag, no_wait: false });
                if answer {
                    self.ask(id, up, note, method);
                } else {
                    self.ask_quietly(up, note, method);
                }
            }
            ConsumerState::Ending { .. } => {
                if answer {
                    self.answer(id, Method::BasicCancelOk(basic::CancelOk { consumer_tag: tag }));
                }
            }
        }
        Ok(Flow::Done)
    }

    /// basic.ack, the everyday way: one binding, a tag that is outstanding.
    #[inline]
    pub(crate) fn ack_run(&mut self, id: ChannelId, buf: &mut [u8], frame: &Frame) -> Option<usize> {
        let channel = &self.channels[id];
        let up = channel.current?;
        if !channel.deliveries.only(up) || frame.payload(buf).len() != TAG_AT + 9 {
            return None;
        }
        let at = frame.start + HEADER_LEN + TAG_AT;
        let tag = get_u64(buf, at);
        let multiple = buf[at + 8] & 1 == 1;
        if tag == 0 {
            return None;
        }
        let up_tag = channel.deliveries.find(tag)?.up_number(tag);
        let state = self.up_channels.get_mut(up)?;
        if multiple {
            if !state.unacked.contains(up_tag) {
                return None;
            }
            state.unacked.settle_through(up_tag);
        } else if !state.unacked.settle(up_tag) {
            return None;
        }
        put_u64(buf, at, up_tag);
        set_channel(buf, frame.start, state.number);
        let to = To::Upstream(state.upstream);
        self.pass(to, frame.start, frame.end);
        Some(frame.end)
    }

    /// ack, nack and reject, whatever they refer to.
    pub(crate) fn client_settles(
        &mut self,
        id: ChannelId,
        tag: u64,
        multiple: bool,
        frame: &[u8],
        at: (u16, u16),
    ) -> Result<Flow, Fault> {
        let unknown = || Fault::channel(406, format!("unknown delivery tag {tag}"), at);
        let through: Vec<(UpChannelId, u64)> = if tag == 0 && multiple {
            let outstanding = |up: &UpChannelId| Some((*up, self.up_channels.get(*up)?.unacked.highest()?));
            self.channels[id].bindings().iter().filter_map(outstanding).collect()
        } else {
            let segment = self.channels[id].deliveries.find(tag).filter(|_| tag > 0).ok_or_else(unknown)?;
            let up_tag = segment.up_number(tag);
            let known = self.up_channels.get(segment.up).is_some_and(|s| s.unacked.contains(up_tag));
            if !known || tag >= self.channels[id].next_delivery {
                return Err(unknown());
            }
            if multiple { self.outstanding_through(id, tag) } else { vec![(segment.up, up_tag)] }
        };
        if self.prove_before_ack(id, &through) {
            return Ok(Flow::Hold);
        }
        for (up, up_tag) in through {
            let state = &mut self.up_channels[up];
            let settled = if multiple {
                state.unacked.settle_through(up_tag) > 0
            } else {
                state.unacked.settle(up_tag)
            };
            if settled {
                let mut copy = frame.to_vec();
                put_u64(&mut copy, HEADER_LEN + TAG_AT, up_tag);
                self.pass_frame(up, &copy);
            }
            self.retire_if_done(id, up);
        }
        Ok(Flow::Done)
    }

    /// For each binding, the highest outstanding tag among the client's tags up to `tag`.
    fn outstanding_through(&self, id: ChannelId, tag: u64) -> Vec<(UpChannelId, u64)> {
        let mut through: Vec<(UpChannelId, u64)> = Vec::new();
        for (segment, last) in self.channels[id].deliveries.ranges() {
            if segment.first > tag {
                break;
            }
            let Some(state) = self.up_channels.get(segment.up) else {
                continue;
            };
            let limit = segment.up_number(last.min(tag));
            let Some(highest) = state.unacked.iter().take_while(|t| *t <= limit).last() else {
                continue;
            };
            match through.iter_mut().find(|(up, _)| *up == segment.up) {
                Some(entry) => entry.1 = highest,
                None => through.push((segment.up, highest)),
            }
        }
        through
    }

    /// An ack that goes to another binding than the publishes before it must not overtake them: the message that
    /// it settles may be the reason for a publish that is not routed yet.
    fn prove_before_ack(&mut self, id: ChannelId, through: &[(UpChannelId, u64)]) -> bool {
        let Some(current) = self.channels[id].current else {
            return false;
        };
        if through.iter().all(|(up, _)| *up == current) {
            return false;
        }
        let state = &self.up_channels[current];
        if !state.unproven && state.unconfirmed.is_empty() {
            return false;
        }
        self.channels[id].switch = Switch::ProvingForAck;
        self.send_barrier(current);
        true
    }

    pub(crate) fn client_recovers(
        &mut self,
        id: ChannelId,
        requeue: bool,
        answer: bool,
    ) -> Result<Flow, Fault> {
        let at = (60, if answer { 110 } else { 100 });
        if !requeue {
            return Err(Fault::connection(540, "requeue=false", at));
        }
        let channel = &self.channels[id];
        let current = channel.current;
        let older: Vec<UpChannelId> = channel.older.clone();
        if let Some(up) = current
            && answer
            && !self.may_ask(id, up)
        {
            return Ok(Flow::Hold);
        }
        let method = Method::BasicRecover(basic::Recover { requeue: true });
        for up in older {
            self.ask_quietly(up, Note::Recover, method);
        }
        match current {
            Some(up) if answer => self.ask(id, up, Note::Recover, method),
            Some(up) => self.ask_quietly(up, Note::Recover, method),
            None if answer => self.answer(id, Method::BasicRecoverOk),
            None => {}
        }
        Ok(Flow::Done)
    }
}
