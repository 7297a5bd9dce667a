//! Which epochs become one warehouse transaction. Pure: the same log and ledger give the same unit.
//!
//! Normally a unit takes the group from its ledger's epoch to the newest one, as far as the limit allows. A table that is
//! stopped (paused, parked) stays behind: the unit's `held` remembers where. Once it runs again, the next units bring it
//! from there to where the group stands.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::epoch::{EpochNumber, Manifest};

/// One epoch's part of a unit: which tables are taken from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Take {
    /// The epoch.
    pub n: EpochNumber,
    /// The tables with files in it that are to be loaded.
    pub tables: Vec<String>,
}

/// What one transaction is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnitPlan {
    /// The ledger after it.
    pub through: EpochNumber,
    /// The tables that stay behind after it.
    pub held: BTreeMap<String, EpochNumber>,
    /// The epochs to read, in order.
    pub takes: Vec<Take>,
    /// Their row bytes (Arrow, in memory).
    pub bytes: u64,
}

/// Where a group stands and what is wanted.
#[derive(Debug)]
pub struct Standing<'a> {
    /// The group's tables.
    pub tables: &'a [String],
    /// The ledger's epoch.
    pub after: EpochNumber,
    /// The ledger's held tables.
    pub held: &'a BTreeMap<String, EpochNumber>,
    /// Tables that are stopped now.
    pub stopped: &'a BTreeSet<String>,
    /// The most row bytes (Arrow, in memory) of one unit; one epoch is always taken.
    pub max_bytes: u64,
}

/// The first epoch that [`plan`] needs to see.
pub fn first_needed(standing: &Standing<'_>) -> EpochNumber {
    let resumed = standing.held.iter().filter(|(table, _)| !standing.stopped.contains(*table)).map(|(_, n)| *n);
    resumed.chain([standing.after]).min().unwrap_or(standing.after) + 1
}

/// Plans the next unit from `manifests`, which begin at [`first_needed`] and are dense. `None` = nothing to do.
pub fn plan(standing: &Standing<'_>, manifests: &[Arc<Manifest>]) -> Option<UnitPlan> {
    let mut held = standing.held.clone();
    for table in standing.tables {
        if standing.stopped.contains(table) {
            held.entry(table.clone()).or_insert(standing.after);
        }
    }
    let catching_up: Vec<&String> = held.keys().filter(|t| !standing.stopped.contains(*t)).collect();
    if catching_up.is_empty() { advance(standing, held, manifests) } else { catch_up(standing, held, manifests) }
}

/// Everything in the group is at the ledger's epoch (or stays behind): go on from there.
fn advance(
    standing: &Standing<'_>,
    held: BTreeMap<String, EpochNumber>,
    manifests: &[Arc<Manifest>],
) -> Option<UnitPlan> {
    let (takes, through, bytes) =
        collect(standing, manifests, EpochNumber::MAX, |table, n| n > standing.after && !held.contains_key(table));
    let through = through.unwrap_or(standing.after).max(standing.after);
    (through > standing.after || held != *standing.held).then_some(UnitPlan { through, held, takes, bytes })
}

/// Brings the tables that were held and run again up to the ledger's epoch; the others wait for that.
fn catch_up(
    standing: &Standing<'_>,
    mut held: BTreeMap<String, EpochNumber>,
    manifests: &[Arc<Manifest>],
) -> Option<UnitPlan> {
    let (takes, through, bytes) = collect(standing, manifests, standing.after, |table, n| {
        !standing.stopped.contains(table) && held.get(table).is_some_and(|at| n > *at)
    });
    let through = through.unwrap_or(standing.after);
    held.retain(|table, at| {
        if standing.stopped.contains(table) {
            return true;
        }
        *at = (*at).max(through);
        *at < standing.after
    });
    Some(UnitPlan { through: standing.after, held, takes, bytes })
}

