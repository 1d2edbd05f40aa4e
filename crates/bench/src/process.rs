//! Processes that are started here and end with what started them.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpStream;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// A program that does not listen after this long has failed, on a busy machine too.
const LISTENS_WITHIN: Duration = Duration::from_secs(60);

/// A child process; killed when dropped.
pub(crate) struct Process {
    child: Child,
    name: String,
}

impl Process {
    pub(crate) fn start(name: &str, command: &mut Command) -> Result<Self> {
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Process { child, name: name.to_owned() })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until something listens on `port`, or the process has ended.
    pub(crate) fn wait_for_port(&mut self, port: u16) -> Result<()> {
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            if let Some(status) = self.child.try_wait()? {
                bail!("{} ended at once: {status}", self.name);
            }
            if began.elapsed() > LISTENS_WITHIN {
                bail!("{} does not listen on port {port}", self.name);
            }
            thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; either way it is gone afterwards.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Another part of this program, spoken with line by line.
pub(crate) struct Part {
    process: Process,
    stdin: Option<ChildStdin>,
    stdout: BufReader<ChildStdout>,
}

impl Part {
    pub(crate) fn start(name: &str, args: &[String]) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = Process::start(name, &mut command)?;
        let stdin = process.child.stdin.take();
        let stdout = process.child.stdout.take().context("no stdout")?;
        Ok(Part { process, stdin, stdout: BufReader::new(stdout) })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.pid()
    }

    pub(crate) fn say(&mut self, line: &str) -> Result<()> {
        let stdin = self.stdin.as_mut().context("already told to end")?;
        writeln!(stdin, "{line}")?;
        Ok(stdin.flush()?)
    }

    /// The next line, split into words.
    pub(crate) fn hear(&mut self) -> Result<Vec<String>> {
        let mut line = String::new();
        if self.stdout.read_line(&mut line)? == 0 {
            bail!("the {} ended early", self.process.name);
        }
        Ok(line.split_whitespace().map(str::to_owned).collect())
    }

    /// Ends its input and waits for its own end, which must be a success.
    pub(crate) fn end(mut self) -> Result<()> {
        drop(self.stdin.take());
        let status = self.process.child.wait()?;
        if !status.success() {
            bail!("the {} failed: {status}", self.process.name);
        }
        Ok(())
    }
}

/// A port that nobody listens on at the moment.
pub(crate) fn free_port() -> Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
