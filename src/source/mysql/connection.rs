//! One connection for queries: everything that goes wrong on it says what was being done, and nothing waits for ever.

use std::time::Duration;

use mysql_async::prelude::Queryable;
use mysql_async::{Conn, DriverError, IoError, Row, Value};
use tokio::time::Instant;

use super::settings::Settings;
use crate::error::{Error, ErrorKind, Result};

/// How long connecting and logging in may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a short query may take.
const QUERY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the server lets us wait for a lock: shorter, so that it says so itself and leaves nobody waiting behind.
const LOCK_SECONDS: u64 = 10;
/// How long the server keeps a session that asks nothing: what a process that died without a word has left goes then.
const IDLE_SECONDS: u64 = 3600;
/// How often it is said that a long answer has not come yet.
const SAY_EVERY: Duration = Duration::from_secs(30);
/// A lock was not had in time.
pub(super) const LOCK_WAIT: u16 = 1205;

/// What goes wrong on a connection.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The connection is of no use any more.
    Broken(Box<dyn std::error::Error + Send + Sync>),
    /// The server refuses.
    Refused { code: u16, message: String },
}

impl From<mysql_async::Error> for Trouble {
    fn from(error: mysql_async::Error) -> Self {
        match error {
            mysql_async::Error::Server(server) => Self::Refused { code: server.code, message: server.message },
            other => Self::Broken(other.into()),
        }
    }
}

impl Trouble {
    /// The server's number of the error.
    pub fn code(&self) -> u16 {
        match self {
            Self::Broken(_) => 0,
            Self::Refused { code, .. } => *code,
        }
    }

    /// An error that says what was being done.
    pub fn error(self, doing: impl Into<String>) -> Error {
        match self {
            Self::Broken(cause) => Error::new(ErrorKind::SourceUnavailable, doing).because(cause),
            Self::Refused { code, message } => {
                let error = Error::new(kind(code), doing).because(format!("{message} ({code})"));
                if code == LOCK_WAIT { error.help(LOCKED) } else { error }
            }
        }
    }
}

/// What keeps us waiting for a lock.
pub(super) const LOCKED: &str = "another session keeps the table or its rows locked (LOCK TABLES, a change of its columns, a transaction \
    left open that such a change waits for): `SHOW FULL PROCESSLIST` shows which; end it, or wait for it";

/// What an error's number means for what happens next.
fn kind(code: u16) -> ErrorKind {
    let passing = matches!(
        code,
        // Too many connections, out of memory or threads, shutdown, host blocked for a while, connection killed.
        1037 | 1038 | 1040 | 1041 | 1053 | 1077 | 1079 | 1129 | 1135 | 1203 | 1226 | 1317 | 1927 | 1969 | 3024 | 3169
        // Deadlock, lock wait, packets lost on the way, a server that is still starting or read only for a while.
        | 1205 | 1213 | 1152 | 1153 | 1156..=1161 | 1184 | 2006 | 2013 | 3032 | 3579 | 4031 | 4111
    );
    if passing { ErrorKind::SourceUnavailable } else { ErrorKind::SourceRefused }
}

/// A connection that has logged in.
pub(super) struct Connection {
    pub conn: Conn,
}

/// A row of a plain query.
#[derive(Debug, Clone)]
pub(super) struct Values(Vec<Value>);

impl Values {
    /// The value of that column as text; empty when null or absent.
    pub fn text(&self, column: usize) -> String {
        self.get(column).unwrap_or_default()
    }

    /// The value of that column as text.
    pub fn get(&self, column: usize) -> Option<String> {
        match self.0.get(column)? {
            Value::NULL => None,
            Value::Bytes(bytes) => Some(String::from_utf8_lossy(bytes).into_owned()),
            Value::Int(number) => Some(number.to_string()),
            Value::UInt(number) => Some(number.to_string()),
            other => Some(other.as_sql(true).trim_matches('\'').to_owned()),
        }
    }

    /// The value of that column as a number; 0 when it is none.
    pub fn number(&self, column: usize) -> u64 {
        self.text(column).parse().unwrap_or(0)
    }
}

impl Connection {
    /// Connects and logs in.
    pub async fn open(settings: &Settings) -> Result<Self> {
        let doing = || format!("connect to {} as `{}`", settings.place(), settings.user);
        let connecting = Conn::new(settings.options.clone());
        let conn = match tokio::time::timeout(CONNECT_TIMEOUT, connecting).await {
            Ok(Ok(conn)) => conn,
            Ok(Err(error)) => return Err(refused_or_away(error, doing())),
            Err(_) => {
                return Err(Error::new(ErrorKind::SourceUnavailable, doing())
                    .because(format!("no answer within {CONNECT_TIMEOUT:?}")));
            }
        };
        let mut connection = Self { conn };
        // Times come in UTC; text does in UTF-8, which the library asks for.
        let sql = format!(
            "SET SESSION time_zone = '+00:00', sql_mode = '', net_write_timeout = 600, net_read_timeout = 600, \
             wait_timeout = {IDLE_SECONDS}, lock_wait_timeout = {LOCK_SECONDS}, innodb_lock_wait_timeout = {LOCK_SECONDS}"
        );
        connection.run(&sql).await.map_err(|trouble| trouble.error(doing()))?;
        Ok(connection)
    }

