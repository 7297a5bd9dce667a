//! Real MySQL and MariaDB servers for the tests: one of each per test process, one database per test; and servers of one's
//! own, which can be stopped, killed and started again.
//!
//! ```ignore
//! let url = server(Family::MariaDb).database().await;          // mysql://root@127.0.0.1:<port>/test_0
//! let mine = Server::start(Family::MySql, &["--binlog-row-image=MINIMAL"]);
//! mine.kill();
//! mine.start_again(&["--server-id=77"]);
//! ```

#![cfg(feature = "mysql")]
#![allow(dead_code, reason = "a tool box")]

use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use mysql_async::prelude::Queryable;

use super::process::free_port;

const START: Duration = Duration::from_secs(120);
const LOOK: Duration = Duration::from_millis(20);

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    MySql,
    MariaDb,
}

impl Family {
    /// What `available` calls it.
    pub fn component(self) -> &'static str {
        match self {
            Self::MySql => "mysql",
            Self::MariaDb => "mariadb",
        }
    }

    /// Where its empty data folder is, and MySQL itself.
    fn home(self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache").join(self.component())
    }

    fn program(self) -> Command {
        match self {
            // Debian puts it where only root's PATH looks.
            Self::MariaDb if Path::new("/usr/sbin/mariadbd").is_file() => Command::new("/usr/sbin/mariadbd"),
            Self::MariaDb => Command::new("mariadbd"),
            Self::MySql => Command::new(self.home().join("usr/sbin/mysqld")),
        }
    }

    /// Options that only it has.
    fn options(self) -> Vec<String> {
        let own: &[&str] = match self {
            Self::MariaDb => &["--binlog-format=ROW", "--log-slave-updates", "--innodb-log-file-size=32M"],
            Self::MySql => &[
                "--secure-file-priv=NULL",
                "--mysqlx=0",
                "--gtid-mode=ON",
                "--enforce-gtid-consistency=ON",
                "--innodb-redo-log-capacity=64M",
            ],
        };
        let mut options: Vec<String> = own.iter().map(|option| (*option).to_owned()).collect();
        if self == Self::MySql {
            let usr = self.home().join("usr");
            options.push(format!("--basedir={}", usr.display()));
            options.push(format!("--lc-messages-dir={}", usr.join("share/mysql").display()));
            options.push(format!("--plugin-dir={}", usr.join("lib/mysql/plugin").display()));
        }
        options
    }
}

/// A running server. A watching shell kills it and removes its folder when it is dropped or the test process ends.
#[derive(Debug)]
pub struct Server {
    family: Family,
    port: u16,
    server_id: u32,
    folder: PathBuf,
    databases: AtomicU32,
    process: Mutex<Option<Child>>,
    _keeper: Child,
}

/// The server that all tests of this process share.
pub fn server(family: Family) -> &'static Server {
    static MYSQL: OnceLock<Server> = OnceLock::new();
    static MARIADB: OnceLock<Server> = OnceLock::new();
    let shared = match family {
        Family::MySql => &MYSQL,
        Family::MariaDb => &MARIADB,
    };
    shared.get_or_init(|| Server::start(family, &[]))
}

/// Server ids that no other server of this process has.
fn next_server_id() -> u32 {
    static IDS: AtomicU32 = AtomicU32::new(1);
    IDS.fetch_add(1, Ordering::Relaxed)
}

