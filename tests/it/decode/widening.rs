//! Written columns that become wider by the values that come.

use proptest::prelude::*;

use super::*;

fn written_with(columns: &[(&str, &str)], more: impl FnOnce(&mut TableRoute, &mut ContractFile)) -> DebeziumJson {
    let mut file = contract(columns, &[]);
    for (name, data_type) in columns {
        if data_type.starts_with("decimal") {
            file.encodings.insert((*name).to_owned(), Encoding::Text);
        }
    }
    let mut route = route();
    more(&mut route, &mut file);
    decoder(vec![TableRoute { contract: Some(file), ..route }])
}

/// The type of `v` after this value, and the value; or why it is refused.
fn after(data_type: &str, value: &str) -> Result<(String, String), String> {
    let mut d = written_with(&[("id", "bigint"), ("v", data_type)], |_, _| {});
    let batch = decode(&mut d, &[rec(r#"{"id":1}"#, &envelope("c", "null", &format!(r#"{{"id":1,"v":{value}}}"#)))]);
    assert!(batch.account.balances());
    if let Some(reject) = batch.rejects.first() {
        return Err(format!("{}: {}", reject.rule, reject.reason));
    }
    let changes = batch.tables.iter().find(|changes| !changes.is_empty()).unwrap();
    Ok((changes.contract.input.columns[1].data_type.to_string(), text(changes.rows.column(1), 0)))
}

/// A decimal with a scale, of an arbitrary number of digits.
fn digits(count: usize) -> String {
    "1234567890".chars().cycle().take(count).collect()
}

#[test]
fn a_decimal_becomes_wider_at_the_very_digit() {
    for (data_type, value, becomes, shown) in [
        ("decimal(10,2)", "99999999.99", "decimal(10,2)", "99999999.99"),
        ("decimal(10,2)", "-99999999.99", "decimal(10,2)", "-99999999.99"),
        ("decimal(10,2)", "1.500", "decimal(10,2)", "1.50"),
        ("decimal(10,2)", "100000000", "decimal(18,2)", "100000000.00"),
        ("decimal(10,2)", "-100000000.01", "decimal(18,2)", "-100000000.01"),
        ("decimal(10,2)", "9999999999999999.99", "decimal(18,2)", "9999999999999999.99"),
        ("decimal(10,2)", "10000000000000000", "decimal(28,2)", "10000000000000000.00"),
        ("decimal(10,2)", "0.001", "decimal(12,4)", "0.0010"),
        ("decimal(10,2)", "-0.00001", "decimal(16,8)", "-0.00001000"),
        ("decimal(10,2)", "123456789.125", "decimal(18,4)", "123456789.1250"),
        ("decimal(5,0)", "99999", "decimal(5,0)", "99999"),
        ("decimal(5,0)", "-100000", "decimal(18,0)", "-100000"),
        ("decimal(5,0)", "0.5", "decimal(9,4)", "0.5000"),
        ("decimal(5,0)", "1e17", "decimal(18,0)", "100000000000000000"),
        ("decimal(2,2)", "1", "decimal(18,2)", "1.00"),
        ("decimal(19,2)", "123456789012345678.25", "decimal(28,2)", "123456789012345678.25"),
    ] {
        let (becomes, shown) = (becomes.to_owned(), shown.to_owned());
        assert_eq!(after(data_type, &format!("\"{value}\"")), Ok((becomes, shown)), "{data_type} {value}");
    }
    let (most, more) = (digits(38), digits(39));
    assert_eq!(after("decimal(5,0)", &format!("\"-{most}\"")), Ok(("decimal(38,0)".to_owned(), format!("-{most}"))));
    for beyond in [
        after("decimal(5,0)", &format!("\"{more}\"")),
        after("decimal(5,2)", &format!("\"{}\"", digits(37))),
        after("decimal(5,2)", &format!("\"0.{}\"", digits(36))),
        after("decimal(38,10)", &format!("\"0.{}1\"", digits(10))),
        after("decimal(3,3)", &format!("\"0.{}1\"", digits(37))),
    ] {
        let why = beyond.unwrap_err();
        assert!(why.starts_with("contract: column `v` (decimal(") && why.contains("makes more than 38"), "{why}");
    }
    // A column that is wider than any warehouse's stays as it is.
    let why = after("decimal(50,0)", &format!("\"{}\"", digits(51))).unwrap_err();
    assert!(why.starts_with("contract:"), "{why}");
    for value in ["\"NaN\"", "\"Infinity\"", "\"-Infinity\"", "\"1.2.3\"", "true"] {
        assert!(after("decimal(10,2)", value).is_err(), "{value}");
    }
}

#[test]
fn integers_become_wider_by_their_values() {
    for (data_type, value, becomes) in [
        ("smallint", "32767", "smallint"),
        ("smallint", "32768", "int"),
        ("smallint", "-2147483648", "int"),
        ("smallint", "2147483648", "bigint"),
        ("int", "2147483647", "int"),
        ("int", "-2147483649", "bigint"),
        ("int", "9223372036854775807", "bigint"),
    ] {
        assert_eq!(after(data_type, value), Ok((becomes.to_owned(), value.to_owned())), "{data_type} {value}");
    }
    let why = after("int", "9223372036854775808").unwrap_err();
    assert!(why.contains("beyond 64 bits"), "{why}");
}

/// GIVEN numbers that do not fit, WHEN the contract says `widen: false`, THEN `on_mismatch` decides, as of texts; a column
/// that was learned stays as wide as its source says.
#[test]
fn where_widening_is_off_the_policy_decides() {
    let columns = [("id", "bigint"), ("v", "decimal(5,2)"), ("n", "int")];
    let row = |after: &str| rec(r#"{"id":1}"#, &envelope("u", "null", after));
    let records = [
        row(r#"{"id":1,"v":"1000","n":1}"#),
        row(r#"{"id":2,"v":"0.001","n":2}"#),
        row(r#"{"id":3,"v":"3","n":5000000000}"#),
    ];
    let mut fixed = written_with(&columns, |_, file| file.widen = false);
    let batch = decode(&mut fixed, &records);
    let rules: Vec<&str> = batch.rejects.iter().map(|reject| reject.rule.as_str()).collect();
    assert_eq!(rules, ["contract"; 3], "{:?}", batch.rejects);
    let mut ignoring = written_with(&columns, |route, file| {
        file.widen = false;
        route.on_mismatch = OnMismatch::Ignore;
    });
    let batch = decode(&mut ignoring, &records);
    assert_eq!(rows(&batch), ["u id=1 v=~ n=1", "u id=2 v=~ n=2", "u id=3 v=3.00 n=~"]);
    // With both the column becomes wider, and what is beyond all widening is left out.
    let mut both = written_with(&columns, |route, _| route.on_mismatch = OnMismatch::Ignore);
    let beyond = row(&format!(r#"{{"id":4,"v":"{}","n":4}}"#, digits(40)));
    let batch = decode(&mut both, &[records.as_slice(), &[beyond]].concat());
    assert_eq!(
        rows(&batch).iter().filter(|row| !row.starts_with('x')).collect::<Vec<_>>(),
        ["u id=1 v=1000.00 n=1", "u id=2 v=0.0010 n=2", "u id=3 v=3.0000 n=5000000000", "u id=4 v=~ n=4"]
    );
    let mut learned = decoder(vec![route()]);
    let records = [
        rec(r#"{"id":1}"#, &with_schema(&decimal(2, Some(5)), "c", r#"{"id":1,"v":"AA=="}"#)),
        rec(r#"{"id":1}"#, &with_schema(&decimal(2, Some(5)), "c", r#"{"id":1,"v":"AYag"}"#)),
    ];
    let batch = decode(&mut learned, &records);
    assert!(batch.rejects[0].reason.contains("more digits than the column holds"), "{:?}", batch.rejects);
}

/// GIVEN columns of a key, THEN they get more digits in front of the point, the old key of a row that moves included, and
/// keep their scale, by which keys are told apart as texts.
#[test]
fn a_key_gets_more_digits_and_keeps_its_scale() {
    let mut d = written_with(&[("id", "decimal(4,1)"), ("v", "decimal(4,1)")], |_, _| {});
    let change = |key: &str, op: &str, after: &str| rec(&format!(r#"{{"id":"{key}"}}"#), &envelope(op, "null", after));
    let delete = |key: &str| rec(&format!(r#"{{"id":"{key}"}}"#), &envelope("d", "null", "null"));
    let batch = decode(
        &mut d,
        &[
            change("1.5", "c", r#"{"id":"1.5","v":"2.5"}"#),
            change("1234.5", "c", r#"{"id":"1234.5","v":"2.25"}"#),
            change("1.25", "c", r#"{"id":"1.25","v":"1"}"#),
            delete("1234567890123456789.5"),
        ],
    );
    let found: Vec<String> = rows(&batch).into_iter().filter(|row| !row.starts_with('x')).collect();
    assert_eq!(found, ["c id=1.5 v=2.5", "c id=1234.5 v=2.2500", "d id=1234567890123456789.5 v=null"]);
    assert_eq!(batch.rejects.len(), 1);
    let why = &batch.rejects[0].reason;
    assert!(why.contains("part of the key and keeps its scale"), "{why}");
    let types: Vec<String> =
        batch.tables.last().unwrap().contract.input.columns.iter().map(|c| c.data_type.to_string()).collect();
    assert_eq!(types, ["decimal(28,1)", "decimal(7,4)"]);
}

/// GIVEN numbers that the source sends without a scale, THEN a written decimal stays one, and is widened by its values.
#[test]
fn a_written_decimal_takes_numbers_without_a_scale() {
    let field = logical("struct", "io.debezium.data.VariableScaleDecimal");
    let value = |scale: u32, value: &str| {
        let after = format!(r#"{{"id":1,"v":{{"scale":{scale},"value":"{value}"}}}}"#);
        rec(r#"{"id":1}"#, &with_schema(&field, "c", &after))
    };
    let mut d = written_with(&[("id", "int"), ("v", "decimal(10,2)")], |_, file| file.encodings.clear());
    let batch = decode(&mut d, &[value(1, "Dw=="), value(4, "EtaH"), value(0, "O5rKAA==")]);
    assert!(batch.rejects.is_empty(), "{:?}", batch.rejects);
    let types: Vec<String> =
        batch.tables.iter().map(|changes| changes.contract.input.columns[1].data_type.to_string()).collect();
    assert_eq!(rows(&batch), ["c id=1 v=1.50", "c id=1 v=123.4567", "c id=1 v=1000000000.0000"]);
    assert_eq!(types, ["decimal(10,2)", "decimal(12,4)", "decimal(18,4)"]);
    let mut free = written_with(&[("id", "int"), ("v", "numeric")], |_, _| {});
    let batch = decode(&mut free, &[value(4, "EtaH")]);
    assert_eq!(rows(&batch), ["c id=1 v=123.4567"]);
}

/// GIVEN a row that brings a new column and values that do not fit, in either order, THEN both are taken.
#[test]
fn a_column_is_learned_from_the_row_that_widens_others() {
    for after in [r#"{"id":1,"new":true,"v":"1000","n":99999}"#, r#"{"id":1,"v":"1000","n":99999,"new":true}"#] {
        let mut d = written_with(&[("id", "int"), ("v", "decimal(4,2)"), ("n", "smallint")], |_, _| {});
        let batch = decode(&mut d, &[rec(r#"{"id":1}"#, &envelope("c", "null", after))]);
        assert!(batch.rejects.is_empty(), "{after} {:?}", batch.rejects);
        assert_eq!(rows(&batch), ["c id=1 v=1000.00 n=99999 new=true"], "{after}");
    }
}

/// A number as text, without zeros that say nothing.
fn normal(text: &str) -> String {
    let (sign, number) = text.strip_prefix('-').map_or(("", text), |rest| ("-", rest));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let (whole, fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
    match (whole, fraction) {
        ("", "") => "0".to_owned(),
        (whole, "") => format!("{sign}{whole}"),
        (whole, fraction) => format!("{sign}{}.{fraction}", if whole.is_empty() { "0" } else { whole }),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_decoded_is_what_the_source_wrote(
        (precision, scale) in (1usize..=38).prop_flat_map(|p| (Just(p), 0..=p)),
        values in proptest::collection::vec(("-?[0-9]{1,24}(\\.[0-9]{1,12})?", any::<bool>()), 1..6),
    ) {
        let mut d = written_with(&[("id", "bigint"), ("v", &format!("decimal({precision},{scale})"))], |_, _| {});
        let spelled = |(value, short): &(String, bool)| if *short { normal(value) } else { value.clone() };
        let values: Vec<String> = values.iter().map(spelled).collect();
        let record = |(id, value): (usize, &String)| {
            rec(&format!(r#"{{"id":{id}}}"#), &envelope("c", "null", &format!(r#"{{"id":{id},"v":"{value}"}}"#)))
        };
        let batch = decode(&mut d, &values.iter().enumerate().map(record).collect::<Vec<_>>());
        let mut taken = std::collections::BTreeMap::new();
        let mut widest = (precision - scale, scale);
        for changes in &batch.tables {
            let Type::Decimal { precision, scale } = changes.contract.input.columns[1].data_type else { unreachable!() };
            let now = (usize::from(precision) - scale as usize, scale as usize);
            // It never becomes narrower on either side, nor wider than every warehouse holds.
            prop_assert!(now.0 >= widest.0 && now.1 >= widest.1 && precision <= 38);
            widest = now;
            for row in (0..changes.len()).filter(|row| changes.ops[*row] == Op::Create) {
                taken.insert(text(changes.rows.column(0), row), normal(&text(changes.rows.column(1), row)));
            }
        }
        prop_assert_eq!(taken.len() + batch.rejects.len(), values.len());
        for (id, value) in values.iter().enumerate() {
            match taken.get(&id.to_string()) {
                Some(found) => prop_assert_eq!(found, &normal(value)),
                // Nothing that the column had room for is refused.
                None => {
                    let plain = normal(value);
                    let (whole, fraction) = plain.trim_start_matches('-').split_once('.').unwrap_or((plain.trim_start_matches('-'), ""));
                    prop_assert!(whole.len().max(widest.0) + fraction.len().max(widest.1) > 38, "{value} {widest:?}");
                }
            }
        }
    }
}
