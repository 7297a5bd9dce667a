//! Payloads as they were read, one Parquet file per epoch, when the topology keeps them: plain or encrypted.

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryBuilder, Int64Builder, RecordBatch, StringBuilder, TimestampMicrosecondBuilder,
    UInt32Builder,
};
use arrow::datatypes::{DataType, Field, Int64Type, Schema, SchemaRef, TimestampMicrosecondType, UInt32Type};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use object_store::ObjectMeta;
use parquet::arrow::arrow_reader::{ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder};
use serde::{Deserialize, Serialize};
use ulid::Ulid;

use super::crypt::{FileKey, MasterKey};
use super::form::{self, time_type};
use super::store::place as place_in_store;
use super::table_writer::{LocalFile, OpenFile};
use super::{ARCHIVE, Lake, unreadable};
use crate::batch::{NO_TIME, RawBatch, RawRecords};
use crate::config::{Compression, RawKeep};
use crate::epoch::DataFile;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Partition, Position, Span};

/// Bytes of a raw file that are unpacked at a time, by the memory that all of its rows would take.
const STEP_BYTES: u64 = 1 << 20;
/// Rows of such a step at most.
const STEP_ROWS: u64 = 16 * 1024;

/// The columns of a raw file. Encrypted: `key`, `value` and `headers` hold nonce, ciphertext and tag, `attempt` names
/// the file's key.
fn layout() -> SchemaRef {
    Arc::new(Schema::new(vec![
        Field::new("stream", DataType::Utf8, true),
        Field::new("partition", DataType::Utf8, false),
        Field::new("generation", DataType::UInt32, false),
        Field::new("offset", DataType::Int64, false),
        Field::new("timestamp", time_type(), true),
        Field::new("key", DataType::Binary, true),
        Field::new("value", DataType::Binary, true),
        Field::new("headers", DataType::Binary, true),
        Field::new("attempt", DataType::Utf8, true),
    ]))
}

fn salt(attempt: &str) -> String {
    format!("raw/{attempt}")
}

fn place(partition: &str, offset: u64, part: &str) -> String {
    format!("{partition}/{offset}/{part}")
}

/// Names and values.
pub(super) type Headers = Vec<(String, Option<Vec<u8>>)>;

/// A header as JSON: `text` when it is UTF-8, else `base64`, neither when it is null.
#[derive(Serialize, Deserialize)]
struct Header {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    text: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    base64: Option<String>,
}

/// Headers as JSON text; `None` when there are none.
pub(super) fn headers_to_json<'a>(headers: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>) -> Option<String> {
    let header = |(name, value): (&[u8], Option<&[u8]>)| {
        let text = value.map(std::str::from_utf8);
        Header {
            name: String::from_utf8_lossy(name).into_owned(),
            text: text.and_then(|text| text.ok().map(str::to_owned)),
            base64: value.filter(|_| text.is_some_and(|text| text.is_err())).map(|bytes| BASE64.encode(bytes)),
        }
    };
    let headers: Vec<Header> = headers.map(header).collect();
    if headers.is_empty() { None } else { serde_json::to_string(&headers).ok() }
}

/// The reverse of [`headers_to_json`]; `None` when it is not what that writes.
pub(super) fn headers_from_json(json: &[u8]) -> Option<Headers> {
    let headers: Vec<Header> = serde_json::from_slice(json).ok()?;
    let parse = |header: Header| match (header.text, header.base64) {
        (Some(text), _) => Some((header.name, Some(text.into_bytes()))),
        (None, Some(text)) => BASE64.decode(text).ok().map(|bytes| (header.name, Some(bytes))),
        (None, None) => Some((header.name, None)),
    };
    headers.into_iter().map(parse).collect()
}

/// Collects an epoch's raw records.
pub(super) struct RawWriter {
    keep: RawKeep,
    key: Option<FileKey>,
    attempt: Ulid,
    compression: Compression,
    open: Option<OpenFile>,
}

impl RawWriter {
    pub fn new(attempt: Ulid, keep: RawKeep, key: Option<&MasterKey>, compression: Compression) -> Self {
        let key = key.filter(|_| keep == RawKeep::Encrypted).map(|key| key.for_file(&salt(&attempt.to_string())));
        Self { keep, key, attempt, compression, open: None }
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_none()
    }

