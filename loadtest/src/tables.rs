//! The shop's tables for a topology that reads events without schema blocks: a contract file each, and the `tables:` part.

use std::fmt::Write as _;
use std::path::Path;

use loadtest::{ColumnSpec, Kind, Options, Shop, TableExpected};

/// Writes one contract file a table into `folder` and prints the `tables:` part of a topology beside it.
pub fn run(tables: usize, folder: &Path) -> Result<(), String> {
    // Before its first event the shop knows the columns that it begins with; later ones are learned from the stream.
    let options = Options { tables, add_column_after: None, ..Options::default() };
    println!("tables:");
    for (name, table) in &Shop::new(1, options).expected().tables {
        let path = folder.join(format!("{name}.yaml"));
        std::fs::write(&path, contract(table)).map_err(|error| format!("write {}: {error}", path.display()))?;
        println!("  {name}: {{ from: {}, contract: {name}.yaml }}", table.topic);
    }
    Ok(())
}

fn contract(table: &TableExpected) -> String {
    let mut out = "version: 1\ncolumns:\n".to_owned();
    for column in &table.columns {
        let _infallible = writeln!(out, "  - {{ name: {}, type: \"{}\" }}", column.name, type_name(column.kind));
    }
    let _infallible = writeln!(out, "key: [{}]", table.key.join(", "));
    let encoded: Vec<(&ColumnSpec, &str)> =
        table.columns.iter().filter_map(|column| Some((column, encoding(column.kind)?))).collect();
    if !encoded.is_empty() {
        out.push_str("encodings:\n");
    }
    for (column, encoding) in encoded {
        let _infallible = writeln!(out, "  {}: {encoding}", column.name);
    }
    out
}

fn type_name(kind: Kind) -> String {
    match kind {
        Kind::Boolean => "boolean".into(),
        Kind::SmallInt => "smallint".into(),
        Kind::Int => "int".into(),
        Kind::BigInt => "bigint".into(),
        Kind::Double => "double".into(),
        Kind::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
        Kind::Date => "date".into(),
        Kind::Timestamp => "timestamp".into(),
        Kind::TimestampTz => "timestamptz".into(),
        Kind::Text => "text".into(),
        Kind::Json => "json".into(),
        Kind::Uuid => "uuid".into(),
    }
}

/// How a value is spelled where that does not follow from the type.
fn encoding(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Decimal { .. } => Some("base64"),
        Kind::Date => Some("days"),
        Kind::Timestamp => Some("us"),
        _ => None,
    }
}
