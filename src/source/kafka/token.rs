//! SASL OAUTHBEARER tokens: from a token endpoint by client credentials, or signed for Amazon MSK with the AWS
//! credentials of the environment.

use std::error::Error as StdError;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit, Mac};
use rdkafka::client::OAuthToken;
use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;

use crate::config::KafkaSasl;

/// How long a signed token is valid: the most that MSK takes.
const VALID_SECONDS: i64 = 900;

/// How long the token endpoint may take.
const ANSWER: Duration = Duration::from_secs(20);

/// A token for the configured mechanism. Blocks: runs on threads of the client's callbacks.
pub(super) fn generate(sasl: Option<&KafkaSasl>, runtime: &Handle) -> Result<OAuthToken, Box<dyn StdError>> {
    match sasl {
        Some(KafkaSasl::OauthBearer { token_url, client_id, client_secret, scope }) => {
            let asked = Utc::now();
            let form = request_form(scope.as_deref());
            let granted = runtime.block_on(request(token_url, client_id, client_secret, form))?;
            Ok(OAuthToken {
                token: granted.access_token,
                principal_name: client_id.clone(),
                lifetime_ms: asked.timestamp_millis() + granted.expires_in.unwrap_or(DEFAULT_SECONDS) * 1000,
            })
        }
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

/// What a token endpoint answers (RFC 6749, 5.1).
#[derive(Deserialize)]
struct Granted {
    access_token: String,
    expires_in: Option<i64>,
}

/// How long a token is taken to be valid when the endpoint does not say.
const DEFAULT_SECONDS: i64 = 300;

fn request_form(scope: Option<&str>) -> String {
    let scope = scope.map(|scope| format!("&scope={}", percent(scope))).unwrap_or_default();
    format!("grant_type=client_credentials{scope}")
}

async fn request(url: &str, id: &str, secret: &str, form: String) -> Result<Granted, Box<dyn StdError>> {
    // Encoded before they are joined (RFC 6749, 2.3.1), so that a colon inside does no harm.
    let answer = reqwest::Client::builder()
        .timeout(ANSWER)
        .build()?
        .post(url)
        .basic_auth(percent(id), Some(percent(secret)))
        .header("content-type", "application/x-www-form-urlencoded")
        .header("accept", "application/json")
        .body(form)
        .send()
        .await?;
    let status = answer.status();
    let body = answer.bytes().await?;
    if !status.is_success() {
        // The body of a refusal names the error (`invalid_client`) and holds no secret.
        let body = String::from_utf8_lossy(&body[..body.len().min(300)]).replace('\0', "");
        return Err(format!("the token endpoint {url} answered {status}: {body}").into());
    }
    serde_json::from_slice(&body).map_err(|error| format!("the token endpoint {url} answered no token: {error}").into())
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

    /// Answers one request with `status` and `body`; gives what was asked.
    async fn endpoint(status: &'static str, body: &'static str) -> (String, tokio::task::JoinHandle<String>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/token", listener.local_addr().expect("an address"));
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a client");
            let mut request = String::new();
            while !request.contains("grant_type=client_credentials&scope=a%20b") {
                let mut part = [0; 1024];
                let read = stream.read(&mut part).await.expect("a request");
                assert!(read > 0, "the request ended: {request}");
                request.push_str(&String::from_utf8_lossy(&part[..read]));
            }
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            stream.write_all(answer.as_bytes()).await.expect("answered");
            request
        });
        (url, asked)
    }

    async fn ask(url: String) -> Result<OAuthToken, String> {
        let sasl = KafkaSasl::OauthBearer {
            token_url: url,
            client_id: "me".into(),
            client_secret: "s:1".into(),
            scope: Some("a b".into()),
        };
        let runtime = Handle::current();
        let asking = move || generate(Some(&sasl), &runtime).map_err(|error| error.to_string());
        tokio::task::spawn_blocking(asking).await.expect("no panic")
    }

    #[tokio::test]
    async fn client_credentials_are_exchanged_for_a_token() {
        let (url, asked) = endpoint("200 OK", r#"{"access_token":"T","token_type":"bearer","expires_in":600}"#).await;
        let before = Utc::now().timestamp_millis();
        let token = ask(url).await.expect("a token");
        assert_eq!((token.token.as_str(), token.principal_name.as_str()), ("T", "me"));
        assert!((600_000..660_000).contains(&(token.lifetime_ms - before)));
        let request = asked.await.expect("asked");
        // base64 of `me:s%3A1`
        assert!(request.contains("authorization: Basic bWU6cyUzQTE="), "{request}");

        let (url, _asked) = endpoint("401 Unauthorized", r#"{"error":"invalid_client"}"#).await;
        let refused = ask(url).await.err().expect("refused");
        assert!(refused.contains("401") && refused.contains("invalid_client") && !refused.contains("s:1"), "{refused}");
    }

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
