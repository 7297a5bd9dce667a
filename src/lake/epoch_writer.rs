//! All files of one attempt: streamed into memory while the epoch is open, uploaded when it is sealed.

use std::collections::BTreeMap;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{StreamExt, TryStreamExt};
use ulid::Ulid;

use super::quarantine::QuarantineWriter;
use super::raw::RawWriter;
use super::table_writer::{FinishedTable, LocalFile, TableWriter};
use super::{DraftTable, Lake, form};
use crate::batch::{RawBatch, RawRecord, ReadBy, Reject, TableChanges};
use crate::epoch::{DataFile, RejectFile, TableEpoch};
use crate::error::{Error, ErrorKind, Result};

/// Uploads at the same time.
const UPLOADS: usize = 8;
/// Rows of all tables that wait for their row groups, as bytes in memory.
const PENDING_BYTES: usize = 64 << 20;
/// Columns that are written as rows come, which is quicker than waiting for a row group and costs memory for each.
const STREAMED_COLUMNS: usize = 32;

/// Writes the files of one attempt at an epoch. Nothing is in the lake before [`EpochWriter::finish`], and nothing
/// counts before the manifest is committed.
pub struct EpochWriter {
    lake: Lake,
    attempt: Ulid,
    tables: BTreeMap<String, TableWriter>,
    quarantine: QuarantineWriter,
    raw: RawWriter,
}

/// What [`EpochWriter::finish`] put into the lake: the data side of a [`Draft`](super::Draft).
#[derive(Debug, Clone, Default)]
pub struct SealedFiles {
    /// By table.
    pub tables: BTreeMap<String, DraftTable>,
    /// What was refused.
    pub quarantine: Option<RejectFile>,
    /// Raw payloads.
    pub raw: Option<DataFile>,
}

impl EpochWriter {
    /// Begins an attempt, under a name of its own.
    pub fn begin(lake: &Lake) -> Self {
        let attempt = Ulid::new();
        let settings = &lake.settings;
        Self {
            lake: lake.clone(),
            attempt,
            tables: BTreeMap::new(),
            quarantine: QuarantineWriter::new(attempt, settings.quarantine_key.as_ref(), settings.compression),
            raw: RawWriter::new(attempt, settings.raw, settings.raw_key.as_ref(), settings.compression),
        }
    }

    /// Which attempt this is.
    pub fn attempt(&self) -> Ulid {
        self.attempt
    }

    /// Adds changes, whose `rows` follow their contract's `output`.
    pub fn write(&mut self, changes: &TableChanges) -> Result<()> {
        if changes.is_empty() {
            return Ok(());
        }
        let table = &changes.contract.table;
        let reserved = changes.contract.output.columns.iter().find(|column| {
            [form::OP, form::SEQ, form::PARTITION, form::SOURCE_TIME, form::UNCHANGED].contains(&column.name.as_str())
                || column.name.starts_with(form::OLD)
        });
        if let Some(column) = reserved {
            let what = format!("table {table}: the column name {} is taken by the lake", column.name);
            return Err(Error::new(ErrorKind::Table(table.clone()), what).help("rename the column in the topology"));
        }
        if !self.tables.contains_key(table) {
            let taken: usize = self.tables.values().map(TableWriter::streamed_columns).sum();
            let streamed = taken + changes.contract.output.columns.len() <= STREAMED_COLUMNS;
            let properties = form::properties(self.lake.settings.compression);
            let writer = TableWriter::new(&changes.contract, properties, streamed);
            self.tables.insert(table.clone(), writer);
        }
        let writer = self.tables.get_mut(table);
        writer.ok_or_else(|| Error::new(ErrorKind::Internal, "no writer"))?.write(changes)?;
        self.make_room()
    }

    /// Writes row groups, the largest first, when too much waits for them: few tables then have small ones.
    fn make_room(&mut self) -> Result<()> {
        let mut pending: usize = self.tables.values().map(TableWriter::pending_bytes).sum();
        if pending <= PENDING_BYTES {
            return Ok(());
        }
        let mut writers: Vec<&mut TableWriter> = self.tables.values_mut().collect();
        writers.sort_unstable_by_key(|writer| std::cmp::Reverse(writer.pending_bytes()));
        for writer in writers {
            if pending <= PENDING_BYTES / 2 {
                break;
            }
            pending -= writer.pending_bytes();
            writer.write_group()?;
        }
        Ok(())
    }

