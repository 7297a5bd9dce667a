//! A table's folded rows as the Parquet file that COPY loads into its stage. Columns stand in the order of
//! [`stage_columns`](super::sql::stage_columns), because COPY matches them by position.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, Int16Array, Int64Array, PrimitiveArray, RecordBatch, StringArray,
    StringBuilder, TimestampMicrosecondArray, new_null_array,
};
use arrow::compute::{filter_record_batch, interleave};
use arrow::datatypes::{
    DataType, Decimal128Type, Decimal256Type, DecimalType, Field, Schema, SchemaRef, Time64MicrosecondType, TimeUnit,
    TimestampMicrosecondType,
};
use bytes::Bytes;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::Compression;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;

use super::attributes::with_last_attributes;
use super::documents::{Kinds, marked_as_json};
use super::parts::Part;
use super::sql::{Documents, StageForm, StageKind};
use super::types::LIMITS;
use crate::batch::{Seq, TableChanges};
use crate::contract::{Column, Type, is_in_range};
use crate::epoch::TableLoad;
use crate::error::{Error, ErrorKind, Result};
use crate::warehouse::merge::{StageColumn, base_column};
use crate::warehouse::names::{PARTITION, SEQ};
use crate::warehouse::shape::StageRows;

/// What the end of a file takes, about.
const FOOTER_BYTES: usize = 64 << 10;

/// A file that is to be staged.
pub(super) struct Staged {
    pub body: Bytes,
    pub rows: u64,
    /// What its documents are, where they are staged as such.
    pub documents: Kinds,
}

/// Writes a part of the rows of `load`. `marked`: tombstones matter. `floor`: older rows of a table without a key are left
/// out.
pub(super) fn encode(
    load: &TableLoad,
    part: &Part,
    form: StageForm,
    marked: bool,
    floor: Option<Seq>,
) -> Result<Staged> {
    let StageForm { kind, documents } = form;
    let layout = layout(load, kind);
    let mut writer = writer(&layout, load, documents).map_err(|error| unwritable(load, error))?;
    let (mut number, mut rows, mut kinds) = (part.first, 0u64, Kinds::of(&load.contract.output));
    for changes in &part.rows {
        let mut columns = data_columns(load, changes, documents)?;
        columns.push(Arc::new(StringArray::from_iter_values(changes.seqs.iter().map(Seq::to_string))));
        match kind {
            StageKind::Plain => {}
            StageKind::Append => {
                let partition = changes.partition.to_string();
                columns.push(Arc::new(StringArray::from_iter_values(std::iter::repeat_n(partition, changes.len()))));
            }
            StageKind::Merge => columns.extend(meta_columns(load, changes, marked, number)?),
        }
        number += changes.len() as i64;
        let mut batch = RecordBatch::try_new(Arc::clone(&layout), columns).map_err(|error| unwritable(load, error))?;
        if let (StageKind::Append, Some(floor)) = (kind, floor) {
            let stays: BooleanArray = changes.seqs.iter().map(|seq| Some(*seq >= floor)).collect();
            batch = filter_record_batch(&batch, &stays).map_err(|error| unwritable(load, error))?;
        }
        rows += batch.num_rows() as u64;
        if documents == Documents::Whole {
            kinds.count(&batch);
        }
        writer.write(&batch).map_err(|error| unwritable(load, error))?;
    }
    // What grows while it is appended is copied again and again.
    let size = writer.in_progress_size();
    writer.inner_mut().reserve_exact(size + size / 8 + FOOTER_BYTES);
    let body = writer.into_inner().map_err(|error| unwritable(load, error))?.into();
    Ok(Staged { body, rows, documents: kinds })
}

/// What Redshift reads for certain: the first version of the format, Snappy inside, whatever the name ends in.
fn writer(
    layout: &SchemaRef,
    load: &TableLoad,
    documents: Documents,
) -> Result<ArrowWriter<Vec<u8>>, parquet::errors::ParquetError> {
    let mut properties = WriterProperties::builder()
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_created_by(format!("dataflow {}", env!("CARGO_PKG_VERSION")))
        .set_compression(Compression::SNAPPY)
        .set_column_dictionary_enabled(ColumnPath::from(SEQ), false);
    let output = &load.contract.output;
    if documents == Documents::Whole {
        for column in output.columns.iter().filter(|column| column.data_type == Type::Json) {
            let path = ColumnPath::from(column.name.as_str());
            // The first and the last of such documents say nothing, and would be kept for every page.
            properties = properties.set_column_dictionary_enabled(path.clone(), false);
            properties = properties.set_column_statistics_enabled(path, EnabledStatistics::None);
        }
        // Whether a page is full is looked at after every row: a thousand of such documents are more than a page may have.
        properties = properties.set_write_batch_size(1);
    }
    let mut options = ArrowWriterOptions::new().with_properties(properties.build());
    if documents == Documents::Whole {
        options = options.with_parquet_schema(marked_as_json(&ArrowSchemaConverter::new().convert(layout)?, output)?);
    }
    ArrowWriter::try_new_with_options(Vec::new(), Arc::clone(layout), options)
}

