//! One unit, one transaction.
//!
//! The group's lock comes first and alone, so that what is read afterwards is what stands once the lock is had, under
//! snapshot isolation as under serializable. Everything that a load decides by the group's state is decided before, from
//! the state as it was last seen; under the lock that state must still be the same.

use std::collections::BTreeMap;

use super::inspect::number;
use super::session::{Session, portions};
use super::sql::{self, Documents, GroupNames, StageKind, time};
use super::state::{Known, State, ledger_row, table_row};
use super::upload::{Round, Uploaded, Work};
use super::{Redshift, text};
use crate::batch::NO_TIME;
use crate::epoch::{Applied, Incomplete, LoadAccount, LoadUnit, TableLoad};
use crate::error::{Error, ErrorKind, Result};
use crate::warehouse::merge::Merge;
use crate::warehouse::shape::{incompletes, settled};
use crate::warehouse::{check_ledger, place, settle};

/// Values in one statement, which have half of its bytes.
const VALUES_PER_STATEMENT: usize = 500;

pub(super) async fn apply(warehouse: &Redshift, unit: &LoadUnit) -> Result<Applied> {
    let names = warehouse.group(&unit.group);
    warehouse.ensure_group(&unit.group, &names).await?;
    let before = warehouse.state_before(unit).await?;
    check_ledger(unit, before.ledger.as_ref())?;
    let uploaded = warehouse.upload(unit, |table| before.tables.get(table).cloned().unwrap_or_default()).await?;
    let done = warehouse.load(unit, &names, before, &uploaded).await;
    warehouse.discard(&uploaded.objects).await;
    let (accounts, after) = done?;
    warehouse.known().insert(unit.group.clone(), after);
    Ok(Applied { log: unit.log, through: unit.through, held: unit.held.clone(), accounts })
}

/// What loads of a group are counted by.
pub(super) fn load_of(group: &str) -> String {
    format!("load of {group}")
}

/// What a transaction has done.
struct Loading<'a> {
    warehouse: &'a Redshift,
    session: &'a mut Session,
    names: &'a GroupNames,
    unit: &'a LoadUnit,
    /// Temporary tables to be dropped.
    stages: Vec<String>,
}

impl Redshift {
    /// The state as this process knows it, or as it stands.
    async fn state_before(&self, unit: &LoadUnit) -> Result<State> {
        let known = self.known().get(&unit.group).cloned();
        if let Some(known) = known.filter(|known| check_ledger(unit, known.ledger.as_ref()).is_ok()) {
            return Ok(known);
        }
        Ok(self.read_state(&unit.group).await?.unwrap_or_default())
    }

    async fn load(
        &self,
        unit: &LoadUnit,
        names: &GroupNames,
        before: State,
        uploaded: &Uploaded<'_>,
    ) -> Result<(BTreeMap<String, LoadAccount>, State)> {
        let mut lease = self.sessions.lease().await?;
        let mut loading = Loading { warehouse: self, session: &mut lease.session, names, unit, stages: Vec::new() };
        let done = loading.transaction(before, &uploaded.works).await;
        let done = match done {
            Err(error) => return Err(loading.explained(error, &uploaded.name).await),
            Ok(done) => done,
        };
        self.sessions.give_back(lease);
        Ok(done)
    }
}

