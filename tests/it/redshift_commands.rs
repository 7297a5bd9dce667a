//! The commands of people on a topology that loads a cluster: `status`, `verify`, `plan`, `check --connect`; and what
//! happens to its tables when their columns change.

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::support::cluster::Cluster;
use crate::support::postgres::server;
use crate::support::process::{LIMIT, Launch, available, table};
use crate::support::s3::{ACCESS_KEY, SECRET_KEY};

/// A PostgreSQL that is read, a lake on S3, and a cluster.
struct World {
    folder: tempfile::TempDir,
    url: String,
    source: PgConnection,
    cluster: Cluster,
}

impl World {
    async fn new(setup: &str) -> Self {
        Self::on(Cluster::start().await, setup).await
    }

    async fn on(cluster: Cluster, setup: &str) -> Self {
        let url = server().database().await;
        let mut source = PgConnection::connect(&url).await.unwrap();
        source.execute("SET synchronous_commit = on").await.unwrap();
        source.execute(AssertSqlSafe(setup.to_owned())).await.unwrap();
        Self { folder: tempfile::tempdir().unwrap(), url, source, cluster }
    }

    fn launch(&self, tables: &str) -> Launch {
        let (name, lake, warehouse) =
            (self.url.rsplit('/').next().unwrap(), self.cluster.lake(), self.cluster.warehouse());
        let topology = format!(
            "version: 1\nname: pg\nsources:\n  shop: {{ kind: postgres, url: \"{url}?sslmode=disable\", slot: {name}, \
             publication: p }}\ntables: {tables}\n\
             lake: {{ url: \"{lake}\", region: eu-west-3, endpoint: \"{endpoint}\", access_key_id: {ACCESS_KEY}, \
             secret_access_key: {SECRET_KEY}, raw: {{ keep: none }} }}\n\
             warehouse: {{ kind: redshift, url: \"{warehouse}\", schema: w, iam_role: \"{role}\" }}\n\
             fresh_within: 200ms\nepoch: {{ every: 200ms }}\n",
            url = self.url,
            lake = lake.url,
            endpoint = self.cluster.s3.endpoint,
            warehouse = warehouse.url,
            role = warehouse.iam_role,
        );
        Launch::new(self.folder.path(), &topology)
    }

    async fn run(&mut self, sql: &str) {
        self.source.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
    }

    /// Changes the warehouse by hand, behind the emulator's back.
    async fn tamper(&self, sql: &str) {
        let mut warehouse = PgConnection::connect(&self.cluster.postgres_url).await.unwrap();
        warehouse.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
    }

    /// The type of a column, as the warehouse has it.
    async fn column_type(&self, table: &str, column: &str) -> String {
        let mut warehouse = PgConnection::connect(&self.cluster.postgres_url).await.unwrap();
        let sql = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = to_regclass($1) AND attname = $2";
        sqlx::query_scalar(sql).bind(table).bind(column).fetch_one(&mut warehouse).await.unwrap()
    }
}

const ITEMS: &str = "{ items: { from: public.items } }";

/// Every type that Redshift can hold, with values that text forms differ for.
pub(crate) const TYPES: &str = "
CREATE TABLE items (id int PRIMARY KEY, yes boolean, i2 smallint, i8 bigint, f4 real, f8 double precision, n numeric,
  n2 numeric(12,3), wide numeric(50,2), t text, v varchar(20), by bytea, dt date, tm time, ts timestamp, tz timestamptz,
  iv interval, u uuid, j json, jb jsonb);
INSERT INTO items VALUES
  (1, true, -32768, -9223372036854775808, 1.1, 0.1::float8 + 0.2::float8, -12345678901234567890.0123450, -1.005,
   123456789012345678901234567890123456789012345678.25, E'tab\\t nl\\n bs\\\\ \"q\" ''s'' é😀', '日本', '\\x00ff5c',
   '2024-02-29', '23:59:59.999999', '2001-02-03 04:05:06.789', '2001-02-03 04:05:06.789+02', '3 days 04:05:06.7',
   'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11', '{\"b\" : 1.50,   \"a\":[1, null]}', '{\"b\": null, \"a\": \"x\"}'),
  (2, false, 32767, 9223372036854775807, -1e-7, 1e300, 0.0001, 0, 0, '', '', '', '0001-01-01', '00:00', '0001-01-01',
   '9999-12-31 23:59:59.999999+00', '0', '00000000-0000-0000-0000-000000000000', 'null', '[]');
