//! From what a file says to what is to be done. Everything that is wrong is found, not only the first.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use rustls::SupportedCipherSuite;
use toml::Spanned;
use tracing_subscriber::filter::LevelFilter;
use warren_engine::Config;
use warren_engine::config::{self, Limits, Pattern};
use zeroize::Zeroizing;

use super::model::{self, Model};
use super::problem::{Problem, instead};
use super::values::{Size, Span, place};
use crate::options::{self, MEMORY_MAX, MEMORY_MIN};
use crate::setup::{self, Listening, Place, Reach, Setup, Stopping};
use crate::tls::ciphers;
use crate::units::size;

/// Less than the smallest frame is no message size: a message's first frames are larger.
const DATA_RATE_MIN: u64 = 1024;

/// Makes a setup of a model. Files are looked for in `folder`.
pub(super) fn resolve(model: &Model, folder: &Path) -> Result<Setup, Vec<Problem>> {
    let mut resolver = Resolver { folder, problems: Vec::new() };
    let setup = resolver.setup(model);
    match resolver.problems.is_empty() {
        true => Ok(setup),
        false => Err(resolver.problems),
    }
}

/// Names of one kind of thing, with their numbers.
type Names = BTreeMap<String, usize>;

struct Resolver<'a> {
    folder: &'a Path,
    problems: Vec<Problem>,
}

