//! A warehouse holds what a model of a few lines says, whatever comes in which order.

use super::history::run_history;
use super::*;

/// Row by row, as the words of the design say it.
#[derive(Debug, Default)]
struct Model {
    rows: BTreeMap<i64, Values>,
    deleted: BTreeMap<i64, u64>,
    refused: BTreeMap<i64, Vec<u64>>,
    floor: u64,
    soft: bool,
}

impl Model {
    fn newest(&self, id: i64) -> u64 {
        self.rows.get(&id).map_or(0, |r| r.0).max(self.deleted.get(&id).copied().unwrap_or(0))
    }

    fn delete(&mut self, id: i64, seq: u64) {
        if self.newest(id) >= seq {
            return;
        }
        if self.soft {
            match self.rows.get_mut(&id) {
                Some(row) => (row.0, row.3) = (seq, true),
                None => {
                    self.deleted.insert(id, seq);
                }
            }
        } else {
            self.rows.remove(&id);
            self.deleted.insert(id, seq);
        }
    }

    fn filled(&self, change: &Change) -> Option<(i64, Option<String>)> {
        if let (Some(a), Some(b)) = (change.a, &change.b) {
            return Some((a, b.clone()));
        }
        let live = |id: i64| self.rows.get(&id).filter(|row| row.0 < change.seq && !row.3);
        let base = change.old.unwrap_or(change.id);
        let refused =
            |row: &&Values| self.refused.get(&base).is_some_and(|m| m.iter().any(|m| row.0 < *m && *m < change.seq));
        // A source has nothing under the key that a row moves to, so a row there says that the move came before.
        let own = change.old.and_then(|_| live(change.id));
        let row = own.or_else(|| live(base).filter(|row| !refused(row)))?;
        Some((change.a.unwrap_or(row.1), change.b.clone().unwrap_or_else(|| row.2.clone())))
    }

    fn change(&mut self, change: &Change) {
        match change.op {
            Op::Truncate => {
                self.floor = self.floor.max(change.seq);
                self.rows.retain(|_, row| row.0 >= change.seq);
                self.deleted.retain(|_, seq| *seq >= change.seq);
            }
            _ if change.seq < self.floor => {}
            Op::Refused => self.refused.entry(change.id).or_default().push(change.seq),
            Op::Delete => self.delete(change.id, change.seq),
            _ => {
                let filled = self.filled(change);
                if let Some(old) = change.old {
                    self.delete(old, change.seq);
                }
                match filled {
                    _ if self.newest(change.id) >= change.seq => {}
                    Some((a, b)) => {
                        self.rows.insert(change.id, (change.seq, a, b, false));
                    }
                    // What had the key before is gone.
                    None if change.old.is_some() => self.delete(change.id, change.seq),
                    None => {}
                }
            }
        }
    }
}

/// What a source does, in its own order, and how far the reader goes back now and then.
#[derive(Clone)]
pub(super) struct Script {
    pub(super) changes: Vec<Change>,
    /// The order of delivery: indices into `changes`.
    pub(super) delivered: Vec<usize>,
    /// Where units end.
    pub(super) cuts: Vec<usize>,
}

impl std::fmt::Debug for Script {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for cut in self.cuts.windows(2) {
            writeln!(f, "-- unit")?;
            self.delivered[cut[0]..cut[1]].iter().try_for_each(|i| writeln!(f, "{:?}", self.changes[*i]))?;
        }
        Ok(())
    }
}

#[derive(Debug, Clone)]
enum Step {
    Put { id: i64, a: i64, b: Option<String> },
    Some { id: i64, a: Option<i64>, b: Option<Option<String>> },
    Move { from: i64, to: i64, a: Option<i64>, b: Option<Option<String>> },
    Delete { id: i64 },
    Refused { id: i64 },
    Truncate,
}

fn step() -> impl Strategy<Value = Step> {
    let text = || proptest::option::of("[a-z]{0,3}");
    let id = || 0i64..6;
    prop_oneof![
        6 => (id(), 0i64..100, text()).prop_map(|(id, a, b)| Step::Put { id, a, b }),
        6 => (id(), proptest::option::of(0i64..100), proptest::option::of(text()))
            .prop_map(|(id, a, b)| Step::Some { id, a, b }),
        3 => (id(), id(), proptest::option::of(0i64..100), proptest::option::of(text()))
            .prop_map(|(from, to, a, b)| Step::Move { from, to, a, b }),
        2 => id().prop_map(|id| Step::Delete { id }),
        1 => id().prop_map(|id| Step::Refused { id }),
        1 => Just(Step::Truncate),
    ]
}