INSERT INTO items (id) SELECT n FROM generate_series(3, 500) n;";

/// The kinds of the differences of a table, with their keys' `id`.
fn kinds(report: &Value, name: &str) -> Vec<String> {
    let differences = table(report, name)["differences"].as_array().cloned().unwrap_or_default();
    let kind = |d: &Value| format!("{} {}", d["kind"].as_str().unwrap(), d["key"]["id"].as_str().unwrap());
    let mut kinds: Vec<String> = differences.iter().map(kind).collect();
    kinds.sort();
    kinds
}

/// GIVEN a table of every type, THEN `verify` finds both sides equal, finds what was changed by hand, and `status` says what
/// the cluster holds.
#[tokio::test(flavor = "multi_thread")]
async fn status_and_verify_know_what_the_cluster_holds() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(TYPES).await;
    let launch = world.launch(ITEMS);
    launch.run_until_caught_up().await;
    launch.assert_equal();
    world.run("UPDATE items SET t = 'changed' WHERE id = 1; DELETE FROM items WHERE id = 9; UPDATE items SET id = 1000 WHERE id = 10").await;
    launch.run_until_caught_up().await;
    launch.assert_equal();
    let status = launch.status();
    let found = table(&status, "items");
    assert_eq!(
        (&found["rows"], &found["rows_estimated"], &found["lag"]),
        (&499.into(), &false.into(), &0.into()),
        "{found}"
    );
    assert_eq!((&found["state"], &found["epoch_warehouse"]), (&"running".into(), &found["epoch_log"]), "{found}");
    assert_eq!((&status["account"]["imbalance"], &status["warehouse_error"]), (&Value::Null, &Value::Null));
    for sql in [
        "UPDATE w.items SET f8 = 0.3, jb = '{\"a\":\"y\",\"b\":null}' WHERE id = 1",
        "DELETE FROM w.items WHERE id = 11",
        "INSERT INTO w.items (id) VALUES (7777)",
        // Redshift does not promise to tell a document `null` from none.
        "UPDATE w.items SET j = NULL WHERE id = 2",
    ] {
        world.tamper(sql).await;
    }
    let (code, report) = launch.verify(&[]);
    assert_eq!(
        (code, kinds(&report, "items")),
        (1, ["different 1", "extra 7777", "missing 11"].map(str::to_owned).to_vec()),
        "{report:#}"
    );
    // A cluster that is away is said, and the rest is shown.
    let rule = redshift_sim::Rule::new(redshift_sim::Fault::ResetBefore);
    world.cluster.sim.fail(rule);
    let output = launch.other(&["status"], &["--json"]);
    assert_eq!(output.status.code(), Some(1));
    let status: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(status["warehouse_error"].as_str().is_some_and(|why| why.contains("connection was lost")), "{status:#}");
    assert_eq!(table(&status, "items")["epoch_log"], found["epoch_log"]);
}

/// GIVEN a topology, THEN `plan` prints the DDL, the load and what must be granted, without any connection to the cluster and
/// without its password.
#[tokio::test(flavor = "multi_thread")]
async fn the_plan_is_printed_without_the_cluster() {
    if !available("postgres") {
        return;
    }
    let world =
        World::new("CREATE TABLE items (id int PRIMARY KEY, doc jsonb, at timestamptz); INSERT INTO items VALUES (1)")
            .await;
    let launch = world.launch(ITEMS);
    launch.run_until_caught_up().await;
    world.cluster.sim.reset_counters();
    let before = world.cluster.sim.counters();
    let output = launch.other(&["plan"], &[]);
    assert!(output.status.success());
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    for part in [
        "CREATE TABLE IF NOT EXISTS \"w\".\"items\" (\"id\" integer NOT NULL, \"doc\" super, \"at\" timestamptz",
        "MANIFEST FORMAT AS PARQUET STATUPDATE OFF",
        "SELECT pg_last_copy_count()",
        "DELETE FROM \"w\".\"items\" USING",
        "JSON_PARSE(",
        "policy of COPY's role (arn:aws:iam::123456789012:role/dataflow-copy)",
        "arn:aws:s3:::lake/lake/_stage/*",
        "GRANT USAGE, CREATE ON SCHEMA \"w\" TO \"loader\"",
        "GRANT ASSUMEROLE ON 'arn:aws:iam::123456789012:role/dataflow-copy' TO \"loader\" FOR COPY",
    ] {
        assert!(text.contains(part), "no `{part}` in\n{text}");
    }
    assert!(!text.contains("Secret-1") && !text.contains(SECRET_KEY));
    assert_eq!(world.cluster.sim.counters(), before, "the cluster was asked");
}

