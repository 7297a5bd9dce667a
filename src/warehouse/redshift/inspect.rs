//! What people ask.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use async_trait::async_trait;

use super::sql::{INCOMPLETE_PREFIX, STATE_PREFIX};
use super::{Redshift, text};
use crate::config::RedshiftWarehouse;
use crate::contract::Type;
use crate::epoch::DeleteMode;
use crate::error::{Error, ErrorKind, Result};
use crate::warehouse::inspect::{
    COLUMNS, HeldKeys, HeldQuery, HeldRow, Inspect, LiveRows, OpenIncomplete, Rest, TakeRow, open_incomplete,
};
use crate::warehouse::names::{SEQ, literal, live, quote};

/// Values are read as text, which must not depend on how the user is set up: a double has all its digits.
/// And however many rows there are: only silence ends a reading.
const READ_SETTINGS: [&str; 3] = ["SET datestyle TO ISO", "SET extra_float_digits TO 2", "SET statement_timeout TO 0"];

/// Numbers of rows in one statement: even of the longest ones the Data API takes so many.
const IDS_PER_STATEMENT: usize = 4_000;

/// The bytes of the longest text: one without a length would be cut after 256.
const LONGEST_TEXT: usize = 65_535;

impl Redshift {
    /// Connects, and looks whether something has been loaded. Makes nothing.
    pub async fn find(config: &RedshiftWarehouse, topology: &str) -> Result<Option<Self>> {
        let found = Self::new(config, topology, None)?;
        let doing = format!("look at the Redshift warehouse {}, schema {}", found.sessions.place, config.schema);
        let there = found.tables_like(STATE_PREFIX).await.map_err(|e| e.doing(doing))?;
        Ok((!there.is_empty()).then_some(found))
    }

    /// The names of a table's columns; none: the table is not there.
    async fn column_names(&self, table: &str) -> Result<BTreeSet<String>> {
        let answer = self.once(&self.names.columns(table), Some(table)).await?;
        Ok(answer.rows.into_iter().filter_map(|row| row.into_iter().next().flatten()).collect())
    }

    /// The tables in which there may be incomplete rows, when this process loads and so knows it without asking.
    fn known_gaps(&self) -> Option<Vec<String>> {
        let (ready, known) = (self.ready().clone(), self.known());
        if ready.is_empty() || !ready.iter().all(|group| known.contains_key(group)) {
            return None;
        }
        let gaps = known.iter().filter(|(_, state)| state.tables.values().any(|table| table.gaps));
        Some(gaps.map(|(group, _)| self.group(group).incomplete).collect())
    }

    /// One query over the incomplete rows of all groups.
    async fn over_incompletes(&self, columns: &str) -> Result<Vec<Vec<Option<String>>>> {
        let tables = match self.known_gaps() {
            Some(tables) => tables,
            None => self.tables_like(INCOMPLETE_PREFIX).await?,
        };
        if tables.is_empty() {
            return Ok(Vec::new());
        }
        let topology = text(&self.topology);
        let select =
            |table: &String| format!("SELECT {columns} FROM {} WHERE topology = {topology}", self.names.of(table));
        self.all(&tables.iter().map(select).collect::<Vec<_>>()).await
    }
}

pub(super) fn number(cell: &str) -> Result<i64> {
    cell.trim().parse().map_err(|error| {
        Error::new(ErrorKind::WarehouseRefused, format!("a control table holds `{cell}` instead of a number"))
            .because(error)
    })
}

impl Rest for Redshift {
    fn close_unused(&self, unused_for: Duration) {
        self.sessions.close_unused(unused_for);
    }
}

#[async_trait]
impl Inspect for Redshift {
    async fn live_rows(&self, table: &str, mode: DeleteMode) -> Result<Option<LiveRows>> {
        if self.column_names(table).await?.is_empty() {
            return Ok(None);
        }
        // A column store counts quickly: there is no need for an estimate.
        let statement = format!("SELECT count(*) FROM {} WHERE {}", self.names.of(table), live(mode));
        let answer = self.once(&statement, Some(table)).await.map_err(|e| e.doing("count rows"))?;
        let rows = number(answer.single().unwrap_or_default())?.unsigned_abs();
        Ok(Some(LiveRows { rows, estimated: false }))
    }

