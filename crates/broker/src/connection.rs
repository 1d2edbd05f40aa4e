//! One connection: its bytes both ways, its state, and the channel numbers in use.
//!
//! ```text
//!   Header -> Starting -> Tuning -> Opening -> Running -> Closed -> Gone
//! ```
//! `Closed`: `connection.close` was sent, or `connection.close-ok`; nothing but the other's answer counts any more.
//! `Gone`: the broker has closed its side. Any state may go there.

use crate::broker::ConnId;
use crate::channel::Ready;
use crate::content::Assembler;
use crate::core::{ChannelKey, Core};
use crate::vhost::VhostId;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// Waiting for the protocol header.
    Header,
    /// `connection.start` was sent.
    Starting,
    /// `connection.tune` was sent.
    Tuning,
    /// `connection.tune-ok` came.
    Opening,
    /// `connection.open-ok` was sent.
    Running,
    /// Closing or closed by protocol; channels are gone. `answered` once no close-ok is waited for.
    Closed { answered: bool },
    /// The broker closed the socket. `reset` when it did so without a word.
    Gone { reset: bool },
}

/// What the client announced in its capabilities.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Capabilities {
    pub(crate) authentication_failure_close: bool,
    pub(crate) consumer_cancel_notify: bool,
    pub(crate) connection_blocked: bool,
}

/// A channel number in use.
#[derive(Debug)]
pub(crate) struct Slot {
    pub(crate) life: Life,
    pub(crate) assembler: Assembler,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Life {
    /// A frame came, but no `channel.open` yet.
    Starting,
    Open(ChannelKey),
    /// `channel.close` was sent. All is ignored until close-ok; the number is in use until then.
    Closing,
    /// The client closed it; `channel.close-ok` ends at this place of the output. Until the driver has taken it, the
    /// client cannot know that the number is free, and RabbitMQ may not have freed it.
    Released {
        at: u64,
    },
}

#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) id: ConnId,
    pub(crate) state: State,
    pub(crate) input: Vec<u8>,
    /// How much of `input` was processed.
    pub(crate) at: usize,
    pub(crate) output: Vec<u8>,
    /// Length of `output` when the broker last looked: what is missing since was taken by the driver.
    seen: usize,
    /// Octets of output taken in all.
    taken: u64,
    pub(crate) slots: Vec<Option<Box<Slot>>>,
    /// Numbers in use, as `channel_max` counts them.
    pub(crate) in_use: usize,
    /// As negotiated; never 0.
    pub(crate) frame_max: u32,
    pub(crate) channel_max: u16,
    /// Seconds, as the client said in `connection.tune-ok`; 0 for none.
    pub(crate) heartbeat: u16,
    pub(crate) capabilities: Capabilities,
    /// Place in [`Options::users`](crate::Options::users), once logged in.
    pub(crate) user: usize,
    pub(crate) vhost: VhostId,
    /// Published during an alarm: nothing more is read until it ends.
    pub(crate) blocked: bool,
    /// `connection.blocked` was sent and `connection.unblocked` not yet.
    pub(crate) blocked_told: bool,
    /// Number of the channel that is pumped first next time, so that a bounded pump is fair.
    pub(crate) pump_from: u16,
}

impl Connection {
    pub(crate) fn new(id: ConnId) -> Self {
        Connection {
            id,
            state: State::Header,
            input: Vec::new(),
            at: 0,
            output: Vec::new(),
            seen: 0,
            taken: 0,
            slots: Vec::new(),
            in_use: 0,
            frame_max: warren_wire::frame::FRAME_MIN_SIZE,
            channel_max: 0,
            heartbeat: 0,
            capabilities: Capabilities::default(),
            user: 0,
            vhost: 0,
            blocked: false,
            blocked_told: false,
            pump_from: 0,
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        matches!(self.state, State::Gone { .. })
    }

    /// Before anything is written: counts what the driver took since the last time.
    pub(crate) fn begin_work(&mut self) {
        self.taken += self.seen.saturating_sub(self.output.len()) as u64;
        self.seen = self.output.len();
    }

    /// After anything was written.
    pub(crate) fn end_work(&mut self) {
        self.seen = self.output.len();
    }

    /// Place of the end of the output, counted from the connection's first octet.
    pub(crate) fn output_end(&self) -> u64 {
        self.taken + self.output.len() as u64
    }

    pub(crate) fn is_taken(&self, at: u64) -> bool {
        self.taken >= at
    }

    pub(crate) fn slot_mut(&mut self, number: u16) -> Option<&mut Slot> {
        self.slots.get_mut(usize::from(number))?.as_deref_mut()
    }

    pub(crate) fn channel_key(&self, number: u16) -> Option<ChannelKey> {
        match self.slots.get(usize::from(number))?.as_deref()?.life {
            Life::Open(key) => Some(key),
            _ => None,
        }
    }

    pub(crate) fn add_slot(&mut self, number: u16) {
        let place = usize::from(number);
        if self.slots.len() <= place {
            self.slots.resize_with(place + 1, || None);
        }
        self.slots[place] = Some(Box::new(Slot { life: Life::Starting, assembler: Assembler::Method }));
        self.in_use += 1;
    }

    /// Frees a number that is in use.
    pub(crate) fn drop_slot(&mut self, number: u16) {
        if let Some(slot) = self.slots.get_mut(usize::from(number))
            && slot.take().is_some_and(|slot| !matches!(slot.life, Life::Released { .. }))
        {
            self.in_use -= 1;
        }
    }

    /// Ends every channel, and deletes the queues that live as long as this connection.
    pub(crate) fn end_channels(&mut self, core: &mut Core) {
        for slot in std::mem::take(&mut self.slots).into_iter().flatten() {
            if let Life::Open(key) = slot.life {
                core.close_channel(key);
            }
        }
        self.in_use = 0;
        core.delete_queues_of(self.id);
    }

    /// The channels of this connection that have something to be pumped, from `pump_from` on and around.
    pub(crate) fn ready_channels(&self, ready: &Ready) -> Vec<u16> {
        let from = |first: u16, last: u16| ready.range((self.id, first)..=(self.id, last)).map(|r| r.1);
        let mut numbers: Vec<u16> = from(self.pump_from, u16::MAX).collect();
        if self.pump_from > 0 {
            numbers.extend(from(0, self.pump_from - 1));
        }
        numbers
    }
}

impl Core {
    fn delete_queues_of(&mut self, conn: ConnId) {
        let owned = self.queues.iter().filter(|(_, q)| q.owner == Some(conn));
        let keys: Vec<_> = owned.map(|(key, _)| key).collect();
        for key in keys {
            self.delete_queue(key);
        }
    }
}
