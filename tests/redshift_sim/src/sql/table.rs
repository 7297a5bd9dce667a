//! CREATE TABLE and ALTER TABLE: <https://docs.aws.amazon.com/redshift/latest/dg/r_CREATE_TABLE_NEW.html>,
//! `…/r_CREATE_TABLE_AS.html`, `…/r_ALTER_TABLE.html`.
//!
//! Keys are not enforced (`…/t_Defining_constraints.html`), so that doubled rows show: a check that always holds stands in
//! their place and remembers the columns. Distribution, sort keys and encodings go along in a comment that the database reads.

use serde_json::{Map, Value, json};

use crate::fault::Kind;
use crate::lex::{Token, identifier, literal, render};
use crate::refusal::Refusal;

use super::{Effect, Plan, Settings, behind, by_commas, expression, function, name_at, name_parts, not_supported};

/// Types of PostgreSQL that Redshift has not:
/// <https://docs.aws.amazon.com/redshift/latest/dg/c_unsupported-postgresql-datatypes.html>.
pub const UNSUPPORTED_TYPES: [&str; 28] = [
    "bigserial",
    "bit",
    "box",
    "bytea",
    "cidr",
    "circle",
    "cstring",
    "hstore",
    "inet",
    "int4range",
    "int8range",
    "json",
    "jsonb",
    "line",
    "lseg",
    "macaddr",
    "money",
    "numrange",
    "path",
    "point",
    "polygon",
    "serial",
    "serial4",
    "serial8",
    "smallserial",
    "tsvector",
    "uuid",
    "xml",
];

/// <https://docs.aws.amazon.com/redshift/latest/dg/c_Compression_encodings.html>
const ENCODINGS: [&str; 13] = [
    "auto",
    "az64",
    "bytedict",
    "delta",
    "delta32k",
    "lzo",
    "mostly8",
    "mostly16",
    "mostly32",
    "raw",
    "runlength",
    "text255",
    "text32k",
];

/// Words that must be quoted to be names and that PostgreSQL would take: a part of
/// <https://docs.aws.amazon.com/redshift/latest/dg/r_pg_keywords.html>.
const RESERVED: [&str; 34] = [
    "aes128",
    "aes256",
    "allowoverwrite",
    "backup",
    "blanksasnull",
    "bytedict",
    "bzip2",
    "credentials",
    "deflate",
    "defrag",
    "delta",
    "emptyasnull",
    "encode",
    "encrypt",
    "encryption",
    "explicit",
    "gzip",
    "identity",
    "language",
    "lun",
    "luns",
    "lzo",
    "minus",
    "mostly8",
    "new",
    "offline",
    "oid",
    "old",
    "open",
    "parallel",
    "permissions",
    "raw",
    "sysdate",
    "tag",
];

/// Plans CREATE TABLE, with columns, LIKE or AS.
pub fn create(tokens: &[Token], settings: &Settings) -> Result<Plan, Refusal> {
    let table = tokens.iter().take(4).position(|t| t.is("table")).ok_or_else(|| not_supported("CREATE"))?;
    let temporary = tokens[1..table].iter().any(|t| t.is_any(&["temp", "temporary"]));
    let mut at = table + 1;
    let guarded = tokens.get(at).is_some_and(|t| t.is("if"));
    at += 3 * usize::from(guarded);
    let (name, after) = name_at(tokens, at)?;
    let mut note = Note::default();
    let listed = tokens.get(after).is_some_and(|t| t.is_symbol("("));
    let list_end = if listed { behind(tokens, after)? } else { after };
    let query = note.attributes(tokens, list_end)?;
    let head = format!(
        "CREATE {}TABLE {}{name}",
        if temporary { "TEMPORARY " } else { "" },
        if guarded { "IF NOT EXISTS " } else { "" }
    );
    let list = if listed { &tokens[after + 1..list_end - 1] } else { &[][..] };
    let body = match query {
        Some(from) => {
            expression::refuse(&tokens[from..], settings)?;
            function::refuse_leader_only(&tokens[from..])?;
            let names = if listed { format!(" ({})", render(list)) } else { String::new() };
            format!("{names} AS {}", expression::translate(&tokens[from..], settings))
        }
        None if listed => format!(" ({})", Columns { table: &name, note: &mut note }.all(list)?),
        None => return Err(Refusal::syntax("end of input")),
    };
    Ok(Plan::new(Kind::Create, format!("{head}{body} {}", note.comment()), Effect::Query))
}

/// What is said of a table beside its columns.
#[derive(Debug, Default)]
struct Note(Map<String, Value>);

