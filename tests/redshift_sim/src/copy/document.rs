//! What a SUPER holds: <https://docs.aws.amazon.com/redshift/latest/dg/limitations-super.html>.
//!
//! 16 MB, of which the smaller reading is taken; a thousand levels; and strings of 65,535 bytes, because a longer one needs a
//! cluster that has opted in (<https://docs.aws.amazon.com/redshift/latest/dg/r_enable_large_strings_opt_in.html>), which this
//! one has not. That numbers load which no float8 comes near to, or of thousands of digits, is written nowhere: they do not.

use std::collections::HashSet;

/// The most that a SUPER holds, in bytes.
const BYTES: usize = 16_000_000;
/// The longest string in it.
const STRING_BYTES: usize = 65_535;
const LEVELS: usize = 1000;
const DIGITS: usize = 1024;

/// Whether a text is a document that a SUPER holds; `long_strings`: in a cluster that has opted in to them.
pub fn check(json: &str, long_strings: bool) -> Result<(), String> {
    let string_bytes = if long_strings { BYTES } else { STRING_BYTES };
    serde_json::from_str::<serde::de::IgnoredAny>(json).map_err(|e| format!("not valid JSON: {e}"))?;
    if json.len() > BYTES {
        return Err(format!("a SUPER of {} bytes; it holds {BYTES}", json.len()));
    }
    // What is open: of an object the names that have been there. Whether COPY takes one twice is written nowhere: it does not.
    let (mut rest, mut open) = (json, Vec::<Option<HashSet<String>>>::new());
    while let Some(at) = rest.find(|c: char| matches!(c, '[' | ']' | '{' | '}' | '"' | '-' | '0'..='9')) {
        rest = &rest[at..];
        match rest.as_bytes()[0] {
            b'[' => open.push(None),
            b'{' => open.push(Some(HashSet::new())),
            b']' | b'}' => drop(open.pop()),
            b'"' => {
                let end = end_of_string(rest);
                let text = string(&rest[..end], string_bytes)?;
                rest = &rest[end..];
                let names = open.last_mut().and_then(Option::as_mut).filter(|_| rest.trim_start().starts_with(':'));
                if names.is_some_and(|names| !names.insert(text)) {
                    return Err("duplicate attribute names in the same object".to_owned());
                }
                continue;
            }
            _ => {
                let end =
                    rest.find(|c: char| !matches!(c, '0'..='9' | '-' | '+' | '.' | 'e' | 'E')).unwrap_or(rest.len());
                number(&rest[..end])?;
                rest = &rest[end..];
                continue;
            }
        }
        if open.len() > LEVELS {
            return Err("Maximum nesting depth of SUPER exceeded".to_owned());
        }
        rest = &rest[1..];
    }
    Ok(())
}

/// Behind the closing quote of a string at the beginning of a text.
fn end_of_string(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    at + 1
}

fn string(quoted: &str, most: usize) -> Result<String, String> {
    let value: String = serde_json::from_str(quoted).map_err(|e| format!("not valid JSON: {e}"))?;
    if value.len() > most {
        return Err(format!("String value exceeds the max size of {most} bytes"));
    }
    if value.contains('\0') { Err("a zero character".to_owned()) } else { Ok(value) }
}

fn number(written: &str) -> Result<(), String> {
    let digits = written.split(['e', 'E']).next().unwrap_or_default();
    let value: f64 = written.parse().map_err(|e| format!("not a number: {e}"))?;
    let lost = value == 0.0 && digits.contains(|c: char| matches!(c, '1'..='9'));
    if written.len() > DIGITS || !value.is_finite() || lost { Err("Numeric overflow".to_owned()) } else { Ok(()) }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    fn check(json: &str) -> Result<(), String> {
        super::check(json, false)
    }

    #[test]
    fn a_super_holds_so_much_and_no_more() {
        let long = |bytes: usize| format!("\"{}\"", "x".repeat(bytes));
        let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
        let padded = |bytes: usize| format!("[{}]", " ".repeat(bytes - 2));
        for good in [
            r#"{"a\\u0000": [1e-300, -0.0, 0e999, "\"]", true, null]}"#,
            &long(65_535),
            r#"{"a": {"a": ["a", "a"]}, "A": 1}"#,
            &nested(1000),
            &padded(16_000_000),
            &format!("[\"{}\"]", "\\u00e9".repeat(32_767)),
        ] {
            check(good).unwrap();
        }
        for (bad, why) in [
            ("{", "not valid JSON"),
            (r#""\u0000""#, "zero character"),
            (r#"["\ud800"]"#, "not valid JSON"),
            ("[1e999]", "Numeric overflow"),
            ("1e-999", "Numeric overflow"),
            (&"7".repeat(1025), "Numeric overflow"),
            (&long(65_536), "exceeds the max size of 65535 bytes"),
            (&format!("{{{}: 1}}", long(65_536)), "exceeds the max size of 65535 bytes"),
            (r#"[{"a": 1, "b": {}, "\u0061": 2}]"#, "duplicate attribute"),
            (&nested(1001), "nesting depth"),
            (&padded(16_000_001), "it holds 16000000"),
        ] {
            assert!(check(bad).unwrap_err().contains(why), "{why}");
        }
    }
}
