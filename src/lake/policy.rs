//! The least that the lake's role must be allowed, as an IAM policy.
//!
//! Manifests and checkpoints can be read and made, and not deleted: no mistake of ours or of a thief takes the log away.

use serde_json::{Value, json};

use crate::config;
use crate::net::arn;

/// Folders whose objects are deleted in time: by the sweep, by retention, by a probe of the store.
const TRANSIENT: [&str; 10] =
    ["processed", "compacted", "catalog", "raw", "quarantine", "curated", "archive", "_log/probe", "_stage", "_tmp"];

const CATALOG_ACTIONS: [&str; 8] = [
    "glue:GetDatabase",
    "glue:CreateDatabase",
    "glue:GetTable",
    "glue:CreateTable",
    "glue:UpdateTable",
    "glue:GetPartition",
    "glue:BatchCreatePartition",
    "glue:BatchUpdatePartition",
];

/// The policy for a lake in a bucket; `None` for a folder.
pub fn policy(config: &config::Lake) -> Option<Value> {
    let (bucket, prefix) = place(&config.url)?;
    let partition = arn::partition(config.region.as_deref());
    let bucket_arn = format!("arn:{partition}:s3:::{bucket}");
    let below = if prefix.is_empty() { bucket_arn.clone() } else { format!("{bucket_arn}/{prefix}") };
    let listed = if prefix.is_empty() { "*".to_owned() } else { format!("{prefix}/*") };
    let transient: Vec<String> = TRANSIENT.iter().map(|folder| format!("{below}/{folder}/*")).collect();
    let mut statements = vec![
        json!({
            "Sid": "List", "Effect": "Allow", "Action": ["s3:ListBucket"], "Resource": bucket_arn,
            "Condition": { "StringLike": { "s3:prefix": [listed] } },
        }),
        json!({
            "Sid": "ReadAndMake", "Effect": "Allow",
            "Action": ["s3:GetObject", "s3:PutObject", "s3:AbortMultipartUpload"], "Resource": format!("{below}/*"),
        }),
        json!({ "Sid": "TidyUp", "Effect": "Allow", "Action": ["s3:DeleteObject"], "Resource": transient }),
    ];
    if let Some(sse) = &config.sse {
        statements.push(json!({
            "Sid": "Encrypt", "Effect": "Allow", "Action": ["kms:GenerateDataKey", "kms:Decrypt"],
            "Resource": arn::key(&sse.kms_key, config.region.as_deref()),
        }));
    }
    if let Some(config::Catalog::Glue(glue)) = &config.catalog {
        let database = glue.database.to_lowercase();
        let region = config.region.as_deref().unwrap_or("*");
        let arn = |what: &str| format!("arn:{partition}:glue:{region}:*:{what}");
        statements.push(json!({
            "Sid": "Catalog", "Effect": "Allow", "Action": CATALOG_ACTIONS,
            "Resource": [arn("catalog"), arn(&format!("database/{database}")), arn(&format!("table/{database}/*"))],
        }));
    }
    Some(json!({ "Version": "2012-10-17", "Statement": statements }))
}

/// Bucket and prefix of an S3 URL.
fn place(url: &str) -> Option<(&str, &str)> {
    let rest = url.strip_prefix("s3://")?.trim_end_matches('/');
    Some(rest.split_once('/').map_or((rest, ""), |(bucket, prefix)| (bucket, prefix.trim_matches('/'))))
}
