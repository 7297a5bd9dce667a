//! Column definitions, to what `information_schema` would say of them.

use super::lexer::{Mode, Word};
use super::words::Words;
use crate::wire::mysqlcharset::Charset;
use crate::wire::mysqltype::{CatalogColumn, DefaultValue};

/// What a column takes from its table and its server.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ground<'a> {
    /// The table's character set; empty when it is not known.
    pub charset: &'a str,
    pub mode: Mode,
    /// A TIMESTAMP is like other columns (`explicit_defaults_for_timestamp`).
    pub plain_timestamps: bool,
}

/// An item between the parentheses of `CREATE TABLE`.
pub(super) enum Definition {
    Column(Box<Column>),
    /// The names of its columns.
    PrimaryKey(Vec<String>),
    Unique(Vec<Part>),
    /// An index or a constraint that says nothing of columns.
    Other,
}

/// A column, and what an index on it alone says.
pub(super) struct Column {
    pub column: CatalogColumn,
    pub unique: bool,
}

/// A part of an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub column: String,
    /// It is all of the column, and no expression.
    pub whole: bool,
}

const KEYS: [&str; 9] = ["PRIMARY", "KEY", "INDEX", "UNIQUE", "FULLTEXT", "SPATIAL", "CONSTRAINT", "FOREIGN", "CHECK"];

impl Definition {
    /// Reads an item.
    pub fn read(mut words: Words, ground: Ground) -> Option<Self> {
        if is_key(&words) {
            return index(&words);
        }
        let name = words.identifier()?;
        column(name, &mut words, ground).map(|column| Self::Column(Box::new(column)))
    }
}

/// Whether an index, a constraint or a period is next, and no column.
pub(super) fn is_key(words: &Words) -> bool {
    let second = |key_words: &[&str]| words.rest().get(1).is_some_and(|word| key_words.iter().any(|key| word.is(key)));
    words.is_any(&KEYS) || words.is("PERIOD") && second(&["FOR"]) || words.is("VECTOR") && second(&["KEY", "INDEX"])
}

/// What an index or a constraint says of columns.
pub(super) fn index(words: &Words) -> Option<Definition> {
    let mut words = words.clone();
    if words.take("CONSTRAINT") && !words.is_any(&["PRIMARY", "UNIQUE", "CHECK", "FOREIGN"]) {
        words.skip_if_exists();
        words.identifier()?;
    }
    let primary = words.take("PRIMARY");
    if !primary && !words.take("UNIQUE") {
        return Some(Definition::Other);
    }
    let parts = parts(&mut words)?;
    Some(match primary {
        true => Definition::PrimaryKey(parts.into_iter().map(|part| part.column).collect()),
        false => Definition::Unique(parts),
    })
}

/// The parts in the next parentheses.
pub(super) fn parts(words: &mut Words) -> Option<Vec<Part>> {
    while !words.rest().is_empty() {
        if let Some(inside) = words.parentheses() {
            let part = |mut part: Words| {
                let column = part.identifier().unwrap_or_default();
                let whole = !column.is_empty() && part.parentheses().is_none();
                Part { column, whole }
            };
            return Some(inside.split_commas().into_iter().map(part).collect());
        }
        words.next();
    }
    None
}

/// The character set among the options of a table or database; `DEFAULT` for that of what it stands in.
pub(super) fn charset_option(words: &[Word]) -> Option<String> {
    let value = |at: usize| words[at..].iter().find(|word| !word.is_sign('=')).and_then(|w| w.name().or(w.text()));
    let mut found = None;
    for (at, word) in words.iter().enumerate() {
        if word.is("CHARSET") || word.is("SET") && at > 0 && words[at - 1].is("CHARACTER") {
            return value(at + 1).map(charset_name);
        }
        if word.is("COLLATE") {
            found = value(at + 1).and_then(of_collation);
        }
    }
    found
}

/// As `information_schema` spells it.
pub(super) fn charset_name(name: &str) -> String {
    let name = name.to_ascii_lowercase();
    if name == "utf8" { "utf8mb3".to_owned() } else { name }
}

/// The character set of a collation's name; `None` when it has none of its own.
pub(super) fn of_collation(collation: &str) -> Option<String> {
    let charset = charset_name(collation.split('_').next()?);
    Some(charset).filter(|charset| !charset.is_empty() && charset != "uca1400")
}

