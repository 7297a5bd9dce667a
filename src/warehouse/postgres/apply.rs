//! One unit, one transaction.

use std::collections::BTreeMap;
use std::ops::Range;

use sqlx::{AssertSqlSafe, PgConnection};

use super::copy::{Column, HEADER, TRAILER, field, null, time_or_null};
use super::sql::{StageKind, time};
use super::{Postgres, failure, run, sql};
use crate::batch::{NO_TIME, Seq, TableChanges};
use crate::contract::Type;
use crate::epoch::{Applied, DeleteMode, Incomplete, LoadAccount, LoadUnit, TableLoad};
use crate::error::{Error, ErrorKind, Result};
use crate::warehouse::merge::{Merge, StageColumn};
use crate::warehouse::names::{INCOMPLETE, LEDGER, TABLES, TOMBSTONES};
use crate::warehouse::shape::{KeyTexts, Shape, StageRows, incompletes, settled};
use crate::warehouse::{Ledger, check_ledger, held_text, place, settle};

/// How much is encoded before it is sent.
const CHUNK_BYTES: usize = 1 << 20;
/// How many rows are encoded before that is looked at, so that a large batch never stands in memory twice.
const SLICE_ROWS: usize = 4096;

/// A table's truncate floor and the time of the truncate.
type Floor = Option<(Seq, i64)>;

pub(super) async fn apply(warehouse: &Postgres, unit: &LoadUnit) -> Result<Applied> {
    let mut tx = warehouse.pool.begin().await.map_err(|e| failure(e, None))?;
    warehouse.lock_ledger(&mut tx, unit).await?;
    let mut accounts = BTreeMap::new();
    for (number, load) in unit.tables.iter().enumerate() {
        let stage = format!("_dataflow_stage_{number}");
        let account = warehouse.table(&mut tx, unit, load, &stage).await?;
        accounts.insert(load.contract.table.clone(), account);
    }
    place("warehouse.ledger.before")?;
    warehouse.write_ledger(&mut tx, unit).await?;
    place("warehouse.ledger.after")?;
    place("warehouse.commit.before")?;
    tx.commit().await.map_err(|e| failure(e, None))?;
    place("warehouse.commit.after")?;
    Ok(Applied { log: unit.log, through: unit.through, held: unit.held.clone(), accounts })
}

impl Postgres {
    /// The first statement of the transaction: two loaders of one group come one after the other, and the second one
    /// finds that the ledger has moved.
    async fn lock_ledger(&self, conn: &mut PgConnection, unit: &LoadUnit) -> Result<()> {
        let ledger = self.names.of(LEDGER);
        if unit.after == 0 {
            let statement = format!(
                "INSERT INTO {ledger} (topology, group_name, log, through, held, updated_at) \
                 VALUES ($1, $2, $3::uuid, 0, '{{}}', now()) ON CONFLICT DO NOTHING"
            );
            sqlx::query(AssertSqlSafe(statement))
                .bind(&self.topology)
                .bind(&unit.group)
                .bind(unit.log.to_string())
                .execute(&mut *conn)
                .await
                .map_err(|e| failure(e, None))?;
        }
        let statement =
            format!("SELECT log::text, through, held FROM {ledger} WHERE topology = $1 AND group_name = $2 FOR UPDATE");
        let found: Option<(String, i64, String)> = sqlx::query_as(AssertSqlSafe(statement))
            .bind(&self.topology)
            .bind(&unit.group)
            .fetch_optional(conn)
            .await
            .map_err(|e| failure(e, None))?;
        let found = found.map(|(log, through, held)| Ledger::parse(&unit.group, &log, through, &held)).transpose()?;
        check_ledger(unit, found.as_ref())
    }

