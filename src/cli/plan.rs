//! `dataflow plan`: what would be created; changes nothing.

use clap::Args;
use serde::Serialize;

use super::table_text::Paint;
use super::{Output, TopologyArgs};
use crate::error::{Error, ErrorKind, Result};

/// Arguments of `plan`.
#[derive(Debug, Args)]
#[command(after_help = "Example:
  dataflow plan topologies/shop.yaml | less -R")]
pub struct PlanArgs {
    #[command(flatten)]
    pub topology: TopologyArgs,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// What would be created.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct PlanReport {
    /// The topology's name.
    pub name: String,
    /// The steps in order.
    pub steps: Vec<PlanStep>,
    /// What cannot be said before the stream is read, e.g. the columns of a learned table.
    pub unknown: Vec<String>,
}

/// One thing that would be made or run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PlanStep {
    /// Where: `lake`, `warehouse`, the name of a source.
    pub place: String,
    /// The table, when it is about one.
    pub table: Option<String>,
    /// What, e.g. `create table`, `load`.
    pub what: String,
    /// The statement or setting itself.
    pub text: String,
}

impl PlanReport {
    /// For a person.
    pub fn text(&self, paint: Paint) -> String {
        let mut out = String::new();
        let mut place = "";
        for step in &self.steps {
            if step.place != place {
                out.push_str(&format!("{}\n", paint.bold(&step.place)));
                place = &step.place;
            }
            let table = step.table.as_deref().map(|table| format!(" {table}")).unwrap_or_default();
            out.push_str(&format!("  {}{table}\n", paint.cyan(&step.what)));
            step.text.lines().for_each(|line| out.push_str(&format!("    {line}\n")));
        }
        if self.steps.is_empty() {
            out.push_str("nothing would be created: everything is there\n");
        }
        for unknown in &self.unknown {
            out.push_str(&format!("{} {unknown}\n", paint.yellow("not yet known:")));
        }
        out
    }
}

/// Shows the plan.
pub async fn run(args: PlanArgs, _output: Output) -> Result<()> {
    let _loaded = args.topology.load()?;
    Err(Error::new(ErrorKind::Internal, "`plan` has no warehouse in this build"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_reads_from_top_to_bottom() {
        let step = |what: &str, text: &str| PlanStep {
            place: "warehouse".into(),
            table: Some("orders".into()),
            what: what.into(),
            text: text.into(),
        };
        let report = PlanReport {
            name: "sales".into(),
            steps: vec![step("create table", "create table orders (\n  id bigint\n)"), step("load", "merge …")],
            unknown: vec!["columns of events: learned from the stream".into()],
        };
        let expected = "warehouse\n  create table orders\n    create table orders (\n      id bigint\n    )\n  load orders\n    merge …\nnot yet known: columns of events: learned from the stream\n";
        assert_eq!(report.text(Paint::plain()), expected);
    }
}
