//! What tables and rows become, without a server.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod described;
mod json_text;
mod widening;

use arrow::array::AsArray;
use arrow::datatypes::{Int16Type, Int32Type};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use proptest::prelude::*;

use super::*;
use crate::batch::{RawRecords, TableChanges};
use crate::config::OnMismatch;
use crate::progress::{Position, Span};
use crate::wire::binlog::{SnapshotWriter, Typed, describe_key, truncate_record};
use crate::wire::mysqlcharset::Charset;
use crate::wire::mysqltype::{DefaultValue, Kind};

const TABLE: u64 = 7;

fn decoder(key: Option<&[&str]>) -> BinlogDecoder {
    let key = key.map(|key| key.iter().map(|name| (*name).to_owned()).collect());
    let on_mismatch = OnMismatch::Quarantine;
    let route =
        TableRoute { table: "t".into(), stream: "shop.t".into(), key, contract: None, on_mismatch, gone: Vec::new() };
    BinlogDecoder::new("s", vec![route]).unwrap()
}

fn column(name: &str, form: Form, kind: Kind) -> ColumnShape {
    ColumnShape { name: name.into(), form, kind, key: name == "id", default: None }
}

fn text() -> Kind {
    Kind::Text { charset: Charset::Utf8 }
}

/// `id int primary key, x varchar, y smallint`
fn columns() -> Vec<ColumnShape> {
    let integer = Kind::Integer { unsigned: false };
    vec![
        column("id", Form::Integer(4), integer.clone()),
        column("x", Form::Bytes(1), text()),
        column("y", Form::Integer(2), integer),
    ]
}

fn described(columns: Vec<ColumnShape>) -> Vec<u8> {
    describe_key(&TableShape { id: TABLE, name: "shop.t".into(), columns })
}

/// A record of the log for fewer than nine columns.
fn row(kind: u8, width: u16, presence: &[u8], images: &[u8]) -> Vec<u8> {
    let mut record = vec![kind];
    record.extend(TABLE.to_le_bytes());
    record.extend(width.to_le_bytes());
    record.extend(presence);
    record.extend(images);
    record
}

fn whole(id: u8, x: &[u8], y: u8) -> Vec<u8> {
    [&[0, id, 0, 0, 0, x.len() as u8][..], x, &[y, 0]].concat()
}

fn decode(decoder: &mut BinlogDecoder, shape: Option<Vec<u8>>, values: &[Vec<u8>]) -> ChangeBatch {
    let mut records = RawRecords::default();
    if let Some(shape) = shape {
        records.push_within(5, (1, 0), NO_TIME, Some(&shape), None);
    }
    for (number, value) in values.iter().enumerate() {
        records.push_within(5, (100, number as u32), 1_000, None, Some(value));
    }
    let span = Span { from: Position("a".into()), to: Position("b".into()) };
    let partition = Partition::new("s", "log");
    let raw = RawBatch { partition, generation: 3, span, stream: None, records, inside_transaction: false };
    let batch = decoder.decode(&raw).unwrap();
    assert!(batch.account.balances());
    batch
}

fn shown(changes: &TableChanges, row: usize) -> Vec<String> {
    let options = FormatOptions::default().with_null("null");
    let value = |column: usize| {
        if changes.is_unchanged(column, row) {
            return "unchanged".to_owned();
        }
        ArrayFormatter::try_new(changes.rows.column(column).as_ref(), &options).unwrap().value(row).to_string()
    };
    (0..changes.rows.num_columns()).map(value).collect()
}

#[test]
fn changes_become_rows_in_log_order() {
    let values = [
        row(b'c', 3, &[7], &whole(1, b"a", 5)),
        row(b'u', 3, &[7, 7], &[whole(1, b"a", 5), whole(1, b"b", 5)].concat()),
        row(b'u', 3, &[7, 7], &[whole(1, b"b", 5), whole(2, b"b", 6)].concat()),
        row(b'd', 3, &[7], &whole(2, b"b", 6)),
        truncate_record(TABLE),
    ];
    let batch = decode(&mut decoder(None), Some(described(columns())), &values);
    assert!(batch.rejects.is_empty(), "{:?}", batch.rejects);
    let changes = &batch.tables[0];
    assert_eq!(changes.ops, [Op::Create, Op::Update, Op::Move, Op::Delete, Op::Truncate]);
    assert_eq!(changes.seqs[2], Seq { generation: 3, major: 5, minor: 100, ordinal: 2 });
    assert_eq!(changes.source_times_us[0], 1_000);
    assert_eq!(changes.contract.input.key, ["id"]);
    assert_eq!(shown(changes, 2), ["2", "b", "6"]);
    assert_eq!(shown(changes, 3), ["2", "null", "null"]);
    assert_eq!(changes.old_keys.as_ref().unwrap().column(0).as_primitive::<Int32Type>().value(2), 1);
    assert_eq!((batch.account.rows, batch.account.control), (5, 1));
}

