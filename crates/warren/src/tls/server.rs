//! TLS towards clients.

use std::path::PathBuf;
use std::sync::Arc;

use rustls::crypto::ring::Ticketer;
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{NoClientAuth, WebPkiClientVerifier};
use rustls::sign::SingleCertAndKey;
use rustls::{Connection, ServerConfig, ServerConnection};
use tokio::net::TcpStream;
use warren_engine::ClientTls;

use super::files::{self, Own};
use super::watch::{Made, Watch, Watched};
use super::{ciphers, handshake, provider, version_name, versions};
use crate::setup::{ClientAuth, ServerTls};

/// How TLS is spoken at one listener.
pub(crate) struct Server {
    config: Arc<Watched<ServerConfig>>,
}

impl Server {
    /// For the listener of this name. Reads the files; the error is a text for people.
    pub(crate) fn new(name: &str, tls: &ServerTls) -> Result<Server, String> {
        let files: Vec<PathBuf> = [Some(&tls.certificate), Some(&tls.key), tls.client_ca.as_ref()]
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        let tls = tls.clone();
        let make = Box::new(move || make(&tls));
        Ok(Server { config: Arc::new(Watched::new(format!("listener {name}"), files, make)?) })
    }

    /// What is wrong with its files, although they can be used.
    pub(crate) fn warning(&self) -> Option<&str> {
        self.config.warning()
    }

    /// What has to look at its files.
    pub(crate) fn watch(&self) -> Arc<dyn Watch> {
        Arc::clone(&self.config) as Arc<dyn Watch>
    }

    /// The handshake with a client that was accepted. The error says what it, or its certificate, lacks.
    pub(crate) async fn handshake(&self, stream: &TcpStream) -> std::io::Result<(Connection, ClientTls)> {
        // Who says nothing costs no more than its socket.
        stream.readable().await?;
        let session = ServerConnection::new(self.config.get()).map_err(std::io::Error::other)?;
        let mut session = Connection::Server(session);
        handshake::complete(stream, &mut session).await?;
        let said = said(&session);
        Ok((session, said))
    }
}

/// What a client's handshake has said.
fn said(session: &Connection) -> ClientTls {
    let sni = match session {
        Connection::Server(session) => session.server_name().map(str::to_owned),
        Connection::Client(_) => None,
    };
    let certificate = session.peer_certificates().and_then(<[_]>::first);
    ClientTls {
        sni,
        version: session.protocol_version().map(version_name).unwrap_or_default(),
        cipher: session.negotiated_cipher_suite().map(ciphers::name_of).unwrap_or_default(),
        certificate_cn: certificate.and_then(files::common_name),
    }
}

/// Each time anew, with tickets of its own: what is resumed was begun with the same files.
fn make(tls: &ServerTls) -> Result<Made<ServerConfig>, String> {
    let provider = provider(&tls.ciphers);
    let own = Own::read(&tls.certificate, &tls.key, &provider)?;
    let verifier: Arc<dyn ClientCertVerifier> = match (&tls.client_ca, tls.client_auth) {
        (Some(file), ClientAuth::Optional | ClientAuth::Required) => {
            let roots = Arc::new(files::authorities(file)?);
            let mut builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider));
            if tls.client_auth == ClientAuth::Optional {
                builder = builder.allow_unauthenticated();
            }
            builder.build().map_err(|error| format!("{} is of no use: {error}", file.display()))?
        }
        _ => Arc::new(NoClientAuth),
    };
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions(tls.versions))
        .map_err(|error| format!("versions and ciphers leave nothing: {error}"))?
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(own.key)));
    config.ignore_client_order = !tls.ciphers.is_empty();
    // All workers, and more clients than any memory of sessions would hold, can resume.
    config.ticketer = Ticketer::new().map_err(|error| error.to_string())?;
    Ok(Made { value: config, warning: own.stale })
}
