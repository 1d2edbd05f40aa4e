//! What the operator said. [`arguments`], the environment and [`ini`] hold words as they were given ([`sources`]);
//! [`Settings`] is what they mean and cannot be wrong any more.
//!
//! Whoever gives a bad value reads one line that names the setting and its source and says what is allowed; the
//! status is 2.

mod arguments;
mod ini;

mod sources;
mod upstream;

use std::ffi::OsString;
use std::net::{Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use tracing_subscriber::filter::LevelFilter;
use warren_engine::Config;
use warren_engine::config::Limits;

use crate::edge::Fault;
use crate::file::{self, Problems};
use crate::setup::{ClientTls, Listening, Place, Reach, Setup, Stopping};
use crate::units::size;
use crate::{demo, limits};
use arguments::{Arguments, Command};
use ini::Ini;
use sources::{Invalid, Setting, Sources};
pub(crate) use upstream::Upstream;

/// Stands for "what the broker allows": AMQP has no larger number of a channel.
const ALL_CHANNELS: u16 = u16::MAX;
/// By default no more workers than this: pools of several workers share connections less well, and eight are
/// enough to fill most networks.
const DEFAULT_WORKERS_MAX: usize = 8;
/// More threads than this are a typing error.
const WORKERS_MAX: u64 = 256;
/// With less, a worker has no room for a few blocks, a few outboxes and one message of some megabytes.
pub(crate) const MEMORY_MIN: u64 = 32 << 20;
/// More than this is a typing error.
pub(crate) const MEMORY_MAX: u64 = 1 << 44;
/// Where the system does not say how much memory there is.
const MEMORY_UNKNOWN: u64 = 256 << 20;
/// A day. Nobody wants to keep unused connections, or old proofs of a password, for longer.
const SECONDS_MAX: u64 = 86_400;

const LISTEN: Setting = Setting {
    option: "--listen",
    variable: "LISTEN_ADDRESS",
    keys: &[("listen", "address"), ("listen", "bind")],
};
const PORT: Setting = Setting { option: "--port", variable: "LISTEN_PORT", keys: &[("listen", "port")] };
const HTTP_PORT: Setting =
    Setting { option: "--http-port", variable: "HTTP_PORT", keys: &[("main", "http_port")] };
const IDLE: Setting = Setting {
    option: "--idle-connection-timeout",
    variable: "IDLE_CONNECTION_TIMEOUT",
    keys: &[("main", "idle_connection_timeout")],
};
const CHANNELS: Setting = Setting {
    option: "--max-upstream-channels",
    variable: "MAX_UPSTREAM_CHANNELS",
    keys: &[("main", "max_upstream_channels")],
};
const TERM: Setting =
    Setting { option: "--term-timeout", variable: "TERM_TIMEOUT", keys: &[("main", "term_timeout")] };
const TERM_CLIENT_CLOSE: Setting = Setting {
    option: "--term-client-close-timeout",
    variable: "TERM_CLIENT_CLOSE_TIMEOUT",
    keys: &[("main", "term_client_close_timeout")],
};
const LOG: Setting = Setting {
    option: "--debug",
    variable: "LOG_LEVEL",
    keys: &[("main", "log_level"), ("listen", "log_level")],
};
const UPSTREAM: Setting = Setting { option: "UPSTREAM", variable: "AMQP_URL", keys: &[("main", "upstream")] };
// From here on amqproxy has nothing of the kind.
const UPSTREAM_CA: Setting =
    Setting { option: "--upstream-ca", variable: "WARREN_UPSTREAM_CA", keys: &[("main", "upstream_ca")] };
const WORKERS: Setting =
    Setting { option: "--workers", variable: "WARREN_WORKERS", keys: &[("main", "workers")] };
const AUTH_TTL: Setting =
    Setting { option: "--auth-ttl", variable: "WARREN_AUTH_TTL", keys: &[("main", "auth_ttl")] };
const MEMORY: Setting =
    Setting { option: "--memory", variable: "WARREN_MEMORY", keys: &[("main", "memory")] };

/// All of them: what a file may say.
const ALL: [&Setting; 13] = [
    &LISTEN,
    &PORT,
    &HTTP_PORT,
    &IDLE,
    &CHANNELS,
    &TERM,
    &TERM_CLIENT_CLOSE,
    &LOG,
    &UPSTREAM,
    &UPSTREAM_CA,
    &WORKERS,
    &AUTH_TTL,
    &MEMORY,
];

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
    /// Most channels of one upstream connection.
    pub(crate) upstream_channels: u16,
    /// How long clients may take after they were sent connection.close; `None`: no limit.
    pub(crate) term_timeout: Option<Duration>,
    /// How long clients may go on before they are sent connection.close.
    pub(crate) term_client_close_timeout: Duration,
    /// What is logged; `None`: nobody said.
    pub(crate) log: Option<LevelFilter>,
    /// Number of worker threads, at least 1.
    pub(crate) workers: usize,
    /// How long a proof of credentials is valid.
    pub(crate) auth_ttl: Duration,
    /// Octets that all buffers together may hold.
    pub(crate) memory: u64,
    /// The broker.
    pub(crate) upstream: Upstream,
    /// What to verify the broker's certificate with; `None`: the system's roots.
    pub(crate) upstream_ca: Option<PathBuf>,
}

