//! SASL OAUTHBEARER tokens: signed ones for Amazon MSK, made from the AWS credentials of the environment.

use std::error::Error as StdError;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use rdkafka::client::OAuthToken;
use sha2::{Digest, Sha256};

use crate::config::KafkaSasl;

/// How long a signed token is valid: the most that MSK takes.
const VALID_SECONDS: i64 = 900;

/// A token for the configured mechanism.
pub(super) fn generate(sasl: Option<&KafkaSasl>) -> Result<OAuthToken, Box<dyn StdError>> {
    match sasl {
        Some(KafkaSasl::AwsMskIam { region }) => {
            let now = Utc::now();
            let token = signed(&Credentials::from_environment()?, region, now);
            Ok(OAuthToken {
                token,
                principal_name: String::new(),
                lifetime_ms: now.timestamp_millis() + VALID_SECONDS * 1000,
            })
        }
        _ => Err("tokens are not configured for this source: see `sasl:`".into()),
    }
}

struct Credentials {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
}

impl Credentials {
    fn from_environment() -> Result<Self, Box<dyn StdError>> {
        let need = |name: &str| std::env::var(name).map_err(|_| format!("the environment variable {name} is not set"));
        Ok(Self {
            access_key_id: need("AWS_ACCESS_KEY_ID")?,
            secret_access_key: need("AWS_SECRET_ACCESS_KEY")?,
            session_token: std::env::var("AWS_SESSION_TOKEN").ok().filter(|token| !token.is_empty()),
        })
    }
}

/// A presigned `kafka-cluster:Connect` request (Signature Version 4), which is MSK's token.
fn signed(credentials: &Credentials, region: &str, now: DateTime<Utc>) -> String {
    let host = format!("kafka.{region}.amazonaws.com");
    let time = now.format("%Y%m%dT%H%M%SZ").to_string();
    let day = now.format("%Y%m%d").to_string();
    let scope = format!("{day}/{region}/kafka-cluster/aws4_request");
    let mut query = vec![
        ("Action", "kafka-cluster:Connect".to_owned()),
        ("X-Amz-Algorithm", "AWS4-HMAC-SHA256".to_owned()),
        ("X-Amz-Credential", format!("{}/{scope}", credentials.access_key_id)),
        ("X-Amz-Date", time.clone()),
        ("X-Amz-Expires", VALID_SECONDS.to_string()),
    ];
    if let Some(token) = &credentials.session_token {
        query.push(("X-Amz-Security-Token", token.clone()));
    }
    query.push(("X-Amz-SignedHeaders", "host".to_owned()));
    let query: Vec<String> = query.iter().map(|(name, value)| format!("{name}={}", percent(value))).collect();
    let query = query.join("&");
    let request = format!("GET\n/\n{query}\nhost:{host}\n\nhost\n{}", hex(&Sha256::digest(b"")));
    let to_sign = format!("AWS4-HMAC-SHA256\n{time}\n{scope}\n{}", hex(&Sha256::digest(request.as_bytes())));
    let key = [day.as_str(), region, "kafka-cluster", "aws4_request"]
        .iter()
        .fold(format!("AWS4{}", credentials.secret_access_key).into_bytes(), |key, part| mac(&key, part.as_bytes()));
    let signature = hex(&mac(&key, to_sign.as_bytes()));
    let url = format!("https://{host}/?{query}&X-Amz-Signature={signature}&User-Agent=dataflow");
    URL_SAFE_NO_PAD.encode(url)
}

fn mac(key: &[u8], data: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("HMAC takes a key of any length");
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn percent(text: &str) -> String {
    text.bytes()
        .map(|byte| match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => char::from(byte).to_string(),
            _ => format!("%{byte:02X}"),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signed_token_is_a_presigned_url() {
        let credentials = Credentials {
            access_key_id: "AKIDEXAMPLE".into(),
            secret_access_key: "secret".into(),
            session_token: Some("a/b+c=".into()),
        };
        let now = DateTime::from_timestamp(1_700_000_000, 0).expect("a time");
        let token = signed(&credentials, "eu-west-3", now);
        let url = String::from_utf8(URL_SAFE_NO_PAD.decode(&token).expect("base64")).expect("text");
        assert!(
            url.starts_with(
                "https://kafka.eu-west-3.amazonaws.com/?Action=kafka-cluster%3AConnect&X-Amz-Algorithm=AWS4-HMAC-SHA256\
             &X-Amz-Credential=AKIDEXAMPLE%2F20231114%2Feu-west-3%2Fkafka-cluster%2Faws4_request\
             &X-Amz-Date=20231114T221320Z&X-Amz-Expires=900&X-Amz-Security-Token=a%2Fb%2Bc%3D&X-Amz-SignedHeaders=host\
             &X-Amz-Signature="
            ),
            "{url}"
        );
        let other = Credentials { secret_access_key: "other".into(), ..credentials };
        assert_ne!(token, signed(&other, "eu-west-3", now));
    }
}
