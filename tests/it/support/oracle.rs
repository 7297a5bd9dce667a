//! The judge: compares a warehouse with what the generator expects, and a lake with the rules of its log.
//!
//! It shares no code with what it judges: values are read as text by plain SQL, spans are joined by its own map.

#![allow(dead_code, reason = "a tool box: a build without some connectors uses less of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use chrono::{DateTime, NaiveDate, NaiveDateTime};
use dataflow::epoch::{DataFile, Manifest};
use dataflow::progress::Progress;
use futures::TryStreamExt;
use loadtest::{Expected, Kind, RowHash, TableExpected, row_hash};
use object_store::{ObjectStore, ObjectStoreExt};
use sqlx::{AssertSqlSafe, Connection, Row};

/// A warehouse to look into, by other means than the product's own.
#[derive(Debug, Clone)]
pub enum Database {
    /// A file.
    Sqlite(PathBuf),
    /// A server's URL and the schema of the tables.
    #[cfg(feature = "postgres")]
    Postgres { url: String, schema: String },
}

/// What people see, and how it is compared.
#[derive(Debug, Clone)]
pub struct Oracle {
    database: Database,
    visible: BTreeMap<String, String>,
}

type Texts = Vec<Vec<Option<String>>>;

impl Oracle {
    /// Looks into an SQLite file.
    pub fn sqlite(path: impl Into<PathBuf>) -> Self {
        Self { database: Database::Sqlite(path.into()), visible: BTreeMap::new() }
    }

    /// Looks into a PostgreSQL schema.
    #[cfg(feature = "postgres")]
    pub fn postgres(url: impl Into<String>, schema: impl Into<String>) -> Self {
        Self { database: Database::Postgres { url: url.into(), schema: schema.into() }, visible: BTreeMap::new() }
    }

    /// Only rows for which `condition` holds are people's rows: `NOT _deleted` of a soft table, `_current` of a history.
    pub fn visible(mut self, table: &str, condition: &str) -> Self {
        self.visible.insert(table.to_owned(), condition.to_owned());
        self
    }

    /// Fails the test unless every table holds exactly what is expected.
    #[track_caller]
    pub fn assert(&self, differences: &[String]) {
        assert!(differences.is_empty(), "{:?}:\n  {}", self.database, differences.join("\n  "));
    }

    /// Every way in which the warehouse differs from `expected`; empty when nothing is lost, doubled or changed.
    pub async fn differences(&self, expected: &Expected) -> Vec<String> {
        let mut found = Vec::new();
        for (name, table) in &expected.tables {
            match self.table(name, table).await {
                Ok(differences) => found.extend(differences.into_iter().map(|text| format!("{name}: {text}"))),
                Err(error) => found.push(format!("{name}: {error}")),
            }
        }
        found
    }

    async fn table(&self, name: &str, expected: &TableExpected) -> Result<Vec<String>, sqlx::Error> {
        let columns: Vec<String> = expected.columns.iter().map(|c| self.text_of(&c.name, c.kind)).collect();
        let table = self.qualified(name);
        let condition = self.visible.get(name).map_or("1 = 1", String::as_str);
        let rows = self.rows(&format!("SELECT {} FROM {table} WHERE {condition}", columns.join(", "))).await?;
        let (hash, sums) = digest(&rows, expected);
        let mut found = Vec::new();
        if hash.rows != expected.rows {
            found.push(format!("{} rows, expected {}", hash.rows, expected.rows));
        }
        if hash.hex() != expected.hash {
            found.push(format!("row hash {}, expected {}", hash.hex(), expected.hash));
        }
        if sums != expected.sums.clone().into_iter().filter(|(name, _)| sums.contains_key(name)).collect() {
            found.push(format!("sums {sums:?}, expected {:?}", expected.sums));
        }
        if expected.key.is_empty() {
            found.extend(self.delivered_twice(&table).await?);
        } else {
            found.extend(self.key_twice(&table, condition, &expected.key).await?);
        }
        let without = self.number(&format!("SELECT count(*) FROM {table} WHERE _seq IS NULL")).await?;
        if without > 0 {
            found.push(format!("{without} rows have no _seq"));
        }
        Ok(found)
    }

    /// A table without a key: each (partition, order) once.
    async fn delivered_twice(&self, table: &str) -> Result<Option<String>, sqlx::Error> {
        let sql = format!(
            "SELECT count(*) FROM (SELECT 1 AS one FROM {table} GROUP BY _partition, _seq HAVING count(*) > 1) AS twice"
        );
        let twice = self.number(&sql).await?;
        Ok((twice > 0).then(|| format!("{twice} places of the stream are there more than once")))
    }

