//! What the tests of the program share.
#![allow(dead_code, unreachable_pub, reason = "each test program uses a part")]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Nothing listens there: the port is reserved.
pub const NO_BROKER: &str = "amqp://127.0.0.1:1";

/// The program, with nothing said but these arguments.
pub fn warren(arguments: &str) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warren"));
    command.env_clear().args(arguments.split_whitespace()).stdin(Stdio::null());
    command
}

/// Runs the program to its end, which must come by itself.
pub fn refused(arguments: &str) -> Output {
    warren(arguments).output().expect("the program runs")
}

/// A running Warren, killed at the end of the test if it is still there.
pub struct Running {
    child: Child,
    /// Addresses for clients.
    pub clients: Vec<String>,
    /// Addresses for HTTP.
    pub http: Vec<String>,
    /// The log behind the line that says where it listens.
    pub log: BufReader<std::process::ChildStderr>,
    /// That line.
    pub listening: String,
}

impl Running {
    pub fn start(arguments: &str) -> Running {
        Running::of(&mut warren(arguments))
    }

    pub fn of(command: &mut Command) -> Running {
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the program runs");
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
        Running { child, clients, http, log, listening: line }
    }

    pub fn get(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.http[0]).expect("HTTP is served");
        write!(stream, "GET {path} HTTP/1.1\r\nHost: warren\r\nConnection: close\r\n\r\n").expect("writable");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("readable");
        answer
    }

    /// The next line of the log.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.log.read_line(&mut line).expect("readable");
        line
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).expect("it runs");
    }

    pub fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(60);
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
