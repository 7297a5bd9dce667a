//! The commit: one put of one manifest, and what its ambiguous answers mean.
//!
//! Success: committed. Anything else is read back: mine (by attempt) = committed; absent = the same number again;
//! another's = its spans and contracts are taken in, ours must still join on, and the next number is tried.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, TimeDelta, Utc};
use ulid::Ulid;

use super::{Access, Log, LogState, checkpoint, manifest_path};
use crate::contract::{Contract, TableSchema, join_schemas};
use crate::epoch::{Account, Control, DataFile, Manifest, RejectFile, TableEpoch};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::store::{Created, Pause, vanished};
use crate::progress::Advance;

/// How long a sealed attempt may try. Its files are safe from the sweep for far longer.
const ATTEMPT_LIFETIME: TimeDelta = TimeDelta::hours(1);

/// What the operators make of a table's input columns: `(table, input) → output`.
pub type Derive<'a> = &'a (dyn Fn(&str, &TableSchema) -> Result<TableSchema> + Sync);

/// An epoch that is sealed and uploaded but not committed.
#[derive(Debug, Clone)]
pub struct Draft {
    /// Who wrote it: [`EpochWriter::attempt`](crate::lake::EpochWriter::attempt), or a new ULID when there are no files.
    pub attempt: Ulid,
    /// When it was sealed, by this process's clock.
    pub sealed_at: DateTime<Utc>,
    /// What was read.
    pub spans: Vec<Advance>,
    /// Data by table.
    pub tables: BTreeMap<String, DraftTable>,
    /// What was refused.
    pub quarantine: Option<RejectFile>,
    /// Raw payloads.
    pub raw: Option<DataFile>,
    /// What people asked for.
    pub control: Vec<Control>,
    /// What became of every record and row.
    pub account: Account,
}

impl Draft {
    /// A draft without data.
    pub fn new(attempt: Ulid, sealed_at: DateTime<Utc>) -> Self {
        Self {
            attempt,
            sealed_at,
            spans: Vec::new(),
            tables: BTreeMap::new(),
            quarantine: None,
            raw: None,
            control: Vec::new(),
            account: Account::default(),
        }
    }
}

/// A table's part of a draft. The contract version is given at the commit.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DraftTable {
    /// Its files.
    pub epoch: TableEpoch,
    /// The input columns that its rows were read with.
    pub input: TableSchema,
    /// The output columns of each file, in the files' order.
    pub outputs: Vec<TableSchema>,
}

enum Answer {
    Mine,
    Another(Box<Manifest>),
}

impl Log {
    /// Commits a draft as the next manifest. `derive` gives a table's output columns for the joined input columns.
    ///
    /// [`ErrorKind::Fenced`]: another process moved our partitions or contracts, or the draft is older than an hour:
    /// drop it and read again. [`ErrorKind::StoreUnavailable`]: nobody knows; the same draft may be committed again.
    pub async fn commit(&self, draft: Draft, derive: Derive<'_>) -> Result<Arc<Manifest>> {
        if self.access == Access::Read {
            return Err(Error::new(ErrorKind::Internal, "commit to a log that was opened to be read"));
        }
        if let Some(imbalance) = draft.account.imbalance() {
            return Err(Error::new(ErrorKind::Internal, format!("the epoch's account does not balance: {imbalance}")));
        }
        let _turn = self.shared.turn.lock().await;
        let committed = self.known().attempts.get(&draft.attempt).copied();
        if let Some(committed) = committed {
            return self.manifest(committed).await;
        }
        let mut checked = None;
        loop {
            let state = self.state();
            if checked != Some(checkpoint::next_due(state.n)) {
                checkpoint::refuse_beyond(&self.lake.store, state.n).await?;
                checked = Some(checkpoint::next_due(state.n));
            }
            let manifest = draft.manifest_on(&state, derive)?;
            match self.put(&manifest, draft.sealed_at).await? {
                Answer::Mine => return self.follow(manifest).await,
                Answer::Another(other) => {
                    tracing::info!(n = other.n, "another process took this epoch number; trying the next");
                    self.follow(*other).await?;
                }
            }
        }
    }

