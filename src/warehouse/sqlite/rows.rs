//! The rows as they stand, as texts.

use std::fmt::Write;

use futures::TryStreamExt;
use sqlx::sqlite::{SqliteArguments, SqliteRow, SqliteValueRef};
use sqlx::{Arguments, AssertSqlSafe, Decode, Row, Sqlite as Db, TypeInfo, ValueRef};

use super::{Sqlite, failure, live_columns};
use crate::contract::Type;
use crate::error::{Error, ErrorKind, Result};
use crate::warehouse::inspect::{HeldKeys, HeldQuery, HeldRow, TakeRow};
use crate::warehouse::names::{SEQ, live, quote};

/// Keys in one condition; SQLite takes at most 32,766 values.
const MOST_VALUES: usize = 30_000;

pub(super) async fn read(warehouse: &Sqlite, query: &HeldQuery<'_>, take: &mut TakeRow<'_>) -> Result<bool> {
    let fail = |e| failure(e, Some(query.table));
    let mut conn = warehouse.pool.acquire().await.map_err(fail)?;
    let there: Vec<String> = live_columns(&mut conn, query.table).await?.into_iter().map(|c| c.name).collect();
    if there.is_empty() {
        return Ok(false);
    }
    let (statement, arguments) = select(query, &there)
        .map_err(|error| Error::new(ErrorKind::Internal, format!("ask for rows of {}", query.table)).because(error))?;
    let mut rows = sqlx::query_with(AssertSqlSafe(statement), arguments).fetch(&mut *conn);
    let mut held = HeldRow::default();
    while let Some(row) = rows.try_next().await.map_err(fail)? {
        fill(&row, query.columns.len(), &mut held).map_err(fail)?;
        take(&held)?;
    }
    Ok(true)
}

fn select(query: &HeldQuery<'_>, there: &[String]) -> Result<(String, SqliteArguments), sqlx::error::BoxDynError> {
    let has = |name: &str| there.iter().any(|known| known.eq_ignore_ascii_case(name));
    let mut columns: Vec<String> =
        query.columns.iter().map(|(name, _)| if has(name) { quote(name) } else { "NULL".to_owned() }).collect();
    columns.push(if has(SEQ) { SEQ.to_owned() } else { "NULL".to_owned() });
    let mut statement = format!("SELECT {} FROM {} WHERE {}", columns.join(", "), quote(query.table), live(query.mode));
    let mut arguments = SqliteArguments::default();
    if let Some(keys) = query.keys.filter(|keys| keys.columns.iter().all(|(name, _)| has(name))) {
        condition(keys, &mut statement, &mut arguments)?;
    }
    Ok((statement, arguments))
}

/// Adds the keys, where their texts are the stored values; else every row is read.
fn condition(
    keys: &HeldKeys,
    statement: &mut String,
    arguments: &mut SqliteArguments,
) -> Result<(), sqlx::error::BoxDynError> {
    let known = |data_type: Type| {
        matches!(
            data_type,
            Type::SmallInt | Type::Int | Type::BigInt | Type::Duration | Type::Text { .. } | Type::Json | Type::Uuid
        )
    };
    let numbers = |data_type: Type| matches!(data_type, Type::SmallInt | Type::Int | Type::BigInt | Type::Duration);
    let fits = keys.columns.iter().all(|(_, data_type)| known(*data_type));
    if !fits || keys.rows.len() * keys.columns.len() > MOST_VALUES {
        return Ok(());
    }
    let names: Vec<String> = keys.columns.iter().map(|(name, _)| quote(name)).collect();
    let row = format!("({})", vec!["?"; names.len()].join(", "));
    let rows =
        if keys.rows.is_empty() { String::new() } else { format!("VALUES {}", vec![row; keys.rows.len()].join(", ")) };
    if keys.rows.is_empty() {
        statement.push_str(" AND 1 = 0");
        return Ok(());
    }
    let _writing_to_a_string_cannot_fail = write!(statement, " AND ({}) IN ({rows})", names.join(", "));
    for values in &keys.rows {
        for (value, (_, data_type)) in values.iter().zip(&keys.columns) {
            match value.parse::<i64>() {
                Ok(number) if numbers(*data_type) => arguments.add(number)?,
                _ => arguments.add(value.clone())?,
            }
        }
    }
    Ok(())
}

fn fill(row: &SqliteRow, columns: usize, held: &mut HeldRow) -> Result<(), sqlx::Error> {
    held.cells.resize(columns, None);
    for (at, cell) in held.cells.iter_mut().enumerate() {
        *cell = text(row.try_get_raw(at)?)?;
    }
    held.seq = text(row.try_get_raw(columns)?)?;
    Ok(())
}

/// A value of whatever storage class it has.
fn text(value: SqliteValueRef<'_>) -> Result<Option<String>, sqlx::Error> {
    if value.is_null() {
        return Ok(None);
    }
    let class = value.type_info().name().to_owned();
    let text = match class.as_str() {
        "INTEGER" | "BOOLEAN" => <i64 as Decode<Db>>::decode(value).map(|number| number.to_string()),
        "REAL" => <f64 as Decode<Db>>::decode(value).map(|number| number.to_string()),
        "BLOB" => <&[u8] as Decode<Db>>::decode(value).map(hexadecimal),
        _ => <String as Decode<Db>>::decode(value),
    };
    text.map(Some).map_err(sqlx::Error::Decode)
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().fold(String::from("\\x"), |mut text, byte| {
        let _writing_to_a_string_cannot_fail = write!(text, "{byte:02x}");
        text
    })
}
