//! One table's files in an open epoch, and whether the epoch must be folded before it is loaded.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;

use super::form;
use super::keys::Keys;
use crate::batch::{NO_TIME, Op, TableChanges, memory_bytes};
use crate::contract::{Contract, TableSchema, join_schemas};
use crate::error::{Error, ErrorKind, Result};

/// Rows that are encoded at once: bounds what a write needs beside the writer.
const SLICE_ROWS: usize = 64 << 10;

/// A file that is so large is ended, and the next one begun: what is appended to a larger one is copied with all of it, and
/// who reads it back has all of it in memory beside its rows.
const FILE_BYTES: usize = 128 << 20;

/// What the end of a file takes, about.
const FOOTER_BYTES: usize = 64 << 10;

/// A file that is written but not yet in the lake.
#[derive(Debug)]
pub(super) struct LocalFile {
    /// The whole object.
    pub body: Bytes,
    /// Rows in it.
    pub rows: u64,
    /// Their size in memory.
    pub memory_bytes: u64,
}

/// One Parquet writer into memory.
pub(super) struct OpenFile {
    writer: ArrowWriter<Vec<u8>>,
    rows: u64,
    memory_bytes: u64,
}

impl OpenFile {
    /// Begins a file.
    pub fn begin(layout: SchemaRef, properties: WriterProperties) -> Result<Self> {
        let writer = ArrowWriter::try_new(Vec::new(), layout, Some(properties)).map_err(unwritable)?;
        Ok(Self { writer, rows: 0, memory_bytes: 0 })
    }

    /// Adds rows.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        self.rows += batch.num_rows() as u64;
        self.memory_bytes += memory_bytes(batch);
        self.writer.write(batch).map_err(unwritable)
    }

    /// Ends the row group: what its compressors need is given back.
    pub fn end_group(&mut self) -> Result<()> {
        self.make_room();
        self.writer.flush().map_err(unwritable)
    }

    /// Makes room for the row group in work: what grows while it is appended is copied again and again.
    fn make_room(&mut self) {
        let size = self.writer.in_progress_size();
        self.writer.inner_mut().reserve_exact(size + size / 8 + FOOTER_BYTES);
    }

    /// Bytes held: finished row groups and the one in work.
    pub fn buffered_bytes(&self) -> usize {
        self.writer.bytes_written() + self.writer.memory_size()
    }

    /// Adds an entry to what the file says of itself.
    pub fn note(&mut self, name: &str, value: String) {
        self.writer.append_key_value_metadata(KeyValue::new(name.to_owned(), value));
    }

    /// Bytes that the file would have by now, about.
    fn file_bytes(&self) -> usize {
        self.writer.bytes_written() + self.writer.in_progress_size()
    }

    /// Ends the file.
    pub fn finish(mut self) -> Result<LocalFile> {
        self.make_room();
        let body = self.writer.into_inner().map_err(unwritable)?.into();
        Ok(LocalFile { body, rows: self.rows, memory_bytes: self.memory_bytes })
    }
}

fn unwritable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Internal, "write Parquet").because(error)
}

/// What a table's writer leaves.
pub(super) struct FinishedTable {
    /// The files in order, each with the output columns that it holds.
    pub files: Vec<(LocalFile, TableSchema)>,
    /// The join of all input schemas that were written.
    pub input: TableSchema,
    /// Newest and oldest commit time, microseconds.
    pub max_source_time_us: Option<i64>,
    pub min_source_time_us: Option<i64>,
    /// See [`TableEpoch::fold`](crate::epoch::TableEpoch::fold).
    pub fold: bool,
    /// Whether a truncate is inside.
    pub truncate: bool,
}

