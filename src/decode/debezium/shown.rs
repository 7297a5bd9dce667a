//! Which columns a partition's rows have shown, and since where: what tells a column that is gone from one that was not
//! there yet.
//!
//! Debezium sends every column that the source table has. A row without a column of the contract was written before the
//! column was added (another partition lags behind, old events are delivered again) or after it was dropped or renamed.
//! One earlier row that had the column decides: what was written before that row is older than the column, what was
//! written after it is newer. So the *first* row that shows a column is all that must be kept, and a row that has every
//! column that is known costs nothing.
//!
//! | the row without the column | it is |
//! |---|---|
//! | of a partition that has never shown it | older: null |
//! | of another table at the source than the row that showed it (tables merged into one stream) | not comparable: null |
//! | at a higher source position | newer: the column is gone |
//! | at a lower source position, with a newer commit time (another lineage: restore, fail-over) | newer: gone |
//! | at the same or a lower source position else | older: null |
//! | without positions, with a newer commit time | newer: gone |
//! | without positions, with the same or an older commit time | older: null |
//! | without positions and times, delivered later in the same partition | newer: gone |
//!
//! A partition begins with what the others of its source have shown too (a rotated file, another partition of a topic), as
//! far as positions or times can be compared.

use serde::{Deserialize, Serialize};

use super::change::Event;
use super::envelope::Source;
use super::redelivery::{self, Position};
use crate::batch::{NO_TIME, Seq};

/// The columns of one table that rows of one partition have shown.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Shown {
    rows: Vec<First>,
}

/// The columns that one row was the first to show.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct First {
    #[serde(flatten)]
    place: Place,
    #[serde(rename = "c")]
    columns: Vec<String>,
}

/// Where a row stands in the history of its source table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// The source table.
    #[serde(rename = "o", default, skip_serializing_if = "Option::is_none")]
    origin: Option<String>,
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    position: Option<Position>,
    /// Commit time at the source, microseconds.
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    time: Option<i64>,
    /// Generation and offset: the order of delivery. `None` when the row came in another partition; the log never holds
    /// that.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    delivered: Option<(u32, u64)>,
}

impl Place {
    pub fn of(event: &Event<'_>) -> Self {
        let source = event.source.and_then(Source::read);
        let Seq { generation, major, .. } = event.seq;
        Self {
            origin: source.as_ref().and_then(Source::stream),
            position: source.as_ref().and_then(redelivery::position).map(|(position, _)| position),
            time: Some(event.time).filter(|time| *time != NO_TIME),
            delivered: Some((generation, major)),
        }
    }

    /// Whether it was certainly written after `other`.
    fn is_after(&self, other: &Self) -> bool {
        if let (Some(one), Some(two)) = (&self.origin, &other.origin)
            && one != two
        {
            return false;
        }
        let newer = match (self.time, other.time) {
            (Some(one), Some(two)) => Some(one > two),
            _ => None,
        };
        match (self.position, other.position) {
            (Some(one), Some(two)) if one == two => false,
            (Some(one), Some(two)) => one > two || newer.unwrap_or(false),
            _ => newer.unwrap_or(other.delivered.is_some_and(|other| self.delivered > Some(other))),
        }
    }

    /// The same for rows of another partition; `None` when nothing could be compared there.
    fn elsewhere(&self) -> Option<Self> {
        let comparable = self.position.is_some() || self.time.is_some();
        comparable.then(|| Self { delivered: None, ..self.clone() })
    }
}

impl Shown {
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// Whether some row has shown the column.
    pub fn has(&self, column: &str) -> bool {
        self.first(column).is_some()
    }

    fn first(&self, column: &str) -> Option<&First> {
        self.rows.iter().find(|first| first.columns.iter().any(|c| c == column))
    }

    /// Whether a row at `place` without the column says that the column is gone.
    pub fn is_gone(&self, column: &str, place: &Place) -> bool {
        self.first(column).is_some_and(|first| place.is_after(&first.place))
    }

    /// Takes in that the row at `place` is the first to show `columns`.
    pub fn show(&mut self, place: Place, columns: Vec<String>) {
        self.rows.push(First { place, columns });
    }

    /// Without what was taken over from other partitions.
    pub fn own(&self) -> Self {
        Self { rows: self.rows.iter().filter(|first| first.place.delivered.is_some()).cloned().collect() }
    }

    /// Takes over what another partition has shown.
    pub fn inherit(&mut self, other: &Self) {
        for first in &other.rows {
            let Some(place) = first.place.elsewhere() else { continue };
            let new: Vec<String> = first.columns.iter().filter(|column| !self.has(column)).cloned().collect();
            if !new.is_empty() {
                self.show(place, new);
            }
        }
    }

    /// Forgets a column whose absence was taken.
    pub fn forget(&mut self, column: &str) {
        for first in &mut self.rows {
            first.columns.retain(|c| c != column);
        }
        self.rows.retain(|first| !first.columns.is_empty());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(position: Option<i64>, time: Option<i64>, offset: u64) -> Place {
        Place { origin: None, position: position.map(|p| [p, p, 0]), time, delivered: Some((1, offset)) }
    }

    #[test]
    fn what_is_after_what() {
        let since = place(Some(5), Some(50), 5);
        let after = |position, time, offset| place(position, time, offset).is_after(&since);
        assert!(after(Some(6), Some(50), 9), "a higher position, in the same second");
        assert!(!after(Some(5), Some(50), 9), "the same event again");
        assert!(!after(Some(4), Some(50), 9), "an older event again");
        assert!(after(Some(1), Some(51), 9), "another lineage");
        assert!(after(None, Some(51), 9));
        assert!(!after(None, Some(50), 9), "times do not tell");
        assert!(after(None, None, 6), "the order of delivery alone");
        assert!(!after(None, None, 4), "read in again from quarantine");
        let merged = Place { origin: Some("b.s.t".into()), ..place(Some(6), Some(60), 9) };
        assert!(!merged.is_after(&Place { origin: Some("a.s.t".into()), ..since }));
    }

    #[test]
    fn what_another_partition_has_shown() {
        let mut other = Shown::default();
        other.show(place(None, Some(50), 5), vec!["timed".into()]);
        other.show(place(None, None, 6), vec!["untimed".into()]);
        let mut new = Shown::default();
        new.inherit(&other);
        assert!(new.is_gone("timed", &place(None, Some(51), 0)) && !new.is_gone("timed", &place(None, Some(50), 9)));
        assert!(!new.has("untimed"), "offsets of two partitions cannot be compared");
        assert!(!new.is_gone("timed", &place(None, None, 9)), "neither here");
        new.show(place(None, Some(70), 0), vec!["own".into()]);
        new.inherit(&other);
        assert!(new.is_gone("own", &place(None, Some(71), 1)));
    }

    #[test]
    fn a_forgotten_column_can_be_shown_again() {
        let mut shown = Shown::default();
        shown.show(place(Some(1), None, 1), vec!["id".into(), "note".into()]);
        shown.forget("note");
        assert!(shown.has("id") && !shown.has("note"));
        assert!(!shown.is_gone("note", &place(Some(9), None, 9)));
        shown.show(place(Some(10), None, 10), vec!["note".into()]);
        assert!(shown.is_gone("note", &place(Some(11), None, 11)));
        shown.forget("note");
        shown.forget("id");
        assert!(shown.is_empty());
    }
}
