//! Kafka into Redshift: what Debezium says of a database; and a shop's events, whose oracle is what the generator expects:
//! counts, sums and row hashes.

use redshift_sim::{Fault, Kind, Rule};

use super::world::By;
use super::{lake, lake_and_warehouse, login, rows, tables};
use crate::exactly_once::world::{EPOCHS, Partitions, Servers, Stock, busy_shop, tables_from};
use crate::support::cluster::Cluster;
use crate::support::oracle::Oracle;
use crate::support::process::Launch;

#[tokio::test(flavor = "multi_thread")]
async fn every_type_arrives_or_waits_with_the_reason() {
    rows::every_type(By::Kafka).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_change_move_and_go() {
    rows::change_move_and_go(By::Kafka).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_come_widen_and_change() {
    tables::columns_come_widen_and_change(By::Kafka).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_and_after_every_step_of_a_load() {
    rows::killed_at_every_step(By::Kafka).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_is_away_for_thirty_epochs() {
    rows::away_for_thirty_epochs(By::Kafka).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_that_fail_or_whose_answer_is_lost() {
    rows::commits_that_fail(By::Kafka).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_fails_and_loses_answers() {
    rows::a_store_that_fails(By::Kafka).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_end_while_it_runs() {
    login::logins_end_while_it_runs(By::Kafka).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_table_whose_ddl_is_refused_is_parked_while_the_others_go_on() {
    tables::one_of_two_hundred_is_refused(By::Kafka).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_loader_does_no_harm() {
    tables::a_second_loader(By::Kafka, redshift_sim::Isolation::Snapshot).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_is_loaded_again_and_gives_the_same() {
    lake::loaded_again(By::Kafka).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lake_is_built_anew_by_other_rules() {
    lake::built_anew(By::Kafka).await;
}

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
    let rules = [
        // The first one gives the tables their groups: whoever wants an end wants to know that it is away.
        (3, Rule::new(Fault::Serializable).on(Kind::Commit).after(1)),
        (1, Rule::new(Fault::AnswerLost).on(Kind::Commit).after(1)),
        (3, Rule::new(Fault::Conflict).on(Kind::Delete).every(2)),
        (2, Rule::new(Fault::ScanFailed).on(Kind::Copy).every(2)),
    ];
    let rules = rules.map(|(times, rule)| (times, shop.cluster.sim.fail(rule.times(times))));
    let launch = shop.launch();
    launch.run_until_caught_up().await;
    for (times, met) in rules {
        assert_eq!(met.times(), times, "{met:?}");
    }
    shop.assert(&launch, &stock).await;
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
