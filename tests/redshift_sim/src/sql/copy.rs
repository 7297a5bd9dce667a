//! The COPY statement: <https://docs.aws.amazon.com/redshift/latest/dg/r_COPY.html>.

use crate::fault::Kind;
use crate::lex::{Kind as Lexed, Token};
use crate::refusal::Refusal;

use super::{Effect, Plan, behind, name_parts};

/// A COPY of Parquet.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Copy {
    /// The table, as PostgreSQL reads its name.
    pub table: String,
    /// The columns, in the file's order; all of the table's if there are none.
    pub columns: Vec<String>,
    /// `s3://…`: a manifest, an object, or a prefix.
    pub from: String,
    /// MANIFEST.
    pub manifest: bool,
    /// SERIALIZETOJSON.
    pub serialize_to_json: bool,
    /// FILLRECORD.
    pub fill_record: bool,
    /// EXPLICIT_IDS.
    pub explicit_ids: bool,
    /// ACCEPTINVCHARS, and the character that is put in.
    pub accept_invalid: Option<char>,
    /// Who reads the bucket.
    pub authorization: Authorization,
}

/// Who reads the bucket.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Authorization {
    /// Nobody was named.
    #[default]
    Missing,
    /// `IAM_ROLE DEFAULT`.
    DefaultRole,
    /// `IAM_ROLE 'arn:…'`.
    Role(String),
    /// Keys.
    Keys {
        /// The access key's id.
        id: String,
        /// Its secret.
        secret: String,
    },
}

/// Options of COPY that a COPY of Parquet refuses:
/// <https://docs.aws.amazon.com/redshift/latest/dg/copy-usage_notes-copy-from-columnar.html>.
const NOT_FOR_PARQUET: [&str; 31] = [
    "acceptanydate",
    "blanksasnull",
    "bzip2",
    "compupdate",
    "comprows",
    "dateformat",
    "delimiter",
    "emptyasnull",
    "encoding",
    "encrypted",
    "escape",
    "fixedwidth",
    "gzip",
    "ignoreallerrors",
    "ignoreblanklines",
    "ignoreheader",
    "lzop",
    "maxerror",
    "master_symmetric_key",
    "noload",
    "null",
    "quote",
    "readratio",
    "region",
    "removequotes",
    "roundec",
    "ssh",
    "timeformat",
    "trimblanks",
    "truncatecolumns",
    "zstd",
];

/// Plans a COPY.
pub fn plan(tokens: &[Token]) -> Result<Plan, Refusal> {
    let copy = parse(tokens)?;
    Ok(Plan { kind: Kind::Copy, sql: String::new(), tag: None, effect: Effect::Copy(Box::new(copy)) })
}

fn parse(tokens: &[Token]) -> Result<Copy, Refusal> {
    let (table, _, mut at) = name_parts(tokens, 1)?;
    let mut copy = Copy { table, ..Copy::default() };
    if tokens.get(at).is_some_and(|t| t.is_symbol("(")) {
        let end = behind(tokens, at)?;
        let listed = tokens[at + 1..end - 1].iter().filter(|t| !t.is_symbol(","));
        copy.columns = listed
            .map(|t| t.name().map(str::to_owned).ok_or_else(|| Refusal::syntax(&t.value)))
            .collect::<Result<_, _>>()?;
        at = end;
    }
    if !tokens.get(at).is_some_and(|t| t.is("from")) {
        return Err(Refusal::syntax(tokens.get(at).map_or("end of input", |t| &t.value)));
    }
    copy.from = match tokens.get(at + 1) {
        Some(from) if from.kind == Lexed::Text && from.value.starts_with("s3://") => from.value.clone(),
        Some(from) if from.kind == Lexed::Text => {
            return Err(Refusal::not_emulated("COPY from anything but S3"));
        }
        _ => {
            return Err(Refusal::unsupported(
                "LOAD source is not supported. (Hint: only S3 or DynamoDB or EMR based load is allowed)",
            ));
        }
    };
    let mut options = Options { rest: &tokens[at + 2..], copy, format: None, secret: None };
    while let Some(word) = options.next() {
        options.option(&word)?;
    }
    options.finish()
}

struct Options<'a> {
    rest: &'a [Token],
    copy: Copy,
    format: Option<String>,
    secret: Option<String>,
}

