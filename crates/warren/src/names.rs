//! Names of brokers to addresses: DNS as `/etc/resolv.conf` says, and `/etc/hosts`. Answers are kept as long as their
//! TTL says; all addresses count, of both kinds.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use hickory_resolver::TokioResolver;
use hickory_resolver::config::LookupIpStrategy;

/// What says how names are resolved. When one of them changes, it is read again.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];
/// One question to one server. The caller has about two seconds altogether: two servers can be asked.
const ANSWER_WITHIN: Duration = Duration::from_millis(900);
/// How long "there is no such name" is believed, whatever its TTL: a broker's name may appear any moment.
const NO_SUCH_NAME_FOR: Duration = Duration::from_secs(2);

/// One for the process, so that what one worker has asked the others know. It is locked for a look at the files' dates,
/// when a connection is made.
static RESOLVER: Mutex<Option<Resolver>> = Mutex::new(None);

#[derive(Clone)]
struct Resolver {
    dates: [Option<SystemTime>; FILES.len()],
    resolver: TokioResolver,
    /// The servers that it asks, for people.
    servers: String,
}

/// The addresses of a host, those of the two kinds by turns. An error says what was asked.
pub(crate) async fn addresses(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    if let Ok(address) = host.parse::<IpAddr>() {
        return Ok(vec![SocketAddr::new(address, port)]);
    }
    let resolver = current().map_err(|problem| format!("the name {host} cannot be resolved: {problem}"))?;
    let found = resolver.resolver.lookup_ip(host).await.map_err(|error| {
        let why = match error.is_no_records_found() {
            true => "no such name".to_owned(),
            false => error.to_string(),
        };
        format!("the name {host} cannot be resolved: {why} (asked {})", resolver.servers)
    })?;
    let (six, four): (Vec<IpAddr>, Vec<IpAddr>) = found.iter().partition(IpAddr::is_ipv6);
    Ok(by_turns(&six, &four).into_iter().map(|address| SocketAddr::new(address, port)).collect())
}

/// The servers that are asked at present, for people.
pub(crate) fn servers() -> String {
    current().map_or_else(|problem| problem, |resolver| resolver.servers)
}

/// The resolver, made anew when the files have changed.
fn current() -> Result<Resolver, String> {
    let dates = FILES.map(|file| Path::new(file).metadata().and_then(|m| m.modified()).ok());
    let mut known = RESOLVER.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(resolver) = known.as_ref().filter(|r| r.dates == dates) {
        return Ok(resolver.clone());
    }
    let resolver = make(dates)?;
    *known = Some(resolver.clone());
    Ok(resolver)
}

fn make(dates: [Option<SystemTime>; FILES.len()]) -> Result<Resolver, String> {
    let unusable = |error: &dyn std::fmt::Display| format!("{} is of no use: {error}", FILES[0]);
    let mut builder = TokioResolver::builder_tokio().map_err(|error| unusable(&error))?;
    let options = builder.options_mut();
    options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
    options.timeout = options.timeout.min(ANSWER_WITHIN);
    options.negative_max_ttl = Some(NO_SUCH_NAME_FOR);
    let resolver = builder.build().map_err(|error| unusable(&error))?;
    let servers: Vec<String> = servers_of(&std::fs::read_to_string(FILES[0]).unwrap_or_default());
    Ok(Resolver { dates, resolver, servers: servers.join(", ") })
}

fn servers_of(text: &str) -> Vec<String> {
    let server = |line: &str| line.strip_prefix("nameserver").map(|rest| rest.trim().to_owned());
    text.lines().filter_map(|line| server(line.trim())).collect()
}

/// One of the first, one of the second, and so on: when one kind is a dead end, the other is not far.
fn by_turns(first: &[IpAddr], second: &[IpAddr]) -> Vec<IpAddr> {
    let longest = first.len().max(second.len());
    let pairs = (0..longest).flat_map(|n| [first.get(n), second.get(n)]);
    pairs.flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<F: Future>(future: F) -> F::Output {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
        runtime.block_on(future)
    }

    #[test]
    fn addresses_need_no_servers() {
        let four = run(addresses("127.0.0.1", 5672)).expect("an address");
        assert_eq!(four, [SocketAddr::from(([127, 0, 0, 1], 5672))]);
        let six = run(addresses("::1", 5672)).expect("an address");
        assert_eq!(six[0].to_string(), "[::1]:5672");
    }

    #[test]
    fn the_hosts_file_is_read() {
        let found = run(addresses("localhost", 1)).expect("every machine knows it");
        assert!(!found.is_empty() && found.iter().all(|a| a.ip().is_loopback()), "{found:?}");
    }

    #[test]
    fn a_name_that_does_not_exist_is_told_with_what_was_asked() {
        let text = run(addresses("no-such-broker.invalid", 1)).expect_err("it does not exist");
        assert!(text.starts_with("the name no-such-broker.invalid cannot be resolved: "), "{text}");
    }

    #[test]
    fn both_kinds_come_by_turns() {
        let [a, b, c, d] = ["::1", "::2", "::3", "10.0.0.1"].map(|a| a.parse().expect("an address"));
        assert_eq!(by_turns(&[a, b, c], &[d]), [a, d, b, c]);
        assert_eq!(by_turns(&[], &[d]), [d]);
    }

    #[test]
    fn servers_are_read_for_people() {
        let text = "# a comment\nsearch example.com\nnameserver 10.0.0.2\n nameserver ::1\noptions ndots:1\n";
        assert_eq!(servers_of(text), ["10.0.0.2", "::1"]);
    }
}
