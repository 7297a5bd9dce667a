//! How a value is spelled on the wire, and which column types can take it.

use super::value::{Spelling, Unit};
use crate::config::Encoding;
use crate::contract::Type;

/// How a column's values are spelled in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::decode) enum Wire {
    /// No schema block says: only what token and column type make certain is read.
    Plain,
    Boolean,
    Integer,
    Float32,
    Float64,
    Text,
    Bytes(Spelling),
    /// Base64 of the unscaled value (or a JSON number, with `decimal.format=NUMERIC`).
    Decimal {
        scale: i32,
    },
    /// A decimal as people write it.
    DecimalText,
    /// `{"scale":…,"value":base64}`
    VariableDecimal,
    Days,
    Time(Unit),
    Timestamp(Unit),
    Duration(Unit),
    ZonedTimestamp,
    IsoDate,
    IsoTime,
    IsoTimestamp,
    Uuid,
    /// A text that holds a JSON document.
    JsonText,
    /// An object or array that is kept as JSON text.
    Nested,
}

impl Wire {
    /// Whether a column of type `to` can take values of this wire: each exactly, or refused one by one.
    pub fn fits(self, to: Type) -> bool {
        use Type as T;
        match self {
            Self::Plain => true,
            Self::Boolean => matches!(to, T::Boolean | T::SmallInt),
            Self::Integer => {
                matches!(to, T::SmallInt | T::Int | T::BigInt | T::Decimal { .. } | T::Numeric | T::Boolean)
            }
            Self::Float32 => matches!(to, T::Real | T::Double),
            Self::Float64 => matches!(to, T::Double),
            Self::Text => {
                matches!(to, T::Text { .. } | T::Uuid | T::Json | T::Decimal { .. } | T::Numeric)
                    || matches!(to, T::Date | T::Time | T::Timestamp | T::TimestampTz)
            }
            Self::Bytes(_) => matches!(to, T::Binary),
            Self::Decimal { .. } | Self::DecimalText | Self::VariableDecimal => {
                matches!(to, T::Decimal { .. } | T::Numeric)
            }
            Self::Days | Self::IsoDate => matches!(to, T::Date),
            Self::Time(_) | Self::IsoTime => matches!(to, T::Time | T::Duration),
            Self::Timestamp(_) | Self::IsoTimestamp => matches!(to, T::Timestamp),
            Self::Duration(_) => matches!(to, T::Duration),
            Self::ZonedTimestamp => matches!(to, T::TimestampTz | T::Text { .. }),
            Self::Uuid => matches!(to, T::Uuid | T::Text { .. }),
            Self::JsonText => matches!(to, T::Json | T::Text { .. }),
            Self::Nested => matches!(to, T::Json),
        }
    }

    /// The wire that a contract's `encoding` declares for a column; `None` when the two do not go together.
    pub fn declared(encoding: Encoding, column: Type) -> Option<Self> {
        let unit = match encoding {
            Encoding::Seconds => Some(Unit::Second),
            Encoding::Milliseconds => Some(Unit::Milli),
            Encoding::Microseconds => Some(Unit::Micro),
            Encoding::Nanoseconds => Some(Unit::Nano),
            _ => None,
        };
        match (column, encoding, unit) {
            (Type::Time, _, Some(unit)) => Some(Self::Time(unit)),
            (Type::Timestamp, _, Some(unit)) => Some(Self::Timestamp(unit)),
            (Type::TimestampTz, _, Some(unit)) => Some(Self::Timestamp(unit)),
            (Type::Duration, _, Some(unit)) => Some(Self::Duration(unit)),
            (Type::Date, Encoding::Days, _) => Some(Self::Days),
            (Type::Decimal { scale, .. }, Encoding::Base64, _) => Some(Self::Decimal { scale: i32::from(scale) }),
            (Type::Decimal { .. } | Type::Numeric, Encoding::Text, _) => Some(Self::DecimalText),
            (Type::Binary, Encoding::Base64, _) => Some(Self::Bytes(Spelling::Base64)),
            (Type::Binary, Encoding::Base64Url, _) => Some(Self::Bytes(Spelling::Base64Url)),
            (Type::Binary, Encoding::Hex, _) => Some(Self::Bytes(Spelling::Hex)),
            (Type::Date, Encoding::Text, _) => Some(Self::IsoDate),
            (Type::Time, Encoding::Text, _) => Some(Self::IsoTime),
            (Type::Timestamp, Encoding::Text, _) => Some(Self::IsoTimestamp),
            (Type::TimestampTz, Encoding::Text, _) => Some(Self::ZonedTimestamp),
            _ => None,
        }
    }
}
