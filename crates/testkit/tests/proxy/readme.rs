//! The README keeps its word: its examples run, its commands exist, its tables name what there is.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;
use warren_testkit::{Handshake, Peer, Warren, eventually, project_folder, rabbit};

fn readme() -> String {
    fs::read_to_string(project_folder().join("README.md")).expect("README.md")
}

/// The fenced blocks of a language.
fn blocks(language: &str) -> Vec<String> {
    let text = readme();
    let fence = format!("\n```{language}\n");
    let rest = text.split(&fence).skip(1);
    let blocks: Vec<String> =
        rest.map(|block| block.split("\n```").next().unwrap_or_default().to_owned()).collect();
    assert!(!blocks.is_empty(), "no block of {language}");
    blocks
}

/// Runs an example against Warren at another port than the one it names; it must put a message into `hello`.
fn runs(language: &str, interpreter: &str, ending: &str) {
    let rabbit = rabbit::shared();
    let warren = Warren::start(rabbit);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let deps = project_folder().join(".deps");
    for block in blocks(language) {
        assert!(block.contains("5673"), "the example connects to Warren:\n{block}");
        let file = folder.path().join(format!("example.{ending}"));
        fs::write(&file, block.replace("5673", &warren.port().to_string())).expect("an own folder");
        let mut command = Command::new(interpreter);
        command.arg(&file).stdin(Stdio::null());
        command.env("PYTHONPATH", deps.join("python")).env("NODE_PATH", deps.join("node/node_modules"));
        let output = command
            .output()
            .unwrap_or_else(|e| panic!("starting {interpreter}: {e}; `make deps` installs it"));
        assert!(output.status.success(), "{block}\n{output:?}");
    }
    let mut peer = Peer::connect_with(rabbit.address(), &Handshake::default());
    peer.open_channel(1);
    let said = format!("from {}", if language == "js" { "Node" } else { language });
    let mut arrived = false;
    eventually("the message of the example", Duration::from_secs(60), || {
        // Other examples use the queue at the same time.
        while let Some(message) = peer.get(1, "hello", true) {
            if message.text().eq_ignore_ascii_case(&said) {
                arrived = true;
            } else {
                peer.publish(1, "hello", &message.body);
                break;
            }
        }
        arrived
    });
    peer.close();
}

#[test]
fn the_example_in_php_runs() {
    runs("php", "php", "php");
}

#[test]
fn the_example_in_python_runs() {
    runs("python", "python3", "py");
}

#[test]
fn the_example_in_node_runs() {
    runs("js", "node", "js");
}

#[test]
fn its_commands_are_those_that_tests_run() {
    let commands: Vec<String> =
        blocks("sh").iter().flat_map(|block| block.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    let known = [
        "cargo run --release -- demo", // crates/warren/tests/demo.rs, and default-members makes it one binary
        "make test",                   // .ci/run
        "cargo build --release",
        "target/release/warren amqp://127.0.0.1:5672",
    ];
    assert_eq!(commands, known);
    let manifest = fs::read_to_string(project_folder().join("Cargo.toml")).expect("Cargo.toml");
    assert!(manifest.contains("default-members = [\"crates/warren\"]"));
    let ci = fs::read_to_string(project_folder().join(".ci/run")).expect(".ci/run");
    assert!(ci.contains("make test"));
}

fn words(text: &str, prefix: &str, more: &[char]) -> BTreeSet<String> {
    let part_of = |c: char| c.is_ascii_alphanumeric() || more.contains(&c);
    let words = text.split(|c: char| !part_of(c)).filter(|word| word.starts_with(prefix));
    words
        .map(|word| word.trim_end_matches(more).to_owned())
        .filter(|word| word.len() > prefix.len())
        .collect()
}

#[test]
fn its_options_are_those_of_the_program() {
    let output = Warren::output(&["--help"], &[]);
    let help = words(&String::from_utf8_lossy(&output.stdout), "--", &['-']);
    let section = readme();
    let section = section.split("\n## Options\n").nth(1).and_then(|rest| rest.split("\n## ").next());
    let told = words(section.expect("a section on options"), "--", &['-']);
    assert_eq!(told, help);
}

#[test]
fn its_metrics_are_those_of_the_program() {
    let warren = Warren::start_with(1, &[]);
    let (_, text) = warren.http_get("/metrics").expect("Warren answers");
    let names: BTreeSet<String> = words(&text, "warren_", &['_']).into_iter().collect();
    let section = readme();
    let section = section.split("\n## HTTP\n").nth(1).and_then(|rest| rest.split("\n## ").next());
    for name in words(section.expect("a section on HTTP"), "warren_", &['_']) {
        let known = |n: &String| n.trim_end_matches("_total").starts_with(name.trim_end_matches("_total"));
        assert!(names.iter().any(known), "{name} is no metric: {names:?}");
    }
}

/// `systemd-analyze` is part of systemd, which the distributions that have units have.
#[test]
fn the_unit_is_one_that_systemd_understands() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let unit = fs::read_to_string(project_folder().join("dist/systemd/warren.service")).expect("the unit");
    // The binary is not installed where the tests run.
    let unit = unit.replace("/usr/local/bin/warren", "/bin/true");
    fs::write(folder.path().join("warren.service"), unit).expect("an own folder");
    let mut command = Command::new("systemd-analyze");
    command.arg("verify").arg(folder.path().join("warren.service"));
    let output = command.output().expect("systemd-analyze; `make deps` installs systemd");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && !said.contains("warren.service"), "{said}");
}
