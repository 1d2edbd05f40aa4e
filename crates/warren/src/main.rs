//! Warren: an AMQP 0-9-1 proxy. This crate is its edge, everything that touches the world; what to do is decided
//! by [`warren_engine`], which knows neither sockets nor clocks.
//!
//! The tour, in the order in which things happen:
//!
//! 1. [`options`]: what the operator said, checked, resolved into settings and the engine's configuration.
//! 2. [`limits`], [`logging`]: what the process needs before it serves.
//! 3. [`listen`]: the listening sockets. They are open before anything else runs.
//! 4. [`worker`]: N threads. Each owns an engine, its sockets ([`socket`]) and its connections to brokers
//!    ([`connect`]).
//! 5. [`control`]: the main thread: metrics and health over HTTP, signals ([`signals`]), the end.
//!
//! [`demo`] does all this in front of a broker of its own, to show what it is good for.

mod connect;
mod control;
mod demo;
mod limits;
mod listen;
mod logging;
mod options;
mod signals;
mod socket;
mod worker;

use std::net::TcpListener;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use control::Control;
use options::{Settings, Wanted};
use tracing_subscriber::filter::LevelFilter;
use worker::clock::Clock;

fn main() -> ExitCode {
    let wanted = match options::from_arguments(std::env::args_os()) {
        Ok(wanted) => wanted,
        Err(refusal) => return refusal.print(),
    };
    let settings = match wanted {
        Wanted::Serve(settings) => settings,
        Wanted::Demo(arguments) => return demo::main(&arguments),
    };
    let log = logging::start(LevelFilter::INFO);
    let code = run(&settings).unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        ExitCode::FAILURE
    });
    drop(log); // writes what is still queued
    code
}

/// Opens the ports, starts the workers, and stays with the control thread's work until the end.
fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    let control = Control::new()?;
    let proxy = Proxy::start(settings)?;
    tracing::info!(
        "listening for clients on {}, for HTTP on {}; the broker is {}; {} worker(s)",
        proxy.clients,
        listen::names(&proxy.http),
        settings.upstream,
        settings.workers,
    );
    control.run(proxy.http, proxy.workers)
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
    fn start(settings: &Settings) -> anyhow::Result<Proxy> {
        limits::raise_descriptors();
        let clients = listen::open(&settings.listen, settings.port).context("clients cannot be served")?;
        let http = listen::open(&settings.listen, settings.http_port).context("metrics cannot be served")?;
        let config = Arc::new(settings.engine_config());
        let workers = worker::start_all(settings.workers, &config, &clients, Clock::start())?;
        // `clients` is dropped here: every worker has its own duplicate.
        Ok(Proxy { clients: listen::names(&clients), http, workers })
    }
}
