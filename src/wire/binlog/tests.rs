//! Events made byte by byte.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::Write as _;

use proptest::prelude::*;

use super::*;
use crate::wire::gtid::MariaGtid;
use crate::wire::mysqlcharset::Charset;
use crate::wire::mysqltype::{CatalogColumn, ColumnShape, Form, Kind, code};

const MARIADB: &str = "10.11.19-MariaDB-log";

/// An event without a checksum.
fn event_at(code: u8, log_pos: u32, flags: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = 1_700_000_000u32.to_le_bytes().to_vec();
    bytes.push(code);
    bytes.extend(9u32.to_le_bytes());
    bytes.extend((body.len() as u32 + 19).to_le_bytes());
    bytes.extend(log_pos.to_le_bytes());
    bytes.extend(flags.to_le_bytes());
    bytes.extend(body);
    bytes
}

fn event(code: u8, body: &[u8]) -> Vec<u8> {
    event_at(code, 0, 0, body)
}

/// The same event with its checksum behind it.
fn protected(mut event: Vec<u8>) -> Vec<u8> {
    let size = event.len() as u32 + 4;
    event[9..13].copy_from_slice(&size.to_le_bytes());
    let crc = crc32fast::hash(&event);
    event.extend(crc.to_le_bytes());
    event
}

fn format_description(version: &str, checksum: u8) -> Vec<u8> {
    let mut body = 4u16.to_le_bytes().to_vec();
    let mut name = version.as_bytes().to_vec();
    name.resize(50, 0);
    body.extend(name);
    body.extend([0, 0, 0, 0, 19]);
    body.extend([8; 15]);
    body.push(0);
    body.extend([8; 24]);
    body.push(checksum);
    protected(event(15, &body))
}

fn reader(version: &str, checksum: u8) -> EventReader {
    let mut reader = EventReader::new(Checksum::None);
    let bytes = format_description(version, checksum);
    assert!(matches!(reader.read(&bytes).unwrap().body, Body::FormatDescription(_)));
    reader
}

fn body(code: u8, body: &[u8]) -> Result<String, Malformed> {
    let bytes = event(code, body);
    reader("8.4.0", 0).read(&bytes).map(|event| format!("{:?}", event.body))
}

fn counted(bytes: &[u8]) -> Vec<u8> {
    let mut out = vec![bytes.len() as u8];
    out.extend(bytes);
    out
}

/// `shop.t (id int unsigned primary key, name varchar(20) latin1, kind enum('a','ü') null, doc json)`
fn table_map(metadata: bool) -> Vec<u8> {
    let mut body = [7, 0, 0, 0, 0, 0, 1, 0].to_vec();
    body.extend(counted(b"shop"));
    body.push(0);
    body.extend(counted(b"t"));
    body.push(0);
    body.extend([4, code::LONG, code::VARCHAR, code::STRING, code::JSON]);
    body.extend(counted(&[20, 0, code::ENUM, 1, 4]));
    body.push(0b0100);
    if metadata {
        for (field, value) in [
            (1, [0x80].to_vec()),
            (2, [8].to_vec()),
            (4, [counted(b"id"), counted(b"name"), counted(b"kind"), counted(b"doc")].concat()),
            (6, [vec![2], counted(b"a"), counted("ü".as_bytes())].concat()),
            (8, [0].to_vec()),
            (10, [45].to_vec()),
            (77, [1, 2, 3].to_vec()),
        ] {
            body.push(field);
            body.extend(counted(&value));
        }
    }
    event(19, &body)
}

fn map_of(bytes: &[u8]) -> TableMap {
    match reader("8.4.0", 0).read(bytes).unwrap().body {
        Body::TableMap(map) => {
            assert_eq!((map.table_id, map.name()), (7, Ok(("shop", "t"))));
            map.parse_columns().unwrap()
        }
        other => panic!("{other:?}"),
    }
}

