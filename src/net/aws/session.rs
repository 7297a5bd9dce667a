//! Credentials that run out: asked for when they are needed, renewed before they end.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use chrono::{DateTime, TimeDelta, Utc};
use object_store::CredentialProvider;
use object_store::aws::{AwsCredential, AwsCredentialProvider};
use serde::Deserialize;

use super::sts::{Role, Sts};

/// Credentials are renewed so long before they end.
const AHEAD: TimeDelta = TimeDelta::minutes(5);
const NAME: &str = "AWS credentials";

/// Credentials, and until when they hold.
#[derive(Debug, Clone)]
pub(super) struct Session {
    pub credential: Arc<AwsCredential>,
    pub until: Option<DateTime<Utc>>,
}

/// Why there are no credentials.
#[derive(Debug)]
pub(super) struct Failure {
    why: String,
    lasting: bool,
}

impl Failure {
    /// It is worth another try.
    pub fn passing(why: String) -> Self {
        Self { why, lasting: false }
    }

    /// Somebody has to change something.
    pub fn lasting(why: String) -> Self {
        Self { why, lasting: true }
    }

    fn report(self) -> object_store::Error {
        let source: Box<dyn std::error::Error + Send + Sync> = self.why.into();
        match self.lasting {
            true => object_store::Error::Unauthenticated { path: NAME.to_owned(), source },
            false => object_store::Error::Generic { store: NAME, source },
        }
    }
}

/// Where credentials come from.
#[derive(Debug)]
pub(super) enum Origin {
    /// They were written down.
    Keys(Arc<AwsCredential>),
    /// A program prints them.
    Process(String),
    /// A role, taken on with other credentials.
    Role { role: Role, base: Box<Origin> },
    /// A role, taken on with a token that the platform keeps in a file.
    WebIdentity { role: Role, token_file: PathBuf },
    /// The library asks the container's or the instance's metadata service, and renews by itself.
    Metadata { provider: AwsCredentialProvider, asked: &'static str },
}

/// Gives out what an origin gave, for as long as it holds.
#[derive(Debug)]
pub(super) struct Renewed {
    pub origin: Origin,
    pub sts: Sts,
    pub held: tokio::sync::Mutex<Option<Session>>,
}

#[async_trait]
impl CredentialProvider for Renewed {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut held = self.held.lock().await;
        let now = Utc::now();
        let left = |session: &Session| session.until.map_or(TimeDelta::MAX, |until| until - now);
        if let Some(session) = held.as_ref().filter(|session| left(session) > AHEAD) {
            return Ok(Arc::clone(&session.credential));
        }
        match obtain(&self.origin, &self.sts).await {
            Ok(session) => {
                let credential = Arc::clone(&session.credential);
                // The library keeps and renews what comes from a metadata service.
                *held = (!matches!(self.origin, Origin::Metadata { .. })).then_some(session);
                Ok(credential)
            }
            Err(failure) => match held.as_ref().filter(|session| left(session) > TimeDelta::zero()) {
                Some(session) => {
                    tracing::warn!(until = ?session.until, "{}; the credentials of before still hold", failure.why);
                    Ok(Arc::clone(&session.credential))
                }
                None => Err(failure.report()),
            },
        }
    }
}

async fn obtain(origin: &Origin, sts: &Sts) -> Result<Session, Failure> {
    match origin {
        Origin::Keys(credential) => Ok(Session { credential: Arc::clone(credential), until: None }),
        Origin::Process(command) => run(command.clone()).await,
        Origin::Role { role, base } => {
            let base = Box::pin(obtain(base, sts)).await?;
            sts.assume(role, &base.credential).await
        }
        Origin::WebIdentity { role, token_file } => sts.assume_with_token(role, token_file).await,
        Origin::Metadata { provider, asked } => match provider.get_credential().await {
            Ok(credential) => Ok(Session { credential, until: None }),
            Err(error) => Err(Failure::passing(format!("ask {asked} for credentials: {error}"))),
        },
    }
}

/// What a `credential_process` prints.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Printed {
    access_key_id: String,
    secret_access_key: String,
    session_token: Option<String>,
    expiration: Option<DateTime<Utc>>,
}

async fn run(command: String) -> Result<Session, Failure> {
    let doing = format!("run the credential_process `{}`", command.split_whitespace().next().unwrap_or_default());
    let ran = tokio::task::spawn_blocking(move || std::process::Command::new("sh").args(["-c", &command]).output());
    let output = ran.await.map_err(std::io::Error::other).and_then(|output| output);
    let output = output.map_err(|error| Failure::lasting(format!("{doing}: {error}")))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr[..output.stderr.len().min(300)]).into_owned();
        return Err(Failure::passing(format!("{doing}: {}: {}", output.status, said.trim())));
    }
    // What it printed is a secret: the error of the parser does not repeat it.
    let printed: Printed = serde_json::from_slice(&output.stdout).map_err(|error| {
        Failure::lasting(format!("{doing}: its output is not what the AWS tools expect ({:?} error)", error.classify()))
    })?;
    let credential = AwsCredential {
        key_id: printed.access_key_id,
        secret_key: printed.secret_access_key,
        token: printed.session_token,
    };
    Ok(Session { credential: Arc::new(credential), until: printed.expiration })
}
