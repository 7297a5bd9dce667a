//! What a MySQL or MariaDB table and its columns are: what the source learns from the binary log and the catalog, and
//! the decoder reads values by.
//!
//! A table map event says how values stand ([`Form`]); with `binlog_row_metadata=FULL` it also says what they are
//! ([`Kind`]): names, signs, character sets, members, the primary key. Without it, that comes from the catalog or from a
//! schema history ([`CatalogColumn`]), and [`shape`](super::binlog::shape) checks that both speak of the same table.

use serde::{Deserialize, Serialize};

use super::mysqlcharset::Charset;

/// A table as the source describes it to the decoder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableShape {
    /// The number by which rows name it: within one partition.
    pub id: u64,
    /// `<database>.<table>`
    pub name: String,
    /// The columns in the order of the row images.
    pub columns: Vec<ColumnShape>,
}

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnShape {
    /// Its name.
    pub name: String,
    /// How its values stand in a row image.
    pub form: Form,
    /// What its values are.
    #[serde(flatten)]
    pub kind: Kind,
    /// Whether it is part of the primary key.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub key: bool,
    /// The constant that an insert takes which does not name the column, as the server prints it: a minimal row image
    /// leaves it out. `None` when it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<DefaultValue>,
}

/// What an insert takes for a column that it does not name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DefaultValue {
    Null,
    /// As the server prints it, without quotes.
    Text(String),
}

/// How a value stands in a row image; enough to find where it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// Little-endian, of 1, 2, 3, 4 or 8 bytes.
    Integer(u8),
    Float,
    Double,
    /// Packed in groups of nine digits.
    Decimal {
        precision: u8,
        scale: u8,
    },
    /// So many bits, big-endian in as few bytes as hold them.
    Bit(u8),
    /// One byte: years since 1900.
    Year,
    /// Three bytes.
    Date,
    /// Three bytes, before 5.6.4.
    OldTime,
    /// Eight bytes, before 5.6.4.
    OldDateTime,
    /// Four bytes, before 5.6.4.
    OldTimestamp,
    /// With so many fractional digits.
    Time(u8),
    /// With so many fractional digits.
    DateTime(u8),
    /// With so many fractional digits.
    Timestamp(u8),
    /// A length of so many bytes, and that many bytes.
    Bytes(u8),
    /// The same, holding binary JSON.
    Json(u8),
    /// A number from 1 in so many bytes.
    Enum(u8),
    /// A bitmap in so many bytes.
    Set(u8),
    /// Nothing.
    Null,
}

impl Form {
    /// The form of a type code and its metadata in a table map.
    pub fn of(code: u8, meta: u16) -> Option<Self> {
        let [low, high] = meta.to_le_bytes();
        Some(match code {
            code::TINY => Self::Integer(1),
            code::SHORT => Self::Integer(2),
            code::INT24 => Self::Integer(3),
            code::LONG => Self::Integer(4),
            code::LONGLONG => Self::Integer(8),
            code::FLOAT => Self::Float,
            code::DOUBLE => Self::Double,
            code::NEWDECIMAL if (1..=65).contains(&low) && high <= low && high <= 38 => {
                Self::Decimal { precision: low, scale: high }
            }
            code::BIT if (1..=64).contains(&meta) => Self::Bit(low),
            code::YEAR => Self::Year,
            code::DATE | code::NEWDATE => Self::Date,
            code::TIME => Self::OldTime,
            code::DATETIME => Self::OldDateTime,
            code::TIMESTAMP => Self::OldTimestamp,
            code::TIME2 if meta <= 6 => Self::Time(low),
            code::DATETIME2 if meta <= 6 => Self::DateTime(low),
            code::TIMESTAMP2 if meta <= 6 => Self::Timestamp(low),
            code::VARCHAR | code::VAR_STRING | code::STRING | code::VARCHAR_COMPRESSED => {
                Self::Bytes(if meta > 255 { 2 } else { 1 })
            }
            code::BLOB_COMPRESSED | code::VECTOR | code::TINY_BLOB..=code::BLOB | code::GEOMETRY
                if (1..=4).contains(&meta) =>
            {
                Self::Bytes(low)
            }
            code::JSON if (1..=4).contains(&meta) => Self::Json(low),
            code::ENUM if (1..=2).contains(&meta) => Self::Enum(low),
            code::SET if (1..=8).contains(&meta) => Self::Set(low),
            code::NULL => Self::Null,
            _ => return None,
        })
    }

    /// The length of the value that `bytes` begin with, its own length field included; `None` when they end before.
    #[inline]
    pub fn length(self, bytes: &[u8]) -> Option<usize> {
        let length = match self {
            Self::Integer(size) | Self::Enum(size) | Self::Set(size) => usize::from(size),
            Self::Bytes(size) | Self::Json(size) => {
                let field = bytes.get(..usize::from(size))?;
                usize::from(size) + little_endian(field) as usize
            }
            Self::Float | Self::OldTimestamp => 4,
            Self::Double | Self::OldDateTime => 8,
            Self::Decimal { precision, scale } => packed_decimal_length(precision, scale),
            Self::Bit(bits) => usize::from(bits).div_ceil(8),
            Self::Year => 1,
            Self::Date | Self::OldTime => 3,
            Self::Time(digits) => 3 + fraction_length(digits),
            Self::DateTime(digits) => 5 + fraction_length(digits),
            Self::Timestamp(digits) => 4 + fraction_length(digits),
            Self::Null => 0,
        };
        (length <= bytes.len()).then_some(length)
    }
}

