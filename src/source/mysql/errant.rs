//! Transactions that only the server has that answers now, where MariaDB's positions do not show them.
//!
//! A position has one number for each domain. A replica that somebody writes to numbers that transaction in the primary's
//! domain; the primary gives the same number to another one, which we read. Asked to go on behind it the replica, now the
//! primary, never sends its own. So the place also keeps the last transaction of each *server* in each domain, as
//! `gtid_binlog_state` does. On another server the log before our position is compared with that: the state at the beginning
//! of the file that our position is in, and the transactions from there on. What it says of itself now does not suffice: it
//! has gone on, and its state only keeps each server's last transaction.
//!
//! What the first server had in its log when reading began is known, but not what it has forgotten: a server that was made
//! from a backup or whose log was reset says nothing of older transactions. What is older than the numbers of then is
//! therefore said, and does not halt.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::connection::{Connection, Trouble, literal};
use super::dump::{self, Begin, Dump};
use super::place::{Place, file_number};
use super::setup::{self, Flavour, Server};
use super::worker::Job;
use crate::error::{Error, ErrorKind, Result};
use crate::wire::binlog::{Body, Event};
use crate::wire::gtid::{MariaGtid, MariaPosition, MariaState};

/// What has been read of each server.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Seen {
    /// Everything up to these was read, or was in the log of the first server.
    pub last: MariaState,
    /// The highest number of each domain when reading began.
    pub began: BTreeMap<u32, u64>,
}

/// What the server's log has, where its positions do not say it.
pub(super) async fn learn(connection: &mut Connection, server: &Server) -> Result<Option<Seen>> {
    if server.flavour != Flavour::MariaDb {
        return Ok(None);
    }
    let sql = "SELECT @@global.gtid_binlog_state, @@global.gtid_slave_pos";
    let rows =
        connection.query(sql).await.map_err(|trouble| trouble.error("ask the server for the state of its log"))?;
    let state = |column| -> Result<MariaState> {
        let text = rows.first().map(|row| row.text(column)).unwrap_or_default();
        text.parse().map_err(|error: String| {
            Error::new(ErrorKind::SourceRefused, format!("read the state `{text}` of the server's log")).because(error)
        })
    };
    let (last, replicated) = (state(0)?, state(1)?);
    let mut began = BTreeMap::new();
    for gtid in last.iter().chain(replicated.iter()) {
        let highest = began.entry(gtid.domain).or_default();
        *highest = gtid.sequence.max(*highest);
    }
    Ok(Some(Seen { last, began }))
}

/// Refuses a server with transactions of its own before the place.
pub(super) async fn refuse(side: &mut Connection, job: &Job, place: &mut Place) -> Result<()> {
    let Some(now) = learn(side, &job.server).await? else { return Ok(()) };
    let elsewhere = place.pos == 0;
    let seen = match place.seen.take() {
        Some(mut seen) if elsewhere => {
            seen.compare(side, job, place, &now).await?;
            seen
        }
        Some(seen) => seen,
        None => {
            if elsewhere {
                tracing::warn!(
                    source = &*job.name,
                    "whether this server has transactions that the one before it had not cannot be told: what was read by an \
                     older version does not say of which servers it is. `dataflow verify` compares the tables"
                );
            }
            now
        }
    };
    place.seen = Some(seen);
    Ok(())
}

