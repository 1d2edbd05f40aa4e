//! What TLS needs from the disk: certificates, keys, authorities. Errors are texts for people.

use std::path::Path;
use std::sync::Arc;

use rustls::RootCertStore;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use x509_parser::prelude::{FromDer, X509Certificate};
use x509_parser::time::ASN1Time;

/// A certificate with those that lead to its authority, and its key.
#[derive(Debug)]
pub(super) struct Own {
    pub(super) key: Arc<CertifiedKey>,
    /// When the certificate is of no use at this moment: that, with the date.
    pub(super) stale: Option<String>,
}

impl Own {
    /// Reads both files; they must fit together.
    pub(super) fn read(certificate: &Path, key: &Path, provider: &CryptoProvider) -> Result<Own, String> {
        let chain = certificates(certificate)?;
        let stale = stale(certificate, &chain)?;
        let private = private_key(key)?;
        let key = CertifiedKey::from_der(chain, private, provider).map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => format!(
                "{} is not the key of the certificate in {}; name the one that belongs to it",
                key.display(),
                certificate.display()
            ),
            error => format!("the key in {} is of no use: {error}", key.display()),
        })?;
        Ok(Own { key: Arc::new(key), stale })
    }
}

/// All certificates of a file, at least one.
fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = file.display();
    let all = CertificateDer::pem_file_iter(file).map_err(|error| unreadable(file, &error))?;
    let all: Result<Vec<_>, _> = all.collect();
    let all = all.map_err(|error| unreadable(file, &error))?;
    match all.is_empty() {
        true => Err(format!("{shown} has no certificate; a PEM file with BEGIN CERTIFICATE is needed")),
        false => Ok(all),
    }
}

fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(file).map_err(|error| match error {
        pem::Error::NoItemsFound => format!(
            "{} has no key that can be read; a PEM file with BEGIN PRIVATE KEY is needed, without a passphrase",
            file.display()
        ),
        error => unreadable(file, &error),
    })
}

fn unreadable(file: &Path, error: &pem::Error) -> String {
    match error {
        pem::Error::Io(error) => format!("cannot read {}: {error}", file.display()),
        error => format!("{} is not a PEM file: {error}", file.display()),
    }
}

/// The authorities of a file.
pub(super) fn authorities(file: &Path) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots
            .add(certificate)
            .map_err(|error| format!("{} has a certificate that is of no use: {error}", file.display()))?;
    }
    Ok(roots)
}

/// The authorities that the system trusts.
pub(super) fn system_authorities() -> Result<RootCertStore, String> {
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

/// Whether the first certificate of a chain has expired, or is not valid yet.
fn stale(file: &Path, chain: &[CertificateDer<'_>]) -> Result<Option<String>, String> {
    let shown = file.display();
    let first = chain.first().map(CertificateDer::as_ref).unwrap_or_default();
    let (_, certificate) = X509Certificate::from_der(first)
        .map_err(|error| format!("{shown} has a certificate that cannot be read: {error}"))?;
    let (validity, now) = (certificate.validity(), ASN1Time::now());
    Ok(if validity.not_after < now {
        Some(format!("the certificate in {shown} expired on {}; get a new one", validity.not_after))
    } else if validity.not_before > now {
        Some(format!("the certificate in {shown} is not valid before {}", validity.not_before))
    } else {
        None
    })
}

/// The common name of a certificate. Where there are several, which one is meant would be a guess: then there is none.
pub(super) fn common_name(certificate: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(certificate.as_ref()).ok()?;
    let mut names = certificate.subject().iter_common_name();
    let (name, other) = (names.next()?, names.next());
    name.as_str().ok().filter(|_| other.is_none()).map(str::to_owned)
}
