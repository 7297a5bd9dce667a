//! How often a statement may be ended by a limit: the time that its queue lets it wait or run, a rule of workload
//! management, `statement_timeout` of the user or of the topology.
//!
//! Such a limit passes when the cluster is less busy, so it is tried again, by the loader with ever smaller units. What a
//! limit ends each time is for a person: the table is parked. Statements of no table (the lock, the ledger, COMMIT) are small
//! whatever is loaded: when even those are ended, nothing can be loaded, and the process says so and stops, but later.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::error::{Error, ErrorKind, Result};

/// How often in a row a statement about a table is ended before the table is parked.
const OF_A_TABLE: u32 = 6;
/// The same for what is about no table, before the process stops.
const OF_NO_TABLE: u32 = 24;

/// What a person can do.
const HELP: &str = "stl_wlm_rule_action, stl_query and sys_query_history say what ended it. Give the loader a queue with room (`warehouse.query_group` \
     names it; raise the queue's time-out and its query monitoring rules), raise the user's limit (ALTER USER … SET \
     statement_timeout TO …) or `warehouse.statement_timeout`, or let one load take less: `limits.unit_bytes`";

/// Counts, by what is being done and by table.
#[derive(Debug, Default)]
pub(super) struct Patience(Mutex<BTreeMap<String, BTreeMap<Option<String>, u32>>>);

impl Patience {
    /// Counts what a limit has ended, and forgets what is done; after the last time in a row the error is for a person.
    pub fn judge<T>(&self, doing: &str, done: Result<T>) -> Result<T> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let error = match done {
            Err(error) => error,
            Ok(done) => {
                counts.remove(doing);
                return Ok(done);
            }
        };
        let ErrorKind::WarehouseLimit(table) = error.kind() else { return Err(error) };
        let (table, most) = (table.clone(), if table.is_some() { OF_A_TABLE } else { OF_NO_TABLE });
        let times = counts.entry(doing.to_owned()).or_default().entry(table.clone()).or_default();
        *times += 1;
        if *times < most {
            return Err(error);
        }
        // Whoever resumes it gets all attempts again.
        counts.remove(doing);
        let what = format!("a limit ended it {most} times in a row");
        Err(match table {
            Some(table) => {
                Error::new(ErrorKind::Table(table), what).help(format!("{HELP}; then `dataflow table resume`"))
            }
            None => Error::new(ErrorKind::WarehouseRefused, what).help(HELP),
        }
        .because(error.to_string()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(table: Option<&str>) -> Result<()> {
        Err(Error::new(ErrorKind::WarehouseLimit(table.map(str::to_owned)), "cancelled"))
    }

    #[test]
    fn only_what_a_limit_ends_each_time_is_given_up() {
        let patience = Patience::default();
        let judge = |done| patience.judge("g", done).map_err(|error| error.kind().clone());
        let orders = Some("orders");
        for _ in 1..OF_A_TABLE {
            assert_eq!(judge(ended(orders)), Err(ErrorKind::WarehouseLimit(orders.map(str::to_owned))));
        }
        assert_eq!(judge(Ok(())), Ok(()));
        for _ in 1..OF_A_TABLE {
            assert_eq!(judge(ended(orders)), Err(ErrorKind::WarehouseLimit(orders.map(str::to_owned))));
            let away = Err(Error::new(ErrorKind::WarehouseUnavailable, "away"));
            assert_eq!(judge(away), Err(ErrorKind::WarehouseUnavailable), "it never counts");
        }
        assert_eq!(judge(ended(orders)), Err(ErrorKind::Table("orders".into())));
        assert_eq!(judge(ended(orders)), Err(ErrorKind::WarehouseLimit(orders.map(str::to_owned))));
    }

    #[test]
    fn what_is_of_no_table_stops_the_process_at_last() {
        let patience = Patience::default();
        for _ in 1..OF_NO_TABLE {
            assert!(patience.judge("g", ended(None)).is_err_and(|e| e.kind() == &ErrorKind::WarehouseLimit(None)));
        }
        let error = patience.judge("g", ended(None)).expect_err("given up");
        assert_eq!(error.kind(), &ErrorKind::WarehouseRefused);
        assert!(error.to_string().contains("query_group"), "{error}");
    }
}
