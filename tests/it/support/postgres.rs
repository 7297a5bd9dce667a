//! Real PostgreSQL servers for the tests: Debian's and the newest, one of each per test process, one database per test; and
//! servers of one's own, which can be stopped, killed, started again, copied, put back, followed and promoted.
//!
//! ```ignore
//! let url = server().database().await;                       // postgres://postgres@127.0.0.1:<port>/test_0
//! let mine = Server::start(Version::Newest, &["max_slot_wal_keep_size=16MB"]);
//! mine.kill();
//! mine.start_again(&[]);
//! let standby = mine.standby(&[]);
//! standby.promote();
//! ```

#![cfg(feature = "postgres")]
#![allow(dead_code, reason = "a tool box")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// Settings that every server starts with; later ones win.
const USUAL: [&str; 11] = [
    "listen_addresses=127.0.0.1",
    "unix_socket_directories=",
    "fsync=off",
    "wal_level=logical",
    "max_replication_slots=1000",
    "max_wal_senders=100",
    "synchronous_commit=off",
    "full_page_writes=off",
    "max_connections=200",
    "shared_buffers=64MB",
    "logging_collector=off",
];
/// How often a start is tried: what a killed server leaves in memory goes a moment later.
const STARTS: u32 = 50;

/// Which PostgreSQL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// The newest of those that the system has.
    Debian,
    /// The one in `.cache`, which `tests/support/database-install.sh` put there.
    Newest,
}

impl Version {
    /// What `available` calls it.
    pub fn component(self) -> &'static str {
        match self {
            Self::Debian => "postgres",
            Self::Newest => "postgres-newest",
        }
    }

    /// The folder of its programs.
    fn programs(self) -> PathBuf {
        match self {
            Self::Debian => installed_programs(),
            Self::Newest => {
                let link = Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache/postgres-newest/bin-of-server");
                link.canonicalize().unwrap_or_else(|e| panic!("{}: {e}: run `make deps`", link.display()))
            }
        }
    }
}

/// A running server. It belongs to the test process: a watching shell stops it and removes its folder when it is dropped
/// or the process has gone.
#[derive(Debug)]
pub struct Server {
    version: Version,
    bin: PathBuf,
    folder: PathBuf,
    port: u16,
    databases: AtomicU32,
    /// Stops the server when its standard input closes, which the end of this process does.
    _keeper: Child,
}

/// The server of Debian's version that all tests of this process share.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(Version::Debian, &[]))
}

/// The server of the newest version that all tests of this process share.
pub fn newest() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| Server::start(Version::Newest, &[]))
}