impl Resolver<'_> {
    fn setup(&mut self, model: &Model) -> Setup {
        self.missing(model);
        self.check_identities(model);
        let backends = self.names("backend", model.backend.iter().map(|b| Some(&b.name)));
        let farms = self.names("farm", model.farm.iter().map(|f| Some(&f.name)));
        let listeners = self.names("listener", model.listener.iter().map(|l| l.name.as_ref()));
        self.names("route", model.route.iter().map(|r| r.name.as_ref()));
        let engine = Config {
            datacenter: model.proxy.datacenter.clone(),
            hostname: crate::limits::hostname(),
            reverse_dns: model.proxy.reverse_dns,
            listeners: model.listener.iter().map(listener).collect(),
            routes: (1..)
                .zip(&model.route)
                .map(|(n, r)| self.route(n, r, model, &listeners, &farms))
                .collect(),
            farms: model.farm.iter().map(|f| self.farm(f, &backends)).collect(),
            backends: model.backend.iter().map(backend).collect(),
            rules: model.limit.iter().map(|l| self.rule(l)).collect(),
            identities: model.identity.iter().filter_map(|i| self.identity(i)).collect(),
            auth_timeout: model.auth.as_ref().map(|auth| auth.timeout.0),
            limits: self.limits(&model.proxy),
        };
        Setup {
            engine,
            listeners: model.listener.iter().map(|l| self.listening(l)).collect(),
            backends: model.backend.iter().map(|b| self.reach(b)).collect(),
            http: model.control.http.as_ref().map(|address| address.0.clone()),
            workers: model.proxy.workers(),
            accept_rate: model.proxy.accept_rate.map(u32::from),
            stopping: Stopping {
                before_close: model.proxy.term_client_close_timeout.0,
                after_close: model.proxy.term_timeout.map(|span| span.0),
            },
            log: model.proxy.log_level.map(level),
            auth: model.auth.as_ref().and_then(|a| self.auth(a)),
            warnings: Vec::new(),
        }
    }

    fn problem(&mut self, place: Range<usize>, text: impl Into<String>) {
        self.problems.push(Problem::at(place, text));
    }

    /// Without these nobody could be served.
    fn missing(&mut self, model: &Model) {
        let tables = [
            (
                model.listener.is_empty(),
                "no [[listener]]",
                "where clients connect: address = \"0.0.0.0:5672\"",
            ),
            (model.backend.is_empty(), "no [[backend]]", "a broker: name = \"rabbit1\", host, port"),
            (model.farm.is_empty(), "no [[farm]]", "name = \"main\" and backends = [\"rabbit1\"]"),
            (model.route.is_empty(), "no [[route]]", "for everything: farm = \"main\""),
        ];
        for (missing, what, instead) in tables {
            if missing {
                self.problems
                    .push(Problem::of_file(format!("{what}: nobody could be served; write one, {instead}")));
            }
        }
    }

    /// Collects names, which must differ; things without a name are counted.
    fn names<'m>(&mut self, kind: &str, all: impl Iterator<Item = Option<&'m Spanned<String>>>) -> Names {
        let mut names = Names::new();
        for (number, name) in all.enumerate() {
            let Some(name) = name else { continue };
            if name.get_ref().is_empty() {
                self.problem(name.span(), format!("the name of a {kind} is empty; give it one"));
            } else if names.insert(name.get_ref().clone(), number).is_some() {
                self.problem(
                    name.span(),
                    format!("there are two {kind}s called {:?}; rename one", name.get_ref()),
                );
            }
        }
        names
    }

    /// What a name stands for; 0 when there is none, which is a problem.
    fn find(&mut self, kind: &str, name: &Spanned<String>, names: &Names) -> usize {
        names.get(name.get_ref()).copied().unwrap_or_else(|| {
            let instead = instead(name.get_ref(), names.keys().map(String::as_str));
            self.problem(name.span(), format!("there is no {kind} {:?}; {instead}", name.get_ref()));
            0
        })
    }

    fn file(&self, path: &Path) -> PathBuf {
        self.folder.join(path)
    }

    fn limits(&mut self, proxy: &model::Proxy) -> Limits {
        let memory = proxy.memory.map_or_else(options::default_memory, |size| size.0);
        if !(MEMORY_MIN..=MEMORY_MAX).contains(&memory) {
            let (least, most) = (size::in_words(MEMORY_MIN), size::in_words(MEMORY_MAX));
            let text = format!(
                "memory = {:?} in [proxy]; write a size from {least} to {most}",
                size::in_words(memory)
            );
            self.problems.push(Problem::of_file(text));
        }
        Limits {
            handshake_timeout: proxy.handshake_timeout.0,
            handshakes: proxy.handshakes.into(),
            crowded_timeout: proxy.crowded_timeout.0,
            inquiries: proxy.inquiries.into(),
            refusal_pause: proxy.refusal_pause.0,
            dials: proxy.dials.into(),
            connect_timeout: proxy.connect_timeout.0,
            wait_limit: proxy.wait_limit.0,
            stall_limit: proxy.stall_limit.0,
            full_for: proxy.full_for.0,
            auth_ttl: proxy.auth_ttl.0,
            idle_timeout: proxy.idle_timeout.0,
            refusal_ttl: proxy.refusal_ttl.0,
            session_outbox: octets(proxy.session_outbox),
            session_budget: octets(proxy.session_budget),
            upstream_outbox: octets(proxy.upstream_outbox),
            upstream_channels: proxy.upstream_channels.get(),
            pool_connections: proxy.pool_connections.into(),
            idle_channels: proxy.idle_channels,
            pool_waiters: proxy.pool_waiters,
            unauthenticated_octets: octets(proxy.unauthenticated_bytes),
            memory: usize::try_from(memory).unwrap_or(usize::MAX),
            reserve_from: proxy.reserve_from.0,
            message_size: proxy.message_size.0,
            allow_remote_guest: proxy.allow_remote_guest,
        }
    }

    fn listening(&mut self, listener: &model::Listener) -> Listening {
        let tls = listener.tls.as_ref().map(|tls| {
            let span = tls.span();
            let tls = tls.get_ref();
            let asks = !matches!(tls.client_auth, model::ClientAuth::None);
            if asks && tls.client_ca.is_none() {
                let text = "client_auth needs client_ca, the authorities that client certificates come from";
                self.problem(span.clone(), text);
            } else if !asks && tls.client_ca.is_some() {
                let text =
                    "client_ca is not used; write client_auth = \"optional\" or \"required\" beside it";
                self.problem(span.clone(), text);
            }
            setup::ServerTls {
                certificate: self.file(&tls.certificate),
                key: self.file(&tls.key),
                client_ca: tls.client_ca.as_ref().map(|path| self.file(path)),
                client_auth: match tls.client_auth {
                    model::ClientAuth::None => setup::ClientAuth::None,
                    model::ClientAuth::Optional => setup::ClientAuth::Optional,
                    model::ClientAuth::Required => setup::ClientAuth::Required,
                },
                versions: self.versions(tls.versions.as_deref(), span.clone()),
                ciphers: self.ciphers(&tls.ciphers),
                said_at: Some(span),
            }
        });
        Listening {
            place: listener.address.get_ref().0.clone(),
            tls,
            proxy_protocol: listener.proxy_protocol.iter().map(|network| network.0).collect(),
        }
    }

    fn versions(&mut self, said: Option<&[model::TlsVersion]>, place: Range<usize>) -> setup::TlsVersions {
        let Some(said) = said else { return setup::TlsVersions::All };
        let has = |version| said.contains(&version);
        match (has(model::TlsVersion::V12), has(model::TlsVersion::V13)) {
            (true, true) => setup::TlsVersions::All,
            (true, false) => setup::TlsVersions::Tls12,
            (false, true) => setup::TlsVersions::Tls13,
            (false, false) => {
                self.problem(place, "versions is empty; write [\"1.2\", \"1.3\"], or leave it out");
                setup::TlsVersions::All
            }
        }
    }

    fn ciphers(&mut self, names: &[Spanned<String>]) -> Vec<SupportedCipherSuite> {
        let mut found = Vec::new();
        for name in names {
            match ciphers::find(name.get_ref()) {
                Some(suite) => found.push(suite),
                None => {
                    let all = ciphers::names().join(", ");
                    let text = format!("there is no cipher suite {:?}; write one of {all}", name.get_ref());
                    self.problem(name.span(), text);
                }
            }
        }
        found
    }

    fn reach(&mut self, backend: &model::Backend) -> Reach {
        let host = options::host(backend.host.get_ref()).map(str::to_owned);
        if host.is_none() {
            let text = format!(
                "host = {:?} is not a host name or an IP address; the port has a key of its own",
                backend.host.get_ref()
            );
            self.problem(backend.host.span(), text);
        }
        let tls = backend.tls.as_ref().map(|tls| {
            let span = tls.span();
            let tls = tls.get_ref();
            if tls.certificate.is_some() != tls.key.is_some() {
                self.problem(span.clone(), "certificate and key go together; write both, or none");
            }
            setup::ClientTls {
                ca: tls.ca.as_ref().map(|path| self.file(path)),
                certificate: tls
                    .certificate
                    .as_ref()
                    .zip(tls.key.as_ref())
                    .map(|(c, k)| (self.file(c), self.file(k))),
                server_name: tls.server_name.clone(),
                verify: match tls.verify {
                    model::Verify::Full => setup::Verify::Full,
                    model::Verify::Ca => setup::Verify::Ca,
                    model::Verify::None => setup::Verify::None,
                },
                versions: self.versions(tls.versions.as_deref(), span.clone()),
                ciphers: self.ciphers(&tls.ciphers),
                said_at: Some(span),
            }
        });
        Reach {
            place: Place { host: host.unwrap_or_default(), port: backend.port.get() },
            tls,
            send_proxy: backend.send_proxy.map(|version| match version {
                model::SendProxy::V1 => setup::ProxyVersion::V1,
                model::SendProxy::V2 => setup::ProxyVersion::V2,
            }),
        }
    }

    fn farm(&mut self, farm: &model::Farm, backends: &Names) -> config::Farm {
        let members = farm.backends.get_ref();
        if members.is_empty() {
            let text = format!("farm {:?} has no backends; name at least one", farm.name.get_ref());
            self.problem(farm.backends.span(), text);
        }
        for (n, member) in members.iter().enumerate() {
            if members[..n].iter().any(|m| m.get_ref() == member.get_ref()) {
                let text =
                    format!("{:?} is in the farm twice; leave one out, or use weights", member.get_ref());
                self.problem(member.span(), text);
            }
        }
        config::Farm {
            name: farm.name.get_ref().clone(),
            backends: members.iter().map(|name| self.find("backend", name, backends)).collect(),
            select: match farm.select {
                model::Select::RoundRobin => config::Select::RoundRobin,
                model::Select::Random => config::Select::Random,
                model::Select::LeastConnections => config::Select::LeastConnections,
            },
            partition: farm
                .partition
                .iter()
                .map(|model::Partition::DatacenterAffinity| config::Partition::DatacenterAffinity)
                .collect(),
            health_check: farm.health_check.map(|check| config::HealthCheck {
                interval: check.interval.0,
                timeout: check.timeout.0,
                fall: check.fall.get(),
                rise: check.rise.get(),
            }),
        }
    }

    fn route(
        &mut self,
        number: usize,
        route: &model::Route,
        model: &Model,
        listeners: &Names,
        farms: &Names,
    ) -> config::Route {
        let listener = route.listener.as_ref().map(|name| self.find("listener", name, listeners));
        self.check_sni(route, listener, model);
        if matches!(route.mode, model::Mode::Dedicated) {
            let shared_only = [
                route.close.as_ref().map(|c| (c.span(), "close")),
                route.on_loss.as_ref().map(|o| (o.span(), "on_loss")),
            ];
            for (place, key) in shared_only.into_iter().flatten() {
                let text = format!("{key} is for shared mode, and this route is dedicated; leave it out");
                self.problem(place, text);
            }
        }
        config::Route {
            name: route.name.as_ref().map_or_else(|| number.to_string(), |name| name.get_ref().clone()),
            vhost: Pattern::new(&route.vhost),
            user: Pattern::new(&route.user),
            listener,
            sni: route.sni.as_ref().map(|sni| Pattern::new(&sni.get_ref().to_ascii_lowercase())),
            farm: self.find("farm", &route.farm, farms),
            mode: match route.mode {
                model::Mode::Shared => config::Mode::Shared,
                model::Mode::Dedicated => config::Mode::Dedicated,
            },
            upstream_vhost: route.upstream_vhost.clone(),
            close: match route.close.as_ref().map(Spanned::get_ref) {
                Some(model::Close::Fast) => config::CloseMode::Fast,
                Some(model::Close::Confirmed) | None => config::CloseMode::Confirmed,
            },
            on_loss: match route.on_loss.as_ref().map(Spanned::get_ref) {
                Some(model::OnLoss::Close) => config::OnLoss::Close,
                Some(model::OnLoss::Nack) | None => config::OnLoss::Nack,
            },
            limits: self.limited(&route.limits, route.farm.span()),
            alarms: allowance(&route.alarms),
        }
    }

    /// A name in TLS handshakes only comes where TLS is spoken.
    fn check_sni(&mut self, route: &model::Route, listener: Option<usize>, model: &Model) {
        let Some(sni) = &route.sni else { return };
        // Whoever speaks TLS for a listener may pass the name on.
        let speaks_tls = |l: &model::Listener| l.tls.is_some() || !l.proxy_protocol.is_empty();
        let possible = match listener {
            Some(number) => model.listener.get(number).is_some_and(speaks_tls),
            None => model.listener.iter().any(speaks_tls),
        };
        if !possible {
            let text = "sni never matches where no TLS is spoken; give the listener tls, or leave sni out";
            self.problem(sni.span(), text);
        }
    }

    /// What is limited. An alarm may be as low as anybody likes.
    fn limited(&mut self, said: &model::Allowance, near: Range<usize>) -> config::Allowance {
        if let Some(Size(rate)) = said.data_rate
            && rate < DATA_RATE_MIN
        {
            let text =
                format!("data_rate = {rate}: nothing would get through; write {DATA_RATE_MIN} or more");
            self.problem(near, text);
        }
        allowance(said)
    }

    fn rule(&mut self, limit: &model::Limit) -> config::Rule {
        config::Rule {
            per: match limit.per {
                model::Per::Vhost => config::Per::Vhost,
                model::Per::User => config::Per::User,
                model::Per::Address => config::Per::Address,
            },
            vhost: Pattern::new(&limit.vhost),
            user: Pattern::new(&limit.user),
            addresses: limit.address.iter().map(|network| network.0).collect(),
            limits: self.limited(&limit.limits, 0..0),
            alarms: allowance(&limit.alarms),
        }
    }

    /// A certificate stands for one user, and somebody has to ask for it.
    fn check_identities(&mut self, model: &Model) {
        let mut known = BTreeSet::new();
        for identity in &model.identity {
            let cn = &identity.certificate_cn;
            if !known.insert(cn.get_ref()) {
                let text = format!("there are two identities for {:?}; leave one out", cn.get_ref());
                self.problem(cn.span(), text);
            }
        }
        if let Some(first) = model.identity.first()
            && !model.listener.iter().any(asks_certificates)
        {
            let text = "no listener asks for certificates, so that this is never used; write client_ca and client_auth = \"optional\" or \"required\" in a listener's tls, or leave the identity out";
            self.problem(first.certificate_cn.span(), text);
        }
    }

    fn identity(&mut self, identity: &model::Identity) -> Option<config::Identity> {
        let file = self.file(identity.password_file.get_ref());
        let mut password = match std::fs::read(&file) {
            Ok(password) => Zeroizing::new(password),
            Err(error) => {
                let text = format!("password_file {} cannot be read: {error}", file.display());
                self.problem(identity.password_file.span(), text);
                return None;
            }
        };
        while password.last().is_some_and(|c| matches!(c, b'\n' | b'\r')) {
            password.pop();
        }
        if password.contains(&0) || password.is_empty() {
            let text =
                format!("password_file {} must have a password in it, and nothing else", file.display());
            self.problem(identity.password_file.span(), text);
        }
        let certificate_cn = identity.certificate_cn.get_ref().clone();
        Some(config::Identity { certificate_cn, user: identity.user.clone(), password })
    }

    fn auth(&mut self, auth: &model::Auth) -> Option<setup::AuthService> {
        let Some((place, target)) = url(auth.service.get_ref()) else {
            let text = "service is not an address; write it like \"http://127.0.0.1:8080/auth\"";
            self.problem(auth.service.span(), text);
            return None;
        };
        Some(setup::AuthService {
            place,
            target,
            timeout: auth.timeout.0,
            cache: auth.cache.map_or(std::time::Duration::ZERO, |Span(time)| time),
            allow_empty: auth.allow_empty,
        })
    }
}