    pub fn buffered_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, OpenFile::buffered_bytes)
    }

    pub fn push(&mut self, batch: &RawBatch) -> Result<()> {
        if self.keep == RawKeep::None || batch.records.is_empty() {
            return Ok(());
        }
        let encoded = self.encode(batch)?;
        if self.open.is_none() {
            self.open = Some(OpenFile::begin(layout(), form::properties(self.compression))?);
        }
        self.open.as_mut().map_or(Ok(()), |open| open.write(&encoded))
    }

    fn encode(&self, batch: &RawBatch) -> Result<RecordBatch> {
        let (mut stream, mut partitions, mut attempt) =
            (StringBuilder::new(), StringBuilder::new(), StringBuilder::new());
        let (mut generation, mut offset) = (UInt32Builder::new(), Int64Builder::new());
        let mut timestamp = TimestampMicrosecondBuilder::new();
        let mut payloads = [BinaryBuilder::new(), BinaryBuilder::new(), BinaryBuilder::new()];
        let partition = batch.partition.to_string();
        let own = self.attempt.to_string();
        for record in batch.records.iter() {
            stream.append_option(batch.stream.as_deref());
            partitions.append_value(&partition);
            generation.append_value(batch.generation);
            offset.append_value(record.offset() as i64);
            timestamp.append_option(Some(record.timestamp_us()).filter(|&time| time != NO_TIME));
            attempt.append_option(self.key.as_ref().map(|_| own.as_str()));
            let headers = headers_to_json(record.headers());
            let parts = [record.key(), record.value(), headers.as_deref().map(str::as_bytes)];
            for ((builder, part), name) in payloads.iter_mut().zip(parts).zip(["key", "value", "headers"]) {
                match (part, &self.key) {
                    (Some(plain), Some(key)) => {
                        builder.append_value(key.seal(&place(&partition, record.offset(), name), plain)?);
                    }
                    (plain, _) => builder.append_option(plain),
                }
            }
        }
        let mut columns: Vec<ArrayRef> = vec![
            Arc::new(stream.finish()),
            Arc::new(partitions.finish()),
            Arc::new(generation.finish()),
            Arc::new(offset.finish()),
            Arc::new(timestamp.finish().with_timezone("UTC")),
        ];
        columns.extend(payloads.iter_mut().map(|builder| Arc::new(builder.finish()) as ArrayRef));
        columns.push(Arc::new(attempt.finish()));
        RecordBatch::try_new(layout(), columns)
            .map_err(|error| Error::new(ErrorKind::Internal, "write raw records").because(error))
    }

    /// The file, when there is something.
    pub fn finish(self) -> Result<Option<LocalFile>> {
        self.open.map(OpenFile::finish).transpose()
    }
}

/// The files of the raw zone that are there: retention and people take some away.
#[derive(Debug)]
pub struct RawFiles(HashSet<String>);

impl RawFiles {
    /// Whether `file` is there.
    pub fn hold(&self, file: &DataFile) -> bool {
        self.0.contains(place_in_store(&file.path).as_ref())
    }
}

/// A raw file that is read in steps of about [`STEP_BYTES`], so that no more of it is unpacked at a time.
pub struct RawFile {
    file: DataFile,
    key: Option<MasterKey>,
    steps: ParquetRecordBatchReader,
    rows: u64,
}

impl std::fmt::Debug for RawFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RawFile").field("file", &self.file).field("rows", &self.rows).finish_non_exhaustive()
    }
}

impl RawFile {
    fn open(file: &DataFile, body: Bytes, key: Option<MasterKey>) -> Result<Self> {
        let rows = u128::from(file.rows) * u128::from(STEP_BYTES) / u128::from(file.memory_bytes.max(1));
        let rows = rows.clamp(1, u128::from(STEP_ROWS)) as usize;
        let steps = ParquetRecordBatchReaderBuilder::try_new(body).and_then(|b| b.with_batch_size(rows).build());
        let steps = steps.map_err(|error| unreadable(file, error))?;
        Ok(Self { file: file.clone(), key, steps, rows: 0 })
    }

    /// The next records, decrypted, one batch per run of records of the same partition; `None` at the end of the file.
    /// A batch's span runs from its first record to behind its last: the manifest has the span that was read.
    ///
    /// # Errors
    /// `Config` when the payloads are encrypted and the key is missing or another one, `LogCorrupt` for what is no raw
    /// file.
    pub fn step(&mut self) -> Result<Option<Vec<RawBatch>>> {
        let file = &self.file;
        let Some(batch) = self.steps.next() else {
            if self.rows != file.rows {
                let rows = self.rows;
                return Err(unreadable(file, format!("it has {rows} rows where its manifest says {}", file.rows)));
            }
            return Ok(None);
        };
        let batch = batch.map_err(|error| unreadable(file, error))?;
        if batch.schema().fields() != layout().fields() {
            return Err(unreadable(file, "its columns are not those of a raw file"));
        }
        self.rows += batch.num_rows() as u64;
        let mut batches = Vec::new();
        decode(file, &batch, self.key.as_ref(), &mut batches)?;
        Ok(Some(batches))
    }
}

