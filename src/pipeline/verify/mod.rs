//! The source's tables against the warehouse's, while both go on.
//!
//! | file | what it owns |
//! |---|---|
//! | `value.rs` | one text per value on both sides |
//! | `layout.rs` | which columns are compared, and what may be shown |
//! | `expected.rs` | what must stand in the warehouse |
//! | `digest.rs` | counts and sums of row hashes by ranges of keys: pure |
//! | `judge.rs` | what a difference is: pure |
//! | `history.rs` | what the log says of rows that never rest |
//! | `sides.rs` | reading both sides, and waiting until the warehouse has come to where the source was read |
//! | `excuse.rs` | differences that are known: quarantine, rows without a base |
//! | `compare.rs` | one table: digests, then rows, then turns |
//! | `report.rs` | what was found |
//!
//! A table whose digests agree is equal to the source as of the reading; nothing has to be waited for. Otherwise the keys
//! in the ranges that differ are read on both sides, and those that differ are read again, in turns, until they agree or
//! are known to differ (see `judge.rs`), by the log's own record of them if they do not come to rest (`history.rs`).

mod compare;
mod digest;
mod excuse;
mod expected;
mod history;
mod judge;
mod layout;
mod report;
mod sides;
mod value;

pub use report::{Difference, Kind, Outcome, TableReport, Values};

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::config::{Loaded, nearest};
use crate::error::{Error, ErrorKind, Result};
use crate::lake::{Access, Lake, Log};
use crate::pipeline::build;
use crate::source::Witness;
use crate::warehouse::{self, Inspect};

use compare::Comparison;
use excuse::Excuses;
use sides::Sides;

/// What is wanted.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// These tables; all when empty.
    pub tables: Vec<String>,
    /// How long the warehouse may take, each time, to come to where the source was read.
    pub timeout: Duration,
    /// Differing rows to show of each table.
    pub show: usize,
}

/// A table and the source that it reads from.
type Pair = (String, String);

/// Compares; `done` is told how many tables are done, and of how many.
///
/// # Errors
/// `Config` when a table cannot be compared at all (a stream, nothing has run yet). What goes wrong with one table stands
/// in its report.
pub async fn verify(loaded: &Loaded, wanted: &Wanted, mut done: impl FnMut(u64, u64)) -> Result<Vec<TableReport>> {
    let topology = &loaded.topology;
    let pairs = pairs(loaded, &wanted.tables)?;
    let mut witnesses: BTreeMap<&str, Box<dyn Witness>> = BTreeMap::new();
    for (_, source) in &pairs {
        if !witnesses.contains_key(source.as_str()) {
            witnesses.insert(source, build::witness(source, &topology.sources[source], &topology.name)?);
        }
    }
    let lake = Lake::open(&topology.lake)?;
    if !lake.has_log().await? {
        return Err(nothing_yet(&format!("there is no log in {}", lake.url())));
    }
    let log = Log::open(lake.clone(), &topology.name, Access::Read).await?;
    let Some(warehouse) = warehouse::find(&topology.warehouse, &topology.name).await? else {
        return Err(nothing_yet("the warehouse has never been loaded"));
    };
    let chains = Arc::new(build::chains(topology)?);
    let groups = build::groups(topology);
    let excuses = Excuses::gather(&lake, &log, &*warehouse).await?;
    let mut reports = Vec::with_capacity(pairs.len());
    for (table, source) in &pairs {
        done(reports.len() as u64, pairs.len() as u64);
        let Some(witness) = witnesses.get_mut(source.as_str()) else { continue };
        let group = groups.iter().find(|(_, tables)| tables.contains(table)).map(|(group, _)| group.clone());
        let sides = Sides {
            loaded,
            table,
            source,
            group: group.unwrap_or_default(),
            log: &log,
            warehouse: &*warehouse as &dyn Inspect,
            chains: &chains,
            witness: &mut **witness,
            timeout: wanted.timeout,
        };
        let mut comparison = Comparison::new(sides, &excuses, wanted.show);
        reports.push(match comparison.run().await {
            Ok(report) => report,
            Err(error) => comparison.report().not_compared(error.to_string()),
        });
    }
    done(pairs.len() as u64, pairs.len() as u64);
    Ok(reports)
}

fn nothing_yet(what: &str) -> Error {
    Error::new(ErrorKind::Config, format!("verify: {what}"))
        .help("`dataflow run` makes it; there is nothing to compare yet")
}

/// The tables that are meant, each with its source, which must have tables itself.
fn pairs(loaded: &Loaded, only: &[String]) -> Result<Vec<Pair>> {
    let topology = &loaded.topology;
    if let Some(unknown) = only.iter().find(|name| !topology.tables.contains_key(*name)) {
        let names = topology.tables.keys().map(String::as_str);
        let near = nearest(unknown, names.clone());
        return Err(Error::new(ErrorKind::Config, format!("{} has no table `{unknown}`", loaded.path.display())).help(
            near.map_or_else(
                || format!("tables are: {}", names.collect::<Vec<_>>().join(", ")),
                |near| format!("did you mean `{near}`?"),
            ),
        ));
    }
    let mut pairs = Vec::new();
    for source in topology.sources.keys() {
        let tables = build::routes(loaded, source).into_iter().map(|route| route.table);
        let meant = tables.filter(|table| only.is_empty() || only.contains(table));
        pairs.extend(meant.map(|table| (table, source.clone())));
    }
    pairs.sort();
    Ok(pairs)
}
