//! One unit, one transaction.

use std::borrow::Cow;
use std::collections::BTreeMap;

use sqlx::sqlite::SqliteArguments;
use sqlx::{AssertSqlSafe, SqliteConnection};

use super::types::{Cell, cell, timestamp};
use super::{Sqlite, failure, run, sql};
use crate::batch::{NO_TIME, Seq, TableChanges};
use crate::contract::TableSchema;
use crate::epoch::{Applied, DeleteMode, Incomplete, LoadAccount, LoadUnit, TableLoad};
use crate::error::{Error, ErrorKind, Result};
use crate::warehouse::merge::Merge;
use crate::warehouse::names::{INCOMPLETE, LEDGER, PARTITION, SEQ, SYNCED_AT, TABLES, TOMBSTONES, literal, quote};
use crate::warehouse::shape::{Shape, StageRows, incompletes, settled};
use crate::warehouse::{Ledger, check_ledger, held_text, place, settle};

/// Values in one statement; SQLite takes 32766.
const MAX_VALUES: usize = 16_000;
/// Rows in one statement.
const MAX_ROWS: usize = 400;

/// Keys in one statement that forgets what was incomplete.
const SETTLED_KEYS: usize = 10_000;

/// What a transaction knows while it runs.
struct Scope<'a> {
    topology: &'a str,
    unit: &'a LoadUnit,
    now: chrono::DateTime<chrono::Utc>,
}

pub(super) async fn read_ledger(conn: &mut SqliteConnection, topology: &str, group: &str) -> Result<Option<Ledger>> {
    let statement = format!("SELECT log, through, held FROM {LEDGER} WHERE topology = ? AND group_name = ?");
    let found: Option<(String, i64, String)> = sqlx::query_as(AssertSqlSafe(statement))
        .bind(topology)
        .bind(group)
        .fetch_optional(conn)
        .await
        .map_err(|e| failure(e, None).doing(format!("read the ledger of group {group}")))?;
    found.map(|(log, through, held)| Ledger::parse(group, &log, through, &held)).transpose()
}

pub(super) async fn apply(warehouse: &Sqlite, unit: &LoadUnit) -> Result<Applied> {
    let mut tx = warehouse.pool.begin_with("BEGIN IMMEDIATE").await.map_err(|e| failure(e, None))?;
    let scope = Scope { topology: &warehouse.topology, unit, now: chrono::Utc::now() };
    let found = read_ledger(&mut tx, scope.topology, &unit.group).await?;
    check_ledger(unit, found.as_ref())?;
    let mut accounts = BTreeMap::new();
    for load in &unit.tables {
        let account = scope.table(&mut tx, load).await?;
        accounts.insert(load.contract.table.clone(), account);
    }
    place("warehouse.ledger.before")?;
    scope.write_ledger(&mut tx).await?;
    place("warehouse.ledger.after")?;
    place("warehouse.commit.before")?;
    tx.commit().await.map_err(|e| failure(e, None))?;
    place("warehouse.commit.after")?;
    Ok(Applied { log: unit.log, through: unit.through, held: unit.held.clone(), accounts })
}

/// The statement that appends to a table without a key.
pub(super) fn append_statement(table: &str, schema: &TableSchema) -> String {
    format!("INSERT INTO {} ({}) VALUES …", quote(table), append_columns(schema).join(", "))
}

fn append_columns(schema: &TableSchema) -> Vec<String> {
    let data = schema.columns.iter().map(|c| quote(&c.name));
    data.chain([SEQ, SYNCED_AT, PARTITION].map(str::to_owned)).collect()
}

