//! Who we are to the cluster: the URL's user and password, or a login that AWS lends for a while.

use chrono::{DateTime, TimeDelta, Utc};
use tokio::sync::Mutex;

use super::failure::counted;
use super::wire::Place;
use crate::config::{RedshiftAuth, RedshiftWarehouse};
use crate::error::{Error, ErrorKind, Result};
use crate::net::arn;
use crate::net::aws::{self, Api, Environment, Wanted, element, percent};

/// How long a login is asked for: the most that AWS lends one.
const ASKED_SECONDS: u64 = 3600;
/// A login that ends sooner is not used any more.
const SPARE: TimeDelta = TimeDelta::minutes(5);

/// A user and a password.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Login {
    pub user: String,
    pub password: Vec<u8>,
    /// `None`: for ever.
    until: Option<DateTime<Utc>>,
}

/// Where logins come from.
pub(super) struct Credentials {
    /// `None`: they stand in the URL.
    lender: Option<Lender>,
    database: String,
    held: Mutex<Option<Login>>,
}

/// An API that lends logins.
struct Lender {
    api: Api,
    to: Borrower,
}

/// What the login is for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Borrower {
    Cluster(String),
    Workgroup(String),
}

impl Credentials {
    pub fn new(config: &RedshiftWarehouse, place: &Place) -> Result<Self> {
        let (lender, held) = match (&config.auth, &place.user, &place.password) {
            (Some(auth), ..) => (Some(Lender::new(auth, &place.host)?), None),
            (None, Some(user), Some(password)) => {
                (None, Some(Login { user: user.clone(), password: password.clone(), until: None }))
            }
            (None, ..) => {
                let what = "the URL of the Redshift warehouse lacks the user or the password";
                return Err(Error::new(ErrorKind::Config, what).help(
                    "write it as redshift://user:password@host:5439/database, or let AWS lend a login: \
                     `auth: { cluster: … }` or `auth: { workgroup: … }`",
                ));
            }
        };
        Ok(Self { lender, database: place.database.clone(), held: Mutex::new(held) })
    }

    /// A login that holds long enough to be used.
    pub async fn login(&self) -> Result<Login> {
        let mut held = self.held.lock().await;
        let holds = |login: &&Login| login.until.is_none_or(|until| until > Utc::now() + SPARE);
        if let Some(login) = held.as_ref().filter(holds) {
            return Ok(login.clone());
        }
        let Some(lender) = &self.lender else {
            return Err(Error::new(ErrorKind::Internal, "a login of the URL does not end"));
        };
        let login = lender.ask(&self.database).await?;
        *held = Some(login.clone());
        Ok(login)
    }

    /// The server refused this login: another one, where there can be one.
    pub async fn instead_of(&self, refused: &Login) -> Result<Option<Login>> {
        if self.lender.is_none() {
            return Ok(None);
        }
        counted("credentials");
        {
            let mut held = self.held.lock().await;
            // Another session may have asked for one in the meantime.
            if held.as_ref() == Some(refused) {
                *held = None;
            }
        }
        self.login().await.map(Some)
    }
}

impl Lender {
    fn new(auth: &RedshiftAuth, host: &str) -> Result<Self> {
        let to = match (&auth.cluster, &auth.workgroup) {
            (Some(cluster), None) => Borrower::Cluster(cluster.clone()),
            (None, Some(workgroup)) => Borrower::Workgroup(workgroup.clone()),
            _ => {
                let what = "warehouse.auth must name either a cluster or a workgroup";
                return Err(
                    Error::new(ErrorKind::Config, what).help("`auth: { cluster: … }` or `auth: { workgroup: … }`")
                );
            }
        };
        let keys = auth.access_key_id.clone().zip(auth.secret_access_key.clone());
        let region = auth.region.clone().or_else(|| region_of(host).map(str::to_owned));
        let wanted = Wanted { keys, profile: auth.profile.clone(), region };
        let doing = "find credentials for the login of the Redshift warehouse";
        let account = aws::account(&wanted, &Environment::of_process()).map_err(|error| error.doing(doing))?;
        tracing::debug!(credentials = account.origin, "AWS lends the logins of the Redshift warehouse");
        let service = match to {
            Borrower::Cluster(_) => "redshift",
            Borrower::Workgroup(_) => "redshift-serverless",
        };
        Ok(Self { api: Api::new(service, &account, auth.endpoint.as_deref())?, to })
    }

