//! An S3 protocol server in this process: signatures and digests are checked, and faults can be asked for.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use dataflow::config;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use sha2::{Digest, Sha256};

/// The credentials that the server takes.
pub const ACCESS_KEY: &str = "AKIATESTTESTTESTTEST";
/// Their secret.
pub const SECRET_KEY: &str = "secret-of-the-tests";
/// What a role's session gives; the server takes it too.
pub const ROLE_ACCESS_KEY: &str = "ASIAROLEROLEROLEROLE";
/// Its secret.
pub const ROLE_SECRET_KEY: &str = "secret-of-the-role";
/// The bucket that is there from the start.
pub const BUCKET: &str = "lake";

/// What goes wrong with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// `If-None-Match` is ignored: the object is overwritten.
    Overwrite,
    /// Nothing is done; the answer is 503.
    Unavailable,
    /// It is done; the answer is 500.
    AnswerLost,
    /// Nothing is done; the answer is 403.
    Denied,
    /// Nothing is done; the answer is 503 with the code `SlowDown`.
    SlowDown,
    /// Nothing is done until [`S3Server::heal`].
    Held,
    /// A bit of the body is another one when it comes: refused where a checksum shows it.
    Damaged,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Asked {
    pub method: Method,
    pub path: String,
    pub query: String,
    pub headers: HeaderMap,
    pub bytes: usize,
}

struct Rule {
    fault: Fault,
    method: Method,
    path: String,
    /// Requests whose query contains this are spared.
    unless: Option<String>,
    times: usize,
}

#[derive(Clone)]
struct Proxy {
    checked: S3Service,
    /// Without signatures: for requests that a fault has changed.
    open: S3Service,
    rules: Arc<Mutex<Vec<Rule>>>,
    asked: Arc<Mutex<Vec<Asked>>>,
    /// The file server looks and then writes; S3 does both at once. By path.
    creates: Arc<Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>>,
    healed: Arc<tokio::sync::watch::Sender<()>>,
    folder: Arc<std::path::PathBuf>,
}

