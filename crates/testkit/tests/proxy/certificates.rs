//! Certificates: whose is asked for, what stands for a user (EXTERNAL), what is wrong with them, and what happens when they
//! are replaced.

use crate::edge::{NAME, Papers, ROUTE, base, enter, listener, logs, replace, replace_file, try_enter};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};
use warren_testkit::certificates::{Authority, Signed};
use warren_testkit::clients::pika_over_tls;
use warren_testkit::peer::End;
use warren_testkit::rabbit::Options;
use warren_testkit::{Handshake, Peer, Rabbit, Warren, eventually, free_port, rabbit, unique};
use warren_wire::frame::PROTOCOL_HEADER;

#[test]
fn clients_show_a_certificate_where_they_must_and_a_good_one_where_they_may() {
    let papers = Papers::new();
    let stranger = Authority::new();
    let listeners: Vec<String> = ["optional", "required"]
        .iter()
        .map(|auth| listener(auth, &format!("tls = {}", papers.asking(auth))))
        .chain([listener("none", &format!("tls = {}", papers.table("")))])
        .collect();
    let text = base(rabbit::shared().port(), "") + &listeners.concat() + ROUTE;
    let warren = Warren::start_file(&text);
    let good = papers.showing(&papers.authority.sign("client", &["client.example"]));
    let expired = papers.showing(&papers.authority.sign_expired("late", &["late.example"]));
    let strange = papers.showing(&stranger.sign("strange", &["strange.example"]));
    let nothing = papers.client();
    for (number, name) in [(0, "optional"), (1, "required"), (2, "none")] {
        for (what, config) in
            [("good", &good), ("expired", &expired), ("strange", &strange), ("nothing", &nothing)]
        {
            let let_in = matches!((name, what), ("none", _) | (_, "good") | ("optional", "nothing"));
            let outcome = try_enter(&warren, number, config, &Handshake::default());
            let outcome = outcome.map(Peer::close);
            assert_eq!(outcome.is_ok(), let_in, "{name}, {what}: {outcome:?}\n{}", warren.log());
        }
    }
    for why in ["UnknownIssuer", "xpired", "peer sent no certificates"] {
        logs(&warren, &["client refused: TLS handshake failed", why, "127.0.0.1"]);
    }
    warren.stop();
}

/// A listener for certificates, another one without, and identities for two of them.
struct External {
    papers: Papers,
    warren: Warren,
    vhost: String,
    user: String,
    _folder: tempfile::TempDir,
}

impl External {
    fn new() -> External {
        let papers = Papers::new();
        let rabbit = rabbit::shared();
        let (vhost, user) = (unique("external"), unique("billing"));
        rabbit.add_vhost(&vhost);
        rabbit.add_user(&user, "very secret");
        rabbit.set_permissions(&user, &vhost, [".*", ".*", ".*"]);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let (good, bad) = (folder.path().join("good"), folder.path().join("bad"));
        std::fs::write(&good, "very secret\n").expect("an own folder");
        std::fs::write(&bad, "very wrong\n").expect("an own folder");
        let identities = format!(
            "[[identity]]\ncertificate_cn = \"billing-service\"\nuser = {user:?}\npassword_file = {good:?}\n\
             [[identity]]\ncertificate_cn = \"wrong-service\"\nuser = {user:?}\npassword_file = {bad:?}\n"
        );
        let text = base(rabbit.port(), "").replace("\"debug\"", "\"trace\"")
            + &listener("secure", &format!("tls = {}", papers.asking("optional")))
            + &listener("plain", "proxy_protocol = [\"127.0.0.1\"]")
            + ROUTE
            + &identities;
        let warren = Warren::start_file(&text);
        External { papers, warren, vhost, user, _folder: folder }
    }

    fn signed(&self, cn: &str) -> Signed {
        self.papers.authority.sign(cn, &["client.example"])
    }

    fn handshake(&self) -> Handshake {
        Handshake { mechanism: "EXTERNAL".into(), response: Some(Vec::new()), ..Handshake::on(&self.vhost) }
    }

    /// The 403 that a certificate, or none, comes to.
    fn refused(&self, shows: Option<&Signed>, handshake: &Handshake) -> Result<(), End> {
        let config = shows.map_or_else(|| self.papers.client(), |signed| self.papers.showing(signed));
        let mut peer = Peer::try_tls(self.warren.listener(0), &config, NAME, b"").expect("TLS");
        peer.shake_hands(handshake).map_err(|refused| refused.end)
    }
}

