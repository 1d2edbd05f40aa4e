//! What is measured: which work, which ways, how often.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args as ClapArgs;

use crate::load::Job;
use crate::ways::{self, Kind};

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Fewer and shorter rounds: below 40 seconds in all, and noisier
    #[arg(long)]
    quick: bool,
    /// Rounds; medians are taken over them [default: 7, or 3 with --quick]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Only work whose name contains this, for example "publish 16"
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Ways to measure
    #[arg(long, value_delimiter = ',', default_values = ["none", "haproxy", "warren"])]
    ways: Vec<Kind>,
    /// This Warren instead of the one that is built from here
    #[arg(long, value_name = "PATH")]
    warren: Option<PathBuf>,
    /// Append the figures to bench/history/runs.jsonl
    #[arg(long)]
    save: bool,
}

/// One kind of work.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub(crate) name: &'static str,
    /// What is counted.
    pub(crate) unit: &'static str,
    pub(crate) job: Job,
    /// Octets of each body.
    pub(crate) size: usize,
    pub(crate) clients: usize,
    /// Messages, or cycles, of each client in the first round, whose only use is to find out how fast it goes.
    pub(crate) first: u64,
    /// No more than this many in one round.
    pub(crate) most: u64,
}

/// No more messages in one round than this: by then the noise is not from too few.
const MOST_MESSAGES: u64 = 20_000_000;
/// Each cycle leaves a port in TIME_WAIT; the system has 28,000.
const MOST_CYCLES: u64 = 500;

/// What `make bench` measures, in the order of its table.
const ALL: [Work; 5] = [
    Work {
        name: "publish 16 B, 1 client",
        unit: "message",
        job: Job::Publish,
        size: 16,
        clients: 1,
        first: 200_000,
        most: MOST_MESSAGES,
    },
    Work {
        name: "publish 1 kB, 4 clients",
        unit: "message",
        job: Job::Publish,
        size: 1000,
        clients: 4,
        first: 10_000,
        most: MOST_MESSAGES,
    },
    Work {
        name: "consume 16 B, 1 client",
        unit: "message",
        job: Job::Consume,
        size: 16,
        clients: 1,
        first: 200_000,
        most: MOST_MESSAGES,
    },
    Work {
        name: "consume 1 kB, 4 clients",
        unit: "message",
        job: Job::Consume,
        size: 1000,
        clients: 4,
        first: 10_000,
        most: MOST_MESSAGES,
    },
    Work {
        name: "connect-publish-close, 4 clients",
        unit: "cycle",
        job: Job::Cycle,
        size: 16,
        clients: 4,
        first: 50,
        most: MOST_CYCLES,
    },
];

/// Everything that was decided before the first round.
pub(crate) struct Plan {
    pub(crate) work: Vec<Work>,
    /// Ways with the labels of their columns; HAProxy stands twice, so that the noise can be seen.
    pub(crate) ways: Vec<(Kind, &'static str)>,
    pub(crate) rounds: usize,
    /// How long one measurement should take.
    pub(crate) span: Duration,
    pub(crate) warren: PathBuf,
    pub(crate) quick: bool,
    pub(crate) save: bool,
}

impl Plan {
    pub(crate) fn new(args: &Args) -> Result<Self> {
        let (rounds, span) = if args.quick { (3, 300) } else { (7, 700) };
        let rounds = args.rounds.unwrap_or(rounds);
        if rounds == 0 {
            bail!("no rounds, no medians: give --rounds 1 or more");
        }
        let wanted = |work: &Work| args.only.as_deref().is_none_or(|part| work.name.contains(part));
        let work: Vec<Work> = ALL.into_iter().filter(wanted).collect();
        if work.is_empty() {
            let names: Vec<&str> = ALL.iter().map(|work| work.name).collect();
            bail!("--only matches none of: {}", names.join("; "));
        }
        let warren = match &args.warren {
            Some(path) => path.clone(),
            None if args.ways.contains(&Kind::Warren) => ways::build_warren()?,
            None => PathBuf::new(),
        };
        let ways = columns(&args.ways);
        let span = Duration::from_millis(span);
        Ok(Plan { work, ways, rounds, span, warren, quick: args.quick, save: args.save })
    }
}

fn columns(kinds: &[Kind]) -> Vec<(Kind, &'static str)> {
    let all = [
        (Kind::None, "no proxy"),
        (Kind::Haproxy, "HAProxy"),
        (Kind::Warren, "Warren"),
        (Kind::Haproxy, "HAProxy again"),
    ];
    all.into_iter().filter(|(kind, _)| kinds.contains(kind)).collect()
}
