//! Making a connection to a broker: its name is resolved ([`names`]), its addresses are tried in order, and the PROXY
//! protocol and TLS are spoken where they are configured.

use std::io;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use warren_engine::Peer;

use crate::names;
use crate::proxy_protocol;
use crate::setup::{ProxyVersion, Reach};
use crate::socket::Socket;
use crate::tls;

/// How a backend is reached.
pub(crate) struct Connector {
    /// Name or address.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// `None`: plain TCP.
    pub(crate) tls: Option<tls::Client>,
    /// Whether it is told who is behind the connection.
    pub(crate) send_proxy: Option<ProxyVersion>,
    /// For finding and reaching it, and again for the TLS handshake.
    pub(crate) limit: Duration,
}

impl Connector {
    /// For the backend of this name. Reads the certificates that it needs; the error is a text for people.
    pub(crate) fn new(name: &str, reach: &Reach, limit: Duration) -> Result<Connector, String> {
        let host = &reach.place.host;
        let tls = reach.tls.as_ref().map(|tls| tls::Client::new(name, host, tls)).transpose()?;
        let (host, port) = (host.clone(), reach.place.port);
        Ok(Connector { host, port, tls, send_proxy: reach.send_proxy, limit })
    }

    /// Connects, on behalf of a client or of nobody in particular. The error is a text for people: it says what was tried,
    /// and what came of it.
    pub(crate) async fn connect(&self, client: Option<&Peer>) -> Result<Socket, String> {
        let mut stream = tcp(&self.host, self.port, self.limit).await?;
        if let Some(version) = self.send_proxy {
            self.announce(&mut stream, version, client).await?;
        }
        let Some(tls) = &self.tls else {
            return Ok(Socket::plain(stream));
        };
        match timeout(self.limit, tls.handshake(&stream)).await {
            Ok(Ok(session)) => Ok(Socket::tls(stream, session)),
            Ok(Err(problem)) => Err(format!("TLS with {}:{} failed: {problem}", self.host, self.port)),
            Err(_) => {
                let (host, port, limit) = (&self.host, self.port, self.limit);
                Err(format!("TLS with {host}:{port} was not established within {limit:?}"))
            }
        }
    }

    /// Says who is behind the connection: it is short, and the socket is empty.
    async fn announce(
        &self,
        stream: &mut TcpStream,
        version: ProxyVersion,
        client: Option<&Peer>,
    ) -> Result<(), String> {
        let header = proxy_protocol::header(version, client);
        let failed = |why: &dyn std::fmt::Display| {
            format!("{}:{} did not take a header of the PROXY protocol: {why}", self.host, self.port)
        };
        let written = timeout(self.limit, stream.write_all(&header)).await;
        written.map_err(|_| failed(&"no room"))?.map_err(|error| failed(&error))
    }
}

/// Connects to `host`, within `limit` altogether.
async fn tcp(host: &str, port: u16, limit: Duration) -> Result<TcpStream, String> {
    let deadline = Instant::now() + limit;
    let addresses = match timeout_at(deadline, names::addresses(host, port)).await {
        Ok(found) => found?,
        Err(_) => {
            let servers = names::servers();
            return Err(format!("the name {host} was not resolved within {limit:?} (asked {servers})"));
        }
    };
    let mut failures = Vec::new();
    for (i, address) in addresses.iter().enumerate() {
        // An address that does not answer leaves its share of the time to those after it.
        let now = Instant::now();
        let left = u32::try_from(addresses.len() - i).unwrap_or(u32::MAX);
        let share = now + deadline.saturating_duration_since(now) / left;
        match timeout_at(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) if !is_own_end(&stream) => return Ok(stream),
            Ok(Ok(_)) => {
                failures.push(format!("{address}: {}", io::Error::from(io::ErrorKind::ConnectionRefused)));
            }
            Ok(Err(error)) => failures.push(format!("{address}: {error}")),
            Err(_) => failures.push(format!("{address}: no answer within {:?}", rounded(share - now))),
        }
    }
    match failures.is_empty() {
        true => Err(format!("the name {host} has no address")),
        false => Err(format!("cannot connect to {}", failures.join(", "))),
    }
}

/// As much of a time as people want to read.
fn rounded(time: Duration) -> Duration {
    let hundredths = (time.as_millis() + 5) / 10;
    Duration::from_millis(u64::try_from(10 * hundredths).unwrap_or(u64::MAX))
}

/// On one machine, a connect to a port that nobody listens on can meet itself: the system picks that very port for
/// our end, and TCP's simultaneous open succeeds. That is no broker.
fn is_own_end(stream: &TcpStream) -> bool {
    matches!((stream.local_addr(), stream.peer_addr()), (Ok(local), Ok(peer)) if local == peer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime")
    }

    #[test]
    fn all_addresses_of_a_name_are_tried() {
        // localhost usually has two addresses; the listener has one of them.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        let stream = runtime().block_on(tcp("localhost", port, Duration::from_secs(2))).expect("listening");
        assert_eq!(stream.peer_addr().expect("connected").port(), port);
    }

    #[test]
    fn a_failure_names_address_and_error() {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("loopback");
        let port = free.local_addr().expect("bound").port();
        drop(free);
        let text =
            runtime().block_on(tcp("127.0.0.1", port, Duration::from_secs(2))).expect_err("nobody listens");
        assert!(text.contains(&format!("127.0.0.1:{port}: ")) && text.contains("os error"), "{text}");
    }
}
