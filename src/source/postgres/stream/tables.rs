//! What happens to captured tables beside their changes: DDL that gives rows values without any event, other names,
//! tables that are dropped and made again.

use std::collections::BTreeSet;

use tokio::time::{Duration, Instant, sleep};

use super::{Stream, chunks};
use crate::batch::RawRecords;
use crate::error::{Error, ErrorKind, Result};
use crate::source::postgres::catalog;
use crate::source::postgres::connection::Trouble;
use crate::source::postgres::silent::{Silent, TableState};
use crate::source::postgres::worker::{Item, Piece};
use crate::wire::pgoutput::Lsn;

/// How long the catalog is waited for to show what the stream has brought, and how often it is looked at. A commit that
/// waits for a standby is brought before it can be seen.
const SEEN_WITHIN: Duration = Duration::from_secs(10);
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Partitions that were emptied.
pub(super) struct Emptied {
    /// The transactions that did it, as far as the catalog tells.
    by: BTreeSet<u32>,
    /// The table then.
    state: TableState,
    /// What was in the catalog then stands before this place of the log.
    until: Lsn,
}

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
                    let state = table.state.clone();
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
        let attached = state.attached_since(before);
        let doing = || format!("source {}: look at the partitions of {name}", self.job.name);
        let came = catalog::any_filled(&mut self.side, &attached).await.map_err(|trouble| trouble.error(doing()))?;
        let Some(silent) = state.since(before, came) else {
            if self.is_open_question(name, &state).await? {
                return Ok(());
            }
            // What is known is renewed once both are: a rewrite is two changes in the catalog, seen at once.
            self.place.renew(name, state, None);
            return Ok(());
        };
        self.say_silent(name, state, silent).await
    }

    /// Partitions were emptied, and the stream has not come so far yet as to tell whether that was all of the table. What
    /// is known is kept till then, in the log, too.
    async fn is_open_question(&mut self, name: &str, state: &TableState) -> Result<bool> {
        let emptied = self.place.state(name).map(|before| state.emptied_since(before)).unwrap_or_default();
        let told = self.truncated.get(name).is_some_and(|told| emptied.is_subset(told));
        if emptied.is_empty() || told {
            self.truncated.remove(name);
            self.emptied.remove(name);
            return Ok(false);
        }
        let doing = format!("source {}: look where the log ends", self.job.name);
        if self.emptied.get(name).is_none_or(|known| known.by != emptied) {
            let until = match self.job.heartbeat.is_zero() {
                true => catalog::log_written(&mut self.side).await,
                false => catalog::heartbeat(&mut self.side).await,
            };
            let until = until.map_err(|trouble| trouble.error(doing))?;
            self.emptied.insert(name.to_owned(), Emptied { by: emptied, state: state.clone(), until });
        }
        Ok(true)
    }

    /// Judges what was emptied once the stream has passed it.
    pub(super) async fn judge_emptied(&mut self) -> Result<()> {
        if self.emptied.is_empty() || self.open.is_some() {
            return Ok(());
        }
        let lsn = self.place.lsn;
        let due: Vec<String> =
            self.emptied.iter().filter(|(_, emptied)| emptied.until <= lsn).map(|(name, _)| name.clone()).collect();
        for name in due {
            let Some(Emptied { by, state, .. }) = self.emptied.remove(&name) else { continue };
            if self.truncated.remove(&name).is_some_and(|told| by.is_subset(&told)) {
                self.place.renew(&name, state, None);
            } else {
                self.say_silent(&name, state, Silent::Partitions).await?;
            }
            self.reached_end().await?;
        }
        Ok(())
    }

    /// The stream says that captured tables were emptied.
    pub(super) async fn note_truncate(&mut self, relations: &[u32]) -> Result<()> {
        let Some(xid) = self.open.as_ref().map(|open| open.xid) else { return Ok(()) };
        let parted = |id: &u32| {
            let found = self.job.captured.iter().find(|(_, known)| known.id == *id && known.state.leaves.is_some());
            found.map(|(name, _)| (*id, name.clone()))
        };
        let parted: Vec<(u32, String)> = relations.iter().filter_map(parted).collect();
        if !parted.is_empty() {
            self.until_seen().await?;
        }
        for (id, name) in parted {
            self.truncated.entry(name.clone()).or_default().insert(xid);
            // With the files of now in the place this transaction is never asked about again.
            self.look_at(id, &name).await?;
        }
        Ok(())
    }

    /// Waits until the catalog shows what the open transaction did there: a commit is brought before it can be seen.
    async fn until_seen(&mut self) -> Result<()> {
        let begun = Instant::now();
        let Some(xid) = self.open.as_ref().map(|open| open.xid) else { return Ok(()) };
        loop {
            let doing = || format!("source {}: look at what runs", self.job.name);
            let seen = chunks::seen(&mut self.side).await.map_err(|trouble| trouble.error(doing()))?;
            if seen.shows_recent(xid) || begun.elapsed() > SEEN_WITHIN {
                return Ok(());
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    async fn say_silent(&mut self, name: &str, state: TableState, silent: Silent) -> Result<()> {
        let unread = self.place.reading.contains_key(name);
        if silent.say(&self.job.name, name, &self.job.snapshot, unread) {
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
        let (place, inside) = (self.place.clone(), self.place.within.is_some());
        let piece = Piece { records: RawRecords::default(), place, inside, behind };
        self.send(Item::Piece(Box::new(piece))).await?;
        self.reached_end().await
    }

    /// The name by which the relation that is announced is captured. Its rows are those of the same table, whatever it
    /// was called when they were written; one that still has another name would be taken for one that nobody wants.
    pub(super) async fn captured_name(&mut self, id: u32, announced: String) -> Result<String> {
        if self.job.captured.iter().any(|(name, known)| (known.id == id) != (*name == announced)) {
            self.until_seen().await?;
        }
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
                return Err(self.look_anew(&announced, "is another one by that name now"));
            }
        }
        Ok(announced)
    }
}
