//! The Redshift Data API in front of the same sessions, and strict about it:
//! <https://docs.aws.amazon.com/redshift-data/latest/APIReference/API_Operations.html>, JSON 1.1, signed.
//!
//! | rule | source |
//! |---|---|
//! | one statement a request; no longer than 100 KB | `API_ExecuteStatement`; <https://docs.aws.amazon.com/redshift/latest/mgmt/data-api.html#data-api-calling-considerations> |
//! | a session runs one statement at a time; it is kept for `SessionKeepAliveSeconds` after each, a day at most; without them it ends with its statement | `API_ExecuteStatement`; <https://aws.amazon.com/blogs/big-data/accelerate-your-data-workflows-with-amazon-redshift-data-api-persistent-sessions> |
//! | one that is busy or gone "is not available", one that never was "is invalid" | <https://github.com/awslabs/mcp/issues/4375>, <https://github.com/awslabs/mcp/issues/4587> |
//! | at most 500 sessions, and 500 statements that run | the same considerations |
//! | the same `ClientToken` runs nothing twice | `API_ExecuteStatement` |
//! | `WaitTimeSeconds` from 1 to 30 waits for the end, and tells of it | <https://docs.aws.amazon.com/redshift/latest/mgmt/data-api-calling-considerations-long-polling.html> |
//! | rows only of what has a result set, in pages; a row of at most 64 KB, a result of at most 500 MB | `API_GetStatementResult`; <https://docs.aws.amazon.com/redshift/latest/mgmt/data-api-troubleshooting.html> |
//! | only what runs can be cancelled | `API_CancelStatement` |
//! | an error is a text alone, without a SQLSTATE | `API_DescribeStatement` |
//!
//! That a transaction goes over several statements of a session is promised nowhere; AWS' own clients rely on it
//! (<https://github.com/awslabs/mcp/issues/1489> shows what they met when one was left open), and so does the emulator.

mod answer;
mod session;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinSet;

use crate::fault::Met;
use crate::lex;
use crate::server::Shared;
use crate::signature::{Denied, check_signature, denied};

use answer::Statement;
use session::Kept;

const BODY_LIMIT: usize = 1024 * 1024;
const STATEMENT_BYTES: usize = 100_000;
const MOST_SESSIONS: usize = 500;
const MOST_STATEMENTS: usize = 500;
const DAY_SECONDS: u64 = 86_400;
/// Rows in one page of a result: no page says how many.
const PAGE_ROWS: usize = 100;
const TARGET: &str = "RedshiftData.";

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ApiFault {
    /// It is done; nobody hears of it.
    AnswerLost,
    /// It is not done: too many requests.
    Throttled,
    /// It is not done: too many statements run.
    TooManyStatements,
    /// It is not done: the service has failed.
    Failed,
    /// The session that it names has ended; what it was in the middle of is undone.
    SessionEnds,
    /// Its statement is not run, and said to have ended well: no page says that the API does not do so with `BEGIN`.
    Ignored,
}

/// When a request goes wrong: one of an operation, whose statement has a text.
#[derive(Debug, Clone)]
pub struct ApiRule {
    fault: ApiFault,
    operation: &'static str,
    containing: String,
    after: u64,
    times: u64,
    met: Met,
}

impl ApiRule {
    /// Every request of this operation, without end.
    pub fn new(fault: ApiFault, operation: &'static str) -> Self {
        Self { fault, operation, containing: String::new(), after: 0, times: u64::MAX, met: Met::default() }
    }

    /// Only those whose body contains this text.
    #[must_use]
    pub fn containing(self, text: impl Into<String>) -> Self {
        Self { containing: text.into(), ..self }
    }

    /// The first so many of them pass.
    #[must_use]
    pub fn after(self, passed: u64) -> Self {
        Self { after: passed, ..self }
    }

    /// So often, and then no more.
    #[must_use]
    pub fn times(self, times: u64) -> Self {
        Self { times, ..self }
    }

    pub(crate) fn met(&self) -> Met {
        self.met.clone()
    }

