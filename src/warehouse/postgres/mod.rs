//! PostgreSQL 13 or newer.
//!
//! | file | what it owns |
//! |---|---|
//! | `sql.rs` | SQL text |
//! | `types.rs` | contract types and the catalog's |
//! | `copy.rs` | Arrow to binary COPY |
//! | `ensure.rs` | the ledger, and tables as their contracts say |
//! | `homes.rs` | which group loads which table |
//! | `apply.rs` | one unit, one transaction |
//! | `inspect.rs` | what people ask |
//! | `rows.rs` | the rows as they stand |

mod apply;
mod copy;
mod ensure;
mod homes;
mod inspect;
mod rows;
mod sql;
mod types;

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions, PgSslMode};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};

use super::merge::Needs;
use super::names::{FRESHNESS, INCOMPLETE, LEDGER, TABLES};
use super::{Freshness, FreshnessRow, IncompleteRow, LOST_HELP, Ledger, Lost, Warehouse, incomplete_of};
use crate::config::PostgresWarehouse;
use crate::contract::Contract;
use crate::epoch::{Applied, DeleteMode, EpochNumber, Incomplete, LoadUnit};
use crate::error::{Error, ErrorKind, Result};

/// How long a connection may take to come.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long DDL waits for readers before it lets them pass and is tried again.
const LOCK_TIMEOUT: &str = "10s";

/// A schema of a PostgreSQL database.
#[derive(Debug, Clone)]
pub struct Postgres {
    pool: PgPool,
    names: sql::Names,
    topology: String,
}

impl Postgres {
    /// Connects, and makes the schema, the ledger and the view when they are missing.
    pub async fn connect(config: &PostgresWarehouse, topology: &str) -> Result<Self> {
        let options = options(&config.url, topology)?;
        let place = format!("{}:{}/{}", options.get_host(), options.get_port(), options.get_database().unwrap_or(""));
        let doing = format!("open the PostgreSQL warehouse {place}, schema {}", config.schema);
        let pool = PgPoolOptions::new()
            .max_connections(4)
            .acquire_timeout(CONNECT_TIMEOUT)
            .connect_with(options)
            .await
            .map_err(|e| failure(e, None).doing(&doing))?;
        let warehouse = Self { pool, names: sql::Names::new(&config.schema), topology: topology.to_owned() };
        warehouse.set_up().await.map_err(|e| e.doing(&doing))?;
        Ok(warehouse)
    }
}

/// What the URL says; without `sslmode` a server elsewhere must prove who it is. Never prints the URL.
fn options(url: &str, topology: &str) -> Result<PgConnectOptions> {
    let mut options = PgConnectOptions::from_str(url).map_err(|_| {
        Error::new(ErrorKind::Config, "the URL of the PostgreSQL warehouse cannot be read")
            .help("write it as postgres://user:password@host:5432/database; escape special characters in the password")
    })?;
    let host = options.get_host();
    let near = options.get_socket().is_some() || host.starts_with('/');
    let near = near || matches!(host, "localhost" | "127.0.0.1" | "::1" | "[::1]");
    let said = url.split_once('?').is_some_and(|(_, query)| query.contains("sslmode=") || query.contains("ssl-mode="));
    if !near && !said {
        options = options.ssl_mode(PgSslMode::VerifyFull);
    }
    Ok(options.application_name(&format!("dataflow {topology}")).options([("lock_timeout", LOCK_TIMEOUT)]))
}

/// Runs one statement and says how many rows it changed.
async fn run(conn: &mut PgConnection, statement: String, table: Option<&str>) -> Result<u64> {
    let result = sqlx::query(AssertSqlSafe(statement)).persistent(false).execute(conn).await;
    result.map(|done| done.rows_affected()).map_err(|e| failure(e, table))
}