fn unwritable(load: &TableLoad, error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::new(ErrorKind::Internal, format!("write the stage of table {}", load.contract.table)).because(error)
}

fn layout(load: &TableLoad, kind: StageKind) -> SchemaRef {
    let output = &load.contract.output;
    let field = |name: &str, data_type: DataType| Field::new(name, data_type, true);
    let mut fields: Vec<Field> = output.columns.iter().map(|c| field(&c.name, stage_arrow(c.data_type))).collect();
    fields.push(field(SEQ, DataType::Utf8));
    match kind {
        StageKind::Plain => {}
        StageKind::Append => fields.push(field(PARTITION, DataType::Utf8)),
        StageKind::Merge => {
            fields.extend(StageColumn::ALL.map(|column| {
                let data_type = match column {
                    StageColumn::Row => DataType::Int64,
                    StageColumn::Time => DataType::Timestamp(TimeUnit::Microsecond, None),
                    StageColumn::State => DataType::Int16,
                    _ => DataType::Utf8,
                };
                field(column.name(), data_type)
            }));
            let key = output.key_indices().into_iter().enumerate();
            fields.extend(key.map(|(part, i)| field(&base_column(part), stage_arrow(output.columns[i].data_type))));
        }
    }
    Arc::new(Schema::new(fields))
}

/// How a column of the stage stands in the file.
fn stage_arrow(data_type: Type) -> DataType {
    match data_type {
        Type::TimestampTz => DataType::Timestamp(TimeUnit::Microsecond, None),
        Type::Time => DataType::Utf8,
        Type::Decimal { precision, scale } => match LIMITS.decimal(precision, scale) {
            Some((precision, scale)) => DataType::Decimal128(precision, scale),
            None => DataType::Utf8,
        },
        other => other.arrow(),
    }
}

fn staged(data_type: Type, array: &ArrayRef) -> ArrayRef {
    match data_type {
        Type::TimestampTz => {
            Arc::new(array.as_primitive::<TimestampMicrosecondType>().clone().with_timezone_opt(None::<Arc<str>>))
        }
        Type::Time => {
            let times = array.as_primitive::<Time64MicrosecondType>();
            Arc::new(times.iter().map(|time| time.map(time_text)).collect::<StringArray>())
        }
        Type::Decimal { precision, scale } => match (LIMITS.decimal(precision, scale), array.data_type()) {
            (Some((precision, scale)), _) => {
                let numbers = array.as_primitive::<Decimal128Type>().clone();
                Arc::new(numbers.with_data_type(DataType::Decimal128(precision, scale)))
            }
            (None, DataType::Decimal256(..)) => decimal_texts(array.as_primitive::<Decimal256Type>()),
            (None, _) => decimal_texts(array.as_primitive::<Decimal128Type>()),
        },
        _ => Arc::clone(array),
    }
}

fn decimal_texts<T: DecimalType>(numbers: &PrimitiveArray<T>) -> ArrayRef {
    let text = |row: usize| numbers.is_valid(row).then(|| numbers.value_as_string(row));
    Arc::new((0..numbers.len()).map(text).collect::<StringArray>())
}

