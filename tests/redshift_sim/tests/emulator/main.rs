//! The emulator of Redshift itself: what it loads, refuses, isolates and breaks, in front of a real PostgreSQL and an S3
//! protocol server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, BinaryArray, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int16Array,
    Int32Array, Int64Array, RecordBatch, StringArray, TimestampMicrosecondArray, TimestampNanosecondArray,
};
use arrow::datatypes::Int32Type;
use parquet::data_type::{ByteArray, ByteArrayType};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use redshift_sim::{Fault, Isolation, Kind, Rule};

mod clients;
mod redshift;
mod servers;

use redshift::{Redshift, Session, copy};
use servers::available;

mod transactions;
mod values;

/// A batch of nullable columns.
fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    RecordBatch::try_from_iter_with_nullable(columns.into_iter().map(|(name, array)| (name, array, true))).unwrap()
}

fn ids(ids: &[i64]) -> ArrayRef {
    Arc::new(Int64Array::from(ids.to_vec()))
}

fn texts(values: &[&str]) -> ArrayRef {
    Arc::new(StringArray::from(values.to_vec()))
}

/// A file of one text column that says of itself that it is JSON.
fn json(value: &str) -> Vec<u8> {
    let schema = Arc::new(parse_message_type("message m { required binary j (JSON); }").unwrap());
    let mut writer = SerializedFileWriter::new(Vec::new(), schema, Arc::default()).unwrap();
    let mut group = writer.next_row_group().unwrap();
    let mut column = group.next_column().unwrap().unwrap();
    column.typed::<ByteArrayType>().write_batch(&[ByteArray::from(value)], None, None).unwrap();
    column.close().unwrap();
    group.close().unwrap();
    writer.into_inner().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_that_loads_is_read_back_as_it_was() {
    if !available("postgres") {
        return;
    }
    let redshift = Redshift::start().await;
    let session = redshift.connect().await;
    session
        .all(&["CREATE TABLE t (id BIGINT NOT NULL, s SMALLINT, i INTEGER, r REAL, f DOUBLE PRECISION, b BOOLEAN, d DECIMAL(20,4), \
                day DATE, at TIMESTAMP, atz TIMESTAMPTZ, v VARCHAR(20), j SUPER, y VARBYTE)"])
        .await;
    let values = batch(vec![
        ("f", Arc::new(Float64Array::from(vec![Some(0.5), None])) as ArrayRef),
        ("id", ids(&[1, 9_223_372_036_854_775_807])),
        ("s", Arc::new(Int16Array::from(vec![Some(-3), None]))),
        ("i", Arc::new(Int32Array::from(vec![Some(7), None]))),
        ("r", Arc::new(Float32Array::from(vec![Some(1.5), None]))),
        ("b", Arc::new(BooleanArray::from(vec![Some(true), None]))),
        (
            "d",
            Arc::new(
                Decimal128Array::from(vec![Some(-12_345_678_901_234_567_890), None])
                    .with_precision_and_scale(20, 4)
                    .unwrap(),
            ),
        ),
        ("day", Arc::new(Date32Array::from(vec![Some(19_000), None]))),
        ("at", Arc::new(TimestampMicrosecondArray::from(vec![Some(1_700_000_000_123_456), None]))),
        (
            "atz",
            Arc::new(TimestampMicrosecondArray::from(vec![Some(1_700_000_000_123_456), None]).with_timezone("UTC")),
        ),
        ("v", Arc::new(StringArray::from(vec![Some("tab\there \\ ä\nline"), None]))),
        (
            "j",
            Arc::new(arrow::array::ListArray::from_iter_primitive::<Int32Type, _, _>(vec![
                Some(vec![Some(1), None]),
                None,
            ])),
        ),
        ("y", Arc::new(BinaryArray::from(vec![Some(&[0u8, 255][..]), None]))),
    ]);
    let load = redshift.staged("all", &values, "t (f, id, s, i, r, b, d, day, at, atz, v, j, y)");
    session.all(&[&load]).await;
    assert_eq!(session.rows("SELECT pg_last_copy_count()").await, ["2"]);
    assert_eq!(
        session.rows("SELECT * FROM t ORDER BY id").await,
        [
            "1|-3|7|1.5|0.5|t|-1234567890123456.7890|2022-01-08|2023-11-14 22:13:20.123456|2023-11-14 22:13:20.123456+00|tab\there \\ ä\nline|[1, null]|00ff",
            "9223372036854775807|~|~|~|~|~|~|~|~|~|~|~|~"
        ]
    );
    let counters = redshift.sim.counters();
    assert_eq!((counters.of(Kind::Copy), counters.copied_rows, counters.copied_files), (1, 2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_json_text_becomes_a_document_only_where_the_file_says_that_it_is_one() {
    if !available("postgres") {
        return;
    }
    let redshift = Redshift::start().await;
    let session = redshift.connect().await;
    session.all(&["CREATE TABLE t (j SUPER)"]).await;
    let document = r#"{"n":12345678901234567890.10,"a":[1]}"#;
    let load = |name: &str, text: &str| {
        let file = redshift.put_bytes(&format!("{name}.parquet"), &json(text));
        copy("t", &redshift.manifest(&format!("{name}.manifest"), &[&file]))
    };
    session.all(&[&load("json", document)]).await;
    assert_eq!(session.rows("SELECT j FROM t").await, [r#"{"a": [1], "n": 12345678901234567890.10}"#]);
    session.all(&["TRUNCATE t", &redshift.staged("text", &batch(vec![("j", texts(&[document]))]), "t")]).await;
    assert_eq!(session.rows("SELECT j FROM t").await, [serde_json::to_string(document).unwrap()], "one string");
    let bad = session.refused(&load("bad", "{")).await;
    assert!(bad.detail.contains("not valid JSON"), "{bad:?}");
    let unsaid = load("json", document).replace(" SERIALIZETOJSON", "");
    let bad = session.refused(&unsaid).await;
    assert!(bad.message.contains("SUPER column in COPY query requires SERIALIZETOJSON"), "{bad:?}");
}

/// GIVEN documents about the limits of SUPER and of VARCHAR, THEN a long one loads from a file that says that it is JSON, and
/// from no other; a long string never does; and what makes a text of a long document fails.
#[tokio::test(flavor = "multi_thread")]
async fn a_long_document_is_no_text() {
    if !available("postgres") {
        return;
    }
    let redshift = Redshift::start().await;
    let session = redshift.connect().await;
    session.all(&["CREATE TABLE t (j SUPER)"]).await;
    let load = |name: &str, text: &str| {
        let file = redshift.put_bytes(&format!("{name}.parquet"), &json(text));
        copy("t", &redshift.manifest(&format!("{name}.manifest"), &[&file]))
    };
    let long = format!("[\"{}\",\"{}\"]", "a b".repeat(20_000), "x".repeat(60_000));
    session.all(&[&load("long", &long)]).await;
    let size = format!("array|{}", long.len());
    assert_eq!(session.rows("SELECT JSON_TYPEOF(j), JSON_SIZE(j) FROM t").await, [size.as_str()]);
    assert_eq!(session.rows("SELECT IS_ARRAY(j), IS_OBJECT(j), IS_VARCHAR(j) FROM t").await, ["t|f|f"]);
    let failure = session.refused("SELECT JSON_SERIALIZE(j) FROM t").await;
    assert!(failure.detail.contains("exceeds the max size of 65535 bytes"), "{failure:?}");
    let text = redshift.staged("text", &batch(vec![("j", texts(&[&long]))]), "t");
    let failure = session.refused(&text).await;
    assert!(failure.detail.contains("String value exceeds the max size of 65535 bytes"), "{failure:?}");
    let string = format!("{{\"a\": \"{}\"}}", "x".repeat(65_536));
    for refused in [load("string", &string), format!("SELECT JSON_PARSE('{string}')")] {
        let failure = session.refused(&refused).await;
        assert!((failure.message + &failure.detail).contains("max size of 65535 bytes"));
    }
    session.all(&["TRUNCATE t", &format!("INSERT INTO t SELECT JSON_PARSE('{long}')")]).await;
    assert_eq!(session.rows("SELECT JSON_TYPEOF(j), JSON_SIZE(j) FROM t").await, [size.as_str()]);
    assert_eq!(session.rows("SELECT JSON_SERIALIZE(NULL)").await, ["null"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_the_table_fails_the_whole_copy_and_says_why() {
    if !available("postgres") {
        return;
    }
    let redshift = Redshift::start().await;
    let session = redshift.connect().await;
    session.all(&["CREATE TABLE t (id BIGINT NOT NULL, v VARCHAR(4), at TIMESTAMP, d DECIMAL(10,2), f REAL)"]).await;
    let good = batch(vec![("id", ids(&[1])), ("v", texts(&["fine"]))]);
    let one =
        |name: &'static str, array: ArrayRef, into: &str| redshift.staged(name, &batch(vec![(name, array)]), into);
    let nanos: ArrayRef = Arc::new(TimestampNanosecondArray::from(vec![1]));
    let decimal: ArrayRef = Arc::new(Decimal128Array::from(vec![1]).with_precision_and_scale(12, 2).unwrap());
    let cases = [
        (
            redshift.staged("count", &good, "t"),
            "Unmatched number of columns between table and file. Table columns: 5, Data columns: 2",
        ),
        (
            redshift.staged("order", &good, "t (v, id)"),
            "incompatible Parquet schema for column 's3://lake/order.parquet.id'. Column type: VARCHAR",
        ),
        (
            one("width", Arc::new(Int32Array::from(vec![1])), "t (id)"),
            "Column type: BIGINT, Parquet schema:\noptional int32 width",
        ),
        (one("nanos", nanos, "t (at)"), "Column type: TIMESTAMP"),
        (one("decimal", decimal, "t (d)"), "Column type: DECIMAL"),
        (one("long", texts(&["fünf"]), "t (v)"), "longer than the length defined in the table. Table: 4, Data: 5"),
        (one("nul", texts(&["a\0"]), "t (v)"), "invalid or unsupported UTF8"),
        (one("nan", Arc::new(Float32Array::from(vec![f32::NAN])), "t (f)"), "a value that REAL does not hold"),
    ];
    for (sql, why) in cases {
        let failure = session.refused(&sql).await;
        assert_eq!((failure.code.as_str(), failure.message.as_str()), ("XX000", "Spectrum Scan Error"), "{sql}");
        assert!(failure.detail.contains(why), "{sql}: {failure:?}");
    }
    let null: ArrayRef = Arc::new(Int64Array::from(vec![Some(1), None]));
    let failure = session.refused(&one("null", null, "t (id)")).await;
    assert_eq!(
        (failure.code.as_str(), failure.message.as_str()),
        ("23502", "Cannot insert a NULL value into column id")
    );
    assert_eq!(session.rows("SELECT count(*) FROM t").await, ["0"], "all rows or none");
    // What concerns values is written down; what concerns files is not.
    assert_eq!(
        session.rows("SELECT trim(column_name), error_code, trim(column_length), trim(file_name) FROM sys_load_error_detail ORDER BY start_time LIMIT 1").await,
        ["v|1204|4|s3://lake/long.parquet"]
    );
    let written = session.rows("SELECT trim(colname), err_code FROM stl_load_errors ORDER BY starttime").await;
    assert_eq!(written, ["v|1204", "v|1220", "f|1207", "id|1213"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn trailing_blanks_count_for_lengths_and_for_nothing_else() {
    if !available("postgres") {
        return;
    }
    let redshift = Redshift::start().await;
    let session = redshift.connect().await;
    let keys = batch(vec![("k", texts(&["a", "a ", "a  ", "b"])), ("n", ids(&[1, 2, 3, 4]))]);
    session.all(&["CREATE TABLE t (k VARCHAR(9), n BIGINT)", &redshift.staged("keys", &keys, "t")]).await;
    let one = async |sql: &str| session.rows(sql).await.join(",");
    assert_eq!(one("SELECT octet_length(k), len(k) FROM t ORDER BY n").await, "1|1,2|2,3|3,1|1", "kept as they are");
    for (query, answer) in [
        ("SELECT count(*) FROM t WHERE k = 'a'", "3"),
        ("SELECT count(*) FROM t WHERE k <> 'a   '", "1"),
        ("SELECT count(*) FROM t WHERE k IN ('a ', 'c')", "3"),
        ("SELECT count(*) FROM t WHERE k NOT IN (SELECT k FROM t WHERE n = 1)", "1"),
        ("SELECT count(DISTINCT k) FROM t", "2"),
        ("SELECT count(*) FROM (SELECT DISTINCT k FROM t) d", "2"),
        ("SELECT count(*) FROM t GROUP BY k ORDER BY 1", "1,3"),
        ("SELECT max(r) FROM (SELECT row_number() OVER (PARTITION BY k ORDER BY n) AS r FROM t) w", "3"),
        ("SELECT count(*) FROM t AS l JOIN t AS r ON l.k = r.k", "10"),
        ("SELECT count(*) FROM t AS l JOIN t AS r ON l.k = r.k AND octet_length(l.k) = octet_length(r.k)", "4"),
        ("SELECT count(*) FROM (SELECT k FROM t UNION SELECT k FROM t) u", "2"),
        ("SELECT count(*) FROM t WHERE k > 'a'", "1"),
    ] {
        assert_eq!(one(query).await, answer, "{query}");
    }
    session
        .all(&[
            "CREATE TEMP TABLE s (k VARCHAR(9))",
            "INSERT INTO s VALUES ('a ')",
            "DELETE FROM t USING s WHERE t.k = s.k",
        ])
        .await;
    assert_eq!(one("SELECT n FROM t").await, "4");
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_bytes_columns_and_statements_have_redshifts_ends() {
    if !available("postgres") {
        return;
    }
    let redshift = Redshift::start().await;
    let session = redshift.connect().await;
    session.all(&["CREATE TABLE t (d DECIMAL(19,2), w DECIMAL(20,2), b VARBYTE(3), o VARBYTE(3))"]).await;
    session.all(&["INSERT INTO t (d, w) VALUES (92233720368547758.07, 99999999999999999.99)"]).await;
    assert!(session.refused("INSERT INTO t (d) VALUES (92233720368547758.08)").await.message.contains("sim_digits"));
    let number = |digits: i128, precision| -> ArrayRef {
        Arc::new(Decimal128Array::from(vec![digits]).with_precision_and_scale(precision, 2).unwrap())
    };
    let most = i128::from(i64::MAX);
    session.all(&[&redshift.staged("most", &batch(vec![("d", number(-most, 19))]), "t (d)")]).await;
    let over = redshift.staged("over", &batch(vec![("d", number(most + 1, 19))]), "t (d)");
    assert!(session.refused(&over).await.detail.contains("DECIMAL"));
    session.all(&["INSERT INTO t (b) VALUES ('abc')"]).await;
    assert!(session.refused("INSERT INTO t (o) VALUES ('abcd')").await.message.contains("sim_binary"));
    let lengths = "SELECT character_maximum_length FROM information_schema.columns WHERE table_name = 't' AND column_name IN ('b', 'o')";
    assert_eq!(session.rows(lengths).await, ["3", "3"]);
    let columns = |count: usize| (0..count).map(|n| format!("c{n} INT")).collect::<Vec<_>>().join(", ");
    session.all(&[&format!("CREATE TABLE most ({})", columns(1600))]).await;
    assert!(session.refused(&format!("CREATE TABLE more ({})", columns(1601))).await.message.contains("1600"));
    let long = format!("SELECT '{}'", "x".repeat(16 * 1024 * 1024));
    assert!(session.refused(&long).await.message.contains("too large"));
    assert_eq!(session.rows("SELECT json_serialize(NULL), json_size(NULL)").await, ["null|4"], "never null");
    let document = |bytes: usize| {
        format!(
            "SELECT json_size(j), json_serialize(j) IS NULL FROM (SELECT json_parse('\"{}\"') AS j) d",
            "x".repeat(bytes - 2)
        )
    };
    assert_eq!(session.rows(&document(65_535)).await, ["65535|f"]);
    assert!(session.refused(&document(65_536)).await.detail.contains("65535 bytes"));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_long_and_cut_where_redshift_cuts_them() {
    if !available("postgres") {
        return;
    }
    let redshift = Redshift::start().await;
    let session = redshift.connect().await;
    let named = |first: char, bytes: usize| format!("{first}{}", "n".repeat(bytes - 1));
    let (table, one, other) = (named('t', 127), named('a', 64), format!("{}é", named('b', 125)));
    session
        .all(&[
            &format!("CREATE TABLE {table} ({one} BIGINT DISTKEY SORTKEY, \"{other}\" VARCHAR(3))"),
            &format!("ALTER TABLE {table} ALTER COLUMN \"{other}\" TYPE VARCHAR(9)"),
            &redshift.staged("long", &batch(vec![("x", ids(&[7])), ("y", texts(&["yes"]))]), &table),
            &redshift.staged("more", &batch(vec![("y", texts(&["no"]))]), &format!("{table} (\"{other}\")")),
        ])
        .await;
    let shown =
        |view: &str| format!("SELECT column_name FROM {view} WHERE table_name = '{table}' ORDER BY ordinal_position");
    for view in ["information_schema.columns", "svv_columns", "svv_redshift_columns"] {
        assert_eq!(session.rows(&shown(view)).await, [one.as_str(), &other], "{view}");
    }
    let keys =
        format!("SELECT \"column\", distkey, sortkey FROM pg_table_def WHERE tablename = '{table}' ORDER BY 2 DESC");
    assert_eq!(session.rows(&keys).await, [format!("{one}|t|1"), format!("{other}|f|0")]);
    for view in ["information_schema.tables", "svv_tables", "svv_all_tables"] {
        assert_eq!(
            session.rows(&format!("SELECT count(*) FROM {view} WHERE table_name = '{table}'")).await,
            ["1"],
            "{view}"
        );
    }
    assert_eq!(session.rows(&format!("SELECT count(*) FROM pg_tables WHERE tablename = '{table}'")).await, ["1"]);
    assert_eq!(
        session.rows(&format!("SELECT {one} FROM (SELECT * FROM {table}nnn) q WHERE \"{other}\" = 'yes'")).await,
        ["7"],
        "cut"
    );
    let failure = session.refused(&format!("SELECT {} FROM {table}", named('c', 80))).await;
    assert!(failure.message.contains(&named('c', 80)), "{failure:?}");
    assert_eq!(session.columns(&format!("SELECT * FROM {table}")).await, [one, other]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_manifest_must_be_right_and_its_files_there() {
    if !available("postgres") {
        return;
    }
    let redshift = Redshift::start().await;
    let session = redshift.connect().await;
    session.all(&["CREATE TABLE t (id BIGINT)"]).await;
    let file = redshift.put("a.parquet", &batch(vec![("id", ids(&[1, 2]))]));
    let length = std::fs::metadata(redshift.s3.folder().join("a.parquet")).unwrap().len();
    let manifest = |text: String| copy("t", &redshift.put_bytes("m", text.as_bytes()));
    let entry = |url: &str, mandatory: bool, length: u64| {
        format!(r#"{{"url":"{url}","mandatory":{mandatory},"meta":{{"content_length":{length}}}}}"#)
    };
    let list = |entries: &[String]| format!(r#"{{"entries":[{}]}}"#, entries.join(","));
    for (text, why) in [
        (format!(r#"{{"entries":[{{"url":"{file}","mandatory":true}}]}}"#), "content_length is missing"),
        (list(&[entry(&file, true, length + 1)]), "content_length in the manifest says"),
        (list(&[entry("s3://lake/none.parquet", true, 1)]), "Mandatory url is not present"),
        ("{".to_owned(), "not in correct json format"),
    ] {
        let failure = session.refused(&manifest(text)).await;
        assert!(format!("{failure:?}").contains(why), "{why}: {failure:?}");
    }
    session.all(&[&manifest(list(&[entry(&file, true, length), entry("s3://lake/none.parquet", false, 1)]))]).await;
    assert_eq!(
        session.rows("SELECT count(*), pg_last_copy_count() FROM t").await,
        ["2|2"],
        "a missing file that is not mandatory"
    );
    let role = copy("t", "s3://lake/m").replace("dataflow-copy", "stranger");
    assert!(session.refused(&role).await.message.contains("is not authorized to assume IAM Role"));
    let packed = redshift.put_bytes("a.gz", b"x");
    assert!(
        session.refused(&copy("t", &redshift.manifest("m2", &[&packed]))).await.detail.contains("taken for a .gz file")
    );
    // A prefix loads all that begins with it.
    redshift.put("a.parquet.2", &batch(vec![("id", ids(&[3]))]));
    session.all(&["TRUNCATE t", &format!("COPY t FROM '{file}' IAM_ROLE DEFAULT FORMAT PARQUET")]).await;
    assert_eq!(session.rows("SELECT id FROM t ORDER BY id").await, ["1", "2", "3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn zstd_and_identity_columns_need_to_be_asked_for() {
    if !available("postgres") {
        return;
    }
    let redshift = Redshift::with(|options| options.zstd_parquet = true).await;
    let strict = Redshift::start().await;
    let values = batch(vec![("v", ids(&[5]))]);
    for (of, works) in [(&redshift, true), (&strict, false)] {
        let session = of.connect().await;
        session.all(&["CREATE TABLE t (n BIGINT IDENTITY(1,1), v BIGINT)"]).await;
        let file = of.put_packed(
            "z.parquet",
            &values,
            parquet::basic::Compression::ZSTD(parquet::basic::ZstdLevel::default()),
        );
        let load = copy("t", &of.manifest("z.manifest", &[&file]));
        assert_eq!(session.run(&load).await.is_ok(), works);
    }
    let session = redshift.connect().await;
    assert_eq!(session.rows("SELECT * FROM t").await, ["1|5"], "the identity column is left out");
    let both = batch(vec![("n", ids(&[9])), ("v", ids(&[6]))]);
    let load = redshift.staged("both", &both, "t (n, v)");
    assert!(session.refused(&load).await.message.contains("cannot set an identity column to a value"));
    session.all(&[&format!("{load} EXPLICIT_IDS")]).await;
    assert_eq!(session.rows("SELECT * FROM t ORDER BY n").await, ["1|5", "9|6"]);
    assert_eq!(session.refused("INSERT INTO t (n, v) VALUES (3, 3)").await.code, "428C9");
}

/// A load as one is written: the answer to its steps, up to the commit.
async fn load(session: &Session, lock: bool) -> Result<(), redshift::Failure> {
    session.run("BEGIN").await?;
    if lock {
        session.run("LOCK ledger_lock").await?;
    }
    session.run("SELECT max(n) FROM ledger").await?;
    session.run("INSERT INTO ledger SELECT coalesce(max(n), 0) + 1 FROM ledger").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_late_binding_view_outlives_its_table_and_takes_nested_queries() {
    if !available("postgres") {
        return;
    }
    let redshift = Redshift::start().await;
    let session = redshift.connect().await;
    session
        .all(&[
            "CREATE SCHEMA bi",
            "CREATE OR REPLACE VIEW bi.v AS SELECT id, v AS name FROM public.t WITH NO SCHEMA BINDING",
            "CREATE TABLE t (id BIGINT, v VARCHAR(3))",
            "INSERT INTO t VALUES (1, 'a'), (2, 'b')",
        ])
        .await;
    let nested = "select top 1000001 \"_\".\"name\", \"_\".\"a0\" from (select \"rows\".\"name\" as \"name\", sum(\"rows\".\"id\") as \"a0\" from \
                  (select \"_\".\"id\", \"_\".\"name\" from (select \"id\", \"name\" from \"bi\".\"v\" \"$Table\") \"_\" where \"_\".\"id\" > 1) \"rows\" \
                  group by \"name\") \"_\" where not \"_\".\"a0\" is null";
    assert_eq!(session.rows(nested).await, ["b|2"]);
    session.all(&["DROP TABLE t"]).await;
    assert_eq!(session.refused("SELECT * FROM bi.v").await.code, "42P01");
    session.all(&["DROP VIEW bi.v"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_happen_where_they_were_asked_for_and_the_counters_tell() {
    if !available("postgres") {
        return;
    }
    let redshift = Redshift::start().await;
    let session = redshift.connect().await;
    session.all(&["CREATE TABLE t (n BIGINT)"]).await;
    redshift.sim.reset_counters();
    redshift.sim.fail(Rule::new(Fault::Serializable).on(Kind::Commit).every(2));
    for n in 1..=2 {
        session.all(&["BEGIN", &format!("INSERT INTO t VALUES ({n})")]).await;
        assert_eq!(session.run("COMMIT").await.is_ok(), n == 1);
    }
    assert_eq!(session.rows("SELECT n FROM t").await, ["1"], "a commit that fails is no commit");
    redshift.sim.heal();
    redshift.sim.fail(Rule::new(Fault::QueueTimeout).containing("insert").times(1));
    assert_eq!(session.refused("INSERT INTO t VALUES (3)").await.code, "57014");
    // The answer is lost; the commit is not.
    redshift.sim.fail(Rule::new(Fault::AnswerLost).on(Kind::Commit).times(1));
    session.all(&["BEGIN", "INSERT INTO t VALUES (4)"]).await;
    assert_eq!(session.refused("COMMIT").await.code, "");
    let session = redshift.connect().await;
    redshift.sim.fail(Rule::new(Fault::ResetBefore).on(Kind::Commit).times(1));
    session.all(&["BEGIN", "INSERT INTO t VALUES (5)"]).await;
    assert_eq!(session.refused("COMMIT").await.code, "");
    let session = redshift.connect().await;
    assert_eq!(session.rows("SELECT n FROM t ORDER BY n").await, ["1", "4"]);
    let counters = redshift.sim.counters();
    assert_eq!((counters.commits, counters.injected, counters.of(Kind::Commit), counters.connections), (2, 4, 4, 2));
    assert_eq!(counters.errors["57014"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_no_right_password_any_more_is_not_let_in() {
    if !available("postgres") {
        return;
    }
    let redshift = Redshift::start().await;
    let url = redshift.sim.url();
    let refused = async |url: String| Session::connect(&url).await.err().unwrap();
    assert_eq!(refused(url.replace("Secret-1", "wrong")).await.code, "28000");
    assert_eq!(refused(url.replace("/dev", "/other")).await.code, "3D000");
    redshift.sim.lend("lent", "p", Duration::from_secs(900));
    let lent = url.replace("loader:Secret-1", "lent:p");
    let session = Session::connect(&lent).await.unwrap();
    redshift.sim.expire_credentials();
    assert_eq!(session.rows("SELECT 1").await, ["1"], "a session outlives its password");
    assert!(refused(lent).await.message.contains("password authentication failed"));
    assert_eq!(redshift.sim.counters().refused_logins, 3);
    for (parameter, why) in [
        ("extra_float_digits\x003", "outside the valid range"),
        ("lc_monetary\0C", "unrecognized configuration parameter"),
    ] {
        let answer = greeting(&redshift, &format!("user\0loader\0database\0dev\0{parameter}\0\0")).await;
        assert!(answer.starts_with('E') && answer.contains("FATAL") && answer.contains(why), "{answer:?}");
    }
}

/// What is answered to a startup packet with these parameters.
async fn greeting(redshift: &Redshift, parameters: &str) -> String {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut socket = tokio::net::TcpStream::connect(redshift.sim.address()).await.unwrap();
    let length = u32::try_from(parameters.len() + 8).unwrap().to_be_bytes();
    socket.write_all(&[&length[..], &196_608u32.to_be_bytes(), parameters.as_bytes()].concat()).await.unwrap();
    let mut answer = Vec::new();
    socket.read_to_end(&mut answer).await.unwrap();
    String::from_utf8_lossy(&answer).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_emulator_that_was_down_comes_back_with_its_rows() {
    if !available("postgres") {
        return;
    }
    let mut database = String::new();
    let redshift = Redshift::with(|options| database.clone_from(&options.postgres_url)).await;
    let session = redshift.connect().await;
    session.all(&["CREATE TABLE t (n BIGINT)", "INSERT INTO t VALUES (1)", "BEGIN", "INSERT INTO t VALUES (2)"]).await;
    let port = redshift.sim.port();
    redshift.sim.shutdown().await;
    assert_eq!(session.refused("COMMIT").await.code, "", "the connection has gone");
    let again = Redshift::with(|options| (options.postgres_url, options.port) = (database, port)).await;
    assert_eq!(again.connect().await.rows("SELECT n FROM t").await, ["1"]);
}
