//! Rows of a table as counts and sums, by ranges of the key's hash: order does not matter, and neither does how a
//! database sorts.

use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

/// Ranges of the key's hash.
pub const RANGES: usize = 1 << 16;

/// The range that a key belongs to.
pub fn range_of(key: &[u8]) -> usize {
    (xxh3_64(key) >> 48) as usize
}

/// A row's hash.
pub fn row_hash(row: &[u8]) -> u128 {
    xxh3_128(row)
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Range {
    rows: u64,
    sum: u128,
}

/// What one side holds: of each range the number of rows, and the sum of their hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Digest {
    ranges: Vec<Range>,
}

impl Digest {
    /// No rows.
    pub fn new() -> Self {
        Self { ranges: vec![Range::default(); RANGES] }
    }

    /// Adds a row.
    pub fn add(&mut self, key: &[u8], row: &[u8]) {
        let range = &mut self.ranges[range_of(key)];
        range.rows += 1;
        range.sum = range.sum.wrapping_add(row_hash(row));
    }

    /// The ranges in which the sides differ, with the rows that the larger side has there.
    pub fn differing(&self, other: &Self) -> Vec<(usize, u64)> {
        let pairs = self.ranges.iter().zip(&other.ranges).enumerate();
        pairs.filter(|(_, (one, two))| one != two).map(|(at, (one, two))| (at, one.rows.max(two.rows))).collect()
    }
}

/// Ranges that are looked at row by row: as many as hold at most `most` rows, but one in any case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chosen {
    is_in: Vec<bool>,
    /// Differing ranges that are not among them.
    pub left_out: u64,
}

impl Chosen {
    /// Chooses among the differing ranges.
    pub fn among(differing: &[(usize, u64)], most: u64) -> Self {
        let mut chosen = Self { is_in: vec![false; RANGES], left_out: 0 };
        let mut rows = 0;
        for (at, inside) in differing {
            if rows > 0 && rows + inside > most {
                chosen.left_out += 1;
            } else {
                rows += (*inside).max(1);
                chosen.is_in[*at] = true;
            }
        }
        chosen
    }

    /// Whether the key belongs to one of them.
    pub fn takes(&self, key: &[u8]) -> bool {
        self.is_in[range_of(key)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_does_not_matter_and_every_other_change_does() {
        let digest = |rows: &[(&str, &str)]| {
            let mut digest = Digest::new();
            rows.iter().for_each(|(key, row)| digest.add(key.as_bytes(), row.as_bytes()));
            digest
        };
        let one = digest(&[("a", "a1"), ("b", "b1")]);
        assert_eq!(one.differing(&digest(&[("b", "b1"), ("a", "a1")])), []);
        assert_eq!(one.differing(&digest(&[("b", "b2"), ("a", "a1")])), [(range_of(b"b"), 1)]);
        assert_eq!(one.differing(&digest(&[("a", "a1")])), [(range_of(b"b"), 1)]);
        assert_eq!(one.differing(&digest(&[("a", "a1"), ("b", "b1"), ("b", "b1")])), [(range_of(b"b"), 2)]);
    }

    #[test]
    fn ranges_are_chosen_up_to_a_limit() {
        let chosen = Chosen::among(&[(1, 60), (2, 50), (3, 40)], 100);
        assert_eq!((chosen.is_in[1], chosen.is_in[2], chosen.is_in[3], chosen.left_out), (true, false, true, 1));
        assert!(Chosen::among(&[(9, 1000)], 100).is_in[9]);
    }
}