    async fn table(
        &self,
        conn: &mut PgConnection,
        unit: &LoadUnit,
        load: &TableLoad,
        stage: &str,
    ) -> Result<LoadAccount> {
        place("warehouse.copy.before")?;
        let (table, schema) = (load.contract.table.as_str(), &load.contract.output);
        let before = self.floor(conn, table).await?;
        let merge = self.names.merge(&self.topology, table, schema, load.mode, stage);
        let mut account = LoadAccount::default();
        if let Some(truncate) = load.truncate {
            let stale = before.is_some_and(|(floor, _)| floor >= truncate);
            account.superseded += u64::from(stale);
            account.applied += u64::from(!stale);
        }
        let floor = before.max(load.truncate.map(|seq| (seq, load.truncated_at_us)));
        for (seq, at) in &load.earlier_truncates {
            run(conn, merge.truncate(*seq, &time(*at)), Some(table)).await?;
        }
        if let (Some((seq, at)), true) = (floor, load.truncate.is_some()) {
            run(conn, merge.truncate(seq, &time(at)), Some(table)).await?;
        }
        let (rows, mut incomplete) = if schema.key.is_empty() {
            (self.append(conn, load, stage, floor).await?, Vec::new())
        } else {
            self.merge(conn, load, &merge, floor).await?
        };
        account.add(&rows);
        for (number, round) in load.later_rounds().enumerate() {
            let stage = format!("{stage}_{number}");
            let merge = self.names.merge(&self.topology, table, schema, load.mode, &stage);
            let (rows, more) = self.merge(conn, &round, &merge, floor).await?;
            account.add(&rows);
            incomplete.extend(more);
        }
        place("warehouse.copy.after")?;
        let account = settle(load, account)?;
        self.write_incomplete(conn, unit, load.incomplete.iter().chain(&incomplete)).await?;
        self.clear_incomplete(conn, load).await?;
        self.write_totals(conn, unit, load, &account, floor).await?;
        Ok(account)
    }

    async fn append(
        &self,
        conn: &mut PgConnection,
        load: &TableLoad,
        stage: &str,
        floor: Floor,
    ) -> Result<LoadAccount> {
        let (table, schema) = (load.contract.table.as_str(), &load.contract.output);
        let floor = floor.map(|(seq, _)| seq);
        let stays = |changes: &TableChanges, row: usize| floor.is_none_or(|floor| changes.seqs[row] >= floor);
        let rows: usize = load.rows.iter().map(TableChanges::len).sum();
        if rows == 0 {
            return Ok(LoadAccount::default());
        }
        run(conn, sql::create_stage(stage, schema, StageKind::Append), Some(table)).await?;
        let encode = |changes: &TableChanges, slice: Range<usize>, out: &mut Encoder| -> Result<()> {
            let partition = changes.partition.to_string();
            let columns = data_columns(load, changes);
            for row in slice.filter(|row| stays(changes, *row)) {
                out.begin(columns.len() + 2);
                write_data(load, changes, &columns, row, &mut out.bytes)?;
                field(&mut out.bytes, partition.as_bytes());
                out.end();
            }
            Ok(())
        };
        copy(conn, load, sql::copy(stage, schema, StageKind::Append), encode).await?;
        let applied = run(conn, self.names.append(table, schema, stage), Some(table)).await?;
        Ok(LoadAccount { loaded: 0, applied, superseded: rows as u64 - applied, incomplete: 0 })
    }

    async fn merge(
        &self,
        conn: &mut PgConnection,
        load: &TableLoad,
        merge: &Merge<'_>,
        floor: Floor,
    ) -> Result<(LoadAccount, Vec<Incomplete>)> {
        let (table, schema) = (load.contract.table.as_str(), &load.contract.output);
        let shape = Shape::of(load);
        if shape.rows == 0 {
            return Ok(Default::default());
        }
        let marked = shape.refused || load.keep_tombstones || self.has_tombstones(conn, table).await?;
        let low = floor.filter(|(floor, _)| shape.oldest.is_some_and(|oldest| oldest < *floor));
        if shape.plain() && !marked && low.is_none() && load.mode != DeleteMode::History {
            run(conn, sql::create_stage(&merge.stage, schema, StageKind::Plain), Some(table)).await?;
            copy(conn, load, sql::copy(&merge.stage, schema, StageKind::Plain), |changes, slice, out| {
                let columns = data_columns(load, changes);
                for row in slice {
                    out.begin(columns.len() + 1);
                    write_data(load, changes, &columns, row, &mut out.bytes)?;
                    out.end();
                }
                Ok(())
            })
            .await?;
            let applied = run(conn, merge.upsert(false), Some(table)).await?;
            let superseded = shape.rows as u64 - applied;
            return Ok((LoadAccount { loaded: 0, applied, superseded, incomplete: 0 }, Vec::new()));
        }
        run(conn, sql::create_stage(&merge.stage, schema, StageKind::Merge), Some(table)).await?;
        self.stage(conn, load, merge, marked).await?;
        let low = low.map(|(seq, at)| (seq, time(at)));
        for statement in merge.statements(shape.needs(marked), low, load.keep_tombstones) {
            run(conn, statement, Some(table)).await?;
        }
        self.outcome(conn, load, merge).await
    }

