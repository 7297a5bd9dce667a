//! SQL text. Pure.

use super::types::sql_type;
use crate::contract::TableSchema;
use crate::epoch::DeleteMode;
use crate::warehouse::merge::{Dialect, Merge, StageColumn, base_column};
use crate::warehouse::names::{
    CURRENT, DELETED, END_SEQ, FRESHNESS, INCOMPLETE, INCOMPLETE_KEY, LEDGER, PARTITION, SEQ, SYNCED_AT, TABLES,
    TOMBSTONES, VALID_FROM, VALID_TO, quote,
};

/// The stage of a merge.
pub(crate) const STAGE: &str = "temp._dataflow_stage";

/// The tables that belong to all topologies in the file.
pub(crate) fn ledger() -> Vec<String> {
    vec![
        format!(
            "CREATE TABLE IF NOT EXISTS {LEDGER} (topology TEXT NOT NULL, group_name TEXT NOT NULL, log TEXT NOT NULL, \
             through INTEGER NOT NULL, held TEXT NOT NULL, updated_at TEXT NOT NULL, PRIMARY KEY (topology, group_name))"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {TABLES} (topology TEXT NOT NULL, table_name TEXT NOT NULL, \
             group_name TEXT NOT NULL, epoch INTEGER NOT NULL, loaded INTEGER NOT NULL, applied INTEGER NOT NULL, \
             superseded INTEGER NOT NULL, incomplete INTEGER NOT NULL, max_source_time_us INTEGER, \
             applied_at_us INTEGER NOT NULL, truncate_floor TEXT, truncated_at_us INTEGER, \
             PRIMARY KEY (topology, table_name))"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {TOMBSTONES} (topology TEXT NOT NULL, table_name TEXT NOT NULL, key TEXT NOT NULL, \
             kind TEXT NOT NULL, seq TEXT NOT NULL, PRIMARY KEY (topology, table_name, key, kind, seq))"
        ),
        format!(
            "CREATE TABLE IF NOT EXISTS {INCOMPLETE} (id INTEGER PRIMARY KEY, topology TEXT NOT NULL, \
             group_name TEXT NOT NULL, epoch INTEGER NOT NULL, table_name TEXT NOT NULL, key TEXT NOT NULL, \
             seq TEXT NOT NULL, source_partition TEXT NOT NULL, missing TEXT NOT NULL)"
        ),
        format!("CREATE INDEX IF NOT EXISTS {INCOMPLETE_KEY} ON {INCOMPLETE} (topology, table_name, key)"),
    ]
}

/// The view that people look at.
pub(crate) fn freshness(name: &str) -> String {
    let time = |column: &str| format!("strftime('%Y-%m-%dT%H:%M:%fZ', {column} / 1000000.0, 'unixepoch')");
    format!(
        "CREATE VIEW IF NOT EXISTS {name} AS SELECT table_name AS \"table\", {newest} AS source_time, \
         {applied} AS applied_at, applied AS rows, epoch FROM {TABLES}",
        newest = time("max_source_time_us"),
        applied = time("applied_at_us"),
    )
}

/// The name of that view when nothing else has it.
pub(crate) const FRESHNESS_VIEW: &str = FRESHNESS;

/// The system columns of a target.
pub(crate) fn system_columns(schema: &TableSchema, mode: DeleteMode) -> Vec<(&'static str, &'static str)> {
    let mut columns = vec![(SEQ, "TEXT"), (SYNCED_AT, "TEXT")];
    if schema.key.is_empty() {
        columns.push((PARTITION, "TEXT"));
        return columns;
    }
    match mode {
        DeleteMode::Hard => {}
        DeleteMode::Soft => columns.push((DELETED, "BOOLEAN")),
        DeleteMode::History => {
            columns.extend([(VALID_FROM, "TEXT"), (VALID_TO, "TEXT"), (CURRENT, "BOOLEAN"), (END_SEQ, "TEXT")]);
        }
    }
    columns
}