    async fn put(&self, manifest: &Manifest, sealed_at: DateTime<Utc>) -> Result<Answer> {
        let path = manifest_path(manifest.n);
        let body: Bytes = serde_json::to_vec(manifest)
            .map_err(|error| Error::new(ErrorKind::Internal, format!("write manifest {}", manifest.n)).because(error))?
            .into();
        let mut pause = Pause::default();
        loop {
            if Utc::now() - sealed_at > ATTEMPT_LIFETIME {
                return Err(Error::new(
                    ErrorKind::Fenced,
                    format!("attempt {} is older than an hour", manifest.attempt),
                )
                .help("its files may be swept: the epoch is dropped and read again"));
            }
            let failure = match self.lake.store.create("log.put", &path, body.clone()).await {
                Created::Yes => return Ok(Answer::Mine),
                Created::Exists => None,
                Created::Unknown(error) => Some(error),
            };
            match (self.read(manifest.n).await, failure) {
                (Ok(Some(found)), _) if found.attempt == manifest.attempt => return Ok(Answer::Mine),
                (Ok(Some(found)), _) => return Ok(Answer::Another(Box::new(found))),
                (Ok(None), Some(error)) if error.kind() != &ErrorKind::StoreUnavailable => return Err(error),
                (Ok(None), failure) => pause.next(failure.unwrap_or_else(|| vanished(&path))).await?,
                (Err(error), _) if error.kind() != &ErrorKind::StoreUnavailable => return Err(error),
                (Err(error), _) => pause.next(error).await?,
            }
        }
    }
}

impl Draft {
    /// The manifest that follows `state`, or why there can be none.
    fn manifest_on(&self, state: &LogState, derive: Derive<'_>) -> Result<Manifest> {
        let mut progress = state.progress.clone();
        for advance in &self.spans {
            progress.advance(advance)?;
        }
        let mut contracts = Vec::new();
        let mut tables = BTreeMap::new();
        for (table, part) in &self.tables {
            let contract = agree(state.contracts.get(table), table, &part.input, derive)?;
            tables.insert(table.clone(), part.under(&contract));
            if state.contract(table, contract.version).is_none() {
                contracts.push(contract);
            }
        }
        let quarantine = self.quarantine.clone();
        let format = self.control.iter().map(Control::reader).max().unwrap_or(1);
        Ok(Manifest {
            format,
            reader: format,
            log: state.log,
            n: state.n + 1,
            attempt: self.attempt,
            sealed_at: self.sealed_at,
            spans: self.spans.clone(),
            tables,
            quarantine,
            raw: self.raw.clone(),
            contracts,
            control: self.control.clone(),
            account: self.account.clone(),
        })
    }
}

/// The contract that holds what is known and what was seen: the known one, or its next version.
fn agree(known: Option<&Arc<Contract>>, table: &str, seen: &TableSchema, derive: Derive<'_>) -> Result<Contract> {
    let Some(known) = known else {
        return Ok(Contract { table: table.to_owned(), version: 1, input: seen.clone(), output: derive(table, seen)? });
    };
    let input = join_schemas(&known.input, seen).map_err(|clash| {
        let (column, was, is) = (&clash.column, &clash.known, &clash.seen);
        let what = format!("table {table}: column `{column}` is {was} in the log and {is} in this epoch");
        Error::new(ErrorKind::Fenced, what).help("another process learned something else; the epoch is read again")
    })?;
    let output = derive(table, &input)?;
    if input == known.input && output == known.output {
        return Ok(Contract::clone(known));
    }
    Ok(Contract { table: table.to_owned(), version: known.version + 1, input, output })
}

impl DraftTable {
    fn under(&self, contract: &Contract) -> TableEpoch {
        let mut epoch = self.epoch.clone();
        let columns = |schema: &TableSchema| -> Vec<_> {
            schema.columns.iter().map(|c| (c.name.clone(), c.data_type.arrow())).collect()
        };
        let wanted = columns(&contract.output);
        let as_it_stands =
            self.outputs.len() == epoch.files.len() && self.outputs.iter().all(|output| columns(output) == wanted);
        epoch.fold |= !as_it_stands;
        for file in &mut epoch.files {
            file.contract = contract.version;
        }
        epoch
    }
}

/// Drops attempts that can no longer be committed.
pub(super) fn forget_old_attempts(attempts: &mut HashMap<Ulid, u64>) {
    if attempts.len() > 256 {
        let oldest = (Utc::now() - ATTEMPT_LIFETIME * 4).timestamp_millis().max(0) as u64;
        attempts.retain(|attempt, _| attempt.timestamp_ms() >= oldest);
    }
}
