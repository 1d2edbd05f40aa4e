//! What a channel is told, held against what is due to it.

use warren_wire::method::{basic, channel, queue, split_id};
use warren_wire::{Method, MethodId};

use super::channel::{Channel, Hold, Life, Mark, Mode, State, Unit};
use super::content::{Incoming, What};
use super::{Ctx, Me};
use crate::cover::Path;
use crate::oracle::message::MsgId;
use crate::oracle::{Check, QueueIx};

/// An answer that comes in its turn.
#[derive(Clone, Debug, PartialEq)]
pub enum Expect {
    /// This method, which carries nothing to check.
    Method(MethodId),
    /// Channel.open-ok.
    OpenOk,
    /// Channel.close-ok.
    CloseOk,
    /// Queue.declare-ok, with so many messages if that can be known.
    DeclareOk(QueueIx, Option<usize>),
    /// Queue.purge-ok, with so many messages if that can be known.
    PurgeOk(Option<usize>),
    /// Queue.delete-ok, with so many messages if that can be known.
    DeleteOk(Option<usize>),
    /// Get-ok or get-empty.
    Get {
        /// From where.
        queue: QueueIx,
        /// Nothing to settle.
        no_ack: bool,
        /// What it must bring, if that can be known.
        exactly: Option<Option<MsgId>>,
    },
    /// Basic.recover-ok.
    RecoverOk,
    /// Tx.rollback-ok.
    RollbackOk,
    /// Channel.close with one of these codes, blaming this method.
    Error {
        /// Any of them will do.
        codes: &'static [u16],
        /// The method to blame.
        method: MethodId,
    },
}

/// An answer that a queue gives in its own time: later ones of the other kind may overtake it.
#[derive(Clone, Debug, PartialEq)]
pub enum Mail {
    /// For the consumer at this place.
    ConsumeOk(usize),
    /// For the consumer at this place.
    CancelOk(usize),
    /// Tx.commit-ok: by then these are at the broker.
    CommitOk(Vec<MsgId>),
}

impl Channel {
    /// A method has come.
    pub fn method(&mut self, method: Method<'_>, me: Me, ctx: &mut Ctx<'_>) -> Check {
        if self.incoming.is_some() {
            return Err(format!("{method:?} in the middle of a content"));
        }
        if let State::Answering { await_ok } = self.state {
            return match method {
                Method::ChannelCloseOk if await_ok => {
                    self.state = State::Answering { await_ok: false };
                    Ok(())
                }
                _ => Err(format!("{method:?} after channel.close")),
            };
        }
        match method {
            Method::BasicDeliver(m) => self.deliver(m, ctx),
            Method::BasicReturn(m) => self.returned(m),
            Method::BasicAck(m) => self.confirmed(m.delivery_tag, m.multiple, ctx),
            Method::BasicNack(m) => self.refused(m.delivery_tag, m.multiple, ctx),
            Method::BasicConsumeOk(m) => self.consume_ok(m, ctx),
            Method::BasicCancelOk(m) => self.cancel_ok(m, ctx),
            Method::BasicCancel(m) => self.cancelled(m, me, ctx),
            Method::TxCommitOk => self.commit_ok(ctx),
            Method::ChannelClose(m) => self.error_close(m, ctx),
            _ => self.answer(method, ctx),
        }
    }

    /// The answer to the request that is first in line.
    fn answer(&mut self, method: Method<'_>, ctx: &mut Ctx<'_>) -> Check {
        let due = self.expect.pop_front();
        match (&due, method) {
            (Some(Expect::OpenOk), Method::ChannelOpenOk) => {
                if self.state == State::Opening {
                    self.state = State::Open;
                }
                Ok(())
            }
            (Some(Expect::CloseOk), Method::ChannelCloseOk) => self.close_ok(ctx),
            (Some(Expect::DeclareOk(queue, count)), Method::QueueDeclareOk(m)) => {
                declare_ok(*queue, *count, m, ctx)
            }
            (Some(Expect::PurgeOk(count)), Method::QueuePurgeOk(m)) => same_count(*count, m.message_count),
            (Some(Expect::DeleteOk(count)), Method::QueueDeleteOk(m)) => same_count(*count, m.message_count),
            (Some(Expect::Get { queue, no_ack, exactly }), Method::BasicGetOk(m)) => {
                self.get_ok(m, *queue, *no_ack, *exactly)
            }
            (Some(Expect::Get { exactly, .. }), Method::BasicGetEmpty) => {
                ctx.cover.hit(Path::GetEmpty);
                match exactly.flatten() {
                    Some(id) => {
                        Err(format!("get-empty, but message {id} was published before on this channel"))
                    }
                    None => Ok(()),
                }
            }
            (Some(Expect::RecoverOk), Method::BasicRecoverOk) => {
                ctx.cover.hit(Path::Recovered);
                self.recovering = false;
                self.release_held(ctx);
                Ok(())
            }
            (Some(Expect::RollbackOk), Method::TxRollbackOk) => {
                ctx.cover.hit(Path::RolledBack);
                Ok(())
            }
            (Some(Expect::Method(id)), method) if *id == method.id() => Ok(()),
            _ => Err(format!("{method:?}, due was {due:?}")),
        }
    }