    fn meets(&mut self, operation: &str, body: &str) -> Option<ApiFault> {
        if self.operation != operation || !body.contains(&self.containing) || self.times == 0 {
            return None;
        }
        if self.after > 0 {
            self.after -= 1;
            return None;
        }
        self.times -= 1;
        self.met.once();
        Some(self.fault)
    }
}

/// What the API keeps.
#[derive(Debug, Default)]
pub(crate) struct Api(Mutex<Books>);

#[derive(Debug, Default)]
struct Books {
    rules: Vec<ApiRule>,
    requests: BTreeMap<String, u64>,
    sessions: HashMap<String, Kept>,
    statements: HashMap<String, Arc<Statement>>,
    /// What was asked with a token, and the statement that it gave.
    tokens: HashMap<String, (Value, String)>,
    /// The longest that a session is kept, whatever is asked for.
    most_kept: Option<Duration>,
    tasks: JoinSet<()>,
}

impl Api {
    fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn fail(&self, rule: ApiRule) {
        self.books().rules.push(rule);
    }

    pub fn heal(&self) {
        self.books().rules.clear();
    }

    pub fn requests(&self) -> BTreeMap<String, u64> {
        self.books().requests.clone()
    }

    pub fn reset(&self) {
        self.books().requests.clear();
    }

    pub fn keep_at_most(&self, kept: Duration) {
        self.books().most_kept = Some(kept);
    }

    pub fn end(&self) {
        let mut books = self.books();
        books.sessions.clear();
        books.tasks.abort_all();
    }
}

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
    let keys = &shared.options.aws_keys;
    let method = parts.method.as_str();
    let signed = check_signature(keys, "redshift-data", method, parts.uri.path(), &parts.headers, &body);
    let header = |name: &str| parts.headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let operation = header("x-amz-target").strip_prefix(TARGET).unwrap_or_default().to_owned();
    let done = match signed {
        Ok(()) if header("content-type") != "application/x-amz-json-1.1" => {
            Err(denied("SerializationException", "Content-Type must be application/x-amz-json-1.1"))
        }
        Ok(()) => dispatch(&shared, &operation, &body).await,
        Err(denied) => Err(denied),
    };
    match done {
        Ok(Some(body)) => ([("content-type", "application/x-amz-json-1.1")], body.to_string()).into_response(),
        Ok(None) => {
            let cut = futures::stream::iter([Err::<String, _>(std::io::Error::from(std::io::ErrorKind::BrokenPipe))]);
            Body::from_stream(cut).into_response()
        }
        Err(Denied(status, code, message)) => {
            (status, json!({"__type": format!("com.amazonaws.redshiftdata#{code}"), "Message": message}).to_string())
                .into_response()
        }
    }
}

/// `None`: the answer is lost.
async fn dispatch(shared: &Arc<Shared>, operation: &str, body: &[u8]) -> Result<Option<Value>, Denied> {
    let text = std::str::from_utf8(body).map_err(|e| denied("SerializationException", e.to_string()))?;
    let mut request: Value = serde_json::from_str(text).map_err(|e| denied("SerializationException", e.to_string()))?;
    let fault = {
        let mut books = shared.api.books();
        *books.requests.entry(operation.to_owned()).or_default() += 1;
        books.rules.iter_mut().find_map(|rule| rule.meets(operation, text))
    };
    match fault {
        Some(ApiFault::Throttled) => return Err(denied("ThrottlingException", "Rate exceeded")),
        Some(ApiFault::TooManyStatements) => return Err(too_many_statements()),
        Some(ApiFault::Failed) => {
            let failed = "InternalServerException";
            return Err(Denied(StatusCode::INTERNAL_SERVER_ERROR, failed, "a test says so".into()));
        }
        Some(ApiFault::SessionEnds) => {
            let id = request["SessionId"].as_str().unwrap_or_default();
            if let Some(kept) = shared.api.books().sessions.get_mut(id) {
                kept.end();
            }
        }
        Some(ApiFault::Ignored) => request["Sql"] = "SET timezone TO 'UTC'".into(),
        Some(ApiFault::AnswerLost) | None => {}
    }
    let done = match operation {
        "ExecuteStatement" => execute(shared, &request).await,
        "DescribeStatement" => describe(shared, &request).await,
        "GetStatementResult" => result(shared, &request),
        "CancelStatement" => cancel(shared, &request).await,
        other => Err(denied("UnknownOperationException", other)),
    }?;
    Ok((fault != Some(ApiFault::AnswerLost)).then_some(done))
}

