//! The S3 client: who we are, how objects are encrypted and checked, how often a request is tried, and the count of
//! requests.

use std::time::Duration;

use async_trait::async_trait;
use axum::http::Method;
use object_store::aws::{AmazonS3, AmazonS3Builder, Checksum, S3ConditionalPut};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};
use object_store::limit::LimitStore;
use object_store::{BackoffConfig, ClientOptions, RetryConfig};

use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::net::aws::{self, Environment, Wanted};
use crate::telemetry;

/// Requests at the same time, whatever asks for them.
const REQUESTS: usize = 32;

/// Opens a bucket. No network.
pub(super) fn open(config: &config::Lake, bucket: &str) -> Result<LimitStore<AmazonS3>> {
    if bucket.is_empty() {
        return Err(Error::new(ErrorKind::Config, "lake.url names no bucket").help("write s3://bucket/prefix"));
    }
    let account = account(config)?;
    tracing::debug!(bucket, credentials = account.origin, "opening the lake");
    let mut client = ClientOptions::new()
        .with_connect_timeout(Duration::from_secs(5))
        // A whole data file in one request over a slow link.
        .with_timeout(Duration::from_secs(180));
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(bucket)
        .with_credentials(account.credentials)
        .with_conditional_put(S3ConditionalPut::ETagMatch)
        .with_checksum_algorithm(Checksum::SHA256)
        .with_http_connector(Counting)
        // 503 SlowDown, other 5xx, lost connections: tried again after pauses with decorrelated jitter.
        .with_retry(RetryConfig {
            backoff: BackoffConfig { max_backoff: Duration::from_secs(5), ..BackoffConfig::default() },
            max_retries: 6,
            retry_timeout: Duration::from_secs(60),
        });
    if std::env::var_os("AWS_UNSIGNED_PAYLOAD").is_none() {
        // The store compares what it got with the checksum, which the signature covers. To sign the body itself as well
        // would have it read once more there, for the same sum.
        builder = builder.with_unsigned_payload(true);
    }
    if let Some(endpoint) = &config.endpoint {
        client = client.with_allow_http(endpoint.starts_with("http://"));
        builder = builder.with_endpoint(endpoint.trim_end_matches('/')).with_virtual_hosted_style_request(false);
    }
    if let Some(region) = &account.region {
        builder = builder.with_region(region);
    }
    if let Some(sse) = &config.sse {
        builder = builder.with_sse_kms_encryption(sse.kms_key.trim()).with_bucket_key(sse.bucket_key);
    }
    let store = builder
        .with_client_options(client)
        .build()
        .map_err(|error| Error::new(ErrorKind::Config, format!("lake.url: open bucket {bucket}")).because(error))?;
    Ok(LimitStore::new(store, REQUESTS))
}

/// Who we are towards the lake and its catalog.
pub(super) fn account(config: &config::Lake) -> Result<aws::Account> {
    let account = aws::account(&wanted(config)?, &Environment::of_process());
    account.map_err(|error| error.doing("find credentials for the lake"))
}

fn wanted(config: &config::Lake) -> Result<Wanted> {
    let keys = match (&config.access_key_id, &config.secret_access_key) {
        (Some(id), Some(secret)) => Some((id.clone(), secret.clone())),
        (None, None) => None,
        _ => {
            return Err(Error::new(ErrorKind::Config, "lake: access_key_id and secret_access_key belong together")
                .help("give both, or neither to use the environment's credentials"));
        }
    };
    Ok(Wanted { keys, profile: config.profile.clone(), region: config.region.clone() })
}

/// Makes clients that count what they ask.
#[derive(Debug)]
struct Counting;

impl HttpConnector for Counting {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Counted(ReqwestConnector::default().connect(options)?)))
    }
}

#[derive(Debug)]
struct Counted(HttpClient);

#[async_trait]
impl HttpService for Counted {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let operation = operation(request.method(), request.uri().query().unwrap_or_default());
        let bytes = request.body().content_length() as u64;
        let answer = self.0.execute(request).await;
        let class = match answer.as_ref().map(|answer| answer.status().as_u16()) {
            Ok(200..300) => "ok",
            Ok(412 | 304) => "exists",
            Ok(404) => "absent",
            Ok(429 | 503) => "slow_down",
            Ok(400..500) => "refused",
            Ok(_) => "failed",
            Err(_) => "none",
        };
        metrics::counter!(telemetry::STORE_REQUESTS_TOTAL, "operation" => operation, "answer" => class).increment(1);
        metrics::counter!(telemetry::STORE_SENT_BYTES_TOTAL, "operation" => operation).increment(bytes);
        answer
    }
}

/// What a request is for, as the store's bill calls it.
fn operation(method: &Method, query: &str) -> &'static str {
    let has = |name: &str| query.split('&').any(|part| part.split('=').next() == Some(name));
    match method.as_str() {
        "GET" if has("list-type") => "list",
        "GET" => "get",
        "HEAD" => "head",
        "PUT" if has("partNumber") => "put_part",
        "PUT" => "put",
        "POST" if has("delete") => "delete",
        "POST" => "multipart",
        "DELETE" if has("uploadId") => "abort",
        "DELETE" => "delete",
        _ => "other",
    }
}
