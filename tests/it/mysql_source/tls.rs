//! Who the server is, and who we are: TLS with a certificate of an authority of one's own, and login by password.

use std::path::Path;
use std::process::Command;

use mysql_async::prelude::Queryable;
use serde_json::Value;

use crate::mysql_source::check::check;
use crate::mysql_source::{ITEMS, ROWS, World, families, items};
use crate::support::mysql::{Family, Server};
use crate::support::process::{LIMIT, Launch};

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split_whitespace()).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

/// Two authorities, and certificates of the first for the server as `localhost` and for the reader.
fn certificates(folder: &Path) {
    for name in ["ca", "stranger"] {
        openssl(folder, &format!("req -x509 {NEW_KEY} -days 2 -keyout {name}.key -out {name}.pem -subj /CN={name}"));
    }
    for (name, subject, names) in [
        ("server", "/CN=localhost", " -addext subjectAltName=DNS:localhost"),
        ("reader", "/CN=reader", " -addext subjectAltName=DNS:reader"),
    ] {
        openssl(folder, &format!("req {NEW_KEY} -keyout {name}.key -out {name}.csr -subj {subject}{names}"));
        openssl(
            folder,
            &format!(
                "x509 -req -in {name}.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -copy_extensions copy -out {name}.pem"
            ),
        );
    }
}

struct Guarded {
    server: Server,
    world: World,
    folder: tempfile::TempDir,
}

impl Guarded {
    async fn new(family: Family) -> Self {
        let folder = tempfile::tempdir().unwrap();
        certificates(folder.path());
        let file = |name: &str| folder.path().join(name).display().to_string();
        let (ca, certificate, key) = (file("ca.pem"), file("server.pem"), file("server.key"));
        let server = Server::start(
            family,
            &[&format!("--ssl-ca={ca}"), &format!("--ssl-cert={certificate}"), &format!("--ssl-key={key}")],
        );
        let mut world = World::on(&server, &items(20)).await;
        let with = if family == Family::MySql { "WITH caching_sha2_password " } else { "" };
        world
            .run(&format!(
                "CREATE USER reader@'127.0.0.1' IDENTIFIED {with}BY 'pass/word' REQUIRE SSL; \
                 CREATE USER proven@'127.0.0.1' IDENTIFIED {with}BY 'pass/word' REQUIRE X509; \
                 CREATE USER plain@'127.0.0.1' IDENTIFIED {with}BY 'pass/word'"
            ))
            .await;
        for user in ["reader", "proven", "plain"] {
            // The name of an address is `localhost`, and accounts of an address are asked first.
            world
                .run(&format!("GRANT SELECT, REPLICATION SLAVE, REPLICATION CLIENT ON *.* TO {user}@'127.0.0.1'"))
                .await;
        }
        Self { server, world, folder }
    }

    /// The topology with another way to the server.
    fn launch(&self, name: &str, login: &str, host: &str, more: &str) -> Launch {
        let url = format!("mysql://{login}@{host}:{}", self.server.port());
        let text = std::fs::read_to_string(self.world.launch_url(&url, ITEMS, more).topology()).unwrap();
        let text: Vec<&str> = text.lines().filter(|line| !line.starts_with("admin:")).collect();
        Launch::named(self.world.path(), name, &text.join("\n"))
    }

    fn tls(&self, ca: &str, more: &str) -> String {
        format!(", tls: {{ ca: \"{}\"{more} }}", self.folder.path().join(ca).display())
    }

    /// Our own certificate.
    fn proof(&self) -> String {
        let file = |name: &str| self.folder.path().join(name).display().to_string();
        format!(", certificate: \"{}\", key: \"{}\"", file("reader.pem"), file("reader.key"))
    }
}

/// What is wrong with what to do, and the exit code.
fn wrong(launch: &Launch) -> (String, i32) {
    let (findings, code) = check(launch);
    let wrong = findings.iter().filter(|finding| finding["level"] == "mistake" || finding["level"] == "unreachable");
    let text = |finding: &Value| format!("{} | {}", finding["what"], finding["help"]);
    (wrong.map(text).collect::<Vec<_>>().join("; "), code)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_server_proves_who_it_is_and_we_do() {
    for family in families() {
        let mut guarded = Guarded::new(family).await;
        const RIGHT: &str = "reader:pass%2Fword";
        let ca = guarded.tls("ca.pem", "");
        let right = guarded.launch("right", RIGHT, "localhost", &ca);
        assert_eq!(wrong(&right), (String::new(), 0));
        right.run_until_caught_up().await;
        guarded.world.assert_equal(ROWS).await;
        let proof = guarded.tls("ca.pem", &guarded.proof());
        assert_eq!(wrong(&guarded.launch("proven", "proven:pass%2Fword", "localhost", &proof)), (String::new(), 0));
        let (stranger, system) = (guarded.tls("stranger.pem", ""), String::new());
        let trust = "must be signed by an authority that this machine trusts";
        for (what, login, host, more, why) in [
            ("another authority", RIGHT, "localhost", &stranger, trust),
            ("the system's authorities", RIGHT, "localhost", &system, trust),
            ("another name", RIGHT, "127.0.0.1", &ca, "bear the host name of the URL"),
            ("another password", "reader:guess", "localhost", &ca, "Access denied"),
            ("no password", "reader", "localhost", &ca, "Access denied"),
            ("no certificate of ours", "proven:pass%2Fword", "localhost", &ca, "Access denied"),
            ("no TLS", RIGHT, "localhost", &", tls: { mode: disable }".to_owned(), "Access denied"),
        ] {
            let (said, code) = wrong(&guarded.launch("case", login, host, more));
            assert!(said.contains(why), "{family:?}, {what}: {said}");
            assert_eq!(code, 2, "{family:?}, {what}: {said}");
        }
        // And it does not begin to read either.
        let mut process = guarded.launch("run", RIGHT, "127.0.0.1", &ca).run();
        assert!(!process.exit(LIMIT).await.success());
        assert!(process.log().contains("bear the host name"), "{}", process.log_tail());
        assert!(!process.log().contains("pass/word"), "{}", process.log_tail());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_password_that_the_server_has_not_seen_yet_is_proven_over_tls_and_in_clear() {
    if !families().contains(&Family::MySql) {
        return;
    }
    let mut guarded = Guarded::new(Family::MySql).await;
    // The server remembers passwords that it has seen, and takes a digest of those: not of these.
    let forget = "FLUSH PRIVILEGES";
    guarded.world.run(forget).await;
    let tls = guarded.launch("tls", "plain:pass%2Fword", "localhost", &guarded.tls("ca.pem", ""));
    tls.run_until_caught_up().await;
    guarded.world.assert_equal(ROWS).await;
    // In clear the password goes under the server's RSA key.
    guarded.world.run(&format!("{forget}; UPDATE items SET n = n + 1")).await;
    let keys = "SHOW STATUS LIKE 'Caching_sha2_password_rsa_public_key'";
    let key: Option<(String, String)> = guarded.server.connect("").await.query_first(keys).await.unwrap();
    assert!(key.is_some_and(|(_, key)| key.starts_with("-----BEGIN PUBLIC KEY")));
    let plain = guarded.launch("tls", "plain:pass%2Fword", "127.0.0.1", ", tls: { mode: disable }");
    plain.run_until_caught_up().await;
    guarded.world.assert_equal(ROWS).await;
    // A wrong one is refused on both ways.
    guarded.world.run(forget).await;
    let (said, code) = wrong(&guarded.launch("tls", "plain:guess", "127.0.0.1", ", tls: { mode: disable }"));
    assert!(said.contains("Access denied") && code == 2, "{said}");
}
