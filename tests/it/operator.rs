//! The stateless operators through their public door: topology text and changes in, changes, rejects and account out.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::buffer::BooleanBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::util::display::array_value_to_string;
use dataflow::batch::{NO_TIME, Op, Seq, TableChanges};
use dataflow::contract::{Column, Contract, TableSchema, Type};
use dataflow::error::ErrorKind;
use dataflow::operator::{Chain, ChainMistake, Output};
use dataflow::progress::Partition;
use insta::assert_snapshot;
use proptest::prelude::*;

const KEY: &str = "0123456789abcdef0123456789abcdef";

fn chain(operators: &str) -> Chain {
    build(operators).unwrap_or_else(|mistakes| panic!("{mistakes:?}"))
}

fn build(operators: &str) -> Result<Chain, Vec<ChainMistake>> {
    let lines: String = operators.lines().map(|line| format!("  {line}\n")).collect();
    let table = serde_saphyr::from_str(&format!("from: shop.orders\noperators:\n{lines}")).unwrap();
    Chain::build("orders", &table)
}

fn schema(columns: &[(&str, &str)], key: &[&str]) -> TableSchema {
    TableSchema {
        columns: columns.iter().map(|(name, kind)| Column::new(*name, kind.parse::<Type>().unwrap())).collect(),
        key: key.iter().map(|k| (*k).to_owned()).collect(),
    }
}

/// A column of a type from texts; "" is null.
fn column(data_type: Type, texts: &[&str]) -> ArrayRef {
    let texts: ArrayRef = Arc::new(texts.iter().map(|t| (!t.is_empty()).then_some(*t)).collect::<StringArray>());
    match data_type.arrow() {
        DataType::Binary => cast(&texts, &DataType::Binary).unwrap(),
        layout => cast(&texts, &layout).unwrap(),
    }
}

/// Rows as `op | cell | cell …`. An update of the key is `m<old key>`; a cell `~` is unchanged.
fn changes(schema: &TableSchema, rows: &[&str]) -> TableChanges {
    let cells: Vec<Vec<&str>> = rows.iter().map(|row| row.split('|').map(str::trim).collect()).collect();
    let columns: Vec<ArrayRef> = schema
        .columns
        .iter()
        .enumerate()
        .map(|(i, c)| {
            let texts: Vec<&str> = cells.iter().map(|row| if row[i + 1] == "~" { "" } else { row[i + 1] }).collect();
            column(c.data_type, &texts)
        })
        .collect();
    let unchanged = (0..schema.columns.len())
        .map(|i| {
            let bits: Vec<bool> = cells.iter().map(|row| row[i + 1] == "~").collect();
            bits.contains(&true).then(|| BooleanBuffer::from(bits))
        })
        .collect();
    let old: Vec<&str> = cells.iter().map(|row| &row[0][1..]).collect();
    let old_keys = cells.iter().any(|row| row[0].starts_with('m')).then(|| {
        let key = schema.column(&schema.key[0]).unwrap();
        RecordBatch::try_from_iter_with_nullable([(key.name.clone(), column(key.data_type, &old), true)]).unwrap()
    });
    let contract =
        Contract { table: "orders".into(), version: 1, input: schema.clone(), output: TableSchema::default() };
    TableChanges {
        contract: Arc::new(contract),
        partition: Partition::new("shop", "shop.orders/0"),
        rows: RecordBatch::try_new(schema.arrow(), columns).unwrap(),
        ops: cells.iter().map(|row| Op::from_letter(&row[0][..1]).unwrap()).collect(),
        seqs: (0..rows.len()).map(|i| Seq { major: 10 + i as u64, ..Seq::default() }).collect(),
        source_times_us: vec![NO_TIME; rows.len()],
        unchanged,
        old_keys,
    }
}

fn contract(chain: &Chain, input: &TableSchema) -> Arc<Contract> {
    let output = chain.output(input).unwrap_or_else(|mistake| panic!("{mistake}"));
    Arc::new(Contract { table: "orders".into(), version: 1, input: input.clone(), output })
}

fn slice(changes: &TableChanges, from: usize, len: usize) -> TableChanges {
    TableChanges {
        contract: Arc::clone(&changes.contract),
        partition: changes.partition.clone(),
        rows: changes.rows.slice(from, len),
        ops: changes.ops[from..from + len].to_vec(),
        seqs: changes.seqs[from..from + len].to_vec(),
        source_times_us: changes.source_times_us[from..from + len].to_vec(),
        unchanged: changes.unchanged.iter().map(|bits| bits.as_ref().map(|b| b.slice(from, len))).collect(),
        old_keys: changes.old_keys.as_ref().map(|keys| keys.slice(from, len)),
    }
}

fn show_rows(changes: &TableChanges) -> Vec<String> {
    let cell = |array: &ArrayRef, row: usize| {
        if array.is_null(row) { "∅".to_owned() } else { array_value_to_string(array, row).unwrap() }
    };
    (0..changes.len())
        .map(|row| {
            let old = match &changes.old_keys {
                Some(keys) if changes.ops[row] == Op::Move => format!("({})", cell(keys.column(0), row)),
                _ => String::new(),
            };
            let cells = changes
                .rows
                .columns()
                .iter()
                .enumerate()
                .map(|(i, array)| if changes.is_unchanged(i, row) { "~".to_owned() } else { cell(array, row) });
            let cells: Vec<String> = cells.collect();
            format!("{} {}{old} | {}", changes.seqs[row].major, changes.ops[row].letter(), cells.join(" | "))
        })
        .collect()
}

fn show(changes: &TableChanges, output: &Output) -> String {
    let names: Vec<String> =
        changes.contract.output.columns.iter().map(|c| format!("{} {}", c.name, c.data_type)).collect();
    let mut lines = vec![names.join(", ")];
    lines.extend(show_rows(changes));
    for reject in &output.rejects {
        lines.push(format!(
            "reject {} {} {} {} {}",
            reject.seq.major,
            reject.op.map_or("-", Op::letter),
            reject.rule,
            reject.key.as_deref().unwrap_or("-"),
            reject.values.as_deref().unwrap_or("-")
        ));
        lines.push(format!("  {}", reject.reason));
    }
    let account = &output.account;
    lines
        .push(format!("filtered {:?} rejected {:?} replaced {}", account.filtered, account.rejected, account.replaced));
    lines.join("\n")
}

fn run(operators: &str, schema: &TableSchema, rows: &[&str]) -> String {
    let chain = chain(operators);
    let mut output = Output::default();
    let result = chain.apply(changes(schema, rows), &contract(&chain, schema), &mut output).unwrap();
    show(&result, &output)
}

fn orders() -> TableSchema {
    schema(&[("id", "bigint"), ("amount", "decimal(12,2)"), ("email", "text")], &["id"])
}