/// One table's open file and what is known of its rows.
pub(super) struct TableWriter {
    properties: WriterProperties,
    file_bytes: usize,
    open: Option<OpenFile>,
    /// Whether rows are written as they come. A column that is being written costs its compressor, about 0.7 MiB, and its
    /// dictionary; so most tables of an epoch are written one after the other, a row group at a time.
    streamed: bool,
    /// Rows that wait for the next row group.
    pending: Vec<RecordBatch>,
    pending_bytes: usize,
    layout: SchemaRef,
    contract: Arc<Contract>,
    moves: bool,
    done: Vec<(LocalFile, TableSchema)>,
    input: TableSchema,
    keys: Keys,
    max_source_time_us: Option<i64>,
    min_source_time_us: Option<i64>,
    truncate: bool,
}

impl TableWriter {
    /// A writer for the table of `contract`. `streamed`: rows are written as they come, and do not wait for
    /// [`TableWriter::write_group`].
    pub fn new(contract: &Arc<Contract>, properties: WriterProperties, streamed: bool) -> Self {
        Self {
            properties,
            file_bytes: FILE_BYTES,
            open: None,
            streamed,
            pending: Vec::new(),
            pending_bytes: 0,
            layout: form::layout(&contract.output, false),
            contract: Arc::clone(contract),
            moves: false,
            done: Vec::new(),
            input: contract.input.clone(),
            keys: Keys::new(),
            max_source_time_us: None,
            min_source_time_us: None,
            truncate: false,
        }
    }

    /// Adds changes; begins another file when the columns are not those of the open one.
    pub fn write(&mut self, changes: &TableChanges) -> Result<()> {
        self.follow(&changes.contract, form::has_moves(changes) || changes.old_keys.is_some())?;
        let mut at = 0;
        while at < changes.len() {
            let len = SLICE_ROWS.min(changes.len() - at);
            let whole = len == changes.len();
            let batch = if whole {
                form::encode(changes, &self.layout)?
            } else {
                form::encode(&changes.slice(at, len), &self.layout)?
            };
            if self.streamed {
                self.file()?.write(&batch)?;
                self.end_large()?;
            } else {
                self.pending_bytes += batch.get_array_memory_size();
                self.pending.push(batch);
            }
            at += len;
        }
        self.keys.observe(changes)?;
        self.truncate |= changes.ops.contains(&Op::Truncate);
        for time in changes.source_times_us.iter().copied().filter(|&time| time != NO_TIME) {
            self.max_source_time_us = Some(self.max_source_time_us.map_or(time, |max| max.max(time)));
            self.min_source_time_us = Some(self.min_source_time_us.map_or(time, |min| min.min(time)));
        }
        Ok(())
    }

    /// Bytes of the rows that wait for a row group.
    pub fn pending_bytes(&self) -> usize {
        self.pending_bytes
    }

