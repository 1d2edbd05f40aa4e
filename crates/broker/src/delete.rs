//! `queue.delete`, `queue.purge` and `exchange.delete`.

use warren_wire::Method;
use warren_wire::method::{exchange, queue};

use crate::args::QueueKind;
use crate::call::{Call, Right};
use crate::consume::count;
use crate::fault::{Fault, Outcome};
use crate::names::strip_line_ends;

impl Call<'_> {
    /// A queue that is not there counts as deleted.
    pub(crate) fn queue_delete(&mut self, m: queue::Delete<'_>) -> Outcome {
        let name = self.expand_queue(m.queue)?;
        let name = strip_line_ends(&name);
        self.check_queue(Right::Configure, &name)?;
        let mut message_count = 0;
        if let Some(key) = self.core.find_queue(self.vhost, &name) {
            self.check_owner(key)?;
            let queue = &self.core.queues[key];
            if queue.kind == QueueKind::Quorum && (m.if_unused || m.if_empty) {
                let flag = if m.if_unused { "if-unused" } else { "if-empty" };
                let queue = self.queue_text(&name);
                let detail = format!(
                    "cannot delete {queue}. queue.delete operations with {flag} flag set are not supported by quorum \
                     queues"
                );
                return Err(Fault::connection(540, detail));
            }
            if m.if_empty && !queue.ready.is_empty() {
                return Err(Fault::precondition(format!("{} not empty", self.queue_text(&name))));
            }
            if m.if_unused && !queue.consumers.is_empty() {
                return Err(Fault::precondition(format!("{} in use", self.queue_text(&name))));
            }
            message_count = count(self.core.delete_queue(key));
        }
        self.reply_unless(m.no_wait, Method::QueueDeleteOk(queue::DeleteOk { message_count }));
        Ok(())
    }

    pub(crate) fn queue_purge(&mut self, m: queue::Purge<'_>) -> Outcome {
        let name = self.expand_queue(m.queue)?;
        self.check_queue(Right::Read, &name)?;
        let key = self.usable_queue(&name)?;
        let queue = &mut self.core.queues[key];
        let message_count = count(queue.ready.len());
        queue.ready.clear();
        self.reply_unless(m.no_wait, Method::QueuePurgeOk(queue::PurgeOk { message_count }));
        Ok(())
    }

    /// An exchange that is not there counts as deleted.
    pub(crate) fn exchange_delete(&mut self, m: exchange::Delete<'_>) -> Outcome {
        let name = strip_line_ends(m.exchange);
        self.refuse_default_exchange(&name)?;
        if name.starts_with(b"amq.") {
            let detail = format!("deletion of system {} not allowed", self.exchange_text(&name));
            return Err(Fault::access_refused(detail));
        }
        self.check_exchange(Right::Configure, &name)?;
        if let Some(key) = self.core.find_exchange(self.vhost, &name) {
            if m.if_unused && !self.core.exchanges[key].bindings.is_empty() {
                let detail = format!("{} in use", self.exchange_text(&name));
                return Err(Fault::precondition(detail));
            }
            self.core.delete_exchange(key);
        }
        self.reply_unless(m.no_wait, Method::ExchangeDeleteOk);
        Ok(())
    }
}
