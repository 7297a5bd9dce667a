//! How far a source has come, as the lake log keeps it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::errant::Seen;
use crate::epoch::EpochNumber;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Position;
use crate::wire::mysqlddl::{History, Shape, Silent};
use crate::wire::mysqltype::CatalogColumn;

/// A position: every transaction before it has been handed out, of the tables whose rows are there or are being read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Which server: MySQL's `server_uuid`, MariaDB's `server_id`.
    pub server: String,
    /// The file in which the stream goes on; of another server's when `pos` is 0.
    pub file: String,
    /// Where in it: behind a whole transaction, or at the file's beginning. 0 when only the GTIDs say where.
    pub pos: u64,
    /// The transactions that were read: a set of MySQL's, a position of MariaDB's; none where MySQL writes no GTIDs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gtids: Option<String>,
    /// Which servers' transactions those are, where a position does not say it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Seen>,
    /// The last transaction before it, by which a log that was put back is recognised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<Last>,
    /// The transaction behind it has been handed out up to here: it is larger than an epoch may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Within>,
    /// Records of the snapshot that were handed out at this very place: the next one's order.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub ordinal: u32,
    /// The tables whose rows are there or being read.
    #[serde(default)]
    pub tables: BTreeMap<String, Taken>,
    /// Tables that must be emptied before their rows are read, because some of an earlier reading are there.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub again: BTreeSet<String>,
    /// What the tables are at this place, by which their rows behind it are read.
    #[serde(default, skip_serializing_if = "History::is_empty")]
    pub history: History,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Where a transaction begins, and when it was committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Last {
    pub file: String,
    pub pos: u64,
    /// As the log says: microseconds where the server writes them, else seconds.
    pub time: i64,
}

/// A place inside a transaction: how many rows of each table were handed out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Within {
    pub rows: BTreeMap<String, u64>,
}

/// A table whose rows are there or being read.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Taken {
    /// While it is read: the key behind which the next chunk begins, as SQL; empty before the first one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind: Option<Vec<String>>,
    /// While it is read: rows that were read of it, of about how many.
    #[serde(default, skip_serializing_if = "is_none_read")]
    pub rows: u64,
    #[serde(default, skip_serializing_if = "is_none_read")]
    pub of: u64,
    /// While it is read: it was emptied before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub again: bool,
    /// The epoch of the newest order to read it again that this reading fulfils.
    #[serde(default, skip_serializing_if = "is_none_read")]
    pub order: EpochNumber,
    /// How its rows have got values without any event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<Silent>,
    /// Where the catalog was looked at when that was behind this place: statements before it are in its columns already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known_from: Option<(u64, u64)>,
    /// Where older versions kept its columns.
    #[serde(default, skip_serializing)]
    pub columns: Vec<CatalogColumn>,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_none_read(number: &u64) -> bool {
    *number == 0
}

/// The number in a file's name, by which files are ordered: `bin.000012` is 12.
pub(super) fn file_number(file: &str) -> u64 {
    let digits = file.rsplit('.').next().unwrap_or_default();
    digits.parse().unwrap_or(0)
}

impl Place {
    /// The position's text in the log.
    pub fn position(&self) -> Position {
        // Plain data with text keys always has a JSON form.
        Position(serde_json::to_string(self).unwrap_or_default())
    }

    /// The reverse.
    pub fn parse(position: &Position) -> Result<Self> {
        let parsed: Result<Self, _> = serde_json::from_str(&position.0);
        let mut place = parsed.map_err(|error| {
            Error::new(
                ErrorKind::LogCorrupt,
                format!("the log's position `{position}` is not one of a MySQL or MariaDB source"),
            )
            .because(error)
            .help("a source keeps its kind: give the changed source another name in the topology")
        })?;
        for (name, taken) in &mut place.tables {
            let columns = std::mem::take(&mut taken.columns);
            if !columns.is_empty() && place.history.columns(name).is_none() {
                let primary = columns.iter().any(|column| column.key);
                place.history.set_table(name, Shape { columns, primary, ..Shape::default() });
            }
        }
        Ok(place)
    }

    /// For messages.
    pub fn shown(&self) -> String {
        match &self.gtids {
            Some(gtids) if self.pos == 0 => format!("GTIDs {gtids}"),
            _ => format!("{}:{}", self.file, self.pos),
        }
    }

