//! The server's certificate.

use std::sync::Arc;

use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring::default_provider;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate with its chain, and its key, both as PEM.
#[derive(Debug, Clone)]
pub struct Tls {
    /// The certificate, and those that it hangs on.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl Tls {
    pub(crate) fn acceptor(&self) -> Result<TlsAcceptor, String> {
        let wrong = |e: &dyn std::fmt::Display| format!("the certificate of redshift-sim: {e}");
        let chain: Vec<_> = CertificateDer::pem_slice_iter(self.certificate.as_bytes())
            .collect::<Result<_, _>>()
            .map_err(|e| wrong(&e))?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes()).map_err(|e| wrong(&e))?;
        let config = ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_safe_default_protocol_versions()
            .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
            .map_err(|e| wrong(&e))?;
        Ok(TlsAcceptor::from(Arc::new(config)))
    }
}