impl Settings {
    /// What holds for a broker when nothing else is said.
    fn defaults(upstream: Upstream) -> Settings {
        Settings {
            listen: "localhost".to_owned(),
            // Next to the broker's, so that both can live on one host.
            port: 5673,
            // Next to the port of the broker's own management.
            http_port: 15673,
            // amqproxy's. A connection is cheap to keep, but the broker's operators like to see what is used.
            idle: Duration::from_secs(5),
            upstream_channels: ALL_CHANNELS,
            term_timeout: None,
            term_client_close_timeout: Duration::ZERO,
            log: None,
            workers: default_workers(),
            auth_ttl: Duration::from_secs(60),
            memory: default_memory(),
            upstream,
            upstream_ca: None,
        }
    }

    /// Free ports of the loopback address, and everything else as by default.
    pub(crate) fn on_free_ports(broker: SocketAddr) -> Settings {
        let upstream = Upstream { host: broker.ip().to_string(), port: broker.port(), tls: false };
        Settings { listen: "127.0.0.1".to_owned(), port: 0, http_port: 0, ..Settings::defaults(upstream) }
    }

    /// One of each: listener, route, farm, backend.
    pub(crate) fn setup(&self) -> Setup {
        let tls =
            self.upstream.tls.then(|| ClientTls { ca: self.upstream_ca.clone(), ..ClientTls::default() });
        let at = |port| Place { host: self.listen.clone(), port };
        Setup {
            engine: self.engine_config(),
            listeners: vec![Listening { place: at(self.port), tls: None, proxy_protocol: Vec::new() }],
            backends: vec![Reach {
                place: Place { host: self.upstream.host.clone(), port: self.upstream.port },
                tls,
                send_proxy: None,
            }],
            http: Some(at(self.http_port)),
            workers: self.workers,
            accept_rate: None,
            stopping: Stopping {
                before_close: self.term_client_close_timeout,
                after_close: self.term_timeout,
            },
            log: self.log,
            auth: None,
            warnings: Vec::new(),
        }
    }

    fn engine_config(&self) -> Config {
        let limits = Limits {
            auth_ttl: self.auth_ttl,
            idle_timeout: self.idle,
            upstream_channels: self.upstream_channels,
            memory: usize::try_from(self.memory).unwrap_or(usize::MAX),
            ..Limits::default()
        };
        Config::simple(&self.upstream.host, self.upstream.port, limits)
    }

    /// What is in force besides addresses, for the log.
    pub(crate) fn in_words(&self) -> String {
        let channels = match self.upstream_channels {
            ALL_CHANNELS => "as many as the broker allows".to_owned(),
            n => n.to_string(),
        };
        let term = self.term_timeout.map_or("no limit".to_owned(), |limit| format!("{} s", limit.as_secs()));
        format!(
            "idle-connection-timeout: {} s; max-upstream-channels: {channels}; auth-ttl: {} s; \
             memory: {}; term-client-close-timeout: {} s; term-timeout: {term}",
            self.idle.as_secs(),
            self.auth_ttl.as_secs(),
            size::in_words(self.memory),
            self.term_client_close_timeout.as_secs(),
        )
    }
}

/// Why there are no settings.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// A setting has a value that is not allowed.
    Setting(Invalid),
    /// A configuration file is wrong.
    File(Problems),
    /// Nobody said where the broker is.
    NoUpstream,
    /// Help or the version was asked for.
    Asked(clap::Error),
}

impl Refusal {
    /// Files that TLS needs and that cannot be used. Options name only one of them.
    pub(crate) fn of_files(faults: &[Fault], by_options: bool) -> Refusal {
        let first = faults.first().map(|fault| (fault.whose.as_str(), fault.text.as_str()));
        let (whose, problem) = first.unwrap_or_default();
        Refusal::Setting(Invalid::new(if by_options { "--upstream-ca" } else { whose }, problem))
    }