    async fn open_incompletes(&self) -> Result<Vec<OpenIncomplete>> {
        let rows = self.over_incompletes(COLUMNS).await.map_err(|e| e.doing("read the incomplete rows"))?;
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            let mut cells = row.into_iter().map(Option::unwrap_or_default);
            let mut next = || cells.next().unwrap_or_default();
            let (id, epoch) = (number(&next())?, number(&next())?);
            found.push(open_incomplete((id, epoch, next(), next(), next(), next(), next()))?);
        }
        found.sort_by_key(|row| (row.epoch, row.id));
        Ok(found)
    }

    async fn count_incompletes(&self) -> Result<BTreeMap<String, u64>> {
        let rows = self.over_incompletes("table_name").await.map_err(|e| e.doing("count the incomplete rows"))?;
        let mut counts = BTreeMap::new();
        for table in rows.into_iter().filter_map(|row| row.into_iter().next().flatten()) {
            *counts.entry(table).or_default() += 1;
        }
        Ok(counts)
    }

    async fn drop_incompletes(&self, ids: &[i64]) -> Result<u64> {
        let (mut dropped, topology) = (0, text(&self.topology));
        let tables = if ids.is_empty() { Vec::new() } else { self.tables_like(INCOMPLETE_PREFIX).await? };
        for ids in ids.chunks(IDS_PER_STATEMENT) {
            let list = ids.iter().map(i64::to_string).collect::<Vec<_>>().join(", ");
            for table in &tables {
                let of = self.names.of(table);
                let statement = format!("DELETE FROM {of} WHERE topology = {topology} AND id IN ({list})");
                let done = self.once(&statement, None).await.map_err(|e| e.doing("give incomplete rows up"))?;
                dropped += done.affected;
            }
        }
        Ok(dropped)
    }

    async fn held_rows(&self, query: &HeldQuery<'_>, take: &mut TakeRow<'_>) -> Result<bool> {
        let there = self.column_names(query.table).await?;
        if there.is_empty() {
            return Ok(false);
        }
        let (target, texts) = (self.names.of(query.table), self.sessions.through_api());
        let mut statement = select(&target, query, &there, texts);
        if statement.len() > self.sessions.place.statement_bytes {
            // At least the rows that are asked for: rather all of them than a statement that is too long.
            statement = select(&target, &HeldQuery { keys: None, ..*query }, &there, texts);
        }
        let mut lease = self.sessions.lease().await?;
        for setting in READ_SETTINGS {
            lease.session.run(setting, None).await?;
        }
        let is_binary = |(_, data_type): &(String, Type)| *data_type == Type::Binary;
        let read = lease.session.each(&statement, Some(query.table), |mut row| {
            let seq = row.pop().flatten();
            let bytes = row.iter_mut().zip(query.columns).filter(|(_, column)| is_binary(column));
            bytes.filter_map(|(cell, _)| cell.as_mut()).for_each(marked_as_bytes);
            take(&HeldRow { cells: row, seq })
        });
        read.await.map_err(|e| e.doing("read the rows of the warehouse"))?;
        self.sessions.give_back(lease);
        Ok(true)
    }
}

/// Bytes are printed as hexadecimal digits alone: <https://docs.aws.amazon.com/redshift/latest/dg/r_VARBYTE_type.html>.
fn marked_as_bytes(cell: &mut String) {
    if !cell.starts_with("\\x") {
        cell.insert_str(0, "\\x");
    }
}

/// `texts`: whoever brings the values would write them in its own way (the Data API: as Java does).
fn select(target: &str, query: &HeldQuery<'_>, there: &BTreeSet<String>, texts: bool) -> String {
    let has = |name: &str| there.contains(&name.to_ascii_lowercase());
    // Documents and bytes come as text by themselves: what JSON_SERIALIZE and FROM_VARBYTE make is as long as a text at most,
    // and the former is never null.
    let own_form = |data_type: &Type| {
        let times = matches!(data_type, Type::Date | Type::Time | Type::Timestamp | Type::TimestampTz);
        texts && (times || matches!(data_type, Type::Decimal { .. } | Type::Numeric))
    };
    let column = |(name, data_type): &(String, Type)| match has(name) {
        true if own_form(data_type) => format!("CAST({} AS varchar({LONGEST_TEXT}))", quote(name)),
        true => quote(name),
        false => "NULL".to_owned(),
    };
    let mut columns: Vec<String> = query.columns.iter().map(column).collect();
    columns.push(if has(SEQ) { SEQ.to_owned() } else { "NULL".to_owned() });
    let keys = query.keys.filter(|keys| keys.columns.iter().all(|(name, _)| has(name)));
    let keys = keys.map(condition).unwrap_or_default();
    format!("SELECT {} FROM {target} WHERE {}{keys}", columns.join(", "), live(query.mode))
}

fn condition(keys: &HeldKeys) -> String {
    // At least these rows: one whose key has more blanks at its end comes along, and is told apart by whoever asked.
    let cell = |(column, value): (&(String, Type), &String)| {
        format!("{} = {}", quote(&column.0), if value.contains('\\') { text(value) } else { literal(value) })
    };
    let row = |values: &Vec<String>| {
        format!("({})", keys.columns.iter().zip(values).map(cell).collect::<Vec<_>>().join(" AND "))
    };
    match keys.rows.is_empty() {
        true => " AND 1 = 0".to_owned(),
        false => format!(" AND ({})", keys.rows.iter().map(row).collect::<Vec<_>>().join(" OR ")),
    }
}
