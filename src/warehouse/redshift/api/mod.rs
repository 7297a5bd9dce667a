//! The other way to a cluster, for whom no network reaches it: the Redshift Data API.
//!
//! | file | what it owns |
//! |---|---|
//! | `session.rs` | a session: one statement at a time, waited for, given up, cancelled |
//! | `calls.rs` | signed requests, asked again when it is worth it |
//! | `answers.rs` | what the API says: states of statements, rows |
//! | `refusals.rs` | what its refusals mean, which have no SQLSTATE |
//!
//! Each statement is an `ExecuteStatement` in a session that the API keeps (`SessionId`), waited for by long polling. That a
//! transaction goes over several calls of a session is promised on no page; AWS' own tools rely on it
//! (<https://github.com/awslabs/mcp/pull/4055>). So every process has it shown to it before it loads anything.
//!
//! Nobody can close a session: it ends by itself when it has not been used for so long. One that was left in the middle of a
//! transaction would hold its locks until then, so whoever takes the next session ends it first.

mod answers;
mod calls;
mod refusals;
mod session;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};

use self::calls::Calls;
pub(super) use self::session::Session;
use crate::config::{RedshiftAuth, RedshiftWarehouse};
use crate::error::{Error, ErrorKind, Result};
use crate::net::aws::{self, Environment, Wanted};

/// How long a statement may be, in bytes, whichever thousand is meant by 100 KB:
/// <https://docs.aws.amazon.com/redshift/latest/mgmt/data-api.html#data-api-calling-considerations>.
pub(super) const STATEMENT_BYTES: usize = 100_000;
/// How long the API keeps a session that nobody uses: a load each minute finds it again, and whoever comes after a loader
/// that was killed does not wait for long.
const KEPT: Duration = Duration::from_secs(120);

/// A cluster or workgroup, by way of the API.
pub(super) struct DataApi {
    calls: Calls,
    /// What the first statement of a session says of where it goes.
    target: Value,
    name: String,
    limit: Duration,
    query_group: Option<String>,
    forsaken: Mutex<Vec<Forsaken>>,
}

/// A session that was left in the middle of something.
struct Forsaken {
    session: String,
    /// A statement may still run.
    busy: bool,
    /// Its identifier, if it is known.
    running: Option<String>,
}

impl DataApi {
    /// No request.
    pub fn new(config: &RedshiftWarehouse) -> Result<Self> {
        let database = config.url.split_once(":///").map(|(_, database)| database).filter(|name| !name.is_empty());
        let (Some(auth), Some(database)) = (config.auth.as_deref(), database) else {
            let what = "the Data API must be told the database, and which cluster or workgroup is meant";
            return Err(Error::new(ErrorKind::Config, what)
                .help("`url: \"redshift:///database\"` and `auth: { cluster: … }` or `auth: { workgroup: … }`"));
        };
        let (target, of) = target(auth, database)?;
        let keys = auth.access_key_id.clone().zip(auth.secret_access_key.clone());
        let wanted = Wanted { keys, profile: auth.profile.clone(), region: auth.region.clone() };
        let doing = "find credentials for the Redshift Data API";
        let account = aws::account(&wanted, &Environment::of_process()).map_err(|error| error.doing(doing))?;
        tracing::debug!(credentials = account.origin, "the Redshift warehouse is reached through the Data API");
        let calls = Calls::new(&account, auth.endpoint.as_deref())?;
        Ok(Self {
            name: format!("{of}, database {database}, through the Data API at {}", calls.endpoint()),
            calls,
            target,
            limit: config.statement_timeout.0,
            query_group: config.query_group.clone(),
            forsaken: Mutex::default(),
        })
    }

    /// Where statements go, for people.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether what is asked is encrypted on its way.
    pub fn is_secure(&self) -> bool {
        self.calls.endpoint().starts_with("https://")
    }

    fn forsaken(&self) -> MutexGuard<'_, Vec<Forsaken>> {
        self.forsaken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends what was left in the middle. What cannot be ended ends by itself.
    pub async fn end_forsaken(&self) {
        let forsaken = std::mem::take(&mut *self.forsaken());
        for Forsaken { session, busy, running } in forsaken {
            if let Some(running) = &running {
                self.calls.cancel(running).await;
            }
            if let Err(why) = self.calls.roll_back(&session, busy).await {
                tracing::warn!("undo what a session of the Data API was left with: {why}; its locks end with it");
            }
        }
    }
}

fn target(auth: &RedshiftAuth, database: &str) -> Result<(Value, String)> {
    let mut target = json!({"Database": database});
    let of = match (&auth.cluster, &auth.workgroup) {
        (Some(cluster), None) => {
            target["ClusterIdentifier"] = cluster.as_str().into();
            format!("cluster {cluster}")
        }
        (None, Some(workgroup)) => {
            target["WorkgroupName"] = workgroup.as_str().into();
            format!("workgroup {workgroup}")
        }
        _ => {
            let what = "warehouse.auth must name either a cluster or a workgroup";
            return Err(Error::new(ErrorKind::Config, what).help("`auth: { cluster: … }` or `auth: { workgroup: … }`"));
        }
    };
    for (name, value) in [("DbUser", &auth.database_user), ("SecretArn", &auth.secret_arn)] {
        if let Some(value) = value {
            target[name] = value.as_str().into();
        }
    }
    Ok((target, of))
}

/// The actions that the loader must be allowed, each group of them on its resource; `own`: only on what it has begun itself.
/// <https://docs.aws.amazon.com/service-authorization/latest/reference/list_amazonredshiftdataapi.html>
pub(super) fn permissions(auth: &RedshiftAuth, database: &str) -> Vec<Permission> {
    let region = auth.region.as_deref().unwrap_or("*");
    let arn = |service: &str, rest: &str| {
        format!("arn:{}:{service}:{region}:*:{rest}", crate::net::arn::partition(Some(region)))
    };
    let warehouse = match (&auth.cluster, &auth.workgroup) {
        (Some(cluster), _) => arn("redshift", &format!("cluster:{cluster}")),
        // The API names the workgroup, the policy its id, which is another one.
        (None, _) => arn("redshift-serverless", "workgroup/*"),
    };
    let of = |actions: &[&'static str], resources: Vec<String>| Permission {
        actions: actions.to_vec(),
        resources,
        own: false,
    };
    let own = ["redshift-data:DescribeStatement", "redshift-data:GetStatementResult", "redshift-data:CancelStatement"];
    let login = match (&auth.secret_arn, &auth.database_user, &auth.cluster) {
        (Some(secret), ..) => of(&["secretsmanager:GetSecretValue"], vec![secret.clone()]),
        (None, Some(user), Some(cluster)) => of(
            &["redshift:GetClusterCredentials"],
            vec![
                arn("redshift", &format!("dbuser:{cluster}/{user}")),
                arn("redshift", &format!("dbname:{cluster}/{database}")),
            ],
        ),
        (None, None, Some(cluster)) => of(
            &["redshift:GetClusterCredentialsWithIAM"],
            vec![arn("redshift", &format!("dbname:{cluster}/{database}"))],
        ),
        (None, _, None) => of(&["redshift-serverless:GetCredentials"], vec![warehouse.clone()]),
    };
    vec![
        of(&["redshift-data:ExecuteStatement"], vec![warehouse]),
        Permission { actions: own.to_vec(), resources: vec!["*".to_owned()], own: true },
        login,
    ]
}

/// What is allowed, and on what.
pub(super) struct Permission {
    pub actions: Vec<&'static str>,
    pub resources: Vec<String>,
    pub own: bool,
}
