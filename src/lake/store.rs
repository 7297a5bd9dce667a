//! Objects below the lake's root: create-if-absent, get, list, delete, on a local folder or S3.
//!
//! Creating is the one durable step that exactly-once stands on, so its answer has three values and not two: the object
//! was made, another one stands there, or nobody knows.

use std::io::Write;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use ulid::Ulid;

#[cfg(feature = "s3")]
use super::s3;
use crate::config;
use crate::error::{Error, ErrorKind, Result};
use crate::failpoint::{self, Fault};

/// How often an ambiguous or passing failure is tried again here, on top of the client's own retries.
const ATTEMPTS: u32 = 5;
/// The first pause between attempts; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Larger objects go to S3 in parts: a part that fails is sent again, not the whole.
const IN_PARTS_BYTES: usize = 64 << 20;
/// One part.
const PART_BYTES: usize = 16 << 20;
/// Parts of one object that are on their way at the same time.
const PARTS_AT_ONCE: usize = 4;
/// Where the local store prepares files before they get their name.
pub(super) const STAGING: &str = "_tmp";

/// The answer to a create.
#[derive(Debug)]
pub(super) enum Created {
    /// It is there now, and durable.
    Yes,
    /// An object of that name was there before.
    Exists,
    /// It may be there or not.
    Unknown(Error),
}

/// The lake's root in an object store.
#[derive(Debug, Clone)]
pub(super) struct Store {
    objects: Arc<dyn ObjectStore>,
    local: Option<(Arc<LocalFileSystem>, Path)>,
    url: Arc<str>,
}

impl Store {
    /// Opens the root that the topology names. No network.
    pub fn open(config: &config::Lake) -> Result<Self> {
        let url: Arc<str> = config.url.trim_end_matches('/').into();
        if let Some(rest) = config.url.strip_prefix("s3://") {
            let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
            let objects = PrefixStore::new(s3::open(config, bucket)?, prefix.trim_matches('/'));
            return Ok(Self { objects: Arc::new(objects), local: None, url });
        }
        if let Some((scheme, _)) = config.url.split_once("://").filter(|(scheme, _)| *scheme != "file") {
            return Err(Error::new(ErrorKind::Config, format!("lake.url: `{scheme}://` is not known"))
                .help("write s3://bucket/prefix or the path of a folder"));
        }
        let wrong = |e: String| Error::new(ErrorKind::Config, format!("lake.url: {} is not a folder: {e}", config.url));
        let folder = config.url.strip_prefix("file://").unwrap_or(&config.url);
        let folder = std::path::absolute(folder).map_err(|e| wrong(e.to_string()))?;
        let prefix = Path::from_absolute_path(&folder).map_err(|e| wrong(e.to_string()))?;
        let files = Arc::new(LocalFileSystem::new());
        let objects = PrefixStore::new(Arc::clone(&files), prefix.clone());
        Ok(Self { objects: Arc::new(objects), local: Some((files, prefix)), url })
    }

    /// The root as the topology writes it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Makes the object unless one of that name is there. Passes the failpoints `<point>.before` and `<point>.after`.
    pub async fn create(&self, point: &str, path: &str, body: Bytes) -> Created {
        let before = failpoint::hit(&format!("{point}.before"));
        if before == Some(Fault::Error) {
            return Created::Unknown(injected(path));
        }
        let answer = self.create_once(path, body).await;
        if before.is_some() || failpoint::hit(&format!("{point}.after")).is_some() {
            return Created::Unknown(injected(path));
        }
        answer
    }

    async fn create_once(&self, path: &str, body: Bytes) -> Created {
        if let Some((files, prefix)) = &self.local {
            let full = Path::from_iter(prefix.parts().chain(place(path).parts()));
            let staging = Path::from_iter(prefix.parts().chain(Path::from(STAGING).parts()));
            let paths = files.path_to_filesystem(&full).and_then(|f| Ok((f, files.path_to_filesystem(&staging)?)));
            return match paths {
                Ok((target, staging)) => create_file(target, staging, body).await,
                Err(error) => Created::Unknown(self.failure("create", path, error)),
            };
        }
        if body.len() > IN_PARTS_BYTES {
            return self.create_in_parts(path, body).await;
        }
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.objects.put_opts(&place(path), body.into(), options).await {
            Ok(_) => Created::Yes,
            Err(object_store::Error::AlreadyExists { .. }) => Created::Exists,
            Err(error) => Created::Unknown(self.failure("create", path, error)),
        }
    }

