//! Every setting, said in each way that there is, by starting the program. What the settings do is tested where a
//! broker is at hand (`warren-testkit`).

mod support;

use std::io::Write;
use std::net::TcpListener;
use std::process::Output;

use support::{NO_BROKER, Running, refused, warren};

/// A setting, a value, and what the log says of it once it is in force.
struct Row {
    option: &'static str,
    variable: &'static str,
    key: (&'static str, &'static str),
    value: &'static str,
    seen: &'static str,
    /// Values that are refused, and words of the line that says so.
    bad: &'static [&'static str],
    allowed: &'static str,
}

const ROWS: [Row; 8] = [
    Row {
        option: "-l",
        variable: "LISTEN_ADDRESS",
        key: ("listen", "address"),
        value: "127.0.0.3",
        seen: "listening for clients on 127.0.0.3:",
        bad: &["127.0.0.1:80", "a/b"],
        allowed: "host name or an IP address",
    },
    Row {
        option: "--idle-connection-timeout",
        variable: "IDLE_CONNECTION_TIMEOUT",
        key: ("main", "idle_connection_timeout"),
        value: "77",
        seen: "idle-connection-timeout: 77 s",
        bad: &["0", "x", "86401", "1.5"],
        allowed: "1 to 86400",
    },
    Row {
        option: "--max-upstream-channels",
        variable: "MAX_UPSTREAM_CHANNELS",
        key: ("main", "max_upstream_channels"),
        value: "12",
        seen: "max-upstream-channels: 12;",
        bad: &["0", "65536", "many"],
        allowed: "1 to 65535",
    },
    Row {
        option: "--term-timeout",
        variable: "TERM_TIMEOUT",
        key: ("main", "term_timeout"),
        value: "13",
        seen: "; term-timeout: 13 s",
        bad: &["-2", "86401", "x"],
        allowed: "0 to 86400, or -1",
    },
    Row {
        option: "--term-client-close-timeout",
        variable: "TERM_CLIENT_CLOSE_TIMEOUT",
        key: ("main", "term_client_close_timeout"),
        value: "14",
        seen: "term-client-close-timeout: 14 s",
        bad: &["-1", "x"],
        allowed: "0 to 86400",
    },
    Row {
        option: "--auth-ttl",
        variable: "WARREN_AUTH_TTL",
        key: ("main", "auth_ttl"),
        value: "15",
        seen: "auth-ttl: 15 s",
        bad: &["-1", "86401"],
        allowed: "0 to 86400",
    },
    Row {
        option: "--memory",
        variable: "WARREN_MEMORY",
        key: ("main", "memory"),
        value: "96MiB",
        seen: "memory: 96 MiB;",
        bad: &["-1", "1MiB", "many", "17TiB"],
        allowed: "32 MiB to 16 TiB, such as 256MiB or 1GB",
    },
    Row {
        option: "--workers",
        variable: "WARREN_WORKERS",
        key: ("main", "workers"),
        value: "3",
        seen: "3 worker(s)",
        bad: &["0", "257"],
        allowed: "1 to 256",
    },
];

const ANYWHERE: &str = "-p 0 -b 0 amqp://127.0.0.1:1";

fn ini(section: &str, key: &str, value: &str) -> tempfile::NamedTempFile {
    ini_of(&format!("[{section}]\n{key} = {value}\n"))
}

fn ini_of(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".ini").tempfile().expect("a temporary file");
    write!(file, "{text}").expect("an own file");
    file
}

/// The first two lines of the log: where it listens, and what is in force.
fn in_force(mut running: Running) -> String {
    let settings = running.line();
    running.listening.clone() + &settings
}

fn is_refused(output: &Output, place: &str, allowed: &str) {
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.starts_with(&format!("warren: {place}")) && text.contains(allowed), "{place}: {text}");
    assert_eq!(text.lines().count(), 1, "{text}");
}

#[test]
fn every_setting_can_be_said_in_each_way_and_is_in_force() {
    for row in &ROWS {
        let arguments = Running::start(&format!("{} {} {ANYWHERE}", row.option, row.value));
        let variable = Running::of(warren(ANYWHERE).env(row.variable, row.value));
        let file = ini(row.key.0, row.key.1, row.value);
        let config = Running::of(warren(ANYWHERE).arg("-c").arg(file.path()));
        for seen in [in_force(arguments), in_force(variable), in_force(config)] {
            assert!(seen.contains(row.seen), "{} in {seen}", row.seen);
        }
    }
}