/// A column's definition behind its name; `None` when it is not understood.
pub(super) fn column(name: String, words: &mut Words, ground: Ground) -> Option<Column> {
    let (written, national) = type_name(words)?;
    let arguments = words.parentheses();
    let data_type = real_type(&written, &arguments, ground.mode)?;
    let mut column =
        CatalogColumn { name, data_type: data_type.to_owned(), nullable: true, ..CatalogColumn::default() };
    column.column_type = format!("{data_type}{}", spelled(data_type, &written, &arguments, false));
    let found = attributes(&mut column, words)?;
    if is_text(data_type) {
        let own = found.charset.clone().or_else(|| national.then(|| "utf8mb3".to_owned()));
        let charset = own.unwrap_or_else(|| ground.charset.to_owned());
        let charset = if written == "json" { "utf8mb4".to_owned() } else { charset };
        take_charset(&mut column, &charset)?;
        if charset == "binary" && column.data_type == data_type {
            column.column_type = format!("{data_type}{}", spelled(data_type, &written, &arguments, true));
        }
    }
    if matches!(written.as_str(), "text" | "blob")
        && let Some(length) = arguments.as_ref().and_then(|arguments| arguments.rest().first()?.number()?.parse().ok())
    {
        fit_length(&mut column, length)?;
    }
    if written == "serial" {
        column.column_type.push_str(" unsigned");
        column.nullable = false;
    }
    let implicit = data_type == "timestamp" && !ground.plain_timestamps;
    if implicit && !found.null {
        column.nullable = false;
    }
    column.default = match found.default {
        _ if column.generated => None,
        Some(value) => value.filter(|_| !found.padded).and_then(|value| settled(value, &column)),
        None if column.nullable => Some(DefaultValue::Null),
        None => None,
    };
    Some(Column { column, unique: found.unique || written == "serial" })
}

/// The type as one word, and whether it is a national one.
fn type_name(words: &mut Words) -> Option<(String, bool)> {
    let mut written = words.identifier()?.to_ascii_lowercase();
    let national = ["nchar", "nvarchar", "national"].contains(&written.as_str());
    if written == "national" {
        written = words.identifier()?.to_ascii_lowercase();
    }
    if written == "long" {
        let bytes = words.take("VARBINARY");
        let _text = words.take("VARCHAR") || words.take("CHAR") || words.take("CHARACTER");
        words.take("VARYING");
        return Some((if bytes { "mediumblob" } else { "mediumtext" }.to_owned(), false));
    }
    if written == "double" {
        words.take("PRECISION");
    }
    let character = ["char", "character", "nchar"].contains(&written.as_str());
    if character && (words.take("VARYING") || national && words.take("VARCHAR")) {
        written = "varchar".to_owned();
    }
    Some((written, national))
}

/// `binary` makes bytes of what else were text.
pub(super) fn take_charset(column: &mut CatalogColumn, charset: &str) -> Option<()> {
    if charset.is_empty() {
        return None;
    }
    let bytes = match column.data_type.as_str() {
        _ if charset != "binary" => None,
        "char" => Some("binary"),
        "varchar" => Some("varbinary"),
        "tinytext" => Some("tinyblob"),
        "text" => Some("blob"),
        "mediumtext" => Some("mediumblob"),
        "longtext" => Some("longblob"),
        _ => None,
    };
    match bytes {
        Some(bytes) => {
            column.column_type = column.column_type.replacen(&column.data_type, bytes, 1);
            column.data_type = bytes.to_owned();
            column.charset = None;
        }
        // Of an ENUM or a SET only bytes are compared then.
        None => column.charset = Some(charset.to_owned()).filter(|charset| charset != "binary"),
    }
    Some(())
}

/// The longest value of a text or blob in bytes, and whether it is text.
pub(super) fn longest(data_type: &str) -> Option<(u64, bool)> {
    let (size, text) = match (data_type.strip_suffix("text"), data_type.strip_suffix("blob")) {
        (Some(size), _) => (size, true),
        (_, Some(size)) => (size, false),
        _ => return None,
    };
    let bytes = match size {
        "tiny" => u64::from(u8::MAX),
        "" => u64::from(u16::MAX),
        "medium" => (1 << 24) - 1,
        "long" => u64::from(u32::MAX),
        _ => return None,
    };
    Some((bytes, text))
}