    async fn key_twice(&self, table: &str, condition: &str, key: &[String]) -> Result<Option<String>, sqlx::Error> {
        let key: Vec<String> = key.iter().map(|name| quoted(name)).collect();
        let sql = format!(
            "SELECT count(*) FROM (SELECT 1 AS one FROM {table} WHERE {condition} GROUP BY {} HAVING count(*) > 1) AS twice",
            key.join(", ")
        );
        let twice = self.number(&sql).await?;
        Ok((twice > 0).then(|| format!("{twice} keys are there more than once")))
    }

    /// What the warehouse says became of the rows it was given, by table: loaded, applied, superseded, incomplete.
    pub async fn load_accounts(&self) -> Result<BTreeMap<String, [u64; 4]>, sqlx::Error> {
        let numbers = ["loaded", "applied", "superseded", "incomplete"].map(|name| format!("CAST({name} AS TEXT)"));
        let table = self.qualified("_dataflow_tables");
        let rows = self.rows(&format!("SELECT table_name, {} FROM {table}", numbers.join(", "))).await?;
        let number = |text: &Option<String>| text.as_deref().unwrap().parse().unwrap();
        Ok(rows
            .iter()
            .map(|row| (row[0].clone().unwrap(), [number(&row[1]), number(&row[2]), number(&row[3]), number(&row[4])]))
            .collect())
    }

    fn qualified(&self, table: &str) -> String {
        match &self.database {
            Database::Sqlite(_) => quoted(table),
            #[cfg(feature = "postgres")]
            Database::Postgres { schema, .. } => format!("{}.{}", quoted(schema), quoted(table)),
        }
    }

    /// The expression that gives a column's value as text. PostgreSQL counts days and microseconds itself.
    fn text_of(&self, column: &str, kind: Kind) -> String {
        let column = quoted(column);
        match (&self.database, kind) {
            #[cfg(feature = "postgres")]
            (Database::Postgres { .. }, Kind::Date) => format!("({column} - date '1970-01-01')::text"),
            #[cfg(feature = "postgres")]
            (Database::Postgres { .. }, Kind::Timestamp | Kind::TimestampTz) => {
                format!("(extract(epoch from {column}) * 1000000)::bigint::text")
            }
            _ => format!("CAST({column} AS TEXT)"),
        }
    }

    /// The number that a query gives.
    pub async fn number(&self, sql: &str) -> Result<i64, sqlx::Error> {
        let rows = self.rows(&format!("SELECT CAST(({sql}) AS TEXT)")).await?;
        Ok(rows[0][0].as_deref().unwrap().parse().unwrap())
    }

    /// Rows of texts.
    pub async fn rows(&self, sql: &str) -> Result<Texts, sqlx::Error> {
        match &self.database {
            Database::Sqlite(path) => {
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).read_only(true);
                let mut connection = sqlx::SqliteConnection::connect_with(&options).await?;
                let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await?;
                rows.iter().map(|row| (0..row.len()).map(|i| row.try_get(i)).collect()).collect()
            }
            #[cfg(feature = "postgres")]
            Database::Postgres { url, .. } => {
                let mut connection = sqlx::PgConnection::connect(url).await?;
                let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await?;
                rows.iter().map(|row| (0..row.len()).map(|i| row.try_get(i)).collect()).collect()
            }
        }
    }
}

fn quoted(name: &str) -> String {
    format!("\"{name}\"")
}

/// Hash and decimal sums of rows of texts in the order of the expected columns.
fn digest(rows: &Texts, expected: &TableExpected) -> (RowHash, BTreeMap<String, i64>) {
    let mut hash = RowHash::default();
    let mut sums: BTreeMap<String, i64> = BTreeMap::new();
    for row in rows {
        let cells: Vec<(&str, String)> = expected
            .columns
            .iter()
            .zip(row)
            .filter_map(|(column, text)| Some((column.name.as_str(), canonical(text.as_deref()?, column.kind))))
            .collect();
        for (column, (_, text)) in
            expected.columns.iter().filter_map(|c| Some((c, cells.iter().find(|x| x.0 == c.name)?)))
        {
            if let Kind::Decimal { .. } = column.kind {
                *sums.entry(column.name.clone()).or_default() +=
                    text.replace('.', "").parse::<i64>().unwrap_or(i64::MIN / 2);
            }
        }
        hash.add(row_hash(cells.iter().map(|(name, text)| (*name, text.as_str()))));
    }
    (hash, sums)
}

