//! One line that changes, for a person at a terminal; nothing at all where nobody looks.

use std::io::{IsTerminal, Write};

use super::report::thousands;

/// Characters of the bar.
const WIDTH: usize = 30;
/// Back to the beginning of the line, and clear it.
const CLEAR: &str = "\r\x1b[K";

/// The line; cleared when dropped.
pub(super) struct Progress {
    shown: bool,
}

impl Progress {
    /// Shows that something has begun.
    pub(super) fn start() -> Progress {
        let mut progress = Progress { shown: std::io::stderr().is_terminal() };
        progress.write(&format!("{CLEAR}starting a broker and a proxy"));
        progress
    }

    /// `done` of `all` clients have come this way.
    pub(super) fn show(&mut self, way: &str, done: usize, all: usize) {
        let full = (WIDTH * done).checked_div(all).unwrap_or(WIDTH).min(WIDTH);
        let (bar, rest) = ("#".repeat(full), ".".repeat(WIDTH - full));
        let (done, all) = (thousands(done as u64), thousands(all as u64));
        self.write(&format!("{CLEAR}{way:<14} [{bar}{rest}] {done:>5} of {all} clients"));
    }

    fn write(&mut self, text: &str) {
        if self.shown {
            // Nobody to show it to any more: no reason to fail.
            let _ = std::io::stderr().write_all(text.as_bytes());
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.write(CLEAR);
    }
}
