//! Contracts: written, learned, and grown on the way.

use super::*;

#[test]
fn a_contract_reads_what_has_no_schema() {
    let columns = [
        ("id", "bigint"),
        ("price", "decimal(10,2)"),
        ("big", "decimal(50,3)"),
        ("free", "numeric"),
        ("day", "date"),
        ("at", "timestamp"),
        ("zoned", "timestamptz"),
        ("clock", "time"),
        ("took", "duration"),
        ("bytes", "binary"),
        ("doc", "json"),
        ("ok", "boolean"),
        ("ratio", "double"),
        ("code", "varchar(3)"),
    ];
    let encodings = [
        ("price", Encoding::Base64),
        ("day", Encoding::Days),
        ("at", Encoding::Milliseconds),
        ("clock", Encoding::Microseconds),
        ("took", Encoding::Microseconds),
        ("bytes", Encoding::Hex),
    ];
    let mut d = written(ContractFile { widen: false, ..contract(&columns, &encodings) });
    let row = r#"{"id":1,"price":"MDk=","big":"-1.5","free":{"scale":1,"value":"Dw=="},"day":17109,"at":1595008822123,"zoned":"2020-07-17T18:00:22Z","clock":1,"took":-90000000000,"bytes":"00ff","doc":"{\"a\":1}","ok":1,"ratio":2,"code":"abc"}"#;
    assert_eq!(
        one(&mut d, row).unwrap(),
        "c id=1 price=123.45 big=-1.500 free=1.5 day=2016-11-04 at=2020-07-17T18:00:22.123 zoned=2020-07-17T18:00:22Z \
         clock=00:00:00.000001 took=-90000000000 bytes=00ff doc={\"a\":1} ok=true ratio=2.0 code=abc"
    );
    assert!(one(&mut d, r#"{"id":1,"code":"äö"}"#).unwrap_err().starts_with("contract: column `code` (varchar(3))"));
    assert_eq!(one(&mut d, r#"{"id":1,"day":"2020-02-29"}"#).unwrap().split(' ').nth(5), Some("day=2020-02-29"));
}

/// GIVEN texts that are longer than their written columns, in bytes, THEN the columns become longer by powers of two, rows
/// before and after them are there, and what no column of the warehouse takes is refused.
#[test]
fn a_text_that_is_too_long_makes_its_column_longer() {
    let columns = [("id", "bigint"), ("code", "varchar(3)"), ("name", "varchar(100)"), ("note", "varchar(3)")];
    let row = |after: &str| rec(r#"{"id":1}"#, &envelope("c", "null", after));
    let records = [
        row(r#"{"id":1,"code":"abc","name":"x","note":"x"}"#),
        row(r#"{"id":2,"code":"äö","name":"x","note":"longer"}"#),
        row(&format!(r#"{{"id":3,"code":"{}","name":"x","note":"x"}}"#, "c".repeat(65_535))),
        row(&format!(r#"{{"id":4,"code":"{}","name":"x","note":"x"}}"#, "c".repeat(65_536))),
    ];
    let mut d = written(contract(&columns, &[]));
    let batch = decode(&mut d, &records);
    assert_eq!(batch.rejects.len(), 1);
    assert!(batch.rejects[0].reason.contains("longer than the column"), "{}", batch.rejects[0].reason);
    assert_eq!(batch.account.rows, 3);
    let types = |changes: &TableChanges| -> Vec<String> {
        changes.contract.input.columns[1..].iter().map(|column| column.data_type.to_string()).collect()
    };
    let rows_of = |changes: &TableChanges| changes.ops.iter().filter(|op| **op != Op::Refused).count();
    let grown: Vec<(usize, Vec<String>)> =
        batch.tables.iter().map(|changes| (rows_of(changes), types(changes))).collect();
    let of = |code: &str, note: &str| {
        vec![format!("varchar({code})"), "varchar(100)".to_owned(), format!("varchar({note})")]
    };
    // A row that was given up half-way leaves nothing.
    let held: Vec<_> = grown.into_iter().filter(|(rows, _)| *rows > 0).collect();
    assert_eq!(held, [(1, of("3", "3")), (1, of("4", "8")), (1, of("65535", "8"))]);
    // Refused where the contract says so; left out where the topology does.
    let file = ContractFile { widen: false, ..contract(&columns, &[]) };
    let batch = decode(&mut written(file.clone()), &records);
    assert_eq!((batch.account.rows, batch.account.rejected), (1, 3));
    assert!(batch.rejects.iter().all(|reject| reject.rule == "contract"));
    let ignoring = TableRoute { contract: Some(file), on_mismatch: OnMismatch::Ignore, ..route() };
    let batch = decode(&mut decoder(vec![ignoring]), &records);
    assert_eq!((batch.account.rows, batch.account.rejected), (4, 0));
    // What fits is not touched by a contract that could grow.
    let ignoring = TableRoute { contract: Some(contract(&columns, &[])), on_mismatch: OnMismatch::Ignore, ..route() };
    let batch = decode(&mut decoder(vec![ignoring]), &records[..2]);
    assert_eq!(rows(&batch), ["c id=1 code=abc name=x note=x", "c id=2 code=äö name=x note=longer"]);
}

#[test]
fn what_is_ambiguous_without_schema_names_the_field_to_add() {
    let columns =
        [("id", "bigint"), ("price", "decimal(10,2)"), ("at", "timestamp"), ("bytes", "binary"), ("took", "duration")];
    let mut d = written(contract(&columns, &[]));
    for (row, expected) in [
        (r#"{"id":1,"at":1595008822123}"#, "`encodings:`"),
        (r#"{"id":1,"took":5}"#, "`encodings:`"),
        (r#"{"id":1,"price":"1234"}"#, "`encodings:`"),
        (r#"{"id":1,"bytes":"00ff"}"#, "`encodings:`"),
        (r#"{"id":1,"fraction":1.5}"#, "contract"),
    ] {
        let error = one(&mut d, row).unwrap_err();
        assert!(error.contains(expected), "{error}");
    }
    assert!(
        one(&mut d, r#"{"id":1,"price":12.5,"at":"2020-01-01T00:00:00","bytes":"AQID"}"#)
            .unwrap()
            .contains("price=12.50")
    );
    let bad = contract(&columns, &[("price", Encoding::Days)]);
    let error = DebeziumJson::new("s", &Debezium::default(), vec![TableRoute { contract: Some(bad), ..route() }]);
    assert_eq!(error.err().map(|e| e.exit_code()), Some(2));
}

#[test]
fn with_schema_and_without_make_the_same_columns() {
    let cases = [
        (decimal(4, Some(8)), "decimal(8,4)", Some(Encoding::Base64), r#""EtaH""#),
        (
            logical("int64", "io.debezium.time.MicroTimestamp"),
            "timestamp",
            Some(Encoding::Microseconds),
            "1595008822123456",
        ),
        (logical("int64", "io.debezium.time.Timestamp"), "timestamp", Some(Encoding::Milliseconds), "1595008822123"),
        (logical("int32", "io.debezium.time.Date"), "date", Some(Encoding::Days), "17109"),
        (logical("int64", "io.debezium.time.MicroTime"), "time", Some(Encoding::Microseconds), "64822000000"),
        (logical("string", "io.debezium.time.ZonedTimestamp"), "timestamptz", None, r#""2016-11-04T11:51:30.5Z""#),
        (logical("string", "io.debezium.data.Uuid"), "uuid", None, r#""b68a35a7-17ad-35b3-af2a-ae46edb4545a""#),
        (logical("string", "io.debezium.data.Json"), "json", None, r#""[1]""#),
        (r#""type":"bytes""#.to_owned(), "binary", Some(Encoding::Base64), r#""AQID""#),
        (r#""type":"double""#.to_owned(), "double", None, "1.25"),
        (r#""type":"boolean""#.to_owned(), "boolean", None, "false"),
    ];
    for (field, data_type, encoding, value) in cases {
        let after = format!(r#"{{"id":1,"v":{value}}}"#);
        let encodings: Vec<_> = encoding.map(|e| ("v", e)).into_iter().collect();
        let mut plain = written(contract(&[("id", "int"), ("v", data_type)], &encodings));
        let plain = decode(&mut plain, &[rec(r#"{"id":1}"#, &envelope("c", "null", &after))]);
        let mut learned = decoder(vec![route()]);
        let learned = decode(&mut learned, &[rec(r#"{"id":1}"#, &with_schema(&field, "c", &after))]);
        assert_eq!(plain.tables[0].rows, learned.tables[0].rows, "{data_type}: {:?}", plain.rejects);
    }
}

#[test]
fn contracts_grow_and_widen_midway() {
    let mut d = decoder(vec![route()]);
    let key = r#"{"id":1}"#;
    let batch = decode(
        &mut d,
        &[
            rec(key, &with_schema(r#""type":"int32""#, "c", r#"{"id":1,"v":1}"#)),
            rec(key, &with_schema(r#""type":"int64""#, "c", r#"{"id":1,"v":5000000000}"#)),
            rec(key, &with_schema(r#""type":"int32""#, "u", r#"{"id":1,"v":2}"#)),
            rec(key, &envelope("u", "null", r#"{"id":1,"v":3,"new":true}"#)),
            rec(key, &envelope("u", "null", r#"{"id":1,"new":false}"#)),
            rec(key, &envelope("c", "null", r#"{"id":1}"#)),
        ],
    );
    assert_eq!(batch.rejects.len(), 0);
    assert_eq!(
        rows(&batch),
        [
            "c id=1 v=1",
            "c id=1 v=5000000000",
            "u id=1 v=2",
            "u id=1 v=3 new=true",
            "u id=1 v=null new=false",
            "c id=1 v=null new=null",
        ]
    );
    assert_eq!(batch.tables.iter().map(|t| t.len()).collect::<Vec<_>>(), [1, 2, 3]);
    assert!(batch.tables.iter().all(|t| t.contract.version == 0 && t.contract.output == t.contract.input));
}

#[test]
fn incompatible_types_are_refused_or_left_out() {
    let key = r#"{"id":1}"#;
    let records = [
        rec(key, &with_schema(r#""type":"int32""#, "c", r#"{"id":1,"v":1}"#)),
        rec(key, &with_schema(r#""type":"string""#, "u", r#"{"id":1,"v":"secret"}"#)),
        rec(key, &envelope("u", "null", r#"{"id":1,"v":"secret"}"#)),
        rec(key, &with_schema(r#""type":"string""#, "c", r#"{"id":1,"v":null}"#)),
    ];
    let batch = decode(&mut decoder(vec![route()]), &records);
    assert_eq!(rows(&batch), ["c id=1 v=1", "x id=1 v=null", "x id=1 v=null", "c id=1 v=null"]);
    for reject in &batch.rejects {
        assert_eq!((reject.rule.as_str(), reject.table.as_deref()), ("contract", Some("orders")));
        assert!(reject.reason.contains("`v`") && !reject.reason.contains("secret"), "{}", reject.reason);
    }
    let mut ignoring = decoder(vec![TableRoute { on_mismatch: OnMismatch::Ignore, ..route() }]);
    let batch = decode(&mut ignoring, &records);
    assert_eq!(rows(&batch), ["c id=1 v=1", "u id=1 v=~", "u id=1 v=~", "c id=1 v=null"]);
}

#[test]
fn a_declared_column_that_must_have_a_value() {
    let mut file = contract(&[("id", "int"), ("v", "text"), ("w", "text")], &[]);
    file.columns[1].nullable = false;
    file.learn = false;
    let mut d = written(file);
    assert!(one(&mut d, r#"{"id":1,"w":"x"}"#).unwrap_err().contains("`v`"));
    assert!(one(&mut d, r#"{"id":1,"v":null}"#).unwrap_err().contains("`v`"));
    assert_eq!(one(&mut d, r#"{"id":1,"v":"x","more":1.5}"#).unwrap(), "c id=1 v=x w=null");
    assert!(one(&mut d, r#"{"id":null,"v":"x"}"#).unwrap_err().contains("`id`"));
}

#[test]
fn contracts_of_the_log_are_taken_over_and_only_grow() {
    let mut d = decoder(vec![route()]);
    let schema = |columns: &[(&str, Type)]| dataflow::contract::TableSchema {
        columns: columns.iter().map(|(n, t)| Column { nullable: *n != "id", ..Column::new(*n, *t) }).collect(),
        key: vec!["id".into()],
    };
    let log = |version, input: dataflow::contract::TableSchema| {
        Arc::new(Contract { table: "orders".into(), version, output: input.clone(), input })
    };
    d.adopt(&[log(3, schema(&[("id", Type::BigInt), ("a", Type::TEXT)]))]).unwrap();
    let batch = decode(&mut d, &[rec(r#"{"id":1}"#, &envelope("c", "null", r#"{"id":1,"b":true}"#))]);
    assert_eq!((rows(&batch), batch.tables[0].contract.version), (vec!["c id=1 a=null b=true".to_owned()], 0));
    // Another process has learned `c`: both are kept, in the log's order first.
    d.adopt(&[log(4, schema(&[("id", Type::BigInt), ("a", Type::TEXT), ("c", Type::TEXT)]))]).unwrap();
    let batch = decode(&mut d, &[rec(r#"{"id":1}"#, &envelope("c", "null", r#"{"id":1}"#))]);
    assert_eq!(rows(&batch), ["c id=1 a=null c=null b=null"]);
    let newest = batch.tables[0].contract.input.clone();
    d.adopt(&[log(5, newest)]).unwrap();
    let batch = decode(&mut d, &[rec(r#"{"id":1}"#, &envelope("c", "null", r#"{"id":1}"#))]);
    assert_eq!(batch.tables[0].contract.version, 5);
    let other_key = dataflow::contract::TableSchema { key: vec!["a".into()], ..schema(&[("a", Type::TEXT)]) };
    assert!(d.adopt(&[log(6, other_key)]).is_err());
}
