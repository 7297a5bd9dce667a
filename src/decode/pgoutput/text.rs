//! PostgreSQL's text forms of arrays and hstore, as JSON.

use super::types::Element;
use crate::decode::debezium::value::Why;

const BAD_ARRAY: Why = "it is not an array as PostgreSQL writes one";
const BAD_HSTORE: Why = "it is not an hstore as PostgreSQL writes one";
/// PostgreSQL's own limit of dimensions is 6.
const DEPTH: usize = 8;

/// A text being read.
struct Reader<'a> {
    rest: &'a str,
}

impl<'a> Reader<'a> {
    fn take(&mut self, sign: char) -> bool {
        let found = self.rest.strip_prefix(sign);
        self.rest = found.unwrap_or(self.rest);
        found.is_some()
    }

    fn space(&mut self) {
        self.rest = self.rest.trim_start_matches(' ');
    }

    /// The inside of a quoted text, the quote in front of it taken; backslashes undone.
    fn quoted(&mut self) -> Option<String> {
        let mut out = String::new();
        let mut signs = self.rest.char_indices();
        while let Some((at, sign)) = signs.next() {
            match sign {
                '"' => {
                    self.rest = &self.rest[at + 1..];
                    return Some(out);
                }
                '\\' => out.push(signs.next()?.1),
                sign => out.push(sign),
            }
        }
        None
    }

    /// What stands before the next `delimiter` or closing brace; backslashes undone.
    fn plain(&mut self, delimiter: char) -> Option<String> {
        let mut out = String::new();
        let mut signs = self.rest.char_indices();
        while let Some((at, sign)) = signs.next() {
            match sign {
                '}' => {
                    self.rest = &self.rest[at..];
                    return Some(out);
                }
                '\\' => out.push(signs.next()?.1),
                sign if sign == delimiter => {
                    self.rest = &self.rest[at..];
                    return Some(out);
                }
                sign => out.push(sign),
            }
        }
        None
    }
}

/// An array as a JSON array, appended to `out`.
pub(super) fn array(text: &str, element: Element, delimiter: char, out: &mut String) -> Result<(), Why> {
    if text.starts_with('[') {
        return Err("its subscripts do not begin at 1, which JSON cannot say; store it with plain subscripts");
    }
    let mut reader = Reader { rest: text };
    if !reader.take('{') {
        return Err(BAD_ARRAY);
    }
    elements(&mut reader, element, delimiter, out, 1)?;
    if reader.rest.is_empty() { Ok(()) } else { Err(BAD_ARRAY) }
}

/// The elements behind an opening brace, and the closing one.
fn elements(
    reader: &mut Reader<'_>,
    element: Element,
    delimiter: char,
    out: &mut String,
    depth: usize,
) -> Result<(), Why> {
    if depth > DEPTH {
        return Err(BAD_ARRAY);
    }
    out.push('[');
    if reader.take('}') {
        out.push(']');
        return Ok(());
    }
    loop {
        if reader.take('{') {
            elements(reader, element, delimiter, out, depth + 1)?;
        } else if reader.take('"') {
            let text = reader.quoted().ok_or(BAD_ARRAY)?;
            write(&text, element, out)?;
        } else {
            let text = reader.plain(delimiter).ok_or(BAD_ARRAY)?;
            if text.eq_ignore_ascii_case("null") {
                out.push_str("null");
            } else {
                write(&text, element, out)?;
            }
        }
        if reader.take('}') {
            out.push(']');
            return Ok(());
        }
        if !reader.take(delimiter) {
            return Err(BAD_ARRAY);
        }
        out.push(',');
    }
}

