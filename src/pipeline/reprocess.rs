//! Builds a lake and a warehouse from the raw zone of another lake, with today's rules.
//!
//! | file | what it owns |
//! |---|---|
//! | `survey.rs` | what the old raw zone has to give; refuses holes before anything is written |
//! | `resume.rs` | where the new log stands in the old one: pure |
//! | `raw_zone.rs` | the raw zone as a [`Source`](crate::source::Source) |
//! | `epoch_in_hand.rs` | one old epoch: batches under spans that join on |
//! | `by_source.rs` | one decoder for the records of all sources |
//! | `databases.rs` | what is different about a database's own log |
//!
//! The raw zone takes the place of all sources. Its batches have the partitions, generations, offsets and spans of the
//! live sources, so `_seq` is what it was, the new log ends where the old one does, and `dataflow run` goes on from there
//! at the source. Where it is is in the new log's positions: a run that was killed goes on.
//!
//! A partition of the new log's own, `_reprocess:<old log>`, says that the log is being filled: it stands at `1..` while
//! there is more to come, at `1..40` when everything up to epoch 40 is in. As long as it says the former, no live source is
//! read into the log. With `--from 5` it begins with 5, and the first manifest has where everything stood before epoch 5.
//!
//! Of a database's own log an epoch is never cut: it ends with a transaction, and its file alone orders its records (rows
//! that are read beside the stream stand between older and newer changes). What its records say nothing without and came in
//! an earlier epoch is recalled with its file, so that reading may begin with any epoch. The orders to read tables again that
//! its positions have fulfilled are left out: their numbers are epochs of the old log.
//!
//! What is not taken over: what people did to the old log (tables paused, entries of the quarantine retried or given up).
//! A refused record is decided anew.

mod by_source;
mod databases;
mod epoch_in_hand;
mod raw_zone;
mod resume;
mod survey;

use std::sync::Arc;

use chrono::Utc;
use futures::FutureExt;
use tokio_util::sync::CancellationToken;
use ulid::Ulid;

use self::by_source::BySource;
use self::databases::{Databases, refuse_other_sources};
use self::raw_zone::RawZone;
use self::survey::{Survey, survey};
use crate::batch::RecordAccount;
use crate::config::{self, Loaded, Topology};
use crate::contract::TableSchema;
use crate::epoch::{EpochNumber, LoadAccount, Manifest};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::{Access, Draft, Lake, Log};
use crate::pipeline::build::{self, Parts, SourcePart};
use crate::pipeline::run::{Feed, Options, Role, drive};
use crate::progress::{Advance, Partition, Position, Span, Standing};
use crate::source::without_orders;
use crate::telemetry::Status;

/// The source of the partition that says how far the log is filled. No topology can name a source like that.
const FILLING: &str = "_reprocess";
/// The source under which entries of the quarantine come in again. They are in the raw zone under their own source, too.
const RETRIED: &str = "quarantine";

/// Whether a partition belongs to this program and not to a source.
fn is_own(partition: &Partition) -> bool {
    matches!(&*partition.source, FILLING | RETRIED)
}

/// What an epoch read of each partition, as it stands in the new log.
fn advances(manifest: &Manifest) -> impl Iterator<Item = Advance> {
    let of_sources = manifest.spans.iter().filter(|advance| !is_own(&advance.partition));
    of_sources.map(|advance| {
        let (from, to) = (without_orders(&advance.span.from), without_orders(&advance.span.to));
        Advance { span: Span { from, to }, ..advance.clone() }
    })
}

/// The records that an epoch read, by source, without those that came in again from quarantine.
fn records_by_source(manifest: &Manifest) -> impl Iterator<Item = (&str, u64)> {
    let records = manifest.account.records.iter();
    records.map(|(source, account)| (source.as_str(), account.read)).filter(|(source, _)| *source != RETRIED)
}

/// Refuses to read live sources into a log that is still being filled from a raw zone.
pub(super) fn refuse_unfinished(log: &Log) -> Result<()> {
    let state = log.state();
    let unfinished = state.progress.of_source(FILLING).find(|(_, standing)| standing.position.0.ends_with(".."));
    let Some((partition, _)) = unfinished else { return Ok(()) };
    let what = format!(
        "{} is being filled by `dataflow reprocess` from log {}, which has not ended",
        log.lake().url(),
        partition.name
    );
    Err(Error::new(ErrorKind::Config, what)
        .help("start the same `dataflow reprocess` again; it goes on from where it is. Then run this"))
}