const EVERY_OP: [&str; 8] = [
    "r | 1 | 5.00 | a@x",
    "c | 2 | -5.00 | b@x",
    "u | 1 | -1.00 | a@x",
    "m1 | 3 | -2.00 | a@x",
    "m3 | 4 | 2.00 | a@x",
    "u | 4 | | a@x",
    "d | 4 | |",
    "t | | |",
];

#[test]
fn keep_last_refuses_versions() {
    let operators = "- validate: { name: positive, rule: amount >= 0 }";
    assert_snapshot!(run(operators, &orders(), &EVERY_OP), @r#"
    id bigint, amount decimal(12,2), email text
    10 r | 1 | 5.00 | a@x
    12 x | 1 | ∅ | ∅
    13 d | 1 | ∅ | ∅
    14 m(3) | 4 | 2.00 | a@x
    15 x | 4 | ∅ | ∅
    16 d | 4 | ∅ | ∅
    17 t | ∅ | ∅ | ∅
    reject 11 c positive {"id":2} {"id":2,"amount":"-5.00","email":"b@x"}
      `amount >= 0` does not hold for this row
    reject 12 u positive {"id":1} {"id":1,"amount":"-1.00","email":"a@x"}
      `amount >= 0` does not hold for this row
    reject 13 m positive {"id":3} {"id":3,"amount":"-2.00","email":"a@x"}
      `amount >= 0` does not hold for this row; its key changed, so the row under the old key is removed
    reject 15 u positive {"id":4} {"id":4,"amount":null,"email":"a@x"}
      `amount >= 0` is null for this row
    filtered {} rejected {"positive": 3} replaced 1
    "#);
}

#[test]
fn remove_deletes_the_row() {
    let operators = "- validate: { name: positive, rule: amount >= 0, otherwise: remove }";
    assert_snapshot!(run(operators, &orders(), &EVERY_OP), @r#"
    id bigint, amount decimal(12,2), email text
    10 r | 1 | 5.00 | a@x
    11 d | 2 | ∅ | ∅
    12 d | 1 | ∅ | ∅
    13 d | 1 | ∅ | ∅
    14 m(3) | 4 | 2.00 | a@x
    15 d | 4 | ∅ | ∅
    16 d | 4 | ∅ | ∅
    17 t | ∅ | ∅ | ∅
    reject 11 c positive {"id":2} {"id":2,"amount":"-5.00","email":"b@x"}
      `amount >= 0` does not hold for this row
    reject 12 u positive {"id":1} {"id":1,"amount":"-1.00","email":"a@x"}
      `amount >= 0` does not hold for this row
    reject 13 m positive {"id":3} {"id":3,"amount":"-2.00","email":"a@x"}
      `amount >= 0` does not hold for this row
    reject 15 u positive {"id":4} {"id":4,"amount":null,"email":"a@x"}
      `amount >= 0` is null for this row
    filtered {} rejected {} replaced 4
    "#);
}

#[test]
fn tags_name_the_broken_rules() {
    let operators = "\
- validate: { name: positive, rule: amount >= 0, otherwise: tag }
- validate: { name: inverse, rule: 1 / (amount + 5) > 0, otherwise: tag }";
    assert_snapshot!(run(operators, &orders(), &EVERY_OP), @r#"
    id bigint, amount decimal(12,2), email text, tags text
    10 r | 1 | 5.00 | a@x | ∅
    11 c | 2 | -5.00 | b@x | positive,inverse
    12 u | 1 | -1.00 | a@x | positive
    13 m(1) | 3 | -2.00 | a@x | positive
    14 m(3) | 4 | 2.00 | a@x | ∅
    15 u | 4 | ∅ | a@x | positive,inverse
    16 d | 4 | ∅ | ∅ | ∅
    17 t | ∅ | ∅ | ∅ | ∅
    filtered {} rejected {} replaced 0
    "#);
}

#[test]
fn halt_stops_at_the_row() {
    let chain = chain("- validate: { name: positive, rule: amount >= 0, otherwise: halt }");
    let orders = orders();
    let error =
        chain.apply(changes(&orders, &EVERY_OP), &contract(&chain, &orders), &mut Output::default()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::RuleHalt);
    assert_snapshot!(error, @r#"
    table orders, rule positive: `amount >= 0` does not hold for this row; the row is at shop:shop.orders/0, _seq 00000000000000000000000b000000000000000000000000
      help: the rule says `otherwise: halt`: find out why the source sent the row, then set the rule to keep_last, remove or tag (or change it) and start again; nothing was lost
    "#);
}

#[test]
fn filter_leaves_out_and_deletes() {
    let operators = "- filter: { name: paid, keep: amount > 0 }";
    assert_snapshot!(run(operators, &orders(), &EVERY_OP), @r#"
    id bigint, amount decimal(12,2), email text
    10 r | 1 | 5.00 | a@x
    12 d | 1 | ∅ | ∅
    13 d | 1 | ∅ | ∅
    14 m(3) | 4 | 2.00 | a@x
    15 d | 4 | ∅ | ∅
    16 d | 4 | ∅ | ∅
    17 t | ∅ | ∅ | ∅
    filtered {"paid": 1} rejected {} replaced 0
    "#);
}

#[test]
fn a_table_without_a_key_only_loses_rows() {
    let events = schema(&[("id", "bigint"), ("amount", "bigint")], &[]);
    let operators = "\
- validate: { name: small, rule: amount < 10, otherwise: remove }
- filter: { name: paid, keep: amount > 0 }";
    assert_snapshot!(run(operators, &events, &["c | 1 | 5", "c | 2 | 50", "c | 3 | 0", "u | 4 | 11"]), @r#"
    id bigint, amount bigint
    10 c | 1 | 5
    reject 11 c small - {"id":2,"amount":50}
      `amount < 10` does not hold for this row
    reject 13 u small - {"id":4,"amount":11}
      `amount < 10` does not hold for this row
    filtered {"paid": 1} rejected {"small": 2} replaced 0
    "#);
}

#[test]
fn unchanged_columns_are_not_guessed() {
    let operators = "\
- compute: { net: amount * 2 }
- validate: { name: has_mail, rule: email IS NOT NULL }
- mask: { columns: [email], with: redact }";
    let rows = ["u | 1 | ~ | a@x", "u | 2 | 1.50 | ~", "u | 3 | 2.00 | c@x", "d | 3 | |"];
    assert_snapshot!(run(operators, &orders(), &rows), @r#"
    id bigint, amount decimal(12,2), email text, net decimal(33,2)
    10 u | 1 | ~ | *** | ~
    11 x | 2 | ∅ | ∅ | ∅
    12 u | 3 | 2.00 | *** | 4.00
    13 d | 3 | ∅ | ∅ | ∅
    reject 11 u has_mail {"id":2} {"id":2,"amount":"1.50"}
      `email IS NOT NULL` reads a column that the source left unchanged in this row; let the source send full images (PostgreSQL: REPLICA IDENTITY FULL, MySQL: binlog_row_image=FULL)
    filtered {} rejected {"has_mail": 1} replaced 0
    "#);
    let filter = "- filter: { name: mailed, keep: email IS NOT NULL }\n- mask: { columns: [amount], with: redact }";
    assert_snapshot!(run(filter, &orders(), &rows), @r#"
    id bigint, amount text, email text
    10 u | 1 | ~ | a@x
    11 x | 2 | ∅ | ∅
    12 u | 3 | *** | c@x
    13 d | 3 | ∅ | ∅
    reject 11 u mailed {"id":2} {"id":2,"amount":"***"}
      `email IS NOT NULL` reads a column that the source left unchanged in this row; let the source send full images (PostgreSQL: REPLICA IDENTITY FULL, MySQL: binlog_row_image=FULL)
    filtered {} rejected {"mailed": 1} replaced 0
    "#);
}

#[test]
fn one_bad_row_spoils_only_itself() {
    let counts = schema(&[("id", "bigint"), ("total", "int"), ("parts", "int"), ("word", "text")], &["id"]);
    let operators = "- compute: { each: total / parts, many: total * total, number: CAST(word AS INT) }";
    let rows = [
        "c | 1 | 10 | 2 | 7",
        "c | 2 | 10 | 0 | 7",
        "u | 3 | 2000000000 | 5 | 7",
        "c | 4 | 10 | 5 | seven",
        "m4 | 5 | 10 | 0 | seven",
        "c | 6 | 12 | 3 | 8",
        "d | 6 | | |",
    ];
    assert_snapshot!(run(operators, &counts, &rows), @r#"
    id bigint, total int, parts int, word text, each int, many int, number int
    10 c | 1 | 10 | 2 | 7 | 5 | 100 | 7
    12 x | 3 | ∅ | ∅ | ∅ | ∅ | ∅ | ∅
    14 d | 4 | ∅ | ∅ | ∅ | ∅ | ∅ | ∅
    15 c | 6 | 12 | 3 | 8 | 4 | 144 | 8
    16 d | 6 | ∅ | ∅ | ∅ | ∅ | ∅ | ∅
    reject 11 c compute.each {"id":2} {"id":2,"total":10,"parts":0,"word":"7"}
      `total / parts` cannot be evaluated for this row: Divide by zero error
    reject 12 u compute.many {"id":3} {"id":3,"total":2000000000,"parts":5,"word":"7"}
      `total * total` cannot be evaluated for this row: Overflow happened on: 2000000000 * 2000000000
    reject 13 c compute.number {"id":4} {"id":4,"total":10,"parts":5,"word":"seven"}
      `CAST(word AS INT)` cannot be evaluated for this row: Cannot cast string 'seven' to value of Int32 type
    reject 14 m compute.each {"id":5} {"id":5,"total":10,"parts":0,"word":"seven"}
      `total / parts` cannot be evaluated for this row: Divide by zero error; its key changed, so the row under the old key is removed
    filtered {} rejected {"compute.each": 1, "compute.many": 1, "compute.number": 1} replaced 1
    "#);
}

#[test]
fn a_result_never_has_more_digits_than_its_type() {
    let wide = schema(&[("id", "int"), ("a", "decimal(38,0)")], &["id"]);
    let nines = "9".repeat(38);
    let rows = [format!("c | 1 | {nines}"), "c | 2 | 7".to_owned()];
    let rows: Vec<&str> = rows.iter().map(String::as_str).collect();
    assert_snapshot!(run("- compute: { more: a + 1 }", &wide, &rows), @r#"
    id int, a decimal(38,0), more decimal(38,0)
    11 c | 2 | 7 | 8
    reject 10 c compute.more {"id":1} {"id":1,"a":"99999999999999999999999999999999999999"}
      `a + 1` cannot be evaluated for this row: 100000000000000000000000000000000000000 is too large to store in a Decimal128 of precision 38. Max is 99999999999999999999999999999999999999
    filtered {} rejected {"compute.more": 1} replaced 0
    "#);
}

#[test]
fn refused_rows_are_shown_exactly() {
    let all = schema(
        &[
            ("id", "bigint"),
            ("wide", "decimal(50,3)"),
            ("exact", "numeric"),
            ("ratio", "double"),
            ("single", "real"),
            ("text", "varchar(20)"),
            ("blob", "binary"),
            ("doc", "json"),
            ("broken", "json"),
            ("at", "timestamp"),
            ("there", "timestamptz"),
            ("day", "date"),
            ("hour", "time"),
            ("took", "duration"),
            ("flag", "boolean"),
            ("gone", "text"),
        ],
        &["id", "text"],
    );
    let row = "c | 9223372036854775807 | 12345678901234567890123456789012345678901234567.890 | -0.10 | NaN | 0.1 | a\"b\\c | ab \
               | {\"n\":1.10000000000000000001} | {oops | 1901-02-03T04:05:06.7 | 2024-02-29T00:00:00Z | 0001-01-01 | 23:59:59.5 \
               | -7 | false |";
    assert_snapshot!(run("- validate: { name: never, rule: id < 0 }", &all, &[row]), @r#"
    id bigint, wide decimal(50,3), exact numeric, ratio double, single real, text varchar(20), blob binary, doc json, broken json, at timestamp, there timestamptz, day date, hour time, took duration, flag boolean, gone text
    reject 10 c never {"id":9223372036854775807,"text":"a\"b\\c"} {"id":9223372036854775807,"wide":"12345678901234567890123456789012345678901234567.890","exact":"-0.10","ratio":"NaN","single":0.1,"text":"a\"b\\c","blob":"YWI=","doc":{"n":1.10000000000000000001},"broken":"{oops","at":"1901-02-03T04:05:06.700000","there":"2024-02-29T00:00:00Z","day":"0001-01-01","hour":"23:59:59.500000","took":-7,"flag":false,"gone":null}
      `id < 0` does not hold for this row
    filtered {} rejected {"never": 1} replaced 0
    "#);
}

#[test]
fn a_chain_is_shared_between_tasks() {
    fn shared<T: Send + Sync>(_: &T) {}
    shared(&chain("- compute: { more: id + 1 }"));
}

#[test]
fn rejects_are_masked_even_before_the_mask() {
    let operators = format!(
        "\
- compute: {{ digits: CAST(secret AS INT), name: first || ' ' || last, phone: trim(phone) }}
- validate: {{ name: short, rule: length(email) < 6 }}
- rename: {{ email: contact }}
- mask: {{ columns: [contact, id], with: hmac, domain: customer, key: {KEY} }}
- mask: {{ columns: [name, phone], with: redact }}
- mask: {{ columns: [secret], with: 'null' }}
- drop: [last]"
    );
    let people = schema(
        &[
            ("id", "bigint"),
            ("email", "text"),
            ("secret", "text"),
            ("first", "text"),
            ("last", "text"),
            ("age", "smallint"),
            ("phone", "text"),
        ],
        &["id"],
    );
    let rows = [
        "c | 1 | long.address@x | 12 | Ada | Lovelace | 36 | 555-0199",
        "u | 2 | a@x | hush | Ada | Lovelace | 36 | 555-0199",
        "m3 | 4 | a@x | 12 | Ada | Lovelace | | 555-0199",
        "d | 4 | | | | | |",
    ];
    let shown = run(&operators, &people, &rows);
    for secret in ["long.address", "hush", "Lovelace", "555"] {
        assert!(!shown.contains(secret), "{secret} leaks:\n{shown}");
    }
    assert_snapshot!(shown, @r#"
    id text, contact text, secret text, first text, age smallint, phone text, digits int, name text
    11 x | v1:38e57e38a8ff0fda57a15c1734e03a70 | ∅ | ∅ | ∅ | ∅ | ∅ | ∅ | ∅
    12 m(v1:c3404e6b962a78f90cc99a55a6e06193) | v1:7a320a639c9ecdabbf3cf79316da3c76 | v1:a03509996bd7fd504a3c954d23be5f2b | ∅ | Ada | ∅ | *** | 12 | ***
    13 d | v1:7a320a639c9ecdabbf3cf79316da3c76 | ∅ | ∅ | ∅ | ∅ | ∅ | ∅ | ∅
    reject 10 c short {"id":"v1:a0bfccf8da276862e118b13290fb81d5"} {"id":"v1:a0bfccf8da276862e118b13290fb81d5","email":"v1:212bc4508899a7897eb1ade72dbb3095","secret":null,"first":"Ada","age":36,"phone":"***"}
      `length(email) < 6` does not hold for this row
    reject 11 u compute.digits {"id":"v1:38e57e38a8ff0fda57a15c1734e03a70"} {"id":"v1:38e57e38a8ff0fda57a15c1734e03a70","email":"v1:a03509996bd7fd504a3c954d23be5f2b","secret":null,"first":"Ada","age":36,"phone":"***"}
      `CAST(secret AS INT)` cannot be evaluated for this row (it reads a masked or dropped column, so no details)
    filtered {} rejected {"compute.digits": 1, "short": 1} replaced 0
    "#);
    let masked = chain(&operators).masked_columns();
    assert_eq!(
        masked.iter().map(String::as_str).collect::<Vec<_>>(),
        ["email", "first", "id", "last", "phone", "secret"]
    );
}

#[test]
fn every_mask_on_its_types() {
    let operators = format!(
        "\
- mask: {{ columns: [number, price, word], with: hmac, domain: d, key: {KEY}, key_version: 3 }}
- mask: {{ columns: [card], with: partial, keep_first: 2, keep_last: 2 }}
- mask: {{ columns: [flag], with: redact, replacement: gone }}
- mask: {{ columns: [born], with: truncate_date, to: year }}
- mask: {{ columns: [seen], with: truncate_date, to: month }}
- mask: {{ columns: [blob], with: 'null' }}"
    );
    let all = schema(
        &[
            ("id", "int"),
            ("number", "bigint"),
            ("price", "decimal(9,3)"),
            ("word", "text"),
            ("card", "text"),
            ("flag", "boolean"),
            ("born", "date"),
            ("seen", "timestamptz"),
            ("blob", "binary"),
        ],
        &["id"],
    );
    let rows = [
        "c | 1 | 1 | 1 | 1 | 1234é678 | true | 1969-12-31 | 2024-02-29T23:59:59Z | x",
        "c | 2 | 25 | 2.5 | 2.5 | 1234 | false | 0001-05-05 | 1901-01-31T00:00:00Z | x",
        "c | 3 | | | | | | | |",
    ];
    assert_snapshot!(run(&operators, &all, &rows), @r#"
    id int, number text, price text, word text, card text, flag text, born date, seen timestamptz, blob binary
    10 c | 1 | v3:799064653b253d260fdeb4b2a63ad553 | v3:799064653b253d260fdeb4b2a63ad553 | v3:799064653b253d260fdeb4b2a63ad553 | 12****78 | gone | 1969-01-01 | 2024-02-01T00:00:00Z | ∅
    11 c | 2 | v3:878f2729520caaa63c1690e37cdac988 | v3:7bc87a6ff45b647d81abb9dfdb48ed0c | v3:7bc87a6ff45b647d81abb9dfdb48ed0c | **** | gone | 0001-01-01 | 1901-01-01T00:00:00Z | ∅
    12 c | 3 | ∅ | ∅ | ∅ | ∅ | ∅ | ∅ | ∅ | ∅
    filtered {} rejected {} replaced 0
    "#);
}

#[test]
fn names_are_changed_and_made_safe() {
    let input =
        schema(&[("Id", "int"), ("_op", "text"), ("customerId", "int"), ("tmp", "text"), ("Name", "text")], &["Id"]);
    let operators = "\
- rename: { Id: orderId, Name: name }
- compute: { 'customer id': \"customerid + 1\", name: upper(name) }
- drop: [tmp]";
    let chain = chain(operators);
    let output = chain.output(&input).unwrap();
    assert_eq!(output.key, ["orderid"]);
    let names: Vec<String> = chain.names(&input).unwrap().iter().map(|(from, to)| format!("{from} → {to}")).collect();
    assert_snapshot!(names.join("\n"), @r#"
    Id → orderid
    _op → c_op
    customerId → customerid
    name → name
    customer id → customer_id
    "#);
    // A column that appears later changes no name, though it would be called like a computed one.
    let mut grown = input.clone();
    grown.columns.push(Column::new("customer_id", Type::Int));
    for column in &output.columns {
        assert!(chain.output(&grown).unwrap().column(&column.name).is_some(), "{}", column.name);
    }
    assert_snapshot!(run(operators, &input, &["c | 1 | x | 5 | y | n"]), @r#"
    orderid int, c_op text, customerid int, name text, customer_id bigint
    10 c | 1 | x | 5 | N | 6
    filtered {} rejected {} replaced 0
    "#);
}

#[test]
fn computed_columns_have_contract_types() {
    let input = schema(
        &[
            ("id", "uuid"),
            ("small", "smallint"),
            ("price", "decimal(12,2)"),
            ("exact", "numeric"),
            ("at", "timestamp"),
            ("there", "timestamptz"),
            ("day", "date"),
            ("doc", "json"),
            ("took", "duration"),
            ("hour", "time"),
        ],
        &["id"],
    );
    let operators = "\
- compute:
    a_copy: id
    b_sum: small + 1
    c_net: price * 1.5
    d_cast: CAST(exact AS DECIMAL(38, 4)) + 1
    e_raw: exact
    f_later: at + INTERVAL '1 day'
    g_year: EXTRACT(YEAR FROM at)
    h_month: date_trunc('month', there)
    i_text: \"CASE WHEN price > 10 THEN 'much' ELSE 'little' END\"
    j_gap: at - at
    k_parsed: to_timestamp('2024-01-01T00:00:00Z')
    l_old: at < TIMESTAMP '2024-01-01'
    m_length: char_length(doc)
    n_year: substr(CAST(day AS TEXT), 1, 4)
    o_part: SUBSTRING(CAST(id AS TEXT) FROM 2 FOR 3)
    p_where: POSITION('04' IN id)
    q_trim: trim(BOTH 'x' FROM 'xax')";
    let row = "c | 67e55044-10b1-426f-9247-bb680e5fe0c8 | 3 | 12.50 | 1234567890.12345 | 9999-12-31T00:00:00 \
               | 2024-05-06T01:02:03Z | 2024-02-03 | {} | 5 | 01:02:03";
    let shown = run(operators, &input, &[row]);
    assert_snapshot!(shown, @r#"
    id uuid, small smallint, price decimal(12,2), exact numeric, at timestamp, there timestamptz, day date, doc json, took duration, hour time, a_copy uuid, b_sum bigint, c_net decimal(15,3), d_cast decimal(38,4), e_raw numeric, f_later timestamp, g_year int, h_month timestamptz, i_text text, j_gap duration, k_parsed timestamp, l_old boolean, m_length int, n_year text, o_part text, p_where int, q_trim text
    10 c | 67e55044-10b1-426f-9247-bb680e5fe0c8 | 3 | 12.50 | 1234567890.12345 | 9999-12-31T00:00:00 | 2024-05-06T01:02:03Z | 2024-02-03 | {} | 5 | 01:02:03 | 67e55044-10b1-426f-9247-bb680e5fe0c8 | 4 | 18.750 | 1234567891.1235 | 1234567890.12345 | +10000-01-01T00:00:00 | 9999 | 2024-05-01T00:00:00Z | much | 0 | 2024-01-01T00:00:00 | false | 2 | 2024 | 7e5 | 6 | a
    filtered {} rejected {} replaced 0
    "#);
}

fn mistake(operators: &str) -> String {
    let mistakes = match build(operators) {
        Err(mistakes) => mistakes,
        Ok(chain) => {
            let input = schema(
                &[
                    ("id", "bigint"),
                    ("amount", "decimal(12,2)"),
                    ("email", "text"),
                    ("exact", "numeric"),
                    ("Größe", "int"),
                ],
                &["id"],
            );
            vec![chain.output(&input).expect_err("a mistake")]
        }
    };
    let line = |m: &ChainMistake| format!("{m}\n    {}", m.help.as_deref().unwrap_or("-"));
    mistakes.iter().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn mistakes_have_a_place_and_advice() {
    let cases = [
        "- validate: { name: a, rule: \"amount >= \" }",
        "- validate: { name: a, rule: \"amount >= 0 0\" }",
        "- validate: { name: a, rule: \"'open\" }",
        "- validate: { name: a, rule: \"id > 0 AND\\n  amuont >= 0\" }",
        "- validate: { name: a, rule: \"\\\"Größe\\\" > 0 AND ammount > 0\" }",
        "- validate: { name: a, rule: amount }",
        "- validate: { name: a, rule: \"id > 0 AND email + 1 > length(email, 3)\" }",
        "- validate: { name: a, rule: exact > 5 }",
        "- validate: { name: a, rule: \"sum(amount) > 5\" }",
        "- validate: { name: a, rule: \"amount > 5 AND now() > '2024-01-01'\" }",
        "- validate: { name: a, rule: \"random() > 0.5\" }",
        "- compute: { today: CURRENT_DATE }",
        "- compute: { text: id || $1 }",
        "- compute: { text: email COLLATE x }",
        "- compute: { text: \"email SIMILAR TO 'a'\" }",
        "- validate: { name: a, rule: \"id > 0 AND email > 5\" }",
        "- validate: { name: a, rule: \"CAST(amount AS DATE) > 'soon'\" }",
        "- compute: { list: \"[id, 2]\" }",
        "- compute: { price: \"CAST(email AS DECIMAL)\" }",
        "- validate: { name: a, rule: \"lenght(email) > 5\" }",
        "- validate: { name: a, rule: \"id IN (SELECT 1)\" }",
        "- validate: { name: a, rule: \"row_number() OVER () > 5\" }",
        "- validate: { name: a, rule: \"orders.id > 5\" }",
        "- validate: { name: 'a,b', rule: id > 5 }\n- validate: { name: decode, rule: id > }",
        "- validate: { name: a, rule: id > 5 }\n- filter: { name: a, keep: id > 6 }",
        "- compute: { x: 'NULL' }",
        "- compute: { id: id + 1 }",
        "- mask: { columns: [emial], with: redact }",
        "- mask: { columns: [id], with: redact }",
        "- mask: { columns: [email], with: truncate_date, to: month }",
        "- mask: { columns: [email], with: hmac, key: short, keep_first: 2 }",
        "- mask: { columns: [email], with: partial }",
        "- mask: { columns: [email], with: truncate_date }",
        "- rename: { email: amount }",
        "- rename: { emial: mail }",
        "- drop: [id]",
        "- compute: { tags: email }\n- validate: { name: a, rule: id > 5, otherwise: tag }",
    ];
    let shown: Vec<String> = cases.iter().map(|case| mistake(case)).collect();
    assert_snapshot!(shown.join("\n"), @r#"
    operators[0].validate.rule (byte 10): cannot read the expression: Expected: an expression, found: the end
        -
    operators[0].validate.rule (byte 12): one expression is wanted, but `0` follows it
        -
    operators[0].validate.rule (byte 0): cannot read the expression: Unterminated string literal
        -
    operators[0].validate.rule (byte 13): there is no column `amuont`
        did you mean `amount`?
    operators[0].validate.rule (byte 18): there is no column `ammount`
        did you mean `amount`?
    operators[0].validate.rule (byte 0): a condition is wanted, but `amount` is decimal(12,2)
        compare it with something, e.g. `… > 0` or `… IS NOT NULL`
    operators[0].validate.rule (byte 23): Function 'character_length' expects 1 arguments but received 2
        -
    operators[0].validate.rule (byte 0): column exact is numeric without a fixed scale, so say how many digits count: CAST(exact AS DECIMAL(38, 10))
        -
    operators[0].validate.rule (byte 0): `sum` is an aggregate
        an expression sees one row; aggregates are declared under `windows:`
    operators[0].validate.rule (byte 15): `now` gives another result each time
        the same change must give the same row in every process; use a column of the change
    operators[0].validate.rule (byte 0): `random` gives another result each time
        the same change must give the same row in every process; use a column of the change
    operators[0].compute.today (byte 0): `CURRENT_DATE` gives another result each time
        the same change must give the same row in every process; use a column of the change
    operators[0].compute.text (byte 6): `$1` is a placeholder; write the value itself
        -
    operators[0].compute.text (byte 0): COLLATE is not supported
        text is compared byte by byte; see lower() and upper()
    operators[0].compute.text (byte 0): SIMILAR TO is not supported
        take LIKE, or a regular expression with `~`
    operators[0].validate.rule (byte 11): > puts text and a number together: say which number the text is, e.g. CAST(… AS BIGINT)
        -
    operators[0].validate.rule (byte 5): Unsupported CAST from Decimal128(12, 2) to Date32
        -
    operators[0].compute.list (byte 1): Could not plan array literal
        -
    operators[0].compute.price (byte 5): DECIMAL needs its digits here, e.g. DECIMAL(38, 10)
        -
    operators[0].validate.rule (byte 0): there is no function `lenght`
        did you mean `length`?
    operators[0].validate.rule (byte 0): a subquery cannot be used here
        an expression sees the columns of one row only
    operators[0].validate.rule (byte 0): `row_number(…) over …` is a window function
        an expression sees one row; windows are declared under `windows:`
    operators[0].validate.rule (byte 0): `orders.id` has more than one part
        write the column's name alone: id
    operators[0].validate.name: `a,b` has a comma
        names are listed with commas between them
    operators[1].validate.name: `decode` stands for another kind of refusal
        take another name
    operators[1].validate.rule (byte 4): cannot read the expression: Expected: an expression, found: the end
        -
    operators[1].filter.name: another rule or filter is called `a` too
        they are counted by name
    operators[0].compute.x (byte 0): the result is always null and has no type
        give it a type with CAST(… AS …)
    operators[0].compute.id: `id` is part of the key and cannot be computed
        compute a column with another name
    operators[0].mask.columns: there is no column `emial`
        did you mean `email`?
    operators[0].mask.columns: `id` is part of the key: masked like this, different rows would become one
        take `with: hmac`, which keeps different values different
    operators[0].mask.columns: `email` is text; truncate_date takes date, timestamp and timestamptz
        take another method, or compute a date from it first
    operators[0].mask.keep_first: `keep_first` means something only `with: partial`
        leave it out, or take another method
    operators[0].mask.domain: hmac needs a domain
        its name, e.g. customer: equal values get equal pseudonyms inside one domain, and nothing joins across two
    operators[0].mask.key: the key has 5 bytes; hmac needs 32 or more
        make one with `openssl rand -hex 32`, keep it outside the topology and refer to it: "${MASK_KEY}"
    operators[0].mask.with: partial needs keep_first or keep_last
        to keep nothing, take redact or null
    operators[0].mask.to: truncate_date needs `to: month` or `to: year`
        -
    operators[0].rename.email: there is a column `amount` already
        drop or rename it as well; the columns here are id, amount, email, exact, Größe
    operators[0].rename.emial: there is no column `emial`
        did you mean `email`?
    operators[0].drop: `id` is part of the key and cannot be dropped
        mask it with hmac instead: rows keep their identity
    operators[1].validate.otherwise: there is a column `tags` already
        rename it: `tag` writes the names of broken rules into a column of that name
    "#);
}

#[test]
fn a_column_may_be_written_in_another_case_when_that_leaves_one() {
    let input = schema(&[("id", "int"), ("Name", "text"), ("name", "text"), ("Total", "int")], &["id"]);
    let outcome = |rule: &str| {
        let operators = serde_json::json!({"from": "x", "operators": [{"filter": {"name": "f", "keep": rule}}]});
        let chain = Chain::build("orders", &serde_json::from_value(operators).unwrap()).unwrap();
        chain.output(&input).map(|_| ()).map_err(|mistake| (mistake.offset, mistake.message))
    };
    assert_eq!(outcome("name = Name"), Ok(()));
    assert_eq!(outcome("TOTAL > 1"), Ok(()));
    assert_eq!(outcome("id > 0 AND NAME = 'x'"), Err((Some(11), "`NAME` could be any of Name, name".to_owned())));
    assert_eq!(outcome("\"total\" > 1"), Err((Some(0), "there is no column `total`".to_owned())));
}

#[test]
fn rows_of_an_older_schema_fit_a_newer_contract() {
    let chain = chain("- compute: { double: amount * 2 }");
    let old = schema(&[("id", "int"), ("amount", "int")], &["id"]);
    let new = schema(&[("id", "bigint"), ("amount", "int"), ("note", "text")], &["id"]);
    let mut output = Output::default();
    let rows = changes(&old, &["c | 1 | 5", "m1 | 2 | 6"]);
    let result = chain.apply(rows, &contract(&chain, &new), &mut output).unwrap();
    assert_snapshot!(show(&result, &output), @r#"
    id bigint, amount int, note text, double bigint
    10 c | 1 | 5 | ∅ | 10
    11 m(1) | 2 | 6 | ∅ | 12
    filtered {} rejected {} replaced 0
    "#);
    assert_eq!(result.old_keys.unwrap().column(0).as_primitive::<Int64Type>().value(1), 1);
    // The other way round something would be lost.
    let rows = changes(&new, &["c | 1 | 5 | x"]);
    let error = chain.apply(rows, &contract(&chain, &old), &mut output).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Internal);
}

#[test]
fn operators_that_do_not_fit_park_the_table() {
    let chain = chain("- drop: [gone]");
    let input = orders();
    let contract =
        Arc::new(Contract { table: "orders".into(), version: 1, input: input.clone(), output: input.clone() });
    let error = chain.apply(changes(&input, &["c | 1 | 1 | x"]), &contract, &mut Output::default()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Table("orders".into()));
}

const PROPERTY_CHAIN: &str = "\
- compute: { each: amount / parts, label: \"coalesce(note, 'none')\" }
- validate: { name: bounded, rule: amount < 80 }
- validate: { name: removed, rule: amount > -80, otherwise: remove }
- validate: { name: odd, rule: amount % 2 = 1, otherwise: tag }
- validate: { name: lazy, rule: \"parts <> 0 AND amount / parts < 20 OR note IS NULL\" }
- filter: { name: some, keep: amount <> 7 AND each >= -40 }
- mask: { columns: [id, note], with: hmac, domain: d, key: 0123456789abcdef0123456789abcdef }
- rename: { note: remark }";

fn any_changes() -> impl Strategy<Value = TableChanges> {
    let row = (0u8..7, 0i64..6, -100i64..100, -2i64..3, proptest::option::of("[a-c]{0,2}"), 0u8..10);
    proptest::collection::vec(row, 1..40).prop_map(|rows| {
        let input = schema(&[("id", "bigint"), ("amount", "bigint"), ("parts", "bigint"), ("note", "text")], &["id"]);
        let ops: Vec<Op> = rows
            .iter()
            .map(|r| [Op::Read, Op::Create, Op::Update, Op::Move, Op::Delete, Op::Truncate, Op::Refused][r.0 as usize])
            .collect();
        let has = |i: usize| ops[i].has_row();
        let ids = (0..rows.len()).map(|i| (ops[i] != Op::Truncate).then_some(rows[i].1)).collect::<Int64Array>();
        let amounts = (0..rows.len()).map(|i| has(i).then_some(rows[i].2)).collect::<Int64Array>();
        let parts = (0..rows.len()).map(|i| has(i).then_some(rows[i].3)).collect::<Int64Array>();
        let notes = (0..rows.len()).map(|i| rows[i].4.as_deref().filter(|_| has(i))).collect::<StringArray>();
        let unchanged = (0..rows.len()).map(|i| rows[i].5 == 0 && matches!(ops[i], Op::Update | Op::Move));
        let old = (0..rows.len()).map(|i| (ops[i] == Op::Move).then_some(rows[i].1 + 10)).collect::<Int64Array>();
        let base = changes(&input, &[]);
        TableChanges {
            rows: RecordBatch::try_new(
                input.arrow(),
                vec![Arc::new(ids), Arc::new(amounts), Arc::new(parts), Arc::new(notes)],
            )
            .unwrap(),
            seqs: (0..rows.len()).map(|i| Seq { major: i as u64, ..Seq::default() }).collect(),
            source_times_us: vec![NO_TIME; rows.len()],
            unchanged: vec![None, None, None, Some(unchanged.collect())],
            old_keys: Some(RecordBatch::try_from_iter([("id", Arc::new(old) as ArrayRef)]).unwrap()),
            ops,
            ..base
        }
    })
}

proptest! {
    #[test]
    fn batches_do_not_matter_and_the_account_balances(all in any_changes(), cuts in proptest::collection::vec(0usize..40, 0..5)) {
        let chain = chain(PROPERTY_CHAIN);
        let contract = contract(&chain, &all.contract.input);
        let mut whole = Output::default();
        let rows = chain.apply(all.clone(), &contract, &mut whole).unwrap();

        let mut account = whole.account.clone();
        account.decoded = all.ops.iter().filter(|op| **op != Op::Refused).count() as u64;
        account.written = rows.ops.iter().filter(|op| **op != Op::Refused).count() as u64;
        prop_assert!(account.balances(), "{account:?}");
        let refused = account.rejected.values().sum::<u64>() + account.replaced;
        prop_assert_eq!(whole.rejects.len() as u64, refused);

        let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(all.len())).chain([0, all.len()]).collect();
        cuts.sort_unstable();
        let mut parts = Output::default();
        let mut lines = Vec::new();
        for pair in cuts.windows(2) {
            let part = slice(&all, pair[0], pair[1] - pair[0]);
            lines.extend(show_rows(&chain.apply(part, &contract, &mut parts).unwrap()));
        }
        prop_assert_eq!(lines, show_rows(&rows));
        prop_assert_eq!(format!("{:?}", parts.rejects), format!("{:?}", whole.rejects));
        prop_assert_eq!(parts.account, whole.account);
    }
}

#[test]
fn an_empty_chain_changes_nothing() {
    let table = serde_saphyr::from_str("from: shop.orders").unwrap();
    let chain = Chain::build("orders", &table).unwrap();
    let orders = orders();
    let before = changes(&orders, &EVERY_OP);
    let after = chain.apply(before.clone(), &contract(&chain, &orders), &mut Output::default()).unwrap();
    assert_eq!(after.rows, before.rows);
    assert_eq!(after.ops, before.ops);
    let empty = TableChanges { rows: before.rows.slice(0, 0), ..changes(&orders, &[]) };
    assert!(chain.apply(empty, &contract(&chain, &orders), &mut Output::default()).unwrap().is_empty());
}

#[test]
fn expressions_people_write() {
    let input = schema(
        &[
            ("id", "int"),
            ("email", "text"),
            ("amount", "decimal(12,2)"),
            ("qty", "bigint"),
            ("ratio", "double"),
            ("at", "timestamp"),
            ("flag", "boolean"),
        ],
        &["id"],
    );
    let rows = [
        "c | 1 | Ann@x.org | 12.50 | 7 | 0.1 | 9999-12-31T10:00:00 | true",
        "c | 2 | bob | -0.05 | 0 | -3 | 1969-12-31T23:59:59 | false",
        "c | 3 | | | | | |",
    ];
    let cases = [
        "email ~ '^[^@]+@[^@]+$'",
        "email LIKE '%@%'",
        "email IN ('bob', 'ann')",
        "email IS DISTINCT FROM 'bob'",
        "coalesce(nullif(trim(lower(email)), 'bob'), '-')",
        "split_part(email, '@', 2)",
        "email || ' owes ' || amount",
        "amount BETWEEN 0 AND 20",
        "amount * qty - 1",
        "CASE WHEN qty <> 0 THEN amount / qty END",
        "round(amount, 1)",
        "qty % 2 = 1",
        "id * ratio",
        "at > '2024-01-01'",
        "at::date",
        "EXTRACT(HOUR FROM at)",
        "to_char(at, '%Y-%m')",
        "flag OR qty IS NULL",
        "NOT flag AND qty / qty = 1",
    ];
    let shown: Vec<String> = cases
        .iter()
        .map(|case| {
            let operators = serde_json::json!({"from": "x", "operators": [{"compute": {"out": case}}]});
            let chain = Chain::build("orders", &serde_json::from_value(operators).unwrap()).unwrap();
            let mut output = Output::default();
            let contract = contract(&chain, &input);
            let result = chain.apply(changes(&input, &rows), &contract, &mut output).unwrap();
            let cells =
                show_rows(&result).iter().map(|row| row.rsplit(" | ").next().unwrap().to_owned()).collect::<Vec<_>>();
            format!(
                "{case}: {} = {}; {} refused",
                contract.output.columns[7].data_type,
                cells.join(", "),
                output.rejects.len()
            )
        })
        .collect();
    assert_snapshot!(shown.join("\n"), @r#"
    email ~ '^[^@]+@[^@]+$': boolean = true, false, ∅; 0 refused
    email LIKE '%@%': boolean = true, false, ∅; 0 refused
    email IN ('bob', 'ann'): boolean = false, true, ∅; 0 refused
    email IS DISTINCT FROM 'bob': boolean = true, false, true; 0 refused
    coalesce(nullif(trim(lower(email)), 'bob'), '-'): text = ann@x.org, -, -; 0 refused
    split_part(email, '@', 2): text = x.org, , ∅; 0 refused
    email || ' owes ' || amount: text = Ann@x.org owes 12.50, bob owes -0.05, ∅; 0 refused
    amount BETWEEN 0 AND 20: boolean = true, false, ∅; 0 refused
    amount * qty - 1: decimal(34,2) = 86.50, -1.00, ∅; 0 refused
    CASE WHEN qty <> 0 THEN amount / qty END: decimal(16,6) = 1.785714, ∅, ∅; 0 refused
    round(amount, 1): decimal(12,1) = 12.5, -0.1, ∅; 0 refused
    qty % 2 = 1: boolean = true, false, ∅; 0 refused
    id * ratio: double = 0.1, -6.0, ∅; 0 refused
    at > '2024-01-01': boolean = true, false, ∅; 0 refused
    at::date: date = 9999-12-31, 1969-12-31, ∅; 0 refused
    EXTRACT(HOUR FROM at): int = 10, 23, ∅; 0 refused
    to_char(at, '%Y-%m'): text = 9999-12, 1969-12, ∅; 0 refused
    flag OR qty IS NULL: boolean = true, false, true; 0 refused
    NOT flag AND qty / qty = 1: boolean = false, ∅; 1 refused
    "#);
}

/// GIVEN values, keys and old keys that the warehouse cannot hold, WHEN they pass a table without operators, THEN each is
/// refused, nothing of it goes on, and what does go on can be loaded.
#[test]
fn what_the_warehouse_cannot_hold_is_refused() {
    use dataflow::contract::Limits;
    let table = serde_saphyr::from_str("from: shop.orders").unwrap();
    let chain = Chain::build("orders", &table).unwrap().limited(Some(&Limits::REDSHIFT));
    let input = schema(&[("id", "varchar(5)"), ("v", "double"), ("note", "varchar(4)")], &["id"]);
    let rows = [
        "c | a | 1.5 | ok",
        "c | b | NaN | x",
        "u | b2 | inf | x",
        "ma | c | 2 | too long",
        "c | too long | 1 | x",
        "d | too long | |",
        "mtoo long | e | 3 | y",
        "mtoo long | f | ~ | y",
        "mtoo long | also too long | 1 | y",
        "u | too long | 1 | x",
        "x | too long | |",
        "t | | |",
        "mg | too long | 1 | x",
        "mtoo long | h | NaN | x",
        "c | | 1 | x",
        "u | i | ~ | x",
    ];
    let (changed, output) = apply_limited(&chain, &changes(&input, &rows));
    assert_eq!(
        show_rows(&changed),
        [
            "10 c | a | 1.5 | ok",
            "12 x | b2 | ∅ | ∅",
            "13 d | a | ∅ | ∅",
            "16 c | e | 3.0 | y",
            "17 x | f | ∅ | ∅",
            "21 t | ∅ | ∅ | ∅",
            "22 d | g | ∅ | ∅",
            "23 x | h | ∅ | ∅",
            "25 u | i | ~ | x",
        ]
    );
    let rejects: Vec<(u64, &str, &str)> =
        output.rejects.iter().map(|r| (r.seq.major, r.op.map_or("-", Op::letter), r.rule.as_str())).collect();
    let refused = [
        (11, "c"),
        (12, "u"),
        (13, "m"),
        (14, "c"),
        (15, "d"),
        (17, "m"),
        (18, "m"),
        (19, "u"),
        (22, "m"),
        (23, "m"),
        (24, "c"),
    ];
    assert_eq!(rejects, refused.map(|(seq, op)| (seq, op, "load")));
    assert_eq!(output.account.rejected["load"], 9);
    assert_eq!(output.account.replaced, 2);
    let reason = |seq: u64| output.rejects.iter().find(|r| r.seq.major == seq).unwrap().reason.as_str();
    assert_eq!(reason(11), "Redshift cannot hold it: column v: NaN cannot be loaded");
    assert_eq!(reason(14), "Redshift cannot hold it: column id: 8 bytes are more than the 5 that the column takes");
    assert_eq!(reason(24), "Redshift cannot hold it: a column of the key has no value");
    // Without limits they all pass.
    let (all, output) = apply_limited(&Chain::build("orders", &table).unwrap(), &changes(&input, &rows));
    assert_eq!((all.len(), output.rejects.len()), (rows.len(), 0));
}

/// GIVEN a table with `on_mismatch: ignore`, THEN a value that the warehouse cannot hold becomes null and is counted with the
/// reason; a key that it cannot hold is refused all the same.
#[test]
fn what_the_warehouse_cannot_hold_is_null_where_the_topology_ignores_it() {
    use dataflow::contract::Limits;
    use dataflow::operator::LeftOut;
    let table = serde_saphyr::from_str("{ from: shop.orders, on_mismatch: ignore }").unwrap();
    let chain = Chain::build("orders", &table).unwrap().limited(Some(&Limits::REDSHIFT));
    let input = schema(&[("id", "varchar(5)"), ("v", "double"), ("note", "varchar(4)")], &["id"]);
    let rows = [
        "c | a | 1.5 | ok",
        "c | b | NaN | too long",
        "u | a | inf | ok",
        "ma | c | 2 | too long",
        "c | too long | NaN | x",
        "u | b | ~ | also too long",
        "d | c | |",
    ];
    let (changed, output) = apply_limited(&chain, &changes(&input, &rows));
    assert_eq!(
        show_rows(&changed),
        [
            "10 c | a | 1.5 | ok",
            "11 c | b | ∅ | ∅",
            "12 u | a | ∅ | ok",
            "13 m(a) | c | 2.0 | ∅",
            "15 u | b | ~ | ∅",
            "16 d | c | ∅ | ∅"
        ]
    );
    assert_eq!(output.rejects.iter().map(|r| (r.seq.major, r.rule.as_str())).collect::<Vec<_>>(), [(14, "load")]);
    let left_out = |values, why: &str| LeftOut { values, why: why.to_owned() };
    let expected = [
        ("note".to_owned(), left_out(3, "8 bytes are more than the 4 that the column takes")),
        ("v".to_owned(), left_out(2, "NaN cannot be loaded")),
    ];
    assert_eq!(output.left_out, expected.into());
}

fn apply_limited(chain: &Chain, changes: &TableChanges) -> (TableChanges, Output) {
    let mut output = Output::default();
    let contract = contract(chain, &changes.contract.input);
    let changed = chain.apply(changes.clone(), &contract, &mut output).unwrap();
    (changed, output)
}
