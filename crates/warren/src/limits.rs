//! Limits of the process, set by the system and raised as far as they go.

use rustix::process::{Resource, getrlimit, setrlimit};

/// Fewer descriptors than this are not worth a proxy; the operator is told.
const FEW: u64 = 4096;

/// Raises the number of descriptors to the hard limit. Every connection needs one, and the soft limit is
/// commonly 1024, for the sake of programs that use `select`.
pub(crate) fn raise_descriptors() {
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    if let Err(error) = setrlimit(Resource::Nofile, limit) {
        tracing::warn!("the limit of open files cannot be raised to the hard limit: {error}");
    }
    if let Some(most) = descriptors().filter(|most| *most < FEW) {
        tracing::warn!("this process may open {most} files only, one for each connection; see ulimit -Hn");
    }
}

/// How many descriptors the process may have; `None`: as many as it likes.
pub(crate) fn descriptors() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// How the descriptors are divided, which every connection needs one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Division {
    /// Connections, of clients and to brokers, beyond which no client is accepted.
    pub(crate) connections: usize,
    /// Of these, clients that are not let in yet.
    pub(crate) handshakes: usize,
}

/// What the process opens for itself: standard streams, signals, the control thread's runtime, listening sockets of
/// two address families, name resolution.
const OWN: u64 = 20;
/// What each worker opens for itself: its runtime and its duplicates of the listening sockets.
const OWN_OF_A_WORKER: u64 = 6;
/// Kept free at least, so that clients cannot take what those who are in depend on: connections to brokers, and HTTP,
/// by which the operator would find out.
const RESERVE_LEAST: u64 = 32;
/// An eighth is kept free: multiplexing takes few connections upstream, own lanes take one each.
const RESERVE_SHARE: u64 = 8;
/// Enough at any limit: a thousand connections upstream and to HTTP that nobody has opened yet.
const RESERVE_MOST: u64 = 1024;
/// Served however low the limit is: fewer would serve nobody.
const CONNECTIONS_LEAST: u64 = 8;

/// Divides `most` descriptors (`None`: any number) among connections, what the process itself needs, and a reserve.
pub(crate) fn divide(most: Option<u64>, workers: usize) -> Division {
    let most = most.unwrap_or(u64::MAX);
    let reserve = (most / RESERVE_SHARE).clamp(RESERVE_LEAST, RESERVE_MOST);
    let own = OWN + OWN_OF_A_WORKER * workers as u64;
    let connections = most.saturating_sub(reserve + own).max(CONNECTIONS_LEAST);
    let connections = usize::try_from(connections).unwrap_or(usize::MAX);
    // A quarter is for those who have shown that they may come in.
    Division { connections, handshakes: connections - connections / 4 }
}

/// Octets of memory that the process may use: what the machine has, or less where its control group says so.
pub(crate) fn memory() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = read("/proc/meminfo").and_then(|text| total(&text));
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let of_groups = group_files(&groups).into_iter().filter_map(|path| read(&path)?.trim().parse().ok());
    machine.into_iter().chain(of_groups).min()
}

/// The line `MemTotal:  24684000 kB`, where kB are KiB.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The files that hold the limits of this process's control group and of those around it. A file that does not
/// exist, or says `max`, limits nothing.
fn group_files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (parts.next(), parts.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            c if c.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let mut path = path.trim_end_matches('/');
        loop {
            files.push(format!("{root}{path}/{file}"));
            match path.rfind('/') {
                Some(parent) => path = &path[..parent],
                None => break,
            }
        }
    }
    files
}

/// What this machine is called.
pub(crate) fn hostname() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_divided() {
        assert_eq!(divide(Some(128), 1), Division { connections: 70, handshakes: 53 });
        let usual = divide(Some(20_000), 2);
        assert_eq!(usual.connections, 20_000 - 1024 - 32);
        assert!(usual.handshakes > 10_000, "ten thousand clients may come at once: {usual:?}");
        assert_eq!(divide(Some(10), 8).connections, 8, "never nobody");
        assert!(divide(None, 8).connections > 1 << 40, "no limit");
    }

    #[test]
    fn the_machine_has_memory() {
        assert!(memory().is_some_and(|octets| octets > 1 << 20), "{:?}", memory());
        assert_eq!(total("MemFree: 1 kB\nMemTotal:       2048 kB\n"), Some(2 << 20));
        assert_eq!(total("MemTotal: many\n"), None);
    }

    #[test]
    fn every_group_around_the_process_is_asked() {
        let unified =
            ["/sys/fs/cgroup/a/b/memory.max", "/sys/fs/cgroup/a/memory.max", "/sys/fs/cgroup/memory.max"];
        assert_eq!(group_files("0::/a/b\n"), unified);
        let older = "5:cpu,cpuacct:/x\n4:memory:/docker/1\n0::/\n";
        assert_eq!(
            group_files(older),
            [
                "/sys/fs/cgroup/memory/docker/1/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/docker/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory/memory.limit_in_bytes",
                "/sys/fs/cgroup/memory.max",
            ]
        );
    }
}
