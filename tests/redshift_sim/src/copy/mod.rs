//! COPY: from what the statement names to rows in PostgreSQL, all of them or none.
//! <https://docs.aws.amazon.com/redshift/latest/dg/copy-usage_notes-copy-from-columnar.html>

mod column;
mod document;
mod manifest;
mod objects;
mod value;

use bytes::Bytes;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};

use crate::Options;
use crate::lex::{identifier, literal};
use crate::refusal::{Refusal, Stop};
use crate::session::Session;
use crate::sql::copy::Copy;
use crate::wire::Message;

use column::Column;
pub use objects::{Objects, S3};

/// How much goes into one message to PostgreSQL.
const CHUNK: usize = 64 * 1024;

/// A file that is loaded.
#[derive(Debug)]
struct File {
    url: String,
    bytes: Bytes,
}

/// What is wrong with a value: goes into the error views, where Redshift writes such things.
#[derive(Debug, Clone, PartialEq, Eq)]
struct BadValue {
    refusal: Refusal,
    code: u32,
    column: usize,
    row: u64,
}

/// Why a file does not load.
#[derive(Debug)]
enum Unloadable {
    /// It does not fit the table: in the error's detail alone.
    File(Refusal),
    /// A value does not: in the error views, too.
    Value(Box<BadValue>),
}

impl From<Refusal> for Unloadable {
    fn from(refusal: Refusal) -> Self {
        Self::File(refusal)
    }
}

impl Session {
    /// Loads.
    pub(crate) async fn copy(&mut self, copy: &Copy) -> Result<(), Stop> {
        let mut columns = self.copy_columns(copy).await?;
        let shared = std::sync::Arc::clone(self.shared());
        let files = shared.objects.files(copy, &shared.options.iam_roles).await?;
        let mut text = Vec::new();
        let (mut rows, mut bytes) = (0, 0);
        for file in &files {
            bytes += file.bytes.len() as u64;
            match read(file, &mut columns, copy, &shared.options, &mut text) {
                Ok(read) => rows += read,
                Err(Unloadable::File(refusal)) => return Err(refusal.into()),
                Err(Unloadable::Value(bad)) => return Err(self.record(&file.url, &columns, *bad).await?.into()),
            }
        }
        self.insert(&copy.table, &columns, &text).await?;
        let id = {
            let counters = &mut shared.watch().counters;
            counters.copied_files += files.len() as u64;
            counters.copied_bytes += bytes;
            counters.copied_rows += rows;
            counters.of(crate::Kind::Copy)
        };
        let table = copy.table.replace('"', "");
        self.note_copy(rows, id).await?;
        self.inform(&format!("Load into table '{table}' completed, {rows} record(s) loaded successfully."));
        Ok(())
    }

    /// The columns that are loaded, in the files' order. Identity columns only if the statement says so:
    /// <https://docs.aws.amazon.com/redshift/latest/dg/copy-parameters-data-conversion.html#copy-explicit-ids>.
    async fn copy_columns(&mut self, copy: &Copy) -> Result<Vec<Column>, Stop> {
        let sql = format!(
            "SELECT a.attname, t.typname, a.atttypmod, a.attnotnull, a.attidentity <> '' FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid \
             WHERE a.attrelid = to_regclass({}) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum",
            literal(&copy.table)
        );
        let rows = self.backend_rows(&sql).await?;
        let mut all: Vec<Column> = rows.iter().filter_map(|row| Column::read(row)).collect();
        all.iter_mut().for_each(|column| column.name = self.shared().names().long(&column.name).to_owned());
        let table = copy.table.replace('"', "");
        if all.is_empty() {
            return Err(Refusal::new("XX000", format!("Cannot COPY into nonexistent table {table}")).into());
        }
        let mut wanted = Vec::new();
        for name in &copy.columns {
            let found = all.iter().find(|column| column.name == *name);
            let found = found.ok_or_else(|| {
                Refusal::new("42703", format!("column \"{name}\" of relation \"{table}\" does not exist"))
            })?;
            if found.identity && !copy.explicit_ids {
                return Err(
                    Refusal::new("0A000", format!("cannot set an identity column to a value: \"{name}\"")).into()
                );
            }
            wanted.push(found.clone());
        }
        if copy.columns.is_empty() {
            wanted = all.into_iter().filter(|column| !column.identity || copy.explicit_ids).collect();
        }
        // In the words of the clusters that people asked: <https://docs.aws.amazon.com/redshift/latest/dg/copy_json.html>.
        if !copy.serialize_to_json && wanted.iter().any(|column| column.kind == column::ColumnType::Super) {
            return Err(Refusal::unsupported("SUPER column in COPY query requires SERIALIZETOJSON option").into());
        }
        Ok(wanted)
    }

    async fn insert(&mut self, table: &str, columns: &[Column], text: &[u8]) -> Result<(), Stop> {
        let names: Vec<String> = columns.iter().map(|column| identifier(&column.name)).collect();
        let mut messages = vec![Message::query(&format!("COPY {table} ({}) FROM STDIN", names.join(", ")))];
        messages.extend(text.chunks(CHUNK).map(|chunk| Message::new(b'd', chunk)));
        messages.push(Message::new(b'c', []));
        self.send_copy(messages).await
    }

    /// Writes down what is wrong, where a rollback does not reach it.
    /// <https://docs.aws.amazon.com/redshift/latest/dg/SYS_LOAD_ERROR_DETAIL.html>
    async fn record(&mut self, url: &str, columns: &[Column], bad: BadValue) -> Result<Refusal, Stop> {
        let column = &columns[bad.column];
        let sql = format!(
            "INSERT INTO sim.load_errors VALUES (now() AT TIME ZONE 'utc', 1, pg_backend_pid(), {}, {}, {}, {}, {}, {}, {}, {})",
            self.shared().watch().counters.of(crate::Kind::Copy),
            literal(url),
            bad.row,
            literal(&column.name),
            literal(column.short_type()),
            literal(&column.length().map_or_else(String::new, |n| n.to_string())),
            bad.code,
            literal(bad.refusal.reason())
        );
        let shared = std::sync::Arc::clone(self.shared());
        shared.admin.lock().await.rows(&sql).await?;
        Ok(bad.refusal)
    }
}

/// Reads a file into rows in PostgreSQL's text format; how many.
fn read(
    file: &File,
    columns: &mut [Column],
    copy: &Copy,
    options: &Options,
    text: &mut Vec<u8>,
) -> Result<u64, Unloadable> {
    // Only what Parquet itself says counts: whoever else reads the file does not know of Arrow's own notes in it.
    let reading = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let broken =
        |e: String| Refusal::spectrum(15_001, &format!("{}: not a Parquet file that can be read: {e}", file.url));
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file.bytes.clone(), reading)
        .map_err(|e| broken(e.to_string()))?;
    column::check_file(&file.url, builder.metadata(), columns, copy, options)?;
    let reader = builder.build().map_err(|e| broken(e.to_string()))?;
    let mut rows = 0;
    for batch in reader {
        let batch = batch.map_err(|e| broken(e.to_string()))?;
        value::write(&batch, columns, copy, rows, &file.url, text)?;
        rows += batch.num_rows() as u64;
    }
    Ok(rows)
}