impl Note {
    fn comment(&self) -> String {
        format!("/*sim:{}*/", json!(self.0).to_string().replace('*', "\\u002a"))
    }

    fn encode(&mut self, column: &str, encoding: &str) -> Result<(), Refusal> {
        if !ENCODINGS.contains(&encoding) && encoding != "zstd" {
            return Err(Refusal::new("42601", format!("invalid encoding type specified for column \"{column}\"")));
        }
        let encodings = self.0.entry("encode").or_insert_with(|| json!({}));
        encodings[column] = json!(encoding);
        Ok(())
    }

    /// Reads what stands behind the columns; where the query of `AS` begins, if there is one.
    fn attributes(&mut self, tokens: &[Token], mut at: usize) -> Result<Option<usize>, Refusal> {
        while let Some(token) = tokens.get(at) {
            let next = tokens.get(at + 1).map_or("", |t| &*t.value);
            match token.value.as_str() {
                "as" => return Ok(Some(at + 1)),
                "backup" if matches!(next, "yes" | "no") => at += 2,
                "encode" if next == "auto" => at += 2,
                "diststyle" if matches!(next, "even" | "key" | "all" | "auto") => {
                    self.0.insert("diststyle".into(), json!(next));
                    at += 2;
                }
                "compound" | "interleaved" if next == "sortkey" => at += 1,
                "sortkey" if next == "auto" => at += 2,
                "distkey" | "sortkey" if next == "(" => {
                    let end = behind(tokens, at + 1)?;
                    let names: Vec<&str> = tokens[at + 2..end - 1].iter().filter_map(Token::name).collect();
                    let value = if token.is("distkey") { json!(names.first()) } else { json!(names) };
                    self.0.insert(token.value.clone(), value);
                    at = end;
                }
                other => return Err(Refusal::syntax(other)),
            }
        }
        Ok(None)
    }
}

struct Columns<'a> {
    table: &'a str,
    note: &'a mut Note,
}

impl Columns<'_> {
    fn all(&mut self, list: &[Token]) -> Result<String, Refusal> {
        let parts = by_commas(list);
        let (mut keys, mut written) = (Vec::new(), Vec::new());
        // The columns of a primary key are NOT NULL, which is enforced.
        let mut primary = Vec::new();
        for part in parts.iter().filter(|part| begins_constraint(part)) {
            let (columns, is_primary) = key_columns(part)?;
            primary.extend(is_primary.then(|| columns.clone()).into_iter().flatten());
            keys.push(columns);
        }
        for part in parts.iter().filter(|part| !begins_constraint(part)) {
            if part.first().is_some_and(|t| t.is("like")) {
                written.push(self.like(part)?);
                continue;
            }
            let (definition, key) = self.column(part, &primary)?;
            keys.extend(key.map(|name| vec![name]));
            written.push(definition);
        }
        written.extend(keys.iter().enumerate().map(|(n, columns)| key_marker(n, columns)));
        Ok(written.join(", "))
    }

    /// Distribution, sort key, encodings and NOT NULL come along; keys never, defaults if asked for.
    fn like(&mut self, part: &[Token]) -> Result<String, Refusal> {
        let (source, after) = name_at(part, 1)?;
        let defaults = match part[after..].iter().map(|t| &*t.value).collect::<Vec<_>>().as_slice() {
            [] | ["excluding", "defaults"] => "",
            ["including", "defaults"] => " INCLUDING DEFAULTS",
            [other, ..] => return Err(Refusal::syntax(other)),
        };
        self.note.0.insert("like".into(), json!(source));
        Ok(format!("LIKE {source}{defaults}"))
    }

    /// One column: its definition, and its name if it is a key.
    fn column(&mut self, part: &[Token], primary: &[String]) -> Result<(String, Option<String>), Refusal> {
        let first = part.first().ok_or_else(|| Refusal::syntax(")"))?;
        let name = first.name().ok_or_else(|| Refusal::syntax(&first.value))?;
        if first.is_any(&RESERVED) {
            return Err(Refusal::syntax(name));
        }
        let (kind, mut at) = column_type(part, 1, self.table, name)?;
        let mut sql = format!("{} {kind}", identifier(name));
        let mut not_null = primary.iter().any(|key| key == name);
        let mut key = false;
        while let Some(token) = part.get(at) {
            let next = part.get(at + 1).map_or("", |t| &*t.value);
            at = match token.value.as_str() {
                "default" => {
                    let end = default_end(part, at + 1);
                    sql += &format!(" DEFAULT {}", expression::translate(&part[at + 1..end], &Settings::default()));
                    end
                }
                "identity" | "generated" => {
                    let open =
                        part[at..].iter().position(|t| t.is_symbol("(")).ok_or_else(|| Refusal::syntax(name))? + at;
                    let numbers: Vec<&str> =
                        part[open + 1..].iter().filter(|t| t.value.parse::<i64>().is_ok()).map(|t| &*t.value).collect();
                    let [seed, step] = numbers.as_slice() else { return Err(Refusal::syntax(name)) };
                    sql += &format!(" GENERATED ALWAYS AS IDENTITY (MINVALUE 0 START {seed} INCREMENT {step})");
                    behind(part, open)?
                }
                "encode" => {
                    self.note.encode(name, next)?;
                    at + 2
                }
                "distkey" => {
                    self.note.0.insert("distkey".into(), json!(name));
                    at + 1
                }
                "sortkey" => {
                    self.note.0.insert("sortkey".into(), json!([name]));
                    at + 1
                }
                "collate" => return Err(Refusal::not_emulated("COLLATE")),
                "not" if next == "null" => {
                    not_null = true;
                    at + 2
                }
                "null" => at + 1,
                "primary" if next == "key" => {
                    (key, not_null) = (true, true);
                    at + 2
                }
                "unique" => {
                    key = true;
                    at + 1
                }
                "references" => {
                    key = true;
                    let (_, after) = name_at(part, at + 1)?;
                    if part.get(after).is_some_and(|t| t.is_symbol("(")) { behind(part, after)? } else { after }
                }
                other => return Err(Refusal::syntax(other)),
            };
        }
        if not_null {
            sql += " NOT NULL";
        }
        Ok((sql, key.then(|| name.to_owned())))
    }
}

