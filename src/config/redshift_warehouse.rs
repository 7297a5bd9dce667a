//! The settings of a Redshift warehouse.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::hidden;
use super::rules::{Draft, Findings, MAX_NAME_BYTES, positive};
use super::units::{Bytes, Span};

/// The view over how fresh all tables are.
const FRESHNESS: &str = "freshness";
/// Smaller files cost more requests than they save time.
const LEAST_FILE_BYTES: u64 = 1 << 20;

/// Amazon Redshift, provisioned or serverless. Rows are staged as Parquet in the lake, which must be on S3, in the
/// cluster's region.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedshiftWarehouse {
    /// `redshift://user:password@host:5439/database`, without the user and the password where there is `auth`. The server must prove who it is (TLS) unless the URL ends in
    /// `?sslmode=disable`. Through the Data API: `redshift:///database`.
    #[serde(serialize_with = "hidden::url")]
    pub url: String,
    /// The schema of the tables; made when it is missing.
    #[serde(default = "public")]
    pub schema: String,
    /// The schema of the views for people and their tools; made when it is missing. Empty: there are no views.
    #[serde(default = "bi")]
    pub views: String,
    /// The role that COPY reads the lake with: its ARN (several in a chain: comma separated), or `default`.
    pub iam_role: String,
    /// A file with certificates (PEM) of the authority that vouches for the server, in addition to the public ones.
    #[serde(default)]
    pub root_certificate: Option<String>,
    /// AWS lends the login, to whoever this process is: then the URL has neither user nor password.
    #[serde(default)]
    pub auth: Option<Box<RedshiftAuth>>,
    /// How statements get to the cluster.
    #[serde(default)]
    pub transport: RedshiftTransport,
    /// A statement that takes longer is given up and tried again: a COPY of a large backlog takes minutes.
    #[serde(default = "half_an_hour")]
    pub statement_timeout: Span,
    /// How much of a table's changes is staged in one file, as it lies in memory (as Parquet it is a fraction of that): one
    /// file is read by one slice of the cluster, so more go into several of about the same size.
    #[serde(default = "staged_file")]
    pub file_bytes: Bytes,
    /// The query group of every session (`SET query_group TO …`), by which workload management chooses their queue.
    #[serde(default)]
    pub query_group: Option<String>,
}

/// How statements get to a cluster.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RedshiftTransport {
    /// Over connections to the host of the URL.
    #[default]
    Connection,
    /// Through the Redshift Data API, for whom no network reaches the cluster: requests to
    /// `redshift-data.<region>.amazonaws.com`, signed by who `auth` says. No statement is longer than 100 KB then, no row that
    /// is read back longer than 64 KB.
    DataApi,
}

/// Which cluster or workgroup a login is asked for, and by whom.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RedshiftAuth {
    /// A provisioned cluster's identifier (`GetClusterCredentialsWithIAM`).
    pub cluster: Option<String>,
    /// A serverless workgroup's name (`GetCredentials`).
    pub workgroup: Option<String>,
    /// Its region, where the host does not name it.
    pub region: Option<String>,
    /// Access key. When absent: the environment's keys, the profile, a web identity, the container's or the instance's
    /// role, whatever is found first.
    #[serde(serialize_with = "hidden::optional")]
    pub access_key_id: Option<String>,
    /// Secret key.
    #[serde(serialize_with = "hidden::optional")]
    pub secret_access_key: Option<String>,
    /// A profile of `~/.aws/config` and `~/.aws/credentials`, instead of what the environment says.
    pub profile: Option<String>,
    /// Another endpoint of the API than the region's: of the one that lends logins, or of the Data API.
    pub endpoint: Option<String>,
    /// Data API only: the cluster's user, instead of the one that stands for who this process is
    /// (`redshift:GetClusterCredentials`).
    pub database_user: Option<String>,
    /// Data API only: the ARN of the secret (Secrets Manager) that holds the user and the password.
    pub secret_arn: Option<String>,
}

fn half_an_hour() -> Span {
    Span::seconds(1800)
}

fn staged_file() -> Bytes {
    Bytes(32 << 20)
}

fn bi() -> String {
    "bi".into()
}

fn public() -> String {
    "public".into()
}

