//! A broker behind TLS (`amqps://`): RabbitMQ's own TLS listener, certificates of an authority that the test makes.

use std::sync::OnceLock;
use std::time::Duration;
use warren_testkit::certificates::Authority;
use warren_testkit::peer::End;
use warren_testkit::rabbit::Options;
use warren_testkit::{Handshake, Peer, Rabbit, Warren, eventually, free_port, unique};
use warren_wire::frame::PROTOCOL_HEADER;

struct Secure {
    rabbit: Rabbit,
    authority: Authority,
    port: u16,
}

/// One node for the tests of this file. Its certificate is for 127.0.0.1 and rabbit.example, not for localhost.
fn secure() -> &'static Secure {
    static NODE: OnceLock<Secure> = OnceLock::new();
    NODE.get_or_init(|| {
        let authority = Authority::new();
        let signed = authority.sign("rabbit", &["127.0.0.1", "rabbit.example"]);
        let port = free_port();
        let configuration = format!(
            "listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
             ssl_options.keyfile = {}\nssl_options.verify = verify_none\n",
            authority.file().display(),
            signed.certificate.display(),
            signed.key.display(),
        );
        let rabbit = Rabbit::start_with(&Options { configuration, ..Options::default() });
        Secure { rabbit, authority, port }
    })
}

impl Secure {
    fn url(&self) -> String {
        format!("amqps://127.0.0.1:{}", self.port)
    }

    fn warren(&self, arguments: &[&str]) -> Warren {
        let ca = self.authority.file();
        let mut all = vec!["--upstream-ca", ca.to_str().expect("a plain path")];
        all.extend(arguments);
        Warren::start_for(&self.url(), &all, &[])
    }
}

/// A client that asks for the broker: it waits there.
fn ask(warren: &Warren) -> Peer {
    let mut peer = Peer::raw(warren.address());
    peer.send_bytes(&PROTOCOL_HEADER);
    peer.read_start().expect("Warren begins");
    peer.send_start_ok(&Handshake::default());
    peer
}

/// Has a client ask for the broker, and waits until the log says why there is none.
fn fails_with(warren: &Warren, why: &[&str]) {
    let _peer = ask(warren);
    eventually("the log says why", Duration::from_secs(60), || {
        warren.log().lines().any(|line| why.iter().all(|w| line.contains(w)))
    });
}

#[test]
fn clients_reach_a_broker_behind_tls() {
    let secure = secure();
    let vhost = unique("tls");
    secure.rabbit.add_vhost(&vhost);
    let warren = secure.warren(&[]);
    let mut publisher = Peer::connect_with(warren.address(), &Handshake::on(&vhost));
    publisher.open_channel(1);
    let queue = publisher.declare(1, "");
    publisher.confirm_select(1);
    // Small ones, many at once, and one that is larger than any buffer on the way.
    for n in 0..2_000_u32 {
        publisher.publish(1, &queue, &n.to_be_bytes());
    }
    publisher.expect_confirms(1, 1, 2_000);
    let large: Vec<u8> = (0..10_u32 << 20).map(|i| (i % 251) as u8).collect();
    publisher.publish(1, &queue, &large);
    publisher.expect_confirms(1, 2_001, 1);

    let mut consumer = Peer::connect_with(warren.address(), &Handshake::on(&vhost));
    consumer.open_channel(1);
    consumer.consume(1, &queue, "", true);
    for n in 0..2_000_u32 {
        assert_eq!(consumer.delivery(1).body, n.to_be_bytes());
    }
    assert!(consumer.delivery(1).body == large, "10 MiB arrive as they were");
    publisher.close();
    consumer.close();
    assert!(!secure.rabbit.connections(&vhost).is_empty());
    warren.stop();
}

#[test]
fn a_slow_reader_behind_tls_gets_everything() {
    let secure = secure();
    let warren = secure.warren(&[]);
    let mut peer = Peer::connect_with(warren.address(), &Handshake::default());
    peer.open_channel(1);
    let queue = peer.declare(1, "");
    let body = vec![7; 1 << 20];
    for _ in 0..24 {
        peer.publish(1, &queue, &body);
    }
    // Nobody reads meanwhile: buffers on the way fill up, and empty again.
    peer.consume(1, &queue, "", true);
    std::thread::sleep(Duration::from_secs(1));
    for _ in 0..24 {
        assert!(peer.delivery(1).body == body);
    }
    peer.close();
    warren.stop();
}

#[test]
fn a_certificate_of_another_authority_is_not_trusted() {
    let stranger = Authority::new();
    let ca = stranger.file();
    let warren = Warren::start_for(&secure().url(), &["--upstream-ca", ca.to_str().expect("a path")], &[]);
    let mut peer = ask(&warren);
    // The broker may be mended meanwhile, so clients wait for it; then they hear what was tried.
    let End::Closed(closed) = peer.expect_end(Duration::from_secs(45)) else {
        panic!("ended without a word")
    };
    assert_eq!(closed.code, 320, "{closed:?}");
    assert!(closed.text.contains("TLS with 127.0.0.1"), "{closed:?}");
    fails_with(&warren, &["invalid peer certificate: UnknownIssuer"]);
}

#[test]
fn a_certificate_for_another_name_is_not_trusted() {
    let secure = secure();
    let url = format!("amqps://localhost:{}", secure.port);
    let ca = secure.authority.file();
    let warren = Warren::start_for(&url, &["--upstream-ca", ca.to_str().expect("a path")], &[]);
    fails_with(&warren, &["localhost", "certificate not valid for name"]);
}

#[test]
fn without_a_file_the_systems_roots_decide() {
    let secure = secure();
    // The variable is how every program on the system is pointed at other roots.
    let ca = secure.authority.file();
    let none = tempfile::tempdir().expect("a temporary folder");
    let none = ("SSL_CERT_DIR", none.path().to_str().expect("a path"));
    let roots = [("SSL_CERT_FILE", ca.to_str().expect("a path")), none];
    let warren = Warren::start_for(&secure.url(), &[], &roots);
    Peer::connect(warren.address()).close();
    warren.stop();
    // A system without roots ends the program with a clear line.
    let output = Warren::output(&[&secure.url()], &[("SSL_CERT_FILE", "/no/such/file"), none]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.starts_with("warren: --upstream-ca: ") && text.contains("ca-certificates"), "{text}");
}

#[test]
fn tls_to_a_port_without_tls_and_plain_to_one_with_tls_fail_clearly() {
    let secure = secure();
    let ca = secure.authority.file();
    let url = format!("amqps://127.0.0.1:{}", secure.rabbit.port());
    let warren = Warren::start_for(&url, &["--upstream-ca", ca.to_str().expect("a path")], &[]);
    fails_with(&warren, &["TLS with 127.0.0.1"]);
    let plain = Warren::start_for(&secure.url().replace("amqps", "amqp"), &[], &[]);
    fails_with(&plain, &["connection to broker lost"]);
}
