//! Masks, in rows and in what is refused.

use super::*;

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
