//! What this very cluster makes of things that no page of the documentation promises: a few small files are staged, loaded
//! into temporary tables, looked at, and rolled back.

use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::{
    ArrayRef, BinaryArray, Date32Array, Decimal128Array, Float64Array, Int16Array, Int32Array, Int64Array, RecordBatch,
    StringArray, TimestampMicrosecondArray,
};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, Int32Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use serde_json::json;
use ulid::Ulid;

use super::session::Session;
use super::{Redshift, sql};
use crate::error::{Disposition, Error, ErrorKind, Result};
use crate::finding::{Findings, Level};
use crate::warehouse::names::quote;

/// The temporary table of a case.
const TABLE: &str = "_dataflow_probe";
/// 2026-01-02 03:04:05.678901 in UTC.
const TIME_US: i64 = 1_767_323_045_678_901;
/// How many commits are timed.
const COMMITS: u32 = 5;
/// In how many sessions at once, beside the probe's own: as many as loads use.
const SESSIONS: usize = 3;

/// A file that is loaded, and what must come of it.
struct Case {
    /// What is tried, for people.
    what: &'static str,
    /// Whether loads do it: then it must work.
    needed: bool,
    columns: &'static str,
    names: &'static [&'static str],
    options: &'static str,
    body: Bytes,
    /// Statements, of which the last is a query of one value.
    ask: &'static str,
    answer: &'static str,
    /// What it means that the answer is another one.
    otherwise: &'static str,
}

type Written = std::result::Result<Bytes, parquet::errors::ParquetError>;

fn file(columns: Vec<(&str, ArrayRef)>, compression: Compression) -> Written {
    let batch = RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true)))?;
    let properties = WriterProperties::builder().set_compression(compression).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties))?;
    writer.write(&batch)?;
    writer.into_inner().map(Bytes::from)
}

/// A row `k = 1` with a document, in a column that says that its texts are JSON.
fn json_file(document: &str) -> Written {
    let schema = Arc::new(parse_message_type("message m { optional int32 k; optional binary doc (JSON); }")?);
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::default())?;
    let mut group = writer.next_row_group()?;
    if let Some(mut column) = group.next_column()? {
        column.typed::<Int32Type>().write_batch(&[1], Some(&[1]), None)?;
        column.close()?;
    }
    if let Some(mut column) = group.next_column()? {
        column.typed::<ByteArrayType>().write_batch(&[ByteArray::from(document)], Some(&[1]), None)?;
        column.close()?;
    }
    group.close()?;
    writer.into_inner().map(Bytes::from)
}

/// A document that no text holds.
fn long_file() -> Written {
    json_file(&serde_json::Value::from(vec!["x".repeat(50_000); 2]).to_string())
}

type Cases = std::result::Result<Vec<Case>, parquet::errors::ParquetError>;

fn time() -> TimestampMicrosecondArray {
    TimestampMicrosecondArray::from(vec![TIME_US])
}

