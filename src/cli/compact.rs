//! `dataflow compact`: closed hours of the lake, written again as few, sorted files.

use chrono::{DateTime, Utc};
use clap::Args;

use super::{Output, TopologyArgs, table_text};
use crate::config::Topology;
use crate::error::Result;
use crate::lake::{self, Access, Archived, CompactOptions, CompactReport, Lake, Log, NoOutsiders, Retired};

/// Arguments of `compact`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  dataflow compact topologies/shop.yaml

An hour is closed two hours after its end. The files that it was in are deleted a day later, when this is done again, here or
by the process that loads. What is loaded, replayed or queried meanwhile sees the same rows. Raw files that are older than
`lake.raw.archive_after` move to the archive.")]
pub struct CompactArgs {
    #[command(flatten)]
    pub topology: TopologyArgs,
    /// Take the hours as closed that are at this time (RFC 3339): for a lake that nobody writes to any more
    #[arg(long, value_name = "TIME")]
    pub as_of: Option<DateTime<Utc>>,
    /// The outcome as JSON
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, serde::Serialize)]
struct Outcome {
    #[serde(flatten)]
    compacted: CompactReport,
    retired: Retired,
    archived: Archived,
}

impl Outcome {
    /// For a person.
    fn text(&self) -> String {
        let number = table_text::number;
        let (compacted, retired) = (&self.compacted, &self.retired);
        let mut text = match compacted.hours {
            0 => "nothing to compact".to_owned(),
            hours => format!(
                "{} hours of tables: {} rows, from {} files ({} bytes) to {} ({} bytes)",
                number(hours),
                number(compacted.rows),
                number(compacted.files_before),
                number(compacted.bytes_before),
                number(compacted.files_after),
                number(compacted.bytes_after),
            ),
        };
        if compacted.fenced {
            text.push_str("; another process compacts this lake too, and goes on with the rest");
        }
        if retired.files > 0 {
            let (files, bytes) = (number(retired.files), number(retired.bytes));
            text.push_str(&format!("; deleted {files} files ({bytes} bytes) that were compacted a day ago"));
        }
        if self.archived.files > 0 {
            text.push_str(&format!("; moved {} raw files to the archive", number(self.archived.files)));
        }
        text
    }
}

/// Compacts what is closed, deletes what was replaced a day ago, and archives raw files of an age.
pub async fn run(args: CompactArgs, output: Output) -> Result<()> {
    let loaded = args.topology.load()?;
    let topology = &loaded.topology;
    let log = Log::open(Lake::open(&topology.lake)?, &topology.name, Access::Write).await?;
    let options = CompactOptions::for_epochs(topology.epoch.every.0);
    let compacted = lake::compact(&log, args.as_of.unwrap_or_else(Utc::now), &options).await?;
    let retired = retire(&log, topology).await?;
    let outcome = Outcome { compacted, retired, archived: lake::archive_raw(&log).await? };
    if args.json { output.print_json(&outcome) } else { output.print(&outcome.text()) }
}

/// A catalog hears of what was compacted before anything is deleted.
#[cfg(feature = "s3")]
async fn retire(log: &Log, topology: &Topology) -> Result<Retired> {
    let Some(catalog) = lake::Catalog::open(&topology.lake)? else { return lake::retire(log, &NoOutsiders).await };
    catalog.follow(log).await?;
    lake::retire(log, &catalog).await
}

#[cfg(not(feature = "s3"))]
async fn retire(log: &Log, _: &Topology) -> Result<Retired> {
    lake::retire(log, &NoOutsiders).await
}
