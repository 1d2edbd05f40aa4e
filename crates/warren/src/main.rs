//! Warren: an AMQP 0-9-1 proxy. This crate is its edge, everything that touches the world; what to do is decided
//! by [`warren_engine`], which knows neither sockets nor clocks.
//!
//! The tour, in the order in which things happen:
//!
//! 1. [`options`]: what the operator said, checked, resolved into settings and the engine's configuration.
//! 2. [`limits`], [`logging`]: what the process needs before it serves; [`seats`]: how many connections it may have.
//! 3. [`listen`]: the listening sockets. They are open before anything else runs.
//! 4. [`worker`]: N threads. Each owns an engine, its sockets ([`socket`], [`tls_stream`]) and its connections to
//!    brokers ([`connect`], [`tls`]).
//! 5. [`control`]: the main thread: metrics and health over HTTP, signals ([`signals`]), the end.

mod connect;
mod control;
mod demo;
mod limits;
mod listen;
mod logging;
mod options;
mod seats;
mod signals;
mod socket;
mod tls;
mod tls_stream;
mod worker;

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use connect::Connector;
use control::Control;
use options::{Refusal, Settings, Wanted};
use seats::Seats;
use worker::clock::Clock;

/// Gives the memory of a crowd back when it has left. The system's allocator would keep most of it: it gives back from
/// the end of a heap only.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let wanted = options::read(std::env::args_os(), &|name| std::env::var_os(name));
    match wanted {
        Ok(Wanted::Serve(settings)) => serve(&settings),
        Ok(Wanted::Demo(arguments)) => demo::main(&arguments),
        Err(refusal) => refusal.print(),
    }
}

/// Is a proxy, until it is told to stop.
fn serve(settings: &Settings) -> ExitCode {
    let connector = match connector(settings) {
        Ok(connector) => connector,
        Err(refusal) => return refusal.print(),
    };
    let log = logging::start(settings.log);
    tracing::debug!("settings: {settings:?}");
    let code = run(settings, connector).unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        ExitCode::FAILURE
    });
    drop(log); // writes what is still queued
    code
}

/// How the broker is reached. With TLS, certificates are read now: what is wrong with them is the operator's to know.
fn connector(settings: &Settings) -> Result<Connector, Refusal> {
    let upstream = &settings.upstream;
    let tls = upstream.tls.then(|| tls::Client::new(&upstream.host, settings.upstream_ca.as_deref()));
    let tls = tls.transpose().map_err(Refusal::of_upstream_ca)?;
    Ok(Connector { tls, ..Connector::plain(upstream) })
}

/// Starts the proxy, and stays with the control thread's work until the end.
fn run(settings: &Settings, connector: Connector) -> anyhow::Result<ExitCode> {
    let control = Control::new()?;
    let proxy = Proxy::start(settings, connector)?;
    tracing::info!(
        "listening for clients on {}, for HTTP on {}; the broker is {}; {} worker(s)",
        proxy.clients,
        listen::names(&proxy.http),
        settings.upstream,
        settings.workers,
    );
    tracing::info!("{}", settings.in_words());
    control.run(proxy.http, proxy.workers, settings.stopping())
}

/// A proxy that serves clients; its metrics are not served yet.
struct Proxy {
    /// Where clients connect, for people.
    clients: String,
    http: Vec<TcpListener>,
    workers: Vec<worker::Handle>,
}

impl Proxy {
    /// Opens the ports and starts the workers.
    fn start(settings: &Settings, connector: Connector) -> anyhow::Result<Proxy> {
        limits::raise_descriptors();
        let clients = listen::open(&settings.listen, settings.port).context("clients cannot be served")?;
        let http = listen::open(&settings.listen, settings.http_port).context("metrics cannot be served")?;
        let division = limits::divide(limits::descriptors(), settings.workers);
        let mut config = settings.engine_config();
        config.limits.handshakes = config.limits.handshakes.min(division.handshakes);
        let seats = Seats::new(division.connections);
        let connectors: Arc<[Connector]> = Arc::new([connector]);
        let config = Arc::new(config);
        let workers =
            worker::start_all(settings.workers, &config, &connectors, &clients, Clock::start(), &seats)?;
        // `clients` is dropped here: every worker has its own duplicate.
        Ok(Proxy { clients: listen::names(&clients), http, workers })
    }
}
