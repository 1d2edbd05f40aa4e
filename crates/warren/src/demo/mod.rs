//! `warren demo`: what Warren is good for, to be seen within seconds and without a broker.
//!
//! ```text
//!   clients ------------------+
//!                             +--> delay --> embedded broker
//!   clients --> the proxy ----+
//! ```
//! The broker is [`warren_broker`]'s, in memory. [`delay`] stands for the network between it and everything else.
//! The proxy is the real one, started as `warren` itself starts it. [`crowd`] has many clients ([`client`]) come, publish
//! one message and go, first directly and then through the proxy; [`report`] says what that took. The table goes to
//! standard output and nothing else does; [`progress`] is for a person at a terminal.

mod client;
mod crowd;
mod delay;
mod progress;
mod report;

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Args;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::time::timeout;
use tracing_subscriber::filter::LevelFilter;
use warren_broker::Server;

use crate::connect::Connector;
use crate::control::Control;
use crate::options::Settings;
use crate::setup::Stopping;
use crate::worker::mailbox::Message;
use crate::{Proxy, listen, logging};
use client::Client;
use crowd::Crowd;
use delay::Delay;
use progress::Progress;
use report::{Report, Way};

/// Clients each way.
const CLIENTS: usize = 2000;
/// Clients at the same time.
const AT_ONCE: usize = 20;
/// No new clients come when one way takes longer than this: the demo ends within a minute on any machine.
const LONGEST: Duration = Duration::from_secs(20);
/// Half of the round trip between the broker and everything else: another data centre of the same city.
const ONE_WAY: Duration = Duration::from_millis(2);
/// With `--keep`: clients of a demonstration need no time to finish.
const STOPPING: Stopping =
    Stopping { before_close: Duration::ZERO, after_close: Some(Duration::from_secs(2)) };
/// How long the proxy may take to say goodbye to the broker.
const STOP_LIMIT: Duration = Duration::from_secs(2);
/// Any free port of the loopback address.
const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// Show what Warren does, with a broker of its own: takes a few seconds, needs nothing
///
/// Starts a small broker in memory and a proxy on free ports, with a network of a few milliseconds simulated
/// between them, has many short-lived clients publish one message each, without Warren and through it, and prints
/// what that took.
#[derive(Debug, Default, Args)]
pub(crate) struct Arguments {
    /// Afterwards leave everything running, and say where to connect, until SIGINT or SIGTERM
    #[arg(long)]
    keep: bool,
}

/// Runs the demo; gives the status to exit with.
pub(crate) fn main(arguments: &Arguments) -> ExitCode {
    let log = logging::start(Some(LevelFilter::WARN));
    let outcome = run(arguments);
    drop(log); // writes what is still queued, before our own last line
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("warren demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build().context("cannot start")?;
    let stage = Stage::build(runtime.handle())?;
    let report = runtime.block_on(stage.perform())?;
    if !arguments.keep {
        print(&report.to_string())?;
        stage.tear_down(&runtime);
        return report.verdict();
    }
    // Takes over the signals: before anybody reads that they can be sent.
    let control = Control::new()?;
    print(&format!("{report}{}", stage.addresses()))?;
    report.verdict()?;
    // However it ends after a signal: to be ended so is what it runs for.
    let Proxy { http, workers, backends, admission, .. } = stage.proxy;
    control.run(http, workers, backends, admission, STOPPING).map(drop)
}

fn print(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Everything that runs.
struct Stage {
    // Dropped in this order: each before what it connects to.
    proxy: Proxy,
    delay: Delay,
    broker: Server,
}

impl Stage {
    fn build(runtime: &Handle) -> anyhow::Result<Stage> {
        let broker = warren_broker::Options::default();
        let broker = Server::start(broker, ANY_PORT).context("cannot start the embedded broker")?;
        let delay = Delay::start(ANY_PORT, broker.address(), ONE_WAY).context("cannot start the delay")?;
        let settings = Settings::on_free_ports(delay.address());
        let setup = settings.setup();
        let connector = Connector::new(&setup.backends[0], setup.engine.limits.connect_timeout);
        let proxy = Proxy::start(&setup, vec![connector.map_err(anyhow::Error::msg)?], runtime)?;
        Ok(Stage { proxy, delay, broker })
    }

    async fn perform(&self) -> anyhow::Result<Report> {
        let mut progress = Progress::start();
        let proxy: SocketAddr = self.proxy.clients.parse().context("the proxy's address")?;
        let round_trip = self.prepare().await.context("cannot prepare the broker")?;
        let without = self.one_way(report::WITHOUT, self.delay.address(), &mut progress).await?;
        let with = self.one_way(report::WITH, proxy, &mut progress).await?;
        Ok(Report { at_once: AT_ONCE, round_trip, without, with })
    }

    /// Declares the queues, and measures the round trip: timers are not exact, and what is printed should be true.
    async fn prepare(&self) -> anyhow::Result<Duration> {
        let mut client = Client::connect(self.delay.address()).await?;
        client.open_channel().await?;
        for queue in [report::WITHOUT, report::WITH] {
            client.declare(&queue_of(queue)).await?;
        }
        let mut times = Vec::new();
        for _ in 0..15 {
            let start = std::time::Instant::now();
            client.declare(&queue_of(report::WITH)).await?;
            times.push(start.elapsed());
        }
        client.close().await?;
        Ok(crowd::median(&mut times))
    }

    /// Has the clients come one way, and asks the broker what it has seen of them.
    async fn one_way(&self, name: &str, address: SocketAddr, progress: &mut Progress) -> anyhow::Result<Way> {
        let before = self.broker.counters();
        let queue = queue_of(name);
        let crowd = Crowd { address, queue: &queue, clients: CLIENTS, at_once: AT_ONCE, longest: LONGEST };
        let served = crowd.serve(|done| progress.show(name, done, CLIENTS)).await;
        let served = served.with_context(|| format!("clients {name}"))?;
        if served.clients == 0 {
            bail!("clients {name}: none was served within {LONGEST:?}");
        }
        let (after, messages) = self.broker.with(move |broker| {
            let queue = broker.queue("/", queue.as_bytes());
            (broker.counters(), queue.map_or(0, |queue| queue.ready))
        });
        Ok(Way {
            served,
            messages,
            connections: after.connections_opened - before.connections_opened,
            channels: after.channels_opened - before.channels_opened,
        })
    }

    fn addresses(&self) -> String {
        let url = |address: String| format!("amqp://guest:guest@{address}/");
        let lines = [
            ("Warren", url(self.proxy.clients.clone())),
            ("broker, as far away as for Warren", url(self.delay.address().to_string())),
            ("broker, near", url(self.broker.address().to_string())),
            ("metrics", format!("http://{}/metrics", listen::names(&self.proxy.http))),
        ];
        report::addresses(&lines)
    }

    /// Ends the proxy in good order; what is left ends by being dropped.
    fn tear_down(self, runtime: &Runtime) {
        for worker in &self.proxy.workers {
            worker.mailbox.send(Message::Stop("The demo is over".to_owned()));
        }
        let ends = async {
            for worker in self.proxy.workers {
                let _ = worker.ended.await;
            }
        };
        let _ = runtime.block_on(async { timeout(STOP_LIMIT, ends).await });
    }
}

/// The queue for the messages of one way.
fn queue_of(way: &str) -> String {
    format!("demo-{}", way.replace(' ', "-").to_lowercase())
}
