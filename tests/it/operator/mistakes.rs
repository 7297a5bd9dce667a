//! What is wrong with operators, and what to do about it.

use super::*;

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

fn mistakes(cases: &[&str]) -> String {
    cases.iter().map(|case| mistake(case)).collect::<Vec<_>>().join("\n")
}

const EXPRESSIONS: &[&str] = &[
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
];

#[test]
fn mistakes_in_expressions_have_a_place_and_advice() {
    assert_snapshot!(mistakes(EXPRESSIONS), @r#"
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
    "#);
}

const OPERATORS: &[&str] = &[
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

#[test]
fn mistakes_in_operators_have_a_place_and_advice() {
    assert_snapshot!(mistakes(OPERATORS), @r#"
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
fn operators_that_do_not_fit_park_the_table() {
    let chain = chain("- drop: [gone]");
    let input = orders();
    let contract =
        Arc::new(Contract { table: "orders".into(), version: 1, input: input.clone(), output: input.clone() });
    let error = chain.apply(changes(&input, &["c | 1 | 1 | x"]), &contract, &mut Output::default()).unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Table("orders".into()));
}
