//! Where changes come from.
//!
//! A source hands out records with the exact span that they cover. Positions come from the lake log, never from the
//! source's own bookkeeping: what is handed out twice is refused by the join-on rule, what is left out as well.

pub mod file;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "mysql")]
pub mod mysql;
#[cfg(any(feature = "mysql", feature = "postgres"))]
mod piece;
#[cfg(feature = "postgres")]
pub mod postgres;
pub mod probe;
mod witness;

pub use witness::{Keys, Reached, Witness};

use std::collections::BTreeMap;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use crate::batch::RawBatch;
use crate::epoch::EpochNumber;
use crate::error::Result;
use crate::progress::{Partition, Position, Progress};

/// What [`Source::next`] found.
#[derive(Debug)]
pub enum Polled {
    /// Records of one partition.
    Batch(RawBatch),
    /// These partitions will go to another process: seal and commit what is held of them, then fire `done`. The source
    /// hands out nothing more of them until they come back.
    Revoking {
        /// Which.
        partitions: Vec<Partition>,
        /// Fired when they are committed (or dropped).
        done: oneshot::Sender<()>,
    },
    /// These partitions are gone already: drop what is held of them and not committed.
    Lost(Vec<Partition>),
    /// Everything that was there when this process began to look has been handed out. Said again after every batch that
    /// reaches the end, and only then; a source that ends (a file without `follow`) says it for good and then waits.
    CaughtUp,
}

/// How far behind a partition is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lag {
    /// Which partition.
    pub partition: Partition,
    /// Records (Kafka) or bytes (files) between what was handed out and the end.
    pub behind: u64,
}

/// How far the rows of a table have been read that are there beside its changes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowsRead {
    /// Rows read.
    pub rows: u64,
    /// About how many there are; 0 where nobody knows.
    #[serde(default)]
    pub of: u64,
    /// Whether rows of an earlier reading are there.
    #[serde(default)]
    pub again: bool,
}

/// The streams whose rows are being read beside their changes, as a position says it: sources that read rows keep them
/// under `reading` in theirs, or among their `tables` with the key `behind` which they go on.
pub fn under_way(position: &Position) -> BTreeMap<String, RowsRead> {
    #[derive(Deserialize)]
    struct Rows {
        #[serde(default)]
        behind: Option<serde::de::IgnoredAny>,
        #[serde(default)]
        rows: u64,
        #[serde(default)]
        of: u64,
        #[serde(default)]
        again: bool,
    }
    #[derive(Deserialize)]
    struct Shown {
        #[serde(default)]
        reading: BTreeMap<String, RowsRead>,
        #[serde(default)]
        tables: BTreeMap<String, Rows>,
    }
    let Ok(Shown { mut reading, tables }) = serde_json::from_str(&position.0) else { return BTreeMap::new() };
    let being_read = tables.into_iter().filter(|(_, rows)| rows.behind.is_some());
    reading.extend(being_read.map(|(name, Rows { rows, of, again, .. })| (name, RowsRead { rows, of, again })));
    reading
}

/// The streams of which rows have changed without any event, as a position says it, and how.
pub fn needs_resync(position: &Position) -> BTreeMap<String, String> {
    #[derive(Deserialize)]
    struct Rows {
        #[serde(default)]
        needs: Option<String>,
    }
    #[derive(Deserialize)]
    struct Shown {
        #[serde(default)]
        tables: BTreeMap<String, Rows>,
    }
    let why = |needs: &str| match needs {
        "filled" => "a column was added with a default: rows that were there have it, and no event said so",
        "unpublished" => {
            "the publication did not show it, or not all of it, for a while: changes in between did not come"
        }
        "partitions" => {
            "partitions with rows were attached, detached, dropped or emptied: their rows came and went, and no event said so"
        }
        _ => "DDL has written the table anew: values may have changed, and no event said so",
    };
    let shown = serde_json::from_str(&position.0).map(|shown: Shown| shown.tables).unwrap_or_default();
    shown.into_iter().filter_map(|(name, rows)| Some((name, why(&rows.needs?).to_owned()))).collect()
}

/// The position without the orders that its tables have fulfilled: their numbers are epochs of the log that they stand in,
/// and mean nothing in another one.
pub fn without_orders(position: &Position) -> Position {
    if !position.0.contains("\"order\"") {
        return position.clone();
    }
    let Ok(mut place) = serde_json::from_str::<serde_json::Value>(&position.0) else { return position.clone() };
    for part in ["tables", "reading"] {
        let tables = place.get_mut(part).and_then(serde_json::Value::as_object_mut);
        for table in tables.into_iter().flat_map(serde_json::Map::values_mut) {
            table.as_object_mut().and_then(|table| table.remove("order"));
        }
    }
    Position(place.to_string())
}

/// A source of changes.
#[async_trait]
pub trait Source: Send {
    /// The next thing; waits while there is none. Cancel-safe: dropping the future loses nothing.
    async fn next(&mut self) -> Result<Polled>;

    /// Everything up to `committed` is durable in the lake and will never be asked for again. May be called again with
    /// the same or a later progress; failing here loses nothing.
    async fn release(&mut self, committed: &Progress) -> Result<()>;

    /// Hands out again from `committed` on, dropping everything fetched: the epoch that held it was given up.
    async fn rewind(&mut self, committed: &Progress) -> Result<()>;

    /// How far behind each partition is, as far as it is known without asking anybody.
    fn lag(&self) -> Vec<Lag>;

    /// Reads the rows of these streams again, beside what it hands out anyway. The number is the epoch of the order: a
    /// stream whose rows were read (or begun to be read) for that order or a later one is left alone, which the source
    /// knows from its own position in the log. Said again after every start and whenever there is a new order. Sources
    /// that cannot be asked for rows never get one.
    async fn read_again(&mut self, _wanted: &BTreeMap<String, EpochNumber>) -> Result<()> {
        Ok(())
    }
}
