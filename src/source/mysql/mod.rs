//! MySQL and MariaDB by their row-based binary log: the rows that are there, and the stream, without a gap.
//!
//! | file | what it owns |
//! |---|---|
//! | `mod.rs` | the [`Source`]: opening, positions, generations, rewind |
//! | `settings.rs`, `connection.rs` | one connection: who, where, TLS, queries |
//! | `setup.rs`, `probe.rs` | what must be there: checked, or said as SQL |
//! | `catalog.rs` | tables and columns as the server knows them |
//! | `place.rs`, `gtids.rs` | the position in the lake log |
//! | `begin.rs` | where the stream begins on the server that answers |
//! | `errant.rs` | what only that server has, where MariaDB's positions do not show it |
//! | `worker.rs` | the task that reads |
//! | `dump.rs` | the binary log as the server sends it |
//! | `stream.rs`, `tables.rs`, `statement.rs` | transactions: their borders, their rows, their statements |
//! | `tick.rs` | how far it has come, and whether the server still sends |
//! | `schema.rs` | what captured tables are at a place: the catalog, then statements |
//! | `refusal.rs` | why the server does not send its log |
//! | `snapshot.rs` | the rows that are there already, chunk by chunk |
//! | `witness.rs` | the tables as they are now, for `dataflow verify` |
//!
//! # Order
//!
//! There is one partition, `binlog`. A change's order is (number of the binlog file, position of its event, number in
//! it). A row of the snapshot has (file, place of the stream, number): it comes before every event behind that place.
//!
//! # Generations
//!
//! Files and positions are a server's own. On another one (a replica that was made primary) GTIDs say where to go on, and
//! the generation grows. A server that lacks what was read, or has purged what must come next, is
//! [`PositionLost`](crate::error::ErrorKind::PositionLost); so is another server where there are no GTIDs.

mod begin;
mod catalog;
mod connection;
mod dump;
mod errant;
mod gtids;
mod place;
mod probe;
mod refusal;
mod schema;
mod settings;
mod setup;
mod snapshot;
mod statement;
mod stream;
mod tables;
mod tick;
mod witness;
mod worker;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use sha2::{Digest, Sha256};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

pub use self::probe::probe;
pub use self::witness::Tables;

use self::begin::Begun;
use self::connection::Connection;
use self::dump::Registered;
use self::place::Place;
use self::settings::Settings;
use self::setup::{Server, Wanted};
use self::worker::{Item, Job};
use super::{Lag, Polled, Source};
use crate::batch::{RawBatch, RawRecords};
use crate::config::{MysqlSource, OnLostPosition, SnapshotMode};
use crate::epoch::EpochNumber;
use crate::error::{Error, ErrorKind, Result};
use crate::progress::{Generation, Partition, Position, Progress, Span, Standing, Standings};

/// Pieces (of about 1 MiB) between the task that reads and whoever asks.
const PIECES: usize = 4;

/// A MySQL or MariaDB server.
pub struct Mysql {
    name: Arc<str>,
    config: MysqlSource,
    settings: Settings,
    us: Registered,
    captured: Vec<String>,
    partition: Partition,
    generation: Generation,
    /// Where the next span begins; its text is the log's own.
    at: Position,
    /// The place behind what was handed out last; `None`: the log does not know the source, and nothing was handed out.
    handed: Option<Place>,
    behind: u64,
    /// What must come next is gone, and the topology says to begin at the server's end.
    anew: bool,
    /// Tables to read again, and the epochs of the orders.
    wanted: watch::Sender<BTreeMap<String, EpochNumber>>,
    worker: Option<Worker>,
}

struct Worker {
    items: mpsc::Receiver<Result<Item>>,
    task: JoinHandle<()>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Our number among the server's readers when the topology names none: the same whenever the process starts.
fn default_server_id(topology: &str, source: &str) -> u32 {
    let digest = Sha256::digest(format!("dataflow/{topology}/{source}"));
    let number = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    // Servers are given small numbers; ours begin behind them.
    number | 1 << 30
}

/// What the source registers as.
fn registered(topology: &str, name: &str, config: &MysqlSource) -> Registered {
    let mut host = format!("dataflow/{topology}/{name}");
    host.truncate(host.char_indices().map(|(at, _)| at).take_while(|at| *at <= 60).last().unwrap_or(0));
    Registered {
        server_id: config.server_id.unwrap_or_else(|| default_server_id(topology, name)),
        host,
        heartbeat: config.heartbeat.0,
    }
}

async fn look(
    connection: &mut Connection,
    name: &str,
    settings: &Settings,
    us: &Registered,
    streams: &[String],
) -> Result<Server> {
    let server = setup::identify(connection, settings).await.map_err(|error| error.doing(format!("source {name}")))?;
    let wanted = Wanted { source: name, tables: streams, server_id: us.server_id, host: &us.host };
    setup::check(connection, &server, &wanted).await?;
    Ok(server)
}

impl Mysql {
    /// Connects, checks what must be there, and finds out where the log says that the source stands. `streams` are the
    /// tables to read, as `<database>.<table>`.
    ///
    /// # Errors
    /// `Config` and `SourceRefused` with what to run for what is missing, `PositionLost` when the server no longer has what
    /// must come next, `SourceUnavailable` while it cannot be reached.
    pub async fn open(
        name: &str,
        config: &MysqlSource,
        topology: &str,
        streams: &[String],
        standings: Arc<dyn Standings>,
    ) -> Result<Self> {
        if streams.is_empty() {
            return Err(Error::new(
                ErrorKind::Config,
                format!("source {name}: no table of the topology reads from it"),
            )
            .help("write `from: <database>.<table>` into a table, or leave the source out"));
        }
        let settings = Settings::new(name, config)?;
        let us = registered(topology, name, config);
        let mut captured = streams.to_vec();
        captured.sort();
        let mut connection = Connection::open(&settings).await?;
        let server = look(&mut connection, name, &settings, &us, &captured).await?;
        let partition = Partition::new(name, "binlog");
        let progress = standings.latest().await?;
        let standing = progress.get(&partition);
        let mut source = Self {
            name: name.into(),
            config: config.clone(),
            settings,
            us,
            captured,
            at: Position(String::new()),
            handed: None,
            partition,
            generation: 0,
            behind: 0,
            anew: false,
            wanted: watch::Sender::default(),
            worker: None,
        };
        source.stand(standing)?;
        // What is lost is said at once, and not when the first record is asked for.
        source.begin(&mut connection, &server).await?;
        Ok(source)
    }