    /// Makes a large object. The library cannot end an upload in parts under a condition, so this looks before: between
    /// the two only a request of this very attempt may make an object of that name, because its name is the attempt's
    /// own, and such a request brings the same bytes. Manifests are never that large.
    async fn create_in_parts(&self, path: &str, body: Bytes) -> Created {
        match self.exists(path).await {
            Ok(true) => return Created::Exists,
            Ok(false) => {}
            Err(error) => return Created::Unknown(error),
        }
        let mut upload = match self.objects.put_multipart(&place(path)).await {
            Ok(upload) => upload,
            Err(error) => return Created::Unknown(self.failure("begin to upload", path, error)),
        };
        match send_parts(&mut *upload, &body).await {
            Ok(()) => Created::Yes,
            Err(error) => {
                // Parts that stay behind cost money; the bucket's lifecycle rule is there for the case that this fails.
                if let Err(error) = upload.abort().await {
                    tracing::warn!(path, %error, "an upload that failed could not be given up");
                }
                Created::Unknown(self.failure("upload", path, error))
            }
        }
    }

    /// Makes an object whose name is this attempt's own. Every ambiguous answer is read back; an object of that name
    /// with other content is [`ErrorKind::Fenced`], because the attempt must then start again under another name.
    pub async fn create_own(&self, point: &str, path: &str, body: Bytes) -> Result<()> {
        let mut pause = Pause::default();
        loop {
            let failure = match self.create(point, path, body.clone()).await {
                Created::Yes => return Ok(()),
                Created::Exists => None,
                Created::Unknown(error) if error.kind() != &ErrorKind::StoreUnavailable => return Err(error),
                Created::Unknown(error) => Some(error),
            };
            match (self.get(path).await, failure) {
                (Ok(Some(found)), _) if found.0 == body => return Ok(()),
                (Ok(Some(_)), _) => {
                    let what = format!("{} holds another object named {path}", self.url);
                    return Err(Error::new(ErrorKind::Fenced, what).help("the epoch is dropped and read again"));
                }
                (Ok(None), failure) => pause.next(failure.unwrap_or_else(|| vanished(path))).await?,
                (Err(error), failure) => pause.next(failure.unwrap_or(error)).await?,
            }
        }
    }

    /// Reads an object and when the store last modified it; `None` when there is none.
    pub async fn get(&self, path: &str) -> Result<Option<(Bytes, ObjectMeta)>> {
        let found = match self.objects.get(&place(path)).await {
            Ok(found) => found,
            Err(error @ object_store::Error::NotFound { .. }) if !lacks_bucket(&error) => return Ok(None),
            Err(error) => return Err(self.failure("read", path, error)),
        };
        let meta = found.meta.clone();
        let body = found.bytes().await.map_err(|error| self.failure("read", path, error))?;
        Ok(Some((body, meta)))
    }

    /// Whether there is an object of that name.
    pub async fn exists(&self, path: &str) -> Result<bool> {
        match self.objects.head(&place(path)).await {
            Ok(_) => Ok(true),
            Err(object_store::Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(self.failure("look at", path, error)),
        }
    }

    /// All objects below a folder.
    pub async fn list(&self, below: &str) -> Result<Vec<ObjectMeta>> {
        let found = self.objects.list(Some(&place(below))).try_collect().await;
        found.map_err(|error| self.failure("list", below, error))
    }

    /// The folders directly below a folder.
    pub async fn folders(&self, below: &str) -> Result<Vec<String>> {
        let found = self.objects.list_with_delimiter(Some(&place(below))).await;
        let found = found.map_err(|error| self.failure("list", below, error))?;
        Ok(found.common_prefixes.iter().map(Path::to_string).collect())
    }

    /// Copies an object, without reading it here.
    pub async fn copy(&self, from: &str, to: &str) -> Result<()> {
        let copied = self.objects.copy(&place(from), &place(to)).await;
        copied.map_err(|error| self.failure("copy", from, error))
    }

    /// Deletes an object; one that is not there is deleted already.
    pub async fn delete(&self, path: &str) -> Result<()> {
        match self.objects.delete(&place(path)).await {
            Ok(()) | Err(object_store::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.failure("delete", path, error)),
        }
    }

    /// Deletes objects, a thousand in a request where the store can; one that is not there is deleted already.
    pub async fn delete_all(&self, paths: Vec<String>) -> Result<()> {
        let (first, paths) =
            (paths.first().cloned().unwrap_or_default(), paths.into_iter().map(|path| Ok(place(&path))));
        let mut deleted = self.objects.delete_stream(futures::stream::iter(paths).boxed());
        while let Some(done) = deleted.next().await {
            match done {
                Ok(_) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.failure("delete objects, beginning with", &first, error)),
            }
        }
        Ok(())
    }

