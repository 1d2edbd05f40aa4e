//! The PROXY protocol: whom Warren believes, and what brokers hear of it.

use crate::edge::{NAME, Papers, ROUTE, base, listener, logs};
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;
use warren_testkit::peer::End;
use warren_testkit::rabbit::Options;
use warren_testkit::{Handshake, Peer, Rabbit, Warren, eventually, free_port, rabbit, unique};
use warren_wire::frame::PROTOCOL_HEADER;

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.8 40007 5672\r\n";
const V1_OF_IPV6: &[u8] = b"PROXY TCP6 2001:db8::7 2001:db8::8 40007 5672\r\n";
const UNKNOWN: &[u8] = b"PROXY UNKNOWN\r\n";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\x00\x00\x00";
/// With a field that nobody knows.
const V2: &[u8] =
    b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x12\xC0\x00\x02\x07\xC0\x00\x02\x08\x9C\x47\x16\x28\xE4\x00\x03abc";

/// Warren with a plain and a TLS listener, both of which trust the loopback address, and one that trusts another network.
/// Guests may come from everywhere, so that headers make no difference to who is let in.
fn trusting(papers: &Papers) -> Warren {
    let proxy = "proxy_protocol = [\"127.0.0.0/8\", \"2001:db8::/32\"]";
    let text = base(rabbit::shared().port(), "")
        .replace("[proxy]", "[proxy]\nallow_remote_guest = true\nhandshake_timeout = \"4s\"")
        + &listener("plain", proxy)
        + &listener("secure", &format!("{proxy}\ntls = {}", papers.table("")))
        + &listener("strange", "proxy_protocol = [\"10.0.0.0/8\"]")
        + ROUTE;
    Warren::start_file(&text)
}

#[test]
fn a_trusted_sender_says_who_the_client_is() {
    let papers = Papers::new();
    let warren = trusting(&papers);
    for (n, (header, seen)) in [
        (V1, Some("192.0.2.7:40007")),
        (V2, Some("192.0.2.7:40007")),
        (V1_OF_IPV6, Some("[2001:db8::7]:40007")),
        (UNKNOWN, None),
        (LOCAL, None),
    ]
    .into_iter()
    .enumerate()
    {
        for secure in [false, true] {
            let vhost = unique("proxied");
            rabbit::shared().add_vhost(&vhost);
            let mut peer = if secure {
                Peer::try_tls(warren.listener(1), &papers.client(), NAME, header).expect("TLS")
            } else {
                let mut peer = Peer::raw(warren.listener(0));
                peer.send_bytes(header);
                peer
            };
            peer.shake_hands(&Handshake::on(&vhost)).expect("let in");
            let own = peer.local_address().to_string();
            let address = seen.map_or(own, str::to_owned);
            logs(&warren, &["client connected", &format!("peer={address}"), &vhost]);
            peer.open_channel(1);
            peer.declare(1, "");
            peer.close();
            rabbit::shared().delete_vhost(&vhost);
            println!("header {n}, TLS {secure}: {address}");
        }
    }
    warren.stop();
}

#[test]
fn who_is_trusted_must_send_a_good_header_and_who_is_not_must_not() {
    let papers = Papers::new();
    let warren = trusting(&papers);
    for bad in [
        &PROTOCOL_HEADER.repeat(2)[..],
        b"PROXY TCP4 1.2.3.4 5.6.7 1 2\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0",
    ] {
        let mut peer = Peer::raw(warren.listener(0));
        peer.send_bytes(bad);
        assert!(matches!(peer.expect_end(Duration::from_secs(3)), End::Eof | End::Reset));
        let mut secure = Peer::raw(warren.listener(1));
        secure.send_bytes(bad);
        assert!(matches!(secure.expect_end(Duration::from_secs(3)), End::Eof | End::Reset));
    }
    logs(&warren, &["client refused: bad header of the PROXY protocol: there is none", "127.0.0.1"]);
    // Half of one: until time is over.
    let mut slow = Peer::raw(warren.listener(0));
    slow.send_bytes(&V1[..20]);
    assert!(matches!(slow.expect_end(Duration::from_secs(20)), End::Eof | End::Reset));
    logs(&warren, &["client refused: no header of the PROXY protocol came within 4s"]);
    // From elsewhere it is no AMQP, and answered as such.
    for header in [V1, V2] {
        let mut socket = TcpStream::connect(warren.listener(2)).expect("it listens");
        socket.write_all(header).expect("it is open");
        let mut answer = [0; 8];
        socket.read_exact(&mut answer).expect("an answer");
        assert_eq!(answer, PROTOCOL_HEADER);
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a socket");
        assert!(matches!(socket.read(&mut answer), Ok(0) | Err(_)), "more than the header");
    }
    logs(&warren, &["client gone", "PROXY protocol from an address that is not trusted"]);
    Peer::connect(warren.listener(2)).close();
    warren.stop();
}

