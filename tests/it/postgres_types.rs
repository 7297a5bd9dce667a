//! Types beyond the usual ones, those of extensions among them, on Debian's server and on the newest: by snapshot and by
//! stream, inserted, updated and deleted. What is kept as text must be what the server writes.

use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::postgres_source::World;
use crate::support::postgres::{Server, Version, newest, server};
use crate::support::process::{Launch, available, table};

/// What stands in the warehouse.
enum Held {
    /// What the server writes.
    Same,
    /// These documents, one for each value.
    Json(&'static [&'static str]),
}
use Held::{Json, Same};

/// A type, the extension that it comes from, values as SQL.
type Kind = (&'static str, &'static str, &'static [&'static str], Held);

const KINDS: [Kind; 69] = [
    ("int4multirange", "", &["'{[1,5),[7,9)}'", "'{}'"], Same),
    ("int8multirange", "", &["'{[1,5)}'"], Same),
    ("nummultirange", "", &["'{[1.5,2.50],(7,)}'"], Same),
    ("tsmultirange", "", &["'{[2024-01-01,2024-02-01)}'"], Same),
    ("tstzmultirange", "", &["'{[2024-01-01 00:00+02,2024-02-01 00:00-05)}'"], Same),
    ("datemultirange", "", &["'{[2024-01-01,infinity)}'"], Same),
    ("int8range", "", &["'[1,9223372036854775807)'", "'empty'"], Same),
    ("numrange", "", &["'[1.50,)'"], Same),
    ("tsrange", "", &["'[2024-01-01 01:02:03.5,2024-02-01)'"], Same),
    ("tstzrange", "", &["'[2024-01-01 00:00+02,)'"], Same),
    ("daterange", "", &["'[2024-01-01,2024-02-01]'"], Same),
    ("timetz", "", &["'04:05:06.789+02'", "'24:00:00-15:59:59'"], Same),
    ("point", "", &["'(1,-2.5)'", "'(1e300,NaN)'"], Same),
    ("line", "", &["'{1,-2,3}'"], Same),
    ("lseg", "", &["'[(1,2),(3,4)]'"], Same),
    ("box", "", &["'(3,4),(1,2)'"], Same),
    ("path", "", &["'((1,2),(3,4))'", "'[(1,2),(3,4)]'"], Same),
    ("polygon", "", &["'((0,0),(1,1),(1,0))'"], Same),
    ("circle", "", &["'<(1,2),3.5>'"], Same),
    ("varbit", "", &["B''", "B'1010100110'"], Same),
    ("bit(3)", "", &["B'101'"], Same),
    ("tsvector", "", &["to_tsvector('simple', 'a fat cat sat')", "'''it''''s'':1A ''b c'':2'"], Same),
    ("tsquery", "", &["'fat & (rat | cat:*) & !''d e'''"], Same),
    ("macaddr", "", &["'08:00:2b:01:02:03'"], Same),
    ("macaddr8", "", &["'08:00:2b:01:02:03:04:05'"], Same),
    ("cidr", "", &["'10.0.0.0/8'", "'::/0'"], Same),
    ("jsonpath", "", &["'$.a[*] ? (@ > 1)'"], Same),
    ("pg_lsn", "", &["'16/B374D848'"], Same),
    ("pg_snapshot", "", &["'10:20:10,14'"], Same),
    ("xid8", "", &["'18446744073709551615'"], Same),
    ("name", "", &["'a name'"], Same),
    ("\"char\"", "", &["'c'"], Same),
    ("tid", "", &["'(1,2)'"], Same),
    ("oidvector", "", &["'1 2 3'"], Same),
    ("money", "", &["'-1234.50'"], Same),
    ("outer_pair", "", &["((1, 'x, \"y\"')::pair, NULL)"], Same),
    ("ints", "", &["'{1,NULL}'"], Json(&["[1,null]"])),
    ("happy", "", &["'ok'"], Same),
    ("bool[]", "", &["'{t,f,NULL}'"], Json(&["[true,false,null]"])),
    ("int[]", "", &["'{{1,2},{3,NULL}}'", "'{{{1},{2}}}'"], Json(&["[[1,2],[3,null]]", "[[[1],[2]]]"])),
    ("int8[]", "", &["'{9223372036854775807}'"], Json(&["[9223372036854775807]"])),
    ("oid[]", "", &["'{4294967295}'"], Json(&["[4294967295]"])),
    ("float8[]", "", &["'{1.5,NaN,-Infinity,1e300}'"], Json(&["[1.5,\"NaN\",\"-Infinity\",1e+300]"])),
    ("numeric[]", "", &["'{1.50,NaN}'"], Json(&["[1.50,\"NaN\"]"])),
    ("date[]", "", &["'{2024-02-29,infinity}'"], Json(&["[\"2024-02-29\",\"infinity\"]"])),
    ("timestamptz[]", "", &["'{2024-01-01 00:00:00+02}'"], Json(&["[\"2023-12-31 22:00:00+00\"]"])),
    ("interval[]", "", &["'{1 day 02:00:00}'"], Json(&["[\"P1DT2H\"]"])),
    (
        "uuid[]",
        "",
        &["'{A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11}'"],
        Json(&["[\"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11\"]"]),
    ),
    ("bytea[]", "", &["ARRAY['\\x00ff'::bytea]"], Json(&["[\"\\\\x00ff\"]"])),
    ("jsonb[]", "", &["ARRAY['{\"a\": [1, null]}'::jsonb]"], Json(&["[{\"a\": [1, null]}]"])),
    ("varchar(5)[]", "", &["'{a,\"b c\",\"\",\"NULL\",NULL}'"], Json(&["[\"a\",\"b c\",\"\",\"NULL\",null]"])),
    ("char(3)[]", "", &["'{a,ab}'"], Json(&["[\"a  \",\"ab \"]"])),
    ("mood[]", "", &["'{ok,NULL}'"], Json(&["[\"ok\",null]"])),
    ("pair[]", "", &["ARRAY[(1, 'x y')::pair]"], Json(&["[\"(1,\\\"x y\\\")\"]"])),
    ("inet[]", "", &["'{10.0.0.1/8,::1}'"], Json(&["[\"10.0.0.1/8\",\"::1\"]"])),
    ("point[]", "", &["ARRAY[point '(1,2)']"], Json(&["[\"(1,2)\"]"])),
    ("box[]", "", &["ARRAY[box '(3,4),(1,2)', box '(1,1),(0,0)']"], Json(&["[\"(3,4),(1,2)\",\"(1,1),(0,0)\"]"])),
    ("int4range[]", "", &["ARRAY['[1,5)'::int4range, 'empty']"], Json(&["[\"[1,5)\",\"empty\"]"])),
    ("money[]", "", &["'{1.00}'"], Json(&["[\"$1.00\"]"])),
    ("text[]", "", &["'{}'", "ARRAY[E'q\"b\\\\s\\n']"], Json(&["[]", "[\"q\\\"b\\\\s\\n\"]"])),
    ("citext", "citext", &["'MiXeD é'"], Same),
    ("citext[]", "citext", &["'{Ab,c}'"], Json(&["[\"Ab\",\"c\"]"])),
    (
        "hstore",
        "hstore",
        &["E'\"a b\"=>\"1\\\\\"2\", n=>NULL'", "''"],
        Json(&["{\"n\":null,\"a b\":\"1\\\"2\"}", "{}"]),
    ),
    ("ltree", "ltree", &["'a.b_1.c'"], Same),
    ("cube", "cube", &["'(1, 2), (3, 4.5)'"], Same),
    ("seg", "seg", &["'5.0(+-)0.3'"], Same),
    ("vector(3)", "vector", &["'[1,2.5,-3]'", "'[1e-7,0,1e30]'"], Json(&["[1,2.5,-3]", "[1e-07,0,1e+30]"])),
    ("halfvec(3)", "vector", &["'[1,2.5,-3]'"], Json(&["[1,2.5,-3]"])),
    ("sparsevec(5)", "vector", &["'{1:1,3:2.5}/5'"], Same),
];