fn collect(
    standing: &Standing<'_>,
    manifests: &[Arc<Manifest>],
    last: EpochNumber,
    wanted: impl Fn(&str, EpochNumber) -> bool,
) -> (Vec<Take>, Option<EpochNumber>, u64) {
    let (mut takes, mut through, mut bytes) = (Vec::new(), None, 0u64);
    for manifest in manifests.iter().filter(|m| m.n <= last) {
        let tables: Vec<String> = standing
            .tables
            .iter()
            .filter(|table| manifest.tables.contains_key(*table) && wanted(table, manifest.n))
            .cloned()
            .collect();
        let size: u64 = tables.iter().flat_map(|t| &manifest.tables[t].files).map(|f| f.memory_bytes).sum();
        if bytes > 0 && bytes + size > standing.max_bytes {
            break;
        }
        bytes += size;
        through = Some(manifest.n);
        if !tables.is_empty() {
            takes.push(Take { n: manifest.n, tables });
        }
    }
    (takes, through, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch::{Account, DataFile, FORMAT_VERSION, TableEpoch};

    fn manifest(n: EpochNumber, tables: &[&str]) -> Arc<Manifest> {
        let file = DataFile { path: format!("{n}"), contract: 1, rows: 1, bytes: 10, memory_bytes: 100, crc32: 0 };
        let epoch = TableEpoch { files: vec![file], ..TableEpoch::default() };
        Arc::new(Manifest {
            format: FORMAT_VERSION,
            reader: FORMAT_VERSION,
            log: uuid::Uuid::nil(),
            n,
            attempt: ulid::Ulid::nil(),
            sealed_at: chrono::DateTime::UNIX_EPOCH,
            spans: Vec::new(),
            tables: tables.iter().map(|t| ((*t).to_owned(), epoch.clone())).collect(),
            quarantine: None,
            raw: None,
            contracts: Vec::new(),
            control: Vec::new(),
            account: Account::default(),
        })
    }

    struct Group {
        tables: Vec<String>,
        after: EpochNumber,
        held: BTreeMap<String, EpochNumber>,
        stopped: BTreeSet<String>,
        max_bytes: u64,
    }

    impl Group {
        fn new(max_bytes: u64) -> Self {
            let tables = vec!["a".to_owned(), "b".to_owned()];
            Self { tables, after: 0, held: BTreeMap::new(), stopped: BTreeSet::new(), max_bytes }
        }

        fn plan(&self, log: &[Arc<Manifest>]) -> Option<UnitPlan> {
            let standing = Standing {
                tables: &self.tables,
                after: self.after,
                held: &self.held,
                stopped: &self.stopped,
                max_bytes: self.max_bytes,
            };
            let first = first_needed(&standing);
            let seen: Vec<Arc<Manifest>> = log.iter().filter(|m| m.n >= first).cloned().collect();
            plan(&standing, &seen)
        }

        /// Applies units until there is nothing to do; returns what each table got, in order.
        fn drain(&mut self, log: &[Arc<Manifest>]) -> BTreeMap<String, Vec<EpochNumber>> {
            let mut got: BTreeMap<String, Vec<EpochNumber>> = BTreeMap::new();
            while let Some(unit) = self.plan(log) {
                for take in unit.takes {
                    take.tables.into_iter().for_each(|t| got.entry(t).or_default().push(take.n));
                }
                (self.after, self.held) = (unit.through, unit.held);
            }
            got
        }
    }

    fn log() -> Vec<Arc<Manifest>> {
        vec![manifest(1, &["a", "b"]), manifest(2, &[]), manifest(3, &["a"]), manifest(4, &["a", "b", "other"])]
    }

    #[test]
    fn a_backlog_is_one_unit_within_the_limit() {
        let group = Group::new(10_000);
        let unit = group.plan(&log()).expect("there is work");
        assert_eq!((unit.through, unit.takes.len()), (4, 3));
        let small = Group::new(250);
        assert_eq!(small.plan(&log()).map(|u| u.through), Some(2));
    }

    #[test]
    fn every_table_gets_every_epoch_once_whatever_the_limit() {
        for max_bytes in [1, 150, 250, 10_000] {
            let mut group = Group::new(max_bytes);
            let got = group.drain(&log());
            assert_eq!(got["a"], [1, 3, 4]);
            assert_eq!(got["b"], [1, 4]);
            assert_eq!(group.after, 4);
        }
    }

    #[test]
    fn a_stopped_table_waits_and_catches_up_without_loss_or_double() {
        for max_bytes in [1, 10_000] {
            let mut group = Group::new(max_bytes);
            assert_eq!(group.drain(&log()[..1])["b"], [1]);
            group.stopped.insert("b".to_owned());
            let got = group.drain(&log());
            assert_eq!(got.get("b"), None);
            assert_eq!(got["a"], [3, 4]);
            assert_eq!(group.held["b"], 1);
            group.stopped.clear();
            let got = group.drain(&log());
            assert_eq!(got["b"], [4]);
            assert_eq!(got.get("a"), None);
            assert!(group.held.is_empty());
        }
    }
}
