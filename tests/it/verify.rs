//! `dataflow verify` on a real PostgreSQL: what is equal is found equal, however busy it is, and what is not is found.

use std::process::Output;

use serde_json::Value;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, SqliteConnection};
use tokio_util::sync::CancellationToken;

use crate::postgres_source::types::TYPES;
use crate::postgres_source::write_until;
use crate::support::postgres::{Server, Version, newest, server};
use crate::support::process::{LIMIT, Launch, available, table};

/// Where the tables go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Into {
    Sqlite,
    Postgres,
}

const BOTH: [Into; 2] = [Into::Sqlite, Into::Postgres];

/// A database that is read, and a warehouse.
struct World {
    folder: tempfile::TempDir,
    url: String,
    into: Into,
    source: PgConnection,
}

impl World {
    async fn new(into: Into, setup: &str) -> Self {
        Self::at(server(), into, setup).await
    }

    async fn at(server: &Server, into: Into, setup: &str) -> Self {
        Self::in_database(server.database().await, into, setup).await
    }

    async fn in_database(url: String, into: Into, setup: &str) -> Self {
        let mut source = PgConnection::connect(&url).await.unwrap();
        source.execute("SET synchronous_commit = on").await.unwrap();
        source.execute(AssertSqlSafe(setup.to_owned())).await.unwrap();
        Self { folder: tempfile::tempdir().unwrap(), url, into, source }
    }

    fn launch(&self, tables: &str) -> Launch {
        let name = self.url.rsplit('/').next().unwrap();
        let warehouse = match self.into {
            Into::Sqlite => "{ kind: sqlite, path: w.db }".to_owned(),
            Into::Postgres => format!("{{ kind: postgres, url: \"{}\", schema: w }}", self.url),
        };
        let topology = format!(
            "version: 1\nname: pg\nsources:\n  shop: {{ kind: postgres, url: \"{}?sslmode=disable\", slot: {name}, \
             publication: p }}\ntables: {tables}\nlake: {{ url: ./lake, raw: {{ keep: none }} }}\n\
             warehouse: {warehouse}\nepoch: {{ every: 200ms }}\n",
            self.url
        );
        Launch::new(self.folder.path(), &topology)
    }

    async fn run(&mut self, sql: &str) {
        self.source.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
    }

