//! Amazon's credentials: every place that they come from, against small services that speak like STS and the metadata
//! services, and a whole process that takes on a role.

use std::path::Path;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use chrono::{SecondsFormat, TimeDelta, Utc};
use dataflow::error::ErrorKind;
use dataflow::net::aws::{Account, Environment, Wanted, account};

use crate::support::process::Launch;
use crate::support::s3::{ROLE_ACCESS_KEY, ROLE_SECRET_KEY, S3Server};

/// STS and both metadata services, on one port.
#[derive(Clone, Default)]
struct Services {
    /// Forms that STS got, and how it was signed.
    asked: Arc<Mutex<Vec<(String, String)>>>,
    /// How long the next sessions hold, seconds; then an hour.
    holds: Arc<Mutex<Vec<i64>>>,
    refuses: Arc<Mutex<Option<(u16, &'static str)>>>,
}

impl Services {
    async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let role = "/latest/meta-data/iam/security-credentials/";
        let router = Router::new()
            .route("/", post(sts))
            .route("/latest/api/token", put(|| async { "metadata-token" }))
            .route(role, get(|headers: HeaderMap| async move { guarded(&headers, "the-role".into()) }))
            .route(&format!("{role}the-role"), get(|headers: HeaderMap| async move { guarded(&headers, as_json()) }))
            .route("/container", get(container))
            .with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        url
    }

    fn expiration(&self) -> String {
        let mut holds = self.holds.lock().unwrap();
        let seconds = if holds.is_empty() { 3600 } else { holds.remove(0) };
        (Utc::now() + TimeDelta::seconds(seconds)).to_rfc3339_opts(SecondsFormat::Secs, true)
    }
}

async fn sts(State(services): State<Services>, headers: HeaderMap, form: String) -> Response {
    let signed = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned()).unwrap_or_default();
    services.asked.lock().unwrap().push((form, signed));
    if let Some((status, code)) = *services.refuses.lock().unwrap() {
        let body =
            format!("<ErrorResponse><Error><Code>{code}</Code><Message>no, not you</Message></Error></ErrorResponse>");
        return (StatusCode::from_u16(status).unwrap(), body).into_response();
    }
    let until = services.expiration();
    format!(
        "<R><Credentials><AccessKeyId>{ROLE_ACCESS_KEY}</AccessKeyId><SecretAccessKey>{ROLE_SECRET_KEY}</SecretAccessKey>\
         <SessionToken>role-token</SessionToken><Expiration>{until}</Expiration></Credentials></R>"
    )
    .into_response()
}

fn as_json() -> String {
    let until = (Utc::now() + TimeDelta::hours(1)).to_rfc3339_opts(SecondsFormat::Secs, true);
    format!(
        r#"{{"Code":"Success","AccessKeyId":"{ROLE_ACCESS_KEY}","SecretAccessKey":"{ROLE_SECRET_KEY}","Token":"role-token",
        "Expiration":"{until}"}}"#
    )
}

fn guarded(headers: &HeaderMap, body: String) -> Response {
    match headers.get("x-aws-ec2-metadata-token").map(|token| token.to_str().unwrap()) {
        Some("metadata-token") => body.into_response(),
        _ => StatusCode::UNAUTHORIZED.into_response(),
    }
}

async fn container(headers: HeaderMap) -> Response {
    match headers.get("authorization").map(|token| token.to_str().unwrap()) {
        Some("pod-token") => as_json().into_response(),
        _ => StatusCode::UNAUTHORIZED.into_response(),
    }
}

fn home(folder: &Path, config: &str, credentials: &str) {
    std::fs::create_dir_all(folder.join(".aws")).unwrap();
    std::fs::write(folder.join(".aws/config"), config).unwrap();
    std::fs::write(folder.join(".aws/credentials"), credentials).unwrap();
}

async fn key(account: &Account) -> (String, Option<String>) {
    let credential = account.credentials.get_credential().await.unwrap();
    (credential.key_id.clone(), credential.token.clone())
}