fn change(step: Step, seq: u64, fresh: bool) -> Change {
    let make = |op, id| Change { op, seq, id, old: None, a: None, b: None };
    match step {
        Step::Put { id, a, b } => Change { a: Some(a), b: Some(b), ..make(Op::Create, id) },
        Step::Some { id, a, b } => Change { a, b, ..make(Op::Update, id) },
        Step::Move { from, to, a, b } if from == to => Change { a, b, ..make(Op::Update, to) },
        Step::Move { from, a, b, .. } if fresh => Change { old: Some(from), a, b, ..make(Op::Move, 100 + seq as i64) },
        Step::Move { from, to, a, b } => Change { old: Some(from), a, b, ..make(Op::Move, to) },
        Step::Delete { id } => make(Op::Delete, id),
        Step::Refused { id } => make(Op::Refused, id),
        Step::Truncate => make(Op::Truncate, 0),
    }
}

/// `fresh`: moves go to keys that nothing had before, as a source without deferred constraints does it.
fn script(fresh: bool) -> impl Strategy<Value = Script> {
    let steps = proptest::collection::vec(step(), 1..60);
    let goes_back = |most: usize| proptest::collection::vec((0usize..60, 1usize..12), 0..most);
    (steps, goes_back(3), goes_back(4), proptest::collection::vec(0usize..100, 0..6)).prop_map(
        move |(steps, repeats, rewinds, mut cuts)| {
            let changes = steps.into_iter().enumerate().map(|(n, step)| change(step, n as u64 + 1, fresh)).collect();
            let changes = with_repeats(changes, &repeats);
            let mut delivered = Vec::new();
            let mut rewinds = rewinds.into_iter().map(|(at, back)| (at % changes.len(), back)).collect::<Vec<_>>();
            let mut next = 0;
            while next < changes.len() {
                delivered.push(next);
                next += 1;
                if let Some(found) = rewinds.iter().position(|(at, _)| *at == next) {
                    let (_, back) = rewinds.remove(found);
                    next = next.saturating_sub(back);
                }
            }
            cuts.iter_mut().for_each(|cut| *cut %= delivered.len());
            cuts.extend([0, delivered.len()]);
            cuts.sort_unstable();
            cuts.dedup();
            Script { changes, delivered, cuts }
        },
    )
}

/// What a connector delivers that starts again now and then: the last changes a second time, as newer ones.
fn with_repeats(changes: Vec<Change>, repeats: &[(usize, usize)]) -> Vec<Change> {
    let mut all: Vec<Change> = Vec::new();
    for (n, change) in changes.into_iter().enumerate() {
        all.push(change);
        for (_, back) in repeats.iter().filter(|(at, _)| *at == n) {
            all.extend_from_within(all.len().saturating_sub(*back)..);
        }
    }
    all.iter_mut().zip(1..).for_each(|(change, seq)| change.seq = seq);
    all
}

/// Of deleted rows the order does not count: a move that cannot be shown may have touched it.
fn shown(mut rows: BTreeMap<i64, Values>) -> BTreeMap<i64, Values> {
    rows.values_mut().filter(|row| row.3).for_each(|row| row.0 = 0);
    rows
}

async fn run_script(under: &Under, script: &Script, mode: DeleteMode, keys: Keys) {
    let contract = keys.contract();
    under.reset().await;
    under.warehouse().ensure(&contract, mode).await.unwrap();
    let mut model = Model { soft: mode == DeleteMode::Soft, ..Model::default() };
    let mut total = LoadAccount::default();
    let counted = |c: &Change| u64::from(c.op != Op::Refused);
    for (n, cut) in script.cuts.windows(2).enumerate() {
        let rows: Vec<Change> = script.delivered[cut[0]..cut[1]].iter().map(|i| script.changes[*i].clone()).collect();
        let batches = rows.chunks(7).map(|rows| batch(&contract, rows)).collect();
        let load = fold(&contract, mode, batches, true).unwrap();
        let applied = under.warehouse().apply(&unit(n as u64, vec![load])).await.unwrap();
        let account = applied.accounts["things"];
        assert!(account.balances(), "{account:?}");
        assert_eq!(account.loaded, rows.iter().map(counted).sum::<u64>());
        total.add(&account);
        rows.iter().for_each(|change| model.change(change));
        assert_eq!(shown(under.things_of(keys, model.soft).await), shown(model.rows.clone()), "after unit {n}");
    }
    let ledger = under.warehouse().applied("g").await.unwrap().unwrap();
    assert_eq!(ledger.accounts["things"], total);
}

pub(super) fn scripts(cases: u32, mode: DeleteMode, open: impl AsyncFn() -> Under) {
    scripts_of(Keys::Numbers, cases, mode, open);
}

