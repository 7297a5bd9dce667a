//! Which group loads which table: see [`regroup`](crate::warehouse::regroup).

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, PgConnection};

use super::{Postgres, failure, run};
use crate::error::Result;
use crate::warehouse::names::{INCOMPLETE, LEDGER, TABLES};
use crate::warehouse::regroup::{Home, Regrouping, homes, regroup};
use crate::warehouse::{held_text, place};

impl Postgres {
    /// Gives every table of `groups` the home that it is to have.
    pub async fn assign(&self, groups: &BTreeMap<String, Vec<String>>) -> Result<()> {
        self.try_assign(groups).await.map_err(|e| e.doing("give every table its group"))
    }

    async fn try_assign(&self, groups: &BTreeMap<String, Vec<String>>) -> Result<()> {
        let mut tx = self.pool.begin().await.map_err(|e| failure(e, None))?;
        if !regroup(groups, &self.homes(&mut tx).await?)?.changes_something() {
            return Ok(());
        }
        // Loads wait; who only looks does not.
        let lock = format!("LOCK TABLE {}, {} IN EXCLUSIVE MODE", self.names.of(LEDGER), self.names.of(TABLES));
        run(&mut tx, lock, None).await?;
        let todo = regroup(groups, &self.homes(&mut tx).await?)?;
        self.moved(&mut tx, &todo).await?;
        place("warehouse.regroup.before")?;
        tx.commit().await.map_err(|e| failure(e, None))?;
        place("warehouse.regroup.after")?;
        todo.tell();
        Ok(())
    }

    async fn homes(&self, conn: &mut PgConnection) -> Result<BTreeMap<String, Home>> {
        let ledgers =
            format!("SELECT group_name, log::text, through, held FROM {} WHERE topology = $1", self.names.of(LEDGER));
        let ledgers: Vec<(String, String, i64, String)> = sqlx::query_as(AssertSqlSafe(ledgers))
            .bind(&self.topology)
            .fetch_all(&mut *conn)
            .await
            .map_err(|e| failure(e, None))?;
        let tables = format!("SELECT group_name, table_name FROM {} WHERE topology = $1", self.names.of(TABLES));
        let tables: Vec<(String, String)> = sqlx::query_as(AssertSqlSafe(tables))
            .bind(&self.topology)
            .fetch_all(conn)
            .await
            .map_err(|e| failure(e, None))?;
        homes(ledgers, tables)
    }

    async fn moved(&self, conn: &mut PgConnection, todo: &Regrouping) -> Result<()> {
        for (table, _, to) in &todo.moves {
            for of in [TABLES, INCOMPLETE] {
                let of = self.names.of(of);
                let statement = format!("UPDATE {of} SET group_name = $3 WHERE topology = $1 AND table_name = $2");
                let moved = sqlx::query(AssertSqlSafe(statement)).bind(&self.topology).bind(table).bind(to);
                moved.execute(&mut *conn).await.map_err(|e| failure(e, None))?;
            }
        }
        let statement = format!(
            "INSERT INTO {} (topology, group_name, log, through, held, updated_at) VALUES ($1, $2, $3::uuid, $4, $5, now()) \
             ON CONFLICT (topology, group_name) DO UPDATE SET through = excluded.through, held = excluded.held, \
             updated_at = excluded.updated_at",
            self.names.of(LEDGER)
        );
        for (group, stand) in &todo.ledgers {
            sqlx::query(AssertSqlSafe(statement.clone()))
                .bind(&self.topology)
                .bind(group)
                .bind(stand.log.to_string())
                .bind(stand.through as i64)
                .bind(held_text(&stand.held)?)
                .execute(&mut *conn)
                .await
                .map_err(|e| failure(e, None))?;
        }
        Ok(())
    }
}
