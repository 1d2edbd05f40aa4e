//! `warren demo` as a person meets it: what it prints, how it ends, what can be done while it is kept running.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};
use warren_testkit::Peer;

/// What the demo promises.
const AT_MOST: Duration = Duration::from_secs(60);

fn demo(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_warren"));
    command.arg("demo").args(arguments).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

fn text(octets: &[u8]) -> &str {
    std::str::from_utf8(octets).expect("text")
}

/// What the table says in a row, for both ways, without units.
fn row(table: &str, name: &str) -> [String; 2] {
    let found = table.lines().find_map(|line| line.trim_start().strip_prefix(name));
    let rest = found.unwrap_or_else(|| panic!("no row {name:?} in:\n{table}")).replace(" ms", "");
    let words: Vec<String> = rest.split_whitespace().map(str::to_owned).collect();
    words.try_into().unwrap_or_else(|words| panic!("{name}: two columns, not {words:?}"))
}

fn counts(table: &str, name: &str) -> [u64; 2] {
    row(table, name).map(|word| word.replace(',', "").parse().unwrap_or_else(|_| panic!("{name}: {word:?}")))
}

/// Everything that must be so in any table.
fn check(table: &str) {
    for line in table.lines() {
        assert!(line.len() <= 78 && line.chars().all(|c| !c.is_control()), "{line:?}");
    }
    let [without, with] = counts(table, "clients served");
    assert!(without >= 100 && with >= 100, "{without} and {with} clients:\n{table}");
    assert_eq!(counts(table, "messages that arrived in the queue"), [without, with], "{table}");
    assert_eq!(counts(table, "messages lost"), [0, 0], "{table}");
    let [direct, shared] = counts(table, "connections opened at the broker");
    assert_eq!(direct, without, "each client has its own connection:\n{table}");
    assert!((1..=8).contains(&shared), "{shared} connections:\n{table}");
    let [direct, shared] = counts(table, "channels opened at the broker");
    assert_eq!(direct, without, "each client has its own channel:\n{table}");
    // There are never more clients at a time than there are twenties; some channels may have had to be replaced.
    assert!((1..=60).contains(&shared), "{shared} channels:\n{table}");
    let [direct, shared] = row(table, "time per client (median)")
        .map(|time| -> f64 { time.parse().unwrap_or_else(|_| panic!("{time:?} is not a time")) });
    // At least six round trips of four milliseconds on one side, at least one on the other.
    assert!(direct >= 24.0 && shared >= 4.0, "the round trip is missing:\n{table}");
    assert!(shared < direct, "{table}");
    assert!(counts(table, "clients per second").iter().all(|n| *n > 0), "{table}");
    assert!(table.contains("simulated") && table.contains("demonstration only"), "{table}");
}

#[test]
fn the_numbers_add_up() {
    let start = Instant::now();
    let Output { status, stdout, stderr } = demo(&[]).output().expect("the program runs");
    assert!(status.success(), "{status}: {}", text(&stderr));
    assert!(start.elapsed() < AT_MOST, "{:?}", start.elapsed());
    check(text(&stdout));
    assert_eq!(text(&stderr), "", "nobody looks there");
}

#[test]
fn a_terminal_shows_progress_and_standard_output_does_not() {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).expect("a pseudoterminal");
    unlockpt(&terminal).expect("ours");
    let name = ptsname(&terminal, Vec::new()).expect("it has a name").into_string().expect("text");
    let other_end = File::options().read(true).write(true).open(name).expect("unlocked");
    let mut command = demo(&[]);
    command.stdout(Stdio::piped()).stderr(other_end);
    let child = command.spawn().expect("the program runs");
    drop(command); // and with it our copy of the terminal's other end, so that reading ends
    let mut terminal = File::from(terminal);
    let reader = std::thread::spawn(move || {
        let (mut seen, mut part) = (Vec::new(), [0; 4096]);
        // The end is an error here.
        while let Ok(n @ 1..) = terminal.read(&mut part) {
            seen.extend_from_slice(&part[..n]);
        }
        seen
    });
    let Output { status, stdout, .. } = child.wait_with_output().expect("our child");
    let seen = reader.join().expect("no panic");
    let seen = text(&seen);
    assert!(status.success(), "{status}: {seen}");
    check(text(&stdout));
    for expected in ["starting", "without Warren [", "with Warren    [", " of 2,000 clients"] {
        assert!(seen.contains(expected), "{expected:?} is not in {seen:?}");
    }
    assert!(!seen.contains('\n'), "it is one line: {seen:?}");
    assert!(seen.ends_with("\r\x1b[K"), "the line is cleared: {seen:?}");
}