/// A node that wants headers, on a plain port and on one with TLS.
struct Node {
    rabbit: Rabbit,
    papers: Papers,
    tls_port: u16,
}

fn node() -> &'static Node {
    static NODE: OnceLock<Node> = OnceLock::new();
    NODE.get_or_init(|| {
        let papers = Papers::new();
        let signed = papers.authority.sign("node", &["127.0.0.1"]);
        let tls_port = free_port();
        let configuration = format!(
            "listeners.ssl.1 = 127.0.0.1:{tls_port}\nssl_options.cacertfile = {}\nssl_options.certfile = {}\n\
             ssl_options.keyfile = {}\nssl_options.verify = verify_none\n",
            papers.authority.file().display(),
            signed.certificate.display(),
            signed.key.display(),
        );
        let options = Options { configuration, proxy_protocol: true, ..Options::default() };
        Node { rabbit: Rabbit::start_with(&options), papers, tls_port }
    })
}

impl Node {
    /// Warren before it: a plain listener, and one with TLS that asks for certificates.
    fn warren(&self, version: &str, tls: bool, mode: &str) -> Warren {
        let ca = format!("tls = {{ ca = {:?} }}", self.papers.authority.file());
        let (port, tls) = if tls { (self.tls_port, ca.as_str()) } else { (self.rabbit.port(), "") };
        let text = base(port, &format!("send_proxy = {version:?}\n{tls}"))
            + &listener("plain", "proxy_protocol = [\"127.0.0.2\"]")
            + &listener("secure", &format!("tls = {}", self.papers.asking("optional")))
            + &format!("[[route]]\nfarm = \"main\"\nmode = {mode:?}\n");
        Warren::start_file(&text)
    }

    /// What it knows of the connections to a virtual host: peer's address and port, and its own.
    fn sees(&self, vhost: &str) -> Vec<String> {
        let answer = self.rabbit.eval(&format!(
            "iolist_to_binary([[io_lib:format(\"~s:~p ~s:~p ~p ~p\", [inet:ntoa(proplists:get_value(peer_host, I)), \
                 proplists:get_value(peer_port, I), inet:ntoa(proplists:get_value(host, I)), \
                 proplists:get_value(port, I), proplists:get_value(ssl, I), proplists:get_value(ssl_protocol, I)]), $\\n] \
                 || I <- rabbit_networking:connection_info_all([peer_host, peer_port, host, port, vhost, ssl, ssl_protocol]), \
                    proplists:get_value(vhost, I) =:= <<\"{vhost}\">>])."
        ));
        answer.lines().map(str::to_owned).collect()
    }
}

#[test]
fn a_dedicated_connection_tells_the_broker_who_the_client_is() {
    let node = node();
    for (version, tls) in [("v1", false), ("v2", false), ("v1", true), ("v2", true)] {
        let warren = node.warren(version, tls, "dedicated");
        let vhost = unique("dedicated");
        node.rabbit.add_vhost(&vhost);
        let plain = Peer::connect_with(warren.listener(0), &Handshake::on(&vhost));
        let told =
            |peer: &Peer, number: usize| format!("{} {} ", peer.local_address(), warren.listener(number));
        eventually("the broker sees a client", Duration::from_secs(10), || node.sees(&vhost).len() == 1);
        let seen = node.sees(&vhost);
        println!("{version}, TLS {tls}: {seen:?}");
        assert!(seen[0].starts_with(&told(&plain, 0)), "{version}, TLS {tls}: {seen:?}");
        plain.close();
        let signed = node.papers.authority.sign("some-client", &["client.example"]);
        let secure = {
            let mut peer =
                Peer::try_tls(warren.listener(1), &node.papers.showing(&signed), NAME, b"").expect("TLS");
            peer.shake_hands(&Handshake::on(&vhost)).expect("let in");
            peer
        };
        eventually("the broker sees the other", Duration::from_secs(10), || {
            node.sees(&vhost).iter().any(|seen| seen.starts_with(&told(&secure, 1)))
        });
        println!("{version}, TLS {tls}, client's TLS: {:?}", node.sees(&vhost));
        secure.close();
        warren.stop();
        node.rabbit.delete_vhost(&vhost);
    }
}

