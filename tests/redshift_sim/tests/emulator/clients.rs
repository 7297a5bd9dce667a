//! Clients that are not ours: psql, and AWS' own driver and SDK for Python.

use std::path::Path;
use std::process::{Command, Output};

use redshift_sim::Tls;

use super::{batch, ids};
use crate::redshift::{ROLE, Redshift};
use crate::servers::{available, cache, postgres_programs};

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split_whitespace()).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// An authority in `ca.pem`, and a certificate of it for `localhost`.
fn certificate(folder: &Path) -> Tls {
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";
    openssl(folder, &format!("req -x509 {key} -days 2 -keyout ca.key -out ca.pem -subj /CN=ca"));
    openssl(
        folder,
        &format!(
            "req {key} -keyout server.key -out server.csr -subj /CN=localhost -addext subjectAltName=DNS:localhost"
        ),
    );
    openssl(
        folder,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -copy_extensions copy -out server.pem",
    );
    let read = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap();
    Tls { certificate: read("server.pem"), key: read("server.key") }
}

/// Runs a program while this process serves it.
async fn run(mut command: Command) -> Output {
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn psql_connects_encrypted_and_only_so() {
    if !available("postgres") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let tls = certificate(folder.path());
    let redshift = Redshift::with(|options| (options.tls, options.require_tls) = (Some(tls), true)).await;
    let psql = postgres_programs().join("psql");
    let asked = |mode: &str, sql: &[&str]| {
        let mut command = Command::new(&psql);
        let root = folder.path().join("ca.pem");
        command.args(["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"]);
        command.arg(format!(
            "host=localhost port={} user=loader dbname=dev sslmode={mode} sslrootcert={}",
            redshift.sim.port(),
            root.display()
        ));
        command.args(sql.iter().flat_map(|sql| ["-c", sql])).env("PGPASSWORD", "Secret-1");
        run(command)
    };
    let statements = [
        "CREATE TABLE t (a int, s SUPER) DISTSTYLE EVEN",
        "INSERT INTO t VALUES (1, JSON_PARSE('[1]'))",
        "SELECT TOP 1 a, s FROM t",
    ];
    let output = asked("verify-full", &statements).await;
    assert!(output.status.success(), "{output:?}");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "1|[1]\n");
    let refused = asked("disable", &["SELECT 1"]).await;
    assert!(!refused.status.success());
    assert!(String::from_utf8_lossy(&refused.stderr).contains("SSL off"), "{refused:?}");
    assert_eq!(asked("verify-full", &["CREATE INDEX i ON t (a)"]).await.status.code(), Some(1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_driver_and_the_sdk_of_aws_work() {
    if !available("postgres") || !available("redshift-client") {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for kind in ["cluster", "serverless"] {
        let tls = certificate(folder.path());
        let redshift = Redshift::with(|options| {
            options.tls = Some(tls);
            options.serverless = kind == "serverless";
        })
        .await;
        let file = redshift.put("ids.parquet", &batch(vec![("id", ids(&[1, 2]))]));
        let manifest = redshift.manifest("ids.manifest", &[&file]);
        let mut command = Command::new(cache().join("redshift-client/bin/python"));
        command
            .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/emulator/clients.py"))
            .args([
                "localhost",
                &redshift.sim.port().to_string(),
                &redshift.sim.credentials_endpoint(),
                &manifest,
                ROLE,
                kind,
                &redshift.sim.data_api_endpoint(),
            ])
            .env("SSL_CERT_FILE", folder.path().join("ca.pem"));
        let output = run(command).await;
        assert!(output.status.success(), "{kind}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "all is well");
    }
}
