//! Ports for the processes that tests start.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

/// Below the range that the kernel takes source ports from (32768 on Linux). A node needs seconds before it listens,
/// and in that time the tests' own connections would sooner or later take a port that was only looked up.
const RANGE: std::ops::Range<u32> = 15_000..32_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port of the loopback address that nobody listens on, and that this process did not give out before (until
/// 17,000 were given out). Test processes that run at the same time start at different places.
pub fn free() -> u16 {
    let width = RANGE.end - RANGE.start;
    let nanos = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.subsec_nanos());
    let start = (std::process::id().wrapping_mul(211)).wrapping_add(nanos / 1000 * 7) % width;
    // Only the first caller's start counts: later ones go on from there.
    let _ = NEXT.compare_exchange(0, start + 1, Ordering::Relaxed, Ordering::Relaxed);
    for _ in 0..width {
        let port = RANGE.start + NEXT.fetch_add(1, Ordering::Relaxed) % width;
        let port = u16::try_from(port).expect("the range is below 65536");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port in {RANGE:?}");
}
