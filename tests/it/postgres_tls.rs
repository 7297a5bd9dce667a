//! Who the server is, and who we are: TLS with a certificate of an authority of one's own, and login by SCRAM.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::postgres_source::{ITEMS, World};
use crate::support::postgres::{Server, Version};
use crate::support::process::{Launch, available};

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split_whitespace()).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

/// An authority, and a certificate of it for `localhost`.
fn certificates(folder: &Path) {
    for name in ["ca", "stranger"] {
        openssl(folder, &format!("req -x509 {NEW_KEY} -days 2 -keyout {name}.key -out {name}.pem -subj /CN={name}"));
    }
    openssl(
        folder,
        &format!(
            "req {NEW_KEY} -keyout server.key -out server.csr -subj /CN=localhost -addext subjectAltName=DNS:localhost"
        ),
    );
    openssl(
        folder,
        "x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -copy_extensions copy -out server.pem",
    );
}

/// What the server reads belongs to whoever runs it.
fn hand_over(folder: &Path) {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::set_permissions(folder.join("server.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    if std::fs::metadata(folder).unwrap().uid() == 0 {
        let status = Command::new("chown").arg("postgres").arg(folder.join("server.key")).status().unwrap();
        assert!(status.success());
    }
}

struct Guarded {
    _server: Server,
    world: World,
    folder: tempfile::TempDir,
    address: String,
}

impl Guarded {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path());
        hand_over(folder.path());
        let file = |name: &str| folder.path().join(name).display().to_string();
        let (certificate, key) =
            (format!("ssl_cert_file={}", file("server.pem")), format!("ssl_key_file={}", file("server.key")));
        let server = Server::start(Version::Debian, &["ssl=on", &certificate, &key]);
        let mut world =
            World::at(server.database().await, "CREATE TABLE items (id int PRIMARY KEY); INSERT INTO items VALUES (1)")
                .await;
        world.run("CREATE ROLE reader LOGIN SUPERUSER PASSWORD 'pass/word'").await;
        // From now on the reader needs TLS and its password.
        std::fs::write(
            server.data().join("pg_hba.conf"),
            "hostssl all reader 127.0.0.1/32 scram-sha-256\nhost all postgres 127.0.0.1/32 trust\n",
        )
        .unwrap();
        world.run("SELECT pg_reload_conf()").await;
        while world.there("SELECT CAST(count(*) AS text) FROM pg_hba_file_rules WHERE error IS NOT NULL OR auth_method = 'scram-sha-256'").await != ["1"] {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        let address = format!("{}/{}", server.port(), world.url.rsplit('/').next().unwrap());
        Self { _server: server, world, folder, address }
    }

    /// The topology with another way to the server.
    fn launch(&self, name: &str, login: &str, host: &str, more: &str) -> Launch {
        let text = std::fs::read_to_string(self.world.launch(ITEMS, more).topology()).unwrap();
        let old = format!("{}?sslmode=disable", self.world.url);
        assert!(text.contains(&old));
        Launch::named(
            self.world.path(),
            name,
            &text.replace(&old, &format!("postgres://{login}@{host}:{}", self.address)),
        )
    }

    fn ca(&self, name: &str) -> String {
        let path: PathBuf = self.folder.path().join(name);
        format!(", tls: {{ ca: \"{}\" }}", path.display())
    }
}

/// What is wrong, and the exit code.
fn wrong(launch: &Launch) -> (String, Option<i32>) {
    let output = launch.other(&["check"], &["--connect", "--json"]);
    let text = String::from_utf8(output.stdout).unwrap();
    let findings = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let wrong = findings.filter(|finding| finding["level"] == "mistake" || finding["level"] == "unreachable");
    (
        wrong.map(|finding| finding["what"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join("; "),
        output.status.code(),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_proves_who_it_is_and_we_do() {
    if !available("postgres") {
        return;
    }
    let guarded = Guarded::new().await;
    const RIGHT: &str = "reader:pass%2Fword";
    let right = guarded.launch("right", RIGHT, "localhost", &guarded.ca("ca.pem"));
    assert_eq!(wrong(&right), (String::new(), Some(0)));
    right.run_until_caught_up().await;
    assert_eq!(guarded.world.held("SELECT CAST(id AS text) FROM items").await, ["1"]);
    for (what, launch, why) in [
        ("another authority", guarded.launch("case_0", RIGHT, "localhost", &guarded.ca("stranger.pem")), "speak TLS"),
        ("the system's authorities", guarded.launch("case_1", RIGHT, "localhost", ""), "TLS"),
        ("another name", guarded.launch("case_2", RIGHT, "127.0.0.1", &guarded.ca("ca.pem")), "speak TLS"),
        ("another password", guarded.launch("case_3", "reader:guess", "localhost", &guarded.ca("ca.pem")), "28P01"),
        ("no password", guarded.launch("case_4", "reader", "localhost", &guarded.ca("ca.pem")), "has none"),
        ("no TLS", guarded.launch("case_5", RIGHT, "localhost", ", tls: { mode: disable }"), "pg_hba.conf"),
    ] {
        let (said, code) = wrong(&launch);
        assert!(said.contains(why), "{what}: {said}");
        assert_eq!(code, Some(2), "{what}: {said}");
    }
    // And it does not begin to read either.
    let mut process = guarded.launch("run", RIGHT, "127.0.0.1", &guarded.ca("ca.pem")).run();
    assert!(!process.exit(crate::support::process::LIMIT).await.success());
    assert!(!process.log().contains("pass/word"), "{}", process.log_tail());
}
