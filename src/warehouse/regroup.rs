//! Tables that move from one group to another. Pure.
//!
//! A group's ledger says how far the warehouse holds its tables. So a table may only ever be loaded by one group, its *home*,
//! and takes along where it stands: behind its new group it is `held` there, ahead of it too (what it has already is left
//! out), and in the group that it leaves it is held for ever, so that a process with an older topology does not load it
//! there once more. A table that has no home yet was never loaded: it is held at 0, and gets all that the log has of it.
//! A table that leaves the topology keeps its home, and stands where it stood.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::epoch::EpochNumber;
use crate::error::{Error, ErrorKind, Result};
use crate::warehouse::Ledger;

/// Held at this epoch: nothing is ever to be loaded here.
pub(crate) const ELSEWHERE: EpochNumber = i64::MAX as u64;

/// Where a group stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stand {
    pub log: Uuid,
    pub through: EpochNumber,
    pub held: BTreeMap<String, EpochNumber>,
}

/// What the warehouse knows of a group.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Home {
    /// Its ledger.
    pub stand: Option<Stand>,
    /// The tables whose home it is.
    pub tables: Vec<String>,
}

/// What is to be done so that every table has the home that the topology gives it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Regrouping {
    /// Table, and the groups that it leaves and joins.
    pub moves: Vec<(String, String, String)>,
    /// Tables that get their first home: table, group.
    pub first: Vec<(String, String)>,
    /// Ledgers that are changed by it.
    pub ledgers: BTreeMap<String, Stand>,
}

impl Regrouping {
    /// Whether every table is where it is to be.
    #[cfg(any(feature = "redshift", test))]
    pub fn is_empty(&self) -> bool {
        self.moves.is_empty() && self.first.is_empty()
    }

    /// Whether a ledger or a home changes, for a warehouse where a table that was never loaded has none.
    pub fn changes_something(&self) -> bool {
        !self.moves.is_empty() || !self.ledgers.is_empty()
    }

    /// Says which tables have moved.
    pub fn tell(&self) {
        for (table, from, to) in &self.moves {
            tracing::info!(table, from, to, "the table is loaded with another group from now on");
        }
    }

    /// The groups that take part.
    #[cfg(feature = "redshift")]
    pub fn groups(&self) -> std::collections::BTreeSet<&str> {
        let moves = self.moves.iter().flat_map(|(_, from, to)| [from.as_str(), to.as_str()]);
        moves.chain(self.first.iter().map(|(_, group)| group.as_str())).collect()
    }
}

/// What is to be done.
pub(crate) fn regroup(wanted: &BTreeMap<String, Vec<String>>, homes: &BTreeMap<String, Home>) -> Result<Regrouping> {
    let mut done = Regrouping::default();
    for (group, tables) in wanted {
        for table in tables {
            let home = homes.iter().find(|(_, home)| home.tables.contains(table)).map(|(home, _)| home);
            match home {
                Some(home) if home == group => {}
                Some(home) => done.moves.push((table.clone(), home.clone(), group.clone())),
                None => done.first.push((table.clone(), group.clone())),
            }
        }
    }
    let mut ledgers: BTreeMap<String, Stand> =
        homes.iter().filter_map(|(group, home)| Some((group.clone(), home.stand.clone()?))).collect();
    let before = ledgers.clone();
    for (table, from, to) in &done.moves {
        // Its old group has never loaded anything: nor has it been.
        let Some(left) = before.get(from) else { continue };
        let at = left.held.get(table).copied().unwrap_or(left.through);
        // A ledger that is made now says where those stand that wait there already: nowhere.
        let waiting = homes.get(to).into_iter().flat_map(|home| &home.tables);
        let made = || Stand { log: left.log, through: at, held: waiting.map(|table| (table.clone(), 0)).collect() };
        let joined = ledgers.entry(to.clone()).or_insert_with(made);
        if joined.log != left.log {
            return Err(foreign(table, from, to));
        }
        joined.stand_at(table, at);
        if let Some(left) = ledgers.get_mut(from) {
            left.held.insert(table.clone(), ELSEWHERE);
        }
    }
    for (table, group) in &done.first {
        if let Some(joined) = ledgers.get_mut(group) {
            joined.stand_at(table, 0);
        }
    }
    // One that comes into a group whose other tables have moved to it must not begin where they stand.
    for (table, from, to) in &done.moves {
        if !before.contains_key(from)
            && let Some(joined) = ledgers.get_mut(to)
        {
            joined.stand_at(table, 0);
        }
    }
    done.ledgers = ledgers.into_iter().filter(|(group, stand)| before.get(group) != Some(stand)).collect();
    Ok(done)
}

/// What ledgers (group, log, epoch and held tables) and tables (group and name) say.
pub(crate) fn homes(
    ledgers: Vec<(String, String, i64, String)>,
    tables: Vec<(String, String)>,
) -> Result<BTreeMap<String, Home>> {
    let mut homes: BTreeMap<String, Home> = BTreeMap::new();
    for (group, log, through, held) in ledgers {
        let Ledger { log, through, held } = Ledger::parse(&group, &log, through, &held)?;
        homes.entry(group).or_default().stand = Some(Stand { log, through, held });
    }
    for (group, table) in tables {
        homes.entry(group).or_default().tables.push(table);
    }
    Ok(homes)
}

impl Stand {
    fn stand_at(&mut self, table: &str, at: EpochNumber) {
        if at == self.through {
            self.held.remove(table);
        } else {
            self.held.insert(table.to_owned(), at);
        }
    }
}

