//! What happens to captured tables beside their changes: DDL that gives rows values without any event, other names,
//! tables that are dropped and made again.

use super::Stream;
use crate::batch::RawRecords;
use crate::error::{Error, ErrorKind, Result};
use crate::source::postgres::catalog;
use crate::source::postgres::connection::Trouble;
use crate::source::postgres::silent::TableState;
use crate::source::postgres::worker::{Item, Piece};

impl Stream {
    /// Looks at every captured table in the catalog: most of what happens there is announced by no message, or only
    /// with the next change.
    pub(super) async fn look_at_tables(&mut self) -> Result<()> {
        let doing = || format!("source {}: look at its tables", self.job.name);
        let failed = |trouble: Trouble| trouble.error(doing());
        let names: Vec<String> = self.job.captured.keys().cloned().collect();
        let tables = catalog::tables(&mut self.side, &names, self.job.shown_by()).await.map_err(failed)?;
        for name in names {
            let problem = format!("table {name} of source {}", self.job.name);
            let known = self.job.captured.get(&name).map(|known| known.id);
            match tables.iter().find(|table| table.name == name) {
                None => {
                    let help = "take it out of the topology, or make it again: it is then read anew";
                    self.job.status.problem(&problem, "it was dropped or renamed at the source", Some(help.into()));
                }
                Some(table) if Some(table.id) != known => {
                    return Err(self.look_anew(&name, "was dropped and made again"));
                }
                Some(table) if table.state.shown == 0 => {
                    return Err(self.look_anew(&name, "is not shown by the publication any more"));
                }
                Some(table) => {
                    self.job.status.solved(&problem);
                    let state = table.state;
                    self.notice(&name, state).await?;
                }
            }
        }
        Ok(())
    }

    /// Begins anew, with another look at what is there.
    fn look_anew(&self, name: &str, what: &str) -> Error {
        Error::new(ErrorKind::SourceUnavailable, format!("source {}: the table {name} {what}", self.job.name))
    }

    /// Looks at one relation when the stream announces it.
    pub(super) async fn look_at(&mut self, id: u32, name: &str) -> Result<()> {
        let doing = format!("source {}: look up the columns of {name}", self.job.name);
        let state =
            catalog::state(&mut self.side, id, self.job.shown_by()).await.map_err(|trouble| trouble.error(doing))?;
        match state {
            Some(state) if self.place.counted_from(name, id).is_some() => self.notice(name, state).await,
            _ => Ok(()),
        }
    }

    /// Does what the topology says when rows have changed without any event.
    async fn notice(&mut self, name: &str, state: TableState) -> Result<()> {
        let Some(before) = self.place.state(name) else { return Ok(()) };
        let Some(silent) = state.since(&before) else {
            // What is known is renewed once both are: a rewrite is two changes in the catalog, seen at once.
            self.place.renew(name, state, None);
            return Ok(());
        };
        let unread = self.place.reading.contains_key(name);
        if unread || silent.say(&self.job.name, name, &self.job.snapshot) {
            let order = self.wanted.borrow().get(name).copied().unwrap_or(0);
            return self.begin_reading(name, order).await;
        }
        self.place.renew(name, state, Some(silent));
        if self.open.is_none() { self.commit_soon().await } else { Ok(()) }
    }

    /// What `status` must say does not wait for rows: an empty span is committed with the next epoch.
    async fn commit_soon(&mut self) -> Result<()> {
        self.hand_out().await?;
        let behind = self.end.0.saturating_sub(self.place.lsn.0);
        let piece = Piece { records: RawRecords::default(), place: self.place.clone(), inside: false, behind };
        self.send(Item::Piece(Box::new(piece))).await?;
        self.reached_end().await
    }

    /// The name by which the relation that is announced is captured. Its rows are those of the same table, whatever it
    /// was called when they were written; one that still has another name would be taken for one that nobody wants.
    pub(super) async fn captured_name(&mut self, id: u32, announced: String) -> Result<String> {
        let found = self.job.captured.iter().find(|(name, known)| known.id == id && **name != announced);
        let Some(captured) = found.map(|(name, _)| name.clone()) else {
            return self.refuse_other(id, announced).await;
        };
        let doing = format!("source {}: look up {captured}", self.job.name);
        let now = catalog::name(&mut self.side, id).await.map_err(|trouble| trouble.error(doing))?;
        if now.as_ref() == Some(&captured) {
            return Ok(captured);
        }
        Err(Error::new(
            ErrorKind::SourceRefused,
            format!("source {}: the table {captured} is called {} now", self.job.name, now.unwrap_or(announced)),
        )
        .help("rename it back, or let the topology read it under its new name (`from:`): it is then read anew"))
    }

    /// Another table by the name of a captured one: rows of one that is gone are passed over, as those of the new one are
    /// read; the new one itself asks for another look.
    async fn refuse_other(&mut self, id: u32, announced: String) -> Result<String> {
        let other = self.job.captured.get(&announced).is_some_and(|known| known.id != id);
        if other {
            let doing = format!("source {}: look up {announced}", self.job.name);
            let now = catalog::name(&mut self.side, id).await.map_err(|trouble| trouble.error(doing))?;
            if now.as_ref() == Some(&announced) {
                return Err(self.look_anew(&announced, "was dropped and made again"));
            }
        }
        Ok(announced)
    }
}
