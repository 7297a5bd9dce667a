//! The proof at the end of the quickstart: what was generated against what `dataflow status --json` says.
//!
//! Everything the generator made must be applied, superseded by a newer version, filtered, or in quarantine, and every
//! table must hold exactly as many live rows as the generator expects. An estimate proves nothing.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;

use loadtest::Expected;
use serde::Deserialize;

/// What is read of `dataflow status --json`.
#[derive(Debug, Deserialize)]
struct Status {
    tables: Vec<TableRows>,
    account: Account,
}

#[derive(Debug, Deserialize)]
struct TableRows {
    table: String,
    rows: Option<u64>,
    rows_estimated: bool,
}

#[derive(Debug, Deserialize)]
struct Account {
    sources: BTreeMap<String, Records>,
    tables: BTreeMap<String, Lake>,
    loads: BTreeMap<String, Load>,
    imbalance: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Records {
    rejected: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Lake {
    filtered: BTreeMap<String, u64>,
    rejected: BTreeMap<String, u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Load {
    applied: u64,
    superseded: u64,
    incomplete: u64,
}

#[derive(Debug, Default, Clone, PartialEq, Eq)]
struct Counts {
    rows: Option<u64>,
    estimated: bool,
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
    let status: Status = serde_json::from_str(&input).map_err(|e| format!("read the status: {e}"))?;
    let (report, balanced) = compare(&expected, &status);
    println!("{report}");
    if balanced { Ok(()) } else { Err("not everything is accounted for".into()) }
}

fn compare(expected: &Expected, status: &Status) -> (String, bool) {
    let undecoded = status.account.sources.values().map(|records| records.rejected).sum();
    let mut lines = vec![format!(
        "{:14} {:>10} {:>10} {:>10} {:>9} {:>11}  {:>9}",
        "table", "generated", "applied", "superseded", "filtered", "quarantined", "live rows"
    )];
    let mut sum = Counts { quarantined: undecoded, ..Counts::default() };
    let mut rows_agree = true;
    for (name, table) in &expected.tables {
        let found = status.counts(name);
        // A table that nothing came for is not made.
        let agrees = found.rows.unwrap_or(0) == table.rows && !found.estimated;
        rows_agree &= agrees;
        let rows = match found.rows {
            None if agrees => "no table, as expected".to_owned(),
            None => format!("NO TABLE, EXPECTED {}", table.rows),
            Some(rows) if found.estimated => {
                format!("{:>9} IS AN ESTIMATE, EXPECTED {}", format!("~{rows}"), table.rows)
            }
            Some(rows) if agrees => format!("{rows:>9} as expected"),
            Some(rows) => format!("{rows:>9} EXPECTED {}", table.rows),
        };
        lines.push(format!(
            "{name:14} {:>10} {:>10} {:>10} {:>9} {:>11}  {rows}",
            table.generated(),
            found.applied,
            found.superseded,
            found.filtered,
            found.quarantined,
        ));
        sum.applied += found.applied;
        sum.superseded += found.superseded;
        sum.filtered += found.filtered;
        sum.quarantined += found.quarantined;
    }
    lines.push(format!("{:14} {:>55}", "not decodable", undecoded));
    let accounted = sum.applied + sum.superseded + sum.filtered + sum.quarantined;
    let sums_hold = accounted == expected.generated && sum.quarantined == expected.bad;
    lines.push(match rows_agree {
        true => "live rows: every table holds what the generator left in it".to_owned(),
        false => "live rows: NOT what the generator left".to_owned(),
    });
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
    lines.extend(status.account.imbalance.iter().map(|why| format!("the account does not balance: {why}")));
    (lines.join("\n"), sums_hold && rows_agree && status.account.imbalance.is_none())
}

impl Status {
    fn counts(&self, table: &str) -> Counts {
        let live = self.tables.iter().find(|t| t.table == table);
        let mut counts = Counts {
            rows: live.and_then(|t| t.rows),
            estimated: live.is_some_and(|t| t.rows_estimated),
            ..Counts::default()
        };
        if let Some(lake) = self.account.tables.get(table) {
            counts.filtered = lake.filtered.values().sum();
            counts.quarantined = lake.rejected.values().sum();
        }
        if let Some(load) = self.account.loads.get(table) {
            counts.applied = load.applied;
            counts.superseded = load.superseded;
            counts.quarantined += load.incomplete;
        }
        counts
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

    fn status(applied: u64, rows: u64) -> Status {
        serde_json::from_value(serde_json::json!({
            "tables": [{ "table": "orders", "rows": rows, "rows_estimated": false }],
            "account": {
                "sources": { "shop": { "read": 12, "rejected": 1 } },
                "tables": { "orders": { "decoded": 11, "written": 10, "rejected": { "positive_amount": 1 } } },
                "loads": { "orders": { "loaded": 10, "applied": applied, "superseded": 3 } },
                "imbalance": null
            }
        }))
        .expect("a status")
    }

    #[test]
    fn everything_accounted_for() {
        let (report, balanced) = compare(&expected(), &status(7, 7));
        assert!(balanced, "{report}");
        assert!(report.ends_with("generated 12 = applied 7 + superseded 3 + filtered 0 + quarantined 2 (planted: 2)"));
    }

    #[test]
    fn a_lost_row_and_a_wrong_count_are_seen() {
        let mut unbalanced = status(7, 7);
        unbalanced.account.imbalance = Some("a sum".into());
        let (mut guessed, mut uncounted) = (status(7, 7), status(7, 7));
        guessed.tables[0].rows_estimated = true;
        uncounted.tables[0].rows = None;
        for wrong in [status(6, 7), status(7, 6), status(8, 7), unbalanced, guessed, uncounted] {
            assert!(!compare(&expected(), &wrong).1, "{wrong:?}");
        }
    }
}
