//! SQL text. Pure.
//!
//! Every group has control tables of its own: under serializable isolation two transactions that read and write one
//! table are a conflict, whatever rows they touch. Its lock table is locked for the whole of a load, so that nobody who
//! looks at the ledger has to wait for one.

use xxhash_rust::xxh3::xxh3_64;

use super::types::{document_to_table, sql_type, stage_type, to_stage, to_table};
use crate::batch::{NO_TIME, Seq};
use crate::contract::{Column, TableSchema, Type};
use crate::epoch::DeleteMode;
use crate::warehouse::merge::{Dialect, Merge, StageColumn, base_column, document_column};
use crate::warehouse::names::{
    CURRENT, DELETED, END_SEQ, PARTITION, SEQ, SYNCED_AT, VALID_FROM, VALID_TO, literal, quote,
};

/// The type of `_seq`: compared byte by byte.
const SEQ_TYPE: &str = "varchar(48)";
/// Room for a key as text.
const KEY_TYPE: &str = "varchar(65535)";
/// The most columns of a table: <https://docs.aws.amazon.com/redshift/latest/dg/r_CREATE_TABLE_NEW.html>.
pub(crate) const MAX_COLUMNS: usize = 1600;
/// The longest identifier; Redshift would cut a longer one silently.
pub(crate) const MAX_NAME_BYTES: usize = 127;
/// How much of a topology's and a group's name stands in the names of the group's control tables.
const READABLE_BYTES: usize = 64;
/// In front of the names of what belongs to a group.
pub(crate) const STATE_PREFIX: &str = "_dataflow_state_";
pub(crate) const INCOMPLETE_PREFIX: &str = "_dataflow_incomplete_";

/// The columns of a group's state, in the order in which they are read and written.
pub(crate) const STATE_COLUMNS: &str = "table_name, topology, group_name, log, through, held, epoch, loaded, applied, \
     superseded, incomplete, max_source_time_us, applied_at_us, truncate_floor, truncated_at_us, marked, gaps";

/// How many rows the session's last COPY took.
pub(crate) const COPIED: &str = "SELECT pg_last_copy_count()";

/// Now, in microseconds since 1970.
pub(crate) const NOW_US: &str = "CAST(extract(epoch FROM getdate()) AS bigint) * 1000000";

/// Names inside one schema.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    schema: String,
}

/// The control tables of one group, unquoted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupNames {
    /// Locked during a load.
    pub lock: String,
    /// The ledger (the row whose table is empty) and what is known of each table.
    pub state: String,
    pub tombstones: String,
    pub incomplete: String,
}

/// As much of a name as may stand in the name of a table.
pub(crate) fn readable(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' };
    name.chars().map(plain).take(READABLE_BYTES).collect()
}

impl GroupNames {
    pub(crate) fn new(topology: &str, group: &str) -> Self {
        let readable = readable(&format!("{topology}_{group}"));
        // Two groups may look alike once their names are cut to what an identifier takes.
        let own = xxh3_64(format!("{topology}\0{group}").as_bytes()) as u32;
        let name = |prefix: &str| format!("{prefix}{readable}_{own:08x}");
        Self {
            lock: name("_dataflow_lock_"),
            state: name(STATE_PREFIX),
            tombstones: name("_dataflow_tombstones_"),
            incomplete: name(INCOMPLETE_PREFIX),
        }
    }
}

impl GroupNames {
    /// Below the numbers of the group's incomplete rows: those of different groups never meet.
    pub(crate) fn first_incomplete(&self) -> i64 {
        i64::from(xxh3_64(self.incomplete.as_bytes()) as u32 >> 1) << 32
    }
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

