//! Rounds: every work on every way, in turns, so that what disturbs the machine disturbs all alike.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::cpu;
use crate::load::Job;
use crate::plan::{Plan, Table, Work};
use crate::process::Part;
use crate::report;
use crate::tls::Certificates;
use crate::ways::{Ends, Tls, Way};

/// One measurement. Per message, or per cycle.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    pub(crate) per_second: f64,
    /// CPU of the proxy, in nanoseconds.
    pub(crate) proxy_ns: f64,
    /// CPU of the load generator and of the null broker: to see that it is not them who are measured.
    pub(crate) load_ns: f64,
    pub(crate) broker_ns: f64,
    /// Connections that the broker accepted meanwhile, in all.
    pub(crate) broker_connections: f64,
}

/// All samples of one work on one way.
pub(crate) struct Series {
    pub(crate) work: Work,
    pub(crate) way: usize,
    pub(crate) samples: Vec<Sample>,
}

/// Measures everything, and prints each table when it is complete.
pub(crate) fn run(plan: &Plan) -> Result<()> {
    let mut all = Vec::new();
    report::print_head(plan);
    for table in &plan.tables {
        let series = measure(plan, table)?;
        report::print(table, &series);
        all.push(series);
    }
    report::print_foot();
    if plan.save {
        report::save(plan, &all)?;
    }
    Ok(())
}

fn measure(plan: &Plan, table: &Table) -> Result<Vec<Series>> {
    let mut bench = Bench::open(plan, table)?;
    let mut all = Vec::new();
    for work in &table.work {
        let counts = bench.rates(work, plan.span)?;
        let mut series: Vec<Series> =
            (0..counts.len()).map(|way| Series { work: *work, way, samples: Vec::new() }).collect();
        for round in 0..plan.rounds {
            for turn in 0..counts.len() {
                // There and back: nobody always comes after the same neighbour.
                let way = if round % 2 == 0 { turn } else { counts.len() - 1 - turn };
                series[way].samples.push(bench.measure(work, way, counts[way])?);
            }
        }
        all.append(&mut series);
    }
    Ok(all)
}

/// The broker and all ways to it. The ways end first: none shall see its broker die.
struct Bench {
    ways: Vec<Way>,
    broker: Part,
    ends: Ends,
    tls: Tls,
    runs: u64,
}

impl Bench {
    fn open(plan: &Plan, table: &Table) -> Result<Self> {
        let certificates = Certificates::new();
        let mut broker = Part::start("null broker", &null_args(&certificates))?;
        let ports = broker.hear()?;
        let ends =
            Ends { port: number(&ports, 0)? as u16, tls_port: number(&ports, 1)? as u16, certificates };
        let open = |way: &(_, _)| Way::open(*way, table.tls, &ends, &plan.warren);
        let ways = table.ways.iter().map(open).collect::<Result<_>>()?;
        Ok(Bench { ways, broker, ends, tls: table.tls, runs: 0 })
    }

    /// How much each client has to do on each way, so that it takes about `span`.
    fn rates(&mut self, work: &Work, span: Duration) -> Result<Vec<u64>> {
        let mut counts = Vec::new();
        for way in 0..self.ways.len() {
            let rate = self.measure(work, way, work.first)?.per_second;
            let count = rate * span.as_secs_f64() / work.clients as f64;
            counts.push((count as u64).clamp(work.first, work.most));
        }
        Ok(counts)
    }

    fn measure(&mut self, work: &Work, way: usize, count: u64) -> Result<Sample> {
        let label = self.ways[way].label;
        self.sample(work, way, count).with_context(|| format!("{}, {label}", work.name))
    }

    fn sample(&mut self, work: &Work, way: usize, count: u64) -> Result<Sample> {
        self.runs += 1;
        let way = &self.ways[way];
        let ca = (self.tls == Tls::Clients).then(|| self.ends.certificates.ca());
        let args = load_args(work, way.port, ca.as_deref(), count, self.runs);
        let mut load = Part::start("load generator", &args)?;
        load.hear().context("clients could not connect")?;
        let load_cpu = cpu::of_process(load.pid())?;
        let before = Taken::now(&mut self.broker)?;
        let proxy_cpu = way.cpu()?;
        load.say("go")?;
        let done = load.hear().context("clients failed")?;
        let proxy_cpu = way.cpu()? - proxy_cpu;
        let after = Taken::now(&mut self.broker)?;
        load.end()?;

        let total = count * work.clients as u64;
        let expected = if work.job == Job::Consume { 0 } else { total };
        let arrived = (after.messages - before.messages, after.octets - before.octets);
        if arrived != (expected, expected * work.size as u64) {
            bail!(
                "{expected} messages of {} B were published, (messages, octets) {arrived:?} arrived",
                work.size
            );
        }
        let total = total as f64;
        let seconds = number(&done, 1)? as f64 / 1e9;
        Ok(Sample {
            per_second: total / seconds,
            proxy_ns: proxy_cpu as f64 / total,
            load_ns: number(&done, 2)?.saturating_sub(load_cpu) as f64 / total,
            broker_ns: after.cpu.saturating_sub(before.cpu) as f64 / total,
            broker_connections: (after.connections - before.connections) as f64,
        })
    }
}

fn null_args(certificates: &Certificates) -> Vec<String> {
    let [certificate, key] = [certificates.certificate(), certificates.key()].map(text);
    ["null", "--certificate", &certificate, "--key", &key].map(str::to_owned).to_vec()
}

/// Temporary files of ours, whose names are plain.
fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn load_args(work: &Work, port: u16, ca: Option<&Path>, count: u64, run: u64) -> Vec<String> {
    let job = match work.job {
        Job::Publish => "publish",
        Job::Consume => "consume",
        Job::Cycle => "cycle",
    };
    let options = [
        ("--port", port.to_string()),
        ("--size", work.size.to_string()),
        ("--count", count.to_string()),
        ("--clients", work.clients.to_string()),
        ("--id", run.to_string()),
    ];
    let ca = ca.map(|file| ("--ca", text(file)));
    let options = options.into_iter().chain(ca).flat_map(|(name, value)| [name.to_owned(), value]);
    ["load".to_owned(), job.to_owned()].into_iter().chain(options).collect()
}

/// What the broker has taken in until now.
struct Taken {
    messages: u64,
    /// Octets of bodies.
    octets: u64,
    /// Connections accepted.
    connections: u64,
    /// CPU time, in nanoseconds.
    cpu: u64,
}

impl Taken {
    fn now(broker: &mut Part) -> Result<Self> {
        broker.say("counts")?;
        let counts = broker.hear()?;
        Ok(Taken {
            messages: number(&counts, 0)?,
            octets: number(&counts, 1)?,
            connections: number(&counts, 2)?,
            cpu: cpu::of_process(broker.pid())? + number(&counts, 4)?,
        })
    }
}

fn number(words: &[String], at: usize) -> Result<u64> {
    let word = words.get(at).with_context(|| format!("no word {at} in {words:?}"))?;
    word.parse().with_context(|| format!("not a number: {word}"))
}
