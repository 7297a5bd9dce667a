//! A wider column takes the place of a narrow one, with its values: Redshift widens no number in place.
//!
//! `ALTER TABLE … ADD COLUMN` fixes what its transaction sees before it waits for anybody
//! (<https://docs.aws.amazon.com/redshift/latest/dg/c_serial_isolation.html>). Behind a load that has not committed yet it would
//! not see that load's rows: their new column would stay empty, and the old one goes. So the locks come first and alone, in
//! the order of a load: its group's, without which a load that has already read its state would look for its rows by a
//! column that is not the same any more, then the table's. Only then are the columns looked at.

use super::ensure::{Step, steps};
use super::session::Session;
use super::sql::{GroupNames, STATE_PREFIX};
use super::{Redshift, text};
use crate::contract::Contract;
use crate::epoch::DeleteMode;
use crate::error::{Error, ErrorKind, Result};
use crate::warehouse::names::quote;

/// The column that is about to take another one's place.
const WIDER: &str = "_dataflow_wider";

impl Redshift {
    /// Readers see the old column or the new one, and wait while it is filled; so do the loads of the table's group.
    pub(super) async fn replace(
        &self,
        session: &mut Session,
        contract: &Contract,
        mode: DeleteMode,
        column: &str,
    ) -> Result<()> {
        let home = self.home(session, &contract.table).await?;
        let replaced = self.replace_under(session, home.as_ref(), contract, mode, column).await;
        if replaced.is_err() {
            // When the session has gone, so has the transaction.
            let _gone = session.run("ROLLBACK", None).await;
        }
        replaced
    }

    async fn replace_under(
        &self,
        session: &mut Session,
        home: Option<&GroupNames>,
        contract: &Contract,
        mode: DeleteMode,
        column: &str,
    ) -> Result<()> {
        let table = contract.table.as_str();
        let of = self.names.of(table);
        session.run("BEGIN", None).await?;
        let group = home.map_or(String::new(), |home| format!("{}, ", self.names.of(&home.lock)));
        session.run(&format!("LOCK {group}{of}"), Some(table)).await?;
        if let Some(home) = home
            && session.run(&self.at_home(home, table), Some(table)).await?.rows.is_empty()
        {
            let moved = format!("table {table} has moved to another group meanwhile");
            return Err(Error::new(ErrorKind::LedgerMoved, moved));
        }
        let live = self.live_columns(session, table).await?;
        let wider = steps(table, &contract.output, mode, &live)?.into_iter().find_map(|step| match step {
            Step::Replace { column: found, sql_type, .. } if found == column => Some(sql_type),
            _ => None,
        });
        let Some(sql_type) = wider else {
            tracing::info!(table, column, "another loader has made the column wider");
            return session.run("COMMIT", None).await.map(drop);
        };
        tracing::info!(table, column, sql_type, "a wider column takes the place of the old one");
        let old = quote(column);
        let statements = [
            self.names.add_column(table, WIDER, &sql_type),
            format!("UPDATE {of} SET {WIDER} = {old}"),
            format!("ALTER TABLE {of} DROP COLUMN {old}"),
            format!("ALTER TABLE {of} RENAME COLUMN {WIDER} TO {old}"),
            "COMMIT".to_owned(),
        ];
        for statement in statements {
            session.run(&statement, Some(table)).await?;
        }
        Ok(())
    }

    /// The group that loads a table; `None`: it has none yet.
    async fn home(&self, session: &mut Session, table: &str) -> Result<Option<GroupNames>> {
        let states = session.run(&self.names.tables_like(STATE_PREFIX), Some(table)).await?.rows;
        let select = |state: &String| {
            let (of, topology) = (self.names.of(state), text(&self.topology));
            format!("SELECT group_name FROM {of} WHERE topology = {topology} AND table_name = {}", text(table))
        };
        let parts: Vec<String> = states.iter().filter_map(|row| row.first()?.as_ref()).map(select).collect();
        let found = session.all(&parts, Some(table)).await?;
        Ok(found.iter().flatten().flatten().next().map(|group| self.group(group)))
    }

    fn at_home(&self, home: &GroupNames, table: &str) -> String {
        let (state, topology) = (self.names.of(&home.state), text(&self.topology));
        format!("SELECT 1 FROM {state} WHERE topology = {topology} AND table_name = {}", text(table))
    }
}