#[test]
fn what_a_minimal_image_leaves_out_is_unchanged_or_as_in_the_old_row() {
    let values = [
        // The key before, what was changed after.
        row(b'u', 3, &[0b001, 0b100], &[0, 1, 0, 0, 0, 0, 9, 0]),
        // Without a blob on either side.
        row(b'u', 3, &[0b101, 0b101], &[0, 1, 0, 0, 0, 8, 0, 0, 1, 0, 0, 0, 9, 0]),
        // Another key.
        row(b'u', 3, &[0b001, 0b001], &[0, 1, 0, 0, 0, 0, 2, 0, 0, 0]),
        // Null is a value.
        row(b'u', 3, &[0b001, 0b010], &[0, 2, 0, 0, 0, 1]),
        row(b'd', 3, &[0b001], &[0, 2, 0, 0, 0]),
        // A table without a primary key has its whole row before.
        row(b'u', 3, &[0b111, 0b100], &[whole(3, b"z", 1).as_slice(), &[0, 2, 0]].concat()),
    ];
    let batch = decode(&mut decoder(None), Some(described(columns())), &values);
    assert!(batch.rejects.is_empty(), "{:?}", batch.rejects);
    let changes = &batch.tables[0];
    assert_eq!(changes.ops, [Op::Update, Op::Update, Op::Move, Op::Update, Op::Delete, Op::Update]);
    assert_eq!(shown(changes, 0), ["1", "unchanged", "9"]);
    assert_eq!(shown(changes, 1), ["1", "unchanged", "9"]);
    assert_eq!(shown(changes, 2), ["2", "unchanged", "unchanged"]);
    assert_eq!(shown(changes, 3), ["2", "null", "unchanged"]);
    assert_eq!(shown(changes, 5), ["3", "z", "2"]);
}

#[test]
fn an_insert_that_leaves_a_column_out_takes_its_default_or_is_incomplete() {
    let minimal = row(b'c', 3, &[0b001], &[0, 1, 0, 0, 0]);
    let mut known = columns();
    known[1].default = Some(DefaultValue::Text("new".into()));
    known[2].default = Some(DefaultValue::Null);
    let batch = decode(&mut decoder(None), Some(described(known)), std::slice::from_ref(&minimal));
    assert_eq!(shown(&batch.tables[0], 0), ["1", "new", "null"]);

    let batch = decode(&mut decoder(None), Some(described(columns())), &[minimal]);
    assert_eq!(batch.rejects[0].rule, "incomplete");
    assert!(batch.rejects[0].reason.contains("binlog_row_image=FULL"), "{}", batch.rejects[0].reason);
    assert_eq!((batch.tables[0].ops.as_slice(), shown(&batch.tables[0], 0)[0].as_str()), (&[Op::Refused][..], "1"));
}

