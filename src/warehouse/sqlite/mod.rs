//! SQLite: one file that other programs can read while it is written.
//!
//! | file | what it owns |
//! |---|---|
//! | `sql.rs` | SQL text |
//! | `types.rs` | how values are kept |
//! | `homes.rs` | which group loads which table |
//! | `apply.rs` | one unit, one transaction |
//! | `inspect.rs` | what people ask |
//! | `rows.rs` | the rows as they stand |

mod apply;
mod homes;
mod inspect;
mod rows;
mod sql;
mod types;

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, Row, SqliteConnection, SqlitePool};

use super::merge::Needs;
use super::names::{FRESHNESS_ELSE, INCOMPLETE, TABLES, quote};
use super::{Freshness, FreshnessRow, IncompleteRow, LOST_HELP, Lost, Warehouse, incomplete_of};
use crate::config::SqliteWarehouse;
use crate::contract::Contract;
use crate::epoch::{Applied, DeleteMode, EpochNumber, Incomplete, LoadUnit};
use crate::error::{Error, ErrorKind, Result};

/// How long a writer waits for another one.
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

/// A SQLite file.
#[derive(Debug, Clone)]
pub struct Sqlite {
    pool: SqlitePool,
    path: String,
    topology: String,
}

impl Sqlite {
    /// Opens or makes the file in WAL mode, with the ledger of `topology`.
    pub async fn open(config: &SqliteWarehouse, topology: &str) -> Result<Self> {
        let doing = format!("open the SQLite warehouse {}", config.path);
        let folder = std::path::Path::new(&config.path).parent().filter(|folder| !folder.as_os_str().is_empty());
        if let Some(folder) = folder {
            tokio::fs::create_dir_all(folder)
                .await
                .map_err(|e| Error::new(ErrorKind::WarehouseRefused, &doing).because(e))?;
        }
        let options = SqliteConnectOptions::new()
            .filename(&config.path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new()
            .max_connections(4)
            .connect_with(options)
            .await
            .map_err(|e| failure(e, None).doing(&doing))?;
        let warehouse = Self { pool, path: config.path.clone(), topology: topology.to_owned() };
        warehouse.set_up().await.map_err(|e| e.doing(&doing))?;
        Ok(warehouse)
    }

    async fn set_up(&self) -> Result<()> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|e| failure(e, None))?;
        for statement in sql::ledger() {
            run(&mut tx, statement, None).await?;
        }
        let taken: Option<String> = sqlx::query_scalar("SELECT sql FROM sqlite_schema WHERE lower(name) = 'freshness'")
            .fetch_optional(&mut *tx)
            .await
            .map_err(|e| failure(e, None))?;
        let ours = taken.is_none_or(|sql| sql.contains(TABLES));
        if !ours {
            tracing::warn!(path = %self.path, "the name `freshness` is taken; the view is `{FRESHNESS_ELSE}` instead");
        }
        let name = if ours { sql::FRESHNESS_VIEW } else { FRESHNESS_ELSE };
        run(&mut tx, sql::freshness(name), None).await?;
        tx.commit().await.map_err(|e| failure(e, None))
    }

    async fn ensure_in(
        &self,
        conn: &mut SqliteConnection,
        contract: &Contract,
        mode: DeleteMode,
        lost: Lost,
    ) -> Result<()> {
        let (table, schema) = (contract.table.as_str(), &contract.output);
        let live = live_columns(conn, table).await?;
        if live.is_empty() {
            if lost == Lost::Park {
                self.refuse_lost(conn, table).await?;
            }
            run(conn, sql::create(table, schema, mode), Some(table)).await?;
            return Ok(());
        }
        for column in &schema.columns {
            let wanted = types::sql_type(column.data_type);
            match live.iter().find(|l| l.name.eq_ignore_ascii_case(&column.name)) {
                None => run(conn, sql::add_column(table, &column.name, wanted), Some(table)).await?,
                Some(found) if types::keeps(&found.declared, column.data_type) => {}
                Some(found) if wanted == "TEXT" && !found.key && numeric(&found.declared) => {
                    for statement in sql::to_text(table, &column.name) {
                        run(conn, statement, Some(table)).await?;
                    }
                }
                Some(found) => return Err(incompatible(table, &column.name, &found.declared, wanted)),
            }
        }
        for (name, sql_type) in sql::system_columns(schema, mode) {
            if !live.iter().any(|l| l.name == name) {
                run(conn, sql::add_column(table, name, sql_type), Some(table)).await?;
            }
        }
        self.ensure_unique(conn, contract, mode, &live).await
    }

    /// Fails for a table that is not there and has been loaded.
    async fn refuse_lost(&self, conn: &mut SqliteConnection, table: &str) -> Result<()> {
        let statement = format!("SELECT epoch FROM {TABLES} WHERE topology = ? AND table_name = ? AND epoch > 0");
        let epoch: Option<i64> = sqlx::query_scalar(AssertSqlSafe(statement))
            .bind(&self.topology)
            .bind(table)
            .fetch_optional(conn)
            .await
            .map_err(|e| failure(e, Some(table)))?;
        epoch.map_or(Ok(()), |epoch| Err(super::lost(table, epoch as u64)))
    }

    async fn ensure_unique(
        &self,
        conn: &mut SqliteConnection,
        contract: &Contract,
        mode: DeleteMode,
        live: &[LiveColumn],
    ) -> Result<()> {
        let (table, schema) = (contract.table.as_str(), &contract.output);
        let mut unique = sql::unique(schema, mode);
        let mut primary: Vec<String> = live.iter().filter(|c| c.key).map(|c| c.name.clone()).collect();
        unique.sort();
        primary.sort();
        if unique.is_empty() || unique == primary {
            return Ok(());
        }
        run(conn, sql::unique_index(table, schema, mode), Some(table)).await.map_err(|e| {
            e.help(format!(
                "the key ({}) must be unique in the existing table: remove the rows that share a key, or load into \
                 another file",
                schema.key.join(", ")
            ))
        })
    }
}

