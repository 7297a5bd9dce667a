//! Requests to AWS must be signed: <https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html>.

use axum::body::Bytes;
use axum::http::{HeaderMap, StatusCode};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

/// Why a request is refused: status, AWS' code, message.
#[derive(Debug)]
pub(crate) struct Denied(pub StatusCode, pub &'static str, pub String);

/// A refusal with this code.
pub(crate) fn denied(code: &'static str, message: impl Into<String>) -> Denied {
    let status = if code.ends_with("Exception") || code.starts_with("Missing") {
        StatusCode::BAD_REQUEST
    } else {
        StatusCode::FORBIDDEN
    };
    Denied(status, code, message.into())
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Signature version 4, in the Authorization header.
pub(crate) fn check_signature(
    keys: &(String, String),
    service: &str,
    method: &str,
    path: &str,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<(), Denied> {
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok());
    let given = header("authorization").and_then(|v| v.strip_prefix("AWS4-HMAC-SHA256 "));
    let given =
        given.ok_or_else(|| denied("MissingAuthenticationToken", "the request is not signed by AWS4-HMAC-SHA256"))?;
    let part = |name: &str| {
        given.split(',').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('=')).unwrap_or_default()
    };
    let incomplete = |why: &str| denied("IncompleteSignatureException", why.to_owned());
    let credential: Vec<&str> = part("Credential").split('/').collect();
    let [id, date, region, of, "aws4_request"] = credential.as_slice() else { return Err(incomplete("Credential")) };
    if *of != service {
        return Err(denied(
            "SignatureDoesNotMatch",
            format!("Credential should be scoped to correct service: '{service}'"),
        ));
    }
    if *id != keys.0 {
        return Err(denied("InvalidClientTokenId", "The security token included in the request is invalid."));
    }
    let time = header("x-amz-date").filter(|time| time.starts_with(date)).ok_or_else(|| incomplete("X-Amz-Date"))?;
    let signed: Vec<&str> = part("SignedHeaders").split(';').collect();
    if !signed.contains(&"host") || !signed.contains(&"x-amz-date") {
        return Err(incomplete("SignedHeaders must hold host and x-amz-date"));
    }
    let canonical: String =
        signed.iter().map(|name| format!("{name}:{}\n", header(name).unwrap_or_default().trim())).collect();
    let request = format!("{method}\n{path}\n\n{canonical}\n{}\n{}", signed.join(";"), hex(&Sha256::digest(body)));
    let text =
        format!("AWS4-HMAC-SHA256\n{time}\n{date}/{region}/{service}/aws4_request\n{}", hex(&Sha256::digest(request)));
    let mut key = format!("AWS4{}", keys.1).into_bytes();
    for step in [date, region, &service, &"aws4_request"] {
        key = mac(&key, step);
    }
    if hex(&mac(&key, &text)) != part("Signature") {
        return Err(denied(
            "SignatureDoesNotMatch",
            "The request signature we calculated does not match the signature you provided.",
        ));
    }
    Ok(())
}

fn mac(key: &[u8], text: &str) -> Vec<u8> {
    // HMAC takes a key of any length: there is nothing to fail.
    Hmac::<Sha256>::new_from_slice(key)
        .map(|mut mac| {
            mac.update(text.as_bytes());
            mac.finalize().into_bytes().to_vec()
        })
        .unwrap_or_default()
}
