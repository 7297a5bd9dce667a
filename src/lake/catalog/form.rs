//! Tables and partitions as Glue describes them: Hive's types, external tables of Parquet files.

use std::collections::BTreeSet;
use std::sync::Arc;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::ZONE;
use crate::contract::{Contract, Type};
use crate::lake::form;

/// A partition and where its files are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Partition {
    /// `dt=2026-11-22/hour=14`
    pub hour: String,
    pub location: String,
    /// Whose columns its files have.
    pub contract: Arc<Contract>,
    /// The hour was compacted: a partition that is there already moves.
    pub moved: bool,
}

/// The parameter that says how far a table's partitions were brought.
pub(super) const THROUGH: &str = "dataflow.through";
/// The parameter that says when a partition was given its place.
pub(super) const MOVED_AT: &str = "dataflow.moved_at";
/// The columns that a table's partitions have instead.
const PARTITIONED_BY: [&str; 2] = ["dt", "hour"];

/// Glue's `TableInput`.
pub(super) fn table(url: &str, contract: &Contract) -> Value {
    json!({
        "Name": contract.table.to_lowercase(),
        "TableType": "EXTERNAL_TABLE",
        "Parameters": { "EXTERNAL": "TRUE", "classification": "parquet", "dataflow.contract": contract.version.to_string() },
        "PartitionKeys": PARTITIONED_BY.map(|name| json!({ "Name": name, "Type": "string" })),
        "StorageDescriptor": storage(contract, &format!("{url}/{ZONE}/{}/", contract.table)),
    })
}

/// Glue's `PartitionInput`.
pub(super) fn partition(partition: &Partition, now: DateTime<Utc>) -> Value {
    let parameters = if partition.moved { json!({ MOVED_AT: now.to_rfc3339() }) } else { json!({}) };
    json!({
        "Values": values(&partition.hour),
        "Parameters": parameters,
        "StorageDescriptor": storage(&partition.contract, &partition.location),
    })
}

/// The values of a partition: day and hour.
pub(super) fn values(hour: &str) -> Vec<String> {
    hour.split('/').map(|part| part.split_once('=').map_or(part, |(_, value)| value).to_owned()).collect()
}

fn storage(contract: &Contract, location: &str) -> Value {
    json!({
        "Columns": columns(contract),
        "Location": location,
        "InputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetInputFormat",
        "OutputFormat": "org.apache.hadoop.hive.ql.io.parquet.MapredParquetOutputFormat",
        "SerdeInfo": {
            "SerializationLibrary": "org.apache.hadoop.hive.ql.io.parquet.serde.ParquetHiveSerDe",
            "Parameters": { "serialization.format": "1" },
        },
    })
}

/// The columns of the files, by name. Left out are those that Hive has no type for (decimals of more than 38 digits), and
/// those whose name is taken: by a partition's column, or by another that differs in its case alone.
fn columns(contract: &Contract) -> Vec<Value> {
    let own =
        contract.output.columns.iter().filter_map(|column| Some((column.name.as_str(), hive(&column.data_type)?)));
    let ours = [
        (form::OP, "string"),
        (form::SEQ, "string"),
        (form::PARTITION, "string"),
        (form::SOURCE_TIME, "timestamp"),
        (form::UNCHANGED, "string"),
    ];
    let mut taken: BTreeSet<String> = PARTITIONED_BY.map(str::to_owned).into();
    let all = own.chain(ours.map(|(name, kind)| (name, kind.to_owned())));
    let all = all.map(|(name, kind)| (name.to_lowercase(), kind));
    all.filter(|(name, _)| taken.insert(name.clone()))
        .map(|(name, kind)| json!({ "Name": name, "Type": kind }))
        .collect()
}

fn hive(kind: &Type) -> Option<String> {
    Some(match kind {
        Type::Boolean => "boolean".to_owned(),
        Type::SmallInt => "smallint".to_owned(),
        Type::Int => "int".to_owned(),
        // Times of day and durations are microseconds.
        Type::BigInt | Type::Time | Type::Duration => "bigint".to_owned(),
        Type::Real => "float".to_owned(),
        Type::Double => "double".to_owned(),
        Type::Decimal { precision, .. } if *precision > 38 => return None,
        Type::Decimal { precision, scale } => format!("decimal({precision},{scale})"),
        Type::Date => "date".to_owned(),
        Type::Timestamp | Type::TimestampTz => "timestamp".to_owned(),
        Type::Binary => "binary".to_owned(),
        Type::Numeric | Type::Text { .. } | Type::Json | Type::Uuid => "string".to_owned(),
    })
}
