//! What relations and messages become, without a server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use arrow::array::AsArray;
use arrow::datatypes::Int32Type;
use proptest::prelude::*;

use super::*;
use crate::batch::{RawRecords, ReadBy};
use crate::config::OnMismatch;
use crate::progress::{Position, Span};
use crate::wire::pgoutput::InsertWriter;
use crate::wire::pgtype::{ColumnShape, TypeShape};

const RELATION: u32 = 7;

fn decoder(key: Option<&[&str]>) -> PgOutput {
    let key = key.map(|key| key.iter().map(|name| (*name).to_owned()).collect());
    let on_mismatch = OnMismatch::Quarantine;
    let route =
        TableRoute { table: "t".into(), stream: "public.t".into(), key, contract: None, on_mismatch, gone: Vec::new() };
    PgOutput::new("shop", vec![route]).unwrap()
}

fn column(name: &str, kind: &str, key: bool) -> ColumnShape {
    ColumnShape { name: name.into(), kind: TypeShape::plain(kind), key, identity: key }
}

fn shape(identity: char, columns: Vec<ColumnShape>) -> Vec<u8> {
    serde_json::to_vec(&RelationShape { id: RELATION, name: "public.t".into(), identity, columns }).unwrap()
}

fn id_and_text() -> Vec<ColumnShape> {
    vec![column("id", "int4", true), column("x", "text", false)]
}

