//! Things that happen to a broker, on demand: for tests of what its clients make of them.

use crate::broker::{Broker, ConnId};
use crate::connection::State;
use crate::fault::Fault;
use crate::options::Access;

impl Broker {
    /// The broker closes a connection: `connection.close` with `code` and its name before `detail`, class and method 0.
    /// Nothing happens before `connection.open-ok`.
    pub fn force_close(&mut self, conn: ConnId, code: u16, detail: &str) {
        self.with_running(conn, |c, core| {
            c.close(core, &Fault::connection(code, detail));
        });
    }

    /// The broker closes a channel, as for a fault of class and method 0. Nothing happens when it is not open.
    pub fn close_channel(&mut self, conn: ConnId, channel: u16, code: u16, detail: &str) {
        self.with_running(conn, |c, core| {
            c.close_channel(core, channel, &Fault::channel(code, detail));
        });
    }

    /// The broker drops a connection without a word.
    pub fn reset(&mut self, conn: ConnId) {
        if let Some(c) = self.conns.get_mut(&conn) {
            c.begin_work();
            c.vanish(&mut self.core, true);
            c.end_work();
        }
    }

    fn with_running(
        &mut self,
        conn: ConnId,
        act: impl FnOnce(&mut crate::connection::Connection, &mut crate::core::Core),
    ) {
        if let Some(c) = self.conns.get_mut(&conn)
            && c.state == State::Running
        {
            c.begin_work();
            act(c, &mut self.core);
            c.end_work();
        }
    }

    /// Raises or ends a memory alarm. During it a connection is read up to its next content frame and no further, and is
    /// sent `connection.blocked` then if it announced the capability.
    pub fn set_blocked(&mut self, alarm: bool) {
        self.core.alarm = alarm;
        if alarm {
            return;
        }
        for c in self.conns.values_mut().filter(|c| c.blocked) {
            c.begin_work();
            c.unblock();
            c.end_work();
        }
    }

    /// Somebody deletes a queue. False when there is none of the name.
    pub fn delete_queue(&mut self, vhost: &str, name: &[u8]) -> bool {
        let vhost = self.core.vhosts.iter().position(|v| v.name == vhost);
        let queue = vhost.and_then(|vhost| self.core.find_queue(vhost, name));
        queue.map(|queue| self.core.delete_queue(queue)).is_some()
    }

    /// Nobody has the right to read from the queue of this name any more, and everybody from all others.
    pub fn deny_reading(&mut self, name: &[u8]) {
        for user in &mut self.core.options.users {
            user.read = Access::AllBut(name.to_vec());
        }
    }

    /// The broker dies and comes back: every connection is reset; what is not durable, and messages that are not
    /// persistent, are gone; messages that were unacknowledged are back, redelivered.
    pub fn restart(&mut self) {
        let conns: Vec<ConnId> = self.conns.keys().copied().collect();
        for conn in conns {
            self.reset(conn);
        }
        let core = &mut self.core;
        core.alarm = false;
        let transient: Vec<_> = core.queues.iter().filter(|(_, q)| !q.durable).map(|(k, _)| k).collect();
        for key in transient {
            core.delete_queue(key);
        }
        let transient = core.exchanges.iter().filter(|(_, x)| !x.durable);
        let transient: Vec<_> = transient.map(|(k, _)| k).collect();
        for key in transient {
            core.delete_exchange(key);
        }
        for (_, queue) in &mut core.queues {
            queue.ready.retain(|entry| entry.message.persistent);
        }
    }
}
