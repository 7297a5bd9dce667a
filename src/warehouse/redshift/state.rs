//! What a group's control table says: its ledger, and what is known of each of its tables.

use std::collections::BTreeMap;

use super::sql::{NOW_US, number, order};
use super::text;
use crate::batch::{NO_TIME, Seq};
use crate::epoch::{EpochNumber, LoadAccount, LoadUnit};
use crate::error::{Error, ErrorKind, Result};
use crate::warehouse::{Freshness, Ledger, held_text};

/// A group's state. It only changes together with the ledger.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct State {
    pub ledger: Option<Ledger>,
    pub tables: BTreeMap<String, Known>,
}

/// A table's row.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub epoch: EpochNumber,
    pub account: LoadAccount,
    pub max_source_time_us: Option<i64>,
    /// The truncate floor and the time of the truncate.
    pub floor: Option<(Seq, i64)>,
    /// There are tombstones or refused versions.
    pub marked: bool,
    /// There may be incomplete rows.
    pub gaps: bool,
}

/// A row of the control table, by the order of [`STATE_COLUMNS`](super::sql::STATE_COLUMNS).
pub(super) struct Row<'a>(pub &'a [Option<String>]);

impl Row<'_> {
    pub fn text(&self, column: usize) -> &str {
        self.0.get(column).and_then(Option::as_deref).unwrap_or_default()
    }

    fn number(&self, column: usize) -> Result<Option<i64>> {
        let Some(text) = self.0.get(column).and_then(Option::as_deref) else { return Ok(None) };
        let parsed = text.trim().parse();
        parsed.map(Some).map_err(|error| {
            Error::new(ErrorKind::WarehouseRefused, format!("a control table holds `{text}` instead of a number"))
                .because(error)
                .help("somebody changed it by hand; restore the row")
        })
    }

    fn count(&self, column: usize) -> Result<u64> {
        Ok(self.number(column)?.unwrap_or(0).unsigned_abs())
    }

    fn account(&self) -> Result<LoadAccount> {
        Ok(LoadAccount {
            loaded: self.count(7)?,
            applied: self.count(8)?,
            superseded: self.count(9)?,
            incomplete: self.count(10)?,
        })
    }

    /// How fresh the table is.
    pub fn freshness(&self) -> Result<Freshness> {
        let account = self.account()?;
        Ok(Freshness {
            table: self.text(0).to_owned(),
            max_source_time_us: self.number(11)?,
            applied_at_us: self.number(12)?.unwrap_or(NO_TIME),
            rows: account.applied,
            epoch: self.count(6)?,
            account,
        })
    }
}

impl State {
    /// From the rows of the group's control table.
    pub fn read(group: &str, rows: &[Vec<Option<String>>]) -> Result<Self> {
        let mut state = Self::default();
        for row in rows.iter().map(|row| Row(row)) {
            if row.text(0).is_empty() {
                if state.ledger.is_some() {
                    return Err(Error::new(
                        ErrorKind::WarehouseRefused,
                        format!("the ledger of group {group} stands in its control table twice"),
                    )
                    .help("somebody changed it by hand; remove the row that does not belong there"));
                }
                let through = row.number(4)?.unwrap_or(0);
                state.ledger = Some(Ledger::parse(group, row.text(3), through, row.text(5))?);
                continue;
            }
            let at = row.number(14)?.unwrap_or(NO_TIME);
            let known = Known {
                epoch: row.count(6)?,
                account: row.account()?,
                max_source_time_us: row.number(11)?,
                floor: Seq::parse(row.text(13)).map(|seq| (seq, at)),
                marked: row.text(15) == "t",
                gaps: row.text(16) == "t",
            };
            state.tables.insert(row.text(0).to_owned(), known);
        }
        Ok(state)
    }
}

/// The ledger's row after `unit`.
pub(super) fn ledger_row(topology: &str, unit: &LoadUnit) -> Result<String> {
    stand_row(topology, &unit.group, &Ledger { log: unit.log, through: unit.through, held: unit.held.clone() })
}

/// The ledger's row of a group.
pub(super) fn stand_row(topology: &str, group: &str, ledger: &Ledger) -> Result<String> {
    let (topology, group, log) = (text(topology), text(group), text(&ledger.log.to_string()));
    let nulls = ["NULL"; 11].join(", ");
    Ok(format!("('', {topology}, {group}, {log}, {}, {}, {nulls})", ledger.through, text(&held_text(&ledger.held)?)))
}

/// A table's row.
pub(super) fn table_row(topology: &str, group: &str, table: &str, known: &Known) -> String {
    let account = &known.account;
    let floor_at = known.floor.map(|(_, at)| at).filter(|at| *at != NO_TIME);
    let values = [
        text(table),
        text(topology),
        text(group),
        "NULL".to_owned(),
        "NULL".to_owned(),
        "NULL".to_owned(),
        known.epoch.to_string(),
        account.loaded.to_string(),
        account.applied.to_string(),
        account.superseded.to_string(),
        account.incomplete.to_string(),
        number(known.max_source_time_us),
        NOW_US.to_owned(),
        order(known.floor.map(|(seq, _)| seq)),
        number(floor_at),
        known.marked.to_string(),
        known.gaps.to_string(),
    ];
    format!("({})", values.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_is_read_from_its_rows() {
        let row = |text: &str| text.split('|').map(|v| (v != "-").then(|| v.to_owned())).collect::<Vec<_>>();
        let log = uuid::Uuid::nil().to_string();
        let floor = Seq { major: 7, ..Seq::default() };
        let rows = [
            row(&format!("|t|g|{log}|12|{{\"b\":3}}|-|-|-|-|-|-|-|-|-|-|-")),
            row(&format!("a|t|g|-|-|-|12|5|4|1|0|77|99|{floor}|55|t|f")),
        ];
        let state = State::read("g", &rows).expect("a state");
        assert_eq!(state.ledger.as_ref().map(|l| (l.through, l.held["b"])), Some((12, 3)));
        let known = &state.tables["a"];
        assert_eq!((known.floor, known.marked, known.gaps), (Some((floor, 55)), true, false));
        assert_eq!((known.account.loaded, known.max_source_time_us), (5, Some(77)));
        assert!(State::read("g", &[rows[0].clone(), rows[0].clone()]).is_err());
    }
}
