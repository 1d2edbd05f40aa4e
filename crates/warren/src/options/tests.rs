use super::*;

/// Reads a command line, with variables and a file that is named by `-c FILE` in the line.
struct Said {
    variables: Vec<(&'static str, &'static str)>,
    file: Option<tempfile::NamedTempFile>,
}

fn said() -> Said {
    Said { variables: Vec::new(), file: None }
}

impl Said {
    fn variables(mut self, variables: &[(&'static str, &'static str)]) -> Said {
        self.variables = variables.to_vec();
        self
    }

    fn file(mut self, text: &str) -> Said {
        let file = tempfile::NamedTempFile::new().expect("a temporary file");
        std::fs::write(file.path(), text).expect("an own file");
        self.file = Some(file);
        self
    }

    fn read(&self, line: &str) -> Result<Settings, Refusal> {
        let mut words: Vec<OsString> = vec!["warren".into()];
        if let Some(file) = &self.file {
            words.extend(["-c".into(), file.path().into()]);
        }
        words.extend(line.split_whitespace().map(OsString::from));
        let variable =
            |name: &str| self.variables.iter().find(|(n, _)| *n == name).map(|(_, v)| OsString::from(v));
        match read(words.into_iter(), &variable)? {
            Wanted::Serve(settings) => Ok(settings),
            other => panic!("{line}: {other:?}"),
        }
    }

    fn refused(&self, line: &str) -> String {
        match self.read(line) {
            Err(Refusal::Setting(invalid)) => invalid.to_string(),
            other => panic!("{line}: {other:?}"),
        }
    }
}

fn parse(line: &str) -> Result<Settings, Refusal> {
    said().read(line)
}

fn everything() -> Settings {
    Settings {
        listen: "0.0.0.0".into(),
        port: 5000,
        http_port: 6000,
        idle: Duration::from_secs(30),
        upstream_channels: 100,
        term_timeout: Some(Duration::from_secs(7)),
        term_client_close_timeout: Duration::from_secs(8),
        log: Some(LevelFilter::DEBUG),
        workers: 3,
        auth_ttl: Duration::ZERO,
        memory: 64 << 20,
        upstream: Upstream { host: "10.0.0.1".into(), port: 1234, tls: true },
        upstream_ca: Some("ca.pem".into()),
    }
}

#[test]
fn only_the_broker_is_needed() {
    let settings = parse("amqp://rabbit").expect("valid");
    let expected = Settings {
        listen: "localhost".into(),
        port: 5673,
        http_port: 15673,
        idle: Duration::from_secs(5),
        upstream_channels: 65535,
        term_timeout: None,
        term_client_close_timeout: Duration::ZERO,
        log: None,
        workers: settings.workers,
        auth_ttl: Duration::from_secs(60),
        memory: settings.memory,
        upstream: Upstream { host: "rabbit".into(), port: 5672, tls: false },
        upstream_ca: None,
    };
    assert_eq!(settings, expected);
    assert!((1..=8).contains(&settings.workers));
    assert!((32 << 20..1 << 44).contains(&settings.memory), "{}", settings.memory);
}

#[test]
fn everything_can_be_said_on_the_command_line() {
    let line = "-l 0.0.0.0 -p 5000 -b 6000 -t 30 --max-upstream-channels 100 --term-timeout 7 \
                --term-client-close-timeout 8 -d --workers 3 --auth-ttl 0 --memory 64MiB \
                --upstream-ca ca.pem amqps://10.0.0.1:1234/";
    assert_eq!(parse(line).expect("valid"), everything());
    let long = "--listen 0.0.0.0 --port 5000 --http-port 6000 --idle-connection-timeout 30 \
                --max-upstream-channels=100 --term-timeout=7 --term-client-close-timeout=8 --debug --workers=3 \
                --auth-ttl=0 --memory=67108864 --upstream-ca=ca.pem amqps://10.0.0.1:1234";
    assert_eq!(parse(long).expect("valid"), everything());
    assert_eq!(parse("--term-timeout -1 amqp://h").expect("valid").term_timeout, None);
}

#[test]
fn everything_can_be_said_in_the_environment() {
    let variables = [
        ("LISTEN_ADDRESS", "0.0.0.0"),
        ("LISTEN_PORT", "5000"),
        ("HTTP_PORT", "6000"),
        ("IDLE_CONNECTION_TIMEOUT", "30"),
        ("MAX_UPSTREAM_CHANNELS", "100"),
        ("TERM_TIMEOUT", "7"),
        ("TERM_CLIENT_CLOSE_TIMEOUT", "8"),
        ("LOG_LEVEL", "debug"),
        ("AMQP_URL", "amqps://10.0.0.1:1234"),
        ("WARREN_UPSTREAM_CA", "ca.pem"),
        ("WARREN_WORKERS", "3"),
        ("WARREN_AUTH_TTL", "0"),
        ("WARREN_MEMORY", "64 MiB"),
    ];
    assert_eq!(said().variables(&variables).read("").expect("valid"), everything());
}

