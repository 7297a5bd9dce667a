//! What people ask.

use std::collections::BTreeMap;

use async_trait::async_trait;
use sqlx::AssertSqlSafe;
use sqlx::sqlite::{SqliteConnectOptions, SqlitePoolOptions};

use super::{BUSY_TIMEOUT, Sqlite, failure, rows};
use crate::config::SqliteWarehouse;
use crate::epoch::DeleteMode;
use crate::error::Result;
use crate::warehouse::inspect::{
    COLUMNS, Found, HeldQuery, Inspect, LiveRows, OpenIncomplete, TakeRow, open_incomplete,
};
use crate::warehouse::names::{INCOMPLETE, live, quote};

impl Sqlite {
    /// Opens the file when it is there and holds a ledger. Makes nothing.
    pub async fn find(config: &SqliteWarehouse, topology: &str) -> Result<Option<Self>> {
        if !tokio::fs::try_exists(&config.path).await.unwrap_or(true) {
            return Ok(None);
        }
        let doing = || format!("look at the SQLite warehouse {}", config.path);
        let options =
            SqliteConnectOptions::new().filename(&config.path).create_if_missing(false).busy_timeout(BUSY_TIMEOUT);
        let pool = SqlitePoolOptions::new().max_connections(1).connect_with(options).await;
        let pool = pool.map_err(|e| failure(e, None).doing(doing()))?;
        let found = Self { pool, path: config.path.clone(), topology: topology.to_owned() };
        let there = found.has_table(INCOMPLETE).await.map_err(|e| e.doing(doing()))?;
        Ok(there.then_some(found))
    }

    pub(super) async fn has_table(&self, table: &str) -> Result<bool> {
        let statement = "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE lower(name) = lower(?))";
        let found = sqlx::query_scalar(statement).bind(table).fetch_one(&self.pool).await;
        found.map_err(|e| failure(e, Some(table)))
    }
}

/// Its pool closes what is unused.
impl crate::warehouse::Rest for Sqlite {}

#[async_trait]
impl Inspect for Sqlite {
    async fn live_rows(&self, table: &str, mode: DeleteMode) -> Result<Option<LiveRows>> {
        if !self.has_table(table).await? {
            return Ok(None);
        }
        let statement = format!("SELECT count(*) FROM {} WHERE {}", quote(table), live(mode));
        let rows: i64 = sqlx::query_scalar(AssertSqlSafe(statement))
            .fetch_one(&self.pool)
            .await
            .map_err(|e| failure(e, Some(table)).doing("count rows"))?;
        Ok(Some(LiveRows { rows: rows.unsigned_abs(), estimated: false }))
    }

    async fn open_incompletes(&self) -> Result<Vec<OpenIncomplete>> {
        let statement = format!("SELECT {COLUMNS} FROM {INCOMPLETE} WHERE topology = ? ORDER BY id");
        let found: Vec<Found> = sqlx::query_as(AssertSqlSafe(statement))
            .bind(&self.topology)
            .fetch_all(&self.pool)
            .await
            .map_err(|e| failure(e, None).doing("read the incomplete rows"))?;
        found.into_iter().map(open_incomplete).collect()
    }

    async fn count_incompletes(&self) -> Result<BTreeMap<String, u64>> {
        let statement = format!("SELECT table_name, count(*) FROM {INCOMPLETE} WHERE topology = ? GROUP BY table_name");
        let found: Vec<(String, i64)> = sqlx::query_as(AssertSqlSafe(statement))
            .bind(&self.topology)
            .fetch_all(&self.pool)
            .await
            .map_err(|e| failure(e, None).doing("count the incomplete rows"))?;
        Ok(found.into_iter().map(|(table, count)| (table, count.unsigned_abs())).collect())
    }

    async fn drop_incompletes(&self, ids: &[i64]) -> Result<u64> {
        let statement =
            format!("DELETE FROM {INCOMPLETE} WHERE topology = ? AND id IN (SELECT value FROM json_each(?))");
        let done = sqlx::query(AssertSqlSafe(statement))
            .bind(&self.topology)
            .bind(serde_json::Value::from(ids).to_string())
            .execute(&self.pool)
            .await
            .map_err(|e| failure(e, None).doing("give incomplete rows up"))?;
        Ok(done.rows_affected())
    }

    async fn held_rows(&self, query: &HeldQuery<'_>, take: &mut TakeRow<'_>) -> Result<bool> {
        rows::read(self, query, take).await.map_err(|e| e.doing("read the rows of the warehouse"))
    }
}
