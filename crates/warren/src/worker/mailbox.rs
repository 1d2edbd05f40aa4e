//! Messages to a worker: the only way into its thread.

use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::sync::oneshot;
use warren_engine::metrics::Metrics;
use warren_engine::session::HandOff;

use crate::seats::Seat;
use crate::socket::Parcel;

/// What a worker can be told. (A new configuration snapshot will be another of these.)
pub(crate) enum Message {
    /// A session that was accepted elsewhere belongs here.
    Adopt(Box<Adoption>),
    /// Somebody wants to know the counters.
    Metrics(oneshot::Sender<Metrics>),
    /// Accept no more.
    StopAccepting,
    /// Tell every client the text, and end when nothing is left.
    Stop(String),
}

/// A session on its way from one worker to another.
pub(crate) struct Adoption {
    /// Its socket.
    pub(crate) socket: Parcel,
    /// Its place among the connections of the process.
    pub(crate) seat: Seat,
    /// What was read from it and not yet understood: the beginning of what the new engine reads.
    pub(crate) unread: Vec<u8>,
    /// What the old engine knew.
    pub(crate) hand_off: Box<HandOff>,
}

/// Where to write to a worker. Unbounded, because senders are workers that must not wait for each other; what is
/// in it is bounded by the sessions there are (each once) and by a question per second or so.
#[derive(Clone)]
pub(crate) struct Mailbox(UnboundedSender<Message>);

/// The worker's end.
pub(crate) type Messages = UnboundedReceiver<Message>;

impl Mailbox {
    /// Both ends.
    pub(crate) fn new() -> (Mailbox, Messages) {
        let (sender, messages) = mpsc::unbounded_channel();
        (Mailbox(sender), messages)
    }

    /// Sends, unless the worker has ended: then the message (and the socket in it) is dropped.
    pub(crate) fn send(&self, message: Message) {
        let _ = self.0.send(message);
    }
}