fn catalog() -> Vec<CatalogColumn> {
    let column = |name: &str, column_type: &str, charset: Option<&str>| CatalogColumn {
        name: name.to_owned(),
        data_type: column_type.split(['(', ' ']).next().unwrap().to_owned(),
        column_type: column_type.to_owned(),
        charset: charset.map(str::to_owned),
        key: name == "id",
        nullable: name == "kind",
        ..CatalogColumn::default()
    };
    vec![
        column("id", "int(10) unsigned", None),
        column("name", "varchar(20)", Some("latin1")),
        column("kind", "enum('a','ü')", Some("utf8mb4")),
        column("doc", "json", None),
    ]
}

fn wanted() -> Vec<ColumnShape> {
    let column = |name: &str, form, kind, key| ColumnShape { name: name.into(), form, kind, key, default: None };
    let members = vec!["a".to_owned(), "ü".to_owned()];
    vec![
        column("id", Form::Integer(4), Kind::Integer { unsigned: true }, true),
        column("name", Form::Bytes(1), Kind::Text { charset: Charset::Latin1 }, false),
        column("kind", Form::Enum(1), Kind::Enum { members }, false),
        column("doc", Form::Json(4), Kind::Json, false),
    ]
}

#[test]
fn checksums_are_checked() {
    let mut reader = reader("8.0.36", 1);
    assert_eq!(reader.format().checksum, Checksum::Crc32);
    let mut xid = protected(event(16, &7u64.to_le_bytes()));
    assert_eq!(reader.read(&xid).unwrap().body, Body::Xid(7));
    xid[20] ^= 1;
    assert!(matches!(reader.read(&xid), Err(Malformed::Checksum { .. })));
    // A file that is being written says so in a flag that its checksum leaves out.
    let mut open = format_description("8.0.36", 1);
    open[17] |= 1;
    assert!(reader.read(&open).is_ok());
    open[30] ^= 1;
    assert!(matches!(reader.read(&open), Err(Malformed::Checksum { .. })));
    let mut odd = format_description("8.0.36", 1);
    let at = odd.len() - 5;
    odd[at] = 9;
    assert_eq!(reader.read(&odd), Err(Malformed::ChecksumKind(9)));
    // Servers before checksums end with the lengths of their events.
    let old = event(15, &[&[4, 0][..], b"5.1.73", &[0; 44], &[0, 0, 0, 0, 19], &[0; 27]].concat());
    assert!(EventReader::new(Checksum::None).read(&old).is_ok());
    let odd = event(15, &[&[4, 0][..], b"5.2.2", &[0; 45], &[0, 0, 0, 0, 19], &[6; 22]].concat());
    assert!(EventReader::new(Checksum::None).read(&odd).is_err());
}

#[test]
fn a_table_is_described_by_its_map_alone_or_with_the_catalog() {
    let full = map_of(&table_map(true));
    let described = shape(&full, None).unwrap();
    assert_eq!((described.id, described.name.as_str()), (7, "shop.t"));
    assert_eq!(described.columns, wanted());
    let key = describe_key(&described);
    assert_eq!(serde_json::from_slice::<crate::wire::mysqltype::TableShape>(&key).unwrap(), described);

    let plain = map_of(&table_map(false));
    assert!(matches!(shape(&plain, None), Err(Misfit::Nameless { .. })));
    assert_eq!(shape(&plain, Some(&catalog())).unwrap().columns, wanted());
    assert!(matches!(shape(&plain, Some(&catalog()[1..])), Err(Misfit::Count { log: 4, known: 3, .. })));
    for (at, other) in [(0, "bigint unsigned"), (1, "varchar(21)"), (1, "text"), (2, "set('a')"), (3, "longtext")] {
        let mut columns = catalog();
        columns[at].column_type = other.to_owned();
        columns[at].data_type = other.split(['(', ' ']).next().unwrap().to_owned();
        let misfit = shape(&plain, Some(&columns)).unwrap_err();
        assert!(matches!(misfit, Misfit::Column { at: said, .. } if said == at + 1), "{misfit}");
    }
    let mut columns = catalog();
    assert!(fits(&plain, &columns) && fits(&full, &columns));
    columns[3].nullable = true;
    let misfit = shape(&plain, Some(&columns)).unwrap_err().to_string();
    assert!(misfit.contains("column 4 of shop.t is json that is never null"), "{misfit}");
    columns[3] = CatalogColumn { name: "other".into(), nullable: false, ..columns[3].clone() };
    assert!(fits(&plain, &columns) && !fits(&full, &columns));
    // With `MINIMAL` MySQL says signs and character sets.
    let mut minimal = full.clone();
    minimal.metadata.names = None;
    let mut signed = catalog();
    signed[0].column_type = "int".into();
    let misfit = shape(&minimal, Some(&signed)).unwrap_err().to_string();
    assert!(misfit.contains("int unsigned"), "{misfit}");
    let mut other = catalog();
    other[1].charset = Some("ascii".into());
    let misfit = shape(&minimal, Some(&other)).unwrap_err().to_string();
    assert!(misfit.contains("in latin1"), "{misfit}");
}

