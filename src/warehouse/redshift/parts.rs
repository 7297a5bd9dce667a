//! How many files a stage's rows go into.
//!
//! One file is read by one slice of the cluster, and a Parquet file is not split below 128 MB; files should be of about the
//! same size, from 1 MB to 1 GB
//! (<https://docs.aws.amazon.com/redshift/latest/dg/c_best-practices-use-multiple-files.html>). So rows that are many go into
//! several. How many slices there are does not matter: nobody is asked, and the last files that are read are small ones.

use crate::batch::{TableChanges, memory_bytes};

/// Rows for one file.
#[derive(Debug, Clone)]
pub(super) struct Part {
    /// The number of the first row among all.
    pub first: i64,
    pub rows: Vec<TableChanges>,
}

/// The rows in as few parts of about the same size as have `file_bytes` each, as they lie in memory.
pub(super) fn parts(rows: &[TableChanges], file_bytes: u64) -> Vec<Part> {
    let sizes: Vec<u64> = rows.iter().map(|changes| memory_bytes(&changes.rows)).collect();
    let total: u64 = sizes.iter().sum();
    let target = total.div_ceil(total.div_ceil(file_bytes.max(1)).max(1)).max(1);
    let (mut parts, mut number) = (vec![Part { first: 0, rows: Vec::new() }], 0);
    let mut room = target;
    for (changes, size) in rows.iter().zip(sizes) {
        let of_row = (size / (changes.len() as u64).max(1)).max(1);
        let mut at = 0;
        while at < changes.len() {
            if room == 0 {
                parts.push(Part { first: number, rows: Vec::new() });
                room = target;
            }
            let len = usize::try_from(room.div_ceil(of_row)).unwrap_or(usize::MAX).min(changes.len() - at);
            if let Some(part) = parts.last_mut() {
                part.rows.push(changes.slice(at, len));
            }
            room = room.saturating_sub(of_row * len as u64);
            (at, number) = (at + len, number + len as i64);
        }
    }
    parts
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
    use arrow::datatypes::Int64Type;

    use super::*;
    use crate::batch::{NO_TIME, Op, Seq};
    use crate::contract::{Column, Contract, TableSchema, Type};
    use crate::progress::Partition;

    /// Batches of so many rows, numbered through.
    fn batches(lengths: &[i64]) -> Vec<TableChanges> {
        let schema = TableSchema { columns: vec![Column::new("id", Type::BigInt)], key: vec!["id".into()] };
        let contract = Arc::new(Contract { table: "t".into(), version: 1, input: schema.clone(), output: schema });
        let mut next = 0;
        let batch = |length: &i64| {
            let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(next..next + length));
            next += length;
            let count = *length as usize;
            TableChanges {
                contract: Arc::clone(&contract),
                partition: Partition::new("s", "t/0"),
                rows: RecordBatch::try_new(contract.output.arrow(), vec![ids]).expect("a batch"),
                ops: vec![Op::Update; count],
                seqs: vec![Seq::default(); count],
                source_times_us: vec![NO_TIME; count],
                unchanged: vec![None],
                old_keys: None,
            }
        };
        lengths.iter().map(batch).collect()
    }

    fn ids(part: &Part) -> Vec<i64> {
        part.rows
            .iter()
            .flat_map(|changes| changes.rows.column(0).as_primitive::<Int64Type>().values().to_vec())
            .collect()
    }

    #[test]
    fn few_rows_are_one_file() {
        for lengths in [&[][..], &[0], &[1], &[100, 28]] {
            let parts = parts(&batches(lengths), 1024);
            assert_eq!(parts.len(), 1, "{lengths:?}");
            assert_eq!(ids(&parts[0]).len() as i64, lengths.iter().sum::<i64>());
        }
    }

    #[test]
    fn many_rows_are_files_of_one_size_numbered_through() {
        let parts = parts(&batches(&[1000, 1, 0, 333, 2000]), 8 * 500);
        let found: Vec<i64> = parts.iter().flat_map(ids).collect();
        assert_eq!(found, (0..3334).collect::<Vec<_>>());
        assert_eq!(parts.len(), 7, "26,672 bytes in files of 4,000");
        for part in &parts {
            assert_eq!(ids(part).first(), Some(&part.first));
            assert!((450..=500).contains(&ids(part).len()), "{}", ids(part).len());
        }
    }
}
