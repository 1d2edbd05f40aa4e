//! Log lines go to standard error.
//!
//! A thread of their own writes them, and they are dropped rather than waited for when nobody reads standard
//! error: a worker must not stand still because a log pipe is full.

use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// How often something that may go on for long is said.
const SILENCE: Duration = Duration::from_secs(1);

/// Keeps the log from being filled with one thing: it is said once a second at most.
#[derive(Debug, Default)]
pub(crate) struct Rarely(Mutex<Option<Instant>>);

impl Rarely {
    /// Says it, unless it was said a moment ago.
    pub(crate) fn say(&self, say: impl FnOnce()) {
        let now = Instant::now();
        let mut silent_until = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if silent_until.is_none_or(|until| now >= until) {
            *silent_until = Some(now + SILENCE);
            say();
        }
    }
}

/// Starts logging at a level that the operator chose; else as `RUST_LOG` says, which knows modules too (for
/// developers); else at `info`. What is queued is written when the guard is dropped.
pub(crate) fn start(level: Option<LevelFilter>) -> WorkerGuard {
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let filter = match level {
        // Libraries have much to say at debug and below that is of no use to operators.
        Some(level) if level > LevelFilter::INFO => {
            EnvFilter::new(format!("info,warren={level},warren_engine={level}"))
        }
        Some(level) => EnvFilter::default().add_directive(level.into()),
        None => EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env_lossy(),
    };
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    guard
}
