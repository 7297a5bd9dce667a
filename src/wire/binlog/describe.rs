//! A table map and what the catalog or a schema history says, joined to a shape; or why they do not fit.

use super::table_map::{MapColumn, TableMap};
use crate::wire::mysqlcharset::{Charset, of_collation};
use crate::wire::mysqltype::{CatalogColumn, ColumnShape, Form, Kind, TableShape, code};

/// Why a table map and the catalog do not describe the same table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    #[error(
        "the binary log does not name the columns of {table} (binlog_row_metadata), and nothing else is known of them"
    )]
    Nameless { table: String },
    #[error("the binary log has {log} columns for {table}, and {known} are known of it: it was changed unseen")]
    Count { table: String, log: usize, known: usize },
    #[error("column {at} of {table} is {log} in the binary log, and known as `{known}`: it was changed unseen")]
    Column { table: String, at: usize, log: String, known: String },
    #[error("column {at} of {table} is of a type that is not known here ({log})")]
    Type { table: String, at: usize, log: String },
}

/// What a table is: from its map where `binlog_row_metadata` is `FULL`, else from the catalog, which must agree with the
/// map in the number of columns and in each one's type, sign, character set and nullability, where the map says them. A type that the map cannot tell from another (MariaDB's `UUID`
/// and `INET6`) is taken from the catalog in any case.
pub fn shape(map: &TableMap, catalog: Option<&[CatalogColumn]>) -> Result<TableShape, Misfit> {
    let table = format!("{}.{}", map.database, map.table);
    if map.metadata.names.is_none() {
        let Some(catalog) = catalog else { return Err(Misfit::Nameless { table }) };
        if catalog.len() != map.columns.len() {
            return Err(Misfit::Count { table, log: map.columns.len(), known: catalog.len() });
        }
        for (at, (column, known)) in map.columns.iter().zip(catalog).enumerate() {
            let log = match agree(column, known) {
                true => contradiction(map, at, known),
                false => Some(name_of(column)),
            };
            if let Some(log) = log {
                let known = format!("{} {}", known.name, known.column_type);
                return Err(Misfit::Column { table, at: at + 1, log, known });
            }
        }
    }
    let mut columns = Vec::with_capacity(map.columns.len());
    for (at, column) in map.columns.iter().enumerate() {
        let (name, known) = match &map.metadata.names {
            Some(names) => {
                let known = catalog.and_then(|c| c.iter().find(|c| c.name == names[at]));
                (names[at].clone(), known.filter(|known| agree(column, known)))
            }
            None => {
                let known = catalog.and_then(|catalog| catalog.get(at));
                (known.map(|known| known.name.clone()).unwrap_or_default(), known)
            }
        };
        let Some(form) = Form::of(column.code, column.meta) else {
            return Err(Misfit::Type { table, at: at + 1, log: name_of(column) });
        };
        let key = match &map.metadata.names {
            Some(_) => map.metadata.key.contains(&at),
            None => known.is_some_and(|known| known.key),
        };
        let default = known.and_then(|known| known.default.clone());
        columns.push(ColumnShape { name, form, kind: kind(map, at, known), key, default });
    }
    Ok(TableShape { id: map.table_id, name: table, columns })
}

/// Whether a table map says of a table what is known of it, names included where it has them.
pub fn fits(map: &TableMap, known: &[CatalogColumn]) -> bool {
    let same = |(at, (column, known)): (usize, (&MapColumn, &CatalogColumn))| {
        let named = map.metadata.names.as_ref().is_none_or(|names| names[at] == known.name);
        named && agree(column, known) && contradiction(map, at, known).is_none()
    };
    map.columns.len() == known.len() && map.columns.iter().zip(known).enumerate().all(same)
}

/// What a column's values are.
fn kind(map: &TableMap, at: usize, known: Option<&CatalogColumn>) -> Kind {
    let column = &map.columns[at];
    match column.code {
        code::TINY | code::SHORT | code::INT24 | code::LONG | code::LONGLONG => {
            let said = map.metadata.unsigned.as_ref().map(|unsigned| unsigned[at]);
            Kind::Integer { unsigned: said.unwrap_or_else(|| known.is_some_and(is_unsigned)) }
        }
        code::FLOAT | code::DOUBLE => Kind::Real,
        code::NEWDECIMAL => Kind::Decimal,
        code::BIT => Kind::Bit,
        code::YEAR => Kind::Year,
        code::DATE | code::NEWDATE => Kind::Date,
        code::TIME | code::TIME2 => Kind::Time,
        code::DATETIME | code::DATETIME2 => Kind::DateTime,
        code::TIMESTAMP | code::TIMESTAMP2 => Kind::Timestamp,
        code::JSON => Kind::Json,
        code::GEOMETRY => Kind::Geometry,
        code::VECTOR => Kind::Vector,
        code::ENUM => choice(map, at, known).map_or_else(unread, |members| Kind::Enum { members }),
        code::SET => choice(map, at, known).map_or_else(unread, |members| Kind::Set { members }),
        code::NULL => unread("the column has no type".to_owned()),
        _ => match known.map(|known| known.data_type.as_str()) {
            Some("uuid") => Kind::Uuid,
            Some("inet4") => Kind::Inet4,
            Some("inet6") => Kind::Inet6,
            Some("vector") => Kind::Vector,
            _ => text(map, at, known),
        },
    }
}

