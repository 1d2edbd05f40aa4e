//! Measures Warren, in both of its modes, beside HAProxy in TCP mode and beside no proxy at all, with a load generator and
//! a broker that does nothing but count: without TLS, with clients that speak it, with a broker that speaks it.
//!
//! # Layout
//!
//! The program starts itself again for each part, so that every part has a process, and so an account of CPU time, of
//! its own:
//!
//! ```text
//! warren-bench           plan: which work, which ways, how many rounds      plan, rounds, report
//!   warren-bench load    clients that publish, consume, or come and go      load/*, client, tls
//!   haproxy | warren     what is measured                                   ways
//!   warren-bench null    a broker that counts and says yes                  null/*, tls
//! ```
//!
//! CPU is read from `/proc/PID/task/TID/schedstat` (nanoseconds; ticks of 10 ms would be too coarse).

mod client;
mod cpu;
mod frames;
mod load;
mod messages;
mod null;
mod plan;
mod process;
mod report;
mod rounds;
mod socket;
mod tls;
mod ways;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(
    about = "CPU per message and messages per second: no proxy, HAProxy in TCP mode, Warren; with TLS and without"
)]
struct Cli {
    #[command(subcommand)]
    part: Option<Part>,
    #[command(flatten)]
    plan: plan::Args,
}

/// The parts that the program starts itself as.
#[derive(Subcommand)]
enum Part {
    /// The broker that counts and says yes
    #[command(hide = true)]
    Null(null::Args),
    /// The load generator
    #[command(hide = true)]
    Load(load::Args),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let done = match cli.part {
        Some(Part::Null(args)) => null::run(&args),
        Some(Part::Load(args)) => load::run(&args),
        None => plan::Plan::new(&cli.plan).and_then(|plan| rounds::run(&plan)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("warren-bench: {why:#}");
            ExitCode::FAILURE
        }
    }
}
