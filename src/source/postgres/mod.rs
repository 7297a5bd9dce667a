//! PostgreSQL by logical replication: first the rows that are there, then the stream, without a gap or an overlap.
//!
//! | file | what it owns |
//! |---|---|
//! | `mod.rs` | the [`Source`]: opening, positions, release, rewind |
//! | `settings.rs`, `tls.rs`, `connection.rs` | one connection: who, where, TLS, login, queries, COPY |
//! | `setup.rs` | what must be there: checked, made, or said as SQL |
//! | `catalog.rs` | tables, columns, types as the server knows them |
//! | `place.rs` | the position in the lake log |
//! | `silent.rs` | what tells that rows got values without events |
//! | `worker.rs` | the task that reads |
//! | `rows.rs` | the rows of one table, part by part |
//! | `snapshot.rs` | the rows that are there at first |
//! | `stream.rs`, `stream/` | transactions as they are committed |
//! | `spool.rs` | transactions that are sent while they run |
//! | `protocol.rs` | what the server is asked for, by its version |
//! | `probe.rs` | what `check --connect` looks at |
//! | `guardian.rs` | how long the server will still keep what the slot needs |
//! | `witness.rs` | the tables as they are now, for `dataflow verify` |
//! | `quiet.rs` | whether a table changed between two places of the log |
//! | `stream/chunks.rs`, `visible.rs` | rows that are read beside the stream |
//!
//! # Order
//!
//! There is one partition, `<slot>@<system identifier>`. A change's order is (commit LSN, LSN, number in its log record),
//! doubled so that what describes a relation has a number between two changes. A row that was read from its table has
//! (LSN of the snapshot or of the stream's place, 0, number): every change that the stream brings after it is newer.
//!
//! # Generations
//!
//! A promoted standby goes on with the same log on another timeline: the generation grows, and a position that the new
//! timeline never had is [`PositionLost`](crate::error::ErrorKind::PositionLost). Another system identifier is another
//! database.

mod catalog;
mod connection;
mod guardian;
mod place;
mod probe;
mod protocol;
mod quiet;
mod rows;
mod settings;
mod setup;
mod silent;
mod snapshot;
mod spool;
mod stream;
mod tls;
mod visible;
mod witness;
mod worker;

pub use witness::Tables;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use self::catalog::CatalogTable;
pub use self::probe::{probe, slot_now};

use self::connection::{Connection, Purpose};
use self::guardian::Guard;
use self::place::{Captured, Identity, Place};
use self::protocol::Asked;
use self::settings::Settings;
use self::setup::{Added, Server, Wanted};
use self::worker::{Item, Job};
use super::{Lag, Polled, Source};
use crate::batch::{RawBatch, RawRecords};
use crate::config::{OnFilledColumn, OnLostSlot, PostgresSnapshotMode, PostgresSource};
use crate::epoch::EpochNumber;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Generation, Partition, Position, Progress, Span, Standing, Standings};
use crate::telemetry::Status;
use crate::wire::pgoutput::Lsn;

/// Pieces (of about 1 MiB) between the task that reads and whoever asks.
const PIECES: usize = 4;
/// How long a release waits until the server has been told; nothing is lost when that is not enough.
const TELL_WAIT: Duration = Duration::from_millis(500);

/// A PostgreSQL server.
pub struct Postgres {
    name: Arc<str>,
    config: PostgresSource,
    settings: Settings,
    server: Server,
    asked: Asked,
    slot: String,
    publication: String,
    status: Arc<Status>,
    captured: Captured,
    partition: Partition,
    generation: Generation,
    /// Where the source was opened: what the log says, and what that means for today's server and topology.
    opened: Option<Position>,
    beginning: Place,
    /// Where the next span begins; its text is the log's own.
    at: Position,
    /// The place behind what was handed out last.
    handed: Place,
    /// Whether `handed` must be handed out first as the claim of a partition that the log does not know.
    claim: bool,
    behind: u64,
    /// Streams to read again, and the epochs of the orders.
    wanted: watch::Sender<BTreeMap<String, EpochNumber>>,
    confirmed: watch::Sender<Lsn>,
    told: watch::Sender<Lsn>,
    worker: Option<Worker>,
    /// Something went wrong, perhaps because tables are not what they were.
    stale: bool,
}

