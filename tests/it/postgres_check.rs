//! `dataflow check --connect`: everything that a server, a role or a table lacks, at once, and nothing changed.

use std::process::Output;

use serde_json::Value;

use crate::postgres_source::{ITEMS, World};
use crate::support::process::{LIMIT, Launch, available, free_port};

/// What `check --connect` finds, and its exit code.
fn check(launch: &Launch) -> (Vec<Value>, i32) {
    let output: Output = launch.other(&["check"], &["--connect", "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let findings = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (findings, output.status.code().unwrap())
}

fn of<'a>(findings: &'a [Value], level: &str) -> Vec<&'a Value> {
    findings.iter().filter(|finding| finding["level"] == level).collect()
}

/// Whether one finding of that level says `what`, and its help `sql`.
fn says(findings: &[Value], level: &str, what: &str, sql: &str) -> bool {
    let contains = |value: &Value, text: &str| text.is_empty() || value.as_str().is_some_and(|v| v.contains(text));
    of(findings, level).iter().any(|finding| contains(&finding["what"], what) && contains(&finding["help"], sql))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_role_without_rights_is_told_everything_that_it_lacks_at_once() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(
        "CREATE SCHEMA closed; CREATE TABLE items (id int PRIMARY KEY, doubled int GENERATED ALWAYS AS (id * 2) STORED); \
         CREATE TABLE closed.more (id int PRIMARY KEY); CREATE TABLE keyless (n int)",
    )
    .await;
    let role = format!("checker_{}", world.url.rsplit('/').next().unwrap());
    world.run(&format!("CREATE ROLE {role} LOGIN")).await;
    let owner = std::mem::take(&mut world.url);
    world.url = owner.replace("postgres@", &format!("{role}@"));
    let tables = "{ items: { from: public.items }, more: { from: closed.more }, keyless: { from: public.keyless }, \
                  absent: { from: public.absent } }";
    let launch = world.launch(tables, ", tables: [\"*.*\"]");
    let (found, code) = check(&launch);
    assert_eq!(code, 2, "{found:#?}");
    for (what, sql) in [
        ("may not replicate", format!("ALTER ROLE \"{role}\" REPLICATION")),
        ("may not read public.items", "GRANT SELECT ON \"public\".\"items\"".into()),
        ("may not use the schema of closed.more", "GRANT USAGE ON SCHEMA \"closed\"".into()),
        ("may not read closed.more", "GRANT SELECT ON \"closed\".\"more\"".into()),
        ("public.keyless cannot be captured", "REPLICA IDENTITY FULL".into()),
        ("no table public.absent", String::new()),
        ("there is no publication", "CREATE PUBLICATION \"p\" FOR TABLE".into()),
    ] {
        assert!(says(&found, "mistake", what, &sql), "{what}: {found:#?}");
    }
    assert!(says(&found, "note", "there is no slot", "pg_create_logical_replication_slot"), "{found:#?}");
    assert!(says(&found, "warning", "max_slot_wal_keep_size is -1", "max_slot_wal_keep_size"), "{found:#?}");
    // It is told what to do, does it, and is let through.
    world
        .run(&format!(
            "ALTER ROLE {role} REPLICATION; GRANT USAGE ON SCHEMA closed TO {role}; GRANT SELECT ON items, closed.more, keyless TO {role}; \
             ALTER TABLE keyless REPLICA IDENTITY FULL; CREATE TABLE absent (id int PRIMARY KEY); GRANT SELECT ON absent TO {role}; \
             CREATE PUBLICATION p FOR TABLE items, closed.more, keyless, absent WITH (publish_via_partition_root = true)"
        ))
        .await;
    let (found, code) = check(&launch);
    assert_eq!((code, of(&found, "mistake").len()), (0, 0), "{found:#?}");
    assert!(says(&found, "note", "generated columns are not published", "compute"), "{found:#?}");
    let slots =
        format!("SELECT CAST(count(*) AS text) FROM pg_replication_slots WHERE slot_name LIKE '%{}%'", &role[8..]);
    assert_eq!(world.there(&slots).await, ["0"], "nothing was made");
    assert!(!world.path().join("lake/_log").exists());
}

/// A slot of somebody's that sends transactions when they are prepared: nothing would fail before the first of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_slot_with_two_phases_is_refused_with_the_way_out() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new("CREATE TABLE items (id int PRIMARY KEY); INSERT INTO items VALUES (1)").await;
    let slot = world.url.rsplit('/').next().unwrap().to_owned();
    let make = format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput', false, true)");
    world.run(&make).await;
    let launch = world.launch(ITEMS, "");
    let (found, code) = check(&launch);
    assert_eq!(code, 2, "{found:#?}");
    assert!(says(&found, "mistake", "has two_phase on", "pg_drop_replication_slot"), "{found:#?}");
    let mut process = launch.run();
    assert!(!process.exit(LIMIT).await.success());
    assert!(
        process.log().contains("has two_phase on") && process.log().contains("TWO_PHASE false"),
        "{}",
        process.log_tail()
    );
    world.run(&format!("SELECT pg_drop_replication_slot('{slot}')")).await;
    launch.run_until_caught_up().await;
    assert_eq!(world.held("SELECT CAST(id AS text) FROM items").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_reached_is_no_mistake_of_the_user() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new("CREATE TABLE items (id int PRIMARY KEY)").await;
    let (found, code) = check(&world.launch(ITEMS, ""));
    assert_eq!((code, of(&found, "mistake").len()), (0, 0), "{found:#?}");
    assert!(says(&found, "note", "there is no publication", "CREATE PUBLICATION"), "{found:#?}");
    world.url = format!("postgres://postgres@127.0.0.1:{}/nowhere", free_port());
    let (found, code) = check(&world.launch(ITEMS, ""));
    assert_eq!((code, of(&found, "unreachable").len()), (1, 1), "{found:#?}");
    // A list of everything else is still there.
    assert!(of(&found, "good").iter().any(|finding| finding["place"] == "lake"), "{found:#?}");
}