    fn failure(&self, doing: &str, path: &str, error: object_store::Error) -> Error {
        use object_store::Error as E;
        let (kind, help) = match &error {
            E::PermissionDenied { .. } | E::Unauthenticated { .. } => (
                ErrorKind::Config,
                Some(
                    "the store refuses these credentials: they need to get, put, list and delete below the lake's url",
                ),
            ),
            E::NotFound { .. } => {
                (ErrorKind::Config, Some("the bucket does not exist: create it, or correct lake.url and lake.region"))
            }
            E::NotImplemented { .. } | E::NotSupported { .. } => {
                (ErrorKind::StoreBroken, Some("the lake needs a store that honours If-None-Match: * on put"))
            }
            E::InvalidPath { .. } => (ErrorKind::Config, None),
            _ => (ErrorKind::StoreUnavailable, None),
        };
        let report = Error::new(kind, format!("{doing} {path} in {}", self.url)).because(error);
        if let Some(help) = help { report.help(help) } else { report }
    }
}

async fn send_parts(upload: &mut dyn MultipartUpload, body: &Bytes) -> object_store::Result<()> {
    let starts = (0..body.len()).step_by(PART_BYTES);
    let parts: Vec<_> =
        starts.map(|at| upload.put_part(body.slice(at..body.len().min(at + PART_BYTES)).into())).collect();
    futures::stream::iter(parts).buffer_unordered(PARTS_AT_ONCE).try_collect::<Vec<()>>().await?;
    upload.complete().await.map(drop)
}

/// A path as the store takes it. One that a listing gave is encoded already, and stays as it is.
pub(super) fn place(path: &str) -> Path {
    Path::parse(path).unwrap_or_else(|_| Path::from(path))
}

/// A growing pause between attempts, with a limit.
#[derive(Debug, Default)]
pub(super) struct Pause {
    attempts: u32,
}

impl Pause {
    /// Waits before the next attempt, or gives up with `error`.
    pub async fn next(&mut self, error: Error) -> Result<()> {
        self.attempts += 1;
        if self.attempts >= ATTEMPTS {
            return Err(error);
        }
        tracing::warn!(%error, attempt = self.attempts, "trying again");
        // Between a half and the whole of the pause: many pods must not come back at once.
        let share = f64::from(Ulid::new().random() as u32) / f64::from(u32::MAX);
        tokio::time::sleep((FIRST_PAUSE * 2u32.pow(self.attempts - 1)).mul_f64(0.5 + 0.5 * share)).await;
        Ok(())
    }
}

/// A store that says `exists` and then has nothing: a concurrent delete or a passing conflict.
pub(super) fn vanished(path: &str) -> Error {
    Error::new(ErrorKind::StoreUnavailable, format!("the store refused to create {path} but has no such object"))
}

fn injected(path: &str) -> Error {
    Error::new(ErrorKind::StoreUnavailable, format!("create {path}: a test lost the answer"))
}

fn lacks_bucket(error: &object_store::Error) -> bool {
    error.to_string().contains("NoSuchBucket")
}

#[cfg(not(feature = "s3"))]
mod s3 {
    pub fn open(_: &super::config::Lake, _: &str) -> super::Result<super::LocalFileSystem> {
        use super::{Error, ErrorKind};
        Err(Error::new(ErrorKind::Config, "lake.url: this build has no S3").help("build with the feature `s3`"))
    }
}

/// The local put-if-absent: the content is durable before its name appears, and the name before this returns. The
/// library's own local put does neither.
async fn create_file(target: PathBuf, staging: PathBuf, body: Bytes) -> Created {
    let shown = target.display().to_string();
    let done = tokio::task::spawn_blocking(move || link_new(&target, &staging, &body)).await;
    let error = match done {
        Ok(Ok(())) => return Created::Yes,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::AlreadyExists => return Created::Exists,
        Ok(Err(error)) => error,
        Err(error) => std::io::Error::other(error),
    };
    let denied = matches!(error.kind(), std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem);
    let kind = if denied { ErrorKind::Config } else { ErrorKind::StoreUnavailable };
    Created::Unknown(Error::new(kind, format!("create {shown}")).because(error))
}

fn link_new(target: &FilePath, staging: &FilePath, body: &[u8]) -> std::io::Result<()> {
    let folder = target.parent().unwrap_or(staging);
    make_folder(folder)?;
    make_folder(staging)?;
    let draft = staging.join(Ulid::new().to_string());
    let outcome = write_durably(&draft, body).and_then(|()| std::fs::hard_link(&draft, target));
    // What stays behind after a crash is swept.
    let removed = std::fs::remove_file(&draft);
    outcome?;
    sync_folder(folder)?;
    removed
}

fn write_durably(path: &FilePath, body: &[u8]) -> std::io::Result<()> {
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).open(path)?;
    file.write_all(body)?;
    file.sync_all()
}

/// Makes a folder and everything above it that is missing, each durable in its parent.
fn make_folder(folder: &FilePath) -> std::io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    if let Some(parent) = folder.parent() {
        make_folder(parent)?;
    }
    match std::fs::create_dir(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists || !folder.is_dir() => return Err(error),
        _ => {}
    }
    folder.parent().map_or(Ok(()), sync_folder)
}

fn sync_folder(folder: &FilePath) -> std::io::Result<()> {
    std::fs::File::open(folder)?.sync_all()
}