struct Worker {
    items: mpsc::Receiver<Result<Item>>,
    task: JoinHandle<()>,
    guardian: JoinHandle<()>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.task.abort();
        self.guardian.abort();
    }
}

/// What the slot had for us is gone.
fn lost(source: &str, slot: &str, why: &str) -> Error {
    Error::new(
        ErrorKind::PositionLost,
        format!("source {source}: slot {slot} no longer has what must come next: {why}"),
    )
    .help(
        "changes in between cannot be had any more. Write `snapshot: { on_lost_slot: snapshot_again }` into the source \
             to read its tables again, and take it out once they are there",
    )
}

/// Tables that got values without events while nobody read.
fn refill(source: &str, place: &mut Place, captured: &Captured, what: OnFilledColumn) {
    for (name, known) in captured {
        let Some(before) = place.state(name) else { continue };
        let (silent, unread) = (known.state.since(&before), place.reading.contains_key(name));
        if silent.is_some_and(|silent| unread || silent.say(source, name, what)) {
            place.forget(name);
        } else {
            place.renew(name, known.state, silent);
        }
    }
}

/// The tables that are captured, as they are now.
fn identities(tables: &[CatalogTable]) -> Captured {
    tables.iter().map(|table| (table.name.clone(), Identity { id: table.id, state: table.state })).collect()
}

/// A name that PostgreSQL would cut could be another topology's too.
const NAME_BYTES: usize = 63;

/// The default name of slot and publication; `what` is the setting that says another one.
fn default_name(topology: &str, source: &str, what: &str) -> Result<String> {
    let sound = |c: char| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' };
    let name: String = format!("dataflow_{topology}_{source}").to_lowercase().chars().map(sound).collect();
    if name.len() <= NAME_BYTES {
        return Ok(name);
    }
    Err(Error::new(
        ErrorKind::Config,
        format!("source {source}: its {what} would be called {name}, and PostgreSQL's names have {NAME_BYTES} bytes"),
    )
    .help(format!("write `{what}:` with a shorter name into the source")))
}

