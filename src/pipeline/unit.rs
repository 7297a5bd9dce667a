//! Which epochs become one warehouse transaction. Pure: the same log and ledger give the same unit.
//!
//! Normally a unit takes the group from its ledger's epoch to the newest one, as far as the limit allows. A table that is
//! stopped (paused, parked), or is not in the topology any more, stays behind: the unit's `held` remembers where. Once it
//! runs again, the next units bring it from there to where the group stands. A table that came from another group may
//! stand *ahead* of this one: then `held` says so too, and what it has already is left out.
//!
//! Epochs without anything for the group are no work: the ledger moves over them with the next unit that has rows, or when
//! it has fallen [`IDLE_EPOCHS`] behind.

use std::collections::{BTreeMap, BTreeSet};

use crate::epoch::{EpochNumber, TableEpoch};

/// Epochs without anything for a group after which its ledger is moved all the same: a start reads the log from there.
pub const IDLE_EPOCHS: u64 = 256;

/// An epoch with something that the warehouse lacks.
#[derive(Debug, Clone, PartialEq)]
pub struct Pending {
    /// The epoch.
    pub n: EpochNumber,
    /// When it was sealed, microseconds since 1970.
    pub sealed_at_us: i64,
    /// When it was first seen here, by the clock here.
    pub seen_at_us: i64,
    /// What it has of the group's tables, as far as the warehouse lacks it.
    pub tables: BTreeMap<String, TableEpoch>,
}

impl Pending {
    /// Row bytes (Arrow, in memory).
    pub fn bytes(&self) -> u64 {
        self.tables.values().flat_map(|table| &table.files).map(|file| file.memory_bytes).sum()
    }
}

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
    /// The tables that do not stand at `through` after it.
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
    /// Tables that the warehouse knows in this group and the topology does not.
    pub gone: &'a BTreeSet<String>,
    /// The most row bytes (Arrow, in memory) of one unit; one epoch is always taken.
    pub max_bytes: u64,
}

impl Standing<'_> {
    /// The last epoch that the warehouse holds of a table.
    pub fn position(&self, table: &str) -> EpochNumber {
        self.held.get(table).copied().unwrap_or(self.after)
    }

    /// Whether a table's changes are loaded.
    pub fn runs(&self, table: &str) -> bool {
        !self.stopped.contains(table) && self.tables.iter().any(|ours| ours == table)
    }

    /// The tables whose changes are loaded.
    pub fn running(&self) -> impl Iterator<Item = &String> {
        self.tables.iter().filter(|table| !self.stopped.contains(*table))
    }

    /// The first epoch that [`plan`] needs to see.
    pub fn first_needed(&self) -> EpochNumber {
        self.running().map(|table| self.position(table)).chain([self.after]).min().unwrap_or(self.after) + 1
    }
}

/// Plans the next unit. `pending`: what the log has from [`Standing::first_needed`] up to the epoch `seen`, in order.
/// `None` = nothing to do.
pub fn plan(standing: &Standing<'_>, pending: &[Pending], seen: EpochNumber) -> Option<UnitPlan> {
    let mut held = standing.held.clone();
    let waiting = standing.tables.iter().filter(|table| standing.stopped.contains(*table)).chain(standing.gone);
    waiting.for_each(|table| {
        held.entry(table.clone()).or_insert(standing.after);
    });
    let behind = |table: &str| standing.runs(table) && standing.position(table) < standing.after;
    if standing.tables.iter().any(|table| behind(table)) {
        let part = collect(standing, pending, seen.min(standing.after), behind);
        held.retain(|table, at| {
            if behind(table) {
                *at = (*at).max(part.through);
            }
            *at != standing.after || !standing.runs(table)
        });
        if !part.takes.is_empty() {
            return Some(UnitPlan { through: standing.after, held, takes: part.takes, bytes: part.bytes });
        }
        // They missed nothing: they go on with the others.
    }
    advance(standing, held, pending, seen)
}

/// Everything in the group is at the ledger's epoch (or stays behind, or is ahead): go on from there.
fn advance(
    standing: &Standing<'_>,
    mut held: BTreeMap<String, EpochNumber>,
    pending: &[Pending],
    seen: EpochNumber,
) -> Option<UnitPlan> {
    let Part { takes, through, bytes } = collect(standing, pending, seen, |table| standing.runs(table));
    let through = through.max(standing.after);
    held.retain(|table, at| *at > through || !standing.runs(table));
    (!takes.is_empty() || through >= standing.after + IDLE_EPOCHS).then_some(UnitPlan { through, held, takes, bytes })
}

struct Part {
    takes: Vec<Take>,
    /// Up to here everything is taken.
    through: EpochNumber,
    bytes: u64,
}

