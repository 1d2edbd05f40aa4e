//! What a file may say. The names, the defaults and the descriptions here are the ones that the reference
//! (`docs/configuration.md`) and the schema (`warren schema`) show.

use std::num::{NonZeroU16, NonZeroU32, NonZeroU64, NonZeroUsize};

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::Spanned;
use warren_engine::config::Limits;

use super::values::{Address, File, Size, Span};
use crate::options;

/// The configuration of Warren.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Model {
    /// The process: threads, memory, deadlines, caps.
    pub(crate) proxy: Proxy,
    /// How operators reach it.
    pub(crate) control: Control,
    /// Where clients connect.
    pub(crate) listener: Vec<Listener>,
    /// Brokers.
    pub(crate) backend: Vec<Backend>,
    /// Backends that are one cluster for clients.
    pub(crate) farm: Vec<Farm>,
    /// Which clients go to which farm, and how they are served. The first that matches counts, in the order of the file.
    pub(crate) route: Vec<Route>,
    /// Limits for each virtual host, user or client address, besides those of routes.
    pub(crate) limit: Vec<Limit>,
    /// Client certificates that stand for credentials (mechanism EXTERNAL).
    pub(crate) identity: Vec<Identity>,
    /// A service that is asked before a client may come in.
    pub(crate) auth: Option<Auth>,
}

/// The process: threads, memory, deadlines, caps.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Proxy {
    /// Where this process is. Farms with `partition = ["datacenter-affinity"]` prefer backends of the same datacenter.
    pub(crate) datacenter: String,
    /// Threads that serve connections. Default: one for each core, at most 8.
    pub(crate) workers: Option<NonZeroUsize>,
    /// Memory that all buffers together may hold, from 32MiB. Default: a quarter of what the process may use.
    pub(crate) memory: Option<Size>,
    /// What is logged: trace, debug, info, warn, error or off.
    pub(crate) log_level: Option<LogLevel>,
    /// How long a login that a broker accepted stands for others with the same credentials, and how old a reused channel
    /// may be: the longest time that a right that was taken away goes on working.
    pub(crate) auth_ttl: Span,
    /// How long a login that a broker refused is answered from memory.
    pub(crate) refusal_ttl: Span,
    /// How long an upstream connection that nobody uses is kept.
    pub(crate) idle_timeout: Span,
    /// One try to reach a backend: its name, TCP, and again TLS.
    pub(crate) connect_timeout: Span,
    /// Each step of a handshake, with clients and with brokers.
    pub(crate) handshake_timeout: Span,
    /// How long clients wait for an upstream connection or channel before they are told 506, and for a broker that is
    /// gone before they are told 320.
    pub(crate) wait_limit: Span,
    /// How long a large publish that has reserved memory may stand still while others wait for theirs; then 506.
    pub(crate) stall_limit: Span,
    /// How long a publisher may keep a shared connection unwritable before it is moved to one of its own.
    pub(crate) full_for: Span,
    /// How long clients may go on, when Warren is stopped, before they are sent Close.
    pub(crate) term_client_close_timeout: Span,
    /// How long they may then take to answer. Default: no limit.
    pub(crate) term_timeout: Option<Span>,
    /// Handshakes with clients that may be in progress at one time.
    pub(crate) handshakes: NonZeroUsize,
    /// New clients per second, altogether. Default: no limit.
    pub(crate) accept_rate: Option<NonZeroU32>,
    /// How long a step of a handshake may take while all handshakes are in use.
    pub(crate) crowded_timeout: Span,
    /// The largest frame that a client may send before it is let in.
    pub(crate) unauthenticated_bytes: Size,
    /// Connections to a farm that may be asking at one time whether credentials are good.
    pub(crate) inquiries: NonZeroUsize,
    /// How long a refused one of these counts on.
    pub(crate) refusal_pause: Span,
    /// Connections to a farm that may be being made at one time for clients that are let in.
    pub(crate) dials: NonZeroUsize,
    /// Upstream connections of one pool (farm, virtual host and credentials).
    pub(crate) pool_connections: NonZeroUsize,
    /// Channels that may wait for one pool.
    pub(crate) pool_waiters: usize,
    /// Channels on one upstream connection, besides what the broker allows.
    pub(crate) upstream_channels: NonZeroU16,
    /// Clean channels kept for reuse on one upstream connection.
    pub(crate) idle_channels: usize,
    /// What may wait to be written to one client before its consumers are moved to a connection of its own.
    pub(crate) session_outbox: Size,
    /// What one client may hold altogether; beyond it 506.
    pub(crate) session_budget: Size,
    /// What may wait to be written to one upstream connection before its clients are read no more.
    pub(crate) upstream_outbox: Size,
    /// Publishes that announce more than this reserve their memory before their body is read.
    pub(crate) reserve_from: Size,
    /// The largest message.
    pub(crate) message_size: Size,
    /// Whether users that brokers restrict to their own machine (guest) may come from elsewhere.
    pub(crate) allow_remote_guest: bool,
    /// Whether the names of clients' addresses are looked up, to be told to brokers in dedicated mode.
    pub(crate) reverse_dns: bool,
}

