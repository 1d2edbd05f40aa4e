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
}
