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

mod expressions;
mod limits;
mod masks;
mod mistakes;

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
