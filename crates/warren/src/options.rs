//! What the operator said. Two steps: [`Raw`] holds words as they were given, wherever they came from; [`Settings`]
//! is what they mean and cannot be wrong any more. Other sources (environment, a file) need only fill a [`Raw`].
//!
//! Whoever gives a bad value reads one line that names the setting and says what is allowed; the status is 2.

use std::ffi::OsString;
use std::fmt;
use std::net::{Ipv6Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use warren_engine::Config;
use warren_engine::config::Limits;

use crate::demo;

/// The port of AMQP without TLS: what a broker address without a port means.
const AMQP_PORT: u16 = 5672;
/// Next to the broker's, so that both can live on one host.
const DEFAULT_PORT: u16 = 5673;
/// Next to the port of the broker's own management.
const DEFAULT_HTTP_PORT: u16 = 15673;
const DEFAULT_LISTEN: &str = "localhost";
/// By default no more workers than this: pools of several workers share connections less well, and eight are
/// enough to fill most networks.
const DEFAULT_WORKERS_MAX: usize = 8;
/// More threads than this are a typing error.
const WORKERS_MAX: u64 = 256;
/// A day. Nobody wants to keep unused connections, or old proofs of a password, for longer.
const SECONDS_MAX: u64 = 86_400;

/// Words as given on the command line.
#[derive(Debug, Default, Parser)]
#[command(name = "warren", version, about = "AMQP 0-9-1 proxy: many clients through few broker connections")]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
struct Raw {
    /// Where to listen: a name or an address; all addresses of a name [default: localhost]
    #[arg(short, long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Port for clients; 0 lets the system choose [default: 5673]
    #[arg(short, long, value_name = "PORT", allow_negative_numbers = true)]
    port: Option<String>,
    /// Port for /metrics and /healthz; 0 lets the system choose [default: 15673]
    #[arg(short = 'b', long, value_name = "PORT", allow_negative_numbers = true)]
    http_port: Option<String>,
    /// How long a broker connection that nobody uses is kept [default: 5]
    #[arg(short = 't', long, value_name = "SECONDS", allow_negative_numbers = true)]
    idle_connection_timeout: Option<String>,
    /// Threads that serve connections [default: one per core, at most 8]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    workers: Option<String>,
    /// How long a login accepted by the broker stands for others with the same credentials [default: 60]
    #[arg(long, value_name = "SECONDS", allow_negative_numbers = true)]
    auth_ttl: Option<String>,
    /// The broker: amqp://HOST[:PORT]
    #[arg(value_name = "BROKER")]
    upstream: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

/// Other things to do than to serve.
#[derive(Debug, Subcommand)]
enum Command {
    Demo(demo::Arguments),
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// To be a proxy.
    Serve(Settings),
    /// To show what a proxy is good for.
    Demo(demo::Arguments),
}

/// What the operator wants, complete and valid.
#[derive(Debug, PartialEq)]
pub(crate) struct Settings {
    /// Name or address to listen at, without brackets.
    pub(crate) listen: String,
    /// Port for clients; 0: any.
    pub(crate) port: u16,
    /// Port for metrics and health; 0: any.
    pub(crate) http_port: u16,
    /// How long an unused upstream connection is kept.
    pub(crate) idle: Duration,
    /// Number of worker threads, at least 1.
    pub(crate) workers: usize,
    /// How long a proof of credentials is valid.
    pub(crate) auth_ttl: Duration,
    /// The broker.
    pub(crate) upstream: Upstream,
}

/// Where the broker is.
#[derive(Debug, PartialEq)]
pub(crate) struct Upstream {
    /// Name or address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl Settings {
    /// The engine's view: one listener, one route, one farm, one backend.
    pub(crate) fn engine_config(&self) -> Config {
        let limits = Limits { auth_ttl: self.auth_ttl, idle_timeout: self.idle, ..Limits::default() };
        Config::simple(&self.upstream.host, self.upstream.port, limits)
    }
}

/// Why there are no settings.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// A setting has a value that is not allowed.
    Setting(Invalid),
    /// The command line cannot be read, or help or the version was asked for.
    Arguments(clap::Error),
}

/// One setting, and what is allowed for it.
#[derive(Debug, PartialEq)]
pub(crate) struct Invalid {
    setting: &'static str,
    problem: String,
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.setting, self.problem)
    }
}

impl Refusal {
    /// Tells the operator, in one line unless help was asked for; returns the status to exit with.
    pub(crate) fn print(&self) -> ExitCode {
        match self {
            Refusal::Setting(invalid) => eprintln!("warren: {invalid}"),
            Refusal::Arguments(error) if error.exit_code() == 0 => {
                let _ = error.print();
                return ExitCode::SUCCESS;
            }
            Refusal::Arguments(error) => {
                let text = error.render().to_string();
                let line = text.lines().next().unwrap_or_default();
                eprintln!("warren: {} (see warren --help)", line.strip_prefix("error: ").unwrap_or(line));
            }
        }
        ExitCode::from(2)
    }
}

