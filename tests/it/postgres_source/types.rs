//! Every type, by snapshot and by stream.

use super::*;

/// A table with every type, and a row of each kind of values.
pub const TYPES: &str = "
CREATE TYPE mood AS ENUM ('sad', 'ok'); CREATE DOMAIN cents AS numeric(10,2); CREATE TYPE pair AS (a int, b text);
CREATE EXTENSION IF NOT EXISTS hstore;
CREATE TABLE types (id int PRIMARY KEY, b boolean, i2 smallint, i4 integer, i8 bigint, f4 real, f8 double precision,
  n numeric, n2 numeric(12,3), d cents, t text, v varchar(20), c char(4), by bytea, dt date, tm time, ts timestamp,
  tz timestamptz, iv interval, u uuid, j json, jb jsonb, e mood, ia int[], ta text[], da numeric(6,2)[], r int4range,
  p pair, h hstore, ip inet, m money, o oid, bits bit(4), xml text);
INSERT INTO types VALUES (1, true, -32768, 2147483647, -9223372036854775808, 1.5, 1e300, 123456789012345678901234567890.5,
  -1.005, 12.34, E'tab\\t nl\\n bs\\\\ \"q\" é😀', 'v', 'ab', '\\x00ff5c', '2024-02-29', '23:59:59.999999',
  '2001-02-03 04:05:06.789', '2001-02-03 04:05:06.789+02', '1 year 2 mons 3 days 04:05:06.7', 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11',
  '{\"a\": [1, 2]}', '{\"b\": null}', 'ok', '{1,NULL,3}', '{\"a,b\",NULL,\"q\\\"x\"}', '{1.50,2.00}', '[1,5)', '(7,x y)',
  'a=>1, b=>NULL', '10.0.0.1/8', 12.5, 42, B'1010', '<a/>');
INSERT INTO types VALUES (2);
INSERT INTO types VALUES (3, false, 0, 0, 0, 'NaN', '-Infinity', 0, 0, 0, '', '', '', '',
  '0001-01-01', '00:00', '0001-01-01', '9999-12-31 23:59:59.999999+00', '0', '00000000-0000-0000-0000-000000000000', 'null', '{}',
  'sad', '{}', '{}', '{}', 'empty', '(,)', '', '::1', 0, 0, B'0000', '');
";

