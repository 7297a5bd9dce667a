//! Which group loads which table: see [`regroup`](crate::warehouse::regroup).

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, SqliteConnection};

use super::{Sqlite, failure};
use crate::error::Result;
use crate::warehouse::names::{INCOMPLETE, LEDGER, TABLES};
use crate::warehouse::regroup::{Home, Regrouping, homes, regroup};
use crate::warehouse::{held_text, place};

impl Sqlite {
    /// Gives every table of `groups` the home that it is to have.
    pub async fn assign(&self, groups: &BTreeMap<String, Vec<String>>) -> Result<()> {
        self.try_assign(groups).await.map_err(|e| e.doing("give every table its group"))
    }

    async fn try_assign(&self, groups: &BTreeMap<String, Vec<String>>) -> Result<()> {
        let mut tx = self.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|e| failure(e, None))?;
        let todo = regroup(groups, &self.homes(&mut tx).await?)?;
        if !todo.changes_something() {
            return Ok(());
        }
        self.moved(&mut tx, &todo).await?;
        place("warehouse.regroup.before")?;
        tx.commit().await.map_err(|e| failure(e, None))?;
        place("warehouse.regroup.after")?;
        todo.tell();
        Ok(())
    }

    async fn homes(&self, conn: &mut SqliteConnection) -> Result<BTreeMap<String, Home>> {
        let ledgers = format!("SELECT group_name, log, through, held FROM {LEDGER} WHERE topology = ?");
        let ledgers: Vec<(String, String, i64, String)> = sqlx::query_as(AssertSqlSafe(ledgers))
            .bind(&self.topology)
            .fetch_all(&mut *conn)
            .await
            .map_err(|e| failure(e, None))?;
        let tables = format!("SELECT group_name, table_name FROM {TABLES} WHERE topology = ?");
        let tables: Vec<(String, String)> = sqlx::query_as(AssertSqlSafe(tables))
            .bind(&self.topology)
            .fetch_all(conn)
            .await
            .map_err(|e| failure(e, None))?;
        homes(ledgers, tables)
    }

    async fn moved(&self, conn: &mut SqliteConnection, todo: &Regrouping) -> Result<()> {
        for (table, _, to) in &todo.moves {
            for of in [TABLES, INCOMPLETE] {
                let statement = format!("UPDATE {of} SET group_name = ? WHERE topology = ? AND table_name = ?");
                let moved = sqlx::query(AssertSqlSafe(statement)).bind(to).bind(&self.topology).bind(table);
                moved.execute(&mut *conn).await.map_err(|e| failure(e, None))?;
            }
        }
        let statement = format!(
            "INSERT INTO {LEDGER} (topology, group_name, log, through, held, updated_at) VALUES (?, ?, ?, ?, ?, ?) \
             ON CONFLICT (topology, group_name) DO UPDATE SET through = excluded.through, held = excluded.held, \
             updated_at = excluded.updated_at"
        );
        for (group, stand) in &todo.ledgers {
            sqlx::query(AssertSqlSafe(statement.clone()))
                .bind(&self.topology)
                .bind(group)
                .bind(stand.log.to_string())
                .bind(stand.through as i64)
                .bind(held_text(&stand.held)?)
                .bind(chrono::Utc::now().to_rfc3339())
                .execute(&mut *conn)
                .await
                .map_err(|e| failure(e, None))?;
        }
        Ok(())
    }
}