/// Bytes of a fraction of a second with so many digits.
#[inline]
pub fn fraction_length(digits: u8) -> usize {
    usize::from(digits).div_ceil(2)
}

/// Bytes of so many digits, fewer than nine of them.
const DIGIT_BYTES: [usize; 10] = [0, 1, 1, 2, 2, 3, 3, 4, 4, 4];

/// The bytes of the whole and of the fractional digits of a packed decimal: full groups of nine, and the rest.
pub fn packed_decimal_length(precision: u8, scale: u8) -> usize {
    let part = |digits: u8| usize::from(digits / 9) * 4 + DIGIT_BYTES[usize::from(digits % 9)];
    part(precision.saturating_sub(scale)) + part(scale)
}

/// At most eight bytes as a number.
#[inline]
pub fn little_endian(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte))
}

/// What a column's values are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Kind {
    Integer {
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unsigned: bool,
    },
    /// `FLOAT` and `DOUBLE`, as the form says.
    Real,
    Decimal,
    Bit,
    Year,
    Date,
    Time,
    DateTime,
    Timestamp,
    Text {
        charset: Charset,
    },
    Binary {
        /// The width of a `BINARY(n)`, whose trailing zeros are not sent; 0 when values are as they stand.
        #[serde(default)]
        width: u16,
    },
    /// MariaDB's `TEXT COMPRESSED` and `VARCHAR COMPRESSED`.
    PackedText {
        charset: Charset,
    },
    /// MariaDB's `BLOB COMPRESSED` and `VARBINARY COMPRESSED`.
    PackedBinary,
    Enum {
        members: Vec<String>,
    },
    Set {
        members: Vec<String>,
    },
    Json,
    /// An SRID and a WKB.
    Geometry,
    /// 32-bit floats.
    Vector,
    /// MariaDB's: 16 bytes.
    Uuid,
    /// MariaDB's: 4 bytes.
    Inet4,
    /// MariaDB's: 16 bytes.
    Inet6,
    /// Its values cannot be read; rows that have one are refused with the reason.
    Unread {
        why: String,
    },
}

/// A column as `information_schema.columns` or a schema history knows it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CatalogColumn {
    /// `COLUMN_NAME`
    pub name: String,
    /// `DATA_TYPE`, in lower case: `varchar`, `int`, `uuid`
    pub data_type: String,
    /// `COLUMN_TYPE`: `varchar(20)`, `int(10) unsigned`, `enum('a','b')`
    pub column_type: String,
    /// `CHARACTER_SET_NAME`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub charset: Option<String>,
    /// `COLLATION_NAME`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation: Option<String>,
    /// Whether it is part of the primary key (`COLUMN_KEY = 'PRI'`).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub key: bool,
    /// `IS_NULLABLE`
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub nullable: bool,
    /// Whether it is generated, stored or virtual.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub generated: bool,
    /// Whether `SELECT *` leaves it out.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub invisible: bool,
    /// `ORDINAL_POSITION`, from 1.
    #[serde(default)]
    pub ordinal: u32,
    /// What an insert takes that does not name it; `None` when that is an expression or not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<DefaultValue>,
}

/// The codes of column types in a table map.
pub mod code {
    pub const DECIMAL: u8 = 0;
    pub const TINY: u8 = 1;
    pub const SHORT: u8 = 2;
    pub const LONG: u8 = 3;
    pub const FLOAT: u8 = 4;
    pub const DOUBLE: u8 = 5;
    pub const NULL: u8 = 6;
    pub const TIMESTAMP: u8 = 7;
    pub const LONGLONG: u8 = 8;
    pub const INT24: u8 = 9;
    pub const DATE: u8 = 10;
    pub const TIME: u8 = 11;
    pub const DATETIME: u8 = 12;
    pub const YEAR: u8 = 13;
    pub const NEWDATE: u8 = 14;
    pub const VARCHAR: u8 = 15;
    pub const BIT: u8 = 16;
    pub const TIMESTAMP2: u8 = 17;
    pub const DATETIME2: u8 = 18;
    pub const TIME2: u8 = 19;
    /// MariaDB's `TEXT COMPRESSED`.
    pub const BLOB_COMPRESSED: u8 = 140;
    /// MariaDB's `VARCHAR COMPRESSED`.
    pub const VARCHAR_COMPRESSED: u8 = 141;
    pub const VECTOR: u8 = 242;
    pub const JSON: u8 = 245;
    pub const NEWDECIMAL: u8 = 246;
    pub const ENUM: u8 = 247;
    pub const SET: u8 = 248;
    pub const TINY_BLOB: u8 = 249;
    pub const BLOB: u8 = 252;
    pub const VAR_STRING: u8 = 253;
    pub const STRING: u8 = 254;
    pub const GEOMETRY: u8 = 255;
}