fn too_many_statements() -> Denied {
    denied("ActiveStatementsExceededException", "Active statements exceeded the allowed quota (500).")
}

/// No member but these.
fn only(request: &Value, known: &[&str]) -> Result<(), Denied> {
    let members = request.as_object().ok_or_else(|| denied("SerializationException", "not an object"))?;
    match members.keys().find(|name| !known.contains(&name.as_str())) {
        Some(other) => Err(denied("ValidationException", format!("unknown member {other}"))),
        None => Ok(()),
    }
}

fn number(request: &Value, name: &str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, Denied> {
    let Some(value) = request.get(name) else { return Ok(None) };
    let wrong = || denied("ValidationException", format!("{name} must be from {} to {}", range.start(), range.end()));
    value.as_u64().filter(|number| range.contains(number)).map(Some).ok_or_else(wrong)
}

async fn execute(shared: &Arc<Shared>, request: &Value) -> Result<Value, Denied> {
    let place = ["ClusterIdentifier", "WorkgroupName", "Database", "DbUser", "SecretArn"];
    let others = ["Sql", "ClientToken", "SessionId", "SessionKeepAliveSeconds", "WaitTimeSeconds"];
    only(request, &[&place[..], &others].concat())?;
    let text = |name: &str| request.get(name).and_then(Value::as_str).filter(|value| !value.is_empty());
    let sql = text("Sql").ok_or_else(|| denied("ValidationException", "Sql is missing"))?;
    if sql.len() > STATEMENT_BYTES {
        return Err(denied("ValidationException", "Cannot process query string larger than 100kB"));
    }
    // What cannot be read is refused by the session.
    if lex::statements(sql, false).is_ok_and(|statements| statements.len() != 1) {
        return Err(denied("ValidationException", "Multi sql statements are not supported by ExecuteStatement"));
    }
    let kept = number(request, "SessionKeepAliveSeconds", 0..=DAY_SECONDS)?;
    let wait = number(request, "WaitTimeSeconds", 1..=30)?;
    let token = text("ClientToken");
    if token.is_some_and(|token| token.len() > 64) {
        return Err(denied("ValidationException", "ClientToken must have at most 64 characters"));
    }
    let known = token.and_then(|token| shared.api.books().tokens.get(token).cloned());
    let statement = match known {
        Some((before, _)) if before != *request => {
            return Err(denied("ValidationException", "ClientToken was used for another request"));
        }
        Some((_, id)) => statement(shared, &id)?,
        None => {
            let begun = match text("SessionId") {
                Some(id) if place.iter().all(|name| request.get(*name).is_none()) => continued(shared, id, sql)?,
                Some(_) => return Err(denied("ValidationException", "SessionId says where the statement runs")),
                None => begun(shared, request, sql, kept).await?,
            };
            if let Some(token) = token {
                shared.api.books().tokens.insert(token.to_owned(), (request.clone(), begun.id.clone()));
            }
            begun
        }
    };
    statement.wait(wait).await;
    Ok(statement.submitted(wait.is_some()))
}

/// A statement in a session that is there.
fn continued(shared: &Arc<Shared>, id: &str, sql: &str) -> Result<Arc<Statement>, Denied> {
    let mut books = shared.api.books();
    if books.running() >= MOST_STATEMENTS {
        return Err(too_many_statements());
    }
    let kept = books.sessions.get_mut(id);
    let kept = kept.ok_or_else(|| denied("ValidationException", format!("Session with Id: {id} is invalid")))?;
    let statement = Statement::new(id, sql);
    if !kept.run(&statement) {
        return Err(denied("ValidationException", "Session is not available"));
    }
    books.statements.insert(statement.id.clone(), Arc::clone(&statement));
    Ok(statement)
}

/// A statement in a session that is made for it.
async fn begun(shared: &Arc<Shared>, request: &Value, sql: &str, kept: Option<u64>) -> Result<Arc<Statement>, Denied> {
    let text = |name: &str| request.get(name).and_then(Value::as_str).filter(|value| !value.is_empty());
    let named = match (text("ClusterIdentifier"), text("WorkgroupName")) {
        (Some(_), None) => !shared.options.serverless,
        (None, Some(_)) => shared.options.serverless,
        _ => return Err(denied("ValidationException", "either ClusterIdentifier or WorkgroupName must be given")),
    };
    if !named {
        return Err(denied("ValidationException", "Redshift endpoint doesn't exist in this region."));
    }
    let database = text("Database").ok_or_else(|| denied("ValidationException", "Database is missing"))?;
    if text("DbUser").is_some() && (text("SecretArn").is_some() || text("WorkgroupName").is_some()) {
        return Err(denied("ValidationException", "DbUser goes with ClusterIdentifier alone"));
    }
    let user = text("DbUser").unwrap_or(if shared.options.serverless { "IAM:dataflow" } else { "IAMR:dataflow" });
    {
        let books = shared.api.books();
        if books.sessions.values().filter(|kept| kept.is_open()).count() >= MOST_SESSIONS {
            return Err(denied("ActiveSessionsExceededException", "Active sessions exceeded the allowed quota (500)."));
        }
        if books.running() >= MOST_STATEMENTS {
            return Err(too_many_statements());
        }
    }
    let id = new_id();
    let statement = Statement::new(&id, sql);
    let most = shared.api.books().most_kept.unwrap_or(Duration::MAX);
    let kept = Duration::from_secs(kept.unwrap_or(0)).min(most);
    let (mut session, served) = session::open(Arc::clone(shared), user, database, kept);
    session.run(&statement);
    let mut books = shared.api.books();
    books.tasks.spawn(served);
    books.sessions.insert(id, session);
    books.statements.insert(statement.id.clone(), Arc::clone(&statement));
    Ok(statement)
}

impl Books {
    fn running(&self) -> usize {
        self.statements.values().filter(|statement| statement.runs()).count()
    }
}

fn statement(shared: &Shared, id: &str) -> Result<Arc<Statement>, Denied> {
    let found = shared.api.books().statements.get(id).cloned();
    found.ok_or_else(|| denied("ResourceNotFoundException", "Query does not exist."))
}

fn named(shared: &Shared, request: &Value) -> Result<Arc<Statement>, Denied> {
    let id = request.get("Id").and_then(Value::as_str);
    statement(shared, id.ok_or_else(|| denied("ValidationException", "Id is missing"))?)
}

async fn describe(shared: &Shared, request: &Value) -> Result<Value, Denied> {
    only(request, &["Id", "WaitTimeSeconds"])?;
    let wait = number(request, "WaitTimeSeconds", 1..=30)?;
    let statement = named(shared, request)?;
    statement.wait(wait).await;
    Ok(statement.described())
}

fn result(shared: &Shared, request: &Value) -> Result<Value, Denied> {
    only(request, &["Id", "NextToken"])?;
    let statement = named(shared, request)?;
    let from = match request.get("NextToken").and_then(Value::as_str) {
        None => 0,
        Some(token) => token.parse().map_err(|_| denied("ValidationException", "NextToken is not valid"))?,
    };
    statement.page(from, PAGE_ROWS).ok_or_else(|| {
        let text = "Query does not have result. Please check query status with DescribeStatement.";
        denied("ResourceNotFoundException", text)
    })
}

async fn cancel(shared: &Arc<Shared>, request: &Value) -> Result<Value, Denied> {
    only(request, &["Id"])?;
    let statement = named(shared, request)?;
    let Some(key) = statement.cancel() else {
        return Err(denied("ValidationException", "Could not cancel a query that does not run."));
    };
    let sent = crate::startup::cancel(shared, &key).await;
    sent.map_err(|e| denied("DatabaseConnectionException", e.to_string()))?;
    Ok(json!({"Status": true}))
}

/// In the form of a UUID.
fn new_id() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{:08x}-0000-4000-8000-{count:012x}", std::process::id())
}

/// When something was, in seconds as JSON has them.
fn seconds(at: Instant) -> f64 {
    let ago = at.elapsed().as_secs_f64();
    chrono::Utc::now().timestamp_millis() as f64 / 1000.0 - ago
}
