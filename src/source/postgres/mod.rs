//! PostgreSQL by logical replication: first the rows that are there, then the stream, without a gap or an overlap.
//!
//! | file | what it owns |
//! |---|---|
//! | `mod.rs` | the [`Source`]: positions, release, rewind |
//! | `opening.rs` | where it begins, and what is made for that |
//! | `lineage.rs` | whether the server is the one that was read |
//! | `settings.rs`, `tls.rs`, `connection.rs` | one connection: who, where, TLS, login, queries, COPY |
//! | `setup.rs` | what must be there: checked, made, or said as SQL |
//! | `catalog.rs` | tables, columns, types as the server knows them |
//! | `place.rs` | the position in the lake log |
//! | `silent.rs`, `leaf.rs` | what tells that rows changed without events |
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
mod leaf;
mod lineage;
mod opening;
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

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub use self::opening::slot_name;
pub use self::probe::{probe, slot_now};

use self::guardian::Guard;
use self::place::{Captured, Place};
use self::protocol::Asked;
use self::settings::Settings;
use self::setup::Server;
use self::worker::{Item, Job};
use super::{Lag, Polled, Source};
use crate::batch::{RawBatch, RawRecords};
use crate::config::{PostgresSource, SnapshotMode};
use crate::epoch::EpochNumber;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Generation, Partition, Position, Progress, Span};
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
    /// Whether `handed` must be handed out first: the log does not know the partition, or what was found since (tables
    /// that need a resync, or are read again). An empty span says that it does not wait for records.
    claim: bool,
    behind: u64,
    /// Streams to read again, and the epochs of the orders.
    wanted: watch::Sender<BTreeMap<String, EpochNumber>>,
    confirmed: watch::Sender<Lsn>,
    told: watch::Sender<Option<Lsn>>,
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

impl Postgres {
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

#[async_trait]
impl Source for Postgres {
    async fn next(&mut self) -> Result<Polled> {
        if self.worker.is_none() && self.stale {
            self.look_again().await?;
        }
        if self.claim {
            self.claim = self.at != self.handed.position();
            let inside = self.handed.within.is_some();
            return Ok(self.batch(RawRecords::default(), self.handed.clone(), inside));
        }
        if self.worker.is_none() {
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
                // While tables are read there is no stream, and nobody to wait for.
                let mut told = self.told.subscribe();
                let known = |told: &Option<Lsn>| told.is_none_or(|told| told >= lsn);
                let _not_in_time = tokio::time::timeout(TELL_WAIT, told.wait_for(known)).await;
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
                self.claim = self.at != self.handed.position();
            }
            Some(standing) => {
                self.at = standing.position.clone();
                self.handed = Place::parse(&standing.position)?;
                self.handed.fit(&self.captured, self.config.snapshot.mode == SnapshotMode::Initial);
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
