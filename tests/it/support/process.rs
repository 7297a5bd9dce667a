//! The real binary as a child: started with a topology, watched through its log and its admin page, broken, restarted.
//!
//! ```ignore
//! let launch = Launch::new(dir.path(), &topology).failpoints("log.put.after=2*off->return(kill)");
//! let mut process = launch.run();
//! process.wait_for("all loaded", LIMIT, |status| table(status, "orders")["rows"] == 7).await;
//! process.terminate();
//! assert!(process.exit(LIMIT).await.success());
//! ```

#![allow(dead_code, reason = "a tool box: a build without some connectors uses less of it")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::OpenOptions;
use std::io::Write;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::Value;

/// How long a test waits for what should come within a second or two; long, because machines are shared.
pub const LIMIT: Duration = Duration::from_secs(180);
/// How often a signal is looked for.
const LOOK: Duration = Duration::from_millis(25);
/// Lines of the log that a failure shows.
const SHOWN_LOG_LINES: usize = 40;

/// Whether a component of the tests (`kafka`, `postgres`, `postgres-newest`, `mysql`, `mariadb`, `python`) is there; a test
/// that needs it returns when it is not.
///
/// It is not when `DATAFLOW_SKIP` names it or when it is not installed. Skipping is loud and counted (`make test` reads the
/// file that `DATAFLOW_SKIPPED_LOG` names); with `REQUIRE=all` it is a failure.
pub fn available(component: &str) -> bool {
    let unwanted = std::env::var("DATAFLOW_SKIP").unwrap_or_default();
    if !unwanted.split(',').any(|name| name.trim() == component) && installed(component) {
        return true;
    }
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test").to_owned();
    assert!(
        std::env::var("REQUIRE").as_deref() != Ok("all"),
        "{test} needs {component}, which is not installed (make deps), and REQUIRE=all says that it must be"
    );
    skipped(component);
    false
}

/// Says, and counts, that a test is passed over for want of something.
pub fn skipped(wanted: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    // Written directly: the harness hides what a passing test prints.
    let _closed = writeln!(std::io::stderr(), "SKIPPED: {wanted} is missing: {test}");
    if let Some(path) = std::env::var_os("DATAFLOW_SKIPPED_LOG") {
        let mut log = OpenOptions::new().create(true).append(true).open(path).unwrap();
        log.write_all(format!("{test} (needs {wanted})\n").as_bytes()).unwrap();
    }
}

fn installed(component: &str) -> bool {
    match component {
        "postgres" => on_path("postgres") || postgres_folder().is_some(),
        "kafka" => on_path("java") && holds_jars(&cache().join("kafka")),
        "postgres-newest" | "mysql" | "mariadb" | "python" => cache().join(component).join("version").is_file(),
        other => panic!("no test component is called {other}"),
    }
}

/// What `make deps` brings that is not the system's.
fn cache() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(".cache")
}

/// The Python that has the packages of the tests.
pub fn python() -> PathBuf {
    cache().join("python/bin/python")
}

fn on_path(program: &str) -> bool {
    std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).any(|folder| folder.join(program).is_file())
}

/// The newest of Debian's PostgreSQL servers: the folder that holds `postgres` and `initdb`.
pub fn postgres_folder() -> Option<PathBuf> {
    let entries = std::fs::read_dir("/usr/lib/postgresql").ok()?;
    let version = |path: &PathBuf| path.file_name()?.to_str()?.parse::<u32>().ok();
    let newest =
        entries.filter_map(|e| Some(e.ok()?.path())).filter(|p| p.join("bin/postgres").is_file()).max_by_key(version);
    Some(newest?.join("bin"))
}

fn holds_jars(folder: &Path) -> bool {
    let Ok(entries) = std::fs::read_dir(folder) else { return false };
    entries
        .filter_map(|e| Some(e.ok()?.path()))
        .any(|path| if path.is_dir() { holds_jars(&path) } else { path.extension().is_some_and(|e| e == "jar") })
}

/// A port that was free a moment ago, and that nobody else in this process was given. Servers that can choose one themselves
/// should.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        if GIVEN.lock().unwrap().insert(port) {
            return port;
        }
    }
}

/// The entry of a table in `/status.json` and `dataflow status --json`; null while it is not there.
pub fn table<'a>(status: &'a Value, name: &str) -> &'a Value {
    let tables = status["tables"].as_array().map(Vec::as_slice).unwrap_or_default();
    tables.iter().find(|table| table["table"] == name).unwrap_or(&Value::Null)
}

/// The entry of a task beside the stream in `/status.json`; null while it is not there.
pub fn upkeep<'a>(status: &'a Value, task: &str) -> &'a Value {
    let tasks = status["upkeep"].as_array().map(Vec::as_slice).unwrap_or_default();
    tasks.iter().find(|known| known["task"] == task).unwrap_or(&Value::Null)
}

