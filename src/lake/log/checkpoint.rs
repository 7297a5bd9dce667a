//! The state as an object every 64 manifests, so that start-up reads few of them. Only a cache of the log's prefix:
//! losing one costs time, not truth.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::sync::Arc;
use ulid::Ulid;
use uuid::Uuid;

use super::state::{LogState, Stopped, TableTotals};
use super::{manifest_path, refuse_newer};
use crate::contract::Contract;
use crate::epoch::{Account, EpochNumber, FORMAT_VERSION, Manifest};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::store::Store;
use crate::progress::{Partition, Standing};

/// Manifests between checkpoints.
const EVERY: EpochNumber = 64;
const FOLDER: &str = "_log/checkpoint";

/// A partition's standing, as stored.
#[derive(Serialize, Deserialize)]
struct StoredStanding {
    #[serde(flatten)]
    partition: Partition,
    #[serde(flatten)]
    standing: Standing,
}

/// The stored form of a [`LogState`].
#[derive(Serialize, Deserialize)]
struct Stored {
    format: u32,
    reader: u32,
    log: Uuid,
    n: EpochNumber,
    attempt: Ulid,
    progress: Vec<StoredStanding>,
    /// All versions; the newest are the largest.
    contracts: Vec<Contract>,
    stopped: BTreeMap<String, Stopped>,
    resyncs: BTreeMap<String, EpochNumber>,
    open_quarantine: BTreeMap<String, u64>,
    #[serde(default)]
    expired_quarantine: BTreeMap<String, u64>,
    #[serde(default)]
    expired_through: EpochNumber,
    #[serde(default)]
    closed_quarantine: BTreeMap<EpochNumber, BTreeMap<String, u64>>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    compactions: BTreeMap<String, Vec<EpochNumber>>,
    #[serde(default)]
    compacted_through: EpochNumber,
    #[serde(default)]
    retired_through: EpochNumber,
    account: Account,
    tables: BTreeMap<String, TableTotals>,
}

fn path(n: EpochNumber) -> String {
    format!("{FOLDER}/{n:020}.json")
}

/// Whether a checkpoint belongs at `n`.
pub(super) fn is_due(n: EpochNumber) -> bool {
    n.is_multiple_of(EVERY)
}

/// The number of the first checkpoint beyond `n`.
pub(super) fn next_due(n: EpochNumber) -> EpochNumber {
    (n / EVERY + 1) * EVERY
}

/// Stops a writer whose log was cut off: a checkpoint beyond its number says that there were more manifests.
pub(super) async fn refuse_beyond(store: &Store, n: EpochNumber) -> Result<()> {
    let beyond = next_due(n);
    if !store.exists(&path(beyond)).await? {
        return Ok(());
    }
    // Another writer may have gone that far since we looked: then our own next number is taken.
    if store.exists(&manifest_path(n + 1)).await? {
        return Ok(());
    }
    Err(cut_off(store, beyond, n + 1))
}

fn cut_off(store: &Store, checkpoint: EpochNumber, missing: EpochNumber) -> Error {
    let what = format!(
        "{} has checkpoint {checkpoint} but not manifest {missing}: manifests are missing from the log",
        store.url()
    );
    Error::new(ErrorKind::LogCorrupt, what)
        .help("going on would write other epochs under numbers that were used: restore _log from a copy")
}

/// Leaves a checkpoint of `state`. A failure is only told: the commit stands without it.
pub(super) async fn leave(store: &Store, state: &LogState) {
    let body = match serde_json::to_vec(&Stored::of(state)) {
        Ok(body) => body,
        Err(error) => return tracing::warn!(n = state.n, %error, "cannot write a checkpoint"),
    };
    match store.create_own("log.checkpoint", &path(state.n), body.into()).await {
        Ok(()) => tracing::debug!(n = state.n, "left a checkpoint"),
        Err(error) => tracing::warn!(n = state.n, %error, "no checkpoint; the next one makes up for it"),
    }
}

/// The newest checkpoint that this program can read, if there is one.
pub(super) async fn newest(store: &Store, log: Uuid) -> Result<Option<LogState>> {
    let mut names: Vec<String> = store.list(FOLDER).await?.iter().map(|meta| meta.location.to_string()).collect();
    names.sort();
    let Some(name) = names.last() else { return Ok(None) };
    let Some((body, _)) = store.get(name).await? else { return Ok(None) };
    let place = format!("{}/{name}", store.url());
    refuse_newer(&place, &body)?;
    let broken = || Error::new(ErrorKind::LogCorrupt, format!("{place} cannot be read"));
    let help = "delete this checkpoint: the log is then read from the one before it";
    let stored: Stored = serde_json::from_slice(&body).map_err(|error| broken().because(error).help(help))?;
    if stored.log != log || path(stored.n) != *name {
        return Err(broken().help(format!("it belongs to log {}, this is log {log}; was it copied?", stored.log)));
    }
    prove_manifest(store, &stored).await?;
    Ok(Some(stored.state()))
}

/// The checkpoint's own manifest must be there and be the one that it was made at.
async fn prove_manifest(store: &Store, stored: &Stored) -> Result<()> {
    let Some((body, _)) = store.get(&manifest_path(stored.n)).await? else {
        return Err(cut_off(store, stored.n, stored.n));
    };
    let manifest: Option<Manifest> = serde_json::from_slice(&body).ok();
    if manifest.is_some_and(|manifest| manifest.attempt == stored.attempt) {
        return Ok(());
    }
    let what = format!("checkpoint {} of {} was made of another manifest {0}", stored.n, store.url());
    Err(Error::new(ErrorKind::LogCorrupt, what).help("the log was cut off and written again: restore _log from a copy"))
}

impl Stored {
    fn of(state: &LogState) -> Self {
        let standing = |(partition, standing): (&Partition, &Standing)| StoredStanding {
            partition: partition.clone(),
            standing: standing.clone(),
        };
        // A program that knows nothing of compactions would lose them.
        let format = if state.compacted_through == 0 && state.compactions.is_empty() { 1 } else { FORMAT_VERSION };
        Self {
            format,
            reader: format,
            log: state.log,
            n: state.n,
            attempt: state.attempt,
            progress: state.progress.iter().map(standing).collect(),
            contracts: state.versions.values().map(|contract| Contract::clone(contract)).collect(),
            stopped: state.stopped.clone(),
            resyncs: state.resyncs.clone(),
            open_quarantine: state.open_quarantine.clone(),
            expired_quarantine: state.expired_quarantine.clone(),
            expired_through: state.expired_through,
            closed_quarantine: state.closed_quarantine.clone(),
            compactions: BTreeMap::clone(&state.compactions),
            compacted_through: state.compacted_through,
            retired_through: state.retired_through,
            account: state.account.clone(),
            tables: state.tables.clone(),
        }
    }

    fn state(self) -> LogState {
        let mut state = LogState::new(self.log);
        (state.n, state.attempt) = (self.n, self.attempt);
        for StoredStanding { partition, standing } in self.progress {
            state.progress.set(partition, standing);
        }
        for contract in self.contracts {
            state.learn(Arc::new(contract));
        }
        state.stopped = self.stopped;
        state.resyncs = self.resyncs;
        state.open_quarantine = self.open_quarantine;
        state.expired_quarantine = self.expired_quarantine;
        state.expired_through = self.expired_through;
        state.closed_quarantine = self.closed_quarantine;
        state.compactions = Arc::new(self.compactions);
        state.compacted_through = self.compacted_through;
        state.retired_through = self.retired_through;
        state.account = self.account;
        state.tables = self.tables;
        state
    }
}