    /// Tells the operator, in one line unless more was asked for; returns the status to exit with.
    pub(crate) fn print(&self) -> ExitCode {
        match self {
            Refusal::Asked(text) => {
                let _ = text.print();
                return ExitCode::SUCCESS;
            }
            Refusal::Setting(invalid) => eprintln!("warren: {invalid}"),
            Refusal::File(problems) => eprintln!("{problems}"),
            Refusal::NoUpstream => {
                eprintln!(
                    "warren: UPSTREAM: nobody says where the broker is; give amqp://HOST[:PORT] as an argument, as \
                     AMQP_URL in the environment, or as upstream in [main] of the file\n\n{}\n\nSee warren --help.",
                    arguments::usage()
                );
            }
        }
        ExitCode::from(2)
    }
}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Wanted {
    /// To be a proxy, as options, environment and INI file say.
    Serve(Settings),
    /// To be a proxy, as a TOML file says.
    ServeFile(Box<Setup>),
    /// To say whether a TOML file is right.
    Check(PathBuf),
    /// To print the schema of such files.
    Schema,
    /// To show what a proxy is good for.
    Demo(demo::Arguments),
}

/// Reads the command line, the environment, and the file that the command line names.
pub(crate) fn read(
    words: impl Iterator<Item = OsString>,
    variables: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Wanted, Refusal> {
    let mut arguments = Arguments::parse_from(words)?;
    match arguments.command.take() {
        Some(Command::Demo(arguments)) => return Ok(Wanted::Demo(arguments)),
        Some(Command::Check { file }) => return Ok(Wanted::Check(file)),
        Some(Command::Schema) => return Ok(Wanted::Schema),
        None => {}
    }
    if let Some(path) =
        arguments.config.as_deref().filter(|path| path.extension().is_some_and(|e| e == "toml"))
    {
        return serve_file(path, &arguments, variables);
    }
    let file = arguments.config.as_deref().map(|path| Ini::load(path, &ALL)).transpose();
    let sources =
        Sources { options: &|name| arguments.get(name), variables, file: file.map_err(Refusal::Setting)? };
    let settings = resolve(&sources).map_err(Refusal::Setting)?;
    settings.map(Wanted::Serve).ok_or(Refusal::NoUpstream)
}

/// A TOML file says everything; only the level of the log can be said beside it.
fn serve_file(
    path: &Path,
    arguments: &Arguments,
    variables: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Wanted, Refusal> {
    let beside = ALL.iter().filter(|setting| setting.option != LOG.option);
    if let Some(setting) = beside.clone().find(|setting| arguments.get(setting.option).is_some()) {
        let problem =
            format!("cannot be said beside {}, which says everything; write it there", path.display());
        return Err(Refusal::Setting(Invalid::new(sources::on_command_line(setting.option), problem)));
    }
    let sources = Sources { options: &|name| arguments.get(name), variables, file: None };
    let log = sources.find(&LOG, level).map_err(Refusal::Setting)?;
    let mut setup = file::load(path).map_err(Refusal::File)?;
    let unused = beside.filter(|setting| variables(setting.variable).is_some_and(|value| !value.is_empty()));
    setup.warnings.extend(unused.map(|setting| {
        format!(
            "{} is set in the environment and is not used: {} says everything",
            setting.variable,
            path.display()
        )
    }));
    setup.log = log.or(setup.log);
    Ok(Wanted::ServeFile(Box::new(setup)))
}

/// `None`: there is no upstream. What was said besides is checked all the same.
fn resolve(sources: &Sources<'_>) -> Result<Option<Settings>, Invalid> {
    let upstream = sources.find(&UPSTREAM, Upstream::read)?;
    let missing = upstream.is_none();
    let nowhere = Upstream { host: String::new(), port: 0, tls: false };
    let default = Settings::defaults(upstream.unwrap_or(nowhere));
    let term = sources.find(&TERM, seconds_or_none)?;
    let term_client_close = sources.find(&TERM_CLIENT_CLOSE, |text| seconds(text, 0))?;
    let settings = Settings {
        listen: sources.find(&LISTEN, listen)?.unwrap_or(default.listen),
        port: sources.find(&PORT, port)?.unwrap_or(default.port),
        http_port: sources.find(&HTTP_PORT, port)?.unwrap_or(default.http_port),
        idle: sources.find(&IDLE, |text| seconds(text, 1))?.unwrap_or(default.idle),
        upstream_channels: sources.find(&CHANNELS, channels)?.unwrap_or(default.upstream_channels),
        term_timeout: term.unwrap_or(default.term_timeout),
        term_client_close_timeout: term_client_close.unwrap_or(default.term_client_close_timeout),
        log: sources.find(&LOG, level)?,
        workers: sources.find(&WORKERS, workers)?.unwrap_or(default.workers),
        auth_ttl: sources.find(&AUTH_TTL, |text| seconds(text, 0))?.unwrap_or(default.auth_ttl),
        memory: sources.find(&MEMORY, memory)?.unwrap_or(default.memory),
        upstream: default.upstream,
        upstream_ca: sources.find(&UPSTREAM_CA, |text| Ok(PathBuf::from(text)))?,
    };
    if missing {
        return Ok(None);
    }
    if settings.upstream_ca.is_some() && !settings.upstream.tls {
        let problem =
            "is for a broker with TLS, and UPSTREAM is not amqps://; leave one out or change the other";
        return Err(Invalid::new("--upstream-ca", problem));
    }
    Ok(Some(settings))
}

fn listen(text: &str) -> Result<String, String> {
    let host = host(text);
    host.map(str::to_owned)
        .ok_or_else(|| format!("{text:?} is not a host name or an IP address (and no port belongs here)"))
}

fn port(text: &str) -> Result<u16, String> {
    let number = whole(text, "a port", 0..=u64::from(u16::MAX))?;
    Ok(u16::try_from(number).unwrap_or_default())
}

fn channels(text: &str) -> Result<u16, String> {
    let number = whole(text, "a number of channels", 1..=u64::from(u16::MAX))?;
    Ok(u16::try_from(number).unwrap_or(u16::MAX))
}

fn seconds(text: &str, least: u64) -> Result<Duration, String> {
    whole(text, "a number of seconds", least..=SECONDS_MAX).map(Duration::from_secs)
}

fn seconds_or_none(text: &str) -> Result<Option<Duration>, String> {
    match text {
        "-1" => Ok(None),
        _ => seconds(text, 0).map(Some).map_err(|problem| format!("{problem}, or -1 for no limit")),
    }
}

fn workers(text: &str) -> Result<usize, String> {
    let number = whole(text, "a number of threads", 1..=WORKERS_MAX)?;
    Ok(usize::try_from(number).unwrap_or(1))
}

fn memory(text: &str) -> Result<u64, String> {
    let allowed = || {
        format!(
            "{text:?} is not a size from {} to {}, such as 256MiB or 1GB",
            size::in_words(MEMORY_MIN),
            size::in_words(MEMORY_MAX)
        )
    };
    size::read(text).filter(|octets| (MEMORY_MIN..=MEMORY_MAX).contains(octets)).ok_or_else(allowed)
}

/// One for each core, within reason.
pub(crate) fn default_workers() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from).min(DEFAULT_WORKERS_MAX)
}

