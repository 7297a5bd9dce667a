//! The server is not the one that it was: put back to an earlier state, failed over, or another one at the same address.

use super::*;

/// A server of one's own, started away from the test's threads.
async fn own_server(version: Version, settings: &'static [&'static str]) -> Server {
    tokio::task::spawn_blocking(move || Server::start(version, settings)).await.unwrap()
}

/// Something that takes its time, away from the test's threads.
async fn blocking<T: Send>(doing: impl FnOnce() -> T + Send) -> T {
    tokio::task::block_in_place(doing)
}

impl World {
    /// The server ended: a new connection for the test.
    async fn reconnect(&mut self, port: u16) {
        self.port = port;
        self.source = connect(&format!("postgres://postgres@127.0.0.1:{port}/{}", self.database)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn put_back_to_an_earlier_state_while_nobody_reads() {
    on_stages(async |stage| {
        let server = own_server(stage.version, &[]).await;
        let mut world = World::of(stage, &server, &filled(100, 64)).await;
        let launch = world.launch("").await;
        launch.run_until_caught_up().await;
        blocking(|| {
            server.stop("fast");
            server.save("earlier");
            server.start_again(&[]);
        })
        .await;
        world.reconnect(server.port()).await;
        world
            .run("UPDATE items SET n = 0; INSERT INTO items SELECT n, n, 'later', 0 FROM generate_series(1000, 5000) n")
            .await;
        launch.run_until_caught_up().await;
        world.must_agree(&launch, ALL).await;
        blocking(|| {
            server.stop("fast");
            server.put_back("earlier");
            server.start_again(&[]);
        })
        .await;
        world.must_halt(&launch, &["the server's log ends at", "put back to an earlier state", "another name"]).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "FAILS: it halts, but names the publication that is missing instead of the database that was put back"]
async fn put_back_to_an_earlier_state_under_the_running_process() {
    on_stages(async |stage| {
        let server = own_server(stage.version, &[]).await;
        let mut world = World::of(stage, &server, &filled(100, 64)).await;
        let launch = world.launch("").await;
        blocking(|| {
            server.stop("fast");
            server.save("earlier");
            server.start_again(&[]);
        })
        .await;
        world.reconnect(server.port()).await;
        let mut process = launch.run();
        world.run("INSERT INTO items SELECT n, n, 'later', 0 FROM generate_series(1000, 5000) n").await;
        world.until_agreed(&mut process, ALL).await;
        blocking(|| {
            server.stop("immediate");
            server.put_back("earlier");
            server.start_again(&[]);
        })
        .await;
        // The slot was made after the copy was: it is gone, or the log ends too early, whichever is seen first.
        let ended = process.exit(LIMIT).await;
        let log = process.log();
        assert!(!ended.success() && log.contains("put back to an earlier state"), "{}", process.log_tail());
    })
    .await;
}

/// A crash of the server is no restore: what it had acknowledged it still has.
#[tokio::test(flavor = "multi_thread")]
async fn killed_and_started_again_under_the_running_process() {
    on_stages(async |stage| {
        let server = own_server(stage.version, &[]).await;
        let mut world = World::of(stage, &server, &filled(3_000, 64)).await;
        let launch = world.launch("").await;
        let mut process = launch.run();
        for turn in 0..3 {
            world.until_agreed(&mut process, SUMS).await;
            world
                .run(&format!(
                    "UPDATE items SET n = {turn} WHERE id % 3 = {turn}; DELETE FROM items WHERE id = {turn} + 7"
                ))
                .await;
            blocking(|| {
                server.kill();
                server.start_again(&[]);
            })
            .await;
            world.reconnect(server.port()).await;
        }
        world.until_agreed(&mut process, ALL).await;
        process.stop().await;
        world.must_agree(&launch, ALL).await;
    })
    .await;
}

/// The standby has the slot and everything that was read (PostgreSQL 17 and newer keep slots ready there).
#[tokio::test(flavor = "multi_thread")]
async fn failed_over_to_a_standby_that_has_everything() {
    if !available(Version::Newest.component()) || !available("postgres") {
        return;
    }
    let stage = Stage { version: Version::Newest, target: Target::Sqlite };
    let server = own_server(stage.version, &[]).await;
    let mut world = World::of(stage, &server, &filled(200, 64)).await;
    let slot = world.slot();
    let slots = [
        "SELECT pg_create_physical_replication_slot('standby')".to_owned(),
        format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput', false, false, true)"),
        "CREATE PUBLICATION p FOR TABLE items".to_owned(),
    ];
    for sql in slots {
        world.run(&sql).await;
    }
    let following = [
        "primary_slot_name=standby",
        "hot_standby_feedback=on",
        "sync_replication_slots=on",
        "wal_receiver_status_interval=1",
    ];
    let standby = blocking(|| server.standby(&following)).await;
    world.run("ALTER SYSTEM SET synchronized_standby_slots = 'standby'").await;
    world.run("SELECT pg_reload_conf()").await;
    let launch = world.launch("").await;
    let mut process = launch.run();
    world.run("UPDATE items SET n = 1; INSERT INTO items VALUES (1001, 1, 'before', 1)").await;
    world.until_agreed(&mut process, ALL).await;
    // The standby has the slot, and it stands no further than what the primary's has acknowledged.
    let mut there = connect(&format!("postgres://postgres@127.0.0.1:{}/{}", standby.port(), world.database)).await;
    let ready = format!(
        "SELECT CAST(synced AND NOT temporary AND invalidation_reason IS NULL AS text) FROM pg_replication_slots \
         WHERE slot_name = '{slot}'"
    );
    let begun = Instant::now();
    while postgres_rows(&mut there, &ready).await != ["true"] {
        assert!(begun.elapsed() < LIMIT, "the slot never reaches the standby\n{}", standby.log());
        // It does once the slot needs nothing from before the copy: what is acknowledged must move on.
        world.run("SELECT pg_log_standby_snapshot()").await;
        world.run("UPDATE items SET n = n + 1 WHERE id = 2").await;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    world.run("INSERT INTO items VALUES (1002, 2, 'just before', 1)").await;
    world.until_agreed(&mut process, ALL).await;
    blocking(|| {
        server.stop("immediate");
        standby.promote();
    })
    .await;
    world.proxy.aim(standby.port());
    // The process that saw it happen says so, and the next one goes on.
    must_end(&mut process, &["was promoted since this process began", "start the process again"]).await;
    world.reconnect(standby.port()).await;
    world.run("INSERT INTO items VALUES (1003, 3, 'after', 1); DELETE FROM items WHERE id = 1").await;
    launch.run_until_caught_up().await;
    assert!(launch.whole_log().contains("the server went from timeline 1 to 2"));
    world.must_agree(&launch, ALL).await;
}

/// The standby lacks what was read from the primary: going on would mix two histories.
#[tokio::test(flavor = "multi_thread")]
async fn failed_over_to_a_standby_that_lacks_what_was_read() {
    on_stages(async |stage| {
        let server = own_server(stage.version, &[]).await;
        let mut world = World::of(stage, &server, &filled(200, 64)).await;
        let launch = world.launch("").await;
        launch.run_until_caught_up().await;
        let standby = blocking(|| server.standby(&[])).await;
        // It hears nothing more.
        blocking(|| standby.stop("fast")).await;
        world.run("INSERT INTO items SELECT n, n, 'only here', 0 FROM generate_series(1000, 3000) n").await;
        launch.run_until_caught_up().await;
        world.must_agree(&launch, ALL).await;
        blocking(|| {
            server.stop("immediate");
            standby.start_again(&[]);
            standby.promote();
        })
        .await;
        world.proxy.aim(standby.port());
        world.must_halt(&launch, &["the server's log ends at", "ours already stands at", "another name"]).await;
        // Even when the new primary has written more than the old one had.
        world.reconnect(standby.port()).await;
        world.run("CREATE TABLE other AS SELECT n, repeat('x', 500) AS t FROM generate_series(1, 20000) n").await;
        world.must_halt(&launch, &["ours already stands at", "another name"]).await;
    })
    .await;
}

/// A promoted standby without the slot (older than 17, or not kept ready): what was written before somebody makes one is
/// not to be had.
#[tokio::test(flavor = "multi_thread")]
async fn failed_over_to_a_standby_without_the_slot() {
    on_stages(async |stage| {
        let server = own_server(stage.version, &[]).await;
        let mut world = World::of(stage, &server, &filled(200, 64)).await;
        let launch = world.launch("").await;
        launch.run_until_caught_up().await;
        let standby = blocking(|| server.standby(&[])).await;
        let end = world.there("SELECT CAST(pg_current_wal_lsn() AS text)").await.remove(0);
        let mut there = connect(&format!("postgres://postgres@127.0.0.1:{}/{}", standby.port(), world.database)).await;
        let has_all = format!("SELECT CAST(pg_last_wal_replay_lsn() >= '{end}' AS text)");
        while postgres_rows(&mut there, &has_all).await != ["true"] {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        blocking(|| {
            server.stop("immediate");
            standby.promote();
        })
        .await;
        world.proxy.aim(standby.port());
        world.reconnect(standby.port()).await;
        world.run("DELETE FROM items WHERE id = 1").await;
        world.must_halt(&launch, &["no longer has what must come next", "it is not there any more"]).await;
        world.launch(", snapshot: { on_lost_slot: snapshot_again }").await.run_until_caught_up().await;
        world.must_agree(&launch, ALL).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_server_at_the_same_address() {
    on_stages(async |stage| {
        let (mine, other) = tokio::join!(own_server(stage.version, &[]), own_server(stage.version, &[]));
        let mut world = World::of(stage, &mine, &filled(100, 64)).await;
        // The same database with the same tables, publication and slot.
        let url = other.database().await;
        assert!(url.ends_with(&world.database));
        let mut there = connect(&url).await;
        let setup =
            format!("{ITEMS}; INSERT INTO items VALUES (1, 1, 'wrong', 1); CREATE PUBLICATION p FOR TABLE items");
        let slot = format!("SELECT pg_create_logical_replication_slot('{}', 'pgoutput')", world.slot());
        for sql in [setup, slot] {
            there.execute(AssertSqlSafe(sql)).await.unwrap();
        }
        let launch = world.launch("").await;
        let mut process = launch.run();
        world.until_agreed(&mut process, ALL).await;
        world.proxy.aim(other.port());
        world.proxy.now(crate::support::proxy::Fault::Cut);
        must_end(&mut process, &["is another one since this process began"]).await;
        world.must_halt(&launch, &["the log knows it as", "another database"]).await;
        // Back at the right one it goes on.
        world.proxy.aim(mine.port());
        world.run("UPDATE items SET n = 5").await;
        launch.run_until_caught_up().await;
        world.must_agree(&launch, ALL).await;
    })
    .await;
}