fn default_end(part: &[Token], from: usize) -> usize {
    let ends = [
        "identity",
        "generated",
        "encode",
        "distkey",
        "sortkey",
        "not",
        "null",
        "unique",
        "primary",
        "references",
        "collate",
    ];
    let mut depth = 0;
    let found = part.iter().skip(from + 1).position(|token| {
        depth += i32::from(token.is_symbol("(")) - i32::from(token.is_symbol(")"));
        depth == 0 && token.is_any(&ends)
    });
    found.map_or(part.len(), |at| from + 1 + at)
}

fn begins_constraint(part: &[Token]) -> bool {
    let words: Vec<&str> = part.iter().take(2).map(|t| &*t.value).collect();
    matches!(
        words.as_slice(),
        ["constraint", _] | ["primary" | "foreign", "key"] | ["unique", "("] | ["check" | "exclude", ..]
    )
}

/// The columns of a key, and whether it is the primary one.
fn key_columns(part: &[Token]) -> Result<(Vec<String>, bool), Refusal> {
    let at = 2 * usize::from(part[0].is("constraint"));
    if part.get(at).is_some_and(|t| t.is_any(&["check", "exclude"])) {
        return Err(not_supported(&format!("{} constraint", part[at].value.to_uppercase())));
    }
    let open = part.iter().position(|t| t.is_symbol("(")).ok_or_else(|| Refusal::syntax("end of input"))?;
    let end = behind(part, open)?;
    let names = part[open + 1..end - 1].iter().filter_map(Token::name).map(str::to_owned).collect();
    Ok((names, part[at].is("primary")))
}

/// A check that holds for every row and names the columns of a key.
fn key_marker(n: usize, columns: &[String]) -> String {
    let checks: Vec<String> = columns.iter().map(|c| format!("({} IS NULL) IS NOT NULL", identifier(c))).collect();
    format!("CONSTRAINT sim_key_{n} CHECK ({})", checks.join(" AND "))
}

