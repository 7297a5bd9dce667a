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

/// The files that it had then, in place of those that it has.
async fn put_back(server: &Server, stop: &'static str) {
    blocking(|| {
        server.stop(stop);
        server.put_back("earlier");
        server.start_again(&[]);
    })
    .await;
}

/// A copy of the server's files, for later.
async fn save(server: &Server, world: &mut World) {
    blocking(|| {
        server.stop("fast");
        server.save("earlier");
        server.start_again(&[]);
    })
    .await;
    world.reconnect(server.port()).await;
}

impl World {
    /// The server ended: a new connection for the test.
    async fn reconnect(&mut self, port: u16) {
        self.port = port;
        self.source = connect(&format!("postgres://postgres@127.0.0.1:{port}/{}", self.database)).await;
    }

    /// A server that is not the one that was read is left as it is.
    async fn nothing_was_made(&mut self) {
        assert!(self.there("SELECT pubname::text FROM pg_publication").await.is_empty());
        assert!(self.there("SELECT slot_name::text FROM pg_replication_slots").await.is_empty());
    }

    /// From where on the server kept its log for the slot, as the lake's log has it.
    fn slot_begins(&self) -> Option<u64> {
        let log = self.path().join("lake/_log");
        let number = |path: &Path| path.file_stem()?.to_str()?.parse::<u64>().ok();
        let manifests = std::fs::read_dir(log).unwrap().map(|entry| entry.unwrap().path());
        let newest = manifests.filter_map(|path| Some((number(&path)?, path))).max()?.1;
        let text = std::fs::read_to_string(newest).unwrap().replace('\\', "");
        let (high, low) = text.split("\"slot_begins\":\"").last()?.split('"').next()?.split_once('/')?;
        Some(u64::from_str_radix(high, 16).ok()? << 32 | u64::from_str_radix(low, 16).ok()?)
    }