impl Seen {
    /// Compares the server's log before the place with what was read; `now` is what it says of itself.
    async fn compare(&mut self, side: &mut Connection, job: &Job, place: &Place, now: &Self) -> Result<()> {
        let (source, text) = (&*job.name, place.gtids.as_deref().unwrap_or_default());
        let position: MariaPosition = text.parse().map_err(|error: String| Error::new(ErrorKind::LogCorrupt, error))?;
        if now.last.without(&self.last).iter().all(|gtid| position.of(gtid.domain).is_none()) {
            return Ok(());
        }
        tracing::info!(source, "looking for transactions that only this server has, in its log before {text}");
        let before = before(side, job, place, &position).await?;
        let (errant, old): (Vec<_>, Vec<_>) =
            before.without(&self.last).iter().partition(|gtid| self.is_younger(*gtid));
        if !errant.is_empty() {
            return Err(refused(source, text, &errant.into_iter().collect()));
        }
        if !old.is_empty() {
            let old: MariaState = old.into_iter().collect();
            tracing::warn!(
                source,
                "this server's log has transactions of its own that are older than what was read ({old}): either the first \
                 server has forgotten them, or they were made here alone. `dataflow verify` compares the tables, and \
                 `dataflow table resync` reads one again"
            );
        }
        before.iter().for_each(|gtid| self.last.add(gtid));
        Ok(())
    }

    /// Whether it was committed after reading began.
    fn is_younger(&self, gtid: MariaGtid) -> bool {
        self.began.get(&gtid.domain).is_none_or(|began| gtid.sequence > *began)
    }
}

fn refused(source: &str, position: &str, errant: &MariaState) -> Error {
    Error::new(
        ErrorKind::PositionLost,
        format!(
            "source {source}: the server's log has transactions that only it has, before those that were read ({errant}, \
             before {position})"
        ),
    )
    .help(
        "somebody wrote to this server while it was a replica, and the primary gave the same numbers to other transactions: \
         MariaDB does not send them, and its tables hold what the primary's did not. Connect to a server without them; or \
         write `snapshot: { on_lost_position: snapshot_again }` into the source to empty its tables and read them again, and \
         take it out once they are there. `read_only` and `gtid_strict_mode` on replicas keep it from happening again",
    )
}

/// What the server's log has before the position, of the domains in which it has the position itself: where it has not,
/// the server says so when its log is asked for.
async fn before(side: &mut Connection, job: &Job, place: &Place, position: &MariaPosition) -> Result<MariaState> {
    let end = setup::end(side, &job.server).await?;
    let files = setup::files(side, &job.server).await?;
    for (file, _) in files.iter().rev() {
        let Some(head) = head(side, file).await? else { continue };
        if position.iter().all(|gtid| may_follow(&head, gtid)) {
            let mut scan = Scan::new(position, &head);
            scan.read(job, place, file, end.order()).await?;
            return Ok(scan.found());
        }
    }
    Ok(MariaState::default())
}

/// The state at the beginning of a file; the last transaction of each domain is the last one in it.
async fn head(side: &mut Connection, file: &str) -> Result<Option<Vec<MariaGtid>>> {
    let sql = format!("SHOW BINLOG EVENTS IN {} LIMIT 4", literal(file));
    let doing = || format!("read the beginning of the binary log {file}");
    let rows = side.query(&sql).await.map_err(|trouble| trouble.error(doing()))?;
    let Some(list) = rows.iter().find(|row| row.text(2).eq_ignore_ascii_case("gtid_list")) else { return Ok(None) };
    let list = list.text(5);
    let gtids = list.trim_matches(['[', ']']).split(',').map(str::trim).filter(|gtid| !gtid.is_empty());
    let gtids: std::result::Result<_, String> = gtids.map(str::parse).collect();
    gtids.map(Some).map_err(|error| Error::new(ErrorKind::SourceRefused, doing()).because(error))
}

/// Whether the transaction is the last one of its domain before the file that begins so, or stands behind.
fn may_follow(head: &[MariaGtid], gtid: MariaGtid) -> bool {
    let passed = head.iter().copied().collect::<MariaState>().has(gtid);
    !passed || is_last(head, gtid)
}

fn is_last(head: &[MariaGtid], gtid: MariaGtid) -> bool {
    head.iter().rev().find(|last| last.domain == gtid.domain) == Some(&gtid)
}

