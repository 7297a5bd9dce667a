//! `dataflow reprocess`: a new lake and warehouse from an old lake's raw zone, with today's rules.

use std::sync::Arc;
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::run::obey_signals;
use super::{Output, Progress, TopologyArgs, assignment, check, refusal, table_text};
use crate::batch::RecordAccount;
use crate::config::{self, Lake};
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::reprocess::{Reprocess, Reprocessed};
use crate::telemetry::Status;

/// Arguments of `reprocess`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dataflow reprocess shop-v2.yaml --from-lake s3://acme-lake/shop && dataflow run shop-v2.yaml
  dataflow reprocess shop.yaml --from-lake ./data/lake \\
      --set lake.url=./data/lake2 --set warehouse.path=./data/second.db
  dataflow reprocess shop-v2.yaml --from-lake s3://acme-lake/shop --from-raw-key 'file:old-raw.key' --from 118

TOPOLOGY says today's rules, a new and empty lake, and a warehouse that this lake has not loaded yet (another schema or
file). Every record that the old lake has kept in raw/ goes through them, with its place in the source: `run TOPOLOGY`
then goes on at the live source exactly where the raw zone ends. Stopped or killed, the same command goes on.
A postgres source keeps the slot and the publication that it had; the slot serves one pipeline: stop the old one first.
The old lake must keep raw (lake.raw) and is only read. What people did to its log is not taken over: paused tables,
entries of the quarantine that were retried or given up.")]
pub struct ReprocessArgs {
    #[command(flatten)]
    pub topology: TopologyArgs,
    /// The lake whose raw zone is read: s3://bucket/prefix or a folder. Everything else about it is as the topology
    /// says for its own lake
    #[arg(long, value_name = "URL")]
    pub from_lake: String,
    /// What is different about the lake that is read, e.g. `lake.region=eu-west-3`; may be repeated
    #[arg(long = "from-set", value_name = "PATH=VALUE", value_parser = assignment)]
    pub from_set: Vec<(String, String)>,
    /// The key that its raw zone is encrypted with, as a reference: `${NAME}` or `file:PATH`. Without it: lake.raw.key
    #[arg(long, value_name = "REFERENCE", value_parser = reference)]
    pub from_raw_key: Option<String>,
    /// Begin with this epoch of the old lake: only when nothing that came before it is needed
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub from: Option<u64>,
    /// The outcome as JSON
    #[arg(long)]
    pub json: bool,
}

fn reference(text: &str) -> Result<String, String> {
    // The value is not repeated in the message: it may be the key itself.
    let is_one = text.starts_with("file:") || (text.starts_with("${") && text.ends_with('}'));
    if is_one { Ok(text.to_owned()) } else { Err("write '${NAME}' or file:PATH; other processes see arguments".into()) }
}

/// What `reprocess` did, from the beginning of the new lake.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReprocessReport {
    /// Whether everything is in the new lake and warehouse.
    pub finished: bool,
    /// The first epoch of the old lake that was read.
    pub from: u64,
    /// Its newest epoch.
    pub through: u64,
    /// Epochs of the new lake.
    pub epochs: u64,
    /// What became of the raw records.
    #[serde(flatten)]
    pub records: RecordAccount,
    /// Records before `from`, which were left out.
    pub skipped: u64,
    /// Rows applied.
    pub applied: u64,
    /// Rows that newer ones replaced on the way.
    pub superseded: u64,
    /// Partial rows that found no base.
    pub incomplete: u64,
    /// How long it took, seconds.
    pub seconds: f64,
}

impl ReprocessReport {
    fn new(done: &Reprocessed, seconds: f64) -> Self {
        let load = &done.load;
        Self {
            finished: done.finished,
            from: done.first,
            through: done.head,
            epochs: done.epochs,
            records: done.records,
            skipped: done.skipped,
            applied: load.applied,
            superseded: load.superseded,
            incomplete: load.incomplete,
            seconds,
        }
    }

    /// A few lines for a person.
    pub fn text(&self) -> String {
        let (number, records) = (table_text::number, &self.records);
        let mut text = format!(
            "{} raw records of epochs {} to {} in {}: {} rows, {} merged, {} control, {} re-delivered, {} rejected, {} of \
             no table\nthe warehouse: {} rows applied, {} superseded, {} incomplete",
            number(records.read),
            self.from,
            self.through,
            table_text::age(self.seconds),
            number(records.rows),
            number(records.merged),
            number(records.control),
            number(records.redelivered),
            number(records.rejected),
            number(records.unrouted),
            number(self.applied),
            number(self.superseded),
            number(self.incomplete),
        );
        if self.skipped > 0 {
            text += &format!("\n{} records before epoch {} were left out", number(self.skipped), self.from);
        }
        text
    }
}

/// How often the bar moves.
const LOOK: Duration = Duration::from_millis(200);

/// Fills the topology's lake and warehouse from the old lake's raw zone.
pub async fn run(args: ReprocessArgs, output: Output) -> Result<()> {
    let terminate = signal(SignalKind::terminate())
        .map_err(|error| Error::new(ErrorKind::Internal, "catch SIGTERM").because(error))?;
    let started = Instant::now();
    let loaded = args.topology.load()?;
    check::operators(&loaded)?;
    let reprocess = Reprocess::plan(&loaded, &args.old_lake()?, args.from).await?;
    let records = reprocess.records();
    let status = Arc::new(Status::new(&loaded.topology.name, u64::MAX));
    let (asked, ended) = (CancellationToken::new(), CancellationToken::new());
    let work = async {
        let outcome = reprocess.run(Arc::clone(&status), asked.clone()).await;
        ended.cancel();
        outcome
    };
    let (outcome, (), ()) = tokio::join!(work, show(records, &status, &ended), obey_signals(terminate, &asked, &ended));
    let report = ReprocessReport::new(&outcome?, started.elapsed().as_secs_f64());
    if args.json {
        output.print_json(&report)?
    } else {
        output.print(&report.text())?
    }
    if report.finished {
        return Ok(());
    }
    let what = format!(
        "reprocess stopped before its end: {} of {records} raw records are in the new lake",
        report.records.read
    );
    Err(Error::new(ErrorKind::SourceUnavailable, what).help("start the same command again; it goes on from there"))
}

async fn show(records: u64, status: &Status, ended: &CancellationToken) {
    let mut progress = Progress::new("reprocess", "records", records);
    let mut ticks = tokio::time::interval(LOOK);
    while !ended.is_cancelled() {
        tokio::select! {
            () = ended.cancelled() => {}
            _ = ticks.tick() => {}
        }
        // The end is said once, when the warehouse is loaded, too.
        let done = status.snapshot().account.read.min(records);
        if done < records || ended.is_cancelled() {
            progress.done(done);
        }
    }
    progress.finish();
}

impl ReprocessArgs {
    /// The lake that is read: the topology's own with another URL, and what the arguments say is different.
    fn old_lake(&self) -> Result<Lake> {
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let mut set = self.topology.set.clone();
        set.push(("lake.url".to_owned(), quoted(&self.from_lake)));
        if let Some(key) = &self.from_raw_key {
            // Nothing is written there, so the retention, which a topology must say, means nothing.
            let raw = format!("{{ keep: encrypted, retention: 1d, key: {} }}", quoted(key));
            set.push(("lake.raw".to_owned(), raw));
        }
        set.extend(self.from_set.iter().cloned());
        let loaded = config::load(&self.topology.topology, &set).map_err(|mistakes| refusal(&mistakes))?;
        Ok(loaded.topology.lake)
    }
}