    /// The control tables of a group.
    pub(crate) fn control(&self, group: &GroupNames) -> Vec<String> {
        let table = |name: &str, columns: String| format!("CREATE TABLE IF NOT EXISTS {} ({columns})", self.of(name));
        vec![
            table(&group.lock, "locked smallint".to_owned()),
            table(
                &group.state,
                format!(
                    "table_name varchar(512) NOT NULL, topology varchar(512) NOT NULL, group_name varchar(512) NOT NULL, \
                     log varchar(36), through bigint, held varchar(65535), epoch bigint, loaded bigint, applied bigint, \
                     superseded bigint, incomplete bigint, max_source_time_us bigint, applied_at_us bigint, \
                     truncate_floor {SEQ_TYPE}, truncated_at_us bigint, marked boolean, gaps boolean"
                ),
            ),
            table(
                &group.tombstones,
                format!(
                    "topology varchar(512), table_name varchar(512), key {KEY_TYPE}, kind varchar(8), seq {SEQ_TYPE}"
                ),
            ),
            table(
                &group.incomplete,
                format!(
                    "id bigint NOT NULL, topology varchar(512) NOT NULL, group_name varchar(512) NOT NULL, \
                     epoch bigint NOT NULL, table_name varchar(512) NOT NULL, key {KEY_TYPE} NOT NULL, \
                     seq {SEQ_TYPE} NOT NULL, source_partition varchar(65535) NOT NULL, missing varchar(65535) NOT NULL"
                ),
            ),
        ]
    }

    /// The first statement of a load's transaction: what it reads afterwards is what stands when the lock is had.
    pub(crate) fn lock(&self, group: &GroupNames) -> String {
        format!("LOCK {}", self.of(&group.lock))
    }

    /// The ledger and what is known of each table.
    pub(crate) fn state(&self, group: &str) -> String {
        format!("SELECT {STATE_COLUMNS} FROM {}", self.of(group))
    }

    /// Takes the rows of these tables (empty: the ledger) out of a group's state.
    pub(crate) fn forget_state(&self, group: &GroupNames, tables: &[impl AsRef<str>]) -> String {
        let tables: Vec<String> = tables.iter().map(|table| literal(table.as_ref())).collect();
        format!("DELETE FROM {} WHERE table_name IN ({})", self.of(&group.state), tables.join(", "))
    }

    /// Puts rows into a group's state, each as a list of literals.
    pub(crate) fn put_state(&self, group: &GroupNames, rows: &[String]) -> String {
        format!("INSERT INTO {} ({STATE_COLUMNS}) VALUES {}", self.of(&group.state), rows.join(", "))
    }

    /// A new target table. Only the key must have values: `NOT NULL` could never be dropped.
    pub(crate) fn create(&self, table: &str, schema: &TableSchema, mode: DeleteMode) -> String {
        let column = |c: &Column| {
            let null = if schema.key.contains(&c.name) { " NOT NULL" } else { "" };
            format!("{} {}{null}", quote(&c.name), sql_type(c.data_type))
        };
        let mut parts: Vec<String> = schema.columns.iter().map(column).collect();
        parts.extend(system_columns(schema, mode).iter().map(|(name, sql_type)| format!("{name} {sql_type}")));
        format!("CREATE TABLE IF NOT EXISTS {} ({})", self.of(table), parts.join(", "))
    }

    /// A new column.
    pub(crate) fn add_column(&self, table: &str, column: &str, sql_type: &str) -> String {
        format!("ALTER TABLE {} ADD COLUMN {} {sql_type}", self.of(table), quote(column))
    }

    /// A longer `varchar`. Not possible inside a transaction.
    pub(crate) fn lengthen(&self, table: &str, column: &str, sql_type: &str) -> String {
        format!("ALTER TABLE {} ALTER COLUMN {} TYPE {sql_type}", self.of(table), quote(column))
    }

    /// The columns of a table.
    pub(crate) fn columns(&self, table: &str) -> String {
        format!(
            "SELECT column_name, data_type, character_maximum_length, numeric_precision, numeric_scale \
             FROM information_schema.columns WHERE table_schema = {} AND table_name = {} ORDER BY ordinal_position",
            literal(&self.schema.to_ascii_lowercase()),
            literal(&table.to_ascii_lowercase())
        )
    }

    /// The tables and views whose names begin like that.
    pub(crate) fn tables_like(&self, prefix: &str) -> String {
        format!(
            "SELECT table_name, table_type FROM information_schema.tables WHERE table_schema = {} \
             AND left(table_name, {}) = {} ORDER BY table_name",
            literal(&self.schema.to_ascii_lowercase()),
            prefix.len(),
            literal(prefix)
        )
    }

