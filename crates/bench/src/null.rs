//! The null broker: says yes to everything, counts what is published, sends what consumers are there for.
//!
//! A queue called `bench-SIZE-COUNT-ID` holds COUNT messages of SIZE octets, once, however often it is consumed. All
//! other queues exist and are empty. There are no users: every login is right.

mod connection;
mod consumer;
mod queues;

use std::io::{self, BufRead, Write};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use anyhow::Result;

use crate::cpu;

pub(crate) use queues::queue_name;

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

/// Prints its port, then one line of [`Counts`] in their order for each line on stdin; ends with stdin.
pub(crate) fn run() -> Result<()> {
    let listener = TcpListener::bind(("127.0.0.1", 0))?;
    let broker = Arc::new(Broker::default());
    let mut stdout = io::stdout();
    writeln!(stdout, "{}", listener.local_addr()?.port())?;
    let shared = Arc::clone(&broker);
    thread::spawn(move || accept(&listener, &shared));
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

fn accept(listener: &TcpListener, broker: &Arc<Broker>) {
    for socket in listener.incoming() {
        let Ok(socket) = socket else {
            continue;
        };
        let broker = Arc::clone(broker);
        thread::spawn(move || {
            // A peer that goes away, or says what is not AMQP, ends its connection and nothing else.
            if let Err(why) = connection::serve(socket, &broker) {
                eprintln!("null broker: {why:#}");
            }
            broker.counts.this_thread_ends();
        });
    }
}
