//! The sum of all manifests: a pure function of them, so that every process that reads the log knows the same.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use ulid::Ulid;
use uuid::Uuid;

use crate::contract::Contract;
use crate::epoch::{Account, Control, EpochNumber, Manifest, TableEpoch};
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Progress;

/// Why and since when a table's changes wait.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stopped {
    /// In the words of whoever paused it.
    pub why: String,
    /// It stopped by itself.
    #[serde(default)]
    pub parked: bool,
    /// The epoch whose manifest says so.
    pub since: EpochNumber,
}

/// What the log holds of a table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TableTotals {
    /// Rows in files, markers included.
    pub rows: u64,
    /// Bytes of files.
    pub bytes: u64,
    /// Files.
    pub files: u64,
    /// Newest commit time at the source, microseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_source_time_us: Option<i64>,
    /// The newest epoch with files of it.
    pub epoch: EpochNumber,
}

impl TableTotals {
    fn add(&mut self, n: EpochNumber, table: &TableEpoch) {
        self.files += table.files.len() as u64;
        for file in &table.files {
            self.rows += file.rows;
            self.bytes += file.bytes;
        }
        self.max_source_time_us = self.max_source_time_us.max(table.max_source_time_us);
        self.epoch = n;
    }
}

/// Where the log stands.
#[derive(Debug, Clone, PartialEq)]
pub struct LogState {
    /// Which log.
    pub log: Uuid,
    /// The newest manifest; 0 = none.
    pub n: EpochNumber,
    /// The attempt that wrote it.
    pub attempt: Ulid,
    /// Where all partitions stand.
    pub progress: Progress,
    /// The newest version of each contract.
    pub contracts: BTreeMap<String, Arc<Contract>>,
    /// All versions.
    pub versions: BTreeMap<(String, u32), Arc<Contract>>,
    /// Tables whose changes wait.
    pub stopped: BTreeMap<String, Stopped>,
    /// Tables that a person asked to read again, and the epoch that says so.
    pub resyncs: BTreeMap<String, EpochNumber>,
    /// Quarantined entries that were neither retried nor dropped, by table (`""` where it is not known).
    pub open_quarantine: BTreeMap<String, u64>,
    /// Quarantined entries that were still open when their retention was over, by table.
    pub expired_quarantine: BTreeMap<String, u64>,
    /// The newest epoch whose quarantined entries are past their retention; 0 = none. Nothing is open up to it.
    pub expired_through: EpochNumber,
    /// Entries of later epochs that were retried or dropped, by epoch and table.
    pub closed_quarantine: BTreeMap<EpochNumber, BTreeMap<String, u64>>,
    /// The epochs whose manifests say what was compacted, by hour.
    pub compactions: Arc<BTreeMap<String, Vec<EpochNumber>>>,
    /// Nothing is left to compact up to this epoch.
    pub compacted_through: EpochNumber,
    /// What compactions up to this epoch replaced is deleted.
    pub retired_through: EpochNumber,
    /// The sum of all accounts.
    pub account: Account,
    /// What the log holds of each table.
    pub tables: BTreeMap<String, TableTotals>,
}

impl LogState {
    /// An empty log.
    pub fn new(log: Uuid) -> Self {
        Self {
            log,
            n: 0,
            attempt: Ulid::nil(),
            progress: Progress::default(),
            contracts: BTreeMap::new(),
            versions: BTreeMap::new(),
            stopped: BTreeMap::new(),
            resyncs: BTreeMap::new(),
            open_quarantine: BTreeMap::new(),
            expired_quarantine: BTreeMap::new(),
            expired_through: 0,
            closed_quarantine: BTreeMap::new(),
            compactions: Arc::default(),
            compacted_through: 0,
            retired_through: 0,
            account: Account::default(),
            tables: BTreeMap::new(),
        }
    }

    /// That version of a table's contract.
    pub fn contract(&self, table: &str, version: u32) -> Option<&Arc<Contract>> {
        self.versions.get(&(table.to_owned(), version))
    }

    /// Takes in the next manifest. One whose spans do not join on is [`ErrorKind::LogCorrupt`]: nobody could commit it.
    pub fn apply(&mut self, manifest: &Manifest) -> Result<()> {
        let corrupt = |why: String| Error::new(ErrorKind::LogCorrupt, format!("manifest {} {why}", manifest.n));
        if manifest.n != self.n + 1 {
            return Err(corrupt(format!("does not follow {}", self.n)));
        }
        for advance in &manifest.spans {
            self.progress.advance(advance).map_err(|error| corrupt("does not join on".to_owned()).because(error))?;
        }
        for contract in &manifest.contracts {
            self.learn(Arc::new(contract.clone()));
        }
        for (table, epoch) in &manifest.tables {
            if let Some(file) = epoch.files.iter().find(|file| self.contract(table, file.contract).is_none()) {
                return Err(corrupt(format!(
                    "names version {} of contract {table}, which no one knows",
                    file.contract
                )));
            }
            self.tables.entry(table.clone()).or_default().add(manifest.n, epoch);
        }
        for (table, count) in manifest.quarantine.iter().flat_map(|file| &file.by_table) {
            *self.open_quarantine.entry(table.clone()).or_default() += count;
        }
        for control in &manifest.control {
            self.obey(manifest.n, control);
        }
        self.account.add(&manifest.account);
        (self.n, self.attempt) = (manifest.n, manifest.attempt);
        Ok(())
    }

    pub(super) fn learn(&mut self, contract: Arc<Contract>) {
        self.versions.insert((contract.table.clone(), contract.version), Arc::clone(&contract));
        let newest = self.contracts.entry(contract.table.clone()).or_insert_with(|| Arc::clone(&contract));
        if newest.version < contract.version {
            *newest = contract;
        }
    }

    fn obey(&mut self, n: EpochNumber, control: &Control) {
        match control {
            Control::Pause { table, why, parked } => {
                self.stopped.insert(table.clone(), Stopped { why: why.clone(), parked: *parked, since: n });
            }
            Control::Resume { table } => {
                self.stopped.remove(table);
            }
            Control::Resync { table } => {
                self.resyncs.insert(table.clone(), n);
            }
            Control::Retried { epoch, rows, table } | Control::Dropped { epoch, rows, table } => {
                let count = rows.len() as u64;
                self.close(table, count);
                if *epoch > self.expired_through {
                    *self.closed_quarantine.entry(*epoch).or_default().entry(table.clone()).or_default() += count;
                }
            }
            Control::Expired { through, open } => {
                for (table, count) in open {
                    self.close(table, *count);
                    *self.expired_quarantine.entry(table.clone()).or_default() += count;
                }
                self.expired_through = self.expired_through.max(*through);
                self.closed_quarantine.retain(|epoch, _| epoch > through);
            }
            Control::Compacted { hour, tables, considered } => {
                if !tables.is_empty() {
                    // Cheap to copy while nothing is compacted: the state is copied for every manifest.
                    Arc::make_mut(&mut self.compactions).entry(hour.clone()).or_default().push(n);
                }
                self.compacted_through = self.compacted_through.max(*considered);
            }
            Control::Retired { through } => self.retired_through = self.retired_through.max(*through),
        }
    }

    fn close(&mut self, table: &str, count: u64) {
        if let Some(open) = self.open_quarantine.get_mut(table) {
            *open = open.saturating_sub(count);
        }
        self.open_quarantine.retain(|_, open| *open > 0);
    }
}
