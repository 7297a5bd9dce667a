//! Control tables, and tables as their contracts say. Every statement commits by itself: DDL inside a load's transaction
//! would keep readers out until it ends, and some of it is refused there.

use super::conformance::prove_transactions;
use super::layout;
use super::probe::refuse_folded_case;
use super::session::Session;
use super::sql::{
    self, Documents, GroupNames, MAX_COLUMNS, MAX_NAME_BYTES, STATE_PREFIX, StageForm, StageKind, document_names,
    stage_columns,
};
use super::types::{Fit, LiveColumn, fit, sql_type};
use super::{Redshift, text};
use crate::contract::{Contract, TableSchema, Type};
use crate::epoch::DeleteMode;
use crate::error::{Disposition, Error, ErrorKind, Result};
use crate::warehouse::Lost;
use crate::warehouse::names::{literal, quote};

/// What must be done to a live table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Add {
        column: String,
        sql_type: String,
    },
    Lengthen {
        column: String,
        sql_type: String,
    },
    /// A column of another type takes the place of this one, with its values.
    Replace {
        column: String,
        from: String,
        sql_type: String,
    },
}

impl Redshift {
    pub(super) async fn set_up(&self) -> Result<()> {
        let mut lease = self.sessions.lease().await?;
        if self.sessions.through_api() {
            prove_transactions(&mut lease.session).await?;
        }
        refuse_folded_case(&mut lease.session).await?;
        let schema = self.names.schema();
        let there = format!("SELECT 1 FROM pg_namespace WHERE nspname = {}", literal(&schema.to_ascii_lowercase()));
        if lease.session.run(&there, None).await?.rows.is_empty() {
            let made = lease.session.run(&format!("CREATE SCHEMA IF NOT EXISTS {}", quote(schema)), None).await;
            if let Err(error) = made
                && lease.session.run(&there, None).await?.rows.is_empty()
            {
                return Err(error);
            }
        }
        self.sessions.give_back(lease);
        Ok(())
    }

    /// Makes the control tables of a group, once per process.
    pub(super) async fn ensure_group(&self, group: &str, names: &GroupNames) -> Result<()> {
        if self.ready().contains(group) {
            return Ok(());
        }
        let mut lease = self.sessions.lease().await?;
        for statement in self.names.control(names) {
            let mut made = lease.session.run(&statement, None).await;
            if made.is_err() {
                // Another loader made it between the look and the deed.
                made = lease.session.run(&statement, None).await;
            }
            made.map_err(|e| e.doing(format!("make the control tables of group {group}")))?;
        }
        self.sessions.give_back(lease);
        self.ready().insert(group.to_owned());
        Ok(())
    }

    pub(super) async fn ensure_table(&self, contract: &Contract, mode: DeleteMode, lost: Lost) -> Result<()> {
        check_names(contract)?;
        layout::check(contract, &self.layout(&contract.table))?;
        let (table, schema) = (contract.table.as_str(), &contract.output);
        let mut lease = self.sessions.lease().await?;
        let mut live = self.live_columns(&mut lease.session, table).await?;
        if live.is_empty() && lost == Lost::Park {
            self.refuse_lost(&mut lease.session, table).await?;
        }
        let create = self.names.create(table, schema, mode) + &layout::clause(&self.layout(table));
        if live.is_empty()
            && let Err(error) = lease.session.run(&create, Some(table)).await
        {
            // Another loader made it between the look and the deed.
            live = self.live_columns(&mut lease.session, table).await?;
            if live.is_empty() {
                return Err(error);
            }
        }
        if !live.is_empty() {
            for step in steps(table, schema, mode, &live)? {
                self.take(&mut lease.session, contract, mode, step).await?;
            }
            self.compare_layout(&mut lease.session, table).await?;
        }
        self.make_view(&mut lease.session, contract, mode).await?;
        self.sessions.give_back(lease);
        Ok(())
    }

    /// Fails for a table that is not there and has been loaded.
    async fn refuse_lost(&self, session: &mut Session, table: &str) -> Result<()> {
        let states = session.run(&self.names.tables_like(STATE_PREFIX), Some(table)).await?.rows;
        let select = |state: &String| {
            let (of, topology) = (self.names.of(state), text(&self.topology));
            format!("SELECT epoch FROM {of} WHERE table_name = {} AND topology = {topology} AND epoch > 0", text(table))
        };
        let parts: Vec<String> = states.iter().filter_map(|row| row.first()?.as_ref()).map(select).collect();
        let found = session.all(&parts, Some(table)).await?;
        let epoch = found.iter().flatten().flatten().find_map(|epoch| epoch.trim().parse().ok());
        epoch.map_or(Ok(()), |epoch| Err(crate::warehouse::lost(table, epoch)))
    }

