//! The task that reads: first the rows that are there, then the stream. It answers the server while ingest is busy.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::catalog::Publication;
use super::place::{Captured, Place};
use super::protocol::Asked;
use super::settings::Settings;
use super::setup::Server;
use super::snapshot;
use super::stream::Stream;
use crate::batch::RawRecords;
use crate::config::PostgresSnapshot;
use crate::epoch::EpochNumber;
use crate::error::Result;
use crate::source::piece;
pub(super) use crate::source::piece::unwanted;
use crate::telemetry::Status;
use crate::wire::pgoutput::Lsn;
use crate::wire::pgtype::RelationShape;

/// What the task reads.
pub(super) struct Job {
    pub name: Arc<str>,
    pub settings: Settings,
    pub server: Server,
    pub publication: String,
    pub slot: String,
    pub captured: Captured,
    pub heartbeat: Duration,
    pub snapshot: PostgresSnapshot,
    pub asked: Asked,
    /// Whether the server is still asked for running transactions.
    pub streaming: AtomicBool,
    /// Where those are kept, and how much of them.
    pub spool: PathBuf,
    pub max_spool: u64,
    /// Where is told what happens to tables.
    pub status: Arc<Status>,
    /// What may be acknowledged: the lake log holds everything before it.
    pub confirmed: watch::Receiver<Lsn>,
    /// Tables that must be read again, and the epochs of the orders.
    pub wanted: watch::Receiver<BTreeMap<String, EpochNumber>>,
    /// What the server has been told of it; `None` while there is no stream to tell it by.
    pub told: watch::Sender<Option<Lsn>>,
}

impl Job {
    /// What shows the tables.
    pub fn shown_by(&self) -> Publication<'_> {
        Publication { name: &self.publication, version: self.server.version }
    }
}

/// What the task hands out.
pub(super) type Item = piece::Item<Place>;
pub(super) type Piece = piece::Piece<Place>;

/// Reads from `place` on until nobody listens any more; a failure is handed out last.
pub(super) async fn run(job: Job, place: Place, out: mpsc::Sender<Result<Item>>) {
    if let Err(error) = read(job, place, &out).await {
        let _nobody_listens = out.send(Err(error)).await;
    }
}

async fn read(job: Job, mut place: Place, out: &mpsc::Sender<Result<Item>>) -> Result<()> {
    let job = Arc::new(job);
    loop {
        job.told.send_replace(None);
        snapshot::read(&job, &mut place, out).await?;
        // It ends when a table must be read again.
        place = Stream::open(Arc::clone(&job), place, out.clone()).await?.run().await?;
    }
}

/// Appends what the decoder needs to know of a relation before its rows.
pub(super) fn push_shape(
    records: &mut RawRecords,
    commit: Lsn,
    within: (u64, u32),
    time_us: i64,
    shape: &RelationShape,
) {
    // Plain data always has a JSON form.
    let json = serde_json::to_vec(shape).unwrap_or_default();
    records.push_within(commit.0, within, time_us, Some(&json), None);
}
