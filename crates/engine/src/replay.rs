//! A consumer that Warren began again is refused: its queue has gone with its connection, or the right to it was taken.

use std::time::Duration;

use warren_wire::method::{Method, basic, channel};
use warren_wire::reply;

use crate::channel::Standing;
use crate::close::UPSTREAM;
use crate::engine::Engine;
use crate::ids::{ChannelId, SessionId, UpChannelId};
use crate::timers::TimerKey;
use crate::upstream::{Note, Pending};

/// A broker may take a moment to notice that an exclusive consumer is gone with its connection.
const ASK_AGAIN: Duration = Duration::from_millis(500);

impl Engine {
    /// The broker has closed a channel because a consumer that Warren began again is refused. Its client never asked for
    /// it: it hears that the consumer has ended, and the rest of the channel goes on. `false`: it was something else.
    pub(crate) fn replay_refused(
        &mut self,
        id: ChannelId,
        up: UpChannelId,
        close: &channel::Close<'_>,
    ) -> bool {
        let consume = (close.class_id, close.method_id) == (60, 20);
        let Some(at) = self.refused_consumer(id, up, close.reply_text).filter(|_| consume) else {
            return false;
        };
        let channel = &self.channels[id];
        if channel.standing == Standing::Closing {
            self.refused_while_closing(id, up, close);
            return true;
        }
        let session = channel.session;
        let consumer = &channel.consumers[at];
        let again = consumer.exclusive && close.reply_code == 403 && self.now < consumer.patience;
        let tells = self.sessions.get(session).is_some_and(|s| s.capabilities.consumer_cancel_notify);
        if self.is_doomed(id, up) || !again && !tells {
            // The broker has closed the channel: closing it again would cost others their connection.
            if let Some(state) = self.free_channel(up) {
                self.forget_binding(id, up, state);
            }
            self.cannot_begin_again(session, close);
            return true;
        }
        if !again {
            let consumer = self.channels[id].consumers.remove(at);
            let cancel = basic::Cancel { consumer_tag: &consumer.tag, no_wait: true };
            self.tell_channel(id, Method::BasicCancel(cancel));
        }
        let kept = again.then(|| {
            let consumer = &self.channels[id].consumers[at];
            (consumer.tag.clone(), consumer.patience)
        });
        if let Some(state) = self.free_channel(up) {
            let lost = self.forget_binding(id, up, state);
            self.resume(id, lost, (Vec::new(), 0));
        }
        if let Some((tag, patience)) = kept
            && let Some(at) = self.channels.get_mut(id).and_then(|c| c.consumer(&tag))
        {
            let later = self.now + ASK_AGAIN;
            let consumer = &mut self.channels[id].consumers[at];
            (consumer.settling_until, consumer.patience) = (later, patience);
            self.wheel.schedule(later, TimerKey::Channel(id));
        }
        self.rebind(id);
        true
    }

    fn cannot_begin_again(&mut self, session: SessionId, close: &channel::Close<'_>) {
        let text = String::from_utf8_lossy(close.reply_text);
        let text = reply::text(320, &format!("a consumer could not be begun again: {text}"));
        self.close_session(session, 320, &text, (0, 0), UPSTREAM);
    }

    /// To a client that is closing its channel the consumer is of no interest any more, and it gets its close-ok, but
    /// what it published behind the consumer was ignored.
    fn refused_while_closing(&mut self, id: ChannelId, up: UpChannelId, close: &channel::Close<'_>) {
        let session = self.channels[id].session;
        let doomed = self.is_doomed(id, up);
        if self.up_channels[up].closing {
            // Warren's own close has crossed the broker's, and is still to be answered.
            let unconfirmed = &mut self.up_channels[up].unconfirmed;
            let tags: Vec<u64> = unconfirmed.iter().collect();
            unconfirmed.clear();
            if !doomed {
                self.nack(id, up, tags);
            }
        } else if let Some(state) = self.free_channel(up) {
            let lost = self.forget_binding(id, up, state);
            if !doomed {
                self.resume(id, lost, (Vec::new(), 0));
            }
        }
        if doomed {
            self.cannot_begin_again(session, close);
        }
    }

    /// The consumer that Warren began again and that a text refuses: the queue's name stands in it (consume-ok of an
    /// earlier consumer may still be on its way, so that the order does not tell). `None` when it may be one that its
    /// client has asked for.
    fn refused_consumer(&self, id: ChannelId, up: UpChannelId, text: &[u8]) -> Option<usize> {
        let channel = self.channels.get(id).filter(|c| c.standing != Standing::Refused)?;
        let text = String::from_utf8_lossy(text);
        let begun = self.up_channels[up].pending.iter().filter_map(|p| match p {
            Pending::Own(_, Note::Consume { tag }, _) | Pending::Client(_, Note::Consume { tag }, _) => {
                channel.consumers.iter().position(|c| c.tag == *tag)
            }
            _ => None,
        });
        let named = |at: &usize| {
            text.contains(&format!("'{}'", String::from_utf8_lossy(&channel.consumers[*at].queue)))
        };
        let candidates: Vec<usize> = begun.filter(named).collect();
        candidates.first().copied().filter(|_| candidates.iter().all(|at| channel.consumers[*at].replayed))
    }
}
