//! Serializability as Redshift checks it, by tables: transactions that ran at once must have the same result in one order or
//! another, else the statement that closes the circle fails with error 1023.
//! <https://docs.aws.amazon.com/redshift/latest/dg/c_serial_isolation.html>
//!
//! A transaction sees what had been committed at its snapshot. Of two that overlap, one that read a table comes before one
//! that wrote it unseen; of two that wrote one table, the first to commit comes before the other. A circle in that order is
//! the violation. Two that only insert into one table have an order; two that first read it have none.

use std::collections::{BTreeSet, HashMap};

/// A table's OID.
pub type Table = u32;

#[derive(Debug, Clone, Default)]
struct Transaction {
    snapshot: u64,
    committed: Option<u64>,
    reads: BTreeSet<Table>,
    writes: BTreeSet<Table>,
}

/// What every transaction has read and written, as long as it matters.
#[derive(Debug, Default)]
pub struct Conflicts {
    clock: u64,
    transactions: HashMap<u64, Transaction>,
}

/// A circle: the table that closed it, and the transactions in it.
pub type Circle = (Table, Vec<u64>);

impl Conflicts {
    /// A transaction has taken its snapshot; its number.
    pub fn begin(&mut self) -> u64 {
        self.clock += 1;
        let number = self.clock;
        self.transactions.insert(number, Transaction { snapshot: number, ..Transaction::default() });
        number
    }

    /// A transaction has read a table, or is about to.
    pub fn reads(&mut self, number: u64, table: Table) {
        if let Some(transaction) = self.transactions.get_mut(&number) {
            transaction.reads.insert(table);
        }
    }

    /// A transaction is about to write a table.
    pub fn writes(&mut self, number: u64, table: Table) {
        if let Some(transaction) = self.transactions.get_mut(&number) {
            transaction.writes.insert(table);
        }
    }

    /// A circle that this transaction is part of.
    pub fn circle(&self, number: u64) -> Option<Circle> {
        self.transactions.get(&number).filter(|t| !t.writes.is_empty())?;
        let mut path = vec![number];
        self.follow(number, number, &mut path).map(|table| (table, path))
    }

    fn follow(&self, start: u64, from: u64, path: &mut Vec<u64>) -> Option<Table> {
        for next in self.transactions.keys().copied().filter(|next| *next != from) {
            let Some(table) = self.before(from, next) else { continue };
            if next == start {
                return Some(table);
            }
            if !path.contains(&next) {
                path.push(next);
                if let Some(found) = self.follow(start, next, path) {
                    return Some(found);
                }
                path.pop();
            }
        }
        None
    }

    /// Whether `a` must come before `b`, by which table. Only what is committed, or is being judged, counts: of a transaction
    /// that still runs nobody knows what it will do, and it is judged itself later.
    fn before(&self, a: u64, b: u64) -> Option<Table> {
        let (a, b) = (self.transactions.get(&a)?, self.transactions.get(&b)?);
        let end = |t: &Transaction| t.committed.unwrap_or(u64::MAX);
        if a.committed.is_none() && b.committed.is_none() {
            return None;
        }
        let shared = |x: &BTreeSet<Table>, y: &BTreeSet<Table>| x.intersection(y).next().copied();
        // What b wrote, a read without seeing it.
        let unseen = if end(b) > a.snapshot { shared(&a.reads, &b.writes) } else { None };
        // What a wrote came first.
        let earlier = end(a) < end(b);
        let seen = if end(a) <= b.snapshot { shared(&a.writes, &b.reads) } else { None };
        let overwritten = if earlier { shared(&a.writes, &b.writes) } else { None };
        unseen.or(seen).or(overwritten)
    }

    /// It has ended; what nobody can collide with any more is forgotten.
    pub fn end(&mut self, number: u64, committed: bool) {
        self.clock += 1;
        if committed {
            if let Some(transaction) = self.transactions.get_mut(&number) {
                transaction.committed = Some(self.clock);
            }
        } else {
            self.transactions.remove(&number);
        }
        let oldest = |kept: &dyn Fn(&Transaction) -> bool, all: &HashMap<u64, Transaction>| {
            all.values().filter(|t| kept(t)).map(|t| t.snapshot).min().unwrap_or(u64::MAX)
        };
        let running = oldest(&|t| t.committed.is_none(), &self.transactions);
        let overlapping = oldest(&|t| t.committed.is_none_or(|at| at > running), &self.transactions);
        self.transactions.retain(|_, t| t.committed.is_none_or(|at| at > overlapping));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEDGER: Table = 1;
    const OTHER: Table = 2;

    #[test]
    fn two_that_read_and_write_one_table_have_no_order() {
        let mut all = Conflicts::default();
        let (a, b) = (all.begin(), all.begin());
        for t in [a, b] {
            all.reads(t, LEDGER);
            all.writes(t, LEDGER);
        }
        assert_eq!(all.circle(a), None, "the first to commit may");
        all.end(a, true);
        let (table, members) = all.circle(b).expect("a circle");
        assert_eq!((table, members.len()), (LEDGER, 2));
    }

    #[test]
    fn two_that_only_insert_into_one_table_have_an_order() {
        let mut all = Conflicts::default();
        let (a, b) = (all.begin(), all.begin());
        all.writes(a, LEDGER);
        all.writes(b, LEDGER);
        all.end(a, true);
        assert_eq!(all.circle(b), None);
    }

    #[test]
    fn a_snapshot_after_the_other_commit_is_no_overlap() {
        let mut all = Conflicts::default();
        let a = all.begin();
        all.reads(a, LEDGER);
        all.writes(a, LEDGER);
        all.end(a, true);
        let b = all.begin();
        all.reads(b, LEDGER);
        all.writes(b, LEDGER);
        assert_eq!(all.circle(b), None);
        assert_eq!(all.transactions.len(), 1, "the first is forgotten or not needed");
    }

    #[test]
    fn a_circle_over_two_tables_is_found() {
        // The example of the documentation: each reads what the other writes.
        let mut all = Conflicts::default();
        let (a, b) = (all.begin(), all.begin());
        all.reads(a, LEDGER);
        all.writes(a, OTHER);
        all.reads(b, OTHER);
        all.writes(b, LEDGER);
        all.end(a, true);
        assert!(all.circle(b).is_some());
    }

    #[test]
    fn what_was_rolled_back_never_was() {
        let mut all = Conflicts::default();
        let (a, b) = (all.begin(), all.begin());
        for t in [a, b] {
            all.reads(t, LEDGER);
            all.writes(t, LEDGER);
        }
        all.end(a, false);
        assert_eq!(all.circle(b), None);
    }

    #[test]
    fn a_reader_alone_is_never_the_victim() {
        let mut all = Conflicts::default();
        let (a, b) = (all.begin(), all.begin());
        all.reads(b, LEDGER);
        all.reads(a, LEDGER);
        all.writes(a, LEDGER);
        all.end(a, true);
        assert_eq!(all.circle(b), None);
    }
}
