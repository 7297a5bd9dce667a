//! A real PostgreSQL for the tests: one server per test process, one database per test.

#![cfg(feature = "postgres")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// A running server. It belongs to the test process: a watching shell stops it when the process has gone.
#[derive(Debug)]
pub struct Server {
    port: u16,
    databases: AtomicU32,
    /// Stops the server when its standard input closes, which the end of this process does.
    _keeper: Child,
}

/// The server that all tests of this process share.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(Server::start)
}

/// Where the programs are, newest version first; `PATH` last.
fn programs() -> PathBuf {
    let version = |path: &PathBuf| {
        let name = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
        name.and_then(|name| name.parse::<u32>().ok()).unwrap_or(0)
    };
    let mut found: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path().join("bin"))
        .filter(|bin| bin.join("initdb").exists())
        .collect();
    found.sort_by_key(version);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).find(|folder| folder.join("initdb").exists());
    found.pop().or(in_path).unwrap_or_else(|| {
        panic!("PostgreSQL is neither in /usr/lib/postgresql/*/bin nor in PATH: apt-get install postgresql")
    })
}

/// PostgreSQL refuses to run as root: there, the user that its package makes runs it.
fn as_user(program: &Path) -> Command {
    if is_root() {
        let mut command = Command::new("runuser");
        command.args(["-u", "postgres", "--"]).arg(program);
        command
    } else {
        Command::new(program)
    }
}

fn is_root() -> bool {
    let output = Command::new("id").arg("-u").output().expect("`id` runs");
    output.stdout.starts_with(b"0\n")
}

fn run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("{command:?}: {e}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

impl Server {
    fn start() -> Self {
        let bin = programs();
        let folder = tempfile::Builder::new().prefix("dataflow-pg").tempdir().expect("a folder").keep();
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&folder));
        }
        let data = folder.join("data");
        run(as_user(&bin.join("initdb"))
            .arg("-D")
            .arg(&data)
            .args(["-A", "trust", "-U", "postgres", "--no-sync", "-E", "UTF8", "--locale=C"])
            .current_dir(&folder));
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let options = format!(
            "-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off \
             -c wal_level=logical -c max_replication_slots=100 -c max_wal_senders=100 -c synchronous_commit=off -c full_page_writes=off -c max_connections=200 -c shared_buffers=64MB"
        );
        run(as_user(&bin.join("pg_ctl"))
            .arg("-D")
            .arg(&data)
            .arg("-l")
            .arg(folder.join("log"))
            .args(["-w", "-o", &options, "start"])
            .stdout(Stdio::null())
            .current_dir(&folder));
        let _keeper = keeper(&bin, &data, &folder);
        Self { port, databases: AtomicU32::new(0), _keeper }
    }

    /// A new, empty database; its URL.
    pub async fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut conn = PgConnection::connect(&self.url("postgres")).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut conn).await.unwrap();
        self.url(&name)
    }

    fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

/// A static is never dropped, so a shell waits for the end of this process (its standard input closes, however the
/// process ends), stops the server and removes its folder.
fn keeper(bin: &Path, data: &Path, folder: &Path) -> Child {
    let stop = as_user(&bin.join("pg_ctl"));
    let words = std::iter::once(stop.get_program()).chain(stop.get_args());
    let stop = words.map(|word| format!("'{}'", word.to_string_lossy())).collect::<Vec<_>>().join(" ");
    let script = format!(
        "trap '' INT TERM HUP; cat >/dev/null; {stop} -D '{}' -m immediate stop; rm -rf '{}'",
        data.display(),
        folder.display()
    );
    Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("`sh` runs")
}