fn unread(why: String) -> Kind {
    Kind::Unread { why }
}

fn text(map: &TableMap, at: usize, known: Option<&CatalogColumn>) -> Kind {
    let column = &map.columns[at];
    let Some(name) = charset(map, at, known) else {
        return unread("its character set is not known; set binlog_row_metadata=FULL at the server".to_owned());
    };
    let packed = matches!(column.code, code::BLOB_COMPRESSED | code::VARCHAR_COMPRESSED);
    if name == "binary" {
        let width = if column.code == code::STRING { column.meta } else { 0 };
        return if packed { Kind::PackedBinary } else { Kind::Binary { width } };
    }
    match Charset::named(&name) {
        Some(charset) if packed => Kind::PackedText { charset },
        Some(charset) => Kind::Text { charset },
        None => unread(unreadable(&name)),
    }
}

fn unreadable(charset: &str) -> String {
    format!("its character set {charset} is not read; convert the column to utf8mb4 at the source")
}

/// The name of a column's character set, `binary` for bytes.
fn charset(map: &TableMap, at: usize, known: Option<&CatalogColumn>) -> Option<String> {
    let said = map.metadata.collations.as_ref().and_then(|collations| collations[at]);
    match (said, known) {
        (Some(collation), _) if of_collation(collation).is_some() => of_collation(collation).map(str::to_owned),
        (_, Some(known)) => match &known.charset {
            Some(charset) => Some(charset.to_ascii_lowercase()),
            None => is_bytes(&known.data_type).then(|| "binary".to_owned()),
        },
        (_, None) => None,
    }
}

fn is_bytes(data_type: &str) -> bool {
    data_type.ends_with("binary") || data_type.ends_with("blob")
}

/// The members of an `ENUM` or a `SET`, or why they are not known.
fn choice(map: &TableMap, at: usize, known: Option<&CatalogColumn>) -> Result<Vec<String>, String> {
    let Some(members) = &map.metadata.members[at] else {
        let members = known.and_then(|known| members_of(&known.column_type));
        return members.ok_or_else(|| "its members are not known".to_owned());
    };
    // Members stand in the column's character set; without one they are the server's own words.
    let name = charset(map, at, known).unwrap_or_else(|| "utf8mb4".to_owned());
    let charset = match name.as_str() {
        "binary" => Charset::Utf8,
        name => Charset::named(name).ok_or_else(|| unreadable(name))?,
    };
    let member = |bytes: &Vec<u8>| charset.decode(bytes).map(std::borrow::Cow::into_owned);
    members.iter().map(member).collect::<Option<_>>().ok_or_else(|| "its members are not text".to_owned())
}

/// The members in `enum('a','it''s')`.
fn members_of(column_type: &str) -> Option<Vec<String>> {
    let (_, list) = column_type.split_once('(')?;
    let mut rest = list.trim_end().strip_suffix(')')?.trim();
    let mut members = Vec::new();
    while !rest.is_empty() {
        rest = rest.strip_prefix('\'')?;
        let mut member = String::new();
        loop {
            let end = rest.find('\'')?;
            member.push_str(&rest[..end]);
            rest = &rest[end + 1..];
            match rest.strip_prefix('\'') {
                Some(more) => {
                    member.push('\'');
                    rest = more;
                }
                None => break,
            }
        }
        members.push(member);
        rest = rest.trim_start().strip_prefix(',').unwrap_or(rest).trim_start();
    }
    Some(members)
}

fn is_unsigned(known: &CatalogColumn) -> bool {
    let declared = known.column_type.to_ascii_lowercase();
    let attributes = declared.rsplit(')').next().unwrap_or_default();
    attributes.split_whitespace().any(|word| matches!(word, "unsigned" | "zerofill"))
}

/// The numbers in the parentheses of a type.
fn arguments(column_type: &str) -> Vec<u16> {
    let inside =
        column_type.split_once('(').and_then(|(_, rest)| rest.split_once(')')).map_or("", |(inside, _)| inside);
    inside.split(',').filter_map(|number| number.trim().parse().ok()).collect()
}

