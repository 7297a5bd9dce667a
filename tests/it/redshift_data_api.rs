//! The Redshift warehouse through the Data API: the same loads, what goes wrong with requests, and what the commands of
//! people say.

use std::sync::Arc;
use std::time::Duration;

use dataflow::config::{self, RedshiftWarehouse, Span};
use dataflow::contract::Contract;
use dataflow::epoch::DeleteMode;
use dataflow::error::{Disposition, ErrorKind};
use dataflow::pipeline::fold::fold;
use redshift_sim::{ApiFault, ApiRule, Fault, Kind, Options, Rule};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection};

use crate::redshift::{expected, load_all, shown};
use crate::redshift_running::one_row;
use crate::support::cluster::Cluster;
use crate::support::postgres::server;
use crate::support::process::{LIMIT, Launch, available};
use crate::support::s3::{ACCESS_KEY, SECRET_KEY};
use crate::warehouse::{Under, batch, contract, put, unit};

/// GIVEN a cluster that breaks at statements, before they are done, or after, WHEN units are loaded through the Data API, THEN
/// every one is loaded once, and nobody is left with a lock.
#[tokio::test(flavor = "multi_thread")]
async fn what_passes_is_tried_again() {
    let under = Under::redshift_through_data_api().await;
    let sim = &under.cluster().sim;
    for fault in [Fault::Serializable, Fault::ResetBefore, Fault::AnswerLost] {
        for kind in [Kind::Lock, Kind::Copy, Kind::Commit] {
            under.reset().await;
            sim.reset_counters();
            load_all(&under, Rule::new(fault).on(kind).after(2).times(1)).await;
            assert_eq!(shown(&under).await, expected(), "{fault:?} at {kind:?}");
            assert_eq!(sim.counters().injected, 1, "{fault:?} at {kind:?}: nothing went wrong");
            sim.heal();
        }
    }
}

/// GIVEN requests whose answers are lost, that are throttled, or that fail at the service, WHEN units are loaded, THEN each is
/// sent again until it is answered, no statement runs twice, and no load has to begin anew.
#[tokio::test(flavor = "multi_thread")]
async fn requests_are_sent_again_and_no_statement_runs_twice() {
    let faults = [
        (ApiFault::AnswerLost, "ExecuteStatement", "COMMIT"),
        (ApiFault::AnswerLost, "ExecuteStatement", "INSERT INTO"),
        (ApiFault::AnswerLost, "GetStatementResult", ""),
        (ApiFault::Throttled, "ExecuteStatement", ""),
        (ApiFault::Throttled, "DescribeStatement", ""),
        (ApiFault::TooManyStatements, "ExecuteStatement", "BEGIN"),
        (ApiFault::Failed, "GetStatementResult", ""),
    ];
    let under = Under::redshift_through_data_api().await;
    let sim = &under.cluster().sim;
    for (fault, operation, containing) in faults {
        under.reset().await;
        sim.reset_counters();
        let met = sim.fail_api(ApiRule::new(fault, operation).containing(containing).after(1).times(2));
        let attempts = load_all(&under, Rule::new(Fault::Conflict).times(0)).await;
        assert_eq!((attempts, met.times()), (5, 2), "{fault:?} {operation} {containing}");
        assert_eq!(shown(&under).await, expected(), "{fault:?} {operation} {containing}");
        assert_eq!(sim.counters().of(Kind::Commit), 5, "{fault:?} {operation} {containing}");
        sim.heal();
    }
}

/// GIVEN an API that does not keep a transaction from call to call, THEN nothing is loaded through it, and it is said why.
#[tokio::test(flavor = "multi_thread")]
async fn without_transactions_nothing_is_loaded() {
    let cluster = Cluster::start().await;
    let met = cluster.sim.fail_api(ApiRule::new(ApiFault::Ignored, "ExecuteStatement").containing("\"BEGIN\""));
    let staging = dataflow::pipeline::staging::staging(&dataflow::lake::Lake::open(&cluster.lake()).unwrap());
    let config = config::Warehouse::Redshift(cluster.through_data_api());
    let error = dataflow::warehouse::open(&config, "t", staging).await.map(drop).unwrap_err();
    assert_eq!((error.kind(), met.times()), (&ErrorKind::WarehouseRefused, 1), "{error}");
    assert!(error.to_string().contains("does not keep a transaction from call to call"), "{error}");
}

