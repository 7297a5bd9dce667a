//! Recognising re-delivered events of tables without a key.
//!
//! A connector that restarts sends again what it had not yet noted as sent. Rows of a keyed table converge, so nothing
//! is dropped there. A row of a table without a key would be doubled; the source position inside the event tells it:
//! `(last commit LSN, LSN)` for Postgres, `(number of the binlog file, position, row)` for MySQL. Delivery within one
//! table and partition is in the order of these positions, so one *mark* per table is enough: the highest position so
//! far, the commit time there, and the rows at it (several rows may share a Postgres LSN, e.g. those of a `COPY`).
//!
//! | position | and | it is | the mark |
//! |---|---|---|---|
//! | none (snapshot rows, other connectors, Postgres without `sequence`) | | new | stays |
//! | above the mark | | new | moves there; a replay ends |
//! | below the mark | commit time not newer than the mark's | delivered before | a replay begins |
//! | below the mark | commit time newer | new: another lineage (restore, fail-over) | starts again there |
//! | at the mark | MySQL | delivered before: positions are unique | stays |
//! | at the mark | in a replay, and the next row there that the replay has not passed is this one | delivered before | passes it |
//! | at the mark | else, and the row differs from all rows there | new | takes the row in |
//! | at the mark | else, and an equal row is there, handled by the connector at the same instant, or a second or more apart | delivered before: a replay begins at the mark | passes it |
//! | at the mark | else, and an equal row is there, handled less than a second apart | new: one of several equal rows of one WAL record | takes the row in |
//!
//! The last two rows tell equal rows of one `COPY` (handled within the same moment, but not the same microsecond) from
//! a restart (which takes longer than a second) and from a repeat by the producer (the same bytes). Connectors before
//! 2.5 say only milliseconds: there equal rows of one WAL record in the same millisecond are taken for a repeat.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::envelope::Source;
use super::shown::Shown;

/// A position in the source: compared in order.
pub(super) type Position = [i64; 3];

/// The most rows that are remembered at one position; a heap page holds fewer.
const ROWS: usize = 1_024;
/// What a connector cannot restart within.
const RESTART_NS: i64 = 1_000_000_000;

/// The marks of one partition, by table. Its JSON is what the log keeps.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Marks {
    #[serde(flatten)]
    tables: BTreeMap<String, Kept>,
}

/// What is kept of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    /// How far it was delivered, when it has no key.
    #[serde(flatten)]
    mark: Option<Mark>,
    /// The columns that its rows have shown.
    #[serde(rename = "c", default, skip_serializing_if = "Shown::is_empty")]
    shown: Shown,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mark {
    #[serde(rename = "p")]
    position: Position,
    /// Commit time at the source, microseconds.
    #[serde(rename = "t")]
    time: i64,
    /// Whether rows at one position are told apart by what they hold.
    #[serde(rename = "s", default, skip_serializing_if = "std::ops::Not::not")]
    shared: bool,
    /// Hashes of the rows at the position, in order, and when the connector handled them (0 = not said).
    #[serde(rename = "r", default, skip_serializing_if = "Vec::is_empty")]
    rows: Vec<(u64, i64)>,
    /// How many of `rows` a running replay has passed.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    replayed: Option<usize>,
}

/// What tells one event from another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Identity {
    pub position: Position,
    /// Whether several rows may share the position.
    pub shared: bool,
    pub time: i64,
    pub hash: u64,
    pub handled_ns: Option<i64>,
}

/// The position that a `source` block names, and whether several rows may share it.
pub(super) fn position(source: &Source<'_>) -> Option<(Position, bool)> {
    if let Some(sequence) = source.sequence {
        let mut scratch = String::new();
        let pair: (Option<String>, Option<String>) = serde_json::from_str(sequence.decode(&mut scratch)?).ok()?;
        let number = |text: Option<String>| text.map_or(Some(0), |text| text.parse::<u64>().ok());
        let (commit, lsn) = (number(pair.0)?, number(pair.1)?);
        let positive = |n: u64| i64::try_from(n).ok();
        return (lsn > 0).then(|| Some(([positive(commit)?, positive(lsn)?, 0], true)))?;
    }
    let file = source.file?.rsplit('.').next()?.parse::<i64>().ok()?;
    Some(([file, source.pos?, source.row.unwrap_or(0)], false))
}