#[test]
fn types_that_look_alike_are_told_apart_by_the_catalog() {
    let mut map = map_of(&table_map(true));
    map.columns[1] = MapColumn { code: code::STRING, meta: 16, nullable: true };
    map.metadata.collations.as_mut().unwrap()[1] = Some(63);
    let kind = |catalog: &[CatalogColumn]| shape(&map, Some(catalog)).unwrap().columns[1].kind.clone();
    assert_eq!(kind(&[]), Kind::Binary { width: 16 });
    for (data_type, wanted) in [("uuid", Kind::Uuid), ("inet6", Kind::Inet6), ("inet4", Kind::Binary { width: 16 })] {
        let column = CatalogColumn { name: "name".into(), data_type: data_type.into(), ..CatalogColumn::default() };
        assert_eq!(kind(&[column]), wanted, "{data_type}");
    }
    map.metadata.collations.as_mut().unwrap()[1] = Some(1);
    let unread = shape(&map, None).unwrap().columns[1].kind.clone();
    assert!(matches!(unread, Kind::Unread { why } if why.contains("big5")));
}

#[test]
fn a_long_char_hides_bits_of_its_length_in_its_type() {
    let mut bytes = table_map(true);
    let at = bytes.windows(5).position(|w| w == [20, 0, code::ENUM, 1, 4]).unwrap();
    bytes[at + 2..at + 4].copy_from_slice(&[code::STRING ^ 0x30, 252]);
    assert_eq!(map_of(&bytes).columns[2], MapColumn { code: code::STRING, meta: 1020, nullable: true });
}

fn rows_body(version: u8, bitmaps: &[u8], rows: &[u8]) -> Vec<u8> {
    let mut body = [7, 0, 0, 0, 0, 0, 1, 0].to_vec();
    if version == 2 {
        body.extend([5, 0, 1, 2, 3]);
    }
    body.push(4);
    body.extend(bitmaps);
    body.extend(rows);
    body
}

fn forms() -> Vec<Form> {
    wanted().iter().map(|column| column.form).collect()
}

/// What the rows of an event have: `after` or not, the column, and what is there.
fn cells(bytes: &[u8], version: &str) -> Result<Vec<Vec<String>>, Malformed> {
    let event = reader(version, 0).read(bytes)?;
    let Body::Rows(rows) = event.body else { panic!("{:?}", event.body) };
    let (forms, mut all, mut record) = (forms(), Vec::new(), Vec::new());
    for row in rows.split(&forms)? {
        rows.record(rows.table_id, row?, &mut record);
        let parsed = Record::parse(&record)?;
        assert_eq!((parsed.table, parsed.kind), (7, RecordKind::Row(rows.kind)));
        let (images, bytes) = parsed.images(&forms).unwrap();
        let mut found = Vec::new();
        let length = images.walk(bytes, |after, column, cell| {
            let side = if after { "new" } else { "old" };
            found.push(match cell {
                Cell::Value(bytes) => format!("{side} {column} {bytes:?}"),
                Cell::Diff(bytes) => format!("{side} {column} diff {bytes:?}"),
                other => format!("{side} {column} {other:?}"),
            });
        })?;
        assert_eq!(length, bytes.len());
        all.push(found);
    }
    Ok(all)
}

