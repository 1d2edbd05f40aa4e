//! The PROXY protocol, versions 1 and 2 (haproxy.org/download/3.0/doc/proxy-protocol.txt): who is behind a connection, said
//! before anything else on it. In from senders that are trusted, and out to brokers that want it.

use std::io::{self, ErrorKind};
use std::net::{IpAddr, SocketAddr};

use proxy_header::{ParseConfig, Protocol, ProxiedAddress, ProxyHeader, SslInfo, Tlv};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use warren_engine::{ClientTls, Peer};

use crate::setup::ProxyVersion;

/// The shortest header is `PROXY UNKNOWN` with its line's end, so that so many octets never reach beyond one.
const SHORTEST: usize = 15;
/// The longest line of version 1.
const LINE_MOST: usize = 107;
/// What begins a header of version 2, before the length of what follows.
const BINARY_START: usize = 16;
/// The longest header of version 2 that is taken. Some senders put a certificate in.
const BINARY_MOST: usize = 16 << 10;
/// Longer texts are left out of headers: no name is that long.
const TEXT_MOST: usize = 1024;

/// Who is behind a connection, as its header says.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Said {
    /// The client's address, and the one that it connected to; `None`: the sender speaks for itself.
    pub(crate) addresses: Option<(SocketAddr, SocketAddr)>,
    /// What is known of the client's TLS.
    pub(crate) tls: Option<Box<ClientTls>>,
}

/// Reads a header, and nothing behind it. Give it a deadline.
pub(crate) async fn read(stream: &mut TcpStream) -> io::Result<Said> {
    let mut start = [0; SHORTEST];
    stream.read_exact(&mut start).await?;
    match start {
        [b'P', b'R', b'O', b'X', b'Y', b' ', ..] => read_line(stream, start).await,
        [b'\r', b'\n', b'\r', b'\n', ..] => read_binary(stream, start).await,
        _ => Err(bad("there is none")),
    }
}

async fn read_line(stream: &mut TcpStream, start: [u8; SHORTEST]) -> io::Result<Said> {
    let mut line = [0; LINE_MOST];
    line[..SHORTEST].copy_from_slice(&start);
    let mut length = SHORTEST;
    while !line[..length].ends_with(b"\r\n") {
        let rest = &mut line[length..];
        if rest.is_empty() {
            return Err(bad("its line is too long"));
        }
        // Looked at first, then read as far as the line goes.
        let seen = stream.peek(rest).await?;
        if seen == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        let end = rest[..seen].iter().position(|c| *c == b'\n').map_or(seen, |at| at + 1);
        stream.read_exact(&mut rest[..end]).await?;
        length += end;
    }
    understand(&line[..length])
}

async fn read_binary(stream: &mut TcpStream, start: [u8; SHORTEST]) -> io::Result<Said> {
    let last = stream.read_u8().await?;
    let rest = usize::from(u16::from_be_bytes([start[SHORTEST - 1], last]));
    let whole = BINARY_START + rest;
    if whole > BINARY_MOST {
        return Err(bad("it is too long"));
    }
    let mut header = start.to_vec();
    header.push(last);
    // Memory follows what has come, not what was announced.
    let mut some = [0; 512];
    while header.len() < whole {
        let most = some.len().min(whole - header.len());
        let n = stream.read(&mut some[..most]).await?;
        if n == 0 {
            return Err(ErrorKind::UnexpectedEof.into());
        }
        header.extend_from_slice(&some[..n]);
    }
    understand(&header)
}

/// What a complete header says.
fn understand(octets: &[u8]) -> io::Result<Said> {
    let config = ParseConfig { include_tlvs: true, allow_v1: true, allow_v2: true };
    let (header, length) = ProxyHeader::parse(octets, config).map_err(bad)?;
    if length != octets.len() {
        return Err(bad("its parts are longer than itself"));
    }
    let Some(addresses) = header.proxied_address() else {
        return Ok(Said::default());
    };
    if addresses.protocol != Protocol::Stream {
        return Err(bad("it tells of datagrams"));
    }
    let tls = header.ssl().filter(SslInfo::client_ssl).map(|ssl| {
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let shown = ssl.client_cert_sess() && ssl.verify() == 0;
        Box::new(ClientTls {
            sni: header.authority().map(str::to_owned),
            version: text(ssl.version()),
            cipher: text(ssl.cipher()),
            certificate_cn: ssl.cn().filter(|_| shown).map(str::to_owned),
        })
    });
    Ok(Said { addresses: Some((plain(addresses.source), plain(addresses.destination))), tls })
}

/// Without the IPv6 form of an IPv4 address, which a listener for both sees.
pub(crate) fn plain(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn bad(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(ErrorKind::InvalidData, why.to_string())
}

/// The header that a connection to a broker begins with: on behalf of a client, or of nobody but Warren.
pub(crate) fn header(version: ProxyVersion, client: Option<&Peer>) -> Vec<u8> {
    let mut octets = Vec::with_capacity(128);
    let addresses = client.map(|peer| proxied(peer.address, peer.local));
    let written = match version {
        ProxyVersion::V1 => {
            addresses.map_or_else(ProxyHeader::with_local, ProxyHeader::with_address).encode_v1(&mut octets)
        }
        ProxyVersion::V2 => {
            let tls = client.and_then(|peer| peer.tls.as_deref());
            ProxyHeader::with_tlvs(addresses, tls.map(fields).into_iter().flatten()).encode_v2(&mut octets)
        }
    };
    // Both addresses are of one kind and all texts are short, so that nothing can be wrong with it.
    debug_assert_eq!(written, Ok(()));
    octets
}

/// Both addresses in the same form, as the header has to have them.
fn proxied(client: SocketAddr, local: SocketAddr) -> ProxiedAddress {
    let wide = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        IpAddr::V6(_) => address,
    };
    match client.is_ipv4() == local.is_ipv4() {
        true => ProxiedAddress::stream(client, local),
        false => ProxiedAddress::stream(wide(client), wide(local)),
    }
}

/// What is told of a client's TLS.
fn fields(tls: &ClientTls) -> Vec<Tlv<'_>> {
    let told = |text: &'_ str| !text.is_empty() && text.len() <= TEXT_MOST;
    let cn = tls.certificate_cn.as_deref().filter(|cn| told(cn));
    let mut ssl = SslInfo::new(true, cn.is_some(), cn.is_some(), u32::from(cn.is_none()));
    if told(&tls.version) {
        ssl.append_tlv(Tlv::SslVersion(tls.version.as_str().into()));
    }
    if told(&tls.cipher) {
        // IANA's name, without what rustls adds.
        let cipher = tls.cipher.replacen("TLS13_", "TLS_", 1);
        ssl.append_tlv(Tlv::SslCipher(cipher.into()));
    }
    if let Some(cn) = cn {
        ssl.append_tlv(Tlv::SslCn(cn.into()));
    }
    let sni = tls.sni.as_deref().filter(|sni| told(sni));
    sni.map(|sni| Tlv::Authority(sni.into())).into_iter().chain([Tlv::Ssl(ssl)]).collect()
}

#[cfg(test)]
#[path = "proxy_protocol_tests.rs"]
mod tests;
