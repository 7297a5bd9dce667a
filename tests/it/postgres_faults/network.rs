//! The connection breaks: cut, stalled, reset, half closed, refused, at every stage. None of it may end the process, lose a
//! row or double one.

use super::*;
use crate::support::proxy::Fault;

const FAULTS: [Fault; 4] = [Fault::Cut, Fault::Reset, Fault::HalfClose, Fault::Stall];

/// Waits for the fault, and heals the proxy when everybody has had time to notice: a stalled connection must be given up
/// while it is stalled.
async fn heal_after(world: &World, process: &mut Running, faults: u64, fault: Fault) {
    let begun = Instant::now();
    while world.proxy.faults() < faults {
        assert!(
            begun.elapsed() < LIMIT && !process.has_ended(),
            "{} bytes passed\n{}",
            world.proxy.passed(),
            process.log_tail()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    if matches!(fault, Fault::Stall | Fault::Refuse) {
        // It must try again by itself before anything comes back.
        let connections = world.proxy.connections();
        let begun = Instant::now();
        while world.proxy.connections() == connections {
            assert!(begun.elapsed() < LIMIT && !process.has_ended(), "it does not try again\n{}", process.log_tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        world.proxy.heal();
    }
}

/// Where in the conversation it happens, by bytes that have come from the server: in the first login, later, later, …
const OFFSETS: [u64; 8] = [30, 400, 800, 1_200, 2_000, 3_000, 4_500, 6_000];

#[tokio::test(flavor = "multi_thread")]
async fn while_it_logs_in_and_looks_around() {
    on_stages(async |stage| {
        join_all(FAULTS.map(async |fault| {
            let mut world = World::new(stage, &filled(50, 64)).await;
            let launch = world.launch("").await;
            for (turn, bytes) in OFFSETS.into_iter().enumerate() {
                world.run(&format!("INSERT INTO items VALUES ({}, 0, 'x', 1)", 1_000 + turn)).await;
                world.proxy.after(bytes, fault);
                let mut process = launch.run();
                heal_after(&world, &mut process, turn as u64 + 1, fault).await;
                world.until_agreed(&mut process, ALL).await;
                process.stop().await;
            }
            world.must_agree(&launch, ALL).await;
        }))
        .await;
    })
    .await;
}

/// The rows of a table that is read again and of one that joins, part by part beside the stream, under writers.
#[tokio::test(flavor = "multi_thread")]
async fn while_rows_are_read_beside_the_stream() {
    const MORE: &str = "SELECT CAST(id AS text), t FROM more ORDER BY more.id";
    on_stages(async |stage| {
        join_all(FAULTS.map(async |fault| {
            let more = "CREATE TABLE more (id int PRIMARY KEY, t text); \
                        INSERT INTO more SELECT n, repeat(md5(n::text), 30) FROM generate_series(1, 3000) n";
            let mut world = World::new(stage, &format!("{}; {more}", filled(4_000, 1_000))).await;
            world.launch("").await.run_until_caught_up().await;
            world.until_idle().await;
            let both = "{ items: { from: public.items }, more: { from: public.more } }";
            let launch = world.launch_tables(both, ", snapshot: { chunk_rows: 500 }").await;
            assert!(launch.other(&["table", "resync"], &["items"]).status.success());
            let writer = world.write(4_000);
            // About a third of both has passed.
            world.proxy.after(2_000_000, fault);
            let mut process = launch.run();
            heal_after(&world, &mut process, 1, fault).await;
            assert!(writer.end().await > 0);
            world.until_agreed(&mut process, ALL).await;
            world.until_agreed(&mut process, MORE).await;
            let read = |status: &serde_json::Value| {
                status["tables"].as_array().unwrap().iter().all(|table| table["reading"].is_null())
            };
            process.wait_for("both to be read", LIMIT, read).await;
            let log = process.log();
            assert_eq!(log.matches("reading the rows that are there, beside the changes").count(), 2, "{log}");
            process.stop().await;
            world.must_agree(&launch, ALL).await;
            world.must_answer_alike(&launch, MORE).await;
        }))
        .await;
    })
    .await;
}

/// A server that is away when the process starts is waited for, unless an end was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn before_anything_was_said() {
    on_stages(async |stage| {
        let mut world = World::new(stage, &filled(50, 64)).await;
        let launch = world.launch("").await;
        world.proxy.now(Fault::Refuse);
        let mut once = launch.clone().arg("--until-caught-up").run();
        must_end(&mut once, &[&format!("127.0.0.1:{}/{}", world.proxy.port(), world.database)]).await;
        let mut process = launch.run();
        process.wait_for_log("trying again", LIMIT).await;
        process.stop().await;
        let mut process = launch.run();
        process.wait_for_log("trying again", LIMIT).await;
        world.proxy.heal();
        world.until_agreed(&mut process, ALL).await;
        process.stop().await;
        world.must_agree(&launch, ALL).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_rows_that_are_there_are_read() {
    on_stages(async |stage| {
        join_all(FAULTS.map(async |fault| {
            let mut world = World::new(stage, &filled(8_000, 1_000)).await;
            let writer = world.write(8_000);
            let launch = world.launch("").await;
            // About half of it has passed.
            world.proxy.after(4_000_000, fault);
            let mut process = launch.run();
            heal_after(&world, &mut process, 1, fault).await;
            assert!(writer.end().await > 0);
            world.until_agreed(&mut process, ALL).await;
            world.until_agreed(&mut process, ALL).await;
            process.stop().await;
            world.must_agree(&launch, ALL).await;
        }))
        .await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_streams() {
    on_stages(async |stage| {
        let mut world = World::new(stage, &filled(500, 64)).await;
        let launch = world.launch("").await;
        let mut process = launch.run();
        world.until_agreed(&mut process, SUMS).await;
        let writer = world.write(500);
        for (turn, fault) in FAULTS.into_iter().chain([Fault::Refuse]).enumerate() {
            world.proxy.after(150_000, fault);
            heal_after(&world, &mut process, turn as u64 + 1, fault).await;
        }
        assert!(writer.end().await > 0);
        world.until_agreed(&mut process, ALL).await;
        process.stop().await;
        world.must_agree(&launch, ALL).await;
    })
    .await;
}

/// A large transaction is on its way: what of it was taken must not be taken twice.
#[tokio::test(flavor = "multi_thread")]
async fn inside_a_large_transaction() {
    on_stages(async |stage| {
        let mut world = World::new(stage, &filled(10, 64)).await;
        let launch = world.launch(", max_transaction: 1MiB").await;
        let mut process = launch.run();
        world.until_agreed(&mut process, SUMS).await;
        for (turn, fault) in FAULTS.into_iter().enumerate() {
            world.proxy.after(3_000_000, fault);
            world
                .run(&format!(
                    "INSERT INTO items SELECT {turn} * 10000 + n + 100, n, repeat('y', 1000), 1 FROM generate_series(1, 6000) n"
                ))
                .await;
            heal_after(&world, &mut process, turn as u64 + 1, fault).await;
            world.until_agreed(&mut process, SUMS).await;
        }
        process.stop().await;
        world.must_agree(&launch, ALL).await;
    })
    .await;
}

/// The epoch is in the lake and the server is not told. Told later, or never by this process, it must send nothing twice.
#[tokio::test(flavor = "multi_thread")]
async fn while_the_server_is_told_what_it_need_not_keep() {
    on_stages(async |stage| {
        join_all(FAULTS.map(async |fault| {
            let mut world = World::new(stage, &filled(50, 64)).await;
            let launch = world.launch("").await;
            launch.run_until_caught_up().await;
            world.until_idle().await;
            let mut process = launch.clone().failpoints("release.before=sleep(400)").run();
            process.wait_for("a status", LIMIT, |status| status["ready"] == true).await;
            let before = world.manifests();
            world.run("INSERT INTO items VALUES (1001, 1, 'told', 1)").await;
            while world.manifests() == before {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            world.proxy.now(fault);
            heal_after(&world, &mut process, 1, fault).await;
            world.run("UPDATE items SET n = n + 1; DELETE FROM items WHERE id < 5").await;
            world.until_agreed(&mut process, ALL).await;
            // The server is told in the end: its slot moves beyond what was written.
            let end = world.there("SELECT CAST(pg_current_wal_lsn() AS text)").await.remove(0);
            world.run("INSERT INTO items VALUES (1002, 1, 'after', 1)").await;
            let told = format!(
                "SELECT CAST(confirmed_flush_lsn >= '{end}' AS text) FROM pg_replication_slots WHERE slot_name = '{}'",
                world.slot()
            );
            let begun = Instant::now();
            while world.there(&told).await != ["true"] {
                assert!(begun.elapsed() < LIMIT, "{fault:?}: the server is never told\n{}", process.log_tail());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            world.until_agreed(&mut process, ALL).await;
            process.stop().await;
            world.must_agree(&launch, ALL).await;
        }))
        .await;
    })
    .await;
}
