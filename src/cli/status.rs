//! `dataflow status`: what the log and the warehouse say, per table, and the proof that nothing disappeared.

use std::collections::BTreeMap;

use clap::Args;
use futures::future::join_all;
use serde::Serialize;

use super::live::reading_cell;
use super::table_text::{Cell, Paint, age, columns, number, visible};
use super::{Output, TopologyArgs};
use crate::config::{Loaded, Topology};
use crate::epoch::{Applied, LoadAccount, TableAccount};
use crate::error::{Error, Result};
use crate::lake::{Access, Lake, Log, LogState};
use crate::pipeline;
use crate::pipeline::readings::Streams;
use crate::source::probe::slot_of;
use crate::telemetry::{SlotStatus, TableReading, TableState};
use crate::warehouse::{self, Freshness, LiveRows};

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
    /// Where its lake is.
    pub lake: String,
    /// The log's UUID; empty when there is no log yet.
    pub log: String,
    /// The newest epoch in the log.
    pub epoch: u64,
    /// Why the warehouse could not be asked; what it would say is then missing.
    pub warehouse_error: Option<String>,
    /// The replication slots of sources that read one.
    pub slots: Vec<SlotReport>,
    /// Tables.
    pub tables: Vec<TableReport>,
    /// Refused records whose table is not known, neither retried nor given up.
    pub undecoded_open: u64,
    /// What became of everything.
    pub account: AccountReport,
}

/// How a replication slot stands, as its server says.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct SlotReport {
    /// The source.
    pub source: String,
    /// The slot; `None` where there is none, or the server could not be asked.
    pub slot: Option<SlotStatus>,
    /// Why the server could not be asked.
    pub error: Option<String>,
}

impl SlotReport {
    fn text(&self, paint: Paint) -> String {
        let source = paint.bold(&format!("source {}", self.source));
        match (&self.slot, &self.error) {
            (_, Some(error)) => format!("{} {source}: {}", paint.red("!"), why_text(error)),
            (None, None) => format!("{source}: there is no slot yet"),
            (Some(slot), None) => {
                let mib = |bytes: u64| format!("{} MiB", number(bytes >> 20));
                let kept = slot.retained_bytes.map_or("?".into(), mib);
                let room = slot.safe_bytes.map_or("no limit".into(), |safe| mib(safe.max(0).unsigned_abs()) + " left");
                let line = format!("{source}: slot {}, {}, keeps {kept} of log ({room})", slot.name, slot.wal_status);
                match &slot.alert {
                    Some(why) => format!("{} {line}: {why}", paint.red("!")),
                    None => line,
                }
            }
        }
    }
}

/// Asks every source that reads a slot for it, all at the same time.
async fn slots(topology: &Topology) -> Vec<SlotReport> {
    let asked = topology.sources.iter().map(|(name, source)| async move {
        let report = SlotReport { source: name.clone(), ..SlotReport::default() };
        match slot_of(name, source, &topology.name).await? {
            Ok(slot) => Some(SlotReport { slot, ..report }),
            Err(error) => Some(SlotReport { error: Some(error.to_string()), ..report }),
        }
    });
    join_all(asked).await.into_iter().flatten().collect()
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
    /// Why it should be read again: rows have got values without any event.
    pub needs_resync: Option<String>,
    /// How far its rows have been read beside its changes; `None` when they are not being read.
    pub reading: Option<TableReading>,
    /// Rows that the warehouse shows now; `None` where it has no such table, or could not be asked.
    pub rows: Option<u64>,
    /// The planner's guess: counting them takes too long.
    pub rows_estimated: bool,
    /// Changes that the warehouse has taken since the log began.
    pub changes: Option<u64>,
    /// The newest epoch in the log with changes of it.
    pub epoch_log: u64,
    /// The epoch that its group's ledger stands at.
    pub epoch_warehouse: u64,
    /// Now minus the newest commit time at the source that the warehouse shows, seconds.
    pub freshness_s: Option<f64>,
    /// How old its changes may be when the warehouse shows them, seconds; `None`: they do not wait.
    pub fresh_within_s: Option<f64>,
    /// Rows in the lake that are not yet in the warehouse.
    pub lag: u64,
    /// Refused and neither retried nor given up.
    pub rejects_open: u64,
    /// Refused, and still open when the retention was over.
    pub rejects_expired: u64,
    /// Partial rows that the warehouse holds back because they found no base.
    pub incomplete_open: u64,
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
    /// Of what is quarantined: still open when the retention was over, by table (`""` where it is not known).
    pub expired: BTreeMap<String, u64>,
    /// The first sum that does not hold, in words; `None` = balanced.
    pub imbalance: Option<String>,
}

