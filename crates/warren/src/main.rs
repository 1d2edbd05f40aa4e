//! Warren: an AMQP 0-9-1 proxy. This crate is its edge, everything that touches the world; what to do is decided
//! by [`warren_engine`], which knows neither sockets nor clocks.
//!
//! The tour, in the order in which things happen:
//!
//! 1. [`options`] and [`file`]: what the operator said, checked, resolved into a [`setup`]; [`units`]: quantities as people
//!    write them.
//! 2. [`limits`], [`logging`]: what the process needs before it serves; [`seats`]: how many connections it may have.
//! 3. [`listen`]: the listening sockets. They are open before anything else runs.
//! 4. [`worker`]: N threads. Each owns an engine, its sockets ([`socket`]) and its connections to brokers ([`connect`], [`names`]).
//!    [`tls`] and [`proxy_protocol`] are what both sides may speak before AMQP; [`edge`] is what workers share of it.
//! 5. [`control`]: the main thread: metrics and health over HTTP, signals ([`signals`]), files that change, the end.

mod admission;
mod auth;
mod connect;
mod control;
mod demo;
mod edge;
mod file;
mod limits;
mod listen;
mod logging;
mod names;
mod options;
mod proxy_protocol;
mod seats;
mod setup;
mod signals;
mod socket;
mod tls;
mod units;
mod worker;

use std::net::TcpListener;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use admission::Admission;
use anyhow::Context;
use control::Control;
use control::backends::Backends;
use edge::Edge;
use options::{Refusal, Wanted};
use seats::Seats;
use setup::{Place, Setup};
use tokio::runtime::Handle;
use warren_engine::balance::Balance;
use worker::clock::Clock;

/// Gives the memory of a crowd back when it has left. The system's allocator would keep most of it: it gives back from
/// the end of a heap only.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let wanted = options::read(std::env::args_os(), &|name| std::env::var_os(name));
    match wanted {
        Ok(Wanted::Serve(settings)) => serve(&settings.setup(), Some(&settings.in_words())),
        Ok(Wanted::ServeFile(setup)) => serve(&setup, None),
        Ok(Wanted::Check(path)) => check(&path),
        Ok(Wanted::Schema) => {
            print!("{}", file::schema::schema());
            ExitCode::SUCCESS
        }
        Ok(Wanted::Demo(arguments)) => demo::main(&arguments),
        Err(refusal) => refusal.print(),
    }
}

/// Says whether a file is right.
fn check(path: &Path) -> ExitCode {
    match file::check(path).map_err(Refusal::File) {
        Ok(setup) => {
            println!("{}: right; {}", path.display(), setup.in_words());
            ExitCode::SUCCESS
        }
        Err(refusal) => refusal.print(),
    }
}

/// Is a proxy, until it is told to stop. `words`: what is in force, for the log, when options have said it.
fn serve(setup: &Setup, words: Option<&str>) -> ExitCode {
    let edge = match Edge::new(setup) {
        Ok(edge) => edge,
        Err(faults) => return Refusal::of_files(&faults, words.is_some()).print(),
    };
    let log = logging::start(setup.log);
    tracing::debug!("setup: {setup:?}");
    edge.warn(setup);
    let code = run(setup, &edge, words).unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        ExitCode::FAILURE
    });
    drop(log); // writes what is still queued
    code
}

/// Starts the proxy, and stays with the control thread's work until the end.
fn run(setup: &Setup, edge: &Edge, words: Option<&str>) -> anyhow::Result<ExitCode> {
    let control = Control::new()?;
    setup.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let proxy = Proxy::start(setup, edge, control.runtime())?;
    tracing::info!(
        "listening for clients on {}, for HTTP on {}; {}; {} worker(s)",
        proxy.clients,
        listen::names(&proxy.http),
        setup.brokers_in_words(),
        setup.workers,
    );
    if let Some(words) = words {
        tracing::info!("{words}");
    }
    let Proxy { http, workers, backends, admission, .. } = proxy;
    control.run(http, workers, backends, admission, edge.watches(), setup.stopping)
}

/// A proxy that serves clients; its metrics are not served yet.
struct Proxy {
    /// Where clients connect, for people.
    clients: String,
    http: Vec<TcpListener>,
    workers: Vec<worker::Handle>,
    backends: Backends,
    admission: Arc<Admission>,
}

impl Proxy {
    /// Opens the ports and starts the workers.
    fn start(setup: &Setup, edge: &Edge, runtime: &Handle) -> anyhow::Result<Proxy> {
        limits::raise_descriptors();
        let open = |place: &Place| listen::open(&place.host, place.port);
        let mut clients = Vec::new();
        for (number, listening) in setup.listeners.iter().enumerate() {
            let opened = open(&listening.place).context("clients cannot be served")?;
            clients.extend(opened.into_iter().map(|listener| (number, listener)));
        }
        let http = setup.http.as_ref().map(open).transpose().context("metrics cannot be served")?;
        let http = http.unwrap_or_default();
        let division = limits::divide(limits::descriptors(), setup.workers);
        let mut config = setup.engine.clone();
        config.limits.handshakes = config.limits.handshakes.min(division.handshakes);
        let clock = Clock::start();
        let seats = Seats::new(division.connections, setup.accept_rate, clock);
        let admission = Admission::new(&config, setup.auth.as_ref(), runtime, clock);
        let config = Arc::new(config);
        let connectors = Arc::clone(&edge.connectors);
        let balance = Arc::new(Balance::new(&config));
        let backends = Backends { config, balance, connectors, clock };
        let workers = worker::start_all(setup.workers, &backends, edge, &clients, &seats, &admission)?;
        // `clients` is dropped here: every worker has its own duplicate.
        Ok(Proxy {
            clients: listen::names(clients.iter().map(|(_, listener)| listener)),
            http,
            workers,
            backends,
            admission,
        })
    }
}
