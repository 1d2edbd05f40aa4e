//! What files are refused with, and the pages that are made of the model.

use std::path::{Path, PathBuf};

use super::*;

/// The smallest file that serves clients.
const SMALL: &str = r#"
[[listener]]
address = "127.0.0.1:5672"

[[backend]]
name = "rabbit1"
host = "rabbit1.example.com"
port = 5672

[[farm]]
name = "main"
backends = ["rabbit1"]

[[route]]
farm = "main"
"#;

fn good(text: &str) -> Setup {
    read(Path::new("warren.toml"), text).unwrap_or_else(|problems| panic!("{text}\n{problems}"))
}

fn bad(text: &str) -> String {
    read(Path::new("warren.toml"), text).err().unwrap_or_else(|| panic!("{text}: taken")).to_string()
}

/// The small file with something replaced.
fn small(from: &str, to: &str) -> String {
    assert!(SMALL.contains(from), "{from}");
    SMALL.replacen(from, to, 1)
}

#[test]
fn what_is_not_said_has_defaults() {
    let setup = good(SMALL);
    let config = &setup.engine;
    assert_eq!(config.listeners[0].name, "127.0.0.1:5672");
    assert_eq!(config.routes[0].name, "1");
    assert_eq!(config.routes[0].mode, warren_engine::config::Mode::Shared);
    assert_eq!(config.backends[0].weight, 1);
    assert_eq!(setup.http, None);
    assert_eq!(setup.workers, crate::options::default_workers());
    assert_eq!(config.limits.memory as u64, crate::options::default_memory());
    assert_eq!(config.limits.wait_limit, warren_engine::config::Limits::default().wait_limit);
}

#[test]
fn problems_name_line_fault_and_remedy() {
    for (text, problem) in [
        (small("host =", "hots ="), "warren.toml:7: `hots` is no key here; did you mean \"host\"?"),
        (
            small("\"main\"\nbackends", "\"mian\"\nbackends"),
            "warren.toml:15: there is no farm \"main\"; did you mean \"mian\"?",
        ),
        (
            small("[\"rabbit1\"]", "[\"rabbit2\"]"),
            "warren.toml:12: there is no backend \"rabbit2\"; did you mean \"rabbit1\"?",
        ),
        (small("[\"rabbit1\"]", "[]"), "warren.toml:12: farm \"main\" has no backends; name at least one"),
        (
            small("port = 5672\n", "port = 0\n"),
            "warren.toml:8: invalid value: integer `0`, expected a nonzero u16",
        ),
        (small("port = 5672\n", ""), "warren.toml:5: missing field `port`"),
        (
            small("rabbit1.example.com", "rabbit1:5672"),
            "warren.toml:7: host = \"rabbit1:5672\" is not a host name or an IP address; the port has a key of its own",
        ),
        (
            small("127.0.0.1:5672", "::1:5672"),
            "warren.toml:3: invalid value: string \"::1:5672\", expected a host and a port, such as \"0.0.0.0:5672\" or \"[::]:5671\"",
        ),
        (
            small("farm = \"main\"", "farm = \"main\"\nmode = \"dedicate\""),
            "warren.toml:16: `dedicate` is not known here; did you mean \"dedicated\"?",
        ),
        (
            small("farm = \"main\"", "farm = \"main\"\nmode = \"dedicated\"\nclose = \"fast\""),
            "warren.toml:17: close is for shared mode, and this route is dedicated; leave it out",
        ),
        (
            small("farm = \"main\"", "farm = \"main\"\nsni = \"a\""),
            "warren.toml:16: sni never matches where no TLS is spoken; give the listener tls, or leave sni out",
        ),
        (
            small("farm = \"main\"", "farm = \"main\"\nlistener = \"x\""),
            "warren.toml:16: there is no listener \"x\"; none is defined",
        ),
        (
            small(
                "5672\"\n",
                "5672\"\ntls = { certificate = \"a\", key = \"b\", client_auth = \"required\" }\n",
            ),
            "warren.toml:4: client_auth needs client_ca, the authorities that client certificates come from",
        ),
        (
            small("5672\"\n", "5672\"\nproxy_protocol = [\"10.0.0.0/33\"]\n"),
            "warren.toml:4: \"10.0.0.0/33\" is not a network; write an address, or one with the length of its prefix, such as \"10.0.0.0/8\"",
        ),
        (
            format!("[proxy]\nauth_ttl = 60\n{SMALL}"),
            "warren.toml:2: invalid value: integer `60`, expected a length of time: a number and one of ms, s, m, h, d, such as \"5s\"",
        ),
        (
            format!("[proxy]\nmemory = \"1XB\"\n{SMALL}"),
            "warren.toml:2: invalid value: string \"1XB\", expected a size: a number of octets, or a number and one of B, kB, MB, GB, KiB, MiB, GiB, such as \"64MiB\"",
        ),
        (
            format!("{SMALL}[auth]\nservice = \"https://a/b\"\n"),
            "warren.toml:17: service is not an address; write it like \"http://127.0.0.1:8080/auth\"",
        ),
        (
            format!("{SMALL}[[identity]]\ncertificate_cn = \"a\"\nuser = \"b\"\npassword_file = \"/none\"\n"),
            "warren.toml:17: no listener asks for certificates, so that this is never used; write client_ca and client_auth = \"optional\" or \"required\" in a listener's tls, or leave the identity out\nwarren.toml:19: password_file /none cannot be read: No such file or directory (os error 2)",
        ),
        ("[[listener]\n".to_owned(), "warren.toml:1: unclosed array table, expected `]`"),
    ] {
        assert_eq!(bad(&text), problem, "{text}");
    }
}

