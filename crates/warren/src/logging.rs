//! Log lines go to standard error; `RUST_LOG` chooses which (default: `info`, for the demo `warn`).
//!
//! A thread of their own writes them, and they are dropped rather than waited for when nobody reads standard
//! error: a worker must not stand still because a log pipe is full.

use std::io::IsTerminal;

use tracing_appender::non_blocking::WorkerGuard;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::LevelFilter;

/// Starts logging, by default from `level` on. What is queued is written when the guard is dropped.
pub(crate) fn start(level: LevelFilter) -> WorkerGuard {
    let (writer, guard) = tracing_appender::non_blocking(std::io::stderr());
    let filter = EnvFilter::builder().with_default_directive(level.into()).from_env_lossy();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    guard
}
