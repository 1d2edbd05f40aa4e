//! One method carried out on an open channel.

use warren_wire::method::{access, basic, channel};
use warren_wire::{Method, MethodId};

use crate::broker::ConnId;
use crate::channel::{Channel, Event};
use crate::core::{ChannelKey, Core};
use crate::fault::{Fault, Outcome};
use crate::names::{self, Name};
use crate::options::{Access, User};
use crate::vhost::VhostId;

/// What a method may touch: the broker's memory, its channel, and the bytes to its client.
pub(crate) struct Call<'a> {
    pub(crate) core: &'a mut Core,
    pub(crate) out: &'a mut Vec<u8>,
    /// Of a channel that lives as long as the call.
    pub(crate) key: ChannelKey,
    pub(crate) number: u16,
    pub(crate) conn: ConnId,
    pub(crate) vhost: VhostId,
    pub(crate) user: usize,
    pub(crate) frame_max: u32,
}

/// A right, by the name RabbitMQ gives it.
#[derive(Clone, Copy)]
pub(crate) enum Right {
    Configure,
    Write,
    Read,
}

impl<'a> Call<'a> {
    /// `None` when the channel is gone.
    pub(crate) fn new(
        core: &'a mut Core,
        out: &'a mut Vec<u8>,
        key: ChannelKey,
        frame_max: u32,
    ) -> Option<Call<'a>> {
        let &Channel { number, conn, vhost, user, .. } = core.channels.get(key)?;
        Some(Call { core, out, key, number, conn, vhost, user, frame_max })
    }

    pub(crate) fn channel(&mut self) -> &mut Channel {
        &mut self.core.channels[self.key]
    }

    pub(crate) fn user(&self) -> &User {
        &self.core.options.users[self.user]
    }

    pub(crate) fn vhost_name(&self) -> &str {
        &self.core.vhosts[self.vhost].name
    }

    /// `queue 'x' in vhost '/'`.
    pub(crate) fn queue_text(&self, name: &[u8]) -> String {
        names::entity("queue", name, self.vhost_name())
    }

    /// `exchange 'x' in vhost '/'`.
    pub(crate) fn exchange_text(&self, name: &[u8]) -> String {
        names::entity("exchange", name, self.vhost_name())
    }

    pub(crate) fn reply(&mut self, method: Method<'_>) {
        method.write(self.number, self.out);
    }

    pub(crate) fn reply_unless(&mut self, no_wait: bool, method: Method<'_>) {
        if !no_wait {
            self.reply(method);
        }
    }

    pub(crate) fn post(&mut self, event: Event) {
        self.core.channels[self.key].post(event, &mut self.core.ready);
    }

    /// 403 when the user lacks the right. `entity` is the text for the refusal, made only then.
    pub(crate) fn check(&self, right: Right, name: &[u8], entity: impl FnOnce(&Self) -> String) -> Outcome {
        let user = self.user();
        let access: &Access = match right {
            Right::Configure => &user.configure,
            Right::Write => &user.write,
            Right::Read => &user.read,
        };
        if access.covers(name) {
            return Ok(());
        }
        let detail = format!("access to {} refused for user '{}'", entity(self), user.name);
        Err(Fault::access_refused(detail))
    }

    pub(crate) fn check_queue(&self, right: Right, name: &[u8]) -> Outcome {
        self.check(right, name, |call| call.queue_text(name))
    }

    pub(crate) fn check_exchange(&self, right: Right, name: &[u8]) -> Outcome {
        let name = if name.is_empty() { b"amq.default" } else { name };
        self.check(right, name, |call| call.exchange_text(name))
    }

    /// What an empty queue name stands for: the queue declared last on this channel.
    pub(crate) fn expand_queue(&mut self, name: &[u8]) -> Outcome<Name> {
        if !name.is_empty() {
            return Ok(name.into());
        }
        self.channel().last_queue.clone().ok_or_else(|| Fault::channel(404, "no previously declared queue"))
    }

    /// Carries out a method that has no content. Faults blame it.
    pub(crate) fn run(&mut self, method: &Method<'_>) -> Outcome {
        let blame: MethodId = method.id();
        self.check_not_committing().and_then(|()| self.dispatch(method)).map_err(|fault| fault.at(blame))
    }

    fn dispatch(&mut self, method: &Method<'_>) -> Outcome {
        match *method {
            Method::ChannelOpen => Err(Fault::connection(504, "second 'channel.open' seen")),
            Method::ChannelFlow(m) => self.channel_flow(m),
            Method::AccessRequest(_) => {
                self.reply(Method::AccessRequestOk(access::RequestOk { ticket: 1 }));
                Ok(())
            }
            Method::ExchangeDeclare(m) => self.exchange_declare(m),
            Method::ExchangeDelete(m) => self.exchange_delete(m),
            Method::ExchangeBind(m) => self.exchange_bind(m),
            Method::ExchangeUnbind(m) => self.exchange_unbind(m),
            Method::QueueDeclare(m) => self.queue_declare(m),
            Method::QueueBind(m) => self.queue_bind(m),
            Method::QueueUnbind(m) => self.queue_unbind(m),
            Method::QueuePurge(m) => self.queue_purge(m),
            Method::QueueDelete(m) => self.queue_delete(m),
            Method::BasicQos(m) => self.basic_qos(m),
            Method::BasicConsume(m) => self.basic_consume(m),
            Method::BasicCancel(m) => self.basic_cancel(m),
            Method::BasicGet(m) => self.basic_get(m),
            Method::BasicAck(m) => self.basic_ack(m),
            Method::BasicNack(m) => self.basic_nack(m),
            Method::BasicReject(m) => self.basic_reject(m),
            Method::BasicRecoverAsync(basic::RecoverAsync { requeue }) => self.basic_recover(requeue),
            Method::BasicRecover(basic::Recover { requeue }) => {
                self.basic_recover(requeue)?;
                self.reply(Method::BasicRecoverOk);
                Ok(())
            }
            Method::ConfirmSelect(m) => self.confirm_select(m),
            Method::TxSelect => self.tx_select(),
            Method::TxCommit => self.tx_commit(),
            Method::TxRollback => self.tx_rollback(),
            _ => Err(unimplemented_method()),
        }
    }

    fn channel_flow(&mut self, m: channel::Flow) -> Outcome {
        if !m.active {
            return Err(Fault::connection(540, "active=false"));
        }
        self.reply(Method::ChannelFlowOk(channel::FlowOk { active: true }));
        Ok(())
    }
}

/// For methods that only a server sends, or that belong on channel 0.
pub(crate) fn unimplemented_method() -> Fault {
    Fault::connection(503, "unimplemented method")
}