/// A column's type as PostgreSQL takes it, and where it ends.
/// <https://docs.aws.amazon.com/redshift/latest/dg/c_Supported_data_types.html>
fn column_type(part: &[Token], at: usize, table: &str, column: &str) -> Result<(String, usize), Refusal> {
    let word = |n: usize| part.get(at + n).map_or("", |t| &*t.value);
    let (base, used) = match (word(0), word(1), word(2), word(3)) {
        ("double", "precision", ..) => ("float8", 2),
        ("character" | "binary", "varying", ..) => (if word(0) == "binary" { "varbyte" } else { "varchar" }, 2),
        ("timestamp" | "time", "with", "time", "zone") => (if word(0) == "time" { "timetz" } else { "timestamptz" }, 4),
        ("timestamp" | "time", "without", "time", "zone") => (word(0), 4),
        (base, ..) => (base, 1),
    };
    let mut end = at + used;
    let mut arguments = Vec::new();
    if part.get(end).is_some_and(|t| t.is_symbol("(")) {
        let close = behind(part, end)?;
        arguments = part[end + 1..close - 1].iter().filter(|t| !t.is_symbol(",")).map(|t| &*t.value).collect();
        end = close;
    }
    let unsupported = || {
        Refusal::unsupported(format!("Column \"{}.{column}\" has unsupported type \"{base}\".", table.replace('"', "")))
    };
    if part.get(end).is_some_and(|t| t.is_symbol("[")) {
        return Err(Refusal::unsupported(format!(
            "Column \"{}.{column}\" has unsupported type \"{base}[]\".",
            table.replace('"', "")
        )));
    }
    let sql = match base {
        "smallint" | "int2" | "integer" | "int" | "int4" | "bigint" | "int8" | "real" | "float4" | "float8"
        | "float" | "boolean" | "bool" | "date" | "timestamp" | "timestamptz" | "time" | "timetz" | "super"
            if arguments.is_empty() =>
        {
            base.to_owned()
        }
        "datetime" => "timestamp".into(),
        "decimal" | "numeric" => decimal(&arguments)?,
        "char" | "character" | "nchar" | "bpchar" => {
            format!("char({})", length(&arguments, if base == "bpchar" { 256 } else { 1 }, 4096)?)
        }
        "varchar" | "nvarchar" | "text" => format!("varchar({})", length(&arguments, 256, 65_535)?),
        "varbyte" | "varbinary" => {
            let bytes = length(&arguments, 64_000, 16_777_216)?;
            // The catalog reads the length from the name, which is the column's own.
            let own = column.bytes().fold(0u32, |own, byte| own.wrapping_mul(31).wrapping_add(byte.into()));
            let check = format!("CHECK (octet_length({}) <= {bytes})", identifier(column));
            format!("varbyte CONSTRAINT sim_binary_{bytes}_{own} {check}")
        }
        "geometry" | "geography" | "hllsketch" | "interval" => return Err(Refusal::not_emulated(base)),
        _ => return Err(unsupported()),
    };
    Ok((sql, end))
}

/// Precision 38 at most, 18 and no fraction unless said: <https://docs.aws.amazon.com/redshift/latest/dg/r_Numeric_types201.html>.
fn decimal(arguments: &[&str]) -> Result<String, Refusal> {
    let number =
        |n: usize, usual: u32| arguments.get(n).map_or(Ok(usual), |a| a.parse::<u32>().map_err(|_| Refusal::syntax(a)));
    let (precision, scale) = (number(0, 18)?, number(1, 0)?);
    if !(1..=38).contains(&precision) || scale > precision.min(37) {
        return Err(Refusal::new(
            "22023",
            format!("DECIMAL precision {precision} must be between 1 and 38 (scale {scale} between 0 and 37)"),
        ));
    }
    Ok(format!("numeric({precision},{scale})"))
}

fn length(arguments: &[&str], usual: u32, most: u32) -> Result<u32, Refusal> {
    let length = match arguments {
        [] => usual,
        ["max"] => most,
        [number] => number.parse().map_err(|_| Refusal::syntax(number))?,
        [_, second, ..] => return Err(Refusal::syntax(second)),
    };
    if length == 0 {
        return Err(Refusal::new("22023", "length for type varchar must be at least 1"));
    }
    if length > most {
        return Err(Refusal::new(
            "42611",
            format!("Column length exceeds maximum allowed (maximum column length is {most})"),
        ));
    }
    Ok(length)
}

/// Plans ALTER TABLE: one action.
pub fn alter(tokens: &[Token]) -> Result<Plan, Refusal> {
    let what = tokens.get(1).map_or("", |t| &*t.value);
    match what {
        "table" => {}
        "index" | "sequence" | "trigger" | "type" | "domain" | "operator" => {
            return Err(not_supported(&format!("ALTER {}", what.to_uppercase())));
        }
        _ => return Err(Refusal::not_emulated(&format!("ALTER {}", what.to_uppercase()))),
    }
    let (name, parts, at) = name_parts(tokens, 2)?;
    let action = &tokens[at..];
    if by_commas(action).len() > 1 {
        return Err(Refusal::syntax(","));
    }
    let words: Vec<&str> = action.iter().map(|t| &*t.value).collect();
    let plain = || Ok(Plan::new(Kind::Alter, render(tokens), Effect::Query));
    match words.as_slice() {
        ["add", "constraint" | "primary" | "unique" | "foreign", ..] => {
            let (columns, _) = key_columns(&action[1..])?;
            let marker = key_marker(columns.len() + 100 + tokens.len(), &columns);
            Ok(Plan::new(Kind::Alter, format!("ALTER TABLE {name} ADD {marker}"), Effect::Query))
        }
        ["add", "column", ..] => add_column(&name, &action[2..]),
        ["add", ..] => add_column(&name, &action[1..]),
        ["drop", rest @ ..] if rest.contains(&"if") => Err(Refusal::syntax("if")),
        ["drop", "column" | "constraint", _]
        | ["drop", "column" | "constraint", _, "cascade" | "restrict"]
        | ["drop", _] => plain(),
        ["rename", "to", _] | ["rename", "column", _, "to", _] => plain(),
        ["owner", "to", _] => Ok(Plan::new(Kind::Alter, "", Effect::Nothing).tagged("ALTER TABLE")),
        ["append", ..] => Err(Refusal::not_emulated("ALTER TABLE APPEND")),
        ["alter", "column", column, "type", ..] | ["alter", column, "type", ..] => {
            let from = words.iter().position(|w| *w == "type").unwrap_or(0) + 1;
            resize(&name, column, &action[from..])
        }
        ["alter", rest @ ..] => attributes(&name, &parts, action, rest),
        [other, ..] => Err(Refusal::syntax(other)),
        [] => Err(Refusal::syntax("end of input")),
    }
}

