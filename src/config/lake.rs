//! What a topology says of the lake beside its place: encryption by the store, compaction, the catalog.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::units::Span;

/// Encryption by the store, with a key of Amazon's Key Management Service (SSE-KMS).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sse {
    /// The key's ARN, or its id in the same account.
    pub kms_key: String,
    /// One request for a key per bucket and hour instead of one per object.
    #[serde(default = "yes")]
    pub bucket_key: bool,
}

fn yes() -> bool {
    true
}

/// Compaction beside the stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compact {
    /// How often it is looked for closed hours, e.g. `1h`.
    pub every: Span,
}

/// A catalog of the lake's tables, chosen by `kind`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Catalog {
    /// AWS Glue: for Athena, Redshift Spectrum, EMR.
    Glue(Glue),
}

/// AWS Glue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Glue {
    /// The database; made when it is missing.
    pub database: String,
    /// Another endpoint than Amazon's.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// How often partitions are brought up to date, e.g. `60s`.
    #[serde(default = "a_minute")]
    pub every: Span,
}

fn a_minute() -> Span {
    Span::seconds(60)
}
