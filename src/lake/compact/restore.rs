//! The changes of epochs, wherever their files are by now.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::{AsArray, BooleanArray, RecordBatch, UInt32Array};
use arrow::compute::{concat_batches, take_record_batch};
use arrow::datatypes::Int64Type;
use arrow::error::ArrowError;
use bytes::Bytes;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowPredicateFn, ParquetRecordBatchReaderBuilder, RowFilter};
use parquet::errors::ParquetError;

use super::plan::{covering, covering_before};
use super::rewrite::numbers;
use super::{EPOCH, ROW, hour_of};
use crate::batch::TableChanges;
use crate::contract::Contract;
use crate::epoch::{Compaction, DataFile, EpochNumber, TableEpoch};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::read::{decode, split};
use crate::lake::{Log, unreadable};

/// Rows that are decoded at once.
const BATCH_ROWS: usize = 64 << 10;

impl Log {
    /// The changes of a table in these epochs, in order: from their own files, and from compacted ones where those are
    /// gone. Rows are in `contract`'s output columns.
    pub async fn changes(
        &self,
        table: &str,
        epochs: &[(EpochNumber, &TableEpoch)],
        contract: &Arc<Contract>,
    ) -> Result<Vec<TableChanges>> {
        let mut found: BTreeMap<EpochNumber, Vec<TableChanges>> = BTreeMap::new();
        let mut gone: BTreeMap<&str, BTreeSet<EpochNumber>> = BTreeMap::new();
        let mut retired: BTreeMap<&str, Option<Compaction>> = BTreeMap::new();
        for (n, epoch) in epochs {
            let hour = epoch.files.first().and_then(|file| hour_of(&file.path)).unwrap_or_default();
            let entry = match retired.entry(hour) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(place) => place.insert(self.retired(table, hour).await?),
            };
            // No need to ask for what the log says is deleted. It may not say so yet.
            let there = !entry.as_ref().is_some_and(|entry| covers(entry, *n));
            let own = if there { self.own_files(epoch, contract).await? } else { None };
            match own {
                Some(changes) => {
                    found.insert(*n, changes);
                }
                None => {
                    gone.entry(hour).or_default().insert(*n);
                }
            }
        }
        for (hour, wanted) in gone {
            found.extend(self.compacted(table, hour, &wanted, contract).await?);
            if let Some(n) = wanted.iter().find(|n| !found.contains_key(n)) {
                let what = format!("the compacted files of table {table} in {hour} have no row of epoch {n}");
                return Err(Error::new(ErrorKind::LogCorrupt, what).help("restore the files from a copy of the lake"));
            }
        }
        Ok(found.into_values().flatten().collect())
    }

    /// The newest compaction of the hour whose originals are deleted.
    async fn retired(&self, table: &str, hour: &str) -> Result<Option<Compaction>> {
        let state = self.state();
        covering_before(self, &state, hour, table, state.retired_through + 1).await
    }

    /// What the epoch's own files hold; `None` when one is gone.
    async fn own_files(&self, epoch: &TableEpoch, contract: &Arc<Contract>) -> Result<Option<Vec<TableChanges>>> {
        let mut changes = Vec::new();
        for file in &epoch.files {
            let Some(body) = self.lake().find(file).await? else { return Ok(None) };
            let (file, contract) = (file.clone(), Arc::clone(contract));
            changes.extend(blocking(move || decode(&file, body, &contract)).await?);
        }
        Ok(Some(changes))
    }

    /// The wanted epochs out of compacted files. Somebody else may have compacted them a moment ago, or once more: then the
    /// log is read on and looked at again.
    async fn compacted(
        &self,
        table: &str,
        hour: &str,
        wanted: &BTreeSet<EpochNumber>,
        contract: &Arc<Contract>,
    ) -> Result<BTreeMap<EpochNumber, Vec<TableChanges>>> {
        let mut state = self.state();
        for newest in [false, true] {
            if newest {
                state = self.refresh().await?;
            }
            let entry = covering(self, &state, hour, table).await?;
            let Some(entry) = entry.filter(|entry| wanted.iter().all(|n| covers(entry, *n))) else { continue };
            tracing::debug!(table, hour, epochs = wanted.len(), "reading compacted files");
            if let Some(found) = self.out_of(&entry, wanted, contract).await? {
                return Ok(found);
            }
        }
        let what = format!("files of table {table} in {}/processed/{table}/{hour} are missing", self.lake().url());
        Err(Error::new(ErrorKind::LogCorrupt, what)
            .help("manifests name them, and no compaction that is still there took their place: restore them from a copy of the lake"))
    }

    /// The wanted epochs out of an entry's files; `None` when one of those is gone.
    async fn out_of(
        &self,
        entry: &Compaction,
        wanted: &BTreeSet<EpochNumber>,
        contract: &Arc<Contract>,
    ) -> Result<Option<BTreeMap<EpochNumber, Vec<TableChanges>>>> {
        let mut found = BTreeMap::new();
        for files in groups(entry) {
            let mut kept = Vec::new();
            for file in &files {
                let Some(body) = self.lake().find(file).await? else { return Ok(None) };
                let (file, wanted) = (file.clone(), wanted.clone());
                kept.extend(blocking(move || of_epochs(&file, body, wanted)).await?);
            }
            let (Some(file), Some(first)) = (files.into_iter().next(), kept.first()) else { continue };
            let (schema, contract) = (first.schema(), Arc::clone(contract));
            let changes = blocking(move || {
                let all = concat_batches(&schema, &kept).map_err(|error| unreadable(&file, error))?;
                drop(kept);
                by_epoch(&file, &all, &contract)
            });
            found.extend(changes.await?);
        }
        Ok(Some(found))
    }
}

