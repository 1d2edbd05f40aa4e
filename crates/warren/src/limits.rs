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
