//! The Parquet form of a `processed` file.
//!
//! | columns | type | meaning |
//! |---|---|---|
//! | the contract's output columns, in order | as [`Type::arrow`](crate::contract::Type::arrow) | the values; all nullable |
//! | `_op` | utf8 | [`Op::letter`]: `r c u m d t x` |
//! | `_seq` | utf8, 48 characters | [`Seq`](crate::batch::Seq) |
//! | `_partition` | utf8, dictionary | `<source>:<name>` |
//! | `_source_time` | timestamp(us, UTC), nullable | commit time at the source |
//! | `_unchanged` | utf8, nullable | one character per data column of this file, `1` = unchanged; null = the row is whole |
//! | `_old_<key>` | as the key column | only in files with moves: the key that the row had |
//!
//! Parquet 1.0 pages, statistics on, row groups of at most 1,048,576 rows or 128 MiB, microsecond times.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, DictionaryArray, Int32Array, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray,
};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Int32Type, Schema, SchemaRef, TimeUnit};
use parquet::basic::{Compression as Codec, ZstdLevel};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;

use crate::batch::{NO_TIME, Op, Seq, TableChanges};
use crate::config::Compression;
use crate::contract::TableSchema;
use crate::error::{Error, ErrorKind, Result};

pub(super) const OP: &str = "_op";
pub(super) const SEQ: &str = "_seq";
pub(super) const PARTITION: &str = "_partition";
pub(super) const SOURCE_TIME: &str = "_source_time";
pub(super) const UNCHANGED: &str = "_unchanged";
/// In front of a key column's name.
pub(super) const OLD: &str = "_old_";

const ROW_GROUP_ROWS: usize = 1 << 20;
const ROW_GROUP_BYTES: usize = 128 << 20;

/// The columns of a file of that output.
pub(super) fn layout(output: &TableSchema, moves: bool) -> SchemaRef {
    let mut fields: Vec<Arc<Field>> = output.arrow().fields().iter().cloned().collect();
    let dictionary = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    fields.push(Arc::new(Field::new(OP, DataType::Utf8, false)));
    fields.push(Arc::new(Field::new(SEQ, DataType::Utf8, false)));
    fields.push(Arc::new(Field::new(PARTITION, dictionary, false)));
    fields.push(Arc::new(Field::new(SOURCE_TIME, time_type(), true)));
    fields.push(Arc::new(Field::new(UNCHANGED, DataType::Utf8, true)));
    if moves {
        for column in output.key.iter().filter_map(|name| output.column(name)) {
            fields.push(Arc::new(Field::new(format!("{OLD}{}", column.name), column.data_type.arrow(), true)));
        }
    }
    Arc::new(Schema::new(fields))
}

/// The type of [`SOURCE_TIME`].
pub(super) fn time_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// How files are written.
pub(super) fn properties(compression: Compression) -> WriterProperties {
    let codec = match compression {
        Compression::Snappy => Codec::SNAPPY,
        Compression::Zstd => Codec::ZSTD(ZstdLevel::default()),
    };
    WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by(format!("dataflow {}", env!("CARGO_PKG_VERSION")))
        .set_compression(codec)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_column_dictionary_enabled(ColumnPath::from(SEQ), false)
        .set_max_row_group_row_count(Some(ROW_GROUP_ROWS))
        .set_max_row_group_bytes(Some(ROW_GROUP_BYTES))
        .build()
}

/// Changes as rows of a file with that layout.
pub(super) fn encode(changes: &TableChanges, layout: &SchemaRef) -> Result<RecordBatch> {
    let mut columns: Vec<ArrayRef> = changes.rows.columns().to_vec();
    columns.push(Arc::new(ops(&changes.ops)?));
    columns.push(Arc::new(seqs(&changes.seqs)?));
    columns.push(partition(changes)?);
    columns.push(Arc::new(times(&changes.source_times_us)));
    columns.push(Arc::new(unchanged(changes)));
    if columns.len() < layout.fields().len() {
        columns.extend(old_keys(changes, &layout.fields()[columns.len()..])?);
    }
    RecordBatch::try_new(Arc::clone(layout), columns).map_err(|error| {
        let what =
            format!("table {}: rows do not follow contract {}", changes.contract.table, changes.contract.version);
        Error::new(ErrorKind::Internal, what).because(error)
    })
}

fn ops(ops: &[Op]) -> Result<StringArray> {
    // The letter of an operation is its byte.
    even_text(ops.iter().map(|op| *op as u8).collect(), 1)
}

fn seqs(seqs: &[Seq]) -> Result<StringArray> {
    let mut text = vec![0; seqs.len() * Seq::WIDTH];
    let (places, _) = text.as_chunks_mut::<{ Seq::WIDTH }>();
    for (seq, place) in seqs.iter().zip(places) {
        seq.write(place);
    }
    even_text(text, Seq::WIDTH)
}

/// Texts of one length, one behind the other.
fn even_text(text: Vec<u8>, width: usize) -> Result<StringArray> {
    let failed = |error| Error::new(ErrorKind::Internal, "write the columns of the change log").because(error);
    let offsets = OffsetBuffer::from_repeated_length(width, text.len() / width);
    StringArray::try_new(offsets, text.into(), None).map_err(failed)
}

fn partition(changes: &TableChanges) -> Result<ArrayRef> {
    let keys = Int32Array::from(vec![0; changes.len()]);
    let values: ArrayRef = Arc::new(StringArray::from(vec![changes.partition.to_string()]));
    let array = DictionaryArray::<Int32Type>::try_new(keys, values)
        .map_err(|error| Error::new(ErrorKind::Internal, "write the partition column").because(error))?;
    Ok(Arc::new(array))
}

fn times(times_us: &[i64]) -> TimestampMicrosecondArray {
    let times: TimestampMicrosecondArray = match times_us.contains(&NO_TIME) {
        true => times_us.iter().map(|&time| (time != NO_TIME).then_some(time)).collect(),
        false => times_us.to_vec().into(),
    };
    times.with_timezone("UTC")
}

fn unchanged(changes: &TableChanges) -> StringArray {
    let columns = changes.rows.num_columns();
    if changes.unchanged.iter().all(Option::is_none) {
        return StringArray::new_null(changes.len());
    }
    let mut builder = StringBuilder::with_capacity(changes.len(), changes.len() * columns);
    let mut bits = String::with_capacity(columns);
    for row in 0..changes.len() {
        bits.clear();
        bits.extend((0..columns).map(|column| if changes.is_unchanged(column, row) { '1' } else { '0' }));
        builder.append_option(bits.contains('1').then_some(bits.as_str()));
    }
    builder.finish()
}

fn old_keys(changes: &TableChanges, fields: &[Arc<Field>]) -> Result<Vec<ArrayRef>> {
    let Some(old) = &changes.old_keys else {
        return Ok(fields.iter().map(|field| arrow::array::new_null_array(field.data_type(), changes.len())).collect());
    };
    if old.num_columns() == fields.len() {
        return Ok(old.columns().to_vec());
    }
    let table = &changes.contract.table;
    Err(Error::new(ErrorKind::Internal, format!("table {table}: old keys have {} columns", old.num_columns())))
}

/// Whether a row moves.
pub(super) fn has_moves(changes: &TableChanges) -> bool {
    changes.ops.contains(&Op::Move)
}
