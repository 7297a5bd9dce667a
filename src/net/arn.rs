//! Names of Amazon's resources, in the partition of their region.

/// The partition of a region.
pub fn partition(region: Option<&str>) -> &'static str {
    match region {
        Some(region) if region.starts_with("cn-") => "aws-cn",
        Some(region) if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}

/// A key of KMS, named by its ARN, its id or an alias.
pub fn key(key: &str, region: Option<&str>) -> String {
    let key = key.trim();
    if key.starts_with("arn:") {
        return key.to_owned();
    }
    // Another account's key cannot be named by its id, so it is one of this account.
    let resource = if key.starts_with("alias/") { "key/*".to_owned() } else { format!("key/{key}") };
    format!("arn:{}:kms:{}:*:{resource}", partition(region), region.unwrap_or("*"))
}