impl Loading<'_> {
    async fn run(&mut self, statement: String, table: &str) -> Result<u64> {
        self.session.run(&statement, Some(table)).await.map(|answer| answer.affected)
    }

    /// How many bytes of a statement may be lists of values.
    fn value_bytes(&self) -> usize {
        self.session.statement_bytes() / 2
    }

    async fn transaction(
        &mut self,
        before: State,
        works: &[Work<'_>],
    ) -> Result<(BTreeMap<String, LoadAccount>, State)> {
        self.session.run("BEGIN", None).await?;
        self.session.run(&self.warehouse.names.lock(self.names), None).await?;
        let rows = self.session.run(&self.warehouse.names.state(&self.names.state), None).await?.rows;
        let mut state = State::read(&self.unit.group, &rows)?;
        check_ledger(self.unit, state.ledger.as_ref())?;
        if state != before {
            return Err(Error::new(ErrorKind::LedgerMoved, "the group's control table changed while rows were staged"));
        }
        let mut accounts = BTreeMap::new();
        for work in works {
            let table = work.load.contract.table.clone();
            let known = state.tables.remove(&table).unwrap_or_default();
            let (account, known) = self.table(work, known).await?;
            self.warehouse.patience.passed(&load_of(&self.unit.group), &table);
            accounts.insert(table.clone(), account);
            state.tables.insert(table, known);
        }
        place("warehouse.ledger.before")?;
        state.ledger = Some(crate::warehouse::Ledger {
            log: self.unit.log,
            through: self.unit.through,
            held: self.unit.held.clone(),
        });
        self.write_state(&state, &accounts).await?;
        place("warehouse.ledger.after")?;
        for stages in portions(&self.stages, 2, self.value_bytes()) {
            self.session.run(&format!("DROP TABLE {}", stages.join(", ")), None).await?;
        }
        place("warehouse.commit.before")?;
        self.session.run("COMMIT", None).await?;
        place("warehouse.commit.after")?;
        Ok((accounts, state))
    }

    async fn table(&mut self, work: &Work<'_>, before: Known) -> Result<(LoadAccount, Known)> {
        place("warehouse.copy.before")?;
        let (load, table) = (work.load, work.load.contract.table.as_str());
        let mut account = LoadAccount::default();
        if let Some(truncate) = load.truncate {
            let stale = before.floor.is_some_and(|(floor, _)| floor >= truncate);
            account.superseded += u64::from(stale);
            account.applied += u64::from(!stale);
            let merge = self.merge_of(load, "");
            let truncates = load.earlier_truncates.iter().copied().chain(work.floor);
            for statement in truncates.map(|(seq, at)| merge.truncate(seq, &time(at))).collect::<Vec<_>>() {
                self.run(statement, table).await?;
            }
        }
        let mut incomplete = Vec::new();
        for round in &work.rounds {
            let (rows, more) = self.round(round).await?;
            account.add(&rows);
            incomplete.extend(more);
        }
        place("warehouse.copy.after")?;
        let account = settle(load, account)?;
        let marked_before = before.marked || work.rounds.iter().any(|round| round.marked);
        let mut known = Known { epoch: self.unit.through, floor: work.floor, ..before };
        known.account.add(&account);
        known.max_source_time_us =
            known.max_source_time_us.max(Some(load.max_source_time_us).filter(|time| *time != NO_TIME));
        known.marked = marked_before && self.has_tombstones(table).await?;
        let incomplete: Vec<&Incomplete> = load.incomplete.iter().chain(&incomplete).collect();
        if !incomplete.is_empty() {
            self.write_incomplete(&incomplete).await?;
        }
        if known.gaps || !incomplete.is_empty() {
            known.gaps = self.clear_incomplete(load).await?;
        }
        Ok((account, known))
    }

    fn merge_of<'m>(&self, load: &'m TableLoad, stage: &str) -> Merge<'m>
    where
        Self: 'm,
    {
        let (warehouse, contract) = (self.warehouse, &load.contract);
        warehouse.names.merge(&warehouse.topology, self.names, &contract.table, &contract.output, load.mode, stage)
    }

    async fn round(&mut self, round: &Round) -> Result<(LoadAccount, Vec<Incomplete>)> {
        let (load, table, kind) = (&round.load, round.load.contract.table.as_str(), round.form.kind);
        let staged = round.shape.rows as u64;
        if round.rows == 0 {
            return Ok((LoadAccount { superseded: staged, ..LoadAccount::default() }, Vec::new()));
        }
        self.copy(round).await?;
        let merge = round.form.merged(Merge { range: round.range.clone(), ..self.merge_of(load, &round.stage) });
        let applied = match kind {
            StageKind::Append => {
                let applied = self.run(self.warehouse.names.append(&merge), table).await?;
                if applied != round.rows {
                    return Err(miscounted(load, &format!("{applied} of {} rows went in", round.rows)));
                }
                applied
            }
            StageKind::Plain => {
                let superseded = self.run(merge.supersede(), table).await?;
                let [delete, insert] = merge.replace(false, false);
                self.run(delete, table).await?;
                let applied = self.run(insert, table).await?;
                if applied + superseded != staged {
                    return Err(miscounted(
                        load,
                        &format!("{applied} of {staged} rows went in, {superseded} were older"),
                    ));
                }
                applied
            }
            StageKind::Merge => {
                let needs = round.shape.needs(round.marked);
                for statement in merge.statements(needs, round.low.clone(), load.keep_tombstones) {
                    if statement.starts_with("CREATE TEMP TABLE") {
                        self.stages.push(merge.followers());
                    }
                    self.run(statement, table).await?;
                }
                return self.outcome(round, &merge).await;
            }
        };
        Ok((LoadAccount { applied, superseded: staged - applied, ..LoadAccount::default() }, Vec::new()))
    }

    async fn copy(&mut self, round: &Round) -> Result<()> {
        let (load, table) = (&round.load, round.load.contract.table.as_str());
        let schema = &load.contract.output;
        self.run(sql::create_stage(&round.stage, schema, round.form, &round.layout), table).await?;
        self.stages.push(round.stage.clone());
        let copy = sql::copy(&round.stage, schema, round.form, &round.manifest, &self.warehouse.iam_role);
        let large = round.form.documents == Documents::Whole;
        self.run(copy, table).await.map_err(|error| if large { unread(error, table) } else { error })?;
        // What is merged is counted together with what became of it.
        if large || round.form.kind != StageKind::Merge {
            let copied = self.session.run(sql::COPIED, Some(table)).await?;
            all_copied(round, copied.single().and_then(|count| count.trim().parse().ok()))?;
        }
        if large { self.check_documents(round).await } else { Ok(()) }
    }

    /// Whether the stage's documents are what the file said.
    async fn check_documents(&mut self, round: &Round) -> Result<()> {
        let (table, schema) = (round.load.contract.table.as_str(), &round.load.contract.output);
        let found = self.session.run(&sql::document_kinds(&round.stage, schema), Some(table)).await?;
        let found = found.rows.first().map(Vec::as_slice).unwrap_or_default();
        match round.documents.difference(found) {
            None => Ok(()),
            Some((column, strings)) => Err(mistaken(table, &schema.columns[column].name, strings)),
        }
    }

    async fn outcome(&mut self, round: &Round, merge: &Merge<'_>) -> Result<(LoadAccount, Vec<Incomplete>)> {
        let (load, partial) = (&round.load, round.shape.partial);
        let statement = if partial { merge.count_and_incomplete() } else { merge.count() };
        let answer = self.session.run(&statement, Some(&load.contract.table)).await?;
        let outcome = Outcome::read(&answer.rows)?;
        all_copied(round, Some(outcome.rows))?;
        Ok((outcome.account, incompletes(load, &outcome.incomplete)?))
    }

    async fn has_tombstones(&mut self, table: &str) -> Result<bool> {
        let statement = format!(
            "SELECT count(*) FROM {} WHERE topology = {} AND table_name = {}",
            self.warehouse.names.of(&self.names.tombstones),
            text(&self.warehouse.topology),
            text(table)
        );
        let answer = self.session.run(&statement, Some(table)).await?;
        Ok(answer.single() != Some("0"))
    }

    async fn write_incomplete(&mut self, rows: &[&Incomplete]) -> Result<()> {
        let incomplete = self.warehouse.names.of(&self.names.incomplete);
        let answer = self.session.run(&format!("SELECT max(id) FROM {incomplete}"), None).await?;
        let first = self.names.first_incomplete();
        let last = answer.single().map_or(Ok(first), number)?;
        let (topology, group, epoch) = (text(&self.warehouse.topology), text(&self.unit.group), self.unit.through);
        let values = |(number, row): (usize, &&Incomplete)| {
            let missing = serde_json::Value::from(row.missing.clone()).to_string();
            let cells = [&row.table, &row.key, &row.seq, &row.partition, &missing].map(|cell| text(cell));
            format!("({}, {topology}, {group}, {epoch}, {})", last + 1 + number as i64, cells.join(", "))
        };
        let values: Vec<String> = rows.iter().enumerate().map(values).collect();
        let most = self.value_bytes();
        for values in values.chunks(VALUES_PER_STATEMENT).flat_map(|values| portions(values, 2, most)) {
            let statement = format!(
                "INSERT INTO {incomplete} (id, topology, group_name, epoch, table_name, key, seq, source_partition, \
                 missing) VALUES {}",
                values.join(", ")
            );
            self.session.run(&statement, rows.first().map(|row| row.table.as_str())).await?;
        }
        Ok(())
    }

    /// Forgets what was incomplete of keys that are shown whole now, or not any more. Whether some are left.
    async fn clear_incomplete(&mut self, load: &TableLoad) -> Result<bool> {
        let table = load.contract.table.as_str();
        let incomplete = self.warehouse.names.of(&self.names.incomplete);
        let open = format!("SELECT id, key, seq FROM {incomplete} WHERE table_name = {}", text(table));
        let open = self.session.run(&open, Some(table)).await?.rows;
        let settled: BTreeMap<String, String> =
            if load.contract.output.key.is_empty() { BTreeMap::new() } else { settled(load)?.into_iter().collect() };
        let floor = load.truncate.map(|seq| seq.to_string());
        let is_settled = |key: &str, seq: &str| {
            floor.as_deref().is_some_and(|floor| seq < floor)
                || settled.get(key).is_some_and(|newest| seq < newest.as_str())
        };
        let gone: Vec<&str> = open
            .iter()
            .filter_map(|row| match row.as_slice() {
                [Some(id), Some(key), Some(seq)] => is_settled(key, seq).then_some(id.as_str()),
                _ => None,
            })
            .collect();
        for ids in gone.chunks(VALUES_PER_STATEMENT) {
            self.run(format!("DELETE FROM {incomplete} WHERE id IN ({})", ids.join(", ")), table).await?;
        }
        Ok(gone.len() < open.len())
    }

    async fn write_state(&mut self, state: &State, changed: &BTreeMap<String, LoadAccount>) -> Result<()> {
        let (names, topology, group) = (&self.warehouse.names, &self.warehouse.topology, &self.unit.group);
        let tables: Vec<String> = std::iter::once(String::new()).chain(changed.keys().cloned()).collect();
        let mut rows = vec![ledger_row(topology, self.unit)?];
        let changed = changed.keys().filter_map(|table| Some((table, state.tables.get(table)?)));
        rows.extend(changed.map(|(table, known)| table_row(topology, group, table, known)));
        let most = self.value_bytes();
        for tables in portions(&tables, 4, most) {
            self.session.run(&names.forget_state(self.names, tables), None).await?;
        }
        for rows in portions(&rows, 2, most) {
            self.session.run(&names.put_state(self.names, rows), None).await?;
        }
        Ok(())
    }

    /// Undoes what the transaction did, and adds what Redshift has written down about a COPY that failed. `name`: what the
    /// names of the staged files begin with.
    async fn explained(&mut self, error: Error, name: &str) -> Error {
        if self.session.run("ROLLBACK", None).await.is_err() || !matches!(error.kind(), ErrorKind::Table(_)) {
            return error;
        }
        let Some(files) = self.warehouse.staging.as_ref().map(|staging| staging.url(name)) else { return error };
        let details = self.session.run(&sql::load_errors(&files), None).await;
        match details.ok().as_ref().and_then(|answer| answer.rows.first()) {
            Some(row) => {
                let cells: Vec<&str> = row.iter().map(|cell| cell.as_deref().unwrap_or("").trim()).collect();
                let cell = |index: usize| cells.get(index).copied().unwrap_or("");
                let why = format!("COPY of column {} ({}): {} (error {})", cell(0), cell(1), cell(2), cell(3));
                // In place of what says only that there is more to read.
                Error::new(error.kind().clone(), format!("Redshift refuses rows: {why}"))
            }
            None => error,
        }
    }
}

