//! Publisher confirms.

use std::collections::VecDeque;

use warren_wire::Method;
use warren_wire::method::{basic, confirm};

use crate::call::Call;
use crate::channel::Mode;
use crate::fault::{Fault, Outcome};
use crate::options::ConfirmStyle;
use crate::rng::Rng;

/// Pumps in a row that [`ConfirmStyle::Mixed`] may hold confirms back, so that they come in the end.
const MOST_DELAYS: u8 = 3;

/// Confirms of one channel.
#[derive(Debug)]
pub(crate) struct Confirms {
    /// Number of the next publish; counts from `confirm.select`.
    next: u64,
    /// Accepted and not yet confirmed, in order.
    accepted: VecDeque<u64>,
    /// Refused by a full queue and not yet told.
    refused: VecDeque<u64>,
    delays: u8,
}

impl Confirms {
    pub(crate) fn new() -> Self {
        Confirms { next: 1, accepted: VecDeque::new(), refused: VecDeque::new(), delays: 0 }
    }

    /// Counts a publish; what becomes of it is told at a later pump.
    pub(crate) fn record(&mut self, accepted: bool) {
        let list = if accepted { &mut self.accepted } else { &mut self.refused };
        list.push_back(self.next);
        self.next += 1;
    }

    /// Counts a publish that went to no queue, and confirms it.
    pub(crate) fn confirm_at_once(&mut self, channel: u16, out: &mut Vec<u8>) {
        write_ack(self.next, false, channel, out);
        self.next += 1;
    }

    pub(crate) fn is_due(&self) -> bool {
        !self.accepted.is_empty() || !self.refused.is_empty()
    }

    pub(crate) fn outstanding(&self) -> usize {
        self.accepted.len() + self.refused.len()
    }

    /// Writes what the style wants told now.
    pub(crate) fn flush(&mut self, style: ConfirmStyle, rng: &mut Rng, channel: u16, out: &mut Vec<u8>) {
        match style {
            ConfirmStyle::Coalesced => self.flush_coalesced(channel, out),
            ConfirmStyle::Single => self.flush_singly(channel, out),
            ConfirmStyle::Mixed => self.flush_mixed(rng, channel, out),
        }
    }

    /// As RabbitMQ: one alone is told as itself; of several, those below any refused number are told with `multiple`.
    /// Refused ones are told so even when they are alone, below any number accepted at the same time.
    fn flush_coalesced(&mut self, channel: u16, out: &mut Vec<u8>) {
        let lowest_accepted = self.accepted.front().copied().unwrap_or(u64::MAX);
        let lowest_refused = self.refused.front().copied().unwrap_or(u64::MAX);
        if self.accepted.len() > 1
            && let Some(last) = take_below(&mut self.accepted, lowest_refused)
        {
            write_ack(last, true, channel, out);
        }
        self.flush_accepted(channel, out);
        if let Some(last) = take_below(&mut self.refused, lowest_accepted) {
            write_nack(last, true, channel, out);
        }
        self.flush_refused(channel, out);
    }

    fn flush_singly(&mut self, channel: u16, out: &mut Vec<u8>) {
        self.flush_accepted(channel, out);
        self.flush_refused(channel, out);
    }

    fn flush_accepted(&mut self, channel: u16, out: &mut Vec<u8>) {
        for number in self.accepted.drain(..) {
            write_ack(number, false, channel, out);
        }
    }

    fn flush_refused(&mut self, channel: u16, out: &mut Vec<u8>) {
        for number in self.refused.drain(..) {
            write_nack(number, false, channel, out);
        }
    }

    fn flush_mixed(&mut self, rng: &mut Rng, channel: u16, out: &mut Vec<u8>) {
        let coin = rng.below(6);
        if coin == 0 && self.delays < MOST_DELAYS {
            self.delays += 1;
            return;
        }
        self.delays = 0;
        match coin {
            1 => self.flush_singly(channel, out),
            2 => self.flush_one(rng, channel, out),
            3 if self.refused.is_empty() && !self.accepted.is_empty() => {
                let last = rng.below(self.accepted.len());
                let number = self.accepted[last];
                self.accepted.drain(..=last);
                write_ack(number, true, channel, out);
            }
            4 => {
                // Out of order, down to the last.
                while !self.accepted.is_empty() {
                    self.flush_one(rng, channel, out);
                }
                self.flush_refused(channel, out);
            }
            _ => self.flush_coalesced(channel, out),
        }
    }

    /// Any one of those accepted; the refused when there is none.
    fn flush_one(&mut self, rng: &mut Rng, channel: u16, out: &mut Vec<u8>) {
        match self.accepted.remove(rng.below(self.accepted.len())) {
            Some(number) => write_ack(number, false, channel, out),
            None => self.flush_refused(channel, out),
        }
    }
}

impl ConfirmStyle {
    /// Whether a publish that went to no queue is confirmed at once, as RabbitMQ always does.
    pub(crate) fn is_prompt(self, rng: &mut Rng) -> bool {
        self != ConfirmStyle::Mixed || rng.below(2) == 0
    }
}

fn write_ack(number: u64, multiple: bool, channel: u16, out: &mut Vec<u8>) {
    let ack = basic::Ack { delivery_tag: number, multiple };
    Method::BasicAck(ack).write(channel, out);
}

fn write_nack(number: u64, multiple: bool, channel: u16, out: &mut Vec<u8>) {
    let nack = basic::Nack { delivery_tag: number, multiple, requeue: false };
    Method::BasicNack(nack).write(channel, out);
}

/// Removes the numbers below `cutoff` and returns the last of them.
fn take_below(numbers: &mut VecDeque<u64>, cutoff: u64) -> Option<u64> {
    let covered = numbers.partition_point(|&number| number < cutoff);
    numbers.drain(..covered).next_back()
}

impl Call<'_> {
    pub(crate) fn confirm_select(&mut self, m: confirm::Select) -> Outcome {
        let channel = self.channel();
        match channel.mode {
            Mode::Tx(_) => return Err(Fault::precondition("cannot switch from tx to confirm mode")),
            Mode::Plain => channel.mode = Mode::Confirm(Confirms::new()),
            Mode::Confirm(_) => {} // a second select does not begin the numbers again
        }
        self.reply_unless(m.no_wait, Method::ConfirmSelectOk);
        Ok(())
    }
}
