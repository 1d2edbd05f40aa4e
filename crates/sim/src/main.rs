//! `warren-sim`: runs seeds, and shows one again.

use std::process::ExitCode;
use std::time::Instant;

use warren_sim::scenario::Between;
use warren_sim::trace::Trace;
use warren_sim::world::Totals;
use warren_sim::{Settings, report, run};

const USAGE: &str = "\
warren-sim --seeds N [--start S] [--steps M] [--clients C] [--direct] [--keep-going]
    runs N seeds from S on (default 1), each for M steps with C clients at a time (default: drawn from the seed)
warren-sim --seed S [--steps M] [--clients C] [--direct] [--trace]
    runs one, and shows what happened
--direct      connects the clients to the model broker itself
--keep-going  shows the first line of each failure instead of stopping at the first";

/// Lines shown of a run that failed.
const STORY: usize = 60;

struct Args {
    seeds: u64,
    start: u64,
    one: bool,
    trace: bool,
    keep_going: bool,
    settings: Settings,
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Args, String> {
    let settings = Settings::new(Between::Warren);
    let mut args = Args { seeds: 100, start: 1, one: false, trace: false, keep_going: false, settings };
    while let Some(word) = words.next() {
        let mut number = || {
            let text = words.next().ok_or_else(|| format!("{word} wants a number"))?;
            text.parse::<u64>().map_err(|_| format!("{word} wants a number, not '{text}'"))
        };
        match word.as_str() {
            "--seeds" => args.seeds = number()?,
            "--start" => args.start = number()?,
            "--clients" => args.settings.clients = Some(number()?.max(1) as usize),
            "--steps" => args.settings.steps = Some(number()?),
            "--seed" => (args.start, args.seeds, args.one) = (number()?, 1, true),
            "--direct" => args.settings.between = Between::Nothing,
            "--trace" => args.trace = true,
            "--keep-going" => args.keep_going = true,
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
    if args.one { show(&args) } else { run_all(&args) }
}

/// Runs one seed before people's eyes.
fn show(args: &Args) -> ExitCode {
    let begun = Instant::now();
    let trace = if args.trace { Trace::Print } else { Trace::Off };
    match run(args.start, args.settings, trace) {
        Ok(totals) => {
            print!("{}", report::totals(1, &totals, begun.elapsed(), args.settings.between));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            print!("{}", report::failure(&failure, args.settings));
            ExitCode::FAILURE
        }
    }
}

fn run_all(args: &Args) -> ExitCode {
    let begun = Instant::now();
    let (mut totals, mut failures) = (Totals::default(), 0_u64);
    std::panic::set_hook(Box::new(|_| {})); // a panic is reported as the failure of its seed
    for seed in args.start..args.start + args.seeds {
        match run(seed, args.settings, Trace::Off) {
            Ok(run) => totals.add(&run),
            Err(failure) if args.keep_going => {
                failures += 1;
                println!("seed {seed} at {}: {}", failure.when, failure.what);
            }
            Err(_) => return fail(seed, args),
        }
    }
    print!("{}", report::totals(args.seeds, &totals, begun.elapsed(), args.settings.between));
    if failures > 0 {
        println!("{failures} of {} seeds failed", args.seeds);
        return ExitCode::FAILURE;
    }
    let missed = report::missed(&totals, args.settings.between);
    if args.seeds >= report::ENOUGH_SEEDS && !missed.is_empty() {
        println!("never came across: {}", missed.join(", "));
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Runs a seed that failed again, to show its last steps.
fn fail(seed: u64, args: &Args) -> ExitCode {
    match run(seed, args.settings, Trace::Last(STORY, Default::default())) {
        Err(failure) => print!("{}", report::failure(&failure, args.settings)),
        Ok(_) => println!("seed {seed} failed once and not again: the simulation is not deterministic"),
    }
    ExitCode::FAILURE
}