/// What became of the rows of a stage, as [`Merge::count_and_incomplete`] says it.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    account: LoadAccount,
    /// All rows of the stage.
    rows: u64,
    /// The numbers of the incomplete ones. Also rows that are not counted (what a move left) can be incomplete.
    incomplete: Vec<i64>,
}

impl Outcome {
    fn read(answer: &[Vec<Option<String>>]) -> Result<Self> {
        let unread = |row: &[Option<String>]| {
            let what = format!("Redshift answers a count of staged rows with {row:?}");
            Error::new(ErrorKind::WarehouseUnavailable, what)
        };
        let (mut counts, mut incomplete) = (None, Vec::new());
        for row in answer {
            let number = |cell: &String| cell.trim().parse::<i64>().map_err(|_| unread(row));
            match row.as_slice() {
                [Some(number_of_row), None, None, None] => incomplete.push(number(number_of_row)?),
                [Some(applied), Some(superseded), Some(incomplete), Some(rows)] if counts.is_none() => {
                    counts = Some([number(applied)?, number(superseded)?, number(incomplete)?, number(rows)?]);
                }
                _ => return Err(unread(row)),
            }
        }
        let counts = counts.ok_or_else(|| unread(&[]))?;
        let [applied, superseded, counted, rows] = counts.map(i64::unsigned_abs);
        incomplete.sort_unstable();
        Ok(Self { account: LoadAccount { loaded: 0, applied, superseded, incomplete: counted }, rows, incomplete })
    }
}

