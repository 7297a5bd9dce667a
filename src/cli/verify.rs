//! `dataflow verify`: the source's tables against the warehouse's.

use std::time::Duration;

use clap::Args;
use serde::Serialize;

use super::table_text::{Cell, Colour, Paint, columns, number, visible};
use super::{Output, Progress, TopologyArgs, check};
use crate::config::Span;
use crate::error::{Error, ErrorKind, Result};
use crate::pipeline::verify::{Difference, Kind, Outcome, TableReport, Wanted, verify};

/// Arguments of `verify`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dataflow verify topologies/shop.yaml
  dataflow verify topologies/shop.yaml --table orders --show 100 --json

Reads each table at the source and in the warehouse and compares what today's operators make of the one with the other:
counts and order-free hashes of rows, then the rows themselves where those differ. `run` may go on meanwhile, and so may
the application. Values of masked columns are not shown. Needs what `run` needs at the source, and changes nothing.

Exit codes: 0 equal, 1 different or not to be said, 2 a mistake.")]
pub struct VerifyArgs {
    #[command(flatten)]
    pub topology: TopologyArgs,
    /// Only this table; may be repeated
    #[arg(long = "table", value_name = "TABLE")]
    pub tables: Vec<String>,
    /// Differing rows to show of each table
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub show: usize,
    /// How long the warehouse may take to come to where the source was read, each time, e.g. `90s`
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = span)]
    pub timeout: Duration,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

fn span(text: &str) -> Result<Duration, String> {
    Span::try_from(text.to_owned()).map(|span| span.0)
}

/// What `verify` found.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct VerifyReport {
    /// The topology's name.
    pub name: String,
    /// Whether every table is equal.
    pub equal: bool,
    /// Tables in name order.
    pub tables: Vec<TableReport>,
}

/// Compares, and fails unless everything is equal.
pub async fn run(args: VerifyArgs, output: Output) -> Result<()> {
    let loaded = args.topology.load()?;
    check::operators(&loaded)?;
    let wanted = Wanted { tables: args.tables, timeout: args.timeout, show: args.show };
    let mut progress: Option<Progress> = None;
    let compared = verify(&loaded, &wanted, |done, of| {
        progress.get_or_insert_with(|| Progress::new("verify", "tables", of)).done(done);
    });
    let tables = compared.await;
    if let Some(progress) = progress {
        progress.finish();
    }
    let tables = tables?;
    let equal = tables.iter().all(|table| table.outcome == Outcome::Equal);
    let report = VerifyReport { name: loaded.topology.name.clone(), equal, tables };
    if args.json {
        output.print_json(&report)?;
    } else {
        output.print(&report.text(Paint::new(output.terminal)))?;
    }
    if equal {
        return Ok(());
    }
    let unlike = |outcome| report.tables.iter().filter(|table| table.outcome == outcome).count();
    let (different, open) = (unlike(Outcome::Different), unlike(Outcome::NotCompared));
    let what = format!("verify: {different} of {} tables differ, {open} could not be compared", report.tables.len());
    Err(Error::new(ErrorKind::Table(report.name), what))
}

const HEADINGS: [&str; 8] =
    ["table", "result", ">source", ">filtered", ">warehouse", ">excused", ">moving", ">different"];

impl VerifyReport {
    /// For a person.
    pub fn text(&self, paint: Paint) -> String {
        let rows: Vec<Vec<Cell>> = self.tables.iter().map(row).collect();
        let mut out = columns(paint, &HEADINGS, &rows);
        for table in &self.tables {
            notes(table, paint, &mut out);
        }
        out
    }
}

fn row(table: &TableReport) -> Vec<Cell> {
    let outcome = match table.outcome {
        Outcome::Equal => Cell::painted("equal", Paint::green),
        Outcome::Different => Cell::painted("different", Paint::red),
        Outcome::NotCompared => Cell::painted("not compared", Paint::yellow),
    };
    let counted = |n: u64, colour| if n > 0 { Cell::painted(number(n), colour) } else { number(n).into() };
    vec![
        table.table.as_str().into(),
        outcome,
        number(table.source_rows).into(),
        number(table.filtered).into(),
        number(table.warehouse_rows).into(),
        counted(table.excused.values().sum(), Paint::yellow),
        counted(table.moving, Paint::yellow),
        counted(table.different, Paint::red),
    ]
}

fn notes(table: &TableReport, paint: Paint, out: &mut String) {
    let name = paint.bold(&table.table);
    if let Some(why) = &table.why {
        let why: Vec<String> = why.lines().map(visible).collect();
        out.push_str(&format!("\n{} {name}: {}\n", paint.red("!"), why.join("\n  ")));
    }
    for (why, rows) in &table.excused {
        out.push_str(&format!("\n{name}: {} rows excused: {}\n", number(*rows), visible(why)));
    }
    if table.moving > 0 {
        let rows = number(table.moving);
        out.push_str(&format!("\n{name}: {rows} rows change faster than they could be compared\n"));
    }
    if !table.columns_left_out.is_empty() {
        out.push_str(&format!("\n{name}: not compared: {}\n", visible(&table.columns_left_out.join(", "))));
    }
    if table.ranges_left_out > 0 {
        let ranges = number(table.ranges_left_out);
        out.push_str(&format!("\n{name}: {ranges} more ranges of keys differ and were not looked into\n"));
    }
    if !table.differences.is_empty() {
        out.push_str(&format!("\n{name}: {} rows differ\n", number(table.different)));
        table.differences.iter().for_each(|difference| out.push_str(&line(difference, paint)));
        let more = table.different - table.differences.len() as u64;
        if more > 0 {
            out.push_str(&format!("  and {} more: see --show\n", number(more)));
        }
    }
}

fn line(difference: &Difference, paint: Paint) -> String {
    let text = |value: &Option<String>| value.as_deref().map_or_else(|| "null".to_owned(), visible);
    let key: Vec<String> =
        difference.key.iter().map(|(name, value)| format!("{}={}", visible(name), text(value))).collect();
    let (word, colour): (_, Colour) = match difference.kind {
        Kind::Missing => ("missing", Paint::red),
        Kind::Extra => ("extra", Paint::yellow),
        Kind::Different => ("different", Paint::red),
    };
    let mut out = format!("  {} {}", colour(paint, word), key.join(" "));
    for values in &difference.columns {
        let (source, warehouse) = (text(&values.source), text(&values.warehouse));
        out.push_str(&format!("\n    {}: source {source}, warehouse {warehouse}", visible(&values.column)));
    }
    let (source, warehouse) = difference.rows;
    if source > 1 || warehouse > 1 {
        out.push_str(&format!("\n    {source} rows at the source, {warehouse} in the warehouse"));
    }
    out + "\n"
}