/// The canonical text (see `loadtest::row_hash`) of a value's text. What cannot be understood stays as it is, and then
/// does not compare equal.
fn canonical(text: &str, kind: Kind) -> String {
    let understood = match kind {
        Kind::Boolean => match text {
            "1" | "t" => Some("true".to_owned()),
            "0" | "f" => Some("false".to_owned()),
            _ => None,
        },
        Kind::Double => text.parse::<f64>().ok().map(|value| value.to_string()),
        Kind::Date => {
            let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok();
            date.map(|date| date.signed_duration_since(NaiveDate::default()).num_days().to_string())
        }
        Kind::Timestamp | Kind::TimestampTz => DateTime::parse_from_rfc3339(text)
            .map(|time| time.timestamp_micros())
            .or_else(|_| {
                NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S%.f")
                    .map(|time| time.and_utc().timestamp_micros())
            })
            .ok()
            .map(|micros| micros.to_string()),
        _ => None,
    };
    understood.unwrap_or_else(|| text.to_owned())
}

/// All manifests of a lake, in order.
#[derive(Debug, Clone)]
pub struct LogReader {
    /// The manifests.
    pub manifests: Vec<Manifest>,
}

impl LogReader {
    /// Reads the lake in a local folder.
    pub async fn folder(path: &Path) -> Self {
        let store = object_store::local::LocalFileSystem::new_with_prefix(path).unwrap();
        Self::read(&store, "").await
    }

    /// Reads the lake below `prefix` of any store.
    pub async fn read(store: &dyn ObjectStore, prefix: &str) -> Self {
        let root = object_store::path::Path::from(prefix);
        let log = root.clone().join("_log");
        let objects = store.list_with_delimiter(Some(&log)).await.unwrap().objects;
        let mut manifests = Vec::new();
        for object in objects {
            let number = object.location.filename().and_then(|name| name.strip_suffix(".json")?.parse::<u64>().ok());
            let Some(number) = number else { continue };
            let bytes = store.get(&object.location).await.unwrap().bytes().await.unwrap();
            let manifest: Manifest = serde_json::from_slice(&bytes).unwrap();
            assert_eq!(manifest.n, number, "{} holds manifest {}", object.location, manifest.n);
            manifests.push(manifest);
        }
        manifests.sort_by_key(|manifest| manifest.n);
        Self { manifests }
    }

    /// Every broken rule of the log: numbers dense from 1, one log, spans joining on, no file named twice, accounts that
    /// balance.
    pub fn broken_rules(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut at: BTreeMap<String, (String, u32)> = BTreeMap::new();
        let mut files = BTreeSet::new();
        for (manifest, wanted) in self.manifests.iter().zip(1..) {
            let n = manifest.n;
            if n != wanted {
                found.push(format!("manifest {n} stands where {wanted} must be"));
            }
            if manifest.log != self.manifests[0].log {
                found.push(format!("manifest {n} belongs to log {}", manifest.log));
            }
            for advance in &manifest.spans {
                let (partition, span) = (advance.partition.to_string(), &advance.span);
                if let Some((position, generation)) = at.get(&partition) {
                    if *position != span.from.0 {
                        found.push(format!(
                            "manifest {n} reads {partition} from {}, the log stood at {position}",
                            span.from
                        ));
                    }
                    if *generation > advance.generation {
                        found.push(format!(
                            "manifest {n} goes back to generation {} of {partition}",
                            advance.generation
                        ));
                    }
                }
                at.insert(partition, (span.to.0.clone(), advance.generation));
            }
            for file in data_files(manifest) {
                if !files.insert(file.path.clone()) {
                    found.push(format!("manifest {n} names {} a second time", file.path));
                }
            }
            found.extend(imbalance(manifest).map(|text| format!("manifest {n}: {text}")));
        }
        found
    }

    /// Every file that a manifest names and that is missing or not as it says.
    pub async fn broken_files(&self, store: &dyn ObjectStore, prefix: &str) -> Vec<String> {
        let mut found = Vec::new();
        for file in self.manifests.iter().flat_map(data_files) {
            let path = object_store::path::Path::from(format!("{prefix}/{}", file.path).trim_start_matches('/'));
            match store.get(&path).await {
                Ok(object) => {
                    let bytes = object.bytes().await.unwrap();
                    if bytes.len() as u64 != file.bytes || crc32fast::hash(&bytes) != file.crc32 {
                        found.push(format!("{path} is not what its manifest says"));
                    }
                }
                Err(error) => found.push(format!("{path}: {error}")),
            }
        }
        found
    }

