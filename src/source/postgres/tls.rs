//! TLS towards the server: its certificate must come from a trusted authority and bear the name that was asked for.

use std::sync::Arc;

use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::settings::{Settings, TlsSettings};
use crate::error::{Error, ErrorKind, Result};

fn bad(what: String, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(ErrorKind::Config, what).because(cause)
}

fn roots(settings: &TlsSettings) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    if let Some(path) = &settings.ca {
        let read = |error| bad(format!("read the authority's certificates from {path}"), error);
        for certificate in CertificateDer::pem_file_iter(path).map_err(read)? {
            let add = |error| bad(format!("trust the authority's certificates in {path}"), error);
            roots.add(certificate.map_err(read)?).map_err(add)?;
        }
    } else {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    }
    if roots.is_empty() {
        return Err(Error::new(ErrorKind::Config, "there is no certificate of an authority to trust")
            .help("name the file of the one that signed the server's: `tls: { ca: … }`"));
    }
    Ok(roots)
}

fn client(settings: &TlsSettings) -> Result<ClientConfig> {
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(ErrorKind::Internal, "set up TLS").because(error))?
        .with_root_certificates(roots(settings)?);
    match (&settings.certificate, &settings.key) {
        (Some(certificate), Some(key)) => {
            let read = |error| bad(format!("read our certificate from {certificate}"), error);
            let chain = CertificateDer::pem_file_iter(certificate).map_err(read)?;
            let chain = chain.collect::<std::result::Result<Vec<_>, _>>().map_err(read)?;
            let key = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| bad(format!("read our certificate's key from {key}"), error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| bad("use our certificate".into(), error))
        }
        (None, None) => Ok(builder.with_no_client_auth()),
        _ => Err(Error::new(ErrorKind::Config, "our certificate and its key go together")
            .help("write both `tls.certificate` and `tls.key`, or neither")),
    }
}

/// Speaks TLS on a connection whose server has agreed to.
pub(super) async fn wrap(socket: TcpStream, settings: &Settings) -> Result<TlsStream<TcpStream>> {
    let config = client(&settings.tls)?;
    let name = ServerName::try_from(settings.host.clone())
        .map_err(|error| bad(format!("`{}` cannot be in a certificate", settings.host), error))?;
    TlsConnector::from(Arc::new(config)).connect(name, socket).await.map_err(|error| {
        let refused = error.get_ref().is_some_and(|cause| cause.is::<tokio_rustls::rustls::Error>());
        let kind = if refused { ErrorKind::SourceRefused } else { ErrorKind::SourceUnavailable };
        Error::new(kind, format!("speak TLS with {}", settings.place())).because(error).help(
            "the server's certificate must be signed by an authority that this machine trusts (or that `tls: { ca: … }` \
             names) and bear the host name of the URL",
        )
    })
}
