//! `dataflow status`: what the log and the warehouse say, per table, and the proof that nothing disappeared.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use super::table_text::{Cell, Paint, age, columns, number};
use super::{Output, TopologyArgs};
use crate::config::Loaded;
use crate::epoch::{LoadAccount, TableAccount};
use crate::error::Result;
use crate::lake::{Access, Lake, Log};
use crate::telemetry::TableState;
use crate::{pipeline, warehouse};

/// Arguments of `status`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  dataflow status topologies/shop.yaml
  dataflow status topologies/shop.yaml --json | jq '.tables[] | select(.rejects_open > 0)'")]
pub struct StatusArgs {
    #[command(flatten)]
    pub topology: TopologyArgs,
    /// As JSON
    #[arg(long)]
    pub json: bool,
}

/// How everything stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct StatusReport {
    /// The topology's name.
    pub name: String,
    /// The log's UUID; empty when there is no log yet.
    pub log: String,
    /// The newest epoch in the log.
    pub epoch: u64,
    /// Tables.
    pub tables: Vec<TableReport>,
    /// What became of everything.
    pub account: AccountReport,
}

/// How a table stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct TableReport {
    /// Its name.
    pub table: String,
    /// Its group.
    pub group: String,
    /// How it is doing.
    pub state: TableState,
    /// Why it does not run.
    pub why: Option<String>,
    /// Changes that the warehouse has taken since the log began.
    pub changes: Option<u64>,
    /// The newest epoch in the log with changes of it.
    pub epoch_log: u64,
    /// The epoch that its group's ledger stands at.
    pub epoch_warehouse: u64,
    /// Now minus the newest commit time at the source that the warehouse shows, seconds.
    pub freshness_s: Option<f64>,
    /// Rows in the lake that are not yet in the warehouse.
    pub lag: u64,
    /// Refused and neither retried nor given up.
    pub rejects_open: u64,
}

/// What became of everything since the log began.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct AccountReport {
    /// From the sources to the decoder.
    pub sources: BTreeMap<String, crate::batch::RecordAccount>,
    /// From the decoder to the lake, by table.
    pub tables: BTreeMap<String, TableAccount>,
    /// From the lake to the warehouse, by table.
    pub loads: BTreeMap<String, LoadAccount>,
    /// The first sum that does not hold, in words; `None` = balanced.
    pub imbalance: Option<String>,
}

impl StatusReport {
    /// For a person.
    pub fn text(&self, paint: Paint) -> String {
        let log = if self.log.is_empty() { "no log yet".to_owned() } else { format!("log {}", self.log) };
        let mut out = format!("{}  {}\n\n", paint.bold(&self.name), paint.dim(&format!("{log}, epoch {}", self.epoch)));
        let headings =
            ["table", "group", "state", ">changes", ">freshness", ">log", ">warehouse", ">lag", ">rejects", "why"];
        let rows: Vec<Vec<Cell>> = self.tables.iter().map(TableReport::row).collect();
        out.push_str(&columns(paint, &headings, &rows));
        out.push_str(&self.account.text(paint));
        out
    }
}

impl TableReport {
    fn row(&self) -> Vec<Cell> {
        let state = match self.state {
            TableState::Running => Cell::painted("running", Paint::green),
            TableState::Waiting => Cell::painted("waiting", Paint::dim),
            stopped => Cell::painted(stopped.word(), Paint::red),
        };
        let rejects = number(self.rejects_open);
        vec![
            self.table.as_str().into(),
            self.group.as_str().into(),
            state,
            self.changes.map_or("-".into(), number).into(),
            self.freshness_s.map_or("-".into(), age).into(),
            self.epoch_log.to_string().into(),
            self.epoch_warehouse.to_string().into(),
            number(self.lag).into(),
            if self.rejects_open > 0 { Cell::painted(rejects, Paint::yellow) } else { rejects.into() },
            self.why.clone().unwrap_or_default().into(),
        ]
    }
}

/// One table's sum: `decoded = applied + superseded + filtered + quarantined + waiting`.
struct Sum {
    decoded: u64,
    applied: u64,
    superseded: u64,
    filtered: u64,
    quarantined: u64,
    waiting: u64,
}

