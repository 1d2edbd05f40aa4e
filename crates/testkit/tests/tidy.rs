//! The conventions of CONTRIBUTING.md that a program can check.

use std::path::{Path, PathBuf};
use std::process::Command;
use warren_testkit::project_folder;

/// Files longer than this are split.
const MOST_LINES: usize = 600;
/// Root files and folders that hold what people wrote.
const WRITTEN: [&str; 10] = [
    "crates",
    "docs",
    "scripts",
    "tests",
    ".ci",
    "Cargo.toml",
    "Makefile",
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
];

/// Every file below the places where people write, without what is built or installed there.
fn written_files() -> Vec<(PathBuf, String)> {
    let root = project_folder();
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> = WRITTEN.iter().map(|name| root.join(name)).collect();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).expect("a folder of the project");
            let entries = entries.map(|e| e.expect("a folder of the project").path());
            waiting.extend(entries.filter(|p| !p.ends_with("target") && !p.ends_with("node_modules")));
        } else if let Ok(text) = std::fs::read_to_string(&path) {
            let name = path.strip_prefix(&root).expect("below the root").to_path_buf();
            found.push((name, text));
        }
    }
    assert!(found.len() > 50, "the project is larger than {} files", found.len());
    found.sort();
    found
}

fn is_rust(path: &Path) -> bool {
    path.extension().is_some_and(|e| e == "rs")
}

/// Fails with everything that was found, not with the first.
fn nothing(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n{}", found.join("\n"));
}

#[test]
fn files_are_not_too_long() {
    let long = |(path, text): &(PathBuf, String)| {
        let lines = text.lines().count();
        (is_rust(path) && lines > MOST_LINES).then(|| format!("{} has {lines} lines", path.display()))
    };
    nothing("split these files", &written_files().iter().filter_map(long).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_undone_or_ignored() {
    // Put together here, so that this file does not find itself.
    let forbidden =
        [["todo", "!("], ["unimplemented", "!("], ["#[ig", "nore"], ["dbg", "!("]].map(|p| p.concat());
    let mut found = Vec::new();
    for (path, text) in written_files().iter().filter(|(path, _)| is_rust(path)) {
        for (n, line) in text.lines().enumerate() {
            if forbidden.iter().any(|f| line.contains(f.as_str())) {
                found.push(format!("{}:{}: {}", path.display(), n + 1, line.trim()));
            }
        }
    }
    nothing("finish these", &found);
}

#[test]
fn sides_have_one_name_each() {
    let forbidden = [["in", "gress"], ["e", "gress"]].map(|p| p.concat());
    let mut found = Vec::new();
    for (path, text) in written_files().iter().filter(|(path, _)| is_rust(path)) {
        for (n, line) in text.lines().enumerate() {
            let line = line.to_lowercase();
            if forbidden.iter().any(|f| line.split(|c: char| !c.is_alphanumeric()).any(|w| w == f)) {
                found.push(format!("{}:{}: {}", path.display(), n + 1, line.trim()));
            }
        }
    }
    nothing("say downstream or upstream", &found);
}

#[test]
fn the_layers_know_only_those_below_them() {
    for (name, allowed) in [
        ("warren-wire", &[][..]),
        ("warren-engine", &["warren-wire"]),
        // The embedded broker is there for the demo.
        ("warren", &["warren-broker", "warren-engine", "warren-wire"]),
    ] {
        for dependency in dependencies(name) {
            let ours = dependency.starts_with("warren");
            assert!(!ours || allowed.contains(&dependency.as_str()), "{name} must not use {dependency}");
            assert!(
                dependency != "amq-protocol",
                "{name} must not use it: its types alone bring no TCP and no TLS"
            );
            let edge = ["tokio", "mio", "socket2"].contains(&dependency.as_str());
            assert!(
                !edge || name == "warren",
                "{name} must not use {dependency}: it has no sockets and no runtime"
            );
        }
    }
}

/// Names of a crate's direct dependencies, those of its tests left out.
fn dependencies(package: &str) -> Vec<String> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command.current_dir(project_folder()).args([
        "metadata",
        "--format-version",
        "1",
        "--no-deps",
        "--offline",
    ]);
    let output = command.output().expect("cargo starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
    let packages = metadata["packages"].as_array().expect("a list of packages");
    let package = packages.iter().find(|p| p["name"] == package).expect("a package of the workspace");
    let dependencies = package["dependencies"].as_array().expect("a list of dependencies");
    let normal = dependencies.iter().filter(|d| d["kind"].is_null());
    normal.filter_map(|d| d["name"].as_str().map(str::to_owned)).collect()
}
