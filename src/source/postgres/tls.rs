//! TLS towards the server: its certificate must come from a trusted authority and bear the name that was asked for. A login
//! by SCRAM is bound to that certificate, so that whoever stands between, with one of the same authority, cannot hand it on.

use std::sync::Arc;

use sha2::{Digest, Sha256, Sha384, Sha512};
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

/// What binds a login to this connection (`tls-server-end-point` of RFC 5929): a hash of the server's certificate, by the
/// function that its signature uses. `None` for signatures without one of their own, as Ed25519's.
pub(super) fn end_point(stream: &TlsStream<TcpStream>) -> Option<Vec<u8>> {
    let certificate = stream.get_ref().1.peer_certificates()?.first()?;
    bound_to(certificate)
}

fn bound_to(certificate: &[u8]) -> Option<Vec<u8>> {
    match *signature(certificate)? {
        // sha256WithRSAEncryption and its neighbours, ecdsa-with-SHA256 and its neighbours.
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 11] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 2] => {
            Some(Sha256::digest(certificate).to_vec())
        }
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 12] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 3] => {
            Some(Sha384::digest(certificate).to_vec())
        }
        [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 13] | [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3, 4] => {
            Some(Sha512::digest(certificate).to_vec())
        }
        _ => None,
    }
}

/// The object identifier of the algorithm by which a certificate is signed: its second part, after what is signed.
fn signature(certificate: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    const IDENTIFIER: u8 = 0x06;
    let (parts, _) = element(certificate, SEQUENCE)?;
    let (_signed, parts) = element(parts, SEQUENCE)?;
    let (algorithm, _) = element(parts, SEQUENCE)?;
    Some(element(algorithm, IDENTIFIER)?.0)
}

/// The content of the first DER element, which must have that tag, and what comes behind it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&found, der) = der.split_first()?;
    let (&length, der) = der.split_first()?;
    let (length, der) = match length {
        0..=0x7f => (usize::from(length), der),
        0x81..=0x84 => {
            let (bytes, der) = der.split_at_checked(usize::from(length & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), der)
        }
        _ => return None,
    };
    if found == tag { der.split_at_checked(length) } else { None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrapped(tag: u8, content: &[u8]) -> Vec<u8> {
        let length = content.len() as u16;
        let head =
            if length < 0x80 { vec![tag, length as u8] } else { [&[tag, 0x82], &length.to_be_bytes()[..]].concat() };
        [&head, content].concat()
    }

    #[test]
    fn a_certificate_is_hashed_by_the_function_of_its_signature() {
        let signed_by = |identifier: &[u8]| {
            let algorithm = wrapped(0x30, &[wrapped(6, identifier), wrapped(5, &[])].concat());
            wrapped(0x30, &[wrapped(0x30, &[7; 300]), algorithm, wrapped(3, &[1; 70])].concat())
        };
        let length = |identifier: &[u8]| bound_to(&signed_by(identifier)).map(|hash| hash.len());
        let (rsa, ecdsa) = ([0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1], [0x2a, 0x86, 0x48, 0xce, 0x3d, 4, 3]);
        for (hash, bytes) in [(0, 32), (1, 48), (2, 64)] {
            assert_eq!(length(&[&rsa[..], &[11 + hash]].concat()), Some(bytes));
            assert_eq!(length(&[&ecdsa[..], &[2 + hash]].concat()), Some(bytes));
        }
        assert_eq!(length(&[0x2b, 0x65, 0x70]), None, "Ed25519");
        let whole = signed_by(&[&rsa[..], &[11]].concat());
        assert!((0..whole.len()).all(|end| bound_to(&whole[..end]).is_none()), "cut off anywhere");
    }
}