    /// Recover puts everything back, and nothing of it may be settled any more.
    fn release_held(&mut self, ctx: &mut Ctx<'_>) {
        let held = std::mem::take(&mut self.held);
        held.values().for_each(|&held| self.uncount(held));
        let counted = held.into_values().filter(|held| held.hold != Hold::Stale);
        ctx.oracle.release(counted.map(|held| held.msg));
    }

    fn close_ok(&mut self, ctx: &mut Ctx<'_>) -> Check {
        ctx.cover.hit(Path::ChannelClosed);
        ctx.oracle.prove(self.chan, "its channel was closed with close-ok")?;
        ctx.cover.hit(Path::Proved);
        if let Some(id) = self.return_due(ctx) {
            return Err(format!("message {id} was not returned before close-ok"));
        }
        self.end(ctx);
        Ok(())
    }

    fn error_close(&mut self, m: channel::Close<'_>, ctx: &mut Ctx<'_>) -> Check {
        let blamed = u32::from(m.class_id) << 16 | u32::from(m.method_id);
        let text = String::from_utf8_lossy(m.reply_text);
        let due = self.expect.pop_front();
        if self.murky && matches!(m.reply_code, 403..=405) {
            // Which of its methods met with the error is not known, and so neither what came before it.
            ctx.oracle.loosen(self.chan, u64::MAX - 1);
            self.closed_by_error(ctx);
            return Ok(());
        }
        let Some(Expect::Error { codes, method }) = due else {
            return Err(format!(
                "channel.close {} '{text}' for {:?}, due was {due:?}",
                m.reply_code,
                split_id(blamed)
            ));
        };
        if !codes.contains(&m.reply_code) || method != blamed {
            return Err(format!(
                "channel.close {} '{text}' for {:?}, due was one of {codes:?} for {:?}",
                m.reply_code,
                split_id(blamed),
                split_id(method)
            ));
        }
        if !text.starts_with(warren_wire::reply::code_name(m.reply_code)) {
            return Err(format!("channel.close {} says '{text}'", m.reply_code));
        }
        self.cover_error(m.reply_code, method, ctx);
        if let Some(id) = self.return_due(ctx) {
            return Err(format!("message {id} was not returned before channel.close"));
        }
        ctx.oracle.prove(self.chan, "a later method of its channel was answered with channel.close")?;
        self.closed_by_error(ctx);
        Ok(())
    }

    fn closed_by_error(&mut self, ctx: &mut Ctx<'_>) {
        self.forget_queues(ctx);
        self.expect.clear();
        self.mail.clear();
        self.unconfirmed.clear();
        self.drop_outgoing();
        ctx.oracle.drop_unsealed(self.chan);
        self.release(ctx);
        if self.close_written {
            self.expect.push_back(Expect::CloseOk);
        }
        self.consumers.clear();
        self.send(&Method::ChannelCloseOk, Mark::CloseOk);
        self.state = State::Answering { await_ok: self.close_written };
    }

    /// What was not written is forgotten, except the rest of a content: a method in the middle of one would cost the
    /// connection.
    fn drop_outgoing(&mut self) {
        let rest = self.outgoing.iter().take_while(|unit| unit.mark == Mark::ContentPart).count() + 1;
        self.outgoing.truncate(if self.in_content { rest } else { 0 });
        // What they complete is forgotten by the record too.
        let seals = |unit: &&mut Unit| matches!(unit.mark, Mark::Seal { .. });
        self.outgoing
            .iter_mut()
            .filter(seals)
            .for_each(|unit| unit.mark = Mark::Seal { sealed: 0, settles: 0 });
    }

