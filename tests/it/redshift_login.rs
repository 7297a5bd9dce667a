//! Who we are to a cluster, and who it is to us: logins that AWS lends, and TLS.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use dataflow::config::{self, RedshiftAuth, RedshiftWarehouse};
use dataflow::epoch::{DeleteMode, LoadUnit};
use dataflow::error::{Disposition, ErrorKind, Result};
use dataflow::pipeline::fold::fold;
use dataflow::warehouse::Warehouse;
use redshift_sim::{Fault, Kind, Options, Rule, Tls};

use crate::support::cluster::Cluster;
use crate::support::s3::SECRET_KEY;
use crate::warehouse::{batch, contract, put, unit};

const KINDS: [(&str, bool); 2] = [("cluster", false), ("workgroup", true)];

/// A cluster whose logins are lent for `lends`, and the warehouse of a topology that has them lent.
async fn lending(serverless: bool, lends: Duration) -> (Cluster, RedshiftWarehouse) {
    let cluster = Cluster::start_with(|options| Options { serverless, lends, ..options }).await;
    let named = Some("acme".to_owned());
    let auth = RedshiftAuth {
        cluster: named.clone().filter(|_| !serverless),
        workgroup: named.filter(|_| serverless),
        region: Some("eu-west-3".into()),
        access_key_id: Some("AKIATESTTESTTESTTEST".into()),
        secret_access_key: Some(SECRET_KEY.into()),
        endpoint: Some(cluster.sim.credentials_endpoint()),
        ..RedshiftAuth::default()
    };
    let url = format!("redshift://{}/dev?sslmode=disable", cluster.sim.address());
    let warehouse = RedshiftWarehouse { url, auth: Some(Box::new(auth)), ..cluster.warehouse() };
    (cluster, warehouse)
}

async fn open(cluster: &Cluster, warehouse: RedshiftWarehouse) -> Result<Arc<dyn Warehouse>> {
    let lake = dataflow::lake::Lake::open(&cluster.lake()).unwrap();
    let staging = dataflow::pipeline::staging::staging(&lake);
    dataflow::warehouse::open(&config::Warehouse::Redshift(warehouse), "t", staging).await
}

/// The first unit of group `group`, which has a table of its own.
async fn first_unit(warehouse: &dyn Warehouse, group: &str) -> LoadUnit {
    let mut contract = (*contract()).clone();
    contract.table = format!("things_{group}");
    let contract = Arc::new(contract);
    warehouse.ensure(&contract, DeleteMode::Hard).await.unwrap();
    let load = fold(&contract, DeleteMode::Hard, vec![batch(&contract, &[put(1, 1, 10, "one")])], false).unwrap();
    LoadUnit { group: group.to_owned(), ..unit(0, vec![load]) }
}

const HOUR: Duration = Duration::from_secs(3600);

/// GIVEN a cluster or a workgroup whose logins AWS lends, WHEN several groups load at the same time, THEN one login is asked
/// for and serves them all.
#[tokio::test(flavor = "multi_thread")]
async fn one_login_serves_all_sessions() {
    for (kind, serverless) in KINDS {
        let (cluster, warehouse) = lending(serverless, HOUR).await;
        let warehouse = open(&cluster, warehouse).await.unwrap();
        let mut units = Vec::new();
        for group in ["a", "b", "c", "d", "e"] {
            units.push(first_unit(&*warehouse, group).await);
        }
        let applied = futures::future::join_all(units.iter().map(|unit| warehouse.apply(unit))).await;
        applied.into_iter().for_each(|applied| assert_eq!(applied.unwrap().through, 1));
        let counters = cluster.sim.counters();
        assert_eq!((counters.lent, counters.refused_logins), (1, 0), "{kind}");
        assert!((2..=4).contains(&counters.connections), "{kind}: {} connections", counters.connections);
    }
}

/// GIVEN logins that end within minutes, WHEN a session must be opened anew, THEN another login is asked for before that.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_ends_soon_is_renewed() {
    for (kind, serverless) in KINDS {
        let (cluster, warehouse) = lending(serverless, Duration::from_secs(240)).await;
        let warehouse = open(&cluster, warehouse).await.unwrap();
        let load = first_unit(&*warehouse, "a").await;
        cluster.sim.fail(Rule::new(Fault::ResetBefore).on(Kind::Begin).times(1));
        let lost = warehouse.apply(&load).await.unwrap_err();
        assert_eq!(lost.disposition(), Disposition::Retry, "{lost}");
        assert_eq!(warehouse.apply(&load).await.unwrap().through, 1);
        let counters = cluster.sim.counters();
        assert_eq!((counters.lent, counters.connections, counters.refused_logins), (2, 2, 0), "{kind}");
    }
}

/// GIVEN a login that has been taken back, WHEN a session is opened with it, THEN another one is asked for, once, and the
/// session is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_does_not_hold_any_more_is_replaced() {
    for (kind, serverless) in KINDS {
        let (cluster, warehouse) = lending(serverless, HOUR).await;
        let warehouse = open(&cluster, warehouse).await.unwrap();
        let load = first_unit(&*warehouse, "a").await;
        cluster.sim.expire_credentials();
        cluster.sim.fail(Rule::new(Fault::ResetBefore).on(Kind::Begin).times(1));
        let lost = warehouse.apply(&load).await.unwrap_err();
        assert_eq!(lost.disposition(), Disposition::Retry, "{lost}");
        assert_eq!(warehouse.apply(&load).await.unwrap().through, 1, "{kind}");
        let counters = cluster.sim.counters();
        assert_eq!((counters.lent, counters.refused_logins), (2, 1), "{kind}");
    }
}

