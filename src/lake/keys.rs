//! Whether the rows of an epoch must be folded before they are loaded.

use std::sync::Arc;

use arrow::row::{RowConverter, Rows, SortField};
use hashbrown::HashSet;
use xxhash_rust::xxh3::xxh3_64;

use crate::batch::{Op, TableChanges};
use crate::error::{Error, ErrorKind, Result};

/// Keys that are remembered per table, about 9 bytes each. Beyond it the epoch is folded without looking, unless each key
/// is larger than those before it.
const LIMIT: usize = 1 << 19;

/// Whether every row of a table so far is whole and of a key of its own. Hashes are enough: two keys with one hash only
/// make a fold that was not needed.
pub(super) struct Keys {
    limit: usize,
    /// The keys' hashes, as long as each key is larger than those before it, as it is when a table is read in their order.
    ascending: Vec<u64>,
    /// The largest of them, in the form that [`RowConverter`] makes.
    largest: Vec<u8>,
    /// There were more of them than are remembered.
    forgotten: bool,
    /// The keys' hashes, once their order has been another one.
    seen: HashSet<u64>,
    rows: Option<RowConverter>,
    fold: bool,
}

impl Keys {
    pub fn new() -> Self {
        Self::remembering(LIMIT)
    }

    fn remembering(limit: usize) -> Self {
        Self {
            limit,
            ascending: Vec::new(),
            largest: Vec::new(),
            forgotten: false,
            seen: HashSet::new(),
            rows: None,
            fold: false,
        }
    }

    /// Whether a row is not whole, or not known to be of a key of its own.
    pub fn fold(&self) -> bool {
        self.fold
    }

    /// Looks no further: the epoch is folded.
    pub fn give_up(&mut self) {
        *self = Self { fold: true, ..Self::remembering(self.limit) };
    }

    /// Bytes held.
    pub fn bytes(&self) -> usize {
        self.seen.allocation_size() + self.ascending.capacity() * size_of::<u64>()
    }

    /// Takes more rows into account.
    pub fn observe(&mut self, changes: &TableChanges) -> Result<()> {
        if self.fold {
            return Ok(());
        }
        let whole_rows = changes.ops.iter().all(|op| matches!(op, Op::Read | Op::Create | Op::Update));
        let partial = changes.unchanged.iter().flatten().any(|bits| bits.count_set_bits() > 0);
        let output = &changes.contract.output;
        if !whole_rows || partial {
            self.give_up();
            return Ok(());
        }
        if !output.key.is_empty() && self.insert(changes, &output.key_indices())? {
            self.give_up();
        }
        Ok(())
    }

    /// Whether a key was there before, or may have been.
    fn insert(&mut self, changes: &TableChanges, key: &[usize]) -> Result<bool> {
        let columns: Vec<_> = key.iter().map(|&index| Arc::clone(changes.rows.column(index))).collect();
        let unhashable = |error| Error::new(ErrorKind::Internal, "hash keys").because(error);
        let converter = match &mut self.rows {
            Some(converter) => converter,
            None => {
                let fields = columns.iter().map(|c| SortField::new(c.data_type().clone())).collect();
                self.rows.insert(RowConverter::new(fields).map_err(unhashable)?)
            }
        };
        let rows = converter.convert_columns(&columns).map_err(unhashable)?;
        let hashes = || rows.iter().map(|row| xxh3_64(row.as_ref()));
        if self.seen.is_empty() && self.go_on_ascending(&rows) {
            self.forgotten |= self.ascending.len() + changes.len() > self.limit;
            match self.forgotten {
                true => self.ascending = Vec::new(),
                false => self.ascending.extend(hashes()),
            }
            return Ok(false);
        }
        if self.forgotten || self.seen.len() + self.ascending.len() + changes.len() > self.limit {
            return Ok(true);
        }
        self.seen.extend(std::mem::take(&mut self.ascending));
        Ok(hashes().any(|hash| !self.seen.insert(hash)))
    }

    /// Whether the rows come one behind the other, and behind all before them; then they are taken in.
    fn go_on_ascending(&mut self, rows: &Rows) -> bool {
        let mut largest: &[u8] = &self.largest;
        for row in rows {
            if row.data() <= largest {
                return false;
            }
            largest = row.data();
        }
        self.largest = largest.to_vec();
        true
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::BTreeSet;

    use arrow::array::{Int64Array, RecordBatch};
    use proptest::prelude::*;

    use super::*;
    use crate::batch::Seq;
    use crate::contract::{Column, Contract, TableSchema, Type};
    use crate::progress::Partition;

    fn changes(ids: &[i64], op: Op) -> TableChanges {
        let schema = TableSchema { columns: vec![Column::new("id", Type::BigInt)], key: vec!["id".to_owned()] };
        let contract = Contract { table: "t".to_owned(), version: 1, input: schema.clone(), output: schema };
        let rows = RecordBatch::try_new(contract.output.arrow(), vec![Arc::new(Int64Array::from(ids.to_vec()))]);
        TableChanges {
            contract: Arc::new(contract),
            partition: Partition::new("s", "p"),
            rows: rows.unwrap(),
            ops: vec![op; ids.len()],
            seqs: vec![Seq::default(); ids.len()],
            source_times_us: vec![0; ids.len()],
            unchanged: vec![None],
            old_keys: None,
        }
    }

    fn fold(limit: usize, batches: &[Vec<i64>]) -> bool {
        let mut keys = Keys::remembering(limit);
        batches.iter().for_each(|ids| keys.observe(&changes(ids, Op::Read)).unwrap());
        keys.fold()
    }

    proptest! {
        #[test]
        fn a_key_that_comes_twice_makes_a_fold(batches in prop::collection::vec(prop::collection::vec(-20i64..20, 0..4), 0..6)) {
            let all: Vec<i64> = batches.concat();
            let twice = all.iter().collect::<BTreeSet<_>>().len() < all.len();
            prop_assert_eq!(fold(LIMIT, &batches), twice);
        }

        #[test]
        fn with_few_that_are_remembered_none_that_comes_twice_is_missed(
            batches in prop::collection::vec(prop::collection::vec(-20i64..20, 0..4), 0..6), limit in 0usize..8,
        ) {
            let all: Vec<i64> = batches.concat();
            let twice = all.iter().collect::<BTreeSet<_>>().len() < all.len();
            prop_assert!(fold(limit, &batches) || !twice);
        }
    }

    #[test]
    fn keys_that_ascend_need_not_be_remembered() {
        assert!(!fold(3, &[vec![-5, 1], vec![2, 3], vec![7]]));
        assert!(fold(3, &[vec![-5, 1], vec![2, 3], vec![4, 0]]), "it may have been there");
        assert!(!fold(3, &[vec![5, 1], vec![3]]));
        assert!(fold(3, &[vec![5, 1], vec![3, 4]]), "too many to remember");
    }

    #[test]
    fn a_row_that_is_not_whole_makes_a_fold() {
        let mut keys = Keys::new();
        keys.observe(&changes(&[1], Op::Delete)).unwrap();
        assert!(keys.fold());
    }
}
