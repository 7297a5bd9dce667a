//! Column definitions, to what `information_schema` would say of them.

use super::words::{Word, Words};
use crate::wire::mysqltype::{CatalogColumn, DefaultValue};

/// An item between the parentheses of `CREATE TABLE`.
pub(super) enum Definition {
    Column(Box<CatalogColumn>),
    /// The names of its columns.
    PrimaryKey(Vec<String>),
    /// An index or a constraint that says nothing of columns.
    Other,
}

const KEYS: [&str; 9] = ["PRIMARY", "KEY", "INDEX", "UNIQUE", "FULLTEXT", "SPATIAL", "CONSTRAINT", "FOREIGN", "CHECK"];

impl Definition {
    /// Reads an item, in a table of that character set.
    pub fn read(mut words: Words, charset: &str) -> Option<Self> {
        if words.is_any(&KEYS) {
            return Some(primary_key(&words).map_or(Self::Other, Self::PrimaryKey));
        }
        if words.is("PERIOD") && words.rest().get(1).is_some_and(|word| word.is("FOR")) {
            return Some(Self::Other);
        }
        let name = words.identifier()?;
        column(name, &mut words, charset).map(|column| Self::Column(Box::new(column)))
    }
}

/// The columns in `[CONSTRAINT [name]] PRIMARY KEY … (…)`.
pub(super) fn primary_key(words: &Words) -> Option<Vec<String>> {
    let mut words = words.clone();
    if words.take("CONSTRAINT") && !words.is("PRIMARY") {
        words.identifier()?;
    }
    if !words.take("PRIMARY") {
        return None;
    }
    while !words.rest().is_empty() {
        if let Some(columns) = words.parentheses() {
            return Some(columns.split_commas().into_iter().filter_map(|mut column| column.identifier()).collect());
        }
        words.next();
    }
    None
}

/// The character set among the options of a table or database.
pub(super) fn charset_option(words: &[Word]) -> Option<String> {
    let value = |at: usize| words[at..].iter().find(|word| !word.is_sign("=")).and_then(|w| w.name().or(w.text()));
    let mut found = None;
    for (at, word) in words.iter().enumerate() {
        if word.is("CHARSET") || word.is("SET") && at > 0 && words[at - 1].is("CHARACTER") {
            return value(at + 1).map(str::to_ascii_lowercase);
        }
        if word.is("COLLATE") {
            found = value(at + 1).and_then(of_collation);
        }
    }
    found
}

/// The character set of a collation's name.
fn of_collation(collation: &str) -> Option<String> {
    let charset = collation.split('_').next()?.to_ascii_lowercase();
    Some(charset).filter(|charset| !charset.is_empty() && charset != "uca1400")
}

/// A column's definition behind its name; `None` when it is not understood.
pub(super) fn column(name: String, words: &mut Words, charset: &str) -> Option<CatalogColumn> {
    let mut written = words.identifier()?.to_ascii_lowercase();
    let second = if written == "double" { "PRECISION" } else { "VARYING" };
    if words.take(second) && second == "VARYING" {
        written = "varchar".to_owned();
    }
    let national = written.starts_with('n') && ["nchar", "nvarchar", "national"].contains(&written.as_str());
    if written == "national" {
        written = words.identifier()?.to_ascii_lowercase();
    }
    let arguments = words.parentheses();
    let data_type = real_type(&written)?;
    // `TEXT(100)` becomes the smallest type that holds so many characters.
    if arguments.is_some() && matches!(data_type, "text" | "blob") {
        return None;
    }
    let mut column =
        CatalogColumn { name, data_type: data_type.to_owned(), nullable: true, ..CatalogColumn::default() };
    column.column_type = format!("{data_type}{}", spelled(&arguments, written == "bool" || written == "boolean"));
    let own = attributes(&mut column, words)?;
    if is_text(data_type) {
        let charset = own.or_else(|| national.then(|| "utf8mb3".to_owned())).unwrap_or_else(|| charset.to_owned());
        take_charset(&mut column, charset);
    }
    if written == "serial" {
        column.column_type.push_str(" unsigned");
        column.nullable = false;
    }
    Some(column)
}

/// `binary` makes bytes of what else were text.
fn take_charset(column: &mut CatalogColumn, charset: String) {
    if charset != "binary" {
        column.charset = Some(charset);
        return;
    }
    let bytes = match column.data_type.as_str() {
        "char" => "binary",
        "varchar" => "varbinary",
        "tinytext" => "tinyblob",
        "text" => "blob",
        "mediumtext" => "mediumblob",
        "longtext" => "longblob",
        _ => {
            column.charset = Some(charset);
            return;
        }
    };
    column.column_type = column.column_type.replacen(&column.data_type, bytes, 1);
    column.data_type = bytes.to_owned();
}

fn is_text(data_type: &str) -> bool {
    data_type.ends_with("char") || data_type.ends_with("text") || matches!(data_type, "enum" | "set")
}