    /// Records read from a source.
    pub fn records_read(&self) -> u64 {
        self.manifests.iter().flat_map(|m| m.account.records.values()).map(|a| a.read).sum()
    }

    /// Rows written to `processed`, by table.
    pub fn written(&self) -> BTreeMap<String, u64> {
        let mut sum = BTreeMap::new();
        for (table, account) in self.manifests.iter().flat_map(|m| &m.account.tables) {
            *sum.entry(table.clone()).or_default() += account.written;
        }
        sum
    }

    /// Rows of a table written to `processed`, by each manifest that has some.
    pub fn written_at_once(&self, table: &str) -> Vec<u64> {
        let accounts = self.manifests.iter().filter_map(|m| m.account.tables.get(table));
        accounts.map(|account| account.written).filter(|rows| *rows > 0).collect()
    }

    /// Records and rows that were refused on the way into the lake.
    pub fn refused(&self) -> u64 {
        let records = self.manifests.iter().flat_map(|m| m.account.records.values()).map(|a| a.rejected).sum::<u64>();
        let tables = self.manifests.iter().flat_map(|m| m.account.tables.values());
        records + tables.map(|a| a.rejected.values().sum::<u64>() + a.replaced).sum::<u64>()
    }

    /// Entries of the quarantine.
    pub fn quarantined(&self) -> u64 {
        self.manifests.iter().filter_map(|m| m.quarantine.as_ref()).map(|q| q.file.rows).sum()
    }

    /// Payloads in the raw zone.
    pub fn raw_rows(&self) -> u64 {
        self.manifests.iter().filter_map(|m| m.raw.as_ref()).map(|file| file.rows).sum()
    }

    /// The files that no manifest names: rubbish of attempts that died, which must never be read.
    pub async fn orphans(&self, store: &dyn ObjectStore, prefix: &str) -> Vec<String> {
        let named: BTreeSet<String> = self.manifests.iter().flat_map(data_files).map(|f| f.path.clone()).collect();
        let root = object_store::path::Path::from(prefix);
        let all: Vec<_> = store.list(Some(&root)).try_collect().await.unwrap();
        let below = |path: &object_store::path::Path| {
            path.as_ref().trim_start_matches(prefix).trim_start_matches('/').to_owned()
        };
        all.iter().map(|o| below(&o.location)).filter(|p| p.ends_with(".parquet") && !named.contains(p)).collect()
    }
}

fn data_files(manifest: &Manifest) -> impl Iterator<Item = &DataFile> {
    let tables = manifest.tables.values().flat_map(|table| &table.files);
    tables.chain(manifest.quarantine.iter().map(|q| &q.file)).chain(&manifest.raw)
}

/// The sums of the account, added up here and not by the product.
fn imbalance(manifest: &Manifest) -> Option<String> {
    for (source, a) in &manifest.account.records {
        let rest = a.rows + a.merged + a.control + a.redelivered + a.rejected + a.unrouted;
        if a.read != rest {
            return Some(format!("source {source}: {} records read, {rest} accounted for", a.read));
        }
    }
    for (table, a) in &manifest.account.tables {
        let rest = a.written + a.filtered.values().sum::<u64>() + a.rejected.values().sum::<u64>();
        if a.decoded != rest {
            return Some(format!("table {table}: {} rows decoded, {rest} accounted for", a.decoded));
        }
    }
    let entries = manifest.quarantine.as_ref()?;
    let by_table: u64 = entries.by_table.values().sum();
    (by_table != entries.file.rows).then(|| format!("quarantine: {} entries, {by_table} by table", entries.file.rows))
}

mod the_judge_itself {
    use super::*;

    #[test]
    fn reads_what_each_warehouse_prints() {
        for (text, kind, wanted) in [
            ("1", Kind::Boolean, "true"),
            ("false", Kind::Boolean, "false"),
            ("12.0", Kind::Double, "12"),
            ("12.125", Kind::Double, "12.125"),
            ("1970-02-01", Kind::Date, "31"),
            ("-7", Kind::Date, "-7"),
            ("1970-01-01T00:00:01.000007", Kind::Timestamp, "1000007"),
            ("1970-01-01T00:00:01.000007Z", Kind::TimestampTz, "1000007"),
            ("1000007", Kind::TimestampTz, "1000007"),
            ("12.30", Kind::Decimal { precision: 12, scale: 2 }, "12.30"),
        ] {
            assert_eq!(canonical(text, kind), wanted, "{text}");
        }
    }

