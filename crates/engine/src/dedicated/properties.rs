//! What a broker is told of a dedicated session's client: the client's own properties, and where it came from.

use warren_wire::table::Table;

use crate::api::Peer;
use crate::tables::{put_str, put_table};

/// The largest start-ok with additions. LavinMQ drops longer ones, and so does RabbitMQ before 4.1.
const START_OK_MOST: usize = 4096;

/// Keys that begin so are Warren's to say: who trusts them must not be lied to by a client.
const RESERVED: [&[u8]; 2] = [b"warren_", b"amqpprox_"];

/// Where a client came from, and how it gets to its broker.
pub(super) struct Journey<'a> {
    pub(super) peer: &'a Peer,
    /// Its listener's name.
    pub(super) listener: &'a str,
    /// Its route's name, if it is known already.
    pub(super) route: Option<&'a str>,
    /// What this machine is called.
    pub(super) hostname: &'a str,
    /// The port on this machine from which the connection to the broker was made.
    pub(super) local_port: u16,
}

impl Journey<'_> {
    /// Entries of a table, the most important first.
    fn entries(&self) -> Vec<Vec<u8>> {
        let Journey { peer, listener, route, hostname, local_port } = self;
        let mut address = peer.address;
        address.set_ip(address.ip().to_canonical());
        let port = address.port();
        let named = peer.host.as_ref().map(|host| format!("{host}:{port}"));
        let tls = if peer.tls.is_some() { " TLS" } else { "" };
        let amqpprox_client = format!("{}{tls}", named.unwrap_or_else(|| address.to_string()));
        let amqpprox_host = format!("(:{}) {hostname}:{local_port}", peer.local.port());
        let mut entries = vec![
            entry("warren_client", &address.to_string()),
            entry("amqpprox_client", &amqpprox_client),
            entry("warren_listener", listener),
        ];
        entries.extend(route.map(|route| entry("warren_route", route)));
        entries.extend(peer.tls.as_ref().map(|tls| {
            let mut said = Vec::new();
            put_str(&mut said, "version", &tls.version);
            put_str(&mut said, "cipher", &tls.cipher);
            if let Some(name) = &tls.certificate_cn {
                put_str(&mut said, "certificate_cn", name);
            }
            let mut entry = Vec::new();
            put_table(&mut entry, "warren_tls", &said);
            entry
        }));
        entries.push(entry("amqpprox_host", &amqpprox_host));
        entries.extend(peer.host.as_ref().map(|host| entry("warren_client_host", host)));
        entries
    }
}

fn entry(key: &str, value: &str) -> Vec<u8> {
    let mut entry = Vec::new();
    put_str(&mut entry, key, value);
    entry
}

/// The client's properties with what Warren adds, as far as there is room in a start-ok that has `others` octets in its
/// other fields. The client's own stay in any case, but for what only Warren may say.
pub(super) fn replayed(own: &[u8], others: usize, journey: &Journey<'_>) -> Vec<u8> {
    let own = Table::from_encoded(own).unwrap_or(Table::EMPTY);
    let reserved = |key: &[u8]| RESERVED.iter().any(|prefix| key.starts_with(prefix));
    let mut table: Vec<u8> =
        own.encoded().filter(|(key, _)| !reserved(key)).flat_map(|(_, entry)| entry).copied().collect();
    for entry in journey.entries() {
        if table.len() + entry.len() + others <= START_OK_MOST {
            table.extend(entry);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use warren_wire::table::Value;

    use super::*;
    use crate::api::ClientTls;

    fn peer() -> Peer {
        let tls = ClientTls {
            sni: None,
            version: "TLSv1.3".into(),
            cipher: "TLS13_AES_128_GCM_SHA256".into(),
            certificate_cn: Some("billing".into()),
        };
        Peer {
            address: "[::ffff:192.0.2.7]:4000".parse().expect("an address"),
            local: SocketAddr::from(([127, 0, 0, 1], 5671)),
            listener: 0,
            host: None,
            tls: Some(Box::new(tls)),
        }
    }

    fn journey(peer: &Peer) -> Journey<'_> {
        Journey { peer, listener: "secure", route: Some("orders"), hostname: "proxy1", local_port: 40_123 }
    }

    fn text(table: &[u8], key: &str) -> Option<String> {
        match Table::from_encoded(table).expect("well-formed").get(key.as_bytes())? {
            Value::Str(text) => Some(String::from_utf8_lossy(text).into_owned()),
            _ => None,
        }
    }

    #[test]
    fn a_broker_is_told_where_a_client_came_from() {
        let mut own = Vec::new();
        put_str(&mut own, "product", "an application");
        let mut peer = peer();
        let told = replayed(&own, 0, &journey(&peer));
        assert_eq!(text(&told, "product").as_deref(), Some("an application"));
        assert_eq!(text(&told, "warren_client").as_deref(), Some("192.0.2.7:4000"));
        assert_eq!(text(&told, "warren_listener").as_deref(), Some("secure"));
        assert_eq!(text(&told, "warren_route").as_deref(), Some("orders"));
        assert_eq!(text(&told, "amqpprox_client").as_deref(), Some("192.0.2.7:4000 TLS"));
        assert_eq!(text(&told, "amqpprox_host").as_deref(), Some("(:5671) proxy1:40123"));
        let told = Table::from_encoded(&told).expect("well-formed");
        let Some(Value::Table(tls)) = told.get(b"warren_tls") else { panic!("nothing of TLS") };
        assert_eq!(tls.get(b"certificate_cn"), Some(Value::Str(b"billing")));
        assert_eq!(tls.get(b"version"), Some(Value::Str(b"TLSv1.3")));

        peer.host = Some("app7.example.com".into());
        let told = replayed(&own, 0, &journey(&peer));
        assert_eq!(text(&told, "amqpprox_client").as_deref(), Some("app7.example.com:4000 TLS"));
        assert_eq!(text(&told, "warren_client_host").as_deref(), Some("app7.example.com"));
    }

    #[test]
    fn a_client_cannot_forge_what_warren_says() {
        let mut own = Vec::new();
        put_str(&mut own, "warren_client", "10.0.0.1:1");
        put_str(&mut own, "amqpprox_auth", "admin");
        put_str(&mut own, "information", "warren_client");
        let peer = peer();
        let told = replayed(&own, 0, &journey(&peer));
        assert_eq!(text(&told, "warren_client").as_deref(), Some("192.0.2.7:4000"));
        assert_eq!(text(&told, "amqpprox_auth"), None);
        assert_eq!(text(&told, "information").as_deref(), Some("warren_client"));
    }

    #[test]
    fn what_does_not_fit_is_left_out_and_never_the_clients_own() {
        let peer = peer();
        for size in (3500..4200).step_by(7) {
            let mut own = Vec::new();
            put_str(&mut own, "information", &"x".repeat(size));
            let told = replayed(&own, 100, &journey(&peer));
            assert!(told.starts_with(&own));
            assert!(told.len() + 100 <= START_OK_MOST || told == own, "{size}");
        }
    }
}