/// The types that the server has, and their number in the list.
async fn kinds(url: &str) -> Vec<(usize, &'static Kind)> {
    static ALL: std::sync::LazyLock<[Kind; 69]> = std::sync::LazyLock::new(|| KINDS);
    let mut connection = PgConnection::connect(url).await.unwrap();
    let there: Vec<String> =
        sqlx::query_scalar("SELECT name::text FROM pg_available_extensions").fetch_all(&mut connection).await.unwrap();
    let known = |kind: &Kind| kind.1.is_empty() || there.iter().any(|name| name == kind.1);
    let found: Vec<_> = ALL.iter().enumerate().filter(|(_, kind)| known(kind)).collect();
    for (_, (.., extension, _, _)) in &found {
        if !extension.is_empty() {
            connection.execute(AssertSqlSafe(format!("CREATE EXTENSION IF NOT EXISTS {extension}"))).await.unwrap();
        }
    }
    found
}

/// What makes the table `more`: a column for each type, a row for each number of a value, and one of nulls.
fn setup(kinds: &[(usize, &Kind)]) -> String {
    let columns: Vec<String> = kinds.iter().map(|(at, (kind, ..))| format!("c{at} {kind}")).collect();
    let rows = kinds.iter().map(|(_, (_, _, values, _))| values.len()).max().unwrap_or(0);
    let row = |number: usize| {
        let values = kinds.iter().map(|(_, (_, _, values, _))| *values.get(number).unwrap_or(&"NULL"));
        format!("INSERT INTO more VALUES ({}, {})", number + 1, values.collect::<Vec<_>>().join(", "))
    };
    let rows: Vec<String> = (0..=rows).map(row).collect();
    format!(
        "CREATE TYPE pair AS (a int, b text); CREATE TYPE outer_pair AS (p pair, n int); CREATE TYPE mood AS ENUM ('sad', 'ok'); \
         CREATE DOMAIN ints AS int[]; CREATE DOMAIN happy AS mood CHECK (value = 'ok'); \
         CREATE TABLE more (id int PRIMARY KEY, {}); {}",
        columns.join(", "),
        rows.join("; ")
    )
}