impl Postgres {
    /// Connects, checks what must be there, makes publication and slot, and finds out where the log says that the
    /// source stands. `streams` are the tables to read, as `<schema>.<table>`.
    ///
    /// # Errors
    /// `Config` and `SourceRefused` with the SQL to run for what is missing, `PositionLost` when the server no longer has
    /// what must come next, `SourceUnavailable` while it cannot be reached.
    pub async fn open(
        name: &str,
        config: &PostgresSource,
        topology: &str,
        streams: &[String],
        standings: Arc<dyn Standings>,
        status: Arc<Status>,
    ) -> Result<Self> {
        if streams.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                format!("source {name}: no table of the topology reads from it"),
            )
            .help("write `from: <schema>.<table>` into a table, or leave the source out"));
        }
        let settings = Settings::new(name, config)?;
        let slot = config.slot.clone().map_or_else(|| default_name(topology, name, "slot"), Ok)?;
        let named = config.publication.clone();
        let publication = named.map_or_else(|| default_name(topology, name, "publication"), Ok)?;
        let mut tables = streams.to_vec();
        tables.sort();
        let (server, mut replication) = setup::identify(&settings).await?;
        let asked = Asked::new(name, config, server.version)?;
        let progress = standings.latest().await?;
        let partition = Partition::new(name, format!("{slot}@{}", server.system));
        refuse_another(name, &partition, &progress)?;
        let wanted = Wanted { source: name, publication: &publication, slot: &slot, tables: &tables };
        let mut opening = Opening {
            config,
            wanted: &wanted,
            server: &server,
            connection: Connection::open(&settings, Purpose::Query).await?,
        };
        let found = setup::check(&mut opening.connection, &wanted).await?;
        if progress.get(&partition).is_some() {
            opening.mind_publication().await?;
        }
        let added = setup::publication(&mut opening.connection, &wanted, &found).await?;
        let captured = identities(&found);
        let standing = progress.get(&partition);
        let (mut beginning, generation) = opening.begin(standing, &added, &mut replication).await?;
        beginning.fit(&captured, config.snapshot.mode == PostgresSnapshotMode::Initial);
        refill(name, &mut beginning, &captured, config.snapshot.on_filled_column);
        let confirmed = standing.map(|standing| Place::parse(&standing.position)).transpose()?;
        let opened = standing.map(|standing| standing.position.clone());
        Ok(Self {
            name: name.into(),
            config: config.clone(),
            claim: standing.is_none(),
            handed: beginning.clone(),
            confirmed: watch::Sender::new(confirmed.map_or(Lsn(0), |place| place.lsn)),
            at: opened.clone().unwrap_or_else(|| beginning.position()),
            opened,
            told: watch::Sender::new(Lsn(0)),
            behind: 0,
            wanted: watch::Sender::default(),
            worker: None,
            stale: false,
            settings,
            server,
            asked,
            slot,
            publication,
            status,
            captured,
            partition,
            generation,
            beginning,
        })
    }

    fn start(&self) -> Worker {
        let (out, items) = mpsc::channel(PIECES);
        let job = Job {
            name: Arc::clone(&self.name),
            settings: self.settings.clone(),
            server: self.server.clone(),
            publication: self.publication.clone(),
            slot: self.slot.clone(),
            captured: self.captured.clone(),
            heartbeat: self.config.heartbeat.0,
            snapshot: self.config.snapshot.clone(),
            asked: self.asked,
            streaming: AtomicBool::new(self.asked.streaming),
            spool: self.config.spool.as_ref().map_or_else(std::env::temp_dir, PathBuf::from),
            max_spool: self.config.max_spool.0,
            status: Arc::clone(&self.status),
            confirmed: self.confirmed.subscribe(),
            told: self.told.clone(),
            wanted: self.wanted.subscribe(),
        };
        let guard = Guard {
            source: Arc::clone(&self.name),
            settings: self.settings.clone(),
            slot: self.slot.clone(),
            every: guardian::every(self.config.heartbeat.0),
            status: Arc::clone(&self.status),
        };
        let task = tokio::spawn(worker::run(job, self.handed.clone(), out));
        Worker { items, task, guardian: tokio::spawn(guardian::watch(guard)) }
    }

    /// Looks again at what must be there: tables may have been dropped and made again, or left the publication.
    async fn look_again(&mut self) -> Result<()> {
        let tables: Vec<String> = self.captured.keys().cloned().collect();
        let wanted = Wanted { source: &self.name, publication: &self.publication, slot: &self.slot, tables: &tables };
        let mut connection = Connection::open(&self.settings, Purpose::Query).await?;
        let found = setup::check(&mut connection, &wanted).await?;
        let added = setup::publication(&mut connection, &wanted, &found).await?;
        if added.publication {
            return Err(lost(&self.name, &self.slot, "its publication had been dropped"));
        }
        self.captured = identities(&found);
        added.tables.iter().for_each(|table| self.handed.forget(table));
        self.handed.fit(&self.captured, self.config.snapshot.mode == PostgresSnapshotMode::Initial);
        refill(&self.name, &mut self.handed, &self.captured, self.config.snapshot.on_filled_column);
        self.stale = false;
        Ok(())
    }

    fn batch(&mut self, records: RawRecords, to: Place, inside: bool) -> Polled {
        let position = to.position();
        let span = Span { from: std::mem::replace(&mut self.at, position.clone()), to: position };
        self.handed = to;
        Polled::Batch(RawBatch {
            partition: self.partition.clone(),
            generation: self.generation,
            span,
            stream: None,
            records,
            inside_transaction: inside,
        })
    }
}