/// The log from the beginning of a file to the position.
struct Scan<'a> {
    position: &'a MariaPosition,
    /// The domains of the position that have not been found yet.
    wanted: BTreeSet<u32>,
    before: MariaState,
    file: u64,
    pos: u64,
}

impl<'a> Scan<'a> {
    fn new(position: &'a MariaPosition, head: &[MariaGtid]) -> Self {
        let ahead = |gtid: &MariaGtid| !is_last(head, *gtid);
        let wanted = position.iter().filter(ahead).map(|gtid| gtid.domain).collect();
        Self { position, wanted, before: head.iter().copied().collect(), file: 0, pos: 4 }
    }

    /// Reads until the position is found, or the log ends.
    async fn read(&mut self, job: &Job, place: &Place, file: &str, end: (u64, u64)) -> Result<()> {
        if self.wanted.is_empty() {
            return Ok(());
        }
        let doing = || format!("source {}: look through the binary log {file}", job.name);
        let failed = |trouble: Trouble| setup::explain(trouble, Some(&job.server), doing());
        self.file = file_number(file);
        let begin = Begin { place, at: Some((file, 4)) };
        let mut dump = Dump::open(&job.settings, &job.server, &job.us, &begin).await?;
        let mut reader = None;
        while !self.wanted.is_empty() && (self.file, self.pos) < end {
            let bytes = dump.next().await.map_err(failed)?;
            let mut known = reader.take().unwrap_or_else(|| dump::reader(&bytes));
            let event = known.read(&bytes);
            self.event(&event.map_err(|error| Error::new(ErrorKind::SourceRefused, doing()).because(error))?);
            reader = Some(known);
            dump.give_back(bytes);
        }
        Ok(())
    }

    fn event(&mut self, event: &Event<'_>) {
        let header = &event.header;
        match &event.body {
            Body::Rotate { position, file } => (self.file, self.pos) = (file_number(file), (*position).max(4)),
            // It has nothing more.
            Body::Heartbeat(_) => self.pos = u64::MAX,
            _ if header.is_artificial() || header.log_pos == 0 => {}
            // Positions are sent modulo 2³².
            _ => self.pos += u64::from(header.log_pos.wrapping_sub(self.pos as u32)),
        }
        let Body::MariaGtid { gtid, .. } = event.body else { return };
        if self.wanted.contains(&gtid.domain) {
            self.before.add(gtid);
            if self.position.of(gtid.domain) == Some(gtid) {
                self.wanted.remove(&gtid.domain);
            }
        }
    }

    /// Of the domains that were found.
    fn found(&self) -> MariaState {
        let found = |gtid: &MariaGtid| self.position.of(gtid.domain).is_some() && !self.wanted.contains(&gtid.domain);
        self.before.iter().filter(found).collect()
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn gtids(text: &str) -> Vec<MariaGtid> {
        text.split(',').map(|gtid| gtid.parse().unwrap()).collect()
    }

    #[test]
    fn the_file_that_the_position_is_in_is_found_by_how_files_begin() {
        let head = gtids("0-2-101,0-1-105,1-1-7");
        assert!(may_follow(&head, "0-1-105".parse().unwrap()), "nothing of its domain came after it");
        assert!(may_follow(&head, "0-1-106".parse().unwrap()));
        assert!(may_follow(&head, "0-3-1".parse().unwrap()));
        assert!(!may_follow(&head, "0-1-104".parse().unwrap()));
        // Its number is the highest of the domain, but others with lower numbers came later.
        assert!(!may_follow(&gtids("0-2-150,0-1-110"), "0-2-150".parse().unwrap()));
    }

    #[test]
    fn what_is_older_than_the_beginning_is_told_from_what_came_after() {
        let seen = Seen { last: "0-1-110".parse().unwrap(), began: [(0, 50)].into() };
        assert!(seen.is_younger("0-2-51".parse().unwrap()) && seen.is_younger("3-2-1".parse().unwrap()));
        assert!(!seen.is_younger("0-2-50".parse().unwrap()));
    }
}