    /// Takes over where the log stands.
    fn stand(&mut self, standing: Option<&Standing>) -> Result<()> {
        let (at, handed, generation) = match standing {
            Some(standing) => (standing.position.clone(), Some(Place::parse(&standing.position)?), standing.generation),
            None => (Position(String::new()), None, 0),
        };
        (self.at, self.handed, self.generation) = (at, handed, generation);
        Ok(())
    }

    /// Where to go on, on the server that answers now.
    async fn begin(&self, connection: &mut Connection, server: &Server) -> Result<Begun> {
        let on_lost = self.config.snapshot.on_lost_position;
        let known = self.handed.as_ref();
        let mut begun = match self.anew {
            true => begin::anew(connection, server, known).await?,
            false => begin::begin(connection, server, &self.name, known, on_lost).await?,
        };
        let snapshot = self.config.snapshot.mode == SnapshotMode::Initial;
        begun.place.fit(&self.captured, snapshot);
        if !snapshot {
            schema::look_at_all(connection, server, &self.name, &mut begun.place, &self.captured).await?;
        }
        Ok(begun)
    }

    /// Connects and begins to read; a batch to claim the partition when the log does not know it.
    async fn start(&mut self) -> Result<Option<Polled>> {
        let mut connection = Connection::open(&self.settings).await?;
        let server = setup::identify(&mut connection, &self.settings).await;
        let server = server.map_err(|error| error.doing(format!("source {}", self.name)))?;
        let begun = self.begin(&mut connection, &server).await?;
        self.generation += Generation::from(begun.elsewhere);
        self.anew = false;
        if self.handed.is_none() {
            self.at = begun.place.position();
            return Ok(Some(self.batch(RawRecords::default(), begun.place, false)));
        }
        self.handed = Some(begun.place.clone());
        let (out, items) = mpsc::channel(PIECES);
        let job = Job {
            name: Arc::clone(&self.name),
            settings: self.settings.clone(),
            server,
            us: self.us.clone(),
            captured: self.captured.clone(),
            snapshot: self.config.snapshot.clone(),
            ignored: self.config.ignore_statements_on.clone(),
            wanted: self.wanted.subscribe(),
        };
        self.worker = Some(Worker { items, task: tokio::spawn(worker::run(job, begun.place, out)) });
        Ok(None)
    }

    fn batch(&mut self, records: RawRecords, to: Place, inside: bool) -> Polled {
        let position = to.position();
        let span = Span { from: std::mem::replace(&mut self.at, position.clone()), to: position };
        self.handed = Some(to);
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
impl Source for Mysql {
    async fn next(&mut self) -> Result<Polled> {
        if self.worker.is_none()
            && let Some(claim) = self.start().await?
        {
            return Ok(claim);
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
                let again = self.config.snapshot.on_lost_position == OnLostPosition::SnapshotAgain;
                if !again || error.kind() != &ErrorKind::PositionLost {
                    return Err(error);
                }
                // Some of it only shows when the log is asked for.
                self.anew = true;
                let what = format!("source {}: the stream begins anew, and all tables are read again", self.name);
                Err(Error::new(ErrorKind::SourceUnavailable, what).because(error))
            }
            None => {
                self.worker = None;
                Err(Error::new(ErrorKind::SourceUnavailable, format!("source {}: its task ended", self.name)))
            }
        }
    }

    async fn release(&mut self, _committed: &Progress) -> Result<()> {
        // The server keeps its binary logs for a time of its own and is told nothing.
        Ok(())
    }

    async fn rewind(&mut self, committed: &Progress) -> Result<()> {
        self.worker = None;
        self.stand(committed.get(&self.partition))
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
mod tests {
    use super::*;

    #[test]
    fn our_number_is_the_same_whenever_the_process_starts() {
        assert_eq!(default_server_id("sales", "shop"), default_server_id("sales", "shop"));
        assert_ne!(default_server_id("sales", "shop"), default_server_id("sales", "shop2"));
        assert!(default_server_id("sales", "shop") >= 1 << 30);
    }
}
