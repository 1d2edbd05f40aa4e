//! The auth service of amqpprox: a small HTTP server says what each test wants it to.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use amq_protocol_types::AMQPValue;
use warren_testkit::peer::{Closed, Refused};
use warren_testkit::{Handshake, Peer, Warren, rabbit, unique};

use crate::limits::file;

/// ALLOW, said out loud; DENY for a reason; other credentials.
const ALLOW: &[u8] = b"\x08\x00";

fn deny(reason: &str) -> Vec<u8> {
    [&[8, 1, 0x12, u8::try_from(reason.len()).expect("short")], reason.as_bytes()].concat()
}

fn replace(user: &str, password: &str) -> Vec<u8> {
    let response = format!("\0{user}\0{password}");
    let length = |octets: &[u8]| u8::try_from(octets.len()).expect("short");
    let sasl = [b"\x0a\x05PLAIN\x12", &[length(response.as_bytes())][..], response.as_bytes()].concat();
    [&[0x1a, length(&sasl)][..], &sasl].concat()
}

/// What the service answers: status and body. `None`: nothing at all.
type Answer = Option<(u16, Vec<u8>)>;

struct Service {
    port: u16,
    answer: Arc<Mutex<Answer>>,
    connections: Arc<AtomicUsize>,
    /// Bodies of the requests.
    asked: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Service {
    fn start() -> Service {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let service = Service {
            port: listener.local_addr().expect("bound").port(),
            answer: Arc::new(Mutex::new(Some((200, ALLOW.to_vec())))),
            connections: Arc::default(),
            asked: Arc::default(),
        };
        let (answer, connections, asked) =
            (Arc::clone(&service.answer), Arc::clone(&service.connections), Arc::clone(&service.asked));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                connections.fetch_add(1, SeqCst);
                let (answer, asked) = (Arc::clone(&answer), Arc::clone(&asked));
                std::thread::spawn(move || serve(&stream, &answer, &asked));
            }
        });
        service
    }

    fn says(&self, status: u16, body: &[u8]) {
        *self.answer.lock().expect("no panic") = Some((status, body.to_vec()));
    }

    fn is_silent(&self) {
        *self.answer.lock().expect("no panic") = None;
    }

    fn asked(&self) -> usize {
        self.asked.lock().expect("no panic").len()
    }

    fn warren(&self, broker: std::net::SocketAddr, more: &str) -> Warren {
        let rest = format!(
            "[[route]]\nfarm = \"main\"\n[auth]\nservice = \"http://127.0.0.1:{}/auth?tier=dev\"\n{more}\n",
            self.port
        );
        Warren::start_file(&file(broker, "", &rest))
    }
}

/// Answers requests on a connection until it ends.
fn serve(stream: &TcpStream, answer: &Mutex<Answer>, asked: &Mutex<Vec<Vec<u8>>>) -> Option<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut length = 0;
        let mut first = String::new();
        reader.read_line(&mut first).ok().filter(|n| *n > 0)?;
        assert_eq!(first, "POST /auth?tier=dev HTTP/1.1\r\n");
        loop {
            let mut line = String::new();
            reader.read_line(&mut line).ok()?;
            if let Some((name, value)) = line.split_once(':')
                && name.eq_ignore_ascii_case("content-length")
            {
                length = value.trim().parse().expect("a number");
            }
            if line == "\r\n" {
                break;
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body).ok()?;
        asked.lock().expect("no panic").push(body);
        let answer = answer.lock().expect("no panic").clone();
        let Some((status, body)) = answer else { continue };
        write!(&*stream, "HTTP/1.1 {status} Whatever\r\nContent-Length: {}\r\n\r\n", body.len()).ok()?;
        (&*stream).write_all(&body).ok()?;
    }
}

fn refusal(warren: &Warren, handshake: &Handshake) -> Closed {
    match Peer::try_connect(warren.address(), handshake) {
        Err(refused @ Refused { .. }) => refused.closed().clone(),
        Ok(_) => panic!("it was let in"),
    }
}

#[test]
fn the_service_is_asked_once_for_each_client_over_one_connection() {
    let rabbit = rabbit::shared();
    let service = Service::start();
    let warren = service.warren(rabbit.address(), "");
    let mut handshake = Handshake::default();
    handshake.properties.insert("connection_name".into(), AMQPValue::LongString("billing 7".into()));
    for n in 1..=20 {
        let mut peer = Peer::connect_with(warren.address(), &handshake);
        peer.open_channel(1);
        peer.close();
        assert_eq!(service.asked(), n, "once for each client");
    }
    assert_eq!(service.connections.load(SeqCst), 1, "one connection is kept open");
    let question = service.asked.lock().expect("no panic").pop().expect("a question");
    let expected = b"\x0a\x01/\x12\x15\x0a\x05PLAIN\x12\x0c\0guest\0guest\x1a\x09127.0.0.1\x22\x09billing 7";
    assert_eq!(question, expected, "{}", String::from_utf8_lossy(&question));
    assert_eq!(warren.metric_with("warren_auth_requests_total", &[("result", "allow")]), 20.0);
}

