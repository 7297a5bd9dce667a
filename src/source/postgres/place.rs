//! How far a source has come, as the lake log keeps it.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::rows::Step;
use super::silent::{Silent, TableState};
use crate::epoch::EpochNumber;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::Position;
use crate::source::RowsRead;
use crate::wire::pgoutput::Lsn;

/// A position: everything that was committed before `lsn` has been handed out, of the tables whose rows are there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Where the stream goes on.
    pub lsn: Lsn,
    /// The server's timeline at that place.
    pub timeline: u32,
    /// From where on the server kept its log for the slot: that never goes back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slot_begins: Option<Lsn>,
    /// The transaction behind `lsn` has been handed out up to here: it is larger than an epoch may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<Within>,
    /// The tables whose rows have been read, and as of when: the stream's changes count from there on.
    #[serde(default)]
    pub tables: BTreeMap<String, Taken>,
    /// Tables whose rows are to be read although some are in the lake: those that the source has no more must go.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub again: BTreeSet<String>,
    /// Tables whose rows are being read.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub reading: BTreeMap<String, Reading>,
}

/// How far the rows of a table have been read, in the order of its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Reading {
    /// The table's number in the catalog.
    pub id: u32,
    /// Of the stream, changes count from here on.
    pub from: Lsn,
    /// The table in the catalog when it began.
    #[serde(flatten)]
    pub state: TableState,
    /// The epoch of the newest order that it fulfils.
    #[serde(default, skip_serializing_if = "is_unordered")]
    pub order: EpochNumber,
    /// The key of the row that was read last, as text, in the order of `key`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// The columns by which rows are ordered; none when the table is read as a whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub key: Vec<String>,
    /// A hash of the columns that they have; of other columns everything is read again.
    #[serde(default)]
    pub shape: u32,
    /// Rows read, and about how many there are.
    #[serde(flatten)]
    pub progress: RowsRead,
    /// What is older than that place was not read: it is not at the source any more, and goes at the end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub floor: Option<Lsn>,
    /// Keys that rows have moved to while their other columns were not sent: read again at the end.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub moved: BTreeSet<Vec<String>>,
    /// All rows were read; it is over when the stream has come so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Lsn>,
}

impl Reading {
    /// Begins again with the first row.
    pub fn restart(&mut self) {
        self.after.clear();
        self.moved.clear();
        self.ended = None;
        self.progress.rows = 0;
    }
}

/// A table whose rows were read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Taken {
    /// Its number in the catalog: a table that was dropped and made again is another one.
    pub id: u32,
    /// What was committed before is in those rows.
    pub from: Lsn,
    /// The table in the catalog by then.
    #[serde(flatten)]
    pub state: TableState,
    /// How rows have got values since, without any event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub needs: Option<Silent>,
    /// The epoch of the newest order to read it again that this reading has fulfilled.
    #[serde(default, skip_serializing_if = "is_unordered")]
    pub order: EpochNumber,
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_unordered(order: &EpochNumber) -> bool {
    *order == 0
}