/// One value of a tuple: `None` is null, `Some("\u{1}")` is unchanged.
type Values<'a> = &'a [Option<&'a str>];

const UNCHANGED: Option<&str> = Some("\u{1}");

fn tuple(values: Values<'_>) -> Vec<u8> {
    let mut bytes = (values.len() as u16).to_be_bytes().to_vec();
    for value in values {
        match value {
            None => bytes.push(b'n'),
            Some("\u{1}") => bytes.push(b'u'),
            Some(text) => {
                bytes.push(b't');
                bytes.extend((text.len() as u32).to_be_bytes());
                bytes.extend(text.as_bytes());
            }
        }
    }
    bytes
}

fn message(tag: u8, parts: &[(u8, Values<'_>)]) -> Vec<u8> {
    let mut bytes = vec![tag];
    bytes.extend(RELATION.to_be_bytes());
    for (kind, values) in parts {
        bytes.push(*kind);
        bytes.extend(tuple(values));
    }
    bytes
}

fn decode(decoder: &mut PgOutput, shape: Option<Vec<u8>>, messages: &[Vec<u8>]) -> ChangeBatch {
    let mut records = RawRecords::default();
    if let Some(shape) = shape {
        records.push_within(5, (1, 1), NO_TIME, Some(&shape), None);
    }
    for (number, message) in messages.iter().enumerate() {
        records.push_within(5, (number as u64 + 2, 2), 1_000, None, Some(message));
    }
    let span = Span { from: Position("a".into()), to: Position("b".into()) };
    let partition = Partition::new("shop", "slot@1");
    decoder
        .decode(&RawBatch { partition, generation: 3, span, stream: None, records, inside_transaction: false })
        .unwrap()
}

#[test]
fn changes_become_rows_in_commit_order() {
    let messages = [
        message(b'I', &[(b'N', &[Some("1"), Some("a")])]),
        message(b'U', &[(b'N', &[Some("1"), UNCHANGED])]),
        message(b'U', &[(b'K', &[Some("1"), None]), (b'N', &[Some("2"), UNCHANGED])]),
        message(b'D', &[(b'K', &[Some("2"), None])]),
    ];
    let batch = decode(&mut decoder(None), Some(shape('d', id_and_text())), &messages);
    let rows = &batch.tables[0];
    assert_eq!(rows.ops, [Op::Create, Op::Update, Op::Move, Op::Delete]);
    assert_eq!(rows.seqs[2], Seq { generation: 3, major: 5, minor: 4, ordinal: 2 });
    assert_eq!(rows.contract.input.key, ["id"]);
    assert!(rows.is_unchanged(1, 1) && rows.is_unchanged(1, 2) && !rows.is_unchanged(1, 3));
    let old = rows.old_keys.as_ref().unwrap().column(0).as_primitive::<Int32Type>().value(2);
    assert_eq!((old, batch.account.rows, batch.account.control), (1, 4, 1));
    assert!(batch.rejects.is_empty());
}

#[test]
fn a_whole_old_row_gives_what_is_unchanged_and_the_key_that_the_row_had() {
    let mut columns = id_and_text();
    columns.iter_mut().for_each(|column| column.identity = true);
    let messages = [message(b'U', &[(b'O', &[Some("1"), Some("large")]), (b'N', &[Some("2"), UNCHANGED])])];
    let batch = decode(&mut decoder(None), Some(shape('f', columns)), &messages);
    let rows = &batch.tables[0];
    assert_eq!(rows.ops, [Op::Move]);
    assert!(!rows.is_unchanged(1, 0));
    assert_eq!(rows.rows.column(1).as_string::<i32>().value(0), "large");
}

#[test]
fn a_key_that_old_rows_do_not_carry_is_refused_for_what_needs_it() {
    let messages = [
        message(b'I', &[(b'N', &[Some("1"), Some("a")])]),
        message(b'U', &[(b'N', &[Some("1"), Some("b")])]),
        message(b'D', &[(b'K', &[Some("1"), None])]),
    ];
    let batch = decode(&mut decoder(Some(&["x"])), Some(shape('d', id_and_text())), &messages);
    assert_eq!(batch.tables[0].ops, [Op::Create]);
    assert_eq!(batch.rejects.len(), 2);
    assert!(batch.rejects.iter().all(|reject| reject.reason.contains("REPLICA IDENTITY FULL")), "{:?}", batch.rejects);
}

#[test]
fn rows_without_a_key_are_only_added() {
    let columns = vec![column("x", "text", false)];
    let messages = [message(b'I', &[(b'N', &[Some("a")])]), message(b'D', &[(b'O', &[Some("a")])])];
    let batch = decode(&mut decoder(None), Some(shape('f', columns)), &messages);
    assert_eq!((batch.tables[0].ops.as_slice(), batch.rejects.len()), (&[Op::Create][..], 1));
}

#[test]
fn columns_follow_the_newest_description() {
    let mut decoder = decoder(None);
    decode(&mut decoder, Some(shape('d', id_and_text())), &[message(b'I', &[(b'N', &[Some("1"), Some("a")])])]);
    let columns = vec![column("id", "int8", true), column("y", "bool", false)];
    let batch =
        decode(&mut decoder, Some(shape('d', columns)), &[message(b'I', &[(b'N', &[Some("5000000000"), Some("t")])])]);
    let rows = &batch.tables[0];
    let names: Vec<&str> = rows.contract.input.columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["id", "x", "y"]);
    assert!(rows.rows.column(1).is_null(0));
    assert!(rows.rows.column(2).as_boolean().value(0));
    // Another number of values than the description has.
    let batch = decode(&mut decoder, None, &[message(b'I', &[(b'N', &[Some("1")])])]);
    assert_eq!((batch.tables.len(), batch.rejects.len()), (0, 1));
}

fn insert(values: impl FnOnce(&mut InsertWriter<'_>)) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut writer = InsertWriter::new(&mut bytes, RELATION);
    values(&mut writer);
    writer.finish();
    bytes
}

#[test]
fn a_snapshot_row_is_read_and_an_unknown_relation_is_nobodys() {
    let row = insert(|writer| ["1", "a"].iter().for_each(|value| writer.text(value.as_bytes())));
    let mut records = RawRecords::default();
    records.push_within(5, (0, 1), 1_000, None, Some(&row));
    records.push_within(5, (0, 1), 1_000, Some(&shape('d', id_and_text())), None);
    records.push_within(5, (0, 2), 1_000, None, Some(&row));
    let span = Span { from: Position("a".into()), to: Position("b".into()) };
    let raw = RawBatch {
        partition: Partition::new("s", "p"),
        generation: 0,
        span,
        stream: None,
        records,
        inside_transaction: false,
    };
    let batch = decoder(None).decode(&raw).unwrap();
    assert_eq!(batch.account.rejected, 1, "nothing is known of its columns yet");
    assert_eq!(batch.tables[0].ops, [Op::Read]);
}

/// GIVEN a relation that was described in an earlier batch, THEN the batch says that it is read by that, and whoever begins
/// with it reads it when that is recalled, as no record of its own.
#[test]
fn what_came_before_a_batch_is_said_and_recalled() {
    let row = message(b'I', &[(b'N', &[Some("1"), Some("a")])]);
    let (text, mut decoder, rows) = (shape('d', id_and_text()), decoder(None), [row.clone()]);
    let batch = decode(&mut decoder, Some(text.clone()), &rows);
    assert_eq!(batch.read_by, ReadBy { earlier: Vec::new(), own: vec![RELATION.into()] });
    let earlier = vec![(u64::from(RELATION), Arc::from(text.as_slice()))];
    for _ in 0..2 {
        assert_eq!(decode(&mut decoder, None, &rows).read_by, ReadBy { earlier: earlier.clone(), own: Vec::new() });
    }
    // Of a table that nobody reads any more, too: its rows are no riddles.
    let mut unread = PgOutput::new("shop", Vec::new()).unwrap();
    for (decoder, outcome) in [(&mut self::decoder(None), (1, 1, 0)), (&mut unread, (1, 0, 1))] {
        let mut records = RawRecords::default();
        records.recall(vec![text.as_slice().into()]);
        records.push_within(5, (2, 2), 1_000, None, Some(&row));
        let span = Span { from: Position("a".into()), to: Position("b".into()) };
        let partition = Partition::new("shop", "slot@1");
        let raw = RawBatch { partition, generation: 3, span, stream: None, records, inside_transaction: false };
        let batch = decoder.decode(&raw).unwrap();
        assert_eq!((batch.account.read, batch.account.rows, batch.account.unrouted), outcome);
        assert_eq!(batch.read_by.earlier, earlier);
    }
}

proptest! {
    #[test]
    fn any_value_of_any_type_is_read_or_refused(
        kind in proptest::sample::select(vec!["bool", "int2", "int4", "int8", "float4", "float8", "numeric", "date", "time",
            "timestamp", "timestamptz", "bytea", "uuid", "json", "hstore", "interval", "unknown"]),
        array: bool, modifier in -1i32..2_000_000, value in r#"[-+0-9a-fNInity:., \\"{}x=>T]{0,24}"#,
    ) {
        let mut columns = id_and_text();
        columns[1].kind = TypeShape { array, modifier, ..TypeShape::plain(kind) };
        let messages = [message(b'I', &[(b'N', &[Some("1"), Some(&value)])])];
        let batch = decode(&mut decoder(None), Some(shape('d', columns)), &messages);
        let rows: usize = batch.tables.iter().map(crate::batch::TableChanges::len).sum();
        prop_assert_eq!(rows + batch.rejects.len(), 1);
    }
}

/// Values by their text and in their binary form must come into their columns alike, or be refused in the same words.
#[test]
fn the_binary_form_gives_what_the_text_gives() {
    let float = |value: f64| value.to_be_bytes().to_vec();
    let us = |us: i64| us.to_be_bytes().to_vec();
    let numeric = |words: &[u16]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    let cases: Vec<(&str, &str, Vec<u8>)> = vec![
        ("bool", "t", vec![1]),
        ("int2", "-32768", i16::MIN.to_be_bytes().to_vec()),
        ("int4", "2147483647", i32::MAX.to_be_bytes().to_vec()),
        ("int8", "-9223372036854775808", i64::MIN.to_be_bytes().to_vec()),
        ("oid", "4294967295", vec![255; 4]),
        ("float4", "0.1", 0.1f32.to_be_bytes().to_vec()),
        ("float8", "1e+300", float(1e300)),
        ("float8", "NaN", float(f64::NAN)),
        ("float8", "-Infinity", float(f64::NEG_INFINITY)),
        ("numeric", "-1.005", numeric(&[2, 0, 0x4000, 3, 1, 50])),
        ("numeric", "0.00", numeric(&[0, 0, 0, 2])),
        ("numeric", "1234567.50", numeric(&[3, 1, 0, 2, 123, 4567, 5000])),
        ("numeric", "120000", numeric(&[1, 1, 0, 0, 12])),
        ("numeric", "0.00012", numeric(&[2, 0xFFFF, 0, 5, 1, 2000])),
        ("numeric", "NaN", numeric(&[0, 0, 0xC000, 0])),
        ("numeric", "-Infinity", numeric(&[0, 0, 0xF000, 0])),
        ("date", "2024-02-29", 8825i32.to_be_bytes().to_vec()),
        ("date", "infinity", i32::MAX.to_be_bytes().to_vec()),
        ("date", "0001-12-31 BC", (-730_120i32).to_be_bytes().to_vec()),
        ("date", "0001-01-01", (-730_119i32).to_be_bytes().to_vec()),
        ("date", "1000001-01-01", 364_512_381i32.to_be_bytes().to_vec()),
        ("time", "23:59:59.999999", us(86_399_999_999)),
        ("time", "24:00:00", us(86_400_000_000)),
        ("timestamp", "2000-01-01 00:00:00.5", us(500_000)),
        ("timestamp", "-infinity", us(i64::MIN)),
        ("timestamp", "294276-12-31 23:59:59.999999", us(9_223_371_331_199_999_999)),
        ("timestamptz", "1999-12-31 23:59:58.5+00", us(-1_500_000)),
        ("timestamptz", "0044-07-23 00:00:00+00 BC", us(-64_453_276_800_000_000)),
        ("bytea", "\\x00ff5c", vec![0, 255, 92]),
        (
            "uuid",
            "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11",
            u128::to_be_bytes(0xa0eebc99_9c0b_4ef8_bb6d_6bb9bd380a11).to_vec(),
        ),
        ("text", "é \"\\", "é \"\\".as_bytes().to_vec()),
        ("bpchar", "ab  ", b"ab  ".to_vec()),
        ("json", "{\"a\": 1}", b"{\"a\": 1}".to_vec()),
        ("jsonb", "[1, 2]", b"\x01[1, 2]".to_vec()),
    ];
    for (kind, text, binary) in cases {
        let columns = || vec![column("id", "int4", true), column("x", kind, false)];
        let read = |binary: bool, value: &[u8]| {
            let row = insert(|writer| {
                writer.text(b"1");
                if binary { writer.binary(value) } else { writer.text(value) }
            });
            decode(&mut decoder(None), Some(shape('d', columns())), &[row])
        };
        let (by_text, by_binary) = (read(false, text.as_bytes()), read(true, &binary));
        let rows = |batch: &ChangeBatch| batch.tables.first().map(|table| table.rows.clone());
        assert_eq!(rows(&by_text), rows(&by_binary), "{kind} {text}");
        let why = |batch: &ChangeBatch| batch.rejects.iter().map(|r| r.reason.clone()).collect::<Vec<_>>();
        assert_eq!(why(&by_text), why(&by_binary), "{kind} {text}");
        assert_eq!(by_text.account, by_binary.account);
    }
}

#[test]
fn a_binary_form_that_is_none_is_refused() {
    for (kind, bytes) in [("int4", &b"123"[..]), ("jsonb", b"\x02{}"), ("money", b"\0"), ("uuid", b"short")] {
        let row = insert(|writer| {
            writer.text(b"1");
            writer.binary(bytes);
        });
        let columns = vec![column("id", "int4", true), column("x", kind, false)];
        let batch = decode(&mut decoder(None), Some(shape('d', columns)), &[row]);
        assert_eq!((batch.tables.len(), batch.rejects.len()), (0, 1), "{kind}");
    }
}

/// A written contract whose column `x` is a `narrow`.
fn narrow(narrow: &str, widen: bool) -> PgOutput {
    let columns = [("id", "int"), ("x", narrow)];
    let columns = columns.map(|(name, text)| crate::contract::Column::new(name, text.parse().unwrap())).to_vec();
    let key = vec!["id".to_owned()];
    let encodings = Default::default();
    let contract = Some(crate::config::ContractFile { version: 1, columns, key, learn: true, widen, encodings });
    let on_mismatch = OnMismatch::Quarantine;
    let route =
        TableRoute { table: "t".into(), stream: "public.t".into(), key: None, contract, on_mismatch, gone: Vec::new() };
    PgOutput::new("shop", vec![route]).unwrap()
}

#[test]
fn a_text_that_is_too_long_makes_its_column_longer() {
    let messages = [
        message(b'I', &[(b'N', &[Some("1"), Some("abc")])]),
        message(b'U', &[(b'K', &[Some("1"), None]), (b'N', &[Some("2"), Some("longer")])]),
        message(b'I', &[(b'N', &[Some("3"), Some("c")])]),
    ];
    let batch = decode(&mut narrow("varchar(3)", true), Some(shape('d', id_and_text())), &messages);
    assert!(batch.rejects.is_empty(), "{:?}", batch.rejects);
    let ops: Vec<Op> = batch.tables.iter().flat_map(|table| table.ops.clone()).collect();
    assert_eq!(ops, [Op::Create, Op::Move, Op::Create]);
    let last = batch.tables.last().unwrap();
    assert_eq!(last.contract.input.columns[1].data_type.to_string(), "varchar(8)");
    assert_eq!(last.rows.column(1).as_string::<i32>().value(0), "longer");
    assert_eq!(last.old_keys.as_ref().unwrap().column(0).as_primitive::<Int32Type>().value(0), 1);
    let batch = decode(&mut narrow("varchar(3)", false), Some(shape('d', id_and_text())), &messages);
    assert_eq!((batch.rejects.len(), batch.rejects[0].rule.as_str()), (1, "contract"));
}

/// GIVEN a numeric of any size whose column was written as a decimal, THEN it is one, and becomes wider by its values, as
/// text and in binary; what a decimal cannot hold is refused as before.
#[test]
fn a_written_decimal_becomes_wider_by_its_values() {
    let shape_of = || Some(shape('f', vec![column("id", "int4", true), column("x", "numeric", false)]));
    let values = ["12.50", "1234567890.125", "-0.00001", "NaN", "1234567890123456789012345678901", "7"];
    let messages: Vec<_> = values.iter().map(|value| message(b'I', &[(b'N', &[Some("1"), Some(value)])])).collect();
    let batch = decode(&mut narrow("decimal(10,2)", true), shape_of(), &messages);
    let of = |changes: &crate::batch::TableChanges| changes.contract.input.columns[1].data_type.to_string();
    let shown = |changes: &crate::batch::TableChanges| -> Vec<String> {
        let numbers = changes.rows.column(1).as_primitive::<arrow::datatypes::Decimal128Type>();
        (0..changes.len()).map(|row| numbers.value_as_string(row)).collect()
    };
    let found: Vec<_> = batch.tables.iter().map(|changes| (of(changes), shown(changes))).collect();
    let rows =
        |data_type: &str, rows: &[&str]| (data_type.to_owned(), rows.iter().map(|row| (*row).to_owned()).collect());
    assert_eq!(
        found,
        [
            rows("decimal(10,2)", &["12.50"]),
            rows("decimal(18,4)", &["1234567890.1250"]),
            rows("decimal(22,8)", &["-0.00001000", "7.00000000"]),
        ]
    );
    let reasons: Vec<_> = batch.rejects.iter().map(|reject| (reject.rule.as_str(), reject.reason.as_str())).collect();
    assert!(reasons[0].0 == "decode" && reasons[0].1.contains("NaN or infinity"), "{reasons:?}");
    assert!(reasons[1].0 == "contract" && reasons[1].1.contains("makes more than 38"), "{reasons:?}");
    let batch = decode(&mut narrow("decimal(10,2)", false), shape_of(), &messages);
    assert_eq!(shown(&batch.tables[0]), ["12.50", "7.00"]);
    assert_eq!(batch.rejects.len(), 4);
}

/// The same of a snapshot's row, whose values come in binary.
#[test]
fn a_written_decimal_becomes_wider_by_values_in_binary() {
    let mut decoder = narrow("decimal(10,2)", true);
    let described = shape('d', vec![column("id", "int4", true), column("x", "numeric", false)]);
    let numeric = |words: [u16; 7]| words.iter().flat_map(|word| word.to_be_bytes()).collect::<Vec<u8>>();
    let mut records = RawRecords::default();
    records.push_within(5, (0, 1), NO_TIME, Some(&described), None);
    // 123456789.125, which has more digits on both sides.
    let number = numeric([4, 2, 0, 3, 1, 2345, 6789]);
    let number = [number, 1250u16.to_be_bytes().to_vec()].concat();
    let row = insert(|writer| {
        writer.binary(&1i32.to_be_bytes());
        writer.binary(&number);
    });
    records.push_within(5, (0, 2), 1_000, None, Some(&row));
    let span = Span { from: Position("a".into()), to: Position("b".into()) };
    let partition = Partition::new("shop", "slot@1");
    let raw = RawBatch { partition, generation: 3, span, stream: None, records, inside_transaction: false };
    let batch = decoder.decode(&raw).unwrap();
    assert!(batch.rejects.is_empty(), "{:?}", batch.rejects);
    let changes = &batch.tables[0];
    assert_eq!(changes.contract.input.columns[1].data_type.to_string(), "decimal(18,4)");
    let numbers = changes.rows.column(1).as_primitive::<arrow::datatypes::Decimal128Type>();
    assert_eq!(numbers.value_as_string(0), "123456789.1250");
}
