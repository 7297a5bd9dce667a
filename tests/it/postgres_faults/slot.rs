//! The slot, or the log behind it, goes away. What it had for us cannot be had any more: the process says so and stops, and
//! the way out that it names works.

use super::*;

const AGAIN: &str = ", snapshot: { on_lost_slot: snapshot_again }";

/// The way out that the message names: read everything again, and go on from there without it.
async fn take_the_way_out(world: &mut World) {
    let again = world.launch(AGAIN).await;
    again.run_until_caught_up().await;
    world.must_agree(&again, ALL).await;
    world.run("UPDATE items SET n = n + 1; DELETE FROM items WHERE id % 3 = 0").await;
    let launch = world.launch("").await;
    launch.run_until_caught_up().await;
    world.must_agree(&launch, ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dropped_under_the_running_process() {
    on_stages(async |stage| {
        let mut world = World::new(stage, &filled(100, 64)).await;
        let launch = world.launch("").await;
        let mut process = launch.run();
        world.until_agreed(&mut process, SUMS).await;
        let slot = world.slot();
        // It comes back as soon as its connection ends, so that ending and dropping are tried until one drop is quicker.
        let drop = format!(
            "DO $$ BEGIN LOOP \
               PERFORM pg_terminate_backend(active_pid) FROM pg_replication_slots WHERE slot_name = '{slot}' AND active; \
               BEGIN PERFORM pg_drop_replication_slot('{slot}'); EXIT; EXCEPTION WHEN object_in_use THEN NULL; END; \
             END LOOP; END $$"
        );
        world.run(&drop).await;
        world.run("INSERT INTO items VALUES (1001, 1, 'nobody keeps this', 1); DELETE FROM items WHERE id = 1").await;
        must_end(&mut process, &["no longer has what must come next", "it is not there any more", "snapshot_again"]).await;
        world.must_halt(&launch, &["it is not there any more"]).await;
        take_the_way_out(&mut world).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn made_again_by_somebody_else() {
    on_stages(async |stage| {
        let mut world = World::new(stage, &filled(100, 64)).await;
        let launch = world.launch("").await;
        launch.run_until_caught_up().await;
        world.until_idle().await;
        let slot = world.slot();
        world.run(&format!("SELECT pg_drop_replication_slot('{slot}')")).await;
        world.run("DELETE FROM items WHERE id = 1").await;
        world.run(&format!("SELECT pg_create_logical_replication_slot('{slot}', 'pgoutput')")).await;
        world.must_halt(&launch, &["no longer has what must come next", "it begins at", "snapshot_again"]).await;
        take_the_way_out(&mut world).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn its_publication_was_dropped_while_nobody_read() {
    on_stages(async |stage| {
        let mut world = World::new(stage, &filled(100, 64)).await;
        let launch = world.launch("").await;
        launch.run_until_caught_up().await;
        world.run("DROP PUBLICATION p; DELETE FROM items WHERE id = 1").await;
        world.must_halt(&launch, &["no longer has what must come next", "publication"]).await;
        world.until_idle().await;
        take_the_way_out(&mut world).await;
    })
    .await;
}

/// Writes log until the server has removed what the slot needs.
async fn lose_log(world: &mut World) {
    let slot = world.slot();
    let lost = format!("SELECT wal_status FROM pg_replication_slots WHERE slot_name = '{slot}'");
    world.run("CREATE TABLE IF NOT EXISTS busy (t text)").await;
    while world.there(&lost).await != ["lost"] {
        world.run("INSERT INTO busy SELECT repeat(md5(n::text), 30) FROM generate_series(1, 8000) n").await;
        world.run("SELECT pg_switch_wal(); CHECKPOINT").await;
    }
}

const LITTLE_LOG: [&str; 3] = ["max_slot_wal_keep_size=1MB", "min_wal_size=32MB", "max_wal_size=32MB"];

#[tokio::test(flavor = "multi_thread")]
async fn the_log_was_removed_while_nobody_read() {
    on_stages(async |stage| {
        let server = tokio::task::spawn_blocking(move || Server::start(stage.version, &LITTLE_LOG)).await.unwrap();
        let mut world = World::of(stage, &server, &filled(100, 64)).await;
        let launch = world.launch("").await;
        launch.run_until_caught_up().await;
        world.until_idle().await;
        world.run("DELETE FROM items WHERE id = 1").await;
        lose_log(&mut world).await;
        world.must_halt(&launch, &["no longer has what must come next", "snapshot_again"]).await;
        take_the_way_out(&mut world).await;
    })
    .await;
}

/// The connection hangs, the log is removed, and the connection comes back.
#[tokio::test(flavor = "multi_thread")]
async fn the_log_was_removed_while_the_connection_hung() {
    on_stages(async |stage| {
        let server = tokio::task::spawn_blocking(move || Server::start(stage.version, &LITTLE_LOG)).await.unwrap();
        let mut world = World::of(stage, &server, &filled(100, 64)).await;
        let launch = world.launch("").await;
        let mut process = launch.run();
        world.until_agreed(&mut process, SUMS).await;
        world.proxy.now(crate::support::proxy::Fault::Stall);
        world.run("DELETE FROM items WHERE id = 1").await;
        lose_log(&mut world).await;
        world.proxy.heal();
        must_end(&mut process, &["no longer has what must come next", "snapshot_again"]).await;
        take_the_way_out(&mut world).await;
    })
    .await;
}
