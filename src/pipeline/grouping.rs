//! Which tables are loaded together. Pure: the topology alone decides.
//!
//! Where every load is a place in a queue that a whole cluster shares (Redshift), tables that are in no group are packed,
//! those with the same `fresh_within` together, in the order of their names. Up to [`MOST_TABLES`] are one group. More are
//! cut where a table's *name* says so, whatever its neighbours are: so a table that comes or goes moves few others, and the
//! warehouse moves them safely.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::xxh3_64;

use crate::config::{Topology, Warehouse};

/// The most tables of a group that nobody named.
const MOST_TABLES: usize = 20;
/// One name of so many begins a group.
const ONE_OF: u64 = 16;

/// The groups of a topology: those that are named, and what becomes of every other table.
pub fn groups(topology: &Topology) -> BTreeMap<String, Vec<String>> {
    let mut groups = topology.groups.clone();
    let named = |table: &String| topology.groups.values().any(|tables| tables.contains(table));
    let others: Vec<&String> = topology.tables.keys().filter(|table| !named(table)).collect();
    if !matches!(topology.warehouse, Warehouse::Redshift(_)) {
        groups.extend(others.into_iter().map(|table| (table.clone(), vec![table.clone()])));
        return groups;
    }
    let mut alike: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for table in others {
        let pace = topology.fresh_within(table).map(|span| span.to_string()).unwrap_or_default();
        alike.entry(pace).or_default().push(table.clone());
    }
    groups.extend(alike.into_iter().flat_map(|(pace, tables)| packed(&pace, tables)));
    groups
}

/// Tables of one pace. A name that begins with a digit, or has a `/`, is no name that a person can give.
fn packed(pace: &str, tables: Vec<String>) -> Vec<(String, Vec<String>)> {
    let begins = |table: &str| xxh3_64(table.as_bytes()).is_multiple_of(ONE_OF);
    let few = tables.len() <= MOST_TABLES;
    let mut groups: Vec<(String, Vec<String>)> = Vec::new();
    for table in tables {
        match groups.last_mut() {
            Some((_, group)) if few || (group.len() < MOST_TABLES && !begins(&table)) => group.push(table),
            Some(_) => groups.push((format!("{pace}/{table}"), vec![table])),
            None => groups.push((pace.to_owned(), vec![table])),
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("table_{n:03}")).collect()
    }

    fn homes(groups: &[(String, Vec<String>)]) -> BTreeMap<&str, &str> {
        groups.iter().flat_map(|(group, tables)| tables.iter().map(|t| (t.as_str(), group.as_str()))).collect()
    }

    #[test]
    fn few_tables_are_one_group() {
        assert_eq!(packed("1m", names(20)), [("1m".to_owned(), names(20))]);
    }

    #[test]
    fn many_are_cut_into_groups_that_are_not_too_large() {
        let groups = packed("1m", names(200));
        assert!(groups.iter().all(|(_, tables)| (1..=MOST_TABLES).contains(&tables.len())), "{groups:?}");
        assert!((10..=25).contains(&groups.len()), "{}", groups.len());
        assert_eq!(homes(&groups).len(), 200);
        assert_eq!(groups.iter().map(|(name, _)| name).collect::<std::collections::BTreeSet<_>>().len(), groups.len());
    }

    #[test]
    fn a_table_that_comes_or_goes_moves_few_others() {
        let all = names(200);
        let before = packed("1m", all.clone());
        let mut moved = 0;
        for left_out in 0..200 {
            let fewer = all.iter().enumerate().filter(|(n, _)| *n != left_out).map(|(_, t)| t.clone()).collect();
            let after = packed("1m", fewer);
            let (before, after) = (homes(&before), homes(&after));
            let moves = after.iter().filter(|(table, group)| before[*table] != **group).count();
            assert!(moves <= 4 * MOST_TABLES, "{moves} tables move without {}", all[left_out]);
            moved += moves;
        }
        assert!(moved <= 200 * 12, "{moved} moves in 200 changes");
    }
}