#[test]
fn one_bad_value_refuses_its_row_and_leaves_its_key_behind() {
    let mut columns = columns();
    columns[2] = column("y", Form::Date, Kind::Date);
    let date = |packed: u32| [&[0, 1, 0, 0, 0, 1, b'x'][..], &packed.to_le_bytes()[..3]].concat();
    let values = [
        row(b'c', 3, &[7], &date(2024 << 9 | 2 << 5 | 29)),
        row(b'c', 3, &[7], &date(0)),
        row(b'u', 3, &[7, 7], &[date(2024 << 9 | 2 << 5 | 29), date(2024 << 9 | 2 << 5)].concat()),
        row(b'c', 3, &[7], &date(2023 << 9 | 2 << 5 | 29)),
        row(b'c', 3, &[7], &[0, 1, 0, 0, 0, 9, b'x']),
        row(b'c', 2, &[3], &[0, 1, 0, 0, 0, 1, b'x']),
        vec![b'?'],
    ];
    let batch = decode(&mut decoder(None), Some(described(columns)), &values);
    let reasons: Vec<&str> = batch.rejects.iter().map(|reject| reject.reason.as_str()).collect();
    assert_eq!(reasons.len(), 6, "{reasons:#?}");
    for (reason, wanted) in reasons.iter().zip([
        "column `y` (date) has a value of 3 bytes: it is a zero or partial date",
        "it is a zero or partial date",
        "no day of the calendar",
        "ends in the middle",
        "another number of values",
        "no record of a row",
    ]) {
        assert!(reason.contains(wanted), "{reason}");
    }
    let changes = &batch.tables[0];
    assert_eq!(changes.ops[..4], [Op::Create, Op::Refused, Op::Refused, Op::Refused]);
    assert_eq!(shown(changes, 1), ["1", "null", "null"]);
    assert_eq!(batch.rejects[1].op, Some(Op::Update));
}

#[test]
fn rows_without_a_key_are_only_added() {
    let keyless = vec![column("x", Form::Bytes(1), text())];
    let values = [row(b'c', 1, &[1], &[0, 1, b'a']), row(b'd', 1, &[1], &[0, 1, b'a'])];
    let batch = decode(&mut decoder(None), Some(described(keyless)), &values);
    assert_eq!((batch.tables[0].ops.as_slice(), batch.rejects.len()), (&[Op::Create][..], 1));
    assert!(batch.rejects[0].reason.contains("`key:`"), "{}", batch.rejects[0].reason);
}

#[test]
fn columns_follow_the_newest_description_of_their_partition() {
    let mut decoder = decoder(None);
    decode(&mut decoder, Some(described(columns())), &[row(b'c', 3, &[7], &whole(1, b"a", 5))]);
    let mut newer = columns();
    newer[1] = column("z", Form::Integer(1), Kind::Integer { unsigned: true });
    let values = [row(b'c', 3, &[7], &[0, 2, 0, 0, 0, 255, 5, 0])];
    let batch = decode(&mut decoder, Some(described(newer)), &values);
    let changes = &batch.tables[0];
    let names: Vec<&str> = changes.contract.input.columns.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["id", "x", "y", "z"]);
    assert_eq!(changes.rows.column(3).as_primitive::<Int16Type>().value(0), 255);
    // Another partition has described nothing; a table that nobody reads is nobody's.
    let mut records = RawRecords::default();
    records.push_within(1, (1, 1), 1, None, Some(&values[0]));
    let other = describe_key(&TableShape { id: TABLE, name: "shop.other".into(), columns: columns() });
    records.push_within(1, (2, 1), 1, Some(&other), None);
    records.push_within(1, (3, 1), 1, None, Some(&values[0]));
    records.push_within(1, (4, 1), 1, Some(b"{}"), None);
    let span = Span { from: Position("a".into()), to: Position("b".into()) };
    let partition = Partition::new("s", "snapshot");
    let raw = RawBatch { partition, generation: 0, span, stream: None, records, inside_transaction: false };
    let batch = decoder.decode(&raw).unwrap();
    assert_eq!((batch.account.rejected, batch.account.unrouted), (2, 2));
    assert!(batch.rejects[0].reason.contains("not described"), "{}", batch.rejects[0].reason);
}

#[test]
fn another_primary_key_refuses_the_rows() {
    let mut decoder = decoder(None);
    decode(&mut decoder, Some(described(columns())), &[row(b'c', 3, &[7], &whole(1, b"a", 5))]);
    let mut other = columns();
    (other[0].key, other[1].key) = (false, true);
    let batch = decode(&mut decoder, Some(described(other)), &[row(b'c', 3, &[7], &whole(1, b"a", 5))]);
    assert!(batch.rejects[0].reason.contains("the source's key is (x)"), "{}", batch.rejects[0].reason);
}

/// A value in a row image, the same value from a snapshot, and what both become.
type Case = (Form, Kind, Vec<u8>, Typed<'static>, &'static str);

fn moment(year: u16, [month, day, hour, minute, second]: [u8; 5], micros: u32) -> Typed<'static> {
    Typed::Moment { year, month, day, hour, minute, second, micros }
}

