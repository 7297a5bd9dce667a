//! Payloads as they were read, one Parquet file per epoch, when the topology keeps them: plain or encrypted.

mod recall;
#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests;

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

use self::recall::{Recall, Recalled};
use super::crypt::{FileKey, MasterKey};
use super::form::{self, time_type};
use super::store::place as place_in_store;
use super::table_writer::{LocalFile, OpenFile};
use super::{ARCHIVE, Lake, unreadable};
use crate::batch::{NO_TIME, RawBatch, RawRecord, RawRecords, ReadBy};
use crate::config::{Compression, RawKeep};
use crate::epoch::DataFile;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Partition, Position, Span};

/// Bytes of a raw file that are unpacked at a time, by the memory that all of its rows would take.
const STEP_BYTES: u64 = 1 << 20;
/// Rows of such a step at most.
const STEP_ROWS: u64 = 16 * 1024;

/// The columns of a raw file. Encrypted: `key`, `value` and `headers` hold nonce, ciphertext and tag, `attempt` names
/// the file's key. `minor` and `ordinal` say where inside of its offset a record stands, where several share one (a
/// database's log); older files lack them.
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
        Field::new("minor", DataType::Int64, false),
        Field::new("ordinal", DataType::UInt32, false),
    ]))
}

/// Columns of files from before records of one offset were told apart.
const OLD_COLUMNS: usize = 9;

fn salt(attempt: &str) -> String {
    format!("raw/{attempt}")
}

/// Where a record stands in its source and in its file.
struct Place<'a> {
    partition: &'a str,
    offset: u64,
    /// What is inside of the offset, and the number of the file's row: two records of one place cannot change theirs.
    /// `None` in older files.
    within: Option<((u64, u32), u64)>,
}

impl Place<'_> {
    /// What is authenticated with a payload.
    fn of(&self, part: &str) -> String {
        let Self { partition, offset, within } = self;
        match within {
            None => format!("{partition}/{offset}/{part}"),
            Some(((minor, ordinal), row)) => format!("{partition}/{offset}/{minor}/{ordinal}/{row}/{part}"),
        }
    }
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
    rows: u64,
    recall: Recall,
}

impl RawWriter {
    pub fn new(attempt: Ulid, keep: RawKeep, key: Option<&MasterKey>, compression: Compression) -> Self {
        let key = key.filter(|_| keep == RawKeep::Encrypted).map(|key| key.for_file(&salt(&attempt.to_string())));
        Self { keep, key, attempt, compression, open: None, rows: 0, recall: Recall::default() }
    }

    pub fn is_empty(&self) -> bool {
        self.open.is_none()
    }

    pub fn buffered_bytes(&self) -> usize {
        self.open.as_ref().map_or(0, OpenFile::buffered_bytes)
    }

    pub fn push(&mut self, batch: &RawBatch, read_by: &ReadBy) -> Result<()> {
        if self.keep == RawKeep::None || batch.records.is_empty() {
            return Ok(());
        }
        let partition = batch.partition.to_string();
        let encoded = self.encode(batch, &partition)?;
        self.recall.note(&partition, read_by);
        self.rows += batch.records.len() as u64;
        if self.open.is_none() {
            self.open = Some(OpenFile::begin(layout(), form::properties(self.compression))?);
        }
        self.open.as_mut().map_or(Ok(()), |open| open.write(&encoded))
    }

