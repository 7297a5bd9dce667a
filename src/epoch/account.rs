//! The account: nothing disappears unsaid. Both sums are asserted, at seal and at load.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::batch::RecordAccount;

/// What became of a table's rows on the way from the decoder to the lake:
/// `decoded = written + filtered + rejected` where `filtered` counts rows that left no trace (an insert that a filter
/// refused); a filtered update is written as a delete.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TableAccount {
    /// Rows that the decoder made.
    pub decoded: u64,
    /// Rows in `processed` files, `Refused` markers not counted.
    pub written: u64,
    /// Rows left out, by the name of the filter.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub filtered: BTreeMap<String, u64>,
    /// Rows refused, by the name of the rule.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub rejected: BTreeMap<String, u64>,
    /// Rows that a rule refused although something was written for them as well (`otherwise: remove` writes a delete);
    /// they are in quarantine and in `written`, so they are not part of the sum.
    #[serde(skip_serializing_if = "is_zero")]
    pub replaced: u64,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(value: &u64) -> bool {
    *value == 0
}

impl TableAccount {
    /// Adds another account.
    pub fn add(&mut self, other: &Self) {
        self.decoded += other.decoded;
        self.written += other.written;
        self.replaced += other.replaced;
        for (name, count) in &other.filtered {
            *self.filtered.entry(name.clone()).or_default() += count;
        }
        for (name, count) in &other.rejected {
            *self.rejected.entry(name.clone()).or_default() += count;
        }
    }

    /// Whether nothing disappeared unsaid.
    pub fn balances(&self) -> bool {
        self.decoded == self.written + self.filtered.values().sum::<u64>() + self.rejected.values().sum::<u64>()
    }
}

/// The account of an epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Account {
    /// Records, by source.
    pub records: BTreeMap<String, RecordAccount>,
    /// Rows, by table.
    pub tables: BTreeMap<String, TableAccount>,
}

impl Account {
    /// Adds another account.
    pub fn add(&mut self, other: &Self) {
        for (source, account) in &other.records {
            self.records.entry(source.clone()).or_default().add(account);
        }
        for (table, account) in &other.tables {
            self.tables.entry(table.clone()).or_default().add(account);
        }
    }

    /// The first sum that does not hold, in words.
    pub fn imbalance(&self) -> Option<String> {
        let records = self.records.iter().find(|(_, a)| !a.balances()).map(|(s, a)| format!("source {s}: {a:?}"));
        records.or_else(|| self.tables.iter().find(|(_, a)| !a.balances()).map(|(t, a)| format!("table {t}: {a:?}")))
    }
}

/// What became of a table's rows on the way from the lake to the warehouse:
/// `loaded = applied + superseded + incomplete`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadAccount {
    /// Rows in the files of the unit, `Refused` markers not counted.
    pub loaded: u64,
    /// Rows that the warehouse now shows, or whose key it no longer shows.
    pub applied: u64,
    /// Rows that a newer version of the same key replaced before or in the warehouse, or a truncate emptied.
    pub superseded: u64,
    /// Partial rows that found no base.
    pub incomplete: u64,
}

impl LoadAccount {
    /// Adds another account.
    pub fn add(&mut self, other: &Self) {
        self.loaded += other.loaded;
        self.applied += other.applied;
        self.superseded += other.superseded;
        self.incomplete += other.incomplete;
    }

    /// Whether nothing disappeared unsaid.
    pub fn balances(&self) -> bool {
        self.loaded == self.applied + self.superseded + self.incomplete
    }
}