fn collect(standing: &Standing<'_>, pending: &[Pending], last: EpochNumber, wanted: impl Fn(&str) -> bool) -> Part {
    let mut part = Part { takes: Vec::new(), through: last, bytes: 0 };
    for epoch in pending.iter().filter(|epoch| epoch.n <= last) {
        let wanted = |table: &String| wanted(table) && epoch.n > standing.position(table);
        let tables: Vec<String> =
            standing.tables.iter().filter(|t| epoch.tables.contains_key(*t) && wanted(t)).cloned().collect();
        if tables.is_empty() {
            continue;
        }
        let size: u64 = tables.iter().flat_map(|t| &epoch.tables[t].files).map(|f| f.memory_bytes).sum();
        if part.bytes > 0 && part.bytes + size > standing.max_bytes {
            part.through = epoch.n - 1;
            break;
        }
        part.bytes += size;
        part.takes.push(Take { n: epoch.n, tables });
    }
    part
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch::DataFile;

    fn pending(n: EpochNumber, tables: &[&str]) -> Pending {
        let file = DataFile { path: format!("{n}"), contract: 1, rows: 1, bytes: 10, memory_bytes: 100, crc32: 0 };
        let epoch = TableEpoch { files: vec![file], ..TableEpoch::default() };
        let tables = tables.iter().map(|t| ((*t).to_owned(), epoch.clone())).collect();
        Pending { n, sealed_at_us: 0, seen_at_us: 0, tables }
    }

    struct Group {
        tables: Vec<String>,
        after: EpochNumber,
        held: BTreeMap<String, EpochNumber>,
        stopped: BTreeSet<String>,
        gone: BTreeSet<String>,
        max_bytes: u64,
    }

    impl Group {
        fn new(max_bytes: u64) -> Self {
            let tables = vec!["a".to_owned(), "b".to_owned()];
            let none = BTreeSet::new();
            Self { tables, after: 0, held: BTreeMap::new(), stopped: none.clone(), gone: none, max_bytes }
        }

        fn plan(&self, log: &[Pending]) -> Option<UnitPlan> {
            let standing = Standing {
                tables: &self.tables,
                after: self.after,
                held: &self.held,
                stopped: &self.stopped,
                gone: &self.gone,
                max_bytes: self.max_bytes,
            };
            let first = standing.first_needed();
            let seen: Vec<Pending> = log.iter().filter(|p| p.n >= first).cloned().collect();
            plan(&standing, &seen, log.last().map_or(0, |p| p.n))
        }

        /// Applies units until there is nothing to do; returns what each table got, in order.
        fn drain(&mut self, log: &[Pending]) -> BTreeMap<String, Vec<EpochNumber>> {
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

    fn log() -> Vec<Pending> {
        vec![pending(1, &["a", "b"]), pending(2, &[]), pending(3, &["a"]), pending(4, &["a", "b", "other"])]
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

    #[test]
    fn epochs_that_have_nothing_for_the_group_are_no_work_until_the_ledger_is_far_behind() {
        let mut group = Group::new(10_000);
        group.drain(&log());
        let quiet = [pending(5, &["other"]), pending(4 + IDLE_EPOCHS, &["other"])];
        assert_eq!(group.plan(&quiet[..1]), None);
        let unit = group.plan(&quiet).expect("the ledger has fallen behind");
        assert_eq!((unit.through, unit.takes.len()), (4 + IDLE_EPOCHS, 0));
    }

    #[test]
    fn a_table_that_missed_nothing_while_it_was_stopped_goes_on_with_the_others() {
        let mut group = Group::new(10_000);
        group.drain(&log());
        group.held.insert("b".to_owned(), 2);
        group.after = 3;
        let unit = group.plan(&[pending(4, &["a", "b"])]).expect("there is work");
        assert_eq!(unit.takes, [Take { n: 4, tables: vec!["a".to_owned(), "b".to_owned()] }]);
        assert_eq!((unit.through, unit.held.len()), (4, 0));
    }

    #[test]
    fn a_table_that_has_left_the_topology_is_remembered_where_it_stood() {
        let mut group = Group::new(10_000);
        assert_eq!(group.drain(&log()[..1])["b"], [1]);
        group.tables.retain(|table| table != "b");
        group.gone.insert("b".to_owned());
        assert_eq!(group.drain(&log())["a"], [3, 4]);
        assert_eq!((group.after, group.held["b"]), (4, 1));
        // It comes back: what was in the log when it left is still to be loaded.
        group.tables.push("b".to_owned());
        group.gone.clear();
        assert_eq!(group.drain(&log())["b"], [4]);
        assert!(group.held.is_empty());
    }

    #[test]
    fn a_table_that_is_ahead_of_its_group_gets_nothing_again() {
        for max_bytes in [1, 10_000] {
            let mut group = Group::new(max_bytes);
            group.held.insert("b".to_owned(), 3);
            let got = group.drain(&log());
            assert_eq!((&got["a"][..], &got["b"][..]), (&[1, 3, 4][..], &[4][..]));
            assert!(group.held.is_empty());
            // Stopped while it is ahead: it stays where it stands, which is behind once the group has passed it.
            let mut group = Group::new(max_bytes);
            group.held.insert("b".to_owned(), 3);
            group.stopped.insert("b".to_owned());
            assert_eq!(group.drain(&log()).get("b"), None);
            assert_eq!((group.after, group.held["b"]), (4, 3));
            group.stopped.clear();
            assert_eq!(group.drain(&log())["b"], [4]);
        }
    }
}