#[test]
fn row_events_are_split_without_reading_values() {
    let two = [&[0b1100, 1, 0, 0, 0, 1, b'x'][..], &[0b1110, 2, 0, 0, 0]].concat();
    let wanted = [
        vec!["new 0 [1, 0, 0, 0]", "new 1 [1, 120]", "new 2 Null", "new 3 Null"],
        vec!["new 0 [2, 0, 0, 0]", "new 1 Null", "new 2 Null", "new 3 Null"],
    ];
    for (code, version) in [(23, 1), (30, 2)] {
        assert_eq!(cells(&event(code, &rows_body(version, &[0x0F], &two)), "8.0.1").unwrap(), wanted);
    }
    // A minimal update: the key before, the changed columns after.
    let update = event(31, &rows_body(2, &[0b0001, 0b0100], &[0, 9, 0, 0, 0, 0, 2]));
    assert_eq!(cells(&update, "8.0.1").unwrap(), [["old 0 [9, 0, 0, 0]", "new 2 [2]"]]);
    let delete = event(25, &rows_body(1, &[0b0001], &[0, 9, 0, 0, 0]));
    assert_eq!(cells(&delete, "8.0.1").unwrap(), [["old 0 [9, 0, 0, 0]"]]);
    // The last row of these is cut.
    let cut = event(30, &rows_body(2, &[0x0F], &[two.as_slice(), &[0, 3, 0]].concat()));
    assert_eq!(cells(&cut, "8.0.1"), Err(Malformed::Short));
    let wide = event(30, &rows_body(2, &[0x0F], &[0]));
    let Body::Rows(rows) = reader("8.0.1", 0).read(&wide).unwrap().body else { panic!() };
    assert_eq!(rows.split(&forms()[1..]).err(), Some(Malformed::Width { event: 4, map: 3 }));
    // Rows without a column would never end.
    assert!(cells(&event(30, &rows_body(2, &[0], &[0, 0])), "8.0.1").is_err());
}

#[test]
fn differences_of_json_are_found() {
    let value = [3, 0, 0, 0, 2, 1, b'$'];
    let rows = [&[0, 9, 0, 0, 0][..], &[1, 0b1, 0], &value].concat();
    let bytes = event(39, &rows_body(2, &[0b0001, 0b1000], &rows));
    assert_eq!(cells(&bytes, "8.0.1").unwrap(), [["old 0 [9, 0, 0, 0]", "new 3 diff [3, 0, 0, 0, 2, 1, 36]"]]);
    let rows = [&[0, 9, 0, 0, 0][..], &[0, 0], &value].concat();
    let bytes = event(39, &rows_body(2, &[0b0001, 0b1000], &rows));
    assert_eq!(cells(&bytes, "8.0.1").unwrap()[0][1], "new 3 [3, 0, 0, 0, 2, 1, 36]");
}

/// As MariaDB compresses.
fn deflated(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(bytes).unwrap();
    [&[0x82, 0, bytes.len() as u8][..], &encoder.finish().unwrap()].concat()
}

#[test]
fn compressed_events_are_read() {
    let rows = deflated(&[0b1110, 2, 0, 0, 0]);
    assert_eq!(cells(&event(166, &rows_body(1, &[0x0F], &rows)), MARIADB).unwrap()[0][0], "new 0 [2, 0, 0, 0]");
    let query = [&[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, b'd', 0][..], &deflated(b"drop table t")].concat();
    assert!(body(165, &query).unwrap().contains("drop table t"));
    // A length that is not kept, and one that promises more than there is.
    let mut wrong = rows.clone();
    wrong[2] += 1;
    assert!(cells(&event(166, &rows_body(1, &[0x0F], &wrong)), MARIADB).is_err());
    assert!(body(165, &[&query[..15], &[0x84, 0x3F, 0xFF, 0xFF, 0xFF, 1]].concat()).is_err());
}

