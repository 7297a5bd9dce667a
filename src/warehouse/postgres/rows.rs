//! The rows as they stand, as texts.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, PgConnection, Row};

use super::{Postgres, failure, run};
use crate::error::Result;
use crate::warehouse::inspect::{HeldKeys, HeldQuery, HeldRow, TakeRow};
use crate::warehouse::names::{SEQ, literal, live, quote};

/// Values are read as text, which must not depend on how the server or the user is set up.
const SETTINGS: &str = "SELECT set_config('TimeZone', 'UTC', true), set_config('DateStyle', 'ISO, YMD', true), \
     set_config('IntervalStyle', 'postgres', true), set_config('bytea_output', 'hex', true), \
     set_config('extra_float_digits', '1', true), set_config('standard_conforming_strings', 'on', true)";

pub(super) async fn read(warehouse: &Postgres, query: &HeldQuery<'_>, take: &mut TakeRow<'_>) -> Result<bool> {
    if !warehouse.has_table(query.table).await? {
        return Ok(false);
    }
    let fail = |e| failure(e, Some(query.table));
    let mut tx = warehouse.pool.begin().await.map_err(fail)?;
    run(&mut tx, "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ READ ONLY".to_owned(), None).await?;
    run(&mut tx, SETTINGS.to_owned(), None).await?;
    let there = columns(&mut tx, warehouse, query.table).await?;
    let statement = select(&warehouse.names.of(query.table), query, &there);
    let mut rows = sqlx::query(AssertSqlSafe(statement)).persistent(false).fetch(&mut *tx);
    let mut held = HeldRow::default();
    while let Some(row) = rows.try_next().await.map_err(fail)? {
        fill(&row, query.columns.len(), &mut held).map_err(fail)?;
        take(&held)?;
    }
    Ok(true)
}

async fn columns(conn: &mut PgConnection, warehouse: &Postgres, table: &str) -> Result<BTreeSet<String>> {
    let statement = "SELECT attname::text FROM pg_attribute \
                     WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped";
    let names: Vec<String> = sqlx::query_scalar(statement)
        .bind(warehouse.names.of(table))
        .fetch_all(conn)
        .await
        .map_err(|e| failure(e, Some(table)))?;
    Ok(names.into_iter().collect())
}

fn select(target: &str, query: &HeldQuery<'_>, there: &BTreeSet<String>) -> String {
    let column = |name: &str| match there.contains(name) {
        true => format!("{}::text", quote(name)),
        false => "NULL::text".to_owned(),
    };
    let mut columns: Vec<String> = query.columns.iter().map(|(name, _)| column(name)).collect();
    columns.push(column(SEQ));
    let keys = query.keys.filter(|keys| keys.columns.iter().all(|(name, _)| there.contains(name)));
    let keys = keys.map(condition).unwrap_or_default();
    format!("SELECT {} FROM {target} WHERE {}{keys}", columns.join(", "), live(query.mode))
}

/// The keys; a literal takes the type of its column, so that the key's index serves.
fn condition(keys: &HeldKeys) -> String {
    if keys.rows.is_empty() {
        return " AND false".to_owned();
    }
    let names: Vec<String> = keys.columns.iter().map(|(name, _)| quote(name)).collect();
    let row = |values: &Vec<String>| format!("({})", values.iter().map(|v| literal(v)).collect::<Vec<_>>().join(", "));
    let rows: Vec<String> = keys.rows.iter().map(row).collect();
    format!(" AND ({}) IN ({})", names.join(", "), rows.join(", "))
}

fn fill(row: &PgRow, columns: usize, held: &mut HeldRow) -> Result<(), sqlx::Error> {
    held.cells.resize(columns, None);
    for (at, cell) in held.cells.iter_mut().enumerate() {
        *cell = row.try_get(at)?;
    }
    held.seq = row.try_get(columns)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Type;
    use crate::epoch::DeleteMode;

    #[test]
    fn keys_are_compared_with_their_columns() {
        let keys =
            HeldKeys { columns: vec![("id".into(), Type::Int)], rows: vec![vec!["7".into()], vec!["o'k".into()]] };
        let columns = [("id".to_owned(), Type::Int), ("gone".to_owned(), Type::TEXT)];
        let query = HeldQuery { table: "t", columns: &columns, mode: DeleteMode::Soft, keys: Some(&keys) };
        let there = ["id", "_seq"].map(str::to_owned).into();
        assert_eq!(
            select("s.t", &query, &there),
            "SELECT \"id\"::text, NULL::text, \"_seq\"::text FROM s.t WHERE _deleted IS NOT TRUE AND (\"id\") IN (('7'), ('o''k'))"
        );
    }
}
