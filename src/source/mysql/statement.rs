//! Statements in the log: the borders of transactions, what they do to captured tables, and data without rows.

use super::catalog;
use super::schema::Held;
use super::stream::Stream;
use super::tables::next;
use crate::config::{OnFilledColumn, OnUnknownColumns};
use crate::error::{Error, Result};
use crate::wire::binlog::{Query, describe_key, truncate_record};
use crate::wire::mysqlddl::{Ddl, Effect, Mode, Scope, Silent, Statement, is_copy};

/// A flag of an event: its statement may be about a temporary table.
const TEMPORARY: u16 = 4;

impl Stream {
    pub(super) async fn query(&mut self, query: &Query<'_>, flags: u16, begins: u64) -> Result<()> {
        let alone = self.is_alone();
        let mode = Mode::of(query.mode, self.is_mariadb());
        let statement = Statement::read(&query.text, &query.database, mode, &self.schema.scope);
        let known = self.open.as_ref().is_some_and(|open| open.known);
        match statement {
            Statement::Begin => {
                if let Some(open) = &mut self.open {
                    open.begun = true;
                }
                return Ok(());
            }
            Statement::End => {
                return self.commit();
            }
            _ if known => {}
            Statement::RollbackTo => return Err(self.refused_statement("ROLLBACK TO SAVEPOINT")),
            Statement::Xa => return Err(self.refused_statement("XA")),
            Statement::Data { kind, databases } => {
                let scope = &self.schema.scope;
                if !is_ignored(&databases, &self.job.ignored, scope) {
                    let captured = databases.iter().any(|database| scope.reads_from(database));
                    let elsewhere = if captured { Vec::new() } else { databases };
                    return Err(self.refused_data(kind, &elsewhere));
                }
            }
            // It hides a table of its name and is nobody's.
            Statement::Ddl(ddl) if flags & TEMPORARY != 0 && ddl.may_be_temporary() => {}
            Statement::Ddl(ddl) => self.ddl(&ddl, begins).await?,
            Statement::Other => {}
        }
        if alone { self.commit() } else { Ok(()) }
    }

    /// A statement whose rows are not in the log. `elsewhere`: databases of which nothing is read.
    fn refused_data(&self, kind: &str, elsewhere: &[String]) -> Error {
        let error = self.refused_statement(kind);
        let mut names: Vec<&str> = elsewhere.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
        names.dedup();
        if names.is_empty() {
            return error;
        }
        let names = names.join(", ");
        let help = format!(
            "{}. If nothing in {names} changes tables that are read, there is another way: write `ignore_statements_on: \
             [{names}]` into the source and start again, and such statements are passed over; nothing need be read again. \
             What triggers, foreign keys and functions there change in tables that are read is missed from then on",
            error.help_text().unwrap_or_default()
        );
        error
            .because(format!("it is about {names}: nothing of that is read, but it may change tables that are"))
            .help(help)
    }

    /// Moves the history on, and does what follows for captured tables.
    async fn ddl(&mut self, ddl: &Ddl, begins: u64) -> Result<()> {
        let held = Held::behind(&mut self.place, (super::place::file_number(&self.file), self.pos));
        let effects = self.place.history.apply(ddl, &self.schema.scope);
        let effects: Vec<Effect> = effects.into_iter().filter(|effect| !held.covers(effect)).collect();
        held.put_back(&mut self.place);
        let mut pairs = Vec::new();
        for effect in effects {
            match effect {
                Effect::Truncated(table) => self.truncate(&table, begins).await?,
                Effect::Dropped(table) => self.gone(&table),
                Effect::Created { table, sure } => self.created(&table, sure),
                Effect::Altered { table, silent, key } => self.altered(&table, silent, key),
                Effect::Unknown { table, why } => self.unknown(&table, &why),
                Effect::Renamed { from, to } => pairs.push((from, to)),
            }
        }
        self.renamed(&pairs);
        Ok(())
    }

    /// Whether nobody reads that table.
    fn is_foreign(&self, table: &str) -> bool {
        !self.schema.scope.is_captured(table)
    }

    /// What was looked up of the table holds no longer.
    fn changed(&mut self, table: &str) {
        self.catalog.remove(table);
        self.rounds.forget(table);
        self.schema.forget(table);
        self.forget_maps(table);
    }

    async fn truncate(&mut self, table: &str, begins: u64) -> Result<()> {
        if self.is_foreign(table) || !self.counts(table) {
            return Ok(());
        }
        let found = match self.place.history.columns(table) {
            Some(columns) => catalog::CatalogTable { columns: columns.to_vec(), ..Default::default() },
            None => {
                let doing = || format!("source {}: look up the columns of {table}", self.job.name);
                let found = catalog::table(&mut self.side, self.job.server.flavour, table).await;
                found.map_err(|trouble| trouble.error(doing()))?
            }
        };
        let id = self.rounds.next_id();
        let Ok(shape) = catalog::read_shape(id, table, &found) else {
            self.gone(table);
            return Ok(());
        };
        let major = super::place::file_number(&self.file);
        let Some(open) = &mut self.open else { return Ok(()) };
        let time_us = open.time_us;
        self.records.push_within(major, next(open, begins), time_us, Some(&describe_key(&shape)), None);
        self.records.push_within(major, next(open, begins), time_us, None, Some(&truncate_record(id)));
        Ok(())
    }