impl Options<'_> {
    fn next(&mut self) -> Option<String> {
        let (first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first.value.clone())
    }

    /// Takes a word if it comes next.
    fn takes(&mut self, words: &[&str]) -> bool {
        let there = self.rest.first().is_some_and(|t| t.is_any(words));
        if there {
            self.rest = &self.rest[1..];
        }
        there
    }

    fn text(&mut self) -> Result<String, Refusal> {
        match self.rest.first() {
            Some(token) if token.kind == Lexed::Text => Ok(self.next().unwrap_or_default()),
            other => Err(Refusal::syntax(other.map_or("end of input", |t| &t.value))),
        }
    }

    fn option(&mut self, word: &str) -> Result<(), Refusal> {
        match word {
            "with" | "as" => {}
            "iam_role" if self.takes(&["default"]) => self.copy.authorization = Authorization::DefaultRole,
            "iam_role" => self.copy.authorization = Authorization::Role(self.text()?),
            "credentials" => {
                self.takes(&["as"]);
                let text = self.text()?;
                self.credentials(&text)?;
            }
            "access_key_id" => {
                self.takes(&["as"]);
                let id = self.text()?;
                let secret = self.secret.take().unwrap_or_default();
                self.copy.authorization = Authorization::Keys { id, secret };
            }
            "secret_access_key" => {
                self.takes(&["as"]);
                let given = self.text()?;
                match &mut self.copy.authorization {
                    Authorization::Keys { secret, .. } => *secret = given,
                    _ => self.secret = Some(given),
                }
            }
            "session_token" | "token" => {
                self.takes(&["as"]);
                self.text()?;
            }
            "format" => {
                self.takes(&["as"]);
                self.format = self.next();
                self.copy.serialize_to_json |= self.takes(&["serializetojson"]);
            }
            "parquet" | "csv" | "json" | "avro" | "orc" | "shapefile" => {
                self.format = Some(word.to_owned());
                self.copy.serialize_to_json |= self.takes(&["serializetojson"]);
            }
            "manifest" => self.copy.manifest = true,
            "statupdate" => _ = self.takes(&["on", "off", "true", "false"]),
            "fillrecord" => self.copy.fill_record = true,
            "explicit_ids" => self.copy.explicit_ids = true,
            "acceptinvchars" => self.accept_invalid()?,
            other if NOT_FOR_PARQUET.contains(&other) => {
                let option = other.to_uppercase();
                return Err(Refusal::unsupported(format!("{option} argument is not supported for PARQUET based COPY")));
            }
            other => return Err(Refusal::syntax(other)),
        }
        Ok(())
    }

    /// One character, a question mark unless another is given:
    /// <https://docs.aws.amazon.com/redshift/latest/dg/copy-parameters-data-conversion.html#acceptinvchars>.
    fn accept_invalid(&mut self) -> Result<(), Refusal> {
        self.takes(&["as"]);
        let given = if self.rest.first().is_some_and(|t| t.kind == Lexed::Text) { self.text()? } else { "?".into() };
        let mut chars = given.chars();
        self.copy.accept_invalid = chars.next().filter(|c| c.is_ascii() && *c != '\0');
        if self.copy.accept_invalid.is_none() || chars.next().is_some() {
            return Err(Refusal::new("22023", "ACCEPTINVCHARS replacement must be a single ASCII character"));
        }
        Ok(())
    }

    /// <https://docs.aws.amazon.com/redshift/latest/dg/copy-parameters-authorization.html>
    fn credentials(&mut self, text: &str) -> Result<(), Refusal> {
        let part = |name: &str| {
            text.split(';').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('=')).map(str::to_owned)
        };
        self.copy.authorization = match (part("aws_iam_role"), part("aws_access_key_id"), part("aws_secret_access_key"))
        {
            (Some(role), None, None) => Authorization::Role(role),
            (None, Some(id), Some(secret)) => Authorization::Keys { id, secret },
            _ => {
                return Err(Refusal::new(
                    "XX000",
                    "Invalid credentials. Must be of the format: credentials 'aws_iam_role=...' or 'aws_access_key_id=...;aws_secret_access_key=...[;token=...]'",
                ));
            }
        };
        Ok(())
    }

    fn finish(self) -> Result<Copy, Refusal> {
        match self.format.as_deref() {
            Some("parquet") => Ok(self.copy),
            Some(other) => Err(Refusal::not_emulated(&format!("COPY of {}", other.to_uppercase()))),
            None => Err(Refusal::not_emulated("COPY of delimited text")),
        }
    }
}
