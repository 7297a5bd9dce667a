//! Start, supervision and shutdown of the whole process.
//!
//! Shutdown goes downstream: readers stop reading, ingest seals and commits what it holds and releases the sources, the
//! loaders apply what the log has. Whatever does not fit into the grace period waits in the lake for the next start.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::{self, BoxFuture, FutureExt};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::{Loaded, Source, Topology};
use crate::error::{Disposition, Error, ErrorKind, Result};
use crate::lake::{Access, CompactOptions, Lake, Log, NoOutsiders, Outsiders};
use crate::pipeline::backlog::Backlog;
use crate::pipeline::build::{self, Parts};
use crate::pipeline::governor::Governor;
use crate::pipeline::ingest::{Ingest, IngestState};
use crate::pipeline::load::{self, Loader};
use crate::pipeline::opening::{self, Opening};
use crate::pipeline::reader::{Reader, Transforms};
use crate::pipeline::report::{Report, WAREHOUSE};
use crate::pipeline::staging::staging;
use crate::pipeline::{reprocess, upkeep};
use crate::progress::Standings;
use crate::telemetry::Status;

/// Batches (of about 1 MiB) between the readers and ingest.
const HANDOVERS: usize = 4;

/// How often a process looks for what others have committed.
const LOOK_AT_LOG: Duration = Duration::from_secs(1);

/// Commits that half of a key update is kept for before it stands alone.
const KEPT_FOR: u32 = 1;

/// Which half of the system this process is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Role {
    /// Reads sources and writes the lake.
    Ingest,
    /// Reads the lake and writes the warehouse.
    Load,
    /// Both.
    #[default]
    All,
}

/// How to run.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Which half.
    pub role: Role,
    /// End when every source has been read to its end and everything is loaded.
    pub until_caught_up: bool,
    /// Which part of the sources without consumer groups is read here: `(i, n)`, i from 1 to n; `(0, 0)` = all.
    pub shard: (u32, u32),
}

/// Runs until `stop` is cancelled, a failure, or (with `until_caught_up`) the end of every source.
pub async fn run(loaded: &Loaded, options: &Options, status: Arc<Status>, stop: CancellationToken) -> Result<()> {
    let topology = Arc::new(loaded.topology.clone());
    refuse_shards(&topology, options)?;
    let lake = Lake::open(&topology.lake)?;
    let log = Arc::new(Log::open(lake, &topology.name, Access::Write).await?);
    if options.role != Role::Load {
        reprocess::refuse_unfinished(&log)?;
    }
    let standings: Arc<dyn Standings> = Arc::clone(&log) as Arc<dyn Standings>;
    let (opened, asked) = (Arc::clone(&status), stop.clone());
    let feed = async {
        let parts = opening::sources(loaded, &standings, options.until_caught_up, &opened, &asked).await?;
        Ok(Feed { parts, patience: Some(KEPT_FOR), at_end: future::ready(Ok(())).boxed() })
    };
    drive(&topology, &log, options, status, stop, feed).await
}

/// What ingest reads.
pub(super) struct Feed {
    pub parts: Parts,
    /// See [`Reader::patience`].
    pub patience: Option<u32>,
    /// What is done when ingest has ended in order, before the loaders end.
    pub at_end: BoxFuture<'static, Result<()>>,
}

/// Runs ingest on `feed` and the loaders beside it: see [`run`].
pub(super) async fn drive(
    topology: &Arc<Topology>,
    log: &Arc<Log>,
    options: &Options,
    status: Arc<Status>,
    stop: CancellationToken,
    feed: impl Future<Output = Result<Feed>>,
) -> Result<()> {
    let lake = log.lake();
    let report = Arc::new(Report::new(status, topology));
    report.log(&log.state());
    let head = Arc::new(watch::channel(log.state().n).0);
    let mut process =
        Process { tasks: JoinSet::new(), stop: stop.child_token(), loaders_stop: CancellationToken::new() };
    let shared = Shared { topology, lake, log, report: &report };
    let staging = staging(lake);
    if options.role != Role::Ingest {
        let (log, told) = (Arc::clone(log), Arc::clone(&report));
        let opening = Opening::new(Arc::clone(topology), log, told, Arc::clone(&staging));
        match opening.once().await {
            // The sources are read meanwhile; who wants an end wants to know that it is not one.
            Err(error) if error.disposition() == Disposition::Retry && !options.until_caught_up => {
                tracing::warn!("{error}; what is read waits in the lake until the warehouse answers");
                report.problem(WAREHOUSE, &error);
            }
            opened => drop(opened?),
        }
        process.start_loaders(&shared, &opening, &head);
        process.start_upkeep(&shared, &opening)?;
    }
    // Ingest alone wants to know of orders to read a table again.
    if options.role != Role::Ingest || topology.sources.values().any(Source::can_read_again) {
        let watch = watch_log(Arc::clone(log), Arc::clone(&report), Arc::clone(&head), process.loaders_stop.clone());
        process.tasks.spawn(watch);
    }
    if options.role != Role::Load {
        let feed = process.beside(feed).await?;
        process.start_ingest(feed, options, &shared, head)?;
    } else {
        let (stop, loaders_stop) = (process.stop.clone(), process.loaders_stop.clone());
        // Loaders that are told to stop load what the log has first.
        let at_once = options.until_caught_up;
        process.tasks.spawn(async move {
            if !at_once {
                stop.cancelled().await;
            }
            loaders_stop.cancel();
            Ok(())
        });
    }
    let ended = process.supervise(&stop, topology.limits.grace.0, staging.settle()).await;
    if let Err(error) = &ended {
        report.halted(error);
    }
    ended
}