/// Makes a text or a blob as small as so many characters allow.
pub(super) fn fit_length(column: &mut CatalogColumn, characters: u64) -> Option<()> {
    let (_, text) = longest(&column.data_type)?;
    let widest = column.charset.as_deref().map_or(Some(1), Charset::widest)?;
    let size = match characters.saturating_mul(u64::from(widest)) {
        0 => "",
        1..=0xFF => "tiny",
        0x100..=0xFFFF => "",
        0x1_0000..=0xFF_FFFF => "medium",
        _ => "long",
    };
    column.data_type = format!("{size}{}", if text { "text" } else { "blob" });
    column.column_type.clone_from(&column.data_type);
    Some(())
}

pub(super) fn is_text(data_type: &str) -> bool {
    data_type.ends_with("char") || data_type.ends_with("text") || matches!(data_type, "enum" | "set")
}

/// What stands behind the type's name in `COLUMN_TYPE`; members lose what spaces they end with, unless they are bytes.
fn spelled(data_type: &str, written: &str, arguments: &Option<Words>, bytes: bool) -> String {
    let given: Vec<&Word> = arguments.iter().flat_map(|a| a.rest()).filter(|word| !word.is_sign(',')).collect();
    match (data_type, given.as_slice()) {
        ("tinyint", []) if written.starts_with("bool") => "(1)".to_owned(),
        ("bit" | "char" | "binary", []) => "(1)".to_owned(),
        ("decimal", []) => "(10,0)".to_owned(),
        ("decimal", [digits]) => format!("({},0)", digits.number().unwrap_or_default()),
        ("vector", []) => "(2048)".to_owned(),
        ("time" | "datetime" | "timestamp", [digits]) if digits.number() == Some("0") => String::new(),
        ("text" | "blob" | "longtext" | "json" | "uuid" | "inet4" | "inet6" | "date", _) | (_, []) => String::new(),
        ("float" | "double", [_]) => String::new(),
        _ => {
            let one = |word: &&Word| match word.text() {
                Some(text) => quoted(if bytes { text } else { text.trim_end_matches(' ') }),
                None => word.number().or(word.name()).unwrap_or_default().to_owned(),
            };
            format!("({})", given.iter().map(one).collect::<Vec<_>>().join(","))
        }
    }
}

/// A member of an ENUM or a SET as `COLUMN_TYPE` has it.
fn quoted(member: &str) -> String {
    format!("'{}'", member.replace('\\', "\\\\").replace('\'', "''"))
}

/// The name that `information_schema` has for a type.
fn real_type<'a>(written: &'a str, arguments: &Option<Words>, mode: Mode) -> Option<&'a str> {
    let digits = |arguments: &Words| match arguments.rest() {
        [digits] => digits.number()?.parse::<u16>().ok(),
        _ => None,
    };
    Some(match written {
        "bool" | "boolean" | "int1" => "tinyint",
        "int2" => "smallint",
        "int3" | "middleint" => "mediumint",
        "int4" | "integer" => "int",
        "int8" | "serial" => "bigint",
        "dec" | "numeric" | "fixed" => "decimal",
        "real" if mode.real_as_float => "float",
        "real" | "float8" => "double",
        "float4" => "float",
        "float" if arguments.as_ref().and_then(digits).is_some_and(|digits| digits > 24) => "double",
        "character" | "nchar" => "char",
        "nvarchar" | "varcharacter" => "varchar",
        "geomcollection" => "geometrycollection",
        "json" if mode.mariadb => "longtext",
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" | "decimal" | "double" | "float" | "bit" | "year"
        | "date" | "time" | "datetime" | "timestamp" | "char" | "varchar" | "binary" | "varbinary" | "tinytext"
        | "text" | "mediumtext" | "longtext" | "tinyblob" | "blob" | "mediumblob" | "longblob" | "enum" | "set"
        | "json" | "uuid" | "inet4" | "inet6" | "vector" | "geometry" | "point" | "linestring" | "polygon"
        | "multipoint" | "multilinestring" | "multipolygon" | "geometrycollection" => written,
        _ => return None,
    })
}

/// What stands behind a column's type.
#[derive(Default)]
struct Attributes {
    charset: Option<String>,
    /// Outer `None`: it names none; inner: it is an expression.
    #[allow(clippy::option_option, reason = "a default that is not a constant is not the same as none")]
    default: Option<Option<DefaultValue>>,
    /// It says NULL.
    null: bool,
    unique: bool,
    /// Zeros are shown in front of it.
    padded: bool,
}

