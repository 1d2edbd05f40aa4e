//! What is left in each queue.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A queue with messages that nobody has to publish.
#[derive(Clone)]
pub(super) struct Queue {
    /// Octets of each body.
    pub(super) size: usize,
    left: Arc<AtomicU64>,
}

impl Queue {
    /// Takes up to `most` messages out: how many there were.
    pub(super) fn take(&self, most: usize) -> usize {
        let most = most as u64;
        let before = self
            .left
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| Some(left.saturating_sub(most)))
            .unwrap_or(0);
        before.min(most) as usize
    }
}

/// All queues seen so far.
#[derive(Default)]
pub(super) struct Queues(Mutex<HashMap<Vec<u8>, Queue>>);

impl Queues {
    /// The queue of this name, if it is one with messages.
    pub(super) fn find(&self, name: &[u8]) -> Option<Queue> {
        let (size, count) = parse(name)?;
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let queue = queues.entry(name.to_vec()).or_insert_with(|| {
            let left = Arc::new(AtomicU64::new(count));
            Queue { size, left }
        });
        Some(queue.clone())
    }
}

/// The name of a queue that holds `count` messages of `size` octets; `id` tells it from others like it.
pub(crate) fn queue_name(size: usize, count: u64, id: &str) -> String {
    format!("bench-{size}-{count}-{id}")
}

fn parse(name: &[u8]) -> Option<(usize, u64)> {
    let mut parts = std::str::from_utf8(name).ok()?.strip_prefix("bench-")?.splitn(3, '-');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_is_emptied_once_however_often_it_is_found() {
        let queues = Queues::default();
        let name = queue_name(16, 10, "a");
        let queue = queues.find(name.as_bytes()).expect("a queue with messages");
        assert_eq!((queue.size, queue.take(7)), (16, 7));
        assert_eq!(queues.find(name.as_bytes()).map(|q| q.take(7)), Some(3));
        assert_eq!(queue.take(7), 0);
    }

    #[test]
    fn other_names_have_no_messages() {
        let queues = Queues::default();
        for name in ["", "bench-publish", "bench-16", "bench--1-x", "amq.rabbitmq.reply-to"] {
            assert!(queues.find(name.as_bytes()).is_none(), "{name}");
        }
    }
}
