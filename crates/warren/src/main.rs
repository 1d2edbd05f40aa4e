//! Warren: an AMQP 0-9-1 proxy. This crate is its edge, everything that touches the world; what to do is decided
//! by [`warren_engine`], which knows neither sockets nor clocks.
//!
//! The tour, in the order in which things happen:
//!
//! 1. [`options`]: what the operator said, checked, resolved into settings and the engine's configuration.
//! 2. [`limits`], [`logging`]: what the process needs before it serves; [`seats`]: how many connections it may have.
//! 3. [`listen`]: the listening sockets. They are open before anything else runs.
//! 4. [`worker`]: N threads. Each owns an engine, its sockets ([`socket`]) and its connections to brokers
//!    ([`connect`]).
//! 5. [`control`]: the main thread: metrics and health over HTTP, signals ([`signals`]), the end.

mod connect;
mod control;
mod limits;
mod listen;
mod logging;
mod options;
mod seats;
mod signals;
mod socket;
mod worker;

use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use control::Control;
use options::Settings;
use seats::Seats;
use worker::clock::Clock;

fn main() -> ExitCode {
    let settings = match options::from_arguments(std::env::args_os()) {
        Ok(settings) => settings,
        Err(refusal) => return refusal.print(),
    };
    let log = logging::start();
    let code = run(&settings).unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        ExitCode::FAILURE
    });
    drop(log); // writes what is still queued
    code
}

/// Opens the ports, starts the workers, and stays with the control thread's work until the end.
fn run(settings: &Settings) -> anyhow::Result<ExitCode> {
    limits::raise_descriptors();
    let control = Control::new()?;
    let clients = listen::open(&settings.listen, settings.port).context("clients cannot be served")?;
    let http = listen::open(&settings.listen, settings.http_port).context("metrics cannot be served")?;
    tracing::info!(
        "listening for clients on {}, for HTTP on {}; the broker is {}; {} worker(s)",
        listen::names(&clients),
        listen::names(&http),
        settings.upstream,
        settings.workers,
    );
    let division = limits::divide(limits::descriptors(), settings.workers);
    let mut config = settings.engine_config();
    config.limits.handshakes = config.limits.handshakes.min(division.handshakes);
    let seats = Seats::new(division.connections);
    let workers = worker::start_all(settings.workers, &Arc::new(config), &clients, Clock::start(), &seats)?;
    drop(clients); // every worker has its own duplicate
    control.run(http, workers)
}