const FILE: &str = "
; all of it
# in either kind of comment
[main]
http_port = 6000
idle_connection_timeout = 30
max_upstream_channels = 100
term_timeout = 7
term_client_close_timeout = 8
log_level = Debug
upstream = amqps://10.0.0.1:1234
upstream_ca = ca.pem
workers = 3
auth_ttl = 0
memory = 65536KiB

[listen]
bind = 0.0.0.0
port = 5000
log_level = Debug
";

#[test]
fn everything_can_be_said_in_a_file() {
    assert_eq!(said().file(FILE).read("").expect("valid"), everything());
    let without_section = FILE.replace("[main]\n", "").replace("bind", "address");
    assert_eq!(said().file(&without_section).read("").expect("valid"), everything());
}

#[test]
fn the_command_line_beats_the_environment_which_beats_the_file() {
    let file = said().file("upstream = amqp://file\n[listen]\nport = 1\n");
    let settings = file.read("").expect("valid");
    assert_eq!((settings.upstream.host.as_str(), settings.port), ("file", 1));
    let both = file.variables(&[("AMQP_URL", "amqp://environment"), ("LISTEN_PORT", "2")]);
    let settings = both.read("").expect("valid");
    assert_eq!((settings.upstream.host.as_str(), settings.port), ("environment", 2));
    let settings = both.read("-p 3 amqp://arguments").expect("valid");
    assert_eq!((settings.upstream.host.as_str(), settings.port), ("arguments", 3));
    let settings = both.read("-p 3").expect("valid");
    assert_eq!((settings.upstream.host.as_str(), settings.port), ("environment", 3));
}

#[test]
fn an_overridden_variable_is_not_looked_at_and_an_empty_one_is_none() {
    // Kubernetes sets HTTP_PORT for a service that is called "http".
    let variables = said().variables(&[("HTTP_PORT", "tcp://10.0.0.1:80"), ("LISTEN_PORT", "")]);
    let settings = variables.read("-b 1 amqp://h").expect("valid");
    assert_eq!((settings.http_port, settings.port), (1, 5673));
    assert!(variables.refused("amqp://h").starts_with("HTTP_PORT (environment): "));
}

#[test]
fn a_file_is_read_whole() {
    for (text, place, hint) in [
        ("[main]\nworker = 1", "[main] worker (file ", "workers"),
        ("[listen]\nupstream = amqp://h", "[listen] upstream (file ", "address, bind, port"),
        ("[server]\nport = 1", "[server] port (file ", "[main] and [listen]"),
        ("[listen]\nport = x", "[listen] port (file ", "0 to 65535"),
        ("[listen]\nport = 1\nport = 2", "[listen] port (file ", "contradicts"),
        ("[listen]\naddress = a\nbind = b", "[listen] bind (file ", "contradicts"),
        ("log_level = info\n[listen]\nlog_level = debug", "[listen] log_level (file ", "contradicts"),
        ("nonsense", "/", "line "),
    ] {
        let refused = said().file(text).refused("-p 1 amqp://h");
        assert!(refused.starts_with(place) && refused.contains(hint), "{text}: {refused}");
        assert_eq!(refused.lines().count(), 1, "{refused}");
    }
    let missing = said().refused("-c /no/such/file amqp://h");
    assert!(missing.starts_with("--config (command line): cannot read /no/such/file: "), "{missing}");
}

#[test]
fn levels_have_amqproxys_names() {
    for (name, level) in [
        ("trace", LevelFilter::TRACE),
        ("DEBUG", LevelFilter::DEBUG),
        ("Info", LevelFilter::INFO),
        ("notice", LevelFilter::WARN),
        ("warn", LevelFilter::WARN),
        ("error", LevelFilter::ERROR),
        ("fatal", LevelFilter::ERROR),
        ("none", LevelFilter::OFF),
    ] {
        let settings = said().variables(&[("LOG_LEVEL", name)]).read("amqp://h").expect("valid");
        assert_eq!(settings.log, Some(level), "{name}");
    }
    let settings = said().variables(&[("LOG_LEVEL", "none")]).read("-d amqp://h").expect("valid");
    assert_eq!(settings.log, Some(LevelFilter::DEBUG));
    assert!(said().variables(&[("LOG_LEVEL", "loud")]).refused("amqp://h").contains("notice"));
}

