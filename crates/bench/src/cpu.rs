//! CPU time of processes and threads, in nanoseconds, from the scheduler's own accounting.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

/// Nanoseconds on a CPU of all threads that process `pid` has now. Threads that ended are not in it: proxies
/// keep their threads.
pub(crate) fn of_process(pid: u32) -> Result<u64> {
    let tasks = format!("/proc/{pid}/task");
    let mut sum = 0;
    for task in fs::read_dir(&tasks).with_context(|| format!("cannot read {tasks}"))? {
        // A thread may end between the listing and the reading.
        sum += read(&task?.path().join("schedstat")).unwrap_or(0);
    }
    Ok(sum)
}

/// Nanoseconds on a CPU of the calling thread, for threads that end before anybody looks.
pub(crate) fn of_this_thread() -> u64 {
    read(Path::new("/proc/thread-self/schedstat")).unwrap_or(0)
}

/// The first of the three numbers: time on the CPU.
fn read(schedstat: &Path) -> Option<u64> {
    fs::read_to_string(schedstat).ok()?.split_whitespace().next()?.parse().ok()
}