/// COPY has not made of a column of JSON what it says.
fn mistaken(table: &str, column: &str, strings: u64) -> Error {
    let error = Error::new(
        ErrorKind::Table(table.to_owned()),
        format!(
            "this cluster does not load long documents as such: COPY has made other documents of {table}.{column} than the file \
             holds ({strings} became plain strings)"
        ),
    );
    unread(error, table)
}

/// A COPY of documents that are too long for a text has failed.
fn unread(error: Error, table: &str) -> Error {
    if error.kind() != &ErrorKind::Table(table.to_owned()) {
        return error;
    }
    error.help(
        "nothing was changed; `dataflow check --connect` says whether this cluster loads documents beyond 65535 bytes; if not, \
         keep them out with a `validate` whose rule is `octet_length(the column) <= 65535`, then `dataflow table resume`",
    )
}

/// Whether COPY took every row of the files.
fn all_copied(round: &Round, copied: Option<u64>) -> Result<()> {
    if copied == Some(round.rows) {
        return Ok(());
    }
    let (table, rows) = (&round.load.contract.table, round.rows);
    let message = format!("Redshift says that COPY took {copied:?} rows of {rows} of table {table}");
    Err(Error::new(ErrorKind::WarehouseUnavailable, message))
}

fn miscounted(load: &TableLoad, what: &str) -> Error {
    Error::new(ErrorKind::Internal, format!("the load of table {} does not add up: {what}", load.contract.table))
        .help("nothing was changed; please report this")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outcome_is_read_whole_or_not_at_all() {
        let row = |cells: [&str; 4]| cells.map(|cell| Some(cell.to_owned()).filter(|cell| !cell.is_empty())).to_vec();
        let read = Outcome::read(&[row(["7", "", "", ""]), row(["5", "1", "2", "9"]), row(["3", "", "", ""])]);
        let account = LoadAccount { applied: 5, superseded: 1, incomplete: 2, ..LoadAccount::default() };
        assert_eq!(read.expect("read"), Outcome { account, rows: 9, incomplete: vec![3, 7] });
        let broken = [
            vec![],
            vec![row(["7", "", "", ""])],
            vec![row(["5", "one", "2", "9"])],
            vec![row(["5", "1", "2", "9"]), row(["5", "1", "2", "9"])],
            vec![row(["5", "1", "", "9"])],
            vec![vec![Some("5".to_owned())]],
        ];
        for answer in broken {
            assert!(Outcome::read(&answer).is_err(), "{answer:?}");
        }
    }
}
