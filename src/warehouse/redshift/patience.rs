//! How often a statement may be ended by a limit (the time that its queue lets it wait or run, a rule of workload
//! management, `statement_timeout` of the user or of the topology), and how often by a failure inside Redshift that says
//! nothing of what is wrong.
//!
//! Such a limit passes when the cluster is less busy, so it is tried again, by the loader with ever smaller units. What a
//! limit ends each time is for a person: the table is parked. Statements of no table (the lock, the ledger, COMMIT) are small
//! whatever is loaded: when even those are ended, nothing can be loaded, and the process says so and stops, but later.
//!
//! A failure inside Redshift says nothing of the table whose turn it was. Most are over in minutes, and whatever comes next
//! meets the same. So its table is parked only when it goes on, or when others of its group go through meanwhile.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::failure::{counted, is_doubtful};
use crate::error::{Error, ErrorKind, Result};

/// How often in a row a statement about a table is ended before the table is parked.
const OF_A_TABLE: u32 = 6;
/// The same for what is about no table, before the process stops.
const OF_NO_TABLE: u32 = 24;

/// How often in a row a statement about a table fails for no reason that Redshift gives, before the table may be parked.
const DOUBTS_OF_A_TABLE: u32 = 4;
/// How long that has to go on, unless other tables go through.
const DOUBTED_FOR: Duration = Duration::from_secs(15 * 60);
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
#[derive(Debug)]
pub(super) struct Patience {
    counts: Mutex<BTreeMap<String, Times>>,
    doubted_for: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { counts: Mutex::default(), doubted_for: DOUBTED_FOR }
    }
}

/// How often in a row, by table and what ended it.
type Times = BTreeMap<(Option<String>, Ended), Row>;

/// So often in a row, and since when.
#[derive(Debug, Clone, Copy)]
struct Row {
    times: u32,
    since: Instant,
    /// Another table went through meanwhile.
    others_pass: bool,
}

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
    fn counts(&self) -> MutexGuard<'_, BTreeMap<String, Times>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All statements about a table went well, whatever becomes of the rest.
    pub fn passed(&self, doing: &str, table: &str) {
        let mut counts = self.counts();
        if let Some(rows) = counts.get_mut(doing) {
            rows.retain(|(of, _), _| of.as_deref() != Some(table));
            rows.values_mut().for_each(|row| row.others_pass = true);
        }
    }

    /// Counts what was ended, and forgets what is done; after the last time in a row the error is for a person.
    pub fn judge<T>(&self, doing: &str, done: Result<T>) -> Result<T> {
        let mut counts = self.counts();
        let error = match done {
            Err(error) => error,
            Ok(done) => {
                counts.remove(doing);
                return Ok(done);
            }
        };
        let Some((table, ended)) = Ended::by(&error) else { return Err(error) };
        let most = ended.most(table.is_some());
        let begun = Row { times: 0, since: Instant::now(), others_pass: false };
        let row = counts.entry(doing.to_owned()).or_default().entry((table.clone(), ended)).or_insert(begun);
        row.times += 1;
        let row = *row;
        let goes_on = table.is_none() || ended == Ended::ByLimit || row.since.elapsed() >= self.doubted_for;
        if row.times < most || !(goes_on || row.others_pass) {
            return Err(match ended {
                Ended::ByLimit => error,
                Ended::Inside => inside(error, &format!(", {} times in a row so far", row.times)),
            });
        }
        // Whoever resumes it gets all attempts again.
        counts.remove(doing);
        Err(given_up(&error, table, ended, row))
    }
}

/// What is for a person.
fn given_up(error: &Error, table: Option<String>, ended: Ended, row: Row) -> Error {
    let Row { times, since, others_pass } = row;
    let (what, help) = match ended {
        Ended::ByLimit => (format!("a limit ended it {times} times in a row"), HELP),
        Ended::Inside if others_pass => (
            format!("Redshift failed inside {times} times in a row, while other tables of its group went through"),
            INSIDE,
        ),
        Ended::Inside => {
            let minutes = since.elapsed().as_secs() / 60;
            (format!("Redshift failed inside {times} times in a row, for {minutes} minutes"), INSIDE)
        }
    };
    match table {
        Some(table) => Error::new(ErrorKind::Table(table), what).help(format!("{help}; then `dataflow table resume`")),
        None => Error::new(ErrorKind::WarehouseRefused, what).help(help),
    }
    .because(error.to_string())
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

    fn failed(kind: ErrorKind) -> Result<()> {
        Err(Error::new(kind, "a statement failed").because("internal (XX000)"))
    }

    fn table(name: &str) -> ErrorKind {
        ErrorKind::Table(name.into())
    }

    #[test]
    fn what_is_not_explained_has_a_few_attempts_and_a_while() {
        let patience = Patience { doubted_for: Duration::ZERO, ..Patience::default() };
        let judge = |kind: ErrorKind| patience.judge("g", failed(kind)).expect_err("failed");
        for _ in 1..DOUBTS_OF_A_TABLE {
            assert_eq!(judge(table("orders")).kind(), &ErrorKind::WarehouseUnavailable);
        }
        let error = judge(table("orders"));
        assert_eq!(error.kind(), &table("orders"));
        assert!(error.to_string().contains("4 times in a row, for 0 minutes"), "{error}");
        for _ in 1..DOUBTS_OF_NO_TABLE {
            assert_eq!(judge(ErrorKind::Internal).kind(), &ErrorKind::WarehouseUnavailable);
        }
        assert_eq!(judge(ErrorKind::Internal).kind(), &ErrorKind::WarehouseRefused);
        let other = patience.judge("g", Err::<(), _>(Error::new(ErrorKind::Internal, "a bug of ours")));
        assert_eq!(other.expect_err("failed").kind(), &ErrorKind::Internal);
    }

    #[test]
    fn what_every_table_meets_parks_none_until_it_has_gone_on_for_long() {
        let patience = Patience::default();
        let judge = |kind: ErrorKind| patience.judge("g", failed(kind)).expect_err("failed").kind().clone();
        for _ in 0..10 * DOUBTS_OF_A_TABLE {
            assert_eq!(judge(table("orders")), ErrorKind::WarehouseUnavailable);
            assert_eq!(judge(table("lines")), ErrorKind::WarehouseUnavailable);
        }
        // Others go through: it is the table's own.
        patience.passed("g", "lines");
        assert_eq!(judge(table("orders")), table("orders"));
        for _ in 1..DOUBTS_OF_A_TABLE {
            patience.passed("another group", "lines");
            assert_eq!(judge(table("orders")), ErrorKind::WarehouseUnavailable);
        }
        // One that went through itself meanwhile begins anew.
        patience.passed("g", "orders");
        for _ in 0..DOUBTS_OF_A_TABLE {
            assert_eq!(judge(table("orders")), ErrorKind::WarehouseUnavailable);
        }
        patience.passed("g", "lines");
        assert_eq!(judge(table("orders")), table("orders"));
    }
}
