//! What cannot go on halts with the way out; what can, goes on: purged logs, other servers, clashes, missing rights.

use mysql_async::Conn;
use mysql_async::prelude::Queryable;

use crate::mysql_source::{ITEMS, ROWS, SUMS, World, families, items, run};
use crate::support::mysql::{Family, Server, server};
use crate::support::process::{LIMIT, Launch};
use crate::support::proxy::{Fault, Proxy};

/// Runs to its end, which must be a failure that says all of this.
pub async fn halts(launch: &Launch, says: &[&str]) {
    let mut process = launch.run();
    assert!(!process.exit(LIMIT).await.success());
    let log = process.log();
    for words in says {
        assert!(log.contains(words), "{words}: {}", process.log_tail());
    }
}

pub const AGAIN: &str = ", snapshot: { on_lost_position: snapshot_again }";

/// A reader that has gone holds its file until the server notices.
pub async fn end_readers(conn: &mut Conn) {
    let readers = "SELECT id FROM information_schema.processlist WHERE command LIKE 'Binlog Dump%'";
    loop {
        let there: Vec<u64> = conn.query(readers).await.unwrap();
        if there.is_empty() {
            return;
        }
        for id in there {
            let _gone_meanwhile = conn.query_drop(format!("KILL {id}")).await;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

async fn purge(server: &Server) {
    let mut conn = server.connect("").await;
    end_readers(&mut conn).await;
    run(&mut conn, "FLUSH BINARY LOGS; FLUSH BINARY LOGS").await;
    // What the server itself still needs it does not purge.
    loop {
        let files: Vec<mysql_async::Row> = conn.query("SHOW BINARY LOGS").await.unwrap();
        if files.len() == 1 {
            return;
        }
        let last: String = files.last().unwrap().get(0).unwrap();
        run(&mut conn, &format!("PURGE BINARY LOGS TO '{last}'")).await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_was_purged_halts_and_can_be_read_again() {
    for family in families() {
        let server = Server::start(family, &[]);
        let mut world = World::on(&server, &items(20)).await;
        let launch = world.launch(ITEMS, "");
        launch.run_until_caught_up().await;
        world.run("DELETE FROM items WHERE id = 1; INSERT INTO items VALUES (100, 1, 'b')").await;
        purge(&server).await;
        halts(&launch, &["no longer has what must come next", "snapshot_again"]).await;
        // The way out that it names.
        world.launch(ITEMS, AGAIN).run_until_caught_up().await;
        world.assert_equal(ROWS).await;
        world.run("INSERT INTO items VALUES (101, 1, 'c')").await;
        launch.run_until_caught_up().await;
        world.assert_equal(ROWS).await;
        launch.assert_equal();
        // What was purged and had been read is missed by nobody.
        purge(&server).await;
        world.run("INSERT INTO items VALUES (102, 1, 'd')").await;
        if family == Family::MySql {
            launch.run_until_caught_up().await;
            world.assert_equal(ROWS).await;
            launch.assert_equal();
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_put_back_halts() {
    for family in families() {
        let server = Server::start(family, &[]);
        let mut world = World::on(&server, &items(20)).await;
        server.stop();
        server.save("before");
        server.start_again(&[]);
        world.connect_again(&server).await;
        let launch = world.launch(ITEMS, "");
        launch.run_until_caught_up().await;
        world.run("INSERT INTO items VALUES (100, 1, 'lost')").await;
        launch.run_until_caught_up().await;
        server.stop();
        server.put_back("before");
        server.start_again(&[]);
        world.connect_again(&server).await;
        halts(&launch, &["the server's log is another one there", "put back"]).await;
        // Nor when it has grown beyond the place again.
        for id in 200..230 {
            world.run(&format!("INSERT INTO items VALUES ({id}, 1, 'other')")).await;
        }
        halts(&launch, &["the server's log is another one there"]).await;
        let again = world.launch(ITEMS, AGAIN);
        again.run_until_caught_up().await;
        world.assert_equal(ROWS).await;
        again.assert_equal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_reader_of_the_same_number_halts() {
    for family in families() {
        let server = Server::start(family, &[]);
        let world = World::on(&server, &items(2)).await;
        let own = server.connect("").await.query_first::<u32, _>("SELECT @@server_id").await.unwrap().unwrap();
        halts(&world.launch(ITEMS, &format!(", server_id: {own}")), &["the server's own server_id"]).await;
        if family == Family::MySql {
            // A replica that has registered.
            let request = mysql_async::BinlogStreamRequest::new(4711).with_hostname(b"replica-7");
            let replica = server.connect("").await.get_binlog_stream(request).await.unwrap();
            halts(&world.launch(ITEMS, ", server_id: 4711"), &["has our server_id 4711", "replica-7"]).await;
            drop(replica);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_takes_our_number_is_named() {
    for family in families() {
        let world = World::new(family, &items(2)).await;
        let launch = world.launch(ITEMS, ", server_id: 4712");
        let mut process = launch.run();
        world.until_held(&mut process, "SELECT CAST(count(*) AS text) FROM items", &["2"]).await;
        // The server has one reader of a number: the one that came last.
        let request = mysql_async::BinlogStreamRequest::new(4712).with_hostname(b"intruder");
        let intruder = server(family).connect("").await.get_binlog_stream(request).await.unwrap();
        assert!(!process.exit(LIMIT).await.success());
        let log = process.log();
        assert!(log.contains("has our server_id 4712") && log.contains("`server_id:` of its own"), "{log}");
        drop(intruder);
    }
}

/// Makes `to` a replica of `from`, and waits until it has everything.
pub async fn replicate(from: &Server, to: &Server) {
    let mut source = from.connect("").await;
    let mut replica = to.connect("").await;
    let (port, family) = (from.port(), from.family());
    run(
        &mut source,
        "CREATE USER repl@localhost IDENTIFIED BY 'secret'; GRANT REPLICATION SLAVE ON *.* TO repl@localhost",
    )
    .await;
    let change = match family {
        Family::MySql => format!(
            "CHANGE REPLICATION SOURCE TO SOURCE_HOST = '127.0.0.1', SOURCE_PORT = {port}, SOURCE_USER = 'repl', \
             SOURCE_PASSWORD = 'secret', SOURCE_AUTO_POSITION = 1, GET_SOURCE_PUBLIC_KEY = 1; START REPLICA"
        ),
        Family::MariaDb => format!(
            "CHANGE MASTER TO MASTER_HOST = '127.0.0.1', MASTER_PORT = {port}, MASTER_USER = 'repl', \
             MASTER_PASSWORD = 'secret', MASTER_USE_GTID = slave_pos; START SLAVE"
        ),
    };
    run(&mut replica, &change).await;
    until_replicated(from, to).await;
}

pub async fn until_replicated(from: &Server, to: &Server) {
    let (position, wait) = match from.family() {
        Family::MySql => ("SELECT @@global.gtid_executed", "SELECT WAIT_FOR_EXECUTED_GTID_SET('$', 60)"),
        Family::MariaDb => ("SELECT @@global.gtid_binlog_pos", "SELECT MASTER_GTID_WAIT('$', 60)"),
    };
    let position: String = from.connect("").await.query_first(position).await.unwrap().unwrap();
    let mut replica = to.connect("").await;
    let waited: Option<i64> = replica.query_first(wait.replace('$', &position.replace('\n', ""))).await.unwrap();
    assert_eq!(waited, Some(0), "{}", to.log());
}

pub async fn promote(server: &Server) {
    let stop = match server.family() {
        Family::MySql => "STOP REPLICA; RESET REPLICA ALL",
        Family::MariaDb => "STOP SLAVE; RESET SLAVE ALL",
    };
    run(&mut server.connect("").await, stop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_was_made_primary_goes_on_without_loss() {
    for family in families() {
        let (old, new) = (Server::start(family, &[]), Server::start(family, &[]));
        // Files and positions of the two have nothing in common.
        run(&mut new.connect("").await, "FLUSH BINARY LOGS; FLUSH BINARY LOGS; FLUSH BINARY LOGS").await;
        let mut world = World::on(&old, &items(2_000)).await;
        replicate(&old, &new).await;
        let proxy = Proxy::to(old.port()).await;
        world.port = proxy.port();
        let launch = world.launch(ITEMS, ", snapshot: { chunk_rows: 300 }");
        launch.run_until_caught_up().await;
        world.run("UPDATE items SET n = n + 1; DELETE FROM items WHERE id < 10").await;
        let mut process = launch.run();
        world.run("INSERT INTO items VALUES (4999, 1, 'streamed')").await;
        world.until_held(&mut process, "SELECT t FROM items WHERE id = 4999", &["streamed"]).await;
        world.run("INSERT INTO items VALUES (5000, 1, 'the last of the old one')").await;
        until_replicated(&old, &new).await;
        old.kill();
        promote(&new).await;
        proxy.aim(new.port());
        proxy.now(Fault::Cut);
        world.connect_again(&new).await;
        world.run("UPDATE items SET n = n + 1 WHERE id < 100; INSERT INTO items VALUES (5001, 1, 'the first of the new one'); DELETE FROM items WHERE id = 50").await;
        let there = world.there(SUMS).await;
        let there: Vec<&str> = there.iter().map(String::as_str).collect();
        world.until_held(&mut process, SUMS, &there).await;
        process.stop().await;
        world.run("INSERT INTO items VALUES (5002, 1, 'later')").await;
        launch.run_until_caught_up().await;
        world.assert_equal(ROWS).await;
        launch.assert_equal();
        assert!(launch.whole_log().contains("by GTIDs"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_primary_that_lacks_what_was_read_halts() {
    for family in families() {
        let (old, new) = (Server::start(family, &[]), Server::start(family, &[]));
        let mut world = World::on(&old, &items(20)).await;
        replicate(&old, &new).await;
        let proxy = Proxy::to(old.port()).await;
        world.port = proxy.port();
        let launch = world.launch(ITEMS, "");
        // The replica does not get the last transaction, and we do.
        promote(&new).await;
        world.run("INSERT INTO items VALUES (5000, 1, 'only here')").await;
        launch.run_until_caught_up().await;
        old.kill();
        proxy.aim(new.port());
        halts(&launch, &["it lacks transactions that were read", "snapshot_again"]).await;
        world.connect_again(&new).await;
        let again = world.launch(ITEMS, AGAIN);
        again.run_until_caught_up().await;
        world.assert_equal(ROWS).await;
        again.assert_equal();
        assert_eq!(world.held("SELECT CAST(count(*) AS text) FROM items").await, ["20"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn transactions_that_only_the_new_primary_has_are_read_or_missed_loudly() {
    if !families().contains(&Family::MySql) {
        return;
    }
    for purged in [false, true] {
        let (old, new) = (Server::start(Family::MySql, &[]), Server::start(Family::MySql, &[]));
        let mut world = World::on(&old, &items(20)).await;
        replicate(&old, &new).await;
        // Errant: somebody has written to the replica.
        let mut replica = new.connect(&world.database).await;
        run(&mut replica, "INSERT INTO items VALUES (7000, 1, 'errant')").await;
        if purged {
            purge(&new).await;
        }
        let proxy = Proxy::to(old.port()).await;
        world.port = proxy.port();
        let launch = world.launch(ITEMS, "");
        launch.run_until_caught_up().await;
        world.run("INSERT INTO items VALUES (5000, 1, 'the last of the old one')").await;
        until_replicated(&old, &new).await;
        promote(&new).await;
        old.kill();
        proxy.aim(new.port());
        world.connect_again(&new).await;
        if purged {
            halts(&launch, &["has purged transactions that were not read", "snapshot_again"]).await;
            world.launch(ITEMS, AGAIN).run_until_caught_up().await;
        } else {
            launch.run_until_caught_up().await;
        }
        world.assert_equal(ROWS).await;
        launch.assert_equal();
        assert_eq!(world.held("SELECT t FROM items WHERE id = 7000").await, ["errant"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_without_gtids_halts() {
    if !families().contains(&Family::MySql) {
        return;
    }
    let options = ["--gtid-mode=OFF", "--enforce-gtid-consistency=OFF"];
    let (one, other) = (Server::start(Family::MySql, &options), Server::start(Family::MySql, &options));
    let mut world = World::on(&one, &items(5)).await;
    let copy = World::on(&other, &items(5)).await;
    assert_eq!(world.database, copy.database);
    world.launch(ITEMS, "").run_until_caught_up().await;
    world.port = other.port();
    halts(&world.launch(ITEMS, ""), &["it is another server", "without GTIDs"]).await;
}

/// GTIDs do not help where the two have nothing in common, however far the other one has come.
#[tokio::test(flavor = "multi_thread")]
async fn another_server_with_gtids_halts() {
    for family in families() {
        let (one, other) = (Server::start(family, &[]), Server::start(family, &[]));
        let mut world = World::on(&one, &items(5)).await;
        let mut there = World::on(&other, &items(5)).await;
        assert_eq!(world.database, there.database);
        let own = world.port;
        world.launch(ITEMS, "").run_until_caught_up().await;
        for further in [0, 60] {
            for id in 0..further {
                there.run(&format!("INSERT INTO items VALUES ({}, 1, 'of the other')", 1_000 + id)).await;
            }
            world.port = other.port();
            let says =
                ["the server's log is another one there", "another one answers at its address", "snapshot_again"];
            halts(&world.launch(ITEMS, ""), &says).await;
            assert_eq!(world.held("SELECT CAST(count(*) AS text) FROM items").await, ["5"], "{family:?}");
        }
        // The right one answers again, and nothing has happened.
        world.port = own;
        world.run("INSERT INTO items VALUES (6, 6, 'own')").await;
        let launch = world.launch(ITEMS, "");
        launch.run_until_caught_up().await;
        world.assert_equal(ROWS).await;
        launch.assert_equal();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_without_rights_gets_the_sql_to_run() {
    for family in families() {
        let server = Server::start(family, &[]);
        let mut world = World::on(&server, &items(3)).await;
        let database = world.database.clone();
        world.run("CREATE USER reader@localhost IDENTIFIED BY 'pass:word'").await;
        let url = format!("mysql://reader:pass%3Aword@127.0.0.1:{}?ssl-mode=disabled", server.port());
        let launch = world.launch_url(&url, ITEMS, "");
        let wrong = world.launch_url(&url.replace("pass%3A", "x"), ITEMS, "");
        halts(&wrong, &["Access denied"]).await;
        let launch =
            Launch::clone(&world.launch_url(&url, ITEMS, "")).env("UNUSED", launch.topology().display().to_string());
        halts(&launch, &["GRANT REPLICATION SLAVE"]).await;
        let client = if family == Family::MySql { "REPLICATION CLIENT" } else { "BINLOG MONITOR" };
        world.run(&format!("GRANT REPLICATION SLAVE, {client} ON *.* TO reader@localhost")).await;
        halts(&launch, &["may not read", "GRANT SELECT ON"]).await;
        world.run(&format!("GRANT SELECT ON {database}.items TO reader@localhost")).await;
        launch.run_until_caught_up().await;
        world.assert_equal(ROWS).await;
        launch.assert_equal();
        halts(&world.launch_url(&url, "{ nothing: { from: $.nothing } }", ""), &["the account may not read"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_hide_changes_are_refused() {
    for family in families() {
        let server = Server::start(family, &["--binlog-format=STATEMENT"]);
        let world = World::on(&server, &items(1)).await;
        halts(&world.launch(ITEMS, ""), &["binlog_format=STATEMENT", "SET GLOBAL binlog_format = 'ROW'"]).await;
        let server = Server::start(family, &["--skip-log-bin"]);
        let world = World::on(&server, &items(1)).await;
        halts(&world.launch(ITEMS, ""), &["writes no binary log"]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_in_two_phases_halts_and_the_tables_can_be_read_again() {
    for family in families() {
        let server = Server::start(family, &[]);
        let mut world = World::on(&server, &items(20)).await;
        let launch = world.launch(ITEMS, "");
        launch.run_until_caught_up().await;
        world.run("XA START 'a'; UPDATE items SET n = n + 100 WHERE id < 10; XA END 'a'; XA PREPARE 'a'").await;
        halts(&launch, &["an XA transaction stands at", "XA RECOVER", "on_lost_position: snapshot_again"]).await;
        // What is only prepared is in nobody's rows.
        let again = world.launch(ITEMS, AGAIN);
        again.run_until_caught_up().await;
        assert_eq!(world.held("SELECT CAST(sum(n) AS text) FROM items").await, ["210"], "{family:?}");
        world.run("XA COMMIT 'a'").await;
        again.run_until_caught_up().await;
        world.assert_equal(ROWS).await;
        // The way out is taken back, and it goes on.
        world.run("UPDATE items SET n = n + 1").await;
        let launch = world.launch(ITEMS, "");
        launch.run_until_caught_up().await;
        launch.assert_equal();
    }
}