#[test]
fn a_certificate_stands_for_a_user() {
    let external = External::new();
    let rabbit = rabbit::shared();
    let signed = external.signed("billing-service");
    let mut peer = enter(&external.warren, &external.papers.showing(&signed), &external.handshake());
    assert_eq!(peer.mechanisms(), "PLAIN AMQPLAIN EXTERNAL");
    peer.open_channel(1);
    peer.declare(1, "");
    let seen = rabbit.connections(&external.vhost);
    assert!(!seen.is_empty() && seen.iter().all(|c| c.user == external.user), "{seen:?}");
    let ca = external.papers.authority.file();
    let secure = external.warren.listener(0);
    assert_eq!(pika_over_tls(secure, &external.vhost, &ca, Some(&signed)), "0123456789");
    // With or without a certificate, others log in as ever.
    enter(&external.warren, &external.papers.showing(&signed), &Handshake::on(&external.vhost)).close();
    enter(&external.warren, &external.papers.client(), &Handshake::on(&external.vhost)).close();
    peer.close();
    assert!(!external.warren.log().contains("very secret"), "{}", external.warren.log());
    external.warren.stop();
    rabbit.delete_vhost(&external.vhost);
}

#[test]
fn a_certificate_without_an_identity_is_refused_by_its_name() {
    let external = External::new();
    let handshake = external.handshake();
    let text = |end: Result<(), End>| match end.expect_err("not let in") {
        End::Closed(closed) => (closed.code, closed.text),
        end => panic!("refused without a close method: {end:?}"),
    };
    let begin = "ACCESS_REFUSED - Login was refused using authentication mechanism ";
    let (code, said) = text(external.refused(Some(&external.signed("other-service")), &handshake));
    assert_eq!(code, 403);
    assert_eq!(said, format!("{begin}EXTERNAL: no identity for the common name 'other-service'"));
    let (code, said) = text(external.refused(None, &handshake));
    assert_eq!(code, 403);
    assert_eq!(said, format!("{begin}EXTERNAL: no peer certificate with a common name"));
    // The broker decides, as for any password.
    let (code, said) = text(external.refused(Some(&external.signed("wrong-service")), &handshake));
    assert_eq!(code, 403);
    assert!(said.starts_with(&format!("{begin}PLAIN.")), "{said}");
    // Where no certificates are asked for, the mechanism does not exist, whatever a header says.
    let mut plain = Peer::raw(external.warren.listener(1));
    plain.send_bytes(b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x26\x7f\0\0\x01\x7f\0\0\x01\0\x01\0\x02");
    plain.send_bytes(b"\x20\0\x17\x07\0\0\0\0\x22\0\x0fbilling-service");
    plain.send_bytes(&PROTOCOL_HEADER);
    plain.read_start().expect("a good header");
    assert_eq!(plain.mechanisms(), "PLAIN AMQPLAIN");
    let refused = plain.go_on(&handshake).expect_err("not let in");
    assert_eq!(refused.closed().code, 503, "{refused:?}");
    external.warren.terminate();
    rabbit::shared().delete_vhost(&external.vhost);
}

#[test]
fn with_a_certificate_replaced_under_load_old_sessions_go_on_and_new_ones_get_the_new_one() {
    let papers = Papers::new();
    let text = base(rabbit::shared().port(), "").replace("workers = 1", "workers = 2");
    let tls = format!("tls = {}", papers.asking("optional"));
    let mut warren = Warren::start_file(&(text + &listener("secure", &tls) + ROUTE));
    let shown = |warren: &Warren| enter(warren, &papers.client(), &Handshake::default()).certificate();
    let first = shown(&warren).expect("a certificate");
    let (stop, published) = (AtomicBool::new(false), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            let mut peer = enter(&warren, &papers.client(), &Handshake::default());
            let (stop, published) = (&stop, &published);
            scope.spawn(move || {
                peer.open_channel(1);
                let queue = peer.declare(1, "");
                peer.confirm_select(1);
                for n in 1.. {
                    peer.publish(1, &queue, &[7; 1_000]);
                    peer.expect_confirms(1, n, 1);
                    published.fetch_add(1, Relaxed);
                    if stop.load(Relaxed) {
                        break;
                    }
                }
                assert!(peer.certificate().is_some());
                peer.close();
            });
        }
        let renewed = papers.authority.sign("renewed", &[NAME]);
        let expected = der(&renewed);
        let before = published.load(Relaxed);
        replace(&papers.server, &renewed);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            eventually("new sessions get the new certificate", Duration::from_secs(20), || {
                shown(&warren).is_some_and(|now| now == expected)
            });
            // What is bad leaves the good in force, and is told once.
            replace_file(&papers.server.key, b"no key at all");
            logs(&warren, &["listener secure", "the old ones stay in force", "has no key that can be read"]);
            assert_eq!(shown(&warren).as_ref(), Some(&expected));
            replace(&papers.server, &papers.authority.sign_expired("expired", &[NAME]));
            logs(&warren, &["listener secure", "the old ones stay in force", "expired on"]);
            assert_eq!(shown(&warren).as_ref(), Some(&expected));
            let other = papers.authority.sign("other", &[NAME]);
            replace_file(&papers.server.certificate, &std::fs::read(&other.certificate).expect("ours"));
            logs(&warren, &["listener secure", "the old ones stay in force", "is not the key of"]);
            // A signal has files looked at now.
            replace(&papers.server, &other);
            warren.signal(rustix::process::Signal::HUP);
            let expected = der(&other);
            eventually("the last one", Duration::from_secs(20), || {
                shown(&warren).is_some_and(|now| now == expected)
            });
            eventually("all go on", Duration::from_secs(20), || published.load(Relaxed) > before + 40);
        }));
        stop.store(true, Relaxed);
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
    });
    assert_ne!(shown(&warren), Some(first));
    assert_eq!(warren.log().matches("has no key that can be read").count(), 1, "{}", warren.log());
    assert!(!warren.has_ended());
    warren.stop();
}

