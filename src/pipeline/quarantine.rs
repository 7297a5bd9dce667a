//! Quarantined entries after the fact: finding the open ones, reading them in again, giving them up.
//!
//! A retry comes in as a log partition of its own, with the original `_seq`: where a newer version of the key has been
//! loaded meanwhile, it stays (and a tombstone does the same for a key that was deleted). Closing the entries stands in
//! the same manifest as the rows, so a retry that is repeated finds them closed. All closings move one partition of the
//! log forward: of two that were begun at the same time the second is fenced, as two readers of one partition are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::Utc;
use ulid::Ulid;

use crate::batch::{RawBatch, RawRecords};
use crate::config::{Loaded, Source as SourceConfig};
use crate::epoch::{Control, EpochNumber, Manifest};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::{Closings, Draft, Lake, Log, Payload, StoredReject};
use crate::pipeline::build;
use crate::pipeline::open_epoch::OpenEpoch;
use crate::pipeline::reader::{Transforms, output_schema};
use crate::progress::{Partition, Position, Span};

/// An entry that nobody has closed.
#[derive(Debug, Clone)]
pub struct OpenReject {
    /// The epoch whose quarantine file holds it.
    pub epoch: EpochNumber,
    /// The entry.
    pub entry: StoredReject,
}

/// The open entries, oldest first.
pub async fn open_rejects(lake: &Lake, log: &Log) -> Result<Vec<OpenReject>> {
    let state = log.refresh().await?;
    let mut files = Vec::new();
    let mut closed: BTreeSet<(EpochNumber, u64)> = BTreeSet::new();
    // Nothing is open up to there, and the files have gone.
    for n in state.expired_through + 1..=state.n {
        let manifest = log.manifest(n).await?;
        closed.extend(manifest.control.iter().flat_map(closes));
        if let Some(file) = &manifest.quarantine {
            files.push((n, file.file.clone()));
        }
    }
    let mut open = Vec::new();
    for (epoch, file) in files {
        for entry in lake.read_rejects(&file).await? {
            if !closed.contains(&(epoch, entry.row)) {
                open.push(OpenReject { epoch, entry });
            }
        }
    }
    Ok(open)
}

fn closes(control: &Control) -> Vec<(EpochNumber, u64)> {
    match control {
        Control::Retried { epoch, rows, .. } | Control::Dropped { epoch, rows, .. } => {
            rows.iter().map(|row| (*epoch, *row)).collect()
        }
        Control::Pause { .. } | Control::Resume { .. } | Control::Resync { .. } | Control::Expired { .. } => Vec::new(),
        Control::Compacted { .. } | Control::Retired { .. } => Vec::new(),
    }
}

/// One control entry per epoch and table.
fn closing(entries: &[OpenReject], make: impl Fn(EpochNumber, Vec<u64>, String) -> Control) -> Vec<Control> {
    let mut by_file: BTreeMap<(EpochNumber, String), Vec<u64>> = BTreeMap::new();
    for OpenReject { epoch, entry } in entries {
        let table = entry.reject.table.clone().unwrap_or_default();
        by_file.entry((*epoch, table)).or_default().push(entry.row);
    }
    by_file.into_iter().map(|((epoch, table), rows)| make(epoch, rows, table)).collect()
}

/// The log's count of closings, once it is sure that `entries` are still open there.
async fn begin_closing(log: &Log, entries: &[OpenReject]) -> Result<Closings> {
    let state = log.refresh().await?;
    let meant: BTreeSet<(EpochNumber, u64)> = entries.iter().map(|open| (open.epoch, open.entry.row)).collect();
    let first = meant.first().map_or(1, |(epoch, _)| *epoch);
    let quicker = |epoch: EpochNumber, row: u64, how: String| {
        Error::new(ErrorKind::Config, format!("close entry {epoch}/{row}: {how}"))
            .help("look at `dataflow quarantine list` again")
    };
    if let Some((epoch, row)) = meant.first().filter(|(epoch, _)| *epoch <= state.expired_through) {
        return Err(quicker(*epoch, *row, "its retention is over since, and it is closed as expired".into()));
    }
    for n in first..=state.n {
        let manifest = log.manifest(n).await?;
        if let Some((epoch, row)) = manifest.control.iter().flat_map(closes).find(|closed| meant.contains(closed)) {
            return Err(quicker(epoch, row, format!("somebody was quicker, epoch {n} has closed it")));
        }
    }
    Ok(Closings::at(&state))
}

/// In the words of whoever wanted to close entries.
fn closed_by_another(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Fenced => error.doing("close entries").help("others were closed at the same time: do it again"),
        _ => error,
    }
}

/// Gives entries up for good.
pub async fn drop_rejects(log: &Log, entries: &[OpenReject]) -> Result<Arc<Manifest>> {
    let spans = vec![begin_closing(log, entries).await?.advance()];
    let control = closing(entries, |epoch, rows, table| Control::Dropped { epoch, rows, table });
    let draft = Draft { control, spans, ..Draft::new(Ulid::new(), Utc::now()) };
    log.commit(draft, &without_rows).await.map_err(closed_by_another)
}

/// Commits what a person asked for: a manifest without data.
pub async fn commit_control(log: &Log, control: Vec<Control>) -> Result<Arc<Manifest>> {
    let draft = Draft { control, ..Draft::new(Ulid::new(), Utc::now()) };
    log.commit(draft, &without_rows).await
}

fn without_rows(table: &str, _: &crate::contract::TableSchema) -> Result<crate::contract::TableSchema> {
    Err(Error::new(ErrorKind::Internal, format!("a control entry has no rows of table {table}")))
}