    async fn ask(&self, database: &str) -> Result<Login> {
        let answer = match &self.to {
            Borrower::Cluster(cluster) => {
                let form = format!(
                    "Action=GetClusterCredentialsWithIAM&Version=2012-12-01&ClusterIdentifier={}&DbName={}\
                     &DurationSeconds={ASKED_SECONDS}",
                    percent(cluster),
                    percent(database)
                );
                let kind = [("content-type", "application/x-www-form-urlencoded; charset=utf-8")];
                self.api.post(&kind, form).await
            }
            Borrower::Workgroup(name) => {
                let body = serde_json::json!(
                    {"workgroupName": name, "dbName": database, "durationSeconds": ASKED_SECONDS});
                let headers = [
                    ("content-type", "application/x-amz-json-1.1"),
                    ("x-amz-target", "RedshiftServerless.GetCredentials"),
                ];
                self.api.post(&headers, body.to_string()).await
            }
        };
        let away = |why: String| {
            counted("credentials");
            Error::new(ErrorKind::WarehouseUnavailable, format!("{}: {why}", self.doing()))
        };
        let (status, body) = answer.map_err(away)?;
        let text = String::from_utf8_lossy(&body);
        if !(200..300).contains(&status) {
            return Err(self.refused(status, &text, database));
        }
        let login = match self.to {
            Borrower::Cluster(_) => from_xml(&text),
            Borrower::Workgroup(_) => from_json(&text),
        };
        // The answer holds a secret: it is never shown.
        login.ok_or_else(|| away("the answer holds no login".into()))
    }

    fn doing(&self) -> String {
        let of = match &self.to {
            Borrower::Cluster(name) => format!("cluster {name}"),
            Borrower::Workgroup(name) => format!("workgroup {name}"),
        };
        format!("ask {} for a login of {of}", self.api.endpoint())
    }

    fn refused(&self, status: u16, body: &str, database: &str) -> Error {
        let (code, message) = match self.to {
            Borrower::Cluster(_) => (element(body, "Code").map(str::to_owned), element(body, "Message").map(unescaped)),
            Borrower::Workgroup(_) => {
                let answer: serde_json::Value = serde_json::from_str(body).unwrap_or_default();
                let text = |names: [&str; 2]| names.iter().find_map(|name| answer[*name].as_str()).map(str::to_owned);
                let code = text(["__type", "code"]);
                (code.and_then(|code| code.rsplit('#').next().map(str::to_owned)), text(["message", "Message"]))
            }
        };
        let (code, message) = (code.unwrap_or_default(), message.unwrap_or_default());
        let what = format!("{}: {status} {code}: {message}", self.doing());
        let passing = ["Throttl", "TooManyRequests", "ExpiredToken", "InternalFailure", "ServiceUnavailable"];
        if status >= 500 || status == 429 || passing.iter().any(|word| code.contains(word)) {
            counted("credentials");
            return Error::new(ErrorKind::WarehouseUnavailable, what);
        }
        let help = if code.starts_with("AccessDenied") || code == "UnauthorizedOperation" {
            let (action, resource) = self.permission(database);
            format!("the loader's role must be allowed {action} on {resource}: `dataflow plan` prints the policy")
        } else if code.contains("NotFound") {
            "correct the name in warehouse.auth, its region, or the database of the URL".to_owned()
        } else {
            "the loader's AWS credentials, or what warehouse.auth says, are not what the service wants".to_owned()
        };
        Error::new(ErrorKind::WarehouseRefused, what).help(help)
    }

    fn permission(&self, database: &str) -> (&'static str, String) {
        permission_of(&self.to, self.api.region(), database)
    }
}

