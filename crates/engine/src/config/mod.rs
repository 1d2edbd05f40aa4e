//! The resolved model: listeners, routes, farms, backends and limits. It cannot be wrong any more: whoever
//! builds it from options or files has validated it. Workers share one immutable snapshot.

mod limits;
mod pattern;

use std::fmt;
use std::time::Duration;

use ipnet::IpNet;
use zeroize::Zeroizing;

pub use limits::Limits;
pub use pattern::Pattern;

/// Index into [`Config::listeners`].
pub type ListenerId = usize;
/// Index into [`Config::routes`].
pub type RouteId = usize;
/// Index into [`Config::farms`].
pub type FarmId = usize;
/// Index into [`Config::backends`].
pub type BackendId = usize;

/// One immutable snapshot of everything that is configured.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where this process is: farms may prefer backends of the same datacenter.
    pub datacenter: String,
    /// What this machine is called: brokers are told it of dedicated sessions.
    pub hostname: String,
    /// Whether the names of clients' addresses are looked up, for brokers and the auth service.
    pub reverse_dns: bool,
    /// Where clients connect.
    pub listeners: Vec<Listener>,
    /// Which sessions go to which farm, first match wins.
    pub routes: Vec<Route>,
    /// Clusters of brokers.
    pub farms: Vec<Farm>,
    /// Broker endpoints.
    pub backends: Vec<Backend>,
    /// Limits besides those of routes.
    pub rules: Vec<Rule>,
    /// Client certificates that stand for credentials.
    pub identities: Vec<Identity>,
    /// Whether an auth service is asked about each client, and how long it may take.
    pub auth_timeout: Option<Duration>,
    /// Deadlines, caps and budgets.
    pub limits: Limits,
}

impl Config {
    /// The simple use: one listener, one route, one farm, one backend.
    pub fn simple(host: &str, port: u16, limits: Limits) -> Config {
        Config {
            datacenter: String::new(),
            listeners: vec![Listener { name: "default".into(), asks_certificates: false }],
            hostname: String::new(),
            reverse_dns: false,
            routes: vec![Route::to(0)],
            farms: vec![Farm::of("default", vec![0])],
            backends: vec![Backend::at(host, port)],
            rules: Vec::new(),
            identities: Vec::new(),
            auth_timeout: None,
            limits,
        }
    }

    /// The first route that matches, in file order. `sni` is the name that the client asked for in its TLS handshake.
    pub fn route(
        &self,
        listener: ListenerId,
        sni: Option<&str>,
        vhost: &str,
        user: &str,
    ) -> Option<(RouteId, &Route)> {
        self.routes
            .iter()
            .enumerate()
            .find(|(_, r)| r.serves(listener, sni) && r.vhost.matches(vhost) && r.user.matches(user))
    }

    /// The farm of every session that can come this way, when there is only one: then credentials can be checked before
    /// the virtual host is known.
    pub fn only_farm(&self, listener: ListenerId, sni: Option<&str>) -> Option<FarmId> {
        let mut farms = self.routes.iter().filter(|r| r.serves(listener, sni)).map(|r| r.farm);
        let first = farms.next()?;
        farms.all(|f| f == first).then_some(first)
    }

    /// Routes that a client may still take when its user is known and its virtual host is not.
    fn open_to<'a>(
        &'a self,
        listener: ListenerId,
        sni: Option<&'a str>,
        user: &'a str,
    ) -> impl Iterator<Item = &'a Route> {
        self.routes.iter().filter(move |r| r.serves(listener, sni) && r.user.matches(user))
    }

    /// Whether clients that come this way may come to a dedicated route.
    pub fn leads_to_dedicated(&self, listener: ListenerId, sni: Option<&str>) -> bool {
        self.routes.iter().any(|r| r.mode == Mode::Dedicated && r.serves(listener, sni))
    }

    /// Whether a client may come to a dedicated route.
    pub fn may_be_dedicated(&self, listener: ListenerId, sni: Option<&str>, user: &str) -> bool {
        self.open_to(listener, sni, user).any(|r| r.mode == Mode::Dedicated)
    }

    /// The farm of every session that this client can have, when all of them are dedicated: then its own handshake can be
    /// replayed there step by step.
    pub fn only_dedicated(&self, listener: ListenerId, sni: Option<&str>, user: &str) -> Option<FarmId> {
        let farm = self.open_to(listener, sni, user).next()?.farm;
        let same = |r: &Route| r.mode == Mode::Dedicated && r.farm == farm;
        self.open_to(listener, sni, user).all(same).then_some(farm)
    }

    /// The name of the route, when this client can take only one.
    pub fn only_route<'a>(
        &'a self,
        listener: ListenerId,
        sni: Option<&'a str>,
        user: &'a str,
    ) -> Option<&'a Route> {
        let mut routes = self.open_to(listener, sni, user);
        let first = routes.next()?;
        routes.next().is_none().then_some(first)
    }
}

/// Where clients connect.
#[derive(Clone, Debug)]
pub struct Listener {
    /// Its name in logs and metrics.
    pub name: String,
    /// Whether it asks clients for certificates: then these may stand for credentials (EXTERNAL).
    pub asks_certificates: bool,
}

/// Which sessions go where, and how they are served.
#[derive(Clone, Debug)]
pub struct Route {
    /// Its name in logs and metrics.
    pub name: String,
    /// Virtual hosts it serves.
    pub vhost: Pattern,
    /// Users it serves.
    pub user: Pattern,
    /// The listener it serves; all when `None`.
    pub listener: Option<ListenerId>,
    /// Names in TLS handshakes that it serves; when `None`, any, and clients without TLS.
    pub sni: Option<Pattern>,
    /// The farm its sessions go to.
    pub farm: FarmId,
    /// How its sessions are connected to brokers.
    pub mode: Mode,
    /// The virtual host's name at the broker, when it differs.
    pub upstream_vhost: Option<String>,
    /// When a channel's close is answered.
    pub close: CloseMode,
    /// What clients are told of publishes that were under way when a broker was lost.
    pub on_loss: OnLoss,
    /// What its sessions may have altogether.
    pub limits: Allowance,
    /// The same, but what is beyond is logged and counted, not refused.
    pub alarms: Allowance,
}