fn numbers() -> Vec<Case> {
    let integer = |unsigned| Kind::Integer { unsigned };
    let decimal = |precision, scale| Form::Decimal { precision, scale };
    vec![
        (Form::Integer(1), integer(false), vec![0x80], Typed::Int(-128), "-128"),
        (Form::Integer(1), integer(true), vec![0x80], Typed::UInt(128), "128"),
        (Form::Integer(2), integer(true), vec![0xFF, 0xFF], Typed::UInt(65_535), "65535"),
        (Form::Integer(3), integer(false), vec![0xFF; 3], Typed::Int(-1), "-1"),
        (Form::Integer(3), integer(true), vec![0xFF; 3], Typed::Int(16_777_215), "16777215"),
        (Form::Integer(4), integer(true), vec![0xFF; 4], Typed::UInt(u64::from(u32::MAX)), "4294967295"),
        (
            Form::Integer(8),
            integer(false),
            i64::MIN.to_le_bytes().to_vec(),
            Typed::Int(i64::MIN),
            "-9223372036854775808",
        ),
        (Form::Integer(8), integer(true), vec![0xFF; 8], Typed::UInt(u64::MAX), "18446744073709551615"),
        (Form::Float, Kind::Real, 0.1f32.to_le_bytes().to_vec(), Typed::Float(0.1), "0.1"),
        (Form::Double, Kind::Real, 0.1f64.to_le_bytes().to_vec(), Typed::Double(0.1), "0.1"),
        (decimal(5, 2), Kind::Decimal, vec![0x80, 0x7B, 45], Typed::Bytes(b"123.45"), "123.45"),
        (decimal(5, 2), Kind::Decimal, vec![0x7F, 0x84, !45], Typed::Bytes(b"-123.45"), "-123.45"),
        (
            decimal(65, 30),
            Kind::Decimal,
            [&[0x80, 0, 0, 0][..], &[0; 11], &[1], &[0; 12], &[0, 1]].concat(),
            Typed::Bytes(b"1.000000000000000000000000000001"),
            "1.000000000000000000000000000001",
        ),
        (Form::Bit(1), Kind::Bit, vec![1], Typed::Bytes(b"\x01"), "true"),
        (Form::Bit(10), Kind::Bit, vec![2, 1], Typed::Bytes(b"\x02\x01"), "513"),
        (
            Form::Bit(64),
            Kind::Bit,
            vec![0xFF; 8],
            Typed::Bytes(b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF"),
            "18446744073709551615",
        ),
        (Form::Year, Kind::Year, vec![124], Typed::UInt(2024), "2024"),
        (Form::Year, Kind::Year, vec![0], Typed::Int(0), "0"),
    ]
}

fn times() -> Vec<Case> {
    let time = |negative, days, hours, minutes, seconds, micros| Typed::Time {
        negative,
        days,
        hours,
        minutes,
        seconds,
        micros,
    };
    let packed = (2024u64 * 13 + 2) << 22 | 29 << 17 | 23 << 12 | 59 << 6 | 58;
    let date_time = (packed | 1 << 39).to_be_bytes()[3..].to_vec();
    let with = |fraction: &[u8]| [&date_time, fraction].concat();
    let is = |micros| moment(2024, [2, 29, 23, 59, 58], micros);
    let old = 20_240_229_235_958u64.to_le_bytes().to_vec();
    vec![
        (Form::Date, Kind::Date, vec![0x5D, 0xD0, 0x0F], moment(2024, [2, 29, 0, 0, 0], 0), "2024-02-29"),
        (Form::DateTime(0), Kind::DateTime, date_time.clone(), is(0), "2024-02-29T23:59:58"),
        (Form::DateTime(1), Kind::DateTime, with(&[50]), is(500_000), "2024-02-29T23:59:58.500"),
        (Form::DateTime(4), Kind::DateTime, with(&[0x04, 0xD2]), is(123_400), "2024-02-29T23:59:58.123400"),
        (Form::DateTime(6), Kind::DateTime, with(&[0, 0, 1]), is(1), "2024-02-29T23:59:58.000001"),
        (Form::OldDateTime, Kind::DateTime, old, is(0), "2024-02-29T23:59:58"),
        (
            Form::Timestamp(0),
            Kind::Timestamp,
            vec![0, 0, 0, 1],
            moment(1970, [1, 1, 0, 0, 1], 0),
            "1970-01-01T00:00:01Z",
        ),
        (
            Form::Timestamp(6),
            Kind::Timestamp,
            vec![0x7F, 0xFF, 0xFF, 0xFF, 0, 0, 1],
            moment(2038, [1, 19, 3, 14, 7], 1),
            "2038-01-19T03:14:07.000001Z",
        ),
        (
            Form::OldTimestamp,
            Kind::Timestamp,
            vec![1, 0, 0, 0],
            moment(1970, [1, 1, 0, 0, 1], 0),
            "1970-01-01T00:00:01Z",
        ),
        (Form::Time(0), Kind::Time, vec![0x80, 0x10, 0x83], time(false, 0, 1, 2, 3, 0), "3723000000"),
        (Form::Time(0), Kind::Time, vec![0x4B, 0x91, 0x05], time(true, 34, 22, 59, 59, 0), "-3020399000000"),
        (Form::Time(2), Kind::Time, vec![0x7F, 0xFF, 0xFF, 0xCE], time(true, 0, 0, 0, 0, 500_000), "-500000"),
        (Form::Time(3), Kind::Time, vec![0x80, 0, 1, 0x13, 0x88], time(false, 0, 0, 0, 1, 500_000), "1500000"),
        (Form::Time(6), Kind::Time, vec![0x7F, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF], time(true, 0, 0, 0, 0, 1), "-1"),
        (Form::OldTime, Kind::Time, vec![0x94, 0x27, 0], time(false, 0, 1, 1, 32, 0), "3692000000"),
    ]
}

fn words() -> Vec<Case> {
    let text = |charset| Kind::Text { charset };
    let members: Vec<String> = ["a", "b", "ü"].map(str::to_owned).to_vec();
    let bytes = |size: u8, value: &[u8]| [&(value.len() as u32).to_le_bytes()[..usize::from(size)], value].concat();
    let uuid = [0x6C, 0xCD, 0x78, 0x0C, 0xBA, 0xBA, 0x10, 0x26, 0x95, 0x64, 0x5B, 0x8C, 0x65, 0x60, 0x24];
    let point = [&[0xE6, 0x10, 0, 0][..], &[1, 1, 0, 0, 0], &[0; 16]].concat();
    let point: &'static [u8] = Box::leak(point.into_boxed_slice());
    let floats: &'static [u8] = &[0, 0, 0xC0, 0x3F, 0xCD, 0xCC, 0xCC, 0x3D, 0xCA, 0xF2, 0x49, 0x71];
    vec![
        (
            Form::Bytes(2),
            text(Charset::Utf8),
            bytes(2, "zażółć".as_bytes()),
            Typed::Bytes("zażółć".as_bytes()),
            "zażółć",
        ),
        (Form::Bytes(1), text(Charset::Latin1), bytes(1, b"\x80"), Typed::Bytes("€".as_bytes()), "€"),
        (Form::Bytes(3), text(Charset::Utf16), bytes(3, b"\x20\xAC"), Typed::Bytes("€".as_bytes()), "€"),
        (Form::Bytes(1), Kind::Binary { width: 4 }, bytes(1, &[1]), Typed::Bytes(&[1, 0, 0, 0]), "01000000"),
        (Form::Bytes(4), Kind::Binary { width: 0 }, bytes(4, &[0, 255]), Typed::Bytes(&[0, 255]), "00ff"),
        (
            Form::Bytes(1),
            Kind::PackedText { charset: Charset::Utf8 },
            bytes(1, &[0x89, 5, 0x4B, 0x4C, 0x04, 0x02, 0x00]),
            Typed::Bytes(b"aaaaa"),
            "aaaaa",
        ),
        (Form::Bytes(1), Kind::PackedBinary, bytes(1, &[0, 1]), Typed::Bytes(&[1]), "01"),
        (Form::Enum(1), Kind::Enum { members: members.clone() }, vec![3], Typed::Bytes("ü".as_bytes()), "ü"),
        (Form::Enum(2), Kind::Enum { members: members.clone() }, vec![0, 0], Typed::Bytes(b""), ""),
        (Form::Set(1), Kind::Set { members: members.clone() }, vec![0b101], Typed::Bytes("a,ü".as_bytes()), "a,ü"),
        (Form::Set(1), Kind::Set { members }, vec![0], Typed::Bytes(b""), ""),
        (
            Form::Bytes(1),
            Kind::Uuid,
            bytes(1, &uuid),
            Typed::Bytes(b"6ccd780c-baba-1026-9564-5b8c65602400"),
            "6ccd780c-baba-1026-9564-5b8c65602400",
        ),
        (Form::Bytes(1), Kind::Inet4, bytes(1, &[10]), Typed::Bytes(b"10.0.0.0"), "10.0.0.0"),
        (Form::Bytes(1), Kind::Inet6, bytes(1, &[0x20, 1, 0x0D, 0xB8]), Typed::Bytes(b"2001:db8::"), "2001:db8::"),
        (
            Form::Bytes(1),
            Kind::Inet6,
            bytes(1, &[0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4]),
            Typed::Bytes(b"::1.2.3.4"),
            "::1.2.3.4",
        ),
        (
            Form::Bytes(4),
            Kind::Geometry,
            bytes(4, point),
            Typed::Bytes(point),
            "0101000020E610000000000000000000000000000000000000",
        ),
        (Form::Bytes(4), Kind::Vector, bytes(4, floats), Typed::Bytes(floats), "[1.5,0.1,1e30]"),
        (Form::Json(4), Kind::Json, bytes(4, &[2, 1, 0, 7, 0, 5, 7, 0]), Typed::Bytes(b"[7]"), "[7]"),
    ]
}

#[test]
fn addresses_are_printed_as_mariadb_does() {
    let id = column("id", Form::Integer(1), Kind::Integer { unsigned: true });
    let shape = described(vec![id, column("v", Form::Bytes(1), Kind::Inet6)]);
    for text in [
        "::",
        "::1",
        "::1.2.3.4",
        "::ffff:1.2.3.4",
        "1::2:3:4:5:6:7",
        "1::2",
        "1:0:0:2::3",
        "1::2:3:0:0:4",
        "::0.1.0.0",
        "ff::",
        "0:0:1::",
        "64:ff9b::102:304",
        "::ffff",
        "::1:2:3",
        "1:2:3:4:5:6:7:8",
        "2001:db8::ff00:42:8329",
    ] {
        let bytes = text.parse::<std::net::Ipv6Addr>().unwrap().octets();
        let log = row(b'c', 2, &[3], &[&[0, 1, 16][..], &bytes].concat());
        let batch = decode(&mut decoder(None), Some(shape.clone()), &[log]);
        assert_eq!(shown(&batch.tables[0], 0)[1], text);
    }
}

#[test]
fn a_value_is_the_same_from_the_log_and_from_a_snapshot() {
    for (form, kind, bytes, typed, wanted) in [numbers(), times(), words()].concat() {
        let id = column("id", Form::Integer(1), Kind::Integer { unsigned: true });
        let shape = described(vec![id, column("v", form, kind.clone())]);
        let mut writer = SnapshotWriter::new(TABLE);
        writer.push(Typed::UInt(1));
        writer.push(typed);
        let log = row(b'c', 2, &[3], &[&[0, 1][..], &bytes].concat());
        let batch = decode(&mut decoder(None), Some(shape), &[log, writer.record().to_vec()]);
        assert!(batch.rejects.is_empty(), "{form:?} {kind:?}: {:?}", batch.rejects);
        let changes = &batch.tables[0];
        assert_eq!(changes.ops, [Op::Create, Op::Read]);
        assert_eq!(shown(changes, 0)[1], wanted, "{form:?} {kind:?} from the log");
        assert_eq!(shown(changes, 1)[1], wanted, "{form:?} {kind:?} from a snapshot");
    }
}

#[test]
fn values_that_cannot_be_kept_are_refused_with_the_reason() {
    let members = vec!["a".to_owned()];
    let cases: [(Form, Kind, &[u8], &str); 9] = [
        (Form::Timestamp(0), Kind::Timestamp, &[0; 4], "zero"),
        (Form::DateTime(0), Kind::DateTime, &[0x80, 0, 0, 0, 0], "zero"),
        (Form::Bytes(1), text(), &[1, 0xFF], "not text"),
        (Form::Enum(1), Kind::Enum { members: members.clone() }, &[2], "not one of"),
        (Form::Set(1), Kind::Set { members }, &[2], "not one of"),
        (Form::Json(4), Kind::Json, &[1, 0, 0, 0, 99], "not a JSON document"),
        (Form::Bytes(1), Kind::Geometry, &[1, 0], "geometry"),
        (Form::Bytes(1), Kind::Unread { why: "it is a riddle".into() }, &[1, 0], "it is a riddle"),
        (Form::Decimal { precision: 2, scale: 0 }, Kind::Decimal, &[0xFF], "not a value"),
    ];
    for (form, kind, bytes, wanted) in cases {
        let id = column("id", Form::Integer(1), Kind::Integer { unsigned: true });
        let shape = described(vec![id, column("v", form, kind.clone())]);
        let log = row(b'c', 2, &[3], &[&[0, 1][..], bytes].concat());
        let batch = decode(&mut decoder(None), Some(shape), &[log]);
        assert_eq!(batch.rejects.len(), 1, "{kind:?}");
        assert!(batch.rejects[0].reason.contains(wanted), "{kind:?}: {}", batch.rejects[0].reason);
    }
}

fn any_kind() -> impl Strategy<Value = Kind> {
    let members = || proptest::collection::vec("[a-c]{0,3}", 0..5);
    prop_oneof![
        any::<bool>().prop_map(|unsigned| Kind::Integer { unsigned }),
        Just(Kind::Real),
        Just(Kind::Decimal),
        Just(Kind::Bit),
        Just(Kind::Year),
        Just(Kind::Date),
        Just(Kind::Time),
        Just(Kind::DateTime),
        Just(Kind::Timestamp),
        Just(text()),
        Just(Kind::Text { charset: Charset::Utf32 }),
        (0u16..40).prop_map(|width| Kind::Binary { width }),
        members().prop_map(|members| Kind::Enum { members }),
        members().prop_map(|members| Kind::Set { members }),
        Just(Kind::PackedBinary),
        Just(Kind::PackedText { charset: Charset::Latin1 }),
        Just(Kind::Json),
        Just(Kind::Geometry),
        Just(Kind::Vector),
        Just(Kind::Uuid),
        Just(Kind::Inet4),
        Just(Kind::Inet6),
    ]
}

fn any_typed(bytes: &[u8], n: u64) -> Vec<Typed<'_>> {
    let small = n as u8;
    vec![
        Typed::Int(n as i64),
        Typed::UInt(n),
        Typed::Float(n as f32),
        Typed::Double(n as f64),
        Typed::Bytes(bytes),
        Typed::Moment {
            year: n as u16,
            month: small,
            day: small,
            hour: small,
            minute: small,
            second: small,
            micros: n as u32,
        },
        Typed::Time {
            negative: n % 2 == 1,
            days: n as u32,
            hours: small,
            minutes: small,
            seconds: small,
            micros: n as u32,
        },
    ]
}