    fn cover_error(&self, code: u16, method: MethodId, ctx: &mut Ctx<'_>) {
        ctx.cover.hit(Path::ErrorClose);
        if code == 405 {
            ctx.cover.hit(Path::Locked);
        }
        if (code, method) == (404, basic::PUBLISH) {
            ctx.cover.hit(Path::MissingExchange);
        }
        if self.in_content {
            ctx.cover.hit(Path::ContentCutByError);
        }
    }

    fn confirmed(&mut self, tag: u64, multiple: bool, ctx: &mut Ctx<'_>) -> Check {
        if self.mode != Mode::Confirm {
            return Err("a confirm on a channel that is not in confirm mode".to_owned());
        }
        ctx.cover.hit(if multiple { Path::ConfirmMultiple } else { Path::ConfirmSingle });
        for id in self.take_unconfirmed(tag, multiple)? {
            ctx.oracle.must_be_accepted(id, "it was confirmed")?;
            if self.returns_due.contains(&id) {
                return Err(format!("message {id} was confirmed before it was returned"));
            }
        }
        Ok(())
    }

    /// What a confirm covers.
    pub(super) fn take_unconfirmed(&mut self, tag: u64, multiple: bool) -> Check<Vec<MsgId>> {
        let covered: Vec<MsgId> = if multiple {
            let rest = self.unconfirmed.split_off(&tag.saturating_add(1));
            std::mem::replace(&mut self.unconfirmed, rest).into_values().collect()
        } else {
            self.unconfirmed.remove(&tag).into_iter().collect()
        };
        if (covered.is_empty() || tag >= self.confirm_next) && !self.murky {
            return Err(format!("a confirm of {tag} (multiple: {multiple}), which was not outstanding"));
        }
        Ok(covered)
    }

    fn consume_ok(&mut self, m: basic::ConsumeOk<'_>, ctx: &mut Ctx<'_>) -> Check {
        // One whose client left the name to the broker may be overtaken by one of direct reply-to, so the name decides.
        let named = |mail: &Mail, name: &[u8]| matches!(*mail, Mail::ConsumeOk(place) if self.consumers[place].tag == name);
        let exact = self.mail.iter().position(|mail| named(mail, m.consumer_tag));
        let found = exact.or_else(|| self.mail.iter().position(|mail| named(mail, b"")));
        let found = found.ok_or("a consume-ok that is not due")?;
        let Mail::ConsumeOk(place) = self.mail.remove(found) else { return Ok(()) };
        let consumer = &mut self.consumers[place];
        if consumer.tag.is_empty() {
            ctx.cover.hit(Path::ConsumedNamedByServer);
            consumer.tag = m.consumer_tag.to_vec();
            ctx.oracle.tags.insert(m.consumer_tag.to_vec(), (self.chan, consumer.queue));
        }
        if consumer.life == Life::Asked {
            consumer.life = Life::Active;
        }
        ctx.cover.hit(Path::Consumed);
        Ok(())
    }

    fn cancel_ok(&mut self, m: basic::CancelOk<'_>, ctx: &mut Ctx<'_>) -> Check {
        let fits = |mail: &Mail| matches!(*mail, Mail::CancelOk(place) if self.consumers[place].tag == m.consumer_tag);
        let found = self.mail.iter().position(fits).ok_or("a cancel-ok that is not due")?;
        let Mail::CancelOk(place) = self.mail.remove(found) else { return Ok(()) };
        self.consumers[place].life = Life::Ended;
        ctx.cover.hit(Path::Cancelled);
        Ok(())
    }

    /// The queue was deleted under a consumer.
    fn cancelled(&mut self, m: basic::Cancel<'_>, me: Me, ctx: &mut Ctx<'_>) -> Check {
        if !me.cancel_notify {
            return Err("basic.cancel, which this client did not announce".to_owned());
        }
        let tag = String::from_utf8_lossy(m.consumer_tag);
        let live = |c: &super::channel::Consumer| c.tag == m.consumer_tag && c.life != Life::Ended;
        let Some(place) = self.consumers.iter().position(live) else {
            return Err(format!("basic.cancel of '{tag}', which is no consumer"));
        };
        let queue = self.consumers[place].queue;
        let goes = self.own.as_ref().is_some_and(|own| own.queue == queue && own.auto_delete);
        if self.murky && goes && !ctx.oracle.queues[queue].deleted {
            // The refusal of another consumer has cost it the binding that it was on.
            ctx.oracle.queues[queue].owner = None;
            self.queue_is_gone(ctx);
        }
        if !ctx.oracle.queues[queue].deleted {
            return Err(format!("basic.cancel of '{tag}', whose queue was not deleted"));
        }
        if self.murky {
            ctx.cover.hit(Path::ReplayRefused);
        }
        let consumer = &mut self.consumers[place];
        if consumer.life != Life::Cancelling {
            consumer.life = Life::Ended;
        }
        ctx.cover.hit(Path::CancelledByBroker);
        Ok(())
    }