/// GIVEN a table whose column at the cluster cannot hold what comes, THEN that table alone is parked with what to do, the
/// others go on; once the way is free it catches up.
#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_parks_its_table_alone() {
    if !available("postgres") {
        return;
    }
    let setup: String = ["a", "b", "c"]
        .iter()
        .map(|name| format!("CREATE TABLE {name} (id int PRIMARY KEY, v text); INSERT INTO {name} VALUES (1, 'x');"))
        .collect();
    let mut world = World::new(&setup).await;
    world.tamper("CREATE SCHEMA w; CREATE TABLE w.b (id date, v varchar(3))").await;
    let tables = "{ a: { from: public.a }, b: { from: public.b }, c: { from: public.c } }\ngroups: { all: [a, b, c] }";
    let launch = world.launch(tables);
    let mut process = launch.run();
    let state = |status: &Value, name: &str| table(status, name)["state"].as_str().unwrap_or_default().to_owned();
    process.wait_for("b to be parked", LIMIT, |status| state(status, "b") == "parked").await;
    world.run("INSERT INTO a VALUES (2, 'y'); INSERT INTO b VALUES (2, 'y'); INSERT INTO c VALUES (2, 'y')").await;
    let both = |status: &Value| ["a", "c"].iter().all(|name| table(status, name)["changes_total"] == 2);
    let status = process.wait_for("a and c to go on", LIMIT, both).await;
    let why = table(&status, "b")["why"].as_str().unwrap_or_default().to_owned();
    assert!(why.contains("column id of table b is of type date"), "{why}");
    world.tamper("DROP TABLE w.b").await;
    assert!(launch.other(&["table", "resume"], &["b"]).status.success());
    process.wait_for("b to catch up", LIMIT, |status| table(status, "b")["changes_total"] == 2).await;
    process.stop().await;
    launch.assert_equal();
}

/// GIVEN columns that are widened at the source, WHEN changes come, THEN the cluster's are, with the values that they held.
#[tokio::test(flavor = "multi_thread")]
async fn numbers_are_widened_in_place_of_the_old_ones() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(
        "CREATE TABLE items (id smallint PRIMARY KEY, n int, d numeric(8,2), v varchar(5)); \
         INSERT INTO items SELECT n, n, n + 0.25, 'v' || n FROM generate_series(1, 300) n",
    )
    .await;
    let launch = world.launch(ITEMS);
    launch.run_until_caught_up().await;
    assert_eq!(world.column_type("w.items", "n").await, "integer");
    world
        .run(
            "ALTER TABLE items ALTER id TYPE int, ALTER n TYPE bigint, ALTER d TYPE numeric(14,4), ALTER v TYPE varchar(50); \
             INSERT INTO items VALUES (100000, 9000000000, 1234567890.1234, 'longer than five')",
        )
        .await;
    launch.run_until_caught_up().await;
    launch.assert_equal();
    for (column, wanted) in [("id", "integer"), ("n", "bigint"), ("d", "numeric(14,4)")] {
        assert_eq!(world.column_type("w.items", column).await, wanted, "{column}");
    }
}