/// The log must not know this source as another slot or another database.
fn refuse_another(name: &str, partition: &Partition, progress: &Progress) -> Result<()> {
    let Some((other, _)) = progress.of_source(name).find(|(known, _)| *known != partition) else { return Ok(()) };
    Err(Error::new(
        ErrorKind::PositionLost,
        format!("source {name}: the log knows it as {} and now it is {}", other.name, partition.name),
    )
    .help(
        "the name is `<slot>@<system identifier>`: another one is another database, or a restored or upgraded copy of it, \
         whose log cannot be compared. Connect to the old one, or give the source another name in the topology: its \
         tables are then read anew",
    ))
}

/// What decides where a source begins.
struct Opening<'a> {
    config: &'a PostgresSource,
    wanted: &'a Wanted<'a>,
    server: &'a Server,
    connection: Connection,
}

impl Opening<'_> {
    async fn begin(
        &mut self,
        standing: Option<&Standing>,
        added: &Added,
        replication: &mut Connection,
    ) -> Result<(Place, Generation)> {
        let slot = setup::slot(&mut self.connection, self.wanted.source, self.wanted.slot).await?;
        let Some(standing) = standing else {
            // A slot that is there already was made by a person, or by us just before we died.
            let lsn = match slot {
                Some(slot) if slot.lost.is_none() => slot.confirmed,
                Some(_) => self.new_slot(true).await?,
                None => self.new_slot(false).await?,
            };
            return Ok((self.place(lsn, BTreeSet::new()), 0));
        };
        let mut place = Place::parse(&standing.position)?;
        let mut generation = standing.generation;
        if self.server.timeline != place.timeline {
            self.follow(&mut place, replication).await?;
            place.begin_readings_again();
            generation += 1;
        }
        let (there, why) = match &slot {
            None => (false, Some("it is not there any more".to_owned())),
            Some(slot) if slot.lost.is_some() => (true, slot.lost.clone()),
            Some(slot) if slot.confirmed > place.lsn => {
                (true, Some(format!("it begins at {} and the log stands at {}", slot.confirmed, place.lsn)))
            }
            // What was written without it can never be decoded.
            Some(_) if added.publication => (true, Some("its publication had been dropped".to_owned())),
            Some(_) => (true, None),
        };
        // Without its place in the publication a table's changes were not for us.
        added.tables.iter().for_each(|table| place.forget(table));
        let Some(why) = why else {
            if self.server.end < place.lsn {
                return Err(self.behind(&place));
            }
            if self.config.failover && slot.is_some_and(|slot| !slot.failover) {
                setup::keep_on_standbys(replication, self.wanted).await?;
            }
            return Ok((place, generation));
        };
        if self.config.snapshot.on_lost_slot == OnLostSlot::Halt {
            return Err(lost(self.wanted.source, self.wanted.slot, &why));
        }
        tracing::warn!(
            source = self.wanted.source,
            "slot {} was lost ({why}); all tables are read again",
            self.wanted.slot
        );
        let lsn = self.new_slot(there).await?;
        place.begin_readings_again();
        let mut again = place.again;
        again.extend(place.tables.into_keys());
        Ok((self.place(lsn, again), generation + 1))
    }

    /// What was written without a publication can never be decoded. Once it is there again nothing tells that it was gone,
    /// so that the slot goes first.
    async fn mind_publication(&mut self) -> Result<()> {
        if setup::has_publication(&mut self.connection, self.wanted).await? {
            return Ok(());
        }
        if self.config.snapshot.on_lost_slot == OnLostSlot::Halt {
            return Err(lost(self.wanted.source, self.wanted.slot, "its publication had been dropped"));
        }
        match setup::slot(&mut self.connection, self.wanted.source, self.wanted.slot).await? {
            Some(_) => setup::drop_slot(&mut self.connection, self.wanted).await,
            None => Ok(()),
        }
    }

    async fn new_slot(&mut self, replace: bool) -> Result<Lsn> {
        if replace {
            setup::drop_slot(&mut self.connection, self.wanted).await?;
        }
        setup::make_slot(&mut self.connection, self.wanted, self.config.failover).await
    }

    /// A place whose tables are not read yet.
    fn place(&self, lsn: Lsn, again: BTreeSet<String>) -> Place {
        Place {
            lsn,
            timeline: self.server.timeline,
            within: None,
            tables: BTreeMap::new(),
            again,
            reading: BTreeMap::new(),
        }
    }

    fn behind(&self, place: &Place) -> Error {
        setup::put_back(self.wanted.source, self.server, place.lsn)
    }

    /// The server is on another timeline: the place must be one that both have.
    async fn follow(&self, place: &mut Place, replication: &mut Connection) -> Result<()> {
        let left = setup::left_timeline(replication, self.server.timeline, place.timeline).await?;
        match left {
            Some(left) if place.lsn <= left => {
                tracing::warn!(
                    source = self.wanted.source,
                    "the server went from timeline {} to {}; going on at {}",
                    place.timeline,
                    self.server.timeline,
                    place.lsn
                );
                place.timeline = self.server.timeline;
                Ok(())
            }
            _ => Err(self.behind(place)),
        }
    }
}

