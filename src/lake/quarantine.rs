//! What was refused: one Parquet file per epoch that has something. Payloads are kept only encrypted.

use std::collections::BTreeMap;

use arrow::array::{
    Array, AsArray, BinaryBuilder, BooleanBuilder, Int64Builder, RecordBatch, StringBuilder,
    TimestampMicrosecondBuilder,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType};
use chrono::{DateTime, Utc};
use std::sync::Arc;
use ulid::Ulid;

use super::crypt::{FileKey, MasterKey};
use super::form::{self, time_type};
use super::raw::{headers_from_json, headers_to_json};
use super::table_writer::{LocalFile, OpenFile};
use super::{Lake, read, unreadable};
use crate::batch::{NO_TIME, Op, RawRecord, Reject, Seq};
use crate::config::Compression;
use crate::epoch::DataFile;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Partition;

/// Entries that are collected before they are encoded, or bytes of them.
const SLICE_ROWS: usize = 4096;
const SLICE_BYTES: usize = 4 << 20;

/// The columns of a quarantine file. `payload_*` hold nonce, ciphertext and tag.
fn layout() -> SchemaRef {
    let text = |name: &str, nullable| Field::new(name, DataType::Utf8, nullable);
    Arc::new(Schema::new(vec![
        text("table", true),
        text("partition", false),
        text("seq", false),
        text("rule", false),
        text("reason", false),
        text("op", true),
        text("key", true),
        text("values", true),
        Field::new("source_time", time_type(), true),
        Field::new("has_payload", DataType::Boolean, false),
        Field::new("payload_offset", DataType::Int64, true),
        Field::new("payload_time", time_type(), true),
        Field::new("payload_key", DataType::Binary, true),
        Field::new("payload_value", DataType::Binary, true),
        Field::new("payload_headers", DataType::Binary, true),
        Field::new("rejected_at", time_type(), false),
        text("attempt", false),
    ]))
}

/// The name under which a payload's headers hold what its record says nothing without.
const DESCRIBED: &[u8] = b"dataflow-described";

/// Where the key of a quarantine file comes from.
fn salt(attempt: &str) -> String {
    format!("quarantine/{attempt}")
}

/// What authenticates a payload's place.
fn place(partition: &str, offset: u64, part: &str) -> String {
    format!("{partition}/{offset}/{part}")
}

#[derive(Default)]
struct Columns {
    texts: [StringBuilder; 8],
    source_time: TimestampMicrosecondBuilder,
    has_payload: BooleanBuilder,
    payload_offset: Int64Builder,
    payload_time: TimestampMicrosecondBuilder,
    payload_key: BinaryBuilder,
    payload_value: BinaryBuilder,
    payload_headers: BinaryBuilder,
    rejected_at: TimestampMicrosecondBuilder,
    attempt: StringBuilder,
    rows: usize,
    bytes: usize,
}

impl Columns {
    fn finish(&mut self) -> Result<RecordBatch> {
        let utc = |builder: &mut TimestampMicrosecondBuilder| Arc::new(builder.finish().with_timezone("UTC"));
        let mut columns: Vec<arrow::array::ArrayRef> = Vec::with_capacity(17);
        columns.extend(self.texts.iter_mut().map(|b| Arc::new(b.finish()) as _));
        columns.push(utc(&mut self.source_time));
        columns.push(Arc::new(self.has_payload.finish()));
        columns.push(Arc::new(self.payload_offset.finish()));
        columns.push(utc(&mut self.payload_time));
        columns.push(Arc::new(self.payload_key.finish()));
        columns.push(Arc::new(self.payload_value.finish()));
        columns.push(Arc::new(self.payload_headers.finish()));
        columns.push(utc(&mut self.rejected_at));
        columns.push(Arc::new(self.attempt.finish()));
        (self.rows, self.bytes) = (0, 0);
        RecordBatch::try_new(layout(), columns)
            .map_err(|error| Error::new(ErrorKind::Internal, "write quarantine entries").because(error))
    }
}

/// Collects what an epoch refuses.
pub(super) struct QuarantineWriter {
    attempt: Ulid,
    key: Option<FileKey>,
    compression: Compression,
    columns: Columns,
    open: Option<OpenFile>,
    by_table: BTreeMap<String, u64>,
}