impl Scope<'_> {
    async fn table(&self, conn: &mut SqliteConnection, load: &TableLoad) -> Result<LoadAccount> {
        place("warehouse.copy.before")?;
        let table = load.contract.table.as_str();
        let before = self.floor(conn, table).await?;
        let schema = &load.contract.output;
        let merge = sql::merge(self.topology, table, schema, load.mode);
        let mut account = LoadAccount::default();
        if let Some(truncate) = load.truncate {
            let stale = before.is_some_and(|(floor, _)| floor >= truncate);
            account.superseded += u64::from(stale);
            account.applied += u64::from(!stale);
        }
        let floor = before.max(load.truncate.map(|seq| (seq, load.truncated_at_us)));
        for (seq, at) in &load.earlier_truncates {
            run(conn, merge.truncate(*seq, &time_literal(*at)), Some(table)).await?;
        }
        if let (Some((seq, time)), true) = (floor, load.truncate.is_some()) {
            run(conn, merge.truncate(seq, &time_literal(time)), Some(table)).await?;
        }
        let (rows, mut incomplete) = if schema.key.is_empty() {
            (self.append(conn, load, floor.map(|(seq, _)| seq)).await?, Vec::new())
        } else {
            self.merge(conn, load, &merge, floor).await?
        };
        account.add(&rows);
        for round in load.later_rounds() {
            let (rows, more) = self.merge(conn, &round, &merge, floor).await?;
            account.add(&rows);
            incomplete.extend(more);
        }
        place("warehouse.copy.after")?;
        // `loaded` was counted by the fold; here only what became of the rows.
        account.loaded = 0;
        let account = settle(load, account)?;
        self.write_incomplete(conn, load.incomplete.iter().chain(&incomplete)).await?;
        self.clear_incomplete(conn, load).await?;
        self.write_totals(conn, load, &account, floor).await?;
        Ok(account)
    }

    async fn append(&self, conn: &mut SqliteConnection, load: &TableLoad, floor: Option<Seq>) -> Result<LoadAccount> {
        let schema = &load.contract.output;
        let columns = append_columns(schema);
        let mut insert = Insert::new(&load.contract.table, &quote(&load.contract.table), &columns, "");
        let mut account = LoadAccount::default();
        for changes in &load.rows {
            let partition = changes.partition.to_string();
            for row in 0..changes.len() {
                if floor.is_some_and(|floor| changes.seqs[row] < floor) {
                    account.superseded += 1;
                    continue;
                }
                let mut cells = data_cells(load, changes, row)?;
                cells.extend([self.synced_at(), Cell::Text(Cow::Owned(partition.clone()))]);
                insert.push(conn, cells).await?;
            }
        }
        account.applied = insert.finish(conn).await?;
        Ok(account)
    }

    async fn merge(
        &self,
        conn: &mut SqliteConnection,
        load: &TableLoad,
        merge: &Merge<'_>,
        floor: Option<(Seq, i64)>,
    ) -> Result<(LoadAccount, Vec<Incomplete>)> {
        let table = load.contract.table.as_str();
        let shape = Shape::of(load);
        let marked = shape.refused || load.keep_tombstones || self.has_tombstones(conn, table).await?;
        let low = floor.filter(|(floor, _)| shape.oldest.is_some_and(|oldest| oldest < *floor));
        if shape.rows == 0 {
            return Ok(Default::default());
        }
        if shape.plain() && !marked && low.is_none() && load.mode != DeleteMode::History {
            return Ok((self.upsert(conn, load, merge).await?, Vec::new()));
        }
        run(conn, format!("DROP TABLE IF EXISTS {}", sql::STAGE), Some(table)).await?;
        run(conn, sql::create_stage(&load.contract.output), Some(table)).await?;
        self.stage(conn, load, marked).await?;
        let low = low.map(|(seq, time)| (seq, time_literal(time)));
        let statements = merge.statements(shape.needs(marked), low, load.keep_tombstones);
        for statement in statements {
            run(conn, statement, Some(table)).await?;
        }
        let result = self.outcome(conn, load, merge).await?;
        run(conn, format!("DROP TABLE {}", sql::STAGE), Some(table)).await?;
        Ok(result)
    }

    async fn outcome(
        &self,
        conn: &mut SqliteConnection,
        load: &TableLoad,
        merge: &Merge<'_>,
    ) -> Result<(LoadAccount, Vec<Incomplete>)> {
        let fail = |e| failure(e, Some(&load.contract.table));
        let (applied, superseded, incomplete): (i64, i64, i64) =
            sqlx::query_as(AssertSqlSafe(merge.count())).persistent(false).fetch_one(&mut *conn).await.map_err(fail)?;
        let (applied, superseded, incomplete) = (applied as u64, superseded as u64, incomplete as u64);
        let numbers: Vec<i64> = sqlx::query_scalar(AssertSqlSafe(merge.incomplete()))
            .persistent(false)
            .fetch_all(conn)
            .await
            .map_err(fail)?;
        Ok((LoadAccount { loaded: 0, applied, superseded, incomplete }, incompletes(load, &numbers)?))
    }

    async fn upsert(&self, conn: &mut SqliteConnection, load: &TableLoad, merge: &Merge<'_>) -> Result<LoadAccount> {
        let columns = load.contract.output.columns.len() + 2 + usize::from(load.mode == DeleteMode::Soft);
        let mut insert = Insert::over(&load.contract.table, columns, |values| merge.upsert_from(values));
        let mut rows = 0;
        for changes in &load.rows {
            rows += changes.len() as u64;
            for row in 0..changes.len() {
                let mut cells = data_cells(load, changes, row)?;
                cells.push(self.synced_at());
                if load.mode == DeleteMode::Soft {
                    cells.push(Cell::Int(0));
                }
                insert.push(conn, cells).await?;
            }
        }
        let applied = insert.finish(conn).await?;
        Ok(LoadAccount { loaded: 0, applied, superseded: rows - applied, incomplete: 0 })
    }

    async fn stage(&self, conn: &mut SqliteConnection, load: &TableLoad, marked: bool) -> Result<()> {
        let schema = &load.contract.output;
        let table = &load.contract.table;
        let types: Vec<_> = schema.key_indices().into_iter().map(|i| schema.columns[i].data_type).collect();
        let mut insert = Insert::new(table, sql::STAGE, &sql::stage_columns(schema), "");
        let mut number = 0;
        for changes in &load.rows {
            let rows = StageRows::new(load, changes, marked);
            let texts = rows.key_texts(0..changes.len())?;
            for row in 0..changes.len() {
                let mut cells = data_cells(load, changes, row)?;
                let owned = |text: Option<String>| text.map_or(Cell::Null, |text| Cell::Text(Cow::Owned(text)));
                let unchanged = rows.unchanged(row);
                let based = unchanged.is_some();
                cells.extend([Cell::Int(number), Cell::Text(Cow::Borrowed(rows.op(row)))]);
                cells.push(owned(time_text(changes.source_times_us[row])));
                cells.push(owned(unchanged));
                cells.push(owned(texts.as_ref().map(|texts| texts[row].own.clone())));
                cells.push(owned(texts.as_ref().filter(|_| based).map(|texts| texts[row].base.clone())));
                let seqs = if based { rows.base_seqs(row).map(Some) } else { [None, None] };
                cells.extend(seqs.map(owned));
                cells.push(Cell::Int(rows.state(row, based).into()));
                let (base, positions) = rows.base(row);
                for (part, column) in positions.into_iter().enumerate() {
                    let value = || cell(types[part], base.column(column), row);
                    cells.push(if based { value().map_err(|e| refused(load, part, e))? } else { Cell::Null });
                }
                insert.push(conn, cells).await?;
                number += 1;
            }
        }
        insert.finish(conn).await.map(|_rows| ())
    }

    fn synced_at(&self) -> Cell<'static> {
        Cell::Text(Cow::Owned(self.now.format("%Y-%m-%dT%H:%M:%S%.3fZ").to_string()))
    }

    async fn floor(&self, conn: &mut SqliteConnection, table: &str) -> Result<Option<(Seq, i64)>> {
        let statement =
            format!("SELECT truncate_floor, truncated_at_us FROM {TABLES} WHERE topology = ? AND table_name = ?");
        let found: Option<(Option<String>, Option<i64>)> = sqlx::query_as(AssertSqlSafe(statement))
            .bind(self.topology)
            .bind(table)
            .fetch_optional(conn)
            .await
            .map_err(|e| failure(e, Some(table)))?;
        let floor =
            |(floor, time): (Option<String>, Option<i64>)| Some((Seq::parse(&floor?)?, time.unwrap_or(NO_TIME)));
        Ok(found.and_then(floor))
    }

    async fn has_tombstones(&self, conn: &mut SqliteConnection, table: &str) -> Result<bool> {
        let statement = format!("SELECT EXISTS (SELECT 1 FROM {TOMBSTONES} WHERE topology = ? AND table_name = ?)");
        sqlx::query_scalar(AssertSqlSafe(statement))
            .bind(self.topology)
            .bind(table)
            .fetch_one(conn)
            .await
            .map_err(|e| failure(e, Some(table)))
    }

    async fn write_incomplete(
        &self,
        conn: &mut SqliteConnection,
        rows: impl Iterator<Item = &Incomplete> + Send,
    ) -> Result<()> {
        for row in rows {
            let statement = format!(
                "INSERT INTO {INCOMPLETE} (topology, group_name, epoch, table_name, key, seq, source_partition, missing) \
                 VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
            );
            sqlx::query(AssertSqlSafe(statement))
                .bind(self.topology)
                .bind(&self.unit.group)
                .bind(self.unit.through as i64)
                .bind(&row.table)
                .bind(&row.key)
                .bind(&row.seq)
                .bind(&row.partition)
                .bind(serde_json::Value::from(row.missing.clone()).to_string())
                .execute(&mut *conn)
                .await
                .map_err(|e| failure(e, Some(&row.table)))?;
        }
        Ok(())
    }

    /// Forgets what was incomplete of keys that are shown whole now, or not any more.
    async fn clear_incomplete(&self, conn: &mut SqliteConnection, load: &TableLoad) -> Result<()> {
        let table = load.contract.table.as_str();
        let fail = |e| failure(e, Some(table));
        let there = format!("SELECT EXISTS (SELECT 1 FROM {INCOMPLETE} WHERE topology = ? AND table_name = ?)");
        let there = sqlx::query_scalar(AssertSqlSafe(there)).bind(self.topology).bind(table);
        if load.contract.output.key.is_empty() || !there.fetch_one(&mut *conn).await.map_err(fail)? {
            return Ok(());
        }
        if let Some(floor) = load.truncate {
            let statement = format!("DELETE FROM {INCOMPLETE} WHERE topology = ? AND table_name = ? AND seq < ?");
            let cleared = sqlx::query(AssertSqlSafe(statement)).bind(self.topology).bind(table).bind(floor.to_string());
            cleared.execute(&mut *conn).await.map_err(fail)?;
        }
        for keys in settled(load)?.chunks(SETTLED_KEYS) {
            let statement = format!(
                "DELETE FROM {INCOMPLETE} WHERE id IN (SELECT i.id FROM json_each(?) AS w JOIN {INCOMPLETE} AS i \
                 ON i.topology = ? AND i.table_name = ? AND i.key = json_extract(w.value, '$[0]') \
                 AND i.seq < json_extract(w.value, '$[1]'))"
            );
            let keys = serde_json::to_string(keys)
                .map_err(|e| Error::new(ErrorKind::Internal, "write the keys that are whole").because(e))?;
            let cleared = sqlx::query(AssertSqlSafe(statement)).bind(keys).bind(self.topology).bind(table);
            cleared.execute(&mut *conn).await.map_err(fail)?;
        }
        Ok(())
    }

    async fn write_totals(
        &self,
        conn: &mut SqliteConnection,
        load: &TableLoad,
        account: &LoadAccount,
        floor: Option<(Seq, i64)>,
    ) -> Result<()> {
        let statement = format!(
            "INSERT INTO {TABLES} AS t (topology, table_name, group_name, epoch, loaded, applied, superseded, incomplete, \
             max_source_time_us, applied_at_us, truncate_floor, truncated_at_us) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) \
             ON CONFLICT (topology, table_name) DO UPDATE SET group_name = excluded.group_name, epoch = excluded.epoch, \
             loaded = t.loaded + excluded.loaded, applied = t.applied + excluded.applied, \
             superseded = t.superseded + excluded.superseded, incomplete = t.incomplete + excluded.incomplete, \
             max_source_time_us = max(coalesce(t.max_source_time_us, excluded.max_source_time_us), \
             coalesce(excluded.max_source_time_us, t.max_source_time_us)), applied_at_us = excluded.applied_at_us, \
             truncate_floor = excluded.truncate_floor, truncated_at_us = excluded.truncated_at_us"
        );
        let known = |time: i64| Some(time).filter(|time| *time != NO_TIME);
        sqlx::query(AssertSqlSafe(statement))
            .bind(self.topology)
            .bind(&load.contract.table)
            .bind(&self.unit.group)
            .bind(self.unit.through as i64)
            .bind(account.loaded as i64)
            .bind(account.applied as i64)
            .bind(account.superseded as i64)
            .bind(account.incomplete as i64)
            .bind(known(load.max_source_time_us))
            .bind(self.now.timestamp_micros())
            .bind(floor.map(|(seq, _)| seq.to_string()))
            .bind(floor.and_then(|(_, time)| known(time)))
            .execute(conn)
            .await
            .map_err(|e| failure(e, Some(&load.contract.table)))
            .map(|_done| ())
    }

    async fn write_ledger(&self, conn: &mut SqliteConnection) -> Result<()> {
        let statement = format!(
            "INSERT INTO {LEDGER} (topology, group_name, log, through, held, updated_at) VALUES (?, ?, ?, ?, ?, ?) \
             ON CONFLICT (topology, group_name) DO UPDATE SET through = excluded.through, held = excluded.held, \
             updated_at = excluded.updated_at"
        );
        sqlx::query(AssertSqlSafe(statement))
            .bind(self.topology)
            .bind(&self.unit.group)
            .bind(self.unit.log.to_string())
            .bind(self.unit.through as i64)
            .bind(held_text(&self.unit.held)?)
            .bind(self.now.to_rfc3339())
            .execute(conn)
            .await
            .map_err(|e| failure(e, None))
            .map(|_done| ())
    }
}

