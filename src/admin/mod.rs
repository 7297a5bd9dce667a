//! Health, readiness, metrics and the status page, over HTTP.
//!
//! | path | what |
//! |---|---|
//! | `/` | a page for the person on call: what is late and why |
//! | `/status.json` | [`StatusSnapshot`] |
//! | `/healthz` | 200 while nothing has halted, else 503 with the reasons |
//! | `/readyz` | 200 when log and warehouse are open and sources are read, else 503 |
//! | `/metrics` | Prometheus text |
//!
//! Everything is read from the shared [`Status`]; ages and the gauges made of them are computed per request, so a process
//! that is stuck shows them growing.

mod exporter;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{Html, IntoResponse, Json, Response};
use axum::{Router, routing::get};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};

pub use crate::telemetry::{
    AccountStatus, GroupStatus, PartitionStatus, Problem, SourceStatus, Status, StatusSnapshot, TableState, TableStatus,
};
pub use exporter::{Metrics, install_metrics};

/// A server that has its address and does not answer yet.
#[derive(Debug)]
pub struct Bound {
    listener: TcpListener,
    addr: SocketAddr,
}

/// Takes the address `listen` (`host:port`; port 0 takes a free one).
pub async fn bind(listen: &str) -> Result<Bound> {
    let refused = |error: std::io::Error| {
        Error::new(ErrorKind::Config, format!("listen on {listen} for the status page"))
            .because(error)
            .help("choose another address: --set admin.listen=127.0.0.1:0 takes a free port")
    };
    let listener = TcpListener::bind(listen).await.map_err(refused)?;
    let addr = listener.local_addr().map_err(refused)?;
    Ok(Bound { listener, addr })
}

impl Bound {
    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers until `shutdown`. Requests that run then get a second to end.
    pub async fn serve(self, status: Arc<Status>, metrics: Metrics, shutdown: CancellationToken) -> Result<()> {
        let router = router(status, metrics.clone());
        let stopped = shutdown.clone();
        let server = axum::serve(self.listener, router)
            .with_graceful_shutdown(async move { stopped.cancelled().await })
            .into_future();
        let late = async {
            shutdown.cancelled().await;
            // A browser may keep its connection open for as long as it likes.
            tokio::time::sleep(GRACE).await;
        };
        tokio::select! {
            ended = server => ended.map_err(|error| Error::new(ErrorKind::Internal, "serve the status page").because(error)),
            () = metrics.keep_up() => Ok(()),
            () = late => Ok(()),
        }
    }
}

const GRACE: Duration = Duration::from_secs(1);

#[derive(Clone)]
struct Shared {
    status: Arc<Status>,
    metrics: Metrics,
}

fn router(status: Arc<Status>, metrics: Metrics) -> Router {
    Router::new()
        .route("/", get(page))
        .route("/status.json", get(status_json))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(prometheus))
        .with_state(Shared { status, metrics })
}

/// Nothing is loaded from elsewhere, nothing is framed, nothing is guessed. The page builds its text as text nodes only.
const PAGE_HEADERS: [(HeaderName, &str); 4] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; \
         base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-store"),
];

async fn page() -> Response {
    (PAGE_HEADERS, Html(include_str!("page.html"))).into_response()
}

async fn status_json(State(shared): State<Shared>) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(shared.status.snapshot())).into_response()
}

async fn healthz(State(shared): State<Shared>) -> Response {
    let snapshot = shared.status.snapshot();
    answer(snapshot.healthy, "healthy", &snapshot)
}

async fn readyz(State(shared): State<Shared>) -> Response {
    let snapshot = shared.status.snapshot();
    answer(snapshot.ready && snapshot.healthy, "ready", &snapshot)
}

fn answer(good: bool, word: &str, snapshot: &StatusSnapshot) -> Response {
    if good {
        return (StatusCode::OK, format!("{word}\n")).into_response();
    }
    let reasons: String = snapshot.problems.iter().map(|p| format!("{}: {}\n", p.what, p.why)).collect();
    (StatusCode::SERVICE_UNAVAILABLE, format!("not {word}\n{reasons}")).into_response()
}