proptest! {
    #[test]
    fn any_value_of_any_type_is_read_or_refused(
        code: u8, meta in 0u16..70, kind in any_kind(), bytes: Vec<u8>, op in proptest::sample::select(b"cudp".to_vec()),
        presence: [u8; 2], n: u64, default in "[-0-9. :a]{0,20}",
    ) {
        let Some(form) = Form::of(code, meta) else { return Ok(()) };
        let mut columns = columns();
        columns[1] = ColumnShape { default: Some(DefaultValue::Text(default)), ..column("x", form, kind) };
        let image = [&[0, 1, 0, 0, 0][..], &bytes].concat();
        let bitmaps = if matches!(op, b'u' | b'p') { &presence[..] } else { &presence[..1] };
        let mut values = vec![row(op, 3, bitmaps, &image), row(b'c', 3, &[7], &image), row(b'c', 3, &[5], &image), bytes.clone()];
        for typed in any_typed(&bytes, n) {
            let mut writer = SnapshotWriter::new(TABLE);
            [Typed::Int(1), typed, Typed::Int(2)].into_iter().for_each(|value| writer.push(value));
            values.push(writer.record().to_vec());
        }
        let batch = decode(&mut decoder(None), Some(described(columns)), &values);
        let rows = batch.tables.iter().flat_map(|t| &t.ops).filter(|op| **op != Op::Refused).count();
        prop_assert_eq!(rows + batch.rejects.len(), values.len());
    }
}
