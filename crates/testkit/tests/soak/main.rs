//! A long time in little: clients come and go at random, some in the middle of their handshake, some without a word,
//! while backends are killed and come back. Afterwards nothing of it may be left: no memory, no descriptor, no task.
//!
//! For some seconds in `cargo test`, for ten minutes in `make soak` (`WARREN_SOAK_SECONDS=600`).

mod client;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use client::{Random, Way};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use warren_broker::{Options, Server};
use warren_testkit::Warren;

/// Clients at one time.
const CLIENTS: usize = 40;
/// How long the process may take to forget what has gone: pools' idle time, proofs of credentials, jemalloc's decay.
const FORGETS_WITHIN: Duration = Duration::from_secs(90);
/// What more the process may hold than when it had been used for a while: the allocator's waste.
const MEMORY_LEFT: u64 = 8 << 20;

/// What the process holds when nobody uses it.
#[derive(Debug)]
struct Holds {
    memory: u64,
    descriptors: usize,
    tasks: f64,
}

/// What came of the clients.
#[derive(Debug, Default)]
struct Tally {
    served: AtomicU64,
    failed: AtomicU64,
    stalled: AtomicU64,
}

fn file(backends: [SocketAddr; 2]) -> String {
    let backend = |n: usize, address: SocketAddr| {
        let port = address.port();
        format!("[[backend]]\nname = \"broker{n}\"\nhost = \"127.0.0.1\"\nport = {port}\n")
    };
    let (first, second) = (backend(1, backends[0]), backend(2, backends[1]));
    format!(
        "[proxy]\nworkers = 2\nauth_ttl = \"2s\"\nidle_timeout = \"1s\"\nwait_limit = \"5s\"\nhandshake_timeout = \"2s\"\n\
         [[listener]]\nname = \"shared\"\naddress = \"127.0.0.1:0\"\n\
         [[listener]]\nname = \"dedicated\"\naddress = \"127.0.0.1:0\"\n\
         {first}{second}\
         [[farm]]\nname = \"main\"\nbackends = [\"broker1\", \"broker2\"]\n\
         health_check = {{ interval = \"500ms\", timeout = \"500ms\" }}\n\
         [[route]]\nlistener = \"shared\"\nfarm = \"main\"\n\
         [[route]]\nlistener = \"dedicated\"\nfarm = \"main\"\nmode = \"dedicated\"\n"
    )
}

/// A broker that can be killed and comes back at the same port, with nothing of what it knew.
struct Mortal {
    address: SocketAddr,
    server: Option<Server>,
}

impl Mortal {
    fn born() -> Mortal {
        let server = Server::start(Options::default(), ([127, 0, 0, 1], 0).into()).expect("a free port");
        Mortal { address: server.address(), server: Some(server) }
    }

    fn dies(&mut self) {
        self.server = None;
    }

    fn returns(&mut self) {
        let begun = Instant::now();
        while self.server.is_none() {
            // The port may still be somebody's outgoing one for a moment.
            self.server = Server::start(Options::default(), self.address).ok();
            assert!(begun.elapsed() < Duration::from_secs(60), "the broker's port is not free again");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// Has clients come and go, and brokers die and return, for a while.
fn storm(listeners: [SocketAddr; 2], brokers: &mut [Mortal; 2], lasting: Duration, seed: u64) -> Tally {
    let (stop, tally) = (Arc::new(AtomicBool::new(false)), Arc::new(Tally::default()));
    let clients = {
        let (stop, tally) = (Arc::clone(&stop), Arc::clone(&tally));
        std::thread::spawn(move || {
            let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let mut tasks = JoinSet::new();
                for number in 0..CLIENTS {
                    let random = Random::new(seed + number as u64);
                    tasks.spawn(come_and_go(listeners, random, Arc::clone(&stop), Arc::clone(&tally)));
                }
                tasks.join_all().await;
            });
        })
    };
    let mut random = Random::new(seed);
    let end = Instant::now() + lasting;
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(500 + random.below(2500)));
        let broker = &mut brokers[usize::from(random.below(2) == 0)];
        broker.dies();
        std::thread::sleep(Duration::from_millis(random.below(1500)));
        broker.returns();
    }
    stop.store(true, Relaxed);
    clients.join().expect("clients do not panic");
    Arc::into_inner(tally).expect("nobody else counts any more")
}

async fn come_and_go(
    listeners: [SocketAddr; 2],
    mut random: Random,
    stop: Arc<AtomicBool>,
    tally: Arc<Tally>,
) {
    while !stop.load(Relaxed) {
        let address = listeners[usize::from(random.below(2) == 0)];
        let way = Way::draw(&mut random);
        match client::live(address, way, &mut random).await {
            Ok(()) if way == Way::Stalls => tally.stalled.fetch_add(1, Relaxed),
            Ok(()) => tally.served.fetch_add(1, Relaxed),
            // A broker was killed under it: that may cost what lived in the connection.
            Err(_) => tally.failed.fetch_add(1, Relaxed),
        };
    }
}

/// What the process holds once it has forgotten its clients.
fn holds(warren: &Warren) -> Holds {
    let begun = Instant::now();
    let busy = || {
        ["warren_client_connections", "warren_upstream_connections", "warren_logins", "warren_tenants"]
            .iter()
            .map(|name| warren.metric(name))
            .sum::<f64>()
    };
    while busy() > 0.0 {
        assert!(
            begun.elapsed() < FORGETS_WITHIN,
            "clients, connections or logins are not forgotten: {}",
            busy()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    // jemalloc gives pages back ten seconds after they were freed.
    std::thread::sleep(Duration::from_secs(12));
    Holds {
        memory: warren.resident(),
        descriptors: warren.descriptors(),
        tasks: warren.metric("warren_tasks"),
    }
}

#[test]
fn nothing_is_left_of_a_storm() {
    let seconds =
        std::env::var("WARREN_SOAK_SECONDS").map_or(10, |text| text.parse().expect("a number of seconds"));
    let lasting = Duration::from_secs(seconds);
    let mut brokers = [Mortal::born(), Mortal::born()];
    let warren = Warren::start_file(&file([brokers[0].address, brokers[1].address]));
    let listeners = [warren.listener(0), warren.listener(1)];
    // The first storm brings everything to the size that it needs.
    let warm = storm(listeners, &mut brokers, lasting / 5, 1);
    let before = holds(&warren);
    let tally = storm(listeners, &mut brokers, lasting, 1000);
    let after = holds(&warren);
    println!("before {before:?} ({warm:?})\nafter  {after:?} ({tally:?})");
    let (served, stalled) = (tally.served.load(Relaxed), tally.stalled.load(Relaxed));
    assert!(served > 5 * seconds && stalled > seconds / 2, "too little happened: {tally:?}");
    assert_eq!(after.descriptors, before.descriptors, "descriptors");
    assert!((after.tasks - before.tasks).abs() < 0.5, "tasks: {before:?} {after:?}");
    assert!(after.memory < before.memory + MEMORY_LEFT, "memory: {before:?} {after:?}");
    warren.stop();
}
