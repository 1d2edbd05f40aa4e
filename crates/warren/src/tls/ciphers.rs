//! Cipher suites by name.

use rustls::SupportedCipherSuite;
use rustls::crypto::ring::ALL_CIPHER_SUITES;

/// The suite of this name: rustls' (`TLS13_AES_128_GCM_SHA256`), IANA's (`TLS_AES_128_GCM_SHA256`) or OpenSSL's
/// (`ECDHE-RSA-AES128-GCM-SHA256`), in any case.
pub(crate) fn find(name: &str) -> Option<SupportedCipherSuite> {
    let wanted = essence(name);
    ALL_CIPHER_SUITES.iter().copied().find(|suite| essence(&name_of(*suite)) == wanted)
}

/// The names that there are, as rustls writes them.
pub(crate) fn names() -> Vec<String> {
    ALL_CIPHER_SUITES.iter().map(|suite| name_of(*suite)).collect()
}

/// A suite's name, as rustls writes it.
pub(crate) fn name_of(suite: SupportedCipherSuite) -> String {
    format!("{:?}", suite.suite())
}

/// What the three ways of naming a suite have in common.
fn essence(name: &str) -> String {
    let name = name.to_ascii_uppercase().replace('-', "_");
    let name = name.strip_prefix("TLS13_").or_else(|| name.strip_prefix("TLS_")).unwrap_or(&name);
    let name = name.replace("_WITH_", "_").replace('_', "");
    // OpenSSL leaves the hash out where only one is possible.
    name.strip_suffix("POLY1305SHA256").map_or(name.clone(), |start| format!("{start}POLY1305"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_suite_has_three_names() {
        for (name, found) in [
            ("TLS13_AES_256_GCM_SHA384", "TLS13_AES_256_GCM_SHA384"),
            ("tls_aes_256_gcm_sha384", "TLS13_AES_256_GCM_SHA384"),
            ("TLS_CHACHA20_POLY1305_SHA256", "TLS13_CHACHA20_POLY1305_SHA256"),
            ("TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
            ("ECDHE-RSA-AES128-GCM-SHA256", "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"),
            ("ecdhe-ecdsa-chacha20-poly1305", "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"),
        ] {
            assert_eq!(find(name).map(name_of).as_deref(), Some(found), "{name}");
        }
        assert!(names().iter().all(|name| find(name).map(name_of).as_ref() == Some(name)));
        assert!(find("AES128-SHA").is_none() && find("").is_none());
    }
}
