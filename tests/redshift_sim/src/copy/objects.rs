//! The objects that COPY reads, by the S3 protocol.

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, ObjectStoreExt, RetryConfig};

use crate::refusal::Refusal;
use crate::sql::copy::{Authorization, Copy};

use super::{File, manifest};

/// Where S3 is, and by which keys it is read when COPY names a role.
#[derive(Debug, Clone, Default)]
pub struct S3 {
    /// `http://127.0.0.1:9000`.
    pub endpoint: String,
    /// The region; COPY of Parquet reads no other: there is no REGION.
    pub region: String,
    /// The access key's id.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
}

/// Reads objects.
#[derive(Debug)]
pub struct Objects {
    s3: S3,
}

impl Objects {
    pub(crate) fn new(s3: S3) -> Self {
        Self { s3 }
    }

    /// What a COPY names, read whole.
    pub(super) async fn files(&self, copy: &Copy, roles: &[String]) -> Result<Vec<File>, Refusal> {
        let keys = self.keys(&copy.authorization, roles)?;
        if copy.manifest {
            let text = self.get(&keys, &copy.from).await?.ok_or_else(|| {
                Refusal::new(
                    "XX000",
                    format!("The specified S3 prefix '{}' does not exist", manifest::key_of(&copy.from)),
                )
            })?;
            return self.listed(&keys, &copy.from, &text).await;
        }
        let (bucket, prefix) = split(&copy.from)?;
        let store = self.store(&keys, bucket)?;
        // S3 lists by characters, the library by folders: what lies beside the prefix's folder is sorted out here.
        let folder = prefix.rsplit_once('/').map(|(folder, _)| Path::from(folder));
        let found: Vec<_> = store.list(folder.as_ref()).try_collect().await.map_err(|e| unread(&copy.from, &e))?;
        let mut keys_found: Vec<String> =
            found.into_iter().map(|o| o.location.to_string()).filter(|k| k.starts_with(prefix)).collect();
        keys_found.sort();
        let mut files = Vec::new();
        for key in keys_found {
            let url = format!("s3://{bucket}/{key}");
            refuse_suffix(&url)?;
            files.extend(self.get(&keys, &url).await?.map(|bytes| File { url, bytes }));
        }
        if files.is_empty() {
            return Err(Refusal::new("XX000", format!("The specified S3 prefix '{prefix}' does not exist")));
        }
        Ok(files)
    }

    /// What a manifest lists: <https://docs.aws.amazon.com/redshift/latest/dg/loading-data-files-using-manifest.html>.
    async fn listed(&self, keys: &(String, String), url: &str, text: &[u8]) -> Result<Vec<File>, Refusal> {
        let mut files = Vec::new();
        for entry in manifest::entries(url, text)? {
            refuse_suffix(&entry.url)?;
            let Some(bytes) = self.get(keys, &entry.url).await? else {
                if entry.mandatory {
                    return Err(Refusal::new(
                        "XX000",
                        format!("Mandatory url is not present in manifest file {}.", entry.url),
                    ));
                }
                continue;
            };
            if bytes.len() as u64 != entry.content_length {
                let context = format!(
                    "File '{}' has {} bytes; content_length in the manifest says {}.",
                    entry.url,
                    bytes.len(),
                    entry.content_length
                );
                return Err(Refusal::spectrum(15_001, &context));
            }
            files.push(File { url: entry.url, bytes });
        }
        Ok(files)
    }

    /// A role must be one that the cluster has: <https://docs.aws.amazon.com/redshift/latest/dg/copy-parameters-authorization.html>.
    fn keys(&self, authorization: &Authorization, roles: &[String]) -> Result<(String, String), Refusal> {
        let own = || (self.s3.access_key_id.clone(), self.s3.secret_access_key.clone());
        match authorization {
            Authorization::Missing => Err(Refusal::new("XX000", "CREDENTIALS argument is required but not specified")),
            Authorization::DefaultRole if !roles.is_empty() => Ok(own()),
            Authorization::Role(role) if roles.contains(role) => Ok(own()),
            Authorization::DefaultRole => Err(Refusal::new("XX000", "No default IAM role is set for the cluster")),
            Authorization::Role(role) => Err(Refusal::new(
                "XX000",
                format!("User arn:aws:redshift:cluster is not authorized to assume IAM Role {role}"),
            )),
            Authorization::Keys { id, secret } => Ok((id.clone(), secret.clone())),
        }
    }

    async fn get(&self, keys: &(String, String), url: &str) -> Result<Option<Bytes>, Refusal> {
        let (bucket, key) = split(url)?;
        let store = self.store(keys, bucket)?;
        match store.get(&Path::from(key)).await {
            Ok(found) => found.bytes().await.map(Some).map_err(|e| unread(url, &e)),
            Err(object_store::Error::NotFound { .. }) => Ok(None),
            Err(e) => Err(unread(url, &e)),
        }
    }

    fn store(&self, keys: &(String, String), bucket: &str) -> Result<AmazonS3, Refusal> {
        let retry = RetryConfig {
            backoff: BackoffConfig::default(),
            max_retries: 3,
            retry_timeout: std::time::Duration::from_secs(30),
        };
        AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_endpoint(self.s3.endpoint.trim_end_matches('/'))
            .with_region(&self.s3.region)
            .with_access_key_id(&keys.0)
            .with_secret_access_key(&keys.1)
            .with_virtual_hosted_style_request(false)
            .with_client_options(ClientOptions::new().with_allow_http(true))
            .with_retry(retry)
            .build()
            .map_err(|e| unread(bucket, &e))
    }
}

/// A key that ends so is taken for a compressed file: <https://docs.aws.amazon.com/redshift/latest/dg/c_loading-data-files-using-compression.html>.
fn refuse_suffix(url: &str) -> Result<(), Refusal> {
    let packed = [".gz", ".snappy", ".bz2"].iter().find(|suffix| url.ends_with(**suffix));
    packed.map_or(Ok(()), |suffix| {
        Err(Refusal::spectrum(15_001, &format!("File '{url}' is taken for a {suffix} file by its name, and is none.")))
    })
}

fn split(url: &str) -> Result<(&str, &str), Refusal> {
    let rest = url.strip_prefix("s3://").and_then(|rest| rest.split_once('/'));
    rest.filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
        .ok_or_else(|| Refusal::new("XX000", format!("Invalid S3 path '{url}'")))
}

fn unread(url: &str, error: &object_store::Error) -> Refusal {
    // <https://docs.aws.amazon.com/redshift/latest/dg/s3serviceexception-error.html>
    Refusal::new("XX000", "S3ServiceException").detail(format!("{url}: {error}"))
}
