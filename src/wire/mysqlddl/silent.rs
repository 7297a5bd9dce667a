//! How DDL changes rows that are there without any event.

use serde::{Deserialize, Serialize};

use super::columns::longest;
use crate::wire::mysqltype::CatalogColumn;

/// How rows have got values without any event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Silent {
    /// A column was added with a default.
    Filled,
    /// Values were converted, got another name, came or went.
    Rewritten,
}

/// Whether rows have the same values after a column has changed its form.
pub(super) fn keeps_values(old: &CatalogColumn, new: &CatalogColumn, strict: bool) -> bool {
    let never_null = old.nullable && !new.nullable && !strict;
    if old.name != new.name || never_null || old.generated || new.generated {
        return false;
    }
    let charset = |column: &CatalogColumn| column.charset.clone().unwrap_or_default();
    let (before, after) = (charset(old), charset(new));
    // Everything has its place in Unicode.
    let same_text = before == after || !before.is_empty() && after == "utf8mb4";
    let (one, other) = (Declared::of(old), Declared::of(new));
    same_text && (one == other || one.fits_into(&other))
}

/// A type, as far as it says which values it has.
#[derive(Debug, PartialEq, Eq)]
struct Declared<'a> {
    data_type: &'a str,
    /// Of a whole number they say only how it is shown.
    arguments: &'a str,
    unsigned: bool,
}

impl<'a> Declared<'a> {
    fn of(column: &'a CatalogColumn) -> Self {
        let arguments = match column.column_type.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')) {
            Some((arguments, _)) if whole(&column.data_type).is_none() && column.data_type != "year" => arguments,
            _ => "",
        };
        let unsigned = column.column_type.contains(" unsigned");
        Self { data_type: &column.data_type, arguments, unsigned }
    }

    /// Whether every value of it is the same in the other type.
    fn fits_into(&self, wider: &Self) -> bool {
        if self.unsigned != wider.unsigned {
            return false;
        }
        if let (Some(before), Some(after)) = (whole(self.data_type), whole(wider.data_type)) {
            return before <= after;
        }
        let number = |declared: &Self, at: usize| -> u64 {
            declared.arguments.split(',').nth(at).and_then(|number| number.trim().parse().ok()).unwrap_or(0)
        };
        match (self.data_type, wider.data_type) {
            ("decimal", "decimal") => number(self, 1) == number(wider, 1) && number(self, 0) <= number(wider, 0),
            ("varchar", "varchar") | ("char", "char") | ("varbinary", "varbinary") => {
                number(self, 0) <= number(wider, 0)
            }
            ("time", "time") | ("datetime", "datetime") | ("timestamp", "timestamp") => {
                number(self, 0) <= number(wider, 0)
            }
            ("enum", "enum") | ("set", "set") => {
                let more = wider.arguments.strip_prefix(self.arguments);
                more.is_some_and(|more| more.is_empty() || more.starts_with(','))
            }
            (before, after) => match (longest(before), longest(after)) {
                (Some((before, one)), Some((after, other))) => one == other && before <= after,
                _ => false,
            },
        }
    }
}

/// The width of a whole number's type.
fn whole(data_type: &str) -> Option<u8> {
    Some(match data_type {
        "tinyint" => 1,
        "smallint" => 2,
        "mediumint" => 3,
        "int" => 4,
        "bigint" => 8,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(column_type: &str, charset: &str) -> CatalogColumn {
        let data_type = column_type.split(['(', ' ']).next().unwrap_or_default();
        CatalogColumn {
            name: "a".into(),
            data_type: data_type.into(),
            column_type: column_type.into(),
            charset: Some(charset.to_owned()).filter(|charset| !charset.is_empty()),
            nullable: true,
            ..CatalogColumn::default()
        }
    }

    #[test]
    fn what_only_widens_keeps_values() {
        let cases = [
            ("int", "bigint", "", "", true),
            ("int(11)", "int", "", "", true),
            ("bigint", "int", "", "", false),
            ("int unsigned", "bigint", "", "", false),
            ("varchar(9)", "varchar(20)", "utf8mb4", "utf8mb4", true),
            ("varchar(9)", "varchar(9)", "latin1", "utf8mb4", true),
            ("varchar(9)", "varchar(9)", "utf8mb4", "latin1", false),
            ("text", "mediumtext", "utf8mb4", "utf8mb4", true),
            ("text", "blob", "utf8mb4", "", false),
            ("decimal(6,2)", "decimal(9,2)", "", "", true),
            ("decimal(6,2)", "decimal(9,3)", "", "", false),
            ("enum('a','b')", "enum('a','b','c')", "latin1", "latin1", true),
            ("enum('a','b')", "enum('b','a')", "latin1", "latin1", false),
            ("int", "varchar(9)", "", "utf8mb4", false),
        ];
        for (old, new, before, after, kept) in cases {
            assert_eq!(keeps_values(&column(old, before), &column(new, after), true), kept, "{old} {new}");
        }
        let never_null = CatalogColumn { nullable: false, ..column("int", "") };
        assert!(keeps_values(&column("int", ""), &never_null, true));
        assert!(!keeps_values(&column("int", ""), &never_null, false));
    }
}
