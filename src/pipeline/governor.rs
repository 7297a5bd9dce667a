//! When a group is loaded. Pure: time is told.
//!
//! Every load costs a transaction (in Redshift a place in the queue of commits of the whole cluster), however few rows it
//! brings. So changes may wait in the lake, together, as long as `fresh_within` allows, and one load takes all of them.
//!
//! A change's age is counted from its commit at the source, but not from before its epoch could have been opened, nor from
//! after it was sealed: a change that was read late (a source behind, a snapshot, another clock) is late whatever is
//! done here, and must not make every epoch a load of its own. Nor from after the epoch was first seen here: whoever sealed
//! it may have a clock that is ahead of ours.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use crate::config::{Span, Topology};
use crate::epoch::EpochNumber;
use crate::pipeline::unit::{Pending, UnitPlan};

/// What a load is expected to take before one was measured.
const FIRST_LOAD: Duration = Duration::from_secs(5);
/// Loads whose durations are remembered; the longest counts.
const REMEMBERED: usize = 8;

/// Why a group is loaded now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The process ends, or was asked to load what there is.
    Stopping,
    /// A table that was stopped, or has come from another group, has something to catch up with.
    Behind,
    /// Nothing but the ledger is moved: a start would have to read too much of the log.
    Ledger,
    /// A table has no `fresh_within`: its changes do not wait.
    Committed { table: String },
    /// There is as much as one load takes.
    Full,
    /// A change has waited as long as it may.
    Due { table: String, fresh_within: Span },
}

impl Reason {
    /// One word, for a metric's label.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Stopping => "stopping",
            Self::Behind => "behind",
            Self::Ledger => "ledger",
            Self::Committed { .. } => "committed",
            Self::Full => "full",
            Self::Due { .. } => "due",
        }
    }

    /// For a person.
    pub fn words(&self) -> String {
        match self {
            Self::Stopping => "the process is to end with everything loaded".to_owned(),
            Self::Behind => "a table of the group has to catch up with the others".to_owned(),
            Self::Ledger => "nothing has come for so long that the ledger is moved".to_owned(),
            Self::Committed { table } => format!("changes of {table} do not wait"),
            Self::Full => "there is as much as one load takes".to_owned(),
            Self::Due { table, fresh_within } => format!("{table} is to be fresh within {fresh_within}"),
        }
    }
}

/// What is to be done with what waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Load now.
    Load(Reason),
    /// Wait until then (microseconds since 1970), for the sake of that table.
    Wait { until_us: i64, table: String, fresh_within: Span },
}

/// What waits, and what is going on.
#[derive(Debug)]
pub struct Situation<'a> {
    /// The unit that would be loaded.
    pub plan: &'a UnitPlan,
    /// The epoch that the group's ledger stands at.
    pub after: EpochNumber,
    /// What waits.
    pub waiting: &'a [Pending],
    /// There is as much as one load takes.
    pub full: bool,
    /// The process is to end with everything loaded.
    pub stopping: bool,
    /// Now, microseconds since 1970.
    pub now_us: i64,
}

/// The governor of one group.
#[derive(Debug)]
pub struct Governor {
    fresh_within: BTreeMap<String, Span>,
    /// The longest time that an epoch is open.
    every: Duration,
    took: VecDeque<Duration>,
}

impl Governor {
    /// Of a group with these tables.
    pub fn new(topology: &Topology, tables: &[String]) -> Self {
        let span = |table: &String| Some((table.clone(), topology.fresh_within(table)?));
        Self {
            fresh_within: tables.iter().filter_map(span).collect(),
            every: topology.epoch.every.0,
            took: VecDeque::new(),
        }
    }

    /// Whether anything may wait here.
    pub fn governs(&self) -> bool {
        !self.fresh_within.is_empty()
    }

    /// A load was done: the next ones are begun that much earlier.
    pub fn loaded(&mut self, took: Duration) {
        self.took.push_back(took);
        if self.took.len() > REMEMBERED {
            self.took.pop_front();
        }
    }

