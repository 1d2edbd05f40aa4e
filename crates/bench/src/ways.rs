//! The ways from the load generator to the null broker.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;

use crate::cpu;
use crate::process::{Process, free_port};
use crate::tls::{CIPHER_SUITE, Certificates, SERVER_NAME};

/// What stands between clients and broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Kind {
    /// Nothing
    None,
    /// The distribution's HAProxy, `mode tcp`, one thread
    Haproxy,
    /// Warren with one worker, shared mode
    Warren,
    /// Warren with one worker, dedicated mode: a broker connection for each client, as with HAProxy
    Dedicated,
}

impl Kind {
    pub(crate) fn is_warren(self) -> bool {
        matches!(self, Kind::Warren | Kind::Dedicated)
    }
}

/// Who speaks TLS with the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Tls {
    /// Nobody
    No,
    /// Clients
    Clients,
    /// The broker
    Broker,
}

/// The null broker, seen from a proxy, and what TLS needs.
pub(crate) struct Ends {
    pub(crate) port: u16,
    pub(crate) tls_port: u16,
    pub(crate) certificates: Certificates,
}

/// A way that is open.
pub(crate) struct Way {
    pub(crate) label: &'static str,
    /// Where clients connect.
    pub(crate) port: u16,
    process: Option<Process>,
    /// The proxy's configuration, removed in the end.
    _files: Option<TempDir>,
}

impl Way {
    /// Opens a way to the broker.
    pub(crate) fn open(
        (kind, label): (Kind, &'static str),
        tls: Tls,
        ends: &Ends,
        warren: &PathBuf,
    ) -> Result<Self> {
        if kind == Kind::None {
            return Ok(Way { label, port: ends.port, process: None, _files: None });
        }
        let port = free_port()?;
        let files = TempDir::new()?;
        let mut process = match kind {
            Kind::Haproxy => start_haproxy(&files, &haproxy(&files, port, tls, ends)?)?,
            _ => start_warren(&files, warren, &toml(kind, port, tls, ends))?,
        };
        process.wait_for_port(port)?;
        Ok(Way { label, port, process: Some(process), _files: Some(files) })
    }

    /// CPU time of the proxy until now, in nanoseconds; 0 without one.
    pub(crate) fn cpu(&self) -> Result<u64> {
        self.process.as_ref().map_or(Ok(0), |process| cpu::of_process(process.pid()))
    }
}

/// A blind relay: no splicing, no logging, one thread, limits out of the way.
fn haproxy(files: &TempDir, port: u16, tls: Tls, ends: &Ends) -> Result<String> {
    let certificates = &ends.certificates;
    // Certificate and key in one file.
    let pem = files.0.join("server.pem");
    let both = [certificates.certificate(), certificates.key()].map(fs::read_to_string);
    fs::write(&pem, both.into_iter().collect::<Result<String, _>>()?)?;
    let bind = match tls {
        Tls::Clients => format!("127.0.0.1:{port} ssl crt {}", pem.display()),
        _ => format!("127.0.0.1:{port}"),
    };
    let server = match tls {
        Tls::Broker => format!(
            "127.0.0.1:{} ssl verify required ca-file {} verifyhost {SERVER_NAME} sni str({SERVER_NAME})",
            ends.tls_port,
            certificates.ca().display()
        ),
        _ => format!("127.0.0.1:{}", ends.port),
    };
    Ok(format!(
        "global\n  nbthread 1\n  maxconn 2000\n\
         \x20 ssl-default-bind-options ssl-min-ver TLSv1.3\n\
         \x20 ssl-default-bind-ciphersuites {CIPHER_SUITE}\n\
         \x20 ssl-default-server-options ssl-min-ver TLSv1.3\n\
         \x20 ssl-default-server-ciphersuites {CIPHER_SUITE}\n\
         defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 5m\n  timeout server 5m\n\
         listen amqp\n  bind {bind}\n  server broker {server}\n"
    ))
}

fn start_haproxy(files: &TempDir, config: &str) -> Result<Process> {
    let path = files.0.join("haproxy.cfg");
    fs::write(&path, config)?;
    let mut command = Command::new("haproxy");
    command.arg("-db").arg("-f").arg(&path).stdin(Stdio::null());
    Process::start("haproxy", &mut command)
        .context("HAProxy is what Warren is measured against: install it (Debian: apt-get install haproxy)")
}

/// One worker; upstream connections that last through a whole run, as they do under steady load.
fn toml(kind: Kind, port: u16, tls: Tls, ends: &Ends) -> String {
    let certificates = &ends.certificates;
    let same = format!("versions = [\"1.3\"], ciphers = [\"{CIPHER_SUITE}\"]");
    let listener = match tls {
        Tls::Clients => format!(
            "tls = {{ certificate = {:?}, key = {:?}, {same} }}\n",
            certificates.certificate(),
            certificates.key()
        ),
        _ => String::new(),
    };
    let (broker, backend) = match tls {
        Tls::Broker => {
            let ca = certificates.ca();
            (ends.tls_port, format!("tls = {{ ca = {ca:?}, server_name = \"{SERVER_NAME}\", {same} }}\n"))
        }
        _ => (ends.port, String::new()),
    };
    let mode = if kind == Kind::Dedicated { "dedicated" } else { "shared" };
    format!(
        "[proxy]\nworkers = 1\nidle_timeout = \"600s\"\n\
         [[listener]]\naddress = \"127.0.0.1:{port}\"\n{listener}\
         [[backend]]\nname = \"null\"\nhost = \"127.0.0.1\"\nport = {broker}\n{backend}\
         [[farm]]\nname = \"main\"\nbackends = [\"null\"]\n\
         [[route]]\nfarm = \"main\"\nmode = \"{mode}\"\n"
    )
}

fn start_warren(files: &TempDir, binary: &PathBuf, toml: &str) -> Result<Process> {
    let path = files.0.join("warren.toml");
    fs::write(&path, toml)?;
    let mut command = Command::new(binary);
    command
        .arg("-c")
        .arg(path)
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