    /// Changes the warehouse by hand.
    async fn tamper(&self, sql: &str) {
        match self.into {
            Into::Sqlite => {
                let options = SqliteConnectOptions::new().filename(self.folder.path().join("w.db"));
                let mut warehouse = SqliteConnection::connect_with(&options).await.unwrap();
                let done = warehouse.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
                assert!(done.rows_affected() > 0, "{sql}");
            }
            Into::Postgres => {
                let mut warehouse = PgConnection::connect(&self.url).await.unwrap();
                warehouse.execute("SET search_path = w").await.unwrap();
                let done = warehouse.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
                assert!(done.rows_affected() > 0, "{sql}");
            }
        }
    }
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The kinds of the differences of a table, with their keys' `id`.
fn kinds(report: &Value, name: &str) -> Vec<String> {
    let differences = table(report, name)["differences"].as_array().cloned().unwrap_or_default();
    let mut kinds: Vec<String> = differences
        .iter()
        .map(|d| format!("{} {}", d["kind"].as_str().unwrap(), d["key"]["id"].as_str().unwrap()))
        .collect();
    kinds.sort();
    kinds
}

const ITEMS: &str = "CREATE TABLE items (id int PRIMARY KEY, name text, price numeric(8,2), email text); \
                     INSERT INTO items SELECT n, 'n' || n, n * 1.5, n || '@example.org' FROM generate_series(1, 50) n";

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_by_hand_in_the_warehouse_is_found_and_shown() {
    if !available("postgres") {
        return;
    }
    for into in BOTH {
        let mut world = World::new(into, ITEMS).await;
        let launch = world.launch("{ items: { from: public.items } }");
        launch.run_until_caught_up().await;
        launch.assert_equal();
        world.run("UPDATE items SET price = 7.25 WHERE id = 7; DELETE FROM items WHERE id = 8").await;
        launch.run_until_caught_up().await;
        launch.assert_equal();
        world.tamper("UPDATE items SET price = '7.30', name = NULL WHERE id = 7").await;
        world.tamper("DELETE FROM items WHERE id = 9").await;
        world.tamper("INSERT INTO items (id, name) VALUES (1000, 'x')").await;
        let (code, report) = launch.verify(&[]);
        assert_eq!(code, 1, "{report:#}");
        assert_eq!(kinds(&report, "items"), ["different 7", "extra 1000", "missing 9"], "{into:?} {report:#}");
        let items = table(&report, "items");
        let changed = items["differences"].as_array().unwrap().iter().find(|d| d["kind"] == "different").unwrap();
        assert_eq!(changed["columns"][0]["column"], "name");
        assert_eq!(changed["columns"][0]["warehouse"], Value::Null);
        assert_eq!(changed["columns"][1]["source"], "7.25");
        assert_eq!(changed["columns"][1]["warehouse"], "7.3");
        assert_eq!((&items["different"], &items["outcome"]), (&Value::from(3), &Value::from("different")));
        let shown = text(&launch.other(&["verify"], &["--show", "1"]));
        assert!(shown.contains("3 rows differ") && shown.contains("and 2 more"), "{shown}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_operators_do_is_expected_and_what_they_mask_is_not_shown() {
    if !available("postgres") {
        return;
    }
    for into in BOTH {
        let mut world = World::new(into, ITEMS).await;
        let tables = "
  items:
    from: public.items
    operators:
      - filter: { name: dear, keep: \"price > 6\" }
      - validate: { name: short, rule: \"length(name) < 8\", otherwise: keep_last }
      - validate: { name: low, rule: \"price < 70\", otherwise: remove }
      - validate: { name: odd, rule: \"id % 2 = 0\", otherwise: tag }
      - compute: { gross: \"price * 2\", domain: \"lower(email)\" }
      - mask: { columns: [email, domain], with: hmac, domain: person, key: \"0123456789abcdef0123456789abcdef\" }
      - rename: { name: title }";
        let launch = world.launch(tables);
        launch.run_until_caught_up().await;
        // One that came in valid, and one that the filter had left out, become invalid; one leaves the filter.
        world
            .run(
                "UPDATE items SET name = 'much too long' WHERE id IN (10, 2); UPDATE items SET price = 1 WHERE id = 11; \
                 UPDATE items SET price = 99 WHERE id = 12",
            )
            .await;
        launch.run_until_caught_up().await;
        let (code, report) = launch.verify(&[]);
        let items = table(&report, "items");
        assert_eq!((code, &items["outcome"]), (0, &Value::from("equal")), "{into:?} {report:#}");
        assert_eq!(items["excused"]["refused (short)"], 1, "{report:#}");
        assert_eq!(items["source_rows"], 50);
        world.tamper("UPDATE items SET email = 'someone@private.example' WHERE id = 20").await;
        world.tamper("UPDATE items SET gross = 1, title = 'u' WHERE id = 21").await;
        world.tamper("UPDATE items SET tags = 'x' WHERE id = 22").await;
        // The last valid version of this one may stand there, whatever it is.
        world.tamper("UPDATE items SET title = 'y' WHERE id = 10").await;
        let (code, report) = launch.verify(&[]);
        assert_eq!(code, 1);
        assert_eq!(kinds(&report, "items"), ["different 20", "different 21", "different 22"], "{into:?} {report:#}");
        let shown = text(&launch.other(&["verify"], &[]));
        for secret in ["private.example", "20@example.org"] {
            assert!(!shown.contains(secret) && !report.to_string().contains(secret), "{shown}");
        }
        assert!(
            shown.contains("email: source ***, warehouse ***") && shown.contains("title: source n21, warehouse u"),
            "{shown}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn only_what_is_live_counts() {
    if !available("postgres") {
        return;
    }
    for into in BOTH {
        let mut world = World::new(
            into,
            &format!("{ITEMS}; CREATE TABLE past AS TABLE items; ALTER TABLE past ADD PRIMARY KEY (id)"),
        )
        .await;
        let launch = world
            .launch("{ items: { from: public.items, deletes: soft }, past: { from: public.past, deletes: history } }");
        launch.run_until_caught_up().await;
        for name in ["items", "past"] {
            world
                .run(&format!(
                    "DELETE FROM {name} WHERE id < 5; UPDATE {name} SET name = 'again' WHERE id = 6; \
                     DELETE FROM {name} WHERE id = 7; INSERT INTO {name} VALUES (7, 'back')"
                ))
                .await;
            launch.run_until_caught_up().await;
        }
        launch.assert_equal();
        world.tamper("UPDATE items SET _deleted = true WHERE id = 30").await;
        world.tamper("UPDATE items SET _deleted = false WHERE id = 1").await;
        world.tamper("UPDATE past SET name = 'z' WHERE _current AND id = 6").await;
        let (_, report) = launch.verify(&[]);
        assert_eq!(kinds(&report, "items"), ["extra 1", "missing 30"], "{into:?} {report:#}");
        assert_eq!(kinds(&report, "past"), ["different 6"], "{report:#}");
        let (code, report) = launch.verify(&["--table", "past"]);
        assert_eq!((code, report["tables"].as_array().unwrap().len()), (1, 1));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_type_compares() {
    if !available("postgres") {
        return;
    }
    for into in BOTH {
        let mut world = World::new(into, TYPES).await;
        let launch = world.launch("{ types: { from: public.types } }");
        launch.run_until_caught_up().await;
        launch.assert_equal();
        world
            .run("CREATE TEMP TABLE copy AS TABLE types; UPDATE copy SET id = id + 10; INSERT INTO types TABLE copy")
            .await;
        launch.run_until_caught_up().await;
        launch.assert_equal();
        world.run("UPDATE types SET id = id + 100 WHERE id > 11; DELETE FROM types WHERE id < 3").await;
        launch.run_until_caught_up().await;
        launch.assert_equal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_other_type_compares() {
    for version in [Version::Debian, Version::Newest] {
        if !available(version.component()) || !available("postgres") {
            continue;
        }
        let server = if version == Version::Debian { server() } else { newest() };
        let url = crate::postgres_types::database(server).await;
        let mut world = World::in_database(url, Into::Postgres, "SELECT 1").await;
        let launch = world.launch("{ more: { from: public.more } }");
        launch.run_until_caught_up().await;
        launch.assert_equal();
        world
            .run("CREATE TEMP TABLE copy AS TABLE more; UPDATE copy SET id = id + 10; INSERT INTO more TABLE copy; DELETE FROM more WHERE id = 2")
            .await;
        launch.run_until_caught_up().await;
        launch.assert_equal();
        assert_eq!(table(&launch.status(), "more")["rejects_open"], 0, "{version:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_value_that_no_column_holds_is_excused_and_named() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(
        Into::Sqlite,
        "CREATE TABLE items (id int PRIMARY KEY, on_day date); INSERT INTO items VALUES (1, 'infinity'), (2, '2024-01-01')",
    )
    .await;
    let launch = world.launch("{ items: { from: public.items } }");
    launch.run_until_caught_up().await;
    // The warehouse keeps the version before.
    world
        .run("INSERT INTO items VALUES (3, '2024-01-03'); UPDATE items SET on_day = '0044-03-15 BC' WHERE id = 2")
        .await;
    launch.run_until_caught_up().await;
    let (code, report) = launch.verify(&[]);
    assert_eq!(code, 0, "{report:#}");
    assert_eq!(table(&report, "items")["excused"]["refused (decode)"], 2, "{report:#}");
    world.tamper("UPDATE items SET on_day = '2024-01-04' WHERE id = 3").await;
    let (_, report) = launch.verify(&[]);
    assert_eq!(kinds(&report, "items"), ["different 3"], "{report:#}");
}

/// A row whose newest version waits in quarantine differs from the warehouse's, and so does one that found no base there:
/// both are known of. What stands beside them and differs is not.
#[tokio::test(flavor = "multi_thread")]
async fn rows_in_quarantine_and_rows_without_a_base_are_excused_and_others_are_found() {
    if !available("postgres") {
        return;
    }
    for into in BOTH {
        let mut world = World::new(
            into,
            "CREATE TABLE items (id int PRIMARY KEY, name text, t text); ALTER TABLE items ALTER t SET STORAGE EXTERNAL; \
             INSERT INTO items SELECT n, 'n' || n, repeat('x', 5000) FROM generate_series(1, 50) n",
        )
        .await;
        let strict = "
  items:
    from: public.items
    operators: [{ validate: { name: short, rule: \"length(name) < 8\", otherwise: keep_last } }]";
        let launch = world.launch(strict);
        launch.run_until_caught_up().await;
        world.tamper("DELETE FROM items WHERE id = 3").await;
        world
            .run("UPDATE items SET name = 'much too long' WHERE id = 10; UPDATE items SET name = 'new' WHERE id = 3")
            .await;
        launch.run_until_caught_up().await;
        let status = launch.status();
        let open = ["rejects_open", "incomplete_open"].map(|count| table(&status, "items")[count].as_u64());
        assert_eq!(open, [Some(1), Some(1)], "{into:?} {status:#}");
        // Without the rule the row would be there as it is at the source, if it did not wait.
        let launch = world.launch("{ items: { from: public.items } }");
        let (code, report) = launch.verify(&[]);
        let items = table(&report, "items");
        assert_eq!((code, &items["outcome"]), (0, &Value::from("equal")), "{into:?} {report:#}");
        let excused = serde_json::json!({ "in quarantine (short)": 1, "partial row without a base": 1 });
        assert_eq!(items["excused"], excused, "{into:?} {report:#}");
        world.tamper("DELETE FROM items WHERE id = 4").await;
        world.tamper("UPDATE items SET name = 'x' WHERE id IN (10, 11)").await;
        world.tamper("INSERT INTO items (id, name) VALUES (1000, 'x')").await;
        let (code, report) = launch.verify(&[]);
        let expected = ["different 11", "extra 1000", "missing 4"];
        assert_eq!((code, kinds(&report, "items")), (1, expected.map(str::to_owned).to_vec()), "{into:?} {report:#}");
        assert_eq!(table(&report, "items")["excused"], excused, "{into:?} {report:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_server_is_read_as_well() {
    if !available(Version::Newest.component()) {
        return;
    }
    let mut world = World::at(newest(), Into::Postgres, ITEMS).await;
    world.run("ALTER TABLE items ADD twice int GENERATED ALWAYS AS (id * 2) STORED; CREATE TABLE other (n int)").await;
    let launch = world.launch("{ items: { from: public.items } }");
    launch.run_until_caught_up().await;
    launch.assert_equal();
    world.tamper("UPDATE items SET name = 'x' WHERE id = 7").await;
    world.run("INSERT INTO other SELECT generate_series(1, 1000)").await;
    assert_eq!(kinds(&launch.verify(&["--timeout", "30s"]).1, "items"), ["different 7"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_kind_are_narrowed_down() {
    if !available("postgres") {
        return;
    }
    let key = "id timestamptz, code numeric(6,2), raw bytea, PRIMARY KEY (id, code, raw)";
    for into in BOTH {
        let mut world = World::new(
            into,
            &format!(
                "CREATE TABLE wide ({key}, n int); INSERT INTO wide SELECT timestamptz '2020-01-01' + n * interval '1 hour', \
                 n / 4.0, decode(lpad(n::text, 4, '0'), 'hex'), n FROM generate_series(1, 40) n; \
                 CREATE TABLE people (id text PRIMARY KEY, n int); INSERT INTO people SELECT 'p' || n, n FROM generate_series(1, 40) n; \
                 CREATE TABLE lines (id text, n int); ALTER TABLE lines REPLICA IDENTITY FULL; \
                 INSERT INTO lines SELECT 'l' || n % 5, n % 5 FROM generate_series(1, 40) n"
            ),
        )
        .await;
        let launch = world.launch(
            "
  wide: { from: public.wide }
  people:
    from: public.people
    operators: [{ mask: { columns: [id], with: hmac, domain: person, key: \"0123456789abcdef0123456789abcdef\" } }]
  lines: { from: public.lines, key: [] }",
        );
        launch.run_until_caught_up().await;
        launch.assert_equal();
        world.run("UPDATE wide SET n = 0 WHERE n = 3; INSERT INTO lines VALUES ('l1', 1), ('new', 7)").await;
        launch.run_until_caught_up().await;
        launch.assert_equal();
        world.tamper("UPDATE wide SET n = 5000 WHERE n = 4").await;
        world.tamper("DELETE FROM wide WHERE n = 5").await;
        world.tamper("UPDATE people SET n = 5000 WHERE n = 4").await;
        world.tamper("INSERT INTO people (id, n) VALUES ('clear', 1)").await;
        world.tamper("DELETE FROM lines WHERE _seq = (SELECT min(_seq) FROM lines WHERE n = 2)").await;
        let (code, report) = launch.verify(&[]);
        assert_eq!((code, kinds(&report, "wide").len()), (1, 2), "{into:?} {report:#}");
        let gone = table(&report, "wide")["differences"].as_array().unwrap().iter().find(|d| d["kind"] == "missing");
        assert_eq!(gone.unwrap()["key"]["id"], "2020-01-01T05:00:00Z", "{report:#}");
        assert_eq!(gone.unwrap()["key"]["code"], "1.25", "{report:#}");
        assert_eq!(kinds(&report, "people"), ["different ***", "extra ***"], "{report:#}");
        assert_eq!(kinds(&report, "lines"), ["different l2"], "{report:#}");
        assert_eq!(table(&report, "lines")["differences"][0]["rows"], serde_json::json!([8, 7]), "{report:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_is_gone_is_left_out_and_a_paused_table_says_so() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(Into::Sqlite, ITEMS).await;
    let launch = world.launch("{ items: { from: public.items, gone: [email] } }");
    launch.run_until_caught_up().await;
    world
        .run("ALTER TABLE items DROP email; ALTER TABLE items ADD note text; UPDATE items SET note = 'x' WHERE id = 1")
        .await;
    launch.run_until_caught_up().await;
    let (code, report) = launch.verify(&[]);
    assert_eq!(code, 0, "{report:#}");
    let left_out = table(&report, "items")["columns_left_out"].to_string();
    assert!(left_out.contains("email (the source no longer has it)"), "{report:#}");
    assert!(launch.other(&["table", "pause"], &["items"]).status.success());
    world.run("UPDATE items SET note = 'y' WHERE id = 1").await;
    launch.run_until_caught_up().await;
    let (code, report) = launch.verify(&[]);
    let why = table(&report, "items")["why"].as_str().unwrap_or_default().to_owned();
    assert!(code == 1 && why.contains("paused by hand"), "{report:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn while_both_sides_are_live_it_says_equal_and_still_finds_a_difference() {
    if !available("postgres") {
        return;
    }
    for into in BOTH {
        let world = World::new(
            into,
            "CREATE TABLE items (id int PRIMARY KEY, n int, t text); \
             INSERT INTO items SELECT n, n, 'a' FROM generate_series(1, 5001) n",
        )
        .await;
        let launch = world.launch("{ items: { from: public.items } }");
        let mut process = launch.run();
        process.wait_for("rows", LIMIT, |s| table(s, "items")["warehouse_epoch"].as_u64().unwrap_or(0) > 0).await;
        let stop = CancellationToken::new();
        let writer = tokio::spawn(write_until(
            world.url.clone(),
            5000,
            "UPDATE items SET n = n + 1 WHERE id = 5001",
            stop.clone(),
        ));
        for _turn in 0..4 {
            let (code, report) = launch.verify(&[]);
            assert_eq!(code, 0, "{into:?} {report:#}\n{}", process.log_tail());
            assert_eq!(table(&report, "items")["moving"], 0, "{into:?} {report:#}");
        }
        // A row that the writer comes by again and again, too.
        world.tamper("INSERT INTO items (id, n, _seq) VALUES (90000, 1, '0')").await;
        let (code, report) = launch.verify(&[]);
        assert_eq!((code, kinds(&report, "items")), (1, vec!["extra 90000".to_owned()]), "{into:?} {report:#}");
        stop.cancel();
        writer.await.unwrap();
        process.stop().await;
    }
}

/// A row that is another one at every look. The warehouse loses whatever comes for it: what both sides show at one time
/// never tells, what the log says of the row does.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_never_rests_and_is_lost_is_found() {
    if !available("postgres") {
        return;
    }
    let world = World::new(
        Into::Postgres,
        "CREATE TABLE items (id int PRIMARY KEY, n int, t text); \
         INSERT INTO items SELECT n, n, 'a' FROM generate_series(1, 5010) n",
    )
    .await;
    let launch = world.launch("{ items: { from: public.items } }");
    launch.run_until_caught_up().await;
    let mut warehouse = PgConnection::connect(&world.url).await.unwrap();
    let lose = "SET search_path = w; DELETE FROM items WHERE id = 5010; \
                CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; \
                CREATE TRIGGER lose BEFORE INSERT OR UPDATE ON items FOR EACH ROW WHEN (NEW.id = 5010) EXECUTE FUNCTION lose()";
    warehouse.execute(lose).await.unwrap();
    let mut process = launch.run();
    let stop = CancellationToken::new();
    let hot = "UPDATE items SET n = n + 1 WHERE id = 5010";
    let writer = tokio::spawn(write_until(world.url.clone(), 5000, hot, stop.clone()));
    process.wait_for("changes", LIMIT, |s| table(s, "items")["warehouse_epoch"].as_u64().unwrap_or(0) > 2).await;
    let (code, report) = launch.verify(&[]);
    assert_eq!(
        (code, kinds(&report, "items")),
        (1, vec!["missing 5010".to_owned()]),
        "{report:#}\n{}",
        process.log_tail()
    );
    stop.cancel();
    writer.await.unwrap();
    process.stop().await;
}

/// Where the log has no more than parts of a row that never rests, nothing can be said of it: that is not `equal`.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_never_rests_and_cannot_be_judged_is_not_said_to_be_equal() {
    if !available("postgres") {
        return;
    }
    let world = World::new(
        Into::Sqlite,
        "CREATE TABLE items (id int PRIMARY KEY, n int, t text); ALTER TABLE items ALTER t SET STORAGE EXTERNAL; \
         INSERT INTO items SELECT n, n, repeat('a', 3000) FROM generate_series(1, 60) n",
    )
    .await;
    let launch = world.launch("{ items: { from: public.items } }");
    launch.run_until_caught_up().await;
    let mut process = launch.run();
    let stop = CancellationToken::new();
    let hot = "UPDATE items SET n = n + 1 WHERE id = 60";
    let writer = tokio::spawn(write_until(world.url.clone(), 50, hot, stop.clone()));
    process.wait_for("changes", LIMIT, |s| table(s, "items")["warehouse_epoch"].as_u64().unwrap_or(0) > 2).await;
    // An epoch may end just where the source was read, now and then.
    let mut last = Value::Null;
    for _turn in 0..10 {
        let (code, report) = launch.verify(&[]);
        last = report;
        if code == 1 {
            break;
        }
    }
    let items = table(&last, "items");
    assert_eq!((&items["outcome"], &items["different"]), (&Value::from("not_compared"), &Value::from(0)), "{last:#}");
    assert!(items["moving"].as_u64() > Some(0), "{last:#}");
    let why = items["why"].as_str().unwrap();
    assert!(why.contains("change faster than they can be compared") && why.contains("quieter"), "{why}");
    stop.cancel();
    writer.await.unwrap();
    process.stop().await;
    launch.run_until_caught_up().await;
    launch.assert_equal();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_running_process_it_says_how_far_the_warehouse_is_behind() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(Into::Sqlite, &format!("{ITEMS}; CREATE TABLE other (n int)")).await;
    let launch = world.launch("{ items: { from: public.items } }");
    launch.run_until_caught_up().await;
    // What others write moves the log on, but changes nothing of the table.
    world.run("INSERT INTO other SELECT generate_series(1, 1000)").await;
    launch.assert_equal();
    world.tamper("UPDATE items SET name = 'x' WHERE id = 7").await;
    let (code, report) = launch.verify(&["--timeout", "30s"]);
    assert_eq!((code, kinds(&report, "items")), (1, vec!["different 7".to_owned()]), "{report:#}");
    world.run("UPDATE items SET price = 1 WHERE id = 8").await;
    let (code, report) = launch.verify(&["--timeout", "500ms"]);
    let items = table(&report, "items");
    assert_eq!((code, &items["outcome"]), (1, &Value::from("not_compared")), "{report:#}");
    let why = items["why"].as_str().unwrap();
    assert!(why.contains("the table has changed in between") && why.contains("dataflow run"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_compared_is_a_mistake_that_says_so() {
    if !available("postgres") {
        return;
    }
    let world = World::new(Into::Sqlite, ITEMS).await;
    let launch = world.launch("{ items: { from: public.items } }");
    let output = launch.other(&["verify"], &[]);
    assert_eq!(output.status.code(), Some(2), "{}", text(&output));
    assert!(text(&output).contains("there is no log"), "{}", text(&output));
    let output = launch.other(&["verify"], &["--table", "item"]);
    assert!(output.status.code() == Some(2) && text(&output).contains("did you mean `items`?"), "{}", text(&output));
    let topology = "version: 1\nname: files\nsources:\n  shop: { kind: file, path: events.jsonl }\n\
                    tables: { items: { from: shop.public.items } }\nlake: { url: ./lake }\n\
                    warehouse: { kind: sqlite, path: w.db }\n";
    let output = Launch::named(world.folder.path(), "files", topology).other(&["verify"], &[]);
    assert!(
        output.status.code() == Some(2) && text(&output).contains("no tables that could be read"),
        "{}",
        text(&output)
    );
}
