//! What a column becomes so that it takes a value that it does not hold.
//!
//! Each step is a change of the warehouse's table, which may have to be written anew for it. So a column becomes wider
//! than the value asks for, and few values make it wider again:
//!
//! | column | value | becomes |
//! |---|---|---|
//! | varchar(n) | more bytes | the next power of two, up to 65,535 |
//! | smallint, int | a larger number | int, bigint |
//! | decimal(p,s), p up to 38 | more digits in front of the point | 18, 28 or 38 digits |
//! | | more digits behind the point | a scale of the next multiple of four; as many digits in front of it as before |
//!
//! A decimal ends at 38 digits, 37 of them behind the point: that is what every warehouse holds as a number.

use super::Type;

/// The longest text that a column with a limit comes to take, in bytes.
const WIDEST_TEXT: u32 = 65_535;

/// The numbers of digits that a decimal goes through.
const DIGITS: [u32; 3] = [18, 28, WIDEST_DECIMAL];
const WIDEST_DECIMAL: u32 = 38;
const FINEST_DECIMAL: u32 = 37;
const SCALE_STEP: u32 = 4;

/// The column that takes a text of so many bytes; `None` when none with a limit does.
pub fn for_text(bytes: usize) -> Option<Type> {
    let bytes = u32::try_from(bytes).ok().filter(|bytes| *bytes <= WIDEST_TEXT)?;
    Some(Type::Text { max_bytes: Some(bytes.next_power_of_two().min(WIDEST_TEXT)) })
}

/// The column that takes a whole number for which the one that it is for is too small.
pub fn for_integer(number: i64) -> Type {
    if i32::try_from(number).is_ok() { Type::Int } else { Type::BigInt }
}

/// What a `decimal(precision,scale)` becomes so that it takes a number of so many digits in front of the point and behind
/// it, and still all that it could have taken before; `None` when that is more than 38 digits, or 37 behind the point.
pub fn for_decimal(precision: u8, scale: i8, whole: u32, fraction: u32) -> Option<Type> {
    let (precision, scale) = (u32::from(precision), u32::try_from(scale).ok()?);
    let had = precision.checked_sub(scale)?;
    let front = whole.max(had);
    let room = WIDEST_DECIMAL.checked_sub(front)?.min(FINEST_DECIMAL);
    if fraction.max(scale) > room {
        return None;
    }
    let scale = if fraction > scale { fraction.next_multiple_of(SCALE_STEP).min(room) } else { scale };
    let least = front + scale;
    let more = DIGITS.into_iter().find(|digits| *digits >= least).filter(|_| whole > had);
    Some(Type::Decimal { precision: more.unwrap_or(least) as u8, scale: scale as i8 })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::contract::join_types;

    fn decimal(precision: u8, scale: i8) -> Type {
        Type::Decimal { precision, scale }
    }

    #[test]
    fn decimals_grow_in_steps_up_to_38_digits() {
        for (known, (whole, fraction), becomes) in [
            ((10, 2), (9, 2), Some((18, 2))),
            ((10, 2), (16, 0), Some((18, 2))),
            ((10, 2), (17, 0), Some((28, 2))),
            ((10, 2), (27, 1), Some((38, 2))),
            ((10, 2), (36, 2), Some((38, 2))),
            ((10, 2), (37, 0), None),
            ((10, 2), (8, 3), Some((12, 4))),
            ((10, 2), (1, 5), Some((16, 8))),
            ((10, 2), (9, 3), Some((18, 4))),
            ((5, 0), (5, 1), Some((9, 4))),
            ((5, 0), (6, 0), Some((18, 0))),
            ((2, 2), (1, 0), Some((18, 2))),
            // The digits in front of the point stay, so the scale takes what they leave.
            ((20, 2), (1, 18), Some((38, 20))),
            ((20, 2), (1, 20), Some((38, 20))),
            ((20, 2), (1, 21), None),
            ((38, 0), (1, 1), None),
            ((36, 0), (36, 1), Some((38, 2))),
            ((36, 0), (37, 1), Some((38, 1))),
            // Behind the point there are 37 at most, for a warehouse that has no more.
            ((4, 4), (0, 37), Some((37, 37))),
            ((4, 4), (0, 38), None),
            ((4, 4), (1, 37), Some((38, 37))),
            ((38, 38), (1, 0), None),
            ((50, 3), (48, 0), None),
        ] {
            let becomes = becomes.map(|(precision, scale)| decimal(precision, scale));
            assert_eq!(for_decimal(known.0, known.1, whole, fraction), becomes, "{known:?} {whole}.{fraction}");
        }
    }

    #[test]
    fn texts_and_integers_grow_in_steps() {
        let text = |bytes| Some(Type::Text { max_bytes: Some(bytes) });
        assert_eq!([for_text(4), for_text(5), for_text(40_000)], [text(4), text(8), text(65_535)]);
        assert_eq!([for_text(65_535), for_text(65_536), for_text(usize::MAX)], [text(65_535), None, None]);
        assert_eq!([for_integer(32_768), for_integer(i64::from(i32::MIN))], [Type::Int, Type::Int]);
        assert_eq!([for_integer(i64::from(i32::MAX) + 1), for_integer(i64::MIN)], [Type::BigInt, Type::BigInt]);
    }

    proptest! {
        #[test]
        fn what_a_decimal_becomes_holds_both_and_is_reached_by_joining(
            (precision, scale) in (1u8..=38).prop_flat_map(|p| (Just(p), 0..=p as i8)), whole in 0u32..45, fraction in 0u32..45,
        ) {
            let (had, behind) = (u32::from(precision) - scale as u32, scale as u32);
            match for_decimal(precision, scale, whole, fraction) {
                Some(Type::Decimal { precision: p, scale: s }) => {
                    prop_assert!(p <= 38 && s <= 37);
                    prop_assert!(u32::from(p) - s as u32 >= had.max(whole) && s as u32 >= behind.max(fraction));
                    prop_assert_eq!(join_types(decimal(precision, scale), decimal(p, s)), Some(decimal(p, s)));
                    // It takes the same value without another step.
                    prop_assert_eq!(for_decimal(p, s, whole, fraction), Some(decimal(p, s)));
                }
                other => {
                    prop_assert_eq!(other, None);
                    prop_assert!(had.max(whole) + behind.max(fraction) > 38 || behind.max(fraction) > 37);
                }
            }
        }
    }
}
