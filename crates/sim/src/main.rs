//! `warren-sim`: runs seeds, and shows one again.

use std::process::ExitCode;
use std::time::Instant;

use warren_sim::fault::{ENGINE, Expected};
use warren_sim::many::{self, Many};
use warren_sim::scenario::Between;
use warren_sim::trace::Trace;
use warren_sim::{Settings, report, run};

const USAGE: &str = "\
warren-sim --seeds N [--start S] [--steps M] [--clients C] [--faults] [--direct] [--threads T] [--keep-going]
    runs N seeds from S on (default 1), each for M steps with C clients at a time (default: drawn from the seed)
warren-sim --total N [...]
    runs as many seeds as it takes to do N steps in all: 2000000, 500m or 2g
warren-sim --seed S [--steps M] [--clients C] [--faults] [--direct] [--trace]
    runs one, and shows what happened
--direct      connects the clients to the model broker itself
--faults      breaks connections to the broker, and worse; the engine must do what it can do as it is
--resumes     as --faults, and it must resume what can be resumed
--closes      as --faults, and it may close every session
--threads T   runs seeds on T threads
--keep-going  shows the first line of each failure instead of stopping at the first";

/// Lines shown of a run that failed.
const STORY: usize = 60;

struct Args {
    many: Many,
    one: bool,
    trace: bool,
}

/// A number, with k, m or g for thousands, millions and billions.
fn number(word: &str, text: Option<String>) -> Result<u64, String> {
    let text = text.ok_or_else(|| format!("{word} wants a number"))?;
    let (digits, factor) = match text.to_ascii_lowercase().chars().last() {
        Some('k') => (&text[..text.len() - 1], 1_000),
        Some('m') => (&text[..text.len() - 1], 1_000_000),
        Some('g') => (&text[..text.len() - 1], 1_000_000_000),
        _ => (text.as_str(), 1),
    };
    let value = digits.parse::<u64>().ok().and_then(|value| value.checked_mul(factor));
    value.ok_or_else(|| format!("{word} wants a number, not '{text}'"))
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
    let settings = Settings::new(Between::Warren);
    let many = Many { settings, start: 1, seeds: 100, total: None, threads: 1, keep_going: false };
    let mut args = Args { many, one: false, trace: false };
    let many = &mut args.many;
    while let Some(word) = words.next() {
        let mut number = || number(&word, words.next());
        match word.as_str() {
            "--seeds" => many.seeds = number()?,
            "--total" => (many.total, many.seeds) = (Some(number()?), u64::MAX),
            "--start" => many.start = number()?,
            "--clients" => many.settings.clients = Some(number()?.max(1) as usize),
            "--steps" => many.settings.steps = Some(number()?),
            "--threads" => many.threads = number()?.clamp(1, 256) as usize,
            "--seed" => (many.start, many.seeds, args.one) = (number()?, 1, true),
            "--direct" => many.settings.between = Between::Nothing,
            "--faults" => many.settings.faults = Some(ENGINE),
            "--resumes" => many.settings.faults = Some(Expected::Resumes),
            "--closes" => many.settings.faults = Some(Expected::Closes),
            "--trace" => args.trace = true,
            "--keep-going" => many.keep_going = true,
            _ => return Err(USAGE.to_owned()),
        }
    }
    Ok(args)
}

fn main() -> ExitCode {
    let args = match parse(std::env::args().skip(1)) {
        Ok(args) => args,
        Err(text) => {
            eprintln!("{text}");
            return ExitCode::from(2);
        }
    };
    if args.one { show(&args) } else { run_all(&args.many) }
}

/// Runs one seed before people's eyes.
fn show(args: &Args) -> ExitCode {
    let begun = Instant::now();
    let trace = if args.trace { Trace::Print } else { Trace::Off };
    let settings = args.many.settings;
    match run(args.many.start, settings, trace) {
        Ok(totals) => {
            print!("{}", report::totals(1, &totals, begun.elapsed(), settings.between));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            print!("{}", report::failure(&failure, settings));
            ExitCode::FAILURE
        }
    }
}

fn run_all(many: &Many) -> ExitCode {
    let begun = Instant::now();
    std::panic::set_hook(Box::new(|_| {})); // a panic is reported as the failure of its seed
    let outcome = many::run_many(many, |failure| {
        if many.keep_going {
            println!("seed {} at {}: {}", failure.seed, failure.when, failure.what);
        }
    });
    if let (Some(failure), false) = (outcome.failures.first(), many.keep_going) {
        return fail(failure.seed, many);
    }
    let totals = &outcome.totals;
    print!("{}", report::totals(outcome.seeds, totals, begun.elapsed(), many.settings.between));
    if !outcome.failures.is_empty() {
        println!("{} of {} seeds failed", outcome.failures.len(), outcome.seeds);
        return ExitCode::FAILURE;
    }
    let missed = report::missed(totals, many.settings);
    if outcome.seeds >= report::ENOUGH_SEEDS && !missed.is_empty() {
        println!("never came across: {}", missed.join(", "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Runs a seed that failed again, to show its last steps.
fn fail(seed: u64, many: &Many) -> ExitCode {
    match run(seed, many.settings, Trace::Last(STORY, Default::default())) {
        Err(failure) => print!("{}", report::failure(&failure, many.settings)),
        Ok(_) => println!("seed {seed} failed once and not again: the simulation is not deterministic"),
    }
    ExitCode::FAILURE
}
