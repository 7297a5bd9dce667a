//! Values that Redshift takes for something else than the source meant, or does not take in one go: blanks at the end of
//! keys, documents that are not there, numbers at the end of their type, keys of many bytes.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, StringArray};
use dataflow::contract::Type;
use dataflow::epoch::DeleteMode;

use crate::warehouse::{Under, created, table, try_load};

fn texts(values: &[Option<&str>]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

fn numbers(values: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(values.to_vec()))
}

/// GIVEN keys that differ in trailing blanks alone, WHEN a unit brings one of them, THEN the others stay as they are.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_trailing_blanks_is_another_key() {
    let under = Under::redshift().await;
    let contract = table(&[("k", Type::Text { max_bytes: Some(20) }), ("n", Type::BigInt)], true);
    under.warehouse().ensure(&contract, DeleteMode::Hard).await.unwrap();
    let rows = |first: u64, keys: &[&str], values: &[i64]| {
        let keys: Vec<Option<&str>> = keys.iter().copied().map(Some).collect();
        created(&contract, first, vec![texts(&keys), numbers(values)])
    };
    let loaded = try_load(&under, 0, rows(1, &["a", "a ", "a  ", ""], &[1, 2, 3, 4])).await.unwrap();
    assert_eq!((loaded.applied, loaded.superseded), (4, 0));
    let loaded = try_load(&under, 1, rows(5, &["a ", " "], &[20, 50])).await.unwrap();
    assert_eq!((loaded.applied, loaded.superseded), (2, 0));
    let held = under.rows("SELECT '<' || k || '>' || n FROM t ORDER BY n").await;
    assert_eq!(held.into_iter().flatten().flatten().collect::<Vec<_>>(), ["<a>1", "<a  >3", "<>4", "<a >20", "< >50"]);
}
