//! The load generator: a process with one thread for each client.
//!
//! It speaks with the program that started it over its standard streams, so that setting up and taking down are not
//! measured: it says `ready`, waits for a line, works, says `done` with its figures, and waits for the end of its input
//! before it closes.

mod consume;
mod cycle;
mod publish;

use std::io::{self, BufRead, Write};
use std::path::PathBuf;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow};
use clap::{Args as ClapArgs, ValueEnum};

use crate::client::Target;
use crate::{cpu, tls};

/// What each client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Job {
    /// Publishes without confirms, and asks at the end for a proof that all arrived
    Publish,
    /// Consumes without acknowledgements
    Consume,
    /// Connects, publishes one message, closes
    Cycle,
}

#[derive(ClapArgs)]
pub(crate) struct Args {
    job: Job,
    /// Port of the proxy or of the broker
    #[arg(long)]
    port: u16,
    /// Speak TLS, with whom this authority has signed
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Octets of each body
    #[arg(long)]
    size: usize,
    /// Messages, or cycles, of each client
    #[arg(long)]
    count: u64,
    /// Clients at the same time
    #[arg(long)]
    clients: usize,
    /// Tells the queues of this run from those of others
    #[arg(long)]
    id: String,
}

/// What one client worked on before and between the two lines.
trait Worker {
    /// The part that is measured.
    fn work(&mut self) -> Result<()>;
    /// What comes after.
    fn finish(self: Box<Self>) -> Result<()>;
}

impl Args {
    fn target(&self) -> Result<Target> {
        let tls = self.ca.as_deref().map(tls::client).transpose()?;
        Ok(Target { port: self.port, tls })
    }

    fn worker(&self, number: usize) -> Result<Box<dyn Worker>> {
        let target = self.target()?;
        Ok(match self.job {
            Job::Publish => Box::new(publish::Publisher::new(self, &target)?),
            Job::Consume => Box::new(consume::Consumer::new(self, &target, number)?),
            Job::Cycle => Box::new(cycle::Cycler::new(self, target)),
        })
    }
}

/// Runs all clients; an error of one ends the process.
pub(crate) fn run(args: &Args) -> Result<()> {
    // All clients and this thread meet three times: connected, begin, done. A client that cannot connect leaves the
    // others waiting, and the process ends with its error.
    let meet = Barrier::new(args.clients + 1);
    let (go, end) = (Barrier::new(args.clients + 1), Barrier::new(args.clients + 1));
    thread::scope(|scope| {
        for number in 0..args.clients {
            let (meet, go, end) = (&meet, &go, &end);
            scope.spawn(move || match client(args, number, meet, go, end) {
                Ok(()) => {}
                Err(why) => {
                    eprintln!("client {number}: {why:#}");
                    std::process::exit(1);
                }
            });
        }
        let mut input = io::stdin().lock().lines();
        meet.wait();
        say("ready")?;
        input.next().ok_or_else(|| anyhow!("nobody is there"))??;
        let began = Instant::now();
        go.wait();
        meet.wait();
        let took = began.elapsed().as_nanos();
        // The threads of this process are all alive, so their CPU time is complete.
        say(&format!("done {took} {}", cpu::of_process(std::process::id())?))?;
        while input.next().is_some() {}
        end.wait();
        Ok(())
    })
}

fn client(args: &Args, number: usize, meet: &Barrier, go: &Barrier, end: &Barrier) -> Result<()> {
    let mut worker = args.worker(number)?;
    meet.wait();
    go.wait();
    worker.work().context("at work")?;
    meet.wait();
    end.wait();
    worker.finish().context("at the end")
}

fn say(line: &str) -> Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()?;
    Ok(())
}