fn permission_of(to: &Borrower, region: &str, database: &str) -> (&'static str, String) {
    let partition = arn::partition(Some(region));
    match to {
        Borrower::Cluster(name) => (
            "redshift:GetClusterCredentialsWithIAM",
            format!("arn:{partition}:redshift:{region}:*:dbname:{name}/{database}"),
        ),
        // The API names the workgroup, the policy its id, which is another one.
        Borrower::Workgroup(_) => (
            "redshift-serverless:GetCredentials",
            format!("arn:{partition}:redshift-serverless:{region}:*:workgroup/*"),
        ),
    }
}

/// The action that the loader must be allowed, and on what. `None`: logins stand in the URL.
pub(super) fn permission(auth: &RedshiftAuth, host: &str, database: &str) -> Option<(&'static str, String)> {
    let to = match (&auth.cluster, &auth.workgroup) {
        (Some(cluster), _) => Borrower::Cluster(cluster.clone()),
        (None, workgroup) => Borrower::Workgroup(workgroup.clone()?),
    };
    let region = auth.region.as_deref().or_else(|| region_of(host)).unwrap_or("*");
    Some(permission_of(&to, region, database))
}

/// The region that stands in the name of a cluster's or workgroup's host.
fn region_of(host: &str) -> Option<&str> {
    let labels: Vec<&str> = host.split('.').collect();
    let service = labels.iter().position(|label| ["redshift", "redshift-serverless"].contains(label))?;
    let amazon = labels.get(service + 1).is_some_and(|label| *label == "amazonaws");
    labels.get(service.checked_sub(1)?).copied().filter(|_| amazon)
}

/// XML's entities as what they stand for.
fn unescaped(text: &str) -> String {
    let plain = text.replace("&lt;", "<").replace("&gt;", ">").replace("&quot;", "\"").replace("&apos;", "'");
    plain.replace("&#39;", "'").replace("&amp;", "&")
}

fn from_json(body: &str) -> Option<Login> {
    let answer: serde_json::Value = serde_json::from_str(body).ok()?;
    let until = DateTime::from_timestamp_millis((answer["expiration"].as_f64()? * 1000.0) as i64)?;
    Some(Login {
        user: answer["dbUser"].as_str()?.to_owned(),
        password: answer["dbPassword"].as_str()?.as_bytes().to_vec(),
        until: Some(until),
    })
}

fn from_xml(body: &str) -> Option<Login> {
    let value = |name: &str| element(body, name).map(unescaped);
    Some(Login {
        user: value("DbUser")?,
        password: value("DbPassword")?.into_bytes(),
        until: Some(DateTime::parse_from_rfc3339(&value("Expiration")?).ok()?.to_utc()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_stands_in_the_host() {
        let cases = [
            ("acme.abc123xyz.eu-west-3.redshift.amazonaws.com", Some("eu-west-3")),
            ("wg.123456789012.us-east-1.redshift-serverless.amazonaws.com", Some("us-east-1")),
            ("acme.abc.cn-north-1.redshift.amazonaws.com.cn", Some("cn-north-1")),
            ("redshift.example.org", None),
            ("127.0.0.1", None),
        ];
        for (host, region) in cases {
            assert_eq!(region_of(host), region, "{host}");
        }
    }

    #[test]
    fn answers_are_read() {
        let xml = "<R><DbUser>IAMR:etl</DbUser><DbPassword>a&amp;lt;b&lt;</DbPassword>\
                   <Expiration>2026-11-26T01:00:00.000Z</Expiration></R>";
        let login = from_xml(xml).expect("a login");
        assert_eq!((login.user.as_str(), login.password.as_slice()), ("IAMR:etl", &b"a&lt;b<"[..]));
        let json = r#"{"dbUser":"IAM:x","dbPassword":"p","expiration":1.7641e9,"nextRefreshTime":1.7641e9}"#;
        assert_eq!(from_json(json).and_then(|login| login.until).map(|at| at.timestamp()), Some(1_764_100_000));
        assert!(from_json("{}").is_none() && from_xml("").is_none());
    }
}
