//! Which group loads which table. A table that moves takes its ledger position, its account, its tombstones and its
//! incomplete rows along, in one transaction that no load runs beside: see [`regroup`](crate::warehouse::regroup).

use std::collections::{BTreeMap, BTreeSet};

use super::session::{Session, portions};
use super::sql::{GroupNames, STATE_COLUMNS, STATE_PREFIX};
use super::state::{Known, State, stand_row, table_row};
use super::views::Shown;
use super::{Redshift, text};
use crate::error::{Error, ErrorKind, Result};
use crate::warehouse::Ledger;
use crate::warehouse::regroup::{Home, Regrouping, Stand, regroup};

/// Groups and the names of their tables.
type Groups = BTreeMap<String, Vec<String>>;

impl Redshift {
    /// Makes what groups have in common, and gives every table of `groups` the home that it is to have.
    pub async fn assign(&self, groups: &Groups, shown: &[Shown]) -> Result<()> {
        self.try_assign(groups).await.map_err(|e| e.doing("give every table its group"))?;
        self.show(shown).await.map_err(|e| e.doing("show people the tables"))
    }

    async fn try_assign(&self, groups: &Groups) -> Result<()> {
        let there = self.tables_like(STATE_PREFIX).await?;
        let mut lease = self.sessions.lease().await?;
        if let Some(other) = self.loaded_by_others(&mut lease.session, &there, groups).await?.into_iter().next() {
            return Err(other.refused(self));
        }
        self.sessions.give_back(lease);
        for group in groups.keys() {
            let names = self.group(group);
            if !there.contains(&names.state) {
                self.ensure_group(group, &names).await?;
            }
        }
        let mut lease = self.sessions.lease().await?;
        let states = self.states(&mut lease.session).await?;
        self.sessions.give_back(lease);
        let todo = regroup(groups, &homes(&states))?;
        if !todo.is_empty() {
            self.regroup(groups, &todo.groups()).await?;
        }
        Ok(())
    }

    /// The tables of `groups` that another topology loads into the same schema, as its control tables `states` say.
    pub(super) async fn loaded_by_others(
        &self,
        session: &mut Session,
        states: &[String],
        groups: &Groups,
    ) -> Result<Vec<LoadedTwice>> {
        let tables: Vec<String> = groups.values().flatten().map(|table| text(&table.to_ascii_lowercase())).collect();
        if states.is_empty() || tables.is_empty() {
            return Ok(Vec::new());
        }
        let select = |state: &String, tables: &[String]| {
            format!(
                "SELECT table_name, topology, {} AS state FROM {} WHERE topology <> {} AND lower(table_name) IN ({})",
                text(state),
                self.names.of(state),
                text(&self.topology),
                tables.join(", ")
            )
        };
        let lists = portions(&tables, 2, session.statement_bytes() / 2);
        let all: Vec<String> =
            lists.into_iter().flat_map(|tables| states.iter().map(move |state| select(state, tables))).collect();
        let row = |row: Vec<Option<String>>| match <[Option<String>; 3]>::try_from(row) {
            Ok([Some(table), Some(topology), Some(state)]) => Some(LoadedTwice { table, topology, state }),
            _ => None,
        };
        Ok(session.all(&all, None).await?.into_iter().filter_map(row).collect())
    }

    /// What is known of every group of the topology.
    async fn states(&self, session: &mut Session) -> Result<BTreeMap<String, State>> {
        let answer = session.run(&self.names.tables_like(STATE_PREFIX), None).await?;
        let tables = answer.rows.into_iter().filter_map(|row| row.into_iter().next().flatten());
        let select = |state: String| {
            let topology = text(&self.topology);
            format!("SELECT {STATE_COLUMNS} FROM {} WHERE topology = {topology}", self.names.of(&state))
        };
        let all = tables.map(select).collect::<Vec<_>>();
        let mut groups: BTreeMap<String, Vec<Vec<Option<String>>>> = BTreeMap::new();
        for row in session.all(&all, None).await? {
            let group = row.get(2).and_then(Option::clone).unwrap_or_default();
            groups.entry(group).or_default().push(row);
        }
        groups.into_iter().map(|(group, rows)| Ok((group.clone(), State::read(&group, &rows)?))).collect()
    }

    /// Moves tables between groups while none of `taking_part` is loaded.
    async fn regroup(&self, wanted: &Groups, taking_part: &BTreeSet<&str>) -> Result<()> {
        for group in taking_part {
            self.ensure_group(group, &self.group(group)).await?;
        }
        // No group is called like that: it is locked by whoever moves tables of this topology.
        let movers = self.group("");
        let mut lease = self.sessions.lease().await?;
        lease.session.run(&self.names.control(&movers)[0], None).await?;
        let locks = taking_part.iter().map(|group| self.group(group).lock);
        let locks: BTreeSet<String> = locks.map(|lock| self.names.of(&lock)).collect();
        let locks: Vec<String> = std::iter::once(self.names.of(&movers.lock)).chain(locks).collect();
        let moved = self.transaction(&mut lease.session, wanted, taking_part, &locks.join(", ")).await;
        self.known().clear();
        // Where it failed nothing is given back: the session ends, and what it has done with it.
        moved?;
        self.sessions.give_back(lease);
        Ok(())
    }