/// One column; NOT NULL needs a default; no key, no identity.
fn add_column(table: &str, part: &[Token]) -> Result<Plan, Refusal> {
    if let Some(word) = part.first().filter(|t| t.is("if")) {
        return Err(Refusal::syntax(&word.value));
    }
    let mut note = Note::default();
    let words: Vec<&str> = part.iter().map(|t| &*t.value).collect();
    if let Some(word) = words
        .iter()
        .find(|w| matches!(**w, "unique" | "primary" | "references" | "identity" | "generated" | "distkey" | "sortkey"))
    {
        return Err(Refusal::unsupported(format!("ALTER TABLE ADD COLUMN does not support {}", word.to_uppercase())));
    }
    let not_null = words.windows(2).any(|pair| pair == ["not", "null"]);
    let default = words.iter().position(|w| *w == "default").map(|at| words.get(at + 1).copied());
    if not_null && matches!(default, None | Some(None | Some("null"))) {
        return Err(Refusal::unsupported(
            "ALTER TABLE ADD COLUMN defined as NOT NULL must have a non-null default expression",
        ));
    }
    let (definition, _) = Columns { table, note: &mut note }.column(part, &[])?;
    let encodings = note.0.remove("encode").unwrap_or(json!({}));
    note.0.insert("add".into(), encodings);
    Ok(Plan::new(Kind::Alter, format!("ALTER TABLE {table} ADD COLUMN {definition} {}", note.comment()), Effect::Query))
}

/// Only the size of a VARCHAR, and not in a transaction block.
fn resize(table: &str, column: &str, kind: &[Token]) -> Result<Plan, Refusal> {
    let (written, end) = column_type(kind, 0, table, column)?;
    let length = written.strip_prefix("varchar(").and_then(|rest| rest.strip_suffix(')'));
    let (Some(length), true) = (length, end == kind.len()) else {
        return Err(Refusal::unsupported(format!(
            "cannot alter type of column \"{column}\": only the size of a VARCHAR column can be altered"
        )));
    };
    let sql = format!("CALL sim.widen({}::regclass, {}, {length})", literal(table), literal(column));
    Ok(Plan::new(Kind::Alter, sql, Effect::Alone("ALTER TABLE ALTER COLUMN")).tagged("ALTER TABLE"))
}

/// Distribution, sort keys, encodings; and what cannot be altered.
fn attributes(table: &str, parts: &[String], action: &[Token], words: &[&str]) -> Result<Plan, Refusal> {
    let mut note = Note::default();
    match words {
        ["column", column, "encode", encoding] => note.encode(column, encoding)?,
        ["distkey", column] => _ = note.0.insert("distkey".into(), json!(column)),
        ["column", _, "set" | "drop", what @ ..] => {
            return Err(Refusal::unsupported(format!(
                "ALTER COLUMN {} is not supported",
                what.join(" ").to_uppercase()
            )));
        }
        ["diststyle" | "sortkey" | "compound" | "encode", ..] => {
            note.attributes(action, 1)?;
        }
        _ => return Err(Refusal::syntax(parts.last().map_or("", String::as_str))),
    }
    let sql = format!(
        "CALL sim.set_attributes({}::regclass, {}::jsonb)",
        literal(table),
        literal(&json!(note.0).to_string())
    );
    Ok(Plan::new(Kind::Alter, sql, Effect::Alone("ALTER TABLE")).tagged("ALTER TABLE"))
}