    /// The merge of one table.
    pub(crate) fn merge<'a>(
        &self,
        topology: &'a str,
        group: &GroupNames,
        table: &'a str,
        schema: &'a TableSchema,
        mode: DeleteMode,
        stage: &str,
    ) -> Merge<'a> {
        Merge {
            range: None,
            dialect: Dialect::Redshift,
            schema,
            mode,
            target: self.of(table),
            stage: stage.to_owned(),
            tombstones: self.of(&group.tombstones),
            topology,
            table,
            into_stage: to_stage,
            into_target: to_table,
            documents_beside: false,
        }
    }

    /// Rows of a table without a key, from the stage.
    pub(crate) fn append(&self, merge: &Merge<'_>) -> String {
        let columns = merge.schema.columns.iter().map(|c| quote(&c.name)).collect::<Vec<_>>().join(", ");
        format!(
            "INSERT INTO {} ({columns}, {SEQ}, {PARTITION}, {SYNCED_AT}) SELECT {}, {SEQ}, {PARTITION}, getdate() FROM {}",
            merge.target,
            merge.values(""),
            merge.stage
        )
    }
}

/// The system columns of a target.
pub(crate) fn system_columns(schema: &TableSchema, mode: DeleteMode) -> Vec<(&'static str, &'static str)> {
    let mut columns = vec![(SEQ, SEQ_TYPE), (SYNCED_AT, "timestamp")];
    if schema.key.is_empty() {
        columns.push((PARTITION, "varchar(4096)"));
        return columns;
    }
    match mode {
        DeleteMode::Hard => {}
        DeleteMode::Soft => columns.push((DELETED, "boolean")),
        DeleteMode::History => columns.extend([
            (VALID_FROM, "timestamp"),
            (VALID_TO, "timestamp"),
            (CURRENT, "boolean"),
            (END_SEQ, SEQ_TYPE),
        ]),
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

/// How a stage holds documents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Documents {
    /// As text, which is parsed when it goes into the table.
    Text,
    /// As text, and what a partial row takes from its base beside it, as a document: that may be too long for a text.
    Beside,
    /// As documents, because one of the rows' own is too long for a text.
    Whole,
}

/// What a stage looks like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct StageForm {
    pub kind: StageKind,
    pub documents: Documents,
}

impl StageForm {
    pub(crate) fn new(kind: StageKind, documents: Documents) -> Self {
        Self { kind, documents }
    }

    /// The merge of a stage that looks like this.
    pub(crate) fn merged<'a>(self, merge: Merge<'a>) -> Merge<'a> {
        match self.documents {
            Documents::Text => merge,
            Documents::Beside => Merge { documents_beside: true, ..merge },
            Documents::Whole => Merge { into_target: document_to_table, ..merge },
        }
    }

    fn column_type(self, data_type: Type) -> String {
        match (data_type, self.documents) {
            (Type::Json, Documents::Whole) => sql_type(data_type),
            _ => stage_type(data_type),
        }
    }
}

/// The names of the columns that hold documents, quoted.
pub(crate) fn document_names(schema: &TableSchema) -> impl Iterator<Item = String> {
    schema.columns.iter().filter(|column| column.data_type == Type::Json).map(|column| quote(&column.name))
}

/// The columns of a stage, in the order in which the file has them, with their types.
pub(crate) fn stage_columns(schema: &TableSchema, form: StageForm) -> Vec<(String, String)> {
    let mut columns: Vec<(String, String)> =
        schema.columns.iter().map(|c| (quote(&c.name), form.column_type(c.data_type))).collect();
    columns.push((SEQ.to_owned(), SEQ_TYPE.to_owned()));
    match form.kind {
        StageKind::Plain => {}
        StageKind::Append => columns.push((PARTITION.to_owned(), "varchar(4096)".to_owned())),
        StageKind::Merge => {
            columns.extend(StageColumn::ALL.map(|column| {
                let sql_type = match column {
                    StageColumn::Row => "bigint",
                    StageColumn::Op => "varchar(1)",
                    StageColumn::Time => "timestamp",
                    StageColumn::Unchanged => "varchar(2048)",
                    StageColumn::Key | StageColumn::BaseKey => KEY_TYPE,
                    StageColumn::BaseSeq | StageColumn::Arrived => SEQ_TYPE,
                    StageColumn::State => "smallint",
                };
                (column.name().to_owned(), sql_type.to_owned())
            }));
            for (part, index) in schema.key_indices().into_iter().enumerate() {
                columns.push((base_column(part), stage_type(schema.columns[index].data_type)));
            }
        }
    }
    columns
}