/// Runs random scripts, each shrunk when it fails.
fn scripts_of(keys: Keys, cases: u32, mode: DeleteMode, open: impl AsyncFn() -> Under) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let under = runtime.block_on(open());
    let config = Config { cases, failure_persistence: None, max_shrink_iters: 100, ..Config::default() };
    let result = TestRunner::new(config).run(&script(mode == DeleteMode::Soft), |script| {
        let run = std::panic::AssertUnwindSafe(|| match mode {
            DeleteMode::History => runtime.block_on(run_history(&under, &script, keys)),
            _ => runtime.block_on(run_script(&under, &script, mode, keys)),
        });
        std::panic::catch_unwind(run)
            .map_err(|e| TestCaseError::fail(e.downcast_ref::<String>().cloned().unwrap_or_default()))
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn sqlite_equals_the_model_hard() {
    scripts(60, DeleteMode::Hard, Under::sqlite);
}

#[test]
fn sqlite_equals_the_model_soft() {
    scripts(60, DeleteMode::Soft, Under::sqlite);
}

#[cfg(feature = "postgres")]
#[test]
fn postgres_equals_the_model_hard() {
    scripts(16, DeleteMode::Hard, Under::postgres);
}

#[cfg(feature = "postgres")]
#[test]
fn postgres_equals_the_model_soft() {
    scripts(16, DeleteMode::Soft, Under::postgres);
}

#[cfg(all(feature = "redshift", feature = "postgres"))]
#[test]
fn redshift_equals_the_model_hard() {
    scripts(10, DeleteMode::Hard, Under::redshift);
}

#[cfg(all(feature = "redshift", feature = "postgres"))]
#[test]
fn redshift_equals_the_model_soft() {
    scripts(10, DeleteMode::Soft, Under::redshift);
}

/// Redshift takes keys for one another that differ in trailing blanks alone; a source does not.
#[cfg(all(feature = "redshift", feature = "postgres"))]
mod blanks {
    use super::{DeleteMode, Keys, Under, scripts_of};

    #[test]
    fn redshift_equals_the_model_hard() {
        scripts_of(Keys::Blanks, 8, DeleteMode::Hard, Under::redshift);
    }

    #[test]
    fn redshift_equals_the_model_soft() {
        scripts_of(Keys::Blanks, 8, DeleteMode::Soft, Under::redshift);
    }

    #[test]
    fn redshift_equals_the_model_history() {
        scripts_of(Keys::Blanks, 8, DeleteMode::History, Under::redshift);
    }
}

/// The changes of a source that keeps its own rules: what is updated, moved or deleted is there, and nothing has the key
/// that a row moves to. Keys that were left are used again.
fn of_a_source(steps: Vec<Step>) -> Vec<Change> {
    let mut live: Vec<i64> = Vec::new();
    let mut changes: Vec<Change> = Vec::new();
    for (step, n) in steps.into_iter().zip(1u64..) {
        let at = |id: i64| live.get(id as usize % live.len().max(1)).copied();
        let step = match step {
            Step::Put { .. } => Some(step),
            Step::Some { id, a, b } => at(id).map(|id| Step::Some { id, a, b }),
            Step::Move { from, a, b, .. } => at(from).map(|from| Step::Move { from, to: -1, a, b }),
            Step::Delete { id } => at(id).map(|id| Step::Delete { id }),
            Step::Refused { .. } | Step::Truncate => None,
        };
        let Some(change) = step.map(|step| change(step, n, true)) else { continue };
        live.retain(|id| *id != change.old.unwrap_or(change.id));
        if change.op.has_row() {
            live.push(change.id);
        }
        changes.push(change);
    }
    with_repeats(changes, &[])
}

/// GIVEN a connector that delivers the last changes a second time, partial moves among them, in any units, WHEN all is
/// loaded, THEN people see what they would see without it.
fn repeats_converge(mode: DeleteMode) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let under = runtime.block_on(Under::sqlite());
    let soft = mode == DeleteMode::Soft;
    let live = |rows: BTreeMap<i64, Values>| {
        rows.into_iter().filter(|(_, row)| !row.3).map(|(id, row)| (id, row.1, row.2)).collect::<Vec<_>>()
    };
    let input = (proptest::collection::vec(step(), 1..40), 1usize..40, proptest::collection::vec(0usize..80, 0..5));
    let config = Config { cases: 40, failure_persistence: None, max_shrink_iters: 50, ..Config::default() };
    let result = TestRunner::new(config).run(&input, |(steps, back, mut cuts)| {
        let once = of_a_source(steps);
        prop_assume!(!once.is_empty());
        let mut model = Model { soft, ..Model::default() };
        once.iter().for_each(|change| model.change(change));
        let changes = with_repeats(once.clone(), &[(once.len().saturating_sub(1), back)]);
        cuts.iter_mut().for_each(|cut| *cut %= changes.len() + 1);
        cuts.extend([0, changes.len()]);
        cuts.sort_unstable();
        cuts.dedup();
        let script = Script { delivered: (0..changes.len()).collect(), changes, cuts };
        runtime.block_on(run_script(&under, &script, mode, Keys::Numbers));
        assert_eq!(live(runtime.block_on(under.things(soft))), live(model.rows), "{script:?}");
        Ok(())
    });
    if let Err(error) = result {
        panic!("{error}");
    }
}

#[test]
fn repeated_partial_moves_converge() {
    repeats_converge(DeleteMode::Hard);
    repeats_converge(DeleteMode::Soft);
}