/// What identifies a table that is captured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Identity {
    pub id: u32,
    pub state: TableState,
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
        let other = |name: &String, id: u32| captured.get(name).map(|known| known.id) != Some(id);
        let gone = self.tables.iter().filter(|(name, taken)| other(name, taken.id)).map(|(name, _)| name.clone());
        let broken =
            self.reading.iter().filter(|(name, reading)| other(name, reading.id)).map(|(name, _)| name.clone());
        for name in gone.chain(broken).collect::<BTreeSet<String>>() {
            self.forget(&name);
        }
        for (table, Identity { id, state }) in captured.iter().filter(|_| !snapshot) {
            if !self.reading.contains_key(table) {
                let taken = Taken { id: *id, from: self.lsn, state: state.clone(), needs: None, order: 0 };
                self.tables.entry(table.clone()).or_insert(taken);
            }
        }
    }

    /// Changes of this table were missed: its rows are to be read again, and only what comes after counts.
    pub fn forget(&mut self, table: &str) {
        let known = self.tables.remove(table).is_some() | self.reading.remove(table).is_some();
        if known {
            self.again.insert(table.to_owned());
        }
    }

    /// The order of changes has begun anew: what was read before of tables that are being read is older than everything.
    pub fn begin_readings_again(&mut self) {
        let names: Vec<String> = std::mem::take(&mut self.reading).into_keys().collect();
        self.again.extend(names);
    }

    /// From where on changes of that relation count.
    pub fn counted_from(&self, name: &str, id: u32) -> Option<Lsn> {
        let taken = self.tables.get(name).filter(|taken| taken.id == id).map(|taken| taken.from);
        taken.or_else(|| self.reading.get(name).filter(|reading| reading.id == id).map(|reading| reading.from))
    }

    /// The table in the catalog when its rows were read, or begun to be read.
    pub fn state(&self, name: &str) -> Option<&TableState> {
        let reading = self.reading.get(name).map(|reading| &reading.state);
        reading.or_else(|| self.tables.get(name).map(|taken| &taken.state))
    }

    /// Keeps what the catalog says now, and that rows have got values since they were read.
    pub fn renew(&mut self, name: &str, state: TableState, silent: Option<Silent>) {
        if let Some(reading) = self.reading.get_mut(name) {
            reading.state = state;
        } else if let Some(taken) = self.tables.get_mut(name) {
            taken.state = state;
            taken.needs = silent.or(taken.needs);
        }
    }

    /// Tables that an order asks to read again which is newer than the reading of their rows.
    pub fn ordered(&self, wanted: &BTreeMap<String, EpochNumber>) -> Vec<String> {
        let newest = |name: &String| {
            let taken = self.tables.get(name).map(|taken| taken.order);
            taken.max(self.reading.get(name).map(|reading| reading.order))
        };
        let newer = |(name, order): &(&String, &EpochNumber)| newest(name).is_some_and(|known| known < **order);
        wanted.iter().filter(newer).map(|(name, _)| name.clone()).collect()
    }

    /// Tables that are read as a whole have no place to go on from.
    pub fn give_up_wholes(&mut self) {
        let whole = |(name, reading): (&String, &Reading)| reading.key.is_empty().then(|| name.clone());
        let names: Vec<String> = self.reading.iter().filter_map(whole).collect();
        names.iter().for_each(|name| self.forget(name));
    }

    /// Part of a table's rows is handed out.
    pub fn take(&mut self, name: &str, step: Step) {
        match step {
            Step::Begin(reading) => {
                self.again.remove(name);
                self.reading.insert(name.to_owned(), *reading);
            }
            Step::Rows(rows, after) => {
                // Rows that are read once more at the end are behind none.
                if let Some(reading) = self.reading.get_mut(name).filter(|reading| reading.ended.is_none()) {
                    reading.progress.rows += rows;
                    reading.after = after;
                }
            }
            Step::End => self.finish(name),
        }
    }

    /// The rows of this table are there.
    pub fn finish(&mut self, name: &str) {
        let Some(reading) = self.reading.remove(name) else { return };
        let from = self.tables.get(name).filter(|taken| taken.id == reading.id).map_or(reading.from, |t| t.from);
        let taken = Taken { id: reading.id, from, state: reading.state, needs: None, order: reading.order };
        self.tables.insert(name.to_owned(), taken);
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_position_round_trips_and_a_table_that_comes_back_is_read_again() {
        let within = Within { commit: Lsn(0x1_0000_0000), lsn: Lsn(5), ordinal: 2 };
        let taken = |id, from| Taken { id, from: Lsn(from), state: TableState::default(), needs: None, order: 0 };
        let tables = [("a", taken(1, 7)), ("b", taken(2, 8)), ("c", taken(3, 8))];
        let tables = tables.map(|(name, taken)| (format!("public.{name}"), taken)).into();
        let mut place = Place {
            lsn: Lsn(9),
            timeline: 1,
            slot_begins: None,
            within: Some(within),
            tables,
            again: BTreeSet::new(),
            reading: BTreeMap::new(),
        };
        assert_eq!(Place::parse(&place.position()).unwrap(), place);
        // The first is not captured any more, the third was dropped and made again.
        let known =
            |(name, id): &(&str, u32)| (format!("public.{name}"), Identity { id: *id, state: TableState::default() });
        let captured = |entries: &[(&str, u32)]| entries.iter().map(known).collect();
        place.fit(&captured(&[("b", 2), ("c", 30)]), true);
        assert_eq!(place.tables.keys().collect::<Vec<_>>(), ["public.b"]);
        assert_eq!(place.again.iter().collect::<Vec<_>>(), ["public.a", "public.c"]);
        place.fit(&captured(&[("b", 2), ("d", 4)]), false);
        assert_eq!(place.tables.get("public.d"), Some(&taken(4, 9)));
        assert!(Place::parse(&Position::offset(7)).is_err());
    }
}