/// What the warehouse must hold of the first row, column by column.
const FIRST: [(&str, &str); 33] = [
    ("b", "1"),
    ("i2", "-32768"),
    ("i4", "2147483647"),
    ("i8", "-9223372036854775808"),
    ("f4", "1.5"),
    ("f8", "1.0e+300"),
    ("n", "123456789012345678901234567890.5"),
    ("n2", "-1.005"),
    ("d", "12.34"),
    ("t", "tab\t nl\n bs\\ \"q\" é😀"),
    ("v", "v"),
    ("c", "ab  "),
    ("by", "00FF5C"),
    ("dt", "2024-02-29"),
    ("tm", "23:59:59.999999"),
    ("ts", "2001-02-03T04:05:06.789000"),
    ("tz", "2001-02-03T02:05:06.789000Z"),
    ("iv", "P1Y2M3DT4H5M6.7S"),
    ("u", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("j", "{\"a\": [1, 2]}"),
    ("jb", "{\"b\": null}"),
    ("e", "ok"),
    ("ia", "[1,null,3]"),
    ("ta", "[\"a,b\",null,\"q\\\"x\"]"),
    ("da", "[1.50,2.00]"),
    ("r", "[1,5)"),
    ("p", "(7,\"x y\")"),
    ("h", "{\"a\":\"1\",\"b\":null}"),
    ("ip", "10.0.0.1/8"),
    ("m", "$12.50"),
    ("o", "42"),
    ("bits", "1010"),
    ("xml", "<a/>"),
];

fn as_text((name, _): &(&str, &str)) -> String {
    match *name {
        "by" => "hex(\"by\")".to_owned(),
        name => format!("CAST(\"{name}\" AS text)"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_as_it_is_by_snapshot_and_by_stream() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(TYPES).await;
    let launch = world.launch("{ types: { from: public.types } }", "");
    launch.run_until_caught_up().await;
    // The same rows once more by the stream, inserted and updated.
    world
        .run(
            "CREATE TEMP TABLE copy AS TABLE types; UPDATE copy SET id = id + 10; INSERT INTO types TABLE copy; \
             INSERT INTO types SELECT 21; UPDATE types SET (b, i2) = (SELECT b, i2 FROM copy WHERE id = 11) WHERE id = 21",
        )
        .await;
    launch.run_until_caught_up().await;
    let columns: Vec<String> = FIRST.iter().map(as_text).collect();
    let expected: Vec<&str> = FIRST.iter().map(|(_, value)| *value).collect();
    for id in [1, 11] {
        let held = world.held(&format!("SELECT {} FROM types WHERE id = {id}", columns.join(", "))).await;
        assert_eq!(held, [expected.join("|")], "row {id}");
    }
    let rest = columns.join(" || '|' || ");
    let by_snapshot =
        world.held(&format!("SELECT coalesce({rest}, 'null') FROM types WHERE id IN (2, 3) ORDER BY id")).await;
    let by_stream =
        world.held(&format!("SELECT coalesce({rest}, 'null') FROM types WHERE id IN (12, 13) ORDER BY id")).await;
    assert_eq!(by_snapshot, by_stream);
    assert_eq!(
        world.held("SELECT CAST(b AS text), CAST(i2 AS text), t FROM types WHERE id = 21").await,
        ["1|-32768|∅"]
    );
    world.run("DELETE FROM types WHERE id > 1").await;
    launch.run_until_caught_up().await;
    assert_eq!(world.held("SELECT CAST(id AS text) FROM types").await, ["1"]);
    assert_eq!(table(&launch.status(), "types")["rejects_open"], 0);
    launch.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn values_that_no_column_holds_are_refused_with_the_reason() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(
        "CREATE TABLE items (id int PRIMARY KEY, at timestamptz, on_day date, amount numeric(8,2)); \
         INSERT INTO items VALUES (1, 'infinity', NULL, NULL), (2, '0044-03-15 12:00 BC', NULL, NULL), \
         (3, NULL, '-infinity', NULL), (4, now(), '2024-01-01', 1); \
         CREATE TABLE numbers (id int PRIMARY KEY, n numeric, a numeric[]); \
         INSERT INTO numbers VALUES (1, 'Infinity', NULL), (2, 'NaN', NULL), (3, 1e30, '{NaN,Infinity,1.50}')",
    )
    .await;
    let launch = world.launch("{ items: { from: public.items }, numbers: { from: public.numbers } }", "");
    launch.run_until_caught_up().await;
    world.run("INSERT INTO items VALUES (5, NULL, NULL, 'NaN'), (6, NULL, NULL, 6)").await;
    world.run("INSERT INTO numbers VALUES (4, '-Infinity', NULL), (5, 'Infinity', NULL), (6, -0.0001, NULL)").await;
    launch.run_until_caught_up().await;
    let held = world.held("SELECT CAST(id AS text), CAST(n AS text), CAST(a AS text) FROM numbers ORDER BY id").await;
    let array = "[\"NaN\",\"Infinity\",1.50]";
    assert_eq!(held, [format!("3|1{}|{array}", "0".repeat(30)), "6|-0.0001|∅".to_owned()]);
    assert_eq!(table(&launch.status(), "numbers")["rejects_open"], 4);
    assert_eq!(world.held("SELECT CAST(id AS text) FROM items ORDER BY id").await, ["4", "6"]);
    let output = launch.other(&["quarantine", "list"], &[]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for reason in ["infinity", "before Christ", "NaN"] {
        assert!(text.contains(reason), "{reason}: {text}");
    }
    assert_eq!(table(&launch.status(), "items")["rejects_open"], 4);
}
