//! What people write into computed columns, and what their types become.

use super::*;

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

const EXPRESSIONS: [&str; 19] = [
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
    let shown: Vec<String> = EXPRESSIONS
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
