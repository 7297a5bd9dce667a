//! The command line: one file per command.
//!
//! | file | what it owns |
//! |---|---|
//! | `run.rs` … `schema.rs` | one command each: its arguments and what it does |
//! | `quarantine_text.rs` | how quarantined entries are named and printed |
//! | `table_text.rs` | aligned columns, numbers and ages for people |
//! | `live.rs` | the moving view of `run` |
//! | `progress.rs` | a bar for long work |
//!
//! Exit codes: 0 done, 1 failed, 2 the user's mistake.

mod check;
mod compact;
mod live;
mod plan;
mod progress;
mod quarantine;
mod quarantine_text;
mod replay;
mod reprocess;
mod run;
mod schema;
mod status;
mod table;
mod table_text;
mod verify;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use futures::future::LocalBoxFuture;

use crate::config::{self, Loaded, Mistakes};
use crate::error::{Error, ErrorKind, Result};
use crate::telemetry::LogForm;

pub use check::OperatorMistake;
pub use compact::CompactArgs;
pub use live::{Live, LiveForm};
pub use plan::{PlanArgs, PlanReport, PlanStep};
pub use progress::Progress;
pub use quarantine::{QuarantineArgs, QuarantineCommand, Selection};
pub use quarantine_text::{EntryId, RejectLine, RejectList};
pub use replay::{ReplayArgs, ReplayReport};
pub use reprocess::{ReprocessArgs, ReprocessReport};
pub use run::{Role, RunArgs, Shard};
pub use status::{AccountReport, SlotReport, StatusArgs, StatusReport, TableReport};
pub use table::{TableAction, TableArgs, TableChange};
pub use verify::{VerifyArgs, VerifyReport};

/// Change streams in, a Parquet lake and exactly-once warehouse tables out.
#[derive(Debug, Parser)]
#[command(name = "dataflow", version, propagate_version = true, arg_required_else_help = true, after_help = EXAMPLES)]
pub struct Cli {
    /// How log lines look; text at a terminal, JSON lines otherwise. RUST_LOG filters them
    #[arg(long, global = true, value_name = "FORM")]
    pub log: Option<LogArg>,
    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "Examples:
  dataflow check topologies/shop.yaml
  dataflow run topologies/shop.yaml --set epoch.every=10s
  dataflow status topologies/shop.yaml --json
  dataflow schema > topology.schema.json

Exit codes: 0 done, 1 failed, 2 a mistake in the arguments, the topology or a contract file.";

/// `--log`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum LogArg {
    /// For a person at a terminal.
    Text,
    /// One JSON object a line.
    Json,
}

impl From<LogArg> for LogForm {
    fn from(arg: LogArg) -> Self {
        match arg {
            LogArg::Text => Self::Text,
            LogArg::Json => Self::Json,
        }
    }
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Keep the warehouse fresh until told to stop
    Run(RunArgs),
    /// Find every mistake in a topology and its contract files; with --connect, also in what it connects to
    Check(check::CheckArgs),
    /// Show what would be created: tables, DDL, load SQL; changes nothing
    Plan(PlanArgs),
    /// Show per table: rows, epochs, freshness, rejects, and why it is stopped
    Status(StatusArgs),
    /// Pause, resume or resync one table
    Table(TableArgs),
    /// List, show, retry or give up what was refused
    Quarantine(QuarantineArgs),
    /// Compare the source's tables with the warehouse's, while both go on
    Verify(VerifyArgs),
    /// Rebuild a warehouse from the lake
    Replay(ReplayArgs),
    /// Build a new lake and warehouse from another lake's raw zone, with today's rules
    Reprocess(ReprocessArgs),
    /// Write closed hours of the lake again as few, sorted files
    Compact(CompactArgs),
    /// Print the JSON Schema of topologies and contract files, for editors
    Schema(schema::SchemaArgs),
}

/// Which topology, and what is different this time.
#[derive(Debug, Clone, Args)]
pub struct TopologyArgs {
    /// The topology's file
    #[arg(value_name = "TOPOLOGY")]
    pub topology: PathBuf,
    /// Replace a value of the topology, e.g. `epoch.every=5s`; may be repeated
    #[arg(long = "set", value_name = "PATH=VALUE", value_parser = assignment)]
    pub set: Vec<(String, String)>,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    // The value is not repeated in the message: it may be a secret.
    let (path, value) = text.split_once('=').ok_or("write PATH=VALUE, e.g. epoch.every=5s")?;
    if path.trim().is_empty() { Err("the path is empty".into()) } else { Ok((path.trim().into(), value.into())) }
}

impl TopologyArgs {
    /// Reads and checks the topology.
    pub fn load(&self) -> Result<Loaded> {
        config::load(&self.topology, &self.set).map_err(|mistakes| refusal(&mistakes))
    }
}

/// All mistakes as one error, coloured where standard error is a terminal.
fn refusal(mistakes: &Mistakes) -> Error {
    Error::new(ErrorKind::Config, mistakes.render(std::io::stderr().is_terminal() && !no_colour()))
}

/// The user asked for no colours, as the `NO_COLOR` convention has it.
fn no_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// Where output goes, and in what form.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// Standard output is a terminal: colours, and things that move.
    pub terminal: bool,
}

impl Output {
    /// As standard output is.
    pub fn new() -> Self {
        Self { terminal: std::io::stdout().is_terminal() && !no_colour() }
    }

    /// Prints to standard output. A reader that has gone away (`| head`) is no failure.
    pub fn print(self, text: &str) -> Result<()> {
        let mut stdout = std::io::stdout().lock();
        let line_end = if text.ends_with('\n') { "" } else { "\n" };
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.write_all(line_end.as_bytes())) {
            Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
                Err(Error::new(ErrorKind::Internal, "write to standard output").because(error))
            }
            _ => Ok(()),
        }
    }

    /// Prints as JSON, indented for a person.
    pub fn print_json(self, value: &impl serde::Serialize) -> Result<()> {
        let text = if self.terminal { serde_json::to_string_pretty(value) } else { serde_json::to_string(value) };
        self.print(&text.map_err(|error| Error::new(ErrorKind::Internal, "make JSON").because(error))?)
    }
}

impl Default for Output {
    fn default() -> Self {
        Self::new()
    }
}

/// Does what was asked. Boxed here: the commands' code is compiled with the library, once, and not again with every
/// program that calls it.
pub fn run(cli: Cli) -> LocalBoxFuture<'static, Result<()>> {
    Box::pin(dispatch(cli))
}

async fn dispatch(cli: Cli) -> Result<()> {
    let output = Output::new();
    match cli.command {
        Command::Run(args) => run::run(args, output).await,
        Command::Check(args) => check::run(&args, output).await,
        Command::Plan(args) => plan::run(args, output).await,
        Command::Status(args) => status::run(args, output).await,
        Command::Table(args) => table::run(args, output).await,
        Command::Quarantine(args) => quarantine::run(args, output).await,
        Command::Verify(args) => verify::run(args, output).await,
        Command::Replay(args) => replay::run(args, output).await,
        Command::Reprocess(args) => reprocess::run(args, output).await,
        Command::Compact(args) => compact::run(args, output).await,
        Command::Schema(args) => schema::run(args, output),
    }
}