#[test]
fn every_bad_value_is_refused_with_the_setting_its_source_and_what_is_allowed() {
    for row in &ROWS {
        for bad in row.bad {
            let long = if row.option == "-l" { "--listen" } else { row.option };
            let output = refused(&format!("{} {bad} {ANYWHERE}", row.option));
            is_refused(&output, &format!("{long} (command line): "), row.allowed);
            let output = warren(ANYWHERE).env(row.variable, bad).output().expect("it runs");
            is_refused(&output, &format!("{} (environment): ", row.variable), row.allowed);
            let file = ini(row.key.0, row.key.1, bad);
            let output = warren(ANYWHERE).arg("-c").arg(file.path()).output().expect("it runs");
            is_refused(&output, &format!("[{}] {} (file ", row.key.0, row.key.1), row.allowed);
        }
    }
}

#[test]
fn arguments_beat_the_environment_which_beats_the_file() {
    let is_number = |row: &&Row| row.value.parse::<u32>().is_ok();
    for row in ROWS.iter().filter(|row| row.key.0 == "main").filter(is_number) {
        let file = ini(row.key.0, row.key.1, "2");
        let both = || {
            let mut command = warren(ANYWHERE);
            command.arg("-c").arg(file.path()).env(row.variable, row.value);
            command
        };
        assert!(in_force(Running::of(&mut both())).contains(row.seen), "{}", row.variable);
        let mut all = both();
        all.args([row.option, "4"]).env(row.variable, "5");
        let wanted = row.seen.replace(row.value, "4");
        let seen = in_force(Running::of(&mut all));
        assert!(seen.contains(&wanted), "{wanted} in {seen}");
    }
}

#[test]
fn ports_are_taken_from_each_source() {
    let free = || TcpListener::bind("127.0.0.1:0").expect("loopback").local_addr().expect("bound").port();
    let (port, http) = (free(), free());
    let file = ini_of(&format!("[listen]\nport = {port}\nbind = 127.0.0.1\n[main]\nhttp_port = {http}\n"));
    let arguments = Running::start(&format!("-l 127.0.0.1 -p {port} -b {http} {NO_BROKER}"));
    assert!(arguments.get("/readyz").starts_with("HTTP/1.1 200"));
    let expected = (format!("127.0.0.1:{port}"), format!("127.0.0.1:{http}"));
    let seen = |running: Running| (running.clients[0].clone(), running.http[0].clone());
    assert_eq!(seen(arguments), expected);
    let mut variables = warren(NO_BROKER);
    variables.env("LISTEN_ADDRESS", "127.0.0.1").env("LISTEN_PORT", port.to_string());
    assert_eq!(seen(Running::of(variables.env("HTTP_PORT", http.to_string()))), expected);
    assert_eq!(seen(Running::of(warren(NO_BROKER).arg("-c").arg(file.path()))), expected);
    for (option, variable, place) in [("-p", "LISTEN_PORT", "--port"), ("-b", "HTTP_PORT", "--http-port")] {
        is_refused(&refused(&format!("{option} 65536 {NO_BROKER}")), place, "0 to 65535");
        is_refused(&warren(NO_BROKER).env(variable, "x").output().expect("it runs"), variable, "0 to 65535");
    }
}

#[test]
fn the_upstream_is_taken_from_each_source() {
    let upstream = "the broker is amqp://[::1]:9;";
    let listen = "-p 0 -b 0";
    let file = ini_of("upstream = amqp://[::1]:9\n");
    let runs = [
        Running::start(&format!("{listen} amqp://[::1]:9")),
        Running::of(warren(listen).env("AMQP_URL", "amqp://[::1]:9")),
        Running::of(warren(listen).arg("-c").arg(file.path())),
        // amqproxy lets the environment win here.
        Running::of(warren(&format!("{listen} amqp://[::1]:9")).env("AMQP_URL", "amqp://elsewhere")),
        Running::of(
            warren(listen)
                .env("AMQP_URL", "amqp://[::1]:9")
                .arg("-c")
                .arg(ini("main", "upstream", "amqp://file").path()),
        ),
    ];
    for running in runs {
        assert!(running.listening.contains(upstream), "{}", running.listening);
    }
    for bad in ["rabbit", "http://rabbit", "amqp://user:secret@rabbit", "amqp://rabbit/vhost", "amqp://::1"] {
        is_refused(&refused(bad), "UPSTREAM (command line): ", "amqp://HOST[:PORT]");
        let output = warren("").env("AMQP_URL", bad).output().expect("it runs");
        is_refused(&output, "AMQP_URL (environment): ", "amqp://HOST[:PORT]");
        assert!(!String::from_utf8_lossy(&output.stderr).contains("secret"));
    }
}