    pub(super) async fn live_columns(&self, session: &mut Session, table: &str) -> Result<Vec<LiveColumn>> {
        let answer = session.run(&self.names.columns(table), Some(table)).await?;
        let column = |row: &Vec<Option<String>>| {
            let number = |index: usize| row.get(index)?.as_deref()?.trim().parse::<u32>().ok();
            let word = |index: usize| row.get(index).and_then(Option::clone).unwrap_or_default();
            LiveColumn {
                name: word(0),
                data_type: word(1),
                max_bytes: number(2),
                precision: number(3),
                scale: number(4),
            }
        };
        Ok(answer.rows.iter().map(column).collect())
    }

    async fn take(&self, session: &mut Session, contract: &Contract, mode: DeleteMode, step: Step) -> Result<()> {
        let table = contract.table.as_str();
        let (statement, fine, help) = match &step {
            Step::Replace { column, from, sql_type } => {
                let replaced = self.replace(session, contract, mode, column).await;
                return replaced.map_err(|error| {
                    let doing = format!("column {column} is of type {from}, and must become {sql_type}");
                    match error.disposition() {
                        Disposition::Retry => error.doing(doing),
                        _ => error.doing(doing).help(format!(
                            "Redshift changes no such type in place, and the column could not be replaced (a view that \
                             depends on it, its distribution or sort key?): add a column of type {sql_type}, UPDATE it \
                             from {column}, drop {column}, rename the new one to {column}; then `dataflow table resume`"
                        )),
                    }
                });
            }
            Step::Add { column, sql_type } => (
                self.names.add_column(table, column, sql_type),
                // Another process was quicker.
                "already exists",
                format!("let the loader's user own {table}, or add the column {column} {sql_type} yourself"),
            ),
            Step::Lengthen { column, sql_type } => (
                self.names.lengthen(table, column, sql_type),
                "target column size should be different",
                format!(
                    "the column {column} must become {sql_type}, which Redshift refuses for columns with a default, in a \
                     key constraint, or encoded as BYTEDICT, RUNLENGTH, TEXT255 or TEXT32K: ALTER TABLE … ALTER COLUMN \
                     {column} ENCODE zstd first, or make the table anew; then `dataflow table resume`"
                ),
            ),
        };
        match session.run(&statement, Some(table)).await {
            Err(error) if error.to_string().to_ascii_lowercase().contains(fine) => Ok(()),
            Err(error) => Err(error.help(help)),
            Ok(_) => Ok(()),
        }
    }
}

/// What a live table lacks.
pub(super) fn steps(table: &str, schema: &TableSchema, mode: DeleteMode, live: &[LiveColumn]) -> Result<Vec<Step>> {
    let mut steps = Vec::new();
    for column in &schema.columns {
        let wanted = sql_type(column.data_type);
        // Redshift folds names to lower case.
        let Some(found) = live.iter().find(|l| l.name.eq_ignore_ascii_case(&column.name)) else {
            steps.push(Step::Add { column: column.name.clone(), sql_type: wanted });
            continue;
        };
        match fit(found, column) {
            Fit::Holds => {}
            Fit::Lengthen(sql_type) => steps.push(Step::Lengthen { column: column.name.clone(), sql_type }),
            Fit::Replace(wider) => {
                let (column, from) = (found.name.clone(), found.sql_type());
                steps.push(Step::Replace { column, from, sql_type: wider });
            }
            Fit::Never => {
                return Err(Error::new(
                    ErrorKind::Table(table.to_owned()),
                    format!(
                        "column {} of table {table} is of type {}, which cannot take {wanted}",
                        found.name,
                        found.sql_type()
                    ),
                )
                .help(format!(
                    "change the column to {wanted}, rename it, or let DataFlow make the table: rename the existing one \
                     and resync"
                )));
            }
        }
    }
    for (name, sql_type) in sql::system_columns(schema, mode) {
        if !live.iter().any(|l| l.name == name) {
            steps.push(Step::Add { column: name.to_owned(), sql_type: sql_type.to_owned() });
        }
    }
    Ok(steps)
}