fn covers(compaction: &Compaction, n: EpochNumber) -> bool {
    (compaction.first..=compaction.last).contains(&n)
}

/// The rows of some epochs in a compacted file. The others are passed over before they are decoded.
fn of_epochs(file: &DataFile, body: Bytes, wanted: BTreeSet<EpochNumber>) -> Result<Vec<RecordBatch>> {
    let broken = |error: ParquetError| unreadable(file, error);
    let builder = ParquetRecordBatchReaderBuilder::try_new(body).map_err(broken)?;
    let epochs = ProjectionMask::columns(builder.parquet_schema(), [EPOCH]);
    let is_wanted = move |batch: RecordBatch| {
        let epochs = batch.column(0).as_primitive_opt::<Int64Type>();
        let epochs = epochs.ok_or_else(|| ArrowError::SchemaError(format!("{EPOCH} is no number")))?;
        Ok(epochs.values().iter().map(|n| Some(wanted.contains(&(*n as EpochNumber)))).collect::<BooleanArray>())
    };
    let filter = RowFilter::new(vec![Box::new(ArrowPredicateFn::new(epochs, is_wanted))]);
    let reader = builder.with_row_filter(filter).with_batch_size(BATCH_ROWS).build().map_err(broken)?;
    reader.map(|batch| batch.map_err(|error| unreadable(file, error))).collect()
}

/// The files by version of the contract: only those have the same columns.
fn groups(compaction: &Compaction) -> Vec<Vec<DataFile>> {
    let mut groups: BTreeMap<u32, Vec<DataFile>> = BTreeMap::new();
    for file in &compaction.files {
        groups.entry(file.contract).or_default().push(file.clone());
    }
    groups.into_values().collect()
}

/// Rows in the order that they had, by epoch.
fn by_epoch(
    file: &DataFile,
    rows: &RecordBatch,
    contract: &Arc<Contract>,
) -> Result<BTreeMap<EpochNumber, Vec<TableChanges>>> {
    let (epochs, places) = (numbers(file, rows, EPOCH)?, numbers(file, rows, ROW)?);
    let mut order: Vec<u32> = (0..rows.num_rows() as u32).collect();
    order.sort_unstable_by_key(|&row| (epochs.value(row as usize), places.value(row as usize)));
    let sorted = take_record_batch(rows, &UInt32Array::from(order)).map_err(|error| unreadable(file, error))?;
    let epochs = numbers(file, &sorted, EPOCH)?;
    let mut found = BTreeMap::new();
    let mut start = 0;
    for row in 1..=sorted.num_rows() {
        if row < sorted.num_rows() && epochs.value(row) == epochs.value(start) {
            continue;
        }
        let changes = split(file, &sorted.slice(start, row - start), contract)?;
        found.insert(epochs.value(start) as EpochNumber, changes);
        start = row;
    }
    Ok(found)
}

/// Work that holds a thread up.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T> + Send + 'static) -> Result<T> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|error| Error::new(ErrorKind::Internal, "read files of the lake").because(error))?
}
