//! How far a source has come, as the lake log keeps it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

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
    pub tables: BTreeMap<String, Lsn>,
    /// Tables that must be emptied before their rows are read, because some of an earlier reading are there.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub again: BTreeSet<String>,
}

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
            Error::new(ErrorKind::LogCorrupt, format!("the log's position `{position}` is not one of a PostgreSQL source"))
                .because(error)
                .help("a source keeps its kind: give the changed source another name in the topology")
        })
    }

    /// Makes it fit the tables that are captured now: one that was left out for a while is read again when it comes back,
    /// one that is new is read (`snapshot`), or counts from here on.
    pub fn fit(&mut self, captured: &[String], snapshot: bool) {
        let gone: Vec<String> = self.tables.keys().filter(|table| !captured.contains(table)).cloned().collect();
        for table in gone {
            self.tables.remove(&table);
            self.again.insert(table);
        }
        for table in captured.iter().filter(|_| !snapshot) {
            self.tables.entry(table.clone()).or_insert(self.lsn);
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
        let tables = BTreeMap::from([("public.a".to_owned(), Lsn(7)), ("public.b".to_owned(), Lsn(8))]);
        let mut place = Place { lsn: Lsn(9), timeline: 1, within: Some(within), tables, again: BTreeSet::new() };
        assert_eq!(Place::parse(&place.position()).unwrap(), place);
        place.fit(&["public.b".to_owned()], true);
        assert_eq!(place.tables.keys().collect::<Vec<_>>(), ["public.b"]);
        assert!(place.again.contains("public.a"));
        place.fit(&["public.b".to_owned(), "public.c".to_owned()], false);
        assert_eq!(place.tables.get("public.c"), Some(&Lsn(9)));
        assert!(Place::parse(&Position::offset(7)).is_err());
    }
}