impl Default for Proxy {
    fn default() -> Proxy {
        let limits = Limits::default();
        let size = |octets: usize| Size(octets as u64);
        let number = |n: usize| NonZeroUsize::new(n).unwrap_or(NonZeroUsize::MIN);
        Proxy {
            datacenter: String::new(),
            workers: None,
            memory: None,
            log_level: None,
            auth_ttl: Span(limits.auth_ttl),
            refusal_ttl: Span(limits.refusal_ttl),
            idle_timeout: Span(limits.idle_timeout),
            connect_timeout: Span(limits.connect_timeout),
            handshake_timeout: Span(limits.handshake_timeout),
            wait_limit: Span(limits.wait_limit),
            stall_limit: Span(limits.stall_limit),
            full_for: Span(limits.full_for),
            term_client_close_timeout: Span(std::time::Duration::ZERO),
            term_timeout: None,
            handshakes: number(limits.handshakes),
            accept_rate: None,
            crowded_timeout: Span(limits.crowded_timeout),
            unauthenticated_bytes: size(limits.unauthenticated_octets),
            inquiries: number(limits.inquiries),
            refusal_pause: Span(limits.refusal_pause),
            dials: number(limits.dials),
            pool_connections: number(limits.pool_connections),
            pool_waiters: limits.pool_waiters,
            upstream_channels: NonZeroU16::new(limits.upstream_channels).unwrap_or(NonZeroU16::MAX),
            idle_channels: limits.idle_channels,
            session_outbox: size(limits.session_outbox),
            session_budget: size(limits.session_budget),
            upstream_outbox: size(limits.upstream_outbox),
            reserve_from: Size(limits.reserve_from),
            message_size: Size(limits.message_size),
            allow_remote_guest: limits.allow_remote_guest,
            reverse_dns: false,
        }
    }
}

/// Levels of the log.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
    Off,
}

/// How operators reach it.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Control {
    /// Where /metrics, /healthz and /readyz are served. Default: nowhere.
    pub(crate) http: Option<Address>,
}

/// Where clients connect.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Listener {
    /// Its name in logs, metrics and routes. Default: its address.
    #[schemars(with = "Option<String>")]
    #[serde(default)]
    pub(crate) name: Option<Spanned<String>>,
    /// A name or an address of this machine, and a port. With `[::]` IPv4 is served as well.
    #[schemars(with = "Address")]
    pub(crate) address: Spanned<Address>,
    /// Speak TLS here. Default: plain TCP.
    #[schemars(with = "Option<ListenerTls>")]
    #[serde(default)]
    pub(crate) tls: Option<Spanned<ListenerTls>>,
    /// Networks whose PROXY protocol headers (v1 and v2) are believed; they have to send one. Others must not send any.
    #[schemars(with = "Vec<String>")]
    #[serde(default)]
    pub(crate) proxy_protocol: Vec<Network>,
}

/// A network such as `10.0.0.0/8`, or an address.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Network(pub(crate) IpNet);

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Network, D::Error> {
        let text = String::deserialize(from)?;
        let net = text.parse().or_else(|_| text.parse::<std::net::IpAddr>().map(IpNet::from));
        net.map(Network).map_err(|_| {
            serde::de::Error::custom(format!(
                "{text:?} is not a network; write an address, or one with the length of its prefix, such as \"10.0.0.0/8\""
            ))
        })
    }
}

