//! The measurements themselves, as short as they can be: every way works, and has figures in its table. What the figures
//! are depends on the machine; that no message is missing, the program checks itself.

use std::process::Command;

use warren_testkit::warren::binary;

/// What it prints about work of this name, with every way and every side of TLS.
fn measured(work: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warren-bench"));
    command.args(["--quick", "--rounds", "1", "--only", work, "--warren"]).arg(binary());
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "it failed: {said}");
    String::from_utf8(output.stdout).expect("text")
}

/// The tables, each with its title, by their beginnings.
fn tables(output: &str) -> Vec<&str> {
    let titles = ["Without TLS.", "Clients speak TLS (1.3, ", "The broker speaks TLS (1.3, "];
    let starts = titles.map(|title| output.find(title).unwrap_or_else(|| panic!("{title}\n{output}")));
    let ends = [starts[1], starts[2], output.len()];
    starts.into_iter().zip(ends).map(|(start, end)| &output[start..end]).collect()
}

/// Both modes of Warren are compared with HAProxy, in rate and in CPU.
fn assert_compared(table: &str, row: &str) {
    for label in ["HAProxy", "Warren", "Warren, dedicated", "HAProxy again"] {
        assert!(table.contains(label), "no column {label}\n{table}");
    }
    for row in [row, "  CPU per "] {
        let line = table.lines().find(|line| line.starts_with(row)).expect(row);
        let figures = line.trim_start_matches(row);
        let ratios = figures.split_whitespace().filter_map(|word| {
            word.strip_prefix('(')?.strip_suffix(')')?.parse::<f64>().ok().filter(|ratio| *ratio > 0.0)
        });
        assert_eq!(ratios.count(), 2, "{line}");
    }
}

#[test]
fn publishing_on_every_way() {
    let output = measured("publish 64 kB");
    for table in tables(&output) {
        assert_compared(table, "publish 64 kB, 4 clients");
    }
}

#[test]
fn handshakes_on_every_way() {
    let output = measured("connect-publish-close");
    for table in tables(&output) {
        assert_compared(table, "connect-publish-close, 4 clients");
    }
}
