//! The judge: what a table holds at the source and in the cluster, read by plain SQL on both sides; and whether what waits in
//! quarantine is what the cluster would not have taken.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::{ArrayRef, Float32Array, StringArray};
use dataflow::contract::Type;
use dataflow::lake::Lake;
use dataflow::pipeline::staging::staging;
use sqlx::{AssertSqlSafe, Executor, PgConnection, Row};

use super::proof::{client, copy_unproven};
use super::world::{By, World};
use crate::support::process::Launch;

/// All rows as text, sorted: equal ones stand as often as they are there.
pub type Rows = Vec<Vec<Option<String>>>;

/// All rows that a query gives; its columns must be text.
pub async fn rows(connection: &mut PgConnection, query: &str) -> Rows {
    let found = connection.fetch_all(AssertSqlSafe(query)).await.unwrap_or_else(|error| panic!("{query}: {error}"));
    let mut rows: Rows = found.iter().map(|row| (0..row.len()).map(|at| row.get(at)).collect()).collect();
    rows.sort();
    rows
}

/// Fails the test unless both are the same rows, as often.
#[track_caller]
pub fn assert_rows(what: &str, held: &Rows, expected: &Rows, log: impl FnOnce() -> String) {
    if held == expected {
        return;
    }
    let of = |rows: &Rows, others: &Rows| {
        let others: BTreeSet<_> = others.iter().collect();
        let only = rows.iter().filter(|row| !others.contains(row)).take(5);
        let short =
            |text: &Option<String>| text.as_ref().map_or("∅".to_owned(), |text| text.chars().take(40).collect());
        only.map(|row| row.iter().map(short).collect::<Vec<_>>().join("|")).collect::<Vec<_>>()
    };
    panic!(
        "{what}: {} rows, expected {}\nnot expected: {:#?}\nmissing: {:#?}\n{}",
        held.len(),
        expected.len(),
        of(held, expected),
        of(expected, held),
        log()
    );
}

/// A column of the source.
struct Column {
    name: String,
    kind: String,
    characters: i32,
}

impl Column {
    /// The expressions whose text must be equal: at the source, and in the cluster. `None`: the way leaves the column out, or
    /// changes it in a manner that the test itself looks at.
    fn texts(&self, by: By) -> Option<[String; 2]> {
        let c = &self.name;
        let text = format!("{c}::text");
        let source = match (self.kind.as_str(), by) {
            // Debezium sends neither composites nor the decimals of arrays as numbers.
            ("pair" | "_numeric", By::Kafka) => return None,
            ("numeric of any size", _) => format!("trim_scale({c})::text"),
            ("bpchar", _) => format!("rpad({c}::text, {})", self.characters),
            ("time", _) => format!("to_char({c}, 'HH24:MI:SS.US')"),
            ("json" | "jsonb", _) => return Some([format!("{c}::jsonb::text"), text]),
            ("hstore", _) => format!("hstore_to_jsonb({c})::text"),
            ("timestamptz", _) => return Some([text.clone(), text]),
            (kind, _) if kind.starts_with('_') => format!("to_jsonb({c})::text"),
            // What the type's output says; the cast says more.
            ("inet", _) => format!("CASE WHEN {c} IS NOT NULL THEN format('%s', {c}) END"),
            ("money", By::Kafka) => format!("{c}::numeric(18,2)::text"),
            ("bit", By::Kafka) => {
                format!("CASE WHEN {c}::int = 0 THEN '\\x' ELSE '\\x' || lpad(to_hex({c}::int), 2, '0') END")
            }
            ("interval", By::Kafka) => format!(
                "((extract(year FROM {c}) * 12 + extract(month FROM {c})) * 2629800000000 + extract(day FROM {c}) * 86400000000 \
                 + extract(hour FROM {c}) * 3600000000 + extract(minute FROM {c}) * 60000000 \
                 + extract(microseconds FROM {c}))::bigint::text"
            ),
            _ => text.clone(),
        };
        Some([source, text])
    }
}

impl World {
    async fn columns(&mut self, table: &str) -> Vec<Column> {
        let query = format!(
            "SELECT column_name::text, CASE WHEN udt_name = 'numeric' AND numeric_precision IS NULL THEN 'numeric of any size' \
             ELSE udt_name::text END, coalesce(character_maximum_length, 0)::int FROM information_schema.columns \
             WHERE table_schema = 'public' AND table_name = '{table}' ORDER BY ordinal_position"
        );
        let found = self.source.fetch_all(AssertSqlSafe(query)).await.unwrap();
        found.iter().map(|row| Column { name: row.get(0), kind: row.get(1), characters: row.get(2) }).collect()
    }

    /// The rows of a table at the source and in a schema of the cluster, where a condition holds at the source.
    pub async fn both_sides(&mut self, table: &str, schema: &str, condition: &str) -> [Rows; 2] {
        let texts: Vec<[String; 2]> =
            self.columns(table).await.iter().filter_map(|column| column.texts(self.by)).collect();
        let list = |side: usize| texts.iter().map(|text| text[side].as_str()).collect::<Vec<_>>().join(", ");
        let source = format!("SELECT {} FROM public.{table} WHERE {condition}", list(0));
        let held = format!("SELECT {} FROM {schema}.{table}", list(1));
        let source = rows(&mut self.source, &source).await;
        let mut warehouse = self.warehouse().await;
        warehouse.execute("SET timezone = 'UTC'").await.unwrap();
        [source, rows(&mut warehouse, &held).await]
    }