#[async_trait]
impl Source for Postgres {
    async fn next(&mut self) -> Result<Polled> {
        if std::mem::take(&mut self.claim) {
            return Ok(self.batch(RawRecords::default(), self.handed.clone(), false));
        }
        if self.worker.is_none() {
            if self.stale {
                self.look_again().await?;
            }
            self.worker = Some(self.start());
        }
        let item = match &mut self.worker {
            Some(worker) => worker.items.recv().await,
            None => None,
        };
        match item {
            Some(Ok(Item::Piece(piece))) => {
                self.behind = piece.behind;
                Ok(self.batch(piece.records, piece.place, piece.inside))
            }
            Some(Ok(Item::CaughtUp)) => Ok(Polled::CaughtUp),
            Some(Err(error)) => {
                // Tried again, it goes on behind what was handed out last.
                self.worker = None;
                self.stale = true;
                Err(error)
            }
            None => {
                self.worker = None;
                Err(Error::new(ErrorKind::SourceUnavailable, format!("source {}: its task ended", self.name)))
            }
        }
    }

    async fn release(&mut self, committed: &Progress) -> Result<()> {
        if let Some(standing) = committed.get(&self.partition) {
            let lsn = Place::parse(&standing.position)?.lsn;
            let newer = self.confirmed.send_if_modified(|known| std::mem::replace(known, lsn.max(*known)) < lsn);
            if newer && self.worker.is_some() {
                // The process may be about to end, and a server that was not told keeps its log for nothing.
                let mut told = self.told.subscribe();
                let _not_in_time = tokio::time::timeout(TELL_WAIT, told.wait_for(|told| *told >= lsn)).await;
            }
        }
        Ok(())
    }

    async fn rewind(&mut self, committed: &Progress) -> Result<()> {
        self.worker = None;
        match committed.get(&self.partition) {
            // The log stands where it stood when the source was opened: what was found out then still holds.
            Some(standing) if self.opened.as_ref() == Some(&standing.position) => {
                self.handed = self.beginning.clone();
                self.at = standing.position.clone();
                self.claim = false;
            }
            Some(standing) => {
                self.at = standing.position.clone();
                self.handed = Place::parse(&standing.position)?;
                self.handed.fit(&self.captured, self.config.snapshot.mode == PostgresSnapshotMode::Initial);
                self.generation = self.generation.max(standing.generation);
                self.claim = false;
            }
            None => {
                self.handed = self.beginning.clone();
                self.at = self.beginning.position();
                self.claim = true;
            }
        }
        Ok(())
    }

    fn lag(&self) -> Vec<Lag> {
        vec![Lag { partition: self.partition.clone(), behind: self.behind }]
    }

    async fn read_again(&mut self, wanted: &BTreeMap<String, EpochNumber>) -> Result<()> {
        self.wanted.send_if_modified(|known| (known != wanted).then(|| known.clone_from(wanted)).is_some());
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_would_be_cut_is_refused() {
        assert_eq!(default_name("Sales-EU", "shop", "slot").unwrap(), "dataflow_sales_eu_shop");
        let error = default_name(&"long".repeat(15), "shop", "slot").expect_err("refused");
        assert_eq!(*error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("`slot:`"), "{error}");
    }
}
