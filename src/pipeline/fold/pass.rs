//! One pass over all changes in log order.
//!
//! A partial move stands on what its new key holds, else on the row of its old key. A source has nothing under a key
//! that a row moves to, so a row there says that the move was delivered before (a connector that starts again repeats
//! its last changes): then the old key holds nothing, or a later row that has no part in it. Where only the warehouse
//! knows what the keys hold and the fold has something for one of them, that goes into a round of its own, which is
//! merged before: the move finds in the warehouse what it would find in a unit of its own.

use std::collections::HashSet;

use hashbrown::HashMap;
use xxhash_rust::xxh3::Xxh3Builder;

use super::internal;
use super::keys::{At, KeyAt, Keys, UNKNOWN};
use super::state::{Base, Kind, Sources, State};
use crate::batch::{Op, Seq, TableChanges};
use crate::contract::Contract;
use crate::epoch::{DeleteMode, Incomplete, LoadAccount};
use crate::error::Result;
use crate::warehouse::KeyText;

/// What a partial move finds under a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// Only the warehouse knows.
    Unknown,
    /// A row of which every column is known.
    Whole,
    /// A row that stands on the warehouse's row of the same key, if there is one.
    Partial,
    /// A row that stands on what the warehouse has under two keys.
    Moved,
    Nothing,
}

/// One pass over all changes in log order.
pub(super) struct Pass<'a> {
    contract: &'a Contract,
    mode: DeleteMode,
    key: &'a [usize],
    changes: &'a [TableChanges],
    keys: &'a Keys,
    index: HashMap<&'a [u8], u32, Xxh3Builder>,
    states: Vec<State>,
    /// Refused versions, by key number.
    refused: HashMap<u32, Vec<At>>,
    /// History only: every version and end, in order, and which orders of a key have been seen.
    versions: Vec<State>,
    seen: HashSet<(u32, Seq)>,
    pub truncate: Option<(Seq, i64)>,
    pub earlier_truncates: Vec<(Seq, i64)>,
    pub account: LoadAccount,
    pub incomplete: Vec<Incomplete>,
    /// Whether the batches can be loaded as they are.
    pub as_it_stands: bool,
    /// What stands in a round before the key's present one; in history mode `versions` has it.
    staged: Vec<State>,
}

impl<'a> Pass<'a> {
    pub fn new(
        contract: &'a Contract,
        mode: DeleteMode,
        key: &'a [usize],
        changes: &'a [TableChanges],
        keys: &'a Keys,
    ) -> Self {
        let rows = changes.iter().map(TableChanges::len).sum();
        Self {
            contract,
            mode,
            key,
            changes,
            keys,
            index: HashMap::with_capacity_and_hasher(rows, Xxh3Builder::new()),
            states: Vec::with_capacity(rows),
            refused: HashMap::new(),
            versions: Vec::new(),
            seen: HashSet::new(),
            truncate: None,
            earlier_truncates: Vec::new(),
            account: LoadAccount::default(),
            incomplete: Vec::new(),
            as_it_stands: true,
            staged: Vec::new(),
        }
    }