#[test]
fn without_an_upstream_the_usage_is_shown() {
    let output = refused("");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2));
    assert!(text.starts_with("warren: UPSTREAM: ") && text.contains("Usage: warren"), "{text}");
    assert!(output.stdout.is_empty());
}

#[test]
fn log_levels_choose_what_is_logged() {
    let of = |command: &mut std::process::Command| {
        let free = TcpListener::bind("127.0.0.1:0").expect("loopback").local_addr().expect("bound").port();
        // A port that is taken ends it with an error, after what it logs at the beginning.
        let _taken = TcpListener::bind(("127.0.0.1", free)).expect("loopback");
        command.args(["-l", "127.0.0.1", "-b", "0", "-p", &free.to_string(), NO_BROKER]);
        String::from_utf8(command.output().expect("it runs").stderr).expect("text")
    };
    let (debug, error) = ("setup: Setup", "cannot listen on");
    let at = |level: &str| of(warren("").env("LOG_LEVEL", level));
    for (log, has_debug, has_error) in [
        (of(&mut warren("-d")), true, true),
        (of(&mut warren("--debug")), true, true),
        (at("debug"), true, true),
        (at("Trace"), true, true),
        (at("info"), false, true),
        (at("notice"), false, true),
        (at("fatal"), false, true),
        (at("none"), false, false),
        (of(warren("-d").env("LOG_LEVEL", "none")), true, true),
        (of(warren("").arg("-c").arg(ini("main", "log_level", "debug").path())), true, true),
        (of(warren("").arg("-c").arg(ini("listen", "log_level", "none").path())), false, false),
        (
            of(warren("").env("LOG_LEVEL", "debug").arg("-c").arg(ini("main", "log_level", "none").path())),
            true,
            true,
        ),
    ] {
        assert_eq!((log.contains(debug), log.contains(error)), (has_debug, has_error), "{log}");
    }
    is_refused(
        &warren(NO_BROKER).env("LOG_LEVEL", "loud").output().expect("it runs"),
        "LOG_LEVEL (environment): ",
        "notice",
    );
}

#[test]
fn files_that_are_not_understood_are_refused() {
    for (text, place, hint) in [
        ("[main]\nidle = 3\n", "[main] idle (file ", "unknown setting"),
        ("[proxy]\nport = 3\n", "[proxy] port (file ", "[main] and [listen]"),
        ("[listen]\naddress = a\nbind = b\n", "[listen] bind (file ", "contradicts"),
    ] {
        let file = ini_of(text);
        is_refused(&warren(NO_BROKER).arg("-c").arg(file.path()).output().expect("it runs"), place, hint);
    }
    is_refused(
        &refused(&format!("-c /no/such.ini {NO_BROKER}")),
        "--config (command line): ",
        "/no/such.ini",
    );
}

#[test]
fn what_contradicts_or_is_unknown_on_the_command_line_is_refused() {
    for (arguments, hint) in [
        ("--unknown", "--unknown"),
        ("-p 1 -p 2", "--port"),
        ("amqp://other", "more than one UPSTREAM"),
        ("-p", "--port"),
    ] {
        is_refused(&refused(&format!("{NO_BROKER} {arguments}")), "arguments (command line): ", hint);
    }
    is_refused(&refused(&format!("--upstream-ca x {NO_BROKER}")), "--upstream-ca", "amqps://");
    is_refused(&refused("--upstream-ca /no/such.pem amqps://h"), "--upstream-ca", "/no/such.pem");
    let empty = ini_of("nothing that is a certificate");
    let command = format!("--upstream-ca {} amqps://h", empty.path().display());
    is_refused(&refused(&command), "--upstream-ca", "BEGIN CERTIFICATE");
}

#[test]
fn help_and_version_are_answered() {
    for option in ["-h", "--help"] {
        let output = refused(option);
        assert!(output.status.success());
        let text = String::from_utf8(output.stdout).expect("text");
        for name in [
            "--listen",
            "--port",
            "--http-port",
            "--idle-connection-timeout",
            "--max-upstream-channels",
            "--term-timeout",
            "--term-client-close-timeout",
            "--debug",
            "--version",
            "--upstream-ca",
            "--memory",
            "UPSTREAM",
        ] {
            assert!(text.contains(name), "{name} in {text}");
        }
    }
    for option in ["-v", "--version"] {
        let output = refused(option);
        let text = String::from_utf8(output.stdout).expect("text");
        assert_eq!(text.trim(), concat!("warren ", env!("CARGO_PKG_VERSION")));
        assert!(output.status.success());
    }
}