    /// What to do.
    pub fn decide(&self, situation: &Situation<'_>) -> Decision {
        let Situation { plan, after, waiting, full, stopping, now_us } = *situation;
        if stopping {
            return Decision::Load(Reason::Stopping);
        }
        if plan.takes.is_empty() {
            return Decision::Load(Reason::Ledger);
        }
        if plan.takes.iter().any(|take| take.n <= after) {
            return Decision::Load(Reason::Behind);
        }
        let since = self.since(waiting);
        if let Some(table) = since.keys().find(|table| !self.fresh_within.contains_key(**table)) {
            return Decision::Load(Reason::Committed { table: (*table).to_owned() });
        }
        if full {
            return Decision::Load(Reason::Full);
        }
        let due = since.into_iter().filter_map(|(table, since_us)| {
            let fresh_within = *self.fresh_within.get(table)?;
            Some((since_us + micros(fresh_within.0 - self.margin(fresh_within.0)), table, fresh_within))
        });
        match due.min_by_key(|(due_us, ..)| *due_us) {
            Some((until_us, table, fresh_within)) if until_us > now_us => {
                Decision::Wait { until_us, table: table.to_owned(), fresh_within }
            }
            Some((_, table, fresh_within)) => Decision::Load(Reason::Due { table: table.to_owned(), fresh_within }),
            None => Decision::Load(Reason::Ledger),
        }
    }

