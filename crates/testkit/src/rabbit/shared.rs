//! Few nodes for many tests: a node takes 5 to 10 s to start and 150 MB of memory.

use super::Rabbit;
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, OnceLock};

static SHARED: OnceLock<Rabbit> = OnceLock::new();
static EXCLUSIVE: Mutex<Option<Rabbit>> = Mutex::new(None);

/// The node that the tests of one process share. They run in parallel, so each keeps to a virtual host or to names
/// of its own ([`crate::unique`]), and reads no counters of the whole node.
pub fn shared() -> &'static Rabbit {
    SHARED.get_or_init(Rabbit::start)
}

/// A node for one test at a time: for those that count, stop and kill. Others wait until the guard is dropped.
/// A test that fails leaves it in an unknown state, so the next one gets a new node.
pub fn exclusive() -> Exclusive {
    let mut guard = EXCLUSIVE.lock().unwrap_or_else(|poison| {
        let mut guard = poison.into_inner();
        *guard = None;
        EXCLUSIVE.clear_poison();
        guard
    });
    if guard.is_none() {
        *guard = Some(Rabbit::start());
    }
    Exclusive(guard)
}

/// The exclusive node, for as long as it is held.
#[derive(Debug)]
pub struct Exclusive(MutexGuard<'static, Option<Rabbit>>);

impl Deref for Exclusive {
    type Target = Rabbit;

    fn deref(&self) -> &Rabbit {
        self.0.as_ref().expect("started before it is handed out")
    }
}