fn payload(parts: &[Vec<u8>], compress: bool) -> Vec<u8> {
    let events = parts.concat();
    let packed = if compress { zstd::encode_all(&events[..], 3).unwrap() } else { events.clone() };
    let mut body = vec![2, 1, if compress { 0 } else { 255 }, 3, 3, 252];
    if !compress {
        body = vec![2, 3, 252, 255, 0, 3, 3, 252];
    }
    body.extend((events.len() as u16).to_le_bytes());
    body.extend([1, 3, 252]);
    body.extend((packed.len() as u16).to_le_bytes());
    body.push(0);
    body.extend(packed);
    body
}

#[test]
fn compressed_transactions_are_read_event_by_event() {
    for compress in [true, false] {
        let parts = [table_map(true), event(16, &1u64.to_le_bytes())];
        let bytes = event(40, &payload(&parts, compress));
        let mut reader = reader("8.4.0", 0);
        let Body::Payload(payload) = reader.read(&bytes).unwrap().body else { panic!() };
        let mut events = payload.events().unwrap();
        let mut codes = Vec::new();
        while let Some(inner) = events.next_event().unwrap() {
            codes.push(reader.read_inner(inner).unwrap().header.code);
        }
        assert_eq!(codes, [19, 16]);
    }
    // Cut, or with an event that promises a gigabyte.
    let mut cut = event(16, &1u64.to_le_bytes());
    cut.truncate(21);
    let mut huge = event(16, &[]);
    huge[9..13].copy_from_slice(&(1u32 << 30).to_le_bytes());
    for part in [cut, huge] {
        let bytes = event(40, &payload(&[part], true));
        let Body::Payload(payload) = reader("8.4.0", 0).read(&bytes).unwrap().body else { panic!() };
        assert_eq!(payload.events().unwrap().next_event(), Err(Malformed::Short));
    }
}

/// A number as MySQL's serialisation library writes small ones.
fn varlen(number: u64) -> Vec<u8> {
    if number < 128 { vec![(number as u8) << 1] } else { [&[0xFF][..], &number.to_le_bytes()].concat() }
}

#[test]
fn transactions_are_named() {
    let uuid: Vec<u8> = (0..16).collect();
    let time = 1_700_000_000_123_456u64;
    let clock = [&[2][..], &[0; 16], &(time | 1 << 55).to_le_bytes()[..7], &time.to_le_bytes()[..7]].concat();
    let plain = [&[1][..], &uuid, &5u64.to_le_bytes(), &clock].concat();
    let text = body(33, &plain).unwrap();
    assert!(text.contains("number: 5, commit_us: Some(1700000000123456)"), "{text}");
    assert_eq!(body(34, &plain).unwrap(), "Anonymous { commit_us: Some(1700000000123456) }");

    let tag = [&varlen(3)[..], &varlen(2), b"ab"].concat();
    let id = (0..16).flat_map(varlen).collect::<Vec<_>>();
    let fields = [
        [varlen(0), varlen(1)].concat(),
        [varlen(1), id].concat(),
        [varlen(2), varlen(18)].concat(),
        tag,
        [varlen(6), varlen(time)].concat(),
    ]
    .concat();
    let tagged = [vec![2], varlen(fields.len() as u64 + 3), varlen(9), fields].concat();
    let text = body(42, &tagged).unwrap();
    assert!(text.contains("tag: Some(Tag(\"ab\")), number: 9, commit_us: Some(1700000000123456)"), "{text}");

    let gtid = [&3u64.to_le_bytes()[..], &1u32.to_le_bytes(), &[1 | 32]].concat();
    let wanted = MariaGtid { domain: 1, server: 9, sequence: 3 };
    assert_eq!(body(162, &gtid).unwrap(), format!("MariaGtid {{ gtid: {wanted:?}, standalone: true, ddl: true }}"));
    let list = [&1u32.to_le_bytes()[..], &1u32.to_le_bytes(), &9u32.to_le_bytes(), &3u64.to_le_bytes()].concat();
    assert_eq!(body(163, &list).unwrap(), format!("MariaGtidList([{wanted:?}])"));
    assert_eq!(body(163, &[255, 255, 255, 15]), Err(Malformed::Short));
    assert!(body(35, &[0; 8]).unwrap().starts_with("PreviousGtids"));
}