/// What loads do.
fn needed_cases() -> Cases {
    let decimal = |value: i128, precision, scale| -> std::result::Result<ArrayRef, parquet::errors::ParquetError> {
        Ok(Arc::new(Decimal128Array::from(vec![value]).with_precision_and_scale(precision, scale)?))
    };
    Ok(vec![
        Case {
            what: "integers, floats, texts, dates, times and bytes load",
            needed: true,
            columns: "i2 smallint, i4 integer, i8 bigint, f8 double precision, w varchar(10), d date, at timestamp, b varbyte",
            names: &["i2", "i4", "i8", "f8", "w", "d", "at", "b"],
            options: "",
            body: file(
                vec![
                    ("i2", Arc::new(Int16Array::from(vec![i16::MIN]))),
                    ("i4", Arc::new(Int32Array::from(vec![i32::MIN]))),
                    ("i8", Arc::new(Int64Array::from(vec![i64::MIN]))),
                    ("f8", Arc::new(Float64Array::from(vec![0.25]))),
                    ("w", Arc::new(StringArray::from(vec!["é日🎉 "]))),
                    ("d", Arc::new(Date32Array::from(vec![20_455]))),
                    ("at", Arc::new(time())),
                    ("b", Arc::new(BinaryArray::from(vec![&b"\x00\xff"[..]]))),
                ],
                Compression::SNAPPY,
            )?,
            ask: "SELECT count(*) FROM _dataflow_probe WHERE i2 = -32768 AND i4 = -2147483648 AND i8 + 1 = \
                  -9223372036854775807 AND f8 = 0.25 AND octet_length(w) = 10 AND d = DATE '2026-01-02' \
                  AND at = TIMESTAMP '2026-01-02 03:04:05.678901' AND octet_length(b) = 2",
            answer: "1",
            otherwise: "loads would bring other values than the source has",
        },
        Case {
            what: "decimals of 9, 18, 19 and 38 digits (INT32, INT64 and bytes in the file) load",
            needed: true,
            columns: "d9 numeric(9,2), d18 numeric(18,4), d19 numeric(19,4), d38 numeric(38,10)",
            names: &["d9", "d18", "d19", "d38"],
            options: "",
            body: file(
                vec![
                    ("d9", decimal(-125, 9, 2)?),
                    ("d18", decimal(12_345_678_901_234, 18, 4)?),
                    ("d19", decimal(-9_000_000_000_000_000_000, 19, 4)?),
                    ("d38", decimal(1, 38, 10)?),
                ],
                Compression::SNAPPY,
            )?,
            ask: "SELECT count(*) FROM _dataflow_probe WHERE d9 = -1.25 AND d18 = 1234567890.1234 \
                  AND d19 = -900000000000000 AND d38 = 0.0000000001",
            answer: "1",
            otherwise: "decimals must not be loaded into this cluster",
        },
    ])
}

/// What loads could do, if it worked everywhere.
fn other_cases() -> Cases {
    let integer = || -> ArrayRef { Arc::new(Int32Array::from(vec![7])) };
    Ok(vec![
        Case {
            what: "times that are adjusted to UTC load into TIMESTAMPTZ",
            needed: false,
            columns: "at timestamptz",
            names: &["at"],
            options: "",
            body: file(vec![("at", Arc::new(time().with_timezone("UTC")))], Compression::SNAPPY)?,
            ask: "SELECT count(*) FROM _dataflow_probe WHERE at AT TIME ZONE 'UTC' = TIMESTAMP '2026-01-02 03:04:05.678901'",
            answer: "1",
            otherwise: "loads do not need it: they go through TIMESTAMP in UTC",
        },
        Case {
            what: "Parquet packed with Zstandard loads",
            needed: false,
            columns: "i integer",
            names: &["i"],
            options: "",
            body: file(vec![("i", integer())], Compression::ZSTD(ZstdLevel::default()))?,
            ask: "SELECT max(i) FROM _dataflow_probe",
            answer: "7",
            otherwise: "loads do not need it: staged files are packed with Snappy",
        },
        Case {
            what: "FILLRECORD goes with a list of columns",
            needed: false,
            columns: "i integer, more integer",
            names: &["i", "more"],
            options: " FILLRECORD",
            body: file(vec![("i", integer())], Compression::SNAPPY)?,
            ask: "SELECT count(*) FROM _dataflow_probe WHERE i = 7 AND more IS NULL",
            answer: "1",
            otherwise: "loads do not need it: files have every column",
        },
    ])
}

