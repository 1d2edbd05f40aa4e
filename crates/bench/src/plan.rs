//! What is measured: which work, which ways, how often.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args as ClapArgs;

use crate::load::Job;
use crate::tls::CIPHER_SUITE;
use crate::ways::{self, Kind, Tls};

#[derive(ClapArgs)]
pub(crate) struct Args {
    /// Fewer and shorter rounds: about a minute in all, and noisier
    #[arg(long)]
    quick: bool,
    /// Rounds; medians are taken over them [default: 7, or 3 with --quick]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Only work whose name contains this, for example "publish 16"
    #[arg(long, value_name = "NAME")]
    only: Option<String>,
    /// Ways to measure; "none" only without TLS
    #[arg(long, value_delimiter = ',', default_values = ["none", "haproxy", "warren", "dedicated"])]
    ways: Vec<Kind>,
    /// Who speaks TLS with the proxies: a table for each
    #[arg(long, value_delimiter = ',', default_values = ["no", "clients", "broker"])]
    tls: Vec<Tls>,
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

/// What `make bench` measures, in the order of its tables.
const ALL: [Work; 7] = [
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
        name: "publish 64 kB, 4 clients",
        unit: "message",
        job: Job::Publish,
        size: 64_000,
        clients: 4,
        first: 200,
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
        name: "consume 64 kB, 4 clients",
        unit: "message",
        job: Job::Consume,
        size: 64_000,
        clients: 4,
        first: 200,
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
    pub(crate) tables: Vec<Table>,
    pub(crate) rounds: usize,
    /// How long one measurement should take.
    pub(crate) span: Duration,
    pub(crate) warren: PathBuf,
    pub(crate) quick: bool,
    pub(crate) save: bool,
}

/// Work that is done on several ways, side by side.
pub(crate) struct Table {
    pub(crate) tls: Tls,
    pub(crate) work: Vec<Work>,
    /// Ways with the labels of their columns; HAProxy stands twice, so that the noise can be seen.
    pub(crate) ways: Vec<(Kind, &'static str)>,
}

impl Table {
    pub(crate) fn title(&self) -> String {
        match self.tls {
            Tls::No => "Without TLS.".to_owned(),
            Tls::Clients => format!("Clients speak TLS (1.3, {CIPHER_SUITE}), the broker does not."),
            Tls::Broker => format!("The broker speaks TLS (1.3, {CIPHER_SUITE}), clients do not."),
        }
    }

    /// What the table has to do with TLS, for programs.
    pub(crate) fn tls_name(&self) -> &'static str {
        match self.tls {
            Tls::No => "no",
            Tls::Clients => "clients",
            Tls::Broker => "broker",
        }
    }
}

impl Plan {
    pub(crate) fn new(args: &Args) -> Result<Self> {
        let (rounds, span) = if args.quick { (3, 200) } else { (7, 700) };
        let rounds = args.rounds.unwrap_or(rounds);
        if rounds == 0 {
            bail!("no rounds, no medians: give --rounds 1 or more");
        }
        let tables = tables(args);
        if tables.is_empty() {
            let names: Vec<&str> = ALL.iter().map(|work| work.name).collect();
            bail!("nothing is left to measure: --only matches names of: {}", names.join("; "));
        }
        let warren = match &args.warren {
            Some(path) => path.clone(),
            None if args.ways.iter().any(|kind| kind.is_warren()) => ways::build_warren()?,
            None => PathBuf::new(),
        };
        let span = Duration::from_millis(span);
        Ok(Plan { tables, rounds, span, warren, quick: args.quick, save: args.save })
    }
}

/// Tables that have both work and ways.
fn tables(args: &Args) -> Vec<Table> {
    let wanted = |work: &Work| args.only.as_deref().is_none_or(|part| work.name.contains(part));
    let table = |tls: Tls| {
        let work = ALL.into_iter().filter(wanted).filter(|work| belongs(work, tls)).collect();
        Table { tls, work, ways: columns(&args.ways, tls) }
    };
    let tables = args.tls.iter().map(|tls| table(*tls));
    tables.filter(|table| !table.work.is_empty() && !table.ways.is_empty()).collect()
}

/// With TLS nobody consumes: publishing shows both directions, since a proxy decrypts when clients speak TLS, and
/// encrypts when the broker does.
fn belongs(work: &Work, tls: Tls) -> bool {
    tls == Tls::No || work.job != Job::Consume
}

fn columns(kinds: &[Kind], tls: Tls) -> Vec<(Kind, &'static str)> {
    let all = [
        (Kind::None, "no proxy"),
        (Kind::Haproxy, "HAProxy"),
        (Kind::Warren, "Warren"),
        (Kind::Dedicated, "Warren, dedicated"),
        (Kind::Haproxy, "HAProxy again"),
    ];
    // Without a proxy there is no side to choose.
    let fits = |kind| tls == Tls::No || kind != Kind::None;
    all.into_iter().filter(|(kind, _)| kinds.contains(kind) && fits(*kind)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn tables_of(arguments: &[&str]) -> Vec<(Tls, usize, usize)> {
        let arguments = ["bench"].iter().chain(arguments);
        let args = Cli::try_parse_from(arguments).expect("arguments").args;
        tables(&args).iter().map(|table| (table.tls, table.work.len(), table.ways.len())).collect()
    }

    #[test]
    fn a_table_for_each_side_of_tls() {
        assert_eq!(tables_of(&[]), [(Tls::No, 7, 5), (Tls::Clients, 4, 4), (Tls::Broker, 4, 4)]);
        assert_eq!(
            tables_of(&["--tls", "broker", "--ways", "dedicated,haproxy"]),
            [(Tls::Broker, 4, 3)],
            "HAProxy stands twice"
        );
    }

    #[test]
    fn tables_with_nothing_in_them_are_left_out() {
        assert_eq!(tables_of(&["--only", "consume 64"]), [(Tls::No, 1, 5)]);
        assert_eq!(tables_of(&["--ways", "none"]), [(Tls::No, 7, 1)]);
        assert_eq!(tables_of(&["--only", "nothing of this name"]), []);
    }
}
