//! The ledger, and tables as their contracts say.

use sqlx::{AssertSqlSafe, PgConnection};

use super::types::{Fit, fit, sql_type};
use super::{Postgres, failure, run, sql};
use crate::contract::Contract;
use crate::epoch::DeleteMode;
use crate::error::{Error, ErrorKind, Result};
use crate::warehouse::Lost;
use crate::warehouse::names::{FRESHNESS, FRESHNESS_ELSE, TABLES, literal, quote};

/// The longest name; PostgreSQL would cut a longer one silently.
const MAX_NAME_BYTES: usize = 63;

struct LiveColumn {
    name: String,
    data_type: String,
    generated: bool,
}

impl Postgres {
    /// One process at a time does DDL in a schema.
    async fn begin_ddl(&self) -> Result<sqlx::Transaction<'static, sqlx::Postgres>> {
        let mut tx = self.pool.begin().await.map_err(|e| failure(e, None))?;
        let lock = literal(&format!("dataflow {}", self.names.schema()));
        run(&mut tx, format!("SELECT pg_advisory_xact_lock(hashtextextended({lock}, 0))"), None).await?;
        Ok(tx)
    }

    pub(super) async fn set_up(&self) -> Result<()> {
        let mut tx = self.begin_ddl().await?;
        let schema = self.names.schema();
        let there: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM pg_namespace WHERE nspname = $1)")
            .bind(schema)
            .fetch_one(&mut *tx)
            .await
            .map_err(|e| failure(e, None))?;
        if !there {
            run(&mut tx, format!("CREATE SCHEMA {}", quote(schema)), None).await?;
        }
        for (name, statement) in self.names.ledger() {
            if self.kind(&mut tx, name).await?.is_none() {
                run(&mut tx, statement, None).await?;
            }
        }
        if let Some(name) = self.view_to_make(&mut tx).await? {
            run(&mut tx, self.names.freshness(name), None).await?;
        }
        tx.commit().await.map_err(|e| failure(e, None))
    }

    /// The name under which the view is still to be made.
    async fn view_to_make(&self, conn: &mut PgConnection) -> Result<Option<&'static str>> {
        for name in [FRESHNESS, FRESHNESS_ELSE] {
            let definition: Option<Option<String>> = sqlx::query_scalar(
                "SELECT CASE relkind WHEN 'v' THEN pg_get_viewdef(oid) END FROM pg_class WHERE oid = to_regclass($1)",
            )
            .bind(self.names.of(name))
            .fetch_optional(&mut *conn)
            .await
            .map_err(|e| failure(e, None))?;
            match definition {
                None => return Ok(Some(name)),
                Some(Some(definition)) if definition.contains(TABLES) => return Ok(None),
                Some(_) => tracing::warn!(schema = %self.names.schema(), "the name `{name}` is taken; looking further"),
            }
        }
        Ok(None)
    }

    /// The kind of relation that has this name (`r`, `v`, …).
    async fn kind(&self, conn: &mut PgConnection, name: &str) -> Result<Option<String>> {
        sqlx::query_scalar("SELECT relkind::text FROM pg_class WHERE oid = to_regclass($1)")
            .bind(self.names.of(name))
            .fetch_optional(conn)
            .await
            .map_err(|e| failure(e, None))
    }

    pub(super) async fn ensure_table(&self, contract: &Contract, mode: DeleteMode, lost: Lost) -> Result<()> {
        check_names(contract)?;
        let (table, schema) = (contract.table.as_str(), &contract.output);
        let mut tx = self.begin_ddl().await?;
        match self.kind(&mut tx, table).await?.as_deref() {
            None => {
                if lost == Lost::Park {
                    self.refuse_lost(&mut tx, table).await?;
                }
                run(&mut tx, self.names.create(table, schema, mode), Some(table)).await?;
            }
            Some("r" | "p") => self.reconcile(&mut tx, contract, mode).await?,
            Some(_) => {
                return Err(Error::new(
                    ErrorKind::Table(table.to_owned()),
                    format!("{} is there, but it is not a table", self.names.of(table)),
                )
                .help("rename what has that name, or rename the table in the topology"));
            }
        }
        tx.commit().await.map_err(|e| failure(e, Some(table)))
    }

    /// Fails for a table that is not there and has been loaded.
    async fn refuse_lost(&self, conn: &mut PgConnection, table: &str) -> Result<()> {
        let statement = format!(
            "SELECT epoch FROM {} WHERE topology = $1 AND table_name = $2 AND epoch > 0",
            self.names.of(TABLES)
        );
        let epoch: Option<i64> = sqlx::query_scalar(AssertSqlSafe(statement))
            .bind(&self.topology)
            .bind(table)
            .fetch_optional(conn)
            .await
            .map_err(|e| failure(e, Some(table)))?;
        epoch.map_or(Ok(()), |epoch| Err(crate::warehouse::lost(table, epoch as u64)))
    }

    async fn reconcile(&self, conn: &mut PgConnection, contract: &Contract, mode: DeleteMode) -> Result<()> {
        let (table, schema) = (contract.table.as_str(), &contract.output);
        let live = self.live_columns(conn, table).await?;
        for column in &schema.columns {
            let wanted = sql_type(column.data_type);
            let Some(found) = live.iter().find(|l| l.name == column.name) else {
                run(conn, self.names.add_column(table, &column.name, &wanted), Some(table)).await?;
                continue;
            };
            match fit(&found.data_type, column.data_type) {
                _ if found.generated => return Err(incompatible(table, found, &wanted)),
                Fit::Holds => {}
                Fit::Widen(wider) => {
                    let widened = run(conn, self.names.widen(table, &column.name, &wider), Some(table)).await;
                    widened.map_err(|e| e.help(format!(
                        "the column must become {wider}: drop what depends on it (a view, most often) and make it again \
                         afterwards"
                    )))?;
                }
                Fit::Never => return Err(incompatible(table, found, &wanted)),
            }
        }
        for (name, sql_type) in sql::system_columns(schema, mode) {
            if !live.iter().any(|l| l.name == name) {
                run(conn, self.names.add_column(table, name, sql_type), Some(table)).await?;
            }
        }
        self.ensure_unique(conn, contract, mode).await
    }

    async fn live_columns(&self, conn: &mut PgConnection, table: &str) -> Result<Vec<LiveColumn>> {
        let rows: Vec<(String, String, bool)> = sqlx::query_as(
            "SELECT attname::text, format_type(atttypid, atttypmod), attgenerated <> '' OR attidentity = 'a' \
             FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        )
        .bind(self.names.of(table))
        .fetch_all(conn)
        .await
        .map_err(|e| failure(e, Some(table)))?;
        Ok(rows.into_iter().map(|(name, data_type, generated)| LiveColumn { name, data_type, generated }).collect())
    }

    async fn ensure_unique(&self, conn: &mut PgConnection, contract: &Contract, mode: DeleteMode) -> Result<()> {
        let (table, schema) = (contract.table.as_str(), &contract.output);
        let mut wanted = sql::unique(schema, mode);
        if wanted.is_empty() {
            return Ok(());
        }
        wanted.sort();
        let statement = "SELECT EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = to_regclass($1) AND i.indisunique \
             AND i.indimmediate AND i.indisvalid AND i.indpred IS NULL AND i.indexprs IS NULL AND $2::text[] = \
             (SELECT array_agg(a.attname::text ORDER BY a.attname::text COLLATE \"C\") FROM pg_attribute a \
             WHERE a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey[0:i.indnkeyatts - 1])))";
        let there: bool = sqlx::query_scalar(AssertSqlSafe(statement))
            .bind(self.names.of(table))
            .bind(wanted)
            .fetch_one(&mut *conn)
            .await
            .map_err(|e| failure(e, Some(table)))?;
        if there {
            return Ok(());
        }
        let made = run(conn, self.names.unique_index(table, schema, mode), Some(table)).await;
        made.map(|_rows| ()).map_err(|e| {
            e.help(format!(
                "the key ({}) must be unique in the existing table: remove the rows that share a key, or load into \
                 another schema",
                schema.key.join(", ")
            ))
        })
    }
}

fn incompatible(table: &str, found: &LiveColumn, wanted: &str) -> Error {
    let kind = if found.generated { "generated, as" } else { "of type" };
    Error::new(
        ErrorKind::Table(table.to_owned()),
        format!("column {} of table {table} is {kind} {}, which cannot take {wanted}", found.name, found.data_type),
    )
    .help(format!(
        "change the column to {wanted}, rename it, or let DataFlow make the table: rename the existing one and resync"
    ))
}

fn check_names(contract: &Contract) -> Result<()> {
    let columns = contract.output.columns.iter().map(|c| c.name.as_str());
    let long = columns.chain([contract.table.as_str()]).find(|name| name.len() > MAX_NAME_BYTES);
    long.map_or(Ok(()), |name| {
        Err(Error::new(
            ErrorKind::Table(contract.table.clone()),
            format!("the name {name} is longer than the {MAX_NAME_BYTES} bytes that PostgreSQL keeps"),
        )
        .help("use a `rename` operator, or a shorter table name in the topology"))
    })
}