/// What rows with a document that is too long for a text need.
fn document_cases() -> Cases {
    Ok(vec![
        Case {
            what: "JSON loads into SUPER as a document (SERIALIZETOJSON)",
            needed: false,
            columns: "k integer, doc super",
            names: &["k", "doc"],
            options: sql::SERIALIZE,
            body: json_file("{\"a\":[1,null]}")?,
            ask: "SELECT json_typeof(doc) FROM _dataflow_probe",
            answer: "object",
            otherwise: "documents beyond 65535 bytes do not load; shorter ones go through VARCHAR and JSON_PARSE",
        },
        Case {
            what: "documents beyond 65535 bytes load, and go from a stage into a table",
            needed: false,
            columns: "k integer, doc super",
            names: &["k", "doc"],
            options: sql::SERIALIZE,
            body: long_file()?,
            ask: "CREATE TEMP TABLE _dataflow_probe_s (k integer, doc super);\
                  DELETE FROM _dataflow_probe USING _dataflow_probe_s WHERE _dataflow_probe.k = _dataflow_probe_s.k;\
                  INSERT INTO _dataflow_probe_s SELECT k, doc FROM _dataflow_probe;\
                  SELECT count(*) FROM _dataflow_probe_s WHERE json_typeof(doc) = 'array' AND json_size(doc) > 65535",
            answer: "1",
            otherwise: "rows with such documents park their table: keep them out, as the message of the parked table says",
        },
        Case {
            what: "documents beyond 65535 bytes stay when other columns of their row change",
            needed: false,
            columns: "k integer, doc super",
            names: &["k", "doc"],
            options: sql::SERIALIZE,
            body: long_file()?,
            ask: "CREATE TEMP TABLE _dataflow_probe_s (k integer, doc super);\
                  INSERT INTO _dataflow_probe_s SELECT 1, NULL;\
                  UPDATE _dataflow_probe_s SET doc = CASE WHEN _dataflow_probe_s.k = 1 THEN b.doc ELSE NULL END \
                  FROM _dataflow_probe AS b WHERE _dataflow_probe_s.k = b.k;\
                  UPDATE _dataflow_probe SET k = 1 WHERE k IN (SELECT x.k FROM _dataflow_probe AS x, _dataflow_probe_s AS b \
                  WHERE x.k = b.k);\
                  UPDATE _dataflow_probe SET k = 2 FROM _dataflow_probe_s WHERE _dataflow_probe.k = _dataflow_probe_s.k;\
                  SELECT (SELECT count(*) FROM _dataflow_probe WHERE k = 2 AND json_size(doc) > 65535) + \
                  (SELECT count(*) FROM _dataflow_probe_s WHERE json_size(doc) > 65535)",
            answer: "2",
            otherwise: "a change that leaves such a document as it is parks its table: let the source send whole rows",
        },
    ])
}

