//! How quarantined entries are named and printed.

use std::fmt;
use std::str::FromStr;

use serde::{Serialize, Serializer};

use super::table_text::{Cell, Paint, columns, number, visible};

/// The name of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum EntryId {
    /// Refused on the way into the lake: `17/3`.
    Logged {
        /// The epoch that refused it.
        epoch: u64,
        /// Its row in that epoch's quarantine file.
        row: u64,
    },
    /// A partial row without a base, held back by the warehouse: `w5`.
    HeldBack(i64),
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Logged { epoch, row } => write!(f, "{epoch}/{row}"),
            Self::HeldBack(id) => write!(f, "w{id}"),
        }
    }
}

impl FromStr for EntryId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let held_back = text.strip_prefix('w').and_then(|id| id.parse().ok()).map(Self::HeldBack);
        let logged = || {
            let (epoch, row) = text.split_once('/')?;
            Some(Self::Logged { epoch: epoch.parse().ok()?, row: row.parse().ok()? })
        };
        held_back.or_else(logged).ok_or_else(|| "an id is EPOCH/ROW or wN as `list` shows it, e.g. 17/3 or w5".into())
    }
}

impl Serialize for EntryId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One refused record or row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RejectLine {
    /// How it is named.
    pub id: EntryId,
    /// The epoch that refused it, or whose load held it back.
    pub epoch: u64,
    /// Its row in that epoch's quarantine file.
    pub row: Option<u64>,
    /// The table, when it is known.
    pub table: Option<String>,
    /// The rule.
    pub rule: String,
    /// Why, and what a person can do.
    pub reason: String,
    /// What happened to the row at the source.
    pub op: Option<String>,
    /// The key, masked, as JSON text.
    pub key: Option<String>,
    /// The values, masked, as JSON text.
    pub values: Option<String>,
    /// Where it was read.
    pub partition: String,
    /// Its place there.
    pub position: String,
    /// Whether its payload was kept, so that it can be retried.
    pub retry: bool,
}

/// What `list` and `show` print.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct RejectList {
    /// The entries.
    pub entries: Vec<RejectLine>,
    /// How many there are beyond these.
    pub more: u64,
    /// Only some entries were asked for.
    pub narrowed: bool,
    /// The lake in which there is no log yet.
    pub no_log_in: Option<String>,
}

impl RejectList {
    /// A line per entry.
    pub fn text(&self, paint: Paint) -> String {
        if self.entries.is_empty() {
            return self.empty_text();
        }
        let rows: Vec<Vec<Cell>> = self.entries.iter().map(RejectLine::row).collect();
        let mut out = columns(paint, &["id", "table", "rule", "op", "key", "retry", "reason"], &rows);
        if self.more > 0 {
            out.push_str(&format!("and {} more; --limit shows them\n", number(self.more)));
        }
        out
    }

    fn empty_text(&self) -> String {
        match &self.no_log_in {
            Some(lake) => {
                format!("nothing is in quarantine: there is no log in {lake} yet (`dataflow run` makes it)\n")
            }
            None if self.narrowed => "nothing in quarantine matches\n".into(),
            None => "the quarantine is empty\n".into(),
        }
    }

    /// Everything about each entry.
    pub fn full_text(&self, paint: Paint) -> String {
        if self.entries.is_empty() {
            return self.empty_text();
        }
        self.entries.iter().map(|entry| entry.full_text(paint)).collect::<Vec<_>>().join("\n")
    }
}

impl RejectLine {
    fn row(&self) -> Vec<Cell> {
        let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
        vec![
            self.id.to_string().into(),
            or_dash(&self.table).into(),
            Cell::painted(self.rule.as_str(), Paint::yellow),
            or_dash(&self.op).into(),
            or_dash(&self.key).into(),
            if self.retry { "yes" } else { "no" }.into(),
            self.reason.as_str().into(),
        ]
    }

    fn full_text(&self, paint: Paint) -> String {
        let mut out = format!("{}\n", paint.bold(&self.id.to_string()));
        let mut line = |name: &str, text: &str| {
            let name = paint.dim(&format!("{name:9}"));
            out.push_str(&format!("  {name} {}\n", visible(text)));
        };
        line("table", self.table.as_deref().unwrap_or("not known"));
        line("rule", &self.rule);
        line("reason", &self.reason);
        line("operation", self.op.as_deref().unwrap_or("not known"));
        line("read at", &format!("{} {}", self.partition, self.position));
        line("key", self.key.as_deref().unwrap_or("not known"));
        let without = if matches!(self.id, EntryId::HeldBack(_)) { "not kept" } else { "could not be decoded" };
        line("values", self.values.as_deref().unwrap_or(without));
        line("retry", self.retry_text());
        out
    }

    fn retry_text(&self) -> &'static str {
        match (self.id, self.retry) {
            (_, true) => "possible: the payload was kept, encrypted",
            (EntryId::Logged { .. }, false) => {
                "not possible: no payload was kept (lake.quarantine.key makes that the next ones are), or another key is set"
            }
            (EntryId::HeldBack(_), false) => "not possible: the warehouse holds back a row, not a payload",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry() -> RejectLine {
        RejectLine {
            id: EntryId::Logged { epoch: 17, row: 3 },
            epoch: 17,
            row: Some(3),
            table: Some("orders".into()),
            rule: "positive".into(),
            reason: "amount >= 0 does not hold".into(),
            op: Some("u".into()),
            key: Some("{\"id\":1}".into()),
            values: None,
            partition: "shop:orders/0".into(),
            position: "99".into(),
            retry: false,
        }
    }

    #[test]
    fn entries_are_listed_and_shown() {
        let list = RejectList { entries: vec![entry()], more: 1200, ..RejectList::default() };
        let text = list.text(Paint::plain());
        assert!(text.contains("17/3  orders  positive  u   {\"id\":1}  no     amount >= 0 does not hold"), "{text}");
        assert!(text.ends_with("and 1 200 more; --limit shows them\n"), "{text}");
        assert!(list.full_text(Paint::plain()).contains("  retry     not possible: no payload was kept ("));
        assert_eq!(RejectList::default().text(Paint::plain()), "the quarantine is empty\n");
    }

    #[test]
    fn an_id_is_read_as_it_is_written() {
        for id in [EntryId::Logged { epoch: 17, row: 3 }, EntryId::HeldBack(5)] {
            assert_eq!(id.to_string().parse(), Ok(id));
        }
        for wrong in ["17", "w", "w1/2", "a/b", "17/", ""] {
            assert!(wrong.parse::<EntryId>().is_err(), "{wrong}");
        }
    }
}