/// What a failure of PostgreSQL means.
fn failure(error: sqlx::Error, table: Option<&str>) -> Error {
    let message = |what: &str| match table {
        Some(table) => format!("PostgreSQL, table {table}: {what}"),
        None => format!("PostgreSQL: {what}"),
    };
    let unavailable = || Error::new(ErrorKind::WarehouseUnavailable, message("not possible right now"));
    let refused = |what: &str, help: &str| Error::new(ErrorKind::WarehouseRefused, message(what)).help(help);
    let found = match &error {
        sqlx::Error::Database(e) => {
            let code = e.code().unwrap_or_default().into_owned();
            let class = code.get(..2).unwrap_or_default();
            match (class, code.as_str()) {
                ("08" | "53" | "58", _)
                | (_, "40001" | "40P01" | "55P03" | "57P01" | "57P02" | "57P03" | "57014" | "25006") => unavailable(),
                ("28", _) => refused("the server refuses the login", "check user and password in the URL"),
                (_, "3D000") => refused("there is no such database", "create it, or change the URL"),
                (_, "3F000") => refused("there is no such schema", "create it, or let the user create it"),
                (_, "42501") => refused(
                    "the user may not do this",
                    "grant the user USAGE and CREATE on the schema and make it the owner of the tables",
                ),
                _ => match table {
                    Some(name) if code == "42P01" => {
                        Error::new(ErrorKind::Table(name.to_owned()), message("a table is gone")).help(LOST_HELP)
                    }
                    Some(name) => Error::new(ErrorKind::Table(name.to_owned()), message("a statement failed")),
                    None => Error::new(ErrorKind::Internal, message("a statement failed")),
                },
            }
        }
        sqlx::Error::Tls(_) => refused(
            "no secure connection",
            "give the server a certificate for its host name, name its authority with `sslrootcert=…`, or choose a \
             weaker `sslmode=…` in the URL",
        ),
        sqlx::Error::Configuration(_) => refused("the URL does not work", "check the URL of the warehouse"),
        sqlx::Error::Io(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed
        | sqlx::Error::Protocol(_) => unavailable(),
        _ => Error::new(ErrorKind::Internal, message("an unexpected answer")),
    };
    found.because(error)
}

#[async_trait]
impl Warehouse for Postgres {
    async fn applied(&self, group: &str) -> Result<Option<Applied>> {
        let statement = format!(
            "SELECT log::text, through, held FROM {} WHERE topology = $1 AND group_name = $2",
            self.names.of(LEDGER)
        );
        let found: Option<(String, i64, String)> = sqlx::query_as(AssertSqlSafe(statement))
            .bind(&self.topology)
            .bind(group)
            .fetch_optional(&self.pool)
            .await
            .map_err(|e| failure(e, None).doing(format!("read the ledger of group {group}")))?;
        let Some((log, through, held)) = found else { return Ok(None) };
        let ledger = Ledger::parse(group, &log, through, &held)?;
        let accounts = self.freshness_of(Some(group)).await?;
        let accounts: BTreeMap<_, _> = accounts.into_iter().map(|f| (f.table, f.account)).collect();
        Ok(Some(Applied { log: ledger.log, through: ledger.through, held: ledger.held, accounts }))
    }

    async fn ensure_or(&self, contract: &Contract, mode: DeleteMode, lost: Lost) -> Result<()> {
        self.ensure_table(contract, mode, lost).await.map_err(|e| {
            e.doing(format!("make table {} what its contract version {} says", contract.table, contract.version))
        })
    }

    async fn apply(&self, unit: &LoadUnit) -> Result<Applied> {
        apply::apply(self, unit)
            .await
            .map_err(|e| e.doing(format!("apply epochs {}..={} of group {}", unit.after + 1, unit.through, unit.group)))
    }

    async fn freshness(&self) -> Result<Vec<Freshness>> {
        self.freshness_of(None).await
    }

    async fn incompletes(&self, group: &str, after: EpochNumber) -> Result<Vec<Incomplete>> {
        let statement = format!(
            "SELECT table_name, key, seq, source_partition, missing FROM {} \
             WHERE topology = $1 AND group_name = $2 AND epoch > $3 ORDER BY id",
            self.names.of(INCOMPLETE)
        );
        let rows: Vec<IncompleteRow> = sqlx::query_as(AssertSqlSafe(statement))
            .bind(&self.topology)
            .bind(group)
            .bind(after as i64)
            .fetch_all(&self.pool)
            .await
            .map_err(|e| failure(e, None).doing(format!("read the incomplete rows of group {group}")))?;
        rows.into_iter().map(incomplete_of).collect()
    }
}

impl Postgres {
    async fn freshness_of(&self, group: Option<&str>) -> Result<Vec<Freshness>> {
        let statement = format!(
            "SELECT table_name, max_source_time_us, applied_at_us, epoch, loaded, applied, superseded, incomplete \
             FROM {} WHERE topology = $1 AND ($2::text IS NULL OR group_name = $2) ORDER BY table_name COLLATE \"C\"",
            self.names.of(TABLES)
        );
        let rows: Vec<FreshnessRow> = sqlx::query_as(AssertSqlSafe(statement))
            .bind(&self.topology)
            .bind(group)
            .fetch_all(&self.pool)
            .await
            .map_err(|e| failure(e, None).doing("read how fresh the tables are"))?;
        Ok(rows.into_iter().map(Freshness::of).collect())
    }
}

/// The SQL of an empty warehouse, for `dataflow plan`.
pub fn plan(schema_name: &str, topology: &str, contract: &Contract, mode: DeleteMode) -> Vec<String> {
    let names = sql::Names::new(schema_name);
    let (table, schema, stage) = (contract.table.as_str(), &contract.output, "_dataflow_stage_0");
    let mut out: Vec<String> = names.ledger().into_iter().map(|(_, statement)| statement).collect();
    out.push(names.freshness(FRESHNESS));
    out.push(names.create(table, schema, mode));
    let staged = |kind| [sql::create_stage(stage, schema, kind), sql::copy(stage, schema, kind)];
    if schema.key.is_empty() {
        out.extend(staged(sql::StageKind::Append));
        out.push(names.append(table, schema, stage));
        return out;
    }
    let merge = names.merge(topology, table, schema, mode, stage);
    if mode != DeleteMode::History {
        out.extend(staged(sql::StageKind::Plain));
        out.push(merge.upsert(false));
    }
    out.extend(staged(sql::StageKind::Merge));
    out.extend(merge.statements(Needs { partial: true, moves: true, gone: true, marked: true }, None, true));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_elsewhere_must_prove_who_it_is() {
        let mode = |url: &str| format!("{:?}", options(url, "t").expect("a URL").get_ssl_mode());
        assert_eq!(mode("postgres://u:p@db.example.com/d"), "VerifyFull");
        assert_eq!(mode("postgres://u:p@db.example.com/d?sslmode=require"), "Require");
        assert_ne!(mode("postgres://u:p@127.0.0.1/d"), "VerifyFull");
    }

    #[test]
    fn no_error_shows_the_url() {
        let error = options("postgres://u:s3cret@host:port/d", "t").map(|_| ()).expect_err("no port");
        assert!(!error.to_string().contains("s3cret"), "{error}");
    }
}