/// What is to be done, with everything that can be refused beforehand refused.
pub struct Reprocess {
    topology: Arc<Topology>,
    old: Log,
    new: Arc<Log>,
    survey: Arc<Survey>,
    filling: Filling,
    feed: Parts,
}

/// What was done.
#[derive(Debug, Clone)]
pub struct Reprocessed {
    /// The first epoch of the old log that was read.
    pub first: EpochNumber,
    /// The old log's newest epoch.
    pub head: EpochNumber,
    /// Whether everything up to there is in the new lake and warehouse.
    pub finished: bool,
    /// The new log's newest epoch.
    pub epochs: EpochNumber,
    /// What became of the raw records, from the beginning of the new log.
    pub records: RecordAccount,
    /// What became of the rows in the warehouse, from the beginning of the new log.
    pub load: LoadAccount,
    /// Records in the epochs before `first`.
    pub skipped: u64,
}

impl Reprocess {
    /// Opens both lakes, looks the raw zone through and checks that the target is one that this old lake may fill. `from`
    /// is the lake whose raw zone is read; `first` is the epoch to begin with when a person says so.
    ///
    /// # Errors
    /// `Config` for everything that a person must decide: raw records that are missing, a key that does not fit, a target
    /// that is not empty or has gone on from the live source.
    pub async fn plan(loaded: &Loaded, from: &config::Lake, first: Option<EpochNumber>) -> Result<Self> {
        let mut topology = loaded.topology.clone();
        topology.warehouse.show_nothing();
        never_cut_epochs(&mut topology);
        let topology = Arc::new(topology);
        refuse_same_place(&topology.lake, from)?;
        let opened = Log::open_any(Lake::open(from)?).await;
        let (old, old_name) = opened.map_err(|error| error.doing("open the lake to read from"))?;
        refuse_unfinished(&old)?;
        let new = Arc::new(Log::open(Lake::open(&topology.lake)?, &topology.name, Access::Write).await?);
        if old.state().log == new.state().log {
            return Err(same_lake());
        }
        let filling = Filling::of(&old, &new, first)?;
        let files = old.lake().raw_files().await?;
        let survey = Arc::new(survey(&old, &files, filling.first, &new.state().progress).await?);
        refuse_unknown_sources(&topology, &survey)?;
        let databases = Databases::of(&topology);
        refuse_other_sources(&topology, &databases, &survey, &old_name)?;
        if let Some(file) = &survey.first_file {
            let mut file = old.lake().open_raw(file).await?;
            let batches = file.step()?.unwrap_or_default();
            databases.refuse_older(&file, &batches)?;
        }
        refuse_loaded_warehouse(&topology, &new, &old_name).await?;
        let (at, inflight) = (&new.state().progress, topology.limits.inflight_bytes.0);
        let source = RawZone::new(old.clone(), Arc::clone(&survey), databases, at, inflight);
        let part = SourcePart {
            name: "reprocess".into(),
            source: Box::new(source),
            decoder: Box::new(BySource::new(loaded)?),
        };
        let feed = Parts { chains: Arc::new(build::chains(&topology)?), sources: vec![part] };
        Ok(Self { topology, old, new, survey, filling, feed })
    }

    /// All records that the new lake is to hold in the end, those that it holds already included.
    pub fn records(&self) -> u64 {
        self.survey.records.values().sum()
    }

    /// Fills the new lake and loads its warehouse, until everything is in or `stop` asks to stop.
    pub async fn run(self, status: Arc<Status>, stop: CancellationToken) -> Result<Reprocessed> {
        let Self { topology, old, new, survey, filling, feed } = self;
        if survey.skipped > 0 {
            tracing::warn!(
                records = survey.skipped,
                "the records of the epochs before {} are left out, as --from says",
                survey.first
            );
        }
        filling.begin(&new, &survey).await?;
        tracing::info!(from = old.lake().url(), epochs = survey.head, begin = survey.begin, "reprocessing");
        let at_end = finish(Arc::clone(&new), Arc::clone(&survey), filling.clone()).boxed();
        let feed = async { Ok(Feed { parts: feed, patience: None, at_end }) };
        let options = Options { role: Role::All, until_caught_up: true, shard: (0, 0) };
        drive(&topology, &new, &options, status, stop, feed).await?;
        let state = new.refresh().await?;
        let mut records = RecordAccount::default();
        let sources = state.account.records.iter().filter(|(source, _)| *source != RETRIED);
        sources.for_each(|(_, account)| records.add(account));
        Ok(Reprocessed {
            first: survey.first,
            head: survey.head,
            finished: state.progress.get(&filling.partition).is_some_and(|at| at.position == filling.done(&survey)),
            epochs: state.n,
            records,
            load: loaded_rows(&topology).await?,
            skipped: survey.skipped,
        })
    }
}

