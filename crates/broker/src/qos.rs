//! `basic.qos`.

use warren_wire::Method;
use warren_wire::method::basic;

use crate::call::Call;
use crate::fault::{Fault, Outcome};

impl Call<'_> {
    /// Without `global` it is the prefetch of consumers that begin later, and it lifts the limit of the channel; with
    /// `global` it is the limit of the channel.
    pub(crate) fn basic_qos(&mut self, m: basic::Qos) -> Outcome {
        if m.prefetch_size != 0 {
            let detail = format!("prefetch_size!=0 ({})", m.prefetch_size);
            return Err(Fault::connection(540, detail));
        }
        let channel = self.channel();
        if m.global {
            channel.limit = m.prefetch_count.into();
        } else {
            channel.limit = 0;
            channel.prefetch = m.prefetch_count.into();
        }
        let queues = channel.queues_consumed();
        self.reply(Method::BasicQosOk);
        for queue in queues {
            self.core.run_queue(queue);
        }
        Ok(())
    }
}
