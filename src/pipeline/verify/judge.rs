//! What a difference is: pure.
//!
//! Both sides change while they are read. They are read in turns, the source at S2, S3, …, the warehouse at W2, W3, …,
//! where each Wn holds everything that Sn shows, and Wn was taken before Sn+1:
//!
//! ```text
//! S2 ≤ W2 ≤ S3 ≤ W3 ≤ …      (places in the source's log)
//! ```
//!
//! A row that the warehouse shows unchanged (the same `_seq` and values) at W2 and at W3 is therefore the newest version
//! at S3: the source must show the same there. If it does not, that is a difference, however busy both sides are. A row that the
//! warehouse lacks has no `_seq`; it is a difference when the warehouse lacks it in several turns in which the source
//! shows the same.

/// How often a row must be lacking, while the source shows the same, before it counts as lost.
pub const LACKING: u32 = 2;

/// What one side shows of a key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Shown {
    /// Rows; more than one is a mistake of its own, unless the table has no key.
    pub rows: u64,
    /// The sum of their hashes.
    pub sum: u128,
    /// The highest order among them; of the warehouse alone.
    pub seq: Option<String>,
    /// The bytes of one of them, when they were kept.
    pub row: Option<Box<[u8]>>,
}

impl Shown {
    /// Whether both are the same rows.
    pub fn same_rows(&self, other: &Self) -> bool {
        self.rows == other.rows && self.sum == other.sum
    }
}

/// What both sides show of a key in one turn.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Turn {
    /// The source, at the turn's S.
    pub source: Shown,
    /// The warehouse, at the turn's W.
    pub warehouse: Shown,
    /// Turns in a row in which the warehouse lacked what the source showed unchanged.
    pub lacking: u32,
}

/// What a turn decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Both sides agree.
    Equal,
    /// They never will, by themselves.
    Differs,
    /// Both are on the move: look again.
    Again,
}

/// Judges the turn `now` after the turn `before`.
pub fn judge(before: &Turn, now: &mut Turn) -> Verdict {
    if now.source.same_rows(&now.warehouse) {
        return Verdict::Equal;
    }
    let stands = before.warehouse.same_rows(&now.warehouse) && before.warehouse.seq == now.warehouse.seq;
    if now.warehouse.rows > 0 {
        return if stands { Verdict::Differs } else { Verdict::Again };
    }
    let lacking = stands && before.source.same_rows(&now.source);
    now.lacking = if lacking { before.lacking + 1 } else { 0 };
    if now.lacking >= LACKING { Verdict::Differs } else { Verdict::Again }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(row: &str, seq: &str) -> Shown {
        let there = !row.is_empty();
        let seq = (!seq.is_empty()).then(|| seq.to_owned());
        Shown { rows: u64::from(there), sum: row.bytes().map(u128::from).sum(), seq, row: None }
    }

    fn turns(turns: &[(&str, &str, &str)]) -> Vec<Verdict> {
        let mut before: Option<Turn> = None;
        let mut verdicts = Vec::new();
        for (source, warehouse, seq) in turns {
            let mut now = Turn { source: shown(source, ""), warehouse: shown(warehouse, seq), lacking: 0 };
            verdicts.extend(before.as_ref().map(|before| judge(before, &mut now)));
            before = Some(now);
        }
        verdicts
    }

    #[test]
    fn what_stands_still_and_differs_is_a_difference() {
        use Verdict::{Again, Differs, Equal};
        assert_eq!(turns(&[("a", "b", "1"), ("a", "b", "1")]), [Differs]);
        assert_eq!(turns(&[("", "b", "1"), ("", "b", "1")]), [Differs]);
        // A busy source does not excuse a warehouse that stands still.
        assert_eq!(turns(&[("a", "x", "1"), ("c", "x", "1")]), [Differs]);
        // Both on the move.
        assert_eq!(turns(&[("a", "b", "1"), ("c", "d", "2"), ("d", "d", "2")]), [Again, Equal]);
        // The same values again are another version.
        assert_eq!(turns(&[("a", "b", "1"), ("a", "b", "3")]), [Again]);
        // A row that comes and goes is not lost.
        assert_eq!(turns(&[("a", "", ""), ("c", "", ""), ("d", "", "")]), [Again, Again]);
        assert_eq!(turns(&[("a", "", ""), ("a", "", ""), ("a", "", "")]), [Again, Differs]);
        assert_eq!(turns(&[("a", "", ""), ("a", "", ""), ("b", "", ""), ("b", "", "")]), [Again, Again, Again]);
        assert_eq!(turns(&[("a", "", ""), ("a", "a", "5")]), [Equal]);
    }
}
