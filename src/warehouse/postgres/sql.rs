//! SQL text. Pure.

use super::types::sql_type;
use crate::batch::NO_TIME;
use crate::contract::TableSchema;
use crate::epoch::DeleteMode;
use crate::warehouse::merge::{Dialect, Merge, StageColumn, base_column};
use crate::warehouse::names::{
    CURRENT, DELETED, END_SEQ, INCOMPLETE, INCOMPLETE_KEY, LEDGER, PARTITION, SEQ, SYNCED_AT, TABLES, TOMBSTONES,
    VALID_FROM, VALID_TO, quote,
};

/// The type of `_seq`: compared byte by byte.
const SEQ_TYPE: &str = "text COLLATE \"C\"";

/// Names inside one schema.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    schema: String,
}

impl Names {
    pub(crate) fn new(schema: &str) -> Self {
        Self { schema: schema.to_owned() }
    }

    /// Quoted and qualified.
    pub(crate) fn of(&self, table: &str) -> String {
        format!("{}.{}", quote(&self.schema), quote(table))
    }

    pub(crate) fn schema(&self) -> &str {
        &self.schema
    }

    /// The tables (and an index) that belong to all topologies in the schema: name and definition.
    pub(crate) fn ledger(&self) -> Vec<(&'static str, String)> {
        let table = |name: &'static str, columns: &str| (name, format!("CREATE TABLE {} ({columns})", self.of(name)));
        vec![
            table(
                LEDGER,
                "topology text, group_name text, log uuid NOT NULL, through bigint NOT NULL, \
                 held text NOT NULL, updated_at timestamptz NOT NULL, PRIMARY KEY (topology, group_name)",
            ),
            table(
                TABLES,
                "topology text, table_name text, group_name text NOT NULL, epoch bigint NOT NULL, loaded bigint NOT NULL, \
                 applied bigint NOT NULL, superseded bigint NOT NULL, incomplete bigint NOT NULL, \
                 max_source_time_us bigint, applied_at_us bigint NOT NULL, truncate_floor text COLLATE \"C\", \
                 truncated_at_us bigint, PRIMARY KEY (topology, table_name)",
            ),
            table(
                TOMBSTONES,
                "topology text, table_name text, key text COLLATE \"C\", kind text, seq text COLLATE \"C\", \
                 PRIMARY KEY (topology, table_name, key, kind, seq)",
            ),
            table(
                INCOMPLETE,
                "id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, topology text NOT NULL, group_name text NOT NULL, \
                 epoch bigint NOT NULL, table_name text NOT NULL, key text NOT NULL, seq text NOT NULL, \
                 source_partition text NOT NULL, missing text NOT NULL",
            ),
            (
                INCOMPLETE_KEY,
                format!("CREATE INDEX {INCOMPLETE_KEY} ON {} (topology, table_name, key)", self.of(INCOMPLETE)),
            ),
        ]
    }

    /// The view that people look at.
    pub(crate) fn freshness(&self, name: &str) -> String {
        let time = |column: &str| format!("timestamptz 'epoch' + {column} * interval '1 microsecond'");
        format!(
            "CREATE VIEW {} AS SELECT table_name AS \"table\", {} AS source_time, {} AS applied_at, \
             applied AS rows, epoch FROM {}",
            self.of(name),
            time("max_source_time_us"),
            time("applied_at_us"),
            self.of(TABLES)
        )
    }

    /// A new target table.
    pub(crate) fn create(&self, table: &str, schema: &TableSchema, mode: DeleteMode) -> String {
        let mut parts: Vec<String> =
            schema.columns.iter().map(|c| format!("{} {}", quote(&c.name), sql_type(c.data_type))).collect();
        parts.extend(system_columns(schema, mode).iter().map(|(name, sql_type)| format!("{name} {sql_type}")));
        let unique = unique(schema, mode);
        if !unique.is_empty() {
            parts.push(format!("PRIMARY KEY ({})", list(&unique)));
        }
        format!("CREATE TABLE {} ({})", self.of(table), parts.join(", "))
    }

    /// A new column.
    pub(crate) fn add_column(&self, table: &str, column: &str, sql_type: &str) -> String {
        format!("ALTER TABLE {} ADD COLUMN {} {sql_type}", self.of(table), quote(column))
    }

    /// A wider type.
    pub(crate) fn widen(&self, table: &str, column: &str, sql_type: &str) -> String {
        format!("ALTER TABLE {} ALTER COLUMN {} TYPE {sql_type}", self.of(table), quote(column))
    }

