//! Which Parquet columns load into which columns of a table.
//!
//! The rules are those of <https://docs.aws.amazon.com/redshift/latest/dg/copy-usage_notes-copy-from-columnar.html> and of
//! the types that Redshift's scan of external files knows
//! (<https://docs.aws.amazon.com/redshift/latest/dg/c-spectrum-external-tables.html>, `…/copy_json-from-parquet-orc.html`).
//! Where no page says that something loads, it is refused here, so that no loader comes to rely on it:
//! <https://github.com/apache/arrow/issues/38000> (nanoseconds), decimals of another precision or scale, unsigned 32 and 64
//! bits, TIME, VARBYTE of a given length.

use parquet::basic::{Compression, ConvertedType, LogicalType, TimeUnit, Type as Physical};
use parquet::file::metadata::ParquetMetaData;
use parquet::schema::types::Type;

use crate::Options;
use crate::refusal::Refusal;
use crate::sql::copy::Copy;

/// The type of a table's column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnType {
    Smallint,
    Integer,
    Bigint,
    Real,
    Double,
    Boolean,
    Decimal(i32, i32),
    Date,
    Timestamp,
    TimestampTz,
    Varchar(usize),
    Char(usize),
    Super,
    Varbyte,
    Other(String),
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    pub name: String,
    pub kind: ColumnType,
    pub not_null: bool,
    pub identity: bool,
    /// Whether the file at hand says that its text is JSON.
    pub json_text: bool,
    /// Whether strings in it may be as long as documents.
    pub long_strings: bool,
}

impl Column {
    /// Whether the file at hand says that its text is JSON.
    pub fn is_json_text(&self) -> bool {
        self.json_text
    }

    /// From the catalog: name, type, its modifier, NOT NULL, identity.
    pub fn read(row: &[Option<String>]) -> Option<Self> {
        let text = |n: usize| row.get(n).and_then(Option::as_deref);
        let modifier: i32 = text(2)?.parse().ok()?;
        let length = usize::try_from(modifier - 4).unwrap_or(65_535);
        let kind = match text(1)? {
            "int2" => ColumnType::Smallint,
            "int4" => ColumnType::Integer,
            "int8" => ColumnType::Bigint,
            "float4" => ColumnType::Real,
            "float8" => ColumnType::Double,
            "bool" => ColumnType::Boolean,
            "numeric" => ColumnType::Decimal((modifier - 4) >> 16, (modifier - 4) & 0x7ff),
            "date" => ColumnType::Date,
            "timestamp" => ColumnType::Timestamp,
            "timestamptz" => ColumnType::TimestampTz,
            "varchar" | "text" => ColumnType::Varchar(length),
            "bpchar" => ColumnType::Char(length),
            "super" | "jsonb" => ColumnType::Super,
            "varbyte" | "bytea" => ColumnType::Varbyte,
            other => ColumnType::Other(other.to_owned()),
        };
        Some(Self {
            name: text(0)?.to_owned(),
            kind,
            not_null: text(3)? == "t",
            identity: text(4)? == "t",
            json_text: false,
            long_strings: false,
        })
    }

    /// The type as error messages name it.
    pub fn type_name(&self) -> &str {
        match &self.kind {
            ColumnType::Smallint => "SMALLINT",
            ColumnType::Integer => "INT",
            ColumnType::Bigint => "BIGINT",
            ColumnType::Real => "REAL",
            ColumnType::Double => "DOUBLE PRECISION",
            ColumnType::Boolean => "BOOLEAN",
            ColumnType::Decimal(..) => "DECIMAL",
            ColumnType::Date => "DATE",
            ColumnType::Timestamp => "TIMESTAMP",
            ColumnType::TimestampTz => "TIMESTAMPTZ",
            ColumnType::Varchar(_) => "VARCHAR",
            ColumnType::Char(_) => "CHAR",
            ColumnType::Super => "SUPER",
            ColumnType::Varbyte => "VARBYTE",
            ColumnType::Other(name) => name,
        }
    }

    /// The type as the error views name it, in ten characters.
    pub fn short_type(&self) -> &str {
        let name = self.type_name();
        &name[..name.len().min(10)]
    }

    /// How many bytes fit.
    pub fn length(&self) -> Option<usize> {
        match self.kind {
            ColumnType::Varchar(n) | ColumnType::Char(n) => Some(n),
            _ => None,
        }
    }
}