/// GIVEN decimals that were written down for numbers of any size, WHEN numbers come that do not fit, THEN the columns become
/// wider before the load, with what they held; what no decimal holds waits, as does all of it with `widen: false`. A replay
/// reads the narrower files of before, and gives the same.
#[tokio::test(flavor = "multi_thread")]
async fn written_decimals_are_widened_by_their_values() {
    if !available("postgres") {
        return;
    }
    let columns = "(id int PRIMARY KEY, n numeric, m numeric, t text)";
    let mut world = World::new(&format!(
        "CREATE TABLE items {columns}; CREATE TABLE fixed {columns}; \
         INSERT INTO items SELECT n, n + 0.25, -n, n FROM generate_series(1, 50) n; INSERT INTO fixed SELECT * FROM items"
    ))
    .await;
    let written = "version: 1\nkey: [id]\ncolumns:\n  - { name: id, type: int, nullable: false }\n  \
        - { name: n, type: \"decimal(10,2)\" }\n  - { name: m, type: \"decimal(18,0)\" }\n  \
        - { name: t, type: \"decimal(5,2)\" }\n";
    for (table, more) in [("items", ""), ("fixed", "widen: false\n")] {
        std::fs::write(world.folder.path().join(format!("{table}.yaml")), format!("{written}{more}")).unwrap();
    }
    let launch = world.launch(
        "{ items: { from: public.items, contract: items.yaml }, fixed: { from: public.fixed, contract: fixed.yaml } }",
    );
    launch.run_until_caught_up().await;
    launch.assert_equal();
    assert_eq!(world.column_type("w.items", "n").await, "numeric(10,2)");
    world.cluster.sim.reset_counters();
    let changes = "INSERT INTO items VALUES (100, 123456789.5, 1, '1.5'), (101, -0.001, 1234567890123456789, '-12345.678'); \
        UPDATE items SET n = 99999999999 WHERE id = 7";
    world.run(&format!("{changes}; {}", changes.replace("items", "fixed"))).await;
    launch.run_until_caught_up().await;
    let (code, report) = launch.verify(&[]);
    let excused = |name: &str| table(&report, name)["excused"].clone();
    let of_fixed = serde_json::json!({"refused (contract)": 3});
    assert_eq!((code, excused("fixed"), excused("items")), (0, of_fixed, serde_json::json!({})), "{report:#}");
    let wanted = [("n", "numeric(20,4)"), ("m", "numeric(28,0)"), ("t", "numeric(18,4)")];
    for (column, wanted) in wanted {
        assert_eq!(world.column_type("w.items", column).await, wanted, "{column}");
    }
    let history = world.cluster.sim.history();
    let at = |words: &str| history.iter().position(|sql| sql.to_lowercase().contains(words));
    let altered = at("alter table \"w\" . \"items\" rename column _dataflow_wider to \"n\"");
    assert!(altered.is_some() && altered < at("insert into \"w\" . \"items\""), "{altered:?} {history:#?}");
    // With `widen: false` the columns stay, and the rows wait.
    assert_eq!(world.column_type("w.fixed", "n").await, "numeric(10,2)");
    let waits = |status: &Value, name: &str| table(status, name)["rejects_open"].as_u64();
    assert_eq!((waits(&launch.status(), "fixed"), waits(&launch.status(), "items")), (Some(3), Some(0)));
    // Beyond what a decimal holds.
    world.run("INSERT INTO items VALUES (102, 1e38, 1, 1), (103, 'NaN', 1, 1), (104, 4, 4, 4)").await;
    launch.run_until_caught_up().await;
    let status = launch.status();
    assert_eq!((waits(&status, "items"), &table(&status, "items")["state"]), (Some(2), &Value::from("running")));
    let listed = launch.other(&["quarantine", "list"], &["--table", "items"]);
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains("makes more than 38") && listed.contains("NaN or infinity"), "{listed}");
    // Narrow and wide files of the lake give the same once more.
    let replayed = launch.other(&["replay"], &["--from", "1", "--set", "warehouse.schema=second"]);
    assert!(replayed.status.success(), "{}", String::from_utf8_lossy(&replayed.stderr));
    let of = async |schema: &str| -> Vec<String> {
        let mut warehouse = PgConnection::connect(&world.cluster.postgres_url).await.unwrap();
        let rows = format!("SELECT concat_ws('|', id, n, m, t) FROM {schema}.items ORDER BY id");
        sqlx::query_scalar(AssertSqlSafe(rows)).fetch_all(&mut warehouse).await.unwrap()
    };
    let first = of("w").await;
    assert!(first.contains(&"101|-0.0010|1234567890123456789|-12345.6780".to_owned()), "{first:?}");
    assert_eq!((of("second").await, first.len()), (first, 53));
    assert_eq!(world.column_type("second.items", "n").await, "numeric(20,4)");
}