fn numeric(declared: &str) -> bool {
    !matches!(types::affinity(declared), types::Affinity::Text | types::Affinity::Blob)
}

fn incompatible(table: &str, column: &str, found: &str, wanted: &str) -> Error {
    Error::new(
        ErrorKind::Table(table.to_owned()),
        format!("column {column} of table {table} is declared {found}, which cannot keep its values exactly"),
    )
    .help(format!(
        "change the column to {wanted}, rename it, or let DataFlow make the table: rename the existing one and resync"
    ))
}

struct LiveColumn {
    name: String,
    declared: String,
    key: bool,
}

async fn live_columns(conn: &mut SqliteConnection, table: &str) -> Result<Vec<LiveColumn>> {
    let rows = sqlx::query("SELECT name, type, pk FROM pragma_table_info(?)")
        .bind(table)
        .fetch_all(conn)
        .await
        .map_err(|e| failure(e, Some(table)))?;
    let column = |row: sqlx::sqlite::SqliteRow| -> Result<LiveColumn, sqlx::Error> {
        Ok(LiveColumn { name: row.try_get(0)?, declared: row.try_get(1)?, key: row.try_get::<i64, _>(2)? > 0 })
    };
    rows.into_iter().map(|row| column(row).map_err(|e| failure(e, Some(table)))).collect()
}

/// Runs one statement.
async fn run(conn: &mut SqliteConnection, statement: String, table: Option<&str>) -> Result<()> {
    let result = sqlx::query(AssertSqlSafe(statement)).persistent(false).execute(conn).await;
    result.map(|_done| ()).map_err(|e| failure(e, table))
}