/// `hh:mm:ss.ffffff`; 24:00:00 is a time of day too.
fn time_text(micros: i64) -> String {
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    format!("{:02}:{:02}:{:02}.{micros:06}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// The data columns. What Redshift cannot hold was refused when it was read; a lake that was written for another
/// warehouse may have it all the same, and COPY takes all rows or none: every value is proven to load.
fn data_columns(load: &TableLoad, changes: &TableChanges, documents: Documents) -> Result<Vec<ArrayRef>> {
    let output = &load.contract.output;
    let mut columns = Vec::with_capacity(output.columns.len());
    for (column, array) in output.columns.iter().zip(changes.rows.columns()) {
        prove(load, changes, column, array)?;
        columns.push(match (column.data_type, documents) {
            (Type::Json, Documents::Whole) => with_last_attributes(array),
            (data_type, _) => staged(data_type, array),
        });
    }
    let of_key = output.key_indices();
    let key: Vec<(Type, &ArrayRef)> =
        of_key.iter().map(|index| (output.columns[*index].data_type, changes.rows.column(*index))).collect();
    for row in (0..changes.len()).filter(|_| !key.is_empty()) {
        if let Some(why) = LIMITS.key_refusal(&key, row) {
            return Err(refused(load, &output.key.join(", "), changes.seqs[row], &why));
        }
    }
    for (index, array) in of_key.iter().zip(changes.old_keys.iter().flat_map(RecordBatch::columns)) {
        prove(load, changes, &output.columns[*index], array)?;
    }
    Ok(columns)
}

fn prove(load: &TableLoad, changes: &TableChanges, column: &Column, array: &ArrayRef) -> Result<()> {
    if !LIMITS.bounds(column.data_type) {
        return Ok(());
    }
    let refusal = |row: usize| Some((row, LIMITS.refusal(column.data_type, array, row)?));
    match (0..changes.len()).find_map(refusal) {
        Some((row, why)) => Err(refused(load, &column.name, changes.seqs[row], &why)),
        None => Ok(()),
    }
}

/// The columns of [`StageColumn`] and the base's key.
fn meta_columns(load: &TableLoad, changes: &TableChanges, marked: bool, first: i64) -> Result<Vec<ArrayRef>> {
    let rows = StageRows::new(load, changes, marked);
    let count = changes.len();
    let keys = rows.key_texts(0..count)?;
    let unchanged: Vec<Option<String>> = (0..count).map(|row| rows.unchanged(row)).collect();
    let key = |row: usize| keys.as_ref().map(|keys| keys[row].own.as_str());
    let base_key = |row: usize| keys.as_ref().map(|keys| keys[row].base.as_str()).filter(|_| unchanged[row].is_some());
    let (mut base_seqs, mut arrived) = (StringBuilder::new(), StringBuilder::new());
    for (row, partial) in unchanged.iter().enumerate() {
        let [base, came] = if partial.is_some() { rows.base_seqs(row).map(Some) } else { [None, None] };
        base_seqs.append_option(base);
        arrived.append_option(came);
    }
    // No time that a clock has shown lies outside, nor does the sign of none.
    let times = changes.source_times_us.iter().map(|time| Some(*time).filter(|time| is_in_range(*time)));
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(Int64Array::from_iter_values(first..first + count as i64)),
        Arc::new(StringArray::from_iter_values((0..count).map(|row| rows.op(row)))),
        Arc::new(times.collect::<TimestampMicrosecondArray>()),
        Arc::new(unchanged.iter().map(Option::as_deref).collect::<StringArray>()),
        Arc::new((0..count).map(key).collect::<StringArray>()),
        Arc::new((0..count).map(base_key).collect::<StringArray>()),
        Arc::new(base_seqs.finish()),
        Arc::new(arrived.finish()),
        Arc::new(Int16Array::from_iter_values((0..count).map(|row| rows.state(row, unchanged[row].is_some())))),
    ];
    columns.extend(base_columns(load, &rows, &unchanged)?);
    Ok(columns)
}

/// The key of the row that each partial row stands on; null for whole ones.
fn base_columns(load: &TableLoad, rows: &StageRows<'_>, unchanged: &[Option<String>]) -> Result<Vec<ArrayRef>> {
    let output = &load.contract.output;
    let (changes, mut columns) = (rows.changes, Vec::new());
    for (part, index) in output.key_indices().into_iter().enumerate() {
        let own = changes.rows.column(index);
        let none = new_null_array(own.data_type(), 1);
        let old = changes.old_keys.as_ref().map_or(&none, |old| old.column(part));
        let choose = |(row, partial): (usize, &Option<String>)| match partial {
            None => (2, 0),
            Some(_) if rows.has_old_key(row) => (1, row),
            Some(_) => (0, row),
        };
        let from: Vec<(usize, usize)> = unchanged.iter().enumerate().map(choose).collect();
        let base =
            interleave(&[own.as_ref(), old.as_ref(), none.as_ref()], &from).map_err(|error| unwritable(load, error))?;
        columns.push(staged(output.columns[index].data_type, &base));
    }
    Ok(columns)
}

fn refused(load: &TableLoad, column: &str, seq: Seq, why: &str) -> Error {
    let table = &load.contract.table;
    Error::new(
        ErrorKind::Table(table.clone()),
        format!("Redshift cannot hold a value of {table}.{column} (the change with _seq {seq}): {why}"),
    )
    .help("replace such values with a `compute` operator, refuse them with `validate`, or `drop` the column")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_day_sort_like_their_text() {
        assert_eq!(time_text(0), "00:00:00.000000");
        assert_eq!(time_text(86_400_000_000), "24:00:00.000000");
        assert_eq!(time_text(3_723_000_045), "01:02:03.000045");
    }
}