/// Later files win over earlier ones, and a slot has one stream: only one reader can order
/// them; Kafka's consumer group shares partitions out itself.
fn refuse_shards(topology: &Topology, options: &Options) -> Result<()> {
    let ordered = |source: &Source| matches!(source, Source::File(_) | Source::Postgres(_) | Source::Mysql(_));
    let one = topology.sources.iter().find(|(_, source)| ordered(source));
    match one {
        Some((name, _)) if options.shard.1 > 1 => Err(Error::new(
            ErrorKind::Config,
            format!(
                "read a shard of source {name}: files and the log of a database cannot be shared out, because they have an order"
            ),
        )
        .help("leave --shard out, or give each process files of its own in a topology of its own")),
        _ => Ok(()),
    }
}

struct Shared<'a> {
    topology: &'a Arc<Topology>,
    lake: &'a Lake,
    log: &'a Arc<Log>,
    report: &'a Arc<Report>,
}

/// What became of a task.
fn outcome(ended: Result<Result<()>, tokio::task::JoinError>) -> Result<()> {
    ended.unwrap_or_else(|panic| Err(Error::new(ErrorKind::Internal, "a task of the pipeline").because(panic)))
}

/// What a problem with the log is called.
const LOG: &str = "the lake's log";

/// Sees what other processes commit (ingest pods, a person who pauses a table): one read a look for the whole process.
async fn watch_log(
    log: Arc<Log>,
    report: Arc<Report>,
    head: Arc<watch::Sender<u64>>,
    stop: CancellationToken,
) -> Result<()> {
    loop {
        tokio::select! {
            () = stop.cancelled() => return Ok(()),
            () = tokio::time::sleep(LOOK_AT_LOG) => {}
        }
        match log.refresh().await {
            Ok(state) => {
                report.solved(LOG);
                if head.send_if_modified(|known| std::mem::replace(known, state.n) != state.n) {
                    report.log(&state);
                }
            }
            Err(error) if error.disposition() == Disposition::Retry => {
                tracing::warn!("{error}; trying again");
                report.problem(LOG, &error);
            }
            Err(error) => return Err(error),
        }
    }
}

struct Process {
    tasks: JoinSet<Result<()>>,
    /// Readers and ingest end.
    stop: CancellationToken,
    /// Loaders end once they have nothing left to do.
    loaders_stop: CancellationToken,
}

impl Process {
    /// Starts what is looked after beside the stream.
    fn start_upkeep(&mut self, shared: &Shared<'_>, opening: &Opening) -> Result<()> {
        let (topology, log, report) = (shared.topology, shared.log, shared.report);
        let stop = || self.loaders_stop.clone();
        let watch = upkeep::watch_warehouse(Arc::clone(topology), Arc::clone(report), opening.clone(), stop());
        self.tasks.spawn(watch);
        self.tasks.spawn(upkeep::sweep_regularly(Arc::clone(log), Arc::clone(report), stop()));
        #[cfg_attr(not(feature = "s3"), expect(unused_mut, reason = "Glue comes with S3"))]
        let mut outsiders: Arc<dyn Outsiders> = Arc::new(NoOutsiders);
        #[cfg(feature = "s3")]
        if let Some(catalog) = crate::lake::Catalog::open(&topology.lake)?.map(Arc::new) {
            outsiders = Arc::clone(&catalog) as Arc<dyn Outsiders>;
            let every = catalog.every();
            self.tasks.spawn(upkeep::catalog_regularly(Arc::clone(log), catalog, every, Arc::clone(report), stop()));
        }
        if let Some(compact) = &topology.lake.compact {
            let (log, options) = (Arc::clone(log), CompactOptions::for_epochs(topology.epoch.every.0));
            self.tasks.spawn(upkeep::compact_regularly(
                log,
                compact.every.0,
                options,
                outsiders,
                Arc::clone(report),
                stop(),
            ));
        }
        Ok(())
    }

