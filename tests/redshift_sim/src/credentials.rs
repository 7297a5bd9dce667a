//! The endpoint that lends passwords, in the form of the two AWS APIs, and strict about it:
//!
//! * `GetClusterCredentialsWithIAM`, Query protocol:
//!   <https://docs.aws.amazon.com/redshift/latest/APIReference/API_GetClusterCredentialsWithIAM.html>;
//! * serverless `GetCredentials`, JSON 1.1:
//!   <https://docs.aws.amazon.com/redshift-serverless/latest/APIReference/API_GetCredentials.html>.
//!
//! Requests must be signed with the keys of the options.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use chrono::{DateTime, Utc};
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use crate::server::Shared;
use crate::signature::{Denied, check_signature, denied, hex};

/// The most that a request may hold.
const BODY_LIMIT: usize = 64 * 1024;

/// Answers until it is dropped.
pub(crate) async fn serve(listener: TcpListener, shared: Arc<Shared>) {
    let router = Router::new().fallback(answer).with_state(shared);
    let _ended = axum::serve(listener, router).await;
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let Ok(body) = axum::body::to_bytes(body, BODY_LIMIT).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let json = parts.headers.contains_key("x-amz-target");
    let service = if json { "redshift-serverless" } else { "redshift" };
    let signed = check_signature(
        &shared.options.aws_keys,
        service,
        parts.method.as_str(),
        parts.uri.path(),
        &parts.headers,
        &body,
    );
    let lent = signed.and_then(|()| {
        if json { serverless(&shared, &parts.headers, &body) } else { cluster(&shared, &parts.headers, &body) }
    });
    match lent {
        Ok(body) => {
            let kind = if json { "application/x-amz-json-1.1" } else { "text/xml" };
            ([(header::CONTENT_TYPE, kind)], body).into_response()
        }
        Err(Denied(status, code, message)) if json => {
            (status, serde_json::json!({"__type": code, "message": message}).to_string()).into_response()
        }
        Err(Denied(status, code, message)) => {
            let body = format!(
                "<ErrorResponse xmlns=\"http://redshift.amazonaws.com/doc/2012-12-01/\"><Error><Type>Sender</Type><Code>{code}</Code><Message>{message}</Message></Error></ErrorResponse>"
            );
            (status, body).into_response()
        }
    }
}

fn cluster(shared: &Shared, headers: &HeaderMap, body: &[u8]) -> Result<String, Denied> {
    if shared.options.serverless {
        return Err(denied("ClusterNotFound", "there is no provisioned cluster here"));
    }
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("application/x-www-form-urlencoded") {
        return Err(denied("SerializationException", format!("Content-Type {kind:?}: the Query protocol is a form")));
    }
    let form: BTreeMap<String, String> = form(body);
    let known = ["Action", "Version", "ClusterIdentifier", "CustomDomainName", "DbName", "DurationSeconds"];
    if let Some(other) = form.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(denied("ValidationException", format!("unknown parameter {other}")));
    }
    let value = |name: &str| form.get(name).filter(|v| !v.is_empty()).map(String::as_str);
    if (value("Action"), value("Version")) != (Some("GetClusterCredentialsWithIAM"), Some("2012-12-01")) {
        return Err(denied(
            "InvalidActionException",
            "Action must be GetClusterCredentialsWithIAM, Version 2012-12-01",
        ));
    }
    value("ClusterIdentifier").ok_or_else(|| denied("MissingParameter", "ClusterIdentifier"))?;
    let seconds = value("DurationSeconds").map_or(Ok(900), str::parse::<u64>);
    let (user, password, until) = lend(shared, seconds.ok(), value("DbName"))?;
    Ok(format!(
        "<GetClusterCredentialsWithIAMResponse xmlns=\"http://redshift.amazonaws.com/doc/2012-12-01/\"><GetClusterCredentialsWithIAMResult>\
         <DbUser>{user}</DbUser><DbPassword>{}</DbPassword><Expiration>{}</Expiration><NextRefreshTime>{}</NextRefreshTime>\
         </GetClusterCredentialsWithIAMResult></GetClusterCredentialsWithIAMResponse>",
        password.replace('&', "&amp;").replace('<', "&lt;"),
        until.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
        until.to_rfc3339_opts(chrono::SecondsFormat::Millis, true),
    ))
}

fn serverless(shared: &Shared, headers: &HeaderMap, body: &[u8]) -> Result<String, Denied> {
    let header = |name: &str| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    if header("x-amz-target") != "RedshiftServerless.GetCredentials" {
        return Err(denied("UnknownOperationException", header("x-amz-target")));
    }
    if header("content-type") != "application/x-amz-json-1.1" {
        return Err(denied("SerializationException", "Content-Type must be application/x-amz-json-1.1"));
    }
    if !shared.options.serverless {
        return Err(denied("ResourceNotFoundException", "there is no workgroup here"));
    }
    let request: serde_json::Value =
        serde_json::from_slice(body).map_err(|e| denied("SerializationException", e.to_string()))?;
    let text = |name: &str| request.get(name).and_then(serde_json::Value::as_str);
    if text("workgroupName").or(text("customDomainName")).is_none() {
        return Err(denied("ValidationException", "workgroupName is missing"));
    }
    let seconds = request.get("durationSeconds").map_or(Some(900), serde_json::Value::as_u64);
    let (user, password, until) = lend(shared, seconds, text("dbName"))?;
    let at = until.timestamp_millis() as f64 / 1000.0;
    Ok(serde_json::json!({"dbUser": user, "dbPassword": password, "expiration": at, "nextRefreshTime": at}).to_string())
}

/// From 15 minutes to an hour.
fn lend(
    shared: &Shared,
    seconds: Option<u64>,
    database: Option<&str>,
) -> Result<(String, String, DateTime<Utc>), Denied> {
    let refused = shared.watch().lending_refused;
    if let Some(code) = refused {
        shared.watch().counters.not_lent += 1;
        let action = if shared.options.serverless {
            "redshift-serverless:GetCredentials"
        } else {
            "redshift:GetClusterCredentialsWithIAM"
        };
        return Err(denied(code, format!("a test says so (action: {action})")));
    }
    let seconds = seconds.filter(|s| (900..=3600).contains(s));
    let seconds = seconds.ok_or_else(|| denied("ValidationException", "DurationSeconds must be from 900 to 3600"))?;
    if database.is_some_and(|name| name != shared.options.database) {
        return Err(denied("ValidationException", "no such database"));
    }
    let user = "IAMR:dataflow".to_owned();
    let salt = Sha256::digest(
        [&shared.salt()[..], &Utc::now().timestamp_nanos_opt().unwrap_or_default().to_be_bytes()].concat(),
    );
    let password = format!("Lent+/={}", hex(&salt));
    let most = shared.watch().lends.unwrap_or(shared.options.lends);
    let holds = Duration::from_secs(seconds).min(most);
    shared.users().lend(&user, password.clone(), holds);
    shared.watch().counters.lent += 1;
    Ok((user, password, Utc::now() + holds))
}

fn form(body: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(body);
    text.split('&').filter_map(|pair| pair.split_once('=')).map(|(name, value)| (decode(name), decode(value))).collect()
}

fn decode(text: &str) -> String {
    let (mut bytes, mut rest) = (Vec::new(), text.as_bytes());
    while let [first, after @ ..] = rest {
        let escaped = after
            .get(..2)
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        match (first, escaped) {
            (b'%', Some(byte)) => {
                bytes.push(byte);
                rest = &after[2..];
                continue;
            }
            (b'+', _) => bytes.push(b' '),
            (other, _) => bytes.push(*other),
        }
        rest = after;
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
