//! Signed requests to the API, asked again when it is worth it.

use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use uuid::Uuid;

use super::KEPT;
use super::answers::{Cancelled, Described, Page, Submitted};
use super::refusals::{count, passes, session_is_gone};
use crate::error::Result;
use crate::net::aws::{Account, Api, Refusal, pause};

/// How often a request is tried: over about ten seconds.
const ATTEMPTS: u32 = 6;
/// The pause after the first failure; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// How long the service waits for a statement to end before it answers: less than we wait for the answer.
/// <https://docs.aws.amazon.com/redshift/latest/mgmt/data-api-calling-considerations-long-polling.html>
const WAIT_SECONDS: u64 = 10;
/// How long it may take until a session takes a ROLLBACK: it does so once what ran in it has ended.
const ROLLBACK: Duration = Duration::from_secs(10);

/// The API of one region.
pub(super) struct Calls {
    api: Api,
}

/// Where a statement goes.
pub(super) enum Destination<'a> {
    /// A session that is made for it, in the database that this says.
    New(&'a Value),
    /// A session that is there.
    Session(&'a str),
}

impl Calls {
    pub fn new(account: &Account, endpoint: Option<&str>) -> Result<Self> {
        Ok(Self { api: Api::new("redshift-data", account, endpoint)? })
    }

    pub fn endpoint(&self) -> &str {
        self.api.endpoint()
    }

    /// Runs a statement, once however often the request must be sent.
    pub async fn execute(&self, sql: &str, into: Destination<'_>) -> Result<Submitted, Refusal> {
        let mut body = match into {
            Destination::New(target) => target.clone(),
            Destination::Session(id) => json!({"SessionId": id}),
        };
        if matches!(into, Destination::New(_)) {
            body["SessionKeepAliveSeconds"] = KEPT.as_secs().into();
        }
        body["Sql"] = sql.into();
        body["ClientToken"] = Uuid::new_v4().to_string().into();
        body["WaitTimeSeconds"] = WAIT_SECONDS.into();
        self.call("ExecuteStatement", &body).await
    }

    /// How a statement stands, when it has ended or a while has gone by, or about `most`.
    pub async fn describe(&self, id: &str, most: Duration) -> Result<Described, Refusal> {
        let wait = most.as_secs().clamp(1, WAIT_SECONDS);
        self.call("DescribeStatement", &json!({"Id": id, "WaitTimeSeconds": wait})).await
    }

    /// Rows of a statement that has ended.
    pub async fn page(&self, id: &str, from: Option<&str>) -> Result<Page, Refusal> {
        let mut body = json!({"Id": id});
        if let Some(token) = from {
            body["NextToken"] = token.into();
        }
        self.call("GetStatementResult", &body).await
    }

    /// Ends a statement, if it still runs.
    pub async fn cancel(&self, id: &str) {
        let asked: Result<Cancelled, Refusal> = self.call("CancelStatement", &json!({"Id": id})).await;
        match asked {
            Ok(Cancelled { status }) => {
                tracing::debug!(id, ended = status, "a statement that was given up is cancelled")
            }
            // One that has ended by itself cannot be cancelled.
            Err(refusal) => tracing::debug!(id, "cancel a statement that was given up: {}", refusal.message),
        }
    }

    /// Takes back what a session has done. One that is gone has nothing left to take back; it is refused in the same words as
    /// one that is `busy`, as far as is known.
    pub async fn roll_back(&self, session: &str, busy: bool) -> Result<(), String> {
        let begun = Instant::now();
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.execute("ROLLBACK", Destination::Session(session)).await {
                Ok(_) => return Ok(()),
                Err(refusal) if !session_is_gone(&refusal) => return Err(refusal.message),
                Err(_) if !busy || begun.elapsed() >= ROLLBACK => return Ok(()),
                Err(_) => tokio::time::sleep(pause(FIRST_PAUSE, attempt.min(4))).await,
            }
        }
    }

    async fn call<T: DeserializeOwned>(&self, operation: &str, body: &Value) -> Result<T, Refusal> {
        let body = body.to_string();
        let mut attempt = 0;
        loop {
            attempt += 1;
            match self.once(operation, body.clone()).await {
                Err(refusal) if passes(&refusal) && attempt < ATTEMPTS => {
                    count(&refusal);
                    tracing::debug!(operation, attempt, code = refusal.code, "{}; trying again", refusal.message);
                    tokio::time::sleep(pause(FIRST_PAUSE, attempt)).await;
                }
                answer => return answer,
            }
        }
    }

    async fn once<T: DeserializeOwned>(&self, operation: &str, body: String) -> Result<T, Refusal> {
        let silent =
            |error: &dyn std::fmt::Display| Refusal::silent(format!("{operation} at {}: {error}", self.endpoint()));
        let target = format!("RedshiftData.{operation}");
        let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amz-target", target.as_str())];
        let (status, body) = self.api.post(&headers, body).await.map_err(|error| silent(&error))?;
        match (200..300).contains(&status) {
            true => serde_json::from_slice(&body).map_err(|error| silent(&error)),
            false => Err(Refusal::of(operation, status, &body)),
        }
    }
}
