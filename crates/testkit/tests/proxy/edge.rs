//! What the tests of TLS and of the PROXY protocol have in common: certificates, files, clients.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use warren_testkit::certificates::{Authority, Signed, client};
use warren_testkit::{Handshake, Peer, Warren};

/// The name in Warren's certificate.
pub(crate) const NAME: &str = "warren.example";

/// An authority, and a certificate of Warren's.
pub(crate) struct Papers {
    pub(crate) authority: Authority,
    pub(crate) server: Signed,
}

impl Papers {
    pub(crate) fn new() -> Papers {
        let authority = Authority::new();
        let names = [NAME, "a.example", "b.example", "127.0.0.1"];
        let server = authority.sign("server", &names);
        Papers { authority, server }
    }

    /// The inline table of a listener that speaks TLS, with more keys.
    pub(crate) fn table(&self, more: &str) -> String {
        let Signed { certificate, key } = &self.server;
        let more = if more.is_empty() { String::new() } else { format!(", {more}") };
        format!("{{ certificate = {certificate:?}, key = {key:?}{more} }}")
    }

    /// As [`Papers::table`], asking clients for certificates of the same authority.
    pub(crate) fn asking(&self, client_auth: &str) -> String {
        self.table(&format!("client_ca = {:?}, client_auth = {client_auth:?}", self.authority.file()))
    }

    /// A client that trusts the authority.
    pub(crate) fn client(&self) -> Arc<rustls::ClientConfig> {
        client(&self.authority, None, &[])
    }

    /// A client that shows a certificate.
    pub(crate) fn showing(&self, signed: &Signed) -> Arc<rustls::ClientConfig> {
        client(&self.authority, Some(signed), &[])
    }
}

/// Tables of a file: one worker, debug log, one backend and farm on the loopback address, one route for all.
pub(crate) fn base(broker: u16, backend: &str) -> String {
    format!(
        "[proxy]\nworkers = 1\nlog_level = \"debug\"\n\
         [[backend]]\nname = \"node\"\nhost = \"127.0.0.1\"\nport = {broker}\n{backend}\n\
         [[farm]]\nname = \"main\"\nbackends = [\"node\"]\n"
    )
}

/// A route for everything.
pub(crate) const ROUTE: &str = "[[route]]\nfarm = \"main\"\n";

/// A listener on a free port of the loopback address.
pub(crate) fn listener(name: &str, more: &str) -> String {
    format!("[[listener]]\nname = {name:?}\naddress = \"127.0.0.1:0\"\n{more}\n")
}

/// A client that comes in over TLS, or how it failed: in TLS, or in the handshake of AMQP.
pub(crate) fn try_enter(
    warren: &Warren,
    number: usize,
    config: &Arc<rustls::ClientConfig>,
    handshake: &Handshake,
) -> Result<Peer, String> {
    let mut peer = Peer::try_tls(warren.listener(number), config, NAME, b"").map_err(|e| e.to_string())?;
    // In TLS 1.3 a client is done before the server has seen its certificate, so that it may end anywhere from here on.
    let begin = peer.try_send_bytes(&warren_wire::frame::PROTOCOL_HEADER);
    begin.map_err(|e| e.to_string())?;
    peer.read_start().map_err(|e| format!("{e:?}"))?;
    peer.go_on(handshake).map_err(|e| format!("{e:?}"))?;
    Ok(peer)
}

/// A client that comes in over TLS.
pub(crate) fn enter(warren: &Warren, config: &Arc<rustls::ClientConfig>, handshake: &Handshake) -> Peer {
    try_enter(warren, 0, config, handshake).unwrap_or_else(|e| panic!("not let in: {e}\n{}", warren.log()))
}

/// Waits for a line of the log that has all of these words in it.
pub(crate) fn logs(warren: &Warren, words: &[&str]) {
    let found = || warren.log().lines().any(|line| words.iter().all(|word| line.contains(word)));
    let deadline = Instant::now() + Duration::from_secs(20);
    while !found() {
        assert!(Instant::now() < deadline, "the log does not say {words:?}:\n{}", warren.log());
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Puts a certificate and its key in the place of others, as careful operators do.
pub(crate) fn replace(old: &Signed, new: &Signed) {
    for (old, new) in [(&old.key, &new.key), (&old.certificate, &new.certificate)] {
        replace_file(old, &std::fs::read(new).expect("an own file"));
    }
}

/// Puts a file in the place of another.
pub(crate) fn replace_file(old: &Path, content: &[u8]) {
    let beside = old.with_extension("new");
    std::fs::write(&beside, content).expect("an own folder");
    std::fs::rename(&beside, old).expect("an own folder");
}
