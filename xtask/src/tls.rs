//! TLS of the HTTP client: rustls with ring, as in the shim, and the system's authorities.

use std::sync::Arc;

use ureq::tls::{Certificate, RootCerts, TlsConfig, TlsProvider};

/// How ureq connects to `https://`.
pub(crate) fn config() -> TlsConfig {
    // A certificate of the system that cannot be read is left out; if that was the one, connecting fails and says so.
    let found = rustls_native_certs::load_native_certs().certs;
    let roots = found.iter().map(|certificate| Certificate::from_der(certificate.as_ref()).to_owned());
    let roots: Vec<Certificate<'static>> = roots.collect();
    TlsConfig::builder()
        .provider(TlsProvider::Rustls)
        .root_certs(RootCerts::new_with_certs(&roots))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .build()
}
