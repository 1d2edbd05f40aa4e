//! The real clients: scripts that all do the cases that `tests/clients/README.md` describes, and report each step as
//! one line of JSON.

use crate::certificates::Signed;
use crate::project_folder;
use crate::reaper::Reaper;
use serde_json::Value;
use std::net::SocketAddr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

/// The job moves some 30 MB and takes a few seconds; the cases with heartbeats take 10 s and more.
const DONE_WITHIN: Duration = Duration::from_secs(180);

/// A client in another language.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// Python.
    Pika,
    /// Python.
    Kombu,
    /// Python, with a worker process.
    Celery,
    /// Python.
    AioPika,
    /// Node.
    Amqplib,
    /// Node.
    CloudAmqp,
    /// PHP, a library.
    PhpAmqplib,
    /// PHP, an extension around rabbitmq-c.
    PhpAmqp,
    /// The command line tools of rabbitmq-c.
    AmqpTools,
}

/// What a client is asked to do; `tests/clients/README.md` says what each of these is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Case {
    /// The job, in eight steps.
    Job,
    /// A login that is refused.
    Refused,
    /// Twenty channels at once.
    Channels,
    /// A publisher that never pauses, with heartbeats.
    Busy,
    /// A client that does nothing, with heartbeats.
    Idle,
}

/// Where a client connects to, and as whom (always `guest`).
#[derive(Clone, Debug)]
pub struct Login {
    /// Broker or proxy.
    pub address: SocketAddr,
    /// Virtual host.
    pub vhost: String,
    /// Password of `guest`, or another.
    pub password: String,
}

impl Client {
    fn command(self) -> Command {
        match self {
            Client::Pika => python("pika", "pika"),
            Client::Kombu => python("kombu", "kombu"),
            Client::Celery => python("celery", "celery"),
            Client::AioPika => python("aio-pika", "aio_pika"),
            Client::Amqplib => node("amqplib", "amqplib"),
            Client::CloudAmqp => node("cloudamqp", "@cloudamqp/amqp-client"),
            Client::PhpAmqplib => {
                needs(Path::new("/usr/share/php/PhpAmqpLib/autoload.php"));
                script("php", "php-amqplib/client.php")
            }
            Client::PhpAmqp => script("php", "php-amqp/client.php"),
            Client::AmqpTools => script("sh", "amqp-tools/client.sh"),
        }
    }
}

fn python(folder: &str, package: &str) -> Command {
    let mut command = script("python3", &format!("{folder}/client.py"));
    with_packages(&mut command, package);
    command
}

/// Has a Python program find the packages that are installed for the tests.
fn with_packages(command: &mut Command, package: &str) {
    let project = project_folder();
    let installed = project.join(".deps/python");
    needs(&installed.join(package));
    let steps = project.join("tests/clients/steps");
    let path = std::env::join_paths([installed, steps]).expect("no colon in our own folders");
    command.env("PYTHONPATH", path).env("PYTHONDONTWRITEBYTECODE", "1");
}

fn node(folder: &str, package: &str) -> Command {
    let modules = project_folder().join(".deps/node/node_modules");
    needs(&modules.join(package));
    let mut command = script("node", &format!("{folder}/client.js"));
    command.env("NODE_PATH", modules);
    command
}

fn script(interpreter: &str, path: &str) -> Command {
    let mut command = Command::new(interpreter);
    command.arg(project_folder().join("tests/clients").join(path));
    command
}

fn needs(path: &Path) {
    assert!(path.exists(), "{} is not there; `make deps` installs what the tests need", path.display());
}

/// Runs a case and gives the client's report, step by step. A client that fails, fails the test.
pub fn run(client: Client, case: Case, login: &Login) -> Vec<Value> {
    let mut command = client.command();
    command.arg(format!("{case:?}").to_lowercase());
    command.args([login.address.ip().to_string(), login.address.port().to_string()]);
    command.args([&login.vhost, &login.password]);
    let output = finish(command, client);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{client:?} ended {case:?} with {}\n{stdout}\n{stderr}", output.status);
    let parse = |line: &str| {
        serde_json::from_str(line)
            .unwrap_or_else(|e| panic!("{client:?} wrote {line:?}, which is no JSON: {e}"))
    };
    stdout.lines().map(parse).collect()
}

/// Runs pika once over TLS (`tests/clients/pika/over_tls.py`): it publishes and consumes ten messages. `shows`: log in by
/// this certificate, else as guest.
pub fn pika_over_tls(address: SocketAddr, vhost: &str, ca: &Path, shows: Option<&Signed>) -> String {
    let mut command = Command::new("python3");
    with_packages(&mut command, "pika");
    let script = project_folder().join("tests/clients/pika/over_tls.py");
    command.arg(script).args([address.ip().to_string(), address.port().to_string()]).arg(vhost).arg(ca);
    if let Some(signed) = shows {
        command.args([&signed.certificate, &signed.key]);
    }
    let output = finish(command, Client::Pika);
    let (stdout, stderr) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "pika over TLS ended with {}\n{stdout}\n{stderr}", output.status);
    stdout.trim().to_owned()
}

fn finish(mut command: Command, client: Client) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // A client may start processes of its own, as Celery's does: they form a group and end together.
    command.process_group(0);
    let child =
        command.spawn().unwrap_or_else(|e| panic!("starting {client:?}: {e}; `make deps` installs it"));
    let started = Instant::now();
    let reaper = Reaper::of_group(child.id());
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