/// GIVEN a load of one table whose rows come whole, THEN it costs so many requests as the README says.
#[tokio::test(flavor = "multi_thread")]
async fn a_load_costs_a_request_or_two_for_each_statement() {
    let under = Under::redshift_through_data_api().await;
    let (warehouse, sim) = (under.warehouse(), &under.cluster().sim);
    warehouse.ensure(&contract(), DeleteMode::Hard).await.unwrap();
    warehouse.apply(&one_row(0)).await.unwrap();
    sim.reset_counters();
    warehouse.apply(&one_row(1)).await.unwrap();
    let (requests, statements) = (sim.api_requests(), sim.counters().all());
    assert_eq!(requests["ExecuteStatement"], statements, "{requests:?}");
    assert_eq!(requests.values().sum::<u64>(), 10 + 11, "{requests:?}");
}

/// GIVEN a COMMIT that is done while nobody can be asked what became of it, THEN the load fails as one whose connection was
/// lost does, and the ledger tells.
#[tokio::test(flavor = "multi_thread")]
async fn when_nobody_says_what_became_of_a_commit_the_ledger_does() {
    let under = Under::redshift_through_data_api().await;
    let (warehouse, sim) = (under.warehouse(), &under.cluster().sim);
    warehouse.ensure(&contract(), DeleteMode::Hard).await.unwrap();
    let met = sim.fail_api(ApiRule::new(ApiFault::AnswerLost, "ExecuteStatement").containing("COMMIT"));
    let error = warehouse.apply(&one_row(0)).await.unwrap_err();
    assert_eq!((error.kind(), met.times()), (&ErrorKind::WarehouseUnavailable, 6), "{error}");
    sim.heal();
    assert_eq!(warehouse.applied("g").await.unwrap().unwrap().through, 1);
    let again = warehouse.apply(&one_row(0)).await.unwrap_err();
    assert_eq!(again.kind(), &ErrorKind::LedgerMoved, "{again}");
    assert_eq!(warehouse.apply(&one_row(1)).await.unwrap().through, 2);
    assert_eq!(under.things(false).await.len(), 1);
}

/// GIVEN sessions that end, in the middle of a load or before it, THEN what they did is undone, and the load is done in another.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_ends_costs_an_attempt() {
    let under = Under::redshift_through_data_api().await;
    let sim = &under.cluster().sim;
    for (containing, attempts) in [("BEGIN", 6), ("COPY ", 6), ("COMMIT", 6)] {
        under.reset().await;
        let met = sim
            .fail_api(ApiRule::new(ApiFault::SessionEnds, "ExecuteStatement").containing(containing).after(1).times(1));
        let took = load_all(&under, Rule::new(Fault::Conflict).times(0)).await;
        assert_eq!((took, met.times()), (attempts, 1), "{containing}");
        assert_eq!(shown(&under).await, expected(), "{containing}");
        sim.heal();
    }
}

/// GIVEN a load that nobody waits for any more, THEN its session is ended by whoever comes next: nothing holds the group's lock
/// until the session would end by itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_left_in_the_middle_is_ended() {
    let under = Under::redshift_through_data_api().await;
    let (warehouse, sim) = (under.warehouse(), &under.cluster().sim);
    warehouse.ensure(&contract(), DeleteMode::Hard).await.unwrap();
    sim.fail(Rule::new(Fault::Conflict).on(Kind::Copy).times(1));
    // The ROLLBACK of the load itself does not get through.
    sim.fail_api(ApiRule::new(ApiFault::Failed, "ExecuteStatement").containing("ROLLBACK").times(6));
    let error = warehouse.apply(&one_row(0)).await.unwrap_err();
    assert_eq!(error.disposition(), Disposition::Retry, "{error}");
    assert_eq!(warehouse.apply(&one_row(0)).await.unwrap().through, 1);
    assert_eq!(sim.counters().rollbacks, 2, "one of the proof at the start, one of what was left");
}

/// GIVEN statements that do not end, WHEN they are given up, THEN they are cancelled at the cluster.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_is_given_up_is_cancelled() {
    let cluster = Cluster::start().await;
    let short = RedshiftWarehouse { statement_timeout: Span::seconds(3), ..cluster.through_data_api() };
    let staging = dataflow::pipeline::staging::staging(&dataflow::lake::Lake::open(&cluster.lake()).unwrap());
    let warehouse = dataflow::warehouse::open(&config::Warehouse::Redshift(short), "t", staging).await.unwrap();
    warehouse.ensure(&contract(), DeleteMode::Hard).await.unwrap();
    // What waits outlives the cluster's own limit, and goes on until it is cancelled.
    cluster.sim.fail(Rule::new(Fault::Held).on(Kind::Copy).times(1));
    let error = warehouse.apply(&one_row(0)).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::WarehouseLimit(Some("things".into())), "{error}");
    assert!(error.to_string().contains("no answer in 3s"), "{error}");
    assert_eq!((cluster.sim.counters().cancels, cluster.sim.api_requests()["CancelStatement"]), (1, 1));
    cluster.sim.heal();
    assert_eq!(warehouse.apply(&one_row(0)).await.unwrap().through, 1);
}