/// Where the system's programs are, newest version first; `PATH` last.
fn installed_programs() -> PathBuf {
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

/// PostgreSQL refuses to run as root: there, the user that its package makes runs it. It may still read every folder, for
/// the checkout that holds the newest version may be closed to others.
fn as_user(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
    if may_hand_on_reading() {
        command.args(["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search"]);
    }
    command.arg("--").arg(program);
    command
}

fn may_hand_on_reading() -> bool {
    static MAY: OnceLock<bool> = OnceLock::new();
    *MAY.get_or_init(|| {
        let mut attempt = Command::new("setpriv");
        attempt.args(["--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search", "true"]);
        attempt.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    })
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
    /// A server of one's own, with settings (`name=value`) that win over the usual ones.
    pub fn start(version: Version, settings: &[&str]) -> Self {
        let server = Self::without_data(version);
        run(server.program("initdb").arg("-D").arg(server.data()).args([
            "-A",
            "trust",
            "-U",
            "postgres",
            "--no-sync",
            "-E",
            "UTF8",
            "--locale=C",
        ]));
        server.start_again(settings);
        server
    }

    fn without_data(version: Version) -> Self {
        let bin = version.programs();
        let folder = tempfile::Builder::new().prefix("dataflow-pg").tempdir().expect("a folder").keep();
        if is_root() {
            run(Command::new("chown").arg("postgres").arg(&folder));
        }
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let _keeper = keeper(&folder);
        Self { version, bin, folder, port, databases: AtomicU32::new(0), _keeper }
    }

    fn program(&self, name: &str) -> Command {
        let mut command = as_user(&self.bin.join(name));
        command.current_dir(&self.folder);
        command
    }

    fn control(&self, arguments: &[&str]) -> Command {
        let mut command = self.program("pg_ctl");
        command.arg("-D").arg(self.data()).arg("-l").arg(self.folder.join("log")).args(arguments);
        command
    }

    /// Starts it on the data and the port that it had; only the settings given count besides the usual ones.
    pub fn start_again(&self, settings: &[&str]) {
        let settings = USUAL.iter().chain(settings).map(|setting| format!("-c '{setting}'"));
        let options = format!("-p {} {}", self.port, settings.collect::<Vec<_>>().join(" "));
        for _ in 0..STARTS {
            // Its output goes to the log; a pipe would stay open as long as the server runs.
            let mut start = self.control(&["-w", "-o", &options, "start"]);
            if start.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        panic!("PostgreSQL does not start:\n{}", self.log());
    }

    /// Ends it: `smart`, `fast` or `immediate`.
    pub fn stop(&self, mode: &str) {
        run(&mut self.control(&["-w", "-m", mode, "stop"]));
    }

    /// Ends its first process with SIGKILL; the others follow by themselves.
    pub fn kill(&self) {
        let pid = std::fs::read_to_string(self.data().join("postmaster.pid")).expect("it runs");
        run(Command::new("kill").args(["-9", pid.lines().next().unwrap()]));
    }

    /// A copy of what it holds, under a name: `put_back` brings it back. It must not run.
    pub fn save(&self, name: &str) {
        assert!(!self.data().join("postmaster.pid").exists(), "stop it first");
        run(Command::new("cp").arg("-a").arg(self.data()).arg(self.folder.join(name)));
    }

    /// Gives it what was saved, in place of what it holds. It must not run.
    pub fn put_back(&self, name: &str) {
        assert!(!self.data().join("postmaster.pid").exists(), "stop it first");
        std::fs::remove_dir_all(self.data()).unwrap();
        run(Command::new("cp").arg("-a").arg(self.folder.join(name)).arg(self.data()));
    }

    /// Has it recover for ever when it is started: it takes no writes until it is promoted. It must not run.
    pub fn recover(&self) {
        std::fs::write(self.data().join("standby.signal"), "").unwrap();
    }

    /// A standby that follows this server, with a physical slot if one is named in its settings (`primary_slot_name=…`).
    pub fn standby(&self, settings: &[&str]) -> Self {
        let standby = Self::without_data(self.version);
        let from = format!("host=127.0.0.1 port={} user=postgres dbname=postgres", self.port);
        run(standby
            .program("pg_basebackup")
            .args(["-d", &from, "-R", "-X", "stream", "-c", "fast", "-N", "-D"])
            .arg(standby.data()));
        standby.start_again(settings);
        standby
    }

    /// Makes a standby a server that takes writes, on a new timeline.
    pub fn promote(&self) {
        run(&mut self.control(&["-w", "promote"]));
    }

    /// Its data folder.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        let log = String::from_utf8_lossy(&std::fs::read(self.folder.join("log")).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// A new, empty database; its URL.
    pub async fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut conn = PgConnection::connect(&self.url("postgres")).await.unwrap();
        sqlx::raw_sql(AssertSqlSafe(format!("CREATE DATABASE {name}"))).execute(&mut conn).await.unwrap();
        self.url(&name)
    }

    /// `postgres://postgres@127.0.0.1:<port>/<database>`: nobody is asked for a password.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.port)
    }
}

/// A static is never dropped, so a shell waits for the end of this process (its standard input closes, however the
/// process ends), stops the server and removes its folder. Without their first process the others end by themselves.
fn keeper(folder: &Path) -> Child {
    let script = "trap '' INT TERM HUP; cat >/dev/null; pid=$(head -n 1 \"$1/data/postmaster.pid\") && kill -QUIT \"$pid\" \
                  && for _ in $(seq 100); do kill -0 \"$pid\" && sleep 0.1; done; rm -rf \"$1\"";
    Command::new("sh")
        .args(["-c", script, "keeper"])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("`sh` runs")
}