impl StatusReport {
    /// For a person.
    pub fn text(&self, paint: Paint) -> String {
        let log = match self.log.as_str() {
            "" => format!("no log in {} yet: `dataflow run` makes it", self.lake),
            log => format!("log {log}, epoch {}", self.epoch),
        };
        let mut out = format!("{}  {}\n\n", paint.bold(&self.name), paint.dim(&log));
        let rows: Vec<Vec<Cell>> = self.tables.iter().map(TableReport::row).collect();
        out.push_str(&columns(paint, &HEADINGS, &rows));
        for (table, why) in self.tables.iter().filter_map(|t| Some((&t.table, t.why.as_deref()?))) {
            out.push_str(&format!("\n{} {}: {}\n", paint.red("!"), paint.bold(table), why_text(why)));
        }
        for (table, why) in self.tables.iter().filter_map(|t| Some((&t.table, t.needs_resync.as_deref()?))) {
            let help = format!("`dataflow table resync TOPOLOGY {table}` reads it again");
            out.push_str(&format!("\n{} {}: needs a resync: {why}; {help}\n", paint.yellow("!"), paint.bold(table)));
        }
        for table in self.tables.iter().filter(|t| t.lag > 0 && !t.state.is_stopped()) {
            let Some(seconds) = table.fresh_within_s else { continue };
            let may = format!("{} rows may wait in the lake: fresh_within is {}", number(table.lag), age(seconds));
            out.push_str(&format!("\n{}: {}\n", paint.bold(&table.table), paint.dim(&may)));
        }
        for slot in &self.slots {
            out.push_str(&format!("\n{}\n", slot.text(paint)));
        }
        if let Some(why) = &self.warehouse_error {
            out.push_str(&format!("\n{} {}: {why}\n", paint.red("!"), paint.bold("warehouse")));
        }
        out.push_str(&self.refused_text(paint));
        if !self.log.is_empty() {
            out.push_str(&self.account.text(paint, self.warehouse_error.is_some()));
        }
        out
    }

    /// What waits in quarantine, and what is there to do.
    fn refused_text(&self, paint: Paint) -> String {
        let sum = |of: fn(&TableReport) -> u64| self.tables.iter().map(of).sum::<u64>();
        let open = sum(|t| t.rejects_open) + self.undecoded_open;
        let (held_back, expired) = (sum(|t| t.incomplete_open), self.account.expired.values().sum::<u64>());
        let mut parts = Vec::new();
        if open > 0 {
            let undecoded = match self.undecoded_open {
                0 => String::new(),
                n => format!(" ({} of no known table)", number(n)),
            };
            parts.push(paint.yellow(&format!("{} open{undecoded}", number(open))));
        }
        if held_back > 0 {
            parts.push(paint.red(&format!("{} partial rows without a base", number(held_back))));
        }
        if expired > 0 {
            parts.push(paint.yellow(&format!("{} expired without having been loaded", number(expired))));
        }
        if parts.is_empty() {
            return String::new();
        }
        let hint = if open + held_back > 0 { "; `dataflow quarantine list` shows them" } else { "" };
        format!("\nquarantine: {}{hint}\n", parts.join(", "))
    }
}

const HEADINGS: [&str; 11] = [
    "table",
    "group",
    "state",
    ">rows",
    ">changes",
    ">freshness",
    ">log",
    ">warehouse",
    ">lag",
    ">rejects",
    ">incomplete",
];

/// Several lines below each other.
fn why_text(why: &str) -> String {
    why.lines().map(visible).collect::<Vec<_>>().join("\n  ")
}

impl TableReport {
    fn row(&self) -> Vec<Cell> {
        let state = match self.state {
            TableState::Running | TableState::Waiting if self.reading.is_some() => reading_cell(self.reading),
            TableState::Running => Cell::painted("running", Paint::green),
            TableState::Waiting => Cell::painted("waiting", Paint::dim),
            stopped => Cell::painted(stopped.word(), Paint::red),
        };
        let counted = |n: u64, colour| if n > 0 { Cell::painted(number(n), colour) } else { number(n).into() };
        let guess = if self.rows_estimated { "~" } else { "" };
        vec![
            self.table.as_str().into(),
            self.group.as_str().into(),
            state,
            self.rows.map_or("-".into(), |rows| format!("{guess}{}", number(rows))).into(),
            self.changes.map_or("-".into(), number).into(),
            self.freshness_s.map_or("-".into(), age).into(),
            self.epoch_log.to_string().into(),
            self.epoch_warehouse.to_string().into(),
            number(self.lag).into(),
            counted(self.rejects_open, Paint::yellow),
            counted(self.incomplete_open, Paint::red),
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

    fn text(&self, paint: Paint, half: bool) -> String {
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
            _ if half => format!("\naccount: {}\n", paint.yellow("not complete without what the warehouse says")),
            None => format!("\naccount: {}\n", paint.green("balanced; nothing disappeared unsaid")),
            Some(why) => format!("\naccount: {}\n", paint.red(&format!("NOT balanced: {why}"))),
        });
        out
    }
}

