//! The proxy under test, as a process.

use crate::rabbit::Rabbit;
use crate::reaper::Reaper;
use crate::{ports, project_folder};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// It opens its ports without waiting for anything, so this is for a machine that is busy with other things.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// A graceful stop may wait for clients and for brokers.
const STOP_WITHIN: Duration = Duration::from_secs(60);

/// A running proxy; killed when dropped. What it wrote is shown when the test fails.
#[derive(Debug)]
pub struct Warren {
    process: Child,
    reaper: Option<Reaper>,
    port: u16,
    http_port: u16,
    /// Where it listens for clients, in the order of its log.
    listeners: Vec<SocketAddr>,
    folder: tempfile::TempDir,
}

impl Warren {
    /// Starts one in front of a node, with one worker, and waits until its ports are open.
    pub fn start(rabbit: &Rabbit) -> Warren {
        Warren::start_with(rabbit.port(), &[])
    }

    /// Starts one in front of whatever listens on a port of the loopback address, now or later, with arguments.
    pub fn start_with(broker_port: u16, arguments: &[&str]) -> Warren {
        Warren::start_for(&format!("amqp://127.0.0.1:{broker_port}"), arguments, &[])
    }

    /// Starts one in front of any address, with arguments and additional environment variables.
    pub fn start_for(upstream: &str, arguments: &[&str], variables: &[(&str, &str)]) -> Warren {
        let mut command = Command::new(binary());
        command.envs(variables.iter().copied());
        Warren::start_program(command, upstream, arguments)
    }

