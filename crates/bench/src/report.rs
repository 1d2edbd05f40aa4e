//! The tables for people, and a line of JSON for programs.

use std::fmt::Write as _;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::process::Command;
use std::thread::available_parallelism;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};

use crate::plan::{Plan, Table};
use crate::rounds::{Sample, Series};
use crate::ways::Kind;

const HISTORY: &str = "bench/history";

/// The middle one, or the mean of the two in the middle.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    match values.len() {
        0 => f64::NAN,
        n if n % 2 == 1 => values[n / 2],
        n => f64::midpoint(values[n / 2 - 1], values[n / 2]),
    }
}

fn median_of<'a>(series: impl IntoIterator<Item = &'a Series>, what: impl Fn(&Sample) -> f64) -> f64 {
    median(series.into_iter().flat_map(|series| &series.samples).map(what).collect())
}

/// Widths of the names of work, of a figure, and of one with a ratio.
const NAME: usize = 44;
const FIGURE: usize = 14;
const COMPARED: usize = 18;

/// Says what the tables are about.
pub(crate) fn print_head(plan: &Plan) {
    let cores = available_parallelism().map_or(0, usize::from);
    println!(
        "Medians of {} rounds, {cores} cores, one run. CPU is the proxy's, per message or cycle. In brackets: how many \
         times HAProxy's.\n",
        plan.rounds
    );
}

/// Says what is to be seen in the tables.
pub(crate) fn print_foot() {
    println!("HAProxy runs twice in every round: the difference of its two columns is the noise.");
}

/// Prints one table.
pub(crate) fn print(table: &Table, all: &[Series]) {
    println!("{}\n", table.title());
    print!("{:NAME$}", "");
    for (kind, label) in &table.ways {
        print!("{label:>0$}", width(*kind));
    }
    println!();
    for work in &table.work {
        let row: Vec<&Series> = all.iter().filter(|series| series.work.name == work.name).collect();
        print_row(&format!("{} ({}s/s)", work.name, work.unit), table, &row, |s| s.per_second, rate);
        let cpu = format!("  CPU per {}", work.unit);
        print_row(&cpu, table, &row, |s| s.proxy_ns, micros);
        let load = micros(median_of(row.iter().copied(), |s| s.load_ns));
        let broker = micros(median_of(row.iter().copied(), |s| s.broker_ns));
        println!("  (load generator {load}, null broker {broker}{})\n", connections(table, &row));
    }
}

fn width(kind: Kind) -> usize {
    if kind.is_warren() { COMPARED } else { FIGURE }
}

fn print_row(
    name: &str,
    table: &Table,
    row: &[&Series],
    what: impl Fn(&Sample) -> f64 + Copy,
    shown: fn(f64) -> String,
) {
    print!("{name:NAME$}");
    for series in row {
        let kind = table.ways[series.way].0;
        let value = median_of([*series], what);
        // What nobody spent is left out: the CPU of no proxy.
        let figure = if value == 0.0 { String::new() } else { shown(value) };
        let ratio = if kind.is_warren() { ratio(table, row, value, what) } else { String::new() };
        print!("{:>1$}", figure + &ratio, width(kind));
    }
    println!();
}

/// How many connections the broker saw from Warren in a round, in shared mode. Consumers that could not keep up have one
/// each: what is measured then is not the sharing.
fn connections(table: &Table, row: &[&Series]) -> String {
    let warren: Vec<&Series> = of_kind(table, row, Kind::Warren).collect();
    if warren.is_empty() {
        return String::new();
    }
    let opened = median_of(warren, |s| s.broker_connections);
    format!("; Warren, shared, opened {opened} broker connections in a round")
}

fn of_kind<'a>(table: &Table, row: &[&'a Series], kind: Kind) -> impl Iterator<Item = &'a Series> {
    row.iter().copied().filter(move |series| table.ways[series.way].0 == kind)
}

/// A median over that of all HAProxy samples, in brackets.
fn ratio(table: &Table, row: &[&Series], value: f64, what: impl Fn(&Sample) -> f64) -> String {
    let ratio = value / median_of(of_kind(table, row, Kind::Haproxy), what);
    if ratio.is_finite() { format!(" ({ratio:.2})") } else { String::new() }
}

fn rate(per_second: f64) -> String {
    match per_second {
        r if r >= 1e6 => format!("{:.2} M", r / 1e6),
        r if r >= 1e5 => format!("{:.0} k", r / 1e3),
        r => format!("{r:.0}"),
    }
}

fn micros(ns: f64) -> String {
    match ns / 1e3 {
        us if us < 1.0 => format!("{us:.3} µs"),
        us if us < 10.0 => format!("{us:.2} µs"),
        us => format!("{us:.0} µs"),
    }
}

/// Appends one line with all samples to the history: `all` has a list for each table.
pub(crate) fn save(plan: &Plan, all: &[Vec<Series>]) -> Result<()> {
    fs::create_dir_all(HISTORY).with_context(|| format!("cannot make {HISTORY}: run it at the root"))?;
    let path = format!("{HISTORY}/runs.jsonl");
    let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
    writeln!(file, "{}", json(plan, all)?)?;
    println!("Appended to {path}.");
    Ok(())
}

/// Names and labels are our own and need no escapes.
fn json(plan: &Plan, all: &[Vec<Series>]) -> Result<String> {
    let when = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let cores = available_parallelism().map_or(0, usize::from);
    let mut line = format!(
        r#"{{"unix_seconds":{when},"commit":"{}","cores":{cores},"rounds":{},"quick":{},"results":["#,
        commit(),
        plan.rounds,
        plan.quick
    );
    let tables = plan.tables.iter().zip(all);
    let all = tables.flat_map(|(table, all)| all.iter().map(move |series| (table, series)));
    for (i, (table, series)) in all.enumerate() {
        let comma = if i == 0 { "" } else { "," };
        let list = |what: fn(&Sample) -> f64| {
            let values: Vec<String> = series.samples.iter().map(|s| format!("{:.1}", what(s))).collect();
            values.join(",")
        };
        write!(
            line,
            r#"{comma}{{"work":"{}","tls":"{}","way":"{}","per_second":[{}],"proxy_cpu_ns":[{}]}}"#,
            series.work.name,
            table.tls_name(),
            table.ways[series.way].1,
            list(|s| s.per_second),
            list(|s| s.proxy_ns)
        )?;
    }
    line.push_str("]}");
    Ok(line)
}

/// The commit that was measured, with a mark when there are changes beside it.
fn commit() -> String {
    let git = Command::new("git").args(["describe", "--always", "--dirty", "--abbrev=10"]).output();
    git.ok().and_then(|out| String::from_utf8(out.stdout).ok()).unwrap_or_default().trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(Vec::new()).is_nan());
    }

    #[test]
    fn figures_for_people() {
        assert_eq!(rate(6_543_210.0), "6.54 M");
        assert_eq!(rate(543_210.0), "543 k");
        assert_eq!(rate(4_100.4), "4100");
        assert_eq!(micros(80.4), "0.080 µs");
        assert_eq!(micros(1_234.0), "1.23 µs");
        assert_eq!(micros(151_234.0), "151 µs");
    }
}
