//! The program with a TOML file: what it says of it, and that it does what the file says.

mod support;

use std::fs;
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Output;

use rustix::process::Signal;
use support::{NO_BROKER, Running, warren};

const FILE: &str = r#"
[proxy]
workers = 1

[control]
http = "127.0.0.1:0"

[[listener]]
address = "127.0.0.1:0"

[[listener]]
name = "other"
address = "127.0.0.2:0"

[[backend]]
name = "rabbit1"
host = "127.0.0.1"
port = 1

[[farm]]
name = "main"
backends = ["rabbit1"]

[[route]]
farm = "main"
"#;

/// A file in a folder of its own.
struct Written {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn written(text: &str) -> Written {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("warren.toml");
    fs::write(&path, text).expect("an own folder");
    Written { _folder: folder, path }
}

fn run(arguments: &str, file: &Written) -> Output {
    warren(arguments).arg(&file.path).output().expect("the program runs")
}

fn texts(output: &Output) -> (Option<i32>, String, String) {
    let text = |octets: &[u8]| String::from_utf8_lossy(octets).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

#[test]
fn check_says_what_is_there_or_what_is_wrong() {
    let (status, out, err) = texts(&run("check", &written(FILE)));
    assert_eq!(status, Some(0), "{out}{err}");
    assert!(out.ends_with("warren.toml: right; 2 listeners, 1 route, 1 farm, 1 backend\n"), "{out}");

    let wrong = FILE.replace("port = 1", "prot = 1").replace("farm = \"main\"", "farm = \"mian\"");
    let (status, out, err) = texts(&run("check", &written(&wrong)));
    assert_eq!((status, out.as_str()), (Some(2), ""), "{err}");
    assert!(err.ends_with("warren.toml:18: `prot` is no key here; did you mean \"port\"?\n"), "{err}");

    let wrong = FILE.replace("farm = \"main\"", "farm = \"mian\"");
    let (status, _, err) = texts(&run("check", &written(&wrong)));
    assert_eq!(status, Some(2), "{err}");
    assert!(err.ends_with("warren.toml:25: there is no farm \"mian\"; did you mean \"main\"?\n"), "{err}");

    let (status, _, err) = texts(&warren("check /none/warren.toml").output().expect("the program runs"));
    assert_eq!(status, Some(2), "{err}");
    assert!(err.starts_with("/none/warren.toml: cannot be read: "), "{err}");
}

#[test]
fn a_wrong_file_is_not_started_with() {
    let wrong = FILE.replace("farm = \"main\"", "farm = \"mian\"");
    let (status, _, err) = texts(&run("-c", &written(&wrong)));
    assert_eq!(status, Some(2), "{err}");
    assert!(err.contains("warren.toml:25: there is no farm"), "{err}");
}

#[test]
fn the_schema_is_json() {
    let (status, out, err) = texts(&warren("schema").output().expect("the program runs"));
    assert_eq!(status, Some(0), "{err}");
    let schema: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    assert!(schema["properties"]["route"].is_object(), "{out}");
}

#[test]
fn all_listeners_of_a_file_are_open() {
    let file = written(FILE);
    let mut command = warren("-c");
    command.arg(&file.path).env("AMQP_URL", NO_BROKER).env("HTTP_PORT", "");
    let mut running = Running::of(&mut command);
    assert_eq!(running.clients.len(), 2, "{}", running.listening);
    assert!(running.clients[1].starts_with("127.0.0.2:"), "{}", running.listening);
    for address in &running.clients {
        TcpStream::connect(address).expect("it listens");
    }
    assert!(running.get("/healthz").starts_with("HTTP/1.1 200 "));
    running.signal(Signal::TERM);
    assert!(running.wait().success());
}

#[test]
fn nothing_can_be_said_beside_a_file_that_says_everything() {
    let file = written(FILE);
    for (arguments, named) in
        [("-p 5000 -c", "--port"), ("--workers 2 -c", "--workers"), (&format!("{NO_BROKER} -c"), "UPSTREAM")]
    {
        let (status, _, err) = texts(&run(arguments, &file));
        assert_eq!(status, Some(2), "{err}");
        assert!(err.starts_with(&format!("warren: {named} (command line): cannot be said beside ")), "{err}");
    }
}

#[test]
fn a_busy_port_is_told_and_ends_the_process() {
    let busy = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = busy.local_addr().expect("bound").to_string();
    let (status, _, err) = texts(&run("-c", &written(&FILE.replace("127.0.0.2:0", &address))));
    assert_eq!(status, Some(1), "{err}");
    assert!(err.contains(&format!("cannot listen on {address}")), "{err}");
}