/// Statements that loads use, or might use, on temporary tables: what, whether loads use it, the statements of which the
/// last gives one value, and the value.
const STATEMENTS: [(&str, bool, &[&str], &str); 9] = [
    (
        "JSON_PARSE and JSON_SERIALIZE give a document back",
        true,
        &["SELECT JSON_SERIALIZE(JSON_PARSE('[1]')) = '[1]' AND JSON_SIZE(JSON_PARSE('[1]')) = 3"],
        "t",
    ),
    (
        "of equal names in an object JSON_PARSE keeps the last",
        true,
        &["SELECT JSON_SERIALIZE(JSON_PARSE('{\"a\":1,\"a\":2}')) = JSON_SERIALIZE(JSON_PARSE('{\"a\":2}'))"],
        "t",
    ),
    ("bytes are read as hexadecimal digits", false, &["SELECT CAST('ab' AS varbyte)"], "6162"),
    ("a document is read as its text", true, &["SELECT JSON_PARSE('[1]')"], "[1]"),
    (
        "texts that differ in trailing blanks alone are told apart by their lengths",
        true,
        &[
            "CREATE TEMP TABLE _dataflow_probe (k varchar(9))",
            "INSERT INTO _dataflow_probe VALUES ('a'), ('a ')",
            "SELECT count(*) FROM _dataflow_probe AS l JOIN _dataflow_probe AS r ON l.k = r.k \
             AND octet_length(l.k) = octet_length(r.k)",
        ],
        "2",
    ),
    (
        "times go through UTC into TIMESTAMPTZ and back",
        true,
        &["SELECT (TIMESTAMP '2026-01-02 03:04:05.678901' AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' = \
           TIMESTAMP '2026-01-02 03:04:05.678901'"],
        "t",
    ),
    (
        "DELETE … USING and UPDATE … FROM change temporary tables",
        true,
        &[
            "CREATE TEMP TABLE _dataflow_probe (k integer, v integer)",
            "CREATE TEMP TABLE _dataflow_probe_s (k integer, v integer)",
            "INSERT INTO _dataflow_probe VALUES (1, 1), (2, 2)",
            "INSERT INTO _dataflow_probe_s VALUES (1, 5), (2, 6)",
            "UPDATE _dataflow_probe SET v = _dataflow_probe_s.v FROM _dataflow_probe_s \
             WHERE _dataflow_probe.k = _dataflow_probe_s.k",
            "DELETE FROM _dataflow_probe USING _dataflow_probe_s WHERE _dataflow_probe.k = _dataflow_probe_s.k \
             AND _dataflow_probe.v = 6",
            "SELECT sum(v) FROM _dataflow_probe",
        ],
        "5",
    ),
    ("JSON_SERIALIZE of nothing is the text null", false, &["SELECT JSON_SERIALIZE(CAST(NULL AS super))"], "null"),
    (
        "MERGE takes a sub-query for its source",
        false,
        &[
            "CREATE TEMP TABLE _dataflow_probe (k integer, v integer)",
            "CREATE TEMP TABLE _dataflow_probe_s (k integer, v integer)",
            "INSERT INTO _dataflow_probe VALUES (1, 1)",
            "INSERT INTO _dataflow_probe_s VALUES (1, 5), (2, 6)",
            "MERGE INTO _dataflow_probe USING (SELECT k, v FROM _dataflow_probe_s) AS s ON _dataflow_probe.k = s.k \
             WHEN MATCHED THEN UPDATE SET v = s.v WHEN NOT MATCHED THEN INSERT VALUES (s.k, s.v)",
            "SELECT sum(v) FROM _dataflow_probe",
        ],
        "11",
    ),
];

/// What became of a case.
enum Tried {
    Works,
    /// It gave this instead.
    Other(String),
    /// It was refused.
    Refused(Error),
}

impl Redshift {
    /// Tries everything.
    ///
    /// # Errors
    /// What keeps the rest from being tried: the cluster or the store is away, or COPY may not read.
    pub(super) async fn conform(&self, session: &mut Session, found: &mut Findings) -> Result<()> {
        let unwritten = |error| Error::new(ErrorKind::Internal, "write the files of the probe").because(error);
        let needed = needed_cases().map_err(unwritten)?;
        let others = other_cases().map_err(unwritten)?.into_iter().chain(document_cases().map_err(unwritten)?);
        for case in needed.into_iter().chain(others) {
            let tried = self.load_case(session, &case).await?;
            say(found, case.what, case.needed, case.otherwise, tried);
        }
        for (what, needed, statements, answer) in STATEMENTS {
            let tried = in_transaction(session, statements, answer).await?;
            let otherwise = if needed { "loads do it" } else { "loads do not need it" };
            say(found, what, needed, otherwise, tried);
        }
        if self.sessions.through_api() {
            found.good("a transaction goes over several calls of a session of the Data API");
            let tried = changes_are_counted(session).await?;
            let what = "the Data API says how many rows a statement has changed";
            say(found, what, true, "loads do not add up without it", tried);
        }
        self.views_replaced(session, found).await?;
        found.add(Level::Note, self.commits(session).await?, None);
        Ok(())
    }

