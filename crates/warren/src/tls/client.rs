//! TLS towards brokers.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_cert_signed_by_trust_anchor;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::SingleCertAndKey;
use rustls::{CertificateError, ClientConfig, ClientConnection, Connection, DigitallySignedStruct};
use rustls::{RootCertStore, SignatureScheme};
use tokio::net::TcpStream;

use super::files::{self, Own};
use super::watch::{Made, Watch, Watched};
use super::{handshake, provider, versions};
use crate::setup::{ClientTls, Verify};

/// How to speak TLS with a broker.
#[derive(Clone)]
pub(crate) struct Client {
    config: Arc<Watched<ClientConfig>>,
    name: ServerName<'static>,
    /// Where its authorities come from, for people.
    trusts: String,
    verify: Verify,
}

impl Client {
    /// For the backend of this name, at `host`. Reads the files; the error is a text for people.
    pub(crate) fn new(name: &str, host: &str, tls: &ClientTls) -> Result<Client, String> {
        let host = tls.server_name.as_deref().unwrap_or(host);
        let server_name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("{host:?} cannot be the name in a certificate"))?;
        let own = tls.certificate.as_ref().map(|(certificate, key)| [certificate, key]);
        let files: Vec<PathBuf> = tls.ca.iter().chain(own.into_iter().flatten()).cloned().collect();
        let trusts = match &tls.ca {
            Some(file) => format!("an authority in {}", file.display()),
            None => "an authority that this system trusts".to_owned(),
        };
        let verify = tls.verify;
        let tls = tls.clone();
        let make = Box::new(move || make(&tls));
        let config = Arc::new(Watched::new(format!("backend {name}"), files, make)?);
        Ok(Client { config, name: server_name, trusts, verify })
    }

    /// What is wrong with its files, although they can be used.
    pub(crate) fn warning(&self) -> Option<&str> {
        self.config.warning()
    }

    /// Whether the broker's certificate is not looked at.
    pub(crate) fn trusts_anybody(&self) -> bool {
        self.verify == Verify::None
    }

    /// What has to look at its files.
    pub(crate) fn watch(&self) -> Arc<dyn Watch> {
        Arc::clone(&self.config) as Arc<dyn Watch>
    }

    /// The handshake on a fresh connection. The error says what the other side, or its certificate, lacks.
    pub(crate) async fn handshake(&self, stream: &TcpStream) -> Result<Connection, String> {
        let session = ClientConnection::new(self.config.get(), self.name.clone());
        let mut session = Connection::Client(session.map_err(|error| error.to_string())?);
        match handshake::complete(stream, &mut session).await {
            Ok(()) => Ok(session),
            Err(error) => Err(self.explain(&error)),
        }
    }

    /// What some errors mean here.
    fn explain(&self, error: &std::io::Error) -> String {
        let cause = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
        match cause {
            Some(rustls::Error::InvalidCertificate(CertificateError::UnknownIssuer)) => {
                format!("{error} (it must come from {})", self.trusts)
            }
            _ => error.to_string(),
        }
    }
}

fn make(tls: &ClientTls) -> Result<Made<ClientConfig>, String> {
    let provider = provider(&tls.ciphers);
    let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions(tls.versions))
        .map_err(|error| format!("versions and ciphers leave nothing: {error}"))?;
    let roots = || match &tls.ca {
        Some(file) => files::authorities(file),
        None => files::system_authorities(),
    };
    let lax = |roots| Arc::new(Lax { roots, provider: Arc::clone(&provider) });
    let builder = match tls.verify {
        Verify::Full => builder.with_root_certificates(roots()?),
        Verify::Ca => builder.dangerous().with_custom_certificate_verifier(lax(Some(roots()?))),
        Verify::None => builder.dangerous().with_custom_certificate_verifier(lax(None)),
    };
    let Some((certificate, key)) = &tls.certificate else {
        return Ok(Made { value: builder.with_no_client_auth(), warning: None });
    };
    let own = Own::read(certificate, key, &provider)?;
    let value = builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(own.key)));
    Ok(Made { value, warning: own.stale })
}

/// Verifies less than everything: whose certificate it is not, and without roots, who signed it neither.
#[derive(Debug)]
struct Lax {
    roots: Option<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lax {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if let Some(roots) = &self.roots {
            let certificate = ParsedCertificate::try_from(certificate)?;
            let algorithms = self.provider.signature_verification_algorithms.all;
            verify_server_cert_signed_by_trust_anchor(&certificate, roots, intermediates, now, algorithms)?;
        }
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signature,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