    async fn stage(&self, conn: &mut PgConnection, load: &TableLoad, merge: &Merge<'_>, marked: bool) -> Result<()> {
        let schema = &load.contract.output;
        let types: Vec<Type> = schema.key_indices().into_iter().map(|i| schema.columns[i].data_type).collect();
        let mut number = 0i64;
        copy(conn, load, sql::copy(&merge.stage, schema, StageKind::Merge), |changes, slice, out| {
            let rows = StageRows::new(load, changes, marked);
            let texts = rows.key_texts(slice.clone())?;
            let first = slice.start;
            let columns = data_columns(load, changes);
            for row in slice {
                out.begin(columns.len() + 1 + StageColumn::ALL.len() + types.len());
                write_data(load, changes, &columns, row, &mut out.bytes)?;
                let key = texts.as_ref().map(|texts| &texts[row - first]);
                write_meta(load, &rows, row, number, key, &types, &mut out.bytes)?;
                out.end();
                number += 1;
            }
            Ok(())
        })
        .await
    }

    async fn outcome(
        &self,
        conn: &mut PgConnection,
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

    async fn floor(&self, conn: &mut PgConnection, table: &str) -> Result<Floor> {
        let statement = format!(
            "SELECT truncate_floor, truncated_at_us FROM {} WHERE topology = $1 AND table_name = $2",
            self.names.of(TABLES)
        );
        let found: Option<(Option<String>, Option<i64>)> = sqlx::query_as(AssertSqlSafe(statement))
            .bind(&self.topology)
            .bind(table)
            .fetch_optional(conn)
            .await
            .map_err(|e| failure(e, Some(table)))?;
        let floor = |(floor, at): (Option<String>, Option<i64>)| Some((Seq::parse(&floor?)?, at.unwrap_or(NO_TIME)));
        Ok(found.and_then(floor))
    }

    async fn has_tombstones(&self, conn: &mut PgConnection, table: &str) -> Result<bool> {
        let statement = format!(
            "SELECT EXISTS (SELECT 1 FROM {} WHERE topology = $1 AND table_name = $2)",
            self.names.of(TOMBSTONES)
        );
        sqlx::query_scalar(AssertSqlSafe(statement))
            .bind(&self.topology)
            .bind(table)
            .fetch_one(conn)
            .await
            .map_err(|e| failure(e, Some(table)))
    }

    async fn write_incomplete(
        &self,
        conn: &mut PgConnection,
        unit: &LoadUnit,
        rows: impl Iterator<Item = &Incomplete> + Send,
    ) -> Result<()> {
        for row in rows {
            let statement = format!(
                "INSERT INTO {} (topology, group_name, epoch, table_name, key, seq, source_partition, missing) \
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
                self.names.of(INCOMPLETE)
            );
            sqlx::query(AssertSqlSafe(statement))
                .bind(&self.topology)
                .bind(&unit.group)
                .bind(unit.through as i64)
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
    async fn clear_incomplete(&self, conn: &mut PgConnection, load: &TableLoad) -> Result<()> {
        let (table, names) = (load.contract.table.as_str(), self.names.of(INCOMPLETE));
        let fail = |e| failure(e, Some(table));
        let there = format!("SELECT EXISTS (SELECT 1 FROM {names} WHERE topology = $1 AND table_name = $2)");
        let there = sqlx::query_scalar(AssertSqlSafe(there)).bind(&self.topology).bind(table);
        if load.contract.output.key.is_empty() || !there.fetch_one(&mut *conn).await.map_err(fail)? {
            return Ok(());
        }
        if let Some(floor) = load.truncate {
            let statement = format!(
                "DELETE FROM {names} WHERE topology = $1 AND table_name = $2 AND seq COLLATE \"C\" < $3 COLLATE \"C\""
            );
            let cleared = sqlx::query(AssertSqlSafe(statement)).bind(&self.topology).bind(table);
            cleared.bind(floor.to_string()).execute(&mut *conn).await.map_err(fail)?;
        }
        let (keys, seqs): (Vec<String>, Vec<String>) = settled(load)?.into_iter().unzip();
        let statement = format!(
            "DELETE FROM {names} AS i USING unnest($3::text[], $4::text[]) AS w (key, seq) WHERE i.topology = $1 \
             AND i.table_name = $2 AND i.key = w.key AND i.seq COLLATE \"C\" < w.seq COLLATE \"C\""
        );
        let cleared = sqlx::query(AssertSqlSafe(statement)).bind(&self.topology).bind(table).bind(keys).bind(seqs);
        cleared.execute(conn).await.map(|_done| ()).map_err(fail)
    }

    async fn write_totals(
        &self,
        conn: &mut PgConnection,
        unit: &LoadUnit,
        load: &TableLoad,
        account: &LoadAccount,
        floor: Floor,
    ) -> Result<()> {
        let statement = format!(
            "INSERT INTO {} AS t (topology, table_name, group_name, epoch, loaded, applied, superseded, incomplete, \
             max_source_time_us, applied_at_us, truncate_floor, truncated_at_us) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, \
             $10, $11) ON CONFLICT (topology, table_name) DO UPDATE SET group_name = excluded.group_name, \
             epoch = excluded.epoch, loaded = t.loaded + excluded.loaded, applied = t.applied + excluded.applied, \
             superseded = t.superseded + excluded.superseded, incomplete = t.incomplete + excluded.incomplete, \
             max_source_time_us = greatest(t.max_source_time_us, excluded.max_source_time_us), \
             applied_at_us = excluded.applied_at_us, truncate_floor = excluded.truncate_floor, \
             truncated_at_us = excluded.truncated_at_us",
            self.names.of(TABLES)
        );
        let known = |time: i64| Some(time).filter(|time| *time != NO_TIME);
        sqlx::query(AssertSqlSafe(statement))
            .bind(&self.topology)
            .bind(&load.contract.table)
            .bind(&unit.group)
            .bind(unit.through as i64)
            .bind(account.loaded as i64)
            .bind(account.applied as i64)
            .bind(account.superseded as i64)
            .bind(account.incomplete as i64)
            .bind(known(load.max_source_time_us))
            .bind(floor.map(|(seq, _)| seq.to_string()))
            .bind(floor.and_then(|(_, at)| known(at)))
            .execute(conn)
            .await
            .map_err(|e| failure(e, Some(&load.contract.table)))
            .map(|_done| ())
    }

    async fn write_ledger(&self, conn: &mut PgConnection, unit: &LoadUnit) -> Result<()> {
        let statement = format!(
            "UPDATE {} SET through = $3, held = $4, updated_at = now() WHERE topology = $1 AND group_name = $2",
            self.names.of(LEDGER)
        );
        sqlx::query(AssertSqlSafe(statement))
            .bind(&self.topology)
            .bind(&unit.group)
            .bind(unit.through as i64)
            .bind(held_text(&unit.held)?)
            .execute(conn)
            .await
            .map_err(|e| failure(e, None))
            .map(|_done| ())
    }
}

/// Rows of binary COPY.
struct Encoder {
    bytes: Vec<u8>,
    rows: u64,
}

impl Encoder {
    fn begin(&mut self, fields: usize) {
        self.bytes.extend_from_slice(&(fields as i16).to_be_bytes());
    }

    fn end(&mut self) {
        self.rows += 1;
    }
}

/// Streams all rows of a load into its stage; `encode` appends a range of one batch.
async fn copy(
    conn: &mut PgConnection,
    load: &TableLoad,
    statement: String,
    mut encode: impl FnMut(&TableChanges, Range<usize>, &mut Encoder) -> Result<()> + Send,
) -> Result<()> {
    let fail = |e| failure(e, Some(&load.contract.table));
    let mut encoder = Encoder { bytes: Vec::with_capacity(2 * CHUNK_BYTES), rows: 0 };
    encoder.bytes.extend_from_slice(&HEADER);
    let mut stream = conn.copy_in_raw(&statement).await.map_err(fail)?;
    let slices = |changes: &TableChanges| {
        let rows = changes.len();
        (0..rows).step_by(SLICE_ROWS).map(move |from| from..rows.min(from + SLICE_ROWS))
    };
    for (changes, slice) in load.rows.iter().flat_map(|changes| slices(changes).map(move |slice| (changes, slice))) {
        if let Err(error) = encode(changes, slice, &mut encoder) {
            stream.abort("the rows cannot be encoded").await.map_err(fail)?;
            return Err(error);
        }
        if encoder.bytes.len() >= CHUNK_BYTES {
            stream.send(std::mem::take(&mut encoder.bytes)).await.map_err(fail)?;
        }
    }
    encoder.bytes.extend_from_slice(&TRAILER);
    stream.send(encoder.bytes).await.map_err(fail)?;
    let copied = stream.finish().await.map_err(fail)?;
    if copied == encoder.rows {
        return Ok(());
    }
    let message = format!("PostgreSQL says that it took {copied} rows of {}", encoder.rows);
    Err(Error::new(ErrorKind::WarehouseUnavailable, message))
}

fn data_columns<'a>(load: &TableLoad, changes: &'a TableChanges) -> Vec<Column<'a>> {
    let columns = load.contract.output.columns.iter().zip(changes.rows.columns());
    columns.map(|(column, array)| Column::new(column.data_type, array)).collect()
}

fn write_data(
    load: &TableLoad,
    changes: &TableChanges,
    columns: &[Column<'_>],
    row: usize,
    out: &mut Vec<u8>,
) -> Result<()> {
    for (index, column) in columns.iter().enumerate() {
        column.write(row, out).map_err(|why| refused(load, index, changes.seqs[row], &why))?;
    }
    let mut seq = [0u8; Seq::WIDTH];
    changes.seqs[row].write(&mut seq);
    field(out, &seq);
    Ok(())
}

/// The columns of [`StageColumn`], then the base's key.
fn write_meta(
    load: &TableLoad,
    rows: &StageRows<'_>,
    row: usize,
    number: i64,
    key: Option<&KeyTexts>,
    types: &[Type],
    out: &mut Vec<u8>,
) -> Result<()> {
    fn text(out: &mut Vec<u8>, value: Option<&str>) {
        match value {
            Some(value) => field(out, value.as_bytes()),
            None => null(out),
        }
    }
    let unchanged = rows.unchanged(row);
    field(out, &number.to_be_bytes());
    field(out, rows.op(row).as_bytes());
    time_or_null(out, rows.changes.source_times_us[row]);
    text(out, unchanged.as_deref());
    text(out, key.map(|key| key.own.as_str()));
    text(out, key.filter(|_| unchanged.is_some()).map(|key| key.base.as_str()));
    let seqs = if unchanged.is_some() { rows.base_seqs(row).map(Some) } else { [None, None] };
    seqs.iter().for_each(|seq| text(out, seq.as_deref()));
    field(out, &rows.state(row, unchanged.is_some()).to_be_bytes());
    let (base, positions) = rows.base(row);
    for (part, column) in positions.into_iter().enumerate() {
        if unchanged.is_none() {
            null(out);
            continue;
        }
        let written = Column::new(types[part], base.column(column)).write(row, out);
        written.map_err(|why| refused(load, column, rows.changes.seqs[row], &why))?;
    }
    Ok(())
}

fn refused(load: &TableLoad, column: usize, seq: Seq, why: &str) -> Error {
    let (table, name) = (&load.contract.table, &load.contract.output.columns[column].name);
    Error::new(
        ErrorKind::Table(table.clone()),
        format!("PostgreSQL cannot hold a value of {table}.{name} (the change with _seq {seq}): {why}"),
    )
    .help("replace such values with a `compute` operator, refuse them with `validate`, or `drop` the column")
}
