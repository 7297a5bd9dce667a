//! What captured tables are at a place of the log.
//!
//! The catalog says what a table is now. It is looked at while no statement can alter the table, and so holds at the place
//! where the log ends then: when the stream has come there, without a statement about the table on the way, its rows begin
//! to be read and its events to count. From there on the history follows it, statement by statement; it is part of the
//! place, so whoever begins at a place again has the columns that were there. What the log says of a table with its rows
//! is compared with it, and what does not fit is never read.

use std::collections::{BTreeMap, BTreeSet};

use super::catalog::{self, CatalogTable, Defaults, Look};
use super::connection::{Connection, LOCKED};
use super::place::Place;
use super::setup::Server;
use super::stream::Stream;
use super::worker::Job;
use crate::config::OnUnknownColumns;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::binlog::Misfit;
use crate::wire::mysqlddl::{Effect, Scope, Table};

/// What the source knows of the server's tables besides the history.
pub(super) struct Schema {
    pub scope: Scope,
    /// Tables that were looked at, and the places that the stream must come to before that counts.
    looked: BTreeMap<String, (Box<CatalogTable>, (u64, u64))>,
    /// Tables that a lock keeps from being looked at.
    locked: BTreeSet<String>,
}

impl Schema {
    /// Asks the server what its tables take when they name nothing.
    pub async fn begin(connection: &mut Connection, job: &Job, place: &mut Place) -> Result<Self> {
        let doing = format!("source {}: ask for the server's defaults", job.name);
        let Defaults { charset, plain_timestamps, scope } =
            catalog::defaults(connection, &job.captured, &doing).await?;
        place.history.set_server(&charset, plain_timestamps);
        Ok(Self { scope, looked: BTreeMap::new(), locked: BTreeSet::new() })
    }

    /// A statement has altered the table.
    pub fn forget(&mut self, table: &str) {
        self.looked.remove(table);
    }
}

impl Stream {
    /// The table as it is at this very place; `None` when there is none, or as long as the stream has not come to where it
    /// was looked at.
    pub(super) async fn look_up(&mut self, name: &str) -> Result<Option<CatalogTable>> {
        let doing = format!("source {}: look up the columns of {name}", self.job.name);
        if !self.schema.looked.contains_key(name) {
            match catalog::look(&mut self.side, &self.job.server, name, &doing).await? {
                Look::There(table, end) => {
                    self.settled = self.settled.max(end.order());
                    self.end = self.end.max(self.settled);
                    self.schema.locked.remove(name);
                    self.schema.looked.insert(name.to_owned(), (table, end.order()));
                }
                Look::Absent => self.rounds.is_absent(name),
                Look::Busy => {
                    if self.schema.locked.insert(name.to_owned()) {
                        let source = &*self.job.name;
                        tracing::warn!(
                            source,
                            table = name,
                            "waiting for a lock on the table, to look up its columns: {LOCKED}"
                        );
                    }
                }
            }
        }
        if self.schema.looked.get(name).is_none_or(|(_, end)| self.seen < *end) {
            return Ok(None);
        }
        let Some((table, _)) = self.schema.looked.remove(name) else { return Ok(None) };
        let database = name.split_once('.').map_or("", |(database, _)| database);
        let charset = catalog::database_charset(&mut self.side, database).await;
        if let Some(charset) = charset.map_err(|trouble| trouble.error(&doing))? {
            self.place.history.set_database(database, &charset);
        }
        self.place.history.set_table(name, table.shape());
        self.forget_maps(name);
        Ok(Some(*table))
    }

    /// A row cannot be read, because what its columns were is not known: what the topology says is done.
    pub(super) fn unknown_columns(&mut self, table: &str, misfit: &Misfit) -> Result<()> {
        let lost = self.place.history.unknown(table).map(|why| format!(": {why}")).unwrap_or_default();
        if self.job.snapshot.on_unknown_columns == OnUnknownColumns::ReadAgain {
            tracing::warn!(
                source = &*self.job.name,
                table,
                "the table is emptied and read again, because its columns are not known: {misfit}{lost}"
            );
            self.place.read_again(table.to_owned());
            return Ok(());
        }
        Err(Error::new(ErrorKind::SourceRefused, self.doing()).because(format!("{misfit}{lost}")).help(format!(
            "what its columns were when this row was written cannot be known any more: DDL ran that the log does not hold \
             (`sql_log_bin=0`, a restore), or that is not understood. Run `dataflow table resync` for the table that reads \
             {table} and start again: it is emptied and read with the columns that it has now. \
             `snapshot: {{ on_unknown_columns: read_again }}` does so by itself. With binlog_row_metadata=FULL the server's \
             log names columns, and this cannot happen"
        )))
    }
}

/// Looks at tables that count from here on although none of their rows are read.
pub(super) async fn look_at_all(
    connection: &mut Connection,
    server: &Server,
    source: &str,
    place: &mut Place,
    captured: &[String],
) -> Result<()> {
    for name in captured {
        let new = place.tables.contains_key(name) && place.history.columns(name).is_none();
        if !new || place.history.unknown(name).is_some() {
            continue;
        }
        let doing = format!("source {source}: look up the columns of {name}");
        match catalog::look(connection, server, name, &doing).await? {
            Look::There(table, end) => {
                place.history.set_table(name, table.shape());
                if let Some(taken) = place.tables.get_mut(name) {
                    taken.known_from = Some(end.order());
                }
            }
            Look::Absent => {}
            Look::Busy => {
                return Err(Error::new(ErrorKind::SourceUnavailable, doing).because("it is locked").help(LOCKED));
            }
        }
    }
    Ok(())
}

/// Tables whose columns are known from a place that the stream has not come to: statements before it pass them by.
pub(super) struct Held(Vec<(String, Option<Table>)>);

impl Held {
    /// Takes them out of the history.
    pub fn behind(place: &mut Place, here: (u64, u64)) -> Self {
        let mut held = Vec::new();
        for (name, taken) in &mut place.tables {
            match taken.known_from {
                Some(from) if here <= from => held.push(name.clone()),
                Some(_) => taken.known_from = None,
                None => {}
            }
        }
        Self(held.into_iter().map(|name| (name.clone(), place.history.take(&name))).collect())
    }

    /// Whether what a statement did is in what is known already.
    pub fn covers(&self, effect: &Effect) -> bool {
        !matches!(effect, Effect::Truncated(_)) && self.0.iter().any(|(name, _)| effect.is_about(name))
    }

    pub fn put_back(self, place: &mut Place) {
        for (name, known) in self.0 {
            if let Some(known) = known {
                place.history.put_back(name, known);
            }
        }
    }
}
