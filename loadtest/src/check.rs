//! The proof at the end of the quickstart: what was generated against what `dataflow status --json` says.
//!
//! Of the status it reads, for each table under `tables` (a list with `table`, or an object by name): `rows`, `applied`,
//! `superseded`, `incomplete`, `filtered`, `rejected`; and for all sources under `records`: `rejected` (refused while
//! decoding). Counts may stand one level deeper, and may be split by name; they are then summed.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use loadtest::Expected;
use serde_json::Value;

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Counts {
    rows: u64,
    applied: u64,
    superseded: u64,
    filtered: u64,
    quarantined: u64,
}

/// Prints the comparison; an error when something is missing or too much.
pub fn run(summary: &Path) -> Result<(), String> {
    let text = std::fs::read_to_string(summary).map_err(|e| format!("read {}: {e}", summary.display()))?;
    let expected: Expected = serde_json::from_str(&text).map_err(|e| format!("read {}: {e}", summary.display()))?;
    let mut input = String::new();
    std::io::stdin().read_to_string(&mut input).map_err(|e| format!("read the status: {e}"))?;
    let status: Value = serde_json::from_str(&input).map_err(|e| format!("read the status: {e}"))?;
    let (report, balanced) = compare(&expected, &status)?;
    println!("{report}");
    if balanced { Ok(()) } else { Err("not everything is accounted for".into()) }
}

fn compare(expected: &Expected, status: &Value) -> Result<(String, bool), String> {
    let tables = tables(status)?;
    let undecoded = total(status.get("records").ok_or("the status has no `records`")?, "rejected").unwrap_or(0);
    let mut lines = vec![format!(
        "{:14} {:>10} {:>10} {:>10} {:>9} {:>11}  {:>8}",
        "table", "generated", "applied", "superseded", "filtered", "quarantined", "rows"
    )];
    let mut sum = Counts { quarantined: undecoded, ..Counts::default() };
    let mut rows_agree = true;
    for (name, table) in &expected.tables {
        let found = tables.get(name).cloned().unwrap_or_default();
        let agrees = found.rows == table.rows;
        rows_agree &= agrees;
        let rows = if agrees { "as expected".to_owned() } else { format!("EXPECTED {}", table.rows) };
        lines.push(format!(
            "{name:14} {:>10} {:>10} {:>10} {:>9} {:>11}  {:>8} {rows}",
            table.generated(),
            found.applied,
            found.superseded,
            found.filtered,
            found.quarantined,
            found.rows,
        ));
        sum.applied += found.applied;
        sum.superseded += found.superseded;
        sum.filtered += found.filtered;
        sum.quarantined += found.quarantined;
    }
    lines.push(format!("{:14} {:>55}", "not decodable", undecoded));
    let accounted = sum.applied + sum.superseded + sum.filtered + sum.quarantined;
    let balanced = accounted == expected.generated && sum.quarantined == expected.bad && rows_agree;
    lines.push(format!(
        "generated {} {} applied {} + superseded {} + filtered {} + quarantined {} (planted: {})",
        expected.generated,
        if accounted == expected.generated { "=" } else { "IS NOT" },
        sum.applied,
        sum.superseded,
        sum.filtered,
        sum.quarantined,
        expected.bad,
    ));
    Ok((lines.join("\n"), balanced))
}

fn tables(status: &Value) -> Result<BTreeMap<String, Counts>, String> {
    let named: Vec<(String, &Value)> = match status.get("tables") {
        Some(Value::Object(tables)) => tables.iter().map(|(name, table)| (name.clone(), table)).collect(),
        Some(Value::Array(tables)) => {
            let name = |table: &Value| table.get("table").and_then(Value::as_str).map(str::to_owned);
            tables.iter().filter_map(|table| Some((name(table)?, table))).collect()
        }
        _ => return Err("the status has no `tables`".into()),
    };
    named
        .into_iter()
        .map(|(name, table)| {
            let needed =
                |what: &str| total(table, what).ok_or_else(|| format!("the status says nothing of {name}'s `{what}`"));
            let counts = Counts {
                rows: needed("rows")?,
                applied: needed("applied")?,
                superseded: needed("superseded")?,
                filtered: total(table, "filtered").unwrap_or(0),
                quarantined: total(table, "rejected").unwrap_or(0) + total(table, "incomplete").unwrap_or(0),
            };
            Ok((name, counts))
        })
        .collect()
}

/// The number called `name` in an object, or below it; a number by name is summed. Objects by source are summed too.
fn total(value: &Value, name: &str) -> Option<u64> {
    match value.get(name) {
        Some(Value::Object(split)) => Some(split.values().filter_map(Value::as_u64).sum()),
        Some(number) => number.as_u64(),
        None => {
            let below: Vec<u64> = match value {
                Value::Object(fields) => fields.values().filter_map(|field| total(field, name)).collect(),
                Value::Array(items) => items.iter().filter_map(|item| total(item, name)).collect(),
                _ => Vec::new(),
            };
            (!below.is_empty()).then(|| below.iter().sum())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expected() -> Expected {
        serde_json::from_value(serde_json::json!({
            "seed": 1, "generated": 12, "bad": 2, "messages": 12,
            "tables": { "orders": {
                "topic": "shop.public.orders", "key": ["id"], "columns": [], "events": { "c": 7, "u": 3 },
                "bad": { "negative_amount": 1, "broken_json": 1 }, "moves": 0, "redelivered": 0, "tombstones": 0,
                "rows": 7, "hash": "", "sums": {}
            } }
        }))
        .expect("a summary")
    }

    fn status(applied: u64, rows: u64) -> Value {
        serde_json::json!({
            "tables": [{ "table": "orders", "rows": rows, "load": { "applied": applied, "superseded": 3 },
                         "rejected": { "positive_amount": 1 } }],
            "records": { "shop": { "read": 12, "rejected": 1 } }
        })
    }

    #[test]
    fn everything_accounted_for() {
        assert!(compare(&expected(), &status(7, 7)).is_ok_and(|(_, balanced)| balanced));
    }

    #[test]
    fn a_lost_row_and_a_wrong_count_are_seen() {
        for wrong in [status(6, 7), status(7, 6), status(8, 7)] {
            assert!(compare(&expected(), &wrong).is_ok_and(|(_, balanced)| !balanced), "{wrong}");
        }
        assert!(compare(&expected(), &serde_json::json!({})).is_err());
    }
}
