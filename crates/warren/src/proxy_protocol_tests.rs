//! What goes out comes in again, and what is hostile comes to nothing.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("an address")
}

fn peer(client: &str, local: &str, tls: Option<ClientTls>) -> Peer {
    Peer { address: address(client), local: address(local), listener: 0, host: None, tls: tls.map(Box::new) }
}

fn tls(cn: Option<&str>) -> ClientTls {
    ClientTls {
        sni: Some("rabbit.example.com".into()),
        version: "TLSv1.3".into(),
        cipher: "TLS13_AES_128_GCM_SHA256".into(),
        certificate_cn: cn.map(str::to_owned),
    }
}

/// Sends octets in pieces of a size, then ends; gives what was read, and what was left behind the header.
fn receive(octets: &[u8], piece: usize) -> (io::Result<Said>, Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let to = listener.local_addr().expect("bound");
        let send = async {
            let mut stream = TcpStream::connect(to).await.expect("listening");
            stream.set_nodelay(true).expect("a socket");
            for part in octets.chunks(piece) {
                // Whoever reads may have had enough.
                if stream.write_all(part).await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
        };
        let take = async {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let read = tokio::time::timeout(Duration::from_secs(20), read(&mut stream)).await;
            let mut rest = Vec::new();
            if matches!(read, Ok(Ok(_))) {
                stream.read_to_end(&mut rest).await.expect("the rest");
            }
            (read.expect("it takes no time"), rest)
        };
        tokio::join!(send, take).1
    })
}

#[test]
fn what_goes_out_comes_in() {
    let (v4, v6) = (["192.0.2.1:40000", "192.0.2.2:5671"], ["[2001:db8::1]:40000", "[2001:db8::2]:5671"]);
    for [client, local] in [v4, v6] {
        for version in [ProxyVersion::V1, ProxyVersion::V2] {
            for cn in [None, Some("billing-service")] {
                let peer = peer(client, local, Some(tls(cn)));
                let mut octets = header(version, Some(&peer));
                octets.extend_from_slice(b"AMQP\0\0\x09\x01 and what follows");
                for piece in [1, 7, 1000] {
                    let (said, rest) = receive(&octets, piece);
                    let said = said.expect("a good header");
                    assert_eq!(said.addresses, Some((address(client), address(local))));
                    assert_eq!(rest, b"AMQP\0\0\x09\x01 and what follows");
                    let told = said.tls.map(|tls| (tls.sni, tls.version, tls.cipher, tls.certificate_cn));
                    let all = (
                        Some("rabbit.example.com".to_owned()),
                        "TLSv1.3".to_owned(),
                        "TLS_AES_128_GCM_SHA256".to_owned(),
                        cn.map(str::to_owned),
                    );
                    assert_eq!(told, (version == ProxyVersion::V2).then_some(all));
                }
            }
        }
    }
}

#[test]
fn nobody_is_behind_a_shared_connection() {
    assert_eq!(header(ProxyVersion::V1, None), b"PROXY UNKNOWN\r\n");
    let local = header(ProxyVersion::V2, None);
    assert_eq!(local, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0");
    for octets in [&local[..], b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"] {
        let (said, rest) = receive(&[octets, b"AMQP"].concat(), 3);
        assert_eq!(said.expect("a good header"), Said::default());
        assert_eq!(rest, b"AMQP");
    }
}

#[test]
fn addresses_of_two_kinds_are_brought_together() {
    let octets = header(ProxyVersion::V2, Some(&peer("192.0.2.1:4000", "[2001:db8::2]:5671", None)));
    let (said, _) = receive(&octets, 100);
    let addresses = said.expect("a good header").addresses;
    assert_eq!(addresses, Some((address("192.0.2.1:4000"), address("[2001:db8::2]:5671"))));
}

#[test]
fn texts_that_are_too_long_are_left_out() {
    let long = "x".repeat(70_000);
    let tls = ClientTls { sni: Some(long.clone()), certificate_cn: Some(long), ..tls(None) };
    let octets = header(ProxyVersion::V2, Some(&peer("192.0.2.1:1", "192.0.2.2:2", Some(tls))));
    let said = receive(&octets, 1000).0.expect("a good header").tls.expect("of TLS");
    assert_eq!((said.sni, said.certificate_cn), (None, None));
}

#[test]
fn a_certificate_that_was_not_verified_has_no_name() {
    let mut ssl = SslInfo::new(true, true, true, 1);
    ssl.append_tlv(Tlv::SslCn("somebody".into()));
    let addresses = ProxiedAddress::stream(address("192.0.2.1:1"), address("192.0.2.2:2"));
    let mut octets = Vec::new();
    ProxyHeader::with_tlvs(Some(addresses), [Tlv::Ssl(ssl)]).encode_v2(&mut octets).expect("a header");
    let said = receive(&octets, 1000).0.expect("a good header");
    assert_eq!(said.tls.expect("of TLS").certificate_cn, None);
}

#[test]
fn what_is_no_header_is_refused() {
    let long = [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat();
    let mut datagram = header(ProxyVersion::V2, Some(&peer("192.0.2.1:1", "192.0.2.2:2", None)));
    datagram[13] = 0x12;
    let mut announced = header(ProxyVersion::V2, None);
    announced[14..16].copy_from_slice(&[0xFF, 0xFF]);
    let mut version = header(ProxyVersion::V2, None);
    version[12] = 0x31;
    let hostile: [&[u8]; 14] = [
        b"AMQP\0\0\x09\x01AMQP\0\0\x09\x01",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 99999\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n\n\n\n\n",
        b"PROXY  TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY UDP4 192.0.2.1 192.0.2.2 1 2\r\n",
        b"\r\n\r\n\0\r\nQUIT!\x21\x11\0\0",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x04\x01\x02\x03\x04",
        &long,
        &datagram,
        &announced,
        &version,
    ];
    for octets in hostile {
        let shown = String::from_utf8_lossy(octets);
        assert!(receive(octets, 1000).0.is_err(), "{shown:?} was taken");
        assert!(receive(octets, 1).0.is_err(), "{shown:?} was taken");
    }
    let whole = header(ProxyVersion::V2, Some(&peer("192.0.2.1:1", "192.0.2.2:2", Some(tls(Some("x"))))));
    for end in 0..whole.len() {
        let (said, _) = receive(&whole[..end], 1000);
        assert_eq!(said.expect_err("half of it").kind(), ErrorKind::UnexpectedEof, "{end} octets");
    }
}

#[test]
fn any_octet_may_be_wrong() {
    for version in [ProxyVersion::V1, ProxyVersion::V2] {
        let whole = header(version, Some(&peer("192.0.2.1:1", "192.0.2.2:2", Some(tls(Some("x"))))));
        for at in 0..whole.len() {
            for value in [0, 1, 0x7F, 0x80, 0xFF, b'\n', b' '] {
                let mut octets = whole.clone();
                octets[at] = value;
                let _ = understand(&octets);
            }
        }
    }
}