/// TLS towards clients. All files are PEM; they are read again when they change.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ListenerTls {
    /// The certificate, and those that lead to its authority.
    pub(crate) certificate: File,
    /// Its key.
    pub(crate) key: File,
    /// Authorities of client certificates.
    #[serde(default)]
    pub(crate) client_ca: Option<File>,
    /// Whether clients show a certificate.
    #[serde(default)]
    pub(crate) client_auth: ClientAuth,
    /// Versions of TLS that are spoken.
    #[serde(default)]
    pub(crate) versions: Option<Vec<TlsVersion>>,
    /// Cipher suites that are allowed, in the order of preference. Default: all that rustls deems good.
    #[schemars(with = "Vec<String>")]
    #[serde(default)]
    pub(crate) ciphers: Vec<Spanned<String>>,
}

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum ClientAuth {
    /// They are not asked.
    #[default]
    None,
    /// They may; what they show must be good.
    Optional,
    /// They must.
    Required,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub(crate) enum TlsVersion {
    /// TLS 1.2.
    #[serde(rename = "1.2")]
    V12,
    /// TLS 1.3.
    #[serde(rename = "1.3")]
    V13,
}

/// A broker.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Backend {
    /// Its name in logs, metrics and farms.
    #[schemars(with = "String")]
    pub(crate) name: Spanned<String>,
    /// A name or an address. Names are looked up when they are needed, and all their addresses are tried.
    #[schemars(with = "String")]
    pub(crate) host: Spanned<String>,
    /// Its port.
    pub(crate) port: NonZeroU16,
    /// Where it is.
    #[serde(default)]
    pub(crate) datacenter: String,
    /// Its share beside the others of its farm.
    #[serde(default = "one")]
    pub(crate) weight: NonZeroU32,
    /// Speak TLS with it. Default: plain TCP.
    #[schemars(with = "Option<BackendTls>")]
    #[serde(default)]
    pub(crate) tls: Option<Spanned<BackendTls>>,
    /// Begin each connection with a header of the PROXY protocol: v1 or v2. Shared connections say that there is no client.
    #[serde(default)]
    pub(crate) send_proxy: Option<SendProxy>,
}

fn one() -> NonZeroU32 {
    NonZeroU32::MIN
}

/// TLS towards a broker. All files are PEM; they are read again when they change.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct BackendTls {
    /// Authorities of the broker's certificate. Default: the system's.
    pub(crate) ca: Option<File>,
    /// The certificate that Warren shows.
    pub(crate) certificate: Option<File>,
    /// Its key.
    pub(crate) key: Option<File>,
    /// The name in the broker's certificate. Default: the backend's host.
    pub(crate) server_name: Option<String>,
    /// What of the broker's certificate is verified.
    pub(crate) verify: Verify,
    /// Versions of TLS that are spoken.
    pub(crate) versions: Option<Vec<TlsVersion>>,
    /// Cipher suites that are allowed, in the order of preference. Default: all that rustls deems good.
    #[schemars(with = "Vec<String>")]
    pub(crate) ciphers: Vec<Spanned<String>>,
}

/// What of a broker's certificate is verified.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
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
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum SendProxy {
    /// A line of text.
    V1,
    /// Binary, with what is known of the client's TLS.
    V2,
}

/// Backends that are one cluster for clients.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Farm {
    /// Its name in logs, metrics and routes.
    #[schemars(with = "String")]
    pub(crate) name: Spanned<String>,
    /// Names of its members, at least one.
    #[schemars(with = "Vec<String>", length(min = 1))]
    pub(crate) backends: Spanned<Vec<Spanned<String>>>,
    /// How a member is chosen; weights count.
    #[serde(default)]
    pub(crate) select: Select,
    /// What puts some members before others, whatever is chosen among them.
    #[serde(default)]
    pub(crate) partition: Vec<Partition>,
    /// Ask the members regularly whether they work. Default: they are only watched.
    #[serde(default)]
    pub(crate) health_check: Option<HealthCheck>,
}

/// How a member is chosen; weights count.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Select {
    /// One after the other, exact across all threads.
    #[default]
    RoundRobin,
    /// The less loaded of two drawn at random.
    Random,
    /// The one with the fewest connections for its weight.
    LeastConnections,
}

/// What puts some members before others.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Partition {
    /// Those of this process's datacenter first.
    DatacenterAffinity,
}

/// Members are asked by a connection that goes as far as connection.start.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct HealthCheck {
    /// From one check to the next.
    pub(crate) interval: Span,
    /// How long a check may take.
    pub(crate) timeout: Span,
    /// Failures in a row that make a member bad: it is tried last.
    pub(crate) fall: NonZeroU32,
    /// Successes in a row that make it good again.
    pub(crate) rise: NonZeroU32,
}

impl Default for HealthCheck {
    fn default() -> HealthCheck {
        let seconds = |n| Span(std::time::Duration::from_secs(n));
        let number = |n| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        HealthCheck { interval: seconds(5), timeout: seconds(2), fall: number(3), rise: number(2) }
    }
}