/// Reads the command line.
pub(crate) fn from_arguments(arguments: impl Iterator<Item = OsString>) -> Result<Wanted, Refusal> {
    let mut raw = Raw::try_parse_from(arguments).map_err(Refusal::Arguments)?;
    match raw.command.take() {
        Some(Command::Demo(arguments)) => Ok(Wanted::Demo(arguments)),
        None => resolve(&raw).map(Wanted::Serve).map_err(Refusal::Setting),
    }
}

/// Free ports of the loopback address, and everything else as by default.
pub(crate) fn on_free_ports(broker: SocketAddr) -> Result<Settings, Invalid> {
    let word = |text: &str| Some(text.to_owned());
    resolve(&Raw {
        listen: word("127.0.0.1"),
        port: word("0"),
        http_port: word("0"),
        upstream: Some(format!("amqp://{broker}")),
        ..Raw::default()
    })
}

fn resolve(raw: &Raw) -> Result<Settings, Invalid> {
    Ok(Settings {
        listen: listen(raw.listen.as_deref().unwrap_or(DEFAULT_LISTEN))?,
        port: port("--port", raw.port.as_deref(), DEFAULT_PORT)?,
        http_port: port("--http-port", raw.http_port.as_deref(), DEFAULT_HTTP_PORT)?,
        idle: seconds("--idle-connection-timeout", raw.idle_connection_timeout.as_deref(), 1, 5)?,
        workers: workers(raw.workers.as_deref())?,
        auth_ttl: seconds("--auth-ttl", raw.auth_ttl.as_deref(), 0, 60)?,
        upstream: upstream(raw.upstream.as_deref())?,
    })
}

fn listen(text: &str) -> Result<String, Invalid> {
    let problem = "a host name or an IP address is needed, without a port";
    let host =
        host(text).ok_or_else(|| Invalid { setting: "--listen", problem: format!("{text:?}: {problem}") })?;
    Ok(host.to_owned())
}

fn port(setting: &'static str, text: Option<&str>, default: u16) -> Result<u16, Invalid> {
    let number = whole(setting, text, "a port", 0..=u64::from(u16::MAX), u64::from(default))?;
    Ok(u16::try_from(number).unwrap_or(default))
}

fn seconds(setting: &'static str, text: Option<&str>, least: u64, default: u64) -> Result<Duration, Invalid> {
    whole(setting, text, "a number of seconds", least..=SECONDS_MAX, default).map(Duration::from_secs)
}

fn workers(text: Option<&str>) -> Result<usize, Invalid> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let default = cores.min(DEFAULT_WORKERS_MAX);
    let number = whole("--workers", text, "a number of threads", 1..=WORKERS_MAX, default as u64)?;
    Ok(usize::try_from(number).unwrap_or(default))
}

/// A whole number in a range.
fn whole(
    setting: &'static str,
    text: Option<&str>,
    what: &str,
    allowed: std::ops::RangeInclusive<u64>,
    default: u64,
) -> Result<u64, Invalid> {
    let Some(text) = text else { return Ok(default) };
    // u64's own reader would let a sign pass.
    let number = text.parse().ok().filter(|n| allowed.contains(n) && !text.starts_with('+'));
    number.ok_or_else(|| {
        let (least, most) = (allowed.start(), allowed.end());
        Invalid { setting, problem: format!("{text:?} is not {what} from {least} to {most}") }
    })
}

/// The broker's address. Its text is never repeated when it is refused: there may be a password in it.
fn upstream(text: Option<&str>) -> Result<Upstream, Invalid> {
    let refuse =
        |problem: &str| Invalid { setting: "broker", problem: format!("{problem}; use amqp://HOST[:PORT]") };
    let text = text.ok_or_else(|| refuse("no address given"))?;
    let Some((scheme, rest)) = text.split_once("://") else {
        return Err(refuse("the address has no scheme"));
    };
    match scheme.to_ascii_lowercase().as_str() {
        "amqp" => {}
        "amqps" => return Err(refuse("TLS to the broker is not available")),
        _ => return Err(refuse("the scheme is not amqp")),
    }
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains('@') {
        return Err(refuse("no user or password here, clients bring their own"));
    }
    if authority.contains(['/', '?', '#']) {
        return Err(refuse("no virtual host or parameters here, clients bring their own"));
    }
    let (name, number) = match authority.rsplit_once(':') {
        Some((name, number)) if !number.contains(']') => (name, Some(number)),
        _ => (authority, None),
    };
    let port = match number {
        None => AMQP_PORT,
        Some(number) => {
            let port = number.parse().ok().filter(|port| *port > 0 && !number.starts_with('+'));
            port.ok_or_else(|| refuse("the port is not a number from 1 to 65535"))?
        }
    };
    if name.contains(':') && !name.starts_with('[') {
        return Err(refuse("an IPv6 address needs brackets"));
    }
    let host = host(name).ok_or_else(|| refuse("the host is not a name or an IP address"))?;
    Ok(Upstream { host: host.to_owned(), port })
}

/// A host name or an address; an IPv6 address with or without brackets. Returned without them.
fn host(text: &str) -> Option<&str> {
    if let Some(inner) = text.strip_prefix('[') {
        return inner.strip_suffix(']').filter(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let valid = text.parse::<Ipv6Addr>().is_ok() || (!text.is_empty() && text.chars().all(name));
    valid.then_some(text)
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