/// Whether a table map's column can be the one that the catalog names.
fn agree(column: &MapColumn, known: &CatalogColumn) -> bool {
    let (code, meta) = (column.code, column.meta);
    let arguments = arguments(&known.column_type);
    let first = arguments.first().copied();
    let digits = first.unwrap_or(0);
    let moment = |new: u8, old: u8| code == new && meta == digits || code == old && digits == 0;
    let bytes = |characters: u16| {
        let widest = known.charset.as_deref().map_or(Some(1), Charset::widest);
        // A column that is too wide for its metadata is sent modulo nothing: it does not exist.
        widest.is_none_or(|widest| characters.checked_mul(widest) == Some(meta))
    };
    let blob = |size: u16| code == code::BLOB && meta == size || code == code::BLOB_COMPRESSED;
    match known.data_type.as_str() {
        "tinyint" | "bool" | "boolean" => code == code::TINY,
        "smallint" => code == code::SHORT,
        "mediumint" => code == code::INT24,
        "int" | "integer" => code == code::LONG,
        "bigint" => code == code::LONGLONG,
        "float" => code == code::FLOAT,
        "double" | "real" => code == code::DOUBLE,
        "decimal" | "numeric" => {
            let (precision, scale) = (first.unwrap_or(10), arguments.get(1).copied().unwrap_or(0));
            code == code::NEWDECIMAL && meta == precision | scale << 8
        }
        "bit" => code == code::BIT && meta == first.unwrap_or(1),
        "year" => code == code::YEAR,
        "date" => matches!(code, code::DATE | code::NEWDATE),
        "time" => moment(code::TIME2, code::TIME),
        "datetime" => moment(code::DATETIME2, code::DATETIME),
        "timestamp" => moment(code::TIMESTAMP2, code::TIMESTAMP),
        "char" | "binary" => code == code::STRING && bytes(first.unwrap_or(1)),
        "varchar" | "varbinary" => {
            code == code::VARCHAR && first.is_some_and(bytes) || code == code::VARCHAR_COMPRESSED
        }
        "tinyblob" | "tinytext" => blob(1),
        "blob" | "text" => blob(2),
        "mediumblob" | "mediumtext" => blob(3),
        "longblob" | "longtext" => blob(4),
        "json" => code == code::JSON || code == code::BLOB && meta == 4,
        "enum" => code == code::ENUM,
        "set" => code == code::SET,
        "vector" => matches!(code, code::VECTOR | code::VARCHAR),
        "uuid" | "inet6" => code == code::STRING && meta == 16,
        "inet4" => code == code::STRING && meta == 4,
        "geometry" | "point" | "linestring" | "polygon" | "multipoint" | "multilinestring" | "multipolygon"
        | "geometrycollection" | "geomcollection" => code == code::GEOMETRY,
        _ => false,
    }
}

/// What the map says of a column, besides its type, that cannot be said of the known one.
fn contradiction(map: &TableMap, at: usize, known: &CatalogColumn) -> Option<String> {
    let column = &map.columns[at];
    let integer = matches!(column.code, code::TINY | code::SHORT | code::INT24 | code::LONG | code::LONGLONG);
    if let Some(unsigned) = map.metadata.unsigned.as_ref().map(|unsigned| unsigned[at])
        && integer
        && unsigned != is_unsigned(known)
    {
        return Some(format!("{} {}", name_of(column), if unsigned { "unsigned" } else { "with a sign" }));
    }
    let texts = is_bytes(&known.data_type) || known.charset.is_some();
    let said = map.metadata.collations.as_ref().and_then(|collations| collations[at]).and_then(of_collation);
    if let Some(said) = said.filter(|_| texts) {
        let same = |one: &str, other: &str| one == other || one.starts_with("utf8") && other.starts_with("utf8");
        if !same(said, &known.charset.as_deref().unwrap_or("binary").to_ascii_lowercase()) {
            return Some(format!("{} in {said}", name_of(column)));
        }
    }
    let null = |nullable| if nullable { "that may be null" } else { "that is never null" };
    (column.nullable != known.nullable).then(|| format!("{} {}", name_of(column), null(column.nullable)))
}

/// A column's type in words.
fn name_of(column: &MapColumn) -> String {
    let [low, high] = column.meta.to_le_bytes();
    match column.code {
        code::TINY => "tinyint".to_owned(),
        code::SHORT => "smallint".to_owned(),
        code::INT24 => "mediumint".to_owned(),
        code::LONG => "int".to_owned(),
        code::LONGLONG => "bigint".to_owned(),
        code::FLOAT => "float".to_owned(),
        code::DOUBLE => "double".to_owned(),
        code::NEWDECIMAL => format!("decimal({low},{high})"),
        code::BIT => format!("bit({})", column.meta),
        code::YEAR => "year".to_owned(),
        code::DATE | code::NEWDATE => "date".to_owned(),
        code::TIME | code::TIME2 => format!("time({low})"),
        code::DATETIME | code::DATETIME2 => format!("datetime({low})"),
        code::TIMESTAMP | code::TIMESTAMP2 => format!("timestamp({low})"),
        code::STRING => format!("char of {} bytes", column.meta),
        code::VARCHAR | code::VAR_STRING => format!("varchar of {} bytes", column.meta),
        code::TINY_BLOB..=code::BLOB => format!("text or blob with a length of {low} bytes"),
        code::ENUM => "enum".to_owned(),
        code::SET => "set".to_owned(),
        code::JSON => "json".to_owned(),
        code::GEOMETRY => "geometry".to_owned(),
        code::VECTOR => "vector".to_owned(),
        other => format!("type {other}, metadata {}", column.meta),
    }
}