/// A demo that is kept running; killed at the end of the test if it is still there.
struct Kept {
    child: Child,
    out: BufReader<std::process::ChildStdout>,
    table: String,
    /// The lines that say where to connect, as name and address.
    addresses: Vec<(String, String)>,
}

impl Kept {
    fn start() -> Kept {
        let mut child = demo(&["--keep"]).stdout(Stdio::piped()).spawn().expect("the program runs");
        let mut out = BufReader::new(child.stdout.take().expect("piped"));
        let (mut table, mut addresses) = (String::new(), Vec::new());
        while addresses.len() < 4 {
            let mut line = String::new();
            assert!(out.read_line(&mut line).expect("text") > 0, "it has ended:\n{table}");
            match line.split_once("://") {
                Some(_) => {
                    let (name, address) = line.trim().rsplit_once(' ').expect("name and address");
                    addresses.push((name.trim().to_owned(), address.to_owned()));
                }
                None => table += &line,
            }
        }
        Kept { child, out, table, addresses }
    }

    fn url(&self, name: &str) -> &str {
        let found = self.addresses.iter().find(|(n, _)| n.starts_with(name));
        &found.unwrap_or_else(|| panic!("no {name} in {:?}", self.addresses)).1
    }

    fn amqp(&self, name: &str) -> SocketAddr {
        let url = self.url(name).strip_prefix("amqp://guest:guest@").expect("credentials");
        url.strip_suffix('/').expect("the virtual host").parse().expect("an address")
    }

    fn http(&self) -> String {
        let (address, path) =
            self.url("metrics").strip_prefix("http://").and_then(|u| u.split_once('/')).expect("a URL");
        let mut stream = TcpStream::connect(address).expect("HTTP is served");
        let request = format!("GET /{path} HTTP/1.1\r\nHost: warren\r\nConnection: close\r\n\r\n");
        std::io::Write::write_all(&mut stream, request.as_bytes()).expect("writable");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("readable");
        answer
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("it runs");
    }

    fn wait(&mut self) -> ExitStatus {
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

impl Drop for Kept {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn kept_running_it_serves_clients() {
    let mut kept = Kept::start();
    check(kept.table.split("\nStill running").next().expect("the table"));
    let mut through = Peer::connect(kept.amqp("Warren"));
    through.open_channel(1);
    through.declare(1, "mine");
    through.confirm_select(1);
    through.publish(1, "mine", b"hello");
    through.expect_confirms(1, 1, 1);
    for name in ["broker, as far", "broker, near"] {
        let mut direct = Peer::connect(kept.amqp(name));
        direct.open_channel(1);
        assert_eq!(direct.ready(1, "mine"), 1, "{name}");
        direct.close();
    }
    assert_eq!(through.get(1, "mine", true).expect("the message").text(), "hello");
    assert!(kept.http().contains("\nwarren_client_connections 1\n"), "{}", kept.http());

    kept.signal(Signal::TERM);
    assert_eq!(through.expect_connection_close().code, 320, "clients are told");
    drop(through);
    assert_eq!(kept.wait().code(), Some(0));
    let mut rest = String::new();
    kept.out.read_to_string(&mut rest).expect("text");
    assert_eq!(rest, "", "nothing follows the addresses");
}

#[test]
fn kept_running_it_ends_by_ctrl_c() {
    let mut kept = Kept::start();
    kept.signal(Signal::INT);
    assert_eq!(kept.wait().code(), Some(0));
    TcpStream::connect(kept.amqp("Warren")).expect_err("nobody listens any more");
}

#[test]
fn what_goes_wrong_is_said_in_one_line() {
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n 16; exec \"$0\" demo", env!("CARGO_BIN_EXE_warren")]);
    let output = command.env("RUST_LOG", "error").stdin(Stdio::null()).output().expect("sh runs");
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(1), "{stdout}{stderr}");
    assert_eq!(stdout, "", "there is nothing to report");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(stderr.starts_with("warren demo: ") && stderr.contains("Too many open files"), "{stderr}");
}

#[test]
fn help_and_nonsense() {
    let help = demo(&["--help"]).output().expect("the program runs");
    assert!(help.status.success() && text(&help.stdout).contains("--keep"), "{}", text(&help.stdout));
    let help = Command::new(env!("CARGO_BIN_EXE_warren")).arg("--help").output().expect("the program runs");
    assert!(text(&help.stdout).contains("  demo  "), "{}", text(&help.stdout));
    let refused = demo(&["--fast"]).output().expect("the program runs");
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).starts_with("warren: ") && text(&refused.stderr).contains("--fast"));
}
