//! Rebuilds a warehouse from the log: the same manifests in the same order give the same rows.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::config::Loaded;
use crate::epoch::{EpochNumber, LoadAccount, LoadUnit};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::{Access, Lake, Log};
use crate::pipeline::backlog::Backlog;
use crate::pipeline::build;
use crate::pipeline::governor::Governor;
use crate::pipeline::load::{self, Loader};
use crate::pipeline::report::Report;
use crate::pipeline::staging::{open_to_load, staging};
use crate::telemetry::Status;
use crate::warehouse::Warehouse;

/// What a replay did.
#[derive(Debug, Clone, Copy, Default)]
pub struct Replayed {
    /// The last epoch loaded.
    pub through: EpochNumber,
    /// What became of the rows.
    pub account: LoadAccount,
}

/// Loads epochs `from` to the log's end into a warehouse whose ledger is empty. With `only`, one group alone.
pub async fn replay(loaded: &Loaded, from: EpochNumber, only: Option<&str>) -> Result<Replayed> {
    let mut topology = loaded.topology.clone();
    topology.warehouse.show_nothing();
    let topology = Arc::new(topology);
    let groups = build::groups(&topology);
    if let Some(only) = only.filter(|only| !groups.contains_key(*only)) {
        let known = groups.keys().map(String::as_str);
        let names = known.clone().collect::<Vec<_>>().join(", ");
        let near = crate::config::nearest(only, known);
        return Err(Error::new(ErrorKind::Config, format!("the topology has no group {only}"))
            .help(near.map_or(format!("groups are: {names}"), |near| format!("did you mean {near}?"))));
    }
    let lake = Lake::open(&topology.lake)?;
    let staging = staging(&lake);
    let log = Arc::new(Log::open(lake, &topology.name, Access::Write).await?);
    let warehouse = open_to_load(&topology, &staging, &log.state()).await?;
    let status = Arc::new(Status::new(&topology.name, u64::MAX));
    let report = Arc::new(Report::new(status, &topology));
    let (_head, told) = watch::channel(log.state().n);
    let stop = CancellationToken::new();
    stop.cancel();
    let mut replayed = Replayed::default();
    for (group, tables) in groups.into_iter().filter(|(group, _)| only.is_none_or(|only| only == group)) {
        begin_at(&*warehouse, &log, &group, from).await?;
        let loader = Loader {
            group: group.clone(),
            governor: Governor::new(&topology, &tables),
            backlog: Backlog::default(),
            halvings: 0,
            tables,
            topology: Arc::clone(&topology),
            log: Arc::clone(&log),
            warehouse: warehouse.clone(),
            head: told.clone(),
            report: Arc::clone(&report),
            known: None,
            ensured: BTreeMap::new(),
            memory: load::memory(&topology),
        };
        loader.run(stop.clone()).await?;
        if let Some(applied) = warehouse.applied(&group).await? {
            replayed.through = replayed.through.max(applied.through);
            applied.accounts.values().for_each(|account| replayed.account.add(account));
        }
    }
    staging.settle().await;
    Ok(replayed)
}

/// Puts an empty ledger to just before `from`; a ledger that has already loaded something is refused.
async fn begin_at(warehouse: &dyn Warehouse, log: &Log, group: &str, from: EpochNumber) -> Result<()> {
    if let Some(applied) = warehouse.applied(group).await? {
        return Err(Error::new(
            ErrorKind::Config,
            format!("replay group {group}: this warehouse has already loaded epoch {}", applied.through),
        )
        .help("replay into an empty warehouse: another schema or file, e.g. --set warehouse.schema=rebuilt"));
    }
    if from <= 1 {
        return Ok(());
    }
    let unit = LoadUnit {
        group: group.to_owned(),
        log: log.state().log,
        after: 0,
        through: from - 1,
        held: BTreeMap::new(),
        held_before: BTreeMap::new(),
        tables: Vec::new(),
    };
    warehouse.apply(&unit).await.map(drop)
}