fn spelled(arguments: &Option<Words>, boolean: bool) -> String {
    let Some(arguments) = arguments else { return if boolean { "(1)" } else { "" }.to_owned() };
    let one = |word: &Word| match word.text() {
        Some(text) => format!("'{}'", text.replace('\'', "''")),
        None => word.number().or(word.name()).unwrap_or_default().to_owned(),
    };
    let parts: Vec<String> = arguments.rest().iter().filter(|word| !word.is_sign(",")).map(one).collect();
    format!("({})", parts.join(","))
}

/// The name that `information_schema` has for a type.
fn real_type(written: &str) -> Option<&str> {
    Some(match written {
        "bool" | "boolean" | "int1" => "tinyint",
        "int2" => "smallint",
        "int3" | "middleint" => "mediumint",
        "int4" | "integer" => "int",
        "int8" | "serial" => "bigint",
        "dec" | "numeric" | "fixed" => "decimal",
        "real" | "float8" => "double",
        "float4" => "float",
        "character" | "nchar" => "char",
        "nvarchar" | "varcharacter" | "varchar2" => "varchar",
        "geomcollection" => "geometrycollection",
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" | "double" | "float" | "bit" | "year"
        | "date" | "time" | "datetime" | "timestamp" | "char" | "varchar" | "binary" | "varbinary" | "tinytext"
        | "text" | "mediumtext" | "longtext" | "tinyblob" | "blob" | "mediumblob" | "longblob" | "enum" | "set"
        | "json" | "uuid" | "inet4" | "inet6" | "vector" | "geometry" | "point" | "linestring" | "polygon"
        | "multipoint" | "multilinestring" | "multipolygon" | "geometrycollection" => written,
        _ => return None,
    })
}

/// Reads what stands behind a column's type; the character set that it names.
fn attributes(column: &mut CatalogColumn, words: &mut Words) -> Option<Option<String>> {
    let (mut charset, mut collation) = (None, None);
    let mut default = None;
    while let Some(word) = words.next() {
        if word.is("UNSIGNED") || word.is("ZEROFILL") {
            let length = column.column_type.trim_end_matches(" unsigned").len();
            column.column_type.truncate(length);
            column.column_type.push_str(" unsigned");
        } else if word.is("CHARSET") || word.is("CHARACTER") && words.take("SET") {
            charset = Some(value(words)?.to_ascii_lowercase());
        } else if word.is("ASCII") {
            charset = Some("latin1".to_owned());
        } else if word.is("UNICODE") {
            charset = Some("ucs2".to_owned());
        } else if word.is("COLLATE") {
            collation = of_collation(&value(words)?);
        } else if word.is("NOT") && words.take("NULL") {
            column.nullable = false;
        } else if word.is("DEFAULT") {
            default = literal(words);
        } else if word.is("PRIMARY") || word.is("KEY") {
            words.take("KEY");
            column.key = true;
            column.nullable = false;
        } else if word.is("UNIQUE") || word.is("COMMENT") {
            words.take("KEY");
            if word.is("COMMENT") {
                words.next();
            }
        } else if word.is("AS") || word.is("GENERATED") {
            column.generated = true;
            words.take("ALWAYS");
            words.take("AS");
            words.parentheses();
        } else if word.is("INVISIBLE") {
            column.invisible = true;
        } else if word.is("COMPRESSED") || word.is("REFERENCES") || word.is("CHECK") || word.is_sign("(") {
            skip(&word, words);
        }
    }
    column.default = match default {
        _ if column.generated => None,
        Some(value) => value,
        None if column.nullable => Some(DefaultValue::Null),
        None => None,
    };
    Some(charset.or(collation))
}

/// Passes over what may hold words that mean something else elsewhere.
fn skip(word: &Word, words: &mut Words) {
    if word.is("CHECK") {
        words.parentheses();
    }
    if word.is("REFERENCES") {
        // Nothing that concerns the column follows a reference.
        while words.next().is_some() {}
    }
}

fn value(words: &mut Words) -> Option<String> {
    words.take_sign("=");
    let word = words.next()?;
    word.name().or(word.text()).map(str::to_owned)
}

/// A default: outer `None` when there is no value, inner when it is an expression.
#[allow(clippy::option_option, reason = "a default that is not a constant is not the same as none")]
pub(super) fn literal(words: &mut Words) -> Option<Option<DefaultValue>> {
    if words.parentheses().is_some() {
        return Some(None);
    }
    let negative = words.take_sign("-");
    let word = words.next()?;
    if let Some(digits) = word.number() {
        return Some(Some(DefaultValue::Text(format!("{}{digits}", if negative { "-" } else { "" }))));
    }
    if let Some(text) = word.text() {
        return Some(Some(DefaultValue::Text(text.to_owned())));
    }
    let constant = [
        ("NULL", DefaultValue::Null),
        ("TRUE", DefaultValue::Text("1".into())),
        ("FALSE", DefaultValue::Text("0".into())),
    ];
    if let Some((_, value)) = constant.into_iter().find(|(name, _)| word.is(name)) {
        return Some(Some(value));
    }
    // A function, or a literal with a prefix.
    words.parentheses();
    Some(None)
}