    /// As [`Warren::start_with`], with so many descriptors at most.
    pub fn start_with_descriptors(descriptors: u32, broker_port: u16, arguments: &[&str]) -> Warren {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -n \"$0\" && exec \"$@\"", &descriptors.to_string()]).arg(binary());
        Warren::start_program(command, &format!("amqp://127.0.0.1:{broker_port}"), arguments)
    }

    /// Starts one with a TOML file. Listeners should say port 0 (see [`Warren::listener`]); metrics are served on a free
    /// port unless the file says where.
    pub fn start_file(text: &str) -> Warren {
        let folder = folder();
        let file = folder.path().join("warren.toml");
        let control = if text.contains("[control]") { "" } else { "\n[control]\nhttp = \"127.0.0.1:0\"\n" };
        std::fs::write(&file, format!("{text}{control}")).expect("an own folder");
        let mut command = Command::new(binary());
        command.arg("-c").arg(file);
        Warren::begin(command, folder, 0, 0)
    }

    /// As [`Warren::start`], with clients that wait for five minutes when their broker is away, and a broker that may take a
    /// minute for each step of a handshake: where others want the machine too, a node takes longer than half a minute to
    /// start, and longer than ten seconds to let a crowd in.
    pub fn start_patient(rabbit: &Rabbit, workers: usize) -> Warren {
        let (folder, port, http_port) = (folder(), ports::free(), ports::free());
        let file = folder.path().join("warren.toml");
        let broker = rabbit.port();
        let text = format!(
            "[proxy]\nworkers = {workers}\nwait_limit = \"300s\"\nhandshake_timeout = \"60s\"\n\
             [control]\nhttp = \"127.0.0.1:{http_port}\"\n\
             [[listener]]\naddress = \"127.0.0.1:{port}\"\n\
             [[backend]]\nname = \"node\"\nhost = \"127.0.0.1\"\nport = {broker}\n\
             [[farm]]\nname = \"main\"\nbackends = [\"node\"]\n\
             [[route]]\nfarm = \"main\"\n"
        );
        std::fs::write(&file, text).expect("an own folder");
        let mut command = Command::new(binary());
        command.arg("-c").arg(file);
        Warren::begin(command, folder, port, http_port)
    }

    fn start_program(mut command: Command, upstream: &str, arguments: &[&str]) -> Warren {
        let (port, http_port) = (ports::free(), ports::free());
        command.args(["-l", "127.0.0.1", "-p", &port.to_string(), "-b", &http_port.to_string()]);
        if !arguments.contains(&"--workers") {
            command.args(["--workers", "1"]);
        }
        command.args(arguments).arg(upstream);
        Warren::begin(command, folder(), port, http_port)
    }

    fn begin(mut command: Command, folder: tempfile::TempDir, port: u16, http_port: u16) -> Warren {
        let log = File::create(folder.path().join("log")).expect("an own folder");
        command.stdin(Stdio::null());
        command.stdout(log.try_clone().expect("a descriptor")).stderr(log);
        let process = command.spawn().unwrap_or_else(|e| panic!("starting {}: {e}", binary().display()));
        let reaper = Some(Reaper::of(process.id()));
        let mut warren = Warren { process, reaper, port, http_port, listeners: Vec::new(), folder };
        warren.wait_ready();
        warren
    }

    /// Runs one that is expected to end by itself, and gives what it wrote.
    pub fn output(arguments: &[&str], variables: &[(&str, &str)]) -> std::process::Output {
        let mut command = Command::new("timeout");
        command.arg("60").arg(binary()).args(arguments).envs(variables.iter().copied()).stdin(Stdio::null());
        command.output().unwrap_or_else(|e| panic!("starting {}: {e}", binary().display()))
    }

    /// Whether its process has ended.
    pub fn has_ended(&mut self) -> bool {
        self.process.try_wait().expect("our own process").is_some()
    }

    /// Port for AMQP on the loopback address.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Address for AMQP.
    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// The address of a listener, by its number in the order of the file.
    pub fn listener(&self, number: usize) -> SocketAddr {
        self.listeners[number]
    }

    /// Port for `/metrics`, `/healthz` and `/readyz`.
    pub fn http_port(&self) -> u16 {
        self.http_port
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Status and body of an HTTP GET.
    pub fn http_get(&self, path: &str) -> std::io::Result<(u16, String)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.http_port))?;
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: warren\r\nConnection: close\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).and_then(|s| s.parse().ok()).unwrap_or(0);
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body).to_owned();
        Ok((status, body))
    }

    /// A metric, summed over its labels. One that is not there is an error: a misspelt name would be 0 for ever.
    pub fn metric(&self, name: &str) -> f64 {
        self.metric_with(name, &[])
    }

    /// A metric, summed over the lines that carry all of these labels (`("reason", "client")`).
    pub fn metric_with(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let (status, text) = self.http_get("/metrics").expect("Warren answers /metrics");
        assert_eq!(status, 200, "/metrics: {text}");
        let named: Vec<&str> = text.lines().filter(|l| metric_name(l) == name).collect();
        assert!(!named.is_empty(), "no metric {name} in:\n{text}");
        let wanted = |line: &&&str| labels.iter().all(|(k, v)| line.contains(&format!("{k}=\"{v}\"")));
        let value = |line: &&str| -> f64 {
            let number = line.rsplit(' ').next().and_then(|n| n.parse().ok());
            number.unwrap_or_else(|| panic!("not a sample of a metric: {line:?}"))
        };
        named.iter().filter(wanted).map(value).sum()
    }

    /// Octets of memory that the system has given to it.
    pub fn resident(&self) -> u64 {
        let statm = std::fs::read_to_string(format!("/proc/{}/statm", self.pid())).expect("it runs");
        let pages: u64 = statm.split(' ').nth(1).and_then(|n| n.parse().ok()).expect("resident pages");
        pages * rustix::param::page_size() as u64
    }

    /// Descriptors that it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs").count()
    }

    /// What it has written so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    /// Sends SIGTERM: the beginning of a graceful stop.
    pub fn terminate(&self) {
        self.signal(Signal::TERM);
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process id"), signal)
            .expect("a process that we started and did not wait for");
    }

    /// Waits for the end of the process and gives its status.
    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + STOP_WITHIN;
        loop {
            if let Some(status) = self.process.try_wait().expect("our own process") {
                self.reaper = None;
                return status;
            }
            assert!(Instant::now() < deadline, "Warren did not end within {STOP_WITHIN:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// SIGTERM, and the end of the process, which must be a success.
    pub fn stop(mut self) {
        self.terminate();
        let status = self.wait();
        assert!(status.success(), "Warren ended with {status}");
    }

    /// What the log says of the ports that the system chose.
    fn find_ports(&mut self) {
        let log = self.log();
        let said = log
            .split_once("listening for clients on ")
            .and_then(|(_, rest)| rest.split_once(", for HTTP on "));
        let Some((clients, rest)) = said else { return };
        self.listeners = clients.split(" and ").filter_map(|address| address.parse().ok()).collect();
        let http = rest.split([';', ' ']).next().and_then(|address| address.parse::<SocketAddr>().ok());
        if self.port == 0 {
            self.port = self.listeners.first().map_or(0, SocketAddr::port);
            self.http_port = http.map_or(0, |address| address.port());
        }
    }

    fn wait_ready(&mut self) {
        let deadline = Instant::now() + READY_WITHIN;
        loop {
            self.find_ports();
            let answered = self.http_get("/healthz").is_ok_and(|(status, _)| status != 0);
            if answered && self.port != 0 && TcpStream::connect(self.address()).is_ok() {
                return;
            }
            if let Some(status) = self.process.try_wait().expect("our own process") {
                self.reaper = None;
                panic!("Warren ended at once, with {status}");
            }
            assert!(Instant::now() < deadline, "Warren did not open its ports within {READY_WITHIN:?}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Warren {
    fn drop(&mut self) {
        if self.reaper.is_some() {
            let _ = self.process.kill();
            let _ = self.process.wait();
            self.reaper = None;
        }
        if std::thread::panicking() {
            eprintln!("--- Warren wrote:\n{}", self.log());
        }
    }
}

fn folder() -> tempfile::TempDir {
    tempfile::Builder::new().prefix("warren-proxy-").tempdir().expect("a temporary folder")
}

fn metric_name(line: &str) -> &str {
    line.split(['{', ' ']).next().unwrap_or_default()
}

/// The binary under test: `WARREN_BIN`, or what cargo builds now from this source, with the profile of the tests.
///
/// Cargo gives the path of a binary only to the tests of its own package; so we ask it to build, which takes a
/// moment when nothing has changed, and look where it puts it.
pub fn binary() -> &'static PathBuf {
    static BINARY: OnceLock<PathBuf> = OnceLock::new();
    BINARY.get_or_init(|| {
        if let Some(path) = std::env::var_os("WARREN_BIN") {
            return PathBuf::from(path);
        }
        // TARGET/debug/deps/this-test
        let test = std::env::current_exe().expect("a test is a program");
        let profile_folder = test.ancestors().nth(2).expect("cargo's layout").to_path_buf();
        let target = profile_folder.parent().expect("cargo's layout");
        let profile = profile_folder.file_name().and_then(|n| n.to_str()).unwrap_or("debug");
        let profile = if profile == "debug" { "test" } else { profile };
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let mut build = Command::new(cargo);
        build.current_dir(project_folder()).args([
            "build",
            "--quiet",
            "--package",
            "warren",
            "--bin",
            "warren",
        ]);
        build.args(["--profile", profile, "--target-dir"]).arg(target);
        let built = build.output().expect("cargo starts");
        assert!(built.status.success(), "building Warren:\n{}", String::from_utf8_lossy(&built.stderr));
        profile_folder.join("warren")
    })
}
