//! SIGTERM and SIGINT: the first asks for an orderly end, the second ends at once. SIGHUP has files looked at.

use tokio::signal::unix::{Signal, SignalKind, signal};

/// SIGHUP: somebody wants files to be looked at. From now on it does not end the process.
pub(crate) fn hang_up() -> std::io::Result<Signal> {
    signal(SignalKind::hangup())
}

/// The signals that end the process.
pub(crate) struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Takes both signals over from the system's default, which would end the process at once.
    pub(crate) fn new() -> std::io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// The name of the next signal that arrives.
    pub(crate) async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