impl Lake {
    /// All records of a raw file at once: see [`RawFile::step`].
    pub async fn read_raw(&self, file: &DataFile) -> Result<Vec<RawBatch>> {
        let mut open = self.open_raw(file).await?;
        let mut batches = Vec::new();
        while let Some(more) = open.step()? {
            batches.extend(more);
        }
        Ok(batches)
    }

    /// Fetches a raw file and begins to read it. Its object, as compressed as it is, stays in memory.
    pub async fn open_raw(&self, file: &DataFile) -> Result<RawFile> {
        RawFile::open(file, self.fetch(file).await?, self.settings.raw_key.clone())
    }

    /// Which files the raw zone still has, archived ones among them.
    pub async fn raw_files(&self) -> Result<RawFiles> {
        // In this order: what moves meanwhile is seen twice rather than never.
        let mut found = self.store.list("raw").await?;
        found.extend(self.store.list(&format!("{ARCHIVE}/raw")).await?);
        let path = |meta: ObjectMeta| {
            let path = meta.location.to_string();
            path.strip_prefix("archive/").map_or(path.clone(), str::to_owned)
        };
        Ok(RawFiles(found.into_iter().map(path).collect()))
    }
}

fn decode(file: &DataFile, batch: &RecordBatch, key: Option<&MasterKey>, out: &mut Vec<RawBatch>) -> Result<()> {
    let (streams, partitions) = (batch.column(0).as_string::<i32>(), batch.column(1).as_string::<i32>());
    let generations = batch.column(2).as_primitive::<UInt32Type>();
    let offsets = batch.column(3).as_primitive::<Int64Type>();
    let times = batch.column(4).as_primitive::<TimestampMicrosecondType>();
    let file_key = file_key(file, batch, key)?;
    for row in 0..batch.num_rows() {
        let (text, offset) = (partitions.value(row), offsets.value(row) as u64);
        let part = |column: usize, name: &str| -> Result<Option<Cow<'_, [u8]>>> {
            let array = batch.column(column).as_binary::<i32>();
            match &file_key {
                _ if array.is_null(row) => Ok(None),
                None => Ok(Some(Cow::Borrowed(array.value(row)))),
                Some(key) => match key.open(&place(text, offset, name), array.value(row)) {
                    Some(plain) => Ok(Some(Cow::Owned(plain))),
                    None => {
                        Err(Error::new(ErrorKind::Config, format!("{} does not open with lake.raw.key", file.path))
                            .help(
                                "it was written with another key: give that one (`dataflow reprocess`: --from-raw-key)",
                            ))
                    }
                },
            }
        };
        let (source, name) =
            text.split_once(':').ok_or_else(|| unreadable(file, format!("`{text}` is no partition")))?;
        let stream = streams.is_valid(row).then(|| streams.value(row));
        let target = current(out, (source, name), generations.value(row), stream, offset);
        let time = if times.is_valid(row) { times.value(row) } else { NO_TIME };
        target.records.push(offset, time, part(5, "key")?.as_deref(), part(6, "value")?.as_deref());
        let headers = part(7, "headers")?.map_or_else(|| Some(Vec::new()), |json| headers_from_json(&json));
        for (name, value) in headers.ok_or_else(|| unreadable(file, format!("row {row} has no valid headers")))? {
            target.records.push_header(&name, value.as_deref());
        }
        target.span.to = Position::offset(offset + 1);
    }
    Ok(())
}

/// The file's own key, when its payloads are encrypted.
fn file_key(file: &DataFile, batch: &RecordBatch, key: Option<&MasterKey>) -> Result<Option<FileKey>> {
    let attempts = batch.column(8).as_string::<i32>();
    if batch.num_rows() == 0 || attempts.is_null(0) {
        return Ok(None);
    }
    let key = key.ok_or_else(|| {
        Error::new(ErrorKind::Config, format!("{} is encrypted", file.path))
            .help("set lake.raw.key (`dataflow reprocess`: --from-raw-key)")
    })?;
    Ok(Some(key.for_file(&salt(attempts.value(0)))))
}

/// The batch that the next record belongs to; a new one when it is not the last one's partition.
fn current<'a>(
    out: &'a mut Vec<RawBatch>,
    (source, name): (&str, &str),
    generation: u32,
    stream: Option<&str>,
    offset: u64,
) -> &'a mut RawBatch {
    let same = out.last().is_some_and(|last| {
        &*last.partition.source == source
            && &*last.partition.name == name
            && last.generation == generation
            && last.stream.as_deref() == stream
    });
    if !same {
        out.push(RawBatch {
            partition: Partition::new(source, name),
            generation,
            span: Span { from: Position::offset(offset), to: Position::offset(offset) },
            stream: stream.map(Into::into),
            records: RawRecords::default(),
            inside_transaction: false,
        });
    }
    let last = out.len() - 1;
    &mut out[last]
}