/// Shows how everything stands. What the log says is shown although the warehouse cannot be asked; that it cannot is then
/// a failure.
pub async fn run(args: StatusArgs, output: Output) -> Result<()> {
    let loaded = args.topology.load()?;
    let (report, failed) = gather(&loaded).await?;
    if args.json {
        output.print_json(&report)?;
    } else {
        output.print(&report.text(Paint::new(output.terminal)))?;
    }
    failed.map_or(Ok(()), |error| Err(error.doing("ask the warehouse (what the log says is above)")))
}

/// What the warehouse says.
#[derive(Default)]
struct Said {
    fresh: Vec<Freshness>,
    ledgers: BTreeMap<String, Applied>,
    rows: BTreeMap<String, LiveRows>,
    incomplete: BTreeMap<String, u64>,
}

/// Reads the log and the warehouse. Makes neither.
async fn gather(loaded: &Loaded) -> Result<(StatusReport, Option<Error>)> {
    let topology = &loaded.topology;
    let lake = Lake::open(&topology.lake)?;
    let mut report =
        StatusReport { name: topology.name.clone(), lake: lake.url().to_owned(), ..StatusReport::default() };
    // The warehouse first: it may then be behind the log that is read, never ahead of it.
    let (said, failed) = match ask(topology).await {
        Ok(said) => (said, None),
        Err(error) => (Said::default(), Some(error)),
    };
    let log = match lake.has_log().await? {
        true => Some(Log::open(lake, &topology.name, Access::Read).await?),
        false => None,
    };
    report.warehouse_error = failed.as_ref().map(Error::to_string);
    let state = log.map(|log| log.state());
    for (group, tables) in pipeline::build::groups(topology) {
        report.tables.extend(tables.into_iter().map(|table| table_report(&group, table, state.as_deref(), &said)));
    }
    let streams = Streams::of(topology);
    let readings = state.as_ref().map(|state| streams.readings(&state.progress)).unwrap_or_default();
    let mut needs = state.as_ref().map(|state| streams.needs(&state.progress)).unwrap_or_default();
    for table in &mut report.tables {
        table.reading = readings.get(&table.table).copied();
        table.needs_resync = needs.remove(&table.table);
        table.fresh_within_s = topology.fresh_within(&table.table).map(|span| span.0.as_secs_f64());
    }
    report.slots = slots(topology).await;
    report.tables.sort_by(|a, b| a.table.cmp(&b.table));
    if let Some(state) = state {
        report.log = state.log.to_string();
        report.epoch = state.n;
        report.undecoded_open = state.open_quarantine.get("").copied().unwrap_or(0);
        report.account.sources = state.account.records.clone();
        report.account.tables = state.account.tables.clone();
        report.account.expired = state.expired_quarantine.clone();
        report.account.loads = said.fresh.iter().map(|f| (f.table.clone(), f.account)).collect();
        report.account.imbalance = report.account.find_imbalance();
    }
    Ok((report, failed))
}

async fn ask(topology: &Topology) -> Result<Said> {
    let Some(warehouse) = warehouse::find(&topology.warehouse, &topology.name).await? else {
        return Ok(Said::default());
    };
    let mut said = Said {
        fresh: warehouse.freshness().await?,
        incomplete: warehouse.count_incompletes().await?,
        ..Said::default()
    };
    for (group, tables) in pipeline::build::groups(topology) {
        if let Some(ledger) = warehouse.applied(&group).await? {
            said.ledgers.insert(group, ledger);
        }
        for table in tables {
            let mode = topology.tables.get(&table).map(|t| t.deletes).unwrap_or_default();
            if let Some(rows) = warehouse.live_rows(&table, mode).await? {
                said.rows.insert(table, rows);
            }
        }
    }
    Ok(said)
}