fn text(path: &Path) -> String {
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_first_place_that_has_credentials_is_taken() {
    let folder = tempfile::tempdir().unwrap();
    let home_variable = ("HOME", text(folder.path()));
    let none = Wanted::default();
    let bare = account(&none, &Environment::from([home_variable.clone()])).unwrap();
    assert_eq!((bare.origin.as_str(), bare.region), ("the instance's role", None));

    let config = "# ours\n[default]\nregion = eu-west-3 ; Paris\ns3 =\n  max_concurrent_requests = 20\n\n[sso-session x]\n\
                  region = x\n[profile etl]\nregion=us-east-2\naws_access_key_id = AKIAETL\naws_secret_access_key=e\n";
    home(folder.path(), config, "[default]\nAWS_ACCESS_KEY_ID = AKIADEFAULT\naws_secret_access_key = a/b+c= # ours\n");
    let usual = account(&none, &Environment::from([home_variable.clone()])).unwrap();
    assert_eq!((usual.origin.as_str(), usual.region.as_deref()), ("profile default", Some("eu-west-3")));
    assert_eq!(key(&usual).await, ("AKIADEFAULT".to_owned(), None));

    let named = Environment::from([home_variable.clone(), ("AWS_PROFILE", "etl".into())]);
    let etl = account(&none, &named).unwrap();
    assert_eq!((key(&etl).await.0.as_str(), etl.region.as_deref()), ("AKIAETL", Some("us-east-2")));

    let keys = Environment::from([
        home_variable,
        ("AWS_ACCESS_KEY_ID", "AKIAENV".into()),
        ("AWS_SECRET_ACCESS_KEY", "s".into()),
        ("AWS_SESSION_TOKEN", "t".into()),
        ("AWS_REGION", "eu-central-1".into()),
    ]);
    let environment = account(&none, &keys).unwrap();
    assert_eq!(key(&environment).await, ("AKIAENV".to_owned(), Some("t".to_owned())));
    assert_eq!(environment.region.as_deref(), Some("eu-central-1"));
    // What the topology names goes before the environment.
    let profile = Wanted { profile: Some("etl".into()), ..Wanted::default() };
    assert_eq!(key(&account(&profile, &keys).unwrap()).await.0, "AKIAETL");
    let written = Wanted { keys: Some(("AKIATOPOLOGY".into(), "s".into())), ..Wanted::default() };
    assert_eq!(key(&account(&written, &keys).unwrap()).await.0, "AKIATOPOLOGY");
    assert!(!format!("{keys:?}").contains("AKIAENV"));
}

#[tokio::test]
async fn profiles_that_cannot_be_used_say_why() {
    let folder = tempfile::tempdir().unwrap();
    let config = "[profile a]\nrole_arn = arn:a\nsource_profile = b\n[profile b]\nrole_arn = arn:b\nsource_profile = a\n\
                  [profile sso]\nsso_session = corp\n[profile half]\nrole_arn = arn:h\n[profile mfa]\nrole_arn = arn:m\n\
                  mfa_serial = x\n[profile empty]\noutput = json\n";
    home(folder.path(), config, "");
    for (profile, expected) in [
        ("a", "takes on a role with itself"),
        ("sso", "export-credentials"),
        ("half", "neither source_profile nor credential_source"),
        ("mfa", "one-time code"),
        ("empty", "says nothing of credentials"),
        ("missing", "profiles are: a, b, empty"),
    ] {
        let wanted = Wanted { profile: Some(profile.into()), ..Wanted::default() };
        let error = account(&wanted, &Environment::from([("HOME", text(folder.path()))])).unwrap_err();
        assert_eq!(error.kind(), &ErrorKind::Config);
        assert!(error.to_string().contains(expected), "{profile}: {error}");
    }
    let off = Environment::from([("AWS_EC2_METADATA_DISABLED", "true".into())]);
    let error = account(&Wanted::default(), &off).unwrap_err().to_string();
    assert!(error.contains("there are no AWS credentials") && error.contains("AWS_PROFILE"), "{error}");
}

#[tokio::test]
async fn a_role_is_taken_on_with_another_profiles_keys_and_renewed_before_it_ends() {
    let services = Services::default();
    let url = services.start().await;
    let folder = tempfile::tempdir().unwrap();
    let config = "[profile etl]\nrole_arn = arn:aws:iam::1:role/etl\nsource_profile = base\nexternal_id = a b\n";
    home(folder.path(), config, "[base]\naws_access_key_id = AKIABASE\naws_secret_access_key = s\n");
    let environment = Environment::from([
        ("HOME", text(folder.path())),
        ("AWS_PROFILE", "etl".into()),
        ("AWS_ENDPOINT_URL_STS", url),
        ("AWS_REGION", "eu-west-3".into()),
    ]);
    // The first session ends within the five minutes that it is renewed ahead.
    services.holds.lock().unwrap().push(60);
    let account = account(&Wanted::default(), &environment).unwrap();
    for _ in 0..4 {
        assert_eq!(key(&account).await, (ROLE_ACCESS_KEY.to_owned(), Some("role-token".to_owned())));
    }
    let asked = services.asked.lock().unwrap().clone();
    assert_eq!(asked.len(), 2, "{asked:?}");
    let (form, signed) = &asked[0];
    assert_eq!(
        form,
        "Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fetl&RoleSessionName=dataflow\
         &ExternalId=a%20b"
    );
    assert!(signed.contains("Credential=AKIABASE/") && signed.contains("/eu-west-3/sts/aws4_request"), "{signed}");
}

#[tokio::test]
async fn a_session_that_cannot_be_renewed_is_used_until_it_ends_and_a_refusal_lasts() {
    let services = Services::default();
    let url = services.start().await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "web-token\n").unwrap();
    let environment = Environment::from([
        ("HOME", text(folder.path())),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", text(&token)),
        ("AWS_ROLE_ARN", "arn:aws:iam::1:role/pod".into()),
        ("AWS_ENDPOINT_URL_STS", url),
    ]);
    services.holds.lock().unwrap().push(120);
    let pod = account(&Wanted::default(), &environment).unwrap();
    assert_eq!(pod.origin, "web identity for arn:aws:iam::1:role/pod");
    key(&pod).await;
    *services.refuses.lock().unwrap() = Some((503, "Unavailable"));
    assert_eq!(key(&pod).await.0, ROLE_ACCESS_KEY);
    let (form, signed) = services.asked.lock().unwrap()[0].clone();
    assert!(
        form.contains("Action=AssumeRoleWithWebIdentity") && form.ends_with("&WebIdentityToken=web-token"),
        "{form}"
    );
    assert_eq!(signed, "");

    let fresh = account(&Wanted::default(), &environment).unwrap();
    let passing = fresh.credentials.get_credential().await.unwrap_err();
    assert!(matches!(passing, object_store::Error::Generic { .. }), "{passing:?}");
    *services.refuses.lock().unwrap() = Some((403, "AccessDenied"));
    let lasting = fresh.credentials.get_credential().await.unwrap_err();
    assert!(matches!(lasting, object_store::Error::Unauthenticated { .. }), "{lasting:?}");
    let said = format!("{lasting:?}");
    assert!(said.contains("AccessDenied") && said.contains("no, not you") && !said.contains("web-token"), "{said}");
    std::fs::remove_file(&token).unwrap();
    let gone = fresh.credentials.get_credential().await.unwrap_err().to_string();
    assert!(gone.contains("web identity token"), "{gone}");
}

