//! An authority of our own and the certificates that it signs, as PEM files in a folder that goes with it.

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

/// An authority; its folder is removed when it is dropped.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: tempfile::TempDir,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Signed {
    /// The certificate, PEM.
    pub certificate: PathBuf,
    /// Its private key, PEM.
    pub key: PathBuf,
}

impl Authority {
    /// A new authority that nobody else trusts.
    pub fn new() -> Authority {
        let folder = tempfile::Builder::new().prefix("warren-tls-").tempdir().expect("a temporary folder");
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, crate::unique("Warren authority"));
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("its own signature");
        fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("an own folder");
        Authority { issuer, folder }
    }

    /// The authority's own certificate, PEM: what to trust.
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Signs a certificate for DNS names and IP addresses; `name` names its files.
    pub fn sign(&self, name: &str, subjects: &[&str]) -> Signed {
        self.sign_as(name, subjects, |_| {})
    }

    /// As [`Authority::sign`], for a certificate that expired long ago.
    pub fn sign_expired(&self, name: &str, subjects: &[&str]) -> Signed {
        self.sign_as(name, subjects, |params| {
            params.not_before = rcgen::date_time_ymd(2001, 2, 3);
            params.not_after = rcgen::date_time_ymd(2002, 3, 4);
        })
    }

    fn sign_as(&self, name: &str, subjects: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Signed {
        let subjects: Vec<String> = subjects.iter().map(|s| (*s).to_owned()).collect();
        let mut params = CertificateParams::new(subjects).expect("names");
        params.distinguished_name.push(DnType::CommonName, name);
        change(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a signature");
        let at = |ending: &str| self.folder.path().join(format!("{name}{ending}"));
        let signed = Signed { certificate: at(".pem"), key: at(".key") };
        fs::write(&signed.certificate, certificate.pem()).expect("an own folder");
        fs::write(&signed.key, key.serialize_pem()).expect("an own folder");
        signed
    }
}

/// A client of TLS that trusts one authority, and may show a certificate. `versions`: all when empty.
pub fn client(
    trusts: &Authority,
    shows: Option<&Signed>,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let ca = CertificateDer::from_pem_file(trusts.file()).expect("our own certificate");
    roots.add(ca).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let versions = if versions.is_empty() { rustls::ALL_VERSIONS } else { versions };
    let config = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions);
    let config = config.expect("versions that there are").with_root_certificates(roots);
    Arc::new(match shows {
        None => config.with_no_client_auth(),
        Some(signed) => {
            let certificate =
                CertificateDer::from_pem_file(&signed.certificate).expect("our own certificate");
            let key = PrivateKeyDer::from_pem_file(&signed.key).expect("our own key");
            config.with_client_auth_cert(vec![certificate], key).expect("they fit together")
        }
    })
}

impl Default for Authority {
    fn default() -> Authority {
        Authority::new()
    }
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Authority({})", self.file().display())
    }
}