/// A running server on a free port of 127.0.0.1, with its objects in a temporary folder; ends with the value.
pub struct S3Server {
    pub endpoint: String,
    proxy: Proxy,
    folder: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl S3Server {
    /// Starts a server with one empty bucket.
    pub async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join(BUCKET)).unwrap();
        let files = || s3s_fs::FileSystem::new(folder.path()).unwrap();
        let mut checked = S3ServiceBuilder::new(files());
        let mut auth = SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY);
        auth.register(ROLE_ACCESS_KEY.into(), ROLE_SECRET_KEY.into());
        checked.set_auth(auth);
        let proxy = Proxy {
            checked: checked.build(),
            open: S3ServiceBuilder::new(files()).build(),
            rules: Arc::default(),
            asked: Arc::default(),
            creates: Arc::default(),
            healed: Arc::new(tokio::sync::watch::Sender::new(())),
            folder: Arc::new(folder.path().to_owned()),
        };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let router = Router::new().fallback(serve).with_state(proxy.clone());
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { endpoint, proxy, folder, task }
    }

    /// The topology's lake below `prefix` in the bucket.
    pub fn lake(&self, prefix: &str) -> config::Lake {
        config::Lake {
            url: format!("s3://{BUCKET}/{prefix}"),
            region: Some("eu-west-3".into()),
            endpoint: Some(self.endpoint.clone()),
            access_key_id: Some(ACCESS_KEY.into()),
            secret_access_key: Some(SECRET_KEY.into()),
            ..config::Lake::default()
        }
    }

    /// The next `times` requests of `method` whose path contains `path` go wrong.
    pub fn fault(&self, fault: Fault, method: &str, path: &str, times: usize) {
        let rule = Rule { fault, method: method.parse().unwrap(), path: path.to_owned(), unless: None, times };
        self.proxy.rules.lock().unwrap().push(rule);
    }

    /// All requests of `method` whose path contains `path` go wrong, but for those whose query contains `unless`.
    pub fn fault_unless(&self, fault: Fault, method: &str, path: &str, unless: &str) {
        self.fault(fault, method, path, usize::MAX);
        if let Some(rule) = self.proxy.rules.lock().unwrap().last_mut() {
            rule.unless = Some(unless.to_owned());
        }
    }

    /// Nothing goes wrong any more. Returns how many faults were still to come.
    pub fn heal(&self) -> usize {
        self.proxy.healed.send_replace(());
        self.proxy.rules.lock().unwrap().drain(..).fold(0, |left, rule| left.saturating_add(rule.times))
    }

    /// What was asked since the last look, refused requests included.
    pub fn asked(&self) -> Vec<Asked> {
        std::mem::take(&mut *self.proxy.asked.lock().unwrap())
    }

    /// Where the bucket's objects are, as files.
    pub fn folder(&self) -> std::path::PathBuf {
        self.folder.path().join(BUCKET)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Proxy {
    fn creating(&self, path: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut creates = self.creates.lock().unwrap();
        creates.retain(|_, creating| Arc::strong_count(creating) > 1);
        Arc::clone(creates.entry(path.to_owned()).or_default())
    }

    fn fault(&self, method: &Method, path: &str, query: &str) -> Option<Fault> {
        let spared = |rule: &Rule| rule.unless.as_ref().is_some_and(|unless| query.contains(unless));
        let meant =
            |rule: &Rule| rule.times > 0 && rule.method == *method && path.contains(&rule.path) && !spared(rule);
        let mut rules = self.rules.lock().unwrap();
        let rule = rules.iter_mut().find(|rule| meant(rule))?;
        rule.times -= 1;
        Some(rule.fault)
    }
}

async fn serve(State(proxy): State<Proxy>, request: Request) -> Response {
    let (mut parts, body) = request.into_parts();
    let mut body = axum::body::to_bytes(body, usize::MAX).await.unwrap();
    proxy.asked.lock().unwrap().push(Asked {
        method: parts.method.clone(),
        path: parts.uri.path().to_owned(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        headers: parts.headers.clone(),
        bytes: body.len(),
    });
    // The file server makes a bucket with its first object; S3 does not.
    let bucket = parts.uri.path().trim_start_matches('/').split('/').next().unwrap_or_default();
    if !proxy.folder.join(bucket).is_dir() {
        return (StatusCode::NOT_FOUND, "<Error><Code>NoSuchBucket</Code></Error>").into_response();
    }
    let mut healed = proxy.healed.subscribe();
    let fault = proxy.fault(&parts.method, parts.uri.path(), parts.uri.query().unwrap_or_default());
    match fault {
        Some(Fault::Unavailable) => return StatusCode::SERVICE_UNAVAILABLE.into_response(),
        Some(Fault::SlowDown) => {
            let body = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>";
            return (StatusCode::SERVICE_UNAVAILABLE, body).into_response();
        }
        Some(Fault::Denied) => return StatusCode::FORBIDDEN.into_response(),
        Some(Fault::Overwrite) => {
            parts.headers.remove(header::IF_NONE_MATCH);
            parts.headers.remove(header::AUTHORIZATION);
        }
        Some(Fault::Held) => healed.changed().await.unwrap(),
        Some(Fault::Damaged) => {
            let mut damaged = body.to_vec();
            *damaged.last_mut().unwrap() ^= 1;
            body = damaged.into();
            // The file server looks at the checksum when the object is there already.
            let sum = parts.headers.get("x-amz-checksum-sha256").map(|sum| STANDARD.decode(sum).unwrap());
            if sum.is_some_and(|sum| sum != Sha256::digest(&body)[..]) {
                let body = "<Error><Code>BadDigest</Code><Message>The checksum did not match.</Message></Error>";
                return (StatusCode::BAD_REQUEST, body).into_response();
            }
        }
        Some(Fault::AnswerLost) | None => {}
    }
    let service = if fault == Some(Fault::Overwrite) { &proxy.open } else { &proxy.checked };
    let one_at_a_time = (parts.method == Method::PUT).then(|| proxy.creating(parts.uri.path()));
    let _one_at_a_time = if let Some(creating) = &one_at_a_time { Some(creating.lock().await) } else { None };
    let answer = service.call(axum::http::Request::from_parts(parts, s3s::Body::from(body))).await;
    match (fault, answer) {
        (Some(Fault::AnswerLost), _) | (_, Err(_)) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
        (_, Ok(answer)) => answer.map(Body::new),
    }
}