/// The value of a metric, with its labels as they are exposed.
pub fn metric(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

/// How to start the binary: a topology in a folder, arguments, environment.
#[derive(Debug, Clone)]
pub struct Launch {
    folder: PathBuf,
    topology: PathBuf,
    arguments: Vec<String>,
    environment: BTreeMap<String, String>,
    admin_port: u16,
    log: PathBuf,
}

impl Launch {
    /// Writes `topology` into `folder`, which is also the working directory. A topology without `admin:` gets one on a
    /// free port; one with it must contain `{admin_port}` for the port.
    pub fn new(folder: &Path, topology: &str) -> Self {
        Self::named(folder, "topology", topology)
    }

    /// The same for several processes in one folder: each has its own file name, port and log.
    pub fn named(folder: &Path, name: &str, topology: &str) -> Self {
        let admin_port = free_port();
        let mut text = topology.replace("{admin_port}", &admin_port.to_string());
        if !text.lines().any(|line| line.starts_with("admin:")) {
            text.push_str(&format!("\nadmin: {{ listen: \"127.0.0.1:{admin_port}\" }}\n"));
        }
        let path = folder.join(format!("{name}.yaml"));
        std::fs::write(&path, text).unwrap();
        Self {
            folder: folder.to_owned(),
            topology: path,
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            admin_port,
            log: folder.join(format!("{name}.log")),
        }
    }

    /// Adds an argument of `dataflow run`.
    pub fn arg(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Sets an environment variable.
    pub fn env(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    /// Breaks the process: see `dataflow::failpoint`.
    pub fn failpoints(self, what: impl Into<String>) -> Self {
        self.env("FAILPOINTS", what)
    }

    /// The topology's file.
    pub fn topology(&self) -> &Path {
        &self.topology
    }

    /// Everything that all runs have written.
    pub fn whole_log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_dataflow"));
        command.current_dir(&self.folder).env_remove("FAILPOINTS").envs(&self.environment).stdin(Stdio::null());
        command
    }

    /// `dataflow run TOPOLOGY …` in the background. Logs of several runs follow each other in one file.
    pub fn run(&self) -> Running {
        let log = OpenOptions::new().create(true).append(true).open(&self.log).unwrap();
        let already = log.metadata().unwrap().len();
        let child = self
            .command()
            .arg("run")
            .arg(&self.topology)
            .args(&self.arguments)
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Running { child, admin_port: self.admin_port, log: self.log.clone(), log_start: already }
    }

    /// `dataflow run TOPOLOGY --until-caught-up …`, to its end; fails the test unless it exits with 0.
    pub async fn run_until_caught_up(&self) {
        let mut process = self.clone().arg("--until-caught-up").run();
        let status = process.exit(LIMIT).await;
        assert!(status.success(), "{status}\n{}", process.log_tail());
    }

    /// Another command to its end, with the topology after its first words: `command(&["status"], &["--json"])`.
    pub fn other(&self, words: &[&str], more: &[&str]) -> Output {
        // Failpoints are for the process under test, not for the one that looks at it.
        let mut command = self.command();
        command.env_remove("FAILPOINTS").args(words).arg(&self.topology).args(more).output().unwrap()
    }

    /// The same, broken by failpoints.
    pub fn broken(&self, failpoints: &str, words: &[&str], more: &[&str]) -> Output {
        let mut command = self.command();
        command.env("FAILPOINTS", failpoints).args(words).arg(&self.topology).args(more).output().unwrap()
    }

    /// What `dataflow status TOPOLOGY --json` says.
    pub fn status(&self) -> Value {
        let output = self.other(&["status"], &["--json"]);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "status: {}: {error}", output.status);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("status is not JSON: {e}: {error}"))
    }

    /// What `dataflow verify TOPOLOGY --json …` says, and its exit code.
    pub fn verify(&self, more: &[&str]) -> (i32, Value) {
        let output = self.other(&["verify"], &[&["--json"], more].concat());
        let error = String::from_utf8_lossy(&output.stderr);
        let report = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("no report: {e}: {error}"));
        (output.status.code().unwrap_or(-1), report)
    }

    /// Fails the test unless `dataflow verify` says that every table is equal, and nothing is excused or still moves.
    #[track_caller]
    pub fn assert_equal(&self) {
        if let Err(why) = self.equal() {
            panic!("{why}");
        }
    }

    fn equal(&self) -> Result<(), String> {
        let (code, report) = self.verify(&[]);
        let tables = report["tables"].as_array().map(Vec::as_slice).unwrap_or_default();
        let clean = |table: &Value| table["moving"] == 0 && table["excused"].as_object().is_some_and(|e| e.is_empty());
        let equal = code == 0 && !tables.is_empty() && tables.iter().all(clean);
        if equal { Ok(()) } else { Err(format!("verify: {code}: {report:#}")) }
    }

    /// What `dataflow verify` says against it, beside whatever else the test does meanwhile.
    pub async fn compare(&self) -> Result<(), String> {
        let launch = self.clone();
        tokio::task::spawn_blocking(move || launch.equal()).await.unwrap()
    }

    /// Runs with `failpoints` until the process dies of them or `done` holds, then without until `done` holds, then stops
    /// it in order. Says whether the failpoint killed it: a place that is never passed is a test that tests nothing.
    pub async fn survive(&self, failpoints: &str, done: impl Fn(&Value) -> bool) -> bool {
        let mut broken = self.clone().failpoints(failpoints).run();
        let died = broken.dies_before(LIMIT, &done).await;
        drop(broken);
        let mut whole = self.run();
        whole.wait_for(&format!("the end after {failpoints}"), LIMIT, &done).await;
        whole.stop().await;
        died
    }
}

