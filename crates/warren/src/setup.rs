//! What the operator wants, complete and valid, whether it was said by options or in a file: the engine's configuration,
//! and what only the edge has to know.

use std::fmt;
use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use ipnet::IpNet;
use rustls::SupportedCipherSuite;
use tracing_subscriber::filter::LevelFilter;
use warren_engine::Config;

/// Everything that this process is to do.
#[derive(Debug)]
pub(crate) struct Setup {
    /// Listeners, routes, farms, backends and limits.
    pub(crate) engine: Config,
    /// The edge's part of each listener of the engine's configuration, by number.
    pub(crate) listeners: Vec<Listening>,
    /// The edge's part of each backend of the engine's configuration, by number.
    pub(crate) backends: Vec<Reach>,
    /// Where metrics and health are served; `None`: nowhere.
    pub(crate) http: Option<Place>,
    /// Number of worker threads, at least 1.
    pub(crate) workers: usize,
    /// New clients per second; `None`: any number.
    pub(crate) accept_rate: Option<u32>,
    /// What the end of the process waits for.
    pub(crate) stopping: Stopping,
    /// What is logged; `None`: nobody said.
    pub(crate) log: Option<LevelFilter>,
    /// Who is asked before a client may come in; `None`: nobody but the broker.
    pub(crate) auth: Option<AuthService>,
    /// What the operator should know when the process starts.
    pub(crate) warnings: Vec<String>,
}

impl Setup {
    /// How much there is of everything, for people.
    pub(crate) fn in_words(&self) -> String {
        let Config { listeners, routes, farms, backends, .. } = &self.engine;
        let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        [
            count(listeners.len(), "listener"),
            count(routes.len(), "route"),
            count(farms.len(), "farm"),
            count(backends.len(), "backend"),
        ]
        .join(", ")
    }

    /// The brokers, for people.
    pub(crate) fn brokers_in_words(&self) -> String {
        match self.backends.as_slice() {
            [only] => format!("the broker is {only}"),
            all => format!(
                "{}, among them {}",
                self.in_words(),
                all.first().map_or(String::new(), Reach::to_string)
            ),
        }
    }
}

/// A host, or one of this machine's addresses, and a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    /// Name or address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// Where clients connect, and what they speak there.
#[derive(Clone, Debug)]
pub(crate) struct Listening {
    pub(crate) place: Place,
    /// `None`: plain TCP.
    pub(crate) tls: Option<ServerTls>,
    /// Who may say on whose behalf it connects, by the PROXY protocol.
    pub(crate) proxy_protocol: Vec<IpNet>,
}

/// TLS towards clients. The files are read when the process starts, and again when they change.
#[derive(Clone, Debug)]
pub(crate) struct ServerTls {
    /// The certificate and those that lead to its authority, PEM.
    pub(crate) certificate: PathBuf,
    /// Its key, PEM.
    pub(crate) key: PathBuf,
    /// Authorities of client certificates, PEM.
    pub(crate) client_ca: Option<PathBuf>,
    pub(crate) client_auth: ClientAuth,
    pub(crate) versions: TlsVersions,
    /// The cipher suites that are allowed; empty: those that rustls prefers.
    pub(crate) ciphers: Vec<SupportedCipherSuite>,
    /// Where the configuration file says all this.
    pub(crate) said_at: Option<Range<usize>>,
}

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ClientAuth {
    /// They are not asked.
    None,
    /// They may; what they show must be good.
    Optional,
    /// They must.
    Required,
}

/// Which versions of TLS are spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TlsVersions {
    /// 1.2 and 1.3.
    #[default]
    All,
    /// 1.2 only.
    Tls12,
    /// 1.3 only.
    Tls13,
}

/// How a backend is reached.
#[derive(Clone, Debug)]
pub(crate) struct Reach {
    pub(crate) place: Place,
    /// `None`: plain TCP.
    pub(crate) tls: Option<ClientTls>,
    /// Whether it is told who is behind the connection.
    pub(crate) send_proxy: Option<ProxyVersion>,
}

impl fmt::Display for Reach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls.is_some() { "amqps" } else { "amqp" };
        write!(f, "{scheme}://{}", self.place)
    }
}

/// TLS towards a broker.
#[derive(Clone, Debug, Default)]
pub(crate) struct ClientTls {
    /// Authorities of its certificate, PEM; `None`: the system's.
    pub(crate) ca: Option<PathBuf>,
    /// What Warren shows, PEM, and its key.
    pub(crate) certificate: Option<(PathBuf, PathBuf)>,
    /// The name in the broker's certificate, and in SNI; `None`: the backend's host.
    pub(crate) server_name: Option<String>,
    pub(crate) verify: Verify,
    pub(crate) versions: TlsVersions,
    /// The cipher suites that are allowed; empty: those that rustls prefers.
    pub(crate) ciphers: Vec<SupportedCipherSuite>,
    /// Where the configuration file says all this.
    pub(crate) said_at: Option<Range<usize>>,
}

/// What of a broker's certificate is verified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Verify {
    /// Its authority and its name.
    #[default]
    Full,
    /// Its authority.
    Ca,
    /// Nothing: who is in between can read and change everything.
    None,
}

/// Versions of the PROXY protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProxyVersion {
    /// A line of text.
    V1,
    /// Binary, with what is known of the client's TLS.
    V2,
}

/// The service that is asked whether a client may come in (amqpprox's).
#[derive(Clone, Debug)]
pub(crate) struct AuthService {
    pub(crate) place: Place,
    /// Path and query.
    pub(crate) target: String,
    /// How long it may take to answer.
    pub(crate) timeout: Duration,
    /// How long an answer stands for the same question; zero: every client is asked about.
    pub(crate) cache: Duration,
    /// Whether an empty body is an answer: the bare ALLOW of protobuf.
    pub(crate) allow_empty: bool,
}

/// What the end of the process waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stopping {
    /// Clients may go on for this long before they are sent connection.close.
    pub(crate) before_close: Duration,
    /// Then they may take this long to answer; `None`: no limit.
    pub(crate) after_close: Option<Duration>,
}
