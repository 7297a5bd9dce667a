//! What the warehouse cannot hold.

use super::*;

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