#[test]
fn statements_are_text_in_the_clients_character_set() {
    let query = |variables: &[u8], text: &[u8]| {
        let head = [&[1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, variables.len() as u8, 0][..], variables, b"shop\0"].concat();
        body(2, &[&head, text].concat()).unwrap()
    };
    let latin1 = [0, 0, 0, 0, 0, 6, 3, b's', b't', b'd', 4, 8, 0, 8, 0, 8, 0];
    assert!(query(&latin1, b"create table caf\xe9 (a int)").contains("create table café (a int)"));
    assert!(query(&[], "create table ü".as_bytes()).contains("database: \"shop\", text: \"create table ü\""));
}

#[test]
fn what_says_nothing_of_data_is_passed_over_and_nothing_else() {
    for quiet in [5, 9, 11, 13, 14, 17, 28, 36, 37, 100] {
        assert_eq!(body(quiet, &[0; 24]).unwrap(), "Nothing", "{quiet}");
    }
    let head = [1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 0, 0, 0];
    let load = [&head[..], &[7; 13], b"shop\0LOAD DATA INFILE 'a' INTO TABLE t"].concat();
    assert!(body(18, &load).unwrap().contains("database: \"shop\", text: \"LOAD DATA INFILE 'a' INTO TABLE t\""));
    assert_eq!(body(18, &load[..20]), Err(Malformed::Short));
    assert_eq!(body(164, &[0; 20]), Err(Malformed::Encrypted));
    assert_eq!(body(20, &[0; 20]), Err(Malformed::Ancient(20)));
    assert_eq!(body(99, &[0; 20]), Err(Malformed::Unknown(99)));
    let marked = event_at(99, 0, Header::IGNORABLE_FLAG, &[1, 2]);
    assert_eq!(reader("8.4.0", 0).read(&marked).unwrap().body, Body::Nothing);
    assert_eq!(body(4, &[4, 0, 0, 0, 0, 0, 0, 0, b'b']).unwrap(), "Rotate { position: 4, file: \"b\" }");
    assert!(body(26, &[1, 0, 4, b'l', b'o', b's', b't']).unwrap().contains("message: \"lost\""));
    assert_eq!(body(41, &[1, 1, b'b', 2, 2, 252, 0]).unwrap_err(), Malformed::Short);
    assert!(body(41, &[1, 1, b'b', 2, 1, 9, 0]).unwrap().contains("position: 9"));
    let heart = event_at(27, 77, 0, b"bin.000001");
    let heart = reader("8.4.0", 0).read(&heart).unwrap().body;
    assert_eq!(heart, Body::Heartbeat(Heartbeat { file: "bin.000001", position: 77 }));
    assert!(body(38, &[1, 1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, b'g', b'b']).unwrap().contains("one_phase: true"));
    assert_eq!(body(29, &[3, b's']).unwrap(), "Annotate([115])");
}