#[test]
fn all_problems_are_told_in_order() {
    let text = small("[\"rabbit1\"]", "[\"rabbit2\"]").replace("farm = \"main\"", "farm = \"other\"");
    let problems = bad(&text);
    let lines: Vec<&str> = problems.lines().collect();
    assert_eq!(lines.len(), 2, "{problems}");
    assert!(
        lines[0].starts_with("warren.toml:12: ") && lines[1].starts_with("warren.toml:15: "),
        "{problems}"
    );
    assert_eq!(bad("").lines().count(), 4, "no listener, backend, farm, route");
}

#[test]
fn two_of_a_name_are_refused() {
    let backend = "[[backend]]\nname = \"rabbit1\"\nhost = \"b\"\nport = 1\n";
    assert_eq!(
        bad(&format!("{SMALL}{backend}")),
        "warren.toml:17: there are two backends called \"rabbit1\"; rename one"
    );
}

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/configuration.md")
}

/// Examples of a page: what is between ```toml and ```.
fn examples(page: &str) -> Vec<String> {
    let parts = page.split("```toml\n").skip(1);
    parts.filter_map(|part| Some(part.split_once("```")?.0.to_owned())).collect()
}

/// Everything after this line of the page is made of the model.
const GENERATED: &str =
    "<!-- From here on this page is made of crates/warren/src/file/model.rs: make docs -->\n";

#[test]
fn the_page_says_what_the_model_does() {
    let path = page();
    let now = std::fs::read_to_string(&path).expect("docs/configuration.md");
    let (written, _) = now.split_once(GENERATED).expect("the line that separates what is generated");
    let should = format!("{written}{GENERATED}{}", reference::markdown());
    if std::env::var_os("WARREN_TEST_WRITE").is_some() {
        std::fs::write(&path, &should).expect("docs/configuration.md");
    } else {
        assert!(now == should, "docs/configuration.md is not what the model says; run `make docs`");
    }
}

#[test]
fn the_examples_of_the_page_are_right_and_fit_the_schema() {
    let page = std::fs::read_to_string(page()).expect("docs/configuration.md");
    let schema = serde_json::from_str(&schema::schema()).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let examples = examples(&page);
    assert!(examples.len() >= 3, "there are examples");
    let folder = tempfile::tempdir().expect("a temporary folder");
    std::fs::write(folder.path().join("billing-password"), "secret\n").expect("own folder");
    for example in examples {
        let value: serde_json::Value = toml::from_str(&example).unwrap_or_else(|e| panic!("{example}\n{e}"));
        let faults: Vec<String> = validator.iter_errors(&value).map(|fault| fault.to_string()).collect();
        assert!(faults.is_empty(), "{example}\n{faults:?}");
        if let Err(problems) = read(&folder.path().join("warren.toml"), &example) {
            panic!("{example}\n{problems}");
        }
    }
}

#[test]
fn the_schema_refuses_what_the_program_refuses() {
    let schema = serde_json::from_str(&schema::schema()).expect("JSON");
    let validator = jsonschema::validator_for(&schema).expect("a schema");
    let fits = |text: &str| validator.is_valid(&toml::from_str::<serde_json::Value>(text).expect("TOML"));
    assert!(fits(SMALL));
    for text in [
        small("host =", "hots ="),
        small("port = 5672\n", ""),
        small("port = 5672\n", "port = 0\n"),
        small("farm = \"main\"", "farm = \"main\"\nmode = \"dedicate\""),
        format!("[proxy]\nauth_ttl = \"60\"\n{SMALL}"),
        format!("[proxy]\nmemory = \"1XB\"\n{SMALL}"),
    ] {
        assert!(!fits(&text), "{text}");
    }
}
