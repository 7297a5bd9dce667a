//! The first place that has credentials.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::RetryConfig;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Key, AwsCredential, AwsCredentialProvider};

use super::profile::{Profiles, Settings};
use super::session::{Origin, Renewed};
use super::sts::{Role, Sts};
use crate::error::{Error, ErrorKind, Result};

/// What the topology says about who we are.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    /// Access key and secret.
    pub keys: Option<(String, String)>,
    /// A profile of `~/.aws`.
    pub profile: Option<String>,
    /// The region.
    pub region: Option<String>,
}

/// Who we are.
#[derive(Debug, Clone)]
pub struct Account {
    /// Gives credentials that hold now.
    pub credentials: AwsCredentialProvider,
    /// The region that the topology, the environment or the profile names.
    pub region: Option<String>,
    /// Where the credentials come from, for people.
    pub origin: String,
}

/// The variables that decide. A value, so that a test needs none of the process's own.
#[derive(Clone, Default)]
pub struct Environment(BTreeMap<String, String>);

impl Environment {
    /// The process's own.
    pub fn of_process() -> Self {
        Self(
            std::env::vars_os()
                .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
                .collect(),
        )
    }

    /// A variable that is set and not empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

impl<const N: usize> From<[(&str, String); N]> for Environment {
    fn from(variables: [(&str, String); N]) -> Self {
        Self(variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
    }
}

impl std::fmt::Debug for Environment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Finds who we are. Reads the environment and the profiles; asks nobody.
pub fn account(wanted: &Wanted, environment: &Environment) -> Result<Account> {
    let profiles = Profiles::read(environment)?;
    let named = wanted.profile.as_deref().or(environment.get("AWS_PROFILE"));
    let settings = profiles.get(named.unwrap_or("default"));
    let region = wanted.region.as_deref().or(environment.get("AWS_REGION")).or(environment.get("AWS_DEFAULT_REGION"));
    let region = region.or(settings.and_then(|settings| settings.get("region")).map(String::as_str)).map(str::to_owned);
    let (origin, described) = origin(wanted, environment, &profiles, named)?;
    let sts = Sts::new(environment, region.as_deref()).map_err(|error| broken("prepare to ask for roles", error))?;
    let renewed = Renewed { origin, sts, held: tokio::sync::Mutex::new(None) };
    Ok(Account { credentials: Arc::new(renewed), region, origin: described })
}

fn origin(
    wanted: &Wanted,
    environment: &Environment,
    profiles: &Profiles,
    named: Option<&str>,
) -> Result<(Origin, String)> {
    if let Some((id, secret)) = &wanted.keys {
        return Ok((keys(id, secret, None), "keys in the topology".to_owned()));
    }
    if wanted.profile.is_none()
        && let Some(origin) = environment_keys(environment)
    {
        return Ok((origin, "keys in the environment".to_owned()));
    }
    let profile = named.unwrap_or("default");
    if let Some(origin) = profile_origin(profiles, profile, environment, &mut Vec::new())? {
        return Ok((origin, format!("profile {profile}")));
    }
    if named.is_some() {
        let what = format!("the AWS profile {profile} says nothing of credentials");
        return Err(Error::new(ErrorKind::Config, what).help(format!("profiles are: {}", profiles.names())));
    }
    if let (Some(file), Some(arn)) = (environment.get("AWS_WEB_IDENTITY_TOKEN_FILE"), environment.get("AWS_ROLE_ARN")) {
        let session = environment.get("AWS_ROLE_SESSION_NAME").unwrap_or(SESSION).to_owned();
        let role = Role { arn: arn.to_owned(), session, external_id: None, duration_seconds: None };
        return Ok((Origin::WebIdentity { role, token_file: PathBuf::from(file) }, format!("web identity for {arn}")));
    }
    if let Some(origin) = container(environment)? {
        return Ok((origin, "the container's role".to_owned()));
    }
    Ok((instance(environment)?, "the instance's role".to_owned()))
}

/// How we are called in the account's audit trail.
const SESSION: &str = "dataflow";

fn keys(id: &str, secret: &str, token: Option<&str>) -> Origin {
    let (key_id, secret_key) = (id.to_owned(), secret.to_owned());
    Origin::Keys(Arc::new(AwsCredential { key_id, secret_key, token: token.map(str::to_owned) }))
}

fn environment_keys(environment: &Environment) -> Option<Origin> {
    let (id, secret) = (environment.get("AWS_ACCESS_KEY_ID")?, environment.get("AWS_SECRET_ACCESS_KEY")?);
    Some(keys(id, secret, environment.get("AWS_SESSION_TOKEN")))
}

/// What a profile says of credentials. `above`: the profiles that led here.
fn profile_origin(
    profiles: &Profiles,
    name: &str,
    environment: &Environment,
    above: &mut Vec<String>,
) -> Result<Option<Origin>> {
    let Some(settings) = profiles.get(name) else { return Ok(None) };
    let get = |setting: &str| settings.get(setting).map(String::as_str);
    let own_keys = || Some(keys(get("aws_access_key_id")?, get("aws_secret_access_key")?, get("aws_session_token")));
    let circular = above.iter().any(|seen| seen == name);
    // A profile that takes on a role may name itself as the one that holds the keys.
    if get("role_arn").is_some() && !circular {
        above.push(name.to_owned());
        return assumed(profiles, name, settings, environment, above).map(Some);
    }
    if let Some(origin) = own_keys() {
        return Ok(Some(origin));
    }
    if circular {
        return Err(unusable(name, "takes on a role with itself, and has no keys"));
    }
    if let Some(command) = get("credential_process") {
        return Ok(Some(Origin::Process(command.to_owned())));
    }
    if get("sso_session").is_some() || get("sso_start_url").is_some() {
        return Err(unusable(name, "signs on through a browser").help(format!(
            "let the AWS command line do that: a profile with `credential_process = aws configure export-credentials \
             --profile {name} --format process`"
        )));
    }
    Ok(None)
}

/// A role that a profile takes on.
fn assumed(
    profiles: &Profiles,
    name: &str,
    settings: &Settings,
    environment: &Environment,
    above: &mut Vec<String>,
) -> Result<Origin> {
    let get = |setting: &str| settings.get(setting).cloned();
    let role = Role {
        arn: get("role_arn").unwrap_or_default(),
        session: get("role_session_name").unwrap_or_else(|| SESSION.to_owned()),
        external_id: get("external_id"),
        duration_seconds: get("duration_seconds"),
    };
    if let Some(file) = get("web_identity_token_file") {
        return Ok(Origin::WebIdentity { role, token_file: PathBuf::from(file) });
    }
    if get("mfa_serial").is_some() {
        return Err(unusable(name, "asks for a one-time code, which nobody types here"));
    }
    let base = match (get("source_profile"), get("credential_source").as_deref()) {
        (Some(source), _) => profile_origin(profiles, &source, environment, above)?.ok_or_else(|| {
            unusable(name, &format!("takes on a role with profile {source}, which has no credentials"))
        })?,
        (None, Some("Environment")) => environment_keys(environment)
            .ok_or_else(|| unusable(name, "takes on a role with keys of the environment, which has none"))?,
        (None, Some("EcsContainer")) => container(environment)?
            .ok_or_else(|| unusable(name, "takes on a role with the container's, and this is no container with one"))?,
        (None, Some("Ec2InstanceMetadata")) => instance(environment)?,
        _ => return Err(unusable(name, "has a role_arn, and neither source_profile nor credential_source")),
    };
    Ok(Origin::Role { role, base: Box::new(base) })
}

/// The role of an ECS task or an EKS pod.
fn container(environment: &Environment) -> Result<Option<Origin>> {
    let relative = environment.get("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    let full = environment.get("AWS_CONTAINER_CREDENTIALS_FULL_URI");
    let token = environment.get("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    let (settings, asked) = match (relative, full, token) {
        (Some(uri), ..) => (vec![(Key::ContainerCredentialsRelativeUri, uri)], "the container's metadata service"),
        (None, Some(uri), Some(file)) => {
            let settings = vec![(Key::ContainerCredentialsFullUri, uri), (Key::ContainerAuthorizationTokenFile, file)];
            (settings, "the pod's identity agent")
        }
        (None, Some(_), None) => {
            let what = "AWS_CONTAINER_CREDENTIALS_FULL_URI is set, and AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE is not";
            return Err(Error::new(ErrorKind::Config, what).help("name the file that holds the agent's token"));
        }
        (None, None, _) => return Ok(None),
    };
    metadata(settings, asked).map(Some)
}

/// The role of the machine.
fn instance(environment: &Environment) -> Result<Origin> {
    if environment.get("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        let what = "there are no AWS credentials: none in the topology, the environment, a profile or the container, and \
                    AWS_EC2_METADATA_DISABLED says that the instance is not to be asked";
        return Err(
            Error::new(ErrorKind::Config, what).help("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE")
        );
    }
    let endpoint = environment.get("AWS_EC2_METADATA_SERVICE_ENDPOINT").or(environment.get("AWS_METADATA_ENDPOINT"));
    let settings = endpoint.map(|endpoint| (Key::MetadataEndpoint, endpoint.trim_end_matches('/')));
    metadata(settings.into_iter().collect(), "the instance's metadata service (nothing else has any)")
}

/// The library's own client of metadata services.
fn metadata(settings: Vec<(Key, &str)>, asked: &'static str) -> Result<Origin> {
    // Whoever has no such service should hear of it soon; the process tries again anyway.
    let retry = RetryConfig { max_retries: 2, retry_timeout: Duration::from_secs(10), ..RetryConfig::default() };
    let mut builder = AmazonS3Builder::new().with_bucket_name("none").with_retry(retry);
    for (key, value) in settings {
        builder = builder.with_config(key, value);
    }
    let store = builder.build().map_err(|error| broken("prepare to ask for credentials", error))?;
    Ok(Origin::Metadata { provider: Arc::clone(store.credentials()), asked })
}

fn unusable(profile: &str, why: &str) -> Error {
    Error::new(ErrorKind::Config, format!("the AWS profile {profile} {why}"))
}

fn broken(doing: &str, error: object_store::Error) -> Error {
    Error::new(ErrorKind::Config, doing).because(error)
}