impl Route {
    /// Everything to this farm, and all else as by default.
    pub fn to(farm: FarmId) -> Route {
        Route {
            name: "default".into(),
            vhost: Pattern::new("*"),
            user: Pattern::new("*"),
            listener: None,
            sni: None,
            farm,
            mode: Mode::Shared,
            upstream_vhost: None,
            close: CloseMode::Confirmed,
            on_loss: OnLoss::Nack,
            limits: Allowance::default(),
            alarms: Allowance::default(),
        }
    }

    /// Whether clients that come this way may be its, as far as this can be known before the virtual host is.
    fn serves(&self, listener: ListenerId, sni: Option<&str>) -> bool {
        let name = |pattern: &Pattern| sni.is_some_and(|name| pattern.matches(&name.to_ascii_lowercase()));
        self.listener.is_none_or(|l| l == listener) && self.sni.as_ref().is_none_or(name)
    }
}

/// How sessions are connected to brokers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The channels of many sessions share the connections of a pool.
    Shared,
    /// Each session has an upstream connection, with its own handshake replayed and the same channel numbers.
    Dedicated,
}

/// What becomes of publishes in confirm mode whose fate is not known because their upstream connection was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnLoss {
    /// They are answered with basic.nack, and their client goes on.
    Nack,
    /// Their client's connection is closed (320), for clients that overlook basic.nack.
    Close,
}

/// When `channel.close` of a publishing channel is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseMode {
    /// When its publishes are known to have been processed.
    Confirmed,
    /// At once, for channels that only published.
    Fast,
}

/// How much is allowed. `None`: any amount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowance {
    /// Client connections at one time.
    pub connections: Option<u64>,
    /// Client channels at one time.
    pub channels: Option<u64>,
    /// New client connections per second.
    pub connection_rate: Option<u64>,
    /// Octets per second, each way.
    pub data_rate: Option<u64>,
    /// Octets of the body of one message.
    pub message_size: Option<u64>,
}

/// Limits that each virtual host, user or client address has for itself.
#[derive(Clone, Debug)]
pub struct Rule {
    /// Of what each has these limits.
    pub per: Per,
    /// Virtual hosts that are meant.
    pub vhost: Pattern,
    /// Users that are meant.
    pub user: Pattern,
    /// Networks whose clients are meant; all when empty.
    pub addresses: Vec<IpNet>,
    /// What each may have.
    pub limits: Allowance,
    /// The same, but what is beyond is logged and counted, not refused.
    pub alarms: Allowance,
}

/// Of what each has limits for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// Each virtual host.
    Vhost,
    /// Each user.
    User,
    /// Each address of clients.
    Address,
}

/// Backends that are one cluster for a client.
#[derive(Clone, Debug)]
pub struct Farm {
    /// Its name in logs and metrics.
    pub name: String,
    /// Its members, at least one.
    pub backends: Vec<BackendId>,
    /// How one of the members is chosen.
    pub select: Select,
    /// What puts some members before others, whatever is selected among them.
    pub partition: Vec<Partition>,
    /// `None`: members are not asked, only watched.
    pub health_check: Option<HealthCheck>,
}

impl Farm {
    /// With all else as by default.
    pub fn of(name: &str, backends: Vec<BackendId>) -> Farm {
        Farm {
            name: name.to_owned(),
            backends,
            select: Select::RoundRobin,
            partition: Vec::new(),
            health_check: None,
        }
    }
}

/// How a member is chosen. Weights count in each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Select {
    /// One after the other, exact across workers.
    RoundRobin,
    /// The better of two drawn at random.
    Random,
    /// The one with the fewest connections for its weight.
    LeastConnections,
}

/// What puts some members before others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Partition {
    /// Those of this process's datacenter first.
    DatacenterAffinity,
}

/// How members are asked whether they work: a connection that goes as far as connection.start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HealthCheck {
    /// From one check to the next.
    pub interval: Duration,
    /// How long a check may take.
    pub timeout: Duration,
    /// Failures in a row that make a member bad.
    pub fall: u32,
    /// Successes in a row that make it good again.
    pub rise: u32,
}

/// One broker endpoint. How it is reached (TLS, PROXY protocol) is the edge's to know.
#[derive(Clone, Debug)]
pub struct Backend {
    /// Its name in logs, metrics and errors.
    pub name: String,
    /// Host name or address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Where it is; empty when nobody said.
    pub datacenter: String,
    /// Its share beside the others of its farm, at least 1.
    pub weight: u32,
}

impl Backend {
    /// With all else as by default.
    pub fn at(host: &str, port: u16) -> Backend {
        Backend {
            name: format!("{host}:{port}"),
            host: host.to_owned(),
            port,
            datacenter: String::new(),
            weight: 1,
        }
    }
}

/// A client certificate that stands for credentials at the broker (mechanism EXTERNAL).
#[derive(Clone)]
pub struct Identity {
    /// The common name in the certificate.
    pub certificate_cn: String,
    /// The user at the broker.
    pub user: String,
    /// Its password there.
    pub password: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Identity { certificate_cn, user, password: _ } = self;
        f.debug_struct("Identity")
            .field("certificate_cn", certificate_cn)
            .field("user", user)
            .finish_non_exhaustive()
    }
}
