//! Who the server is, and who we are: TLS with a certificate of an authority of one's own, and login by SCRAM.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::postgres_source::{ITEMS, World};
use crate::support::postgres::{Server, Version};
use crate::support::process::{Launch, available};

fn openssl(folder: &Path, arguments: &str) {
    let output = Command::new("openssl").args(arguments.split_whitespace()).current_dir(folder).output().unwrap();
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

const NEW_KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

/// An authority, and two certificates of it for `localhost`.
fn certificates(folder: &Path) {
    for name in ["ca", "stranger"] {
        openssl(folder, &format!("req -x509 {NEW_KEY} -days 2 -keyout {name}.key -out {name}.pem -subj /CN={name}"));
    }
    for name in ["server", "between"] {
        let subject = "-subj /CN=localhost -addext subjectAltName=DNS:localhost";
        openssl(folder, &format!("req {NEW_KEY} -keyout {name}.key -out {name}.csr {subject}"));
        let sign = "-CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -copy_extensions copy";
        openssl(folder, &format!("x509 -req -in {name}.csr {sign} -out {name}.pem"));
    }
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
        for role in ["reader", "simple"] {
            world.run(&format!("CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'pass/word'")).await;
        }
        // From now on the reader needs TLS and its password.
        std::fs::write(
            server.data().join("pg_hba.conf"),
            "hostssl all reader 127.0.0.1/32 scram-sha-256\nhostssl all simple 127.0.0.1/32 password\nhost all postgres 127.0.0.1/32 trust\n",
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

/// Ends the TLS of whoever comes with a certificate of its own, and hands on what is said to the real server, over TLS too.
struct Between {
    port: u16,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Between {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The request by which a client asks for TLS.
const TLS_PLEASE: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

impl Between {
    async fn new(folder: &Path, server: u16) -> Self {
        let certificates = |name: &str| CertificateDer::pem_file_iter(folder.join(name)).unwrap().map(Result::unwrap);
        let own = PrivateKeyDer::from_pem_file(folder.join("between.key")).unwrap();
        let provider = Arc::new(tokio_rustls::rustls::crypto::ring::default_provider());
        let accept = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
        let accept = accept.unwrap().with_no_client_auth().with_single_cert(certificates("between.pem").collect(), own);
        let accept = TlsAcceptor::from(Arc::new(accept.unwrap()));
        let mut roots = RootCertStore::empty();
        roots.add(certificates("ca.pem").next().unwrap()).unwrap();
        let connect = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let connect = connect.with_root_certificates(roots).with_no_client_auth();
        let connect = TlsConnector::from(Arc::new(connect));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let task = tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.unwrap();
                let (accept, connect) = (accept.clone(), connect.clone());
                tokio::spawn(async move {
                    // Either side may hang up at any time.
                    let _ended = hand_on(client, server, accept, connect).await;
                });
            }
        });
        Self { port, task }
    }
}

async fn hand_on(
    mut client: TcpStream,
    server: u16,
    accept: TlsAcceptor,
    connect: TlsConnector,
) -> std::io::Result<()> {
    let mut asked = [0; 8];
    client.read_exact(&mut asked).await?;
    assert_eq!(asked, TLS_PLEASE);
    client.write_all(b"S").await?;
    let mut client = accept.accept(client).await?;
    let mut server = TcpStream::connect(("127.0.0.1", server)).await?;
    server.write_all(&TLS_PLEASE).await?;
    assert_eq!(server.read_u8().await?, b'S');
    let mut server = connect.connect("localhost".try_into().unwrap(), server).await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await.map(drop)
}

/// Whoever has a certificate that we trust for the server's name may stand between; a password that is told it gets, but a
/// login by SCRAM is bound to the server's own certificate.
#[tokio::test(flavor = "multi_thread")]
async fn a_login_is_bound_to_the_certificate_of_the_server() {
    if !available("postgres") {
        return;
    }
    let mut guarded = Guarded::new().await;
    let (port, database) = guarded.address.split_once('/').unwrap();
    let (server, database) = (port.parse().unwrap(), database.to_owned());
    let between = Between::new(guarded.folder.path(), server).await;
    let login = |role: &str| format!("{role}:pass%2Fword");
    let straight = guarded.launch("straight", &login("reader"), "localhost", &guarded.ca("ca.pem"));
    assert_eq!(wrong(&straight), (String::new(), Some(0)));
    guarded.address = format!("{}/{database}", between.port);
    let told = guarded.launch("told", &login("simple"), "localhost", &guarded.ca("ca.pem"));
    assert_eq!(tokio::task::block_in_place(|| wrong(&told)), (String::new(), Some(0)));
    let bound = guarded.launch("bound", &login("reader"), "localhost", &guarded.ca("ca.pem"));
    let (said, code) = tokio::task::block_in_place(|| wrong(&bound));
    assert!(said.contains("channel binding check failed"), "{said}");
    assert_eq!(code, Some(2), "{said}");
}