#[tokio::test]
async fn the_container_the_instance_and_a_program_are_asked() {
    let services = Services::default();
    let url = services.start().await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "pod-token").unwrap();
    let home_variable = ("HOME", text(folder.path()));
    let pod = Environment::from([
        home_variable.clone(),
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{url}/container")),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", text(&token)),
    ]);
    let instance = Environment::from([home_variable.clone(), ("AWS_EC2_METADATA_SERVICE_ENDPOINT", url)]);
    for (environment, origin) in [(pod, "the container's role"), (instance, "the instance's role")] {
        let found = account(&Wanted::default(), &environment).unwrap();
        assert_eq!(found.origin, origin);
        assert_eq!(key(&found).await, (ROLE_ACCESS_KEY.to_owned(), Some("role-token".to_owned())));
    }

    let prints = r#"echo '{"Version":1,"AccessKeyId":"AKIAPRINTED","SecretAccessKey":"s","SessionToken":"t"}'"#;
    home(
        folder.path(),
        &format!("[profile p]\ncredential_process = {prints}\n[profile q]\ncredential_process = exit 3\n"),
        "",
    );
    let of = |profile: &str| Wanted { profile: Some(profile.into()), ..Wanted::default() };
    let environment = Environment::from([home_variable]);
    assert_eq!(key(&account(&of("p"), &environment).unwrap()).await, ("AKIAPRINTED".into(), Some("t".into())));
    let failed = account(&of("q"), &environment).unwrap().credentials.get_credential().await.unwrap_err();
    assert!(failed.to_string().contains("exit status: 3"), "{failed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_writes_its_lake_with_the_role_of_its_pod() {
    let (server, services) = (S3Server::start().await, Services::default());
    let sts = services.start().await;
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "web-token").unwrap();
    let event = r#"{"op":"c","before":null,"after":{"id":1},"source":{"ts_ms":1,"lsn":1,"db":"d","schema":"public","table":"t"}}"#;
    std::fs::write(folder.path().join("events.jsonl"), format!("{event}\n")).unwrap();
    let topology = format!(
        "version: 1\nname: sales\nsources:\n  shop: {{ kind: file, path: events.jsonl, stream: shop.public.t }}\n\
         tables:\n  t: {{ from: shop.public.t, key: [id] }}\n\
         lake: {{ url: \"s3://lake/sales\", region: eu-west-3, endpoint: \"{}\" }}\n\
         warehouse: {{ kind: sqlite, path: w.db }}\n",
        server.endpoint
    );
    let launch = Launch::new(folder.path(), &topology)
        .arg("--until-caught-up")
        .env("HOME", text(folder.path()))
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", text(&token))
        .env("AWS_ROLE_ARN", "arn:aws:iam::1:role/pod")
        .env("AWS_ENDPOINT_URL_STS", sts)
        // What the machine of the tests may have.
        .env("AWS_ACCESS_KEY_ID", "")
        .env("AWS_PROFILE", "");
    let mut process = launch.run();
    assert!(process.exit(crate::support::process::LIMIT).await.success(), "{}", process.log());
    assert!(server.folder().join("sales/_log/00000000000000000001.json").is_file());
    let asked = server.asked();
    let signed = |value: &str| value.contains(&format!("Credential={ROLE_ACCESS_KEY}/"));
    assert!(asked.iter().all(|asked| asked.headers.get("authorization").is_some_and(|v| signed(v.to_str().unwrap()))));
    assert!(asked.iter().all(|asked| asked.headers.get("x-amz-security-token").is_some_and(|v| v == "role-token")));
    assert_eq!(services.asked.lock().unwrap().len(), 1);
}
