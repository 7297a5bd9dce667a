//! Our own process is killed: at every named place that a PostgreSQL source passes, and at random.

use std::collections::BTreeSet;

use futures::StreamExt;

use super::*;
use crate::support::places::{PLACES, passed_again, places_in};

/// Epochs after which a place that was not passed is not passed at all.
const EPOCHS_MORE: u32 = 8;

/// What makes the process pass the place: `postgres.snapshot.*` at first, `postgres.chunk.*` when a table is read beside
/// the stream, `postgres.running.*` when a large transaction comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scene {
    AtFirst,
    ReadAgain,
    LargeTransaction,
}

fn scene(place: &str) -> Scene {
    match place {
        _ if place.starts_with("postgres.chunk.") => Scene::ReadAgain,
        _ if place.starts_with("postgres.running.") => Scene::LargeTransaction,
        _ => Scene::AtFirst,
    }
}

/// Dies the first, or a later time that it passes the place, while somebody writes; then everything is there once. Says
/// whether the place was passed.
async fn dies_and_comes_back(stage: Stage, place: &str, action: &str) -> Result<bool, String> {
    let mut world = World::new(stage, &filled(4_000, 500)).await;
    let scene = scene(place);
    let launch = world.launch(", snapshot: { chunk_rows: 700 }").await;
    if scene != Scene::AtFirst {
        let sent_early = format!("ALTER DATABASE {} SET logical_decoding_work_mem = '64kB'", world.database);
        world.run(&sent_early).await;
        launch.run_until_caught_up().await;
        world.until_idle().await;
    }
    if scene == Scene::ReadAgain {
        assert!(launch.other(&["table", "resync"], &["items"]).status.success());
    }
    let writer = world.write(4_000);
    let mut broken = launch.clone().failpoints(format!("{place}={action}")).run();
    if scene == Scene::LargeTransaction {
        world.run("INSERT INTO items SELECT n, n, repeat('l', 500), 1 FROM generate_series(10000, 22000) n").await;
    }
    until_it_dies_or_is_done(&mut world, &mut broken, scene).await;
    let passed = broken.log().contains(&format!("failpoint {place} does"));
    drop(broken);
    writer.end().await;
    launch.run_until_caught_up().await;
    let (held, there) = (world.held(ALL).await, world.there(ALL).await);
    if held != there {
        let differs = held.iter().zip(&there).find(|(held, there)| held != there);
        return Err(format!("{} rows held, {} there: {differs:?}\n{}", held.len(), there.len(), launch.whole_log()));
    }
    launch.compare().await?;
    Ok(passed)
}

/// A place that this scene does not pass leaves the process alive: then it has read what it was to read, and several epochs
/// more have come and gone, each after a row of its own.
async fn until_it_dies_or_is_done(world: &mut World, broken: &mut Running, scene: Scene) {
    let begun = Instant::now();
    let read = "\"the rows that are there were read\"";
    for mark in 0..EPOCHS_MORE {
        let id = 3_000_000 + mark;
        world.run(&format!("INSERT INTO items VALUES ({id}, 0, 'mark', 1)")).await;
        let done = async |broken: &Running| {
            let held = world.try_held(&format!("SELECT CAST(id AS text) FROM items WHERE id = {id}")).await;
            held.is_ok_and(|held| !held.is_empty()) && (scene == Scene::LargeTransaction || broken.log().contains(read))
        };
        while !done(broken).await {
            if broken.has_ended() {
                return;
            }
            assert!(begun.elapsed() < LIMIT, "{}", broken.log_tail());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Every place is passed in some world; one that none passes is a test that tests nothing.
#[tokio::test(flavor = "multi_thread")]
async fn at_every_named_place() {
    let there = |stage: &Stage| available(stage.version.component()) && available("postgres");
    let stages: Vec<Stage> = STAGES.into_iter().filter(there).collect();
    if stages.is_empty() {
        return;
    }
    let of_the_source = places_in("src/source/postgres");
    let once = PLACES.iter().map(|place| (*place, "return(kill)"));
    let later = passed_again().iter().map(|place| (*place, "3*off->return(kill)"));
    let own = of_the_source
        .iter()
        .flat_map(|place| [(place.as_str(), "return(kill)"), (place.as_str(), "2*off->return(kill)")]);
    // The two stages take turns.
    let cases = once.chain(later).chain(own).enumerate().map(|(n, case)| (stages[n % stages.len()], case));
    let outcomes: Vec<(&str, Result<bool, String>)> = futures::stream::iter(cases)
        .map(async |(stage, (place, action))| {
            let outcome = dies_and_comes_back(stage, place, action).await;
            (place, outcome.map_err(|why| format!("{stage:?} {place}={action}: {why}")))
        })
        .buffer_unordered(3)
        .collect()
        .await;
    let mut never: BTreeSet<&str> = PLACES.into_iter().chain(of_the_source.iter().map(String::as_str)).collect();
    let mut failed = Vec::new();
    for (place, outcome) in outcomes {
        match outcome {
            Ok(true) => {
                never.remove(place);
            }
            Ok(false) => {}
            Err(why) => failed.push(why),
        }
    }
    assert!(failed.is_empty(), "{} of them:\n{}", failed.len(), failed.join("\n"));
    assert!(never.is_empty(), "no world passes {never:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn at_random_while_it_reads_and_streams() {
    on_stages(async |stage| {
        let mut world = World::new(stage, &filled(15_000, 100)).await;
        let writer = world.write(15_000);
        let launch = world.launch("").await;
        // The first deaths come while the rows that are there are read, the others while it streams.
        for wait_ms in [200, 500, 900, 1_300, 700, 1_700, 1_100] {
            let mut process = launch.run();
            tokio::time::sleep(Duration::from_millis(wait_ms)).await;
            process.kill();
        }
        assert!(writer.end().await > 0);
        launch.run_until_caught_up().await;
        world.must_agree(&launch, ALL).await;
    })
    .await;
}