impl Sum {
    fn of(lake: &TableAccount, load: &LoadAccount) -> Self {
        Self {
            decoded: lake.decoded,
            applied: load.applied,
            superseded: load.superseded,
            filtered: lake.filtered.values().sum(),
            quarantined: lake.rejected.values().sum::<u64>() + load.incomplete,
            waiting: lake.written.saturating_sub(load.loaded),
        }
    }

    fn holds(&self) -> bool {
        self.decoded == self.applied + self.superseded + self.filtered + self.quarantined + self.waiting
    }
}

impl AccountReport {
    /// The first sum that does not hold, in words.
    pub fn find_imbalance(&self) -> Option<String> {
        let source = self.sources.iter().find(|(_, account)| !account.balances());
        let source = source.map(|(name, account)| format!("source {name}: {account:?}"));
        source.or_else(|| {
            let tables = self.tables.iter().map(|(name, lake)| (name, self.sum(name, lake)));
            tables.into_iter().find(|(_, sum)| !sum.holds()).map(|(name, sum)| {
                let after = sum.applied + sum.superseded + sum.filtered + sum.quarantined + sum.waiting;
                format!("table {name}: {} rows were decoded, {after} are accounted for", sum.decoded)
            })
        })
    }

    fn sum(&self, table: &str, lake: &TableAccount) -> Sum {
        Sum::of(lake, &self.loads.get(table).copied().unwrap_or_default())
    }

    fn text(&self, paint: Paint) -> String {
        let mut out = String::new();
        if !self.sources.is_empty() {
            let headings =
                ["source", ">read", "", ">rows", ">merged", ">control", ">redelivered", ">rejected", ">unrouted"];
            let rows: Vec<Vec<Cell>> = self
                .sources
                .iter()
                .map(|(name, a)| {
                    let mut row: Vec<Cell> = vec![name.as_str().into(), number(a.read).into(), "=".into()];
                    row.extend(
                        [a.rows, a.merged, a.control, a.redelivered, a.rejected, a.unrouted]
                            .map(|n| Cell::from(number(n))),
                    );
                    row
                })
                .collect();
            out.push_str(&format!("\n{}", columns(paint, &headings, &rows)));
        }
        if !self.tables.is_empty() {
            let headings =
                ["table", ">decoded", "", ">applied", ">superseded", ">filtered", ">quarantined", ">waiting"];
            let rows: Vec<Vec<Cell>> = self
                .tables
                .iter()
                .map(|(name, lake)| {
                    let sum = self.sum(name, lake);
                    let sign =
                        if sum.holds() { Cell::painted("=", Paint::green) } else { Cell::painted("≠", Paint::red) };
                    let mut row: Vec<Cell> = vec![name.as_str().into(), number(sum.decoded).into(), sign];
                    row.extend(
                        [sum.applied, sum.superseded, sum.filtered, sum.quarantined, sum.waiting]
                            .map(|n| Cell::from(number(n))),
                    );
                    row
                })
                .collect();
            out.push_str(&format!("\n{}", columns(paint, &headings, &rows)));
        }
        out.push_str(&match &self.imbalance {
            None => format!("\naccount: {}\n", paint.green("balanced; nothing disappeared unsaid")),
            Some(why) => format!("\naccount: {}\n", paint.red(&format!("NOT balanced: {why}"))),
        });
        out
    }
}

/// Shows how everything stands.
pub async fn run(args: StatusArgs, output: Output) -> Result<()> {
    let loaded = args.topology.load()?;
    let report = gather(&loaded).await?;
    if args.json { output.print_json(&report) } else { output.print(&report.text(Paint::new(output.terminal))) }
}

