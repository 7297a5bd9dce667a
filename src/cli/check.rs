//! `dataflow check`: every mistake at once, without any network unless it is asked for.

use clap::Args;

use super::table_text::Paint;
use super::{Output, TopologyArgs};
use crate::config::{self, Loaded, Mistake, Mistakes};
use crate::contract::TableSchema;
use crate::error::{Error, ErrorKind, Result};
use crate::finding::{Finding, Level};
use crate::operator::{Chain, ChainMistake};
use crate::pipeline;

/// Arguments of `check`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dataflow check topologies/shop.yaml
  dataflow check topologies/shop.yaml --connect
  dataflow check topologies/shop.yaml --json | jq -r '.file + \":\" + (.line|tostring) + \" \" + .message'

With --connect, exit code 2 says that something must be changed, 1 that something could not be reached.")]
pub(super) struct CheckArgs {
    #[command(flatten)]
    topology: TopologyArgs,
    /// Also connect to the sources, the lake and the warehouse, and say what they lack; nothing that it makes stays
    #[arg(long)]
    connect: bool,
    /// One JSON object per mistake (with --connect, per finding)
    #[arg(long)]
    json: bool,
}

/// A mistake that only the operators can find: a rule that does not fit the columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorMistake {
    /// The table.
    pub table: String,
    /// The operator's index.
    pub operator: usize,
    /// The place inside the operator, e.g. `validate.rule`.
    pub path: String,
    /// Bytes into the text that stands there.
    pub offset: Option<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub help: Option<String>,
}

pub(super) async fn run(args: &CheckArgs, output: Output) -> Result<()> {
    let outcome = config::load(&args.topology.topology, &args.topology.set).and_then(|loaded| {
        let found = operator_mistakes(&loaded);
        if found.is_empty() { Ok(loaded) } else { Err(located(&loaded, found)) }
    });
    match outcome {
        Ok(loaded) if args.connect => {
            let found = pipeline::probe(&loaded).await;
            findings(&found, args.json, output)
        }
        Ok(loaded) => report(&loaded, args.json, output),
        Err(mistakes) if args.json => {
            for mistake in &mistakes.0 {
                output.print_json(mistake)?;
            }
            Err(silent(&mistakes))
        }
        Err(mistakes) => Err(super::refusal(&mistakes)),
    }
}

/// Refuses a topology whose operators do not fit, with the places of the mistakes.
pub(super) fn operators(loaded: &Loaded) -> Result<()> {
    let found = operator_mistakes(loaded);
    if found.is_empty() { Ok(()) } else { Err(located(loaded, found).into()) }
}

/// What the operators say about the topology's rules, and about the columns where a contract file names them.
fn operator_mistakes(loaded: &Loaded) -> Vec<OperatorMistake> {
    let mut found = Vec::new();
    for (name, table) in &loaded.topology.tables {
        match Chain::build(name, table) {
            Err(mistakes) => found.extend(mistakes.into_iter().map(|m| operator_mistake(name, m))),
            Ok(chain) => {
                let contract = loaded.contracts.get(name);
                let input = contract.map(|file| TableSchema {
                    columns: file.columns.clone(),
                    key: table.key.clone().unwrap_or_else(|| file.key.clone()),
                });
                if let Some(Err(mistake)) = input.map(|input| chain.output(&input)) {
                    found.push(operator_mistake(name, mistake));
                }
            }
        }
    }
    found
}

fn operator_mistake(table: &str, mistake: ChainMistake) -> OperatorMistake {
    let ChainMistake { operator, path, offset, message, help } = mistake;
    OperatorMistake { table: table.to_owned(), operator, path, offset, message, help }
}

/// Turns what operators found into places of the file.
pub fn located(loaded: &Loaded, found: Vec<OperatorMistake>) -> Mistakes {
    let locate = |mistake: OperatorMistake| -> Mistake {
        let path = format!("tables.{}.operators[{}].{}", mistake.table, mistake.operator, mistake.path);
        loaded.mistake(path.trim_end_matches('.'), mistake.offset, mistake.message, mistake.help)
    };
    let mut mistakes: Vec<Mistake> = found.into_iter().map(locate).collect();
    mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
    Mistakes(mistakes)
}

fn report(loaded: &Loaded, json: bool, output: Output) -> Result<()> {
    if json {
        return Ok(());
    }
    let topology = &loaded.topology;
    let learned = topology.tables.len() - loaded.contracts.len();
    output.print(&format!(
        "{}: `{}` is right: {}, {} ({} learned from the stream)",
        loaded.path.display(),
        topology.name,
        count(topology.sources.len(), "source"),
        count(topology.tables.len(), "table"),
        learned,
    ))
}

/// Shows what was found by connecting; the worst of it decides how the command ends.
fn findings(found: &[Finding], json: bool, output: Output) -> Result<()> {
    if json {
        found.iter().try_for_each(|finding| output.print_json(finding))?;
    } else {
        output.print(&findings_text(found, Paint::new(output.terminal)))?;
    }
    let of = |level| found.iter().filter(|finding| finding.level == level).count();
    match (of(Level::Mistake), of(Level::Unreachable)) {
        (0, 0) => Ok(()),
        (0, n) => {
            Err(Error::new(ErrorKind::SourceUnavailable, format!("{} could not be looked at", count(n, "place"))))
        }
        (n, _) => Err(Error::new(ErrorKind::Config, count(n, "mistake"))),
    }
}

fn findings_text(found: &[Finding], paint: Paint) -> String {
    let (mut out, mut place) = (String::new(), "");
    for finding in found {
        if finding.place != place {
            place = &finding.place;
            out.push_str(&format!("{}\n", paint.bold(place)));
        }
        let sign = match finding.level {
            Level::Good => paint.green("ok"),
            Level::Note => paint.dim("note"),
            Level::Warning => paint.yellow("warning"),
            Level::Mistake => paint.red("mistake"),
            Level::Unreachable => paint.red("unreachable"),
        };
        out.push_str(&format!("  {sign}: {}\n", finding.what.replace('\n', "\n    ")));
        if let Some(help) = &finding.help {
            out.push_str(&format!("    {}: {}\n", paint.dim("help"), help.replace('\n', "\n    ")));
        }
    }
    out
}

fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// The mistakes are on standard output already; only the exit code and their number are left to say.
fn silent(mistakes: &Mistakes) -> Error {
    Error::new(ErrorKind::Config, count(mistakes.0.len(), "mistake"))
}