/// The partition that says how far the new log is filled.
#[derive(Debug, Clone)]
struct Filling {
    partition: Partition,
    /// Where it stands; `None` in a log that is empty.
    at: Option<Position>,
    /// The first epoch of the old log that is read.
    first: EpochNumber,
}

impl Filling {
    fn of(old: &Log, new: &Log, first: Option<EpochNumber>) -> Result<Self> {
        let state = new.state();
        let partition = Partition::new(FILLING, old.state().log.to_string());
        let at = state.progress.get(&partition).map(|standing| standing.position.clone());
        let begun = at.as_ref().and_then(|at| at.0.split_once("..")?.0.parse::<EpochNumber>().ok());
        let url = new.lake().url();
        if at.is_none() && state.n > 0 {
            let what = format!("{url} holds a log of {} epochs that was not begun from {}", state.n, old.lake().url());
            return Err(Error::new(ErrorKind::Config, what).help(
                "name a new, empty lake and a new warehouse schema or file: --set lake.url=… --set warehouse.…",
            ));
        }
        if let (Some(begun), Some(first)) = (begun, first.filter(|first| begun != Some(*first))) {
            return Err(Error::new(ErrorKind::Config, format!("{url} was begun with --from {begun}, not {first}"))
                .help("leave --from out to go on, or name another new lake"));
        }
        let (first, head) = (begun.or(first).unwrap_or(1), old.state().n);
        if first > head.max(1) {
            return Err(Error::new(
                ErrorKind::Config,
                format!("--from {first}: {} ends at epoch {head}", old.lake().url()),
            )
            .help("leave --from out to read everything"));
        }
        Ok(Self { partition, at, first })
    }

    fn open(&self) -> Position {
        Position(format!("{}..", self.first))
    }

    fn done(&self, survey: &Survey) -> Position {
        Position(format!("{}..{}", self.first, survey.head))
    }

    /// Says that the log is being filled, and where the partitions stood before the first epoch that is read.
    async fn begin(&self, new: &Log, survey: &Survey) -> Result<()> {
        let nothing_to_do = survey.begin > survey.head && self.at == Some(self.done(survey));
        if self.at == Some(self.open()) || nothing_to_do {
            return Ok(());
        }
        let mut spans = vec![self.advance(self.at.clone().unwrap_or_else(|| self.open()), self.open())];
        if self.at.is_none() {
            spans.extend(survey.before.iter().map(|(partition, standing)| Advance {
                partition: partition.clone(),
                span: Span { from: standing.position.clone(), to: standing.position.clone() },
                generation: standing.generation,
                mark: standing.mark.clone(),
            }));
        }
        commit(new, spans).await
    }

    fn advance(&self, from: Position, to: Position) -> Advance {
        Advance { partition: self.partition.clone(), span: Span { from, to }, generation: 0, mark: None }
    }
}

/// Says that the log is filled, when every partition stands where it stood in the old log and every record is accounted
/// for. A run that was stopped leaves it as it is.
async fn finish(new: Arc<Log>, survey: Arc<Survey>, filling: Filling) -> Result<()> {
    let state = new.refresh().await?;
    let stands = |(partition, end): (&Partition, &Standing)| {
        state.progress.get(partition).is_some_and(|at| at.position == end.position)
    };
    if !survey.end.iter().all(stands) {
        return Ok(());
    }
    for (source, records) in &survey.records {
        let read = state.account.records.get(source).map_or(0, |account| account.read);
        if read != *records {
            let what = format!("the raw zone has {records} records of {source}, the new log has read {read}");
            return Err(Error::new(ErrorKind::Internal, what));
        }
    }
    let done = filling.done(&survey);
    if state.progress.get(&filling.partition).is_some_and(|at| at.position == done) {
        return Ok(());
    }
    match commit(&new, vec![filling.advance(filling.open(), done)]).await {
        // Another process that does the same was quicker to say it.
        Err(error) if error.kind() == &ErrorKind::Fenced => Ok(()),
        said => said,
    }
}