/// GIVEN a role that may not ask for logins, THEN the error names the action that it lacks; what passes is tried again; and
/// nothing shows a secret.
#[tokio::test(flavor = "multi_thread")]
async fn who_may_not_ask_is_told_what_is_missing() {
    let cases = [
        (
            false,
            "AccessDenied",
            Disposition::Halt,
            "redshift:GetClusterCredentialsWithIAM on arn:aws:redshift:eu-west-3:*:dbname:acme/dev",
        ),
        (
            true,
            "AccessDeniedException",
            Disposition::Halt,
            "redshift-serverless:GetCredentials on arn:aws:redshift-serverless:eu-west-3",
        ),
        (false, "ClusterNotFound", Disposition::Halt, "correct the name"),
        (true, "ResourceNotFoundException", Disposition::Halt, "correct the name"),
        (false, "Throttling", Disposition::Retry, "acme"),
        (true, "ThrottlingException", Disposition::Retry, "acme"),
        (false, "ExpiredToken", Disposition::Retry, "acme"),
    ];
    for (serverless, code, disposition, text) in cases {
        let (cluster, warehouse) = lending(serverless, HOUR).await;
        cluster.sim.refuse_to_lend(Some(code));
        let error = open(&cluster, warehouse.clone()).await.map(drop).unwrap_err();
        assert_eq!(error.disposition(), disposition, "{code}: {error}");
        assert!(error.to_string().contains(code) && error.to_string().contains(text), "{code}: {error}");
        assert!(!error.to_string().contains(SECRET_KEY), "{error}");
        cluster.sim.refuse_to_lend(None);
        open(&cluster, warehouse).await.unwrap();
    }
}

/// GIVEN keys that AWS does not know, or a password that the cluster does not know, THEN nobody tries again.
#[tokio::test(flavor = "multi_thread")]
async fn wrong_keys_and_passwords_are_mistakes() {
    let (cluster, mut warehouse) = lending(false, HOUR).await;
    if let Some(auth) = &mut warehouse.auth {
        auth.secret_access_key = Some("another secret".into());
    }
    let error = open(&cluster, warehouse).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::WarehouseRefused);
    assert!(error.to_string().contains("SignatureDoesNotMatch") && !error.to_string().contains("another secret"));

    let url = format!("redshift://loader:guessed@{}/dev?sslmode=disable", cluster.sim.address());
    let error = open(&cluster, RedshiftWarehouse { url, ..cluster.warehouse() }).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::WarehouseRefused);
    assert!(error.to_string().contains("refuses the login") && !error.to_string().contains("guessed"), "{error}");
    assert_eq!(cluster.sim.counters().refused_logins, 1);
}

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split_whitespace()).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// Authorities `ca` and `stranger`, and a certificate of the first for `localhost`.
fn certificates(folder: &Path) -> Tls {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    for name in ["ca", "stranger"] {
        openssl(folder, &format!("req -x509 {key} -days 2 -keyout {name}.key -out {name}.pem -subj /CN={name}"));
    }
    let names = "-subj /CN=localhost -addext subjectAltName=DNS:localhost";
    openssl(folder, &format!("req {key} -keyout server.key -out server.csr {names}"));
    openssl(
        folder,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -copy_extensions copy -out server.pem",
    );
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    Tls { certificate: read("server.pem"), key: read("server.key") }
}

/// GIVEN a cluster that insists on TLS, THEN only who it proves to be gets the password: the right name, by the right
/// authority.
#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_proves_who_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let tls = certificates(folder.path());
    let cluster = Cluster::start_with(|options| Options { tls: Some(tls), require_tls: true, ..options }).await;
    let port = cluster.sim.port();
    let warehouse = |host: &str, more: &str, authority: Option<&str>| RedshiftWarehouse {
        url: format!("redshift://loader:Secret-1@{host}:{port}/dev{more}"),
        root_certificate: authority.map(|name| folder.path().join(name).display().to_string()),
        ..cluster.warehouse()
    };
    open(&cluster, warehouse("localhost", "", Some("ca.pem"))).await.unwrap();
    open(&cluster, warehouse("localhost", "?sslmode=verify-full", Some("ca.pem"))).await.unwrap();
    let wrong = [
        ("another name", warehouse("127.0.0.1", "", Some("ca.pem")), "not valid for name"),
        ("another authority", warehouse("localhost", "", Some("stranger.pem")), "UnknownIssuer"),
        ("only public authorities", warehouse("localhost", "", None), "UnknownIssuer"),
        ("no TLS", warehouse("localhost", "?sslmode=disable", None), "SSL off"),
    ];
    for (what, warehouse, text) in wrong {
        let before = cluster.sim.counters().connections;
        let error = open(&cluster, warehouse).await.map(drop).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::WarehouseRefused, "{what}: {error}");
        assert!(error.to_string().contains(text) && !error.to_string().contains("Secret-1"), "{what}: {error}");
        assert_eq!(cluster.sim.counters().connections, before, "{what}");
    }
    let absent = open(&cluster, warehouse("localhost", "", Some("absent.pem"))).await.map(drop).unwrap_err();
    assert_eq!(absent.kind(), &ErrorKind::Config, "{absent}");
}

/// GIVEN a server that does not speak TLS, WHEN the URL says nothing of it, THEN no password is sent.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_said_to_a_server_without_tls() {
    let cluster = Cluster::start().await;
    let url = format!("redshift://loader:Secret-1@{}/dev", cluster.sim.address());
    let error = open(&cluster, RedshiftWarehouse { url, ..cluster.warehouse() }).await.map(drop).unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::WarehouseRefused, "{error}");
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
    let counters = cluster.sim.counters();
    assert_eq!((counters.connections, counters.refused_logins), (0, 0));
}