/// Reads entries in again with today's topology. What is refused again is a new entry in quarantine.
pub async fn retry_rejects(loaded: &Loaded, lake: &Lake, log: &Log, entries: &[OpenReject]) -> Result<Arc<Manifest>> {
    refuse_without_payload(entries)?;
    refuse_without_relation(loaded, entries)?;
    let mut closings = begin_closing(log, entries).await?;
    let chains = Arc::new(build::chains(&loaded.topology)?);
    let state = log.state();
    let contracts: Vec<_> = state.contracts.values().cloned().collect();
    let mut open = OpenEpoch::begin(lake);
    let described = entries.iter().filter_map(|open| described_record(loaded, &open.entry));
    for ((origin, generation, stream), records) in by_origin(loaded, entries).into_iter().chain(described) {
        let mut decoder = build::decoder(loaded, &origin.source)?;
        decoder.adopt(&contracts)?;
        decoder.revisit(&origin, &state.progress);
        let span = Span { from: Position::offset(0), to: Position::offset(records.len() as u64) };
        let (partition, stream) = (origin.clone(), stream.map(Into::into));
        let raw = RawBatch { partition, generation, span, stream, records, inside_transaction: false };
        let batch = decoder.decode(&raw)?;
        let kept = decoder.flush(&origin)?;
        let mut transforms = Transforms::new(Arc::clone(&chains));
        for batch in std::iter::once(batch).chain(kept) {
            let mut done = transforms.apply(raw.clone(), batch, Vec::new())?;
            done.advance = closings.advance();
            done.raw.partition = Partition::new("quarantine", origin.to_string());
            open.take(done, &loaded.topology, &BTreeSet::new())?;
        }
    }
    open.add_control(closing(entries, |epoch, rows, table| Control::Retried { epoch, rows, table }));
    let draft = open.seal().await?;
    log.commit(draft, &|table, input| output_schema(&chains, table, input)).await.map_err(closed_by_another)
}

fn refuse_without_payload(entries: &[OpenReject]) -> Result<()> {
    for OpenReject { epoch, entry } in entries {
        let why = match entry.payload {
            Payload::Open { .. } => continue,
            Payload::Absent => "its payload was not kept; set lake.quarantine.key so that the next ones are",
            Payload::Locked => "its payload is encrypted with another key than lake.quarantine.key",
        };
        return Err(Error::new(ErrorKind::Config, format!("retry entry {} of epoch {epoch}", entry.row)).help(why));
    }
    Ok(())
}

/// A message of a database's own stream says nothing without the description of its relation. Entries from before that
/// was kept with them cannot be read again.
fn refuse_without_relation(loaded: &Loaded, entries: &[OpenReject]) -> Result<()> {
    for OpenReject { epoch, entry } in entries {
        let source = &*entry.reject.partition.source;
        let database =
            matches!(loaded.topology.sources.get(source), Some(SourceConfig::Postgres(_) | SourceConfig::Mysql(_)));
        if database && entry.payload.described().is_none() {
            return Err(Error::new(
                ErrorKind::Config,
                format!("retry entry {} of epoch {epoch}: what columns it has was not kept with it", entry.row),
            )
            .help("update the row once at the source, so that it comes again, then drop the entry"));
        }
    }
    Ok(())
}

/// A record with what describes it before it, at the place that it had.
fn described_record(loaded: &Loaded, entry: &StoredReject) -> Option<(Origin, RawRecords)> {
    let described = entry.payload.described()?;
    let Payload::Open { timestamp_us, key, value, .. } = &entry.payload else { return None };
    let seq = entry.reject.seq;
    let mut records = RawRecords::default();
    let before = (seq.minor, seq.ordinal.saturating_sub(1));
    records.push_within(seq.major, before, *timestamp_us, Some(described), None);
    records.push_within(seq.major, (seq.minor, seq.ordinal), *timestamp_us, key.as_deref(), value.as_deref());
    let origin = (entry.reject.partition.clone(), seq.generation, stream_of(loaded, entry));
    Some((origin, records))
}

type Origin = (Partition, u32, Option<String>);

/// The records of the entries by partition, generation and stream, in delivery order.
fn by_origin(loaded: &Loaded, entries: &[OpenReject]) -> BTreeMap<Origin, RawRecords> {
    let mut sorted: Vec<&StoredReject> = entries.iter().map(|open| &open.entry).collect();
    sorted.sort_by(|a, b| (&a.reject.partition, a.reject.seq).cmp(&(&b.reject.partition, b.reject.seq)));
    let mut records: BTreeMap<Origin, RawRecords> = BTreeMap::new();
    for entry in sorted.into_iter().filter(|entry| entry.payload.described().is_none()) {
        let Payload::Open { offset, timestamp_us, key, value, headers } = &entry.payload else { continue };
        let origin = (entry.reject.partition.clone(), entry.reject.seq.generation, stream_of(loaded, entry));
        let into = records.entry(origin).or_default();
        // Two entries of one record (a row of several) are one record again.
        if into.at_offset(*offset).is_some() {
            continue;
        }
        into.push(*offset, *timestamp_us, key.as_deref(), value.as_deref());
        for (name, value) in headers {
            into.push_header(name, value.as_deref());
        }
    }
    records
}

/// The stream's name that the record was read under.
fn stream_of(loaded: &Loaded, entry: &StoredReject) -> Option<String> {
    let topology = &loaded.topology;
    if let Some(table) = entry.reject.table.as_ref().and_then(|name| topology.tables.get(name)) {
        return Some(table.from.clone());
    }
    match topology.sources.get(&*entry.reject.partition.source)? {
        SourceConfig::Kafka(_) => entry.reject.partition.name.split('#').next().map(str::to_owned),
        SourceConfig::Postgres(_) | SourceConfig::Mysql(_) => None,
        SourceConfig::File(file) => file.stream.clone(),
    }
}