/// A quarter of what the process may use: the rest is for the sockets' own buffers, for what sessions cost besides
/// buffers, and for others on the machine.
pub(crate) fn default_memory() -> u64 {
    limits::memory().map_or(MEMORY_UNKNOWN, |memory| memory / 4).clamp(MEMORY_MIN, MEMORY_MAX)
}

/// amqproxy's names of levels. Warren has nothing between info and warning, and nothing above an error.
fn level(text: &str) -> Result<LevelFilter, String> {
    Ok(match text.to_ascii_lowercase().as_str() {
        "trace" => LevelFilter::TRACE,
        "debug" => LevelFilter::DEBUG,
        "info" => LevelFilter::INFO,
        "notice" | "warn" | "warning" => LevelFilter::WARN,
        "error" | "fatal" => LevelFilter::ERROR,
        "none" | "off" => LevelFilter::OFF,
        _ => {
            let allowed = "trace, debug, info, notice, warn, error, fatal, none";
            return Err(format!("{text:?} is not a level; allowed are {allowed}"));
        }
    })
}

/// A whole number in a range.
fn whole(text: &str, what: &str, allowed: RangeInclusive<u64>) -> Result<u64, String> {
    // u64's own reader would let a sign pass.
    let number = text.parse().ok().filter(|n| allowed.contains(n) && !text.starts_with('+'));
    number.ok_or_else(|| format!("{text:?} is not {what} from {} to {}", allowed.start(), allowed.end()))
}

/// A host name or an address; an IPv6 address with or without brackets. Returned without them.
pub(crate) fn host(text: &str) -> Option<&str> {
    if let Some(inner) = text.strip_prefix('[') {
        return inner.strip_suffix(']').filter(|address| address.parse::<Ipv6Addr>().is_ok());
    }
    let name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let valid = text.parse::<Ipv6Addr>().is_ok() || (!text.is_empty() && text.chars().all(name));
    valid.then_some(text)
}

#[cfg(test)]
mod tests;