    /// Runs a short query to its end.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<Values>, Trouble> {
        let rows: Vec<Row> = within(QUERY_TIMEOUT, self.conn.query(sql)).await?;
        Ok(rows.into_iter().map(|row| Values(row.unwrap())).collect())
    }

    /// Runs a statement that has no rows.
    pub async fn run(&mut self, sql: &str) -> Result<(), Trouble> {
        within(QUERY_TIMEOUT, self.conn.query_drop(sql)).await
    }
}

/// Waits for an answer, but not for ever.
pub(super) async fn within<T>(
    limit: Duration,
    answer: impl Future<Output = mysql_async::Result<T>>,
) -> Result<T, Trouble> {
    match tokio::time::timeout(limit, answer).await {
        Ok(answer) => Ok(answer?),
        Err(_) => Err(Trouble::Broken(format!("no answer within {limit:?}").into())),
    }
}

/// The same where an answer may take minutes: the log says meanwhile what is waited for, and the server is asked whether
/// it still works for that session.
pub(super) async fn patiently<T>(
    limit: Duration,
    (settings, session): (&Settings, u32),
    waits_for: impl Fn() -> String,
    answer: impl Future<Output = mysql_async::Result<T>>,
) -> Result<T, Trouble> {
    tokio::pin!(answer);
    let begun = Instant::now();
    loop {
        if let Ok(answer) = tokio::time::timeout(SAY_EVERY.min(limit), &mut answer).await {
            return Ok(answer?);
        }
        let waited = begun.elapsed();
        if waited >= limit {
            return Err(Trouble::Broken(format!("no answer within {limit:?}").into()));
        }
        tracing::warn!(seconds = waited.as_secs(), "waiting for the server: {}", waits_for());
        is_served(settings, session).await?;
    }
}

/// Whether the server still works for a session, asked in another one. It does not when it cannot be reached, when it knows
/// of no such session, and when it is sending what does not arrive here.
async fn is_served(settings: &Settings, session: u32) -> Result<(), Trouble> {
    let lost = |why: String| Trouble::Broken(format!("no answer, and {why}").into());
    let mut other = Connection::open(settings).await.map_err(|error| lost(error.to_string()))?;
    let rows = other.query(&format!("SELECT state FROM information_schema.processlist WHERE id = {session}")).await?;
    match rows.first().map(|row| row.text(0).to_lowercase()) {
        None => Err(lost("the server has no such session any more".into())),
        Some(state) if ["sending to client", "writing to net"].contains(&state.as_str()) => {
            Err(lost("the server is sending what does not arrive".into()))
        }
        Some(_) => Ok(()),
    }
}

fn refused_or_away(error: mysql_async::Error, doing: String) -> Error {
    match error {
        mysql_async::Error::Io(IoError::Tls(cause)) => tls_refused(doing, cause.to_string()),
        mysql_async::Error::Io(IoError::Io(cause))
            if cause.get_ref().is_some_and(|inner| inner.is::<tokio_rustls::rustls::Error>()) =>
        {
            tls_refused(doing, cause.to_string())
        }
        mysql_async::Error::Driver(DriverError::NoClientSslFlagFromServer) => {
            tls_refused(doing, "the server offers no TLS".into())
        }
        mysql_async::Error::Driver(cause @ (DriverError::NoKeyFound | DriverError::CleartextPluginDisabled)) => {
            Error::new(ErrorKind::SourceRefused, doing).because(cause)
        }
        other => Trouble::from(other).error(doing),
    }
}

fn tls_refused(doing: String, cause: String) -> Error {
    Error::new(ErrorKind::SourceRefused, doing).because(cause).help(
        "the server's certificate must be signed by an authority that this machine trusts (or that `tls: { ca: … }` \
         names) and bear the host name of the URL; `tls: { mode: disable }` is for a server on this machine",
    )
}

/// A name as SQL takes it.
pub(super) fn identifier(name: &str) -> String {
    format!("`{}`", name.replace('`', "``"))
}

/// A text as SQL takes it, whatever the mode.
pub(super) fn literal(text: &str) -> String {
    if text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" _-.,:/%$".contains(&byte)) {
        return format!("'{text}'");
    }
    let hex: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("_utf8mb4 x'{hex}'")
}

/// A table as SQL takes it, of its name `<database>.<table>`.
pub(super) fn table_identifier(name: &str) -> String {
    let (database, table) = name.split_once('.').unwrap_or(("", name));
    format!("{}.{}", identifier(database), identifier(table))
}