#[test]
fn what_a_header_said_to_warren_is_said_to_the_broker() {
    let node = node();
    for version in ["v1", "v2"] {
        let text = base(node.rabbit.port(), &format!("send_proxy = {version:?}"))
            .replace("[proxy]", "[proxy]\nallow_remote_guest = true")
            + &listener("plain", "proxy_protocol = [\"127.0.0.1\"]")
            + "[[route]]\nfarm = \"main\"\nmode = \"dedicated\"\n";
        let warren = Warren::start_file(&text);
        let vhost = unique("passed");
        node.rabbit.add_vhost(&vhost);
        node.rabbit.add_user(&vhost, "secret");
        node.rabbit.set_permissions(&vhost, &vhost, [".*", ".*", ".*"]);
        let mut peer = Peer::raw(warren.listener(0));
        peer.send_bytes(V2);
        // A broker that sees a remote client does not let its guest in.
        peer.shake_hands(&Handshake::on(&vhost).by(&vhost, "secret")).expect("let in");
        let seen = node.sees(&vhost);
        assert!(seen[0].starts_with("192.0.2.7:40007 192.0.2.8:5672 "), "{version}: {seen:?}");
        peer.close();
        warren.stop();
        node.rabbit.delete_vhost(&vhost);
    }
}

/// A broker that takes headers on behalf of nobody: what comes before AMQP is kept, the rest goes to the shared node.
fn lenient(length: usize) -> (SocketAddr, Arc<Mutex<Vec<Vec<u8>>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    let address = listener.local_addr().expect("bound");
    let headers = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&headers);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut client = stream.expect("a client");
            let mut header = vec![0; length];
            client.read_exact(&mut header).expect("a header");
            kept.lock().expect("no panic").push(header);
            let broker = TcpStream::connect(rabbit::shared().address()).expect("the node");
            for (from, to) in [(&client, &broker), (&broker, &client)] {
                let (mut from, mut to) = (from.try_clone().expect("ours"), to.try_clone().expect("ours"));
                std::thread::spawn(move || {
                    let _ = std::io::copy(&mut from, &mut to);
                    let _ = to.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    (address, headers)
}

#[test]
fn shared_connections_say_that_nobody_is_behind_them() {
    for (version, expected) in [("v1", UNKNOWN), ("v2", LOCAL)] {
        let (address, headers) = lenient(expected.len());
        let text =
            base(address.port(), &format!("send_proxy = {version:?}")) + &listener("plain", "") + ROUTE;
        let warren = Warren::start_file(&text);
        let mut peer = Peer::connect(warren.listener(0));
        peer.open_channel(1);
        let queue = peer.declare(1, "");
        peer.publish(1, &queue, b"hello");
        peer.consume(1, &queue, "", true);
        assert_eq!(peer.delivery(1).body, b"hello");
        let seen = headers.lock().expect("no panic").clone();
        assert!(!seen.is_empty() && seen.iter().all(|header| header == expected), "{seen:?}");
        peer.close();
        warren.stop();
    }
}

/// RabbitMQ up to 3.11.18 and 3.12.0 (docs/broker-facts.md).
#[test]
fn this_node_does_not_take_connections_on_behalf_of_nobody() {
    for header in [UNKNOWN, LOCAL] {
        let mut peer = Peer::raw(node().rabbit.address());
        peer.send_bytes(header);
        let _ = peer.try_send_bytes(&PROTOCOL_HEADER);
        assert!(matches!(peer.expect_end(Duration::from_secs(20)), End::Eof | End::Reset));
    }
}
