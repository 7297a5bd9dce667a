//! Documents that are longer than a text may be.

use redshift_sim::Options;
use sqlx::{AssertSqlSafe, Executor, Row};

use super::world::{By, World};
use crate::support::process::{LIMIT, Launch, table};

/// SQL for a document of about so many kilobytes, which PostgreSQL keeps beside the row: an update that leaves it as it is
/// does not say it.
fn document(kilobytes: usize, salt: &str) -> String {
    format!(
        "(SELECT jsonb_build_object('of', '{salt}', 'parts', jsonb_agg(md5('{salt}' || n))) \
         FROM generate_series(1, {}) n)",
        kilobytes * 1024 / 36
    )
}

/// Tables, what the topology says of each, and which of its rows are shown.
const SHOWN: [(&str, &str, &str); 3] = [
    ("items", ", distribution: { key: id }", ""),
    ("kept", ", deletes: soft", "WHERE _deleted IS NOT TRUE"),
    ("every", ", deletes: history", "WHERE _current"),
];

/// What waits in quarantine, as `quarantine list` says it.
fn quarantined(launch: &Launch) -> String {
    String::from_utf8_lossy(&launch.other(&["quarantine", "list"], &[]).stdout).into_owned()
}

impl World {
    /// Rows of the source, all texts.
    async fn at_source(&mut self, query: &str) -> Vec<String> {
        let rows = self.source.fetch_all(AssertSqlSafe(query.to_owned())).await.unwrap();
        let value =
            |row: &sqlx::postgres::PgRow, at| row.get::<Option<String>, usize>(at).unwrap_or_else(|| "∅".to_owned());
        rows.iter().map(|row| (0..row.len()).map(|at| value(row, at)).collect::<Vec<_>>().join("|")).collect()
    }
}

/// GIVEN tables of every mode with documents on both sides of what a text holds, WHEN rows come, change beside a document that
/// they leave alone, move, go, and get shorter and longer ones, THEN every document is there as the source has it.
#[tokio::test(flavor = "multi_thread")]
async fn long_documents_load_and_stay_while_their_rows_change() {
    let (short, long, longer) = (document(1, "short"), document(90, "long"), document(300, "longer"));
    let of_each = |sql: &str| -> String {
        SHOWN.iter().map(|(table, ..)| format!("{};", sql.replace("TABLE_NAME", table))).collect::<Vec<_>>().join(" ")
    };
    let with = |sql: &str| sql.replace("SHORT", &short).replace("LONGER", &longer).replace("LONG", &long);
    let setup = of_each(
        "CREATE TABLE TABLE_NAME (id int PRIMARY KEY, n int, doc jsonb); INSERT INTO TABLE_NAME VALUES (1, 1, NULL), \
         (2, 2, SHORT), (3, 3, LONG), (4, 4, LONGER), (5, 5, LONG), (6, 6, 'null')",
    );
    let Some(mut world) = World::new(By::Postgres, &with(&setup)).await else { return };
    let tables = SHOWN.map(|(table, more, _)| (table, more));
    let launch = Launch::new(world.path(), &world.topology(&world.name, &tables));
    launch.run_until_caught_up().await;
    launch.assert_equal();
    let steps = [
        // Beside documents, on all of which the source is silent.
        "UPDATE TABLE_NAME SET n = n + 10",
        // In one unit: whole and partial ones, short and long, gone and moved.
        "INSERT INTO TABLE_NAME VALUES (7, 7, LONG), (8, 8, SHORT); UPDATE TABLE_NAME SET doc = SHORT WHERE id = 3; \
         UPDATE TABLE_NAME SET doc = LONGER, n = 0 WHERE id = 2; DELETE FROM TABLE_NAME WHERE id = 5; \
         UPDATE TABLE_NAME SET id = 40, n = 41 WHERE id = 4; INSERT INTO TABLE_NAME VALUES (4, 4, LONG)",
        "UPDATE TABLE_NAME SET n = n + 1; UPDATE TABLE_NAME SET id = 5 WHERE id = 40; DELETE FROM TABLE_NAME WHERE id = 7; \
         INSERT INTO TABLE_NAME VALUES (7, 70, LONGER)",
    ];
    for step in steps {
        world.run(&with(&of_each(step))).await;
        launch.run_until_caught_up().await;
        launch.assert_equal();
        for (table, _, shown) in SHOWN {
            let query = |filter: &str| {
                format!("SELECT id::text, n::text, md5(doc::text) FROM {table} {filter} ORDER BY {table}.id")
            };
            assert_eq!(world.held(&query(shown)).await, world.at_source(&query("")).await, "{table} after {step}");
        }
    }
    assert!(quarantined(&launch).trim().lines().count() <= 1, "{}", quarantined(&launch));
    let history = world.cluster.sim.history();
    let copies = |with: bool| {
        history.iter().filter(|sql| sql.starts_with("copy") && sql.contains("serializetojson") == with).count()
    };
    assert!(copies(true) > 0 && copies(false) > 0, "short documents are staged as text, long ones as documents");
    assert!(history.iter().all(|sql| !sql.contains("json_serialize ( b .")), "a long document is made a text of");
}