/// GIVEN more control tables and longer lists than one statement of the Data API takes, THEN they go in several; a table whose
/// own statements are longer is parked with what to do.
#[tokio::test(flavor = "multi_thread")]
async fn no_statement_is_longer_than_the_api_takes() {
    let under = Under::redshift_through_data_api().await;
    let warehouse = under.warehouse();
    let columns: Vec<(String, _)> =
        (0..800).map(|n| (format!("{n:03}{}", "c".repeat(120)), dataflow::contract::Type::TEXT)).collect();
    let wide: Vec<(&str, _)> = columns.iter().map(|(name, of)| (name.as_str(), *of)).collect();
    let error = warehouse.ensure(&crate::warehouse::table(&wide, true), DeleteMode::Hard).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Table("t".into()), "{error}");
    assert!(error.to_string().contains("longer than the 100000 that the Data API takes"), "{error}");
    // The rows of tables with long names, in one unit.
    let contracts: Vec<Arc<Contract>> = (0..60)
        .map(|n| Arc::new(Contract { table: format!("t{n:03}{}", "x".repeat(100)), ..Contract::clone(&contract()) }))
        .collect();
    let mut loads = Vec::new();
    for contract in &contracts {
        warehouse.ensure(contract, DeleteMode::Hard).await.unwrap();
        let rows = batch(contract, &[put(1, 1, 10, &"y".repeat(900))]);
        loads.push(fold(contract, DeleteMode::Hard, vec![rows], false).unwrap());
    }
    assert_eq!(warehouse.apply(&unit(0, loads)).await.unwrap().through, 1);
    assert_eq!(warehouse.freshness().await.unwrap().len(), 60);
}

/// A PostgreSQL that is read, a lake on S3, and a cluster that is reached through the Data API.
struct World {
    folder: tempfile::TempDir,
    url: String,
    source: PgConnection,
    cluster: Cluster,
}

impl World {
    async fn new(setup: &str) -> Self {
        let cluster = Cluster::start_with(|options| Options { serverless: true, ..options }).await;
        let url = server().database().await;
        let mut source = PgConnection::connect(&url).await.unwrap();
        source.execute("SET synchronous_commit = on").await.unwrap();
        source.execute(AssertSqlSafe(setup.to_owned())).await.unwrap();
        Self { folder: tempfile::tempdir().unwrap(), url, source, cluster }
    }

    fn launch(&self) -> Launch {
        let (name, lake, role) =
            (self.url.rsplit('/').next().unwrap(), self.cluster.lake(), self.cluster.warehouse().iam_role);
        let topology = format!(
            "version: 1\nname: pg\nsources:\n  shop: {{ kind: postgres, url: \"{url}?sslmode=disable\", slot: {name}, \
             publication: p }}\ntables: {{ items: {{ from: public.items }} }}\n\
             lake: {{ url: \"{lake}\", region: eu-west-3, endpoint: \"{endpoint}\", access_key_id: {ACCESS_KEY}, \
             secret_access_key: {SECRET_KEY}, raw: {{ keep: none }} }}\n\
             warehouse:\n  kind: redshift\n  url: \"redshift:///dev\"\n  transport: data_api\n  schema: w\n  iam_role: \"{role}\"\n  \
             auth: {{ workgroup: acme, region: eu-west-3, endpoint: \"{api}\", access_key_id: AKIATESTTESTTESTTEST, \
             secret_access_key: {SECRET_KEY} }}\n\
             fresh_within: 200ms\nepoch: {{ every: 200ms }}\n",
            url = self.url,
            lake = lake.url,
            endpoint = self.cluster.s3.endpoint,
            api = self.cluster.sim.data_api_endpoint(),
        );
        Launch::new(self.folder.path(), &topology)
    }

    async fn run(&mut self, sql: &str) {
        self.source.execute(AssertSqlSafe(sql.to_owned())).await.unwrap();
    }
}