#[test]
fn files_are_read_to_their_end() {
    let events = [format_description("8.4.0", 0), event(16, &1u64.to_le_bytes()), event(3, &[])];
    let bytes = [&b"\xfebin"[..], &events.concat()].concat();
    let mut file = BinlogFile::new(&bytes).unwrap();
    let mut places = Vec::new();
    while let Some((at, event)) = file.next_event() {
        places.push((at, event.unwrap().header.code));
    }
    assert_eq!(places, [(4, 15), (4 + events[0].len() as u64, 16), (31 + events[0].len() as u64, 3)]);
    let mut cut = BinlogFile::new(&bytes[..bytes.len() - 1]).unwrap();
    let last = std::iter::from_fn(|| cut.next_event()).last().unwrap();
    assert_eq!(last.1, Err(Malformed::Short));
    assert_eq!(BinlogFile::new(b"\xfdbin").err(), Some(Malformed::Encrypted));
    assert!(BinlogFile::new(b"%PDF").is_err());
}

#[test]
fn snapshot_rows_are_read_back() {
    let values = [
        Typed::Null,
        Typed::Int(-1),
        Typed::UInt(u64::MAX),
        Typed::Float(0.1),
        Typed::Double(0.1),
        Typed::Bytes(b"abc"),
        Typed::Moment { year: 2024, month: 2, day: 29, hour: 1, minute: 2, second: 3, micros: 4 },
        Typed::Time { negative: true, days: 34, hours: 22, minutes: 59, seconds: 59, micros: 5 },
    ];
    let mut writer = SnapshotWriter::new(u64::MAX);
    for _ in 0..2 {
        writer.clear();
        values.iter().for_each(|value| writer.push(*value));
    }
    let record = Record::parse(writer.record()).unwrap();
    assert_eq!((record.kind, record.table), (RecordKind::Snapshot, u64::MAX));
    assert_eq!(record.values().collect::<Result<Vec<_>, _>>().unwrap(), values);
    let truncate = truncate_record(3);
    assert_eq!(Record::parse(&truncate).unwrap().kind, RecordKind::Truncate);
    for bytes in [&b""[..], b"x", b"r123", b"u12345678\xff\xff"] {
        assert!(Record::parse(bytes).is_err());
    }
}

fn any_form() -> impl Strategy<Value = Form> {
    (any::<u8>(), any::<u16>()).prop_filter_map("a known type", |(code, meta)| Form::of(code, meta & 0xFF))
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(code: u8, flags: u16, bytes: Vec<u8>, mariadb: bool, forms in proptest::collection::vec(any_form(), 0..12)) {
        let event = event_at(code, 0, flags, &bytes);
        let mut reader = reader(if mariadb { MARIADB } else { "9.0.0" }, 0);
        match reader.read(&event).map(|event| event.body) {
            Ok(Body::TableMap(map)) => {
                let _name = map.name();
                if let Ok(map) = map.parse_columns() {
                    let _shape = (shape(&map, None), shape(&map, Some(&catalog())));
                }
            }
            Ok(Body::Rows(rows)) => {
                let forms: Vec<Form> = forms.iter().copied().cycle().take(rows.width.min(4_096)).collect();
                if let Ok(split) = rows.split(&forms) {
                    prop_assert!(split.count() <= bytes.len() + 1);
                }
            }
            Ok(Body::Payload(payload)) => {
                if let Ok(mut events) = payload.events() {
                    while let Ok(Some(inner)) = events.next_event() {
                        let _any = reader.read_inner(inner);
                    }
                }
            }
            _ => {}
        }
        let _any = (reader.read(&bytes), Record::parse(&bytes).map(|record| record.values().count()));
    }

    #[test]
    fn any_change_of_a_table_map_is_read_or_refused(at: usize, byte: u8, cut: usize) {
        let mut bytes = table_map(true);
        let (at, cut) = (19 + at % (bytes.len() - 19), 19 + cut % (bytes.len() - 19));
        bytes[at] = byte;
        bytes.truncate(cut);
        let size = bytes.len() as u32;
        bytes[9..13].copy_from_slice(&size.to_le_bytes());
        if let Ok(Body::TableMap(map)) = reader("8.4.0", 0).read(&bytes).map(|event| event.body)
            && let Ok(map) = map.parse_columns()
        {
            let _shape = (shape(&map, None), shape(&map, Some(&catalog())));
        }
    }
}