fn whoami() -> String {
    let output = Command::new("id").arg("-un").output().expect("`id` runs");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

/// Kills the server and removes its folder as soon as its standard input closes.
fn keeper(folder: &Path) -> Child {
    let script = "trap '' INT TERM HUP; cat >/dev/null; test -f \"$1/pid\" && kill -9 $(cat \"$1/pid\"); rm -rf \"$1\"";
    Command::new("sh")
        .args(["-c", script, "keeper"])
        .arg(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("`sh` runs")
}

impl Server {
    /// A server of one's own. Later options win over the usual ones: row binlog with full images and full metadata, GTIDs,
    /// a server id that no other has.
    pub fn start(family: Family, options: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("dataflow-").tempdir().expect("a folder").keep();
        copy(&family.home().join("data"), &folder.join("data"));
        let port = free_port();
        let _keeper = keeper(&folder);
        let server = Self {
            family,
            port,
            server_id: next_server_id(),
            folder,
            databases: AtomicU32::new(0),
            process: Mutex::new(None),
            _keeper,
        };
        server.start_again(options);
        server
    }

    /// Starts it on the data and the port that it had; only the options given count besides the usual ones.
    pub fn start_again(&self, options: &[&str]) {
        let mut process = self.process.lock().unwrap();
        assert!(process.is_none(), "it runs");
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.join("log")).unwrap();
        let mut child = self
            .command(options)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap_or_else(|e| panic!("{:?} starts: {e}", self.family));
        fs::write(self.folder.join("pid"), child.id().to_string()).unwrap();
        let begun = Instant::now();
        while !self.greets() {
            let ended = child.try_wait().unwrap();
            assert!(
                ended.is_none() && begun.elapsed() < START,
                "{:?} does not start ({ended:?}):\n{}",
                self.family,
                self.log()
            );
            std::thread::sleep(LOOK);
        }
        *process = Some(child);
    }

    fn command(&self, options: &[&str]) -> Command {
        let mut command = self.family.program();
        command
            .arg("--no-defaults")
            .arg(format!("--user={}", whoami()))
            .arg(format!("--datadir={}", self.data().display()))
            // Whoever starts takes away what others have for the moment, where they share a place for it.
            .arg(format!("--tmpdir={}", self.folder.display()))
            .arg(format!("--socket={}", self.folder.join("socket").display()))
            .arg(format!("--pid-file={}", self.folder.join("own-pid").display()))
            .arg(format!("--port={}", self.port))
            .arg(format!("--server-id={}", self.server_id))
            .args(self.family.options())
            .args([
                "--bind-address=127.0.0.1",
                "--log-bin=binlog",
                "--binlog-row-metadata=FULL",
                "--performance-schema=OFF",
                "--max-connections=200",
                "--innodb-buffer-pool-size=64M",
                "--skip-innodb-doublewrite",
                // The tests kill the process, never the machine: nothing need reach the disk.
                "--sync-binlog=0",
                "--innodb-flush-log-at-trx-commit=2",
            ])
            .args(options);
        command
    }

    /// Whether it sends the first packet of a login.
    fn greets(&self) -> bool {
        let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) else { return false };
        let mut head = [0; 5];
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        stream.read_exact(&mut head).is_ok() && head[4] == 10
    }

    /// Ends it in order.
    pub fn stop(&self) {
        let mut process = self.process.lock().unwrap();
        let mut child = process.take().expect("it runs");
        let status = Command::new("kill").arg(child.id().to_string()).status().unwrap();
        assert!(status.success());
        child.wait().unwrap();
        fs::remove_file(self.folder.join("pid")).unwrap();
    }

    /// Ends it with SIGKILL.
    pub fn kill(&self) {
        let mut child = self.process.lock().unwrap().take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
        fs::remove_file(self.folder.join("pid")).unwrap();
    }

    /// A copy of what it holds, under a name: `put_back` brings it back. It must not run.
    pub fn save(&self, name: &str) {
        assert!(self.process.lock().unwrap().is_none(), "stop it first");
        copy(&self.data(), &self.folder.join(name));
    }

    /// Gives it what was saved, in place of what it holds. It must not run.
    pub fn put_back(&self, name: &str) {
        assert!(self.process.lock().unwrap().is_none(), "stop it first");
        fs::remove_dir_all(self.data()).unwrap();
        copy(&self.folder.join(name), &self.data());
    }

    /// Its data folder; the binlogs are `binlog.000001` and so on.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub fn family(&self) -> Family {
        self.family
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The end of its log.
    pub fn log(&self) -> String {
        let log = String::from_utf8_lossy(&fs::read(self.folder.join("log")).unwrap_or_default()).into_owned();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(30)..].join("\n")
    }

    /// `mysql://root@127.0.0.1:<port>/<database>`: root has no password.
    pub fn url(&self, database: &str) -> String {
        format!("mysql://root@127.0.0.1:{}/{database}", self.port)
    }

    /// A new, empty database; its URL.
    pub async fn database(&self) -> String {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let mut conn = self.connect("").await;
        conn.query_drop(format!("CREATE DATABASE {name} CHARACTER SET utf8mb4")).await.unwrap();
        conn.disconnect().await.unwrap();
        self.url(&name)
    }

    /// A connection of root.
    pub async fn connect(&self, database: &str) -> mysql_async::Conn {
        let url = self.url(database);
        mysql_async::Conn::from_url(&url).await.unwrap_or_else(|e| panic!("{url}: {e}\n{}", self.log()))
    }
}

/// With `cp`: it keeps holes and owners.
fn copy(from: &Path, to: &Path) {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().expect("`cp` runs");
    assert!(status.success(), "cp {} {}", from.display(), to.display());
}
