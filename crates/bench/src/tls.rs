//! TLS as all ways have it: one version, one cipher suite, one group, one kind of certificate, and nothing resumed.
//!
//! The load generator and the null broker offer nothing else, so a proxy that is set up otherwise does not get through.
//! Nothing is resumed: clients keep no tickets, and the broker gives none out, as RabbitMQ does not unless it is told to.
//! Each handshake that is measured is a whole one.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use rustls::client::Resumption;
use rustls::crypto::ring::{self, cipher_suite, kx_group};
use rustls::crypto::{CryptoProvider, SupportedKxGroup};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use warren_testkit::certificates::{Authority, Signed};

/// What servers, proxies among them, are called in their certificate.
pub(crate) const SERVER_NAME: &str = "localhost";
/// The cipher suite: what OpenSSL, rustls and Erlang all prefer where a processor has AES.
pub(crate) const CIPHER_SUITE: &str = "TLS_AES_256_GCM_SHA384";

/// An authority and the certificate that the null broker and all proxies show: ECDSA with P-256. The files go with it.
pub(crate) struct Certificates {
    authority: Authority,
    signed: Signed,
}

impl Certificates {
    pub(crate) fn new() -> Self {
        let authority = Authority::new();
        let signed = authority.sign("server", &[SERVER_NAME]);
        Certificates { authority, signed }
    }

    /// Whom to trust.
    pub(crate) fn ca(&self) -> PathBuf {
        self.authority.file()
    }

    pub(crate) fn certificate(&self) -> &Path {
        &self.signed.certificate
    }

    pub(crate) fn key(&self) -> &Path {
        &self.signed.key
    }
}

fn provider() -> Arc<CryptoProvider> {
    let group: &'static dyn SupportedKxGroup = kx_group::X25519;
    Arc::new(CryptoProvider {
        cipher_suites: vec![cipher_suite::TLS13_AES_256_GCM_SHA384],
        kx_groups: vec![group],
        ..ring::default_provider()
    })
}

/// For clients that trust the authority in `ca`.
pub(crate) fn client(ca: &Path) -> Result<Arc<ClientConfig>> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(ca).with_context(|| format!("cannot read {}", ca.display()))?)?;
    let mut config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.resumption = Resumption::disabled();
    Ok(Arc::new(config))
}

/// For the null broker.
pub(crate) fn server(certificate: &Path, key: &Path) -> Result<Arc<ServerConfig>> {
    let chain = vec![CertificateDer::from_pem_file(certificate).context("the certificate")?];
    let key = PrivateKeyDer::from_pem_file(key).context("the key")?;
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use rustls::{ClientConnection, HandshakeKind, ProtocolVersion, ServerConnection};

    use super::*;

    /// A handshake without sockets.
    fn handshake(client: Arc<ClientConfig>, server: Arc<ServerConfig>) -> Result<ClientConnection> {
        let mut client = ClientConnection::new(client, SERVER_NAME.try_into()?)?;
        let mut server = ServerConnection::new(server)?;
        while client.is_handshaking() || server.is_handshaking() {
            let mut octets = Vec::new();
            client.write_tls(&mut octets)?;
            server.read_tls(&mut octets.as_slice())?;
            server.process_new_packets()?;
            octets.clear();
            server.write_tls(&mut octets)?;
            client.read_tls(&mut octets.as_slice())?;
            client.process_new_packets()?;
        }
        Ok(client)
    }

    #[test]
    fn one_version_one_suite_and_nothing_resumed() -> Result<()> {
        let certificates = Certificates::new();
        let ours = client(&certificates.ca())?;
        let server = server(certificates.certificate(), certificates.key())?;
        for _ in 0..2 {
            let session = handshake(Arc::clone(&ours), Arc::clone(&server))?;
            assert_eq!(session.protocol_version(), Some(ProtocolVersion::TLSv1_3));
            let suite = session.negotiated_cipher_suite().map(|suite| format!("{:?}", suite.suite()));
            assert_eq!(
                suite.as_deref().map(|suite| suite.replace("TLS13", "TLS")),
                Some(CIPHER_SUITE.to_owned())
            );
            assert_eq!(session.handshake_kind(), Some(HandshakeKind::Full));
        }
        Ok(())
    }

    #[test]
    fn who_is_set_up_otherwise_does_not_get_through() -> Result<()> {
        let certificates = Certificates::new();
        let server = server(certificates.certificate(), certificates.key())?;
        let mut other = (*provider()).clone();
        other.cipher_suites = vec![cipher_suite::TLS13_AES_128_GCM_SHA256];
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificates.ca())?)?;
        let client = ClientConfig::builder_with_provider(Arc::new(other))
            .with_protocol_versions(&[&TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        assert!(handshake(Arc::new(client), server).is_err());
        Ok(())
    }
}
