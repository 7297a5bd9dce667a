//! The task that reads: the stream, and between its transactions the rows that are there already.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::{mpsc, watch};

use super::dump::Registered;
use super::place::Place;
use super::settings::Settings;
use super::setup::Server;
use super::stream::Stream;
use crate::config::MysqlSnapshot;
use crate::epoch::EpochNumber;
use crate::error::Result;
use crate::source::piece;
pub(super) use crate::source::piece::unwanted;

/// What the task reads.
pub(super) struct Job {
    pub name: Arc<str>,
    pub settings: Settings,
    pub server: Server,
    pub us: Registered,
    /// The tables that are captured: `<database>.<table>`.
    pub captured: Vec<String>,
    pub snapshot: MysqlSnapshot,
    /// Databases on which statements without rows are passed over.
    pub ignored: Vec<String>,
    /// Tables to read again, and the epochs of the orders.
    pub wanted: watch::Receiver<BTreeMap<String, EpochNumber>>,
}

/// What the task hands out.
pub(super) type Item = piece::Item<Place>;
pub(super) type Piece = piece::Piece<Place>;

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
