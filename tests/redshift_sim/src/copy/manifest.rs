//! The manifest: <https://docs.aws.amazon.com/redshift/latest/dg/loading-data-files-using-manifest.html>.

use serde::Deserialize;

use crate::refusal::Refusal;

/// One file.
#[derive(Debug, PartialEq, Eq)]
pub struct Entry {
    /// `s3://…`
    pub url: String,
    /// Whether COPY fails without it; it does not unless the manifest says so.
    pub mandatory: bool,
    /// Its size in bytes, which a columnar file's entry must have.
    pub content_length: u64,
}

#[derive(Deserialize)]
struct Manifest {
    entries: Vec<Raw>,
}

#[derive(Deserialize)]
struct Raw {
    url: String,
    #[serde(default)]
    mandatory: bool,
    meta: Option<Meta>,
}

#[derive(Deserialize)]
struct Meta {
    content_length: Option<u64>,
}

/// Reads a manifest for columnar files.
pub fn entries(url: &str, text: &[u8]) -> Result<Vec<Entry>, Refusal> {
    let wrong =
        |why: String| Refusal::new("XX000", format!("Manifest file is not in correct json format: {url}")).detail(why);
    let manifest: Manifest = serde_json::from_slice(text).map_err(|e| wrong(e.to_string()))?;
    let mut entries = Vec::new();
    for raw in manifest.entries {
        if !raw.url.starts_with("s3://") {
            return Err(wrong(format!("{} is no full S3 path", raw.url)));
        }
        let length = raw.meta.and_then(|meta| meta.content_length);
        let length = length.ok_or_else(|| {
            wrong(format!("content_length is missing in the meta of {}: columnar formats need it", raw.url))
        })?;
        entries.push(Entry { url: raw.url, mandatory: raw.mandatory, content_length: length });
    }
    Ok(entries)
}

/// The key within its bucket.
pub fn key_of(url: &str) -> &str {
    url.strip_prefix("s3://").and_then(|rest| rest.split_once('/')).map_or(url, |(_, key)| key)
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn a_manifest_for_parquet_says_how_long_its_files_are() {
        let good = br#"{"entries":[{"url":"s3://b/k.parquet","mandatory":true,"meta":{"content_length":7}},{"url":"s3://b/l","meta":{"content_length":8}}]}"#;
        let read = entries("s3://b/m", good).unwrap();
        assert_eq!(read[0], Entry { url: "s3://b/k.parquet".into(), mandatory: true, content_length: 7 });
        assert!(!read[1].mandatory, "files may be missing unless the manifest says otherwise");
        for bad in [
            r#"{"entries":[{"url":"s3://b/k"}]}"#,
            r#"{"entries":[{"url":"s3://b/k","meta":{}}]}"#,
            r#"{"entries":[{"url":"k","meta":{"content_length":7}}]}"#,
            r#"{"files":[]}"#,
        ] {
            assert_eq!(entries("s3://b/m", bad.as_bytes()).unwrap_err().code, "XX000", "{bad}");
        }
    }
}
