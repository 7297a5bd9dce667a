//! PostgreSQL and S3 for these tests: one server per process, with a database per test; both end with the process.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};

pub const ACCESS_KEY: &str = "AKIATESTTESTTESTTEST";
pub const SECRET_KEY: &str = "secret-of-the-tests";
pub const BUCKET: &str = "lake";

/// Whether a component is installed; skipping is loud and counted, and a failure with `REQUIRE=all` (as in `tests/it`).
pub fn available(component: &str) -> bool {
    let unwanted = std::env::var("DATAFLOW_SKIP").unwrap_or_default();
    let installed = match component {
        "postgres" => postgres_programs().join("initdb").is_file(),
        other => cache().join(other).join("version").is_file(),
    };
    if installed && !unwanted.split(',').any(|name| name.trim() == component) {
        return true;
    }
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    assert!(
        std::env::var("REQUIRE").as_deref() != Ok("all"),
        "{test} needs {component}, which is not installed (make deps), and REQUIRE=all says that it must be"
    );
    let _closed = writeln!(std::io::stderr(), "SKIPPED: component {component} is missing: {test}");
    if let Some(path) = std::env::var_os("DATAFLOW_SKIPPED_LOG") {
        let mut log = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        log.write_all(format!("{test} (needs {component})\n").as_bytes()).unwrap();
    }
    false
}

/// What `make deps` brings that is not the system's.
pub fn cache() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.cache")
}

/// The folder of the newest PostgreSQL that the system has.
pub fn postgres_programs() -> PathBuf {
    let entries = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let found = entries
        .map(|entry| entry.path())
        .max_by_key(|path| path.file_name().and_then(|name| name.to_string_lossy().parse::<u32>().ok()).unwrap_or(0));
    found.map_or_else(|| "/usr/bin".into(), |folder| folder.join("bin"))
}

struct Postgres {
    port: u16,
    databases: AtomicU32,
    _keeper: Child,
}

/// A new database; its URL.
pub fn database() -> String {
    static SERVER: OnceLock<Postgres> = OnceLock::new();
    let server = SERVER.get_or_init(start);
    let name = format!("test_{}", server.databases.fetch_add(1, Ordering::Relaxed));
    let sql = format!("CREATE DATABASE {name}");
    let target = format!("host=127.0.0.1 port={} user=postgres", server.port);
    run(Command::new(postgres_programs().join("psql")).args(["-X", "-q", "-d", &target, "-c", &sql]));
    format!("postgres://postgres@127.0.0.1:{}/{name}", server.port)
}

/// PostgreSQL refuses to run as root: there, the user that its package makes runs it.
fn program(name: &str) -> Command {
    use std::os::unix::fs::MetadataExt;
    let path = postgres_programs().join(name);
    if std::fs::metadata("/proc/self").unwrap().uid() != 0 {
        return Command::new(path);
    }
    let mut command = Command::new("runuser");
    command.args(["-u", "postgres", "--"]).arg(path);
    command.current_dir("/");
    command
}

fn run(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

fn start() -> Postgres {
    let folder = tempfile::tempdir().unwrap().keep();
    std::fs::set_permissions(&folder, std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let data = folder.join("data");
    run(program("initdb")
        .args(["-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "-D"])
        .arg(&data));
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let settings = format!(
        "-c port={port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off -c max_connections=200"
    );
    let log = folder.join("log");
    // Its output goes to a file: whoever reads ours would wait for it.
    run(program("pg_ctl").args(["-w", "-t", "300", "-o", &settings, "-l"]).arg(&log).arg("-D").arg(&data).arg("start"));
    let script = "trap '' INT TERM HUP; cat >/dev/null; kill -QUIT $(head -n 1 \"$1/data/postmaster.pid\"); sleep 1; rm -rf \"$1\"";
    let keeper = Command::new("sh")
        .args(["-c", script, "keeper"])
        .arg(&folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    Postgres { port, databases: AtomicU32::new(0), _keeper: keeper }
}

/// An S3 protocol server that checks signatures; ends with the value.
pub struct S3Server {
    pub endpoint: String,
    folder: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl S3Server {
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let mut builder = S3ServiceBuilder::new(s3s_fs::FileSystem::new(folder.path()).unwrap());
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(serve).with_state(builder.build());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { endpoint, folder, task }
    }

    /// Where the bucket's objects are, as files.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().join(BUCKET)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(State(service): State<S3Service>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    match service.call(axum::http::Request::from_parts(parts, s3s::Body::from(body))).await {
        Ok(answer) => answer.map(Body::new),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