    /// The unique index that upserts need, for a table that people made.
    pub(crate) fn unique_index(&self, table: &str, schema: &TableSchema, mode: DeleteMode) -> String {
        format!("CREATE UNIQUE INDEX ON {} ({})", self.of(table), list(&unique(schema, mode)))
    }

    /// The merge of one table.
    pub(crate) fn merge<'a>(
        &self,
        topology: &'a str,
        table: &'a str,
        schema: &'a TableSchema,
        mode: DeleteMode,
        stage: &str,
    ) -> Merge<'a> {
        Merge {
            range: None,
            dialect: Dialect::Postgres,
            schema,
            mode,
            target: self.of(table),
            stage: stage.to_owned(),
            tombstones: self.of(TOMBSTONES),
            topology,
            table,
            into_stage: |data_type, value| format!("CAST({value} AS {})", sql_type(data_type)),
            into_target: |_, value| value.to_owned(),
            documents_beside: false,
        }
    }

    /// Rows of a table without a key, from the stage.
    pub(crate) fn append(&self, table: &str, schema: &TableSchema, stage: &str) -> String {
        let columns = schema.columns.iter().map(|c| quote(&c.name)).collect::<Vec<_>>().join(", ");
        format!(
            "INSERT INTO {} ({columns}, {SEQ}, {PARTITION}, {SYNCED_AT}) \
             SELECT {columns}, {SEQ}, {PARTITION}, now() FROM {stage}",
            self.of(table)
        )
    }
}

fn list(names: &[String]) -> String {
    names.iter().map(|name| quote(name)).collect::<Vec<_>>().join(", ")
}

/// The system columns of a target.
pub(crate) fn system_columns(schema: &TableSchema, mode: DeleteMode) -> Vec<(&'static str, &'static str)> {
    let mut columns = vec![(SEQ, SEQ_TYPE), (SYNCED_AT, "timestamptz")];
    if schema.key.is_empty() {
        columns.push((PARTITION, "text"));
        return columns;
    }
    match mode {
        DeleteMode::Hard => {}
        DeleteMode::Soft => columns.push((DELETED, "boolean")),
        DeleteMode::History => columns.extend([
            (VALID_FROM, "timestamptz"),
            (VALID_TO, "timestamptz"),
            (CURRENT, "boolean"),
            (END_SEQ, SEQ_TYPE),
        ]),
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

/// What a stage holds beside the data columns and `_seq`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum StageKind {
    /// Whole upserts: nothing.
    Plain,
    /// No key: the partition.
    Append,
    /// Everything else.
    Merge,
}

/// A stage of one table, gone with the transaction.
pub(crate) fn create_stage(stage: &str, schema: &TableSchema, kind: StageKind) -> String {
    let mut parts: Vec<String> =
        schema.columns.iter().map(|c| format!("{} {}", quote(&c.name), sql_type(c.data_type))).collect();
    parts.push(format!("{SEQ} {SEQ_TYPE}"));
    match kind {
        StageKind::Plain => {}
        StageKind::Append => parts.push(format!("{PARTITION} text")),
        StageKind::Merge => {
            parts.extend(StageColumn::ALL.map(|column| match column {
                StageColumn::Row => format!("{} bigint", column.name()),
                StageColumn::Time => format!("{} timestamptz", column.name()),
                StageColumn::State => format!("{} smallint", column.name()),
                _ => format!("{} text COLLATE \"C\"", column.name()),
            }));
            for (part, index) in schema.key_indices().into_iter().enumerate() {
                parts.push(format!("{} {}", base_column(part), sql_type(schema.columns[index].data_type)));
            }
        }
    }
    format!("CREATE TEMP TABLE {stage} ({}) ON COMMIT DROP", parts.join(", "))
}

/// The COPY into a stage.
pub(crate) fn copy(stage: &str, schema: &TableSchema, kind: StageKind) -> String {
    let data = schema.columns.iter().map(|c| quote(&c.name)).chain([SEQ.to_owned()]);
    let more: Vec<String> = match kind {
        StageKind::Plain => Vec::new(),
        StageKind::Append => vec![PARTITION.to_owned()],
        StageKind::Merge => {
            StageColumn::ALL.iter().map(|c| c.name().to_owned()).chain((0..schema.key.len()).map(base_column)).collect()
        }
    };
    let columns = data.chain(more).collect::<Vec<_>>().join(", ");
    format!("COPY {stage} ({columns}) FROM STDIN (FORMAT binary)")
}

/// A time as a literal.
pub(crate) fn time(micros: i64) -> String {
    if micros == NO_TIME {
        return "CAST(NULL AS timestamptz)".to_owned();
    }
    format!("timestamptz 'epoch' + {micros} * interval '1 microsecond'")
}
