//! The real clients: scripts that all do the job that `tests/clients/README.md` describes, and report each step as
//! one line of JSON.

use crate::project_folder;
use crate::reaper::Reaper;
use serde_json::Value;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The job moves some 30 MB and takes a few seconds.
const DONE_WITHIN: Duration = Duration::from_secs(180);

/// A client library in another language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Python.
    Pika,
    /// Node.
    Amqplib,
    /// PHP.
    PhpAmqplib,
}

impl Client {
    fn command(self) -> Command {
        let project = project_folder();
        let scripts = project.join("tests/clients");
        match self {
            Client::Pika => {
                needs(&project.join(".deps/python/pika"));
                let mut command = Command::new("python3");
                command.env("PYTHONPATH", project.join(".deps/python")).env("PYTHONDONTWRITEBYTECODE", "1");
                command.arg("-u").arg(scripts.join("pika/client.py"));
                command
            }
            Client::Amqplib => {
                needs(&project.join(".deps/node/node_modules/amqplib"));
                let mut command = Command::new("node");
                command.env("NODE_PATH", project.join(".deps/node/node_modules"));
                command.arg(scripts.join("amqplib/client.js"));
                command
            }
            Client::PhpAmqplib => {
                needs(Path::new("/usr/share/php/PhpAmqpLib/autoload.php"));
                let mut command = Command::new("php");
                command.arg(scripts.join("php-amqplib/client.php"));
                command
            }
        }
    }
}

fn needs(path: &Path) {
    assert!(path.exists(), "{} is not there; `make deps` installs what the tests need", path.display());
}

/// Runs a client's job on a virtual host and gives its report, step by step. A client that fails, fails the test.
pub fn run(client: Client, address: SocketAddr, vhost: &str) -> Vec<Value> {
    let mut command = client.command();
    command.args([address.ip().to_string(), address.port().to_string(), vhost.to_owned()]);
    let output = finish(command, client);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{client:?} ended with {}\n{stdout}\n{stderr}", output.status);
    let parse = |line: &str| {
        serde_json::from_str(line)
            .unwrap_or_else(|e| panic!("{client:?} wrote {line:?}, which is no JSON: {e}"))
    };
    stdout.lines().map(parse).collect()
}

fn finish(mut command: Command, client: Client) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child =
        command.spawn().unwrap_or_else(|e| panic!("starting {client:?}: {e}; `make deps` installs it"));
    let started = Instant::now();
    let reaper = Reaper::of(child.id());
    // The pipes must be read while it runs, so a thread waits for it and the reaper ends one that hangs.
    let (sender, receiver) = std::sync::mpsc::channel();
    let waiter = std::thread::spawn(move || {
        let output = child.wait_with_output();
        let _ = sender.send(());
        output
    });
    if receiver.recv_timeout(DONE_WITHIN).is_err() {
        reaper.kill_now();
    }
    let output = waiter.join().expect("the waiting thread does not panic").expect("our own process");
    assert!(started.elapsed() < DONE_WITHIN, "{client:?} did not end within {DONE_WITHIN:?}: {output:?}");
    output
}