    /// What CREATE OR REPLACE makes of a late-binding view that gets a column more.
    async fn views_replaced(&self, session: &mut Session, found: &mut Findings) -> Result<()> {
        let schemas = [self.views.as_str(), self.names.schema()];
        let names = schemas.map(|schema| super::text(&schema.to_ascii_lowercase())).join(", ");
        let there = session.run(&format!("SELECT nspname FROM pg_namespace WHERE nspname IN ({names})"), None).await?;
        let is_there =
            |schema: &&str| there.rows.iter().flatten().flatten().any(|name| name.eq_ignore_ascii_case(schema));
        let Some(schema) = schemas.into_iter().find(is_there) else { return Ok(()) };
        let view = format!("{}.{TABLE}", quote(schema));
        let create =
            |how: &str, columns: &str| format!("CREATE {how} {view} AS SELECT {columns} WITH NO SCHEMA BINDING");
        let (first, count) = (create("VIEW", "1 AS a"), format!("SELECT sum(b) FROM {view}"));
        let replaced = create("OR REPLACE VIEW", "1 AS a, 2 AS b");
        let tried = in_transaction(session, &[&first, &replaced, &count], "2").await?;
        let otherwise = "such views are dropped and made again";
        say(found, "a late-binding view can be replaced by one with a column more", false, otherwise, tried);
        let (gone, again) = (format!("DROP VIEW {view}"), create("VIEW", "1 AS a, 2 AS b"));
        let tried = in_transaction(session, &[&first, &gone, &again, &count], "2").await?;
        let otherwise = "views are not made again when a table gets a column";
        say(found, "a late-binding view can be dropped and made again in one transaction", false, otherwise, tried);
        Ok(())
    }

    /// How long a commit takes, alone and beside others: all of a cluster's wait in one queue.
    async fn commits(&self, session: &mut Session) -> Result<String> {
        let alone = slowest_commit(session).await?;
        let mut leases = Vec::new();
        for _ in 0..SESSIONS {
            leases.push(self.sessions.lease().await?);
        }
        let all = futures::future::join_all(leases.iter_mut().map(|lease| slowest_commit(&mut lease.session))).await;
        let beside = all.into_iter().collect::<Result<Vec<_>>>()?.into_iter().max().unwrap_or_default();
        leases.into_iter().for_each(|lease| self.sessions.give_back(lease));
        Ok(format!(
            "the slowest of {COMMITS} small commits took {} ms, of {SESSIONS} times {COMMITS} at the same time {} ms",
            alone.as_millis(),
            beside.as_millis()
        ))
    }

    async fn load_case(&self, session: &mut Session, case: &Case) -> Result<Tried> {
        let staging = self.staging.as_deref().ok_or_else(super::not_staged)?;
        let name = format!("_probe/{}", Ulid::new());
        let objects = [format!("{name}.parquet"), format!("{name}.manifest")];
        let entry = json!({"entries": [{
            "url": staging.url(&objects[0]),
            "mandatory": true,
            "meta": {"content_length": case.body.len()},
        }]});
        let create = format!("CREATE TEMP TABLE {TABLE} ({})", case.columns);
        let manifest = staging.url(&objects[1]);
        let copy = sql::copy_with(TABLE, &case.names.join(", "), &manifest, &self.iam_role, case.options);
        let tried = async {
            staging.put(&objects[0], case.body.clone()).await?;
            staging.put(&objects[1], entry.to_string().into()).await?;
            let statements: Vec<&str> = [create.as_str(), &copy].into_iter().chain(case.ask.split(';')).collect();
            in_transaction(session, &statements, case.answer).await
        };
        let tried = tried.await;
        staging.discard(&objects).await;
        tried
    }
}