/// GIVEN documents in whose objects one name stands twice, shorter and longer than a text, WHEN rows come and change, beside
/// such documents too, THEN all of them load with the last of each name, as the source's `jsonb` has them.
#[tokio::test(flavor = "multi_thread")]
async fn of_equal_names_in_an_object_the_last_is_kept() {
    let setup = "CREATE TABLE items (id int PRIMARY KEY, n int, doc json, more json); ALTER TABLE items \
         ALTER doc SET STORAGE EXTERNAL, ALTER more SET STORAGE EXTERNAL";
    let Some(mut world) = World::new(By::Postgres, setup).await else { return };
    let launch = world.launch(&["items"]);
    let short = r#"'{"a":1,"b":[{"a":1,"\u0061":{"c":1,"c":2}}],"a":2}'::json"#;
    let long = |letter: char| {
        format!(
            "('{{\"a\":\"' || repeat('{letter}', 40000) || '\",\"b\":[{{\"c\":1,\"c\":2}}],\"a\":[\"' || repeat('{letter}', 40000) \
             || '\",\"' || repeat('{letter}', 40000) || '\"], \"b\" : 3}}')::json"
        )
    };
    for step in [
        format!("INSERT INTO items VALUES (1, 1, {short}, {short}), (2, 2, '{{}}', NULL)"),
        // The short ones go with the long ones: in their rows, and in the stage of partial rows.
        format!("INSERT INTO items VALUES (3, 3, {}, {short}), (4, 4, {short}, '[]')", long('x')),
        format!(
            "UPDATE items SET n = n + 10; UPDATE items SET more = {} WHERE id = 3; UPDATE items SET doc = {short} WHERE id = 2; \
             INSERT INTO items VALUES (5, 5, {short}, {})",
            long('y'),
            long('z')
        ),
    ] {
        world.run(&step).await;
        launch.run_until_caught_up().await;
        world.assert_same(&launch, &["items"]).await;
    }
}

/// GIVEN documents that no SUPER holds, THEN their rows wait in quarantine, with the limit that holds, and the others go on.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_super_holds_waits_in_quarantine() {
    let setup = "CREATE TABLE items (id int PRIMARY KEY, doc json)";
    let Some(mut world) = World::new(By::Postgres, setup).await else { return };
    let launch = world.launch(&["items"]);
    launch.run_until_caught_up().await;
    let sized = |bytes: usize| format!("('[' || repeat(' ', {}) || '1]')::json", bytes - 3);
    world
        .run(&format!(
            "INSERT INTO items VALUES (1, to_json(repeat('x', 65535))), (2, to_json(repeat('x', 65536))), (3, {}), (4, {})",
            sized(16_000_000),
            sized(16_000_001)
        ))
        .await;
    launch.run_until_caught_up().await;
    let loaded = "SELECT id::text, jsonb_typeof(doc) FROM items ORDER BY items.id";
    assert_eq!(world.held(loaded).await, ["1|string", "3|array"]);
    let waiting = quarantined(&launch);
    for why in ["65536 bytes, more than the 65535 that one may have", "16000001 bytes are more than the 16000000"] {
        assert!(waiting.contains(why), "no `{why}` in\n{waiting}");
    }
}

/// GIVEN a cluster that makes one string of every document, without a word, THEN a table with long ones is parked with what to
/// do, nothing wrong is shown, and tables with short ones go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_does_not_read_the_mark_shows_no_wrong_document() {
    let cluster = |options| Options { json_as_text: true, ..options };
    let setup = format!(
        "CREATE TABLE long (id int PRIMARY KEY, doc jsonb); INSERT INTO long VALUES (1, {}); \
         CREATE TABLE short (id int PRIMARY KEY, doc jsonb); INSERT INTO short VALUES (1, {})",
        document(90, "long"),
        document(1, "short")
    );
    let Some(mut world) = World::on(By::Postgres, &setup, cluster).await else { return };
    let launch = world.launch(&["long", "short"]);
    let mut process = launch.run();
    let parked = |status: &serde_json::Value| {
        table(status, "long")["state"] == "parked" && table(status, "short")["changes_total"] == 1
    };
    let status = process.wait_for("the table to be parked", LIMIT, parked).await;
    let why = table(&status, "long")["why"].as_str().unwrap_or_default().to_owned();
    for part in ["COPY has made other documents of long.doc", "1 became plain strings"] {
        assert!(why.contains(part), "{why}");
    }
    world.run(&format!("INSERT INTO short VALUES (2, {})", document(1, "more"))).await;
    process.wait_for("the other one to go on", LIMIT, |status| table(status, "short")["changes_total"] == 2).await;
    process.stop().await;
    assert_eq!(
        world.held("SELECT id::text, jsonb_typeof(doc) FROM short ORDER BY short.id").await,
        ["1|object", "2|object"]
    );
    assert!(world.held("SELECT id::text FROM long").await.is_empty());
}