impl QuarantineWriter {
    pub fn new(attempt: Ulid, key: Option<&MasterKey>, compression: Compression) -> Self {
        Self {
            attempt,
            key: key.map(|key| key.for_file(&salt(&attempt.to_string()))),
            compression,
            columns: Columns::default(),
            open: None,
            by_table: BTreeMap::new(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.by_table.is_empty()
    }

    pub fn buffered_bytes(&self) -> usize {
        self.columns.bytes + self.open.as_ref().map_or(0, OpenFile::buffered_bytes)
    }

    pub fn push(&mut self, reject: &Reject, record: Option<RawRecord<'_>>, described: Option<&[u8]>) -> Result<()> {
        let columns = &mut self.columns;
        let partition = reject.partition.to_string();
        let seq = reject.seq.to_string();
        let texts = [
            reject.table.as_deref(),
            Some(partition.as_str()),
            Some(&seq),
            Some(&reject.rule),
            Some(&reject.reason),
            reject.op.map(Op::letter),
            reject.key.as_deref(),
            reject.values.as_deref(),
        ];
        for (builder, text) in columns.texts.iter_mut().zip(texts) {
            builder.append_option(text);
            columns.bytes += text.map_or(0, str::len);
        }
        columns.source_time.append_option(Some(reject.source_time_us).filter(|&time| time != NO_TIME));
        columns.rejected_at.append_value(Utc::now().timestamp_micros());
        columns.attempt.append_value(self.attempt.to_string());
        self.push_payload(&partition, record, described)?;
        *self.by_table.entry(reject.table.clone().unwrap_or_default()).or_default() += 1;
        self.columns.rows += 1;
        if self.columns.rows >= SLICE_ROWS || self.columns.bytes >= SLICE_BYTES { self.flush() } else { Ok(()) }
    }

    fn push_payload(&mut self, partition: &str, record: Option<RawRecord<'_>>, described: Option<&[u8]>) -> Result<()> {
        let columns = &mut self.columns;
        let (Some(record), Some(key)) = (record, &self.key) else {
            columns.has_payload.append_value(false);
            columns.payload_offset.append_null();
            columns.payload_time.append_null();
            columns.payload_key.append_null();
            columns.payload_value.append_null();
            columns.payload_headers.append_null();
            return Ok(());
        };
        let offset = record.offset();
        let seal = |part: &str, plain: Option<&[u8]>| {
            plain.map(|plain| key.seal(&place(partition, offset, part), plain)).transpose()
        };
        let (sealed_key, sealed_value) = (seal("key", record.key())?, seal("value", record.value())?);
        let headers = headers_to_json(record.headers().chain(described.map(|text| (DESCRIBED, Some(text)))));
        let sealed_headers = seal("headers", headers.as_deref().map(str::as_bytes))?;
        columns.has_payload.append_value(true);
        columns.payload_offset.append_value(offset as i64);
        columns.payload_time.append_option(Some(record.timestamp_us()).filter(|&time| time != NO_TIME));
        columns.bytes += [&sealed_key, &sealed_value, &sealed_headers]
            .iter()
            .filter_map(|s| s.as_ref().map(Vec::len))
            .sum::<usize>();
        columns.payload_key.append_option(sealed_key);
        columns.payload_value.append_option(sealed_value);
        columns.payload_headers.append_option(sealed_headers);
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        if self.columns.rows == 0 {
            return Ok(());
        }
        let batch = self.columns.finish()?;
        if self.open.is_none() {
            self.open = Some(OpenFile::begin(layout(), form::properties(self.compression))?);
        }
        self.open.as_mut().map_or(Ok(()), |open| open.write(&batch))
    }

    /// The file and its entries by table, when there is something.
    pub fn finish(mut self) -> Result<Option<(LocalFile, BTreeMap<String, u64>)>> {
        self.flush()?;
        let file = self.open.map(OpenFile::finish).transpose()?;
        Ok(file.map(|file| (file, self.by_table)))
    }
}

/// What a refused record was made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// None was kept: no key was configured, or there was no record.
    Absent,
    /// It is there, but not under the configured key (or none is configured).
    Locked,
    /// The record.
    Open {
        /// Its place in the partition.
        offset: u64,
        /// The transport's time, microseconds since 1970, or [`NO_TIME`].
        timestamp_us: i64,
        /// The key's bytes.
        key: Option<Vec<u8>>,
        /// The value's bytes.
        value: Option<Vec<u8>>,
        /// Names and values.
        headers: Vec<(String, Option<Vec<u8>>)>,
    },
}

impl Payload {
    /// What the record says nothing without: see [`Described`](crate::batch::Described).
    pub fn described(&self) -> Option<&[u8]> {
        let Self::Open { headers, .. } = self else { return None };
        headers.iter().find(|(name, _)| name.as_bytes() == DESCRIBED).and_then(|(_, text)| text.as_deref())
    }
}

/// A quarantined entry as it is kept.
#[derive(Debug, Clone)]
pub struct StoredReject {
    /// Its row in the file: with the epoch, its name in [`Control::Retried`](crate::epoch::Control::Retried).
    pub row: u64,
    /// What was refused and why.
    pub reject: Reject,
    /// What it was made of.
    pub payload: Payload,
    /// When it was refused, by the writer's clock.
    pub rejected_at: DateTime<Utc>,
}

impl Lake {
    /// The entries of a quarantine file in order, payloads decrypted as far as the configured key opens them.
    pub async fn read_rejects(&self, file: &DataFile) -> Result<Vec<StoredReject>> {
        let body = self.fetch(file).await?;
        let mut entries = Vec::new();
        for batch in read::batches(file, body)? {
            let batch = batch.map_err(|error| unreadable(file, error))?;
            if batch.schema().fields() != layout().fields() {
                return Err(unreadable(file, "its columns are not those of a quarantine file"));
            }
            let reader = EntryReader::new(file, &batch, self.settings.quarantine_key.as_ref());
            for row in 0..batch.num_rows() {
                entries.push(reader.entry(row, entries.len() as u64)?);
            }
        }
        Ok(entries)
    }
}

struct EntryReader<'a> {
    file: &'a DataFile,
    batch: &'a RecordBatch,
    key: Option<FileKey>,
}

