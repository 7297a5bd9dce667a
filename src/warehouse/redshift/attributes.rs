//! Objects in which one name stands twice.
//!
//! PostgreSQL's `json` keeps such a document as it was written. `JSON_PARSE` refuses it, unless the session says
//! `json_parse_dedup_attributes`: then the last of them stays
//! (<https://docs.aws.amazon.com/redshift/latest/dg/super-configurations.html#parsing-options-super>), as in PostgreSQL's
//! `jsonb`. What COPY makes of it (SERIALIZETOJSON) no page says, and it takes all rows or none: there we leave out what
//! `JSON_PARSE` would, before COPY sees it.

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, StringArray};

/// Documents with the last of equal names alone in each object.
pub(super) fn with_last_attributes(documents: &ArrayRef) -> ArrayRef {
    let last: Vec<Option<Cow<'_, str>>> =
        documents.as_string::<i32>().iter().map(|document| document.map(last_attributes)).collect();
    if last.iter().flatten().all(|document| matches!(document, Cow::Borrowed(_))) {
        return Arc::clone(documents);
    }
    Arc::new(last.iter().map(Option::as_deref).collect::<StringArray>())
}

/// A well-formed document with the last of equal names alone in each object.
fn last_attributes(document: &str) -> Cow<'_, str> {
    let mut earlier = overwritten(document);
    if earlier.is_empty() {
        return Cow::Borrowed(document);
    }
    earlier.sort_unstable_by_key(|attribute| attribute.start);
    let (mut kept, mut from) = (String::with_capacity(document.len()), 0);
    for attribute in earlier {
        // One may lie in another that goes, too.
        if attribute.start >= from {
            kept.push_str(&document[from..attribute.start]);
            from = attribute.end;
        }
    }
    kept.push_str(&document[from..]);
    Cow::Owned(kept)
}

/// An object that is being read.
#[derive(Default)]
struct Object<'a> {
    /// Where each of its attributes begins.
    starts: Vec<usize>,
    /// Which of them has a name.
    names: HashMap<Cow<'a, str>, usize>,
}

/// The attributes whose names come again in the same object: from the name to where the next one's begins.
fn overwritten(document: &str) -> Vec<Range<usize>> {
    let bytes = document.as_bytes();
    let (mut open, mut found, mut at) = (Vec::<Option<Object<'_>>>::new(), Vec::new(), 0);
    while at < bytes.len() {
        match bytes[at] {
            b'{' => open.push(Some(Object::default())),
            b'[' => open.push(None),
            b'}' | b']' => drop(open.pop()),
            b'"' => {
                let end = string_end(bytes, at);
                let is_name = bytes[end..].iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b':');
                if let (true, Some(Some(object))) = (is_name, open.last_mut()) {
                    let number = object.starts.len();
                    object.starts.push(at);
                    if let Some(before) = object.names.insert(name(&document[at..end]), number) {
                        found.push(object.starts[before]..object.starts[before + 1]);
                    }
                }
                at = end;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    found
}

/// Behind the closing quote of the string that begins at `at`.
fn string_end(bytes: &[u8], mut at: usize) -> usize {
    at += 1;
    while at < bytes.len() && bytes[at] != b'"' {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// What a name in quotes stands for.
fn name(quoted: &str) -> Cow<'_, str> {
    let bare = quoted.trim_matches('"');
    if !bare.contains('\\') {
        return Cow::Borrowed(bare);
    }
    serde_json::from_str(quoted).map_or(Cow::Borrowed(quoted), Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_of_equal_names_stays() {
        for (written, kept) in [
            (r#"{"a":1,"a":2}"#, r#"{"a":2}"#),
            (r#"{ "a" : 1 , "b" : [] , "a" : 2 }"#, r#"{ "b" : [] , "a" : 2 }"#),
            (r#"{"a":1,"a":{"a":2,"a":3},"a":{"b":4,"b":5}}"#, r#"{"a":{"b":5}}"#),
            (
                r#"[{"x":{"q":1,"q":2}},{"\u0061":1,"a":"b\":","\ud83c\udf89":2,"🎉":3}]"#,
                r#"[{"x":{"q":2}},{"a":"b\":","🎉":3}]"#,
            ),
            (r#"{"\\":1,"\\":2,"":3,"":4}"#, r#"{"\\":2,"":4}"#),
        ] {
            assert_eq!(last_attributes(written), kept, "{written}");
            let values = [written, kept].map(|text| serde_json::from_str::<serde_json::Value>(text).expect("JSON"));
            assert_eq!(values[0], values[1]);
        }
    }

    #[test]
    fn a_document_without_is_left_alone() {
        for written in [r#"{"a":{"a":1},"A":["a","a"],"b":"\"a\":"}"#, "[]", "1", r#""a""#, "{", "\"\\", "}{\"a\":"] {
            assert!(matches!(last_attributes(written), Cow::Borrowed(same) if same == written), "{written}");
        }
    }
}
