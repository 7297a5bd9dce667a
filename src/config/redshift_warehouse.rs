//! The settings of a Redshift warehouse.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::hidden;

/// Amazon Redshift, provisioned or serverless. Rows are staged as Parquet in the lake, which must be on S3, in the
/// cluster's region.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RedshiftWarehouse {
    /// `redshift://user:password@host:5439/database`. The server must prove who it is (TLS) unless the URL ends in
    /// `?sslmode=disable`.
    #[serde(serialize_with = "hidden::url")]
    pub url: String,
    /// The schema of the tables; made when it is missing.
    #[serde(default = "public")]
    pub schema: String,
    /// The role that COPY reads the lake with: its ARN (several in a chain: comma separated), or `default`.
    pub iam_role: String,
    /// A file with certificates (PEM) of the authority that vouches for the server, in addition to the public ones.
    #[serde(default)]
    pub root_certificate: Option<String>,
}

fn public() -> String {
    "public".into()
}