/// The columns that identify a row of the target.
pub(crate) fn unique(schema: &TableSchema, mode: DeleteMode) -> Vec<String> {
    let mut columns = schema.key.clone();
    if mode == DeleteMode::History && !columns.is_empty() {
        columns.push(SEQ.to_owned());
    }
    columns
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ")
}

/// A new target table.
pub(crate) fn create(table: &str, schema: &TableSchema, mode: DeleteMode) -> String {
    let mut parts: Vec<String> =
        schema.columns.iter().map(|c| format!("{} {}", quote(&c.name), sql_type(c.data_type))).collect();
    parts.extend(system_columns(schema, mode).iter().map(|(name, sql_type)| format!("{name} {sql_type}")));
    let unique = unique(schema, mode);
    if !unique.is_empty() {
        parts.push(format!("PRIMARY KEY ({})", list(&unique)));
    }
    format!("CREATE TABLE IF NOT EXISTS {} ({})", quote(table), parts.join(", "))
}

/// A new column.
pub(crate) fn add_column(table: &str, column: &str, sql_type: &str) -> String {
    format!("ALTER TABLE {} ADD COLUMN {} {sql_type}", quote(table), quote(column))
}

/// A column that numbers were kept in becomes text, so that decimals are exact.
pub(crate) fn to_text(table: &str, column: &str) -> Vec<String> {
    let (table, new, old) = (quote(table), quote(column), quote(&format!("_old_{column}")));
    vec![
        format!("ALTER TABLE {table} RENAME COLUMN {new} TO {old}"),
        format!("ALTER TABLE {table} ADD COLUMN {new} TEXT"),
        format!("UPDATE {table} SET {new} = CAST({old} AS TEXT)"),
        format!("ALTER TABLE {table} DROP COLUMN {old}"),
    ]
}

/// The unique index that upserts need, for a table that people made.
pub(crate) fn unique_index(table: &str, schema: &TableSchema, mode: DeleteMode) -> String {
    let name = quote(&format!("_dataflow_key_{table}"));
    format!("CREATE UNIQUE INDEX IF NOT EXISTS {name} ON {} ({})", quote(table), list(&unique(schema, mode)))
}

/// The stage of one table.
pub(crate) fn create_stage(schema: &TableSchema) -> String {
    let mut parts: Vec<String> =
        schema.columns.iter().map(|c| format!("{} {}", quote(&c.name), sql_type(c.data_type))).collect();
    parts.push(format!("{SEQ} TEXT"));
    parts.extend(StageColumn::ALL.map(|column| match column {
        StageColumn::Row | StageColumn::State => format!("{} INTEGER", column.name()),
        _ => format!("{} TEXT", column.name()),
    }));
    for (part, index) in schema.key_indices().into_iter().enumerate() {
        parts.push(format!("{} {}", base_column(part), sql_type(schema.columns[index].data_type)));
    }
    format!("CREATE TABLE {STAGE} ({})", parts.join(", "))
}

/// The columns of the stage that are filled by the loader, in order.
pub(crate) fn stage_columns(schema: &TableSchema) -> Vec<String> {
    let data = schema.columns.iter().map(|c| quote(&c.name));
    let meta = StageColumn::ALL.iter().map(|c| c.name().to_owned());
    let base = (0..schema.key.len()).map(base_column);
    data.chain([SEQ.to_owned()]).chain(meta).chain(base).collect()
}

/// The merge of one table.
pub(crate) fn merge<'a>(topology: &'a str, table: &'a str, schema: &'a TableSchema, mode: DeleteMode) -> Merge<'a> {
    Merge {
        range: None,
        dialect: Dialect::Sqlite,
        schema,
        mode,
        target: quote(table),
        stage: STAGE.to_owned(),
        tombstones: TOMBSTONES.to_owned(),
        topology,
        table,
        into_stage: |_, value| value.to_owned(),
        into_target: |_, value| value.to_owned(),
        documents_beside: false,
    }
}

/// `VALUES` with `rows` rows of `columns` placeholders.
pub(crate) fn values(rows: usize, columns: usize) -> String {
    let row = format!("({})", vec!["?"; columns].join(", "));
    format!("VALUES {}", vec![row.as_str(); rows].join(", "))
}
