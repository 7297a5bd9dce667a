//! How often a statement may be ended by a limit (the time that its queue lets it wait or run, a rule of workload
//! management, `statement_timeout` of the user or of the topology), and how often by a failure inside Redshift that says
//! nothing of what is wrong.
//!
//! Such a limit passes when the cluster is less busy, so it is tried again, by the loader with ever smaller units. What a
//! limit ends each time is for a person: the table is parked. Statements of no table (the lock, the ledger, COMMIT) are small
//! whatever is loaded: when even those are ended, nothing can be loaded, and the process says so and stops, but later.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::failure::{counted, is_doubtful};
use crate::error::{Error, ErrorKind, Result};

/// How often in a row a statement about a table is ended before the table is parked.
const OF_A_TABLE: u32 = 6;
/// The same for what is about no table, before the process stops.
const OF_NO_TABLE: u32 = 24;

/// How often in a row a statement about a table fails for no reason that Redshift gives, before the table is parked.
const DOUBTS_OF_A_TABLE: u32 = 4;
/// The same for what is about no table, before the process stops.
const DOUBTS_OF_NO_TABLE: u32 = 24;

/// What a person can do about a limit.
const HELP: &str = "stl_wlm_rule_action, stl_query and sys_query_history say what ended it. Give the loader a queue with room (`warehouse.query_group` \
     names it; raise the queue's time-out and its query monitoring rules), raise the user's limit (ALTER USER … SET \
     statement_timeout TO …) or `warehouse.statement_timeout`, or let one load take less: `limits.unit_bytes`";

/// What a person can do when Redshift fails inside.
const INSIDE: &str = "look at the cluster's health and events (a node that is replaced, a full disk, maintenance) and start again; if it \
     goes on, open a case at AWS with this message";

/// Counts, by what is being done.
#[derive(Debug, Default)]
pub(super) struct Patience(Mutex<BTreeMap<String, Times>>);

/// How often in a row, by table and what ended it.
type Times = BTreeMap<(Option<String>, Ended), u32>;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Ended {
    ByLimit,
    Inside,
}

impl Ended {
    /// What ended a statement, and the table that it is about; `None`: something that is not counted.
    fn by(error: &Error) -> Option<(Option<String>, Self)> {
        match error.kind() {
            ErrorKind::WarehouseLimit(table) => Some((table.clone(), Self::ByLimit)),
            ErrorKind::Table(table) if is_doubtful(error) => Some((Some(table.clone()), Self::Inside)),
            _ if is_doubtful(error) => Some((None, Self::Inside)),
            _ => None,
        }
    }

    fn most(self, of_a_table: bool) -> u32 {
        match (self, of_a_table) {
            (Self::ByLimit, true) => OF_A_TABLE,
            (Self::ByLimit, false) => OF_NO_TABLE,
            (Self::Inside, true) => DOUBTS_OF_A_TABLE,
            (Self::Inside, false) => DOUBTS_OF_NO_TABLE,
        }
    }
}

impl Patience {
    /// Counts what was ended, and forgets what is done; after the last time in a row the error is for a person.
    pub fn judge<T>(&self, doing: &str, done: Result<T>) -> Result<T> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let error = match done {
            Err(error) => error,
            Ok(done) => {
                counts.remove(doing);
                return Ok(done);
            }
        };
        let Some((table, ended)) = Ended::by(&error) else { return Err(error) };
        let most = ended.most(table.is_some());
        let times = counts.entry(doing.to_owned()).or_default().entry((table.clone(), ended)).or_default();
        *times += 1;
        if *times < most {
            return Err(match ended {
                Ended::ByLimit => error,
                Ended::Inside => inside(error, &format!(", attempt {times} of {most}")),
            });
        }
        // Whoever resumes it gets all attempts again.
        counts.remove(doing);
        let (what, help) = match ended {
            Ended::ByLimit => (format!("a limit ended it {most} times in a row"), HELP),
            Ended::Inside => (format!("Redshift failed inside {most} times in a row"), INSIDE),
        };
        Err(match table {
            Some(table) => {
                Error::new(ErrorKind::Table(table), what).help(format!("{help}; then `dataflow table resume`"))
            }
            None => Error::new(ErrorKind::WarehouseRefused, what).help(help),
        }
        .because(error.to_string()))
    }
}

/// A failure that passes, for no reason that Redshift gives.
fn inside(error: Error, attempt: &str) -> Error {
    counted("internal");
    let what = format!("Redshift failed inside{attempt}");
    Error::new(ErrorKind::WarehouseUnavailable, what).because(error.to_string())
}

/// Where nothing can be counted, because nothing is open yet: what Redshift does not explain is tried again like a cluster
/// that is away.
pub(super) fn at_start(error: Error) -> Error {
    if is_doubtful(&error) { inside(error, "") } else { error }
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

    #[test]
    fn what_is_not_explained_has_a_few_attempts() {
        let patience = Patience::default();
        let failed = |kind: ErrorKind| Err::<(), _>(Error::new(kind, "a statement failed").because("internal (XX000)"));
        let judge = |kind: ErrorKind| patience.judge("g", failed(kind)).expect_err("failed").kind().clone();
        let orders = ErrorKind::Table("orders".into());
        for _ in 1..DOUBTS_OF_A_TABLE {
            assert_eq!(judge(orders.clone()), ErrorKind::WarehouseUnavailable);
        }
        assert_eq!(judge(orders.clone()), orders);
        for _ in 1..DOUBTS_OF_NO_TABLE {
            assert_eq!(judge(ErrorKind::Internal), ErrorKind::WarehouseUnavailable);
        }
        assert_eq!(judge(ErrorKind::Internal), ErrorKind::WarehouseRefused);
        let other = patience.judge("g", Err::<(), _>(Error::new(ErrorKind::Internal, "a bug of ours")));
        assert_eq!(other.expect_err("failed").kind(), &ErrorKind::Internal);
    }
}