    fn encode(&self, batch: &RawBatch, partition: &str) -> Result<RecordBatch> {
        let (mut stream, mut partitions, mut attempt) =
            (StringBuilder::new(), StringBuilder::new(), StringBuilder::new());
        let (mut generation, mut offset) = (UInt32Builder::new(), Int64Builder::new());
        let (mut minor, mut ordinal) = (Int64Builder::new(), UInt32Builder::new());
        let mut timestamp = TimestampMicrosecondBuilder::new();
        let mut payloads = [BinaryBuilder::new(), BinaryBuilder::new(), BinaryBuilder::new()];
        let own = self.attempt.to_string();
        for (record, row) in batch.records.iter().zip(self.rows..) {
            stream.append_option(batch.stream.as_deref());
            partitions.append_value(partition);
            generation.append_value(batch.generation);
            // Numbers beyond 2⁶³ come back by the reverse of this.
            offset.append_value(record.offset() as i64);
            minor.append_value(record.within().0 as i64);
            ordinal.append_value(record.within().1);
            timestamp.append_option(Some(record.timestamp_us()).filter(|&time| time != NO_TIME));
            attempt.append_option(self.key.as_ref().map(|_| own.as_str()));
            let place = Place { partition, offset: record.offset(), within: Some((record.within(), row)) };
            self.payloads(record, &place, &mut payloads)?;
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
        columns.push(Arc::new(minor.finish()));
        columns.push(Arc::new(ordinal.finish()));
        RecordBatch::try_new(layout(), columns)
            .map_err(|error| Error::new(ErrorKind::Internal, "write raw records").because(error))
    }

    fn payloads(&self, record: RawRecord<'_>, place: &Place<'_>, into: &mut [BinaryBuilder; 3]) -> Result<()> {
        let headers = headers_to_json(record.headers());
        let parts = [record.key(), record.value(), headers.as_deref().map(str::as_bytes)];
        for ((builder, part), name) in into.iter_mut().zip(parts).zip(["key", "value", "headers"]) {
            match (part, &self.key) {
                (Some(plain), Some(key)) => builder.append_value(key.seal(&place.of(name), plain)?),
                (plain, _) => builder.append_option(plain),
            }
        }
        Ok(())
    }

    /// The file, when there is something.
    pub fn finish(self) -> Result<Option<LocalFile>> {
        let Some(mut open) = self.open else { return Ok(None) };
        if let Some(entry) = self.recall.entry(self.key.as_ref())? {
            open.note(recall::NAME, entry);
        }
        open.finish().map(Some)
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
    /// Whether it tells records of one offset apart.
    tells_apart: bool,
    /// What it says of itself, until it is read with the first records; then what is still to be handed out.
    entry: Option<String>,
    recalled: Recalled,
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
        let builder = ParquetRecordBatchReaderBuilder::try_new(body).map_err(|error| unreadable(file, error))?;
        let fields = layout().fields().clone();
        let tells_apart = builder.schema().fields() == &fields;
        if !tells_apart && builder.schema().fields()[..] != fields[..OLD_COLUMNS] {
            return Err(unreadable(file, "its columns are not those of a raw file"));
        }
        let said = builder.metadata().file_metadata().key_value_metadata();
        let entry = said.and_then(|said| said.iter().find(|entry| entry.key == recall::NAME)?.value.clone());
        let steps = builder.with_batch_size(rows).build().map_err(|error| unreadable(file, error))?;
        Ok(Self { file: file.clone(), key, steps, rows: 0, tells_apart, entry, recalled: Recalled::new() })
    }

    /// Its path in the lake.
    pub fn path(&self) -> &str {
        &self.file.path
    }

    /// Whether it says where inside of its offset a record stands. Files of older versions do not.
    pub fn tells_apart(&self) -> bool {
        self.tells_apart
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
        let key = file_key(file, &batch, self.key.as_ref())?;
        if let Some(entry) = self.entry.take() {
            self.recalled = recall::read(file, &entry, key.as_ref())?;
        }
        let rows = Rows { file, batch: &batch, key, first: self.tells_apart.then_some(self.rows) };
        let mut batches = rows.decode()?;
        self.rows += batch.num_rows() as u64;
        for batch in &mut batches {
            if let Some(recalled) = self.recalled.remove(&batch.partition.to_string()) {
                batch.records.recall(recalled);
            }
        }
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

/// Some rows of a raw file.
struct Rows<'a> {
    file: &'a DataFile,
    batch: &'a RecordBatch,
    key: Option<FileKey>,
    /// The first one's number in the file; `None` when that tells records of one offset not apart.
    first: Option<u64>,
}

impl Rows<'_> {
    fn decode(&self) -> Result<Vec<RawBatch>> {
        let (batch, file) = (self.batch, self.file);
        let (streams, partitions) = (batch.column(0).as_string::<i32>(), batch.column(1).as_string::<i32>());
        let generations = batch.column(2).as_primitive::<UInt32Type>();
        let offsets = batch.column(3).as_primitive::<Int64Type>();
        let times = batch.column(4).as_primitive::<TimestampMicrosecondType>();
        let mut out = Vec::new();
        for row in 0..batch.num_rows() {
            let (text, offset, within) = (partitions.value(row), offsets.value(row) as u64, self.within(row));
            let number = self.first.map(|first| (within, first + row as u64));
            let place = Place { partition: text, offset, within: number };
            let part = |column, name: &str| self.part(row, column, &place, name);
            let (source, name) =
                text.split_once(':').ok_or_else(|| unreadable(file, format!("`{text}` is no partition")))?;
            let stream = streams.is_valid(row).then(|| streams.value(row));
            let target = current(&mut out, (source, name), generations.value(row), stream, (offset, within));
            let time = if times.is_valid(row) { times.value(row) } else { NO_TIME };
            let (key, value) = (part(5, "key")?, part(6, "value")?);
            target.records.push_within(offset, within, time, key.as_deref(), value.as_deref());
            let headers = part(7, "headers")?.map_or_else(|| Some(Vec::new()), |json| headers_from_json(&json));
            for (name, value) in headers.ok_or_else(|| unreadable(file, format!("row {row} has no valid headers")))? {
                target.records.push_header(&name, value.as_deref());
            }
            target.span.to = Position::offset(offset.saturating_add(1));
        }
        Ok(out)
    }

    fn within(&self, row: usize) -> (u64, u32) {
        if self.first.is_none() {
            return (0, 0);
        }
        let minor = self.batch.column(OLD_COLUMNS).as_primitive::<Int64Type>();
        let ordinal = self.batch.column(OLD_COLUMNS + 1).as_primitive::<UInt32Type>();
        (minor.value(row) as u64, ordinal.value(row))
    }

    fn part(&self, row: usize, column: usize, place: &Place<'_>, name: &str) -> Result<Option<Cow<'_, [u8]>>> {
        let array = self.batch.column(column).as_binary::<i32>();
        match &self.key {
            _ if array.is_null(row) => Ok(None),
            None => Ok(Some(Cow::Borrowed(array.value(row)))),
            Some(key) => match key.open(&place.of(name), array.value(row)) {
                Some(plain) => Ok(Some(Cow::Owned(plain))),
                None => Err(other_key(self.file)),
            },
        }
    }
}

fn other_key(file: &DataFile) -> Error {
    Error::new(ErrorKind::Config, format!("{} does not open with lake.raw.key", file.path))
        .help("it was written with another key: give that one (`dataflow reprocess`: --from-raw-key)")
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

/// The batch that the next record belongs to; a new one when it is not the last one's partition, or does not stand behind
/// the last one: a record is found by its place, and rows of several tables that were read at one place share theirs.
fn current<'a>(
    out: &'a mut Vec<RawBatch>,
    (source, name): (&str, &str),
    generation: u32,
    stream: Option<&str>,
    (offset, within): (u64, (u64, u32)),
) -> &'a mut RawBatch {
    let same = out.last().is_some_and(|last| {
        &*last.partition.source == source
            && &*last.partition.name == name
            && last.generation == generation
            && last.stream.as_deref() == stream
            && last.records.last().is_none_or(|last| (last.offset(), last.within()) < (offset, within))
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
