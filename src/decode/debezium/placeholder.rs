//! The value that Debezium sends for a column that it does not have (TOAST), in the shape of each column type.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};

use super::md5;
use super::scan::Token;
use super::value::hex;

/// All shapes of one placeholder, as they stand in JSON.
#[derive(Debug)]
pub(super) struct Placeholder {
    /// Insides of strings.
    texts: Vec<String>,
    /// Bit `n` says that a text of `n` bytes may be one; longer ones are always compared.
    lengths: u64,
    /// Arrays and objects, without white space.
    nested: Vec<String>,
}

impl Placeholder {
    /// The shapes of `configured`; `hex:` says bytes.
    pub fn new(configured: &str) -> Self {
        let bytes = configured.strip_prefix("hex:").and_then(hex).unwrap_or_else(|| configured.as_bytes().to_vec());
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let quoted = |text: &str| serde_json::Value::from(text).to_string();
        let inside = |text: &str| quoted(text).trim_matches('"').to_owned();
        let pair = format!("{{{}:{}}}", quoted(&text), quoted(&text));
        let (base64, url) = (STANDARD.encode(&bytes), URL_SAFE.encode(&bytes));
        let digits: String = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let numbers = bytes.iter().map(|b| (*b as i8).to_string()).collect::<Vec<_>>().join(",");
        let nested = vec![
            format!("[{}]", quoted(&text)),
            format!("[\"{base64}\"]"),
            format!("[\"{url}\"]"),
            format!("[\"{digits}\"]"),
            format!("[{numbers}]"),
            format!("[\"{}\"]", md5::name_uuid(&bytes)),
            pair.clone(),
        ];
        let escaped_pair = {
            let whole = quoted(&pair);
            whole.get(1..whole.len() - 1).unwrap_or_default().to_owned()
        };
        let texts = vec![inside(&text), base64, url, digits, escaped_pair, configured.to_owned()];
        let lengths = texts.iter().filter(|text| text.len() < 64).fold(0, |lengths, text| lengths | 1 << text.len());
        Self { texts, lengths, nested }
    }

    /// Whether the value says that the column is unchanged.
    #[inline]
    pub fn is(&self, token: &Token<'_>) -> bool {
        match token {
            Token::Text(text) => {
                let length = text.raw.len();
                (length >= 64 || self.lengths >> length & 1 == 1) && self.texts.iter().any(|form| form == text.raw)
            }
            Token::Array(raw) | Token::Object(raw) => self.is_nested(raw),
            _ => false,
        }
    }

    fn is_nested(&self, raw: &str) -> bool {
        self.nested.iter().any(|form| {
            let mut bytes = raw.bytes().filter(|b| !matches!(b, b' ' | b'\n' | b'\r' | b'\t'));
            form.bytes().all(|b| bytes.next() == Some(b)) && bytes.next().is_none()
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::decode::debezium::scan::Cursor;

    fn is(placeholder: &Placeholder, json: &str) -> bool {
        placeholder.is(&Cursor::new(json).value().unwrap())
    }

    #[test]
    fn every_shape_is_recognised() {
        let default = Placeholder::new("__debezium_unavailable_value");
        for json in [
            r#""__debezium_unavailable_value""#,
            r#""X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==""#,
            r#""5f5f646562657a69756d5f756e617661696c61626c655f76616c7565""#,
            r#"["__debezium_unavailable_value"]"#,
            r#"[ "X19kZWJleml1bV91bmF2YWlsYWJsZV92YWx1ZQ==" ]"#,
            "[95,95,100,101,98,101,122,105,117,109,95,117,110,97,118,97,105,108,97,98,108,101,95,118,97,108,117,101]",
            r#"["b68a35a7-17ad-35b3-af2a-ae46edb4545a"]"#,
            r#""{\"__debezium_unavailable_value\":\"__debezium_unavailable_value\"}""#,
            r#"{"__debezium_unavailable_value":"__debezium_unavailable_value"}"#,
        ] {
            assert!(is(&default, json), "{json}");
        }
        for json in [r#""__debezium_unavailable_valu""#, "[95]", "[]", "{}", "null", "95", r#""""#] {
            assert!(!is(&default, json), "{json}");
        }
    }

    #[test]
    fn a_configured_one_is_recognised_as_text_and_as_bytes() {
        let configured = Placeholder::new("hex:6e6f");
        assert!(is(&configured, r#""no""#) && is(&configured, r#""bm8=""#) && is(&configured, "[110,111]"));
        assert!(is(&configured, r#""hex:6e6f""#) && !is(&configured, r#""__debezium_unavailable_value""#));
    }
}
