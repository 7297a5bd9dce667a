//! Widening as a commutative lattice: two processes that learn different things at once reach the same contract.
//!
//! `join` is commutative, associative and idempotent; a value that fits either side fits the join exactly. Where no
//! such type exists the pair is incompatible, and the table's policy decides (`quarantine | park | ignore`).

use super::{Column, TableSchema, Type};

/// Two types that no type holds both of, or two keys that differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incompatible {
    /// The column, or empty for the key.
    pub column: String,
    /// What the contract says.
    pub known: String,
    /// What was seen.
    pub seen: String,
}

/// The smallest type that holds every value of both, exactly.
pub fn join_types(a: Type, b: Type) -> Option<Type> {
    if a == b {
        return Some(a);
    }
    join_ordered(a, b).or_else(|| join_ordered(b, a))
}

fn join_ordered(a: Type, b: Type) -> Option<Type> {
    use Type::{BigInt, Decimal, Double, Int, Numeric, Real, SmallInt, Text};
    match (a, b) {
        (SmallInt, Int) => Some(Int),
        (SmallInt | Int, BigInt) => Some(BigInt),
        (Real, Double) => Some(Double),
        (SmallInt, Decimal { precision, scale }) => Some(decimal(5, 0, precision, scale)),
        (Int, Decimal { precision, scale }) => Some(decimal(10, 0, precision, scale)),
        (BigInt, Decimal { precision, scale }) => Some(decimal(19, 0, precision, scale)),
        (Decimal { precision: p, scale: s }, Decimal { precision, scale }) => Some(decimal(p, s, precision, scale)),
        (SmallInt | Int | BigInt | Decimal { .. }, Numeric) => Some(Numeric),
        (Text { max_bytes: Some(m) }, Text { max_bytes: Some(n) }) => Some(Text { max_bytes: Some(m.max(n)) }),
        (Text { .. }, Text { .. }) => Some(Type::TEXT),
        _ => None,
    }
}

/// Keeps all digits on both sides of the point; more than 76 of them become text-like [`Type::Numeric`].
fn decimal(p: u8, s: i8, precision: u8, scale: i8) -> Type {
    let whole = (i16::from(p) - i16::from(s)).max(i16::from(precision) - i16::from(scale));
    let scale = s.max(scale);
    match u8::try_from(whole + i16::from(scale)) {
        Ok(precision) if precision <= 76 => Type::Decimal { precision, scale },
        _ => Type::Numeric,
    }
}

/// The smallest schema that holds rows of both. Columns keep the order of `known`; new ones follow in name order, so
/// that two processes that add different columns agree.
pub fn join_schemas(known: &TableSchema, seen: &TableSchema) -> Result<TableSchema, Incompatible> {
    if known.key != seen.key {
        let text = |key: &[String]| if key.is_empty() { "no key".to_owned() } else { key.join(", ") };
        return Err(Incompatible { column: String::new(), known: text(&known.key), seen: text(&seen.key) });
    }
    let mut columns = Vec::with_capacity(known.columns.len());
    for column in &known.columns {
        let Some(other) = seen.column(&column.name) else {
            // A row without the column must be storable: the column can no longer promise a value.
            let nullable = column.nullable || !known.key.contains(&column.name);
            columns.push(Column { nullable, ..column.clone() });
            continue;
        };
        let data_type = join_types(column.data_type, other.data_type).ok_or_else(|| Incompatible {
            column: column.name.clone(),
            known: column.data_type.to_string(),
            seen: other.data_type.to_string(),
        })?;
        columns.push(Column { data_type, nullable: column.nullable || other.nullable, ..column.clone() });
    }
    let mut added: Vec<Column> = seen.columns.iter().filter(|c| known.column(&c.name).is_none()).cloned().collect();
    added.sort_by(|a, b| a.name.cmp(&b.name));
    columns.extend(added.into_iter().map(|column| Column { nullable: true, ..column }));
    Ok(TableSchema { columns, key: known.key.clone() })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_type() -> impl Strategy<Value = Type> {
        prop_oneof![
            Just(Type::Boolean),
            Just(Type::SmallInt),
            Just(Type::Int),
            Just(Type::BigInt),
            Just(Type::Real),
            Just(Type::Double),
            Just(Type::Numeric),
            Just(Type::Date),
            Just(Type::Timestamp),
            Just(Type::TEXT),
            (1u32..100).prop_map(|n| Type::Text { max_bytes: Some(n) }),
            (1u8..=76)
                .prop_flat_map(|p| (Just(p), 0..=p as i8))
                .prop_map(|(precision, scale)| Type::Decimal { precision, scale }),
        ]
    }

    proptest! {
        #[test]
        fn join_is_commutative_and_idempotent(a in any_type(), b in any_type()) {
            prop_assert_eq!(join_types(a, b), join_types(b, a));
            prop_assert_eq!(join_types(a, a), Some(a));
            if let Some(joined) = join_types(a, b) {
                prop_assert_eq!(join_types(joined, a), Some(joined));
            }
        }

        #[test]
        fn join_is_associative(a in any_type(), b in any_type(), c in any_type()) {
            let left = join_types(a, b).and_then(|ab| join_types(ab, c));
            let right = join_types(b, c).and_then(|bc| join_types(a, bc));
            prop_assert_eq!(left, right);
        }
    }
}