    fn start_loaders(&mut self, shared: &Shared<'_>, opening: &Opening, head: &watch::Sender<u64>) {
        let memory = load::memory(shared.topology);
        for (group, tables) in build::groups(shared.topology) {
            let (opening, stop) = (opening.clone(), self.loaders_stop.clone());
            let topology = Arc::clone(shared.topology);
            let (log, report) = (Arc::clone(shared.log), Arc::clone(shared.report));
            let (head, memory) = (head.subscribe(), Arc::clone(&memory));
            self.tasks.spawn(async move {
                let Some(warehouse) = opening.patiently(&stop).await? else { return Ok(()) };
                let governor = Governor::new(&topology, &tables);
                let (known, ensured, backlog) = (None, BTreeMap::new(), Backlog::default());
                let loader = Loader {
                    group,
                    tables,
                    topology,
                    log,
                    warehouse,
                    head,
                    report,
                    known,
                    ensured,
                    memory,
                    backlog,
                    governor,
                    halvings: 0,
                };
                loader.run(stop).await
            });
        }
    }

    fn start_ingest(
        &mut self,
        feed: Feed,
        options: &Options,
        shared: &Shared<'_>,
        head: Arc<watch::Sender<u64>>,
    ) -> Result<()> {
        let standings: Arc<dyn Standings> = Arc::clone(shared.log) as Arc<dyn Standings>;
        let Feed { parts: Parts { chains, sources }, patience, at_end } = feed;
        let contracts: Vec<_> = shared.log.state().contracts.values().cloned().collect();
        let (out, inbox) = mpsc::channel(HANDOVERS);
        let mut readers = BTreeMap::new();
        for mut part in sources {
            part.decoder.adopt(&contracts)?;
            let (orders, told) = mpsc::unbounded_channel();
            readers.insert(Arc::clone(&part.name), orders);
            let reader = Reader {
                name: part.name,
                source: part.source,
                decoder: part.decoder,
                transforms: Transforms::new(Arc::clone(&chains)),
                report: Arc::clone(shared.report),
                out: out.clone(),
                orders: told,
                era: 0,
                standings: Arc::clone(&standings),
                patience,
                known: std::collections::BTreeSet::new(),
                kept: BTreeMap::new(),
                carried: BTreeMap::new(),
            };
            let stop = self.stop.clone();
            self.tasks.spawn(async move {
                reader.run(stop).await;
                Ok(())
            });
        }
        drop(out);
        let ingest = Ingest {
            topology: Arc::clone(shared.topology),
            chains,
            lake: shared.lake.clone(),
            log: Arc::clone(shared.log),
            inbox,
            readers,
            head: Arc::clone(&head),
            report: Arc::clone(shared.report),
            until_caught_up: options.until_caught_up,
            state: IngestState::new(shared.lake),
        };
        let (stop, loaders_stop, log) = (self.stop.clone(), self.loaders_stop.clone(), Arc::clone(shared.log));
        self.tasks.spawn(async move {
            let ended = match ingest.run(stop.clone()).await {
                Ok(()) => at_end.await,
                failed => failed,
            };
            head.send_replace(log.state().n);
            // In this order: the readers have nothing left to read for, the loaders still have the last epoch to apply.
            stop.cancel();
            loaders_stop.cancel();
            ended
        });
        Ok(())
    }

    /// Waits for what is done beside the tasks that run; the failure of one of them ends the wait.
    async fn beside<T>(&mut self, doing: impl Future<Output = Result<T>>) -> Result<T> {
        tokio::pin!(doing);
        loop {
            tokio::select! {
                done = &mut doing => return done,
                Some(ended) = self.tasks.join_next() => outcome(ended)?,
            }
        }
    }

    /// Waits for all tasks. The first failure stops the others in an orderly way. After that, or once `asked` to stop, the
    /// grace period bounds the rest, and what is `left` to tidy up after them; at the end of the sources nothing does.
    async fn supervise(
        mut self,
        asked: &CancellationToken,
        grace: std::time::Duration,
        left: impl Future<Output = ()>,
    ) -> Result<()> {
        let mut failure = None;
        let hurry = asked.child_token();
        let deadline = async {
            hurry.cancelled().await;
            tokio::time::sleep(grace).await;
        };
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                joined = self.tasks.join_next() => match joined {
                    None => {
                        tokio::select! { () = left => {} () = &mut deadline => {} }
                        break;
                    }
                    Some(ended) => {
                        if let Err(error) = outcome(ended) {
                            self.stop.cancel();
                            self.loaders_stop.cancel();
                            hurry.cancel();
                            failure.get_or_insert(error);
                        }
                    }
                },
                () = &mut deadline => {
                    tracing::warn!("the grace period is over; what is not loaded waits in the lake for the next start");
                    self.tasks.abort_all();
                    break;
                }
            }
        }
        failure.map_or(Ok(()), Err)
    }
}