/// Reads the log and the warehouse's ledger.
async fn gather(loaded: &Loaded) -> Result<StatusReport> {
    let topology = &loaded.topology;
    let mut report = StatusReport { name: topology.name.clone(), ..StatusReport::default() };
    let lake = Lake::open(&topology.lake)?;
    let log = Log::open(lake, &topology.name, Access::Read).await?;
    let state = log.state();
    let warehouse = warehouse::open(&topology.warehouse, &topology.name).await?;
    let fresh = warehouse.freshness().await?;
    report.log = state.log.to_string();
    report.epoch = state.n;
    report.account.sources = state.account.records.clone();
    report.account.tables = state.account.tables.clone();
    report.account.loads = fresh.iter().map(|f| (f.table.clone(), f.account)).collect();
    for (group, tables) in pipeline::build::groups(topology) {
        let ledger = warehouse.applied(&group).await?;
        for table in tables {
            let stopped = state.stopped.get(&table);
            let totals = state.tables.get(&table);
            let fresh = fresh.iter().find(|f| f.table == table);
            let through = ledger.as_ref().map_or(0, |l| l.held.get(&table).copied().unwrap_or(l.through));
            let newest = fresh.and_then(|f| f.max_source_time_us);
            let written = state.account.tables.get(&table).map_or(0, |a| a.written);
            report.tables.push(TableReport {
                group: group.clone(),
                state: match (stopped, totals) {
                    (Some(stopped), _) if stopped.parked => TableState::Parked,
                    (Some(_), _) => TableState::Paused,
                    (None, Some(_)) => TableState::Running,
                    (None, None) => TableState::Waiting,
                },
                why: stopped.map(|stopped| stopped.why.clone()),
                changes: fresh.map(|f| f.rows),
                epoch_log: totals.map_or(0, |totals| totals.epoch),
                epoch_warehouse: through,
                freshness_s: newest.map(|us| (chrono::Utc::now().timestamp_micros() - us) as f64 / 1e6),
                lag: written.saturating_sub(fresh.map_or(0, |f| f.account.loaded)),
                rejects_open: state.open_quarantine.get(&table).copied().unwrap_or(0),
                table,
            });
        }
    }
    report.tables.sort_by(|a, b| a.table.cmp(&b.table));
    report.account.imbalance = report.account.find_imbalance();
    Ok(report)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report() -> StatusReport {
        let lake = TableAccount {
            decoded: 1000,
            written: 985,
            filtered: BTreeMap::from([("tests".into(), 5)]),
            rejected: BTreeMap::from([("positive".into(), 10)]),
            replaced: 0,
        };
        let load = LoadAccount { loaded: 980, applied: 900, superseded: 79, incomplete: 1 };
        let records = crate::batch::RecordAccount { read: 1002, rows: 1000, control: 2, ..Default::default() };
        let table = TableReport {
            table: "orders".into(),
            group: "sales".into(),
            state: TableState::Parked,
            why: Some("column `amount` became text".into()),
            changes: Some(1234),
            epoch_log: 7,
            epoch_warehouse: 6,
            freshness_s: Some(75.0),
            lag: 5,
            rejects_open: 11,
        };
        StatusReport {
            name: "shop".into(),
            log: "0f".into(),
            epoch: 7,
            tables: vec![table],
            account: AccountReport {
                sources: BTreeMap::from([("files".into(), records)]),
                tables: BTreeMap::from([("orders".into(), lake)]),
                loads: BTreeMap::from([("orders".into(), load)]),
                imbalance: None,
            },
        }
    }

    #[test]
    fn the_text_is_aligned_and_proves_the_sum() {
        let expected = "\
shop  log 0f, epoch 7

table   group  state   changes  freshness  log  warehouse  lag  rejects  why
orders  sales  parked    1 234   1 m 15 s    7          6    5       11  column `amount` became text

source   read      rows  merged  control  redelivered  rejected  unrouted
files   1 002  =  1 000       0        2            0         0         0

table   decoded     applied  superseded  filtered  quarantined  waiting
orders    1 000  =      900          79         5           11        5

account: balanced; nothing disappeared unsaid
";
        assert_eq!(report().text(Paint::plain()), expected);
    }

    #[test]
    fn a_lost_row_is_said() {
        let mut report = report();
        assert_eq!(report.account.find_imbalance(), None);
        if let Some(load) = report.account.loads.get_mut("orders") {
            load.applied -= 1;
        }
        let why = report.account.find_imbalance();
        assert_eq!(why.as_deref(), Some("table orders: 1000 rows were decoded, 999 are accounted for"));
        report.account.imbalance = why;
        assert!(report.text(Paint::plain()).contains("≠"));
        assert!(report.text(Paint::plain()).contains("NOT balanced"));
    }
}
