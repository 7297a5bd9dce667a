//! Binary JSON, and differences of it.

use proptest::prelude::*;

use super::super::{diff, json};
use super::*;
use crate::wire::mysqltype::{Kind, code};

/// `{"a": [1, "xyz"], "bb": null}`
const DOCUMENT: [u8; 42] = [
    0, 2, 0, 41, 0, 18, 0, 1, 0, 19, 0, 2, 0, 2, 21, 0, 4, 0, 0, b'a', b'b', b'b', 2, 0, 14, 0, 5, 1, 0, 12, 10, 0, 3,
    b'x', b'y', b'z', 0, 0, 0, 0, 0, 0,
];

fn json_row(kind: u8, presence: &[u8], images: &[u8]) -> ChangeBatch {
    let id = column("id", Form::Integer(1), Kind::Integer { unsigned: true });
    let shape = described(vec![id, column("j", Form::Json(4), Kind::Json)]);
    decode(&mut decoder(None), Some(shape), &[row(kind, 2, presence, images)])
}

fn with_length(document: &[u8]) -> Vec<u8> {
    [&(document.len() as u32).to_le_bytes()[..], document].concat()
}

#[test]
fn json_is_written_as_the_server_does_and_differences_are_applied() {
    let old = [&[0, 1][..], &with_length(&DOCUMENT)].concat();
    let batch = json_row(b'c', &[3], &old);
    assert_eq!(shown(&batch.tables[0], 0)[1], r#"{"a": [1, "xyz"], "bb": null}"#);
    let literal = |op: u8, path: &str| [&[op, path.len() as u8][..], path.as_bytes(), &[2, 4, 1]].concat();
    let diffs = [
        literal(0, "$.bb"),
        literal(1, "$.a[1]"),
        literal(1, "$.c"),
        [&[2, 6][..], b"$.a[2]"].concat(),
        literal(0, "$.a[0]"),
    ]
    .concat();
    let update = [&old[..], &[1, 1, 0, 1], &with_length(&diffs)].concat();
    let batch = json_row(b'p', &[3, 3], &update);
    assert!(batch.rejects.is_empty(), "{:?}", batch.rejects);
    assert_eq!(shown(&batch.tables[0], 0)[1], r#"{"a": [true, true], "c": true, "bb": true}"#);
    // Another document than the one that the difference was made on.
    for path in ["$.nothing", "$.a[7]", "$.bb.x"] {
        let update = [&old[..], &[1, 1, 0, 1], &with_length(&literal(0, path))].concat();
        assert!(json_row(b'p', &[3, 3], &update).rejects[0].reason.contains("does not fit"), "{path}");
    }
    // The old row has none.
    let update = [&[0, 1][..], &[1, 1, 0, 1], &with_length(&literal(0, "$"))].concat();
    let batch = json_row(b'p', &[1, 3], &update);
    assert_eq!(batch.rejects[0].rule, "incomplete");
    assert_eq!(batch.tables[0].ops, [Op::Refused]);
}

#[test]
fn numbers_and_moments_in_json_are_printed_as_the_server_does() {
    let double = |number: f64| [&[11][..], &number.to_le_bytes()].concat();
    let opaque = |field: u8, data: &[u8]| [&[15, field, data.len() as u8][..], data].concat();
    let packed = |whole: i64, micros: i64| (whole << 24 | micros).to_le_bytes();
    let day = (2015 * 13 + 1) << 22 | 15 << 17;
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (double(1.0), "1.0"),
        (double(-0.0), "-0.0"),
        (double(1e14), "100000000000000.0"),
        (double(1e15), "1e15"),
        (double(1.2345678901234568e17), "1.2345678901234568e17"),
        (double(1e-15), "0.000000000000001"),
        (double(1e-16), "1e-16"),
        (double(123_456.789), "123456.789"),
        (double(5e-324), "5e-324"),
        (double(0.0), "0.0"),
        (double(123.0), "123.0"),
        (double(0.05), "0.05"),
        (double(-1.5e-100), "-1.5e-100"),
        (double(1_536_667_782_558_547.2), "1536667782558547.2"),
        (double(3_064_234_764_211_177.0 / 4.0), "766058691052794.2"),
        (double(3_064_234_764_211_179.0 / 4.0), "766058691052794.8"),
        (double(-1_804_478_450_825_389.0 / 8.0), "-225559806353173.62"),
        (double(f64::MAX), "1.7976931348623157e308"),
        (opaque(code::NEWDECIMAL, &[4, 2, 0x8C, 50]), "12.50"),
        (opaque(code::NEWDECIMAL, &[4, 2, 0x7F, !5]), "-0.05"),
        (opaque(code::DATE, &packed(day, 0)), "\"2015-01-15\""),
        (opaque(code::DATETIME, &packed(day | 23 << 12 | 24 << 6 | 25, 500_000)), "\"2015-01-15 23:24:25.500000\""),
        (opaque(code::TIME, &(-((10i64 << 12 | 11 << 6 | 12) << 24 | 1)).to_le_bytes()), "\"-10:11:12.000001\""),
        (opaque(15, &[1, 2, 255]), "\"base64:type15:AQL/\""),
        (vec![], "null"),
        (vec![10, 255, 255, 255, 255, 255, 255, 255, 255], "18446744073709551615"),
        (vec![12, 6, b'a', b'"', b'\\', 1, b'\n', b'/'], r#""a\"\\\u0001\n/""#),
    ];
    for (document, wanted) in cases {
        let mut out = String::new();
        json::write(&document, &mut out).unwrap();
        assert_eq!(out, wanted);
    }
    // Seventy-six characters a line.
    let mut out = String::new();
    json::write(&opaque(15, &[0; 60]), &mut out).unwrap();
    assert_eq!(out, format!("\"base64:type15:{}\\nAAAA\"", "A".repeat(76)));
}

#[test]
fn a_document_whose_entries_share_one_value_does_not_unfold_without_end() {
    // Each of 60 arrays in a row holds the next one sixty times.
    let mut document = vec![2];
    let (count, depth) = (60u16, 60u16);
    let size = 4 + count * 3;
    for level in 0..depth {
        document.extend(count.to_le_bytes());
        document.extend((size * (depth - level)).to_le_bytes());
        for _ in 0..count {
            document.push(2);
            document.extend(size.to_le_bytes());
        }
    }
    assert!(json::write(&document, &mut String::new()).is_err());
}

proptest! {
    #[test]
    fn any_bytes_are_a_json_document_or_refused(bytes: Vec<u8>, at in 0usize..42, byte: u8, diffs: Vec<u8>) {
        let mut document = DOCUMENT;
        document[at] = byte;
        for bytes in [&bytes[..], &document] {
            let mut out = String::new();
            if json::write(bytes, &mut out).is_ok() {
                prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&out).is_ok(), "{}", out);
            }
            let mut out = String::new();
            if diff::apply(bytes, &diffs, &mut out).is_ok() {
                prop_assert!(serde_json::from_str::<serde::de::IgnoredAny>(&out).is_ok(), "{}", out);
            }
        }
    }
}
