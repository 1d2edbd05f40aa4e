//! The ways from the load generator to the null broker.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::cpu;
use crate::process::{Process, free_port};

/// What stands between clients and broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Nothing
    None,
    /// The distribution's HAProxy, `mode tcp`, one thread
    Haproxy,
    /// Warren with one worker
    Warren,
}

/// A way that is open.
pub(crate) struct Way {
    pub(crate) label: &'static str,
    /// Where clients connect.
    pub(crate) port: u16,
    process: Option<Process>,
    /// HAProxy's configuration, removed in the end.
    _files: Option<TempDir>,
}

impl Way {
    /// Opens a way to the broker at `broker`.
    pub(crate) fn open(kind: Kind, label: &'static str, broker: u16, warren: &PathBuf) -> Result<Self> {
        if kind == Kind::None {
            return Ok(Way { label, port: broker, process: None, _files: None });
        }
        let port = free_port()?;
        let (mut process, files) = match kind {
            Kind::Haproxy => haproxy(port, broker)?,
            _ => (start_warren(warren, port, broker)?, None),
        };
        process.wait_for_port(port)?;
        Ok(Way { label, port, process: Some(process), _files: files })
    }

    /// CPU time of the proxy until now, in nanoseconds; 0 without one.
    pub(crate) fn cpu(&self) -> Result<u64> {
        self.process.as_ref().map_or(Ok(0), |process| cpu::of_process(process.pid()))
    }
}

/// A blind relay: no splicing, no logging, one thread, limits out of the way.
fn haproxy(port: u16, broker: u16) -> Result<(Process, Option<TempDir>)> {
    let files = TempDir::new()?;
    let path = files.0.join("haproxy.cfg");
    let config = format!(
        "global\n  nbthread 1\n  maxconn 2000\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 5m\n  timeout server 5m\n\
         listen amqp\n  bind 127.0.0.1:{port}\n  server broker 127.0.0.1:{broker}\n"
    );
    fs::write(&path, config)?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&path).stdin(Stdio::null());
    let process = Process::start("haproxy", &mut command).context(
        "HAProxy is what Warren is measured against: install it (Debian: apt-get install haproxy)",
    )?;
    Ok((process, Some(files)))
}

fn start_warren(binary: &PathBuf, port: u16, broker: u16) -> Result<Process> {
    let http_port = free_port()?;
    let mut command = Command::new(binary);
    command
        .args(["--listen", "127.0.0.1", "--port", &port.to_string(), "--http-port", &http_port.to_string()])
        // Upstream connections last through a whole run, as they do under steady load.
        .args(["--workers", "1", "-t", "600"])
        .arg(format!("amqp://127.0.0.1:{broker}"))
        // Its informational lines would stand between ours.
        .env("RUST_LOG", "error")
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    Process::start("warren", &mut command)
        .with_context(|| format!("build it first: cargo build --release -p warren ({})", binary.display()))
}

/// Builds Warren as this program was built, and says where it is.
pub(crate) fn build_warren() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--quiet", "-p", "warren"]);
    if !command.status().context("cannot run cargo")?.success() {
        bail!("Warren does not build");
    }
    let here = std::env::current_exe()?;
    Ok(here.parent().context("no folder")?.join("warren"))
}

/// A folder that goes away with its owner.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Result<Self> {
        let path = std::env::temp_dir().join(format!("warren-bench-{}-{}", std::process::id(), free_port()?));
        fs::create_dir(&path)?;
        Ok(TempDir(path))
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
