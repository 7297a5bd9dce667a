//! Services that speak JSON over POST (Glue and its kind): asked again when it is worth it.

use std::time::Duration;

use serde_json::Value;

use super::{Account, Api};
use crate::error::{Error, ErrorKind, Result};

/// How often a request is tried.
const ATTEMPTS: u32 = 5;
/// The pause after the first failure; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);

/// A client of one service.
#[derive(Debug, Clone)]
pub struct JsonClient {
    api: Api,
    /// In front of the operation's name in `X-Amz-Target`.
    target: &'static str,
}

/// What a service says instead of an answer.
#[derive(Debug)]
pub struct Refusal {
    /// E.g. `EntityNotFoundException`; empty when the service did not answer.
    pub code: String,
    pub message: String,
    passing: bool,
}

impl JsonClient {
    /// A client of `service` in the account's region, or at another endpoint. No request.
    pub fn new(service: &'static str, target: &'static str, account: &Account, endpoint: Option<&str>) -> Result<Self> {
        Ok(Self { api: Api::new(service, account, endpoint)?, target })
    }

    /// Asks, again and again while it is worth it.
    pub async fn call(&self, operation: &str, body: &Value) -> Result<Value, Refusal> {
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.once(operation, body).await {
                Err(refusal) if refusal.passing && attempt < ATTEMPTS => {
                    tracing::debug!(operation, attempt, code = refusal.code, "{}; trying again", refusal.message);
                    tokio::time::sleep(pause(FIRST_PAUSE, attempt)).await;
                }
                answer => return answer,
            }
        }
    }

    async fn once(&self, operation: &str, body: &Value) -> Result<Value, Refusal> {
        let silent =
            |error: &dyn std::fmt::Display| Refusal::silent(format!("{operation} at {}: {error}", self.api.endpoint()));
        let target = format!("{}.{operation}", self.target);
        let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target.as_str())];
        let (status, body) = self.api.post(&headers, body.to_string()).await.map_err(|error| silent(&error))?;
        let well = (200..300).contains(&status);
        // Some services say nothing where there is nothing to say.
        let body = if body.is_empty() { &b"{}"[..] } else { &body[..] };
        match serde_json::from_slice::<Value>(body) {
            Ok(value) if well => Ok(value),
            Err(error) if well => Err(silent(&error)),
            _ => Err(Refusal::of(operation, status, body)),
        }
    }
}

/// How long to wait after the `attempt`-th failure in a row: twice as long as before, and less by chance.
pub fn pause(first: Duration, attempt: u32) -> Duration {
    let share = (uuid::Uuid::new_v4().as_u128() >> 96) as u32;
    let jitter = 0.5 + 0.5 * f64::from(share) / f64::from(u32::MAX);
    (first * 2u32.pow(attempt.saturating_sub(1).min(10))).mul_f64(jitter)
}

impl Refusal {
    /// Nobody answered.
    pub fn silent(message: String) -> Self {
        Self { code: String::new(), message, passing: true }
    }

    /// It may well be answered at the next attempt.
    pub fn passes(&self) -> bool {
        self.passing
    }

    /// What the body of an answer that is none says.
    pub fn of(operation: &str, status: u16, body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |names: [&str; 2]| names.iter().find_map(|name| body[*name].as_str()).unwrap_or_default();
        // `com.amazonaws.glue#EntityNotFoundException`, sometimes with a URL behind a colon.
        let code = text(["__type", "code"]);
        let code = code.rsplit('#').next().unwrap_or_default().split(':').next().unwrap_or_default().to_owned();
        let busy = ["Throttling", "TooManyRequests", "ConcurrentModification", "ExpiredToken", "InternalService"];
        let passing = status >= 500 || busy.iter().any(|word| code.contains(word));
        let message = format!("{operation}: {status} {code}: {}", text(["message", "Message"]));
        Self { code, message, passing }
    }

    /// As an error of ours.
    pub fn error(self, kind: ErrorKind, help: &str) -> Error {
        Error::new(kind, self.message).help(help)
    }
}