/// What a peer is shown of a certificate.
fn der(signed: &Signed) -> Vec<u8> {
    use rustls::pki_types::{CertificateDer, pem::PemObject};
    CertificateDer::from_pem_file(&signed.certificate).expect("our own certificate").as_ref().to_vec()
}

/// What `warren check` says of a file, and its status.
fn check(text: &str) -> (Option<i32>, String) {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("warren.toml");
    std::fs::write(&file, text).expect("an own folder");
    let output = Warren::output(&["check", file.to_str().expect("a plain path")], &[]);
    let text =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

#[test]
fn check_says_what_is_wrong_with_certificates() {
    let papers = Papers::new();
    let other = papers.authority.sign("other", &[NAME]);
    let expired = papers.authority.sign_expired("expired", &[NAME]);
    let junk = papers.authority.file().with_file_name("junk.pem");
    std::fs::write(&junk, "nothing that is a certificate").expect("an own folder");
    let table = |certificate, key, more: &str| {
        format!("tls = {{ certificate = {certificate:?}, key = {key:?}{more} }}")
    };
    let Signed { certificate, key } = &papers.server;
    let missing = std::path::PathBuf::from("/no/such.pem");
    let junk_ca = format!(", client_auth = \"required\", client_ca = {junk:?}");
    for (tls, words) in [
        (table(certificate, &other.key, ""), vec!["is not the key of the certificate in", "server.pem"]),
        (table(certificate, certificate, ""), vec!["has no key", "BEGIN PRIVATE KEY"]),
        (table(key, key, ""), vec!["has no certificate", "BEGIN CERTIFICATE"]),
        (table(&junk, key, ""), vec!["junk.pem", "BEGIN CERTIFICATE"]),
        (table(&missing, key, ""), vec!["cannot read /no/such.pem", "No such file"]),
        (table(certificate, key, &junk_ca), vec!["junk.pem", "BEGIN CERTIFICATE"]),
        (table(&expired.certificate, &expired.key, ""), vec!["expired on", "2002", "get a new one"]),
    ] {
        let (status, said) = check(&(base(1, "") + &listener("secure", &tls) + ROUTE));
        assert_eq!(status, Some(2), "{said}");
        // The line of the file, and the listener.
        assert!(said.contains("warren.toml:15: listener secure: "), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
    }
    let backend = format!("tls = {{ ca = {junk:?} }}");
    let (status, said) = check(&(base(1, &backend) + &listener("plain", "") + ROUTE));
    assert_eq!(status, Some(2), "{said}");
    assert!(said.contains("warren.toml:8: backend node: ") && said.contains("BEGIN CERTIFICATE"), "{said}");
    let cipher = table(certificate, key, ", ciphers = [\"RC4-MD5\"]");
    let (status, said) = check(&(base(1, "") + &listener("secure", &cipher) + ROUTE));
    assert_eq!(status, Some(2), "{said}");
    assert!(
        said.contains("there is no cipher suite \"RC4-MD5\"") && said.contains("TLS13_AES_256_GCM_SHA384"),
        "{said}"
    );
    // Warren starts with a certificate that has expired, and says so.
    let tls = table(&expired.certificate, &expired.key, "");
    let warren = Warren::start_file(&(base(rabbit::shared().port(), "") + &listener("secure", &tls) + ROUTE));
    logs(&warren, &["WARN", "listener secure", "expired on"]);
    warren.stop();
}

/// A node that lets only those in who show a certificate, and whose own is not for an address.
struct Strict {
    rabbit: Rabbit,
    papers: Papers,
    port: u16,
}

fn strict() -> &'static Strict {
    static NODE: OnceLock<Strict> = OnceLock::new();
    NODE.get_or_init(|| {
        let papers = Papers::new();
        let node = papers.authority.sign("node", &["rabbit.example"]);
        let port = free_port();
        let configuration = format!(
            "listeners.ssl.1 = 127.0.0.1:{port}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
             ssl_options.keyfile = {}\nssl_options.verify = verify_peer\nssl_options.fail_if_no_peer_cert = true\n",
            papers.authority.file().display(),
            node.certificate.display(),
            node.key.display(),
        );
        let rabbit = Rabbit::start_with(&Options { configuration, ..Options::default() });
        Strict { rabbit, papers, port }
    })
}

/// Whether a client is let in within a time: brokers are asked again and again.
fn is_served(warren: &Warren) -> bool {
    let mut peer = Peer::raw(warren.address());
    peer.send_bytes(&PROTOCOL_HEADER);
    peer.read_start().is_ok() && peer.go_on(&Handshake::default()).is_ok()
}

#[test]
fn brokers_see_warrens_certificate_and_are_verified_as_far_as_wanted() {
    let strict = strict();
    let Papers { authority, .. } = &strict.papers;
    let own = authority.sign("warren", &["warren.example"]);
    let shows = format!("certificate = {:?}, key = {:?}", own.certificate, own.key);
    let ca = format!("ca = {:?}", authority.file());
    let stranger = Authority::new();
    let start = |tls: String| {
        let text = base(strict.port, &format!("tls = {{ {tls} }}"));
        Warren::start_file(&(text + &listener("plain", "") + ROUTE))
    };
    let named = start(format!("{ca}, {shows}, server_name = \"rabbit.example\", versions = [\"1.2\"]"));
    assert!(is_served(&named), "{}", named.log());
    assert!(strict.rabbit.connections("/").iter().all(|c| c.user == "guest"));
    let any_name = start(format!("{ca}, {shows}, verify = \"ca\""));
    assert!(is_served(&any_name), "{}", any_name.log());
    let anybody = start(format!("ca = {:?}, {shows}, verify = \"none\"", stranger.file()));
    assert!(is_served(&anybody), "{}", anybody.log());
    logs(&anybody, &["WARN", "backend node", "can read and change everything"]);
    for (tls, why) in [
        (format!("{ca}, {shows}"), "not valid for name"),
        (
            format!("ca = {:?}, {shows}, verify = \"ca\"", stranger.file()),
            "it must come from an authority in",
        ),
        (format!("{ca}, server_name = \"rabbit.example\""), "connection to broker lost"),
    ] {
        let warren = start(tls);
        let mut waits = Peer::raw(warren.address());
        waits.send_bytes(&PROTOCOL_HEADER);
        let words = if why.contains("lost") { vec![why] } else { vec!["TLS with 127.0.0.1", why] };
        logs(&warren, &words);
    }
}

#[test]
fn an_authority_that_is_replaced_holds_for_new_connections_to_brokers() {
    let strict = strict();
    let Papers { authority, .. } = &strict.papers;
    let own = authority.sign("replacing", &["warren.example"]);
    let stranger = Authority::new();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let ca = folder.path().join("ca.pem");
    std::fs::copy(stranger.file(), &ca).expect("an own folder");
    let tls = format!(
        "tls = {{ ca = {ca:?}, certificate = {:?}, key = {:?}, server_name = \"rabbit.example\" }}",
        own.certificate, own.key
    );
    let warren = Warren::start_file(&(base(strict.port, &tls) + &listener("plain", "") + ROUTE));
    let started = Instant::now();
    let mut waits = Peer::raw(warren.address());
    waits.send_bytes(&PROTOCOL_HEADER);
    logs(&warren, &["TLS with 127.0.0.1", "it must come from an authority in"]);
    replace_file(&ca, &std::fs::read(authority.file()).expect("ours"));
    // Who waits for the broker is served when it can be reached.
    waits.read_start().expect("the broker is there");
    waits.go_on(&Handshake::default()).expect("let in");
    println!("served after {:?}", started.elapsed());
    logs(&warren, &["INFO", "backend node", "the files of TLS have changed"]);
    waits.close();
    warren.stop();
}
