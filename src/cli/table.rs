//! `dataflow table`: pause, resume or resync one table.

use clap::{Args, ValueEnum};
use serde::Serialize;

use super::{Output, TopologyArgs};
use crate::config::{Loaded, Topology, nearest};
use crate::epoch::Control;
use crate::error::{Error, ErrorKind, Result};
use crate::lake::{Access, Lake, Log};
use crate::pipeline::quarantine::commit_control;

/// Arguments of `table`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dataflow table pause topologies/shop.yaml orders --why 'migration on Saturday'
  dataflow table resume topologies/shop.yaml orders
  dataflow table resync topologies/shop.yaml orders

Changes of a paused table wait in the lake; the other tables go on. A table is read again beside its changes by the
process that runs, or the next one; `status` shows how far it is.")]
pub struct TableArgs {
    /// What to do
    #[arg(value_enum)]
    pub action: TableAction,
    #[command(flatten)]
    pub topology: TopologyArgs,
    /// The table
    pub table: String,
    /// Why; shown by `status`
    #[arg(long, default_value = "")]
    pub why: String,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// What to do with a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum TableAction {
    /// Its changes wait in the lake
    Pause,
    /// They are loaded again (a parked table, too)
    Resume,
    /// Read it again from its source
    Resync,
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TableChange {
    /// The table.
    pub table: String,
    /// What was asked.
    pub action: TableAction,
    /// The epoch of the log that carries it.
    pub epoch: u64,
    /// Changes that wait in the lake, when that is known.
    pub waiting: Option<u64>,
}

impl TableChange {
    /// One line for a person.
    pub fn text(&self) -> String {
        let done = match self.action {
            TableAction::Pause => "is paused; its changes wait in the lake",
            TableAction::Resume => "is loaded again",
            TableAction::Resync => "will be read again from its source",
        };
        let waiting = self.waiting.map(|n| format!(" ({n} changes wait)")).unwrap_or_default();
        format!("table {} {done}{waiting}: epoch {} of the log says so", self.table, self.epoch)
    }
}

/// The table must exist in the topology.
pub fn known_table(loaded: &Loaded, table: &str) -> Result<()> {
    let tables = &loaded.topology.tables;
    if tables.contains_key(table) {
        return Ok(());
    }
    let help = match nearest(table, tables.keys().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("tables are: {}", tables.keys().cloned().collect::<Vec<_>>().join(", ")),
    };
    Err(Error::new(ErrorKind::Config, format!("{} has no table `{table}`", loaded.path.display())).help(help))
}

/// Writes the request into the log; a running process sees it there.
pub async fn run(args: TableArgs, output: Output) -> Result<()> {
    let loaded = args.topology.load()?;
    known_table(&loaded, &args.table)?;
    let table = args.table.clone();
    let control = match args.action {
        TableAction::Pause => {
            let why = if args.why.is_empty() { "paused by hand".to_owned() } else { args.why.clone() };
            Control::Pause { table, why, parked: false }
        }
        TableAction::Resume => Control::Resume { table },
        TableAction::Resync => {
            refuse_resync(&loaded.topology, &args.table)?;
            Control::Resync { table }
        }
    };
    let lake = Lake::open(&loaded.topology.lake)?;
    let log = Log::open(lake, &loaded.topology.name, Access::Write).await?;
    let manifest = commit_control(&log, vec![control]).await?;
    let change = TableChange { table: args.table, action: args.action, epoch: manifest.n, waiting: None };
    if args.json { output.print_json(&change) } else { output.print(&change.text()) }
}

/// Only what can be asked for its rows can be read again.
fn refuse_resync(topology: &Topology, table: &str) -> Result<()> {
    let source = topology.tables.get(table).and_then(|table| topology.source_of(table));
    if source.is_some_and(|(_, source)| source.can_read_again()) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Config,
        format!("resync table {table}: its source is a stream and cannot be asked for a snapshot"),
    )
    .help("send Debezium an `execute-snapshot` signal for the table: its rows come through the stream and converge"))
}