#[test]
fn the_service_may_refuse_with_a_reason_and_let_in_under_another_name() {
    let rabbit = rabbit::shared();
    let service = Service::start();
    let warren = service.warren(rabbit.address(), "");
    service.says(200, &deny("not on Sundays"));
    let closed = refusal(&warren, &Handshake::default());
    assert_eq!((closed.code, closed.text.as_str()), (403, "ACCESS_REFUSED - not on Sundays"));

    let (user, vhost) = (unique("user"), unique("auth"));
    rabbit.add_vhost(&vhost);
    rabbit.add_user(&user, "word");
    rabbit.set_permissions(&user, &vhost, [".*"; 3]);
    service.says(200, &replace(&user, "word"));
    // The broker knows nobody of this name: what goes to it is what the service said.
    let mut peer = Peer::connect_with(warren.address(), &Handshake::on(&vhost).by("stranger", "nothing"));
    peer.open_channel(1);
    peer.declare(1, "queue");
    let seen = rabbit.connections(&vhost);
    assert!(!seen.is_empty() && seen.iter().all(|c| c.user == user), "{seen:?}");
    peer.close();
    // And the other way round: good credentials do not help when the service puts bad ones in their place.
    service.says(200, &replace(&user, "wrong"));
    assert_eq!(refusal(&warren, &Handshake::on(&vhost)).code, 403);
    rabbit.delete_user(&user);
    rabbit.delete_vhost(&vhost);
}

#[test]
fn when_the_service_fails_nobody_comes_in() {
    let rabbit = rabbit::shared();
    let service = Service::start();
    let warren = service.warren(rabbit.address(), "timeout = \"1s\"");
    for (status, body, why) in [
        (500, &b""[..], "it answered with status 500"),
        (500, ALLOW, "it answered with status 500"),
        (204, b"", "it answered with status 204"),
        (200, b"", "its answer is empty"),
        (200, b"<html>", "its answer cannot be read"),
    ] {
        service.says(status, body);
        let closed = refusal(&warren, &Handshake::default());
        let text = format!("ACCESS_REFUSED - the auth service failed: {why}");
        assert_eq!((closed.code, closed.text), (403, text));
    }
    service.is_silent();
    let started = Instant::now();
    let closed = refusal(&warren, &Handshake::default());
    assert_eq!(
        (closed.code, closed.text.as_str()),
        (403, "ACCESS_REFUSED - the auth service failed: no answer within 1s")
    );
    assert!(started.elapsed() >= Duration::from_secs(1));
    service.says(200, ALLOW);
    Peer::connect(warren.address()).close();
    assert!(warren.log().contains("the auth service at http://127.0.0.1"), "{}", warren.log());
    assert!(!warren.log().contains("\\0guest"), "no secrets in the log");

    let rest = format!(
        "[[route]]\nfarm = \"main\"\n[auth]\nservice = \"http://127.0.0.1:{}\"\n",
        warren_testkit::free_port()
    );
    let nowhere = Warren::start_file(&file(rabbit.address(), "", &rest));
    let closed = refusal(&nowhere, &Handshake::default());
    assert_eq!(
        (closed.code, closed.text.as_str()),
        (403, "ACCESS_REFUSED - the auth service failed: it cannot be reached")
    );
}

#[test]
fn settings_admit_empty_answers_and_keep_answers_for_a_while() {
    let rabbit = rabbit::shared();
    let service = Service::start();
    let warren = service.warren(rabbit.address(), "allow_empty = true\ncache = \"60s\"");
    service.says(500, b"");
    assert_eq!(refusal(&warren, &Handshake::default()).code, 403, "a failure is not kept");
    service.says(200, b"");
    for _ in 0..5 {
        Peer::connect(warren.address()).close();
    }
    assert_eq!(service.asked(), 2, "the same question is not asked again");
    service.says(200, &deny("no"));
    Peer::connect(warren.address()).close();
    assert_eq!(refusal(&warren, &Handshake::default().by("other", "x")).text, "ACCESS_REFUSED - no");
    assert_eq!(service.asked(), 3, "another question");
}
