//! The broker's address.

use std::fmt;

use super::host;

/// The port of AMQP without TLS: what a broker address without a port means.
const AMQP_PORT: u16 = 5672;
/// The same with TLS.
const AMQPS_PORT: u16 = 5671;

/// Where the broker is.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Upstream {
    /// Name or address, without brackets.
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Whether it speaks TLS there.
    pub(crate) tls: bool,
}

impl fmt::Display for Upstream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "amqps" } else { "amqp" };
        match self.host.contains(':') {
            true => write!(f, "{scheme}://[{}]:{}", self.host, self.port),
            false => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

impl Upstream {
    /// Reads an address. Its text is never repeated when it is refused: there may be a password in it.
    pub(super) fn read(text: &str) -> Result<Upstream, String> {
        parts(text).map_err(|problem| format!("{problem}; use amqp://HOST[:PORT] or amqps://HOST[:PORT]"))
    }
}

fn parts(text: &str) -> Result<Upstream, &'static str> {
    let (scheme, rest) = text.split_once("://").ok_or("the address has no scheme")?;
    let tls = match scheme.to_ascii_lowercase().as_str() {
        "amqp" => false,
        "amqps" => true,
        _ => return Err("the scheme is neither amqp nor amqps"),
    };
    let authority = rest.strip_suffix('/').unwrap_or(rest);
    if authority.contains('@') {
        return Err("no user or password here, clients bring their own");
    }
    if authority.contains(['/', '?', '#']) {
        return Err("no virtual host or parameters here, clients bring their own");
    }
    let (name, number) = match authority.rsplit_once(':') {
        Some((name, number)) if !number.contains(']') => (name, Some(number)),
        _ => (authority, None),
    };
    if name.contains(':') && !name.starts_with('[') {
        return Err("an IPv6 address needs brackets");
    }
    let port = match number {
        None if tls => AMQPS_PORT,
        None => AMQP_PORT,
        Some(number) => {
            let port = number.parse().ok().filter(|port| *port > 0 && !number.starts_with('+'));
            port.ok_or("the port is not a number from 1 to 65535")?
        }
    };
    let host = host(name).ok_or("the host is not a name or an IP address")?;
    Ok(Upstream { host: host.to_owned(), port, tls })
}