    fn batch(&self, at: At) -> &'a TableChanges {
        &self.changes[at.batch as usize]
    }

    fn seq(&self, at: At) -> Seq {
        self.batch(at).seqs[at.row as usize]
    }

    pub fn change(&mut self, at: At) -> Result<()> {
        let op = self.batch(at).ops[at.row as usize];
        let seq = self.seq(at);
        if op != Op::Refused {
            self.account.loaded += 1;
        }
        if op == Op::Truncate {
            self.truncated(at, seq);
            return Ok(());
        }
        if self.mode != DeleteMode::History && self.truncate.is_some_and(|(floor, _)| seq < floor) {
            self.as_it_stands = false;
            self.account.superseded += u64::from(op != Op::Refused);
            return Ok(());
        }
        let own = KeyAt { at, old: false };
        let id = self.id(own)?;
        match op {
            Op::Refused => {
                self.refused.entry(id).or_default().push(at);
                Ok(())
            }
            Op::Delete => {
                self.delete(id, own, seq, true);
                Ok(())
            }
            Op::Move => {
                self.as_it_stands = false;
                let old = KeyAt { at, old: true };
                let from = self.id(old)?;
                if from == id { self.upsert(id, own, seq) } else { self.moved(id, own, seq, (from, old)) }
            }
            _ => self.upsert(id, own, seq),
        }
    }

    /// The number of a key.
    fn id(&mut self, key: KeyAt) -> Result<u32> {
        let bytes = self
            .keys
            .bytes(key)
            .ok_or_else(|| internal("a move lacks its old key", &self.contract.table, self.seq(key.at).to_string()))?;
        let next = self.states.len() as u32;
        let id = *self.index.entry(bytes).or_insert(next);
        if id == next {
            let sources = Sources::One(UNKNOWN);
            let (kind, seq) = (Kind::Absent, Seq::default());
            self.states.push(State { kind, seq, at: key.at, key, sources, base: None, round: 0 });
        }
        Ok(id)
    }

    /// Whether the key already has something as new as `seq`.
    fn is_old(&self, id: u32, seq: Seq) -> bool {
        let state = &self.states[id as usize];
        match self.mode {
            DeleteMode::History => self.seen.contains(&(id, seq)),
            _ => state.kind != Kind::Absent && state.seq >= seq,
        }
    }

    /// The same; counts it.
    fn superseded(&mut self, id: u32, seq: Seq, counted: bool) -> bool {
        let old = self.is_old(id, seq);
        if self.mode == DeleteMode::History {
            self.seen.insert((id, seq));
        }
        if old {
            self.as_it_stands = false;
            self.account.superseded += u64::from(counted);
        }
        old
    }

    fn delete(&mut self, id: u32, key: KeyAt, seq: Seq, counted: bool) {
        self.as_it_stands &= self.mode != DeleteMode::Soft;
        if self.superseded(id, seq, counted) {
            return;
        }
        self.gone(id, key, seq, counted);
    }

    fn gone(&mut self, id: u32, key: KeyAt, seq: Seq, counted: bool) {
        let state = &self.states[id as usize];
        let (sources, base) = match state.kind {
            Kind::Absent | Kind::Staged => (Sources::One(UNKNOWN), Some(own_base(key, seq))),
            _ => (state.sources.clone(), state.base),
        };
        self.put(id, Kind::Deleted { counted }, seq, key, sources, base);
    }

    /// A row whose unchanged columns come from its own key's state.
    fn upsert(&mut self, id: u32, key: KeyAt, seq: Seq) -> Result<()> {
        if self.superseded(id, seq, true) {
            return Ok(());
        }
        match self.stands_on(id, key, seq) {
            Some((sources, base)) => {
                self.put(id, Kind::Row, seq, key, sources, base);
                Ok(())
            }
            None => self.left_out(key.at, seq),
        }
    }

    /// A row that had another key before. That one goes in any case: the source has nothing there any more.
    fn moved(&mut self, id: u32, key: KeyAt, seq: Seq, from: (u32, KeyAt)) -> Result<()> {
        let stands_on = if self.is_whole(key.at) {
            Some((Sources::One(key.at), None))
        } else if self.is_old(id, seq) {
            None
        } else {
            self.make_room(id, from.0, seq);
            self.moved_from(id, key, seq, from)
        };
        self.delete(from.0, from.1, seq, false);
        if self.superseded(id, seq, true) {
            return Ok(());
        }
        match stands_on {
            Some((sources, base)) => {
                self.put(id, Kind::Row, seq, key, sources, base);
                Ok(())
            }
            None => {
                // What had the new key before is gone at the source, even if what has it now cannot be shown.
                self.gone(id, key, seq, false);
                self.left_out(key.at, seq)
            }
        }
    }

    fn is_whole(&self, at: At) -> bool {
        let batch = self.batch(at);
        !(0..self.contract.output.columns.len()).any(|column| batch.is_unchanged(column, at.row as usize))
    }

    /// The columns that the row `at` carries, the others from `base`.
    fn over(&self, at: At, base: &Sources) -> Sources {
        let batch = self.batch(at);
        let columns = 0..self.contract.output.columns.len();
        let source = |column| if batch.is_unchanged(column, at.row as usize) { base.of(column) } else { at };
        Sources::Each(columns.map(source).collect())
    }

    /// Where the columns of a row come from; `None` when what it stands on was deleted or refused.
    fn stands_on(&self, id: u32, key: KeyAt, seq: Seq) -> Option<(Sources, Option<Base>)> {
        if self.is_whole(key.at) {
            return Some((Sources::One(key.at), None));
        }
        let state = &self.states[id as usize];
        match state.kind {
            Kind::Absent | Kind::Staged => {}
            // What came late stands on what the warehouse has from before it.
            _ if state.seq >= seq => {}
            Kind::Deleted { .. } => return None,
            Kind::Row if self.refused_between(id, state.seq, seq) => return None,
            Kind::Row => return Some((self.over(key.at, &state.sources), state.base)),
        }
        Some((self.over(key.at, &Sources::One(UNKNOWN)), Some(own_base(key, seq))))
    }

    fn find(&self, id: u32, seq: Seq) -> Found {
        let state = &self.states[id as usize];
        match (state.kind, state.base) {
            (Kind::Absent | Kind::Staged, _) => Found::Unknown,
            _ if state.seq >= seq => Found::Unknown,
            (Kind::Deleted { .. }, _) => Found::Nothing,
            (Kind::Row, None) => Found::Whole,
            (Kind::Row, Some(base)) if base.moved => Found::Moved,
            (Kind::Row, Some(_)) => Found::Partial,
        }
    }

    /// What a move finds under its old key, where a refused version is no base.
    fn find_old(&self, id: u32, seq: Seq) -> Found {
        match self.find(id, seq) {
            Found::Unknown => Found::Unknown,
            _ if self.refused_between(id, self.states[id as usize].seq, seq) => Found::Nothing,
            found => found,
        }
    }

    /// Brings both keys of a partial move into one round, in which it can be said on what the move stands.
    fn make_room(&mut self, id: u32, from: u32, seq: Seq) {
        let round = |pass: &Self, id: u32| pass.states[id as usize].round;
        let same = round(self, id).max(round(self, from));
        self.raise(id, same);
        self.raise(from, same);
        let clear = match (self.find(id, seq), self.find_old(from, seq)) {
            (Found::Whole, _) | (Found::Unknown, Found::Unknown) => true,
            (Found::Nothing, Found::Whole | Found::Nothing) => true,
            // A soft delete keeps its columns, also when the move turns out to be incomplete.
            (Found::Nothing, Found::Unknown | Found::Partial) => {
                self.mode != DeleteMode::Soft || matches!(self.states[id as usize].sources, Sources::One(UNKNOWN))
            }
            _ => false,
        };
        if !clear {
            self.raise(id, same + 1);
            self.raise(from, same + 1);
        }
    }

    /// What the key has so far stays in its round; what comes finds it in the warehouse.
    fn raise(&mut self, id: u32, round: u32) {
        let state = &mut self.states[id as usize];
        if state.round >= round {
            return;
        }
        if matches!(state.kind, Kind::Row | Kind::Deleted { .. }) {
            if self.mode != DeleteMode::History {
                self.staged.push(state.clone());
            }
            *state = State { kind: Kind::Staged, sources: Sources::One(UNKNOWN), base: None, ..state.clone() };
        }
        state.round = round;
    }

    /// Where the columns of a partial move come from, after [`Pass::make_room`].
    fn moved_from(
        &self,
        id: u32,
        key: KeyAt,
        seq: Seq,
        (from, from_key): (u32, KeyAt),
    ) -> Option<(Sources, Option<Base>)> {
        let old = &self.states[from as usize];
        let arrived = (self.find(id, seq) == Found::Nothing).then_some(seq);
        let base = Base { key: from_key, seq, arrived, moved: true };
        let sources = match (self.find(id, seq), self.find_old(from, seq)) {
            (Found::Whole, _) => return Some((self.over(key.at, &self.states[id as usize].sources), None)),
            (_, Found::Unknown) => &Sources::One(UNKNOWN),
            (_, Found::Whole) => return Some((self.over(key.at, &old.sources), None)),
            (_, Found::Partial) => &old.sources,
            (_, Found::Moved | Found::Nothing) => return None,
        };
        Some((self.over(key.at, sources), Some(base)))
    }

    fn refused_between(&self, id: u32, after: Seq, before: Seq) -> bool {
        let markers = self.refused.get(&id);
        markers.is_some_and(|markers| markers.iter().any(|at| (after..before).contains(&self.seq(*at))))
    }

    fn put(&mut self, id: u32, kind: Kind, seq: Seq, key: KeyAt, sources: Sources, base: Option<Base>) {
        let round = self.states[id as usize].round;
        self.put_version(id, State { kind, seq, at: key.at, key, sources, base, round });
    }

    fn put_version(&mut self, id: u32, new: State) {
        let (known, newest) = (self.states[id as usize].kind != Kind::Absent, self.states[id as usize].seq);
        if self.mode == DeleteMode::History {
            self.versions.push(new.clone());
            // Whether this one was filled from the version before is not worth finding out.
            self.as_it_stands &= !known;
            if known && newest > new.seq {
                return;
            }
        } else if known {
            self.replaced(id);
        }
        self.states[id as usize] = new;
    }

    fn replaced(&mut self, id: u32) {
        self.as_it_stands = false;
        let counted = matches!(self.states[id as usize].kind, Kind::Row | Kind::Deleted { counted: true });
        self.account.superseded += u64::from(counted);
    }

    fn truncated(&mut self, at: At, seq: Seq) {
        self.as_it_stands = false;
        if self.truncate.is_some() {
            self.account.superseded += 1;
        }
        let new = (seq, self.batch(at).source_times_us[at.row as usize]);
        if self.mode == DeleteMode::History {
            self.earlier_truncates.extend(self.truncate.map(|old| old.min(new)));
        }
        self.truncate = self.truncate.max(Some(new));
        for id in 0..self.states.len() as u32 {
            let state = &self.states[id as usize];
            if state.kind == Kind::Absent || state.seq >= seq {
                continue;
            }
            if self.mode == DeleteMode::History {
                let ended = State { kind: Kind::Deleted { counted: false }, seq, at, ..state.clone() };
                self.put_version(id, ended);
            } else {
                self.replaced(id);
                let state = &mut self.states[id as usize];
                let (kind, sources) = (Kind::Absent, Sources::One(UNKNOWN));
                *state = State { kind, seq: Seq::default(), at, sources, base: None, ..state.clone() };
            }
        }
        // Versions that were refused stay refused in the history.
        let changes = if self.mode == DeleteMode::History { &[] } else { self.changes };
        for markers in self.refused.values_mut() {
            markers.retain(|at| changes.get(at.batch as usize).is_none_or(|c| c.seqs[at.row as usize] >= seq));
        }
    }

    fn left_out(&mut self, at: At, seq: Seq) -> Result<()> {
        self.as_it_stands = false;
        self.account.incomplete += 1;
        let batch = self.batch(at);
        let output = &self.contract.output;
        let missing = output.columns.iter().enumerate();
        self.incomplete.push(Incomplete {
            table: self.contract.table.clone(),
            key: KeyText::new(&batch.rows, &output.key, self.key)?.json(at.row as usize),
            seq: seq.to_string(),
            partition: batch.partition.to_string(),
            missing: missing
                .filter(|(column, _)| batch.is_unchanged(*column, at.row as usize))
                .map(|(_, c)| c.name.clone())
                .collect(),
        });
        Ok(())
    }

    /// What is left, by round, in the order of the changes that made it.
    pub fn finish(mut self) -> Vec<Vec<State>> {
        let markers = self.refused.values().flatten().map(|at| State {
            kind: Kind::Absent,
            seq: self.seq(*at),
            at: *at,
            key: KeyAt { at: *at, old: false },
            sources: Sources::One(UNKNOWN),
            base: None,
            round: 0,
        });
        let mut left: Vec<State> = markers.collect();
        if self.mode == DeleteMode::History {
            left.append(&mut self.versions);
        } else {
            left.append(&mut self.staged);
            left.extend(self.states.into_iter().filter(|s| matches!(s.kind, Kind::Row | Kind::Deleted { .. })));
        }
        // The key that a move left comes before the key that it went to.
        left.sort_by_key(|s| (s.round, s.at, !s.key.old));
        left.chunk_by(|a, b| a.round == b.round).map(<[State]>::to_vec).collect()
    }
}

/// The row of the same key.
fn own_base(key: KeyAt, seq: Seq) -> Base {
    Base { key, seq, arrived: None, moved: false }
}
