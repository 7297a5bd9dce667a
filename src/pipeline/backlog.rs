//! What the log has for a group and the warehouse lacks, kept up as the log grows: every manifest is looked at once.

use std::collections::BTreeMap;

use chrono::Utc;
use futures::StreamExt;

use crate::epoch::{EpochNumber, Manifest};
use crate::error::Result;
use crate::lake::{Log, LogState};
use crate::pipeline::unit::{Pending, Standing};

/// Manifests that are asked for at once.
const LOOK: u64 = 64;
/// Manifests that are read at the same time.
const READ_AHEAD: usize = 16;
/// The most epochs that wait for one load: more would only be remembered here.
pub const MOST_EPOCHS: usize = 4096;

/// The backlog of one group.
#[derive(Debug, Default)]
pub struct Backlog {
    /// The first epoch that was looked at …
    from: EpochNumber,
    /// … and the last.
    pub seen: EpochNumber,
    /// Those with something, in order.
    pub epochs: Vec<Pending>,
    /// Row bytes (Arrow, in memory) of all of them.
    pub bytes: u64,
    /// The tables that it is of, and where they stood.
    of: BTreeMap<String, EpochNumber>,
}

impl Backlog {
    /// Brings it to where the log and the ledger stand; stops early when there is enough for a unit.
    pub async fn look(&mut self, log: &Log, standing: &Standing<'_>, state: &LogState) -> Result<()> {
        self.stand(standing);
        while self.seen < state.n && !self.is_full(standing.max_bytes) {
            let more = |table: &String| {
                state.tables.get(table).is_some_and(|totals| totals.epoch > self.seen.max(standing.position(table)))
            };
            // The log's own sums say what there is to find, and from where on.
            let Some(from) = standing.running().filter(|table| more(table)).map(|t| standing.position(t)).min() else {
                self.seen = state.n;
                return Ok(());
            };
            self.seen = self.seen.max(from);
            let last = state.n.min(self.seen + LOOK);
            let mut manifests =
                futures::stream::iter(self.seen + 1..=last).map(|n| log.manifest(n)).buffered(READ_AHEAD);
            while let Some(manifest) = manifests.next().await.transpose()? {
                self.take(&manifest, standing);
            }
        }
        Ok(())
    }

    /// Whether there is enough for a load: to wait for more would not make it one load less.
    pub fn is_full(&self, max_bytes: u64) -> bool {
        self.bytes >= max_bytes || self.epochs.len() >= MOST_EPOCHS
    }

    /// What waits of an epoch.
    pub fn epoch(&self, n: EpochNumber) -> Option<&Pending> {
        let at = self.epochs.binary_search_by_key(&n, |epoch| epoch.n).ok()?;
        self.epochs.get(at)
    }

    /// The first epoch with something of the table.
    pub fn first_of(&self, table: &str) -> Option<EpochNumber> {
        self.epochs.iter().find(|epoch| epoch.tables.contains_key(table)).map(|epoch| epoch.n)
    }

    /// Forgets what the warehouse holds by now, or everything when it is not of these tables or this place any more.
    fn stand(&mut self, standing: &Standing<'_>) {
        let of: BTreeMap<_, _> = standing.running().map(|table| (table.clone(), standing.position(table))).collect();
        let first = standing.first_needed();
        let others = !of.keys().eq(self.of.keys());
        if others || first < self.from || first > self.seen + 1 {
            *self = Self { from: first, seen: first - 1, of, ..Self::default() };
        } else if of != self.of {
            for epoch in &mut self.epochs {
                epoch.tables.retain(|table, _| epoch.n > standing.position(table));
            }
            self.epochs.retain(|epoch| !epoch.tables.is_empty());
            self.bytes = self.epochs.iter().map(Pending::bytes).sum();
            (self.from, self.of) = (first, of);
        }
    }

    fn take(&mut self, manifest: &Manifest, standing: &Standing<'_>) {
        let wanted = |table: &String| standing.runs(table) && manifest.n > standing.position(table);
        let tables = manifest.tables.iter().filter(|(table, _)| wanted(table));
        let tables: BTreeMap<_, _> = tables.map(|(table, epoch)| (table.clone(), epoch.clone())).collect();
        self.seen = manifest.n;
        if !tables.is_empty() {
            let (sealed_at_us, seen_at_us) = (manifest.sealed_at.timestamp_micros(), Utc::now().timestamp_micros());
            let pending = Pending { n: manifest.n, sealed_at_us, seen_at_us, tables };
            self.bytes += pending.bytes();
            self.epochs.push(pending);
        }
    }
}
