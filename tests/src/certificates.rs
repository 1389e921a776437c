//! Certificates for tests, and a TLS end in front of a server that has none.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tempfile::TempDir;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A certificate authority of a test's own, with its certificate in a file.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    folder: TempDir,
}

/// A server's or a client's certificate and its key, in PEM.
pub struct SignedCertificate {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Default for Authority {
    fn default() -> Authority {
        Authority::new()
    }
}

impl Authority {
    /// Makes an authority that nobody trusts yet.
    ///
    /// # Panics
    /// If the system has no randomness or no room left.
    #[must_use]
    pub fn new() -> Authority {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        let folder = TempDir::new().expect("a folder");
        fs::write(folder.path().join("ca.pem"), issuer.pem()).expect("a file");
        Authority { issuer, folder }
    }

    /// The file with its certificate.
    #[must_use]
    pub fn file(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    /// Signs a certificate for a host.
    ///
    /// # Panics
    /// If it is no host's name.
    #[must_use]
    pub fn certificate(&self, host: &str) -> SignedCertificate {
        self.signed(&CertificateParams::new([host.to_owned()]).expect("a host's name"))
    }

    /// Signs a certificate for a client by its common name, which Postgres compares with the role's.
    ///
    /// # Panics
    /// If the system has no randomness left.
    #[must_use]
    pub fn client_certificate(&self, role: &str) -> SignedCertificate {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.distinguished_name.push(DnType::CommonName, role);
        self.signed(&params)
    }

    fn signed(&self, params: &CertificateParams) -> SignedCertificate {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        SignedCertificate { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// Accepts TLS with a certificate and passes what it brings on to another address. It serves until the process ends.
///
/// # Panics
/// If the machine has no port left.
#[must_use]
pub fn in_front_of(backend: SocketAddr, server: &SignedCertificate) -> SocketAddr {
    let certificate = CertificateDer::from_pem_slice(server.certificate.as_bytes()).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(server.key.as_bytes()).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring speaks them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate with its key");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    let address = listener.local_addr().expect("it is bound");
    listener.set_nonblocking(true).expect("a socket");
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = TcpListener::from_std(listener).expect("a listener");
            while let Ok((stream, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                // A client that refuses the certificate, or goes, ends its own connection only.
                tokio::spawn(async move {
                    let mut tls = acceptor.accept(stream).await?;
                    let mut plain = TcpStream::connect(backend).await?;
                    copy_bidirectional(&mut tls, &mut plain).await
                });
            }
        });
    });
    address
}
