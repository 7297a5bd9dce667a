//! `dataflow check --connect`: everything that a server, an account or a table lacks, at once, and nothing changed.

use serde_json::Value;

use crate::mysql_source::{ITEMS, World, families, items};
use crate::support::mysql::{Family, Server};
use crate::support::process::{Launch, free_port};

/// What `check --connect` finds, and its exit code.
pub fn check(launch: &Launch) -> (Vec<Value>, i32) {
    let output = launch.other(&["check"], &["--connect", "--json"]);
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
async fn an_account_without_rights_is_told_everything_that_it_lacks_at_once() {
    for family in families() {
        let mut world = World::new(family, &items(3)).await;
        let database = world.database.clone();
        let reader = format!("reader_{database}");
        world.run("CREATE TABLE more (id int PRIMARY KEY); CREATE VIEW seen AS SELECT id FROM items").await;
        world.run(&format!("CREATE USER {reader}@localhost IDENTIFIED BY 'secret'")).await;
        let url = format!("mysql://{reader}:secret@127.0.0.1:{}?ssl-mode=disabled", world.port);
        let tables = "{ items: { from: $.items }, more: { from: $.more } }";
        let launch = world.launch_url(&url, tables, "");
        let (found, code) = check(&launch);
        assert_eq!(code, 2, "{found:#?}");
        let who = format!("TO '{reader}'@'localhost';");
        let log = if family == Family::MySql { "REPLICATION CLIENT" } else { "BINLOG MONITOR" };
        for (what, sql) in [
            ("where the server's log ends", format!("GRANT REPLICATION SLAVE, {log} ON *.* {who}")),
            ("", format!("GRANT REPLICATION SLAVE ON *.* {who}")),
            (&format!("may not read {database}.items"), format!("GRANT SELECT ON `{database}`.`items` {who}")),
            (&format!("may not read {database}.more"), format!("GRANT SELECT ON `{database}`.`more` {who}")),
        ] {
            // MySQL says twice that both are needed.
            let sql =
                if family == Family::MySql { sql.replace("SLAVE ON", "SLAVE, REPLICATION CLIENT ON") } else { sql };
            assert!(says(&found, "mistake", what, &sql), "{what}, {sql}: {found:#?}");
        }
        assert!(says(&found, "note", "in clear text", "verify-full"), "{found:#?}");
        // It does what it is told, and is let through.
        let sqls: Vec<String> = of(&found, "mistake").iter().filter_map(|finding| sql(&finding["help"])).collect();
        assert!(sqls.len() >= 3, "{found:#?}");
        world.run(&sqls.join("; ")).await;
        let (found, code) = check(&launch);
        assert_eq!((code, of(&found, "mistake").len()), (0, 0), "{found:#?}");
        assert!(!world.path().join("lake/_log").exists(), "something was made");
        launch.run_until_caught_up().await;
        // What is not a table, or not there.
        world.run(&format!("GRANT SELECT ON {database}.* TO {reader}@localhost")).await;
        let launch = world.launch_url(&url, "{ seen: { from: $.seen }, absent: { from: $.absent } }", "");
        let (found, code) = check(&launch);
        assert_eq!((code, of(&found, "mistake").len()), (2, 2), "{found:#?}");
        assert!(says(&found, "mistake", "seen is a view", "read the tables"), "{found:#?}");
        assert!(says(&found, "mistake", &format!("no table {database}.absent"), "correct `from:`"), "{found:#?}");
    }
}

/// The SQL of a help.
fn sql(help: &Value) -> Option<String> {
    let (_, sql) = help.as_str()?.split_once("\n    ")?;
    Some(sql.trim_end_matches(';').to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_be_reached_is_no_mistake_of_the_user() {
    for family in families() {
        let mut world = World::new(family, &items(1)).await;
        world.port = free_port();
        let (found, code) = check(&world.launch(ITEMS, ""));
        assert_eq!((code, of(&found, "unreachable").len()), (1, 1), "{found:#?}");
        // A list of everything else is still there.
        assert!(of(&found, "good").iter().any(|finding| finding["place"] == "lake"), "{found:#?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_cost_something_are_named() {
    for family in families() {
        let weak = ["--binlog-row-metadata=MINIMAL", "--binlog-row-image=MINIMAL", "--binlog-expire-logs-seconds=3600"];
        let server = Server::start(family, &weak);
        let mut world = World::on(&server, &items(1)).await;
        world.run("CREATE TABLE keyless (n int)").await;
        let (found, code) = check(&world.launch("{ items: { from: $.items }, keyless: { from: $.keyless } }", ""));
        assert_eq!(code, 2, "{found:#?}");
        assert!(
            says(&found, "warning", "does not name columns", "SET GLOBAL binlog_row_metadata = 'FULL'"),
            "{found:#?}"
        );
        assert!(says(&found, "note", "leaves unchanged columns out", "binlog_row_image = 'FULL'"), "{found:#?}");
        assert!(
            says(&found, "warning", "keeps its binary logs for 3600 s", "binlog_expire_logs_seconds"),
            "{found:#?}"
        );
        assert!(says(&found, "mistake", "keyless has no primary key", "ADD PRIMARY KEY"), "{found:#?}");
    }
}
