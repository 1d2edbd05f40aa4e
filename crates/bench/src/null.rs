//! The null broker: says yes to everything, counts what is published, sends what consumers are there for.
//!
//! A queue called `bench-SIZE-COUNT-ID` holds COUNT messages of SIZE octets, once, however often it is consumed. All
//! other queues exist and are empty. There are no users: every login is right.

mod connection;
mod consumer;
mod queues;

use std::io::{self, BufRead, ErrorKind, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::{Context, Result};
use clap::Args as ClapArgs;
use rustls::{ServerConfig, ServerConnection};

use crate::{cpu, socket, tls};

pub(crate) use queues::queue_name;

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// What it shows where it speaks TLS, PEM
    #[arg(long, value_name = "FILE")]
    certificate: PathBuf,
    /// The key of that certificate, PEM
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
}

/// What all connections share.
#[derive(Default)]
struct Broker {
    counts: Arc<Counts>,
    queues: queues::Queues,
}

/// What has been taken in, for comparison with what was sent.
#[derive(Default)]
struct Counts {
    publishes: AtomicU64,
    body_octets: AtomicU64,
    connections: AtomicU64,
    channels: AtomicU64,
    /// CPU time of threads that ended, in nanoseconds.
    ended_cpu: AtomicU64,
}

impl Counts {
    /// For a thread that is about to end.
    fn this_thread_ends(&self) {
        self.ended_cpu.fetch_add(cpu::of_this_thread(), Ordering::SeqCst);
    }
}

/// Prints its port and that for TLS, then one line of [`Counts`] in their order for each line on stdin; ends with stdin.
pub(crate) fn run(args: &Args) -> Result<()> {
    let tls = tls::server(&args.certificate, &args.key)?;
    let broker = Arc::new(Broker::default());
    let mut stdout = io::stdout();
    writeln!(stdout, "{} {}", listen(&broker, None)?, listen(&broker, Some(tls))?)?;
    for line in io::stdin().lock().lines() {
        line?;
        let counts = &broker.counts;
        let read = |count: &AtomicU64| count.load(Ordering::SeqCst);
        writeln!(
            stdout,
            "{} {} {} {} {}",
            read(&counts.publishes),
            read(&counts.body_octets),
            read(&counts.connections),
            read(&counts.channels),
            read(&counts.ended_cpu)
        )?;
    }
    Ok(())
}

/// Serves at a port of the system's choice, with TLS if there is something to do it with.
fn listen(broker: &Arc<Broker>, tls: Option<Arc<ServerConfig>>) -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let port = listener.local_addr()?.port();
    let broker = Arc::clone(broker);
    thread::spawn(move || accept(&listener, &broker, tls.as_ref()));
    Ok(port)
}

fn accept(listener: &TcpListener, broker: &Arc<Broker>, tls: Option<&Arc<ServerConfig>>) {
    for socket in listener.incoming() {
        let Ok(socket) = socket else {
            continue;
        };
        let (broker, tls) = (Arc::clone(broker), tls.cloned());
        thread::spawn(move || {
            // A peer that goes away, or says what is not AMQP, ends its connection and nothing else.
            if let Err(why) = serve(socket, &broker, tls) {
                eprintln!("null broker: {why:#}");
            }
            broker.counts.this_thread_ends();
        });
    }
}

fn serve(socket: TcpStream, broker: &Broker, tls: Option<Arc<ServerConfig>>) -> Result<()> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(connection::SILENCE))?;
    let halves = match tls {
        None => socket::plain(socket),
        Some(config) => match socket::with_tls(socket, ServerConnection::new(config)?.into()) {
            Ok(halves) => halves,
            Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(()), // only looked whether we listen
            Err(e) => return Err(e).context("TLS handshake"),
        },
    };
    connection::serve(halves, broker)
}
