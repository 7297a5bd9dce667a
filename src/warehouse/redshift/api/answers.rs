//! What the API says: <https://docs.aws.amazon.com/redshift-data/latest/APIReference/API_Operations.html>.

use std::fmt::Write;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::value::RawValue;

/// The answer to `ExecuteStatement`. The state is only there where the service knows of long polling.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Submitted {
    pub id: String,
    pub session_id: Option<String>,
    pub status: Option<String>,
    pub has_result_set: Option<bool>,
}

/// The answer to `DescribeStatement`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Described {
    pub status: String,
    #[serde(default)]
    pub error: Option<String>,
    #[serde(default)]
    pub has_result_set: Option<bool>,
    /// Rows that were changed; -1: not known.
    #[serde(default)]
    pub result_rows: Option<i64>,
}

/// The answer to `CancelStatement`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Cancelled {
    #[serde(default)]
    pub status: Option<bool>,
}

/// The answer to `GetStatementResult`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Page {
    pub records: Vec<Vec<Field>>,
    #[serde(default)]
    pub next_token: Option<String>,
}

/// One value. Numbers are kept as they were sent.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Field {
    #[serde(default)]
    is_null: Option<bool>,
    #[serde(default)]
    boolean_value: Option<bool>,
    #[serde(default)]
    long_value: Option<Box<RawValue>>,
    #[serde(default)]
    double_value: Option<Box<RawValue>>,
    #[serde(default)]
    string_value: Option<String>,
    #[serde(default)]
    blob_value: Option<String>,
}

impl Field {
    /// The value as the cluster itself would write it; an error: there is none in it.
    pub fn text(self) -> Result<Option<String>, &'static str> {
        if self.is_null == Some(true) {
            return Ok(None);
        }
        if let Some(text) = self.string_value {
            return Ok(Some(text));
        }
        if let Some(value) = self.boolean_value {
            return Ok(Some(if value { "t" } else { "f" }.to_owned()));
        }
        // What is no number in JSON (NaN) comes as a text.
        if let Some(number) = self.long_value.or(self.double_value) {
            return Ok(Some(number.get().trim_matches('"').to_owned()));
        }
        let blob = self.blob_value.ok_or("a value of a kind that is not known")?;
        let bytes = STANDARD.decode(blob).map_err(|_| "bytes that are not base64")?;
        let mut text = String::with_capacity(bytes.len() * 2);
        for byte in bytes {
            // Writing into a text does not fail.
            let _written = write!(text, "{byte:02x}");
        }
        Ok(Some(text))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_a_cluster_writes_them() {
        let page = r#"{"Records":[[{"isNull":true},{"stringValue":""},{"longValue":-9223372036854775808},
            {"doubleValue":0.30000000000000004},{"doubleValue":"NaN"},{"booleanValue":true},{"booleanValue":false},
            {"blobValue":"AP9c"}]],"NextToken":"more"}"#;
        let page: Page = serde_json::from_str(page).expect("a page");
        let cells: Vec<_> = page.records.into_iter().flatten().map(|field| field.text().expect("a value")).collect();
        let expected = ["", "-9223372036854775808", "0.30000000000000004", "NaN", "t", "f", "00ff5c"];
        assert_eq!(cells[0], None);
        assert_eq!(cells[1..].iter().flatten().collect::<Vec<_>>(), expected.iter().collect::<Vec<_>>());
        assert_eq!(page.next_token.as_deref(), Some("more"));
        let odd: Field = serde_json::from_str("{}").expect("a field");
        assert!(odd.text().is_err());
    }
}
