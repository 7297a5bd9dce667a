//! The events, applied one by one by a reader that knows nothing of the generator, lead to what it expects.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use base64::Engine;
use loadtest::{Event, Expected, Kind, Options, RowHash, Shop, TableExpected, What, row_hash};
use serde_json::Value;

const PLACEHOLDER: &str = "__debezium_unavailable_value";

type Rows = BTreeMap<String, Value>;

fn everything() -> Options {
    Options {
        tables: 7,
        bad_rows: 0.02,
        add_column_after: Some(4_000),
        moves: true,
        toast: true,
        partial_moves: true,
        redeliver: 0.05,
        ..Options::default()
    }
}

fn events(seed: u64, options: Options, generated: u64) -> (Vec<Event>, Expected) {
    let mut shop = Shop::new(seed, options);
    let mut events = Vec::new();
    while shop.generated() < generated {
        events.push(shop.next_event());
    }
    events.extend(shop.drain());
    (events, shop.expected())
}

fn payload(bytes: &[u8]) -> Value {
    let mut value: Value = serde_json::from_slice(bytes).unwrap();
    value.get_mut("payload").map(Value::take).unwrap_or(value)
}

/// A plain reader: newest event per key, placeholders filled from the row before, the bad ones left out.
fn apply(events: &[Event]) -> BTreeMap<String, Rows> {
    let mut tables: BTreeMap<String, Rows> = BTreeMap::new();
    let mut moved: Option<Value> = None;
    for (n, event) in events.iter().enumerate() {
        let rows = tables.entry(event.topic.to_string()).or_default();
        let (What::Row(op), Some(bytes)) = (event.what, &event.value) else { continue };
        let value = payload(bytes);
        assert_eq!(value["op"], op.to_string());
        let key = event.key.as_ref().map_or_else(|| format!("#{n}"), |key| payload(key).to_string());
        if op == 'd' {
            moved = rows.remove(&key);
            assert!(moved.is_some(), "a delete of a row that is not there: {key}");
            continue;
        }
        let has_old_key = event.headers.iter().any(|(name, _)| *name == "__debezium.oldkey");
        let base = if has_old_key { moved.take() } else { rows.get(&key).cloned() };
        assert_eq!(base.is_some(), op == 'u' || has_old_key, "{op} of {key}");
        let mut after = value["after"].clone();
        for (name, cell) in after.as_object_mut().unwrap() {
            if cell == PLACEHOLDER {
                *cell = base.as_ref().unwrap()[name].clone();
            }
        }
        rows.insert(key, after);
    }
    tables
}

fn canonical(value: &Value, kind: Kind) -> Option<String> {
    match (value, kind) {
        (Value::Null, _) => None,
        (Value::String(text), Kind::Decimal { scale, .. }) => {
            let bytes = base64::engine::general_purpose::STANDARD.decode(text).unwrap();
            let start = if bytes[0] >= 0x80 { -1i128 } else { 0 };
            let unscaled = bytes.iter().fold(start, |sum, byte| (sum << 8) | i128::from(*byte));
            let unit = 10i128.pow(u32::from(scale));
            Some(format!("{}.{:0width$}", unscaled / unit, unscaled % unit, width = usize::from(scale)))
        }
        (Value::String(text), Kind::TimestampTz) => {
            Some(chrono::DateTime::parse_from_rfc3339(text).unwrap().timestamp_micros().to_string())
        }
        (Value::String(text), _) => Some(text.clone()),
        (Value::Number(number), Kind::Double) => Some(number.as_f64().unwrap().to_string()),
        (other, _) => Some(other.to_string()),
    }
}

fn hash(rows: &Rows, table: &TableExpected) -> RowHash {
    let mut hash = RowHash::default();
    for row in rows.values() {
        let cells: Vec<(&str, String)> = table
            .columns
            .iter()
            .filter_map(|c| canonical(row.get(&c.name).unwrap_or(&Value::Null), c.kind).map(|t| (c.name.as_str(), t)))
            .collect();
        hash.add(row_hash(cells.iter().map(|(name, text)| (*name, text.as_str()))));
    }
    hash
}

#[test]
fn a_plain_reader_ends_where_the_shop_expects() {
    for schema_block in [false, true] {
        let (events, expected) = events(11, Options { schema_block, ..everything() }, 10_000);
        let tables = apply(&events);
        assert_eq!(expected.tables.len(), 7);
        for (name, table) in &expected.tables {
            let found = hash(&tables[&table.topic], table);
            assert_eq!((found.rows, found.hex()), (table.rows, table.hash.clone()), "{name}");
            assert!(table.rows > 0, "{name}");
        }
    }
}

#[test]
fn the_account_counts_every_message() {
    let (events, expected) = events(5, everything(), 10_000);
    let tables: Vec<&TableExpected> = expected.tables.values().collect();
    let count = |what: fn(&What) -> bool| events.iter().filter(|e| what(&e.what)).count() as u64;
    assert_eq!(expected.messages, events.len() as u64);
    assert_eq!(expected.generated, tables.iter().map(|t| t.generated()).sum::<u64>());
    assert_eq!(expected.generated, count(|w| matches!(w, What::Row(_) | What::Bad(_))));
    assert_eq!(expected.bad, count(|w| matches!(w, What::Bad(_))));
    assert_eq!(tables.iter().map(|t| t.redelivered).sum::<u64>(), count(|w| *w == What::Redelivered));
    assert_eq!(tables.iter().map(|t| t.tombstones).sum::<u64>(), count(|w| *w == What::Tombstone));
    for kind in loadtest::Bad::ALL {
        assert!(tables.iter().any(|t| t.bad.contains_key(kind.name())), "no {}", kind.name());
    }
    let moves: u64 = tables.iter().map(|t| t.moves).sum();
    assert!(moves > 0);
    let with_new_key = |e: &&Event| e.what == What::Row('d') && !e.headers.is_empty();
    assert_eq!(moves, events.iter().filter(with_new_key).count() as u64);
    assert_eq!(expected.tables["orders"].added_column.as_ref().map(|c| c.name.as_str()), Some("coupon"));
}

#[test]
fn broken_messages_are_broken_and_the_others_are_not() {
    let (events, _) = events(3, Options { schema_block: true, ..everything() }, 5_000);
    for event in &events {
        let Some(value) = &event.value else { continue };
        let broken = event.what == What::Bad(loadtest::Bad::BrokenJson);
        assert_eq!(serde_json::from_slice::<Value>(value).is_err(), broken);
        assert!(!value.contains(&b'\n'), "a message is one line");
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes() {
    let run = |seed| events(seed, everything(), 3_000);
    assert_eq!(run(1), run(1));
    assert_ne!(run(1).1.tables["orders"].hash, run(2).1.tables["orders"].hash);
}

#[test]
fn hidden_columns_are_not_in_the_hash() {
    let (events, _) = events(9, Options::default(), 2_000);
    let mut shop = Shop::new(9, Options::default());
    for _ in &events {
        shop.next_event();
    }
    let expected = shop.expected_without(|table, column| (table, column) == ("customers", "email"));
    let customers = &expected.tables["customers"];
    assert!(customers.columns.iter().all(|c| c.name != "email"));
    assert_eq!(hash(&apply(&events)[&customers.topic], customers).hex(), customers.hash);
    assert_ne!(shop.expected().tables["customers"].hash, customers.hash);
}
