//! Written columns that become wider by the values that come.

use arrow::array::AsArray;
use arrow::datatypes::Int32Type;

use super::{columns, decode, described, row, shown, whole};
use crate::batch::Op;
use crate::config::OnMismatch;
use crate::decode::binlog::BinlogDecoder;
use crate::decode::debezium::TableRoute;

/// A written contract whose column `x` is a `narrow`.
fn narrow(narrow: &str, widen: bool) -> BinlogDecoder {
    let columns = [("id", "int"), ("x", narrow), ("y", "smallint")];
    let columns = columns.map(|(name, text)| crate::contract::Column::new(name, text.parse().unwrap())).to_vec();
    let key = vec!["id".to_owned()];
    let encodings = Default::default();
    let contract = Some(crate::config::ContractFile { version: 1, columns, key, learn: true, widen, encodings });
    let on_mismatch = OnMismatch::Quarantine;
    let route =
        TableRoute { table: "t".into(), stream: "shop.t".into(), key: None, contract, on_mismatch, gone: Vec::new() };
    BinlogDecoder::new("s", vec![route]).unwrap()
}

#[test]
fn a_text_that_is_too_long_makes_its_column_longer() {
    let values = [
        row(b'c', 3, &[7], &whole(1, b"abc", 5)),
        row(b'u', 3, &[7, 7], &[whole(1, b"abc", 5), whole(2, b"longer", 6)].concat()),
        row(b'd', 3, &[7], &whole(2, b"longer", 6)),
    ];
    let batch = decode(&mut narrow("varchar(3)", true), Some(described(columns())), &values);
    assert!(batch.rejects.is_empty(), "{:?}", batch.rejects);
    let ops: Vec<Op> = batch.tables.iter().flat_map(|table| table.ops.clone()).collect();
    assert_eq!(ops, [Op::Create, Op::Move, Op::Delete]);
    let last = batch.tables.last().unwrap();
    assert_eq!(last.contract.input.columns[1].data_type.to_string(), "varchar(8)");
    assert_eq!(shown(last, 0), ["2", "longer", "6"]);
    assert_eq!(last.old_keys.as_ref().unwrap().column(0).as_primitive::<Int32Type>().value(0), 1);
    let batch = decode(&mut narrow("varchar(3)", false), Some(described(columns())), &values);
    assert_eq!((batch.rejects.len(), batch.rejects[0].rule.as_str()), (1, "contract"));
}

/// GIVEN a text that was written as a decimal, THEN the column becomes wider by what the text says; a number that it cannot
/// hold leaves the mark of a refused version.
#[test]
fn a_written_decimal_becomes_wider_by_its_values() {
    let beyond = [b'9'; 40];
    let values = [
        row(b'c', 3, &[7], &whole(1, b"1.5", 5)),
        row(b'c', 3, &[7], &whole(2, b"-12345.678", 5)),
        row(b'u', 3, &[7, 7], &[whole(2, b"-12345.678", 5), whole(3, b"1234567890123456", 6)].concat()),
        row(b'c', 3, &[7], &whole(4, &beyond, 5)),
    ];
    let batch = decode(&mut narrow("decimal(5,2)", true), Some(described(columns())), &values);
    let types = batch.tables.iter().map(|changes| changes.contract.input.columns[1].data_type.to_string());
    assert_eq!(types.collect::<Vec<_>>(), ["decimal(5,2)", "decimal(18,4)", "decimal(28,4)"]);
    let found: Vec<_> = batch.tables.iter().flat_map(|t| (0..t.len()).map(|row| shown(t, row))).collect();
    assert_eq!(
        found,
        [["1", "1.50", "5"], ["2", "-12345.6780", "5"], ["3", "1234567890123456.0000", "6"], ["4", "null", "null"]]
    );
    assert_eq!(batch.rejects.len(), 1);
    assert!(batch.rejects[0].reason.contains("makes more than 38"), "{}", batch.rejects[0].reason);
    let batch = decode(&mut narrow("decimal(5,2)", false), Some(described(columns())), &values);
    assert!(batch.rejects.iter().all(|reject| reject.rule == "contract"));
    assert_eq!(batch.rejects.len(), 3);
}