/// GIVEN a table of every type, THEN it is loaded through the Data API, also by a process that is killed in the middle; both
/// sides are equal; and `plan` and `check --connect` say what it takes.
#[tokio::test(flavor = "multi_thread")]
async fn a_source_is_loaded_through_the_data_api() {
    if !available("postgres") {
        return;
    }
    let mut world = World::new(crate::redshift_commands::TYPES).await;
    let launch = world.launch();
    launch.run_until_caught_up().await;
    launch.assert_equal();
    // Whoever is killed leaves a session that holds the group's lock until it ends.
    world.cluster.sim.keep_sessions_at_most(Duration::from_secs(3));
    for step in ["warehouse.copy.after", "warehouse.commit.before", "warehouse.commit.after"] {
        world
            .run(
                "UPDATE items SET t = t || 'x' WHERE id < 20; DELETE FROM items WHERE id = (SELECT max(id) FROM items)",
            )
            .await;
        let mut process = launch.clone().failpoints(format!("{step}=return(kill)")).arg("--until-caught-up").run();
        assert!(!process.exit(LIMIT).await.success(), "{step} is not passed");
        launch.run_until_caught_up().await;
        launch.assert_equal();
    }
    assert_eq!(launch.status()["warehouse_error"], Value::Null);

    let plan = launch.other(&["plan"], &[]);
    let plan = String::from_utf8_lossy(&plan.stdout).into_owned();
    for part in [
        "redshift-data:ExecuteStatement",
        "redshift-data:CancelStatement",
        "redshift-data:statement-owner-iam-userid",
        "redshift-serverless:GetCredentials",
        "GRANT USAGE, CREATE ON SCHEMA \"w\" TO \"IAMR:<name of the loader's role>\"",
    ] {
        assert!(plan.contains(part), "no `{part}` in\n{plan}");
    }
    for part in ["BatchExecuteStatement", "redshift:", SECRET_KEY, "secretsmanager"] {
        assert!(!plan.contains(part), "`{part}` in\n{plan}");
    }

    let output = launch.other(&["check"], &["--connect"]);
    let found = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{found}");
    for part in [
        "workgroup acme, database dev, through the Data API at http://127.0.0.1",
        "a transaction goes over several calls of a session of the Data API",
        "the Data API says how many rows a statement has changed",
    ] {
        assert!(found.contains(part), "no `{part}` in\n{found}");
    }
}

/// GIVEN a row that is longer than the Data API gives back, THEN it is loaded, and `verify` says why it cannot compare the table
/// instead of comparing something else.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_is_too_long_to_be_read_back_is_no_silent_difference() {
    if !available("postgres") {
        return;
    }
    let world = World::new(
        "CREATE TABLE items (id int PRIMARY KEY, a text, b text); \
         INSERT INTO items VALUES (1, repeat('a', 40000), repeat('b', 40000)), (2, 'short', 'too')",
    )
    .await;
    let launch = world.launch();
    launch.run_until_caught_up().await;
    assert_eq!(launch.status()["tables"][0]["rows"], 2);
    let output = launch.other(&["verify"], &[]);
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!output.status.success() && said.contains("longer than the 64 KB that the Data API takes"), "{said}");
}

/// GIVEN a role that may not use the API, or names that are wrong, THEN nobody tries again, and the error says what is missing.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_for_good_is_said() {
    let cluster = Cluster::start().await;
    let open = async |change: &dyn Fn(&mut RedshiftWarehouse)| {
        let mut warehouse = cluster.through_data_api();
        change(&mut warehouse);
        let staging = dataflow::pipeline::staging::staging(&dataflow::lake::Lake::open(&cluster.lake()).unwrap());
        dataflow::warehouse::open(&config::Warehouse::Redshift(warehouse), "t", staging).await.map(drop).unwrap_err()
    };
    let auth = |warehouse: &mut RedshiftWarehouse, change: fn(&mut config::RedshiftAuth)| {
        change(warehouse.auth.as_mut().unwrap());
    };
    let error = open(&|w| auth(w, |auth| auth.secret_access_key = Some("another secret".into()))).await;
    assert_eq!(error.kind(), &ErrorKind::WarehouseRefused, "{error}");
    assert!(error.to_string().contains("SignatureDoesNotMatch") && !error.to_string().contains("another secret"));
    let error = open(&|w| auth(w, |auth| (auth.cluster, auth.workgroup) = (None, Some("acme".into())))).await;
    assert_eq!(error.kind(), &ErrorKind::WarehouseRefused, "{error}");
    assert!(error.to_string().contains("correct what warehouse.auth says"), "{error}");
    let error = open(&|w| w.url = "redshift:///other".into()).await;
    assert_eq!(error.kind(), &ErrorKind::WarehouseRefused, "{error}");
    assert!(error.to_string().contains("there is no such database"), "{error}");
}
