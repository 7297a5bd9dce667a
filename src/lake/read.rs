//! A `processed` file back to changes, mapped by name onto the newest contract.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, RecordBatchOptions, new_null_array};
use arrow::buffer::{BooleanBuffer, NullBuffer};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Int32Type, TimestampMicrosecondType};
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::form::{OLD, OP, PARTITION, SEQ, SOURCE_TIME, UNCHANGED};
use super::{Lake, unreadable};
use crate::batch::{NO_TIME, Op, Seq, TableChanges};
use crate::contract::{Contract, TableSchema};
use crate::epoch::DataFile;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Partition;

/// Rows of one returned batch at most.
const BATCH_ROWS: usize = 1 << 20;

impl Lake {
    /// The changes of a file in order, their rows in `contract`'s output columns. A column that the file does not have
    /// is null: the source did not have it when the row was written; a narrower type is widened. A new element begins where the
    /// partition changes.
    pub async fn read_changes(&self, file: &DataFile, contract: &Arc<Contract>) -> Result<Vec<TableChanges>> {
        let body = self.fetch(file).await?;
        let (described, contract) = (file.clone(), Arc::clone(contract));
        // Decompression is work for a thread that may block.
        let decoded = tokio::task::spawn_blocking(move || decode(&described, body, &contract)).await;
        decoded.map_err(|error| Error::new(ErrorKind::Internal, format!("read {}", file.path)).because(error))?
    }
}

/// All changes of a file that is in memory.
pub(super) fn decode(file: &DataFile, body: Bytes, contract: &Arc<Contract>) -> Result<Vec<TableChanges>> {
    let mut changes = Vec::new();
    let mut rows = 0;
    for batch in batches(file, body)? {
        let batch = batch.map_err(|error| unreadable(file, error))?;
        rows += batch.num_rows() as u64;
        changes.extend(split(file, &batch, contract)?);
    }
    if rows != file.rows {
        return Err(unreadable(file, format!("it has {rows} rows where its manifest says {}", file.rows)));
    }
    Ok(changes)
}

/// The record batches of a file, as large as reasonable.
pub(super) fn batches(
    file: &DataFile,
    body: Bytes,
) -> Result<impl Iterator<Item = Result<RecordBatch, arrow::error::ArrowError>>> {
    slices(file, body, BATCH_ROWS)
}

/// The record batches of a file, of so many rows at most.
pub(super) fn slices(
    file: &DataFile,
    body: Bytes,
    at_most: usize,
) -> Result<impl Iterator<Item = Result<RecordBatch, arrow::error::ArrowError>>> {
    let rows = (file.rows.max(1) as usize).min(at_most);
    let reader = ParquetRecordBatchReaderBuilder::try_new(body).and_then(|b| b.with_batch_size(rows).build());
    reader.map_err(|error| unreadable(file, error))
}

/// The column of that name and type.
pub(super) fn column<'a>(file: &DataFile, batch: &'a RecordBatch, name: &str) -> Result<&'a ArrayRef> {
    batch.column_by_name(name).ok_or_else(|| unreadable(file, format!("column {name} is missing")))
}

/// A batch's rows as changes; a new element begins where the partition changes.
pub(super) fn split(file: &DataFile, batch: &RecordBatch, contract: &Arc<Contract>) -> Result<Vec<TableChanges>> {
    let whole = Whole::read(file, batch, contract)?;
    let mut changes = Vec::new();
    for (partition, range) in partitions(file, batch)? {
        changes.push(whole.part(contract, partition, range)?);
    }
    Ok(changes)
}

/// Runs of rows of the same partition.
fn partitions(file: &DataFile, batch: &RecordBatch) -> Result<Vec<(Partition, Range<usize>)>> {
    let array = column(file, batch, PARTITION)?;
    let dictionary =
        array.as_dictionary_opt::<Int32Type>().ok_or_else(|| unreadable(file, "its _partition is no dictionary"))?;
    let (keys, values) = (dictionary.keys(), dictionary.values().as_string::<i32>());
    let name = |row: usize| values.value(keys.value(row) as usize);
    let mut runs = Vec::new();
    let mut start = 0;
    for row in 1..=batch.num_rows() {
        if row < batch.num_rows() && (keys.value(row) == keys.value(start) || name(row) == name(start)) {
            continue;
        }
        let text = name(start);
        let (source, partition) =
            text.split_once(':').ok_or_else(|| unreadable(file, format!("`{text}` is no partition")))?;
        runs.push((Partition::new(source, partition), start..row));
        start = row;
    }
    if batch.num_rows() == 0 { Ok(Vec::new()) } else { Ok(runs) }
}

/// A record batch's parts, mapped, before it is split by partition.
struct Whole {
    rows: RecordBatch,
    ops: Vec<Op>,
    seqs: Vec<Seq>,
    source_times_us: Vec<i64>,
    unchanged: Vec<Option<BooleanBuffer>>,
    old_keys: Option<RecordBatch>,
}