/// Which clients go to which farm, and how they are served.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Route {
    /// Its name in logs and metrics. Default: its number in the file, from 1.
    #[schemars(with = "Option<String>")]
    #[serde(default)]
    pub(crate) name: Option<Spanned<String>>,
    /// Virtual hosts; `*` stands for any run of characters.
    #[serde(default = "anything")]
    pub(crate) vhost: String,
    /// Users; `*` stands for any run of characters.
    #[serde(default = "anything")]
    pub(crate) user: String,
    /// The name of a listener. Default: all.
    #[schemars(with = "Option<String>")]
    #[serde(default)]
    pub(crate) listener: Option<Spanned<String>>,
    /// Names that clients ask for in their TLS handshake (SNI); `*` stands for any run of characters. Default: any, and
    /// clients without TLS.
    #[schemars(with = "Option<String>")]
    #[serde(default)]
    pub(crate) sni: Option<Spanned<String>>,
    /// The name of a farm.
    #[schemars(with = "String")]
    pub(crate) farm: Spanned<String>,
    /// How clients are connected to brokers.
    #[serde(default)]
    pub(crate) mode: Mode,
    /// The virtual host's name at the broker. Default: the one that the client said.
    #[serde(default)]
    pub(crate) upstream_vhost: Option<String>,
    /// Shared mode: when a channel's close is answered. Default: confirmed.
    #[schemars(with = "Option<Close>")]
    #[serde(default)]
    pub(crate) close: Option<Spanned<Close>>,
    /// Shared mode: what clients are told of publishes with confirms that were on their way when a broker was lost.
    /// Default: nack.
    #[schemars(with = "Option<OnLoss>")]
    #[serde(default)]
    pub(crate) on_loss: Option<Spanned<OnLoss>>,
    /// What its clients may have altogether.
    #[serde(default)]
    pub(crate) limits: Allowance,
    /// The same, but what is beyond is logged and counted, and not refused.
    #[serde(default)]
    pub(crate) alarms: Allowance,
}

fn anything() -> String {
    "*".to_owned()
}

/// How clients are connected to brokers.
#[derive(Clone, Copy, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Mode {
    /// The channels of many clients share a few connections.
    #[default]
    Shared,
    /// Each client has a connection to the broker.
    Dedicated,
}

/// When a channel's close is answered.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Close {
    /// When its publishes are known to have been processed.
    Confirmed,
    /// At once, for channels that only published.
    Fast,
}

/// What clients are told of publishes with confirms that were on their way when a broker was lost.
#[derive(Clone, Copy, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum OnLoss {
    /// They are answered with basic.nack, and the client goes on.
    Nack,
    /// The client's connection is closed (320), for clients that overlook basic.nack.
    Close,
}

/// How much is allowed. What is not said is not limited.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Allowance {
    /// Client connections at one time.
    pub(crate) connections: Option<NonZeroU64>,
    /// Client channels at one time.
    pub(crate) channels: Option<NonZeroU64>,
    /// New client connections per second.
    pub(crate) connection_rate: Option<NonZeroU64>,
    /// Data per second, each way. What is beyond is delayed.
    pub(crate) data_rate: Option<Size>,
    /// The largest message.
    pub(crate) message_size: Option<Size>,
}

/// Limits for each virtual host, user or client address.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Limit {
    /// Of what each has these limits for itself.
    pub(crate) per: Per,
    /// Virtual hosts that are meant; `*` stands for any run of characters.
    #[serde(default = "anything")]
    pub(crate) vhost: String,
    /// Users that are meant; `*` stands for any run of characters.
    #[serde(default = "anything")]
    pub(crate) user: String,
    /// Networks whose clients are meant. Default: all.
    #[schemars(with = "Vec<String>")]
    #[serde(default)]
    pub(crate) address: Vec<Network>,
    /// What each may have.
    #[serde(default)]
    pub(crate) limits: Allowance,
    /// The same, but what is beyond is logged and counted, and not refused.
    #[serde(default)]
    pub(crate) alarms: Allowance,
}

/// Of what each has limits for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Per {
    /// Each virtual host.
    Vhost,
    /// Each user.
    User,
    /// Each address of clients.
    Address,
}

/// A client certificate that stands for credentials (mechanism EXTERNAL).
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Identity {
    /// The common name in the certificate.
    #[schemars(with = "String")]
    pub(crate) certificate_cn: Spanned<String>,
    /// The user at the broker.
    pub(crate) user: String,
    /// A file with the user's password there. A line's end after it does not count.
    #[schemars(with = "String")]
    pub(crate) password_file: Spanned<File>,
}

/// The auth service of amqpprox: an HTTP service that is asked before a client may come in.
#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Auth {
    /// Its address, such as `http://127.0.0.1:8080/auth`.
    #[schemars(with = "String")]
    pub(crate) service: Spanned<String>,
    /// How long it may take to answer; then the client is refused.
    #[serde(default = "auth_timeout")]
    pub(crate) timeout: Span,
    /// How long an answer stands for the same question. Default: every client is asked about.
    #[serde(default)]
    pub(crate) cache: Option<Span>,
    /// Whether an empty body with status 200 lets a client in: the bare ALLOW of protobuf.
    #[serde(default)]
    pub(crate) allow_empty: bool,
}

fn auth_timeout() -> Span {
    Span(std::time::Duration::from_secs(30))
}

impl Proxy {
    /// Threads, or what holds when nobody said.
    pub(crate) fn workers(&self) -> usize {
        self.workers.map_or_else(options::default_workers, usize::from)
    }
}
