//! The epoch task: collects what the readers hand over, cuts, commits, releases.
//!
//! Sealing and committing one epoch goes on while the next is collected; never more than one is under way, so epochs
//! reach the log in order. When an epoch cannot be committed (another process moved our partitions, the store stayed
//! away) both are dropped and everything is read again from where the log stands: nothing was released, so nothing is
//! lost, and nothing was committed, so nothing is doubled.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::{BoxFuture, FutureExt, OptionFuture};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::{Source, Topology};
use crate::epoch::{EpochNumber, Manifest};
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint;
use crate::lake::{Lake, Log};
use crate::operator::Chain;
use crate::pipeline::backoff::Backoff;
use crate::pipeline::open_epoch::{OpenEpoch, Written};
use crate::pipeline::reader::{Handover, Order, What, output_schema};
use crate::pipeline::report::Report;
use crate::telemetry;

/// A quiet epoch (positions alone) is committed at most this often, unless servers keep that much log for it.
const QUIET_EVERY: Duration = Duration::from_secs(300);
const QUIET_LOG_BYTES: u64 = 64 << 20;
/// Fenced this often in a row, two processes fight over the same partitions for good.
const FENCED_LIMIT: u32 = 8;

/// What a problem with commits is called.
const INGEST: &str = "the commit of epochs";

type Commit = BoxFuture<'static, Result<Arc<Manifest>>>;

/// The epoch task.
pub struct Ingest {
    pub topology: Arc<Topology>,
    pub chains: Arc<BTreeMap<String, Chain>>,
    pub lake: Lake,
    pub log: Arc<Log>,
    pub inbox: mpsc::Receiver<Handover>,
    /// How to reach each reader.
    pub readers: BTreeMap<Arc<str>, mpsc::UnboundedSender<Order>>,
    /// Tells the loaders which epoch is the newest.
    pub head: Arc<watch::Sender<EpochNumber>>,
    pub report: Arc<Report>,
    /// Stop when every source has said that it is caught up.
    pub until_caught_up: bool,
    pub state: IngestState,
}

/// What changes while it runs.
pub struct IngestState {
    era: u64,
    open: OpenEpoch,
    /// The instant of the last committed cut.
    last_cut: Instant,
    committing: Option<Commit>,
    committing_since: Option<std::time::Instant>,
    committing_written: Written,
    caught_up: BTreeSet<Arc<str>>,
    /// Partitions that must go: fired when what is open now is committed or dropped.
    revoking_open: Vec<oneshot::Sender<()>>,
    /// The same for the epoch that is being committed.
    revoking_committing: Vec<oneshot::Sender<()>>,
    stopped: BTreeSet<String>,
    /// What each reader was told to read again.
    wanted: BTreeMap<Arc<str>, BTreeMap<String, EpochNumber>>,
    fenced: u32,
    backoff: Backoff,
}

impl IngestState {
    /// Nothing collected yet.
    pub fn new(lake: &Lake) -> Self {
        Self {
            era: 0,
            open: OpenEpoch::begin(lake),
            last_cut: Instant::now(),
            committing: None,
            committing_since: None,
            committing_written: Written::default(),
            caught_up: BTreeSet::new(),
            revoking_open: Vec::new(),
            revoking_committing: Vec::new(),
            stopped: BTreeSet::new(),
            wanted: BTreeMap::new(),
            fenced: 0,
            backoff: Backoff::default(),
        }
    }
}

