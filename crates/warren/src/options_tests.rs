use super::*;

fn parse(line: &str) -> Result<Settings, Refusal> {
    match from_arguments(std::iter::once("warren").chain(line.split_whitespace()).map(OsString::from))? {
        Wanted::Serve(settings) => Ok(settings),
        other => panic!("{line}: {other:?}"),
    }
}

fn refused(line: &str) -> String {
    match parse(line) {
        Err(Refusal::Setting(invalid)) => invalid.to_string(),
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn only_the_broker_is_needed() {
    let settings = parse("amqp://rabbit").expect("valid");
    assert_eq!((settings.listen.as_str(), settings.port, settings.http_port), ("localhost", 5673, 15673));
    assert_eq!((settings.idle, settings.auth_ttl), (Duration::from_secs(5), Duration::from_secs(60)));
    assert_eq!(settings.upstream, Upstream { host: "rabbit".into(), port: 5672 });
    assert!((1..=8).contains(&settings.workers));
}

#[test]
fn everything_can_be_said() {
    let line = "-l 0.0.0.0 -p 5000 -b 0 -t 30 --workers 3 --auth-ttl 0 amqp://10.0.0.1:1234/";
    let expected = Settings {
        listen: "0.0.0.0".into(),
        port: 5000,
        http_port: 0,
        idle: Duration::from_secs(30),
        workers: 3,
        auth_ttl: Duration::ZERO,
        upstream: Upstream { host: "10.0.0.1".into(), port: 1234 },
    };
    assert_eq!(parse(line).expect("valid"), expected);
}

#[test]
fn settings_reach_the_engine() {
    let config = parse("-t 30 --auth-ttl 7 amqp://rabbit:1234").expect("valid").engine_config();
    assert_eq!(config.limits.idle_timeout, Duration::from_secs(30));
    assert_eq!(config.limits.auth_ttl, Duration::from_secs(7));
    assert_eq!((config.backends[0].host.as_str(), config.backends[0].port), ("rabbit", 1234));
}

#[test]
fn addresses_of_brokers() {
    for (text, host, port, shown) in [
        ("amqp://rabbit", "rabbit", 5672, "rabbit:5672"),
        ("AMQP://Rabbit.example:1", "Rabbit.example", 1, "Rabbit.example:1"),
        ("amqp://[::1]", "::1", 5672, "[::1]:5672"),
        ("amqp://[fe80::1]:65535", "fe80::1", 65535, "[fe80::1]:65535"),
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
        ("--workers 0 amqp://h", "--workers", "1 to 256"),
        ("--auth-ttl 86401 amqp://h", "--auth-ttl", "0 to 86400"),
        ("-l a/b amqp://h", "--listen", "host name or an IP address"),
        ("-l 127.0.0.1:80 amqp://h", "--listen", "without a port"),
        ("", "broker", "amqp://HOST[:PORT]"),
        ("rabbit", "broker", "amqp://HOST[:PORT]"),
        ("amqp://", "broker", "amqp://HOST[:PORT]"),
        ("amqps://h", "broker", "TLS"),
        ("http://h", "broker", "amqp://HOST[:PORT]"),
        ("amqp://h:0", "broker", "1 to 65535"),
        ("amqp://h:65536", "broker", "1 to 65535"),
        ("amqp://h:", "broker", "1 to 65535"),
        ("amqp://::1", "broker", "brackets"),
        ("amqp://[::1", "broker", "amqp://HOST[:PORT]"),
        ("amqp://h/vhost", "broker", "virtual host"),
    ] {
        let text = refused(line);
        assert!(text.starts_with(&format!("{setting}: ")) && text.contains(hint), "{line}: {text}");
        assert_eq!(text.lines().count(), 1);
    }
}

#[test]
fn a_password_is_not_repeated() {
    assert!(!refused("amqp://user:secret@h").contains("secret"));
    assert!(!refused("amqp://user:sec/ret@h").contains("ret@"));
}

#[test]
fn unknown_options_are_refused() {
    assert!(matches!(parse("--no-such-thing amqp://h"), Err(Refusal::Arguments(e)) if e.exit_code() == 2));
    assert!(matches!(parse("--help"), Err(Refusal::Arguments(e)) if e.exit_code() == 0));
}