/// A database with the table in it, on a server; its URL.
pub async fn database(server: &Server) -> String {
    let url = server.database().await;
    let setup = setup(&kinds(&url).await);
    PgConnection::connect(&url).await.unwrap().execute(AssertSqlSafe(setup)).await.unwrap();
    url
}

/// Every column of the rows `from`, `from + 1`, … is what it must be.
async fn check(world: &mut World, kinds: &[(usize, &Kind)], from: usize, how: &str) {
    for (at, (kind, _, values, held)) in kinds {
        let to = from + values.len();
        let rows = format!("FROM more WHERE id >= {from} AND id < {to} ORDER BY id");
        let found = world.held(&format!("SELECT CAST(c{at} AS text) {rows}")).await;
        let expected = match held {
            Same => world.there(&format!("SELECT concat(c{at}) {rows}")).await,
            Json(documents) => documents.iter().map(|&document| document.to_owned()).collect(),
        };
        assert_eq!(found, expected, "{kind} by {how}");
        let null = world.held(&format!("SELECT CAST(c{at} AS text) FROM more WHERE id = {to}")).await;
        assert_eq!(null, ["∅"], "{kind} by {how}");
    }
}

async fn every_other_type(server: &Server) {
    let url = database(server).await;
    let kinds = kinds(&url).await;
    let mut world = World::at(url, "SET timezone = 'UTC'").await;
    let launch = world.launch("{ more: { from: public.more } }", "");
    launch.run_until_caught_up().await;
    check(&mut world, &kinds, 1, "snapshot").await;
    world.run("CREATE TEMP TABLE copy AS TABLE more; UPDATE copy SET id = id + 10; INSERT INTO more TABLE copy").await;
    let columns: Vec<String> = kinds.iter().map(|(at, _)| format!("c{at}")).collect();
    let columns = columns.join(", ");
    world
        .run(&format!(
            "INSERT INTO more (id) SELECT id + 10 FROM copy; \
             UPDATE more SET ({columns}) = (SELECT {columns} FROM copy WHERE copy.id = more.id - 10) WHERE id > 20"
        ))
        .await;
    launch.run_until_caught_up().await;
    check(&mut world, &kinds, 11, "insert").await;
    check(&mut world, &kinds, 21, "update").await;
    launch.assert_equal();
    world.run("DELETE FROM more WHERE id < 21; UPDATE more SET id = id + 100 WHERE id > 21").await;
    launch.run_until_caught_up().await;
    let ids = "SELECT CAST(id AS text) FROM more ORDER BY more.id";
    assert_eq!(world.held(ids).await, world.there(ids).await);
    assert_eq!(table(&launch.status(), "more")["rejects_open"], 0);
    launch.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_type_arrives_as_it_is() {
    if available("postgres") {
        every_other_type(server()).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_type_arrives_as_it_is_from_the_newest_server() {
    if available(Version::Newest.component()) {
        every_other_type(newest()).await;
    }
}

/// GIVEN decimals that were written down for numbers of any size, WHEN numbers come that do not fit, THEN the columns become
/// wider, in a PostgreSQL that is loaded, too, and every value is the source's.
#[tokio::test(flavor = "multi_thread")]
async fn written_decimals_are_widened_by_their_values() {
    if !available("postgres") {
        return;
    }
    let written = "version: 1\nkey: [id]\ncolumns:\n  - { name: id, type: \"decimal(4,1)\", nullable: false }\n  \
        - { name: n, type: \"decimal(10,2)\" }\n";
    for into_postgres in [false, true] {
        let setup =
            "CREATE TABLE items (id numeric PRIMARY KEY, n numeric); INSERT INTO items VALUES (1, 1.25), (2.5, 2)";
        let mut world = World::new(setup).await;
        std::fs::write(world.path().join("items.yaml"), written).unwrap();
        let mut launch = world.launch("{ items: { from: public.items, contract: items.yaml } }", "");
        let url = server().database().await;
        if into_postgres {
            let topology = std::fs::read_to_string(launch.topology()).unwrap();
            let warehouse = format!("kind: postgres, url: \"{url}?sslmode=disable\", schema: w");
            launch = Launch::new(world.path(), &topology.replace("kind: sqlite, path: w.db", &warehouse));
        }
        launch.run_until_caught_up().await;
        launch.assert_equal();
        // The key becomes wider under the rows that are there; one of them moves to a key that did not fit.
        let changes = "INSERT INTO items VALUES (3, 123456789.125), (12345.5, -0.00001); DELETE FROM items WHERE id = 1; \
            UPDATE items SET id = 1234567, n = 3 WHERE id = 2.5; UPDATE items SET n = 1e20 WHERE id = 3";
        world.run(changes).await;
        launch.run_until_caught_up().await;
        launch.assert_equal();
        assert_eq!(table(&launch.status(), "items")["rejects_open"], 0);
        if into_postgres {
            let mut warehouse = PgConnection::connect(&url).await.unwrap();
            let types = "SELECT attname || ' ' || format_type(atttypid, atttypmod) FROM pg_attribute \
                WHERE attrelid = to_regclass('w.items') AND attname IN ('id', 'n') ORDER BY 1";
            let types: Vec<String> = sqlx::query_scalar(types).fetch_all(&mut warehouse).await.unwrap();
            assert_eq!(types, ["id numeric(18,1)", "n numeric(38,8)"]);
        } else {
            let held = world.held("SELECT id, CAST(n AS text) FROM items ORDER BY CAST(id AS real)").await;
            let large = "100000000000000000000.00000000";
            assert_eq!(held, [&format!("3.0|{large}"), "12345.5|-0.00001000", "1234567.0|3.00000000"]);
        }
    }
}