impl Marks {
    /// The marks as the log keeps them; `None` when there are none. What was inherited stays out: it stands in the marks
    /// of the partitions that it came from.
    pub fn to_text(&self) -> Option<String> {
        let own = self.tables.iter().filter_map(|(table, kept)| Some((table.clone(), kept.own()?)));
        let own = Self { tables: own.collect() };
        if own.tables.is_empty() { None } else { serde_json::to_string(&own).ok() }
    }

    /// Marks from the log.
    pub fn from_text(text: &str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    /// Without what tells re-delivered events: for records that are read in again out of their order.
    pub fn without_delivered(mut self) -> Self {
        for kept in self.tables.values_mut() {
            kept.mark = None;
        }
        self.tables.retain(|_, kept| !kept.shown.is_empty());
        self
    }

    /// Takes over what another partition of the source has shown.
    pub fn inherit(&mut self, other: &Self) {
        for (table, kept) in other.tables.iter().filter(|(_, kept)| !kept.shown.is_empty()) {
            self.shown_mut(table).inherit(&kept.shown);
        }
        self.tables.retain(|_, kept| kept.mark.is_some() || !kept.shown.is_empty());
    }

    /// The columns that rows of `table` have shown, when there are any.
    pub fn shown(&self, table: &str) -> Option<&Shown> {
        self.tables.get(table).map(|kept| &kept.shown)
    }

    /// The same, to be added to.
    pub fn shown_mut(&mut self, table: &str) -> &mut Shown {
        &mut self.tables.entry(table.to_owned()).or_default().shown
    }

    /// Whether the event was delivered before; a new one moves the table's mark.
    pub fn is_repeat(&mut self, table: &str, event: &Identity) -> bool {
        match self.tables.get_mut(table).map(|kept| &mut kept.mark) {
            Some(Some(mark)) => return mark.is_repeat(event),
            Some(none) => *none = Some(Mark::at(event)),
            None => {
                self.tables.insert(table.to_owned(), Kept { mark: Some(Mark::at(event)), ..Kept::default() });
            }
        }
        false
    }
}

impl Kept {
    /// What the partition itself has shown and delivered.
    fn own(&self) -> Option<Self> {
        let own = Self { mark: self.mark.clone(), shown: self.shown.own() };
        (own.mark.is_some() || !own.shown.is_empty()).then_some(own)
    }
}

impl Mark {
    fn at(event: &Identity) -> Self {
        let mut mark =
            Self { position: event.position, time: event.time, shared: event.shared, rows: Vec::new(), replayed: None };
        mark.take(event);
        mark
    }

    fn take(&mut self, event: &Identity) {
        if self.shared && self.rows.len() < ROWS {
            self.rows.push((event.hash, event.handled_ns.unwrap_or(0)));
        }
    }

    fn is_repeat(&mut self, event: &Identity) -> bool {
        match event.position.cmp(&self.position) {
            std::cmp::Ordering::Greater => {
                *self = Self::at(event);
                false
            }
            std::cmp::Ordering::Less if event.time <= self.time => {
                self.replayed = Some(0);
                true
            }
            std::cmp::Ordering::Less => {
                *self = Self::at(event);
                false
            }
            std::cmp::Ordering::Equal => !self.shared || self.is_repeat_here(event),
        }
    }

