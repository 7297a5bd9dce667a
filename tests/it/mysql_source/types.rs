//! Every type, inserted, updated and deleted, read by snapshot and by stream, into SQLite and PostgreSQL.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, Row};

use crate::mysql_source::{World, families};
use crate::support::mysql::Family;
use crate::support::process::{Launch, available, table};

/// A column: its type, a value as SQL, and what the warehouse (SQLite, as text) must hold of it: a duration in microseconds.
type Case = (&'static str, &'static str, &'static str, &'static str);

const BOTH: [Case; 44] = [
    ("i1", "tinyint", "-128", "-128"),
    ("i1b", "boolean", "true", "1"),
    ("i2", "smallint", "-32768", "-32768"),
    ("i3", "mediumint", "-8388608", "-8388608"),
    ("i4", "int", "2147483647", "2147483647"),
    ("i8", "bigint", "-9223372036854775808", "-9223372036854775808"),
    ("u1", "tinyint unsigned", "255", "255"),
    ("u2", "smallint unsigned", "65535", "65535"),
    ("u3", "mediumint unsigned", "16777215", "16777215"),
    ("u4", "int unsigned", "4294967295", "4294967295"),
    ("u8", "bigint unsigned", "18446744073709551615", "18446744073709551615"),
    ("z4", "int(6) zerofill", "42", "42"),
    (
        "d1",
        "decimal(65,30)",
        "-12345678901234567890123456789012345.123456789012345678901234567890",
        "-12345678901234567890123456789012345.123456789012345678901234567890",
    ),
    ("d2", "decimal(10,2) unsigned", "0.05", "0.05"),
    ("d3", "decimal(9,9)", "-0.000000001", "-0.000000001"),
    ("f4", "float", "-0.15625", "-0.15625"),
    ("f8", "double", "-1e300", "-1.0e+300"),
    ("b1", "bit(1)", "b'1'", "1"),
    ("b9", "bit(9)", "b'100000001'", "257"),
    ("b64", "bit(64)", "x'ffffffffffffffff'", "18446744073709551615"),
    ("y", "year", "2155", "2155"),
    ("dt", "date", "'2024-02-29'", "2024-02-29"),
    ("dt2", "date", "'1000-01-01'", "1000-01-01"),
    ("tm", "time", "'-838:59:59'", "-3020399000000"),
    ("tm6", "time(6)", "'23:59:59.000001'", "86399000001"),
    ("ts", "datetime", "'9999-12-31 23:59:59'", "9999-12-31T23:59:59.000000"),
    ("ts6", "datetime(6)", "'2001-02-03 04:05:06.789012'", "2001-02-03T04:05:06.789012"),
    ("tz", "timestamp(3) NULL", "'2001-02-03 04:05:06.789'", "2001-02-03T04:05:06.789000Z"),
    ("c", "char(5)", "'ab'", "ab"),
    ("v", "varchar(40)", "'tab\\t ''q'' \\\\ é😀'", "tab\t 'q' \\ é😀"),
    ("vl", "varchar(10) CHARACTER SET latin1", "'é€'", "é€"),
    ("vu", "varchar(300) CHARACTER SET ucs2", "'日本'", "日本"),
    ("bi", "char(3) CHARACTER SET utf8mb4 COLLATE utf8mb4_bin", "'A'", "A"),
    ("t", "mediumtext", "repeat('x', 70000)", ""),
    ("vb", "varbinary(10)", "x'00ff00'", "00FF00"),
    ("bn", "binary(4)", "x'01ff'", "01FF0000"),
    ("bl", "blob", "x'0a00'", "0A00"),
    ("e", "enum('small', 'it''s', '大')", "'大'", "大"),
    ("s", "set('a', 'b', 'ç')", "'ç,a'", "a,ç"),
    ("s0", "set('a', 'b')", "''", ""),
    ("g", "point", "ST_GeomFromText('POINT(1 2)')", "0101000000000000000000F03F0000000000000040"),
    ("gs", "int GENERATED ALWAYS AS (i2 + 1) STORED", "DEFAULT", "-32767"),
    ("gv", "int GENERATED ALWAYS AS (i2 + 2) VIRTUAL", "DEFAULT", "-32766"),
    ("iv", "int INVISIBLE", "7", "7"),
];

const MYSQL: [Case; 3] = [
    (
        "j",
        "json",
        "'{\"b\": [1, 2.5, null, true, \"é\"], \"a\": 18446744073709551615}'",
        "{\"a\": 18446744073709551615, \"b\": [1, 2.5, null, true, \"é\"]}",
    ),
    ("ve", "vector(3)", "STRING_TO_VECTOR('[1,2.5,-3]')", "[1,2.5,-3]"),
    ("j2", "json", "CAST('\"text\"' AS json)", "\"text\""),
];