impl Whole {
    fn read(file: &DataFile, batch: &RecordBatch, contract: &Contract) -> Result<Self> {
        let text = |name| column(file, batch, name).map(|c| c.as_string_opt::<i32>());
        let wrong = |name: &str| unreadable(file, format!("column {name} is not text"));
        let letters = text(OP)?.ok_or_else(|| wrong(OP))?;
        let seq_texts = text(SEQ)?.ok_or_else(|| wrong(SEQ))?;
        let bits = text(UNCHANGED)?.ok_or_else(|| wrong(UNCHANGED))?;
        let op = |letter: Option<&str>| letter.and_then(Op::from_letter);
        let ops: Option<Vec<Op>> = letters.iter().map(op).collect();
        let seqs: Option<Vec<Seq>> = seq_texts.iter().map(|text| text.and_then(Seq::parse)).collect();
        let (Some(ops), Some(seqs)) = (ops, seqs) else {
            return Err(unreadable(file, "an _op or a _seq is malformed"));
        };
        let times = column(file, batch, SOURCE_TIME)?.as_primitive_opt::<TimestampMicrosecondType>();
        let times = times.ok_or_else(|| unreadable(file, "_source_time is no timestamp"))?;
        let source_times_us = times.iter().map(|time| time.unwrap_or(NO_TIME)).collect();
        let (rows, unchanged) = map_columns(file, batch, &contract.output, bits)?;
        let old_keys = if ops.contains(&Op::Move) { Some(old_keys(file, batch, &contract.output)?) } else { None };
        Ok(Self { rows, ops, seqs, source_times_us, unchanged, old_keys })
    }

    fn part(&self, contract: &Arc<Contract>, partition: Partition, range: Range<usize>) -> Result<TableChanges> {
        let (at, len) = (range.start, range.len());
        let unchanged = self.unchanged.iter().map(|bits| {
            let bits = bits.as_ref().map(|bits| bits.slice(at, len));
            bits.filter(|bits| bits.count_set_bits() > 0)
        });
        let moves = self.ops[range.clone()].contains(&Op::Move);
        Ok(TableChanges {
            contract: Arc::clone(contract),
            partition,
            rows: self.rows.slice(at, len),
            ops: self.ops[range.clone()].to_vec(),
            seqs: self.seqs[range.clone()].to_vec(),
            source_times_us: self.source_times_us[range].to_vec(),
            unchanged: unchanged.collect(),
            old_keys: self.old_keys.as_ref().filter(|_| moves).map(|old| old.slice(at, len)),
        })
    }
}

type Mapped = (RecordBatch, Vec<Option<BooleanBuffer>>);

fn map_columns(
    file: &DataFile,
    batch: &RecordBatch,
    output: &TableSchema,
    bits: &arrow::array::StringArray,
) -> Result<Mapped> {
    let partial = bits.null_count() < bits.len();
    let mut columns = Vec::with_capacity(output.columns.len());
    let mut unchanged = Vec::with_capacity(output.columns.len());
    for wanted in &output.columns {
        let data_type = wanted.data_type.arrow();
        match batch.schema().index_of(&wanted.name) {
            Ok(index) => {
                columns.push(widen(file, &wanted.name, batch.column(index), &data_type)?);
                unchanged.push(if partial { marked(file, bits, index)? } else { None });
            }
            Err(_) => {
                columns.push(new_null_array(&data_type, batch.num_rows()));
                // The source had no such column then: the row is whole without it.
                unchanged.push(None);
            }
        }
    }
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    let rows = RecordBatch::try_new_with_options(output.arrow(), columns, &options);
    Ok((rows.map_err(|error| unreadable(file, error))?, unchanged))
}

/// The rows in which the file's column `index` is unchanged.
fn marked(file: &DataFile, bits: &arrow::array::StringArray, index: usize) -> Result<Option<BooleanBuffer>> {
    let mut marks = Vec::with_capacity(bits.len());
    for text in bits {
        match text.map(|text| text.as_bytes().get(index)) {
            None => marks.push(false),
            Some(Some(mark)) => marks.push(*mark == b'1'),
            Some(None) => return Err(unreadable(file, "an _unchanged is too short")),
        }
    }
    let marks = BooleanBuffer::from(marks);
    Ok((marks.count_set_bits() > 0).then_some(marks))
}

fn old_keys(file: &DataFile, batch: &RecordBatch, output: &TableSchema) -> Result<RecordBatch> {
    let mut fields = Vec::with_capacity(output.key.len());
    let mut columns = Vec::with_capacity(output.key.len());
    for index in output.key_indices() {
        let wanted = &output.columns[index];
        let found = column(file, batch, &format!("{OLD}{}", wanted.name))?;
        columns.push(widen(file, &wanted.name, found, &wanted.data_type.arrow())?);
        fields.push(Arc::clone(&output.arrow().fields()[index]));
    }
    let schema = Arc::new(arrow::datatypes::Schema::new(fields));
    RecordBatch::try_new(schema, columns).map_err(|error| unreadable(file, error))
}

fn widen(file: &DataFile, name: &str, array: &ArrayRef, wanted: &DataType) -> Result<ArrayRef> {
    if array.data_type() == wanted {
        return Ok(Arc::clone(array));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let widened = cast_with_options(array, wanted, &options).map_err(|error| {
        unreadable(file, format!("column {name} of type {} is not {wanted}: {error}", array.data_type()))
    })?;
    let nulls = |a: &dyn Array| a.nulls().map_or(0, NullBuffer::null_count);
    if nulls(&widened) != nulls(array) {
        return Err(unreadable(file, format!("column {name} loses values as {wanted}")));
    }
    Ok(widened)
}
