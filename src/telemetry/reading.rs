//! How far the rows of a table have been read that are there beside its changes.

use chrono::{DateTime, Utc};
use serde::Serialize;

/// A table whose rows are being read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct TableReading {
    /// Rows read.
    pub rows: u64,
    /// About how many there are; 0 where nobody knows.
    pub of: u64,
    /// Whether rows of an earlier reading are there.
    pub again: bool,
    /// About how long the rest takes, in seconds; `None` while nobody knows.
    pub left_s: Option<f64>,
    /// When this process saw it first, and the rows then.
    #[serde(skip)]
    pub first: Option<(DateTime<Utc>, u64)>,
}

impl TableReading {
    /// What is known now, after `before`.
    pub fn after(self, before: Option<Self>, now: DateTime<Utc>) -> Self {
        let before = before.and_then(|before| before.first).filter(|(_, rows)| *rows <= self.rows);
        let (since, rows) = before.unwrap_or((now, self.rows));
        let (seconds, read) = ((now - since).num_milliseconds() as f64 / 1e3, (self.rows - rows) as f64);
        let missing = self.of.saturating_sub(self.rows) as f64;
        let left_s = (read > 0.0 && self.of > 0).then(|| missing / read * seconds);
        Self { left_s, first: Some((since, rows)), ..self }
    }

    /// In words: `reading 40%`, `resyncing 40%`.
    pub fn words(&self) -> String {
        let doing = if self.again { "resyncing" } else { "reading" };
        // An estimate may be too low: it is only over when it is over.
        match (self.rows * 100).checked_div(self.of) {
            Some(percent) => format!("{doing} {}%", percent.min(99)),
            None => doing.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::TimeDelta;

    #[test]
    fn what_is_left_follows_from_what_was_read() {
        let start = Utc::now();
        let reading = |rows| TableReading { rows, of: 1000, again: true, ..TableReading::default() };
        let first = reading(100).after(None, start);
        assert_eq!((first.left_s, first.words().as_str()), (None, "resyncing 10%"));
        let second = reading(400).after(Some(first), start + TimeDelta::seconds(3));
        assert_eq!(second.left_s, Some(6.0));
        // It was begun again.
        assert_eq!(reading(50).after(Some(second), start + TimeDelta::seconds(9)).left_s, None);
        assert_eq!(TableReading { of: 0, again: false, ..reading(5) }.words(), "reading");
        assert_eq!(reading(5000).words(), "resyncing 99%");
    }
}