/// What the schema cannot say.
pub(super) fn rules(draft: &Draft, redshift: &RedshiftWarehouse, found: &mut Findings<'_>) {
    if cfg!(not(feature = "redshift")) {
        let help = "build it with the feature `redshift`";
        found.value("warehouse.kind", "this program was built without Redshift", help);
    }
    if !["redshift://", "postgres://", "postgresql://"].iter().any(|scheme| redshift.url.starts_with(scheme)) {
        let help = "`redshift://user:password@host:5439/database`";
        found.value("warehouse.url", "this is not the URL of a Redshift database", help);
    }
    match redshift.transport {
        RedshiftTransport::Connection => login_rules(redshift, found),
        RedshiftTransport::DataApi => data_api_rules(redshift, found),
    }
    positive(found, "warehouse.statement_timeout", Some(redshift.statement_timeout.0.as_millis()));
    if redshift.file_bytes.0 < LEAST_FILE_BYTES {
        found.value(
            "warehouse.file_bytes",
            "files would be too small to be read quickly",
            "at least 1MiB; left out, 32MiB",
        );
    }
    if redshift.query_group.as_deref().is_some_and(|group| group.trim().is_empty() || group.len() > MAX_NAME_BYTES) {
        found.value("warehouse.query_group", "the query group is empty or too long", "1 to 63 bytes");
    }
    if redshift.schema.is_empty() || redshift.schema.len() > MAX_NAME_BYTES {
        found.value("warehouse.schema", "the schema's name is empty or too long", "1 to 63 bytes");
    }
    let arns = redshift.iam_role.split(',').all(|arn| arn.starts_with("arn:") && arn.contains(":role/"));
    if !redshift.views.is_empty() && draft.tables.contains_key(FRESHNESS) {
        let help = "give the table another name, or say `views: \"\"` in the warehouse";
        let what =
            format!("its view would stand in the place of {}.{FRESHNESS}, which is over all tables", redshift.views);
        found.key(&format!("tables.{FRESHNESS}"), what, help);
    }
    if redshift.views.eq_ignore_ascii_case(&redshift.schema) {
        let help = "another schema: a view has the name of its table";
        found.value("warehouse.views", "the views would stand in the schema of the tables", help);
    }
    if redshift.iam_role != "default" && !arns {
        let help = "`arn:aws:iam::<account>:role/<name>`, or `default` for the cluster's default role";
        found.value("warehouse.iam_role", "this is not the ARN of a role", help);
    }
    if draft.lake.as_ref().is_some_and(|lake| !lake.url.starts_with("s3://")) {
        let help = "`s3://bucket/prefix`, in the region of the cluster";
        found.value("lake.url", "Redshift loads from S3, so the lake must be there", help);
    }
}

fn login_rules(redshift: &RedshiftWarehouse, found: &mut Findings<'_>) {
    let authority = redshift.url.split_once("://").map_or("", |(_, rest)| rest);
    let names_user = authority.split(['/', '?']).next().is_some_and(|authority| authority.contains('@'));
    let Some(auth) = &redshift.auth else {
        if !names_user {
            let help =
                "`redshift://user:password@host:5439/database`, or `auth: { cluster: … }`, `auth: { workgroup: … }`";
            found.value("warehouse.url", "the URL names no user, and nobody lends a login", help);
        }
        return;
    };
    if names_user {
        let help = "write `redshift://host:5439/database`: AWS says who the user is";
        found.value("warehouse.url", "the URL names a user although AWS lends the login", help);
    }
    for (name, value) in [("database_user", &auth.database_user), ("secret_arn", &auth.secret_arn)] {
        if value.is_some() {
            let what = format!("`{name}` is for the Data API alone");
            found.key(&format!("warehouse.auth.{name}"), what, "leave it out, or say `transport: data_api`");
        }
    }
    identity_rules(auth, found);
}

/// What makes no sense where nobody connects.
fn data_api_rules(redshift: &RedshiftWarehouse, found: &mut Findings<'_>) {
    let database = redshift.url.split_once(":///").map_or("", |(_, database)| database);
    if database.is_empty() || database.contains(['/', '?', '@']) {
        let what = "the Data API takes neither a host nor a user nor parameters from the URL, only the database";
        found.value("warehouse.url", what, "`redshift:///database`; `auth` names the cluster or the workgroup");
    }
    if redshift.root_certificate.is_some() {
        let what = "nobody connects to the cluster, so there is no certificate of its to vouch for";
        found.key("warehouse.root_certificate", what, "leave it out");
    }
    let Some(auth) = &redshift.auth else {
        let help = "`auth: { cluster: … }` for a provisioned cluster, `auth: { workgroup: … }` for serverless";
        found.value("warehouse.transport", "the Data API must be told which cluster or workgroup is meant", help);
        return;
    };
    if auth.database_user.is_some() && auth.secret_arn.is_some() {
        let what = "both a user and a secret that names one are given";
        found.key("warehouse.auth.database_user", what, "leave one of them out");
    }
    if auth.database_user.is_some() && auth.workgroup.is_some() {
        let what = "a workgroup's user follows from who this process is, or from a secret";
        found.key("warehouse.auth.database_user", what, "leave it out, or give `secret_arn`");
    }
    if auth.secret_arn.as_ref().is_some_and(|arn| !arn.starts_with("arn:") || !arn.contains(":secretsmanager:")) {
        let help = "`arn:aws:secretsmanager:<region>:<account>:secret:<name>`";
        found.value("warehouse.auth.secret_arn", "this is not the ARN of a secret", help);
    }
    identity_rules(auth, found);
}

/// Who asks, for what.
fn identity_rules(auth: &RedshiftAuth, found: &mut Findings<'_>) {
    if auth.cluster.is_some() == auth.workgroup.is_some() {
        let help = "`cluster:` for a provisioned cluster, `workgroup:` for serverless";
        found.key("warehouse.auth", "either a cluster or a workgroup must be named", help);
    }
    if auth.access_key_id.is_some() != auth.secret_access_key.is_some() {
        let help = "give both, or none to use the environment's credentials";
        found.key("warehouse.auth", "`access_key_id` and `secret_access_key` belong together", help);
    }
    if auth.profile.is_some() && auth.access_key_id.is_some() {
        found.key("warehouse.auth.profile", "both a profile and keys are given", "leave one of them out");
    }
}