const MARIADB: [Case; 3] = [
    ("j", "json", "'{\"b\": [1, 2.5, null]}'", "{\"b\": [1, 2.5, null]}"),
    ("u", "uuid", "'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("ip", "inet6", "'::ffff:10.0.0.1'", "::ffff:10.0.0.1"),
];

fn cases(family: Family) -> Vec<Case> {
    let own = if family == Family::MySql { MYSQL } else { MARIADB };
    BOTH.into_iter().chain(own).collect()
}

fn made(cases: &[Case]) -> String {
    let columns: Vec<String> = cases.iter().map(|(name, kind, ..)| format!("`{name}` {kind}")).collect();
    format!(
        "SET time_zone = '+00:00'; CREATE TABLE types (id int PRIMARY KEY, {}); {}",
        columns.join(", "),
        inserted(cases, 1)
    )
}

fn inserted(cases: &[Case], id: u32) -> String {
    let names: Vec<String> = cases.iter().map(|(name, ..)| format!("`{name}`")).collect();
    let values: Vec<&str> = cases.iter().map(|(_, _, value, _)| *value).collect();
    format!("INSERT INTO types (id, {}) VALUES ({id}, {})", names.join(", "), values.join(", "))
}

/// What SQLite holds, as text.
fn as_text((name, kind, ..): &Case) -> String {
    let bytes = kind.contains("binary") || *kind == "blob";
    match *name {
        "t" => "CAST(replace(t, 'x', '') AS text)".to_owned(),
        name if bytes => format!("hex(\"{name}\")"),
        name => format!("CAST(\"{name}\" AS text)"),
    }
}

async fn launch_and_change(world: &mut World, launch: &Launch, cases: &[Case]) {
    launch.run_until_caught_up().await;
    // The same row by the stream: inserted, updated from nothing, deleted.
    let set: Vec<String> = cases
        .iter()
        .filter(|(_, kind, ..)| !kind.contains("GENERATED"))
        .map(|(name, _, value, _)| format!("`{name}` = {value}"))
        .collect();
    let sql = format!(
        "{}; INSERT INTO types (id) VALUES (3), (4); UPDATE types SET {} WHERE id = 3; {}; DELETE FROM types WHERE id = 5",
        inserted(cases, 2),
        set.join(", "),
        inserted(cases, 5),
    );
    world.run(&sql).await;
    launch.run_until_caught_up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_as_it_is_by_snapshot_and_by_stream() {
    for family in families() {
        let cases = cases(family);
        let mut world = World::new(family, &made(&cases)).await;
        let launch = world.launch("{ types: { from: $.types } }", "");
        launch_and_change(&mut world, &launch, &cases).await;
        let status = launch.status();
        let listed = launch.other(&["quarantine", "list"], &[]);
        assert_eq!(table(&status, "types")["rejects_open"], 0, "{}", String::from_utf8_lossy(&listed.stdout));
        for id in [1, 2, 3] {
            for case in &cases {
                let held = world.held(&format!("SELECT {} FROM types WHERE id = {id}", as_text(case))).await;
                assert_eq!(held, [case.3], "{family:?}: row {id}, {} {}", case.0, case.1);
            }
        }
        let rest: Vec<String> = cases.iter().filter(|case| !case.1.contains("GENERATED")).map(as_text).collect();
        let nothing = format!("SELECT coalesce({}, 'null') FROM types WHERE id = 4", rest.join(", "));
        assert_eq!(world.held(&nothing.replace("hex(", "(")).await, ["null"], "{family:?}");
        assert_eq!(world.held("SELECT CAST(count(*) AS text) FROM types").await, ["4"]);
        assert_eq!(world.held("SELECT CAST(length(t) AS text) FROM types WHERE id < 4").await, ["70000"; 3]);
        launch.assert_equal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_in_postgresql() {
    if !available("postgres") {
        return;
    }
    for family in families() {
        let cases = cases(family);
        let mut world = World::new(family, &made(&cases)).await;
        let url = crate::support::postgres::server().database().await;
        let lite = world.launch("{ types: { from: $.types } }", "");
        let topology = std::fs::read_to_string(lite.topology()).unwrap();
        let warehouse = format!("{{ kind: postgres, url: \"{url}?sslmode=disable\", schema: public }}");
        let launch = Launch::new(world.path(), &topology.replace("{ kind: sqlite, path: w.db }", &warehouse));
        launch_and_change(&mut world, &launch, &cases).await;
        assert_eq!(table(&launch.status(), "types")["rejects_open"], 0);
        let mut postgres = PgConnection::connect(&url).await.unwrap();
        let columns: Vec<String> = cases.iter().map(|(name, ..)| format!("\"{name}\"::text")).collect();
        let mut rows = Vec::new();
        for id in [1, 2, 3] {
            let sql = format!("SELECT concat_ws('|', {}) FROM types WHERE id = {id}", columns.join(", "));
            rows.push(postgres.fetch_one(AssertSqlSafe(sql)).await.unwrap().get::<String, _>(0));
        }
        assert_eq!(rows[0], rows[1], "{family:?}");
        assert_eq!(rows[0], rows[2], "{family:?}");
        for part in [
            "18446744073709551615",
            "-12345678901234567890123456789012345.123456789012345678901234567890",
            "9999-12-31 23:59:59",
            "\\x01ff0000",
            "大",
            "a,ç",
        ] {
            assert!(rows[0].contains(part), "{part}: {}", rows[0]);
        }
        launch.assert_equal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn days_that_are_none_are_refused_with_the_reason() {
    for family in families() {
        let mut world = World::new(
            family,
            "SET sql_mode = ''; CREATE TABLE items (id int PRIMARY KEY, d date, t datetime); \
             INSERT INTO items VALUES (1, '0000-00-00', NULL), (2, NULL, '2024-00-00 00:00:00'), (3, '2024-01-01', NULL)",
        )
        .await;
        let launch = world.launch("{ items: { from: $.items } }", "");
        launch.run_until_caught_up().await;
        world.run("INSERT INTO items VALUES (4, '2024-02-00', NULL), (5, '2024-01-02', NULL)").await;
        launch.run_until_caught_up().await;
        assert_eq!(world.held("SELECT CAST(id AS text) FROM items ORDER BY id").await, ["3", "5"], "{family:?}");
        let output = launch.other(&["quarantine", "list"], &[]);
        assert!(String::from_utf8_lossy(&output.stdout).contains("zero or partial date"));
        assert_eq!(table(&launch.status(), "items")["rejects_open"], 3);
        // Equal but for those, which are excused.
        let (code, report) = launch.verify(&[]);
        assert_eq!(code, 0, "{family:?}: {report:#}");
    }
}
