//! `dataflow plan`: what would be created; changes nothing.

use std::collections::BTreeMap;
use std::sync::Arc;

use clap::Args;
use serde::Serialize;

use super::table_text::Paint;
use super::{Output, TopologyArgs, check};
use crate::config::Loaded;
use crate::contract::{Contract, TableSchema};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::{self, Access, Lake, Log};
use crate::{pipeline, warehouse};

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
pub async fn run(args: PlanArgs, output: Output) -> Result<()> {
    let loaded = args.topology.load()?;
    check::operators(&loaded)?;
    let report = report(&loaded).await?;
    if args.json { output.print_json(&report) } else { output.print(&report.text(Paint::new(output.terminal))) }
}

/// What follows from the topology and, where a log exists already, from what it has learned.
async fn report(loaded: &Loaded) -> Result<PlanReport> {
    let topology = &loaded.topology;
    let mut report = PlanReport { name: topology.name.clone(), ..PlanReport::default() };
    report.steps.push(PlanStep {
        place: "lake".into(),
        table: None,
        what: "folders of objects".into(),
        text: format!("{0}/_log\n{0}/processed\n{0}/quarantine", topology.lake.url.trim_end_matches('/')),
    });
    if let Some(policy) = lake::policy(&topology.lake) {
        let text = serde_json::to_string_pretty(&policy)
            .map_err(|error| Error::new(ErrorKind::Internal, "write the policy").because(error))?;
        report.steps.push(PlanStep { place: "lake".into(), table: None, what: "policy of its role".into(), text });
    }
    for (what, text) in warehouse::needs(&topology.warehouse, &topology.lake) {
        report.steps.push(PlanStep { place: "warehouse".into(), table: None, what, text });
    }
    let learned = match Log::open(Lake::open(&topology.lake)?, &topology.name, Access::Read).await {
        Ok(log) => log.state().contracts.clone(),
        // Nothing has run yet: there is nothing to learn from.
        Err(_) => BTreeMap::new(),
    };
    let layouts = topology.layouts();
    for (name, table) in &topology.tables {
        let Some(contract) = contract(loaded, name, learned.get(name))? else {
            report.unknown.push(format!("the columns of {name}: they are learned from its stream"));
            continue;
        };
        let layout = layouts.get(name).cloned().unwrap_or_default();
        for statement in warehouse::plan(&topology.warehouse, &topology.name, &contract, table.deletes, &layout) {
            let what = statement.split_whitespace().take(2).collect::<Vec<_>>().join(" ").to_lowercase();
            let step = PlanStep { place: "warehouse".into(), table: Some(name.clone()), what, text: statement };
            report.steps.push(step);
        }
    }
    Ok(report)
}

/// The contract that the table would have: the log's, else the file's.
fn contract(loaded: &Loaded, name: &str, learned: Option<&Arc<Contract>>) -> Result<Option<Arc<Contract>>> {
    if let Some(learned) = learned {
        return Ok(Some(Arc::clone(learned)));
    }
    let Some(file) = loaded.contracts.get(name) else { return Ok(None) };
    let key = loaded.topology.tables.get(name).and_then(|table| table.key.clone()).unwrap_or_else(|| file.key.clone());
    let input = TableSchema { columns: file.columns.clone(), key };
    let chains = pipeline::build::chains(&loaded.topology)?;
    let output = pipeline::output_schema(&chains, name, &input)?;
    Ok(Some(Arc::new(Contract { table: name.to_owned(), version: 1, input, output })))
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
