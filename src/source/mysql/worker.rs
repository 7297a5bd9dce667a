//! The task that reads: the stream, and between its transactions the rows that are there already.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::dump::Registered;
use super::place::Place;
use super::settings::Settings;
use super::setup::Server;
use super::stream::Stream;
use crate::batch::RawRecords;
use crate::config::MysqlSnapshot;
use crate::epoch::EpochNumber;
use crate::error::{Error, ErrorKind, Result};

/// What the task reads.
pub(super) struct Job {
    pub name: Arc<str>,
    pub settings: Settings,
    pub server: Server,
    pub us: Registered,
    /// The tables that are captured: `<database>.<table>`.
    pub captured: Vec<String>,
    pub snapshot: MysqlSnapshot,
    /// Tables to read again, and the epochs of the orders.
    pub wanted: watch::Receiver<BTreeMap<String, EpochNumber>>,
}

/// What the task found.
pub(super) enum Item {
    Piece(Box<Piece>),
    CaughtUp,
}

/// Records, and the place behind them.
pub(super) struct Piece {
    pub records: RawRecords,
    pub place: Place,
    /// Whether it ends inside a transaction.
    pub inside: bool,
    /// Bytes of log between the place and the server's end, as far as they are in the same file.
    pub behind: u64,
}

/// Reads from `place` on until nobody listens any more; a failure is handed out last.
pub(super) async fn run(job: Job, place: Place, out: mpsc::Sender<Result<Item>>) {
    let ended = match Stream::open(job, place, out.clone()).await {
        Ok(stream) => stream.run().await,
        Err(error) => Err(error),
    };
    if let Err(error) = ended {
        let _nobody_listens = out.send(Err(error)).await;
    }
}

/// The end of the channel was dropped: the task is about to end as well.
pub(super) fn unwanted() -> Error {
    Error::new(ErrorKind::Internal, "nobody reads this source any more")
}