    /// A captured table is not there any more; if one of its name comes, it is read anew.
    fn gone(&mut self, table: &str) {
        if self.is_foreign(table) {
            return;
        }
        if self.counts(table) {
            tracing::warn!(
                source = &*self.job.name,
                table,
                "the table was dropped or renamed at the source; its rows stay in the warehouse until there is one of its \
                 name again, which is then read anew"
            );
        }
        self.changed(table);
        self.place.read_again(table.to_owned());
    }

    fn created(&mut self, table: &str, sure: bool) {
        if self.is_foreign(table) {
            return;
        }
        if sure && self.counts(table) {
            // That it went before was not said.
            self.gone(table);
        }
        self.changed(table);
    }

    fn altered(&mut self, table: &str, silent: Option<Silent>, key: bool) {
        if self.is_foreign(table) {
            return;
        }
        self.changed(table);
        let Some(taken) = self.place.tables.get_mut(table) else { return };
        if key && taken.behind.as_ref().is_some_and(|behind| !behind.is_empty()) {
            // What comes behind the last row in its order is not what it was.
            let source = &*self.job.name;
            tracing::info!(
                source,
                table,
                "its key changed while the rows that are there were read: they are read anew"
            );
            self.place.read_again(table.to_owned());
            return;
        }
        let Some(silent) = silent else { return };
        let again = self.job.snapshot.on_filled_column == OnFilledColumn::ReadAgain;
        filled(&self.job.name, table, silent, again);
        if again {
            self.place.read_again(table.to_owned());
        } else {
            taken.needs = taken.needs.max(Some(silent));
        }
    }

    /// A statement about the table was not understood. Where the log names columns, that does no harm.
    fn unknown(&mut self, table: &str, why: &str) {
        if self.is_foreign(table) || !self.counts(table) || self.job.server.names_columns {
            return;
        }
        let source = &*self.job.name;
        if self.job.snapshot.on_unknown_columns == OnUnknownColumns::ReadAgain {
            tracing::warn!(
                source,
                table,
                "its columns are not known from here on ({why}): it is emptied and read again"
            );
            self.place.read_again(table.to_owned());
        } else {
            tracing::warn!(
                source,
                table,
                "its columns are not known from here on ({why}): its next row stops the source"
            );
        }
    }

    /// Names changed, one after the other. A table that takes the place of a captured one has other rows, unless it is the
    /// copy that an online schema change has made of it.
    fn renamed(&mut self, pairs: &[(String, String)]) {
        for (from, to) in pairs {
            if !self.is_foreign(from) && !pairs.iter().any(|(_, other)| other == from) {
                self.gone(from);
            }
            if self.is_foreign(to) {
                continue;
            }
            self.changed(to);
            let known = self.job.server.names_columns || self.place.history.columns(to).is_some();
            if is_copy(from, to) && known {
                let source = &*self.job.name;
                tracing::info!(
                    source,
                    table = to,
                    "an online schema change put {from} in the table's place; going on with it"
                );
            } else {
                self.place.read_again(to.clone());
            }
        }
    }
}

/// Databases that servers and those who run them write to in statement format: heartbeats of managed clouds
/// (`mysql.rds_heartbeat2`, `mysql.heartbeat`), time zones. Their tables have no triggers that reach others.
const OF_THE_SERVER: [&str; 2] = ["mysql", "sys"];

/// Whether statements without rows may be passed over that name these databases: the server's own and those that the
/// topology says, unless a table of them is read.
fn is_ignored(databases: &[String], configured: &[String], scope: &Scope) -> bool {
    let ignored = |database: &String| {
        let mut names = OF_THE_SERVER.into_iter().chain(configured.iter().map(String::as_str));
        !scope.reads_from(database) && names.any(|name| scope.is_same(name, database))
    };
    !databases.is_empty() && databases.iter().all(ignored)
}

/// Says that rows of a table have got values without events.
fn filled(source: &str, table: &str, silent: Silent, again: bool) {
    let rest = if again {
        "the table is emptied and read again"
    } else {
        "those rows stay as they were until they change. `dataflow table resync` reads them again, and \
         `snapshot: { on_filled_column: read_again }` does so by itself"
    };
    let why = match silent {
        Silent::Filled => "a column was added whose value in rows that are there is told by no event",
        Silent::Rewritten => "DDL has changed values or their names without any event",
    };
    tracing::warn!(source, table, "{why}: {rest}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statements_are_passed_over_where_nothing_is_read_and_somebody_says_so() {
        let scope = Scope::new(&["shop.items".to_owned(), "sys.mine".to_owned()], 0);
        let configured = ["percona".to_owned(), "shop".to_owned()];
        let ignored = |databases: &[&str]| {
            let databases: Vec<String> = databases.iter().map(|name| (*name).to_owned()).collect();
            is_ignored(&databases, &configured, &scope)
        };
        assert!(ignored(&["mysql"]) && ignored(&["percona"]) && ignored(&["percona", "mysql"]));
        for halting in [&["other"][..], &["mysql", "other"], &["shop"], &["sys"], &["Percona"], &[""], &[]] {
            assert!(!ignored(halting), "{halting:?}");
        }
        assert!(is_ignored(&["Percona".to_owned()], &configured, &Scope::new(&["shop.items".to_owned()], 1)));
    }
}
