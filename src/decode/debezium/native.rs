//! Values that come in binary and need no spelling, for the same builders.

use arrow::datatypes::i256;
use chrono::DateTime;

use super::builder::{Problem, Widening, too_large};
use super::value::{self, Unscaled};

/// A value of a binary protocol.
#[derive(Debug, Clone, Copy)]
pub(in crate::decode) enum Native<'a> {
    Whole(i64),
    Unsigned(u64),
    Single(f32),
    Double(f64),
    /// A decimal of so many digits behind the point.
    Decimal(&'a Unscaled, i32),
    /// Days since 1970.
    Days(i32),
    /// A time of day, a length of time, or a time since 1970, in microseconds.
    Micros(i64),
    /// A JSON document, known to be one.
    Document(&'a str),
    Bytes(&'a [u8]),
}

type Got<T> = Result<T, Problem>;

const NO_NUMBER: Problem = Problem::Kind("a whole number is expected");

impl<'a> Native<'a> {
    #[inline]
    pub(super) fn whole<T: TryFrom<i64> + TryFrom<u64>>(self, widening: Widening) -> Got<T> {
        match self {
            Self::Whole(number) => T::try_from(number).map_err(|_| too_large(number, widening)),
            Self::Unsigned(number) => T::try_from(number).map_err(|_| too_large(number, widening)),
            _ => Err(NO_NUMBER),
        }
    }

    pub(super) fn boolean(self) -> Got<bool> {
        match self {
            Self::Whole(0) | Self::Unsigned(0) => Ok(false),
            Self::Whole(1) | Self::Unsigned(1) => Ok(true),
            _ => Err(Problem::Kind("true or false (or 1 or 0) is expected")),
        }
    }

    pub(super) fn single(self) -> Got<f32> {
        match self {
            Self::Single(number) => Ok(number),
            _ => Err(Problem::Kind("a number is expected")),
        }
    }

    pub(super) fn double(self) -> Got<f64> {
        match self {
            Self::Single(number) => Ok(f64::from(number)),
            Self::Double(number) => Ok(number),
            _ => Err(Problem::Kind("a number is expected")),
        }
    }

    /// Calls `take` with the digits and how many of them stand behind the point.
    #[inline]
    pub(super) fn decimal<T>(self, take: impl FnOnce(&Unscaled, i32) -> T) -> Got<T> {
        match self {
            Self::Decimal(unscaled, scale) => Ok(take(unscaled, scale)),
            Self::Whole(number) => Ok(take(&Unscaled::Small(i128::from(number)), 0)),
            Self::Unsigned(number) => Ok(take(&Unscaled::Small(i128::from(number)), 0)),
            _ => Err(Problem::Kind("a decimal number is expected")),
        }
    }

    pub(super) fn to_i256(self, precision: u8, scale: i8) -> Got<i256> {
        self.decimal(|unscaled, from| value::to_i256(unscaled, from, precision, scale).map_err(Problem::Kind))?
    }

    pub(super) fn to_numeric(self) -> Got<String> {
        self.decimal(value::to_numeric)
    }

    pub(super) fn days(self) -> Got<i32> {
        match self {
            Self::Days(days) => Ok(days),
            _ => Err(Problem::Kind("a date is expected")),
        }
    }

    #[inline]
    pub(super) fn micros(self) -> Got<i64> {
        match self {
            Self::Micros(micros) => Ok(micros),
            _ => Err(Problem::Kind("a time is expected")),
        }
    }

    /// A moment as text, for columns that were declared so.
    pub(super) fn instant(self) -> Got<String> {
        match self {
            Self::Micros(micros) => {
                let time =
                    DateTime::from_timestamp_micros(micros).ok_or(Problem::Value("it is beyond the calendar"))?;
                Ok(time.format("%Y-%m-%dT%H:%M:%S%.6fZ").to_string())
            }
            Self::Document(text) => Ok(text.to_owned()),
            _ => Err(Problem::Kind("a text is expected")),
        }
    }

    pub(super) fn document(self) -> Got<&'a str> {
        match self {
            Self::Document(text) => Ok(text),
            _ => Err(Problem::Kind("a JSON document is expected")),
        }
    }

    pub(super) fn bytes(self) -> Got<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            _ => Err(Problem::Kind("bytes are expected")),
        }
    }
}
