//! The end of channels and connections, from either side.

use warren_wire::Method;
use warren_wire::method::{channel, connection, split_id};

use crate::connection::{Connection, Life, State};
use crate::core::Core;
use crate::fault::{Fault, Outcome, Scope};

impl Connection {
    /// Does what a fault asks for.
    pub(crate) fn conclude(&mut self, core: &mut Core, number: u16, result: Outcome) {
        let Err(fault) = result else {
            return;
        };
        match fault.scope {
            Scope::Reset => self.vanish(core, true),
            // While the client is not trusted yet, RabbitMQ says nothing.
            _ if matches!(self.state, State::Header | State::Starting | State::Tuning) => {
                self.vanish(core, true);
            }
            Scope::Channel if number != 0 => self.close_channel(core, number, &fault),
            Scope::Channel | Scope::Connection => self.close(core, &fault),
            Scope::Fatal => {
                self.close(core, &fault);
                self.vanish(core, false);
            }
        }
    }

    /// Sends `channel.close` and ignores the channel until close-ok.
    pub(crate) fn close_channel(&mut self, core: &mut Core, number: u16, fault: &Fault) {
        let Some(slot) = self.slot_mut(number) else {
            return;
        };
        if let Life::Open(key) = slot.life {
            slot.life = Life::Closing;
            core.close_channel(key);
            let (class_id, method_id) = split_id(fault.method);
            let close =
                channel::Close { reply_code: fault.code, reply_text: &fault.text(), class_id, method_id };
            Method::ChannelClose(close).write(number, &mut self.output);
        }
    }

    /// Ends all channels, deletes exclusive queues and sends `connection.close`.
    pub(crate) fn close(&mut self, core: &mut Core, fault: &Fault) {
        if matches!(self.state, State::Closed { .. } | State::Gone { .. }) {
            return;
        }
        self.end_channels(core);
        let (class_id, method_id) = split_id(fault.method);
        let close =
            connection::Close { reply_code: fault.code, reply_text: &fault.text(), class_id, method_id };
        Method::ConnectionClose(close).write(0, &mut self.output);
        self.state = State::Closed { answered: false };
        self.blocked = false;
    }

    /// The broker closes its side of the socket. What is in the output may still reach the peer.
    pub(crate) fn vanish(&mut self, core: &mut Core, reset: bool) {
        self.end_channels(core);
        self.state = State::Gone { reset };
        self.blocked = false;
    }

    /// The client's `connection.close`: everything it sent before was processed, its exclusive queues go, then the answer.
    pub(crate) fn answer_close(&mut self, core: &mut Core) {
        self.end_channels(core);
        Method::ConnectionCloseOk.write(0, &mut self.output);
        self.state = State::Closed { answered: true };
    }

    /// While `connection.close` was sent: only its answer, or the client's own close, counts.
    pub(crate) fn run_while_closed(&mut self, core: &mut Core, method: &Method<'_>) {
        match method {
            Method::ConnectionClose(_) => {
                Method::ConnectionCloseOk.write(0, &mut self.output);
                self.state = State::Closed { answered: true };
            }
            Method::ConnectionCloseOk => self.vanish(core, false),
            _ => {}
        }
    }
}