async fn prometheus(State(shared): State<Shared>) -> Response {
    let text = shared.metrics.render(&shared.status.snapshot());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use chrono::{TimeDelta, Utc};

    use super::*;

    fn metrics() -> Metrics {
        // The recorder is the process's; tests of one process share it.
        static METRICS: OnceLock<Metrics> = OnceLock::new();
        METRICS.get_or_init(|| install_metrics().expect("first in this process")).clone()
    }

    fn status() -> Arc<Status> {
        let status = Status::new("shop", 300);
        status.update(|s| {
            let newest = Utc::now() - TimeDelta::seconds(400);
            let table = TableStatus { table: "orders".into(), group: "sales".into(), ..TableStatus::default() };
            let newest_source_time_us = Some(newest.timestamp_micros());
            s.tables = vec![TableStatus { newest_source_time_us, log_epoch: 3, warehouse_epoch: 2, ..table }];
        });
        Arc::new(status)
    }

    async fn get(addr: SocketAddr, path: &str) -> (u16, String) {
        let answer = reqwest::get(format!("http://{addr}{path}")).await.expect("the server answers");
        (answer.status().as_u16(), answer.text().await.expect("text"))
    }

    /// Serves while `ask` asks, and ends with it.
    async fn with_server<T>(status: Arc<Status>, ask: impl AsyncFnOnce(SocketAddr) -> T) -> T {
        let bound = bind("127.0.0.1:0").await.expect("a free port");
        let (addr, shutdown) = (bound.addr(), CancellationToken::new());
        let asking = async {
            let answer = ask(addr).await;
            shutdown.cancel();
            answer
        };
        let (served, answer) = tokio::join!(bound.serve(status, metrics(), shutdown.clone()), asking);
        served.expect("the server ends in peace");
        answer
    }

    #[tokio::test]
    async fn health_and_readiness_say_why_not() {
        let status = status();
        with_server(status.clone(), async |addr| {
            assert_eq!(get(addr, "/healthz").await, (200, "healthy\n".into()));
            assert_eq!(get(addr, "/readyz").await, (503, "not ready\n".into()));
            status.update(|s| s.ready = true);
            assert_eq!(get(addr, "/readyz").await.0, 200);
            status.problem("load of group sales", "the ledger belongs to another log", None);
            status.update(|s| s.healthy = false);
            let (code, text) = get(addr, "/healthz").await;
            assert_eq!(
                (code, text.as_str()),
                (503, "not healthy\nload of group sales: the ledger belongs to another log\n")
            );
        })
        .await;
    }

    #[tokio::test]
    async fn freshness_grows_in_the_exposition_while_nothing_is_written() {
        let name = "dataflow_warehouse_freshness_seconds{table=\"orders\"} ";
        let read = |text: &str| -> f64 {
            let line = text.lines().find(|line| line.starts_with(name)).expect("the gauge");
            line[name.len()..].parse().expect("a number")
        };
        with_server(status(), async |addr| {
            let first = read(&get(addr, "/metrics").await.1);
            let (_, text) = get(addr, "/metrics").await;
            assert!(first >= 400.0 && read(&text) > first, "{first} then {}", read(&text));
            assert!(text.contains("# HELP dataflow_warehouse_freshness_seconds"));
            assert!(text.contains("dataflow_table_stopped{table=\"orders\",why=\"parked\"} 0"));
            assert!(text.contains("dataflow_account_balanced 1"));
        })
        .await;
    }

    #[tokio::test]
    async fn histograms_have_the_documented_buckets() {
        let metrics = metrics();
        metrics::histogram!(crate::telemetry::END_TO_END_LATENCY_SECONDS, "table" => "t").record(12.0);
        let text = metrics.render(&status().snapshot());
        assert!(text.contains("dataflow_end_to_end_latency_seconds_bucket{table=\"t\",le=\"15\"} 1"), "{text}");
        assert!(text.contains("dataflow_end_to_end_latency_seconds_bucket{table=\"t\",le=\"5\"} 0"), "{text}");
    }

    #[tokio::test]
    async fn a_partition_that_went_away_leaves_no_lag_behind() {
        let status = status();
        let partition = PartitionStatus { name: "away/0".into(), position: "7".into(), behind: Some(9) };
        let source = SourceStatus { name: "shop".into(), partitions: vec![partition], ..SourceStatus::default() };
        status.update(|s| s.sources = vec![source]);
        let line = "dataflow_source_lag_records{source=\"shop\",partition=\"away/0\"}";
        // Metrics of its own: other tests of this process render other snapshots.
        let metrics = Metrics { lagging: Arc::default(), ..metrics() };
        assert!(metrics.render(&status.snapshot()).contains(&format!("{line} 9")));
        status.update(|s| s.sources[0].partitions.clear());
        assert!(metrics.render(&status.snapshot()).contains(&format!("{line} 0")));
    }

    #[tokio::test]
    async fn the_page_loads_nothing_from_elsewhere_and_the_snapshot_is_json() {
        with_server(status(), async |addr| {
            let answer = reqwest::get(format!("http://{addr}/")).await.expect("the page");
            let policy = answer.headers()["content-security-policy"].to_str().expect("text").to_owned();
            assert!(policy.starts_with("default-src 'none'"), "{policy}");
            let page = answer.text().await.expect("text");
            assert!(!page.contains("http://") && !page.contains("https://") && !page.contains("innerHTML"));
            let json: serde_json::Value = serde_json::from_str(&get(addr, "/status.json").await.1).expect("JSON");
            assert_eq!((&json["tables"][0]["table"], &json["tables"][0]["late"]), (&"orders".into(), &true.into()));
        })
        .await;
    }

    #[tokio::test]
    async fn a_taken_port_is_the_users_mistake() {
        let first = bind("127.0.0.1:0").await.expect("a free port");
        let error = bind(&first.addr().to_string()).await.expect_err("taken");
        assert_eq!(error.exit_code(), 2);
        assert!(error.to_string().contains("admin.listen"), "{error}");
    }
}