impl<'a> EntryReader<'a> {
    fn new(file: &'a DataFile, batch: &'a RecordBatch, key: Option<&MasterKey>) -> Self {
        let attempts = batch.column(16).as_string::<i32>();
        let attempt = if attempts.is_empty() { "" } else { attempts.value(0) };
        Self { file, batch, key: key.map(|key| key.for_file(&salt(attempt))) }
    }

    fn text(&self, column: usize, row: usize) -> Option<&'a str> {
        let array = self.batch.column(column).as_string::<i32>();
        array.is_valid(row).then(|| array.value(row))
    }

    fn time(&self, column: usize, row: usize) -> i64 {
        let array = self.batch.column(column).as_primitive::<TimestampMicrosecondType>();
        if array.is_valid(row) { array.value(row) } else { NO_TIME }
    }

    fn entry(&self, row: usize, number: u64) -> Result<StoredReject> {
        let wrong = |what: &str| unreadable(self.file, format!("row {row} has no valid {what}"));
        let owned = |column: usize| self.text(column, row).map(str::to_owned);
        let partition = self.text(1, row).unwrap_or_default();
        let (source, name) = partition.split_once(':').ok_or_else(|| wrong("partition"))?;
        let reject = Reject {
            table: owned(0),
            partition: Partition::new(source, name),
            seq: self.text(2, row).and_then(Seq::parse).ok_or_else(|| wrong("seq"))?,
            rule: owned(3).unwrap_or_default(),
            reason: owned(4).unwrap_or_default(),
            op: self.text(5, row).map(|letter| Op::from_letter(letter).ok_or_else(|| wrong("op"))).transpose()?,
            key: owned(6),
            values: owned(7),
            source_time_us: self.time(8, row),
        };
        let rejected_at = DateTime::from_timestamp_micros(self.time(15, row)).ok_or_else(|| wrong("rejected_at"))?;
        Ok(StoredReject { row: number, payload: self.payload(partition, row)?, reject, rejected_at })
    }

    fn payload(&self, partition: &str, row: usize) -> Result<Payload> {
        if !self.batch.column(9).as_boolean().value(row) {
            return Ok(Payload::Absent);
        }
        let Some(key) = &self.key else { return Ok(Payload::Locked) };
        let offset = self.batch.column(10).as_primitive::<Int64Type>().value(row) as u64;
        let open = |column: usize, part: &str| {
            let sealed = self.batch.column(column).as_binary::<i32>();
            if sealed.is_null(row) {
                return Some(None);
            }
            key.open(&place(partition, offset, part), sealed.value(row)).map(Some)
        };
        let parts = (open(12, "key"), open(13, "value"), open(14, "headers"));
        let (Some(key), Some(value), Some(headers)) = parts else { return Ok(Payload::Locked) };
        let headers = headers.map_or_else(|| Some(Vec::new()), |json| headers_from_json(&json));
        let headers = headers.ok_or_else(|| unreadable(self.file, format!("row {row} has no valid headers")))?;
        Ok(Payload::Open { offset, timestamp_us: self.time(11, row), key, value, headers })
    }
}