    /// Writes the rows that wait, as a row group.
    pub fn write_group(&mut self) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        self.pending_bytes = 0;
        let pending = std::mem::take(&mut self.pending);
        let open = self.file()?;
        for batch in pending {
            open.write(&batch)?;
        }
        open.end_group()?;
        self.end_large()
    }

    /// Ends the open file when it is large.
    fn end_large(&mut self) -> Result<()> {
        if self.open.as_ref().is_some_and(|open| open.file_bytes() >= self.file_bytes) {
            return self.end_file();
        }
        Ok(())
    }

    /// The columns that are written as rows come.
    pub fn streamed_columns(&self) -> usize {
        if self.streamed { self.layout.fields().len() } else { 0 }
    }

    fn file(&mut self) -> Result<&mut OpenFile> {
        if self.open.is_none() {
            self.open = Some(OpenFile::begin(Arc::clone(&self.layout), self.properties.clone())?);
        }
        self.open.as_mut().ok_or_else(|| Error::new(ErrorKind::Internal, "no open file"))
    }

    fn follow(&mut self, contract: &Arc<Contract>, moves: bool) -> Result<()> {
        let columns_changed = contract.output != self.contract.output;
        if contract.input != self.contract.input {
            self.input = join_schemas(&self.input, &contract.input).map_err(|clash| {
                let what = format!("table {}: two contracts in one epoch do not join: {clash:?}", contract.table);
                Error::new(ErrorKind::Internal, what)
            })?;
        }
        if columns_changed || (moves && !self.moves) {
            self.close()?;
            self.moves |= moves;
            self.layout = form::layout(&contract.output, self.moves);
        }
        self.contract = Arc::clone(contract);
        if columns_changed {
            self.keys.give_up();
        }
        Ok(())
    }

    fn close(&mut self) -> Result<()> {
        self.write_group()?;
        self.end_file()
    }

    fn end_file(&mut self) -> Result<()> {
        if let Some(open) = self.open.take() {
            self.done.push((open.finish()?, self.contract.output.clone()));
        }
        Ok(())
    }

    /// Bytes held.
    pub fn buffered_bytes(&self) -> usize {
        let done: usize = self.done.iter().map(|(file, _)| file.body.len()).sum();
        done + self.pending_bytes + self.open.as_ref().map_or(0, OpenFile::buffered_bytes) + self.keys.bytes()
    }

    /// Ends the table's files.
    pub fn finish(mut self) -> Result<FinishedTable> {
        self.close()?;
        Ok(FinishedTable {
            files: self.done,
            input: self.input,
            max_source_time_us: self.max_source_time_us,
            min_source_time_us: self.min_source_time_us,
            fold: self.keys.fold(),
            truncate: self.truncate,
        })
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray, Int64Array, StringArray};
    use arrow::datatypes::Int64Type;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

    use super::*;
    use crate::batch::Seq;
    use crate::config::Compression;
    use crate::contract::{Column, Type};
    use crate::progress::Partition;

    /// Rows of these numbers, each of a kilobyte that does not pack.
    fn changes(contract: &Arc<Contract>, ids: std::ops::Range<i64>) -> TableChanges {
        let text =
            |id: i64| (0..256).map(|n| format!("{:04x}", (id * 7919 + n * n * 104_729) & 0xFFFF)).collect::<String>();
        let texts: ArrayRef = Arc::new(StringArray::from_iter_values(ids.clone().map(text)));
        let count = ids.clone().count();
        let columns: Vec<ArrayRef> = vec![Arc::new(Int64Array::from_iter_values(ids)), texts];
        TableChanges {
            contract: Arc::clone(contract),
            partition: Partition::new("s", "t/0"),
            rows: RecordBatch::try_new(contract.output.arrow(), columns).expect("a batch"),
            ops: vec![Op::Create; count],
            seqs: vec![Seq::default(); count],
            source_times_us: vec![NO_TIME; count],
            unchanged: vec![None; 2],
            old_keys: None,
        }
    }

    #[test]
    fn what_is_large_goes_into_several_files_in_order() {
        let columns = vec![Column::new("id", Type::BigInt), Column::new("doc", Type::Json)];
        let schema = TableSchema { columns, key: vec!["id".into()] };
        let contract =
            Arc::new(Contract { table: "t".into(), version: 1, input: schema.clone(), output: schema.clone() });
        for streamed in [true, false] {
            let writer = TableWriter::new(&contract, form::properties(Compression::Snappy), streamed);
            let mut writer = TableWriter { file_bytes: 64 << 10, ..writer };
            for from in (0..400).step_by(20) {
                writer.write(&changes(&contract, from..from + 20)).expect("written");
                writer.write_group().expect("written");
            }
            let done = writer.finish().expect("finished");
            let mut ids = Vec::new();
            for (file, output) in &done.files {
                assert_eq!(output, &schema);
                assert!(file.body.len() < 128 << 10, "{streamed}: {}", file.body.len());
                let reader = ParquetRecordBatchReaderBuilder::try_new(file.body.clone()).and_then(|b| b.build());
                for batch in reader.expect("Parquet") {
                    ids.extend(batch.expect("rows").column(0).as_primitive::<Int64Type>().values().to_vec());
                }
            }
            assert_eq!(ids, (0..400).collect::<Vec<_>>(), "{streamed}");
            assert!((4..=8).contains(&done.files.len()), "{streamed}: {}", done.files.len());
            assert!(!done.fold, "no key comes twice, whichever file it is in");
        }
    }
}