/// Has it shown that statements of different calls are one transaction, which no page says of the Data API: what one of them
/// has made is there for the next, and gone once it is taken back.
pub(super) async fn prove_transactions(session: &mut Session) -> Result<()> {
    let unproven = |what: String| {
        Error::new(
            ErrorKind::WarehouseRefused,
            format!("the Data API does not keep a transaction from call to call: {what}"),
        )
        .help("loads would not be whole: use a connection (without `transport: data_api`), and please report this")
    };
    let (create, count) = (format!("CREATE TEMP TABLE {TABLE} (k integer)"), format!("SELECT count(*) FROM {TABLE}"));
    session.run("BEGIN", None).await?;
    session.run(&create, None).await?;
    session.run(&format!("INSERT INTO {TABLE} VALUES (1)"), None).await?;
    let there = session.run(&count, None).await?;
    if there.single() != Some("1") {
        return Err(unproven(format!("of one row {:?} are there", there.single())));
    }
    session.run("ROLLBACK", None).await?;
    match session.run(&count, None).await {
        Ok(found) => Err(unproven(format!("{:?} rows are left after ROLLBACK", found.single()))),
        Err(error) if error.disposition() == Disposition::Retry => Err(error),
        // The table is gone.
        Err(_) => Ok(()),
    }
}

/// Whether it is said how many rows statements have changed.
async fn changes_are_counted(session: &mut Session) -> Result<Tried> {
    session.run("BEGIN", None).await?;
    session.run(&format!("CREATE TEMP TABLE {TABLE} (k integer)"), None).await?;
    let inserted = session.run(&format!("INSERT INTO {TABLE} VALUES (1), (2)"), None).await?.affected;
    let none = session.run(&format!("DELETE FROM {TABLE} WHERE k = 3"), None).await?.affected;
    session.run("ROLLBACK", None).await?;
    Ok(match (inserted, none) {
        (2, 0) => Tried::Works,
        other => Tried::Other(format!("{other:?} of 2 and 0")),
    })
}

/// Runs statements and takes them back.
async fn in_transaction(session: &mut Session, statements: &[&str], answer: &str) -> Result<Tried> {
    session.run("BEGIN", None).await?;
    let mut last = None;
    for statement in statements {
        match session.run(statement, None).await {
            Ok(found) => last = found.single().map(|value| value.trim().to_owned()),
            // Whoever cannot be reached, or may not, will not do the rest either.
            Err(error) if error.kind() != &ErrorKind::Internal => return Err(error),
            Err(error) => {
                session.run("ROLLBACK", None).await?;
                return Ok(Tried::Refused(error));
            }
        }
    }
    session.run("ROLLBACK", None).await?;
    Ok(match last {
        Some(found) if found == answer => Tried::Works,
        found => Tried::Other(found.unwrap_or_else(|| "nothing".to_owned())),
    })
}

fn say(found: &mut Findings, what: &str, needed: bool, otherwise: &str, tried: Tried) {
    let report = "the loader relies on it: please report this, with the version of the cluster";
    match tried {
        Tried::Works if needed => found.good(what),
        Tried::Works => found.add(Level::Note, format!("{what}: yes"), None),
        Tried::Other(value) if needed => found.mistake(format!("{what}: no, it gives {value}; {otherwise}"), report),
        Tried::Refused(error) if needed => found.mistake(format!("{what}: no ({error}); {otherwise}"), report),
        Tried::Other(value) => found.add(Level::Note, format!("{what}: no, it gives {value}; {otherwise}"), None),
        Tried::Refused(error) => found.add(Level::Note, format!("{what}: no ({error}); {otherwise}"), None),
    }
}

async fn slowest_commit(session: &mut Session) -> Result<Duration> {
    let mut slowest = Duration::ZERO;
    session.run(&format!("CREATE TEMP TABLE {TABLE} (i integer)"), None).await?;
    for _ in 0..COMMITS {
        session.run("BEGIN", None).await?;
        session.run(&format!("INSERT INTO {TABLE} VALUES (1)"), None).await?;
        let begun = Instant::now();
        session.run("COMMIT", None).await?;
        slowest = slowest.max(begun.elapsed());
    }
    session.run(&format!("DROP TABLE {TABLE}"), None).await?;
    Ok(slowest)
}