impl Ingest {
    /// Collects and commits until `stop`, a failure, or (with `until_caught_up`) the end of every source; then commits
    /// what is left and returns.
    pub async fn run(mut self, stop: CancellationToken) -> Result<()> {
        let mut head = self.head.subscribe();
        self.pass_on_orders();
        while !stop.is_cancelled() && !self.finished() {
            let cut_at = self.cut_at();
            let room = self.has_room();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(result) = OptionFuture::from(self.state.committing.as_mut()) => self.committed(result).await?,
                () = tokio::time::sleep_until(cut_at), if self.may_cut() => self.cut(),
                Ok(()) = head.changed() => self.pass_on_orders(),
                handover = self.inbox.recv(), if room => match handover {
                    Some(handover) => self.take(handover)?,
                    None => break,
                },
            }
            if self.may_cut() && self.must_cut() {
                self.cut();
            }
        }
        self.finish().await
    }

    /// Tells the readers which tables people want to have read again, as far as they do not know.
    fn pass_on_orders(&mut self) {
        let mut wanted: BTreeMap<&str, BTreeMap<String, EpochNumber>> = BTreeMap::new();
        let state = self.log.state();
        for (table, order) in &state.resyncs {
            let Some(table) = self.topology.tables.get(table) else { continue };
            let Some((source, _)) = self.topology.source_of(table) else { continue };
            wanted.entry(source).or_default().insert(table.from.clone(), *order);
        }
        for (source, wanted) in wanted {
            let Some((name, reader)) = self.readers.get_key_value(source) else { continue };
            if self.state.wanted.get(name) != Some(&wanted) {
                let _reader_gone = reader.send(Order::ReadAgain(wanted.clone()));
                self.state.wanted.insert(Arc::clone(name), wanted);
            }
        }
    }

    fn finished(&self) -> bool {
        self.until_caught_up
            && self.state.caught_up.len() == self.readers.len()
            && self.state.open.is_empty()
            && self.state.committing.is_none()
    }

    fn has_room(&self) -> bool {
        self.state.committing.is_none() || self.state.open.payload_bytes() < self.topology.epoch.max_bytes.0
    }

    fn may_cut(&self) -> bool {
        let open = &self.state.open;
        let whole = !open.is_inside_transaction() || open.payload_bytes() >= self.transaction_limit();
        self.state.committing.is_none() && !open.is_empty() && whole
    }

    /// The payload bytes up to which a transaction becomes visible at once.
    fn transaction_limit(&self) -> u64 {
        let limit = |source: &Source| match source {
            Source::Postgres(postgres) => Some(postgres.max_transaction.0),
            Source::Mysql(mysql) => Some(mysql.max_transaction.0),
            Source::Kafka(_) | Source::File(_) => None,
        };
        self.topology.sources.values().filter_map(limit).min().unwrap_or(u64::MAX)
    }

    /// Reasons not to wait for the clock.
    fn must_cut(&self) -> bool {
        let all_caught_up = self.until_caught_up && self.state.caught_up.len() == self.readers.len();
        self.state.open.payload_bytes() >= self.topology.epoch.max_bytes.0
            || !self.state.revoking_open.is_empty()
            || all_caught_up
    }

    fn cut_at(&self) -> Instant {
        let every = self.topology.epoch.every.0;
        let open = &self.state.open;
        let quiet = !open.holds_data() && open.log_bytes() < QUIET_LOG_BYTES;
        self.state.last_cut + if quiet { every.max(QUIET_EVERY) } else { every }
    }

    fn take(&mut self, handover: Handover) -> Result<()> {
        if handover.era != self.state.era {
            return Ok(());
        }
        match handover.what {
            What::Changes(done) => {
                self.state.caught_up.remove(&handover.source);
                self.report.read(&handover.source, &done);
                let (topology, stopped) = (&self.topology, &self.state.stopped);
                let open = &mut self.state.open;
                tokio::task::block_in_place(|| open.take(*done, topology, stopped))?;
                self.report.inflight(self.state.open.payload_bytes());
            }
            What::Revoking(done) if !self.state.open.is_empty() => self.state.revoking_open.push(done),
            What::Revoking(done) if self.state.committing.is_some() => self.state.revoking_committing.push(done),
            What::Revoking(done) => {
                let _receiver_gone = done.send(());
            }
            What::CaughtUp => {
                self.state.caught_up.insert(handover.source);
            }
            What::Failed(error) => return Err(error),
        }
        Ok(())
    }

    /// Ends the open epoch and starts to seal and commit it.
    fn cut(&mut self) {
        let open = std::mem::replace(&mut self.state.open, OpenEpoch::begin(&self.lake));
        if open.is_inside_transaction() {
            tracing::warn!(
                bytes = open.payload_bytes(),
                "a transaction is larger than max_transaction: what has come of it becomes visible before the rest"
            );
        }
        self.state.committing_since = open.began();
        self.state.committing_written = open.written();
        self.state.revoking_committing.append(&mut self.state.revoking_open);
        let log = Arc::clone(&self.log);
        let chains = Arc::clone(&self.chains);
        let commit = async move {
            let started = std::time::Instant::now();
            let draft = open.seal().await?;
            metrics::histogram!(telemetry::STEP_DURATION_SECONDS, "step" => "upload")
                .record(started.elapsed().as_secs_f64());
            let started = std::time::Instant::now();
            let manifest = log.commit(draft, &|table, input| output_schema(&chains, table, input)).await?;
            metrics::histogram!(telemetry::STEP_DURATION_SECONDS, "step" => "manifest")
                .record(started.elapsed().as_secs_f64());
            Ok(manifest)
        };
        // A task of its own: Parquet's last pages are compressed while the next epoch is collected.
        let task = tokio::spawn(commit);
        self.state.committing = Some(
            task.map(|joined| {
                joined.unwrap_or_else(|panic| Err(Error::new(ErrorKind::Internal, "seal an epoch").because(panic)))
            })
            .boxed(),
        );
        self.state.last_cut = Instant::now();
    }

    async fn committed(&mut self, result: Result<Arc<Manifest>>) -> Result<()> {
        self.state.committing = None;
        match result {
            Ok(manifest) => {
                self.state.fenced = 0;
                self.state.backoff.reset();
                self.announce(&manifest);
                Ok(())
            }
            Err(error) => self.drop_epochs(error).await,
        }
    }

    /// Tells everybody who waits for it that `manifest` is in the log.
    fn announce(&mut self, manifest: &Manifest) {
        let state = self.log.state();
        if let Some(began) = self.state.committing_since.take() {
            metrics::histogram!(telemetry::EPOCH_DURATION_SECONDS).record(began.elapsed().as_secs_f64());
        }
        self.report.solved(INGEST);
        self.report.committed(manifest, &std::mem::take(&mut self.state.committing_written), &state);
        self.state.stopped = state.stopped.keys().cloned().collect();
        for reader in self.readers.values() {
            if !manifest.contracts.is_empty() {
                let learned = state.contracts.values().cloned().collect();
                let _reader_gone = reader.send(Order::Adopt(learned));
            }
            if failpoint::hit("release.before").is_none() {
                let _reader_gone = reader.send(Order::Release(state.progress.clone()));
            }
            let _after = failpoint::hit("release.after");
        }
        for done in self.state.revoking_committing.drain(..) {
            let _receiver_gone = done.send(());
        }
        self.head.send_replace(manifest.n);
    }

    /// Gives up what is collected and not committed, and reads it again from where the log stands.
    async fn drop_epochs(&mut self, error: Error) -> Result<()> {
        let reason = match error.kind() {
            ErrorKind::Fenced => "fenced",
            ErrorKind::StoreUnavailable => "store_unavailable",
            _ => return Err(error),
        };
        self.state.fenced = if reason == "fenced" { self.state.fenced + 1 } else { 0 };
        if self.state.fenced >= FENCED_LIMIT {
            return Err(Error::new(
                ErrorKind::SourceRefused,
                format!("commit an epoch, {FENCED_LIMIT} times in a row"),
            )
            .because(error)
            .help("two processes read the same partitions; give each its own (--shard i/n, or one consumer group)"));
        }
        tracing::warn!("{error}; the epoch is dropped and read again from the log");
        self.report.problem(INGEST, &error);
        metrics::counter!(telemetry::RETRIES_TOTAL, "part" => "ingest", "reason" => reason).increment(1);
        self.state.backoff.wait().await;
        let state = loop {
            match self.log.refresh().await {
                Ok(state) => break state,
                Err(error) if error.kind() == &ErrorKind::StoreUnavailable => {
                    tracing::warn!("{error}; trying again");
                    self.state.backoff.wait().await;
                }
                Err(error) => return Err(error),
            }
        };
        self.state.open = OpenEpoch::begin(&self.lake);
        self.state.era += 1;
        self.state.caught_up.clear();
        let (open, committing) = (&mut self.state.revoking_open, &mut self.state.revoking_committing);
        for done in open.drain(..).chain(committing.drain(..)) {
            let _receiver_gone = done.send(());
        }
        let learned: Vec<_> = state.contracts.values().cloned().collect();
        for reader in self.readers.values() {
            let _reader_gone = reader.send(Order::Adopt(learned.clone()));
            let _reader_gone = reader.send(Order::Rewind { era: self.state.era, progress: state.progress.clone() });
        }
        self.head.send_replace(state.n);
        Ok(())
    }

    /// Seals and commits what is left. One attempt each: what cannot be committed now, because another process has taken
    /// the partitions over or the store is away, is read again by whoever reads next. That is an orderly end.
    async fn finish(mut self) -> Result<()> {
        if let Some(committing) = self.state.committing.take()
            && !self.commit_last(committing).await?
        {
            return Ok(());
        }
        if self.state.open.is_inside_transaction() {
            tracing::info!("the last epoch ends inside a transaction: it is read again at the next start");
        } else if !self.state.open.is_empty() {
            self.cut();
            if let Some(committing) = self.state.committing.take() {
                self.commit_last(committing).await?;
            }
        }
        Ok(())
    }

    async fn commit_last(&mut self, committing: Commit) -> Result<bool> {
        match committing.await {
            Ok(manifest) => {
                self.announce(&manifest);
                Ok(true)
            }
            Err(error) if matches!(error.kind(), ErrorKind::Fenced | ErrorKind::StoreUnavailable) => {
                tracing::warn!("{error}; the last epoch is dropped and read again at the next start");
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }
}
