//! Signed requests to the API of a service, one at a time.

use std::time::Duration;

use axum::http::{Method, Request};
use bytes::Bytes;
use object_store::ClientOptions;
use object_store::aws::{AwsAuthorizer, AwsCredentialProvider};
use object_store::client::{HttpClient, HttpConnector, ReqwestConnector};

use super::Account;
use crate::error::{Error, ErrorKind, Result};

/// How long a service may take to answer.
const ANSWER: Duration = Duration::from_secs(20);

/// The API of one service in one region.
#[derive(Debug, Clone)]
pub struct Api {
    service: &'static str,
    region: String,
    endpoint: String,
    credentials: AwsCredentialProvider,
    client: HttpClient,
}

impl Api {
    /// The service in the account's region, or at another endpoint. No request.
    pub fn new(service: &'static str, account: &Account, endpoint: Option<&str>) -> Result<Self> {
        let region = account.region.clone().ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("the region of {service} is not known"))
                .help("name it in the topology, in AWS_REGION, or in the profile")
        })?;
        let domain = if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let usual = || format!("https://{service}.{region}.{domain}");
        let endpoint = endpoint.map_or_else(usual, |endpoint| endpoint.trim_end_matches('/').to_owned());
        // Plain HTTP only where somebody wrote it down.
        let options = ClientOptions::new().with_allow_http(endpoint.starts_with("http://")).with_timeout(ANSWER);
        let client = ReqwestConnector::default()
            .connect(&options)
            .map_err(|error| Error::new(ErrorKind::Config, format!("prepare to ask {service}")).because(error))?;
        Ok(Self { service, region, endpoint, credentials: account.credentials.clone(), client })
    }

    /// Where it is.
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// Its region.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// Posts a body with these headers; the status of the answer, and its body. An error says why there is none.
    pub async fn post(&self, headers: &[(&str, &str)], body: String) -> Result<(u16, Bytes), String> {
        let mut request = Request::builder().method(Method::POST).uri(format!("{}/", self.endpoint));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut request = request.body(body.into()).map_err(|error| format!("{} is no URL: {error}", self.endpoint))?;
        let credential = self.credentials.get_credential().await.map_err(|error| error.to_string())?;
        AwsAuthorizer::new(&credential, self.service, &self.region).authorize(&mut request, None);
        let answer = self.client.execute(request).await.map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        let body = answer.into_body().bytes().await.map_err(|error| error.to_string())?;
        Ok((status, body))
    }
}
