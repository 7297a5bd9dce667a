//! The connection breaks: cut, reset, half closed, stalled, at every stage, and refused at the beginning. None of it may end
//! the process, lose a row or double one. What the process says, and in which order, shows that the stage was hit.

use std::time::{Duration, Instant};

use futures::future::join_all;

use crate::mysql_source::{ITEMS, ROWS, SUMS, World, families, items};
use crate::support::mysql::{Family, Server};
use crate::support::process::{LIMIT, Launch, Running};
use crate::support::proxy::{Fault, Proxy};

const FAULTS: [Fault; 4] = [Fault::Cut, Fault::Reset, Fault::HalfClose, Fault::Stall];

const LOGGING_IN: &str = "connect to ";
const STREAMING: &str = "\"reading the binary log\"";
const READING: &str = "\"reading the rows that are there\"";
const READ: &str = "\"the rows that are there were read\"";
const TRIED_AGAIN: &str = "trying again";

/// A world behind a proxy, and how to start there.
async fn behind_a_proxy(world: &mut World, more: &str) -> (Proxy, Launch) {
    let direct = world.port;
    let proxy = Proxy::to(direct).await;
    world.port = proxy.port();
    let launch = world.launch(ITEMS, more);
    world.port = direct;
    (proxy, launch)
}