/// A running process. Dropping it kills it.
#[derive(Debug)]
pub struct Running {
    child: Child,
    admin_port: u16,
    log: PathBuf,
    log_start: u64,
}

impl Running {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it has had, as the kernel counts it, in MiB.
    pub fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status.lines().find(|line| line.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }

    /// `http://127.0.0.1:<port>` of its admin server, followed by `path`.
    pub fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.admin_port)
    }

    /// The body of an admin page; `None` while it does not answer with 200.
    pub async fn page(&self, path: &str) -> Option<String> {
        let answer = reqwest::get(self.url(path)).await.ok()?;
        if answer.status().is_success() { answer.text().await.ok() } else { None }
    }

    /// What `/status.json` says; `None` while it does not answer.
    pub async fn status(&self) -> Option<Value> {
        serde_json::from_str(&self.page("/status.json").await?).ok()
    }

    /// Waits until `/status.json` fulfils `done`; fails the test when the process ends first or time runs out.
    pub async fn wait_for(&mut self, what: &str, limit: Duration, done: impl Fn(&Value) -> bool) -> Value {
        let started = Instant::now();
        let mut last = None;
        loop {
            if let Some(status) = self.status().await {
                if done(&status) {
                    return status;
                }
                last = Some(status);
            }
            let over = started.elapsed() > limit;
            let ended = self.child.try_wait().unwrap();
            assert!(
                !over && ended.is_none(),
                "waited for {what}: {}; last status: {last:?}\n{}",
                ended.map_or_else(|| format!("not within {limit:?}"), |status| format!("the process ended: {status}")),
                self.log_tail()
            );
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits until a line of this run's log contains `text`, and gives it.
    pub async fn wait_for_log(&mut self, text: &str, limit: Duration) -> String {
        let started = Instant::now();
        loop {
            if let Some(line) = self.log().lines().find(|line| line.contains(text)) {
                return line.to_owned();
            }
            let ended = self.child.try_wait().unwrap();
            // What it wrote last may have come after the look above.
            let in_vain = ended.is_some() && !self.log().contains(text);
            assert!(started.elapsed() < limit && !in_vain, "no `{text}` in the log ({ended:?})\n{}", self.log_tail());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Waits for its end.
    pub async fn exit(&mut self, limit: Duration) -> ExitStatus {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            if started.elapsed() >= limit {
                // One that waits for work in good health has not done what the test thought that it would.
                let status = self.status().await;
                panic!("still running after {limit:?}; its status: {status:?}\n{}", self.log_tail());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether it ends before `done` holds.
    async fn dies_before(&mut self, limit: Duration, done: impl Fn(&Value) -> bool) -> bool {
        let started = Instant::now();
        loop {
            if self.child.try_wait().unwrap().is_some() {
                return true;
            }
            if self.status().await.is_some_and(|status| done(&status)) {
                return false;
            }
            assert!(started.elapsed() < limit, "neither dead nor done after {limit:?}\n{}", self.log_tail());
            tokio::time::sleep(LOOK).await;
        }
    }

    /// SIGTERM: seal, commit, apply, release, exit 0.
    pub fn terminate(&self) {
        self.signal("-TERM");
    }

    /// SIGKILL: nothing more is done.
    pub fn kill(&mut self) {
        let _already_dead = self.child.kill();
        self.child.wait().unwrap();
    }

    /// Sends a signal by its `kill` option, e.g. `-STOP`.
    pub fn signal(&self, signal: &str) {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(status.success(), "kill {signal} {}", self.child.id());
    }

    /// SIGTERM, and it must end with 0.
    pub async fn stop(&mut self) {
        self.terminate();
        let status = self.exit(LIMIT).await;
        assert!(status.success(), "after SIGTERM: {status}\n{}", self.log_tail());
    }

    /// Everything that this run has written.
    pub fn log(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes[bytes.len().min(self.log_start as usize)..]).into_owned()
    }

    /// Everything that all runs of this launch have written.
    pub fn whole_log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// The end of the log, for messages.
    pub fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        format!("-- end of the log:\n{}", lines[lines.len().saturating_sub(SHOWN_LOG_LINES)..].join("\n"))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}