/// What `check --connect` finds of the warehouse, one finding a line, and its exit code.
fn check(launch: &Launch) -> (Vec<String>, i32) {
    let output = launch.other(&["check"], &["--connect", "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let findings = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let findings = findings.filter(|finding| finding["place"] == "warehouse");
    let line = |f: Value| format!("{}: {}", f["level"].as_str().unwrap(), f["what"].as_str().unwrap());
    (findings.map(line).collect(), output.status.code().unwrap())
}

/// GIVEN a cluster, THEN `check --connect` says who we are there, what we may do, and what the cluster makes of each thing that
/// no page promises; nothing that it makes stays.
#[tokio::test(flavor = "multi_thread")]
async fn check_tries_out_what_no_page_promises() {
    if !available("postgres") {
        return;
    }
    let setup = "CREATE TABLE items (id int PRIMARY KEY)";
    let world = World::new(setup).await;
    world.tamper("CREATE SCHEMA w").await;
    let launch = world.launch(ITEMS);
    let (found, code) = check(&launch);
    assert_eq!(code, 0, "{found:#?}");
    let place = format!("{}/dev", world.cluster.sim.address());
    let says: Vec<String> = found
        .iter()
        .map(|line| line.replace(&place, "<place>"))
        .map(|line| match line.split_once(" took ").or(line.split_once(" Spectrum Scan Error")) {
            Some((first, _)) => format!("{first} …"),
            None => line,
        })
        .collect();
    insta::assert_snapshot!(says.join("\n"), @r#"
    good: <place> lets postgres in; without TLS
    warning: passwords and rows go over the network as they are
    note: version 1.0.100000 (emulated by redshift-sim)
    note: isolation of transactions: Serializable; loads are made for both
    note: there is no schema bi yet: it is made at the start
    note: nobody is told when a table lies otherwise than the topology says
    good: nothing has been loaded yet
    good: integers, floats, texts, dates, times and bytes load
    good: decimals of 9, 18, 19 and 38 digits (INT32, INT64 and bytes in the file) load
    note: times that are adjusted to UTC load into TIMESTAMPTZ: yes
    note: Parquet packed with Zstandard loads: no (Redshift: a statement failed: …
    note: FILLRECORD goes with a list of columns: yes
    note: JSON loads into SUPER as a document (SERIALIZETOJSON): yes
    note: documents beyond 65535 bytes load, and go from a stage into a table: yes
    note: documents beyond 65535 bytes stay when other columns of their row change: yes
    good: JSON_PARSE and JSON_SERIALIZE give a document back
    good: of equal names in an object JSON_PARSE keeps the last
    note: bytes are read as hexadecimal digits: yes
    good: a document is read as its text
    good: texts that differ in trailing blanks alone are told apart by their lengths
    good: times go through UTC into TIMESTAMPTZ and back
    good: DELETE … USING and UPDATE … FROM change temporary tables
    note: JSON_SERIALIZE of nothing is the text null: yes
    note: MERGE takes a sub-query for its source: yes
    note: a late-binding view can be replaced by one with a column more: no (Redshift: a statement failed: cannot change the columns of view "_dataflow_probe" (42P16)); such views are dropped and made again
    note: a late-binding view can be dropped and made again in one transaction: yes
    note: the slowest of 5 small commits …
    "#);
    assert!(world.cluster.staged().is_empty(), "{:?}", world.cluster.staged());
    let tables = "SELECT relname FROM pg_class c JOIN pg_namespace n ON n.oid = relnamespace WHERE relname LIKE '%dataflow%' OR nspname = 'w'";
    let mut warehouse = PgConnection::connect(&world.cluster.postgres_url).await.unwrap();
    let left: Vec<String> = sqlx::query_scalar(tables).fetch_all(&mut warehouse).await.unwrap();
    assert!(left.is_empty(), "{left:?}");
}

/// GIVEN a cluster that packs Parquet otherwise, is serverless, and isolates by snapshots, THEN its report differs there.
#[tokio::test(flavor = "multi_thread")]
async fn check_sees_what_a_cluster_does_otherwise() {
    if !available("postgres") {
        return;
    }
    let options = |options: redshift_sim::Options| redshift_sim::Options {
        zstd_parquet: true,
        serverless: true,
        isolation: redshift_sim::Isolation::Snapshot,
        ..options
    };
    let world = World::on(Cluster::start_with(options).await, "CREATE TABLE items (id int PRIMARY KEY)").await;
    let (found, code) = check(&world.launch(ITEMS));
    assert_eq!(code, 0, "{found:#?}");
    let has = |text: &str| found.iter().any(|line| line.contains(text));
    assert!(has("note: Parquet packed with Zstandard loads: yes"), "{found:#?}");
    assert!(has("isolation of transactions: Snapshot Isolation"), "{found:#?}");
    assert!(has("there is no schema w yet: it is made at the start"), "{found:#?}");
}

/// GIVEN a database that does not tell upper from lower case, THEN `check --connect` names it a mistake, and `run` refuses it
/// before anything is made there.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_folds_case_is_refused() {
    if !available("postgres") {
        return;
    }
    let folds = |options: redshift_sim::Options| redshift_sim::Options { case_insensitive: true, ..options };
    let world = World::on(Cluster::start_with(folds).await, "CREATE TABLE items (id text PRIMARY KEY)").await;
    let launch = world.launch(ITEMS);
    let (found, code) = check(&launch);
    assert_eq!(code, 2, "{found:#?}");
    let mistake = |line: &&String| line.starts_with("mistake: ") && line.contains("COLLATE CASE_INSENSITIVE");
    assert!(found.iter().any(|line| mistake(&line)), "{found:#?}");
    world.cluster.sim.reset_counters();
    let output = launch.other(&["run"], &["--until-caught-up"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("COLLATE CASE_INSENSITIVE"), "{output:?}");
    let made = world.cluster.sim.history().into_iter().filter(|sql| sql.to_lowercase().starts_with("create"));
    assert_eq!(made.count(), 0);
}

/// GIVEN keys that differ in trailing blanks alone, THEN `verify` finds them equal, and of those that were changed by hand just
/// those.
#[tokio::test(flavor = "multi_thread")]
async fn verify_tells_keys_apart_that_redshift_does_not() {
    if !available("postgres") {
        return;
    }
    let setup = "CREATE TABLE items (id varchar(9) PRIMARY KEY, n int); \
                 INSERT INTO items SELECT repeat('k', n % 3) || repeat(' ', n / 3), n FROM generate_series(0, 17) n";
    let mut world = World::new(setup).await;
    let launch = world.launch(ITEMS);
    launch.run_until_caught_up().await;
    launch.assert_equal();
    world.run("UPDATE items SET n = -n WHERE n % 2 = 0; DELETE FROM items WHERE n = 5; UPDATE items SET id = 'k    ' || '  ' WHERE n = 7").await;
    launch.run_until_caught_up().await;
    launch.assert_equal();
    world.tamper("UPDATE w.items SET n = 99 WHERE n = 13; DELETE FROM w.items WHERE n = 11").await;
    let (code, report) = launch.verify(&[]);
    assert_eq!(
        (code, kinds(&report, "items")),
        (1, ["different k    ", "missing kk   "].map(str::to_owned).to_vec()),
        "{report:#}"
    );
}

/// GIVEN a role that COPY may not take on, or a table that belongs to somebody else, THEN `check --connect` says so with what to
/// do; a cluster that is away is no mistake.
#[tokio::test(flavor = "multi_thread")]
async fn check_names_what_is_missing() {
    if !available("postgres") {
        return;
    }
    let setup = "CREATE TABLE items (id int PRIMARY KEY)";
    let strict = |options: redshift_sim::Options| redshift_sim::Options { iam_roles: Vec::new(), ..options };
    let world = World::on(Cluster::start_with(strict).await, setup).await;
    let role = format!("stranger_{}", world.url.rsplit('/').next().unwrap());
    world
        .tamper(&format!(
            "CREATE SCHEMA w; CREATE ROLE {role}; CREATE TABLE w.items (id int); ALTER TABLE w.items OWNER TO {role}"
        ))
        .await;
    let launch = world.launch(ITEMS);
    let (found, code) = check(&launch);
    world.tamper(&format!("DROP TABLE w.items; DROP ROLE {role}")).await;
    assert_eq!(code, 2, "{found:#?}");
    let has = |text: &str| found.iter().any(|line| line.starts_with("mistake: ") && line.contains(text));
    assert!(has(&format!("table items belongs to {role}")), "{found:#?}");
    assert!(has("the role of COPY may not read the staged file"), "{found:#?}");
    world.cluster.sim.fail(redshift_sim::Rule::new(redshift_sim::Fault::ResetBefore));
    let (found, code) = check(&launch);
    assert_eq!(code, 1, "{found:#?}");
    assert!(found.iter().any(|line| line.starts_with("unreachable: ")), "{found:#?}");
}