/// Whether a file has the columns that are wanted, by position, of types that load, packed as Redshift unpacks.
pub fn check_file(
    url: &str,
    file: &ParquetMetaData,
    columns: &mut [Column],
    copy: &Copy,
    options: &Options,
) -> Result<(), Refusal> {
    let fields = file.file_metadata().schema().get_fields();
    let fewer_is_fine = copy.fill_record && fields.len() < columns.len();
    if fields.len() != columns.len() && !fewer_is_fine {
        let context = format!(
            "Unmatched number of columns between table and file. Table columns: {}, Data columns: {}, File name: {}",
            columns.len(),
            fields.len(),
            https(url)
        );
        return Err(Refusal::spectrum(15_007, &context));
    }
    for (column, field) in columns.iter_mut().zip(fields) {
        let marked = matches!(field.get_basic_info().logical_type_ref(), Some(LogicalType::Json));
        column.json_text = marked && !options.json_as_text;
        column.long_strings = options.json_as_text;
        if !loads(column, field, copy) {
            let context = format!(
                "File '{}' has an incompatible Parquet schema for column '{url}.{}'. Column type: {}, Parquet schema:\n{}",
                https(url),
                field.name(),
                column.type_name(),
                describe(field)
            );
            return Err(Refusal::spectrum(15_007, &context));
        }
    }
    for group in file.row_groups() {
        for chunk in group.columns() {
            let packed = chunk.compression();
            let known = matches!(packed, Compression::UNCOMPRESSED | Compression::SNAPPY)
                || options.zstd_parquet && matches!(packed, Compression::ZSTD(_));
            if !known {
                return Err(Refusal::spectrum(15_001, &format!("File '{}' uses compression {packed:?}.", https(url))));
            }
        }
    }
    Ok(())
}

fn loads(column: &Column, field: &Type, copy: &Copy) -> bool {
    if !field.is_primitive() {
        // <https://docs.aws.amazon.com/redshift/latest/dg/ingest-super.html>
        return column.kind == ColumnType::Super && copy.serialize_to_json;
    }
    let (physical, logical) = (field.get_physical_type(), field.get_basic_info().logical_type_ref());
    let converted = field.get_basic_info().converted_type();
    let integer = |width: i8| match logical {
        None => width == if physical == Physical::INT32 { 32 } else { 64 },
        Some(LogicalType::Integer(int)) if int.is_signed => int.bit_width <= width,
        Some(LogicalType::Integer(int)) => int.bit_width < width,
        Some(_) => false,
    };
    let text = matches!(logical, None | Some(LogicalType::String | LogicalType::Json | LogicalType::Enum))
        && !matches!(converted, ConvertedType::DECIMAL | ConvertedType::BSON);
    match (&column.kind, physical) {
        (ColumnType::Smallint, Physical::INT32) => integer(16),
        (ColumnType::Integer, Physical::INT32) => integer(32),
        (ColumnType::Bigint, Physical::INT64) => integer(64),
        (ColumnType::Real, Physical::FLOAT)
        | (ColumnType::Double, Physical::DOUBLE)
        | (ColumnType::Boolean, Physical::BOOLEAN) => true,
        (ColumnType::Decimal(precision, scale), Physical::INT32 | Physical::INT64 | Physical::FIXED_LEN_BYTE_ARRAY) => {
            matches!(logical, Some(LogicalType::Decimal(d)) if d.precision == *precision && d.scale == *scale)
        }
        (ColumnType::Date, Physical::INT32) => matches!(logical, Some(LogicalType::Date)),
        (ColumnType::Timestamp, Physical::INT64) => timestamp(logical).is_some(),
        (ColumnType::TimestampTz, Physical::INT64) => timestamp(logical) == Some(true),
        (ColumnType::Varchar(_) | ColumnType::Char(_), Physical::BYTE_ARRAY) => text,
        (ColumnType::Varbyte, Physical::BYTE_ARRAY) => logical.is_none(),
        (ColumnType::Super, Physical::BYTE_ARRAY) => text,
        (
            ColumnType::Super,
            Physical::BOOLEAN | Physical::INT32 | Physical::INT64 | Physical::FLOAT | Physical::DOUBLE,
        ) => {
            matches!(logical, None | Some(LogicalType::Integer(_) | LogicalType::Decimal(_)))
        }
        _ => false,
    }
}

/// Whether a time is one of UTC, if it is one in milliseconds or microseconds.
fn timestamp(logical: Option<&LogicalType>) -> Option<bool> {
    match logical {
        Some(LogicalType::Timestamp(t)) if t.unit != TimeUnit::NANOS => Some(t.is_adjusted_to_u_t_c),
        _ => None,
    }
}

/// The URL that the error names.
fn https(url: &str) -> String {
    url.replacen("s3://", "https://s3.amazonaws.com/", 1)
}

fn describe(field: &Type) -> String {
    let info = field.get_basic_info();
    let optional =
        if info.has_repetition() { format!("{:?}", info.repetition()).to_lowercase() } else { "required".into() };
    let kind =
        if field.is_primitive() { format!("{:?}", field.get_physical_type()).to_lowercase() } else { "group".into() };
    let note = info.logical_type_ref().map_or_else(String::new, |logical| format!(" ({logical:?})"));
    format!("{optional} {kind} {}{note} [i:0 d:1 r:0]", info.name())
}