    /// Adds something refused. `record` is what it was made of: kept, encrypted, when the topology gives a key.
    pub fn reject(&mut self, reject: Reject, record: Option<RawRecord<'_>>) -> Result<()> {
        self.reject_described(reject, record, None)
    }

    /// The same for a record that says nothing without what `described` holds.
    pub fn reject_described(
        &mut self,
        reject: Reject,
        record: Option<RawRecord<'_>>,
        described: Option<&[u8]>,
    ) -> Result<()> {
        self.quarantine.push(&reject, record, described)
    }

    /// Adds raw records, when the topology keeps them.
    pub fn raw(&mut self, batch: &RawBatch) -> Result<()> {
        self.raw_read_by(batch, &ReadBy::default())
    }

    /// The same for records that say nothing without the descriptions in `read_by`: what of them came in an earlier epoch
    /// is kept beside them.
    pub fn raw_read_by(&mut self, batch: &RawBatch, read_by: &ReadBy) -> Result<()> {
        self.raw.push(batch, read_by)
    }

    /// Bytes held in memory.
    pub fn buffered_bytes(&self) -> usize {
        let tables: usize = self.tables.values().map(TableWriter::buffered_bytes).sum();
        tables + self.quarantine.buffered_bytes() + self.raw.buffered_bytes()
    }

    /// Whether there is nothing to upload.
    pub fn is_empty(&self) -> bool {
        self.tables.is_empty() && self.quarantine.is_empty() && self.raw.is_empty()
    }

    /// Ends all files and uploads them. When it fails the attempt is lost: read again and begin another one.
    pub async fn finish(self) -> Result<SealedFiles> {
        let Self { lake, attempt, tables, quarantine, raw } = self;
        let mut uploads: Vec<(String, Bytes)> = Vec::new();
        let mut sealed = SealedFiles::default();
        for (table, writer) in tables {
            let draft = draft_table(&table, attempt, writer.finish()?, &mut uploads);
            sealed.tables.insert(table, draft);
        }
        if let Some((file, by_table)) = quarantine.finish()? {
            let path = format!("quarantine/dt={}/{attempt}.parquet", day(attempt));
            sealed.quarantine = Some(RejectFile { file: describe(path, file, &mut uploads), by_table });
        }
        if let Some(file) = raw.finish()? {
            let path = format!("raw/dt={}/hour={}/{attempt}.parquet", day(attempt), hour(attempt));
            sealed.raw = Some(describe(path, file, &mut uploads));
        }
        let store = &lake.store;
        futures::stream::iter(uploads)
            .map(|(path, body)| async move { store.create_own("lake.upload", &path, body).await })
            .buffer_unordered(UPLOADS)
            .try_collect::<Vec<()>>()
            .await?;
        Ok(sealed)
    }
}

fn draft_table(table: &str, attempt: Ulid, done: FinishedTable, uploads: &mut Vec<(String, Bytes)>) -> DraftTable {
    let folder = format!("processed/{table}/dt={}/hour={}", day(attempt), hour(attempt));
    let mut files = Vec::with_capacity(done.files.len());
    let mut outputs = Vec::with_capacity(done.files.len());
    for (part, (file, output)) in done.files.into_iter().enumerate() {
        let name = if part == 0 { attempt.to_string() } else { format!("{attempt}-{part}") };
        files.push(describe(format!("{folder}/{name}.parquet"), file, uploads));
        outputs.push(output);
    }
    let epoch = TableEpoch {
        files,
        max_source_time_us: done.max_source_time_us,
        min_source_time_us: done.min_source_time_us,
        fold: done.fold,
        truncate: done.truncate,
    };
    DraftTable { epoch, input: done.input, outputs }
}

fn describe(path: String, file: LocalFile, uploads: &mut Vec<(String, Bytes)>) -> DataFile {
    let described = DataFile {
        path: path.clone(),
        contract: 0,
        rows: file.rows,
        bytes: file.body.len() as u64,
        memory_bytes: file.memory_bytes,
        crc32: crc32fast::hash(&file.body),
    };
    uploads.push((path, file.body));
    described
}

fn began(attempt: Ulid) -> DateTime<Utc> {
    DateTime::from_timestamp_millis(attempt.timestamp_ms() as i64).unwrap_or_default()
}

fn day(attempt: Ulid) -> String {
    began(attempt).format("%Y-%m-%d").to_string()
}

fn hour(attempt: Ulid) -> String {
    began(attempt).format("%H").to_string()
}