    /// The order of this place among those of one server.
    pub fn order(&self) -> (u64, u64) {
        (file_number(&self.file), self.pos)
    }

    /// Makes it fit the tables that are captured now: one that was left out for a while is read again; one that is new is
    /// read (`snapshot`), or counts from here on.
    pub fn fit(&mut self, captured: &[String], snapshot: bool) {
        let gone: Vec<String> = self.tables.keys().filter(|name| !captured.contains(name)).cloned().collect();
        gone.into_iter().for_each(|table| self.read_again(table));
        for table in captured.iter().filter(|_| !snapshot) {
            self.tables.entry(table.clone()).or_default();
        }
    }

    /// The rows of this table are not what they should be.
    pub fn read_again(&mut self, table: String) {
        self.history.take(&table);
        if self.tables.remove(&table).is_some() {
            self.again.insert(table);
        }
    }

    /// Tables that are read in one go and were broken off: they begin anew.
    pub fn begin_anew(&mut self) {
        let broken =
            |(_, taken): &(&String, &Taken)| taken.rows > 0 && taken.behind.as_ref().is_some_and(Vec::is_empty);
        let names: Vec<String> = self.tables.iter().filter(broken).map(|(name, _)| name.clone()).collect();
        names.into_iter().for_each(|name| self.read_again(name));
    }

    /// Tables that an order asks to read again which is newer than their rows.
    pub fn obey(&mut self, wanted: &BTreeMap<String, EpochNumber>) {
        let newer = |(name, order): &(&String, &EpochNumber)| self.tables.get(*name).is_some_and(|t| t.order < **order);
        let names: Vec<String> = wanted.iter().filter(newer).map(|(name, _)| name.clone()).collect();
        names.into_iter().for_each(|name| self.read_again(name));
    }

    /// Whether all rows of that table are there.
    pub fn is_whole(&self, table: &str) -> bool {
        self.tables.get(table).is_some_and(|taken| taken.behind.is_none())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_position_round_trips_and_a_table_that_comes_back_is_read_again() {
        let reading = Taken { behind: Some(vec!["7".into()]), rows: 20, ..Taken::default() };
        let tables = [("shop.a".to_owned(), Taken::default()), ("shop.b".to_owned(), reading)].into();
        let mut place = Place {
            server: "1".into(),
            file: "bin.000012".into(),
            pos: 1_000,
            gtids: Some("0-1-7".into()),
            seen: Some(Seen { last: "0-1-7,0-2-3".parse().unwrap(), began: [(0, 5)].into() }),
            last: Some(Last { file: "bin.000012".into(), pos: 800, time: 5 }),
            within: Some(Within { rows: [("shop.a".to_owned(), 3)].into() }),
            ordinal: 4,
            tables,
            again: BTreeSet::new(),
            history: History::default(),
        };
        place.history.lose("shop.a", "it was changed in a way that is not understood");
        assert_eq!(Place::parse(&place.position()).unwrap(), place);
        assert_eq!(place.order(), (12, 1_000));
        assert!(place.is_whole("shop.a") && !place.is_whole("shop.b"));
        place.fit(&["shop.b".to_owned()], true);
        assert_eq!(place.tables.keys().collect::<Vec<_>>(), ["shop.b"]);
        assert_eq!(place.again.iter().collect::<Vec<_>>(), ["shop.a"]);
        place.fit(&["shop.b".to_owned(), "shop.c".to_owned()], false);
        assert!(place.is_whole("shop.c"));
        assert!(place.history.is_empty());
        assert!(Place::parse(&Position::offset(7)).is_err());
        let old = r#"{"server":"1","file":"b.1","pos":4,"tables":{"shop.a":{"columns":[{"name":"id","data_type":"int",
            "column_type":"int","key":true,"nullable":false,"generated":false,"invisible":false,"ordinal":1}]}}}"#;
        let place = Place::parse(&Position(old.to_owned())).unwrap();
        assert!(place.history.columns("shop.a").is_some_and(|columns| columns[0].name == "id" && columns[0].key));
        assert_eq!(Place::parse(&place.position()).unwrap(), place);
    }
}