fn foreign(table: &str, from: &str, to: &str) -> Error {
    Error::new(
        ErrorKind::LedgerForeign,
        format!("move table {table} from group {from} to group {to}: their ledgers belong to different logs"),
    )
    .help("one of them was loaded from another lake; use another schema, or remove that group's control tables and its tables")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(tables: &[&str]) -> Vec<String> {
        tables.iter().map(|table| (*table).to_owned()).collect()
    }

    fn home(tables: &[&str], through: EpochNumber, held: &[(&str, EpochNumber)]) -> Home {
        let held = held.iter().map(|(table, at)| ((*table).to_owned(), *at)).collect();
        Home { stand: Some(Stand { log: Uuid::nil(), through, held }), tables: names(tables) }
    }

    fn wanted(groups: &[(&str, &[&str])]) -> BTreeMap<String, Vec<String>> {
        groups.iter().map(|(group, tables)| ((*group).to_owned(), names(tables))).collect()
    }

    fn homes(homes: &[(&str, Home)]) -> BTreeMap<String, Home> {
        homes.iter().map(|(group, home)| ((*group).to_owned(), home.clone())).collect()
    }

    fn held(done: &Regrouping, group: &str) -> Vec<(String, EpochNumber)> {
        done.ledgers[group].held.clone().into_iter().collect()
    }

    fn at(table: &str, n: EpochNumber) -> (String, EpochNumber) {
        (table.to_owned(), n)
    }

    #[test]
    fn what_is_at_home_stays_there() {
        let homes = homes(&[("g", home(&["a", "b", "left"], 7, &[("b", 3)]))]);
        assert!(regroup(&wanted(&[("g", &["a", "b"])]), &homes).expect("nothing").is_empty());
    }

    #[test]
    fn a_table_takes_along_where_it_stands() {
        let homes = homes(&[("old", home(&["a", "b", "c"], 7, &[("b", 3)])), ("new", home(&["x"], 5, &[]))]);
        let done = regroup(&wanted(&[("old", &["c"]), ("new", &["x", "a", "b"])]), &homes).expect("possible");
        assert_eq!(done.moves.len(), 2);
        // Ahead of its new group, and behind it.
        assert_eq!(held(&done, "new"), [at("a", 7), at("b", 3)]);
        assert_eq!(held(&done, "old"), [at("a", ELSEWHERE), at("b", ELSEWHERE)]);
        assert_eq!((done.ledgers["new"].through, done.ledgers["old"].through), (5, 7));
    }

    #[test]
    fn a_group_that_is_new_stands_where_its_tables_do() {
        let homes = homes(&[("one", home(&["a"], 7, &[])), ("two", home(&["b"], 9, &[]))]);
        let done = regroup(&wanted(&[("both", &["a", "b", "c"])]), &homes).expect("possible");
        assert_eq!(done.ledgers["both"].through, 7);
        // What was never loaded gets everything.
        assert_eq!(held(&done, "both"), [at("b", 9), at("c", 0)]);
        assert_eq!(done.first, [("c".to_owned(), "both".to_owned())]);
    }

    #[test]
    fn who_comes_back_gets_what_was_left_when_it_went() {
        // It left the topology at 3, while its group went on to 9.
        let homes = homes(&[("g", home(&["a", "b"], 9, &[("b", 3)]))]);
        let done = regroup(&wanted(&[("g", &["a"]), ("other", &["b"])]), &homes).expect("possible");
        assert_eq!((done.ledgers["other"].through, done.ledgers["other"].held.len()), (3, 0));
    }

    #[test]
    fn there_and_back_again() {
        let homes = homes(&[("one", home(&["a"], 7, &[("b", ELSEWHERE)])), ("two", home(&["b"], 12, &[]))]);
        let done = regroup(&wanted(&[("one", &["a", "b"])]), &homes).expect("possible");
        assert_eq!(held(&done, "one"), [at("b", 12)]);
        assert_eq!(held(&done, "two"), [at("b", ELSEWHERE)]);
    }

    #[test]
    fn what_was_never_loaded_moves_without_a_ledger() {
        let none = |tables: &[&str]| Home { stand: None, tables: names(tables) };
        let homes = homes(&[("one", none(&["a"])), ("two", home(&["b"], 4, &[]))]);
        let done = regroup(&wanted(&[("two", &["a", "b"])]), &homes).expect("possible");
        assert_eq!(held(&done, "two"), [at("a", 0)]);
        let apart = regroup(&wanted(&[("three", &["a"])]), &homes).expect("possible");
        assert!(apart.ledgers.is_empty() && apart.moves.len() == 1, "{apart:?}");
    }

    #[test]
    fn who_waits_in_a_group_that_others_move_to_still_gets_everything() {
        let homes =
            homes(&[("one", home(&["a"], 7, &[])), ("two", Home { stand: None, tables: names(&["x", "left"]) })]);
        let done = regroup(&wanted(&[("two", &["a", "x"])]), &homes).expect("possible");
        assert_eq!((done.ledgers["two"].through, held(&done, "two")), (7, vec![at("left", 0), at("x", 0)]));
    }

    #[test]
    fn groups_of_different_logs_are_not_mixed() {
        let mut other = home(&["b"], 4, &[]);
        other.stand = other.stand.map(|stand| Stand { log: Uuid::from_u128(1), ..stand });
        let homes = homes(&[("one", home(&["a"], 7, &[])), ("two", other)]);
        let error = regroup(&wanted(&[("one", &["a", "b"])]), &homes).expect_err("foreign");
        assert_eq!(error.kind(), &ErrorKind::LedgerForeign);
    }
}