    #[tokio::test]
    async fn sees_a_lost_a_doubled_and_a_changed_row() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.db");
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&path).create_if_missing(true);
        let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
        let mut run = async |sql: &str| sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut connection).await.unwrap();
        run("CREATE TABLE t (id INTEGER, amount TEXT, _seq TEXT); INSERT INTO t VALUES (1, '1.50', 'a'), (2, NULL, 'b')").await;
        let mut hash = RowHash::default();
        hash.add(row_hash([("id", "1"), ("amount", "1.50")]));
        hash.add(row_hash([("id", "2")]));
        let table: TableExpected = serde_json::from_value(serde_json::json!({
            "topic": "", "key": ["id"], "events": {}, "bad": {}, "moves": 0, "redelivered": 0, "tombstones": 0, "rows": 2,
            "columns": [{ "name": "id", "kind": "big_int" },
                        { "name": "amount", "kind": { "decimal": { "precision": 12, "scale": 2 } } }],
            "hash": hash.hex(), "sums": { "amount": 150 }
        }))
        .unwrap();
        let expected = Expected { tables: [("t".to_owned(), table)].into(), ..Expected::default() };
        let oracle = Oracle::sqlite(&path);
        oracle.assert(&oracle.differences(&expected).await);
        for wrong in [
            "UPDATE t SET amount = '1.51' WHERE id = 1",
            "UPDATE t SET amount = '1.50' WHERE id = 1; INSERT INTO t VALUES (2, NULL, 'b')",
            "DELETE FROM t WHERE id = 2",
        ] {
            run(wrong).await;
            assert!(!oracle.differences(&expected).await.is_empty(), "{wrong}");
        }
    }

    fn manifest(n: u64, from: u64, to: u64) -> Manifest {
        serde_json::from_value(serde_json::json!({
            "format": 1, "reader": 1, "log": uuid::Uuid::nil(), "n": n, "attempt": ulid::Ulid::nil(),
            "sealed_at": "2026-01-01T00:00:00Z",
            "spans": [{ "source": "shop", "name": "t/0", "from": from.to_string(), "to": to.to_string(), "generation": 0 }]
        }))
        .unwrap()
    }

    fn rules(manifests: &[Manifest]) -> usize {
        LogReader { manifests: manifests.to_vec() }.broken_rules().len()
    }

    #[test]
    fn sees_a_gap_a_double_and_a_missing_number() {
        assert_eq!(rules(&[manifest(1, 0, 5), manifest(2, 5, 9)]), 0);
        assert_eq!(rules(&[manifest(1, 0, 5), manifest(2, 6, 9)]), 1);
        assert_eq!(rules(&[manifest(1, 0, 5), manifest(2, 4, 9)]), 1);
        assert_eq!(rules(&[manifest(1, 0, 5), manifest(3, 5, 9)]), 1);
    }

    #[test]
    fn judge_and_product_agree_on_what_joins() {
        for from in [0, 4, 5, 6] {
            let both = [manifest(1, 0, 5), manifest(2, from, 9)];
            let mut progress = Progress::default();
            let product = both.iter().flat_map(|m| &m.spans).try_for_each(|advance| progress.advance(advance));
            assert_eq!(product.is_ok(), rules(&both) == 0, "from {from}");
        }
    }

    #[test]
    fn judge_and_product_agree_on_what_balances() {
        for (read, rows, decoded, rejected) in [(5, 5, 5, 0), (6, 5, 5, 0), (5, 5, 6, 0), (5, 5, 6, 1), (4, 5, 5, 0)] {
            let mut one = manifest(1, 0, 5);
            let record = one.account.records.entry("shop".into()).or_default();
            (record.read, record.rows) = (read, rows);
            let table = one.account.tables.entry("orders".into()).or_default();
            (table.decoded, table.written) = (decoded, 5);
            table.rejected.insert("rule".into(), rejected);
            let product = one.account.imbalance();
            assert_eq!(product.is_none(), rules(&[one]) == 0, "{read} {rows} {decoded} {rejected}: {product:?}");
        }
    }
}