fn attributes(column: &mut CatalogColumn, words: &mut Words) -> Option<Attributes> {
    let (mut found, mut collation) = (Attributes::default(), None);
    while let Some(word) = words.next() {
        if word.is("UNSIGNED") || word.is("ZEROFILL") {
            let length = column.column_type.trim_end_matches(" unsigned").len();
            column.column_type.truncate(length);
            column.column_type.push_str(" unsigned");
            found.padded |= word.is("ZEROFILL");
        } else if word.is("CHARSET") || word.is("CHARACTER") && words.take("SET") {
            found.charset = Some(charset_name(&value(words)?));
        } else if word.is("ASCII") {
            found.charset = Some("latin1".to_owned());
        } else if word.is("UNICODE") {
            found.charset = Some("ucs2".to_owned());
        } else if word.is("BYTE") {
            found.charset = Some("binary".to_owned());
        } else if word.is("COLLATE") {
            let named = value(words)?;
            collation = of_collation(&named);
            column.collation = Some(named);
        } else if word.is("NOT") && words.take("NULL") || word.is("AUTO_INCREMENT") {
            column.nullable = false;
        } else if word.is("NULL") {
            found.null = true;
        } else if word.is("DEFAULT") {
            found.default = literal(words);
        } else if word.is("ON") {
            // `ON UPDATE CURRENT_TIMESTAMP`
            words.take("UPDATE");
            words.next();
        } else if word.is("PRIMARY") || word.is("KEY") {
            words.take("KEY");
            column.key = true;
            column.nullable = false;
        } else if word.is("UNIQUE") {
            words.take("KEY");
            found.unique = true;
        } else if word.is("SERIAL") {
            // `SERIAL DEFAULT VALUE`
            words.take("DEFAULT");
            words.take("VALUE");
            (found.unique, column.nullable) = (true, false);
        } else if word.is("COMMENT") || word.is("STORAGE") || word.is("COLUMN_FORMAT") {
            words.next();
        } else if word.is("AS") || word.is("GENERATED") {
            column.generated = true;
            words.take("ALWAYS");
            words.take("AS");
            words.parentheses();
        } else if word.is("INVISIBLE") {
            column.invisible = true;
        } else if word.is("CHECK") {
            words.parentheses();
        } else if word.is("REFERENCES") {
            // Nothing that concerns the column follows a reference.
            while words.next().is_some() {}
        }
    }
    found.charset = found.charset.or(collation);
    Some(found)
}

fn value(words: &mut Words) -> Option<String> {
    words.take_sign('=');
    let word = words.next()?;
    word.name().or(word.text()).map(str::to_owned)
}

/// A default: outer `None` when there is no value, inner when it is an expression.
#[allow(clippy::option_option, reason = "a default that is not a constant is not the same as none")]
pub(super) fn literal(words: &mut Words) -> Option<Option<DefaultValue>> {
    if words.parentheses().is_some() {
        return Some(None);
    }
    let negative = words.take_sign('-');
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

/// A default that the column keeps as it is written; of others (`1.50` for a whole number) it is not known what becomes.
pub(super) fn settled(default: DefaultValue, column: &CatalogColumn) -> Option<DefaultValue> {
    let DefaultValue::Text(text) = &default else { return Some(default) };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let whole = |text: &str| digits(text) && (text == "0" || !text.starts_with('0'));
    let unsigned = text.strip_prefix('-').unwrap_or(text);
    let arguments =
        column.column_type.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or("", |(a, _)| a);
    let fraction: usize = arguments.rsplit(',').next().and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let shaped = |pattern: &str| {
        let same = |(c, p): (char, char)| if p == '0' { c.is_ascii_digit() } else { c == p };
        text.len() == pattern.len() && text.chars().zip(pattern.chars()).all(same)
    };
    let kept = match column.data_type.as_str() {
        "tinyint" | "smallint" | "mediumint" | "int" | "bigint" => whole(unsigned),
        "decimal" => {
            let (integer, rest) = unsigned.split_once('.').unwrap_or((unsigned, ""));
            let fits = whole(integer) && (rest.is_empty() || digits(rest)) && rest.len() <= fraction;
            let sign = if unsigned.len() < text.len() { "-" } else { "" };
            let dot = if fraction > 0 { "." } else { "" };
            return fits.then(|| DefaultValue::Text(format!("{sign}{integer}{dot}{rest:0<fraction$}")));
        }
        "char" | "varchar" => true,
        "enum" | "set" => column.column_type.contains(&quoted(text)) && !text.contains(','),
        "date" => shaped("0000-00-00"),
        "datetime" | "timestamp" if fraction == 0 => shaped("0000-00-00 00:00:00"),
        _ => false,
    };
    kept.then_some(default)
}