    fn commit_ok(&mut self, ctx: &mut Ctx<'_>) -> Check {
        let found = self.mail.iter().position(|mail| matches!(mail, Mail::CommitOk(_)));
        let found = found.ok_or("a commit-ok that is not due")?;
        if let Mail::CommitOk(ids) = self.mail.remove(found) {
            for id in ids {
                ctx.oracle.must_be_accepted(id, "its transaction was committed")?;
                if self.returns_due.contains(&id) {
                    return Err(format!("message {id} was not returned before commit-ok"));
                }
            }
        }
        self.committing = false;
        ctx.cover.hit(Path::Committed);
        Ok(())
    }

    fn deliver(&mut self, m: basic::Deliver<'_>, ctx: &Ctx<'_>) -> Check {
        let live = |c: &super::channel::Consumer| c.tag == m.consumer_tag && c.life != Life::Ended;
        let Some(place) = self.consumers.iter().position(live) else {
            let tag = String::from_utf8_lossy(m.consumer_tag);
            return Err(format!("a delivery to '{tag}', which is no consumer of this channel"));
        };
        if self.consumers[place].life == Life::Asked {
            return Err("a delivery before consume-ok".to_owned());
        }
        let reply = self.consumers[place].reply;
        if !(reply && m.delivery_tag == 1 && ctx.scenario.is_lavinmq()) {
            self.take_tag(m.delivery_tag, !reply)?;
        }
        self.incoming = Some(Incoming {
            what: What::Delivery { place, tag: m.delivery_tag, redelivered: m.redelivered },
            queue: Some(self.consumers[place].queue),
            exchange: m.exchange.to_vec(),
            routing_key: m.routing_key.to_vec(),
            header: None,
            body: Vec::new(),
        });
        Ok(())
    }

    fn get_ok(
        &mut self,
        m: basic::GetOk<'_>,
        queue: QueueIx,
        no_ack: bool,
        exactly: Option<Option<MsgId>>,
    ) -> Check {
        self.take_tag(m.delivery_tag, true)?;
        self.incoming = Some(Incoming {
            what: What::Got { tag: m.delivery_tag, no_ack, exactly },
            queue: Some(queue),
            exchange: m.exchange.to_vec(),
            routing_key: m.routing_key.to_vec(),
            header: None,
            body: Vec::new(),
        });
        Ok(())
    }

    /// Tags count up from 1. Replies to requests repeat the next number: they do not count.
    fn take_tag(&mut self, tag: u64, counts: bool) -> Check {
        if tag != self.next_tag {
            return Err(format!("delivery tag {tag} where {} comes next", self.next_tag));
        }
        self.next_tag += u64::from(counts);
        Ok(())
    }

    fn returned(&mut self, m: basic::Return<'_>) -> Check {
        if m.reply_code != 312 {
            return Err(format!("a return with code {}", m.reply_code));
        }
        self.incoming = Some(Incoming {
            what: What::Return,
            queue: None,
            exchange: m.exchange.to_vec(),
            routing_key: m.routing_key.to_vec(),
            header: None,
            body: Vec::new(),
        });
        Ok(())
    }
}

fn declare_ok(queue: QueueIx, count: Option<usize>, m: queue::DeclareOk<'_>, ctx: &mut Ctx<'_>) -> Check {
    let known = &mut ctx.oracle.queues[queue].name;
    let name = String::from_utf8_lossy(m.queue);
    if known.is_empty() {
        if !m.queue.starts_with(b"amq.gen-") {
            return Err(format!("the server named a queue '{name}'"));
        }
        ctx.cover.hit(Path::ServerNamed);
        *known = m.queue.to_vec();
    } else if *known != m.queue {
        return Err(format!("declare-ok for '{name}', asked was '{}'", String::from_utf8_lossy(known)));
    }
    same_count(count, m.message_count)
}

fn same_count(expected: Option<usize>, found: u32) -> Check {
    match expected {
        Some(expected) if expected != found as usize => {
            Err(format!("{found} messages in a queue of this channel's own, which has {expected}"))
        }
        _ => Ok(()),
    }
}