    async fn transaction(
        &self,
        session: &mut Session,
        wanted: &Groups,
        taking_part: &BTreeSet<&str>,
        locks: &str,
    ) -> Result<()> {
        session.run("BEGIN", None).await?;
        session.run(&format!("LOCK {locks}"), None).await?;
        let states = self.states(session).await?;
        let todo = regroup(wanted, &homes(&states))?;
        if !todo.groups().is_subset(taking_part) {
            return Err(Error::new(ErrorKind::LedgerMoved, "another process moved tables between groups meanwhile"));
        }
        for statement in self.statements(&todo, &states)? {
            session.run(&statement, None).await?;
        }
        crate::warehouse::place("warehouse.regroup.before")?;
        session.run("COMMIT", None).await?;
        crate::warehouse::place("warehouse.regroup.after")?;
        todo.tell();
        Ok(())
    }

    fn statements(&self, todo: &Regrouping, states: &BTreeMap<String, State>) -> Result<Vec<String>> {
        let mut together: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
        for (table, from, to) in &todo.moves {
            together.entry((from, to)).or_default().push(table);
        }
        let mut out = Vec::new();
        for ((from, to), tables) in together {
            let known = |table: &&str| states.get(from).and_then(|state| state.tables.get(*table));
            let marked = tables.iter().filter_map(known).any(|known| known.marked);
            let gaps = tables.iter().filter_map(known).any(|known| known.gaps);
            out.extend(
                Move { warehouse: self, from: self.group(from), to: self.group(to), group: to }
                    .of(&tables, marked, gaps),
            );
        }
        let mut rows: BTreeMap<&str, Vec<String>> = BTreeMap::new();
        for (group, stand) in &todo.ledgers {
            out.push(self.names.forget_state(&self.group(group), &[""]));
            rows.entry(group).or_default().push(stand_row(&self.topology, group, &ledger(stand))?);
        }
        for (table, group) in &todo.first {
            rows.entry(group).or_default().push(table_row(&self.topology, group, table, &Known::default()));
        }
        out.extend(rows.into_iter().map(|(group, rows)| self.names.put_state(&self.group(group), &rows)));
        Ok(out)
    }
}

/// A table that another topology loads too: what the two make of it is nobody's.
pub(super) struct LoadedTwice {
    table: String,
    topology: String,
    state: String,
}

impl LoadedTwice {
    /// What is wrong, and what a person can do.
    pub fn words(&self, warehouse: &Redshift) -> (String, String) {
        let Self { table, topology, state } = self;
        let (schema, ours) = (warehouse.names.schema(), &warehouse.topology);
        let what = format!(
            "table {schema}.{table} is loaded by topology {topology}: two topologies would overwrite each other's rows in it"
        );
        let help = format!(
            "give {ours} another `warehouse.schema`, or the table another name. If {topology} is this topology under its old \
             name, keep that name; if it loads the table no more, forget what it has loaded, and {ours} loads it from its own \
             lake: DELETE FROM {} WHERE topology = {} AND table_name = {}",
            warehouse.names.of(state),
            text(topology),
            text(table)
        );
        (what, help)
    }

    fn refused(&self, warehouse: &Redshift) -> Error {
        let (what, help) = self.words(warehouse);
        Error::new(ErrorKind::Config, what).help(help)
    }
}

/// Tables that move from one group to another.
struct Move<'a> {
    warehouse: &'a Redshift,
    from: GroupNames,
    to: GroupNames,
    /// The name of the group that they join.
    group: &'a str,
}

impl Move<'_> {
    fn of(&self, tables: &[&str], marked: bool, gaps: bool) -> Vec<String> {
        let topology = text(&self.warehouse.topology);
        let those = tables.iter().map(|table| text(table)).collect::<Vec<_>>().join(", ");
        let those = format!("topology = {topology} AND table_name IN ({those})");
        let group = text(self.group);
        let state = STATE_COLUMNS.replace("group_name", &group);
        let mut out = self.carried(&self.from.state, &self.to.state, STATE_COLUMNS, &state, &those).to_vec();
        if marked {
            let columns = "topology, table_name, key, kind, seq";
            out.extend(self.carried(&self.from.tombstones, &self.to.tombstones, columns, columns, &those));
        }
        if gaps {
            let columns = "topology, group_name, epoch, table_name, key, seq, source_partition, missing, id";
            // Numbers of different groups never meet: those of the group that they come to go on.
            let (to, first) = (self.warehouse.names.of(&self.to.incomplete), self.to.first_incomplete());
            let number = format!("(SELECT coalesce(max(id), {first}) FROM {to}) + row_number() OVER (ORDER BY id)");
            let values = format!("topology, {group}, epoch, table_name, key, seq, source_partition, missing, {number}");
            out.extend(self.carried(&self.from.incomplete, &self.to.incomplete, columns, &values, &those));
        }
        out
    }

    /// Rows go from one control table to another.
    fn carried(&self, from: &str, to: &str, columns: &str, values: &str, those: &str) -> [String; 2] {
        let names = &self.warehouse.names;
        let (from, to) = (names.of(from), names.of(to));
        [
            format!("INSERT INTO {to} ({columns}) SELECT {values} FROM {from} WHERE {those}"),
            format!("DELETE FROM {from} WHERE {those}"),
        ]
    }
}

fn homes(states: &BTreeMap<String, State>) -> BTreeMap<String, Home> {
    let home = |state: &State| Home {
        stand: state.ledger.as_ref().map(|l| Stand { log: l.log, through: l.through, held: l.held.clone() }),
        tables: state.tables.keys().cloned().collect(),
    };
    states.iter().map(|(group, state)| (group.clone(), home(state))).collect()
}

fn ledger(stand: &Stand) -> Ledger {
    Ledger { log: stand.log, through: stand.through, held: stand.held.clone() }
}