/// Commit time at the source as SQLite keeps it.
fn time_text(micros: i64) -> Option<String> {
    if micros == NO_TIME { None } else { timestamp(micros).ok().map(|text| text + "Z") }
}

fn time_literal(micros: i64) -> String {
    time_text(micros).map_or_else(|| "NULL".to_owned(), |text| literal(&text))
}

fn refused(load: &TableLoad, column: usize, why: String) -> Error {
    let (table, name) = (&load.contract.table, &load.contract.output.columns[column].name);
    Error::new(ErrorKind::Table(table.clone()), format!("SQLite cannot hold a value of {table}.{name}: {why}"))
        .help("add a `validate` or `compute` operator for the column, or `drop` it")
}

/// The values of a row and its `_seq`.
fn data_cells<'a>(load: &TableLoad, changes: &'a TableChanges, row: usize) -> Result<Vec<Cell<'a>>> {
    let columns = &load.contract.output.columns;
    let mut cells = Vec::with_capacity(columns.len() + 12);
    for (index, column) in columns.iter().enumerate() {
        let value = cell(column.data_type, changes.rows.column(index), row);
        cells.push(value.map_err(|e| refused(load, index, e))?);
    }
    cells.push(Cell::Text(Cow::Owned(changes.seqs[row].to_string())));
    Ok(cells)
}