/// Waits for the fault. A stalled connection must be given up while it is stalled, and only then everything passes again.
async fn heal_after(proxy: &Proxy, process: &mut Running, faults: u64, fault: Fault) {
    let begun = Instant::now();
    while proxy.faults() < faults {
        let fine = begun.elapsed() < LIMIT && !process.has_ended();
        assert!(fine, "{} bytes passed\n{}", proxy.passed(), process.log_tail());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    if fault == Fault::Stall {
        let lines = |process: &Running| process.log().matches(TRIED_AGAIN).count();
        let before = lines(process);
        while lines(process) == before {
            let fine = begun.elapsed() < LIMIT && !process.has_ended();
            assert!(fine, "the stalled connection is not given up\n{}", process.log_tail());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        // What hung is cut off, and what comes next gets through.
        proxy.now(Fault::Reset);
        proxy.heal();
    }
}

async fn until_equal(world: &mut World, process: &mut Running) {
    let there = world.there(SUMS).await;
    let there: Vec<&str> = there.iter().map(String::as_str).collect();
    world.until_held(process, SUMS, &there).await;
}

/// Ends the process in order; then nothing is missing and nothing twice.
async fn end(world: &mut World, process: &mut Running, launch: &Launch) {
    until_equal(world, process).await;
    process.stop().await;
    launch.run_until_caught_up().await;
    world.assert_equal(ROWS).await;
    launch.assert_equal();
}

/// Where in a log a text stands first.
fn first(log: &str, text: &str) -> Option<usize> {
    log.find(text)
}

/// Every fault on every family, side by side: much of it is waiting.
async fn on_all(scenario: impl AsyncFn(Family, Fault)) {
    let cases = families().into_iter().flat_map(|family| FAULTS.map(|fault| (family, fault)));
    join_all(cases.map(|(family, fault)| scenario(family, fault))).await;
}

/// The first line that says that something is tried again, and the log before it.
fn first_failure(process: &Running) -> (String, String) {
    let log = process.log();
    let at = first(&log, TRIED_AGAIN).unwrap_or_else(|| panic!("nothing was tried again\n{log}"));
    let begins = log[..at].rfind('\n').map_or(0, |at| at + 1);
    let line = log[begins..].lines().next().unwrap_or_default().to_owned();
    (line, log[..begins].to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_logs_in() {
    on_all(async |family, fault| {
        let mut world = World::new(family, &items(100)).await;
        let (proxy, launch) = behind_a_proxy(&mut world, "").await;
        // A greeting has more than 60 bytes.
        proxy.after(60, fault);
        let mut process = launch.run();
        heal_after(&proxy, &mut process, 1, fault).await;
        process.wait_for_log(TRIED_AGAIN, LIMIT).await;
        let (line, before) = first_failure(&process);
        assert!(line.contains(LOGGING_IN) && !before.contains(STREAMING), "{family:?} {fault:?}: {line}\n{before}");
        end(&mut world, &mut process, &launch).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_looks_around() {
    on_all(async |family, fault| {
        let mut world = World::new(family, &items(100)).await;
        let (proxy, launch) = behind_a_proxy(&mut world, "").await;
        // Logged in once, and the log is not asked for yet.
        proxy.after(900, fault);
        let mut process = launch.run();
        heal_after(&proxy, &mut process, 1, fault).await;
        process.wait_for_log(TRIED_AGAIN, LIMIT).await;
        let (line, before) = first_failure(&process);
        assert!(!line.contains(LOGGING_IN) && !before.contains(STREAMING), "{family:?} {fault:?}: {line}\n{before}");
        end(&mut world, &mut process, &launch).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_rows_are_read() {
    on_all(async |family, fault| {
        let mut world = World::new(family, &items(20_000)).await;
        world.run("UPDATE items SET t = repeat('b', 190)").await;
        let (proxy, launch) = behind_a_proxy(&mut world, ", snapshot: { chunk_rows: 1000 }").await;
        // Each of the twenty parts takes its time, so the fault comes before the last one.
        let mut process = launch.clone().failpoints("mysql.snapshot.chunk=sleep(200)").run();
        process.wait_for_log(READING, LIMIT).await;
        proxy.after(300_000, fault);
        world.run("DELETE FROM items WHERE id % 5 = 0; UPDATE items SET id = -id WHERE id % 7 = 0; UPDATE items SET n = 0").await;
        heal_after(&proxy, &mut process, 1, fault).await;
        process.wait_for_log(TRIED_AGAIN, LIMIT).await;
        let (_, before) = first_failure(&process);
        assert!(before.contains(READING) && !before.contains(READ), "{family:?} {fault:?}: {before}");
        end(&mut world, &mut process, &launch).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_it_streams() {
    on_all(async |family, fault| {
        let mut world = World::new(family, &items(2_000)).await;
        let (proxy, launch) = behind_a_proxy(&mut world, "").await;
        let mut process = launch.run();
        until_equal(&mut world, &mut process).await;
        process.wait_for_log(READ, LIMIT).await;
        assert!(!process.log().contains(TRIED_AGAIN), "{}", process.log_tail());
        proxy.after(40_000, fault);
        for turn in 0..20 {
            let from = turn * 100;
            world
                .run(&format!(
                    "UPDATE items SET n = n + 1 WHERE id BETWEEN {from} AND {from} + 99; DELETE FROM items WHERE id = {from} + 1; \
                     INSERT INTO items VALUES ({from} + 100000, 1, 'new')"
                ))
                .await;
        }
        heal_after(&proxy, &mut process, 1, fault).await;
        end(&mut world, &mut process, &launch).await;
        let (line, before) = first_failure(&process);
        assert!(before.contains(READ) && !line.contains(LOGGING_IN), "{family:?} {fault:?}: {line}");
    })
    .await;
}

/// Bytes of a server's whole log.
async fn log_bytes(world: &mut World) -> u64 {
    let files = world.there("SHOW BINARY LOGS").await;
    files.iter().filter_map(|file| file.split('|').nth(1)?.parse::<u64>().ok()).sum()
}

async fn inside(family: Family) {
    // Nothing else is in this server's log.
    let server = Server::start(family, &[]);
    let mut world = World::on(&server, &items(6_000).replace("varchar(200)", "varchar(2000)")).await;
    world.run("UPDATE items SET t = repeat('y', 1000)").await;
    let direct = world.port;
    let proxy = Proxy::to(direct).await;
    world.port = proxy.port();
    let launch = world.launch_small(ITEMS, "");
    world.port = direct;
    let mut process = launch.run();
    until_equal(&mut world, &mut process).await;
    for (turn, fault) in FAULTS.into_iter().enumerate() {
        let (log, passed) = (log_bytes(&mut world).await, proxy.passed());
        proxy.after(3_000_000, fault);
        let from = (turn + 1) * 10_000;
        world.run(&format!("INSERT INTO items SELECT id + {from}, n, t FROM items WHERE id BETWEEN 1 AND 6000")).await;
        let size = log_bytes(&mut world).await - log;
        heal_after(&proxy, &mut process, turn as u64 + 1, fault).await;
        // The transaction is twice as large as what had come when it broke.
        assert!(size > 5_800_000 && proxy.passed() >= passed + 3_000_000, "{family:?} {fault:?}: {size} bytes");
        until_equal(&mut world, &mut process).await;
    }
    assert!(process.log().contains("larger than max_transaction"), "{}", process.log_tail());
    end(&mut world, &mut process, &launch).await;
}

/// What of it was taken must not be taken twice.
#[tokio::test(flavor = "multi_thread")]
async fn inside_a_large_transaction() {
    join_all(families().into_iter().map(inside)).await;
}

/// A server that is away when the process starts is waited for, unless an end was asked for.
#[tokio::test(flavor = "multi_thread")]
async fn before_anything_was_said() {
    for family in families() {
        let mut world = World::new(family, &items(50)).await;
        let (proxy, launch) = behind_a_proxy(&mut world, "").await;
        proxy.now(Fault::Refuse);
        let mut once = launch.clone().arg("--until-caught-up").run();
        assert!(!once.exit(LIMIT).await.success(), "{family:?}");
        let log = once.log();
        assert!(log.contains(&format!("connect to 127.0.0.1:{}", proxy.port())), "{log}");
        let mut process = launch.run();
        process.wait_for_log(TRIED_AGAIN, LIMIT).await;
        proxy.heal();
        end(&mut world, &mut process, &launch).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_falls_silent_is_left_and_asked_again() {
    join_all(families().into_iter().map(async |family| {
        let mut world = World::new(family, &items(100)).await;
        let (proxy, launch) = behind_a_proxy(&mut world, "").await;
        let mut process = launch.run();
        until_equal(&mut world, &mut process).await;
        proxy.now(Fault::Stall);
        world.run("UPDATE items SET n = n + 1").await;
        heal_after(&proxy, &mut process, 1, Fault::Stall).await;
        end(&mut world, &mut process, &launch).await;
    }))
    .await;
}