fn allowance(said: &model::Allowance) -> config::Allowance {
    config::Allowance {
        connections: said.connections.map(u64::from),
        channels: said.channels.map(u64::from),
        connection_rate: said.connection_rate.map(u64::from),
        data_rate: said.data_rate.map(|size| size.0),
        message_size: said.message_size.map(|size| size.0),
    }
}

fn listener(listener: &model::Listener) -> config::Listener {
    let name = listener.name.as_ref().map(|name| name.get_ref().clone());
    config::Listener {
        name: name.unwrap_or_else(|| listener.address.get_ref().0.to_string()),
        asks_certificates: asks_certificates(listener),
    }
}

fn asks_certificates(listener: &model::Listener) -> bool {
    let tls = listener.tls.as_ref().map(Spanned::get_ref);
    tls.is_some_and(|tls| !matches!(tls.client_auth, model::ClientAuth::None))
}

fn backend(backend: &model::Backend) -> config::Backend {
    config::Backend {
        name: backend.name.get_ref().clone(),
        host: backend.host.get_ref().clone(),
        port: backend.port.get(),
        datacenter: backend.datacenter.clone(),
        weight: backend.weight.get(),
    }
}

fn octets(size: Size) -> usize {
    usize::try_from(size.0).unwrap_or(usize::MAX)
}

fn level(level: model::LogLevel) -> LevelFilter {
    match level {
        model::LogLevel::Trace => LevelFilter::TRACE,
        model::LogLevel::Debug => LevelFilter::DEBUG,
        model::LogLevel::Info => LevelFilter::INFO,
        model::LogLevel::Warn => LevelFilter::WARN,
        model::LogLevel::Error => LevelFilter::ERROR,
        model::LogLevel::Off => LevelFilter::OFF,
    }
}

/// An address of HTTP without TLS: host, port, and what to ask for there.
fn url(text: &str) -> Option<(Place, String)> {
    let rest = text.strip_prefix("http://")?;
    let (authority, target) = match rest.find(['/', '?']) {
        Some(at) => rest.split_at(at),
        None => (rest, "/"),
    };
    let target = if target.starts_with('/') { target.to_owned() } else { format!("/{target}") };
    if target.contains(|c: char| c.is_ascii_control() || c == ' ') {
        return None;
    }
    let place = place(authority).or_else(|| place(&format!("{authority}:80")))?;
    Some((place, target))
}