/// The columns that the file has not.
fn columns_beside(schema: &TableSchema, form: StageForm) -> Vec<(String, String)> {
    let documents = schema.columns.iter().enumerate().filter(|(_, column)| column.data_type == Type::Json);
    match form.documents {
        Documents::Beside => {
            documents.map(|(index, column)| (document_column(index), sql_type(column.data_type))).collect()
        }
        Documents::Text | Documents::Whole => Vec::new(),
    }
}

/// A stage of one table: stays until it is dropped, or its session ends. `layout`: how its rows lie, with a blank in front.
pub(crate) fn create_stage(stage: &str, schema: &TableSchema, form: StageForm, layout: &str) -> String {
    let mut columns = stage_columns(schema, form);
    columns.extend(columns_beside(schema, form));
    let columns: Vec<String> = columns.iter().map(|(name, sql_type)| format!("{name} {sql_type}")).collect();
    format!("CREATE TEMP TABLE {stage} ({}){layout}", columns.join(", "))
}

/// The COPY into a stage. Columns are matched by position, so they are always named.
pub(crate) fn copy(stage: &str, schema: &TableSchema, form: StageForm, manifest: &str, iam_role: &str) -> String {
    let columns: Vec<String> = stage_columns(schema, form).into_iter().map(|(name, _)| name).collect();
    let options = if form.documents == Documents::Whole { SERIALIZE } else { "" };
    copy_with(stage, &columns.join(", "), manifest, iam_role, options)
}

/// The option by which COPY reads a Parquet column of JSON into `SUPER` as what it says.
pub(crate) const SERIALIZE: &str = " SERIALIZETOJSON";

/// How many objects, arrays and strings each document column of a stage holds.
pub(crate) fn document_kinds(stage: &str, schema: &TableSchema) -> String {
    let count = |name: String| {
        let of = |kind: &str| format!("count(CASE WHEN JSON_TYPEOF({name}) = '{kind}' THEN 1 END)");
        ["object", "array", "string"].map(of).join(", ")
    };
    format!("SELECT {} FROM {stage}", document_names(schema).map(count).collect::<Vec<_>>().join(", "))
}

/// A COPY of Parquet; `options` with a blank in front.
pub(crate) fn copy_with(table: &str, columns: &str, manifest: &str, iam_role: &str, options: &str) -> String {
    let role = if iam_role == "default" { iam_role.to_owned() } else { literal(iam_role) };
    format!(
        "COPY {table} ({columns}) FROM {} IAM_ROLE {role} MANIFEST FORMAT AS PARQUET{options} STATUPDATE OFF",
        literal(manifest)
    )
}

/// What Redshift has written down about files that COPY could not take, whose URLs begin like that.
pub(crate) fn load_errors(files: &str) -> String {
    format!(
        "SELECT column_name, column_type, error_message, error_code FROM sys_load_error_detail \
         WHERE left(file_name, {}) = {} LIMIT 1",
        files.chars().count(),
        literal(files)
    )
}

/// A time as a literal, in UTC.
pub(crate) fn time(micros: i64) -> String {
    let known = (micros != NO_TIME).then(|| chrono::DateTime::from_timestamp_micros(micros)).flatten();
    match known {
        Some(time) => format!("TIMESTAMP '{}'", time.format("%Y-%m-%d %H:%M:%S%.6f")),
        None => "CAST(NULL AS timestamp)".to_owned(),
    }
}

/// A number or `NULL`.
pub(crate) fn number(value: Option<i64>) -> String {
    value.map_or_else(|| "NULL".to_owned(), |value| value.to_string())
}

/// An order or `NULL`.
pub(crate) fn order(seq: Option<Seq>) -> String {
    seq.map_or_else(|| "NULL".to_owned(), |seq| literal(&seq.to_string()))
}