/// What a failure of SQLite means.
fn failure(error: sqlx::Error, table: Option<&str>) -> Error {
    let code = match &error {
        sqlx::Error::Database(e) => e.code().and_then(|code| code.parse::<u32>().ok()).map(|code| code & 0xff),
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => Some(10),
        _ => None,
    };
    let message = |what: &str| match table {
        Some(table) => format!("SQLite, table {table}: {what}"),
        None => format!("SQLite: {what}"),
    };
    match code {
        // SQLITE_BUSY, SQLITE_LOCKED, SQLITE_IOERR, SQLITE_FULL
        Some(5 | 6 | 10 | 13) => Error::new(ErrorKind::WarehouseUnavailable, message("not possible right now")),
        // SQLITE_PERM, SQLITE_READONLY, SQLITE_CORRUPT, SQLITE_CANTOPEN, SQLITE_AUTH, SQLITE_NOTADB
        Some(3 | 8 | 11 | 14 | 23 | 26) => Error::new(ErrorKind::WarehouseRefused, message("refused"))
            .help("check that the path of the warehouse names a SQLite file in a folder that this user may write"),
        _ => match table {
            Some(name) if error.to_string().contains("no such table") => {
                Error::new(ErrorKind::Table(name.to_owned()), message("a table is gone")).help(LOST_HELP)
            }
            Some(name) => Error::new(ErrorKind::Table(name.to_owned()), message("a statement failed")),
            None => Error::new(ErrorKind::Internal, message("a statement failed")),
        },
    }
    .because(error)
}

#[async_trait]
impl Warehouse for Sqlite {
    async fn applied(&self, group: &str) -> Result<Option<Applied>> {
        let doing = |e| failure(e, None).doing(format!("read the ledger of group {group}"));
        let ledger = {
            // Given back before the next query takes one: groups that each hold one and want another wait for ever.
            let mut conn = self.pool.acquire().await.map_err(doing)?;
            apply::read_ledger(&mut conn, &self.topology, group).await?
        };
        let Some(ledger) = ledger else { return Ok(None) };
        let accounts = self.freshness_of(Some(group)).await?;
        let accounts: BTreeMap<_, _> = accounts.into_iter().map(|f| (f.table, f.account)).collect();
        Ok(Some(Applied { log: ledger.log, through: ledger.through, held: ledger.held, accounts }))
    }

    async fn ensure_or(&self, contract: &Contract, mode: DeleteMode, lost: Lost) -> Result<()> {
        let doing = || format!("make table {} what its contract version {} says", contract.table, contract.version);
        let begin = self.pool.begin_with("BEGIN IMMEDIATE").await;
        let mut tx = begin.map_err(|e| failure(e, None).doing(doing()))?;
        self.ensure_in(&mut tx, contract, mode, lost).await.map_err(|e| e.doing(doing()))?;
        tx.commit().await.map_err(|e| failure(e, Some(&contract.table)).doing(doing()))
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
             WHERE topology = ? AND group_name = ? AND epoch > ? ORDER BY id",
            quote(INCOMPLETE)
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

impl Sqlite {
    async fn freshness_of(&self, group: Option<&str>) -> Result<Vec<Freshness>> {
        let statement = format!(
            "SELECT table_name, max_source_time_us, applied_at_us, epoch, loaded, applied, superseded, incomplete \
             FROM {TABLES} WHERE topology = ? AND (? IS NULL OR group_name = ?) ORDER BY table_name"
        );
        let rows: Vec<FreshnessRow> = sqlx::query_as(AssertSqlSafe(statement))
            .bind(&self.topology)
            .bind(group)
            .bind(group)
            .fetch_all(&self.pool)
            .await
            .map_err(|e| failure(e, None).doing("read how fresh the tables are"))?;
        Ok(rows.into_iter().map(Freshness::of).collect())
    }
}

/// The SQL of an empty warehouse, for `dataflow plan`.
pub fn plan(topology: &str, contract: &Contract, mode: DeleteMode) -> Vec<String> {
    let schema = &contract.output;
    let mut out = sql::ledger();
    out.push(sql::freshness(sql::FRESHNESS_VIEW));
    out.push(sql::create(&contract.table, schema, mode));
    let columns = sql::stage_columns(schema);
    if schema.key.is_empty() {
        out.push(apply::append_statement(&contract.table, schema));
        return out;
    }
    let merge = sql::merge(topology, &contract.table, schema, mode);
    if mode != DeleteMode::History {
        out.push(merge.upsert_from("VALUES …"));
    }
    out.push(sql::create_stage(schema));
    out.push(format!("INSERT INTO {} ({}) VALUES …", sql::STAGE, columns.join(", ")));
    out.extend(merge.statements(Needs { partial: true, moves: true, gone: true, marked: true }, None, true));
    out
}
