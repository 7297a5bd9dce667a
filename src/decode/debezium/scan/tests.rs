use super::*;
use proptest::prelude::*;

fn all(text: &str) -> Option<Vec<(String, String)>> {
    let mut found = Vec::new();
    fields(text, |name, token| found.push((name.raw.to_owned(), format!("{token:?}"))))?;
    Some(found)
}

#[test]
fn fields_are_found_whatever_strings_hold() {
    let found = all(r#" { "a" : "}\"{" , "b":{"c":[1,{"d":"]"}]},"e":null,"f":-1.5e3 } "#).unwrap();
    assert_eq!(found.iter().map(|(n, _)| n.as_str()).collect::<Vec<_>>(), ["a", "b", "e", "f"]);
    assert_eq!(found[1].1, r#"Object("{\"c\":[1,{\"d\":\"]\"}]}")"#);
    assert!(all("{\"a\":1").is_none());
    assert!(all("{\"a\":1}x").is_none());
    assert!(all("{\"a\" 1}").is_none());
}

#[test]
fn escapes() {
    let mut scratch = String::new();
    let text = Text { raw: r"a\n\u00e9\ud83d\ude00\/", escaped: true };
    assert_eq!(text.decode(&mut scratch), Some("a\né😀/"));
    assert_eq!(Text { raw: r"\ud83d", escaped: true }.decode(&mut scratch), None);
    assert_eq!(Text { raw: r"\x", escaped: true }.decode(&mut scratch), None);
}

/// What `nested_end` must say, byte by byte.
fn end(bytes: &[u8]) -> Option<usize> {
    let (mut depth, mut inside, mut at) = (0, false, 0);
    while let Some(byte) = bytes.get(at) {
        match byte {
            b'\\' if inside => at += 1,
            b'"' => inside = !inside,
            b'{' | b'[' if !inside => depth += 1,
            b'}' | b']' if !inside => depth -= 1,
            _ => {}
        }
        at += 1;
        if depth == 0 {
            return Some(at);
        }
    }
    None
}

#[test]
fn whole_numbers_are_taken_only_when_nothing_is_to_be_judged() {
    let take = |text: &str| {
        let mut cursor = Cursor::new(text);
        (cursor.take_whole(), cursor.place())
    };
    for (text, number) in [("0,", 0), ("-7}", -7), ("123456789012345678,", 123_456_789_012_345_678)] {
        assert_eq!(take(text), (Some(number), text.len() - 1));
    }
    for text in
        ["", "-,", "01,", "1.5,", "1e3,", "1 ,", "1", "\"1\",", "1234567890123456789,", "12345678901234567890123456,"]
    {
        assert_eq!(take(text), (None, 0), "{text}");
    }
}

#[test]
fn expected_texts_are_taken_whole() {
    for name in ["\"a\":", "\"thirteen_char\":", "\"a_name_of_more_than_16\":"] {
        let literal = Literal::new(name.to_owned());
        for text in [format!("{name}1,\"b\":2345678901234567"), name.to_owned()] {
            let mut cursor = Cursor::new(&text);
            assert_eq!((cursor.take_expected(&literal), cursor.place()), (true, name.len()), "{text}");
        }
        for text in [name.replace(':', ";1,\"b\":2345678901234567"), name[..name.len() - 1].to_owned()] {
            let mut cursor = Cursor::new(&text);
            assert_eq!((cursor.take_expected(&literal), cursor.place()), (false, 0), "{text}");
        }
    }
}

proptest! {
    #[test]
    fn whole_numbers_are_read_as_the_general_way_reads_them(text in "-?[0-9]{0,22}[,}.e ]?") {
        let mut cursor = Cursor::new(&text);
        if let Some(number) = cursor.take_whole() {
            prop_assert_eq!(text[..cursor.place()].parse::<i64>(), Ok(number));
            prop_assert!(is_number(&text[..cursor.place()]));
        }
    }

    #[test]
    fn nested_values_end_where_their_bracket_closes(text in "[{\\[]([\"\\\\]|[{}]|\\[|\\]|[ay:,é]{1,40}){0,24}") {
        prop_assert_eq!(nested_end(text.as_bytes(), 0), end(text.as_bytes()));
    }

    #[test]
    fn texts_read_as_serde_reads_them(text in any::<String>()) {
        let json = serde_json::to_string(&text).unwrap();
        let Some(Token::Text(token)) = Cursor::new(&json).value() else { panic!("a text") };
        let mut scratch = String::new();
        prop_assert_eq!(token.decode(&mut scratch), Some(text.as_str()));
    }

    #[test]
    fn numbers_are_checked_as_serde_checks_them(text in "[-+0-9.eE]{0,8}") {
        let serde = serde_json::from_str::<&serde_json::value::RawValue>(&text).is_ok();
        prop_assert_eq!(is_number(&text), serde);
    }
}
