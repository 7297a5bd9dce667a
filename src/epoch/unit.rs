//! What one warehouse transaction applies: folded rows of one group, from a ledger position to a later one.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{EpochNumber, LoadAccount};
use crate::batch::{NO_TIME, Seq, TableChanges};
use crate::contract::Contract;

/// What a delete at the source does to the row that people see.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DeleteMode {
    /// The row goes.
    #[default]
    Hard,
    /// The row stays with `_deleted = true`.
    Soft,
    /// Every version stays, with the time that it was valid.
    History,
}

/// One group's transaction: a compare-and-set of its ledger from `after` to `through`.
#[derive(Debug, Clone)]
pub struct LoadUnit {
    /// The group's name.
    pub group: String,
    /// The log that the epochs belong to.
    pub log: Uuid,
    /// The epoch that the ledger must stand at; 0 = the group was never loaded.
    pub after: EpochNumber,
    /// The last epoch of the unit; equal to `after` when only tables that were held back catch up.
    pub through: EpochNumber,
    /// The tables of the group that stay behind (parked or paused), with the last epoch that the warehouse holds of them.
    /// Stands in the ledger row, so it changes in the same transaction.
    pub held: BTreeMap<String, EpochNumber>,
    /// What the ledger must say stays behind: with `after` the other half of the compare-and-set, because a catch-up
    /// leaves `after` where it is.
    pub held_before: BTreeMap<String, EpochNumber>,
    /// The tables that have something.
    pub tables: Vec<TableLoad>,
}

/// What a unit does to one table. Order: truncate, then the rows.
#[derive(Debug, Clone)]
pub struct TableLoad {
    /// The contract at `through`.
    pub contract: Arc<Contract>,
    /// What deletes do.
    pub mode: DeleteMode,
    /// The table was emptied: rows with a lower `_seq` go (in history mode: end).
    pub truncate: Option<Seq>,
    /// When it was emptied: commit time at the source, microseconds since 1970, or [`NO_TIME`](crate::batch::NO_TIME).
    pub truncated_at_us: i64,
    /// History mode: the other truncates of the unit, in order, because a version ends with the first one after it.
    pub earlier_truncates: Vec<(Seq, i64)>,
    /// Folded rows in the contract's `output` columns. Keyed tables: one row per key. `Read`, `Create` and `Update` are
    /// upserts, `Delete` is a delete, and `Move` is the key that a move has *left*: a delete too, which is not counted
    /// because the move counts with the row of its new key. A row with `unchanged` columns, or with `old_keys` that are
    /// not null, needs a base: the warehouse's row under `old_keys`, or under the row's own key where those are null.
    /// Here `old_keys` has two more columns of text: `_seq`, the first change that stands on the base or the move that
    /// left its key (a base under another key must be older), and `_arrived`: where the row's own key holds a row that is
    /// at least this new, that is the base, because the move came before and comes again. It is empty, hence always
    /// older, unless the unit itself says that the key was free. In
    /// soft mode deletes are such rows too, with nothing to keep when there is no base. `Refused` markers come in
    /// addition, any number per key. History tables: every version and every end, in order. No key: every row.
    ///
    /// A row without a base is incomplete: it is written down, and what its key shows stays as it is. An incomplete move
    /// does take its old key away, since nothing is there at the source; a row under its new key would be its base, so
    /// none goes.
    pub rows: Vec<TableChanges>,
    /// Rows that can only be merged when `rows` have been (nearly always none), in as many further rounds: partial moves
    /// whose base depends on what both the warehouse and `rows` have.
    pub later: Vec<Vec<TableChanges>>,
    /// Partial rows that the fold left out because their base was deleted or refused in the unit itself.
    pub incomplete: Vec<Incomplete>,
    /// Tombstones are to be kept for these deletes, because something older may still arrive (open quarantine, resync).
    /// `false` also clears the table's older tombstones: nothing older can arrive any more.
    pub keep_tombstones: bool,
    /// What the fold has already counted: `loaded`, and what is `superseded` or `incomplete` before the warehouse.
    pub folded: LoadAccount,
    /// Newest commit time at the source, microseconds since 1970, or [`NO_TIME`](crate::batch::NO_TIME).
    pub max_source_time_us: i64,
}

impl TableLoad {
    /// The further rounds, each as a load that does nothing else.
    pub fn later_rounds(&self) -> impl Iterator<Item = Self> {
        self.later.iter().map(|rows| Self {
            contract: Arc::clone(&self.contract),
            mode: self.mode,
            truncate: None,
            truncated_at_us: NO_TIME,
            earlier_truncates: Vec::new(),
            rows: rows.clone(),
            later: Vec::new(),
            incomplete: Vec::new(),
            keep_tombstones: self.keep_tombstones,
            folded: LoadAccount::default(),
            max_source_time_us: self.max_source_time_us,
        })
    }
}

/// A partial row that found no base in the warehouse, so it was not applied.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incomplete {
    /// The table.
    pub table: String,
    /// The row's key as JSON text.
    pub key: String,
    /// Its order.
    pub seq: String,
    /// Its partition (source and name).
    pub partition: String,
    /// The columns that lack a value.
    pub missing: Vec<String>,
}

/// Where a group's ledger stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// The log.
    pub log: Uuid,
    /// The last epoch that the warehouse holds.
    pub through: EpochNumber,
    /// The tables that stay behind, with the last epoch that the warehouse holds of them.
    pub held: BTreeMap<String, EpochNumber>,
    /// What became of the rows, by table: the unit's when it comes from an apply, the sum of all when it was read.
    pub accounts: BTreeMap<String, LoadAccount>,
}
