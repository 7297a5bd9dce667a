//! The Security Token Service: keys of a role, for an hour or so.

use std::path::PathBuf;

use axum::http::{Method, Request};
use chrono::{DateTime, Utc};
use object_store::ClientOptions;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::{HttpClient, HttpConnector, HttpRequest, ReqwestConnector};

use super::chain::Environment;
use super::percent;
use super::session::{Failure, Session};

/// Where roles are asked for.
#[derive(Debug, Clone)]
pub(super) struct Sts {
    endpoint: String,
    region: String,
    client: HttpClient,
}

/// A role to take on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Role {
    pub arn: String,
    pub session: String,
    pub external_id: Option<String>,
    pub duration_seconds: Option<String>,
}

impl Sts {
    /// The region's service, or the one that `AWS_ENDPOINT_URL_STS` names. No request.
    pub fn new(environment: &Environment, region: Option<&str>) -> object_store::Result<Self> {
        let region = region.unwrap_or("us-east-1").to_owned();
        let named = environment.get("AWS_ENDPOINT_URL_STS").map(|url| url.trim_end_matches('/').to_owned());
        let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let endpoint = named.unwrap_or_else(|| format!("https://sts.{region}.{domain}"));
        // Plain HTTP only where somebody wrote it down.
        let options = ClientOptions::new().with_allow_http(endpoint.starts_with("http://"));
        Ok(Self { client: ReqwestConnector::default().connect(&options)?, endpoint, region })
    }

    /// Takes on a role with other credentials.
    pub async fn assume(&self, role: &Role, base: &AwsCredential) -> Result<Session, Failure> {
        let mut form = form("AssumeRole", role);
        if let Some(id) = &role.external_id {
            form.push_str(&format!("&ExternalId={}", percent(id)));
        }
        let mut request = self.request(form)?;
        AwsAuthorizer::new(base, "sts", &self.region).authorize(&mut request, None);
        self.ask(role, request).await
    }

    /// Takes on a role with the token that the platform keeps in a file, and renews there.
    pub async fn assume_with_token(&self, role: &Role, file: &PathBuf) -> Result<Session, Failure> {
        let token = std::fs::read_to_string(file)
            .map_err(|error| Failure::passing(format!("read the web identity token {}: {error}", file.display())))?;
        let form = form("AssumeRoleWithWebIdentity", role) + "&WebIdentityToken=" + &percent(token.trim());
        self.ask(role, self.request(form)?).await
    }

    fn request(&self, form: String) -> Result<HttpRequest, Failure> {
        Request::builder()
            .method(Method::POST)
            .uri(format!("{}/", self.endpoint))
            .header("content-type", "application/x-www-form-urlencoded; charset=utf-8")
            .body(form.into())
            .map_err(|error| Failure::lasting(format!("{} is no URL: {error}", self.endpoint)))
    }

    async fn ask(&self, role: &Role, request: HttpRequest) -> Result<Session, Failure> {
        let doing = format!("take on role {} at {}", role.arn, self.endpoint);
        let passing = |error: &dyn std::fmt::Display| Failure::passing(format!("{doing}: {error}"));
        let answer = self.client.execute(request).await.map_err(|error| passing(&error))?;
        let status = answer.status();
        let body = answer.into_body().bytes().await.map_err(|error| passing(&error))?;
        let body = String::from_utf8_lossy(&body);
        if !status.is_success() {
            let (code, message) = (element(&body, "Code"), element(&body, "Message"));
            let why = format!("{doing}: {status} {} {}", code.unwrap_or_default(), message.unwrap_or_default());
            // A token may be replaced just now, and a throttled request comes through later.
            let passes = status.is_server_error() || matches!(code, Some("Throttling" | "ExpiredTokenException"));
            return Err(if passes { Failure::passing(why) } else { Failure::lasting(why) });
        }
        session(&body).ok_or_else(|| Failure::passing(format!("{doing}: the answer holds no credentials")))
    }
}

fn form(action: &str, role: &Role) -> String {
    let (arn, name) = (percent(&role.arn), percent(&role.session));
    let duration = role.duration_seconds.as_deref().map(|seconds| format!("&DurationSeconds={}", percent(seconds)));
    format!("Action={action}&Version=2011-06-15&RoleArn={arn}&RoleSessionName={name}{}", duration.unwrap_or_default())
}

fn session(body: &str) -> Option<Session> {
    let until = element(body, "Expiration")?.parse::<DateTime<Utc>>().ok()?;
    let credential = AwsCredential {
        key_id: element(body, "AccessKeyId")?.to_owned(),
        secret_key: element(body, "SecretAccessKey")?.to_owned(),
        token: Some(element(body, "SessionToken")?.to_owned()),
    };
    Some(Session { credential: credential.into(), until: Some(until) })
}

/// The text of an element, as it stands there: keys, times and codes need not be escaped.
pub fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    Some(rest.split_once(&format!("</{name}>"))?.0.trim())
}
