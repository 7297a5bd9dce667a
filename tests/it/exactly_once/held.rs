//! GIVEN a table that stands still inside its group, paused by a person or parked because its DDL is refused, WHEN the
//! others go on and it runs again later, THEN it has missed nothing and got nothing twice, whoever dies meanwhile.

use std::sync::Arc;

use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection};

use super::feed::{OpenShop, Till};
use super::kills::log_beyond;
use super::world::{EPOCHS, Partitions, Servers, TABLES, World, busy_shop, tables_from};
use crate::support::process::{LIMIT, Launch, table};

const ONE_GROUP: &str = "groups: { all: [orders, order_lines, customers, products, page_views] }";

fn in_one_group(topology: &str) -> String {
    topology.replace("groups: { sales: [orders, order_lines] }", ONE_GROUP)
}

fn ask(launch: &Launch, action: &str, table: &str) {
    let output = launch.other(&["table", action], &[table]);
    assert!(output.status.success(), "{action} {table}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Whether `stopped` stays behind while the rest of its group has loaded everything.
fn stays_behind(status: &Value, stopped: &str) -> bool {
    let epoch = |name: &str| table(status, name)["warehouse_epoch"].as_u64();
    epoch(stopped) < epoch("orders")
}

/// Whether the warehouse has what the log has of it: the last epochs need not hold a row of every table.
fn has_all(status: &Value, name: &str) -> bool {
    let of = |epoch: &str| table(status, name)[epoch].as_u64();
    of("log_epoch").is_some() && of("warehouse_epoch") >= of("log_epoch")
}

async fn paused_killed_and_resumed(world: &World, shop: OpenShop) {
    let mut process = world.launch.run();
    process.wait_for("a start", LIMIT, |s| table(s, "customers")["warehouse_epoch"].as_u64() > Some(2)).await;
    ask(&world.launch, "pause", "customers");
    process.wait_for("the pause", LIMIT, |s| stays_behind(s, "customers")).await;
    let at = log_beyond(&world.lake, 0).await;
    log_beyond(&world.lake, at + 3).await;
    // What is held stands in the ledger, not in the process.
    process.kill();
    let mut process = world.launch.run();
    process.wait_for("the pause after a kill", LIMIT, |s| stays_behind(s, "customers")).await;
    let at = log_beyond(&world.lake, 0).await;
    log_beyond(&world.lake, at + 3).await;
    let (expected, records) = shop.close();
    ask(&world.launch, "resume", "customers");
    // Two loaders with the same catch-up in hand: the ledger lets one of them have it.
    let topology = std::fs::read_to_string(world.launch.topology()).unwrap();
    let topology: String = topology.lines().filter(|l| !l.starts_with("admin:")).map(|l| l.to_owned() + "\n").collect();
    let mut rival = Launch::named(world.folder.path(), "rival", &topology).arg("--role").arg("load").run();
    process.wait_for("the rest", LIMIT, |s| s["account"]["read"] == records && has_all(s, "customers")).await;
    // Before that it could not yet be asked to stop in order.
    rival.wait_for_log("starting", LIMIT).await;
    rival.stop().await;
    process.stop().await;
    world.launch.run_until_caught_up().await;
    world.oracle.assert(&world.judge(&expected, records).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_paused_and_resumed_inside_a_group_on_sqlite() {
    let world = World::embedded_with(&in_one_group(TABLES), EPOCHS, "true");
    let shop = OpenShop::open(51, busy_shop(1_000), Till::open(&world.events()));
    paused_killed_and_resumed(&world, shop).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_paused_and_resumed_inside_a_group_on_postgres() {
    let Some(servers) = Servers::start("paused", Partitions::Two).await else { return };
    let servers = Arc::new(servers);
    let world = servers.world_of("paused", &in_one_group(&servers.topology("paused", ", group.instance.id: one")));
    let shop = OpenShop::open(52, busy_shop(1_000), Arc::clone(&servers));
    paused_killed_and_resumed(&world, shop).await;
}

/// Runs SQL in the warehouse, as a person would.
enum Person {
    Sqlite(std::path::PathBuf),
    Postgres(String),
}

impl Person {
    async fn does(&self, sql: &str) {
        let sql = sqlx::raw_sql(AssertSqlSafe(sql.to_owned()));
        match self {
            Self::Sqlite(path) => {
                let options = sqlx::sqlite::SqliteConnectOptions::new().filename(path).create_if_missing(true);
                let mut connection = sqlx::SqliteConnection::connect_with(&options).await.unwrap();
                sql.execute(&mut connection).await.unwrap();
            }
            Self::Postgres(url) => {
                let mut connection = sqlx::PgConnection::connect(url).await.unwrap();
                sql.execute(&mut connection).await.unwrap();
            }
        }
    }
}

/// `table` is the qualified name of a table that somebody made before, with a column that cannot hold what comes.
async fn parked_and_resumed(world: &World, shop: OpenShop, person: &Person, made: &str, name: &str) {
    person.does(made).await;
    let mut process = world.launch.run();
    process.wait_for("products to be parked", LIMIT, |s| table(s, "products")["why"].is_string()).await;
    process.wait_for("the others", LIMIT, |s| table(s, "orders")["warehouse_epoch"].as_u64() > Some(4)).await;
    let (expected, records) = shop.close();
    process.stop().await;
    person.does(&format!("DROP TABLE {name}")).await;
    ask(&world.launch, "resume", "products");
    world.launch.run_until_caught_up().await;
    world.oracle.assert(&world.judge(&expected, records).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_ddl_is_refused_is_parked_alone_on_sqlite() {
    let world = World::embedded_with(&in_one_group(TABLES), EPOCHS, "true");
    let shop = OpenShop::open(53, busy_shop(1_000), Till::open(&world.events()));
    let person = Person::Sqlite(world.folder.path().join("warehouse.db"));
    parked_and_resumed(&world, shop, &person, "CREATE TABLE products (id REAL PRIMARY KEY)", "products").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_whose_ddl_is_refused_is_parked_alone_on_postgres() {
    let Some(servers) = Servers::start("parked", Partitions::Two).await else { return };
    let servers = Arc::new(servers);
    assert!(tables_from("parked").contains("parked.orders"));
    let world = servers.world_of("parked", &in_one_group(&servers.topology("parked", ", group.instance.id: one")));
    let shop = OpenShop::open(54, busy_shop(1_000), Arc::clone(&servers));
    let person = Person::Postgres(servers.database.clone());
    let made = "CREATE SCHEMA parked; CREATE TABLE parked.products (id boolean PRIMARY KEY)";
    parked_and_resumed(&world, shop, &person, made, "parked.products").await;
}
