//! `dataflow replay`: rebuilds a warehouse from the lake.

use clap::Args;
use serde::Serialize;

use super::{Output, TopologyArgs, table_text};
use crate::error::Result;
use crate::pipeline;

/// Arguments of `replay`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dataflow replay topologies/shop.yaml --from 1
  dataflow replay topologies/shop.yaml --from 1 --set warehouse.path=./data/second.db

The log is read in order from that epoch; the same manifests give the same rows.")]
pub struct ReplayArgs {
    #[command(flatten)]
    pub topology: TopologyArgs,
    /// The first epoch to load again; 1 is the beginning of the log
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub from: u64,
    /// Only this group; all when absent
    #[arg(long)]
    pub group: Option<String>,
    /// The outcome as JSON
    #[arg(long)]
    pub json: bool,
}

/// What a replay did.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ReplayReport {
    /// The first epoch.
    pub from: u64,
    /// The last one.
    pub through: u64,
    /// Rows applied.
    pub applied: u64,
    /// Rows that newer ones replaced on the way.
    pub superseded: u64,
    /// How long it took, seconds.
    pub seconds: f64,
}

impl ReplayReport {
    /// One line for a person.
    pub fn text(&self) -> String {
        format!(
            "epochs {} to {} loaded in {}: {} rows applied, {} superseded on the way",
            self.from,
            self.through,
            table_text::age(self.seconds),
            table_text::number(self.applied),
            table_text::number(self.superseded),
        )
    }
}

/// Loads the log again, into a warehouse that has not loaded it yet.
pub async fn run(args: ReplayArgs, output: Output) -> Result<()> {
    let loaded = args.topology.load()?;
    let started = std::time::Instant::now();
    let replayed = pipeline::replay(&loaded, args.from, args.group.as_deref()).await?;
    let report = ReplayReport {
        from: args.from,
        through: replayed.through,
        applied: replayed.account.applied,
        superseded: replayed.account.superseded,
        seconds: started.elapsed().as_secs_f64(),
    };
    if args.json { output.print_json(&report) } else { output.print(&report.text()) }
}
