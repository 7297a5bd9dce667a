//! Which tables are being read beside their changes, as the log says it.

use std::collections::BTreeMap;

use crate::config::Topology;
use crate::progress::Progress;
use crate::source::{needs_resync, under_way};
use crate::telemetry::TableReading;

/// The table of each stream.
#[derive(Debug, Default)]
pub struct Streams(BTreeMap<(String, String), String>);

impl Streams {
    /// Those of a topology.
    pub fn of(topology: &Topology) -> Self {
        let stream = |(name, table): (&String, &crate::config::Table)| {
            let (source, _) = topology.source_of(table)?;
            Some(((source.to_owned(), table.from.clone()), name.clone()))
        };
        Self(topology.tables.iter().filter_map(stream).collect())
    }

    /// The tables that should be read again, and why.
    pub fn needs(&self, progress: &Progress) -> BTreeMap<String, String> {
        let mut found = BTreeMap::new();
        for (partition, standing) in progress.iter() {
            for (stream, why) in needs_resync(&standing.position) {
                if let Some(table) = self.0.get(&(partition.source.to_string(), stream)) {
                    found.insert(table.clone(), why);
                }
            }
        }
        found
    }

    /// The tables that are being read.
    pub fn readings(&self, progress: &Progress) -> BTreeMap<String, TableReading> {
        let mut found = BTreeMap::new();
        for (partition, standing) in progress.iter() {
            for (stream, read) in under_way(&standing.position) {
                let Some(table) = self.0.get(&(partition.source.to_string(), stream)) else { continue };
                let reading = TableReading { rows: read.rows, of: read.of, again: read.again, ..Default::default() };
                found.insert(table.clone(), reading);
            }
        }
        found
    }
}