    /// At the mark, where several rows may be.
    fn is_repeat_here(&mut self, event: &Identity) -> bool {
        let handled = event.handled_ns.unwrap_or(0);
        let passed = self.replayed.unwrap_or(self.rows.len());
        let ahead = self.rows.iter().skip(passed).position(|(hash, _)| *hash == event.hash).map(|at| passed + at);
        let from = ahead.or_else(|| {
            let again = |first: i64| first == handled || handled.abs_diff(first) >= RESTART_NS.unsigned_abs();
            let equal = |row: &(u64, i64)| row.0 == event.hash;
            // Against the newest equal row: a WAL record is handled in one go.
            self.rows.iter().rfind(|row| equal(row)).filter(|newest| again(newest.1))?;
            self.rows.iter().position(equal)
        });
        match from {
            Some(at) => {
                self.rows[at].1 = handled;
                self.replayed = Some(at + 1);
                true
            }
            None => {
                self.take(event);
                self.replayed = None;
                false
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Event `n`: three rows share each position, two of them equal.
    fn event(n: i64, handled_ns: i64) -> Identity {
        Identity {
            position: [n / 3, n / 3 + 1, 0],
            shared: true,
            time: n / 3,
            hash: if n % 3 == 1 { n as u64 - 1 } else { n as u64 },
            handled_ns: Some(handled_ns),
        }
    }

    fn accepted(marks: &mut Marks, events: impl IntoIterator<Item = Identity>) -> usize {
        events.into_iter().filter(|e| !marks.is_repeat("t", e)).count()
    }

    proptest! {
        /// Any number of replays, each from an earlier event, with a restart of the decoder in between: each event once.
        #[test]
        fn every_event_once_whatever_is_replayed(
            total in 3i64..40,
            replays in proptest::collection::vec((0i64..40, 0i64..40), 0..5),
        ) {
            let mut marks = Marks::default();
            let mut clock = 0;
            let mut sent = 0;
            let mut count = 0;
            for (until, back) in replays {
                clock += 10 * RESTART_NS;
                let until = until.min(total).max(sent);
                // A connector begins again with a whole position.
                let from = (sent - back).max(0) / 3 * 3;
                let events = (from..until).map(|n| event(n, clock + n * 1_000));
                count += accepted(&mut marks, events);
                sent = until;
                if let Some(text) = marks.to_text() {
                    marks = Marks::from_text(&text).unwrap();
                }
            }
            prop_assert_eq!(count as i64, sent);
        }

        #[test]
        fn binlog_positions_are_unique(split in 0usize..20, back in 0usize..20) {
            let event = |n: usize| Identity {
                position: [3, (n / 2) as i64, (n % 2) as i64],
                shared: false, time: n as i64, hash: 0, handled_ns: None,
            };
            let mut marks = Marks::default();
            let events = (0..split).chain(split.saturating_sub(back)..20).map(event);
            prop_assert_eq!(accepted(&mut marks, events), 20);
        }
    }

    #[test]
    fn e1_e2_e3_e2_e3() {
        let mut marks = Marks::default();
        let e = |n: i64| event(n * 3, 5);
        assert_eq!(accepted(&mut marks, [e(1), e(2), e(3), e(2), e(3), e(3), e(4)]), 4);
    }

    #[test]
    fn an_older_position_with_a_newer_time_is_another_lineage() {
        let mut marks = Marks::default();
        let at = |p: i64, time: i64| Identity { position: [p, 0, 0], shared: false, time, hash: 1, handled_ns: None };
        assert!(!marks.is_repeat("t", &at(9, 100)));
        assert!(marks.is_repeat("t", &at(8, 100)));
        assert!(!marks.is_repeat("t", &at(2, 101)));
        assert!(!marks.is_repeat("t", &at(3, 102)));
        assert!(marks.is_repeat("t", &at(2, 101)));
    }

    /// Logs hold these texts: whatever is added, they must be read.
    #[test]
    fn marks_of_older_logs_are_read() {
        for text in [
            r#"{"views":{"p":[10,20,0],"t":5,"s":true,"r":[[18446744073709551615,7]],"n":1}}"#,
            r#"{"log":{"p":[3,4,2],"t":5}}"#,
            r#"{"orders":{"c":[{"o":"shop.public.orders","p":[10,20,0],"t":5,"n":[1,7],"c":["id","note"]}]}}"#,
            r#"{"log":{"p":[3,4,2],"t":5,"c":[{"t":5,"c":["id"]},{"n":[0,9],"c":["note"]}]}}"#,
        ] {
            assert_eq!(Marks::from_text(text).and_then(|marks| marks.to_text()).as_deref(), Some(text));
        }
    }

    #[test]
    fn positions() {
        let text = |raw| super::super::scan::Text { raw, escaped: true };
        let pg = |raw| position(&Source { sequence: Some(text(raw)), lsn: Some(5), ..Source::default() });
        assert_eq!(pg(r#"[\"10\",\"20\"]"#), Some(([10, 20, 0], true)));
        assert_eq!(pg(r#"[null,\"34049328\"]"#), Some(([0, 34_049_328, 0], true)));
        assert_eq!(pg("[null,null]"), None);
        let file = |file| Source { file: Some(file), pos: Some(4), row: Some(2), ..Source::default() };
        assert_eq!(position(&file("mysql-bin.1000003")), Some(([1_000_003, 4, 2], false)));
        assert_eq!(position(&Source { lsn: Some(5), ..Source::default() }), None);
    }
}