fn table_report(group: &str, table: String, state: Option<&LogState>, said: &Said) -> TableReport {
    let stopped = state.and_then(|state| state.stopped.get(&table));
    let totals = state.and_then(|state| state.tables.get(&table));
    let fresh = said.fresh.iter().find(|f| f.table == table);
    let through = said.ledgers.get(group).map_or(0, |l| l.held.get(&table).copied().unwrap_or(l.through));
    let newest = fresh.and_then(|f| f.max_source_time_us);
    let written = state.and_then(|state| state.account.tables.get(&table)).map_or(0, |a| a.written);
    let rows = said.rows.get(&table);
    let count = |of: Option<&BTreeMap<String, u64>>| of.and_then(|of| of.get(&table)).copied().unwrap_or(0);
    TableReport {
        group: group.to_owned(),
        state: match (stopped, totals) {
            (Some(stopped), _) if stopped.parked => TableState::Parked,
            (Some(_), _) => TableState::Paused,
            (None, Some(_)) => TableState::Running,
            (None, None) => TableState::Waiting,
        },
        why: stopped.map(|stopped| stopped.why.clone()),
        needs_resync: None,
        reading: None,
        rows: rows.map(|live| live.rows),
        rows_estimated: rows.is_some_and(|live| live.estimated),
        changes: fresh.map(|f| f.rows),
        epoch_log: totals.map_or(0, |totals| totals.epoch),
        epoch_warehouse: through,
        fresh_within_s: None,
        freshness_s: newest.map(|us| (chrono::Utc::now().timestamp_micros() - us) as f64 / 1e6),
        lag: written.saturating_sub(fresh.map_or(0, |f| f.account.loaded)),
        rejects_open: count(state.map(|state| &state.open_quarantine)),
        rejects_expired: count(state.map(|state| &state.expired_quarantine)),
        incomplete_open: count(Some(&said.incomplete)),
        table,
    }
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
            needs_resync: None,
            reading: None,
            rows: Some(890),
            rows_estimated: true,
            changes: Some(1234),
            epoch_log: 7,
            epoch_warehouse: 6,
            freshness_s: Some(75.0),
            fresh_within_s: Some(900.0),
            lag: 5,
            rejects_open: 11,
            rejects_expired: 2,
            incomplete_open: 1,
        };
        StatusReport {
            name: "shop".into(),
            lake: "./lake".into(),
            log: "0f".into(),
            epoch: 7,
            warehouse_error: None,
            slots: Vec::new(),
            tables: vec![table],
            undecoded_open: 3,
            account: AccountReport {
                sources: BTreeMap::from([("files".into(), records)]),
                tables: BTreeMap::from([("orders".into(), lake)]),
                loads: BTreeMap::from([("orders".into(), load)]),
                expired: BTreeMap::from([("orders".into(), 2)]),
                imbalance: None,
            },
        }
    }

    #[test]
    fn the_text_is_aligned_and_proves_the_sum() {
        let expected = "\
shop  log 0f, epoch 7

table   group  state   rows  changes  freshness  log  warehouse  lag  rejects  incomplete
orders  sales  parked  ~890    1 234   1 m 15 s    7          6    5       11           1

! orders: column `amount` became text

quarantine: 14 open (3 of no known table), 1 partial rows without a base, 2 expired without having been loaded; \
`dataflow quarantine list` shows them

source   read      rows  merged  control  redelivered  rejected  unrouted
files   1 002  =  1 000       0        2            0         0         0

table   decoded     applied  superseded  filtered  quarantined  waiting
orders    1 000  =      900          79         5           11        5

account: balanced; nothing disappeared unsaid
";
        assert_eq!(report().text(Paint::plain()), expected);
    }

    #[test]
    fn rows_that_may_wait_are_said_to() {
        let mut report = report();
        report.tables[0].state = TableState::Running;
        let text = report.text(Paint::plain());
        assert!(text.contains("\norders: 5 rows may wait in the lake: fresh_within is 15 m 00 s\n"), "{text}");
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

    #[test]
    fn without_a_log_or_a_warehouse_it_says_which() {
        let waiting = TableReport { table: "orders".into(), group: "sales".into(), ..TableReport::default() };
        let mut report = StatusReport { name: "shop".into(), lake: "./lake".into(), ..StatusReport::default() };
        report.tables = vec![waiting];
        let text = report.text(Paint::plain());
        assert!(text.starts_with("shop  no log in ./lake yet: `dataflow run` makes it\n"), "{text}");
        assert!(text.contains("orders  sales  waiting     -") && !text.contains("account"), "{text}");
        report.log = "0f".into();
        report.warehouse_error = Some("open: refused".into());
        let text = report.text(Paint::plain());
        assert!(text.contains("! warehouse: open: refused\n"), "{text}");
        assert!(text.contains("account: not complete without"), "{text}");
    }
}