fn write(text: &str, element: Element, out: &mut String) -> Result<(), Why> {
    match element {
        Element::Boolean => out.push_str(match text {
            "t" => "true",
            "f" => "false",
            _ => return Err(BAD_ARRAY),
        }),
        // NaN and the infinities have no number in JSON.
        Element::Number if text.ends_with(|c: char| c.is_ascii_digit()) => out.push_str(text),
        Element::Document => {
            serde_json::from_str::<serde::de::IgnoredAny>(text).map_err(|_| "it holds what is not a JSON document")?;
            out.push_str(text);
        }
        Element::Number | Element::Text => quote(text, out),
    }
    Ok(())
}

fn quote(text: &str, out: &mut String) {
    out.push_str(&serde_json::Value::from(text).to_string());
}

/// An hstore as a JSON object, appended to `out`.
pub(super) fn hstore(text: &str, out: &mut String) -> Result<(), Why> {
    let mut reader = Reader { rest: text };
    out.push('{');
    let mut first = true;
    reader.space();
    while !reader.rest.is_empty() {
        if !first {
            if !reader.take(',') {
                return Err(BAD_HSTORE);
            }
            reader.space();
            out.push(',');
        }
        first = false;
        let key = if reader.take('"') { reader.quoted() } else { None };
        quote(&key.ok_or(BAD_HSTORE)?, out);
        reader.rest = reader.rest.strip_prefix("=>").ok_or(BAD_HSTORE)?;
        out.push(':');
        if reader.take('"') {
            quote(&reader.quoted().ok_or(BAD_HSTORE)?, out);
        } else {
            reader.rest = reader.rest.strip_prefix("NULL").ok_or(BAD_HSTORE)?;
            out.push_str("null");
        }
        reader.space();
    }
    out.push('}');
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(text: &str, element: Element) -> Result<String, Why> {
        let mut out = String::new();
        array(text, element, ',', &mut out).map(|()| out)
    }

    #[test]
    fn arrays_become_json() {
        assert_eq!(read("{}", Element::Number).as_deref(), Ok("[]"));
        assert_eq!(read("{1,NULL,-3}", Element::Number).as_deref(), Ok("[1,null,-3]"));
        assert_eq!(read("{1.5,NaN,-Infinity}", Element::Number).as_deref(), Ok("[1.5,\"NaN\",\"-Infinity\"]"));
        assert_eq!(read("{{t,f},{f,NULL}}", Element::Boolean).as_deref(), Ok("[[true,false],[false,null]]"));
        let quoted = r#"{plain,"a, \"b\" \\ c","NULL",null,""}"#;
        assert_eq!(read(quoted, Element::Text).as_deref(), Ok(r#"["plain","a, \"b\" \\ c","NULL",null,""]"#));
        assert_eq!(read(r#"{"{\"a\": [1]}"}"#, Element::Document).as_deref(), Ok(r#"[{"a": [1]}]"#));
        for bad in ["", "{", "{1", "{1}x", "{\"a}", "[0:1]={1,2}", "{x}"] {
            assert!(read(bad, Element::Boolean).is_err(), "{bad}");
        }
    }

    #[test]
    fn hstore_becomes_an_object() {
        let mut out = String::new();
        hstore(r#""a"=>"1", "b \"x\""=>NULL, "NULL"=>"NULL""#, &mut out).unwrap();
        assert_eq!(out, r#"{"a":"1","b \"x\"":null,"NULL":"NULL"}"#);
        for bad in ["a", r#""a"=>"#, r#""a"=>"1" "b"=>"2""#] {
            assert!(hstore(bad, &mut String::new()).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in r#"[\[\]{}",\\a-c0-9=>NUL ]{0,40}"#) {
            for element in [Element::Text, Element::Number] {
                if let Ok(json) = read(&text, element) {
                    prop_assert!(element == Element::Number || serde_json::from_str::<serde_json::Value>(&json).is_ok(), "{json}");
                }
            }
            let mut out = String::new();
            if hstore(&text, &mut out).is_ok() {
                prop_assert!(serde_json::from_str::<serde_json::Value>(&out).is_ok(), "{}", out);
            }
        }
    }
}