async fn commit(log: &Log, spans: Vec<Advance>) -> Result<()> {
    let draft = Draft { spans, ..Draft::new(Ulid::new(), Utc::now()) };
    let without_rows = |table: &str, _: &TableSchema| -> Result<TableSchema> {
        Err(Error::new(ErrorKind::Internal, format!("positions alone have no rows of table {table}")))
    };
    log.commit(draft, &without_rows).await.map(drop)
}

async fn loaded_rows(topology: &Topology) -> Result<LoadAccount> {
    let warehouse = super::staging::open_warehouse(topology).await?;
    let mut load = LoadAccount::default();
    for group in build::groups(topology).keys() {
        let applied = warehouse.applied(group).await?;
        applied.iter().flat_map(|applied| applied.accounts.values()).for_each(|account| load.add(account));
    }
    Ok(load)
}

fn same_lake() -> Error {
    Error::new(ErrorKind::Config, "the lake to read from is the topology's own lake")
        .help("name a new, empty lake in the topology: --set lake.url=…; the old one stays as it is")
}

fn refuse_same_place(new: &config::Lake, old: &config::Lake) -> Result<()> {
    let same = new.url.trim_end_matches('/') == old.url.trim_end_matches('/') && new.endpoint == old.endpoint;
    if same { Err(same_lake()) } else { Ok(()) }
}

/// An old epoch of a database's log ends with a transaction, or where the old one's limit was, and is as small as that.
fn never_cut_epochs(topology: &mut Topology) {
    for source in topology.sources.values_mut() {
        match source {
            config::Source::Postgres(postgres) => postgres.max_transaction.0 = u64::MAX,
            config::Source::Mysql(mysql) => mysql.max_transaction.0 = u64::MAX,
            config::Source::Kafka(_) | config::Source::File(_) => {}
        }
    }
}

fn refuse_unknown_sources(topology: &Topology, survey: &Survey) -> Result<()> {
    let unknown = survey.end.iter().map(|(partition, _)| &partition.source);
    let unknown = unknown.filter(|source| !topology.sources.contains_key(&***source)).collect::<Vec<_>>();
    if let Some(source) = unknown.first() {
        return Err(Error::new(
            ErrorKind::Config,
            format!("the raw zone holds source {source}, which the topology lacks"),
        )
        .help("put the source back (under the name that it had), even if no table reads it any more"));
    }
    if topology.sources.contains_key(RETRIED) {
        return Err(Error::new(
            ErrorKind::Config,
            format!("a source named {RETRIED} cannot be read from the raw zone"),
        )
        .help("entries of the quarantine come in again under that name; build from the source itself"));
    }
    Ok(())
}

/// A ledger of another log would be found by the loaders too, but only after the lake has been filled. One under the old
/// topology's name would not: its tables would be taken for tables that people have made.
async fn refuse_loaded_warehouse(topology: &Topology, new: &Log, old_name: &str) -> Result<()> {
    let elsewhere =
        "name another schema or file, e.g. --set warehouse.schema=rebuilt; switch readers over when it is full";
    let warehouse = super::staging::open_warehouse(topology).await?;
    for group in build::groups(topology).keys() {
        let Some(applied) = warehouse.applied(group).await? else { continue };
        if applied.log != new.state().log {
            let what = format!("the warehouse has loaded group {group} from another log, {}", applied.log);
            return Err(Error::new(ErrorKind::Config, what).help(elsewhere));
        }
    }
    if old_name == topology.name {
        return Ok(());
    }
    let tables = super::staging::open_warehouse(&Topology { name: old_name.to_owned(), ..topology.clone() })
        .await?
        .freshness()
        .await?;
    match tables.iter().find(|loaded| topology.tables.contains_key(&loaded.table)) {
        Some(loaded) => {
            let what = format!("the warehouse holds table {} of topology {old_name}", loaded.table);
            Err(Error::new(ErrorKind::Config, what).help(elsewhere))
        }
        None => Ok(()),
    }
}
