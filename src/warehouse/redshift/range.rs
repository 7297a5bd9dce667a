//! The range of keys of what is staged, on the column that the target is sorted by: blocks outside of it are not read.

use arrow::array::{Array, AsArray};
use arrow::compute::{max, min};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Int16Type, Int32Type, Int64Type, TimeUnit, TimestampMicrosecondType,
};

use super::sql::time;
use crate::config::TableLayout;
use crate::epoch::TableLoad;
use crate::warehouse::merge::Range;

/// The range, where the table is sorted by a part of its key, and its values can be written as literals.
pub(super) fn of(load: &TableLoad, layout: &TableLayout) -> Option<Range> {
    let schema = &load.contract.output;
    let column = layout.sort.first().filter(|column| schema.key.contains(column))?;
    let index = schema.columns.iter().position(|c| c.name == *column)?;
    let mut bounds: Option<(i64, i64)> = None;
    let mut data_type = None;
    for changes in load.rows.iter().filter(|changes| !changes.is_empty()) {
        let values = changes.rows.column(index);
        let (low, high) = within(values)?;
        data_type = Some(values.data_type().clone());
        bounds = Some(bounds.map_or((low, high), |(lowest, highest)| (lowest.min(low), highest.max(high))));
    }
    let ((low, high), data_type) = (bounds?, data_type?);
    Some(Range { column: column.clone(), low: literal(&data_type, low)?, high: literal(&data_type, high)? })
}

fn within(values: &dyn Array) -> Option<(i64, i64)> {
    fn bounds<T: ArrowPrimitiveType<Native: Into<i64>>>(values: &dyn Array) -> Option<(i64, i64)> {
        let values = values.as_primitive_opt::<T>()?;
        // A key has values; where it has not, nothing is left out.
        if values.null_count() > 0 { None } else { Some((min(values)?.into(), max(values)?.into())) }
    }
    match values.data_type() {
        DataType::Int16 => bounds::<Int16Type>(values),
        DataType::Int32 => bounds::<Int32Type>(values),
        DataType::Int64 => bounds::<Int64Type>(values),
        DataType::Date32 => bounds::<Date32Type>(values),
        DataType::Timestamp(TimeUnit::Microsecond, None) => bounds::<TimestampMicrosecondType>(values),
        _ => None,
    }
}

fn literal(data_type: &DataType, value: i64) -> Option<String> {
    match data_type {
        DataType::Date32 => {
            let day = chrono::DateTime::from_timestamp(value.checked_mul(86_400)?, 0)?;
            Some(format!("DATE '{}'", day.format("%Y-%m-%d")))
        }
        DataType::Timestamp(..) => chrono::DateTime::from_timestamp_micros(value).map(|_| time(value)),
        _ => Some(value.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{Date32Array, Int64Array, StringArray};

    use super::*;

    #[test]
    fn bounds_are_those_of_the_values() {
        assert_eq!(within(&Int64Array::from(vec![5, -3, 9])), Some((-3, 9)));
        assert_eq!(within(&Int64Array::from(vec![Some(5), None])), None);
        assert_eq!(within(&StringArray::from(vec!["a"])), None);
        let days = Date32Array::from(vec![0, 20_000]);
        let (low, high) = within(&days).expect("dates");
        let literal = |day| literal(days.data_type(), day);
        assert_eq!(
            (literal(low).as_deref(), literal(high).as_deref()),
            (Some("DATE '1970-01-01'"), Some("DATE '2024-10-04'"))
        );
    }
}