#[test]
fn settings_reach_the_engine() {
    let line = "-t 30 --auth-ttl 7 --memory 100MB --max-upstream-channels 9 amqp://rabbit:1234";
    let config = parse(line).expect("valid").engine_config();
    assert_eq!(config.limits.idle_timeout, Duration::from_secs(30));
    assert_eq!(config.limits.auth_ttl, Duration::from_secs(7));
    assert_eq!(config.limits.upstream_channels, 9);
    assert_eq!(config.limits.memory, 100_000_000);
    assert_eq!((config.backends[0].host.as_str(), config.backends[0].port), ("rabbit", 1234));
}

#[test]
fn addresses_of_brokers() {
    for (text, host, port, shown) in [
        ("amqp://rabbit", "rabbit", 5672, "amqp://rabbit:5672"),
        ("amqps://rabbit", "rabbit", 5671, "amqps://rabbit:5671"),
        ("AMQP://Rabbit.example:1", "Rabbit.example", 1, "amqp://Rabbit.example:1"),
        ("amqp://[::1]", "::1", 5672, "amqp://[::1]:5672"),
        ("amqps://[fe80::1]:65535/", "fe80::1", 65535, "amqps://[fe80::1]:65535"),
    ] {
        let upstream = parse(text).expect(text).upstream;
        assert_eq!((upstream.host.as_str(), upstream.port), (host, port), "{text}");
        assert_eq!(upstream.to_string(), shown);
    }
}

#[test]
fn what_is_wrong_is_named_in_one_line() {
    for (line, setting, hint) in [
        ("-p 65536 amqp://h", "--port", "0 to 65535"),
        ("-p -1 amqp://h", "--port", "0 to 65535"),
        ("-p +1 amqp://h", "--port", "0 to 65535"),
        ("-b x amqp://h", "--http-port", "0 to 65535"),
        ("-t 0 amqp://h", "--idle-connection-timeout", "1 to 86400"),
        ("-t 1.5 amqp://h", "--idle-connection-timeout", "1 to 86400"),
        ("--max-upstream-channels 0 amqp://h", "--max-upstream-channels", "1 to 65535"),
        ("--term-timeout -2 amqp://h", "--term-timeout", "0 to 86400, or -1 for no limit"),
        ("--term-client-close-timeout -1 amqp://h", "--term-client-close-timeout", "0 to 86400"),
        ("--workers 0 amqp://h", "--workers", "1 to 256"),
        ("--auth-ttl 86401 amqp://h", "--auth-ttl", "0 to 86400"),
        ("--memory 31MiB amqp://h", "--memory", "32 MiB to 16 TiB"),
        ("--memory 17TiB amqp://h", "--memory", "32 MiB to 16 TiB"),
        ("--memory 1G amqp://h", "--memory", "256MiB or 1GB"),
        ("-l a/b amqp://h", "--listen", "host name or an IP address"),
        ("-l 127.0.0.1:80 amqp://h", "--listen", "no port"),
        ("rabbit", "UPSTREAM", "amqp://HOST[:PORT]"),
        ("amqp://", "UPSTREAM", "amqp://HOST[:PORT]"),
        ("http://h", "UPSTREAM", "amqp://HOST[:PORT]"),
        ("amqp://h:0", "UPSTREAM", "1 to 65535"),
        ("amqp://h:65536", "UPSTREAM", "1 to 65535"),
        ("amqp://h:", "UPSTREAM", "1 to 65535"),
        ("amqp://::1", "UPSTREAM", "brackets"),
        ("amqp://[::1", "UPSTREAM", "amqp://HOST[:PORT]"),
        ("amqp://h/vhost", "UPSTREAM", "virtual host"),
        ("amqp://user:pw@h", "UPSTREAM", "no user or password"),
        ("--no-such-thing amqp://h", "arguments", "--no-such-thing"),
        ("-p 1 -p 2 amqp://h", "arguments", "--port"),
        ("amqp://h amqp://i", "arguments", "more than one UPSTREAM"),
    ] {
        let text = said().refused(line);
        let place = format!("{setting} (command line): ");
        assert!(text.starts_with(&place) && text.contains(hint), "{line}: {text}");
        assert_eq!(text.lines().count(), 1);
    }
    let text = said().refused("--upstream-ca ca.pem amqp://h");
    assert!(text.starts_with("--upstream-ca: ") && text.contains("amqps://"), "{text}");
}

#[test]
fn a_password_is_not_repeated() {
    for line in ["amqp://user:secret@h", "amqp://user:sec/ret@h", "amqp://h amqp://user:secret@h"] {
        assert!(!said().refused(line).contains("ret"), "{line}");
    }
}

#[test]
fn without_a_broker_or_with_a_question_there_are_no_settings() {
    assert!(matches!(parse(""), Err(Refusal::NoUpstream)));
    assert!(matches!(parse("--help"), Err(Refusal::Asked(_))));
    assert!(matches!(parse("-v"), Err(Refusal::Asked(text)) if text.to_string().starts_with("warren ")));
}
