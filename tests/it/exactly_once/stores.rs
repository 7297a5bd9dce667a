//! GIVEN a store that lies, loses answers or goes away, WHEN the process works on it, THEN it refuses the liar at the
//! start and outlives the rest.

use futures::StreamExt;
use sqlx::Connection;

use super::world::{LakeStore, Stock, World, busy_shop};
use crate::support::process::{LIMIT, Launch, table};
use crate::support::s3::{ACCESS_KEY, BUCKET, Fault, S3Server, SECRET_KEY};

/// Files → S3 → SQLite.
fn world_on(s3: &S3Server) -> World {
    let mut world = World::embedded();
    let topology = std::fs::read_to_string(world.launch.topology()).unwrap();
    let endpoint = &s3.endpoint;
    let lake = format!(
        "url: \"s3://{BUCKET}/once\", region: eu-west-3, endpoint: \"{endpoint}\", access_key_id: {ACCESS_KEY}, \
         secret_access_key: {SECRET_KEY}"
    );
    let without_admin: Vec<&str> = topology.lines().filter(|line| !line.starts_with("admin:")).collect();
    let topology = without_admin.join("\n").replace("url: lake", &lake);
    world.launch = Launch::new(world.folder.path(), &topology);
    world.lake = LakeStore::folder(&s3.folder().join("once"));
    world
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_overwrites_is_refused_at_the_start() {
    let s3 = S3Server::start().await;
    let world = world_on(&s3);
    Stock::make(71, busy_shop(200), 200).write_files(&world.events(), 1);
    s3.fault(Fault::Overwrite, "PUT", "", usize::MAX);
    let mut process = world.launch.clone().arg("--until-caught-up").run();
    let ended = process.exit(LIMIT).await;
    assert!(!ended.success(), "it went on with a store that lies\n{}", process.log_tail());
    assert_eq!(world.lake.manifests().await, 0);
    assert!(process.log().contains("If-None-Match"), "it does not say what is wrong\n{}", process.log_tail());
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_are_lost_and_the_store_goes_away() {
    // Enough for some seconds: the log is looked at once a second, and that must happen while the store is away.
    let generated = 10_000;
    let stock = Stock::make(72, busy_shop(generated), generated);
    let records = stock.lines().count() as u64;
    // More often than the client tries again, and more often than we do on top of that.
    let faults = [
        (Fault::AnswerLost, "PUT", "_log/0000", 3),
        (Fault::AnswerLost, "PUT", "_log/0000", 30),
        (Fault::AnswerLost, "PUT", "processed", 10),
        (Fault::Unavailable, "PUT", "_log/0000", 30),
        (Fault::Unavailable, "PUT", "processed", 30),
        (Fault::Unavailable, "GET", "_log/0000", 30),
        (Fault::Unavailable, "GET", "processed", 30),
    ];
    let stock = &stock;
    let broken = faults.map(async |(fault, method, path, times)| {
        let s3 = S3Server::start().await;
        let world = world_on(&s3);
        stock.write_files(&world.events(), 8);
        let mut process = world.launch.clone().arg("--until-caught-up").run();
        super::kills::log_beyond(&world.lake, 2).await;
        s3.fault(fault, method, path, times);
        let ended = process.exit(super::world::RUN_LIMIT).await;
        let left = s3.heal();
        assert!(ended.success(), "{fault:?} {times} times on {method} {path}: {ended}\n{}", process.log_tail());
        assert!(left < times, "{fault:?} on {method} {path} never happened");
        let found = world.judge(&stock.expected, records).await;
        assert!(found.is_empty(), "{fault:?} {times} times on {method} {path}:\n{}", found.join("\n"));
    });
    // Beside each other: much of the time goes into waiting.
    futures::stream::iter(broken).buffer_unordered(3).collect::<Vec<()>>().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_is_parked_while_the_store_is_away() {
    let s3 = S3Server::start().await;
    let world = world_on(&s3);
    let stock = Stock::make(73, busy_shop(300), 300);
    stock.write_files(&world.events(), 1);
    world.launch.clone().arg("--role").arg("ingest").run_until_caught_up().await;
    let path = world.folder.path().join("warehouse.db");
    let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
    let mut person = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("CREATE TABLE products (id REAL PRIMARY KEY)").execute(&mut person).await.unwrap();
    // Nothing but the parking writes to the log here.
    s3.fault(Fault::Unavailable, "PUT", "_log/0000", 25);
    let mut process = world.launch.clone().arg("--role").arg("load").run();
    process.wait_for("products to be parked", LIMIT, |s| table(s, "products")["why"].is_string()).await;
    process.stop().await;
    assert_eq!(s3.heal(), 0, "the store was never away");
    sqlx::raw_sql("DROP TABLE products").execute(&mut person).await.unwrap();
    assert!(world.launch.other(&["table", "resume"], &["products"]).status.success());
    world.launch.run_until_caught_up().await;
    world.oracle.assert(&world.judge(&stock.expected, stock.lines().count() as u64).await);
}