    /// Since when the oldest change of each table waits, microseconds since 1970.
    pub fn since<'p>(&self, waiting: &'p [Pending]) -> BTreeMap<&'p str, i64> {
        let mut since: BTreeMap<&str, i64> = BTreeMap::new();
        for epoch in waiting {
            let opened_us = epoch.sealed_at_us - micros(self.every);
            for (table, changes) in &epoch.tables {
                let committed_us = changes.min_source_time_us.unwrap_or(epoch.sealed_at_us);
                let from = committed_us.clamp(opened_us, epoch.sealed_at_us).min(epoch.seen_at_us);
                since.entry(table).and_modify(|oldest| *oldest = from.min(*oldest)).or_insert(from);
            }
        }
        since
    }

    /// How much earlier than due a load is begun. Never more than half of the time, or a slow warehouse would be loaded
    /// without a pause.
    fn margin(&self, fresh_within: Duration) -> Duration {
        self.took.iter().max().copied().unwrap_or(FIRST_LOAD).min(fresh_within / 2)
    }
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX / 4)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::epoch::TableEpoch;
    use crate::pipeline::unit::Take;

    const SECOND: i64 = 1_000_000;

    fn governor(tables: &[(&str, u64)]) -> Governor {
        let fresh_within =
            tables.iter().map(|(table, seconds)| ((*table).to_owned(), Span::seconds(*seconds))).collect();
        Governor { fresh_within, every: Duration::from_secs(10), took: VecDeque::new() }
    }

    /// An epoch sealed at that second, and for each table the second of its oldest commit.
    fn sealed(n: EpochNumber, at: i64, tables: &[(&str, i64)]) -> Pending {
        let epoch = |oldest: i64| TableEpoch { min_source_time_us: Some(oldest * SECOND), ..TableEpoch::default() };
        let tables = tables.iter().map(|(table, oldest)| ((*table).to_owned(), epoch(*oldest))).collect();
        Pending { n, sealed_at_us: at * SECOND, seen_at_us: at * SECOND, tables }
    }

    struct Case {
        waiting: Vec<Pending>,
        after: EpochNumber,
        full: bool,
        stopping: bool,
    }

    impl Case {
        fn of(waiting: Vec<Pending>) -> Self {
            Self { waiting, after: 0, full: false, stopping: false }
        }

        fn at(&self, governor: &Governor, second: i64) -> Decision {
            let take = |p: &Pending| Take { n: p.n, tables: p.tables.keys().cloned().collect() };
            let takes = self.waiting.iter().map(take).collect();
            let plan = UnitPlan { through: 9, held: BTreeMap::new(), takes, bytes: 1 };
            let Self { ref waiting, after, full, stopping } = *self;
            governor.decide(&Situation { plan: &plan, after, waiting, full, stopping, now_us: second * SECOND })
        }
    }

    fn due(table: &str, seconds: u64) -> Decision {
        Decision::Load(Reason::Due { table: table.to_owned(), fresh_within: Span::seconds(seconds) })
    }

    fn wait(until: i64, table: &str, seconds: u64) -> Decision {
        Decision::Wait { until_us: until * SECOND, table: table.to_owned(), fresh_within: Span::seconds(seconds) }
    }

    #[test]
    fn a_change_waits_as_long_as_it_may_less_what_a_load_takes() {
        let mut governor = governor(&[("a", 60)]);
        let case = Case::of(vec![sealed(1, 100, &[("a", 95)]), sealed(2, 110, &[("a", 104)])]);
        assert_eq!(case.at(&governor, 110), wait(95 + 60 - 5, "a", 60));
        assert_eq!(case.at(&governor, 149), wait(150, "a", 60));
        assert_eq!(case.at(&governor, 150), due("a", 60));
        // Measured: the longest of the last ones counts.
        governor.loaded(Duration::from_secs(12));
        governor.loaded(Duration::from_secs(3));
        assert_eq!(case.at(&governor, 110), wait(95 + 60 - 12, "a", 60));
        (0..REMEMBERED).for_each(|_| governor.loaded(Duration::from_secs(3)));
        assert_eq!(case.at(&governor, 110), wait(95 + 60 - 3, "a", 60));
        // A warehouse that is slower than the promise is not loaded without a pause.
        governor.loaded(Duration::from_secs(600));
        assert_eq!(case.at(&governor, 110), wait(95 + 30, "a", 60));
    }

    #[test]
    fn the_most_urgent_table_decides_for_its_group() {
        let governor = governor(&[("a", 60), ("b", 900), ("c", 30)]);
        let slow = Case::of(vec![sealed(1, 100, &[("b", 95)])]);
        assert_eq!(slow.at(&governor, 500), wait(95 + 900 - 5, "b", 900));
        let both = Case::of(vec![sealed(1, 100, &[("b", 95)]), sealed(2, 500, &[("a", 495), ("b", 495)])]);
        assert_eq!(both.at(&governor, 500), wait(495 + 60 - 5, "a", 60));
        assert_eq!(both.at(&governor, 550), due("a", 60));
    }

    #[test]
    fn what_was_read_late_waits_from_when_it_was_read() {
        let governor = governor(&[("a", 60)]);
        // An hour old when it came; and from a clock that is an hour ahead.
        let late = Case::of(vec![sealed(1, 10_000, &[("a", 6_400)])]);
        assert_eq!(late.at(&governor, 10_000), wait(9_990 + 55, "a", 60));
        let early = Case::of(vec![sealed(1, 10_000, &[("a", 13_600)])]);
        assert_eq!(early.at(&governor, 10_000), wait(10_000 + 55, "a", 60));
    }

    #[test]
    fn a_clock_that_is_ahead_makes_nothing_wait_longer() {
        let governor = governor(&[("a", 60)]);
        let seen = Pending { seen_at_us: 100 * SECOND, ..sealed(1, 400, &[("a", 399)]) };
        let case = Case::of(vec![seen]);
        assert_eq!(case.at(&governor, 100), wait(100 + 60 - 5, "a", 60));
        assert_eq!(case.at(&governor, 155), due("a", 60));
        // What is seen late, after a start, is as old as it is.
        let late = Pending { seen_at_us: 900 * SECOND, ..sealed(1, 400, &[("a", 399)]) };
        assert_eq!(Case::of(vec![late]).at(&governor, 900), due("a", 60));
    }

    #[test]
    fn what_cannot_wait_does_not() {
        let governor = governor(&[("a", 60)]);
        let waiting = || vec![sealed(5, 100, &[("a", 95)])];
        let reason = |case: Case| match case.at(&governor, 100) {
            Decision::Load(reason) => reason.label(),
            Decision::Wait { .. } => "waits",
        };
        assert_eq!(reason(Case::of(waiting())), "waits");
        assert_eq!(reason(Case { stopping: true, ..Case::of(waiting()) }), "stopping");
        assert_eq!(reason(Case { full: true, ..Case::of(waiting()) }), "full");
        assert_eq!(reason(Case { after: 5, ..Case::of(waiting()) }), "behind");
        assert_eq!(reason(Case::of(Vec::new())), "ledger");
        assert_eq!(reason(Case::of(vec![sealed(5, 100, &[("a", 95), ("plain", 95)])])), "committed");
    }
}