/// A multi-row insert that runs whenever it is full.
struct Insert<'a> {
    table: &'a str,
    statement: Box<dyn Fn(&str) -> String + Send + 'a>,
    columns: usize,
    capacity: usize,
    rows: usize,
    arguments: SqliteArguments,
    changed: u64,
}

impl<'a> Insert<'a> {
    fn new(table: &'a str, target: &str, columns: &[String], conflict: &'a str) -> Self {
        let head = format!("INSERT INTO {target} ({}) ", columns.join(", "));
        Self::over(table, columns.len(), move |values| format!("{head}{values}{conflict}"))
    }

    fn over(table: &'a str, columns: usize, statement: impl Fn(&str) -> String + Send + 'a) -> Self {
        let capacity = (MAX_VALUES / columns.max(1)).clamp(1, MAX_ROWS);
        let arguments = SqliteArguments::default();
        Self { table, statement: Box::new(statement), columns, capacity, rows: 0, arguments, changed: 0 }
    }

    async fn push(&mut self, conn: &mut SqliteConnection, cells: Vec<Cell<'_>>) -> Result<()> {
        for cell in cells {
            cell.bind(&mut self.arguments).map_err(|e| failure(sqlx::Error::Encode(e), Some(self.table)))?;
        }
        self.rows += 1;
        if self.rows == self.capacity { self.flush(conn).await } else { Ok(()) }
    }

    async fn flush(&mut self, conn: &mut SqliteConnection) -> Result<()> {
        if self.rows == 0 {
            return Ok(());
        }
        let statement = (self.statement)(&sql::values(self.rows, self.columns));
        let arguments = std::mem::take(&mut self.arguments);
        // Only the statement of a full insert is worth keeping prepared.
        let done = sqlx::query_with(AssertSqlSafe(statement), arguments)
            .persistent(self.rows == self.capacity)
            .execute(conn)
            .await
            .map_err(|e| failure(e, Some(self.table)))?;
        self.changed += done.rows_affected();
        self.rows = 0;
        Ok(())
    }

    /// Runs the rest; the number of rows written by all of it.
    async fn finish(mut self, conn: &mut SqliteConnection) -> Result<u64> {
        self.flush(conn).await?;
        Ok(self.changed)
    }
}
