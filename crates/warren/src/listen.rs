//! Listening sockets: opened once, before anything else runs, for all addresses of a name.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, ToSocketAddrs};

use anyhow::{Context, bail};
use socket2::{Domain, Protocol, Socket, Type};

/// Connections that may wait to be accepted, should a thousand clients come at once. The system may allow less
/// (`net.core.somaxconn`).
const BACKLOG: i32 = 4096;

/// Opens `port` at all addresses of `host`. With port 0 the system chooses for the first address, and the others
/// get the same one. Addresses that this machine does not have are left out, unless nothing remains.
pub(crate) fn open(host: &str, port: u16) -> anyhow::Result<Vec<TcpListener>> {
    let mut listeners: Vec<TcpListener> = Vec::new();
    let mut missing = None;
    let mut port = port;
    for ip in addresses(host)? {
        let address = SocketAddr::new(ip, port);
        match bind(address) {
            Ok(listener) => {
                port = listener.local_addr()?.port();
                listeners.push(listener);
            }
            Err(error) if is_missing(&error) => missing = Some((address, error)),
            Err(error) => return Err(error).with_context(|| format!("cannot listen on {address}")),
        }
    }
    match missing {
        Some((address, error)) if listeners.is_empty() => {
            Err(error).with_context(|| format!("cannot listen on {address}"))
        }
        _ => Ok(listeners),
    }
}

/// The addresses of listeners, for people.
pub(crate) fn names<'a>(listeners: impl IntoIterator<Item = &'a TcpListener>) -> String {
    let names = listeners.into_iter().filter_map(|listener| listener.local_addr().ok());
    names.map(|address| address.to_string()).collect::<Vec<_>>().join(" and ")
}

fn addresses(host: &str) -> anyhow::Result<Vec<IpAddr>> {
    // Both, whatever the hosts file says: a client on this machine may try either.
    if host.eq_ignore_ascii_case("localhost") {
        return Ok(vec![IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]);
    }
    let found =
        (host, 0).to_socket_addrs().with_context(|| format!("cannot resolve {host:?} to listen there"))?;
    let mut addresses: Vec<IpAddr> = found.map(|address| address.ip()).collect();
    addresses.sort_unstable();
    addresses.dedup();
    if addresses.is_empty() {
        bail!("{host:?} has no address to listen at");
    }
    Ok(addresses)
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    // A restart must not wait for connections of the last run to be forgotten.
    socket.set_reuse_address(true)?;
    // `::` stands for all addresses of both kinds; any other IPv6 address for itself.
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Whether this machine has no such address (or no IPv6 at all).
fn is_missing(error: &io::Error) -> bool {
    use rustix::io::Errno;
    [Errno::ADDRNOTAVAIL, Errno::AFNOSUPPORT].iter().any(|e| error.raw_os_error() == Some(e.raw_os_error()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn localhost_has_one_port_on_all_addresses() {
        let listeners = open("localhost", 0).expect("loopback");
        let ports: Vec<u16> = listeners.iter().map(|l| l.local_addr().expect("bound").port()).collect();
        assert!(ports[0] > 0 && ports.iter().all(|p| *p == ports[0]), "{ports:?}");
    }

    #[test]
    fn a_port_in_use_is_named() {
        let taken = open("127.0.0.1", 0).expect("loopback");
        let port = taken[0].local_addr().expect("bound").port();
        let error = format!("{:#}", open("127.0.0.1", port).expect_err("in use"));
        assert!(error.contains(&format!("cannot listen on 127.0.0.1:{port}")), "{error}");
    }

    #[test]
    fn an_address_of_another_machine_is_refused() {
        let error = format!("{:#}", open("192.0.2.1", 0).expect_err("not ours"));
        assert!(error.contains("192.0.2.1"), "{error}");
    }
}