    /// Fails the test unless the cluster holds every row of these tables as it is at the source, once; and nothing waits.
    pub async fn assert_same(&mut self, launch: &Launch, tables: &[&str]) {
        for table in tables {
            self.assert_same_where(launch, table, "true").await;
        }
        let waiting = self.waiting(launch);
        assert!(waiting.is_empty(), "in quarantine: {waiting:?}");
        self.verified(launch);
    }

    /// The same of the rows of a table for which a condition holds at the source.
    pub async fn assert_same_where(&mut self, launch: &Launch, table: &str, condition: &str) {
        let [source, held] = self.both_sides(table, "shop", condition).await;
        assert_rows(table, &held, &source, || launch.whole_log());
        let without = self.held(&format!("SELECT count(*)::text FROM shop.{table} WHERE _seq IS NULL")).await;
        assert_eq!(without, ["0"], "{table}: rows without _seq");
    }

    /// What `dataflow verify` makes of it, where it can read the source.
    pub fn verified(&self, launch: &Launch) {
        if self.by == By::Postgres {
            launch.assert_equal();
        }
    }

    /// What waits in quarantine: the row's `id`, which is not known where the columns did not fit, and why.
    pub fn waiting(&self, launch: &Launch) -> Vec<(Option<i64>, String)> {
        let output = launch.other(&["quarantine", "show"], &["--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let lines = String::from_utf8(output.stdout).unwrap();
        let entries = lines.lines().map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
        let read = |entry: serde_json::Value| {
            let key = entry["key"].as_str().map(|key| serde_json::from_str::<serde_json::Value>(key).unwrap());
            let id = key.map(|key| key["id"].as_i64().unwrap());
            (id, entry["reason"].as_str().unwrap().to_owned())
        };
        entries.map(read).collect()
    }

    /// Fails the test unless exactly these rows of a table wait, each because of a value in this column that the cluster, when
    /// it is given the value all the same, does not take; and all others are there.
    pub async fn assert_only_these_wait(&mut self, launch: &Launch, table: &str, refused: &[(i64, &str)]) {
        let waiting = self.waiting(launch);
        let ids: BTreeSet<i64> = refused.iter().map(|(id, _)| *id).collect();
        let known: BTreeSet<i64> = waiting.iter().filter_map(|(id, _)| *id).collect();
        let unknown = waiting.iter().filter(|(id, _)| id.is_none()).count();
        assert!(known.is_subset(&ids) && known.len() + unknown == ids.len(), "{ids:?}: {waiting:?}");
        for (id, column) in refused {
            let of_it = waiting.iter().filter(|(waits, _)| waits.is_none_or(|waits| waits == *id));
            let why: Vec<&str> = of_it.map(|(_, why)| why.as_str()).collect();
            let of_column = why.iter().all(|why| why.contains(column));
            assert!(of_column, "{id} waits, and not for its column {column}: {waiting:?}");
            self.assert_not_loadable(table, *id, column, &why).await;
        }
        let ids: Vec<String> = ids.iter().map(i64::to_string).collect();
        self.assert_same_where(launch, table, &format!("id NOT IN ({})", ids.join(", "))).await;
    }

    /// COPY does not take this value of the source into the column that the cluster has. A whole number for a column of them
    /// it would take: such a row may wait only because the column has become another type, as it is told.
    async fn assert_not_loadable(&mut self, table: &str, id: i64, column: &str, why: &[&str]) {
        let query = format!("SELECT {column}::text FROM public.{table} WHERE id = {id}");
        let text = rows(&mut self.source, &query).await.remove(0).remove(0).unwrap();
        let query = format!(
            "SELECT udt_name::text FROM information_schema.columns WHERE table_schema = 'shop' AND table_name = '{table}' \
             AND column_name = '{column}'"
        );
        let (data_type, value): (Type, ArrayRef) = match self.held(&query).await.join("").as_str() {
            "float4" => (Type::Real, Arc::new(Float32Array::from(vec![text.parse::<f32>().unwrap()]))),
            "int4" | "int8" => {
                let of_source = query.replace("'shop'", "'public'");
                let now = rows(&mut self.source, &of_source).await.remove(0).remove(0).unwrap();
                assert!(!now.starts_with("int"), "{table} {id}: {text} would have loaded: {why:?}");
                let told = why.iter().all(|why| why.contains(&format!("`{column}` is ")) && why.contains("comes as"));
                return assert!(told, "{table} {id}: {column} is {now} by now: {why:?}");
            }
            "varchar" => (Type::TEXT, Arc::new(StringArray::from(vec![text]))),
            "super" | "jsonb" => (Type::Json, Arc::new(StringArray::from(vec![text]))),
            other => panic!("{column} is {other}"),
        };
        let place = staging(&Lake::open(&self.cluster.lake()).unwrap());
        let client = client(&self.cluster).await;
        let role = self.cluster.warehouse().iam_role;
        let answer = copy_unproven(&client, &*place, &role, data_type, &value).await;
        assert!(answer.is_err(), "{table} {id}: the value of {column} would have loaded");
    }
}