    /// A place of the server's log, as a number.
    async fn place(&mut self, of: &str) -> u64 {
        self.there(&format!("SELECT CAST(CAST(pg_wal_lsn_diff({of}, '0/0') AS bigint) AS text)")).await[0]
            .parse()
            .unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn put_back_to_an_earlier_state_while_nobody_reads() {
    on_stages(async |stage| {
        let server = own_server(stage.version, &[]).await;
        let mut world = World::of(stage, &server, &filled(100, 64)).await;
        let launch = world.launch("").await;
        launch.run_until_caught_up().await;
        save(&server, &mut world).await;
        world
            .run("UPDATE items SET n = 0; INSERT INTO items SELECT n, n, 'later', 0 FROM generate_series(1000, 5000) n")
            .await;
        launch.run_until_caught_up().await;
        world.must_agree(&launch, ALL).await;
        put_back(&server, "fast").await;
        world.must_halt(&launch, &["the server's log ends at", "put back to an earlier state", "another name"]).await;
    })
    .await;
}

/// The copy has neither the publication nor the slot: they were made after it.
#[tokio::test(flavor = "multi_thread")]
async fn put_back_to_an_earlier_state_under_the_running_process() {
    on_stages(async |stage| {
        let server = own_server(stage.version, &[]).await;
        let mut world = World::of(stage, &server, &filled(100, 64)).await;
        let launch = world.launch("").await;
        save(&server, &mut world).await;
        let mut process = launch.run();
        world.run("INSERT INTO items SELECT n, n, 'later', 0 FROM generate_series(1000, 5000) n").await;
        world.until_agreed(&mut process, ALL).await;
        put_back(&server, "immediate").await;
        must_end(&mut process, &["put back to an earlier state", "the server's log ends at", "another name"]).await;
        world.reconnect(server.port()).await;
        world.nothing_was_made().await;
        world.must_halt(&launch, &["put back to an earlier state", "the server's log ends at"]).await;
        world.nothing_was_made().await;
        // Nor when it has written more than was read since.
        world.run("CREATE TABLE other AS SELECT n, repeat('x', 500) AS t FROM generate_series(1, 20000) n").await;
        world.must_halt(&launch, &["put back to an earlier state", "neither it nor publication p is there"]).await;
        world.nothing_was_made().await;
    })
    .await;
}

/// The copy has publication and slot, and writes beyond what was read before anybody looks: the slot stands where it
/// stood when the copy was made.
#[tokio::test(flavor = "multi_thread")]
async fn put_back_and_written_on_beyond_what_was_read() {
    on_stages(async |stage| {
        let server = own_server(stage.version, &[]).await;
        let mut world = World::of(stage, &server, &filled(100, 64)).await;
        let launch = world.launch(", heartbeat: 1s").await;
        launch.run_until_caught_up().await;
        save(&server, &mut world).await;
        let begins = format!("(SELECT restart_lsn FROM pg_replication_slots WHERE slot_name = '{}')", world.slot());
        let copied = world.place(&begins).await;
        let mut process = launch.run();
        let begun = Instant::now();
        while world.slot_begins().is_none_or(|begins| begins <= copied) {
            assert!(begun.elapsed() < LIMIT && !process.has_ended(), "the slot never moves\n{}", process.log_tail());
            // The server notes at a checkpoint from where on its log suffices.
            world.run("UPDATE items SET n = n + 1; CHECKPOINT").await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        world.until_agreed(&mut process, ALL).await;
        process.stop().await;
        let end = world.place("pg_current_wal_lsn()").await;
        put_back(&server, "fast").await;
        world.reconnect(server.port()).await;
        while world.place("pg_current_wal_lsn()").await <= end {
            world.run("UPDATE items SET t = repeat('other', 100)").await;
        }
        let words = ["needs the server's log from", "put back to an earlier state", "another name"];
        world.must_halt(&launch, &words).await;
        world.must_halt(&world.launch(", snapshot: { on_lost_slot: snapshot_again }").await, &words).await;
        assert_eq!(world.place(&begins).await, copied, "the slot was read or made anew");
    })
    .await;
}

/// The copy is being recovered when it is met first: nothing can be said of it yet, and then that it is another history.
#[tokio::test(flavor = "multi_thread")]
async fn put_back_and_met_while_it_is_recovered() {
    on_stages(async |stage| {
        let server = own_server(stage.version, &[]).await;
        let mut world = World::of(stage, &server, &filled(100, 64)).await;
        let launch = world.launch("").await;
        save(&server, &mut world).await;
        let mut process = launch.run();
        world.run("INSERT INTO items SELECT n, n, 'later', 0 FROM generate_series(1000, 5000) n").await;
        world.until_agreed(&mut process, ALL).await;
        blocking(|| {
            server.stop("immediate");
            server.put_back("earlier");
            server.recover();
            server.start_again(&[]);
        })
        .await;
        process.wait_for_log("is in recovery: it is a standby, or is being restored", LIMIT).await;
        blocking(|| server.promote()).await;
        must_end(&mut process, &["was promoted since this process began", "start the process again"]).await;
        world.must_halt(&launch, &["which left timeline 1 at", "ours already stands at", "another name"]).await;
        world.reconnect(server.port()).await;
        world.nothing_was_made().await;
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
    world.run("SELECT pg_create_physical_replication_slot('standby')").await;
    let launch = world.launch(", failover: true").await;
    launch.run_until_caught_up().await;
    let following = [
        "primary_slot_name=standby",
        "hot_standby_feedback=on",
        "sync_replication_slots=on",
        "wal_receiver_status_interval=1",
    ];
    let standby = blocking(|| server.standby(&following)).await;
    world.run("ALTER SYSTEM SET synchronized_standby_slots = 'standby'").await;
    world.run("SELECT pg_reload_conf()").await;
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
    // Back at the old one, what was read since is not there.
    blocking(|| server.start_again(&[])).await;
    world.proxy.aim(server.port());
    world.must_halt(&launch, &["is on timeline 1, and what was read is on timeline 2", "another name"]).await;
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
        world.must_halt(&launch, &["which left timeline 1 at", "ours already stands at", "another name"]).await;
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