fn check_names(contract: &Contract) -> Result<()> {
    let park = |what: String| Error::new(ErrorKind::Table(contract.table.clone()), what);
    let names = || contract.output.columns.iter().map(|c| c.name.as_str());
    if let Some(name) = names().chain([contract.table.as_str()]).find(|name| name.len() > MAX_NAME_BYTES) {
        let what = format!("the name {name} is longer than the {MAX_NAME_BYTES} bytes that Redshift keeps");
        return Err(park(what).help("use a `rename` operator, or a shorter table name in the topology"));
    }
    let mut seen = std::collections::BTreeSet::new();
    if let Some(name) = names().find(|name| !seen.insert(name.to_ascii_lowercase())) {
        let what = format!("two columns are called {name}: Redshift does not tell upper from lower case");
        return Err(park(what).help("give one of them another name with a `rename` operator"));
    }
    let form = StageForm::new(StageKind::Merge, Documents::Beside);
    let staged = stage_columns(&contract.output, form).len() + document_names(&contract.output).count();
    if staged > MAX_COLUMNS {
        let what = format!(
            "its {} columns and those that a load adds are {staged}, and Redshift takes {MAX_COLUMNS}",
            contract.output.columns.len()
        );
        return Err(park(what).help("leave columns out with a `drop` operator"));
    }
    let key = contract.output.key.iter().filter_map(|name| contract.output.column(name));
    if let Some(column) = key.into_iter().find(|c| matches!(c.data_type, Type::Json | Type::Binary)) {
        let what = format!("the key column {} is {}, which Redshift cannot compare", column.name, column.data_type);
        return Err(park(what).help("name another key in the topology: `key: […]`"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::Column;

    fn live(name: &str, data_type: &str, max_bytes: Option<u32>) -> LiveColumn {
        LiveColumn { name: name.into(), data_type: data_type.into(), max_bytes, precision: None, scale: None }
    }

    fn schema(columns: &[(&str, Type)]) -> TableSchema {
        let columns = columns.iter().map(|(name, data_type)| Column::new(*name, *data_type)).collect();
        TableSchema { columns, key: vec!["id".into()] }
    }

    #[test]
    fn what_is_missing_is_added_one_by_one() {
        let wanted = schema(&[("id", Type::BigInt), ("Name", Type::Text { max_bytes: Some(40) }), ("doc", Type::Json)]);
        let there = [live("id", "bigint", None), live("name", "character varying", Some(10)), live("_seq", "x", None)];
        let steps = steps("t", &wanted, DeleteMode::Soft, &there).expect("possible");
        let add = |column: &str, sql_type: &str| Step::Add { column: column.into(), sql_type: sql_type.into() };
        assert_eq!(
            steps,
            [
                Step::Lengthen { column: "Name".into(), sql_type: "varchar(40)".into() },
                add("doc", "super"),
                add("_synced_at", "timestamp"),
                add("_deleted", "boolean"),
            ]
        );
    }

    #[test]
    fn what_cannot_be_changed_says_what_to_do() {
        let wanted = schema(&[("id", Type::BigInt)]);
        let step = steps("t", &wanted, DeleteMode::Hard, &[live("id", "integer", None)]).expect("possible").remove(0);
        let (column, from, sql_type) = ("id".into(), "integer".into(), "bigint".into());
        assert_eq!(step, Step::Replace { column, from, sql_type });
        let error = steps("t", &wanted, DeleteMode::Hard, &[live("id", "date", None)]).expect_err("never");
        assert_eq!(error.kind(), &ErrorKind::Table("t".into()));
    }

    #[test]
    fn names_that_redshift_would_take_for_one_another_park_the_table() {
        let output = schema(&[("id", Type::BigInt), ("ID", Type::BigInt)]);
        let contract = Contract { table: "t".into(), version: 1, input: output.clone(), output };
        assert!(check_names(&contract).expect_err("two of a name").to_string().contains("upper from lower case"));
    }

    #[test]
    fn a_table_has_no_more_columns_than_its_stage_can_have() {
        let contract = |columns: usize| {
            let columns = (0..columns).map(|n| Column::new(format!("c{n}"), Type::Int)).collect();
            let output = TableSchema { columns, key: vec!["c0".into()] };
            Contract { table: "t".into(), version: 1, input: output.clone(), output }
        };
        assert!(check_names(&contract(1589)).is_ok());
        assert!(check_names(&contract(1590)).expect_err("too many").to_string().contains("1600"));
    }
}
