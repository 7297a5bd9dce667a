//! How far a source has come, as the lake log keeps it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::epoch::EpochNumber;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Position;
use crate::wire::pgoutput::Lsn;

/// A position: everything that was committed before `lsn` has been handed out, of the tables whose rows are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Where the stream goes on.
    pub lsn: Lsn,
    /// The server's timeline at that place.
    pub timeline: u32,
    /// The transaction behind `lsn` has been handed out up to here: it is larger than an epoch may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Within>,
    /// The tables whose rows have been read, and as of when: the stream's changes count from there on.
    #[serde(default)]
    pub tables: BTreeMap<String, Taken>,
    /// Tables that must be emptied before their rows are read, because some of an earlier reading are there.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub again: BTreeSet<String>,
}

/// A table whose rows were read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Taken {
    /// Its number in the catalog: a table that was dropped and made again is another one.
    pub id: u32,
    /// What was committed before is in those rows.
    pub from: Lsn,
    /// The newest column that had been added with a default by then.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub filled: i32,
    /// The epoch of the newest order to read it again that this reading has fulfilled.
    #[serde(default, skip_serializing_if = "is_unordered")]
    pub order: EpochNumber,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &i32) -> bool {
    *number == 0
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_unordered(order: &EpochNumber) -> bool {
    *order == 0
}

/// What identifies a table that is captured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Identity {
    pub id: u32,
    /// The newest column that was added with a default.
    pub filled: i32,
}

/// The tables that are captured, by name (`<schema>.<table>`).
pub(super) type Captured = BTreeMap<String, Identity>;

/// A place inside a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Within {
    /// The transaction, by its commit record.
    pub commit: Lsn,
    /// The change that was handed out last.
    pub lsn: Lsn,
    /// Its number among those of the same log record.
    pub ordinal: u32,
}

impl Place {
    /// The position's text in the log.
    pub fn position(&self) -> Position {
        // Plain data with text keys always has a JSON form.
        Position(serde_json::to_string(self).unwrap_or_default())
    }

    /// The reverse.
    pub fn parse(position: &Position) -> Result<Self> {
        serde_json::from_str(&position.0).map_err(|error| {
            Error::new(
                ErrorKind::LogCorrupt,
                format!("the log's position `{position}` is not one of a PostgreSQL source"),
            )
            .because(error)
            .help("a source keeps its kind: give the changed source another name in the topology")
        })
    }

    /// Makes it fit the tables that are captured now: one that was left out for a while, or made anew, is read again; one
    /// that is new is read (`snapshot`), or counts from here on.
    pub fn fit(&mut self, captured: &Captured, snapshot: bool) {
        let gone = |(name, taken): (&String, &Taken)| {
            (captured.get(name).map(|known| known.id) != Some(taken.id)).then(|| name.clone())
        };
        let gone: Vec<String> = self.tables.iter().filter_map(gone).collect();
        gone.into_iter().for_each(|table| self.read_again(table));
        for (table, Identity { id, filled }) in captured.iter().filter(|_| !snapshot) {
            self.tables.entry(table.clone()).or_insert(Taken { id: *id, from: self.lsn, filled: *filled, order: 0 });
        }
    }

    /// Tables that an order asks to read again which is newer than their rows.
    pub fn obey(&mut self, wanted: &BTreeMap<String, EpochNumber>) -> bool {
        let newer = |(name, order): &(&String, &EpochNumber)| self.tables.get(*name).is_some_and(|t| t.order < **order);
        let names: Vec<String> = wanted.iter().filter(newer).map(|(name, _)| name.clone()).collect();
        names.iter().for_each(|name| self.read_again(name.clone()));
        !names.is_empty()
    }

    /// The rows of this table are not what they should be.
    pub fn read_again(&mut self, table: String) {
        if self.tables.remove(&table).is_some() {
            self.again.insert(table);
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_position_round_trips_and_a_table_that_comes_back_is_read_again() {
        let within = Within { commit: Lsn(0x1_0000_0000), lsn: Lsn(5), ordinal: 2 };
        let taken = |id, from| Taken { id, from: Lsn(from), filled: 0, order: 0 };
        let tables = [("a", taken(1, 7)), ("b", taken(2, 8)), ("c", taken(3, 8))];
        let tables = tables.map(|(name, taken)| (format!("public.{name}"), taken)).into();
        let mut place = Place { lsn: Lsn(9), timeline: 1, within: Some(within), tables, again: BTreeSet::new() };
        assert_eq!(Place::parse(&place.position()).unwrap(), place);
        // The first is not captured any more, the third was dropped and made again.
        let known = |(name, id): &(&str, u32)| (format!("public.{name}"), Identity { id: *id, filled: 0 });
        let captured = |entries: &[(&str, u32)]| entries.iter().map(known).collect();
        place.fit(&captured(&[("b", 2), ("c", 30)]), true);
        assert_eq!(place.tables.keys().collect::<Vec<_>>(), ["public.b"]);
        assert_eq!(place.again.iter().collect::<Vec<_>>(), ["public.a", "public.c"]);
        place.fit(&captured(&[("b", 2), ("d", 4)]), false);
        assert_eq!(place.tables.get("public.d"), Some(&taken(4, 9)));
        assert!(Place::parse(&Position::offset(7)).is_err());
    }
}
