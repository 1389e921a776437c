//! TLS for connections to Postgres, Stripe and other servers: rustls with ring and the system's trusted certificates.

use std::sync::Arc;
use std::time::Duration;

use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::connect::HttpConnector;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{WantsClientCert, WebPkiServerVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, ConfigBuilder, DigitallySignedStruct, RootCertStore, SignatureScheme,
    WantsVerifier,
};
use tokio_postgres_rustls::MakeRustlsConnect;

/// What is checked of the server's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verification {
    /// Nothing: `disable`, `allow` and `prefer`.
    None,
    /// Who signed it, but not for which host: `verify-ca`.
    Authority,
    /// Both: `verify-full`. `require` too, which in libpq checks nothing: who requires encryption does not want it with
    /// just anybody.
    Full,
}

/// A client's certificate with those that signed it, and its key.
pub(crate) type ClientCertificate = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// TLS of connections to Postgres.
#[derive(Debug)]
pub(crate) struct DatabaseTls {
    pub(crate) verification: Verification,
    /// Of `sslrootcert`; none: the certificates that the system trusts.
    pub(crate) roots: Option<RootCertStore>,
    /// Of `sslcert` and `sslkey`: the client's own.
    pub(crate) client: Option<ClientCertificate>,
}

/// The connector of HTTPS clients. It lets plain http pass, for the loopback URLs that the configuration allows.
pub(crate) fn https_connector(connect_timeout: Duration) -> HttpsConnector<HttpConnector> {
    let mut http = HttpConnector::new();
    http.set_connect_timeout(Some(connect_timeout));
    http.set_nodelay(true);
    http.enforce_http(false);
    HttpsConnectorBuilder::new()
        .with_tls_config(checked())
        .https_or_http()
        .enable_http1()
        .wrap_connector(http)
}

/// The connector for Postgres. As in libpq, `prefer` does not check the server's certificate: an attacker who could
/// forge it could as well refuse encryption, and servers with a self-signed one, Debian's default, would be
/// unreachable.
pub(crate) fn postgres_connector(tls: &DatabaseTls) -> MakeRustlsConnect {
    let roots = || tls.roots.clone().unwrap_or_else(system_roots);
    let builder = match tls.verification {
        Verification::None => verified_by(AnyCertificate(ring::default_provider())),
        Verification::Full => builder().with_root_certificates(roots()),
        // Without any authority nothing is signed by one.
        Verification::Authority => match AnyHost::new(roots()) {
            Some(verifier) => verified_by(verifier),
            None => builder().with_root_certificates(RootCertStore::empty()),
        },
    };
    MakeRustlsConnect::new(match &tls.client {
        None => builder.with_no_client_auth(),
        Some((certificates, key)) => builder
            .clone()
            .with_client_auth_cert(certificates.clone(), key.clone_key())
            // A key of a kind that ring cannot sign with: the server refuses whoever has no certificate.
            .unwrap_or_else(|_| builder.with_no_client_auth()),
    })
}

/// Trusts the system's certificates, or those of `SSL_CERT_FILE`. If there are none, the first handshake fails with that error.
pub(crate) fn checked() -> ClientConfig {
    builder().with_root_certificates(system_roots()).with_no_client_auth()
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    roots
}

fn verified_by(verifier: impl ServerCertVerifier + 'static) -> ConfigBuilder<ClientConfig, WantsClientCert> {
    builder().dangerous().with_custom_certificate_verifier(Arc::new(verifier))
}

fn builder() -> ConfigBuilder<ClientConfig, WantsVerifier> {
    ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks every version that rustls thinks safe")
}

/// Accepts any certificate; the handshake must still be signed with it.
#[derive(Debug)]
struct AnyCertificate(CryptoProvider);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// Accepts a certificate that an authority signed, whichever host it is for: libpq's `verify-ca`.
#[derive(Debug)]
struct AnyHost(Arc<WebPkiServerVerifier>);

impl AnyHost {
    /// None without an authority.
    fn new(roots: RootCertStore) -> Option<Self> {
        let provider = Arc::new(ring::default_provider());
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build().ok().map(Self)
    }
}

impl ServerCertVerifier for AnyHost {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        // The name is the last thing that is checked.
        match self.0.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            Err(rustls::Error::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            result => result,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}
