//! A shop's events by Kafka into Redshift. The oracle is what the generator expects: counts, sums and row hashes.

use redshift_sim::{Fault, Kind, Rule};

use super::lake_and_warehouse;
use crate::exactly_once::world::{EPOCHS, Partitions, Servers, Stock, busy_shop, tables_from};
use crate::support::cluster::Cluster;
use crate::support::oracle::Oracle;
use crate::support::process::{LIMIT, Launch, Running};

/// A shop in Kafka, and the cluster that it goes to.
struct Shop {
    servers: Servers,
    cluster: Cluster,
    folder: tempfile::TempDir,
    topology: String,
}

impl Shop {
    /// `None` when Kafka is missing.
    async fn open(name: &str) -> Option<Self> {
        let servers = Servers::start(name, Partitions::Two).await?;
        let cluster = Cluster::start().await;
        let topology = format!(
            "version: 1\nname: {name}\nsources:\n  shop:\n    kind: kafka\n    brokers: \"{}\"\n    topics: [\"{name}.*\"]\n    \
             properties: {{ session.timeout.ms: \"6000\", heartbeat.interval.ms: \"500\", group.instance.id: one }}\n{}\n{}{EPOCHS}",
            servers.broker.address,
            tables_from(name),
            lake_and_warehouse(&cluster, cluster.sim.port()),
        );
        Some(Self { servers, cluster, folder: tempfile::tempdir().unwrap(), topology })
    }

    fn launch(&self) -> Launch {
        Launch::new(self.folder.path(), &self.topology)
    }

    async fn assert(&self, launch: &Launch, stock: &Stock) {
        let oracle = Oracle::postgres(&self.cluster.postgres_url, "shop");
        let differences = oracle.differences(&stock.expected).await;
        assert!(differences.is_empty(), "{}\n{}", differences.join("\n"), launch.whole_log());
    }
}

/// GIVEN inserts, updates, deletes, moves, unchanged values, bad rows and a column that comes half-way, WHEN commits fail,
/// answers are lost and connections break, THEN every row is there once.
#[tokio::test(flavor = "multi_thread")]
async fn a_shop_is_loaded_through_everything_that_passes() {
    let Some(shop) = Shop::open("rs_storm").await else { return };
    let stock = Stock::make(97, busy_shop(1_500), 1_500);
    shop.servers.produce(&stock.events);
    shop.cluster.sim.fail(Rule::new(Fault::Serializable).on(Kind::Commit).every(3));
    shop.cluster.sim.fail(Rule::new(Fault::AnswerLost).on(Kind::Commit).every(4));
    shop.cluster.sim.fail(Rule::new(Fault::Conflict).on(Kind::Delete).every(9).times(4));
    shop.cluster.sim.fail(Rule::new(Fault::ScanFailed).on(Kind::Copy).every(11).times(2));
    let launch = shop.launch();
    launch.run_until_caught_up().await;
    assert!(shop.cluster.sim.counters().injected > 0, "nothing went wrong");
    shop.assert(&launch, &stock).await;
}

/// GIVEN two loaders of one topology beside one process that reads, THEN each epoch is loaded by one of them.
#[tokio::test(flavor = "multi_thread")]
async fn a_second_loader_does_no_harm() {
    let Some(shop) = Shop::open("rs_rivals").await else { return };
    let loaders = ["one", "other"].map(|name| {
        let launch = Launch::named(shop.folder.path(), name, &shop.topology);
        launch.arg("--role").arg("load")
    });
    let stock = Stock::make(98, busy_shop(1_500), 1_500);
    let mut running: Vec<Running> = loaders.iter().map(Launch::run).collect();
    let reader = shop.launch();
    for portion in stock.events.chunks(stock.events.len() / 4 + 1) {
        shop.servers.produce(portion);
        reader.clone().arg("--role").arg("ingest").run_until_caught_up().await;
    }
    // Each of four groups has something to load; both loaders want to.
    let begun = std::time::Instant::now();
    while shop.cluster.sim.counters().commits < 8 {
        for (process, launch) in running.iter_mut().zip(&loaders) {
            // One that lost too often in a row has given up, and a supervisor would start it again.
            if process.has_ended() {
                *process = launch.run();
            }
        }
        assert!(begun.elapsed() < LIMIT, "{}\n{}", running[0].log_tail(), running[1].log_tail());
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    running.iter().for_each(Running::terminate);
    for process in &mut running {
        process.exit(LIMIT).await;
    }
    reader.run_until_caught_up().await;
    shop.assert(&reader, &stock).await;
}

/// GIVEN a table that shows a wider and then an incompatible column, by Kafka, THEN what fits is loaded, and what does not
/// waits in quarantine.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_changes_its_type() {
    let Some(shop) = Shop::open("rs_types").await else { return };
    let topic = "rs_types.things";
    shop.servers.broker.create_topic(topic, 1, &[]).await;
    let tables = format!("tables: {{ things: {{ from: {topic}, key: [id] }} }}\n");
    let topology = shop.topology.replace(&tables_from("rs_types"), &tables);
    let launch = Launch::new(shop.folder.path(), &topology);
    let event = |id: u32, kind: &str, value: &str| {
        let field = |name: &str, kind: &str| format!("{{\"field\":\"{name}\",\"type\":\"{kind}\",\"optional\":true}}");
        let row = format!(
            "{{\"type\":\"struct\",\"optional\":true,\"fields\":[{},{}],\"field\":\"",
            field("id", "int32"),
            field("v", kind)
        );
        let fields = format!("[{row}before\"}},{row}after\"}},{}]", field("op", "string"));
        format!(
            "{{\"schema\":{{\"type\":\"struct\",\"fields\":{fields}}},\"payload\":{{\"before\":null,\
             \"after\":{{\"id\":{id},\"v\":{value}}},\"op\":\"c\"}}}}"
        )
    };
    let send = |id: u32, kind: &str, value: &str| {
        let (key, event) = (format!("{{\"id\":{id}}}"), event(id, kind, value));
        shop.servers.broker.produce(topic, 0, &[(&key, Some(&event))]);
    };
    send(1, "string", "\"short\"");
    launch.run_until_caught_up().await;
    send(2, "string", &format!("\"{}\"", "x".repeat(65_535)));
    send(3, "string", &format!("\"{}\"", "x".repeat(65_536)));
    send(4, "int64", "4");
    send(5, "string", "\"a\\u0000b\"");
    launch.run_until_caught_up().await;
    let list = String::from_utf8_lossy(&launch.other(&["quarantine", "list"], &[]).stdout).into_owned();
    for reason in ["65536 bytes are more", "NUL character at byte 2", "contract"] {
        assert!(list.contains(reason), "{reason}: {list}");
    }
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&shop.cluster.postgres_url).await.unwrap();
    let rows: Vec<(i32, i32)> =
        sqlx::query_as("SELECT id, length(v) FROM shop.things ORDER BY id").fetch_all(&mut connection).await.unwrap();
    assert_eq!(rows, [(1, 5), (2, 65_535)]);
}
