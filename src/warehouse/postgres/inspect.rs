//! What people ask.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgPoolOptions;

use super::{Postgres, failure, options, rows, sql};
use crate::config::PostgresWarehouse;
use crate::epoch::DeleteMode;
use crate::error::Result;
use crate::warehouse::inspect::{
    COLUMNS, Found, HeldQuery, Inspect, LiveRows, OpenIncomplete, TakeRow, open_incomplete,
};
use crate::warehouse::names::{INCOMPLETE, live};

/// How long a person waits to learn that the server does not answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a person waits for one table's exact count.
const COUNT_TIMEOUT_MS: u32 = 5_000;

impl Postgres {
    /// Connects, and looks whether the ledger is there. Makes nothing.
    pub async fn find(config: &PostgresWarehouse, topology: &str) -> Result<Option<Self>> {
        let options = options(&config.url, topology)?;
        let place = format!("{}:{}/{}", options.get_host(), options.get_port(), options.get_database().unwrap_or(""));
        let doing = || format!("look at the PostgreSQL warehouse {place}, schema {}", config.schema);
        let pool = PgPoolOptions::new().max_connections(1).acquire_timeout(ANSWER_TIMEOUT);
        let pool = pool.connect_with(options).await.map_err(|e| failure(e, None).doing(doing()))?;
        let found = Self { pool, names: sql::Names::new(&config.schema), topology: topology.to_owned() };
        let there = found.has_table(INCOMPLETE).await.map_err(|e| e.doing(doing()))?;
        Ok(there.then_some(found))
    }

    pub(super) async fn has_table(&self, table: &str) -> Result<bool> {
        let found = sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL").bind(self.names.of(table));
        found.fetch_one(&self.pool).await.map_err(|e| failure(e, Some(table)))
    }

    /// `None` = it took too long.
    async fn count(&self, table: &str, live: &str, timeout_ms: u32) -> Result<Option<u64>> {
        let fail = |e| failure(e, Some(table)).doing("count rows");
        let mut tx = self.pool.begin().await.map_err(fail)?;
        let limit = format!("SET LOCAL statement_timeout = {timeout_ms}");
        sqlx::query(AssertSqlSafe(limit)).execute(&mut *tx).await.map_err(fail)?;
        let statement = format!("SELECT count(*) FROM {}{live}", self.names.of(table));
        let counted: Result<i64, _> = sqlx::query_scalar(AssertSqlSafe(statement)).fetch_one(&mut *tx).await;
        match counted {
            Ok(rows) => Ok(Some(rows.unsigned_abs())),
            Err(sqlx::Error::Database(e)) if e.code().as_deref() == Some("57014") => Ok(None),
            Err(error) => Err(fail(error)),
        }
    }

    /// What the planner expects the count to run over.
    async fn estimate(&self, table: &str, live: &str) -> Result<u64> {
        let fail = |e| failure(e, Some(table)).doing("estimate rows");
        let statement = format!("EXPLAIN SELECT 1 FROM {}{live}", self.names.of(table));
        let plan: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(statement)).fetch_all(&self.pool).await.map_err(fail)?;
        let top = plan.first().map(String::as_str).unwrap_or_default();
        Ok(planned_rows(top).unwrap_or_default())
    }

    /// Live rows, exact when counting takes no longer than `timeout_ms`.
    pub async fn live_rows_within(&self, table: &str, mode: DeleteMode, timeout_ms: u32) -> Result<Option<LiveRows>> {
        if !self.has_table(table).await? {
            return Ok(None);
        }
        let live = format!(" WHERE {}", live(mode));
        if let Some(rows) = self.count(table, &live, timeout_ms).await? {
            return Ok(Some(LiveRows { rows, estimated: false }));
        }
        Ok(Some(LiveRows { rows: self.estimate(table, &live).await?, estimated: true }))
    }
}

/// `Seq Scan on orders  (cost=0.00..35.50 rows=2550 width=4)`: 2550.
fn planned_rows(node: &str) -> Option<u64> {
    let (_, rows) = node.split_once(" rows=")?;
    rows.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

/// Its pool closes what is unused.
impl crate::warehouse::Rest for Postgres {}

#[async_trait]
impl Inspect for Postgres {
    async fn live_rows(&self, table: &str, mode: DeleteMode) -> Result<Option<LiveRows>> {
        self.live_rows_within(table, mode, COUNT_TIMEOUT_MS).await
    }

    async fn open_incompletes(&self) -> Result<Vec<OpenIncomplete>> {
        let incomplete = self.names.of(INCOMPLETE);
        let statement = format!("SELECT {COLUMNS} FROM {incomplete} WHERE topology = $1 ORDER BY id");
        let found: Vec<Found> = sqlx::query_as(AssertSqlSafe(statement))
            .bind(&self.topology)
            .fetch_all(&self.pool)
            .await
            .map_err(|e| failure(e, None).doing("read the incomplete rows"))?;
        found.into_iter().map(open_incomplete).collect()
    }

    async fn count_incompletes(&self) -> Result<BTreeMap<String, u64>> {
        let incomplete = self.names.of(INCOMPLETE);
        let statement =
            format!("SELECT table_name, count(*) FROM {incomplete} WHERE topology = $1 GROUP BY table_name");
        let found: Vec<(String, i64)> = sqlx::query_as(AssertSqlSafe(statement))
            .bind(&self.topology)
            .fetch_all(&self.pool)
            .await
            .map_err(|e| failure(e, None).doing("count the incomplete rows"))?;
        Ok(found.into_iter().map(|(table, count)| (table, count.unsigned_abs())).collect())
    }

    async fn drop_incompletes(&self, ids: &[i64]) -> Result<u64> {
        let statement = format!("DELETE FROM {} WHERE topology = $1 AND id = ANY ($2)", self.names.of(INCOMPLETE));
        let done = sqlx::query(AssertSqlSafe(statement))
            .bind(&self.topology)
            .bind(ids)
            .execute(&self.pool)
            .await
            .map_err(|e| failure(e, None).doing("give incomplete rows up"))?;
        Ok(done.rows_affected())
    }

    async fn held_rows(&self, query: &HeldQuery<'_>, take: &mut TakeRow<'_>) -> Result<bool> {
        rows::read(self, query, take).await.map_err(|e| e.doing("read the rows of the warehouse"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_planners_rows_are_read_from_its_first_node() {
        assert_eq!(planned_rows("Seq Scan on orders  (cost=0.00..35.50 rows=2550 width=4)"), Some(2550));
        assert_eq!(planned_rows("Result"), None);
    }
}
