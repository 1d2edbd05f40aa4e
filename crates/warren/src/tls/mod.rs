//! TLS with rustls, on both sides: [`server`] towards clients, [`client`] towards brokers. Both read [`files`], again when
//! these change ([`watch`]), and wait in [`handshake`]; everything after it is in [`stream`], where nothing waits.

pub(crate) mod ciphers;
mod client;
mod files;
mod handshake;
mod server;
pub(crate) mod stream;
mod watch;

use std::sync::Arc;

use rustls::crypto::{CryptoProvider, ring};
use rustls::version::{TLS12, TLS13};
use rustls::{ALL_VERSIONS, ProtocolVersion, SupportedCipherSuite, SupportedProtocolVersion};

pub(crate) use client::Client;
pub(crate) use server::Server;
pub(crate) use watch::Watch;

use crate::setup::TlsVersions;

/// Cryptography, with these cipher suites, or with all.
fn provider(ciphers: &[SupportedCipherSuite]) -> Arc<CryptoProvider> {
    let mut provider = ring::default_provider();
    if !ciphers.is_empty() {
        provider.cipher_suites = ciphers.to_vec();
    }
    Arc::new(provider)
}

fn versions(wanted: TlsVersions) -> &'static [&'static SupportedProtocolVersion] {
    static ONLY_12: [&SupportedProtocolVersion; 1] = [&TLS12];
    static ONLY_13: [&SupportedProtocolVersion; 1] = [&TLS13];
    match wanted {
        TlsVersions::All => ALL_VERSIONS,
        TlsVersions::Tls12 => &ONLY_12,
        TlsVersions::Tls13 => &ONLY_13,
    }
}

/// As OpenSSL, and with it everybody else, writes it: `TLSv1.3`.
fn version_name(version: ProtocolVersion) -> String {
    match version {
        ProtocolVersion::TLSv1_2 => "TLSv1.2".to_owned(),
        ProtocolVersion::TLSv1_3 => "TLSv1.3".to_owned(),
        other => format!("{other:?}"),
    }
}
