//! TLS towards brokers: whom to trust, and the handshake. Everything after it is in [`crate::socket`].

use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::setup::ClientTls;

/// How to speak TLS with a broker.
#[derive(Clone)]
pub(crate) struct Client {
    connector: TlsConnector,
    name: ServerName<'static>,
}

impl Client {
    /// For a broker called `host`, verified with the certificates of a file, or with the system's roots.
    /// The error is a text for people.
    pub(crate) fn new(host: &str, tls: &ClientTls) -> Result<Client, String> {
        let host = tls.server_name.as_deref().unwrap_or(host);
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("{host:?} cannot be the name in a certificate"))?;
        let roots = match &tls.ca {
            Some(file) => roots_of(file)?,
            None => system_roots()?,
        };
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Client { connector: TlsConnector::from(Arc::new(config)), name })
    }

    /// The handshake on a fresh connection. The error says what the other side, or its certificate, lacks.
    pub(crate) async fn handshake(
        &self,
        stream: TcpStream,
    ) -> std::io::Result<(TcpStream, ClientConnection)> {
        let stream = self.connector.connect(self.name.clone(), stream).await?;
        Ok(stream.into_inner())
    }
}

fn roots_of(file: &Path) -> Result<RootCertStore, String> {
    let shown = file.display();
    let certificates =
        CertificateDer::pem_file_iter(file).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        let certificate = certificate.map_err(|error| format!("{shown} is not a PEM file: {error}"))?;
        roots
            .add(certificate)
            .map_err(|error| format!("{shown} has a certificate that is of no use: {error}"))?;
    }
    match roots.is_empty() {
        true => Err(format!("{shown} has no certificate; a PEM file with BEGIN CERTIFICATE is needed")),
        false => Ok(roots),
    }
}

fn system_roots() -> Result<RootCertStore, String> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(found.certs);
    if added > 0 {
        return Ok(roots);
    }
    let why = found.errors.first().map(|error| format!(" ({error})")).unwrap_or_default();
    Err(format!(
        "this system has no root certificates{why}; install the package ca-certificates, or name a file"
    ))
}
