//! Processes that do not outlive the tests, however these end.

use std::process::{Child, Command, Stdio};

/// Kills a process when this process ends without having done so, by a signal or by a test runner's time-out.
///
/// A shell waits on a pipe that only we hold; the kernel closes it whatever happens to us.
#[derive(Debug)]
pub(crate) struct Reaper(Child);

impl Reaper {
    /// Watches over the process `pid`, which is ours.
    pub(crate) fn of(pid: u32) -> Reaper {
        Reaper::watch(&pid.to_string())
    }

    /// Watches over a process that leads a group, and over whatever is in that group.
    pub(crate) fn of_group(leader: u32) -> Reaper {
        Reaper::watch(&format!("-{leader}"))
    }

    fn watch(target: &str) -> Reaper {
        let shell = Command::new("sh")
            .args(["-c", "trap '' INT TERM HUP; read -r line; kill -9 \"$1\"", "reaper", target])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("sh starts");
        Reaper(shell)
    }

    /// Kills the process now.
    pub(crate) fn kill_now(mut self) {
        drop(self.0.stdin.take()); // the end of the shell's input
        let _ = self.0.wait();
    }
}

impl Drop for Reaper {
    /// The process has been waited for: its number may belong to somebody else soon.
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
