//! Seeds that found a bug stay clean: `seeds.txt` says what each of them found.

use warren_sim::fault::Expected;
use warren_sim::scenario::Between;
use warren_sim::trace::Trace;
use warren_sim::{Settings, report, run};

const LIST: &str = include_str!("../seeds.txt");

/// World and seed of a line; `None` for a line that holds none.
fn entry(line: &str) -> Option<(&str, u64)> {
    let mut words = line.split_whitespace();
    let world = words.next().filter(|word| !word.starts_with('#'))?;
    let seed = words.next().unwrap_or_default();
    Some((world, seed.parse().unwrap_or_else(|_| panic!("no seed in '{line}'"))))
}

fn settings(world: &str) -> Settings {
    let faults = match world {
        "plain" => None,
        "closes" => Some(Expected::Closes),
        "resumes" => Some(Expected::Resumes),
        _ => panic!("no world is called '{world}'"),
    };
    Settings { faults, ..Settings::new(Between::Warren) }
}

#[test]
fn seeds_that_found_a_bug_are_clean() {
    let entries: Vec<_> = LIST.lines().filter_map(entry).collect();
    assert!(entries.len() >= 7, "the list has lost its seeds");
    let failures: Vec<String> = entries
        .iter()
        .filter_map(|&(world, seed)| {
            let settings = settings(world);
            let failure = run(seed, settings, Trace::Last(20, Default::default())).err()?;
            Some(report::failure(&failure, settings))
        })
        .collect();
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), entries.len(), failures.join("\n"));
}
