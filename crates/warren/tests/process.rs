//! The program as an operator meets it: options, ports, HTTP, signals. No broker is needed here.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Nothing listens there: the port is reserved.
const NO_BROKER: &str = "amqp://127.0.0.1:1";

fn warren(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warren"));
    command.args(arguments.split_whitespace()).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn refused(arguments: &str) -> Output {
    warren(arguments).output().expect("the program runs")
}

/// A running Warren, killed at the end of the test if it is still there.
struct Running {
    child: Child,
    clients: Vec<String>,
    http: Vec<String>,
    log: BufReader<std::process::ChildStderr>,
}

impl Running {
    fn start(arguments: &str) -> Running {
        let mut child = warren(arguments).stderr(Stdio::piped()).spawn().expect("the program runs");
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        while !line.contains("listening for clients on ") {
            line.clear();
            assert!(log.read_line(&mut line).expect("readable") > 0, "no line says where it listens");
        }
        let addresses = |after: &str| -> Vec<String> {
            let rest = line.split_once(after).expect(after).1;
            let list = rest.split([',', ';']).next().expect("a list");
            list.split(" and ").map(|address| address.trim().to_owned()).collect()
        };
        let (clients, http) = (addresses("for clients on "), addresses("for HTTP on "));
        Running { child, clients, http, log }
    }

    fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.http[0]).expect("HTTP is served");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: warren\r\nConnection: close\r\n\r\n").expect("writable");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("readable");
        answer
    }

    fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it runs");
    }

    fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(20);
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return status;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("it does not end");
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn bad_settings_end_with_status_2_and_one_line() {
    for (arguments, named) in [
        ("", "broker"),
        ("-p 99999 amqp://h", "--port"),
        ("-b -5 amqp://h", "--http-port"),
        ("-t never amqp://h", "--idle-connection-timeout"),
        ("--workers 0 amqp://h", "--workers"),
        ("--auth-ttl x amqp://h", "--auth-ttl"),
        ("amqp://user:secret@h", "broker"),
        ("--unknown amqp://h", "--unknown"),
        ("amqp://h amqp://i", "amqp://i"),
    ] {
        let output = refused(arguments);
        let text = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{arguments}: {text}");
        assert!(text.starts_with("warren: ") && text.contains(named), "{arguments}: {text}");
        assert_eq!(text.lines().count(), 1, "{arguments}: {text}");
        assert!(!text.contains("secret"), "{text}");
    }
}

#[test]
fn help_is_not_an_error() {
    let output = refused("--help");
    assert!(output.status.success());
    assert!(String::from_utf8(output.stdout).expect("text").contains("--auth-ttl"));
}

#[test]
fn a_port_in_use_ends_it_with_status_1() {
    let running = Running::start(&format!("-l 127.0.0.1 -p 0 -b 0 {NO_BROKER}"));
    let port = running.clients[0].rsplit_once(':').expect("address").1;
    let output = refused(&format!("-l 127.0.0.1 -p {port} -b 0 {NO_BROKER}"));
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8(output.stderr).expect("text").contains(&format!("127.0.0.1:{port}")));
}

#[test]
fn ports_open_without_a_broker() {
    let running = Running::start(&format!("-p 0 -b 0 --workers 2 {NO_BROKER}"));
    for address in running.clients.iter().chain(&running.http) {
        TcpStream::connect(address).expect(address);
    }
}

#[test]
fn health_and_metrics_are_served() {
    let running = Running::start(&format!("-l 127.0.0.1 -p 0 -b 0 --workers 2 {NO_BROKER}"));
    let health = running.get("/healthz");
    assert!(health.starts_with("HTTP/1.1 200") && health.contains("\r\n\r\nok"), "{health}");
    let metrics = running.get("/metrics");
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    assert!(metrics.contains("content-type: application/openmetrics-text"), "{metrics}");
    assert!(metrics.contains("\nwarren_client_connections 0\n"), "{metrics}");
    assert!(metrics.contains("\nwarren_published_messages_total 0\n"), "{metrics}");
    assert!(running.get("/nothing").starts_with("HTTP/1.1 404"));
}

#[test]
fn term_and_int_end_it_in_order() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut running = Running::start(&format!("-l 127.0.0.1 -p 0 -b 0 --workers 3 {NO_BROKER}"));
        running.signal(signal);
        assert_eq!(running.wait().code(), Some(0));
        TcpStream::connect(&running.clients[0]).expect_err("nobody listens any more");
        let mut log = String::new();
        running.log.read_to_string(&mut log).expect("readable");
        assert!(log.contains("everything is closed"), "{log}");
    }
}
